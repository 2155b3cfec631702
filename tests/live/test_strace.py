"""The order of operations that a success rests on, as the kernel sees it: a kill cannot show that
something was synced, since what was written survives it anyway.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from tests.process.exchange import MULTIPART, URLENCODED, Answer, form, part, urlencoded
from tests.process.running import TWISTD, Process, eventually

CALLS = "writev,write,fsync,fdatasync,linkat,sendto,send,sendmsg,mkdirat,unlinkat"
CONTENT = b"RIFF this is what is looked for"


@dataclass
class Call:
    """A system call: when it began and when it ended, as lines of the trace."""

    name: str
    text: str
    began: int
    ended: int


def calls_in(trace: str) -> list[Call]:
    """What `strace -f` has written."""
    calls: list[Call] = []
    unfinished: dict[str, Call] = {}
    for number, line in enumerate(trace.splitlines()):
        thread, _, text = line.partition(" ")
        text = text.strip()
        if resumed := re.match(r"<\.\.\. (\w+) resumed>(.*)", text):
            call = unfinished.pop(thread)
            call.text += resumed[2]
            call.ended = number
        elif named := re.match(r"(\w+)\(", text):
            call = Call(named[1], text.removesuffix("<unfinished ...>"), number, number)
            calls.append(call)
            if text.endswith("<unfinished ...>"):
                call.ended = sys.maxsize
                unfinished[thread] = call
    return calls


@pytest.fixture
def traced(tmp_path: Path) -> Callable[..., list[Call]]:
    """Call it with what to do with a service, to know the system calls which that made."""

    def trace(act: Callable[[Process], Answer], *options: str) -> list[Call]:
        area = tmp_path / "area"
        area.mkdir()
        output = tmp_path / "trace"
        # -D: the service is our child, strace is nobody's; -y: names instead of descriptors
        strace = ["strace", "-D", "-f", "-y", "-s", "256", "-e", f"trace={CALLS}"]
        media = ["media", "--port", "0", "--root", str(area / "media"), *options]
        service = Process(
            [*strace, "-o", str(output), TWISTD, "-n", "--pidfile=", *media],
            area,
            tmp_path / "area.log",
            area / "media",
        )
        try:
            already = len(calls_in(output.read_text(encoding="ascii")))
            answer = act(service)
            assert answer.status in (200, 201), answer
            service.stop()
        finally:
            service.kill()
        ends = f"{service.pid} +++ "
        eventually(
            "strace has written all",
            lambda: any(
                re.sub(r"\s+", " ", line).startswith(ends)
                for line in output.read_text(encoding="ascii").splitlines()
            ),
        )
        return calls_in(output.read_text(encoding="ascii"))[already:]

    return trace


def the(calls: list[Call], name: str, *texts: str) -> Call:
    """The one call of that name with all these texts in it, which has to have worked."""
    found = [
        call for call in calls if call.name == name and all(map(call.text.__contains__, texts))
    ]
    assert len(found) == 1, (name, texts, [call.text for call in calls])
    assert not re.search(r"= -1 ", found[0].text), found[0].text
    return found[0]


def assert_in_order(*steps: list[Call]) -> None:
    """All of a step has ended before anything of the next one begins."""
    for before, after in pairwise(steps):
        for one in before:
            for other in after:
                assert one.ended < other.began, (one, other)


def put(service: Process) -> Answer:
    return service.ask("PUT", "/media/new/deep/a.wav", CONTENT)


def multipart(service: Process) -> Answer:
    content = form(part("new/deep", "a.wav", CONTENT))
    return service.ask("POST", "/media", content, {"Content-Type": MULTIPART})


def fields(service: Process) -> Answer:
    content = urlencoded(("directory", "new/deep"), ("filename", "a.wav"), ("body", CONTENT))
    return service.ask("POST", "/media", content, {"Content-Type": URLENCODED})


@pytest.mark.parametrize("act", [put, multipart, fields])
def test_a_success_is_sent_after_file_and_folders_are_synced(
    traced: Callable[..., list[Call]], act: Callable[[Process], Answer]
) -> None:
    calls = traced(act)
    wrote = [call for call in calls if call.name in ("write", "writev") and "RIFF" in call.text]
    assert len(wrote) == 1, calls
    draft = re.search(r"<(.+?)>", wrote[0].text)[1]  # type: ignore[index]
    linked = the(calls, "linkat", '"a.wav"')
    answered = the(calls, "sendto", "HTTP/1.1 201")
    made = [the(calls, "mkdirat", f'"{name}"') for name in ("new", "deep")]
    synced = [the(calls, "fsync", f"{folder}>") for folder in ("/media", "/new", "/deep")]
    assert_in_order(wrote, [the(calls, "fsync", f"<{draft}")], [linked], synced, [answered])
    assert_in_order(made, [linked])
    assert made[0].ended < made[1].began


def test_a_delete_is_told_after_the_folder_is_synced(traced: Callable[..., list[Call]]) -> None:
    def act(service: Process) -> Answer:
        assert put(service).status == 201
        return service.ask("DELETE", "/media/new/deep/a.wav")

    calls = traced(act)
    told = the(calls, "sendto", "deleted")
    removed = the(calls, "unlinkat", '"a.wav"')
    (synced,) = [
        call
        for call in calls
        if call.name == "fsync" and "/deep>" in call.text and call.began > removed.ended
    ]
    assert_in_order([removed], [synced], [told])


def test_without_durability_nothing_is_synced(traced: Callable[..., list[Call]]) -> None:
    calls = traced(put, "--no-durable")
    linked, answered = the(calls, "linkat", '"a.wav"'), the(calls, "sendto", "HTTP/1.1 201")
    wrote = [call for call in calls if call.name in ("write", "writev") and "RIFF" in call.text]
    assert_in_order(wrote, [linked], [answered])
    assert not [call for call in calls if "sync" in call.name]
