"""The continuous case of the chapter on meta-transfer, and the rotation encoder, (13).

A causes B along a random curve; the two are seen only after a rotation by theta_D, and
an encoder rotates them by theta_E before the learners of both directions see them. It
has found the variables where theta_E = -theta_D + k pi / 2; gamma > 0 is right for even
k, where the first encoded variable is the cause. Points are tensors [..., n, 2],
float64 on the run's device; W worlds lie on the last of the leading axes. Numbers in
brackets are equations of the chapter. `run` is what `iclrtut.start` returns; sizes come
from its settings.
"""

import math
from itertools import product
from typing import Any, NamedTuple

import torch
from scipy.interpolate import CubicSpline
from torch import Generator, Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from iclrtut.chapters.meta_transfer import method as chapter
from iclrtut.chapters.meta_transfer.experiments import share
from iclrtut.errors import BadRequest
from iclrtut.train import cosine, fit

SPAN, KNOTS = 8.0, 8  # the curve: knots on -8 to 8, as high as they are wide
SPREAD, FARTHEST = 2.0, 4.0  # A's deviation, and how far its mean moves
REACH, PENALTY = 11, 1.0  # bumps at -11, -10, ..., 11, of width 1; of the ridge
RIGHT = math.pi / 2
ANGLES = 4  # of a landscape, seen at once
# Of Adam: networks before the episodes, during them, and as they adapt; the encoder.
FIT_RATE, REFIT_RATE, ADAPT_RATE, ROTOR_RATE = 1e-2, 1e-2, 1e-3, 1e-2
FLOOR = -4.0  # log deviations of a network's components

# Worlds


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
    quarters = (theta + turn) / RIGHT
    k = quarters.round()
    return 90 * (quarters - k).abs(), 1 - 2 * k.remainder(2)


class Worlds(NamedTuple):
    """W curves b = f(a), by their cubic pieces [W, 7, 4], and theta_D [W], radians."""

    pieces: Tensor
    turn: Tensor


def make_worlds(run: Any, name: str = "worlds", count: int = 0) -> Worlds:
    """Worlds, by default as many as the settings say: uniform heights and theta_D.

    The paper's encoder starts midway between two solutions (theta_D = -pi / 4, start
    0), which one it finds is chance; a uniform theta_D puts the starts anywhere between
    them.
    """
    shape, rng = (count or run.settings.worlds, KNOTS), run.generator(name)
    heights = SPAN * (2 * chapter.uniform(shape, rng) - 1)
    return Worlds(_curve(heights), 2 * math.pi * chapter.uniform(shape[:1], rng))


def _curve(heights: Tensor) -> Tensor:
    """Cubic splines through heights [W, KNOTS], as pieces [W, KNOTS - 1, 4]."""
    knots = torch.linspace(-SPAN, SPAN, KNOTS, dtype=torch.float64)
    spline = CubicSpline(knots.numpy(), heights.cpu().numpy(), axis=1)
    return torch.tensor(spline.c).permute(2, 1, 0).contiguous().to(heights.device)


def mechanism(pieces: Tensor, a: Tensor) -> Tensor:
    """f(a): the cubic spline inside -8 to 8, and constant beyond.

    Args:
        pieces: [W, 7, 4], highest power first.
        a: [W, n].

    Returns:
        [W, n].
    """
    width = 2 * SPAN / (KNOTS - 1)
    inside = a.clamp(-SPAN, SPAN) + SPAN
    piece = (inside / width).long().clamp_max(KNOTS - 2)
    t = inside - piece.to(a.dtype) * width
    value = torch.zeros_like(t)
    for coefficients in pieces.unbind(-1):
        value = value * t + coefficients.gather(-1, piece)
    return value


def draw(worlds: Worlds, mean: Tensor, n: int, generator: Generator) -> Tensor:
    """What is seen of n examples: (a, b) turned by theta_D, [W, n, 2].

    A is normal with `mean` [W] and deviation 2, B is f(A) with normal noise of 1.
    """
    noise = torch.empty((2, len(mean), n), dtype=torch.float64, device=mean.device)
    first, second = noise.normal_(generator=generator)
    a = mean[:, None] + SPREAD * first
    b = mechanism(worlds.pieces, a) + second
    return rotate(torch.stack([a, b], -1), worlds.turn)


