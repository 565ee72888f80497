"""How fast beliefs over graphs are: all graphs at once, a loop, and a network.

A sequence has 20 steps with an intervention each; after each step every acyclic graph
gets its posterior probability, (6), (8) and (9). Three routes get the same sequences,
in float64 and on one thread: the chapter's `log_posterior`, on as many sequences as fit
the processor's cache; the equations as written, a loop over steps, graphs and nodes,
with two determinants for each node of each graph; and the same loop with each node's
scores kept for the graphs that share a set of parents, as a careful reader would write
it next. They agree to 1e-10. No route is scaled: each is timed on as many sequences as
it is given, the loops on few.

Beside them stand forward passes of the chapter's network in float32, with a read-out
over all graphs and with one over edges. Its weights are random: time does not depend on
them. Memory is how far the process grows during the call, in a process of its own.
Writes records/causal_induction/bench-cpu.json.

    python benchmarks/causal_induction.py
"""

import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import _benchmark
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iclrtut.chapters.causal_induction.method import (
    Belief,
    Episodes,
    dags,
    families,
    features,
    interventions,
    log_posterior,
    parent_sets,
    sample,
)
from iclrtut.timing import alternate

STEPS, ROUNDS, TAU = 20, 5, 2.0
# What glibc has to be told to give freed memory back, so that a peak is seen.
RETURNED = "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"
Array = NDArray[np.float64]


class Size(NamedTuple):
    """Of the calls at one number of nodes: how many sequences each route gets."""

    n: int
    many: int  # of the package
    looped: int  # of the loop over graphs and nodes
    kept: int  # of the loop that keeps scores


SIZES = [Size(3, 400, 8, 16), Size(4, 64, 1, 4), Size(5, 2, 0, 1)]


def drawn(n: int, B: int) -> Episodes:
    """Sequences of the prior."""
    return sample(B, n, STEPS, torch.Generator().manual_seed(0))


# The equations in loops


def score(R: Array, m: float, i: int, P: Array, n: int) -> float:
    """(6) of node i with parents P, with alpha = n + 2; R holds tau I already."""
    a, p = (len(P) + 3) / 2, len(P)
    both = np.append(P, i)
    return float(
        -m / 2 * math.log(math.pi)
        + math.lgamma(a + m / 2)
        - math.lgamma(a)
        + (a + p / 2) * math.log(TAU)
        - (a + m / 2) * np.linalg.slogdet(R[np.ix_(both, both)])[1]
        + (a + m / 2 - 0.5) * np.linalg.slogdet(R[np.ix_(P, P)])[1]
    )


def normalised(scores: Array) -> Array:
    """Logs of probabilities that add up to one."""
    top = scores.max()
    return scores - top - np.log(np.exp(scores - top).sum())


def looped(data: Episodes, keep: bool) -> Tensor:
    """log p(graph | data) after each step, [B, T, graphs].

    Args:
        data: sequences.
        keep: whether a node's score is computed once for each set of parents.
    """
    n = data.values.shape[-1]
    members, numbers = dags(n).numpy(), families(n).numpy()
    parents = [[np.flatnonzero(A[:, i]) for i in range(n)] for A in members]
    sets = [[np.flatnonzero(P) for P in each] for each in parent_sets(n).numpy()]
    results = []
    for values, targets in zip(data.values.numpy(), data.targets.tolist(), strict=True):
        R, m = np.tile(TAU * np.eye(n), (n, 1, 1)), np.zeros(n)
        for x, target in zip(values, targets, strict=True):
            free = np.arange(n) != target
            R[free] += np.outer(x, x)
            m[free] += 1
            if keep:
                table = np.array(
                    [[score(R[i], m[i], i, P, n) for P in sets[i]] for i in range(n)]
                )
                total = table[np.arange(n), numbers].sum(1)
            else:
                total = np.array(
                    [
                        sum(score(R[i], m[i], i, P, n) for i, P in enumerate(each))
                        for each in parents
                    ]
                )
            results.append(normalised(total))
    return torch.from_numpy(np.array(results)).view(len(data.values), STEPS, -1)


def agree(size: Size) -> float:
    """The largest difference between two routes; at most 1e-10."""
    data = drawn(size.n, max(1, size.looped))
    exact = log_posterior(data.values, data.targets)
    routes = [looped(data, keep=True)]
    if size.looped:
        routes.append(looped(data, keep=False))
    worst = max((exact - other).abs().max().item() for other in routes)
    assert worst <= 1e-10, f"{size}: the routes differ by {worst:.1e}"
    return worst


