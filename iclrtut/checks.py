"""Checks: equations, tested numerically or symbolically.

A check compares two independent routes to one quantity, prints one line that begins
`✓ (n)` with the equation's number, and raises with both values when they differ. The
line is the same on every machine, so that notebooks can be compared to the letter.
"""

import sys
from typing import Any

from iclrtut.errors import BadRequest

# (number, label) of each equation checked, in the order of the checks. `Run.card`
# reads it to see whether the cells of a notebook were run from top to bottom.
passed: list[tuple[int, str]] = []


class CheckFailed(AssertionError):
    """Two routes to one quantity disagree."""


def close(numbers: str, what: str, left: Any, right: Any, tol: float) -> None:
    """Check that two arrays agree within `tol`, absolutely.

    Args:
        numbers: equation numbers, such as "4" or "9a 9b".
        what: what is compared, a few words.
        left, right: tensors, arrays or numbers of one shape.
        tol: largest absolute difference allowed, below the largest value compared;
            where one side is zero throughout, any.

    Raises:
        CheckFailed: shapes differ, a value is not finite, a difference exceeds tol, or
            tol is so large that zero would pass for either side.
    """
    import numpy as np

    a, b = _array(left), _array(right)
    if a.shape != b.shape:
        _fail(numbers, what, f"shapes {a.shape} and {b.shape} differ")
    if not a.size:
        _fail(numbers, what, "there is nothing to compare")
    with np.errstate(invalid="ignore"):
        difference = np.abs(a - b)
    if not np.isfinite(difference).all():
        worst = np.unravel_index(np.isfinite(difference).argmin(), difference.shape)
        _fail(numbers, what, f"not finite: {a[worst]} and {b[worst]}")
    if not difference.max() <= tol:
        worst = np.unravel_index(difference.argmax(), difference.shape)
        _fail(numbers, what, f"{a[worst]} and {b[worst]} differ by more than {tol:g}")
    largest = max(np.abs(a).max(), np.abs(b).max())
    if a.any() and b.any() and largest <= tol:
        _fail(numbers, what, f"no value exceeds {largest:g}, the tolerance is {tol:g}")
    _pass(numbers, f"{what}, within {tol:g}")


def monte_carlo(
    numbers: str, what: str, samples: Any, exact: Any, wrong: Any = None
) -> None:
    """Check the mean of independent samples against the exact expectation.

    The tolerance is the samples' own standard error, times the normal quantile that
    makes a false alarm anywhere among the compared numbers a one in a million event.

    Args:
        numbers: equation numbers, such as "7".
        what: what is compared, a few words.
        samples: independent samples, shape [n, ...], n at least 100.
        exact: the expectation, shape [...].
        wrong: what a wrong formula would give, shape [...], or several such, [k, ...].

    Raises:
        CheckFailed: a mean lies further from its expectation than the tolerance, or
            no further than that from a wrong one; or no sample differs from another.
    """
    import numpy as np
    from scipy import stats

    draws, target = _array(samples), _array(exact)
    if draws.shape[1:] != target.shape or len(draws) < 100:
        _fail(numbers, what, f"shapes {draws.shape} and {target.shape} do not fit")
    if not target.size:
        _fail(numbers, what, "there is nothing to compare")
    if not np.isfinite(target).all():
        _fail(numbers, what, f"the expectation {target} is not finite")
    if not np.ptp(draws, axis=0).any():
        _fail(numbers, what, f"all samples are {draws[0]}: that is no draw")
    error = draws.std(axis=0, ddof=1) / np.sqrt(len(draws))
    mean = draws.mean(axis=0)
    quantile = stats.norm.isf(0.5e-6 / max(1, target.size))
    # What is constant has no standard error, but its mean is rounded.
    tolerance = quantile * error + 1e-12 * (1 + np.abs(target))
    if not (np.abs(mean - target) <= tolerance).all():
        _fail(numbers, what, f"mean {mean}, expected {target}, standard error {error}")
    line = f"{what}, within {quantile:.1f} standard errors of {len(draws):,} draws"
    if wrong is not None:
        others = _array(wrong)
        if target.shape not in (others.shape, others.shape[1:]) or not others.size:
            _fail(numbers, what, f"wrong values of shape {others.shape} do not fit")
        others = others.reshape(-1, target.size)
        away = np.abs(others - mean.ravel()) / (tolerance / quantile).ravel()
        nearest = away.max(axis=1).min()
        if not nearest > quantile:
            why = f"a wrong value is {nearest:.1f} standard errors from the mean {mean}"
            _fail(numbers, what, f"{why}, within the tolerance")
        line += f", the nearest wrong value over {_floor(nearest):,.0f} away"
    _pass(numbers, line)


