"""Handwritten characters for `full`: the paper's network, batched over tasks.

Numbers in brackets are equations of the chapter.
"""

from copy import copy

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from iclrtut import data
from iclrtut.chapters.warped_gradients import ARMS
from iclrtut.chapters.warped_gradients.experiments import LOOPS, draw
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
        images: of the alphabets to draw tasks from, [characters, drawers, 28, 28] each.
        draws: of the first weights.
    """

    def __init__(
        self,
        ways: int,
        filters: int,
        warp: bool,
        images: list[Tensor],
        draws: Generator,
    ) -> None:
        super().__init__()
        self.ways, self.images = ways, images
        self.own, first = [], []
        for inputs in (1, *[filters] * (BLOCKS - 1)):
            self.own += [torch.Size((filters, inputs, 3, 3)), torch.Size((2, filters))]
            bound = (9 * inputs) ** -0.5
            drawn = torch.rand(self.own[-2], generator=draws)
            scale = torch.stack([torch.ones(filters), torch.zeros(filters)])
            first += [bound * (2 * drawn - 1), scale]
        self.own += [torch.Size((ways, filters)), torch.Size((ways, 1))]
        drawn = torch.rand(self.own[-2], generator=draws)
        first += [(2 * drawn - 1) / filters**0.5, torch.zeros(ways, 1)]
        identity = torch.zeros(filters, filters, 3, 3)
        identity[torch.arange(filters), torch.arange(filters), 1, 1] = 1
        warps = [identity] * BLOCKS if warp else []
        self.shared = [identity.shape] * len(warps)
        self.start = nn.Parameter(torch.cat([w.flatten() for w in first]))
        flat = [w.flatten() for w in warps]
        self.warp = nn.Parameter(torch.cat([torch.zeros(0), *flat]))
        self.running: list[tuple[Tensor, Tensor]] = []

    def begin(self, n: int) -> Tensor:
        """The start of n tasks, whose statistics begin anew."""
        width = n * self.own[0][0]
        zeros = self.start.new_zeros(width)
        self.running = [(zeros.clone(), zeros + 1) for _ in range(BLOCKS)]
        return self.start.expand(n, -1)

    def forward(self, theta: Tensor, x: Tensor, judged: bool = False) -> Tensor:
        """Logits [n, images, ways] of images [n, images, 28, 28].

        Args:
            theta: weights of n tasks.
            x: images.
            judged: whether batch norm uses the statistics of training.
        """
        n, blocks, warps = len(x), parts(theta, self.own), parts(self.warp, self.shared)
        x = x.transpose(0, 1)  # [images, tasks, 28, 28]
        for i in range(BLOCKS):
            weight, (scale, shift) = blocks[2 * i], blocks[2 * i + 1].unbind(1)
            weight = weight.flatten(0, 1)
            x = F.max_pool2d(F.conv2d(x, weight, padding=1, groups=n), 2)
            # Several iterates of one task at once leave its statistics alone.
            kept = len(self.running[i][0]) == x.shape[1]
            mean, var = self.running[i] if kept else (None, None)
            affine = scale.flatten(), shift.flatten()
            x = F.batch_norm(x, mean, var, *affine, training=not judged).relu()
            if warps:
                flat = x.unflatten(1, (n, -1)).flatten(0, 1)
                flat = F.conv2d(flat, warps[i], padding=1)
                x = flat.unflatten(0, (-1, n)).flatten(1, 2)
        features = x.unflatten(1, (n, -1)).mean((3, 4)).transpose(0, 1)
        return features @ blocks[-2].mT + blocks[-1].mT

    def losses(self, theta: Tensor, task: Task) -> Tensor:
        """The cross-entropy of each task, [n]."""
        logits = self(theta, task.inputs).transpose(1, 2)
        return F.cross_entropy(logits, task.targets, reduction="none").mean(1)

    def draw(self, n: int, points: int, draws: Generator) -> tuple[Task, Task]:
        """n tasks of one alphabet each: drawers to adapt to, and five to judge by.

        Images are turned by a multiple of 90 degrees, the same within a character.
        """
        pairs = []
        for _ in range(n):
            which = int(torch.randint(len(self.images), (), generator=draws))
            order = torch.randperm(len(self.images[which]), generator=draws)[
                : self.ways
            ]
            turns = torch.randint(4, (self.ways,), generator=draws).tolist()
            drawn = zip(self.images[which][order], turns, strict=True)
            chosen = torch.stack([image.rot90(k, (1, 2)) for image, k in drawn])
            drawers = torch.randperm(chosen.shape[1], generator=draws)
            pairs.append(chosen[:, drawers])
        x = torch.stack(pairs)  # [n, ways, drawers, 28, 28]
        y = torch.arange(self.ways)[None, :, None].expand(x.shape[:3])
        first, second = (
            Task(x[:, :, cut].flatten(1, 2), y[:, :, cut].flatten(1, 2))
            for cut in (slice(HELD_OUT, None), slice(HELD_OUT))
        )
        return first, second


def alphabets(ways: int) -> list[Tensor]:
    """Images of each alphabet with enough characters, [characters, drawers, 28, 28]."""
    z = data.load("omniglot_small")
    bits = np.unpackbits(z["images_packed"], axis=-1, count=105)
    images = torch.from_numpy(bits).float()[:, None]
    small = F.interpolate(images, SIDE, mode="area")[:, 0]
    found = [small[torch.from_numpy(z["alphabet"] == a)] for a in range(8)]
    return [each.unflatten(0, (-1, 20)) for each in found if len(each) >= 20 * ways]


def split(run: Run) -> tuple[list[Tensor], list[Tensor]]:
    """Alphabets to train on, and two to test on, by the run's seed."""
    every = alphabets(run.settings.ways)
    order = run.rng("alphabets").permutation(len(every))
    drawn = [every[i].to(run.device) for i in order]
    return drawn[2:], drawn[:2]


def accuracy(run: Run, name: str, K: int) -> float:
    """The accuracy of an arm on new alphabets after K steps.

    Args:
        run: gives the sizes; its device does the work.
        name: "scratch", "maml" (trained on five steps), "reptile" or "warp".
        K: steps of a task, in training and in the test.
    """
    small, (train, test) = copy(run), split(run)
    s = run.settings._replace(tasks=TASKS, rate=ALPHA)
    small.settings, arm = s, ARMS[name]
    weights = run.generator("filters", "cpu")
    net = Characters(s.ways, s.filters, arm.warp != "none", train, weights)
    net = net.to(run.device)
    if name in RATES:
        inner = arm.inner if arm.rule == "maml" else K
        arm = arm._replace(inner=inner, rates=(RATES[name],))
        loop = LOOPS[arm.rule](small, name, arm, net)
        loop, title = loop._replace(schedule=linear(s.characters)), f"{name} {K}"
        every = s.checkpoint_every
        fit(loop, s.characters, folder=run.folder, name=title, every=every)
    net.images, hits = test, []
    draws = run.generator("test characters", "cpu")
    for _ in range(TESTS // TASKS):
        seen, judged = draw(small, net, draws, TASKS)
        theta = loose(net.begin(TASKS))
        for _ in range(K):
            theta = loose(theta - s.rate * slope(net, theta, seen, s.clip))
        with torch.no_grad():
            said = net(theta, judged.inputs, judged=True).argmax(-1)
        hits.append((said == judged.targets).float().mean())
    return float(torch.stack(hits).mean())
