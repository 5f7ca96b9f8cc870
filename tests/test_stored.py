"""Stored responses: what is written is read, in order, whoever shares it; only what passes the filters is written."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from opd_lib.engine import sources, stored
from opd_lib.engine.model import fresh, models
from opd_lib.engine.model.distributed import Ranks
from opd_lib.engine.probes import rollouts as writer
from opd_lib.params.schema import RolloutsProbe, Sampled, Stored
from opd_lib.tasks import math
from opd_lib.types import Prompt, Rollouts

TOKENIZER = fresh.text_tokenizer(["What is one plus two?", r"\boxed{3} is the answer"], 600)
TASK = math.Params.model_validate(
    {
        "name": "math",
        "content": "dapo",
        "other_content": "dapo",
        "other_share": 0.0,
        "template": "boxed",
        "test_sets": ("aime24",),
        "test_template": "boxed",
        "thinking": False,
        "max_prompt_tokens": 1000,
        "data": None,
    }
)
GOOD, UNBOXED = r"\boxed{3}", "it is 3"


def prompt(number: int) -> Prompt:
    text = f"question {number}"
    ids = tuple(TOKENIZER(text).input_ids)
    return Prompt(id=str(number), source="dapo", question=text, rendered=text, token_ids=ids, answer="3")


def answered(prompts: list[Prompt], texts: list[str], finished: bool = True) -> Rollouts:
    end = [TOKENIZER.eos_token_id] if finished else []
    rows = [TOKENIZER(text).input_ids + end for text in texts]
    return Rollouts(
        prompts=tuple(prompts),
        response_BT=models.pad_right(rows, TOKENIZER.pad_token_id),
        length_B=torch.tensor([len(row) for row in rows]),
        finished_B=torch.full((len(rows),), finished),
        reward_B=torch.ones(len(rows)),
    )


def shelf(folder: Path, sizes: tuple[int, ...] = (3, 1, 4)) -> stored.Stored:
    """Parts of these sizes; response n says n."""
    begin = 0
    for batch, size in enumerate(sizes, 1):
        batch_of = answered(
            [prompt(n) for n in range(begin, begin + size)], [f"says {n}" for n in range(begin, begin + size)]
        )
        stored.write(folder, batch, stored.rows(batch_of, sources.decode(batch_of, TOKENIZER)), TOKENIZER)
        begin += size
    return stored.Stored(folder)


@pytest.mark.parametrize("wanted", [[0], [2, 3, 4], [7, 0, 3], [6, 7, 8, 9], list(range(8))])
def test_what_was_written_is_read_in_any_order_and_begins_again_after_the_last(
    tmp_path: Path, wanted: list[int]
) -> None:
    taken = shelf(tmp_path).take(wanted, TOKENIZER)
    assert sources.decode(taken, TOKENIZER) == [f"says {n % 8}" for n in wanted]
    assert taken.prompts == tuple(prompt(n % 8) for n in wanted)
    assert taken.finished_B.all() and taken.reward_B.tolist() == [1.0] * len(wanted)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_steps_responses_are_the_same_however_many_processes_share_them(tmp_path: Path, world: int) -> None:
    source = Stored(kind="stored", rollouts="run:00_models/rollouts", prompts_per_step=3)
    params: Any = SimpleNamespace(source=source, task=TASK)
    student: Any = (None, TOKENIZER)
    for step in (1, 2, 3):
        shares = [
            sources.draw(
                params,
                sources.BatchKey(seed=0, step=step, ranks=Ranks(rank=rank, world=world)),
                sources.Authors(student=student, shelf=shelf(tmp_path)),
            )
            for rank in range(world)
        ]
        said = {text for share in shares for text in sources.decode(share, TOKENIZER)}
        assert said == {f"says {n % 8}" for n in range(3 * (step - 1), 3 * step)}


def test_token_ids_of_another_vocabulary_are_refused(tmp_path: Path) -> None:
    other = fresh.text_tokenizer(["zzzz zzzz zzzz"], 600)
    with pytest.raises(ValueError, match="another vocabulary than the student's"):
        shelf(tmp_path).take([0], other)


def test_a_part_that_is_missing_or_damaged_is_named_and_nothing_else_stands_in_for_it(tmp_path: Path) -> None:
    shelf(tmp_path)
    whole = stored.part(tmp_path, 2).read_bytes()
    with pytest.raises(ValueError, match=r"part-000004\.parquet: not there, and the responses are 4 parts; delete"):
        stored.Stored(tmp_path, parts=4)
    for content in (whole[:-20], b"version https://git-lfs.github.com/spec/v1\n", b""):
        stored.part(tmp_path, 2).write_bytes(content)
        with pytest.raises(ValueError, match=r"part-000002\.parquet: not readable as parquet.*delete"):
            stored.Stored(tmp_path)
    stored.part(tmp_path, 2).write_bytes(whole[:200] + bytes(200) + whole[400:])
    with pytest.raises(ValueError, match=r"part-000002\.parquet: not readable as parquet.*delete"):
        stored.Stored(tmp_path).take([3], TOKENIZER)
    stored.part(tmp_path, 2).unlink()
    with pytest.raises(ValueError, match=r"part-000002\.parquet: not there, and the responses are"):
        stored.Stored(tmp_path)


def test_a_folder_without_parts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no stored responses; run the arm"):
        stored.Stored(tmp_path)


def run_of(folder: Path, replies: list[list[str]], asked: list[int]) -> Any:
    """A run whose teacher gives these replies, call by call; `asked` counts the prompts of each call."""
    calls = iter(replies)

    def sample(model: Any, tokenizer: Any, prompts: list[Prompt], *_: object) -> Rollouts:
        asked.append(len(prompts))
        return answered(list(prompts), next(calls))

    source = Sampled.model_validate(
        {"kind": "teacher", "prompts_per_step": 3, "per_prompt": 1, "max_new_tokens": 50, "schedule": []}
        | {"temperature": 0.7, "top_p": 0.95}
    )
    written: list[dict[str, Any]] = []
    return SimpleNamespace(
        spec=SimpleNamespace(params=SimpleNamespace(source=source, task=TASK), seed=0, folder=folder),
        ranks=Ranks(rank=0, world=1),
        student=(None, TOKENIZER),
        teacher=(None, TOKENIZER),
        sample=sample,
        authors=sources.Authors(student=(None, TOKENIZER), teacher=(None, TOKENIZER), sample=sample),
        batch_key=lambda step: sources.BatchKey(seed=0, step=step, ranks=Ranks(rank=0, world=1)),
        seconds={},
        timed=lambda _: __import__("contextlib").nullcontext(),
        writer=SimpleNamespace(
            append=lambda _, rows: written.extend(rows), truncate=lambda step, counted: None, save=dict
        ),
        written=written,
    )


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three questions a step, without a data set."""
    rows = [SimpleNamespace(id=str(n), text=f"question {n}", answer="3") for n in range(3)]
    monkeypatch.setattr(math, "training", lambda params, n, seed, step: rows[:n])


