"""The options of `twistd media`: what they are called, where they come from, what they mean."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any

from twisted.internet.endpoints import serverFromString
from twisted.python import usage

from twistedmedia import __version__
from twistedmedia.fetch.fetcher import Upstream
from twistedmedia.fetch.policy import AllowRule, parse_allow_rule
from twistedmedia.fetch.urls import parse_url, split_credentials
from twistedmedia.formats import parse_formats
from twistedmedia.http.addresses import parse_proxies
from twistedmedia.library.upload import AudioCheckMode
from twistedmedia.limits import parse_duration, parse_size
from twistedmedia.logs.access_log import STDOUT
from twistedmedia.web.cross_site import parse_origins

_ENVIRONMENT = "TWISTEDMEDIA_"
_OF_THE_CLIENT = ("TWISTEDMEDIA_URL",)  # variables that the command `twistedmedia` reads


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise ValueError(f"{text!r} is not a port; it is a number from 0 to 65535")
    return int(text)


def _size(text: str) -> int:
    size = parse_size(text)
    if size == 0:
        raise ValueError("a limit of 0 bytes would refuse everything")
    return size


def _count(text: str, most: int = 10_000) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= most:
        raise ValueError(f"{text!r} is not a number from 1 to {most}")
    return int(text)


_connections = partial(_count, most=1_000_000)


def _checking(text: str) -> AudioCheckMode:
    try:
        return AudioCheckMode(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is none of {', '.join(c.value for c in AudioCheckMode)}"
        ) from None


def _interface(text: str) -> str:
    try:
        return str(ipaddress.ip_address("127.0.0.1" if text == "localhost" else text))
    except ValueError:
        raise ValueError(f"{text!r} is not an IP address") from None


def _folder(text: str) -> str:
    if not text:
        raise ValueError("the name of the folder is empty")
    return os.path.abspath(text)  # now: a daemon changes its directory


def _time(text: str) -> int:
    seconds = parse_duration(text)
    if seconds == 0:
        raise ValueError("the time must be longer than 0 s")
    return seconds


def _rate(text: str) -> int:
    rate = parse_size(text.removesuffix("/s"))
    if rate == 0:
        raise ValueError("the rate must be at least 1 byte/s")
    return rate


def _log_file(text: str) -> str | None:
    if not text:
        return None
    return text if text == STDOUT else os.path.abspath(text)  # now: a daemon changes its directory


def _listens(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(_listen(text.strip()) for text in texts if text.strip())


def _listen(text: str) -> str:
    """`text`, if it describes an endpoint."""
    port = _TCP_PORT.match(text)
    if port is not None:
        _port(port[1])
    nowhere: Any = None  # it is only described; nothing listens yet
    try:
        serverFromString(nowhere, text)
    except (IndexError, KeyError) as error:
        why = f"{text!r} is not an endpoint, or no such socket was handed over"
        raise ValueError(why) from error
    except (TypeError, ValueError) as error:  # in the words of Twisted's parsers
        raise ValueError(f"{text!r} is not an endpoint; {_ENDPOINTS}") from error
    except OSError as error:
        raise ValueError(f"{text!r}: {error.filename}: {error.strerror}") from error
    except Exception as error:  # of each kind of endpoint its own, such as those of OpenSSL
        raise ValueError(f"{text!r}: its key, certificate or other value is unusable") from error
    return text


_TCP_PORT = re.compile(r"(?:tcp6?|ssl):(?:port=)?([0-9]+)(?![^:])")
_ENDPOINTS = (
    "endpoints are written like tcp:8000, unix:/run/media.sock, ssl:8443:privateKey=key.pem"
)


def _upstream(text: str) -> Upstream | None:
    if not text:
        return None
    try:
        credentials, url = split_credentials(text)
        return Upstream(parse_url(url), credentials)
    except ValueError as error:
        raise ValueError(f"it cannot be fetched: {error}") from error


def _openings(texts: Iterable[str]) -> tuple[AllowRule, ...]:
    return tuple(_opening(text.strip()) for text in texts if text.strip())


def _opening(text: str) -> AllowRule:
    try:
        return parse_allow_rule(text)
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from error


def _flag(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError(f"{text!r} is neither 1 nor 0")
    return text == "1"


class _Refused(usage.UsageError):
    """A value, or a variable, that makes no sense; the text says which."""


class Options(usage.Options):
    """The options of `twistd media`. Each can come from the environment as TWISTEDMEDIA_<NAME>; the
    command line wins.

    `variables` maps each option whose value comes from the environment to the variable's name.
    """

    synopsis = "[options]"
    longdesc = (
        "Stores and serves audio over HTTP. The first line that it logs itself is the URL to open. "
        "Each option can be set in the environment: --max-upload as TWISTEDMEDIA_MAX_UPLOAD, flags "
        "as 1 or 0, and several values with commas. The command line wins. Sizes are written "
        "2GiB, 500MB or 64k, times 30s, 5m or 1h."
    )
    optParameters = [  # noqa: RUF012  # Twisted's way
        ["port", "p", "8000", "TCP port to listen on; 0 takes a free one."],
        ["interface", "i", "127.0.0.1", "Address to listen on; beyond loopback it needs --open."],
        ["root", "r", "./media", "The folder that holds the media; made if it is missing."],
        [
            "formats",
            None,
            "mp3,wav",
            "Extensions that may be stored, separated by commas; clip=audio/x-clip names another.",
        ],
        ["max-upload", None, "2GiB", "The largest single file."],
        ["max-form", None, "8GiB", "The largest form, all of its files together."],
        [
            "max-uploads",
            None,
            "64",
            "Uploads at the same time; one more may wait for 2 s, then it is told to come back.",
        ],
        [
            "max-imports",
            None,
            None,
            "Uploads that may be imports at the same time; half of max-uploads unless given.",
        ],
        [
            "check",
            None,
            "flag",
            "What to do with a file that is not the audio that its name promises: off stores it, "
            "flag stores it and says so in the answer, reject refuses it.",
        ],
        ["disk-threads", None, "5", "Threads that write, and as many more that read."],
        ["upstream", "u", None, "The URL that GET / fetches, and GET /fetch without a URL."],
        ["fetch-timeout", None, "30s", "How long a fetch may take; an import, to its headers."],
        ["fetch-max", None, "64MiB", "The most that GET /fetch reads; imports have --max-upload."],
        [
            "fetch-connections",
            None,
            "2000",
            "Fetches at the same time; one more is told to come back.",
        ],
        ["grace", None, "30s", "How long a stopping service waits for requests in progress."],
        [
            "access-log",
            None,
            None,
            "A file that gets a line for each request, reopened on SIGHUP; - is stdout.",
        ],
        ["header-timeout", None, "15s", "How long the head of a request may take to arrive."],
        [
            "keep-alive",
            None,
            "75s",
            "How long a connection without a request is kept open. Longer than a proxy or load "
            "balancer in front keeps it, as a rule 60 s.",
        ],
        [
            "response-memory",
            None,
            "64MiB",
            "Memory for large responses: listings and answers to forms that are being sent, and "
            "listings that are being made.",
        ],
        ["stall", None, "300s", "How long a reader may take nothing before it is cut off."],
        ["min-rate", None, "64", "The least bytes a second at which content must arrive."],
        [
            "busy-rate",
            None,
            "16KiB",
            "Bytes a second that keep an upload, import, fetch, form or large response while there "
            "is no place for others; of the address that has most, a slower one ends.",
        ],
        [
            "max-connections",
            None,
            "10000",
            "Connections at the same time; one more is told to come back.",
        ],
        ["max-per-address", None, "2000", "Connections at the same time from one address."],
        [
            "upload-expiry",
            None,
            "24h",
            "How long an unfinished resumable upload is kept after its last byte.",
        ],
        [
            "max-unfinished",
            None,
            "1000",
            "Resumable uploads that one address may leave unfinished.",
        ],
    ]
    optFlags = [  # noqa: RUF012
        ["open", None, "Let anybody who can connect read, write, delete and fetch."],
        ["durable", None, "Answer an upload when it is on stable storage (the default)."],
        ["no-durable", None, "Answer an upload earlier: a power cut may lose it."],
        ["no-fetch", None, "Refuse GET /fetch and imports."],
    ]
    _coercions: dict[str, Callable[[str], Any]] = {  # noqa: RUF012
        "port": _port,
        "interface": _interface,
        "root": _folder,
        "formats": parse_formats,
        "max-upload": _size,
        "max-form": _size,
        "max-uploads": _count,
        "max-imports": _count,
        "check": _checking,
        "disk-threads": _count,
        "upstream": _upstream,
        "fetch-timeout": _time,
        "fetch-max": _size,
        "fetch-connections": _count,
        "grace": parse_duration,  # 0 is not to wait at all
        "access-log": _log_file,
        "header-timeout": _time,
        "keep-alive": _time,
        "response-memory": _size,
        "stall": _time,
        "min-rate": _rate,
        "busy-rate": _rate,
        "max-connections": _connections,
        "max-per-address": _connections,
        "upload-expiry": _time,
        "max-unfinished": _connections,
    }

    _repeatables: dict[str, Callable[[Iterable[str]], Any]] = {  # noqa: RUF012
        "fetch-allow": _openings,
        "listen": _listens,
        "trusted-proxy": parse_proxies,
        "cors-origin": parse_origins,
    }

    _flags: dict[str, str] = {  # noqa: RUF012
        "open": "0",
        "durable": "1",
        "no-durable": "0",
        "no-fetch": "0",
    }

    def __init__(self) -> None:
        super().__init__()
        self.variables: dict[str, str] = {}
        self.docs = {option: " ".join((text or "").split()) for option, text in self.docs.items()}
        for option in [*self._coercions, *self._flags]:
            self[option] = None  # not given on the command line
        for option in self._repeatables:
            self[option] = []

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Read the command line and the environment.

        :raises SystemExit: when something in them makes no sense. Its text is one line that says
            what. It is not a UsageError because twistd and twist print the help text with those.
        """
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            why = " ".join(str(error).splitlines())
            if not isinstance(error, _Refused):
                why += "; twistd media --help lists the options, those of twistd go before media"
            raise SystemExit(f"twistedmedia cannot start: {why}") from None

    def parseArgs(self, *arguments: str) -> None:
        """Refuse what is not an option."""
        if arguments:
            raise usage.UsageError(f"{arguments[0]!r} is not an option")

    def opt_version(self) -> None:
        """Display the version and exit."""
        print(f"twistedmedia {__version__}")
        raise SystemExit

    def opt_fetch_allow(self, place: str) -> None:
        """A network, an address or a host name that may be fetched from, besides public addresses.
        *.NAME stands for every host below NAME; :PORT limits it to that port. Can be repeated.
        """
        self["fetch-allow"].append(place)

    def opt_listen(self, endpoint: str) -> None:
        """A Twisted endpoint to listen on, in place of port and interface: tcp:8000,
        unix:/run/media.sock, ssl:..., systemd:.... Can be repeated.
        """
        self["listen"].append(endpoint)

    opt_l = opt_listen

    def opt_trusted_proxy(self, place: str) -> None:
        """A network or an address of proxies whose X-Forwarded-For is believed, or unix for proxies
        that connect to a UNIX socket. Can be repeated.
        """
        self["trusted-proxy"].append(place)

    def opt_cors_origin(self, origin: str) -> None:
        """An origin (https://app.example, capacitor://localhost) whose pages may do what our own
        may: upload, read, delete and fetch. Can be given more than once.
        """
        self["cors-origin"].append(origin)

    def opt_durable(self) -> None:
        """Answer an upload when it is on stable storage (the default)."""
        self["durable"], self["no-durable"] = 1, 0

    def opt_no_durable(self) -> None:
        """Answer an upload earlier: a power cut may lose it."""
        self["durable"], self["no-durable"] = 0, 1

    def postOptions(self) -> None:
        """Turn texts into values.

        :raises usage.UsageError: naming the option, or the variable, that makes no sense.
        """
        self._check_variables()
        for option, coerce in self._coercions.items():
            text = self._text(option, self[option], self.defaults[option])
            self[option] = None if text is None else self._coerced(option, coerce, text)
        for flag, default in self._flags.items():
            self[flag] = self._coerced(flag, _flag, str(self._text(flag, self[flag], default)))
        if self["no-durable"]:
            self["durable"] = False
        for option, coerce in self._repeatables.items():
            texts = self[option] or str(self._text(option, None, "")).split(",")
            self[option] = self._coerced(option, coerce, texts)
        if self["access-log"] == STDOUT and self._is_daemon():
            raise self._refused(
                "access-log",
                "- is the standard output, which a daemon does not have; name a file, or say "
                "twistd -n",
            )
        if self["no-fetch"] and self["upstream"] is not None:
            raise self._refused("no-fetch", "the --upstream cannot be fetched either then")
        if os.path.lexists(self["root"]) and not os.path.isdir(self["root"]):
            raise self._refused("root", f"{self['root']} is not a folder")
        if self["listen"]:
            return  # the addresses are known when it listens
        if not ipaddress.ip_address(self["interface"]).is_loopback and not self["open"]:
            raise self._refused(
                "interface",
                f"{self['interface']} can be reached from elsewhere, and there is no "
                "authentication; say --open to let everybody in",
            )

    def _is_daemon(self) -> bool:
        """Whether `twistd` is going to detach the process. `twist` never does."""
        parent: Any = self.parent
        if parent is None or "nodaemon" not in parent:
            return False
        return not (parent["nodaemon"] or parent["debug"])

    def _check_variables(self) -> None:
        """Refuse variables that are named like ours and mean nothing: they are misspelt."""
        known = [_variable(option) for option in self._options()]
        for name, value in sorted(os.environ.items()):
            if not name.startswith(_ENVIRONMENT) or not value or name in (*known, *_OF_THE_CLIENT):
                continue
            stems = {each.removeprefix(_ENVIRONMENT): each for each in known}
            near = get_close_matches(name.removeprefix(_ENVIRONMENT), stems, n=2)
            meant = f"; did you mean {' or '.join(stems[stem] for stem in near)}?" if near else ""
            raise _Refused(f"{name} in the environment does not name an option{meant}")

    def _options(self) -> list[str]:
        return [*self._coercions, *self._flags, *self._repeatables]

    def _text(self, option: str, given: Any, default: str | None) -> Any:
        """What is `given` on the command line, else in the environment, else the `default`. An
        empty variable counts as not given.
        """
        if given is not None:
            return given
        text = os.environ.get(_variable(option))
        if not text:
            return default
        self.variables[option] = _variable(option)
        return text

    def _coerced(self, option: str, coerce: Callable[[Any], Any], text: Any) -> Any:
        try:
            return coerce(text)
        except ValueError as error:
            raise self._refused(option, str(error)) from error

    def _refused(self, option: str, why: str) -> _Refused:
        variable = self.variables.get(option)
        return _Refused(f"--{option}: {why}" + (f" (set by {variable})" if variable else ""))


def _variable(option: str) -> str:
    return _ENVIRONMENT + option.upper().replace("-", "_")
