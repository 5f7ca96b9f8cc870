"""A checkpoint's files beside its weights: readable, of a model that is here as it is, and able to be asked.

Every fault is one ValueError that names the checkpoint, the file, what is wrong with it, and what to do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from huggingface_hub.errors import StrictDataclassError
from jinja2 import TemplateError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerFast

CONFIG, GENERATION, INDEX = "config.json", "generation_config.json", "model.safetensors.index.json"
MAPPINGS = (CONFIG, GENERATION, INDEX, "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
"""The files of a checkpoint that must be JSON mappings where they are there."""
TOKENIZERS = ("tokenizer.json", "vocab.json", "vocab.txt", "*.model", "*.tiktoken", "tekken.json")
FAILURES = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, MemoryError, OSError, RuntimeError,
    TypeError, ValueError, SafetensorError, StrictDataclassError, TemplateError,
)  # fmt: skip
"""What libraries raise for files that are not what they should be."""
TEMPLATE = "give its tokenizer the chat template of its family"
PLAIN = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
"""What puts a question to models that know no chat: its text on a line."""
LONGEST = 400  # characters of what a library says
AGAIN = "copy its files again, or write model and tokenizer with save_pretrained"
SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
MOST_LAYERS = 10_000
MARK = "marked"  # a word that a chat template must leave in what it renders


class Reading:
    """Inside the block whatever a library says against a file becomes one ValueError: where, what, and a remedy."""

    def __init__(self, where: str, remedy: str = AGAIN) -> None:
        self.where, self.remedy = where, remedy

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, FAILURES) or type(error) is Exception:  # tokenizers raises nothing more special
            raise ValueError(f"{self.where}: {one_line(error)}; {self.remedy}") from error


def one_line(error: BaseException) -> str:
    """What an error says, on one line."""
    text = " ".join(str(error).split())
    plain = isinstance(error, OSError | ValueError) or type(error) is Exception
    name = "" if plain and text else f"{type(error).__name__}: "
    return f"{name}{text if len(text) <= LONGEST else text[:LONGEST] + ' …'}".removesuffix(": ").rstrip(".")


def cannot_load(path: str | Path, what: str = "a checkpoint") -> str:
    """The beginning of every refusal."""
    return f"cannot load {what} from {path!s}"


def require_files(folder: Path, path: str | Path, what: str = "a checkpoint") -> None:
    """Raise ValueError for a file that is no JSON mapping, and for weights that are quantized or an adapter's."""
    where = cannot_load(path, what)
    if not (folder / CONFIG).is_file():
        raise ValueError(f"{where}: no {CONFIG} there; name the folder that save_pretrained wrote, with its files")
    for name in MAPPINGS:
        if (folder / name).is_file():
            mapping(folder / name, where)
    if (folder / "adapter_config.json").exists():
        raise ValueError(
            f"{where}: it holds an adapter (adapter_config.json), which would be left out; merge it into its base "
            "(merge_and_unload) and save that with save_pretrained"
        )
    settings = mapping(folder / CONFIG, where)
    for key in SIZES:
        value = settings.get(key, 1)
        if isinstance(value, str | float | None) or (isinstance(value, int) and value < 1):
            raise ValueError(f"{where}: {CONFIG}: {key}: {value!r}: a model has a whole number of these, at least 1")
        if key == "num_hidden_layers" and isinstance(value, int) and value > MOST_LAYERS:  # each is made one by one
            raise ValueError(f"{where}: {CONFIG}: {key}: {value}: no model has so many; copy the file again")
    if settings.get("quantization_config") is not None:
        raise ValueError(
            f"{where}: {CONFIG} has a quantization_config; give the checkpoint it was quantized from, in bfloat16 or "
            "float32"
        )


def mapping(file: Path, where: str) -> Mapping[str, Any]:
    """A JSON file's content. Raises ValueError unless it is a mapping."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise ValueError(f"{where}: {file.name} is damaged ({one_line(error)}); copy it again") from error
    if not isinstance(found, dict):
        raise ValueError(f"{where}: {file.name} holds a {type(found).__name__}, no mapping of keys; copy it again")
    return found


def tokenizer(folder: Path, path: str | Path) -> PreTrainedTokenizerFast:
    """A checkpoint's tokenizer. Raises ValueError unless it can be read and has tokens."""
    where = cannot_load(path, "a tokenizer")
    if not any(next(folder.glob(pattern), None) for pattern in TOKENIZERS):
        raise ValueError(f"{where}: no tokenizer there; copy tokenizer.json and tokenizer_config.json beside the model")
    with Reading(where):
        found = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        words = found.get_vocab()
    if not words:
        raise ValueError(f"{where}: it has no tokens; copy tokenizer.json again")
    return found


