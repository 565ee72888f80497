"""The experiments of the chapter on meta-transfer among categories.

Numbers in brackets are equations of the chapter. Tables are log probabilities
[R, N, N], index [a, b], float64, on the run's device; positive speaks for A -> B.
`run` is what `iclrtut.start` returns; sizes come from its settings. A `Measured` is
claim id -> numbers, ready for `run.claim(id, **numbers)`.
"""

import math
import sys
import time
from functools import cache
from itertools import combinations, product
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from tqdm import tqdm

from iclrtut.chapters.meta_transfer.method import (
    SITES,
    Learner,
    World,
    adapt,
    both,
    change,
    deltas,
    discover,
    draw,
    follow,
    kl,
    learn,
    log_dirichlet,
    parts,
    population,
    sample,
)
from iclrtut.chapters.meta_transfer.theory import (
    distances,
    first_step,
    fixed_point,
    gaps,
)
from iclrtut.errors import BadRequest, RunFailed

Measured = dict[str, dict[str, float]]

SURE = 0.95  # sigma(gamma) of a run that has decided
TIE = 1e-12  # predictors closer than rounding of their terms say nothing


def share(hits: Tensor, **beside: float) -> dict[str, float]:
    """A share of runs, from hits [...] of 0, 1/2 or 1; an odd half is dropped."""
    successes, trials = math.floor(float(hits.sum())), hits.numel()
    numbers = {"successes": float(successes), "trials": float(trials)}
    return {"value": successes / trials, **numbers, **beside}


def _bar(items: Any, name: str) -> Any:
    return tqdm(items, name, file=sys.stdout)


class Shift(NamedTuple):
    """Worlds before and after a change, and single examples from after it."""

    log_p: Tensor  # [R, N, N]
    log_star: Tensor  # [R, N, N]
    a: Tensor  # int64 [R, n]
    b: Tensor  # int64 [R, n]


def shift(
    generator: torch.Generator,
    runs: int,
    N: int,
    examples: int,
    site: str = "cause",
    rows: float = 1.0,
) -> Shift:
    """Fresh worlds of N categories, one change each, and examples of what is then.

    Args:
        generator: draws all of it.
        runs, N, examples: R, categories, examples of each run.
        site: what changes, one of SITES.
        rows: concentration of the rows, old and new.
    """
    world = draw(runs, N, generator, rows)
    star = change(world, site, generator, rows=rows)
    a, b = sample(star, examples, 1, generator)
    return Shift(world.log_joint(), star.log_joint(), a[..., 0], b[..., 0])


# The head start


def measure_head_start(run: Any) -> Measured:
    """The exact gap in KL after single examples, cause changed, at three rates.

    Returns:
        For each rate the least mean gap over `head_at`, in nats, and beside it the
        mean after k examples as "k1", "k2", ...; the three rates share their worlds.
    """
    s = run.settings
    made = shift(run.generator("head start"), s.runs, s.N, s.head_at[-1])
    found = {}
    for name, rate in zip(("slow", "medium", "fast"), s.head_rates, strict=True):
        means = gaps(*made, rate, s.head_at).mean(1).tolist()
        at = {f"k{k}": mean for k, mean in zip(s.head_at, means, strict=True)}
        found[f"head_start_{name}"] = {"value": min(means), **at}
    return found


class Curves(NamedTuple):
    """KL(P* || P) of both learners along single examples, in nats."""

    at: tuple[int, ...]  # K numbers of examples, from 0 on, ever farther apart
    forward: Tensor  # [K, R], A -> B
    backward: Tensor  # [K, R], B -> A


def curves(run: Any, site: str = "cause", rate: float | None = None) -> Curves:
    """How both learners adapt to a change, until they meet.

    Args:
        run: the run; 25 times as many examples as its last `head_at`.
        site: what changes, one of SITES.
        rate: of both learners; the middle one of `head_rates` unless given.
    """
    s = run.settings
    n, rate = 25 * s.head_at[-1], rate or s.head_rates[1]
    made = shift(run.generator(f"curves {site}"), s.runs, s.N, n, site)
    at = sorted({0, *(round(n ** (k / 40)) for k in range(41))})
    forward, backward = both(made.log_p)
    paths: tuple[list[Tensor], list[Tensor]] = ([], [])
    for done, now in zip([0, *at], at, strict=False):
        a, b = made.a[:, done:now, None], made.b[:, done:now, None]
        if now:
            forward = adapt(forward, a, b, rate)
            backward = adapt(backward, b, a, rate)
        paths[0].append(kl(made.log_star, forward.log_joint()))
        paths[1].append(kl(made.log_star, backward.log_joint().mT))
    return Curves(tuple(at), *map(torch.stack, paths))


