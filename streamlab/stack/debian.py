"""Debian packages unpacked into a private prefix: no root, no change to the system.

A private apt state (its own lists, cache and status file) asks the mirror that this machine is
already configured with, as `apt-get indextargets` tells it; signatures are verified as always. The
packages are downloaded only, and unpacked with ``dpkg -x``. The programs then run through the prefix's
own dynamic loader, so that they need nothing of the system's C library.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from streamlab.errors import DownloadError, MissingTool
from streamlab.stack.process import run_tool

__all__ = ["loader", "os_release", "supported", "unpack"]

_KEYRINGS = Path("/usr/share/keyrings")


def os_release() -> dict[str, str]:
    """``/etc/os-release`` as a dictionary; empty where there is none."""
    try:
        lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {key: value.strip('"') for key, _, value in pairs}


def supported() -> bool:
    """Whether this is a Debian or an Ubuntu with apt and dpkg."""
    return os_release().get("ID") in {"debian", "ubuntu"} and bool(shutil.which("apt-get") and shutil.which("dpkg"))


def _sources() -> str:
    """The lines of a sources.list: this machine's own mirror, the suite that has the package."""
    release = os_release()
    query = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(ORIGIN)", "Created-By: Packages"]
    text = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    rows = [line.split() for line in text.splitlines()]
    mirrors = [row[0] for row in rows if len(row) > 1 and row[1] == release.get("VERSION_CODENAME")]
    if not mirrors:
        raise DownloadError(
            "apt is configured with no mirror of this release.", "Run: apt-get update; or set STREAMLAB_MYSQLD."
        )
    if release["ID"] == "ubuntu":
        name = release["VERSION_CODENAME"]
        suites = [(f"{name}{pocket}", "main universe") for pocket in ("", "-updates", "-security")]
    else:
        suites = [("sid", "main")]
    keyring = next(iter(sorted(_KEYRINGS.glob(f"{release['ID']}-archive-keyring.*"))), None)
    option = f"[signed-by={keyring}] " if keyring else ""
    return "".join(f"deb {option}{mirrors[0]} {suite} {components}\n" for suite, components in suites)


def unpack(
    packages: Sequence[str], target: Path, *, cancel: threading.Event, report: Callable[[str], None], room: Path
) -> None:
    """Download packages with what they depend on, and unpack them into `target`, for the service of `room`.

    Raises
    ------
    MissingTool
        This is neither Debian nor Ubuntu.
    StackError
        apt or dpkg failed; the end of its output is in the message.
    """
    if not supported():
        raise MissingTool("There is no apt on this machine.", "Install the server by other means.")
    state = target / ".apt"
    for directory in ("etc/preferences.d", "state/lists/partial", "cache/archives/partial"):
        (state / directory).mkdir(parents=True)
    architecture = subprocess.run(
        ["dpkg", "--print-architecture"], capture_output=True, text=True, check=True
    ).stdout.strip()
    # The one package that is taken for granted: perl, which only maintainer scripts would use.
    (state / "status").write_text(
        "Package: perl\nStatus: install ok installed\nVersion: 5.99\nMulti-Arch: allowed\n"
        f"Architecture: {architecture}\nMaintainer: none\nDescription: none\n\n",
        encoding="utf-8",
    )
    (state / "etc/sources.list").write_text(_sources(), encoding="utf-8")
    options = {
        "Dir::Etc": f"{state}/etc",
        "Dir::Etc::sourcelist": f"{state}/etc/sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::netrc": "/etc/apt/auth.conf",
        "Dir::Etc::netrcparts": "/etc/apt/auth.conf.d",
        "Dir::State": f"{state}/state",
        "Dir::State::status": f"{state}/status",
        "Dir::Cache": f"{state}/cache",
        "Acquire::Check-Valid-Until": "false",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        "APT::Architecture": architecture,
        "APT::Install-Recommends": "false",
        # The download user of the system cannot write here; nothing is executed.
        "APT::Sandbox::User": "root",
    }
    apt = ["apt-get", "-q", *(part for key, value in options.items() for part in ("-o", f"{key}={value}"))]
    report("reading the package lists")
    run_tool([*apt, "update"], what="apt-get update", cancel=cancel, room=room)
    report("downloading the packages")
    run_tool([*apt, "install", "-y", "--download-only", *packages], what="apt-get install", cancel=cancel, room=room)
    report("unpacking the packages")
    for package in sorted((state / "cache/archives").glob("*.deb")):
        run_tool(["dpkg", "-x", str(package), str(target)], what=f"dpkg -x {package.name}", cancel=cancel, room=room)
    shutil.rmtree(state)


def loader(prefix: Path) -> Path:
    """The dynamic loader of a prefix, whatever the architecture calls it."""
    for pattern in (
        "usr/lib64/ld-linux*.so.*",
        "usr/lib/ld-linux*.so.*",
        "lib64/ld-linux*.so.*",
        "usr/lib/*/ld-linux*.so.*",
    ):
        for path in sorted(prefix.glob(pattern)):
            return path
    raise DownloadError(f"{prefix} has no dynamic loader.", "Run: streamlab down --purge, then streamlab up")
