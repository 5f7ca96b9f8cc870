"""Peers, called at their own loss function."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

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
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    sequences: int,
    name: str,
    rows: list[dict[str, Any]],
    module: str = "trl",
    words: Any = None,
    **settings: Any,
) -> Any:
    """A trainer of TRL around two models, for batches of so many sequences."""
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
        "per_device_train_batch_size": sequences,
        "temperature": 1.0,
        "beta": 1.0,
    }
    return getattr(place, f"{name}Trainer")(
        model=student,
        teacher_model=teacher,
        args=getattr(place, f"{name}Config")(**common | settings),
        train_dataset=Dataset.from_list(rows * sequences),
        processing_class=words or tokenizer(),
    )


def distillation(work: Workload) -> LossOf:
    """TRL's stable trainer: both heads in tiles."""
    found = stable_trainer(work.student, work.teacher, work.size.sequences)
    return through(found, stable_form(work.token_BL, work.size.prompt, work.size.tokens), work)


def stable_trainer(student: PreTrainedModel, teacher: PreTrainedModel, sequences: int, **settings: Any) -> Any:
    """TRL's DistillationTrainer, whose own prompts are not asked for."""
    return trainer(student, teacher, sequences, "Distillation", [{"prompt": "one two"}], **settings)


def stable_form(token_BL: Tensor, prompt: int, tokens: float) -> dict[str, Tensor]:
    """Ids and masks as it takes them; `tokens` are those of the whole batch, by which it divides."""
    prompt_BP, response_BT = token_BL[:, :prompt], token_BL[:, prompt:]
    return {
        "prompt_ids": prompt_BP,
        "completion_ids": response_BT,
        "prompt_mask": torch.ones_like(prompt_BP),
        "completion_mask": torch.ones_like(response_BT),
        "num_items_in_batch": torch.tensor(float(tokens), device=token_BL.device),
    }


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
    return experimental(work, "gkd", "GKD", lmbda=1.0)


def gold(work: Workload) -> LossOf:
    """TRL's GOLD without its loss across tokenizers."""
    return experimental(work, "gold", "GOLD", lmbda=1.0, use_uld_loss=False)


def experimental(work: Workload, module: str, name: str, **settings: Any) -> LossOf:
    """A trainer of TRL that is called experimental."""
    place, sequences = f"trl.experimental.{module}", work.size.sequences
    found = trainer(work.student, work.teacher, sequences, name, CONVERSATION, place, **settings)
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
    rows = [{"prompt": words.decode(prompt.token_ids)} for prompt in work.rollouts.prompts]
    limit = work.size.response
    models = (work.student, work.teacher, work.size.sequences)
    found = trainer(*models, "Distillation", rows[:1], words=words, max_completion_length=limit)

    def loss() -> tuple[float, Callable[[], None]]:
        work.student.train()
        inputs = found._prepare_inputs(rows)
        work.produced = int(inputs["completion_mask"].sum())
        value = found.compute_loss(work.student, inputs)
        return value.item(), value.backward

    return loss
