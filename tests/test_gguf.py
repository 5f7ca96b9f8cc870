"""GGUF files: logits of the model that was written, the ends that the file names, faults in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from gguf import GGUFWriter, TokenType
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from opd_lib import names
from opd_lib.engine.model import gguf_files, held, intake, models
from opd_lib.params.schema.base import checkpoint

WORDS = ["<none>", "<start>", "<end>", *"abcdefghijklmnopqrstuvwxyz", "Ġ", "ab", "cd"]
TEMPLATE = "{% for message in messages %}<start>{{ message['content'] }}<end>{% endfor %}"
SHAPE = LlamaConfig(
    vocab_size=len(WORDS), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=1e-5, tie_word_embeddings=True,
    bos_token_id=1, eos_token_id=2,
)  # fmt: skip
NAMES = {
    "model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(SHAPE).eval()


def renamed(name: str) -> str:
    """A tensor's name in the file."""
    if name in NAMES:
        return NAMES[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{NAMES[rest.removesuffix('.weight')]}.weight"


def interleaved(weight: Tensor, heads: int) -> Tensor:
    """Rows of queries and keys as such files have them: the two halves of each rotation beside one another."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def write(path: Path, written: LlamaForCausalLM, kind: str = "llama") -> Path:
    """A GGUF file of a small Llama, in float32, whose end is `<end>`."""
    file = GGUFWriter(path, kind)
    file.add_block_count(SHAPE.num_hidden_layers)
    file.add_context_length(SHAPE.max_position_embeddings)
    file.add_embedding_length(SHAPE.hidden_size)
    file.add_feed_forward_length(SHAPE.intermediate_size)
    file.add_head_count(SHAPE.num_attention_heads)
    file.add_head_count_kv(SHAPE.num_key_value_heads)
    file.add_layer_norm_rms_eps(SHAPE.rms_norm_eps)
    file.add_rope_dimension_count(SHAPE.hidden_size // SHAPE.num_attention_heads)
    file.add_rope_freq_base(10000.0)
    file.add_vocab_size(len(WORDS))
    file.add_tokenizer_model("gpt2")
    file.add_token_list(WORDS)
    file.add_token_types([TokenType.CONTROL] * 3 + [TokenType.NORMAL] * (len(WORDS) - 3))
    file.add_token_merges(["a b", "c d"])  # one alone is read as no list
    file.add_unk_token_id(0)
    file.add_bos_token_id(1)
    file.add_eos_token_id(2)
    file.add_pad_token_id(2)
    file.add_chat_template(TEMPLATE)
    for name, weight in written.state_dict().items():
        if name == "lm_head.weight":  # tied
            continue
        heads = {"q_proj": SHAPE.num_attention_heads, "k_proj": SHAPE.num_key_value_heads}.get(name.split(".")[-2])
        file.add_tensor(renamed(name), (interleaved(weight, heads) if heads else weight).numpy())
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A GGUF file, and the folder of the checkpoint in it."""
    root = tmp_path_factory.mktemp("gguf")
    file = write(root / "small model.gguf", model())
    return file, gguf_files.folder(f"gguf:{file}", root / "written")


def test_the_logits_are_those_of_the_model_that_was_written(small: tuple[Path, Path]) -> None:
    _, folder = small
    read, tokenizer = models.load(folder)
    ids = torch.tensor([[1, 3, 9, 4, 27, 2]])
    with torch.no_grad():
        torch.testing.assert_close(read(ids).logits, model()(ids).logits)
    assert len(tokenizer) == read.config.vocab_size == len(WORDS)
    assert "quantization_config" not in read.config.to_dict()


def test_the_ends_are_those_that_the_file_names(small: tuple[Path, Path]) -> None:
    read, tokenizer = models.load(small[1])
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<start>", "<end>", "<end>")
    assert read.generation_config is not None and read.generation_config.eos_token_id == 2
    intake.require_prompting(tokenizer, "student")
    assert tokenizer("ab", add_special_tokens=False).input_ids == [WORDS.index("ab")]


def test_a_file_is_written_once_and_again_when_its_content_is_another(small: tuple[Path, Path], tmp_path: Path) -> None:
    file, folder = small
    assert folder.name.startswith("small-model-") and not list(folder.parent.glob(".*[0-9]"))
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert gguf_files.folder(f"gguf:{file}", folder.parent) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    other = model()
    with torch.no_grad():
        other.model.norm.weight.mul_(2)
    changed = write(tmp_path / file.name, other)
    assert gguf_files.folder(f"gguf:{changed}", folder.parent) != folder


def test_a_file_in_a_package_is_found_and_looked_at_before_it_is_loaded(
    small: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "carrier"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "small.gguf").write_bytes(small[0].read_bytes())
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(gguf_files, "PLACE", tmp_path / "written")
    found = held.look("gguf:carrier/small.gguf")
    assert found.download == 0 and found.parameters == sum(weight.numel() for weight in model().parameters())
    assert checkpoint("gguf:carrier/small.gguf") == "gguf:carrier/small.gguf"
    for wrong, said in (
        ("carrier/large.gguf", "package carrier has no file large.gguf; it has small.gguf"),
        ("carrier/../small.gguf", "package carrier has no file"),
        ("nothing_there/small.gguf", "no package nothing_there is installed"),
        ("nowhere.gguf", "no such file; write gguf:PATH, or gguf:PACKAGE/FILE"),
    ):
        with pytest.raises(ValueError, match=r"^cannot load a checkpoint from gguf:") as caught:
            gguf_files.located(f"gguf:{wrong}")
        assert said in str(caught.value)


@pytest.mark.parametrize(("content", "kind"), [("cut", "llama"), ("noise", "llama"), ("whole", "unheard-of")])
def test_what_is_no_such_file_is_one_line_and_leaves_nothing(
    small: tuple[Path, Path], tmp_path: Path, content: str, kind: str
) -> None:
    file = tmp_path / "wrong.gguf"
    if content == "whole":
        write(file, model(), kind)
    else:
        whole = small[0].read_bytes()
        file.write_bytes(whole[: len(whole) // 2] if content == "cut" else b"GGML" + whole[4:])
    with pytest.raises(ValueError, match=r"^cannot load a checkpoint from gguf:") as caught:
        gguf_files.folder(f"gguf:{file}", tmp_path / "written")
    assert "\n" not in str(caught.value) and gguf_files.REMEDY in str(caught.value)
    assert not [path for path in (tmp_path / "written").iterdir() if path.is_dir() and intake.CONFIG in path.name]


def test_no_profile_is_called_like_the_folder_of_these_checkpoints() -> None:
    with pytest.raises(ValueError, match="cannot be the name of a profile"):
        names.require("gguf", "profile")
