"""Preconditions: which version of a file a client allows to be replaced or deleted.

Pure. A `Precondition` is a value, so a store can evaluate it with `allows`, or translate its fields
for another server, such as to the headers If-Match and If-None-Match of S3. A server that compares
one tag only gets If-Match with the tag for which `allows` has just returned True.
"""

from __future__ import annotations

from dataclasses import dataclass

ANY = "*"  # among tags: any file matches


@dataclass(frozen=True, slots=True)
class Precondition:
    """The preconditions of RFC 9110, 13.1, for a change. All that are not None must hold.

    `if_match` has the strong entity tags, with quotes, one of which the file must have; an empty
    set matches no file. `if_none_match` has the tags, with quotes and without `W/`, none of which
    it may have. `ANY` in either stands for any file. `unmodified_since_s` is the last second since
    the epoch in which the file may have been modified.
    """

    if_match: frozenset[str] | None = None
    if_none_match: frozenset[str] | None = None
    unmodified_since_s: int | None = None

    def allows(self, etag: str | None, modified_ns: int) -> bool:
        """Whether the file with these validators may be changed.

        `etag` is strong, and None if there is no file. Then only `if_match` can forbid the change,
        and `modified_ns` does not count. It is in nanoseconds since the epoch.
        """
        if etag is None:
            return self.if_match is None
        if self.if_match is not None and self.if_match.isdisjoint((ANY, etag)):
            return False
        if self.if_none_match is not None and not self.if_none_match.isdisjoint((ANY, etag)):
            return False
        return self.unmodified_since_s is None or modified_ns // 10**9 <= self.unmodified_since_s
