"""What the columns of growing curves are called where someone chooses and reads them, and their units."""

from __future__ import annotations

from collections.abc import Iterable

NAMES = {
    "grad_norm": "gradient norm",
    "n_tokens": "tokens in a step",
    "response_length": "response length",
    "truncated_share": "truncated responses",
    "reward": "right answers in training",
    "sampler_gap": "gap of sampler and trainer",
    "entropy_gap": "entropy gap",
    "entropy_gap_of_means": "gap of mean entropies",
    "reverse_kl": "reverse KL",
    "sampled_reverse_kl": "reverse KL at sampled tokens",
    "student_mass": "student's mass on the overlap",
    "teacher_mass": "teacher's mass on the overlap",
    "student_support_mass": "student's mass on its own list",
    "advantage_paper": "advantage on the overlap",
    "advantage_reference_code": "advantage, published code",
    "advantage_verl": "advantage, verl",
    "empty_overlap": "positions without overlap",
    "delta_p": "p − q at the largest advantage",
    "taught_share": "taught tokens",
    "hedge_share": "hedges",
    "repeat_share": "repeated tokens",
    "repeated_advantage": "advantage of repeated tokens",
    "other_advantage": "advantage of the others",
    "looping_share": "responses in a loop",
}
"""Column (without _k16 and @TEACHER) → its name, where that is not its words."""
UNIT_OF_ACCURACY = "share correct"


def name(column: str) -> str:
    """The name of a column of `growing.curves`.

    >>> name("overlap_k16"), name("grad_norm"), name("sampled_reverse_kl@large")
    ('overlap (k = 16)', 'gradient norm', 'reverse KL at sampled tokens (large)')
    """
    base, k, teacher = parts(column)
    words = NAMES.get(base, base.replace("_", " "))
    told = [f"k = {k}"] * bool(k) + [teacher] * bool(teacher)
    return f"{words} ({', '.join(told)})" if told else words


def unit(column: str) -> str:
    """The unit of a column, empty where it has none or none is known.

    >>> unit("overlap_k16"), unit("loss"), unit("grad_norm"), unit("accuracy")
    ('share', 'nats/token', '', 'share correct')
    """
    from opd_lib.maths.diagnostics import UNITS

    return UNIT_OF_ACCURACY if column == "accuracy" else UNITS.get(parts(column)[0], ("", ""))[0]


def parts(column: str) -> tuple[str, int, str]:
    """What is measured, the length of the lists (0: none) and the teacher (empty: the only one).

    >>> parts("overlap_k16"), parts("sampled_reverse_kl@large")
    (('overlap', 16, ''), ('sampled_reverse_kl', 0, 'large'))
    """
    from opd_lib.maths.diagnostics import length

    measured, _, teacher = column.partition("@")
    k = length(measured)
    return (measured.rpartition("_k")[0] if k else measured), k, teacher


def chosen(word: str, columns: Iterable[str]) -> str:
    """The column that someone means, by its name or as it is called in the tables. Raises ValueError if none is."""
    known = {name(column): column for column in columns}
    if word in known.values():
        return word
    if word in known:
        return known[word]
    raise ValueError(f"curves: there is no {word!r}; choose from {', '.join(known)}")
