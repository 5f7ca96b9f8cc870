"""Parameters that are well-formed and yet cannot be run, or must not be: each refused with the reason and a remedy."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel

from opd_lib import methods, tasks
from opd_lib.params import probe_refusals
from opd_lib.params.schema import SELF, Corpus, NewModel, NewTextModel, RunParams, Sampled, TaggedTraces, Task, Traces
from opd_lib.tasks import labelled


def check(params: RunParams, method: methods.Method | None, options: Sequence[BaseModel]) -> None:
    """Raise ValueError for the first thing refused. Without torch there is no method, and what it says goes unasked.

    `options` are the method's, with those of a probe that compares two objectives.
    """
    check_task(params)
    if isinstance(params.student, NewModel):
        require_context(params, "student", params.student.context, "student.context")
    check_teachers(params, method, options)
    if method:
        check_method(params, method, options)
        if params.machine.teacher_url and params.teacher:
            check_served(params, method, options)
        if params.probe is not None:
            probe_refusals.check(params, params.probe, method)


def check_task(params: RunParams) -> None:
    """Refuse names the task does not have, and evaluations and diagnostics that cannot be."""
    tasks.load(params.task.name).check(params.task)
    sets = params.task.test_sets
    if len(set(sets)) < len(sets):
        raise ValueError(f"task.test_sets: {', '.join(sets)}: name each once")
    if (data := getattr(params.task, "data", None)) is not None and not (data.strip() and data.isprintable()):
        raise ValueError(f"task.data: {data!r} is no folder; name one, or write null for the hub")
    if isinstance(params.source, Corpus | Traces):
        check_corpus(params, params.source)
    if params.source.kind == "answers" and params.task.name != "math":
        raise ValueError("source.kind: answers is for task math; in the tiny world use kind: corpus")
    if params.task.name == "prompts" and isinstance(params.student, NewModel):
        raise ValueError("student: a new model for task.name prompts: it knows no words; name a checkpoint")
    if isinstance(params.student, NewModel) and isinstance(params.student, NewTextModel) != (
        params.task.name == "math"
    ):
        raise ValueError(
            f"student: a new model for task.name {params.task.name}: the tiny world has its own tokenizer and takes no "
            "key vocabulary; for real mathematics a tokenizer is trained, and vocabulary is required"
        )
    for cap in params.evaluate.caps:
        if not 1 <= cap <= params.evaluate.max_new_tokens:
            raise ValueError(f"evaluate.caps: {cap} is no lower limit than max_new_tokens: use 1 ≤ cap ≤ that")
    steps = [entry.step for entry in getattr(params.source, "schedule", ())]
    if steps != sorted(set(steps)) or any(step > params.train.steps for step in steps):
        raise ValueError(f"source.schedule: steps {steps}: name each once, in order, none beyond train.steps")
    world = tasks.load(params.task.name).world
    vocabulary = len(world.words) if world else None
    for k in params.diagnose.ks:
        if k < 1 or (vocabulary and k > vocabulary):
            raise ValueError(f"diagnose.ks: {k} is impossible with {vocabulary} tokens; use 1 ≤ k ≤ {vocabulary}")


def require_context(params: RunParams, role: str, room: int, where: str) -> None:
    """Raise ValueError if a prompt and its response may have more tokens than the context of the model in this role.

    `where` names what says so: a key, or a checkpoint.
    """
    for key, (prompt, response) in longest(params, role).items():
        if prompt + response > room:
            fits = f"at most {room - prompt}, or " if room > prompt else ""
            raise ValueError(
                f"{key}: a prompt of {prompt} and a response of {response} tokens do not fit into the {role}'s context "
                f"of {room} ({where}); use {fits}a model of a larger context"
            )


def longest(params: RunParams, role: str) -> dict[str, tuple[int, int]]:
    """key → tokens of the longest prompt and response that a model in this role reads because of it."""
    source, probe = params.source, params.probe
    trained, tested = prompt_tokens(params.task)
    found = {}
    if isinstance(source, Sampled) and not params.only_evaluates:
        limits = {source.limit(step) for step in (1, *(entry.step for entry in source.schedule))}
        found["source.schedule" if source.schedule else "source.max_new_tokens"] = (trained, max(limits))
    if role == "student" and probe is None:
        found["evaluate.max_new_tokens"] = (tested, params.evaluate.max_new_tokens)
    if probe is not None and probe.kind == "continuation":
        found["probe.new_tokens"] = (trained + max(probe.depths), probe.new_tokens)
    return found


def prompt_tokens(task: Task) -> tuple[int, int]:
    """Of the longest training and test prompt. Of mathematics' test prompts it is known that they have some."""
    if task.name == "math":
        return task.max_prompt_tokens, 1
    if task.name == "prompts":
        return task.max_prompt_tokens, task.max_prompt_tokens
    measure = tasks.load(task.name).longest_prompt
    assert measure is not None  # a world's questions are written by its task
    return measure(task)


