"""An objective from a notebook cell: exact, refused with one error, found by its text; and the shipped checkpoints."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import micro
import pytest
import torch
from test_methods_exact import close, draw, score
from test_params import edit

from opd_lib import methods, params, paths
from opd_lib.batch import redraw, refresh
from opd_lib.engine import train
from opd_lib.engine.model import models
from opd_lib.methods import _own_guards, own
from opd_lib.params.spec import MODEL, ROLLOUTS, RunSpec
from opd_lib.records import files, parameters, record
from opd_lib.run import check, evidence, plan

NOTEBOOK = "92_your_own_method"
CELLS = json.loads((paths.NOTEBOOKS / f"{NOTEBOOK}.ipynb").read_text())["cells"]
(CELL,) = ("".join(cell["source"]) for cell in CELLS if "method" in cell["metadata"].get("tags", []))
SHIPPED = {arm: paths.run_folder("tiny", "00_models", arm, 0) for arm in refresh.SHIPPED}


def section(text: str = CELL, k: int = 16, **options: float) -> dict[str, Any]:
    return {"name": "own", "source": text.rstrip() + "\n", "k": k, "options": options}


def value_of(expression: str) -> str:
    """A function whose values (N) are this expression of the candidates `c`."""
    return f"def value(scores, params):\n    c = scores.candidates\n    return {expression}\n"


def older(expression: str, n_tokens: str = "len(scores.token_N)") -> str:
    """A function that returns the sum of these values and their number, as texts did before there was `value`."""
    return (
        "def loss(scores, params):\n    from opd_lib.types import Loss\n    c = scores.candidates\n"
        f"    return Loss(total=({expression}).sum(), n_tokens={n_tokens})\n"
    )


BLIND = "c.student_logp_NC.exp().masked_fill(c.student_rank_NC >= params.k, 0.0).sum(-1)"
LOG_RATIO = "(scores.student_logp_N - scores.teacher_logp_N).detach()"
CENTRED = f"({LOG_RATIO} - {LOG_RATIO}.mean()) * (1 + scores.student_logp_N - scores.student_logp_N.detach())"
FULL = "(c.student_logp_NC.exp() * (c.student_logp_NC - c.teacher_logp_NC)).sum(-1)"


# --- the objective ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [0, 1, 2])
@pytest.mark.parametrize("extra", [0, 2])
def test_value_and_gradient_of_the_notebooks_cell_are_those_of_its_equation(power: int, extra: int) -> None:
    """By explicit sums over the three likeliest tokens, whatever longer lists the diagnostics ask for."""
    student_NV, teacher_NV, token_N = draw()
    k = 3
    value, rows = 0.0, []
    for p, q in zip(student_NV.softmax(-1).tolist(), teacher_NV.softmax(-1).tolist(), strict=True):
        top = sorted(range(len(p)), key=lambda v: -p[v])[:k]
        p_in, q_in = (math.fsum(x[v] for v in top) for x in (p, q))
        ratio = {v: math.log(p[v] / p_in) - math.log(q[v] / q_in) for v in top}
        kl = math.fsum(p[v] / p_in * ratio[v] for v in top)
        h = (-math.fsum(p[v] / p_in * math.log(p[v] / p_in) for v in top) / math.log(k)) ** power
        value += h * kl
        rows.append([h * p[v] / p_in * (ratio[v] - kl) if v in top else 0.0 for v in range(len(p))])
    leaf_NV = student_NV.clone().requires_grad_()
    method = methods.load("own")
    options = method.Params(source=CELL, k=k, options={"power": power})
    found_N = method.value(score(leaf_NV, teacher_NV, token_N, k + extra), options)
    close(found_N.sum().detach(), value)
    close(torch.autograd.grad(found_N.sum(), leaf_NV)[0], torch.tensor(rows, dtype=torch.float64))
    assert found_N.shape == token_N.shape


def test_a_batch_may_be_scored_in_parts_also_of_one_token() -> None:
    student_NV, teacher_NV, token_N = draw(n=5)
    for text in (CELL, older(FULL), value_of(FULL)):
        options = own.Params(source=text, k=3, options={"power": 1})
        whole_N = own.value(score(student_NV.requires_grad_(), teacher_NV, token_N, 3), options)
        parts = [
            own.value(score(student_NV[part], teacher_NV[part], token_N[part], 3), options).sum()
            for part in (slice(0, 1), slice(1, 5))
        ]
        close(whole_N.sum().detach(), float(sum(part.item() for part in parts)))


def test_a_text_that_returns_a_sum_has_the_value_and_the_gradient_of_one_that_returns_values() -> None:
    student_NV, teacher_NV, token_N = draw(n=5)
    found = []
    for text in (older(FULL), value_of(FULL)):
        leaf_NV = student_NV.clone().requires_grad_()
        options = own.Params(source=text, k=3, options={})
        total = own.value(score(leaf_NV, teacher_NV, token_N, 3), options).sum()
        found.append((total.detach(), torch.autograd.grad(total, leaf_NV)[0]))
    close(found[0][0], found[1][0])
    close(found[0][1], found[1][1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (value_of("math.log(2) * " + FULL), r"NameError: name 'math' is not defined; a run knows .* import inside it"),
        (value_of("c.student_logits_NC.sum(-1)"), r"AttributeError: .*student_logits_NC.*read what .*TokenScores"),
        (value_of("params.options['tau'] * " + FULL), r"KeyError: 'tau'; .*method\.options"),
        (older(FULL + ".mean()"), r"its two halves; a token's value must depend on that token alone"),
        (value_of(FULL + " / len(scores.token_N)"), r"its two halves"),
        (value_of(f"{FULL} - {FULL}.mean().detach()"), r"its two halves"),
        (value_of(FULL + " / c.student_logp_NC.exp().max().detach()"), r"two halves"),
        (older(CENTRED), r"another gradient at a token of a batch than at the same token of half the batch"),
        (value_of(FULL + ".sum()"), r"value returned a tensor of shape \(\) for 4 tokens; return one number per token"),
        (value_of(FULL + "[None]"), r"value returned a tensor of shape \(1, 4\) for 4 tokens"),
        (older(FULL).replace(".sum()", ""), r"loss returned Loss\(.*return a tensor of one number per token"),
        (older(FULL, "7"), r"counts 7 tokens of 4; count every one"),
        (value_of("c.teacher_logp_NC.sum(-1)"), r"do not depend on the student's log-probabilities"),
        ("def value(scores, params):\n    return 0.5\n", r"value returned 0\.5"),
        (value_of("(c.student_logp_NC @ c.student_logp_NC).sum(-1)"), r"RuntimeError: .*read what .*TokenScores"),
        (value_of("c.student_logp_NC[:, 99]"), r"IndexError: "),
        (value_of("1 / 0 * " + FULL), r"ZeroDivisionError: "),
        (value_of("__import__('nowhere').x * " + FULL), r"ModuleNotFoundError: "),
        ("x = 1 / 0\n" + value_of(FULL), r"ZeroDivisionError: "),
        (value_of(FULL) + "del value\n", r"KeyError: 'loss'"),
        (
            "import nowhere\ndef value(scores, params):\n    return 0\n",
            r"ModuleNotFoundError: No module named 'nowhere'",
        ),
    ],
)
def test_a_loss_that_breaks_the_contract_is_one_error(text: str, message: str) -> None:
    student_NV, teacher_NV, token_N = draw()
    scores = score(student_NV.requires_grad_(), teacher_NV, token_N, 3)
    with pytest.raises(ValueError, match=rf"(?s)^method\.source: .*{message}"):
        own.value(scores, own.Params(source=text, k=3, options={}))


def test_halves_that_cancel_are_rounded_as_large_sums_are() -> None:
    _own_guards.require_alone(torch.tensor(0.004), torch.tensor(0.0), 2e4)
    _own_guards.require_alone(torch.tensor([math.inf, 1e4]), torch.tensor([math.inf, 1e4]), math.inf)
    for whole, halves in ((0.004, 0.0), (1e4, 2e4), (1.0, math.nan)):
        with pytest.raises(ValueError, match="its two halves"):
            _own_guards.require_alone(torch.tensor(whole), torch.tensor(halves), abs(halves))


def test_a_few_tokens_may_have_nothing_to_train_with() -> None:
    """The half of a batch, or none of its tokens."""
    text = (
        "def loss(scores, params):\n    import torch\n    from opd_lib.types import Loss\n"
        "    mine = [x for x, at in zip(scores.student_logp_N, scores.position_N.tolist()) if at >= 3]\n"
        "    return Loss(total=torch.stack(mine).sum() if mine else torch.zeros(()), n_tokens=len(scores.token_N))\n"
    )
    student_NV, teacher_NV, token_N = draw(n=5)
    leaf_NV = student_NV.clone().requires_grad_()
    found_N = own.value(score(leaf_NV, teacher_NV, token_N, 2), own.Params(source=text, k=2, options={}))
    (gradient_NV,) = torch.autograd.grad(found_N.sum(), leaf_NV)
    assert found_N.shape == (5,) and gradient_NV.any(1).tolist() == [False] * 3 + [True] * 2


def test_a_lack_of_memory_is_not_blamed_on_the_text() -> None:
    student_NV, teacher_NV, token_N = draw()
    text = "def value(scores, params):\n    import torch\n    raise torch.OutOfMemoryError('full')\n"
    with pytest.raises(torch.OutOfMemoryError):
        own.value(score(student_NV, teacher_NV, token_N, 3), own.Params(source=text, k=3, options={}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "def value(scores, params)\n    return 0\n"}, r"method\.source, line 1: expected ':'"),
        ({"source": value_of(FULL) + "return 3\n"}, r"method\.source, line 4: 'return' outside function: 'return 3'"),
        ({"source": "def lose(scores, params):\n    return 0\n"}, r"defines no function value"),
        ({"source": "def value(scores):\n    return 0\n"}, r"value takes 1 arguments; take \(scores, params\)"),
        ({"k": 129}, r"method\.k: 129: the vocabulary has 128 tokens"),
        ({"k": 0}, r"method\.k: 0: .*greater than or equal to 1"),
        ({"sorce": ""}, r"method\.sorce: unknown key; did you mean source"),
    ],
)
def test_a_text_that_is_no_objective_is_refused_before_anything_runs(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        params.load(NOTEBOOK, overrides={"arms.yours": {"method": section(power=1) | changes}})


def test_the_text_of_a_function_is_taken_where_it_stands() -> None:
    def value(scores: Any, params: Any) -> Any:
        return scores

    found = own.method(value, k=4, tau=0.5)
    assert found["source"] == "def value(scores: Any, params: Any) -> Any:\n    return scores\n"
    assert (found["k"], found["options"]) == (4, {"tau": 0.5})
    with pytest.raises(ValueError, match="close: the function of an objective is called value"):
        own.method(close, k=4)
    namespace: dict[str, Any] = {}
    exec("def loss(scores, params):\n    return scores\n", namespace)
    with pytest.raises(ValueError, match="its text is not to be had"):
        own.method(namespace["loss"], k=4)


# --- its place among runs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["tiny", "smoke"])
def test_the_notebooks_cell_is_the_committed_arm_and_another_text_is_another_run(profile: str) -> None:
    plain = params.load(NOTEBOOK, profile)
    same = params.load(NOTEBOOK, profile, {"arms.yours": {"method": section(power=1)}})
    assert not same.varied and same.runs() == plain.runs() and same.output == plain.output
    edited = CELL.replace("undecided.pow(", "(1.0 - undecided).pow(")
    assert edited != CELL
    other = params.load(NOTEBOOK, profile, {"arms.yours": {"method": section(edited, power=1)}})
    assert other.varied == {"yours"} and other.output != plain.output
    assert other.spec("paper", 0) == plain.spec("paper", 0)
    before, after = plain.spec("yours", 0), other.spec("yours", 0)
    assert before.identity != after.identity and not {*before.folders} & {*after.folders}
    options = params.load(NOTEBOOK, profile, {"arms.yours": {"method": section(power=2)}})
    assert len({before.identity, after.identity, options.spec("yours", 0).identity}) == 3


def test_overrides_may_add_an_arm_and_reach_it_together_with_all_others(world: Path) -> None:
    asked = {"arms.mine": {"method.k": 3}, "train.steps": 4}
    experiment = micro.load(world, micro.OPD, overrides=asked)
    assert [*micro.load(world, micro.OPD).arms, "mine"] == [*experiment.arms]
    assert experiment.arms["mine"].method["k"] == 3 and {p.train.steps for p in experiment.arms.values()} == {4}
    assert experiment.varied == {*experiment.arms}
    with pytest.raises(ValueError, match=r"overrides: arms\.mine: 3: write a mapping of dotted keys"):
        micro.load(world, micro.OPD, overrides={"arms.mine": 3})
    with pytest.raises(ValueError, match=r"arm mine of 01_opd: method\.kk: unknown key; did you mean method\.k"):
        micro.load(world, micro.OPD, overrides={"arms.mine": {"method.kk": 3}})


def test_an_override_of_an_arm_keeps_what_the_file_says_of_it_besides(world: Path) -> None:
    k4 = params.load("10_support_size", overrides={"arms.k4": {"train.lr": 1e-4}})
    assert (k4.arms["k4"].method["k"], k4.arms["k4"].train.lr) == (4, 1e-4) and k4.varied == {"k4"}
    micro.change_arm(world, micro.OPD, "plain", {"method.k": 8, "train.lr": 0.5})
    other = micro.load(world, micro.OPD).arms["sampled"].method | {"k": 5}
    found = micro.load(world, micro.OPD, overrides={"arms.plain": {"method": other}}).arms["plain"]
    assert found.method["k"] == 5 and found.train.lr == 0.5, "a replaced mapping takes what stood below it along"


def test_an_arm_that_is_another_notebooks_run_is_not_changed_under_its_name() -> None:
    asked = {"train.lr": 1e-4}
    with pytest.raises(ValueError, match=r"arms\.failure: .*02_new_knowledge/distill-large.*choose a new one, such as"):
        params.load("04_success_and_failure", overrides={"arms.failure": asked})
    added = params.load("04_success_and_failure", overrides={"arms.failure-mine": asked})
    assert added.varied == {"failure-mine"} and set(added.shared) >= {"success", "failure"}


def test_a_run_trains_on_a_text_and_passes_the_gates(world: Path) -> None:
    micro.teach(world)
    for arm in ("student", "teacher"):
        train.train(micro.load(world).spec(arm, 0))
    good = {"arms.mine": {"method": section(k=4, power=1)}}
    done = train.train(micro.load(world, micro.OPD, overrides=good).spec("mine", 0))
    assert done.status == "finished" and done.gates["teacher_dependence"] > 0.01
    assert done.params["method"]["source"] == CELL.rstrip() + "\n"
    blind = {"arms.blind": {"method": section(value_of(BLIND), k=4)}}
    with pytest.raises(ValueError, match="the gradient does not depend on the teacher"):
        train.train(micro.load(world, micro.OPD, overrides=blind).spec("blind", 0))


def test_a_checkpoint_may_be_that_of_one_seed_at_every_seed(world: Path) -> None:
    edit(world, lambda c: c.update(student="run:00_models/student@0"))
    one, two = (micro.load(world, micro.OPD).spec("plain", seed) for seed in (3, 4))
    assert one.parents["student"].name == two.parents["student"].name == "00_models/student/seed0"
    assert one.parents["teacher"].seed == 3 and one.identity != two.identity
    assert parameters.made_by_run("run:00_models/student@0") == "student"
    for seed, message in (("x", "'x' is no seed; write run:NOTEBOOK/ARM@0"), ("1000", "seeds: 1000 is out of range")):
        edit(world, lambda c, seed=seed: c.update(student=f"run:00_models/student@{seed}"))
        with pytest.raises(ValueError, match=message):
            micro.load(world, micro.OPD).spec("plain", 3)


# --- shipped checkpoints ---------------------------------------------------------------------------------------------


def place(world: Path, make: Callable[[Any], None] = lambda spec: None) -> tuple[Any, Any]:
    """A student's run that looks in two folders, and the run that makes its teacher, recorded in the first one."""
    child = micro.load(world, micro.OPD).spec("plain", 0)
    first, last = world / "shipped", world / "results"
    parents = {}
    for role, parent in child.parents.items():
        shipped = paths.run_folder("tiny", parent.experiment, parent.arm, 0, first)
        micro.write_record(replace(parent, folders=(shipped,)))
        (shipped / MODEL).mkdir()
        parents[role] = replace(parent, folders=(shipped, last / "tiny" / parent.experiment / parent.arm / "seed0"))
    make(parents["teacher"])
    return replace(child, parents=parents), parents["teacher"]


