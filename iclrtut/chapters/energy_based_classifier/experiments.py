"""The experiments of the chapter on JEM: data, training, measurements.

Images are float tensors [n, channels, height, width] with pixels in [-1, 1]; classes
are int64 [n]; numbers in brackets are equations of the chapter. Sizes come from the
settings of the run, which `iclrtut.start` returns.
"""

import statistics
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from iclrtut import images, metrics, play, timing
from iclrtut.chapters.energy_based_classifier import OWN, RIVALS, SCORES, Settings
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
        "letters": images.letters(x, rng, low=PIXELS["low"], high=PIXELS["high"]),
        "binary": images.noise(x, rng, **PIXELS).sign(),
        "photographs": images.photographs(x, rng, **PIXELS),
        "permuted": permuted,
        "inverted": images.inverted(x, **PIXELS),
        "turned": images.turned(x),
        "grey": images.grey(x, rng, **PIXELS),
        "interpolated": interpolated,
    }


# Training


def net(run: Run, name: str = "net") -> Net:
    """The network of the run's profile, its first weights drawn by seed and name."""
    s: Settings = run.settings
    seed = run.generator(name).initial_seed()
    if s.depth:
        return wide_resnet(s.depth, s.width, seed, bf16=s.bf16).to(run.device)
    return digits_net(seed).to(run.device)


def draw_batch(
    part: Labelled, n: int, noise: float, generator: torch.Generator
) -> Labelled:
    """n inputs drawn with replacement, with normal noise on their pixels."""
    device = part.x.device
    rows = torch.randint(len(part.x), (n,), generator=generator, device=device)
    x = part.x[rows]
    return Labelled(
        x + noise * torch.randn(x.shape, generator=generator, device=device),
        part.y[rows],
    )


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def loop(run: Run, data: Data, settings: Settings | None = None) -> Loop:
    """JEM as in the authors' code, at the sizes of the run, (7) to (10a) and (16).

    Args:
        run, data: what is trained on what.
        settings: in place of those of the run.
    """
    s: Settings = settings or run.settings
    model, draws = net(run), run.generator("jem")
    shape = tuple(data.train.x.shape[1:])
    buffer = ReplayBuffer(s.buffer, shape, s.restart, draws, run.device)
    adam = torch.optim.Adam(model.parameters(), lr=s.learning_rate, fused=True)

    def step(t: int) -> dict[str, Tensor | float]:
        x, y = draw_batch(data.train, s.batch, s.data_noise, draws)
        second, _ = draw_batch(data.train, s.batch, s.data_noise, draws)
        start, slots = buffer.draw(s.batch)
        samples = langevin(model, start, s.sampler_steps, s.alpha, s.sigma, draws)
        buffer.put(slots, samples)
        loss, watched = jem_loss(model, x, y, samples, second)
        _descend(adam, loss)
        return {"loss": loss, **watched, "largest": samples.abs().max()}

    state = {"model": model, "buffer": buffer, "draws": draws}
    return Loop(step, adam, state, warmup_cosine(s.warmup, s.steps))


LOSSES = ("joint", "relabelled", "split")


def labelled_loop(run: Run, data: Data, loss: str) -> Loop:
    """JEM with a chain for each label y of the batch, which climbs f(x')[y].

    Args:
        run, data: as in `loop`.
        loss: "joint", as in the authors' code: mean f(x')[y] - mean f(x)[y], which the
            chains' labels bias by (8b). "relabelled": the same with the chains' labels
            drawn from p(y|x') at their ends, which leaves no bias. "split": (16).
    """
    s: Settings = run.settings
    made = loop(run, data)
    model, buffer, draws = made.state.values()

    def step(t: int) -> dict[str, Tensor | float]:
        x, y = draw_batch(data.train, s.batch, s.data_noise, draws)
        start, slots = buffer.draw(s.batch, y)
        samples = langevin(model, start, s.sampler_steps, s.alpha, s.sigma, draws, y)
        buffer.put(slots, samples)
        logits, drawn = model(torch.cat([x, samples])).split(s.batch)
        right = F.cross_entropy(logits, y)
        gap = log_density(logits).mean() - log_density(drawn).mean()
        label = y[:, None]
        if loss == "relabelled":
            label = drawn.detach().softmax(1).multinomial(1, generator=draws)
        joint = drawn.gather(1, label) - logits.gather(1, y[:, None])
        _descend(made.optimizer, right - gap if loss == "split" else joint.mean())
        return {"loss": right, "gap": gap, "largest": samples.abs().max()}

    return made._replace(step=step)


