r"""The real mathematics sets: what they are, where they come from, and their questions without instructions.

A set is read from a folder that holds the authors' released files, or from the hub by id and revision. Its rows keep
their order and their repeats, since the paper trains in file order on all of them; `describe` counts what they hold.
Rows that repeat an id are copies and are left out: the hub's DAPO file holds every row 100 times.

    dapo            17,917 rows, 17,398 questions, 519 repeats; golds are integers; 3,432 rows in Chinese
    dapo-processed  the same rows; the file's instruction has doubled braces, `\boxed{{}}`
    deepmath        14,116 rows of DeepMath-103K without DAPO's questions; 14,085 questions; released as a file only
    openthoughts-*  the mathematics rows of OpenThoughts3-1.2M, dealt by question: 200,000 rows for the cold start
                    (sft), every other question once for distillation (opd); no golds
    aime24, aime25  30 questions each, as worded in the in-training evaluation (the offline files have broken TeX)
    amc23-83        83 questions of the in-training evaluation; amc23-40: 40 of them, the offline evaluation.
                    DAPO holds 12 of the 83, 6 of the 40, word for word with the same gold, and more of them reworded

Source: arXiv 2604.13016 appendix C and its repository; the hub's commits as pinned in other public projects. Differs:
the paper's 200K and 30K OpenThoughts questions are not published, ours are dealt by SPLIT_SEED; whether a hub's rows
are the released ones in the released order is not known beforehand, `describe` compares them (`as_released`).
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b

from opd_lib.paths import ROOT
from opd_lib.tasks.graders import plain_integer
from opd_lib.tasks.math_rows import Hub, Layout, Question, from_file, from_hub, to_questions

RELEASED = (
    "https://raw.githubusercontent.com/Thinking-Space/Rethinking-OPD/0a443955152fcd76dd08570ee3a43d50e307c5d1/datasets"
)
_CONTROL = re.compile(r"[\x00-\x09\x0b\x0c\x0e-\x1f]")

SPLIT_SEED = 0
N_COLD_START = 200_000  # rows of openthoughts-sft


@dataclass(frozen=True, slots=True, kw_only=True)
class MathSet:
    """Where a set comes from. `digest` is that of the released file's questions and golds in their order."""

    file: str
    layout: Layout
    hub: Hub | None
    digest: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    r"""What a set holds, counted. `pinned` and `as_released` are None where there is nothing to compare with.

    `conflicting`: questions whose repeats have different golds. `instructions`: rows by the template they came in.
    `control_characters`: rows that hold some, mostly TeX that an escape has eaten (a tab and "ext" for `\text`).
    """

    name: str
    source: str
    pinned: bool | None
    rows: int
    questions: int
    repeats: int
    conflicting: int
    copies: int
    integer_golds: int
    instructions: dict[str, int]
    control_characters: int
    as_released: bool | None


CHAT = Layout(
    text="prompt.only.content",
    answer="reward_model.ground_truth",
    id="extra_info.index",
    must=("prompt.only.role", "user"),
)
CONVERSATION = Layout(text="conversations.0.value", must=("conversations.0.from", "human"), keep=("domain", "math"))
DAPO = Hub(name="BytedTsinghua-SIA/DAPO-Math-17k", revision="65877096c24ffa7abc4e4fa5edb95cf3413a5674", layout=CHAT)
OPENTHOUGHTS = Hub(
    name="open-thoughts/OpenThoughts3-1.2M", revision="61bcf9d4eb38b30295efc2021227a63cc5bb34c8", layout=CONVERSATION
)
AIME24 = Hub(
    name="HuggingFaceH4/aime_2024",
    revision="2fe88a2f1091d5048c0f36abc874fb997b3dd99a",
    layout=Layout(text="problem", answer="answer", id="id"),
)
AIME25 = Hub(
    name="opencompass/AIME2025",
    revision="a6ad95f611d72cf628a80b58bd0432ef6638f958",
    layout=Layout(text="question", answer="answer"),
    split="test",
    configs=("AIME2025-I", "AIME2025-II"),
)
AMC23_83 = Hub(
    name="AI-MO/aimo-validation-amc",
    revision="69d78a4a2c840e82d69af6bc742bda09005f6316",
    layout=Layout(text="problem", answer="answer", id="id"),
)
AMC23_40 = Hub(
    name="math-ai/amc23",
    revision="80815d37005feb82cd7f8fbc6901d5d3eff43057",
    layout=Layout(text="question", answer="answer", id="id"),
    split="test",
)


def _released(file: str, hub: Hub | None, digest: str) -> MathSet:
    return MathSet(file=file, layout=CHAT, hub=hub, digest=digest)


