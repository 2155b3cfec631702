"""The options of `twistd media`: their values, where they come from, and which are refused."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.application.twist._options import TwistOptions
from twisted.scripts.twistd import ServerOptions

import twistedmedia.client
from twistedmedia import __version__
from twistedmedia.fetch.fetcher import Upstream
from twistedmedia.fetch.policy import parse_allow_rule
from twistedmedia.fetch.urls import parse_url
from twistedmedia.http.addresses import NO_PROXIES, Proxies, parse_proxies
from twistedmedia.http.timeouts import Timeouts
from twistedmedia.library.resumable import ResumableUploads
from twistedmedia.library.upload_limits import AudioCheckMode, UploadLimits
from twistedmedia.service.options import Options

pytestmark = pytest.mark.usefixtures("bare_surroundings")

DEFAULTS = {
    "port": 8000,
    "interface": "127.0.0.1",
    "open": False,
    "formats": {"mp3": "audio/mpeg", "wav": "audio/wav"},
    "max-upload": 2 << 30,
    "max-form": 8 << 30,
    "max-uploads": 64,
    "max-imports": None,
    "busy-rate": 16 << 10,
    "check": AudioCheckMode.FLAG,
    "disk-threads": 5,
    "durable": True,
    "upstream": None,
    "fetch-allow": (),
    "fetch-timeout": 30,
    "fetch-max": 64 << 20,
    "fetch-connections": 2000,
    "no-fetch": False,
    "listen": (),
    "trusted-proxy": NO_PROXIES,
    "grace": 30,
    "access-log": None,
    "header-timeout": 15,
    "keep-alive": 75,
    "stall": 300,
    "min-rate": 64,
    "max-connections": 10_000,
    "max-per-address": 2_000,
    "upload-expiry": 24 * 3600,
    "max-unfinished": 1000,
    "cors-origin": frozenset(),
}

# An option, a text, and the value that the text means.
VALUES = [
    ("port", "0", 0),
    ("port", "80", 80),
    ("port", "65535", 65535),
    ("interface", "localhost", "127.0.0.1"),
    ("interface", "127.8.9.10", "127.8.9.10"),
    ("interface", "::1", "::1"),
    ("interface", "0:0:0:0:0:0:0:1", "::1"),
    ("formats", "ogg,FLAC", {"ogg": "audio/ogg", "flac": "audio/flac"}),
    ("formats", "clip=audio/x-clip", {"clip": "audio/x-clip"}),
    ("max-upload", "1.5GiB", 3 << 29),
    ("max-upload", "4294967297", (1 << 32) + 1),
    ("max-form", "500 MB", 500 * 10**6),
    ("max-uploads", "1", 1),
    ("max-uploads", "10000", 10000),
    ("check", "off", AudioCheckMode.OFF),
    ("check", "reject", AudioCheckMode.REJECT),
    ("disk-threads", "1", 1),
    ("disk-threads", "32", 32),
    ("upstream", "http://127.0.0.1:9000/a?b", Upstream(parse_url("http://127.0.0.1:9000/a?b"))),
    ("upstream", "HTTPS://Example.org", Upstream(parse_url("https://example.org/"))),
    ("upstream", "http://[::1]:81/#c", Upstream(parse_url("http://[::1]:81/"))),
    (
        "upstream",
        "http://me:s%40cret@example.org/",
        Upstream(parse_url("http://example.org/"), "Basic bWU6c0BjcmV0"),
    ),
    ("upstream", "", None),
    ("fetch-allow", "10.0.0.0/8", (parse_allow_rule("10.0.0.0/8"),)),
    ("fetch-allow", "[fd00::/8]:8080", (parse_allow_rule("[fd00::/8]:8080"),)),
    ("fetch-allow", "*.example.org:443", (parse_allow_rule("*.example.org:443"),)),
    ("fetch-allow", " localhost ", (parse_allow_rule("localhost"),)),
    ("fetch-allow", "", ()),
    ("fetch-timeout", "1", 1),
    ("fetch-timeout", "90s", 90),
    ("fetch-timeout", "5 min", 300),
    ("fetch-timeout", "1h", 3600),
    ("fetch-max", "1", 1),
    ("fetch-max", "1.5MiB", 3 << 19),
    ("fetch-max", "4294967297", (1 << 32) + 1),
    ("fetch-connections", "1", 1),
    ("fetch-connections", "10000", 10000),
    ("listen", "tcp:8000", ("tcp:8000",)),
    ("listen", " tcp:0:interface=127.0.0.1 ", ("tcp:0:interface=127.0.0.1",)),
    ("listen", "tcp6:8000:interface=\\:\\:1", ("tcp6:8000:interface=\\:\\:1",)),
    ("listen", "unix:/run/media.sock:mode=660", ("unix:/run/media.sock:mode=660",)),
    ("listen", "", ()),
    ("trusted-proxy", "127.0.0.1", parse_proxies(["127.0.0.1"])),
    ("trusted-proxy", "10.0.0.0/8", parse_proxies(["10.0.0.0/8"])),
    ("trusted-proxy", "fd00::/8", parse_proxies(["fd00::/8"])),
    ("trusted-proxy", " unix ", Proxies(local=True)),
    ("trusted-proxy", "", NO_PROXIES),
    ("grace", "0", 0),
    ("grace", "90s", 90),
    ("grace", "1h", 3600),
    ("access-log", "-", "-"),
    ("access-log", "/var/log/media/access.log", "/var/log/media/access.log"),
    ("access-log", "", None),
    ("header-timeout", "1", 1),
    ("header-timeout", "1m", 60),
    ("keep-alive", "1", 1),
    ("keep-alive", "2m", 120),
    ("stall", "1s", 1),
    ("stall", "10 min", 600),
    ("min-rate", "1", 1),
    ("min-rate", "1KiB", 1024),
    ("min-rate", "2k/s", 2048),
    ("max-imports", "1", 1),
    ("max-imports", "10000", 10000),
    ("busy-rate", "1", 1),
    ("busy-rate", "64KiB/s", 65536),
    ("max-connections", "1", 1),
    ("max-connections", "1000000", 1_000_000),
    ("max-per-address", "1", 1),
    ("max-per-address", "1000000", 1_000_000),
    ("upload-expiry", "1", 1),
    ("upload-expiry", "90s", 90),
    ("upload-expiry", "168h", 7 * 24 * 3600),
    ("max-unfinished", "1", 1),
    ("max-unfinished", "1000000", 1_000_000),
    ("cors-origin", "https://app.example", {"https://app.example"}),
    ("cors-origin", " HTTP://App.Example:80/ ", {"http://app.example"}),
    ("cors-origin", "http://[::1]:3000", {"http://[::1]:3000"}),
    ("cors-origin", "", frozenset()),
]

INVALID = [
    ("port", "99999"),
    ("port", "65536"),
    ("port", "-1"),
    ("port", "+80"),
    ("port", "80.0"),
    ("port", "http"),
    ("port", ""),
    ("port", "\uff18\uff10"),
    pytest.param("port", "9" * 5000, id="port-5000 digits"),
    ("interface", ""),
    ("interface", "example.org"),
    ("interface", "127.1"),
    ("interface", "256.0.0.1"),
    ("interface", "127.0.0.1:8000"),
    ("interface", "[::1]"),
    ("interface", "0.0.0.0"),
    ("interface", "192.0.2.1"),
    ("interface", "::"),
    ("interface", "2001:db8::1"),
    ("formats", "exe"),
    ("formats", "mp3,exe"),
    ("formats", "mp3,page=text/html"),
    ("formats", ""),
    ("max-upload", "big"),
    ("max-upload", "-1"),
    ("max-upload", "2PiB"),
    ("max-upload", ""),
    ("max-form", "0x10"),
    ("max-form", "1e9"),
    ("max-uploads", "0"),
    ("max-uploads", "-5"),
    ("max-uploads", "10001"),
    ("max-uploads", "many"),
    ("check", "REJECT"),
    ("check", "yes"),
    ("check", ""),
    ("disk-threads", "0"),
    ("disk-threads", "1.5"),
    ("disk-threads", "\u0665"),
    ("root", ""),
    ("upstream", "example.org"),
    ("upstream", "nonsense"),
    ("upstream", "ftp://example.org/"),
    ("upstream", "http://"),
    ("upstream", "http://example.org:0/"),
    ("upstream", "http://example.org:99999/"),
    ("upstream", "http://exam ple.org/"),
    ("upstream", "http://[::1"),
    ("upstream", "http://[fe80::1%eth0]/"),
    ("upstream", "http://example.org/\r\nX: y"),
    ("upstream", "http://me:secret@"),
    ("upstream", "http://me@you@example.org/"),
    ("fetch-allow", "10.0.0.0/33"),
    ("fetch-allow", "10.0.0.1/8"),
    ("fetch-allow", "127.1"),
    ("fetch-allow", "fd00::/8:8080"),
    ("fetch-allow", "[::1"),
    ("fetch-allow", "*"),
    ("fetch-allow", "a.*.org"),
    ("fetch-allow", "example.org:0"),
    ("fetch-allow", "example.org:65536"),
    ("fetch-allow", "http://example.org"),
    ("fetch-allow", "exam\nple.org"),
    ("fetch-timeout", "0"),
    ("fetch-timeout", "0h"),
    ("fetch-timeout", "-1"),
    ("fetch-timeout", "1.5s"),
    ("fetch-timeout", "soon"),
    ("fetch-timeout", ""),
    pytest.param("fetch-timeout", "9" * 5000, id="fetch-timeout-5000 digits"),
    ("fetch-max", "0"),
    ("fetch-max", "big"),
    ("fetch-max", ""),
    ("fetch-connections", "0"),
    ("fetch-connections", "10001"),
    ("fetch-connections", "-1"),
    ("fetch-connections", "1e3"),
    ("fetch-connections", ""),
    ("listen", "8000"),
    ("listen", "tcp"),
    ("listen", "tcp:99999"),
    ("listen", "ssl:port=65536:privateKey=/missing/key.pem"),
    ("listen", "unix:/run/media.sock:mode=999"),
    ("listen", "tcp:http-alt-alt"),
    ("listen", "udp:8000"),
    ("listen", "tcp:8000:nonsense=1"),
    ("listen", "systemd:domain=INET"),
    ("listen", "systemd:domain=INET:index=0"),  # this process did not inherit a socket
    ("listen", "ssl:8443:privateKey=/missing/key.pem"),
    ("trusted-proxy", "localhost"),
    ("trusted-proxy", "10.0.0.1/8"),
    ("trusted-proxy", "10.0.0.0/33"),
    ("trusted-proxy", "10.0.0.1:80"),
    ("trusted-proxy", "[::1]"),
    ("trusted-proxy", "all"),
    ("grace", "-1"),
    ("grace", "1.5"),
    ("grace", "long"),
    ("grace", ""),
    *(
        (option, text)
        for option in ("header-timeout", "keep-alive", "stall", "upload-expiry")
        for text in ("0", "0s", "-1", "1.5s", "soon", "")
    ),
    ("max-imports", "0"),
    ("busy-rate", "0"),
    ("min-rate", "0"),
    ("min-rate", "0/s"),
    ("min-rate", "-1"),
    ("min-rate", "fast"),
    ("min-rate", "64/m"),
    ("min-rate", ""),
    *(
        (option, text)
        for option in ("max-connections", "max-per-address", "max-unfinished")
        for text in ("0", "-1", "1000001", "1e3", "many", "\u0665", "", "9" * 5000)
    ),
    ("cors-origin", "*"),
    ("cors-origin", "null"),
    ("cors-origin", "app.example"),
    ("cors-origin", "https://*.app.example"),
    ("cors-origin", "https://app.example/path"),
    ("cors-origin", "https://me:secret@app.example"),
]


def variable(option: str) -> str:
    return "TWISTEDMEDIA_" + option.upper().replace("-", "_")


def parsed(*arguments: str) -> Options:
    options = Options()
    options.parseOptions(list(arguments))
    return options


def refusal(*arguments: str) -> str:
    """The reason why these arguments are refused: one line, and not a UsageError, for which
    the help text would be printed.
    """
    with pytest.raises(SystemExit) as caught:
        parsed(*arguments)
    said = str(caught.value)
    assert len(said.splitlines()) == 1
    assert said.startswith("twistedmedia cannot start: ")
    return said.removeprefix("twistedmedia cannot start: ")


def assert_refused(option: str, *arguments: str) -> str:
    """Check that these arguments are refused, and that the reason begins with the option's name."""
    said = refusal(*arguments)
    assert said.startswith(f"--{option}: ")
    return said


