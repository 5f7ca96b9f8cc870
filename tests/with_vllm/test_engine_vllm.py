"""The vLLM engine is the trainer: same log-probabilities, same distribution, new weights after every step.

Needs vLLM, which the ordinary environment has not: `make test-vllm` builds one that has, and runs this file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import conftest
import micro
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

if find_spec("vllm") is None:
    pytest.skip("no vllm in this environment: make test-vllm", allow_module_level=True)

from opd_lib.engine import gates, score, train
from opd_lib.engine.model import models
from opd_lib.engine.sampling import handover, rollout, rollout_vllm
from opd_lib.engine.sampling.rollout_vllm import Engine
from opd_lib.engine.sources import Model
from opd_lib.params.schema import Machine
from opd_lib.records import record
from opd_lib.tasks import chain
from opd_lib.types import Prompt, Rollouts

MACHINE = Machine.model_validate(conftest.RUN["machine"] | {"sampler": "vllm", "max_sampler_gap": 1e-5})
CONTEXT = 320


def new_model(tied: bool, seed: int = 0) -> Model:
    """A small Qwen3 over the tiny world's vocabulary, with logits far enough apart to prefer some tokens."""
    config = Qwen3Config(
        vocab_size=len(chain.VOCABULARY),
        num_hidden_layers=2,
        hidden_size=64,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        intermediate_size=96,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=tied,
        initializer_range=0.2,
    )
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(config), models.chain_tokenizer()


def make_prompts(n: int, model: Model, length: int = 5) -> list[Prompt]:
    """Prompts of different lengths, of random words."""
    ids = torch.randint(4, len(chain.VOCABULARY), (n, 3 * length), generator=models.generator("prompts")).tolist()
    rows = [tuple(row[: length + index % (2 * length)]) for index, row in enumerate(ids)]
    return [
        Prompt(id=str(i), source="", question="", rendered="", token_ids=row, answer="") for i, row in enumerate(rows)
    ]


def numbers(n: int, limit: int, *purpose: object) -> Tensor:
    return torch.rand(n, limit, generator=models.generator("numbers", *purpose))


def trainer_logp(model: PreTrainedModel, rows: list[list[int]]) -> list[list[float]]:
    """Log-probability of every token but the first, by transformers alone."""
    found = []
    for row in rows:
        with torch.no_grad():
            logp_TV = model(torch.tensor([row])).logits[0, :-1].log_softmax(-1)
        found.append(logp_TV.gather(1, torch.tensor(row[1:])[:, None])[:, 0].tolist())
    return found


def gap_between(one: list[list[float]], two: list[list[float]]) -> float:
    """Largest difference over all tokens."""
    return max(abs(x - y) for a, b in zip(one, two, strict=True) for x, y in zip(a, b, strict=True))


@pytest.fixture(scope="module")
def student() -> Model:
    return new_model(tied=False)


@pytest.fixture(scope="module")
def engine(student: Model) -> Engine:
    made = Engine(student[0], MACHINE, CONTEXT, sleeps=False)
    made.refresh(student[0], make_prompts(4, student))
    return made


@pytest.fixture(scope="module")
def sampled(engine: Engine, student: Model) -> Rollouts:
    return engine.sample(*student, make_prompts(96, student), numbers(96, 60), 1.0, 1.0)


def test_responses_obey_limit_and_stop(sampled: Rollouts, student: Model) -> None:
    end, pad = student[1].eos_token_id, student[1].pad_token_id
    assert 0 < int(sampled.finished_B.sum()) < 96, "the test needs both kinds"
    for row, length, finished in zip(
        sampled.response_BT.tolist(), sampled.length_B.tolist(), sampled.finished_B.tolist(), strict=True
    ):
        assert (end in row[:length]) == finished
        assert length == (row.index(end) + 1 if finished else 60)
        assert all(token == pad for token in row[length:])
    assert sampled.response_BT.shape == sampled.sampler_logp_BT.shape == (96, int(sampled.length_B.max()))
    assert sampled.response_BT.dtype == sampled.length_B.dtype == torch.int64 and sampled.reward_B.isnan().all()
    assert [p.id for p in sampled.prompts] == [str(i) for i in range(96)]


