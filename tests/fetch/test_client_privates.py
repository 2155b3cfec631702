"""The private members of other libraries: the table is complete, and they do what we rely on."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.internet.tcp import Connection
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers

import twistedmedia.fetch
from tests.fetch.reactor import World, head
from twistedmedia.fetch import treq_request
from twistedmedia.fetch.client_privates import PRIVATES, Private, check, has_member
from twistedmedia.fetch.urls import parse_url

MODULES = {
    path.stem: ast.parse(path.read_text())
    for path in Path(*twistedmedia.fetch.__path__).glob("*.py")
}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def defined(node: ast.ClassDef) -> set[str]:
    """The private attributes that a class gives itself or its instances."""
    names = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
    names |= {item.name for item in node.body if isinstance(item, ast.AsyncFunctionDef)}
    for each in ast.walk(node):
        if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Store):
            names |= {each.attr} if ast.unparse(each.value) == "self" else set()
    for item in node.body:
        targets = [item.target] if isinstance(item, ast.AnnAssign) else getattr(item, "targets", [])
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return set(filter(is_private, names))


def foreign_bases(module: str, node: ast.ClassDef) -> list[type]:
    """The classes of other packages that a class extends."""
    ours = getattr(import_module(f"twistedmedia.fetch.{module}"), node.name)
    return [base for base in ours.__mro__ if not base.__module__.startswith("twistedmedia")]


def used(module: str) -> set[str]:
    """The private names of other packages that a module uses: the names that it imports, and the
    attributes that our classes do not have, or have from a class of another package.
    """
    imported, accessed, ours, inherited = set(), set(), set(), set()
    for node in ast.walk(MODULES[module]):
        if isinstance(node, ast.ImportFrom):
            imported |= {*str(node.module).split("."), *(alias.name for alias in node.names)}
        elif isinstance(node, ast.Attribute):
            accessed.add(node.attr)
        elif isinstance(node, ast.ClassDef):
            bases = foreign_bases(module, node)
            both = {name for name in defined(node) if any(has_member(base, name) for base in bases)}
            inherited |= both
            ours |= defined(node) - both
    return set(filter(is_private, imported | inherited | accessed - ours))


def attributes(module: str) -> set[str]:
    return {node.attr for node in ast.walk(MODULES[module]) if isinstance(node, ast.Attribute)}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_every_private_member_that_a_module_uses_is_in_the_table(module: str) -> None:
    of_module = {each.name for each in PRIVATES if each.used_in == module}
    assert used(module) == set(filter(is_private, of_module))


def test_the_modules_are_really_read() -> None:
    """Else the test above could not fail."""
    assert {"_requestWithEndpoint", "_putConnection", "_buffer"} <= used("agent")
    assert {"_newclient", "_ChunkedTransferDecoder"} <= used("client_privates")


@pytest.mark.parametrize("private", PRIVATES, ids=lambda each: f"{each.owner}.{each.name}")
def test_what_is_in_the_table_exists_and_is_used(private: Private) -> None:
    assert private.exists
    assert private.reason
    names = attributes(private.used_in)
    for node in ast.walk(MODULES[private.used_in]):
        if isinstance(node, ast.ImportFrom):
            names |= {*str(node.module).split("."), *(alias.name for alias in node.names)}
        elif isinstance(node, ast.ClassDef):
            names |= {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
            names |= defined(node)
    assert private.name in names


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        ("twisted.web.client.Agent", "_gone"),
        ("twisted.web.client.NoAgent", "_init"),
        ("twisted.web.gone", "_init"),
        ("twisted.gone.Agent", "_init"),
    ],
)
def test_a_missing_member_is_an_import_error_that_names_the_version(owner: str, name: str) -> None:
    with pytest.raises(ImportError, match=rf"with twisted [0-9.]+.*no {owner}\.{name}"):
        check([Private(owner, name, "a test", "agent")])


def test_an_agent_connects_by_the_endpoint_and_sends_the_target_that_it_is_given() -> None:
    asked: list[Any] = []

    class Endpoint:
        def connect(self, factory: object) -> Deferred[object]:
            asked.append(factory)
            return Deferred()

    agent = Agent.__new__(Agent)
    pool = HTTPConnectionPool(Clock())
    agent._init(Clock(), None, pool)
    uri = type("Uri", (), {"netloc": b"a.example"})()
    fields = Headers({b"Host": [b"a.example"]})
    agent._requestWithEndpoint("key", Endpoint(), b"GET", uri, fields, None, b"/a?")
    assert isinstance(asked[0], pool._factory)


def test_the_pool_keeps_a_connection_with_its_timeout_and_removes_it() -> None:
    clock = Clock()
    pool = HTTPConnectionPool(clock)
    lost: list[str] = []
    transport = type("Transport", (), {"loseConnection": lambda self: lost.append("lost")})()
    idle = type("Idle", (), {"state": "QUIESCENT", "transport": transport})()
    pool._putConnection("key", idle)
    assert pool._connections == {"key": [idle]}
    [timeout] = pool._timeouts.values()
    assert timeout.args == ("key", idle)
    pool._removeConnection(*timeout.args)
    assert (pool._connections, pool._timeouts, lost) == ({"key": []}, {}, ["lost"])


def test_the_parser_takes_our_decoder_and_our_limit(world: World) -> None:
    """It reads a line that is longer than Twisted's limit, `identity`, and a padded chunk size."""
    long = world.fetch("http://example.org/long")
    peer = world.accept()
    content = head(Transfer_Encoding="chunked", X_Long="x" * 20_000) + b"2  \r\nab\r\n0\r\n\r\n"
    peer.send(content)
    world.advance(1, step=0.01)  # a long head takes several turns of the loop
    assert long.whole == b"ab"
    identity = world.fetch("http://example.org/identity")
    peer.send(head(Transfer_Encoding="identity", Content_Length="2") + b"cd")
    assert identity.whole == b"cd"


def test_a_connection_that_received_too_much_is_not_reused(world: World) -> None:
    first = world.fetch("http://example.org/")
    peer = world.accept()
    peer.send(head(Content_Length="1") + b"a" + b"more")
    assert first.whole == b"a"
    world.network.turn()
    assert not peer.connected


def test_a_tcp_transport_has_what_a_request_is_sent_by() -> None:
    assert callable(Connection.writeSomeData)
    assert Connection.TLS is False
    assert Connection.bufferSize == 1 << 16


def test_treq_sends_a_url_unchanged_and_no_cookies() -> None:
    sent: list[tuple[bytes, dict[bytes, list[bytes]]]] = []

    class Recorder:
        def request(
            self, method: bytes, url: bytes, headers: Headers, bodyProducer: None
        ) -> object:
            sent.append((url, dict(headers.getAllRawHeaders())))
            fields = Headers({b"Set-Cookie": [b"a=1"]})
            return succeed(type("Response", (), {"headers": fields, "code": 200, "length": 0})())

    url = "http://[2001:db8::1]:8080/a%2fb//?%7e&&=#"
    for _ in range(2):
        treq_request.get(Recorder(), parse_url(url), Clock())  # type: ignore[arg-type]
    assert [each[0] for each in sent] == [url.removesuffix("#").encode()] * 2
    assert all(b"Cookie" not in fields for _, fields in sent)
