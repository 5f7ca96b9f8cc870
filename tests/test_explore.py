"""The token explorer: what it embeds is what the records say, and what it shows in a browser is what it embeds."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kept
import pytest

from opd_lib import paths
from opd_lib.records.record import RunRecord
from opd_lib.report import embedded, explore, token_quantities
from opd_lib.report.explore import Explorer

STEPS = (0, 20, 40)
CELL_BYTES = 100_000
"""How large a cell's output may be in a committed notebook."""


@pytest.fixture
def runs(tmp_path: Path) -> list[RunRecord]:
    """Two arms with one teacher each, and the same two of another seed that kept nothing."""
    kept_rows = {"success": kept.rows(1), "failure": kept.rows(2)}
    first = [kept.record(tmp_path, arm, rows) for arm, rows in kept_rows.items()]
    return [kept.record(tmp_path, arm, None, seed=1) for arm in kept_rows] + first


def close(whole: list[int], asked: list[float]) -> bool:
    """Numbers in parts of PARTS are those of the record."""
    return len(whole) == len(asked) and all(
        abs(a / embedded.PARTS - b) <= 0.501 / embedded.PARTS for a, b in zip(whole, asked, strict=True)
    )


def test_what_is_embedded_is_what_the_records_say(runs: list[RunRecord]) -> None:
    content = kept.unpacked(explore.tokens(runs, ["success", "failure"]).html)
    keys = [each["key"] for each in content["quantities"]]
    by_place = {(row["run"], row["problem"], row["step"]): row for row in content["rows"]}
    assert len(by_place) == len(content["rows"]) == 2 * len(STEPS) * len(kept.SETS)
    for number, record in enumerate(runs[2:]):
        for row in record.tokens():
            found = by_place[number, kept.SETS.index(row["test_set"]), STEPS.index(row["step"])]
            word = content["words"].__getitem__
            assert [word(i) for i in found["tokens"]] == row["tokens"]
            assert [[word(i) for i in places] for places in found["top"]] == row["top"]
            assert (found["reward"], found["finished"]) == (row["reward"], row["finished"])
            for key in ("overlap", "advantage", "reverse_kl", "student_logp", "teacher_entropy"):
                assert close(found["values"][keys.index(key)], row[key]), key
            for place, lists in enumerate(zip(row["top_student"], row["top_teacher"], strict=True)):
                assert close(found["student"][place], lists[0]) and close(found["teacher"][place], lists[1])


def test_derived_quantities_are_computed_from_the_record(runs: list[RunRecord]) -> None:
    row = runs[2].tokens()[4]
    gaps = token_quantities.column(row, "entropy_gap")
    leads = token_quantities.column(row, "teacher_minus_student")
    assert gaps and leads and len(gaps) == len(row["tokens"])
    for t, (gap, lead) in enumerate(zip(gaps, leads, strict=True)):
        assert gap == pytest.approx(abs(row["teacher_entropy"][t] - row["student_entropy"][t]), abs=1e-9)
        assert lead == pytest.approx(row["teacher_logp"][t] - row["student_logp"][t], abs=1e-9)
    assert min(leads) < 0 < max(leads)


def test_an_unknown_number_stays_unknown(tmp_path: Path) -> None:
    rows = kept.rows(1, steps=(0,))
    rows[0]["teacher_entropy"][3] = None
    content = kept.unpacked(explore.tokens([kept.record(tmp_path, "a", rows)]).html)
    keys = [each["key"] for each in content["quantities"]]
    for key in ("teacher_entropy", "entropy_gap"):
        assert [v is None for v in content["rows"][0]["values"][keys.index(key)]] == [t == 3 for t in range(30)]


def test_any_list_of_a_number_per_token_may_colour(tmp_path: Path) -> None:
    rows = [row | {"pull": [-0.5] * len(row["tokens"])} for row in kept.plant_coherence(kept.rows(1))]
    content = explore.tokens([kept.record(tmp_path, "a", rows)], quantity="pull").content
    found = {each["key"]: each for each in content["quantities"]}
    assert found["pull"]["signed"] and found["coherence"]["signed"] and found["coherence"]["worst"] == "low"
    assert list(found)[content["first"]["quantity"]] == "pull"
    assert not {"top", "tokens", "step"} & set(found)


