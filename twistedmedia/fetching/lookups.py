"""Names to addresses, in threads that nothing else waits for.

The reactor's own way shares a pool of ten threads with everything that uses them, so ten names
whose servers do not answer would stop every look-up after them; and it waits for ever.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from threading import Thread
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

from twistedmedia.errors import RETRY_AFTER_S, Busy
from twistedmedia.fetching.addresses import Address

# A look-up takes some 30 s when no server answers, whether or not anybody still waits for it, and a
# thread that waits takes next to nothing. All that are busy with such names delay other names.
AT_ONCE = 500

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
        self._free = self._at_once = at_once
        self._queue: dict[str, None] = {}  # in their order
        self._asking: dict[str, list[Deferred[list[Address]]]] = {}

    def addresses(self, host: str) -> Deferred[list[Address]]:
        """The addresses of `host`, the preferred ones first; none when it has none. An address is
        its own, without a look-up. Fails with `Busy` when no thread can be started. Cancelling ends
        the waiting.
        """
        try:
            return succeed([ip_address(host)])
        except ValueError:
            pass
        waiting = self._asking.get(host, [])
        asking: Deferred[list[Address]] = Deferred(
            lambda asking: self._leave(host, waiting, asking)
        )
        waiting.append(asking)
        if host not in self._asking:
            self._asking[host] = waiting
            self._queue[host] = None
            self._start()
        return asking

    def _leave(
        self, host: str, waiting: list[Deferred[list[Address]]], asking: Deferred[list[Address]]
    ) -> None:
        waiting.remove(asking)
        if not waiting and self._asking.get(host) is waiting and host in self._queue:
            del self._queue[host], self._asking[host]  # nobody has begun to look it up

    def _start(self) -> None:
        while self._free and self._queue:
            host = next(iter(self._queue))
            # A thread of its own for each: one that hangs keeps no process from ending.
            thread = Thread(target=self._look_up, args=(host,), name=f"lookup-{host}", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # as many as the system allows: those that run will start it
                if self._free == self._at_once:
                    self._fail_all(Failure(Busy(RETRY_AFTER_S)))
                return
            del self._queue[host]
            self._free -= 1

    def _fail_all(self, failure: Failure) -> None:
        """None runs, and none can be started."""
        hosts, self._queue = self._queue, {}
        for host in hosts:
            _tell(self._asking.pop(host), failure)

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
        return [ip_address(text) for text in texts]

    def _told(self, host: str, found: list[Address] | Failure) -> None:
        self._free += 1
        waiting = self._asking.pop(host)
        self._start()
        _tell(waiting, found)


def _tell(waiting: Sequence[Deferred[list[Address]]], found: list[Address] | Failure) -> None:
    for asking in list(waiting):
        if not asking.called:  # one of those before may have had it cancelled
            asking.callback(found)
