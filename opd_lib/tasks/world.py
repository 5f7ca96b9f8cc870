"""What a world of words is: the tokens of models that are trained from nothing, and how a chat is written in them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A word's token id is its place in `words`, to which `pad`, `bos`, `eos` and `unknown` belong."""

    words: tuple[str, ...]
    pad: str
    bos: str
    eos: str
    unknown: str
    chat_template: str
    templates: tuple[str, ...]
    """The words that a question may be put behind."""
