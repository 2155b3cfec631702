"""
The scenarios of operating: what a request costs before anything is done, and what it costs to
refuse the malformed and to log.
"""

from __future__ import annotations

import sys
from concurrent.futures import Executor
from pathlib import Path

import bare
import servers
from downloads import FILE, SMALL_GET_BYTES, prepare_file
from scenario import (
    SMALL_CLIENTS,
    Entry,
    Figures,
    Prepare,
    Scenario,
    Sizes,
    generator,
    small_get_figures,
)
from servers import Launch, Server, missing_module

_COLUMNS = ("GETs/s", "p50 ms", "p99 ms", "max ms", "server CPU ms/GET", "client CPU s")
_HELLO = bare.PATH.rpartition("/")[2]
_LOG = "access.log"


def _bare(framework: str, *options: str) -> Server:
    def command(launch: Launch) -> list[str]:
        given = [option.replace("WORK", str(launch.work)) for option in options]
        return [
            sys.executable,
            str(Path(bare.__file__)),
            framework,
            f"--port={launch.port}",
            *given,
        ]

    name = " ".join([framework, *options]).replace("WORK/", "")
    module = "twistedmedia" if framework == "media" else framework
    return Server(name, command, lambda: missing_module(module), has_probe=False)


_OURS, _KLEIN, _TORNADO, _AIOHTTP = map(_bare, ("media", "klein", "tornado", "aiohttp"))
_LOGGED = _bare("media", f"--access-log=WORK/{_LOG}")
_LENIENT = _bare("media", "--heads=twisted")


def operating_scenarios(sizes: Sizes, wrk: str | None) -> list[Scenario]:
    """
    The scenarios, in the order in which they are run.

    :param wrk: the path of the program wrk, None when there is none.
    """
    return [_bare_route(sizes, wrk), _costs(sizes, wrk), _logging(sizes, wrk)]


def _bare_route(sizes: Sizes, wrk: str | None) -> Scenario:
    return _scenario(
        "bare",
        "A route that says hello",
        (
            Entry(_OURS, _HELLO, 0, (_KLEIN.name, _TORNADO.name, _AIOHTTP.name)),
            Entry(_KLEIN, _HELLO, 0),
            Entry(_TORNADO, _HELLO, 0),
            Entry(_AIOHTTP, _HELLO, 0),
        ),
        sizes,
        wrk,
    )


def _costs(sizes: Sizes, wrk: str | None) -> Scenario:
    return _scenario(
        "costs",
        "What strict heads and the access log cost a route that says hello",
        (
            Entry(_OURS, _HELLO, 0, (_LENIENT.name,)),
            Entry(_LOGGED, _HELLO, 0, (_OURS.name, _LENIENT.name)),
            Entry(_LENIENT, _HELLO, 0),
        ),
        sizes,
        wrk,
    )


def _logging(sizes: Sizes, wrk: str | None) -> Scenario:
    without = servers.twistedmedia()
    logged = servers.twistedmedia(f"--access-log={_LOG}")  # relative to the server's own folder
    return _scenario(
        "log",
        "What the access log costs a GET of 40 kB",
        (
            Entry(logged, FILE, SMALL_GET_BYTES, (without.name,)),
            Entry(without, FILE, SMALL_GET_BYTES),
        ),
        sizes,
        wrk,
        prepare_file,
    )


def _scenario(
    name: str,
    title: str,
    entries: tuple[Entry, ...],
    sizes: Sizes,
    wrk: str | None,
    prepare: Prepare | None = None,
) -> Scenario:
    def measure(server: servers.Running, entry: Entry, load: Executor) -> Figures:
        return small_get_figures(server, entry.kind, sizes.small_s, wrk, load)

    return Scenario(
        name=name,
        title=title,
        remarks=(
            f"{SMALL_CLIENTS} keep-alive clients for {sizes.small_s} s; the load is made by "
            f"{generator(wrk)}.",
        ),
        entries=entries,
        measure=measure,
        columns=_COLUMNS,
        ratios_of=("GETs/s", "server CPU ms/GET"),
        prepare=prepare,
        lateness=False,
        stores=prepare is not None,
    )
