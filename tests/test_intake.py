"""Damaged and mismatched checkpoints: each is one ValueError that names it, whoever reads it; nothing is computed."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import conftest
import huggingface_hub
import micro
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from opd_lib.command.cli import app
from opd_lib.engine import checkpoint, evaluate, sources, train
from opd_lib.engine.model import fresh, hub, intake, models, tensors
from opd_lib.engine.sampling import rollout
from opd_lib.forecast import hardware, shapes
from opd_lib.params.schema import Evaluate, NewModel
from opd_lib.run import check
from opd_lib.tasks import chain

SHAPE = NewModel.model_validate(conftest.RUN["student"] | {"initializer_range": 0.6})
TASK = chain.Params.model_validate(conftest.RUN["task"] | {"test_sets": ("chain-3",)})
CONFIG, WEIGHTS, TOKENIZER, TEMPLATE = "config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"
SETTINGS, GENERATION, INDEX = "tokenizer_config.json", "generation_config.json", "model.safetensors.index.json"
Damage = Callable[[Path], object]
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the tiny world, as `models.save` writes it."""
    folder = tmp_path_factory.mktemp("checkpoints") / "whole"
    models.save(models.new_model(SHAPE, 0), models.chain_tokenizer(), folder)
    return folder


def damaged(whole: Path, place: Path, damage: Damage) -> Path:
    """A copy of a checkpoint with one thing wrong."""
    shutil.copytree(whole, place)
    damage(place)
    return place


def keys(file: str, **changes: Any) -> Damage:
    """Other values in a JSON file; None removes a key's value, `...` the key."""

    def damage(folder: Path) -> None:
        content = json.loads((folder / file).read_text()) | changes
        (folder / file).write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))

    return damage


def text(file: str, content: str) -> Damage:
    return lambda folder: (folder / file).write_text(content)


def without(*files: str) -> Damage:
    return lambda folder: [(folder / file).unlink() for file in files]


def cut(size: int) -> Damage:
    return lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:size])


def changed(change: Callable[[Tensors], Tensors]) -> Damage:
    """Other tensors in the file of weights."""
    return lambda folder: save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS, metadata={"format": "pt"})


def prefixed(prefix: str) -> Damage:
    return changed(lambda found: {prefix + name: tensor for name, tensor in found.items()})


def lacking(*names: str) -> Damage:
    return changed(lambda found: {name: tensor for name, tensor in found.items() if name not in names})


