"""The command line of `twistedmedia`, and what it means.

Pure, but for argparse, which ends a program that is called wrongly.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from twistedmedia import __version__
from twistedmedia.client.client_limits import MAX_ENTRIES
from twistedmedia.client.locations import service
from twistedmedia.client.retries import TIMES
from twistedmedia.limits import parse_size

DEFAULT_URL = "http://127.0.0.1:8000"
URL_VARIABLE = "TWISTEDMEDIA_URL"
STREAM = "-"  # standard input as a FILE, standard output as a TARGET
MOST_JOBS = 32  # a service has 64 places for uploads unless it is told otherwise

_DEFAULTS = {"jobs": 4, "retries": TIMES, "json": False, "quiet": False, "cacert": None}

_EPILOG = """\
exit codes: 0 all is well, also when there was nothing to do; 1 something failed; 2 wrong usage;
3 the service could not be reached; 130 interrupted. Running it again goes on where it ended.

bounds, in case the server is broken or means harm: a file must fit on the disk, and has at most
2 GiB if the server does not say how large it is (get --max-size); a directory has at most
10,000,000 entries with all below it (--max-entries); an answer has at most 64 KiB of headers;
content arrives at 64 bytes a second or faster, or the attempt ends; below the folder that get
writes to, no link is followed. docs/client.md has all of them.
"""


def parse(arguments: Sequence[str], environment: Mapping[str, str]) -> argparse.Namespace:
    """The options: `command`, its arguments, `url`, `cacert`, `jobs`, `retries`, `json`, `quiet`.

    :raises SystemExit: with status 2 and a line that says why, or 0 after `--help`.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if not hasattr(options, "url"):
        options.url = environment.get(URL_VARIABLE) or DEFAULT_URL
    for name, value in _DEFAULTS.items():
        if not hasattr(options, name):
            setattr(options, name, value)
    try:
        service(options.url)
    except ValueError as error:
        parser.error(str(error))
    if options.command == "put" and STREAM in options.files and len(options.files) > 1:
        parser.error("put: - is standard input; no other FILE can stand beside it")
    if options.command == "get" and options.output == STREAM and len(options.names) > 1:
        parser.error("get: one file only goes to standard output")
    return options


def _parser() -> argparse.ArgumentParser:
    common = _common()
    parser = argparse.ArgumentParser(
        prog="twistedmedia",
        description="Files to and from a media service.",
        epilog=_EPILOG,
        parents=[common],
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"twistedmedia {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, purpose: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name, help=purpose, description=purpose, parents=[common], allow_abbrev=False
        )

    put = add("put", "store files, and folders with their trees; skip what is stored already")
    put.add_argument(
        "files", nargs="+", metavar="FILE", help="a file or a folder; - is standard input"
    )
    put.add_argument(
        "directory",
        metavar="DIRECTORY",
        help="where to, at the service; for standard input DIRECTORY/FILE",
    )
    replacing = put.add_mutually_exclusive_group()
    replacing.add_argument(
        "--replace",
        action="store_true",
        help="replace files that have the name and other content",
    )
    replacing.add_argument(
        "--if-match",
        dest="etag",
        type=_etag,
        metavar="ETAG",
        help="replace the one file if it still has this entity tag (see ls --json)",
    )
    put.add_argument(
        "--strict",
        action="store_true",
        help="fail for files in folders whose format the service does not take",
    )
    _add_exclude(put)
    get = add("get", "bring files, and directories with their trees")
    get.add_argument(
        "names",
        nargs="+",
        metavar="NAME",
        help="DIRECTORY/FILE or DIRECTORY; DIRECTORY/. is what is in it, / is everything",
    )
    get.add_argument(
        "-o",
        "--output",
        metavar="TARGET",
        help="a path, or a folder (default: here); - is standard output, for one file",
    )
    get.add_argument(
        "--max-size",
        type=_size,
        metavar="SIZE",
        help="fail for a larger file, such as 500MB (default: what fits on the disk; 2GiB if the"
        " service does not say how large the file is)",
    )
    _add_exclude(get)
    _add_max_entries(get)
    ls = add("ls", "list a directory or a file")
    ls.add_argument("directory", nargs="?", default="", metavar="NAME")
    ls.add_argument("-l", "--long", action="store_true", help="with sizes and times")
    ls.add_argument("-r", "--recursive", action="store_true", help="all files in it and below")
    _add_max_entries(ls)
    rm = add("rm", "delete files, and directories with all that is in them")
    rm.add_argument("names", nargs="+", metavar="NAME", help="DIRECTORY/FILE, or DIRECTORY with -r")
    rm.add_argument("-r", "--recursive", action="store_true", help="directories as well")
    _add_max_entries(rm)
    import_ = add("import", "have the service store what is at a URL")
    import_.add_argument("source", metavar="URL")
    import_.add_argument(
        "name", metavar="DIRECTORY/FILE", help="or DIRECTORY/ to keep the URL's name"
    )
    fetch = add("fetch", "have the service fetch a URL and say what that costs")
    fetch.add_argument("source", metavar="URL")
    add("health", "say how the service is")
    return parser


def _add_exclude(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="GLOB",
        help="pass over what matches in folders; can be given again",
    )


def _add_max_entries(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-entries",
        type=_entries,
        default=MAX_ENTRIES,
        metavar="N",
        help="give up a directory that has more files and directories in it and below it"
        f" (default: {MAX_ENTRIES})",
    )


def _common() -> argparse.ArgumentParser:
    # Each may stand before the command or behind it; a default would undo the one before.
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument(
        "--url", help=f"the service (default: ${URL_VARIABLE}, or {DEFAULT_URL})", metavar="URL"
    )
    common.add_argument(
        "--cacert",
        metavar="FILE",
        help="certificates to trust, in PEM format, instead of the system's",
    )
    common.add_argument(
        "--jobs", type=_jobs, metavar="N", help="files under way at once (default: 4)"
    )
    common.add_argument(
        "--retries",
        type=_retries,
        metavar="N",
        help=f"attempts after a failure without progress (default: {TIMES})",
    )
    common.add_argument(
        "--json", action="store_true", help="a JSON object on a line for each file, on stdout"
    )
    common.add_argument("-q", "--quiet", action="store_true", help="say only what fails")
    return common


def _etag(text: str) -> str:
    # Shells take the double quotes away that belong to a tag.
    return text if text == "*" or '"' in text else f'"{text}"'


def _jobs(text: str) -> int:
    return _number(text, 1, MOST_JOBS)


def _retries(text: str) -> int:
    return _number(text, 0, 1000)


def _entries(text: str) -> int:
    return _number(text, 1, 999_999_999)


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _number(text: str, least: int, most: int) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1
    if not least <= number <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least} to {most}")
    return number
