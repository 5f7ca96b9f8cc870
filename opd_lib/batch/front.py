"""What is generated on the front page: what was found, in sentences, and a row per notebook.

A finding is worded by hand and true of certain verdicts alone; its numbers are read from the records, and with another
verdict of a claim it rests on it is refused.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import pandas as pd

from opd_lib import paths
from opd_lib.bench import speed
from opd_lib.judge import vocabulary
from opd_lib.judge.claims import DOES_NOT_HOLD, HOLDS, INCONCLUSIVE
from opd_lib.judge.quantities import Evidence, NoRecordError, SeedView
from opd_lib.records import reading
from opd_lib.report import tables

PAPER = re.compile(r"\(arXiv [\d.]+,? ?([^)]*)\)")
"""How a notebook's first cell says where in the paper it belongs."""
VERDICTS = (HOLDS, DOES_NOT_HOLD, INCONCLUSIVE)
COUNTED = {"fails": DOES_NOT_HOLD, "open": INCONCLUSIVE}
"""Verdicts whose number a finding may name, by the word for it."""
WIDTH = 130
"""Characters in a line of the page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A sentence, and the verdicts without which it would be false.

    `text` names numbers in braces: `means`, quantities of one notebook's runs, averaged over seeds, and how many claims
    there are of each verdict. `rests_on`: claim → verdict. `in_list`: an item of the list; else said below it.
    """

    text: str
    rests_on: Mapping[str, str]
    notebook: str
    means: Mapping[str, str] = field(default_factory=dict)
    in_list: bool = True


FINDINGS = (
    Finding(
        text="**Compatible teacher:** under a teacher that thinks like it the student goes from {start} to {like} "
        "(accuracy), under one that thinks otherwise it falls to {unlike}, where a student that has read enough of "
        "that way of thinking reaches {seen}",
        rests_on={"C1c": HOLDS, "C1e": HOLDS},
        notebook="01_thinking_patterns",
        means={
            "start": "accuracy_start('compatible')",
            "like": "accuracy_end('compatible')",
            "unlike": "accuracy_end('incompatible')",
            "seen": "accuracy_end('seen-15')",
        },
    ),
    Finding(
        text="**New knowledge:** under a teacher after reinforcement learning (RL) the student gains {after} in "
        "accuracy, under the same larger model of its own pipeline before RL {before}",
        rests_on={"C2a": HOLDS},
        notebook="02_new_knowledge",
        means={
            "after": "accuracy_end('skywork-large') - accuracy_start('skywork-large')",
            "before": "accuracy_end('distill-large') - accuracy_start('distill-large')",
        },
    ),
    Finding(
        text="**Backwards:** a student that RL had brought from {once} to {start} falls back to {same} under the "
        "checkpoint it was before RL, and to {larger} under a larger model before RL",
        rests_on={"C3d": HOLDS, "C3e": HOLDS, "C3f": HOLDS},
        notebook="03_reverse_distillation",
        means={
            "once": "checkpoint('distill-small')",
            "start": "accuracy_start('same_size')",
            "same": "accuracy_end('same_size')",
            "larger": "accuracy_end('larger')",
        },
    ),
    Finding(
        text="**Seen from inside:** while distillation succeeds, the two models come to share more of their likeliest "
        "tokens (overlap {overlap_start} to {overlap_end}) and the gap between their entropies closes (from "
        "{gap_start} to {gap_end} nats; in the run that fails it goes from {failing_start} to {failing_end})",
        rests_on={"C4b": HOLDS, "C4h": HOLDS, "C4i": HOLDS},
        notebook="04_success_and_failure",
        means={
            "overlap_start": "start('success', 'overlap_k16')",
            "overlap_end": "end('success', 'overlap_k16')",
            "gap_start": "start('success', 'entropy_gap')",
            "gap_end": "end('success', 'entropy_gap')",
            "failing_start": "start('failure', 'entropy_gap')",
            "failing_end": "end('failure', 'entropy_gap')",
        },
    ),
    Finding(
        text="**Overlap tokens:** trained on nothing but the tokens that both models hold likely, the student ends at "
        "{overlap}; trained on all that it holds likely itself, at {student}",
        rests_on={"C5a": HOLDS},
        notebook="05_overlap_tokens",
        means={"overlap": "accuracy_end('overlap')", "student": "accuracy_end('student')"},
    ),
    Finding(
        text="**What does not come out:** of {all} claims {fails} do not hold here and {open} are inconclusive; the "
        "larger teacher that pulls the student back scores {teacher} where the student has {student} (the "
        "paper's scores as high as its student), and whether overlap grows more in success than in failure is open",
        rests_on={"C3a": DOES_NOT_HOLD, "C4c": INCONCLUSIVE},
        notebook="03_reverse_distillation",
        means={"teacher": "checkpoint('distill-large')", "student": "accuracy_start('larger')"},
        in_list=False,
    ),
)