def test_a_committed_checkpoint_is_loaded_and_not_trained_again(world: Path) -> None:
    child, teacher = place(world)
    assert teacher.weights == teacher.folders[0] / MODEL and plan.trained(teacher)
    assert child.checkpoint("teacher") == str(teacher.folders[0] / MODEL)
    assert [spec.name for spec in plan.missing([child])] == [child.name]
    assert teacher.model_folder == teacher.folders[-1] / MODEL, "what a run makes never goes to the committed results"


@pytest.mark.parametrize("how", ["other parameters", "no weights", "not finished"])
def test_a_record_that_is_not_this_runs_or_has_no_weights_does_not_count(world: Path, how: str) -> None:
    def spoil(spec: Any) -> None:
        if how == "no weights":
            (spec.folders[0] / MODEL).rmdir()
            return
        there = replace(spec, folders=spec.folders[:1])
        changes = {"identity": "0" * 16} if how == "other parameters" else {"status": "running"}
        micro.write_record(there, **changes)

    child, teacher = place(world, spoil)
    assert teacher.weights is None and child.checkpoint("teacher") == str(teacher.model_folder)
    if how != "other parameters":  # which is an error that says so
        assert not plan.trained(teacher) and teacher.name in [spec.name for spec in plan.missing([child])]


def test_with_a_results_folder_of_its_own_nothing_is_taken_from_the_committed(tmp_path: Path) -> None:
    by_default, from_nothing = (params.load(NOTEBOOK, results=folder).spec("paper", 0) for folder in (None, tmp_path))
    assert {parent.weights for parent in by_default.parents.values()} == {
        SHIPPED[arm] / MODEL for arm in ("distill-small", "justrl-small")
    }
    assert [parent.weights for parent in from_nothing.parents.values()] == [None, None]
    names = [spec.name for spec in plan.missing([from_nothing])]
    assert names == [f"00_models/{arm}/seed0" for arm in ("base-small", "distill-small", "justrl-small")] + [
        "92_your_own_method/paper/seed0"
    ]


