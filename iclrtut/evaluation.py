"""Evaluation a batch at a time, so that a small GPU is enough."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from iclrtut.errors import BadRequest

BATCH = 250  # inputs evaluated at once


def in_batches(
    function: Callable[..., Tensor], *inputs: Tensor, size: int = BATCH
) -> Tensor:
    """A function of batches, applied to a few rows at a time.

    Args:
        function: tensors [b, ...] to a tensor [b, ...], each row by itself.
        inputs: tensors [n, ...] of one length; n is at least 1.
        size: rows at once.

    Returns:
        What the function returns for all rows, [n, ...]. Gradients are recorded as
        the caller's mode says.

    Raises:
        BadRequest: the inputs are empty or differ in length, or size is below 1.
    """
    lengths = {len(x) for x in inputs}
    if len(lengths) != 1 or 0 in lengths or size < 1:
        raise BadRequest(
            f"inputs of {sorted(lengths)} rows, {size} at a time, make no batches: "
            "give tensors of one length, not empty, and a size of 1 or more."
        )
    batches = zip(*(torch.split(x, size) for x in inputs), strict=True)
    return torch.cat([function(*batch) for batch in batches])


@torch.no_grad()
def predict(model: nn.Module, x: Tensor, size: int = BATCH) -> Tensor:
    """The outputs of a model for inputs [n, ...], without gradients, [n, ...].

    The model's mode is left as it is: call `model.eval()` where it matters.
    """
    return in_batches(model, x, size=size)