# Gamma


class Gamma(NamedTuple):
    """Paths of gamma from zero, by episode."""

    small: Tensor  # [E + 1, R], N categories
    large: Tensor  # [E + 1, R'], many categories
    swapped: Tensor  # [E + 1, R], the cause is called B


def measure_gamma(run: Any) -> tuple[Measured, Gamma]:
    """The official setting: the cause changes, and gamma says which it is.

    Returns:
        Shares of runs that end sure and right, with the median sigma(gamma) at the
        end as "sigma", and all paths.
    """
    s = run.settings
    sizes = {
        "gamma": (s.runs, s.N, False),
        "gamma_large": (s.large_runs, s.large, False),
        "both_ways": (s.runs, s.N, True),
    }
    found, paths = {}, []
    for id, (runs, N, swapped) in _bar(sizes.items(), "gamma"):
        g = run.generator(id)
        paths.append(_discovered(run, draw(runs, N, g), g, swapped=swapped))
        end = paths[-1][-1].sigmoid()
        sure = end < 1 - SURE if swapped else end > SURE
        found[id] = share(sure, sigma=float(end.median()))
    return found, Gamma(*paths)


def _discovered(
    run: Any, world: World, generator: torch.Generator, **how: Any
) -> Tensor:
    """The paths of gamma [E + 1, R] by the settings of the run, or `how` instead."""
    s = run.settings
    names = ("episodes", "steps", "batch", "rate", "gamma_rate")
    usual = {name: getattr(s, name) for name in names}
    return discover(world, generator, **{**usual, **how})


def flat(runs: int, N: int, generator: torch.Generator) -> World:
    """Worlds whose joint is flat Dirichlet on all N^2 cells: A and B are alike."""
    joint = log_dirichlet((runs, N * N), 1.0, generator).view(runs, N, N)
    learner = learn(joint)
    return World(learner.marginal, learner.rows)


def measure_symmetric(run: Any) -> Measured:
    """Where nothing changes: gamma in worlds that treat A and B alike.

    Returns:
        The distance of the mean sigma(gamma) from 1/2; beside it "sigma" and "error",
        the mean and its standard error, and the same as "apart" and "apart_error"
        where P(A) and P(B|A) are drawn apart and the rate is 1: there A and B are not
        alike, and noise alone moves gamma.
    """
    s = run.settings
    g, h = run.generator("symmetric"), run.generator("apart")
    tried = [
        (flat(s.runs, s.N, g), g, s.rate),
        (draw(s.runs, s.N, h), h, 1.0),
    ]
    ends = [
        _discovered(run, *drawn, site=None, rate=rate)[-1].sigmoid()
        for *drawn, rate in _bar(tried, "no change")
    ]
    (sigma, error), (apart, apart_error) = map(_mean, ends)
    return {
        "symmetric": {
            "value": abs(sigma - 0.5),
            "sigma": sigma,
            "error": error,
            "apart": apart,
            "apart_error": apart_error,
        }
    }


def _mean(x: Tensor) -> tuple[float, float]:
    """The mean of [n] and its standard error."""
    return float(x.mean()), float(x.std() / len(x) ** 0.5)


# Dimension


class Dimension(NamedTuple):
    """Population steps until half of the KL is gone, by categories."""

    sizes: tuple[int, ...]
    forward: Tensor  # int64 [sizes, R], A -> B
    backward: Tensor  # int64 [sizes, R], B -> A


def half_steps(learner: Learner, log_star: Tensor, limit: int) -> Tensor:
    """Population steps of rate 1 until KL(P* || P) is at most half, int64 [R].

    A rate of 1 is below twice the inverse of every curvature, so the KL only falls and
    the steps above half are those before it.

    Args:
        learner: where it starts, logits [R, I] and [R, I, J].
        log_star: the changed joint in the learner's orientation, [R, I, J].
        limit: the most steps a run may take.

    Raises:
        RunFailed: some run takes more.
    """
    steps = torch.zeros_like(learner.marginal[:, 0], dtype=torch.int64)
    left, n = torch.arange(len(steps), device=steps.device), 16
    while len(left):
        n = min(2 * n, limit)
        here = Learner(*(part[left] for part in learner))
        path = population(here, log_star[left], 1.0, n)
        steps[left] = (path > path[0] / 2).sum(0)
        left = left[path[-1] > path[0] / 2]
        if len(left) and n == limit:
            raise RunFailed(
                f"{len(left)} of {len(steps)} runs kept more than half of their KL "
                f"for {limit} population steps: allow more steps, or fewer categories."
            )
    return steps


