"""The experiments of the chapter on CCU: data, training, measurements.

Images are float tensors [n, channels, height, width] with pixels in [0, 1]; labels
are int64 [n]; numbers in brackets are equations of the chapter. `run` is what
`iclrtut.start` returns; sizes come from its settings.
"""

import math
from collections.abc import Callable, Iterable
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from iclrtut import data as sets
from iclrtut import metrics, play
from iclrtut.chapters.provable_uncertainty.far import far_radius
from iclrtut.chapters.provable_uncertainty.method import (
    CCU,
    Metric,
    ccu_loss,
    radii,
    squared_distances,
)
from iclrtut.claims import Claim
from iclrtut.errors import BadRequest, RunFailed
from iclrtut.train import History, fit, seeded

CHUNK = 500  # inputs evaluated at once, so that `full` fits a small GPU
FITTED = 10_000  # inputs that mixtures are fitted on, at most
NAMES = {
    "plain": "plain",
    "oe": "outlier exposure",
    "ccu": "CCU",
    "failing": "CCU that fails",
}

# Data


class Data(NamedTuple):
    """Inputs and labels of one run, on its device."""

    x: Tensor  # [n, channels, height, width]
    y: Tensor
    x_test: Tensor
    y_test: Tensor
    name: str = "digits"


def load_data(run: Any, name: str = "digits") -> Data:
    """A data set, split anew by seed; an official test part stays the test part.

    Args:
        run: the run; as many test inputs as its settings say, or as there are.
        name: digits, mnist, fashion_mnist or cifar10.
    """
    z, rng, test = sets.load(name), run.rng("split"), run.settings.test
    if name == "digits":
        images, labels, order = z["images"] / 16, z["labels"], rng.permutation(1797)
        parts = [(images[at], labels[at]) for at in (order[test:], order[:test])]
    else:
        parts = []
        for part, most in (("train", None), ("test", test)):
            images, labels = z[f"{part}_images"], z[f"{part}_labels"]
            at = rng.permutation(len(labels))[:most]
            parts.append((images[at], labels[at]))
    pairs = [(_pixels(images), torch.tensor(y).long()) for images, y in parts]
    x, y, x_test, y_test = (t.to(run.device) for pair in pairs for t in pair)
    return Data(x, y, x_test, y_test, name)


def _pixels(images: np.ndarray[Any, Any]) -> Tensor:
    """Pictures [n, height, width(, 3)] as [n, channels, height, width] in [0, 1]."""
    x = torch.tensor(images)
    x = x.float() / 255 if x.dtype == torch.uint8 else x.float()
    return x[:, None] if x.ndim == 3 else x.permute(0, 3, 1, 2).contiguous()


def outliers(x: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """n training outliers [n, ...] in [0, 1], made anew at each call.

    The first half (rounded down) is uniform noise, the rest inputs of x with their
    pixels shuffled, each in its own way; each then has its contrast lowered at random
    and is lifted by a random offset.
    """
    size, half = x[0].numel(), n // 2

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=x.device, dtype=x.dtype)

    at = torch.randint(len(x), (n - half,), generator=generator, device=x.device)
    shuffle = draw(n - half, size).argsort(1)
    made = torch.cat([draw(half, size), x[at].flatten(1).gather(1, shuffle)])
    contrast, offset = draw(2, n, 1)
    lifted: Tensor = contrast * made + (1 - contrast) * offset
    return lifted.clamp(0, 1).view(n, *x.shape[1:])


