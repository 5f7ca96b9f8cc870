"""What measuring or asking a pair reads, asks and needs: said, and refused where memory lacks, before it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opd_lib.engine.model.held import Held
    from opd_lib.engine.pair_memory import Work
    from opd_lib.params.schema import RunParams

QUESTION = 256
"""Tokens of a question that nobody has typed yet, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Work with two checkpoints of these names, whose weights are not loaded yet; one that is alone is both.

    `asks` says the work in words, `notes` what the tokenizers were lent, `fewer` what would need less memory: with one
    of them it is the work `least`.
    """

    settings: RunParams
    names: tuple[str, str]
    pair: tuple[Held, Held]
    notes: tuple[str, ...]
    asks: str
    work: Work
    least: Work
    fewer: str

    def lines(self) -> list[str]:
        """What will be read, asked and needed, a line each."""
        from opd_lib.engine import pair_memory

        roles = zip(("student", "teacher"), self.names, self.pair, strict=True)
        needs = (
            f"computes in float32 and needs about {self.needed(self.work)}; {pair_memory.amount(self.free)} are free"
        )
        return [*(reads(role, name, checkpoint) for role, name, checkpoint in roles), *self.notes, self.asks, needs]

    @property
    def free(self) -> float:
        """Bytes of memory that may be planned with."""
        from opd_lib.engine import memory

        return memory.USABLE * memory.free(self.settings.machine)

    def needed(self, work: Work) -> str:
        """The memory that work needs, with its parts."""
        from opd_lib.engine import pair_memory

        found = pair_memory.needed(self.settings, *self.pair, work)
        return (
            f"{pair_memory.amount(found.total)} of {self.settings.machine.device} memory ({pair_memory.parts(found)})"
        )

    def require(self) -> None:
        """Raise ValueError, with the numbers and what helps, if that is more memory than is free."""
        from opd_lib.engine import pair_memory

        needed, least = (pair_memory.needed(self.settings, *self.pair, work).total for work in (self.work, self.least))
        free = self.free
        if needed <= free:
            return
        with_one = f"{self.fewer}: with one it needs {pair_memory.amount(least)}; or"
        raise ValueError(
            f"{' and '.join(dict.fromkeys(self.names))}: measuring in float32 needs about {self.needed(self.work)}, "
            f"{pair_memory.amount(free)} are free; nothing was loaded. What helps: "
            f"{with_one if least <= free else 'smaller checkpoints, or'} a machine with more memory"
        )


def here(settings: RunParams) -> RunParams:
    """These parameters for one process on this machine: on its CPU if it lacks the accelerator that they name."""
    import torch

    machine = settings.machine
    device = machine.device if machine.device == "cpu" or torch.cuda.is_available() else "cpu"
    return settings.model_copy(update={"machine": machine.model_copy(update={"processes": 1, "device": device})})


def of_check(settings: RunParams, places: Mapping[str, str], names: tuple[str, str], n_prompts: int, seed: int) -> Plan:
    """Measuring a pair; `places`: where each name is loaded from.

    Raises ValueError for what cannot be read or asked, two vocabularies or prompts, and a context that is too short.
    """
    from opd_lib.engine import gates, pair_features, pair_memory

    student, teacher, notes = meet(places, names)
    gates.same_prompt(settings, student.both, teacher.both)
    has_accuracy = pair_features.is_of_the_world(student.both, settings.task.name)
    assert settings.source.kind == "student"
    work = pair_memory.of_check(settings, student, n_prompts, seed, has_accuracy)
    task, limit = settings.task, settings.source.limit(1)
    asks = (
        f"asks {n_prompts} prompts of {task.name} ({task.content}, template {task.template}, seed {seed}; at most "
        f"{work.prompt_tokens} tokens): {work.rows} responses of the student, of at most {limit} tokens"
    )
    if has_accuracy:
        asks += f"; and {', '.join(task.test_sets)}: {work.evaluated} answers of each model"
    return Plan(
        settings=settings,
        names=names,
        pair=(student, teacher),
        notes=notes,
        asks=asks,
        work=work,
        least=replace(work, rows=work.rows // n_prompts),
        fewer="fewer prompts (--prompts, n_prompts)",
    )


def of_talk(settings: RunParams, places: Mapping[str, str], names: tuple[str, str], tokens: int) -> Plan:
    """Answers of at most so many tokens. Raises ValueError for what cannot be read or asked, and two vocabularies."""
    from opd_lib.engine import pair_memory

    student, teacher, notes = meet(places, names)
    return Plan(
        settings=settings,
        names=names,
        pair=(student, teacher),
        notes=notes,
        asks=f"answers what is typed in, at most {tokens} tokens",
        work=pair_memory.Work(rows=1, prompt_tokens=QUESTION, new_tokens=tokens),
        least=pair_memory.Work(rows=1, prompt_tokens=QUESTION, new_tokens=1),
        fewer="fewer tokens (--tokens, max_new_tokens)",
    )


def meet(places: Mapping[str, str], names: tuple[str, str]) -> tuple[Held, Held, tuple[str, ...]]:
    """All of student and teacher but their weights, and what their tokenizers were lent."""
    from opd_lib.engine import pair_features
    from opd_lib.engine.model import held

    found = {place: held.look(place) for place in dict.fromkeys(places[name] for name in names)}
    student, teacher = (found[places[name]] for name in names)
    return student, teacher, tuple(pair_features.prepare(student.both, teacher.both))


def reads(role: str, name: str, checkpoint: Held) -> str:
    """Which files of a checkpoint are read, or downloaded, and what they hold."""
    from opd_lib.engine.pair_memory import amount

    size, place = f"{checkpoint.parameters:,} parameters", checkpoint.folder
    if checkpoint.download:
        return f"{role} ({name}): downloads {amount(checkpoint.download)} to the hub's cache ({place}); {size}"
    kinds = " and ".join(sorted(checkpoint.numbers))
    called = f"{role} ({name})" if str(place) != name else role
    return f"{called}: reads {place}, {amount(checkpoint.stored)} of weights; {size}, stored in {kinds}"
