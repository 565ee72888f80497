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
from iclrtut.chapters.provable_uncertainty import SEEN, method
from iclrtut.chapters.provable_uncertainty.attack import attack
from iclrtut.chapters.provable_uncertainty.method import CCU
from iclrtut.claims import Claim, Measurements
from iclrtut.errors import BadRequest, RunFailed
from iclrtut.evaluation import in_batches, predict
from iclrtut.networks import convnet, mlp
from iclrtut.run import Run
from iclrtut.train import History, Loop, fit

BATCH = 500  # inputs evaluated at once, so that `full` fits a small GPU
UNIFORM, SURE = 0.15, 0.9  # confidences that claims call nearly uniform, and sure
LEAST = 1e-9  # nats: what is nearer to its bound counts as so near
FITTED = 10_000  # inputs that mixtures are fitted on, at most
SHOWN = ("plain", "outlier exposure", "CCU", "CCU that fails")
NAMES = dict(zip(("plain", "oe", "ccu", "failing"), SHOWN, strict=True))

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

    noise = uniform(half, size)
    rows = torch.randint(len(x), (n - half,), generator=generator, device=x.device)
    order = uniform(n - half, size).argsort(1)
    flat = torch.cat([noise, x[rows].flatten(1).gather(1, order)])
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
        "letters": images.letters(x, rng, low=0, high=1),
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

    x, y = make_moons(n, noise=0.1, random_state=seed_of(run, name))
    x = torch.tensor(x - [0.5, 0.25], dtype=torch.float32)  # their exact centre
    return x.to(run.device), torch.tensor(y).long().to(run.device)


def seed_of(run: Run, name: str) -> int:
    """The seed of that name, of the 31 bits that scikit-learn takes."""
    return run.generator(name, "cpu").initial_seed() % 2**31


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
    (1, 28, 28): method.lenet,
    (3, 32, 32): method.resnet18,
}


class Trained(NamedTuple):
    """A trained network, CCU's mixtures (else None) and what was watched."""

    model: nn.Module
    ccu: CCU | None
    history: History


class Task(NamedTuple):
    """What one training of the three methods differs in from another."""

    x: Tensor  # [n, ...]
    y: Tensor  # [n]
    net: Callable[[int], nn.Sequential]  # seed to first weights
    outside: Callable[[int, torch.Generator], Tensor]  # so many outliers, fresh
    batch: int  # in, and as many out
    rate: float
    mixture_rate: float
    components: tuple[int, int]
    floor: float
    lowest: float


def images_task(run: Run, data: Data) -> Task:
    """Images, their network, and noise and shuffled images as out-distribution."""
    s, net = run.settings, NETS[tuple(data.x.shape[1:])]
    sizes = s.batch, s.rate, s.mixture_rate, s.components, s.floor, s.lowest
    return Task(data.x, data.y, net, partial(outliers, data.x), *sizes)


def plane_task(run: Run, x: Tensor, y: Tensor) -> Task:
    """Points of the plane [n, 2]; outliers are uniform on a box about them."""
    s = run.settings
    outside = partial(box, s.moons_box, x)
    rates = s.moons_rate, s.moons_mixture_rate
    last = s.moons_components, 0.0, s.moons_lowest
    return Task(x, y, moons_net, outside, s.moons_batch, *rates, *last)


def mixtures(run: Run, task: Task) -> CCU:
    """Metric and mixtures by EM, from which CCU's training starts."""
    x, seed = task.x[:FITTED], seed_of(run, "mixtures")
    x_out = task.outside(len(x), run.generator("mixtures"))
    sizes, q = (task.components, task.floor), run.settings.q
    return CCU.fit(x, x_out, *sizes, q, seed, task.lowest).to(run.device)


def loop(run: Run, task: Task, kind: str) -> Loop:
    """The training of one method; all share first weights, batches and outliers.

    Its state holds "model", and "ccu" where there are mixtures.

    Raises:
        BadRequest: there is no such method.
    """
    if kind not in ("plain", "oe", "ccu"):
        raise BadRequest(f"there is no method {kind!r}: use plain, oe or ccu.")
    model = task.net(seed_of(run, "net")).to(run.device).train()
    ccu = mixtures(run, task) if kind == "ccu" else None
    groups = [{"params": model.parameters(), "lr": task.rate}]
    if ccu:
        groups.append({"params": ccu.parameters(), "lr": task.mixture_rate})
    adam = torch.optim.Adam(groups, fused=True)
    inner, outer = run.generator("batches"), run.generator("outliers")

    def step(t: int) -> dict[str, Tensor]:
        n, device = len(task.x), task.x.device
        rows = torch.randint(n, (task.batch,), generator=inner, device=device)
        x, y, x_out = task.x[rows], task.y[rows], task.outside(task.batch, outer)
        numbers = {"loss": _loss(kind, model, ccu, x, y, x_out)}
        if ccu:
            numbers |= {"s": ccu.inside.sigma.max(), "th": ccu.outside.sigma.max()}
        adam.zero_grad()
        numbers["loss"].backward()  # type: ignore[no-untyped-call]
        adam.step()
        return numbers

    state = {"model": model, "inner": inner, "outer": outer}
    return Loop(step, adam, state | ({"ccu": ccu} if ccu else {}))


