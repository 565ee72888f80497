"""Experiments with rotated continuous variables: can an encoder undo the rotation?

A causes B along a random curve; the two are seen only after a rotation by theta_D, and
an encoder rotates them back by theta_E, (13). First with ridge regressions, then with
mixture density networks, for conditionals with several modes. Points are tensors
[..., n, 2], float64 on the run's device; W worlds lie on the last of the leading axes.
Numbers in brackets are equations of the chapter; sizes come from a run's settings.
"""

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.optim import Adam, RMSprop

from iclrtut.chapters.meta_transfer import Settings, method
from iclrtut.chapters.meta_transfer.encoder import log_likelihoods, nearest, rotate
from iclrtut.chapters.meta_transfer.training import Beliefs, loop, train
from iclrtut.claims import Measurements
from iclrtut.metrics import share
from iclrtut.run import Run
from iclrtut.train import Loop, constant, cosine

SPAN, KNOTS = 8.0, 8  # the curve: knots on -8 to 8, as high as they are wide
SPREAD, FARTHEST = 2.0, 4.0  # A's deviation, and how far its mean moves
RIGHT = math.pi / 2
NEAR = 5.0  # degrees, within which a solution is found
ANGLES = 4  # of a landscape, evaluated at once
# Of Adam: networks before the episodes, during them, and as they adapt; the encoder.
FIT_RATE, REFIT_RATE, ADAPT_RATE, ROTOR_RATE = 1e-2, 1e-2, 1e-3, 1e-2
FLOOR = -4.0  # log deviations of a network's components

# Worlds


class Worlds(NamedTuple):
    """W curves b = f(a), by their cubic pieces [W, 7, 4], and theta_D [W], radians."""

    pieces: Tensor
    turn: Tensor


def make_worlds(run: Run, name: str = "worlds", count: int = 0) -> Worlds:
    """Worlds, by default as many as the settings say: uniform heights and theta_D.

    The paper's encoder starts midway between two solutions (theta_D = -pi / 4, start
    0), which one it finds is chance; a uniform theta_D puts the starts anywhere between
    them.
    """
    shape, generator = (count or run.settings.worlds, KNOTS), run.generator(name)
    heights = SPAN * (2 * method.uniform(shape, generator) - 1)
    turn = 2 * math.pi * method.uniform(shape[:1], generator)
    return Worlds(curve(heights), turn)


def curve(heights: Tensor) -> Tensor:
    """Cubic splines through heights [W, KNOTS], as pieces [W, KNOTS - 1, 4]."""
    from scipy.interpolate import CubicSpline

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


def new_means(worlds: Worlds, generator: Generator, changed: bool = True) -> Tensor:
    """Means of A for transfer, [W]: uniform in -4 to 4, or 0 where nothing changed."""
    mean = FARTHEST * (2 * method.uniform(worlds.turn.shape, generator) - 1)
    return mean if changed else torch.zeros_like(mean)


def episode(
    settings: Settings, worlds: Worlds, generator: Generator, changed: bool = True
) -> tuple[Tensor, Tensor]:
    """Training data [W, train, 2] and transfer data [W, transfer, 2], both fresh.

    Args:
        settings, worlds, generator: sizes, what to draw from, and what draws.
        changed: whether A's mean, 0 in training, is another one for transfer.
    """
    mean = new_means(worlds, generator, changed)
    train = draw(worlds, torch.zeros_like(mean), settings.train, generator)
    return train, draw(worlds, mean, settings.transfer, generator)


# Training


class Paths(NamedTuple):
    """What E episodes made of encoders; `...` are S starts and W worlds, or W alone.

    Attributes:
        turn: theta_D [W].
        thetas, gammas: theta_E, radians, and gamma, before the first episode and after
            each, [E + 1, ...].
        leads: log L_{A->B} - log L_{B->A} of each episode, [E, ...], nats an example.
    """

    turn: Tensor
    thetas: Tensor
    gammas: Tensor
    leads: Tensor


class Encoder(Beliefs):
    """theta and gamma, which are trained, networks if any, and the paths so far."""

    thetas: Tensor

    def __init__(self, theta: Tensor, episodes: int, weights: Tensor | None = None):
        super().__init__(theta, episodes)
        self.theta = nn.Parameter(theta.clone())
        self.register_buffer("thetas", theta.new_zeros(episodes, *theta.shape))
        if weights is not None:
            self.weights = nn.Parameter(weights.clone())

    @torch.no_grad()
    def note(self, t: int, delta: Tensor) -> None:
        super().note(t, delta)
        self.thetas[t] = self.theta

    def paths(self, turn: Tensor, n: int) -> Paths:
        """All paths, after every episode of n examples; turn is theta_D [W]."""
        thetas = torch.cat([self.thetas, self.theta.detach()[None]])
        return Paths(turn, thetas, self.path, self.deltas / n)


