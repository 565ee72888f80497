"""The experiments of the chapter on JEM: data, training, measurements.

Images are float tensors [n, channels, height, width] with pixels in [-1, 1]; classes
are int64 [n]; numbers in brackets are equations of the chapter. Sizes come from the
settings of the run, which `iclrtut.start` returns.
"""

import contextlib
import math
import statistics
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from iclrtut import images, metrics, play, timing
from iclrtut.chapters.energy_based_classifier import Settings
from iclrtut.chapters.energy_based_classifier.method import (
    Net,
    Refinement,
    ReplayBuffer,
    attack_refined,
    digits_net,
    jem_loss,
    lambda_max,
    langevin,
    log_density,
    mass_score,
    pgd,
    plane_net,
    refine,
    wide_resnet,
)
from iclrtut.claims import Measurements
from iclrtut.data import load
from iclrtut.evaluation import BATCH, in_batches, predict
from iclrtut.run import Run
from iclrtut.train import Diverged, History, Loop, fit, warmup_cosine

PIXELS = {"low": -1.0, "high": 1.0}
# Where training stops. Runs that train well stay below 6 in both.
LIMITS = {"gap": 50.0, "largest": 20.0}

# Data


class Labelled(NamedTuple):
    """Inputs [n, channels, height, width] and their classes [n]."""

    x: Tensor
    y: Tensor


class Data(NamedTuple):
    """Disjoint parts of one data set, on the run's device."""

    train: Labelled  # for JEM and softmax
    evaluator: Labelled  # for the classifier that evaluates samples
    validation: Labelled  # for temperatures
    test: Labelled


def load_data(run: Run) -> Data:
    """The data of the run's profile, split anew by seed.

    For CIFAR-10 the official test part becomes test inputs and nothing else.
    """
    s: Settings = run.settings
    rng, arrays = run.rng("split"), load(s.data)
    if s.data == "digits":
        x = images.from_pixels(arrays["images"], white=16, **PIXELS)
        y = arrays["labels"]
        rows = images.split(len(x), s.split, rng)
    else:
        pixels = [arrays["train_images"], arrays["test_images"]]
        x = images.from_pixels(np.concatenate(pixels), **PIXELS)
        y = np.concatenate([arrays["train_labels"], arrays["test_labels"]])
        known = len(pixels[0])
        (test,) = images.split(len(pixels[1]), s.split[3:], rng)
        rows = [*images.split(known, s.split[:3], rng), known + test]
    labels = torch.tensor(y).long()
    parts = (Labelled(x[i].to(run.device), labels[i].to(run.device)) for i in rows)
    return Data(*parts)


def foreign_sets(test: Labelled, rng: np.random.Generator, n: int) -> dict[str, Tensor]:
    """Inputs that no classifier of this data was trained on, n of each kind.

    Args:
        test: what most sets are made from.
        rng: which of them, and how.
        n: how many of each, at most as many as there are test inputs.

    Returns:
        Name (the keys of FOREIGN) to inputs [n, channels, height, width].
    """
    x = test.x[:n]
    permuted = images.shuffled_alike(x, rng)
    interpolated = images.interpolated(test.x, test.y, n, rng)
    return {
        "noise": images.noise(x, rng, **PIXELS),
        "photographs": images.photographs(x, rng, **PIXELS),
        "permuted": permuted,
        "inverted": images.inverted(x, **PIXELS),
        "turned": images.turned(x),
        "grey": images.grey(x, rng, **PIXELS),
        "interpolated": interpolated,
    }


# Eight Gaussians in the square [-HALF, HALF]^2
CENTRES = torch.tensor(
    [[math.cos(k * math.pi / 4), math.sin(k * math.pi / 4)] for k in range(8)]
)
SPREAD, HALF = 0.15, 2.0


def eight_gaussians(n: int, generator: torch.Generator) -> Labelled:
    """n points [n, 2] of eight Gaussians on the unit circle, classes alternating."""
    which = torch.randint(8, (n,), generator=generator)
    noise = torch.randn(n, 2, generator=generator)
    return Labelled(CENTRES[which] + SPREAD * noise, which % 2)


def eight_log_density(x: Tensor) -> Tensor:
    """Exact log p(x) of `eight_gaussians`, [..., 2] to [...], nats."""
    square = (x[..., None, :] - CENTRES.to(x)).square().sum(-1) / SPREAD**2
    return torch.logsumexp(-square / 2, -1) - math.log(8 * 2 * math.pi * SPREAD**2)


