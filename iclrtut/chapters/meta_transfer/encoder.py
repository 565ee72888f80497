"""The regret of variables that an encoder rotates, equation (13).

Two variables are seen only after a rotation by theta_D, and an encoder rotates them by
theta_E before the learners of both directions see them. It has found the variables
where theta_E = -theta_D + k pi / 2; gamma > 0 is right for even k, where the first
encoded variable is the cause. Points are tensors [..., n, 2], float64. Numbers in
brackets are equations of the chapter.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from iclrtut.chapters.meta_transfer import method
from iclrtut.errors import BadRequest

REACH, PENALTY = 11, 1.0  # bumps at -11, -10, ..., 11, of width 1; of the ridge


def rotate(points: Tensor, theta: Tensor) -> Tensor:
    """Points [..., n, 2] turned by theta [...], radians, counter-clockwise."""
    x, y = points.unbind(-1)
    cos, sin = theta.cos()[..., None], theta.sin()[..., None]
    return torch.stack([cos * x - sin * y, sin * x + cos * y], -1)


def nearest(theta: Tensor, turn: Tensor) -> tuple[Tensor, Tensor]:
    """How far theta_E is from the nearest solution, and what that makes of gamma, (13).

    Args:
        theta: theta_E [...], radians.
        turn: theta_D [...], radians.

    Returns:
        Degrees to the nearest -theta_D + k pi / 2, at most 45; and the sign that gamma
        has there: 1. for even k, -1. for odd k.
    """
    quarters = (theta + turn) / (math.pi / 2)
    k = quarters.round()
    return 90 * (quarters - k).abs(), 1 - 2 * k.remainder(2)


# Learners: a Gaussian marginal, and ridge regression on bumps with Gaussian noise


@torch.no_grad()
def bumps(x: Tensor) -> Tensor:
    """phi_j(x) = exp(-(x - j)^2 / 2), j = -11 to 11: [..., n] to [..., 23, n].

    The grid is symmetric, so that a learner of -x exists for every learner of x: that
    is what (13) asks for. No gradient flows; `residuals` brings its own.
    """
    far = x[..., None, :] - _centres(x)[:, None]
    return far.square_().mul_(-0.5).exp_()


def _centres(like: Tensor) -> Tensor:
    return torch.arange(-REACH, REACH + 1.0, dtype=like.dtype, device=like.device)


class _Residuals(Function):
    """See `residuals`. By hand, since autograd would keep gradients as large as P."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, weights: Tensor, P: Tensor
    ) -> tuple[Tensor, Tensor]:
        r = y - (weights[..., None, :] @ P)[..., 0, :]
        ctx.save_for_backward(x, weights, P, r)
        return r, (P @ r[..., None])[..., 0]

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(
        ctx: Any, of_r: Tensor, of_sums: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weights, P, r = ctx.saved_tensors
        both, j = torch.stack([of_sums, weights], -2), _centres(x)
        blends, moments = both @ P, (both * j) @ P
        slopes = moments - x[..., None, :] * blends  # phi_j'(x) = (j - x) phi_j(x)
        of_r = of_r + blends[..., 0, :]
        of_x = r * slopes[..., 0, :] - of_r * slopes[..., 1, :]
        return of_x, of_r, -(P @ of_r[..., None])[..., 0], None


def residuals(
    x: Tensor, y: Tensor, weights: Tensor, P: Tensor
) -> tuple[Tensor, Tensor]:
    """r = y - sum_j weights_j phi_j(x), and the sums of phi_j(x) r over all points.

    Args:
        x, y: points [..., n].
        weights: [..., 23].
        P: bumps(x), [..., 23, n].

    Returns:
        r [..., n] and sums [..., 23]; once differentiable in x, y and weights.
    """
    r, sums = _Residuals.apply(x, y, weights, P)  # type: ignore[no-untyped-call]
    return r, sums


class Ridge(NamedTuple):
    """A learner x -> y: x normal, y normal about sum_j weights_j phi_j(x).

    Attributes:
        mean, log_sd: of x, [...].
        weights: [..., 23].
        log_noise: log deviation of y given x, [...].
    """

    mean: Tensor
    log_sd: Tensor
    weights: Tensor
    log_noise: Tensor


def learn(x: Tensor, y: Tensor) -> Ridge:
    """The learner x -> y of examples x and y [..., n], in closed form.

    Greatest likelihood, but for the weights, whose squares are added to the squared
    residuals.
    """
    mean = x.mean(-1)
    log_sd = (x - mean[..., None]).square().mean(-1).log() / 2
    P = bumps(x)
    with torch.no_grad():
        eye = torch.eye(P.shape[-2], dtype=x.dtype, device=x.device)
        L = torch.linalg.cholesky(P @ P.mT + PENALTY * eye)
        weights = torch.cholesky_solve(P @ y[..., None], L)[..., 0]
    # One more step of Newton's method moves nothing, but it has the gradient of the
    # solution: of PENALTY weights = sum_n phi(x_n) r_n.
    force = residuals(x, y, weights, P)[1] - PENALTY * weights
    weights = weights + torch.cholesky_solve(force[..., None], L)[..., 0]
    noise = residuals(x, y, weights, P)[0].square().mean(-1)
    return Ridge(mean, log_sd, weights, noise.log() / 2)


def adapt(learner: Ridge, x: Tensor, y: Tensor, rate: float) -> Tensor:
    """log L: of each batch before the learner's gradient step on it, (4).

    Args:
        learner: where it starts, [...].
        x, y: T batches of M examples, [..., T, M].
        rate: of the steps on the mean negative log-likelihood of a batch.

    Returns:
        Summed over all examples, [...], in nats.
    """
    total = torch.zeros_like(learner.mean)
    M = x.shape[-1]
    for x_t, y_t in zip(x.unbind(-2), y.unbind(-2), strict=True):
        off = x_t - learner.mean[..., None]
        residual, sums = residuals(x_t, y_t, learner.weights, bumps(x_t))
        of_x, of_y = (-2 * learner.log_sd).exp(), (-2 * learner.log_noise).exp()
        far_x, far_y = off.square().mean(-1) * of_x, residual.square().mean(-1) * of_y
        logs = learner.log_sd + learner.log_noise + math.log(2 * math.pi)
        total = total - M * ((far_x + far_y) / 2 + logs)
        ascent = Ridge(
            mean=off.mean(-1) * of_x,
            log_sd=far_x - 1,
            weights=sums * (of_y / M)[..., None],
            log_noise=far_y - 1,
        )
        learner = Ridge(*(p + rate * up for p, up in zip(learner, ascent, strict=True)))
    return total


def log_likelihoods(
    theta: Tensor, train: Tensor, transfer: Tensor, steps: int, rate: float
) -> Tensor:
    """log L of both directions once the points are encoded: [2, ...], A -> B first.

    Args:
        theta: theta_E [...], radians.
        train, transfer: points [..., n, 2] and [..., m, 2] as seen; leading axes
            broadcast with theta's.
        steps, rate: of adaptation; m must be a multiple of steps.

    Raises:
        BadRequest: points of another shape, not finite or constant, or m that steps
            do not divide.
    """
    for name, points in {"training": train, "transfer": transfer}.items():
        _check(name, points)
    m = transfer.shape[-2]
    if m % steps:
        raise BadRequest(
            f"{m} transfer points do not make {steps} equal batches: give a multiple."
        )
    before, after = (rotate(points, theta).mT for points in (train, transfer))
    x, u = (torch.stack([one, one.flip(-2)]) for one in (before, after))  # [2, ..., n]
    u = u.view(*u.shape[:-1], steps, m // steps)
    learner = learn(x[..., 0, :], x[..., 1, :])
    return adapt(learner, u[..., 0, :, :], u[..., 1, :, :], rate)


def _check(name: str, points: Tensor) -> None:
    if points.ndim < 2 or points.shape[-1] != 2 or points.shape[-2] < 2:
        raise BadRequest(
            f"the {name} points have shape {tuple(points.shape)}: give [..., n, 2], n "
            "at least 2."
        )
    if not points.isfinite().all():
        raise BadRequest(f"the {name} points are not all finite: remove NaN and inf.")
    if name == "training" and (points == points[..., :1, :]).all(-2).any():
        raise BadRequest(
            "the training points have a constant column: give two that vary."
        )


def regret(
    theta: Tensor,
    gamma: Tensor,
    train: Tensor,
    transfer: Tensor,
    steps: int,
    rate: float,
) -> Tensor:
    """R(theta_E, gamma), (11) of the encoded points: [...], nats.

    Differentiable once, through the fit and the adaptation: its gradient is (23).
    Arguments as in `log_likelihoods`; gamma [...] as theta.
    """
    forward, backward = log_likelihoods(theta, train, transfer, steps, rate)
    return method.regret(gamma, forward, backward)
