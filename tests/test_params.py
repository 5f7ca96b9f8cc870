"""Params files: everything required, nothing unknown, one clear error each, and identities that mean something."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import CORPUS, RUN
from ruamel.yaml import YAML

from opd_lib import params, paths
from opd_lib.params import Experiment

CORPUS_STUDENT = {**RUN["student"]}
Edit = Callable[[dict[str, Any]], Any]


def load(world: Path, name: str = "01_opd", **options: Any) -> Experiment:
    return params.load(name, results=world / "results", root=world / "params", **options)


def limits(*steps: int) -> list[dict[str, int]]:
    """A schedule of response limits from these steps on."""
    return [{"step": step, "max_new_tokens": 4} for step in steps]


def edit(world: Path, change: Edit, name: str = "01_opd") -> None:
    path = world / "params" / "tiny" / f"{name}.yaml"
    content = YAML().load(path)
    change(content)
    with path.open("w") as file:
        YAML().dump(content, file)


@pytest.mark.parametrize("path", sorted(paths.PARAMS.glob("*/[0-9]*.yaml")), ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_committed_file_loads_and_all_its_runs_have_identities(path: Path) -> None:
    experiment = params.load(path.stem, path.parent.name)
    runs = experiment.runs()
    assert len({run.identity for run in runs}) == len(runs) == len(experiment.arms) * len(experiment.seeds)


ALONE = paths.PARAMS / "smoke" / "93_methods.yaml"
"""The file that belongs to no notebook: an arm for each method."""
OTHERS = sorted(path for path in paths.PARAMS.glob("*/[0-9]*.yaml") if path.parent.name != "tiny" and path != ALONE)
SAME_EVERYWHERE = ("train.", "evaluate.", "diagnose.")  # sections whose keys depend on neither task nor source


@pytest.mark.parametrize("path", OTHERS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_profiles_of_a_notebook_have_the_same_keys_and_arms_or_say_which_not(path: Path) -> None:
    """Those of the tiny world have them all; one of real mathematics names every arm that only one side has.

    The rehearsal, which nobody reads for results, need not, nor the next tiny world before its switch, with which some
    notebooks begin.
    """
    if path.parent.name == "tiny-next" and not paths.params_file(path.stem, "tiny").exists():
        return
    tiny, other = params.load(path.stem, "tiny"), params.load(path.stem, path.parent.name)
    keys, others = list(tiny.table().index), list(other.table().index)
    if all(arm.task.name == "chain" for arm in other.arms.values()):
        assert (list(tiny.arms), keys) == (list(other.arms), others)
        return
    assert [k for k in keys if k.startswith(SAME_EVERYWHERE)] == [k for k in others if k.startswith(SAME_EVERYWHERE)]
    assert [arm for arm in tiny.arms if arm in other.arms] == [arm for arm in other.arms if arm in tiny.arms]
    if path.parent.name in ("rehearsal", "tiny-next"):
        return
    head = " ".join(line.removeprefix("# ") for line in path.read_text().splitlines() if line.startswith("# "))
    named = {word.strip(".,;:()") for word in head.split()}
    assert {*tiny.arms} ^ {*other.arms} <= named


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["train"].update(stps=3), r"line \d+, arm plain: train\.stps: unknown key; did you mean steps"),
        (lambda c: c["train"].pop("lr"), r"line \d+, arm plain: train\.lr: missing; every key is required"),
        (lambda c: c["train"].update(lr="3e-4"), r"train\.lr: '3e-4': .*number"),
        (lambda c: c["train"].update(steps=1.5), r"train\.steps: 1\.5"),
        (lambda c: c["train"].update(steps=-1), r"train\.steps: -1: .*greater than or equal to 0"),
        (lambda c: c["source"].update(top_p=1.5), r"source\.top_p: 1\.5"),
        (lambda c: c["source"].update(kind="studnt"), r"source.*studnt"),
        (lambda c: c.update(steps=3), r"steps: unknown key"),
        (lambda c: c.pop("title"), r"title: missing"),
        (lambda c: c.update(seeds=5), r"line \d+: seeds: 5: write a list"),
        (lambda c: c.update(seeds="abc"), r"seeds: 'abc': write a list"),
        (lambda c: c.update(seeds=[0, 0]), r"seeds: \[0, 0\]: name at least one, and each once"),
        (lambda c: c.update(seeds=["a"]), r"seeds: 'a' is out of range"),
        (lambda c: c.update(arms=["a"]), r"line \d+: arms: .*write a mapping"),
        (lambda c: c.update(arms={}), r"line \d+: arms: .*at least one entry"),
        (lambda c: c["arms"].update(x=3), r"arms\.x: 3: write a mapping of dotted keys"),
        (lambda c: c["source"].update(temperature=0.7), r"source: temperature 0\.7.*use temperature: 1\.0"),
        (lambda c: c["machine"].update(device="gpu"), r"machine\.device: 'gpu'"),
        (lambda c: c["train"].update(beta2=1.0), r"train\.beta2: 1\.0"),
        (lambda c: c["evaluate"].update(n_problems=10**6), r"evaluate\.n_problems"),
        (lambda c: c["method"].update(name="opdd"), r"opdd.*opd"),
        (lambda c: c["method"].pop("k"), r"method\.k: missing"),
        (lambda c: c["method"].update(kk=3), r"method\.kk: unknown key"),
        (lambda c: c["method"].update(k=129), r"k.*129.*128"),
        (lambda c: c["method"].update(support="everything"), r"method\.support: 'everything'"),
        (lambda c: c.update(teacher=None), r"arm plain: teacher: null"),
        (
            lambda c: c.update(method={"name": "grpo", "normalize_std": True, "epsilon": 1e-6}, source=dict(CORPUS)),
            r"source\.kind: corpus, but method grpo compares rewards",
        ),
        (lambda c: c["task"].update(content="chain-z"), r"task\.content: 'chain-z' is unknown; choose from chain-a"),
        (lambda c: c["task"].update(other_content="chain-z"), r"task\.other_content: 'chain-z' is unknown"),
        (lambda c: c["task"].update(other_share=1.5), r"task\.other_share: 1\.5"),
        (lambda c: c.update(probe={"kind": "rewards", "batches": 1}), r"probe.*rewards"),
        (
            lambda c: c.update(probe={"kind": "reward", "batchs": 1}),
            r"probe\.batchs: unknown key; did you mean batches",
        ),
        (lambda c: c["evaluate"].update(caps=[13]), r"evaluate\.caps: 13 is no lower limit"),
        (lambda c: c["source"].update(schedule=limits(2, 2)), r"source\.schedule: steps \[2, 2\]: name each once"),
        (lambda c: c["source"].update(schedule=limits(2, 9)), r"source\.schedule: .*none beyond train\.steps"),
        (lambda c: c["task"].update(template="T99"), r"task\.template: 'T99' is unknown"),
        (lambda c: c["task"].update(test_sets=["chain-1"]), r"task\.test_sets: 'chain-1'"),
        (lambda c: c["diagnose"].update(ks=[500]), r"diagnose\.ks: 500 is impossible with 128 tokens"),
        (lambda c: c.update(seeds=[0, 1000]), r"seeds: 1000 is out of range"),
        (lambda c: c.update(seeds=[-1]), r"seeds: -1 is out of range"),
        (
            lambda c: c["arms"].update(x={"train.stps": 3}),
            r"arm x: train\.stps: unknown key; did you mean train\.steps",
        ),
        (lambda c: c["arms"].update(x={"train.lr": "big"}), r"line \d+, arm x: train\.lr: 'big'"),
        (
            lambda c: c.update(teacher="run:00_models/nobody"),
            r"01_opd\.yaml: run:00_models/nobody: 00_models has no arm 'nobody'; its arms are student, teacher",
        ),
        (lambda c: c.update(teacher="run:07_nowhere/x"), r"no such params file; this profile has 00_models, 01_opd"),
    ],
)
def test_bad_input_is_one_error_with_file_key_value_and_remedy(world: Path, change: Edit, message: str) -> None:
    edit(world, change)
    with pytest.raises(ValueError, match=message) as error:
        load(world).runs()
    assert ".yaml" in str(error.value)


def test_the_line_in_an_error_is_the_line_in_the_file(world: Path) -> None:
    edit(world, lambda c: c["evaluate"].update(top_p="high"))
    path = world / "params" / "tiny" / "01_opd.yaml"
    line = next(i for i, text in enumerate(path.read_text().splitlines(), 1) if "high" in text)
    with pytest.raises(ValueError, match=rf"01_opd\.yaml, line {line}, arm plain: evaluate\.top_p"):
        load(world)


def test_yaml_that_is_no_yaml_is_named(world: Path) -> None:
    (world / "params" / "tiny" / "01_opd.yaml").write_text("a: [1\nb: 2")
    with pytest.raises(ValueError, match=r"01_opd\.yaml: not valid YAML"):
        load(world)


def test_scientific_notation_is_a_number(world: Path) -> None:
    path = world / "params" / "tiny" / "01_opd.yaml"
    path.write_text(path.read_text().replace("lr: 0.01", "lr: 3e-4"))
    assert load(world).arms["plain"].train.lr == 3e-4


def test_a_circle_of_references_is_refused(world: Path) -> None:
    edit(world, lambda c: c["arms"]["student"].update(student="run:00_models/better"), "00_models")
    edit(world, lambda c: c["arms"]["better"].update(student="run:00_models/student"), "00_models")
    with pytest.raises(ValueError, match="circle"):
        load(world, "00_models").runs()


def test_overrides_reach_every_arm_and_change_the_identity(world: Path) -> None:
    plain, changed = load(world), load(world, overrides={"train.steps": 20})
    assert [p.train.steps for p in changed.arms.values()] == [20, 20]
    assert plain.spec("plain", 0).identity != changed.spec("plain", 0).identity
    with pytest.raises(ValueError, match=r"train\.stepz: unknown key; did you mean train\.steps"):
        load(world, overrides={"train.stepz": 20})


def test_an_identity_covers_seed_and_parents_and_leaves_the_machine_out(world: Path) -> None:
    before = load(world).spec("plain", 0)
    assert load(world).spec("plain", 1).identity != before.identity
    edit(world, lambda c: c["machine"].update(processes=2))
    assert load(world).spec("plain", 0).identity == before.identity
    edit(world, lambda c: c["arms"]["teacher"].update({"train.lr": 0.02}), "00_models")
    after = load(world).spec("plain", 0)
    assert after.identity != before.identity
    assert after.parents["student"].identity == before.parents["student"].identity


def test_committed_records_are_read_and_variants_have_a_folder_of_their_own(world: Path) -> None:
    plain = params.load("01_opd", root=world / "params").spec("plain", 0)
    variant = params.load("01_opd", overrides={"train.steps": 3}, root=world / "params").spec("plain", 0)
    assert plain.folders == tuple(root / "tiny/01_opd/plain/seed0" for root in (paths.RESULTS, paths.LOCAL, paths.LAB))
    assert plain.model_folder.is_relative_to(paths.LAB)
    assert params.load("01_opd", root=world / "params").output == paths.LOCAL / "tiny" / "01_opd"
    assert variant.folder.is_relative_to(paths.LOCAL / "variants")
    assert variant.parents["teacher"].folders == plain.parents["teacher"].folders


def test_a_wrong_value_that_comes_through_a_yaml_merge_is_found(world: Path) -> None:
    path = world / "params" / "tiny" / "01_opd.yaml"
    text = path.read_text().replace(
        "  plain: {}", "  plain: &plain\n    train.lr: 0.5\n  merged: {<<: *plain, train.steps: -1}"
    )
    path.write_text(text)
    with pytest.raises(ValueError, match=r"line \d+, arm merged: train\.steps: -1"):
        load(world)
    path.write_text(text.replace("train.steps: -1", "method.k: 8").replace("train.lr: 0.5", "train.lr: big"))
    with pytest.raises(ValueError, match=r"train\.lr: 'big'"):
        load(world)


def test_the_committed_results_are_no_place_to_train_into(world: Path) -> None:
    with pytest.raises(ValueError, match="only make refresh-outputs writes"):
        params.load("01_opd", results=paths.RESULTS, root=world / "params")


def share(world: Path, changes: dict[str, Any]) -> None:
    """A third notebook whose arm `theirs` is described by `changes`."""
    content = YAML().load(world / "params" / "tiny" / "01_opd.yaml")
    content["arms"] = {"theirs": changes, "own": {"method.k": 4}}
    with (world / "params" / "tiny" / "02_more.yaml").open("w") as file:
        YAML().dump(content, file)


def test_a_shared_arm_is_the_run_of_the_notebook_it_belongs_to(world: Path) -> None:
    share(world, {"same_as": "01_opd/plain"})
    theirs, own = load(world, "02_more").runs()
    original = load(world).spec("plain", 0)
    assert (theirs.name, theirs.identity, theirs.folder) == (original.name, original.identity, original.folder)
    assert theirs.shown_as == ("02_more", "theirs") and own.shown_as == ("02_more", "own")
    assert own.name == "02_more/own/seed0" and own.identity != theirs.identity


def test_overrides_reach_a_shared_run(world: Path) -> None:
    share(world, {"same_as": "01_opd/plain"})
    changed = load(world, "02_more", overrides={"train.steps": 2})
    assert changed.spec("theirs", 0).params.train.steps == 2
    assert changed.spec("theirs", 0).identity == load(world, overrides={"train.steps": 2}).spec("plain", 0).identity


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"same_as": "01_opd/plain", "method.k": 4}, "same_as stands alone"),
        ({"same_as": "01_opd/plan"}, "'plan' is not a run of 01_opd itself; it has plain, sampled"),
        ({"same_as": "02_more/own"}, "write EARLIER_NOTEBOOK/ARM"),
        ({"same_as": "03_later/own"}, "write EARLIER_NOTEBOOK/ARM"),
        ({"same_as": "01_none/own"}, "write EARLIER_NOTEBOOK/ARM"),
    ],
)
def test_what_cannot_be_shared_is_refused(world: Path, changes: dict[str, Any], message: str) -> None:
    share(world, changes)
    with pytest.raises(ValueError, match=message):
        load(world, "02_more")


def test_a_probe_needs_two_checkpoints_and_their_responses(world: Path) -> None:
    probe = {"kind": "reward", "batches": 1}
    assert load(world, overrides={"probe": probe}).arms["plain"].probe is not None
    for overrides, message in (
        ({"student": CORPUS_STUDENT}, "name both student and teacher"),
        ({"source.kind": "teacher"}, "a probe reads the student's responses"),
        ({"machine.processes": 2}, "a probe runs in one process"),
        ({"source.schedule": [{"step": 2, "max_new_tokens": 4}]}, "a probe has no steps"),
    ):
        with pytest.raises(ValueError, match=message):
            load(world, overrides={"probe": probe, **overrides})


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        ({"kind": "teachers", "other": "run:00_models/teacher"}, r"probe\.other: .* is the teacher itself"),
        ({"kind": "continuation", "depths": [], "new_tokens": 4}, r"probe\.depths: .*at least 1 item"),
        ({"kind": "continuation", "depths": [0, 12], "new_tokens": 4}, r"probe\.depths: \[0, 12\] .*at most 12 tokens"),
        ({"kind": "continuation", "depths": [-1], "new_tokens": 4}, r"probe\.depths\.0: -1"),
        ({"kind": "gradient", "tokens": 1, "against": {}}, r"probe\.tokens: 1"),
        ({"kind": "gradient", "tokens": 8, "against": {"normalise": "both"}}, r"normalise: unknown key"),
        ({"kind": "gradient", "tokens": 8, "against": {"normalize": "all"}}, r"normalize: 'all'"),
        ({"kind": "gradient", "tokens": 8, "against": {"k": 129}}, r"method\.k: 129"),
    ],
)
def test_a_probe_with_an_empty_or_trivial_answer_is_refused(world: Path, probe: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(world, overrides={"probe": {"batches": 1, **probe}})
