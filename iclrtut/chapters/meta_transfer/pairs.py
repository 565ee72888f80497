"""The chapter's experiment on real pairs: is the column that adapts faster the cause?

A pair is two columns [rows], float64, in the order of their file. A method sees pairs
and nothing else; its scores [P] are positive where it takes the first column for the
cause. Numbers in brackets are equations of the chapter; sizes come from a run's
settings.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import ArrayLike, NDArray
from scipy.special import digamma
from torch import Tensor

from iclrtut import data
from iclrtut.chapters.meta_transfer import Settings
from iclrtut.chapters.meta_transfer.method import (
    learn,
    log_dirichlet,
    parts,
    population,
    population_curves,
    smoothed,
)
from iclrtut.claims import Measurements
from iclrtut.errors import BadRequest
from iclrtut.intervals import Interval
from iclrtut.run import Run

BINS = 10
RATE = 1.0  # of the population steps
LEAST_ROWS = 20  # of a pair
ORDERED = 0.99  # share of steps that do not go back in a column that is sorted
METHODS = {
    "selection": "adaptation, one column's law selected",
    "blocks": "adaptation, blocks of rows",
    "shuffled": "adaptation, blocks of shuffled rows",
    "coin": "a coin",
    "igci": "entropies (IGCI)",
    "noise": "additive noise",
    "regression": "regression error",
    "drift": "marginal drift",
}
Array = NDArray[Any]
Pair = tuple[Array, Array]
Rng = np.random.Generator

# Data


class Pairs(NamedTuple):
    """Pairs to guess from, and what only the evaluation may know.

    Attributes:
        columns: P pairs, their columns swapped at random.
        side: 1 where the first column is the cause, -1 where the second is, [P].
        weight: recommended weight, [P].
        source: number of the data set that it comes from, [P].
        names: of the first and the second column.
    """

    columns: list[Pair]
    side: Array
    weight: Array
    source: Array
    names: list[tuple[str, str]]


def checked(pairs: Sequence[tuple[ArrayLike, ArrayLike]]) -> list[Pair]:
    """Pairs of columns as methods take them, of any lengths.

    Raises:
        BadRequest: none, columns of two lengths or of fewer than 20 rows, NaN or
            infinity, or a constant column.
    """
    if not pairs:
        raise BadRequest("there are no pairs: give at least one.")
    columns = [(np.asarray(x, np.float64), np.asarray(y, np.float64)) for x, y in pairs]
    for i, (x, y) in enumerate(columns):
        if x.ndim != 1 or x.shape != y.shape or len(x) < LEAST_ROWS:
            raise BadRequest(
                f"pair {i} has columns of shapes {x.shape} and {y.shape}: give two of "
                f"one length, at least {LEAST_ROWS}."
            )
        if not (np.isfinite(x) & np.isfinite(y)).all():
            raise BadRequest(f"pair {i} holds NaN or infinity: leave such rows out.")
        if np.ptp(x) == 0 or np.ptp(y) == 0:
            raise BadRequest(f"pair {i} has a constant column: leave the pair out.")
    return columns


def load_pairs(run: Run) -> Pairs:
    """The cause-effect pairs, at most `pairs` of them, columns swapped at random."""
    z = data.load("tuebingen_pairs")
    columns = (np.split(z[side], z["offsets"][1:-1]) for side in ("cause", "effect"))
    known = list(zip(*columns, strict=True))
    names = list(zip(z["cause_name"].tolist(), z["effect_name"].tolist(), strict=True))
    source = np.unique(z["dataset"], return_inverse=True)[1]
    most = min(run.settings.pairs, len(known))
    kept = np.unique(np.linspace(0, len(known) - 1, most).round().astype(int))
    side = np.where(run.rng("swap").random(len(kept)) < 0.5, -1, 1)
    return Pairs(
        checked([known[i][::turn] for i, turn in zip(kept, side, strict=True)]),
        side,
        z["weight"][kept],
        source[kept],
        [names[i][::turn] for i, turn in zip(kept, side, strict=True)],
    )


def in_order(column: Array) -> bool:
    """Whether a column is sorted, up or down: one step in a hundred may go back."""
    step = np.diff(column)
    return bool(max((step >= 0).mean(), (step <= 0).mean()) >= ORDERED)


# Tables


def by_rank(column: Array, rng: Rng) -> Array:
    """Each row in one of BINS bins of equal counts, int64; chance breaks ties."""
    rank = np.lexsort((rng.random(len(column)), column)).argsort()
    return rank * BINS // len(column)


def ranked(columns: list[Pair], rng: Rng) -> list[Pair]:
    """Both columns of each pair, by rank."""
    first = [by_rank(x, rng) for x, _ in columns]
    return list(zip(first, [by_rank(y, rng) for _, y in columns], strict=True))


def parts_of(rows: int, n: int, rng: Rng | None = None) -> Array:
    """The part of each row, from 0 to n - 1: runs of rows, shuffled first by an rng."""
    part = np.arange(rows) * n // rows
    return part if rng is None else part[rng.random(rows).argsort()]


def tables(codes: list[Pair], n: int = 1, rng: Rng | None = None) -> Array:
    """Rows in each cell of each part of each pair, int64 [P, n, BINS, BINS].

    Args:
        codes: bins of the first and the second column of each pair.
        n: how many parts, by `parts_of`.
        rng: shuffles rows first, where given.
    """
    shape = n, BINS, BINS
    counts = []
    for x, y in codes:
        cell = np.ravel_multi_index((parts_of(len(x), n, rng), x, y), shape)
        counts.append(np.bincount(cell, minlength=n * BINS**2).reshape(shape))
    return np.stack(counts)


# Adaptation


def across_blocks(counts: Array, steps: int) -> Pair:
    """Fit all parts but one, adapt to that one, summed over the parts.

    Args:
        counts: [P, parts, BINS, BINS].
        steps: population steps.

    Returns:
        How far first -> second is ahead, [P], and the marginal drift
        KL(first) - KL(second) of (6), [P], in nats.
    """
    start, star = smoothed(counts.sum(1, keepdims=True) - counts), smoothed(counts)
    moved = parts(start, star)
    drift = (moved.cause - moved.effect).sum(1)
    lead = population_curves(start, star, RATE, steps).gap.sum((0, 2))
    return lead.numpy(), drift.numpy()


def under_selection(counts: Array, laws: Tensor, steps: int) -> Pair:
    """Put other laws on the first column, then the same on the second, (18).

    Args:
        counts: [P, BINS, BINS].
        laws: log marginals, [P, M, BINS].
        steps: population steps.

    Returns:
        How far first -> second is ahead, summed over the laws on the first column and
        over those on the second, each [P], in nats.
    """
    sides = [
        (_on_first(joint, law, steps), -_on_first(joint.T, law, steps))
        for joint, law in zip(smoothed(counts), laws, strict=True)
    ]
    first, second = np.array(sides).T
    return first, second


def _on_first(joint: Tensor, laws: Tensor, steps: int) -> float:
    """How far first -> second is ahead when laws [M, BINS] are put on the first column.

    It keeps its rows, by (2), so its KL is that of the marginal alone.
    """
    marginal = joint.logsumexp(-1, keepdim=True)  # [BINS, 1]
    star = laws[..., None] + joint - marginal  # [M, BINS, BINS]
    start = learn(marginal.expand_as(laws[..., None]))
    ahead = population(start, laws[..., None], RATE, steps)
    behind = population(learn(joint.T.expand_as(star)), star.mT, RATE, steps)
    return float((behind - ahead).sum())


def left_over(gaps: Pair) -> Array:
    """S of (18): the sum of both gaps, [P]; 0 where they cancel but for rounding."""
    total = gaps[0] + gaps[1]
    return np.where(np.abs(total) > 1e-9 * np.abs(gaps).sum(0), total, 0)


# Other methods


def igci(columns: list[Pair]) -> Array:
    """Entropy of the first column, less that of the second, both scaled to [0, 1], [P].

    Janzing et al. (2012): where the effect is a function of the cause, its density has
    more peaks. Scores are in nats.
    """
    return np.array([entropy(_scaled(x)) - entropy(_scaled(y)) for x, y in columns])


def entropy(column: Array) -> float:
    """Differential entropy from the gaps between distinct values, in nats."""
    gaps = np.diff(np.unique(column))
    return float(np.log(gaps).mean() + digamma(len(gaps) + 1) - digamma(1))


def regression_error(columns: list[Pair]) -> Array:
    """Squared error of the first column given the second, less the reverse, [P].

    Blöbaum et al. (2018), by cubics, both columns scaled to [0, 1].
    """
    scaled = [(_scaled(x), _scaled(y)) for x, y in columns]
    return np.array([_cubic_error(y, x) - _cubic_error(x, y) for x, y in scaled])


def _cubic_error(x: Array, y: Array) -> float:
    """Mean squared error of y given x; a line where x has two values, and so on."""
    degree = min(3, len(np.unique(x)) - 1)
    return float(np.square(y - Polynomial.fit(x, y, degree)(x)).mean())


def additive_noise(columns: list[Pair], rows: int, rng: Rng) -> Array:
    """Dependence (HSIC) of cause and residual: second -> first less first -> second.

    Hoyer et al. (2009), by kernel ridge regression on standardised columns, width and
    penalty fixed.

    Args:
        columns: the pairs.
        rows: how many of each pair, at most.
        rng: which.
    """
    scores = []
    for x, y in columns:
        at = rng.permutation(len(x))[:rows]
        x, y = _standardised(x[at]), _standardised(y[at])
        scores.append(_dependence(y, x) - _dependence(x, y))
    return np.array(scores)


def _dependence(x: Array, y: Array) -> float:
    """HSIC of x and the residual of a regression of y on x."""
    from sklearn.kernel_ridge import KernelRidge

    fitted = KernelRidge(kernel="rbf", gamma=1.0, alpha=0.1).fit(x[:, None], y)
    return hsic(x, y - fitted.predict(x[:, None]))


def hsic(x: Array, y: Array) -> float:
    """Hilbert-Schmidt independence criterion (biased), Gaussian kernels, columns [n].

    The width of a kernel is the root of half the median squared distance of two rows
    that differ.
    """
    return float((_centred_kernel(x) * _centred_kernel(y)).mean())


def _centred_kernel(x: Array) -> Array:
    squares = np.square(x[:, None] - x)
    apart = squares[squares > 0]
    width = np.median(apart) if len(apart) else 1.0
    from sklearn.preprocessing import KernelCenterer

    centred: Array = KernelCenterer().fit_transform(np.exp(-squares / width))
    return centred


def _scaled(column: Array) -> Array:
    scaled: Array = (column - column.min()) / np.ptp(column)
    return scaled


def _standardised(column: Array) -> Array:
    scaled: Array = (column - column.mean()) / (column.std() or 1)
    return scaled


# The evaluation


def guess(run: Run, columns: list[Pair]) -> tuple[dict[str, Array], dict[str, float]]:
    """Scores [P] of every method, and what explains them; no truth is used.

    Returns:
        Scores by the keys of METHODS, and reasons: "rest", the median share of (18)'s
        sum in the two gaps that it is left over from; "flips", the share of signs of
        selection that other ties and marginals turn; "drifts", the share in which
        blocks agree with drift.
    """
    s: Settings = run.settings
    steps, P = s.pair_steps, len(columns)
    codes, other = (ranked(columns, run.rng(name)) for name in ("ties", "other ties"))

    def select(counts: Array, name: str) -> Pair:
        generator = run.generator(name, "cpu")
        laws = log_dirichlet((P, s.marginals, BINS), 1.0, generator)
        return under_selection(counts, laws, steps)

    gaps = select(tables(codes)[:, 0], "laws")
    again = left_over(select(tables(other)[:, 0], "other laws"))
    blocks, drift = across_blocks(tables(codes, s.blocks), steps)
    mixed = tables(codes, s.blocks, run.rng("shuffle"))
    scores = {
        "selection": left_over(gaps),
        "blocks": blocks,
        "shuffled": across_blocks(mixed, steps)[0],
        "coin": run.rng("coin").choice([-1.0, 1.0], P),
        "igci": igci(columns),
        "noise": additive_noise(columns, s.rows, run.rng("noise")),
        "regression": regression_error(columns),
        "drift": drift,
    }
    rest = np.abs(scores["selection"]) / np.abs(gaps).sum(0)
    reasons = {
        "rest": float(np.median(rest)),
        "flips": 1 - _agreement(scores["selection"], again),
        "drifts": _agreement(blocks, drift),
    }
    return scores, reasons


def _agreement(one: Array, other: Array) -> float:
    return float((np.sign(one) == np.sign(other)).mean())


def accuracy(
    right: Array, weight: Array, source: Array, resamples: int, rng: Rng
) -> Interval:
    """A weighted mean and its 95 % bootstrap interval over data sets.

    Data sets are resampled with all their pairs, since pairs of one set are much alike.

    Args:
        right: 1 for a right guess, 0 for a wrong one, 1/2 for none, [P].
        weight: [P].
        source: number of the data set, [P].
        resamples: how many.
        rng: draws them.
    """
    _, at = np.unique(source, return_inverse=True)
    total = np.bincount(at, weight)
    times = rng.multinomial(len(total), np.full(len(total), 1 / len(total)), resamples)
    means = times @ np.bincount(at, weight * right) / (times @ total)
    low, high = np.quantile(means, (0.025, 0.975)).tolist()
    return Interval(float(np.average(right, weights=weight)), low, high)


class Method(NamedTuple):
    """A method's weighted accuracy, on all pairs and on those that are not sorted."""

    right: Array  # [P]: 1, 0, or 1/2 where it does not say
    everywhere: Interval
    unsorted: Interval


