"""The experiments of the chapter on warped gradients: training and measurements.

Numbers in brackets are equations of the chapter. Sizes come from the settings of the
run, which `iclrtut.start` returns; what is trained on sinusoids, and by which rule,
stands in `ARMS`.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from math import log
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn

from iclrtut.chapters.warped_gradients import ARMS, MOST, PAIRS, RIVALS, Arm, Settings
from iclrtut.chapters.warped_gradients.learners import Learner, loose, parts, slope
from iclrtut.chapters.warped_gradients.learners import descend as downhill
from iclrtut.chapters.warped_gradients.method import Task
from iclrtut.claims import Measurements
from iclrtut.run import Run
from iclrtut.timing import seconds
from iclrtut.train import Loop, fit, linear

MULTIPLES = (0.25, 0.5, 1.0, 2.0)  # of alpha, tried on validation tasks


# Training on sinusoids


def learner(run: Run, name: str) -> Any:
    """The learner of an arm; Meta-SGD's has rates of its own."""
    arm, s = ARMS[name], run.settings
    draws = run.generator("weights", "cpu")
    net: Any = Learner(s.width, arm.warp, arm.all_layers, draws)
    if arm.rule == "meta_sgd":
        net.rate = nn.Parameter(torch.full_like(net.start, s.rate))
    return net.to(run.device)


def draw(run: Run, net: Any, draws: Generator, n: int) -> tuple[Task, Task]:
    """Fresh tasks in two batches, on the run's device."""
    pair = net.draw(n, run.settings.points, draws)
    first, second = (Task(*(part.to(run.device) for part in task)) for task in pair)
    return first, second


def maml_loop(run: Run, name: str, arm: Arm | None = None, net: Any = None) -> Loop:
    """The outer step of MAML and its kin, (2); without inner steps, of all tasks."""
    arm, s, net = arm or ARMS[name], run.settings, net or learner(run, name)
    adam = torch.optim.Adam(net.parameters(), lr=arm.rates[0])
    draws, graph = run.generator(f"{name} tasks", "cpu"), arm.rule != "first_order"

    def step(t: int) -> dict[str, Tensor]:
        train, other = draw(run, net, draws, s.tasks)
        theta = net.begin(s.tasks)
        for _ in range(arm.inner):
            gradient = slope(net, theta, train, s.clip, graph)
            theta = theta - getattr(net, "rate", s.rate) * gradient
        return downhill(adam, net.losses(theta, other).mean())

    return Loop(step, adam, {"model": net, "draws": draws})


def path_loop(run: Run, name: str, arm: Arm | None = None, net: Any = None) -> Loop:
    """Reptile and Leap: the start moves by what descent leaves, (18), (19)."""
    arm, s, net = arm or ARMS[name], run.settings, net or learner(run, name)
    sgd = torch.optim.SGD([net.start], lr=arm.rates[0])
    draws = run.generator(f"{name} tasks", "cpu")

    def step(t: int) -> dict[str, Tensor]:
        train, other = draw(run, net, draws, s.tasks)
        theta, path = loose(net.begin(s.tasks)), []
        for _ in range(arm.inner):
            path.append((theta, slope(net, theta, train, s.clip)))
            theta = loose(theta - s.rate * path[-1][1])
        pull = path[0][0] - theta
        if arm.rule == "leap":
            pull = leap(net, train, [*path, (theta, theta)])
        net.start.grad = pull.detach().mean(0)
        sgd.step()
        return {"loss": net.losses(theta, other).mean()}

    return Loop(step, sgd, {"model": net, "draws": draws})


