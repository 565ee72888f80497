"""The experiments of the chapter on JEM: data, training, measurements.

Images are float tensors [n, channels, height, width] with pixels in [-1, 1]; labels
are int64 [n]; numbers in brackets are equations of the chapter. `run` is what
`iclrtut.start` returns; sizes come from its settings.
"""

import contextlib
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from iclrtut import data as sets
from iclrtut import metrics, play
from iclrtut.chapters.energy_based_classifier import Settings
from iclrtut.chapters.energy_based_classifier.attacks import attack_refined
from iclrtut.chapters.energy_based_classifier.method import (
    Net,
    Refinement,
    ReplayBuffer,
    digits_net,
    jem_loss,
    lambda_max,
    langevin,
    log_density,
    mass_score,
    mlp,
    pgd,
    refine,
    wide_resnet,
)
from iclrtut.train import Diverged, History, fit, warmup_cosine

CHUNK = 250  # inputs evaluated at once, so that `full` fits a small GPU

LIMITS = {"gap": 50.0, "largest": 20.0}  # stable runs stay below 6

# Data


class Data(NamedTuple):
    """Inputs and labels of one run, on its device."""

    x: Tensor  # [n, channels, height, width], for JEM and softmax
    y: Tensor
    x_judge: Tensor  # for the independent classifier
    y_judge: Tensor
    x_validation: Tensor  # for temperatures
    y_validation: Tensor
    x_test: Tensor
    y_test: Tensor


def digits(run: Any) -> Data:
    """scikit-learn's digits, split anew by seed, [n, 1, 8, 8]."""
    arrays = sets.load("digits")
    images = torch.tensor(arrays["images"], dtype=torch.float32)[:, None] / 8 - 1
    return _split(run, images, torch.tensor(arrays["labels"]))


def cifar(run: Any) -> Data:
    """CIFAR-10, its training part split anew by seed, [n, 3, 32, 32]."""
    z = sets.load("cifar10")
    images = np.concatenate([z["train_images"], z["test_images"]])
    labels = np.concatenate([z["train_labels"], z["test_labels"]])
    return _split(run, _colours(images), torch.tensor(labels), len(z["test_labels"]))


def load_data(run: Any) -> Data:
    """The data of the run's profile."""
    return {"digits": digits, "cifar10": cifar}[run.settings.data](run)


