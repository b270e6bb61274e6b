"""What a kernel of the project is started with, so that it says nothing but what the notebook says.

A kernel that runs on loopback warns at each start that its sockets are not encrypted, which in a terminal looks like a
fault and in a batch run hides one; and whoever ends a kernel interrupts it first, which it reports as an error where it
is just between two cells. The first message comes from ipykernel's own start, before any cell, and is no setting of
its own; so it is taken out by a filter in the configuration of an IPython profile. Everything else that a kernel has to
say still arrives. The profile has a second merit: startup files and extensions of a user's own profile do not
change what a lesson does in batch.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from pathlib import Path

from streamlab import settings

__all__ = ["environment"]

log = logging.getLogger(__name__)

_CONFIG = """\
# Written by streamlab; it is made again when it is missing.
import logging

# The kernel listens on 127.0.0.1, and its messages are signed. It is asked to end by an interrupt between two cells.
_EXPECTED = ("Kernel is running over TCP without encryption", "KeyboardInterrupt caught in kernel")
logging.getLogger("IPKernelApp").addFilter(lambda record: not record.getMessage().startswith(_EXPECTED))
# A history of lessons is of no use, and several kernels would wait for each other's lock on its file.
get_config().HistoryManager.hist_file = ":memory:"
"""


def environment(*, batch: bool = True, folder: Path | None = None) -> dict[str, str]:
    """Environment variables for a process that starts kernels, or for a kernel itself.

    Parameters
    ----------
    batch : bool
        Nobody looks on: nothing that this process inherited from a live notebook may say so. False for JupyterLab,
        where an ``IPYTHONDIR`` of the user's own stays.
    folder : Path, optional
        Where the profile goes; by default beside the downloads. Where it cannot be written there, kernels work all the
        same, which is logged, and are noisier.

    Returns
    -------
    dict
        To be laid over `os.environ`.
    """
    # The debugger warns of Python's frozen modules where a kernel's command line does not turn them off.
    values = {"PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    if batch and settings.flag("STREAMLAB_LIVE") is None:
        values["STREAMLAB_LIVE"] = "0"
    if not batch and os.environ.get("IPYTHONDIR"):
        return values
    try:
        values["IPYTHONDIR"] = str(_profile(folder or settings.cache()))
    except OSError as error:
        log.warning("Kernels keep the user's IPython profile: %s (%s).", error.filename, error.strerror)
    return values


def _profile(folder: Path) -> Path:
    """The directory for IPYTHONDIR. Its name holds what is in it, so that two versions do not share one."""
    directory = folder / f"ipython-{hashlib.sha256(_CONFIG.encode()).hexdigest()[:12]}"
    profile = directory / "profile_default"
    profile.mkdir(mode=0o700, parents=True, exist_ok=True)
    config = profile / "ipython_kernel_config.py"
    try:
        if config.read_text(encoding="utf-8") == _CONFIG:
            return directory
    except (FileNotFoundError, UnicodeDecodeError):
        pass
    descriptor, name = tempfile.mkstemp(dir=profile)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(_CONFIG)
        # Whole or not at all: another kernel may be starting.
        Path(name).replace(config)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return directory