def measure_dimension(run: Any) -> tuple[Measured, Dimension]:
    """The ratio of steps to half the KL, B -> A over A -> B, against N.

    Returns:
        The slope by least squares of the log of the median ratio on log N, beside it
        the median ratios as "n5", "n10", ...; and the steps.

    Raises:
        BadRequest: fewer than two sizes.
        RunFailed: some run takes more than 100 N steps.
    """
    s, taken = run.settings, []
    if len(s.sizes) < 2:
        raise BadRequest(f"sizes are {s.sizes}: a slope needs at least two.")
    for N in _bar(s.sizes, "dimension"):
        made = shift(run.generator(f"dimension {N}"), s.size_runs, N, 1)
        stars = made.log_star, made.log_star.mT
        pairs = zip(both(made.log_p), stars, strict=True)
        taken.append([half_steps(*pair, 100 * N) for pair in pairs])
    forward, backward = map(torch.stack, zip(*taken, strict=True))
    ratio = (backward / forward.double()).median(1)[0].cpu()
    x = torch.tensor(s.sizes, dtype=torch.float64).log()
    x, y = x - x.mean(), ratio.log()
    ratios = {f"n{N}": r for N, r in zip(s.sizes, ratio.tolist(), strict=True)}
    slope = float((x * y).sum() / (x * x).sum())
    found = {"dimension": {"value": slope, **ratios}}
    return found, Dimension(s.sizes, forward, backward)


# Whatever changes


def measure_any_site(run: Any) -> Measured:
    """Gamma when the effect or the mechanism changes, flat and sparse rows.

    Returns:
        Shares of runs with sigma(gamma) above 1/2 at the end, and the median as
        "sigma".
    """
    s, found = run.settings, {}
    laws = {"": 1.0, "_sparse": 1 / s.N}
    for law, site in _bar(list(product(laws, ("effect", "mechanism"))), "any site"):
        id = f"any_site_{site}{law}"
        how, g = {"site": site, "rows": laws[law]}, run.generator(id)
        world = draw(s.site_runs, s.N, g, laws[law])
        end = _discovered(run, world, g, **how)[-1].sigmoid()
        found[id] = share(end > 0.5, sigma=float(end.median()))
    return found


class Predictors(NamedTuple):
    """Shares of runs, by what changes and by the law of the rows."""

    sites: tuple[str, ...]
    laws: tuple[float, ...]  # concentrations
    right: dict[str, Tensor]  # predictor -> [sites, laws], ties count half
    leads: Tensor  # [sites, laws], share of runs in which A -> B is ahead


def measure_predictors(run: Any) -> tuple[Measured, Predictors]:
    """Who leads after examples one by one, and which of D, (5), (6) said so.

    By D the nearer learner leads, by (5) the one whose first step gains more, by (6)
    the one with more of the shift in its marginal. When B is cut off and keeps its
    marginal, (6) compares 0 with 0 and (5) the same sum of (P(a,b) - P(a) P(b))^2 with
    itself: such a tie counts half.
    """
    s, laws = run.settings, (1.0, 1 / run.settings.N)
    generator, shape = run.generator("predictors"), (len(SITES), len(laws), -1)
    size = (s.predictor_runs, s.N, s.predictor_at)
    made = [shift(generator, *size, site, law) for site, law in product(SITES, laws)]
    all_of = Shift(*map(torch.cat, zip(*made, strict=True)))
    gap = gaps(*all_of, s.predictor_rate, [s.predictor_at])[0]
    said = predictions(all_of.log_p, all_of.log_star)
    right = {name: _agree(x, gap).view(shape) for name, x in said.items()}
    found = {f"predictor_{name}": share(x) for name, x in right.items()}
    means = {name: x.mean(2) for name, x in right.items()}
    leads = (gap > 0).double().view(shape).mean(2)
    return found, Predictors(SITES, laws, means, leads)


