"""How long the client waits for a service that says nothing.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from twistedmedia.client.arguments import check_number


@dataclass(frozen=True, slots=True)
class Patience:
    """Times in seconds.

    `connect_s`: until a connection is there. `stall_s`: content that neither comes nor goes.
    `answer_s`: until the answer begins, once the request is sent; the service may have a GiB to
    bring to stable storage. `import_s`: the same for an import, which the service gives an hour.
    `health_s`: the same for a question about the health, which the service answers at once.

    :raises LocalFailure: when one is not a number from 0 on.
    """

    connect_s: float = 10.0
    stall_s: float = 60.0
    answer_s: float = 300.0
    import_s: float = 3700.0
    health_s: float = 10.0

    def __post_init__(self) -> None:
        for each in fields(self):
            check_number(getattr(self, each.name), each.name)
