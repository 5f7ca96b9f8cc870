"""Tables print the same text and figures the same bytes for the same numbers; neither needs torch."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from opd_lib import params, paths
from opd_lib.records import reference
from opd_lib.report import figures, tables
from opd_lib.report.figures import canvas, colours, maps


@pytest.fixture
def frame() -> pd.DataFrame:
    """Two arms, three seeds, four steps: numbers so simple that every expectation can be checked by hand."""
    rows = [
        {
            "arm": arm,
            "seed": seed,
            "step": step,
            "overlap": level + 0.01 * seed + 0.05 * step,
            "loss": 1e-4 * step,
        }
        for arm, level in (("success", 0.5), ("failure", 0.3))
        for seed in range(3)
        for step in range(1, 5)
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def evals() -> pd.DataFrame:
    rows = [
        {
            "arm": arm,
            "seed": seed,
            "step": step,
            "test_set": name,
            "accuracy": base + 0.1 * seed + 0.001 * step,
        }
        for arm, base in (("distill-small", 0.4), ("justrl-small", 0.8))
        for seed in range(2)
        for step in (0, 100)
        for name in ("chain-4", "chain-3")
    ]
    return pd.DataFrame(rows)


def test_show_prints_fixed_digits():
    table = pd.DataFrame({"arm": ["a", "long name"], "value": [-0.00001, 12.3456], "n": [3, 10]})
    table["none"] = [float("nan"), 1.0]
    assert tables.show(table) == (
        "arm          value    n    none\n"
        "---------  -------  ---  ------\n"
        "a            0.000    3       –\n"
        "long name   12.346   10   1.000"
    )
    assert tables.markdown(table, 1).splitlines()[-1].replace(" ", "") == "|longname|12.3|10|1.0|"
    assert tables.show(table.iloc[:0]) == "(no rows)"


def test_small_numbers_keep_two_digits():
    assert tables.interval([0.0005, 0.0005]) == "0.00050 ± 0.00000"
    assert tables.interval([0.5]) == "0.500"
    assert tables.places(0.0, 3) == tables.places(float("nan"), 3) == 3


def test_curve_and_end_tables(frame):
    curve = tables.curve_table(frame, "overlap", [1, 4])
    assert curve.to_dict("list") == {
        "step": [1, 4],
        "success": ["0.560 ± 0.025", "0.710 ± 0.025"],
        "failure": ["0.360 ± 0.025", "0.510 ± 0.025"],
    }
    end = tables.end_table(frame, ["overlap"])
    assert end["start"].tolist() == ["0.560 ± 0.025", "0.360 ± 0.025"]
    assert end["end"].tolist() == ["0.660 ± 0.025", "0.460 ± 0.025"]
    with pytest.raises(ValueError, match=r"\[9\] were not logged"):
        tables.curve_table(frame, "overlap", [9])


def test_checkpoint_table_reads_the_last_evaluation(evals):
    table = tables.checkpoint_table(evals)
    assert list(table.columns) == ["checkpoint", "chain-3", "chain-4", "mean"]
    assert table["mean"].tolist() == ["0.550 ± 0.635", "0.950 ± 0.635"]


def test_verdict_table_wraps_long_statements():
    judged = pd.DataFrame(
        {
            "id": ["C1"],
            "figure": ["1 right, 6"],
            "statement": ["In the successful run the overlap of the two models grows step by step."],
            "paper": [".72 to .92"],
            "verdict": ["holds"],
            "estimate": [0.00021],
            "low": [0.0001],
            "high": [0.0003],
            "threshold": ["> 0"],
            "n_seeds": [5],
            "detectable": [0.00004],
            "precondition": ["precondition absent: P3"],
        }
    )
    lines = tables.show(tables.verdict_table(judged, width=30)).splitlines()
    assert len(lines) == 5 and max(map(len, lines)) < 135
    assert "[0.00010, 0.00030]" in lines[2] and lines[2].endswith("holds") and "0.000040" in lines[2]
    assert lines[3].endswith("precondition") and lines[4].endswith("absent: P3")


def test_hyper_parameters_stand_beside_the_papers():
    table = tables.hyper_parameters(reference.read("table2_opd"), {"top-k": 16, "learning rate": "1e-3"})
    ours = table.set_index("item")["ours"]
    assert ours["top-k"] == "16" and ours["learning rate"] == "1e-3" and ours["epochs"] == tables.MISSING
    with pytest.raises(ValueError, match=r"table2_opd\.csv: has no items \['topk'\]"):
        tables.hyper_parameters(reference.read("table2_opd"), {"topk": 16})


def test_reference_files_are_tidy():
    sources = {"text", "teaser", "printed", "plot", "table 1", "table 2", "table 3", "code"}
    for path in sorted(paths.REFERENCE.glob("*.csv")):
        frame = reference.read(path.stem)
        assert {part for source in frame["source"] for part in source.split("+")} <= sources, path.name
        if "figure" in frame:
            assert set(frame["confidence"]) <= {"high", "medium"} and frame["value"].notna().all()
            assert (frame["value"][frame["unit"] == "share"].between(0, 1)).all()
            assert not frame.duplicated(["run", "quantity", "step"]).any()
        else:
            assert frame["item"].is_unique
    with pytest.raises(ValueError, match="fig01_right"):
        reference.read("fig99")


def test_reference_curves_agree_with_the_numbers_quoted_elsewhere():
    curve = reference.curve(reference.read("fig01_middle"), "accuracy_aime24").pivot(index="step", columns="arm")
    gap = (curve["value"]["same_size"] - curve["value"]["larger"]).abs()
    quoted = reference.read("fig05").set_index(["run", "quantity"])["value"]
    assert len(gap) == 30
    assert gap.mean() == pytest.approx(quoted["both", "mean_gap_aime24"], abs=5e-4)
    assert gap.max() == pytest.approx(quoted["both", "largest_gap_aime24"], abs=5e-4)
    assert curve["value"].iloc[-3:].mean().round(3).to_dict() == {"same_size": 0.322, "larger": 0.327}
    with pytest.raises(ValueError, match="no curve"):
        reference.curve(reference.read("fig01_left"), "gap_recovery")


@pytest.fixture
def depth(frame) -> pd.DataFrame:
    """Entropy at three positions; the last one is reached by one seed of one arm only, and by few tokens."""
    rows = [
        {"arm": arm, "seed": seed, "step": step, "depth": place, "n_tokens": n, "entropy": level + 0.1 * seed + place}
        for arm, level in (("success", 0.5), ("failure", 0.3))
        for seed in range(2)
        for step in (1, 10, 20)
        for place, n in ((0, 512), (8, 300), (16, 2))
        if place < 16 or (arm, seed) == ("failure", 1)
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def settings() -> pd.DataFrame:
    """An outcome at three settings in three seeds, and one more series at one setting."""
    rows = [
        {"series": "fixed", "seed": seed, "limit": limit, "end": limit / 200 + 0.01 * seed}
        for limit in (6, 34, 171)
        for seed in range(3)
    ]
    return pd.DataFrame([*rows, {"series": "as many tokens", "seed": 0, "limit": 6, "end": 0.2}])


@pytest.fixture
def rewards() -> pd.DataFrame:
    rows = [
        {"arm": arm, "seed": seed, "reward": -0.1 * place + 0.3 * right, "correct": float(right)}
        for arm in ("success", "failure")
        for seed in range(2)
        for place in range(10)
        for right in (0, 1)
        if right or place < 5
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def estimates() -> pd.DataFrame:
    nan = float("nan")
    columns = ["label", "estimate", "low", "high", "paper"]
    return pd.DataFrame([("overlap", 0.4, 0.1, 0.7, 0.5), ("entropy", -0.2, nan, nan, nan)], columns=columns)


@pytest.fixture
def charts(frame, evals, depth, settings, rewards, estimates):
    """A function that draws one chart of each kind."""
    paper = reference.curve(reference.read("fig01_right"), "overlap_k16")
    ends = frame[frame["step"] == 4]
    return lambda: {
        "curves": figures.curves(frame, "overlap", "share", [("teacher", 0.6)]),
        "panels": figures.panels(frame, ["overlap", "loss"], ["Overlap", "Loss"], ["share", "nats"]),
        "accuracy": figures.accuracy_panels(evals, {"teacher": {"chain-3": 0.9, "chain-4": 0.9}}),
        "beside": figures.beside_paper(frame, "overlap", paper, "share"),
        "bars": figures.bars(ends, "overlap", "share", {"success": 0.8}),
        "sweep": figures.sweep(settings, "limit", "end", "limit (tokens)", "accuracy", [("start", 0.1)], log_x=True),
        "maps": figures.heat_maps(depth, "entropy", "entropy (nats)"),
        "histograms": figures.histograms(rewards, "reward", "correct", "reward (nats/token)"),
        "scatter": figures.scatter(ends, "loss", "overlap", "loss (nats)", "share", "arm"),
        "forest": figures.forest(estimates, "correlation"),
    }


def drawn(axes) -> dict[str, np.ndarray]:
    return {line.get_gid(): np.asarray(line.get_ydata(), dtype=float) for line in axes.get_lines() if line.get_gid()}


def marked(chart, gid: str):
    (artist,) = chart.findobj(lambda artist: artist.get_gid() == gid)
    return artist


def test_plotted_curves_are_the_frame_means(frame, evals, charts):
    drawings = charts()
    for chart, place in (("curves", 0), ("panels", 0), ("beside", 1)):
        found = drawn(drawings[chart].axes[place])
        for arm in ("success", "failure"):
            mean = frame[frame["arm"] == arm].groupby("step")["overlap"].mean()
            np.testing.assert_allclose(found[f"mean:{arm}"], mean)
    chain_4 = evals[(evals["test_set"] == "chain-4") & (evals["arm"] == "justrl-small")]
    found = drawn(drawings["accuracy"].axes[1])
    np.testing.assert_allclose(found["mean:justrl-small"], chain_4.groupby("step")["accuracy"].mean())
    np.testing.assert_allclose(found["reference:teacher"], 0.9)
    paper = reference.curve(reference.read("fig01_right"), "overlap_k16")
    np.testing.assert_allclose(
        drawn(drawings["beside"].axes[0])["mean:success"], paper[paper["arm"] == "success"]["value"]
    )
    bar = {patch.get_gid(): patch.get_height() for patch in drawings["bars"].axes[0].patches}
    assert bar == pytest.approx({"mean:success": 0.71, "mean:failure": 0.51})


def test_plotted_settings_positions_and_responses_are_the_frames(charts, settings, depth, rewards, estimates):
    drawings = charts()
    axes = drawings["sweep"].axes[0]
    np.testing.assert_allclose(drawn(axes)["mean:fixed"], [0.04, 0.18, 0.865])
    np.testing.assert_allclose(marked(drawings["sweep"], "mean:fixed").get_xdata(), [6, 34, 171])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["6", "34", "171"]
    mesh = marked(drawings["maps"], "map:failure").get_array()
    np.testing.assert_allclose(mesh, [[0.35, 8.35, 16.4]] * 3)
    np.testing.assert_allclose(marked(drawings["maps"], "tokens:failure").get_data().values, [512, 300, 1])
    right, wrong = (marked(drawings["histograms"], f"success:{name}").get_data() for name in ("correct", "not correct"))
    np.testing.assert_array_equal(right.edges, wrong.edges)
    for found, label in ((right, 1), (wrong, 0)):
        values = rewards[(rewards["arm"] == "success") & (rewards["correct"] == label)]["reward"]
        np.testing.assert_allclose(found.values, np.histogram(values, found.edges)[0] / len(values))
    dots = marked(drawings["scatter"], "group:failure")
    np.testing.assert_allclose(dots.get_xdata(), 4e-4)
    np.testing.assert_allclose(dots.get_ydata(), [0.5, 0.51, 0.52])
    np.testing.assert_allclose(marked(drawings["forest"], "estimate").get_xdata(), estimates["estimate"])
    np.testing.assert_allclose(marked(drawings["forest"], "paper").get_xdata(), estimates["paper"])


def test_the_same_numbers_give_the_same_bytes(charts, tmp_path):
    for round_ in ("first", "second"):
        for name, chart in charts().items():
            figures.save(chart, tmp_path / round_ / f"{name}.svg")
    files = sorted((tmp_path / "first").iterdir())
    assert [file.suffix for file in files] == [".svg"] * 10
    for file in files:
        data = file.read_bytes()
        assert data == (tmp_path / "second" / file.name).read_bytes()
        assert not re.search(rb"<dc:date>|<image", data)


def test_a_chart_shows_itself_in_a_notebook(frame):
    assert figures.curves(frame, "overlap", "share")._repr_png_().startswith(b"\x89PNG")


def test_one_seed_is_a_line_without_a_band(frame, evals, depth, settings, rewards):
    chart = figures.curves(frame[frame["seed"] == 1], "overlap", "share")
    assert not chart.axes[0].collections
    np.testing.assert_allclose(drawn(chart.axes[0])["mean:failure"], [0.36, 0.41, 0.46, 0.51])
    assert figures.curves(frame, "overlap", "share").axes[0].collections
    for drawing in (
        figures.sweep(settings[settings["seed"] == 0], "limit", "end", "tokens", "share"),
        figures.bars(frame[(frame["seed"] == 1) & (frame["step"] == 4)], "overlap", "share"),
        figures.heat_maps(depth[depth["seed"] == 1], "entropy", "nats", arms=["failure"]),
        figures.histograms(rewards[rewards["seed"] == 0], "reward", "correct", "nats"),
        figures.accuracy_panels(evals[evals["seed"] == 0]),
    ):
        assert drawing._repr_png_().startswith(b"\x89PNG")


def test_no_runs_are_said_to_be_none_and_make_empty_tables(frame, evals, settings, rewards):
    none, sweep, lines = frame[:0], settings[:0], [("teacher", 0.8), ("before", float("nan"))]
    charts = [
        figures.curves(none, "overlap", "share", lines),
        figures.panels(none, ["overlap", "loss"], ["a", "b"], ["share", "nats"]),
        figures.sweep(sweep, "limit", "end", "tokens", "share", lines, log_x=True),
        figures.accuracy_panels(evals[:0]),
        figures.beside_paper(none, "overlap", pd.DataFrame({"arm": ["a"], "step": [1], "value": [0.5]}), "share"),
        figures.bars(none, "overlap", "share"),
        figures.histograms(rewards[:0], "reward", "correct", "nats"),
        figures.scatter(sweep, "limit", "end", "tokens", "share", "series"),
    ]
    for chart in charts:
        said = [text.get_text() for axes in chart.axes for text in axes.texts]
        assert canvas.NO_RUNS in said and chart._repr_png_().startswith(b"\x89PNG")
    assert "teacher" in [text.get_text() for text in charts[0].axes[0].texts]
    assert canvas.NO_RUNS not in [t.get_text() for t in figures.curves(frame, "overlap", "share").axes[0].texts]
    assert tables.a_few_steps(none) == []
    found = [
        tables.curve_table(none, "overlap", []),
        tables.end_table(none, ["overlap"]),
        tables.summary(none, "arm", ["overlap"]),
        tables.checkpoint_table(evals[:0]),
    ]
    assert [tables.show(table) for table in found] == ["(no rows)"] * 4
    assert [list(table) for table in found[:2]] == [["step"], ["quantity", "arm", "start", "end", "n_seeds"]]


def test_wrong_frames_are_refused(frame, evals, depth, settings):
    with pytest.raises(ValueError, match="1 columns, 2 titles"):
        figures.panels(frame, ["overlap"], ["a", "b"], ["share"])
    with pytest.raises(ValueError, match="several accuracy at one step"):
        figures.curves(evals, "accuracy", "share")
    with pytest.raises(ValueError, match=r"arms \['larger'\] have no rows; the frame has success, failure"):
        figures.heat_maps(depth, "entropy", "nats", arms=["larger"])
    with pytest.raises(ValueError, match="entropy is undefined at every step and position of success, failure"):
        figures.heat_maps(depth.assign(entropy=float("nan")), "entropy", "nats")
    with pytest.raises(ValueError, match="limit has values ≤ 0"):
        figures.sweep(settings.assign(limit=0), "limit", "end", "tokens", "share", log_x=True)


def test_any_column_may_be_the_horizontal_axis(frame):
    tokens = frame.assign(tokens=frame["step"] * (100 + frame["seed"]))
    line = marked(figures.curves(tokens, "overlap", "share", x="tokens", xlabel="tokens"), "mean:success")
    np.testing.assert_allclose(line.get_xdata(), [101, 202, 303, 404])  # mean over seeds at equal steps
    np.testing.assert_allclose(line.get_ydata(), [0.56, 0.61, 0.66, 0.71])
    caps = frame.rename(columns={"step": "cap"}).assign(step=120)
    line = marked(figures.curves(caps, "overlap", "share", x="cap", xlabel="cap"), "mean:success")
    np.testing.assert_allclose(line.get_xdata(), [1, 2, 3, 4])


def test_a_wide_interval_does_not_flatten_the_curves(frame):
    two = frame[frame["seed"] < 2]
    bottom, top = figures.curves(two, "overlap", "share").axes[0].get_ylim()
    values = two["overlap"]
    assert (bottom, top) == pytest.approx((values.min(), values.max()), abs=0.1 * (values.max() - values.min()))


def test_an_undefined_outcome_is_said_to_be_undefined(frame):
    ends = frame[frame["step"] == 4].assign(recovery=[0.5, 0.6, 0.7, 0.1, float("nan"), 0.2])
    ticks = figures.bars(ends, "recovery", "share").axes[0].get_xticklabels()
    assert [tick.get_text() for tick in ticks] == ["success", "failure\n(undefined)"]


def test_cells_of_few_tokens_do_not_stretch_the_colour_scale(depth):
    scale = marked(figures.heat_maps(depth, "entropy", "nats"), "map:failure").norm
    assert (scale.vmin, scale.vmax) == pytest.approx((0.35, 8.55))
    assert maps.row_edges([1, 10, 20]) == [0.0, 5.5, 15.0, 25.0]
    assert maps.bucket_edges(pd.Series([0, 24, 8])) == [0.0, 8.0, 16.0, 24.0, 32.0]


def overlapping(boxes) -> list[tuple[str, str]]:
    pairs = [(one, other) for place, one in enumerate(boxes) for other in boxes[place + 1 :]]
    return [(one[0], other[0]) for one, other in pairs if one[1].overlaps(other[1])]


@pytest.mark.parametrize("n_arms", [2, 9, 14])
def test_names_neither_collide_nor_leave_the_figure(frame, n_arms):
    one = frame[frame["arm"] == "success"]
    same = pd.concat([one.assign(arm=f"an_arm_with_a_long_name_{place}") for place in range(n_arms)])
    for chart in (
        figures.curves(same, "overlap", "share", [("teacher", 0.71)]),
        figures.panels(same, ["overlap", "loss"], ["Overlap", "Loss"], ["share", "nats"]),
        figures.scatter(same, "loss", "overlap", "nats", "share", "arm"),
    ):
        chart.draw_without_rendering()
        texts = [text for axes in chart.axes for text in axes.texts]
        boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
        assert len(boxes) >= n_arms and not overlapping(boxes)
        assert all(chart.bbox.x0 <= box.x0 and box.x1 <= chart.bbox.x1 for _, box in boxes)
        assert all(chart.bbox.y0 <= box.y0 and box.y1 <= chart.bbox.y1 for _, box in boxes)


def test_labels_are_pushed_apart_and_keep_their_order():
    assert canvas.spread([0.1, 0.9], 0.1) == [0.1, 0.9]
    moved = canvas.spread([0.5, 0.5, 0.52, 0.9], 0.1)
    assert min(np.diff(moved)) >= 0.1 - 1e-12 and moved[3] == 0.9
    assert np.mean(moved[:3]) == pytest.approx(np.mean([0.5, 0.5, 0.52]))
    assert canvas.spread([0.97, 0.98, 0.99], 0.1) == pytest.approx([0.76, 0.86, 0.96])
    assert canvas.spread([0.0, 0.01, 0.12], 0.1) == pytest.approx([0.0, 0.1, 0.2])


def test_an_arm_keeps_its_colour():
    alone, together = colours.colours_of(["failure"]), colours.colours_of(["new", "success", "failure"])
    assert alone["failure"] == together["failure"]
    assert len(set(together.values())) == 3
    assert colours.own_colour("01-compatible") == colours.own_colour("compatible, after") == colours.BLUE
    assert colours.own_colour("nothing-7") is None


@pytest.mark.parametrize("name", sorted(path.stem for path in (paths.PARAMS / "tiny").glob("*.yaml"))[1:11])
def test_trained_arms_of_one_notebook_are_known_and_differ(name):
    arms = [arm for arm, run in params.load(name, "tiny").arms.items() if run.probe is None]
    own = [colours.own_colour(arm) for arm in arms]
    assert None not in own and len(set(own)) == len(own)


def test_families_become_darker_with_their_number():
    for prefix, members in colours.FAMILIES.items():
        shades = [colours.own_colour(f"{prefix}{number:g}") for number in members]
        light = [
            sum(int(shade[i : i + 2], 16) * weight for i, weight in ((1, 0.3), (3, 0.6), (5, 0.1))) for shade in shades
        ]
        assert max(np.diff(light)) < -5
    between = colours.own_colour("limit-100")
    assert between not in (colours.own_colour("limit-80"), colours.own_colour("limit-114"))


def test_arms_of_one_colour_differ_in_their_dashes(frame):
    pair = frame.replace({"arm": {"success": "student, before", "failure": "student, after"}})
    chart = figures.curves(pair, "overlap", "share")
    before, after = (marked(chart, f"mean:student, {when}") for when in ("before", "after"))
    assert before.get_color() == after.get_color() == colours.BLUE
    assert after.get_linestyle() == "-" != before.get_linestyle()
    new = colours.colours_of(["new, before", "new, after", "newer", "student"])
    assert new["new, before"] == new["new, after"] and len(set(new.values())) == 3


def test_rows_of_one_seed_are_averaged_before_seeds_are():
    rows = [("a", 0, 1.0), ("a", 0, 3.0), ("a", 0, 5.0), ("a", 1, 1.0), ("b", 0, 2.0), ("b", 1, float("nan"))]
    frame = pd.DataFrame(rows, columns=["arm", "seed", "value"])
    table = tables.summary(frame, "arm", ["value"])
    assert list(table.columns) == ["arm", "value", "n_seeds"]
    assert table["value"].tolist() == ["2.000 ± 12.706", tables.MISSING]  # mean of 3 and 1, not of 1, 3, 5 and 1
    both = tables.summary(frame.assign(budget="new"), ["arm", "budget"], ["value"], digits=1)
    assert both.iloc[0].tolist() == ["a", "new", "2.0 ± 12.7", 2]


def test_reports_need_no_torch():
    wings = {
        "maths": "stats",
        "records": "reading, record, reference, responses, sealing",
        "judge": "claims, outcomes, paired, prognosis, quantities, register",
        "report": "figures, outputs, tables",
    }
    code = "import sys; " + "".join(f"from opd_lib.{wing} import {modules}; " for wing, modules in wings.items())
    code += "print('torch' in sys.modules, 'matplotlib.pyplot' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False"]
