"""Pages of other sites, in a real browser: they change nothing, whatever they try. Under a name
that leads here by DNS rebinding they do not even read. Pages that are ours may do everything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.live.browser import Browser, browsing
from tests.live.recording import recording
from tests.process.running import Process, eventually, running

pytestmark = pytest.mark.long  # a large program; --quick does not install it

# A name that belongs to somebody else, whose DNS now says that it is this machine.
EVIL = "evil.test"
PAGE = "<!doctype html><meta charset=utf-8><title>a page of another site</title>"
# Where the page of the stranger is, and where it finds the service: another port is another origin,
# though by the rules for cookies the same site; the other pairs are not even that.
PAIRS = [("127.0.0.1", "127.0.0.1"), ("localhost", "127.0.0.1"), ("127.0.0.1", "localhost")]
PAIRS += [(EVIL, "127.0.0.1"), (EVIL, "localhost")]

KEPT = "/media/kept/a.wav"
CONTENT = b"what was there before"

# A form that is filled in as by a user, and sent; its answer is the next page.
_SEND_FORM = """
const [url, enctype, fields] = arguments;
const form = document.createElement('form');
Object.assign(form, {method: 'POST', action: url, enctype});
for (const [name, value] of Object.entries(JSON.parse(fields))) {
    const input = document.createElement('input');
    input.name = name;
    if (enctype === 'multipart/form-data') {
        input.type = 'file';
        const chosen = new DataTransfer();
        chosen.items.add(new File([value], 'a.wav', {type: 'audio/wav'}));
        input.files = chosen.files;
    } else {
        input.type = 'hidden';
        input.value = value;
    }
    form.append(input);
}
document.body.append(form);
form.submit();
"""
# What a script gets to know: the status, `opaque` of an answer that it must not see, or `refused`
# where the browser sends nothing, or does not let it have the answer.
_FETCH = """
const [url, method, mode, content, type, done] = arguments;
const headers = type ? {'Content-Type': type} : {};
fetch(url, {method, mode, headers, body: content || undefined}).then(
    (answer) => done(answer.type === 'opaque' ? 'opaque' : answer.status),
    () => done('refused'));
"""
_XHR = """
const [url, method, content, type, done] = arguments;
const request = new XMLHttpRequest();
request.open(method, url);
if (type) request.setRequestHeader('Content-Type', type);
request.onload = () => done(request.status);
request.onerror = () => done('refused');
request.send(content || null);
"""
_BEACON = """
const [url, content, type] = arguments;
return navigator.sendBeacon(url, new Blob([content], {type}));
"""
_URLENCODED = "application/x-www-form-urlencoded"
_FIELDS = "directory=strange&filename=a.wav&body=x"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One to which the name of the stranger leads here."""
    folder = tmp_path_factory.mktemp("browser")
    with browsing(folder, f"--host-resolver-rules=MAP {EVIL} 127.0.0.1") as browser:
        yield browser


class Guarded:
    """A service whose log says what it was asked, and what it said."""

    def __init__(self, service: Process, log: Path) -> None:
        self.service = service
        self._log = log
        assert service.ask("PUT", KEPT, CONTENT).status == 201

    def asked(self, method: str, status: int, target: str = "/media") -> int:
        """How often it was, under `target`, and said so."""
        lines = self._log.read_text(encoding="ascii")
        return len(re.findall(rf'"{method} {re.escape(target)}\S* HTTP/1\.1" {status} ', lines))

    def said(self, method: str, status: int, before: int) -> None:
        """Wait until it was asked and has said so once more than `before`."""
        eventually(
            f"{method} is answered {status}", lambda: self.asked(method, status) == before + 1
        )

    def assert_untouched(self) -> None:
        """Nothing was stored, replaced or deleted."""
        assert self.service.tree() == ["kept", "kept/a.wav"]
        assert (self.service.root / "kept" / "a.wav").read_bytes() == CONTENT


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    log = folder / "access.log"
    with running(folder / "area" / "media", "--access-log", str(log)) as service:
        yield Guarded(service, log)


