"""Objectives of `opd` that are well-formed and yet are not trained, each with the reason and a remedy.

Refused is what cannot be computed, what is identically zero, and what does not follow the teacher. The last is decided
on paper and held against exact enumeration (tests/test_objectives_enumerated.py): for an accepted objective some other
teacher changes the direction of its gradient, whatever the student; no teacher with most of its probability on the
support S lets the student leave S for good; and of two tokens of S that are equally likely to the student, descending
raises the one that the teacher prefers.
"""

from __future__ import annotations

from typing import Any, Protocol

Facts = dict[str, set[Any]]
ONE_TOKEN = {"student", "teacher", "intersection"}  # supports that have one token at most if the lists have one


class Objective(Protocol):
    """What is read of `opd`'s parameters."""

    @property
    def estimator(self) -> str:
        """The sampled token, a support or the vocabulary."""

    @property
    def k(self) -> int:
        """How long the top-k lists are (tokens)."""

    @property
    def support(self) -> str:
        """How the two lists make the support."""

    def model_dump(self) -> dict[str, Any]:
        """Every parameter by name."""


def check(params: Objective, vocabulary: int, has_teacher: bool) -> None:
    """Refuse what cannot be computed, or whose expected gradient is zero, blind to the teacher or away from it.

    Raises ValueError naming key, value, reason and remedy.
    """
    facts = known(params, vocabulary, has_teacher)
    for key, when, reason in REFUSALS:
        if applies(when, facts):
            blamed = f"method.{key}: {str(facts[key]).lower()}" if has_teacher else "teacher: null"
            raise ValueError(f"{blamed}: {reason.format(vocabulary=vocabulary)}")


def known(params: Objective, vocabulary: int, has_teacher: bool) -> dict[str, Any]:
    """What refusals ask of an objective: its keys, whether there is a teacher, and the `size` of its lists."""
    k = {"sampled": 0, "topk": params.k, "full": vocabulary}[params.estimator]
    sizes = {"empty": k < 1, "too long": k > vocabulary, "all": k == vocabulary, "one": k == 1}
    size = next((size for size, holds in sizes.items() if holds), "some")
    return params.model_dump() | {"teacher": has_teacher, "size": size}


def applies(when: Facts, facts: dict[str, Any]) -> bool:
    """Whether a refusal's facts are those of an objective."""
    return all(facts[fact] in values for fact, values in when.items())


def check_served(params: Objective) -> None:
    """Refuse objectives that read the teacher's probability of a token which is not on the teacher's own list.

    Raises ValueError naming key, value, reason and remedy.
    """
    reason = "a vLLM server cannot score given tokens at each position, only the sampled one and the teacher's top-k"
    if params.estimator == "full":
        raise ValueError(f"method.estimator: full: {reason}; use sampled, or machine.teacher_url: null")
    if params.estimator == "topk" and params.support not in ("teacher", "intersection"):
        raise ValueError(
            f"method.support: {params.support}: {reason}; use support: teacher or intersection, estimator: sampled, or "
            "machine.teacher_url: null"
        )


def check_others(params: Objective, kind: str) -> None:
    """Refuse responses of another author where the estimate takes them for the student's own.

    Raises ValueError naming key, value, reason and remedy.
    """
    if params.estimator == "sampled":
        raise ValueError(
            f"method.estimator: sampled, but source.kind is {kind}: only of the student's own tokens is the log-ratio "
            "an estimate of the reverse KL; use estimator: topk or full, or source.kind: student"
        )


# key to blame · the facts that together refuse · reason; remedy. Earlier refusals are presupposed by later ones.
# A remedy names alternatives; each is right by itself where nothing else is wrong.
REFUSALS: tuple[tuple[str, Facts, str], ...] = (
    ("teacher", {"teacher": {False}}, "distillation compares with a teacher; name one"),
    ("k", {"estimator": {"topk"}, "size": {"empty"}}, "a list needs a token; use k > 1, or estimator: sampled"),
    ("k", {"size": {"too long"}}, "the vocabulary has {vocabulary} tokens; use 1 < k < {vocabulary}"),
    ("direction", {"estimator": {"sampled"}, "direction": {"forward", "jsd"}},
     "tokens are sampled from the student, so they estimate the reverse KL only; use direction: reverse"),
    ("stop_gradient", {"estimator": {"sampled"}, "stop_gradient": {False}},
     "a sampled token's log-ratio, differentiated, has expected gradient zero; use stop_gradient: true"),
    ("support", {"support": {"symmetric_difference"}, "size": {"all"}},
     "lists of all tokens differ nowhere: identically zero; use estimator: topk with 1 < k < {vocabulary}"),
    ("tail", {"tail": {"bucket"}, "size": {"all"}}, "all {vocabulary} tokens leave no tail; use tail: drop"),
    ("normalize", {"estimator": {"topk"}, "tail": {"bucket"}, "normalize": {"weights", "both"}},
     "the tail bucket completes p and q on S to distributions; use normalize: raw"),
    ("weight", {"estimator": {"topk"}, "tail": {"bucket"}, "direction": {"reverse"},
                "weight": {"teacher_p", "uniform"}},
     "with the tail bucket the sum is a KL under the student's own weight only; use weight: student_p"),
    ("stop_gradient", {"direction": {"forward", "jsd"}, "stop_gradient": {True}},
     "the policy-gradient form belongs to the reverse KL; use stop_gradient: false"),
    ("weight", {"direction": {"forward"}, "weight": {"student_p", "uniform"}},
     "the forward KL is an expectation under the teacher; use weight: teacher_p"),
    ("weight", {"direction": {"jsd"}, "weight": {"teacher_p", "uniform"}},
     "the Jensen–Shannon divergence brings its own weights; write weight: student_p"),
    ("normalize", {"direction": {"jsd"}, "normalize": {"weights"}},
     "the Jensen–Shannon divergence brings its own weights; use normalize: raw"),
    ("weight", {"direction": {"reverse"}, "weight": {"uniform"}, "stop_gradient": {False}},
     "differentiated, log q drops out: blind to the teacher; use stop_gradient: true"),
    ("weight", {"direction": {"reverse"}, "weight": {"teacher_p"}, "stop_gradient": {False}},
     "differentiated, it maximises the forward KL; use stop_gradient: true"),
    ("normalize", {"size": {"one"}, "support": ONE_TOKEN, "normalize": {"both"}},
     "one token renormalised has probability 1 in both models: identically zero; use k > 1"),
    ("normalize", {"size": {"one"}, "support": ONE_TOKEN, "normalize": {"weights"}, "direction": {"reverse"},
                   "stop_gradient": {False}},
     "one token of weight 1, differentiated, loses log q: blind to the teacher; use stop_gradient: true"),
    ("normalize", {"size": {"one", "some"}, "normalize": {"weights"}, "direction": {"reverse"},
                   "stop_gradient": {False}},
     "differentiated, it pushes all mass out of S under every teacher; use stop_gradient: true, or normalize: both"),
    ("stop_gradient", {"size": {"one"}, "support": ONE_TOKEN, "normalize": {"raw"}, "tail": {"drop"},
                       "direction": {"reverse"}, "stop_gradient": {False}},
     "differentiated, p log(p/q) falls until p = q/e: every teacher lowers a p above 1/e; use stop_gradient: true"),
    ("k", {"size": {"one"}, "support": {"student", "intersection"}, "normalize": {"raw", "weights"}, "tail": {"drop"},
           "direction": {"forward"}},
     "the student's own token rises, and no teacher changes the gradient's direction; use k > 1, or support: teacher"),
)  # fmt: skip
