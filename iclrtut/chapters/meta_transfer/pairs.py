"""The chapter's experiment on real pairs: is the column that adapts faster the cause?

Columns of all pairs lie one behind the other: pair i is rows offsets[i] to
offsets[i + 1], in the order of its file. A method sees columns and nothing else; its
scores [P] are positive where it takes the first column for the cause. Numbers in
brackets are equations of the chapter; `run` is what `iclrtut.start` returns.
"""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.polynomial import Polynomial
from scipy.special import digamma, entr
from sklearn.datasets import load_diabetes
from sklearn.kernel_ridge import KernelRidge
from torch import Tensor

from iclrtut import data as sets
from iclrtut.chapters.meta_transfer.method import (
    CHUNK,
    both,
    learn,
    log_dirichlet,
    parts,
    population,
)
from iclrtut.claims import Interval
from iclrtut.errors import BadRequest, RunFailed
from iclrtut.ledger import number
from iclrtut.run import Table

NAME = "tuebingen_pairs"
BINS = 10
RATE = 1.0  # of the population steps
LEAST = 20  # rows of a pair
ORDERED = 0.99  # share of steps that do not go back in a column that is sorted
METHODS = {
    "selection": "adaptation, one column's law selected",
    "blocks": "adaptation, blocks of rows",
    "shuffled": "adaptation, blocks of shuffled rows",
    "widths": "as the first, bins of equal width",
    "coin": "a coin",
    "igci": "entropies (IGCI)",
    "noise": "additive noise",
    "regression": "regression error",
    "drift": "marginal drift",
}
Measured = dict[str, dict[str, float]]

# Data


