"""Kept responses that no model gave: the keys, shapes and digits of tokens.jsonl, invented numbers."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from opd_lib.records.record import RunRecord

WORDS = [*"0123456789", "+", "*", "=", ";", "<ans>", "<eos>", *(f"w{i:02d}" for i in range(40))]
SETS = ("chain-3", "chain-4", "chain-5")
LISTED = 6
PAYLOAD = re.compile(r'mountAll\("[0-9a-f]+", "([A-Za-z0-9+/=]+)"\);')
"""Where a page of the explorer has its content; the bytes depend on the version of zlib."""


def response(chance: np.random.Generator, n: int, teacher: bool = True, words: Sequence[str] = WORDS) -> dict[str, Any]:
    """One response of n tokens; without a teacher it has the student's numbers alone."""
    p_TV = chance.dirichlet(np.full(len(words), 0.03), n) + 1e-9
    q_TV = p_TV * np.exp(chance.normal(0, 0.7, p_TV.shape)) + 1e-9
    p_TV, q_TV = p_TV / p_TV.sum(1, keepdims=True), q_TV / q_TV.sum(1, keepdims=True)
    said = [int(chance.choice(len(words), p=p)) for p in p_TV]
    lists = [
        list(dict.fromkeys([*np.argsort(-p)[:LISTED], *np.argsort(-q)[:LISTED]]))
        for p, q in zip(p_TV, q_TV, strict=True)
    ]
    entropy = lambda x: [round(float(v), 4) for v in -(x * np.log(x)).sum(1)]
    mass = lambda x: [[float(f"{x[t, i]:.3g}") for i in places] for t, places in enumerate(lists)]
    logp = lambda x: [round(float(np.log(x[t, i])), 4) for t, i in enumerate(said)]
    row: dict[str, Any] = {
        "tokens": [words[i] for i in said],
        "student_logp": logp(p_TV),
        "student_entropy": entropy(p_TV),
    }
    if teacher:
        row |= {
            "teacher_logp": logp(q_TV),
            "teacher_entropy": entropy(q_TV),
            "reverse_kl": [round(float(v), 4) for v in (p_TV * np.log(p_TV / q_TV)).sum(1)],
            "overlap": [float(v) / 16 for v in chance.integers(8, 17, n)],
            "advantage": [round(-float(v), 4) for v in chance.exponential(0.02, n)],
        }
    row |= {"top": [[words[i] for i in places] for places in lists], "top_student": mass(p_TV)}
    return row | ({"top_teacher": mass(q_TV)} if teacher else {})


def rows(
    seed: int = 0, steps: Sequence[int] = (0, 20, 40), sets: Sequence[str] = SETS, n: int = 30, **options: Any
) -> list[dict[str, Any]]:
    """The first problem of each test set at every step. At step 0 every run of a seed answers the same."""
    found = []
    for step in steps:
        for number, name in enumerate(sets):
            chance = np.random.default_rng([seed if step else 0, step, number])
            asked = {"prompt": f"<bos> T2 <q> {number} + 8 * 2 <a>", "answer": str(number), "finished": step > 0}
            place = {"step": step, "test_set": name, "problem": 0} | asked | {"reward": float((step + number) % 2 == 0)}
            found.append(place | response(chance, n + number, **options))
    return found


def record(folder: Path, arm: str, found: Sequence[dict[str, Any]] | None, seed: int = 0) -> RunRecord:
    """A record of this arm that kept these responses (None: it has no such file)."""
    place = folder / arm / f"seed{seed}"
    place.mkdir(parents=True)
    if found is not None:
        (place / "tokens.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    return RunRecord(
        folder=place, experiment="04_x", profile="tiny", arm=arm, seed=seed, status="finished", identity=arm,
        params={}, parents={},
    )  # fmt: skip


def unpacked(html: str) -> dict[str, Any]:
    """What a page of the explorer holds, read from the page."""
    found = PAYLOAD.search(html)
    assert found
    content: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(found[1])))
    return content


def plant_coherence(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same responses with a cosine per token."""
    chance = np.random.default_rng(5)
    return [
        row | {"coherence": [round(float(v), 4) for v in chance.normal(0.1, 0.2, len(row["tokens"]))]} for row in found
    ]
