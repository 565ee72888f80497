"""How fast the sampler is: against a plain loop, and against a bound.

The bound is one forward pass and one backward pass to the input a step. The three take
turns, so that a busy machine slows all alike; ratios are medians over rounds. Writes
records/energy_based_classifier/bench-<device>.json.

    python benchmarks/energy_based_classifier.py
"""

import copy
import statistics

import _benchmark
import torch
from torch import Tensor

from iclrtut import timing
from iclrtut.chapters.energy_based_classifier.method import (
    Net,
    digits_net,
    langevin,
    wide_resnet,
)

BATCH, STEPS, ROUNDS = 64, 20, 15
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def transcription(net: Net, x: Tensor, steps: int, generator: torch.Generator) -> None:
    """The sampler as a plain loop with `backward()`."""
    for _ in range(steps):
        x = x.detach().requires_grad_()
        net(x).logsumexp(1).sum().backward()
        noise = torch.randn(x.shape, generator=generator, device=x.device)
        x = x.detach() + 1.0 * x.grad + 0.01 * noise


def bound(net: Net, x: Tensor, steps: int, weights: Tensor) -> None:
    """Forward and backward to the input, for weights that need no gradient."""
    for _ in range(steps):
        x = x.detach().requires_grad_()
        torch.autograd.grad(net(x), x, weights)


def measure(net: Net, steps: int) -> dict[str, float]:
    """Steps a second of the sampler, and its ratios to loop and bound."""
    generator = torch.Generator(DEVICE).manual_seed(0)
    x = torch.rand(BATCH, *net.shape, generator=generator, device=DEVICE) * 2 - 1
    weights = net(x).detach().softmax(1)
    frozen = copy.deepcopy(net).requires_grad_(False)
    arms = {
        "package": lambda: langevin(net, x, steps, 1.0, 0.01, generator),
        "loop": lambda: transcription(net, x, steps, generator),
        "bound": lambda: bound(frozen, x, steps, weights),
    }
    times = timing.alternate(arms, ROUNDS - 2, warmup=2)
    ratio = {
        k: statistics.median(
            a / b for a, b in zip(times[k], times["package"], strict=True)
        )
        for k in ("loop", "bound")
    }
    median = statistics.median(times["package"])
    return {
        "steps_per_second": steps / median,
        "over_loop": ratio["loop"],
        "of_bound": ratio["bound"],
    }


def main() -> None:
    """Measure both networks, print a table, write the record."""
    torch.set_num_threads(1)
    nets = {
        "digits net": (digits_net(0), STEPS),
        "WRN-10-2": (wide_resnet(10, 2, 0), 2),
    }
    rows = {k: measure(net.to(DEVICE), steps) for k, (net, steps) in nets.items()}
    _benchmark.record(
        "energy_based_classifier", DEVICE.type, {"sampler": rows}, batch=BATCH
    )


if __name__ == "__main__":
    main()
