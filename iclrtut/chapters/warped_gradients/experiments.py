"""The experiments of the chapter on warped gradients: training and measurements.

Numbers in brackets are equations of the chapter. Sizes come from the settings of the
run, which `iclrtut.start` returns; what is trained on sinusoids, and by which rule,
stands in `ARMS`.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from math import log
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor, nn

from iclrtut.chapters.warped_gradients import ARMS, RIVALS, Arm, Settings
from iclrtut.chapters.warped_gradients.learners import (
    Learner,
    loose,
    parts,
    slope,
)
from iclrtut.chapters.warped_gradients.method import Task
from iclrtut.claims import Measurements
from iclrtut.run import Run
from iclrtut.timing import seconds
from iclrtut.train import Loop, fit, linear

MULTIPLES = (0.25, 0.5, 1.0, 2.0)  # of alpha, tried on validation tasks
MOST = 100.0  # loss: what diverged counts as this


# Training on sinusoids


def learner(run: Run, name: str) -> Any:
    """The learner of an arm; Meta-SGD's has rates of its own."""
    arm, s = ARMS[name], run.settings
    draws = run.generator("weights", "cpu")
    net: Any = Learner(s.width, arm.warp, arm.all_layers, draws)
    if arm.rule == "meta_sgd":
        net.rate = nn.Parameter(torch.full_like(net.start, s.rate))
    return net.to(run.device)


def rate(run: Run, net: Any) -> Any:
    """What a task steps by: alpha, or a rate for each weight."""
    return getattr(net, "rate", run.settings.rate)


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
            theta = theta - rate(run, net) * gradient
        loss = net.losses(theta, other).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        return {"loss": loss}

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
            loss = net.losses(some - s.rate * gradient, other).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
        pull = s.pull * adam.param_groups[0]["lr"] / arm.rates[0]
        with torch.no_grad():
            net.start += pull * (theta.mean(0) - net.start)
        return {"loss": loss}

    return Loop(step, adam, {"model": net, "draws": draws})


def repeated(task: Task, times: int) -> Task:
    """A batch of tasks, several times over."""
    return Task(*(torch.cat([part] * times) for part in task))


LOOPS: Mapping[str, Callable[..., Loop]] = {
    "maml": maml_loop,
    "first_order": maml_loop,
    "meta_sgd": maml_loop,
    "reptile": path_loop,
    "leap": path_loop,
    "warp": warp_loop,
    "stop": warp_loop,
}


class Trained(NamedTuple):
    """A learner after half of its meta-steps, and after all."""

    half: Any
    whole: Any


def half(run: Run, name: str, times: float = 1.0) -> int:
    """Half of the meta-steps of an arm."""
    return max(1, round(ARMS[name].steps * run.settings.budget * times / 2))


def train(run: Run, name: str, times: float = 1.0) -> Trained:
    """Meta-train an arm: rates stay for half of the meta-steps, then fall to 0."""
    if ARMS[name].rule == "none":
        net = learner(run, name)
        return Trained(net, net)
    loop, steps = LOOPS[ARMS[name].rule](run, name), half(run, name, times)
    kept = {"folder": run.folder, "every": run.settings.checkpoint_every}
    title = f"{name} {times:g}"
    fit(loop, steps, name=title, **kept)
    net = loop.state["model"]
    early = deepcopy(net)
    fit(loop._replace(schedule=linear(steps)), steps, name=f"{title} slower", **kept)
    return Trained(early, net)


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


class Score(NamedTuple):
    """The loss of each test task after five steps and after all, [n] each.

    Attributes:
        few, many: at most `MOST` each.
        multiple: of alpha, chosen on validation tasks.
    """

    few: Tensor
    many: Tensor
    multiple: float


def descend(
    run: Run, net: Any, pair: tuple[Task, Task], multiple: float | Tensor
) -> tuple[Tensor, Tensor]:
    """The losses of tasks after five steps and after all, [n] each."""
    (train, other), s = pair, run.settings
    alpha, kept = multiple * torch.as_tensor(rate(run, net)).detach(), []
    theta = loose(net.begin(len(train.inputs)))
    for k in range(1, s.test_steps + 1):
        theta = loose(theta - alpha * slope(net, theta, train, s.clip))
        if k in (5, s.test_steps):
            kept.append(net.losses(theta, other).detach())
    few, many = (each.nan_to_num(MOST, MOST).clamp(max=MOST).cpu() for each in kept)
    return few, many


