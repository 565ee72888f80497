"""Neural causal induction from interventions, beside the exact posterior, at speed.

Ke, Wang, Mitrovic, Szummer, Rezende, ICLR 2020 workshop on causal learning for decision
making. Numbers in brackets are equations of the chapter `causal_induction`. Graphs are
numbered as in `dags`; what data can tell of them stands in the module `graphs`. For a
table of your own, one sample a row, and the column forced in each row (-1: none):

    answer = posterior(table, targets)  # [m, n] with n up to 5, and [m]
    answer.probabilities                # of every acyclic graph, `answer.graphs`
    answer.edges                        # P(i -> j | table), [n, n]
    answer.next                         # which column to force next
    answer.summary                      # that in words, and what it takes for granted
"""

import math
from collections.abc import Sequence
from functools import cache
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Generator, Tensor, nn
from torch.nn.functional import one_hot, softplus

from iclrtut.errors import BadRequest
from iclrtut.inputs import need, whole
from iclrtut.play import export
from iclrtut.train import seeded

MOST = 5  # nodes: 29,281 graphs; six would have 3,781,503
COUNTS = {3: 2, 25: 3, 543: 4, 29_281: 5}  # acyclic graphs, and their nodes
FEW, FAR = 10, 1e6  # rows that set a column's scale; deviations that are too many
SPREAD = 8.0  # standard deviation of a forced value
NOISES = ("normal", "laplace", "uniform", "t3")
HUGE = 1e100  # what no square overflows
MECHANISMS = ("linear", "tanh", "abs", "square")
Reported = Sequence[int] | None  # numbers of steps; None for every one


# Graphs: bool [n, n], where A[i, j] says i -> j


def _between(low: float, value: Any, high: float) -> bool:
    return isinstance(value, Real) and low < float(value) < high


def _check(n: int) -> None:
    need(n in range(1, MOST + 1), f"n is {n}: graphs are listed for 1 to {MOST} nodes.")


def _choices(k: int) -> Tensor:
    """All ways to say no or yes k times, the last one fastest, bool [2^k, k]."""
    return (torch.arange(2**k)[:, None] >> torch.arange(k - 1, -1, -1)) % 2 == 1


def reach(A: Tensor) -> Tensor:
    """Whether a path, of no step or more, leads from i to j; bool [..., n, n]."""
    n = A.shape[-1]
    step = A.double() + torch.eye(n, dtype=torch.float64)
    walks: Tensor = torch.linalg.matrix_power(step, n)
    return walks > 0


@cache
def parent_sets(n: int) -> Tensor:
    """The sets of possible parents of each node, bool [n, 2^(n-1), n].

    Bit j of a set's number says whether the j-th other node is in it.
    """
    _check(n)
    bits = _choices(n - 1).flip(1)
    sets = torch.zeros(n, 2 ** (n - 1), n, dtype=torch.bool)
    for i in range(n):
        sets[i, :, others(n)[i]] = bits
    return sets


@cache
def others(n: int) -> Tensor:
    """The other nodes of each node, in order, int64 [n, n - 1]."""
    rows = [[j for j in range(n) if j != i] for i in range(n)]
    return torch.tensor(rows, dtype=torch.int64).view(n, n - 1)


@cache
def dags(n: int) -> Tensor:
    """All acyclic graphs on n nodes, bool [robinson(n), n, n]; number 0 is empty.

    Node n joins each graph on n - 1 nodes in all ways that close no cycle: no path
    leads from one of its children to one of its parents.

    Raises:
        BadRequest: no nodes, or more than five.
    """
    _check(n)
    if n == 1:
        return torch.zeros(1, 1, 1, dtype=torch.bool)
    old = dags(n - 1)
    ways = _choices(2 * (n - 1))
    parents, children = ways[:, : n - 1].double(), ways[:, n - 1 :].double()
    path = reach(old).double()
    allowed = torch.einsum("wc,gcp,wp->gw", children, path, parents) == 0
    at, way = allowed.nonzero(as_tuple=True)
    new = torch.zeros(len(at), n, n, dtype=torch.bool)
    new[:, :-1, :-1] = old[at]
    new[:, :-1, -1], new[:, -1, :-1] = parents[way] > 0, children[way] > 0
    return new


