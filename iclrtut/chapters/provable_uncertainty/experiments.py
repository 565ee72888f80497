"""What judges the claims of the chapter on CCU: data, training, measurements.

Images are float tensors [n, channels, height, width] with pixels in [0, 1]; labels
are int64 [n]; numbers in brackets are equations of the chapter. `run` is what
`iclrtut.start` returns; sizes come from its settings.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from iclrtut import data as sets
from iclrtut import images, metrics, play
from iclrtut.chapters.provable_uncertainty.attack import attack
from iclrtut.chapters.provable_uncertainty.method import (
    CCU,
    ccu_loss,
    far_radius,
    lenet,
    oe_loss,
    resnet18,
)
from iclrtut.claims import Claim, Measurements
from iclrtut.errors import BadRequest, RunFailed
from iclrtut.evaluation import in_batches, predict
from iclrtut.networks import convnet, mlp
from iclrtut.run import Run
from iclrtut.train import History, Loop, fit

BATCH = 500  # inputs evaluated at once, so that `full` fits a small GPU
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


def load_data(run: Run, name: str = "digits") -> Data:
    """A data set, split anew by seed; an official test part stays the test part.

    Args:
        run: the run; as many test inputs as its settings say, or as there are.
        name: digits, mnist, fashion_mnist or cifar10.
    """
    arrays, rng, size = sets.load(name), run.rng("split"), run.settings.test
    if name == "digits":
        x = images.from_pixels(arrays["images"], low=0, high=1, white=16)
        y = torch.tensor(arrays["labels"]).long()
        test, train = images.split(len(y), [size, len(y) - size], rng)
        parts = [x[train], y[train], x[test], y[test]]
    else:
        parts = []
        for part, most in (("train", None), ("test", size)):
            pixels, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
            rows = rng.permutation(len(labels))[:most]
            x = images.from_pixels(pixels[rows], low=0, high=1)
            parts += [x, torch.tensor(labels[rows]).long()]
    x, y, x_test, y_test = (part.to(run.device) for part in parts)
    return Data(x, y, x_test, y_test, name)


def outliers(x: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """n training outliers [n, ...] in [0, 1], fresh at each call.

    The first half (rounded down) is uniform noise, the rest inputs of x with their
    pixels shuffled, each in its own way; each then has its contrast lowered at random
    and is lifted by a random offset.
    """
    size, half = x[0].numel(), n // 2

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=x.device, dtype=x.dtype)

    rows = torch.randint(len(x), (n - half,), generator=generator, device=x.device)
    order = uniform(n - half, size).argsort(1)
    flat = torch.cat([uniform(half, size), x[rows].flatten(1).gather(1, order)])
    contrast, offset = uniform(2, n, 1)
    lifted: Tensor = contrast * flat + (1 - contrast) * offset
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
    return {
        "noise": images.noise(x, rng, low=0, high=1),
        "permuted": images.shuffled(x, rng),
        "photographs": _pictures(x, data.name, rng),
        "inverted": images.inverted(x, low=0, high=1),
        "turned": images.turned(x),
        "rolled": images.rolled(x),
    }


def _pictures(x: Tensor, name: str, rng: np.random.Generator) -> Tensor:
    """Photographs; for sets of 28 x 28 in equal parts with letters and each other."""
    if x.shape[-1] != 28:
        return images.photographs(x, rng, low=0, high=1)
    third = len(x) // 3
    (other,) = {"mnist", "fashion_mnist"} - {name}
    parts = [images.photographs(x[2 * third :], rng, low=0, high=1)]
    for source, key in {"notmnist": "images", other: "test_images"}.items():
        pixels = sets.load(source)[key]
        rows = rng.integers(len(pixels), size=third)
        parts.append(images.from_pixels(pixels[rows], low=0, high=1).to(x))
    return torch.cat(parts)


def moons(run: Run, n: int = 1000, name: str = "moons") -> tuple[Tensor, Tensor]:
    """Two moons of noise 0.1 about the origin: points [n, 2] and classes [n].

    Args:
        run, n: whose seed, and how many points.
        name: another name, such as "test", draws other points of the same moons.
    """
    from sklearn.datasets import make_moons

    x, y = make_moons(n, noise=0.1, random_state=_seed(run, name) % 2**31)
    x = torch.tensor(x - [0.5, 0.25], dtype=torch.float32)  # their exact centre
    return x.to(run.device), torch.tensor(y).long().to(run.device)


def _seed(run: Run, name: str) -> int:
    """The seed of that name; scikit-learn takes it modulo 2^31."""
    return run.generator(name, "cpu").initial_seed()


def box(half: float, like: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """n points [n, 2] drawn uniformly from [-half, half]^2, of the type of `like`."""
    return like.new_empty(n, 2).uniform_(-half, half, generator=generator)


# Training


def moons_net(seed: int) -> nn.Sequential:
    """Two hidden layers of ReLU for points of the plane [n, 2], two classes."""
    return mlp((2, 64, 64, 2), seed)


def digits_net(seed: int) -> nn.Sequential:
    """Three convolutions for 8 x 8 digits [n, 1, 8, 8], ten classes."""
    return convnet((1, 32, 64, 64), seed)


NETS: dict[tuple[int, ...], Callable[[int], nn.Sequential]] = {
    (1, 8, 8): digits_net,
    (1, 28, 28): lenet,
    (3, 32, 32): resnet18,
}


class Trained(NamedTuple):
    """A trained network, CCU's mixtures (else None) and what was watched."""

    model: nn.Module
    ccu: CCU | None
    history: History