def with_tensor(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Damage:
    return changed(lambda found: found | {name: change(found.get(name, torch.zeros(3)))})


def not_a_number(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.index_fill(0, torch.tensor([1]), torch.nan)


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


class Evil:
    """What a pickle may do."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("executed"),)


def evil(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))


def in_shards(change: Callable[[Path, dict[str, str]], object]) -> Damage:
    """The weights in two files and an index, then one thing wrong."""

    def damage(folder: Path) -> None:
        found = load_file(folder / WEIGHTS)
        (folder / WEIGHTS).unlink()
        files = {name: f"model-0000{1 + index % 2}-of-00002.safetensors" for index, name in enumerate(sorted(found))}
        for file in set(files.values()):
            part = {name: tensor for name, tensor in found.items() if files[name] == file}
            save_file(part, folder / file, metadata={"format": "pt"})
        (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": files}))
        change(folder, files)

    return damage


def vocabulary(change: Callable[[dict[str, int]], dict[str, int]]) -> Damage:
    """Another vocabulary in tokenizer.json."""

    def damage(folder: Path) -> None:
        content = json.loads((folder / TOKENIZER).read_text())
        content["model"]["vocab"] = change(content["model"]["vocab"])
        (folder / TOKENIZER).write_text(json.dumps(content))

    return damage


HEAD, NORM, QUERY = "lm_head.weight", "model.norm.weight", "model.layers.0.self_attn.q_proj.weight"
ASKED = "student .*: its chat template"
DAMAGED: dict[str, tuple[Damage, str]] = {
    # tensors that are not the model's
    "wrapped by DDP": (prefixed("module."), "14 missing: lm_head.weight, .*14 unexpected: module.lm_head.weight"),
    "wrapped by compile": (prefixed("_orig_mod."), "14 missing: .*14 unexpected: _orig_mod.lm_head.weight"),
    "wrapped by peft": (prefixed("base_model.model."), "14 unexpected: base_model.model.lm_head.weight"),
    "wrapped by a class": (prefixed("student."), "14 unexpected: student.lm_head.weight"),
    "another layer": (
        changed(lambda found: {name.replace("layers.0", "layers.7"): tensor for name, tensor in found.items()}),
        "11 missing: model.layers.0.*11 unexpected: model.layers.7",
    ),
    "lacks a norm": (lacking(NORM), f"1 missing: {NORM}"),
    "lacks the head": (lacking(HEAD), f"1 missing: {HEAD}"),
    "lacks a projection": (lacking(QUERY), f"1 missing: {QUERY}"),
    "has a value head": (with_tensor("v_head.weight", lambda made: made), "1 unexpected: v_head.weight"),
    "mis-sized": (with_tensor(NORM, lambda norm: norm[:3]), rf"1 mis-sized: {NORM} \(3,\) for \(16,\)"),
    "transposed": (with_tensor(HEAD, lambda head: head.T.contiguous()), "1 mis-sized: lm_head.weight"),
    "another model's": (changed(lambda _: {"x": torch.zeros(1)}), "the files hold 1 tensors"),
    "ties two": (keys(CONFIG, tie_word_embeddings=True), "ties the head to the embedding"),
    # numbers that are none
    "a NaN": (with_tensor(NORM, not_a_number), f"{NORM} not finite"),
    "infinite": (with_tensor(HEAD, lambda head: head / 0), f"{HEAD} not finite"),
    "integers": (with_tensor(HEAD, lambda head: head.to(torch.int32)), r"lm_head.weight \(I32\) stored as no floating"),
    "8 bits": (with_tensor(HEAD, lambda head: head.to(torch.float8_e4m3fn)), r"lm_head.weight \(F8_E4M3\)"),
    # files of weights
    "cut tail": (cut(-100), f"{WEIGHTS} is damaged"),
    "cut header": (cut(600), f"{WEIGHTS} is damaged"),
    "empty weights": (cut(0), f"{WEIGHTS} is damaged"),
    "an LFS pointer": (text(WEIGHTS, "version https://git-lfs.github.com/spec/v1\noid"), f"{WEIGHTS} is damaged"),
    "no weights": (without(WEIGHTS), "no weights; it needs model.safetensors"),
    "pickled": (pickled, r"pickled \(pytorch_model.bin\)"),
    "a pickle that runs": (evil, r"pickled \(pytorch_model.bin\)"),
    "a shard is missing": (in_shards(lambda folder, files: (folder / files[NORM]).unlink()), "No such file"),
    "no index": (in_shards(lambda folder, _: (folder / INDEX).write_text("{")), f"{INDEX} is damaged"),
    "an index of nothing": (in_shards(lambda folder, _: (folder / INDEX).write_text("[]")), "holds a list"),
    "an index without files": (in_shards(lambda folder, _: (folder / INDEX).write_text("{}")), "weight_map"),
    "an adapter": (text("adapter_config.json", "{}"), "it holds an adapter"),
    # the configuration
    "no config": (without(CONFIG), "no config.json"),
    "empty config": (text(CONFIG, ""), "config.json is damaged"),
    "half a config": (text(CONFIG, "{"), "config.json is damaged"),
    "config a list": (text(CONFIG, "[]"), "config.json holds a list"),
    "config null": (text(CONFIG, "null"), "config.json holds a NoneType"),
    "config of nothing": (text(CONFIG, "{}"), "model_type"),
    "unknown kind": (keys(CONFIG, model_type="nonsense"), "nonsense"),
    "kind a list": (keys(CONFIG, model_type=["qwen3"]), "unhashable"),
    "another kind": (keys(CONFIG, model_type="llama"), "2 unexpected: model.layers.0.self_attn.k_norm"),
    "no causal model": (keys(CONFIG, model_type="t5"), "Unrecognized configuration"),
    "hidden 0": (keys(CONFIG, hidden_size=0), "config.json: hidden_size: 0"),
    "hidden -1": (keys(CONFIG, hidden_size=-1), "config.json: hidden_size: -1"),
    "hidden 24": (keys(CONFIG, hidden_size=24), "12 mis-sized"),
    "hidden a text": (keys(CONFIG, hidden_size="16"), "config.json: hidden_size: '16'"),
    "hidden huge": (keys(CONFIG, hidden_size=10**9), "the files hold 14 tensors"),
    "layers huge": (keys(CONFIG, num_hidden_layers=10**9, layer_types=...), "num_hidden_layers: 1000000000: no model"),
    "layers 2": (keys(CONFIG, num_hidden_layers=2, layer_types=...), "11 missing: model.layers.1"),
    "heads 0": (keys(CONFIG, num_attention_heads=0), "config.json: num_attention_heads: 0"),
    "heads 3": (keys(CONFIG, num_attention_heads=3), "2 mis-sized: model.layers.0.self_attn"),
    "shared heads 0": (keys(CONFIG, num_key_value_heads=0), "ZeroDivisionError"),
    "head size 7": (keys(CONFIG, head_dim=7), "mis-sized: model.layers.0.self_attn"),
    "intermediate -5": (keys(CONFIG, intermediate_size=-5), "negative dimension"),
    "vocabulary 0": (keys(CONFIG, vocab_size=0), "config.json: vocab_size: 0"),
    "vocabulary 129": (keys(CONFIG, vocab_size=129), r"2 mis-sized: lm_head.weight \(128, 16\) for \(129, 16\)"),
    "vocabulary null": (keys(CONFIG, vocab_size=None), "config.json: vocab_size: None"),
    "unknown rope": (keys(CONFIG, rope_parameters={"rope_type": "nonsense"}), "nonsense"),
    "unknown activation": (keys(CONFIG, hidden_act="nonsense"), "nonsense"),
    "unknown type of numbers": (keys(CONFIG, dtype="nonsense"), "nonsense"),
    "attention not here": (keys(CONFIG, _attn_implementation="flash_attention_2"), "FlashAttention2"),
    "padding beyond": (keys(CONFIG, pad_token_id=999), "Padding_idx"),
    "quantized": (keys(CONFIG, quantization_config={"quant_method": "gptq", "bits": 4}), "quantization_config"),
    "generation empty": (text(GENERATION, ""), f"{GENERATION} is damaged"),
    "generation a list": (text(GENERATION, "[]"), f"{GENERATION} holds a list"),
    "ends in a text": (keys(GENERATION, eos_token_id="<eos>"), f"{GENERATION}: eos_token_id: '<eos>'"),
    # the tokenizer
    "no tokenizer": (without(TOKENIZER, SETTINGS, TEMPLATE), "no tokenizer there"),
    "empty tokenizer": (text(TOKENIZER, ""), f"{TOKENIZER} is damaged"),
    "tokenizer of nothing": (text(TOKENIZER, "{}"), "cannot load a tokenizer"),
    "tokenizer a list": (text(TOKENIZER, "[]"), f"{TOKENIZER} holds a list"),
    "half a tokenizer": (lambda folder: text(TOKENIZER, (folder / TOKENIZER).read_text()[:300])(folder), "is damaged"),
    "tokenizer without model": (keys(TOKENIZER, model=...), "cannot load a tokenizer from .*Model missing"),
    "tokenizer of an unknown kind": (keys(TOKENIZER, model={"type": "nonsense"}), "cannot load a tokenizer"),
    "more tokens": (vocabulary(lambda found: found | {"w99": 128}), "has 129 tokens .* its head 128 rows"),
    "a token far off": (vocabulary(lambda found: found | {"w63": 9999}), "largest id 9999"),
    "settings empty": (text(SETTINGS, ""), f"{SETTINGS} is damaged"),
    "settings a list": (text(SETTINGS, "[]"), f"{SETTINGS} holds a list"),
    "settings of an unknown class": (keys(SETTINGS, tokenizer_class=3), "cannot load a tokenizer"),
    "no pad token": (keys(SETTINGS, pad_token=...), "its tokenizer has no pad_token"),
    "pad token null": (keys(SETTINGS, pad_token=None), "its tokenizer has no pad_token"),
    "pad token a number": (keys(SETTINGS, pad_token=3), "pad_token"),
    "no end token": (keys(SETTINGS, eos_token=None), "its tokenizer has no eos_token"),
    # the chat template
    "no template": (without(TEMPLATE), "its tokenizer has no chat_template"),
    "template broken": (text(TEMPLATE, "{% for m in messages %}"), f"{ASKED} cannot put .*Unexpected end of template"),
    "template unsafe": (text(TEMPLATE, "{{ messages.__class__.__mro__ }}"), f"{ASKED} cannot put .*is unsafe"),
    "template runs": (text(TEMPLATE, "{{ cycler.__init__.__globals__.os.system('id') }}"), "is unsafe"),
    "template reads files": (text(TEMPLATE, "{% include '/etc/hosts' %}"), f"{ASKED} cannot put"),
    "template of others": (text(TEMPLATE, "{{ tools.search.name }}"), f"{ASKED} cannot put"),
    "template refuses": (text(TEMPLATE, "{{ raise_exception('no users') }}"), f"{ASKED} cannot put .*no users"),
    "template without end": (text(TEMPLATE, "{% for i in range(10**9) %}x{% endfor %}"), f"{ASKED} cannot put"),
    "template deaf": (text(TEMPLATE, "hello"), f"{ASKED} leaves out what the user says"),
    "template no text": (lambda folder: (folder / TEMPLATE).write_bytes(b"\xff\xfe"), "cannot load a tokenizer"),
}  # fmt: skip


def taken(folder: str | Path) -> sources.Model:
    """A checkpoint as runs and `opd check` take it in."""
    found = models.load(folder)
    intake.require_prompting(found[1], "student")
    return found


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_checkpoint_is_one_error_that_names_it(
    name: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage, said = DAMAGED[name]
    folder = damaged(whole, tmp_path / "copy", damage)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=said) as caught:
        taken(folder)
    assert str(folder) in str(caught.value) and len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "executed").exists()


SOUND: dict[str, Damage] = {
    "as it is": lambda folder: None,
    "without the base model's prefix": changed(
        lambda found: {name.removeprefix("model."): tensor for name, tensor in found.items()}
    ),
    "in shards": in_shards(lambda folder, files: None),
    "code beside it that nobody runs": keys(CONFIG, auto_map={"AutoModelForCausalLM": "evil.Model"}),
    "old positions": with_tensor("model.layers.0.self_attn.rotary_emb.inv_freq", lambda made: made),
    "no generation settings": without(GENERATION),
}


@pytest.mark.parametrize("name", SOUND)
def test_what_is_whole_is_loaded_as_it_was(name: str, whole: Path, tmp_path: Path) -> None:
    model, _ = taken(damaged(whole, tmp_path / "copy", SOUND[name]))
    assert models.weights_digest(model) == models.weights_digest(models.new_model(SHAPE, 0))


def test_a_tied_head_need_not_be_there(whole: Path, tmp_path: Path) -> None:
    def tie(folder: Path) -> None:
        lacking(HEAD)(folder)
        keys(CONFIG, tie_word_embeddings=True)(folder)

    model, _ = taken(damaged(whole, tmp_path / "copy", tie))
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    embedding = model.get_input_embeddings().weight.detach().clone()
    both = damaged(tmp_path / "copy", tmp_path / "both", with_tensor(HEAD, lambda _: embedding))
    assert models.weights_digest(taken(both)[0]) == models.weights_digest(model)
    neither = damaged(tmp_path / "copy", tmp_path / "neither", lacking("model.embed_tokens.weight"))
    with pytest.raises(ValueError, match=r"2 missing: lm_head.weight, model.embed_tokens.weight|1 missing: "):
        taken(neither)


def test_a_hub_model_is_named_as_it_was_asked_for(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = damaged(whole, tmp_path / "snapshot", prefixed("module."))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(folder))
    with pytest.raises(ValueError, match=r"cannot load a checkpoint from org/model@abc: .*14 unexpected: module\."):
        models.load("org/model@abc")
    assert hub.fetch("org/model") == folder


@pytest.mark.parametrize("name", ["config a list", "empty tokenizer", "hidden 0", "ends in a text"])
def test_a_served_teachers_files_are_read_as_strictly(name: str, whole: Path, tmp_path: Path) -> None:
    folder = damaged(whole, tmp_path / "copy", DAMAGED[name][0])
    with pytest.raises(ValueError, match=str(folder)):
        models.stated_stop_ids(folder, models.load_tokenizer(folder)[0])


@pytest.fixture
def asked(world: Path, whole: Path) -> Path:
    """The world with runs of checkpoints in folders: `as-it-is` evaluates, `distil` has a teacher, `two` has three."""
    for name in ("student", "teacher", "other"):
        models.save(models.new_model(SHAPE, len(name)), models.chain_tokenizer(), world / name)
    at = {name: str(world / name) for name in ("student", "teacher", "other")}
    micro.change_arm(world, micro.OPD, "as-it-is", {"student": at["student"], "teacher": None, "train.steps": 0,
                                                    "method": {"name": "sft"}})  # fmt: skip
    both = {"student": at["student"], "teacher": at["teacher"]}
    micro.change_arm(world, micro.OPD, "distil", both | {"train.steps": 1})
    micro.change_arm(
        world, micro.OPD, "two", both | {"probe": {"kind": "teachers", "batches": 1, "other": at["other"]}}
    )
    return world


ROLES = [("student", "as-it-is"), ("student", "distil"), ("teacher", "distil"), ("other", "two")]
KINDS = ["wrapped by DDP", "lacks a norm", "a NaN", "no pad token", "template unsafe", "hidden 0"]


@pytest.mark.parametrize(("role", "arm"), ROLES)
def test_every_role_of_a_run_refuses_and_leaves_nothing_computed(asked: Path, role: str, arm: str) -> None:
    for kind in KINDS:
        backup = damaged(asked / role, asked / "backup", lambda folder: None)
        DAMAGED[kind][0](asked / role)
        spec = micro.load(asked, micro.OPD).spec(arm, 0)
        with pytest.raises(ValueError, match=str(asked / role)):
            train.train(spec)
        assert not (spec.folder / "evals.csv").exists() and not spec.model_folder.exists(), kind
        shutil.rmtree(asked / role)
        backup.rename(asked / role)
    assert train.train(micro.load(asked, micro.OPD).spec(arm, 0)).status == "finished"


def opd(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "no pad token"])  # which a pair is lent
@pytest.mark.parametrize("role", ["student", "teacher"])
def test_check_says_it_in_one_message(asked: Path, role: str, kind: str) -> None:
    content = json.loads(json.dumps(conftest.RUN | {"method": conftest.OPD, "student": "a", "teacher": "b"}))
    conftest_file = asked / "params" / "tiny" / f"{check.NOTEBOOK}.yaml"
    conftest_file.write_text(json.dumps(content | {"arms": {"one": {}}}))
    DAMAGED[kind][0](asked / role)
    places = [str(asked / name) for name in ("student", "teacher")]
    found = opd("check", *places, "--prompts", "1", "--params", str(asked / "params"), "--results", str(asked / "r"))
    assert found.exit_code == 1 and "Traceback" not in found.output
    assert str(asked / role) in found.stderr and "error: " in found.stderr


def test_a_shape_that_cannot_be_read_names_its_file(tmp_path: Path) -> None:
    good = {"model_type": "qwen3", "vocab_size": 8} | dict.fromkeys(
        ("hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads", "num_key_value_heads"), 2
    )
    file = tmp_path / CONFIG
    file.write_text(json.dumps(good))
    assert hardware.shape_in(file) == shapes.shape(good)
    wrong = [[], None, {"model_type": "bert"}, good | {"hidden_size": None}, good | {"num_attention_heads": 0}]
    for content in (*wrong, good | {"num_hidden_layers": -1}, {key: good[key] for key in list(good)[:3]}):
        file.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=str(file)):
            hardware.shape_in(file)


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path, asked: Path) -> None:
    model, tokenizer = models.new_model(SHAPE, 0), models.chain_tokenizer()
    models.save(model, tokenizer, tmp_path / "model")
    before = (tmp_path / "model" / WEIGHTS).read_bytes()
    with torch.no_grad():
        model.model.norm.weight[0] = torch.inf
    with pytest.raises(ValueError, match=r"model: not saved: model.norm.weight not finite"):
        models.save(model, tokenizer, tmp_path / "model")
    assert (tmp_path / "model" / WEIGHTS).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".model")] == []


def test_a_run_whose_weights_overflow_stops_and_keeps_its_last_checkpoint(
    asked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    micro.change_arm(asked, micro.OPD, "distil", {"train.steps": 4, "train.checkpoint_every": 1, "evaluate.every": 4})
    spec, original = micro.load(asked, micro.OPD).spec("distil", 0), checkpoint.write

    def overflow(run: Any, step: int) -> None:
        if step == 3:
            with torch.no_grad():
                next(run.student[0].parameters()).fill_(torch.nan)
        original(run, step)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write", overflow)
        with pytest.raises(ValueError, match=r"step 3 is not saved: model.embed_tokens.weight not finite"):
            train.train(spec)
    assert torch.load(spec.folder / checkpoint.FILE, weights_only=True)["step"] == 2
    assert train.train(spec).status == "finished"


@pytest.mark.parametrize(
    "changes", [{"rms_norm_eps": -1.0}, {"rope_parameters": {"rope_type": "default", "rope_theta": 0.0}}]
)
def test_logits_that_are_not_finite_are_never_sampled_from_or_evaluated(
    whole: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    model, tokenizer = taken(damaged(whole, tmp_path / "copy", keys(CONFIG, **changes)))
    settings = Evaluate.model_validate(conftest.RUN["evaluate"] | {"caps": ()})
    with pytest.raises(ValueError, match="copy: its logits are not finite"):
        evaluate.evaluate(model, tokenizer, TASK, settings, seed=0, step=0)


def test_new_weights_are_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    model = models.new_model(SHAPE, 0)

    def overflowing(*_: Any) -> Any:
        model.get_output_embeddings().weight.data.fill_(torch.inf)
        return model

    monkeypatch.setattr(models, "new_model", overflowing)
    with pytest.raises(ValueError, match=r"student.initializer_range.*lm_head.weight not finite"):
        fresh.make(SHAPE, TASK, 0)


def test_a_context_is_as_long_as_its_positions_are_stretched() -> None:
    config = models.new_model(SHAPE, 0).config
    assert intake.context(config) == 128
    config.rope_parameters = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}
    assert intake.context(config) == 512
    config.rope_parameters |= {"original_max_position_embeddings": 16}
    assert intake.context(config) == 128


def test_nobody_reads_beyond_the_context(whole: Path, tmp_path: Path) -> None:
    model, tokenizer = taken(damaged(whole, tmp_path / "copy", keys(CONFIG, max_position_embeddings=24)))
    questions = chain.held_out_questions("chain-3", 2)
    prompts = sources.make_prompts(tokenizer, TASK, questions, ["T1"] * 2, "test")
    room = 24 - len(prompts[0].token_ids)
    assert rollout.sample(model, tokenizer, prompts, torch.rand(2, room), 1.0, 1.0).length_B.max() <= room
    with pytest.raises(ValueError, match=r"copy: its context .* has 24 tokens, .* may have 25 together"):
        rollout.sample(model, tokenizer, prompts, torch.rand(2, room + 1), 1.0, 1.0)
    tensors.require_finite(model.state_dict().items(), "copy")
