"""Tables print the same text and figures the same bytes for the same numbers; neither needs torch."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from opd_lib import paths
from opd_lib.report import figures, reference, tables


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
        }
    )
    lines = tables.show(tables.verdict_table(judged, width=30)).splitlines()
    assert len(lines) == 5 and max(map(len, lines)) < 125
    assert "[0.00010, 0.00030]" in lines[2] and lines[2].endswith("holds")


def test_hyper_parameters_stand_beside_the_papers():
    table = tables.hyper_parameters(reference.read("table2_opd"), {"top-k": 16, "learning rate": "1e-3"})
    ours = table.set_index("item")["ours"]
    assert ours["top-k"] == "16" and ours["learning rate"] == "1e-3" and ours["epochs"] == tables.MISSING
    with pytest.raises(ValueError, match="topk"):
        tables.hyper_parameters(reference.read("table2_opd"), {"topk": 16})


def test_reference_files_are_tidy():
    sources = {"text", "teaser", "plot", "text+teaser", "table 1", "table 2", "table 3", "code"}
    for path in sorted(paths.REFERENCE.glob("*.csv")):
        frame = reference.read(path.stem)
        assert set(frame["source"]) <= sources, path.name
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


def all_charts(frame, evals) -> dict[str, figures.Chart]:
    paper = reference.curve(reference.read("fig01_right"), "overlap_k16")
    ends = frame[frame["step"] == 4]
    return {
        "curves": figures.curves(frame, "overlap", "share", [("teacher", 0.6)]),
        "panels": figures.panels(frame, ["overlap", "loss"], ["Overlap", "Loss"], ["share", "nats"]),
        "accuracy": figures.accuracy_panels(evals, {"teacher": {"chain-3": 0.9, "chain-4": 0.9}}),
        "beside": figures.beside_paper(frame, "overlap", paper, "share"),
        "bars": figures.bars(ends, "overlap", "share", {"success": 0.8}),
    }


def lines(axes) -> dict[str, np.ndarray]:
    return {line.get_gid(): np.asarray(line.get_ydata(), dtype=float) for line in axes.get_lines() if line.get_gid()}


def test_plotted_numbers_are_the_frame_means(frame, evals):
    charts = all_charts(frame, evals)
    for chart, place in (("curves", 0), ("panels", 0), ("beside", 1)):
        drawn = lines(charts[chart].axes[place])
        for arm in ("success", "failure"):
            mean = frame[frame["arm"] == arm].groupby("step")["overlap"].mean()
            np.testing.assert_allclose(drawn[f"mean:{arm}"], mean)
    chain_4 = evals[(evals["test_set"] == "chain-4") & (evals["arm"] == "justrl-small")]
    drawn = lines(charts["accuracy"].axes[1])
    np.testing.assert_allclose(drawn["mean:justrl-small"], chain_4.groupby("step")["accuracy"].mean())
    np.testing.assert_allclose(drawn["reference:teacher"], 0.9)
    paper = reference.curve(reference.read("fig01_right"), "overlap_k16")
    np.testing.assert_allclose(
        lines(charts["beside"].axes[0])["mean:success"], paper[paper["arm"] == "success"]["value"]
    )
    bar = {patch.get_gid(): patch.get_height() for patch in charts["bars"].axes[0].patches}
    assert bar == pytest.approx({"mean:success": 0.71, "mean:failure": 0.51})


def test_the_same_numbers_give_the_same_bytes(frame, evals, tmp_path):
    for round_ in ("first", "second"):
        for name, chart in all_charts(frame, evals).items():
            figures.save(chart, tmp_path / round_ / f"{name}.svg")
    files = sorted((tmp_path / "first").iterdir())
    assert [file.suffix for file in files] == [".svg"] * 5
    for file in files:
        data = file.read_bytes()
        assert data == (tmp_path / "second" / file.name).read_bytes()
        assert not re.search(rb"<dc:date>", data)


def test_a_chart_shows_itself_in_a_notebook(frame):
    assert figures.curves(frame, "overlap", "share")._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="1 columns, 2 titles"):
        figures.panels(frame, ["overlap"], ["a", "b"], ["share"])


def test_labels_are_pushed_apart_and_keep_their_order():
    assert figures.spread([0.1, 0.9], 0.1) == [0.1, 0.9]
    moved = figures.spread([0.5, 0.5, 0.52, 0.9], 0.1)
    assert min(np.diff(moved)) >= 0.1 - 1e-12 and moved[3] == 0.9
    assert np.mean(moved[:3]) == pytest.approx(np.mean([0.5, 0.5, 0.52]))


def test_an_arm_keeps_its_colour():
    alone, together = figures.colours_of(["failure"]), figures.colours_of(["new", "success", "failure"])
    assert alone["failure"] == together["failure"]
    assert len(set(together.values())) == 3


def test_reports_need_no_torch():
    modules = "claims, figures, quantities, reference, tables"
    code = f"import sys; from opd_lib.maths import stats; from opd_lib.report import {modules}; "
    code += "print('torch' in sys.modules, 'matplotlib.pyplot' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False"]