def test_colours_reach_what_nearly_all_tokens_keep() -> None:
    rows = [{"tokens": ["x"] * 100, "advantage": [0.3] * 99 + [50.0]}, {"tokens": ["x"] * 2, "overlap": [0.25, 1.0]}]
    known = {each.key: each for each in token_quantities.known(rows)}
    assert list(known) == ["overlap", "advantage"]
    assert token_quantities.extent(known["advantage"], rows) == 0.5
    assert token_quantities.extent(known["overlap"], rows) == 1.0
    assert token_quantities.extent(known["overlap"], rows[:1]) == 1.0


def test_the_worst_tokens_are_those_furthest_from_rest(runs: list[RunRecord]) -> None:
    found = token_quantities.worst(runs, n=4, step=20)
    assert list(found["arm"]) == ["success"] * 4 + ["failure"] * 4 and set(found["step"]) == {20}
    rows = [row for row in runs[3].tokens() if row["step"] == 20]
    leads = sorted(
        (abs(b - a) for row in rows for a, b in zip(row["student_logp"], row["teacher_logp"], strict=True)),
        reverse=True,
    )
    assert list(found["value"].abs()[4:]) == pytest.approx(leads[:4])
    line = found.iloc[0]
    row = row_of(runs[2], 20, line["test_set"])
    before = row["tokens"][: line["place"]]
    assert [*line["before"].split(), line["token"]] == before[-6:]
    assert list(token_quantities.worst(runs, "overlap", n=1)["value"]) == [
        min(v for row in record.tokens() for v in row["overlap"]) for record in runs[2:]
    ]
    assert token_quantities.worst(runs[:2]).empty
    with pytest.raises(ValueError, match="no quantity 'kl'"):
        token_quantities.worst(runs, "kl")


def test_runs_without_a_teacher_have_no_teacher_in_them(tmp_path: Path) -> None:
    record = kept.record(tmp_path, "sft", kept.rows(1, teacher=False))
    content = explore.tokens([record], quantity="student_entropy").content
    assert [each["key"] for each in content["quantities"]] == ["student_entropy", "student_logp"]
    assert content["rows"][0]["teacher"] == []
    with pytest.raises(
        ValueError, match=r"no quantity 'teacher_minus_student'.*choose from student_entropy, student_logp"
    ):
        explore.tokens([record])


def test_what_there_is_not_is_refused(runs: list[RunRecord]) -> None:
    wrong = {
        "no arm 'sucess'; choose from success, failure": {"arms": ["sucess"]},
        "no quantity 'kl'.*choose from teacher_minus_student": {"quantity": "kl"},
        "no test set 'aime'; choose from chain-3": {"test_sets": ["aime"]},
        "no step 7; choose from 0, 20, 40": {"steps": [7]},
        "no run with seed 9; choose from 0, 1": {"seed": 9},
        r"tokens.jsonl: this run kept no responses; choose another seed than 1": {"seed": 1},
    }
    for message, options in wrong.items():
        with pytest.raises(ValueError, match=message):
            explore.tokens(runs, **options)  # type: ignore[arg-type]


def test_runs_that_kept_nothing_say_so_and_stop_no_notebook(runs: list[RunRecord]) -> None:
    explorer = explore.tokens(runs[:2], ["success", "failure"])
    assert "kept none" in explorer.html and "<script" not in explorer.html
    assert "kept none" in repr(explorer) and "kept none" in repr(explore.tokens([]))
    with pytest.raises(ValueError, match=r"kept none|anywidget"):
        explorer.widget()


def test_the_first_seed_that_kept_responses_is_shown_and_steps_are_few(tmp_path: Path) -> None:
    steps = tuple(range(0, 210, 10))
    runs = [kept.record(tmp_path, "a", None, 0), kept.record(tmp_path, "a", kept.rows(1, steps, n=3), 1)]
    content = explore.tokens(runs).content
    assert content["runs"] == [{"arm": "a", "seed": 1, "label": "a · seed 1"}]
    assert content["steps"] == [0, 20, 50, 80, 100, 120, 150, 180, 200]
    assert [each["label"] for each in explore.tokens(runs, problems=2).content["problems"]] == [
        "chain-3, problem 0",
        "chain-4, problem 0",
    ]
    assert explore.tokens(runs, steps=[200, 10], test_sets=["chain-4"]).content["steps"] == [10, 200]


