"""Endpoints that a service listens on: made from their descriptions, and told as URLs. When one
cannot listen, the reason in words for the operator. Connections that are closed as they come.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IProtocolFactory, IStreamServerEndpoint
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

# Connections that may wait until they are accepted: a burst must not be refused.
BACKLOG = 1024
_UNIX_MODE = "660"  # the owner and the group; Twisted's own default lets every local user connect
_KIND = re.compile(r"^((?:haproxy:)?(tcp|tcp6|ssl|unix):)")
# How long connections are accepted in a turn of the event loop, and how many at most.
_ACCEPT_S = 0.0005
_MOST_ACCEPTS = 16
_OWN_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # one of those that a wildcard stands for


def endpoint_from(reactor: Any, description: str) -> IStreamServerEndpoint:
    """The endpoint that `description` names. Without a backlog it gets `BACKLOG`, and a `unix:`
    endpoint without a mode gets 0660.

    :raises Exception: of many kinds, as `serverFromString` does, when there is no such endpoint.
    """
    kind = _KIND.match(description)
    at = kind.end() if kind else 0
    defaults = [f"backlog={BACKLOG}:"] if kind else []
    if kind and kind[2] == "unix":
        defaults.append(f"mode={_UNIX_MODE}:")
    while True:
        # What is named further behind replaces a default.
        completed = description[:at] + "".join(defaults) + description[at:]
        try:
            endpoint: IStreamServerEndpoint = serverFromString(reactor, completed)
        except TypeError:  # it contradicts what is given by its position: `unix:/run/a.sock:600`
            if not defaults:
                raise
            defaults.pop()
        else:
            return endpoint


def url_of(port: Any) -> str:
    """The URL to open for a port that listens; `unix:` and its path for a UNIX socket. An address
    of another kind, as plugins bring them, is described as it describes itself.
    """
    address = port.getHost()
    if isinstance(address, UNIXAddress):
        name = os.fsdecode(address.name or b"")
        return "unix:" + name.replace("\0", "@", 1)  # the abstract namespace, as ss(8) shows it
    if not isinstance(address, IPv4Address | IPv6Address):
        return str(address)
    factory = getattr(port, "factory", None)
    if isinstance(factory, _Turnstile):
        factory = factory.inner
    is_encrypted = isinstance(factory, TLSMemoryBIOFactory)
    host = _OWN_ADDRESS.get(address.host, address.host)
    if ":" in host:
        host = f"[{host}]"
    return f"{'https' if is_encrypted else 'http'}://{host}:{address.port}/"


def put_turnstile(port: Any, turns_away: Callable[[Any], bool]) -> None:
    """Have `port` close each connection at once whose address `turns_away` says to, before anything
    is made for it, also for TLS. A port that plugins bring may have no factory: it stays as it is.
    """
    if hasattr(port, "factory"):
        port.factory = turnstile = _Turnstile(port.factory, turns_away)
        if hasattr(port, "numberAccepts"):
            _accept_in_turns(port, turnstile)


def _accept_in_turns(port: Any, turnstile: _Turnstile) -> None:
    """Have `port` accept no more connections in a turn of the event loop than there is time for,
    judged by how long the last ones took. By itself it accepts a hundred and more.
    """
    accept, number = port.doRead, 1

    def accept_some() -> Any:
        nonlocal number
        port.numberAccepts = number
        passed, began_s = turnstile.passed, time.monotonic()
        result = accept()
        passed, took_s = turnstile.passed - passed, time.monotonic() - began_s
        number = max(1, min(_MOST_ACCEPTS, 2 * number, int(passed * _ACCEPT_S / took_s)))
        return result

    port.doRead = accept_some


@implementer(IProtocolFactory)
class _Turnstile:
    """Stands before `inner`, the factory of a port. It is put there when the port listens, because
    only the port knows how to go on without a protocol: factories that wrap others, as that of TLS
    does, do not.
    """

    def __init__(self, inner: Any, turns_away: Callable[[Any], bool]) -> None:
        self.inner = inner
        self.passed = 0  # connections, those that were turned away as well
        self._turns_away = turns_away

    def buildProtocol(self, addr: Any) -> Any:
        self.passed += 1
        return None if self._turns_away(addr) else self.inner.buildProtocol(addr)

    def doStart(self) -> None:
        self.inner.doStart()

    def doStop(self) -> None:
        self.inner.doStop()


def why_not(error: BaseException | None) -> str:
    """Why an endpoint cannot listen, in words for the operator."""
    if isinstance(error, CannotListenError):
        cause = error.socketError
        why = getattr(cause, "strerror", None) or cause
        if isinstance(error.port, bytes):
            return f"cannot listen on {os.fsdecode(error.port)}: {why}"
        return f"cannot listen on {error.interface or 'every address'}, port {error.port}: {why}"
    if isinstance(error, OSError) and error.filename is not None:
        # The lock of a UNIX socket is a link: the second name is its own.
        return f"{os.fsdecode(error.filename2 or error.filename)}: {error.strerror}"
    return str(error)
