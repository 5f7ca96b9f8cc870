"""From the files of finished runs to tables, figures and verdicts. Nothing here imports torch.

Imported in a notebook's kernel it lets refusals be shown there without a traceback (`refusal`).
"""

from opd_lib.report import refusal
from opd_lib.report.outputs import Outputs as Outputs

refusal.install()
