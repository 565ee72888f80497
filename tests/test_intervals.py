"""Intervals and tests over seeds, against enumeration, other routes and simulation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from iclrtut import intervals

VALUES = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30).filter(
    lambda values: np.ptp(values) > 1e-6 * max(1, np.max(np.abs(values)))
)
OVERLAP = st.sampled_from([0.0, 0.3, 1.0])


@given(VALUES, OVERLAP)
def test_the_t_interval_is_the_formula(values, overlap):
    found = intervals.t_interval(values, overlap)
    n, mean = len(values), math.fsum(values) / len(values)
    variance = math.fsum((v - mean) ** 2 for v in values) / (n - 1)
    half = stats.t.isf(0.025, n - 1) * math.sqrt(variance * (1 / n + overlap))
    assert found == pytest.approx((mean, mean - half, mean + half), abs=1e-9)
    assert found.width == pytest.approx(2 * half, abs=1e-9)


@given(VALUES, OVERLAP, st.floats(-1, 1))
def test_the_t_test_rejects_what_lies_outside_the_interval(values, overlap, place):
    interval = intervals.t_interval(values, overlap)
    bound = interval.mean + place * interval.width
    p = intervals.t_test([v - bound for v in values], overlap)
    if abs(abs(place) - 0.5) > 1e-6:
        assert (p < 0.05) == (abs(place) > 0.5)
    if not overlap:
        expected = stats.ttest_1samp(values, bound).pvalue
        assert p == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_the_t_interval_covers_19_times_in_20():
    rng = np.random.default_rng(0)
    found = [intervals.t_interval(rng.normal(1.0, 2.0, 5)) for _ in range(1000)]
    share = np.mean([i.low < 1.0 < i.high for i in found])
    assert abs(share - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 1000)


def test_seeds_that_split_one_small_set_need_the_correction():
    """Each of ten seeds averages m of N values; the truth is the mean of all worlds."""
    rng, m, N = np.random.default_rng(0), 50, 150
    plain = corrected = 0
    for _ in range(400):
        pool = rng.standard_normal(N)
        seeds = [rng.permutation(pool)[:m].mean() for _ in range(10)]
        plain += abs(intervals.t_interval(seeds).mean) < (
            intervals.t_interval(seeds).width / 2
        )
        wide = intervals.t_interval(seeds, m / (N - m))
        corrected += abs(wide.mean) < wide.width / 2
    assert plain / 400 < 0.85
    assert corrected / 400 > 0.95 - 4 * math.sqrt(0.95 * 0.05 / 400)


@pytest.mark.parametrize("values", [[2.0], [2.0] * 5, [0.1 + 0.2, 0.3], [0.0, 0.0]])
def test_seeds_without_spread_make_no_interval(values):
    found = intervals.t_interval(values)
    assert found.mean == pytest.approx(values[0])
    assert math.isnan(found.low) and math.isnan(found.high) and found.width == 0
    assert math.isnan(intervals.t_test(values))
    assert math.isnan(intervals.smallest_effect(values, 10))


@given(st.integers(1, 500), st.floats(0, 1))
def test_a_share_has_wilsons_interval(trials, share):
    successes = round(share * trials)
    found = intervals.wilson_interval(successes, trials)
    p, z = successes / trials, stats.norm.isf(0.025)
    centre = (p + z**2 / (2 * trials)) / (1 + z**2 / trials)
    root = math.sqrt(p * (1 - p) / trials + z**2 / (4 * trials**2))
    half = z * root / (1 + z**2 / trials)
    assert found == pytest.approx((p, centre - half, centre + half), abs=1e-9)


@given(st.integers(1, 500), st.floats(0, 1))
def test_the_score_test_is_at_5_percent_on_the_ends_of_wilsons_interval(trials, share):
    successes = round(share * trials)
    for end in intervals.wilson_interval(successes, trials)[1:]:
        if 1e-9 < end < 1 - 1e-9:
            p = intervals.score_test(successes, trials, end)
            assert p == pytest.approx(0.05, rel=1e-6)


def test_the_normal_test_is_at_5_percent_on_an_end():
    assert intervals.normal_test(intervals.Interval(1, 0, 2)) == pytest.approx(0.05)
    twice = intervals.normal_test(intervals.Interval(-1, -1.5, -0.5))
    assert twice == pytest.approx(2 * stats.norm.sf(2 * stats.norm.isf(0.025)))
    assert math.isnan(intervals.normal_test(intervals.Interval(1, 1, 1)))


# The sign-flip test


@given(st.lists(st.integers(-4, 4) | st.floats(-9, 9), min_size=1, max_size=9))
def test_the_sign_flip_test_is_the_enumeration(values):
    """Whole numbers make ties, which count as far."""
    total, far = abs(sum(values)), 0
    for signs in itertools.product((-1, 1), repeat=len(values)):
        flipped = abs(sum(s * v for s, v in zip(signs, values, strict=True)))
        far += flipped >= total - 1e-9 * sum(map(abs, values))
    assert intervals.sign_flip(values) == far / 2 ** len(values)


@pytest.mark.parametrize("n", [5, 10, 12])
def test_the_sign_flip_test_is_scipys(n):
    values = np.random.default_rng(n).normal(0.7, 1, n)
    theirs = stats.permutation_test(
        (values,), np.sum, permutation_type="samples", n_resamples=2**n
    )
    assert intervals.sign_flip(values) == pytest.approx(theirs.pvalue, rel=1e-12)


def test_five_seeds_never_pass_the_sign_flip_test_and_ten_may():
    assert intervals.sign_flip([1.0] * 5) == 0.0625 > intervals.ALPHA
    assert intervals.sign_flip([1.0] * 10) == 2**-9
    assert intervals.sign_flip([3.0]) == 1


def test_many_values_are_drawn_and_agree_with_the_enumeration():
    values = np.random.default_rng(3).normal(0.35, 1, intervals.EXACT)
    exact = intervals.sign_flip(values)
    drawn = intervals.sign_flip([*values, 0.0])  # a 0 changes no sum
    assert 0.01 < exact < 0.3
    assert abs(drawn - exact) < 5 * math.sqrt(exact / intervals.DRAWS)


# What could be seen, and luck


@pytest.mark.parametrize(("seeds", "overlap"), [(10, 0.0), (10, 0.5), (20, 0.0)])
def test_the_smallest_effect_is_seen_four_times_in_five(seeds, overlap):
    """Seeds that share a part have the variance that the correction assumes."""
    values, runs = [0.3, -1.2, 0.8, 2.0, -0.4], 4000
    effect, s = (
        intervals.smallest_effect(values, seeds, overlap),
        np.std(values, ddof=1),
    )
    rng = np.random.default_rng(0)
    drawn = effect + s * rng.standard_normal((runs, seeds))
    drawn += s * math.sqrt(overlap) * rng.standard_normal((runs, 1))
    found = [intervals.t_interval(each, overlap).low > 0 for each in drawn]
    assert abs(np.mean(found) - 0.8) < 4 * math.sqrt(0.8 * 0.2 / runs)


def test_ten_seeds_see_an_effect_of_one_deviation():
    """As tables of power have it."""
    effect = intervals.smallest_effect([-1.0, 1.0], 10) / math.sqrt(2)
    assert effect == pytest.approx(0.996, abs=5e-4)


def test_holm_is_the_closed_test_of_bonferroni():
    """A test rejects when every intersection that it is part of is rejected."""
    rng = np.random.default_rng(0)
    for _ in range(30):
        p = (rng.random(5) ** 4 / 4).tolist()
        found = intervals.holm(p, alpha=0.05)
        for i in range(5):
            sets = (
                others
                for size in range(1, 6)
                for others in itertools.combinations(range(5), size)
                if i in others
            )
            closed = all(min(p[j] for j in each) <= 0.05 / len(each) for each in sets)
            assert found[i] == closed
    assert intervals.holm([]) == []
    assert intervals.holm([math.nan, 1.0]) == [False, False]