def judge(run: Run, net: Any) -> Score:
    """Losses on test tasks, at the rate that is best on validation tasks."""
    s: Settings = run.settings
    pair = draw(run, net, run.generator("validation", "cpu"), s.validation)
    tried = torch.tensor(MULTIPLES, device=run.device)
    each = tried.repeat_interleave(s.validation)[:, None]
    several = repeated(pair[0], len(tried)), repeated(pair[1], len(tried))
    _, losses = descend(run, net, several, each)
    best = MULTIPLES[int(losses.view(len(tried), -1).mean(1).argmin())]
    pair = draw(run, net, run.generator("test", "cpu"), s.test)
    return Score(*descend(run, net, pair, best), best)


def means(scores: Mapping[str, Score]) -> dict[str, float]:
    """The mean loss of each arm after all steps."""
    return {name: float(score.many.mean()) for name, score in scores.items()}


def lost(scores: Mapping[str, Score]) -> dict[str, int]:
    """How many tasks of each arm diverged."""
    return {name: int((score.many >= MOST).sum()) for name, score in scores.items()}


def ratio(above: float, below: float) -> float:
    """ln(above / below)."""
    return log(above / below)


def measure_nonlinear(scores: Mapping[str, Score]) -> Measurements:
    """A linear warp against a non-linear one, sinusoids."""
    at = means(scores)
    numbers = {name: at[name] for name in ("linear", "warp")}
    return {"nonlinear": {"value": ratio(at["linear"], at["warp"]), **numbers}}


def measure_rivals(scores: Mapping[str, Score]) -> Measurements:
    """All arms without a meta-learned warp, and backpropagation, against WarpGrad."""
    at = means(scores)
    best = min(at[name] for name in RIVALS)
    gone = {f"diverged_{name}": n for name, n in lost(scores).items() if n}
    rivals = {name: at[name] for name in (*RIVALS, "warp")}
    both = {name: at[name] for name in ("warp_maml", "warp")}
    return {
        "multi_shot": {"value": ratio(best, at["warp"]), **rivals, **gone},
        "objective": {"value": ratio(at["warp_maml"], at["warp"]), **both},
    }


def measure_folded(scores: Mapping[str, Score]) -> Measurements:
    """A linear warp multiplied into the weights, against the warp as it is."""
    at = {name: means(scores)[name] for name in ("linear", "folded")}
    return {"geometry_sinusoids": {"value": ratio(at["folded"], at["linear"]), **at}}


def measure_approx(scores: Mapping[str, Score]) -> Measurements:
    """The stop-gradient (12) against (11)."""
    at = {name: means(scores)[name] for name in ("stop", "warp")}
    return {"approx": {"value": ratio(at["stop"], at["warp"]), **at}}


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
    hooks = torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor)
    with hooks:
        call()
    most: int = Kept.most
    return most


def measure_cost(run: Run, name: str, inner: int) -> tuple[int, float]:
    """Bytes saved at the worst moment of one meta-step with K = `inner`; its seconds.

    Twice: first for the seconds, without the count.
    """
    arm = ARMS[name]._replace(inner=inner)
    step = LOOPS[arm.rule](run, name, arm).step
    time = seconds(lambda: step(0))
    return saved_bytes(lambda: step(1)), time


def measure_memory(run: Run, curves: Mapping[str, Sequence[float]]) -> Measurements:
    """How bytes grow with K, for MAML and for WarpGrad."""
    ks = run.settings.memory
    long = [(log(K), log(b)) for K, b in zip(ks, curves["maml"], strict=True) if K >= 5]
    x, y = zip(*long, strict=True)
    warp = curves["warp"]
    return {
        "memory_maml": {"value": float(np.polyfit(x, y, 1)[0])},
        "memory_warp": {"value": warp[-1] / warp[0]},
    }
