"""The options of `twistd media`: what they are called, where they come from, what they mean."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from twisted.internet.endpoints import serverFromString
from twisted.python import usage

from twistedmedia.arrival import Checking
from twistedmedia.fetching.addresses import Opening, parse_opening
from twistedmedia.fetching.fetcher import Upstream
from twistedmedia.fetching.urls import parse_url, without_credentials
from twistedmedia.formats import parse_formats
from twistedmedia.limits import parse_duration, parse_size
from twistedmedia.web.origins import parse_origins
from twistedmedia.wire.access_log import STDOUT
from twistedmedia.wire.proxies import parse_proxies

_ENVIRONMENT = "TWISTEDMEDIA_"


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


def _checking(text: str) -> Checking:
    try:
        return Checking(text)
    except ValueError:
        raise ValueError(f"{text!r} is none of {', '.join(c.value for c in Checking)}") from None


def _interface(text: str) -> str:
    try:
        return str(ipaddress.ip_address("127.0.0.1" if text == "localhost" else text))
    except ValueError:
        raise ValueError(f"{text!r} is not an IP address") from None


def _folder(text: str) -> str:
    if not text:
        raise ValueError("the name of the folder is empty")
    return os.path.abspath(text)  # now: a daemon changes its directory


def _time(for_what: str, text: str) -> int:
    seconds = parse_duration(text)
    if seconds == 0:
        raise ValueError(f"in no time nothing can {for_what}")
    return seconds


_duration = partial(_time, "be fetched")
_patience = partial(_time, "come")
_expiry = partial(_time, "be resumed")


def _rate(text: str) -> int:
    rate = parse_size(text.removesuffix("/s"))
    if rate == 0:
        raise ValueError("content that may come at no rate at all never ends")
    return rate


def _log_file(text: str) -> str | None:
    if not text:
        return None
    return text if text == STDOUT else os.path.abspath(text)  # now: a daemon changes its directory


def _listens(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(_listen(text.strip()) for text in texts if text.strip())


def _listen(text: str) -> str:
    """`text`, when it describes an endpoint."""
    nowhere: Any = None  # it is only described; nothing listens yet
    try:
        serverFromString(nowhere, text)
    except (IndexError, KeyError) as error:
        raise ValueError(f"{text!r} is no endpoint, or no such socket was handed over") from error
    except Exception as error:  # of each kind of endpoint its own
        raise ValueError(f"{text!r} is no endpoint: {error}") from error
    return text


def _upstream(text: str) -> Upstream | None:
    if not text:
        return None
    try:
        credentials, url = without_credentials(text)
        return Upstream(parse_url(url), credentials)
    except ValueError as error:
        raise ValueError(f"it cannot be fetched: {error}") from error


def _openings(texts: Iterable[str]) -> tuple[Opening, ...]:
    return tuple(_opening(text.strip()) for text in texts if text.strip())


def _opening(text: str) -> Opening:
    try:
        return parse_opening(text)
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from error


def _flag(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError(f"{text!r} is neither 1 nor 0")
    return text == "1"


class Options(usage.Options):
    """The options of `twistd media`. Each can come from the environment as TWISTEDMEDIA_<NAME>; the
    command line wins.
    """

    synopsis = "[options]"
    longdesc = (
        "Store and serve audio over HTTP: uploads are streamed and durable, files seekable. "
        "Every option can be given in the environment as well: --max-upload as "
        "TWISTEDMEDIA_MAX_UPLOAD, flags as 1 or 0."
    )
    optParameters = [  # noqa: RUF012  # Twisted's way
        ["port", "p", "8000", "TCP port to listen on."],
        ["interface", "i", "127.0.0.1", "Address to listen on; beyond loopback it needs --open."],
        ["root", "r", "./media", "The folder that holds the media; made if it is missing."],
        ["formats", None, "mp3,wav", "Extensions that may be stored, separated by commas."],
        ["max-upload", None, "2GiB", "The largest single file."],
        ["max-form", None, "8GiB", "The largest form in all."],
        ["max-uploads", None, "64", "Uploads in progress at once; one more is told to come back."],
        ["check", None, "flag", "Bytes that are not the audio they are named: off, flag, reject."],
        ["disk-threads", None, "5", "Threads that write; as many more read."],
        ["upstream", "u", "", "The URL that GET / fetches, and GET /fetch when it is given none."],
        [
            "fetch-timeout",
            None,
            "30s",
            "The longest fetch; of an import, to its headers.",
        ],
        ["fetch-max", None, "64MiB", "The most that GET /fetch reads; imports have --max-upload."],
        ["fetch-connections", None, "2000", "Fetches at once; one more is told to come back."],
        ["grace", None, "30s", "How long requests in progress are waited for at the end."],
        ["access-log", None, "", "A file for a line a request, reopened on SIGHUP; - is stdout."],
        ["header-timeout", None, "15s", "The longest that the head of a request may take."],
        ["stall", None, "300s", "How long a reader may take nothing."],
        ["min-rate", None, "64", "Bytes a second in which content has to come."],
        ["max-connections", None, "10000", "Connections at once; one more is told to come back."],
        ["max-per-address", None, "2000", "Connections at once from one address."],
        ["upload-expiry", None, "24h", "How long a resumable upload is kept that nobody adds to."],
        [
            "max-unfinished",
            None,
            "1000",
            "Resumable uploads that one address may leave unfinished.",
        ],
    ]
    optFlags = [  # noqa: RUF012
        ["open", None, "Let anybody who can connect read, write and delete."],
        ["durable", None, "A success waits until file and folder are synced (the default)."],
        ["no-durable", None, "A success does not wait for that."],
        ["no-fetch", None, "Fetch and import nothing."],
    ]
    _coercions: dict[str, Callable[[str], Any]] = {  # noqa: RUF012
        "port": _port,
        "interface": _interface,
        "root": _folder,
        "formats": parse_formats,
        "max-upload": _size,
        "max-form": _size,
        "max-uploads": _count,
        "check": _checking,
        "disk-threads": _count,
        "upstream": _upstream,
        "fetch-timeout": _duration,
        "fetch-max": _size,
        "fetch-connections": _count,
        "grace": parse_duration,  # 0 is not to wait at all
        "access-log": _log_file,
        "header-timeout": _patience,
        "stall": _patience,
        "min-rate": _rate,
        "max-connections": _connections,
        "max-per-address": _connections,
        "upload-expiry": _expiry,
        "max-unfinished": _connections,
    }

    _repeatables: dict[str, Callable[[Iterable[str]], Any]] = {  # noqa: RUF012
        "fetch-allow": _openings,
        "listen": _listens,
        "trusted-proxy": parse_proxies,
        "cors-origin": parse_origins,
    }

    def __init__(self) -> None:
        super().__init__()
        for option in self._coercions:
            self[option] = os.environ.get(_variable(option), self[option])
        for option in self._repeatables:
            self[option] = []

    def opt_fetch_allow(self, place: str) -> None:
        """A network, address or host (*. before it for all below it) that may be fetched from as
        well, with :PORT for that port only. Can be given more than once.
        """
        self["fetch-allow"].append(place)

    def opt_listen(self, endpoint: str) -> None:
        """A Twisted endpoint to listen on (tcp:8000, unix:/run/media.sock, systemd:..., ssl:...)
        in place of port and interface. Can be given more than once.
        """
        self["listen"].append(endpoint)

    opt_l = opt_listen

    def opt_trusted_proxy(self, place: str) -> None:
        """A network or address of proxies that are believed in what they say of their clients
        (X-Forwarded-For), or unix for those on UNIX sockets. Can be given more than once.
        """
        self["trusted-proxy"].append(place)

    def opt_cors_origin(self, origin: str) -> None:
        """An origin (https://app.example) whose pages may do what our own may: upload, read, delete
        and fetch. Can be given more than once.
        """
        self["cors-origin"].append(origin)

    def opt_durable(self) -> None:
        """A success waits until file and folder are synced (the default)."""
        self["durable"], self["no-durable"] = 1, 0

    def opt_no_durable(self) -> None:
        """A success does not wait until file and folder are synced."""
        self["durable"], self["no-durable"] = 0, 1

    def postOptions(self) -> None:
        """Turn texts into values.

        :raises usage.UsageError: naming the option whose value makes no sense.
        """
        for option, coerce in self._coercions.items():
            self[option] = self._coerced(option, coerce, self[option])
        for flag in ("open", "durable"):
            text = os.environ.get(_variable(flag))
            chosen = self[flag] or self[f"no-{flag}"] if flag == "durable" else self[flag]
            if text is not None and not chosen:
                self[flag] = self._coerced(flag, _flag, text)
            elif flag == "durable":
                self[flag] = not self["no-durable"]
        for option, coerce in self._repeatables.items():
            texts = self[option] or os.environ.get(_variable(option), "").split(",")
            self[option] = self._coerced(option, coerce, texts)
        self["no-fetch"] = bool(self["no-fetch"]) or self._coerced(
            "no-fetch", _flag, os.environ.get(_variable("no-fetch"), "0")
        )
        if self["no-fetch"] and self["upstream"] is not None:
            raise usage.UsageError("--no-fetch: then the --upstream cannot be fetched either")
        if os.path.lexists(self["root"]) and not os.path.isdir(self["root"]):
            raise usage.UsageError(f"--root: {self['root']} is not a folder")
        if self["listen"]:
            return  # where that is, is known when they do
        if not ipaddress.ip_address(self["interface"]).is_loopback and not self["open"]:
            raise usage.UsageError(
                f"--interface: {self['interface']} can be reached from elsewhere, and there is no "
                "authentication; say --open to let everybody in"
            )

    def _coerced(self, option: str, coerce: Callable[[Any], Any], text: Any) -> Any:
        try:
            return coerce(text)
        except ValueError as error:
            raise usage.UsageError(f"--{option}: {error}") from error


def _variable(option: str) -> str:
    return _ENVIRONMENT + option.upper().replace("-", "_")
