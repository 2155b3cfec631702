"""The private members of HTTP client libraries that this room uses, and a check that they exist.

Twisted's client has no public way to do what the room needs: to limit heads, to accept framing that
servers really send, to bound idle connections in all, to send a URL unchanged. Importing this
module checks the table below by name. The private classes are imported from here, so that the check
comes before their use. What the members do is checked by tests/fetch/test_client_privates.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from inspect import isfunction


@dataclass(frozen=True, slots=True)
class Private:
    """A member that is private or undocumented. `owner` is the module or class that has it, and
    `used_in` the module of this room that uses it.
    """

    owner: str
    name: str
    reason: str
    used_in: str

    @property
    def exists(self) -> bool:
        """Whether the installed library has it."""
        try:
            owner = import_module(self.owner)
        except ModuleNotFoundError:
            module, _, name = self.owner.rpartition(".")
            try:
                owner = getattr(import_module(module), name)
            except (ModuleNotFoundError, AttributeError):
                return False
        return has_member(owner, self.name)


def has_member(owner: object, name: str) -> bool:
    """Whether `owner` has the attribute, or is a class whose methods use it."""
    functions = (item for each in getattr(owner, "__mro__", ()) for item in vars(each).values())
    return hasattr(owner, name) or any(
        name in function.__code__.co_names for function in functions if isfunction(function)
    )


_WEB_CLIENT = "twisted.web.client"
_NEW_CLIENT = "twisted.web._newclient"
_PROTOCOL = f"{_NEW_CLIENT}.HTTP11ClientProtocol"
_PARSER = f"{_NEW_CLIENT}.HTTPClientParser"
_POOL = f"{_WEB_CLIENT}.HTTPConnectionPool"
_DECODER = "twisted.web.http._ChunkedTransferDecoder"
_TCP = "twisted.internet.tcp.Connection"
_EXACT_URL = "Agent.request parses and rewrites the URL; this sends the target unchanged"
_REUSE = "a connection that received more than its response must not be reused"
_LENIENT_HEAD = "framing that servers send and the parser refuses"
_PADDED_SIZE = "blanks behind the size of a chunk are accepted"
_TOTAL_BOUND = "the pool limits idle connections for each origin only, and never forgets an origin"

PRIVATES = (
    Private("twisted.web", "_newclient", "the HTTP client to be extended", "client_privates"),
    Private(_NEW_CLIENT, "HTTP11ClientProtocol", "the client of one connection", "client_privates"),
    Private(_NEW_CLIENT, "HTTPClientParser", _LENIENT_HEAD, "client_privates"),
    Private("twisted.web.http", "_ChunkedTransferDecoder", _PADDED_SIZE, "client_privates"),
    Private(f"{_WEB_CLIENT}.Agent", "_init", "Agent() takes no endpoint of ours", "agent"),
    Private(f"{_WEB_CLIENT}.Agent", "_requestWithEndpoint", _EXACT_URL, "agent"),
    Private(_PROTOCOL, "_parser", "the parser is configured for each response", "agent"),
    Private(_PROTOCOL, "_currentRequest", _REUSE, "agent"),
    Private(_PROTOCOL, "_finishResponse_WAITING", _REUSE, "agent"),
    Private(_PROTOCOL, "_finishResponse_TRANSMITTING", _REUSE, "agent"),
    Private(_PARSER, "MAX_LENGTH", "a header line may be as long as the whole head", "agent"),
    Private(_PARSER, "_transferDecoders", _LENIENT_HEAD, "agent"),
    Private(_PARSER, "allHeadersReceived", _LENIENT_HEAD, "agent"),
    Private(_PARSER, "connHeaders", _LENIENT_HEAD, "agent"),
    Private(_PARSER, "response", _LENIENT_HEAD, "agent"),
    Private(_DECODER, "_dataReceived_CHUNK_LENGTH", _PADDED_SIZE, "agent"),
    Private(_DECODER, "_buffer", _PADDED_SIZE, "agent"),
    Private(_DECODER, "_start", _PADDED_SIZE, "agent"),
    Private(_POOL, "_factory", "the pool makes our client protocol", "agent"),
    Private(_POOL, "_newConnection", "a retry must not take an idle connection", "agent"),
    Private(_POOL, "_putConnection", _TOTAL_BOUND, "agent"),
    Private(_POOL, "_removeConnection", _TOTAL_BOUND, "agent"),
    Private(_POOL, "_connections", _TOTAL_BOUND, "agent"),
    Private(_POOL, "_timeouts", _TOTAL_BOUND, "agent"),
    Private("twisted.internet.base.DelayedCall", "args", "names the oldest connection", "agent"),
    Private(_TCP, "writeSomeData", "a request is sent in the same turn of the loop", "hops"),
    Private(_TCP, "TLS", "writeSomeData is for plain TCP only", "hops"),
    Private(_TCP, "bufferSize", "less is read at a time from dense chunked coding", "hops"),
    Private("treq.cookies", "IndexableCookieJar", "no cookie is kept or sent", "treq_request"),
    Private("hyperlink.EncodedURL", "to_uri", "treq sends what this returns", "treq_request"),
    Private("hyperlink.EncodedURL", "to_text", "treq sends what this returns", "treq_request"),
)


def check(privates: Iterable[Private]) -> None:
    """Check that the installed libraries have `privates`.

    :raises ImportError: if one of them is missing; it names the library and its version.
    """
    for private in privates:
        if not private.exists:
            library = private.owner.partition(".")[0]
            raise ImportError(
                f"twistedmedia does not work with {library} {version(library)},"
                f" which has no {private.owner}.{private.name}"
            )


check(PRIVATES)

from twisted.web._newclient import HTTP11ClientProtocol, HTTPClientParser  # noqa: E402
from twisted.web.http import _ChunkedTransferDecoder as ChunkedTransferDecoder  # noqa: E402

__all__ = ["ChunkedTransferDecoder", "HTTP11ClientProtocol", "HTTPClientParser", "check"]
