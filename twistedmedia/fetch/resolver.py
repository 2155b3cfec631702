"""Resolves host names in threads of their own.

The reactor's resolver shares a pool of ten threads with everything else that uses it. Ten names
whose servers do not respond would block every later look-up.
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

# A look-up takes some 30 s if no server responds, even if its result is not needed any more. A
# thread that waits costs next to nothing. If all threads wait for such names, other names wait too.
MAX_THREADS = 500

# The signature of socket.getaddrinfo.
Resolve = Callable[..., Sequence[tuple[Any, Any, Any, Any, Any]]]


class Resolver:
    """Resolves host names. Concurrent requests for a name share one look-up. Results are not kept:
    the policy has to check the current addresses for each connection.

    A running look-up cannot be cancelled. So a caller gets at most as many threads as it leaves
    free: half of them if it is the only one, a third if there are two. Its other names wait. The
    callers with waiting names take turns.
    """

    def __init__(
        self,
        reactor: IReactorFromThreads,
        resolve: Resolve = socket.getaddrinfo,
        max_threads: int = MAX_THREADS,
    ) -> None:
        self._reactor = reactor
        self._resolve = resolve
        self._free_threads = max_threads
        # Each caller's waiting names, oldest first. The caller whose turn is next comes first.
        self._queues: dict[str, dict[str, None]] = {}
        self._threads: dict[str, int] = {}  # running, by caller
        self._waiting: dict[str, list[Deferred[list[Address]]]] = {}
        self._running: set[str] = set()

    def addresses(self, host: str, caller: str = "") -> Deferred[list[Address]]:
        """Fires with the addresses of `host`, the preferred ones first, or an empty list. An IP
        address is returned without a look-up. Fails with `Busy` if no thread can be
        started. Cancelling ends the wait, not a running look-up. A shared look-up counts as one of
        its first caller.
        """
        try:
            return succeed([ip_address(host)])
        except ValueError:
            pass
        waiting = self._waiting.get(host, [])
        each: Deferred[list[Address]] = Deferred(lambda each: self._leave(host, waiting, each))
        waiting.append(each)
        self._waiting[host] = waiting
        if host not in self._running:
            # Even if it waits for another caller as well, whose turn may be later.
            self._queues.setdefault(caller, {})[host] = None
            self._start()
        return each

    def _leave(
        self, host: str, waiting: list[Deferred[list[Address]]], leaving: Deferred[list[Address]]
    ) -> None:
        waiting.remove(leaving)
        if not waiting and self._waiting.get(host) is waiting and host not in self._running:
            del self._waiting[host]  # its look-up has not begun
            self._unqueue(host)

    def _start(self) -> None:
        """Start as many look-ups as the limits allow."""
        skipped = 0
        while self._free_threads and skipped < len(self._queues):
            caller, hosts = next(iter(self._queues.items()))
            del self._queues[caller]
            self._queues[caller] = hosts  # moved to the end
            if self._threads.get(caller, 0) >= self._free_threads:
                skipped += 1
                continue
            host = next(iter(hosts))
            # A daemon thread: one that hangs does not keep the process from ending.
            thread = Thread(
                target=self._look_up, args=(host, caller), name=f"lookup-{host}", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # the system's limit; the end of a running look-up starts it
                if not self._running:
                    self._fail_all(Failure(Busy(RETRY_AFTER_S)))
                return
            skipped = 0
            self._unqueue(host)
            self._running.add(host)
            self._threads[caller] = self._threads.get(caller, 0) + 1
            self._free_threads -= 1

    def _unqueue(self, host: str) -> None:
        for caller in [caller for caller, hosts in self._queues.items() if host in hosts]:
            del self._queues[caller][host]
            if not self._queues[caller]:
                del self._queues[caller]

    def _fail_all(self, failure: Failure) -> None:
        """No look-up runs, and none can be started."""
        self._queues.clear()
        all_waiting, self._waiting = self._waiting, {}
        for waiting in all_waiting.values():
            _settle(waiting, failure)

    def _look_up(self, host: str, caller: str) -> None:  # in the thread
        try:
            result: list[Address] | Failure = self._resolve_host(host)
        except Exception:  # noqa: BLE001  # passed on to the waiters
            result = Failure()
        self._reactor.callFromThread(self._on_result, host, caller, result)

    def _resolve_host(self, host: str) -> list[Address]:
        try:
            found = self._resolve(host, None, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        except (OSError, UnicodeError):  # no such name, or an invalid one
            return []
        texts = dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found)
        return [ip_address(text) for text in texts]

    def _on_result(self, host: str, caller: str, result: list[Address] | Failure) -> None:
        self._free_threads += 1
        self._running.remove(host)
        self._threads[caller] -= 1
        if not self._threads[caller]:
            del self._threads[caller]
        waiting = self._waiting.pop(host)
        self._start()
        _settle(waiting, result)


def _settle(waiting: Sequence[Deferred[list[Address]]], result: list[Address] | Failure) -> None:
    for each in list(waiting):
        if not each.called:  # a callback of an earlier one may have cancelled it
            each.callback(result)