class Columns(NamedTuple):
    """All that a method may see: float64 columns [rows] of P pairs, offsets [P + 1]."""

    first: Any
    second: Any
    offsets: Any

    def pair(self) -> Any:
        """The pair of each row, int64 [rows]."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def place(self) -> Any:
        """The number of each row within its pair, int64 [rows]."""
        return np.arange(self.offsets[-1]) - self.offsets[self.pair()]

    def each(self) -> list[tuple[Any, Any]]:
        """The two columns of every pair."""
        cuts = self.offsets[1:-1]
        sides = np.split(self.first, cuts), np.split(self.second, cuts)
        return list(zip(*sides, strict=True))


class Pairs(NamedTuple):
    """Columns to guess from, and what only the judge may know.

    Attributes:
        columns: swapped at random.
        side: 1 where the first column is the cause, -1 where the second is, [P].
        weight: recommended weight, [P].
        source: number of the data set that it comes from, [P].
        names: of the first and the second column.
    """

    columns: Columns
    side: Any
    weight: Any
    source: Any
    names: list[tuple[str, str]]


def columns_of(pairs: Sequence[tuple[Any, Any]]) -> Columns:
    """Pairs of columns, of any lengths, as methods take them.

    Raises:
        BadRequest: none, columns of two lengths or of fewer than 20 rows, NaN or
            infinity, or a constant column.
    """
    if not pairs:
        raise BadRequest("there are no pairs: give at least one.")
    found = [tuple(np.asarray(c, dtype=np.float64) for c in pair) for pair in pairs]
    for i, (x, y) in enumerate(found):
        if x.ndim != 1 or x.shape != y.shape or len(x) < LEAST:
            raise BadRequest(
                f"pair {i} has columns of shapes {x.shape} and {y.shape}: give two of "
                f"one length, at least {LEAST}."
            )
        if not (np.isfinite(x) & np.isfinite(y)).all():
            raise BadRequest(f"pair {i} holds NaN or infinity: leave such rows out.")
        if np.ptp(x) == 0 or np.ptp(y) == 0:
            raise BadRequest(f"pair {i} has a constant column: leave the pair out.")
    offsets = np.cumsum([0, *(len(x) for x, _ in found)])
    first, second = (np.concatenate(side) for side in zip(*found, strict=True))
    return Columns(first, second, offsets)


def load_pairs(run: Any) -> Pairs:
    """The cause-effect pairs, at most `pairs` of them, columns swapped at random.

    Without the file, the columns of scikit-learn's diabetes set stand in, age as the
    cause of all others but sex (that age does not follow from them is common sense).
    """
    known = _recorded() if _there() else _diabetes()
    most = min(run.settings.pairs, len(known.side))
    kept = np.unique(np.linspace(0, len(known.side) - 1, most).round().astype(int))
    swap = run.rng("swap").random(len(kept)) < 0.5
    each = known.columns.each()
    turned = [each[i][:: -1 if s else 1] for i, s in zip(kept, swap, strict=True)]
    names = [known.names[i] for i in kept]
    return Pairs(
        columns_of(turned),
        np.where(swap, -1, 1),
        known.weight[kept],
        known.source[kept],
        [(b, a) if s else (a, b) for (a, b), s in zip(names, swap, strict=True)],
    )


def _there() -> bool:
    try:
        with warnings.catch_warnings():  # a progress bar that is not shown complains
            warnings.simplefilter("ignore")
            sets.fetch(NAME)
    except RunFailed:
        print(
            f"{NAME} is not on this machine: nine pairs of scikit-learn's diabetes "
            "set, age as the cause, stand in."
        )
        return False
    return True


def _recorded() -> Pairs:
    """The pairs of the file, causes first."""
    z = sets.load(NAME)
    names = zip(z["cause_name"].tolist(), z["effect_name"].tolist(), strict=True)
    source = np.unique(z["dataset"], return_inverse=True)[1]
    columns = Columns(z["cause"], z["effect"], z["offsets"])
    return Pairs(columns, np.ones(len(source)), z["weight"], source, list(names))


def _diabetes() -> Pairs:
    """Nine stand-ins, causes first; as they come from one set, each counts as one."""
    found = load_diabetes(scaled=False)
    effects = {
        name: column
        for name, column in zip(found.feature_names, found.data.T, strict=True)
        if name not in ("age", "sex")
    }
    effects["progression"] = found.target
    age, n = found.data[:, 0], len(effects)
    columns = columns_of([(age, column) for column in effects.values()])
    names = [("age", name) for name in effects]
    return Pairs(columns, np.ones(n), np.ones(n), np.arange(n), names)


def in_order(columns: Columns) -> Any:
    """Whether the first and the second column of a pair are sorted, bool [P, 2].

    A column counts as sorted if at most one step in a hundred goes back, up or down.
    """
    return np.array([[_sorted(x), _sorted(y)] for x, y in columns.each()])


def _sorted(column: Any) -> bool:
    step = np.diff(column)
    return bool(max((step >= 0).mean(), (step <= 0).mean()) >= ORDERED)


# Tables


def by_rank(column: Any, columns: Columns, rng: np.random.Generator) -> Any:
    """A column in BINS bins of equal counts within each pair, ties broken at random.

    Args:
        column: one of the two columns, [rows].
        columns: the pairs.
        rng: breaks ties.

    Returns:
        Bins, int64 [rows].
    """
    pair, place = columns.pair(), columns.place()
    order = np.lexsort((rng.random(len(column)), column, pair))
    rank = np.empty_like(place)
    rank[order] = place
    return rank * BINS // np.diff(columns.offsets)[pair]


def by_width(column: Any, columns: Columns) -> Any:
    """A column in BINS bins of equal width within each pair, int64 [rows]."""
    start, pair = columns.offsets[:-1], columns.pair()
    low, high = (f.reduceat(column, start) for f in (np.minimum, np.maximum))
    scaled = (column - low[pair]) / (high - low)[pair]
    return np.minimum((scaled * BINS).astype(np.int64), BINS - 1)


def ranked(columns: Columns, rng: np.random.Generator) -> tuple[Any, Any]:
    """Both columns, by rank."""
    first, second = (by_rank(column, columns, rng) for column in columns[:2])
    return first, second


def tables(columns: Columns, codes: tuple[Any, Any], part: Any, n: int) -> Any:
    """Rows in each cell of each part of each pair, int64 [P, n, BINS, BINS].

    Args:
        columns: the pairs.
        codes: bins of the first and the second column, each [rows].
        part: of each row, from 0 to n - 1, [rows].
        n: how many parts.
    """
    shape = len(columns.offsets) - 1, n, BINS, BINS
    at = np.ravel_multi_index((columns.pair(), part, *codes), shape)
    return np.bincount(at, minlength=np.prod(shape)).reshape(shape)


def parts_of(columns: Columns, n: int, rng: np.random.Generator | None = None) -> Any:
    """The part of each row: n runs of consecutive rows, [rows].

    Args:
        columns: the pairs.
        n: how many parts.
        rng: shuffles the rows of each pair first, where given.
    """
    pair, place = columns.pair(), columns.place()
    part = place * n // np.diff(columns.offsets)[pair]
    return part if rng is None else part[np.lexsort((rng.random(len(part)), pair))]


def filled(counts: Any) -> Tensor:
    """Log joints of counts [..., BINS, BINS], half a row added to each cell."""
    held = counts + 0.5
    return torch.tensor(np.log(held / held.sum((-2, -1), keepdims=True)))


# Adaptation


def curves(start: Tensor, star: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """KL of the learners first -> second and second -> first, each [steps + 1, ...].

    Args:
        start, star: log joints [..., BINS, BINS] of one shape, before and after.
        steps: population steps of rate 1.
    """
    forward, backward = both(start)
    onward = population(forward, star, RATE, steps)
    return onward, population(backward, star.mT, RATE, steps)


def lead(start: Tensor, star: Tensor, steps: int) -> Tensor:
    """How far first -> second is ahead, summed over the steps, [...], in nats."""
    forward, backward = curves(start, star, steps)
    return (backward - forward).sum(0)


def across_blocks(counts: Any, steps: int) -> tuple[Any, Any]:
    """Fit all parts but one, adapt to that one, summed over the parts.

    Args:
        counts: [P, parts, BINS, BINS].
        steps: population steps.

    Returns:
        How far first -> second is ahead, [P], and the marginal drift
        KL(first) - KL(second) of (6), [P], in nats.
    """
    start, star = filled(counts.sum(1, keepdims=True) - counts), filled(counts)
    moved = parts(start, star)
    drift = (moved.cause - moved.effect).sum(1)
    return lead(start, star, steps).sum(1).numpy(), drift.numpy()


def under_selection(counts: Any, laws: Tensor, steps: int) -> tuple[Any, Any]:
    """Put other laws on the first column, then the same on the second, (15).

    Args:
        counts: [P, BINS, BINS].
        laws: log marginals, [P, M, BINS].
        steps: population steps.

    Returns:
        How far first -> second is ahead, summed over the laws on the first column and
        over those on the second, each [P].
    """
    size = max(1, CHUNK // (laws.shape[1] * BINS * BINS))
    chunks = zip(
        torch.split(filled(counts), size), torch.split(laws, size), strict=True
    )
    found = [_selected(joint[:, None], law, steps) for joint, law in chunks]
    first, second = (torch.cat(side).numpy() for side in zip(*found, strict=True))
    return first, second


def left_over(gaps: tuple[Any, Any]) -> Any:
    """S of (15): the sum of both gaps, [P]; 0 where they cancel but for rounding."""
    total = gaps[0] + gaps[1]
    return np.where(np.abs(total) > 1e-9 * np.abs(gaps).sum(0), total, 0)


def _selected(joint: Tensor, law: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """The same for joints [P, 1, BINS, BINS] and laws [P, M, BINS]."""
    return _by_side(joint, law, steps), -_by_side(joint.mT, law, steps)


def _by_side(joint: Tensor, law: Tensor, steps: int) -> Tensor:
    """How far first -> second is ahead when the first column has another law, [P].

    It keeps its rows, by (2), so its KL is that of the marginal alone.
    """
    marginal = joint.logsumexp(-1, keepdim=True)  # [P, 1, BINS, 1]
    star = law[..., None] + joint - marginal  # [P, M, BINS, BINS]
    ahead = population(
        learn(marginal.expand_as(law[..., None])), law[..., None], RATE, steps
    )
    behind = population(learn(joint.mT.expand_as(star)), star.mT, RATE, steps)
    return (behind - ahead).sum((0, 2))


# Other methods


def igci(columns: Columns) -> Any:
    """Entropy of the first column, less that of the second, both scaled to [0, 1], [P].

    Janzing et al. (2012): where the effect is a function of the cause, its density has
    more peaks. Scores are in nats.
    """
    pairs = columns.each()
    return np.array([entropy(_scaled(x)) - entropy(_scaled(y)) for x, y in pairs])


def entropy(column: Any) -> float:
    """Differential entropy from the gaps between distinct values, in nats."""
    gaps = np.diff(np.unique(column))
    return float(np.log(gaps).mean() + digamma(len(gaps) + 1) - digamma(1))


def regression_error(columns: Columns) -> Any:
    """Squared error of the first column given the second, less the reverse, [P].

    Blöbaum et al. (2018), by cubics, both columns scaled to [0, 1].
    """
    scaled = [(_scaled(x), _scaled(y)) for x, y in columns.each()]
    return np.array([_cubic_error(y, x) - _cubic_error(x, y) for x, y in scaled])


def _cubic_error(x: Any, y: Any) -> float:
    """Mean squared error of y given x; a line where x has two values, and so on."""
    degree = min(3, len(np.unique(x)) - 1)
    return float(np.square(y - Polynomial.fit(x, y, degree)(x)).mean())


def additive_noise(columns: Columns, rows: int, rng: np.random.Generator) -> Any:
    """Dependence (HSIC) of cause and residual: second -> first less first -> second.

    Hoyer et al. (2009), by kernel ridge regression on standardised columns, width and
    penalty fixed.

    Args:
        columns: the pairs.
        rows: how many of each pair, at most.
        rng: which.
    """
    scores = []
    for x, y in columns.each():
        at = rng.permutation(len(x))[:rows]
        x, y = _standardised(x[at]), _standardised(y[at])
        scores.append(_dependence(y, x) - _dependence(x, y))
    return np.array(scores)


def _dependence(x: Any, y: Any) -> float:
    fitted = KernelRidge(kernel="rbf", gamma=1.0, alpha=0.1).fit(x[:, None], y)
    return hsic(x, y - fitted.predict(x[:, None]))


def hsic(x: Any, y: Any) -> float:
    """Hilbert-Schmidt independence criterion (biased), Gaussian kernels, columns [n].

    The width of a kernel is the root of half the median squared distance of two rows
    that differ.
    """
    return float((_centred_kernel(x) * _centred_kernel(y)).mean())


def _centred_kernel(x: Any) -> Any:
    squares = np.square(x[:, None] - x)
    apart = squares[squares > 0]
    kernel = (
        np.exp(-squares / np.median(apart)) if len(apart) else np.ones_like(squares)
    )
    mean = kernel.mean(0)
    return kernel - mean - mean[:, None] + mean.mean()


def _scaled(column: Any) -> Any:
    return (column - column.min()) / np.ptp(column)


def _standardised(column: Any) -> Any:
    return (column - column.mean()) / (column.std() or 1)


# The verdict


def guess(run: Any, columns: Columns) -> tuple[dict[str, Any], dict[str, float]]:
    """Scores [P] of every method, and what explains them; no truth is used.

    Returns:
        Scores by the keys of METHODS, and reasons: "rest", the median share of (15)'s
        sum in the two gaps that it is left over from; "flips", the share of signs of
        selection that other ties and marginals turn; "entropies", the share of pairs
        in which bins of equal width put ahead the column of lower entropy; "drifts",
        the share in which blocks agree with drift.
    """
    s, steps, P = run.settings, run.settings.pair_steps, len(columns.offsets) - 1
    codes, whole = ranked(columns, run.rng("ties")), parts_of(columns, 1)
    consecutive = parts_of(columns, s.blocks)
    mixed = parts_of(columns, s.blocks, run.rng("shuffle"))
    blocks, drift = across_blocks(tables(columns, codes, consecutive, s.blocks), steps)
    shuffled, _ = across_blocks(tables(columns, codes, mixed, s.blocks), steps)
    broad = by_width(columns.first, columns), by_width(columns.second, columns)
    uneven = tables(columns, broad, whole, 1)[:, 0]

    def select(counts: Any, name: str) -> tuple[Any, Any]:
        generator = run.generator(name, "cpu")
        laws = log_dirichlet((P, s.marginals, BINS), 1.0, generator)
        return under_selection(counts, laws, steps)

    gaps = select(tables(columns, codes, whole, 1)[:, 0], "laws")
    other = ranked(columns, run.rng("other ties"))
    again = select(tables(columns, other, whole, 1)[:, 0], "other laws")
    scores = {
        "selection": left_over(gaps),
        "blocks": blocks,
        "shuffled": shuffled,
        "widths": left_over(select(uneven, "laws")),
        "coin": run.rng("coin").choice([-1.0, 1.0], P),
        "igci": igci(columns),
        "noise": additive_noise(columns, s.rows, run.rng("noise")),
        "regression": regression_error(columns),
        "drift": drift,
    }
    reasons = {
        "rest": float(np.median(np.abs(left_over(gaps)) / np.abs(gaps).sum(0))),
        "flips": 1 - _agreement(left_over(gaps), left_over(again)),
        "entropies": _agreement(scores["widths"], _less_even(uneven)),
        "drifts": _agreement(blocks, drift),
    }
    return scores, reasons


def _agreement(one: Any, other: Any) -> float:
    return float((np.sign(one) == np.sign(other)).mean())


def _less_even(counts: Any) -> Any:
    """Entropy of the second binned column less that of the first, [P], in nats."""
    joint = counts / counts.sum((1, 2), keepdims=True)
    return entr(joint.sum(1)).sum(1) - entr(joint.sum(2)).sum(1)


def accuracy(
    right: Any, weight: Any, source: Any, resamples: int, rng: np.random.Generator
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
    drawn = rng.multinomial(len(total), np.full(len(total), 1 / len(total)), resamples)
    means = drawn @ np.bincount(at, weight * right) / (drawn @ total)
    low, high = np.quantile(means, (0.025, 0.975)).tolist()
    return Interval(float(np.average(right, weights=weight)), low, high)


class Method(NamedTuple):
    """A method's weighted accuracy, on all pairs and on those that are not sorted."""

    right: Any  # [P]: 1, 0, or 1/2 where it does not say
    everywhere: Interval
    unsorted: Interval


