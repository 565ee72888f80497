"""A meta-transfer objective for learning to disentangle causal mechanisms, at speed.

Bengio, Deleu, Rahaman, Ke, Lachapelle, Bilaniuk, Goyal, Pal, ICLR 2020. Numbers in
brackets are equations of the chapter `meta_transfer`. Tables are log probabilities
[..., N, N], index [a, b], float64; `...` are independent runs. Everywhere, positive
speaks for A -> B. For two columns of your own, rows before and after a change:

    answer = compare(before, after)     # [n, 2] and [m, 2]
    answer.direction                    # which one adapts faster
    answer.share                        # in what share of resamples
    answer.low, answer.high             # how far ahead, in nats an example
    answer.says                         # what that does and does not imply
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.special import xlogy
from torch import Generator, Tensor
from torch.nn.functional import logsigmoid

from iclrtut.errors import BadRequest

# Numbers in the rows of one chunk, which stay in the cache, and episodes drawn at once.
CHUNK, BLOCK = 200_000, 8
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
    made = torch.empty(tuple(shape), dtype=torch.float64, device=generator.device)
    return made.uniform_(generator=generator)


class World(NamedTuple):
    """A joint law, by its causal factors: log P(a) [..., N], log P(b|a) [..., N, N]."""

    cause: Tensor
    effect: Tensor

    def log_joint(self) -> Tensor:
        """log P(a, b), [..., N, N]."""
        return self.cause[..., None] + self.effect


def draw(runs: int, N: int, generator: Generator, rows: float = 1.0) -> World:
    """Worlds with a flat Dirichlet cause and rows from Dirichlet(`rows`)."""
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
    """Examples a and b of each world, int64, each [..., steps, batch]."""
    lead, n = world.cause.shape[:-1], steps * batch
    u, v = uniform((2, *lead, n), generator)
    a = _inverted(world.cause[..., None, :], u)
    b = _inverted(torch.take_along_dim(world.effect, a[..., None], -2), v)
    return a.view(*lead, steps, batch), b.view(*lead, steps, batch)


def _inverted(logs: Tensor, u: Tensor) -> Tensor:
    """The first index whose cumulated probability exceeds u."""
    return (logs.exp().cumsum(-1) <= u[..., None]).sum(-1).clamp_max(logs.shape[-1] - 1)


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
    marginal, tables = _started(learner, rate * x.shape[-2])
    run = torch.arange(R, device=x.device).expand(shape[:-1]).flatten()
    every = run, x.flatten(0, -3), y.flatten(0, -3)
    size = max(1, CHUNK // (min(N, x.shape[-2:].numel()) * J))
    found = []
    for at, here, there in zip(*(torch.split(z, size) for z in every), strict=True):
        rows, place = _copied(tables, at * N, here, N)
        own = Learner(marginal[at], rows), place, here, there
        found.append(_descend(*own, rate, last=False)[0])
    return torch.cat(found).view(shape)


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
    marginal, tables = _started(learner, rate * x.shape[1])
    place = x + torch.arange(len(x)).to(x)[:, None, None] * marginal.shape[-1]
    marginal = _descend(Learner(marginal, tables), place, x, y, rate, last=True)[1]
    return Learner(marginal, tables.view_as(learner.rows))


def _started(learner: Learner, reach: float) -> tuple[Tensor, Tensor]:
    """Copies of logits, [R, N] and [R N, J], shifted so that no exponential overflows.

    Steps may move a logit by `reach`.
    """
    if not reach < 600:
        raise BadRequest(f"steps times rate is {reach:g}: keep it below 600.")
    marginal, rows = (s - s.amax(-1, keepdim=True) for s in learner)
    return marginal, rows.flatten(0, -2)


def _copied(tables: Tensor, first: Tensor, x: Tensor, N: int) -> tuple[Tensor, Tensor]:
    """Rows that K runs may change, and where each of x [K, T, M] finds its own.

    All N rows of a run, or, where fewer examples come, one for each example; those of
    equal value share the first.
    """
    flat, (K, n) = x.flatten(1), (len(x), x[0].numel())
    number = torch.arange(max(N, n), device=x.device)
    taken, place = number[:N].expand(K, N), flat
    if n < N:
        same = flat[:, :, None] == flat[:, None]
        taken, place = flat, torch.where(same, number[:n], n).amin(-1)
    rows = tables.index_select(0, (first[:, None] + taken).flatten())
    start = taken.shape[1] * torch.arange(K, device=x.device)[:, None]
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
    found = marginal.new_empty(K, T)
    for t in range(T):
        at, there = place[:, t].flatten(), y[:, t].reshape(-1, 1)
        seen, step = _seen(marginal.clone(), x[:, t])
        seen_r, step_r = _seen(rows.index_select(0, at), there)
        found[:, t] = seen.sum(1) + seen_r.view(K, M).sum(1)
        if last or t + 1 < T:
            marginal = marginal - step.mul_(rate / M)
            rows.index_put_((at,), step_r.mul_(-rate / M), accumulate=True)
    return found, marginal


def _seen(logits: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """log p of n indices, and the gradient of -sum log p in the logits: n p - counts.

    Args:
        logits: [K, J], not so large that exponentials overflow; overwritten.
        at: [K, n].
    """
    picked, p = logits.gather(1, at), logits.exp_()
    total = (p @ p.new_ones(p.shape[1]))[:, None]
    log_p, came = picked - total.log(), p.new_tensor(-1.0).expand_as(at)
    return log_p, p.mul_(at.shape[1] / total).scatter_add_(1, at, came)


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
    """KL(P* || P) of joints, summed over the last two axes, [...], in nats."""
    return (log_star.exp() * (log_star - log_p)).sum((-2, -1))


class Parts(NamedTuple):
    """KL(P* || P) split both ways, (6), each [...]."""

    cause: Tensor
    mechanism: Tensor
    effect: Tensor
    inverse: Tensor


def parts(log_p: Tensor, log_star: Tensor) -> Parts:
    """KL_A and KL_{B|A}, then KL_B and KL_{A|B}, of joints [..., N, N], (6)."""
    found = []
    for before, after in ((log_p, log_star), (log_p.mT, log_star.mT)):
        old, new = before.logsumexp(-1), after.logsumexp(-1)
        marginal = (new.exp() * (new - old)).sum(-1)
        found += [marginal, kl(after, before) - marginal]
    return Parts(*found)


def population(learner: Learner, log_star: Tensor, rate: float, steps: int) -> Tensor:
    """KL(P* || P) along population steps, [steps + 1, ...]; no example is drawn.

    Args:
        learner: logits [..., I] and [..., I, J].
        log_star: the changed joint in the learner's orientation, [..., I, J].
        rate: of gradient descent on the expected negative log-likelihood.
        steps: how many.
    """
    star = learn(log_star)
    found = [kl(log_star, learner.log_joint())]
    for _ in range(steps):
        step = population_gradient(learner, star)
        learner = Learner(*(s - rate * g for s, g in zip(learner, step, strict=True)))
        found.append(kl(log_star, learner.log_joint()))
    return torch.stack(found)


def population_gradient(here: Learner, star: Learner) -> Learner:
    """Gradient of the expected negative log-likelihood under `star`, (2)."""
    p = star.marginal.exp()
    rows = here.rows.softmax(-1) - star.rows.exp()
    return Learner(here.marginal.softmax(-1) - p, p[..., None] * rows)


# Gamma


def regret(gamma: Tensor, forward: Tensor, backward: Tensor) -> Tensor:
    """R(gamma) = -log[sigma(gamma) L_{A->B} + (1 - sigma(gamma)) L_{B->A}], (11).

    Args:
        gamma: [...].
        forward, backward: log-likelihoods of A -> B and B -> A, [...], in nats.
    """
    return -torch.logaddexp(logsigmoid(gamma) + forward, logsigmoid(-gamma) + backward)


def slope(gamma: Tensor, delta: Tensor) -> Tensor:
    """dR/dgamma = sigma(gamma) - sigma(gamma + Delta), (11)."""
    return gamma.sigmoid() - (gamma + delta).sigmoid()


def follow(deltas: Tensor, rate: float = 1e-2, rms: bool = True) -> Tensor:
    """The path of gamma from zero, one step an episode.

    Args:
        deltas: [E, ...].
        rate: of RMSprop (smoothing 0.99, floor 1e-8), or of plain SGD.
        rms: whether to use RMSprop.

    Returns:
        gamma before the first episode and after each, [E + 1, ...].
    """
    gamma = torch.zeros_like(deltas[0])
    path, mean_square = [gamma], torch.zeros_like(gamma)
    for delta in deltas:
        step = slope(gamma, delta)
        if rms:
            mean_square = 0.99 * mean_square + 0.01 * step.square()
            step = step / (mean_square.sqrt() + 1e-8)
        gamma = gamma - rate * step
        path.append(gamma)
    return torch.stack(path)


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
        steps, batch: examples of an episode.
        rate: of the learners.
        gamma_rate: of RMSprop.
        rows: concentration of new rows.
    """
    joint, found = world.log_joint(), []
    for done in range(0, episodes, BLOCK):
        now = World(*(f.expand(min(BLOCK, episodes - done), *f.shape) for f in world))
        now = change(now, site, generator, rows=rows) if site else now
        a, b = sample(now, steps, batch, generator)
        seen = (joint.mT, b, a) if swapped else (joint, a, b)
        found.append(deltas(*seen, rate))
    return follow(torch.cat(found), gamma_rate)


