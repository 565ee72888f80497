"""A meta-transfer objective for learning to disentangle causal mechanisms, at speed.

Bengio, Deleu, Rahaman, Ke, Lachapelle, Bilaniuk, Goyal, Pal, ICLR 2020. Numbers in
brackets are equations of the chapter `meta_transfer`. Tables are log probabilities
[..., N, N], index [a, b], float64; `...` are independent runs. Everywhere, positive
speaks for A -> B. For two columns of your own, rows before and after a change:

    answer = compare(before, after)     # [n, 2] and [m, 2]
    answer.direction                    # which one adapts faster
    answer.share                        # in what share of resamples
    answer.low, answer.high             # how far ahead, in nats an example
    answer.summary                      # what that does and does not imply

Continuous variables that are rotated are in `encoder`, more than two variables in
`graphs`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import xlogy
from torch import Generator, Tensor
from torch.nn.functional import logsigmoid

from iclrtut.errors import BadRequest

CHUNK = 200_000  # numbers in the rows of one chunk, which fit the processor's cache
BLOCK = 8  # episodes drawn at once: few enough for the cache, too
SITES = ("cause", "effect", "geometric", "marginal", "mechanism", "row")


# Worlds


def log_dirichlet(
    shape: Sequence[int], concentration: float, generator: Generator
) -> Tensor:
    """Logs of Dirichlet draws over the last axis, float64.

    Built on log-gammas, log G(c) = log G(c + 1) + log(U) / c, so that a sparse law,
    of whose draws most round to zero, keeps its logs.

    Raises:
        BadRequest: a concentration that is not positive.
    """
    if not concentration > 0:
        raise BadRequest(f"concentration is {concentration}: give a positive one.")
    u = uniform(shape, generator)
    gammas = torch._standard_gamma(torch.full_like(u, concentration + 1), generator)
    return (gammas.log() + torch.log1p(-u) / concentration).log_softmax(-1)


def uniform(shape: Sequence[int], generator: Generator) -> Tensor:
    """Uniform in [0, 1), float64, on the generator's device."""
    values = torch.empty(tuple(shape), dtype=torch.float64, device=generator.device)
    return values.uniform_(generator=generator)


class World(NamedTuple):
    """A joint law, by its causal factors: log P(a) [..., N], log P(b|a) [..., N, N]."""

    cause: Tensor
    effect: Tensor

    def log_joint(self) -> Tensor:
        """log P(a, b), [..., N, N]."""
        return self.cause[..., None] + self.effect


def draw(runs: int, N: int, generator: Generator, rows: float = 1.0) -> World:
    """Worlds with a flat Dirichlet cause and rows from Dirichlet(`rows`).

    Args:
        runs, N: how many worlds, and categories of each variable.
        generator: draws the logits, float64, on its device.
        rows: concentration of the rows; below 1 they are sharp.
    """
    cause = log_dirichlet((runs, N), 1.0, generator)
    return World(cause, log_dirichlet((runs, N, N), rows, generator))


def change(
    world: World, site: str, generator: Generator, size: float = 1.0, rows: float = 1.0
) -> World:
    """The world after one thing in it changed.

    Args:
        world: before; factors [..., N] and [..., N, N].
        site: "cause" (P(a) anew), "effect" (B cut from A, with a law of its own from
            a flat Dirichlet), "geometric" or "marginal" (cut, its law the softmax of
            the mean logits, or the marginal that B had), "mechanism" (all rows anew)
            or "row" (one row anew).
        generator: draws what is new.
        size: the share of the way from old logits to new ones, in (0, 1].
        rows: concentration of new rows.

    Raises:
        BadRequest: no such site, or a size outside (0, 1].
    """
    if site not in SITES:
        raise BadRequest(f"site {site!r} is unknown: use one of {', '.join(SITES)}.")
    if not 0 < size <= 1:
        raise BadRequest(f"size is {size}: give a share above 0, at most 1.")
    cause, effect = world
    if site == "cause":
        new = log_dirichlet(cause.shape, 1.0, generator)
        return World((cause + size * (new - cause)).log_softmax(-1), effect)
    new = _new_rows(world, site, generator, rows)
    return World(cause, (effect + size * (new - effect)).log_softmax(-1))


