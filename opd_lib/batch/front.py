"""The front page's table: a row per notebook, from the paper's figure to params, records, verdicts and minutes."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from opd_lib import paths
from opd_lib.bench import speed
from opd_lib.judge.claims import DOES_NOT_HOLD, HOLDS, INCONCLUSIVE
from opd_lib.records import reading

PAPER = re.compile(r"\(arXiv [\d.]+,? ?([^)]*)\)")
"""How a notebook's first cell says where in the paper it belongs."""
VERDICTS = (HOLDS, DOES_NOT_HOLD, INCONCLUSIVE)


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
