"""Prompts of one's own: what a file may hold and what is refused, the two sides, the graders, whole runs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import micro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import CORPUS, OPD, RUN
from pydantic import ValidationError
from ruamel.yaml import YAML
from typer.testing import CliRunner

from opd_lib import params as parameters
from opd_lib import paths, tasks
from opd_lib.command.cli import app
from opd_lib.engine import conversation, sources
from opd_lib.engine.model import models
from opd_lib.engine.model.distributed import ALONE
from opd_lib.engine.train import train
from opd_lib.methods import opsd
from opd_lib.params import RunSpec
from opd_lib.params.schema import Answers
from opd_lib.tasks import chain, prompt_files, prompt_sets, prompts
from opd_lib.tasks.prompt_sets import Origin
from opd_lib.types import Prompt

ROWS = [{"prompt": f"T1 7 + {number % 10} * {number // 10}", "gold": str(number % 7)} for number in range(40)]
TASK: dict[str, Any] = {
    "name": "prompts",
    "file": "asked.jsonl",
    "digest": "",
    "column": "prompt",
    "answer": None,
    "grader": "none",
    "pattern": None,
    "system": None,
    "held_out": 0.25,
    "thinking": False,
    "max_prompt_tokens": 16,
}
ANSWERED = {"answer": "gold", "grader": "exact"}


def jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def origin(path: Path, **changes: Any) -> Origin:
    return Origin(**{"file": path, "column": "prompt", "answer": None, "held_out": 0.25} | changes)


def task_of(path: Path, **changes: Any) -> prompts.Params:
    """Params of a file, with the digest it has."""
    said = TASK | {"file": str(path)} | changes
    made = origin(path, column=said["column"], answer=said["answer"], held_out=said["held_out"])
    return prompts.Params.model_validate(said | {"digest": said["digest"] or prompt_sets.read(made).summary.digest})


def prompt_of(answer: str) -> Prompt:
    return Prompt(id="", source="", question="", rendered="", token_ids=(), answer=answer)


# --- what a file may hold


def parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    import pandas as pd

    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def saved(path: Path, rows: list[dict[str, Any]]) -> Path:
    from datasets import Dataset

    Dataset.from_list(rows).save_to_disk(path)
    return path


KINDS: dict[str, Callable[[Path, list[dict[str, Any]]], Path]] = {
    "asked.jsonl": jsonl,
    "asked.parquet": parquet,
    "asked.CSV": csv,
    "asked": saved,
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_holds_the_same_prompts_under_the_same_digest(tmp_path: Path, name: str) -> None:
    rows = [*ROWS, {"prompt": 'Two lines,\n"quoted"', "gold": "007"}, {"prompt": "NA", "gold": "null"}]
    expected = prompt_sets.read(origin(jsonl(tmp_path / "plain.jsonl", rows), answer="gold"))
    found = prompt_sets.read(origin(KINDS[name](tmp_path / name, rows), answer="gold"))
    assert found.summary.digest == expected.summary.digest and found.summary.rows == 42
    texts = {question.text: question.answer for question in (*found.training, *found.held_out)}
    assert texts == {row["prompt"]: row["gold"] for row in rows}


@pytest.mark.parametrize("name", [name for name in KINDS if name != "asked.CSV"])
def test_messages_are_asked_as_they_stand(tmp_path: Path, name: str) -> None:
    messages = [
        {"role": role, "content": text}
        for role, text in (("system", "Be brief."), ("user", "Hi"), ("assistant", "Yes?"), ("user", "Why?"))
    ]
    path = KINDS[name](tmp_path / name, [{"prompt": messages}, *({"prompt": messages[1:2]} for _ in range(2))])
    found = prompt_sets.read(origin(path, held_out=1.0))
    assert found.summary.chats == 1 and found.summary.repeats == 1
    (question,) = (each for each in found.held_out if len(each.chat) > 1)
    assert prompts.messages(question, "") == messages and question.text == "Why?"


def test_a_number_is_an_answer_and_the_last_line_needs_no_break(tmp_path: Path) -> None:
    path = tmp_path / "asked.jsonl"
    path.write_text('{"prompt": "Why?", "gold": 4}\r\n{"prompt": "How?", "gold": " 0.5 ", "other": null}')
    assert [row.answer for row in prompt_files.rows(path, "prompt", "gold")] == ["4", "0.5"]


# --- what is refused

USER, ASSISTANT = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}


def no_file(path: Path) -> Path:
    return path / "none.jsonl"


def text(content: str | bytes, name: str = "asked.jsonl") -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def cell(value: Any) -> Callable[[Path], Path]:
    return lambda folder: jsonl(folder / "asked.jsonl", [{"prompt": "first"}, {"prompt": value}])


def gold(value: Any) -> Callable[[Path], Path]:
    return lambda folder: jsonl(folder / "asked.jsonl", [{"prompt": "first", "gold": value}])


def nothing(folder: Path) -> Path:
    path = parquet(folder / "a.parquet", ROWS)
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    return path


def splits(folder: Path) -> Path:
    from datasets import Dataset, DatasetDict

    DatasetDict({"train": Dataset.from_list(ROWS), "test": Dataset.from_list(ROWS)}).save_to_disk(folder / "asked")
    return folder / "asked"


BAD: dict[str, tuple[Callable[[Path], Path], dict[str, Any], str]] = {
    "no file": (no_file, {}, r"none\.jsonl: no such file; name one that ends in \.jsonl, \.parquet, \.csv, or a"),
    "ending": (text("Why?", "asked.txt"), {}, r"asked\.txt: its ending is '\.txt'; write the prompts to a file"),
    "no ending": (text("Why?", "asked"), {}, r"asked: its ending is none; write the prompts"),
    "a folder of something": (lambda folder: folder, {}, r"no folder that datasets has saved \(.*save_to_disk"),
    "splits": (splits, {}, r"asked: holds several splits; name the folder of one: train, test"),
    "column": (text('{"question": "Why?", "id": 1}\n'), {}, r"line 1: no prompt; it has question, id; .*task\.column"),
    "parquet's column": (
        lambda folder: parquet(folder / "a.parquet", ROWS), {"column": "text"},
        r"a\.parquet: has no column 'text'; its columns are prompt, gold: name what the file has in task\.column",
    ),
    "CSV's column": (lambda folder: csv(folder / "a.csv", ROWS), {"column": "x"}, r"a\.csv: has no column 'x'; its"),
    "saved column": (lambda folder: saved(folder / "a", ROWS), {"column": "x"}, r"a: has no column 'x'; its col"),
    "twice": (text("prompt,prompt\na,b\n", "a.csv"), {}, r"a\.csv: has 2 columns 'prompt'; its columns are prompt"),
    "answers": (cell("Why?"), {"answer": "gold"}, r"line 1: no gold; it has prompt; correct it, or name what the file"),
    "CSV's answers": (text("prompt\na\n", "a.csv"), {"answer": "gold"}, r"has no column 'gold'; its columns are"),
    "empty": (text(""), {}, r"asked\.jsonl: holds no row; name a file that holds prompts"),
    "blank": (text(" \n"), {}, r"asked\.jsonl: holds no row"),
    "empty CSV": (text("", "a.csv"), {}, r"a\.csv: holds no row"),
    "header alone": (text("prompt,gold\n", "a.csv"), {}, r"a\.csv: holds no row"),
    "no rows": (nothing, {}, r"a\.parquet: holds no row"),
    "null": (cell(None), {}, r"asked\.jsonl, line 2: prompt: is missing \(null\); correct the row, or leave it out"),
    "empty prompt": (cell("  \n"), {}, r"line 2: prompt: is empty; correct the row"),
    "empty cell": (text('prompt,gold\na,1\n"",2\n', "a.csv"), {}, r"a\.csv, row 2: prompt: is empty"),
    "broken line": (text('{"prompt": "a"}\n{"prompt": "b"\n{"prompt": "c"}\n'), {}, r"line 2: no JSON \(.*correct it"),
    "blank line": (text('{"prompt": "a"}\n\n{"prompt": "c"}\n'), {}, r"jsonl, line 2: no JSON"),
    "no object": (text('["a"]\n'), {}, r"line 1: a JSON object is expected, not list"),
    "Latin-1": (text('{"prompt": "Caf\xe9"}\n'.encode("latin-1")), {}, r"asked\.jsonl: no UTF-8 text \(byte 16\)"),
    "Latin-1 CSV": (text("prompt\nCaf\xe9\n".encode("latin-1"), "a.csv"), {}, r"is no CSV .*invalid UTF8.*in UTF-8"),
    "half a character": (text('{"prompt": "a\\ud800"}\n'), {}, r"line 1: prompt: character 2 is half a character"),
    "ragged": (text("prompt,gold\na,1\nb,2,3\n", "a.csv"), {}, r"is no CSV that can be read \(.*Row #3: Expected 2"),
    "no Parquet": (text("prompt", "a.parquet"), {}, r"a\.parquet: is no parquet file that can be read"),
    "a pointer": (text("version https://git-lfs.github.com/spec/v1\n"), {}, r"asked\.jsonl: it is a git-LFS pointer"),
    "number": (cell(5), {}, r"line 2: prompt: expected a text or a list of messages, found 5 \(int\); correct the row"),
    "record": (cell(USER), {}, r"line 2: prompt: expected a text or a list of messages, found \{'role'"),
    "no messages": (cell([]), {}, r"line 2: prompt: no user message among 0"),
    "no user": (cell([{"role": "system", "content": "Be."}]), {}, r"line 2: prompt: no user message among 1"),
    "answered": (cell([USER, ASSISTANT]), {}, r"line 2: prompt: ends with an assistant message, so nothing is as"),
    "late system": (cell([USER, {"role": "system", "content": "Be."}, USER]), {}, r"a system message in place 2; it"),
    "role": (cell([{"role": "human", "content": "Why?"}]), {}, r"message 1: role 'human' \(str\) is none of system"),
    "no content": (cell([{"role": "user"}]), {}, r"line 2: prompt, message 1: expected a record of role and content"),
    "null content": (cell([USER, {"role": "user", "content": None}]), {}, r"message 2: is missing \(null\)"),
    "parts": (cell([{"role": "user", "content": [{"type": "text"}]}]), {}, r"message 1: expected a text, found \["),
    "a call": (cell([USER | {"tool_calls": []}]), {}, r"message 1: holds tool_calls beside role and content"),
    "null answer": (gold(None), {"answer": "gold"}, r"line 1: gold: is missing \(null\); correct the row"),
    "blank answer": (gold(" "), {"answer": "gold"}, r"line 1: gold: is empty"),
    "list of answers": (gold(["4"]), {"answer": "gold"}, r"line 1: gold: expected a text or a number, found \['4"),
    "truth": (gold(True), {"answer": "gold"}, r"line 1: gold: expected a text or a number, found True \(bool\)"),
    "nan": (gold(math.nan), {"answer": "gold"}, r"line 1: gold: expected a text or a number, found nan"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_one_error_that_names_the_place(tmp_path: Path, case: str) -> None:
    write, changes, message = BAD[case]
    path = write(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        prompts.prepare(prompts.Params.model_validate(TASK | {"file": str(path), "digest": "0"} | changes))
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_other_rows_under_the_same_path_are_refused(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "asked.jsonl", ROWS)
    task = task_of(path)
    jsonl(path, [*ROWS[:-1], ROWS[-1] | {"prompt": "T1 1 + 1"}])
    other = prompt_sets.read(origin(path)).summary.digest
    prompt_sets.load.cache_clear()
    with pytest.raises(ValueError, match=rf"task\.digest: '{task.digest}', but the rows of .* write digest: {other}"):
        prompts.prepare(task)


@pytest.mark.parametrize(
    ("share", "side"), [(1e-9, "held out; use a larger"), (1 - 1e-9, "left to train on; use a sm")]
)
def test_a_side_without_prompts_is_refused(tmp_path: Path, share: float, side: str) -> None:
    with pytest.raises(ValueError, match=rf"task\.held_out: .* of the 40 prompts of .*, and none is {side}"):
        prompts.prepare(task_of(jsonl(tmp_path / "asked.jsonl", ROWS), held_out=share))


def test_two_system_messages_are_refused(tmp_path: Path) -> None:
    rows = [*ROWS, {"prompt": [{"role": "system", "content": "Be."}, USER]}]
    path = jsonl(tmp_path / "asked.jsonl", rows)
    prompts.prepare(task_of(path))
    with pytest.raises(ValueError, match=r"line 41: prompt: begins with a system message, and task\.system is another"):
        prompts.prepare(task_of(path, system="Be brief."))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grader": "exact"}, r"task\.answer: null, but grader exact compares with an answer; name its column"),
        ({"answer": "prompt"}, r"task\.answer: 'prompt' is the column of the prompts"),
        ({"system": " "}, r"task\.system: is empty; write the message, or null"),
        (ANSWERED | {"grader": "pattern"}, r"task\.pattern: None with grader pattern; write the regular expression"),
        (ANSWERED | {"pattern": "x"}, r"task\.pattern: 'x' with grader exact; write null"),
        (ANSWERED | {"grader": "pattern", "pattern": "(x"}, r"'\(x' is no regular expression of Python's re \(mis"),
        (ANSWERED | {"grader": "pattern", "pattern": "(a)(b)"}, r"has 2 groups, and one may be the answer"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused_without_a_look_at_the_file(changes: dict[str, Any], message: str) -> None:
    task = prompts.Params.model_validate(TASK | {"file": "/nowhere/asked.jsonl"} | changes)
    with pytest.raises(ValueError, match=message):
        prompts.check(task)


@pytest.mark.parametrize(
    "change", [{"held_out": 0.0}, {"held_out": 1.0}, {"grader": "llm"}, {"column": ""}, {"seed": 1}]
)
def test_params_are_strict(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        prompts.Params.model_validate(TASK | {"file": "/a.jsonl"} | change)


@pytest.mark.parametrize("file", ["asked.jsonl", "~/asked.jsonl", "", "a\nb"])
def test_a_path_from_nowhere_is_refused(file: str) -> None:
    with pytest.raises(ValidationError, match="in full"):
        prompts.Params.model_validate(TASK | {"file": file})


# --- the two sides


def test_a_text_is_on_one_side_in_every_file_and_repeats_are_counted(tmp_path: Path) -> None:
    task = task_of(jsonl(tmp_path / "asked.jsonl", ROWS))
    found = prompts.prompt_set(task)
    held, trained = ({question.text for question in side} for side in (found.held_out, found.training))
    assert 3 <= len(held) <= 18 and not held & trained and len(held | trained) == 40
    again = [
        *({"prompt": row["prompt"] + " ", "gold": "x"} for row in reversed(ROWS)), *ROWS,
        {"prompt": [{"role": "user", "content": ROWS[3]["prompt"]}], "gold": "x"}, {"prompt": "Why?", "gold": "y"},
    ]  # fmt: skip
    other = prompt_sets.read(origin(jsonl(tmp_path / "again.jsonl", again), answer="gold"))
    counts = other.summary
    assert (counts.rows, counts.prompts, counts.repeats, counts.conflicting) == (82, 41, 41, 40)
    assert {question.text.strip() for question in other.held_out} - {"Why?"} == held
    assert all(question.answer in "xy" for question in (*other.training, *other.held_out)), "the first row is kept"
    assert "rows: 82, distinct prompts: 41, repeats dropped: 41 (with another answer: 40)" in counts.in_words
    assert f"to train on: {counts.training}, held out: {counts.held_out}" in counts.in_words


def test_an_epoch_asks_every_prompt_once_in_an_order_of_its_own(tmp_path: Path) -> None:
    task = task_of(jsonl(tmp_path / "asked.jsonl", ROWS))
    whole = list(prompts.prompt_set(task).training)
    n = len(whole) // 3
    steps = {seed: [prompts.training(task, n, seed, step) for step in range(1, 7)] for seed in (0, 1)}
    for asked in steps.values():
        for epoch in (asked[:3], asked[3:]):
            flat = [question for step in epoch for question in step]
            assert len(set(flat)) == 3 * n and set(flat) <= set(whole)
    assert steps[0][:3] != steps[0][3:] and steps[0] != steps[1]
    with pytest.raises(ValueError, match=r"source\.prompts_per_step: 99 prompts, but .* has \d+ to train on"):
        prompts.training(task, 99, 0, 1)
    assert prompts.test(task, "held-out", 2) == list(prompts.prompt_set(task).held_out[:2])


def test_a_system_message_stands_before_every_prompt_and_moves_none_to_the_other_side(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "asked.jsonl", ROWS)
    plain, told = task_of(path), task_of(path, system="Be brief.")
    asked = [prompts.test(plain, "held-out", 99), prompts.test(told, "held-out", 99)]
    assert [question.text for question in asked[0]] == [question.text for question in asked[1]]
    for question in (*asked[1], *prompts.training(told, 3, 0, 1), prompts.typed(told, "Why?")):
        first, last = prompts.messages(question, told.template)
        assert first == {"role": "system", "content": "Be brief."} and last["role"] == "user"
    assert prompts.chat_options(told) == {"enable_thinking": False}


# --- graders


@pytest.mark.parametrize(
    ("changes", "response", "answer", "stated", "right"),
    [
        ({"grader": "exact"}, " 42\n", "42", "42", 1.0),
        ({"grader": "exact"}, "It is 42", "42", "It is 42", 0.0),
        ({"grader": "contains"}, "It is Forty-Two.", "42|forty-two", "It is Forty-Two.", 1.0),
        ({"grader": "contains"}, "It is 420", "42|forty-two", "It is 420", 0.0),
        ({"grader": "contains"}, " ", "42", None, 0.0),
        ({"grader": "exact"}, " ", "42", None, 0.0),
        ({"grader": "math"}, r"So \boxed{1{,}000}", "1000", "1{,}000", 1.0),
        ({"grader": "math"}, "Answer: 41", "042", "41", 0.0),
        ({"grader": "math"}, "Answer: 42", "042", "42", 1.0),
        ({"grader": "math"}, "42", "42", None, 0.0),
        ({"grader": "pattern", "pattern": r"is (\w+)"}, "It is B. No, it is  A. It is C", "C", "C", 1.0),
        ({"grader": "pattern", "pattern": r"is (\w+)"}, "It is C. No, it is A", "C", "A", 0.0),
        ({"grader": "pattern", "pattern": r"\b[A-D]\b"}, "A or B", "B", "B", 1.0),
        ({"grader": "pattern", "pattern": r"is(?: (\d))?"}, "it is 4, or is it", "4", None, 0.0),
        ({"grader": "pattern", "pattern": "x"}, "none", "x", None, 0.0),
    ],
)
def test_graders_read_an_answer_and_compare_it(
    changes: dict[str, Any], response: str, answer: str, stated: str | None, right: float
) -> None:
    task = prompts.Params.model_validate(TASK | ANSWERED | {"file": "/a.jsonl"} | changes)
    grading = tasks.grading(task)
    assert grading is not None and grading.extract_answer(response) == stated
    assert grading.grade([response], [prompt_of(answer)]) == [right]


# --- what a teacher is shown


def test_a_teacher_may_have_a_system_message_of_its_own() -> None:
    chat = (("system", "Be brief."), ("user", "Hi"), ("assistant", "Yes?"), ("user", "Why?"))
    prompt = Prompt(id="", source="", question="Why?", rendered="", token_ids=(), answer="42", chat=chat)
    asked = opsd.shown_chat(prompt, "{question} Hint: {answer}")
    assert asked == (*chat[:3], ("user", "Why? Hint: 42"))
    told = opsd.shown_chat(prompt, "{question}", "You know that it is {answer}.")
    assert told == (("system", "You know that it is 42."), *chat[1:])
    plain = Prompt(id="", source="", question="Why?", rendered="", token_ids=(), answer="", chat=chat[3:])
    assert opsd.shown_chat(plain, "{question}", "Be kind.") == (("system", "Be kind."), chat[3])
    with pytest.raises(ValueError, match=r"method\.system: '\{key\}': the task has no 'key' of a question to tell"):
        opsd.shown_chat(prompt, "{question}", "{key}")
    options = {key: value for key, value in OPD.items() if key != "name"} | {"shows": "{question}", "decay": 1.0}
    assert opsd.Params(**options).system is None, "a file that leaves it out says what it said before"
    for system, message in (
        (" ", r"method\.system: is empty; write the message"),
        ("{x}", r"method\.system: '\{x\}': 'x'"),
    ):
        with pytest.raises(ValueError, match=message):
            opsd.check(opsd.Params(**options, system=system), 100, True)


# --- whole runs


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two checkpoint folders of the tiny world, a student's and a better teacher's."""
    root = tmp_path_factory.mktemp("pair")
    arms = {"student": {"train.steps": 4}, "teacher": {"train.steps": 30}}
    write(root, "00_models", RUN | {"source": CORPUS, "arms": arms})
    experiment = parameters.load("00_models", results=root / "results", root=root / "params")
    for spec in experiment.runs():
        train(spec)
    student, teacher = (spec.model_folder for spec in experiment.runs())
    return student, teacher


