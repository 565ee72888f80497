"""How fast the certificates are: against a loop over points, and against one tensor.

Both certificates of the chapter, (10) and (12), for centres already whitened. The loop
takes one point at a time, as the paper's code does; `one tensor` forms all differences
[N, K, D]. The two are timed on the first points only and scaled, as the table says, and
all routes are timed in turn, so that a busy machine slows all alike. Memory is how
far the process grows during the call, in a process of its own. Writes
records/provable_uncertainty/bench-<device>.json.

    python benchmarks/provable_uncertainty.py
"""

import statistics
import subprocess
import sys

import _benchmark
import torch
from torch import Tensor

from iclrtut import timing
from iclrtut.chapters.provable_uncertainty.method import Mixture, log_bound

POINTS, COMPONENTS, PIXELS, ROUNDS = 10_000, 100, 3072, 5
SOME, FEW = 500, 100  # points for the loop, and for one tensor
R = 2.0
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def made(points: int, components: int, pixels: int) -> tuple[Tensor, Mixture, Mixture]:
    """Whitened points and two mixtures, float64."""
    g = torch.Generator(DEVICE).manual_seed(0)
    real = {"generator": g, "device": DEVICE, "dtype": torch.float64}
    z = torch.randn(points, pixels, **real)
    means = [torch.randn(components, pixels, **real) for _ in range(2)]
    sigma = torch.rand(components, **real) + 0.5
    inside, outside = Mixture(means[0], sigma), Mixture(means[1], 2 * sigma)
    return z, inside.to(DEVICE), outside.to(DEVICE)


def ratio(near: Tensor, far: Tensor, inside: Mixture, outside: Mixture) -> Tensor:
    """(10) from the distances to both kinds of means."""
    up = (near - R).clamp_min(0).square() / (2 * inside.sigma**2)
    down = (far + R).square() / (2 * outside.sigma**2)
    top = torch.logsumexp(inside.heights() - up, -1)
    return top - torch.logsumexp(outside.heights() - down, -1)


@torch.no_grad()
def loop(z: Tensor, inside: Mixture, outside: Mixture) -> Tensor:
    """(10), a point at a time."""
    return torch.stack(
        [
            ratio(
                *((p - m.means).norm(dim=1) for m in (inside, outside)), inside, outside
            )
            for p in z
        ]
    )


@torch.no_grad()
def tensor(z: Tensor, inside: Mixture, outside: Mixture) -> Tensor:
    """(10), all differences at once: [N, K, D]."""
    near, far = (
        (z[:, None] - m.means).square().sum(2).sqrt() for m in (inside, outside)
    )
    return ratio(near, far, inside, outside)


FULL = (POINTS, COMPONENTS, PIXELS)


def memory(tight: bool, sizes: tuple[int, int, int] = FULL) -> float:
    """MiB above points and mixtures, at the peak; on a CPU in a fresh process."""
    if DEVICE.type == "cuda":
        z, *pair = made(*sizes)
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        log_bound(z, R, *pair, tight=tight)
        return (torch.cuda.max_memory_allocated() - held) / 2**20
    words = [sys.executable, __file__, "--memory", str(int(tight)), *map(str, sizes)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return float(done.stdout)


def grown(tight: bool, *sizes: int) -> float:
    """MiB by which a call raises this process's memory, sampled all the while."""
    torch.set_num_threads(1)
    z, *pair = made(*sizes)
    return _benchmark.grown(lambda: log_bound(z, R, *pair, tight=tight))


def routes() -> dict[str, dict[str, float]]:
    """Times for all points, and how many times that of (10)."""
    # Memory first: a new process starts from the peak of the one that starts it.
    peaks = [memory(tight) for tight in (False, True)]
    z, *pair = made(POINTS, COMPONENTS, PIXELS)
    some, few = z[:SOME], z[:FEW]
    near = [log_bound(few, R, *pair), loop(few, *pair), tensor(few, *pair)]
    assert all(torch.allclose(near[0], other, atol=1e-6) for other in near[1:])
    times = timing.alternate(
        {
            "(10)": lambda: log_bound(z, R, *pair),
            "(12)": lambda: log_bound(z, R, *pair, tight=True),
            "loop": lambda: loop(some, *pair),
            "tensor": lambda: tensor(few, *pair),
        },
        ROUNDS,
    )
    names = {
        "(10)": ("equation (10)", POINTS),
        "(12)": ("equation (12)", POINTS),
        "loop": (f"(10), loop over points, scaled from {SOME}", SOME),
        "tensor": (f"(10), one [N, K, D] tensor, scaled from {FEW}", FEW),
    }
    found = {}
    for key, (name, count) in names.items():
        scale = POINTS / count
        pairs = zip(times[key], times["(10)"], strict=True)
        found[name] = {
            "seconds": statistics.median(times[key]) * scale,
            "times_(10)": statistics.median(a * scale / b for a, b in pairs),
        }
    found["equation (10)"]["peak_MiB"], found["equation (12)"]["peak_MiB"] = peaks
    whole = POINTS * COMPONENTS * PIXELS * z.element_size() / 2**20
    found[names["tensor"][0]]["peak_MiB"] = whole  # of that tensor alone
    return found


def growth() -> dict[str, dict[str, float]]:
    """How times and memory grow when each size in turn doubles to its full value."""
    names = ("points", "components of each mixture", "pixels")
    rows = {}
    for i, name in enumerate(names):
        half = tuple(size // 2 if i == j else size for j, size in enumerate(FULL))
        ends = [made(*sizes) for sizes in (half, FULL)]
        calls = {
            f"{number} {size}": lambda v=v, tight=tight: log_bound(
                v[0], R, *v[1:], tight=tight
            )
            for number, tight in (("(10)", False), ("(12)", True))
            for size, v in zip(("half", "full"), ends, strict=True)
        }
        times = timing.alternate(calls, ROUNDS)
        peaks = {
            f"MiB_{number}": memory(tight) / max(memory(tight, half), 1e-3)
            for number, tight in (("(10)", False), ("(12)", True))
        }
        rows[f"twice the {name}"] = peaks | {
            f"time_{number}": statistics.median(
                b / a
                for a, b in zip(
                    times[f"{number} half"], times[f"{number} full"], strict=True
                )
            )
            for number in ("(10)", "(12)")
        }
    return rows


def main() -> None:
    """Measure, print both tables, write the record."""
    torch.set_num_threads(1)
    tables = {"certificate": routes(), "growth": growth()}
    _benchmark.record(
        "provable_uncertainty",
        DEVICE.type,
        tables,
        points=POINTS,
        components=f"{COMPONENTS} + {COMPONENTS}",
        pixels=PIXELS,
        dtype="float64",
    )


if __name__ == "__main__":
    if "--memory" in sys.argv:
        print(grown(*map(int, sys.argv[2:])))
    else:
        main()