def leap(net: Any, task: Task, path: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Leap's direction for the start, (19), of iterates and the slopes there."""
    with torch.no_grad():
        losses = [net.losses(theta, task)[:, None] for theta, _ in path]
    total = torch.zeros_like(path[0][0])
    for k, (theta, gradient) in enumerate(path[:-1]):
        ahead, rise = path[k + 1][0] - theta, losses[k + 1] - losses[k]
        length = (ahead.square().sum(1, keepdim=True) + rise.square()).sqrt()
        total = total - (ahead + rise * gradient) / length.clamp_min(1e-12)
    return total


def warp_loop(run: Run, name: str, arm: Arm | None = None, net: Any = None) -> Loop:
    """WarpGrad: steps of phi down (11) or (12) at kept iterates; Reptile's start."""
    arm, s, net = arm or ARMS[name], run.settings, net or learner(run, name)
    adam = torch.optim.Adam([net.warp], lr=arm.rates[0])
    draws = run.generator(f"{name} tasks", "cpu")

    def step(t: int) -> dict[str, Tensor]:
        train, other = draw(run, net, draws, s.tasks)
        ks = torch.randint(arm.inner, (s.phi_steps, s.iterates), generator=draws)
        theta, path = loose(net.begin(s.tasks)), {}
        for k in range(arm.inner):
            if (ks == k).any():
                path[k] = theta
            theta = loose(theta - s.rate * slope(net, theta, train, s.clip))
        train, other = repeated(train, s.iterates), repeated(other, s.iterates)
        for row in ks.tolist():
            some = loose(torch.cat([path[k] for k in row]))
            gradient = slope(net, some, train, s.clip, arm.rule == "warp")
            told = downhill(adam, net.losses(some - s.rate * gradient, other).mean())
        pull = s.pull * adam.param_groups[0]["lr"] / arm.rates[0]
        with torch.no_grad():
            net.start += pull * (theta.mean(0) - net.start)
        return told

    return Loop(step, adam, {"model": net, "draws": draws})


def repeated(task: Task, times: int) -> Task:
    """A batch of tasks, several times over."""
    return Task(*(torch.cat([part] * times) for part in task))


PATHS = {"reptile": path_loop, "leap": path_loop, "warp": warp_loop, "stop": warp_loop}


def loop(run: Run, name: str, arm: Arm | None = None, net: Any = None) -> Loop:
    """The training of an arm, as declared or changed, of its learner or another."""
    return PATHS.get((arm or ARMS[name]).rule, maml_loop)(run, name, arm, net)


def half(run: Run, name: str, times: float = 1.0) -> int:
    """Half of the meta-steps of an arm."""
    s: Settings = run.settings
    return max(1, round(ARMS[name].steps * s.budget * times / 2))


def train(run: Run, name: str, times: float = 1.0) -> tuple[Any, Any]:
    """An arm after half of its meta-steps, and after all, in which rates fall to 0."""
    if ARMS[name].rule == "none":
        net = learner(run, name)
        return net, net
    made, steps = loop(run, name), half(run, name, times)
    fit_run = partial(fit, folder=run.folder, every=run.settings.checkpoint_every)
    fit_run(made, steps, name=f"{name} {times:g}")
    early, net = deepcopy(made.state["model"]), made.state["model"]
    slower = made._replace(schedule=linear(steps))
    fit_run(slower, steps, name=f"{name} {times:g} slower")
    return early, net


def fold(run: Run, net: Any) -> Any:
    """The same function without a warp: T multiplied into the weights before it, (6).

    Args:
        run: gives the sizes.
        net: a learner with linear warps.
    """
    W1, b1, W2, b2, W3, b3 = parts(net.start.detach(), net.own)
    first, second = parts(net.warp.detach(), net.shared)
    folded = learner(run, "scratch")
    pieces = [W1 @ first, b1 @ first, W2 @ second, b2 @ second, W3, b3]
    folded.start.data = torch.cat([w.flatten() for w in pieces])
    return folded


# Judging on sinusoids


def descend(
    run: Run, net: Any, pair: tuple[Task, Task], multiple: float | Tensor
) -> tuple[Tensor, Tensor]:
    """The losses of tasks after five steps and after all, at most `MOST`, [n] each."""
    (train, other), s = pair, run.settings
    alpha, kept = multiple * torch.as_tensor(getattr(net, "rate", s.rate)).detach(), []
    theta = loose(net.begin(len(train.inputs)))
    for k in range(1, s.test_steps + 1):
        theta = loose(theta - alpha * slope(net, theta, train, s.clip))
        if k in (5, s.test_steps):
            kept.append(net.losses(theta, other).detach())
    few, many = (each.nan_to_num(MOST, MOST).clamp(max=MOST).cpu() for each in kept)
    return few, many


def judge(run: Run, net: Any) -> Tensor:
    """Losses on test tasks, [n], at the rate that is best on validation tasks."""
    s: Settings = run.settings
    pair = draw(run, net, run.generator("validation", "cpu"), s.validation)
    tried = torch.tensor(MULTIPLES, device=run.device)
    each = tried.repeat_interleave(s.validation)[:, None]
    several = repeated(pair[0], len(tried)), repeated(pair[1], len(tried))
    _, losses = descend(run, net, several, each)
    best = MULTIPLES[int(losses.view(len(tried), -1).mean(1).argmin())]
    pair = draw(run, net, run.generator("test", "cpu"), s.test)
    return descend(run, net, pair, best)[1]


def lost(scores: Mapping[str, Tensor]) -> dict[str, int]:
    """How many tasks of each arm diverged, of the arms in which some did."""
    counts = {name: int((losses >= MOST).sum()) for name, losses in scores.items()}
    return {name: n for name, n in counts.items() if n}


def measure(scores: Mapping[str, Tensor], claim: str) -> Measurements:
    """A claim of `PAIRS`: ln of the mean loss of one arm over that of another."""
    at = {name: float(scores[name].mean()) for name in PAIRS[claim]}
    above, below = at.values()
    return {claim: {"value": log(above / below), **at}}


def measure_rivals(scores: Mapping[str, Tensor]) -> Measurements:
    """The best of all arms without a meta-learned warp, against WarpGrad."""
    at = {name: float(scores[name].mean()) for name in (*RIVALS, "warp")}
    best = min(at[name] for name in RIVALS)
    gone = {f"diverged_{name}": n for name, n in lost(scores).items()}
    return {"multi_shot": {"value": log(best / at["warp"]), **at, **gone}}


# Memory and time


class Kept:
    """A tensor that autograd saves; how many bytes of such are alive, and were most."""

    alive = most = 0

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.bytes = tensor, tensor.numel() * tensor.element_size()
        Kept.alive += self.bytes
        Kept.most = max(Kept.most, Kept.alive)

    def __del__(self) -> None:
        Kept.alive -= self.bytes


def saved_bytes(call: Callable[[], object]) -> int:
    """The bytes that autograd saves in a call, at the worst moment of it."""
    Kept.alive = Kept.most = 0
    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
        call()
    return Kept.most


def measure_cost(run: Run, name: str, inner: int) -> tuple[int, float]:
    """Bytes saved at the worst moment of one meta-step with K = `inner`; its seconds.

    Twice: first for the seconds, without the count.
    """
    step = loop(run, name, ARMS[name]._replace(inner=inner)).step
    time = seconds(lambda: step(0))
    return saved_bytes(lambda: step(1)), time


def measure_memory(run: Run, curves: Mapping[str, Sequence[float]]) -> Measurements:
    """How bytes grow with K, for MAML and for WarpGrad."""
    ks, warp = np.array(run.settings.memory), curves["warp"]
    x, y = np.log(ks)[ks >= 5], np.log(curves["maml"])[ks >= 5]
    power = float(np.polyfit(x, y, 1)[0])
    values = {"memory_maml": power, "memory_warp": warp[-1] / warp[0]}
    return {claim: {"value": value} for claim, value in values.items()}
