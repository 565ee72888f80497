"""The experiments of the chapter on warped gradients: training and measurements.

Numbers in brackets are equations of the chapter. Sizes come from the settings of the
run, which `iclrtut.start` returns; what is trained on sinusoids, and by which rule,
stands in `ARMS`.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from math import log
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn

from iclrtut.chapters.warped_gradients import ARMS, RIVALS, Arm, Settings
from iclrtut.chapters.warped_gradients.learners import (
    Learner,
    loose,
    sinusoids,
    slope,
)
from iclrtut.chapters.warped_gradients.method import Task
from iclrtut.claims import Measurements
from iclrtut.run import Run
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


def draw(run: Run, draws: Generator, n: int) -> tuple[Task, Task]:
    """Fresh tasks in two batches, on the run's device."""
    pair = sinusoids(n, run.settings.points, draws)
    first, second = (Task(*(part.to(run.device) for part in task)) for task in pair)
    return first, second


def maml_loop(run: Run, name: str, net: Any) -> Loop:
    """The outer step of MAML and its kin, (2); without inner steps, of all tasks."""
    arm, s = ARMS[name], run.settings
    adam = torch.optim.Adam(net.parameters(), lr=arm.rates[0])
    draws, graph = run.generator(f"{name} tasks", "cpu"), arm.rule != "first_order"

    def step(t: int) -> dict[str, Tensor]:
        train, other = draw(run, draws, s.tasks)
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


def path_loop(run: Run, name: str, net: Any) -> Loop:
    """Reptile and Leap: the start moves by what plain descent leaves behind, (5)."""
    arm, s = ARMS[name], run.settings
    sgd = torch.optim.SGD([net.start], lr=arm.rates[0])
    draws = run.generator(f"{name} tasks", "cpu")

    def step(t: int) -> dict[str, Tensor]:
        train, other = draw(run, draws, s.tasks)
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
    """Leap's direction for the start, (5), of iterates and the slopes there."""
    with torch.no_grad():
        losses = [net.losses(theta, task)[:, None] for theta, _ in path]
    total = torch.zeros_like(path[0][0])
    for k, (theta, gradient) in enumerate(path[:-1]):
        ahead, rise = path[k + 1][0] - theta, losses[k + 1] - losses[k]
        length = (ahead.square().sum(1, keepdim=True) + rise.square()).sqrt()
        total = total - (ahead + rise * gradient) / length.clamp_min(1e-12)
    return total


def warp_loop(run: Run, name: str, net: Any) -> Loop:
    """WarpGrad: steps of phi down (11) or (12) at kept iterates; Reptile's start."""
    arm, s = ARMS[name], run.settings
    adam = torch.optim.Adam([net.warp], lr=arm.rates[0])
    draws = run.generator(f"{name} tasks", "cpu")

    def step(t: int) -> dict[str, Tensor]:
        train, other = draw(run, draws, s.tasks)
        theta, path = loose(net.begin(s.tasks)), []
        for _ in range(arm.inner):
            path.append(theta)
            theta = loose(theta - s.rate * slope(net, theta, train, s.clip))
        ks = torch.randint(arm.inner, (s.phi_steps, s.iterates), generator=draws)
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
    return Task(*(part.repeat(times, 1, 1) for part in task))


LOOPS: Mapping[str, Callable[[Run, str, Any], Loop]] = {
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


def train(run: Run, name: str, times: float = 1.0) -> Trained:
    """Meta-train an arm: rates stay for half of the meta-steps, then fall to 0."""
    arm, net = ARMS[name], learner(run, name)
    if arm.rule == "none":
        return Trained(net, net)
    half = max(1, round(arm.steps * run.settings.budget * times / 2))
    loop, every = LOOPS[arm.rule](run, name, net), run.settings.checkpoint_every
    title = f"{arm.name} {times:g}"
    fit(loop, half, folder=run.folder, name=title, every=every)
    early = deepcopy(net)
    loop = loop._replace(schedule=linear(half))
    fit(loop, half, folder=run.folder, name=f"{title}, slower", every=every)
    return Trained(early, net)


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
    few = draw(run, run.generator("validation", "cpu"), s.validation)
    tried = torch.tensor(MULTIPLES, device=run.device)
    each = tried.repeat_interleave(s.validation)[:, None]
    several = repeated(few[0], len(tried)), repeated(few[1], len(tried))
    _, losses = descend(run, net, several, each)
    best = MULTIPLES[int(losses.view(len(tried), -1).mean(1).argmin())]
    pair = draw(run, run.generator("test", "cpu"), s.test)
    return Score(*descend(run, net, pair, best), best)
