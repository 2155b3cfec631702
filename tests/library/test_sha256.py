"""The SHA-256 whose state is bytes."""

from __future__ import annotations

import hashlib
import struct
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twistedmedia.library import sha256
from twistedmedia.library.sha256 import Sha256

PIECES = st.lists(st.binary(max_size=300), max_size=8)


@given(PIECES)
def test_the_digest_is_hashlibs_however_the_bytes_are_cut(pieces: list[bytes]) -> None:
    digest = Sha256()
    for piece in pieces:
        digest.update(piece)
    assert digest.hexdigest() == hashlib.sha256(b"".join(pieces)).hexdigest()


@given(PIECES, PIECES)
def test_a_kept_state_goes_on(before: list[bytes], after: list[bytes]) -> None:
    digest = Sha256()
    for piece in before:
        digest.update(piece)
    state = digest.state()
    assert state is not None
    digest = Sha256(state=state)
    for piece in after:
        digest.update(piece)
    assert digest.hexdigest() == hashlib.sha256(b"".join(before + after)).hexdigest()


def test_to_ask_for_the_digest_or_the_state_changes_nothing() -> None:
    digest = Sha256()
    digest.update(b"hello")
    assert digest.hexdigest() == digest.hexdigest() == hashlib.sha256(b"hello").hexdigest()
    assert digest.state() == digest.state()
    digest.update(b" world")
    assert digest.hexdigest() == hashlib.sha256(b"hello world").hexdigest()


def test_another_process_goes_on() -> None:
    digest = Sha256()
    digest.update(b"hello")
    code = (
        "import sys; from twistedmedia.library.sha256 import Sha256;"
        "digest = Sha256(state=bytes.fromhex(sys.argv[1]));"
        "digest.update(b' world'); print(digest.hexdigest())"
    )
    state = digest.state()
    assert state is not None
    other = subprocess.run(
        [sys.executable, "-c", code, state.hex()], capture_output=True, text=True, check=True
    )
    assert other.stdout.strip() == hashlib.sha256(b"hello world").hexdigest()


@pytest.mark.parametrize("change", ["cut", "longer", "magic", "empty"])
def test_what_is_not_a_state_is_refused(change: str) -> None:
    state = Sha256().state()
    assert state is not None
    broken = {
        "cut": state[:-1],
        "longer": state + b"\0",
        "magic": b"S" + state[1:],
        "empty": b"",
    }[change]
    with pytest.raises(ValueError, match="state of a SHA-256"):
        Sha256(state=broken)


@given(st.binary(min_size=112, max_size=112))
def test_no_bytes_from_a_disk_make_openssl_write_beyond_its_state(raw: bytes) -> None:
    """It trusts the number of bytes in the block that is not full."""
    state = Sha256().state()
    assert state is not None
    magic = state[:-112]
    numbers = struct.unpack("=28I", raw)
    try:
        digest = Sha256(state=magic + raw)
    except ValueError:
        return
    assert numbers[26] < 64
    assert numbers[27] == 32
    digest.update(bytes(200))


@pytest.mark.parametrize(("index", "value"), [(26, 64), (26, 6), (27, 31), (8, 41)])
def test_a_state_that_contradicts_itself_is_refused(index: int, value: int) -> None:
    digest = Sha256()
    digest.update(b"hello")
    state = digest.state()
    assert state is not None
    numbers = list(struct.unpack("=28I", state[-112:]))
    numbers[index] = value
    with pytest.raises(ValueError, match="contradicts itself"):
        Sha256(state=state[:-112] + struct.pack("=28I", *numbers))


@given(PIECES)
def test_the_size_is_known_also_of_a_kept_state(pieces: list[bytes]) -> None:
    digest = Sha256()
    for piece in pieces:
        digest.update(piece)
    state = digest.state()
    assert state is not None
    assert digest.size == Sha256(state=state).size == len(b"".join(pieces))


def test_without_openssls_functions_there_is_a_digest_but_no_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state = Sha256().state()
    monkeypatch.setattr(sha256, "_OPENSSL", None)
    digest = Sha256()
    digest.update(b"hello")
    assert digest.hexdigest() == hashlib.sha256(b"hello").hexdigest()
    assert digest.state() is None
    with pytest.raises(ValueError, match="can go on here"):
        Sha256(state=state)
