"""Private details of Twisted, hyperlink and treq that the client relies on, each with its reason.

tests/client/test_private_apis.py fails when a new version of these packages changes one of them.
"""

from __future__ import annotations

from hyperlink import EncodedURL
from twisted.internet.endpoints import HostnameEndpoint

# Classes of twisted.web._newclient and twisted.web.http. Their messages are empty or repr()s of
# bytes from the network, so they are replaced. The classes cannot be imported from a public module.
FAILURE_TEXTS = {
    "ParseError": "the response is not HTTP",
    "BadResponseVersion": "the response is not HTTP",
    "_DataLoss": "the response ended early",
    "_MalformedChunkedDataError": "the response is malformed",
}

# twisted.web._newclient._WrapperException, the base class of `ResponseFailed` and similar errors,
# has the list of the Failures that caused it in this attribute.
CAUSES = "reasons"

# twisted.web._newclient.Request writes a head with one `writeSequence`, whose first item is the
# request line and ends like this. The sequence of a chunk begins with the size of the chunk, so
# this tells when the response to a new request begins.
END_OF_REQUEST_LINE = b" HTTP/1.1\r\n"


class AnyHostEndpoint(HostnameEndpoint):
    """Connects to a host by its name as it is written. `HostnameEndpoint` refuses names that are
    not IDNA, such as those with an underscore, which Docker and private networks have.
    `locations` has checked the name.
    """

    @staticmethod
    def _hostAsBytesAndText(host: bytes | str) -> tuple[bool, bytes, str]:
        assert isinstance(host, bytes)
        return False, host, host.decode("ascii")


class ExactURL(EncodedURL):
    """A URL that treq sends unchanged. treq would encode a string again, and refuse hosts with an
    underscore. Of an `EncodedURL` it uses `to_uri().to_text()`, and nothing that the constructor
    sets, as long as there are no `params` or `cookies`.
    """

    def __init__(self, url: str) -> None:
        self._exact = url

    def to_uri(self) -> ExactURL:
        """The same URL."""
        return self

    def to_text(self, with_password: bool = False) -> str:
        """The URL, in ASCII."""
        return self._exact
