"""The experiments of the chapter on factorised discriminators: data, rivals, numbers.

Pairs of images are rows [n, 2 x pixels] with values in [-1, 1], the upper image first.
Numbers in brackets are equations of the chapter. Sizes come from the settings of the
run, which `iclrtut.start` returns.
"""

from collections.abc import Mapping, Sequence
from math import log
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

import iclrtut
from iclrtut import data
from iclrtut.chapters.factorised_gan import COUNTS, RATES, Settings
from iclrtut.chapters.factorised_gan.method import (
    FACTOR,
    GAN,
    LEAK,
    PLAIN_SUM,
    Critic,
    Game,
    Pool,
    dependency,
    game_loop,
)
from iclrtut.chapters.factorised_gan.stacks import Stacked
from iclrtut.claims import Measurements
from iclrtut.metrics import frechet_distance
from iclrtut.networks import mlp
from iclrtut.run import Run
from iclrtut.train import Loop, fit

CLASSES = 10
SEEN = 0.01  # a class with a smaller share of the samples is not covered
DEVELOPED = 300  # images on which settings are chosen
TINY, NEWTON = 1e-3, 30  # ridge of the logistic regressions, and steps at most

# Paired digits


class Digits(NamedTuple):
    """Images [n, pixels] in [-1, 1] and their pairs.

    Attributes:
        images, labels: of training.
        test, test_labels: images that no training sees.
        lower: the partner of each training image, a number in `images`, int64 [n].
        order: the order in which pairs are given away, int64 [n].
        exact: probabilities of pairs of classes, float64 [10, 10].
        held_out: pairs of test images, [n, 2 x pixels], for looking only.
    """

    images: Tensor
    labels: Tensor
    test: Tensor
    test_labels: Tensor
    lower: Tensor
    order: Tensor
    exact: Tensor
    held_out: Tensor

    def pairs(self, count: int | None = None) -> Tensor:
        """The first pairs, in the order in which they are given; all by default."""
        some = self.order[:count]
        return torch.cat([self.images[some], self.images[self.lower[some]]], 1)

    @property
    def excess(self) -> float:
        """P(same class) over that of independent halves, of the data."""
        return excess(self.exact)


def partners(labels: Tensor, same: float, draws: Generator) -> Tensor:
    """A lower image for each upper one: of its class, or any by frequency; int64 [n].

    An image is no partner of itself if its class has another.

    Args:
        labels: int64 [n].
        same: lambda, the chance that the class is copied.
        draws: generator, on the CPU.
    """
    n = len(labels)
    copied = torch.rand(n, generator=draws) < same
    score = torch.rand(n, n, generator=draws)
    score += 2 * ((labels[:, None] == labels) & copied[:, None])
    score.fill_diagonal_(-1.0)
    alone = copied & (torch.bincount(labels)[labels] == 1)
    return torch.where(alone, torch.arange(n), score.argmax(1))


def class_pairs(labels: Tensor, same: float) -> Tensor:
    """P(a, b) = f_a (lambda 1[a = b] + (1 - lambda) f_b), float64 [10, 10]."""
    f = torch.bincount(labels, minlength=CLASSES).double() / len(labels)
    table: Tensor = same * f.diag() + (1 - same) * f[:, None] * f
    return table


def excess(table: Tensor) -> float:
    """The chance of equal classes minus that of independent halves."""
    return (table.trace() - table.sum(0) @ table.sum(1)).item()


def _images(name: str, test: int, draws: Generator) -> tuple[Tensor, ...]:
    """Training and test images with labels, split anew where the set has no split."""
    z = data.load(name)
    if name == "digits":
        x, y = torch.from_numpy(z["images"]) / 16, torch.from_numpy(z["labels"])
        order = torch.randperm(len(x), generator=draws)
        x, y = x[order], y[order]
    else:
        parts = [
            np.concatenate([z[f"{s}_{k}"] for s in ("test", "train")])
            for k in ("images", "labels")
        ]
        x, y = torch.from_numpy(parts[0]) / 255, torch.from_numpy(parts[1]).long()
    x = 2 * x.flatten(1).float() - 1
    return x[test:], y[test:], x[:test], y[:test]


