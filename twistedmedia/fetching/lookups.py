"""Names to addresses, in threads that nothing else waits for.

The reactor's own way shares a pool of ten threads with everything that uses them, so ten names
whose servers do not answer would stop every look-up after them; and it waits for ever.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from threading import Thread
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

from twistedmedia.errors import Busy
from twistedmedia.fetching.addresses import Address

# A look-up takes some 30 s when no server answers. Threads that wait for it cost next to nothing.
AT_ONCE = 64
# Beyond these of one name, nobody connects to more: a server may give thousands.
MOST_ADDRESSES = 16

_RETRY_AFTER_S = 5

# As socket.getaddrinfo.
Resolve = Callable[..., Sequence[tuple[Any, Any, Any, Any, Any]]]


class Lookups:
    """Looks names up. Those who ask for the same name at once share one look-up; what it says is
    not kept, since the next connection is to be judged by what is true then.
    """

    def __init__(
        self,
        reactor: IReactorFromThreads,
        resolve: Resolve = socket.getaddrinfo,
        at_once: int = AT_ONCE,
    ) -> None:
        self._reactor = reactor
        self._resolve = resolve
        self._free = at_once
        self._queue: deque[str] = deque()
        self._asking: dict[str, list[Deferred[list[Address]]]] = {}

    def addresses(self, host: str) -> Deferred[list[Address]]:
        """The addresses of `host`, the preferred ones first; none when it has none. An address is
        its own, without a look-up. Cancelling ends the waiting.
        """
        asking: Deferred[list[Address]] = Deferred()
        try:
            address = ip_address(host)
        except ValueError:
            self._ask(host, asking)
        else:
            asking.callback([address])
        return asking

    def _ask(self, host: str, asking: Deferred[list[Address]]) -> None:
        if host in self._asking:
            self._asking[host].append(asking)
            return
        self._asking[host] = [asking]
        self._queue.append(host)
        self._start()

    def _start(self) -> None:
        while self._free and self._queue:
            host = self._queue.popleft()
            if all(asking.called for asking in self._asking[host]):  # all of them have gone
                del self._asking[host]
                continue
            self._free -= 1
            # A thread of its own for each: one that hangs keeps no process from ending.
            thread = Thread(target=self._look_up, args=(host,), name=f"lookup-{host}", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # as many as the system allows
                self._told(host, Failure(Busy(_RETRY_AFTER_S)))

    def _look_up(self, host: str) -> None:  # in the thread
        try:
            found: list[Address] | Failure = self._found(host)
        except Exception:  # noqa: BLE001  # told to those who asked
            found = Failure()
        self._reactor.callFromThread(self._told, host, found)

    def _found(self, host: str) -> list[Address]:
        try:
            answers = self._resolve(host, None, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        except (OSError, UnicodeError):  # no such name, or none that could be asked for
            return []
        texts = dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in answers)
        return [ip_address(text) for text in texts][:MOST_ADDRESSES]

    def _told(self, host: str, found: list[Address] | Failure) -> None:
        self._free += 1
        waiting = self._asking.pop(host)
        self._start()
        for asking in waiting:
            if not asking.called:
                asking.callback(found)
