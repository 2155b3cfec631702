"""Stub."""


class AudioCheck:
    def feed(self, data: bytes) -> None:
        pass

    def problem(self, extension: str) -> str | None:
        return None
