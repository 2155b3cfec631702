"""The plugin of `twistd media`. It imports nothing of ours, since every twistd loads it."""

from twisted.application.service import ServiceMaker

media = ServiceMaker(
    "Twisted media",
    "twistedmedia.service.tap",
    "Store and serve audio over HTTP: streamed, durable, seekable.",
    "media",
)