def digits(run: Run, develop: bool = False) -> Digits:
    """The paired digits of a run.

    Args:
        run: gives seed and sizes.
        develop: whether to judge on images of the training set, which then lose their
            pairs, instead of the test images.
    """
    s: Settings = run.settings
    draws = run.generator("split", "cpu")
    x, y, test, test_y = _images(s.data, s.test, draws)
    if develop:
        test, test_y, x, y = x[:DEVELOPED], y[:DEVELOPED], x[DEVELOPED:], y[DEVELOPED:]
    block = 2000  # images that partners are drawn among, so that memory stays small
    lower = torch.cat(
        [
            at + partners(y[at : at + block], s.same, draws)
            for at in range(0, len(y), block)
        ]
    )
    order = torch.randperm(len(y), generator=draws)
    below = partners(test_y[:block], s.same, draws)
    held_out = torch.cat([test[:block], test[:block][below]], 1)
    exact = class_pairs(y, s.same)
    kept = Digits(x, y, test, test_y, lower, order, exact, held_out)
    return Digits(*(part.to(run.device) for part in kept))


# What judges: a classifier of single digits


class Judge(NamedTuple):
    """A classifier, and the features of the images it compares with.

    Attributes:
        features: a network to 32 numbers.
        read: from these to class logits.
        test: features of test images, [n, 32].
        exact: the data's table of class pairs.
        accuracy: share of test images that it reads rightly.
    """

    features: nn.Module
    read: nn.Module
    test: Tensor
    exact: Tensor
    accuracy: float


class Score(NamedTuple):
    """What a set of pairs is worth; `fd` and `dependency` are better when small.

    Attributes:
        fd: squared Frechet distance in features, mean of the halves.
        dependency: d_dep, (9).
        excess: P(same class) minus that of independent halves with its classes.
        coverage: classes that have at least 1 % of a half, mean of the halves.
    """

    fd: float
    dependency: float
    excess: float
    coverage: float


def judge(run: Run, d: Digits) -> Judge:
    """Train the classifier that reads classes, on single training images."""
    s: Settings = run.settings
    seed = run.generator("judge", "cpu").initial_seed()
    network = mlp([d.images.shape[1], 64, 32, CLASSES], seed).to(run.device)
    draws = run.generator("judge batches", "cpu")
    adam = torch.optim.Adam(network.parameters(), lr=3e-3, fused=True)

    def step(t: int) -> dict[str, Tensor]:
        at = torch.randint(len(d.images), (64,), generator=draws).to(run.device)
        noisy = d.images[at] + 0.2 * torch.randn(
            64, d.images.shape[1], generator=draws
        ).to(run.device)
        loss = F.cross_entropy(network(noisy), d.labels[at])
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        return {"loss": loss}

    _fit(
        run,
        Loop(step, adam, {"model": network, "draws": draws}),
        "judge",
        s.judge_steps,
    )
    network.requires_grad_(False)
    features, read = network[:-1], network[-1]
    test = features(d.test)
    right = (read(test).argmax(1) == d.test_labels).double().mean().item()
    return Judge(features, read, test, d.exact, right)


def class_table(j: Judge, pairs: Tensor) -> Tensor:
    """How often each pair of classes is read off pairs, float64 [10, 10]."""
    upper, lower = (j.read(j.features(half)).argmax(1) for half in pairs.chunk(2, 1))
    both = torch.bincount(upper * CLASSES + lower, minlength=CLASSES**2)
    return both.view(CLASSES, CLASSES).double().cpu()


def score(j: Judge, pairs: Tensor) -> Score:
    """What pairs [n, 2 x pixels] are worth, read by the judge."""
    table = class_table(j, pairs)
    share = table / table.sum()
    far = [frechet_distance(j.features(half), j.test) for half in pairs.chunk(2, 1)]
    covered = [(share.sum(at) >= SEEN).sum().item() for at in (0, 1)]
    return Score(
        sum(far) / 2,
        dependency(table, j.exact.cpu()),
        excess(share),
        sum(covered) / 2,
    )


