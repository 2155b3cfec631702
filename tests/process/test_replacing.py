"""Replacements with `If-Match`: atomic, under load, beside readers, and through a `kill -9`."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random, randrange

import pytest

from tests.process.exchange import URLENCODED, Answer, chunked, head, request
from tests.process.running import (
    OF_THE_SERVICE,
    Process,
    drafts_in,
    eventually,
    start,
    tree_of,
)

LOAD_S = 2.5  # 8 readers and 2 writers on one name
READERS, WRITERS = 8, 2
RACES = 30
KILLS = 5
KILLED_NAMES = 6
LARGE = Random(51).randbytes((24 << 20) + 3)


def stored(service: Process, name: str, content: bytes) -> str:
    """Store a new file. Returns its entity tag."""
    answer = service.ask("PUT", f"/media/{name}", content)
    assert answer.brief == (201, 200)
    etag = answer.files[0]["etag"]
    assert isinstance(etag, str)
    return etag


@pytest.mark.parametrize("size", [0, 100, 3 << 20])
@pytest.mark.parametrize("condition", ["{etag}", '"other", {etag}', "*"])
def test_a_file_with_the_given_tag_is_replaced(
    service: Process, folder: str, condition: str, size: int
) -> None:
    name = f"{folder}/a.wav"
    etag = stored(service, name, b"first")
    content = Random(size).randbytes(size)
    answer = service.ask(
        "PUT", f"/media/{name}", content, {"If-Match": condition.format(etag=etag)}
    )
    assert answer.brief == (200, 200)
    (entry,) = answer.files
    assert entry["replaced"] is True
    assert (entry["size"], entry["sha256"]) == (size, hashlib.sha256(content).hexdigest())
    shown = service.ask("GET", f"/media/{name}")
    assert (shown.status, shown.content) == (200, content)
    assert shown.headers["ETag"] == entry["etag"] == answer.headers["ETag"] != etag
    assert os.listdir(service.root / folder) == ["a.wav"]
    assert drafts_in(service.root) == []


@pytest.mark.parametrize(
    "condition",
    [
        '"stale"',
        "W/{etag}",
        '"a", "b"',
        "",
        "{opaque}",
        "{etag} {etag}",
        '*, "x"',
        '"*"',
        "{etag},x",
    ],
)
@pytest.mark.parametrize("size", [4, 3 << 20])
def test_a_file_with_another_tag_is_not_replaced(
    service: Process, folder: str, condition: str, size: int
) -> None:
    name = f"{folder}/a.wav"
    etag = stored(service, name, b"first")
    asked = {"If-Match": condition.format(etag=etag, opaque=etag.strip('"'))}
    with service.unchanged(), service.connect() as connection:
        assert connection.ask("PUT", f"/media/{name}", b"x" * size, asked).brief == (412, 412)
        fields = [("Transfer-Encoding", "chunked"), *asked.items()]
        connection.send(head("PUT", f"/media/{name}", fields) + chunked([b"x" * size]))
        assert connection.answer().brief == (412, 412)
    assert service.ask("GET", f"/media/{name}").headers["ETag"] == etag
    assert (service.root / name).read_bytes() == b"first"


@pytest.mark.parametrize("condition", ["*", '"5-1"', ""])
@pytest.mark.parametrize("name", ["absent.wav", "absent/er.wav", "there.wav/a.wav"])
def test_a_missing_file_is_not_replaced(
    service: Process, folder: str, condition: str, name: str
) -> None:
    stored(service, f"{folder}/there.wav", b"x")
    with service.unchanged():
        for content in (b"", b"x", b"x" * (3 << 20)):
            answer = service.ask("PUT", f"/media/{folder}/{name}", content, {"If-Match": condition})
            assert answer.brief == (412, 412)


@pytest.mark.parametrize("condition", ["*", '"5-1"'])
def test_a_directory_is_not_replaced(service: Process, folder: str, condition: str) -> None:
    stored(service, f"{folder}/a.wav/b.wav", b"x")
    with service.unchanged():
        asked = {"If-Match": condition}
        assert service.ask("PUT", f"/media/{folder}/a.wav", b"x", asked).brief == (409, 409)


def test_a_precondition_does_not_excuse_other_failures(service: Process, folder: str) -> None:
    """The order of checks: name, format, size, then the precondition."""
    etag = stored(service, f"{folder}/a.wav", b"first")
    (service.root / folder / "a.txt").write_bytes(b"put there")
    with service.unchanged():
        for name, length, brief in (
            (f"{folder}/.a.wav", 1, (400, 505)),
            (f"{folder}/a.txt", 1, (415, 504)),
            (f"{folder}/a.wav", 1 << 40, (413, 506)),
        ):
            for condition in (etag, "*", '"stale"'):
                fields = [("Content-Length", str(length)), ("If-Match", condition)]
                with service.connect() as connection:
                    connection.send(head("PUT", f"/media/{name}", fields))
                    assert connection.answer().brief == brief


def test_if_none_match_changes_nothing(service: Process, folder: str) -> None:
    """An existing file is never overwritten without If-Match. That is checked first: a precondition
    with the same result is not evaluated (RFC 9110, 13.2.1).
    """
    name = f"/media/{folder}/a.wav"
    asked = {"If-None-Match": "*"}
    assert service.ask("PUT", name, b"first", asked).brief == (201, 200)
    for condition in ("*", '"other"'):
        answer = service.ask("PUT", name, b"second", {"If-None-Match": condition})
        assert answer.brief == (409, 501)
    assert service.ask("GET", name).content == b"first"


def test_if_match_and_if_none_match_must_both_be_true(service: Process, folder: str) -> None:
    name = f"{folder}/a.wav"
    etag = stored(service, name, b"first")
    with service.unchanged():
        for none in ("*", etag, f"W/{etag}"):
            asked = {"If-Match": etag, "If-None-Match": none}
            assert service.ask("PUT", f"/media/{name}", b"x", asked).brief == (412, 412)
    asked = {"If-Match": etag, "If-None-Match": '"other"'}
    assert service.ask("PUT", f"/media/{name}", b"second", asked).brief == (200, 200)


def test_a_replacement_whose_digest_is_wrong_does_not_happen(service: Process, folder: str) -> None:
    name = f"{folder}/a.wav"
    etag = stored(service, name, b"first")
    wrong = f"sha-256=:{b64encode(hashlib.sha256(b'x').digest()).decode()}:"
    with service.unchanged():
        asked = {"If-Match": etag, "Repr-Digest": wrong}
        assert service.ask("PUT", f"/media/{name}", b"second", asked).brief == (400, 508)
    assert service.ask("GET", f"/media/{name}").headers["ETag"] == etag


def test_a_replacement_that_is_cut_off_does_not_happen(service: Process, folder: str) -> None:
    """Case 1."""
    name = f"{folder}/a.wav"
    etag = stored(service, name, b"first")
    sent = request("PUT", f"/media/{name}", b"x" * 2_000_000, {"If-Match": etag})
    with service.unchanged():
        for cut in (len(sent) - 1, len(sent) - 1_000_000, len(sent) - 2_000_000):
            for n in range(3):
                connection = service.connect()
                connection.send(sent[:cut])
                (connection.reset if n % 2 else connection.close)()
    assert service.ask("GET", f"/media/{name}").headers["ETag"] == etag
    assert (service.root / name).read_bytes() == b"first"


def test_a_file_that_changes_meanwhile_is_not_replaced(service: Process, folder: str) -> None:
    """It is checked before the content is requested, and again after it is received."""
    name = f"{folder}/a.wav"
    for how in ("deleted", "replaced", "changed"):
        # Its size differs from that of the next file: before Linux 6.13 files written within some
        # milliseconds have the same time.
        etag = stored(service, name, b"first")
        fields = [("Content-Length", "6"), ("Expect", "100-continue"), ("If-Match", etag)]
        with service.connect() as connection:
            connection.send(head("PUT", f"/media/{name}", fields))
            assert connection.answer_head()[0] == 100
            if how == "deleted":
                assert service.ask("DELETE", f"/media/{name}").json["deleted"] is True
            elif how == "replaced":
                answer = service.ask("PUT", f"/media/{name}", b"another", {"If-Match": etag})
                assert answer.brief == (200, 200)
            else:
                (service.root / name).write_bytes(b"another")
            connection.send(b"second")
            assert connection.answer().brief == (412, 412)
        left = service.ask("GET", f"/media/{name}")
        assert left.content == b"another" if how != "deleted" else left.status == 404
        service.ask("DELETE", f"/media/{name}")
    assert not (service.root / folder).exists()


@pytest.mark.parametrize(
    ("condition", "there", "gone"),
    [
        ({"If-Match": "{etag}"}, "deleted", 412),
        ({"If-Match": '"other", {etag}'}, "deleted", 412),
        ({"If-Match": "*"}, "deleted", 412),
        ({"If-Match": '"other"'}, 412, 412),
        ({"If-Match": "W/{etag}"}, 412, 412),
        ({"If-Match": ""}, 412, 412),
        ({"If-None-Match": "*"}, 412, "not deleted"),
        ({"If-None-Match": "{etag}"}, 412, "not deleted"),
        ({"If-None-Match": '"other"'}, "deleted", "not deleted"),
        ({"If-Unmodified-Since": "{modified}"}, "deleted", "not deleted"),
        ({"If-Unmodified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"}, 412, "not deleted"),
        ({"If-Modified-Since": "{modified}"}, "deleted", "not deleted"),  # of GET and HEAD only
    ],
    ids=str,
)
@pytest.mark.parametrize("by", ["path", "query", "form"])
def test_a_delete_on_a_condition(
    service: Process,
    folder: str,
    condition: dict[str, str],
    there: str | int,
    gone: str | int,
    by: str,
) -> None:
    name = f"{folder}/a.wav"
    stored(service, name, b"first")
    shown = service.ask("HEAD", f"/media/{name}").headers
    values = {"etag": shown["ETag"], "modified": shown["Last-Modified"]}
    headers = {header: value.format(**values) for header, value in condition.items()}
    fields = f"directory={folder}&filename=a.wav"

    def delete() -> str | int:
        answer = {
            "path": lambda: service.ask("DELETE", f"/media/{name}", None, headers),
            "query": lambda: service.ask("DELETE", f"/media?{fields}", None, headers),
            "form": lambda: service.ask(
                "DELETE", "/media", fields.encode(), {**headers, "Content-Type": URLENCODED}
            ),
        }[by]()
        if answer.status != 200:
            assert answer.brief == (answer.status, answer.status)
            return answer.status
        return "deleted" if answer.json["deleted"] else "not deleted"

    assert delete() == there
    assert (service.root / name).exists() == (there != "deleted")
    service.ask("DELETE", f"/media/{name}")
    with service.unchanged():
        assert delete() == gone


def test_a_new_file_has_the_permissions_of_a_new_file(service: Process, folder: str) -> None:
    umask = os.umask(0)
    os.umask(umask)
    name = f"{folder}/a.wav"
    etag = stored(service, name, b"first")
    path = service.root / name
    before = path.stat()
    folder_before = path.parent.stat()
    assert service.ask("PUT", f"/media/{name}", b"second", {"If-Match": etag}).status == 200
    after = path.stat()
    assert after.st_mode & 0o777 == 0o666 & ~umask
    assert after.st_nlink == before.st_nlink == 1
    assert after.st_ino != before.st_ino
    assert path.parent.stat().st_mode == folder_before.st_mode
    assert os.listdir(path.parent) == ["a.wav"]


def test_neither_a_link_nor_its_target_is_replaced(service: Process, folder: str) -> None:
    """Case 33."""
    stored(service, f"{folder}/a.wav", b"first")
    (service.root / folder / "link.wav").symlink_to("a.wav")
    with service.unchanged():
        asked = {"If-Match": "*"}
        answer = service.ask("PUT", f"/media/{folder}/link.wav", b"second", asked)
        assert answer.brief == (412, 412)
    assert (service.root / folder / "link.wav").is_symlink()
    assert (service.root / folder / "a.wav").read_bytes() == b"first"


def test_a_download_continues_with_the_file_that_it_began_with(
    service: Process, folder: str
) -> None:
    """Case 30, with replacements before the delete."""
    name = f"{folder}/a.wav"
    etag = stored(service, name, LARGE)
    with ExitStack() as open_:
        readers = []
        for n, content in enumerate([b"second" * 100, LARGE[::-1], b"last"]):
            reader = open_.enter_context(service.connect())
            reader.send(request("GET", f"/media/{name}"))
            _, headers = reader.answer_head()
            assert headers["ETag"] == etag
            size = int(headers["Content-Length"])
            begun = reader.read(min(size, 1000))
            readers.append((reader, size, begun, [LARGE, b"second" * 100, LARGE[::-1]][n]))
            answer = service.ask("PUT", f"/media/{name}", content, {"If-Match": etag})
            assert answer.brief == (200, 200)
            etag = answer.files[0]["etag"]
        assert service.ask("GET", f"/media/{name}").content == b"last"
        assert service.ask("DELETE", f"/media/{name}").json["deleted"] is True
        for reader, size, begun, content in readers:
            assert begun + reader.read(size - len(begun)) == content
            assert reader.ask("GET", f"/media/{name}").status == 404
    assert not (service.root / folder).exists()


def test_if_range_fails_after_a_replacement(service: Process, folder: str) -> None:
    """A player that seeks gets bytes of one version only."""
    name = f"{folder}/a.wav"
    etag = stored(service, name, b"0123456789")
    part = {"Range": "bytes=5-"}
    with service.connect() as player:
        url = f"/media/{name}"
        first = player.ask("GET", url, headers={**part, "If-Range": etag})
        assert (first.status, first.content) == (206, b"56789")
        assert player.ask("PUT", url, b"abcdefghij", {"If-Match": etag}).status == 200
        whole = player.ask("GET", url, headers={**part, "If-Range": etag})
        assert (whole.status, whole.content) == (200, b"abcdefghij")
        refused = player.ask("GET", url, headers={**part, "If-Match": etag})
        assert refused.brief == (412, 412)


def in_threads(*jobs: Callable[[], None]) -> None:
    """Run all in threads until each ends. An exception in one fails the test."""
    failures: list[BaseException] = []

    def run(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as failure:  # noqa: BLE001  # raised below
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


@pytest.mark.parametrize("writers", [2, 6])
def test_of_writers_with_one_tag_one_replaces_the_file(
    service: Process, folder: str, writers: int
) -> None:
    """Case 2, for replacements. The others get 412, so no write is lost."""
    name = f"{folder}/a.wav"
    etag = stored(service, name, b"first")
    with ExitStack() as open_:
        connections = [open_.enter_context(service.connect()) for _ in range(writers)]
        for number in range(RACES):
            size = (10, 5_000, 1 << 20)[number % 3] // writers
            contents = [Random(number * writers + n).randbytes(size + n) for n in range(writers)]
            answers: list[Answer | None] = [None] * writers
            ready = threading.Barrier(writers)

            def put(
                n: int,
                sent: bytes,
                answers: list[Answer | None] = answers,
                ready: threading.Barrier = ready,
            ) -> None:
                connections[n].send(sent[:-1])
                ready.wait()
                connections[n].send(sent[-1:])
                answers[n] = connections[n].answer()

            sent = [
                request("PUT", f"/media/{name}", content, {"If-Match": etag})
                for content in contents
            ]
            in_threads(*(partial(put, n, sent[n]) for n in range(writers)))
            briefs = [answer.brief for answer in answers if answer is not None]
            assert sorted(briefs) == [(200, 200)] + [(412, 412)] * (writers - 1)
            winner = briefs.index((200, 200))
            shown = connections[0].ask("GET", f"/media/{name}")
            assert shown.headers["ETag"] != etag
            etag = shown.headers["ETag"]
            assert shown.content == contents[winner]
    assert os.listdir(service.root / folder) == ["a.wav"]
    assert drafts_in(service.root) == []


def test_of_a_replacement_and_a_delete_with_one_tag_one_happens(
    service: Process, folder: str
) -> None:
    name = f"{folder}/a.wav"
    outcomes: Counter[tuple[int, int]] = Counter()
    with service.connect() as one, service.connect() as other:
        for _ in range(RACES):
            etag = stored(service, name, b"first")
            statuses: dict[str, int] = {}
            ready = threading.Barrier(2)

            def replace(
                etag: str = etag,
                statuses: dict[str, int] = statuses,
                ready: threading.Barrier = ready,
            ) -> None:
                ready.wait()
                answer = one.ask("PUT", f"/media/{name}", b"second", {"If-Match": etag})
                statuses["replace"] = answer.status

            def delete(
                etag: str = etag,
                statuses: dict[str, int] = statuses,
                ready: threading.Barrier = ready,
            ) -> None:
                ready.wait()
                answer = other.ask("DELETE", f"/media/{name}", None, {"If-Match": etag})
                statuses["delete"] = answer.status

            in_threads(replace, delete)
            outcome = statuses["replace"], statuses["delete"]
            outcomes[outcome] += 1
            shown = one.ask("GET", f"/media/{name}")
            if outcome == (200, 412):
                assert shown.content == b"second"
                assert one.ask("DELETE", f"/media/{name}").json["deleted"] is True
            else:
                assert outcome == (412, 200)
                assert shown.status == 404
    assert sum(outcomes.values()) == RACES


@dataclass
class Load:
    """Observations while readers read one name and writers replace it."""

    versions: dict[str, bytes] = field(default_factory=dict)  # SHA-256 of each, by entity tag
    seen: set[tuple[str, bytes]] = field(default_factory=set)
    # To increase an existing number is atomic among threads, to insert the first is not.
    counts: Counter[str] = field(default_factory=lambda: Counter(replacements=0))


def version(seed: int) -> bytes:
    """A version of any size: some are sent with the headers, some in pieces, some by sendfile."""
    random = Random(seed)
    return random.randbytes(random.choice((1, 3_000, 40_000, 65_536, 65_537, 200_000, 1_500_000)))


def read_on(service: Process, name: str, ended: threading.Event, load: Load) -> None:
    """GET the name repeatedly. Each response must be complete, and of one version."""
    with service.connect() as connection:
        while not ended.is_set():
            whole = connection.ask("GET", f"/media/{name}")
            assert whole.status == 200, whole
            sha256 = hashlib.sha256(whole.content).digest()
            etag = whole.headers["ETag"]
            said = whole.headers["Repr-Digest"]
            assert said == f"sha-256=:{b64encode(sha256).decode()}:"
            load.seen.add((etag, sha256))
            load.counts["wholes"] += 1
            start = len(whole.content) // 2
            asked = {"Range": f"bytes={start}-", "If-Match": etag}
            rest = connection.ask("GET", f"/media/{name}", headers=asked)
            if rest.status == 412:
                load.counts["parts of a version that is gone"] += 1
                continue
            assert (rest.status, rest.headers["ETag"]) == (206, etag)
            assert rest.content == whole.content[start:]
            load.counts["parts"] += 1


def write_on(service: Process, name: str, own: int, ended: threading.Event, load: Load) -> None:
    """Replace the file repeatedly, with the tag that it had just before."""
    with service.connect() as connection:
        seed = own << 32
        while not ended.is_set():
            seed += 1
            content = version(seed)
            etag = connection.ask("HEAD", f"/media/{name}").headers["ETag"]
            answer = connection.ask("PUT", f"/media/{name}", content, {"If-Match": etag})
            if answer.status == 412:
                load.counts["writers told"] += 1
                continue
            assert answer.brief == (200, 200)
            new = answer.files[0]["etag"]
            assert new not in load.versions
            load.versions[new] = hashlib.sha256(content).digest()
            load.counts["replacements"] += 1


def test_readers_and_writers_of_one_name_for_a_while(serve: Callable[..., Process]) -> None:
    """Case 26, too: every read is a complete version with its tag. The name always has a file, and
    nothing else stays.
    """
    service = serve()
    name = "busy/a.wav"
    load = Load()
    first = version(0)
    load.versions[stored(service, name, first)] = hashlib.sha256(first).digest()
    ended = threading.Event()

    def has_seen_enough() -> bool:
        return all(load.counts[what] > 10 for what in ("wholes", "parts", "replacements"))

    def is_late() -> bool:
        return time.monotonic() - begun > 10 * LOAD_S

    def clock() -> None:
        # Runs for a time, since there is no event to wait for. It is longer on a busy machine.
        ended.wait(LOAD_S)
        while not (ended.is_set() or has_seen_enough() or is_late()):
            ended.wait(0.1)
        ended.set()

    def until_one_fails(job: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                job()
            finally:
                ended.set()

        return run

    jobs: list[Callable[[], None]] = [clock]
    jobs += [lambda: read_on(service, name, ended, load)] * READERS
    jobs += [
        lambda own=own: write_on(service, name, own, ended, load)  # type: ignore[misc]
        for own in range(1, WRITERS + 1)
    ]
    begun = time.monotonic()
    with service.unchanged_descriptors():
        in_threads(*map(until_one_fails, jobs))
    assert time.monotonic() - begun >= LOAD_S
    print(dict(load.counts), "versions seen:", len({etag for etag, _ in load.seen}))
    assert load.seen <= set(load.versions.items())
    assert load.counts["replacements"] == len(load.versions) - 1
    assert has_seen_enough(), load.counts
    shown = service.ask("GET", f"/media/{name}")
    assert load.versions[shown.headers["ETag"]] == hashlib.sha256(shown.content).digest()
    assert service.tree() == ["busy", "busy/a.wav"]
    assert drafts_in(service.root) == []


@dataclass
class Outcome:
    """Of one name: the acknowledged versions, and the one that is being uploaded."""

    acknowledged: int = 0
    sent: int = 0
    replaced: int = 0


def killed_version(name: str, number: int) -> bytes:
    random = Random(f"{name} {number}")
    return random.randbytes(int((1 << 20) ** random.random()))


def replace_until_killed(service: Process, name: str, outcome: Outcome) -> None:
    try:
        with service.connect() as connection:
            while True:
                headed = connection.ask("HEAD", f"/media/{name}")
                assert headed.status == 200
                outcome.sent += 1
                content = killed_version(name, outcome.sent)
                asked = {"If-Match": headed.headers["ETag"]}
                answer = connection.ask("PUT", f"/media/{name}", content, asked)
                assert answer.brief == (200, 200)
                outcome.acknowledged = outcome.sent
                outcome.replaced += 1
    except ConnectionError:
        pass  # the kill
    except AssertionError as failure:
        if "cut off" not in str(failure):  # the kill can cut off a response
            raise


def test_after_a_kill_9_a_name_has_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    """Case 3, for replacements: an acknowledged version is there, or the next one, complete. The
    name always has a file, and no draft stays.
    """
    seed = randrange(1 << 32)
    random = Random(seed)
    root = tmp_path / "area" / "media"
    outcomes = {f"f{n % 2}/{n}.wav": Outcome() for n in range(KILLED_NAMES)}

    def replacements() -> int:
        return sum(outcome.replaced for outcome in outcomes.values())

    service = start(root)
    try:
        for name in outcomes:
            stored(service, name, killed_version(name, 0))
        for number in range(KILLS):
            when = f"round {number}, seed {seed}"

            def kill(
                service: Process = service,
                after_s: float = random.uniform(0.05, 0.6),
                is_last: bool = number == KILLS - 1,
            ) -> None:
                time.sleep(after_s)  # the time of the kill, which does not depend on an event
                try:
                    if is_last:
                        eventually("enough was replaced", lambda: replacements() > KILLS)
                finally:
                    service.kill()

            jobs = [
                lambda name=name, outcome=outcome: replace_until_killed(service, name, outcome)  # noqa: B023
                for name, outcome in outcomes.items()
            ]
            in_threads(kill, *jobs)
            service = start(root)
            assert drafts_in(root) == [], when
            assert sorted(os.listdir(root / ".twistedmedia")) == OF_THE_SERVICE, when
            assert tree_of(root) == sorted(["f0", "f1", *outcomes]), when
            for name, outcome in outcomes.items():
                content = service.ask("GET", f"/media/{name}").content
                assert content == (root / name).read_bytes()
                possible = {
                    n: killed_version(name, n) for n in {outcome.acknowledged, outcome.sent}
                }
                assert content in possible.values(), f"{when}: {name} is neither old nor new"
                outcome.acknowledged = max(n for n in possible if possible[n] == content)
                outcome.sent = max(possible)
    finally:
        service.kill()
    print({name: outcome.replaced for name, outcome in outcomes.items()})
    assert replacements() > KILLS
