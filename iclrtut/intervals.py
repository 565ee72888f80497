"""Intervals and tests over the seeds of a claim; `iclrtut.claims` judges by them."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

ALPHA = 0.05  # of every interval and test, two-sided
POWER = 0.8
EXACT = 40  # values whose signs are enumerated; of more, signs are drawn
DRAWS = 99_999
ROUNDING = 1e-9  # of the largest value; seeds that differ by less are equal


class Interval(NamedTuple):
    """A mean and its 95 % interval; nan bounds where there is none."""

    mean: float
    low: float
    high: float

    @property
    def width(self) -> float:
        """From end to end; 0 where there is no interval."""
        return self.high - self.low if self.low == self.low else 0.0


def standard_error(values: Sequence[float], overlap: float = 0.0) -> float:
    """The standard error of a mean over seeds; nan where the seeds show no spread.

    Args:
        values: one a seed.
        overlap: m / (N - m) where each seed tests on m inputs drawn anew from one set
            of N: such seeds are not independent, and the variance takes the factor
            1/n + m / (N - m) in place of 1/n (Nadeau and Bengio, 2003).
    """
    import numpy as np

    n = len(values)
    if n < 2 or np.ptp(values) <= ROUNDING * np.max(np.abs(values)):
        return math.nan
    return float(np.std(values, ddof=1) * math.sqrt(1 / n + overlap)) or math.nan


def t_interval(values: Sequence[float], overlap: float = 0.0) -> Interval:
    """Student's t interval (95 %) of a mean over seeds; see `standard_error`.

    Returns:
        Bounds are nan for one seed, and where all seeds are equal: an interval without
        width would decide everything.
    """
    from scipy import stats

    mean = math.fsum(values) / len(values)
    error = standard_error(values, overlap)
    half = float(stats.t.ppf(1 - ALPHA / 2, max(len(values) - 1, 1))) * error
    return Interval(mean, mean - half, mean + half)


def t_test(values: Sequence[float], overlap: float = 0.0) -> float:
    """Two-sided p of a mean of 0 by Student's t; nan where there is no interval."""
    from scipy import stats

    t = math.fsum(values) / len(values) / standard_error(values, overlap)
    return 2 * float(stats.t.sf(abs(t), max(len(values) - 1, 1)))


def wilson_interval(successes: float, trials: float) -> Interval:
    """Wilson's interval (95 %) of a share of independent trials."""
    from scipy import stats

    test = stats.binomtest(int(successes), int(trials))
    low, high = test.proportion_ci(method="wilson")
    return Interval(successes / trials, float(low), float(high))


def score_test(successes: float, trials: float, share: float) -> float:
    """Two-sided p of a share by the score test, of which Wilson's interval is made."""
    error = math.sqrt(share * (1 - share) / trials)
    return math.erfc(abs(successes / trials - share) / error / math.sqrt(2))


def normal_test(interval: Interval) -> float:
    """Two-sided p of a mean of 0, from an interval that is about normal."""
    from scipy import stats

    error = interval.width / (2 * stats.norm.ppf(1 - ALPHA / 2))
    return math.erfc(abs(interval.mean) / error / math.sqrt(2)) if error else math.nan


def sign_flip(values: Sequence[float]) -> float:
    """Two-sided p of the sign-flip test that the values lie evenly about 0.

    The share of all 2^n choices of signs whose sum is at least as far from 0 as the one
    measured. It assumes symmetry and no shape. Its least value is 2^(1 - n): 0.0625 for
    five seeds, which therefore decide nothing. The sums of both halves of the values
    are enumerated and put together by sorting; of more than 40 values, 99,999 choices
    are drawn, with a fixed seed.
    """
    import numpy as np

    n, sizes = len(values), np.abs(np.asarray(values, float))
    # A tie is as far, but rounds.
    least = abs(math.fsum(values)) - ROUNDING * float(sizes.sum())
    if n > EXACT:
        signs = np.random.default_rng(0).integers(0, 2, (DRAWS, n), dtype=np.int8)
        drawn = int((np.abs((2 * signs - 1) @ sizes) >= least).sum())
        return (1 + drawn) / (1 + DRAWS)
    one, other = _sums(sizes[: n // 2]), np.sort(_sums(sizes[n // 2 :]))
    far = int((len(other) - np.searchsorted(other, least - one)).sum())
    return min(1.0, 2 * far / float(2**n))


def _sums(sizes: Any) -> Any:
    """The sums of the values under all choices of signs, [2^n]."""
    import numpy as np

    sums = np.zeros(1)
    for size in sizes:
        sums = np.concatenate([sums - size, sums + size])
    return sums


def smallest_effect(values: Sequence[float], seeds: int, overlap: float = 0.0) -> float:
    """The smallest distance from the bound that so many seeds would have seen.

    A two-sided t test at 5 % with n seeds of standard deviation s finds a distance d
    with probability 80 % where the noncentral t distribution with n - 1 degrees of
    freedom and noncentrality d / (s sqrt(1/n + overlap)) has 80 % of its mass beyond
    the test's upper critical value. s is that of the values.

    Returns:
        In the unit of the values; nan where they show no spread.
    """
    scale = standard_error(values, overlap) / math.sqrt(1 / len(values) + overlap)
    return scale * math.sqrt(1 / seeds + overlap) * _noncentrality(seeds)


@lru_cache
def _noncentrality(seeds: int) -> float:
    from scipy import optimize, stats

    critical = float(stats.t.ppf(1 - ALPHA / 2, seeds - 1))

    def missing(nc: float) -> float:
        return float(stats.nct.sf(critical, seeds - 1, nc)) - POWER

    root = float(optimize.brentq(missing, 0.0, 4 * critical))
    return round(root, 9)  # as far as versions of SciPy agree on it


def holm(p: Sequence[float], alpha: float = ALPHA / 2) -> list[bool]:
    """Which tests of a family still reject after Holm's correction (1979).

    The i-th smallest of m must lie below alpha / (m - i + 1), and all before it too:
    then one false rejection or more happens in at most a share alpha of all families,
    however the tests depend on each other.

    Args:
        p: one a test.
        alpha: 0.025 by default, for tests that look to one side.
    """
    rejected = [False] * len(p)
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        if not p[i] <= alpha / (len(p) - rank):
            break
        rejected[i] = True
    return rejected
