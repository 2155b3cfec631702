"""The arguments of an import, from any kind of request."""

from __future__ import annotations

import json
from typing import Any

from twisted.web.server import Request

from twistedmedia.errors import Malformed, MediaError, MissingArgument
from twistedmedia.fetch.timings import Timings
from twistedmedia.fetch.urls import Url
from twistedmedia.http.body import Body
from twistedmedia.http.header_fields import sha256_from_hex
from twistedmedia.library.library import Library
from twistedmedia.library.upload import Upload
from twistedmedia.library.upload_slots import UploadSlot
from twistedmedia.limits import ByteBudget
from twistedmedia.names import media_name
from twistedmedia.web.arguments import Arguments, caller_of
from twistedmedia.web.fetches import url_to_fetch

ARGUMENTS = ("url", "directory", "filename", "sha256")
MAX_JSON_BYTES = 32 << 10


async def import_url(
    library: Library, request: Request, arguments: Arguments, slot: UploadSlot
) -> tuple[Upload, Timings | None]:
    """Store the content of the URL that `arguments` give; see `Library.import_url`.

    :raises MediaError: why it is not stored.
    """
    url = url_to_fetch(arguments.require_bytes("url"))
    return await library.import_url(
        caller_of(request),
        url,
        slot,
        directory=arguments.require("directory"),
        filename=arguments.get("filename") or _filename(url),
        sha256=sha256_from_hex(arguments.require("sha256")) if arguments.has("sha256") else None,
    )


async def read_json(body: Body, arguments: Arguments) -> None:
    """Read the arguments of an import from a JSON object.

    :raises Malformed: when it is none, or one of them is no text, or given twice.
    """
    budget = ByteBudget(MAX_JSON_BYTES, "the JSON")
    data = bytearray()
    async for chunks in body:
        for chunk in chunks:
            budget.spend(len(chunk))
            data += chunk
    try:
        pairs = json.loads(data.decode("utf-8-sig"), object_pairs_hook=tuple)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise Malformed(f"the content is no JSON: {error.msg} ({where})") from error
    except (ValueError, RecursionError) as error:
        raise Malformed("the content is no JSON that can be read") from error
    if not isinstance(pairs, tuple):
        raise Malformed("the content is no JSON object")
    for name, value in pairs:
        if name in ARGUMENTS:
            _give(arguments, name, value)
        elif name == "body":
            arguments.begin(name)


def _give(arguments: Arguments, name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise Malformed(f"the argument '{name}' is no text")
    arguments.begin(name)
    arguments.give(name, value.encode("utf-8", "surrogatepass"))


def _filename(url: Url) -> str:
    """The last segment of the path of `url`, if it can be a filename."""
    try:
        filename = url.filename.decode("utf-8")
        media_name("any", filename)
    except (UnicodeDecodeError, MediaError):
        raise MissingArgument("filename", "the URL does not end in one") from None
    return filename
