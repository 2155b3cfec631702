"""The members of Twisted that `http` uses although they are private or undocumented.

Twisted has no public way to see a request between its head and its content, to know what a
transport has not sent, or to write at once. `check_twisted` makes an incompatible version of
Twisted fail when the Site is imported, and not with the first request.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import FunctionType
from typing import NamedTuple

from twisted.internet.abstract import FileDescriptor
from twisted.internet.tcp import Connection
from twisted.protocols.tls import BufferingTLSTransport
from twisted.web.http import HTTPChannel, Request

from twisted import __version__

TESTED_VERSION = "26.10"


class Private(NamedTuple):
    """A member of a class of Twisted, why it is needed, and the modules of `http` that use it."""

    owner: type
    name: str
    reason: str
    used_in: str


PRIVATES = (
    Private(HTTPChannel, "_command", "begin a request whose head was parsed here", "connection"),
    Private(HTTPChannel, "_path", "begin a request whose head was parsed here", "connection"),
    Private(HTTPChannel, "_version", "begin a request whose head was parsed here", "connection"),
    Private(HTTPChannel, "_handlingRequest", "know whether a request is handled", "connection"),
    Private(HTTPChannel, "_waitingForTransport", "know whether the peer reads", "connection"),
    Private(HTTPChannel, "_networkProducer", "pause and lend the transport", "connection"),
    Private(HTTPChannel, "_send100Continue", "send it when a handler reads", "connection"),
    Private(Request, "_disconnected", "know whether the connection was lost", "request"),
    Private(FileDescriptor, "dataBuffer", "know and drop unsent data", "transport"),
    Private(FileDescriptor, "offset", "know how much of `dataBuffer` was sent", "transport"),
    Private(FileDescriptor, "_tempDataBuffer", "know and drop unsent data", "transport"),
    Private(FileDescriptor, "_tempDataLen", "know the size of `_tempDataBuffer`", "transport"),
    Private(FileDescriptor, "disconnecting", "know whether this side closes", "closing, timeouts"),
    Private(FileDescriptor, "startWriting", "be called when the socket takes more", "sending"),
    Private(Connection, "writeSomeData", "write in this turn of the event loop", "transport"),
    Private(Connection, "TLS", "know whether written data is encrypted", "transport"),
    Private(Connection, "bufferSize", "choose how much is received at a time", "input"),
    Private(BufferingTLSTransport, "_lostTLSConnection", "end without an error", "transport"),
)


def has_member(owner: type, name: str) -> bool:
    """Whether `owner` or a base class has the attribute `name`, or its methods use one."""
    return hasattr(owner, name) or any(
        isinstance(member, FunctionType) and name in member.__code__.co_names
        for base in owner.__mro__
        for member in vars(base).values()
    )


def check_twisted(privates: Iterable[Private] = PRIVATES) -> None:
    """Check that the installed Twisted has all of these members.

    :raises ImportError: if one is missing.
    """
    missing = [f"{p.owner.__name__}.{p.name}" for p in privates if not has_member(p.owner, p.name)]
    if missing:
        raise ImportError(
            f"twistedmedia does not work with Twisted {__version__}, which lacks "
            f"{', '.join(missing)}; install Twisted {TESTED_VERSION}"
        )
