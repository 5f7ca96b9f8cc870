"""The results site, built once: its pages as files, then as a browser shows them, served and from disk."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from functools import cache, partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urlparse

import chromium
import pytest

from opd_lib import paths
from opd_lib.judge import register, vocabulary
from opd_lib.records import files as record_files
from opd_lib.records import record

pytest.importorskip("sphinx_book_theme", reason="the site's packages are not installed (extra site)")
from opd_lib.site import build, glossary, notebooks, pages, source

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)").expect
REGISTER = register.load(paths.claims_file("rethinking_opd"))
NOTEBOOKS = notebooks.read()
SEEN = [
    "index", "claims", "figures", "differences", "glossary", "add_a_method", "search",
    *(f"notebooks/{notebook.name}" for notebook in NOTEBOOKS),
    "params/index", "params/claims", "params/04_success_and_failure", "records/index", "records/00_models",
    "records/04_success_and_failure", "code/index", "code/maths/diagnostics", "code/methods/opd",
]  # fmt: skip
"""Of pages that one function makes alike (params, records, code) the browser opens some; all links are followed."""
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


class Links(HTMLParser):
    """What a page links to and loads, and the anchors it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.anchors |= {found["id"]} if found.get("id") else set()
        if tag == "a" and found.get("href"):
            self.targets.append(found["href"] or "")
        loads = found.get("href") if tag == "link" and found.get("rel") in ("stylesheet", "icon") else found.get("src")
        if loads:
            self.loaded.append(loads)


@cache
def read(path: Path) -> Links:
    return Links(path.read_text(encoding="utf-8"))


def pages_of(site: Path) -> list[Path]:
    """Every page; the theme's own folder holds templates, too."""
    return sorted(path for path in site.rglob("*.html") if "_static" not in path.parts)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build.build(tmp_path_factory.mktemp("site") / "pages", source.committed()).parent


def test_every_link_and_anchor_within_the_site_leads_somewhere(site: Path) -> None:
    broken = []
    for page in pages_of(site):
        links = read(page)
        for target in [*links.targets, *links.loaded]:
            address, anchor = urldefrag(target)
            if urlparse(address).scheme:
                continue
            there = (page.parent / unquote(address.partition("?")[0])).resolve() if address else page
            if not there.is_file() or (anchor and there.suffix == ".html" and anchor not in read(there).anchors):
                broken.append(f"{page.relative_to(site)}: {target}")
    assert broken == []


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for page in pages_of(site):
        assert [loaded for loaded in read(page).loaded if urlparse(loaded).scheme not in ("", "data")] == []
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), style


def test_every_claim_has_its_verdict_and_leads_to_all_it_rests_on(site: Path) -> None:
    text, judged = (site / "claims.html").read_text(encoding="utf-8"), source.read().set_index("id")
    rows = dict(re.findall(r'<tr id="(\w+)" class="claim"[^>]*>(.*?)</tr>', text, re.DOTALL))
    assert list(rows) == [claim.id for claim in sorted(REGISTER.claims, key=lambda c: c.notebook)]
    for claim in REGISTER.claims:
        row = rows[claim.id]
        assert f">{judged.loc[claim.id, 'verdict']}</span>" in row
        targets = Links(row).targets
        for begin in ("notebooks/", "params/", "records/", "code/", f"tables/{claim.notebook}/verdicts.csv"):
            assert any(target.startswith(begin) for target in targets), f"{claim.id}: no link to {begin}"
        drawn = [target for target in targets if target.startswith("figures/")]
        assert drawn or not re.search(r"(^|, )\d+", claim.figure), f"{claim.id}: no drawing of figure {claim.figure}"
        for name, _ in vocabulary.calls(claim.quantity):
            assert name in vocabulary.ARITHMETIC or f"glossary.html#f-{name.replace('_', '-')}" in targets


def test_every_notebook_and_every_committed_figure_is_shown(site: Path) -> None:
    for path in paths.NOTEBOOKS.glob("[0-9]*.ipynb"):
        assert (site / "notebooks" / f"{path.stem}.html").is_file()
    gallery = (site / "figures.html").read_text(encoding="utf-8")
    for svg in notebooks.COMMITTED.glob("*/figures/*.svg"):
        address = f"figures/{svg.parents[1].name}/{svg.name}"
        assert f'href="{address}"' in gallery and (site / address).read_bytes() == svg.read_bytes()
        assert address in (site / "notebooks" / f"{svg.parents[1].name}.html").read_text(encoding="utf-8")


def test_the_differences_are_those_of_notebooks_and_docstrings(site: Path) -> None:
    text = (site / "differences.html").read_text(encoding="utf-8")
    told = pages.differing()
    assert set(told) >= {"opd_lib/methods/opd.py", "opd_lib/methods/grpo.py", "opd_lib/tasks/graders.py"}
    assert told["opd_lib/methods/grpo.py"].startswith("Differs: no ratio and no clipping")
    assert all(f"code/{name.removeprefix('opd_lib/').removesuffix('.py')}.html" in text for name in told)
    with_section = [notebook for notebook in NOTEBOOKS if "## Differences from the paper" in notebook.path.read_text()]
    assert len(with_section) >= 12
    assert all(f"notebooks/{notebook.name}.html" in text for notebook in with_section)


