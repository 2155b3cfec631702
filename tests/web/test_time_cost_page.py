"""The page of a fetch: its content, and that values are only shown as text."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twistedmedia.fetch.cache import FetchOutcome, Origin
from twistedmedia.fetch.timings import Timings
from twistedmedia.web.time_cost_page import PAGE_POLICY, time_cost_page

WHOLE = Timings(redirect=0.5, lookup=0.75, connect=1.0, tls=1.5, first_byte=3.0, total=3.25)
KEPT = Timings(first_byte=0.1031, total=0.1043)

LABELS = ["Redirects", "Look-up", "Connection", "TLS", "Waiting", "Content"]


class Page(HTMLParser):
    """A page as a browser parses it."""

    def __init__(self, outcome: FetchOutcome) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}  # by the path of their element
        self.declarations: list[str] = []
        self._open: list[str] = []
        self.feed(time_cost_page(outcome).decode("utf-8"))
        self.close()
        assert self._open == [], "an element is left open"

    def handle_decl(self, decl: str) -> None:
        self.declarations.append(decl)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            kind = dict(attrs).get("class")
            self._open.append(tag if kind is None else f"{tag}.{kind}")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().partition(".")[0] == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.setdefault(" ".join(self._open), []).append(data)

    @property
    def bar(self) -> list[tuple[float, float]]:
        """The start and the width of each part of the bar."""
        return [
            (float(attributes["x"] or ""), float(attributes["width"] or ""))
            for tag, attributes in self.tags
            if tag == "rect" and "x" in attributes
        ]


def outcome(
    url: str = "http://example.org/",
    timings: Timings = KEPT,
    origin: Origin = Origin.MISS,
    status: int = 200,
    size: int = 5120,
) -> FetchOutcome:
    return FetchOutcome(url, status, size, timings, origin)


TAGS = [tag for tag, _ in Page(outcome(timings=WHOLE)).tags]

HOSTILE = {
    "a script": "http://example.org/<script>alert(1)</script>",
    "the end of the title": "http://example.org/</title><script>alert(1)</script>",
    "the end of the style": "http://example.org/</style><img src=x onerror=alert(1)>",
    "a comment": "http://example.org/<!-- -->",
    "an attribute": "http://example.org/\" onload=\"alert(1)' onload='alert(1)",
    "a reference": "http://example.org/?a=1&lt=2&amp;lt;b&#60;c",
    "braces": "http://example.org/{_STYLE}%s{0}",
    "right to left": "http://example.org/\u202e\u2066",
}


@pytest.mark.parametrize("url", HOSTILE.values(), ids=HOSTILE)
def test_any_url_is_shown_as_text(url: str) -> None:
    """Cases 35 and 36."""
    page = Page(outcome(url, WHOLE))
    assert page.texts["html body p.what"][0] == url
    assert [tag for tag, _ in page.tags] == TAGS


@settings(max_examples=150)
@given(st.text(st.characters(codec="utf-8")) | st.text(st.sampled_from("<>&\"'/!-a#;={}% ")))
def test_any_url_adds_no_element_to_the_page(url: str) -> None:
    """Cases 35 and 36."""
    begun = "http://example.org/"
    page = Page(outcome(begun + url, WHOLE))
    assert page.texts["html body p.what"][0] == begun + url
    assert [tag for tag, _ in page.tags] == TAGS


def test_the_page_has_no_scripts_and_loads_nothing() -> None:
    """Case 36."""
    page = Page(outcome(timings=WHOLE))
    assert page.declarations == ["DOCTYPE html"]
    assert not {tag for tag, _ in page.tags} & {
        *("script", "link", "img", "iframe", "object", "embed", "base", "form", "a", "use")
    }
    for _, attributes in page.tags:
        assert not {"style", "src", "href", "srcset", "action", "http-equiv"} & set(attributes)
        assert not [name for name in attributes if name.startswith("on")]
    (style,) = page.texts["html head style"]
    assert "url(" not in style
    assert "@import" not in style


def test_the_policy_allows_the_style_of_the_page_and_nothing_else() -> None:
    (style,) = re.findall(rb"<style>(.*?)</style>", time_cost_page(outcome()), re.DOTALL)
    digest = b64encode(sha256(style).digest()).decode()
    directives = dict(part.strip().split(" ", 1) for part in PAGE_POLICY.split(";"))
    assert directives.pop("style-src") == f"'sha256-{digest}'"
    assert directives == {
        "default-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert PAGE_POLICY.isascii()
    assert PAGE_POLICY.isprintable()


def test_the_page_is_headed_time_cost_and_declares_language_and_charset() -> None:
    page = Page(outcome())
    assert page.texts["html body h1"] == ["Time Cost"]
    assert page.texts["html head title"] == ["Time Cost: 104.3 ms"]
    assert ("html", {"lang": "en"}) in page.tags
    assert ("meta", {"charset": "utf-8"}) in page.tags


@pytest.mark.parametrize(
    ("total", "number", "unit"),
    [
        (0.0, "0.0", "ms"),
        (0.00004, "0.0", "ms"),
        (0.00123, "1.2", "ms"),
        (0.1043, "104.3", "ms"),
        (0.9999, "999.9", "ms"),
        (1.0, "1.00", "s"),
        (1.239, "1.24", "s"),
        (30.0, "30.00", "s"),
    ],
)
def test_the_cost_is_the_largest_text_on_the_page(total: float, number: str, unit: str) -> None:
    page = Page(outcome(timings=Timings(total=total)))
    assert page.texts["html body p.cost"] == [f"{number} "]
    assert page.texts["html body p.cost small"] == [unit]
    assert page.texts["html head title"] == [f"Time Cost: {number} {unit}"]


@pytest.mark.parametrize(
    ("origin", "words"),
    [
        (Origin.MISS, "fetched for you"),
        (Origin.HIT, "from memory, still fresh"),
        (Origin.SHARED, "shared with others who asked at the same time"),
    ],
)
@pytest.mark.parametrize(
    ("status", "size", "shown"),
    [(200, 5120, "5,120"), (404, 0, "0"), (200, 1 << 32, "4,294,967,296")],
)
def test_the_page_shows_status_size_and_origin(
    origin: Origin, words: str, status: int, size: int, shown: str
) -> None:
    page = Page(outcome(origin=origin, status=status, size=size))
    assert page.texts["html body p.what"][-1] == f"{status} · {shown} bytes · {words}"


def test_every_origin_has_a_text() -> None:
    assert (
        len({Page(outcome(origin=origin)).texts["html body p.what"][-1] for origin in Origin}) == 3
    )


@pytest.mark.parametrize(
    ("timings", "rows"),
    [
        (
            WHOLE,
            [
                ("Redirects", "500.0 ms"),
                ("Look-up", "250.0 ms"),
                ("Connection", "250.0 ms"),
                ("TLS", "500.0 ms"),
                ("Waiting", "1.50 s"),
                ("Content", "250.0 ms"),
            ],
        ),
        (Timings(first_byte=0.25, total=1.5), [("Waiting", "250.0 ms"), ("Content", "1.25 s")]),
        (Timings(), [("Content", "0.0 ms")]),
    ],
)
def test_the_table_and_the_bar_have_each_phase_that_took_place(
    timings: Timings, rows: list[tuple[str, str]]
) -> None:
    page = Page(outcome(timings=timings))
    labels, costs = page.texts["html body table tr th"], page.texts["html body table tr td"]
    assert list(zip(labels, costs, strict=True)) == rows
    titles = page.texts["html body svg rect title"]
    assert titles == [f"{label}: {cost}" for label, cost in rows]


def test_a_phase_has_one_colour_in_the_bar_and_in_the_table_and_no_other_has_it() -> None:
    page = Page(outcome(timings=WHOLE))
    colours = [attributes["fill"] for tag, attributes in page.tags if tag == "rect"]
    assert colours[:6] == colours[6:]
    assert len(set(colours)) == len(LABELS)


def test_the_bar_is_as_wide_as_its_drawing_and_each_part_as_its_share() -> None:
    page = Page(outcome(timings=Timings(lookup=0.25, connect=0.5, first_byte=1.5, total=2.0)))
    assert page.bar == [(0.0, 80.0), (80.0, 80.0), (160.0, 320.0), (480.0, 160.0)]
    assert [
        attributes["viewbox"] for tag, attributes in page.tags if attributes.get("role") == "img"
    ] == ["0 0 640 28"]


def test_the_bar_of_a_fetch_that_took_no_time_is_empty() -> None:
    assert Page(outcome(timings=Timings(lookup=0.0, total=0.0))).bar == [(0.0, 0.0), (0.0, 0.0)]


ends = st.lists(st.floats(1e-6, 1e4), min_size=6, max_size=6).map(sorted)


@settings(max_examples=100)
@given(ends, st.lists(st.booleans(), min_size=5, max_size=5))
def test_the_widths_of_the_bar_add_up_and_leave_no_gap(
    ends: list[float], took_place: list[bool]
) -> None:
    phases = [end if took else None for end, took in zip(ends, took_place, strict=False)]
    bar = Page(outcome(timings=Timings(*phases, total=ends[-1]))).bar
    rounding = 0.011
    assert sum(width for _, width in bar) == pytest.approx(640, abs=len(bar) * rounding)
    at = 0.0
    for x, width in bar:
        assert x == pytest.approx(at, abs=rounding)
        at = x + width