@cache
def families(n: int) -> Tensor:
    """The number of each node's set of parents in each graph, int64 [graphs, n]."""
    A, weight = dags(n), 2 ** torch.arange(n - 1)
    columns = [(A[:, o, i] * weight).sum(-1) for i, o in enumerate(others(n))]
    return torch.stack(columns, -1)


# Worlds


class Prior(NamedTuple):
    """Of each node: variance ~ IG(a_p, tau/2), weights ~ N(0, variance/tau), (6).

    Attributes:
        alpha: a_p = (alpha - n + p + 1) / 2 for p parents; None for n + 2.
        tau: above 0.
    """

    alpha: float | None = None
    tau: float = 2.0

    def shapes(self, n: int) -> Tensor:
        """a_p for p = 0 to n - 1 parents, float64 [n].

        Raises:
            BadRequest: alpha of n - 1 or less, or tau that is not positive.
        """
        alpha = n + 2 if self.alpha is None else self.alpha
        fit = _between(n - 1, alpha, math.inf) and _between(0, self.tau, math.inf)
        need(fit, f"{self}: give alpha above {n - 1} for {n} nodes, and tau above 0.")
        return (alpha - n + 1 + torch.arange(n, dtype=torch.float64)) / 2


STANDARD = Prior()


class World(NamedTuple):
    """B graphs with parameters, and the noise of all their steps, (1).

    x_i = sum_j weights[j, i] f(x_j) + scale[i] noise[i], parents j of i.

    Attributes:
        graph: numbers in `dags`, int64 [B].
        weights: [B, n, n], of j -> i at [j, i]; zero where there is no arrow.
        scale: standard deviation of each node's noise, [B, n].
        noise: of variance 1, [B, T, n].
        mechanism: f: "linear" (z), "tanh" (2 tanh z), "abs" or "square" (z^2 / 3).
    """

    graph: Tensor
    weights: Tensor
    scale: Tensor
    noise: Tensor
    mechanism: str = "linear"


def draw(
    B: int,
    n: int,
    steps: int,
    generator: Generator,
    *,
    graph: Tensor | None = None,
    allowed: Tensor | None = None,
    noise: str = "normal",
    mechanism: str = "linear",
    prior: Prior = STANDARD,
) -> World:
    """Worlds from the prior that `log_posterior` assumes; float64.

    Args:
        B, n, steps: how many worlds, nodes, and steps of noise.
        generator: draws all.
        graph: numbers of graphs [B] instead of uniform ones.
        allowed: numbers of the graphs to draw from, uniformly; None for all.
        noise: of each node: "normal", "laplace", "uniform" or "t3", of one variance.
        mechanism: f of a parent's value, as in `World`.
        prior: of the parameters.

    Raises:
        BadRequest: no such noise, mechanism, graph or prior, or no graph allowed, or a
            negative size.
    """
    for name, known in ((mechanism, MECHANISMS), (noise, NOISES)):
        need(name in known, f"{name!r} is unknown: use one of {', '.join(known)}.")
    whole([B, steps], 10**9, "B and steps")
    if graph is None:
        pool = torch.arange(len(dags(n))) if allowed is None else allowed
        need(len(pool) > 0, "allowed holds no graph: give numbers, or None for all.")
        graph = pool[torch.randint(len(pool), (B,), generator=generator)]
    A = dags(n)[_known(graph, n)]
    shape = prior.shapes(n)[A.sum(-2)]  # [B, n]
    scale = (prior.tau / 2 / torch._standard_gamma(shape, generator)).sqrt()
    weights = A * _normal((B, n, n), generator) * (scale / prior.tau**0.5)[:, None]
    own = _noise((B, steps, n), generator, noise)
    return World(graph, weights, scale, own, mechanism)


def _known(graph: Tensor, n: int) -> Tensor:
    """Numbers of graphs, once they are known to be in the list."""
    most = len(dags(n))
    fit = graph.dtype == torch.int64 and torch.equal(graph, graph.clamp(0, most - 1))
    need(fit, f"a graph is not one of {n} nodes: number them 0 to {most - 1}.")
    return graph


def _normal(shape: Sequence[int], generator: Generator) -> Tensor:
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float64)