def _new_rows(world: World, site: str, generator: Generator, c: float) -> Tensor:
    """log P*(b|a) where the mechanism, a row or the effect changes by all its size."""
    effect = world.effect
    if site in ("mechanism", "row"):
        new = log_dirichlet(effect.shape, c, generator)
        if site == "mechanism":
            return new
        at = uniform(effect.shape[:-1], generator)
        return torch.where((at == at.amax(-1, keepdim=True))[..., None], new, effect)
    if site == "effect":
        law = log_dirichlet(effect[..., 0, :].shape, 1.0, generator)
    elif site == "geometric":
        law = effect.mean(-2).log_softmax(-1)
    else:
        law = world.log_joint().logsumexp(-2)
    return law[..., None, :].expand_as(effect)


def sample(
    world: World, steps: int, batch: int, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Examples a and b of each world, int64, each [..., steps, batch].

    Args:
        world: factors [..., N] and [..., N, N].
        steps, batch: batches of each world, and examples of a batch.
        generator: draws them.
    """
    lead, n = world.cause.shape[:-1], steps * batch
    u, v = uniform((2, *lead, n), generator)
    a = _inverted(world.cause[..., None, :], u)
    b = _inverted(torch.take_along_dim(world.effect, a[..., None], -2), v)
    return a.view(*lead, steps, batch), b.view(*lead, steps, batch)


def _inverted(logs: Tensor, u: Tensor) -> Tensor:
    """The first index whose cumulated probability exceeds u."""
    return (logs.exp().cumsum(-1) <= u[..., None]).sum(-1).clamp_max(logs.shape[-1] - 1)


def blocks(episodes: int, size: int = BLOCK) -> list[int]:
    """How many episodes to draw at a time, so that all are drawn."""
    return [min(size, episodes - start) for start in range(0, episodes, size)]


def sample_changed(
    world: World,
    site: str | None,
    generator: Generator,
    *,
    episodes: int,
    steps: int,
    batch: int,
    rows: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Examples of episodes that each change the same R worlds anew.

    Args:
        world: factors [R, N] and [R, N, N].
        site: what changes, as in `change`; None for nothing.
        generator: draws changes and examples.
        episodes, steps, batch: E, T and M.
        rows: concentration of new rows.

    Returns:
        Examples a and b, int64 [E, R, T, M].
    """
    changed = World(*(part.expand(episodes, *part.shape) for part in world))
    if site:
        changed = change(changed, site, generator, rows=rows)
    return sample(changed, steps, batch, generator)


# Learners


class Learner(NamedTuple):
    """Logits of one factorisation, (1): of a marginal, and of rows given its value.

    Attributes:
        marginal: [..., I].
        rows: [..., I, J]; rows[..., i, :] is the law of the other variable given i.
    """

    marginal: Tensor
    rows: Tensor

    def log_joint(self) -> Tensor:
        """log P(i, j), [..., I, J]: normalised, in this learner's orientation."""
        return self.marginal.log_softmax(-1)[..., None] + self.rows.log_softmax(-1)


def learn(log_joint: Tensor) -> Learner:
    """The learner that knows a joint exactly, first index to second."""
    marginal = log_joint.logsumexp(-1)
    return Learner(marginal, log_joint - marginal[..., None])


def both(log_joint: Tensor) -> tuple[Learner, Learner]:
    """The learners A -> B and B -> A of one joint; the second sees it transposed."""
    return learn(log_joint), learn(log_joint.mT)


def log_likelihoods(learner: Learner, x: Tensor, y: Tensor, rate: float) -> Tensor:
    """log P of each batch before the learner's step on it, (4).

    Works through cache-sized chunks of episodes, on copies of the rows they need: one
    call serves any number of episodes from one start.

    Args:
        learner: logits [R, N] and [R, N, J]; they stay as they are.
        x, y: int64 [..., R, T, M]: T batches of M examples.
        rate: of SGD on the mean negative log-likelihood of a batch.

    Returns:
        Summed over each batch, [..., R, T], in nats.

    Raises:
        BadRequest: steps times rate is 600 or more.
    """
    (R, N, J), shape = learner.rows.shape, x.shape[:-1]
    marginal, tables = _copied(learner, rate * x.shape[-2])
    run = torch.arange(R, device=x.device).expand(shape[:-1]).flatten()
    inputs = run, x.flatten(0, -3), y.flatten(0, -3)
    size = max(1, CHUNK // (min(N, x.shape[-2:].numel()) * J))
    results = []
    for at, x_k, y_k in zip(*(torch.split(z, size) for z in inputs), strict=True):
        rows, place = _copied_rows(tables, at * N, x_k, N)
        start = Learner(marginal[at], rows)
        results.append(_descend(start, place, x_k, y_k, rate, last=False)[0])
    return torch.cat(results).view(shape)


def adapt(learner: Learner, x: Tensor, y: Tensor, rate: float) -> Learner:
    """The learner after SGD steps on batches, one after another.

    Logits come back up to a constant in each law.

    Args:
        learner: logits [R, N] and [R, N, J]; they stay as they are.
        x, y: int64 [R, T, M]: T batches of M examples.
        rate: of SGD on the mean negative log-likelihood of a batch.

    Raises:
        BadRequest: steps times rate is 600 or more.
    """
    marginal, tables = _copied(learner, rate * x.shape[1])
    place = x + torch.arange(len(x)).to(x)[:, None, None] * marginal.shape[-1]
    marginal = _descend(Learner(marginal, tables), place, x, y, rate, last=True)[1]
    return Learner(marginal, tables.view_as(learner.rows))


def _copied(learner: Learner, reach: float) -> tuple[Tensor, Tensor]:
    """Copies of logits, [R, N] and [R N, J], shifted so that no exponential overflows.

    Steps may move a logit by `reach`.
    """
    if not reach < 600:
        raise BadRequest(f"steps times rate is {reach:g}: keep it below 600.")
    marginal, rows = (s - s.amax(-1, keepdim=True) for s in learner)
    return marginal, rows.flatten(0, -2)


def _copied_rows(
    tables: Tensor, first: Tensor, x: Tensor, N: int
) -> tuple[Tensor, Tensor]:
    """Rows that K runs may change, and the number of the row of each of x [K, T, M].

    All N rows of a run, or, where fewer examples come, one for each example; those of
    equal value share the first.

    Args:
        tables: rows of all runs, [R N, J].
        first: where the rows of each of the K runs begin in them, [K].
        x: values of the marginal's variable.
        N: rows of a run.
    """
    flat, (K, n) = x.flatten(1), (len(x), x[0].numel())
    number = torch.arange(max(N, n), device=x.device)
    kept, place = number[:N].expand(K, N), flat
    if n < N:
        same = flat[:, :, None] == flat[:, None]
        kept, place = flat, torch.where(same, number[:n], n).amin(-1)
    rows = tables.index_select(0, (first[:, None] + kept).flatten())
    start = kept.shape[1] * torch.arange(K, device=x.device)[:, None]
    return rows, (start + place).view_as(x)


def _descend(
    start: Learner, place: Tensor, x: Tensor, y: Tensor, rate: float, last: bool
) -> tuple[Tensor, Tensor]:
    """SGD of K runs: log-likelihoods [K, T], and the marginal; rows move in place.

    Args:
        start: marginals [K, N] and rows [S, J], as many as all runs have.
        place: which row is meant, as x [K, T, M].
        x, y: examples [K, T, M].
        rate: of SGD.
        last: whether to take the step after the last batch, too.
    """
    (marginal, rows), (K, T, M) = start, x.shape
    total = marginal.new_empty(K, T)
    for t in range(T):
        at, y_t = place[:, t].flatten(), y[:, t].reshape(-1, 1)
        log_p, step = _log_p_and_slope(marginal.clone(), x[:, t])
        log_q, step_q = _log_p_and_slope(rows.index_select(0, at), y_t)
        total[:, t] = log_p.sum(1) + log_q.view(K, M).sum(1)
        if last or t + 1 < T:
            marginal = marginal - step.mul_(rate / M)
            rows.index_put_((at,), step_q.mul_(-rate / M), accumulate=True)
    return total, marginal


def _log_p_and_slope(logits: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """log p of n indices, and the gradient of -sum log p in the logits: n p - counts.

    Args:
        logits: [K, J], not so large that exponentials overflow; overwritten.
        at: [K, n].
    """
    picked, p = logits.gather(1, at), logits.exp_()
    total = (p @ p.new_ones(p.shape[1]))[:, None]
    log_p, minus = picked - total.log(), p.new_tensor(-1.0).expand_as(at)
    return log_p, p.mul_(at.shape[1] / total).scatter_add_(1, at, minus)


def deltas(log_joint: Tensor, a: Tensor, b: Tensor, rate: float) -> Tensor:
    """Delta = log L_{A->B} - log L_{B->A} of episodes, (4), [..., R], in nats.

    Both learners start every episode at the same exact joint.

    Args:
        log_joint: [R, N, N].
        a, b: examples, int64 [..., R, T, M].
        rate: of both learners.
    """
    forward, backward = both(log_joint)
    ahead = log_likelihoods(forward, a, b, rate) - log_likelihoods(backward, b, a, rate)
    return ahead.sum(-1)


# Exact quantities


def kl(log_star: Tensor, log_p: Tensor) -> Tensor:
    """KL(P* || P) of joints [..., I, J], summed over the last two axes, in nats."""
    return (log_star.exp() * (log_star - log_p)).sum((-2, -1))


class Parts(NamedTuple):
    """KL(P* || P) split both ways, (6), each [...], in nats."""

    cause: Tensor
    mechanism: Tensor
    effect: Tensor
    inverse: Tensor


def parts(log_p: Tensor, log_star: Tensor) -> Parts:
    """KL_A and KL_{B|A}, then KL_B and KL_{A|B}, of joints [..., N, N], (6)."""
    terms = []
    for before, after in ((log_p, log_star), (log_p.mT, log_star.mT)):
        old, new = before.logsumexp(-1), after.logsumexp(-1)
        marginal = (new.exp() * (new - old)).sum(-1)
        terms += [marginal, kl(after, before) - marginal]
    return Parts(*terms)


def distance(before: Learner, after: Learner) -> Tensor:
    """D: squared distance of logits, each law's less their mean, (7), [...]."""
    marginal, rows = (new - old for old, new in zip(before, after, strict=True))
    spread = marginal.var(-1, correction=0) * marginal.shape[-1]
    return spread + (rows.var(-1, correction=0) * rows.shape[-1]).sum(-1)


def distances(log_p: Tensor, log_star: Tensor) -> tuple[Tensor, Tensor]:
    """D of A -> B and of B -> A, for joints [..., N, N], (7)."""
    (a, b), (a_star, b_star) = both(log_p), both(log_star)
    return distance(a, a_star), distance(b, b_star)


def first_step(log_p: Tensor, log_star: Tensor) -> tuple[Tensor, Tensor]:
    """G of A -> B and of B -> A: KL gained by a small population step, over its rate.

    |P_A - P_A*|^2 + sum_a P*(a)^2 |P(.|a) - P*(.|a)|^2 and its mirror, (5), [...], for
    joints [..., N, N].
    """
    gains = []
    for before, after in zip(both(log_p), both(log_star), strict=True):
        marginal, rows = population_gradient(before, after)
        gains.append(marginal.square().sum(-1) + rows.square().sum((-2, -1)))
    return gains[0], gains[1]


def population(
    learner: Learner,
    log_star: Tensor,
    rate: float,
    steps: int,
    weighted: bool = True,
) -> Tensor:
    """KL(P* || P) along population steps, [steps + 1, ...]; no example is drawn.

    Args:
        learner: logits [..., I] and [..., I, J].
        log_star: the changed joint in the learner's orientation, [..., I, J].
        rate: of gradient descent on the expected negative log-likelihood.
        steps: how many.
        weighted: as `population_gradient` takes it.
    """
    star = learn(log_star)
    path = [kl(log_star, learner.log_joint())]
    for _ in range(steps):
        step = population_gradient(learner, star, weighted)
        learner = Learner(*(s - rate * g for s, g in zip(learner, step, strict=True)))
        path.append(kl(log_star, learner.log_joint()))
    return torch.stack(path)


def population_gradient(here: Learner, star: Learner, weighted: bool = True) -> Learner:
    """Gradient of the expected negative log-likelihood under `star`, (2).

    Args:
        here: logits [..., I] and [..., I, J].
        star: the learner of the changed joint, normalised, of the same shapes.
        weighted: whether a row counts as often as it is met, P*(a); otherwise all rows
            count as much as the marginal, which shows what the weight does, (10).
    """
    p = star.marginal.exp()
    rows = here.rows.softmax(-1) - star.rows.exp()
    weight = p[..., None] if weighted else 1.0
    return Learner(here.marginal.softmax(-1) - p, weight * rows)


class Curves(NamedTuple):
    """KL(P* || P) of both learners as they adapt, each [steps, ...], in nats."""

    forward: Tensor  # A -> B
    backward: Tensor  # B -> A

    @property
    def gap(self) -> Tensor:
        """KL_{B->A} - KL_{A->B}: how far A -> B is ahead."""
        return self.backward - self.forward


def population_curves(
    log_p: Tensor, log_star: Tensor, rate: float, steps: int
) -> Curves:
    """Both learners along population steps, after none, one, ..., [steps + 1, ...].

    Args:
        log_p, log_star: joints before and after, [..., I, J].
        rate, steps: of gradient descent on the expected negative log-likelihood.
    """
    forward, backward = both(log_p)
    return Curves(
        population(forward, log_star, rate, steps),
        population(backward, log_star.mT, rate, steps),
    )


def learning_curves(
    log_p: Tensor,
    log_star: Tensor,
    a: Tensor,
    b: Tensor,
    rate: float,
    at: Sequence[int],
) -> Curves:
    """Both learners after at[0], at[1], ... examples, exact, [len(at), R].

    Args:
        log_p: the joint where both learners start, [R, N, N].
        log_star: the changed joint, which the examples come from.
        a, b: examples, int64 [R, at least at[-1]]; one a step.
        rate: of both learners.
        at: ascending numbers of examples.
    """
    forward, backward = both(log_p)
    paths: tuple[list[Tensor], list[Tensor]] = ([], [])
    for start, end in zip([0, *at], at, strict=False):
        x, y = a[:, start:end, None], b[:, start:end, None]
        forward, backward = adapt(forward, x, y, rate), adapt(backward, y, x, rate)
        paths[0].append(kl(log_star, forward.log_joint()))
        paths[1].append(kl(log_star, backward.log_joint().mT))
    return Curves(*map(torch.stack, paths))


# Gamma


def regret(gamma: Tensor, forward: Tensor, backward: Tensor) -> Tensor:
    """R(gamma) = -log[sigma(gamma) L_{A->B} + (1 - sigma(gamma)) L_{B->A}], (11).

    Args:
        gamma: [...].
        forward, backward: log-likelihoods of A -> B and B -> A, [...], in nats.
    """
    return -torch.logaddexp(logsigmoid(gamma) + forward, logsigmoid(-gamma) + backward)


def slope(gamma: Tensor, delta: Tensor) -> Tensor:
    """dR/dgamma = sigma(gamma) - sigma(gamma + Delta), (11), [...], Delta in nats."""
    return gamma.sigmoid() - (gamma + delta).sigmoid()


def follow(
    evidence: Tensor,
    rate: float = 1e-2,
    rms: bool = True,
    gradient: Callable[[Tensor, Tensor], Tensor] = slope,
    start: Tensor | None = None,
) -> Tensor:
    """The path of gamma, one step of descent on the regret an episode.

    Args:
        evidence: what each episode's gradient needs, [E, ...]: Delta, in nats.
        rate: of RMSprop (smoothing 0.99, floor 1e-8), or of plain SGD.
        rms: whether to use RMSprop.
        gradient: dR/dgamma from gamma and an episode's evidence.
        start: gamma before the first episode; zeros, one for each Delta, unless given.

    Returns:
        gamma before the first episode and after each, [E + 1, ...].
    """
    gamma = torch.zeros_like(evidence[0]) if start is None else start
    path, mean_square = [gamma], torch.zeros_like(gamma)
    for episode in evidence:
        step = gradient(gamma, episode)
        if rms:
            mean_square = 0.99 * mean_square + 0.01 * step.square()
            step = step / (mean_square.sqrt() + 1e-8)
        gamma = gamma - rate * step
        path.append(gamma)
    return torch.stack(path)


def fixed_point(deltas: Tensor) -> Tensor:
    """The p = sigma(gamma) at which the mean of R over episodes is least, (12).

    One if E e^-Delta is at most one, zero if E e^Delta is, else the root of
    E[(e^Delta - 1) / (1 + p (e^Delta - 1))], by bisection.

    Args:
        deltas: samples of Delta, [n, ...], in nats.

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


def discover(
    world: World,
    generator: Generator,
    episodes: int = 500,
    site: str | None = "cause",
    swapped: bool = False,
    steps: int = 2,
    batch: int = 10,
    rate: float = 0.1,
    gamma_rate: float = 1e-2,
    rows: float = 1.0,
) -> Tensor:
    """The path of gamma over episodes, each with a change of its own, [E + 1, R].

    Args:
        world: R worlds of N categories, where both learners start every episode.
        generator: draws changes and examples.
        episodes: E.
        site: what changes, as in `change`; None for nothing.
        swapped: whether the cause is called B.
        steps, batch: batches of an episode, and examples of a batch.
        rate: of the learners.
        gamma_rate: of RMSprop.
        rows: concentration of new rows.
    """
    joint, results = world.log_joint(), []
    for n in blocks(episodes):
        a, b = sample_changed(
            world, site, generator, episodes=n, steps=steps, batch=batch, rows=rows
        )
        inputs = (joint.mT, b, a) if swapped else (joint, a, b)
        results.append(deltas(*inputs, rate))
    return follow(torch.cat(results), gamma_rate)


# Two columns of your own

LEAST_ROWS, ROWS_A_CELL = 30, 5  # of a part, and of `before` for each cell of a table
MOST_BINS = 10
STEPS, RESAMPLES = 20, 1000
Array = NDArray[Any]


def smoothed(counts: Array) -> Tensor:
    """Log joints of counts [..., I, J], half a row added to each cell, float64."""
    cells = counts + 0.5
    return torch.tensor(np.log(cells / cells.sum((-2, -1), keepdims=True)))


class Answer(NamedTuple):
    """Which direction adapts faster, and what that is worth.

    Attributes:
        direction: "first -> second" or "second -> first"; "undecided" where the
            interval of the gap contains zero.
        share: of resamples in which the direction ahead is ahead.
        gap: how far first -> second is ahead: nats an example, the mean over 20 steps.
        low, high: 95 % interval of the gap.
        drift: KL that the first and the second column's own law moved, in nats.
        p: chance of so large a shift between two random parts.
    """

    direction: str
    share: float
    gap: float
    low: float
    high: float
    drift: tuple[float, float]
    p: float

    @property
    def summary(self) -> str:
        """All that in words, with what it does not imply."""
        more = "first" if self.drift[0] >= self.drift[1] else "second"
        numbers = f"{self.gap:.2g} nats an example (95 %: {self.low:.2g} to "
        numbers += f"{self.high:.2g})"
        drifted = (
            f"The {more} column drifted more, and in real columns it was nearly always "
            "that column's direction which led."
        )
        if self.direction == "undecided":
            return (
                f"Undecided: first -> second is ahead by {numbers}, an interval that "
                f"contains zero, so neither direction adapts faster. {drifted}"
            )
        source, _, target = self.direction.split()
        return (
            f"{self.direction} adapts faster, in {self.share:.0%} of resamples; first "
            f"-> second is ahead by {numbers}. If the shift changed the distribution "
            f"of the cause and nothing else, this says that the {source} column is the "
            "cause. If it changed the effect or the mechanism, the lead says nothing, "
            f"or points the wrong way, and the {target} column may be the cause; two "
            f"columns cannot tell. {drifted}"
        )


def compare(
    before: ArrayLike, after: ArrayLike, bins: int | None = None, seed: int = 0
) -> Answer:
    """Say which direction adapts faster when two columns shift.

    Columns of at most `bins` values are taken as categories; others are cut at the
    quantiles of all rows. Both learners start at the joint of `before`, half a row
    added to each cell, and take 20 population steps of rate 1 towards that of `after`;
    1,000 resamples of the rows of both parts say how sure the lead is.

    Args:
        before: observational rows [n, 2], finite numbers.
        after: rows [m, 2] from after something changed.
        bins: most categories of a column; by default as many as leave five rows of
            `before` to each cell, from 2 to 10.
        seed: of the resamples, and of a permutation test for a shift.

    Raises:
        BadRequest: wrong shapes, NaN or infinity, too few rows, a constant column, more
            cells than the rows fill, or parts that differ no more than by chance.
    """
    rng = np.random.default_rng(seed)
    counts = _counts(_columns(before, "before"), _columns(after, "after"), bins)
    p = _p_value(counts[0], counts[1], rng)
    if p > 0.05:
        raise BadRequest(
            f"the parts differ no more than two random ones would (p = {p:.2f}), so "
            "there is no shift to adapt to: give rows from after something changed."
        )
    start, star = (_resampled(c, rng) for c in counts)
    lead = population_curves(start, star, 1.0, STEPS).gap[1:].mean(0).numpy()
    low, high = np.quantile(lead[1:], (0.025, 0.975)).tolist()
    direction = "first -> second" if lead[0] >= 0 else "second -> first"
    moved = parts(start[0], star[0])
    return Answer(
        direction=direction if low > 0 or high < 0 else "undecided",
        share=float((np.sign(lead[1:]) == np.sign(lead[0])).mean()),
        gap=float(lead[0]),
        low=low,
        high=high,
        drift=(moved.cause.item(), moved.effect.item()),
        p=p,
    )


def _columns(part: ArrayLike, name: str) -> Array:
    """Rows [n, 2], float64, once they are known to be finite numbers, and enough."""
    try:
        rows = np.asarray(part)
    except ValueError as error:
        raise BadRequest(f"{name} is no table: give numbers [rows, 2].") from error
    if rows.ndim != 2 or rows.shape[1] != 2:
        raise BadRequest(f"{name} has the shape {list(rows.shape)}: give [rows, 2].")
    if rows.dtype.kind not in "buif":
        raise BadRequest(f"{name} holds more than numbers: code categories as 0, 1, 2.")
    bad = int((~np.isfinite(rows)).any(1).sum())
    if bad:
        raise BadRequest(f"{name} holds NaN or infinity in {bad} rows: leave them out.")
    if len(rows) < LEAST_ROWS:
        raise BadRequest(
            f"{name} has {len(rows)} rows, too few: give {LEAST_ROWS} or more."
        )
    return rows.astype(np.float64)


def _counts(before: Array, after: Array, bins: int | None) -> list[Array]:
    """How many rows of each part fall into each cell, [first, second]."""
    if bins is None:
        bins = min(MOST_BINS, int((len(before) / ROWS_A_CELL) ** 0.5))
    if not bins >= 2:
        raise BadRequest(f"bins is {bins}: give at least 2.")
    n, codes = len(before), _coded(np.concatenate([before, after]), bins)
    for code, name in zip(codes, ("first", "second"), strict=True):
        if len(np.unique(code[:n])) < 2:
            raise BadRequest(
                f"the {name} column of before is constant: give ones that vary."
            )
    high, wide = (int(code.max()) + 1 for code in codes)
    if n < ROWS_A_CELL * high * wide:
        raise BadRequest(
            f"{high} x {wide} categories are too many for {n} rows: give "
            f"{ROWS_A_CELL * high * wide:,} rows of before, or fewer bins than {bins}."
        )
    cells = np.split(codes[0] * wide + codes[1], [n])
    return [np.bincount(c, minlength=high * wide).reshape(high, wide) for c in cells]


def _coded(rows: Array, bins: int) -> list[Array]:
    """Each column as 0, 1, ..., by category or by quantile."""
    codes = []
    for column in rows.T:
        edges = np.unique(column)[:-1]
        if len(edges) >= bins:
            edges = np.unique(np.quantile(column, np.arange(1, bins) / bins))
        codes.append(np.searchsorted(edges, column))
    return [np.unique(code, return_inverse=True)[1] for code in codes]


def _p_value(before: Array, after: Array, rng: np.random.Generator) -> float:
    """Of a permutation test for a shift, on the likelihood ratio."""
    pooled, n = (before + after).ravel(), after.sum()
    permuted = rng.multivariate_hypergeometric(pooled, n, RESAMPLES, "marginals")
    shifted = np.concatenate([after.reshape(1, -1), permuted])
    ratio = (xlogy(shifted, shifted) + xlogy(pooled - shifted, pooled - shifted)).sum(1)
    return float((ratio >= ratio[0] - 1e-9).mean())


def _resampled(counts: Array, rng: np.random.Generator) -> Tensor:
    """Log joints of the counts, then of resamples of their rows."""
    again = rng.multinomial(counts.sum(), counts.ravel() / counts.sum(), RESAMPLES)
    return smoothed(np.concatenate([counts[None], again.reshape(-1, *counts.shape)]))
