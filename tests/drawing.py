"""Whether this machine draws with the program that drew what is committed."""

from __future__ import annotations

import platform
import re
from importlib import metadata
from pathlib import Path

TESTED = Path(__file__).resolve().parents[1] / "requirements" / "tested.txt"


def same_program() -> bool:
    """True where equal figures are equal bytes: the pinned matplotlib on Linux, x86-64."""
    pinned = re.search(r"^matplotlib==(\S+)", TESTED.read_text(), re.MULTILINE)
    assert pinned, f"{TESTED} pins no matplotlib"
    same_machine = (platform.system(), platform.machine()) == ("Linux", "x86_64")
    return same_machine and metadata.version("matplotlib") == pinned[1]