def test_a_checkpoint_may_name_several_end_tokens(engine: Engine, student: Model) -> None:
    model, tokenizer = student
    prompts, uniform_BT = make_prompts(32, student), numbers(32, 20)
    before = model.generation_config.eos_token_id
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, 7, 9, 11, 13, 15, 17]
    try:
        stop = set(models.stop_ids(model, tokenizer))
        rollouts = engine.sample(model, tokenizer, prompts, uniform_BT, 1.0, 1.0)
    finally:
        model.generation_config.eos_token_id = before
    last = [row[n - 1] for row, n in zip(rollouts.response_BT.tolist(), rollouts.length_B.tolist(), strict=True)]
    assert len(set(last) & stop) > 1, "the test needs several of them"
    for row, n, finished in zip(
        rollouts.response_BT.tolist(), rollouts.length_B.tolist(), rollouts.finished_B.tolist(), strict=True
    ):
        assert not stop & set(row[: n - 1]) and (row[n - 1] in stop) == finished


def test_the_samplers_log_probabilities_are_the_trainers(sampled: Rollouts, student: Model) -> None:
    with torch.no_grad():
        scores = score.score(student[0], None, sampled, torch.arange(96), k=0)
    assert len(scores.token_N) > 1000 and gates.sampler_gap(sampled, scores) < 1e-5


def test_prompt_log_probabilities_are_those_of_transformers(engine: Engine, student: Model) -> None:
    rows = [list(prompt.token_ids) for prompt in make_prompts(16, student, length=20)]
    assert gap_between(engine.logp(rows), trainer_logp(student[0], rows)) < 1e-5


def test_sampler_log_probabilities_are_those_at_temperature_one(engine: Engine, student: Model) -> None:
    rollouts = engine.sample(*student, make_prompts(16, student), numbers(16, 10), 0.5, 0.6)
    with torch.no_grad():
        scores = score.score(student[0], None, rollouts, torch.arange(16), k=0)
    assert gates.sampler_gap(rollouts, scores) < 1e-5


def test_at_a_very_low_temperature_both_samplers_say_the_same(engine: Engine, student: Model) -> None:
    """As long as the first choice leads by 0.2 nats at every token (at temperature 0.01 a factor of e^20)."""
    prompts, uniform_BT = make_prompts(200, student), numbers(200, 12)
    ours, theirs = (sample(*student, prompts, uniform_BT, 0.01, 1.0) for sample in (engine.sample, rollout.sample))
    compared = 0
    for row, prompt in enumerate(prompts):
        length = int(theirs.length_B[row])
        tokens = theirs.response_BT[row, :length].tolist()
        whole, begin = torch.tensor([[*prompt.token_ids, *tokens]]), len(prompt.token_ids) - 1
        with torch.no_grad():
            first_T, second_T = student[0](whole).logits[0, begin:-1].topk(2).values.unbind(-1)
        clear = int((first_T - second_T > 0.2).int().cumprod(0).sum())
        compared += clear
        assert ours.response_BT[row, :clear].tolist() == tokens[:clear], (row, clear, first_T - second_T, tokens)
        if clear == length:
            assert int(ours.length_B[row]) == length and bool(ours.finished_B[row]) == bool(theirs.finished_B[row])
    assert compared > 200, "the test needs clear choices"


