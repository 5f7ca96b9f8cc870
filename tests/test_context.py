"""A prompt and its response must fit into the context of whoever reads them: said before anything is computed."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import conftest
import micro
import pytest

from opd_lib.engine import sources, train
from opd_lib.engine.model import models
from opd_lib.params import refusals
from opd_lib.params.schema import NewModel, RunParams
from opd_lib.tasks import chain

LONG = {"source.max_new_tokens": 101}
SHAPE = conftest.RUN["student"] | {"initializer_range": 0.6}
CONTINUED = {"kind": "continuation", "batches": 1, "depths": [0, 8], "new_tokens": 60}


def resolved(**sections: Any) -> RunParams:
    """A run's parameters, changed."""
    content = conftest.RUN | {"method": {"name": "sft"}} | sections
    return RunParams.model_validate(
        {key: value for key, value in content.items() if key not in ("title", "seeds", "arms")}
    )


@pytest.mark.parametrize("content", chain.CONTENTS)
def test_no_prompt_of_the_tiny_world_is_longer_than_is_counted_on(content: str) -> None:
    task = chain.Params.model_validate(conftest.RUN["task"] | {"content": content, "test_sets": ("chain-3", "chain-9")})
    trained, tested = refusals.prompt_tokens(task)
    tokenizer = models.chain_tokenizer()

    def lengths(questions: list[chain.Question]) -> list[int]:
        prompts = sources.make_prompts(tokenizer, task, questions, ["T1"] * len(questions), "")
        return [len(prompt.token_ids) for prompt in prompts]

    assert max(lengths(chain.draw_training(content, 200, random.Random(0)))) == trained
    assert max(lengths(chain.held_out_questions("chain-9", 5))) == tested


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"source": {"max_new_tokens": 14}}, "source.max_new_tokens: a prompt of 15 and a response of 14 tokens"),
        ({"source": {"schedule": [{"step": 3, "max_new_tokens": 14}]}}, "source.schedule: a prompt of 15"),
        ({"evaluate": {"max_new_tokens": 16}}, "evaluate.max_new_tokens: a prompt of 13 and a response of 16 tokens"),
        ({"task": {"other_share": 0.5, "other_content": "chain-long"}}, "source.max_new_tokens: a prompt of 33 and"),
    ],
)
def test_a_new_model_is_refused_what_it_cannot_hold(
    world: Path, changes: Mapping[str, dict[str, Any]], key: str
) -> None:
    small = {"student": conftest.RUN["student"] | {"context": 28}, "method": {"name": "sft"}, "teacher": None}
    micro.change_arm(world, micro.OPD, "small", small)
    assert micro.load(world, micro.OPD).arms["small"]
    flat = {f"{section}.{name}": value for section, values in changes.items() for name, value in values.items()}
    micro.change_arm(world, micro.OPD, "small", flat)
    with pytest.raises(ValueError, match=rf"01_opd\.yaml, arm small: {key}.* context of 28 \(student\.context\); use"):
        micro.load(world, micro.OPD)


def test_what_a_run_never_reads_is_not_counted() -> None:
    source, evaluate = conftest.RUN["source"], conftest.RUN["evaluate"]
    asked = {"source": source | {"max_new_tokens": 999}, "train": conftest.RUN["train"] | {"steps": 0}}
    assert refusals.longest(resolved(**asked), "student") == {"evaluate.max_new_tokens": (13, 12)}
    early = source | {"max_new_tokens": 999, "schedule": [{"step": 1, "max_new_tokens": 5}]}
    assert refusals.longest(resolved(source=early), "teacher") == {"source.schedule": (15, 5)}
    probed = resolved(probe=CONTINUED, evaluate=evaluate | {"max_new_tokens": 999, "caps": []})
    assert refusals.longest(probed, "teacher") == {"source.max_new_tokens": (15, 12), "probe.new_tokens": (23, 60)}


@pytest.mark.parametrize(
    ("role", "changes", "said"),
    [
        ("student", {"source.max_new_tokens": 50}, "source.max_new_tokens: .* do not fit into the student's"),
        ("student", {"evaluate.max_new_tokens": 52, "train.steps": 0}, "evaluate.max_new_tokens: .* the student's"),
        ("teacher", {"source.max_new_tokens": 50}, "source.max_new_tokens: .* do not fit into the teacher's"),
        ("teacher", {"probe": CONTINUED}, "probe.new_tokens: .* do not fit into the teacher's"),
    ],
)
def test_a_loaded_checkpoint_is_refused_what_it_cannot_hold(
    world: Path, role: str, changes: dict[str, Any], said: str
) -> None:
    for name in ("student", "teacher"):
        shape = NewModel.model_validate(SHAPE | {"context": 64 if name == role else 256})
        models.save(models.new_model(shape, len(name)), models.chain_tokenizer(), world / name)
    places = {name: str(world / name) for name in ("student", "teacher")}
    micro.change_arm(world, micro.OPD, "far", places | changes)
    spec = micro.load(world, micro.OPD).spec("far", 0)
    with pytest.raises(ValueError, match=rf"{said} context of 64 \({world / role}\)"):
        train.train(spec)
    assert not (spec.folder / "evals.csv").exists()