def check_corpus(params: RunParams, source: Corpus | Traces) -> None:
    """Refuse a corpus of the tiny world for another task, and templates it does not have."""
    task, _ = tasks.CORPORA[source.kind]
    if params.task.name != task:
        raise ValueError(
            f"source.kind: {source.kind} answers the questions of task.name {task}, and task.name is {params.task.name}"
        )
    world = tasks.load(task).world
    assert world is not None
    key, templates = ("templates", source.templates) if source.kind == "corpus" else ("pattern_b", source.pattern_b)
    for template in templates:
        if template not in world.templates:
            raise ValueError(f"source.{key}: {template!r} is unknown; choose from {', '.join(world.templates)}")
    if source.kind != "corpus":
        labelled.require_operators(source.operator_weights, "source.operator_weights")
    if isinstance(source, TaggedTraces) and not any(source.asked.values()):
        raise ValueError("source.asked: all are 0, so nothing is asked; give a way a weight")
    for digit in source.slip_operands:
        if digit > 9:
            raise ValueError(f"source.slip_operands: {digit} is no digit; use 0 to 9")


def check_method(params: RunParams, method: methods.Method, options: Sequence[BaseModel]) -> None:
    """Refuse a method without what it needs, and what the method itself refuses in any of these options."""
    if params.teacher is None and ("teacher" in method.needs or params.source.kind == "teacher"):
        raise ValueError(f"teacher: null, but method {method.name} with source {params.source.kind} needs one; name it")
    if params.machine.processes > params.source.prompts_per_step:
        raise ValueError(
            f"machine.processes: {params.machine.processes} for {params.source.prompts_per_step} prompts per step; "
            "each process needs at least one prompt"
        )
    if params.source.kind in ("stored", "answers") and method.needs:
        raise ValueError(
            f"source.kind: {params.source.kind}, but method {method.name} needs {', '.join(sorted(method.needs))}: "
            "responses given beforehand are for fine-tuning, method.name: sft"
        )
    if params.source.kind == "student" and (params.source.temperature != 1.0 or params.source.top_p < 1.0):
        raise ValueError(
            f"source: temperature {params.source.temperature:g}, top_p {params.source.top_p:g}: on-policy gradients "
            "take the samples for the student's own; use temperature: 1.0 and top_p: 1.0 with kind: student"
        )
    if params.source.kind != "student" and method.check_others is not None:
        for each in options:
            method.check_others(each, params.source.kind)
    if "reward" in method.needs and (params.source.kind != "student" or params.source.per_prompt < 2):
        raise ValueError(
            f"source.kind: {params.source.kind}, but method {method.name} compares rewards of the student's own "
            "responses to one prompt; use kind: student with per_prompt of at least 2"
        )
    if tasks.grading(params.task) is None:
        check_ungraded(params, method, options)
    world = tasks.load(params.task.name).world  # elsewhere the vocabulary is known once a checkpoint is loaded
    if method.check is not None and world:
        for each in options:
            method.check(each, len(world.words), params.teacher is not None)


