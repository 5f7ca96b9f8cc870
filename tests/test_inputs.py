"""What a caller or a file says: taken where its meaning is plain, else one error that names it, and nothing made."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from conftest import OPD, RUN
from ruamel.yaml import YAML

from opd_lib import inputs, methods, names, params, paths, yaml_files
from opd_lib.batch import redraw
from opd_lib.bench import speed
from opd_lib.params import Experiment
from opd_lib.run import evidence, plan


def load(world: Path, name: str = "01_opd", profile: str = "tiny", **options: Any) -> Experiment:
    return params.load(name, profile, results=world / "results", root=world / "params", **options)


def write(world: Path, name: str, content: dict[str, Any], profile: str = "tiny") -> None:
    folder = world / "params" / profile
    folder.mkdir(exist_ok=True)
    with (folder / f"{name}.yaml").open("w") as file:
        YAML().dump(content, file)


# ------------------------------------------------------------------------------------------------------------- names

NO_NAMES: tuple[Any, ...] = (
    "../../../evil", "/elsewhere/x", "", ".", "..", ".hidden", "-x", "_x", "a b", "a/b", "a\\b", "a\nb", "a\n", "a\0b",
    "é", "a:b", "x" * 65, None, 5, True,
)  # fmt: skip
RESERVED = {
    "arm": ("figures", "tables", "Tables", "notebook.ipynb", "notebook.log", "model", "checkpoint", "a.lock", "b.TMP"),
    "notebook": ("claims.csv", "model", "x.tmp"),
    "profile": ("local", "lab", "variants", "reference", "claims", "data", "site", "trackio", "wandb", "LOCAL"),
}


@pytest.mark.parametrize("name", NO_NAMES)
@pytest.mark.parametrize("kind", RESERVED)
def test_what_is_no_name_is_refused(kind: names.Kind, name: Any) -> None:
    with pytest.raises(ValueError, match=rf"is no name of an? {kind}; write letters"):
        names.require(name, kind)


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, taken in RESERVED.items() for name in taken])
def test_what_a_results_folder_uses_itself_is_no_name(kind: names.Kind, name: str) -> None:
    with pytest.raises(ValueError, match=rf"cannot be the name of an? {kind}"):
        names.require(name, kind)


def test_every_name_that_is_committed_is_one() -> None:
    for path in paths.PARAMS.glob("*/[0-9]*.yaml"):
        names.require(path.parent.name, "profile")
        names.require(path.stem, "notebook")
    for path in paths.NOTEBOOKS.glob("*.ipynb"):
        names.require(path.stem, "notebook")
    assert {path.parent.name for path in paths.PARAMS.glob("*/[0-9]*.yaml")} >= {"tiny", "paper", "gpu-math"}


@pytest.mark.parametrize("place", ["tables", "notebook.done.json", "figures", "claims.csv", "variants", "lab", "site"])
def test_names_that_the_library_writes_are_reserved(place: str) -> None:
    """The names stand in the library's own text as paths: were one renamed, the reserved one would go stale."""
    texts = "".join(path.read_text() for path in (paths.ROOT / "opd_lib").rglob("*.py") if path.stem != "names")
    assert f'"{place}"' in texts


@pytest.mark.parametrize("arm", ["../../../evil", "/elsewhere/x", "", ".hidden", "a\nb", "tables", "x" * 65])
def test_an_arm_that_is_no_name_is_refused_wherever_it_is_said(world: Path, arm: str) -> None:
    with pytest.raises(ValueError, match=r"overrides: 'arms\..*name of an arm"):
        load(world, overrides={f"arms.{arm}": {"train.steps": 2}})
    with pytest.raises(
        ValueError, match=r"overrides, arm plain of 01_opd: teacher: .*(name of an arm|is no run|line breaks)"
    ):
        load(world, overrides={"teacher": f"run:00_models/{arm}"})
    content = YAML().load(world / "params" / "tiny" / "01_opd.yaml")
    content["arms"] = {"fine": {}, arm: {}}
    write(world, "01_opd", content)
    with pytest.raises(ValueError, match=r"01_opd\.yaml, line \d+: arms: .*name of an arm"):
        load(world)
    assert not (world / "results").exists()


