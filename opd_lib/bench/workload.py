"""What everybody has to do in a benchmark: one optimiser step on given responses, by models of random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from opd_lib.engine.model import models
from opd_lib.types import Prompt, Rollouts

MAX_GRAD_NORM, LR = 1.0, 1e-6
LossOf = Callable[[], tuple[float, Callable[[], None]]]
"""Makes the loss (nats per token) and what puts its gradient into the student's parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Models and responses. All responses have the same length, so that nobody computes padding."""

    vocabulary: int
    sequences: int
    prompt: int
    response: int
    layers: int = 4
    student: int = 256
    teacher: int = 512

    @property
    def tokens(self) -> int:
        """Response tokens of the step."""
        return self.sequences * self.response


def model(size: Size, hidden: int, seed: int) -> PreTrainedModel:
    """A Qwen3 of random weights; large enough ones that its distributions are neither uniform nor certain."""
    config = Qwen3Config(
        vocab_size=size.vocabulary,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=hidden // 4,
        max_position_embeddings=size.prompt + size.response,
        initializer_range=0.08,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(config)


class Workload:
    """A student, a teacher and responses of a size: in every process that is given this size they are equal."""

    def __init__(self, size: Size) -> None:
        self.size = size
        self.student = model(size, size.student, 1).train()
        self.teacher = model(size, size.teacher, 2).eval().requires_grad_(False)
        draw = models.generator("bench", size.vocabulary, size.sequences, size.prompt, size.response)
        self.token_BL = torch.randint(3, size.vocabulary, (size.sequences, size.prompt + size.response), generator=draw)
        self.produced = size.tokens

    @cached_property
    def optimizer(self) -> torch.optim.Optimizer:
        """AdamW, as everybody uses it."""
        return torch.optim.AdamW(self.student.parameters(), lr=LR)

    @cached_property
    def rollouts(self) -> Rollouts:
        """The responses in our own form."""
        return as_rollouts(self.token_BL, self.size.prompt)

    def step(self) -> float:
        """Clip and step; the gradient norm before clipping."""
        norm = torch.nn.utils.clip_grad_norm_(self.student.parameters(), MAX_GRAD_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(norm)

    def logits(self, which: PreTrainedModel) -> Tensor:
        """Logits (N, V) of all response tokens at once."""
        hidden_BLH = which.model(input_ids=self.token_BL, use_cache=False).last_hidden_state
        logits_NV: Tensor = which.lm_head(hidden_BLH[:, self.size.prompt - 1 : -1].flatten(0, 1))
        return logits_NV


def as_rollouts(token_BL: Tensor, prompt: int) -> Rollouts:
    """Prompts of so many tokens and the responses behind them, in our own form; none has ended by itself."""
    response_BT = token_BL[:, prompt:]
    rows, length = response_BT.shape
    blank = Prompt(id="", source="", question="", rendered="", token_ids=(), answer="")
    return Rollouts(
        prompts=tuple(replace(blank, token_ids=tuple(row)) for row in token_BL[:, :prompt].tolist()),
        response_BT=response_BT,
        length_B=torch.full((rows,), length),
        finished_B=torch.zeros(rows, dtype=torch.bool),
        reward_B=torch.zeros(rows),
    )


def word_tokenizer(vocabulary: int) -> Any:
    """One word per token, so that prompts go through text unchanged."""
    words = ["<pad>", "<bos>", "<eos>", *(f"t{i}" for i in range(3, vocabulary))]
    return models.word_tokenizer(words, unknown=words[0], pad_token="<pad>", bos_token="<bos>", eos_token="<eos>")