def grid(points: int = 101) -> Tensor:
    """Centres of equal cells of the square, [points**2, 2]."""
    line = (torch.arange(points) + 0.5) * (2 * HALF / points) - HALF
    return torch.cartesian_prod(line, line)


def kl_on_grid(model: nn.Module) -> float:
    """KL(truth || model) of the eight Gaussians over the cells of `grid`, nats.

    Args:
        model: points [n, 2] to logits; its density is exp(LSE), normalised.
    """
    cells = grid()
    learnt = log_density(predict(model, cells)).double().log_softmax(0)
    truth = eight_log_density(cells.double()).log_softmax(0)
    return float((truth.exp() * (truth - learnt)).sum())


# Training

LossAt = Callable[[int], tuple[Tensor, dict[str, float]]]


def net(run: Run, name: str = "net") -> Net:
    """The network of the run's profile, its first weights drawn by seed and name."""
    s: Settings = run.settings
    seed = run.generator(name).initial_seed()
    if s.depth:
        return wide_resnet(s.depth, s.width, seed, bf16=s.bf16).to(run.device)
    return digits_net(seed).to(run.device)


class Trained(NamedTuple):
    """A trained network, its buffer of chains (JEM only) and its curves."""

    model: Net
    buffer: ReplayBuffer | None
    history: History


def _fit(
    run: Run,
    name: str,
    model: Net,
    loss_at: LossAt,
    steps: int,
    *,
    state: dict[str, Any],
    limits: Mapping[str, float] = {},
    checkpoint: bool = True,
) -> History:
    """Train by Adam; the learning rate warms up, then falls on half a cosine."""
    s: Settings = run.settings
    adam = torch.optim.Adam(model.parameters(), lr=s.learning_rate, fused=True)

    def step(t: int) -> dict[str, Tensor | float]:
        loss, watched = loss_at(t)
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        return {"loss": loss, **watched}

    return fit(
        Loop(step, adam, {"model": model, **state}, warmup_cosine(s.warmup, steps)),
        steps,
        folder=run.folder if checkpoint else None,
        name=name,
        limits=limits,
        every=s.checkpoint_every,
    )


def _batch(s: Settings, part: Labelled, generator: torch.Generator) -> Labelled:
    """A batch drawn with replacement, with the authors' noise on the inputs."""
    rows = torch.randint(
        len(part.x), (s.batch,), generator=generator, device=part.x.device
    )
    x = part.x[rows]
    noise = torch.empty_like(x).normal_(generator=generator)
    return Labelled(x + s.data_noise * noise, part.y[rows])


def _softmax_loss(
    s: Settings, model: Net, part: Labelled, generator: torch.Generator
) -> LossAt:
    def loss_at(t: int) -> tuple[Tensor, dict[str, float]]:
        x, y = _batch(s, part, generator)
        return F.cross_entropy(model(x), y), {}

    return loss_at


def _jem_loss(s: Settings, model: Net, part: Labelled, buffer: ReplayBuffer) -> LossAt:
    generator = buffer.generator

    def loss_at(t: int) -> tuple[Tensor, dict[str, float]]:
        x, y = _batch(s, part, generator)
        x_energy, _ = _batch(s, part, generator)
        start, slots = buffer.draw(s.batch)
        samples = langevin(model, start, s.sampler_steps, s.alpha, s.sigma, generator)
        buffer.put(slots, samples)
        loss, watched = jem_loss(model, x, y, samples, x_energy)
        return loss, {**watched, "largest": float(samples.abs().max())}

    return loss_at


def _buffer(run: Run, data: Data, name: str) -> ReplayBuffer:
    s: Settings = run.settings
    shape = tuple(data.train.x.shape[1:])
    return ReplayBuffer(s.buffer, shape, s.restart, run.generator(name), run.device)


def _train_classifier(
    run: Run, name: str, model: Net, part: Labelled, steps: int
) -> History:
    generator = run.generator(name)
    loss_at = _softmax_loss(run.settings, model, part, generator)
    return _fit(run, name, model, loss_at, steps, state={"generator": generator})


def train_softmax(run: Run, data: Data) -> Trained:
    """The baseline: cross-entropy alone, all else as in `train_jem`."""
    model, steps = net(run), run.settings.steps
    history = _train_classifier(run, "softmax", model, data.train, steps)
    return Trained(model, None, history)


