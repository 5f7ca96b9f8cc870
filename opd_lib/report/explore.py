"""The token explorer: kept responses as text, each token coloured by what two models say of it, on one page.

`tokens(records)` gives an object that JupyterLab, nbconvert and the site show: the same JavaScript module
(`explore.js`) with the chosen responses beside it, complete in itself, no server and no network. `.widget()` is the
same as an anywidget, which tells Python which token is selected. Only records are read (`tokens.jsonl`).
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from opd_lib.records.record import RunRecord, write_atomically
from opd_lib.report import embedded, token_quantities
from opd_lib.report.token_quantities import DEFAULT

MODULE = Path(__file__).with_suffix(".js")
STEPS = 9
"""How many steps are embedded unless others are asked for, evenly spread, first and last among them."""
NONE_KEPT = (
    "No responses to show: these runs kept none token by token (no tokens.jsonl). Runs that have a teacher keep them "
    "unless machine.kept_problems is 0; of the committed results, seed 0 has them."
)
WITHOUT_SCRIPTS = "Trust the notebook, or run this cell, to explore token by token."


@dataclass(frozen=True)
class Explorer:
    """Responses of some runs, ready to be shown. `content` is all that is embedded; no run in it: a message instead."""

    content: dict[str, Any]

    @cached_property
    def payload(self) -> str:
        """The content as the JavaScript module takes it: JSON, deflated, base64."""
        return base64.b64encode(zlib.compress(self._json().encode(), 9)).decode()

    @property
    def html(self) -> str:
        """A fragment of a page, always the same bytes: what is read without scripts, the module, the content."""
        if not self.content["runs"]:
            return f"<p><em>{NONE_KEPT}</em></p>"
        name = hashlib.blake2b(self._json().encode(), digest_size=6).hexdigest()
        module = MODULE.read_text(encoding="utf-8")
        return (
            f'<div class="opd-tokens" data-opd-tokens="{name}">{self._plain_html()}</div>\n'
            f'<script type="module">\n{module}\nmountAll("{name}", "{self.payload}");\n</script>'
        )

    def save(self, path: Path | str) -> Path:
        """Write a page of its own that any browser opens from disk. Returns its path."""
        head = '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>Responses, token by token</title>\n'
        view = '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        style = "<style>:root{color-scheme:light dark}body{margin:1rem;font-family:system-ui,sans-serif}</style>\n"
        write_atomically(Path(path), f"{head}{view}{style}{self.html}\n</html>\n")
        return Path(path)

    def widget(self) -> Any:
        """The explorer as an anywidget; `.selected` is the selected token. Raises ValueError without anywidget."""
        try:
            import anywidget
            import traitlets
        except ImportError as error:
            raise ValueError(f"{error}: a widget needs anywidget; pip install 'opd-replication[lab]'") from None
        if not self.content["runs"]:
            raise ValueError(NONE_KEPT)
        traits = {
            "_esm": MODULE.read_text(encoding="utf-8"),
            "payload": traitlets.Unicode().tag(sync=True),
            "selected": traitlets.Dict().tag(sync=True),
        }
        return type("TokenExplorer", (anywidget.AnyWidget,), traits)(payload=self.payload)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": repr(self)}

    def __repr__(self) -> str:
        if not self.content["runs"]:
            return NONE_KEPT
        names = ", ".join(run["label"] for run in self.content["runs"])
        steps = ", ".join(map(str, self.content["steps"]))
        return f"Explorer of {names}; prompts: {len(self.content['problems'])}; steps: {steps}"

    def _json(self) -> str:
        return json.dumps(self.content, separators=(",", ":"), ensure_ascii=False)

    def _plain_html(self) -> str:
        """Each run's first and last response to a problem, for readers without scripts."""
        words, first = self.content["words"], self.content["first"]["problem"]
        problem = self.content["problems"][first]
        lines = []
        for number, run in enumerate(self.content["runs"]):
            rows = [row for row in self.content["rows"] if (row["run"], row["problem"]) == (number, first)]
            for row in (rows[:1] + rows[1:][-1:]) if rows else []:
                text = html.escape(" ".join(words[word] for word in row["tokens"]))
                step = self.content["steps"][row["step"]]
                lines.append(f"<dt>{html.escape(run['label'])}, step {step}</dt><dd><code>{text}</code></dd>")
        shown = f"<p>{html.escape(problem['label'])}: <code>{html.escape(problem['prompt'])}</code></p>"
        return f"<p><em>{WITHOUT_SCRIPTS}</em></p>{shown}<dl>{''.join(lines)}</dl>"


