"""The URLs of a service and its resources, and media names as people write them.

Pure. A service may be mounted below a path of a larger site: `http://example.org/voice`.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, urljoin

from twistedmedia.client.exceptions import InvalidResponse, LocalFailure, NotAService
from twistedmedia.errors import BadRequest, MediaError, MissingArgument, NameNotAllowed
from twistedmedia.fetch.urls import parse_url
from twistedmedia.names import MediaName, folders_from_path, is_upload, media_name, url_path

# The resources at the root of a service. The URL of one of them is not the URL of a service.
_RESOURCES = ("media", "uploads", "fetch", "health", "ready", "openapi.json")


@dataclass(frozen=True, slots=True)
class Service:
    """A service at `url`, which has no trailing slash. `service` creates it."""

    url: str

    def media(self, name: MediaName) -> str:
        """The URL of a file."""
        return f"{self.url}/media/{name.url_path}"

    def listing(self, folders: tuple[str, ...], after: str | None = None) -> str:
        """The URL of a directory's listing that begins after the name `after`."""
        path = "".join(f"{url_path([folder])}/" for folder in folders)
        query = "" if after is None else f"?after={quote(after, safe='')}"
        return f"{self.url}/media/{path}{query}"

    def fetch(self, url: str) -> str:
        """The URL at which the service fetches `url`."""
        return f"{self.url}/fetch?url={quote(url, safe='')}"

    @property
    def health(self) -> str:
        """The URL of the service's health."""
        return f"{self.url}/health"

    @property
    def imports(self) -> str:
        """The URL to which imports are posted."""
        return f"{self.url}/media"

    @property
    def uploads(self) -> str:
        """The URL at which resumable uploads are created."""
        return f"{self.url}/uploads/"

    def upload(self, location: str | None) -> str:
        """The URL of the upload at `location`, which may be relative to `uploads`.

        :raises InvalidResponse: when it is missing, or on another server: content for this service
            is never sent elsewhere.
        """
        try:
            url = urljoin(self.uploads, location or "")
            is_same_origin = parse_url(url).origin == parse_url(self.url).origin
        except ValueError:
            url, is_same_origin = "", False
        if not location or not is_same_origin or not url.isascii():
            raise InvalidResponse("the service does not say where to send the upload")
        return url


def service(url: str) -> Service:
    """The service at `url`. It accepts the hosts that the service itself can fetch from.

    :raises NotAService: when `url` is not an `http` or `https` URL of a service.
    """
    if not isinstance(url, str):
        raise NotAService(f"the URL of a service must be a str, not {type(url).__name__}")
    try:
        parsed = parse_url(url)
    except ValueError as error:
        raise NotAService(
            f"this is not the URL of a service: {error}; write it like http://127.0.0.1:8000"
        ) from None
    path = parsed.target.partition("?")[0]
    root = _root(path)
    if root is not None:
        raise NotAService(
            f"{parsed.origin}{path} is a resource of a service; the URL of the service itself is"
            f" {parsed.origin}{root}"
        )
    if "?" in url or "#" in url:
        raise NotAService("the URL of a service must not have a query or a fragment")
    if not url.partition("//")[2].partition("/")[2].isascii():
        raise NotAService("the path in the URL of a service must be ASCII")
    return Service(str(parsed).rstrip("/"))


def _root(path: str) -> str | None:
    """The path of the service if `path` is one of its resources or files, otherwise None.

    A service at `/media/audio` is accepted, since any folder may have the name `media`.
    """
    folders = path.rstrip("/").split("/")
    if folders[-1] in _RESOURCES:
        return "/".join(folders[:-1])
    is_file = not path.endswith("/") and "." in folders[-1]
    if is_file and "media" in folders[:-2]:
        return "/".join(folders[: folders.index("media")])
    if len(folders) > 1 and folders[-2] == "uploads" and is_upload(folders[-1]):
        return "/".join(folders[:-2])
    return None


def name_of(directory: str, filename: str) -> MediaName:
    """The media name of a directory and a filename.

    :raises LocalFailure: when they break a rule for names, with the service's code.
    """
    try:
        return media_name(check_text(directory, "directory"), check_text(filename, "filename"))
    except MissingArgument as error:
        raise LocalFailure(
            f"the {error.argument} is missing: a name at the service consists of a directory and a"
            " filename, such as prompts/hello.mp3",
            error.code,
        ) from None
    except MediaError as error:
        raise LocalFailure(error.reason, error.code) from None


def check_text(argument: object, what: str) -> str:
    """Check that `argument`, which was passed as `what`, is text, and return it.

    :raises LocalFailure: when it is not.
    """
    if not isinstance(argument, str):
        raise LocalFailure(f"the {what} must be a str, not {type(argument).__name__}")
    return argument


def check_utf8(argument: object, what: str) -> str:
    """Check that `argument`, which was passed as `what`, is text that UTF-8 can encode.

    :raises LocalFailure: when it is not text, or has a lone surrogate.
    """
    text = check_text(argument, what)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise LocalFailure(f"the {what} is not UTF-8", BadRequest.code) from None
    return text


def name_at(path: str) -> MediaName:
    """Parse a media name, such as `prompts/en/hello.mp3`. It may begin with a slash.

    :raises LocalFailure: as `name_of` does, and when the directory or the filename is missing.
    """
    directory, _, filename = path.removeprefix("/").rpartition("/")
    if not directory or not filename:
        raise LocalFailure(
            f"{path!r} is not the name of a file; write DIRECTORY/FILE, such as prompts/hello.mp3"
        )
    return name_of(directory, filename)


def folders_at(path: str) -> tuple[str, ...]:
    """Parse a directory, such as `prompts/en`, into its folders; the root has no folders. It may
    begin with a slash.

    :raises LocalFailure: when it breaks a rule for names, with the service's code.
    """
    bare = check_text(path, "directory").replace("\\", "/").removeprefix("/").removesuffix("/")
    try:
        segments = [segment.encode("utf-8") for segment in bare.split("/")] if bare else []
        return folders_from_path(segments)
    except UnicodeEncodeError:
        not_allowed = NameNotAllowed("it is not UTF-8")
        raise LocalFailure(not_allowed.reason, not_allowed.code) from None
    except MediaError as error:
        raise LocalFailure(error.reason, error.code) from None