def require_prompting(tokenizer: PreTrainedTokenizerFast, role: str) -> None:
    """Raise ValueError unless a tokenizer can put a question, pad a batch and end a response."""
    place = f" ({tokenizer.name_or_path})" if tokenizer.name_or_path else ""
    for name in ("chat_template", "pad_token", "eos_token"):
        if not getattr(tokenizer, name):
            raise ValueError(f"{role}: its tokenizer has no {name}{place}; set one and save the checkpoint again")
    where = f"{role}{place}: its chat template"
    with Reading(f"{where} cannot put a question", TEMPLATE):
        chat = [{"role": "user", "content": MARK}]
        rendered = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    if MARK not in rendered:
        raise ValueError(f"{where} leaves out what the user says ({rendered[:80]!r}); {TEMPLATE}")
    with Reading(f"{role}{place}: its tokenizer cannot read {rendered[:80]!r}"):
        if not tokenizer([rendered], add_special_tokens=False).input_ids[0]:
            raise ValueError("it makes no tokens of it")


def lend(student: PreTrainedTokenizerFast, teacher: PreTrainedTokenizerFast) -> list[str]:
    """Give a pair what it lacks to be asked, in memory alone; returns what that was, a sentence each.

    A missing padding token is the end token: nobody reads padding. A missing chat template is the other's, or none.
    """
    notes = []
    pair = {"student": student, "teacher": teacher} if student is not teacher else {"student": student}
    for role, tokenizer in pair.items():
        if not tokenizer.pad_token and tokenizer.eos_token:
            tokenizer.pad_token = tokenizer.eos_token
            notes.append(f"{role}: its tokenizer has no pad_token; the end token stands for it")
    for role, tokenizer in pair.items():
        others = [other for name, other in pair.items() if name != role and other.chat_template]
        if not tokenizer.chat_template and others:
            tokenizer.chat_template = others[0].chat_template
            notes.append(f"{role}: its tokenizer has no chat_template; the other one's is taken")
    if not student.chat_template:
        student.chat_template = teacher.chat_template = PLAIN
        notes.append("neither tokenizer has a chat_template; questions are put as plain text")
    return notes


def ends(folder: Path, path: str | Path) -> tuple[int, ...]:
    """The end tokens that a checkpoint's settings name, for a model that is not loaded here."""
    where = cannot_load(path)
    source = folder / GENERATION if (folder / GENERATION).is_file() else folder / CONFIG
    named = mapping(source, where).get("eos_token_id")
    return end_ids(named, f"{where}: {source.name}")


def end_ids(named: object, where: str) -> tuple[int, ...]:
    """What is called eos_token_id somewhere, as a tuple. Raises ValueError unless it is an id, some ids or nothing."""
    found = [end for end in (named if isinstance(named, list) else [named]) if end is not None]
    ids = tuple(end for end in found if isinstance(end, int) and not isinstance(end, bool))
    if len(ids) < len(found):
        raise ValueError(f"{where}: eos_token_id: {named!r}: write an id, or a list of ids")
    return ids


def context(config: PretrainedConfig) -> int | None:
    """How many tokens a model can attend to, stretched positions (yarn and its like) included; None: not said."""
    text = config.get_text_config()
    stated = getattr(text, "max_position_embeddings", None)
    if not isinstance(stated, int):
        return None
    rope = getattr(text, "rope_parameters", None) or {}
    kinds = [rope, *(kind for kind in rope.values() if isinstance(kind, dict))]
    stretched = [
        int(kind["factor"] * (kind.get("original_max_position_embeddings") or stated))
        for kind in kinds
        if isinstance(kind.get("factor"), int | float)
    ]
    return max(stated, *stretched, 0)


def config(folder: Path, path: str | Path) -> PretrainedConfig:
    """A checkpoint's configuration, of a model whose weights are elsewhere."""
    with Reading(cannot_load(path)):
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
