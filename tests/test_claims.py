"""Claims: what each kind makes of its seeds, and the rule's truth table."""

import math
import re
import typing
from dataclasses import replace

import numpy as np
import pytest
import toy
from hypothesis import given
from hypothesis import strategies as st

from iclrtut import claims
from iclrtut.claims import FAILS, HOLDS, UNDECIDED, above, below
from iclrtut.errors import BadRequest
from iclrtut.intervals import (
    Interval,
    sign_flip,
    smallest_effect,
    t_interval,
    wilson_interval,
)

OVER = above(0)


def judged(values, rule=OVER, overlap=0.0, **more):
    """The judgement of a claim over seeds that measured these values."""
    claim = claims.Claim("a", "A", "b", "c", rule, "none", **more)
    measured = [v if isinstance(v, dict) else {"value": v} for v in values]
    return claim.judge(measured, overlap)


TEN = [1.0, 1.4, 0.7, 2.0, 0.9, 1.1, 1.6, 0.4, 1.3, 0.8]


# Means


def test_a_mean_holds_where_interval_and_sign_flip_agree():
    found = judged(TEN)
    assert found.interval == t_interval(TEN)
    assert (found.sign_flip, found.verdict) == (sign_flip(TEN), HOLDS)
    assert judged(TEN, below(0)).verdict == FAILS
    assert judged(TEN, above(1)).verdict == UNDECIDED


def test_five_seeds_decide_no_mean():
    """Their sign-flip test cannot pass, however far the interval lies."""
    found = judged([100.0, 101, 102, 103, 104])
    assert found.interval.low > 90 and found.sign_flip == 0.0625
    assert found.verdict == UNDECIDED


def test_an_interval_alone_decides_nothing_nor_does_the_sign_flip_test():
    """Values between which the two tests disagree, one way and the other."""
    one = [0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 4.0]
    found = judged(one)
    assert found.sign_flip == 2**-9 and found.interval.low < 0
    assert found.verdict == UNDECIDED
    other = judged([1.0, 1.1, 1.2, 1.1, 1.0])
    assert other.interval.low > 0 and other.verdict == UNDECIDED


@pytest.mark.parametrize("values", [[3.0] * 10, [3.0], [0.1 + 0.2] * 9 + [0.3]])
def test_seeds_that_read_the_same_decide_no_mean(values):
    found = judged(values)
    assert found.verdict == UNDECIDED and found.p == 1
    assert math.isnan(found.interval.low) and math.isnan(found.sign_flip)


@given(st.lists(st.floats(0.01, 100), min_size=2, max_size=12), st.floats(0.1, 10))
def test_on_a_log_scale_units_and_inverses_change_nothing(values, unit):
    if np.ptp(values) < 1e-3:
        return
    found = judged(values, above(2), log=True)
    scaled = judged([unit * v for v in values], above(2 * unit), log=True)
    inverse = judged([1 / v for v in values], below(1 / 2), log=True)
    for other in (scaled, inverse):
        assert other.verdict == found.verdict
        assert other[1:4] == pytest.approx(found[1:4], rel=1e-6, nan_ok=True)
    logs = t_interval(np.log(values).tolist())
    assert np.log(found.interval) == pytest.approx(logs, abs=1e-9)


def test_the_correction_for_one_small_set_widens_an_interval():
    plain, corrected = judged(TEN), judged(TEN, overlap=2)
    assert corrected.interval == t_interval(TEN, 2)
    assert (plain.verdict, corrected.verdict) == (HOLDS, UNDECIDED)
    assert math.isnan(plain.smallest)
    assert corrected.smallest == smallest_effect(TEN, 10, 2)


def test_what_ten_seeds_could_have_seen_is_said_where_it_is_undecided():
    few = [0.1, -0.3, 0.4]
    assert judged(few).smallest == smallest_effect(few, 10)
    many = [0.1, -0.3, 0.4, 0.0] * 5
    assert judged(many).smallest == smallest_effect(many, 20)
    logs = judged([math.exp(v) for v in few], above(1), log=True)
    assert logs.smallest == pytest.approx(math.exp(smallest_effect(few, 10)))


def test_inputs_that_all_seeds_share_widen_an_interval():
    """The interval over the inputs counts where it is the wider one."""
    narrow = [{"value": v, "low": v - 0.1, "high": v + 0.1} for v in TEN]
    wide = [{"value": v, "low": v - 2, "high": v + 1.5} for v in TEN]
    over_seeds = judged(narrow, same_inputs=True)
    assert over_seeds.interval == t_interval(TEN) and over_seeds.verdict == HOLDS
    over_inputs = judged(wide, same_inputs=True)
    mean = sum(TEN) / 10
    assert over_inputs.interval == pytest.approx((mean, mean - 2, mean + 1.5))
    assert over_inputs.verdict == UNDECIDED and over_inputs.p > over_seeds.p


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12), st.floats(-1e3, 1e3))
def test_above_and_below_mirror_each_other(values, bound):
    over, under = judged(values, above(bound)), judged(values, below(bound))
    mirrored = judged([-v for v in values], below(-bound))
    assert mirrored.verdict == over.verdict
    opposite = {HOLDS: FAILS, FAILS: HOLDS, UNDECIDED: UNDECIDED}
    assert under.verdict == opposite[over.verdict]
    if over.interval.width:
        assert over.p + under.p == pytest.approx(1)


