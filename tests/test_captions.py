"""What stands below a figure: the numbers that it shows, how many seeds they are of, and the verdicts of its claims."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.lines import Line2D

from opd_lib import paths
from opd_lib.judge import claims
from opd_lib.judge.quantities import end_of
from opd_lib.report import figures, frames, tables
from opd_lib.report.outputs import LINE, Outputs
from opd_lib.report.verdicts import Verdicts
from opd_lib.run import compare, notebook

REGISTER = claims.load(paths.claims_file("rethinking_opd"))
LEVEL = "99.93 %"  # 1 − .05 / 75


@pytest.fixture
def frame() -> pd.DataFrame:
    """Two arms, three seeds, five steps; positive values that differ in all of them."""
    rows = [(arm, seed, step) for arm in ("success", "failure") for seed in range(3) for step in range(5)]
    made = pd.DataFrame(rows, columns=["arm", "seed", "step"])
    return made.assign(value=0.5 + 0.01 * np.arange(len(made)) % 0.07, test_set="chain-3")


def verdicts(notebook_name: str = "05_overlap_tokens", **columns: object) -> Verdicts:
    """The committed verdicts of a notebook; `columns` replace some."""
    found = pd.read_csv(paths.RESULTS / "tiny" / "claims.csv")
    mine = found[found["id"].isin([claim.id for claim in REGISTER.of(notebook_name)])]
    return Verdicts(register=REGISTER, judged=mine.assign(**columns), profile="tiny")


def mean_end(frame: pd.DataFrame, arm: str, change: Callable[[pd.Series], pd.Series] = lambda curve: curve) -> float:
    """The mean over seeds of the mean of the last three points, by other means than the library's."""
    curves = frame[frame["arm"] == arm].pivot(index="step", columns="seed", values="value")
    return float(change(curves).iloc[-3:].mean().mean())


def test_the_numbers_of_curves_are_those_of_the_tables(frame: pd.DataFrame) -> None:
    success, failure = (f"{mean_end(frame, arm):.3f}" for arm in ("success", "failure"))
    assert success != failure
    said = figures.curves(frame, "value", "share").caption.text()
    assert said == f"At the end (last three points), mean of 3 seeds: success {success}, failure {failure}."
    table = tables.end_table(frame, ["value"]).set_index("arm")["end"]
    assert table["success"].startswith(success) and table["failure"].startswith(failure)
    one = figures.curves(frame[frame["seed"] == 1], "value", "share").caption.text()
    assert one.startswith("At the end (last three points), one seed: success 0.")
    panels = figures.panels(frame, ["value"], ["overlap"], ["share"]).caption.text()
    assert panels == f"At the end (last three points), mean of 3 seeds: overlap: success {success}, failure {failure}."
    assert figures.accuracy_panels(frame.rename(columns={"value": "accuracy"})).caption.text() == panels.replace(
        "overlap", "chain-3"
    )


def test_seeds_that_differ_in_number_are_counted(frame: pd.DataFrame) -> None:
    fewer = frame[(frame["arm"] == "success") | (frame["seed"] == 0)]
    assert (
        figures.curves(fewer, "value", "share")
        .caption.text()
        .startswith("At the end (last three points), mean of 1 to 3 seeds: ")
    )


def test_the_papers_numbers_are_not_means_of_our_seeds(frame: pd.DataFrame) -> None:
    paper = pd.DataFrame({"arm": "success", "step": [1, 2, 3, 4], "value": [0.1, 0.2, 0.2, 0.2]})
    said = figures.beside_paper(frame, "value", paper, "share").caption.text()
    assert said.startswith("At the end (last three points), mean of 3 seeds: success 0.") and said.endswith(
        "; in the paper: success 0.200."
    )


def test_on_a_logarithmic_axis_the_caption_and_the_line_have_the_geometric_mean(frame: pd.DataFrame) -> None:
    chart = figures.panels(frame, ["value"], ["norm"], [""], log=["value"])
    (axes,) = chart.axes
    (line,) = [line for line in axes.get_lines() if line.get_gid() == "mean:success"]
    curves = frame[frame["arm"] == "success"].pivot(index="step", columns="seed", values="value")
    np.testing.assert_allclose(line.get_ydata(), np.exp(np.log(curves).mean(axis=1)))
    assert axes.get_yscale() == "log" and "geometric" in axes.get_ylabel()
    ends = np.exp(np.log(curves.iloc[-3:].mean()).mean())
    assert f"norm (geometric mean): success {ends:.3f}" in chart.caption.text()


