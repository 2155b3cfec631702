"""Nobody keeps what is everybody's: upload places, imports, files of forms, connections."""

from __future__ import annotations

import base64
import json
import os
import re
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path

import pytest

from tests.process.crowd import Crowd, Trickle, connect, crowd
from tests.process.exchange import (
    BOUNDARY,
    MULTIPART,
    Connection,
    form,
    head,
    part,
    request,
)
from tests.process.running import TWISTD, Process, eventually

ATTACKER = "127.0.0.2"
# After so long the service knows who is slow.
KNOWN_S = 5.0
PLACES, RESERVED = 64, 8
SIZE = 4096


def slow_put(number: int) -> bytes:
    return head("PUT", f"/media/slow/{number}.wav", [("Content-Length", str(1 << 20))])


def put_from(number: int, forwarded: str) -> bytes:
    fields = [("Content-Length", str(1 << 20)), ("X-Forwarded-For", forwarded)]
    return head("PUT", f"/media/slow/{number}.wav", fields)


def store_one_of_each(service: Process, name: str, more: dict[str, str] | None = None) -> None:
    """A PUT, a form, and an upload in two parts; none is refused."""
    more = more or {}
    put = service.ask("PUT", f"/media/{name}/put.wav", b"x" * SIZE, more)
    assert put.status == 201, put
    posted = service.ask(
        "POST", "/media", form(part(name, "form.wav", b"x")), {"Content-Type": MULTIPART, **more}
    )
    assert posted.status == 201, posted
    metadata = ",".join(
        f"{key} {base64.b64encode(value.encode()).decode()}"
        for key, value in (("directory", name), ("filename", "part.wav"))
    )
    tus = {"Tus-Resumable": "1.0.0", **more}
    begun = service.ask(
        "POST", "/uploads", b"", {**tus, "Upload-Length": "4", "Upload-Metadata": metadata}
    )
    assert begun.status == 201, begun
    for offset in (0, 2):
        fields = {"Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
        added = service.ask("PATCH", begun.headers["Location"], b"ab", {**tus, **fields})
        assert added.status == 204, added


class HalfWay:
    """A PUT of which the last byte is not sent yet."""

    def __init__(
        self, service: Process, name: str, address: str = "127.0.0.1", fields: str = ""
    ) -> None:
        headers = [("Content-Length", str(SIZE))]
        if fields:
            headers.append(("X-Forwarded-For", fields))
        self.connection = connect(service, address)
        self.connection.send(head("PUT", f"/media/{name}.wav", headers) + b"x" * (SIZE - 1))

    def finish(self) -> int:
        """Its status, and perhaps its code."""
        with self.connection:
            self.connection.send(b"x")
            return self.connection.answer().status


def used(service: Process, thing: str) -> int:
    return int(service.ask("GET", "/health").json["shares"][thing]["used"])


def fill(service: Process, names: str, count: int, thing: str = "uploads") -> list[HalfWay]:
    """So many uploads of ours, all at once; each has its place when this returns."""
    before = used(service, thing)
    uploads = [HalfWay(service, f"{names}/{n}") for n in range(count)]
    eventually("they have places", lambda: used(service, thing) >= min(before + count, PLACES))
    return uploads


@pytest.mark.parametrize("size", [64, 640])
def test_slow_uploads_of_one_address_do_not_keep_others_from_theirs(
    serve: Callable[..., Process], size: int
) -> None:
    """Case 86: PUTs of 65 B/s. Others have their places at once; those that hold more than is
    reserved take them from the slow ones, which end with 408.
    """
    service = serve()
    with crowd(service, size, slow_put) as slow:
        eventually("all places are taken", lambda: used(service, "uploads") >= PLACES)
        begun_s = time.monotonic()
        for n in range(5):
            store_one_of_each(service, f"early-{n}")
        assert slow.statuses[408] == 0, "nobody ends for those who find a place"
        time.sleep(max(0.0, begun_s + KNOWN_S - time.monotonic()))
        uploads = fill(service, "ours", RESERVED + 4)
        eventually("slow ones end", lambda: slow.statuses[408] >= 4)
        assert [upload.finish() for upload in uploads] == [201] * (RESERVED + 4)
        for n in range(5):
            store_one_of_each(service, f"late-{n}")
    line = re.search("gave way: the slowest upload of ([0-9.]+)", service.log)
    assert line is not None
    assert line[1] == ATTACKER
    eventually("nothing is held", lambda: used(service, "uploads") == 0)


def test_a_slow_patch_gives_way_and_what_came_of_it_is_kept(
    serve: Callable[..., Process],
) -> None:
    """Case 86."""
    service = serve("--max-uploads", "2")
    tus = {"Tus-Resumable": "1.0.0"}
    metadata = "directory YQ==,filename YS53YXY="
    with connect(service, ATTACKER) as slow:
        begun = slow.ask(
            "POST", "/uploads", b"", {**tus, "Upload-Length": "99", "Upload-Metadata": metadata}
        )
        fields = {**tus, "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
        patch = request("PATCH", begun.headers["Location"], b"x" * 99, fields)
        slow.send(patch[:-90])
        with crowd(service, 1, slow_put):
            eventually("all places are taken", lambda: used(service, "uploads") == 2)
            time.sleep(KNOWN_S)
            assert service.ask("PUT", "/media/b/b.wav", b"x").status == 201
            statuses = [slow.answer().status] if slow_ended(slow) else []
        assert statuses in ([], [408])
    at = service.ask("HEAD", begun.headers["Location"], None, tus)
    assert at.headers["Upload-Offset"] == "9"


def slow_ended(connection: Connection) -> bool:
    """Whether there is an answer."""
    connection.socket.settimeout(1.0)
    try:
        return bool(connection._incoming.peek(1))
    except TimeoutError:
        return False


def test_a_sole_caller_can_have_all_places_and_no_more(serve: Callable[..., Process]) -> None:
    service = serve()
    uploads = fill(service, "a", PLACES)
    refused = service.ask("PUT", "/media/b/b.wav", b"x")
    assert refused.brief == (503, 514)
    assert refused.headers["Retry-After"]
    shares = service.ask("GET", "/health").json["shares"]
    figures = {"used": PLACES, "total": PLACES, "callers": 1, "largest": PLACES}
    figures["reserve"] = PLACES // 8
    assert shares["uploads"] == figures
    assert [upload.finish() for upload in uploads] == [201] * PLACES


def test_health_says_how_many_bytes_uploads_have_reserved(serve: Callable[..., Process]) -> None:
    """Case 89."""
    service = serve()
    with connect(service, "127.0.0.1") as upload:
        upload.send(slow_put(0) + bytes(600_000))
        eventually("some are written", lambda: 0 < used(service, "space") < 1 << 20)
        space = service.ask("GET", "/health").json["shares"]["space"]
        assert (space["callers"], space["largest"]) == (1, space["used"])
    eventually("none is reserved", lambda: used(service, "space") == 0)


def test_nobody_ends_while_there_is_room(serve: Callable[..., Process]) -> None:
    service = serve()
    with crowd(service, PLACES - 2, slow_put) as slow:
        eventually("they have places", lambda: used(service, "uploads") == PLACES - 2)
        time.sleep(KNOWN_S)
        uploads = fill(service, "ours", 2)
        for n in range(5):
            store_one_of_each(service, f"ours-{n}")
        assert [upload.finish() for upload in uploads] == [201] * 2
        assert not slow.statuses


def large_put(number: int) -> bytes:
    return head("PUT", f"/media/fast/{number}.wav", [("Content-Length", str(1 << 24))])


def test_fast_uploads_end_only_for_callers_below_their_share(serve: Callable[..., Process]) -> None:
    """Of 50 kB/s each: others have what is reserved at once. For more they wait, up to their share.
    The rate that is asked for is low, for a machine on which all of them can be late.
    """
    service = serve("--busy-rate", "2KiB")
    with crowd(service, PLACES, large_put, rate=50_000) as fast:
        eventually("all places are taken", lambda: used(service, "uploads") >= PLACES)
        time.sleep(KNOWN_S)
        uploads = fill(service, "ours", RESERVED)
        assert not fast.statuses
        begun_s = time.monotonic()
        more = HalfWay(service, "ours/more")
        eventually("a fast one gives way", lambda: fast.statuses[408] >= 1)
        assert time.monotonic() - begun_s > 0.5, "a rate that rises"
        uploads += [more, *(HalfWay(service, f"ours/{n}") for n in range(9, 32))]
        eventually("we have our share", lambda: fast.statuses[408] >= 24)
        assert service.ask("PUT", "/media/b/b.wav", b"x").brief == (503, 514), "that is more"
        assert [upload.finish() for upload in uploads] == [201] * 32


def test_nine_callers_above_the_busy_rate_keep_nobody_out(serve: Callable[..., Process]) -> None:
    """Case 86: together they hold what is reserved, too."""
    service = serve()
    with ExitStack() as crowds:
        for n in range(9):
            crowds.enter_context(
                crowd(service, 8, named_put(n), address=f"127.0.0.{n + 2}", rate=40_000)
            )
        eventually("all places are taken", lambda: used(service, "uploads") == PLACES + RESERVED)
        time.sleep(KNOWN_S)
        for n in range(20):
            store_one_of_each(service, f"ours-{n}")


def named_put(crowd_number: int) -> Callable[[int], bytes]:
    """Of which each has a name of its own."""

    def put(number: int) -> bytes:
        path = f"/media/fast-{crowd_number}/{number}.wav"
        return head("PUT", path, [("Content-Length", str(1 << 24))])

    return put


@pytest.mark.parametrize(
    ("callers", "each", "status"), [(72, 1, 503), (36, 2, 201)], ids=["72 x 1", "36 x 2"]
)
def test_many_callers_behind_a_proxy_leave_each_other_a_share(
    serve: Callable[..., Process], callers: int, each: int, status: int
) -> None:
    """Case 86: 73 callers cannot have a place each, 37 can."""
    service = serve("--trusted-proxy", ATTACKER)
    with crowd(
        service,
        callers * each,
        lambda number: put_from(number, f"203.0.113.{number % callers}"),
        rate=17_000,
    ):
        eventually("all places are taken", lambda: used(service, "uploads") == PLACES + RESERVED)
        begun_s = time.monotonic()
        put = service.ask("PUT", "/media/ours/a.wav", b"x" * SIZE)
        assert put.status == status, put
        assert time.monotonic() - begun_s < 10.0  # two seconds, on a machine that is not busy


def test_as_many_callers_as_places_keep_none_that_they_do_not_use(
    serve: Callable[..., Process],
) -> None:
    """Case 86: 64 callers send 65 B/s each. Eight send live speech, and go on."""
    service = serve("--trusted-proxy", ATTACKER)
    callers = {"slow": (64, 65, "203.0.113"), "live": (8, 8000, "198.51.100")}

    def uploads(kind: str) -> AbstractContextManager[Crowd]:
        size, rate, network = callers[kind]
        base = 1000 * len(network)
        return crowd(
            service, size, lambda n: put_from(base + n, f"{network}.{n % size}"), rate=rate
        )

    with uploads("live") as live, uploads("slow") as slow:
        eventually("all places are taken", lambda: used(service, "uploads") == PLACES + RESERVED)
        time.sleep(KNOWN_S)
        for n in range(20):
            store_one_of_each(service, f"ours-{n}")
        held = fill(service, "held", 1)
        assert held[0].finish() == 201
        assert slow.statuses[408] > 0
        assert live.statuses == {}


def test_uploads_that_are_renewed_again_and_again_keep_nobody_out(
    serve: Callable[..., Process],
) -> None:
    """Case 86: they end before it is known how slow they are."""
    service = serve()
    stopping = threading.Event()

    def renew(number: int) -> None:
        while not stopping.is_set():
            with connect(service, f"127.0.0.{number % 9 + 2}") as begun, suppress(OSError):
                begun.send(slow_put(number) + b"x" * 100)
                stopping.wait(0.8 + 0.04 * (number % 10))

    threads = [threading.Thread(target=renew, args=(number,)) for number in range(90)]
    for thread in threads:
        thread.start()
    try:
        eventually("all places are taken", lambda: used(service, "uploads") >= PLACES)
        for n in range(20):
            store_one_of_each(service, f"ours-{n}")
    finally:
        stopping.set()
        for thread in threads:
            thread.join()


def test_fetches_of_some_callers_leave_others_theirs(serve: Callable[..., Process]) -> None:
    """Case 86: nine callers, with as many fetches each as they get, of what does not respond."""
    service = serve("--fetch-allow", "127.0.0.0/8", "--fetch-connections", "64")
    fast = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nabcd"
    with Trickle(b"", 0) as slow_url, Trickle(fast, None) as url, ExitStack() as crowds:
        for n in range(9):
            crowds.enter_context(
                crowd(service, 8, hanging_fetch(slow_url, n), address=f"127.0.0.{n + 2}", rate=0)
            )
        eventually("all places are taken", lambda: used(service, "fetches") == PLACES + RESERVED)
        for n in range(6):
            assert service.ask("GET", f"/fetch?url={url}?{n}").status == 200
        time.sleep(KNOWN_S)
        for n in range(6, 12):
            assert service.ask("GET", f"/fetch?url={url}?{n}").status == 200


def hanging_fetch(url: str, crowd_number: int) -> Callable[[int], bytes]:
    return lambda number: request("GET", f"/fetch?url={url}?{crowd_number}-{number}")


def test_clients_of_a_trusted_proxy_are_told_apart(serve: Callable[..., Process]) -> None:
    """Case 86."""
    service = serve("--trusted-proxy", ATTACKER)
    with crowd(service, PLACES, lambda number: put_from(number, "203.0.113.7")):
        eventually("all places are taken", lambda: used(service, "uploads") >= PLACES)
        time.sleep(KNOWN_S)
        count = RESERVED + 4
        uploads = [
            HalfWay(service, f"ours/{n}", ATTACKER, f"203.0.113.66, 203.0.113.{8 + n % 2}")
            for n in range(2 * count)
        ]
        assert [upload.finish() for upload in uploads] == [201] * 2 * count
    eventually("it is logged", lambda: "the slowest upload of 203.0.113.7" in service.log)


def test_what_strangers_forward_is_ignored(serve: Callable[..., Process]) -> None:
    """Case 86: they do not become many by saying so."""
    service = serve()
    with crowd(service, PLACES, lambda number: put_from(number, f"203.0.113.{number % 250}")):
        eventually("all places are taken", lambda: used(service, "uploads") >= PLACES)
        time.sleep(KNOWN_S)
        uploads = fill(service, "ours", RESERVED + 4)
        assert [upload.finish() for upload in uploads] == [201] * (RESERVED + 4)
        assert service.ask("GET", "/health").json["shares"]["uploads"]["callers"] == 1


# Imports


@pytest.mark.parametrize(
    ("size", "answers"), [(32, True), (320, True), (32, False)], ids=["32", "320", "no response"]
)
def test_imports_of_slow_upstreams_do_not_keep_others_from_theirs(
    serve: Callable[..., Process], size: int, answers: bool
) -> None:
    """Case 86: of 300 B/s, and of an upstream that does not respond at all."""
    service = serve("--fetch-allow", "127.0.0.0/8")
    response = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" if answers else b""
    fast = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nabcd"
    with Trickle(response, 300 if answers else 0) as slow_url, Trickle(fast, None) as url:

        def slow_import(number: int) -> bytes:
            return an_import(slow_url, f"slow-{number}")

        with crowd(service, size, slow_import, rate=0) as slow, ExitStack() as ours:
            eventually("all imports are taken", lambda: used(service, "imports") >= 32)
            for n in range(4):
                assert service.ask("POST", "/media", *import_of(url, f"{n}")).status == 201
            time.sleep(KNOWN_S)
            held = []
            for n in range(8):
                connection = ours.enter_context(connect(service, "127.0.0.1"))
                connection.send(an_import(slow_url, f"held-{n}"))
                held.append(connection)
            eventually("slow ones end", lambda: slow.statuses[504] >= 4)
            for n in range(4, 8):
                assert service.ask("POST", "/media", *import_of(url, f"{n}")).status == 201
            store_one_of_each(service, "others")
    eventually("it is logged", lambda: f"the slowest import of {ATTACKER}" in service.log)


def import_of(url: str, name: str) -> tuple[bytes, dict[str, str]]:
    arguments = {"url": url, "directory": name, "filename": "a.wav"}
    return json.dumps(arguments).encode(), {"Content-Type": "application/json"}


def an_import(url: str, name: str) -> bytes:
    content, fields = import_of(url, name)
    return request("POST", "/media", content, fields)


def test_as_many_callers_as_imports_keep_none_that_stall(serve: Callable[..., Process]) -> None:
    """Case 86: each has one, of an upstream of 300 B/s."""
    service = serve(
        "--max-imports", "4", "--fetch-allow", "127.0.0.0/8", "--trusted-proxy", ATTACKER
    )
    fast = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nabcd"
    slow = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
    with Trickle(slow, 300) as slow_url, Trickle(fast, None) as url:

        def slow_import(number: int) -> bytes:
            content, fields = import_of(slow_url, f"slow-{number}")
            forwarded = {"X-Forwarded-For": f"203.0.113.{number % 4}"}
            return request("POST", "/media", content, fields | forwarded)

        with crowd(service, 4, slow_import, rate=0) as held:
            eventually("all imports are taken", lambda: used(service, "imports") == 4)
            time.sleep(KNOWN_S)
            assert service.ask("POST", "/media", *import_of(url, "ours")).status == 201
            # One at least: on a busy machine it has begun anew before ours was stored, and another
            # one ended for it.
            eventually("a slow one ended", lambda: held.statuses[504] >= 1)


def test_fewer_imports_can_be_had(serve: Callable[..., Process]) -> None:
    service = serve("--max-imports", "3", "--fetch-allow", "127.0.0.0/8")
    assert service.ask("GET", "/health").json["shares"]["imports"]["total"] == 3


# Descriptors


FORM_HEAD = [("Content-Type", MULTIPART), ("Transfer-Encoding", "chunked")]


def endless_form(number: int) -> bytes:
    """Files, which are so large that the first of them are taken at once, and one that does not
    end.
    """
    files = [part(f"slow/{number}", f"{n}.wav", b"x" * 1200) for n in range(255)]
    disposition = 'Content-Disposition: form-data; name="slow"; filename="z.wav"'
    last = f"--{BOUNDARY}\r\n{disposition}\r\n\r\n".encode()
    content = b"".join(files) + last
    # One chunk that is far from complete.
    return head("POST", "/media", FORM_HEAD) + b"%x\r\n" % (1 << 24) + content


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[Callable[[int], Process]]:
    """Call it with a hard limit of descriptors for a service of the test's own."""
    with ExitStack() as services:

        def begin(limit: int) -> Process:
            root = tmp_path / "area" / "media"
            root.parent.mkdir()
            code = (
                "import os, resource, sys\n"
                f"resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))\n"
                "os.execv(sys.argv[1], sys.argv[1:])\n"
            )
            media = ["media", "--port", "0", "--root", str(root), "--no-durable"]
            command = [sys.executable, "-c", code, TWISTD, "-n", "--pidfile=", *media]
            process = Process(command, root.parent, tmp_path / "log", root)
            services.callback(process.kill)
            return process

        yield begin


@pytest.mark.parametrize(("limit", "size"), [(1024, 16), (4096, 16), (1024, 160), (4096, 160)])
def test_forms_do_not_take_all_descriptors(
    limited: Callable[[int], Process], limit: int, size: int
) -> None:
    """Case 90: connections are accepted, and others' forms stored."""
    service = limited(limit)
    with crowd(service, size, endless_form) as slow:
        eventually("the forms hold files", lambda: used(service, "descriptors") >= limit // 4, 30)
        for n in range(20):
            assert service.ask("GET", "/health").status == 200
            store_one_of_each(service, f"ours-{n}")
        time.sleep(2 * KNOWN_S)  # they were fast at first
        files = limit // 4 // 8 + 2  # more than is reserved
        content = form(*(part("ours", f"{n}.wav", b"x") for n in range(min(files, 256))))
        stored = service.ask("POST", "/media", content, {"Content-Type": MULTIPART})
        assert stored.status == 201, stored
        eventually("slow forms end", lambda: slow.statuses[408] >= 1)
        open_now = service.ask("GET", "/health").json["descriptors"]["open"]
        assert open_now < limit * 15 // 16
    eventually("nothing is held", lambda: used(service, "descriptors") == 0)
    assert "Traceback" not in service.log


def test_a_file_for_which_there_is_no_descriptor_is_refused_and_the_others_stored(
    limited: Callable[[int], Process],
) -> None:
    """Case 90."""
    service = limited(512)
    content = form(*(part("a", f"{n}.wav", b"x") for n in range(200)))
    answer = service.ask("POST", "/media", content, {"Content-Type": MULTIPART})
    assert answer.brief == (207, 514)
    codes = [entry["code"] for entry in answer.files]
    assert codes == [200] * 128 + [514] * 72
    assert len(os.listdir(service.root / "a")) == 128
    assert (
        service.ask(
            "POST", "/media", form(part("b", "b.wav", b"x")), {"Content-Type": MULTIPART}
        ).status
        == 201
    )


def test_a_limit_of_descriptors_that_is_too_low_is_warned_of_at_the_start(
    limited: Callable[[int], Process],
) -> None:
    """Case 90: in one line that says what to do."""
    (line,) = (line for line in limited(1024).log.splitlines() if "LimitNOFILE=" in line)
    assert "the limit of 1024 open files is low" in line
    assert "--max-uploads 64" in line
    assert "at most 654 connections, and 512 from one address" in line


def test_a_limit_that_suffices_is_not_warned_of(limited: Callable[[int], Process]) -> None:
    assert "LimitNOFILE" not in limited(15_174).log


# Connections


def test_few_descriptors_do_not_lock_anybody_out(limited: Callable[[int], Process]) -> None:
    """Case 90: an address that reopens whatever is closed does not keep another one out."""
    service = limited(256)
    total = service.ask("GET", "/health").json["shares"]["connections"]["total"]
    assert total == 163
    with Reopening(service, 300):
        answers = []
        for _ in range(50):
            with connect(service, "127.0.0.1") as connection:
                answers.append(connection.ask("GET", "/health"))
    assert {answer.status for answer in answers} == {200}
    assert max(answer.json["descriptors"]["open"] for answer in answers) < 240
    assert "EMFILE" not in service.log


class Reopening:
    """Sockets of an attacker that send nothing, each reopened when it is closed."""

    def __init__(self, service: Process, count: int) -> None:
        self._address = ("127.0.0.1", service.port)
        self._poll = select.poll()
        self._sockets: dict[int, socket.socket] = {}
        self._count = count
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> None:
        for _ in range(self._count):
            self._open()
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        for each in self._sockets.values():
            each.close()

    def _open(self) -> None:
        each = socket.socket()
        each.bind((ATTACKER, 0))
        each.connect(self._address)
        self._sockets[each.fileno()] = each
        self._poll.register(each, select.POLLIN)

    def _work(self) -> None:
        while not self._ended.is_set():
            for descriptor, _ in self._poll.poll(100):
                self._poll.unregister(descriptor)
                self._sockets.pop(descriptor).close()
                self._open()


def test_idle_connections_of_one_address_do_not_keep_others_out(
    serve: Callable[..., Process],
) -> None:
    """Case 86: all connections are taken, some by half a head."""
    service = serve("--max-connections", "40", "--max-per-address", "40")
    with ExitStack() as idle:
        held = [idle.enter_context(connect(service, ATTACKER)) for _ in range(44)]
        for connection in held[:10]:
            connection.send(b"GET / HT")
        time.sleep(KNOWN_S)
        with ExitStack() as ours:
            kept = [ours.enter_context(connect(service, "127.0.0.1")) for _ in range(15)]
            for connection in kept:
                assert connection.ask("GET", "/health").status == 200
            figures = kept[0].ask("GET", "/health").json["shares"]["connections"]
            assert figures["callers"] == 2
            assert figures["used"] <= 45
    eventually("logged", lambda: f"gave way: idle connections of {ATTACKER}" in service.log)
