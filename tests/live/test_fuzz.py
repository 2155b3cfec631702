"""Requests made at random, from the description of the interface and from bytes: the service
answers as it is described, never 500, and goes on.

FUZZ_S is for how many seconds each runs, FUZZ_SEED what it is made from.
"""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path
from random import SystemRandom
from typing import Any

import pytest
import yaml

from tests.live.fuzzer import fuzz
from tests.live.support import clean_environment
from tests.process.running import Process, drafts_in

DESCRIPTION = Path(__file__).parents[2] / "docs" / "openapi.yaml"
SCHEMATHESIS = os.path.join(sysconfig.get_path("scripts"), "schemathesis")
LIMITS = ["--max-upload", "64k", "--max-form", "256k"]
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
]
# 5xx that are no fault: the upstream's, busy, full.
CONFIGURATION = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", "502", "503", "504", "507"]
"""
# A type that is not known there: bytes, as others are.
HOOKS = """
import schemathesis
schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")
"""
# Nobody is asked for anything.
NOT_TO_BE_FETCHED = [
    "http://127.0.0.1:1/a.wav",
    "http://10.0.0.1/a.mp3",
    "http://nowhere.invalid/b.wav",
    "https://localhost/b.mp3",
    "http://user:password@127.0.0.1/",
    "ftp://127.0.0.1/a.wav",
]


@pytest.fixture
def duration_s(request: pytest.FixtureRequest) -> float:
    """How long to go on."""
    return float(os.environ.get("FUZZ_S", 20 if request.config.getoption("--quick") else 600))


@pytest.fixture
def seed() -> int:
    """What all is made from; printed, so that a failure can be repeated."""
    number = int(os.environ.get("FUZZ_SEED", SystemRandom().randrange(1 << 32)))
    print(f"FUZZ_SEED={number}")
    return number


def narrowed() -> dict[str, Any]:
    """The description for a test: objects have what is described and no more, some names come again
    and again, so that there is something under them, and no URL leads to anybody.
    """
    description: dict[str, Any] = yaml.safe_load(DESCRIPTION.read_text(encoding="utf-8"))
    schemas = description["components"]["schemas"]
    for schema in schemas.values():
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
    for name, common in (("Directory", ["a", "b"]), ("Filename", ["a.wav", "b.mp3"])):
        schemas[name] = {"anyOf": [{"enum": common}, schemas[name]]}
    schemas["Url"] = {"type": "string", "enum": NOT_TO_BE_FETCHED}
    return description


def test_every_answer_is_as_described(
    serve: Callable[..., Process], service: Process, tmp_path: Path, duration_s: float, seed: int
) -> None:
    (tmp_path / "openapi.json").write_text(json.dumps(narrowed()))
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    (tmp_path / "hooks.py").write_text(HOOKS)
    fuzzed = serve(*LIMITS, "--upstream", f"http://127.0.0.1:{service.port}/media/")
    with fuzzed.unchanged_descriptors(besides=lambda: kept(fuzzed, service)):
        done = subprocess.run(
            [
                *(SCHEMATHESIS, "run", "openapi.json", "--url", f"http://127.0.0.1:{fuzzed.port}"),
                *("--checks", ",".join(CHECKS), "--continue-on-failure", "--no-color"),
                *("--seed", str(seed), "--max-time", str(round(duration_s))),
                *("--output-truncate", "false", "--suppress-health-check", "all"),
            ],
            cwd=tmp_path,
            env=clean_environment() | {"SCHEMATHESIS_HOOKS": "hooks"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=duration_s + 120,
            check=False,
        )
    print(done.stdout)
    assert done.returncode == 0
    assert_well(fuzzed)


def test_whatever_is_sent_is_answered_and_harmless(
    serve: Callable[..., Process], service: Process, duration_s: float, seed: int
) -> None:
    fuzzed = serve(*LIMITS, "--upstream", f"http://127.0.0.1:{service.port}/media/")
    with fuzzed.unchanged_descriptors(besides=lambda: kept(fuzzed, service)):
        found = fuzz(fuzzed, seed, duration_s)
    print(sorted(found.answers.items()))
    assert not found.wrong, "\n\n".join(found.wrong)
    assert {200, 201, 206, 400, 403, 404, 405, 409, 412, 413, 415, 416, 417} <= set(
        found.answers
    ), "it does not get far enough to find anything"
    assert_well(fuzzed)


def assert_well(fuzzed: Process) -> None:
    """It still does what it is for, and nothing has surprised it; tracebacks are looked for when it
    ends.
    """
    assert drafts_in(fuzzed.root) == []
    assert fuzzed.ask("PUT", "/media/after/all.wav", b"x").brief == (201, 200)
    surprises = [line for line in fuzzed.log.splitlines() if "Warning" in line]
    assert surprises == []


def kept(fuzzed: Process, upstream: Process) -> set[str]:
    """The connections of `fuzzed` to its upstream, which may stay open."""
    port = upstream.port
    found = set()
    for line in Path(f"/proc/{fuzzed.pid}/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        if int(fields[2].partition(":")[2], 16) == port:
            found.add(f"socket:[{fields[9]}]")
    return found