class Batches:
    """Batches of inputs, labels and outliers, the same for every method.

    Args:
        run: whose seed.
        x, y: inputs [n, ...] and labels [n].
        size: of a batch.
        outside: number of outliers and generator to outliers.
    """

    def __init__(
        self,
        run: Run,
        x: Tensor,
        y: Tensor,
        size: int,
        outside: Callable[[int, torch.Generator], Tensor],
    ):
        self.x, self.y, self.size, self.outside = x, y, size, outside
        self.inner, self.outer = run.generator("batches"), run.generator("outliers")

    def draw(self) -> tuple[Tensor, Tensor]:
        """Inputs and labels, drawn with replacement."""
        n, device = len(self.x), self.x.device
        rows = torch.randint(n, (self.size,), generator=self.inner, device=device)
        return self.x[rows], self.y[rows]

    def foreign(self) -> Tensor:
        """As many outliers, drawn afresh."""
        return self.outside(self.size, self.outer)


class Plan(NamedTuple):
    """How long and how fast a network is trained."""

    steps: int
    rate: float
    mixture_rate: float


def _fit(
    run: Run,
    method: str,
    model: nn.Module,
    ccu: CCU | None,
    batches: Batches,
    plan: Plan,
    name: str,
) -> Trained:
    """Train a network for some steps, with OE, CCU's mixtures, or neither."""
    state = {"model": model.to(run.device).train(), **({"ccu": ccu} if ccu else {})}
    groups = [
        {"params": list(part.parameters()), "lr": rate}
        for part, rate in zip(state.values(), plan[1:], strict=False)
    ]
    adam = torch.optim.Adam(groups, fused=True)
    half = run.settings.bf16 and run.device.type == "cuda"

    def step(t: int) -> dict[str, Tensor | float]:
        x, y = batches.draw()
        x_out = batches.foreign() if method != "plain" else x[:0]
        with torch.autocast(x.device.type, torch.bfloat16, enabled=half):
            logits = model(torch.cat([x, x_out]))
        inside, outside = logits.float().split([len(x), len(x_out)])
        widths: dict[str, float] = {}
        if ccu:
            widths = dict(zip(("s", "th"), ccu.order(), strict=True))
            loss = ccu_loss(ccu, inside, x, y, outside, x_out)
        elif method == "oe":
            loss = oe_loss(inside, y, outside)
        else:
            loss = F.cross_entropy(inside, y)
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        return {"loss": loss, **widths}

    drawn = {"inner": batches.inner, "outer": batches.outer}
    loop, every = Loop(step, adam, {**state, **drawn}), run.settings.every
    history = fit(loop, plan.steps, folder=run.folder, name=name, every=every)
    return Trained(model.eval(), ccu, history)