def findings(judged: pd.DataFrame, evidence: Evidence, said: Sequence[Finding] = FINDINGS) -> str:
    """The findings, those of the list first, each with its claims' numbers, intervals and seeds.

    `judged` are the verdicts of all claims with their `notebook`. Raises ValueError for a finding that is not true of
    them.
    """
    listed = [_sentence(finding, judged, evidence) for finding in said if finding.in_list]
    below = [_sentence(finding, judged, evidence) for finding in said if not finding.in_list]
    return "\n\n".join(filter(None, ["\n".join(listed), *below]))


def _sentence(finding: Finding, judged: pd.DataFrame, evidence: Evidence) -> str:
    for name, needed in finding.rests_on.items():
        _require(name, needed, judged)
    rows = judged[judged["id"].isin(finding.rests_on)]
    shown = tables.verdict_table(rows).assign(notebook=rows["notebook"])
    cited = [
        f"[{name[:2]}](notebooks/{name}.ipynb): "
        + ", ".join(f"{r.id} {r.ours} {r.interval}" for r in part.itertuples())
        for name, part in shown.groupby("notebook")
    ]
    seeds = " or ".join(map(str, sorted(set(rows["n_seeds"]))))
    n = {word: str((judged["verdict"] == verdict).sum()) for word, verdict in COUNTED.items()}
    text = finding.text.format(all=len(judged), **n, **_means(finding, evidence))
    line = f"{text} ({'; '.join(cited)}; {seeds} seeds)."
    first, then = ("- ", "  ") if finding.in_list else ("", "")
    return textwrap.fill(
        line, WIDTH, initial_indent=first, subsequent_indent=then, break_long_words=False, break_on_hyphens=False
    )


def _require(name: str, needed: str, judged: pd.DataFrame) -> None:
    found = dict(zip(judged["id"], judged["verdict"], strict=True)).get(name, "not judged")
    if found != needed:
        raise ValueError(
            f"claim {name} is now: {found}; a finding of the README is true only while it is: {needed}. Judge the "
            "committed records, or write the finding anew (FINDINGS in opd_lib/batch/front.py)"
        )


def _means(finding: Finding, evidence: Evidence) -> dict[str, str]:
    """name → the mean, as text, over the seeds that have the runs. Raises ValueError if none has."""
    return {name: tables.number(_mean(quantity, finding, evidence), 2) for name, quantity in finding.means.items()}


def _mean(quantity: str, finding: Finding, evidence: Evidence) -> float:
    values = []
    for seed in evidence.seeds(finding.notebook):
        with suppress(NoRecordError):
            view = SeedView(evidence=evidence, experiment=finding.notebook, seed=seed)
            values.append(vocabulary.value_of(quantity, view))
    if not values:
        raise ValueError(f"{finding.notebook}: no finished records for {quantity}, which a finding of the README names")
    return fmean(values)


def notebooks(judged: pd.DataFrame, profile: str, folder: Path = paths.NOTEBOOKS) -> pd.DataFrame:
    """A row per notebook; links are relative to the repository. `judged` are the verdicts of all claims.

    minutes: what one seed of its runs took on one core when everything was trained from nothing (`90_speed`); a shared
    run counts where it is computed. Where a notebook has no params, claims or runs of its own, a cell is empty.
    """
    counts = judged.groupby("notebook")["verdict"].value_counts()
    seconds = speed.stages(speed.place(profile, None)).groupby("notebook")["seconds"].sum()
    rows = []
    for path in sorted(folder.glob("[0-9]*.ipynb")):
        name = path.stem
        title, where = _first_cell(path)
        has_params = paths.params_file(name, profile).exists()
        has_records = {path.name for path in (paths.RESULTS / profile / name).glob("*")} - {"figures", "tables"}
        found = [int(counts.get((name, verdict), 0)) for verdict in VERDICTS]
        rows.append(
            {
                "paper": where,
                "notebook": f"[{title}](notebooks/{path.name})",
                "holds · does not · open": " · ".join(map(str, found)) if any(found) else "",
                "params": f"[yaml](params/{profile}/{name}.yaml)" if has_params else "",
                "records": f"[{name[:2]}](results/{profile}/{name})" if has_records else "",
                "minutes": f"{seconds[name] / 60:.1f}" if name in seconds else "",
            }
        )
    return pd.DataFrame(rows)


def _first_cell(path: Path) -> tuple[str, str]:
    """The title of a notebook up to its colon, and where in the paper it belongs. Raises ValueError without cells."""
    cells = reading.mapping(path, ["cells"])["cells"]
    if not cells:
        reading.refuse(path, "a notebook without cells has no title", reading.RESTORE)
    text = "".join(cells[0]["source"])
    found = PAPER.search(text)
    title = text.partition("\n")[0].removeprefix("# ").partition(":")[0]
    return title, found[1] if found else ""