def write(root: Path, name: str, content: dict[str, Any]) -> Path:
    folder = root / "params" / "tiny"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.yaml").open("w") as file:
        YAML().dump(content, file)
    return folder


def distil(root: Path, pair: tuple[Path, Path], task: dict[str, Any], **changes: Any) -> RunSpec:
    """The run of a params file beside which the prompts lie."""
    student, teacher = map(str, pair)
    content = RUN | {"student": student, "teacher": teacher, "method": OPD, "arms": {"own": {}}} | changes
    folder = write(root, "01_own", content | {"task": TASK | task})
    path = jsonl(folder / "asked.jsonl", ROWS)
    answer = (TASK | task)["answer"]
    digest = (TASK | task)["digest"] or prompt_sets.read(origin(path, answer=answer)).summary.digest
    write(root, "01_own", content | {"task": TASK | task | {"digest": digest}})
    (spec,) = parameters.load("01_own", results=root / "results", root=root / "params").runs()
    return spec


def test_a_run_that_grades_nothing_leaves_accuracy_empty_and_everything_else_full(
    tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    spec = distil(tmp_path, pair, {})
    command = ["01_own", "own", "0", "--params", str(tmp_path / "params"), "--results", str(tmp_path / "results")]
    said = CliRunner().invoke(app, ["run", *command])
    assert said.exit_code == 0, said.output
    assert "step 3 of 6" in said.output and "accuracy" not in said.output and "nan" not in said.output
    record = parameters.spec.record.read(spec.folder)
    assert record is not None and record.status == "finished"
    steps, evals, problems = (record.frame(name) for name in ("steps", "evals", "problems"))
    assert len(steps) == 6 and steps["loss"].notna().all() and steps["reverse_kl"].notna().all()
    assert steps["reward"].isna().all() and evals["step"].tolist() == [0, 3, 6]
    assert evals[["accuracy", "pass_at_k", "no_answer_share"]].isna().all(axis=None)
    assert (evals["response_length"] > 0).all() and set(evals["test_set"]) == {"held-out"}
    assert problems["n_correct"].isna().all() and len(problems) == 3 * 3
    kept = [json.loads(line, parse_constant=pytest.fail) for line in (spec.folder / "tokens.jsonl").open()]
    assert {row["reward"] for row in kept} == {None}
    micro.write_notebook(tmp_path, "01_own")
    status = CliRunner().invoke(app, ["status", "--runs", "--notebooks", str(tmp_path / "notebooks"), *command[3:]])
    assert status.exit_code == 0 and "01_own" in status.output, status.output


def test_a_run_with_answers_has_rewards_an_accuracy_and_a_teacher_that_is_told_them(
    tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    told = OPD | {"name": "opsd", "shows": "{question}", "system": "T3 {answer}", "decay": 1.0}
    record = train(distil(tmp_path, pair, ANSWERED, method=told, train=RUN["train"] | {"steps": 2}))
    evals, steps = record.frame("evals"), record.frame("steps")
    assert evals["accuracy"].between(0, 1).all() and steps["reward"].between(0, 1).all() and len(steps) == 2
    assert evals["no_answer_share"].between(0, 1).all() and record.frame("problems")["n_correct"].dtype.kind == "i"


GRPO = {"name": "grpo", "normalize_std": False, "epsilon": 1e-6}
BRTS = OPD | {
    "name": "brts", "part": "student", "coef": 1.0, "candidates": 2, "temperature": 1.0, "top_p": 1.0, "hint": "",
    "similar_k": 4,
}  # fmt: skip
CONTINUATION = {"kind": "continuation", "batches": 1, "depths": [2], "new_tokens": 4}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": GRPO, "teacher": None}, r"method\.name: grpo learns from right and wrong responses, but nothing i"),
        ({"method": BRTS}, r"method\.coef: 1: brts chooses right responses of the teacher, but nothing is graded"),
        (
            {"method": OPD | {"name": "eff_opd", "k_max": 2, "tried": 4}},
            r"method\.k_max: 2: candidates are compared by their accuracy, but nothing is graded",
        ),
        ({"probe": CONTINUATION}, r"probe\.kind: continuation tells right responses from wrong ones, but nothing"),
        ({"student": RUN["student"]}, r"student: a new model for task\.name prompts: it knows no words; name a checkp"),
        ({"source": CORPUS}, r"source\.kind: corpus answers the questions of task\.name chain"),
    ],
)  # fmt: skip
def test_what_needs_answers_or_words_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"01_own\.yaml, arm own: {message}"):
        distil(tmp_path, (tmp_path, tmp_path), {}, **changes)


