"""What is committed of results: records, verdicts, generated parts of pages (notebooks and outputs: `reexecute`)."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from opd_lib import paths
from opd_lib.batch import front
from opd_lib.judge import claims
from opd_lib.judge.quantities import Evidence
from opd_lib.params import RunSpec
from opd_lib.params.spec import MODEL
from opd_lib.records import durable, files, record
from opd_lib.records.packed import RUN
from opd_lib.records.record import write_atomically
from opd_lib.report import outputs, tables
from opd_lib.run import evidence, packs, plan
from opd_lib.run.compare import registers

COMMITTED_TABLES = (*(f"{table}.csv" for table in record.TABLES), "rollouts.jsonl")
TOKENS, TOKENS_OF = "tokens.jsonl", 0
"""Responses token by token, which are committed of this seed alone: of all they would be tens of megabytes."""
MODELS, SHIPPED_OF = "00_models", 0
SHIPPED = (
    "base-small",
    "base-large-grpo",
    "nt-large",
    "distill-small",
    "distill-large",
    "justrl-small",
    "skywork-large",
)
"""The checkpoints of 00_models whose weights are committed, of this seed and these profiles alone: students and
teachers of a first exploration (01, 03, 04, 05, 09, 10, 92), 5.3 MB. The others are larger or rarely wanted first."""
SHIPPED_AT = ("tiny", "tiny-next")
"""The default profile, and the next tiny world, which takes its place."""
OUTPUTS = ("figures", "tables")
README_COLUMNS = ("id", "figure", "statement", "paper", "ours", "interval", "claimed", "detectable", "seeds", "verdict")
DEFAULT_PROFILE = "tiny"
"""The profile whose outputs the notebooks in notebooks/ carry."""
README, CLAIMS_PAGE = paths.ROOT / "README.md", paths.RESULTS / DEFAULT_PROFILE / "README.md"
"""Pages with generated parts; the ratios of docs/speed.md are `opd bench --docs`."""


def commit_records(specs: Iterable[RunSpec], committed: Path = paths.RESULTS) -> int:
    """Copy finished runs to the committed results, each folder as a whole; seeds that were packed there are again.

    Returns how many. Only what a reader needs goes: no logs, checkpoints or progress, and the weights of few. Raises
    ValueError for a run that is not finished, and while another process packs or unpacks there.
    """
    chosen = plan.with_parents(specs)
    unfinished = [spec.name for spec in chosen if plan.finished(spec) is None]
    if unfinished:
        raise ValueError(f"not finished: {', '.join(unfinished)}; run `opd reproduce` first")
    targets = {paths.run_folder(s.profile, s.experiment, s.arm, s.seed, committed): s for s in chosen}
    for profile in dict.fromkeys(spec.profile for spec in chosen):
        (committed / profile).mkdir(parents=True, exist_ok=True)
        of_profile = {target: spec for target, spec in targets.items() if spec.profile == profile}
        with packs.apart(committed / profile, of_profile):
            for target, spec in of_profile.items():
                copy_record(spec.folder, target, with_tokens=spec.seed == TOKENS_OF, with_weights=is_shipped(spec))
    return len(chosen)


def is_shipped(spec: RunSpec) -> bool:
    """Whether the weights of a run are committed with its record."""
    place = (spec.experiment, spec.seed)
    return spec.profile in SHIPPED_AT and place == (MODELS, SHIPPED_OF) and spec.arm in SHIPPED


def copy_record(source: Path, target: Path, with_tokens: bool = False, with_weights: bool = False) -> None:
    """Replace a run folder by a copy of another's record, which does not know of tables that are left out.

    Raises ValueError for a table that is not what its run left.
    """
    names = [*COMMITTED_TABLES, *([TOKENS] if with_tokens else [])]
    weights = [f"{MODEL}/{path.name}" for path in sorted((source / MODEL).iterdir())] if with_weights else []
    present, text = record.read(source), files.read(source, RUN)
    assert present is not None and text is not None  # finished: the caller has seen it
    contents = {name: content for name in names if (content := present.content(name))}
    known = {} if present.tables is None else {"tables": {n: seal for n, seal in present.tables.items() if n in names}}
    contents[RUN] = (json.dumps(json.loads(text) | known, indent=1) + "\n").encode()
    replace_folder(source, target, weights, contents)


def replace_folder(
    source: Path, target: Path, names: Iterable[str], contents: Mapping[str, bytes] | None = None
) -> None:
    """Put these files of `source` in the place of `target`; a reader finds the old folder or the new one.

    `contents`: what further ones say.
    """
    new, old = (target.with_name(f".{target.name}.{word}.{os.getpid()}") for word in ("new", "old"))
    new.mkdir(parents=True)
    for name in names:
        (new / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(source / name, new / name)
    for name, content in (contents or {}).items():
        (new / name).write_bytes(content)
    if target.exists():
        os.replace(target, old)
    durable.replace(new, target)
    shutil.rmtree(old, ignore_errors=True)


def judge(profile: str, results: Path) -> pd.DataFrame:
    """The verdict of every claim of every paper from the finished records of a results folder. Raises as `found`."""
    return verdicts(found(profile, results))


def found(profile: str, results: Path) -> Evidence:
    """What a results folder says. Raises ValueError for a profile without params or a folder without records of it."""
    plan.require_profile(profile)
    if not (results / profile).is_dir():
        raise ValueError(
            f"{results / profile}: no such folder, so no records to judge; `opd reproduce --profile {profile}` "
            f"computes them, and --results {paths.LOCAL} judges those"
        )
    return evidence.read(profile, results)


def verdicts(read: Evidence) -> pd.DataFrame:
    """The verdict of every claim of every paper."""
    judged = [claims.judge(each, read).assign(register=each.paper) for each in registers(read.profile)]
    return pd.concat(judged, ignore_index=True) if judged else pd.DataFrame()


def write_claims(judged: pd.DataFrame, profile: str, results: Path) -> Path:
    """RESULTS/PROFILE/claims.csv. Raises ValueError if it cannot be written."""
    path = results / profile / "claims.csv"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, judged.to_csv(index=False, lineterminator="\n"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be written ({error}); choose another --results folder") from error
    return path


def write_readme(
    judged: pd.DataFrame, results: Path = paths.RESULTS, readme: Path = README, of_claims: Path = CLAIMS_PAGE
) -> None:
    """Write the generated parts anew: findings and notebooks in the README, claims in results/tiny/README.md.

    Raises ValueError if their markers are not there, and for a finding that these verdicts do not bear out.
    """
    notebook_of = {claim.id: claim.notebook for register in registers(DEFAULT_PROFILE) for claim in register.claims}
    placed = judged.assign(notebook=judged["id"].map(notebook_of))
    found = front.findings(placed, evidence.read(DEFAULT_PROFILE, results))
    listed = tables.markdown(front.notebooks(placed, DEFAULT_PROFILE))
    table = tables.markdown(tables.verdict_table(judged)[list(README_COLUMNS)])
    outputs.put_between(readme, "findings", found)
    outputs.put_between(readme, "notebooks", f"{claims.summary(judged)}\n\n{listed}")
    outputs.put_between(of_claims, "claims", table)
