"""The floors of the package, read from its imports: a module imports from lower floors or its own wing."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "opd_lib"
SAME_WING = dict.fromkeys(("seam", "spelling"), "types")
FLOORS = {
    "types": 0, "paths": 0, "names": 0, "yaml_files": 0, "lifetime": 0, "inputs": 1,
    "maths": 1, "records": 1,
    "methods": 2, "tasks": 2, "judge": 2,
    "params": 3, "report": 3,
    "forecast": 4,
    "engine": 5,
    "bench": 6, "site": 6,
    "run": 7,
    "batch": 8,
    "command": 9,
}  # fmt: skip
MODULES = sorted(path.relative_to(LIBRARY).as_posix() for path in LIBRARY.rglob("*.py"))
TORCH_FREE = [m for m in MODULES if m == "maths/stats.py" or m.startswith(("records/", "judge/", "report/"))]
PYDANTIC_MAY_BE_IN = ("params/", "methods/", "tasks/", "judge/register.py", "judge/statement.py")
ENVIRONMENT_MAY_BE_READ_IN = (
    "bench/child.py",  # what the processes it starts are given besides
    "bench/timing.py",  # which accelerator the processes it starts see
    "engine/model/distributed.py",  # what launchers tell the processes they start, and which sockets those open
    "engine/sampling/rollout_vllm.py",  # what vLLM takes from there alone
    "run/processes.py",  # thread counts of the processes it starts
    "run/ranks.py",  # their places among the processes it starts
)
ENVIRONMENT = {"os.environ", "os.getenv"}
ONE_FILE_EACH = ("vllm",)
ONE_FOLDER_EACH = {"matplotlib": "report/figures/"}
HEAVY = ("torch", "transformers", "datasets", "accelerate", "matplotlib", "papermill", "pandas", "scipy")
MODULE_LINES, FUNCTION_LINES = 250, 60

every_module = pytest.mark.parametrize("module", MODULES)


def tree(module: str) -> ast.Module:
    return ast.parse((LIBRARY / module).read_text(encoding="utf-8"), filename=module)


def wing(module: str) -> str:
    """`maths/stats.py` → `maths`; `types.py` → `types`; the package itself → ``."""
    first = module.split("/")[0].removesuffix(".py")
    return "" if first == "__init__" else SAME_WING.get(first, first)


def dotted(node: ast.Import | ast.ImportFrom, module: str) -> Iterator[str]:
    """The full dotted names an import statement may load, relative ones resolved."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    base = node.module or ""
    if node.level:
        package = ["opd_lib", *module.split("/")][: -node.level]
        base = ".".join([*package, base] if base else package)
    yield from (f"{base}.{alias.name}" for alias in node.names)


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def nodes(root: ast.AST, for_types_too: bool) -> Iterator[ast.AST]:
    """Every node; those under `if TYPE_CHECKING:` only on request."""
    for child in ast.iter_child_nodes(root):
        if for_types_too or not is_type_checking(child):
            yield child
            yield from nodes(child, for_types_too)


def imports(module: str, for_types_too: bool = True) -> list[tuple[int, str]]:
    """(line, full dotted name) of every import of a module."""
    found = nodes(tree(module), for_types_too)
    statements = [node for node in found if isinstance(node, ast.Import | ast.ImportFrom)]
    return [(node.lineno, name) for node in statements for name in dotted(node, module)]


def top_levels(module: str, for_types_too: bool = True) -> set[str]:
    return {name.split(".")[0] for _, name in imports(module, for_types_too)}


@every_module
def test_module_lies_on_a_floor(module: str) -> None:
    assert wing(module) in FLOORS or module == "__init__.py", f"opd_lib/{module}: give its wing a floor"
    assert Path(module).stem not in {"utils", "helpers", "misc", "common"}, f"opd_lib/{module}: name its job"


@every_module
def test_imports_only_from_lower_floors(module: str) -> None:
    own = wing(module)
    for line, name in imports(module):
        parts = name.split(".")
        if parts[0] != "opd_lib":
            continue
        other = SAME_WING.get(parts[1], parts[1]) if len(parts) > 1 else ""
        if other not in FLOORS:  # the package's own names, such as __version__
            continue
        lower = FLOORS[other] < FLOORS.get(own, -1)
        assert lower or other == own, f"opd_lib/{module}:{line}: {own} may not import {name}"


def dotted_name(module: str) -> str:
    """`maths/stats.py` → `opd_lib.maths.stats`; a package is its `__init__`."""
    return ".".join(["opd_lib", *module.removesuffix(".py").split("/")]).removesuffix(".__init__")