def test_an_answer_that_nobody_knows_is_no_response(tmp_path: Path) -> None:
    task = task_of(jsonl(tmp_path / "asked.jsonl", ROWS))
    source, key = Answers(kind="answers", prompts_per_step=4), sources.BatchKey(seed=0, step=1, ranks=ALONE)
    with pytest.raises(
        ValueError, match=r"source\.kind: answers, but nobody knows that of prompts/as-written/line-\d+"
    ):
        sources.from_answers(source, task, models.world_tokenizer(chain.WORLD), key)


def test_a_bad_file_ends_a_run_before_a_model_is_loaded(tmp_path: Path) -> None:
    spec = distil(tmp_path, (tmp_path / "no student", tmp_path / "no teacher"), {"column": "prompt"})
    Path(spec.params.task.file).write_text('{"prompt": "Why?"}\n{"prompt": null}\n')
    with pytest.raises(ValueError, match=r"asked\.jsonl, line 2: prompt: is missing"):
        train(spec)


def test_a_long_prompt_that_is_held_out_is_refused(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    spec = distil(tmp_path, pair, {"max_prompt_tokens": 7})
    with pytest.raises(
        ValueError, match=r"task\.max_prompt_tokens: 7, but held-out/as-written/line-\d+, which is held "
    ):
        train(spec)


def test_the_rows_are_part_of_a_run_and_their_place_is_not(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    here, there = (distil(root, (Path("/s"), Path("/t")), {}) for root in (one, other))
    assert here.params.task.file == str(one / "params" / "tiny" / "asked.jsonl") != there.params.task.file
    assert here.identity == there.identity
    changed = distil(tmp_path / "changed", (Path("/s"), Path("/t")), {"digest": "0" * 32})
    assert changed.identity != here.identity


def test_a_typed_question_is_put_with_the_system_message(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    spec = distil(tmp_path, pair, {"system": "T3"})
    student = models.load(str(pair[0]))
    typed = conversation.put(spec.params, student, "7 + 5")
    assert typed.rendered == "<bos> T3 <q> 7 + 5 <a>"
    (asked,) = sources.make_prompts(
        student[1], spec.params.task, prompts.test(spec.params.task, "held-out", 1), ["as-written"], "held-out"
    )
    assert asked.rendered.startswith("<bos> T3 <q> T1 7 + ") and asked.chat[0] == ("system", "T3")


def test_the_command_says_in_words_what_a_file_holds_and_its_digest(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "asked.jsonl", [*ROWS, ROWS[0]])
    said = CliRunner().invoke(app, ["prompts", str(path), "--answer", "gold", "--held-out", "0.25"])
    assert said.exit_code == 0 and "rows: 41, distinct prompts: 40, repeats dropped: 1 (" in said.output
    digest = said.output.rpartition("digest: ")[2].strip()
    prompts.prepare(task_of(path, digest=digest, answer="gold"))
    wrong = CliRunner().invoke(app, ["prompts", str(path), "--column", "text"])
    assert wrong.exit_code == 1 and "line 1: no text; it has prompt, gold" in wrong.output + wrong.stderr


def test_the_questions_that_come_along_are_open_each_once_and_about_six_hundred() -> None:
    file = paths.PARAMS / "smollm" / "questions.jsonl"
    found = prompt_sets.read(prompt_sets.Origin(file=file, column="prompt", answer="answer", held_out=0.5))
    assert found.summary.repeats == 0 and 590 <= found.summary.prompts <= 650
    assert abs(found.summary.held_out - found.summary.training) < 80
    for each in (*found.training, *found.held_out):
        assert each.text.endswith("?") and len(each.text) < 100 and each.answer == each.answer.lower(), each.text
        assert not prompts.contains(each.text, each.answer), f"{each.text} holds its own answer"