_OPENTHOUGHTS = MathSet(file="OpenThoughts3-1.2M-math.parquet", layout=CONVERSATION, hub=OPENTHOUGHTS, digest=None)
TRAINING = {
    "dapo": _released("dapo-math-17k.parquet", DAPO, "aada0b6724b697168123aab95f8ab3fb"),
    "dapo-processed": _released("dapo-math-17k-processed.parquet", DAPO, "aada0b6724b697168123aab95f8ab3fb"),
    "deepmath": _released("DeepMath_deduped.parquet", None, "5cd9e41522a988acd509e4fe3636ff68"),
    "openthoughts-sft": _OPENTHOUGHTS,
    "openthoughts-opd": _OPENTHOUGHTS,
}
TEST = {
    "aime24": _released("AIME24_validation.parquet", AIME24, "fc704c4c07989571e969486a34243c92"),
    "aime25": _released("AIME25_validation.parquet", AIME25, "16d364d81df8204f9488bf3d17bd3f35"),
    "amc23-83": _released("AMC23_validation.parquet", AMC23_83, "77a73534fda348bc9038c903646be52e"),
    "amc23-40": _released("AMC23_offline.parquet", AMC23_40, "64087850ebd9ce08c22a0dc4272cfec0"),
}


def load(name: str, data: str | None) -> tuple[Question, ...]:
    """The questions of a set, in order. `data`: a folder (relative to the repository) of files; None: the hub.

    Read once per (name, data). ValueError for a name the catalogue does not have and for whatever cannot be read.
    """
    return _load(name, data)[0]


def describe(name: str, data: str | None) -> Summary:
    """What a set holds, counted, and where it came from."""
    return _load(name, data)[1]


def require_set(name: str, data: str | None) -> None:
    """Refuse a set that the catalogue does not have, or that it can only read from a folder."""
    catalogue = TRAINING | TEST
    if name not in catalogue:
        raise ValueError(f"{name!r} is not a mathematics set; choose from {', '.join(catalogue)}")
    if data is None and catalogue[name].hub is None:
        file = catalogue[name].file
        raise ValueError(f"{name!r} is on no hub; fetch {RELEASED}/{file} into a folder and name it in task.data")


@cache
def _load(name: str, data: str | None) -> tuple[tuple[Question, ...], Summary]:
    require_set(name, data)
    entry = (TRAINING | TEST)[name]
    hub = entry.hub if data is None else None
    rows = from_hub(hub) if hub else from_file((ROOT / str(data)).resolve() / entry.file, entry.layout)
    questions, instructions, copies = to_questions(name, rows)
    if not questions:
        raise ValueError(f"{name}: {hub or entry.file} holds no question of this set; is this the released file?")
    if entry is _OPENTHOUGHTS:
        questions = deal(questions, N_COLD_START, cold_start=name == "openthoughts-sft")
    golds: dict[str, set[str]] = defaultdict(set)
    for question in questions:
        golds[question.text].add(question.answer)
    return tuple(questions), Summary(
        name=name,
        source=str(hub) if hub else entry.file,
        pinned=hub.pinned if hub else None,
        rows=len(questions),
        questions=len(golds),
        repeats=len(questions) - len(golds),
        conflicting=sum(len(answers) > 1 for answers in golds.values()),
        copies=copies,
        integer_golds=sum(plain_integer(question.answer) is not None for question in questions),
        instructions=dict(instructions),
        control_characters=sum(_CONTROL.search(question.text) is not None for question in questions),
        as_released=digest(questions) == entry.digest if entry.digest else None,
    )


def digest(questions: Iterable[Question]) -> str:
    """A fingerprint of questions and golds in their order."""
    whole = blake2b(digest_size=16)
    for question in questions:
        whole.update(f"{question.text}\x1f{question.answer}\x1e".encode())
    return whole.hexdigest()


def deal(questions: Sequence[Question], n: int, cold_start: bool) -> list[Question]:
    """Deal questions in two by SPLIT_SEED: n rows for the cold start, every question not among them once for the rest.

    A question's repeats stay on one side, so the sides share none; both come in a shuffled order.
    """
    by_text: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        by_text[question.text].append(question)
    rng = random.Random(f"openthoughts/{SPLIT_SEED}")
    texts = list(by_text)
    rng.shuffle(texts)
    dealt: list[Question] = []
    first_left = 0
    while len(dealt) < n and first_left < len(texts):
        dealt += by_text[texts[first_left]]
        first_left += 1
    if first_left == len(texts):
        raise ValueError(
            f"openthoughts: {len(questions)} rows leave none beside the {n} of the cold start; fetch them all"
        )
    if not cold_start:
        return [by_text[text][0] for text in texts[first_left:]]
    dealt = dealt[:n]
    rng.shuffle(dealt)
    return dealt