def _noise(shape: Sequence[int], generator: Generator, kind: str) -> Tensor:
    """Draws of mean 0 and variance 1."""
    if kind == "normal":
        return _normal(shape, generator)
    if kind == "t3":
        z, half = _normal(shape, generator), torch.full(tuple(shape), 1.5).double()
        return z / (2 * torch._standard_gamma(half, generator)).sqrt()
    u = torch.rand(tuple(shape), generator=generator, dtype=torch.float64) - 0.5
    if kind == "uniform":
        return 12**0.5 * u
    return -u.sign() * torch.log1p(-2 * u.abs()) / 2**0.5


def interventions(
    B: int, n: int, steps: int, generator: Generator, spread: float = SPREAD
) -> tuple[Tensor, Tensor]:
    """One uniform target a step, int64 [B, steps], and N(0, spread^2) to force."""
    targets = torch.randint(n, (B, steps), generator=generator)
    return targets, spread * _normal((B, steps), generator)


def respond(world: World, targets: Tensor, forced: Tensor) -> Tensor:
    """The values of all nodes at each step, by the truncated factorisation, (2).

    Args:
        world: noise [B, T, n].
        targets: node that is forced, int64 [B, T]; -1 for none.
        forced: to which value, [B, T].

    Returns:
        float64 [B, T, n]. After n sweeps every node has seen its ancestors.
    """
    n = world.weights.shape[-1]
    noise = world.scale[:, None] * world.noise
    held = targets[..., None] == torch.arange(n)
    x = torch.where(held, forced[..., None], noise)
    for _ in range(n - 1):
        x = _mechanism(x, world.mechanism) @ world.weights + noise
        x = torch.where(held, forced[..., None], x)
    return x


def _mechanism(z: Tensor, name: str) -> Tensor:
    if name == "tanh":
        return 2 * z.tanh()
    if name == "abs":
        return z.abs()
    return z.square() / 3 if name == "square" else z


class Episodes(NamedTuple):
    """What a learner sees, and the graph: [B], int64 [B, T], float64 [B, T, n]."""

    graph: Tensor
    targets: Tensor
    values: Tensor


def sample(B: int, n: int, steps: int, generator: Generator, **world: Any) -> Episodes:
    """Episodes with one intervention a step; keywords go to `draw`."""
    drawn = draw(B, n, steps, generator, **world)
    targets, forced = interventions(B, n, steps, generator)
    return Episodes(drawn.graph, targets, respond(drawn, targets, forced))


# The exact posterior


class Statistics(NamedTuple):
    """All that the posterior needs of the data, (8).

    Attributes:
        free: how many steps did not force node i, [..., n].
        scatter: sum of x x^T over those steps, [..., n, n, n] with node i first.
    """

    free: Tensor
    scatter: Tensor

    def add(self, values: Tensor, targets: Tensor) -> "Statistics":
        """One step more: values [..., n], targets [...]."""
        n = values.shape[-1]
        left = (targets[..., None] != torch.arange(n)).to(values)
        outer = values[..., :, None] * values[..., None, :]
        more = left[..., None, None] * outer[..., None, :, :]
        return Statistics(self.free + left, self.scatter + more)


def nothing(B: int, n: int) -> Statistics:
    """Before any data."""
    return Statistics(
        torch.zeros(B, n, dtype=torch.float64),
        torch.zeros(B, n, n, n, dtype=torch.float64),
    )


def statistics(values: Tensor, targets: Tensor, after: Reported = None) -> Statistics:
    """Running sums after each step, (8).

    Args:
        values: [B, T, n].
        targets: int64 [B, T]; -1 where nothing was forced.
        after: numbers of steps to report, each 0 to T; None for 1 to T.

    Returns:
        Statistics [B, steps reported, ...], float64.

    Raises:
        BadRequest: wrong shapes, values that are not finite, or no such target or step.
    """
    x, targets = _checked(values, targets)
    B, T, n = x.shape
    free = (targets[..., None] != torch.arange(n)).to(x)
    outer = (x[..., :, None] * x[..., None, :])[:, :, None]
    sums = Statistics(free.cumsum(1), (free[..., None, None] * outer).cumsum(1))
    if after is None:
        return sums
    start, at = nothing(B, n), torch.tensor(whole(after, T, "after"), dtype=torch.int64)
    return Statistics(
        torch.cat([start.free[:, None], sums.free], 1)[:, at],
        torch.cat([start.scatter[:, None], sums.scatter], 1)[:, at],
    )


