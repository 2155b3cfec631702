"""The command line of `twistedmedia`: its subcommands, options and help.

Pure, except that argparse ends the program after wrong usage.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence

from twistedmedia import __version__
from twistedmedia.client.client_limits import MAX_ENTRIES
from twistedmedia.client.locations import service
from twistedmedia.client.retries import TIMES
from twistedmedia.limits import parse_size

DEFAULT_URL = "http://127.0.0.1:8000"
URL_VARIABLE = "TWISTEDMEDIA_URL"
STREAM = "-"  # standard input as a FILE, standard output as a TARGET
MAX_JOBS = 32  # half of the uploads that a service takes at once by default

_DEFAULTS = {"jobs": 4, "retries": TIMES, "json": False, "quiet": False, "cacert": None}

_EPILOG = """\
exit codes: 0 success, also when there was nothing to do; 1 something failed; 2 wrong usage;
3 the service could not be reached; 130 interrupted. To continue, run the same command again.

limits, in case the server is broken or malicious: a file must fit on the disk, and must not be
larger than 2 GiB if the server does not say its size (get --max-size); a directory may have
10,000,000 entries, in it and below it (--max-entries); a response may have 64 KiB of headers;
an attempt ends when content arrives at less than 64 bytes a second; below the folder that get
writes to, no link is followed. docs/client.md has all limits.
"""


def parse(arguments: Sequence[str], environment: Mapping[str, str]) -> argparse.Namespace:
    """Parse the command line. `environment` may have the default URL.

    :raises SystemExit: with status 2 after printing an error, or with 0 after `--help`.
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
        parser.error("put: - (standard input) cannot be combined with other files")
    if options.command == "get" and options.output == STREAM and len(options.names) > 1:
        parser.error("get: only one file can be written to standard output")
    return options


def _parser() -> argparse.ArgumentParser:
    common = _common()
    parser = argparse.ArgumentParser(
        prog="twistedmedia",
        description="Move files to and from a media service.",
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

    put = add(
        "put", "store files, and folders with their trees; skip files that are stored already"
    )
    put.add_argument(
        "files", nargs="+", metavar="FILE", help="a file or a folder; - is standard input"
    )
    put.add_argument(
        "directory",
        metavar="DIRECTORY",
        help="the directory at the service; for standard input DIRECTORY/FILE",
    )
    replacing = put.add_mutually_exclusive_group()
    replacing.add_argument(
        "--replace",
        action="store_true",
        help="replace stored files that have the same name and other content",
    )
    replacing.add_argument(
        "--if-match",
        dest="etag",
        type=_etag,
        metavar="ETAG",
        help="replace one file if it still has this entity tag (see ls --json)",
    )
    put.add_argument(
        "--strict",
        action="store_true",
        help="fail, instead of leaving files of folders out, if the service does not take their"
        " format",
    )
    _add_exclude(put)
    get = add("get", "download files, and directories with their trees")
    get.add_argument(
        "names",
        nargs="+",
        metavar="NAME",
        help="DIRECTORY/FILE or DIRECTORY; DIRECTORY/. is its content, / is everything",
    )
    get.add_argument(
        "-o",
        "--output",
        metavar="TARGET",
        help="a path, or a folder (default: the current one); - is standard output, for one file",
    )
    get.add_argument(
        "--max-size",
        type=_size,
        metavar="SIZE",
        help="fail for a file larger than this, such as 500MB (default: what fits on the disk; 2GiB"
        " if the service does not say the size)",
    )
    _add_exclude(get)
    _add_max_entries(get)
    ls = add("ls", "list a directory or a file")
    ls.add_argument("directory", nargs="?", default="", metavar="NAME")
    ls.add_argument("-l", "--long", action="store_true", help="show sizes and times")
    ls.add_argument(
        "-r", "--recursive", action="store_true", help="list all files, also those below"
    )
    _add_max_entries(ls)
    rm = add("rm", "delete files, and directories with everything in them")
    rm.add_argument("names", nargs="+", metavar="NAME", help="DIRECTORY/FILE, or DIRECTORY with -r")
    rm.add_argument("-r", "--recursive", action="store_true", help="delete directories as well")
    _add_max_entries(rm)
    import_ = add("import", "have the service store the content of a URL")
    import_.add_argument("source", metavar="URL")
    import_.add_argument(
        "name", metavar="DIRECTORY/FILE", help="or DIRECTORY/ to take the name from the URL"
    )
    fetch = add("fetch", "have the service fetch a URL, and show how long that takes")
    fetch.add_argument("source", metavar="URL")
    add("health", "show the state of the service")
    return parser


def _add_exclude(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="GLOB",
        help="skip matching entries of folders; can be given several times",
    )


def _add_max_entries(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-entries",
        type=_number(1, 999_999_999),
        default=MAX_ENTRIES,
        metavar="N",
        help="fail for a directory with more entries than this, in it and below it"
        f" (default: {MAX_ENTRIES})",
    )


def _common() -> argparse.ArgumentParser:
    # These options may stand before or after the subcommand. A default of the second parser would
    # overwrite the value from the first.
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
        "--jobs",
        type=_number(1, MAX_JOBS),
        metavar="N",
        help="files in progress at once (default: 4)",
    )
    common.add_argument(
        "--retries",
        type=_number(0, 1000),
        metavar="N",
        help=f"retries after a failure without progress (default: {TIMES})",
    )
    common.add_argument(
        "--json", action="store_true", help="print one JSON object per line for each file"
    )
    common.add_argument("-q", "--quiet", action="store_true", help="show only failures")
    return common


def _etag(text: str) -> str:
    # Shells remove the double quotes that are a part of the tag.
    return text if text == "*" or '"' in text else f'"{text}"'


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _number(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least} to {most}")
        return number

    return parse
