"""The 256 words of labelled chains, of which many are kept for tasks to come, and the chat they are written in."""

from __future__ import annotations

from opd_lib.tasks.world import BOS, DIGITS, EOS, PAD, TEMPLATES, UNKNOWN, World

OPERATORS = ("+", "-", "*", "~")
SPOKEN = {"+": "plus", "-": "minus", "*": "times", "~": "twist"}
LABELS = tuple(f"s{i}" for i in range(1, 17))
STYLES = tuple(f"<style{i}>" for i in range(1, 9))
TAGS = (
    *("<think>", "</think>", "<brief>", "<hint>", "</hint>", "<rule>", "<safe>", "<unsafe>", "<refuse>"),
    *("<call>", "</call>", "<result>", "</result>", *STYLES),
)
"""For tasks on this tokenizer (`tagged`): a hint or a rule is shown, a style asked for, thinking, refusing, calling a
tool. No chain has one."""
SPARE = tuple(f"<spare{i}>" for i in range(1, 17))
_SAID = (
    *(PAD, BOS, EOS, UNKNOWN, "<q>", "<a>", "<ans>"),
    *DIGITS, *OPERATORS, "=", ";", "wait", "take", *SPOKEN.values(), "get", ".", *LABELS, *TEMPLATES, *TAGS, *SPARE,
)  # fmt: skip
FILLERS = tuple(f"w{i:03d}" for i in range(256 - len(_SAID)))
VOCABULARY = _SAID + FILLERS
WORLD = World(words=VOCABULARY)
