"""Landscapes in the plane to descend on, and an explicit warp of the plane.

A point gamma of W is where a loss is taken, a point theta of P is what descent moves,
and gamma = Omega(theta). The mountains are those of appendix D of Flennerhag et al.
(2020); the valley and the warp are ours.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Generator, Tensor, nn

from iclrtut.chapters.warped_gradients.method import need
from iclrtut.train import seeded

# Where starts lie: two corners of a box in W.
STARTS = {
    "valley": ((-2.5, -1.5), (2.5, 1.5)),
    "mountains": ((-3.0, -3.0), (3.0, 3.0)),
}


def _split(points: Tensor, tasks: Tensor, columns: int) -> tuple[Tensor, ...]:
    """x and y of points, then the columns of tasks, in shapes that broadcast."""
    for name, tensor, size in (("points", points, 2), ("tasks", tasks, columns)):
        kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
        real = isinstance(tensor, Tensor) and tensor.is_floating_point()
        need(real, f"{name} are {kind}: give a tensor of floating-point numbers.")
        shape = list(tensor.shape)
        fits = shape[-1:] == [size]
        need(fits, f"{name} have shape {shape}: the last size must be {size}.")
    batch, shape = list(tasks.shape[:-1]), list(points.shape)
    need(
        len(shape) > len(batch) and shape[: len(batch)] == batch,
        f"points {shape} do not begin with the shape {batch} of the tasks: give each "
        "task its points.",
    )
    extra = [1] * (points.ndim - tasks.ndim)
    return *points.unbind(-1), *tasks.reshape(*batch, *extra, columns).unbind(-1)


def valley(points: Tensor, tasks: Tensor) -> Tensor:
    """(x - x*)^2 / 2 + 5 (y - 0.8 sin 1.5 x - e)^2: a narrow, winding valley.

    Its only minimum is 0, at x = x*, y = 0.8 sin 1.5 x* + e.

    Args:
        points: gamma = (x, y), [*batch, ..., 2].
        tasks: columns x* and e, [*batch, 2]; [2] is one task for all points.

    Returns:
        Losses, [*batch, ...].

    Raises:
        BadRequest: shapes that do not fit, or numbers that are not floating-point.
    """
    x, y, at, e = _split(points, tasks, 2)
    return (x - at).square() / 2 + 5 * (y - 0.8 * (1.5 * x).sin() - e).square()


def mountains(points: Tensor, tasks: Tensor) -> Tensor:
    """Hills and hollows; appendix D of Flennerhag et al. (2020).

    b1 (a1 - x)^2 exp(-x^2 - (y + a2)^2) - b2 (x/s - x^3 - y^5) exp(-x^2 - y^2)
    - b3 exp(-(x + a3)^2 - y^2), where the paper's last y is printed as x.

    Args:
        points: gamma = (x, y), [*batch, ..., 2].
        tasks: columns a1, a2, a3, b1, b2, b3, s, [*batch, 7]; [7] is one task for all
            points.

    Returns:
        Losses, [*batch, ...]. They may be negative, and go to 0 far away.

    Raises:
        BadRequest: shapes that do not fit, numbers that are not floating-point, or
            s = 0.
    """
    x, y, a1, a2, a3, b1, b2, b3, s = _split(points, tasks, 7)
    need(bool((s != 0).all()), "a task's s is 0: give a number to divide by.")
    first = b1 * (a1 - x).square() * (-x.square() - (y + a2).square()).exp()
    second = b2 * (x / s - x**3 - y**5) * (-x.square() - y.square()).exp()
    return first - second - b3 * (-(x + a3).square() - y.square()).exp()


def _device(n: int, generator: Generator) -> torch.device:
    """Where to draw n tasks."""
    whole = isinstance(n, int) and not isinstance(n, bool) and n > 0
    need(whole, f"n is {n!r}: give a whole number of tasks from 1 on.")
    kind = type(generator).__name__
    need(isinstance(generator, Generator), f"give a torch.Generator, not {kind}.")
    return generator.device


def sample_valley(n: int, generator: Generator) -> Tensor:
    """Tasks of `valley`, [n, 2]: x* uniform in (-2, 2), e normal with deviation 0.3.

    Raises:
        BadRequest: n is no whole number from 1 on, or there is no generator.
    """
    device = _device(n, generator)
    at = 4 * torch.rand(n, generator=generator, device=device) - 2
    e = 0.3 * torch.randn(n, generator=generator, device=device)
    return torch.stack([at, e], -1)


def sample_mountains(n: int, generator: Generator) -> Tensor:
    """Tasks of `mountains`, [n, 7], whole numbers, each as likely as the others.

    a in {-1, 0, 1}, b in {-5, ..., 5}, s in {1, ..., 10}, as in appendix D.

    Raises:
        BadRequest: n is no whole number from 1 on, or there is no generator.
    """
    device = _device(n, generator)
    parts = [
        torch.randint(low, high + 1, (n, size), generator=generator, device=device)
        for low, high, size in ((-1, 1, 3), (-5, 5, 3), (1, 10, 1))
    ]
    return torch.cat(parts, -1).to(torch.get_default_dtype())


class _Affine(nn.Module):
    """Log-scale and shift of one coordinate, given the other; at first 0 and 0."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.inside, self.outside = nn.Linear(1, hidden), nn.Linear(hidden, 2)
        self.constant = nn.Parameter(torch.zeros(()))
        for p in self.outside.parameters():
            nn.init.zeros_(p)

    def forward(self, given: Tensor, strength: float) -> tuple[Tensor, Tensor]:
        s, t = self.outside(self.inside(given[..., None]).tanh()).unbind(-1)
        return strength * (2 * (s / 2).tanh() + self.constant), strength * t


