"""Where things are in the repository. Importing this module creates nothing."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The repository root: the folder that holds opd_lib, notebooks, params and results."""

NOTEBOOKS = ROOT / "notebooks"
COPIES = ROOT / "lab"
"""Copies of them, to change and run: ignored by git, kept by `make clean`."""
PARAMS = ROOT / "params"
CLAIMS = PARAMS / "claims"
RESULTS = ROOT / "results"
LOCAL = RESULTS / "local"
"""What this machine computes; ignored by git, same shape as RESULTS."""
LAB = LOCAL / "lab"
"""Runs that may start from committed weights, or from records of LOCAL: never read by what trains from nothing."""
VARIANTS = LOCAL / "variants"
"""Runs that overrides have changed: a folder for each set of overrides, named by its digest."""
EXECUTED = "notebook.ipynb"
"""What an executed notebook is called in RESULTS/PROFILE/NN_name; the committed ones stand in NOTEBOOKS."""
REFERENCE = RESULTS / "reference"
"""The papers' own numbers."""


def params_file(experiment: str, profile: str) -> Path:
    """The YAML of one notebook at one profile: params/PROFILE/NN_name.yaml."""
    return PARAMS / profile / f"{experiment}.yaml"


def claims_file(paper: str, profile: str | None = None, folder: Path = CLAIMS) -> Path:
    """The claims of one paper, written before its runs: params/claims/PAPER.yaml.

    A profile that has a file of its own, params/claims/PROFILE/PAPER.yaml, is judged by that one alone.
    """
    own = folder / (profile or "") / f"{paper}.yaml"
    return own if own.exists() else folder / f"{paper}.yaml"


def run_folder(profile: str, experiment: str, arm: str, seed: int, results: Path = RESULTS) -> Path:
    """The record of one run: RESULTS/PROFILE/NN_name/ARM/seedS."""
    return results / profile / experiment / arm / f"seed{seed}"