def foreign_sets(data: Data, rng: np.random.Generator, n: int) -> dict[str, Tensor]:
    """Inputs of no class that were not trained on, at most n of each kind.

    Args:
        data: the run's data; test inputs are what most sets are made from.
        rng: which of them, and how.
        n: how many of each, at most as many as there are test inputs.

    Returns:
        Name (the keys of FOREIGN) to inputs [n, channels, height, width].
    """
    x = data.x_test[:n]
    noise = torch.tensor(rng.uniform(0, 1, tuple(x.shape)), dtype=x.dtype)
    shuffle = torch.tensor(rng.random((len(x), x[0].numel())).argsort(1))
    found = {
        "noise": noise,
        "permuted": x.flatten(1).gather(1, shuffle.to(x.device)).view_as(x),
        "photographs": _pictures(data.name, x.shape[1:], len(x), rng),
        "inverted": 1 - x,
        "turned": x.rot90(1, (2, 3)),
        "rolled": x.roll(x.shape[2] // 2, 2),
    }
    return {name: z.to(x.device) for name, z in found.items()}


def _pictures(name: str, shape: torch.Size, n: int, rng: np.random.Generator) -> Tensor:
    """Photographs; for sets of 28 x 28 in equal parts with letters and each other."""
    if shape[1] != 28:
        return _photographs(shape, n, rng)
    (other,) = {"mnist", "fashion_mnist"} - {name}
    sources = {"notmnist": "images", other: "test_images"}
    parts = [_photographs(shape, n - 2 * (n // 3), rng)]
    for source, key in sources.items():
        images = sets.load(source)[key]
        parts.append(_pixels(images[rng.integers(len(images), size=n // 3)]))
    return torch.cat(parts)


def _photographs(shape: torch.Size, n: int, rng: np.random.Generator) -> Tensor:
    return torch.tensor(sets.pictures(shape[0], shape[1], n, rng)) / 255


def moons(run: Any, n: int = 1000, name: str = "moons") -> tuple[Tensor, Tensor]:
    """Two moons of noise 0.1 about the origin: points [n, 2] and classes [n].

    Args:
        run, n: whose seed, and how many points.
        name: another name, such as "test", draws other points of the same moons.
    """
    from sklearn.datasets import make_moons

    x, y = make_moons(n, noise=0.1, random_state=_small(run, name))
    x = torch.tensor(x - [0.5, 0.25], dtype=torch.float32)  # their exact centre
    return x.to(run.device), torch.tensor(y).long().to(run.device)


def _small(run: Any, name: str) -> int:
    """A seed of that name, small enough for scikit-learn."""
    return int(run.generator(name, "cpu").initial_seed() % 2**31)


# Networks


def moons_net(seed: int) -> nn.Sequential:
    """Two hidden layers of ReLU for points of the plane, two classes."""
    with seeded(seed):
        return nn.Sequential(
            nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)
        )


def digits_net(seed: int) -> nn.Sequential:
    """Three convolutions for 8 x 8 digits [n, 1, 8, 8], ten classes."""
    with seeded(seed):
        layers: list[nn.Module] = []
        for inputs, outputs, stride in ((1, 32, 1), (32, 64, 2), (64, 64, 2)):
            layers += [nn.Conv2d(inputs, outputs, 3, stride, 1), nn.ReLU()]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, 10))


def lenet(seed: int) -> nn.Sequential:
    """A LeNet for [n, 1, 28, 28], ten classes."""
    with seeded(seed):
        layers: list[nn.Module] = []
        for inputs, outputs in ((1, 32), (32, 64)):
            layers += [nn.Conv2d(inputs, outputs, 5, 1, 2), nn.ReLU(), nn.MaxPool2d(2)]
        layers += [nn.Flatten(), nn.Linear(64 * 49, 1024), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(1024, 10))


class _Block(nn.Module):
    """A residual block of two normalised convolutions."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.skip: nn.Module = nn.Identity()
        if stride != 1:
            self.skip = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.skip(x))


def resnet18(seed: int) -> nn.Sequential:
    """ResNet-18 (He et al., 2016) for [n, 3, 32, 32], ten classes."""
    with seeded(seed):
        layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, 1, 1, bias=False)]
        layers += [nn.BatchNorm2d(64), nn.ReLU()]
        for inputs, outputs, stride in (
            (64, 64, 1),
            (64, 128, 2),
            (128, 256, 2),
            (256, 512, 2),
        ):
            layers += [_Block(inputs, outputs, stride), _Block(outputs, outputs, 1)]
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10)]
        return nn.Sequential(*layers)


NETS: dict[tuple[int, ...], Callable[[int], nn.Sequential]] = {
    (1, 8, 8): digits_net,
    (1, 28, 28): lenet,
    (3, 32, 32): resnet18,
}

# Training


def oe_loss(logits: Tensor, y: Tensor, logits_out: Tensor) -> Tensor:
    """Outlier exposure: cross-entropy in, and to the uniform distribution out."""
    return F.cross_entropy(logits, y) - logits_out.log_softmax(1).mean()


class Trained(NamedTuple):
    """A trained network, CCU's mixtures (else None) and what was watched."""

    model: nn.Module
    ccu: CCU | None
    history: History


class _Batches:
    """Batches of inputs, labels and outliers, the same for every method."""

    def __init__(self, run: Any, x: Tensor, y: Tensor, size: int, outside: Any):
        self.x, self.y, self.size, self.outside = x, y, size, outside
        self.inner, self.outer = run.generator("batches"), run.generator("outliers")

    def draw(self) -> tuple[Tensor, Tensor]:
        """Inputs and labels, drawn with replacement."""
        n, device = len(self.x), self.x.device
        at = torch.randint(n, (self.size,), generator=self.inner, device=device)
        return self.x[at], self.y[at]

    def foreign(self) -> Tensor:
        """As many outliers, drawn afresh."""
        found: Tensor = self.outside(self.size, self.outer)
        return found


def _train(
    run: Any, name: str, models: Any, batches: _Batches, steps: int, rates: Any
) -> Trained:
    """Train a network for some steps, with OE, CCU's mixtures, or neither.

    Args:
        models: method, network, and CCU's mixtures or None.
        rates: of the network and of the mixtures.
    """
    method, model, ccu = models
    parts = {"model": model, **({"ccu": ccu} if ccu else {})}
    groups = [
        {"params": list(part.parameters()), "lr": rate}
        for part, rate in zip(parts.values(), rates, strict=False)
    ]
    half = run.settings.bf16 and run.device.type == "cuda"

    def loss_at(t: int) -> tuple[Tensor, dict[str, float]]:
        x, y = batches.draw()
        x_out = batches.foreign() if method != "plain" else x[:0]
        with torch.autocast(x.device.type, torch.bfloat16, enabled=half):
            logits = model(torch.cat([x, x_out]))
        inside, outside = logits.float().split([len(x), len(x_out)])
        if ccu:
            s, th = ccu.order()
            loss = ccu_loss(ccu, inside, x, y, outside, x_out)
            return loss, {"s": s, "th": th}
        if method == "oe":
            return oe_loss(inside, y, outside), {}
        return F.cross_entropy(inside, y), {}

    model.train()
    history = fit(
        loss_at,
        torch.optim.Adam(groups, fused=True),
        steps,
        state={**parts, "inner": batches.inner, "outer": batches.outer},
        folder=run.folder,
        name=name or method,
        every=run.settings.every,
    )
    return Trained(model.eval(), ccu, history)


def _known(method: str) -> None:
    if method not in ("plain", "oe", "ccu"):
        raise BadRequest(f"there is no method {method!r}: use plain, oe or ccu.")


def train(run: Any, data: Data, method: str, name: str = "") -> Trained:
    """A classifier of images; all methods share first weights, steps and batches.

    Args:
        run: the run.
        data: what to train on.
        method: "plain", "oe" (outlier exposure) or "ccu", (8).
        name: of its checkpoint; the method's unless given.

    Raises:
        BadRequest: there is no such method.
    """
    _known(method)
    s, shape = run.settings, tuple(data.x.shape[1:])
    model = NETS[shape](run.generator("net", "cpu").initial_seed()).to(run.device)
    ccu = None
    if method == "ccu":
        x = data.x[:FITTED]
        x_out = outliers(data.x, len(x), run.generator("mixtures"))
        how = (s.components, s.floor, s.q, _small(run, "mixtures"), s.lowest)
        ccu = CCU.fit(x, x_out, *how).to(run.device)
    batches = _Batches(run, data.x, data.y, s.batch, partial(outliers, data.x))
    rates = (s.rate, s.mixture_rate)
    return _train(run, name, (method, model, ccu), batches, s.steps, rates)


def box(half: float, like: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """n points [n, 2] drawn uniformly from [-half, half]^2, of the type of `like`."""
    return like.new_empty(n, 2).uniform_(-half, half, generator=generator)


def train_moons(
    run: Any,
    x: Tensor,
    y: Tensor,
    method: str,
    components: tuple[int, int] | None = None,
    name: str = "",
) -> Trained:
    """The same on points of the plane; outliers are uniform on a box about them.

    Args:
        run: the run.
        x, y: points [n, 2] and classes [n].
        method: "plain", "oe" or "ccu".
        components: of the two mixtures; the settings' unless given.
        name: of its checkpoint; "moons-" and the method unless given.

    Raises:
        BadRequest: there is no such method.
    """
    _known(method)
    s = run.settings
    outside = partial(box, s.moons_box, x)
    model = moons_net(run.generator("moons net", "cpu").initial_seed()).to(run.device)
    ccu = None
    if method == "ccu":
        x_out = outside(len(x), run.generator("moons mixtures"))
        how = (components or s.moons_components, 0.0, s.q, _small(run, "mixtures"))
        ccu = CCU.fit(x, x_out, *how).to(run.device)
    batches, models = _Batches(run, x, y, s.moons_batch, outside), (method, model, ccu)
    rates, name = (s.moons_rate, s.moons_mixture_rate), name or f"moons-{method}"
    return _train(run, name, models, batches, s.moons_steps, rates)


# What a trained model says


def log_p(trained: Trained) -> Callable[[Tensor], Tensor]:
    """The function x -> log p(y|x) [n, classes], float64: the softmax's, or (5).

    The network sees its inputs in its own precision, the mixtures in theirs.
    """

    def told(x: Tensor) -> Tensor:
        logits: Tensor = trained.model(x.float())
        if trained.ccu is None:
            return logits.double().log_softmax(1)
        found: Tensor = trained.ccu(logits, x)
        return found

    return told


def _chunked(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([f(part) for part in torch.split(x, CHUNK)])


def confidences(trained: Trained, x: Tensor) -> Tensor:
    """max_y p(y|x) of each input, [n], float64, without gradients."""
    return _chunked(log_p(trained), x).amax(1).exp()


def mean_confidence(trained: Trained, x: Tensor) -> float:
    """MMC: the mean of max_y p(y|x) over these inputs."""
    return float(confidences(trained, x).mean())


# Attacks


def towards(ccu: CCU, x: Tensor, R: float | Tensor) -> Tensor:
    """The mean of the in-component that is likeliest within R, whitened, [n, D]."""
    z, inside = ccu.metric.whiten(x), ccu.inside
    near = squared_distances(z, inside.means).sqrt() - radii(R, z)[:, None]
    up = near.clamp_min(0).square() / (2 * inside.sigma**2)
    return inside.means.detach()[(inside.heights() - up).argmax(1)]


class Attacked(NamedTuple):
    """The surest inputs that an attack found."""

    confidence: Tensor  # [n], float64
    x: Tensor  # [n, ...], float64


def _project(z: Tensor, centre: Tensor, R: Tensor) -> Tensor:
    delta = z - centre
    length = delta.norm(dim=1, keepdim=True).clamp_min(1e-300)
    shrunk: Tensor = delta * (R[:, None] / length).clamp_max(1)
    return centre + shrunk


def _direction(z: Tensor) -> Tensor:
    """Rows scaled to length 1; a row of zeros stays."""
    largest = z.abs().amax(1, keepdim=True)
    return F.normalize(z / torch.where(largest > 0, largest, 1), dim=1)


def _starts(
    z: Tensor, R: Tensor, mean: Tensor | None, restarts: int, g: torch.Generator
) -> list[Tensor]:
    """Centre, random points of the boundary, and the boundary towards a mean."""
    drawn = [torch.empty_like(z).normal_(generator=g) for _ in range(restarts)]
    ways = [torch.zeros_like(z), *drawn]
    if mean is not None:
        ways.append(mean - z)
    return [z + R[:, None] * _direction(way) for way in ways]


def attack(
    log_p: Callable[[Tensor], Tensor],
    metric: Metric,
    x: Tensor,
    R: float | Tensor,
    steps: int,
    generator: torch.Generator,
    ccu: CCU | None = None,
    rates: tuple[float, ...] = (0.3, 0.1),
    restarts: int = 4,
) -> Attacked:
    """The surest inputs within R, by gradients from many starts, then by chance.

    Steps are normalised in the metric and shrink from rate R to 0. With `ccu`, the
    first half of them climbs log b: in most balls log p(y|x) is flat at the centre.

    Args:
        log_p: inputs [n, ...], float64, to log p(y|x) [n, M].
        metric: of the ball.
        x: centres [n, ...].
        R: radius, or radii [n].
        steps: of each start.
        generator: of random starts and of the random search.
        ccu: when log_p is CCU's: its densities.
        rates: each start is tried with each of them.
        restarts: random starts on the boundary.
    """
    centre, R = metric.whiten(x), radii(R, x)
    tries = (restarts + 1 + (ccu is not None)) * len(rates)
    found = []
    for at in torch.split(torch.arange(len(x), device=x.device), 2000 // tries or 1):
        goal = _Goal(log_p, metric, x[at].double(), centre[at], R[at], ccu)
        best = _climb(goal, steps, rates, restarts, generator)
        found.append(_search(goal, *best, max(1, steps // 5), generator))
    confidences, points = (torch.cat(parts) for parts in zip(*found, strict=True))
    return Attacked(confidences, metric.unwhiten(points, x.double()))


class _Goal(NamedTuple):
    """What is attacked, and where."""

    log_p: Callable[[Tensor], Tensor]
    metric: Metric
    x: Tensor
    centre: Tensor
    R: Tensor
    ccu: CCU | None

    def value(self, z: Tensor, ratio: bool = False) -> Tensor:
        """The log confidence at z, or the log ratio; z may hold several tries."""
        x = self.metric.unwhiten(z, self.x)
        if ratio and self.ccu is not None:
            return self.ccu.log_ratio(x)
        return self.log_p(x).double().amax(1)


def _climb(
    goal: _Goal,
    steps: int,
    rates: tuple[float, ...],
    restarts: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """The best log confidence [n] of all starts and rates, and its z [n, D]."""
    n, mean = len(goal.x), towards(goal.ccu, goal.x, goal.R) if goal.ccu else None
    starts = _starts(goal.centre, goal.R, mean, restarts, generator)
    pairs = list(product(starts, rates))
    z = torch.cat([start for start, _ in pairs]).detach()
    rate = torch.tensor(rates).to(z).repeat(len(starts)).repeat_interleave(n)
    R, centre = goal.R.repeat(len(pairs)), goal.centre.repeat(len(pairs), 1)
    best, kept = torch.full_like(R, -math.inf), z
    for t in range(steps + 1):
        by_ratio = goal.ccu is not None and t < steps / 2
        z = z.detach().requires_grad_()
        value = goal.value(z, by_ratio)
        if not by_ratio:
            better = value.detach() > best
            best = torch.where(better, value.detach(), best)
            kept = torch.where(better[:, None], z.detach(), kept)
        slope = _direction(torch.autograd.grad(value.sum(), z)[0])
        step = (rate * R * (1 - t / steps))[:, None]
        z = _project(z.detach() + step * slope, centre, R)
    first = best.view(-1, n).argmax(0)
    rows = first * n + torch.arange(n, device=z.device)
    return best[rows], kept[rows]


@torch.no_grad()
def _search(
    goal: _Goal, best: Tensor, z: Tensor, rounds: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Random moves from what was found, ever shorter; confidence [n] and z [n, D]."""
    for k in range(rounds):
        length = goal.R * 10 ** (-3 * k / rounds)
        way = _direction(torch.empty_like(z).normal_(generator=generator))
        there = _project(z + length[:, None] * way, goal.centre, goal.R)
        value = goal.value(there)
        better = value > best
        best = torch.where(better, value, best)
        z = torch.where(better[:, None], there, z)
    return best.exp(), z


# Measurements. Each returns claim id -> numbers, ready for run.claim(id, **numbers).

Measured = dict[str, dict[str, float]]
Models = dict[str, Trained]  # "plain", "oe" and "ccu"


def _mixtures(trained: Trained) -> CCU:
    if trained.ccu is None:
        raise BadRequest("this model has no mixtures: give one trained with ccu.")
    return trained.ccu


def _classes(trained: Trained, x: Tensor) -> int:
    return _chunked(trained.model, x[:1]).shape[1]


def measure_accuracy(run: Any, data: Data, trained: Models) -> Measured:
    """Error on the test inputs, in per cent; classes are taken from the logits."""
    error = {}
    for name, each in trained.items():
        logits = _chunked(each.model, data.x_test)
        error[name] = 100 - 100 * metrics.accuracy(logits, data.y_test)
    return {"accuracy": {"value": error["ccu"] - error["plain"], **error}}


def measure_foreign(
    run: Any, data: Data, trained: Models, foreign: dict[str, Tensor]
) -> Measured:
    """Mean confidence on each foreign set, and AUROC between it and test inputs."""
    inside = {name: confidences(each, data.x_test) for name, each in trained.items()}
    means: Measured = {}
    areas: Measured = {}
    for name, x in foreign.items():
        outside = {k: confidences(each, x) for k, each in trained.items()}
        mmc = {k: float(z.mean()) for k, z in outside.items()}
        area = {k: metrics.auroc(inside[k], z) for k, z in outside.items()}
        means[f"mmc_{name}"] = {"value": mmc["ccu"] - mmc["plain"], **mmc}
        areas[f"auroc_{name}"] = {"value": area["ccu"] - area["oe"], **area}
    level = {**means["mmc_noise"], "value": means["mmc_noise"]["ccu"]}
    return {**means, "mmc_level": level, **areas}


class Balls(NamedTuple):
    """Noise images with their certified radii at tau."""

    x: Tensor  # [n, ...]
    radius: Tensor  # [n], by (10)
    tight: Tensor  # [n], by (12)
    without: int  # images left out, for they have no radius


def noise_balls(run: Any, data: Data, trained: Trained) -> Balls:
    """Balls about fresh uniform noise, as large as (10) and (12) certify at tau.

    Raises:
        RunFailed: no image has a radius.
        BadRequest: the mixtures are not certified.
    """
    s, generator = run.settings, run.generator("attacked")
    x = data.x.new_empty(s.attacked, *data.x.shape[1:]).uniform_(generator=generator)
    ccu, classes = _mixtures(trained), _classes(trained, x)
    radius, tight = (ccu.radius(x, s.tau, classes, tight=t) for t in (False, True))
    kept = ~(radius.isnan() | tight.isnan())
    if not kept.any():
        raise RunFailed(
            f"none of {len(x)} noise images has a radius at confidence {s.tau}: train "
            "for more steps, or allow a higher tau."
        )
    return Balls(x[kept], radius[kept], tight[kept], int((~kept).sum()))


def _found(run: Any, trained: Trained, ccu: CCU, x: Tensor, radius: Tensor) -> Tensor:
    """The highest confidences [n] that the attack finds in balls of CCU's metric."""
    how = (run.settings.attack_steps, run.generator("attack", x.device.type))
    hit = attack(log_p(trained), ccu.metric, x, radius, *how, ccu=trained.ccu)
    return hit.confidence


def _certificate(found: Tensor, bound: Tensor, classes: int) -> dict[str, float]:
    """The largest excess of all balls; gaps where the ceiling is neither 1/M nor 1."""
    gap = bound - found
    telling = (bound > 1 / classes + 1e-3) & (bound < 1 - 1e-3)
    told = gap[telling] if telling.any() else gap
    return {
        "value": -float(gap.min()),
        "balls": float(len(gap)),
        "telling": float(telling.sum()),
        "gap": float(told.median()),
        "margin": float(told.min()),
    }


def measure_adversarial(run: Any, data: Data, trained: Models) -> Measured:
    """Attacks on every model in the balls that CCU certifies about noise.

    Returns:
        Also medians: "plain", "oe", "ccu" (attacked, in the balls of (10)), "bound",
        "gap", "ccu_tight" (in the balls of (12)), "radius", "radius_tight"; "without"
        counts the images that have no radius.
    """
    ccu = _mixtures(trained["ccu"])
    balls = noise_balls(run, data, trained["ccu"])
    x, left = balls.x, {"without": float(balls.without)}
    classes = _classes(trained["ccu"], x)
    found = {k: _found(run, z, ccu, x, balls.radius) for k, z in trained.items()}
    bound = ccu.bound(x, balls.radius, classes)
    tight = ccu.bound(x, balls.tight, classes, tight=True)
    inside = _certificate(found["ccu"], bound, classes)
    farther = _found(run, trained["ccu"], ccu, x, balls.tight)
    medians = {k: float(z.median()) for k, z in found.items()}
    medians |= {"bound": float(bound.median()), "gap": inside["gap"]}
    radii = {
        "radius": float(balls.radius.median()),
        "radius_tight": float(balls.tight.median()),
    }
    excess = float((found["ccu"] - bound).median())
    ratio = float((balls.tight / balls.radius).median())
    beside = {**medians, "ccu_tight": float(farther.median()), **radii, **left}
    return {
        "certified": inside,
        "certified_tight": _certificate(farther, tight, classes),
        "adversarial_plain": {"value": medians["plain"], **beside},
        "adversarial_ccu": {"value": excess, **beside},
        "tight": {"value": ratio, **radii, **left},
    }


def measure_balls(run: Any, trained: Trained, x: Tensor) -> Measured:
    """Attacks in random balls of the plane, against (10) and (12).

    Args:
        run: the run.
        trained: CCU on the moons.
        x: points [n, 2], for their type and device.
    """
    ccu, n = _mixtures(trained), run.settings.moons_balls
    generator = run.generator("balls", x.device.type)
    centre = x.new_empty(n, 2).uniform_(-4, 4, generator=generator)
    radius = 10 ** centre.new_empty(n, dtype=torch.float64).uniform_(
        -2, 0.7, generator=generator
    )
    found = _found(run, trained, ccu, centre, radius)
    names = {"certified": False, "certified_tight": True}
    return {
        id: _certificate(found, ccu.bound(centre, radius, 2, tight=tight), 2)
        for id, tight in names.items()
    }


def measure_far(run: Any, trained: Trained, x: Tensor) -> Measured:
    """|p(y|x) - 1/M| at the root of (9), over rays in random directions of z.

    Args:
        run: the run.
        trained: a certified CCU.
        x: inputs [n, ...], for their shape, type and device.
    """
    ccu, s = _mixtures(trained), run.settings
    classes = _classes(trained, x)
    root = far_radius(ccu, s.eps, classes)
    z = torch.empty(s.rays, x[0].numel(), dtype=torch.float64, device=x.device)
    z.normal_(generator=run.generator("rays", x.device.type))
    far = ccu.metric.unwhiten(root * F.normalize(z, dim=1), x)
    away = (_chunked(log_p(trained), far).exp() - 1 / classes).abs().max()
    return {"far_away": {"value": float(away), "radius": root, "rays": float(s.rays)}}


def worst(claims: Iterable[Claim], *found: Measured) -> Measured:
    """One measurement a claim: of several, the worst by the side of its rule.

    Args:
        claims: the declared ones, in whose order the result comes.
        found: measurements, such as those of several data sets.

    Returns:
        The numbers of the worst measurement; "balls" and "telling" are summed over
        all, and "margin" is the least.
    """
    merged: Measured = {}
    for claim in claims:
        told = [each[claim.id] for each in found if claim.id in each]
        if told:
            pick = max if claim.rule.side == "below" else min
            merged[claim.id] = dict(pick(told, key=lambda numbers: numbers["value"]))
            for key, join in (("balls", sum), ("telling", sum), ("margin", min)):
                if key in merged[claim.id]:
                    merged[claim.id][key] = join(each[key] for each in told)
    return merged


# The page's figure


def playground(run: Any, x: Tensor, y: Tensor, models: Models) -> dict[str, Any]:
    """What the page needs to run the models of the plane by itself.

    Args:
        run: the run.
        x, y: the moons' points and classes.
        models: "plain", "oe", "ccu" and "failing", all trained on these points.

    Returns:
        As the chapter's script asks; all mixtures share one metric.
    """
    metric = _mixtures(models["ccu"]).metric
    units = torch.eye(2, dtype=torch.float64, device=x.device)
    whiten = metric.whiten(metric.centre + units).T  # columns are T e_j
    points = [
        [*point, int(label)]
        for point, label in zip(x[:200].tolist(), y[:200].tolist(), strict=True)
    ]
    return {
        "mode": "moons",
        "points": points,
        "half": 4,
        "centre": metric.centre.tolist(),
        "whiten": whiten.tolist(),
        "models": [_exported(id, trained) for id, trained in models.items()],
    }


def _exported(id: str, trained: Trained) -> dict[str, Any]:
    told: dict[str, Any] = {"id": id, "name": NAMES[id]}
    told["net"] = play.export(trained.model)
    if trained.ccu is None:
        return told
    ccu = trained.ccu
    for side, mixture in (("inside", ccu.inside), ("outside", ccu.outside)):
        told[side] = {
            "log_weights": mixture.log_weights.tolist(),
            "means": mixture.means.tolist(),
            "sigma": mixture.sigma.tolist(),
        }
    return {**told, "log_q": ccu.log_q, "order": list(ccu.order())}
