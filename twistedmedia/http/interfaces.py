"""What the parts of a connection use of the connection, and the connection of its site."""

from __future__ import annotations

from collections.abc import Callable, Container
from enum import Enum
from typing import Any, Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from twistedmedia.errors import MediaError
from twistedmedia.fairness.loop_queue import DiscardQueue, LoopQueue
from twistedmedia.http.body import BodyMemory
from twistedmedia.http.heads import Head
from twistedmedia.http.lingering import LingeringConnections
from twistedmedia.http.timeouts import RequestTimeouts, Sender, StallDetector
from twistedmedia.http.transport import WriteCoalescer

# What the next received byte belongs to. NEXT_REQUEST: a request is being handled.
Expected = Enum("Expected", "HEAD CONTENT NEXT_REQUEST")


class Site(Protocol):
    """The site of a connection."""

    reactor: IReactorTime
    queue: LoopQueue
    discard_queue: DiscardQueue
    request_timeouts: RequestTimeouts
    stall_detector: StallDetector
    coalescer: WriteCoalescer
    lingering: LingeringConnections
    body_memory: BodyMemory
    is_closing: bool

    @property
    def channels(self) -> Container[object]: ...
    def add(self, channel: Any) -> None: ...
    def is_admitted(self, channel: Any) -> bool: ...
    def remove(self, channel: Any) -> None: ...
    def notify_if_empty(self) -> None: ...
    def client_host(self, request: Any) -> str: ...
    def client_host_of_head(self, peer: str, received: bytes) -> str: ...
    def log_refused(self, channel: Any, request: Any, status: int, sent_bytes: int) -> None: ...


class Connection(Sender, Protocol):
    """The connection of an `Input`, a `Reading` and a `Closing`. They refer to it weakly, because a
    reference cycle would keep it in memory until the garbage collector runs.
    """

    site: Site
    transport: Any
    callLater: Callable[..., Any]
    input: Any  # an `Input`, whose module imports this one
    peer_host: str
    requests: list[Any]
    persistent: int
    length: int | None  # of the content in progress

    @property
    def expected(self) -> Expected: ...
    @property
    def client_key(self) -> str: ...
    @property
    def is_full(self) -> bool: ...
    @property
    def is_plain_tcp(self) -> bool: ...
    def isSecure(self) -> bool: ...
    def begin_request(self, head: Head) -> None: ...
    def forget_peer(self, reason: Failure) -> None: ...
    def break_content(self, error: MediaError) -> None: ...
    def allContentReceived(self) -> None: ...
    def drop_requests(self, reason: Failure) -> None: ...
    def send_buffered(self) -> None: ...
    def watch_for_stall(self) -> None: ...
    def loseConnection(self) -> Any: ...