def tokens(
    records: Iterable[RunRecord],
    arms: Sequence[str] | None = None,
    seed: int | None = None,
    test_sets: Sequence[str] | None = None,
    steps: Sequence[int] | None = None,
    problems: int | None = None,
    quantity: str = DEFAULT,
) -> Explorer:
    """The responses that runs of one seed kept, for reading side by side; the first two arms are shown first.

    `seed`: by default the first of which a run kept responses. `steps`: by default STEPS of them. `problems`: how many,
    all by default. `quantity`: what colours the tokens at first. Where no run kept any, what is shown says so. Raises
    ValueError for an arm, seed, test set, step or quantity that there is not.
    """
    chosen = _chosen(tuple(records), arms, seed)
    kept = {record.arm: record.tokens() for record in chosen}
    if seed is not None and not all(kept.values()):
        empty = next(record for record in chosen if not kept[record.arm])
        raise ValueError(
            f"{empty.folder / 'tokens.jsonl'}: this run kept no responses; choose another seed than {seed}"
        )
    rows = {arm: found for arm, found in kept.items() if found}
    if not rows:
        return Explorer({"runs": []})
    every = [row for found in rows.values() for row in found]
    known = token_quantities.known(every)
    first = known.index(token_quantities.named(quantity, every))
    sets = _among("test set", test_sets, list(dict.fromkeys(row["test_set"] for row in every)))
    logged = sorted({row["step"] for row in every})
    shown = _a_few(logged) if steps is None else sorted(_among("step", steps, logged))
    places = list(dict.fromkeys((row["test_set"], row["problem"]) for row in every if row["test_set"] in sets))[
        :problems
    ]
    picked = {
        arm: [r for r in found if (r["test_set"], r["problem"]) in places and r["step"] in shown]
        for arm, found in rows.items()
    }
    seeds = {record.arm: record.seed for record in chosen}
    return Explorer(embedded.content(picked, seeds, shown, known, first))


def _chosen(records: Sequence[RunRecord], arms: Sequence[str] | None, seed: int | None) -> list[RunRecord]:
    """One record per arm, in the order asked for, all of one seed."""
    names = _among("arm", arms, list(dict.fromkeys(record.arm for record in records)))
    present = sorted({record.seed for record in records if record.arm in names})
    if seed is None:
        kept = [r.seed for r in records if r.arm in names and r.kept("tokens.jsonl")]
        seed = min(kept or present, default=0)
    elif seed not in present:
        raise ValueError(f"no run with seed {seed}; choose from {', '.join(map(str, present)) or 'none'}")
    found = {record.arm: record for record in records if record.seed == seed}
    return [found[name] for name in names if name in found]


def _among(what: str, asked: Sequence[Any] | None, present: Sequence[Any]) -> Sequence[Any]:
    """What was asked for, all of it by default. Raises ValueError naming the first that is not there."""
    for name in asked or ():
        if name not in present:
            raise ValueError(f"no {what} {name!r}; choose from {', '.join(map(str, present)) or 'none'}")
    return present if asked is None else asked


def _a_few(logged: Sequence[int]) -> list[int]:
    """At most STEPS of them, evenly spread."""
    return sorted({logged[round(i * (len(logged) - 1) / (STEPS - 1))] for i in range(STEPS)})
