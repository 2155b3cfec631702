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
from twistedmedia.fetch.policy import Address

# A look-up takes some 30 s when no server answers, whether or not anybody still waits for it, and a
# thread that waits takes next to nothing. All that are busy with such names delay other names.
AT_ONCE = 500

# As socket.getaddrinfo.
Resolve = Callable[..., Sequence[tuple[Any, Any, Any, Any, Any]]]


class Resolver:
    """Looks names up. Those who ask for the same name at once share one look-up; what it says is
    not kept, since the next connection is to be judged by what is true then.

    A look-up that has begun cannot be ended. So a caller may have as many threads as it leaves
    free: half of them if it is the only one, a third if there are two. Its other names wait. The
    callers whose names wait take turns.
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
        # The names that wait, in their order, by caller. The caller whose turn it is comes first.
        self._queues: dict[str, dict[str, None]] = {}
        self._threads: dict[str, int] = {}  # by caller
        self._asking: dict[str, list[Deferred[list[Address]]]] = {}
        self._running: set[str] = set()

    def addresses(self, host: str, caller: str = "") -> Deferred[list[Address]]:
        """The addresses of `host`, the preferred ones first; none when it has none. An address is
        its own, without a look-up. Fails with `Busy` when no thread can be started. Cancelling ends
        the waiting. The thread is one of `caller`, the first that asks.
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
        self._asking[host] = waiting
        if host not in self._running:
            # Also if it waits as another caller's, whose turn may come later.
            self._queues.setdefault(caller, {})[host] = None
            self._start()
        return asking

    def _leave(
        self, host: str, waiting: list[Deferred[list[Address]]], asking: Deferred[list[Address]]
    ) -> None:
        waiting.remove(asking)
        if not waiting and self._asking.get(host) is waiting and host not in self._running:
            del self._asking[host]  # nobody has begun to look it up
            self._unqueue(host)

    def _start(self) -> None:
        """Start threads for as many names as may be."""
        in_vain = 0
        while self._free and in_vain < len(self._queues):
            caller, hosts = next(iter(self._queues.items()))
            del self._queues[caller]
            self._queues[caller] = hosts  # the last one now
            if self._threads.get(caller, 0) >= self._free:
                in_vain += 1
                continue
            host = next(iter(hosts))
            # A thread of its own for each: one that hangs keeps no process from ending.
            thread = Thread(
                target=self._look_up, args=(host, caller), name=f"lookup-{host}", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # as many as the system allows: those that run will start it
                if not self._running:
                    self._fail_all(Failure(Busy(RETRY_AFTER_S)))
                return
            in_vain = 0
            self._unqueue(host)
            self._running.add(host)
            self._threads[caller] = self._threads.get(caller, 0) + 1
            self._free -= 1

    def _unqueue(self, host: str) -> None:
        for caller in [caller for caller, hosts in self._queues.items() if host in hosts]:
            del self._queues[caller][host]
            if not self._queues[caller]:
                del self._queues[caller]

    def _fail_all(self, failure: Failure) -> None:
        """None runs, and none can be started."""
        self._queues.clear()
        asking, self._asking = self._asking, {}
        for waiting in asking.values():
            _tell(waiting, failure)

    def _look_up(self, host: str, caller: str) -> None:  # in the thread
        try:
            found: list[Address] | Failure = self._found(host)
        except Exception:  # noqa: BLE001  # told to those who asked
            found = Failure()
        self._reactor.callFromThread(self._told, host, caller, found)

    def _found(self, host: str) -> list[Address]:
        try:
            answers = self._resolve(host, None, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        except (OSError, UnicodeError):  # no such name, or none that could be asked for
            return []
        texts = dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in answers)
        return [ip_address(text) for text in texts]

    def _told(self, host: str, caller: str, found: list[Address] | Failure) -> None:
        self._free += 1
        self._running.remove(host)
        self._threads[caller] -= 1
        if not self._threads[caller]:
            del self._threads[caller]
        waiting = self._asking.pop(host)
        self._start()
        _tell(waiting, found)


def _tell(waiting: Sequence[Deferred[list[Address]]], found: list[Address] | Failure) -> None:
    for asking in list(waiting):
        if not asking.called:  # one of those before may have had it cancelled
            asking.callback(found)
