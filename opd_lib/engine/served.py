"""A teacher behind a vLLM server: how likely it finds the tokens of a response, and what it would rather have said.

    vllm serve CHECKPOINT --max-logprobs 20 --host ADDRESS    the teacher's, where there is room; 127.0.0.1 if here
    machine.teacher_url: http://ADDRESS:8000                  one that only your machines reach: it asks no password

Prompt and response are sent as token ids to the server's /v1/completions; for every token of them come back its
log-probability and the k most likely tokens in its place (nats, at temperature 1). Scores at tokens of our choice
cannot be asked for: the teacher's entropy and objectives on the student's top-k need the teacher in this process.

Differs from a teacher in this process: precision and kernels are the server's, and rows of its head that stand for no
token are part of its softmax (a checkpoint's padding, cut off in process): they are left out of the lists only.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from opd_lib.engine.vllm_server import LONGER, request

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerFast

REQUEST_TOKENS = 32_768  # of prompts and responses in one request: the answer has about 80 bytes per token and entry
SPARE = 4  # entries asked for beyond k where some of them may stand for no token
CLAMPED = -9999.0  # what vLLM sends in the place of −inf
ROUNDING = 1e-3  # how far rounding may take probabilities beyond 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """A model as it is served. `vocabulary`: its tokenizer's tokens; `padding`: rows of its head that stand for none.

    `longest`: tokens that prompt and response may have together, with one more that vLLM insists on sampling.
    """

    url: str
    name: str
    longest: int
    vocabulary: int
    padding: int

    def score(
        self, token_id_rows: Sequence[Sequence[int]], response_lengths: Sequence[int], k: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """teacher_logp_N, top_id_NK and top_logp_NK at the last `response_lengths` tokens of each row, packed.

        Lists are in order, the most likely token first. Raises ValueError if the server cannot be reached, refuses, or
        says what no log-probabilities can be.
        """
        self.require_room(max(map(len, token_id_rows), default=0))
        logps: list[float] = []
        ids: list[list[int]] = []
        tops: list[list[float]] = []
        lengths = iter(response_lengths)
        for part in in_requests(token_id_rows):
            for row, entries in zip(part, self._entries(part, k), strict=True):
                begin = len(row) - next(lengths)
                for token, entry in zip(row[begin:], entries[begin:], strict=True):
                    logps.append(_number(entry[str(token)]["logprob"]))
                    best = self._best(entry, k)
                    ids.append([index for _, index, _ in best])
                    tops.append([_number(logp) for _, _, logp in best])
        logp_N, size = torch.tensor(logps, dtype=torch.float64), (len(logps), k)
        top_logp_NK = torch.tensor(tops, dtype=torch.float64).view(size)
        self._require_logps(logp_N, top_logp_NK)
        return logp_N, torch.tensor(ids).long().view(size), top_logp_NK

    def require_room(self, length: int) -> None:
        """Raise ValueError if the server takes no rows of so many tokens."""
        if length + 1 > self.longest:
            raise ValueError(
                f"machine.teacher_url: prompt and response may have {length} tokens, and the server at {self.url} has "
                f"room for {self.longest} with one more; {LONGER}"
            )

    def self_test(self, tokenizer: PreTrainedTokenizerFast, token_ids: Sequence[int], k: int) -> dict[str, Any]:
        """Does the server answer as it will be asked, and mean the teacher's words by its tokens?

        What it says is for the run's record. Raises ValueError as `score` does, and if a token is another word.
        """
        row = [*token_ids, self.vocabulary - 1]
        (entries,) = self._entries([row], k)
        words = {int(index): scored.get("decoded_token") for entry in entries[1:] for index, scored in entry.items()}
        for index, word in words.items():
            ours = tokenizer.decode([index]) if index < self.vocabulary else ""
            whole = "\ufffd" not in ours  # bytes that are no character by themselves are decoded in their context
            if ours and whole and word and word not in (ours, f"token_id:{index}"):
                raise ValueError(
                    f"machine.teacher_url: token {index} is {ours!r} for the teacher and {word!r} for the server at "
                    f"{self.url}; serve the teacher's own checkpoint with its own tokenizer"
                )
        logp_N, _, _ = self.score([row], [len(row) - 1], k)
        return {"teacher_served_as": self.name, "teacher_prompt_logp": float(logp_N[:-1].mean())}

    def _n_entries(self, k: int) -> int:
        """How many entries to ask for, of which k stand for a token."""
        return k + min(SPARE, self.padding) * bool(k)

    def _entries(self, rows: Sequence[Sequence[int]], k: int) -> list[list[dict[str, Any]]]:
        """Of each row, what the server says in the place of each token: token id → rank and log-probability."""
        body = {"model": self.name, "prompt": list(map(list, rows)), "max_tokens": 1, "temperature": 0.0}
        answer = request(f"{self.url}/v1/completions", body | {"prompt_logprobs": self._n_entries(k)})
        choices = sorted(answer.get("choices") or [], key=lambda choice: int(choice["index"]))
        found = [choice.get("prompt_logprobs") or [] for choice in choices]
        if len(found) != len(rows) or not all(map(is_complete, rows, found)):
            raise ValueError(
                f"machine.teacher_url: {self.url} answers without prompt_logprobs for every token; it must be vLLM's "
                "own OpenAI-compatible server (`vllm serve`): others take the request and leave them out"
            )
        return found

    def _best(self, entry: dict[str, Any], k: int) -> list[tuple[int, int, float]]:
        """The k most likely tokens: rank (from 1), id, log-probability."""
        listed = [(scored["rank"], int(index), scored["logprob"]) for index, scored in entry.items()]
        best = sorted(each for each in listed if each[0] <= self._n_entries(k) and each[1] < self.vocabulary)[:k]
        if len(best) < k:
            raise ValueError(
                f"machine.teacher_url: of the {k} most likely tokens of {self.name} only {len(best)} stand for one of "
                f"the tokenizer's {self.vocabulary}; serve a checkpoint whose head is cut to its tokenizer"
            )
        return best

    def _require_logps(self, logp_N: Tensor, top_logp_NK: Tensor) -> None:
        values = torch.cat([logp_N, top_logp_NK.flatten()])
        if not bool((values > CLAMPED).all()):
            raise ValueError(
                f"machine.teacher_url: {self.url} sends log-probabilities that are NaN or −inf, which would end in the "
                f"weights; {self.name} rules tokens out or has lost its weights: serve it again, in bfloat16 or float32"
            )
        if bool((values > ROUNDING).any()) or bool((top_logp_NK.exp().sum(1) > 1 + ROUNDING).any()):
            raise ValueError(
                f"machine.teacher_url: {self.url} sends no log-probabilities: some are positive, or add up to more "
                "than a probability of 1; start the server with --logprobs-mode raw_logprobs, which is its default"
            )


def connect(url: str, place: str, tokens: int, rows: int) -> Teacher:
    """The teacher that a server must have, under its hub name, its folder, or that as --served-model-name.

    `place` is its checkpoint, `tokens` the length of its tokenizer, `rows` that of its head. Raises ValueError, with
    what the server has, if it is another model.
    """
    root = url.rstrip("/").removesuffix("/v1")
    cards = request(f"{root}/v1/models").get("data") or []
    for card in cards:
        if any(is_checkpoint(card.get(key), place) for key in ("id", "root")):
            longest = card.get("max_model_len") or sys.maxsize
            return Teacher(url=root, name=card["id"], longest=longest, vocabulary=tokens, padding=rows - tokens)
    has = ", ".join(str(card.get("id")) for card in cards) or "no model"
    raise ValueError(
        f"machine.teacher_url: the server at {root} has {has}, and the teacher is {place}; start it with that, or with "
        f"--served-model-name {place} where the same checkpoint has another name"
    )


def is_checkpoint(name: str | None, place: str) -> bool:
    """Whether a server's name for a model is a checkpoint's: a hub name, with or without revision, or a folder."""
    if not name or name in (place, place.partition("@")[0]):
        return bool(name)
    return Path(place).is_dir() and Path(name).resolve() == Path(place).resolve()


def is_complete(row: Sequence[int], entries: Sequence[dict[str, Any] | None]) -> bool:
    """Whether there is an entry for every token of a row, with that token in it; the first follows nothing."""
    pairs = zip(row[1:], entries[1:], strict=False)
    return len(entries) == len(row) and all(str(token) in (entry or {}) for token, entry in pairs)


def in_requests(rows: Sequence[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
    """The rows in their order, REQUEST_TOKENS at a time, or a single row."""
    part: list[Sequence[int]] = []
    for row in rows:
        if part and sum(map(len, part)) + len(row) > REQUEST_TOKENS:
            yield part
            part = []
        part.append(row)
    if part:
        yield part


def _number(value: float | None) -> float:
    return math.nan if value is None else value
