"""Numbers that judge classifiers and generators; arrays or tensors, float64 within."""

import math
from typing import Any

import numpy as np

from iclrtut.errors import BadRequest

Array = Any


def accuracy(logits: Array, labels: Array) -> float:
    """Share of inputs whose largest logit is the labelled one.

    Args:
        logits: [n, classes].
        labels: whole numbers [n].

    Raises:
        BadRequest: wrong shapes, no inputs, or numbers that are not finite.
    """
    scores, answers = labelled(logits, labels)
    return float((scores.argmax(1) == answers).mean())


def auroc(inside: Array, outside: Array) -> float:
    """Chance that an inside score exceeds an outside one, ties counted by half.

    Args:
        inside: scores [n] of inputs that should score high.
        outside: scores [m] of the others.

    Raises:
        BadRequest: wrong shapes, no scores, or scores that are not finite.
    """
    from sklearn.metrics import roc_auc_score

    high, low = finite("inside", inside, 1), finite("outside", outside, 1)
    truth = np.repeat([1, 0], [len(high), len(low)])
    return float(roc_auc_score(truth, np.concatenate([high, low])))


def nll(logits: Array, labels: Array) -> float:
    """Mean negative log-likelihood of the labels, in nats.

    Args:
        logits: [n, classes], in nats.
        labels: whole numbers [n].

    Raises:
        BadRequest: wrong shapes, no inputs, or numbers that are not finite.
    """
    from scipy.special import log_softmax

    scores, answers = labelled(logits, labels)
    return float(-log_softmax(scores, axis=1)[np.arange(len(answers)), answers].mean())


def fit_temperature(logits: Array, labels: Array) -> float:
    """The temperature T in [0.01, 100] whose logits / T have the least `nll`.

    One number fitted on validation inputs; Guo et al. (2017), section 4.2.

    Args:
        logits: [n, classes], in nats.
        labels: whole numbers [n].

    Raises:
        BadRequest: wrong shapes, no inputs, or numbers that are not finite.
    """
    from scipy.optimize import minimize_scalar

    scores, answers = labelled(logits, labels)
    found = minimize_scalar(
        lambda log_t: nll(scores / math.exp(log_t), answers),
        bounds=(math.log(0.01), math.log(100)),
        method="bounded",
        options={"xatol": 1e-8},
    )
    return math.exp(found.x)


def ece(probabilities: Array, labels: Array, bins: int = 15) -> float:
    """Expected calibration error of the most likely class, in [0, 1].

    Mean over `bins` equal bins of confidence (lower edge out, upper edge in) of
    |share right - mean confidence|, weighted by the inputs in a bin; Guo et al. (2017),
    equation (3).

    Args:
        probabilities: [n, classes], rows that sum to 1.
        labels: whole numbers [n].
        bins: how many.

    Raises:
        BadRequest: wrong shapes, no inputs, or no probabilities.
    """
    gap, at = _gaps(probabilities, labels, bins)
    sums = np.bincount(at, gap, minlength=bins)
    return float(np.abs(sums).sum() / len(gap))


def squared_ece(probabilities: Array, labels: Array, bins: int = 15) -> float:
    """The squared calibration error of the most likely class, without a bias.

    Mean over the bins of `ece` of (share right - mean confidence)^2, each estimated by
    the mean of d_i d_j over pairs i != j in the bin, d = right - confidence; so it may
    fall below 0. A bin of one input has no pair and counts as 0.

    Args:
        probabilities: [n, classes], rows that sum to 1.
        labels: whole numbers [n].
        bins: how many.

    Raises:
        BadRequest: as in `ece`.
    """
    gap, at = _gaps(probabilities, labels, bins)
    inputs, sums, squares = (
        np.bincount(at, weights, minlength=bins) for weights in (None, gap, gap**2)
    )
    pairs = (sums**2 - squares) / np.maximum(inputs - 1, 1)
    return float(pairs.sum() / len(gap))


def ece_floor(confidence: Array, bins: int = 15) -> float:
    """The `ece` to expect of a calibrated forecaster, from finite numbers alone.

    E = (1/n) sum_b sqrt(2 n_b v_b / pi), with v_b the mean of c (1 - c) over the n_b
    confidences c in bin b: the mean size of a normal sum of that variance.

    Args:
        confidence: [n], in [0, 1].
        bins: how many, as in `ece`.

    Raises:
        BadRequest: wrong shape, no numbers, or numbers outside [0, 1].
    """
    c = finite("confidence", confidence, 1)
    if c.min() < 0 or c.max() > 1:
        raise BadRequest(
            f"confidence from {c.min():.3g} to {c.max():.3g} leaves [0, 1]: take the "
            "largest probability of each row."
        )
    variances = np.bincount(_bin(c, bins), c * (1 - c), minlength=bins)
    return float(np.sqrt(2 * variances / math.pi).sum() / len(c))