# Shares


def shares(*counts):
    """Measurements of shares, from successes and trials a seed."""
    return [{"value": k / n, "successes": k, "trials": n} for k, n in counts]


def test_a_share_takes_the_wider_of_two_intervals():
    even = judged(shares(*[(80, 100)] * 5), above(0.5), kind="share")
    assert even.interval == wilson_interval(400, 500)
    apart = [(99, 100), (60, 100), (95, 100), (70, 100), (76, 100)]
    found = judged(shares(*apart), above(0.5), kind="share")
    t = t_interval([k / n for k, n in apart])
    assert t.width > wilson_interval(400, 500).width
    assert found.interval[:2] == t[:2] and found.interval.high == min(t.high, 1)
    assert (even.verdict, found.verdict) == (HOLDS, HOLDS)
    assert judged(shares(*apart), above(0.7), kind="share").verdict == UNDECIDED
    assert even.p < found.p


def test_a_share_of_one_run_decides_nothing():
    """Its trials are not independent, and no other run says how much."""
    found = judged(shares((1000, 1000)), above(0.5), kind="share")
    assert found.verdict == UNDECIDED and found.p == 1


def test_shares_that_all_read_one_have_the_interval_of_their_trials():
    found = judged(shares(*[(24, 24)] * 5), above(0.9), kind="share")
    assert found.interval == wilson_interval(120, 120) and found.verdict == HOLDS
    few = judged(shares(*[(5, 5)] * 5), above(0.9), kind="share")
    assert few.verdict == UNDECIDED


# What is exact


@pytest.mark.parametrize(
    ("values", "rule", "verdict", "worst"),
    [
        ([0.0, 1e-9, -5.0], below(1e-6), HOLDS, 1e-9),
        ([0.0, 1e-5, -5.0], below(1e-6), FAILS, 1e-5),
        ([3.0, 2.0, 9.0], above(2), FAILS, 2.0),
        ([7.0], above(2), HOLDS, 7.0),
    ],
)
def test_always_is_the_worst_value(values, rule, verdict, worst):
    found = judged(values, rule, kind="always")
    assert (found.verdict, found.interval.mean) == (verdict, worst)
    assert found.interval.width == 0 and math.isnan(found.p)


def test_a_count_is_the_same_in_all_seeds():
    assert judged([12.0] * 3, above(10), kind="count").verdict == HOLDS
    assert judged([8.0] * 3, above(10), kind="count").verdict == FAILS
    assert judged([12.0, 11.0, 12.0], above(10), kind="count").verdict == UNDECIDED


# Rules and declarations


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


def test_a_rule_says_itself():
    assert str(above(0.8)) == "above 0.8"
    assert str(below(-1e-6)) == "below −1e−06"
    often, better = toy.CHAPTER.claim("often"), toy.CHAPTER.claim("better")
    assert often.holds_when == "share is above 0.5"
    assert replace(better, log=True).holds_when == "geometric mean is above 0"
    assert replace(better, kind="always").holds_when == "worst value is above 0"


@pytest.mark.parametrize(
    ("more", "numbers", "fault"),
    [
        ({}, {"value": 1.0}, ""),
        ({}, {"other": 1.0}, "lacks value"),
        ({"log": True}, {"value": 0.0}, "is 0, which has no logarithm"),
        ({"kind": "share"}, {"value": 1.0}, "lacks successes, trials"),
        ({"kind": "share"}, shares((2, 1))[0], "is no share"),
        ({"same_inputs": True}, {"value": 1.0, "low": 0.0}, "lacks high"),
    ],
)
def test_a_claim_knows_its_measurements(more, numbers, fault):
    found = replace(toy.CHAPTER.claim("better"), **more).fault(numbers)
    assert found.startswith(fault) and bool(found) == bool(fault)


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
        texts += [claim.sentence, claim.source, claim.statistic, claim.paper]
        assert claim.rule.side in ("above", "below")
        assert claim.kind in typing.get_args(claims.Kind)
        told = r".*\d.*\((table|figure|section) \d.*\)|no number, \w+ .+|a figure, .+"
        assert re.fullmatch(told, claim.paper)
        if claim.log or claim.same_inputs:
            assert claim.kind == "mean"
        if claim.log:
            assert claim.rule.bound > 0
        if claim.kind == "share":
            assert 0 < claim.rule.bound < 1
    assert all(texts) and chapter.url.startswith("https://")