def _checked(values: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    fit = isinstance(values, Tensor) and isinstance(targets, Tensor)
    need(fit, f"values are {type(values)}: give tensors, also of targets.")
    fit = values.ndim == 3 and targets.shape == values.shape[:2]
    need(fit, f"{[*values.shape]}, {[*targets.shape]}: give [B, T, n] and [B, T].")
    n = values.shape[-1]
    fit = bool((values.abs() < HUGE).all())
    need(fit, f"values hold NaN, or {HUGE:g} and more: leave those out.")
    fit = targets.dtype == torch.int64 and torch.equal(
        targets, targets.clamp(-1, n - 1)
    )
    need(fit, f"a target is no node: give whole numbers from -1 to {n - 1}.")
    return values.double(), targets


def node_scores(seen: Statistics, prior: Prior = STANDARD) -> Tensor:
    """log p(values of node i | parents P) of every node and set of parents, (6).

    With S what is left of R_ii after regression on P, the score is const(p, m) -
    (a_p + m/2) log S - log|R_P| / 2; all |R_P| come from one elimination.

    Args:
        seen: statistics, free [..., n].
        prior: of the parameters.

    Returns:
        float64 [..., n, 2^(n-1)], in nats; sets as in `graphs.parent_sets`.
    """
    need(isinstance(prior, Prior), f"prior is {prior!r}: give Prior(alpha, tau).")
    n, lead = seen.free.shape[-1], seen.free.shape[:-1]
    size = parent_sets(n)[0].sum(-1)  # parents of each set, the same for all nodes
    a = prior.shapes(n)[size][:, None]  # [sets, 1]
    half = (seen.free.reshape(-1, n).T / 2)[:, None]  # [n, 1, N]
    R = seen.scatter.reshape(-1, n, n, n).movedim(0, -1)  # [n, n, n, N]
    logs, left = zip(*(_eliminate(R[i], i, prior.tau) for i in range(n)), strict=True)
    p = size[:, None].double()
    most = int(seen.free.max().item()) if seen.free.numel() else 0
    table = torch.lgamma(a + torch.arange(most + 1) / 2) - torch.lgamma(a)
    table += (a + p / 2) * math.log(prior.tau)
    m = seen.free.reshape(-1, n).T.long()  # [n, N]
    constant = table[:, m].movedim(0, 1) - half * math.log(math.pi)
    scores = constant - (a + half) * torch.stack(left).log() - torch.stack(logs) / 2
    return scores.movedim(-1, 0).reshape(*lead, n, -1)


def _eliminate(R: Tensor, i: int, tau: float) -> tuple[Tensor, Tensor]:
    """log|R_P| and what is left of R_ii, for all sets P of other nodes, [sets, N].

    Args:
        R: scatter [n, n, N]; tau is added to its diagonal, so that nothing that is left
            of it is less than tau, but for rounding.
        i: the node.
    """
    n = len(R)
    order = torch.cat([others(n)[i], torch.tensor([i])])
    M = (R[order][:, order] + tau * torch.eye(n, dtype=R.dtype)[..., None])[None]
    logs = M.new_zeros(1, R.shape[-1])
    for _ in range(n - 1):  # each set so far, without the next node and with it
        pivot, column, rest = M[:, 0, 0].clamp_min(tau), M[:, 1:, 0], M[:, 1:, 1:]
        less = (column / pivot[:, None])[:, :, None] * column[:, None]
        M = torch.cat([rest, rest - less])
        logs = torch.cat([logs, logs + pivot.log()])
    return logs, M[:, 0, 0].clamp_min(tau)


@cache
def _membership(n: int) -> Tensor:
    """Which scores a graph adds up: 0 or 1, float64 [n 2^(n-1), graphs]."""
    sets = 2 ** (n - 1)
    rows = one_hot(families(n), sets)  # [graphs, n, sets]
    return rows.flatten(1).T.double().contiguous()


def graph_scores(seen: Statistics, prior: Prior = STANDARD) -> Tensor:
    """log p(data | graph) of every graph, [..., graphs], in nats: sums of (6).

    One matrix product, which is faster than picking each graph's n scores.
    """
    return node_scores(seen, prior).flatten(-2) @ _membership(seen.free.shape[-1])


def log_likelihoods(
    values: Tensor, targets: Tensor, after: Reported = None, prior: Prior = STANDARD
) -> Tensor:
    """log p(x_1..t | graph, targets) after each step, [B, steps, graphs], (8).

    Args:
        values, targets, after: as in `statistics`.
        prior: of the parameters.
    """
    return graph_scores(statistics(values, targets, after), prior)


def log_posterior(
    values: Tensor, targets: Tensor, after: Reported = None, prior: Prior = STANDARD
) -> Tensor:
    """log p(graph | data) after each step under a uniform prior over graphs, (9).

    Args:
        values, targets, after: as in `statistics`.
        prior: of the parameters.

    Returns:
        float64 [B, steps, graphs].
    """
    return log_likelihoods(values, targets, after, prior).log_softmax(-1)


def predictive(log_likelihoods: Tensor) -> Tensor:
    """log p(x_t | x_1..t-1, do) for t = 1 to T, (9), in nats.

    Args:
        log_likelihoods: after 1 to T steps, [B, T, graphs].

    Returns:
        [B, T]; they add up to log p(x_1..T) under the uniform prior.
    """
    total = log_likelihoods.logsumexp(-1) - math.log(log_likelihoods.shape[-1])
    return torch.diff(total, prepend=torch.zeros_like(total[:, :1]))


# What beliefs say


def nodes(log_p: Tensor) -> int:
    """n, from the number of graphs on the last axis.

    Raises:
        BadRequest: no n has as many graphs.
    """
    size, sizes = log_p.shape[-1], ", ".join(map(str, COUNTS))
    need(size in COUNTS, f"beliefs of {size} graphs: give one for each of {sizes}.")
    return COUNTS[size]


def entropy(log_p: Tensor) -> Tensor:
    """H(p) over the last axis, in nats."""
    return -(log_p.exp() * log_p.clamp_min(-1e30)).sum(-1)


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) over the last axis, in nats, (10)."""
    p = log_p.exp()
    return torch.where(p > 0, p * (log_p - log_q), 0.0).sum(-1)


def edge_marginals(log_p: Tensor) -> Tensor:
    """P(i -> j), [..., n, n], of beliefs over graphs [..., graphs]."""
    n = nodes(log_p)
    flat = log_p.exp() @ dags(n).flatten(1).to(log_p)
    return flat.view(*flat.shape[:-1], n, n)


def edge_logits(log_p: Tensor) -> Tensor:
    """log P(i -> j) - log P(not), [..., n, n], summed in logs; -inf on the diagonal.

    Args:
        log_p: of graphs, [..., graphs], normalised or not.
    """
    n = nodes(log_p)
    rows = [
        log_p[..., has].logsumexp(-1) - log_p[..., ~has].logsumexp(-1)
        for has in dags(n).flatten(1).T
    ]
    return torch.stack(rows, -1).view(*log_p.shape[:-1], n, n)


def product(logits: Tensor) -> Tensor:
    """log q(graph) = sum over entries, of independent edges, [..., graphs], (11).

    Args:
        logits: of each entry, [..., n, n]; the diagonal is not used.

    Returns:
        Not normalised: what the product gives to graphs with cycles is missing.
    """
    n = logits.shape[-1]
    off = ~torch.eye(n, dtype=torch.bool)
    A = dags(n)[:, off].to(logits)
    free = logits[..., off]
    return free @ A.T - softplus(free).sum(-1, keepdim=True)


def total_correlation(log_p: Tensor) -> Tensor:
    """Sum of the entries' entropies less the entropy of graphs, (11), in nats."""
    n = nodes(log_p)
    z = edge_logits(log_p)[..., ~torch.eye(n, dtype=torch.bool)].clamp(-1e4, 1e4)
    return (softplus(z) - z * z.sigmoid()).sum(-1) - entropy(log_p)


