"""What a run leaves is a checkpoint of the hub's format: transformers' own classes load it, and the page says how."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import micro
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from opd_lib import paths
from opd_lib.run import single
from opd_lib.tasks import chain


def test_the_model_that_a_run_leaves_is_loaded_by_transformers(world: Path) -> None:
    spec = micro.load(world).spec("student", 0)
    single.train(spec)
    model = AutoModelForCausalLM.from_pretrained(spec.model_folder)
    tokenizer = AutoTokenizer.from_pretrained(spec.model_folder)
    trained = load_file(spec.model_folder / "model.safetensors")
    loaded = model.state_dict()
    assert trained and all(torch.equal(loaded[name], weight) for name, weight in trained.items())
    other = AutoModelForCausalLM.from_config(model.config).state_dict()
    assert any(not torch.equal(other[name], weight) for name, weight in trained.items())
    assert tokenizer.convert_ids_to_tokens(range(len(tokenizer))) == list(chain.VOCABULARY)


@pytest.mark.process
def test_the_page_says_how_and_its_student_answers() -> None:
    page = (paths.ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT, capture_output=True, text=True, check=True)
    answer = str((7 + 5) * 3 % 10)
    assert chain.extract_answer(done.stdout) == answer and done.stdout.startswith("<bos> T1 <q> 7 + 5 * 3 <a>")
