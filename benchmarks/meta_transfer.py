"""How fast hundreds of runs adapt at once: against one run at a time, and arithmetic.

An episode: both learners of (4) start from the exact joint of their run and take SGD
steps on batches, which gives Delta. By size it is 256 runs of N = 10, two steps on ten
examples, rate 0.1, float64, one thread; eight episodes go into one call, as in
`discover`, and the tables of growth show one episode a call beside it. Three routes get
the same draws and give the same log-likelihoods: the chapter's `deltas`; the equations
as a careful reader writes them, an autograd loop of one run at a time; and the same
loop in NumPy with the gradient by hand, softmax minus one-hot. Neither loop takes the
gradient after its last likelihood, which nothing would use. All runs of all loops are
timed, none is scaled, and all routes are timed in turn.

The arithmetic alone is the operations of `operations`, where an exponential, a
logarithm, a product and a sum count one each: as one matrix product, and as one
elementwise product of two vectors; below them the exponentials by themselves.
Memory is how far the process grows during the call, in a process of its own; beside it
stand the logits of both learners. Writes records/meta_transfer/bench-cpu.json.

    python benchmarks/meta_transfer.py
"""

import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple

import _benchmark
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from iclrtut.chapters.meta_transfer.method import (
    World,
    both,
    change,
    deltas,
    discover,
    draw,
    log_likelihoods,
    sample,
)
from iclrtut.timing import alternate, seconds

RATE, ROUNDS = 0.1, 5
# What glibc has to be told to give freed memory back, so that a peak is seen.
RETURNED = "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"
TRANSCRIPTION = "transcription, autograd, a run at a time"
BY_HAND = "the same in NumPy, gradient by hand"
Array = NDArray[np.float64]


class Size(NamedTuple):
    """Of one call."""

    runs: int = 256
    N: int = 10
    steps: int = 2
    batch: int = 10
    episodes: int = 8


class Call(NamedTuple):
    """A call's joint and its batches, after the cause changed; [E, R, T, M]."""

    log_joint: Tensor
    a: Tensor
    b: Tensor


def prepared(size: Size) -> Call:
    """Worlds, changed once, and the draws of all episodes."""
    g = torch.Generator().manual_seed(0)
    world = draw(size.runs, size.N, g)
    star = change(world, "cause", g)
    star = World(*(part.expand(size.episodes, *part.shape) for part in star))
    return Call(world.log_joint(), *sample(star, size.steps, size.batch, g))


def module(call: Call) -> Tensor:
    """Delta by the chapter's module, [E, R]."""
    return deltas(*call, RATE)


def separate(call: Call) -> Tensor:
    """Its log-likelihoods, [2, E, R, T]."""
    forward, backward = both(call.log_joint)
    return torch.stack(
        [
            log_likelihoods(forward, call.a, call.b, RATE),
            log_likelihoods(backward, call.b, call.a, RATE),
        ]
    )


# One run at a time


def adapted(marginal: Tensor, rows: Tensor, x: Tensor, y: Tensor) -> list[float]:
    """(4) of one learner: the log-likelihood of each batch before the step on it."""
    marginal = marginal.clone().requires_grad_()
    rows = rows.clone().requires_grad_()
    results = []
    for t in range(len(x)):
        nll = F.cross_entropy(marginal.expand(len(x[t]), -1), x[t], reduction="sum")
        nll = nll + F.cross_entropy(rows[x[t]], y[t], reduction="sum")
        results.append(-nll.item())
        if t + 1 < len(x):
            slopes = torch.autograd.grad(nll / len(x[t]), (marginal, rows))
            with torch.no_grad():
                marginal -= RATE * slopes[0]
                rows -= RATE * slopes[1]
    return results


def transcription(call: Call) -> Tensor:
    """Log-likelihoods of both learners, [2, E, R, T]: run by run."""
    E, R, T, _ = call.a.shape
    results = torch.empty(2, E, R, T, dtype=torch.float64)
    for r, log_joint in enumerate(call.log_joint):
        for i, (log_p, x, y) in enumerate(
            [(log_joint, call.a, call.b), (log_joint.T, call.b, call.a)]
        ):
            marginal = log_p.logsumexp(1)
            rows = log_p - marginal[:, None]
            for e in range(E):
                results[i, e, r] = torch.tensor(
                    adapted(marginal, rows, x[e, r], y[e, r]), dtype=torch.float64
                )
    return results