def frechet_distance(a: Array, b: Array) -> float:
    """Squared Frechet distance of two sets of features, each taken as a normal.

    |mean_a - mean_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)); Dowson and Landau (1982);
    Heusel et al. (2017) use it on network features. With S = R^T R from QR of the
    centred features, tr (S_a S_b)^(1/2) is the sum of the singular values of R_a R_b^T:
    no root of a matrix that may be singular is taken.

    Args:
        a: features [n, d], n at least 2.
        b: features [m, d], m at least 2. Compare distances at equal n and m only.

    Raises:
        BadRequest: wrong shapes, fewer than two rows, or numbers that are not finite.
    """
    from scipy.linalg import qr, svdvals

    x, y = finite("a", a, 2), finite("b", b, 2)
    if x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise BadRequest(
            f"features of shapes {x.shape} and {y.shape} do not compare: give both the "
            "same width and two rows or more."
        )
    root_x, root_y = (
        qr((z - z.mean(0)) / math.sqrt(len(z) - 1), mode="r")[0] for z in (x, y)
    )
    shift = ((x.mean(0) - y.mean(0)) ** 2).sum()
    spread = (root_x**2).sum() + (root_y**2).sum()
    shared = svdvals(root_x @ root_y.T).sum()
    return float(max(shift + spread - 2 * shared, 0.0))


def share(hits: Array) -> dict[str, float]:
    """The numbers of a claim on a share of trials, ready for `run.claim`.

    Args:
        hits: any shape, 1 where a trial succeeded, 0 where not, 1/2 for a tie.

    Returns:
        "value" (the share), "successes" (an odd half is dropped) and "trials".

    Raises:
        BadRequest: there is no trial, or a number is not finite.
    """
    flat = finite("hits", hits.reshape(-1) if hasattr(hits, "reshape") else hits, 1)
    successes, trials = float(math.floor(flat.sum())), float(flat.size)
    return {"value": successes / trials, "successes": successes, "trials": trials}


def finite(what: str, values: Array, dimensions: int) -> Any:
    """An array of float64, from a tensor on any device or an array."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().double()
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise BadRequest(f"{what} is no array of numbers: {values!r:.60}.") from None
    if array.ndim != dimensions or array.size == 0:
        raise BadRequest(
            f"{what} of shape {array.shape} must have {dimensions} dimension(s) and no "
            "empty one."
        )
    bad = array.size - np.isfinite(array).sum()
    if bad:
        raise BadRequest(
            f"{what} holds {bad} of {array.size} numbers that are not finite: look for "
            "a training that diverged."
        )
    return array


def labelled(scores: Array, labels: Array) -> tuple[Any, Any]:
    """Scores [n, classes] as float64 and labels [n] as whole numbers."""
    kind = str(getattr(scores, "dtype", "float"))
    if "float" not in kind:
        raise BadRequest(f"scores of type {kind} are no logits: give real numbers.")
    rows, answers = finite("scores", scores, 2), finite("labels", labels, 1)
    whole = answers.astype(np.int64)
    if len(rows) != len(whole):
        raise BadRequest(f"{len(rows)} rows of scores meet {len(whole)} labels.")
    if (whole != answers).any() or whole.min() < 0 or whole.max() >= rows.shape[1]:
        raise BadRequest(
            f"labels from {answers.min():g} to {answers.max():g} must be whole numbers "
            f"from 0 to {rows.shape[1] - 1}."
        )
    return rows, whole


def _gaps(probabilities: Array, labels: Array, bins: int) -> tuple[Any, Any]:
    """Of each input: whether it is right minus its confidence [n], and its bin [n]."""
    rows, answers = labelled(probabilities, labels)
    if rows.min() < 0 or np.abs(rows.sum(1) - 1).max() > 1e-3:
        raise BadRequest(
            f"rows from {rows.min():.3g} to {rows.max():.3g} that sum to "
            f"{rows.sum(1).min():.3g} or more are no probabilities: take a softmax."
        )
    confidence = rows.max(1)
    return (rows.argmax(1) == answers) - confidence, _bin(confidence, bins)


def _bin(confidence: Any, bins: int) -> Any:
    if bins < 1:
        raise BadRequest(f"{bins} bins hold nothing: use 15.")
    edges = np.linspace(0, 1, bins + 1)[1:-1]
    return np.digitize(confidence, edges, right=True)
