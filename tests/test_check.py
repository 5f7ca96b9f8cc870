"""`opd check` of any pair: what it says before it loads, that it measures what people bring, and what it refuses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import real_tokens
import torch
from huggingface_hub.errors import DryRunError
from huggingface_hub.file_download import DryRunFileInfo
from safetensors.torch import load_file
from test_cli import opd
from test_prognosis import eleven
from transformers import AutoModelForCausalLM, AutoTokenizer

from opd_lib.engine import memory, pair_memory
from opd_lib.engine.model import held, hub, intake, models
from opd_lib.run import beforehand, check, talk

__all__ = ["eleven"]  # a fixture
COMMITTED = ("run:00_models/distill-small", "run:00_models/justrl-small")


def asked(
    eleven: Path, student: str | Path, teacher: str | Path, n_prompts: int = 2, **options: Any
) -> tuple[str, list[str]]:
    """What a check returns, and the lines it says before."""
    pair = check.Pair(student=str(student), teacher=str(teacher), results=eleven / "results", root=eleven / "params")
    said: list[str] = []
    return check.check(pair, n_prompts, say=said.append), said


PAIRS = {
    "gpt2, llama in bfloat16 with a padded head": (
        ("gpt2", {"width": 64}), ("llama", {"dtype": torch.bfloat16, "padding": 20}),
    ),
    "tied qwen3, gpt2": (("qwen3", {"tie_word_embeddings": True}), ("gpt2", {"width": 16})),
    "qwen2, larger qwen2": (("qwen2", {}), ("qwen2", {"width": 64})),
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_any_two_architectures_of_one_tokenizer_are_measured(name: str, eleven: Path, tmp_path: Path) -> None:
    tokens = real_tokens.tokenizer()
    places = [
        real_tokens.save(tmp_path / str(index), kind, tokens, **settings)  # type: ignore[arg-type]
        for index, (kind, settings) in enumerate(PAIRS[name])
    ]
    result = opd(eleven, "check", *map(str, places), "--prompts", "2")
    assert result.exit_code == 0, result.output
    rows = {line.split()[0]: line.split()[1] for line in result.stdout.splitlines() if len(line.split()) > 3}
    assert 0.0 < float(rows["overlap_k16"]) < 1.0 and float(rows["reverse_kl"]) > 0.0 and rows["start"] == "–"
    assert "attention_mask" not in result.output, "no warning of a library"
    for role, place in zip(("student", "teacher"), places, strict=True):
        weights = load_file(place / "model.safetensors")
        n = AutoModelForCausalLM.from_pretrained(place).num_parameters()
        kind = "BF16" if next(iter(weights.values())).dtype == torch.bfloat16 else "F32"
        (line,) = [line for line in result.stderr.splitlines() if line.startswith(f"{role}: reads {place}")]
        assert line.endswith(f"{n:,} parameters, stored in {kind}")


def test_before_anything_is_loaded_it_says_what_is_asked_and_needed(
    eleven: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = check.Pair(student=COMMITTED[0], teacher=COMMITTED[1])
    loaded: list[str] = []
    monkeypatch.setattr(check, "features", lambda *_: pytest.fail(f"loaded after {len(loaded)} lines"))
    with pytest.raises(pytest.fail.Exception, match="loaded after 4 lines"):
        check.check(pair, 3, say=loaded.append)
    student, teacher, asks, needs = loaded
    folder = check.locate(COMMITTED[0], pair)
    assert student.startswith(f"student ({COMMITTED[0]}): reads {folder}, 0.3 MiB of weights; 72,480 parameters")
    assert teacher.startswith(f"teacher ({COMMITTED[1]}): reads") and asks.startswith(
        "asks 3 prompts of chain (chain-a"
    )
    assert "12 responses of the student, of at most 64 tokens; and chain-3, chain-4, chain-5: 768 answers" in asks
    assert needs.startswith("computes in float32 and needs about") and "of cpu memory (student 0.3 MiB" in needs


def test_what_does_not_fit_is_refused_with_numbers_and_nothing_is_loaded(
    eleven: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = real_tokens.tokenizer()
    places = [str(real_tokens.save(tmp_path / kind, kind, tokens)) for kind in ("llama", "gpt2")]
    monkeypatch.setattr(models, "load", lambda *_: pytest.fail("weights are loaded"))
    monkeypatch.setattr(memory, "free", lambda machine: 2e6)
    result = opd(eleven, "check", *places, "--prompts", "8")
    assert result.exit_code == 1 and result.stderr.count("error: ") == 1
    assert "MiB of cpu memory (student 0." in result.stderr and "1.7 MiB are free; nothing was loaded" in result.stderr
    assert "smaller checkpoints" in result.stderr and "asks 8 prompts" in result.stderr
    monkeypatch.setattr(memory, "free", lambda machine: 12e6)
    result = opd(eleven, "check", *places, "--prompts", "64")
    assert "What helps: fewer prompts (--prompts, n_prompts): with one it needs" in result.stderr, result.stderr
    monkeypatch.setattr(memory, "free", lambda machine: 1e5)
    with pytest.raises(ValueError, match=r"llama: .* are free; nothing was loaded"):
        talk.meet(places[0], results=eleven / "results", root=eleven / "params")


def test_the_memory_grows_with_prompts_only_up_to_what_is_written_at_a_time(tmp_path: Path) -> None:
    settings = beforehand.here(check.common(check.params.load(check.NOTEBOOK).source))
    mine = held.look(str(real_tokens.save(tmp_path / "a", "llama")))
    few, more, most = (
        pair_memory.needed(settings, mine, mine, pair_memory.Work(rows=rows, prompt_tokens=30, new_tokens=64))
        for rows in (1, 100, 10**9)
    )
    assert few.cache < more.cache < most.cache <= settings.machine.sampler_cache_gib * 2**30
    assert most.sampler <= settings.machine.logits_gib * 2**30 and few.frozen == 0.0, "one checkpoint is held once"
    number = sum(tensor.numel() for tensor in load_file(tmp_path / "a" / "model.safetensors").values())
    assert few.weights == 4.0 * number and mine.numbers == {"F32": number}


def test_a_profile_for_gpus_is_measured_on_the_cpu_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = check.common(check.params.load(check.NOTEBOOK, "paper").source)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    machine = beforehand.here(asked).machine
    assert (asked.machine.device, machine.device, machine.processes) == ("cuda", "cpu", 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert beforehand.here(asked).machine.device == "cuda"


def test_two_vocabularies_are_one_error_before_weights_are_loaded(
    eleven: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "load", lambda *_: pytest.fail("weights are loaded"))
    one = real_tokens.save(tmp_path / "one", "llama")
    other = real_tokens.save(tmp_path / "other", "gpt2", real_tokens.tokenizer(text=["other words entirely", "0123"]))
    with pytest.raises(
        ValueError, match=r"teacher: its vocabulary is not the student's: id \d+ is .* needs one tokenizer"
    ):
        asked(eleven, one, other)


def test_one_vocabulary_split_in_two_ways_is_said_as_such(eleven: Path, tmp_path: Path) -> None:
    tokens = real_tokens.tokenizer()
    one = real_tokens.save(tmp_path / "one", "llama", tokens)
    tokens.backend_tokenizer.pre_tokenizer = real_tokens.pre_tokenizers.ByteLevel(add_prefix_space=True)
    other = real_tokens.save(tmp_path / "other", "llama", tokens)
    with pytest.raises(
        ValueError, match=r"splits the prompt 'system: T1.*' into other tokens than the student's, first"
    ):
        asked(eleven, one, other)


def test_what_a_tokenizer_lacks_is_lent_and_said(eleven: Path, tmp_path: Path) -> None:
    plain = real_tokens.save(tmp_path / "plain", "gpt2", real_tokens.tokenizer(chat=None))
    unpadded = real_tokens.save(tmp_path / "unpadded", "llama", real_tokens.tokenizer(pad=False))
    bare = real_tokens.save(tmp_path / "bare", "llama", real_tokens.tokenizer(chat=None, pad=False))
    _, said = asked(eleven, plain, unpadded)
    assert said[2:4] == [
        "teacher: its tokenizer has no pad_token; the end token stands for it",
        "student: its tokenizer has no chat_template; the other one's is taken",
    ]
    _, said = asked(eleven, bare, plain)
    assert "neither tokenizer has a chat_template; questions are put as plain text" in said
    assert AutoTokenizer.from_pretrained(bare).chat_template is None, "no file is changed"
    met = talk.meet(str(bare), results=eleven / "results", root=eleven / "params", max_new_tokens=4)
    assert len(met.answer("What is 4 + 5?")["tokens"]) <= 4


def test_padding_that_is_lent_changes_no_measurement(eleven: Path, tmp_path: Path) -> None:
    results = [
        asked(
            eleven,
            *(
                real_tokens.save(tmp_path / f"{pad}" / kind, kind, real_tokens.tokenizer(pad=pad))
                for kind in ("llama", "gpt2")
            ),
        )
        for pad in (True, False)
    ]
    assert results[0][0].split("\n\n", 1)[1] == results[1][0].split("\n\n", 1)[1]


def test_a_context_that_is_too_short_is_refused_before_weights_are_loaded(
    eleven: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "load", lambda *_: pytest.fail("weights are loaded"))
    short = real_tokens.save(tmp_path / "short", "llama", max_position_embeddings=24)
    with pytest.raises(ValueError, match=r"short: its context \(max_position_embeddings\) has 24 tokens"):
        asked(eleven, short, short)


def hub_file(name: str, size: int, waiting: bool) -> DryRunFileInfo:
    return DryRunFileInfo(
        commit_hash="0" * 40,
        file_size=size,
        filename=name,
        local_path=name,
        is_cached=not waiting,
        will_download=waiting,
    )


def test_of_a_hub_model_it_says_what_will_be_downloaded(
    eleven: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = real_tokens.save(tmp_path / "snapshot", "llama")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").unlink()
    fetched: list[bool] = []

    def download(name: str, revision: str | None, allow_patterns: list[str], dry_run: bool = False) -> Any:
        if dry_run:
            return [hub_file("config.json", 900, waiting=False), hub_file("model.safetensors", 3 * 2**30, waiting=True)]
        fetched.append(hub.WEIGHTS in allow_patterns)
        if fetched[-1]:
            (folder / "model.safetensors").write_bytes(whole)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    measured, said = asked(eleven, "org/model", "org/model")
    assert said[0].startswith(f"student (org/model): downloads 3.0 GiB to the hub's cache ({folder}); ")
    assert re.search(r"overlap_k16 +1\.000 ", measured) and fetched[0] is False and fetched[-1] is True
    monkeypatch.setattr(memory, "free", lambda machine: 1e5)
    fetched.clear()
    with pytest.raises(ValueError, match="nothing was loaded"):
        asked(eleven, "org/model", "org/model")
    assert fetched == [False], "no weights are downloaded for nothing"


def test_without_a_network_the_cache_is_all_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = real_tokens.save(tmp_path / "snapshot", "llama")

    def offline(*_: Any, dry_run: bool = False, **__: Any) -> str:
        if dry_run:
            raise DryRunError("no connection")
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    found = held.look("org/model")
    assert found.folder == folder and found.download == 0 and found.numbers
    assert hub.outstanding(folder) == 0 and intake.lend(found.tokenizer, found.tokenizer) == []