@pytest.mark.parametrize("table", record.TABLES)
def test_the_glossary_has_every_column_with_a_range_that_the_records_keep(table: str) -> None:
    found = 0
    for run in (run for run in record_files.runs(notebooks.COMMITTED) if run.name == "seed0"):
        present = record.read(run)
        assert present is not None
        frame = present.frame(table)
        for column in [name for name in frame.columns if name not in glossary.KEYS]:
            metric = glossary.TABLES[table][glossary.AT_K.sub("", column)]
            values = frame[column].dropna()
            slack = 1e-6  # of sums in float32
            assert values.between(metric.low - slack, metric.high + slack).all(), f"{run}: {column}"
            found += len(values)
    assert found > 100


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(ValueError, match=r"holds files that are no site; name an empty folder with --output"):
        build.build(tmp_path, source.committed())
    assert (tmp_path / "mine.txt").read_text() == "kept"


def test_a_file_is_no_folder_for_a_site(tmp_path: Path) -> None:
    (tmp_path / "site").write_text("kept")
    with pytest.raises(ValueError, match=r"--output .*site: .*site is a file; name a folder"):
        build.build(tmp_path / "site", source.committed())


# What follows is seen by a browser.


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page; whatever it complains of, cannot load or asks of another origin fails the test."""
    context = browser.new_context(viewport=DESK)
    opened, wrong = context.new_page(), []
    opened.set_default_timeout(120_000)
    own = ("http://127.0.0.1:", "file://", "data:", "blob:")
    opened.on("console", lambda m: wrong.append(f"{opened.url}: {m.text}") if m.type in ("error", "warning") else None)
    opened.on("pageerror", lambda error: wrong.append(f"{opened.url}: {error}"))
    opened.on("request", lambda r: None if r.url.startswith(own) else wrong.append(f"{opened.url}: asks {r.url}"))
    aborted = "net::ERR_ABORTED"  # what was still loading when the page was left
    opened.on(
        "requestfailed", lambda r: None if r.failure == aborted else wrong.append(f"{opened.url}: {r.url} failed")
    )
    opened.on("response", lambda r: wrong.append(f"{r.url}: {r.status}") if r.status >= 400 else None)
    yield opened
    context.close()
    assert wrong == []


def check_renders(page: Any, url: str) -> None:
    """A heading, every picture, no formula left as text, no wider than the screen at a desk and on a phone."""
    page.goto(url)
    assert page.locator("h1").first.inner_text().strip(), url
    pictures = page.evaluate(
        """() => Promise.all([...document.images].map(async (image) => {
            image.loading = "eager";
            await image.decode().catch(() => null);
            return [image.currentSrc, image.naturalWidth, image.alt !== null];
        }))"""
    )
    assert [source for source, width, _ in pictures if not width] == [], url
    assert page.locator("merror, .MathJax, .math:has-text('\\\\')").count() == 0, url
    for size in (PHONE, DESK):
        page.set_viewport_size(size)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= size["width"], f"{url}: {width} px wide on a screen of {size['width']}"


@pytest.mark.browser
@pytest.mark.parametrize("name", SEEN)
def test_a_page_renders_on_a_desk_and_on_a_phone(name: str, page: Any, address: str) -> None:
    check_renders(page, f"{address}/{name}.html")


@pytest.mark.browser
@pytest.mark.parametrize("name", ["index", "claims", "notebooks/04_success_and_failure"])
def test_a_page_renders_from_disk(name: str, page: Any, site: Path) -> None:
    check_renders(page, (site / f"{name}.html").as_uri())


SIZES = {"desk": {"width": 1366, "height": 768}, "tablet": {"width": 800, "height": 1000}, "phone": PHONE}


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["claims", "notebooks/04_success_and_failure"])
def test_verdicts_are_on_the_screen_and_legible(
    name: str, size: str, scheme: str, page: Any, address: str, tmp_path: Path
) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size(SIZES[size])
    page.goto(f"{address}/{name}.html")
    found = page.evaluate(chromium.BADGES, "main .verdict")
    page.screenshot(path=str(tmp_path / f"{size}-{scheme}.png"))
    assert len(found) >= 20, "the page shows its verdicts"
    assert [word for word, contrast, _ in found if contrast < 4.5] == []
    assert [word for word, _, in_view in found if not in_view] == []
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)")
    assert (max(paper) < 80) == (scheme == "dark")


@pytest.mark.browser
@pytest.mark.parametrize("from_disk", [False, True], ids=["served", "from disk"])
def test_a_search_finds_the_glossary(from_disk: bool, page: Any, site: Path, address: str) -> None:
    start = (site / "search.html").as_uri() if from_disk else f"{address}/search.html"
    page.goto(f"{start}?q=overlap")
    found = page.locator("#search-results li a")
    found.first.wait_for()
    page.wait_for_function("document.querySelectorAll('#search-results li a[href*=glossary]').length > 0")
    assert page.locator("#search-results li a[href*=glossary]").first.inner_text().strip()


@pytest.mark.browser
def test_the_first_page_shows_its_figure_with_its_own_caption(page: Any, address: str) -> None:
    page.goto(f"{address}/index.html")
    shown, caption = page.locator("figure").first.locator("img"), page.locator("figure figcaption").first
    folder, name = pages.SHOWN_FIRST
    assert name in (shown.get_attribute("src") or "")
    (figure,) = [
        each for notebook in NOTEBOOKS for each in notebook.figures if (each.notebook, each.name) == (folder, name)
    ]
    assert caption.inner_text().startswith(figure.heading)


def tab_to(page: Any, selector: str, presses: int = 150) -> None:
    """Press Tab until an element that the selector names has the focus."""
    for _ in range(presses):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"{selector}: not reached by {presses} presses of Tab")


@pytest.mark.browser
def test_the_claims_are_read_by_keyboard(page: Any, address: str) -> None:
    page.goto(f"{address}/claims.html")
    held = int(source.read()["verdict"].value_counts()["does not hold"])
    tab_to(page, ".filters button[data-verdict=fails]")
    page.keyboard.press("Enter")
    expect(page.locator("tr.claim:visible")).to_have_count(held)
    tab_to(page, ".scroll")
    tab_to(page, "tr.claim a.zoom")
    page.keyboard.press("Enter")
    expect(page.locator("dialog.enlarged[open] img")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(page.locator("dialog.enlarged")).to_have_count(0)  # it goes a moment after it is closed
    assert page.evaluate("document.activeElement.matches('tr.claim a.zoom')")
    tab_to(page, "tr.claim summary")
    page.keyboard.press("Enter")
    expect(page.locator("tr.claim details[open] dl")).to_be_visible()
    assert page.locator("tr.claim details[open] code").first.inner_text()


@pytest.mark.browser
def test_the_claims_are_sorted_and_put_back(page: Any, address: str) -> None:
    page.goto(f"{address}/claims.html")
    ids = "[...document.querySelectorAll('tr.claim')].filter(row => row.offsetHeight).map(row => row.id)"
    before, judged = page.evaluate(ids), source.read().set_index("id")
    order = ["holds", "does not hold", "inconclusive", "not run"]
    page.get_by_role("button", name="Verdict").click()
    ranks = [order.index(judged.loc[name, "verdict"]) for name in page.evaluate(ids)]
    assert ranks == sorted(ranks) and len(ranks) == len(before)
    page.get_by_role("button", name="Ours").click()
    page.get_by_role("button", name="Ours").click()
    estimates = judged.loc[page.evaluate(ids), "estimate"].dropna().round(3)
    assert estimates.is_monotonic_decreasing
    assert page.locator("th[aria-sort=descending]").inner_text().startswith("Ours")
    page.locator(".filters button[data-verdict=fails]").click()
    page.get_by_role("button", name="Ours").click()
    assert page.evaluate(ids) == [name for name in before if judged.loc[name, "verdict"] == "does not hold"]
    page.locator(".filters button[data-verdict=fails]").click()
    assert page.evaluate(ids) == before


@pytest.mark.browser
def test_a_figure_is_enlarged_and_zoomed(page: Any, address: str) -> None:
    page.goto(f"{address}/notebooks/04_success_and_failure.html")
    page.locator("a.zoom").first.click()
    picture = page.locator("dialog.enlarged img")
    picture.evaluate("image => image.decode()")
    page.wait_for_function("document.querySelector('dialog.enlarged img').clientWidth > 600")
    before = picture.evaluate("image => image.clientWidth")
    page.get_by_role("button", name="larger").click()
    assert picture.evaluate("image => image.clientWidth") == pytest.approx(1.4 * before, rel=0.02)
    page.get_by_role("button", name="close").click()
    expect(page.locator("dialog.enlarged")).to_have_count(0)


@pytest.mark.browser
def test_the_token_explorer_is_moved_by_keyboard(page: Any, site: Path, address: str) -> None:
    made = [path for path in sorted((site / "notebooks").glob("*.html")) if "data-opd-tokens" in path.read_text()]
    if not made:
        pytest.skip("no committed notebook has a token explorer yet")
    page.goto(f"{address}/notebooks/{made[0].name}")
    explorer = page.locator("[data-opd-tokens]").first
    explorer.scroll_into_view_if_needed()
    token = explorer.locator("[role=option][aria-selected=true]").first
    token.wait_for()
    tab_to(page, "[data-opd-tokens]", presses=300)
    first = token.get_attribute("aria-label")
    explorer.locator("[role=option][tabindex='0']").first.focus()
    page.keyboard.press("ArrowRight")
    expect(token).not_to_have_attribute("aria-label", first)