def test_equal_records_give_equal_pages_and_others_other_names(runs: list[RunRecord]) -> None:
    one, two, other = (explore.tokens(runs, ["success", "failure"], steps=s) for s in (None, None, [20]))
    assert one.html == two.html and one.html != other.html
    name = r'data-opd-tokens="([0-9a-f]{12})"'
    assert re.findall(name, one.html) != re.findall(name, other.html)
    assert set(one._repr_mimebundle_()) == {"text/html", "text/plain"}


def test_no_word_of_a_model_becomes_markup(tmp_path: Path) -> None:
    words = ["</script>", "<b>", "\n", '"', "&amp;", "é"]
    rows = kept.rows(1, steps=(0,), n=12, words=words)
    for row in rows:
        row["prompt"] = "<img src=x onerror=alert(1)>"
    page = explore.tokens([kept.record(tmp_path, "a", rows)]).html
    assert page.count("</script>") == 1 and page.endswith("</script>") and "<img" not in page and "<b>" not in page


STRANGE = [
    "\u2028",
    "\u2029",
    "\x85",
    "\r",
    "\0",
    "\u202e",
    "</script><script>alert(1)</script>",
    "<!--",
    "]]>",
    "\ufeff",
]
"""Tokens that end lines for some readers, end scripts, turn text around."""


@pytest.mark.parametrize("escaped", [True, False])
def test_strange_tokens_are_shown_as_they_are(tmp_path: Path, escaped: bool) -> None:
    rows = kept.rows(1, steps=(0,), n=12, words=STRANGE)
    record = kept.record(tmp_path, "a", rows)
    text = "".join(json.dumps(row, ensure_ascii=escaped) + "\n" for row in rows)
    (record.folder / "tokens.jsonl").write_text(text, encoding="utf-8")
    assert [row["tokens"] for row in record.tokens()] == [row["tokens"] for row in rows]
    explorer = explore.tokens([record])
    content = kept.unpacked(explorer.html)
    assert [[content["words"][i] for i in row["tokens"]] for row in content["rows"]] == [row["tokens"] for row in rows]
    page = explorer.save(tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("</script>") == 1 and "<!--" not in page and "alert(1)<" not in page
    assert set(token_quantities.worst([record], n=20)["token"]) <= set(STRANGE)


def test_halves_of_characters_and_numbers_that_are_none_are_shown_as_unknown(tmp_path: Path) -> None:
    rows = kept.rows(1, steps=(0,), n=12)
    rows[0]["tokens"][:2] = ["\ud83d", "\ud83d\ude00"]
    rows[0]["teacher_logp"][:3] = [math.nan, math.inf, -math.inf]
    rows[0]["top_student"][0][0] = math.nan
    explorer = explore.tokens([kept.record(tmp_path, "a", rows)])
    content = kept.unpacked(explorer.html)
    first, keys = content["rows"][0], [each["key"] for each in content["quantities"]]
    assert [content["words"][i] for i in first["tokens"][:2]] == ["\ufffd", "\U0001f600"]
    for key in ("teacher_logp", "teacher_minus_student"):
        assert [value is None for value in first["values"][keys.index(key)]] == [True] * 3 + [False] * 9
    assert first["student"][0][0] is None
    assert "\ufffd" in explorer.save(tmp_path / "page.html").read_text(encoding="utf-8")


def changed(**fields: Any) -> Callable[[list[dict[str, Any]]], None]:
    """The second row with other fields; `...` takes one away."""

    def change(rows: list[dict[str, Any]]) -> None:
        for name, value in fields.items():
            if value is ...:
                del rows[1][name]
            else:
                rows[1][name] = value(rows[1][name]) if callable(value) else value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        *((changed(**{name: ...}), f"no {name}; it has") for name in ("step", "prompt", "reward", "tokens", "problem")),
        *((changed(**{name: None}), f"{name}: None is no") for name in ("step", "answer", "finished", "test_set")),
        (changed(reward=math.nan), "reward: None is no number"),
        (changed(tokens=[1, 2]), "student_logp: not one entry for each of 2 tokens"),
        (changed(teacher_logp=lambda values: values[:-1]), "teacher_logp: not one entry for each of 31 tokens"),
        (changed(overlap=lambda values: ["x", *values[1:]]), "overlap: 'x' is no number"),
        (changed(tokens=lambda words: [7, *words[1:]]), "tokens: not all of them are texts"),
        (changed(top=lambda lists: [[7], *lists[1:]]), "top: not a list of tokens at every position"),
        (changed(top_teacher=lambda lists: [[0.5], *lists[1:]]), "top_teacher: not one probability for each token"),
    ],
)
def test_a_row_that_is_none_is_named_with_its_file_and_line(
    tmp_path: Path, change: Callable[[list[dict[str, Any]]], None], said: str
) -> None:
    rows = kept.rows(1, steps=(0, 20))
    change(rows)
    record = kept.record(tmp_path, "a", rows)
    for read in (lambda: explore.tokens([record]), lambda: token_quantities.worst([record])):
        with pytest.raises(ValueError, match=rf"^{record.folder}/tokens\.jsonl, line 2: {said}.*; bring it back"):
            read()


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda text: text[:-30], ": corrupt table: it is cut off in line 6"),
        (lambda text: text[:-1], ": corrupt table: it is cut off in line 6"),
        (lambda text: text.replace("\n", "\n\n", 1), ", line 2: no JSON"),
        (lambda text: "[]\n" + text, ", line 1: a JSON object is expected, not list"),
        (lambda text: "<<<<<<< HEAD\n" + text, r": corrupt table: it holds git's conflict markers \(line 1\)"),
        (
            lambda text: "version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            ": corrupt table: it is a git-LFS pointer",
        ),
    ],
)
@pytest.mark.parametrize("name", ["tokens", "rollouts"])
def test_a_damaged_file_of_responses_is_named_with_its_line(
    tmp_path: Path, name: str, damage: Callable[[str], str], line: str
) -> None:
    record = kept.record(tmp_path, "a", kept.rows(1, steps=(0, 20)))
    text = (record.folder / "tokens.jsonl").read_text(encoding="utf-8")
    (record.folder / f"{name}.jsonl").write_text(damage(text), encoding="utf-8")
    with pytest.raises(
        ValueError, match=rf"^{record.folder}/{name}\.jsonl{line}.*; bring it back .*delete {record.folder}"
    ):
        record.tokens() if name == "tokens" else record.examples()


