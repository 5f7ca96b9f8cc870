"""From the files of finished runs to tables, figures and verdicts. Nothing here imports torch."""

from opd_lib.report.outputs import Outputs as Outputs
