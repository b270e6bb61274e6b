"""The one tree of errors.

Every message names the problem and the next step; a class exists for each thing that a caller
can do something about::

    StreamlabError
     +- SettingsError            an address or a knob cannot be used as given
     |   +- NotRunning           nobody has started the server that is asked for
     +- StackError               a server could not be installed, started or stopped
     |   +- MissingTool          a program that the server needs is not on this machine
     |   +- PortTaken            another program listens on the port
     |   +- StartFailed          the server died, or was not ready in time
     |   +- UnusableState        the state on disk belongs to another version
     |   +- HomeBusy             another process holds the lock of this home
     |   +- LeasesHeld           live lesson runs use the servers
     +- NotOurs                  refused: the server was not started by streamlab
     +- DownloadError            a download failed, or what arrived is not what was asked for
     +- LessonError              a lesson cannot go on, or a check did not hold
     |   +- CheckFailed          an exercise's check did not pass
     |   +- NotWrong             a cell that should fail did not, or failed for another reason
     +- RetriesExhausted         the last of a bounded number of attempts failed
     +- ChangeStreamError        reading a stream of changes failed
     |   +- ProtocolError        bytes that are not what the protocol allows
     |   +- RecordingError       a file that is no recording, or a damaged one
     |   +- StreamLost           the connection broke or the server went down; reading can go on
     |   +- CannotCapture        server, role or table is not set up so that changes can be read
     |   |   +- PublicationUnusable  there is no such publication, or it does not hold the tables
     |   +- LogPurged            the binary log that a position stands for is gone, or never was on this server
     |   +- SlotUnusable         the replication slot cannot be read
     |       +- SlotMissing      there is no such slot
     |       +- SlotInUse        another reader holds it
     |       +- SlotLost         the server has thrown away log that the slot needed
     +- CheckpointError          a position could not be stored
     |   +- Fenced               another consumer has acquired the checkpoint
     |   +- CheckpointBehind     the position does not lie after the stored one
     |   +- CheckpointBusy       the former holder's transaction is still open
     +- ConnectError             Kafka Connect does not do what it is asked
     |   +- ConnectorMissing     there is no such connector
     |   +- ConnectorRefused     the configuration is wrong, by its lint or by the worker
     |   +- ConnectorFailed      the connector or a task of it has ended with an error
     |   +- NotDelivered         Kafka has not taken what a connector of our own sent
     +- CrashTestError           a crash test could not be carried out
     |   +- NeverReached         the failpoint was not passed, so nothing was proved
     +- ProxyError               a proxy could not do what it was told
     +- UnknownParameter         a lesson has no parameter of that name
"""

from __future__ import annotations

__all__ = [
    "CannotCapture",
    "ChangeStreamError",
    "CheckFailed",
    "CheckpointBehind",
    "CheckpointBusy",
    "CheckpointError",
    "ConnectError",
    "ConnectorFailed",
    "ConnectorMissing",
    "ConnectorRefused",
    "CrashTestError",
    "DownloadError",
    "Fenced",
    "HomeBusy",
    "LeasesHeld",
    "LessonError",
    "LogPurged",
    "MissingTool",
    "NeverReached",
    "NotDelivered",
    "NotOurs",
    "NotRunning",
    "NotWrong",
    "PortTaken",
    "ProtocolError",
    "ProxyError",
    "PublicationUnusable",
    "RecordingError",
    "RetriesExhausted",
    "SettingsError",
    "SlotInUse",
    "SlotLost",
    "SlotMissing",
    "SlotUnusable",
    "StackError",
    "StartFailed",
    "StreamLost",
    "StreamlabError",
    "UnknownParameter",
    "UnusableState",
]


class StreamlabError(Exception):
    """Base of all errors of this package.

    Parameters
    ----------
    problem : str
        What is wrong, in one sentence.
    fix : str, optional
        The next step for the person who reads it.
    """

    def __init__(self, problem: str, fix: str = "") -> None:
        self.problem = problem
        self.fix = fix
        super().__init__(problem, fix)

    def __str__(self) -> str:
        return f"{self.problem} {self.fix}".strip()


