"""The second edition of the tiny world: arithmetic, traces with slips and re-checks, held-out questions, the grader."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from opd_lib import tasks
from opd_lib.engine import sources
from opd_lib.engine.model import models
from opd_lib.params.schema import Traces
from opd_lib.tasks import labelled, labelled_traces, labelled_words
from opd_lib.tasks.labelled_questions import Operation, Question

PARAMS = labelled.Params(
    name="labelled",
    operator_weights=(1.0, 1.0, 1.0, 1.6),
    content="chain-a",
    other_content="chain-long",
    other_share=0.25,
    template="T1",
    test_sets=("chain-3", "chain-5"),
    test_template="T2",
)
PLAIN = labelled_traces.Style(
    filler_offset=5.0,
    filler_before_step=0.0,
    filler_anywhere=0.0,
    slip_operands=(),
    slip_probability=0.0,
    recheck=(0.0,),
    recheck_slip=0.0,
)


def style(**changes: Any) -> labelled_traces.Style:
    said = {name: getattr(PLAIN, name) for name in PLAIN.__slots__}
    return labelled_traces.Style(**said | changes)


def questions(n: int, content: str = "chain-all", seed: int = 0) -> list[Question]:
    return labelled.draw_training(content, n, random.Random(seed), PARAMS.operator_weights)


def steps_of(words: list[str], stop: str) -> list[list[str]]:
    """The steps of a trace as it is written, each without its stop."""
    body = words[: words.index("<ans>")]
    ends = [-1, *(i for i, word in enumerate(body) if word == stop)]
    return [body[begin + 1 : end] for begin, end in pairwise(ends)]


def by_hand(text: str) -> int:
    """The answer to a question, read from its text alone."""
    start, *rest = text.split()
    value, operations = int(start), " ".join(rest)
    for number, asked in enumerate(operations.split("s")[1:], start=1):
        label, operator, *digits = asked.split()
        assert int(label) == number
        numbers = [int(digit) for digit in digits]
        value = value * numbers[0] + numbers[1] if operator == "~" else eval(f"{value} {operator} {numbers[0]}")
        value %= 10
    return value


def test_the_answer_is_arithmetic_modulo_ten_in_the_order_of_the_labels() -> None:
    found = questions(300) + questions(50, "chain-long")
    assert [int(question.answer) for question in found] == [by_hand(question.text) for question in found]
    assert {operation.operator for question in found for operation in question.operations} == set("+-*~")


def test_a_trace_without_slips_is_the_solution() -> None:
    for question in questions(50):
        words = labelled_traces.write_trace(question, "A", PLAIN, random.Random(0))
        assert " ".join(words) == f"{question.solution} <eos>"


@pytest.mark.parametrize(("pattern", "stop", "sign"), [("A", ";", "="), ("B", ".", "get")])
def test_slips_follow_their_operands_and_are_carried_on(pattern: str, stop: str, sign: str) -> None:
    written = style(slip_operands=(3, 7), slip_probability=0.9)
    rng, seen, slipped = random.Random(2), Counter[bool](), Counter[bool]()
    for question in questions(2000):
        words = labelled_traces.write_trace(question, pattern, written, rng)
        before = question.start
        for operation, said in zip(question.operations, steps_of(words, stop), strict=True):
            assert int(said[1 if pattern == "A" else 2]) == before and said[-2] == sign
            result = int(said[-1])
            off = (result - operation(before)) % 10
            assert off in (0, 1)
            prone = operation.operator != "~" and operation.digits[0] in (3, 7)
            seen[prone] += 1
            slipped[prone] += off
            before = result
        assert labelled.extract_answer(" ".join(words)) == str(before)
    assert slipped[False] == 0 and abs(slipped[True] / seen[True] - 0.9) < 0.03


def test_a_recheck_repeats_the_result_and_slips_less_and_its_last_value_counts() -> None:
    odd = (1, 3, 5, 7, 9)
    written = style(slip_operands=odd, slip_probability=0.9, recheck=(0.0, 0.5), recheck_slip=0.3)
    rng = random.Random(3)
    temperament, again = Counter[bool](), Counter[int]()
    for question in questions(3000):
        said = steps_of(labelled_traces.write_trace(question, "A", written, rng), ";")
        temperament[any("wait" in each for each in said)] += 1
        before = question.start
        for operation, each in zip(question.operations, said, strict=True):
            values = [int(value) for word, value in pairwise(each) if word == "="]
            assert each.count("wait") == len(values) - 1
            if operation.operator != "~" and operation.digits[0] in odd:
                again.update((value - operation(before)) % 10 for value in values[1:])
            else:
                assert set(values) == {operation(before)}
            before = values[-1]
    # half of the traces never re-check; of the others .5 + .25 + … do at each of 2 to 5 steps
    spared = sum(0.5 + 0.5 * 0.5**n for n in (2, 3, 4, 5)) / 4
    assert abs(temperament[False] / 3000 - spared) < 0.03
    assert abs(again[1] / again.total() - 0.27) < 0.04 and set(again) == {0, 1}


def test_fillers_stand_before_steps_and_anywhere_at_their_rates() -> None:
    rng, n_steps, before, others, n_others = random.Random(4), 0, 0, 0, 0
    for question in questions(2000):
        words = labelled_traces.write_trace(question, "A", style(filler_before_step=0.25), rng)
        n_steps += len(question.operations)
        before += sum(word in labelled_words.FILLERS for word in words)
        words = labelled_traces.write_trace(question, "A", style(filler_anywhere=0.015), rng)
        others += sum(word in labelled_words.FILLERS for word in words)
        n_others += sum(word not in labelled_words.FILLERS for word in words)
    assert abs(before / n_steps - 0.25) < 0.02 and abs(others / n_others - 0.015) < 0.003


def test_the_patterns_share_half_their_filler_ranks() -> None:
    a, b = labelled_traces.filler_weights("A", 5.0), labelled_traces.filler_weights("B", 5.0)
    assert sorted(a) == sorted(b) and a == sorted(a, reverse=True)
    assert sum(x == y for x, y in zip(a, b, strict=True)) == len(a) // 2


def source(**changes: Any) -> Traces:
    said = {
        "kind": "traces",
        "prompts_per_step": 2000,
        "operator_weights": [1.0, 1.0, 0.0, 0.5],
        "pattern_b": {"T1": 0.3, "T5": 0.0},
        "filler_offset": 5.0,
        "filler_before_step": 0.0,
        "filler_anywhere": 0.0,
        "slip_operands": [],
        "slip_probability": 0.0,
        "recheck": [0.0],
        "recheck_slip": 0.0,
    }
    return Traces.model_validate(said | changes)


def test_a_corpus_has_the_operators_templates_and_patterns_it_is_told_to_have() -> None:
    asked, templates, written = tasks.corpus(source(), "chain-all", random.Random(5))
    operators = Counter(operation.operator for question in asked for operation in question.operations)
    assert set(operators) == set("+-~") and abs(operators["~"] / operators.total() - 0.2) < 0.02
    in_b = Counter((template, words[0] == "take") for template, words in zip(templates, written, strict=True))
    assert in_b["T5", True] == 0 and abs(in_b["T1", True] / (in_b["T1", True] + in_b["T1", False]) - 0.3) < 0.05
    assert abs(templates.count("T5") / 2000 - 0.5) < 0.05


def test_the_order_in_which_templates_are_written_makes_no_difference() -> None:
    one, other = source(pattern_b={"T1": 0.3, "T2": 0.0}), source(pattern_b={"T2": 0.0, "T1": 0.3})
    assert tasks.corpus(one, "chain-all", random.Random(6)) == tasks.corpus(other, "chain-all", random.Random(6))


def test_a_corpus_depends_on_seed_and_step_and_is_dealt_over_processes() -> None:
    tokenizer = models.world_tokenizer(labelled.WORLD)

    def drawn(seed: int, step: int, rank: int = 0, world: int = 1) -> list[list[int]]:
        which = sources.BatchKey(seed=seed, step=step, ranks=sources.Ranks(rank=rank, world=world))
        found = sources.from_corpus(source(prompts_per_step=6), PARAMS, tokenizer, which)
        return [row[:n] for row, n in zip(found.response_BT.tolist(), found.length_B.tolist(), strict=True)]

    whole = drawn(0, 1)
    assert drawn(0, 1) == whole and drawn(1, 1) != whole and drawn(0, 2) != whole
    assert drawn(0, 1, 0, 2) == whole[::2] and drawn(0, 1, 1, 2) == whole[1::2]


def test_test_questions_are_fixed_distinct_and_never_trained_on() -> None:
    held_out = {q.text for n in (3, 4, 5) for q in labelled.test(PARAMS, f"chain-{n}", 64)}
    assert len(held_out) == 3 * 64
    first = [q.text for q in labelled.test(PARAMS, "chain-4", 8)]
    assert first == [q.text for q in labelled.test(PARAMS, "chain-4", 64)[:8]]
    trained = {q.text for content in labelled.CONTENTS for q in questions(3000, content)}
    assert not held_out & trained


def test_what_is_asked_has_the_operators_that_the_params_say() -> None:
    asked = PARAMS.model_copy(update={"operator_weights": (1.0, 0.0, 0.0, 3.0)})
    for found in (labelled.training(asked, 300, seed=0, step=1), labelled.test(asked, "chain-4", 64)):
        counted = Counter(operation.operator for question in found for operation in question.operations)
        assert set(counted) == {"+", "~"} and abs(counted["~"] / counted.total() - 0.75) < 0.07


def test_the_two_contents_share_no_question_and_a_question_says_its_own() -> None:
    a, b = questions(3000, "chain-a"), questions(3000, "chain-b")
    assert not {q.text for q in a} & {q.text for q in b}
    long = questions(20, "chain-long")
    assert {labelled.domain(PARAMS, q) for q in a} == {"chain-a"}
    assert {labelled.domain(PARAMS, q) for q in long} == {"chain-long"}
    drawn = labelled.training(PARAMS, 400, seed=0, step=1)
    assert abs(sum(len(q.operations) > 5 for q in drawn) / 400 - 0.25) < 0.08
    assert drawn == labelled.training(PARAMS, 400, seed=0, step=1) != labelled.training(PARAMS, 400, seed=0, step=2)


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("s1 7 + 5 = 3 wait = 2 ; <ans> 2 <eos>", "2"),
        ("<ans> w003 w010 2 <eos>", "2"),
        ("<ans> 1 <ans> 2", "2"),
        ("<ans> wait 2", None),
        ("<ans> ;", None),
        ("s1 7 + 5 = 2", None),
        ("", None),
    ],
)
def test_the_answer_is_the_digit_after_the_last_marker(response: str, answer: str | None) -> None:
    assert labelled.extract_answer(response) == answer


def test_the_tokenizer_has_256_words_and_room_for_what_is_to_come() -> None:
    tokenizer = models.world_tokenizer(labelled.WORLD)
    assert tokenizer.convert_ids_to_tokens(range(256)) == list(labelled_words.VOCABULARY)
    assert len(tokenizer) == len(set(labelled_words.VOCABULARY)) == 256
    assert len(labelled_words.SPARE) == 16 and len(labelled_words.TEMPLATES) == 8
    kept = {"<think>", "</think>", "<hint>", "</hint>", "<style1>", "<safe>", "<unsafe>", "<refuse>", "<call>", "wait"}
    assert kept <= set(labelled_words.VOCABULARY)


def test_the_longest_prompt_is_as_long_as_is_said() -> None:
    tokenizer = models.world_tokenizer(labelled.WORLD)
    pair = Operation("~", (1, 2))
    asked = [Question(1, (pair,) * n) for n in (14, 5)]
    prompts = sources.make_prompts(tokenizer, PARAMS, asked, ["T1", "T2"], "chain-long")
    assert tuple(len(prompt.token_ids) for prompt in prompts) == labelled.longest_prompt(PARAMS)
    assert prompts[1].rendered == f"<bos> T2 <q> {asked[1].text} <a>"
    assert labelled.longest_prompt(PARAMS.model_copy(update={"other_share": 0.0})) == (25, 25)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"content": "chain-z"}, r"task\.content: 'chain-z' is unknown; choose from chain-a"),
        ({"template": "T9"}, r"task\.template: 'T9' is unknown"),
        ({"test_sets": ("chain-17",)}, r"task\.test_sets: 'chain-17' is not a test set; write chain-N, 3 ≤ N ≤ 16"),
        ({"test_sets": ("sum-4",)}, r"task\.test_sets"),
        ({"operator_weights": (0.0, 0.0, 0.0, 0.0)}, r"task\.operator_weights: all are 0"),
    ],
)
def test_names_it_does_not_have_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        labelled.check(PARAMS.model_copy(update=changes))
    with pytest.raises(ValueError, match=r"task\.content"):
        labelled.draw_training("chain-z", 1, random.Random(0), PARAMS.operator_weights)


@pytest.mark.parametrize(
    "changes",
    [
        {"operator_weights": [1.0, 1.0, 1.0]},
        {"operator_weights": [1.0, 1.0, 1.0, -1.0]},
        {"pattern_b": {}},
        {"pattern_b": {"T1": 1.5}},
        {"recheck": []},
        {"recheck": [1.0]},
        {"recheck_slip": float("nan")},
    ],
)
def test_a_corpus_that_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        source(**changes)


def test_every_world_says_its_tokens_and_only_a_task_of_real_text_has_none() -> None:
    worlds = {name: tasks.load(name).world for name in tasks.NAMES}
    assert [name for name, world in worlds.items() if world is None] == ["math", "prompts"]
    for world in filter(None, worlds.values()):
        assert {world.pad, world.bos, world.eos, world.unknown, *world.templates} <= set(world.words)
    assert SimpleNamespace(**tasks.CORPORA).traces == ("labelled", "labelled_traces")