@pytest.mark.parametrize("key", ["null", "1", "1.5", "true", "2020-01-01", "[a]"])
def test_an_arm_whose_name_is_no_text_is_refused(world: Path, key: str) -> None:
    path = world / "params" / "tiny" / "01_opd.yaml"
    path.write_text(path.read_text().replace("  plain: {}", f"  {key}: {{}}"))
    with pytest.raises(ValueError, match=r"01_opd\.yaml, line \d+: key .* is no text"):
        load(world)


def test_arms_that_differ_in_capitals_alone_are_one_folder_on_some_machines(world: Path) -> None:
    with pytest.raises(ValueError, match=r"overrides: 'plain' and 'Plain' are one folder"):
        load(world, overrides={"arms.Plain": {"method.k": 4}})
    content = YAML().load(world / "params" / "tiny" / "01_opd.yaml")
    content["arms"]["PLAIN"] = {}
    write(world, "01_opd", content)
    with pytest.raises(ValueError, match=r"01_opd\.yaml: arms: 'plain' and 'PLAIN' are one folder"):
        load(world)


def test_notebooks_that_differ_in_capitals_alone_clash_and_a_name_means_that_very_file(world: Path) -> None:
    with pytest.raises(ValueError, match=r"01_OPD\.yaml: no such params file"):
        load(world, "01_OPD")
    (world / "notebooks").mkdir()
    for name in ("01_opd", "01_OPD"):
        (world / "notebooks" / f"{name}.ipynb").touch()
        (world / "params" / "tiny" / f"{name}.yaml").touch()
    with pytest.raises(ValueError, match=r"tiny: '01_OPD' and '01_opd' are one folder"):
        plan.notebooks("tiny", world / "params", world / "notebooks")


@pytest.mark.parametrize("name", ["../tiny/01_opd", "/elsewhere", "", ".", "01_opd\n", None])
def test_notebooks_and_profiles_are_names_wherever_they_are_read(world: Path, name: Any) -> None:
    for refused in (
        lambda: load(world, name),
        lambda: load(world, profile=name),
        lambda: plan.notebooks(name, world / "params", world / "notebooks"),
        lambda: evidence.records(name, world / "results"),
        lambda: speed.place(name, None),
    ):
        with pytest.raises(ValueError, match=r"is no name of a (notebook|profile)"):
            refused()
    with pytest.raises(ValueError, match=r"same_as|is no name|is no text"):
        load(world, overrides={"arms.mine": {"same_as": f"{name}/plain"}})
    if isinstance(name, str):
        with pytest.raises(
            ValueError, match=r"overrides, arm plain of 01_opd: (teacher|student): .*(is no|line breaks)"
        ):
            load(world, overrides={"teacher": f"run:{name}/student"})


def test_a_record_with_another_name_is_not_linked_elsewhere(world: Path, tmp_path: Path) -> None:
    import dataclasses

    from micro import write_record

    from opd_lib.records import record

    spec = load(world).spec("plain", 0)
    write_record(spec)
    found = record.read(spec.folder)
    assert found is not None
    with pytest.raises(ValueError, match=r"run\.json: '\.\./\.\./x' is no name of an arm"):
        redraw.link([dataclasses.replace(found, arm="../../x")], tmp_path / "view")
    assert not (tmp_path / "view").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("run:00_models/justrl-small", ("00_models", "justrl-small", None)),
        ("run:00_models/base-small-x0.5@7", ("00_models", "base-small-x0.5", 7)),
        ("run:00_models", "is no run"),
        ("run:/x", "is no name of a notebook"),
        ("run:00_models/x@", "'' is no seed"),
        ("run:00_models/x@-1", "'-1' is no seed"),
        ("run:00_models/x@1@2", "'1@2' is no seed"),
        ("run:00_models/x@" + "9" * 5000, "is no seed"),
    ],
)
def test_a_reference_to_a_run(text: str, expected: Any) -> None:
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            names.run_reference(text)
    else:
        found = names.run_reference(text)
        assert (found.notebook, found.arm, found.seed) == expected