def train_jem(run: Run, data: Data) -> Trained:
    """JEM as in the authors' code, at the sizes of the run, (7) to (11) and (16).

    Raises:
        Diverged: the gap or the largest pixel of a sample left its limit.
    """
    model, buffer = net(run), _buffer(run, data, "jem")
    loss_at = _jem_loss(run.settings, model, data.train, buffer)
    state = {"buffer": buffer, "generator": buffer.generator}
    steps = run.settings.steps
    history = _fit(run, "jem", model, loss_at, steps, state=state, limits=LIMITS)
    return Trained(model, buffer, history)


def train_evaluator(run: Run, data: Data) -> Net:
    """A classifier that evaluates samples; JEM has seen none of its training inputs."""
    model, steps = net(run, "judge"), run.settings.evaluator_steps
    _train_classifier(run, "judge", model, data.evaluator, steps)
    return model


def train_plane(run: Run) -> Trained:
    """JEM on the eight Gaussians, on the CPU, chains held in the square.

    Its sampler has T = 1 in (9b), so that the density of the model can be looked at.

    Raises:
        Diverged: the gap left its limit.
    """
    s: Settings = run.settings
    generator = run.generator("plane", "cpu")
    model = plane_net(generator.initial_seed())
    buffer = ReplayBuffer(s.buffer, (2,), s.restart, generator)
    sample = partial(
        langevin,
        steps=s.plane_sampler_steps,
        alpha=0.005,
        sigma=0.1,
        generator=generator,
        clamp=(-HALF, HALF),
    )

    def loss_at(t: int) -> tuple[Tensor, dict[str, float]]:
        x, y = eight_gaussians(s.batch, generator)
        start, slots = buffer.draw(s.batch)
        samples = sample(model, start)
        buffer.put(slots, samples)
        return jem_loss(model, x, y, samples)

    state, limits = {"buffer": buffer, "generator": generator}, {"gap": LIMITS["gap"]}
    steps = s.plane_steps
    history = _fit(run, "plane", model, loss_at, steps, state=state, limits=limits)
    return Trained(model, buffer, history)


def divergence(
    run: Run,
    data: Data,
    *,
    sampler_steps: int,
    alpha: float,
    sigma: float,
) -> dict[str, list[float]]:
    """Train JEM with another sampler until it diverges, and record why.

    Args:
        run, data: as for `train_jem`; no checkpoint is written.
        sampler_steps, alpha, sigma: of the sampler.

    Returns:
        Lists of one length, a row every ten steps: "step", "lse_data", "lse_samples",
        "gap", "largest" (the largest |x| of the samples) and "curvature" (alpha
        lambda_max, median over 16 inputs; 2 is the bound of (9a)). The last row is the
        one that left a limit, if any did: a gap of 50, an |x| of 20, or NaN.
    """
    s: Settings = run.settings._replace(
        sampler_steps=sampler_steps, alpha=alpha, sigma=sigma
    )
    model, buffer = net(run), _buffer(run, data, "divergence")
    training = _jem_loss(s, model, data.train, buffer)
    rows: list[dict[str, float]] = []

    def loss_at(t: int) -> tuple[Tensor, dict[str, float]]:
        loss, watched = training(t)
        within = all(abs(watched[key]) <= limit for key, limit in LIMITS.items())
        if t % 10 == 0 or not within:
            largest = lambda_max(model, data.train.x[:16], 8)
            curvature = alpha * largest.median().item()
            rows.append({"step": t, **watched, "curvature": curvature})
        return loss, watched

    state = {"buffer": buffer, "generator": buffer.generator}
    fit_until = partial(_fit, run, "divergence", model, loss_at, s.divergence_steps)
    with contextlib.suppress(Diverged):
        fit_until(state=state, limits=LIMITS, checkpoint=False)
    return {key: [row[key] for row in rows] for key in rows[0]}


# Measurements: claim id -> numbers, ready for `run.claim_all`


def _accuracy(model: nn.Module, part: Labelled) -> float:
    return metrics.accuracy(predict(model, part.x), part.y)


def measure_accuracy(data: Data, plain: Net, jem: Net) -> Measurements:
    """Accuracy on the test inputs, in per cent, without any noise on them."""
    softmax, ours = (100 * _accuracy(model, data.test) for model in (plain, jem))
    return {"accuracy": {"value": softmax - ours, "softmax": softmax, "jem": ours}}