def test_a_response_depends_on_its_prompt_and_numbers_not_on_its_batch(
    engine: Engine, student: Model, sampled: Rollouts
) -> None:
    prompts, uniform_BT = make_prompts(96, student), numbers(96, 60)
    order = [*range(95, 40, -1), 3, 7]
    for rows in (order, [5], [80, 5], [17] * 3):
        again = engine.sample(*student, [prompts[r] for r in rows], uniform_BT[rows], 1.0, 1.0)
        for place, row in enumerate(rows):
            n = int(sampled.length_B[row])
            assert int(again.length_B[place]) == n
            assert again.response_BT[place, :n].tolist() == sampled.response_BT[row, :n].tolist()
    others = engine.sample(*student, prompts[:8], numbers(8, 60, "others"), 1.0, 1.0)
    width = min(others.response_BT.shape[1], sampled.response_BT.shape[1])
    assert not torch.equal(others.response_BT[:, :width], sampled.response_BT[:8, :width])
    shorter = engine.sample(*student, prompts[:8], uniform_BT[:8, :9], 1.0, 1.0)
    for row in range(8):
        n = min(9, int(sampled.length_B[row]))
        assert shorter.response_BT[row, :n].tolist() == sampled.response_BT[row, :n].tolist()


def test_neither_a_crowded_batch_nor_a_small_cache_changes_a_response(engine: Engine, student: Model) -> None:
    """More prompt tokens than vLLM takes at once; then a cache so small that it must begin some anew."""
    prompts, uniform_BT = make_prompts(300, student, length=12), numbers(300, 30)
    assert sum(len(prompt.token_ids) for prompt in prompts) > 4096
    crowded = engine.sample(*student, prompts, uniform_BT, 1.0, 1.0)
    small = Engine(student[0], MACHINE.model_copy(update={"sampler_cache_gib": 2**-10}), CONTEXT, sleeps=False)
    long, more_BT = make_prompts(24, student, length=110), numbers(24, 60, "long")
    dropped = []
    preempt = type(small.llm.llm_engine.engine_core.engine_core.scheduler)._preempt_request
    with pytest.MonkeyPatch.context() as patch:
        scheduler = small.llm.llm_engine.engine_core.engine_core.scheduler
        patch.setattr(scheduler, "_preempt_request", lambda *a, **k: dropped.append(a) or preempt(scheduler, *a, **k))
        tight = small.sample(*student, long, more_BT, 1.0, 1.0)
    assert dropped, "the test needs a cache that is too small"
    for rollouts, asked, given in ((crowded, prompts, uniform_BT), (tight, long, more_BT)):
        for row in range(0, len(asked), 5):
            alone = engine.sample(*student, [asked[row]], given[row : row + 1], 1.0, 1.0)
            n = int(alone.length_B)
            assert int(rollouts.length_B[row]) == n
            assert rollouts.response_BT[row, :n].tolist() == alone.response_BT[0].tolist()
    with torch.no_grad():
        scores = score.score(student[0], None, tight, torch.arange(24), k=0)
    assert gates.sampler_gap(tight, scores) < 1e-5


def expected(logits_V: Tensor, temperature: float, top_p: float) -> Tensor:
    """Probabilities of sampling, by definition: the most likely tokens until their mass reaches top_p, renormalised."""
    probability_V = (logits_V.double() / temperature).softmax(-1)
    kept_V = torch.zeros_like(probability_V)
    mass = 0.0
    for token in probability_V.argsort(descending=True).tolist():
        if mass >= top_p:
            break
        kept_V[token] = probability_V[token]
        mass += float(probability_V[token])
    return kept_V / kept_V.sum()


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.6, 1.0), (1.0, 0.7), (0.8, 0.9)])
def test_frequencies_are_those_of_the_distribution(
    engine: Engine, student: Model, temperature: float, top_p: float
) -> None:
    """χ² over the tokens expected at least 8 times among 4,000 first tokens, the rest pooled."""
    n = 4000
    prompt = make_prompts(1, student)[0]
    rollouts = engine.sample(*student, [prompt] * n, numbers(n, 1, temperature, top_p), temperature, top_p)
    observed_V = rollouts.response_BT[:, 0].bincount(minlength=len(chain.VOCABULARY)).double()
    with torch.no_grad():
        expected_V = n * expected(student[0](torch.tensor([prompt.token_ids])).logits[0, -1], temperature, top_p)
    assert float(observed_V[expected_V == 0].sum()) == 0
    often = expected_V >= 8
    pairs = [(observed_V[often], expected_V[often])]
    if float(expected_V[~often].sum()) >= 8:
        pairs.append((observed_V[~often].sum()[None], expected_V[~often].sum()[None]))
    seen, due = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    statistic, freedom = float(((seen - due) ** 2 / due).sum()), len(due) - 1
    assert freedom >= 4
    survival = 1 - float(torch.special.gammainc(torch.tensor(freedom / 2.0), torch.tensor(statistic / 2.0)))
    assert survival > 1e-3, (statistic, freedom)


