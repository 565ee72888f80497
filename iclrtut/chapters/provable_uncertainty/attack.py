"""The surest input in a ball, searched for by gradients and by chance.

Balls are those of `Metric`; z [n, D] is the whitened input, float64. An attack that
stays below a certificate does not prove it; one that passes it would refute it.
"""

import math
from collections.abc import Callable
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from iclrtut.chapters.provable_uncertainty import method
from iclrtut.chapters.provable_uncertainty.method import CCU, Metric
from iclrtut.inputs import count, need


def towards(ccu: CCU, x: Tensor, R: float | Tensor) -> Tensor:
    """The mean of the in-component that is likeliest within R, whitened, [n, D]."""
    z, inside = ccu.metric.whiten(x), ccu.inside
    near = (
        method.squared_distances(z, inside.means).sqrt() - method.radii(R, z)[:, None]
    )
    up = near.clamp_min(0).square() / (2 * inside.sigma**2)
    return inside.means.detach()[(inside.heights() - up).argmax(1)]


class Attacked(NamedTuple):
    """The surest inputs that an attack found."""

    log_p: Tensor  # [n], float64
    x: Tensor  # [n, ...], float64

    @property
    def confidence(self) -> Tensor:
        """max_y p(y|x), [n]."""
        return self.log_p.exp()


def _direction(z: Tensor) -> Tensor:
    """Rows scaled to length 1; a row of zeros stays."""
    largest = z.abs().amax(1, keepdim=True)
    return F.normalize(z / torch.where(largest > 0, largest, 1), dim=1)


def _starts(
    z: Tensor, R: Tensor, mean: Tensor | None, restarts: int, g: torch.Generator
) -> list[Tensor]:
    """Centre, random points of the boundary, and the boundary towards a mean."""
    random = [torch.empty_like(z).normal_(generator=g) for _ in range(restarts)]
    directions = [torch.zeros_like(z), *random]
    if mean is not None:
        directions.append(mean - z)
    return [z + R[:, None] * _direction(each) for each in directions]


def attack(
    log_p: Callable[[Tensor], Tensor], metric: Metric, x: Tensor, R: float | Tensor,
    steps: int, generator: torch.Generator, ccu: CCU | None = None,
    rates: tuple[float, ...] = (0.3, 0.1), restarts: int = 4, pixels: bool = False,
    guide: CCU | None = None,
) -> Attacked:  # fmt: skip
    """The surest inputs within R, by gradients from many starts, then by chance.

    Steps are normalised in the metric and shrink from rate R to 0. With `ccu`, the
    first half of them climbs log b: in most balls log p(y|x) is flat at the centre.

    Args:
        log_p: inputs [n, ...], float64, to log p(y|x) [n, M]; or to any [n, 1] that is
            to become large.
        metric: of the ball.
        x: centres [n, ...].
        R: radius, or radii [n].
        steps: of each start.
        generator: of random starts and of the random search.
        ccu: when log_p is CCU's: its densities.
        rates: each start is tried with each of them.
        restarts: random starts on the boundary.
        pixels: stay in the box [0, 1] as well, where images are.
        guide: densities of `metric`: one more start lies towards the mean of their
            in-component that is likeliest in the ball. `ccu` unless given.

    Raises:
        BadRequest: a radius is negative, a centre is not finite or lies outside the
            box, or there is no step or no rate.
    """
    count("steps", steps, 1)
    count("restarts", restarts)
    need(min(rates, default=0) > 0, f"rates are {rates}: give at least one above 0.")
    inside = bool(((x >= 0) & (x <= 1)).all()) if pixels else True
    need(inside, "a centre lies outside [0, 1]: give images with such pixels.")
    need(bool(torch.isfinite(x).all()), "a centre holds NaN or infinity: leave it out.")
    centre, R = metric.whiten(x), method.radii(R, x)
    guide = ccu if guide is None else guide
    tries = (restarts + 1 + (guide is not None)) * len(rates)
    parts = []
    for at in torch.split(torch.arange(len(x), device=x.device), 2000 // tries or 1):
        there = x[at].double(), centre[at], R[at]
        goal = _Goal(log_p, metric, *there, ccu, guide, pixels)
        best, z = _climb(goal, steps, rates, restarts, generator)
        parts.append(_search(goal, best, z, max(1, steps // 5), generator))
    best, points = (torch.cat(part) for part in zip(*parts, strict=True))
    return Attacked(best, metric.unwhiten(points, x.double()))


class _Goal(NamedTuple):
    """What is attacked, and where."""

    log_p: Callable[[Tensor], Tensor]
    metric: Metric
    x: Tensor
    centre: Tensor
    R: Tensor
    ccu: CCU | None
    guide: CCU | None
    pixels: bool

    def project(self, z: Tensor) -> Tensor:
        """z, brought into the box and then the ball; z may hold several tries.

        The box is convex and holds the centre: shrinking towards it never leaves it.
        """
        tries = len(z) // len(self.R)
        R, centre = self.R.repeat(tries)[:, None], self.centre.repeat(tries, 1)
        if self.pixels:
            z = self.metric.whiten(self.metric.unwhiten(z, self.x).clamp(0, 1))
        delta = z - centre
        length = delta.norm(dim=1, keepdim=True).clamp_min(1e-300)
        inside: Tensor = centre + delta * (R / length).clamp_max(1)
        return inside

    def value(self, z: Tensor, ratio: bool = False) -> Tensor:
        """The log confidence at z, or the log ratio; z may hold several tries."""
        x = self.metric.unwhiten(z, self.x)
        if ratio and self.ccu is not None:
            return self.ccu.log_ratio(x)
        return self.log_p(x).double().amax(1)


def _climb(
    goal: _Goal, steps: int, rates: tuple[float, ...], restarts: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The best log confidence [n] of all starts and rates, and its z [n, D]."""
    n, mean = len(goal.x), towards(goal.guide, goal.x, goal.R) if goal.guide else None
    starts = _starts(goal.centre, goal.R, mean, restarts, generator)
    pairs = list(product(starts, rates))
    z = goal.project(torch.cat([start for start, _ in pairs]).detach())
    rate = torch.tensor(rates).to(z).repeat(len(starts)).repeat_interleave(n)
    R = goal.R.repeat(len(pairs))
    best, kept = torch.full_like(R, -math.inf), z
    for t in range(steps + 1):
        by_ratio = goal.ccu is not None and t < steps / 2
        z = z.detach().requires_grad_()
        value = goal.value(z, by_ratio)
        if not by_ratio:
            better = value.detach() > best
            best = torch.where(better, value.detach(), best)
            kept = torch.where(better[:, None], z.detach(), kept)
        slope = _direction(torch.autograd.grad(value.sum(), z)[0])
        step = (rate * R * (1 - t / steps))[:, None]
        z = goal.project(z.detach() + step * slope)
    first = best.view(-1, n).argmax(0)
    rows = first * n + torch.arange(n, device=z.device)
    return best[rows], kept[rows]


@torch.no_grad()
def _search(
    goal: _Goal, best: Tensor, z: Tensor, rounds: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Random moves from what was found, ever shorter: `_climb`'s, improved."""
    for k in range(rounds):
        length = goal.R * 10 ** (-3 * k / rounds)
        way = _direction(torch.empty_like(z).normal_(generator=generator))
        there = goal.project(z + length[:, None] * way)
        value = goal.value(there)
        better = value > best
        best = torch.where(better, value, best)
        z = torch.where(better[:, None], there, z)
    return best, z
