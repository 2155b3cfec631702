"""Host names are resolved in threads, which the tests block and release."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from tests.fetch.reactor import PUBLIC, Network, failed
from tests.http.connection import outcome, result
from twistedmedia.errors import Busy
from twistedmedia.fetch.policy import Address
from twistedmedia.fetch.resolver import MAX_THREADS, Resolver

WAIT_S = 10  # so that a failing test ends

Answer = list[str] | Exception


class GetAddrInfo:
    """A getaddrinfo with a table. For a held host it blocks until the test releases it."""

    def __init__(self) -> None:
        self.table: dict[str, Answer] = {}
        self.calls: list[tuple[str, Any, dict[str, Any]]] = []
        self.threads: set[threading.Thread] = set()
        self.most = 0  # running at once
        self._held: dict[str, threading.Event] = {}
        self._inside = 0
        self._changed = threading.Condition()

    def hold(self, *hosts: str) -> None:
        self._held |= {host: threading.Event() for host in hosts}

    def let_go(self, host: str) -> None:
        self._held[host].set()

    def let_all_go(self) -> None:
        for event in self._held.values():
            event.set()

    def wait_for_calls(self, calls: int) -> None:
        """Wait until `calls` were made in all."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.calls) >= calls, WAIT_S)

    @property
    def asked(self) -> list[str]:
        return [host for host, _, _ in self.calls]

    def __call__(self, host: str, port: Any, **hints: Any) -> list[tuple[Any, ...]]:
        with self._changed:
            self.calls.append((host, port, hints))
            self.threads.add(threading.current_thread())
            self._inside += 1
            self.most = max(self.most, self._inside)
            self._changed.notify_all()
        if host in self._held:
            self._held[host].wait(WAIT_S)
        with self._changed:
            self._inside -= 1
        answer = self.table.get(host, ["192.0.2.1"])
        if isinstance(answer, Exception):
            raise answer
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (text, 0)) for text in answer]


@pytest.fixture
def getaddrinfo() -> Iterator[GetAddrInfo]:
    getaddrinfo = GetAddrInfo()
    yield getaddrinfo
    getaddrinfo.let_all_go()
    for thread in getaddrinfo.threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
def resolver(network: Network, getaddrinfo: GetAddrInfo) -> Resolver:
    return Resolver(network, getaddrinfo, max_threads=6)  # type: ignore[arg-type]


def addresses(*texts: str) -> list[Address]:
    return [ip_address(text) for text in texts]


def test_the_addresses_of_a_name_come_in_their_order_and_each_once(
    network: Network, getaddrinfo: GetAddrInfo, resolver: Resolver
) -> None:
    getaddrinfo.table["example.org"] = ["2001:db8::1", "192.0.2.1", "2001:db8::1", "192.0.2.2"]
    resolving = resolver.addresses("example.org")
    network.from_threads()
    assert result(resolving) == addresses("2001:db8::1", "192.0.2.1", "192.0.2.2")


def test_only_addresses_for_tcp_are_requested(
    network: Network, getaddrinfo: GetAddrInfo, resolver: Resolver
) -> None:
    resolving = outcome(resolver.addresses("example.org"))
    network.from_threads()
    assert len(resolving) == 1
    hints = {"type": socket.SOCK_STREAM, "proto": socket.IPPROTO_TCP}
    assert getaddrinfo.calls == [("example.org", None, hints)]


@pytest.mark.parametrize("text", ["192.0.2.1", "0.0.0.0", "::1", "2001:db8::1", "::ffff:1.2.3.4"])
def test_an_ip_address_is_returned_without_a_thread(
    getaddrinfo: GetAddrInfo, resolver: Resolver, text: str
) -> None:
    assert result(resolver.addresses(text)) == addresses(text)
    assert getaddrinfo.calls == []


@pytest.mark.parametrize("host", ["127.1", "0x7f000001", "2130706433", "0177.0.0.1", "192.0.2.1."])
def test_text_that_only_getaddrinfo_reads_as_an_address_is_looked_up(
    network: Network, getaddrinfo: GetAddrInfo, resolver: Resolver, host: str
) -> None:
    getaddrinfo.table[host] = ["127.0.0.1"]
    resolving = resolver.addresses(host)
    network.from_threads()
    assert result(resolving) == addresses("127.0.0.1")
    assert getaddrinfo.asked == [host]