# Tables


def grown(n: int, B: int) -> float:
    """MiB by which a call raises this process's memory, sampled all the while."""
    torch.set_num_threads(1)
    small = drawn(n, 1)
    log_posterior(small.values, small.targets)  # what the first call of all loads
    data = drawn(n, B)
    return _benchmark.grown(lambda: log_posterior(data.values, data.targets))


def memory(n: int, B: int) -> float:
    """MiB that a call takes at its peak, in a fresh process."""
    words = [sys.executable, __file__, "--memory", str(n), str(B)]
    environment = os.environ | {name: "65536" for name in RETURNED}
    done = subprocess.run(
        words, check=True, capture_output=True, text=True, env=environment
    )
    return float(done.stdout)


def posteriors(size: Size) -> dict[str, dict[str, float]]:
    """All routes at one number of nodes."""
    peak = memory(size.n, size.many)
    data = drawn(size.n, size.many)
    calls: dict[str, Callable[[], object]] = {
        "package": partial(log_posterior, data.values, data.targets)
    }
    counts = {"package": size.many}
    for name, count, keep in (
        ("loop over graphs and nodes", size.looped, False),
        ("the same, scores kept", size.kept, True),
    ):
        if count:
            few = Episodes(*(part[:count] for part in drawn(size.n, count)))
            calls[name] = partial(looped, few, keep)
            counts[name] = count
    times = alternate(calls, ROUNDS)
    each = {name: [s / counts[name] for s in spent] for name, spent in times.items()}
    rows = {
        f"n = {size.n}, {name}": {
            "ms_a_sequence": 1000 * statistics.median(spent),
            "package_is_faster": statistics.median(
                a / b for a, b in zip(spent, each["package"], strict=True)
            ),
        }
        for name, spent in each.items()
    }
    rows[f"n = {size.n}, package"]["peak_MiB"] = peak
    return rows


def steps_of(n: int, B: int) -> Tensor:
    """What the network sees of sequences, [B, T, 3 n]; of no particular graph."""
    g = torch.Generator().manual_seed(0)
    targets, _ = interventions(B, n, STEPS, g)
    return features(torch.randn(B, STEPS, n, generator=g).double(), targets)


def amortised() -> dict[str, dict[str, float]]:
    """The exact answer against forward passes of the network, by nodes."""
    rows = {}
    for n in (3, 4, 5, 8, 11):
        counts = {"edges": 64}
        calls: dict[str, Callable[[], object]] = {
            "edges": partial(Belief(3 * n, n * (n - 1), 0), steps_of(n, 64))
        }
        if n <= 5:
            exact, wide = next(size.many for size in SIZES if size.n == n), 64
            if n == 5:
                wide = 8
            counts |= {"exact": exact, "graphs": wide}
            data = drawn(n, exact)
            net = Belief(3 * n, len(dags(n)), 0)
            calls["graphs"] = partial(net, steps_of(n, wide))
            calls["exact"] = partial(log_posterior, data.values, data.targets)
        with torch.no_grad():
            times = alternate(calls, ROUNDS)
        ms = {
            name: 1000 * statistics.median(spent) / counts[name]
            for name, spent in times.items()
        }
        row = {"edgewise_network_ms": ms["edges"]}
        if n <= 5:
            row |= {"softmax_network_ms": ms["graphs"], "exact_ms": ms["exact"]}
            row["graphs"] = len(dags(n))
            row["exact_over_softmax"] = ms["exact"] / ms["graphs"]
            row["exact_over_edgewise"] = ms["exact"] / ms["edges"]
        rows[f"n = {n}"] = row
    return rows


def main() -> None:
    """Measure, print the tables, write the record."""
    torch.set_num_threads(1)
    worst = max(map(agree, SIZES))
    rows: dict[str, dict[str, float]] = {}
    for size in SIZES:
        rows |= posteriors(size)
    tables = {
        "posteriors after each of 20 steps": rows,
        "a network's forward pass": amortised(),
    }
    print(f"the routes agree to {worst:.1e}")
    _benchmark.record(
        "causal_induction",
        "cpu",
        tables,
        numpy=np.__version__,
        steps=STEPS,
        dtype="float64, the network float32",
        **{f"sequences, n = {size.n}": size.many for size in SIZES},
        **{"largest difference": worst},
    )


if __name__ == "__main__":
    if "--memory" in sys.argv:
        print(grown(int(sys.argv[2]), int(sys.argv[3])))
    else:
        main()
