"""What can be seen of a file without knowing what it should say: a pointer of Git LFS, an unfinished merge, a cut line.

Each is said in the same words wherever a file is read, to stand after "it".
"""

from __future__ import annotations

import re

NEWLINE = b"\n"
LFS = b"version https://git-lfs"
CONFLICT = re.compile(rb"^(<{7}|={7}|>{7}|\|{7})( |\r?$)", re.MULTILINE)


def foreign(found: bytes) -> str:
    """What else than a file of ours these bytes are, and what to do: git's pointers and markers; empty if neither."""
    if found.startswith(LFS):
        return "is a git-LFS pointer and not the file itself: `git lfs pull` fetches that"
    if conflict := CONFLICT.search(found):
        line = found.count(NEWLINE, 0, conflict.start()) + 1
        return f"holds git's conflict markers (line {line}): `git checkout --ours` or `--theirs` takes one side"
    return ""


def unended(found: bytes) -> str:
    """Where a file of lines ends within one; empty if it ends in a line break, or is empty."""
    if not found or found.endswith(NEWLINE):
        return ""
    return f"is cut off in line {found.count(NEWLINE) + 1} (no line break at its end)"