def test_what_a_logarithmic_axis_cannot_show_is_a_gap(frame: pd.DataFrame) -> None:
    broken = frame.assign(value=frame["value"].where((frame["seed"] > 0) | (frame["step"] != 2), 0.0))
    (axes,) = figures.panels(broken, ["value"], ["norm"], [""], log=["value"]).axes
    (line,) = [line for line in axes.get_lines() if line.get_gid() == "mean:success"]
    assert np.isnan(line.get_ydata()).tolist() == [False, False, True, False, False]


def test_settings_bars_rows_and_dots_say_their_numbers(frame: pd.DataFrame) -> None:
    last = frame[frame["step"] == 4]
    bar = {arm: f"{rows['value'].mean():.3f}" for arm, rows in last.groupby("arm")}
    said = figures.bars(last, "value", "share").caption.text()
    assert said == f"Mean of 3 seeds: share: success {bar['success']}, failure {bar['failure']}."
    comma = figures.bars(last.replace({"arm": {"failure": "a, b"}}), "value", "share").caption.text()
    assert comma == f"Mean of 3 seeds: share: success {bar['success']}; a, b {bar['failure']}."
    undefined = last.assign(value=last["value"].where((last["arm"] != "failure") | (last["seed"] > 0)))
    assert figures.bars(undefined, "value", "share").caption.text().endswith("failure –.")
    swept = frame.rename(columns={"arm": "series"}).assign(limit=frame["step"] + 6)
    first = frame[(frame["arm"] == "success") & (frame["step"] == 0)]["value"].mean()
    said = figures.sweep(swept, "limit", "value", "tokens", "share").caption.text()
    assert said.startswith(f"Mean of 3 seeds: success: {first:.3f} at 6, {bar['success']} at 10; failure: ")
    rows = pd.DataFrame({"label": ["a_b", "c"], "estimate": [0.5, -0.25], "low": 0.0, "high": 1.0, "n": 5})
    assert figures.forest(rows, "correlation").caption.text() == "Mean of 5 seeds: correlation: a b 0.500, c -0.250."
    many = pd.concat([rows] * 7).drop(columns="n")
    assert figures.forest(many, "ratio").caption.text() == "Ratio: all 14 estimates from -0.250 to 0.500."
    dots = figures.scatter(last, "step", "value", "step", "gain", "arm").caption.text()
    assert (
        dots == f"6 dots: step from 4.000 to 4.000, gain from {last['value'].min():.3f} to {last['value'].max():.3f}."
    )


def test_steps_of_a_measurement_are_no_seeds(frame: pd.DataFrame) -> None:
    caption = figures.bars(frame[frame["step"] == 4], "value", "s").caption
    assert caption.text("steps").startswith("Mean of 3 steps: ")
    single = figures.bars(frame[(frame["step"] == 4) & (frame["seed"] == 0)], "value", "s").caption
    assert single.text("steps").startswith("s: success 0.") and single.text().startswith("One seed: s: success 0.")


def test_names_that_parts_share_are_said_once_and_numbers_keep_their_order(frame: pd.DataFrame) -> None:
    three = pd.concat([frame, frame[frame["arm"] == "success"].assign(arm="third", value=0.25)]).assign(other=2.0)
    success, failure = (f"{mean_end(frame, arm):.3f}" for arm in ("success", "failure"))
    said = figures.panels(three, ["value", "other"], ["a", "b"], ["", ""]).caption.text()
    assert said == (
        "At the end (last three points), mean of 3 seeds, in the order success, failure, third: "
        f"a: {success}, {failure}, 0.250; b: 2.000, 2.000, 2.000."
    )
    one = figures.panels(three, ["value"], ["a"], [""]).caption.text()
    two = figures.panels(three[three["arm"] != "third"], ["value", "other"], ["a", "b"], ["", ""]).caption.text()
    comma = figures.panels(three.replace({"arm": {"third": "c, d"}}), ["value", "other"], ["a", "b"], ["", ""])
    assert not any("in the order" in said for said in (one, two, comma.caption.text()))


def test_many_estimates_are_a_range_and_those_that_a_claim_is_about() -> None:
    judged = verdicts().intervals({"non_overlap": "C5b"})
    estimates = [judged["non_overlap"].estimate, *np.linspace(-0.5, 0.5, 8)]
    labels = ["non_overlap", *"abcdefgh"]
    rows = pd.DataFrame({"label": labels, "estimate": estimates, "low": -1.0, "high": 1.0})
    said = figures.forest(rows, "difference", judged=judged).caption.text()
    assert said.startswith("Difference: non overlap -0.228, all 9 estimates from -0.500 to 0.500. Thick: ")