class Gain(NamedTuple):
    """Of do(k) for each node k, by two routes, [..., n] each, in nats, (12)."""

    entropy: Tensor  # H - E[H after]
    kl: Tensor  # E KL(after || before), never negative
    error: Tensor  # standard error of `kl`


def gains(
    seen: Statistics,
    generator: Generator,
    draws: int = 48,
    spread: float = SPREAD,
    prior: Prior = STANDARD,
) -> Gain:
    """What forcing each node to a N(0, spread^2) value is expected to tell, (12).

    Args:
        seen: statistics, free [B, n].
        generator: draws a graph, its parameters, a value and an outcome each.
        draws: outcomes a node.
        spread: standard deviation of what is forced.
        prior: of the parameters.

    Returns:
        Both routes, each [B, n]; of few draws, `entropy` may come out negative.

    Raises:
        BadRequest: draws or spread that are not positive, or a spread above 1e6.
    """
    fit = isinstance(draws, Integral) and draws > 0 and _between(0, spread, FAR)
    need(fit, f"{draws!r} draws, spread {spread!r}: give positive ones below {FAR:g}.")
    B, n = seen.free.shape
    before = graph_scores(seen, prior).log_softmax(-1)
    graph = torch.multinomial(before.exp(), draws, True, generator=generator)
    rows = torch.arange(B).repeat_interleave(draws)
    many = Statistics(seen.free[rows], seen.scatter[rows])
    world = posterior_world(many, graph.flatten(), generator, prior)
    forced = spread * _normal((B * draws, 1), generator)
    results = []
    for k in range(n):
        target = torch.full((B * draws, 1), k)
        x = respond(world, target, forced)
        after = graph_scores(many.add(x[:, 0], target[:, 0]), prior)
        after = after.log_softmax(-1).view(B, draws, -1)
        drop = entropy(before) - entropy(after).mean(1)
        move = kl(after, before[:, None]).clamp_min(0)
        error = move.std(1, correction=0) / draws**0.5
        results.append(torch.stack([drop, move.mean(1), error]))
    return Gain(*torch.stack(results, -1))


