"""The tiny world's task: arithmetic, held-out questions, traces, slips and the grader."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from opd_lib.engine import sources
from opd_lib.engine.model import models
from opd_lib.tasks import chain, traces

PARAMS = chain.Params(
    name="chain",
    content="chain-a",
    other_content="chain-b",
    other_share=0.25,
    template="T1",
    test_sets=("chain-3",),
    test_template="T2",
)


def questions(n: int, content: str = "chain-all", seed: int = 0) -> list[chain.Question]:
    return chain.draw_training(content, n, random.Random(seed))


def test_answer_is_left_to_right_arithmetic_modulo_ten() -> None:
    for question in questions(200):
        value = question.start
        for operator, digit in question.steps:
            value = eval(f"({value}) {operator} {digit}") % 10
        assert question.answer == str(value)


@pytest.mark.parametrize("pattern_b", [0.0, 1.0])
def test_a_trace_without_slips_is_graded_correct_and_every_step_is_right(pattern_b: float) -> None:
    style = traces.Style(
        pattern_b=pattern_b, filler_before_step=0.5, filler_anywhere=0.03, slip_operands=(), slip_probability=0.0
    )
    rng = random.Random(1)
    for question in questions(100):
        words = traces.write_trace(question, style, rng)
        assert chain.extract_answer(" ".join(words)) == question.answer
        bare = [word for word in words if word not in chain.FILLERS]
        n_words = 7 if pattern_b else 6
        assert len(bare) == n_words * len(question.steps) + 3
        assert set(bare) & {"take"} == ({"take"} if pattern_b else set())


def test_slips_come_at_the_stated_rate_and_only_on_their_operands() -> None:
    style = traces.Style(
        pattern_b=0.0, filler_before_step=0.5, filler_anywhere=0.0, slip_operands=(3, 7), slip_probability=0.9
    )
    rng, seen, slipped = random.Random(2), Counter[bool](), Counter[bool]()
    for question in questions(2000):
        words = [word for word in traces.write_trace(question, style, rng) if word not in chain.FILLERS]
        for i, (operator, digit) in enumerate(question.steps):
            left, result = int(words[6 * i]), int(words[6 * i + 4])
            prone = digit in (3, 7)
            seen[prone] += 1
            slipped[prone] += result != chain.apply(operator, left, digit)
    assert slipped[False] == 0
    assert abs(slipped[True] / seen[True] - 0.9) < 0.03
    assert abs(slipped[True] / (seen[True] + seen[False]) - 0.18) < 0.02


def test_test_questions_are_fixed_distinct_and_never_trained_on() -> None:
    held_out = {q.text for n in (3, 4, 5) for q in chain.held_out_questions(f"chain-{n}", 64)}
    assert len(held_out) == 3 * 64
    assert [q.text for q in chain.held_out_questions("chain-4", 8)] == [
        q.text for q in chain.held_out_questions("chain-4", 64)[:8]
    ]
    trained = {q.text for content in chain.CONTENTS for q in questions(5000, content)}
    assert not held_out & trained


def test_the_two_training_contents_share_no_question() -> None:
    a, b = ({q.text for q in questions(5000, content)} for content in ("chain-a", "chain-b"))
    assert a and b and not a & b


def test_the_patterns_share_half_their_filler_ranks() -> None:
    a, b = traces.filler_weights("A"), traces.filler_weights("B")
    assert sorted(a) == sorted(b)
    assert sum(x == y for x, y in zip(a, b, strict=True)) == 32


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("7 + 5 = 2 ; <ans> 2 <eos>", "2"),
        ("<ans> w03 w10 2 <eos>", "2"),
        ("<ans> 1 <ans> 2", "2"),
        ("<ans> ;", None),
        ("<ans>", None),
        ("7 + 5 = 2", None),
        ("", None),
    ],
)
def test_the_answer_is_the_digit_after_the_last_marker(response: str, answer: str | None) -> None:
    assert chain.extract_answer(response) == answer


def test_the_tokenizer_is_word_level_with_a_chat_template_and_reads_back() -> None:
    tokenizer = models.chain_tokenizer()
    question = questions(1)[0]
    (prompt,) = sources.make_prompts(tokenizer, PARAMS, [question], ["T2"], "chain-all")
    assert prompt.rendered == f"<bos> T2 <q> {question.text} <a>"
    assert tokenizer.decode(prompt.token_ids) == prompt.rendered
    assert len(tokenizer) == len(set(tokenizer.get_vocab())) == 128
    assert tokenizer.convert_ids_to_tokens(range(128)) == list(chain.VOCABULARY)


def test_a_checkpoint_is_loaded_by_the_ecosystems_own_classes(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from opd_lib.params.schema import NewModel

    shape = NewModel(layers=1, hidden=16, heads=2, context=64, rope_theta=100.0, initializer_range=0.1)
    model = models.new_model(shape, seed=3)
    models.save(model, models.chain_tokenizer(), tmp_path / "model")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert (
        models.weights_digest(again)
        == models.weights_digest(model)
        == models.weights_digest(models.new_model(shape, 3))
    )
    assert models.weights_digest(models.new_model(shape, 4)) != models.weights_digest(model)
    chat = AutoTokenizer.from_pretrained(tmp_path / "model").apply_chat_template(
        chain.messages(questions(1)[0], "T1"), tokenize=False
    )
    assert chat.startswith("<bos> T1 <q> ")


@pytest.mark.parametrize("name", ["chain-2", "chain", "sum-4", "chain-x"])
def test_an_unknown_test_set_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"task\.test_sets"):
        chain.held_out_questions(name, 1)


def test_an_unknown_content_is_refused() -> None:
    with pytest.raises(ValueError, match=r"task\.content"):
        chain.draw_training("chain-z", 1, random.Random(0))