def _loss(
    kind: str, model: nn.Module, ccu: CCU | None, x: Tensor, y: Tensor, x_out: Tensor
) -> Tensor:
    if kind == "plain":
        return F.cross_entropy(model(x), y)
    inside, outside = model(torch.cat([x, x_out])).split([len(x), len(x_out)])
    if ccu is None:
        return method.oe_loss(inside, y, outside)
    return method.ccu_loss(ccu, inside, x, y, outside, x_out)


def train(run: Run, task: Task, kind: str, name: str) -> Trained:
    """`loop`, run to its end.

    Args:
        run, task: as for `loop`.
        kind: "plain", "oe" (outlier exposure) or "ccu", (8).
        name: of its checkpoint.
    """
    s, made = run.settings, loop(run, task, kind)
    history = fit(made, s.steps, folder=run.folder, name=name, every=s.every)
    return Trained(made.state["model"].eval(), made.state.get("ccu"), history)


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

Score = Callable[[Tensor], Tensor]
Models = dict[str, Trained]  # "plain", "oe" and "ccu"; where a function says so, others


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
    """Mean confidence on each foreign set, and AUROC between it and test inputs.

    No AUROC of the kinds that were trained on.
    """
    inside = {name: confidences(each, data.x_test) for name, each in trained.items()}
    means: dict[str, dict[str, float]] = {}
    areas: dict[str, dict[str, float]] = {}
    for name, x in foreign.items():
        outside = {k: confidences(each, x) for k, each in trained.items()}
        mmc = {k: float(z.mean()) for k, z in outside.items()}
        area = {k: metrics.auroc(inside[k], z) for k, z in outside.items()}
        means[f"mmc_{name}"] = {"value": mmc["ccu"] - mmc["plain"], **mmc}
        areas[f"auroc_{name}"] = {"value": area["ccu"] - area["oe"], **area}
    flat = metrics.share(confidences(trained["ccu"], foreign["noise"]) <= UNIFORM)
    areas = {id: row for id, row in areas.items() if id[6:] not in SEEN}
    return {**means, "uniform_noise": flat, **areas}


class Balls(NamedTuple):
    """Inputs that have a radius, with their certified radii."""

    x: Tensor  # [n, ...]
    radius: Tensor  # [n], by (10)
    tight: Tensor  # [n], by (12)
    without: int  # inputs left out, for they have no radius


def certified_balls(ccu: CCU, x: Tensor, tau: float, classes: int) -> Balls:
    """The balls about inputs that (10) and (12) certify at tau.

    Raises:
        RunFailed: no input has a radius.
        BadRequest: the mixtures are not certified.
    """
    radius, tight = (ccu.radius(x, tau, classes, tight=t) for t in (False, True))
    kept = ~(radius.isnan() | tight.isnan())
    if not kept.any():
        raise RunFailed(
            f"none of {len(x)} inputs has a radius at confidence {tau}: train for more "
            "steps, or allow a higher tau."
        )
    return Balls(x[kept], radius[kept], tight[kept], int((~kept).sum()))


def noise_images(run: Run, data: Data) -> Tensor:
    """Fresh uniform noise, as many images as are attacked."""
    shape = run.settings.attacked, *data.x.shape[1:]
    return data.x.new_empty(shape).uniform_(generator=run.generator("attacked"))


def nearest(ccu: CCU, foreign: dict[str, Tensor], n: int, limit: float) -> Tensor:
    """The n foreign images of the highest log b that still lies below the limit."""
    x = torch.cat(list(foreign.values()))
    log_b = ccu.log_ratio(x).detach()
    return x[log_b.masked_fill(log_b >= limit, -torch.inf).argsort()[-n:]]


def _attack(
    run: Run, score: Score, guard: CCU, x: Tensor, R: Tensor, inside: bool = False,
    pixels: bool = False,
) -> Tensor:  # fmt: skip
    """The highest score that the attack finds in each ball of the guard's, [n].

    All scores get the same starts, one of them towards an in-mean of the guard. With
    `inside` the score is of a model that has its mixtures, and half of the steps climb
    log b.
    """
    s, generator = run.settings, run.generator("attack", x.device.type)
    options = {"pixels": pixels, "restarts": s.attack_restarts, "guide": guard}
    ccu, metric = guard if inside else None, guard.metric
    found = attack(score, metric, x, R, s.attack_steps, generator, ccu, **options)
    return found.log_p