def symbolic(numbers: str, what: str, left: Any, right: Any) -> None:
    """Check that two SymPy expressions are equal.

    Args:
        numbers: equation numbers, such as "7".
        what: what is compared, a few words.
        left, right: expressions.

    Raises:
        CheckFailed: their difference does not simplify to zero.
    """
    import sympy

    remainder = sympy.simplify(left - right)
    if remainder != 0:
        _fail(numbers, what, f"{left} minus {right} leaves {remainder}")
    _pass(numbers, f"{what}, exactly")


def at_most(
    numbers: str,
    what: str,
    values: Any,
    bound: Any,
    tol: float = 0.0,
    slack: float | None = None,
) -> None:
    """Check an inequality: no value exceeds its bound by more than `tol`.

    The line says how near the nearest value comes to its bound, or that it comes as
    near as asked.

    Args:
        numbers: equation numbers, such as "7".
        what: what is bounded, a few words.
        values, bound: tensors, arrays or numbers that broadcast.
        tol: what rounding may add.
        slack: how near a value must come to its bound, somewhere. Without it, a bound
            that is far too high passes.

    Raises:
        CheckFailed: one does, one is not a number, a bound is infinite, or no value
            comes that near.
    """
    import numpy as np

    limit = _array(bound)
    excess = np.atleast_1d(_array(values) - limit)
    if not excess.size:
        _fail(numbers, what, "there is nothing to compare")
    if np.isposinf(limit).any():
        _fail(
            numbers, what, f"the bound {bound} is infinite, so that nothing exceeds it"
        )
    if not (excess <= tol).all():
        worst = np.unravel_index(excess.argmax(), excess.shape)  # nan is the largest
        over = excess[worst]
        _fail(
            numbers, what, f"{values} exceeds {bound} by {over:g}, allowed is {tol:g}"
        )
    gap = -excess.max()
    if slack is not None and not gap <= slack:
        why = f"{values} comes no nearer to {bound} than {gap:g}"
        _fail(numbers, what, f"{why}, asked is {slack:g}")
    # A hair more, so that rounding cannot turn what lies between two digits.
    near = f"nearest {gap * (1 + 1e-9):.1g} below"
    if gap <= max(tol, 1e-9 * np.abs(limit).max()):
        near = "and reached"
    elif slack is not None:
        near = f"nearest within {slack:g}"
    _pass(numbers, f"{what}, never above by more than {tol:g}, {near}")


def _floor(value: float) -> float:
    """A positive number, cut after its first digit."""
    import math

    step = 10.0 ** math.floor(math.log10(value))
    return math.floor(value / step) * step


def _array(values: Any) -> Any:
    import numpy as np

    if hasattr(values, "detach"):
        values = values.detach().cpu()
    return np.asarray(values, dtype=np.float64)


def sign(mark: str) -> str:
    """✓ or ○, or a word for it where the encoding of the output has neither."""
    try:
        mark.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return {"✓": "ok", "○": "open"}[mark]
    return mark


def _label(numbers: str) -> str:
    return " ".join(f"({n})" for n in numbers.split())


def _pass(numbers: str, line: str) -> None:
    for number in numbers.split() or [""]:
        digits = number.rstrip("abcdefgh")
        if not digits.isdecimal():
            raise BadRequest(f"equation number {number!r} is not of the form 4 or 9a.")
        passed.append((int(digits), number))
    print(f"{sign('✓')} {_label(numbers)} {line}")


def _fail(numbers: str, what: str, why: str) -> None:
    raise CheckFailed(f"✗ {_label(numbers)} {what}: {why}.")