def test_options_have_defaults(bare_surroundings: Path) -> None:
    options = parsed()
    assert {name: options[name] for name in DEFAULTS} == DEFAULTS
    assert options["root"] == str(bare_surroundings / "media")


@pytest.mark.parametrize(("runner", "arguments"), [(ServerOptions, ["-n"]), (TwistOptions, [])])
def test_the_access_log_may_go_to_a_standard_output(
    runner: Callable[[], Any], arguments: list[str]
) -> None:
    options = runner()
    options.parseOptions([*arguments, "media", "--access-log", "-"])
    assert options.subOptions["access-log"] == "-"


def test_the_access_log_of_a_daemon_is_a_file() -> None:
    with pytest.raises(SystemExit, match=r"--access-log: - is .* twistd -n"):
        ServerOptions().parseOptions(["media", "--access-log", "-"])


@pytest.mark.parametrize(("option", "text", "value"), VALUES)
def test_an_option_means_the_same_on_the_command_line_and_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, option: str, text: str, value: Any
) -> None:
    assert parsed(f"--{option}", text)[option] == value
    monkeypatch.setenv(variable(option), text)
    assert parsed()[option] == value


@pytest.mark.parametrize(
    ("arguments", "option", "value"),
    [
        (["-p", "81"], "port", 81),
        (["-i", "::1"], "interface", "::1"),
        (["-r", "/srv/media"], "root", "/srv/media"),
        (["-u", "http://a.test"], "upstream", Upstream(parse_url("http://a.test"))),
        (["-l", "tcp:81", "-l", "tcp:82"], "listen", ("tcp:81", "tcp:82")),
    ],
)
def test_common_options_have_a_short_name(arguments: list[str], option: str, value: Any) -> None:
    assert parsed(*arguments)[option] == value