def train_encoder(run: Run, worlds: Worlds) -> Paths:
    """Learn theta_E and gamma by Adam, on fresh data in each episode.

    A solution comes every 90 degrees, so the starts divide those among them: with
    four, they lie 22.5 degrees apart. The rate of theta falls to 0 on half a cosine.

    Raises:
        RunFailed: a regret is not finite.
    """
    s: Settings = run.settings
    E = s.encoder_episodes
    theta = torch.arange(s.starts, dtype=torch.float64) * RIGHT / s.starts
    model = Encoder(theta.to(run.device)[:, None].repeat(1, len(worlds.turn)), E)
    data = run.generator("encoder")

    def log_l(t: int) -> Tensor:
        points = episode(s, worlds, data)
        return log_likelihoods(model.theta, *points, s.encoder_steps, s.encoder_rate)

    optimizer = Adam(
        [
            {"params": [model.theta], "lr": s.theta_rate},
            {"params": [model.gamma], "lr": s.encoder_gamma_rate},
        ]
    )
    descent = loop(model, log_l, optimizer, data, [cosine(E), constant])
    train(run, descent, E, "encoder")
    return model.paths(worlds.turn, s.transfer)


@torch.no_grad()
def fresh_regrets(run: Run, worlds: Worlds, paths: Paths) -> Tensor:
    """Mean regret of where all starts ended, on the same fresh episodes, [S, W]."""
    s: Settings = run.settings
    data, gamma = run.generator("judge"), paths.gammas[-1]
    total = torch.zeros_like(gamma)
    for _ in range(s.evaluations):
        points = episode(s, worlds, data)
        total += method.regret(
            gamma,
            *log_likelihoods(
                paths.thetas[-1], *points, s.encoder_steps, s.encoder_rate
            ),
        )
    return total / s.evaluations


