"""Sliders of notebook 21: how mass leaves a support, for an objective, a tail and a learning rate of one's choice."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from opd_lib.maths import one_context, truncation
from opd_lib.report import figures, outputs, refusal
from opd_lib.report.figures import Chart

ELSEWHERE = "Here are sliders, where a kernel runs (JupyterLab with ipywidgets)."
SHOWN_FIRST = ("plain", "held", "renormalised", "bucket")


def descents() -> None:
    """Show the sliders and the figure that follows them; elsewhere a line that says where they are."""
    if not (refusal.is_watched() and find_spec("ipywidgets")):
        print(ELSEWHERE)
        return
    import ipywidgets as widgets

    def lever(low: float, high: float, value: float, name: str) -> widgets.FloatLogSlider:
        return widgets.FloatLogSlider(value, min=low, max=high, description=name, continuous_update=False)

    widgets.interact(
        lambda **chosen: outputs.show(chart(**chosen)),
        objectives=widgets.SelectMultiple(options=[*truncation.OBJECTIVES], value=SHOWN_FIRST, rows=6),
        tail=lever(-5, -0.5, 0.01, "tail mass"),
        rate=lever(-3, 0, 0.01, "rate"),
        steps=widgets.IntSlider(400, min=50, max=2000, step=50, continuous_update=False),
        optimiser=["adam", "sgd"],
    )


def chart(objectives: Sequence[str], tail: float, rate: float, steps: int, optimiser: str) -> Chart:
    """Mass on the student's likeliest tokens against the step, a line per objective."""
    found = one_context.courses(objectives, tail, rate, steps, optimiser=optimiser)
    return figures.curves(found, "mass", "mass on the top 8")
