"""Jars, plugins and servers that come through Maven as this machine has it configured: a pom.xml here says which."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import xml.etree.ElementTree as ET
import zipfile
from importlib.resources import files
from pathlib import Path

from streamlab.connect.connectors.common import AVRO_CONVERTER
from streamlab.errors import DownloadError, MissingTool, StackError
from streamlab.stack.java import environment
from streamlab.stack.process import run_tool
from streamlab.stack.service import Context

__all__ = ["converters", "entry_name", "jars", "plugins", "pom", "pom_version", "registry"]

_ALGORITHM = "sha256"


def pom(name: str) -> str:
    """The text of one of this package's Maven files."""
    return files("streamlab.stack.maven").joinpath(f"{name}.xml").read_text(encoding="utf-8")


def pom_version(name: str, key: str) -> str:
    """A version that a Maven file of this package sets."""
    space = {"m": "http://maven.apache.org/POM/4.0.0"}
    found = ET.fromstring(pom(name)).findtext(f"m:properties/m:{key}", namespaces=space)  # noqa: S314
    if not found:
        raise StackError(f"The Maven file {name}.xml sets no {key}.")
    return found


def entry_name(name: str, version: str) -> str:
    """The cache entry of a Maven file: another text makes another entry."""
    return f"{name}-{version}-{hashlib.new(_ALGORITHM, pom(name).encode()).hexdigest()[:8]}"


def _maven(context: Context, service: str, name: str, target: Path) -> None:
    program = shutil.which("mvn")
    if not program:
        raise MissingTool(
            "Kafka and Kafka Connect are fetched with Maven, and there is no `mvn` on PATH.",
            "Install Maven (Debian: apt-get install maven; macOS: brew install maven). "
            "The PostgreSQL lessons run without it.",
        )
    work = target / ".maven"
    work.mkdir()
    (work / "pom.xml").write_text(pom(name), encoding="utf-8")
    command = [
        program, "--batch-mode", "--no-transfer-progress", "--strict-checksums", "-Dstyle.color=never",
        "-f", str(work / "pom.xml"),
        "dependency:copy-dependencies", f"-DoutputDirectory={target}", "-DincludeScope=runtime",
    ]  # fmt: skip
    # A repository of this download alone: for a user without one, and where the user's holds broken files.
    own = f"-Dmaven.repo.local={work / 'repository'}"

    def fetch(*more: str) -> None:
        room = context.home.room(service)
        run_tool([*command, *more], what="Maven", cancel=context.cancel, env=environment(), limit=1200, room=room)

    # Maven's local repository is not made for two writers at once.
    with context.cache.lock("maven", lambda: context.report(service, "waiting for another download")):
        context.report(service, f"fetching {name} with Maven")
        try:
            fetch()
        except StackError as error:
            if "local repository" not in error.problem:
                raise
            fetch(own)
        if broken := _broken(target):
            # Maven does not look again at what its repository has.
            context.report(service, f"{broken} is broken in Maven's local repository; fetching afresh")
            for file in target.glob("*.*"):
                if file.is_file():
                    file.unlink()
            fetch(own)
            if broken := _broken(target):
                raise DownloadError(f"{broken} arrives broken.", "Check the mirror that Maven is configured with.")
    shutil.rmtree(work)


def _broken(directory: Path) -> str:
    for file in sorted(directory.iterdir()):
        if file.suffix == ".jar" and not zipfile.is_zipfile(file):
            return file.name
        if file.name.endswith(".tar.gz"):
            try:
                with tarfile.open(file) as archive:
                    archive.getmembers()
            except (tarfile.TarError, EOFError, OSError):
                return file.name
    return ""


def jars(context: Context, service: str) -> Path:
    """The directory of Kafka's jars, fetched where it is missing."""
    name = entry_name("kafka", pom_version("kafka", "kafka.version"))
    return context.cache.ensure(
        name,
        lambda target: _maven(context, service, "kafka", target),
        waiting=lambda: context.report(service, "waiting for the jars"),
    )


def plugins(context: Context, service: str) -> Path:
    """The directory of the Debezium plugins, one directory each."""

    def build(target: Path) -> None:
        _maven(context, service, "debezium", target)
        _unpack(context, service, "the Debezium plugins", target)

    return context.cache.ensure(
        entry_name("debezium", pom_version("debezium", "debezium.version")),
        build,
        waiting=lambda: context.report(service, "waiting for the plugins"),
    )


def converters(context: Context, service: str) -> Path:
    """The directory of the Avro converter, a plugin like the others.

    Its jar names no plugin (``META-INF/services``), and the worker looks nowhere else. Kafka's ``connect-plugin-path
    sync-manifests`` would write that file after a scan of 20 s; this is the jar that it writes.
    """

    def build(target: Path) -> None:
        plugin = target / "apicurio-converter"
        plugin.mkdir()
        _maven(context, service, "converters", plugin)
        with zipfile.ZipFile(plugin / "manifest.jar", "w") as jar:
            jar.writestr("META-INF/services/org.apache.kafka.connect.storage.Converter", f"{AVRO_CONVERTER}\n")

    return context.cache.ensure(
        entry_name("converters", pom_version("converters", "converters.version")),
        build,
        waiting=lambda: context.report(service, "waiting for the converters"),
    )


def registry(context: Context, service: str) -> Path:
    """The directory of Apicurio Registry, unpacked."""

    def build(target: Path) -> None:
        _maven(context, service, "registry", target)
        _unpack(context, service, "the registry", target)

    return context.cache.ensure(
        entry_name("registry", pom_version("registry", "registry.version")),
        build,
        waiting=lambda: context.report(service, "waiting for the registry's jars"),
    )


def _unpack(context: Context, service: str, what: str, target: Path) -> None:
    context.report(service, f"unpacking {what}")
    for archive in sorted(target.glob("*.tar.gz")):
        _extract(archive, target)
        archive.unlink()


def _extract(archive: Path, target: Path) -> None:
    """Unpack plain files and directories alone. (`filter="data"` needs Python 3.11.4; Debian 12 has 3.11.2.)"""
    root = target.resolve()
    with tarfile.open(archive) as content:
        for member in content.getmembers():
            path = (root / member.name).resolve()
            if not path.is_relative_to(root) or not (member.isfile() or member.isdir()):
                raise DownloadError(f"{archive.name} holds {member.name}, which is out of place.", "Fetch it again.")
            if member.isdir():
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            source = content.extractfile(member)
            if source is not None:
                with source, path.open("wb") as file:
                    shutil.copyfileobj(source, file)
