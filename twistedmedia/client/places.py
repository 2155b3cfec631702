"""Where things are: the service's URL, and the URLs below it; media names as people write them.

Pure. A service may be mounted below a path of a larger site: `http://example.org/voice`.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

from twistedmedia.client.errors import Garbled, LocalFailure
from twistedmedia.errors import MediaError
from twistedmedia.names import MediaName, folders_from_path, media_name, url_path

_PORTS = {"http": 80, "https": 443}


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
            same = _origin(url) == _origin(self.url)
        except ValueError:
            url, same = "", False
        if not location or not same or not url.isascii():
            raise Garbled("the service does not say where to send the upload")
        return url


def service(url: str) -> Service:
    """The service at `url`.

    :raises ValueError: when that is no `http` or `https` URL of a service, saying why.
    """
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError(
            f"{url!r} is not the URL of a service; write it like http://127.0.0.1:8000"
        )
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("the URL of a service has no user, no query and no fragment")
    if not url.isascii() or any(character <= " " or character == "\x7f" for character in url):
        raise ValueError("the URL of a service is ASCII without blanks")
    _origin(url)
    return Service(url.rstrip("/"))


def name_of(directory: str, filename: str) -> MediaName:
    """The media name that a directory and a filename give.

    :raises LocalFailure: when a rule for names is broken, with the service's code.
    """
    try:
        return media_name(directory, filename)
    except MediaError as error:
        raise LocalFailure(error.reason, error.code) from None


def name_at(path: str) -> MediaName:
    """The media name that is written as `path`: `prompts/en/hello.mp3`.

    :raises LocalFailure: as `name_of`.
    """
    directory, _, filename = path.rpartition("/")
    return name_of(directory, filename)


def folders_at(path: str) -> tuple[str, ...]:
    """The folders of the directory that is written as `path`; none for the root.

    :raises LocalFailure: when a rule for names is broken, with the service's code.
    """
    bare = path.replace("\\", "/").removesuffix("/")
    try:
        segments = [segment.encode("utf-8") for segment in bare.split("/")] if bare else []
        return folders_from_path(segments)
    except UnicodeEncodeError:
        raise LocalFailure("the name is not allowed: it is not UTF-8", 505) from None
    except MediaError as error:
        raise LocalFailure(error.reason, error.code) from None


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)
