"""Real mathematics: the catalogue, how its sets are read and refused, the order of training, grading by template."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from opd_lib.tasks import math as task
from opd_lib.tasks import math_rows, math_sets
from opd_lib.tasks.math_rows import TEMPLATES, Hub, Layout, Question
from opd_lib.types import Prompt

FILES: dict[str, list[dict[str, Any]]] = json.loads(
    (Path(__file__).parent / "data" / "math_sets.json").read_text(encoding="utf-8")
)
"""Invented questions in the shape of the released files."""
PARAMS: dict[str, Any] = {
    "name": "math",
    "content": "dapo",
    "other_content": "deepmath",
    "other_share": 0.0,
    "template": "original",
    "test_sets": ["aime24", "amc23-40"],
    "test_template": "boxed",
    "thinking": False,
    "max_prompt_tokens": 1024,
    "data": None,
}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), folder / name)
    return folder / name


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What `datasets` caches lies in the test's folder, and the hub is out of reach."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        patch.setattr("datasets.config.HF_HUB_OFFLINE", True)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("sets")
    for name, rows in FILES.items():
        write(folder, name, rows)
    return str(folder)


def params(data: str | None, **changes: Any) -> task.Params:
    return task.Params.model_validate(PARAMS | {"data": data} | changes)


def prompt(rendered: str, answer: str) -> Prompt:
    return Prompt(id="x", source="x", question="x", rendered=rendered, token_ids=(0,), answer=answer)


def released(name: str) -> list[str]:
    return [row["prompt"][0]["content"] for row in FILES[name]]


# --- the catalogue and what its sets hold


def test_every_hub_of_the_catalogue_is_pinned_to_a_commit() -> None:
    hubs = {name: entry.hub for name, entry in (math_sets.TRAINING | math_sets.TEST).items()}
    assert [name for name, hub in hubs.items() if hub is None] == ["deepmath"]
    assert all(hub.pinned for hub in hubs.values() if hub)
    assert not Hub(name="x/y", revision="main", layout=math_sets.CHAT).pinned


def test_a_set_keeps_its_order_and_its_repeats_and_says_what_it_holds(data: str) -> None:
    questions = math_sets.load("dapo", data)
    assert [question.id for question in questions] == [row["extra_info"]["index"] for row in FILES[math_file("dapo")]]
    summary = math_sets.describe("dapo", data)
    assert (summary.rows, summary.questions, summary.repeats, summary.conflicting) == (11, 9, 2, 1)
    assert (summary.integer_golds, summary.copies, summary.control_characters) == (11, 0, 1)
    assert summary.instructions == {"original": 11}
    assert (summary.source, summary.pinned, summary.as_released) == ("dapo-math-17k.parquet", None, False)


def math_file(name: str) -> str:
    return (math_sets.TRAINING | math_sets.TEST)[name].file


def test_both_released_forms_of_dapo_hold_the_same_questions(data: str) -> None:
    assert math_sets.load("dapo", data) == math_sets.load("dapo-processed", data)
    assert math_sets.describe("dapo-processed", data).instructions == {"boxed_double": 11}


@pytest.mark.parametrize(
    ("name", "template"), [("dapo", "original"), ("dapo-processed", "boxed_double"), ("deepmath", "boxed")]
)
def test_a_question_in_its_template_is_the_released_prompt_to_the_letter(data: str, name: str, template: str) -> None:
    rendered = [task.messages(question, template) for question in math_sets.load(name, data)]
    assert rendered == [[{"role": "user", "content": content}] for content in released(math_file(name))]


def test_every_template_changes_the_question_and_is_taken_off_again() -> None:
    question = Question(id="1", text="What is $1+1$? \\boxed{?}\n", answer="2")
    contents = {template: task.messages(question, template)[0]["content"] for template in TEMPLATES}
    assert len(set(contents.values())) == 3
    for template, content in contents.items():
        assert math_rows.strip_instruction(content) == (question.text, template)
    assert math_rows.strip_instruction(question.text) == (question.text, "none")
    assert math_rows.strip_instruction(TEMPLATES["boxed"][1]) == (TEMPLATES["boxed"][1], "none")


@pytest.mark.parametrize(
    ("name", "golds"),
    [
        ("aime24", ["4", "9", "25"]),
        ("aime25", ["180", "51"]),
        ("amc23-83", ["150", "-4", "3", "5"]),
        ("amc23-40", ["-4", "3"]),
        ("deepmath", ["1", "Yes", "e", r"\dfrac{1}{4}", r"\sqrt{5}"]),
    ],
)
def test_golds_are_normalised(data: str, name: str, golds: list[str]) -> None:
    assert [question.answer for question in math_sets.load(name, data)] == golds


def test_a_boxed_gold_is_the_plain_one(data: str) -> None:
    rows = math_rows.from_file(Path(data) / "AIME24_offline.parquet", math_sets.CHAT)
    offline, instructions, _ = math_rows.to_questions("offline", rows)
    assert [question.answer for question in offline] == ["4", "9", "25"]
    assert instructions == {"none": 3}


def test_a_set_is_read_once(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = math_sets.load("amc23-83", data)
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: pytest.fail("read again"))
    assert math_sets.load("amc23-83", data) is first


def test_copies_of_a_row_are_left_out_and_rows_that_contradict_each_other_refused() -> None:
    row = math_rows.Row(id="a", text="What is 1?", answer="1")
    questions, instructions, copies = math_rows.to_questions("set", [row, row, row])
    assert (len(questions), instructions, copies) == (1, {"none": 1}, 2)
    with pytest.raises(ValueError, match=r"set: two rows have the id 'a'"):
        math_rows.to_questions("set", [row, math_rows.Row(id="a", text="What is 1?", answer="2")])


def test_rows_without_an_id_are_known_by_their_place() -> None:
    rows = [math_rows.Row(id="", text="What is 1?", answer="1")] * 2
    assert [question.id for question in math_rows.to_questions("set", rows)[0]] == ["set-0", "set-1"]


# --- OpenThoughts


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(math_sets, "N_COLD_START", 5)
    math_sets._load.cache_clear()
    yield
    math_sets._load.cache_clear()


@pytest.mark.usefixtures("few")
def test_openthoughts_is_dealt_by_question(data: str) -> None:
    sft, opd = (math_sets.load(f"openthoughts-{side}", data) for side in ("sft", "opd"))
    asked = {
        row["conversations"][0]["value"] for row in FILES[math_file("openthoughts-sft")] if row["domain"] == "math"
    }
    assert len(sft) == 5
    assert len({question.text for question in opd}) == len(opd)
    assert not {question.text for question in sft} & {question.text for question in opd}
    assert {question.text for question in (*sft, *opd)} == asked
    assert all(question.answer == "" for question in (*sft, *opd))


def test_dealing_depends_on_the_questions_alone_and_leaves_something() -> None:
    questions = [Question(id=str(i), text=f"question {i // 4}", answer="") for i in range(400)]
    assert math_sets.deal(questions, 50, cold_start=True) == math_sets.deal(questions, 50, cold_start=True)
    left = math_sets.deal(questions, 50, cold_start=False)
    assert len(left) == 100 - 13  # 50 rows take 13 questions of 4 rows each
    with pytest.raises(ValueError, match=r"leave none"):
        math_sets.deal(questions, 400, cold_start=True)


# --- what cannot be read


def chat(**changes: Any) -> dict[str, Any]:
    return FILES["AIME24_validation.parquet"][0] | changes


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "What is 1?", "answer": "1"}, r"column 'extra_info' expected, found only question, answer"),
        (chat(prompt="What is 1?"), r"prompt\.only\.role: expected a list of one element, found 'What is 1\?'"),
        (chat(prompt=[]), r"prompt\.only\.role: expected a list of one element, found \[\]"),
        (chat(prompt=[{"role": "user", "content": "?"}] * 2), r"prompt\.only\.role: expected a list of one element"),
        (chat(prompt=[{"role": "system", "content": "?"}]), r"prompt\.only\.role should hold 'user', holds 'system'"),
        (chat(prompt=[{"role": "user", "text": "?"}]), r"prompt\.only\.content: expected a record with 'content'"),
        (chat(prompt=[{"role": "user", "content": " "}]), r"prompt\.only\.content: expected text or a number"),
        (chat(reward_model={"truth": "1"}), r"reward_model\.ground_truth: expected a record with 'ground_truth'"),
        (chat(reward_model={"ground_truth": None}), r"ground_truth: expected text or a number, found None"),
        (chat(reward_model={"ground_truth": math.nan}), r"ground_truth: expected text or a number, found nan"),
        (chat(reward_model={"ground_truth": True}), r"ground_truth: expected text or a number, found True"),
        (chat(prompt=None), r"prompt\.only\.role: expected a list of one element, found None"),
    ],
)  # fmt: skip
def test_a_row_of_the_wrong_shape_names_file_row_and_column(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    write(tmp_path, "AIME24_validation.parquet", [row])
    with pytest.raises(ValueError, match=rf"AIME24_validation\.parquet.*{message}"):
        math_sets.load("aime24", str(tmp_path))


def test_a_set_without_a_row_or_with_text_that_is_not_utf8_is_one_error(tmp_path: Path) -> None:
    path = write(tmp_path, "AIME24_validation.parquet", [chat()])
    table = pq.read_table(path)
    pq.write_table(table.slice(0, 0), path)
    with pytest.raises(
        ValueError, match=r"AIME24_validation\.parquet: is no parquet file .*\(it has no row\); fetch it"
    ):
        math_sets.load("aime24", str(tmp_path))
    buffers = [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")]
    contents = pa.Array.from_buffers(pa.string(), 1, buffers)
    message = pa.StructArray.from_arrays([contents, pa.array(["user"])], names=["content", "role"])
    prompts = pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), message)
    pq.write_table(table.set_column(table.column_names.index("prompt"), "prompt", prompts), path)
    with pytest.raises(ValueError, match=r"AIME24_validation\.parquet, from row 0: holds text that is not UTF-8"):
        math_sets.load("aime24", str(tmp_path))


def test_a_set_none_of_whose_rows_belongs_to_it_is_an_error(tmp_path: Path) -> None:
    rows = [{"conversations": [{"from": "human", "value": "Why?"}], "domain": "code"}]
    write(tmp_path, math_file("openthoughts-sft"), rows)
    with pytest.raises(ValueError, match=r"openthoughts-sft: .* holds no question of this set"):
        math_sets.load("openthoughts-sft", str(tmp_path))


def test_a_missing_folder_a_missing_file_and_a_broken_file_are_three_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"task\.data: there is no folder .*nowhere; .*null for the hub"):
        math_sets.load("dapo", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"task\.data: .* holds no dapo-math-17k\.parquet; put the file there"):
        math_sets.load("dapo", str(tmp_path))
    (tmp_path / "dapo-math-17k.parquet").write_text("<html>not found</html>")
    with pytest.raises(ValueError, match=r"dapo-math-17k\.parquet: is no parquet file .*; fetch it again"):
        math_sets.load("dapo", str(tmp_path))


def gated(*_: Any, **__: Any) -> None:
    import httpx
    from huggingface_hub.errors import GatedRepoError

    raise GatedRepoError("gated", response=httpx.Response(403, request=httpx.Request("HEAD", "https://hub")))


def absent(*_: Any, **__: Any) -> None:
    import httpx
    from huggingface_hub.errors import RepositoryNotFoundError

    raise RepositoryNotFoundError("absent", response=httpx.Response(401, request=httpx.Request("HEAD", "https://hub")))


def no_revision(*_: Any, **__: Any) -> None:
    import httpx
    from huggingface_hub.errors import RevisionNotFoundError

    raise RevisionNotFoundError("none", response=httpx.Response(404, request=httpx.Request("HEAD", "https://hub")))


def unreachable(*_: Any, **__: Any) -> None:
    import httpx
    from huggingface_hub.errors import LocalEntryNotFoundError

    raise LocalEntryNotFoundError("no answer") from httpx.ConnectError("name or service not known")


@pytest.mark.parametrize(
    ("fails", "remedy"),
    [
        (gated, r"is gated: ask for access on https://huggingface\.co/datasets/x/y and log in"),
        (absent, r"is not on the hub, or is private; see https://huggingface\.co/datasets/x/y"),
        (no_revision, r"has no such revision; take a commit of https://huggingface\.co/datasets/x/y/commits/main"),
        (unreachable, r"the hub cannot be reached .*; connect once"),
    ],
)
def test_what_the_hub_refuses_is_one_error_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, fails: Callable[..., None], remedy: str
) -> None:
    """The library's own way from the hub's answer to its exception is taken, so a change of its words is noticed."""
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi.hf_hub_download", fails)
    hub = Hub(name="x/y", revision=COMMIT, layout=math_sets.CHAT)
    with pytest.raises(ValueError, match=rf"x/y@{COMMIT}: {remedy}.*task\.data"):
        list(math_rows.from_hub(hub))


def test_offline_mode_is_an_error_with_its_remedy() -> None:
    with pytest.raises(ValueError, match=r"DAPO-Math-17k@\w+: the hub cannot be reached .*task\.data"):
        math_sets.load("dapo", None)


def test_an_unknown_configuration_or_split_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise ValueError("BuilderConfig 'z' not found. Available: ['default']")

    monkeypatch.setattr("datasets.load_dataset", fails)
    with pytest.raises(ValueError, match=r"x/y@main: cannot be read \(BuilderConfig 'z' not found.*task\.data"):
        list(math_rows.from_hub(Hub(name="x/y", revision="main", layout=math_sets.CHAT, configs=("z",))))


class Cached:
    """A dataset that came out of the cache of another revision."""

    cache_files = ({"filename": f"/cache/x___y/default/0.0.0/{COMMIT[::-1]}/y-train.arrow"},)


def test_another_revision_out_of_the_cache_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: Cached())
    with pytest.raises(ValueError, match=r"only another revision is cached"):
        list(math_rows.from_hub(Hub(name="x/y", revision=COMMIT, layout=math_sets.CHAT)))


def test_a_hub_is_asked_for_revision_split_and_configurations_and_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets import Dataset

    asked = []

    def answers(name: str, config: str, *, split: str, revision: str) -> Dataset:
        asked.append((name, config, split, revision))
        return Dataset.from_list([{"question": f"What is {config}?", "answer": 70.0}])

    hub = Hub(
        name="x/y", revision="main", layout=Layout(text="question", answer="answer"), split="test", configs=("I", "II")
    )
    entry = math_sets.MathSet(file="none", layout=math_sets.CHAT, hub=hub, digest=None)
    monkeypatch.setattr("datasets.load_dataset", answers)
    monkeypatch.setitem(math_sets.TEST, "aime26", entry)
    questions = math_sets.load("aime26", None)
    assert asked == [("x/y", "I", "test", "main"), ("x/y", "II", "test", "main")]
    assert [(q.id, q.text, q.answer) for q in questions] == [
        ("aime26-0", "What is I?", "70"), ("aime26-1", "What is II?", "70")
    ]  # fmt: skip
    summary = math_sets.describe("aime26", None)
    assert (summary.source, summary.pinned, summary.as_released) == ("x/y@main", False, None)


# --- the order of training


def test_training_takes_rows_in_file_order_and_drops_the_rows_that_fill_no_step(data: str) -> None:
    questions = math_sets.load("dapo", data)
    steps = [task.training(params(data), 4, seed=0, step=step) for step in range(1, 6)]
    assert steps == [
        list(part) for part in (questions[:4], questions[4:8], questions[:4], questions[4:8], questions[:4])
    ]


def test_an_exact_epoch_drops_nothing_and_the_seed_is_not_read(data: str) -> None:
    questions = math_sets.load("dapo", data)
    for seed in (0, 1):
        assert task.training(params(data), 11, seed, step=2) == list(questions)
        assert [task.training(params(data), 1, seed, step)[0] for step in range(1, 13)] == [*questions, questions[0]]


def test_more_prompts_than_rows_are_refused(data: str) -> None:
    with pytest.raises(ValueError, match=r"source\.prompts_per_step: 12 prompts, but dapo has 11 rows"):
        task.training(params(data), 12, seed=0, step=1)


def test_a_mixture_takes_at_each_place_the_row_of_one_of_the_two_sets(data: str) -> None:
    mixed = params(data, other_share=0.5)
    main, other = (math_sets.load(name, data) for name in ("dapo", "deepmath"))
    taken = []
    for step in range(1, 101):
        rows = task.training(mixed, 3, seed=7, step=step)
        begin, other_begin = (step - 1) % 3 * 3, 0
        for place, question in enumerate(rows):
            assert question in (main[begin + place], other[other_begin + place])
            taken.append(question in other)
        assert rows == task.training(mixed, 3, seed=7, step=step)
    assert 0.4 < sum(taken) / len(taken) < 0.6
    assert taken != [q in other for step in range(1, 101) for q in task.training(mixed, 3, seed=8, step=step)]


def test_a_share_of_one_is_the_other_set(data: str) -> None:
    whole = params(data, other_share=1.0)
    assert task.training(whole, 5, seed=3, step=4) == list(math_sets.load("deepmath", data))


def test_a_test_set_gives_its_first_questions(data: str) -> None:
    questions = list(math_sets.load("amc23-83", data))
    assert task.test(params(data), "amc23-83", 2) == questions[:2]
    assert task.test(params(data), "amc23-83", 100) == questions


# --- grading and checks


def test_grading_reads_the_form_the_prompt_asks_for_and_the_other_where_it_is_missing() -> None:
    line, box = TEMPLATES["original"][1], TEMPLATES["boxed"][1]
    cases = [
        (r"First \boxed{3}. Answer: 34", line, 1.0),
        (r"First \boxed{3}. Answer: 34", box, 0.0),
        (r"So \boxed{34}", line, 1.0),
        ("Answer: 34", box, 1.0),
        ("Answer: 3\nSo \\boxed{34}", line, 0.0),
        ("Answer: 3\nSo \\boxed{34}", box, 1.0),
        ("It is 34.", box, 0.0),
        ("", line, 0.0),
        (r"\boxed{\frac{68}{2}}", box, 1.0),
        (r"\boxed{\frac{67}{2}}", box, 0.0),
    ]
    grades = task.grade([text for text, _, _ in cases], [prompt("<user>?" + form, "34") for _, form, _ in cases])
    assert grades == [right for _, _, right in cases]


def test_without_a_gold_there_is_no_grade() -> None:
    assert math.isnan(task.grade([r"\boxed{34}"], [prompt("?", "")])[0])


def test_the_chat_template_is_told_whether_to_think() -> None:
    assert [task.chat_options(params(None, thinking=t)) for t in (True, False)] == [
        {"enable_thinking": True}, {"enable_thinking": False}
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"content": "dapo-17k"}, r"task\.content: 'dapo-17k' is unknown; choose from dapo, dapo-processed, deepmath"),
        ({"content": "aime24"}, r"task\.content: 'aime24' is unknown"),
        ({"other_content": "chain-a"}, r"task\.other_content: 'chain-a' is unknown"),
        ({"template": "T1"}, r"task\.template: 'T1' is unknown; choose from original, boxed, boxed_double"),
        ({"test_template": "boxed{}"}, r"task\.test_template: 'boxed\{\}' is unknown"),
        ({"test_sets": ["aime24", "dapo"]}, r"task\.test_sets: 'dapo' is unknown; choose from aime24, aime25"),
        ({"content": "deepmath"}, r"task\.content: 'deepmath' is on no hub; fetch https://.*DeepMath_deduped\.parquet"),
        ({"other_share": 0.5}, r"task\.other_content: 'deepmath' is on no hub"),
    ],
)  # fmt: skip
def test_names_the_task_does_not_have_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task.check(params(None, **changes))


def test_good_names_pass_without_anything_being_read() -> None:
    task.check(params(None))
    task.check(params("no such folder", content="deepmath", other_share=0.5))


@pytest.mark.parametrize(
    "change", [{"other_share": 1.5}, {"test_sets": []}, {"thinking": "no"}, {"max_prompt_tokens": 0}, {"seed": 1}]
)
def test_params_are_strict(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        params(None, **change)


# --- the real files


@pytest.mark.parametrize(
    ("name", "rows", "questions", "instructions", "integers", "steps"),
    [
        ("dapo", 17917, 17398, {"original": 17917}, 17917, 279),
        ("dapo-processed", 17917, 17398, {"boxed_double": 17917}, 17917, 279),
        ("deepmath", 14116, 14085, {"boxed": 14116}, 4183, 220),
        ("aime24", 30, 30, {"boxed": 30}, 30, 0),
        ("aime25", 30, 30, {"boxed": 30}, 30, 0),
        ("amc23-83", 83, 83, {"boxed": 83}, 83, 1),
        ("amc23-40", 40, 40, {"none": 40}, 40, 0),
    ],
)
def test_the_real_sets_hold_what_is_stated(
    real_data: Path, name: str, rows: int, questions: int, instructions: dict[str, int], integers: int, steps: int
) -> None:
    summary = math_sets.describe(name, str(real_data))
    assert (summary.rows, summary.questions, summary.repeats) == (rows, questions, rows - questions)
    assert (summary.instructions, summary.integer_golds, summary.copies) == (instructions, integers, 0)
    assert summary.as_released
    assert summary.rows // 64 == steps
    assert len({question.id for question in math_sets.load(name, str(real_data))}) == rows


def test_dapos_blemishes_are_counted(real_data: Path) -> None:
    summary = math_sets.describe("dapo", str(real_data))
    assert (summary.repeats, summary.conflicting, summary.control_characters) == (519, 7, 671)
    texts = [question.text for question in math_sets.load("dapo", str(real_data))]
    assert sum(re.search("[\u4e00-\u9fff]", text) is not None for text in texts) == 3432
    assert math_sets.load("dapo", str(real_data)) == math_sets.load("dapo-processed", str(real_data))


@pytest.mark.parametrize(
    ("name", "template"), [("dapo", "original"), ("dapo-processed", "boxed_double"), ("deepmath", "boxed")]
)
def test_the_real_prompts_are_rendered_to_the_letter(real_data: Path, name: str, template: str) -> None:
    column = pq.read_table(real_data / math_file(name), columns=["prompt"])["prompt"].to_pylist()
    rendered = [task.messages(question, template) for question in math_sets.load(name, str(real_data))]
    assert rendered == column


def without_blanks(name: str, real_data: Path) -> dict[str, str]:
    return {re.sub(r"\s", "", question.text): question.answer for question in math_sets.load(name, str(real_data))}


def test_deepmath_has_no_question_of_dapo(real_data: Path) -> None:
    dapo, deepmath = (without_blanks(name, real_data) for name in ("dapo", "deepmath"))
    assert (len(dapo), len(deepmath)) == (16921, 14072) and not set(dapo) & set(deepmath)


@pytest.mark.parametrize(("name", "in_dapo"), [("aime24", 0), ("aime25", 0), ("amc23-83", 12), ("amc23-40", 6)])
def test_dapo_holds_questions_of_amc23_word_for_word(real_data: Path, name: str, in_dapo: int) -> None:
    dapo, tested = without_blanks("dapo", real_data), without_blanks(name, real_data)
    common = set(dapo) & set(tested)
    assert len(common) == in_dapo
    assert all(dapo[text] == tested[text] for text in common)


def test_the_40_of_amc23_are_among_the_83_with_the_same_golds(real_data: Path) -> None:
    few, many = (without_blanks(name, real_data) for name in ("amc23-40", "amc23-83"))
    assert len(few) == 40 and few.items() <= many.items()


@pytest.mark.parametrize(("file", "name"), [("AIME24_offline", "aime24"), ("AIME25_offline", "aime25")])
def test_the_offline_wording_has_the_same_golds(real_data: Path, file: str, name: str) -> None:
    rows = math_rows.from_file(real_data / f"{file}.parquet", math_sets.CHAT)
    offline, _, _ = math_rows.to_questions(name, rows)
    validation = math_sets.load(name, str(real_data))
    assert sorted(question.answer for question in offline) == sorted(question.answer for question in validation)
    assert {question.text for question in offline} != {question.text for question in validation}