@pytest.mark.parametrize(
    "error",
    [
        socket.gaierror(socket.EAI_NONAME, "no such name"),
        socket.gaierror(socket.EAI_AGAIN, "try again"),
        OSError("no more files"),
        UnicodeEncodeError("idna", "x", 0, 1, "label too long"),
    ],
)
def test_a_name_without_addresses_gives_an_empty_list(
    network: Network, getaddrinfo: GetAddrInfo, resolver: Resolver, error: Exception
) -> None:
    getaddrinfo.table["nowhere.example"] = error
    resolving = resolver.addresses("nowhere.example")
    network.from_threads()
    assert result(resolving) == []


def test_an_exception_of_getaddrinfo_is_passed_on_and_stops_nothing_else(
    network: Network, getaddrinfo: GetAddrInfo, resolver: Resolver
) -> None:
    getaddrinfo.table["example.org"] = ZeroDivisionError()
    getaddrinfo.hold("example.org")
    several = [outcome(resolver.addresses("example.org")) for _ in range(3)]
    getaddrinfo.let_go("example.org")
    network.from_threads()
    for [came] in several:
        assert isinstance(came, Failure)
        assert came.check(ZeroDivisionError)
    for n in range(5):
        resolving = resolver.addresses(f"{n}.example")
        network.from_threads()
        assert result(resolving) == addresses("192.0.2.1")


def test_all_addresses_of_a_name_are_returned(
    network: Network, getaddrinfo: GetAddrInfo, resolver: Resolver
) -> None:
    many = [f"192.0.2.{n}" for n in range(200)]
    getaddrinfo.table["many.example"] = many
    resolving = resolver.addresses("many.example")
    network.from_threads()
    assert result(resolving) == addresses(*many)


def test_concurrent_requests_for_a_name_share_a_look_up(
    network: Network, getaddrinfo: GetAddrInfo, resolver: Resolver
) -> None:
    getaddrinfo.hold("example.org")
    several = [resolver.addresses("example.org") for _ in range(100)]
    getaddrinfo.wait_for_calls(1)
    several += [resolver.addresses("example.org") for _ in range(100)]
    getaddrinfo.let_go("example.org")
    network.from_threads()
    assert [result(resolving) for resolving in several] == [addresses("192.0.2.1")] * 200
    assert getaddrinfo.asked == ["example.org"]


def test_results_are_not_stored(
    network: Network, getaddrinfo: GetAddrInfo, resolver: Resolver
) -> None:
    """Case 40: the current addresses are checked for the next connection."""
    for text in ("192.0.2.1", "127.0.0.1"):
        getaddrinfo.table["example.org"] = [text]
        resolving = resolver.addresses("example.org")
        network.from_threads()
        assert result(resolving) == addresses(text)
    assert getaddrinfo.asked == ["example.org"] * 2


def test_a_cancelled_request_leaves_the_look_up_to_the_others(
    network: Network, getaddrinfo: GetAddrInfo, resolver: Resolver
) -> None:
    getaddrinfo.hold("example.org")
    several = [resolver.addresses("example.org") for _ in range(3)]
    left = [outcome(resolving) for resolving in several[:2]]
    for resolving in several[:2]:
        resolving.cancel()
    for [came] in left:
        assert isinstance(came, Failure)
        assert came.check(CancelledError)
    getaddrinfo.let_go("example.org")
    network.from_threads()
    assert result(several[2]) == addresses("192.0.2.1")


def test_a_request_joins_a_running_look_up_whose_waiters_were_cancelled(
    network: Network, getaddrinfo: GetAddrInfo, resolver: Resolver
) -> None:
    getaddrinfo.hold("example.org")
    left = resolver.addresses("example.org")
    gone = outcome(left)
    left.cancel()
    assert len(gone) == 1
    getaddrinfo.wait_for_calls(1)
    resolving = resolver.addresses("example.org")
    getaddrinfo.let_go("example.org")
    network.from_threads()
    assert result(resolving) == addresses("192.0.2.1")
    assert getaddrinfo.asked == ["example.org"]


def test_a_look_up_whose_waiters_were_cancelled_frees_its_thread_when_it_ends(
    network: Network, getaddrinfo: GetAddrInfo, resolver: Resolver
) -> None:
    hosts = [f"{n}.example" for n in range(3)]
    getaddrinfo.hold(*hosts)
    for host in hosts:
        resolving = resolver.addresses(host)
        gone = outcome(resolving)
        resolving.cancel()
        assert len(gone) == 1
    getaddrinfo.wait_for_calls(3)
    following = resolver.addresses("following.example")
    assert len(getaddrinfo.calls) == 3
    getaddrinfo.let_go(hosts[1])
    network.from_threads(2)
    assert result(following) == addresses("192.0.2.1")


