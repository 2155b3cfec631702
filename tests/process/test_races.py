"""Many who want the same name at the same time: one gets it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from random import Random

from tests.process.exchange import MULTIPART, URLENCODED, Answer, form, part, request, urlencoded
from tests.process.running import Process

UPLOADS = 64
ROUNDS = 20
FORM = {"Content-Type": MULTIPART}
FIELDS = {"Content-Type": URLENCODED}


def upload_of(way: int, name: str, content: bytes) -> bytes:
    """A request that stores `content` as `race/<name>`, by one of three ways."""
    if way == 0:
        return request("PUT", f"/media/race/{name}", content)
    if way == 1:
        return request("POST", "/media", form(part("race", name, content)), FORM)
    fields = urlencoded(("body", content), ("directory", "race"), ("filename", name))
    return request("POST", "/media", fields, FIELDS)


def test_of_simultaneous_uploads_to_one_name_one_is_stored(serve: Callable[..., Process]) -> None:
    """Case 2: 64 at once, 20 times; by PUT, by form, by fields, and by all of them mixed."""
    service = serve("--max-uploads", "100")
    for number in range(ROUNDS):
        name = f"{number}.wav"
        contents = [Random(number * UPLOADS + n).randbytes(2000 + n) for n in range(UPLOADS)]
        answers: list[Answer | None] = [None] * UPLOADS
        ready = threading.Barrier(UPLOADS)

        def upload(
            n: int,
            sent: bytes,
            answers: list[Answer | None] = answers,
            ready: threading.Barrier = ready,
        ) -> None:
            with service.connect() as connection:
                connection.send(sent[:-1])
                ready.wait()
                connection.send(sent[-1:])
                answers[n] = connection.answer()

        threads = []
        for n, content in enumerate(contents):
            way = number % 4 if number % 4 < 3 else n % 3
            sent = upload_of(way, name, content)
            threads.append(threading.Thread(target=upload, args=(n, sent)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        briefs = [answer.brief for answer in answers if answer is not None]
        assert sorted(briefs) == [(201, 200)] + [(409, 501)] * (UPLOADS - 1), number
        winner = briefs.index((201, 200))
        assert (service.root / "race" / name).read_bytes() == contents[winner]
        assert service.ask("GET", f"/media/race/{name}").content == contents[winner]
    assert len(service.tree()) == ROUNDS + 1


def test_of_a_file_and_a_folder_of_one_name_one_is_stored(serve: Callable[..., Process]) -> None:
    service = serve()
    for number in range(20):
        statuses: dict[str, int] = {}
        ready = threading.Barrier(2)

        def put(
            name: str,
            statuses: dict[str, int] = statuses,
            ready: threading.Barrier = ready,
        ) -> None:
            with service.connect() as connection:
                sent = request("PUT", f"/media/race/{name}", b"x")
                connection.send(sent[:-1])
                ready.wait()
                connection.send(sent[-1:])
                statuses[name] = connection.answer().status

        names = (f"{number}.wav", f"{number}.wav/in.wav")
        threads = [threading.Thread(target=put, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(statuses.values()) == [201, 409]
        for name, status in statuses.items():
            assert (service.root / "race" / name).is_file() == (status == 201)