class Example(NamedTuple):
    """The first pair, and how both learners adapt from block to block.

    Attributes:
        cause, effect: columns [n].
        names: of the two.
        causal, anticausal: KL of the learner cause -> effect and of the other, the
            mean over the blocks, [steps + 1], in nats.
    """

    cause: Any
    effect: Any
    names: tuple[str, str]
    causal: Any
    anticausal: Any


class Verdict(NamedTuple):
    """What `measure_pairs` found.

    Attributes:
        claims: id -> numbers, for `run.claim`.
        methods: by the keys of METHODS.
        reasons: as `guess` gives them, and "by_cause" and "by_effect", how many pairs
            are sorted by either.
        pairs: how many there are; 99 where the real ones were there.
        example: to draw.
    """

    claims: Measured
    methods: dict[str, Method]
    reasons: dict[str, float]
    pairs: int
    example: Example

    def table(self) -> Table:
        """Weighted accuracy of every method, with and without the sorted pairs."""
        head = ["method", f"all {self.pairs} pairs", "95 %", "without sorted", "95 %"]
        rows = [
            [METHODS[key], *_told(method.everywhere), *_told(method.unsorted)]
            for key, method in self.methods.items()
        ]
        return Table(head, rows)


def _told(found: Interval) -> list[str]:
    return [number(found.mean), f"{number(found.low)} to {number(found.high)}"]


