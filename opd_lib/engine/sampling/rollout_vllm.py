"""Prompts → responses by vLLM, in the trainer's own process: `rollout.sample` for models that answer at length.

The engine has its own copy of the weights, filled from the trainer's memory whenever they have changed. After every
filling its log-probabilities of a few prompts are compared with the trainer's: an engine that kept an old tensor (a
head tied to the embedding is the usual one) would sample on in silence from a policy that nobody trains.

Every process has an engine of its own and samples its share of a batch. On a GPU the engine sleeps between calls: its
cache is released, its weights wait in the machine's memory.

Differs from `rollout.sample`: a response is drawn by a generator seeded with the first numbers of its row, not by
inverting the distribution at each of them. It still depends on prompt, model and row alone, up to rounding.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.utils.rnn import pad_sequence

from opd_lib.engine import score
from opd_lib.engine.model import distributed, models, sharding
from opd_lib.engine.sampling import handover, rollout
from opd_lib.types import Prompt, Rollouts

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from opd_lib.params.schema import Machine

ENVIRONMENT = {  # what vLLM takes from there alone, when it is imported
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine lives in this process: weights are handed over, not sent
    "VLLM_NO_USAGE_STATS": "1",  # nothing about this machine is sent to vLLM's makers
    "VLLM_HOST_IP": "127.0.0.1",  # nothing listens where another machine could reach it
}
FAILURES = (RuntimeError, ValueError, AssertionError, LookupError, TypeError, AttributeError, OSError, MemoryError)
TOKENS_ONLY = {"ignore_eos": True, "detokenize": False, "flat_logprobs": True}  # the ends of a response are ours
TESTED_PROMPTS, TESTED_TOKENS = 4, 64  # how many prompts the self-test compares, and how many tokens of each
ENGINES: list[Engine] = []
"""Those of this process: they share what vLLM takes down with any one of them, so they live on and end together."""


class Engine:
    """vLLM for one model; `sample` means what `rollout.sample` means."""

    def __init__(self, model: PreTrainedModel, machine: Machine, longest: int, sleeps: bool) -> None:
        """Start an engine, in every process of a run together; the weights come with the first call.

        Raises ValueError if vLLM is missing or does not start, or has no room for `longest` tokens in a sequence.
        """
        self._vllm, self.machine, self.sleeps = _load(), machine, sleeps
        self.gap = float("nan")  # mean |log-probability of engine − of trainer| in the last self-test (nats)
        self._held: list[tuple[int, int]] = []  # which state of the trainer's tensors the engine holds
        distributed.stand_alone(machine)
        with self._reporting("while it started"), tempfile.TemporaryDirectory() as folder:
            handover.save_config(model, folder)
            self.llm = self._vllm.LLM(
                folder,
                load_format="dummy",
                skip_tokenizer_init=True,  # token ids in, token ids out
                dtype=machine.precision,
                max_model_len=-1,  # the model's context, or what the cache can hold
                kv_cache_memory_bytes=int(machine.sampler_cache_gib * 2**30),
                gpu_memory_utilization=0.01,  # would size the cache by the device, which the trainer has filled
                enforce_eager=machine.device == "cpu",
                enable_chunked_prefill=machine.device != "cpu",  # seeded requests fail with it on a CPU (vLLM 0.32)
                enable_sleep_mode=sleeps,
                logprobs_mode="raw_logprobs",  # at temperature 1, over the full vocabulary
                distributed_executor_backend="uni" if machine.processes == 1 else "external_launcher",
            )
        ENGINES.append(self)
        self._require_room(longest)

    def _require_room(self, longest: int) -> None:
        if longest > (room := self.llm.model_config.max_model_len):
            raise ValueError(
                f"machine.sampler: prompt and response may have {longest} tokens together; model and cache "
                f"(machine.sampler_cache_gib: {self.machine.sampler_cache_gib:g}) have room for {room}"
            )

    def sample(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        prompts: Sequence[Prompt],
        uniform_BT: Tensor,
        temperature: float,
        top_p: float,
    ) -> Rollouts:
        """One response per prompt, at most T tokens each, from the model's weights as they are now.

        Row b of `uniform_BT` seeds response b. Every process must call it if the weights are spread over them.
        """
        limit = uniform_BT.shape[1]
        self._require_room(rollout.longest(prompts) + limit)
        model.eval()
        self.wake()
        self.refresh(model, prompts)
        common = {"temperature": temperature, "top_p": top_p, "max_tokens": limit, "logprobs": 0, **TOKENS_ONLY}
        stop = list(models.stop_ids(model, tokenizer))
        settings = [
            self._vllm.SamplingParams(**common, stop_token_ids=stop, seed=handover.seed(row_T)) for row_T in uniform_BT
        ]
        with self._reporting(f"while it sampled {len(prompts)} responses"):
            answers = [answer.outputs[0] for answer in self._generate([p.token_ids for p in prompts], settings)]
            self.sleep()
        found = _rollouts(prompts, answers, tokenizer.pad_token_id)
        models.require_finite_logits(model, found.sampler_logp_BT)
        return found

    def refresh(self, model: PreTrainedModel, prompts: Sequence[Prompt]) -> None:
        """Take the model's weights, unless the engine holds them already, and compare log-probabilities afterwards.

        Raises ValueError if engine and trainer differ by more than `machine.max_sampler_gap` (mean nats per token).
        """
        state = [(id(tensor), tensor._version) for tensor in model.state_dict(keep_vars=True).values()]
        spread = sharding.is_sharded(model)  # then all processes gather each tensor together, or none does
        if not (distributed.max_over_ranks(float(state != self._held)) if spread else state != self._held):
            return
        self._held = []
        with self._reporting("while it took the trainer's weights"):
            arguments = {"weights_iterator": handover.weights(model, sharding.compute_dtype(self.machine))}
            self.llm.collective_rpc("reload_weights", kwargs=arguments)
            self.llm.reset_prefix_cache()
        gap = self.compare(model, prompts)
        self.gap = distributed.max_over_ranks(gap) if spread else gap
        if not self.gap <= self.machine.max_sampler_gap:
            raise ValueError(
                f"machine.sampler: given the trainer's weights, vLLM's log-probabilities differ from the trainer's by "
                f"{self.gap:.2g} nats per token (max_sampler_gap: {self.machine.max_sampler_gap:g}). Use the vLLM of "
                "requirements/ or machine.sampler: transformers; if this is rounding, raise machine.max_sampler_gap"
            )
        self._held = state

    def compare(self, model: PreTrainedModel, prompts: Sequence[Prompt]) -> float:
        """Mean |log-probability of the engine − of the trainer| over the tokens of a few prompts (nats)."""
        rows = list(dict.fromkeys(prompt.token_ids[:TESTED_TOKENS] for prompt in prompts))[:TESTED_PROMPTS]
        with self._reporting("in its self-test"):
            engine_N = torch.tensor([value for row in self.logp(rows) for value in row])
        known = Rollouts(
            prompts=tuple(replace(prompts[0], token_ids=row[:1]) for row in rows),
            response_BT=models.pad_right([row[1:] for row in rows], 0),
            length_B=torch.tensor([len(row) - 1 for row in rows]),
            finished_B=torch.zeros(len(rows), dtype=torch.bool),
            reward_B=torch.zeros(len(rows)),
        )
        with torch.no_grad():
            scores = score.score(model, None, known, torch.arange(len(rows)), k=0)
        return float((engine_N - scores.student_logp_N.cpu()).abs().mean())

    def logp(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        """The engine's log-probability (nats) of every token of each row but the first, given those before it."""
        settings = self._vllm.SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0, **TOKENS_ONLY)
        answers = self._generate(rows, [settings] * len(rows))
        return [list(answer.prompt_logprobs.logprobs) for answer in answers]

    def sleep(self) -> None:
        """Give the device back until `wake`, losing nothing."""
        if self.sleeps:
            self.llm.sleep(level=1)

    def wake(self) -> None:
        """Take the device again."""
        if self.sleeps and self.llm.llm_engine.is_sleeping():
            with self._reporting("while it woke up"):
                self.llm.wake_up()

    def _generate(self, rows: Sequence[Sequence[int]], settings: list[Any]) -> list[Any]:
        """vLLM's answers to rows of token ids, in their order."""
        inputs = [{"prompt_token_ids": list(row)} for row in rows]
        return list(self.llm.generate(inputs, settings, use_tqdm=False))

    @contextmanager
    def _reporting(self, point: str) -> Iterator[None]:
        try:
            yield
        except (*FAILURES, self._vllm.exceptions.VLLMError) as error:
            raise ValueError(
                f"machine.sampler: vLLM failed {point} ({type(error).__name__}: {error}). The record and the last "
                "checkpoint are kept: the same command goes on from there (lower machine.sampler_cache_gib if it lacks "
                "memory), and machine.sampler: transformers does without vLLM"
            ) from error