@pytest.fixture(params=PAIRS, ids=lambda pair: " to ".join(pair))
def origin(request: pytest.FixtureRequest, browser: Browser, guarded: Guarded) -> Iterator[str]:
    """The browser is on a stranger's page: how that writes the origin of the service."""
    page_host, service_host = request.param
    with recording(guarded.service.port, {"/page": PAGE}) as elsewhere:
        browser.open(f"http://{page_host}:{elsewhere.port}/page")
        yield f"http://{service_host}:{guarded.service.port}"
        browser.open("about:blank")  # no connection of it is left to the page's server


def shown(browser: Browser) -> str:
    """The text of the page, once it is there."""
    text: str = browser.run("return document.body ? document.body.innerText : ''")
    return text


FORMS = {
    "files": ("multipart/form-data", '{"strange": "a file"}'),
    "fields": (_URLENCODED, '{"directory": "strange", "filename": "a.wav", "body": "x"}'),
    "import": (
        _URLENCODED,
        '{"directory": "strange", "filename": "a.wav", "url": "http://127.0.0.1/"}',
    ),
    # A trick by which a form sends JSON.
    "text": (
        "text/plain",
        '{"{\\"directory\\": \\"strange\\", \\"filename\\": \\"a.wav\\", \\"x\\": \\"": "\\"}"}',
    ),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_form_of_a_stranger_stores_nothing(
    browser: Browser, guarded: Guarded, origin: str, form: tuple[str, str]
) -> None:
    before = guarded.asked("POST", 403)
    browser.run(_SEND_FORM, f"{origin}/media", *form)
    eventually("the answer is shown", lambda: '"code"' in shown(browser))
    assert '"code": 403' in shown(browser)
    assert "another site" in shown(browser)
    guarded.said("POST", 403, before)
    guarded.assert_untouched()


# Method, mode, content, type, and what a script gets to know. What the browser sends without asking
# is refused, and the script does not even see that; before anything else it asks, and is not let.
FETCHES = [
    ("POST", "no-cors", _FIELDS, _URLENCODED, "opaque"),
    ("POST", "no-cors", "{}", "text/plain", "opaque"),
    ("POST", "cors", _FIELDS, _URLENCODED, "refused"),
    ("PUT", "no-cors", "x", "", "refused"),
    ("DELETE", "no-cors", "", "", "refused"),
    ("PUT", "cors", "x", "", "refused"),
    ("DELETE", "cors", "", "", "refused"),
    ("POST", "cors", "{}", "application/json", "refused"),
]


@pytest.mark.parametrize(("method", "mode", "content", "kind", "known"), FETCHES)
def test_a_fetch_of_a_stranger_changes_nothing(
    browser: Browser,
    guarded: Guarded,
    origin: str,
    method: str,
    mode: str,
    content: str,
    kind: str,
    known: str,
) -> None:
    url = origin + ("/media" if method == "POST" else KEPT)
    before = guarded.asked("POST", 403)
    assert browser.run(_FETCH, url, method, mode, content, kind, how="async") == known
    if method == "POST" and kind != "application/json":
        guarded.said("POST", 403, before)
    guarded.assert_untouched()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_an_xhr_of_a_stranger_changes_nothing(
    browser: Browser, guarded: Guarded, origin: str, method: str
) -> None:
    url = origin + ("/media" if method == "POST" else KEPT)
    sent = (_FIELDS, _URLENCODED) if method == "POST" else ("x" if method == "PUT" else "", "")
    before = guarded.asked("POST", 403)
    assert browser.run(_XHR, url, method, *sent, how="async") == "refused"
    if method == "POST":
        guarded.said("POST", 403, before)
    guarded.assert_untouched()


def test_a_beacon_of_a_stranger_changes_nothing(
    browser: Browser, guarded: Guarded, origin: str
) -> None:
    before = guarded.asked("POST", 403)
    assert browser.run(_BEACON, f"{origin}/media", _FIELDS, _URLENCODED) is True  # it will be sent
    guarded.said("POST", 403, before)
    guarded.assert_untouched()


@pytest.mark.parametrize("target", [KEPT, "/media/", "/health", "/nowhere"])
def test_under_a_name_that_leads_here_by_rebinding_nothing_is_shown(
    browser: Browser, guarded: Guarded, target: str
) -> None:
    """A stranger's page becomes one of the same origin when its name's address changes."""
    browser.open(f"http://{EVIL}:{guarded.service.port}{target}")
    assert '"code": 403' in shown(browser)
    assert "localhost" in shown(browser)
    # The answer is a document of that origin, and what it runs may do no more.
    for method in ("GET", "PUT", "DELETE", "POST"):
        content = "" if method in ("GET", "DELETE") else "x"
        asked = (KEPT, method, "same-origin", content, "")
        assert browser.run(_FETCH, *asked, how="async") == 403
    guarded.assert_untouched()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "a.localhost"])
