"""Far from the data: where rays end, (1), and where confidence is flat, (9)."""

import math

import torch
from torch import Tensor, nn

from iclrtut.chapters.provable_uncertainty.method import CCU
from iclrtut.errors import BadRequest


def asymptote(
    net: nn.Sequential, v: Tensor, origin: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Slopes and intercepts of the logits far out along origin + t v, (1).

    Args:
        net: of Linear, Conv2d, Flatten and ReLU.
        v: directions [n, ...].
        origin: where the rays start, of the same shape; 0 unless given.

    Returns:
        m and a, each [n, M]: the logits are t m + a for all t beyond some t.

    Raises:
        BadRequest: a layer is of another kind.
    """
    m, a = v, torch.zeros_like(v) if origin is None else origin
    for layer in net:
        if isinstance(layer, nn.ReLU):
            opened = (m > 0) | ((m == 0) & (a > 0))
            m, a = m * opened, a * opened
        elif isinstance(layer, nn.Linear | nn.Conv2d | nn.Flatten):
            m, a = layer(m) - layer(torch.zeros_like(m)), layer(a)
        else:
            raise BadRequest(
                f"asymptote knows no {type(layer).__name__}: use Linear, Conv2d, "
                "Flatten and ReLU."
            )
    return m, a


def limit_confidence(m: Tensor, a: Tensor) -> Tensor:
    """The confidence in the limit of a ray, (1). Shapes [n, M] to [n]."""
    steepest = m == m.max(1, keepdim=True).values
    return a.masked_fill(~steepest, -math.inf).softmax(1).max(1).values


@torch.no_grad()
def far_radius(ccu: CCU, eps: float, classes: int) -> float:
    """|z| beyond which confidence differs from 1/M by at most eps, (9c).

    Raises:
        BadRequest: the model is not certified, or eps leaves nothing to show.
    """
    ccu.refuse_disorder()
    room = 1 - 1 / classes - eps
    if not (eps > 0 and room > 0):
        raise BadRequest(f"eps is {eps}: give one between 0 and {1 - 1 / classes}.")
    (s, th), k = ccu.order(), int(ccu.outside.sigma.argmax())
    rho_i = float(ccu.inside.means.norm(dim=1).max())
    rho_o = float(ccu.outside.means[k].norm())
    # the constant of (9b): every in-component as high as the narrowest
    wide = ccu.inside.means.shape[1] * math.log(th / float(ccu.inside.sigma.min()))
    beta = float(ccu.outside.log_weights[k])
    C = max(0.0, ccu.log_q + wide - beta - math.log(eps / room))
    A, B = 1 / (2 * s**2), 1 / (2 * th**2)
    half = (A * rho_i + B * rho_o) / (A - B)
    rest = (A * rho_i**2 - B * rho_o**2 - C) / (A - B)
    return max(rho_i, half + math.sqrt(max(0.0, half**2 - rest)))
