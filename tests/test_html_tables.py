"""Tables as a notebook shows them: HTML beside text, the verdict first, readable in light and dark and on a phone."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chromium
import pandas as pd
import pytest
from test_captions import REGISTER, verdicts
from test_explore import contrast

from opd_lib import params, paths
from opd_lib.judge.claims import HOLDS, NOT_RUN
from opd_lib.report import badges, html_tables, tables
from opd_lib.report.outputs import WIDE, Outputs
from opd_lib.site import claims as site
from opd_lib.site import source

NOTEBOOK = "05_overlap_tokens"
SITE_STYLE = paths.ROOT / "opd_lib" / "site" / "static" / "site.css"


@pytest.fixture
def shell() -> Iterator[Any]:
    """A real IPython shell, in which this process is until the test ends."""
    from IPython.core.interactiveshell import InteractiveShell

    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()


def shown(shell: Any, cell: str, **names: object) -> Any:
    """What a cell prints and displays."""
    from IPython.utils.capture import capture_output

    shell.push(names)
    with capture_output() as captured:
        shell.run_cell(cell).raise_error()
    return captured


def rows(html: str) -> list[str]:
    return re.findall(r"<tr><td.*?</tr>", html, re.DOTALL)


def test_each_row_has_the_verdict_first_then_the_claim_and_its_interval() -> None:
    found = verdicts(NOTEBOOK)
    made = rows(html_tables.verdicts(found))
    assert len(made) == len(found.judged) > 2
    for row, (_, judged) in zip(made, found.judged.iterrows(), strict=True):
        cells = re.findall(r"<td.*?>(.*?)</td>", row, re.DOTALL)
        assert re.sub("<.*?>", "", cells[0]).startswith(judged["verdict"])
        assert cells[1].startswith(f"<b>{judged['id']}</b>") and judged["paper"][:8] in cells[2]
        assert row.count("<svg") == 1 and 'class="bound"' in cells[3] and 'class="claimed"' in cells[3]
        assert cells[3].startswith(tables.number(judged["estimate"], tables.places(judged["estimate"])))


def test_an_interval_that_is_not_known_is_not_drawn() -> None:
    made = html_tables.verdicts(verdicts(NOTEBOOK, low=math.nan, high=math.nan, verdict=NOT_RUN))
    assert "<svg" not in made and made.count(f">{NOT_RUN}</span>") == len(rows(made))


def test_the_mark_of_an_absent_precondition_stands_below_the_verdict() -> None:
    mark = '<div class="mark">'
    assert mark not in html_tables.verdicts(verdicts(NOTEBOOK, precondition=math.nan))
    for row in rows(html_tables.verdicts(verdicts(NOTEBOOK, precondition="precondition absent: P3"))):
        assert row.index('class="verdict') < row.index(f"{mark}precondition absent: P3") < row.index("<b>")
    row = rows(html_tables.verdicts(verdicts(NOTEBOOK, verdict="not part of profile x: none is public")))[0]
    assert '>not part of profile x</span><div class="mark">none is public</div>' in row


def test_text_is_escaped() -> None:
    sign = "a <b & 'c'"
    columns = dict.fromkeys(("statement", "paper", "threshold", "precondition", "figure", "verdict"), sign)
    made = html_tables.verdicts(verdicts(NOTEBOOK, **columns))
    assert sign not in made and made.count("a &lt;b &amp; &#x27;c&#x27;") >= 6 * len(rows(made))
    made = html_tables.plain(pd.DataFrame({"<i>": ["<script>\nx"], "n": [math.nan]}))
    assert ">&lt;i&gt;</th>" in made and ">&lt;script&gt; x</td>" in made and f">{tables.MISSING}<" in made


def test_the_drawing_follows_the_text_and_shades_the_claimed_side() -> None:
    claim = {claim.id: claim for claim in REGISTER.claims}["C5a"]
    row = pd.Series({"estimate": 0.3, "low": 0.1, "high": 0.5, "threshold": claim.asked("tiny")})
    drawn = badges.interval(row, claim, "tiny")
    assert "[0.100, 0.500]" in drawn and drawn == badges.interval(row.replace(0.5, 0.5000004), claim, "tiny")
    start, width = map(float, re.findall(r'<rect class="claimed" x="([\d.]+)" y="2" width="([\d.]+)"', drawn)[0])
    (bound,) = map(float, re.findall(r'class="bound" x1="([\d.]+)"', drawn))
    low, high = map(float, re.findall(r'class="range" x1="([\d.]+)" x2="([\d.]+)"', drawn)[0])
    assert low < high and (start, start + width) == ((bound, badges.WIDTH) if claim.comparison == ">" else (0, bound))
    assert badges.interval(row.replace(0.1, math.nan), claim, "tiny") == ""


def test_the_site_has_the_same_drawing() -> None:
    judged, text = source.read().set_index("id"), Path(site.__file__).read_text(encoding="utf-8")
    claim = REGISTER.of(NOTEBOOK)[0]
    row = site._row(claim, judged.loc[claim.id], params.load(NOTEBOOK), source.committed())
    assert badges.interval(judged.loc[claim.id], claim, "tiny") in row and "<svg" in row and "<svg" not in text
    for part in ("claimed", "bound", "range"):
        assert f".opd-interval .{part}" in SITE_STYLE.read_text(encoding="utf-8")


def test_in_ipython_text_and_html_are_one_output(shell: Any, tmp_path: Path) -> None:
    found = verdicts(NOTEBOOK)
    captured = shown(shell, "outputs.verdicts()", outputs=Outputs(tmp_path, judge=lambda: found))
    (output,) = captured.outputs
    assert output.data == {
        "text/plain": tables.show(tables.verdict_table(found.judged)),
        "text/html": html_tables.verdicts(found),
    }
    assert captured.stdout.strip().startswith("The claims were written down before the runs")


def test_only_a_wide_table_becomes_html(shell: Any, tmp_path: Path) -> None:
    narrow = pd.DataFrame({"arm": ["success"], "text": ["x" * (WIDE - 20)]})
    wide = narrow.assign(more="y" * 30)
    captured = shown(shell, "outputs.table('narrow', narrow)", outputs=Outputs(tmp_path), narrow=narrow)
    assert not captured.outputs and captured.stdout == f"{tables.show(narrow)}\n"
    captured = shown(shell, "outputs.table('wide', wide)", outputs=Outputs(tmp_path), wide=wide)
    assert captured.stdout == "" and captured.outputs[0].data["text/plain"] == tables.show(wide)
    assert captured.outputs[0].data["text/html"] == html_tables.plain(wide)
    assert (tmp_path / "tables" / "wide.csv").exists()


def test_without_ipython_the_text_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = verdicts(NOTEBOOK)
    Outputs(tmp_path, judge=lambda: found).verdicts()
    printed = capsys.readouterr().out
    assert printed.startswith(tables.show(tables.verdict_table(found.judged))) and "<" not in printed.replace("< ", "")


def test_a_verdict_is_readable_on_its_colour_here_and_on_the_site() -> None:
    pairs = {pair for kind in html_tables.PALETTE.values() for pair in kind}
    css = SITE_STYLE.read_text(encoding="utf-8")
    pairs |= set(re.findall(r"--(?:holds|fails|open): (#\w+); --(?:holds|fails|open)-soft: (#\w+)", css))
    assert len(pairs) == 6, "the site has the colours of the notebooks"
    assert min(contrast(*map(decimal, pair)) for pair in pairs) >= 4.5
    assert set(badges.KINDS.values()) == html_tables.PALETTE.keys() and badges.kind(HOLDS) == "holds"


def decimal(colour: str) -> str:
    return " ".join(str(int(colour[place : place + 2], 16)) for place in (1, 3, 5))


@pytest.fixture
def page() -> Iterator[Any]:
    with chromium.started() as browser:
        yield browser.new_page()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_verdicts_fit_and_are_readable(page: Any, scheme: str) -> None:
    found = verdicts(NOTEBOOK, precondition="precondition absent: P3")
    paper, ink, theme = ("#fff", "#000", "true") if scheme == "light" else ("#111", "#fff", "false")
    page.emulate_media(color_scheme="dark" if scheme == "light" else "light")  # JupyterLab's theme is what counts
    page.set_content(
        f'<meta name="viewport" content="width=device-width"><body data-jp-theme-light="{theme}" '
        f'style="background: {paper}; color: {ink}">{html_tables.verdicts(found)}'
    )
    for width, places in ((800, 4), (360, 1)):
        page.set_viewport_size({"width": width, "height": 700})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        starts = (
            page.locator("tbody tr")
            .first.locator("td")
            .evaluate_all("all => all.map(cell => cell.getBoundingClientRect().left)")
        )
        assert len(set(starts)) == places, f"at {width} px"
    colours = page.locator(".verdict").evaluate_all(
        "all => all.map(e => getComputedStyle(e)).map(s => [s.color, s.backgroundColor])"
    )
    assert min(contrast(*pair) for pair in colours) >= 4.5
    dark = {decimal(behind) for _, (_, behind) in html_tables.PALETTE.values()}
    assert {" ".join(re.findall(r"\d+", behind)) in dark for _, behind in colours} == {scheme == "dark"}