def measure_adversarial(run: Run, data: Data, trained: Models) -> Measurements:
    """Attacks on every model in the balls that CCU certifies about noise.

    Returns:
        Of each claim the share of balls in which a model was made sure, with and
        without the box of the pixels, "before" the share of centres of which it was
        sure, and the medians of what was found; "ccu_tight" is CCU's in the balls of
        (12).
    """
    ccu, s = _mixtures(trained["ccu"]), run.settings
    classes = _classes(trained["ccu"], data.x)
    balls = certified_balls(ccu, noise_images(run, data), s.tau, classes)
    more = {"without": float(balls.without), "radius": float(balls.radius.median())}
    more["radius_tight"] = float(balls.tight.median())
    tries = {k: (each, balls.radius) for k, each in trained.items()}
    tries["ccu_tight"] = trained["ccu"], balls.tight
    result: dict[str, dict[str, float]] = {}
    for end, pixels in (("", False), ("_box", True)):
        found, top = dict(more), {}
        for name, (each, R) in tries.items():
            best = _attack(run, log_p(each), ccu, balls.x, R, bool(each.ccu), pixels)
            top[name] = best.exp()
            found[name] = float(top[name].median())
        for kind in ("plain", "oe"):
            before = metrics.share(confidences(trained[kind], balls.x) > SURE)["value"]
            share = metrics.share(top[kind] > SURE)
            result[f"sure_{kind}{end}"] = {**found, "before": before, **share}
    ratio = float((balls.tight / balls.radius).median())
    return result | {"tight": {"value": ratio, **more}}


def measure_paper(
    run: Run, data: Data, trained: Models, foreign: dict[str, Tensor]
) -> Measurements:
    """The same at the paper's confidence and floor, by the paper's rate of success.

    The mixtures are those of EM; the box is that of the pixels. An attack succeeds
    where it ends at least as sure as the model is of half of its test inputs.
    """
    s, classes = run.settings, _classes(trained["ccu"], data.x)
    task = images_task(run, data)._replace(floor=s.paper_floor)
    guard, tau = mixtures(run, task).requires_grad_(False), s.paper_factor / classes
    balls = certified_balls(guard, noise_images(run, data), tau, classes)
    some = ~guard.radius(foreign["letters"], tau, classes).isnan()
    more = {"radius": float(balls.radius.median())}
    more["letters"] = metrics.share(some)["value"]
    reach = more["radius"] * guard.metric.reach()
    more |= {"least_reach": float(reach.min()), "most_reach": float(reach.max())}
    hits = {}
    for kind, each in trained.items():
        each = each._replace(ccu=guard) if kind == "ccu" else each
        own = kind == "ccu"
        top = _attack(run, log_p(each), guard, balls.x, balls.radius, own, True)
        hits[kind] = metrics.share(top.exp() >= confidences(each, data.x_test).median())
    more |= {kind: each["value"] for kind, each in hits.items()}
    return {f"paper_{kind}": {**more, **hits[kind]} for kind in ("plain", "oe")}


def measure_letters(
    run: Run, data: Data, trained: Models, foreign: dict[str, Tensor]
) -> Measurements:
    """The share of letters that have a radius, and what training (8) is good for.

    Letters cut to their ink, and others in their whole frames. "em" is the plain
    network inside the mixtures as EM found them.
    """
    ccu, x = _mixtures(trained["ccu"]), foreign["letters"]
    start = mixtures(run, images_task(run, data))
    area = {}
    for kind, each in (trained | {"em": trained["plain"]._replace(ccu=start)}).items():
        known, new = (confidences(each, z) for z in (data.x_test, x))
        area[kind] = metrics.auroc(known, new)
    framed = images.letters(x, run.rng("whole"), low=0, high=1, whole=True)
    result = {"guarded": {"value": area["ccu"] - area["em"], **area}}
    for id, z in (("certifiable", x), ("certifiable_whole", framed)):
        R = ccu.radius(z, run.settings.tau, _classes(trained["ccu"], z))
        result[id] = metrics.share(~R.isnan())
    return result