def for_run(student: PreTrainedModel, machine: Machine, longest: int) -> rollout.Sample:
    """What samples in a run: an engine for the student now, one for each other model when it is first asked.

    `longest`: tokens that prompt and response may have together. Only the student's engine sleeps: vLLM lets no more
    than one engine of a process do so.
    """
    close()
    engines = {id(student): Engine(student, machine, longest, sleeps=machine.device == "cuda")}

    def sample(model: PreTrainedModel, *arguments: Any) -> Rollouts:
        if id(model) not in engines:
            engines[id(model)] = Engine(model, machine, longest, sleeps=False)
        return engines[id(model)].sample(model, *arguments)

    return sample


def close() -> None:
    """End every engine of this process; a run does so with those of runs before it."""
    while ENGINES:
        ENGINES.pop().llm.llm_engine.engine_core.shutdown()


def _rollouts(prompts: Sequence[Prompt], answers: Sequence[Any], pad: int) -> Rollouts:
    return Rollouts(
        prompts=tuple(prompts),
        response_BT=models.pad_right([list(answer.token_ids) for answer in answers], pad),
        length_B=torch.tensor([len(answer.token_ids) for answer in answers]),
        finished_B=torch.tensor([answer.finish_reason == "stop" for answer in answers]),
        reward_B=torch.full((len(answers),), torch.nan),
        sampler_logp_BT=pad_sequence([torch.tensor(answer.logprobs.logprobs) for answer in answers], batch_first=True),
    )


def _load() -> Any:
    os.environ.update(ENVIRONMENT)
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "CRITICAL")  # pages otherwise; what fails, we report
    try:
        import vllm.exceptions
    except (ImportError, RuntimeError, OSError) as error:
        raise ValueError(
            f"machine.sampler: vllm cannot be imported ({error}); `pip install opd-replication[vllm]`, or transformers"
        ) from error
    return vllm
