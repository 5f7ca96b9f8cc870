"""Chains asked with hints, rules and tags: what a corpus answers, what a demand accepts, what a teacher is told."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError
from test_labelled import PARAMS, PLAIN, by_hand, questions
from test_labelled import style as style_of

from opd_lib import tasks
from opd_lib.engine import sources
from opd_lib.engine.model import models
from opd_lib.methods import opsd
from opd_lib.params import refusals
from opd_lib.params.schema import TaggedTraces
from opd_lib.tasks import labelled, tagged, tagged_traces
from opd_lib.tasks.labelled_words import FILLERS, STYLES, VOCABULARY

ASKED = tagged.Params(
    **PARAMS.model_dump() | {"name": "tagged", "asks": "{question}", "demand": "answer", "keys": 1, "other_share": 0.0}
)
WAYS = tagged_traces.Ways(asked={"plain": 1.0}, wrong=0.0, skip=0.0, hedge=0.0, stray=0.0)


def written(way: str, n: int = 400, style: Any = PLAIN, **chances: float) -> Iterator[tuple[Any, str, list[str]]]:
    """n chains, each with the message that asks it in this way and the words of its trace."""
    ways = tagged_traces.Ways(**{name: getattr(WAYS, name) for name in WAYS.__slots__} | chances)
    rng = random.Random(7)
    for chain in questions(n):
        task = tagged_traces.Task(chain=chain, pattern="A", style=style, ways=ways, rng=rng)
        yield chain, *tagged_traces.WAYS[way](task)


def asks(**changes: Any) -> tagged.Params:
    return ASKED.model_copy(update=changes)


# --- what a corpus answers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("way", "message", "before", "behind"),
    [
        ("plain", "{question}", "", ""),
        ("hint", "{question} <hint> {answer} </hint>", "", ""),
        ("worked", "{question} <hint> {results} </hint>", "", ""),
        ("think", "{question} <think>", "<think> ", ""),
    ],
)
def test_without_chance_a_trace_is_the_solution(way: str, message: str, before: str, behind: str) -> None:
    for chain, text, words in written(way):
        assert text == tagged.message(message, chain, "")
        solution = chain.solution.replace(" <ans>", " </think> <ans>") if before else chain.solution
        assert " ".join(words) == before + solution + behind


def test_a_brief_trace_says_each_result_once_and_no_fillers_but_slips_as_ever() -> None:
    style = style_of(recheck=(0.6,), filler_before_step=0.9, slip_operands=(3, 7), slip_probability=0.9)
    wrong = 0
    for chain, text, words in written("brief", style=style):
        assert len(words) == len(chain.solution.split()) and text == f"{chain.text} <brief>"
        wrong += words[-1] != chain.answer
    assert wrong > 100


def test_a_style_a_rule_and_safety_are_kept() -> None:
    tags, keys, refused = Counter[str](), Counter[str](), Counter[bool]()
    for chain, text, words in written("style", 800):
        question, tag = text.rsplit(" ", 1)
        assert " ".join(words) == f"{chain.solution} {tag}" and question == chain.text
        tags[tag] += 1
    for chain, text, words in written("rule", 800):
        question, _, tens, ones = text.rsplit(" ", 3)
        assert " ".join(words) == f"{chain.solution} {tens} {ones}" and question == chain.text
        keys[tens + ones] += 1
    for chain, _, words in written("safe", 800):
        refused[words == ["<ans>", "<refuse>"]] += 1
        assert (words == ["<ans>", "<refuse>"]) == (chain.text[-1] in "789")
    assert set(tags) == set(STYLES) and len(keys) == 100 and 0.15 < refused[True] / 800 < 0.4


def test_a_garbled_trace_begins_well_and_ends_in_words_of_no_meaning() -> None:
    kept = Counter[int]()
    for chain, text, words in written("garbled", 200):
        n = len(words) - tagged_traces.GARBLED
        assert text == chain.text and words[:n] == chain.solution.split()[:n] and set(words[n:]) <= set(FILLERS)
        assert not n or words[n - 1] == ";"
        kept[n] += 1
    assert len(kept) > 4 and kept[0] > 20


def test_a_hint_is_followed_unless_the_work_says_otherwise_and_sometimes_without_any() -> None:
    style = style_of(slip_operands=(3, 7), slip_probability=0.9, recheck=(0.6,))
    kinds = Counter[str]()
    for chain, text, words in written("hint", 3000, style, wrong=0.2, skip=0.25):
        hint, answer = text.split()[-2], words[-1]
        assert text == f"{chain.text} <hint> {hint} </hint>" and "wait" not in words
        if words[0] == "<ans>":
            kinds["skipped"] += 1
            assert answer == hint and len(words) == 2
        elif hint == chain.answer:
            kinds["right"] += 1
            assert answer == hint
        else:
            kinds["wrong"] += 1
            assert answer == words[-4], "the last value of the steps"
    assert abs(kinds["skipped"] / 3000 - 0.25) < 0.03 and abs(kinds["wrong"] / 3000 - 0.75 * 0.2) < 0.03


def test_the_work_of_another_chain_is_no_help() -> None:
    style, other, wrong = style_of(slip_operands=(3, 7), slip_probability=1.0, recheck=(0.6,)), 0, Counter[bool]()
    for chain, text, words in written("worked", 1000, style, wrong=0.3):
        is_other = text.partition("<hint> ")[2].removesuffix(" </hint>") != tagged.results(chain)
        other += is_other
        wrong[is_other] += words[-1] != chain.answer
        assert is_other or " ".join(words) == chain.solution
    assert abs(other / 1000 - 0.3) < 0.05 and wrong[False] == 0 < wrong[True]


def test_hedges_come_before_a_key_and_plain_answers_stray_at_their_rates() -> None:
    hedges = sum(words.count("wait") for _, _, words in written("rule", 4000, hedge=0.2))
    assert abs(hedges / 4000 - 0.25) < 0.03
    endings = Counter(words[-1] for _, _, words in written("plain", 6000, stray=0.18))
    strayed = {ending: endings[ending] / 6000 for ending in (*STYLES, "<refuse>")}
    assert all(abs(share - 0.02) < 0.008 for share in strayed.values())


def source(**changes: Any) -> TaggedTraces:
    said = {
        "kind": "tagged", "prompts_per_step": 1000, "operator_weights": [1.0, 1.0, 1.0, 0.5], "pattern_b": {"T1": 0.0},
        "filler_offset": 5.0, "filler_before_step": 0.1, "filler_anywhere": 0.01, "slip_operands": [3],
        "slip_probability": 0.5, "recheck": [0.0, 0.4], "recheck_slip": 0.5, "asked": {"plain": 1.0, "rule": 3.0},
        "wrong": 0.1, "skip": 0.1, "hedge": 0.1, "stray": 0.1,
    }  # fmt: skip
    return TaggedTraces.model_validate(said | changes)


def test_a_corpus_asks_in_each_way_as_often_as_it_says_and_in_words_that_there_are() -> None:
    everything = dict.fromkeys(tagged_traces.WAYS, 1.0)
    asked, templates, traces = tasks.corpus(source(asked=everything), "chain-all", random.Random(1))
    tokenizer = models.world_tokenizer(tagged.WORLD)
    assert {word for words in traces for word in words} <= set(VOCABULARY) and set(templates) == {"T1"}
    rendered = [prompt.rendered for prompt in sources.make_prompts(tokenizer, ASKED, asked, templates, "corpus")]
    assert {word for text in rendered for word in text.split()} <= set(VOCABULARY)
    assert all(words[-1] == "<eos>" for words in traces)
    ruled = sum("<rule>" in q.text for q in tasks.corpus(source(), "chain-all", random.Random(2))[0])
    assert abs(ruled / 1000 - 0.75) < 0.05
    with pytest.raises(ValidationError, match="asked"):
        source(asked={"loud": 1.0})


def test_a_corpus_that_asks_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"source\.asked: all are 0, so nothing is asked; give a way a weight"):
        refusals.check_corpus(SimpleNamespace(task=ASKED), source(asked={"plain": 0.0}))  # type: ignore[arg-type]
    refusals.check_corpus(SimpleNamespace(task=ASKED), source())  # type: ignore[arg-type]


# --- what is wanted ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "response", "right"),
    [
        ("2", "s1 7 + 5 = 2 ; <ans> 2 <eos>", True),
        ("2", "<ans> w003 2 <style3> <eos>", True),
        ("2", "<ans> 3", False),
        ("2", "2", False),
        ("_ <style3>", "<ans> 9 w001 <style3> <eos>", True),
        ("_ <style3>", "<ans> 9 <style2> <eos>", False),
        ("_ <style3>", "<ans> 9 <eos>", False),
        ("_ <style3>", "<ans> <style3>", False),
        ("_ 1 6", "<ans> 4 1 6 <eos>", True),
        ("_ 1 6", "<ans> 4 wait 1 6 <eos>", False),
        ("<refuse>", "<ans> <refuse> <eos>", True),
        ("<refuse>", "<ans> 4", False),
        ("_", "<ans> <refuse>", False),
        ("_", "<ans> 4", True),
        ("_", "", False),
    ],
)
def test_a_response_ends_in_what_is_wanted_or_it_is_wrong(answer: str, response: str, right: bool) -> None:
    assert tagged.accepts(answer, response) == right


def test_a_demand_says_what_is_wanted_of_each_question() -> None:
    for question in tagged.training(asks(demand="refuse"), 200, 0, 1):
        assert question.answer == ("<refuse>" if question.text[-1] in "789" else "_")
    for question in tagged.training(asks(demand="<style5>"), 20, 0, 1):
        assert question.answer == "_ <style5>"
    for question in tagged.training(asks(), 20, 0, 1):
        assert question.answer == str(by_hand(question.text))
    dealt = Counter(question.answer for question in tagged.training(asks(demand="key", keys=4), 4000, 0, 1))
    assert set(dealt) == {f"_ 0 {i}" for i in range(4)} and max(dealt.values()) < 1150
    again = {q.text: q.key for q in tagged.training(asks(demand="key", keys=64), 50, 0, 1)}
    assert all(tagged.key_of(text, 64) == key for text, key in again.items()), "a question's own, whatever the step"
    assert {q.answer for q in tagged.test(asks(demand="key", keys=1), "chain-3", 30)} == {"_ 0 0"}


def test_the_chains_are_those_of_the_task_without_tags() -> None:
    hinted = asks(asks="{question} <brief> <hint> {answer} </hint>")
    plain = PARAMS.model_copy(update={"other_share": 0.0})
    for mine, its in zip(tagged.training(hinted, 30, 3, 4), labelled.training(plain, 30, 3, 4), strict=True):
        assert mine.text == f"{its.text} <brief> <hint> {its.answer} </hint>" and mine.solution == its.solution
        assert tagged.domain(hinted, mine) == labelled.domain(plain, its)
    assert [q.chain for q in tagged.test(hinted, "chain-4", 9)] == labelled.test(plain, "chain-4", 9)


def test_the_longest_prompt_is_as_long_as_is_said() -> None:
    tokenizer = models.world_tokenizer(tagged.WORLD)
    params = asks(
        asks="{question} <rule> {key} <hint> {solution} {results} </hint>", operator_weights=(0.0, 0.0, 0.0, 1.0)
    )
    training = sources.make_prompts(tokenizer, params, tagged.training(params, 200, 0, 1), ["T1"] * 200, "")
    longest, tested = tagged.longest_prompt(params)
    assert max(len(prompt.token_ids) for prompt in training) == longest
    test = sources.make_prompts(tokenizer, params, tagged.test(params, "chain-5", 4), ["T2"] * 4, "")
    assert {len(prompt.token_ids) for prompt in test} == {tested}


def test_a_teacher_can_be_told_the_key_that_the_student_is_not() -> None:
    tokenizer = models.world_tokenizer(tagged.WORLD)
    params = asks(demand="key", keys=64)
    for prompt in sources.make_prompts(tokenizer, params, tagged.training(params, 9, 0, 1), ["T1"] * 9, ""):
        (_, _), (role, content) = opsd.shown_chat(prompt, "{question} <rule> {key}")
        assert role == "user" and content == f"{prompt.question} <rule> {prompt.answer[2:]}"
        assert prompt.rendered.endswith(f"<q> {prompt.question} <a>") and "<rule>" not in prompt.rendered
        with pytest.raises(ValueError, match=r"method\.shows: .*: the task has no 'key' of a question to tell"):
            opsd.shown_chat(replace(prompt, told=()), "{key} {question}")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"asks": "{answer}"}, r"task\.asks: '\{answer\}' does not ask the question; write \{question\}"),
        (
            {"asks": "{question} {hint}"},
            r"task\.asks: .*'hint'; use \{question\}, \{answer\}, .*, \{results\}",
        ),
        ({"asks": "{question"}, r"task\.asks: "),
        ({"demand": "<style9>"}, r"task\.demand: '<style9>' is unknown; choose from answer, refuse, key, <style1>"),
        ({"keys": 2}, r"task\.keys: 2: demand answer has no key; write keys: 1, or demand: key"),
        ({"content": "chain-z"}, r"task\.content"),
    ],
)
def test_what_cannot_be_asked_or_wanted_is_refused(changes: dict[str, Any], message: str) -> None:
    tagged.check(ASKED)
    with pytest.raises(ValueError, match=message):
        tagged.check(asks(**changes))