def _colours(images: np.ndarray[Any, Any]) -> Tensor:
    return torch.tensor(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def _split(run: Any, x: Tensor, y: Tensor, held_out: int = 0) -> Data:
    """Shuffle and cut; the last `held_out` inputs can only become test inputs."""
    rng, known = run.rng("split"), len(x) - held_out
    tail = rng.permutation(np.arange(known, len(x)))
    order = torch.tensor(np.concatenate([rng.permutation(known), tail]))
    *sizes, test = run.settings.split
    parts = [*torch.split(order[: sum(sizes)], sizes), order[len(x) - test :]]
    return Data(*(z[part].to(run.device) for part in parts for z in (x, y.long())))


def _differ(y: Tensor, rng: np.random.Generator, n: int) -> tuple[Any, Any]:
    """n pairs of positions whose classes differ."""
    labels = y.cpu().numpy()
    left, right = rng.integers(len(labels), size=(2, 20 * n))
    kept = np.flatnonzero(labels[left] != labels[right])[:n]
    return left[kept], right[kept]


def _photographs(shape: torch.Size, n: int, rng: np.random.Generator) -> Tensor:
    return torch.tensor(sets.pictures(shape[0], shape[1], n, rng)) / 127.5 - 1


def foreign_sets(data: Data, rng: np.random.Generator, n: int) -> dict[str, Tensor]:
    """Inputs that no classifier of this data was trained on, n of each kind.

    Args:
        data: the run's data; test inputs are what most sets are made from.
        rng: which of them, and how.
        n: how many of each, at most as many as there are test inputs.

    Returns:
        Name (the keys of FOREIGN) to inputs [n, channels, height, width].
    """
    x = data.x_test[:n]
    shape = x.shape[1:]
    shuffled = torch.tensor(rng.permutation(shape.numel()), device=x.device)
    left, right = _differ(data.y_test, rng, n)

    def uniform(*size: int) -> Tensor:
        return torch.tensor(rng.uniform(-1, 1, size), dtype=x.dtype)

    found = {
        "noise": uniform(n, *shape),
        "photographs": _photographs(shape, n, rng),
        "permuted": x.flatten(1)[:, shuffled].view_as(x),
        "inverted": -x,
        "turned": x.rot90(1, (2, 3)),
        "grey": uniform(n, 1, 1, 1).expand(n, *shape).clone(),
        "interpolated": (data.x_test[left] + data.x_test[right]) / 2,
    }
    return {name: z.to(x.device) for name, z in found.items()}


CENTRES = torch.tensor(
    [[math.cos(k * math.pi / 4), math.sin(k * math.pi / 4)] for k in range(8)]
)
SPREAD = 0.15


def eight_gaussians(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """n points [n, 2] of eight Gaussians on the unit circle, classes alternating."""
    which = torch.randint(8, (n,), generator=generator)
    noise = torch.randn(n, 2, generator=generator)
    return CENTRES[which] + SPREAD * noise, which % 2


def eight_log_density(x: Tensor) -> Tensor:
    """Exact log p(x) of `eight_gaussians`, [..., 2] to [...], nats."""
    square = (x[..., None, :] - CENTRES.to(x)).square().sum(-1) / SPREAD**2
    return torch.logsumexp(-square / 2, -1) - math.log(8 * 2 * math.pi * SPREAD**2)


def grid(points: int = 101, half: float = 2.0) -> Tensor:
    """Centres of the cells of the square [-half, half]^2, [points**2, 2]."""
    line = (torch.arange(points) + 0.5) * (2 * half / points) - half
    return torch.cartesian_prod(line, line)


def kl_on_grid(
    model: nn.Module, temperature: float = 1.0, points: int = 101, half: float = 2.0
) -> float:
    """KL(truth || model) of the eight Gaussians over a grid's cells, nats.

    Args:
        model: points [n, 2] to logits.
        temperature: T of (9b): the model's density is exp(LSE / T), normalised.
        points, half: of the grid.
    """
    cells = grid(points, half)
    with torch.no_grad():
        learnt = (log_density(model(cells)).double() / temperature).log_softmax(0)
    truth = eight_log_density(cells.double()).log_softmax(0)
    return float((truth.exp() * (truth - learnt)).sum())


# Training


def net(run: Any, name: str = "net") -> Net:
    """The network of the run's profile, its first weights drawn by seed and name."""
    s, seed = run.settings, run.generator(name).initial_seed()
    if s.depth:
        return wide_resnet(s.depth, s.width, seed, bf16=s.bf16).to(run.device)
    return digits_net(seed).to(run.device)


class Trained(NamedTuple):
    """A trained network, its buffer of chains (JEM only) and what was watched."""

    model: Net
    buffer: ReplayBuffer | None
    history: History


def _train(
    run: Any,
    name: str,
    model: Net,
    loss_at: Any,
    steps: int,
    state: dict[str, Any],
    limits: dict[str, float] | None = None,
    keep: bool = True,
) -> History:
    s = run.settings
    adam = torch.optim.Adam(model.parameters(), lr=s.rate, fused=True)
    return fit(
        loss_at,
        adam,
        steps,
        state={"model": model, **state},
        folder=run.folder if keep else None,
        name=name,
        schedule=warmup_cosine(s.warmup, steps),
        limits=limits or {},
        every=s.every,
    )


def _batch(
    s: Settings, x: Tensor, y: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A batch drawn with replacement, with the training noise of the recipe."""
    at = torch.randint(len(x), (s.batch,), generator=generator, device=x.device)
    noise = torch.empty_like(x[at]).normal_(generator=generator)
    return x[at] + s.data_noise * noise, y[at]


def _softmax_loss(
    s: Settings, model: Net, x: Tensor, y: Tensor, generator: torch.Generator
) -> Any:
    def loss_at(t: int) -> tuple[Tensor, dict[str, float]]:
        noisy, labels = _batch(s, x, y, generator)
        return F.cross_entropy(model(noisy), labels), {}

    return loss_at


def _jem_loss(s: Settings, model: Net, data: Data, buffer: ReplayBuffer) -> Any:
    generator = buffer.generator
    sampler = (s.sampler_steps, s.alpha, s.sigma, generator)

    def loss_at(t: int) -> tuple[Tensor, dict[str, float]]:
        x, y = _batch(s, data.x, data.y, generator)
        x_energy, _ = _batch(s, data.x, data.y, generator)
        start, slots = buffer.draw(s.batch)
        x_samples = langevin(model, start, *sampler)
        buffer.put(slots, x_samples)
        loss, seen = jem_loss(model, x, y, x_samples, x_energy)
        return loss, {**seen, "largest": float(x_samples.abs().max())}

    return loss_at


def _buffer(run: Any, data: Data, name: str) -> ReplayBuffer:
    s, shape = run.settings, tuple(data.x.shape[1:])
    return ReplayBuffer(s.buffer, shape, s.restart, run.generator(name), run.device)


def train_softmax(run: Any, data: Data, name: str = "softmax") -> Trained:
    """The baseline: cross-entropy alone, all else as in `train_jem`."""
    model, generator = net(run), run.generator(name)
    loss_at = _softmax_loss(run.settings, model, data.x, data.y, generator)
    history = _train(
        run, name, model, loss_at, run.settings.steps, {"generator": generator}
    )
    return Trained(model, None, history)


def train_jem(run: Any, data: Data, name: str = "jem") -> Trained:
    """JEM by the official recipe at the run's sizes, (7) to (11)."""
    model, buffer = net(run), _buffer(run, data, name)
    loss_at = _jem_loss(run.settings, model, data, buffer)
    state = {"buffer": buffer, "generator": buffer.generator}
    history = _train(run, name, model, loss_at, run.settings.steps, state, LIMITS)
    return Trained(model, buffer, history)


def train_judge(run: Any, data: Data, name: str = "judge") -> Net:
    """A classifier that shares no training input with the others, to judge samples."""
    model, generator = net(run, name), run.generator(name)
    loss_at = _softmax_loss(run.settings, model, data.x_judge, data.y_judge, generator)
    _train(
        run, name, model, loss_at, run.settings.judge_steps, {"generator": generator}
    )
    return model


def train_plane(
    run: Any, name: str = "plane", alpha: float = 0.005, sigma: float = 0.1
) -> Trained:
    """JEM on the eight Gaussians, chains held in [-2, 2]; T = 1 unless told, (9b)."""
    s = run.settings
    generator = run.generator(name, "cpu")
    model = mlp(generator.initial_seed())
    buffer = ReplayBuffer(s.buffer, (2,), s.restart, generator)
    sampler = (s.plane_sampler_steps, alpha, sigma, generator, None, (-2.0, 2.0))

    def loss_at(t: int) -> tuple[Tensor, dict[str, float]]:
        x, y = eight_gaussians(s.batch, generator)
        start, slots = buffer.draw(s.batch)
        x_samples = langevin(model, start, *sampler)
        buffer.put(slots, x_samples)
        return jem_loss(model, x, y, x_samples)

    state = {"buffer": buffer, "generator": generator}
    history = _train(
        run, name, model, loss_at, s.plane_steps, state, {"gap": LIMITS["gap"]}
    )
    return Trained(model, buffer, history)


def divergence(
    run: Any,
    data: Data,
    steps: int,
    sampler_steps: int,
    alpha: float,
    sigma: float,
    every: int = 10,
) -> dict[str, list[float]]:
    """Train JEM with another sampler until it diverges, and watch why.

    Args:
        run, data: as for `train_jem`; nothing is kept on disk.
        steps: at most so many.
        sampler_steps, alpha, sigma: of the sampler.
        every: steps between two rows.

    Returns:
        Lists of one length: "step", "lse_data", "lse_samples", "gap", "largest" (the
        largest |x| of the samples) and "curvature" (alpha lambda_max, median over 16
        inputs; 2 is the bound of (9a)). The last row is the one that crossed a limit
        (|gap| 50, |x| 20, NaN), if any did.
    """
    s = run.settings._replace(sampler_steps=sampler_steps, alpha=alpha, sigma=sigma)
    model, buffer = net(run), _buffer(run, data, "divergence")
    training = _jem_loss(s, model, data, buffer)
    rows: list[dict[str, float]] = []

    def loss_at(t: int) -> tuple[Tensor, dict[str, float]]:
        loss, seen = training(t)
        within = all(abs(seen[key]) <= limit for key, limit in LIMITS.items())
        if t % every == 0 or not within:
            curvature = alpha * lambda_max(model, data.x[:16], 8).median().item()
            rows.append({"step": t, **seen, "curvature": curvature})
        return loss, seen

    state = {"buffer": buffer, "generator": buffer.generator}
    with contextlib.suppress(Diverged):
        _train(run, "divergence", model, loss_at, steps, state, LIMITS, keep=False)
    return {key: [row[key] for row in rows] for key in rows[0]}


# Measurements. Each returns claim id -> numbers, ready for run.claim(id, **numbers).

Measured = dict[str, dict[str, float]]


def _chunked(f: Callable[..., Tensor], *inputs: Tensor, size: int = CHUNK) -> Tensor:
    parts = zip(*(torch.split(x, size) for x in inputs), strict=True)
    return torch.cat([f(*part) for part in parts])


def logits_of(model: nn.Module, x: Tensor) -> Tensor:
    """Logits [n, classes] without gradients, a few inputs at a time."""
    with torch.no_grad():
        return _chunked(model, x)


def _accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    return float(metrics.accuracy(logits_of(model, x), y))


def attack_curves(
    run: Any, data: Data, plain: Net, jem: Net, norm: str = "linf"
) -> dict[str, dict[float, float]]:
    """For "softmax" and "jem": radius (0 and the profile's) to accuracy under PGD."""
    s = run.settings
    x, y = data.x_test[: s.attacked], data.y_test[: s.attacked]
    curves: dict[str, dict[float, float]] = {}
    for name, model in {"softmax": plain, "jem": jem}.items():
        curves[name] = {0.0: _accuracy(model, x, y)}
        for radius in s.radii:
            how = (radius, s.attack_steps, norm, run.generator("attack"))
            hit = _chunked(lambda a, b: pgd(model, a, b, *how), x, y)  # noqa: B023
            curves[name][radius] = _accuracy(model, hit, y)
    return curves


def measure_accuracy(run: Any, data: Data, plain: Net, jem: Net) -> Measured:
    """Accuracy on the test inputs, in per cent, without any noise on them."""
    usual, ours = (100 * _accuracy(m, data.x_test, data.y_test) for m in (plain, jem))
    return {"accuracy": {"value": usual - ours, "softmax": usual, "jem": ours}}


def measure_calibration(run: Any, data: Data, plain: Net, jem: Net) -> Measured:
    """Expected calibration error on the test inputs, and its floor (13)."""
    numbers = {}
    for name, model in {"softmax": plain, "jem": jem}.items():
        p = logits_of(model, data.x_test).softmax(1)
        confidence = p.max(1).values
        numbers[name] = metrics.ece(p, data.y_test)
        numbers[f"{name}_floor"] = metrics.ece_floor(confidence)
        right = metrics.accuracy(p, data.y_test)
        numbers[f"{name}_overconfidence"] = float(confidence.mean()) - right
    return {"calibrated": {"value": numbers["softmax"] - numbers["jem"], **numbers}}


def measure_nll(run: Any, data: Data, plain: Net, jem: Net) -> Measured:
    """Negative log-likelihood on the test inputs, raw and after one temperature."""
    raw, tempered = {}, {}
    for name, model in {"softmax": plain, "jem": jem}.items():
        logits = logits_of(model, data.x_test)
        held = logits_of(model, data.x_validation)
        temperature = metrics.fit_temperature(held, data.y_validation)
        raw[name] = metrics.nll(logits, data.y_test)
        tempered[name] = metrics.nll(logits / temperature, data.y_test)
        tempered[f"{name}_temperature"] = temperature
        cooled = (logits / temperature).softmax(1)
        tempered[f"{name}_ece"] = metrics.ece(cooled, data.y_test)
    return {
        "nll_raw": {"value": raw["softmax"] - raw["jem"], **raw},
        "nll_tempered": {"value": tempered["softmax"] - tempered["jem"], **tempered},
    }


def ood_scores(plain: Net, jem: Net, x: Tensor) -> dict[str, Tensor]:
    """Scores [n] of inputs, each higher for the familiar, (12)."""
    usual = logits_of(plain, x)
    return {
        "density": log_density(logits_of(jem, x)),
        "mass": _chunked(lambda part: mass_score(jem, part), x),
        "softmax": usual.softmax(1).max(1).values,
        "plain_lse": log_density(usual),
        "plain_mass": _chunked(lambda part: mass_score(plain, part), x),
    }


def measure_ood(
    run: Any, data: Data, plain: Net, jem: Net, foreign: dict[str, Tensor]
) -> Measured:
    """AUROC between test inputs and each foreign set, score by score; no threshold."""
    inside = ood_scores(plain, jem, data.x_test)
    areas: Measured = {}
    for name, x in foreign.items():
        outside = ood_scores(plain, jem, x)
        areas[name] = {k: metrics.auroc(inside[k], outside[k]) for k in inside}

    def numbers(score: str, area: dict[str, float]) -> dict[str, float]:
        beside = {k: area[k] for k in ("softmax", "plain_lse", "plain_mass")}
        return {"value": area[score] - area["softmax"], "jem": area[score], **beside}

    return {
        f"ood_{score}_{name}": numbers(score, area)
        for score in ("density", "mass")
        for name, area in areas.items()
    }


def measure_robustness(
    run: Any,
    data: Data,
    plain: Net,
    jem: Net,
    curves: dict[str, dict[float, float]] | None = None,
) -> Measured:
    """Accuracy under L-infinity PGD, and under three attacks on the refinement.

    Args:
        curves: those of `attack_curves`, when they are at hand.
    """
    s, generator = run.settings, run.generator("refined attack")
    curves = curves or attack_curves(run, data, plain, jem)
    broken = [r for r, right in curves["softmax"].items() if r and right < 0.2]
    radius = min(broken, default=s.radii[-1])
    hard = {name: curve[radius] for name, curve in curves.items()}
    x, y = data.x_test[: s.refined], data.y_test[: s.refined]
    how = Refinement(s.refine_steps, s.alpha, s.sigma, s.chains)
    few = max(1, CHUNK // s.refine_steps)  # unrolled steps share the memory
    parts = [
        attack_refined(jem, a, b, s.radius, s.attack_steps, how, generator)
        for a, b in zip(torch.split(x, few), torch.split(y, few), strict=True)
    ]
    refined = {k: _share(torch.cat([part[k] for part in parts])) for k in parts[0]}
    bare = torch.ones_like(y, dtype=torch.bool)
    attack = (s.radius, s.attack_steps, "linf", generator)
    for _ in range(3):
        hit = _chunked(lambda a, b: pgd(jem, a, b, *attack), x, y)
        bare &= logits_of(jem, hit).argmax(1) == y
    clean = _chunked(lambda a: refine(jem, a, how, generator), x, size=few)
    beside = {"jem": _share(bare), "clean": metrics.accuracy(clean, y)}
    value = refined["worst"] - beside["jem"]
    return {
        "robust": {"value": hard["jem"] - hard["softmax"], "radius": radius, **hard},
        "robust_refined": {"value": value, "radius": s.radius, **beside, **refined},
    }


def _share(right: Tensor) -> float:
    return float(right.double().mean())


def class_gaussians(x: Tensor, y: Tensor, n: int, rng: np.random.Generator) -> Tensor:
    """n draws [n, ...] of a Gaussian for each class (Ledoit and Wolf's covariance)."""
    from sklearn.covariance import ledoit_wolf

    flat, labels = x.flatten(1).double().cpu().numpy(), y.cpu().numpy()
    wanted = rng.choice(labels, n)
    drawn = rng.standard_normal((n, flat.shape[1]))
    for label in np.unique(wanted):
        own, at = flat[labels == label], wanted == label
        factor = np.linalg.cholesky(ledoit_wolf(own)[0])
        drawn[at] = own.mean(0) + drawn[at] @ factor.T
    return torch.tensor(drawn, dtype=x.dtype, device=x.device).view(n, *x.shape[1:])


def draw_samples(
    run: Any, data: Data, jem: Net, buffer: ReplayBuffer
) -> dict[str, Tensor]:
    """What the Frechet distances compare, as many of each, clamped to [-1, 1].

    Returns:
        "test" (the reference), "training" (the floor), "buffer", "chains" (fresh, from
        noise), "gaussian", "noise"; and "conditional" with its wanted classes "wanted".
    """
    s, n, generator = run.settings, run.settings.drawn, run.generator("draws")
    noise = data.x_test.new_empty(n, *data.x_test.shape[1:])
    noise.uniform_(-1, 1, generator=generator)
    wanted = torch.arange(s.conditional, device=noise.device) % 10

    def chains(*start_and_target: Tensor) -> Tensor:
        sampler = (s.draw_steps, s.alpha, s.sigma, generator)
        return _chunked(lambda x, *y: langevin(jem, x, *sampler, *y), *start_and_target)

    drawn = {
        "test": data.x_test[:n],
        "training": data.x[:n],
        "buffer": buffer.sample(n),
        "chains": chains(noise),
        "gaussian": class_gaussians(data.x, data.y, n, run.rng("gaussian")),
        "noise": noise,
        "conditional": chains(noise[: s.conditional], wanted),
    }
    return {**{k: z.clamp(-1, 1) for k, z in drawn.items()}, "wanted": wanted}


def measure_generation(
    run: Any, data: Data, judge: Net, drawn: dict[str, Tensor]
) -> Measured:
    """Frechet distances in the judge's features, and the share it recognises.

    Args:
        judge: of `train_judge`: it has seen none of the training inputs.
        drawn: of `draw_samples`.
    """
    with torch.no_grad():
        images = {k: x for k, x in drawn.items() if x.ndim == 4}
        features = {k: _chunked(judge.features, x) for k, x in images.items()}
    rows = ("training", "buffer", "chains", "gaussian", "noise")
    frechet = {k: metrics.frechet_distance(features[k], features["test"]) for k in rows}
    ratio = {k: math.log(frechet[k] / frechet["gaussian"]) for k in rows}
    right = logits_of(judge, drawn["conditional"]).argmax(1) == drawn["wanted"]
    trials = {"successes": float(right.sum()), "trials": float(len(right))}
    near = {f"nearest_{k}": _nearest(drawn[k], data.x) for k in ("buffer", "test")}
    return {
        "generates_buffer": {"value": ratio["buffer"], **frechet, **near},
        "generates_noise": {"value": ratio["chains"], **frechet},
        "recognised": {"value": _share(right), **trials},
    }


def _nearest(x: Tensor, training: Tensor) -> float:
    """Mean distance to the nearest training input: small means memorised."""
    return float(torch.cdist(x.flatten(1), training.flatten(1)).amin(1).mean())


def measure_overhead(run: Any, data: Data) -> Measured:
    """Seconds of a training step, JEM and softmax in turn, median of five rounds."""
    s = run.settings
    model, buffer = net(run), _buffer(run, data, "overhead")
    adam = torch.optim.Adam(model.parameters(), lr=s.rate, fused=True)
    losses = {
        "softmax": _softmax_loss(s, model, data.x, data.y, buffer.generator),
        "jem": _jem_loss(s, model, data, buffer),
    }
    seconds: dict[str, list[float]] = {name: [] for name in losses}
    for _ in range(6):
        for name, loss_at in losses.items():
            began = _now(run)
            for t in range(s.timed):
                adam.zero_grad()
                loss_at(t)[0].backward()
                adam.step()
            seconds[name].append((_now(run) - began) / s.timed)
    median = {name: float(np.median(times[1:])) for name, times in seconds.items()}
    return {"overhead": {"value": median["jem"] / median["softmax"], **median}}


def _now(run: Any) -> float:
    if run.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


# Pictures


def picture(x: Tensor) -> np.ndarray[Any, Any]:
    """An input [channels, height, width] as matplotlib draws it, clamped to [-1, 1]."""
    image = x.detach().cpu().clamp(-1, 1).permute(1, 2, 0).numpy()
    return image[..., 0] if image.shape[-1] == 1 else (image + 1) / 2


def reliability(
    p: Tensor, y: Tensor, bins: int = 10
) -> tuple[list[float], list[float]]:
    """Mean confidence and accuracy of equal shares of the inputs, least sure first.

    Args:
        p: class probabilities [n, classes].
        y: classes [n].
        bins: how many shares.
    """
    confidence, guess = p.max(1)
    order = confidence.argsort()
    right = (guess == y).double()
    parts = [(confidence[i], right[i]) for i in order.tensor_split(bins) if len(i)]
    return [float(c.mean()) for c, _ in parts], [float(r.mean()) for _, r in parts]


def playground(run: Any, data: Data, model: Net) -> dict[str, Any]:
    """What the page needs to run the digits net by itself, as its script asks.

    A network for photographs is too large for a page: then the page shows the idea.
    """
    if data.x.shape[1:] != (1, 8, 8):
        return {"mode": "idea"}
    digits, labels = data.x_test.cpu(), data.y_test.cpu()
    noise = torch.empty_like(digits).uniform_(
        -1, 1, generator=run.generator("play", "cpu")
    )
    first = [int((labels == y).nonzero()[0]) for y in sorted(set(labels.tolist()))]
    reference: dict[str, dict[str, list[float]]] = {"lse": {}, "mass": {}}
    for name, x in {"digits": data.x_test, "noise": noise.to(data.x.device)}.items():
        heights = log_density(logits_of(model, x))
        for score, values in {"lse": heights, "mass": mass_score(model, x)}.items():
            marks = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95]).to(values)
            reference[score][name] = values.quantile(marks).tolist()
    return {
        "mode": "digits",
        "model": play.export(model),
        "shape": [1, 8, 8],
        "examples": [
            {"pixels": digits[i].flatten().tolist(), "label": int(labels[i])}
            for i in first
        ],
        "reference": reference,
    }