class SettingsError(StreamlabError):
    """An address or a knob cannot be used as given."""


class NotRunning(SettingsError):
    """No address is known for a service: nothing in the environment, and no stack is up."""


class StackError(StreamlabError):
    """A server could not be installed, started or stopped."""


class MissingTool(StackError):
    """A program that a server needs is not on this machine and cannot be fetched."""


class PortTaken(StackError):
    """Another program listens on a port that a server needs."""


class StartFailed(StackError):
    """A server died while starting, or was not ready within its limit."""


class UnusableState(StackError):
    """The state on disk was written by a version that this one cannot read."""


class HomeBusy(StackError):
    """Another streamlab process is changing the same home."""


class LeasesHeld(StackError):
    """Live lesson runs use the servers, so they are not reset under them."""


class NotOurs(StreamlabError):
    """Refused, because streamlab did not start that server or does not own that object."""


class DownloadError(StreamlabError):
    """A download failed, or what arrived is broken."""


class LessonError(StreamlabError):
    """A lesson cannot go on."""


class CheckFailed(LessonError):
    """The check of an exercise did not pass."""


class NotWrong(LessonError):
    """A cell that shows a mistake did not fail, or failed for another reason than the one it teaches."""


class RetriesExhausted(StreamlabError):
    """The last of a bounded number of attempts failed; `__cause__` is that failure."""


class ChangeStreamError(StreamlabError):
    """Reading a stream of changes failed."""


class ProtocolError(ChangeStreamError):
    """Bytes arrived that the protocol does not allow."""


class StreamLost(ChangeStreamError):
    """The connection broke, or the server went down; the stream can be taken up again."""


class NotAcknowledged(ChangeStreamError):
    """Reading cannot go on before what was handed out is acknowledged."""


class CannotCapture(ChangeStreamError):
    """The server, the role or a table is not set up so that its changes can be read."""


class PublicationUnusable(CannotCapture):
    """There is no such publication, or it does not hold the tables that are asked for."""


class LogPurged(ChangeStreamError):
    """A server does not have the binary log that a position stands for: changes are lost to its reader."""


class SlotUnusable(ChangeStreamError):
    """A replication slot cannot be read."""


class SlotMissing(SlotUnusable):
    """There is no such slot."""


class SlotInUse(SlotUnusable):
    """Another reader holds the slot, or a former one has not been let go of yet."""


class SlotLost(SlotUnusable):
    """The server has thrown away log that the slot needed: changes are lost to its reader."""


class RecordingError(ChangeStreamError):
    """A file is no recording, was written by a newer version, or is damaged."""


class CheckpointError(StreamlabError):
    """A consumer's position could not be stored."""


class Fenced(CheckpointError):
    """Another consumer has acquired the checkpoint: roll back and stop."""


class CheckpointBehind(CheckpointError):
    """A position does not lie after the stored one: what is being applied was applied before."""


class CheckpointBusy(CheckpointError):
    """The former holder has moved the checkpoint in a transaction that is still open."""


class ConnectError(StreamlabError):
    """Kafka Connect does not answer, or does not do what it is asked."""


class ConnectorMissing(ConnectError):
    """The worker knows no connector of that name."""


class ConnectorRefused(ConnectError):
    """A configuration is wrong: the lint or the worker says so, and nothing was changed."""


class ConnectorFailed(ConnectError):
    """A connector or a task of it has ended with an error; the message has the first lines of its trace."""


class NotDelivered(ConnectError):
    """Kafka has not taken what a connector of our own sent, or nobody knows: it comes again."""


class CrashTestError(StreamlabError):
    """A crash test could not be carried out, so it says nothing about what it tests."""


class NeverReached(CrashTestError):
    """The program ended without passing the failpoint as often as asked: nothing was proved."""


class ProxyError(StreamlabError):
    """A proxy could not do what it was told."""


class UnknownParameter(StreamlabError):
    """A lesson has no parameter of that name."""
