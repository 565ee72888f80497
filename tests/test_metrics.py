"""Metrics against closed forms, loops and libraries."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg, stats

from iclrtut import metrics
from iclrtut.errors import BadRequest

seeds = st.integers(0, 2**32 - 1)


@given(seeds)
@settings(max_examples=20)
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
@settings(max_examples=30)
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


def classified(seed, n=50, classes=4, scale=2.0):
    rng = np.random.default_rng(seed)
    logits = scale * rng.standard_normal((n, classes))
    return logits, rng.integers(0, classes, n)


def softmax(logits):
    powers = np.exp(logits)
    return powers / powers.sum(1, keepdims=True)


@given(seeds)
@settings(max_examples=20)
def test_nll_agrees_with_torch(seed):
    logits, labels = classified(seed)
    loss = torch.nn.functional.cross_entropy(torch.tensor(logits), torch.tensor(labels))
    assert metrics.nll(logits, labels) == pytest.approx(loss.item(), rel=1e-12)


def test_nll_takes_half_precision():
    half = torch.tensor([[2.0, 1.0]]).bfloat16()
    assert metrics.nll(half, [0]) == pytest.approx(math.log1p(math.exp(-1)))


def test_nll_survives_large_logits():
    assert metrics.nll([[1e4, 0.0]], [1]) == pytest.approx(1e4)


@given(seeds, st.sampled_from([1, 7, 15]))
@settings(max_examples=20)
def test_ece_agrees_with_a_loop_over_bins(seed, bins):
    logits, labels = classified(seed)
    rows = softmax(logits)
    top, right = rows.max(1), rows.argmax(1) == labels
    total = 0.0
    for b in range(bins):
        inside = (top > b / bins) & (top <= (b + 1) / bins)
        if inside.any():
            gap = abs(right[inside].mean() - top[inside].mean())
            total += inside.mean() * gap
    assert metrics.ece(rows, labels, bins) == pytest.approx(total, abs=1e-12)


def test_ece_of_known_forecasts():
    sure = np.array([[1.0, 0.0]] * 4)
    assert metrics.ece(sure, [0, 0, 0, 0]) == 0
    assert metrics.ece(sure, [0, 0, 0, 1]) == pytest.approx(0.25)
    opposite = np.array([[0.9, 0.1], [0.6, 0.4]])
    assert metrics.ece(opposite, [1, 0], bins=10) == pytest.approx((0.9 + 0.4) / 2)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below():
    rows = np.array([[0.5, 0.5], [0.7, 0.3]])
    assert metrics.ece(rows, [1, 0], bins=2) == pytest.approx((0.5 + 0.3) / 2)


@pytest.mark.parametrize("bins", [15, 30])
def test_ece_floor_is_the_mean_ece_of_calibrated_forecasters(bins):
    rng = np.random.default_rng(0)
    errors, floors = [], []
    for _ in range(300):
        c = 0.5 + 0.5 * rng.beta(8, 1, 697)
        labels = (rng.random(697) > c).astype(int)
        errors.append(metrics.ece(np.stack([c, 1 - c], 1), labels, bins))
        floors.append(metrics.ece_floor(c, bins))
    assert np.mean(floors) == pytest.approx(np.mean(errors), rel=0.08)


def test_ece_floor_of_one_bin_in_closed_form():
    assert metrics.ece_floor([0.9] * 100) == pytest.approx(
        math.sqrt(2 * 100 * 0.09 / math.pi) / 100
    )


def test_squared_ece_is_the_mean_over_pairs_of_a_bin():
    rng = np.random.default_rng(3)
    c, bins = rng.uniform(0.5, 1, 60), 7
    labels = (rng.random(60) > c**2).astype(int)
    h, at = (labels == 0) - c, np.ceil(c * bins)
    exact = 0.0
    for b in np.unique(at):
        inside = h[at == b]
        pairs = [x * y for i, x in enumerate(inside) for y in inside[:i]]
        exact += len(inside) / 60 * (np.mean(pairs) if pairs else 0)
    found = metrics.squared_ece(np.stack([c, 1 - c], 1), labels, bins)
    assert found == pytest.approx(exact)
    alone = metrics.squared_ece([[0.9, 0.1]], [0])
    assert alone == 0


def test_squared_ece_has_no_bias_for_a_calibrated_model_nor_another():
    rng, n = np.random.default_rng(0), 200
    c = rng.uniform(0.5, 1, n)
    rows = np.stack([c, 1 - c], 1)
    for miss in (0.0, 0.1):
        found = [
            metrics.squared_ece(rows, (rng.random(n) > c - miss).astype(int))
            for _ in range(2000)
        ]
        error = np.std(found) / math.sqrt(len(found))
        assert abs(np.mean(found) - miss**2) < 4 * error
        assert error < 1e-3 / 4


@given(seeds)
@settings(max_examples=20)
def test_frechet_distance_agrees_with_the_matrix_root(seed):
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((40, 5)) @ rng.standard_normal((5, 5))
    b = rng.standard_normal((60, 5)) + 1
    sa, sb = np.cov(a.T), np.cov(b.T)
    root = linalg.sqrtm(sa @ sb).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(sa + sb - 2 * root)
    assert metrics.frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert metrics.frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_of_few_rows_and_in_one_dimension():
    rng = np.random.default_rng(4)
    a, b = rng.standard_normal((2, 6, 20))  # fewer rows than columns: singular
    assert metrics.frechet_distance(a, b) == pytest.approx(
        metrics.frechet_distance(b, a)
    )
    x, y = rng.normal(0, 1, (30, 1)), rng.normal(2, 3, (30, 1))
    exact = (x.mean() - y.mean()) ** 2 + (x.std(ddof=1) - y.std(ddof=1)) ** 2
    assert metrics.frechet_distance(x, y) == pytest.approx(exact)


@given(seeds, st.floats(0.3, 4))
@settings(max_examples=10)
def test_fit_temperature_undoes_a_scale_and_no_grid_beats_it(seed, scale):
    logits, labels = classified(seed, n=200)
    rng = np.random.default_rng(seed)
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(1)
    fitted = metrics.fit_temperature(logits, labels)
    assert metrics.fit_temperature(scale * logits, labels) == pytest.approx(
        scale * fitted, rel=1e-4
    )
    best = metrics.nll(logits / fitted, labels)
    grid = [metrics.nll(logits / t, labels) for t in np.geomspace(0.1, 10, 60)]
    assert best <= min(grid) + 1e-9


def test_fit_temperature_finds_the_one_that_drew_the_labels():
    logits, _ = classified(5, n=20_000)
    rng = np.random.default_rng(6)
    labels = (logits / 2.5 + rng.gumbel(size=logits.shape)).argmax(1)
    assert metrics.fit_temperature(logits, labels) == pytest.approx(2.5, rel=0.05)


ok = np.eye(3)
bad_requests = {
    "one row short": lambda: metrics.nll(ok, [0, 1]),
    "integer logits": lambda: metrics.nll(torch.eye(3).long(), [0, 1, 2]),
    "label too large": lambda: metrics.nll(ok, [0, 1, 3]),
    "label below 0": lambda: metrics.nll(ok, [0, 1, -1]),
    "half a label": lambda: metrics.nll(ok, [0, 1, 0.5]),
    "NaN logits": lambda: metrics.fit_temperature(ok * math.nan, [0, 1, 2]),
    "logits as probabilities": lambda: metrics.ece(5 * ok, [0, 1, 2]),
    "no bins": lambda: metrics.ece(ok, [0, 1, 2], 0),
    "no probabilities": lambda: metrics.squared_ece(5 * ok, [0, 1, 2]),
    "confidence above 1": lambda: metrics.ece_floor([0.5, 1.5]),
    "one row": lambda: metrics.frechet_distance([[1.0]], [[1.0], [2.0]]),
    "other widths": lambda: metrics.frechet_distance(ok, ok[:, :2]),
}


@pytest.mark.parametrize("call", bad_requests.values(), ids=bad_requests.keys())
def test_bad_requests_of_calibration_are_refused_in_one_sentence(call):
    with pytest.raises(BadRequest) as refusal:
        call()
    assert str(refusal.value).endswith(".")
    assert "\n" not in str(refusal.value)