def test_a_curve_that_ends_early_has_a_dotted_line_which_the_caption_explains(frame: pd.DataFrame) -> None:
    placed = frame.assign(tokens=frame["step"] * frame["arm"].map({"success": 1, "failure": 3}))
    said = figures.curves(placed, "value", "share", x="tokens").caption.text()
    assert said.endswith(" Dotted: from a line's end to its name.")
    assert "Dotted" not in figures.curves(frame, "value", "share", [("teacher", 0.7)]).caption.text()


def test_nothing_drawn_says_nothing(frame: pd.DataFrame) -> None:
    for chart in (figures.curves(frame[:0], "value", "share"), figures.bars(frame[:0], "value", "share")):
        assert chart.caption.text() == ""


def test_many_arms_have_an_axis_each_of_one_scale_in_their_own_colours(frame: pd.DataFrame) -> None:
    arms = [f"new-{number}" for number in range(5)]
    many = pd.concat([frame[frame["arm"] == "success"].assign(arm=arm, value=lambda f: f["value"]) for arm in arms])
    chart = figures.multiples(many, ["value", "step"], ["a", "b"], ["share", ""])
    assert len(chart.axes) == 10 and [axes.get_title("left") for axes in chart.axes[:5]] == arms
    means = [line for axes in chart.axes for line in axes.get_lines() if (line.get_gid() or "").startswith("mean:")]
    assert [line.get_gid() for line in means] == [f"mean:{arm}" for arm in arms] * 2
    assert len({line.get_color() for line in means[:5]}) == 5, "a colour each, though each is alone on its axis"
    assert [axes._left_title.get_color() for axes in chart.axes[:5]] == [line.get_color() for line in means[:5]]
    assert len({axes.get_ylim() for axes in chart.axes[:5]}) == 1
    alone = figures.multiples(many, ["value"], ["a"], ["share"], [("teacher", 0.55)])
    lowest = [axes for axes in alone.axes if axes.xaxis.get_tick_params()["labelbottom"]]
    assert [axes.get_title("left") for axes in lowest] == arms[2:], "also above a place that is empty"
    assert alone.caption.text().startswith("At the end (last three points), mean of 3 seeds: new-0 0.")


def test_axes_of_one_scale(frame: pd.DataFrame) -> None:
    two = frame.assign(other=frame["value"] * 10)
    own = figures.panels(two, ["value", "other"], ["a", "b"], ["", ""]).axes
    shared = figures.panels(two, ["value", "other"], ["a", "b"], ["", ""], share_y=True).axes
    assert own[0].get_ylim() != own[1].get_ylim() and shared[0].get_ylim() == shared[1].get_ylim()


def test_broken_lines_have_a_piece_of_themselves_before_their_names(frame: pd.DataFrame) -> None:
    pair = frame.replace({"arm": {"success": "teacher, total", "failure": "teacher, new"}})

    def pieces(chart: figures.Chart) -> list[str]:
        (axes,) = chart.axes
        return [str(line.get_linestyle()) for line in axes.findobj(Line2D) if min(line.get_xdata(), default=0) == 1.045]

    assert sorted(pieces(figures.curves(pair, "value", "share"))) == ["-", "--"]
    assert pieces(figures.curves(frame, "value", "share")) == []


def test_the_verdicts_of_a_papers_figure_stand_below_ours() -> None:
    found = verdicts()
    assert found.under("fig07_dynamics") == "Verdicts: C5a, C5c hold; C5b, H4 inconclusive."
    assert found.under("h4") == found.under("fig17") == found.under("fig07_accuracy", []) == ""
    assert found.under("h4", ["H4"]) == "Verdict: H4 inconclusive."
    reason = verdicts(verdict="not part of profile paper: a student of 1.7B: too large")
    assert reason.under("h4", ["H4", "C5a"]) == "Verdicts: H4, C5a not part of profile paper."
    with pytest.raises(
        ValueError, match=r"figure h4: no claim C6a in this notebook; .*rethinking_opd\.yaml gives it C5a"
    ):
        found.under("h4", ["C6a"])


def test_how_verdicts_came_about_is_read_from_the_claims_file() -> None:
    said = verdicts().method()
    assert "(params/claims/rethinking_opd.yaml)" in said and "bootstrap" not in said
    assert f"each at {LEVEL}, so that all {len(REGISTER.claims)} claims" in said and "with 95 %." in said
    assert "over seeds (H10c: paired bootstrap over test problems)" in verdicts("02_new_knowledge").method()


