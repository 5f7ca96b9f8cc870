"""Peers, called at their own loss function."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from opd_lib.bench.workload import LR, MAX_GRAD_NORM, LossOf, Workload, word_tokenizer


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
