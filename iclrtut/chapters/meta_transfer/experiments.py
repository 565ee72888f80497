"""The experiments of the chapter on meta-transfer among categories.

Numbers in brackets are equations of the chapter. Tables are log probabilities
[R, N, N], index [a, b], float64, on the run's device; positive speaks for A -> B.
Sizes come from a run's settings; measurements are ready for `run.claim_all`.
"""

import sys
from collections.abc import Iterable
from itertools import product
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Generator, Tensor
from torch.optim import SGD, RMSprop
from tqdm import tqdm

from iclrtut.chapters.meta_transfer import Settings, graphs, method, training
from iclrtut.chapters.meta_transfer.method import SITES
from iclrtut.claims import Measurements
from iclrtut.errors import BadRequest, RunFailed
from iclrtut.metrics import share
from iclrtut.run import Run
from iclrtut.train import Loop

SURE = 0.95  # sigma(gamma) of a run that has decided
LEADS = tuple(site for site in SITES if site != "marginal")
# Episodes drawn at once where the method's loop is not the one that draws them.
AT_ONCE = 10

T = TypeVar("T")


def _bar(items: Iterable[T], name: str) -> Iterable[T]:
    bar: Iterable[T] = tqdm(items, name, file=sys.stdout)
    return bar


class Shift(NamedTuple):
    """Worlds before and after a change, and single examples from after it."""

    log_p: Tensor  # [R, N, N]
    log_star: Tensor  # [R, N, N]
    a: Tensor  # int64 [R, n]
    b: Tensor  # int64 [R, n]