def differences(mean: float) -> pd.DataFrame:
    return pd.DataFrame({"arm": ["non_overlap"] * 3, "seed": range(3), "value": [mean - 0.1, mean, mean + 0.1]})


def test_the_verdicts_interval_is_drawn_beside_the_bar_with_its_bound_and_the_caption_tells_them_apart() -> None:
    judged = verdicts().intervals({"non_overlap": "C5b"})
    row = verdicts().judged.set_index("id").loc["C5b"]
    chart = figures.bars(differences(row["estimate"]), "value", "difference", judged=judged)
    marks = {mark.get("name"): mark for mark in json.loads(figures.plotted(chart))}
    ((_, low), (_, high)) = marks["verdict:C5b"]["whiskers"][0]
    assert (low, high) == pytest.approx((row["low"], row["high"]), rel=1e-5)
    assert {y for _, y in marks["bound:C5b"]["whiskers"][0]} == {-0.02}
    said = chart.caption.text()
    assert f"Thick: the mean's own 95 %; thin: the verdict's {LEVEL} (non overlap: C5b), with a tick" in said
    rows = pd.DataFrame({"label": ["non_overlap"], "estimate": [row["estimate"]], "low": -1.0, "high": 1.0})
    forest = figures.forest(rows, "difference", judged=judged)
    marks = {mark.get("name"): mark for mark in json.loads(figures.plotted(forest))}
    assert [x for x, _ in marks["verdict:C5b"]["whiskers"][0]] == pytest.approx([row["low"], row["high"]], rel=1e-5)
    assert "Thick" in forest.caption.text()


def test_the_interval_of_a_claim_about_something_else_is_refused() -> None:
    judged = verdicts().intervals({"non_overlap": "C5b"})
    message = (
        r"claim C5b is not about what is drawn as 'non_overlap': its estimate is -0\.2277.*, the mean that is drawn"
    )
    with pytest.raises(ValueError, match=message):
        figures.bars(differences(-0.2), "value", "difference", judged=judged)
    rows = pd.DataFrame({"label": ["non_overlap"], "estimate": [0.2], "low": -1.0, "high": 1.0})
    with pytest.raises(ValueError, match=message):
        figures.forest(rows, "difference", judged=judged)
    with pytest.raises(ValueError, match="an interval to draw: no claim C99 in this notebook"):
        verdicts().intervals({"non_overlap": "C99"})


def test_an_interval_that_is_not_known_is_not_drawn() -> None:
    judged = verdicts(low=float("nan"), high=float("nan")).intervals({"non_overlap": "C5b"})
    chart = figures.bars(differences(0.5), "value", "difference", judged=judged)
    assert "verdict:C5b" not in figures.plotted(chart) and "Thick" not in chart.caption.text()


def test_outputs_write_the_caption_below_the_figure(
    frame: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = Outputs(tmp_path, judge=verdicts)
    for _ in range(2):
        outputs.figure("fig07_accuracy", figures.curves(frame, "value", "share"), claims=["C5a"])
        caption, legend, _ = capsys.readouterr().out.split("\n\n")
        assert caption.endswith(". Verdict: C5a holds.")
        legend = " ".join(legend.split())
        assert "the mean over seeds" in legend and "one seed." in legend and "interval of that mean alone" in legend
        assert f"({LEVEL}, so that all {len(REGISTER.claims)} claims are right together with 95 %)" in legend
    names = {f"an_arm_of_a_long_name_{number}" for number in range(9)}
    long = pd.concat([frame[frame["arm"] == "success"].assign(arm=name) for name in names])
    outputs.figure("other", figures.curves(long, "value", "share"))
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= LINE and "interval" not in said, "how figures are read is said once"
    outputs.verdicts()
    said = capsys.readouterr().out
    assert said.startswith("id ") and " ".join(said.split()).endswith("with a probability of 80 %.")
    assert list(pd.read_csv(tmp_path / "tables" / "verdicts.csv")["id"]) == ["C5a", "C5b", "C5c", "H4"]


def test_without_claims_there_are_no_verdicts(frame: pd.DataFrame, tmp_path: Path) -> None:
    outputs, chart = Outputs(tmp_path), figures.curves(frame, "value", "share")
    with pytest.raises(ValueError, match="figure h4: claims H4, but no claims file has any of this notebook"):
        outputs.figure("h4", chart, claims=["H4"])
    assert not (tmp_path / "figures").exists()
    with pytest.raises(ValueError, match="no claims file has claims of this notebook"):
        outputs.verdicts()
    with pytest.raises(ValueError, match="no claims file has claims C5b of this notebook"):
        outputs.intervals({"a": "C5b"})


def test_claims_of_one_notebook_in_two_files_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook, "registers", lambda profile: [*compare.registers(profile), REGISTER])
    with pytest.raises(ValueError, match=r"05_overlap_tokens has claims in .*; keep those of one notebook in one file"):
        notebook.begin("05_overlap_tokens")