def measure_pairs(run: Any) -> Verdict:
    """Let every method guess the cause of real pairs, then judge them.

    Claims hold "value" (the lower end), "accuracy", "low", "high", "pairs" (all) and
    "judged" (without those left out); for pairs_drift they are of the difference.
    """
    pairs = load_pairs(run)
    scores, reasons = guess(run, pairs.columns)
    ordered = in_order(pairs.columns)
    kept = ~ordered.any(1)

    def judge(right: Any, at: Any) -> Interval:
        known = right[at], pairs.weight[at], pairs.source[at]
        return accuracy(*known, run.settings.resamples, run.rng("resamples"))

    every = np.ones_like(kept)
    right = {key: (1 + np.sign(z) * pairs.side) / 2 for key, z in scores.items()}
    methods = {
        key: Method(z, judge(z, every), judge(z, kept)) for key, z in right.items()
    }
    found = {f"pairs_{key}": methods[key].everywhere for key in list(METHODS)[:3]}
    found["pairs_unsorted"] = methods["blocks"].unsorted
    found["pairs_drift"] = judge(right["blocks"] - right["drift"], every)
    counts = {"pairs": float(len(kept)), "judged": float(len(kept))}
    claims = {id: _claimed(interval) | counts for id, interval in found.items()}
    claims["pairs_unsorted"]["judged"] = float(kept.sum())
    cause = np.where(pairs.side > 0, 0, 1)
    by = np.take_along_axis(ordered, np.stack([cause, 1 - cause], 1), 1).sum(0)
    reasons |= {"by_cause": float(by[0]), "by_effect": float(by[1])}
    return Verdict(claims, methods, reasons, len(kept), _example(run, pairs))


def _claimed(found: Interval) -> dict[str, float]:
    numbers = {"accuracy": found.mean, "low": found.low, "high": found.high}
    return {"value": found.low, **numbers}


def _example(run: Any, pairs: Pairs) -> Example:
    turn = int(pairs.side[0])
    (x, y), (cause, effect) = pairs.columns.each()[0][::turn], pairs.names[0][::turn]
    columns, n = columns_of([(x, y)]), run.settings.blocks
    codes = ranked(columns, run.rng("ties of the example"))
    counts = tables(columns, codes, parts_of(columns, n), n)[0]
    start, star = filled(counts.sum(0) - counts), filled(counts)
    both_ways = curves(start, star, run.settings.pair_steps)
    causal, anticausal = (z.mean(1).numpy() for z in both_ways)
    return Example(x, y, (cause, effect), causal, anticausal)
