"""The checks: they pass what is equal, and stop what is not with both values."""

import io
import sys

import numpy as np
import pytest
import sympy
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from iclrtut import checks
from iclrtut.checks import CheckFailed, at_most, close, monte_carlo, symbolic
from iclrtut.errors import BadRequest


@pytest.fixture(autouse=True)
def _forget():
    checks.passed.clear()
    yield
    checks.passed.clear()


def test_close_prints_one_line_with_its_numbers(capsys):
    close("3 4", "two sums", torch.tensor([1.0, 2.0]), np.array([1.0, 2.0]), tol=1e-12)
    assert capsys.readouterr().out == "✓ (3) (4) two sums, within 1e-12\n"
    assert checks.passed == [(3, "3"), (4, "4")]


def test_where_the_output_has_no_check_mark_a_word_stands_for_it(monkeypatch):
    for encoding, mark in (("ascii", b"ok"), ("utf-8", "✓".encode())):
        out = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding))
        close("3", "ones", 1.0, 1.0, tol=0.0)
        sys.stdout.flush()
        assert out.getvalue() == mark + b" (3) ones, within 0\n"


def test_close_takes_what_requires_gradients():
    close("1", "ones", torch.ones(2, requires_grad=True), torch.ones(2), tol=0.0)


def test_close_tells_both_values_and_passes_nothing():
    with pytest.raises(CheckFailed, match=r"✗ \(4\) sums: 2.0 and 2.5 differ .* 0.1"):
        close("4", "sums", [1.0, 2.0], [1.0, 2.5], tol=0.1)
    assert not checks.passed


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_close_refuses_what_is_not_finite(bad, side):
    sides = [[1.0, bad], [1.0, 2.0]]
    with pytest.raises(CheckFailed, match="not finite"):
        close("4", "sums", sides[side], sides[1 - side], tol=1.0)


def test_close_refuses_two_equal_infinities():
    with pytest.raises(CheckFailed, match="not finite"):
        close("4", "sums", np.inf, np.inf, tol=1.0)


def test_close_does_not_broadcast():
    with pytest.raises(CheckFailed, match=r"shapes \(2,\) and \(\) differ"):
        close("4", "sums", [1.0, 1.0], 1.0, tol=1.0)


@pytest.mark.parametrize(
    "check",
    [
        lambda nothing: close("4", "sums", nothing, nothing, tol=1.0),
        lambda nothing: at_most("4", "sums", nothing, 1.0),
        lambda nothing: monte_carlo("4", "sums", np.zeros((200, 0)), nothing),
    ],
)
def test_nothing_compared_is_nothing_passed(check):
    with pytest.raises(CheckFailed, match="nothing"):
        check(np.zeros(0))


def test_close_needs_a_tolerance_that_is_a_number():
    with pytest.raises(CheckFailed):
        close("4", "sums", 1.0, 2.0, tol=float("nan"))


@given(st.floats(-1e6, 1e6), st.floats(0, 1e3), st.floats(1e-9, 1e3), st.booleans())
def test_close_decides_by_the_absolute_difference(left, gap, tol, up):
    right = left + (gap if up else -gap)
    if abs(left - right) > tol:
        with pytest.raises(CheckFailed, match="differ by more"):
            close("1", "two numbers", left, right, tol)
    elif left and right and max(abs(left), abs(right)) <= tol:
        with pytest.raises(CheckFailed, match="the tolerance is"):
            close("1", "two numbers", left, right, tol)
    else:
        close("1", "two numbers", left, right, tol)


def test_close_refuses_a_tolerance_that_nothing_exceeds():
    with pytest.raises(
        CheckFailed, match=r"no value exceeds 0\.3, the tolerance is 0.5"
    ):
        close("4", "sums", [0.2, 0.3], [0.1, 0.3], tol=0.5)
    close("4", "sums", [0.2, 0.6], [0.1, 0.6], tol=0.5)
    close("4", "rounding, against none", [1e-17, -1e-17], [0.0, 0.0], tol=1e-12)


