"""The private members of Twisted that `http` uses: all are in a table, and behave as expected."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, Request

import twisted
import twistedmedia.http
from twistedmedia.http.twisted_privates import PRIVATES, Private, check_twisted, has_member

FOLDER = Path(twistedmedia.http.__file__).parent
MODULES = {
    path.stem: ast.parse(path.read_text())
    for path in FOLDER.glob("*.py")
    if path.stem not in ("__init__", "twisted_privates")
}
IN_TABLE = {private.name for private in PRIVATES}
GET = b"GET /path HTTP/1.1\r\nHost: a\r\n\r\n"


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def attributes(tree: ast.AST) -> list[ast.Attribute]:
    found = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    return [node for node in found if is_private(node.attr)]


def is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


def defined(tree: ast.AST) -> set[str]:
    """The private names that a class or module defines: functions, classes and attributes."""
    named = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    names = {node.name for node in ast.walk(tree) if isinstance(node, named)}
    stored = {node.attr for node in attributes(tree) if isinstance(node.ctx, ast.Store)}
    slots = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    targets = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return {str(name) for name in names | stored | slots | targets if is_private(str(name))}


def classes_of_twisted(cls: type) -> list[type]:
    bases = cls.__mro__ if inspect.isclass(cls) else ()  # an Interface is not a class
    return [base for base in bases if base.__module__.startswith("twisted.")]


def private_uses(module: str, tree: ast.Module) -> set[str]:
    """The private members of Twisted that a module of `http` uses, or that it may use by accident
    because a class of its own has a member with the same name as a base class of Twisted.
    """
    own = defined(tree)
    found = {
        node.attr for node in attributes(tree) if not is_self(node.value) and node.attr not in own
    }
    namespace = importlib.import_module(f"twistedmedia.http.{module}")
    for node in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        cls = getattr(namespace, node.name)
        bases = classes_of_twisted(cls)
        names = {each.attr for each in attributes(node)} | defined(node)
        found |= {name for name in names if any(has_member(base, name) for base in bases)}
    return found


@pytest.mark.parametrize("module", sorted(MODULES))
def test_every_private_member_that_is_used_is_in_the_table(module: str) -> None:
    assert private_uses(module, MODULES[module]) <= IN_TABLE


def test_private_uses_are_found() -> None:
    """Otherwise the test above could not fail."""
    uses = {name for module, tree in MODULES.items() for name in private_uses(module, tree)}
    assert uses == {name for name in IN_TABLE if is_private(name)}
    assert private_uses("transport", ast.parse("transport._socket.x._y = 1")) == {"_socket"}


@pytest.mark.parametrize("private", PRIVATES, ids=lambda private: private.name)
def test_every_member_in_the_table_is_used_where_it_says(private: Private) -> None:
    for module in private.used_in.split(", "):
        source = (FOLDER / f"{module}.py").read_text()
        assert private.name in source, module


def test_the_installed_version_has_all_members() -> None:
    check_twisted()


def test_a_missing_member_is_an_import_error_with_the_version() -> None:
    missing = Private(HTTPChannel, "_absent", "", "")
    with pytest.raises(ImportError, match=r"Twisted .* lacks HTTPChannel\._absent;") as raised:
        check_twisted([*PRIVATES, missing])
    assert twisted.__version__ in str(raised.value)


# What the members do


class Transport(StringTransport):
    """Counts the calls that pause it."""

    pauses = 0

    def pauseProducing(self) -> None:
        self.pauses += 1


class Later(Request):
    """Is handled until the test finishes it."""

    def process(self) -> None:
        """Wait."""


@pytest.fixture
def transport() -> Transport:
    return Transport()


@pytest.fixture
def channel(transport: Transport) -> Any:
    channel: Any = HTTPChannel()
    channel.requestFactory = Later
    channel.callLater = Clock().callLater
    channel.timeOut = None
    channel.makeConnection(transport)
    return channel


def test_a_channel_notes_whether_it_handles_a_request(channel: Any) -> None:
    assert not channel._handlingRequest
    channel.dataReceived(GET)
    assert channel._handlingRequest
    channel.requests[0].finish()
    assert not channel._handlingRequest


def test_a_channel_notes_whether_the_transport_is_full(channel: Any, transport: Transport) -> None:
    assert channel._networkProducer is transport
    channel.pauseProducing()
    assert channel._waitingForTransport
    assert transport.pauses == 1
    channel.resumeProducing()
    assert not channel._waitingForTransport


def test_a_channel_takes_the_request_line_from_three_attributes(channel: Any) -> None:
    channel.requests.append(Later(channel, False))
    channel._command, channel._path, channel._version = b"PUT", b"/a?b", b"HTTP/1.1"
    channel.requests[0].gotLength(0)
    channel.allContentReceived()
    (request,) = channel.requests
    assert (request.method, request.uri, request.clientproto) == (b"PUT", b"/a?b", b"HTTP/1.1")


def test_a_channel_sends_100_continue_by_a_method(channel: Any, transport: Transport) -> None:
    calls: list[bool] = []
    channel._send100Continue = lambda: calls.append(True)
    channel.dataReceived(
        b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n"
    )
    assert calls == [True]
    assert transport.value() == b""


def test_a_request_notes_that_its_connection_was_lost(channel: Any) -> None:
    channel.dataReceived(GET)
    (request,) = channel.requests
    assert not request._disconnected
    request.connectionLost(Failure(ConnectionLost()))
    assert request._disconnected


class Descriptor(FileDescriptor):
    """Takes `takes` bytes in each write."""

    connected = 1
    takes = 0

    def writeSomeData(self, data: bytes) -> int:
        return min(self.takes, len(data))

    def startWriting(self) -> None:
        """There is no event loop."""

    stopWriting = startWriting


def test_a_transport_keeps_unsent_data_in_two_buffers() -> None:
    descriptor: Any = Descriptor(reactor=Clock())
    assert not descriptor.dataBuffer
    assert not descriptor._tempDataBuffer
    descriptor.write(b"first")
    assert [descriptor.dataBuffer, descriptor._tempDataBuffer] == [b"", [b"first"]]
    assert descriptor._tempDataLen == 5
    descriptor.takes = 2
    descriptor.doWrite()
    descriptor.write(b"second")
    unsent = len(descriptor.dataBuffer) - descriptor.offset + descriptor._tempDataLen
    assert unsent == len(b"rstsecond")