def test_names_that_hang_block_neither_addresses_nor_other_names(
    network: Network, getaddrinfo: GetAddrInfo, resolver: Resolver
) -> None:
    """Case 29."""
    getaddrinfo.hold("a.example", "b.example")
    hanging = [resolver.addresses("a.example"), resolver.addresses("b.example")]
    assert result(resolver.addresses("192.0.2.7")) == addresses("192.0.2.7")
    for n in range(10):
        resolving = resolver.addresses(f"{n}.example")
        network.from_threads()
        assert result(resolving) == addresses("192.0.2.1")
    assert not any(resolving.called for resolving in hanging)
    getaddrinfo.let_all_go()
    network.from_threads(2)
    assert all(resolving.called for resolving in hanging)


def test_no_more_threads_look_up_at_once_than_may_and_the_rest_have_their_turn(
    network: Network, getaddrinfo: GetAddrInfo, resolver: Resolver
) -> None:
    hosts = [f"{n}.example" for n in range(10)]
    getaddrinfo.hold(*hosts)
    several = [resolver.addresses(host) for host in hosts]
    getaddrinfo.wait_for_calls(3)
    assert sorted(getaddrinfo.asked) == hosts[:3]
    assert result(resolver.addresses("192.0.2.7")) == addresses("192.0.2.7")
    for n, host in enumerate(hosts):
        getaddrinfo.let_go(host)
        network.from_threads()
        assert several[n].called
        getaddrinfo.wait_for_calls(min(10, n + 4))
    assert sorted(getaddrinfo.asked) == hosts
    assert getaddrinfo.asked[3:] == hosts[3:]
    assert getaddrinfo.most == 3


def test_a_name_without_waiters_is_not_looked_up(
    network: Network, getaddrinfo: GetAddrInfo, resolver: Resolver
) -> None:
    hosts = [f"{n}.example" for n in range(3)]
    getaddrinfo.hold(*hosts)
    several = [resolver.addresses(host) for host in hosts]
    queued = [resolver.addresses("queued.example") for _ in range(2)]
    last = resolver.addresses("last.example")
    gone = [outcome(resolving) for resolving in queued]
    for resolving in queued:
        resolving.cancel()
    assert all(gone)
    getaddrinfo.let_all_go()
    network.from_threads(4)
    assert result(last) == addresses("192.0.2.1")
    assert all(resolving.called for resolving in several)
    assert "queued.example" not in getaddrinfo.asked
    again = resolver.addresses("queued.example")
    network.from_threads()
    assert result(again) == addresses("192.0.2.1")


def test_a_queued_name_is_looked_up_when_one_of_its_waiters_was_cancelled(
    network: Network, getaddrinfo: GetAddrInfo, resolver: Resolver
) -> None:
    hosts = [f"{n}.example" for n in range(3)]
    getaddrinfo.hold(*hosts)
    for host in hosts:
        outcome(resolver.addresses(host))
    leaving, staying = (resolver.addresses("queued.example") for _ in range(2))
    gone = outcome(leaving)
    leaving.cancel()
    assert len(gone) == 1
    getaddrinfo.let_go(hosts[0])
    network.from_threads(2)
    assert result(staying) == addresses("192.0.2.1")


def test_a_callback_may_begin_the_same_request_again(
    network: Network, getaddrinfo: GetAddrInfo, resolver: Resolver
) -> None:
    again: list[Deferred[list[Address]]] = []
    resolver.addresses("example.org").addCallback(
        lambda _: again.append(resolver.addresses("example.org"))
    )
    network.from_threads(2)
    assert result(again[0]) == addresses("192.0.2.1")
    assert getaddrinfo.asked == ["example.org"] * 2


def test_a_look_up_that_hangs_does_not_keep_the_process_from_ending(
    network: Network, getaddrinfo: GetAddrInfo, resolver: Resolver
) -> None:
    resolving = resolver.addresses("example.org")
    network.from_threads()
    assert result(resolving)
    [thread] = getaddrinfo.threads
    assert thread.daemon
    assert thread is not threading.current_thread()


def test_at_most_the_default_number_of_threads_run_at_once(
    network: Network, getaddrinfo: GetAddrInfo
) -> None:
    hosts = [f"{n}.example" for n in range(MAX_THREADS + 1)]
    getaddrinfo.hold(*hosts)
    resolver = Resolver(network, getaddrinfo)  # type: ignore[arg-type]
    several = [resolver.addresses(host, host) for host in hosts]
    getaddrinfo.wait_for_calls(MAX_THREADS)
    getaddrinfo.let_all_go()
    network.from_threads(len(hosts))
    assert all(result(resolving) for resolving in several)
    assert getaddrinfo.most <= MAX_THREADS


