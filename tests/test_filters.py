"""The filters of the cold start at their boundaries: one less passes, the stated number fails."""

from __future__ import annotations

import random

import pytest

from opd_lib.tasks import filters

BOX = "\n\\boxed{1}"


def noise(n: int, seed: int = 0) -> str:
    """n characters in which nothing repeats."""
    rng = random.Random(seed)
    return "".join(chr(rng.randrange(0x4E00, 0x9FFF)) for _ in range(n))


def kept(response: str) -> bool:
    return filters.first_failure(response, finished=True) is None


def test_a_plain_response_is_kept() -> None:
    assert kept("It is \\boxed{34}.")
    assert kept(noise(20_000) + BOX)


def test_a_truncated_response_is_dropped_whatever_it_holds() -> None:
    assert filters.first_failure("It is \\boxed{34}.", finished=False) == "truncated"
    assert filters.first_failure("", finished=False) == "truncated"


def test_a_response_without_a_box_is_dropped() -> None:
    assert filters.first_failure("It is 34.", finished=True) == "no_box"
    assert kept("\\boxed")


@pytest.mark.parametrize(("length", "times", "reason"), [
    (20, 4, None), (20, 5, "repeated_line"), (19, 50, None), (21, 5, "repeated_line"),
])  # fmt: skip
def test_a_line_of_twenty_characters_may_come_four_times(length: int, times: int, reason: str | None) -> None:
    line = noise(length)
    apart = [part for i in range(times) for part in (noise(200 + i, seed=i + 1), line)]
    assert filters.first_failure("\n".join(apart) + BOX, finished=True) == reason


def test_blanks_around_a_line_do_not_count() -> None:
    line = noise(19)
    assert kept("\n".join([f" {line}\t"] * 5) + BOX)
    line = noise(20)
    assert filters.first_failure("\n".join(["  " * i + line for i in range(5)]) + BOX, True) == "repeated_line"


def pieces_at(starts: list[int], piece: str, total: int) -> str:
    text = list(noise(total, seed=9))
    for start in starts:
        text[start : start + len(piece)] = piece
    return "".join(text)


@pytest.mark.parametrize(("starts", "length", "reason"), [
    ([0, 500, 1000], 100, "repeated_ngram"),
    ([0, 500], 100, None),
    ([0, 500, 1000], 99, None),
    ([10, 530, 1090], 100, "repeated_ngram"),
    ([0, 505, 1010], 100, None),
    ([0, 505, 1010], 109, None),
    ([3, 503, 1003], 100, None),
    ([3, 503, 1003], 107, "repeated_ngram"),
])  # fmt: skip
def test_a_hundred_characters_that_begin_at_every_tenth_may_come_twice(
    starts: list[int], length: int, reason: str | None
) -> None:
    text = pieces_at(starts, noise(length, seed=5), 2000)
    assert filters.first_failure(text + BOX, finished=True) == reason


def test_overlapping_pieces_count() -> None:
    assert filters.first_failure("\\boxed{1}" + "a" * 129, finished=True) == "repeated_ngram"
    assert kept("\\boxed{1}a" + "b" * 109)


@pytest.mark.parametrize(("times", "block", "length", "reason"), [
    (3, 50, 5001, "repeated_block"),
    (3, 50, 5000, None),
    (2, 50, 5001, None),
    (3, 49, 5001, None),
    (3, 51, 5001, None),
    (6, 25, 5001, "repeated_block"),
])  # fmt: skip
def test_fifty_characters_may_follow_themselves_once_in_long_responses(
    times: int, block: int, length: int, reason: str | None
) -> None:
    repeated = noise(block, seed=3) * times
    begin = 1003  # off the grid of the pieces
    text = noise(length - len(BOX) - len(repeated), seed=4)
    response = text[:begin] + repeated + text[begin:] + BOX
    assert len(response) == length
    assert filters.first_failure(response, finished=True) == reason


def test_a_block_may_hold_line_ends() -> None:
    block = noise(15, seed=6) + "\n" + noise(15, seed=7) + "\n" + noise(17, seed=8) + "\n"
    assert len(block) == 50
    assert filters.first_failure(noise(6000) + block * 3 + BOX, finished=True) == "repeated_block"


def test_the_first_failure_names_a_response_and_reasons_are_counted() -> None:
    lines = "\n".join([noise(30)] * 5)
    responses = ["\\boxed{1}", "1", "1", lines, lines + BOX, "\\boxed{1}", "a" * 200 + BOX]
    finished = [True, True, False, True, True, False, True]
    assert filters.count_failures(responses, finished) == {
        "truncated": 2, "no_box": 2, "repeated_line": 1, "repeated_ngram": 1, "repeated_block": 0, "kept": 1
    }  # fmt: skip
    assert tuple(filters.count_failures([], [])) == (*filters.FILTERS, "kept")


def test_every_response_needs_its_flag() -> None:
    with pytest.raises(ValueError):
        filters.count_failures(["\\boxed{1}"], [])