def test_responses_to_one_prompt_are_independent(engine: Engine, student: Model) -> None:
    """Second tokens do not repeat the first ones' random numbers: pairs are as frequent as the model says."""
    n, prompt = 3000, make_prompts(1, student)[0]
    rollouts = engine.sample(*student, [prompt] * n, numbers(n, 2, "pairs"), 1.0, 1.0)
    with torch.no_grad():
        first_V = student[0](torch.tensor([prompt.token_ids])).logits[0, -1].softmax(-1)
        top = int(first_V.argmax())
        second_V = student[0](torch.tensor([[*prompt.token_ids, top]])).logits[0, -1].softmax(-1)
    rows = (rollouts.response_BT[:, 0] == top).nonzero()[:, 0]
    observed_V = rollouts.response_BT[rows, 1].bincount(minlength=len(second_V)) / len(rows)
    error_V = (second_V * (1 - second_V) / len(rows)).sqrt()
    likely = second_V > 0.03
    assert len(rows) > 100 and int(likely.sum()) > 2
    assert float(((observed_V - second_V).abs() / error_V)[likely].max()) < 4


def step(model: PreTrainedModel, rate: float = 0.05) -> None:
    """One optimiser step that moves every weight."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    logits = model(torch.randint(4, 100, (4, 12), generator=models.generator("step"))).logits
    logits.logsumexp(-1).square().mean().backward()
    optimizer.step()
    model.zero_grad()


@pytest.fixture(scope="module")
def tied() -> tuple[Model, Engine]:
    model = new_model(tied=True, seed=1)
    return model, Engine(model[0], MACHINE, CONTEXT, sleeps=False)


@pytest.mark.parametrize("kind", ["untied", "tied"])
def test_after_a_step_the_engine_has_the_new_weights(kind: str, engine: Engine, tied: tuple[Model, Engine]) -> None:
    model, engine = tied if kind == "tied" else (new_model(tied=False, seed=2), engine)
    prompts = make_prompts(8, model, length=150)  # long enough that vLLM keeps their first 128 tokens in its cache
    rows = [list(prompt.token_ids) for prompt in prompts]
    old: list[list[float]] = []
    for _ in range(3):
        rollouts = engine.sample(*model, prompts, numbers(8, 4), 1.0, 1.0)
        with torch.no_grad():
            scores = score.score(model[0], None, rollouts, torch.arange(8), k=0)
        assert gates.sampler_gap(rollouts, scores) < 1e-5, "the cache is of other weights"
        new = engine.logp(rows)
        assert gap_between(new, trainer_logp(model[0], rows)) < 1e-5 and engine.gap < 1e-6
        assert not old or gap_between(new, old) > 0.1
        old = new
        step(model[0])


def test_weights_are_taken_only_when_they_have_changed(engine: Engine, student: Model, monkeypatch: Any) -> None:
    calls = []
    original = engine.llm.collective_rpc
    monkeypatch.setattr(engine.llm, "collective_rpc", lambda *a, **k: calls.append(a) or original(*a, **k))
    prompts = make_prompts(4, student)
    engine.sample(*student, prompts, numbers(4, 3), 1.0, 1.0)
    calls.clear()
    engine.sample(*student, prompts, numbers(4, 3), 1.0, 1.0)
    assert calls == []
    with torch.no_grad():
        student[0].get_input_embeddings().weight[5].add_(0.0)  # changed as far as anyone can tell
    engine.sample(*student, prompts, numbers(4, 3), 1.0, 1.0)
    assert calls == [("reload_weights",)]


@pytest.mark.parametrize("kind", ["tied", "untied"])
def test_a_stale_head_is_caught(
    kind: str, tied: tuple[Model, Engine], engine: Engine, student: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What vLLM does to a tied head when its name is not handed over, and an untied head left behind."""
    model, made = tied if kind == "tied" else (student, engine)
    prompts = make_prompts(4, model)
    made.refresh(model[0], prompts)
    whole = handover.weights
    with torch.no_grad():
        model[0].get_output_embeddings().weight.mul_(1.5)

    def without_head(*arguments: Any) -> Iterator[tuple[str, Tensor]]:
        return ((name, tensor) for name, tensor in whole(*arguments) if name != "lm_head.weight")

    with monkeypatch.context() as patch:
        patch.setattr(handover, "weights", without_head)
        for _ in range(2):  # and is not forgotten at the second try
            with pytest.raises(
                ValueError, match=r"differ from the trainer's by .* nats per token \(max_sampler_gap: 1e-05\)"
            ):
                made.sample(*model, prompts, numbers(4, 3), 1.0, 1.0)
    made.sample(*model, prompts, numbers(4, 3), 1.0, 1.0)
    assert made.gap < 1e-5


