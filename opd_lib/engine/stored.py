"""Stored responses: token ids on disk, in parts of one batch each, for fine-tuning on what a teacher once wrote.

A part is written whole or not at all and never changed, so a run that writes them resumes at the first missing part.
Token ids are stored, never text to be tokenised again: a response means what it meant to the model that wrote it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from opd_lib.engine.model import models
from opd_lib.params.spec import ROLLOUTS
from opd_lib.records import durable
from opd_lib.types import Prompt, Rollouts

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import PreTrainedTokenizerFast

    from opd_lib.params import RunSpec

Row = dict[str, Any]
FOLDER = ROLLOUTS
PROMPT = ("id", "source", "question", "rendered", "answer", "token_ids")
VOCABULARY = b"vocabulary"  # a part's metadata: the digest of the vocabulary its ids belong to


def part(folder: Path, batch: int) -> Path:
    """Where the part of a batch (from 1) stands."""
    return folder / f"part-{batch:06d}.parquet"


def rows(rollouts: Rollouts, texts: Sequence[str]) -> list[Row]:
    """Responses as rows of a part, in their order; `texts` are the same responses decoded, for human readers."""
    return [
        {name: getattr(prompt, name) for name in PROMPT}
        | {
            "response": text,
            "response_ids": rollouts.response_BT[row, : rollouts.length_B[row]].tolist(),
            "finished": bool(rollouts.finished_B[row]),
            "reward": float(rollouts.reward_B[row]),
        }
        for row, (prompt, text) in enumerate(zip(rollouts.prompts, texts, strict=True))
    ]


def write(folder: Path, batch: int, kept: Sequence[Row], tokenizer: PreTrainedTokenizerFast) -> None:
    """Write a batch's rows as one part. Raises ValueError if it cannot be written."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    target = part(folder, batch)
    table = pa.Table.from_pylist(list(kept), schema(vocabulary_digest(tokenizer)))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.new")
        pq.write_table(table, temporary)
        durable.replace(temporary, target)
    except OSError as error:
        raise ValueError(f"{target}: cannot be written ({error}); free the disk or choose another --results") from error


def schema(vocabulary: bytes) -> pa.Schema:
    """The columns of a part."""
    import pyarrow as pa

    ids = pa.list_(pa.int32())
    kinds = {name: pa.string() for name in PROMPT} | {"token_ids": ids, "response": pa.string(), "response_ids": ids}
    return pa.schema(kinds | {"finished": pa.bool_(), "reward": pa.float32()}, {VOCABULARY: vocabulary})


@contextmanager
def readable(place: Path, folder: Path) -> Iterator[None]:
    """Let what pyarrow says of a damaged file be a ValueError that names the place, and how to write it again."""
    import pyarrow as pa

    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{place}: not readable as parquet ({error}); {again(folder)}") from error


def again(folder: Path) -> str:
    """The remedy of damaged responses: the run that wrote them writes them once more."""
    return f"delete {folder.parent} and run the arm again that writes it"


class Stored:
    """The responses of a folder of parts in the order they were written; `parts`: how many there must be, if known.

    Raises ValueError for a folder without any, for a part that is missing among them, and for a damaged one.
    """

    def __init__(self, folder: Path, parts: int | None = None) -> None:
        import pyarrow.parquet as pq

        found = sorted(folder.glob("part-*.parquet"))
        whole = [part(folder, batch) for batch in range(1, (parts or len(found)) + 1)] if found else []
        if missing := [path for path in whole if path not in found]:
            raise ValueError(f"{missing[0]}: not there, and the responses are {len(whole)} parts; {again(folder)}")
        self._parts = []
        for path in found:
            with readable(path, folder):
                self._parts.append((path, int(pq.read_metadata(path).num_rows)))
        self.folder, self.n_rows = folder, sum(size for _, size in self._parts)
        if not self.n_rows:
            raise ValueError(f"{folder}: no stored responses; run the arm of probe kind rollouts that writes them")

    def take(self, wanted: Sequence[int], tokenizer: PreTrainedTokenizerFast) -> Rollouts:
        """The responses of these numbers, counted from 0; past the last they go on at the first again.

        Raises ValueError if their token ids belong to another vocabulary than the tokenizer's.
        """
        found = self._rows([number % self.n_rows for number in wanted], vocabulary_digest(tokenizer))
        prompts = [{name: row[name] for name in PROMPT} for row in found]
        return Rollouts(
            prompts=tuple(Prompt(**prompt | {"token_ids": tuple(prompt["token_ids"])}) for prompt in prompts),
            response_BT=models.pad_right([row["response_ids"] for row in found], tokenizer.pad_token_id),
            length_B=torch.tensor([len(row["response_ids"]) for row in found]),
            finished_B=torch.tensor([row["finished"] for row in found]),
            reward_B=torch.tensor([row["reward"] for row in found]),
        )

    def _rows(self, wanted: Sequence[int], vocabulary: bytes) -> list[Row]:
        import pyarrow.parquet as pq

        found: dict[int, Row] = {}
        begin = 0
        for path, size in self._parts:
            here = [number for number in set(wanted) if begin <= number < begin + size]
            if here:
                with readable(path, self.folder):
                    table = pq.read_table(path)
                if missing := set(table.schema.names) ^ set(schema(vocabulary).names):
                    raise ValueError(f"{path}: other columns ({', '.join(sorted(missing))}); {again(self.folder)}")
                if (table.schema.metadata or {}).get(VOCABULARY) != vocabulary:
                    raise ValueError(
                        f"{path}: its token ids belong to another vocabulary than the student's; write the rollouts "
                        "with a teacher of the student's tokenizer"
                    )
                found |= {number: table.slice(number - begin, 1).to_pylist()[0] for number in here}
            begin += size
        return [found[number] for number in wanted]


def vocabulary_digest(tokenizer: PreTrainedTokenizerFast) -> bytes:
    """Stands for the meaning of every token id."""
    pairs = sorted((index, word) for word, index in tokenizer.get_vocab().items())
    return models.digest(repr(pairs).encode()).encode()


def shelf(spec: RunSpec) -> Stored | None:
    """The responses that an earlier run has stored, None for a run that learns from others."""
    written = spec.parents.get("rollouts")
    if written is None:
        return None
    probe = written.params.probe
    return Stored(written.made(FOLDER) or written.folder / FOLDER, probe.batches if probe else None)