def test_a_failing_response_is_asked_for_again_and_left_out_after_the_last_attempt(
    tmp_path: Path, questions: None
) -> None:
    asked: list[int] = []
    run = run_of(tmp_path, [[UNBOXED, GOOD, UNBOXED], [GOOD, UNBOXED], [UNBOXED]], asked)
    writer.write(run, RolloutsProbe(kind="rollouts", batches=1, attempts=3))
    assert asked == [3, 2, 1]
    (row,) = run.written
    assert (row["kept"], row["no_box"], row["truncated"]) == (2, 4, 0)
    taken = stored.Stored(tmp_path / stored.FOLDER).take([0, 1], TOKENIZER)
    assert [p.question for p in taken.prompts] == ["question 0", "question 1"]
    assert sources.decode(taken, TOKENIZER) == [GOOD, GOOD] and taken.reward_B.tolist() == [1.0, 1.0]


def test_an_interrupted_run_goes_on_with_the_first_missing_part(tmp_path: Path, questions: None) -> None:
    probe = RolloutsProbe(kind="rollouts", batches=3, attempts=1)
    asked: list[int] = []
    with pytest.raises(StopIteration):
        writer.write(run_of(tmp_path, [[GOOD] * 3], asked), probe)
    first = stored.part(tmp_path / stored.FOLDER, 1).read_bytes()
    run = run_of(tmp_path, [[GOOD] * 3] * 2, asked)
    writer.write(run, probe)
    assert asked == [3, 3, 3, 3] and [row["batch"] for row in run.written] == [2, 3]  # the second call was interrupted
    assert stored.part(tmp_path / stored.FOLDER, 1).read_bytes() == first
    assert stored.Stored(tmp_path / stored.FOLDER).n_rows == 9


def test_responses_that_end_with_another_token_than_the_students_are_refused(tmp_path: Path) -> None:
    taken = shelf(tmp_path).take(range(3), TOKENIZER)
    assert sources.require_ends(taken, (None, TOKENIZER), "source.rollouts") is taken  # type: ignore[arg-type]
    other = fresh.text_tokenizer(["What is one plus two?", r"\boxed{3} is the answer"], 600)
    other.eos_token = "<user>"
    with pytest.raises(ValueError, match=r"source.rollouts: .* end with \['<eos>'\], the student's with \['<user>'\]"):
        sources.require_ends(taken, (None, other), "source.rollouts")  # type: ignore[arg-type]
    cut = answered([prompt(0)], ["says nothing"], finished=False)
    assert sources.require_ends(cut, (None, other), "source.rollouts") is cut  # type: ignore[arg-type]
