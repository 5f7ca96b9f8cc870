"""The glossary of metrics: every column of the records with its equation, unit and range.

Units and meanings of training metrics are those of `maths/diagnostics.UNITS`, functions of claims those of
`judge/vocabulary`. What is only said here is the equation and the range, which a test holds against the records.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from opd_lib.judge import vocabulary
from opd_lib.maths.diagnostics import UNITS
from opd_lib.site.claims import WIDE

INF = math.inf
KEYS = ("step", "test_set", "problem", "arm", "seed", "batch", "row", "who", "budget", "pair", "depth", "cap")
"""Columns that say which row it is."""
AT_K = re.compile(r"_k\d+$")
SYMBOLS = r"""
With $p_t$ the student's and $q_t$ the teacher's distribution over the vocabulary $V$ at position $t$ of a response
that the student wrote, $y_t$ the token it drew, $S^p_t$ and $S^q_t$ the $k$ most likely tokens of each,
$I_t=S^p_t\cap S^q_t$ the *overlap*, and $\bar p_t,\bar q_t$ the two renormalised on $I_t$. $\mathbb{E}_t$ is the mean
over all response tokens of a step, $H(p)=-\sum_{v\in V}p(v)\log p(v)$, logarithms are natural. A column that ends in
`_k16` is measured with $k=16$.

A *hedge* is a word that `diagnose.hedges` names, such as `wait`. A *taught unit* is a stretch of text for which a
teacher of another tokenizer has tokens, too. *Golden responses* are those that somebody has written beforehand. A name
before a colon, such as `prune`, is the method whose runs alone have the column; before a dot, a branch of its loss.
"""


@dataclass(frozen=True, slots=True)
class Metric:
    """Equation (LaTeX), range and, for what is not in UNITS, unit and meaning; `source` is the paper's equation."""

    equation: str
    low: float = 0.0
    high: float = INF
    source: str = ""
    unit: str = ""
    meaning: str = ""

    @property
    def span(self) -> str:
        """The range as text."""
        ends = [
            ("−" if end < 0 else "") + ("∞" if math.isinf(end) else f"{abs(end):g}") for end in (self.low, self.high)
        ]
        return f"{'(' if math.isinf(self.low) else '['}{ends[0]}, {ends[1]}{')' if math.isinf(self.high) else ']'}"


