"""One file per method; the folder listing is the catalogue.

A method module states its paper and equation, its frozen `Params`, what it NEEDS and its `loss`:

    class Params(BaseModel)                         every key required, none added
    NEEDS: frozenset[str]                           of {"teacher", "reward"}
    loss(scores, params) -> Loss                    a SUM over tokens and their count

and, where they apply,

    reads(params) -> Reads                          what it reads of the scores (else the sampled tokens alone)
    advantages(reward_PG, params) -> Tensor (P, G)  sequence-level advantages from the rewards of a group
    check(params, vocabulary, has_teacher)          refuse what cannot or should not be trained, with the reason
    check_served(params)                            refuse what a teacher behind a server cannot feed (engine/served)
    check_others(params, kind)                      refuse responses of another author than the student (source.kind)
    oracle(student_logits_NV, teacher_logits_NV, token_N, params) -> (float, Tensor (N, V))
                                                    the loss and its exact gradient at the logits, written independently

A file whose name begins with _ is part of a method, none itself. A method never sees a model, a tokenizer or a file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from opd_lib.types import Reads


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """What a method module offers; optional functions are None where it offers none."""

    name: str
    Params: type[BaseModel]
    needs: frozenset[str]
    loss: Callable[..., Any]
    reads: Callable[[Any], Reads]
    advantages: Callable[..., Any] | None
    check: Callable[[Any, int, bool], None] | None
    check_served: Callable[[Any], None] | None
    check_others: Callable[[Any, str], None] | None
    oracle: Callable[..., Any] | None


def names() -> tuple[str, ...]:
    """The methods there are, by the files of this folder."""
    return tuple(sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py")))


def load(name: str) -> Method:
    """The method of a file's name. Raises ValueError listing the names there are."""
    if name not in names():
        raise ValueError(f"method.name: {name!r} is unknown; choose from {', '.join(names())}")
    module = import_module(f"{__name__}.{name}")
    optional = ("advantages", "check", "check_served", "check_others", "oracle")
    offered = {part: getattr(module, part, None) for part in optional}
    reads = getattr(module, "reads", lambda params: Reads())
    return Method(name=name, Params=module.Params, needs=module.NEEDS, loss=module.loss, reads=reads, **offered)