def _initial_mixtures(
    run: Run, method: str, x: Tensor, x_out: Tensor, **options: Any
) -> CCU | None:
    """The mixtures that CCU begins with; None for the other methods."""
    if method not in ("plain", "oe", "ccu"):
        raise BadRequest(f"there is no method {method!r}: use plain, oe or ccu.")
    if method != "ccu":
        return None
    seed = _seed(run, "mixtures") % 2**31
    return CCU.fit(x, x_out, q=run.settings.q, seed=seed, **options).to(run.device)


def train(run: Run, data: Data, method: str, name: str = "") -> Trained:
    """A classifier of images; all methods share first weights, steps and batches.

    Args:
        run: the run.
        data: what to train on.
        method: "plain", "oe" (outlier exposure) or "ccu", (8).
        name: of its checkpoint; the method's unless given.

    Raises:
        BadRequest: there is no such method.
    """
    s, outside = run.settings, partial(outliers, data.x)
    x = data.x[:FITTED]
    x_out = outside(len(x), run.generator("mixtures"))
    sizes = {"components": s.components, "floor": s.floor, "lowest": s.lowest}
    ccu = _initial_mixtures(run, method, x, x_out, **sizes)
    model = NETS[tuple(x.shape[1:])](_seed(run, "net"))
    batches = Batches(run, data.x, data.y, s.batch, outside)
    plan = Plan(s.steps, s.rate, s.mixture_rate)
    return _fit(run, method, model, ccu, batches, plan, name or method)