def test_a_notebook_begins_with_what_its_claims_lack(capsys: pytest.CaptureFixture[str]) -> None:
    notebook.begin("05_overlap_tokens")
    assert capsys.readouterr().out == "", "the claims of this world rest on nothing that is named"
    experiment, _ = notebook.begin("05_overlap_tokens", "tiny-next")
    said = capsys.readouterr().out
    states = notebook.states(experiment)
    assert states is not None
    lacking = states.query("state != 'present'")["id"]
    assert all(name in said for name in lacking)


def named_in(path: Path) -> set[str]:
    """The claims under the figures of a notebook, from its cells: those named, or those of the paper's figure."""
    mine, found = verdicts(path.stem), set()
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"])
        for name in re.findall(r'outputs\.figure\(\s*"(\w+)"', source) if cell["cell_type"] == "code" else ():
            printed = "".join("".join(output.get("text", "")) for output in cell["outputs"])
            (said,) = re.findall(r"Verdicts?: ([^.]*)\.", " ".join(printed.split())) or [""]
            ids = set(re.findall(r"\b[CH]\d+[a-z]?\b", said))
            assert ids or not mine.under(name) or "claims=" in source, f"{path.stem}, {name}: its verdicts are missing"
            found |= ids
    return found


@pytest.mark.parametrize("name", sorted({claim.notebook for claim in REGISTER.claims}))
def test_every_claim_stands_below_a_figure_of_its_notebook(name: str) -> None:
    assert named_in(paths.NOTEBOOKS / f"{name}.ipynb") == {claim.id for claim in REGISTER.of(name)}


def test_frames_keep_the_order_of_their_arms(frame: pd.DataFrame) -> None:
    evals = pd.concat(
        [frame.assign(test_set=name, accuracy=frame["value"] + add) for name, add in (("b", 0), ("a", 1))]
    )
    order = ["success", "failure"]
    mean = frames.mean_accuracy(evals)
    assert list(mean["arm"].unique()) == list(frames.by_test_set(evals)["arm"].unique()) == order
    np.testing.assert_allclose(mean["accuracy"], frame["value"] + 0.5)
    np.testing.assert_allclose(frames.by_test_set(evals)["a"], frame["value"] + 1)
    assert list(frames.pick(frame, ["failure"])["arm"].unique()) == ["failure"]
    sparse = mean[mean["step"] == 4]
    both = frames.together(sparse, frame[["arm", "seed", "step", "value"]])
    assert len(both) == len(frame) and both["accuracy"].notna().sum() == len(sparse) and both["value"].notna().all()
    table = tables.accuracy_table(evals)
    assert table[["quantity", "arm"]].to_numpy().tolist() == [[q, arm] for q in ("a", "b") for arm in order]


def test_a_course_is_start_lowest_highest_and_end(frame: pd.DataFrame) -> None:
    curve = frame[(frame["arm"] == "failure") & (frame["seed"] == 2)]["value"]
    rows = frames.course(frame, ["value"]).set_index(["arm", "seed"]).loc[("failure", 2)]
    expected = [curve.iloc[0], curve.min(), curve.max(), end_of(curve)]
    assert rows[["start", "lowest", "highest", "end"]].tolist() == pytest.approx(expected)
    table = tables.course_table(frame, ["value"], ["start", "lowest"])
    assert list(table.columns) == ["quantity", "arm", "start", "lowest", "n_seeds"]


def test_texts_of_one_cell_are_one_output_whenever_they_came() -> None:
    from nbformat.v4 import new_output

    from opd_lib.batch import execute

    def parts(*texts: str) -> Sequence[object]:
        return [new_output("stream", name="stdout", text=text) for text in texts]

    picture = new_output("display_data", data={"image/png": "x"})
    joined = execute._in_one([*parts("a", "b"), picture, *parts("c", "d")])
    assert [output.get("text", "picture") for output in joined] == ["ab", "picture", "cd"]
