"""What a method may say beside its value, in whole runs: the streamed step is the plain one, nothing of the teacher's
reaches the student, reductions hold to the bit, killed runs resume to the same bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import micro
import pandas as pd
import pytest
import seams
import torch
from conftest import CORPUS
from seams import ARMS, A, B, require_same_bytes_after_a_kill, spec_of

from opd_lib import methods
from opd_lib.engine import batches, first_batch, plain, setup, shown, sources, train, view
from opd_lib.engine.credit import Credit
from opd_lib.engine.model import distributed, models
from opd_lib.engine.running import ActiveRun
from opd_lib.params import RunSpec
from opd_lib.params.spec import FINISHED
from opd_lib.records import record
from opd_lib.tasks import tool
from opd_lib.types import Rollouts

BETWEEN = ("prune", "opsd-ema", "opsdc", "eff_opd")
OWN = (
    "def value(scores, params):\n    return params.options['scale'] * (scores.student_logp_N - scores.teacher_logp_N)\n"
)
OTHERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "sampled": {"method.estimator": "sampled"},
    "full": {"method.estimator": "full"},
    "grpo": {"method": {"name": "grpo", "normalize_std": True, "epsilon": 1e-6}, "teacher": None, "student": B},
    "sft": {"method": {"name": "sft"}, "teacher": None, "source": CORPUS},
    "own": {"method": {"name": "own", "source": OWN, "k": 4, "options": {"scale": 2.0}}},
}
"""Arms of the methods that say nothing beside their value but advantages."""
EVERY = {**ARMS, **OTHERS, "brts": ARMS["brts"] | {"method": ARMS["brts"]["method"] | {"coef": 0.5}}}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world with its models trained."""
    return seams.made(tmp_path_factory.mktemp("seams"))


def begun(spec: RunSpec) -> tuple[ActiveRun, Rollouts]:
    """The run with its first batch."""
    run = setup.start(spec, distributed.ALONE, None, False)
    return run, train.draw(run, 1)


def gradient(run: ActiveRun) -> torch.Tensor:
    parameters = run.student[0].parameters()
    return torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]).double()


# --- one step --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", EVERY)
def test_the_streamed_step_is_the_plain_one(made: Path, tmp_path: Path, arm: str) -> None:
    """Value and gradient, in small micro-batches and chunks, with weights, selected responses and routed teachers.

    Of a method that acts between steps it is the second step, of one with branches each part by itself.
    """
    changes = {"train.micro_tokens": 60, "machine.logits_gib": 2e-5}
    run, rollouts = begun(spec_of(made, tmp_path, f"{arm}-small", **EVERY[arm], **changes))
    step = 1
    if run.world:
        train.act_between_steps(run, {"step": 0})
        train.act_between_steps(run, train.update(run, rollouts, step))
        step, rollouts = 2, train.draw(run, 2)
    parts = [(run, rollouts, 1.0), *((branch, train.draw(branch, step), coef) for coef, branch in run.branches)]
    assert len(parts) == 1 + (arm in ("brts", "stable"))
    for part, answered, coef in parts:
        drawn = replace(answered, reward_B=(torch.arange(len(answered.prompts)) % 3 == 0).float())  # some right ones
        assert part.chunk < int(drawn.length_B.max())
        run.student[0].zero_grad()
        note = train.accumulate(part, drawn, step, coef)
        streamed_W = gradient(run)
        run.student[0].zero_grad()
        uniform_B, group = view.uniform(part, drawn, step), sources.group_size(part.spec.params.source)
        teacher = part.teacher and part.teacher[0]
        total = plain.loss(part.student[0], teacher, drawn, part.method, part.options, group, uniform_B)
        (coef * total).backward()
        relative = float((gradient(run) - streamed_W).norm() / streamed_W.norm())
        assert relative < 2e-5 and float(streamed_W.norm()) > 0
        assert note.mean_loss == pytest.approx(total.item(), abs=2e-6)


def test_no_method_is_left_out_of_the_plain_step() -> None:
    assert {changes.get("method", {"name": "opd"})["name"] for changes in EVERY.values()} == {*methods.names()}


