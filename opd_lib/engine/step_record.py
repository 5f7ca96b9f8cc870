"""What a step leaves in the record: its row of `steps`, its rows by depth, a few of its responses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from opd_lib.engine import gates, score
from opd_lib.engine.model import distributed
from opd_lib.engine.model.distributed import total
from opd_lib.maths import diagnostics, signatures

if TYPE_CHECKING:
    from torch import Tensor

    from opd_lib.engine.credit import Credit
    from opd_lib.engine.running import ActiveRun
    from opd_lib.types import Rollouts, TokenScores

Row = dict[str, Any]


class StepRecord:
    """Adds up what is recorded of a step, micro-batch by micro-batch.

    Columns of length, truncation and reward count all responses. `n_tokens` is the number of tokens that are trained
    on, over all processes: what the sum of values is divided by.
    """

    def __init__(self, run: ActiveRun, rollouts: Rollouts, credit: Credit, step: int) -> None:
        params = run.spec.params
        self.run, self.rollouts, self.credit, self.step = run, rollouts, credit, step
        self.is_kept = step == 1 or step % params.evaluate.every == 0
        thinned = step % params.machine.diagnose_every != 0
        self.is_measured = self.is_kept or step == params.train.steps or not thinned
        self.tally = diagnostics.Tally(params.diagnose.ks, params.diagnose.depth_bucket, run.n_positions)
        chosen_B = torch.ones_like(rollouts.finished_B) if credit.selected_B is None else credit.selected_B
        self.n_tokens = total(float(rollouts.n_own_B[chosen_B].sum()))
        self._loss_sum, self._gap, self._gap_sum = 0.0, 0.0, 0.0
        self._signals = dict.fromkeys(sorted(run.method.reads(run.options).signals), (0.0, 0.0))
        self._examples: list[Row] = []
        self._repeats_BT = signatures.repeats(rollouts) if run.hedges and self.is_measured else None

    def add(self, value_sum: Tensor, scores: TokenScores) -> None:
        """Count in the weighted sum of a micro-batch's values (nats), and its scores."""
        self._loss_sum += value_sum.item()
        gaps_N = gates.sampler_gaps(self.rollouts, scores)
        if len(gaps_N):
            self._gap = np.maximum(self._gap, float(gaps_N.max()))  # unlike max, keeps a NaN
        self._gap_sum += float(gaps_N.sum())
        if self.is_measured:
            self.tally.add(scores, self._signatures(scores))
        for name, value_N in diagnostics.signals(scores, self._signals).items():
            value, weight = self._signals[name]
            self._signals[name] = (value + float(value_N.nansum()), weight + float((~value_N.isnan()).sum()))
        if self.is_kept and not self._examples and len(gaps_N):
            n = self.run.spec.params.diagnose.examples
            self._examples = score.examples(self.step, self.rollouts, scores, self.run.words, n)

    @property
    def mean_loss(self) -> float:
        """Weighted values, over all processes (nats per token that is trained on)."""
        return total(self._loss_sum) / max(self.n_tokens, 1)

    @property
    def mean_gap(self) -> float:
        """|log-probability of the sampler − of the trainer|, token mean over all processes (nats)."""
        return total(self._gap_sum) / max(self.n_tokens, 1)

    def write(self, norm: float, branches: Mapping[str, StepRecord]) -> Row:
        """Write the rows of the step and return that of `steps`. Every process must call it.

        What is returned has the means of the method's signals, too, whether the step is measured or not.
        """
        writer, diagnose = self.run.writer, self.run.spec.params.diagnose
        if self.is_measured:
            distributed.sum_over_ranks([self.tally.sums_MD, self.tally.weights_MD])
        row: Row = {
            "step": self.step,
            "loss": self.mean_loss,
            "grad_norm": norm,
            "n_tokens": int(self.n_tokens),
            **batch_row(self.rollouts),
            "sampler_gap": distributed.max_over_ranks(float(self._gap)),
            **(self.tally.means() if self.is_measured else {}),
            **self._loops(),
            **self.method_columns(),
            **{f"{name}.{key}": value for name, branch in branches.items() for key, value in branch.short().items()},
            **(self.run.world.columns() if self.run.world else {}),
        }
        if writer:
            writer.append("steps", [row])
            if self.is_measured and (self.step == 1 or self.step % diagnose.depth_every == 0):
                writer.append("depth", [{"step": self.step, **bucket} for bucket in self.tally.by_depth()])
            writer.append_lines("rollouts", self._examples)
        return row | self.signals()

    def short(self) -> Row:
        """What a branch leaves in the row of its step."""
        return {
            "loss": self.mean_loss,
            "n_tokens": int(self.n_tokens),
            **batch_row(self.rollouts),
            **self.method_columns(),
        }

    def _signatures(self, scores: TokenScores) -> dict[str, diagnostics.Metric]:
        if self._repeats_BT is None:
            return {}
        return signatures.per_token(self._repeats_BT, scores, self.run.hedges)

    def _loops(self) -> Row:
        if self._repeats_BT is None:
            return {}
        return {"looping_share": total(signatures.loops(self.rollouts)) / total(len(self.rollouts.prompts))}

    def method_columns(self) -> Row:
        """The columns that the method itself makes of its view, over all processes."""
        return {name: total(value) / total(weight) for name, (value, weight) in self.credit.notes.items()}

    def signals(self) -> Row:
        """The method's signals, each its mean over the tokens where it is defined."""
        sums = {name: (total(value), total(weight)) for name, (value, weight) in self._signals.items()}
        return {name: value / weight if weight else math.nan for name, (value, weight) in sums.items()}


def batch_row(rollouts: Rollouts) -> Row:
    """Length, truncation and correctness of the batch, over all processes."""
    n = total(len(rollouts.prompts))
    columns = {
        "response_length": rollouts.length_B,
        "truncated_share": ~rollouts.finished_B,
        "reward": rollouts.reward_B,
    }
    return {name: total(float(values.sum())) / n for name, values in columns.items()}