def posterior_world(
    seen: Statistics, graph: Tensor, generator: Generator, prior: Prior = STANDARD
) -> World:
    """Parameters of given graphs from their posterior, and one step of noise.

    Args:
        seen: statistics, free [B, n].
        graph: numbers in `dags`, int64 [B].
        generator: draws all.
        prior: of the parameters.
    """
    B, n = seen.free.shape
    parents = dags(n)[_known(graph, n)].mT.double()  # [B, i, j]
    eye = torch.eye(n, dtype=torch.float64)
    R = seen.scatter + prior.tau * eye
    own = R[:, torch.arange(n), torch.arange(n)]
    inside = parents[..., None] * parents[..., None, :]
    L = torch.linalg.cholesky(torch.where(inside > 0, R, eye * (1 - inside)))
    right = (own * parents)[..., None]
    mean = torch.cholesky_solve(right, L)
    left = torch.diagonal(own, dim1=-2, dim2=-1) - (right * mean).sum((-2, -1))
    shape = prior.shapes(n)[parents.sum(-1).long()] + seen.free / 2
    scale = (left / 2 / torch._standard_gamma(shape, generator)).sqrt()
    z = _normal((B, n, n, 1), generator)
    spread = torch.linalg.solve_triangular(L.mT, z, upper=True)
    weights = (mean + scale[..., None, None] * spread)[..., 0] * parents
    return World(graph, weights.mT, scale, _normal((B, 1, n), generator))


# The network


def features(values: Tensor, targets: Tensor) -> Tensor:
    """What a network sees of each step, float32 [B, T, 3 n]: asinh(x), x / 8, target.

    Args:
        values, targets: as in `statistics`.
    """
    values, targets = _checked(values, targets)
    n = values.shape[-1]
    which = one_hot(targets + 1, n + 1)[..., 1:]
    return torch.cat([values.asinh(), values / 8, which], -1).float()


class Belief(nn.Module):
    """A GRU that takes steps in and gives logits after each.

    Linear, ReLU, GRU, then a read-out of one hidden layer.

    Args:
        inputs, outputs: width of a step's features, and of the read-out.
        seed: of the first weights.
        width: of every layer.
    """

    def __init__(self, inputs: int, outputs: int, seed: int, width: int = 64) -> None:
        super().__init__()
        with seeded(seed):
            self.inside = nn.Linear(inputs, width)
            self.memory = nn.GRU(width, width, batch_first=True)
            self.hidden = nn.Linear(width, width)
            self.outside = nn.Linear(width, outputs)

    def states(self, steps: Tensor) -> Tensor:
        """The state after each step, [B, T, width], of features [B, T, inputs]."""
        states: Tensor = self.memory(self.inside(steps).relu())[0]
        return states

    def forward(self, steps: Tensor) -> Tensor:
        """Logits after each step, [B, T, outputs]."""
        logits: Tensor = self.outside(self.hidden(self.states(steps)).relu())
        return logits