def measure_calibration(data: Data, plain: Net, jem: Net) -> Measurements:
    """Expected calibration error on the test inputs, and its floor (13)."""
    numbers = {}
    for name, model in {"softmax": plain, "jem": jem}.items():
        p = predict(model, data.test.x).softmax(1)
        confidence = p.max(1).values
        numbers[name] = metrics.ece(p, data.test.y)
        numbers[f"{name}_floor"] = metrics.ece_floor(confidence)
        accuracy = metrics.accuracy(p, data.test.y)
        numbers[f"{name}_overconfidence"] = float(confidence.mean()) - accuracy
    return {"calibrated": {"value": numbers["softmax"] - numbers["jem"], **numbers}}


def measure_nll(data: Data, plain: Net, jem: Net) -> Measurements:
    """Negative log-likelihood on the test inputs, raw and after one temperature."""
    raw, tempered = {}, {}
    for name, model in {"softmax": plain, "jem": jem}.items():
        logits = predict(model, data.test.x)
        validation = predict(model, data.validation.x)
        temperature = metrics.fit_temperature(validation, data.validation.y)
        raw[name] = metrics.nll(logits, data.test.y)
        tempered[name] = metrics.nll(logits / temperature, data.test.y)
        tempered[f"{name}_temperature"] = temperature
        p = (logits / temperature).softmax(1)
        tempered[f"{name}_ece"] = metrics.ece(p, data.test.y)
    return {
        "nll_raw": {"value": raw["softmax"] - raw["jem"], **raw},
        "nll_tempered": {"value": tempered["softmax"] - tempered["jem"], **tempered},
    }


def ood_scores(plain: Net, jem: Net, x: Tensor) -> dict[str, Tensor]:
    """Scores [n] of inputs, each higher for the familiar, (12)."""
    logits = predict(plain, x)
    return {
        "density": log_density(predict(jem, x)),
        "mass": in_batches(partial(mass_score, jem), x),
        "softmax": logits.softmax(1).max(1).values,
        "plain_lse": log_density(logits),
        "plain_mass": in_batches(partial(mass_score, plain), x),
    }


def measure_ood(
    data: Data, plain: Net, jem: Net, foreign: dict[str, Tensor]
) -> Measurements:
    """AUROC between test inputs and each foreign set, score by score; no threshold."""
    inside = ood_scores(plain, jem, data.test.x)
    areas = {}
    for name, x in foreign.items():
        outside = ood_scores(plain, jem, x)
        areas[name] = {k: metrics.auroc(inside[k], outside[k]) for k in inside}
    return {
        f"ood_{score}_{name}": {
            "value": area[score] - area["softmax"],
            "jem": area[score],
            **{k: area[k] for k in ("softmax", "plain_lse", "plain_mass")},
        }
        for score in ("density", "mass")
        for name, area in areas.items()
    }


Curves = dict[str, dict[float, float]]


def attack_curves(run: Run, data: Data, plain: Net, jem: Net) -> Curves:
    """Accuracy under L-infinity PGD.

    Returns:
        "softmax" and "jem", each radius (0 and those of the profile) to accuracy.
    """
    s: Settings = run.settings
    x, y = data.test.x[: s.attacked], data.test.y[: s.attacked]
    curves: Curves = {}
    for name, model in {"softmax": plain, "jem": jem}.items():
        curves[name] = {0.0: _accuracy(model, Labelled(x, y))}
        for radius in s.radii:
            attack = _linf(run, model, radius, run.generator("attack"))
            adversarial = Labelled(in_batches(attack, x, y), y)
            curves[name][radius] = _accuracy(model, adversarial)
    return curves


def _linf(
    run: Run, model: Net, radius: float, generator: torch.Generator
) -> Callable[[Tensor, Tensor], Tensor]:
    """The attack of the chapter, from inputs and classes to adversarial inputs."""
    steps = run.settings.attack_steps
    return partial(
        pgd, model, radius=radius, steps=steps, norm="linf", generator=generator
    )