def episode(
    run: Any, worlds: Worlds, generator: Generator, changed: bool = True
) -> tuple[Tensor, Tensor]:
    """Training data [W, train, 2] and transfer data [W, transfer, 2], both fresh.

    Args:
        run, worlds, generator: sizes, what to draw from, and what draws.
        changed: whether A's mean, 0 in training, is uniform in -4 to 4 for transfer.
    """
    zero = torch.zeros_like(worlds.turn)
    moved = FARTHEST * (2 * chapter.uniform((len(zero),), generator) - 1)
    train = draw(worlds, zero, run.settings.train, generator)
    mean = moved if changed else zero
    return train, draw(worlds, mean, run.settings.transfer, generator)


# Learners: a Gaussian marginal, and ridge regression on bumps with Gaussian noise


@torch.no_grad()
def bumps(x: Tensor) -> Tensor:
    """phi_j(x) = exp(-(x - j)^2 / 2), j = -11 to 11: [..., n] to [..., 23, n].

    The grid is symmetric, so that a learner of -x exists for every learner of x: that
    is what (13) asks for. No gradient flows; the sums below bring their own.
    """
    far = x[..., None, :] - _centres(x)[:, None]
    return far.square_().mul_(-0.5).exp_()


def _centres(like: Tensor) -> Tensor:
    return torch.arange(-REACH, REACH + 1.0, dtype=like.dtype, device=like.device)


def _tilt(x: Tensor, P: Tensor, w: Tensor) -> Tensor:
    """sum_j w_j dphi_j(x)/dx, [..., n]: a bump's slope is (j - x) phi_j(x)."""
    up, level = (torch.stack([w * _centres(x), w], -2) @ P).unbind(-2)
    return up - x * level


class _Blend(Function):
    """sum_j w_j phi_j(x_n) for all n; P is phi(x). No gradient the size of P is made.

    Of x [..., n], w [..., 23] and P [..., 23, n]; so do the next two.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, P: Tensor) -> Tensor:
        ctx.save_for_backward(x, w, P)
        return (w[..., None, :] @ P)[..., 0, :]

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None]:
        x, w, P = ctx.saved_tensors
        return g * _tilt(x, P, w), (P @ g[..., None])[..., 0], None


class _Gather(Function):
    """sum_n phi_j(x_n) r_n for all j, r [..., n]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, r: Tensor, P: Tensor) -> Tensor:
        ctx.save_for_backward(x, r, P)
        return (P @ r[..., None])[..., 0]

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None]:
        x, r, P = ctx.saved_tensors
        return r * _tilt(x, P, g), (g[..., None, :] @ P)[..., 0, :], None