@pytest.mark.parametrize(("option", "text"), INVALID)
def test_an_invalid_value_is_refused_in_one_line_wherever_it_comes_from(
    monkeypatch: pytest.MonkeyPatch, option: str, text: str
) -> None:
    """Cases 37 and 80. If the value comes from a variable, the line names it."""
    assert variable(option) not in assert_refused(option, f"--{option}={text}")
    if text:  # an empty variable counts as not given
        monkeypatch.setenv(variable(option), text)
        assert f"(set by {variable(option)})" in assert_refused(option)


@pytest.mark.parametrize(("option", "text", "value"), VALUES)
def test_the_command_line_wins_over_any_value_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, option: str, text: str, value: Any
) -> None:
    monkeypatch.setenv(variable(option), "nonsense")
    assert parsed(f"--{option}", text)[option] == value


def test_a_default_on_the_command_line_also_wins_over_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TWISTEDMEDIA_PORT", "81")
    assert parsed("--port", "8000")["port"] == 8000


# Variables


@pytest.mark.parametrize(
    ("text", "arguments", "durable"),
    [("1", [], False), ("0", [], True), ("1", ["--durable"], True), ("0", ["--no-durable"], False)],
)
def test_no_durable_can_be_set_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, text: str, arguments: list[str], durable: bool
) -> None:
    monkeypatch.setenv("TWISTEDMEDIA_NO_DURABLE", text)
    assert parsed(*arguments)["durable"] is durable


