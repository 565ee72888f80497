"""Numbers that judge classifiers and generators; arrays or tensors, float64 within."""

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
