"""Learners that are batched over tasks, and one step of a task.

A learner has a `start`, from which each task sets out, and a `warp`, which all tasks
share: one vector of weights each. `theta` holds the weights of n tasks, [n, weights].
Numbers in brackets are equations of the chapter.
"""

from math import prod
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from iclrtut.chapters.warped_gradients.method import Task


class Learner(nn.Module):
    """A network 1-width-width-1 with ReLU, and a warp before each ReLU.

    Args:
        width: of the two hidden layers.
        warp: "none", "linear" (z T) or "tanh" (z T + tanh(z A) B).
        all_layers: whether the warps belong to what a task adapts.
        draws: of the first weights.
    """

    def __init__(
        self, width: int, warp: str, all_layers: bool, draws: Generator
    ) -> None:
        super().__init__()
        first = []
        for inputs, outputs in ((1, width), (width, width), (width, 1)):
            for rows in (inputs, 1):
                drawn = 2 * torch.rand(rows, outputs, generator=draws) - 1
                first.append(drawn / inputs**0.5)
        own = len(first)
        for _ in range(0 if warp == "none" else 2):
            first.append(torch.eye(width))
            if warp == "tanh":
                A = torch.randn(width, width, generator=draws) / width**0.5
                first += [A, torch.zeros_like(A)]
        self.layers = (len(first) - own) // 2  # weights of a warp
        own = len(first) if all_layers else own
        self.shapes = [w.shape for w in first]
        self.own, self.shared = self.shapes[:own], self.shapes[own:]
        flat = [w.flatten() for w in first]
        self.start = nn.Parameter(torch.cat(flat[:own]))
        self.warp = nn.Parameter(torch.cat([torch.zeros(0), *flat[own:]]))

    def begin(self, n: int) -> Tensor:
        """The start of n tasks, through which a gradient passes."""
        return self.start.expand(n, -1)

    def forward(self, theta: Tensor, x: Tensor) -> Tensor:
        """Predictions [n, points, 1] of inputs [n, points, 1]."""
        W1, b1, W2, b2, W3, b3, *warps = parts(theta, self.own)
        warps += parts(self.warp, self.shared)
        first, second = warps[: self.layers], warps[self.layers :]
        x = bend(torch.baddbmm(b1, x, W1), first).relu()
        x = bend(torch.baddbmm(b2, x, W2), second).relu()
        predicted: Tensor = torch.baddbmm(b3, x, W3)
        return predicted

    def draw(self, n: int, points: int, draws: Generator) -> tuple[Task, Task]:
        """Two batches of n fresh tasks."""
        return sinusoids(n, points, draws)

    def losses(self, theta: Tensor, task: Task) -> Tensor:
        """The mean squared error of each task, [n]."""
        error: Tensor = self(theta, task.inputs) - task.targets
        return error.square().mean((1, 2))


def parts(flat: Tensor, shapes: list[torch.Size]) -> list[Tensor]:
    """Weights [..., weights] as matrices, [..., rows, columns] each."""
    pieces = torch.split(flat, [prod(shape) for shape in shapes], -1)
    pairs = zip(pieces, shapes, strict=True)
    return [piece.reshape(*flat.shape[:-1], *shape) for piece, shape in pairs]


def bend(z: Tensor, warp: list[Tensor]) -> Tensor:
    """z T + tanh(z A) B, or what of it there is."""
    if len(warp) < 2:
        return z @ warp[0] if warp else z
    T, A, B = warp
    return z @ T + (z @ A).tanh() @ B


def sinusoids(n: int, points: int, draws: Generator) -> tuple[Task, Task]:
    """Two batches of n sines: amplitude 0.1 to 5, phase 0 to pi, x from -5 to 5."""
    amplitude = 0.1 + 4.9 * torch.rand(n, 1, 1, generator=draws)
    phase = torch.pi * torch.rand(n, 1, 1, generator=draws)
    x = 10 * torch.rand(2, n, points, 1, generator=draws) - 5
    first, second = (Task(half, amplitude * (half - phase).sin()) for half in x)
    return first, second


def slope(
    learner: Any, theta: Tensor, task: Task, clip: float, graph: bool = False
) -> Tensor:
    """The gradients of n tasks, [n, weights], each at most `clip` long.

    Args:
        learner: gives the losses.
        theta: weights that a gradient is recorded of.
        task: one batch a task.
        clip: longest gradient of a task.
        graph: whether a gradient may pass this one (the clipping counts as constant).
    """
    total = learner.losses(theta, task).sum()
    (found,) = torch.autograd.grad(total, theta, create_graph=graph)
    length = found.detach().norm(dim=1, keepdim=True)
    cut: Tensor = found * (clip / length).clamp(max=1)
    return cut


def loose(theta: Tensor) -> Tensor:
    """The same weights, without a memory of where they came from."""
    return theta.detach().requires_grad_()


def descend(optimizer: Optimizer, loss: Tensor) -> dict[str, Tensor]:
    """One step of an optimiser down a loss, which is returned by name."""
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return {"loss": loss.detach()}
