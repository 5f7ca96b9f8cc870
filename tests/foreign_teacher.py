"""A teacher with a tokenizer of its own, which has learned nothing and yet is no uniform guess."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Regex, Tokenizer, pre_tokenizers
from tokenizers import models as kinds
from transformers import PreTrainedTokenizerFast

from opd_lib.engine.model import models
from opd_lib.params.schema import NewModel
from opd_lib.tasks import chain

SHAPE = NewModel(layers=1, hidden=16, heads=2, context=128, rope_theta=100.0, initializer_range=0.6)


def tokenizer() -> PreTrainedTokenizerFast:
    """Words, but "= 3" is one token, "w07" two ("w0", "7"); the words in another order; no <reserved0>, no w9x."""
    words = [word for word in reversed(chain.VOCABULARY) if not word.startswith("<reserved0")]
    words = [word for word in words if word not in chain.FILLERS]
    merged = [f"= {digit}" for digit in chain.DIGITS]
    halves = [f"w{digit}" for digit in range(6)]  # of w60 to w63 there is nothing
    vocabulary = {word: index for index, word in enumerate([*merged, *words, *halves])}
    words_and_halves = Tokenizer(kinds.WordLevel(vocabulary, unk_token=chain.UNKNOWN))
    words_and_halves.pre_tokenizer = pre_tokenizers.Split(Regex(r"= \d|w\d(?=\d)|\S+?(?=\s|$)"), "removed", invert=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=words_and_halves,
        pad_token=chain.PAD,
        bos_token=chain.BOS,
        eos_token=chain.EOS,
        unk_token=chain.UNKNOWN,
        chat_template=chain.CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def save(folder: Path) -> Path:
    """Write the checkpoint."""
    mine = tokenizer()
    models.save(models.new_model(SHAPE, 3, mine), mine, folder)
    return folder