def stepped(marginal: Array, rows: Array, x: Array, y: Array) -> list[float]:
    """The same in NumPy: softmax minus one-hot."""
    marginal, rows, results, each = (
        marginal.copy(),
        rows.copy(),
        [],
        np.arange(x.shape[1]),
    )
    for t in range(len(x)):
        a, b, M = x[t], y[t], x.shape[1]
        p, q = np.exp(marginal), np.exp(rows[a])
        p_sum, q_sum = p.sum(), q.sum(1)
        picked = marginal[a].sum() + rows[a, b].sum()
        results.append(picked - M * np.log(p_sum) - np.log(q_sum).sum())
        if t + 1 < len(x):
            p *= -M / p_sum
            np.add.at(p, a, 1)
            q /= -q_sum[:, None]
            q[each, b] += 1
            marginal += RATE / M * p
            np.add.at(rows, a, RATE / M * q)
    return results


def by_hand(call: Call) -> Tensor:
    """Log-likelihoods of both learners, [2, E, R, T]: run by run, NumPy."""
    log_joint, a, b = (v.numpy() for v in call)
    E, R, T, _ = a.shape
    results = np.empty((2, E, R, T))
    for r in range(R):
        for i, (log_p, x, y) in enumerate(
            [(log_joint[r], a, b), (log_joint[r].T, b, a)]
        ):
            marginal = np.log(np.exp(log_p).sum(1))
            rows = log_p - marginal[:, None]
            for e in range(E):
                results[i, e, r] = stepped(marginal, rows, x[e, r], y[e, r])
    return torch.from_numpy(results)


def agree(size: Size) -> float:
    """The largest difference between two routes' log-likelihoods; at most 1e-12."""
    call = prepared(size)
    results = separate(call)
    worst = max(
        (results - other(call)).abs().max().item() for other in (transcription, by_hand)
    )
    ahead = results.sum(-1)
    apart = (module(call) - (ahead[0] - ahead[1])).abs().max().item()
    assert max(worst, apart) <= 1e-12, f"{size}: the routes differ by {worst:.1e}"
    return worst


# Arithmetic


def exponentials(size: Size) -> int:
    """Of one episode: N for the marginal and for each example's row, each step."""
    return 2 * size.runs * size.steps * (size.batch + 1) * size.N


def operations(size: Size) -> int:
    """Of one episode, both learners of every run.

    A distribution costs N exponentials, N - 1 sums and a logarithm, and each example
    two differences and two sums for its log-likelihood. A step scales and subtracts
    the N probabilities of each distribution and adds two one-hots an example. There is
    one step less than there are likelihoods.
    """
    N, M, T = size.N, size.batch, size.steps
    likelihood = (M + 1) * 2 * N + 4 * M
    step = (M + 1) * 2 * N + 2 * M
    return 2 * size.runs * (T * likelihood + (T - 1) * step)


def alone(size: Size) -> dict[str, Callable[[], object]]:
    """The arithmetic of all episodes of one call, as single passes."""
    count = size.episodes * operations(size)
    side = round((count / 2) ** (1 / 3))  # 2 n^3 operations
    square = torch.rand(side, side, dtype=torch.float64)
    vector = torch.rand(count, dtype=torch.float64)
    few = torch.rand(size.episodes * exponentials(size), dtype=torch.float64)
    kept = torch.empty_like(square), torch.empty_like(vector), torch.empty_like(few)
    return {
        "its operations as one matrix product": lambda: torch.mm(
            square, square, out=kept[0]
        ),
        "its operations as one elementwise product": lambda: torch.mul(
            vector, vector, out=kept[1]
        ),
        "its exponentials alone": lambda: torch.exp(few, out=kept[2]),
    }


# Tables


def memory(size: Size) -> float:
    """MiB that a call takes at its peak, in a fresh process."""
    words = [sys.executable, __file__, "--memory", *map(str, size)]
    environment = os.environ | {name: "65536" for name in RETURNED}
    done = subprocess.run(
        words, check=True, capture_output=True, text=True, env=environment
    )
    return float(done.stdout)