def test_what_is_embedded_is_compact(tmp_path: Path) -> None:
    runs = [kept.record(tmp_path, arm, kept.rows(seed, n=40)) for seed, arm in enumerate("ab", 1)]
    explorer = explore.tokens(runs)
    n_tokens = sum(len(row["tokens"]) for row in explorer.content["rows"])
    assert len(explorer.payload) < 100 * n_tokens
    module = explore.MODULE.read_text(encoding="utf-8")
    assert len(module) < 32_000
    assert "</script" not in module


@pytest.mark.parametrize("path", sorted(paths.NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_explorers_of_committed_notebooks_are_small_and_of_this_module(path: Path) -> None:
    for cell in json.loads(path.read_text())["cells"]:
        pages = ["".join(o.get("data", {}).get("text/html", "")) for o in cell.get("outputs", ())]
        for page in pages:
            if "data-opd-tokens" in page:
                assert len(page) <= CELL_BYTES
                assert explore.MODULE.read_text(encoding="utf-8") in page, "execute the notebook again"


# What follows is seen by a browser.


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that may speak to nobody; what goes wrong on it fails the test."""
    context = browser.new_context(viewport={"width": 1100, "height": 900})
    opened, wrong = context.new_page(), []
    opened.on("console", lambda m: wrong.append(m.text) if m.type in ("error", "warning") else None)
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("request", lambda r: wrong.append(r.url) if not r.url.startswith(("file:", "data:", "blob:")) else None)
    opened.set_default_timeout(120_000)
    yield opened
    context.close()
    assert wrong == []


def shown(page: Any, explorer: Explorer, path: Path) -> Any:
    page.goto(explorer.save(path / "page.html").as_uri())
    page.locator("[role=option]").first.wait_for()
    return page


def colours(page: Any, panel: int = 0) -> list[str]:
    """The colours of a response's tokens."""
    options = page.locator("section").nth(panel).locator("[role=option]:not([hidden])")
    found: list[str] = options.evaluate_all("all => all.map(each => each.style.background)")
    return found


def texts(page: Any, panel: int = 0) -> list[str]:
    found: list[str] = page.locator("section").nth(panel).locator("[role=option]:not([hidden])").all_text_contents()
    return found


def row_of(record: RunRecord, step: int, test_set: str = "chain-3") -> dict[str, Any]:
    return next(row for row in record.tokens() if (row["step"], row["test_set"]) == (step, test_set))


@pytest.mark.browser
def test_both_runs_are_shown_and_every_control_says_the_record(
    runs: list[RunRecord], page: Any, tmp_path: Path
) -> None:
    shown(page, explore.tokens(runs, ["success", "failure"]), tmp_path)
    assert texts(page) == row_of(runs[2], 0)["tokens"] == texts(page, 1)
    before = colours(page)
    page.get_by_role("slider").focus()
    page.keyboard.press("ArrowRight")
    assert texts(page) == row_of(runs[2], 20)["tokens"]
    assert texts(page, 1) == row_of(runs[3], 20)["tokens"] != texts(page)
    assert colours(page) != before
    assert page.get_by_role("slider").get_attribute("aria-valuetext") == "step 20"
    page.get_by_label("prompt").select_option("chain-5, problem 0")
    assert texts(page) == row_of(runs[2], 20, "chain-5")["tokens"]
    page.get_by_role("combobox", name="second run").select_option("success · seed 0")
    assert texts(page, 1) == texts(page)
    page.get_by_role("combobox", name="second run").select_option("no second run")
    assert page.locator("[role=listbox]:visible").count() == 1


@pytest.mark.browser
def test_recolouring_keeps_the_spans(runs: list[RunRecord], page: Any, tmp_path: Path) -> None:
    shown(page, explore.tokens(runs, ["success", "failure"]), tmp_path)
    page.locator("[role=option]").nth(3).evaluate("each => { each.mine = true }")
    before = colours(page)
    page.get_by_label("colour by").select_option("student's entropy")
    assert colours(page) != before
    assert page.locator("[role=option]").nth(3).evaluate("each => each.mine")


@pytest.mark.browser
def test_keys_move_and_show_both_lists(runs: list[RunRecord], page: Any, tmp_path: Path) -> None:
    shown(page, explore.tokens(runs, ["success", "failure"]), tmp_path)
    row, panel = row_of(runs[2], 0), page.locator("section").first
    panel.locator("[role=option][tabindex='0']").focus()
    for key, place in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", 29), ("Home", 0)):
        page.keyboard.press(key)
        label = panel.locator("[aria-selected=true]").get_attribute("aria-label")
        spoken = re.fullmatch(r"token (\d+), (.*): teacher − student log-prob (\S+) nats", label)
        assert spoken and (int(spoken[1]), spoken[2]) == (place + 1, row["tokens"][place])
        lead = row["teacher_logp"][place] - row["student_logp"][place]
        assert float(spoken[3].replace("−", "-")) == pytest.approx(lead, abs=5.1e-4)
        assert panel.locator("[role=option]:focus").count() == 1
        lines = [line.split() for line in panel.locator("tbody tr").all_inner_texts()]
        masses = [[float(mass.replace("<", "0")) for mass in line[-2:]] for line in lines]
        listed = {line[0]: both for line, both in zip(lines, masses, strict=True)}
        for word, p, q in zip(row["top"][place], row["top_student"][place], row["top_teacher"][place], strict=True):
            assert listed[word] == pytest.approx([p, q], abs=1.01e-4)
        assert [line[0] for line in lines if "◂" in line] == [row["tokens"][place]]
        assert masses == sorted(masses, key=lambda both: -both[0])
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    assert panel.locator("[aria-selected=true]").get_attribute("aria-label").startswith("token 1,")


@pytest.mark.browser
def test_the_worst_tokens_come_in_order(runs: list[RunRecord], page: Any, tmp_path: Path) -> None:
    shown(page, explore.tokens(runs, ["success", "failure"], quantity="overlap"), tmp_path)
    overlap = row_of(runs[2], 0)["overlap"]
    order = sorted(range(len(overlap)), key=lambda t: (overlap[t], t))
    for place in order[:3]:
        page.locator("section").first.get_by_role("button", name="worst").click()
        label = page.locator("section").first.locator("[aria-selected=true]").get_attribute("aria-label")
        assert label.startswith(f"token {place + 1},")
    page.keyboard.press("w")
    label = page.locator("section").first.locator("[aria-selected=true]").get_attribute("aria-label")
    assert label.startswith(f"token {order[3] + 1},")


@pytest.mark.browser
def test_a_token_that_both_responses_have_is_selected_in_both(runs: list[RunRecord], page: Any, tmp_path: Path) -> None:
    parted = [row | {"tokens": list(row["tokens"])} for row in runs[2].tokens()]
    parted[0]["tokens"][12] = next(word for word in kept.WORDS if word != parted[0]["tokens"][12])
    shown(page, explore.tokens([runs[2], kept.record(tmp_path, "parted", parted)]), tmp_path)
    selected = lambda: [page.locator("h4").nth(i).inner_text().split(":")[0] for i in (0, 1)]
    page.locator("section").first.locator("[role=option]").nth(5).click()
    assert selected() == ["token 6", "token 6"]
    assert page.get_by_text("part at token 13").count() == 2
    page.locator("section").nth(1).locator("[role=option]").nth(14).click()
    assert selected() == ["token 6", "token 15"]


@pytest.mark.browser
def test_two_explorers_on_a_page_leave_each_other_alone(runs: list[RunRecord], page: Any, tmp_path: Path) -> None:
    one, other = explore.tokens(runs, ["success"]), explore.tokens(runs, ["failure"], quantity="overlap")
    path = tmp_path / "two.html"
    path.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><body>{one.html}{other.html}{one.html}</body></html>'
    )
    page.goto(path.as_uri())
    page.locator(".opd-tokens").nth(2).locator("[role=option]").first.wait_for()
    assert page.get_by_role("group", name="token explorer").count() == 3
    second = colours(page, 1)
    page.get_by_role("slider").first.fill("2")
    assert texts(page) == row_of(runs[2], 40)["tokens"]
    assert texts(page, 1) == row_of(runs[3], 0)["tokens"] and colours(page, 1) == second
    assert texts(page, 2) == row_of(runs[2], 0)["tokens"]


@pytest.mark.browser
def test_long_responses_are_paged(page: Any, tmp_path: Path) -> None:
    record = kept.record(tmp_path, "long", kept.rows(1, steps=(0,), sets=("aime",), n=4100))
    shown(page, explore.tokens([record]), tmp_path)
    assert len(texts(page)) == 4000
    page.get_by_role("button", name="later").click()
    assert texts(page) == record.tokens()[0]["tokens"][4000:]
    page.keyboard.press("ArrowLeft")
    assert len(texts(page)) == 4000
    assert page.locator("[aria-selected=true]").get_attribute("aria-label").startswith("token 4000,")


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_text_is_readable_on_every_colour(
    runs: list[RunRecord], page: Any, tmp_path: Path, scheme: str
) -> None:
    page.set_viewport_size({"width": 360, "height": 800})
    page.emulate_media(color_scheme=scheme)
    shown(page, explore.tokens(runs, ["success", "failure"]), tmp_path)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator(".opd-tokens[data-dark]").count() == (scheme == "dark")
    pairs = page.locator("[role=option]:not([hidden])").evaluate_all(
        "all => all.map(e => getComputedStyle(e)).map(s => [s.backgroundColor, s.color])"
    )
    assert min(contrast(*pair) for pair in pairs) >= 4.5


def contrast(*pair: str) -> float:
    """The ratio of two colours' luminances, as WCAG defines it."""
    channels = [[int(c) / 255 for c in re.findall(r"\d+", colour)[:3]] for colour in pair]
    linear = [[c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour] for colour in channels]
    light, dark = sorted((0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in linear), reverse=True)[0:2]
    return (light + 0.05) / (dark + 0.05)


def test_a_widget_says_which_token_is_selected(runs: list[RunRecord]) -> None:
    pytest.importorskip("anywidget", reason="anywidget is not installed (extra lab)")
    explorer = explore.tokens(runs, ["success"])
    widget = explorer.widget()
    assert widget.payload == explorer.payload and widget.selected == {}
    assert "text/html" in explorer._repr_mimebundle_() and widget._repr_mimebundle_() is not None


def test_without_anywidget_the_widget_says_what_to_install(
    runs: list[RunRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "anywidget", None)
    with pytest.raises(ValueError, match=r"opd-replication\[lab\]"):
        explore.tokens(runs, ["success"]).widget()
