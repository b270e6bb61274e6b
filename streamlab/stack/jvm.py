"""What the JVM servers share: how they are started, and archives of loaded classes.

Starting a JVM server is mostly loading classes. The first run of a server writes an archive of them when
it stops (``-XX:ArchiveClassesAtExit``), later starts map that archive into memory (JEP 350) and take
about half the time. The archive belongs to one Java and one set of jars, and its name says which.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from streamlab.stack import ports
from streamlab.stack.home import write_private
from streamlab.stack.jars import entry_name, jars, pom_version
from streamlab.stack.java import MINIMUM_JAVA, java
from streamlab.stack.service import Service

__all__ = ["JVMService", "property_file"]

_ALGORITHM = "sha256"


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
    """A server on the Java virtual machine; unless it says otherwise, on Kafka's jars."""

    heap: ClassVar[str] = "384m"
    compiler: ClassVar[tuple[str, ...]] = ("-XX:TieredStopAtLevel=1",)
    """What makes machine code: the quick compiler alone, for servers that live for minutes and share two cores."""
    minimum_java: ClassVar[int] = MINIMUM_JAVA
    archived_as: ClassVar[str] = ""
    """Whose archive of classes it uses, where that is not its own."""

    _java: Path
    _java_version = ""
    _jars: Path

    def install(self) -> None:
        """Find Java and fetch the jars."""
        self._java, self._java_version = java(self.context, self.name, self.minimum_java)
        self._jars = self._fetch()

    def _fetch(self) -> Path:
        """The directory of the jars on the classpath, fetched where it is missing."""
        return jars(self.context, self.name)

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
        owner = self.archived_as or self.name
        text = f"{owner} {self._java.resolve()} {self._java_version} {self._jars}"
        name = f"{owner}-{hashlib.new(_ALGORITHM, text.encode()).hexdigest()[:12]}.jsa"
        shared = self.context.cache.path / name
        return shared if os.access(shared, os.R_OK) or os.access(shared.parent, os.W_OK) else self.room / name

    def command(self, main: str, *arguments: str, options: Sequence[str] = ()) -> list[str]:
        """The command that runs a class of the jars; long options go through an argument file."""
        lines = [
            *options,
            f"-Xmx{self.heap}",
            "-XX:+UseSerialGC",
            *self.compiler,
            "-XX:+ExitOnOutOfMemoryError",
            "-Djava.awt.headless=true",
            *self._logging(),
            "-cp",
            ":".join(str(jar) for jar in sorted(self._jars.glob("*.jar"))),
            main,
        ]
        quoted = ('"' + line.replace("\\", "\\\\").replace('"', '\\"') + '"' for line in lines)
        write_private(self.argument_file(main), "\n".join(quoted) + "\n", self.home.user)
        return [str(self._java), f"@{self.argument_file(main)}", *arguments]

    def argument_file(self, main: str) -> Path:
        """Where the options of a class lie; its path stands on the command line."""
        return self.room / f"{main.rpartition('.')[2]}.args"

    def _logging(self) -> list[str]:
        logging = self.room / "log4j2.properties"
        write_private(logging, _LOGGING, self.home.user)
        return [f"-Dlog4j2.configurationFile={logging}"]

    def archive_options(self) -> list[str]:
        """Use the archive of classes, or write it when the server stops."""
        archive = self.archive()
        if archive.exists():
            return [f"-XX:SharedArchiveFile={archive}", "-Xshare:auto", "-Xlog:cds=off", "-Xlog:cds+dynamic=off"]
        return [f"-XX:ArchiveClassesAtExit={self.room / 'classes.jsa'}", "-Xlog:cds=off", "-Xlog:cds+dynamic=off"]

    def answers(self, path: str) -> bool:
        """Whether its HTTP interface answers a GET with 200, within two seconds."""
        connection = http.client.HTTPConnection(ports.HOST, self.port, timeout=2.0)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

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