def test_sleeping_loses_nothing(engine: Engine, student: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU vLLM's sleep releases nothing, but it stops the scheduler and clears the cache as on a GPU."""
    prompts, uniform_BT = make_prompts(16, student), numbers(16, 20)
    rows = [list(prompt.token_ids) for prompt in prompts]
    before, logp = engine.sample(*student, prompts, uniform_BT, 1.0, 1.0), engine.logp(rows)
    monkeypatch.setattr(engine, "sleeps", True)
    for _ in range(2):
        after = engine.sample(*student, prompts, uniform_BT, 1.0, 1.0)
        assert engine.llm.llm_engine.is_sleeping()
        assert torch.equal(after.response_BT, before.response_BT)
        torch.testing.assert_close(after.sampler_logp_BT, before.sampler_logp_BT, atol=1e-6, rtol=0)
    engine.wake()
    assert gap_between(engine.logp(rows), logp) < 1e-6


def test_a_sequence_without_room_is_refused(engine: Engine, student: Model) -> None:
    with pytest.raises(ValueError, match=r"may have 321 tokens together; model and cache .* have room for 320"):
        engine.sample(*student, make_prompts(1, student), numbers(1, CONTEXT - 4), 1.0, 1.0)
    assert int(engine.sample(*student, make_prompts(1, student), numbers(1, CONTEXT - 5), 1.0, 1.0).length_B) > 0


def test_a_failure_of_vllm_is_one_error_that_says_where(
    engine: Engine, student: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("no memory left")

    prompts, uniform_BT = make_prompts(3, student), numbers(3, 4)
    with monkeypatch.context() as patch:
        patch.setattr(engine.llm, "generate", fail)
        with pytest.raises(ValueError, match=r"vLLM failed while it sampled 3 responses \(RuntimeError: no memory lef"):
            engine.sample(*student, prompts, uniform_BT, 1.0, 1.0)
    with monkeypatch.context() as patch:
        patch.setattr(engine.llm, "collective_rpc", fail)
        with torch.no_grad():
            student[0].get_output_embeddings().weight.mul_(1.0)
        with pytest.raises(ValueError, match=r"while it took the trainer's weights .*the same command goes on"):
            engine.sample(*student, prompts, uniform_BT, 1.0, 1.0)
    engine.sample(*student, prompts, uniform_BT, 1.0, 1.0)


def test_bfloat16_stays_within_its_rounding_and_a_bound_below_it_stops(student: Model) -> None:
    engine = Engine(student[0], MACHINE.model_copy(update={"precision": "bfloat16"}), CONTEXT, sleeps=False)
    prompts = make_prompts(4, student)
    with pytest.raises(ValueError, match=r"if this is rounding, raise machine\.max_sampler_gap"):
        engine.refresh(student[0], prompts)
    engine.machine = engine.machine.model_copy(update={"max_sampler_gap": 0.1})
    engine.refresh(student[0], prompts)
    assert 1e-4 < engine.gap < 0.1


def test_student_and_teacher_have_an_engine_each_and_a_run_ends_those_before_it(student: Model) -> None:
    """Last of those that use this file's engines."""
    teacher = new_model(tied=True, seed=5)
    sample = rollout_vllm.for_run(student[0], MACHINE, CONTEXT)
    assert len(rollout_vllm.ENGINES) == 1
    for model in (student, teacher, student):
        rollouts = sample(*model, make_prompts(8, model), numbers(8, 6), 1.0, 1.0)
        with torch.no_grad():
            scores = score.score(model[0], None, rollouts, torch.arange(8), k=0)
        assert gates.sampler_gap(rollouts, scores) < 1e-5
    assert len(rollout_vllm.ENGINES) == 2
    with pytest.raises(ValueError, match=r"may have 321 tokens together"):
        rollout_vllm.for_run(student[0], MACHINE, CONTEXT + 1)
    rollout_vllm.close()
    assert rollout_vllm.ENGINES == []


@pytest.mark.process
def test_two_processes_that_share_the_weights_have_an_engine_each(tmp_path: Path) -> None:
    worker = Path(__file__).with_name("sharded_worker.py")
    start = "import sys; from opd_lib.run import ranks; sys.exit(ranks.carry_out(sys.argv[1:], 2))"
    path = ":".join(map(str, (worker.parent, worker.parents[1], worker.parents[2])))
    done = subprocess.run(
        [sys.executable, "-c", start, sys.executable, str(worker), str(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert max(found["gap"]) < 1e-6 and max(found["sampler_gap"]) < 1e-5 and max(found["logp_gap"]) < 1e-5
        assert min(found["moved"]) > 0.1


@pytest.fixture
def trained(world: Path) -> Path:
    """The world of the other tests with heads of a size that vLLM can do, and a teacher that knows something."""
    for arm in ("student", "teacher"):
        micro.change_arm(world, micro.MODELS, arm, {"student.hidden": 64})
    micro.teach(world)
    for arm in ("student", "teacher"):
        train.train(micro.load(world).spec(arm, 0))
    micro.change_arm(world, micro.OPD, "plain", {"machine.sampler": "vllm"})
    return world


def distil(world: Path, results: str) -> Any:
    """An OPD run whose record goes to a folder of its own while its models stay where they are."""
    made = micro.load(world, micro.OPD).spec("plain", 0)
    spec = micro.load(world, micro.OPD, results).spec("plain", 0)
    return type(spec)(**{name: getattr(spec, name) for name in spec.__slots__} | {"parents": made.parents})


def test_a_run_samples_with_vllm_and_loses_nothing_when_it_fails(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = distil(trained, "whole"), distil(trained, "broken")
    present = train.train(whole)
    assert present.status == "finished"
    steps = present.frame("steps")
    assert len(steps) == 6 and steps["sampler_gap"].max() < 1e-5 and steps["reverse_kl"].iloc[-1] != 0
    assert len(rollout_vllm.ENGINES) == 1, "the student alone is sampled from"
    calls = 0
    original = Engine._generate

    def fail(self: Engine, *arguments: Any) -> list[Any]:
        nonlocal calls
        calls += 1
        if calls == 12:
            raise RuntimeError("no memory left")
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "_generate", fail)
        with pytest.raises(ValueError, match=r"vLLM failed .*no memory left.* the same command goes on from there"):
            train.train(broken)
    stopped = record.read(broken.folder)
    assert stopped is not None and stopped.status == "failed" and 2 <= len(stopped.frame("steps")) < 6
    assert train.train(broken).status == "finished"
    for name in ("steps.csv", "evals.csv", "problems.csv"):
        assert (broken.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name
