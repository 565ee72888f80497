"""Handwritten characters for `full`: the paper's network, batched over tasks.

Numbers in brackets are equations of the chapter.
"""

from copy import copy
from math import prod

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from iclrtut import data
from iclrtut.chapters.warped_gradients import ARMS
from iclrtut.chapters.warped_gradients.experiments import draw, loop
from iclrtut.chapters.warped_gradients.learners import loose, parts, slope
from iclrtut.chapters.warped_gradients.method import Task
from iclrtut.run import Run
from iclrtut.train import fit, linear

BLOCKS, SIDE, HELD_OUT = 4, 28, 5  # drawers whose images judge
TASKS, ALPHA, TESTS = 5, 0.1, 20  # a meta-step's tasks, the inner rate, test tasks
RATES = {"maml": 1e-3, "reptile": 0.3, "warp": 1e-3}  # one try each


class Characters(nn.Module):
    """Four blocks of convolution, pooling, batch norm and ReLU, a convolution after
    each as the warp; a read-out. Tasks are groups of channels.

    Args:
        ways: characters a task.
        filters: of each convolution.
        warp: whether there are warps, at first the identity.
        draws: of the first weights.
    """

    def __init__(self, ways: int, filters: int, warp: bool, draws: Generator) -> None:
        super().__init__()
        self.ways, self.images, self.running = ways, list[Tensor](), list[Tensor]()
        inside = [(filters, filters, 3, 3)] * (BLOCKS - 1)
        sizes = [(filters, 1, 3, 3), *inside, (ways, filters)]
        self.own = [torch.Size(z) for size in sizes for z in (size, (2, size[0]))]
        first = []
        for size in sizes:  # weights, then scales and shifts
            drawn = 2 * torch.rand(size, generator=draws) - 1
            first.append(drawn.flatten() / prod(size[1:]) ** 0.5)
            first += [torch.ones(size[0]), torch.zeros(size[0])]
        identity = nn.init.dirac_(torch.empty(filters, filters, 3, 3))
        self.shared = [identity.shape] * (BLOCKS if warp else 0)
        self.start = nn.Parameter(torch.cat(first))
        self.warp = nn.Parameter(identity.flatten().repeat(len(self.shared)))

    def begin(self, n: int) -> Tensor:
        """The start of n tasks, whose statistics begin anew."""
        fresh = torch.tensor([[0.0], [1.0]]).repeat(1, n * self.own[0][0])
        self.running = [fresh.to(self.start) for _ in range(BLOCKS)]
        return self.start.expand(n, -1)

    def forward(self, theta: Tensor, x: Tensor, judged: bool = False) -> Tensor:
        """Logits [n, images, ways] of images [n, images, 28, 28].

        Args:
            theta: weights of n tasks.
            x: images.
            judged: whether batch norm uses the statistics of training.
        """
        n, own, warps = len(x), parts(theta, self.own), parts(self.warp, self.shared)
        x = x.transpose(0, 1)  # [images, tasks, 28, 28]
        for i in range(BLOCKS):
            weight, affine = own[2 * i].flatten(0, 1), own[2 * i + 1]
            x = F.max_pool2d(F.conv2d(x, weight, padding=1, groups=n), 2)
            # Several iterates of one task at once leave its statistics alone.
            kept = self.running[i].shape[1] == x.shape[1]
            mean, var = self.running[i] if kept else (None, None)
            scale, shift = affine.transpose(0, 1).flatten(1)
            x = F.batch_norm(x, mean, var, scale, shift, training=not judged).relu()
            if warps:
                flat = x.reshape(len(x) * n, -1, *x.shape[2:])
                x = F.conv2d(flat, warps[i], padding=1).reshape(x.shape)
        features = x.mean((2, 3)).reshape(len(x), n, -1).transpose(0, 1)
        scale, shift = own[-1][:, :, None].unbind(1)
        logits: Tensor = features @ own[-2].mT * scale + shift
        return logits

    def losses(self, theta: Tensor, task: Task) -> Tensor:
        """The cross-entropy of each task, [n]."""
        logits = self(theta, task.inputs).transpose(1, 2)
        return F.cross_entropy(logits, task.targets, reduction="none").mean(1)

    def draw(self, n: int, points: int, draws: Generator) -> tuple[Task, Task]:
        """n tasks of one alphabet each: drawers to adapt to, and five to judge by.

        Images are turned by a multiple of 90 degrees, the same within a task.
        """
        tasks = []
        for _ in range(n):
            which = int(torch.randint(len(self.images), (), generator=draws))
            order = torch.randperm(len(self.images[which]), generator=draws)
            turns = int(torch.randint(4, (), generator=draws))
            chosen = self.images[which][order[: self.ways]].rot90(turns, (2, 3))
            tasks.append(chosen[:, torch.randperm(chosen.shape[1], generator=draws)])
        x = torch.stack(tasks)  # [n, ways, drawers, 28, 28]
        y = torch.arange(self.ways)[None, :, None].expand(x.shape[:3])
        first, second = (
            Task(*(part[:, :, cut].flatten(1, 2) for part in (x, y)))
            for cut in (slice(HELD_OUT, None), slice(HELD_OUT))
        )
        return first, second


def split(run: Run) -> tuple[list[Tensor], list[Tensor]]:
    """Alphabets to train on and two to test on, [characters, drawers, 28, 28] each.

    Only alphabets with enough characters for a task count.
    """
    z = data.load("omniglot_small")
    bits = np.unpackbits(z["images_packed"], axis=-1, count=105)
    images = torch.from_numpy(bits).float()[:, None]
    small = F.interpolate(images, SIDE, mode="area").view(-1, 20, SIDE, SIDE)
    owner = torch.from_numpy(z["alphabet"][::20].astype(np.int64))
    large = [a for a in range(8) if (owner == a).sum() >= run.settings.ways]
    order = run.rng("alphabets").permutation(len(large))
    drawn = [small[owner == large[i]].to(run.device) for i in order]
    return drawn[2:], drawn[:2]


def accuracy(run: Run, name: str, K: int) -> float:
    """The accuracy of an arm on new alphabets after K steps.

    Args:
        run: gives the sizes; its device does the work.
        name: "scratch", "maml" (trained on five steps), "reptile" or "warp".
        K: steps of a task, in training and in the test.
    """
    small, s, arm = (
        copy(run),
        run.settings._replace(tasks=TASKS, rate=ALPHA),
        ARMS[name],
    )
    draws, small.settings = run.generator("filters", "cpu"), s
    net = Characters(s.ways, s.filters, arm.warp != "none", draws).to(run.device)
    net.images, test = split(run)
    if name in RATES:
        inner = arm.inner if arm.rule == "maml" else K
        arm = arm._replace(inner=inner, rates=(RATES[name],))
        made = loop(small, name, arm, net)._replace(schedule=linear(s.characters))
        fit(made, s.characters, folder=run.folder, name=f"{name} {K}", every=25)
    net.images, hits = test, []
    draws = run.generator("test characters", "cpu")
    for _ in range(TESTS // TASKS):
        seen, judged = draw(small, net, draws, TASKS)
        theta = loose(net.begin(TASKS))
        for _ in range(K):
            theta = loose(theta - s.rate * slope(net, theta, seen, s.clip))
        said = net(theta, judged.inputs, judged=True).argmax(-1)
        hits.append((said == judged.targets).float().mean())
    return float(torch.stack(hits).mean())