OVERLAP_SUM = r"\sum_{v\in I_t}"
STEPS = {
    "loss": Metric(r"\frac{1}{N}\sum_t \ell_t", -INF, INF, "Eqs 3–5"),
    "grad_norm": Metric(r"\left\|\nabla_\theta L\right\|_2"),
    "n_tokens": Metric(r"N=\sum_i T_i", 1),
    "response_length": Metric(r"\frac{1}{B}\sum_i T_i"),
    "truncated_share": Metric(r"\frac{1}{B}\,\left|\{i: y_i\ \mathrm{was\ cut}\}\right|", 0, 1),
    "reward": Metric(r"\frac{1}{B}\,\left|\{i: y_i\ \mathrm{is\ right}\}\right|", 0, 1),
    "sampler_gap": Metric(r"\max_t\left|\log p^{\mathrm{sampler}}_t(y_t)-\log p_t(y_t)\right|"),
    "student_entropy": Metric(r"\mathbb{E}_t[H(p_t)]"),
    "teacher_entropy": Metric(r"\mathbb{E}_t[H(q_t)]"),
    "entropy_gap": Metric(r"\mathbb{E}_t\left| H(q_t)-H(p_t)\right|", source="Eq. 8"),
    "entropy_gap_of_means": Metric(r"\left|\mathbb{E}_t[H(q_t)]-\mathbb{E}_t[H(p_t)]\right|"),
    "reverse_kl": Metric(r"\mathbb{E}_t\sum_{v\in V}p_t(v)\log\frac{p_t(v)}{q_t(v)}", source="Eqs 2, 4"),
    "sampled_reverse_kl": Metric(r"\mathbb{E}_t[\log p_t(y_t)-\log q_t(y_t)]", -INF, INF, "Eq. 3"),
    "overlap": Metric(r"\mathbb{E}_t\frac{\left| I_t\right|}{k}", 0, 1, "Eq. 6"),
    "student_mass": Metric(rf"\mathbb{{E}}_t{OVERLAP_SUM}p_t(v)", 0, 1, "Eq. 9"),
    "teacher_mass": Metric(rf"\mathbb{{E}}_t{OVERLAP_SUM}q_t(v)", 0, 1, "Eq. 10"),
    "student_support_mass": Metric(r"\mathbb{E}_t\sum_{v\in S^p_t}p_t(v)", 0, 1),
    "advantage_paper": Metric(
        rf"\mathbb{{E}}_t\frac{{1}}{{\left| I_t\right|}}{OVERLAP_SUM}\bar p_t(v)(\log\bar q_t(v)-\log\bar p_t(v))",
        -INF, 0, "Eq. 7",
    ),
    "advantage_reference_code": Metric(
        rf"\frac{{\sum_t{OVERLAP_SUM}w_t(v)(\log q_t(v)-\log p_t(v))}}{{\sum_t\left| I_t\right|}},"
        r"\quad w_t(v)=\frac{p_t(v)}{\sum_{u\in S^p_t}p_t(u)}",
        -INF, INF,
    ),
    "advantage_verl": Metric(
        rf"\mathbb{{E}}_t\frac{{1}}{{\left| I_t\right|}}{OVERLAP_SUM}q_t(v)(\log p_t(v)-\log q_t(v))", -INF, INF
    ),
    "empty_overlap": Metric(r"\frac{1}{N}\,\left|\{t: I_t=\emptyset\}\right|", 0, 1),
    "delta_p": Metric(
        r"\mathbb{E}_t[p_t(v_t)-q_t(v_t)],"
        r"\quad v_t=\mathrm{argmax}_{v\in S^p_t}\,w_t(v)\left|\log q_t(v)-\log p_t(v)\right|",
        -1, 1, "Fig. 19",
    ),
    "taught_share": Metric(r"\frac{1}{N}\,\left|\{t: y_t\ \mathrm{is\ in\ a\ taught\ unit}\}\right|", 0, 1),
    "hedge_share": Metric(r"\frac{1}{N}\,\left|\{t: y_t\ \mathrm{is\ a\ hedge}\}\right|", 0, 1),
    "repeat_share": Metric(r"\frac{1}{N}\,|R|,\quad R=\{t: (y_{t-2},y_{t-1},y_t)\ \mathrm{stood\ before}\}", 0, 1),
    "repeated_advantage": Metric(r"\mathbb{E}_{t\in R}\left[\log q_t(y_t)-\log p_t(y_t)\right]", -INF, INF),
    "other_advantage": Metric(r"\mathbb{E}_{t\notin R}\left[\log q_t(y_t)-\log p_t(y_t)\right]", -INF, INF),
    "looping_share": Metric(r"\frac{1}{B}\,\left|\{i: y_i\ \mathrm{ends\ in\ a\ loop}\}\right|", 0, 1),
}  # fmt: skip
TOKENS, SHARE = "tokens", "share"
STEPS |= {
    "effective_length": Metric("", 0, INF, "", TOKENS, "`prune`: tokens of a response with a weight above 0, mean"),
    "limit_hits": Metric("", 0, 1, "", SHARE, "`prune`: responses that come near the limit"),
    "source.max_new_tokens": Metric("", 1, INF, "", TOKENS, "`prune`: response limit of this step"),
    "method.limit_start": Metric("", 1, INF, "", TOKENS, "`prune`: the limit that it has set for this step"),
    "tried_tokens": Metric("", 0, INF, "", TOKENS, "`eff_opd`: tokens of all trials before this step"),
    "golden.loss": Metric("", 0, INF, "", "nats/token", "`stable`: `loss` of the golden responses"),
    "golden.n_tokens": Metric("", 1, INF, "", TOKENS, "`stable`: tokens of the golden responses"),
    "golden.response_length": Metric("", 1, INF, "", TOKENS, "`stable`: mean length of the golden responses"),
    "golden.truncated_share": Metric("", 0, 0, "", SHARE, "`stable`: golden responses that were cut; none is"),
    "golden.reward": Metric("", 0, 1, "", SHARE, "`stable`: golden responses with the right answer"),
    "teacher.loss": Metric("", -INF, INF, "", "nats/token", "`brts`: `loss` of the teacher's part"),
    "teacher.n_tokens": Metric("", 1, INF, "", TOKENS, "`brts`: tokens of the teacher's responses that were chosen"),
    "teacher.response_length": Metric("", 1, INF, "", TOKENS, "`brts`: mean length of all that the teacher wrote"),
    "teacher.truncated_share": Metric("", 0, 1, "", SHARE, "`brts`: responses of the teacher that were cut"),
    "teacher.reward": Metric("", 0, 1, "", SHARE, "`brts`: responses of the teacher that are right"),
    "teacher.tier1": Metric("", 0, 1, "", SHARE, "`brts`: prompts with a right response among those sampled"),
    "teacher.tier2": Metric("", 0, 1, "", SHARE, "`brts`: prompts served by a teacher that was shown the answer"),
}
RIGHT, CUT = "answers that are right, mean over the problems of a test set", "answers cut at the length limit"
EVALS = {
    "accuracy": Metric(r"\frac{1}{M}\sum_m\frac{c_m}{n}", 0, 1, "avg@n", "share", f"{RIGHT} ($c_m$ of $n$ samples)"),
    "pass_at_k": Metric(
        r"\frac{1}{M}\,\left|\{m: c_m>0\}\right|",
        0,
        1,
        "",
        "share",
        "problems with at least one right answer among $n$",
    ),
    "truncated_share": Metric("", 0, 1, "", "share", CUT),
    "no_answer_share": Metric("", 0, 1, "", "share", "answers in which no answer was found"),
    "response_length": Metric("", 0, INF, "", "tokens", "mean length of the answers"),
    "n_problems": Metric("M", 1, INF, "", "problems", "problems of the test set"),
    "n_samples": Metric("n", 1, INF, "", "answers", "answers to each problem"),
}
CAPS = {
    "accuracy": Metric("", 0, 1, "", "share", "answers that are right and had ended within `cap` tokens"),
    "finished_share": Metric("", 0, 1, "", "share", "answers that had ended within `cap` tokens"),
}
PROBLEMS = {
    "n_correct": Metric("c_m", 0, INF, "", "answers", "right answers to this problem"),
    "n_samples": Metric("n", 1, INF, "", "answers", "answers to this problem"),
}
DEPTH = {
    "n_tokens": Metric("", 1, INF, "", "tokens", "tokens whose position lies in this bucket"),
    **{
        name: STEPS[name] for name in ("student_entropy", "teacher_entropy", "reverse_kl", "overlap", "advantage_paper")
    },
}
COSINE = r"\cos(g_1,g_2)"
PROBE = {
    "reward_mean": Metric(
        r"\frac{1}{T}\sum_t[\log q_t(y_t)-\log p_t(y_t)]", -INF, INF, "§6.2", "nats/token",
        "mean token reward of one response",
    ),
    "correct": Metric("", 0, 1, "", "", "1 if the response is right, else 0"),
    "length": Metric("T", 1, INF, "", "tokens", "length of the response"),
    "finished": Metric("", 0, 1, "", "", "1 if the response ended by itself, else 0"),
    "coherence": Metric(
        r"\frac{\left\|\sum_t g_t\right\|^2}{\sum_t\left\| g_t\right\|^2}", 0, INF, "", "",
        "do tokens' gradients of the head weight add up (above 1) or cancel (below)? Depends on their number",
    ),
    "mean_cosine": Metric(
        r"\frac{1}{N(N-1)}\sum_{s\neq t}\cos(g_s,g_t)", -1, 1, "", "", "mean cosine of two tokens' gradients"
    ),
    "effective_rank": Metric(
        r"\frac{(\sum_t\left\| g_t\right\|^2)^2}{\sum_{s,t}\langle g_s,g_t\rangle^2}", 1, INF, "", "",
        "number of directions over which tokens' gradients are spread",
    ),
    "n_tokens": Metric("N", 1, INF, "", "tokens", "tokens that were looked at"),
    "half_batch_cosine": Metric(COSINE, -1, 1, "", "", "cosine of the gradients of two halves of a batch, all weights"),
    "against_cosine": Metric(COSINE, -1, 1, "", "", "cosine of the gradients of two objectives, all weights"),
    "mean_abs_advantage": Metric(
        r"\mathbb{E}_t\left|\log q_t(y_t)-\log p_t(y_t)\right|", 0, INF, "", "nats", "mean size of the token reward"
    ),
    "grad_norm": Metric(r"\left\|\nabla_\theta L\right\|_2", 0, INF, "", "", "norm of the gradient, all weights"),
    "accuracy": Metric("", 0, 1, "Fig. 11b", "share", "continued responses that are right"),
    "student_accuracy": Metric("", 0, 1, "Fig. 11b", "share", "the same responses, uncut and not continued"),
    "n": Metric("", 1, INF, "", "responses", "responses that were continued"),
    "js": Metric(
        r"\mathbb{E}_t[\tfrac12\mathrm{KL}(a\Vert m)+\tfrac12\mathrm{KL}(b\Vert m)],\quad m=\tfrac12(a+b)",
        0, math.log(2), "", "nats", "Jensen–Shannon divergence of a pair of models on the student's tokens",
    ),
    "kl": Metric(r"\mathbb{E}_t[\mathrm{KL}(a\Vert b)]", 0, INF, "", "nats/token", "the pair, first from second"),
    "kl_reverse": Metric(r"\mathbb{E}_t[\mathrm{KL}(b\Vert a)]", 0, INF, "", "nats/token", "second from first"),
    "overlap": STEPS["overlap"],
}  # fmt: skip
TABLES = {"steps": STEPS, "evals": EVALS, "depth": DEPTH, "caps": CAPS, "problems": PROBLEMS, "probe": PROBE}
"""table of a run → column (a trailing _k16 left out) → what it is; KEYS are left out"""
ABOUT = {
    "steps": "one row per optimiser step, over the step's own responses",
    "evals": "one row per evaluation and test set",
    "depth": "one row per logged step and stretch of positions; the metrics of `steps` on those tokens alone",
    "caps": "one row per evaluation, test set and cap: what if no answer might be longer?",
    "problems": "one row per evaluation and problem",
    "probe": "runs that measure two checkpoints and train nothing; which columns there are depends on the probe",
}