def measure_images(
    run: Run, data: Data, trained: Models, foreign: dict[str, Tensor]
) -> Measurements:
    """Attacks on log b, the worst that any network allows, about images.

    Balls about noise, and about the foreign images nearest to the data, as large as
    (10) and (12) certify.
    """
    ccu, tau = _mixtures(trained["ccu"]), run.settings.tau
    classes, n = _classes(trained["ccu"], data.x), run.settings.attacked
    near = nearest(ccu, foreign, n, method.log_odds(tau, classes))
    balls = {
        where: certified_balls(ccu, x, tau, classes)
        for where, x in (("noise", noise_images(run, data)), ("near", near))
    }
    found: dict[str, dict[str, float]] = {}
    for id, tight in (("10", False), ("12", True)):
        R = {where: b.tight if tight else b.radius for where, b in balls.items()}
        rooms = {k: _slack(run, ccu, b.x, R[k], tight) for k, b in balls.items()}
        row = {where: float(room.median()) for where, room in rooms.items()}
        row |= {f"{where}_radius": float(r.median()) for where, r in R.items()}
        every = torch.cat(list(rooms.values()))
        row |= {"value": -float(every.min()), "balls": float(len(every))}
        found[f"ball_{id}"] = row
        for where in balls:
            found[f"slack_{id}_{where}"] = {**row, "value": max(row[where], LEAST)}
    return found


def _slack(run: Run, ccu: CCU, x: Tensor, R: Tensor, tight: bool) -> Tensor:
    """How far, in nats, the highest log b found lies below its bound, [n]."""

    def ratio(x: Tensor) -> Tensor:
        return ccu.log_ratio(x)[:, None]

    found = _attack(run, ratio, ccu, x, R)
    return ccu.log_bound(x, R, tight).detach() - found


def measure_plane(run: Run, trained: Trained, x: Tensor) -> Measurements:
    """The same in random balls of the plane.

    Args:
        run: the run.
        trained: CCU on the moons.
        x: points [n, 2], for their type and device.
    """
    ccu, n = _mixtures(trained), run.settings.moons_balls
    generator = run.generator("balls", x.device.type)
    centre = x.new_empty(n, 2).uniform_(-4, 4, generator=generator)
    size = centre.new_empty(n, dtype=torch.float64)
    radius = 10 ** size.uniform_(-2, 0.7, generator=generator)
    found = {}
    for id, tight in (("ball_10", False), ("ball_12", True)):
        room = _slack(run, ccu, centre, radius, tight)
        numbers = {"value": -float(room.min()), "plane": float(room.median())}
        found[id] = {**numbers, "balls": float(n)}
    return found


def measure_far(run: Run, trained: Trained, x: Tensor) -> Measurements:
    """How far out any confidence is left, over rays in random directions of z.

    Some rays go through the means of the in-components.

    Args:
        run: the run.
        trained: a certified CCU.
        x: its training inputs [n, ...].
    """
    ccu, s = _mixtures(trained), run.settings
    classes = _classes(trained, x)
    root = method.far_radius(ccu, s.eps, classes)
    z = torch.empty(s.rays, x[0].numel(), dtype=torch.float64, device=x.device)
    z.normal_(generator=run.generator("rays", x.device.type))
    rays = F.normalize(torch.cat([z, ccu.inside.means.detach()]), dim=1)
    worst, seen = 0.0, 0.0
    for r in torch.linspace(0, 1.2 * root, s.distances, dtype=torch.float64).tolist():
        at = ccu.metric.unwhiten(r * rays, x)
        allowed = method.confidence(ccu.log_ratio(at).detach().max(), classes)
        worst = r if allowed > 1 / classes + s.eps else worst
        seen = r if confidences(trained, at).max() > 1 / classes + s.eps else seen
    data = float(ccu.metric.whiten(x).norm(dim=1).max())
    more = {"root": root, "worst": worst, "seen": seen, "data": data}
    return {
        "far_root": {"value": worst / root, **more},
        "far_falls": {"value": seen / data, **more},
    }


def worst(claims: Iterable[Claim], *measurements: Measurements) -> Measurements:
    """One measurement a claim: of several, the worst by the side of its rule.

    Args:
        claims: the declared ones, in whose order the result comes.
        measurements: such as those of several data sets.

    Returns:
        The numbers of the worst measurement, with those that it lacks from the others;
        "balls" are summed over all.
    """
    merged: dict[str, dict[str, float]] = {}
    for claim in claims:
        given = [each[claim.id] for each in measurements if claim.id in each]
        if given:
            pick = max if claim.rule.side == "below" else min
            every = {k: v for each in given for k, v in each.items()}
            worst_of = pick(given, key=lambda each: each["value"])
            merged[claim.id] = {**every, **worst_of}
            if "balls" in every:
                merged[claim.id]["balls"] = sum(each["balls"] for each in given)
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
    points = torch.cat([x, y[:, None]], 1)[:200].tolist()
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
    ccu, names = trained.ccu, ("log_weights", "means", "sigma")
    if ccu is None:
        return model
    for side, mixture in (("inside", ccu.inside), ("outside", ccu.outside)):
        model[side] = {name: getattr(mixture, name).tolist() for name in names}
    return {**model, "log_q": float(ccu.log_q), "order": list(ccu.order())}
