"""Which questions repeat one of a reference set: by the same text, or by the same meaning.

    exact      the text of a reference question, the Unicode form and runs of blanks set aside
    semantic   cosine(question, nearest reference question) ≥ threshold, between L2-normalised sentence embeddings

A model reads a question's first tokens only (384 of all-mpnet-base-v2, 256 of all-MiniLM-L6-v2); what follows them does
not count for its meaning. Source: arXiv 2604.13016 appendix C.3, as carried out by `tasks.dedup`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
"""N texts → vectors (N, dimension) of any length; they are normalised here."""
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The reference question that a question repeats, and their cosine (1 for the same text)."""

    reason: Literal["exact", "semantic"]
    nearest: str
    cosine: np.float32


@dataclass(frozen=True, slots=True)
class Reference:
    """The different questions of a reference set, their places by normalised text, their vectors in a FAISS index."""

    texts: list[str]
    place: dict[str, int]
    index: Any
    embed: Embed


def normalise(text: str) -> str:
    """The text that is compared: Unicode composed (NFC), every run of blanks one space. Case matters in mathematics.

    >>> normalise(" Let  $x$ be a root. ")
    'Let $x$ be a root.'
    """
    return " ".join(unicodedata.normalize("NFC", text).split())


def sentence_encoder(model: str) -> Embed:
    """The embedding of a sentence-transformers model, by hub name or folder. Raises ValueError if it cannot be had."""
    package = extra("sentence_transformers")
    try:
        encoder = package.SentenceTransformer(model)
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"model: {model!r} cannot be loaded ({reason}); name one of the hub or its folder") from error

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        return np.asarray(encoder.encode(list(texts), show_progress_bar=False), dtype=np.float32)

    return embed


def index_reference(texts: Sequence[str], embed: Embed, chunk: int, say: Say = lambda line: None) -> Reference:
    """A reference set (one question at least), embedded `chunk` texts at a time; a repeated question is in it once."""
    faiss = extra("faiss")
    different: list[str] = []
    place: dict[str, int] = {}
    for text in texts:
        if place.setdefault(normalise(text), len(different)) == len(different):
            different.append(text)
    index = None
    for first in range(0, len(different), chunk):
        vector_ND = _unit(embed(different[first : first + chunk]))
        if index is None:
            index = faiss.IndexFlatIP(vector_ND.shape[1])
        index.add(vector_ND)
        say(f"{index.ntotal} of {len(different)} reference questions embedded")
    return Reference(texts=different, place=place, index=index, embed=embed)


def find_duplicates(texts: Sequence[str], known: Reference, threshold: float) -> list[Duplicate | None]:
    """For each of N questions the reference question it repeats; None where it repeats none.

    FAISS finds the nearest one. Their cosine is then summed in double precision and compared in single: it does not
    depend on how many questions are searched at once, and one that equals the threshold marks a duplicate.
    """
    found: list[Duplicate | None] = [None] * len(texts)
    rest = []
    for i, text in enumerate(texts):
        place = known.place.get(normalise(text))
        if place is None:
            rest.append(i)
        else:
            found[i] = Duplicate("exact", known.texts[place], np.float32(1))
    if rest:
        vector_ND = _unit(known.embed([texts[i] for i in rest]))
        nearest_N = known.index.search(vector_ND, 1)[1][:, 0]
        other_ND = known.index.reconstruct_batch(nearest_N)
        cosine_N = (vector_ND.astype(np.float64) * other_ND).sum(1).astype(np.float32)
        for i, nearest, cosine in zip(rest, nearest_N, cosine_N, strict=True):
            if cosine >= np.float32(threshold):
                found[i] = Duplicate("semantic", known.texts[nearest], cosine)
    return found


def extra(package: str) -> ModuleType:
    """A package of the extra `dedup`. Raises ValueError with the remedy if it is not installed."""
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise ValueError(f"{package} is not installed; pip install opd-replication[dedup]") from error


def _unit(vector_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    """The rows at length 1; a zero vector stays zero and is like nothing."""
    vector_ND = np.ascontiguousarray(vector_ND, dtype=np.float32)
    if not np.isfinite(vector_ND).all():
        raise ValueError("embed: a vector is not finite; take another model, or the question out")
    length_N1 = np.linalg.norm(vector_ND, axis=1, keepdims=True)
    return (vector_ND / np.where(length_N1 == 0, 1, length_N1)).astype(np.float32)
