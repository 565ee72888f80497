"""What public functions refuse: each refusal is one sentence that names the value."""

from collections.abc import Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

from iclrtut.errors import BadRequest

if TYPE_CHECKING:
    from torch import Tensor


def need(holds: bool, otherwise: str) -> None:
    """Refuse what does not hold.

    Raises:
        BadRequest: it does not; the sentence is `otherwise`.
    """
    if not holds:
        raise BadRequest(otherwise)


def count(name: str, value: Any, least: int = 0) -> None:
    """Refuse what is no whole number of at least `least`.

    Raises:
        BadRequest: it is none; a truth value is none.
    """
    fits = isinstance(value, Integral) and not isinstance(value, bool)
    need(
        fits and value >= least,
        f"{name} is {value!r}: give a whole number of at least {least}.",
    )


def whole(given: Sequence[int], most: int, name: str) -> list[int]:
    """Whole numbers from 0 to `most`, once they are known to be that.

    Raises:
        BadRequest: one is not.
    """
    fit = all(isinstance(k, Integral) and 0 <= k <= most for k in given)
    need(fit, f"{name}: {list(given)} given, use whole numbers from 0 to {most}.")
    return list(given)


def labels(y: "Tensor", n: int, classes: int) -> None:
    """Refuse what is not one class, 0 to `classes` - 1, for each of n inputs.

    Raises:
        BadRequest: y has another shape than [n], is no tensor of whole numbers, or
            holds a class that there is not.
    """
    fits = list(getattr(y, "shape", [])) == [n]
    need(fits, f"labels have the shape {_shape(y)}: give one for each of {n} inputs.")
    named = f"labels are {getattr(y, 'dtype', type(y).__name__)}"
    need("int" in named, f"{named}: give whole numbers, with y.long().")
    low, high = (int(y.min()), int(y.max())) if n else (0, 0)
    need(
        low >= 0 and high < classes,
        f"labels go from {low} to {high}: give classes from 0 to {classes - 1}.",
    )


def _shape(value: Any) -> Any:
    return list(value.shape) if hasattr(value, "shape") else type(value).__name__
