"""Which resources stream, and the streaming content of their requests."""

from __future__ import annotations

from twisted.web.iweb import IRequest
from zope.interface import Interface

from twistedmedia.streaming import Body


class IStreamsBody(Interface):
    """Marks a resource that is to be rendered before the content has arrived."""


def body_of(request: IRequest) -> Body:
    """The streaming content of a request.

    :raises RuntimeError: when the request came by another Site than `MediaSite`, which reads all of
        the content before anybody sees the request. There is no slow fallback.
    """
    body = getattr(request, "body", None)
    if not isinstance(body, Body):
        raise RuntimeError("uploads need twistedmedia's Site: serve this tree with MediaSite")
    return body
