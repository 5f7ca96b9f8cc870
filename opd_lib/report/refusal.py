"""What this library refuses, said to a reader of a notebook: one box with what is wrong, without the library's inside.

It holds for every cell of a kernel that has imported `opd_lib.report`, whichever function refuses. Errors of the
reader's own code, and any that is not a plain ValueError of this library, keep their traceback.
"""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path
from types import TracebackType
from typing import Any

from opd_lib.report.outputs import in_notebook, tell

LIBRARY = str(Path(__file__).resolve().parents[1])
HEADING = "Stopped here"
SEE_BOX = (
    "Stopped: the box above says why. Change that (parameters stand in the cell `parameters`), run all from there."
)
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


def install() -> None:
    """From now on let a notebook's kernel show refusals so; elsewhere, or where it has a handler already, nothing."""
    shell = sys.modules["IPython"].get_ipython() if in_notebook() else None
    if shell is not None and not shell.custom_exceptions:
        shell.set_custom_exc((ValueError,), show)


def show(
    shell: Any,
    kind: type[BaseException],
    error: BaseException,
    trace: TracebackType | None,
    tb_offset: int | None = None,
) -> None:
    """Show a refusal in a box, and any other error as IPython does."""
    if not is_refusal(error, trace):
        shell.showtraceback((kind, error, trace), tb_offset=tb_offset, running_compiled_code=True)
        return
    tell(f"{HEADING}\n{error}", box(str(error)))
    shell.showtraceback((RefusedError, RefusedError(str(error)), trace))


def is_refusal(error: BaseException, trace: TracebackType | None) -> bool:
    """Whether a function of this library raised a plain ValueError, with a reason of its own."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return type(error) is ValueError and trace is not None and trace.tb_frame.f_code.co_filename.startswith(LIBRARY)


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