def figure(model: Belief) -> dict[str, Any]:
    """The payload of the chapter's figure: the weights and the graphs they speak of.

    The page runs it by `play.widget("causal_induction", figure(model), ...)`.

    Args:
        model: a network over all graphs, fed `features`.

    Raises:
        BadRequest: its read-out is not over the graphs of three nodes.
    """
    size = (model.inside.in_features, model.outside.out_features)
    need(size == (9, 25), f"the network's ends are {size}: the figure takes 9 and 25.")
    weights, width = model.memory.all_weights[0], model.memory.hidden_size
    gates = [nn.Linear(width, 3 * width) for _ in range(2)]
    for gate, weight, bias in zip(gates, weights[:2], weights[2:], strict=True):
        gate.weight, gate.bias = weight, bias
    layers = nn.Sequential(model.inside, *gates, model.hidden, model.outside)
    return export(layers) | {"graphs": dags(3).int().tolist()}


# A reader's own table


class Answer(NamedTuple):
    """What a table says of its graph.

    Attributes:
        graphs: all acyclic graphs, bool [graphs, n, n].
        probabilities: of each, [graphs].
        edges: P(i -> j | table), [n, n].
        gains: what forcing each column once more, to a draw from N(0, spread^2), is
            expected to tell, [n], in nats, by the second form of (12).
        errors: standard errors of `gains`, which are estimated from draws, [n].
        spread: of the next forced value.
        standardised: whether columns were centred and scaled.
    """

    graphs: Tensor
    probabilities: Tensor
    edges: Tensor
    gains: Tensor
    errors: Tensor
    spread: float
    standardised: bool

    @property
    def next(self) -> int:
        """The column of the largest expected gain: a guess where `summary` says so.

        It is defined even where no gain stands out from its error (`summary` says then
        that no column is expected to tell more) or from the others (it names them).
        """
        return int(self.gains.argmax())

    @property
    def summary(self) -> str:
        """All that in words, with what it takes for granted."""
        arrows = self.graphs[self.probabilities.argmax()].nonzero().tolist()
        named = ", ".join(f"{i} -> {j}" for i, j in arrows) or "no arrow"
        left, gain = entropy(self.probabilities.log()).item(), self.gains.max().item()
        apart = 2 * torch.hypot(self.errors, self.errors[self.next])
        near = (gain - self.gains <= apart).nonzero().flatten().tolist()
        columns = " or ".join(map(str, near))
        advice = f"Force column {columns} next: {gain:.2f} nats are expected of it."
        if gain < 0.005 or gain <= 2 * self.errors[self.next].item():
            advice = "No column is expected to tell more if it is forced."
        units = ("as they are", "centred and scaled by rows that did not force them")
        return (
            f"The likeliest graph ({named}) has probability "
            f"{self.probabilities.max().item():.2g}; {left:.2f} of "
            f"{math.log(len(self.graphs)):.2f} nats are open. {advice} Columns are "
            f"{units[self.standardised]}, and a forced value comes from "
            f"N(0, {self.spread:g}^2) in these units. This holds if all graphs are "
            "equally likely at first, no common cause is hidden, effects are linear, "
            "noise is normal, weights and variances are as in the prior, rows are "
            "independent, and forcing a column sets its value and nothing else; where "
            "one of these fails, the answer may be sure and wrong."
        )


