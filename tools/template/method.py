"""«Title of the chapter», at working speed.

«Authors», ICLR 2020. Numbers in brackets are equations of the chapter `SLUG`.
"""

import torch
from torch import Tensor, nn


def shrunken(x: Tensor) -> Tensor:
    """James and Stein's estimate of a mean from one draw, (3).

    Args:
        x: draws of N(mu, I), shape [..., d], d at least 3.

    Returns:
        Estimates of mu, of the shape of x.
    """
    square: Tensor = x.square().sum(-1, keepdim=True)
    return x - (x.shape[-1] - 2) / square * x


class Shrink(nn.Module):
    """One number that multiplies every input, (2)."""

    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """Inputs [n, d] to outputs [n, d]."""
        return self.c * x
