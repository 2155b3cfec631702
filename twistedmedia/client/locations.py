"""Where things are: the service's URL, and the URLs below it; media names as people write them.

Pure. A service may be mounted below a path of a larger site: `http://example.org/voice`.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, urljoin

from twistedmedia.client.exceptions import InvalidResponse, LocalFailure, NotAService
from twistedmedia.errors import MediaError, MissingArgument
from twistedmedia.fetch.urls import parse_url
from twistedmedia.names import MediaName, folders_from_path, is_upload, media_name, url_path

# What a service has at its root; the URL of one of these is not that of a service.
_PLACES = ("media", "uploads", "fetch", "health", "ready", "openapi.json")


@dataclass(frozen=True, slots=True)
class Service:
    """A service by its URL, which has no slash at its end. Only `service` makes them."""

    url: str

    def media(self, name: MediaName) -> str:
        """The URL of a file."""
        return f"{self.url}/media/{name.url_path}"

    def listing(self, folders: tuple[str, ...], after: str | None = None) -> str:
        """The URL of a directory's listing, from behind the name `after`."""
        path = "".join(f"{url_path([folder])}/" for folder in folders)
        query = "" if after is None else f"?after={quote(after, safe='')}"
        return f"{self.url}/media/{path}{query}"

    def fetch(self, url: str) -> str:
        """The URL that has `url` fetched."""
        return f"{self.url}/fetch?url={quote(url, safe='')}"

    @property
    def health(self) -> str:
        """The URL that tells how the service is."""
        return f"{self.url}/health"

    @property
    def imports(self) -> str:
        """The URL that imports are posted to."""
        return f"{self.url}/media"

    @property
    def uploads(self) -> str:
        """The URL that resumable uploads are created at."""
        return f"{self.url}/uploads/"

    def upload(self, location: str | None) -> str:
        """The URL of the upload that `location` names, relative to where it was created.

        :raises Garbled: when there is none, or it is another server's: bytes meant for this one
            go nowhere else.
        """
        try:
            url = urljoin(self.uploads, location or "")
            same = parse_url(url).origin == parse_url(self.url).origin
        except ValueError:
            url, same = "", False
        if not location or not same or not url.isascii():
            raise InvalidResponse("the service does not say where to send the upload")
        return url


def service(url: str) -> Service:
    """The service at `url`. Any host is understood that the service itself can fetch from.

    :raises NotAService: when that is not an `http` or `https` URL of a service, saying why.
    """
    if not isinstance(url, str):
        raise NotAService(f"the URL of a service is text, not {type(url).__name__}")
    try:
        at = parse_url(url)
    except ValueError as error:
        raise NotAService(
            f"this is not the URL of a service: {error}; write it like http://127.0.0.1:8000"
        ) from None
    path = at.target.partition("?")[0]
    root = _root(path)
    if root is not None:
        raise NotAService(
            f"{at.origin}{path} is a place within a service; the URL of the service itself is"
            f" {at.origin}{root}"
        )
    if "?" in url or "#" in url:
        raise NotAService("the URL of a service has no query and no fragment")
    if not url.partition("//")[2].partition("/")[2].isascii():
        raise NotAService("the path in the URL of a service has ASCII characters only")
    return Service(str(at).rstrip("/"))


def _root(path: str) -> str | None:
    """Where the service is mounted in which `path` is a place or a file; None for other paths.

    A folder may have the name `media` as well: a service at `/media/audio` is not refused.
    """
    folders = path.rstrip("/").split("/")
    if folders[-1] in _PLACES:
        return "/".join(folders[:-1])
    is_file = not path.endswith("/") and "." in folders[-1]
    if is_file and "media" in folders[:-2]:
        return "/".join(folders[: folders.index("media")])
    if len(folders) > 1 and folders[-2] == "uploads" and is_upload(folders[-1]):
        return "/".join(folders[:-2])
    return None


def name_of(directory: str, filename: str) -> MediaName:
    """The media name that a directory and a filename give.

    :raises LocalFailure: when a rule for names is broken, with the service's code.
    """
    try:
        return media_name(text_of(directory, "directory"), text_of(filename, "filename"))
    except MissingArgument as error:
        raise LocalFailure(
            f"the {error.argument} is missing: a file at the service is named by a directory and a"
            " filename, such as prompts/hello.mp3",
            error.code,
        ) from None
    except MediaError as error:
        raise LocalFailure(error.reason, error.code) from None


def text_of(argument: object, what: str) -> str:
    """`argument`, which a program has given as `what`.

    :raises LocalFailure: when it is not text.
    """
    if not isinstance(argument, str):
        raise LocalFailure(f"the {what} has to be a str, not {type(argument).__name__}")
    return argument


def sendable(argument: object, what: str) -> str:
    """`argument`, which a program has given as `what`, if UTF-8 can express it.

    :raises LocalFailure: as `text_of`, and when it has half of a surrogate pair.
    """
    text = text_of(argument, what)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise LocalFailure(f"the {what} is not UTF-8", 400) from None
    return text


def name_at(path: str) -> MediaName:
    """The media name that is written as `path`: `prompts/en/hello.mp3`. It may begin with a slash.

    :raises LocalFailure: as `name_of`, and when the directory or the filename is missing.
    """
    directory, _, filename = path.removeprefix("/").rpartition("/")
    if not directory or not filename:
        raise LocalFailure(
            f"{path!r} is not the name of a file; write DIRECTORY/FILE, such as prompts/hello.mp3"
        )
    return name_of(directory, filename)


def folders_at(path: str) -> tuple[str, ...]:
    """The folders of the directory that is written as `path`; none for the root. It may begin with
    a slash.

    :raises LocalFailure: when a rule for names is broken, with the service's code.
    """
    bare = text_of(path, "directory").replace("\\", "/").removeprefix("/").removesuffix("/")
    try:
        segments = [segment.encode("utf-8") for segment in bare.split("/")] if bare else []
        return folders_from_path(segments)
    except UnicodeEncodeError:
        raise LocalFailure("the name is not allowed: it is not UTF-8", 505) from None
    except MediaError as error:
        raise LocalFailure(error.reason, error.code) from None
