"""How fast the gradient of (11) is: all tasks and iterates at once, and a loop.

The sum of (11) over 20 tasks at 50 iterates each, and its gradient in the warps of the
chapter's network. Three routes get the same 1,000 terms, in float32 on one thread: the
chapter's learner with all terms in one call, `method.warp_gradient` on a module (what a
reader's own network gets), and a loop over the terms, which runs the learner on one at
a time. No route is scaled. In float64 their gradients agree to 1e-6, relative to the
largest entry.

Beside them stand the bytes that autograd saves at the worst moment of one meta-step,
and its seconds, against K, for Warp-MAML and for WarpGrad, at the sizes of `quick`.
Writes records/warped_gradients/bench-cpu.json.

    python benchmarks/warped_gradients.py
"""

import statistics
from collections.abc import Callable

import _benchmark
import torch
from torch import Generator, Tensor, nn
from torch.func import vmap

import iclrtut
from iclrtut.chapters.warped_gradients import CHAPTER, experiments
from iclrtut.chapters.warped_gradients.learners import (
    Learner,
    loose,
    parts,
    sinusoids,
    slope,
)
from iclrtut.chapters.warped_gradients.method import (
    Inner,
    Setup,
    Tanh,
    Task,
    Weights,
    fresh,
    warp_gradient,
)
from iclrtut.timing import alternate

TASKS, ITERATES, POINTS, WIDTH, RATE, ROUNDS = 20, 50, 20, 40, 0.02, 3
KS = (1, 5, 20, 50, 100)


def as_module(net: Learner, theta: Tensor) -> tuple[nn.Module, Weights]:
    """A learner of "tanh" warps as layers of PyTorch, and theta by their names."""
    width = net.own[0][1]
    layers = [nn.Linear(1, width), Tanh(width), nn.ReLU()]
    layers += [nn.Linear(width, width), Tanh(width), nn.ReLU(), nn.Linear(width, 1)]
    module = nn.Sequential(*layers)
    names = [f"{i}.{name}" for i in (1, 4) for name in "TAB"]
    for name, w in zip(names, parts(net.warp, net.shared), strict=True):
        module.get_parameter(name).data = w.detach().clone()
    names = [f"{i}.{name}" for i in (0, 3, 6) for name in ("weight", "bias")]
    rows = zip(names, parts(theta, net.own), strict=True)
    return module, {
        name: w[:, 0] if name.endswith("bias") else w.mT for name, w in rows
    }


class Terms:
    """Iterates of plain descent and their tasks, one entry a term.

    Args:
        dtype: of all.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        draws = Generator().manual_seed(0)
        self.net = Learner(WIDTH, "tanh", False, draws).to(dtype)
        noise = torch.randn(self.net.warp.shape, generator=draws).to(dtype)
        self.net.warp.data += 0.05 * noise
        pair = sinusoids(TASKS, POINTS, draws)
        train, other = (Task(*(p.to(dtype) for p in task)) for task in pair)
        theta, path = loose(self.net.begin(TASKS)), []
        for _ in range(ITERATES):
            path.append(theta.detach())
            theta = loose(theta - RATE * slope(self.net, theta, train, torch.inf))
        self.theta = torch.cat(path)
        self.train = experiments.repeated(train, ITERATES)
        self.other = experiments.repeated(other, ITERATES)
        self.module, self.rows = as_module(self.net, self.theta)
        self.memory = vmap(fresh)(self.rows)

    def batched(self) -> Tensor:
        """The gradient of the mean, all terms at once."""
        return self._gradient(self.theta, self.train, self.other)

    def looped(self) -> Tensor:
        """The same, a term at a time."""
        total = torch.zeros_like(self.net.warp)
        for i in range(len(self.theta)):
            train, other = (
                Task(*(part[i : i + 1] for part in task))
                for task in (self.train, self.other)
            )
            total += self._gradient(self.theta[i : i + 1], train, other)
        return total / len(self.theta)

    def by_method(self) -> Tensor:
        """The same by the package's function for any module."""
        mse = nn.functional.mse_loss
        given = self.rows, self.memory, self.train, self.other
        _, found = warp_gradient(Setup(self.module, mse, Inner(RATE)), *given)
        return torch.cat([g.flatten() for g in found.values()])

    def _gradient(self, theta: Tensor, train: Task, other: Task) -> Tensor:
        theta = loose(theta)
        gradient = slope(self.net, theta, train, torch.inf, graph=True)
        loss = self.net.losses(theta - RATE * gradient, other).mean()
        (found,) = torch.autograd.grad(loss, self.net.warp)
        return found


def agree() -> float:
    """The largest relative difference between two routes in float64; at most 1e-6."""
    terms = Terms(torch.float64)
    right = terms.looped()
    routes = terms.batched(), terms.by_method()
    worst = max(float((route - right).abs().max()) for route in routes)
    worst /= float(right.abs().max())
    assert worst <= 1e-6, f"the routes differ by {worst:.1e}"
    return worst


def routes() -> _benchmark.Rows:
    """Seconds of all routes."""
    terms = Terms(torch.float32)
    calls: dict[str, Callable[[], object]] = {
        "all at once": terms.batched,
        "all at once, any module": terms.by_method,
        "a loop over terms": terms.looped,
    }
    times = alternate(calls, ROUNDS)
    return {
        name: {
            "ms": 1000 * statistics.median(spent),
            "first_is_faster": statistics.median(
                a / b for a, b in zip(spent, times["all at once"], strict=True)
            ),
        }
        for name, spent in times.items()
    }


def growth() -> _benchmark.Rows:
    """Bytes saved and seconds of a meta-step, by K."""
    run = iclrtut.start("warped_gradients", "quick", 0)
    run.settings = CHAPTER.settings["quick"]  # whatever ICLRTUT_PROFILE says
    rows = {}
    for arm, name in (("warp_maml", "Warp-MAML"), ("warp", "WarpGrad")):
        for K in KS:
            saved, time = experiments.measure_cost(run, arm, K)
            rows[f"{name}, K = {K}"] = {"MiB_saved": saved / 2**20, "ms": 1000 * time}
    return rows


def main() -> None:
    """Measure, print the tables, write the record."""
    torch.set_num_threads(1)
    worst = agree()
    tables = {"the gradient of (11), 1,000 terms": routes(), "a meta-step": growth()}
    print(f"the routes agree to {worst:.1e}")
    sizes = {"tasks": TASKS, "iterates": ITERATES, "width": WIDTH, "points": POINTS}
    _benchmark.record("warped_gradients", "cpu", tables, difference=worst, **sizes)


if __name__ == "__main__":
    main()
