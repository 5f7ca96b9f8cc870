"""What a method may do between steps (`after_step`), and nothing else may: mix weights, change a setting, try itself.

Named weights, settings and the method's state are part of the checkpoint: a killed run resumes to the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any, Protocol

import torch

from opd_lib.engine import served, sources
from opd_lib.engine.model import distributed, sharding
from opd_lib.seam import State

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from opd_lib.engine.sampling import rollout
    from opd_lib.params import RunSpec

Weights = dict[str, "Tensor"]
STUDENT, START = "student", "start"


class Changeable(Protocol):
    """What a world reads and changes of its run (`running.ActiveRun`)."""

    spec: RunSpec
    ranks: distributed.Ranks
    student: sources.Model
    teacher: sources.Model | None

    @property
    def sample(self) -> rollout.Sample:
        """How it draws responses."""

    def change(self, key: str, value: float) -> None:
        """Another value of a setting, from now on."""


class ActiveWorld:
    """A run between two steps, as `seam.World` describes it. `start` are the student's weights before the first."""

    def __init__(self, run: Changeable) -> None:
        self._run = run
        self.kept: dict[str, Weights] = {START: copied(weights(run.student[0]))}
        self.settings: dict[str, float] = {}
        self.state: State = {}
        self.step, self.tried_tokens = 0, 0.0

    def combine(self, into: str, of: Mapping[str, float], only: Sequence[str] = ()) -> None:
        """See `seam.World`. A new `into` begins as the student."""
        parts = {name: self._weights(name) for name in of}
        if into not in self._names():
            self.kept[into] = copied(self._weights(STUDENT))
        target = self._weights(into)
        names = [name for name in target if not only or any(fnmatch(name, pattern) for pattern in only)]
        if not names:
            raise ValueError(f"combine: no parameter matches {', '.join(only)}; there are {', '.join(target)}")
        with torch.no_grad():
            for name in names:
                place = target[name]
                found = {part: sharding.like(parts[part][name], place).float() for part in of}
                first, *others = ((share, found[part]) for part, share in of.items())
                total = first[0] * first[1]
                for share, tensor in others:
                    total = total + share * tensor
                place.copy_(total)

    def set(self, key: str, value: float) -> None:
        """See `seam.World`."""
        if self.step > 0 and key not in self.settings:
            raise ValueError(f"set: {key!r} at step {self.step} for the first time; set it before the first step, too")
        self._run.change(key, value)
        self.settings[key] = float(value)

    def accuracy(self, n_prompts: int) -> float:
        """See `seam.World`."""
        run = self._run
        if n_prompts < run.ranks.world:
            raise ValueError(f"accuracy: {n_prompts} prompts for {run.ranks.world} processes; each needs at least one")
        source = run.spec.params.source.model_copy(update={"prompts_per_step": n_prompts, "per_prompt": 1})
        params = run.spec.params.model_copy(update={"source": source})
        seed, step = run.spec.seed, self.step + 1
        key = sources.BatchKey(seed=seed, step=step, ranks=run.ranks, purpose="try")
        drawn = sources.draw(params, key, sources.Authors(student=run.student, sample=run.sample))
        self.tried_tokens += distributed.total(float(drawn.length_B.sum()))
        return distributed.total(float(drawn.reward_B.sum())) / distributed.total(len(drawn.prompts))

    def columns(self) -> dict[str, float]:
        """What a row of `steps` says: the settings under which its step was made, and the tokens of trials before."""
        return {**self.settings, "tried_tokens": self.tried_tokens}

    def plain(self) -> dict[str, Any]:
        """What a checkpoint keeps beside weights: plain values, and the names of `kept`."""
        return {
            "kept": list(self.kept),
            "settings": self.settings,
            "state": dict(self.state),
            "tried_tokens": self.tried_tokens,
        }

    def tensors(self) -> dict[str, dict[str, Weights]]:
        """What a checkpoint keeps of weights, as they are: whole, or this process's share."""
        return {"kept": self.kept, "teachers": self._teachers()}

    def load(self, plain: Mapping[str, Any], step: int) -> None:
        """Go on from what a checkpoint has kept after a step; `tensors` then have places, which it fills."""
        self.step, self.tried_tokens = step, float(plain["tried_tokens"])
        self.kept = {name: copied(self._weights(STUDENT)) for name in plain["kept"]}
        for key, value in plain["settings"].items():
            self._run.change(key, value)
        self.settings, self.state = dict(plain["settings"]), dict(plain["state"])

    def fill(self, saved: Mapping[str, Mapping[str, Weights]]) -> None:
        """Take the weights of a checkpoint."""
        with torch.no_grad():
            for kind, named in self.tensors().items():
                for name, found in named.items():
                    for key, tensor in found.items():
                        tensor.copy_(saved[kind][name][key])

    def _names(self) -> list[str]:
        return [STUDENT, *self.kept, *self._teachers()]

    def _weights(self, name: str) -> Weights:
        if name == STUDENT:
            return weights(self._run.student[0])
        found = self.kept.get(name) or self._teachers().get(name)
        if found is None:
            raise ValueError(f"combine: no weights {name!r}; there are {', '.join(self._names())}")
        return found

    def _teachers(self) -> dict[str, Weights]:
        """The frozen teachers' weights by name; the live student is none, and a served one's are not here."""
        model = self._run.teacher and self._run.teacher[0]
        if model is None or model is self._run.student[0] or isinstance(model, served.Teacher):
            return {}
        named: Mapping[str, PreTrainedModel] = getattr(model, "models", {"teacher": model})
        return {name: weights(each) for name, each in named.items()}


def weights(model: PreTrainedModel) -> Weights:
    """A model's parameters by name, in the same memory: writing into one raises its version, which samplers read."""
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def copied(found: Weights) -> Weights:
    """Copies of these tensors."""
    return {name: tensor.clone() for name, tensor in found.items()}