def page() -> str:
    """The whole page as Markdown."""
    tables = "\n".join(_table(name, metrics) for name, metrics in TABLES.items())
    functions = "\n".join(_function(name, function) for name, function in vocabulary.FUNCTIONS.items())
    return (
        f"{WIDE}# Glossary of metrics\n\n{SYMBOLS}\n{tables}\n## Quantities of claims\n\nA claim's quantity is an "
        "expression of these functions, one number per seed. What has a value may be left out. In brackets: the table "
        "that is read.\n\n" + functions
    )


def _table(name: str, metrics: dict[str, Metric]) -> str:
    rows = []
    for column, metric in metrics.items():
        unit, meaning = (metric.unit, metric.meaning) if metric.meaning else UNITS[column]
        text = " ".join(re.sub(r"\s*\((?:Eq\.|Fig) \d+\)", "", meaning).split())
        equation = f"\n\n    $${metric.equation}$$\n" if metric.equation else ""
        rows.append([f"`{column}`", f"{text}{equation}", metric.source, f"{unit} {metric.span}"])
    head = ("column", "meaning and equation", "in the paper", "unit and range")
    lines = "\n".join("* - " + "\n  - ".join(row) for row in (head, *rows))
    return (
        f"(m-{name})=\n## `{name}.csv`\n\n{ABOUT[name].capitalize()}.\n\n"
        f":::{{list-table}}\n:header-rows: 1\n:class: metrics\n\n{lines}\n:::\n"
    )


def _function(name: str, function: Callable[..., Any]) -> str:
    plain = vocabulary.PAIRED[name] if isinstance(function, partial) else function
    _, *arguments = inspect.signature(plain).parameters.values()
    shown = ", ".join(_argument(argument) for argument in arguments)
    text = inspect.getdoc(plain) or ""
    return f"(f-{name})=\n### `{name}({shown})`\n\n{text}\n"


def _argument(argument: inspect.Parameter) -> str:
    if argument.kind is argument.VAR_POSITIONAL:
        return "…"
    return argument.name if argument.default is argument.empty else f"{argument.name}={argument.default!r}"