class Verdict(NamedTuple):
    """What `measure_pairs` measured.

    Attributes:
        claims: ready for `run.claim_all`.
        methods: by the keys of METHODS.
        reasons: as `guess` gives them, and "by_cause" and "by_effect", how many pairs
            are sorted by either.
        pairs: how many there are.
    """

    claims: Measurements
    methods: dict[str, Method]
    reasons: dict[str, float]
    pairs: int


def measure_pairs(run: Run) -> Verdict:
    """Let every method guess the cause of real pairs, then compare with the truth.

    Claims hold "value", the weighted accuracy, with "low" and "high", its interval over
    data sets, "pairs" (all) and "judged" (without those left out); for real_drift they
    are of the difference.
    """
    pairs = load_pairs(run)
    scores, reasons = guess(run, pairs.columns)
    ordered: Array = np.array([[in_order(x), in_order(y)] for x, y in pairs.columns])
    kept: Array = ordered.sum(1) == 0

    def evaluated(right: Array, at: Array) -> Interval:
        truth = right[at], pairs.weight[at], pairs.source[at]
        return accuracy(*truth, run.settings.resamples, run.rng("resamples"))

    every: Array = np.ones_like(kept)
    right = {key: (1 + np.sign(z) * pairs.side) / 2 for key, z in scores.items()}
    methods = {
        key: Method(z, evaluated(z, every), evaluated(z, kept))
        for key, z in right.items()
    }
    intervals = {f"real_{key}": methods[key].everywhere for key in list(METHODS)[:3]}
    intervals["real_unsorted"] = methods["blocks"].unsorted
    intervals["real_drift"] = evaluated(right["blocks"] - right["drift"], every)
    claims = {
        id: {"value": mean, "low": low, "high": high}
        | {"pairs": float(len(kept)), "judged": float(len(kept))}
        for id, (mean, low, high) in intervals.items()
    }
    claims["real_unsorted"]["judged"] = float(kept.sum())
    ordered[pairs.side < 0] = ordered[pairs.side < 0, ::-1]  # causes first
    by_cause, by_effect = ordered.sum(0).tolist()
    reasons |= {"by_cause": float(by_cause), "by_effect": float(by_effect)}
    return Verdict(claims, methods, reasons, len(kept))