# ---------------------------------------------------------------------------------- what papermill and Python hand over


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, {}),
        ('{"train.steps": 3}', {"train.steps": 3}),
        ({"train.steps": np.int64(3), "train.lr": np.float32(0.5)}, {"train.steps": 3, "train.lr": 0.5}),
        ({"evaluate.caps": np.array([4, 8]), "a": (1, 2)}, {"evaluate.caps": [4, 8], "a": [1, 2]}),
        ({"machine.shard": np.bool_(True), "x": {"y": np.array(2.5)}}, {"machine.shard": True, "x": {"y": 2.5}}),
        ({"train.lr": np.float64(0.1), "name": np.str_("a")}, {"train.lr": 0.1, "name": "a"}),
    ],
)
def test_overrides_whose_meaning_is_plain(given: Any, expected: dict[str, Any]) -> None:
    found = inputs.overrides(given)
    assert found == expected and json.loads(json.dumps(found)) == found
    assert all(type(value) is type(expected[key]) for key, value in found.items())


CYCLE: dict[str, Any] = {}
CYCLE["a"] = CYCLE


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{", r"overrides \{: not valid JSON"),
        ("", r"not valid JSON"),
        ("[1]", r"expected an object such as \{\"train\.steps\": 20\}"),
        ('{"train.steps": 1, "train.steps": 2}', r"key 'train\.steps' comes twice"),
        ('{"a": {"b": 1, "b": 2}}', r"key 'b' comes twice"),
        ('{"train.steps": ' + "9" * 5000 + "}", r"overrides \{\"train\.steps\": 9+: .*write a mapping"),
        ('{"a":' * 5000, "nested too deeply"),
        (5, r"overrides: 5: write a mapping of dotted keys"),
        (True, r"overrides: True: write a mapping"),
        ([("train.steps", 1)], r"overrides: \[\('train\.steps', 1\)\]: write a mapping"),
        ({5: 1}, r"overrides: key 5 is no text"),
        ({"a": {None: 1}}, r"overrides: a: key None is no text"),
        ({"train.steps": 10**5000}, r"overrides: train\.steps: a whole number of more than 63 bits"),
        ({"train.steps": {1, 2}}, r"overrides: train\.steps: \{1, 2\}: write a number, a text"),
        ({"train.steps": len}, r"overrides: train\.steps: <built-in"),
        (CYCLE, r"overrides: a\.a.*nested too deeply"),
    ],
)
def test_overrides_that_mean_nothing(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        inputs.overrides(given)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, (0,)), ("3,4", (3, 4)), ("3,", (3,)), ("[3, 4]", (3, 4)), ("[3]", (3,)), ([3, 4], (3, 4)),
        ((3,), (3,)), (range(2), (0, 1)), (np.arange(2), (0, 1)), ([np.int64(3)], (3,)),
    ],
)  # fmt: skip
def test_seeds_whose_meaning_is_plain(world: Path, given: Any, expected: tuple[int, ...]) -> None:
    found = load(world, seeds=given).seeds
    assert found == expected and all(type(seed) is int for seed in found)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (5, r"^seeds: 5: write which ones, such as \[0, 1, 2\].*-p seeds 0,1,2 \(one: 0,\)"),
        (np.int64(1), r"^seeds: .*1.*: write which ones"),
        (np.array(1), r"^seeds: .*: write which ones"),
        ("1", r"^seeds: '1': write which ones"),
        ({0, 1}, r"^seeds: \{0, 1\}: write which ones"),
        (True, r"^seeds: True: write which ones"),
        (1.0, r"^seeds: 1\.0: write which ones"),
        ("0,a", r"^seeds 0,a: not a number"),
        ("0,-1", r"^seeds 0,-1: not a number"),
        ([0, 0], r"^seeds: \[0, 0\]: name at least one, and each once"),
        ([], r"^seeds: \[\]: name at least one"),
        ("[]", r"^seeds: \[\]: name at least one"),
        ([1000], r"^seeds: 1000 is out of range; use whole numbers from 0 to 999"),
        ([0.0], r"^seeds: 0\.0 is out of range"),
        ([True], r"^seeds: True is out of range"),
        ([10**5000], r"^seeds: a whole number of more than 63 bits is out of range"),
    ],
)
def test_seeds_that_mean_nothing_or_two_things(world: Path, given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(world, seeds=given)


@pytest.mark.parametrize("given", ["", "  ", 5, "a\0b", True])
def test_a_results_folder_that_is_none(world: Path, given: Any) -> None:
    with pytest.raises(ValueError, match=r"results: .*write the name of a folder"):
        params.load("01_opd", results=given, root=world / "params")


def test_a_notebook_takes_what_papermill_makes_of_its_words() -> None:
    """The one that adds to its overrides: they may be a text. On committed records alone, so nothing is trained."""
    given = {"profile": "tiny", "overrides": "{}", "seeds": "0,", "results": None}
    redraw.execute(paths.NOTEBOOKS / "92_your_own_method.ipynb", given)


# ----------------------------------------------------------------------------------------------- whom an error blames


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"train.stepz": 2}, r"train\.stepz: unknown key; did you mean train\.steps\?"),
        ({"train.steps": "2"}, r"train\.steps: '2': "),
        ({"train": RUN["train"] | {"stepz": 2}}, r"train\.stepz: unknown key"),
        ({"method.name": "opdd"}, r"method\.name: 'opdd' is unknown"),
        ({"method.k": 999}, r"method\.k: 999"),
        ({"source.temperature": 0.5}, r"source: temperature 0\.5"),
        ({"teacher": None}, r"teacher: null"),
    ],
)
def test_what_overrides_break_they_are_blamed_for(world: Path, overrides: dict[str, Any], message: str) -> None:
    """Also where the arm is another notebook's run: no file is named, for none is wrong."""
    content = RUN | {"student": "run:00_models/student", "teacher": "run:00_models/teacher", "method": OPD}
    write(world, "02_more", content | {"arms": {"theirs": {"same_as": "01_opd/plain"}, "own": {}}})
    write(world, "03_all_shared", content | {"arms": {"theirs": {"same_as": "01_opd/plain"}}})
    for name, arm in (("01_opd", "plain of 01_opd"), ("02_more", "own of 02_more"), ("03_all_shared", "plain of 01_")):
        with pytest.raises(ValueError, match=rf"^overrides, arm {arm}.*: {message}") as error:
            load(world, name, overrides=overrides)
        assert ".yaml" not in str(error.value)
    with pytest.raises(ValueError, match=rf"^overrides, arm mine of 01_opd: {message}"):
        load(world, overrides={"arms.mine": overrides})