class Coupling(nn.Module):
    """The explicit warp Omega: two affine couplings, one-to-one, at first the identity.

    x' = x e^s + t with s, t functions of y; then y' = y e^s + t with s, t functions of
    x'. The functions are networks 1-hidden-2 with tanh; a log-scale s is 2 tanh(./2)
    plus a free constant. Couplings are those of Dinh et al. (2017).

    Args:
        hidden: width of the two networks.
        seed: of their first weights.

    Raises:
        BadRequest: hidden is no whole number from 1 on.
    """

    def __init__(self, hidden: int = 30, seed: int = 0) -> None:
        super().__init__()
        whole = isinstance(hidden, int) and hidden > 0
        need(whole, f"hidden is {hidden!r}: give a whole number of units from 1 on.")
        with seeded(seed):
            self.first, self.second = _Affine(hidden), _Affine(hidden)

    def forward(self, points: Tensor, strength: float = 1.0) -> Tensor:
        """gamma = Omega(theta).

        Args:
            points: theta, [..., 2].
            strength: multiplies log-scales and shifts: 0 is the identity, and the map
                is one-to-one at every value.

        Returns:
            gamma, [..., 2].

        Raises:
            BadRequest: points that are no pairs, or a strength that is not finite.
        """
        x, y = self._pairs(points, strength)
        s, t = self.first(y, strength)
        x = x * s.exp() + t
        s, t = self.second(x, strength)
        return torch.stack([x, y * s.exp() + t], -1)

    def inverse(self, points: Tensor, strength: float = 1.0) -> Tensor:
        """theta of gamma, in closed form: the couplings undone, the last one first.

        Arguments, shapes and errors are those of `forward`.
        """
        x, y = self._pairs(points, strength)
        s, t = self.second(x, strength)
        y = (y - t) * (-s).exp()
        s, t = self.first(y, strength)
        return torch.stack([(x - t) * (-s).exp(), y], -1)

    def _pairs(self, points: Tensor, strength: float) -> tuple[Tensor, ...]:
        finite = isinstance(strength, int | float) and math.isfinite(strength)
        need(finite, f"strength is {strength!r}: give a finite number.")
        return _split(points, torch.zeros(1), 1)[:2]


Warps = Mapping[str, Mapping[str, Coupling]]


def payload(warps: Warps | None = None) -> dict[str, Any]:
    """What the page's figure needs: `play.widget("warped_gradients", payload(...))`.

    Args:
        warps: of "valley" and "mountains", each by the objective that it was trained
            with, "10" or "11"; the first is shown first. None opens the chapter with a
            valley and a warp that is written by hand.

    Returns:
        {"mode": "first", "starts"} or {"mode": "full", "starts", "warps": {landscape:
        {objective: [{"w", "b", "W", "B", "c"} of x, the same of y]}}}. W holds the rows
        of log-scale and shift. Numbers are written in full.

    Raises:
        BadRequest: no warp, an unknown landscape or objective, something that is no
            `Coupling`, or weights that are not finite.
    """
    if warps is None:
        return {"mode": "first", "starts": STARTS}
    need(bool(warps), "there are no warps: give one of the valley or the mountains.")
    for name, trained in warps.items():
        need(
            name in STARTS, f"there is no landscape {name!r}: use {', '.join(STARTS)}."
        )
        need(bool(trained), f"there is no warp of the {name}: give one.")
        for objective, warp in trained.items():
            known = objective in ("10", "11") and isinstance(warp, Coupling)
            title = f"{name} {objective!r}"
            need(known, f"{title} is no warp: give a Coupling under '10' or '11'.")
            finite = all(bool(p.isfinite().all()) for p in warp.parameters())
            need(finite, f"{title} has weights that are not finite: lower its rate.")
    written = {
        name: {objective: _written(warp) for objective, warp in trained.items()}
        for name, trained in warps.items()
    }
    return {"mode": "full", "starts": STARTS, "warps": written}


def _written(warp: Coupling) -> list[dict[str, Any]]:
    """The numbers of both couplings."""
    return [
        {
            "w": affine.inside.weight[:, 0].tolist(),
            "b": affine.inside.bias.tolist(),
            "W": affine.outside.weight.tolist(),
            "B": affine.outside.bias.tolist(),
            "c": affine.constant.item(),
        }
        for affine in (warp.first, warp.second)
    ]