def measure_encoder(paths: Paths, regrets: Tensor) -> Measurements:
    """The three claims on the encoder: shares of worlds.

    Args:
        paths: of S starts in W worlds.
        regrets: on fresh episodes, [S, W].

    Returns:
        "encoder_start": the first start within 5 degrees of a solution; "degrees" is
        the median, and "any" the share over all starts. "encoder_four": the start with
        the lowest regret, as near. "encoder_sign": its gamma has the sign that the
        nearest solution asks for.
    """
    away, sign = nearest(paths.thetas[-1], paths.turn)  # [S, W]
    best = regrets.argmin(0, keepdim=True)
    chosen, wanted, gamma = (
        x.gather(0, best)[0] for x in (away, sign, paths.gammas[-1])
    )
    near = away < NEAR
    one = {"degrees": float(away[0].median()), "any": float(near.double().mean())}
    return {
        "encoder_start": share(near[0]) | one,
        "encoder_four": share(chosen < NEAR) | {"degrees": float(chosen.median())},
        "encoder_sign": share(gamma.sign() == wanted),
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
def landscape(run: Run, worlds: Worlds, changed: bool = True) -> Landscape:
    """What an encoder could find: both directions at every angle, on the same data.

    By (13) a quarter turn exchanges the directions, so that a right angle of theta_E
    shows all there is.

    Args:
        run, worlds: sizes, and what to look at.
        changed: as `episode` takes it; False shows what is found without any change.
    """
    s: Settings = run.settings
    data, W = run.generator("landscape"), len(worlds.turn)
    angles = torch.arange(s.angles, dtype=torch.float64, device=run.device)
    angles = angles * RIGHT / s.angles
    total = angles.new_zeros(2, s.angles, W)
    for _ in range(s.evaluations):
        points = episode(s, worlds, data, changed)
        for i in range(0, s.angles, ANGLES):
            theta = angles[i : i + ANGLES, None].expand(-1, W)
            log_l = log_likelihoods(theta, *points, s.encoder_steps, s.encoder_rate)
            total[:, i : i + ANGLES] += log_l
    forward, backward = total / (s.evaluations * s.transfer)
    return Landscape(angles, forward, backward, worlds.turn)


def measure_landscape(land: Landscape) -> dict[str, float]:
    """Where the greatest likelihood lies, over all angles and both directions.

    Returns:
        Shares of worlds: "value", within 5 degrees of a solution, with "successes" and
        "trials"; "sign", in the direction that is right there.
    """
    both = torch.stack([land.forward, land.backward])
    top = both.flatten(0, 1).argmax(0)  # [W]
    away, sign = nearest(land.angles[top % len(land.angles)], land.turn)
    right = (top < len(land.angles)) == (sign > 0)
    return share(away < NEAR) | {"sign": float(right.double().mean())}


# Mixture density networks


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
    """Mixtures of normal laws fitted to x [..., n] by EM, each [..., 1, K].

    It starts from equal weights, at quantiles of x. No variance falls below a
    thousandth of that of x.
    """
    spread = x.std(-1)[..., None, None]
    at = (torch.arange(components, device=x.device, dtype=x.dtype) + 0.5) / components
    means = torch.quantile(x, at, dim=-1).movedim(0, -1)[..., None, :]
    log_weights = torch.full_like(means, -math.log(components))
    log_sds = (spread / components).log().expand_as(means)
    for _ in range(steps):
        far = ((x[..., None] - means) * (-log_sds).exp()).square()
        weight = (log_weights - log_sds - far / 2).softmax(-1)  # [..., n, K]
        mass = weight.sum(-2, keepdim=True) + 1e-6
        means = (weight * x[..., None]).sum(-2, keepdim=True) / mass
        around = (weight * (x[..., None] - means).square()).sum(-2, keepdim=True) / mass
        log_sds = around.clamp_min(1e-3 * spread.square()).log() / 2
        log_weights = mass.log().log_softmax(-1)
    return Mixture(log_weights, means, log_sds)


def network(weights: Tensor, x: Tensor, components: int) -> Mixture:
    """The mixture that a network of one hidden layer of tanh makes of each x.

    Args:
        weights: of any number of networks, [..., P], P = 2 H + 3 K (H + 1).
        x: [..., M].
        components: K.

    Returns:
        Mixtures of shape [..., M, K].
    """
    K = components
    H = (weights.shape[-1] - 3 * K) // (2 + 3 * K)
    slope, shift, out, level = torch.split(weights, [H, H, 3 * K * H, 3 * K], -1)
    hidden = (x[..., None] * slope[..., None, :] + shift[..., None, :]).tanh()
    output = hidden @ out.view(*out.shape[:-1], H, 3 * K) + level[..., None, :]
    logits, means, log_sds = output.chunk(3, -1)
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
    total, kept = torch.zeros_like(weights[..., 0]), x.requires_grad
    w = weights.detach().clone().requires_grad_()
    adam = Adam([w], rate)
    for x_t, y_t in zip(x.unbind(-2), y.unbind(-2), strict=True):
        here = w.detach().clone().requires_grad_()  # Adam's step changes w in place
        log_l = network(here, x_t, components).log_density(y_t).sum(-1)
        loss = -log_l.sum() / x.shape[-1]
        (w.grad,) = torch.autograd.grad(loss, here, retain_graph=kept)
        adam.step()
        total = total + (log_l if kept else log_l.detach())
    return total, w.detach()


def _encoded(theta: Tensor, points: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """x and y of both directions, [2, W, T, M], float32, of points [W, T M, 2]."""
    pair = rotate(points, theta).mT.float()  # [W, 2, T M]
    both = torch.stack([pair, pair.flip(-2)])
    x, y = both.view(*both.shape[:-1], steps, -1).unbind(-3)
    return x, y


def multimodal_worlds(run: Run) -> Worlds:
    """Worlds for networks: as many as the settings say, theta_D = -pi / 4 as there."""
    worlds = make_worlds(run, "multimodal", run.settings.mixture_worlds)
    return worlds._replace(turn=torch.full_like(worlds.turn, -math.pi / 4))


def fit_networks(run: Run, worlds: Worlds, theta: Tensor, name: str) -> Tensor:
    """Networks of both directions on training data encoded by theta [W]: [2, W, P].

    By Adam on fresh data in each step, its rate falling to 0 on half a cosine.
    """
    s: Settings = run.settings
    data, W = run.generator(name), len(worlds.turn)
    H, K, T = s.mixture_hidden, s.mixture_components, s.mixture_fit
    first = torch.empty(2, W, 2 * H + 3 * K * (H + 1), device=run.device)
    first.uniform_(-1, 1, generator=data)
    first[..., 2 * H :] /= math.sqrt(H)
    model = nn.ParameterDict({"weights": nn.Parameter(first)})
    zero = torch.zeros_like(worlds.turn)

    adam = Adam(model.parameters(), FIT_RATE)

    def step(t: int) -> dict[str, Tensor]:
        points = draw(worlds, zero, s.mixture_batch, data)
        x, y = (part[..., 0, :] for part in _encoded(theta, points, 1))
        loss = -network(model["weights"], x, K).log_density(y).mean(-1).sum() / W
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        return {"loss": loss}

    train(run, Loop(step, adam, {"model": model, "data": data}, cosine(T)), T, name)
    fitted: Tensor = model["weights"].detach()
    return fitted


def _network_likelihoods(
    s: Settings, weights: Tensor, theta: Tensor, points: Tensor, steps: int
) -> Tensor:
    """log L of both directions, [2, W]: networks that adapt, marginals refitted by EM.

    The marginals see all the points that they are evaluated on, as in the official
    code.
    """
    x, y = _encoded(theta, points, steps)
    K = s.mixture_components
    law = expectation_maximisation(x.detach().flatten(-2), K, s.em_steps)
    marginal = law.log_density(x.flatten(-2)).sum(-1)
    conditional, _ = online(weights, x, y, K, ADAPT_RATE)
    return marginal + conditional


def train_multimodal_gamma(
    run: Run, worlds: Worlds, weights: Tensor, name: str, changed: bool = True
) -> Paths:
    """gamma by RMSprop, theta at the truth; the networks start each episode anew.

    Args:
        run, worlds: sizes, and what to draw from.
        weights: of `fit_networks` at theta_E = -theta_D, [2, W, P].
        name: of the checkpoint and the progress bar.
        changed: whether A's law changes.
    """
    s: Settings = run.settings
    data, n = run.generator(name), s.mixture_steps * s.mixture_batch
    model = Encoder(-worlds.turn, s.mixture_episodes, weights)

    def log_l(t: int) -> Tensor:
        points = draw(worlds, new_means(worlds, data, changed), n, data)
        theta = model.theta.detach()
        return _network_likelihoods(s, model.weights, theta, points, s.mixture_steps)

    optimizer = RMSprop([model.gamma], s.gamma_rate)
    train(run, loop(model, log_l, optimizer, data), s.mixture_episodes, name)
    return model.paths(worlds.turn, n)


def train_multimodal_encoder(run: Run, worlds: Worlds, weights: Tensor) -> Paths:
    """theta_E from 0, and gamma, by Adam; the networks are trained on in between.

    Args:
        run, worlds: sizes, and what to draw from.
        weights: of `fit_networks` at theta_E = 0, [2, W, P].
    """
    s: Settings = run.settings
    data, n = run.generator("rotor"), s.rotor_steps * s.mixture_batch
    zero = torch.zeros_like(worlds.turn)
    model = Encoder(zero, s.rotor_episodes, weights)

    def log_l(t: int) -> Tensor:
        known = draw(worlds, zero, s.rotor_refit * s.mixture_batch, data)
        x, y = _encoded(model.theta.detach(), known, s.rotor_refit)
        _, better = online(model.weights, x, y, s.mixture_components, REFIT_RATE)
        model.weights.data.copy_(better)
        points = draw(worlds, new_means(worlds, data), n, data)
        return _network_likelihoods(
            s, model.weights, model.theta, points, s.rotor_steps
        )

    adam = Adam([model.theta, model.gamma], ROTOR_RATE)
    train(run, loop(model, log_l, adam, data), s.rotor_episodes, "rotor")
    return model.paths(worlds.turn, n)


def multimodal(run: Run) -> dict[str, Paths]:
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


def measure_multimodal(paths: Paths) -> dict[str, float]:
    """What came out, as shares of worlds.

    Returns:
        "right": gamma has the sign that the nearest solution asks for; "close": theta_E
        lies within 5 degrees of it; "sure": sigma(gamma) of that direction is above
        0.95.
    """
    away, sign = nearest(paths.thetas[-1], paths.turn)
    ahead = paths.gammas[-1] * sign
    return {
        "right": float((ahead > 0).double().mean()),
        "close": float((away < NEAR).double().mean()),
        "sure": float((ahead.sigmoid() > 0.95).double().mean()),
    }