@pytest.mark.parametrize("option", [*DEFAULTS, "root"])
def test_an_empty_variable_counts_as_not_given(
    monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    """Case 81."""
    unset = parsed()[option]
    monkeypatch.setenv(variable(option), "")
    options = parsed()
    assert options[option] == unset
    assert options.variables == {}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("PROT", ["PORT"]),
        ("MAXUPLOAD", ["MAX_UPLOAD"]),
        ("MAX_UPLOAD_SIZE", ["MAX_UPLOAD"]),
        ("FORMAT", ["FORMATS"]),
        ("CORS_ORIGINS", ["CORS_ORIGIN"]),
        ("NO_DURABEL", ["NO_DURABLE"]),
        ("port", []),
        ("SECRET", []),
        ("", []),
        ("SERVICE_HOST", []),
    ],
)
def test_a_variable_that_does_not_name_an_option_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, meant: list[str]
) -> None:
    """Case 81."""
    monkeypatch.setenv(f"TWISTEDMEDIA_{name}", "its value")
    said = refusal("--port", "0")
    assert said.startswith(f"TWISTEDMEDIA_{name} in the environment does not name an option")
    assert "its value" not in said  # it may be a secret
    assert ("did you mean" in said) is bool(meant)
    assert set(meant) <= set(re.findall(r"TWISTEDMEDIA_(\w+)(?: or|\?)", said))
    monkeypatch.setenv(f"TWISTEDMEDIA_{name}", "")
    assert parsed("--port", "0")["port"] == 0


