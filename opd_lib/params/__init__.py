"""YAML → frozen records, strictly: experiments, their arms and seeds, the identity of each run, and what is refused."""

from opd_lib.params.experiment import DATA, Experiment, load
from opd_lib.params.spec import RunSpec

__all__ = ["DATA", "Experiment", "RunSpec", "load"]