def train_moons(
    run: Run,
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
    s, outside = run.settings, partial(box, run.settings.moons_box, x)
    x_out = outside(len(x), run.generator("moons mixtures"))
    sizes = {"components": components or s.moons_components, "floor": 0.0}
    ccu = _initial_mixtures(run, method, x, x_out, **sizes)
    batches = Batches(run, x, y, s.moons_batch, outside)
    plan = Plan(s.moons_steps, s.moons_rate, s.moons_mixture_rate)
    model = moons_net(_seed(run, "moons net"))
    return _fit(run, method, model, ccu, batches, plan, name or f"moons-{method}")


# What a trained model says


def log_p(trained: Trained) -> Callable[[Tensor], Tensor]:
    """The function x -> log p(y|x) [n, classes], float64: the softmax's, or (5).

    The network sees its inputs in its own precision, the mixtures in theirs.
    """

    def function(x: Tensor) -> Tensor:
        logits: Tensor = trained.model(x.float())
        if trained.ccu is None:
            return logits.double().log_softmax(1)
        log_p: Tensor = trained.ccu(logits, x)
        return log_p

    return function


@torch.no_grad()
def confidences(trained: Trained, x: Tensor) -> Tensor:
    """max_y p(y|x) of each input, [n], float64, without gradients."""
    return in_batches(log_p(trained), x, size=BATCH).amax(1).exp()


def mean_confidence(trained: Trained, x: Tensor) -> float:
    """MMC: the mean of max_y p(y|x) over these inputs."""
    return float(confidences(trained, x).mean())


# Measurements, ready for `run.claim_all`

Models = dict[str, Trained]  # "plain", "oe" and "ccu"


def _mixtures(trained: Trained) -> CCU:
    if trained.ccu is None:
        raise BadRequest("this model has no mixtures: give one trained with ccu.")
    return trained.ccu


def _classes(trained: Trained, x: Tensor) -> int:
    return predict(trained.model, x[:1]).shape[1]


def measure_accuracy(run: Run, data: Data, trained: Models) -> Measurements:
    """Error on the test inputs, in per cent; classes are taken from the logits."""
    error = {}
    for name, each in trained.items():
        logits = predict(each.model, data.x_test, BATCH)
        error[name] = 100 - 100 * metrics.accuracy(logits, data.y_test)
    return {"accuracy": {"value": error["ccu"] - error["plain"], **error}}


def measure_foreign(
    run: Run, data: Data, trained: Models, foreign: dict[str, Tensor]
) -> Measurements:
    """Mean confidence on each foreign set, and AUROC between it and test inputs."""
    inside = {name: confidences(each, data.x_test) for name, each in trained.items()}
    means: dict[str, dict[str, float]] = {}
    areas: dict[str, dict[str, float]] = {}
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


def noise_balls(run: Run, data: Data, trained: Trained) -> Balls:
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


def _attacked(
    run: Run, trained: Trained, ccu: CCU, x: Tensor, radius: Tensor
) -> Tensor:
    """The highest confidences [n] that the attack finds in balls of CCU's metric."""
    return attack(
        log_p(trained),
        ccu.metric,
        x,
        radius,
        steps=run.settings.attack_steps,
        generator=run.generator("attack", x.device.type),
        ccu=trained.ccu,
    ).confidence


def _certificate(attacked: Tensor, bound: Tensor, classes: int) -> dict[str, float]:
    """The largest excess of all balls; gaps where the ceiling is neither 1/M nor 1."""
    gap = bound - attacked
    telling = (bound > 1 / classes + 1e-3) & (bound < 1 - 1e-3)
    shown = gap[telling] if telling.any() else gap
    return {
        "value": -float(gap.min()),
        "balls": float(len(gap)),
        "telling": float(telling.sum()),
        "gap": float(shown.median()),
        "margin": float(shown.min()),
    }


def measure_adversarial(run: Run, data: Data, trained: Models) -> Measurements:
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
    attacked = {k: _attacked(run, z, ccu, x, balls.radius) for k, z in trained.items()}
    bound = ccu.bound(x, balls.radius, classes)
    tight = ccu.bound(x, balls.tight, classes, tight=True)
    inside = _certificate(attacked["ccu"], bound, classes)
    farther = _attacked(run, trained["ccu"], ccu, x, balls.tight)
    medians = {k: float(z.median()) for k, z in attacked.items()}
    medians |= {"bound": float(bound.median()), "gap": inside["gap"]}
    radii = {
        "radius": float(balls.radius.median()),
        "radius_tight": float(balls.tight.median()),
    }
    excess = float((attacked["ccu"] - bound).median())
    ratio = float((balls.tight / balls.radius).median())
    extras = {**medians, "ccu_tight": float(farther.median()), **radii, **left}
    return {
        "certified": inside,
        "certified_tight": _certificate(farther, tight, classes),
        "adversarial_plain": {"value": medians["plain"], **extras},
        "adversarial_ccu": {"value": excess, **extras},
        "tight": {"value": ratio, **radii, **left},
    }


def measure_balls(run: Run, trained: Trained, x: Tensor) -> Measurements:
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
    attacked = _attacked(run, trained, ccu, centre, radius)
    names = {"certified": False, "certified_tight": True}
    return {
        id: _certificate(attacked, ccu.bound(centre, radius, 2, tight=tight), 2)
        for id, tight in names.items()
    }


def measure_far(run: Run, trained: Trained, x: Tensor) -> Measurements:
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
    with torch.no_grad():
        p = in_batches(log_p(trained), far, size=BATCH).exp()
    away = (p - 1 / classes).abs().max()
    return {"far_away": {"value": float(away), "radius": root, "rays": float(s.rays)}}


def worst(claims: Iterable[Claim], *measurements: Measurements) -> Measurements:
    """One measurement a claim: of several, the worst by the side of its rule.

    Args:
        claims: the declared ones, in whose order the result comes.
        measurements: such as those of several data sets.

    Returns:
        The numbers of the worst measurement; "balls" and "telling" are summed over
        all, and "margin" is the least.
    """
    merged: dict[str, dict[str, float]] = {}
    for claim in claims:
        given = [each[claim.id] for each in measurements if claim.id in each]
        if given:
            pick = max if claim.rule.side == "below" else min
            merged[claim.id] = dict(pick(given, key=lambda numbers: numbers["value"]))
            for key, join in (("balls", sum), ("telling", sum), ("margin", min)):
                if key in merged[claim.id]:
                    merged[claim.id][key] = join(each[key] for each in given)
    return merged


# The page's figure


def playground(x: Tensor, y: Tensor, models: Models) -> dict[str, Any]:
    """What the page needs to run the models of the plane by itself.

    Args:
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
    model = {"id": id, "name": NAMES[id], "net": play.export(trained.model)}
    ccu = trained.ccu
    if ccu is None:
        return model
    for side, mixture in (("inside", ccu.inside), ("outside", ccu.outside)):
        model[side] = {
            "log_weights": mixture.log_weights.tolist(),
            "means": mixture.means.tolist(),
            "sigma": mixture.sigma.tolist(),
        }
    return {**model, "log_q": ccu.log_q, "order": list(ccu.order())}
