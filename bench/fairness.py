"""
Measures a normal client beside attacks: how long it waits, how fast it stores, what it is refused.

``bench/fairness`` runs this in the environment of the benchmark. For each attack in each size there
is a new service. The client measures alone, beside the attack, and two seconds after its end. Then
the attack begins again, and the service is told to stop. Progress goes to stderr, the table to
stdout. Ends with 1 when a promise was broken.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import bystander
import servers
from attacks import ATTACKS, Attack
from figures import MIB, markdown_table, number_text

AT_MOST_TIMES = 3.0  # of the quiet p99
AT_MOST_MS = 20.0  # whatever the quiet p99 is
LEAST_RATE = 1 / 3  # of the quiet rate of a large PUT
RECOVERED_S = 2.0
GROWN_AT_MOST = 1.1
BACK_WITHIN_S = 10.0
GRACE_S = 3.0
STOPPED_LATE_S = 2.0
_KILLED_AFTER_S = GRACE_S + 6.0
_BEGUN_WITHIN_S = 60.0
_LARGE_BYTES = 200 * MIB
_SLOW_LOG_BYTES = 10  # ten times a second
_SMALL_PIPE_BYTES = 4096


@dataclass(frozen=True)
class Sizes:
    """How long the client measures, in seconds, and how long a large PUT may take."""

    watch_s: float
    settle_s: float
    large_s: float


QUICK = Sizes(watch_s=2.0, settle_s=1.0, large_s=15.0)
FULL = Sizes(watch_s=8.0, settle_s=2.0, large_s=60.0)


@dataclass(frozen=True)
class Moment:
    """
    What the client saw, and what the service held, at one time of a run.

    :ivar cpu: parts of a core that the server, the attackers and the client used.
    """

    get_p99_ms: float
    put_p99_ms: float
    requests: int
    refusals: dict[str, int]
    rss_mib: float
    descriptors: int
    cpu: dict[str, float]
    large_mb_per_s: float | None = None


@dataclass
class Row:
    """
    An attack in one size.

    :ivar back_s: after how many seconds memory and descriptors were what they had been, and None
        when they were not; the last figures are in *left*.
    :ivar stopped_s: what the stop during the attack took, None when the process was killed.
    :ivar broken: the promises that were not kept, in words.
    """

    attack: str
    title: str
    count: int
    quiet: Moment
    beside: Moment
    after: Moment
    peak_rss_mib: float
    memory_back_s: float | None
    descriptors_back_s: float | None
    left: tuple[float, int]
    stopped_s: float | None
    attackers: dict[str, Any]
    broken: list[str] = field(default_factory=list)


class Attacking:
    """An attack in a process of its own."""

    def __init__(self, attack: Attack, count: int, port: int) -> None:
        program = Path(__file__).with_name("attacks.py")
        self._process = subprocess.Popen(
            [sys.executable, str(program), attack.name, str(count), str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def await_begin(self) -> None:
        """Until all have connected and have sent their first request."""
        assert self._process.stdout is not None
        late = threading.Timer(_BEGUN_WITHIN_S, self._process.kill)
        late.start()
        said = self._process.stdout.readline()
        late.cancel()
        if said != "ready\n":
            raise servers.ServerFailedError(f"the attack did not begin ({said!r})")

    def cpu_s(self) -> float:
        """The CPU seconds that it has used."""
        return servers.cpu_s(self._process.pid)

    def end(self) -> dict[str, Any]:
        """Have all of them leave at once; what they saw."""
        said, _ = self._process.communicate(timeout=30)
        seen: dict[str, Any] = json.loads(said)
        return seen

    def kill(self) -> None:
        """End it whatever it does."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


@contextmanager
def attacking(attack: Attack, count: int, port: int) -> Iterator[Attacking]:
    """An attack that has begun, and ends with the context."""
    it = Attacking(attack, count, port)
    try:
        it.await_begin()
        yield it
    finally:
        it.kill()


