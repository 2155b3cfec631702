"""The options of `twistd media`: their names, defaults, help, and where their values come from."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from typing import Any

from twisted.python import usage

from twistedmedia import __version__
from twistedmedia.formats import parse_formats
from twistedmedia.http.addresses import parse_proxies
from twistedmedia.limits import parse_duration
from twistedmedia.logs.access_log import STDOUT
from twistedmedia.service import option_values
from twistedmedia.service.endpoints import exposure_error
from twistedmedia.web.cross_site import parse_origins

_ENVIRONMENT = "TWISTEDMEDIA_"
_CLIENT_VARIABLES = ("TWISTEDMEDIA_URL",)  # the command `twistedmedia` reads these


class _InvalidOption(usage.UsageError):
    """The value of an option, or the name of a variable, is invalid. The text says which."""


class Options(usage.Options):
    """The options of `twistd media`. Each can be set in the environment as TWISTEDMEDIA_<NAME>; the
    command line wins.

    `variables` maps each option whose value comes from the environment to the variable's name.
    """

    synopsis = "[options]"
    longdesc = (
        "Stores and serves audio over HTTP. The first line that the service itself logs is the URL "
        "to open. Each option can be set in the environment: --max-upload as "
        "TWISTEDMEDIA_MAX_UPLOAD, flags as 1 or 0, several values with commas. The command line "
        "wins. Sizes are written 2GiB, 500MB or 64k, times 30s, 5m or 1h."
    )
    optParameters = [  # noqa: RUF012  # Twisted's convention
        ["port", "p", "8000", "TCP port to listen on; 0 takes a free one."],
        ["interface", "i", "127.0.0.1", "Address to listen on; needs --open if not loopback."],
        ["root", "r", "./media", "Folder that holds the media; created if it is missing."],
        ["formats", None, "mp3,wav", "Extensions that may be stored; clip=audio/x-clip adds one."],
        ["max-upload", None, "2GiB", "Largest size of one file."],
        ["max-form", None, "8GiB", "Largest size of a form with all its files."],
        ["max-uploads", None, "64", "Uploads at once; one more waits up to 2 s, or gets 503."],
        ["max-imports", None, None, "How many of the uploads may be imports; by default half."],
        [
            "check",
            None,
            "flag",
            "What to do with a file that is not the audio that its name says: off stores it, flag "
            "stores it and says so in the response, reject refuses it.",
        ],
        ["disk-threads", None, "5", "Threads that write, and as many more that read."],
        ["upstream", "u", None, "URL that GET / fetches, and GET /fetch if it gets no URL."],
        ["fetch-timeout", None, "30s", "Longest time for a fetch; for an import, to its headers."],
        ["fetch-max", None, "64MiB", "Most bytes that GET /fetch reads; not for imports."],
        [
            "fetch-connections",
            None,
            "2000",
            "Fetches at once; one more waits up to 2 s, or gets 503.",
        ],
        ["grace", None, "30s", "How long a stopping service waits for requests in progress."],
        ["access-log", None, None, "File with a line per request; SIGHUP reopens it; - is stdout."],
        ["header-timeout", None, "15s", "Longest time for the head of a request to arrive."],
        [
            "keep-alive",
            None,
            "75s",
            "How long a connection without a request is kept open. Must be longer than a proxy or "
            "load balancer in front keeps it, usually 60 s.",
        ],
        [
            "response-memory",
            None,
            "64MiB",
            "Memory for large responses: listings that are being made, and listings and responses "
            "to forms that are being sent.",
        ],
        ["stall", None, "300s", "Disconnect a client that reads nothing for this long."],
        ["min-rate", None, "64", "Slowest allowed rate of content from a client, in bytes/s."],
        [
            "busy-rate",
            None,
            "16KiB",
            "When uploads, imports, fetches, forms or memory for large responses run out, the "
            "client that uses most loses one that is slower than this many bytes/s.",
        ],
        ["max-connections", None, "10000", "Connections at once; one more is refused (503)."],
        ["max-per-address", None, "2000", "Connections of one address; one more is refused (429)."],
        ["upload-expiry", None, "24h", "How long a resumable upload is kept after its last byte."],
        ["max-unfinished", None, "1000", "Unfinished resumable uploads of one address."],
    ]
    optFlags = [  # noqa: RUF012
        ["open", None, "Let everyone who can connect read, write, delete and fetch."],
        ["durable", None, "Confirm an upload when it is on stable storage (the default)."],
        ["no-durable", None, "Confirm an upload earlier; a power failure may lose it."],
        ["no-fetch", None, "Refuse GET /fetch and imports."],
    ]
    _parsers: dict[str, Callable[[str], Any]] = {  # noqa: RUF012
        "port": option_values.parse_port,
        "interface": option_values.parse_interface,
        "root": option_values.parse_folder,
        "formats": parse_formats,
        "max-upload": option_values.parse_size_limit,
        "max-form": option_values.parse_size_limit,
        "max-uploads": option_values.parse_count,
        "max-imports": option_values.parse_count,
        "check": option_values.parse_check_mode,
        "disk-threads": option_values.parse_count,
        "upstream": option_values.parse_upstream,
        "fetch-timeout": option_values.parse_timeout,
        "fetch-max": option_values.parse_size_limit,
        "fetch-connections": option_values.parse_count,
        "grace": parse_duration,  # 0 s: do not wait
        "access-log": option_values.parse_log_path,
        "header-timeout": option_values.parse_timeout,
        "keep-alive": option_values.parse_timeout,
        "response-memory": option_values.parse_size_limit,
        "stall": option_values.parse_timeout,
        "min-rate": option_values.parse_rate,
        "busy-rate": option_values.parse_rate,
        "max-connections": option_values.parse_large_count,
        "max-per-address": option_values.parse_large_count,
        "upload-expiry": option_values.parse_timeout,
        "max-unfinished": option_values.parse_large_count,
    }

    _repeatable: dict[str, Callable[[Iterable[str]], Any]] = {  # noqa: RUF012
        "fetch-allow": option_values.parse_allow_rules,
        "listen": option_values.parse_endpoints,
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
        for option in [*self._parsers, *self._flags]:
            self[option] = None  # not given on the command line
        for option in self._repeatable:
            self[option] = []

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Read the command line and the environment.

        :raises SystemExit: when an option or a variable is invalid. Its text is one line that says
            which. It is not a UsageError, for which twistd and twist print the help text.
        """
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            reason = " ".join(str(error).splitlines())
            if not isinstance(error, _InvalidOption):
                reason += "; twistd media --help lists the options, those of twistd go before media"
            raise SystemExit(f"twistedmedia cannot start: {reason}") from None

    def parseArgs(self, *arguments: str) -> None:
        """Refuse positional arguments."""
        if arguments:
            raise usage.UsageError(f"{arguments[0]!r} is not an option")

    def opt_version(self) -> None:
        """Display the version and exit."""
        print(f"twistedmedia {__version__}")
        raise SystemExit

    def opt_fetch_allow(self, rule: str) -> None:
        """A network, address or host name that may be fetched from, besides public addresses.
        *.NAME means every host below NAME; :PORT limits the rule to that port. Can be repeated.
        """
        self["fetch-allow"].append(rule)

    def opt_listen(self, endpoint: str) -> None:
        """A Twisted endpoint to listen on, in place of port and interface: tcp:8000,
        unix:/run/media.sock, ssl:..., systemd:.... Can be repeated.
        """
        self["listen"].append(endpoint)

    opt_l = opt_listen

    def opt_trusted_proxy(self, network: str) -> None:
        """A network or address of proxies whose X-Forwarded-For is believed, or unix for proxies
        that connect to a UNIX socket. Can be repeated.
        """
        self["trusted-proxy"].append(network)

    def opt_cors_origin(self, origin: str) -> None:
        """An origin (https://app.example, capacitor://localhost) whose pages may do what pages of
        this service may: upload, read, delete and fetch. Can be repeated.
        """
        self["cors-origin"].append(origin)

    def opt_durable(self) -> None:
        """Confirm an upload when it is on stable storage (the default)."""
        self["durable"], self["no-durable"] = 1, 0

    def opt_no_durable(self) -> None:
        """Confirm an upload earlier; a power failure may lose it."""
        self["durable"], self["no-durable"] = 0, 1

    def postOptions(self) -> None:
        """Parse all values, and refuse those that contradict each other.

        :raises usage.UsageError: naming the invalid option or variable.
        """
        self._check_variables()
        for option, parse in self._parsers.items():
            text = self._text(option, self[option], self.defaults[option])
            self[option] = None if text is None else self._parsed(option, parse, text)
        for flag, default in self._flags.items():
            self[flag] = self._parsed(
                flag, option_values.parse_flag, str(self._text(flag, self[flag], default))
            )
        if self["no-durable"]:
            self["durable"] = False
        for option, parse_all in self._repeatable.items():
            texts = self[option] or str(self._text(option, None, "")).split(",")
            self[option] = self._parsed(option, parse_all, texts)
        self._check_values()

    def _check_values(self) -> None:
        if self["access-log"] == STDOUT and self._is_daemon():
            raise self._invalid(
                "access-log",
                "- is the standard output, which a daemon does not have; name a file, or use "
                "twistd -n",
            )
        if self["no-fetch"] and self["upstream"] is not None:
            raise self._invalid("no-fetch", "it contradicts --upstream, which is a URL to fetch")
        if os.path.lexists(self["root"]) and not os.path.isdir(self["root"]):
            raise self._invalid("root", f"{self['root']} is not a folder")
        if self["listen"]:
            return  # the service checks the addresses when it listens
        exposure = exposure_error(self["interface"], is_open=self["open"])
        if exposure:
            raise self._invalid("interface", exposure)

    def _is_daemon(self) -> bool:
        """Whether `twistd` is going to detach the process. `twist` never does."""
        parent: Any = self.parent
        if parent is None or "nodaemon" not in parent:
            return False
        return not (parent["nodaemon"] or parent["debug"])

    def _check_variables(self) -> None:
        """Refuse variables with our prefix that do not name an option: they are misspelt."""
        options = [*self._parsers, *self._flags, *self._repeatable]
        known = {_variable(option) for option in options}
        for name, value in sorted(os.environ.items()):
            if not name.startswith(_ENVIRONMENT) or not value:
                continue
            if name in known or name in _CLIENT_VARIABLES:
                continue
            stems = [each.removeprefix(_ENVIRONMENT) for each in known]
            similar = get_close_matches(name.removeprefix(_ENVIRONMENT), stems, n=2)
            names = " or ".join(_ENVIRONMENT + stem for stem in similar)
            hint = f"; did you mean {names}?" if names else ""
            raise _InvalidOption(f"{name} in the environment does not name an option{hint}")

    def _text(self, option: str, given: Any, default: str | None) -> Any:
        """The text that is `given` on the command line, else in the environment, else the
        `default`. An empty variable counts as not given.
        """
        if given is not None:
            return given
        text = os.environ.get(_variable(option))
        if not text:
            return default
        self.variables[option] = _variable(option)
        return text

    def _parsed(self, option: str, parse: Callable[[Any], Any], text: Any) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise self._invalid(option, str(error)) from error

    def _invalid(self, option: str, reason: str) -> _InvalidOption:
        variable = self.variables.get(option)
        return _InvalidOption(
            f"--{option}: {reason}" + (f" (set by {variable})" if variable else "")
        )


def _variable(option: str) -> str:
    return _ENVIRONMENT + option.upper().replace("-", "_")
