"""Parameters that are refused, said to a reader of a notebook: what is wrong, without the library's inside."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape

from opd_lib.report.outputs import in_notebook, tell

HEADING = "Stopped here: a value is refused"
SEE_BOX = "Stopped: the box above says why. Change the cell `parameters`, run it and this one again."
STYLE = """<style>
.opd-refused { color-scheme: light; border-left: 4px solid light-dark(#b3341f, #f2937f); padding: .5em .9em; }
.opd-refused { color: light-dark(#3a1009, #fbe3dd); background: light-dark(#fdf1ee, #3a1b15); line-height: 1.45; }
@media (prefers-color-scheme: dark) { .opd-refused { color-scheme: dark; } }
[data-jp-theme-light="true"] .opd-refused, .vscode-light .opd-refused { color-scheme: light; }
[data-jp-theme-light="false"] .opd-refused, .vscode-dark .opd-refused { color-scheme: dark; }
.opd-refused p { margin: .3em 0; overflow-wrap: anywhere; }
</style>"""


class RefusedError(ValueError):
    """A ValueError whose message is all that a notebook shows of it."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in the place of a traceback: the message, or that it stands above for who sees the box."""
        return [SEE_BOX] if is_watched() else [f"ValueError: {self}"]


@contextmanager
def boxed() -> Iterator[None]:
    """In a notebook show the message of a ValueError in a box and stop the cell; elsewhere let the error through."""
    try:
        yield
    except ValueError as error:
        if not in_notebook():
            raise
        tell(f"{HEADING}\n{error}", box(str(error)))
        raise RefusedError(str(error)) from error


def box(message: str) -> str:
    """A message as HTML: a paragraph per line, where it is wrong (file or argument, key) in bold."""
    parts = (line.partition(": ") for line in message.splitlines())
    lines = "".join(f"<p><b>{escape(where + colon)}</b>{escape(what)}</p>" for where, colon, what in parts)
    return f'{STYLE}\n<div class="opd-refused" role="alert"><p>{HEADING}</p>{lines}</div>'


def is_watched() -> bool:
    """Whether someone reads what this notebook shows: programs that execute one, such as papermill, take no input."""
    shell = sys.modules["IPython"].get_ipython() if in_notebook() else None
    kernel = getattr(shell, "kernel", None)
    return shell is not None and (kernel is None or bool(getattr(kernel, "_allow_stdin", False)))
