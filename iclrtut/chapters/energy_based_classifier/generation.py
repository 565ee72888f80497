"""What JEM draws, and how it is measured; numbers in brackets are equations."""

import math

import numpy as np
import torch
from torch import Tensor

from iclrtut import metrics
from iclrtut.chapters.energy_based_classifier import Settings
from iclrtut.chapters.energy_based_classifier.experiments import Data
from iclrtut.chapters.energy_based_classifier.method import Net, ReplayBuffer, langevin
from iclrtut.claims import Measurements
from iclrtut.evaluation import in_batches, predict
from iclrtut.run import Run


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
    """What the Frechet distances compare, as many of each, as the sampler left them.

    Returns:
        "test" (the reference), "training" (the floor), "buffer", "chains" (fresh, from
        noise), "gaussian", "noise"; and "conditional" with its wanted classes "wanted".
    """
    s: Settings = run.settings
    n, generator = s.samples, run.generator("draws")
    noise = torch.empty_like(data.test.x[:n]).uniform_(-1, 1, generator=generator)
    wanted = torch.arange(s.conditional, device=noise.device) % 10
    x, y = data.train

    def chains(start: Tensor, target: Tensor | None = None) -> Tensor:
        return langevin(jem, start, s.sample_steps, s.alpha, s.sigma, generator, target)

    return {
        "test": data.test.x[:n],
        "training": x[:n],
        "buffer": buffer.sample(n),
        "chains": in_batches(chains, noise),
        "gaussian": class_gaussians(x, y, n, run.rng("gaussian")),
        "noise": noise,
        "conditional": in_batches(chains, noise[: s.conditional], wanted),
        "wanted": wanted,
    }


def measure_generation(
    data: Data, evaluator: Net, samples: dict[str, Tensor]
) -> Measurements:
    """Frechet distances, what is recognised, and how near training inputs lie.

    All are clamped to [-1, 1] first; "beyond_…" are shares of inputs with a pixel
    beyond 1.5 before that, "closest_…" least distances to a training input.

    Args:
        data: its training inputs show what was remembered.
        evaluator: of `train_evaluator`: it has seen none of the training inputs.
        samples: of `draw_samples`.
    """
    compared = ("training", "buffer", "chains", "gaussian", "noise")
    x = {k: z.clamp(-1, 1) for k, z in samples.items() if k != "wanted"}
    with torch.no_grad():
        test, *features = (
            in_batches(evaluator.features, x[k]) for k in ("test", *compared)
        )
    distances = (metrics.frechet_distance(each, test) for each in features)
    frechet = dict(zip(compared, distances, strict=True))
    ratio = {k: math.log(frechet[k] / frechet["gaussian"]) for k in compared}
    answers = predict(evaluator, x["conditional"]).argmax(1)
    unseen = torch.cat([data.evaluator.x, data.validation.x])
    near = {
        k: nearer_to_training(x[k], data.train.x, unseen)
        for k in ("buffer", "chains", "gaussian", "test")
    }
    known = data.train.x.flatten(1)
    lean = {"value": near["buffer"] - near["gaussian"], **near}
    for k in near:
        far = samples[k].flatten(1).abs().amax(1) > 1.5
        lean[f"beyond_{k}"] = metrics.share(far)["value"]
        lean[f"closest_{k}"] = float(torch.cdist(x[k].flatten(1), known).min())
    return {
        "generates_buffer": {"value": ratio["buffer"], **frechet},
        "generates_noise": {"value": ratio["chains"], **frechet},
        "recognised": metrics.share(answers == samples["wanted"]),
        "leans": lean,
    }


def nearer_to_training(x: Tensor, training: Tensor, unseen: Tensor) -> float:
    """The share of x whose nearest input was trained on; 1/2 where it makes no odds.

    Args:
        x: inputs [n, ...].
        training, unseen: inputs of one source; as many of each are compared.
    """
    m = min(len(training), len(unseen))
    seen, other = (
        torch.cdist(x.flatten(1), each[:m].flatten(1)).amin(1)
        for each in (training, unseen)
    )
    return metrics.share(seen < other)["value"]
