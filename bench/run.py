"""
Measures twistedmedia beside its peers, in turn, on this machine, and prints medians and ratios.

``bench/run`` runs this in an environment that has all it needs. Progress goes to stderr, the tables
to stdout.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import multiprocessing
import os
import platform
import shutil
import signal
import statistics
import sys
import tempfile
import time
import traceback
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import client
import servers
from content import Content
from downloads import download_scenarios
from fetches import fetch_scenarios
from figures import GIB, markdown_table, number_text, percentile, size_text
from lateness import samples_within
from operating import operating_scenarios
from resumable import resumable_scenarios
from scenario import FULL, QUICK, SMALL_FILE_BYTES, Entry, Figures, Scenario, Sizes
from uploads import upload_scenarios
from versions import against, package_of

_PACKAGES = ("twisted", "klein", "treq", "multipart", "aiohttp", "tornado")
_NOT_ON_DISK = ("tmpfs", "ramfs")


@dataclass
class Row:
    """What was seen of one entry: the figures of each round, or why there are none."""

    entry: Entry
    problem: str | None
    rounds: list[Figures] = field(default_factory=list)
    lates_ms: list[float] = field(default_factory=list)

    def median(self, figure: str) -> float:
        """The median of a figure over the rounds."""
        return statistics.median(figures[figure] for figures in self.rounds)


def main() -> None:
    """Run what the command line asks for; ends with 1 when a server that is there failed."""
    # Ends through the context managers that stop the servers and delete the files.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    arguments = _parse_arguments()
    sizes = QUICK if arguments.quick else FULL
    wrk = shutil.which("wrk")
    chosen = [
        scenario
        for scenario in _all_scenarios(sizes.heavy() if arguments.heavy else sizes, wrk)
        if not arguments.only or scenario.name in arguments.only
    ]
    other = None
    if arguments.against is not None:
        other = package_of(arguments.against).parent
        chosen = [pair for each in chosen if (pair := against(each, arguments.against, str(other)))]
    if wrk is None:
        _say("wrk is not installed: a slower generator takes its place")
    report = []
    failed = False
    # Spawned, so that a generator is a small process that shares nothing with this one.
    with (
        tempfile.TemporaryDirectory(prefix="scratch-", dir=arguments.dir) as scratch,
        ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as load,
    ):
        report.append(_surroundings(Path(scratch), arguments.rounds))
        print(report[-1], flush=True)
        for scenario in chosen:
            rows = _run_scenario(scenario, arguments.rounds, sizes.lateness_s, load, Path(scratch))
            failed = failed or any(row.problem and not row.entry.server.missing() for row in rows)
            report.append(_table(scenario, rows, paired=other is not None))
            print("\n" + report[-1], flush=True)
    if arguments.output is not None:
        arguments.output.write_text("\n\n".join(report) + "\n")
    sys.exit(1 if failed else 0)


def _all_scenarios(sizes: Sizes, wrk: str | None) -> list[Scenario]:
    return [
        *upload_scenarios(sizes, wrk),
        *resumable_scenarios(sizes),
        *download_scenarios(sizes, wrk),
        *fetch_scenarios(sizes),
        *operating_scenarios(sizes, wrk),
    ]


def _parse_arguments() -> argparse.Namespace:
    names = [scenario.name for scenario in _all_scenarios(FULL, None)]
    parser = argparse.ArgumentParser(description="measure twistedmedia beside its peers")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each server (%(default)s)")
    parser.add_argument(
        "--only",
        action="append",
        choices=names,
        metavar="NAME",
        help=f"run this scenario only; may be repeated: {', '.join(names)}",
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, to try the bench itself")
    parser.add_argument(
        "--heavy",
        action="store_true",
        help="the large form for the servers that hold it in memory, too (needs 16 GB, minutes)",
    )
    parser.add_argument(
        "--dir",
        type=Path,
        default=Path(__file__).resolve().parent,
        help="where the files go, in a folder that is deleted in the end; on a disk, 10 GB free",
    )
    parser.add_argument(
        "--against",
        type=Path,
        metavar="PYTHON",
        help="measure the service beside that of this interpreter's environment, not beside peers",
    )
    parser.add_argument("--output", type=Path, help="write the tables to this file, too")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds: at least 1")
    return arguments


def _run_scenario(
    scenario: Scenario, rounds: int, lateness_s: float, load: Executor, scratch: Path
) -> list[Row]:
    """All rounds of a scenario: in each, every server has its turn, and in every second one in the
    reverse order.
    """
    rows = [Row(entry, entry.server.missing()) for entry in scenario.entries]
    for row in rows:
        if row.problem:
            _say(f"{scenario.name}: {row.entry.server.name}: {row.problem}")
    for number in range(1, rounds + 1):
        for row in rows if number % 2 else reversed(rows):
            if row.problem:
                continue
            progress = f"{scenario.name} {number}/{rounds}: {row.entry.server.name}"
            try:
                row.rounds.append(_plain_run(scenario, row.entry, load, scratch))
                if scenario.lateness and row.entry.server.has_probe:
                    row.lates_ms += _probed_run(scenario, row.entry, lateness_s, load, scratch)
            except Exception as failure:  # noqa: BLE001  # the other servers have their turn
                row.problem = f"failed: {type(failure).__name__} (see stderr)"
                _say(f"{progress}: failed")
                traceback.print_exc()
            else:
                figure = scenario.ratios_of[0]
                _say(f"{progress}: {number_text(row.rounds[-1][figure])} {figure}")
    return rows


def _plain_run(scenario: Scenario, entry: Entry, load: Executor, scratch: Path) -> Figures:
    """One run against the server as it is used."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    with servers.running(entry.server, folder) as server:
        _make_ready(scenario, entry, server, load)
        figures = scenario.measure(server, entry, load)
    if not scenario.keeps_files:
        shutil.rmtree(folder)
    return figures


