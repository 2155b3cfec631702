"""Whether the bytes of a file are the audio that its name promises, said while they arrive.

Pure. WAV and MP3 are judged by their structure, the other formats by their first bytes. Of a stream
some 20 KiB are held, whatever its size.
"""

from __future__ import annotations

from dataclasses import dataclass

from twistedmedia.audio.content import HEAD_BYTES, MP3, PROMISED, WAV, content_of
from twistedmedia.audio.mpeg import mpeg_problem
from twistedmedia.audio.stream import Parser, Skip, Stream, Take
from twistedmedia.audio.tags import id3_size
from twistedmedia.audio.wav import wav_problem

# Programs put one before another; a chain of empty ones must not be walked through to its end.
_MOST_TAGS = 16


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What a content is, None when nobody knows, and what is wrong with it as that."""

    content: str | None
    problem: str | None = None


class AudioCheck:
    """The check of one file, which is fed to it in any pieces."""

    def __init__(self) -> None:
        self._stream: Stream[_Verdict] = Stream(_verdict)

    def feed(self, data: bytes) -> None:
        """The next bytes."""
        self._stream.feed(data)

    def problem(self, extension: str) -> str | None:
        """The file has ended: what is wrong with it as the audio that `extension`, in lower case,
        promises. None if nothing is wrong, or nothing is known of such files.
        """
        if not self._stream.size:
            return "it is empty"
        verdict = self._stream.end()
        promised = PROMISED.get(extension)
        if promised is None:
            return None
        if verdict.content in promised:
            return verdict.problem
        return f"the content is {verdict.content or 'something else'}, not {promised[0]}"


def _verdict(stream: Stream[_Verdict]) -> Parser[_Verdict]:
    tagged = False
    for _ in range(_MOST_TAGS):
        head = yield Take(HEAD_BYTES)
        stream.unread(head)
        size = id3_size(head)
        if size is None:
            break
        tagged = True
        yield Skip(size)
    content = content_of(head)
    if content == WAV and not tagged:
        return _Verdict(WAV, (yield from wav_problem(stream)))
    if content == MP3 or (content is None and tagged):  # with junk behind the tag
        return _Verdict(MP3, (yield from mpeg_problem(stream, tagged=tagged)))
    return _Verdict(content)
