"""Parses the values of options. Each parser takes the text of an option and returns its value.

All of them raise ValueError, whose text says what is wrong with the value, without the option's
name.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable
from functools import partial
from typing import Any

from twisted.internet.endpoints import serverFromString

from twistedmedia.fetch.fetcher import Upstream
from twistedmedia.fetch.policy import AllowRule, parse_allow_rule
from twistedmedia.fetch.urls import parse_url, split_credentials
from twistedmedia.library.upload_limits import AudioCheckMode
from twistedmedia.limits import parse_duration, parse_size
from twistedmedia.logs.access_log import STDOUT

_TCP_PORT = re.compile(r"(?:tcp6?|ssl):(?:port=)?([0-9]+)(?![^:])")
_ENDPOINTS = (
    "endpoints are written like tcp:8000, unix:/run/media.sock, ssl:8443:privateKey=key.pem"
)


def parse_port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise ValueError(f"{text!r} is not a port; it is a number from 0 to 65535")
    return int(text)


def parse_size_limit(text: str) -> int:
    """Bytes, at least 1."""
    size_bytes = parse_size(text)
    if size_bytes == 0:
        raise ValueError("a limit of 0 bytes would refuse everything")
    return size_bytes


def parse_count(text: str, most: int = 10_000) -> int:
    """A number from 1 to `most`."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= most:
        raise ValueError(f"{text!r} is not a number from 1 to {most}")
    return int(text)


parse_large_count = partial(parse_count, most=1_000_000)


def parse_check_mode(text: str) -> AudioCheckMode:
    try:
        return AudioCheckMode(text)
    except ValueError:
        modes = ", ".join(mode.value for mode in AudioCheckMode)
        raise ValueError(f"{text!r} is not one of {modes}") from None


def parse_interface(text: str) -> str:
    """An IP address in its usual form. `localhost` is 127.0.0.1."""
    try:
        return str(ipaddress.ip_address("127.0.0.1" if text == "localhost" else text))
    except ValueError:
        raise ValueError(f"{text!r} is not an IP address") from None


def parse_folder(text: str) -> str:
    """An absolute path. It is resolved now, because a daemon changes its working directory."""
    if not text:
        raise ValueError("the name of the folder is empty")
    return os.path.abspath(text)


def parse_timeout(text: str) -> int:
    """Seconds, at least 1."""
    seconds = parse_duration(text)
    if seconds == 0:
        raise ValueError("the time must be longer than 0 s")
    return seconds


def parse_rate(text: str) -> int:
    """Bytes per second, at least 1. `/s` at the end may be left out."""
    bytes_per_s = parse_size(text.removesuffix("/s"))
    if bytes_per_s == 0:
        raise ValueError("the rate must be at least 1 byte/s")
    return bytes_per_s


def parse_log_path(text: str) -> str | None:
    """An absolute path, as of `parse_folder`; `-` as it is; None for an empty text."""
    if not text:
        return None
    return text if text == STDOUT else os.path.abspath(text)


def parse_endpoints(texts: Iterable[str]) -> tuple[str, ...]:
    """Descriptions of Twisted's server endpoints. Empty texts are left out."""
    return tuple(_checked_endpoint(text.strip()) for text in texts if text.strip())


def _checked_endpoint(text: str) -> str:
    port = _TCP_PORT.match(text)
    if port is not None:
        parse_port(port[1])
    no_reactor: Any = None  # the description is only checked; nothing listens yet
    try:
        serverFromString(no_reactor, text)
    except (IndexError, KeyError) as error:
        reason = f"{text!r} is not an endpoint, or this process did not inherit such a socket"
        raise ValueError(reason) from error
    except (TypeError, ValueError) as error:  # their texts are about Python calls
        raise ValueError(f"{text!r} is not an endpoint; {_ENDPOINTS}") from error
    except OSError as error:
        raise ValueError(f"{text!r}: {error.filename}: {error.strerror}") from error
    except Exception as error:  # each kind of endpoint has its own, such as those of OpenSSL
        reason = f"{text!r}: its key, certificate or another value cannot be used"
        raise ValueError(reason) from error
    return text


def parse_upstream(text: str) -> Upstream | None:
    """The upstream, or None for an empty text."""
    if not text:
        return None
    try:
        credentials, url = split_credentials(text)
        return Upstream(parse_url(url), credentials)
    except ValueError as error:
        raise ValueError(f"the URL cannot be fetched: {error}") from error


def parse_allow_rules(texts: Iterable[str]) -> tuple[AllowRule, ...]:
    """Rules of `--fetch-allow`. Empty texts are left out."""
    return tuple(_parse_allow_rule(text.strip()) for text in texts if text.strip())


def _parse_allow_rule(text: str) -> AllowRule:
    try:
        return parse_allow_rule(text)
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from error


def parse_flag(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError(f"{text!r} is not 1 or 0")
    return text == "1"
