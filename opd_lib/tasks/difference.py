"""Whether two expressions that math-verify calls equal hold numbers that certainly differ.

math-verify rounds decimals to 10⁻⁶ and drops what is below 10⁻¹⁵ of a difference, whatever is compared. Here exact
numbers differ where the first DIGITS digits of their difference are known and not zero, and decimals where they are
more than RELATIVE of the larger apart. Expressions in the same symbols are compared at a point. Sets, tuples, intervals
and matrices are compared member by member. What cannot be evaluated does not certainly differ.
"""

from __future__ import annotations

from typing import Any

from sympy import Eq, Expr, Float, Integral, Interval, MatrixBase, Rational, Tuple, UnevaluatedExpr
from sympy.concrete.expr_with_limits import ExprWithLimits
from sympy.core.function import AppliedUndef, Derivative
from sympy.core.relational import Relational
from sympy.series.limits import Limit
from sympy.sets import FiniteSet

RELATIVE = 1e-5
DIGITS = 30
PRECISION = 1000  # digits carried at most, for differences that cancel
POINT = (Rational(13, 10), Rational(17, 7))  # the first symbol's value, and what the next ones add

_PERCENT = UnevaluatedExpr(Rational(1, 100))
_UNKNOWN = (Integral, ExprWithLimits, Derivative, Limit, AppliedUndef)


def differ(left: Any, right: Any) -> bool:
    """Whether two parsed answers certainly differ in a number they are or hold; False where that is not certain."""
    if isinstance(left, Relational) and isinstance(right, Relational):
        return left.lhs == right.lhs and differ(left.rhs, right.rhs)
    left, right = _value(left), _value(right)
    if isinstance(left, Expr) and isinstance(right, Expr):
        return _numbers_differ(left, right)
    members, others = _members(left), _members(right)
    if members is None or others is None or len(members) != len(others):
        return False
    return any(differ(one, other) for one, other in zip(members, others, strict=True))


def _value(found: Any) -> Any:
    return found.rhs if isinstance(found, Eq) else found


def _members(found: Any) -> list[Any] | None:
    """What a container holds, a set's members in the order of their values; None where that is no list of values."""
    if isinstance(found, Interval):
        return [found.start, found.end]
    if isinstance(found, MatrixBase):
        return list(found.flat())
    if isinstance(found, Tuple):
        return list(found.args)
    if isinstance(found, FiniteSet):
        members = [_value(member) for member in found.args]
        if all(isinstance(member, Expr) and member.is_extended_real and member.is_number for member in members):
            return sorted(members, key=lambda member: member.evalf(DIGITS))
    return None


def _numbers_differ(left: Expr, right: Expr) -> bool:
    if left.has(_PERCENT) != right.has(_PERCENT):  # to math-verify 50 % is 50 as well as 1/2
        whole = left.xreplace({_PERCENT: Rational(1)}), right.xreplace({_PERCENT: Rational(1)})
        part = left.xreplace({_PERCENT: Rational(1, 100)}), right.xreplace({_PERCENT: Rational(1, 100)})
        return _numbers_differ(*whole) and _numbers_differ(*part)
    if left.has(*_UNKNOWN) or right.has(*_UNKNOWN):
        return False
    symbols = sorted(left.free_symbols | right.free_symbols, key=str)
    if symbols:
        if left.free_symbols != right.free_symbols:
            return False
        point = {symbol: POINT[0] + place * POINT[1] for place, symbol in enumerate(symbols)}
        left, right = left.subs(point), right.subs(point)
    if left == right:
        return False
    if left.has(Float) or right.has(Float):
        return _decimals_differ(left, right)
    difference = left - right
    if difference.is_Rational:
        return bool(difference != 0)
    return any(
        isinstance(part, Float) and part._prec > 1 and part != 0
        for part in difference.evalf(DIGITS, maxn=PRECISION).as_real_imag()
    )


def _decimals_differ(left: Expr, right: Expr) -> bool:
    sizes = [abs(number.evalf(DIGITS)) for number in (left, right)]
    apart = abs((left - right).evalf(DIGITS))
    if not all(isinstance(number, Float | Rational) for number in (*sizes, apart)):
        return False
    return bool(apart > RELATIVE * max(sizes))