def predictions(log_p: Tensor, log_star: Tensor) -> dict[str, Tensor]:
    """What D (8), the first step (5) and the parts of the KL (6) say, each [...].

    Positive where A -> B should lead.
    """
    near, steep = distances(log_p, log_star), first_step(log_p, log_star)
    shares = parts(log_p, log_star)
    return {
        "distance": near[1] - near[0],
        "step": steep[0] - steep[1],
        "parts": shares.cause - shares.effect,
    }


def _agree(said: Tensor, gap: Tensor) -> Tensor:
    """1 where the signs agree, 0 where they differ, 1/2 where one of them is none."""
    sign = torch.where(said.abs() < TIE, torch.zeros_like(said), said.sign())
    return (1 + sign * gap.sign()) / 2


# Where it breaks


class Breaks(NamedTuple):
    """Two settings in which the cause changes and the method misleads.

    The first has rate 3, 20 single examples an episode and rows from a flat Dirichlet;
    the second the rate of the settings, 20 single examples, and sharp rows.
    """

    delta: Tensor  # [E, R], episodes of R worlds, in nats
    exact: Tensor  # [R], p* of each world's episodes, (12)
    followed: Tensor  # [R], mean sigma(gamma) of SGD on these episodes, once settled
    sharpness: tuple[float, ...]  # concentrations of rows, from flat to sharp
    gap: Tensor  # [sharpness, R'], exact gap after 20 examples, in nats


SHARPNESS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003)


def where_it_breaks(run: Any) -> Breaks:
    """A rate at which gamma stops short of one, and rows at which B -> A leads.

    SGD (rate 0.1) takes 4,000 steps on episodes drawn again from those measured, so
    that p* of the same episodes is exact for it; the first half is left out.
    """
    s, g = run.settings, run.generator("breaks")
    world = draw(s.large_runs, s.N, g)
    found = []
    for n in _bar(_blocks(s.episodes), "where it breaks"):
        wide = World(*(factor.expand(n, *factor.shape) for factor in world))
        examples = sample(change(wide, "cause", g), 20, 1, g)
        found.append(deltas(world.log_joint(), *examples, 3.0))
    delta = torch.cat(found)
    shape = (4000, delta.shape[1])
    at = torch.randint(len(delta), shape, generator=g, device=delta.device)
    path = follow(delta.gather(0, at), 0.1, rms=False)
    sharp = [
        gaps(*shift(g, s.predictor_runs, s.N, 20, rows=c), s.rate, [20])[0]
        for c in SHARPNESS
    ]
    return Breaks(
        delta,
        fixed_point(delta),
        path[2000:].sigmoid().mean(0),
        SHARPNESS,
        torch.stack(sharp),
    )


def _blocks(episodes: int) -> list[int]:
    """Episodes by the block: few enough for a cache, many enough for a program."""
    return [min(10, episodes - done) for done in range(0, episodes, 10)]


# Growth


class Growth(NamedTuple):
    """Seconds that both learners' episodes take, against one size at a time."""

    what: str  # "runs", "N" or "steps"
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]


def growth(run: Any) -> list[Growth]:
    """Time `deltas` against runs, categories and steps; the others as in the settings.

    The shortest of five calls, after one that is not counted.
    """
    s, g = run.settings, run.generator("growth")
    usual = {"runs": s.runs, "N": s.N, "steps": s.steps}
    grids = {
        "runs": tuple(4**k for k in range(6) if 4**k <= 4 * s.runs),
        "N": s.sizes,
        "steps": (1, 2, 4, 8, 16),
    }
    found = []
    for what, sizes in grids.items():
        taken = []
        for size in sizes:
            runs, N, steps = {**usual, what: size}.values()
            world = draw(runs, N, g)
            a, b = sample(world, steps, s.batch, g)
            log_joint = world.log_joint()
            taken.append(_shortest(log_joint, a, b, s.rate))
        found.append(Growth(what, sizes, tuple(taken)))
    return found


def _shortest(log_joint: Tensor, a: Tensor, b: Tensor, rate: float) -> float:
    seconds = []
    for _ in range(6):
        began = time.perf_counter()
        deltas(log_joint, a, b, rate).sum().item()  # the item waits for a GPU
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])


# More than two variables, (14). An edge [i, j] says that j is a parent of i.


def graphs(d: int) -> Tensor:
    """All directed graphs on d nodes without loops, bool [2^(d(d-1)), d, d]."""
    off = ~torch.eye(d, dtype=torch.bool)
    bits = torch.tensor(list(product((False, True), repeat=d * (d - 1))))
    found = torch.zeros(len(bits), d, d, dtype=torch.bool)
    found[:, off] = bits
    return found


