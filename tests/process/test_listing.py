"""Listings of directories, page by page."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import pytest

from tests.process.exchange import Answer, Connection, head, request
from tests.process.running import Process, eventually

# In the order of their UTF-8 bytes. A directory is ordered with its slash: "+" precedes it, and "0"
# follows. By UTF-16 units the last two would be in the opposite order.
IN_ORDER = [
    "!.wav",
    '"quoted".wav',
    "#?&=;.wav",
    "%41.wav",
    "A.wav",
    "a b.wav",
    "a+b.wav",
    "a/",
    "a0.wav",
    "a:b.wav",
    "z.wav",
    "zz/",
    "ä.wav",
    "日本.wav",
    "～.wav",
    "😀.wav",
]
LONGEST_S = 20.0  # seconds for a hundred changes, even on a busy disk
LEFT_OUT = [".hidden.wav", "back\\slash.wav", "tab\t.wav", "bidi\u202e.wav", "e\u0301.wav"]


def put_in(folder: Path, names: list[str]) -> None:
    """Make files with these names. For a name with a slash, make a directory with a file in it."""
    for name in names:
        path = folder / name
        if name.endswith("/"):
            path.mkdir(parents=True)
            path = path / "in.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def listing(answer: Answer, directory: str) -> dict[str, Any]:
    """The JSON of a response, whose form must be that of a listing of `directory`."""
    assert answer.status == 200, answer
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Content-Length"] == str(len(answer.content))
    assert answer.headers["Cache-Control"] == "no-cache"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    shown = answer.json
    assert set(shown) == {"code", "reason", "directory", "entries", "next", "left_out"}
    assert (shown["code"], shown["reason"], shown["directory"]) == (200, "OK", directory)
    return shown


def names_in(shown: dict[str, Any]) -> list[str]:
    return [entry["name"] for entry in shown["entries"]]


def pages(connection: Connection, folder: str, limit: int) -> list[dict[str, Any]]:
    """All pages, requested with `next` of the page before."""
    found = []
    after = last = ""
    while last is not None:
        url = f"/media/{folder}/?limit={limit}{after}"
        shown = listing(connection.ask("GET", url), folder)
        found.append(shown)
        assert shown["next"] is None or shown["next"] > last  # otherwise this would not end
        last = shown["next"]
        after = f"&after={quote(last or '', safe='')}"
    return found


def test_an_entry_agrees_with_the_response_to_get(service: Process, folder: str) -> None:
    for name, content in {"a b.wav": b"12345", "ü%.mp3": b"", "deep/er.wav": b"x"}.items():
        assert service.ask("PUT", f"/media/{folder}/{quote(name)}", content).status == 201
    os.utime(service.root / folder / "a b.wav", ns=(0, 1_700_000_000_123_999_999))
    os.utime(service.root / folder / "ü%.mp3", ns=(0, 951_827_696_000_000_001))  # a leap day
    shown = listing(service.ask("GET", f"/media/{folder}/"), folder)
    first, directory, last = shown["entries"]
    assert first == {
        "name": "a b.wav",
        "url": f"/media/{folder}/a%20b.wav",
        "size": 5,
        "modified": "2023-11-14T22:13:20.123Z",
        "etag": service.ask("HEAD", f"/media/{folder}/a%20b.wav").headers["ETag"],
    }
    assert directory == {"name": "deep/", "url": f"/media/{folder}/deep/"}
    assert (last["size"], last["modified"]) == (0, "2000-02-29T12:34:56.000Z")
    assert last["etag"] == service.ask("HEAD", last["url"]).headers["ETag"]
    assert (shown["next"], shown["left_out"]) == (None, 0)


def test_names_are_in_byte_order_and_each_url_leads_to_its_file(
    service: Process, folder: str
) -> None:
    put_in(service.root / folder, IN_ORDER[::-1])
    with service.connect() as connection:
        shown = listing(connection.ask("GET", f"/media/{folder}/"), folder)
        assert names_in(shown) == IN_ORDER
        for entry in shown["entries"]:
            answer = connection.ask("GET", entry["url"])
            if entry["name"].endswith("/"):
                assert names_in(listing(answer, f"{folder}/{entry['name'][:-1]}")) == ["in.wav"]
            else:
                assert (answer.status, answer.content) == (200, entry["name"].encode())


@pytest.mark.parametrize("limit", [1, 2, 15, 16, 17])
def test_pages_together_are_the_whole_listing(service: Process, folder: str, limit: int) -> None:
    put_in(service.root / folder, IN_ORDER)
    with service.connect() as connection:
        found = pages(connection, folder, limit)
    assert [name for page in found for name in names_in(page)] == IN_ORDER
    assert [len(page["entries"]) for page in found[:-1]] == [limit] * (len(found) - 1)
    assert len(found) == -(-len(IN_ORDER) // limit)


@pytest.mark.parametrize("limit", [97, 1000, 10_000])
def test_2500_names_of_all_kinds_are_each_listed_once(
    service: Process, folder: str, limit: int
) -> None:
    """And 400 names that are not listed are each counted once."""
    kinds = (
        "{}.wav",
        "{} .MP3",
        "A{}.x",
        "ü{}.wav",
        "日{}.ogg",
        "😀{}",
        "%2F{}",
        "{}+&.wav",
        "{}/",
    )
    names = [kinds[n % len(kinds)].format(n * 7919 % 2503) for n in range(2500)]
    inside = service.root / folder
    put_in(inside, names)
    for n in range(100):
        (inside / f".{n}.wav").touch()
        (inside / f"{n}\\.wav").touch()
        (inside / f"{n}\u202e.wav").touch()
        (inside / f"{n} link.wav").symlink_to(names[0])
    with service.connect() as connection:
        found = pages(connection, folder, limit)
    listed = [name for page in found for name in names_in(page)]
    assert listed == sorted(names, key=str.encode)
    assert sum(page["left_out"] for page in found) == 400
    assert len(found) == -(-2500 // limit)


def test_without_a_limit_a_page_has_1000_names(service: Process, folder: str) -> None:
    put_in(service.root / folder, [f"{n:04}.wav" for n in range(1001)])
    first = listing(service.ask("GET", f"/media/{folder}/"), folder)
    assert (len(first["entries"]), first["next"]) == (1000, "0999.wav")
    second = listing(service.ask("GET", f"/media/{folder}/?after=0999.wav"), folder)
    assert (names_in(second), second["next"]) == (["1000.wav"], None)


def test_the_name_in_after_need_not_exist(service: Process, folder: str) -> None:
    put_in(service.root / folder, ["a/", "b.wav", "d.wav"])
    for after, names in {
        "": ["a/", "b.wav", "d.wav"],
        "a": ["a/", "b.wav", "d.wav"],
        "a%2F": ["b.wav", "d.wav"],
        "b.wav": ["d.wav"],
        "b.wav%00": ["d.wav"],
        "c": ["d.wav"],
        "..%2F..": ["a/", "b.wav", "d.wav"],
        "d.wav": [],
        "%F0%9F%98%80": [],
    }.items():
        shown = listing(service.ask("GET", f"/media/{folder}/?after={after}"), folder)
        assert (names_in(shown), shown["next"]) == (names, None), after


def test_entries_that_are_not_media_are_counted(service: Process, folder: str) -> None:
    """Case 35. Names that cannot be requested are not listed either."""
    inside = service.root / folder
    put_in(inside, ["a.wav", "z.wav", *LEFT_OUT, ".folder/"])
    os.close(os.open(os.fsencode(inside) + b"/latin-\xe9.wav", os.O_CREAT))
    (inside / "link.wav").symlink_to("a.wav")
    os.mkfifo(inside / "pipe.wav")
    shown = listing(service.ask("GET", f"/media/{folder}/"), folder)
    assert names_in(shown) == ["a.wav", "z.wav"]
    assert shown["left_out"] == len(LEFT_OUT) + 4


def test_the_root_lists_directories_but_not_files_of_the_service(
    serve: Callable[..., Process],
) -> None:
    service = serve()
    assert names_in(listing(service.ask("GET", "/media/"), "")) == []
    put_in(service.root, ["b/", "a/c/", "stray.wav"])
    shown = listing(service.ask("GET", "/media/"), "")
    assert shown["entries"] == [
        {"name": "a/", "url": "/media/a/"},
        {"name": "b/", "url": "/media/b/"},
    ]
    assert shown["left_out"] == 1
    for target in ("/media/.twistedmedia/", "/media/.twistedmedia/drafts/"):
        assert service.ask("GET", target).brief == (400, 505)


@pytest.mark.parametrize(
    ("query", "code", "reason"),
    [
        ("limit=0", 400, "'limit'"),
        ("limit=-1", 400, "'limit'"),
        ("limit=%2B1", 400, "'limit'"),
        ("limit=10001", 400, "'limit'"),
        ("limit=1.5", 400, "'limit'"),
        ("limit=1e3", 400, "'limit'"),
        ("limit=0x10", 400, "'limit'"),
        ("limit=%201", 400, "'limit'"),
        ("limit=many", 400, "'limit'"),
        ("limit=%D9%A3", 400, "'limit'"),  # a digit, but an Arabic one
        ("limit=%C2%B2", 400, "'limit'"),
        ("limit=" + "9" * 9, 400, "'limit'"),
        ("limit=" + "9" * 5000, 400, "'limit'"),
        ("limit=00000000110001", 400, "'limit'"),
        ("limit=000000001" + "9" * 5000, 400, "'limit'"),
        ("limit=1&limit=2", 400, "'limit'"),
        ("after=a&after=b", 400, "'after'"),
        ("limit=%FF", 505, "UTF-8"),
        ("after=%FF", 505, "UTF-8"),
        ("after=%ED%A0%80", 505, "UTF-8"),
    ],
)
def test_an_invalid_query_is_refused_with_a_reason(
    service: Process, folder: str, query: str, code: int, reason: str
) -> None:
    """Case 37."""
    put_in(service.root / folder, ["a.wav"])
    answer = service.ask("GET", f"/media/{folder}/?{query}")
    assert answer.brief == (400, code)
    assert reason in answer.json["reason"]


def test_other_keys_of_the_query_are_ignored(service: Process, folder: str) -> None:
    put_in(service.root / folder, ["a.wav"])
    for query in (
        "",
        "limit",
        "limit=",
        "after",
        "after=",
        "download",
        "x=y&limit=5",
        "limit=0005",
    ):
        shown = listing(service.ask("GET", f"/media/{folder}/?{query}"), folder)
        assert names_in(shown) == ["a.wav"], query


def test_the_response_to_head_is_that_to_get_without_content(service: Process, folder: str) -> None:
    put_in(service.root / folder, ["a.wav", "b/"])
    with service.connect() as connection:
        for target in (f"/media/{folder}/", f"/media/{folder}", "/media", f"/media/{folder}/no/"):
            shown = connection.ask("GET", target)
            headed = connection.ask("HEAD", target)
            del shown.headers["Date"], headed.headers["Date"]
            assert (headed.status, headed.headers.items()) == (
                shown.status,
                shown.headers.items(),
            )


def test_a_missing_or_empty_directory_is_not_found(service: Process, folder: str) -> None:
    """Case 48, too: the response is not cached."""
    put_in(service.root / folder, ["a.wav"])
    (service.root / folder / "empty").mkdir()
    (service.root / folder / "out").symlink_to(service.root.parent / "media-evil")
    for name in ("absent", "absent/er", "empty", "a.wav", "a.wav/b", "out"):
        assert service.ask("GET", f"/media/{folder}/{name}/").brief == (404, 404), name
        if name != "a.wav":
            assert service.ask("GET", f"/media/{folder}/{name}").brief == (404, 404), name


@pytest.mark.parametrize(
    "target", ["..", "%2e%2e", ".", ".x", "a%2Fb", "a%5C", "%5Ca", "", "a%00", "a//b"]
)
def test_a_directory_whose_name_is_not_allowed_is_refused(service: Process, target: str) -> None:
    """Case 32."""
    for end in ("/", "/?limit=1"):
        assert service.ask("GET", f"/media/{target}{end}").brief == (400, 505)


@pytest.mark.parametrize("name", ["plain", "a b", "ä", "a:b", "100%", "http:", "a;b=c", "日本"])
@pytest.mark.parametrize("query", ["", "?limit=1&after=x", "?"])
def test_a_directory_without_its_slash_redirects_to_a_relative_url(
    service: Process, folder: str, name: str, query: str
) -> None:
    put_in(service.root / folder, [f"{name}/"])
    path = f"/media/{folder}/{quote(name)}"
    answer = service.ask("GET", path + query)
    assert (answer.status, answer.content) == (307, b"")
    location = answer.headers["Location"]
    assert not urlsplit(location).netloc
    assert not urlsplit(location).scheme
    for base in ("http://127.0.0.1", "https://proxy.example/some/where"):
        assert urljoin(base + path, location).partition("?")[0] == f"{base}{path}/"
    there = urljoin(f"{path}{query}", location)
    assert service.ask("GET", there).json["directory"] == f"{folder}/{name}"
    assert urlsplit(there).query == query.removeprefix("?")


def test_the_root_without_its_slash_redirects_too(service: Process) -> None:
    answer = service.ask("GET", "/media?limit=1")
    assert (answer.status, answer.headers["Location"]) == (307, "./media/?limit=1")


def test_preconditions_and_ranges_do_not_apply_to_a_listing(service: Process, folder: str) -> None:
    put_in(service.root / folder, IN_ORDER)
    with service.connect() as connection:
        whole = connection.ask("GET", f"/media/{folder}/")
        assert whole.headers["ETag"] is None
        assert whole.headers["Accept-Ranges"] is None
        for name, value in {
            "Range": "bytes=0-1",
            "If-None-Match": "*",
            "If-Match": '"x"',
            "If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT",
            "If-Unmodified-Since": "Thu, 01 Jan 1970 00:00:00 GMT",
        }.items():
            answer = connection.ask("GET", f"/media/{folder}/", headers={name: value})
            assert (answer.status, answer.content) == (200, whole.content), name


def test_an_unfinished_upload_is_not_listed(service: Process, folder: str) -> None:
    """Case 26, too: a listing does not wait for uploads."""
    fields = [("Content-Length", "4"), ("Expect", "100-continue")]
    with service.connect() as sender, service.connect() as reader:
        sender.send(head("PUT", f"/media/{folder}/a.wav", fields))
        assert sender.answer_head()[0] == 100
        sender.send(b"123")
        assert reader.ask("GET", f"/media/{folder}/").brief == (404, 404)
        sender.send(b"4")
        assert sender.answer().brief == (201, 200)
        shown = listing(reader.ask("GET", f"/media/{folder}/"), folder)
        assert [entry["size"] for entry in shown["entries"]] == [4]
        reader.ask("DELETE", f"/media/{folder}/a.wav")
        assert reader.ask("GET", f"/media/{folder}/").brief == (404, 404)


def test_changes_in_a_directory_do_not_affect_other_names(service: Process, folder: str) -> None:
    """Every name that existed all the time is listed exactly once."""
    stays = [f"{n:03}.wav" for n in range(0, 400, 2)]
    put_in(service.root / folder, stays)
    ended = threading.Event()
    changed: list[int] = []

    def change(own: int) -> None:
        with service.connect() as connection:
            for n in count():
                if ended.is_set():
                    return
                name = f"{(own + 14 * n) % 400:03}{('.wav', '/in.wav')[n % 2]}"
                url = f"/media/{folder}/{name}"
                changed.append(connection.ask("PUT", url, b"x").status)
                changed.append(connection.ask("DELETE", url).status)

    threads = [threading.Thread(target=change, args=(2 * own + 1,)) for own in range(7)]
    for thread in threads:
        thread.start()
    try:
        with service.connect() as connection:
            end = time.monotonic() + LONGEST_S
            for number in count():
                if number >= 12 and len(changed) > 100:
                    break
                assert time.monotonic() < end, f"only {len(changed)} changes"
                found = pages(connection, folder, 30 + number % 12)
                listed = [name for page in found for name in names_in(page)]
                assert listed == sorted(set(listed))
                assert [name for name in listed if name in set(stays)] == stays
                assert sum(page["left_out"] for page in found) == 0
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert set(changed) == {200, 201}
    shown = listing(service.ask("GET", f"/media/{folder}/"), folder)
    assert names_in(shown) == stays


def test_the_memory_of_an_unread_listing_is_released(service: Process, folder: str) -> None:
    put_in(service.root / folder, ["x" * 200 + f"{n}.wav" for n in range(3000)])
    sent = request("GET", f"/media/{folder}/?limit=10000")
    with service.unchanged_descriptors():
        for n in range(10):
            connection = service.connect()
            connection.send(sent * 3)
            if n % 2:
                assert connection.answer_head()[0] == 200
            (connection.reset if n % 3 else connection.close)()
    with service.connect() as connection:
        connection.send(sent * 3)
        for _ in range(3):
            assert len(listing(connection.answer(), folder)["entries"]) == 3000
    eventually("no file is open", lambda: folder not in str(service.descriptors()))


@pytest.mark.parametrize(
    "seconds", [-(2**62) // 10**9, -1_008_906_000_000, -62_167_219_200, -1, 910_670_515_199, 2**33]
)
def test_a_file_of_any_year_is_listed_and_served(
    service: Process, folder: str, seconds: int
) -> None:
    """Case 49. The file system may change the time."""
    put_in(service.root / folder, ["odd.wav", "usual.wav"])
    path = service.root / folder / "odd.wav"
    os.utime(path, ns=(0, seconds * 10**9))
    entries = listing(service.ask("GET", f"/media/{folder}/"), folder)["entries"]
    assert [entry["name"] for entry in entries] == ["odd.wav", "usual.wav"]
    for method in ("GET", "HEAD"):
        answer = service.ask(method, f"/media/{folder}/odd.wav")
        assert answer.status == 200
        told, now = (
            parsedate_to_datetime(answer.headers[name]) for name in ("Last-Modified", "Date")
        )
        assert 0 <= told.timestamp() <= now.timestamp()
    since = {"If-Modified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"}
    expected = 304 if path.stat().st_mtime <= 0 else 200
    assert service.ask("GET", f"/media/{folder}/odd.wav", headers=since).status == expected