class Log:
    """
    The pipe to which a service writes its log. It is read, but for the time of an attack on it.

    :ivar write_end: the descriptor for the service.
    """

    def __init__(self) -> None:
        self._read_end, self.write_end = os.pipe()
        self._how = "kept"
        self._is_over = False
        self._pipe_is_closed = False
        self.received = b""
        os.set_blocking(self._read_end, False)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def attack(self, how: str) -> None:
        """Go over to the manner of an attack, or back to ``kept``."""
        self._how = how

    def close(self) -> None:
        """Stop to read."""
        self._is_over = True
        self._thread.join()

    def _read(self) -> None:
        while not self._is_over:
            if self._how == "closed" and not self._pipe_is_closed:
                os.close(self._read_end)
                self._pipe_is_closed = True
            if self._how in ("kept", "slow") and not self._pipe_is_closed:
                try:
                    size = 1 << 16 if self._how == "kept" else _SLOW_LOG_BYTES
                    self.received += os.read(self._read_end, size)
                except BlockingIOError:
                    pass
            time.sleep(0.1 if self._how == "slow" else 0.02)
        if not self._pipe_is_closed:
            os.close(self._read_end)


@contextmanager
def own_disk(size_bytes: int | None, folder: Path) -> Iterator[None]:
    """A file system in memory at *folder*, where one is wanted. Mounted by root, or by sudo."""
    folder.mkdir()
    if size_bytes is None:
        yield
        return
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    options = f"size={size_bytes},uid={os.geteuid()},gid={os.getegid()},mode=755"
    mount = [*as_root, "mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    subprocess.run(mount, check=True)
    try:
        yield
    finally:
        subprocess.run([*as_root, "umount", "-l", str(folder)], check=True)


def service_of(attack: Attack) -> servers.Server:
    """The service as the attack wants it."""
    server = servers.twistedmedia(f"--grace={GRACE_S:.0f}s", *attack.options)
    if attack.descriptors is None:
        return server

    def command(launch: servers.Launch) -> list[str]:
        limit = f"--nofile={attack.descriptors}:{attack.descriptors}"
        return ["prlimit", limit, *server.command(launch)]

    return replace(server, command=command)


class Run:
    """One attack in one size, against one service."""

    def __init__(
        self, attack: Attack, count: int, sizes: Sizes, tolerance: float, load: Executor
    ) -> None:
        self._attack = attack
        self._count = count
        self._sizes = sizes
        self._tolerance = tolerance
        self._load = load

    def measure(self, folder: Path) -> Row:
        """The figures, and which promises were broken."""
        attack = self._attack
        with ExitStack() as stack:
            stack.enter_context(own_disk(attack.disk_bytes, folder / "root"))
            log = Log() if attack.log != "kept" else None
            if log is not None:
                stack.callback(log.close)
            server = stack.enter_context(
                servers.running(
                    service_of(attack), folder, output=log.write_end if log is not None else None
                )
            )
            upstream = stack.enter_context(_upstream()) if attack.imports else None
            if attack.prepare is not None:
                attack.prepare(server.root)
            self._load.submit(bystander.prepare, server.port).result()
            quiet = self._moment(server, upstream, None, with_large=True)
            with attacking(attack, self._count, server.port) as attackers:
                if log is not None:
                    log.attack(attack.log)
                time.sleep(self._sizes.settle_s)
                beside = self._moment(server, upstream, attackers, with_large=True)
                peak_rss_mib = server.peak_rss_kib() / 1024
                seen = attackers.end()
            if log is not None:
                log.attack("kept")
            ended = time.monotonic()
            time.sleep(RECOVERED_S)
            after = self._moment(server, upstream, None, with_large=False)
            grown = 1 + (GROWN_AT_MOST - 1) * self._tolerance
            memory_back_s, descriptors_back_s = _back(server, quiet, ended, grown)
            left = (server.rss_kib() / 1024, server.descriptors())
            with attacking(attack, self._count, server.port):
                if log is not None:
                    log.attack(attack.log)
                time.sleep(self._sizes.settle_s)
                stopped_s = server.stop(_KILLED_AFTER_S)
        row = Row(
            attack.name,
            attack.title,
            self._count,
            quiet,
            beside,
            after,
            peak_rss_mib,
            memory_back_s,
            descriptors_back_s,
            left,
            stopped_s,
            seen,
        )
        row.broken = broken_promises(row, self._tolerance)
        return row

    def _moment(
        self,
        server: servers.Running,
        upstream: int | None,
        attackers: Attacking | None,
        *,
        with_large: bool,
    ) -> Moment:
        sizes = self._sizes
        start = time.monotonic()
        server_s, attackers_s = server.cpu_s(), attackers.cpu_s() if attackers else 0.0
        seen = self._load.submit(
            bystander.watch, server.port, sizes.watch_s, upstream, lists=self._attack.lists
        ).result()
        lasted_s = time.monotonic() - start
        cpu = {
            "server": (server.cpu_s() - server_s) / lasted_s,
            "attackers": (attackers.cpu_s() - attackers_s) / lasted_s if attackers else 0.0,
            "client": seen.cpu_s / lasted_s,
        }
        held = (server.rss_kib() / 1024, server.descriptors())
        rate = None
        if with_large:
            large = self._load.submit(
                bystander.large_put, server.port, _LARGE_BYTES, sizes.large_s
            ).result()
            rate = large.mb_per_s
            if large.refusal:
                seen.refusals[f"large PUT: {large.refusal}"] += 1
            for stored in (server.root / "bench").glob("large-*"):
                stored.unlink()
            if attackers is None:
                # What a large PUT needs once is no growth.
                held = (server.rss_kib() / 1024, server.descriptors())
        return Moment(
            get_p99_ms=seen.get_p99_ms,
            put_p99_ms=seen.put_p99_ms,
            requests=len(seen.get_ms) + len(seen.put_ms),
            refusals=dict(seen.refusals),
            rss_mib=held[0],
            descriptors=held[1],
            cpu=cpu,
            large_mb_per_s=rate,
        )


@contextmanager
def _upstream() -> Iterator[int]:
    """The port of a server that the normal client imports from."""
    port = servers.free_port()
    program = Path(__file__).with_name("upstream.py")
    process = subprocess.Popen([sys.executable, str(program), f"--port={port}"])
    try:
        yield port
    finally:
        process.kill()
        process.wait()


def _back(
    server: servers.Running, quiet: Moment, ended: float, grown: float
) -> tuple[float | None, float | None]:
    """
    After how many seconds memory and descriptors were what they had been before the attack.

    :param grown: so many times as much is the same.
    """
    memory_s = descriptors_s = None
    end = time.monotonic() + BACK_WITHIN_S
    while time.monotonic() < end:
        since_s = time.monotonic() - ended
        if memory_s is None and server.rss_kib() / 1024 <= quiet.rss_mib * grown:
            memory_s = since_s
        if descriptors_s is None and server.descriptors() <= quiet.descriptors * grown:
            descriptors_s = since_s
        if memory_s is not None and descriptors_s is not None:
            break
        time.sleep(0.1)
    return memory_s, descriptors_s


def broken_promises(row: Row, tolerance: float) -> list[str]:
    """
    What the service promises about an attack and did not keep.

    :param tolerance: how many times the bounds may be missed.
    """
    broken = []
    for when, moment in (("beside the attack", row.beside), ("2 s after it", row.after)):
        for kind, quiet_ms, ms in (
            ("GET", row.quiet.get_p99_ms, moment.get_p99_ms),
            ("PUT", row.quiet.put_p99_ms, moment.put_p99_ms),
        ):
            bound_ms = max(AT_MOST_TIMES * quiet_ms, AT_MOST_MS) * tolerance
            if ms > bound_ms:
                broken.append(f"p99 of a small {kind} {when} is {ms:.1f} ms, not {bound_ms:.1f}")
        if moment.refusals:
            broken.append(f"refused {when}: {_counted(moment.refusals)}")
    if row.quiet.refusals:
        broken.append(f"refused before the attack: {_counted(row.quiet.refusals)}")
    assert row.quiet.large_mb_per_s is not None
    assert row.beside.large_mb_per_s is not None
    if row.beside.large_mb_per_s < row.quiet.large_mb_per_s * LEAST_RATE / tolerance:
        broken.append(
            f"a large PUT has {row.beside.large_mb_per_s:.1f} MB/s beside the attack,"
            f" {row.quiet.large_mb_per_s:.0f} alone"
        )
    if row.attackers["unanswered"]:
        broken.append(f"{row.attackers['unanswered']} requests of the attack were not answered")
    left_mib, left_descriptors = row.left
    if row.memory_back_s is None:
        broken.append(f"{left_mib:.0f} MiB are left, {row.quiet.rss_mib:.0f} were used before")
    if row.descriptors_back_s is None:
        broken.append(f"{left_descriptors} descriptors are open, {row.quiet.descriptors} were")
    if row.stopped_s is None:
        broken.append(f"did not stop within {_KILLED_AFTER_S:.0f} s")
    elif row.stopped_s > GRACE_S + STOPPED_LATE_S:
        broken.append(f"stopped after {row.stopped_s:.1f} s, with a grace of {GRACE_S:.0f} s")
    return broken


def _counted(refusals: dict[str, int]) -> str:
    return ", ".join(f"{count} x {what}" for what, count in sorted(refusals.items()))


def table(rows: list[Row]) -> str:
    """The rows in markdown, and below it what was broken."""
    header = [
        "attack",
        "connections",
        "GET p99 ms: alone",
        "beside",
        "after",
        "PUT p99 ms: alone",
        "beside",
        "after",
        "200 MiB PUT MB/s: alone",
        "beside",
        "refusals",
        "MiB: alone",
        "peak",
        "left",
        "descriptors: alone",
        "beside",
        "left",
        "back after s",
        "stop s",
        "CPU: server",
        "attackers",
        "client",
        "kept",
    ]
    lines = []
    for row in rows:
        back = [row.memory_back_s, row.descriptors_back_s]
        moments = (row.quiet, row.beside, row.after)
        lines.append(
            [
                row.attack,
                f"{row.count:,}",
                *(number_text(moment.get_p99_ms) for moment in moments),
                *(number_text(moment.put_p99_ms) for moment in moments),
                *(number_text(moment.large_mb_per_s or 0.0) for moment in moments[:2]),
                str(sum(row.beside.refusals.values())),
                f"{row.quiet.rss_mib:.0f}",
                f"{row.peak_rss_mib:.0f}",
                f"{row.left[0]:.0f}",
                str(row.quiet.descriptors),
                str(row.beside.descriptors),
                str(row.left[1]),
                "never" if None in back else f"{max(each or 0.0 for each in back):.1f}",
                "never" if row.stopped_s is None else f"{row.stopped_s:.1f}",
                *(f"{used:.0%}" for used in row.beside.cpu.values()),
                "no" if row.broken else "yes",
            ]
        )
    broken = [
        f"- {row.attack} {row.count:,}: {each}; attackers were told {row.attackers['told']}"
        if number == 0
        else f"- {row.attack} {row.count:,}: {each}"
        for row in rows
        for number, each in enumerate(row.broken)
    ]
    return "\n\n".join([markdown_table(header, lines), "\n".join(broken) or "All kept."])


def main() -> None:
    """Run what the command line asks for."""
    # Ends through the context managers that stop the services and delete the files.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    arguments = _parse_arguments()
    sizes = QUICK if arguments.quick else FULL
    chosen = [
        (attack, count)
        for attack in ATTACKS.values()
        for count in attack.counts
        if not arguments.only or attack.name in arguments.only
        if not arguments.count or count in arguments.count
    ]
    rows: list[Row] = []
    with (
        tempfile.TemporaryDirectory(prefix="scratch-", dir=arguments.dir) as scratch,
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as load,
    ):
        for number, (attack, count) in enumerate(chosen, 1):
            progress = f"{number}/{len(chosen)} {attack.name} {count:,}"
            begun = time.monotonic()
            row = Run(attack, count, sizes, arguments.tolerance, load).measure(
                Path(tempfile.mkdtemp(dir=scratch, prefix=f"{attack.name}-"))
            )
            rows.append(row)
            _write(rows, arguments)
            kept = f"{len(row.broken)} promises broken" if row.broken else "all kept"
            _say(f"{progress}: {kept} ({time.monotonic() - begun:.0f} s)")
    print(table(rows), flush=True)
    sys.exit(1 if any(row.broken for row in rows) else 0)


def _write(rows: list[Row], arguments: argparse.Namespace) -> None:
    """What is known so far: a run takes long."""
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    if arguments.output is not None:
        arguments.output.write_text(table(rows) + "\n")


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="measure a normal client beside attacks")
    parser.add_argument(
        "--only",
        action="append",
        choices=list(ATTACKS),
        metavar="ATTACK",
        help=f"this attack only; may be repeated: {', '.join(ATTACKS)}",
    )
    parser.add_argument(
        "--count",
        action="append",
        type=int,
        help="only the sizes with this many connections; may be repeated",
    )
    parser.add_argument("--quick", action="store_true", help="measure for 2 s, not for 8 s")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=1.0,
        help="multiplies the bounds of waiting and of growth, and divides that of the rate: for a"
        " machine with other work",
    )
    parser.add_argument(
        "--dir",
        type=Path,
        default=Path(__file__).resolve().parent,
        help="where the files go, in a folder that is deleted in the end",
    )
    parser.add_argument("--json", type=Path, help="write all figures to this file, too")
    parser.add_argument("--output", type=Path, help="write the table to this file, too")
    return parser.parse_args()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
