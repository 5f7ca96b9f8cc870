"""How a quantity is written: sums, differences, products and quotients of numbers and of functions of constants.

A text is bounded before it is read, and what is read before anything is computed: a claims file costs what its claims
cost, whatever it says.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import simpleeval

LONGEST, DEEPEST, MOST = 1000, 32, 500
"""Characters, levels and parts of an expression."""
LARGEST = 1e9
"""No number is larger."""
OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    kind: simpleeval.DEFAULT_OPERATORS[kind] for kind in (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.USub, ast.UAdd)
}
PARTS = (ast.Expression, ast.BinOp, ast.UnaryOp, ast.Call, ast.Constant, ast.Load, *OPERATORS)


def parse(quantity: str, functions: Sequence[str]) -> ast.Expression:
    """A quantity's expression. Raises ValueError naming what is unknown in it, too long or too deep."""
    if len(quantity) > LONGEST:
        raise ValueError(f"quantity {quantity[:60]!r} …: {len(quantity)} characters; write at most {LONGEST}")
    try:
        tree = ast.parse(quantity.strip(), mode="eval")
    except SyntaxError as error:
        raise ValueError(f"quantity {quantity!r} cannot be read: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"quantity {quantity!r} cannot be read: {error}") from error
    level: list[ast.AST] = [tree]
    parts: list[ast.AST] = []
    for _ in range(DEEPEST):
        parts += level
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    if level or len(parts) > MOST:
        raise ValueError(f"quantity {quantity!r}: at most {DEEPEST} levels and {MOST} parts; make two claims of it")
    calls = [node for node in parts if isinstance(node, ast.Call)]
    inside = [part for call in calls for part in (call.func, *call.args)]
    for node in parts:
        if isinstance(node, ast.Call):
            _require_call(node, quantity, functions)
        elif isinstance(node, ast.Constant):
            _require_constant(node, quantity, is_argument=node in inside)
        elif not isinstance(node, PARTS) and node not in inside:
            what = ast.unparse(node) or type(node).__name__
            raise ValueError(f"quantity {quantity!r} cannot be evaluated: {what}: only + - * / and functions of texts")
    return tree


def require_arguments(name: str, function: Callable[..., object], arguments: Sequence[object]) -> None:
    """Raise ValueError unless a function, which is also given a view, takes these texts and numbers."""
    signature = inspect.signature(function)
    try:
        bound = signature.bind(None, *arguments)
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from error
    for key, given in bound.arguments.items():
        annotation = signature.parameters[key].annotation
        for value in given if isinstance(given, tuple) else (given,):  # *key gives all that it takes as one
            if isinstance(value, str) == (annotation == "float") and annotation in ("str", "float"):
                raise ValueError(f"{name}: {key}: {value!r}: write a {'text' if annotation == 'str' else 'number'}")


def evaluated(tree: ast.Expression, functions: Mapping[str, Callable[..., Any]]) -> Any:
    """The value of an expression that was read. Raises what its functions raise."""
    evaluator = simpleeval.SimpleEval(operators=OPERATORS, functions=dict(functions), names={})
    return evaluator.eval("", previously_parsed=tree.body)


def _require_call(node: ast.Call, quantity: str, functions: Sequence[str]) -> None:
    name = ast.unparse(node.func)
    if name not in functions:
        raise ValueError(f"quantity {quantity!r}: no function {name}; use {', '.join(functions)}")
    if node.keywords or any(isinstance(argument, ast.Starred) for argument in node.args):
        raise ValueError(f"quantity {quantity!r} cannot be evaluated: {name}: arguments go without names or stars")


def _require_constant(node: ast.Constant, quantity: str, is_argument: bool) -> None:
    value = node.value
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and value <= LARGEST
    if isinstance(value, str) and not is_argument:
        raise ValueError(f"quantity {quantity!r} cannot be evaluated: {value!r}: a text is an argument of a function")
    if not isinstance(value, str) and not is_number:
        what = f"a constant is a text or a number up to {LARGEST:g}"
        raise ValueError(f"quantity {quantity!r} cannot be evaluated: {what}")
