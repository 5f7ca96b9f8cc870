"""What the paper presupposes is judged, marked on the claims that rest on it, and never counted among them."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from scipy.stats import t
from typer.testing import CliRunner

from opd_lib import params, paths
from opd_lib.batch import refresh
from opd_lib.command.cli import app
from opd_lib.judge import claims, preconditions
from opd_lib.judge.quantities import Evidence
from opd_lib.run import compare, evidence

NOTEBOOK = "04_success_and_failure"
OTHER = "02_new_knowledge"
LEAD = "start('success', 'lead')"

PRECONDITION = """\
  - id: {id}
    statement: "The teacher leads."
    paper: {{value: 0.27, text: ".55 against .28", source: text}}
    notebook: {notebook}
    quantity: "{quantity}"
    mean: {{tiny: {mean}, smoke: {mean}, paper: [0.2, null], gpu: {mean}}}
    seeds: 2
    {more}
    note: "none"
"""
CLAIM = """\
  - id: {id}
    figure: "6"
    statement: "Overlap grows."
    paper: {{value: 0.2, text: ".72 to .92", source: text}}
    notebook: 04_success_and_failure
    quantity: "end('success', 'growth')"
    comparison: ">"
    threshold: {{tiny: 0.02, smoke: 0.02, paper: 0.15, gpu: 0.02}}
    statistic: seeds
    seeds: 3
    rests_on: [{rests_on}]
    note: "none"