def acyclic(graph: Tensor) -> Tensor:
    """Whether graphs [..., d, d] have no directed cycle, [...]."""
    walks: Tensor = torch.linalg.matrix_power(graph.double(), graph.shape[-1])
    return walks.sum((-2, -1)) == 0


@cache
def parent_sets(d: int) -> Tensor:
    """The sets of possible parents of each node, bool [d, 2^(d-1), d]."""
    found = torch.zeros(d, 2 ** (d - 1), d, dtype=torch.bool)
    for i in range(d):
        others = [j for j in range(d) if j != i]
        sets = [c for k in range(d) for c in combinations(others, k)]
        for at, chosen in enumerate(sets):
            found[i, at, list(chosen)] = True
    return found


def edge_slope(gamma: Tensor, log_likelihoods: Tensor) -> Tensor:
    """dR/dgamma_ij = sigma(gamma_ij) - P(edge | data), node by node, (14).

    Args:
        gamma: logits of independent edges, [..., d, d]; the diagonal is not used.
        log_likelihoods: of the data, node by parent set, [..., d, 2^(d-1)], in nats.

    Returns:
        [..., d, d], zero on the diagonal.
    """
    d = gamma.shape[-1]
    sets, off = parent_sets(d).to(gamma), 1 - torch.eye(d).to(gamma)
    prior = torch.einsum("isj,...ij->...is", sets, logsigmoid(gamma))
    prior += torch.einsum("isj,...ij->...is", off[:, None] - sets, logsigmoid(-gamma))
    posterior = (prior + log_likelihoods).softmax(-1)
    return off * gamma.sigmoid() - torch.einsum("isj,...is->...ij", sets, posterior)


def conditionals(joint: Tensor) -> Tensor:
    """log P(x_i | its parents) of each node i and parent set, from a joint.

    Args:
        joint: log P(x_1, ..., x_d), [R, K, ..., K].

    Returns:
        [R, d, 2^(d-1), K^(d-1), K]: contexts are the values of all other nodes, in
        order, of which a set sees its own; the last axis is x_i.
    """
    R, K, d = len(joint), joint.shape[1], joint.ndim - 1
    found = []
    for i, sets in enumerate(parent_sets(d)):
        for chosen in sets:
            hidden = [j + 1 for j in range(d) if j != i and not chosen[j]]
            seen = joint.logsumexp(hidden, keepdim=True) if hidden else joint
            log_p = seen.log_softmax(i + 1).expand_as(joint).movedim(i + 1, -1)
            found.append(log_p.reshape(R, K ** (d - 1), K))
    return torch.stack(found, 1).view(R, d, -1, K ** (d - 1), K)


def set_likelihoods(tables: Tensor, x: Tensor, rate: float) -> Tensor:
    """log P of each node's values before each SGD step, by parent set, summed.

    Args:
        tables: logits where the learners start, as from `conditionals`.
        x: int64 [..., R, T, M, d]: T batches of M examples.
        rate: of SGD on each node's mean negative log-likelihood of a batch.

    Returns:
        [..., R, d, 2^(d-1)], in nats.
    """
    (d, _, _, K), M = tables.shape[1:], x.shape[-2]
    place = _places(d, K).to(x.device)
    tables = tables.expand(*x.shape[:-4], *tables.shape)
    found = []
    for batch in x.unbind(-3):  # [..., R, M, d]
        row = (batch[..., None, None, :, :] * place[:, :, None]).sum(-1)
        cell = row * K + batch.mT[..., None, :]  # [..., R, d, sets, M]
        log_p = tables.log_softmax(-1)
        found.append(log_p.flatten(-2).gather(-1, cell).sum(-1))
        counts = torch.zeros_like(log_p).flatten(-2)
        counts.scatter_add_(-1, cell, torch.ones_like(cell).to(counts))
        counts = counts.view_as(log_p)
        slope = counts.sum(-1, keepdim=True) * log_p.exp() - counts
        tables = tables - rate / M * slope
    return torch.stack(found).sum(0)


@cache
def _places(d: int, K: int) -> Tensor:
    """What a value adds to the number of a context, int64 [d, 2^(d-1), d].

    A node that a set does not see adds nothing: the table is the same there.
    """
    step = torch.zeros(d, d, dtype=torch.int64)
    for i in range(d):
        others = [j for j in range(d) if j != i]
        for power, j in enumerate(reversed(others)):
            step[i, j] = K**power
    return parent_sets(d) * step[:, None, :]


