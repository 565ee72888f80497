"""Accuracy and AUROC against closed forms and brute force."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from iclrtut import metrics
from iclrtut.errors import BadRequest

seeds = st.integers(0, 2**32 - 1)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_accuracy_agrees_with_a_loop(seed):
    rng = np.random.default_rng(seed)
    logits, labels = rng.standard_normal((50, 4)), rng.integers(0, 4, 50)
    right = [int(max(range(4), key=row.__getitem__)) for row in logits]
    expected = sum(r == label for r, label in zip(right, labels, strict=True)) / 50
    assert metrics.accuracy(logits, labels) == pytest.approx(expected, abs=1e-15)


def test_tensors_with_gradients_and_half_precision_are_taken():
    logits = torch.tensor([[2.0, 1.0]], requires_grad=True)
    assert metrics.accuracy(logits, torch.tensor([0])) == 1
    assert metrics.accuracy(logits.detach().bfloat16(), [1]) == 0


@given(seeds, st.integers(1, 12), st.integers(1, 12))
@settings(max_examples=30, deadline=None)
def test_auroc_counts_pairs(seed, n, m):
    rng = np.random.default_rng(seed)
    high, low = rng.integers(0, 5, n) / 2, rng.integers(0, 5, m) / 2
    pairs = [(a > b) + 0.5 * (a == b) for a in high for b in low]
    assert metrics.auroc(high, low) == pytest.approx(np.mean(pairs), abs=1e-12)


def test_auroc_of_two_normals_in_closed_form():
    rng = np.random.default_rng(1)
    high, low = rng.normal(1, 1, 40_000), rng.normal(0, 1, 40_000)
    exact = stats.norm.cdf(1 / math.sqrt(2))
    # The standard error is at most sqrt(exact (1 - exact) / 40,000), about 0.0022.
    assert metrics.auroc(high, low) == pytest.approx(exact, abs=0.01)


ok = np.eye(3)
bad_requests = {
    "no inputs": lambda: metrics.accuracy(np.zeros((0, 3)), []),
    "flat logits": lambda: metrics.accuracy(np.zeros(3), [0, 1, 2]),
    "words": lambda: metrics.accuracy([["a"]], [0]),
    "no scores": lambda: metrics.auroc([], [1.0]),
    "infinite score": lambda: metrics.auroc([math.inf], [1.0]),
    "one row short": lambda: metrics.accuracy(ok, [0, 1]),
    "integer logits": lambda: metrics.accuracy(torch.eye(3).long(), [0, 1, 2]),
    "label too large": lambda: metrics.accuracy(ok, [0, 1, 3]),
    "label below 0": lambda: metrics.accuracy(ok, [0, 1, -1]),
    "half a label": lambda: metrics.accuracy(ok, [0, 1, 0.5]),
    "NaN logits": lambda: metrics.accuracy(ok * math.nan, [0, 1, 2]),
}


@pytest.mark.parametrize("call", bad_requests.values(), ids=bad_requests.keys())
def test_bad_requests_are_told_in_one_sentence(call):
    with pytest.raises(BadRequest) as told:
        call()
    assert str(told.value).endswith(".")
    assert "\n" not in str(told.value)