def test_the_variables_of_the_client_and_of_others_are_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Case 81."""
    client = Path(twistedmedia.client.__file__).parent
    texts = [path.read_text(encoding="utf-8") for path in client.rglob("*.py")]
    names = set(re.findall(r"TWISTEDMEDIA_[A-Z_]+", "\n".join(texts)))
    assert "TWISTEDMEDIA_URL" in names
    for name in [*names, "TWISTEDMEDIA", "MY_TWISTEDMEDIA_PORT", "LISTEN_FDS", "NOTIFY_SOCKET"]:
        monkeypatch.setenv(name, "given")
    assert parsed()["port"] == 8000


def test_options_record_which_values_come_from_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for option, text in (("port", "81"), ("root", "sounds"), ("listen", "tcp:82"), ("open", "1")):
        monkeypatch.setenv(variable(option), text)
    assert parsed("--port", "8000").variables == {
        option: variable(option) for option in ("root", "listen", "open")
    }


# Flags


@pytest.mark.parametrize(
    ("environment", "arguments", "durable"),
    [
        (None, [], True),
        (None, ["--durable"], True),
        (None, ["--no-durable"], False),
        (None, ["--durable", "--no-durable"], False),
        (None, ["--no-durable", "--durable"], True),
        ("0", [], False),
        ("1", [], True),
        ("0", ["--durable"], True),
        ("1", ["--no-durable"], False),
        ("0", ["--no-durable"], False),
        ("yes", ["--no-durable"], False),
    ],
)
def test_the_last_durability_flag_counts_and_without_one_the_environment(
    monkeypatch: pytest.MonkeyPatch, environment: str | None, arguments: list[str], durable: bool
) -> None:
    if environment is not None:
        monkeypatch.setenv("TWISTEDMEDIA_DURABLE", environment)
    assert bool(parsed(*arguments)["durable"]) is durable


@pytest.mark.parametrize("interface", ["0.0.0.0", "::", "192.0.2.1", "2001:db8::1"])
@pytest.mark.parametrize("environment", [None, "1"])
def test_an_interface_that_is_not_loopback_needs_open(
    monkeypatch: pytest.MonkeyPatch, interface: str, environment: str | None
) -> None:
    if environment is None:
        options = parsed("--open", "--interface", interface)
    else:
        monkeypatch.setenv("TWISTEDMEDIA_OPEN", environment)
        options = parsed("--interface", interface)
    assert options["interface"] == interface
    assert bool(options["open"]) is True


def test_the_refusal_of_an_interface_names_the_missing_option(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TWISTEDMEDIA_OPEN", "0")
    assert "add --open" in assert_refused("interface", "--interface", "0.0.0.0")


@pytest.mark.parametrize("flag", ["open", "durable", "no-fetch"])
@pytest.mark.parametrize("text", ["yes", "true", "2", " 1"])
def test_a_flag_in_the_environment_is_1_or_0(
    monkeypatch: pytest.MonkeyPatch, flag: str, text: str
) -> None:
    monkeypatch.setenv(variable(flag), text)
    assert_refused(flag)


# Fetching


def test_allow_rules_are_repeated_or_separated_by_commas_in_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rules = ["10.0.0.0/8", "[fd00::/8]:8080", "*.example.org:443", "::1"]
    parsed_rules = tuple(map(parse_allow_rule, rules))
    assert parsed(*[f"--fetch-allow={rule}" for rule in rules])["fetch-allow"] == parsed_rules
    for text in (",".join(rules), " , ".join(["", *rules, ""])):
        monkeypatch.setenv("TWISTEDMEDIA_FETCH_ALLOW", text)
        assert parsed()["fetch-allow"] == parsed_rules


def test_an_allow_rule_on_the_command_line_replaces_those_in_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TWISTEDMEDIA_FETCH_ALLOW", "10.0.0.0/8,example.org")
    assert parsed("--fetch-allow", "::1")["fetch-allow"] == (parse_allow_rule("::1"),)
    assert parsed("--fetch-allow", "")["fetch-allow"] == ()


@pytest.mark.parametrize(
    "text", ["10.0.0.0/8,10.0.0.1/8", "example.org;example.com", "a.example b.example", ",*,"]
)
def test_one_invalid_allow_rule_of_several_is_refused(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """Case 41."""
    monkeypatch.setenv("TWISTEDMEDIA_FETCH_ALLOW", text)
    assert_refused("fetch-allow")


def test_options_of_one_run_are_not_in_the_next() -> None:
    assert parsed("--fetch-allow", "::1")["fetch-allow"] == (parse_allow_rule("::1"),)
    assert parsed()["fetch-allow"] == ()


@pytest.mark.parametrize(
    "text", ["http://me:secret@", "http://me:secret@exam ple.org/", "ftp://me:secret@example.org/"]
)
def test_a_refusal_does_not_show_the_password_of_the_upstream(text: str) -> None:
    """Case 42."""
    assert "secret" not in assert_refused("upstream", "--upstream", text)


@pytest.mark.parametrize(
    ("environment", "arguments", "no_fetch"),
    [
        (None, [], False),
        (None, ["--no-fetch"], True),
        ("0", [], False),
        ("1", [], True),
        ("0", ["--no-fetch"], True),
        ("yes", ["--no-fetch"], True),
    ],
)
def test_fetching_is_switched_off_by_a_flag(
    monkeypatch: pytest.MonkeyPatch, environment: str | None, arguments: list[str], no_fetch: bool
) -> None:
    if environment is not None:
        monkeypatch.setenv("TWISTEDMEDIA_NO_FETCH", environment)
    assert parsed(*arguments)["no-fetch"] is no_fetch


@pytest.mark.parametrize("off", ["argument", "environment"])
@pytest.mark.parametrize("upstream", ["argument", "environment"])
def test_an_upstream_that_may_not_be_fetched_is_refused(
    monkeypatch: pytest.MonkeyPatch, off: str, upstream: str
) -> None:
    arguments = []
    for given, option, value in ((off, "no-fetch", "1"), (upstream, "upstream", "http://a.test")):
        if given == "environment":
            monkeypatch.setenv(variable(option), value)
        else:
            arguments += [f"--{option}"] if option == "no-fetch" else [f"--{option}={value}"]
    assert "--upstream" in assert_refused("no-fetch", *arguments)


def test_an_empty_upstream_does_not_contradict_no_fetch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TWISTEDMEDIA_UPSTREAM", "http://example.org/")
    options = parsed("--no-fetch", "--upstream", "")
    assert (options["no-fetch"], options["upstream"]) == (True, None)


# Operating


@pytest.mark.parametrize(
    ("option", "texts"),
    [
        ("listen", ["tcp:8000", "unix:/run/media.sock", "tcp6:8000"]),
        ("trusted-proxy", ["10.0.0.0/8", "::1", "unix"]),
        ("cors-origin", ["https://app.example", "http://localhost:3000"]),
    ],
)
def test_repeatable_options_are_separated_by_commas_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, option: str, texts: list[str]
) -> None:
    parse: dict[str, Callable[[list[str]], Any]] = {
        "listen": tuple,
        "trusted-proxy": parse_proxies,
        "cors-origin": frozenset,
    }
    meant = parse[option](texts)
    assert parsed(*[f"--{option}={text}" for text in texts])[option] == meant
    for text in (",".join(texts), " , ".join(["", *texts, ""])):
        monkeypatch.setenv(variable(option), text)
        assert parsed()[option] == meant
    assert parsed(f"--{option}", texts[0])[option] != meant, "the command line wins"
    assert parsed(f"--{option}", "")[option] == parse[option]([])


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("listen", "tcp:8000,udp:8000"),
        ("trusted-proxy", "unix,localhost"),
        ("listen", "tcp:1,8"),
        ("cors-origin", "https://a.example,*"),
    ],
)
def test_one_invalid_item_of_several_is_named(
    monkeypatch: pytest.MonkeyPatch, option: str, text: str
) -> None:
    monkeypatch.setenv(variable(option), text)
    assert text.rpartition(",")[2] in assert_refused(option)


def test_with_endpoints_the_interface_does_not_need_open() -> None:
    """The addresses of endpoints are known when they listen."""
    options = parsed("--listen", "unix:/run/media.sock", "--interface", "0.0.0.0")
    assert options["listen"] == ("unix:/run/media.sock",)


def test_a_relative_access_log_is_below_the_working_directory_of_the_start(
    monkeypatch: pytest.MonkeyPatch, bare_surroundings: Path
) -> None:
    options = parsed("--access-log", "logs/../access.log")
    monkeypatch.chdir("/")  # as a daemon does
    assert options["access-log"] == str(bare_surroundings / "access.log")


def test_the_defaults_of_timeouts_are_those_of_an_embedded_site() -> None:
    options, timeouts = parsed(), Timeouts()
    assert (options["header-timeout"], options["stall"], options["min-rate"]) == (
        timeouts.header_s,
        timeouts.stall_s,
        timeouts.min_rate,
    )
    assert options["keep-alive"] == timeouts.idle_s


def test_the_defaults_of_shares_are_those_of_embedded_limits() -> None:
    options, limits = parsed(), UploadLimits()
    assert (options["max-imports"], options["busy-rate"]) == (limits.max_imports, limits.busy_rate)


def test_the_defaults_of_resumable_uploads_are_those_of_embedded_ones() -> None:
    options = parsed()
    defaults = inspect.signature(ResumableUploads).parameters
    assert options["upload-expiry"] == defaults["expiry_s"].default
    assert options["max-unfinished"] == defaults["max_unfinished"].default


# The root


def test_a_relative_root_is_below_the_working_directory_of_the_start(
    monkeypatch: pytest.MonkeyPatch, bare_surroundings: Path
) -> None:
    options = parsed("--root", "here/../sounds/")
    monkeypatch.chdir("/")  # as a daemon does
    assert options["root"] == str(bare_surroundings / "sounds")


def test_a_root_that_is_a_folder_is_accepted(bare_surroundings: Path) -> None:
    (bare_surroundings / "sounds").mkdir()
    (bare_surroundings / "link").symlink_to("sounds")
    for root in ("sounds", "link"):
        assert parsed("--root", root)["root"] == str(bare_surroundings / root)


@pytest.mark.parametrize("root", ["file", "link to a file", "dangling link"])
def test_a_root_that_is_not_a_folder_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, bare_surroundings: Path, root: str
) -> None:
    (bare_surroundings / "file").write_bytes(b"")
    (bare_surroundings / "link to a file").symlink_to("file")
    (bare_surroundings / "dangling link").symlink_to("nowhere")
    said = assert_refused("root", "--root", root)
    assert "is not a folder" in said
    assert root in said
    monkeypatch.setenv("TWISTEDMEDIA_ROOT", root)
    assert "is not a folder" in assert_refused("root")


# All options


@pytest.mark.parametrize("arguments", [["--prot", "80"], ["8000"], ["--port"], ["--open=1"]])
def test_an_unknown_option_is_refused_and_the_reason_names_the_help(arguments: list[str]) -> None:
    """Case 80."""
    said = refusal(*arguments)
    assert arguments[0].partition("=")[0] in said
    assert "twistd media --help" in said


@pytest.mark.parametrize("arguments", [["--pro\nt"], ["a\nb"], ["--root", "/a\nb/../etc/passwd"]])
def test_a_reason_is_one_line(arguments: list[str]) -> None:
    """Case 80."""
    refusal(*arguments)


def test_the_help_names_every_option_and_the_environment() -> None:
    text = Options().getUsage()
    for option in [*DEFAULTS, "root", "no-durable"]:
        assert f"--{option}" in text
    assert "TWISTEDMEDIA_MAX_UPLOAD" in text
    assert "[default: ]" not in text
    assert "   " not in Options().docs["listen"]


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parsed("--version")
    assert caught.value.code in (0, None)
    assert capsys.readouterr().out == f"twistedmedia {__version__}\n"