# Two columns of your own

# Fewest rows of a part, and fewest of `before` for each cell of the table.
LEAST, FILL, STEPS, RESAMPLES = 30, 5, 20, 1000


class Answer(NamedTuple):
    """Which direction adapts faster, and what that is worth.

    Attributes:
        direction: "first -> second" or "second -> first".
        share: of resamples in which it does.
        gap: how far it is ahead: nats an example, the mean over 20 steps.
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
    def says(self) -> str:
        """All that in words, with what it does not imply."""
        source, _, target = self.direction.split()
        more = "first" if self.drift[0] >= self.drift[1] else "second"
        return (
            f"{self.direction} adapts faster, in {self.share:.0%} of resamples, by "
            f"{self.gap:.2g} nats an example (95 %: {self.low:.2g} to {self.high:.2g})."
            " If the shift changed the law of the cause and nothing else, this says "
            f"that the {source} column is the cause. If it changed the effect or the "
            "mechanism, the lead says nothing, or points the wrong way, and the "
            f"{target} column may be the cause; two columns cannot tell. The {more} "
            "column drifted more, which alone often decides who leads."
        )


def compare(before: Any, after: Any, bins: int = 10, seed: int = 0) -> Answer:
    """Say which direction adapts faster when two columns shift.

    Columns of at most `bins` values are taken as categories; others are cut at the
    quantiles of all rows. Both learners start at the joint of `before`, half a row
    added to each cell, and take 20 population steps of rate 1 towards that of `after`;
    1,000 resamples of the rows of both parts say how sure the lead is.

    Args:
        before: observational rows [n, 2], finite numbers.
        after: rows [m, 2] from after something changed.
        bins: most categories of a column.
        seed: of the resamples, and of a permutation test for a shift.

    Raises:
        BadRequest: wrong shapes, NaN or infinity, too few rows, a constant column, more
            cells than the rows fill, or parts that differ no more than by chance.
    """
    rng = np.random.default_rng(seed)
    counts = _counts(_columns(before, "before"), _columns(after, "after"), bins)
    p = _chance(counts[0], counts[1], rng)
    if p > 0.05:
        raise BadRequest(
            f"the parts differ no more than two random ones would (p = {p:.2f}), so "
            "there is no shift to adapt to: give rows from after something changed."
        )
    start, star = (_resampled(c, rng) for c in counts)
    forward, backward = both(start)
    gap = population(backward, star.mT, 1.0, STEPS)
    gap -= population(forward, star, 1.0, STEPS)
    lead = gap[1:].mean(0).numpy()
    ahead = lead if lead[0] >= 0 else -lead
    low, high = np.quantile(ahead[1:], (0.025, 0.975)).tolist()
    moved = parts(start[0], star[0])
    return Answer(
        direction="first -> second" if lead[0] >= 0 else "second -> first",
        share=float((ahead[1:] > 0).mean()),
        gap=float(ahead[0]),
        low=low,
        high=high,
        drift=(moved.cause.item(), moved.effect.item()),
        p=p,
    )


def _columns(part: Any, name: str) -> Any:
    try:
        found = np.asarray(part)
    except ValueError as error:
        raise BadRequest(f"{name} is no table: give numbers [rows, 2].") from error
    if found.ndim != 2 or found.shape[1] != 2:
        raise BadRequest(f"{name} has the shape {list(found.shape)}: give [rows, 2].")
    if found.dtype.kind not in "buif":
        raise BadRequest(f"{name} holds more than numbers: code categories as 0, 1, 2.")
    bad = int((~np.isfinite(found)).any(1).sum())
    if bad:
        raise BadRequest(f"{name} holds NaN or infinity in {bad} rows: leave them out.")
    if len(found) < LEAST:
        raise BadRequest(
            f"{name} has {len(found)} rows, too few: give {LEAST} or more."
        )
    return found.astype(np.float64)


def _counts(before: Any, after: Any, bins: int) -> list[Any]:
    """How many rows of each part fall into each cell, [first, second]."""
    if not bins >= 2:
        raise BadRequest(f"bins is {bins}: give at least 2.")
    n, codes = len(before), _coded(np.concatenate([before, after]), bins)
    for code, name in zip(codes, ("first", "second"), strict=True):
        if len(np.unique(code[:n])) < 2:
            raise BadRequest(
                f"the {name} column of before is constant: give ones that vary."
            )
    high, wide = (int(code.max()) + 1 for code in codes)
    if n < FILL * high * wide:
        raise BadRequest(
            f"{high} x {wide} categories are too many for {n} rows: give "
            f"{FILL * high * wide:,} rows of before, or fewer bins than {bins}."
        )
    cells = np.split(codes[0] * wide + codes[1], [n])
    return [np.bincount(c, minlength=high * wide).reshape(high, wide) for c in cells]


def _coded(rows: Any, bins: int) -> list[Any]:
    """Each column as 0, 1, ..., by category or by quantile."""
    codes = []
    for column in rows.T:
        edges = np.unique(column)[:-1]
        if len(edges) >= bins:
            edges = np.unique(np.quantile(column, np.arange(1, bins) / bins))
        codes.append(np.searchsorted(edges, column))
    return [np.unique(code, return_inverse=True)[1] for code in codes]


def _chance(before: Any, after: Any, rng: np.random.Generator) -> float:
    """The p-value of a permutation test for a shift, on the likelihood ratio."""
    pooled, n = (before + after).ravel(), after.sum()
    drawn = rng.multivariate_hypergeometric(pooled, n, RESAMPLES, "marginals")
    shifted = np.concatenate([after.reshape(1, -1), drawn])
    ratio = (xlogy(shifted, shifted) + xlogy(pooled - shifted, pooled - shifted)).sum(1)
    return float((ratio >= ratio[0] - 1e-9).mean())


def _resampled(counts: Any, rng: np.random.Generator) -> Tensor:
    """Log joints, half a row added to each cell: of the counts, then of resamples."""
    drawn = rng.multinomial(counts.sum(), counts.ravel() / counts.sum(), RESAMPLES)
    filled = np.concatenate([counts[None], drawn.reshape(-1, *counts.shape)]) + 0.5
    return torch.tensor(np.log(filled / filled.sum((1, 2), keepdims=True)))