def test_what_a_file_has_wrong_it_is_blamed_for_also_under_overrides(world: Path) -> None:
    content = YAML().load(world / "params" / "tiny" / "01_opd.yaml")
    content["train"]["lr"] = "big"
    write(world, "01_opd", content)
    with pytest.raises(ValueError, match=r"01_opd\.yaml, line \d+, arm plain: train\.lr: 'big'"):
        load(world, overrides={"train.steps": 2})


def test_a_params_file_that_is_missing_says_where_it_is(world: Path) -> None:
    write(world, "02_more", RUN | {"arms": {"own": {}}}, profile="large")
    with pytest.raises(ValueError, match=r"tiny/02_more\.yaml: .*has 00_models, 01_opd; 02_more is at large$"):
        load(world, "02_more")
    with pytest.raises(ValueError, match=r"no such profile huge; choose from large, tiny"):
        load(world, profile="huge")
    with pytest.raises(
        ValueError, match=r"--only 02_more: no such notebook of this profile; choose from 01_opd; 02_more is at large"
    ):
        plan.choose(["02_more"], ("01_opd",), "tiny", world / "params")


# ------------------------------------------------------------------------------------------------- damaged YAML files


def bomb() -> str:
    """A few lines whose aliases stand for nine to the twelfth values."""
    lines = ["bomb:", "  - &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"  - &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    return "\n".join(lines) + "\n"


DAMAGED: dict[str, tuple[bytes, str]] = {
    "a key twice": (b"title: a\ntitle: b\n", "duplicate key .title."),
    "a merge of itself": (b"a: &a\n  <<: *a\n  b: 1\n", r"line 2: \*a contains itself"),
    "a list in itself": (b"a: &a [*a]\n", r"line 1: \*a contains itself"),
    "aliases of aliases": (bomb().encode(), r"line \d+: its aliases stand for more than"),
    "one anchor twice": (b"a: &x 1\nb: &x 2\n", r"line 2: &x: a second anchor"),
    "no such anchor": (b"a: *x\n", "undefined alias"),
    "a tag of Python": (b"a: !!python/object:os.system x\n", r"line 1: tag:.*python.*: a tag; write the value without"),
    "a tag of its own": (b"a: 1\nb: !x 5\n", r"line 2: !x: a tag"),
    "a NUL byte": (b"a: x\0y\n", "not valid YAML: unacceptable character"),
    "Latin 1": (b"a: 1\nb: caf\xe9\n", r"line 2: not UTF-8 .*save it as UTF-8"),
    "UTF-16": ("a: 1\n".encode("utf-16"), "not UTF-8"),
    "a tab": (b"a:\n\tb: 1\n", "not valid YAML: .*cannot start any token"),
    "5,000 digits": (b"a: " + b"9" * 5000, "cannot be read: Exceeds the limit"),
    "1,000 digits": (b"a: " + b"9" * 1000, "a whole number of more than 63 bits"),
    "no such day": (b"a: 2020-13-45\n", "cannot be read: month must be"),
    "depth": (b"a: " + b"[" * 3000 + b"]" * 3000, "nested too deeply"),
    "depth and an anchor": (b"b: &x 1\na: " + b"[" * 3000 + b"]" * 3000, "nested too deeply"),
    "depth in dashes": (b"a:\n  " + b"- " * 3000 + b"x\n", "nested too deeply"),
    "depth in columns": (b"".join(b" " * i + b"a:\n" for i in range(700)), "nested too deeply"),
    "two documents": (b"a: 1\n---\nb: 2\n", "expected a single document"),
    "nothing": (b"", "expected a mapping of keys, found NoneType"),
    "a list": (b"- a\n", "expected a mapping of keys, found CommentedSeq"),
    "2 MB": (b"a: 1 #" + b"x" * 2_000_000, "2000006 bytes, at most"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_file_is_one_error_that_names_it(world: Path, kind: str) -> None:
    content, message = DAMAGED[kind]
    path = world / "params" / "tiny" / "01_opd.yaml"
    path.write_bytes(content)
    begin = perf_counter()
    with pytest.raises(ValueError, match=message) as error:
        load(world)
    assert str(path) in str(error.value) and len(str(error.value)) < 1000 and perf_counter() - begin < 5


def test_a_folder_in_the_place_of_a_file_is_named(world: Path) -> None:
    (world / "params" / "tiny" / "02_folder.yaml").mkdir()
    with pytest.raises(ValueError, match=r"02_folder\.yaml: cannot be read \(Is a directory\)"):
        load(world, "02_folder")


def test_line_ends_a_byte_order_mark_anchors_and_merges_change_nothing(world: Path) -> None:
    path = world / "params" / "tiny" / "01_opd.yaml"
    expected, text = load(world), path.read_text()
    for content in (text.replace("\n", "\r\n").encode(), b"\xef\xbb\xbf" + text.encode()):
        path.write_bytes(content)
        assert load(world).arms == expected.arms
    with_anchors = text.replace("shard: false", "shard: &no false").replace("gradient: true", "gradient: &yes true")
    assert "&no" in with_anchors and "&yes" in with_anchors
    path.write_text(with_anchors)
    assert load(world).arms == expected.arms, "ruamel makes integers of booleans that have an anchor"
    path.write_text(text.replace("  plain: {}", "  first: &f {method.k: 4}\n  plain: {<<: *f}"))
    assert load(world).arms["plain"].method["k"] == 4


def test_plain_python_has_no_type_of_ruamels() -> None:
    text = "a: &b true\nc: 0x1F\nd: 1.50\ne: 'x'\nf: |\n  y\ng: [*b, 1_000]\n"
    found = yaml_files.plain(YAML().load(text))
    assert found == {"a": True, "c": 31, "d": 1.5, "e": "x", "f": "y\n", "g": [True, 1000]}
    values = [found["a"], found["c"], found["d"], found["e"], found["f"], *found["g"]]
    assert [type(value) for value in values] == [bool, int, float, str, str, bool, int]


# ----------------------------------------------------------------------------------------------- a method's broken file

BROKEN = {
    "syntax": ("def value(:\n", r"wrong\.py, line 1: SyntaxError: "),
    "a name": ("import math\n\nNEEDS = fozenset()\n", r"wrong\.py, line 3: NameError: .*fozenset"),
    "an import": ("import no_such_package_here\n", r"wrong\.py, line 1: ModuleNotFoundError: "),
    "a division": ("x = 1 / 0\n", r"wrong\.py, line 1: ZeroDivisionError"),
    "no value": ("NEEDS = frozenset()\n", r"wrong\.py defines no Params, value; see .*methods/__init__\.py"),
    "what it needs": (
        "from pydantic import BaseModel\nclass Params(BaseModel): pass\nNEEDS = frozenset({'techer'})\nvalue = 0\n",
        r"wrong\.py: NEEDS: write a frozenset of reward, teacher, teachers or nothing",
    ),
    "its Params": ("Params = 5\nNEEDS = frozenset()\ndef value(): pass\n", r"wrong\.py: Params: write a frozen class"),
}


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The text of a method called `wrong` that stands beside the others, as a file elsewhere."""
    import sys

    path = tmp_path / "wrong.py"
    path.write_text("x = 1\n")
    found = methods.names()
    monkeypatch.setattr(methods, "names", lambda: (*found, "wrong"))
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    monkeypatch.setattr(methods, "file", lambda name: path if name == "wrong" else Path(methods.__file__))
    yield path
    sys.modules.pop("opd_lib.methods.wrong", None)


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_method_is_an_error_of_who_asks_for_it_alone(world: Path, wrong: Path, kind: str) -> None:
    text, message = BROKEN[kind]
    wrong.write_text(text)
    with pytest.raises(ValueError, match=rf"overrides, arm plain of 01_opd: method\.name: wrong: .*{message}"):
        load(world, overrides={"method": {"name": "wrong"}})
    with pytest.raises(ValueError, match=r"method\.suport: unknown key; did you mean support\?"):
        load(world, overrides={"method": {key.replace("pp", "p"): value for key, value in OPD.items()}})
    assert load(world).arms["plain"].method["name"] == "opd"


def test_numbers_of_an_own_objective_are_finite(world: Path) -> None:
    own = {"name": "own", "source": "def value(scores, params):\n    return None\n", "k": 4}
    assert load(world, overrides={"method": own | {"options": {"a": 1, "b": True, "c": "x", "d": 0.5}}}).arms
    for value in (math.inf, -math.inf, math.nan):
        with pytest.raises(ValueError, match=r"method\.options: .*: b is -?(inf|nan); use a finite number") as error:
            load(world, overrides={"method": own | {"options": {"a": 1.0, "b": value}}})
        assert "\n" not in str(error.value)