class _Gram(Function):
    """sum_n phi_i(x_n) phi_j(x_n) for all i and j."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, P: Tensor) -> Tensor:
        ctx.save_for_backward(x, P)
        return P @ P.mT

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        x, P = ctx.saved_tensors
        slope, ones = torch.empty_like(x), torch.ones_like(g[..., 0])
        for at in product(*map(range, x.shape[:-2])):  # in parts, which stay in cache
            mixed = ((g[at] + g[at].mT) @ P[at]).mul_(P[at])
            slope[at] = _tilt(x[at], mixed, ones[at])
        return slope, None


_blend: Any = _Blend.apply
_gather: Any = _Gather.apply
_gram: Any = _Gram.apply


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
    eye = torch.eye(P.shape[-2], dtype=x.dtype, device=x.device)
    L = torch.linalg.cholesky(_gram(x, P) + PENALTY * eye)
    weights = torch.cholesky_solve(_gather(x, y, P)[..., None], L)[..., 0]
    residual = y - _blend(x, weights, P)
    return Ridge(mean, log_sd, weights, residual.square().mean(-1).log() / 2)


def adapt(
    learner: Ridge, x: Tensor, y: Tensor, rate: float, first_order: bool = False
) -> Tensor:
    """log L: of each batch before the learner's gradient step on it, (4).

    Args:
        learner: where it starts, [...].
        x, y: T batches of M examples, [..., T, M].
        rate: of the steps on the mean negative log-likelihood of a batch.
        first_order: keep the gradient of log L from going through the steps.

    Returns:
        Summed over all examples, [...], in nats.
    """
    total = torch.zeros_like(learner.mean)
    M = x.shape[-1]
    for x_t, y_t in zip(x.unbind(-2), y.unbind(-2), strict=True):
        P = bumps(x_t)
        off = x_t - learner.mean[..., None]
        residual = y_t - _blend(x_t, learner.weights, P)
        of_x, of_y = (-2 * learner.log_sd).exp(), (-2 * learner.log_noise).exp()
        far_x, far_y = off.square().mean(-1) * of_x, residual.square().mean(-1) * of_y
        logs = learner.log_sd + learner.log_noise + math.log(2 * math.pi)
        total = total - M * ((far_x + far_y) / 2 + logs)
        ascent: tuple[Tensor, ...] = (
            off.mean(-1) * of_x,
            far_x - 1,
            _gather(x_t, residual, P) * (of_y / M)[..., None],
            far_y - 1,
        )
        if first_order:
            ascent = tuple(part.detach() for part in ascent)
        learner = Ridge(*(p + rate * up for p, up in zip(learner, ascent, strict=True)))
    return total


def log_likelihoods(
    theta: Tensor,
    train: Tensor,
    transfer: Tensor,
    steps: int,
    rate: float,
    first_order: bool = False,
) -> Tensor:
    """log L of both directions once the points are encoded: [2, ...], A -> B first.

    Args:
        theta: theta_E [...], radians.
        train, transfer: points [..., n, 2] and [..., m, 2] as seen; leading axes
            broadcast with theta's.
        steps, rate: of adaptation; m must be a multiple of steps.
        first_order: as `adapt` takes it.

    Raises:
        BadRequest: points of another shape, not finite or constant, or m that steps
            do not divide.
    """
    for name, points in {"training": train, "transfer": transfer}.items():
        _refuse(name, points)
    m = transfer.shape[-2]
    if m % steps:
        raise BadRequest(
            f"{m} transfer points do not make {steps} equal batches: give a multiple."
        )
    known, new = (rotate(points, theta).mT for points in (train, transfer))
    x, u = (torch.stack([one, one.flip(-2)]) for one in (known, new))  # [2, ..., 2, n]
    u = u.view(*u.shape[:-1], steps, m // steps)
    learner = learn(x[..., 0, :], x[..., 1, :])
    return adapt(learner, u[..., 0, :, :], u[..., 1, :, :], rate, first_order)


def _refuse(name: str, points: Tensor) -> None:
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
    first_order: bool = False,
) -> Tensor:
    """R(theta_E, gamma), (11) of the encoded points: [...], nats.

    Differentiable once, through the fit and the adaptation: its gradient is (13).
    Arguments as in `log_likelihoods`; gamma [...] as theta.
    """
    found = log_likelihoods(theta, train, transfer, steps, rate, first_order)
    return chapter.regret(gamma, found[0], found[1])


# The encoder


class Encoder(NamedTuple):
    """What E episodes made of the encoders of W worlds, from S starts each.

    Attributes:
        turn: theta_D [W].
        thetas, gammas: theta_E, radians, and gamma, before the first episode and after
            each, [E + 1, S, W].
        regrets: of the last theta and gamma on data of their own, [S, W], nats.
    """

    turn: Tensor
    thetas: Tensor
    gammas: Tensor
    regrets: Tensor


class _Paths(nn.Module):
    """theta and gamma [S, W], which are trained, and where they have been."""

    def __init__(self, theta: Tensor, episodes: int):
        super().__init__()
        self.theta = nn.Parameter(theta.clone())
        self.gamma = nn.Parameter(torch.zeros_like(theta))
        self.been: Tensor
        self.register_buffer("been", theta.new_zeros(2, episodes, *theta.shape))

    def walked(self) -> tuple[Tensor, Tensor]:
        """The paths of theta and gamma with their ends, each [E + 1, S, W]."""
        here = torch.stack([self.theta, self.gamma]).detach()
        thetas, gammas = torch.cat([self.been, here[:, None]], 1)
        return thetas, gammas


def train_encoder(
    run: Any,
    worlds: Worlds,
    name: str = "encoder",
    changed: bool = True,
    first_order: bool = False,
) -> Encoder:
    """Learn theta_E and gamma by Adam, on fresh data in each episode.

    A solution comes every 90 degrees, so the starts divide those among them: with
    four, they lie 22.5 degrees apart. The rate of theta falls to 0 on half a cosine.

    Args:
        run, worlds: sizes and rates, and what to learn.
        name: of the checkpoint and the progress bar.
        changed: as `episode` takes it.
        first_order: as `adapt` takes it.

    Raises:
        RunFailed: a regret is not finite.
    """
    s, E = run.settings, run.settings.encoder_episodes
    theta = torch.arange(s.starts, dtype=torch.float64) * RIGHT / s.starts
    model = _Paths(theta.to(run.device)[:, None].repeat(1, len(worlds.turn)), E)
    data = run.generator("encoder")

    def loss_at(t: int) -> tuple[Tensor, dict[str, float]]:
        model.been[:, t] = torch.stack([model.theta, model.gamma]).detach()
        train, transfer = episode(run, worlds, data, changed)
        how = train, transfer, s.encoder_steps, s.encoder_rate, first_order
        return regret(model.theta, model.gamma, *how).mean(), {}

    optimizer = torch.optim.Adam(
        [
            {"params": [model.theta], "lr": s.theta_rate},
            {"params": [model.gamma], "lr": s.encoder_gamma_rate},
        ]
    )
    fit(
        loss_at,
        optimizer,
        E,
        state={"model": model, "data": data},
        folder=run.folder,
        name=name,
        schedule=[cosine(E), lambda t: 1.0],
        every=s.every,
    )
    thetas, gammas = model.walked()
    return Encoder(
        worlds.turn,
        thetas,
        gammas,
        _judge(run, worlds, thetas[-1], gammas[-1], changed),
    )


@torch.no_grad()
def _judge(
    run: Any, worlds: Worlds, theta: Tensor, gamma: Tensor, changed: bool
) -> Tensor:
    """Mean regret of all starts on the same fresh episodes, [S, W]."""
    s, data = run.settings, run.generator("judge")
    total = torch.zeros_like(theta)
    for _ in range(s.judged):
        seen = episode(run, worlds, data, changed)
        total += regret(theta, gamma, *seen, s.encoder_steps, s.encoder_rate)
    mean: Tensor = total / s.judged
    return mean


def measure_encoder(encoder: Encoder) -> dict[str, dict[str, float]]:
    """The three claims on the encoder: shares of worlds.

    Returns:
        "encoder_one": the first start within 2 degrees of a solution; "degrees" is the
        median, and "any" the share over all starts. "encoder_best": the start with the
        lowest regret within 5 degrees. "encoder_sign": its gamma has the sign that the
        nearest solution asks for.
    """
    away, sign = nearest(encoder.thetas[-1], encoder.turn)  # [S, W]
    best = encoder.regrets.argmin(0, keepdim=True)
    chosen, asked, gamma = (
        x.gather(0, best)[0] for x in (away, sign, encoder.gammas[-1])
    )
    one = {"degrees": float(away[0].median()), "any": float((away < 2).double().mean())}
    return {
        "encoder_one": share(away[0] < 2) | one,
        "encoder_best": share(chosen < 5) | {"degrees": float(chosen.median())},
        "encoder_sign": share(gamma.sign() == asked),
    }


class Landscape(NamedTuple):
    """Mean log L of both directions over theta_E, of G angles in [0, pi / 2).

    Attributes:
        angles: theta_E [G], radians.
        forward, backward: of A -> B and B -> A, [G, W], nats an example.
        turn: theta_D [W].
    """

    angles: Tensor
    forward: Tensor
    backward: Tensor
    turn: Tensor


@torch.no_grad()
def landscape(run: Any, worlds: Worlds, changed: bool = True) -> Landscape:
    """What an encoder could find: both directions at every angle, on the same data.

    By (13) a quarter turn exchanges the directions, so that a right angle of theta_E
    shows all there is.

    Args:
        run, worlds: sizes, and what to look at.
        changed: as `episode` takes it; False shows what is found without any change.
    """
    s, data, W = run.settings, run.generator("landscape"), len(worlds.turn)
    angles = torch.arange(s.angles, dtype=torch.float64, device=run.device)
    angles = angles * RIGHT / s.angles
    total = angles.new_zeros(2, s.angles, W)
    for _ in range(s.judged):
        train, transfer = episode(run, worlds, data, changed)
        for i in range(0, s.angles, ANGLES):
            theta = angles[i : i + ANGLES, None].expand(-1, W)
            total[:, i : i + ANGLES] += log_likelihoods(
                theta, train, transfer, s.encoder_steps, s.encoder_rate
            )
    forward, backward = total / (s.judged * s.transfer)
    return Landscape(angles, forward, backward, worlds.turn)


def measure_landscape(land: Landscape) -> dict[str, float]:
    """Where the greatest likelihood lies, over all angles and both directions.

    Returns:
        Shares of worlds: "value", within 3 degrees of a solution, with "successes" and
        "trials"; "sign", in the direction that is right there.
    """
    both = torch.stack([land.forward, land.backward])
    top = both.flatten(0, 1).argmax(0)  # [W]
    away, sign = nearest(land.angles[top % len(land.angles)], land.turn)
    right = (top < len(land.angles)) == (sign > 0)
    return share(away < 3) | {"sign": float(right.double().mean())}


# Mixture density networks, for conditionals with several modes


class Mixture(NamedTuple):
    """K normal laws and their log weights, each [..., K]."""

    log_weights: Tensor
    means: Tensor
    log_sds: Tensor

    def log_density(self, y: Tensor) -> Tensor:
        """log p(y), y and result [...]."""
        far = ((y[..., None] - self.means) * (-self.log_sds).exp()).square()
        logs = self.log_sds + math.log(2 * math.pi) / 2
        return (self.log_weights - far / 2 - logs).logsumexp(-1)


@torch.no_grad()
def expectation_maximisation(x: Tensor, components: int, steps: int) -> Mixture:
    """Mixtures of normal laws fitted to x [..., n], each [..., 1, K], by EM.

    It starts from equal weights, at quantiles of x. No variance falls below a
    thousandth of that of x.
    """
    spread = x.std(-1)[..., None, None]
    at = (torch.arange(components, device=x.device, dtype=x.dtype) + 0.5) / components
    means = torch.quantile(x, at, dim=-1).movedim(0, -1)[..., None, :]
    flat = torch.zeros_like(means)
    law = Mixture(
        flat - math.log(components), means, (spread / components).log() + flat
    )
    for _ in range(steps):
        far = ((x[..., None] - law.means) * (-law.log_sds).exp()).square()
        share = (law.log_weights - law.log_sds - far / 2).softmax(-1)  # [..., n, K]
        mass = share.sum(-2, keepdim=True) + 1e-6
        means = (share * x[..., None]).sum(-2, keepdim=True) / mass
        around = (share * (x[..., None] - means).square()).sum(-2, keepdim=True) / mass
        log_sds = around.clamp_min(1e-3 * spread.square()).log() / 2
        law = Mixture(mass.log().log_softmax(-1), means, log_sds)
    return law


def network(weights: Tensor, x: Tensor, components: int) -> Mixture:
    """The mixture that a network of one hidden layer of tanh makes of each x.

    Args:
        weights: of any number of networks, [..., P], P = 2 H + 3 K (H + 1).
        x: [..., M].
        components: K.

    Returns:
        [..., M, K].
    """
    K = components
    H = (weights.shape[-1] - 3 * K) // (2 + 3 * K)
    slope, shift, out, level = torch.split(weights, [H, H, 3 * K * H, 3 * K], -1)
    hidden = (x[..., None] * slope[..., None, :] + shift[..., None, :]).tanh()
    made = hidden @ out.view(*out.shape[:-1], H, 3 * K) + level[..., None, :]
    logits, means, log_sds = made.chunk(3, -1)
    return Mixture(logits.log_softmax(-1), 4 * means, log_sds.clamp_min(FLOOR))


def online(
    weights: Tensor, x: Tensor, y: Tensor, components: int, rate: float
) -> tuple[Tensor, Tensor]:
    """log L of each batch before the networks' step of Adam on it, (4).

    As in the official code no gradient goes through the steps: that of log L reaches x
    and y where they are evaluated, and nothing else.

    Args:
        weights: [..., P].
        x, y: [..., T, M].
        components: of the networks.
        rate: of Adam.

    Returns:
        The sum over all examples [...], nats, and the weights after all steps.
    """
    total, watched = torch.zeros_like(weights[..., 0]), x.requires_grad
    w, m, v = weights.detach(), torch.zeros_like(weights), torch.zeros_like(weights)
    for t, (x_t, y_t) in enumerate(zip(x.unbind(-2), y.unbind(-2), strict=True), 1):
        w = w.requires_grad_()
        log_l = network(w, x_t, components).log_density(y_t).sum(-1)
        (g,) = torch.autograd.grad(-log_l.sum() / x.shape[-1], w, retain_graph=watched)
        total = total + (log_l if watched else log_l.detach())
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g.square()
        root = (v / (1 - 0.999**t)).sqrt() + 1e-8
        w = (w - rate * m / (1 - 0.9**t) / root).detach()
    return total, w


class Multimodal(NamedTuple):
    """What E episodes made of W worlds with networks.

    Attributes:
        turn: theta_D [W].
        thetas, gammas: before the first episode and after each, [E + 1, W].
        leads: log L_{A->B} - log L_{B->A} of each episode, [E, W], nats an example.
    """

    turn: Tensor
    thetas: Tensor
    gammas: Tensor
    leads: Tensor


class _Networks(nn.Module):
    """Networks of both directions [2, W, P], theta and gamma [W], and their paths."""

    def __init__(self, weights: Tensor, theta: Tensor, episodes: int):
        super().__init__()
        self.weights = nn.Parameter(weights.clone())
        self.theta = nn.Parameter(theta.clone())
        self.gamma = nn.Parameter(torch.zeros_like(theta))
        self.been: Tensor
        self.register_buffer("been", theta.new_zeros(3, episodes, *theta.shape))

    def regret(self, t: int, found: Tensor, n: int) -> Tensor:
        """Mean regret of log-likelihoods [2, W] of n examples; notes where it is."""
        lead = (found[0] - found[1]) / n
        self.been[:, t] = torch.stack([self.theta, self.gamma, lead]).detach()
        return chapter.regret(self.gamma, found[0], found[1]).mean()


def _encoded(theta: Tensor, points: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """x and y of both directions, [2, W, T, M], float32, of points [W, T M, 2]."""
    pair = rotate(points, theta).mT.float()  # [W, 2, T M]
    both = torch.stack([pair, pair.flip(-2)])
    x, y = both.view(*both.shape[:-1], steps, -1).unbind(-3)
    return x, y


def _moved(worlds: Worlds, n: int, data: Generator, changed: bool) -> Tensor:
    """Transfer data of n examples a world."""
    mean = FARTHEST * (2 * chapter.uniform((len(worlds.turn),), data) - 1)
    return draw(worlds, mean if changed else torch.zeros_like(mean), n, data)


def multimodal_worlds(run: Any) -> Worlds:
    """Worlds for networks: as many as the settings say, theta_D = -pi / 4 as there."""
    made = make_worlds(run, "multimodal", run.settings.mixture_worlds)
    return made._replace(turn=torch.full_like(made.turn, -math.pi / 4))


def modes(worlds: Worlds, n: int = 200) -> Tensor:
    """How many modes p(a | b) has under the training law, mean over b, [W].

    On a grid of a, at n values of b that the law makes likely; modes lower than a
    hundredth of the highest do not count.
    """
    W, device = len(worlds.turn), worlds.turn.device
    a = torch.linspace(-10, 10, 2001, dtype=torch.float64, device=device)
    f = mechanism(worlds.pieces, a.expand(W, -1))
    level = (torch.arange(n, dtype=torch.float64, device=device) + 0.5) / n
    b = mechanism(worlds.pieces, SPREAD * torch.special.ndtri(level).expand(W, -1))
    log_p = -0.5 * ((a / SPREAD).square() + (b[..., None] - f[:, None]).square())
    here, high = log_p[..., 1:-1], log_p.amax(-1, keepdim=True)
    top = (here > log_p[..., :-2]) & (here >= log_p[..., 2:])
    counted = top & (here > high - math.log(100))
    return counted.sum(-1).double().mean(-1)


def fit_networks(run: Any, worlds: Worlds, theta: Tensor, name: str) -> Tensor:
    """Networks of both directions on training data encoded by theta [W]: [2, W, P].

    By Adam on fresh data in each step, its rate falling to 0 on half a cosine.
    """
    s, data = run.settings, run.generator(name)
    H, K, T = s.mixture_hidden, s.mixture_components, s.mixture_fit
    W = len(worlds.turn)
    first = torch.empty(2, W, 2 * H + 3 * K * (H + 1), device=run.device)
    first.uniform_(-1, 1, generator=data)
    first[..., 2 * H :] /= math.sqrt(H)
    model = nn.ParameterDict({"weights": nn.Parameter(first)})
    zero = torch.zeros_like(worlds.turn)

    def loss_at(t: int) -> tuple[Tensor, dict[str, float]]:
        points = draw(worlds, zero, s.mixture_batch, data)
        x, y = (part[..., 0, :] for part in _encoded(theta, points, 1))
        log_p = network(model["weights"], x, K).log_density(y)
        return -log_p.mean(-1).sum() / W, {}

    optimizer = torch.optim.Adam(model.parameters(), FIT_RATE)
    fit(
        loss_at,
        optimizer,
        T,
        state={"model": model, "data": data},
        folder=run.folder,
        name=name,
        schedule=cosine(T),
        every=s.every,
    )
    fitted: Tensor = model["weights"].detach()
    return fitted


def _likelihoods(
    run: Any, weights: Tensor, theta: Tensor, points: Tensor, steps: int
) -> Tensor:
    """log L of both directions, [2, W]: networks that adapt, marginals refitted by EM.

    The marginals see all the points that they are judged on, as in the official code.
    """
    s = run.settings
    x, y = _encoded(theta, points, steps)
    K = s.mixture_components
    law = expectation_maximisation(x.detach().flatten(-2), K, s.em_steps)
    marginal = law.log_density(x.flatten(-2)).sum(-1)
    conditional, _ = online(weights, x, y, K, ADAPT_RATE)
    return marginal + conditional


def train_multimodal_gamma(
    run: Any, worlds: Worlds, weights: Tensor, name: str, changed: bool = True
) -> Multimodal:
    """gamma by RMSprop, theta at the truth; the networks start each episode anew.

    Args:
        run, worlds: sizes, and what to draw from.
        weights: of `fit_networks` at theta_E = -theta_D, [2, W, P].
        name: of the checkpoint and the progress bar.
        changed: whether A's law changes.
    """
    s, data = run.settings, run.generator(name)
    model = _Networks(weights, -worlds.turn, s.mixture_episodes)
    M = s.mixture_batch

    def loss_at(t: int) -> tuple[Tensor, dict[str, float]]:
        points = _moved(worlds, s.mixture_steps * M, data, changed)
        theta = model.theta.detach()
        found = _likelihoods(run, model.weights, theta, points, s.mixture_steps)
        return model.regret(t, found, points.shape[-2]), {}

    optimizer = torch.optim.RMSprop([model.gamma], s.gamma_rate)
    return _followed(
        run, worlds, model, data, loss_at, optimizer, s.mixture_episodes, name
    )


def train_multimodal_encoder(run: Any, worlds: Worlds, weights: Tensor) -> Multimodal:
    """theta_E from 0, and gamma, by Adam; the networks are trained on in between.

    Args:
        run, worlds: sizes, and what to draw from.
        weights: of `fit_networks` at theta_E = 0, [2, W, P].
    """
    s, data = run.settings, run.generator("rotor")
    model = _Networks(weights, torch.zeros_like(worlds.turn), s.rotor_episodes)
    zero, K = torch.zeros_like(worlds.turn), s.mixture_components

    def loss_at(t: int) -> tuple[Tensor, dict[str, float]]:
        known = draw(worlds, zero, s.rotor_refit * s.mixture_batch, data)
        x, y = _encoded(model.theta.detach(), known, s.rotor_refit)
        _, better = online(model.weights, x, y, K, REFIT_RATE)
        model.weights.data.copy_(better)
        points = _moved(worlds, s.rotor_steps * s.mixture_batch, data, True)
        found = _likelihoods(run, model.weights, model.theta, points, s.rotor_steps)
        return model.regret(t, found, points.shape[-2]), {}

    optimizer = torch.optim.Adam([model.theta, model.gamma], ROTOR_RATE)
    return _followed(
        run, worlds, model, data, loss_at, optimizer, s.rotor_episodes, "rotor"
    )


def _followed(
    run: Any,
    worlds: Worlds,
    model: _Networks,
    data: Generator,
    loss_at: Any,
    optimizer: torch.optim.Optimizer,
    episodes: int,
    name: str,
) -> Multimodal:
    """Train, and tell the paths."""
    fit(
        loss_at,
        optimizer,
        episodes,
        state={"model": model, "data": data},
        folder=run.folder,
        name=name,
        every=run.settings.every,
    )
    ends = torch.stack([model.theta, model.gamma]).detach()[:, None]
    thetas, gammas = torch.cat([model.been[:2], ends], 1)
    return Multimodal(worlds.turn, thetas, gammas, model.been[2])


def multimodal_landscape(run: Any, worlds: Worlds) -> Landscape:
    """As `landscape`, with networks trained anew at each angle: 5, 15, ..., 85 degrees.

    Args:
        run: sizes; as many angles as `rotor_angles` says.
        worlds: of `multimodal_worlds`, whose solution is 45 degrees.
    """
    s, W = run.settings, len(worlds.turn)
    ticks = torch.arange(s.rotor_angles, dtype=torch.float64, device=run.device)
    angles = (ticks + 0.5) * RIGHT / s.rotor_angles
    n, total = s.rotor_steps * s.mixture_batch, angles.new_zeros(2, s.rotor_angles, W)
    for i in range(s.rotor_angles):
        theta = angles[i].expand(W)
        weights = fit_networks(run, worlds, theta, f"networks at angle {i}")
        data = run.generator("multimodal landscape")  # the same at every angle
        for _ in range(s.judged):
            points = _moved(worlds, n, data, True)
            total[:, i] += _likelihoods(run, weights, theta, points, s.rotor_steps)
    forward, backward = total / (s.judged * n)
    return Landscape(angles, forward, backward, worlds.turn)


def multimodal(run: Any) -> dict[str, Multimodal]:
    """gamma with theta at the truth, the same without a change, and the encoder.

    Returns:
        "gamma", "unchanged" and "encoder", of the same worlds.
    """
    worlds = multimodal_worlds(run)
    known = fit_networks(run, worlds, -worlds.turn, "networks")
    start = fit_networks(run, worlds, torch.zeros_like(worlds.turn), "rotor networks")
    return {
        "gamma": train_multimodal_gamma(run, worlds, known, "multimodal gamma"),
        "unchanged": train_multimodal_gamma(run, worlds, known, "unchanged", False),
        "encoder": train_multimodal_encoder(run, worlds, start),
    }


def measure_multimodal(found: Multimodal) -> dict[str, float]:
    """What came out, as shares of worlds.

    Returns:
        "right": gamma has the sign that the nearest solution asks for; "close": theta_E
        lies within 5 degrees of it; "sure": sigma(gamma) of that direction is above
        0.95. Also "episodes", the share of episodes in which that direction leads, and
        "nats", by how many an example.
    """
    away, sign = nearest(found.thetas[-1], found.turn)
    ahead = found.gammas[-1] * sign
    nats = found.leads * sign
    return {
        "right": float((ahead > 0).double().mean()),
        "close": float((away < 5).double().mean()),
        "sure": float((ahead.sigmoid() > 0.95).double().mean()),
        "episodes": float((nats > 0).double().mean()),
        "nats": float(nats.mean()),
    }
