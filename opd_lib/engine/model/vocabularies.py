"""Two tokenizers: which tokens of theirs are the same, and what text a token adds.

A token's surface is the text that it adds behind another token, so that " word", "Ġword" and "▁word" are one. Pieces of
characters have none; such tokens are the same where both tokenizers write them alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opd_lib.spelling import NONE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PIECE = "\ufffd"
"""What tokenizers show in the place of a character that is not whole."""
LONGEST = 4
"""Bytes of a character, at most: so many pieces make it, or there is none."""


class Surfaces:
    """The surface of each token of a tokenizer, and texts of tokens as they were drawn."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        self.anchor: list[int] = tokenizer("a", add_special_tokens=False).input_ids[-1:]
        self.of = self._behind([[index] for index in range(len(tokenizer))])

    def _behind(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """What each row of tokens adds to the text of a token before it."""
        texts = self.tokenizer.batch_decode(
            [self.anchor, *([*self.anchor, *row] for row in rows)], clean_up_tokenization_spaces=False
        )
        return [text.removeprefix(texts[0]) for text in texts[1:]]

    def pieces(self, token_ids: Sequence[int]) -> list[str]:
        """The text that each token adds; of tokens that share a character the first one adds it all."""
        found: list[str] = []
        first = 0  # of the tokens that have made no whole character yet
        for place, token in enumerate(token_ids):
            if PIECE not in self.of[token] or place - first == LONGEST:
                first = place
            begun = token_ids[first : place + 1]
            found.append("")
            found[first] = self.of[token] if len(begun) == 1 else self._behind([begun])[0]
            if PIECE not in found[first]:
                first = place + 1
        return found

    def named(self) -> dict[str, int]:
        """Surface → the first token that has it; of pieces of characters, what the tokenizer writes for them."""
        names: dict[str, int] = {}
        for index, surface in enumerate(self.of):
            written = self.tokenizer.convert_ids_to_tokens(index) if PIECE in surface else ""
            if surface:
                names.setdefault(f"{PIECE}{written}" if written else surface, index)
        return names


@dataclass(frozen=True, slots=True)
class Pairs:
    """The tokens that two tokenizers share: ids in both, in the order of the student's. End tokens are a pair.

    `student_number`, `teacher_number`: token → its place among the pairs, NONE for the others. `whole`: they are all.
    """

    student: tuple[int, ...]
    teacher: tuple[int, ...]
    student_number: Sequence[int]
    teacher_number: Sequence[int]
    whole: bool


def pairs(student: Surfaces, teacher: Surfaces) -> Pairs:
    """The shared tokens. Two tokenizers of one vocabulary share it all."""
    mine, other = student.tokenizer, teacher.tokenizer
    if mine.get_vocab() == other.get_vocab():
        every = tuple(range(len(mine)))
        return Pairs(every, every, every, every, True)
    ours, theirs = student.named(), teacher.named()
    found = {ours[name]: theirs[name] for name in ours.keys() & theirs.keys()}
    ends = (mine.eos_token_id, other.eos_token_id)
    found = {one: two for one, two in found.items() if one != ends[0] and two != ends[1]} | {ends[0]: ends[1]}
    mine_C = tuple(sorted(found))
    other_C = tuple(found[one] for one in mine_C)
    numbers = (numbered(mine_C, len(mine)), numbered(other_C, len(other)))
    return Pairs(mine_C, other_C, *numbers, len(mine_C) == len(mine) == len(other))


def numbered(ids: Sequence[int], length: int) -> list[int]:
    """Token of a vocabulary of this length → its place in `ids`, NONE for the others."""
    numbers = [NONE] * length
    for number, index in enumerate(ids):
        numbers[index] = number
    return numbers