def test_what_started_from_committed_weights_is_not_taken_by_what_trains_from_nothing(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed = world / "committed"
    for name, place in (("RESULTS", committed), ("LOCAL", committed / "local"), ("LAB", committed / "local" / "lab")):
        monkeypatch.setattr(paths, name, place)
    for spec in micro.load(world).runs():
        shipped = replace(spec, folders=(paths.run_folder("tiny", micro.MODELS, spec.arm, 0, committed),))
        micro.write_record(shipped)
        shipped.model_folder.mkdir()
    by_default = params.load(micro.OPD, root=world / "params").spec("plain", 0)
    from_nothing = params.load(micro.OPD, results=paths.LOCAL, root=world / "params").spec("plain", 0)
    assert plan.missing([by_default]) == (by_default,) and by_default.folder.is_relative_to(paths.LAB)
    micro.write_record(by_default)
    by_default.model_folder.mkdir()
    assert plan.missing([by_default]) == () and plan.trained(by_default)
    assert [spec.name for spec in plan.missing([from_nothing])] == [
        *(parent.name for parent in from_nothing.parents.values()),
        from_nothing.name,
    ]
    assert plan.finished(from_nothing) is None and from_nothing.weights is None
    assert not evidence.records("tiny", paths.LOCAL)
    micro.write_record(from_nothing)
    found = plan.finished(by_default)
    assert found is not None and found.folder == from_nothing.folder, "what was trained from nothing comes first"


@pytest.mark.parametrize("kind", ["rollouts", "reward"])
def test_a_finished_probe_is_found_where_it_stands(world: Path, kind: str) -> None:
    plain = micro.load(world, micro.OPD).spec("plain", 0)
    probe = SimpleNamespace(kind=kind)
    places = (world / "first", world / "last")
    spec: Any = SimpleNamespace(params=SimpleNamespace(probe=probe), folders=places, folder=places[-1])
    spec.identity, spec.made = plain.identity, lambda name: RunSpec.made(spec, name)
    assert not plan.trained(spec)
    micro.write_record(replace(plain, folders=places[:1]))
    assert plan.trained(spec) == (kind != "rollouts"), "stored responses are not committed with their record"
    (places[0] / ROLLOUTS).mkdir()
    assert plan.trained(spec) and RunSpec.made(spec, ROLLOUTS) == places[0] / ROLLOUTS


def test_every_shipped_checkpoint_is_the_one_that_committed_runs_started_from() -> None:
    """So a student distilled from it here is, on the same versions, the committed one byte for byte."""
    digests: dict[str, set[str]] = {arm: set() for arm in SHIPPED}
    for run in (run for notebook in paths.RESULTS.glob("tiny/0*") for run in files.of_notebook(notebook)):
        if run.name != "seed0":
            continue
        found = record.read(run)
        assert found is not None
        for role in ("student", "teacher"):
            arm = parameters.made_by_run(str(found.params[role]))
            if arm in digests and found.provenance.get(f"{role}_weights"):
                digests[arm].add(found.provenance[f"{role}_weights"])
    for arm, folder in SHIPPED.items():
        assert digests[arm] == {models.weights_digest(models.load(folder / MODEL)[0])}, arm
        present = record.read(folder)
        assert present is not None and present.identity == params.load("00_models").spec(arm, 0).identity


def test_no_other_checkpoint_is_committed_and_together_they_are_small() -> None:
    folders = {path for path in paths.RESULTS.glob("tiny/**/model") if path.is_dir()}
    assert folders == {folder / MODEL for folder in SHIPPED.values()}
    assert sum(path.stat().st_size for folder in folders for path in folder.iterdir()) < 6.5e6


def test_a_refresh_copies_the_weights_of_shipped_runs_alone(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refresh, "SHIPPED", ("student",))
    specs = [micro.load(world).spec(arm, seed) for arm in ("student", "teacher") for seed in (0, 1)]
    for spec in specs:
        micro.write_record(spec)
        spec.model_folder.mkdir()
        (spec.model_folder / "config.json").write_text("{}")
    refresh.commit_records(specs, world / "committed")
    assert [path.parts[-4:-1] for path in sorted((world / "committed").rglob("config.json"))] == [
        ("student", "seed0", MODEL)
    ]


def test_a_pair_of_shipped_checkpoints_can_be_checked_without_training() -> None:
    pair = check.Pair(student="run:00_models/distill-small", teacher="run:00_models/justrl-small")
    found = [Path(check.locate(name, pair)) for name in (pair.student, pair.teacher)]
    assert found == [SHIPPED["distill-small"] / MODEL, SHIPPED["justrl-small"] / MODEL]


# --- drawn again without a kernel ------------------------------------------------------------------------------------


def test_redrawing_leaves_out_cells_that_measure_and_finds_the_text_of_others(tmp_path: Path) -> None:
    def cell(text: str, *tags: str) -> dict[str, Any]:
        return {"cell_type": "code", "source": text, "metadata": {"tags": list(tags)}}

    seen = tmp_path / "seen.txt"
    cells = [
        cell("a = 1", "parameters"),
        cell("raise RuntimeError('a checkpoint was loaded')", redraw.MEASURES),
        cell(CELL, "method"),
        cell(f"import inspect\nfrom pathlib import Path\nPath({str(seen)!r}).write_text(inspect.getsource(loss))"),
    ]
    (tmp_path / "x.ipynb").write_text(json.dumps({"cells": cells}))
    redraw.execute(tmp_path / "x.ipynb", {})
    assert seen.read_text().rstrip() == CELL.rstrip()
    assert inspect.getsource(redraw.execute).startswith("def execute"), "other sources are found as before"
