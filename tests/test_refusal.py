"""Wrong parameters in a notebook: one readable box, no traceback of the library; programs still see a failure."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from test_html_tables import shell
from test_live import kernel

from opd_lib import params, paths
from opd_lib.report import refusal
from opd_lib.run import notebook

__all__ = ["kernel", "shell"]  # fixtures
NAME = "05_overlap_tokens"
BEGIN = "from opd_lib.run import notebook\nnotebook.begin({name!r}, **{wrong!r})"
WRONG = [
    ({"overrides": {"train.stepz": 3}}, ["train.stepz", "unknown key", "did you mean train.steps?"]),
    ({"overrides": {"train.steps": -1, "train.lr": "a"}}, ["train.steps: -1", "train.lr: 'a'", "valid number"]),
    ({"seeds": "x"}, ["seeds", "'x'", "such as [0, 1, 2]"]),
    ({"profile": "huge"}, ["no such profile huge", "choose from"]),
]
every_mistake = pytest.mark.parametrize(("wrong", "said"), WRONG, ids=["key", "values", "seeds", "profile"])


def cell(wrong: dict[str, Any]) -> str:
    return BEGIN.format(name=NAME, wrong=wrong)


NOTEBOOKS = [
    ("90_speed", {"profile": "huge"}, "no such file; `make bench` measures it"),
    ("90_speed", {"profile": 5}, "profile: 5 is no name"),
    ("90_speed", {"results": 5}, "results: 5: write the name of a folder"),
    ("91_explore", {"overrides": {"train.stepz": 3}}, "train.stepz: unknown key"),
    ("91_explore", {"results": 5}, "results: 5: write the name of a folder"),
    ("92_your_own_method", {"overrides": 5}, "overrides: 5: write a mapping"),
    ("92_your_own_method", {"seeds": "x"}, "such as [0, 1, 2]"),
    ("92_your_own_method", {"loss": print}, "the function of an objective is called value"),
    ("05_overlap_tokens", {"seeds": []}, "seeds: []: name at least one"),
]
"""Notebook, what its cells before are made to say, the refusal of the first cell that the library is in."""
OTHERS = [
    ("from opd_lib.judge.versus import versus\nversus(None, 'a', 'b', tries=0)", "tries: 0: write how many"),
    ("from opd_lib.run import launch\nlaunch.run(experiment, jobs=-1)", "jobs: -1 is too few"),
    ("from opd_lib.run import talk\ntalk.meet('no/such/folder')", "cannot load a checkpoint from no/such/folder"),
]
OWN = [
    "raise ValueError('mine')",
    "import pandas\npandas.DataFrame({'a': [1, 2]}, index=[0])",
    "from opd_lib import inputs\ninputs.listed(3, 'seeds')",
]


@pytest.fixture
def reader(shell: Any) -> Any:
    """A shell that has imported the library: here it was imported before."""
    refusal.install()
    return shell


def first_cell(name: str) -> str:
    """The first cell of a notebook that calls this library."""
    cells = nbformat.read(paths.NOTEBOOKS / f"{name}.ipynb", as_version=4).cells
    return next(str(each.source) for each in cells if each.cell_type == "code" and "from opd_lib.report" in each.source)


def boxed(shell: Any, code: str) -> tuple[Any, Any]:
    """The one box that a cell shows and what is printed beside it."""
    from IPython.utils.capture import capture_output

    with capture_output() as captured:
        ran = shell.run_cell(code)
    (output,) = captured.outputs
    assert isinstance(ran.error_in_exec, ValueError) and 'class="opd-refused"' in output.data["text/html"]
    assert captured.stdout.strip() == refusal.SEE_BOX and not captured.stderr
    return output, captured


@pytest.mark.parametrize(
    ("name", "wrong", "said"), NOTEBOOKS, ids=[f"{name}-{next(iter(wrong))}" for name, wrong, _ in NOTEBOOKS]
)
def test_wrong_parameters_are_a_box_in_every_notebook(reader: Any, name: str, wrong: dict[str, Any], said: str) -> None:
    def loss(scores: Any, params: Any) -> Any:
        return scores.student_logp_N

    usual = {"profile": "tiny", "overrides": {}, "seeds": None, "results": None, "loss": loss}
    reader.push(usual | wrong)
    output, _ = boxed(reader, first_cell(name))
    assert said in output.data["text/plain"]


@pytest.mark.parametrize(("code", "said"), OTHERS, ids=["versus", "launch", "talk"])
def test_what_any_function_refuses_is_a_box(reader: Any, code: str, said: str) -> None:
    reader.push({"experiment": params.load(NAME, overrides={"train.steps": 3})})
    assert said in boxed(reader, code)[0].data["text/plain"]


@pytest.mark.parametrize("code", OWN, ids=["mine", "pandas", "a mistake in the library"])
def test_other_errors_keep_their_traceback(reader: Any, code: str) -> None:
    from IPython.utils.capture import capture_output

    with capture_output() as captured:
        ran = reader.run_cell(code)
    assert ran.error_in_exec is not None and not captured.outputs
    assert "Traceback" in captured.stdout and refusal.SEE_BOX not in captured.stdout


def test_a_handler_that_is_there_stays(shell: Any) -> None:
    shell.set_custom_exc((KeyError,), lambda *_, **__: None)
    refusal.install()
    assert shell.custom_exceptions == (KeyError,)


@every_mistake
def test_in_ipython_a_box_says_what_is_wrong_and_the_cell_stops(reader: Any, wrong: Any, said: list[str]) -> None:
    from IPython.utils.capture import capture_output

    with capture_output() as captured:
        ran = reader.run_cell(f"{cell(wrong)}\nafter = 1")
    (output,) = captured.outputs
    assert isinstance(ran.error_in_exec, ValueError) and "after" not in reader.user_ns
    assert all(words in output.data["text/plain"] for words in said)
    assert all(words in output.data["text/html"].replace("&#x27;", "'").replace("</b>", "") for words in said)
    assert refusal.SEE_BOX in captured.stdout and "Traceback" not in captured.stdout + captured.stderr
    assert "opd_lib" not in captured.stdout and said[0] not in captured.stdout, "it is said once, in the box"


@every_mistake
def test_without_ipython_it_is_a_plain_error(capsys: pytest.CaptureFixture[str], wrong: Any, said: list[str]) -> None:
    with pytest.raises(ValueError) as raised:
        notebook.begin(NAME, **wrong)
    assert type(raised.value) is ValueError and all(words in str(raised.value) for words in said)
    assert capsys.readouterr().out == ""


def test_a_message_is_escaped_and_has_a_paragraph_for_each_mistake() -> None:
    made = refusal.box("file.yaml:3: <key>: 'a' & b; write c\nseeds: 7")
    assert "<b>file.yaml:3: </b>&lt;key&gt;: &#x27;a&#x27; &amp; b; write c</p>" in made and "<b>seeds: </b>7" in made


@pytest.mark.process
@pytest.mark.parametrize("is_watched", [True, False], ids=["lab", "program"])
def test_a_kernel_shows_the_box_and_says_the_message_again_only_to_programs(kernel: Any, is_watched: bool) -> None:
    _, client = kernel
    wrong, said = WRONG[0]
    messages: list[dict[str, Any]] = []
    code = f"import sys; sys.path.insert(0, {str(paths.ROOT)!r})\n{cell(wrong)}"
    client.execute_interactive(code, timeout=240, allow_stdin=is_watched, output_hook=messages.append)
    (shown,) = [message["content"] for message in messages if message["msg_type"] == "display_data"]
    (error,) = [message["content"] for message in messages if message["msg_type"] == "error"]
    assert all(words in shown["data"]["text/html"] for words in said)
    assert all(words in error["evalue"] for words in said) and len(error["traceback"]) == 1
    assert (said[0] in error["traceback"][0]) == (not is_watched)


@pytest.mark.process
def test_papermill_fails_and_says_why(tmp_path: Path) -> None:
    wrong, said = WRONG[0]
    code = nbformat.v4.new_code_cell(f"import sys; sys.path.insert(0, {str(paths.ROOT)!r})\n{cell(wrong)}")
    made = nbformat.v4.new_notebook(cells=[code])
    made.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nbformat.write(made, tmp_path / "in.ipynb")
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", "in.ipynb", "out.ipynb"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and all(words in done.stderr for words in said)
    assert "params/experiment.py" not in done.stderr, "no frames of the library"