def imported_modules(module: str, known: set[str]) -> set[str]:
    """The modules of the library that a module imports by name, for types too; of a package's names, the package."""
    found = set()
    for _, name in imports(module):
        while name and name not in known:
            name = name.rpartition(".")[0]
        found.add(name)
    return found - {"", dotted_name(module)}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The modules of one circle, in the order in which they import each other; empty if there is none."""
    done: set[str] = set()

    def walk(path: list[str]) -> list[str]:
        for other in sorted(graph[path[-1]] - done):
            if other in path:
                return [*path[path.index(other) :], other]
            if found := walk([*path, other]):
                return found
        done.add(path[-1])
        return []

    return next((found for module in sorted(graph) if module not in done and (found := walk([module]))), [])


def test_circles_are_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert not circle({"a": {"b", "c"}, "b": {"c"}, "c": set()})


def test_no_modules_import_each_other() -> None:
    """Neither when they are loaded nor for their types."""
    known = {dotted_name(module) for module in MODULES}
    found = circle({dotted_name(module): imported_modules(module, known) for module in MODULES})
    assert not found, f"a circle of imports: {' → '.join(found)}"


@pytest.mark.parametrize("module", TORCH_FREE)
def test_statistics_and_report_import_no_torch(module: str) -> None:
    assert not {"torch", "transformers", "accelerate"} & top_levels(module, for_types_too=False)


@pytest.mark.parametrize("package", ONE_FILE_EACH)
def test_imported_in_one_file_only(package: str) -> None:
    files = [module for module in MODULES if package in top_levels(module)]
    assert len(files) <= 1, f"{package} is imported in {files}"


@pytest.mark.parametrize(("package", "folder"), ONE_FOLDER_EACH.items())
def test_imported_in_one_folder_only(package: str, folder: str) -> None:
    elsewhere = [module for module in MODULES if package in top_levels(module) and not module.startswith(folder)]
    assert not elsewhere, f"{package} is imported in {elsewhere}"


@every_module
def test_pydantic_only_where_params_are_declared(module: str) -> None:
    if "pydantic" in top_levels(module):
        assert module.startswith(PYDANTIC_MAY_BE_IN), f"opd_lib/{module} imports pydantic"


@every_module
def test_module_and_function_lengths(module: str) -> None:
    length = len((LIBRARY / module).read_text(encoding="utf-8").splitlines())
    assert length <= MODULE_LINES, f"opd_lib/{module}: {length} lines, at most {MODULE_LINES}"
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            where = f"opd_lib/{module}:{node.lineno} {node.name}"
            assert length <= FUNCTION_LINES, f"{where}: {length} lines, at most {FUNCTION_LINES}"


@every_module
def test_public_names_have_docstrings(module: str) -> None:
    parsed = tree(module)
    assert ast.get_docstring(parsed) or not parsed.body, f"opd_lib/{module}: no module docstring"
    for node in parsed.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name[0] != "_":
            assert ast.get_docstring(node), f"opd_lib/{module}:{node.lineno} {node.name}: no docstring"


@every_module
def test_no_blind_except(module: str) -> None:
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ExceptHandler):
            caught = "" if node.type is None else ast.unparse(node.type)
            blind = node.type is None or "Exception" in caught.strip("()").replace(" ", "").split(",")
            assert not blind, f"opd_lib/{module}:{node.lineno}: except {caught}: name the error"


@every_module
def test_no_environment_variables(module: str) -> None:
    if module in ENVIRONMENT_MAY_BE_READ_IN:
        return
    for node in ast.walk(tree(module)):
        name = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        line = getattr(node, "lineno", 0)
        assert name not in ENVIRONMENT, f"opd_lib/{module}:{line}: {name}; take a parameter instead"
    assert not ENVIRONMENT & {name for _, name in imports(module)}, f"opd_lib/{module}"


REFUSAL = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {refused!r}:
            raise ImportError(f"{{name}} is refused here")
sys.meta_path.insert(0, Refuse())
"""


def error_without(refused: tuple[str, ...], code: str) -> str:
    """Run `code` in a fresh interpreter that cannot import `refused`; what it says on failure."""
    command = [sys.executable, "-c", REFUSAL.format(refused=refused) + code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    return "" if done.returncode == 0 else f"exit code {done.returncode}: {done.stderr[-2000:]}"


@pytest.mark.process
def test_report_works_without_torch() -> None:
    names = [f"opd_lib.{m.removesuffix('.py').removesuffix('/__init__').replace('/', '.')}" for m in TORCH_FREE]
    assert not error_without(("torch", "transformers"), f"import {', '.join(names)}")


@pytest.mark.process
def test_command_help_imports_nothing_heavy() -> None:
    if "command/cli.py" not in MODULES:
        pytest.skip("no command yet")
    code = "from typer.testing import CliRunner\nfrom opd_lib.command.cli import app\n"
    assert not error_without(HEAVY, code + "sys.exit(CliRunner().invoke(app, ['--help']).exit_code)")