def posterior(
    table: ArrayLike,
    targets: ArrayLike,
    *,
    standardise: bool = True,
    spread: float = 4.0,
    prior: Prior = STANDARD,
    seed: int = 0,
) -> Answer:
    """The posterior over graphs of a table with an intervention column, (8), (9).

    The prior holds every acyclic graph for equally likely, mechanisms for linear with
    normal noise, and weights and variances for drawn as in (6), around zero. So each
    column is first centred and scaled by the rows in which nothing was forced (where
    those are fewer than ten or do not vary, by the rows in which it was not forced; a
    column that was forced in all rows but one or none, by all rows): the scale comes
    from the table, and the answer does not know how uncertain it is. The expected gains
    assume that the value forced next is drawn from N(0, spread^2) on that scale,
    whatever values the table was made with.

    Args:
        table: m samples of n columns, [m, n], finite numbers.
        targets: the column that was forced in each row, [m]; -1 for none.
        standardise: False where columns are on the prior's scale already.
        spread: how far you would force a column next, a standard deviation on the scale
            of the standardised columns; the episodes of the chapter have 8.
        prior: of weights and variances.
        seed: of the draws behind `gains`, a whole number.

    Raises:
        BadRequest: wrong shapes, NaN or infinity, masked entries, a column to be
            standardised that is constant where it was not forced, more than five
            columns, a target out of range, fewer rows than parameters, or a seed,
            spread or prior that is none.
    """
    x, forced = _table(table, targets)
    whole([seed], 2**63 - 1, "seed")
    if standardise:
        x = _standardised(x, forced)
    far = x.abs().max().item()
    need(
        far < FAR, f"values lie {far:.1e} deviations from 0: rescale or drop outliers."
    )
    free = (forced[:, None] != torch.arange(x.shape[1])).to(x)
    scatter = torch.stack([(x * own[:, None]).T @ x for own in free.T])
    seen = Statistics(free.sum(0)[None], scatter[None])
    log_p = graph_scores(seen, prior).log_softmax(-1)
    draws = min(10_000, 10**7 // log_p.shape[1])  # 80 MB of beliefs
    told = gains(seen, torch.Generator().manual_seed(int(seed)), draws, spread, prior)
    more = told.kl[0], told.error[0], spread, bool(standardise)
    return Answer(dags(x.shape[1]), log_p[0].exp(), edge_marginals(log_p)[0], *more)


def _table(table: ArrayLike, targets: ArrayLike) -> tuple[Tensor, Tensor]:
    """Rows float64 [m, n] and targets int64 [m], once they are known to be usable."""
    rows, which = _array(table, "the table"), _array(targets, "targets")
    fit = rows.ndim == 2 and which.shape == rows.shape[:1]
    need(fit, f"shapes {rows.shape}, {which.shape}: give [rows, columns] and [rows].")
    m, n = rows.shape
    need(2 <= n <= MOST, f"the table has {n} columns: give 2 to {MOST}.")
    fit = rows.dtype.kind in "buif" and (np.abs(rows.astype(float)) < HUGE).all()
    need(fit, "the table holds NaN, infinity or no numbers: leave those out.")
    fit = which.dtype.kind in "iu" and ((which >= -1) & (which < n)).all()
    need(fit, f"a target is no column: give whole numbers from -1 to {n - 1}.")
    least = n * (n + 1) // 2
    need(
        m >= least, f"{m} rows for {n} columns: give {least} or more, one a parameter."
    )
    x = torch.from_numpy(rows.astype(np.float64))
    return x, torch.from_numpy(which.astype(np.int64))


def _array(data: Any, name: str) -> np.ndarray[Any, Any]:
    try:
        made = np.asanyarray(data.detach().cpu() if isinstance(data, Tensor) else data)
    except (TypeError, ValueError) as told:
        raise BadRequest(f"{name} cannot be read: give rows of one length.") from told
    need(not np.ma.is_masked(made), f"{name} has masked entries: leave those rows out.")
    return np.asarray(made)


def _varies(column: Tensor) -> bool:
    return bool(column.max() - column.min() > 1e-9 * column.abs().max() + 1 / HUGE)


def _standardised(x: Tensor, forced: Tensor) -> Tensor:
    """Columns centred and scaled by rows that were left alone."""
    columns = []
    for j, column in enumerate(x.T):
        alone = column[forced == -1]
        if len(alone) < FEW or not _varies(alone):
            alone = column[forced != j]
        if len(alone) < 2:
            alone = column
        need(_varies(alone), f"column {j} is constant where not forced: leave it out.")
        columns.append((column - alone.mean()) / alone.std())
    return torch.stack(columns, 1)