def measure_robustness(run: Run, data: Data, jem: Net, curves: Curves) -> Measurements:
    """Accuracy under L-infinity PGD, and under three attacks on the refinement.

    Args:
        run, data, jem: as for `attack_curves`.
        curves: of `attack_curves`. The claim is measured at the smallest radius that
            leaves softmax less than 20 %.
    """
    s, generator = run.settings, run.generator("refined attack")
    broken = [r for r, accuracy in curves["softmax"].items() if r and accuracy < 0.2]
    radius = min(broken, default=s.radii[-1])
    robust = {name: curve[radius] for name, curve in curves.items()}
    x, y = data.test.x[: s.refine_attacked], data.test.y[: s.refine_attacked]
    refinement = Refinement(s.refine_steps, s.alpha, s.sigma, s.refine_chains)
    few = max(1, BATCH // s.refine_steps)  # unrolled steps share the memory
    attacked = [
        attack_refined(
            jem,
            inputs,
            labels,
            refinement,
            radius=s.refine_radius,
            steps=s.attack_steps,
            norm="linf",
            generator=generator,
        )
        for inputs, labels in zip(torch.split(x, few), torch.split(y, few), strict=True)
    ]
    refined = {k: _mean(torch.cat([part[k] for part in attacked])) for k in attacked[0]}
    # The bare network is attacked three times too, so that neither has more chances.
    bare = torch.ones_like(y).bool()
    attack = _linf(run, jem, s.refine_radius, generator)
    for _ in range(3):
        bare &= predict(jem, in_batches(attack, x, y)).argmax(1) == y
    refine_inputs = partial(refine, jem, refinement=refinement, generator=generator)
    clean = metrics.accuracy(in_batches(refine_inputs, x, size=few), y)
    refined |= {"radius": s.refine_radius, "jem": _mean(bare), "clean": clean}
    gain = robust["jem"] - robust["softmax"]
    return {
        "robust": {"value": gain, "radius": radius, **robust},
        "robust_refined": {"value": refined["worst"] - refined["jem"], **refined},
    }


def _mean(hits: Tensor) -> float:
    return float(hits.double().mean())


def class_gaussians(x: Tensor, y: Tensor, n: int, rng: np.random.Generator) -> Tensor:
    """n samples [n, ...] of a Gaussian for each class (Ledoit and Wolf's covariance).

    Args:
        x, y: inputs [m, ...] and their classes [m], which the Gaussians are fitted to.
        n: how many; classes come as often as in y.
        rng: of the classes and the samples.
    """
    from sklearn.covariance import ledoit_wolf

    flat, labels = x.flatten(1).double().cpu().numpy(), y.cpu().numpy()
    wanted = rng.choice(labels, n)
    samples = rng.standard_normal((n, flat.shape[1]))
    for label in np.unique(wanted):
        members, rows = flat[labels == label], wanted == label
        factor = np.linalg.cholesky(ledoit_wolf(members)[0])
        samples[rows] = members.mean(0) + samples[rows] @ factor.T
    return torch.tensor(samples, dtype=x.dtype, device=x.device).view(n, *x.shape[1:])


def draw_samples(
    run: Run, data: Data, jem: Net, buffer: ReplayBuffer
) -> dict[str, Tensor]:
    """What the Frechet distances compare, as many of each, clamped to [-1, 1].

    Returns:
        "test" (the reference), "training" (the floor), "buffer", "chains" (fresh, from
        noise), "gaussian", "noise"; and "conditional" with its wanted classes "wanted".
    """
    s: Settings = run.settings
    n, generator = s.samples, run.generator("draws")
    noise = data.test.x.new_empty(n, *data.test.x.shape[1:])
    noise.uniform_(-1, 1, generator=generator)
    wanted = torch.arange(s.conditional, device=noise.device) % 10
    x, y = data.train

    def chains(start: Tensor, target: Tensor | None = None) -> Tensor:
        return langevin(jem, start, s.sample_steps, s.alpha, s.sigma, generator, target)

    samples = {
        "test": data.test.x[:n],
        "training": x[:n],
        "buffer": buffer.sample(n),
        "chains": in_batches(chains, noise),
        "gaussian": class_gaussians(x, y, n, run.rng("gaussian")),
        "noise": noise,
        "conditional": in_batches(chains, noise[: s.conditional], wanted),
    }
    return {**{k: z.clamp(-1, 1) for k, z in samples.items()}, "wanted": wanted}


def measure_generation(
    data: Data, evaluator: Net, samples: dict[str, Tensor]
) -> Measurements:
    """Frechet distances in the evaluator's features, and the share it recognises.

    Args:
        data: its training inputs show what was memorised.
        evaluator: of `train_evaluator`: it has seen none of the training inputs.
        samples: of `draw_samples`.
    """
    compared = ("training", "buffer", "chains", "gaussian", "noise")
    with torch.no_grad():
        test, *features = (
            in_batches(evaluator.features, samples[k]) for k in ("test", *compared)
        )
    distances = (metrics.frechet_distance(each, test) for each in features)
    frechet = dict(zip(compared, distances, strict=True))
    ratio = {k: math.log(frechet[k] / frechet["gaussian"]) for k in compared}
    answers = predict(evaluator, samples["conditional"]).argmax(1)
    nearest = {
        f"nearest_{k}": _nearest(samples[k], data.train.x) for k in ("buffer", "test")
    }
    return {
        "generates_buffer": {"value": ratio["buffer"], **frechet, **nearest},
        "generates_noise": {"value": ratio["chains"], **frechet},
        "recognised": metrics.share(answers == samples["wanted"]),
    }


def _nearest(x: Tensor, training: Tensor) -> float:
    """Mean distance to the nearest training input: small means memorised."""
    return float(torch.cdist(x.flatten(1), training.flatten(1)).amin(1).mean())


def measure_overhead(run: Run, data: Data) -> Measurements:
    """Seconds of a training step, JEM and softmax in turn, median of five rounds."""
    s: Settings = run.settings
    model, buffer = net(run), _buffer(run, data, "overhead")
    adam = torch.optim.Adam(model.parameters(), lr=s.learning_rate, fused=True)

    def train(loss_at: LossAt) -> None:
        for t in range(s.timed_steps):
            adam.zero_grad()
            loss_at(t)[0].backward()  # type: ignore[no-untyped-call]
            adam.step()

    softmax = _softmax_loss(s, model, data.train, buffer.generator)
    jem = _jem_loss(s, model, data.train, buffer)
    arms = {"softmax": partial(train, softmax), "jem": partial(train, jem)}
    seconds = {
        name: statistics.median(times) / s.timed_steps
        for name, times in timing.alternate(arms, rounds=5).items()
    }
    return {"overhead": {"value": seconds["jem"] / seconds["softmax"], **seconds}}


# Pictures


def picture(x: Tensor) -> np.ndarray[Any, Any]:
    """An input [channels, height, width] as matplotlib draws it, clamped to [-1, 1]."""
    image = x.detach().cpu().clamp(-1, 1).permute(1, 2, 0).numpy()
    return image[..., 0] if image.shape[-1] == 1 else (image + 1) / 2


def reliability(p: Tensor, y: Tensor) -> tuple[list[float], list[float]]:
    """Mean confidence and accuracy of each tenth of the inputs, least sure first.

    Args:
        p: class probabilities [n, classes].
        y: classes [n].
    """
    confidence, answer = p.max(1)
    order = confidence.argsort()
    correct = (answer == y).double()
    tenths = [rows for rows in order.tensor_split(10) if len(rows)]
    confidences = [float(confidence[rows].mean()) for rows in tenths]
    return confidences, [float(correct[rows].mean()) for rows in tenths]


def playground(run: Run, data: Data, model: Net) -> dict[str, Any]:
    """What the page needs to run the digits net by itself, as its script reads it.

    A network for photographs is too large for a page: then the page shows the idea.
    """
    if data.train.x.shape[1:] != (1, 8, 8):
        return {"mode": "idea"}
    x, y = data.test
    generator = run.generator("play", "cpu")
    noise = torch.empty(x.shape).uniform_(-1, 1, generator=generator).to(x)
    quantiles: dict[str, dict[str, list[float]]] = {"lse": {}, "mass": {}}
    for name, inputs in {"digits": x, "noise": noise}.items():
        lse = log_density(predict(model, inputs))
        for score, values in {"lse": lse, "mass": mass_score(model, inputs)}.items():
            levels = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95]).to(values)
            quantiles[score][name] = values.quantile(levels).tolist()
    first = [int((y == label).nonzero()[0]) for label in sorted(set(y.tolist()))]
    return {
        "mode": "digits",
        "model": play.export(model),
        "shape": [1, 8, 8],
        "examples": [
            {"pixels": x[i].flatten().tolist(), "label": int(y[i])} for i in first
        ],
        "reference": quantiles,
    }
