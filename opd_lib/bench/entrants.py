"""Who takes part: this package, the plain way, and its peers, each computing the loss of the same responses.

Of the same objective (`objective`) all must find the same loss and the same gradient norm; that is checked before any
time is believed. Peers are called at their own loss function, with settings that make it the exact reverse KL over the
full vocabulary, token mean; where one does more than is asked (logits of the prompt, an entropy), `extra` says so.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from opd_lib import methods
from opd_lib.bench.workload import LR, MAX_GRAD_NORM, Workload
from opd_lib.engine import rollout, score
from opd_lib.maths import footprint

LossOf = Callable[[], tuple[float, Callable[[], None]]]
"""Makes the loss (nats per token) and what puts its gradient into the student's parameters."""
K = 16
OPD = {"estimator": "topk", "k": K, "support": "student", "weight": "student_p", "tail": "drop", "beta": 0.5}
WHOLE = "reverse KL on own responses"
OBJECTIVES: dict[str, dict[str, Any]] = {
    "reverse KL": OPD | {"estimator": "full", "normalize": "raw", "stop_gradient": False, "direction": "reverse"},
    "published": OPD | {"normalize": "weights", "stop_gradient": True, "direction": "reverse"},
    "Eq. 5": OPD | {"normalize": "both", "stop_gradient": False, "direction": "reverse"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrant:
    """Somebody who can do the step. `make` prepares everything that is not part of it."""

    name: str
    objective: str
    make: Callable[[Workload], LossOf]
    extra: str = ""


def ours(objective: str, logits_gib: float = 0.5) -> Callable[[Workload], LossOf]:
    """This package, diagnostics off."""

    def make(work: Workload) -> LossOf:
        method = methods.load("opd")
        chunk = footprint.chunk(logits_gib * footprint.GIB, work.size.vocabulary)
        chosen = score.Objective(method=method, options=method.Params(**OBJECTIVES[objective]), k=0, chunk=chunk)
        rows = torch.arange(work.size.sequences)

        def loss() -> tuple[float, Callable[[], None]]:
            scale = 1 / float(work.rollouts.length_B.sum())
            scaled, _, _ = chosen(work.student, work.teacher, work.rollouts, rows, scale=scale, measured=False)
            return scaled.item(), scaled.backward

        return loss

    return make


def plain(objective: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Workload], LossOf]:
    """All logits at once, log-softmaxes, autograd."""

    def make(work: Workload) -> LossOf:
        def loss() -> tuple[float, Callable[[], None]]:
            with torch.no_grad():
                teacher_logp_NV = work.logits(work.teacher).log_softmax(-1)
            value = objective(work.logits(work.student).log_softmax(-1), teacher_logp_NV).mean()
            return value.item(), value.backward

        return loss

    return make


def reverse_kl(logp_NV: Tensor, logq_NV: Tensor) -> Tensor:
    """Σ p log(p/q) at each token."""
    return (logp_NV.exp() * (logp_NV - logq_NV)).sum(-1)


def published(logp_NV: Tensor, logq_NV: Tensor) -> Tensor:
    """Weights p renormalised on the student's 16 most likely tokens, log-ratio over the vocabulary, score form."""
    top = logp_NV.detach().topk(K, dim=-1)
    logp_NK, logq_NK = logp_NV.gather(1, top.indices), logq_NV.gather(1, top.indices)
    advantage_NK = (top.values.softmax(-1) * (logp_NK - logq_NK)).detach()
    return (advantage_NK * (1 + logp_NK - logp_NK.detach())).sum(-1)


def tokenizer() -> Any:
    """A small byte-level tokenizer: trainers ask for one, their loss does not."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    built = Tokenizer(BPE())
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    special = ["<pad>", "<bos>", "<eos>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    built.train_from_iterator(
        ["one two"], trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    )
    template = "{% for m in messages %}{{ m['content'] }}{% generation %}<eos>{% endgeneration %}{% endfor %}"
    return PreTrainedTokenizerFast(
        tokenizer_object=built, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", chat_template=template
    )


def trainer(
    work: Workload, module: str, name: str, rows: list[dict[str, Any]], words: Any = None, **settings: Any
) -> Any:
    """A trainer of TRL around the workload's models."""
    from importlib import import_module

    from datasets import Dataset

    place = import_module(module)
    common = {
        "output_dir": tempfile.mkdtemp(),
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "save_strategy": "no",
        "learning_rate": LR,
        "max_grad_norm": MAX_GRAD_NORM,
        "per_device_train_batch_size": work.size.sequences,
        "temperature": 1.0,
        "beta": 1.0,
    }
    return getattr(place, f"{name}Trainer")(
        model=work.student,
        teacher_model=work.teacher,
        args=getattr(place, f"{name}Config")(**common | settings),
        train_dataset=Dataset.from_list(rows * work.size.sequences),
        processing_class=words or tokenizer(),
    )


def distillation(work: Workload) -> LossOf:
    """TRL's stable trainer: both heads in tiles."""
    found = trainer(work, "trl", "Distillation", [{"prompt": "one two"}])
    prompt, response = work.token_BL[:, : work.size.prompt], work.token_BL[:, work.size.prompt :]
    inputs = {
        "prompt_ids": prompt,
        "completion_ids": response,
        "prompt_mask": torch.ones_like(prompt),
        "completion_mask": torch.ones_like(response),
        "num_items_in_batch": torch.tensor(float(work.size.tokens)),
    }
    return through(found, inputs, work)


def supervised_form(work: Workload) -> dict[str, Tensor]:
    """Ids, mask and labels, as the experimental trainers take them."""
    labels_BL = work.token_BL.clone()
    labels_BL[:, : work.size.prompt] = -100
    return {
        "input_ids": work.token_BL,
        "attention_mask": torch.ones_like(work.token_BL),
        "labels": labels_BL,
        "prompts": work.token_BL[:, : work.size.prompt],
    }


CONVERSATION = [{"messages": [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]}]


def gkd(work: Workload) -> LossOf:
    """TRL's GKD."""
    return through(trainer(work, "trl.experimental.gkd", "GKD", CONVERSATION, lmbda=1.0), supervised_form(work), work)


def gold(work: Workload) -> LossOf:
    """TRL's GOLD without its loss across tokenizers."""
    found = trainer(work, "trl.experimental.gold", "GOLD", CONVERSATION, lmbda=1.0, use_uld_loss=False)
    return through(found, supervised_form(work), work)


def through(found: Any, inputs: dict[str, Tensor], work: Workload) -> LossOf:
    """The loss as a trainer computes it."""
    work.student.train()

    def loss() -> tuple[float, Callable[[], None]]:
        value = found.compute_loss(work.student, dict(inputs), num_items_in_batch=torch.tensor(float(work.size.tokens)))
        return value.item(), value.backward

    return loss


def liger(work: Workload) -> LossOf:
    """Liger's fused linear divergence, not compiled, in chunks of 128 tokens."""
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    fused = LigerFusedLinearJSDLoss(
        weight_hard_loss=0.0, weight_soft_loss=1.0, beta=1.0, compiled=False, chunk_size=128
    )
    begin = work.size.prompt - 1

    def loss() -> tuple[float, Callable[[], None]]:
        states = [
            m.model(input_ids=work.token_BL, use_cache=False).last_hidden_state for m in (work.teacher, work.student)
        ]
        teacher_NH, student_NH = (state[:, begin:-1].flatten(0, 1) for state in states)
        value = fused(
            student_NH, work.student.lm_head.weight, teacher_NH, work.teacher.lm_head.weight,
            work.token_BL[:, work.size.prompt :].flatten(),
        )  # fmt: skip
        return value.item(), value.backward

    return loss


def our_whole_step(work: Workload) -> LossOf:
    """Sampling the responses as well."""
    own, size, words = ours("reverse KL"), work.size, word_tokenizer(work.size.vocabulary)

    def loss() -> tuple[float, Callable[[], None]]:
        uniform_BT = torch.rand(size.sequences, size.response)
        drawn = rollout.sample(work.student, words, work.rollouts.prompts, uniform_BT, 1.0, 1.0)
        work.student.train()
        sampled = copy(work)
        sampled.rollouts, work.produced = drawn, int(drawn.length_B.sum())
        return own(sampled)()

    return loss


def whole_step_of_trl(work: Workload) -> LossOf:
    """TRL's stable trainer, which samples with `generate`."""
    words = word_tokenizer(work.size.vocabulary)
    rows = [{"prompt": words.decode(row)} for row in work.prompts]
    limit = work.size.response
    found = trainer(work, "trl", "Distillation", rows[:1], words, max_completion_length=limit)

    def loss() -> tuple[float, Callable[[], None]]:
        work.student.train()
        inputs = found._prepare_inputs(rows)
        work.produced = int(inputs["completion_mask"].sum())
        value = found.compute_loss(work.student, inputs)
        return value.item(), value.backward

    return loss


def word_tokenizer(vocabulary: int) -> Any:
    """One word per token, so that prompts go through text unchanged."""
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<bos>", "<eos>", *(f"t{i}" for i in range(3, vocabulary))]
    built = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    built.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=built, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>")


ENTRANTS = {
    entrant.name: entrant
    for entrant in (
        Entrant(name="ours", objective="reverse KL", make=ours("reverse KL")),
        Entrant(name="ours, published objective", objective="published", make=ours("published")),
        Entrant(name="ours, Eq. 5", objective="Eq. 5", make=ours("Eq. 5")),
        Entrant(name="naive", objective="reverse KL", make=plain(reverse_kl)),
        Entrant(name="naive, published objective", objective="published", make=plain(published)),
        Entrant(name="TRL DistillationTrainer", objective="reverse KL", make=distillation, extra="student entropy"),
        Entrant(name="TRL GKDTrainer", objective="reverse KL", make=gkd, extra="logits of the prompt"),
        Entrant(name="TRL GOLDTrainer", objective="reverse KL", make=gold, extra="logits of the prompt"),
        Entrant(name="Liger fused JSD", objective="reverse KL", make=liger, extra="cross-entropy"),
        Entrant(name="ours, with rollout", objective=WHOLE, make=our_whole_step),
        Entrant(name="TRL, with rollout", objective=WHOLE, make=whole_step_of_trl, extra="student entropy"),
    )
}