def check_ungraded(params: RunParams, method: methods.Method, options: Sequence[BaseModel]) -> None:
    """Refuse methods and probes that need to know whether a response is right, where the task grades nothing."""
    why = "but nothing is graded (task.grader: none); name a grader and the column of the answers"
    if "reward" in method.needs:
        raise ValueError(f"method.name: {method.name} learns from right and wrong responses, {why}")
    if params.probe is not None and params.probe.kind in ("continuation", "reward"):
        raise ValueError(f"probe.kind: {params.probe.kind} tells right responses from wrong ones, {why}")
    for each in options:
        if method.check_ungraded is not None:
            method.check_ungraded(each)


def check_teachers(params: RunParams, method: methods.Method | None, options: Sequence[BaseModel]) -> None:
    """Refuse teachers that a run or a method cannot have: the student itself, several by name, none to be shown."""
    if params.teacher == SELF or params.named_teachers:
        who = "self" if params.teacher == SELF else "several by name"
        if params.machine.teacher_url:
            raise ValueError(f"teacher: {who}, but machine.teacher_url names a server of one; use teacher_url: null")
        if params.source.kind == "teacher":
            raise ValueError(f"teacher: {who}, but source.kind: teacher lets one other model write; name it alone")
        if params.probe is not None:
            raise ValueError(f"teacher: {who}, but a probe compares two checkpoints; name one teacher")
    if method is None:
        return
    if params.named_teachers and not (method.shares or method.taught or "teachers" in method.needs):
        raise ValueError(f"teacher: several by name, but method {method.name} knows one teacher; name one")
    if method.aligned is not None:
        check_aligned(params, method)
    if method.shown is not None and params.teacher is None:
        raise ValueError(f"teacher: null, but method {method.name} shows it something; name one, or self")
    if method.check_teachers is not None and params.teacher is not None:
        teachers = frozenset({SELF} if params.teacher == SELF else params.named_teachers)
        others = [params.task.other_content] if params.task.other_share > 0 else []
        for each in options:
            method.check_teachers(each, teachers, frozenset([params.task.content, *others]))


def check_aligned(params: RunParams, method: methods.Method) -> None:
    """Refuse teachers and sources with which a method that aligns two tokenizers has no way."""
    why = f"but method {method.name} aligns the tokens of two checkpoints"
    if params.teacher == SELF or params.named_teachers:
        raise ValueError(f"teacher: {'self' if params.teacher == SELF else 'several by name'}, {why}; name one teacher")
    if params.machine.teacher_url:
        raise ValueError(f"machine.teacher_url: a server, {why} in one process; use teacher_url: null")
    if params.source.kind == "teacher":
        raise ValueError(f"source.kind: teacher, {why}, and trains on the student's; use kind: student")
    if params.probe is not None:
        raise ValueError(f"probe.kind: {params.probe.kind}, {why}, and a probe reads one vocabulary; use probe: null")
    if tasks.load(params.task.name).respond is not None:
        raise ValueError(f"task.name: {params.task.name}, {why}, and a tool's words stand between; use another task")


def check_served(params: RunParams, method: methods.Method, options: Sequence[BaseModel]) -> None:
    """Refuse what needs more of the teacher than a server says: its samples, or its probability of given tokens."""
    here = "the teacher must be in this process: use machine.teacher_url: null"
    if params.source.kind == "teacher":
        raise ValueError(f"source.kind: teacher, but a served teacher writes no responses; {here}")
    if params.probe is not None and params.probe.kind in ("teachers", "continuation"):
        what = {"teachers": "compares whole distributions", "continuation": "lets the teacher write"}
        raise ValueError(f"probe.kind: {params.probe.kind} {what[params.probe.kind]}, and {here}")
    for each in options:
        for branch in method.branches(each) if method.branches else ():
            if branch.coef and branch.changes.get("source.kind") == "teacher":
                raise ValueError(
                    f"method.name: {method.name}: in its part {branch.name} the teacher writes, and a served one does "
                    f"not; {here}"
                )
        if method.check_served is not None:
            method.check_served(each)