def _probed_run(
    scenario: Scenario, entry: Entry, seconds: float, load: Executor, scratch: Path
) -> list[float]:
    """The lateness in ms of the event loop under the load, repeated for at least *seconds*."""
    spans: list[tuple[float, float]] = []
    folder = Path(tempfile.mkdtemp(dir=scratch))
    dump = folder / "lateness.json"
    with servers.running(entry.server, folder, dump) as server:
        _make_ready(scenario, entry, server, load)
        while sum(end - start for start, end in spans) < seconds:
            start = time.monotonic()
            scenario.measure(server, entry, load)
            spans.append((start, time.monotonic()))
            if scenario.prepare is None:
                shutil.rmtree(server.root / client.DIRECTORY)
    lates_ms = samples_within(dump, spans)
    shutil.rmtree(folder)
    return lates_ms


def _make_ready(scenario: Scenario, entry: Entry, server: servers.Running, load: Executor) -> None:
    """Have all imported and opened once, the files in place and the disk idle beforehand."""
    if scenario.stores:
        path = server.root / client.DIRECTORY / "warm-up.wav"
        load.submit(client.upload, "put", server.port, path.name, SMALL_FILE_BYTES).result()
        Content(SMALL_FILE_BYTES).verify(path)
        path.unlink()
    if scenario.prepare is not None:
        scenario.prepare(server.root, entry)
    # What others have left to be written must not be billed to this run.
    os.sync()


def _table(scenario: Scenario, rows: list[Row], *, paired: bool = False) -> str:
    """
    A scenario's title, remarks and table, in markdown.

    :param paired: whether a ratio is the median of the ratios of each round, with their range.
    """
    lateness = ("loop late p99.9 ms", "loop late max ms") if scenario.lateness else ()
    ratios = [f"ratio of {figure}" for figure in scenario.ratios_of]
    header = ["server", "file", *scenario.columns, *lateness, *ratios]
    by_name = {row.entry.server.name: row for row in rows}
    lines = []
    for row in rows:
        line = [row.entry.server.name, size_text(row.entry.size_bytes)]
        if row.problem:
            line.append(row.problem)
        else:
            line += [
                _cell(row, column, column in scenario.ratios_of) for column in scenario.columns
            ]
            line += _lateness_cells(row) if lateness else []
            line += [_ratios(row, by_name, figure, paired) for figure in scenario.ratios_of]
        lines.append(line + [""] * (len(header) - len(line)))
    parts = [f"## {scenario.name}: {scenario.title}", *scenario.remarks]
    return "\n\n".join([*parts, markdown_table(header, lines)])


def _cell(row: Row, column: str, with_range: bool) -> str:
    text = number_text(row.median(column))
    if with_range and len(row.rounds) > 1:
        values = [figures[column] for figures in row.rounds]
        text += f" ({number_text(min(values))}-{number_text(max(values))})"
    return text


def _lateness_cells(row: Row) -> list[str]:
    if not row.lates_ms:
        return ["", ""]
    ordered = sorted(row.lates_ms)
    return [number_text(percentile(ordered, 99.9)), number_text(ordered[-1])]


def _ratios(row: Row, by_name: dict[str, Row], figure: str, paired: bool) -> str:
    ratios = []
    for name in row.entry.compared_with:
        other = by_name[name]
        if other.problem:
            continue
        if paired:
            of_rounds = [
                ours[figure] / theirs[figure]
                for ours, theirs in zip(row.rounds, other.rounds, strict=True)
            ]
            ratio = statistics.median(of_rounds)
            ratios.append(f"{ratio:.2f} ({min(of_rounds):.2f}-{max(of_rounds):.2f}) x {name}")
        else:
            ratios.append(f"{row.median(figure) / other.median(figure):.2f} x {name}")
    return ", ".join(ratios)


def _surroundings(scratch: Path, rounds: int) -> str:
    """What the figures depend on: the machine, the disk, the versions."""
    kind = _file_system(scratch)
    if kind in _NOT_ON_DISK:
        _say(f"the files are in memory ({kind}): figures with fsync mean nothing; use --dir")
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    versions = [f"{platform.python_implementation()} {platform.python_version()}"]
    for package in _PACKAGES:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"no {package}")
    nginx = servers.nginx_version()
    versions.append(f"nginx {nginx}" if nginx else "no nginx")
    return "\n\n".join(
        [
            f"{datetime.date.today()}, {os.cpu_count()} cores, {memory_gib:.0f} GiB of memory, "
            f"Linux {platform.release()}, files on {kind}; {', '.join(versions)}.",
            f"Medians of {rounds} rounds, in each of which every server has its turn (in brackets: "
            "least and most). What the columns mean is in bench/README.md.",
        ]
    )


def _file_system(folder: Path) -> str:
    """The type of the file system that holds *folder*."""
    best, kind = "", "an unknown file system"
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount, found, *_ = line.split()
        if folder.resolve().is_relative_to(mount) and len(mount) >= len(best):
            best, kind = mount, found
    return kind


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