def yardsticks(run: Run, d: Digits, j: Judge) -> dict[str, Score]:
    """Scores of samples that no generator made.

    Real pairs, real halves put together at random, memorised images, one normal
    distribution for each class of halves, and a single pair over and over.
    """
    s: Settings = run.settings
    draws = run.generator("yardsticks", "cpu")
    at = torch.randint(len(d.images), (s.samples,), generator=draws).to(d.order)
    pairs, few = d.pairs(), d.pairs(s.few)
    loose = torch.cat(
        [pairs[:, : pairs.shape[1] // 2].roll(1, 0), pairs.chunk(2, 1)[1]], 1
    )
    return {
        "real pairs": score(j, pairs[at]),
        "independent": score(j, loose[at]),
        "memorised": score(j, few[at % len(few)]),
        "Gaussians": score(j, _gaussians(d, s.samples, draws)),
        "collapsed": score(j, few[:1].expand(s.samples, -1)),
    }


def _gaussians(d: Digits, n: int, draws: Generator) -> Tensor:
    """Pairs of classes from the exact table; each half from its class's normal."""
    cell = torch.multinomial(d.exact.flatten().cpu(), n, True, generator=draws)
    halves = []
    for label in (cell // CLASSES, cell % CLASSES):
        half = torch.zeros(n, d.images.shape[1], dtype=torch.float64)
        for k in range(CLASSES):
            mine = d.images[d.labels == k].cpu().double()
            spread, rows = mine.T.cov() + 1e-4 * torch.eye(half.shape[1]), label == k
            noise = torch.randn(
                int(rows.sum()), half.shape[1], generator=draws
            ).double()
            half[rows] = mine.mean(0) + noise @ torch.linalg.cholesky(spread).T
        halves.append(half.clamp(-1, 1))
    return torch.cat(halves, 1).to(d.images)


# The arms


class Images(nn.Module):
    """Networks whose outputs are images in [-1, 1]: 2 sigmoid(y) - 1 = tanh(y / 2)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, noise: Tensor) -> Tensor:
        """Pairs of images [M, B, 2 x pixels]."""
        return torch.tanh(self.network(noise) / 2)


def game(
    run: Run,
    name: str,
    critics: Sequence[Critic],
    pixels: int,
    models: int,
    width: int | None = None,
) -> Game:
    """Generators and discriminators, their first weights drawn by seed and name.

    Args:
        run: gives the sizes.
        name: of the first weights.
        critics: what the discriminators tell apart.
        pixels: of one image.
        models: how many at once.
        width: of the discriminators; None for that of the generators.
    """
    s: Settings = run.settings
    size = s.width if width is None else width

    def first(part: str) -> int:
        return run.generator(f"{name} {part}", "cpu").initial_seed()

    def build(inputs: int, copies: int) -> Stacked:
        sizes = [inputs, size, size, 1]
        seed = first(f"discriminators of {inputs}")
        return Stacked(sizes, copies, seed, leak=LEAK, spectral=True)

    sizes = [s.noise, s.width, s.width, 2 * pixels]
    generator = Images(Stacked(sizes, models, first("generator")))
    made = Game(generator, critics, build, models, (pixels, pixels), s.average)
    return made.to(run.device)


def pools(d: Digits, counts: Sequence[int | None]) -> tuple[Pool, Pool, Pool]:
    """What models with so many pairs draw from; unpaired halves are the same for all.

    Args:
        d: the data.
        counts: the number of pairs of each model; None for all.
    """
    upper, lower = d.pairs().chunk(2, 1)
    models = len(counts)
    paired = [d.pairs(count) for count in counts]
    return Pool([upper] * models), Pool([lower] * models), Pool(paired)


def without(critics: Sequence[Critic], weights: Sequence[float]) -> list[Critic]:
    """The critics, with a weight of d_P for each model."""
    return [
        c._replace(weight=tuple(weights)) if c.negative == "real shuffled" else c
        for c in critics
    ]


class Arm(NamedTuple):
    """What is trained, how long and at which rate; two models, few pairs and all."""

    critics: Sequence[Critic]
    steps: int
    rate: float
    width: int | None = None


def arms(s: Settings) -> dict[str, Arm]:
    """FactorGAN and its rivals, by name."""
    return {
        "FactorGAN": Arm(FACTOR, s.steps, s.factor_rate),
        "GAN": Arm(GAN, s.steps, s.gan_rate),
        "GAN, equal time": Arm(GAN, s.long_steps, s.long_rate),
        "GAN, equal size": Arm(GAN, s.steps, s.wide_rate, s.wide),
        "plain sum": Arm(PLAIN_SUM, s.steps, s.plain_rate),
    }


def arm_loop(
    run: Run, d: Digits, name: str, arm: Arm, counts: Sequence[int | None]
) -> Loop:
    """The training of an arm: as many models at once as there are counts of pairs."""
    s: Settings = run.settings
    pixels = d.images.shape[1]
    made = game(run, name, arm.critics, pixels, len(counts), arm.width)
    draws = run.generator(f"{name} draws", "cpu")
    sizes: dict[str, Any] = {"noise": s.noise, "batch": s.batch}
    return game_loop(
        made, pools(d, counts), draws, rate=arm.rate, steps=arm.steps, **sizes
    )


def factor_loop(run: Run, d: Digits) -> Loop:
    """FactorGAN with few pairs and all, and both without d_P, as on the page."""
    arm = arms(run.settings)["FactorGAN"]
    arm = arm._replace(critics=without(FACTOR, (1, 1, 0, 0)))
    few = run.settings.few
    return arm_loop(run, d, "FactorGAN", arm, (few, None, few, None))


def gan_loop(run: Run, d: Digits) -> Loop:
    """The GAN on pairs, few and all, as on the page."""
    few = run.settings.few
    return arm_loop(run, d, "GAN", arms(run.settings)["GAN"], (few, None))


def train_arm(run: Run, d: Digits, name: str) -> Game:
    """An arm of `arms`, with few pairs and with all."""
    arm = arms(run.settings)[name]
    loop = arm_loop(run, d, name, arm, (run.settings.few, None))
    _fit(run, loop, name, arm.steps)
    trained: Game = loop.state["game"]
    return trained


def _fit(run: Run, loop: Loop, name: str, steps: int) -> None:
    every = run.settings.checkpoint_every
    fit(loop, steps, folder=run.folder, name=name, every=every)


@torch.no_grad()
def generate(run: Run, network: nn.Module, models: int) -> Tensor:
    """Pairs of the averaged generators, [M, samples, 2 x pixels]."""
    s: Settings = run.settings
    draws = run.generator("samples", "cpu")
    noise = 2 * torch.rand(models, s.samples, s.noise, generator=draws) - 1
    made: Tensor = network(noise.to(run.device))
    return made


Scores = Mapping[str, Score]  # of "few" and "all" pairs


def scores(run: Run, j: Judge, network: nn.Module, models: int = 2) -> list[Score]:
    """The score of each of a network's models."""
    return [score(j, pairs) for pairs in generate(run, network, models)]


# Choosing learning rates


def tune(name: str, seeds: Sequence[int], profile: str = "quick") -> dict[float, Any]:
    """Train an arm at every rate of `RATES` on development images of other seeds.

    Args:
        name: an arm of `arms`.
        seeds: that no record has.
        profile: gives the sizes.

    Returns:
        Rate -> the mean scores with few pairs and with all, and "loss", the mean of
        log FD and log d_dep over all: the smallest is chosen.
    """
    found: dict[float, Any] = {}
    for rate in RATES:
        rows = []
        for seed in seeds:
            run = iclrtut.start("factorised_gan", profile, seed)
            d = digits(run, develop=True)
            arm = arms(run.settings)[name]._replace(rate=rate)
            loop = arm_loop(run, d, name, arm, (run.settings.few, None))
            fit(loop, arm.steps, folder=None, name=f"{name} {rate:g} {seed}")
            rows.append(scores(run, judge(run, d), loop.state["game"].mean))
        few, all_ = (Score(*np.mean([r[k] for r in rows], 0).tolist()) for k in (0, 1))
        logs = [log(each.fd * each.dependency) for row in rows for each in row]
        found[rate] = {"few": few, "all": all_, "loss": sum(logs) / len(logs)}
    return found


# The claims


def measure(found: Mapping[str, Scores], truth: float) -> Measurements:
    """Every claim on generators, from the scores of all arms.

    The GAN is the best of the three on each number, seed by seed.

    Args:
        found: arm -> "few" or "all" -> score; the arm without d_P is "no d_P".
        truth: the data's excess.
    """
    gans = [each for name, each in found.items() if name.startswith("GAN")]
    ours, plain, alone = found["FactorGAN"], found["plain sum"], found["no d_P"]

    def best(which: str, pairs: str) -> float:
        return min(_badness(each[pairs], which, truth) for each in gans)

    def gain(which: str, pairs: str) -> dict[str, float]:
        rivals = {
            name: _badness(each[pairs], which, truth) for name, each in found.items()
        }
        value = best(which, pairs) - rivals["FactorGAN"]
        return {"value": value} | {_key(name): v for name, v in rivals.items()}

    def against(other: Scores, which: str, pairs: str) -> dict[str, float]:
        one, two = (_badness(each[pairs], which, truth) for each in (other, ours))
        return {"value": one - two, "rival": one, "ours": two}

    return {
        "marginals_few": gain("fd", "few"),
        "dependency_few": gain("dependency", "few"),
        "dependency_all": gain("dependency", "all"),
        "excess_all": gain("excess", "all"),
        "needs_pairs_few": against(alone, "dependency", "few"),
        "needs_pairs_all": against(alone, "dependency", "all"),
        "beats_plain_sum_parts": against(plain, "fd", "few"),
        "beats_plain_sum_dependency": against(plain, "dependency", "all"),
    }


def _key(name: str) -> str:
    return name.lower().replace(",", "").replace(" ", "_")


def _badness(each: Score, which: str, truth: float) -> float:
    """A number of a score that is better when small."""
    value: float = getattr(each, which)
    return abs(value - truth) if which == "excess" else value


# Play


def playground(mode: str) -> dict[str, Any]:
    """What the figure starts from: the data's table and the generator's.

    Args:
        mode: "pictures", or "flow" to let the generator walk.
    """
    p = [[0.24, 0.06, 0.02], [0.05, 0.22, 0.06], [0.03, 0.07, 0.25]]
    q = [[0.10, 0.16, 0.09], [0.14, 0.05, 0.13], [0.12, 0.15, 0.06]]
    return {"mode": mode, "p": p, "q": q}


# Logits of Gaussians


class Problem(NamedTuple):
    """Two normal distributions of (x1, x2): means [2], covariances [2, 2]."""

    mean_p: Tensor
    spread_p: Tensor
    mean_q: Tensor
    spread_q: Tensor

    def log_ratio(self, x: Tensor) -> Tensor:
        """log p / q of pairs [n, 2]."""
        p, q = (
            torch.distributions.MultivariateNormal(mean, spread)
            for mean, spread in (self[:2], self[2:])
        )
        ratio: Tensor = p.log_prob(x) - q.log_prob(x)  # type: ignore[no-untyped-call]
        return ratio

    def draw(self, which: str, n: int, draws: Generator) -> Tensor:
        """Pairs [n, 2] of "p" or "q"."""
        mean, spread = self[:2] if which == "p" else self[2:]
        noise = torch.randn(n, 2, generator=draws, dtype=torch.float64)
        made: Tensor = mean + noise @ torch.linalg.cholesky(spread).T
        return made


def problem(draws: Generator) -> Problem:
    """Correlations within 0.9 of 0, deviations about 1, means about 0.5 apart."""

    def normal() -> tuple[Tensor, Tensor]:
        u = torch.rand(3, generator=draws, dtype=torch.float64)
        mean = torch.randn(2, generator=draws, dtype=torch.float64) / 2
        scale, r = (u[:2] - 0.5).exp(), 1.8 * u[2] - 0.9
        off = torch.tensor([[0, 1], [1, 0]], dtype=torch.float64)
        corr = torch.eye(2, dtype=torch.float64) + r * off
        return mean, scale[:, None] * corr * scale

    return Problem(*normal(), *normal())


def quadratic(x: Tensor) -> Tensor:
    """1, all values and all their products, [n, k] of [n, d]."""
    i, j = torch.triu_indices(x.shape[1], x.shape[1])
    return torch.cat([torch.ones_like(x[:, :1]), x, x[:, i] * x[:, j]], 1)


def logit(positive: Tensor, negative: Tensor) -> Any:
    """Logistic regression on quadratic features, both sides weighted alike.

    Newton's method on (1) with a small ridge.

    Returns:
        A function from rows [n, d] to logits [n].
    """
    x = torch.cat([quadratic(positive), quadratic(negative)])
    sign = torch.ones(len(x), dtype=x.dtype)
    sign[len(positive) :] = -1
    share = torch.where(sign > 0, 1 / len(positive), 1 / len(negative)).to(x.dtype)
    w, ridge = x.new_zeros(x.shape[1]), TINY * torch.eye(x.shape[1], dtype=x.dtype)
    for _ in range(NEWTON):
        wrong = torch.sigmoid(-sign * (x @ w))
        slope = -(share * sign * wrong) @ x + TINY * w
        bend = (x * (share * wrong * (1 - wrong))[:, None]).T @ x + ridge
        move = torch.linalg.solve(bend, slope).clamp(-2, 2)
        w = w - move
        if move.abs().max() < 1e-4:
            break
    return lambda rows: quadratic(rows) @ w


def shifts(pairs: Tensor, most: int = 10) -> Tensor:
    """Pairs whose second numbers moved on by 1, 2, ... rows, all put together."""
    moved = [
        torch.stack([pairs[:, 0], pairs[:, 1].roll(k)], 1)
        for k in range(1, min(len(pairs), most + 1))
    ]
    return torch.cat(moved)


def logit_errors(case: Problem, count: int, unpaired: int, draws: Generator) -> Any:
    """RMSE of one logit and of four, on a mixture of p and q.

    Args:
        case: what is told apart.
        count: pairs of p.
        unpaired: further samples of each part of p, and pairs of q.
        draws: generator.
    """
    pairs, fake = case.draw("p", count, draws), case.draw("q", unpaired, draws)
    loose = torch.cat([case.draw("p", unpaired, draws), pairs])
    test = torch.cat([case.draw(which, 1000, draws) for which in "pq"])
    one = logit(pairs, fake)(test)
    four = sum(logit(loose[:, [k]], fake[:, [k]])(test[:, [k]]) for k in (0, 1))
    four += logit(pairs, shifts(pairs))(test) - logit(fake, shifts(fake, 1))(test)
    truth = case.log_ratio(test)
    return [(said - truth).square().mean().sqrt().item() for said in (one, four)]


def measure_logits(run: Run) -> dict[str, dict[str, float]]:
    """The claims on sums of logits, one for each number of pairs."""
    s: Settings = run.settings
    draws = run.generator("logits", "cpu")
    cases = [problem(draws) for _ in range(s.problems)]
    measured = {}
    for count in COUNTS:
        errors = [logit_errors(case, count, s.unpaired, draws) for case in cases]
        ratio = [log(four / one) for one, four in errors]
        means = np.mean(errors, 0)
        measured[f"logit_sum_{count}"] = {
            "value": sum(ratio) / len(ratio),
            "one": float(means[0]),
            "four": float(means[1]),
        }
    return measured
