"""The plugin for `twistd media`. It imports nothing of ours: every twistd on the machine loads it."""

from twisted.application.service import ServiceMaker

media = ServiceMaker(
    "Twisted media",
    "twistedmedia.service.tap",
    "Store and serve audio over HTTP: streamed, durable, seekable.",
    "media",
)
