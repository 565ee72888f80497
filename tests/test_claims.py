"""Claims: intervals against other routes, and the rule's truth table."""

import math

import numpy as np
import pytest
import toy
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from iclrtut import claims
from iclrtut.claims import FAILS, HOLDS, UNDECIDED, Interval, above, below
from iclrtut.errors import BadRequest

VALUES = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30)


@given(VALUES)
def test_mean_interval_is_the_t_interval(values):
    found = claims.mean_interval(values)
    n, mean = len(values), math.fsum(values) / len(values)
    variance = math.fsum((v - mean) ** 2 for v in values) / (n - 1)
    half = stats.t.isf(0.025, n - 1) * math.sqrt(variance / n)
    assert found == pytest.approx((mean, mean - half, mean + half), abs=1e-9)


@given(VALUES)
def test_mean_interval_holds_the_values_a_t_test_does_not_reject(values):
    low, high = claims.mean_interval(values)[1:]
    if high - low < 1e-6:
        return
    for bound in (low, high):
        assert stats.ttest_1samp(values, bound).pvalue == pytest.approx(0.05, rel=1e-4)


def test_mean_interval_covers_19_times_in_20():
    rng = np.random.default_rng(0)
    found = [claims.mean_interval(rng.normal(1.0, 2.0, 5)) for _ in range(2000)]
    share = np.mean([i.low < 1.0 < i.high for i in found])
    assert abs(share - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 2000)


def test_one_value_gives_no_interval():
    found = claims.mean_interval([2.0])
    assert found.mean == 2.0
    assert math.isnan(found.low) and math.isnan(found.high)


@given(st.integers(1, 500), st.floats(0, 1))
def test_share_interval_is_wilsons(trials, share):
    successes = round(share * trials)
    found = claims.share_interval(successes, trials)
    p, z = successes / trials, stats.norm.isf(0.025)
    centre = (p + z**2 / (2 * trials)) / (1 + z**2 / trials)
    root = math.sqrt(p * (1 - p) / trials + z**2 / (4 * trials**2))
    half = z * root / (1 + z**2 / trials)
    assert found == pytest.approx((p, centre - half, centre + half), abs=1e-9)


def test_a_claim_pools_the_trials_of_a_share_and_averages_the_rest():
    seeds = [
        {"value": 0.5, "successes": 1.0, "trials": 2.0},
        {"value": 1.0, "successes": 8.0, "trials": 8.0},
    ]
    share = toy.CHAPTER.claim("often").interval(seeds)
    assert share == claims.share_interval(9, 10)
    assert toy.CHAPTER.claim("better").interval(seeds) == claims.mean_interval([0.5, 1])


@pytest.mark.parametrize(
    ("low", "high", "over", "under"),
    [
        (0.1, 0.3, HOLDS, FAILS),
        (-0.3, -0.1, FAILS, HOLDS),
        (-0.1, 0.1, UNDECIDED, UNDECIDED),
        (0.0, 0.1, UNDECIDED, UNDECIDED),
        (-0.1, 0.0, UNDECIDED, UNDECIDED),
        (0.0, 0.0, UNDECIDED, UNDECIDED),
        (math.nan, math.nan, UNDECIDED, UNDECIDED),
    ],
)
def test_truth_table_of_the_rule(low, high, over, under):
    interval = Interval((low + high) / 2, low, high)
    assert above(0).verdict(interval) == over
    assert below(0).verdict(interval) == under


@given(VALUES, st.floats(-1e3, 1e3))
def test_above_and_below_mirror_each_other(values, bound):
    interval = claims.mean_interval(values)
    mirrored = Interval(-interval.mean, -interval.high, -interval.low)
    assert above(bound).verdict(interval) == below(-bound).verdict(mirrored)
    opposite = {HOLDS: FAILS, FAILS: HOLDS, UNDECIDED: UNDECIDED}
    assert below(bound).verdict(interval) == opposite[above(bound).verdict(interval)]


def test_a_rule_says_itself():
    assert str(above(0.8)) == "95 % interval lies above 0.8"
    assert str(below(3)) == "95 % interval lies below 3"


def test_an_undeclared_claim_is_refused_with_those_that_are_declared():
    with pytest.raises(BadRequest, match="'fast': use one of faster, better, often"):
        toy.CHAPTER.claim("fast")


@pytest.mark.parametrize("slug", ["no_such_chapter", "", None, 3, "__init__"])
def test_an_unknown_chapter_is_refused_with_those_there_are(slug):
    with pytest.raises(BadRequest, match=r"use one of .*energy_based_classifier"):
        claims.chapter(slug)


@pytest.mark.parametrize("slug", claims.slugs())
def test_every_chapter_declares_itself_whole(slug):
    chapter = claims.chapter(slug)
    ids = [claim.id for claim in chapter.claims]
    assert chapter.slug == slug
    assert tuple(chapter.settings) == claims.PROFILES
    assert len(ids) == len(set(ids)) > 0
    assert all(id.replace("_", "").isalnum() and id.islower() for id in ids)
    assert chapter.difficulty in ("gentle", "middling", "steep")
    texts = [chapter.title, chapter.paper, chapter.authors, chapter.idea]
    for claim in chapter.claims:
        texts += [claim.sentence, claim.source, claim.statistic]
        assert claim.rule.side in ("above", "below")
    assert all(texts) and chapter.url.startswith("https://")
