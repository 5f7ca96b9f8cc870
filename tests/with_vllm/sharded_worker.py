"""One of two processes that share a student's weights and have an engine each; started by test_engine_vllm."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

import test_engine_vllm as tests
import torch

from opd_lib import methods
from opd_lib.engine import gates, score
from opd_lib.engine.model import distributed, sharding
from opd_lib.engine.sampling import rollout_vllm


def main(folder: Path, meeting: Path) -> None:
    """Sample, step, sample again; leave in a file how far this engine was from the weights of all processes."""
    machine = tests.MACHINE.model_copy(update={"processes": 2, "shard": True})
    distributed.connect_here(machine, meeting)
    ranks = distributed.join(machine)
    (model, tokenizer), (plain, _) = tests.new_model(tied=True), tests.new_model(tied=True)
    sharding.place(model, machine, ranks, spread=True)
    sample = rollout_vllm.for_run(model, machine, 40)
    prompts = tests.make_prompts(9, (plain, tokenizer))[ranks.rank * 4 : ranks.rank * 4 + 5 - 2 * ranks.rank]
    rows = [list(prompt.token_ids) for prompt in prompts]
    found: dict[str, list[float]] = {"gap": [], "sampler_gap": [], "logp_gap": []}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    logps = []
    for _ in range(3):
        rollouts = sample(model, tokenizer, prompts, tests.numbers(len(prompts), 12, ranks.rank), 1.0, 1.0)
        with torch.no_grad():
            scores = score.score(model, None, rollouts, torch.arange(len(prompts)), k=0)
        whole = {name: sharding.full(tensor) for name, tensor in model.state_dict().items()}
        plain.load_state_dict(whole)
        (engine,) = rollout_vllm.ENGINES
        logps.append(engine.logp(rows))
        found["gap"].append(engine.gap)
        found["sampler_gap"].append(gates.sampler_gap(rollouts, scores))
        found["logp_gap"].append(tests.gap_between(logps[-1], tests.trainer_logp(plain, rows)))
        model.train()
        objective = score.Objective(method=methods.load("sft"), options=None, k=0)
        objective(model, None, rollouts, torch.arange(len(prompts)), scale=-1 / len(scores.token_N))[0].backward()
        optimizer.step()
        optimizer.zero_grad()
    found["moved"] = [tests.gap_between(a, b) for a, b in itertools.pairwise(logps)]
    (folder / f"{ranks.rank}.json").write_text(json.dumps(found))
    distributed.meet()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
