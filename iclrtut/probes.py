"""Linear probes: how much a linear read-out finds in features."""

from typing import Any, NamedTuple

import numpy as np

from iclrtut.errors import BadRequest
from iclrtut.metrics import Array, finite, labelled

PENALTIES = tuple(10.0**k for k in range(-4, 5))


class Probe(NamedTuple):
    """A linear read-out of features.

    Attributes:
        weights: [d, classes], of the standardised features.
        bias: [classes].
        mean, scale: of the features it was fitted on, [d].
        penalty: the chosen ridge penalty.
    """

    weights: Any
    bias: Any
    mean: Any
    scale: Any
    penalty: float

    def scores(self, features: Array) -> Any:
        """A score for each class, larger for the likelier: [n, d] to [n, classes]."""
        x = (finite("features", features, 2) - self.mean) / self.scale
        return x @ self.weights + self.bias

    def accuracy(self, features: Array, labels: Array) -> float:
        """The share of features [n, d] whose class [n] gets the highest score."""
        scores, answers = labelled(self.scores(features), labels)
        return float((scores.argmax(1) == answers).mean())


def fit_probe(
    features: Array, labels: Array, penalties: tuple[float, ...] = PENALTIES
) -> Probe:
    """Ridge regression of the classes on standardised features, by scikit-learn.

    Among the penalties, the one of least squared error with each input left out in
    turn, which has a closed form: nothing is chosen on other inputs than these.

    Args:
        features: [n, d], n at least 2.
        labels: whole numbers from 0 on, [n].
        penalties: to choose from, all positive, for features of variance 1.

    Raises:
        BadRequest: wrong shapes, numbers that are not finite, fewer than two classes,
            or a penalty that is not positive.
    """
    from sklearn.linear_model import RidgeCV

    x, y = finite("features", features, 2), finite("labels", labels, 1)
    classes = int(y.max()) + 1
    _, y = labelled(np.zeros((len(x), classes)), labels)
    if len(np.unique(y)) < 2 or not penalties or min(penalties) <= 0:
        raise BadRequest(
            f"{len(np.unique(y))} class(es) and the penalties {penalties} make no "
            "probe: give two classes or more, and positive penalties."
        )
    mean, scale = x.mean(0), x.std(0)
    scale = np.where(scale > 0, scale, 1.0)
    ridge = RidgeCV(penalties).fit((x - mean) / scale, np.eye(classes)[y])
    return Probe(ridge.coef_.T, ridge.intercept_, mean, scale, float(ridge.alpha_))
