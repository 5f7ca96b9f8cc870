"""Our settings under the names that the papers' hyper-parameter tables give them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol

from opd_lib.records.parameters import flatten

ITEMS: dict[str, tuple[str, ...]] = {
    "student": ("base model",),
    "teacher": ("rollout teacher",),
    "task.content": ("training data",),
    "source.prompts_per_step": ("prompts per step", "prompts per update"),
    "source.per_prompt": ("rollouts per prompt", "samples per prompt"),
    "source.max_new_tokens": ("response tokens, at most", "rollout tokens, at most"),
    "source.temperature": ("temperature", "rollout temperature"),
    "source.top_p": ("top-p", "rollout top-p"),
    "method.k": ("top-k",),
    "method.support": ("support",),
    "method.weight": ("reward weights",),
    "train.lr": ("learning rate",),
    "train.weight_decay": ("weight decay",),
    "train.max_grad_norm": ("gradient clip",),
    "train.warmup": ("warm-up",),
    "evaluate.n_samples": ("validation samples",),
    "evaluate.temperature": ("validation temperature",),
    "evaluate.top_p": ("validation top-p",),
    "evaluate.max_new_tokens": ("validation tokens, at most",),
    "evaluate.every": ("evaluation every, steps",),
}
"""dotted parameter → the items of the papers' tables that mean the same"""

ALWAYS = {
    "optimiser": "AdamW",
    "loss aggregation": "token mean over the whole batch",
    "KL coefficient": "0: no KL term in any method",
    "repetition penalty": "1.0",
    "parameter precision": "float32",
    "forward precision": "float32",
    "trained parameters": "all",
    "teacher temperature": "1.0",
}
"""what holds in every run of the library and is no parameter"""


class Params(Protocol):
    """A run's parameters, as `opd_lib.params.schema` declares them."""

    def model_dump(self) -> dict[str, Any]:
        """Section → key → value."""


def settings(params: Params | None, items: Collection[str]) -> dict[str, object]:
    """item → our value, for those `items` of a paper's table that have a counterpart in a run's parameters.

    None stands for a run that the profile does not have: nothing is ours.
    """
    if params is None:
        return {}
    flat = flatten(params.model_dump())
    ours: dict[str, object] = {item: value for item, value in ALWAYS.items() if item in items}
    for path, names in ITEMS.items():
        ours |= {item: flat[path] for item in names if item in items and flat.get(path) is not None}
    return ours
