"""The endpoints that the service listens on: parsing, URLs, errors, and limits of accepting."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IProtocolFactory, IStreamServerEndpoint
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

# Connections that may wait to be accepted, so that a burst of them is not refused.
BACKLOG = 1024
_UNIX_MODE = "660"  # owner and group; Twisted's default lets every local user connect
_KIND = re.compile(r"^((?:haproxy:)?(tcp|tcp6|ssl|unix):)")
# How long connections are accepted in one turn of the event loop, and how many at most.
_ACCEPT_S = 0.0005
_MAX_ACCEPTS = 16
_LOOPBACK_OF_WILDCARD = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def endpoint_from(reactor: Any, description: str) -> IStreamServerEndpoint:
    """Return the endpoint that `description` names. The default backlog is `BACKLOG`, and the
    default mode of a `unix:` endpoint is 0660.

    :raises Exception: of many kinds, as `serverFromString` does, when there is no such endpoint.
    """
    kind = _KIND.match(description)
    at = kind.end() if kind else 0
    defaults = [f"backlog={BACKLOG}:"] if kind else []
    if kind and kind[2] == "unix":
        defaults.append(f"mode={_UNIX_MODE}:")
    while True:
        # A value that stands later in the description replaces a default.
        completed = description[:at] + "".join(defaults) + description[at:]
        try:
            endpoint: IStreamServerEndpoint = serverFromString(reactor, completed)
        except TypeError:  # the value is also given by its position: `unix:/run/a.sock:600`
            if not defaults:
                raise
            defaults.pop()
        else:
            return endpoint


def exposure_error(host: str, *, is_open: bool) -> str | None:
    """Return why the service must not listen on `host`, or None if it may. Only a service that
    `is_open` may listen on an address that is not loopback.
    """
    if is_open or ip_address(host).is_loopback:
        return None
    return (
        f"{host} is not a loopback address, and the service has no authentication; add --open to "
        "let everyone who can connect use it"
    )


def has_declared_domain(port: Any) -> bool:
    """Whether an inherited socket has the domain (such as INET6) that its endpoint names. Otherwise
    the addresses of its peers would be misread.
    """
    inherited = getattr(port, "socket", None)
    if inherited is None:
        return True
    domain = inherited.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN)
    return bool(domain == inherited.family)


def url_of(port: Any) -> str:
    """Return the URL to open for a listening port; for a UNIX socket `unix:` and its path. Other
    addresses, which plugins can bring, are shown as their `str`.
    """
    address = port.getHost()
    if isinstance(address, UNIXAddress):
        name = os.fsdecode(address.name or b"")
        return "unix:" + name.replace("\0", "@", 1)  # the abstract namespace, as in ss(8)
    if not isinstance(address, IPv4Address | IPv6Address):
        return str(address)
    factory = getattr(port, "factory", None)
    if isinstance(factory, _FilteringFactory):
        factory = factory.inner
    is_encrypted = isinstance(factory, TLSMemoryBIOFactory)
    host = _LOOPBACK_OF_WILDCARD.get(address.host, address.host)
    if ":" in host:
        host = f"[{host}]"
    return f"{'https' if is_encrypted else 'http'}://{host}:{address.port}/"


def filter_connections(
    port: Any,
    is_rejected: Callable[[Any], bool],
    seconds: Callable[[], float] = time.monotonic,
) -> None:
    """Have `port` close each new connection at once if `is_rejected` returns True for its address.
    No protocol is made for such a connection, and no TLS handshake. Also limits for how long `port`
    accepts in one turn of the event loop. Ports of plugins that have no factory stay unchanged.
    """
    if hasattr(port, "factory"):
        port.factory = factory = _FilteringFactory(port.factory, is_rejected)
        if hasattr(port, "numberAccepts"):
            _limit_accepts(port, factory, seconds)


def _limit_accepts(port: Any, factory: _FilteringFactory, seconds: Callable[[], float]) -> None:
    """Have `port` accept for about `_ACCEPT_S` in one turn of the event loop, estimated from the
    last connections. Twisted accepts a hundred and more.
    """
    accept, number = port.doRead, 1

    def accept_some() -> Any:
        nonlocal number
        port.numberAccepts = number
        accepted, began_s = factory.accepted, seconds()
        result = accept()
        accepted, took_s = factory.accepted - accepted, seconds() - began_s
        number = max(1, min(_MAX_ACCEPTS, 2 * number, int(accepted * _ACCEPT_S / took_s)))
        return result

    port.doRead = accept_some


@implementer(IProtocolFactory)
class _FilteringFactory:
    """Wraps `inner`, the outermost factory of a port, and makes no protocol for rejected
    connections. Only a port can handle that: factories that wrap others, such as that of TLS,
    cannot.
    """

    def __init__(self, inner: Any, is_rejected: Callable[[Any], bool]) -> None:
        self.inner = inner
        self.accepted = 0  # connections, rejected ones included
        self._is_rejected = is_rejected

    def buildProtocol(self, addr: Any) -> Any:
        self.accepted += 1
        return None if self._is_rejected(addr) else self.inner.buildProtocol(addr)

    def doStart(self) -> None:
        self.inner.doStart()

    def doStop(self) -> None:
        self.inner.doStop()


def listen_error(error: BaseException | None) -> str:
    """Describe for the operator why an endpoint cannot listen."""
    if isinstance(error, CannotListenError):
        cause = error.socketError
        reason = getattr(cause, "strerror", None) or cause
        if isinstance(error.port, bytes):
            return f"cannot listen on {os.fsdecode(error.port)}: {reason}"
        return f"cannot listen on {error.interface or 'every address'}, port {error.port}: {reason}"
    if isinstance(error, OSError) and error.filename is not None:
        # The lock of a UNIX socket is a symbolic link: `filename2` is the path of the lock.
        return f"{os.fsdecode(error.filename2 or error.filename)}: {error.strerror}"
    return str(error)
