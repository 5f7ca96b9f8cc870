"""What a probe cannot measure, said before anything is loaded: one line with key, reason and remedy."""

from __future__ import annotations

from opd_lib import methods, tasks
from opd_lib.params.schema import MixtureProbe, Probe, RunParams, Task
from opd_lib.tasks import tagged


def check(params: RunParams, probe: Probe, method: methods.Method) -> None:
    """Refuse a probe of what does not exist, of responses of others, or whose answer would be empty or trivial."""
    if params.machine.processes != 1:
        raise ValueError(f"machine.processes: {params.machine.processes}, but a probe runs in one process; use 1")
    if probe.kind == "rollouts":
        check_rollouts(params)
        return
    if params.teacher is None or not isinstance(params.student, str):
        raise ValueError("probe: it compares two checkpoints; name both student and teacher")
    if params.source.kind != "student":
        raise ValueError(f"source.kind: {params.source.kind}, but a probe reads the student's responses; use student")
    if params.source.schedule:
        raise ValueError("source.schedule: a probe has no steps; write schedule: [] and one max_new_tokens")
    if probe.kind == "teachers" and probe.other == params.teacher:
        raise ValueError(f"probe.other: {probe.other} is the teacher itself; name another checkpoint")
    if probe.kind == "continuation" and not 0 <= min(probe.depths) <= max(probe.depths) < params.source.max_new_tokens:
        raise ValueError(
            f"probe.depths: {list(probe.depths)} with responses of at most {params.source.max_new_tokens} tokens; "
            "use depths from 0 to below source.max_new_tokens"
        )
    if probe.kind == "prefix" and tasks.load(params.task.name).sound is None:
        raise ValueError(
            f"probe.kind: prefix, but of task.name {params.task.name} nobody can say whether a response that has begun "
            "is right so far; use task labelled or tagged"
        )
    if probe.kind == "mixture":
        check_mixture(params.task, probe)
    if probe.kind == "gradient" and ("teacher" not in method.needs or params.source.prompts_per_step < 2):
        raise ValueError(
            f"probe: the gradient probe halves a batch of prompts and asks what the teacher does; method is "
            f"{method.name} with {params.source.prompts_per_step} prompts per step; distil, on 2 prompts at least"
        )


def check_rollouts(params: RunParams) -> None:
    """Refuse stored rollouts of a task whose responses the filters cannot read, or without anybody who writes them."""
    if params.task.name != "math":
        raise ValueError(f"probe.kind: rollouts, but its filters read mathematics, and task.name is {params.task.name}")
    if params.source.kind not in ("student", "teacher"):
        raise ValueError(f"source.kind: {params.source.kind}, but rollouts are sampled; use student or teacher")


def check_mixture(task: Task, probe: MixtureProbe) -> None:
    """Refuse a mixture over keys that there are not, and a message that does not say the key."""
    if task.name != "tagged" or task.demand != "key" or task.keys < 2:
        raise ValueError("probe.kind: mixture, over the keys of a question: use task tagged, demand: key, keys above 1")
    tagged.require_question(probe.shows, "probe.shows")
    if "{key}" not in probe.shows:
        raise ValueError(f"probe.shows: {probe.shows!r} does not tell the key; write {{key}} where it stands")
