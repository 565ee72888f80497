"""Warped gradient descent on your own network, and the equations around it.

Flennerhag and others, ICLR 2020. Numbers in brackets are equations of the chapter
`warped_gradients`. Mark the layers that tasks share and never adapt, hand over a
sampler of tasks and a loss, and get meta-learned warps and a model for a new task:

    net = nn.Sequential(nn.Linear(1, 40), Tanh(40), nn.ReLU(), nn.Linear(40, 1))
    how = Setup(net, nn.functional.mse_loss, Inner(rate=0.02))
    learn(how, sample, steps=50)  # sample(generator) -> inputs, targets
    adapted = adapt(how, *sample(generator), steps=100)
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from math import isfinite
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call, grad, grad_and_value, jvp, vmap

from iclrtut.errors import BadRequest

Weights = dict[str, Tensor]
Loss = Callable[[Any, Any], Tensor]  # prediction, targets -> a single number
Sample = Callable[[Generator], tuple[Tensor, Tensor]]
KINDS = ("sgd", "momentum", "adam")


def need(holds: bool, otherwise: str) -> None:
    """Refuse what does not hold, in one sentence with the remedy."""
    if not holds:
        raise BadRequest(otherwise)


# Layers


class Warp(nn.Sequential):
    """Layers that are meta-learned, and stay as they are while a task is adapted."""


class Tanh(Warp):
    """z -> z T + tanh(z A) B, at first the identity: T = I, B = 0.

    Args:
        width: of z.
        seed: of A.
    """

    def __init__(self, width: int, seed: int = 0) -> None:
        super().__init__()
        drawn = torch.randn(width, width, generator=Generator().manual_seed(seed))
        self.T = nn.Parameter(torch.eye(width))
        self.A = nn.Parameter(drawn / width**0.5)
        self.B = nn.Parameter(torch.zeros(width, width))

    def forward(self, z: Tensor) -> Tensor:
        """The warped values, of the shape of z, [..., width]."""
        return z @ self.T + (z @ self.A).tanh() @ self.B


def _warps(module: nn.Module) -> bool:
    return isinstance(module, Warp)


def split(net: nn.Module) -> tuple[Weights, Weights]:
    """What a task adapts and what is shared, theta and phi, by name.

    Raises:
        BadRequest: no layer is a warp, all are, one shares weights with the rest, or
            the network keeps running statistics.
    """
    marked = {id(p) for m in net.modules() if _warps(m) for p in m.parameters()}
    modules = list(net.named_modules(remove_duplicate=False))
    inside = tuple(f"{name}." if name else "" for name, m in modules if _warps(m))
    need(bool(marked), "the network has no warp layer: wrap one in Warp(...).")
    for name, p in net.named_parameters(remove_duplicate=False):
        own = id(p) not in marked or name.startswith(inside)
        need(own, f"{name} is a weight of a warp, too: give the warp its own.")
    for name, m in modules:
        free = getattr(m, "running_mean", None) is None
        need(free, f"{name} keeps statistics: make it with track_running_stats=False.")
    every = {name: p for name, p in net.named_parameters() if p.requires_grad}
    theta: Weights = {k: p for k, p in every.items() if id(p) not in marked}
    need(bool(theta), "every layer is a warp, so a task adapts nothing: leave one out.")
    return theta, {name: p for name, p in every.items() if id(p) in marked}


# The optimiser of a task


class Inner(NamedTuple):
    """How a task is adapted: as torch.optim's SGD, SGD with momentum, or Adam.

    Attributes:
        rate: alpha.
        kind: "sgd", "momentum" or "adam".
        beta: of momentum, or Adam's first.
    """

    rate: float
    kind: str = "sgd"
    beta: float = 0.9


class Memory(NamedTuple):
    """What an optimiser remembers: steps taken, and means of gradients and squares."""

    t: Tensor
    m: Weights
    v: Weights


def fresh(theta: Mapping[str, Tensor]) -> Memory:
    """The memory before the first step."""
    zeros = {name: torch.zeros_like(w) for name, w in theta.items()}
    return Memory(next(iter(zeros.values())).new_zeros(()), zeros, zeros)


def advance(
    theta: Weights, gradient: Weights, memory: Memory, inner: Inner
) -> tuple[Weights, Memory]:
    """One step of a task's optimiser, which gradients can pass.

    Returns:
        The weights after it, and what the optimiser remembers.
    """
    beta, t = inner.beta, memory.t + 1
    if inner.kind == "sgd":
        direction, m, v = gradient, memory.m, memory.v
    elif inner.kind == "momentum":
        m = {k: beta * memory.m[k] + g for k, g in gradient.items()}
        direction, v = m, memory.v
    else:
        m = {k: beta * memory.m[k] + (1 - beta) * g for k, g in gradient.items()}
        v = {k: 0.999 * memory.v[k] + 0.001 * g * g for k, g in gradient.items()}
        # The root has no slope at 0, where a weight never had a gradient.
        root = {k: (w / (1 - 0.999**t)).clamp_min(1e-30).sqrt() for k, w in v.items()}
        direction = {k: w / (1 - beta**t) / (root[k] + 1e-8) for k, w in m.items()}
    moved = {k: w - inner.rate * direction[k] for k, w in theta.items()}
    return moved, Memory(t, m, v)


def _checked(inner: Inner, steps: int) -> None:
    kinds = " or ".join(KINDS)
    need(inner.kind in KINDS, f"the inner optimiser {inner.kind!r} is not {kinds}.")
    need(0 < inner.rate < 1e6, f"the rate is {inner.rate}: give one above 0.")
    need(0 <= inner.beta < 1, f"beta is {inner.beta}: give one from 0 to below 1.")
    need(steps >= 1, f"{steps} steps adapt nothing: give 1 or more.")


# The objectives


class Task(NamedTuple):
    """Inputs and targets, one entry an example; in a batch, tasks come first."""

    inputs: Tensor
    targets: Tensor


class Setup(NamedTuple):
    """What is trained, on which loss of predictions and targets, and how.

    Attributes:
        net: has layers in `Warp`.
        loss: a single number.
        inner: how a task is adapted.
        stop: whether a step counts as a constant, (12).
    """

    net: nn.Module
    loss: Loss
    inner: Inner
    stop: bool = False

    def of(self, phi: Weights, task: Task) -> Callable[[Weights], Tensor]:
        """The loss of a task as a function of what it adapts."""

        def value(theta: Weights) -> Tensor:
            told = functional_call(self.net, {**theta, **phi}, (task.inputs,))
            found = self.loss(told, task.targets)
            need(found.shape == (), "the loss is no single number: return its mean.")
            return found

        return value


def look_ahead(
    how: Setup, phi: Weights, theta: Weights, memory: Memory, train: Task, other: Task
) -> Tensor:
    """The loss on one batch after one step on another, (11); or (12).

    Args:
        how: the network, the loss, the optimiser.
        phi: the weights of the warps.
        theta, memory: an iterate, and what its optimiser remembers; both are held.
        train, other: the batch of the step, and that of the loss.
    """
    still = {k: w.detach() for k, w in phi.items()} if how.stop else phi
    gradient = grad(how.of(still, train))(theta)
    moved, _ = advance(theta, gradient, memory, how.inner)
    return how.of(phi, other)(moved)


def warp_gradient(
    how: Setup, thetas: Weights, memories: Memory, train: Task, other: Task
) -> tuple[Tensor, Weights]:
    """The mean of (11) over many iterates of many tasks at once, and its gradient.

    Args:
        how: the gradient is taken in its network's warps.
        thetas, memories, train, other: one entry an iterate, in the first dimension.

    Returns:
        The mean, and its gradient by the name of a warp's weight.
    """
    phi = split(how.net)[1]

    def one(*at: Any) -> Tensor:
        return look_ahead(how, phi, *at)

    each = vmap(one, randomness="different")(thetas, memories, train, other)
    gradients = torch.autograd.grad(each.mean(), list(phi.values()))
    return each.mean().detach(), dict(zip(phi, gradients, strict=True))


# Learning, and adapting


def learn(
    how: Setup,
    sample: Sample,
    *,
    steps: int,
    meta_steps: int = 100,
    tasks: int = 16,
    rate: float = 2e-3,
    pull: float = 0.3,
    seed: int = 0,
) -> list[float]:
    """Meta-learn a network's warps by (11), and its start by Reptile, in place.

    Each meta-step adapts fresh tasks on the first half of their examples. Ten of the
    iterates, drawn beforehand, give a step of Adam each, whose loss is on the second
    half.

    Args:
        how: the network, the loss, the optimiser; what is in no `Warp` is adapted.
        sample: draws a task, its inputs and targets, one entry an example.
        steps: of a task.
        meta_steps, tasks: how often, on how many tasks each.
        rate: of Adam on the warps.
        pull: how far the start moves to the mean of the adapted weights.
        seed: of the tasks.

    Returns:
        The loss (11) of each meta-step.

    Raises:
        BadRequest: as in `split`; one example, or tasks of different sizes; a loss
            that is no single number, or not finite; an optimiser, rate or number of
            steps that makes no sense.
    """
    theta, phi = split(how.net)
    _checked(how.inner, steps)
    need(meta_steps >= 1 and tasks >= 1, "give 1 meta-step and 1 task or more.")
    draws, adam = Generator().manual_seed(seed), torch.optim.Adam(phi.values(), lr=rate)
    history = []
    for _ in range(meta_steps):
        train, other = _halves([sample(draws) for _ in range(tasks)])
        kept = torch.randperm(steps, generator=draws)[:10].tolist()
        start = {k: w.detach().expand(tasks, *w.shape) for k, w in theta.items()}
        path, end = _descend(how, start, train, steps, kept)
        losses = []
        for iterate in path:
            value, gradient = warp_gradient(how, *iterate, train, other)
            for name, w in phi.items():
                w.grad = gradient[name]
            adam.step()
            losses.append(float(value))
        with torch.no_grad():
            for name, w in theta.items():
                w += pull * (end[name].mean(0) - w)
        history.append(sum(losses) / len(losses))
    return history


def adapt(how: Setup, inputs: Tensor, targets: Tensor, *, steps: int) -> nn.Module:
    """A copy of a network, adapted to one task; its warps are those of the network.

    Args:
        how: as in `learn`.
        inputs, targets: all examples of the task.
        steps: how many.

    Raises:
        BadRequest: as in `learn`.
    """
    adapted = deepcopy(how.net)
    theta, _ = split(adapted)
    _checked(how.inner, steps)
    task = Task(inputs[None], targets[None])
    start = {k: w.detach()[None] for k, w in theta.items()}
    _, end = _descend(how, start, task, steps, [])
    with torch.no_grad():
        for name, w in theta.items():
            w.copy_(end[name][0])
    return adapted


def _halves(drawn: list[tuple[Tensor, Tensor]]) -> tuple[Task, Task]:
    """Tasks in one tensor, the first half of their examples and the second."""
    sizes = {len(part) for task in drawn for part in task}
    need(len(sizes) == 1, f"tasks have {sorted(sizes)} examples: give all as many.")
    half = sizes.pop() // 2
    need(half >= 1, "a task has one example: (11) needs two or more, in two batches.")
    inputs, targets = (torch.stack(part) for part in zip(*drawn, strict=True))
    first, second = slice(0, half), slice(half, None)
    train = Task(inputs[:, first], targets[:, first])
    return train, Task(inputs[:, second], targets[:, second])


def _descend(
    how: Setup, theta: Weights, train: Task, steps: int, kept: list[int]
) -> tuple[list[tuple[Weights, Memory]], Weights]:
    """The iterates of these steps, and the weights after all, for all tasks at once."""
    phi = {k: w.detach() for k, w in split(how.net)[1].items()}

    def one(theta: Weights, memory: Memory, task: Task) -> Any:
        gradient, value = grad_and_value(how.of(phi, task))(theta)
        return value, advance(theta, gradient, memory, how.inner)

    memory, path = vmap(fresh)(theta), {}
    for k in range(steps):
        if k in kept:
            path[k] = theta, memory
        value, (theta, memory) = vmap(one, randomness="different")(theta, memory, train)
        whole = float(value.sum())
        need(isfinite(whole), f"a task's loss is {whole} at step {k}: lower the rate.")
    return [path[k] for k in kept], theta


# Equations that stand by themselves


def maml_gradient(
    loss: Callable[[Tensor], Tensor],
    meta_loss: Callable[[Tensor], Tensor],
    theta: Tensor,
    rate: float,
    steps: int,
    *,
    first_order: bool = False,
) -> Tensor:
    """The gradient of the loss after some steps with respect to the start, (2).

    Backwards, one Hessian-vector product a step; (3) is what is left without them.

    Args:
        loss, meta_loss: of a vector of weights, for the steps and after them.
        theta: the start, [n].
        rate, steps: alpha and K.
        first_order: whether to leave the Hessians out.
    """
    path = [theta.detach()]
    for _ in range(steps):
        path.append(path[-1] - rate * grad(loss)(path[-1]))
    g: Tensor = grad(meta_loss)(path[-1])
    for point in [] if first_order else path[-2::-1]:
        g = g - rate * jvp(grad(loss), (point,), (g,))[1]
    return g


def linear_preconditioner(before: Tensor, after: Tensor) -> Tensor:
    """P of T W S, a weight W between linear warps, on its stacked columns, (6).

    Args:
        before: S, [*, inputs].
        after: T, [outputs, *].
    """
    return torch.kron(before.T @ before, after @ after.T)


def best_preconditioner(C: Tensor, examples: int) -> Tensor:
    """The best whitened step for errors of covariance C, (14).

    Args:
        C: of the whitened error, [d, d].
        examples: of a gradient.
    """
    need(examples >= 1, f"{examples} examples give no gradient: use 1 or more.")
    eye = torch.eye(len(C)).to(C)
    noise = (1 + 1 / examples) * C + C.trace() / examples * eye
    best: Tensor = torch.linalg.solve(noise, C, left=False)
    return best