"""


def precondition(
    id: str = "P1", mean: str = "[0.1, null]", more: str = "", quantity: str = LEAD, notebook: str = NOTEBOOK
) -> str:
    return PRECONDITION.format(id=id, mean=mean, more=more, quantity=quantity, notebook=notebook)


def write(folder: Path, given: str, *rests_on: str) -> Path:
    """A claims file of these preconditions, and of a claim C0, C1 … for each text of what it rests on."""
    path = folder / "claims.yaml"
    said = "".join(CLAIM.format(id=f"C{i}", rests_on=names) for i, names in enumerate(rests_on))
    listed = f"preconditions:\n{given}" if given else ""
    path.write_text(f"paper: test\nconfidence: 0.95\n{listed}claims:\n{said}")
    return path


def runs(*leads: float, profile: str = "tiny", notebook: str = NOTEBOOK) -> Evidence:
    """A seed for each lead; what the claim asks for is .05, give or take a little."""
    rows = [
        {"arm": "success", "seed": seed, "step": step, "lead": lead, "growth": 0.05 + 0.001 * (seed % 3)}
        for seed, lead in enumerate(leads)
        for step in (1, 2)
    ]
    return Evidence(profile=profile, experiments={notebook: {"steps": pd.DataFrame(rows)}} if rows else {})


SIGN = "each_seed: [0, null]"


@pytest.mark.parametrize(
    ("mean", "more", "leads", "state", "fails"),
    [
        ("[0.1, null]", "", (0.1, 0.2, 0.3), "present", ""),
        ("[0.1, null]", "", (0.0, 0.1, 0.1), "absent", "mean"),
        ("[0.1, null]", "", (0.25, -0.125, 0.25), "present", ""),  # its sign is not asked for
        ("[0.1, null]", SIGN, (0.25, -0.125, 0.25), "absent", "seeds 1"),
        ("[0.1, null]", SIGN, (-0.1, 0.0, 0.1), "absent", "mean; seeds 0, 1"),  # a bound is no part of its range
        ("[null, 0.1]", "", (0.05, 0.05), "present", ""),
        ("[null, 0.125]", "", (0.125, 0.125), "absent", "mean"),
        ("[0.7, 0.82]", "", (0.7, 0.9), "present", ""),
        ("[0.7, 0.82]", "", (0.9, 0.9), "absent", "mean"),
        ("[0.7, 0.82]", "", (0.6, 0.6), "absent", "mean"),
        ("[0, null]", "sd: 0.05", (0.5, 0.56, 0.53), "present", ""),  # .03
        ("[0, null]", "sd: 0.05", (0.5, 0.6, 0.5), "absent", "sd"),  # .058 over n − 1, .047 over n
        ("[0, null]", "sd: 0.05", (0.5,), "open", "sd"),  # one seed has none
        ("[0.1, null]", "", (0.5,), "open", ""),  # and is fewer than the two that were planned
        ("[0.1, null]", SIGN, (-0.5,), "open", "mean; seeds 0"),
        ("[0, null]", SIGN, (0.5, math.nan), "absent", "mean; seeds 1"),
        ("[0, null]", SIGN, (), "not run", ""),
    ],
)
def test_a_precondition_is_judged_by_its_mean_its_seeds_and_their_deviation(
    tmp_path, mean, more, leads, state, fails
) -> None:
    register = claims.load(write(tmp_path, precondition(mean=mean, more=more), "P1"))
    found = preconditions.judge(register, runs(*leads))
    assert found["state"].tolist() == [state] and found["fails"].tolist() == [fails]
    assert found["n_seeds"].tolist() == [len(leads)]


def test_the_table_has_the_papers_value_ours_and_what_is_wanted(tmp_path: Path) -> None:
    given = precondition(mean="[0.1, 0.5]", more=f"{SIGN}\n    sd: 0.2")
    (row,) = preconditions.judge(claims.load(write(tmp_path, given, "P1")), runs(0.1, 0.2, 0.6)).to_dict("records")
    assert row == {
        "id": "P1",
        "statement": "The teacher leads.",
        "paper": ".55 against .28",
        "wanted": "0.1 to 0.5, each > 0, sd < 0.2",
        "mean": pytest.approx(0.3),
        "lowest": 0.1,
        "highest": 0.6,
        "sd": pytest.approx(math.sqrt(0.07)),
        "n_seeds": 3,
        "state": "absent",
        "fails": "sd",
    }


def test_a_profile_has_its_own_bound_and_may_have_no_part(tmp_path: Path) -> None:
    register = claims.load(write(tmp_path, precondition(), "P1"))
    for profile, state in (("tiny", "present"), ("tiny-next", "present"), ("paper", "absent"), ("rehearsal", "absent")):
        assert preconditions.judge(register, runs(0.15, 0.15, profile=profile))["state"].tolist() == [state]
    with pytest.raises(ValueError, match=r"claims\.yaml: precondition P1: no mean for profile 'huge'"):
        preconditions.judge(register, runs(0.15, profile="huge"))
    without = write(tmp_path, precondition(more='elsewhere: {paper: {not_part: "nobody trains"}}'), "P1")
    found = preconditions.judge(claims.load(without), runs(0.15, profile="paper"))
    assert found["state"].tolist() == ["not part of profile paper: nobody trains"] and found["n_seeds"].tolist() == [0]


def test_an_absent_precondition_marks_its_claims_and_changes_no_interval_and_no_verdict(tmp_path: Path) -> None:
    given = precondition("P1") + precondition("P2", mean="[0.9, null]") + precondition("P3", notebook=OTHER)
    marked = claims.judge(claims.load(write(tmp_path, given, "", "P1", "P1, P2", "P2, P3")), runs(0.2, 0.2, 0.2))
    plain = claims.judge(claims.load(write(tmp_path, "", "", "", "", "")), runs(0.2, 0.2, 0.2))
    assert marked["precondition"].tolist() == [
        "",
        "",
        "precondition absent: P2",
        "precondition absent: P2; precondition not run: P3",
    ]
    assert (plain["precondition"] == "").all() and (marked["verdict"] == "holds").all()
    pd.testing.assert_frame_equal(marked.drop(columns="precondition"), plain.drop(columns="precondition"))
    assert "Of 4 claims 4 hold, 0 do not" in claims.summary(marked)
    counted = "were not run (of which 2, 0, 0 and 0 rest on a precondition that is absent). The"
    assert counted in claims.summary(marked) and "of which" not in claims.summary(plain)


def test_a_notebook_has_the_preconditions_that_its_claims_rest_on_and_may_be_given_their_states(tmp_path: Path) -> None:
    given = precondition("P1") + precondition("P2", notebook=OTHER)
    register = claims.load(write(tmp_path, given, "P2"))
    whole = Evidence(
        profile="tiny",
        experiments={**runs(0.2, 0.2, 0.2).experiments, **runs(0.0, 0.0, notebook=OTHER).experiments},
    )
    assert preconditions.judge(register, whole)["id"].tolist() == ["P1", "P2"]
    states = preconditions.judge(register, whole, NOTEBOOK)
    assert states["id"].tolist() == ["P2"] and states["state"].tolist() == ["absent"]
    assert preconditions.judge(register, whole, OTHER).empty
    own = runs(0.2, 0.2, 0.2)
    assert claims.judge(register, own, NOTEBOOK)["precondition"].tolist() == ["precondition not run: P2"]
    assert claims.judge(register, own, NOTEBOOK, states)["precondition"].tolist() == ["precondition absent: P2"]


def test_a_notebooks_preconditions_are_those_of_its_own_runs_and_seeds(tmp_path: Path) -> None:
    def seen(**options: Any) -> dict[str, set[tuple[str, int]]]:
        found = evidence.around(params.load(OTHER, "tiny", **options), ["00_models", "03_reverse_distillation"])
        keys = ["arm", "seed"]
        return {
            name: set(tables["evals"][keys].itertuples(index=False, name=None))
            for name, tables in found.experiments.items()
        }

    whole = evidence.read("tiny", paths.RESULTS)
    for name, runs_of in seen().items():
        rows = whole.experiments[name]["evals"][["arm", "seed"]].drop_duplicates()
        assert runs_of == set(rows.itertuples(index=False, name=None)), name
    assert {seed for runs_of in seen(seeds=[1, 3]).values() for _, seed in runs_of} == {1, 3}
    assert set(seen()) - set(seen(overrides={"train.lr": 2e-3})) == {OTHER}, "what was changed is not there yet"
    assert seen(results=tmp_path) == {}


def test_a_notebook_says_on_top_what_its_claims_lack() -> None:
    judged = pd.DataFrame(
        {
            "id": ["P1", "P2", "P3", "P4", "P5"],
            "statement": ["The teacher leads.", "They are close.", "It is long.", "It is new.", "They differ."],
            "state": ["present", "absent", "not run", "open", "open"],
            "fails": ["", "mean; seeds 3", "", "", "sd"],
        }
    )
    first, second, third, last = preconditions.warning(judged).splitlines()
    assert first == "Precondition absent: P2. They are close. (mean; seeds 3)"
    assert (second, third[-8:]) == ("Preconditions not run: P3.", " P4, P5.") and "fewer seeds" in third
    assert last.startswith("Claims that rest on what is absent or not run are marked")
    assert preconditions.warning(judged[3:]) == third
    assert preconditions.warning(judged[:1]) == "Preconditions of these claims: all 1 present."
    elsewhere = judged[:1].assign(state="not part of profile paper: models are given")
    assert preconditions.warning(elsewhere) == ""
    assert preconditions.warning(pd.concat([judged[:1], elsewhere])) == "Preconditions of these claims: all 1 present."
    assert preconditions.summary(elsewhere).endswith("1 are no part of this profile.")


def test_the_summary_names_what_is_not_there() -> None:
    states = ["present", "absent", "absent", "not run", "open"]
    judged = pd.DataFrame({"id": ["P1", "P2", "P3", "P4", "P5"], "state": states})
    said = "Of 5 preconditions 1 are present, 2 are absent (P2, P3) and 1 were not run (P4)."
    assert preconditions.summary(judged) == f"{said} 1 are open until all seeds are run."
    assert preconditions.summary(judged[:1]).endswith("0 are absent and 0 were not run.")


@pytest.mark.parametrize(
    ("given", "rests_on", "words"),
    [
        (precondition(), "P2", r"claim C0: rests_on: no precondition P2; there are P1"),
        ("", "P2", r"claim C0: rests_on: no precondition P2; there are none; write it under preconditions"),
        (precondition(), "P1, P1", r"claim C0: rests_on: a precondition appears twice"),
        (precondition("C0"), "C0", r"ids of claims or preconditions appear twice: C0"),
        (precondition(mean="[null, null]"), "P1", r"precondition P1: preconditions\.0\.mean\.tiny: .*bounds nothing"),
        (precondition(mean="[0.5, 0.1]"), "P1", r"precondition P1: .*\[0.5, 0.1\] is empty; write the lower bound"),
        (precondition(mean="[0.5, 0.5]"), "P1", r"precondition P1: .*is empty"),
        (precondition(mean="[0.5]"), "P1", r"precondition P1: preconditions\.0\.mean\.tiny"),
        (precondition(mean="0.5"), "P1", r"precondition P1: preconditions\.0\.mean\.tiny"),
        (precondition(mean="[.nan, null]"), "P1", r"precondition P1: preconditions\.0\.mean\.tiny"),
        (precondition(more="sd: 0"), "P1", r"precondition P1: preconditions\.0\.sd: .*greater than 0"),
        (precondition(more="each_seed: [1, 0]"), "P1", r"precondition P1: preconditions\.0\.each_seed"),
        (precondition(more="each: [0, 1]"), "P1", r"precondition P1: preconditions\.0\.each: Extra inputs"),
        (precondition(more="threshold: 1"), "P1", r"precondition P1: preconditions\.0\.threshold: Extra inputs"),
        (precondition(quantity="begin('a')"), "P1", r"precondition P1: .*no function begin"),
        (precondition(id="'../P'"), "P1", r"preconditions\.0\.id"),
    ],
)
def test_a_wrong_precondition_names_file_and_key(tmp_path: Path, given: str, rests_on: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as refused:
        claims.load(write(tmp_path, given, rests_on))
    assert str(tmp_path / "claims.yaml") in str(refused.value)


def test_a_precondition_that_cannot_be_judged_is_named(tmp_path: Path) -> None:
    register = claims.load(write(tmp_path, precondition(quantity="start('success', 'led')"), "P1"))
    with pytest.raises(ValueError, match=r"claims\.yaml: precondition P1: .*no column 'led'"):
        preconditions.judge(register, runs(0.2))


def test_a_profile_is_judged_by_its_own_file_where_it_has_one(tmp_path: Path) -> None:
    (tmp_path / "next").mkdir()
    write(tmp_path, "", "")
    write(tmp_path / "next", "", "", "")
    (tmp_path / "next" / "later.yaml").write_text((tmp_path / "claims.yaml").read_text())
    assert paths.claims_file("claims", "tiny", tmp_path) == paths.claims_file("claims", None, tmp_path)
    of = {profile: [len(each.claims) for each in compare.registers(profile, tmp_path)] for profile in ("tiny", "next")}
    assert of == {"tiny": [1], "next": [2, 1]}


PRESENT = claims.load(paths.claims_file("rethinking_opd"))
NEXT = claims.load(paths.claims_file("rethinking_opd", "tiny-next"))
BECAME_PRECONDITIONS = {"C1a", "C1b", "C2c", "C3a", "C4a", "C7a", "C7e", "C9a"}
OTHER_BOUNDS = {"C4b", "C4c", "C4s", "C8d"}  # differences in overlap
OTHER_QUANTITIES = {"C2a", "C2b", "H9", "C8a", "C8b", "C8c", "C8d", "C8e", "H7a", "H7b", "H8"}
EQUIVALENCES = {"C3b", "C3c", "C3f", "C5a", "C9b", "H5b"}


def test_the_committed_register_has_no_preconditions_and_the_next_one_is_in_force_at_its_profile_alone() -> None:
    assert not PRESENT.preconditions and len(PRESENT.claims) == 75
    for profile in ("tiny", "smoke", "gpu", "paper", "gpu-math", "rehearsal"):
        assert [each.source for each in compare.registers(profile)] == [PRESENT.source]
    faces, core = compare.registers("tiny-next")
    assert core.source == NEXT.source and faces.paper == "arXiv 2605.11182"


def test_the_next_register_is_the_present_one_but_for_what_it_says() -> None:
    before, after = ({claim.id: claim for claim in each.claims} for each in (PRESENT, NEXT))
    assert set(before) - set(after) == BECAME_PRECONDITIONS and set(after) < set(before)
    assert NEXT.confidence == PRESENT.confidence
    changed = {name for name in after if after[name].threshold != before[name].threshold}
    assert changed == OTHER_BOUNDS
    for name in OTHER_BOUNDS:
        assert (after[name].threshold.tiny, before[name].threshold.tiny) == (0.03, 0.02)
        assert after[name].threshold.paper == before[name].threshold.paper
    assert {name for name in after if after[name].quantity != before[name].quantity} == OTHER_QUANTITIES | EQUIVALENCES
    for name, claim in after.items():
        assert claim.seeds == 10 and claim.rests_on, name
        assert claim.comparison == ("within" if name in EQUIVALENCES else before[name].comparison)
        assert name not in EQUIVALENCES or f"abs({claim.quantity})" == before[name].quantity
        assert claim.elsewhere == before[name].elsewhere
        assert claim.threshold.smoke == claim.threshold.tiny == claim.threshold.gpu
        assert name in {"C2a", "C2b"} or claim.paper == before[name].paper


def test_every_precondition_of_the_next_register_has_claims_and_one_range_for_the_tiny_worlds() -> None:
    named = {name for claim in NEXT.claims for name in claim.rests_on}
    assert named == {each.id for each in NEXT.preconditions}
    assert {re.sub(r"[a-z]$", "", name) for name in named} == {f"P{n}" for n in range(1, 10)}
    was = {found for each in NEXT.preconditions for found in re.findall(r"^Was claim (\w+)", each.note)}
    assert was == BECAME_PRECONDITIONS
    for each in NEXT.preconditions:
        assert each.mean.smoke == each.mean.tiny == each.mean.gpu, each.id
        low, high = each.mean.tiny
        value = each.paper.value
        assert value is None or ((low is None or value >= low) and (high is None or value <= high)), each.id


def test_an_interval_of_ten_seeds_is_as_wide_as_the_next_register_says() -> None:
    (said,) = re.findall(r"([\d.]+) standard deviations to each side", Path(NEXT.source).read_text())
    assert NEXT.claims[0].seeds == 10
    assert round(t.ppf((1 + NEXT.simultaneous) / 2, 9) / math.sqrt(10), 1) == float(said)


def test_the_next_register_can_be_judged_on_records_and_the_command_prints_it(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[pd.DataFrame] = []
    planned = tuple(each.model_copy(update={"seeds": 5}) for each in NEXT.preconditions)  # as many as there are
    register = NEXT.model_copy(update={"preconditions": planned})
    for module in (compare, refresh):
        monkeypatch.setattr(module, "registers", lambda profile: [register])
    monkeypatch.setattr(refresh, "write_claims", lambda judged, profile, results: written.append(judged) or results)
    result = CliRunner().invoke(app, ["claims"])
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert max(map(len, lines)) <= 106  # 100, but where a small mean has its decimals
    ids = [line.split()[0] for line in lines if re.match(r"[PCH]\d+[a-z]? ", line)]
    assert ids == [said.id for said in (*NEXT.preconditions, *NEXT.claims)]
    (judged,) = written
    states = preconditions.judge(register, refresh.found("tiny", paths.RESULTS)).set_index("id")["state"]
    assert states["P2a"] == "present" and states["P1d"] == "absent" and states["P4a"] == "not run"
    absent = judged["precondition"].str.startswith("precondition absent")
    rests = {claim.id: any(states[name] == "absent" for name in claim.rests_on) for claim in NEXT.claims}
    assert dict(zip(judged["id"], absent, strict=True)) == rests and 0 < absent.sum() < len(judged)
    assert set(judged["verdict"]) == {"inconclusive", "not run"}  # five seeds of ten