def mass(joint: Tensor, graph: Tensor) -> Tensor:
    """The sum over all values of prod_i P(x_i | parents), [R]; 1 if acyclic.

    Args:
        joint: log P(x_1, ..., x_d), [R, K, ..., K].
        graph: bool [R, d, d].
    """
    d, K = joint.ndim - 1, joint.shape[1]
    values = torch.cartesian_prod(*[torch.arange(K)] * d).to(joint.device)
    tables, total = conditionals(joint), torch.zeros_like(joint.flatten(1))
    runs = torch.arange(len(joint), device=joint.device)
    for i, sets in enumerate(parent_sets(d).to(joint.device)):
        at = (graph[:, i, None] == sets).all(-1).int().argmax(-1)  # [R]
        place = _places(d, K).to(joint.device)[i, at]
        row = (place[:, None] * values).sum(-1)  # [R, K^d]
        total += tables[runs[:, None], i, at[:, None], row, values[:, i]]
    return total.exp().sum(-1)


class Larger(NamedTuple):
    """Beliefs in the edges among three nodes of a chain, learned by node."""

    paths: Tensor  # [E + 1, R, 3, 3]: sigma(gamma), [i, j] for j -> i
    graph: Tensor  # bool [R, 3, 3]: edges believed at the end
    cyclic: Tensor  # bool [R]
    mass: Tensor  # [R]: what the product of the believed conditionals sums to


def where_larger_graphs_stop(run: Any) -> Larger:
    """Gamma by edge where the root of x_0 -> x_1 -> x_2 changes, three categories.

    Each node weighs its parent sets apart, by (14), as in the official setting for two:
    whatever carries information about a node is taken as its parent, both ways round.
    """
    s, g = run.settings, run.generator("larger")
    runs, K, T = s.worlds, 3, s.steps
    root, middle = log_dirichlet((runs, K), 1.0, g), draw(runs, K, g).effect
    joint = (root[..., None] + middle)[..., None] + draw(runs, K, g).effect[:, None]
    tables, told = conditionals(joint), []
    for n in _bar(_blocks(s.episodes), "three nodes"):
        new = log_dirichlet((n, runs, K), 1.0, g) - root
        x = _values(joint + new[..., None, None], T * s.batch, g)
        x = x.view(n, runs, T, s.batch, 3)
        told.append(set_likelihoods(tables, x, s.rate))
    gamma = torch.zeros(runs, 3, 3, dtype=joint.dtype, device=joint.device)
    square, paths = torch.zeros_like(gamma), [gamma]
    for log_p in torch.cat(told):
        slope = edge_slope(gamma, log_p)
        square = 0.99 * square + 0.01 * slope.square()  # RMSprop, as in `follow`
        gamma = gamma - s.gamma_rate * slope / (square.sqrt() + 1e-8)
        paths.append(gamma)
    graph = gamma > 0  # on the diagonal it stays at zero
    return Larger(
        torch.stack(paths).sigmoid(), graph, ~acyclic(graph), mass(joint, graph)
    )


def _values(joint: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """n values of three nodes, int64 [..., R, n, 3], of joints [..., R, K, K, K]."""
    K = joint.shape[-1]
    p = joint.exp().view(-1, K**3)
    at = torch.multinomial(p, n, replacement=True, generator=generator)
    values = torch.stack([at // K**2, at // K % K, at % K], -1)
    return values.view(*joint.shape[:-3], n, 3)


class Count(NamedTuple):
    """How much there is to learn and to choose from on d nodes."""

    nodes: int
    sets: int  # conditionals to learn, d 2^(d-1)
    graphs: int  # 2^(d(d-1))
    acyclic: int  # by Robinson's recursion


def how_many(most: int = 6) -> list[Count]:
    """Parent sets, graphs and acyclic graphs on 2 to `most` nodes."""
    dags = [1]
    for d in range(1, most + 1):
        terms = (
            (-1) ** (k + 1) * math.comb(d, k) * 2 ** (k * (d - k)) * dags[d - k]
            for k in range(1, d + 1)
        )
        dags.append(sum(terms))
    return [
        Count(d, d * 2 ** (d - 1), 2 ** (d * (d - 1)), dags[d])
        for d in range(2, most + 1)
    ]
