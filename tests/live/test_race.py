"""Of any number of simultaneous uploads to one name exactly one stores."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from random import Random

import pytest

from tests.process.exchange import MULTIPART, URLENCODED, Answer, form, part, request, urlencoded
from tests.process.running import Process, drafts_in

CLIENTS = 64


def upload(way: str, directory: str, content: bytes) -> bytes:
    """A request that stores `content` as a.wav."""
    if way == "put":
        return request("PUT", f"/media/{directory}/a.wav", content)
    if way == "multipart":
        body, kind = form(part(directory, "a.wav", content)), MULTIPART
    else:
        body = urlencoded(("directory", directory), ("filename", "a.wav"), ("body", content))
        kind = URLENCODED
    return request("POST", "/media", body, {"Content-Type": kind})


@pytest.mark.parametrize(
    ("ways", "rounds"),
    [(["put"], 20), (["put", "multipart", "urlencoded"], 5)],
    ids=["by one way", "by every way"],
)
def test_of_64_uploads_to_one_name_one_is_stored_and_the_others_are_told(
    serve: Callable[..., Process], folder: str, ways: list[str], rounds: int
) -> None:
    """Case 2. All have sent everything but their last byte before any sends that."""
    service = serve("--max-uploads", "100")
    for round_ in range(rounds):
        random = Random(round_)
        directory = f"{folder}/{round_}"
        contents = [random.randbytes(random.randint(1, 100_000)) for _ in range(CLIENTS)]
        answers: list[Answer | None] = [None] * CLIENTS
        line = threading.Barrier(CLIENTS, timeout=30)

        def run(
            n: int,
            contents: list[bytes] = contents,
            answers: list[Answer | None] = answers,
            line: threading.Barrier = line,
            directory: str = directory,
        ) -> None:
            data = upload(ways[n % len(ways)], directory, contents[n])
            with service.connect(30) as connection:
                connection.send(data[:-1])
                line.wait()
                connection.send(data[-1:])
                answers[n] = connection.answer()

        threads = [threading.Thread(target=run, args=(n,)) for n in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        told = [answer.brief if answer is not None else None for answer in answers]
        assert Counter(told) == {(201, 200): 1, (409, 501): CLIENTS - 1}
        winner = contents[told.index((201, 200))]
        assert (service.root / directory / "a.wav").read_bytes() == winner
        assert service.ask("GET", f"/media/{directory}/a.wav").content == winner
        assert drafts_in(service.root) == []
    assert len([name for name in service.tree() if name.endswith(".wav")]) == rounds