def measure_split(run: Run, data: Data) -> tuple[Measurements, dict[str, list[float]]]:
    """Train with labelled chains by each loss; the cross-entropies, and the curves.

    The statistic is the mean over the last fifth of the steps that all took.
    """
    steps = run.settings.labelled_steps
    curves = {}
    for name in LOSSES:
        history = until_broken(run, name, labelled_loop(run, data, name), steps)
        curves[name] = history.curves["loss"]
    end = min(map(len, curves.values()))
    start = end - max(1, end // 5)
    nats = {name: statistics.fmean(curve[start:end]) for name, curve in curves.items()}
    value = nats["joint"] / nats["split"]
    return {"split_labels": {"value": value, **nats, "steps": end}}, curves


def until_broken(run: Run, name: str, made: Loop, steps: int) -> History:
    """Train, without a checkpoint, until a number leaves its limit."""
    try:
        return fit(made, steps, folder=None, name=name, limits=LIMITS)
    except Diverged as stop:
        return stop.history


def classifier_loop(
    run: Run,
    part: Labelled,
    *,
    steps: int,
    noise: float,
    l2: float = 0.0,
    name: str = "net",
) -> Loop:
    """Cross-entropy alone, all else as in `loop`.

    Args:
        run: gives batch and learning rate.
        part: what is trained on.
        steps: after which the learning rate has fallen to 0.
        noise: standard deviation of the noise on the inputs.
        l2: weight of the squared weights' gradient (Adam's weight decay).
        name: of the first weights, as in `net`.
    """
    s: Settings = run.settings
    model, draws = net(run, name), run.generator(f"{name} batches")
    adam = torch.optim.Adam(
        model.parameters(), lr=s.learning_rate, weight_decay=l2, fused=True
    )

    def step(t: int) -> dict[str, Tensor | float]:
        x, y = draw_batch(part, s.batch, noise, draws)
        loss = F.cross_entropy(model(x), y)
        _descend(adam, loss)
        return {"loss": loss}

    state = {"model": model, "draws": draws}
    return Loop(step, adam, state, warmup_cosine(s.warmup, steps))


def _trained(run: Run, name: str, made: Loop, steps: int) -> Net:
    every = run.settings.checkpoint_every
    fit(made, steps, folder=run.folder, name=name, every=every)
    model: Net = made.state["model"]
    return model


def train_plain(run: Run, data: Data) -> Net:
    """The paper's baseline: JEM's data, noise, network and steps, no density."""
    s: Settings = run.settings
    made = classifier_loop(run, data.train, steps=s.steps, noise=s.data_noise)
    return _trained(run, "plain", made, s.steps)


def train_tuned(run: Run, data: Data, steps: int | None = None) -> Net:
    """A baseline with input noise and L2 of its own, chosen as the chapter says."""
    s: Settings = run.settings
    n = steps or s.steps
    made = classifier_loop(run, data.train, steps=n, noise=s.tuned_noise, l2=s.tuned_l2)
    return _trained(run, f"tuned {n}", made, n)


def train_evaluator(run: Run, data: Data) -> Net:
    """A classifier that evaluates samples; JEM has seen none of its training inputs."""
    s: Settings = run.settings
    made = classifier_loop(
        run, data.evaluator, steps=s.evaluator_steps, noise=s.data_noise, name="judge"
    )
    return _trained(run, "evaluator", made, s.evaluator_steps)


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
        run, data: as for `loop`; no checkpoint is written.
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
    training = loop(run, data, s)
    rows: list[dict[str, float]] = []

    def step(t: int) -> Any:
        numbers = {k: torch.as_tensor(v).item() for k, v in training.step(t).items()}
        within = all(abs(numbers[key]) <= limit for key, limit in LIMITS.items())
        if t % 10 == 0 or not within:
            largest = lambda_max(training.state["model"], data.train.x[:16], 8)
            curvature = alpha * largest.median().item()
            rows.append({"step": t, **numbers, "curvature": curvature})
        return numbers

    until_broken(run, "divergence", training._replace(step=step), s.divergence_steps)
    return {key: [row[key] for row in rows] for key in rows[0]}


# Measurements: claim id -> numbers, ready for `run.claim_all`


def _accuracy(model: nn.Module, part: Labelled) -> float:
    return metrics.accuracy(predict(model, part.x), part.y)


Rivals = Mapping[str, Net]  # "plain" and "tuned" -> a trained classifier


def measure_accuracy(data: Data, jem: Net, rivals: Rivals) -> Measurements:
    """Accuracy on the test inputs, in per cent, without any noise on them."""
    ours = 100 * _accuracy(jem, data.test)
    theirs = {name: 100 * _accuracy(model, data.test) for name, model in rivals.items()}
    return {
        _against("accuracy", name): {"value": each - ours, "rival": each, "jem": ours}
        for name, each in theirs.items()
    }


def _against(claim: str, rival: str) -> str:
    return claim if rival == "plain" else f"{claim}_{rival}"


def _calibration(model: Net, test: Labelled) -> dict[str, float]:
    p = predict(model, test.x).softmax(1)
    return {
        "squared": 1e4 * metrics.squared_ece(p, test.y),
        "ece": metrics.ece(p, test.y),
        "floor": metrics.ece_floor(p.max(1).values),
        "over": float(p.max(1).values.mean()) - metrics.accuracy(p, test.y),
    }


def measure_calibration(data: Data, jem: Net, rivals: Rivals) -> Measurements:
    """Squared calibration error without its bias (14), on the test inputs.

    In squared percentage points; beside it the plain error, and the floor (22).
    """
    ours = _calibration(jem, data.test)
    measured = {}
    for name, model in rivals.items():
        theirs = _calibration(model, data.test)
        numbers = {f"jem_{k}": v for k, v in ours.items()}
        numbers |= {f"rival_{k}": v for k, v in theirs.items()}
        value = theirs["squared"] - ours["squared"]
        measured[f"calibration_squared_{name}"] = {"value": value, **numbers}
    return measured


def _nll(model: Net, data: Data) -> dict[str, float]:
    logits, validation = predict(model, data.test.x), predict(model, data.validation.x)
    temperature = metrics.fit_temperature(validation, data.validation.y)
    return {
        "nll_raw": metrics.nll(logits, data.test.y),
        "nll_tempered": metrics.nll(logits / temperature, data.test.y),
    }


def measure_nll(data: Data, jem: Net, rivals: Rivals) -> Measurements:
    """Negative log-likelihood on the test inputs, raw and after one temperature."""
    ours, measured = _nll(jem, data), {}
    for name, model in rivals.items():
        for claim, nats in _nll(model, data).items():
            measured[_against(claim, name)] = {
                "value": nats - ours[claim], "rival": nats, "jem": ours[claim]
            }  # fmt: skip
    return measured


def scores(model: Net, x: Tensor) -> dict[str, Tensor]:
    """The three scores [n] of inputs, each higher for the familiar, (12)."""
    logits = predict(model, x)
    return {
        "density": log_density(logits),
        "confidence": logits.softmax(1).max(1).values,
        "mass": in_batches(partial(mass_score, model), x),
    }


Areas = dict[str, dict[str, dict[str, float]]]


def ood_areas(data: Data, models: Rivals, foreign: Mapping[str, Tensor]) -> Areas:
    """AUROC between test inputs and a foreign set: model -> set -> score -> area."""
    areas: Areas = {}
    for name, model in models.items():
        inside = scores(model, data.test.x)
        areas[name] = {}
        for kind, x in foreign.items():
            outside = scores(model, x)
            areas[name][kind] = {
                k: metrics.auroc(inside[k], outside[k]) for k in inside
            }
    return areas


def measure_ood(areas: Areas) -> Measurements:
    """Each score across models, set by set; and two scores of JEM against each other.

    Args:
        areas: of "jem", "tuned" and "plain", from `ood_areas`.
    """
    jem, tuned = areas["jem"], areas["tuned"]
    measured = {
        f"{score}_{kind}": {
            "value": jem[kind][score] - tuned[kind][score],
            **{name: areas[name][kind][score] for name in ("jem", "tuned", "plain")},
        }
        for score in SCORES
        for kind in jem
    }
    for kind, theirs in tuned.items():
        ours, best = jem[kind]["mass"], max(*theirs.values(), 1 - theirs["mass"])
        numbers = {"jem": ours, "best": best, "tuned": theirs["mass"]}
        measured[f"mass_best_{kind}"] = {"value": ours - best, **numbers}
    for id, (other, kind) in OWN.items():
        own = jem[kind]
        measured[id] = {"value": own["mass"] - own[other], **own}
    return measured


def _survivors(
    run: Run, model: Net, part: Labelled, radius: float, draws: torch.Generator
) -> Tensor:
    """Which inputs are classified right after each of several L-infinity PGDs, [n]."""
    s: Settings = run.settings
    attack = partial(
        pgd,
        model,
        radius=radius,
        steps=s.attack_steps,
        norm="linf",
        generator=draws,
    )
    right = torch.ones_like(part.y).bool()
    for _ in range(s.attack_starts):
        moved = in_batches(attack, part.x, part.y)
        right &= predict(model, moved).argmax(1) == part.y
    return right


Curves = dict[str, dict[float, float]]


def attack_curves(run: Run, data: Data, models: Rivals) -> Curves:
    """Accuracy under L-infinity PGD, the worst of several starts an input.

    Returns:
        Model to radius (0 and those of the profile) to accuracy.
    """
    s: Settings = run.settings
    part = Labelled(data.test.x[: s.attacked], data.test.y[: s.attacked])
    curves: Curves = {}
    for name, model in models.items():
        draws = run.generator("attack")
        curves[name] = {0.0: _accuracy(model, part)}
        for radius in s.radii:
            right = _survivors(run, model, part, radius, draws)
            curves[name][radius] = _mean(right)
    return curves


def measure_robustness(run: Run, data: Data, jem: Net, curves: Curves) -> Measurements:
    """Accuracy under L-infinity PGD, and under three attacks on the refinement.

    Args:
        run, data, jem: as for `attack_curves`.
        curves: of `attack_curves`, of "jem", "plain" and "tuned".
    """
    s, draws = run.settings, run.generator("refined attack")
    radius = s.attack_radius
    x, y = data.test.x[: s.refine_attacked], data.test.y[: s.refine_attacked]
    refinement = Refinement(s.refine_steps, s.alpha, s.sigma, s.refine_chains)
    few = max(1, BATCH // s.refine_steps)  # unrolled steps share the memory
    attacked = [
        attack_refined(
            jem,
            inputs,
            labels,
            refinement,
            radius=radius,
            steps=s.attack_steps,
            norm="linf",
            generator=draws,
        )
        for inputs, labels in zip(torch.split(x, few), torch.split(y, few), strict=True)
    ]
    refined = {k: _mean(torch.cat([part[k] for part in attacked])) for k in attacked[0]}
    bare = _mean(_survivors(run, jem, Labelled(x, y), radius, draws))
    refine_inputs = partial(refine, jem, refinement=refinement, generator=draws)
    clean = metrics.accuracy(in_batches(refine_inputs, x, size=few), y)
    refined |= {"radius": radius, "jem": bare, "clean": clean}
    ours = curves["jem"][radius]
    measured = {
        f"robust_{name}": {
            "value": ours - curves[name][radius],
            "jem": ours,
            "rival": curves[name][radius],
        }
        for name in RIVALS
    }
    gain = {"value": refined["worst"] - refined["jem"], **refined}
    return {**measured, "robust_refined": gain}


def _mean(hits: Tensor) -> float:
    return float(hits.double().mean())


def measure_overhead(run: Run, data: Data) -> Measurements:
    """Seconds of a training step, JEM over softmax, over what (18) counts.

    The two take turns; medians of five rounds.
    """
    s: Settings = run.settings
    loops = {
        "softmax": classifier_loop(run, data.train, steps=s.steps, noise=s.data_noise),
        "jem": loop(run, data),
    }

    def train(made: Loop) -> None:
        for t in range(s.timed_steps):
            made.step(t)

    arms = {name: partial(train, made) for name, made in loops.items()}
    seconds = {
        name: statistics.median(times) / s.timed_steps
        for name, times in timing.alternate(arms, rounds=5).items()
    }
    measured = seconds["jem"] / seconds["softmax"]
    model, x = net(run), data.train.x[: s.batch]
    share = timing.flops(lambda: model[0](x)) / timing.flops(lambda: model(x))
    counted = 3 + 2 * s.sampler_steps / (3 - share)
    numbers = {"ratio": measured, "counted": counted, "share": share, **seconds}
    return {"overhead_counted": {"value": measured / counted, **numbers}}


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