@pytest.mark.parametrize("bad", ["", "x", "9z9", "4,5"])
def test_equation_numbers_have_one_form(bad):
    with pytest.raises(BadRequest):
        close(bad, "one", 1.0, 1.0, tol=0.0)


def test_symbolic_passes_an_identity_and_shows_the_rest_of_another(capsys):
    x = sympy.symbols("x")
    symbolic("9a", "a square", (x + 1) ** 2, x**2 + 2 * x + 1)
    assert capsys.readouterr().out == "✓ (9a) a square, exactly\n"
    with pytest.raises(CheckFailed, match=r"leaves 1"):
        symbolic("9a", "a square", (x + 1) ** 2, x**2 + 2 * x)


def test_at_most_passes_at_the_bound_and_tells_what_exceeds_it(capsys):
    at_most("12", "norms", torch.tensor([0.5, 1.0]), 1.0)
    line = "✓ (12) norms, never above by more than 0, and reached\n"
    assert capsys.readouterr().out == line
    with pytest.raises(CheckFailed, match=r"1\.5.* exceeds 1\.0 by 0\.5"):
        at_most("12", "norms", np.array([0.5, 1.5]), 1.0, tol=0.1)
    at_most("12", "norms", 1.05, 1.0, tol=0.1)


@pytest.mark.parametrize(
    ("values", "bound", "near"),
    [
        ([0.1, 0.75], 1.0, "nearest 0.3 below"),
        ([0.1, np.nextafter(0.75, 1)], 1.0, "nearest 0.3 below"),
        ([3e4, -7e5], [3e4 + 2.2e-3, 1.0], "nearest 0.002 below"),
        ([1e9], [1e9 + 1e-3], "and reached"),
        ([1.0 + 1e-9], 1.0, "and reached"),
        ([0.0, -1.0], 0.0, "and reached"),
        ([-1e-20], 0.0, "nearest 1e-20 below"),
    ],
)
def test_at_most_says_how_near_the_nearest_value_comes(values, bound, near, capsys):
    at_most("12", "norms", values, bound, tol=1e-8 if near == "and reached" else 0)
    assert capsys.readouterr().out.rstrip().endswith(near)


def test_at_most_can_ask_for_a_value_near_the_bound(capsys):
    at_most("12", "norms", [0.1, 0.75], 1.0, slack=0.25)
    assert capsys.readouterr().out.rstrip().endswith(", nearest within 0.25")
    for far in (1.01, 2.0):
        with pytest.raises(CheckFailed, match=r"comes no nearer to .* asked is 0.25"):
            at_most("12", "norms", [0.1, 0.75], far, slack=0.25)
    with pytest.raises(CheckFailed, match=r"exceeds"):
        at_most("12", "norms", [0.1, 1.75], 1.0, slack=0.25)


def test_at_most_refuses_a_bound_that_nothing_exceeds():
    with pytest.raises(CheckFailed, match="infinite"):
        at_most("12", "norms", [0.5, 0.5], [1.0, np.inf])


@pytest.mark.parametrize("values", [[1.0, np.nan], [np.nan, np.nan], np.nan])
def test_at_most_refuses_nan(values):
    with pytest.raises(CheckFailed, match="nan"):
        at_most("12", "norms", values, 2.0)


def test_monte_carlo_passes_the_mean_and_prints_no_random_number(capsys):
    lines = []
    for seed in range(3):
        draws = np.random.default_rng(seed).normal(2.0, 3.0, (10_000, 4))
        monte_carlo("7", "means", draws, np.full(4, 2.0))
        lines.append(capsys.readouterr().out)
    assert lines[0] == "✓ (7) means, within 5.2 standard errors of 10,000 draws\n"
    assert len(set(lines)) == 1