def grown(size: Size) -> float:
    """MiB by which a call raises this process's memory, sampled all the while."""
    torch.set_num_threads(1)
    module(prepared(Size(runs=1, episodes=1)))  # what the first call of all loads
    call = prepared(size)
    return _benchmark.grown(lambda: module(call))


def logits(size: Size) -> float:
    """KiB of both learners of one run: 2 (N + N^2) numbers of eight bytes."""
    return 2 * (size.N + size.N**2) * 8 / 2**10


def middle(over: list[float], under: list[float]) -> float:
    """The median of the ratios, round by round."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def routes(size: Size) -> dict[str, dict[str, float]]:
    """All routes at one size."""
    peak = memory(size)
    call = prepared(size)
    calls: dict[str, Callable[[], object]] = {
        "the chapter's deltas": lambda: module(call),
        TRANSCRIPTION: lambda: transcription(call),
        BY_HAND: lambda: by_hand(call),
        **alone(size),
    }
    times = alternate(calls, ROUNDS)
    rows = {
        name: {
            "ms_an_episode": 1000 * statistics.median(spent) / size.episodes,
            "over_transcription": middle(times[TRANSCRIPTION], spent),
            "over_NumPy": middle(times[BY_HAND], spent),
        }
        for name, spent in times.items()
    }
    rows["the chapter's deltas"]["peak_MiB"] = peak
    return rows


def growth(sizes: dict[str, Size]) -> dict[str, dict[str, float]]:
    """One table: how time and memory grow. The loops run one episode."""
    rows = {}
    for name, size in sizes.items():
        many, one = prepared(size), prepared(size._replace(episodes=1))
        times = alternate(
            {
                "many": lambda many=many: module(many),
                "one": lambda one=one: module(one),
                "loop": lambda one=one: transcription(one),
                "hand": lambda one=one: by_hand(one),
            },
            ROUNDS,
        )
        each = [spent / size.episodes for spent in times["many"]]
        peak = memory(size)
        rows[name] = {
            "ms_an_episode": 1000 * statistics.median(each),
            "us_a_run": 1e6 * statistics.median(each) / size.runs,
            "over_transcription": middle(times["loop"], each),
            "over_NumPy": middle(times["hand"], each),
            "one_episode_a_call": middle(times["loop"], times["one"]),
            "peak_MiB": peak,
            "peak_KiB_a_run": 1024 * peak / size.runs,
            "logits_KiB_a_run": logits(size),
        }
    return rows


def paths() -> dict[str, dict[str, float]]:
    """The whole of `discover`: draws, Delta and gamma, 500 episodes."""
    rows = {}
    for N, runs in ((10, 256), (100, 64)):
        g = torch.Generator().manual_seed(0)
        world = draw(runs, N, g)
        spent = seconds(lambda world=world, g=g: discover(world, g))
        rows[f"{runs} runs, N = {N}"] = {
            "seconds": spent,
            "us_a_run_and_episode": 1e6 * spent / runs / 500,
        }
    return rows


RUNS = {str(n): Size(runs=n) for n in (1, 4, 16, 64, 256, 1024)}
CATEGORIES = {str(n): Size(N=n) for n in (5, 10, 20, 50, 100)}
STEPS = {str(n): Size(steps=n) for n in (1, 2, 5, 10, 20)}


def main() -> None:
    """Measure, print the tables, write the record."""
    torch.set_num_threads(1)
    size = Size()
    checked = [size, *CATEGORIES.values(), *STEPS.values()]
    worst = max(agree(each._replace(episodes=2)) for each in checked)
    tables = {
        "route, 256 runs": routes(size),
        "runs": growth(RUNS),
        "N": growth(CATEGORIES),
        "steps": growth(STEPS),
        "gamma, 500 episodes": paths(),
    }
    ratio = tables["route, 256 runs"]["the chapter's deltas"]["over_transcription"]
    print(f"the routes agree to {worst:.1e}; {ratio:.0f} times the transcription")
    _benchmark.record(
        "meta_transfer",
        "cpu",
        tables,
        numpy=np.__version__,
        **size._asdict(),
        rate=RATE,
        dtype="float64",
        **{"operations an episode": operations(size)},
        **{"largest difference": worst},
    )


if __name__ == "__main__":
    if "--memory" in sys.argv:
        print(grown(Size(*map(int, sys.argv[2:]))))
    else:
        main()