def shift(
    generator: Generator,
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
    world = method.draw(runs, N, generator, rows)
    star = method.change(world, site, generator, rows=rows)
    a, b = method.sample(star, examples, 1, generator)
    return Shift(world.log_joint(), star.log_joint(), a[..., 0], b[..., 0])


# The head start


def measure_head_start(run: Run) -> Measurements:
    """The exact gap in KL after single examples, cause changed, at three rates.

    Returns:
        For each rate the least mean gap over `head_at`, in nats, and with it the
        mean after k examples as "k1", "k2", ...; the three rates share their worlds.
    """
    s: Settings = run.settings
    shifted = shift(run.generator("head start"), s.runs, s.N, s.head_at[-1])
    measured = {}
    for name, rate in zip(("slow", "medium", "fast"), s.head_rates, strict=True):
        means = method.learning_curves(*shifted, rate, s.head_at).gap.mean(1).tolist()
        at = {f"k{k}": mean for k, mean in zip(s.head_at, means, strict=True)}
        measured[f"head_start_{name}"] = {"value": min(means), **at}
    return measured


def curves(run: Run, site: str = "cause") -> tuple[list[int], method.Curves]:
    """How both learners adapt to a change, until they meet.

    Args:
        run: the run; 25 times as many examples as its last `head_at`, at the middle one
            of its `head_rates`.
        site: what changes, one of SITES.

    Returns:
        K numbers of examples, from 0 on, ever farther apart, and the curves [K, R].
    """
    s: Settings = run.settings
    n = 25 * s.head_at[-1]
    shifted = shift(run.generator(f"curves {site}"), s.runs, s.N, n, site)
    at = sorted({0, *(round(n ** (k / 40)) for k in range(41))})
    return at, method.learning_curves(*shifted, s.head_rates[1], at)


# Gamma


def gamma_loop(run: Run, plain: bool = False) -> tuple[training.Beliefs, Loop]:
    """gamma in the official setting, not yet trained, and the loop that trains it.

    Args:
        run: the run.
        plain: whether by gradient steps of `plain_rate`, not by RMSprop.
    """
    s: Settings = run.settings
    draws = run.generator("gamma")
    world = method.draw(s.runs, s.N, draws)
    forward, backward = method.both(world.log_joint())
    model = training.Beliefs(world.cause[:, 0], s.episodes)

    def log_l(t: int) -> tuple[Tensor, Tensor]:
        new = method.change(world, "cause", draws)
        a, b = method.sample(new, s.steps, s.batch, draws)
        return (
            method.log_likelihoods(forward, a, b, s.rate).sum(1),
            method.log_likelihoods(backward, b, a, s.rate).sum(1),
        )

    make, rate = (SGD, s.plain_rate) if plain else (RMSprop, s.gamma_rate)
    return model, training.loop(model, log_l, make(model.parameters(), rate), draws)


class Gamma(NamedTuple):
    """Paths of gamma from zero, by episode."""

    small: Tensor  # [E + 1, R], N categories
    plain: Tensor  # the same by plain steps
    large: Tensor  # [E + 1, R'], many categories
    swapped: Tensor  # [E + 1, R], the cause is called B


def measure_gamma(
    run: Run, small: training.Beliefs, plain: training.Beliefs
) -> tuple[Measurements, Gamma]:
    """The official setting: the cause changes, and gamma says which it is.

    Args:
        run: the run.
        small, plain: trained by both loops of `gamma_loop`.

    Returns:
        Shares of runs that end sure and right, with the median sigma(gamma) at the
        end as "sigma" and the share on the right side as "right"; and all paths.
    """
    s: Settings = run.settings
    sizes = {"gamma_large": (s.large_runs, s.large, False)}
    sizes |= {"both_ways": (s.runs, s.N, True)}
    paths = {"gamma": small.path, "gamma_plain": plain.path}
    for id, (runs, N, swapped) in _bar(sizes.items(), "gamma"):
        generator = run.generator(id)
        world = method.draw(runs, N, generator)
        paths[id] = _discovered(run, world, generator, swapped=swapped)
    measured = {}
    for id, path in paths.items():
        end = path[-1].sigmoid()
        right = 1 - end if id == "both_ways" else end
        more = {"sigma": float(end.median())}
        more["right"] = float((right > 0.5).double().mean())
        measured[id] = share(right > SURE) | more
    return measured, Gamma(*paths.values())


def _discovered(
    run: Run, world: method.World, generator: Generator, **options: Any
) -> Tensor:
    """The paths of gamma [E + 1, R] by the settings of the run, or other options."""
    names = ("episodes", "steps", "batch", "rate", "gamma_rate")
    usual = {name: getattr(run.settings, name) for name in names}
    return method.discover(world, generator, **{**usual, **options})


def flat(runs: int, N: int, generator: Generator) -> method.World:
    """Worlds whose joint is flat Dirichlet on all N^2 cells: A and B are alike."""
    joint = method.log_dirichlet((runs, N * N), 1.0, generator).view(runs, N, N)
    return method.World(*method.learn(joint))


def measure_symmetric(run: Run) -> Measurements:
    """Where nothing changes: gamma in worlds that treat A and B alike.

    Returns:
        The distance of the mean sigma(gamma) from 1/2, with "sigma" and "error",
        the mean and its standard error, and the same as "apart" and "apart_error"
        where P(A) and P(B|A) are drawn apart and the rate is 1: there A and B are not
        alike, and noise alone moves gamma.
    """
    s: Settings = run.settings
    tried = {"symmetric": (flat, s.rate), "apart": (method.draw, 1.0)}
    numbers = []
    for name, (make, rate) in _bar(tried.items(), "no change"):
        generator = run.generator(name)
        world = make(s.runs, s.N, generator)
        end = _discovered(run, world, generator, site=None, rate=rate)[-1].sigmoid()
        numbers += [float(end.mean()), float(end.std() / len(end) ** 0.5)]
    names = ("sigma", "error", "apart", "apart_error")
    measured = dict(zip(names, numbers, strict=True))
    return {"symmetric": {"value": abs(measured["sigma"] - 0.5), **measured}}


# Dimension


class Ratios(NamedTuple):
    """B -> A over A -> B, by what is asked of them, each [..., R]."""

    distance: Tensor  # D, (8)
    steps: Tensor  # population steps until half of the KL is gone
    unit: Tensor  # the same, once each row counts as much as a marginal


def half_steps(
    learner: method.Learner, log_star: Tensor, limit: int, weighted: bool = True
) -> Tensor:
    """Population steps of rate 1 until KL(P* || P) is at most half, int64 [R].

    A rate of 1 is below twice the inverse of every curvature, so the KL only falls and
    the steps above half are those before it.

    Args:
        learner: where it starts, logits [R, I] and [R, I, J].
        log_star: the changed joint in the learner's orientation, [R, I, J].
        limit: the most steps a run may take.
        weighted: as `method.population_gradient` takes it.

    Raises:
        RunFailed: some run takes more.
    """
    steps = torch.zeros_like(learner.marginal[:, 0], dtype=torch.int64)
    left, n = torch.arange(len(steps), device=steps.device), 16
    while len(left):
        n = min(2 * n, limit)
        here = method.Learner(*(part[left] for part in learner))
        path = method.population(here, log_star[left], 1.0, n, weighted)
        steps[left] = (path > path[0] / 2).sum(0)
        left = left[path[-1] > path[0] / 2]
        if len(left) and n == limit:
            raise RunFailed(
                f"{len(left)} of {len(steps)} runs kept more than half of their KL "
                f"for {limit} population steps: allow more steps, or fewer categories."
            )
    return steps


def _ratios(shifted: Shift) -> Ratios:
    log_p, log_star = shifted[:2]
    limit, D = 100 * log_p.shape[-1], method.distances(log_p, log_star)
    taken = []
    for weighted in (True, False):
        starts = zip(method.both(log_p), (log_star, log_star.mT), strict=True)
        ahead, behind = (half_steps(*start, limit, weighted) for start in starts)
        taken.append(behind / ahead.double())
    return Ratios(D[1] / D[0], *taken)


def measure_dimension(run: Run) -> tuple[Measurements, Ratios]:
    """How the ratios B -> A over A -> B grow with N, when the cause changes.

    Returns:
        "slope_one": how far the slope (least squares, logs of median ratios on log N)
        of the ratio of steps is from one, with the "slope" and the median ratios as
        "n5", "n10", ...; "row_weight": the slope once the rows' weight is taken away.
        And all ratios, [sizes, R].

    Raises:
        BadRequest: fewer than two sizes.
        RunFailed: some run takes more than 100 N steps.
    """
    s: Settings = run.settings
    if len(s.sizes) < 2:
        raise BadRequest(f"sizes are {s.sizes}: a slope needs at least two.")
    every = [
        _ratios(shift(run.generator(f"dimension {N}"), s.size_runs, N, 1))
        for N in _bar(s.sizes, "dimension")
    ]
    ratios = Ratios(*map(torch.stack, zip(*every, strict=True)))
    slopes, medians = [], []
    for part in (ratios.steps, ratios.unit):
        medians.append(part.quantile(0.5, 1).tolist())
        slopes.append(float(np.polyfit(np.log(s.sizes), np.log(medians[-1]), 1)[0]))
    at = [{f"n{N}": r for N, r in zip(s.sizes, each, strict=True)} for each in medians]
    measured = {
        "slope_one": {"value": abs(slopes[0] - 1), "slope": slopes[0], **at[0]},
        "row_weight": {"value": slopes[1], **at[1]},
    }
    return measured, ratios


def reversal(run: Run) -> dict[str, list[float]]:
    """Median ratios (`Ratios`) at N categories, by what changes."""
    s: Settings = run.settings
    found = {}
    for site in ("cause", "effect", "mechanism"):
        shifted = shift(run.generator(f"reversal {site}"), s.size_runs, s.N, 1, site)
        found[site] = [float(part.quantile(0.5)) for part in _ratios(shifted)]
    return found


# Whatever changes


def measure_whatever(run: Run) -> Measurements:
    """Gamma when the effect or the mechanism changes, flat and sparse rows.

    Returns:
        Shares of runs that end sure of A -> B, as in `measure_gamma`; with the median
        as "sigma", and the share that end as sure of B -> A as "reversed".
    """
    s: Settings = run.settings
    measured, laws = {}, {"": 1.0, "_sparse": 1 / s.N}
    for law, site in _bar(list(product(laws, ("effect", "mechanism"))), "whatever"):
        id, rows = f"whatever_{site}{law}", laws[law]
        generator = run.generator(id)
        world = method.draw(s.site_runs, s.N, generator, rows)
        path = _discovered(run, world, generator, site=site, rows=rows)
        end = path[-1].sigmoid()
        more = {"reversed": float((end < 1 - SURE).double().mean())}
        measured[id] = share(end > SURE) | {"sigma": float(end.median())} | more
    return measured


class Leaders(NamedTuple):
    """Shares of runs, by what changes and by the law of the rows."""

    sites: tuple[str, ...]
    right: dict[str, Tensor]  # predictor -> [sites, laws]
    leads: Tensor  # [sites, laws], share of runs in which A -> B is ahead


def measure_leaders(run: Run) -> tuple[Measurements, Leaders]:
    """Who leads after examples one by one, and which of D, (5), (6) said so.

    By D the nearer learner leads, by (5) the one whose first step gains more, by (6)
    the one with more of the shift in its marginal. Where B is cut off and keeps its
    marginal, (6) compares 0 with 0 and (5) the same sum of (P(a,b) - P(a) P(b))^2 with
    itself, so that change is left out. Rows are drawn flat, then sparse.
    """
    s: Settings = run.settings
    laws, generator = (1.0, 1 / s.N), run.generator("leaders")
    size, shape = (s.predictor_runs, s.N, s.predictor_at), (len(LEADS), len(laws), -1)
    shifts = [shift(generator, *size, site, law) for site, law in product(LEADS, laws)]
    shifted = Shift(*map(torch.cat, zip(*shifts, strict=True)))
    gap = method.learning_curves(*shifted, s.predictor_rate, [s.predictor_at]).gap[0]
    right = {
        name: (prediction.sign() == gap.sign()).double().view(shape)
        for name, prediction in predictions(shifted.log_p, shifted.log_star).items()
    }
    measured = {f"leader_{name}": share(x) for name, x in right.items()}
    means = {name: x.mean(2) for name, x in right.items()}
    leads = (gap > 0).double().view(shape).mean(2)
    return measured, Leaders(LEADS, means, leads)


def predictions(log_p: Tensor, log_star: Tensor) -> dict[str, Tensor]:
    """What D (8), the first step (5) and the parts of the KL (6) say, each [...].

    Positive where A -> B should lead.
    """
    near, steep = method.distances(log_p, log_star), method.first_step(log_p, log_star)
    split = method.parts(log_p, log_star)
    return {
        "distance": near[1] - near[0],
        "step": steep[0] - steep[1],
        "parts": split.cause - split.effect,
    }


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


def where_it_breaks(run: Run) -> Breaks:
    """A rate at which gamma stops short of one, and rows at which B -> A leads.

    SGD (rate 0.1) takes 4,000 steps on episodes drawn again from those measured, so
    that p* of the same episodes is exact for it; the first half is left out.
    """
    s: Settings = run.settings
    g = run.generator("breaks")
    world, results = method.draw(s.large_runs, s.N, g), []
    for n in method.blocks(s.episodes, AT_ONCE):
        a, b = method.sample_changed(world, "cause", g, episodes=n, steps=20, batch=1)
        results.append(method.deltas(world.log_joint(), a, b, 3.0))
    delta = torch.cat(results)
    shape = (4000, delta.shape[1])
    at = torch.randint(len(delta), shape, generator=g, device=delta.device)
    path = method.follow(delta.gather(0, at), 0.1, rms=False)
    gaps = []
    for rows in SHARPNESS:
        shifted = shift(g, s.predictor_runs, s.N, 20, rows=rows)
        gaps.append(method.learning_curves(*shifted, s.rate, [20]).gap[0])
    return Breaks(
        delta=delta,
        exact=method.fixed_point(delta),
        followed=path[2000:].sigmoid().mean(0),
        sharpness=SHARPNESS,
        gap=torch.stack(gaps),
    )


# A chain of three variables


class Larger(NamedTuple):
    """Beliefs in the edges among three nodes of a chain, learned by node."""

    paths: Tensor  # [E + 1, R, 3, 3]: sigma(gamma), [i, j] for j -> i
    graph: Tensor  # bool [R, 3, 3]: edges believed at the end
    cyclic: Tensor  # bool [R]
    mass: Tensor  # [R]: what the product of the believed conditionals sums to


def where_larger_graphs_stop(run: Run) -> Larger:
    """Gamma by edge where the root of x_0 -> x_1 -> x_2 changes, three categories.

    Each node weighs its parent sets apart, by (19), as in the official setting for two:
    whatever carries information about a node is taken as its parent, both ways round.
    """
    s: Settings = run.settings
    g, runs, K, T = run.generator("larger"), s.worlds, 3, s.steps
    root = method.log_dirichlet((runs, K), 1.0, g)
    middle, end = (method.draw(runs, K, g).effect for _ in range(2))
    joint = (root[..., None] + middle)[..., None] + end[:, None]
    tables, results = graphs.conditionals(joint), []
    for n in method.blocks(s.episodes, AT_ONCE):
        new = method.log_dirichlet((n, runs, K), 1.0, g) - root
        x = _values(joint + new[..., None, None], T * s.batch, g)
        x = x.view(n, runs, T, s.batch, 3)
        results.append(graphs.set_likelihoods(tables, x, s.rate))
    start = torch.zeros(runs, 3, 3, dtype=joint.dtype, device=joint.device)
    log_l = torch.cat(results)
    paths = method.follow(log_l, s.gamma_rate, gradient=graphs.edge_slope, start=start)
    graph = paths[-1] > 0  # on the diagonal it stays at zero
    cyclic, mass = ~graphs.acyclic(graph), graphs.mass(joint, graph)
    return Larger(paths.sigmoid(), graph, cyclic, mass)


def _values(joint: Tensor, n: int, generator: Generator) -> Tensor:
    """n values of three nodes, int64 [..., R, n, 3], of joints [..., R, K, K, K]."""
    K = joint.shape[-1]
    p = joint.exp().view(-1, K**3)
    at = torch.multinomial(p, n, replacement=True, generator=generator)
    values = torch.stack([at // K**2, at // K % K, at % K], -1)
    return values.view(*joint.shape[:-3], n, 3)
