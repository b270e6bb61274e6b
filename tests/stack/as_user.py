"""Run a piece of code as an ordinary user: everything is imported first, then root's rights are given up for good.

The interpreter itself often lies where that user cannot reach it (below root's 0700 home); so the process does
not start as that user, it becomes it. Usage: ``python as_user.py UID GID CODE``.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys

import streamlab.stack.jars

# What is imported in the middle of the work, by us and by others.
MODULES = (
    "confluent_kafka.admin", "encodings.idna", "encodings.latin_1", "encodings.utf_16_be", "filelock", "httpx",
    "json", "multiprocessing", "platformdirs.unix", "psycopg_binary", "pymysql.connections", "queue", "stringprep",
    "streamlab.cli", "tarfile", "traceback", "unicodedata", "zipfile", "linecache", "concurrent.futures.thread",
)  # fmt: skip


def main() -> None:
    for module in pkgutil.iter_modules(streamlab.stack.__path__):
        if module.name != "maven":
            importlib.import_module(f"streamlab.stack.{module.name}")
    for name in MODULES:
        importlib.import_module(name)
    streamlab.stack.jars.pom("kafka")
    uid, gid = int(sys.argv[1]), int(sys.argv[2])
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    os.umask(0o077)
    assert os.geteuid() == uid
    exec(compile(sys.argv[3], "code", "exec"), {"__name__": "__main__"})  # noqa: S102 - what this program is for


if __name__ == "__main__":
    main()
