"""What theory says of learners: how far, how fast at first, and where gamma rests.

Tables as in the chapter's method: log probabilities [..., N, N], index [a, b].
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from iclrtut.chapters.meta_transfer.method import (
    Learner,
    adapt,
    both,
    kl,
    population_gradient,
)


def distance(before: Learner, after: Learner) -> Tensor:
    """D: squared distance of logits, each law's less their mean, (8), [...]."""
    marginal, rows = (new - old for old, new in zip(before, after, strict=True))
    spread = marginal.var(-1, correction=0) * marginal.shape[-1]
    return spread + (rows.var(-1, correction=0) * rows.shape[-1]).sum(-1)


def distances(log_p: Tensor, log_star: Tensor) -> tuple[Tensor, Tensor]:
    """D of A -> B and of B -> A, for joints [..., N, N], (8)."""
    (a, b), (a_star, b_star) = both(log_p), both(log_star)
    return distance(a, a_star), distance(b, b_star)


def first_step(log_p: Tensor, log_star: Tensor) -> tuple[Tensor, Tensor]:
    """G of A -> B and of B -> A: KL gained by a small population step, over its rate.

    |P_A - P_A*|^2 + sum_a P*(a)^2 |P(.|a) - P*(.|a)|^2 and its mirror, (5).
    """
    found = []
    for here, star in zip(both(log_p), both(log_star), strict=True):
        marginal, rows = population_gradient(here, star)
        found.append(marginal.square().sum(-1) + rows.square().sum((-2, -1)))
    return found[0], found[1]


def gaps(
    log_p: Tensor, log_star: Tensor, a: Tensor, b: Tensor, rate: float, n: Sequence[int]
) -> Tensor:
    """KL_{B->A} - KL_{A->B} after n[0], n[1], ... examples, exact, [len(n), R].

    Args:
        log_p: the joint where both learners start, [R, N, N].
        log_star: the changed joint, which the examples come from.
        a, b: examples, int64 [R, at least n[-1]]; one a step.
        rate: of both learners.
        n: ascending numbers of examples.
    """
    forward, backward = both(log_p)
    found, done = [], 0
    for now in n:
        x, y = a[:, done:now, None], b[:, done:now, None]
        forward, backward = adapt(forward, x, y, rate), adapt(backward, y, x, rate)
        ahead = kl(log_star, forward.log_joint())
        found.append(kl(log_star, backward.log_joint().mT) - ahead)
        done = now
    return torch.stack(found)


def fixed_point(deltas: Tensor) -> Tensor:
    """The p = sigma(gamma) at which the mean of R over episodes is least, (12).

    One if E e^-Delta is at most one, zero if E e^Delta is, else the root of
    E[(e^Delta - 1) / (1 + p (e^Delta - 1))], by bisection.

    Args:
        deltas: samples [n, ...].

    Returns:
        p*, [...].
    """
    inverse = 1 / torch.expm1(deltas)
    low, high = torch.zeros_like(deltas[0]), torch.ones_like(deltas[0])
    for _ in range(60):
        p = (low + high) / 2
        rises = (1 / (p + inverse)).mean(0) > 0
        low, high = torch.where(rises, p, low), torch.where(rises, high, p)
    return (low + high) / 2