def test_an_address_that_a_user_types_is_shown(
    browser: Browser, guarded: Guarded, host: str
) -> None:
    browser.open(f"http://{host}:{guarded.service.port}/media/kept/")
    assert '"name": "a.wav"' in shown(browser)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_page_of_the_same_origin_may_do_everything(
    browser: Browser, guarded: Guarded, host: str
) -> None:
    """Any answer is a document of the service's origin; in it there is a form, and scripts run."""
    own = f"http://{host}:{guarded.service.port}"
    for kind in ("files", "fields"):
        browser.open(f"{own}/health")
        browser.run(_SEND_FORM, f"{own}/media", *FORMS[kind])
        eventually("the answer is shown", lambda: '"files"' in shown(browser))
        assert '"code": 200' in shown(browser)
        removed = guarded.service.ask("DELETE", "/media/strange/a.wav")
        assert removed.json["deleted"] is True
    browser.open(f"{own}/health")
    for method, content, status in (("PUT", "x", 201), ("GET", "", 200), ("DELETE", "", 200)):
        asked = ("/media/own/a.wav", method, "same-origin", content, "")
        assert browser.run(_FETCH, *asked, how="async") == status
    assert browser.run(_XHR, "/media", "POST", _FIELDS, _URLENCODED, how="async") == 201
    assert browser.run(_BEACON, "/media", _FIELDS.replace("a.wav", "b.wav"), _URLENCODED) is True
    stored = ["strange", "strange/a.wav", "strange/b.wav"]
    eventually("both are stored", lambda: guarded.service.tree()[2:] == stored)
    for name in stored[1:]:
        # What a page may do, a program without an Origin may as well.
        assert guarded.service.ask("DELETE", f"/media/{name}").json["deleted"] is True
    guarded.assert_untouched()


def test_what_somebody_stored_runs_nothing_in_the_origin_of_the_service(
    browser: Browser, serve: Callable[..., Process]
) -> None:
    """Case 36: whatever it is named, and whoever opens it; nor does what somebody fetched."""
    service = serve("--fetch-allow", "127.0.0.1")
    own = f"http://127.0.0.1:{service.port}"
    script = "document.title = 'it runs'; fetch('/media/strange/a.wav', {method: 'PUT', body: 'x'})"
    page = f"<!doctype html><title>it does not run</title><script>{script}</script>"
    image = f'<svg xmlns="http://www.w3.org/2000/svg"><script>{script}</script></svg>'
    stored = {"a.wav": page, "b.mp3": page, "c.html": page, "d.svg": image, "e": page}
    (service.root / "kept").mkdir()
    for name, content in stored.items():
        (service.root / "kept" / name).write_text(content, encoding="utf-8")
        browser.open(f"{own}/media/kept/{name}")
        assert browser.run("return document.title") != "it runs", name
    before = service.tree()
    browser.open(f"{own}/fetch?url={own}/media/kept/c.html?%3Cscript%3E{script}%3C/script%3E")
    eventually("it is shown", lambda: "Time Cost" in shown(browser))
    assert browser.run("return document.scripts.length") == 0
    assert service.tree() == before
