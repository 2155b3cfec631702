"""The private details of Twisted, hyperlink and treq that the client relies on still exist."""

from __future__ import annotations

from typing import Any

import pytest
from hyperlink import EncodedURL
from treq.client import HTTPClient
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.web import _newclient, http
from twisted.web.client import ResponseFailed
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IBodyProducer
from zope.interface import implementer

from twistedmedia.client.private_apis import (
    CAUSES,
    END_OF_REQUEST_LINE,
    FAILURE_TEXTS,
    AnyHostEndpoint,
    ExactURL,
)


@pytest.mark.parametrize("name", FAILURE_TEXTS)
def test_the_errors_with_a_replaced_text_exist(name: str) -> None:
    module: Any = _newclient if hasattr(_newclient, name) else http
    assert issubclass(getattr(module, name), Exception)


def test_an_error_has_the_failures_that_caused_it() -> None:
    causes = [Failure(ValueError())]
    assert getattr(ResponseFailed(causes), CAUSES) == causes
    assert issubclass(ResponseFailed, _newclient._WrapperException)


class Sequences(StringTransport):
    """A transport that records the sequences that are written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.sequences: list[list[bytes]] = []

    def writeSequence(self, data: Any) -> None:
        self.sequences.append(list(data))


@implementer(IBodyProducer)
class Body:
    length = UNKNOWN_LENGTH

    def startProducing(self, consumer: Any) -> Deferred[None]:
        consumer.write(b"x HTTP/1.1\r\n")
        return succeed(None)

    def stopProducing(self) -> None:
        pass

    pauseProducing = resumeProducing = stopProducing


def test_only_the_first_item_of_a_head_ends_like_a_request_line() -> None:
    transport: Any = Sequences()
    request = _newclient.Request(b"PUT", b"/a", Headers({b"Host": [b"h"]}), Body())
    request.writeTo(transport)
    is_head = [items[0].endswith(END_OF_REQUEST_LINE) for items in transport.sequences]
    assert is_head == [True, False, False], "a head, a chunk, and the last chunk"


def test_an_endpoint_takes_its_host_from_the_method_that_is_overridden() -> None:
    endpoint: Any = AnyHostEndpoint(MemoryReactorClock(), b"my_media", 80)
    assert (endpoint._badHostname, endpoint._hostText) == (False, "my_media")
    assert HostnameEndpoint._hostAsBytesAndText(b"media") == (False, b"media", "media")


@implementer(IAgent)
class Agent:
    """Records the URL of a request."""

    url = b""

    def request(self, method: bytes, uri: bytes, *args: Any, **kwargs: Any) -> Deferred[Any]:
        self.url = uri
        return Deferred()


@pytest.mark.parametrize("url", ["http://my_media/a%2fb?c=%c3", "http://h/;=~%41"])
def test_treq_sends_a_url_unchanged(url: str) -> None:
    agent = Agent()
    HTTPClient(agent).request("GET", ExactURL(url), headers=Headers(), unbuffered=True)
    assert agent.url == url.encode()
    assert issubclass(ExactURL, EncodedURL)