def test_a_step_on_nothing_changes_no_gradient(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, rollouts = begun(spec_of(made, tmp_path, "prune"))
    monkeypatch.setattr(view, "assign", lambda method, options, seen: Credit(selected_B=seen.finished_B & False))
    note = train.accumulate(run, rollouts, 1)
    assert note.n_tokens == 0 and not gradient(run).any()
    row = note.write(0.0, {})
    assert row["loss"] == 0.0 and row["response_length"] == float(rollouts.length_B.double().mean())


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda seen, _: -torch.ones(len(seen.token_N)), r"method prune: weights has -1; use 0 or more"),
        (lambda seen, _: torch.ones(3), r"weights has shape \(3,\); it must have"),
        (lambda seen, _: torch.full((len(seen.token_N),), torch.inf), "weights has numbers that are not finite"),
    ],
)
def test_a_view_that_breaks_its_contract_is_one_error(made: Path, tmp_path: Path, result: Any, message: str) -> None:
    run, rollouts = begun(spec_of(made, tmp_path, "prune"))
    run.method = replace(run.method, weights=result)
    with pytest.raises(ValueError, match=message):
        train.accumulate(run, rollouts, 1)


def test_a_method_may_see_its_teacher_through_weights_alone(made: Path, tmp_path: Path) -> None:
    """The gate recomputes them under the other teacher; without them nothing would depend on it."""
    run, rollouts = begun(spec_of(made, tmp_path, "prune"))
    likelihood = replace(run.method, value=lambda scores, params: -scores.student_logp_N)
    run.method = likelihood
    first_batch.require_gates(run, rollouts)
    run.method = replace(likelihood, weights=lambda seen, params: torch.ones(len(seen.token_N)))
    with pytest.raises(ValueError, match="does not depend on the teacher"):
        first_batch.require_gates(run, rollouts)


# --- what the teacher is shown ---------------------------------------------------------------------------------------


def test_the_live_student_behind_its_own_prompt_has_nothing_to_learn(made: Path, tmp_path: Path) -> None:
    method = ARMS["opsd"]["method"] | {"shows": "{question}"}
    run, rollouts = begun(spec_of(made, tmp_path, "opsd", method=method))
    assert rollouts.shown is not None
    assert [p.token_ids for p in rollouts.shown] == [p.token_ids for p in rollouts.prompts]
    note = train.accumulate(run, rollouts, 1)
    assert note.write(0.0, {})["loss"] == 0.0 and float(gradient(run).norm()) < 1e-6