def test_monte_carlo_tolerance_is_the_standard_error():
    """A bias of 4 standard errors passes, one of 6 does not, at any scale."""
    for scale in (1e-6, 1.0, 1e6):
        draws = scale * stats.norm.ppf((np.arange(10_000) + 0.5) / 10_000)
        error = draws.std(ddof=1) / 100
        monte_carlo("7", "mean", draws, 4 * error)
        with pytest.raises(CheckFailed, match="standard error"):
            monte_carlo("7", "mean", draws, 6 * error)


def test_monte_carlo_raises_few_false_alarms():
    """2,000 correct comparisons of 100 numbers each: none may fail (1e-6 each)."""
    rng = np.random.default_rng(1)
    for _ in range(2000):
        monte_carlo("7", "means", rng.normal(size=(400, 100)), np.zeros(100))


def test_monte_carlo_widens_with_the_number_of_comparisons():
    """The same deviation may occur once among 10,000 numbers, not alone."""
    base = stats.norm.ppf((np.arange(1000) + 0.5) / 1000)
    shift = 5.5 * base.std(ddof=1) / np.sqrt(1000)
    many = np.repeat(base[:, None], 10_000, axis=1)
    target = np.zeros(10_000)
    target[3] = shift
    monte_carlo("7", "means", many, target)
    with pytest.raises(CheckFailed):
        monte_carlo("7", "mean", base, shift)


def test_monte_carlo_of_what_is_constant_in_places():
    draws = np.stack([np.full(200, 0.3), np.arange(200)], axis=1)
    monte_carlo("7", "constant", draws, [0.3, 99.5])
    with pytest.raises(CheckFailed):
        monte_carlo("7", "constant", draws, [0.31, 99.5])


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_monte_carlo_refuses_samples_that_do_not_differ(value):
    with pytest.raises(CheckFailed, match="that is no draw"):
        monte_carlo("7", "constant", np.full(200, value), value)


# Samples whose mean is 0 and whose standard error is 0.01.
EVEN = np.tile([-1.0, 1.0], 5000) * np.sqrt(9999 / 10000)


def test_monte_carlo_says_how_far_the_nearest_wrong_value_is(capsys):
    for wrong, away in ((0.47, 40), ([0.47, -0.25, 3.0], 20), (9.9, 900)):
        monte_carlo("7", "mean", EVEN, 0.0, wrong=wrong)
        line = capsys.readouterr().out.rstrip()
        assert line.endswith(f", the nearest wrong value over {away} away")


def test_monte_carlo_takes_wrong_values_of_the_shape_of_the_right_one(capsys):
    """A wrong value is as far away as the farthest of its numbers."""
    pair = np.stack([EVEN, EVEN], axis=1)
    for wrong in ([0.0, 0.35], [[0.0, 0.35], [0.55, 0.0]]):
        monte_carlo("7", "means", pair, [0.0, 0.0], wrong=wrong)
        assert "over 30 away" in capsys.readouterr().out
    for unfit in (0.5, [0.5], [[0.5, 0.5, 0.5]], np.zeros((0, 2))):
        with pytest.raises(CheckFailed, match="do not fit"):
            monte_carlo("7", "means", pair, [0.0, 0.0], wrong=unfit)


@pytest.mark.parametrize("wrong", [0.0, 0.04, [3.0, 0.04], np.nan])
def test_monte_carlo_refuses_a_wrong_value_that_would_pass(wrong):
    with pytest.raises(CheckFailed, match="within the tolerance"):
        monte_carlo("7", "mean", EVEN, 0.0, wrong=wrong)


@pytest.mark.parametrize(
    ("draws", "exact"),
    [
        (np.full(200, np.nan), 0.0),
        (np.arange(200), np.nan),
        (np.arange(200), np.inf),
        (np.r_[np.zeros(199), np.nan], 0.0),
        (np.zeros(99), 0.0),
        (np.zeros((200, 2)), np.zeros(3)),
        (np.zeros((200, 2)), 0.0),
    ],
)
def test_monte_carlo_refuses_what_cannot_be_compared(draws, exact):
    with pytest.raises(CheckFailed):
        monte_carlo("7", "means", draws, exact)
