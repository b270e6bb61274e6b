"""References that do not fit into our environment: packages of their own, each measured in a process of its own.

``benchmarks/requirements.txt`` lists them, whole and with exact versions. They are installed into a virtual
environment below the cache, once for each content of that file and each Python. A reference is a
program that ends by printing one line of JSON with what it did and how long that took::

    {"work": 100000, "seconds": 1.87}

The program takes the time itself, so its start and its imports are not counted. Libraries may print too: the
last line counts.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from streamlab import settings
from streamlab.errors import StackError, StreamlabError
from streamlab.stack.cache import Cache
from streamlab.stack.process import run_tool

__all__ = ["REQUIREMENTS", "References", "answer", "rate"]

REQUIREMENTS = Path(__file__).with_name("requirements.txt")


class References:
    """The environment of the references, made when it is first asked for. Processes and threads may share it.

    Parameters
    ----------
    requirements : Path
        The list of packages.
    tell : callable, optional
        Called with what is being done, when it takes long.
    """

    def __init__(self, requirements: Path = REQUIREMENTS, tell: Callable[[str], None] | None = None) -> None:
        self.requirements = requirements
        self._tell = tell or (lambda _text: None)

    @property
    def name(self) -> str:
        """The environment's name in the cache: what is installed, and for which Python."""
        interpreter = f"{sys.implementation.cache_tag} {platform.system()} {platform.machine()}"
        digest = hashlib.sha256(self.requirements.read_bytes() + interpreter.encode()).hexdigest()
        return f"references-{digest[:12]}"

    def python(self) -> Path:
        """The environment's interpreter; two runs at once make the environment once.

        Raises
        ------
        StreamlabError
            A package could not be installed; the installer's last lines are in the message.
        """
        directory = settings.cache()
        try:
            directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        except OSError as error:
            raise StackError(
                f"{directory} cannot be made: {error.strerror}.", "Set STREAMLAB_CACHE to a directory of your own."
            ) from error
        cache = Cache(directory, threading.Event())
        path = cache.ensure(self.name, self._make, waiting=lambda: self._tell("another run installs the references"))
        return _interpreter(path)

    def _make(self, target: Path) -> None:
        self._tell("installing the references")
        what, python = "Installing the references", str(_interpreter(target))
        # Complete and exact, so nothing is resolved: what one package asks for and another replaces is not fetched.
        arguments = ["--quiet", "--no-deps", "--requirement", str(self.requirements)]
        never = threading.Event()
        env = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
        if uv := _uv():
            make = [*uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(target)]
            # Copies, because the cache sets the modes of its files, and links would share uv's own.
            fill = [*uv, "pip", "install", "--link-mode", "copy", "--python", python, *arguments]
        else:
            make = [sys.executable, "-m", "venv", str(target)]
            fill = [python, "-m", "pip", "install", "--disable-pip-version-check", *arguments]
        run_tool(make, what=what, cancel=never, limit=120, env=env)
        run_tool(fill, what=what, cancel=never, limit=900, env=env)

    def run(
        self,
        program: Path,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        limit: float = 600.0,
    ) -> dict[str, Any]:
        """Run a reference to its end; returns its answer.

        Parameters
        ----------
        program : Path
            A Python file.
        arguments : str
            Its arguments. Everybody can read them in the list of processes: secrets belong into `env`.
        env : mapping, optional
            Added to the environment.
        limit : float
            Seconds until it is ended.

        Raises
        ------
        StreamlabError
            It failed, took too long, or did not answer as agreed.
        """
        command = [str(self.python()), str(program), *arguments]
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as complaints:
            # Files, not pipes: a child that a reference leaves behind would keep a pipe open, and us waiting.
            process = subprocess.Popen(
                command,
                env={**os.environ, "PYTHONUTF8": "1", **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=complaints,
                start_new_session=True,
            )
            try:
                process.wait(limit)
            except subprocess.TimeoutExpired as error:
                raise StreamlabError(f"The reference {program.name} took longer than {limit:.0f} s.") from error
            finally:
                # With the children that it may have left.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            if process.returncode:
                end = "\n".join(_read(complaints).splitlines()[-12:])
                raise StreamlabError(f"The reference {program.name} failed (exit code {process.returncode}):\n{end}")
            return answer(program.name, _read(output))


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace").strip()


def answer(program: str, output: str) -> dict[str, Any]:
    """The last line of what a reference printed, as JSON.

    Raises
    ------
    StreamlabError
        It is no JSON object.
    """
    lines = output.strip().splitlines()
    try:
        found = json.loads(lines[-1]) if lines else None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise StreamlabError(
            f"The reference {program} did not end with a line of JSON.",
            'It should print {"work": ..., "seconds": ...} last.',
        )
    return found


def rate(found: Mapping[str, Any]) -> float:
    """Work per second, from a reference's answer."""
    try:
        return float(found["work"]) / float(found["seconds"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise StreamlabError(
            f"A reference answered {dict(found)}.", 'It should answer {"work": ..., "seconds": ...}, both above zero.'
        ) from error


def _interpreter(environment: Path) -> Path:
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _uv() -> list[str]:
    """The command of uv, or an empty list where there is none."""
    if found := shutil.which("uv"):
        return [found]
    module = [sys.executable, "-m", "uv"]
    known = subprocess.run([*module, "--version"], capture_output=True, check=False).returncode == 0
    return module if known else []