def test_the_hint_is_in_the_teachers_input_and_in_no_other(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, rollouts = begun(spec_of(made, tmp_path, "opsd"))
    assert rollouts.shown is not None and run.student[0] is run.teacher[0]  # type: ignore[index]
    for own, told in zip(rollouts.prompts, rollouts.shown, strict=True):
        assert told.rendered == own.rendered.replace(" <a>", f" <ans> {own.answer} <a>") != own.rendered
    inputs: list[tuple[bool, set[tuple[int, ...]]]] = []
    forward = type(run.student[0].get_decoder()).forward

    def watched(self: Any, input_ids: torch.Tensor, **options: Any) -> Any:
        inputs.append((torch.is_grad_enabled(), {tuple(row) for row in input_ids.tolist()}))
        return forward(self, input_ids=input_ids, **options)

    monkeypatch.setattr(type(run.student[0].get_decoder()), "forward", watched)
    train.accumulate(run, rollouts, 1)
    answer = run.student[1].convert_tokens_to_ids("<ans>")
    end = run.student[1].convert_tokens_to_ids("<a>")
    prompts = {trained: [row[: row.index(end)] for row in rows] for trained, rows in inputs}
    assert set(prompts) == {True, False}
    assert all(answer not in row for row in prompts[True]) and all(answer in row for row in prompts[False])


def test_the_hint_is_before_the_author_of_hinted_responses_and_nobody_else(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all that the models read in a step of brts it is in the prompts of one author, while that writes."""
    hint, per_prompt = "<reserved0> <reserved1> <reserved2>", 3
    method = ARMS["brts"]["method"] | {"hint": f"{{question}} {hint} {{answer}}"}
    run, rollouts = begun(spec_of(made, tmp_path, "brts", method=method))
    ((coef, branch),) = run.branches
    assert run.teacher is not None and branch.spec.params.source.per_prompt == per_prompt  # type: ignore[union-attr]
    readers = {id(run.student[0].get_decoder()): "student", id(run.teacher[0].get_decoder()): "teacher"}
    inputs: list[tuple[str, str, tuple[int, ...]]] = []
    doing, forward = "drawing", type(run.student[0].get_decoder()).forward

    def watched(self: Any, input_ids: torch.Tensor, **options: Any) -> Any:
        inputs.extend((doing, readers[id(self)], tuple(row)) for row in input_ids.tolist())
        return forward(self, input_ids=input_ids, **options)

    monkeypatch.setattr(type(run.student[0].get_decoder()), "forward", watched)
    own, written = train.draw(run, 1), train.draw(branch, 1)
    doing = "training"
    for part, drawn, share in ((run, own, 1.0), (branch, written, coef)):
        assert train.accumulate(part, drawn, 1, share).n_tokens
    assert {(what, who) for what, who, _ in inputs} == {
        (what, who) for what in ("drawing", "training") for who in ("student", "teacher")
    }
    *hint_ids, end = run.student[1].convert_tokens_to_ids([*hint.split(), "<a>"])

    def place(row: tuple[int, ...]) -> int:
        """Where the hint begins, -1 if it is not there."""
        return next((i for i in range(len(row)) if [*row[i : i + len(hint_ids)]] == hint_ids), -1)

    hinted = [(what, who, row) for what, who, row in inputs if place(row) >= 0]
    assert {(what, who) for what, who, _ in hinted} == {("drawing", "teacher")}
    answers = [run.student[1].convert_tokens_to_ids(prompt.answer) for prompt in written.prompts[::per_prompt]]
    assert sorted(row[place(row) + len(hint_ids)] for _, _, row in hinted) == sorted(answers)
    assert all(place(row) < row.index(end) for _, _, row in hinted)
    for drawn in (rollouts, own, written):
        responses = [tuple(row) for row in drawn.response_BT.tolist()]
        assert all(place(row) < 0 for row in [*responses, *(prompt.token_ids for prompt in drawn.prompts)])
        assert not any(hint in p.rendered or hint in str(p.chat) for p in (*drawn.prompts, *drawn.for_teacher))


def test_a_chat_that_is_too_long_or_lacking_is_refused(made: Path, tmp_path: Path) -> None:
    run, rollouts = begun(spec_of(made, tmp_path, "opsd"))
    chats = [(("user", "7 " * 200),)] * len(rollouts.prompts)
    with pytest.raises(ValueError, match=r"method opsd: what the teacher is shown and a response have \d+ tokens"):
        shown.rendered(run, rollouts.prompts, chats, 12)
    with pytest.raises(ValueError, match="shows 2 chats for 8 responses"):
        shown.rendered(run, rollouts.prompts, chats[:2], 12)


def test_a_named_model_writes_the_same_when_it_is_asked_the_same(made: Path, tmp_path: Path) -> None:
    run, rollouts = begun(spec_of(made, tmp_path, "uni_opd"))
    chats = [prompt.chat for prompt in rollouts.prompts[:3]]
    first, again = (shown.speaker(run, 4)("one", chats) for _ in range(2))
    say = shown.speaker(run, 4)
    assert first == again and len(first) == 3 and say("one", chats) == first != say("one", chats)
    with pytest.raises(ValueError, match="no model 'three'; there are student, one, two"):
        say("three", chats)


# --- turns -----------------------------------------------------------------------------------------------------------


def called(made: Path, tmp_path: Path) -> tuple[ActiveRun, Rollouts]:
    """A student that calls in half of its steps, and responses with room for several turns."""
    return begun(spec_of(made, tmp_path, "tools", **ARMS["sod"] | {"student": A, "source.max_new_tokens": 40}))


def test_what_a_tool_says_is_read_and_counts_for_nothing_else(made: Path, tmp_path: Path) -> None:
    run, rollouts = called(made, tmp_path)
    assert rollouts.own_BT is not None and rollouts.turn_BT is not None
    texts = sources.decode(rollouts, run.student[1])
    said = [(row, place) for row, place in (~rollouts.own_BT).nonzero().tolist() if place < rollouts.length_B[row]]
    assert said and int(rollouts.turn_BT.max()) > 0
    for row, text in enumerate(texts):
        words = text.split()
        for place in range(1, len(words)):
            if words[place - 1] == tool.CALL:
                answer = tool.respond("", " ".join(words[:place]))
                assert answer and answer.split()[0] == words[place] and not rollouts.own_BT[row, place]
    token_N, row_N, position_N = batches.packed(rollouts, torch.arange(len(texts)))
    assert len(token_N) == int(rollouts.n_own_B.sum()) == int(rollouts.length_B.sum()) - len(said)
    assert not {*zip(row_N.tolist(), position_N.tolist(), strict=True)} & {*said}
    assert train.accumulate(run, rollouts, 1).n_tokens == len(token_N)


def test_no_gradient_comes_from_what_a_tool_says(made: Path, tmp_path: Path) -> None:
    """The gradient of a response is that of its own tokens alone, each with everything before it as context."""
    run, rollouts = called(made, tmp_path)
    assert rollouts.own_BT is not None
    row = int((rollouts.length_B - rollouts.n_own_B).argmax())
    likelihood = replace(run.method, value=lambda scores, params: -scores.student_logp_N, advantages=None)
    objective = replace(run.objective, method=likelihood)
    scaled, *_ = objective(run.student[0], run.teacher[0], rollouts, torch.tensor([row]))  # type: ignore[index]
    scaled.backward()
    streamed_W = gradient(run)
    run.student[0].zero_grad()
    prompt, length = list(rollouts.prompts[row].token_ids), int(rollouts.length_B[row])
    whole = torch.tensor([[*prompt, *rollouts.response_BT[row, :length].tolist()]])
    logp_T = run.student[0](whole).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    picked_T = logp_T.gather(1, whole[0, len(prompt) :, None])[:, 0]
    (-picked_T[rollouts.own_BT[row, :length]].sum()).backward()
    torch.testing.assert_close(streamed_W, gradient(run), rtol=1e-4, atol=1e-6)


def test_the_limit_counts_what_the_tool_says_and_numbers_belong_to_places(made: Path, tmp_path: Path) -> None:
    run, rollouts = called(made, tmp_path)
    uniform_BT = torch.rand((8, 40), generator=torch.Generator().manual_seed(3))
    long, short = (run.sample(*run.student, rollouts.prompts, uniform_BT[:, :n], 1.0, 1.0) for n in (40, 9))
    assert int(short.length_B.max()) == 9 and int(long.length_B.max()) > 9
    for row, n in enumerate(short.length_B.tolist()):
        assert short.response_BT[row, :n].equal(long.response_BT[row, :n])
    last = run.sample(*run.student, rollouts.prompts[-1:], uniform_BT[-1:], 1.0, 1.0)
    assert last.response_BT[0].equal(long.response_BT[-1, : last.response_BT.shape[1]])
    first_batch.require_gates(run, rollouts)  # the sampler's log-probabilities are the trainer's, turn by turn


# --- whole runs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", ARMS)
def test_every_method_trains(made: Path, tmp_path: Path, arm: str) -> None:
    done = train.train(spec_of(made, tmp_path, arm))
    assert done.status == FINISHED
    steps = done.frame("steps")
    assert len(steps) == 6 and steps["loss"].notna().all() and (steps["grad_norm"] > 0).all()
    if arm == "prune":
        assert steps["source.max_new_tokens"].tolist()[0] == 8 and steps["source.max_new_tokens"].nunique() > 1
        assert (steps["response_length"] <= steps["source.max_new_tokens"]).all()
    if arm == "brts":
        assert {"teacher.loss", "teacher.n_tokens", "teacher.tier1"} <= set(steps.columns)
    if arm == "eff_opd":
        assert steps["tried_tokens"].tolist()[0] == 0 and steps["tried_tokens"].is_monotonic_increasing


SAME = ("step", "loss", "grad_norm", "n_tokens", "response_length", "reward", "overlap_k4", "reverse_kl")


@pytest.mark.parametrize(
    ("arm", "changes", "as_arm"),
    [
        ("prune", {"threshold": 0.0, "limit_step": 0}, "plain"),
        ("eff_opd", {"k_max": 0}, "plain"),
        ("brts", {"coef": 0.0}, "plain"),
        ("stable", {"near": 0.0, "golden": 0.0, "corpus": {}}, "plain"),
        ("opsdc", {"renew": 0, "decay": 0.9}, "opsd-ema"),
        ("vopd", {"baseline": "none"}, "sampled"),
        ("uni_opd", {"route": {}, "margin": None, "balance": False, "extreme": 1e6}, "sampled"),
    ],
)
def test_a_reduction_is_the_other_method_to_the_bit(
    made: Path, tmp_path: Path, arm: str, changes: dict[str, Any], as_arm: str
) -> None:
    method = ARMS[arm]["method"] | changes
    alike = {
        "uni_opd": {"teacher": A, "task.other_share": 0.0, "source.per_prompt": 2},
        "opsdc": {"student": "run:00_models/student"},
    }
    specs = spec_of(made, tmp_path, arm, method=method, **alike.get(arm, {})), spec_of(made, tmp_path, as_arm)
    records = [train.train(spec) for spec in specs]
    tables = [found.frame("steps")[list(SAME)] for found in records]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    weights = [(found.folder / "model" / "model.safetensors").read_bytes() for found in records]
    assert weights[0] == weights[1]


def test_a_renewed_teacher_is_the_student_of_that_step(made: Path, tmp_path: Path) -> None:
    asked = {"method": ARMS["opsdc"]["method"] | {"shows": "{question}"}, "teacher": B}
    rows = train.train(spec_of(made, tmp_path, "opsdc", **asked)).frame("steps").set_index("step")["reverse_kl"]
    assert rows[[1, 3, 5]].abs().max() < 1e-6 < rows[[4, 6]].min(), "shown what the student is, it agrees when new"


def test_stable_holds_the_student_near_its_start(made: Path, tmp_path: Path) -> None:
    method = ARMS["stable"]["method"] | {"golden": 0.0, "corpus": {}}
    teachers = {"expert": A, "start": "run:00_models/student"}
    start = models.load(str(micro.load(made).spec("student", 0).model_folder))[0].state_dict()
    away = {}
    for near in (0.0, 20.0):
        arm = {"method": method | {"near": near}, "teacher": teachers}
        trained = train.train(spec_of(made, tmp_path / str(near), "stable", **arm))
        end = models.load(str(trained.folder / "model"))[0].state_dict()
        away[near] = sum(float((end[name] - start[name]).norm()) for name in start)
    assert away[20.0] < 0.9 * away[0.0]


@pytest.mark.parametrize("arm", [*BETWEEN, "brts", "stable"])
def test_a_killed_run_resumes_to_the_same_bytes(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arm: str
) -> None:
    whole, broken = (spec_of(made, tmp_path / name, arm) for name in ("whole", "broken"))
    require_same_bytes_after_a_kill(whole, broken, monkeypatch)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": "self", "machine.teacher_url": "http://a:1"}, "teacher: self, but machine.teacher_url"),
        ({"teacher": "self", "source.kind": "teacher"}, "teacher: self, but source.kind: teacher"),
        ({"teacher": {"one": A}}, "teacher: several by name, but method opd knows one teacher"),
        (ARMS["opsd"] | {"teacher": None}, "teacher: null, but method opsd"),
        ({"student": {"merge": {A: 0.5}}}, r"student\.merge: .*at least 2"),
    ],
)
def test_what_a_seam_cannot_do_is_refused_with_the_reason(made: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        micro.load(made, micro.OPD, overrides={"arms.mine": changes})


def test_a_merged_student_is_the_weighted_sum_of_its_checkpoints(made: Path, tmp_path: Path) -> None:
    spec = spec_of(made, tmp_path, "merged", student={"merge": {A: 0.25, B: 0.75}})
    assert set(spec.parents) == {f"student.{A}", f"student.{B}", "teacher"}
    merged, _ = setup.make_student(spec)
    one, two = (sources.models.load(spec.parents[f"student.{name}"].model_folder)[0] for name in (A, B))
    states = [dict(model.state_dict()) for model in (merged, one, two)]
    for name, tensor in states[0].items():
        torch.testing.assert_close(tensor, 0.25 * states[1][name] + 0.75 * states[2][name])
    same = spec_of(made, tmp_path, "same", student={"merge": {A: 0.5, f"{A}@0": 0.5}})
    assert setup.make_student(same)[0].state_dict()["lm_head.weight"].equal(states[1]["lm_head.weight"])
    assert record.read(tmp_path / "merged") is None
