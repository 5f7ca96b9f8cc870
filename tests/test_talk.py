"""A question that is typed in: the answer is the student's, what stands beside it is what both models say."""

from __future__ import annotations

from pathlib import Path

import kept
import pytest
import torch
from typer.testing import CliRunner

from opd_lib.command.cli import app
from opd_lib.engine import conversation
from opd_lib.report import explore
from opd_lib.run import talk

STUDENT, TEACHER = "run:00_models/distill-small", "run:00_models/justrl-small"
QUESTION = "7 + 5 * 3 - 2"


@pytest.fixture(scope="module")
def pair() -> talk.Meeting:
    """Two committed checkpoints."""
    return talk.meet(STUDENT, TEACHER, seed=0)


def test_every_token_has_the_log_probabilities_of_both_models_behind_the_whole_prompt(pair: talk.Meeting) -> None:
    row = pair.answer(QUESTION)
    prompt = conversation.put(pair.settings, pair.student, QUESTION)
    assert prompt.rendered.split()[-2:] == ["2", "<a>"] and QUESTION in prompt.rendered
    ids = pair.student[1].convert_tokens_to_ids(row["tokens"])
    for name, (model, _) in (("student", pair.student), ("teacher", pair.teacher)):
        logits = model.double()(torch.tensor([[*prompt.token_ids, *ids]])).logits[0, len(prompt.token_ids) - 1 : -1]
        model.float()
        expected = logits.log_softmax(-1)[range(len(ids)), ids]
        assert row[f"{name}_logp"] == pytest.approx(expected.tolist(), abs=2e-4), name
    assert row["reward"] is None and pair.rows[-1] is row


def test_the_answer_depends_on_the_seed_and_the_temperature_alone(pair: talk.Meeting) -> None:
    def said(**manner: float) -> list[str]:
        given = conversation.Manner(max_new_tokens=40, **manner)  # type: ignore[arg-type]
        return list(conversation.answer(pair.settings, pair.student, pair.teacher, QUESTION, given)["tokens"])

    assert said(seed=1) == said(seed=1) and said(seed=1) != said(seed=2)
    assert said(seed=1, temperature=0.01) == said(seed=2, temperature=0.01), "next to greedy"
    alone = conversation.answer(
        pair.settings, pair.student, pair.student, QUESTION, conversation.Manner(max_new_tokens=40, seed=1)
    )
    assert alone["tokens"] == said(seed=1) and not any(alone["reverse_kl"])


def test_the_explorer_shows_an_answer_without_a_mark(pair: talk.Meeting, tmp_path: Path) -> None:
    content = kept.unpacked(pair.ask(QUESTION).html)
    (row,) = content["rows"]
    assert row["reward"] is None and content["problems"][0]["answer"] == ""
    assert [content["words"][word] for word in row["tokens"]] == pair.rows[-1]["tokens"]
    page = explore.answers(pair.rows, "student", 0).save(tmp_path / "page.html")
    assert len(kept.unpacked(page.read_text())["problems"]) == len(pair.rows)


def test_words_that_the_world_lacks_are_refused_with_an_example(pair: talk.Meeting) -> None:
    with pytest.raises(ValueError, match=r"'hello' is no word of this model's world; ask for example: \d"):
        pair.ask("hello 7")
    with pytest.raises(ValueError, match="top_p 0: above 0"):
        talk.meet(STUDENT, top_p=0.0)


def test_a_model_of_other_tokens_is_asked_in_its_own_chat(pair: talk.Meeting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation.pair_features, "is_of_the_world", lambda model, task: False)
    assert conversation.put(pair.settings, pair.student, "7 + 5").chat == (("user", "7 + 5"),)


def test_the_command_answers_each_line_and_says_what_it_cannot_read() -> None:
    asked = CliRunner().invoke(app, ["talk", STUDENT, TEACHER, "--tokens", "8"], input="what\n7 + 5\n\n7 * 7\n")
    assert asked.exit_code == 0 and "'what' is no word" in asked.output
    assert asked.output.count("student's first") == asked.output.count("teacher's first") == 1, "an empty line ends"
    alone = CliRunner().invoke(app, ["talk", STUDENT, "--question", "7 + 5", "--question", "7 - 5", "--tokens", "8"])
    assert alone.output.count("student's first") == 2 and "teacher" not in alone.output
    refused = CliRunner().invoke(app, ["talk", STUDENT, "--question", "what"])
    assert refused.exit_code == 1 and "'what' is no word" in str(refused.output)