def test_names_of_one_caller_do_not_hold_up_those_of_another(
    network: Network, getaddrinfo: GetAddrInfo
) -> None:
    """Case 86: a look-up that hangs cannot be cancelled."""
    resolver = Resolver(network, getaddrinfo, max_threads=12)  # type: ignore[arg-type]
    hosts = [f"{caller}{n}.example" for caller in "ab" for n in range(20)]
    getaddrinfo.hold(*hosts)
    hanging = [resolver.addresses(host, host[0]) for host in hosts]
    getaddrinfo.wait_for_calls(6 + 3)
    queued = "b19.example"
    resolving = [resolver.addresses("c.example", "c")]
    network.from_threads()
    assert result(resolving[0]) == addresses("192.0.2.1")
    getaddrinfo.let_go(queued)
    joined = resolver.addresses(queued, "c")
    network.from_threads()
    assert result(joined) == addresses("192.0.2.1"), "although it waits as a name of b"
    getaddrinfo.let_all_go()
    network.from_threads(len(hosts) - 1)
    assert all(result(each) for each in hanging)


class Unable:
    """Whether threads can start."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_so = True
        start = threading.Thread.start

        def start_if_able(thread: threading.Thread) -> None:
            if self.is_so:
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", start_if_able)


@pytest.mark.parametrize("names", [1, 3000])
def test_if_no_thread_can_start_all_waiters_fail_and_no_name_is_left_behind(
    monkeypatch: pytest.MonkeyPatch, network: Network, names: int
) -> None:
    resolver = Resolver(network, lambda *_, **__: [(0, 0, 0, "", (PUBLIC, 0))], max_threads=1)
    unable = Unable(monkeypatch)
    for number in range(names):
        assert isinstance(failed(outcome(resolver.addresses(f"{number}.example"))), Busy)
    unable.is_so = False
    again = resolver.addresses("0.example")
    network.from_threads()
    assert result(again) == addresses(PUBLIC)


def test_names_wait_for_a_running_look_up_if_no_other_thread_can_start(
    monkeypatch: pytest.MonkeyPatch, network: Network, getaddrinfo: GetAddrInfo
) -> None:
    resolver = Resolver(network, getaddrinfo, max_threads=5)  # type: ignore[arg-type]
    getaddrinfo.hold("first.example")
    first = resolver.addresses("first.example")
    getaddrinfo.wait_for_calls(1)
    unable = Unable(monkeypatch)
    others = [resolver.addresses(f"{number}.example") for number in range(3)]
    assert not any(resolving.called for resolving in others)
    unable.is_so = False
    getaddrinfo.let_go("first.example")
    network.from_threads()
    for _ in others:
        network.from_threads()
    assert all(resolving.called for resolving in [first, *others])


def test_cancelled_requests_leave_nothing_behind(
    network: Network, getaddrinfo: GetAddrInfo
) -> None:
    """Cancelled requests are forgotten, and so are names without other waiters."""
    resolver = Resolver(network, getaddrinfo, max_threads=1)  # type: ignore[arg-type]
    getaddrinfo.hold("first.example")
    first = outcome(resolver.addresses("first.example"))
    for number in range(1000):
        resolving = resolver.addresses(f"{number}.example")
        joined = resolver.addresses("first.example")
        for each in (resolving, joined):
            each.addErrback(lambda _: None)
            each.cancel()
    assert len(resolver._queues) == 0
    assert [len(waiting) for waiting in resolver._waiting.values()] == [1]
    getaddrinfo.let_go("first.example")
    network.from_threads()
    assert first


def test_a_callback_may_request_again_and_cancel_others(
    network: Network, getaddrinfo: GetAddrInfo, resolver: Resolver
) -> None:
    getaddrinfo.hold("example.org")
    first, second = resolver.addresses("example.org"), resolver.addresses("example.org")
    left = outcome(second)
    again: list[Deferred[list[Address]]] = []

    def ask_again(_: object) -> None:
        again.append(resolver.addresses("example.org"))
        second.cancel()

    first.addCallback(ask_again)
    getaddrinfo.let_go("example.org")
    network.from_threads()
    assert isinstance(failed(left), CancelledError)
    network.from_threads()
    assert result(again[0]) == addresses("192.0.2.1")
