"""Folders that are about to be written into: made and tried first, and one line says what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

PAGE = 4096
"""Bytes that there must be room for."""


def prepare(folder: Path) -> None:
    """Make a folder. Raises ValueError if it cannot be made or written into, or if its disk is full."""
    with writing(folder), TemporaryFile(dir=folder) as page:
        page.write(bytes(PAGE))


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Inside the block, which finds the folder there, an OSError is a ValueError that names it and what to do."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise ValueError(
            f"{folder}: cannot be written ({error}); make room, or choose another results folder"
        ) from error
