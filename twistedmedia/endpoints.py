"""Endpoints that a service listens on: made from their descriptions, and told as URLs. When one
cannot listen, the reason in words for the operator.
"""

from __future__ import annotations

import os
import re
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.protocols.tls import TLSMemoryBIOFactory

_UNIX = re.compile(r"^((?:haproxy:)?unix:)")
_UNIX_MODE = "660"  # the owner and the group; Twisted's own default lets every local user connect
_OWN_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # one of those that a wildcard stands for


def endpoint_from(reactor: Any, description: str) -> IStreamServerEndpoint:
    """The endpoint that `description` names. A `unix:` endpoint without a mode gets 0660.

    :raises Exception: of many kinds, as `serverFromString` does, when there is no such endpoint.
    """
    # A named mode that stands further behind replaces this one.
    moded = _UNIX.sub(rf"\1mode={_UNIX_MODE}:", description)
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, moded)
    except TypeError:  # the description gives the mode by its position: `unix:/run/a.sock:600`
        endpoint = serverFromString(reactor, description)
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
    is_encrypted = isinstance(getattr(port, "factory", None), TLSMemoryBIOFactory)
    host = _OWN_ADDRESS.get(address.host, address.host)
    if ":" in host:
        host = f"[{host}]"
    return f"{'https' if is_encrypted else 'http'}://{host}:{address.port}/"


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
