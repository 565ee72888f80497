"""Factorised discriminators: a generator of pairs, from pairs and from loose parts.

Stoller, Ewert, Dixon, ICLR 2020. Numbers in brackets are equations of the chapter
`factorised_gan`. For your own data, rows that belong together and rows that do not:

    model = train(pairs_1, pairs_2, only_1, only_2, steps=4000, seed=0)
    one, two = model.sample(100)         # pairs, each part in its own shape
    model.logits(one, two)               # d_1, d_2, d_P, d_Q and their sum, (5)
    model.history.curves["loss"]         # of the discriminators, step by step
    model.summary                        # what was trained on what

`ratios`, `walk` and `settle` do the same on tables, where everything is exact.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from iclrtut.chapters.factorised_gan.stacks import Apart, Stacked
from iclrtut.errors import BadRequest
from iclrtut.metrics import finite
from iclrtut.train import History, Loop, fit, seeded

LEAK = 0.01  # of the discriminators' ReLU
FLOOR = 1e-3  # under the product of `dependency`
Maker = Callable[..., nn.Module]


def need(holds: bool, otherwise: str) -> None:
    """Refuse what does not hold, in one sentence with the remedy."""
    if not holds:
        raise BadRequest(otherwise)


# Tables: float64 [..., K, L], rows for x1, columns for x2


def table(values: Any, name: str) -> Tensor:
    """A probability table of float64, once it is known to be one.

    Raises:
        BadRequest: it has another shape, a value that is not positive and finite, or
            another sum than 1.
    """
    try:
        p = torch.as_tensor(values, dtype=torch.float64).detach()
    except (TypeError, ValueError, RuntimeError):
        raise BadRequest(f"{name} is no array of numbers: {values!r:.60}.") from None
    fit_shape = p.dim() >= 2 and p.numel() > 0
    need(fit_shape, f"{name} has shape {tuple(p.shape)}: give a table [rows, columns].")
    good = bool(p.isfinite().all()) and bool((p > 0).all())
    need(good, f"{name} holds values that are not positive and finite: add a little.")
    off = (p.sum((-1, -2)) - 1).abs().max().item()
    need(off < 1e-6, f"{name} misses the sum 1 by {off:.2g}: divide it by its sum.")
    return p


def product(p: Tensor) -> Tensor:
    """The table of independent parts with the marginals of p."""
    return p.sum(-1, keepdim=True) * p.sum(-2, keepdim=True)


class Ratios(NamedTuple):
    """The four logits of (5), as tables [..., K, L] that broadcast; nats."""

    first: Tensor  # log p(x1) / q(x1), [..., K, 1]
    second: Tensor  # log p(x2) / q(x2), [..., 1, L]
    c_p: Tensor  # log p(x1, x2) / (p(x1) p(x2))
    c_q: Tensor  # log q(x1, x2) / (q(x1) q(x2))

    @property
    def total(self) -> Tensor:
        """log p / q, [..., K, L]."""
        return self.first + self.second + self.c_p - self.c_q


def ratios(p: Any, q: Any, parts: Any = None) -> Ratios:
    """The logits that four perfect discriminators would have, (5).

    Args:
        p, q: positive tables [..., K, L] that sum to 1: the data and the generator.
        parts: a table whose marginals the unpaired parts have, (11); None for p.

    Raises:
        BadRequest: one is no such table, or their shapes differ.
    """
    p, q = table(p, "p"), table(q, "q")
    r = p if parts is None else table(parts, "parts")
    shapes = [tuple(t.shape[-2:]) for t in (p, q, r)]
    need(len({*shapes}) == 1, f"tables of shapes {shapes} differ: give one shape.")
    return _ratios(p, q, r)


def _ratios(p: Tensor, q: Tensor, parts: Tensor) -> Ratios:
    """`ratios` of what are known to be tables."""
    rows, columns = (
        parts.sum(at, keepdim=True).log() - q.sum(at, keepdim=True).log()
        for at in (-1, -2)
    )
    return Ratios(rows, columns, (p / product(p)).log(), (q / product(q)).log())


class Switches(NamedTuple):
    """Which logits are on, 1 or 0; `joint` adds log p / q itself."""

    first: float = 1.0
    second: float = 1.0
    c_p: float = 1.0
    c_q: float = 1.0
    joint: float = 0.0


ALL = Switches()


def summed(r: Ratios, on: Switches = ALL, batch: int | None = None) -> Tensor:
    """S of (7): the sum of the logits that are on.

    Args:
        r: from `ratios`.
        on: which are on.
        batch: how many pairs a random permutation shuffles, (6); None for a shift.
    """
    c_p, c_q = r.c_p, r.c_q
    if batch is not None:
        c_p, c_q = permuted(c_p, batch), permuted(c_q, batch)
    part = on.first * r.first + on.second * r.second
    return part + on.c_p * c_p - on.c_q * c_q + on.joint * r.total


def walk(
    p: Any,
    q: Any,
    time: float,
    steps: int,
    on: Switches = ALL,
    *,
    parts: Any = None,
    batch: int | None = None,
) -> Tensor:
    """The flow d log q / dt = S - E_q S for a while, (7).

    Args:
        p, q: tables [K, L]; q is the start.
        time: how long, above 0.
        steps: into how many steps of Euler's it is cut; time / steps at most 1.
        on, batch: as in `summed`.
        parts: as in `ratios`.

    Returns:
        q at the end, [K, L]; no cell falls below exp(-200).

    Raises:
        BadRequest: no table, or steps that are too long.
    """
    q = table(q, "q")
    fine = isinstance(steps, int) and steps >= 1 and 0 < time / steps <= 1
    need(fine, f"time {time} in {steps} steps: give steps of length 0 to 1, above 0.")
    ratios(p, q, parts)  # refuses what is no table
    p, r = table(p, "p"), table(p if parts is None else parts, "parts")
    log_q: Tensor = q.log()
    for _ in range(steps):
        S = summed(_ratios(p, log_q.exp(), r), on, batch)
        log_q = (log_q + time / steps * S).flatten().log_softmax(0).view_as(q)
        log_q = log_q.clamp_min(-200.0)
    return log_q.exp()


def settle(p: Any, q: Any, on: Switches = ALL, **more: Any) -> Tensor:
    """Where the flow of (7) ends, from q, after a time of 200; see `walk`."""
    return walk(p, q, 200.0, 1000, on, **more)


def permuted(log_c: Any, batch: int) -> Tensor:
    """The best logit of d_P when a batch is shuffled by a random permutation, (6).

    A share 1/B of the pairs stays together, so log c becomes
    log [c / ((1 - 1/B) + c/B)], below log B.

    Args:
        log_c: log c_P, any shape.
        batch: B, 1 or more.

    Raises:
        BadRequest: a batch below 1.
    """
    need(isinstance(batch, int) and batch >= 1, f"batch is {batch}: give 1 or more.")
    c: Tensor = torch.as_tensor(log_c, dtype=torch.float64)
    kept = torch.tensor(1 / batch, dtype=torch.float64)
    return c - torch.logaddexp(torch.log1p(-kept).expand_as(c), c + kept.log())


def variances(p: Any) -> tuple[Tensor, Tensor]:
    """N Var of a cell's estimated log-probability, from N pairs, (13).

    Args:
        p: positive table [K, L] of sum 1.

    Returns:
        From pairs alone; and from pairs and exact marginals, both [K, L].

    Raises:
        BadRequest: p is no such table.
    """
    p = table(p, "p")
    rows, columns = p.sum(-1, keepdim=True), p.sum(-2, keepdim=True)
    alone = 1 / p - 1
    return alone, 1 / p - 1 / rows - 1 / columns + 2 * p / (rows * columns) - 1


def dependency(counts: Any, exact: Any) -> float:
    """d_dep of (9): the mean distance between dependency ratios over class cells.

    Args:
        counts: how often each pair of classes was generated, [K, L].
        exact: the data's table of class pairs, [K, L], or counts of it.

    Raises:
        BadRequest: shapes differ, a negative or infinite number, or none at all.
    """
    both = []
    for name, values in (("counts", counts), ("exact", exact)):
        x = finite(name, values, 2)
        good = bool((x >= 0).all() and x.sum() > 0)
        need(good, f"{name} has negative counts, or none at all: give counts.")
        joint = x / x.sum()
        both.append(joint / (np.outer(joint.sum(1), joint.sum(0)) + FLOOR))
    same = both[0].shape == both[1].shape
    need(same, f"tables of {both[0].shape} and {both[1].shape}: give one shape.")
    return float(np.abs(both[0] - both[1]).mean())


# Critics: discriminators, what they tell apart, and their part in the sum


class Critic(NamedTuple):
    """One discriminator of a game.

    Attributes:
        part: what it sees: "first", "second" or "both".
        positive, negative: the samples that it tells apart: "real" (pairs where both
            parts are seen, else unpaired parts), "fake", or either "shuffled".
        weight: of its logit in the generator's sum; one for all models, or one each.
    """

    part: str
    positive: str
    negative: str
    weight: float | Sequence[float] = 1.0


PARTS = (Critic("first", "real", "fake"), Critic("second", "real", "fake"))
JOINT = Critic("both", "real", "fake")
FACTOR = (
    *PARTS,
    Critic("both", "real", "real shuffled"),
    Critic("both", "fake", "fake shuffled", -1.0),
)
GAN, PLAIN_SUM = (JOINT,), (*PARTS, JOINT)


def shuffled(pairs: Tensor, width: int) -> Tensor:
    """Pairs [..., B, n] whose second parts moved on by one row: a cyclic shift, (6)."""
    first, second = pairs[..., :width], pairs[..., width:]
    return torch.cat([first, second.roll(1, -2)], -1)


class Game(nn.Module):
    """M generators of pairs, each with discriminators of its own.

    Args:
        generator: a network [M, B, noise] to [M, B, widths[0] + widths[1]].
        critics: the discriminators of every model.
        build: inputs and how many -> that many networks at once, as `Stacked` is one.
        widths: numbers in the first part and in the second.
        average: of the generator's weights, in [0, 1).
    """

    def __init__(
        self,
        generator: nn.Module,
        critics: Sequence[Critic],
        build: Callable[[int, int], nn.Module],
        models: int,
        widths: tuple[int, int],
        average: float = 0.995,
    ) -> None:
        super().__init__()
        self.generator, self.mean = generator, deepcopy(generator)
        self.mean.requires_grad_(False)
        self.critics, self.widths, self.models = critics, widths, models
        self.average = average
        sees = {"first": widths[0], "second": widths[1], "both": sum(widths)}
        self.groups: dict[int, list[Critic]] = {}
        for critic in critics:
            self.groups.setdefault(sees[critic.part], []).append(critic)
        there = [c for group in self.groups.values() for c in group]
        self.order = [there.index(c) for c in critics]
        self.stacks = nn.ModuleList(
            build(inputs, len(group) * models) for inputs, group in self.groups.items()
        )

    def cut(self, pairs: Tensor, part: str) -> Tensor:
        """The part of pairs [..., n] that a critic sees."""
        first = self.widths[0]
        cuts = {"first": pairs[..., :first], "second": pairs[..., first:]}
        return cuts.get(part, pairs)

    def batch(self, name: str, part: str, real: "Real", fake: Tensor) -> Tensor:
        """The samples of that name, as a critic of that part sees them."""
        if name == "real":
            return {"first": real.first, "second": real.second}.get(part, real.pairs)
        if name == "real shuffled":
            return shuffled(real.pairs, self.widths[0])
        whole = shuffled(fake, self.widths[0]) if name == "fake shuffled" else fake
        return self.cut(whole, part)

    def discriminator_loss(self, real: "Real", fake: Tensor) -> Tensor:
        """The sum of all discriminators' losses, (1)."""
        losses = []
        for group, stack in zip(self.groups.values(), self.stacks, strict=True):
            sides = [(c.positive, c.part) for c in group]
            others = [(c.negative, c.part) for c in group]
            positive, negative = (
                torch.cat([self.batch(*what, real, fake) for what in side])
                for side in (sides, others)
            )
            losses.append(tell_apart(stack(torch.cat([positive, negative], 1))))
        return torch.stack(losses).sum()

    def logits(self, pairs: Tensor) -> Tensor:
        """Each critic's logit of pairs [M, B, n], [critics, M, B]; not yet signed."""
        found = []
        for group, stack in zip(self.groups.values(), self.stacks, strict=True):
            seen = torch.cat([self.cut(pairs, c.part) for c in group])
            found.append(stack(seen)[..., 0].unflatten(0, (-1, self.models)))
        return torch.cat(found)[self.order]

    def total(self, pairs: Tensor) -> Tensor:
        """S of (5): the signed sum of the logits of pairs [M, B, n], [M, B]."""
        total: Tensor | float = 0.0
        for critic, logit in zip(self.critics, self.logits(pairs), strict=True):
            weight = torch.as_tensor(critic.weight).expand(self.models)
            total = total + weight.to(logit)[:, None] * logit
        return torch.as_tensor(total)

    def play(self, adam: torch.optim.Optimizer, real: "Real", noise: Tensor) -> Tensor:
        """One step of all players; the discriminators' loss and the generators', [2].

        Both use one batch of fakes: the discriminators' step leaves the generator as
        it was.
        """
        fake = self.generator(noise)
        adam.zero_grad()
        told = self.discriminator_loss(real, fake.detach())
        told.backward()  # type: ignore[no-untyped-call]
        adam.step()
        adam.zero_grad()
        self.stacks.requires_grad_(False).eval()
        fooled = F.softplus(-self.total(fake)).mean(1).sum()
        fooled.backward()  # type: ignore[no-untyped-call]
        adam.step()
        self.stacks.requires_grad_(True).train()
        follow(self.mean, self.generator, self.average)
        return torch.stack([told.detach(), fooled.detach()])


def tell_apart(logits: Tensor) -> Tensor:
    """-log D of the first half of each row, -log (1 - D) of the rest, (1).

    Args:
        logits: [S, 2 B, 1].

    Returns:
        The sum over networks of the mean over a batch.
    """
    positive, negative = logits.chunk(2, 1)
    return (F.softplus(-positive) + F.softplus(negative)).mean(1).sum()


@torch.no_grad()
def follow(mean: nn.Module, model: nn.Module, average: float) -> None:
    """Move the averaged weights towards the present ones."""
    for slow, fast in zip(mean.parameters(), model.parameters(), strict=True):
        slow.lerp_(fast, 1 - average)


# Batches


class Real(NamedTuple):
    """A batch of each kind of data, [M, B, n]."""

    first: Tensor
    second: Tensor
    pairs: Tensor


class Pool:
    """M sets of rows, of which each draw takes B rows of each, with replacement.

    Args:
        sets: tensors [N_m, n], their N_m of any size.
    """

    def __init__(self, sets: Sequence[Tensor]) -> None:
        self.rows = torch.cat(list(sets))
        sizes = torch.tensor([len(rows) for rows in sets])
        self.sizes, self.starts = sizes[:, None], (sizes.cumsum(0) - sizes)[:, None]

    def draw(self, batch: int, generator: Generator) -> Tensor:
        """Rows [M, B, n]; the generator is on the CPU."""
        u = torch.rand(len(self.sizes), batch, generator=generator, dtype=torch.float64)
        at = (u * self.sizes).long() + self.starts
        return self.rows[at.to(self.rows.device)]


def falling(steps: int) -> Callable[[int], float]:
    """A learning rate that stays for half of the steps, then falls linearly to 0."""
    return lambda t: min(1.0, 2 * (1 - t / steps))


def game_loop(
    game: Game,
    pools: tuple[Pool, Pool, Pool],
    draws: Generator,
    *,
    noise: int,
    batch: int,
    rate: float,
    steps: int,
) -> Loop:
    """The training of a game, ready for `iclrtut.train.fit`.

    Args:
        game: what learns.
        pools: of first parts, of second parts and of pairs, for each model.
        draws: generator of batches and noise, on the CPU.
        noise: numbers that a generator starts from, uniform in [-1, 1].
        batch: rows of each kind a step.
        rate: Adam's learning rate; it falls to 0 over the second half.
        steps: how many.
    """
    weights = [*game.generator.parameters(), *game.stacks.parameters()]
    adam = torch.optim.Adam(weights, lr=rate, betas=(0.5, 0.999), fused=True)

    def step(t: int) -> dict[str, Tensor]:
        real = Real(*(pool.draw(batch, draws) for pool in pools))
        z = 2 * torch.rand(game.models, batch, noise, generator=draws) - 1
        told, fooled = game.play(adam, real, z.to(real.pairs))
        return {"loss": told, "generator": fooled}

    return Loop(step, adam, {"game": game, "draws": draws}, falling(steps))


# For a reader's own data


def small_discriminator(inputs: int) -> nn.Sequential:
    """Two hidden layers of 64, leaky ReLU, to one logit."""
    layers = [nn.Linear(inputs, 64), nn.LeakyReLU(LEAK), nn.Linear(64, 64)]
    return nn.Sequential(*layers, nn.LeakyReLU(LEAK), nn.Linear(64, 1))


def small_generator(noise: int, outputs: int) -> nn.Sequential:
    """Two hidden layers of 64, ReLU, to standardised values."""
    layers = [nn.Linear(noise, 64), nn.ReLU(), nn.Linear(64, 64)]
    return nn.Sequential(*layers, nn.ReLU(), nn.Linear(64, outputs))


class Trained(NamedTuple):
    """What `train` returns: a generator of pairs, and their discriminators."""

    game: Game
    scales: tuple["Scale", "Scale"]
    noise: int
    history: History
    summary: str

    @torch.no_grad()
    def sample(self, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """New pairs, float32: first parts [n, ...] and second parts [n, ...].

        Raises:
            BadRequest: n is below 1.
        """
        need(isinstance(n, int) and n >= 1, f"n is {n}: ask for 1 pair or more.")
        draws = torch.Generator().manual_seed(seed)
        z = 2 * torch.rand(1, n, self.noise, generator=draws) - 1
        pairs = self.game.mean(z)[0]
        parts = self.game.cut(pairs, "first"), self.game.cut(pairs, "second")
        one, two = (s.back(x) for s, x in zip(self.scales, parts, strict=True))
        return one, two

    @torch.no_grad()
    def logits(self, first: Any, second: Any) -> Ratios:
        """What each discriminator says of pairs of such shapes, [B] each.

        Raises:
            BadRequest: they are not finite, or of other shapes than in training.
        """
        one, two = _rows(first, "first"), _rows(second, "second")
        need(len(one) == len(two), f"{len(one)} first and {len(two)} second parts.")
        rows = []
        for scale, x in zip(self.scales, (one, two), strict=True):
            same = x.shape[1:] == scale.shape
            need(same, f"rows {tuple(x.shape[1:])}, trained on {tuple(scale.shape)}.")
            rows.append(scale.there(x))
        self.game.stacks.eval()
        return Ratios(*self.game.logits(torch.cat(rows, 1)[None])[:, 0])


class Scale(NamedTuple):
    """The shape of a part, and the mean and deviation over all its numbers."""

    shape: torch.Size
    mean: float
    deviation: float

    def there(self, x: Tensor) -> Tensor:
        """Standardised and flat."""
        return ((x - self.mean) / self.deviation).flatten(1).float()

    def back(self, x: Tensor) -> Tensor:
        """As the data were."""
        return (x * self.deviation + self.mean).view(-1, *self.shape)


def _rows(values: Any, name: str) -> Tensor:
    """Rows of finite numbers as float64, [N, ...]."""
    try:
        x = torch.as_tensor(np.asarray(values), dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise BadRequest(f"{name} is no array of numbers: {values!r:.60}.") from None
    good = x.dim() >= 2 and x.numel() > 0
    need(good, f"{name} has shape {tuple(x.shape)}: give rows [N, ...], none empty.")
    bad = x.numel() - int((x.isfinite() & (x.abs() < 1e30)).sum())
    need(bad == 0, f"{name} holds {bad} numbers that are huge or not finite.")
    return x


def _data(
    pairs_1: Any, pairs_2: Any, only_1: Any, only_2: Any
) -> tuple[tuple[Scale, Scale], tuple[Pool, Pool, Pool], list[int]]:
    """Standardised pools of unpaired parts and of pairs, and how many are in each.

    The parts of the pairs are unpaired parts, too.
    """
    scales, flat, paired, counts = [], [], [], []
    both = _rows(pairs_1, "pairs_1"), _rows(pairs_2, "pairs_2")
    need(
        len(both[0]) == len(both[1]),
        f"{len(both[0])} first parts meet {len(both[1])} second ones: row i of pairs_1 "
        "must belong to row i of pairs_2.",
    )
    need(len(both[0]) > 1, "one pair cannot be shuffled: give two or more.")
    for k, (mine, given) in enumerate(zip(both, (only_1, only_2), strict=True), 1):
        rows = mine if given is None else _rows(given, f"only_{k}")
        need(
            rows.shape[1:] == mine.shape[1:],
            f"rows of only_{k} have shape {tuple(rows.shape[1:])}, those of pairs_{k} "
            f"{tuple(mine.shape[1:])}: give one shape.",
        )
        rows = rows if given is None else torch.cat([rows, mine])
        scale = Scale(rows.shape[1:], rows.mean().item(), rows.std().item() or 1.0)
        scales.append(scale)
        flat.append(Pool([scale.there(rows)]))
        paired.append(scale.there(mine))
        counts.append(len(rows))
    pools = (flat[0], flat[1], Pool([torch.cat(paired, 1)]))
    return (scales[0], scales[1]), pools, [len(both[0]), *counts]


def train(
    pairs_1: Any,
    pairs_2: Any,
    only_1: Any = None,
    only_2: Any = None,
    *,
    steps: int,
    seed: int,
    discriminator: Maker = small_discriminator,
    generator: Maker = small_generator,
    noise: int = 50,
    batch: int = 32,
    rate: float = 1e-3,
    folder: Path | str | None = None,
) -> Trained:
    """Train a generator of pairs from pairs and from parts that nobody paired, (5).

    Args:
        pairs_1, pairs_2: arrays [N, ...] of any shapes; rows i belong together.
        only_1, only_2: arrays [N_1, ...] and [N_2, ...] of parts without a partner;
            None for none. Parts of the pairs are used as well.
        steps: of training.
        seed: of first weights, batches and noise.
        discriminator: inputs -> a network [B, inputs] to [B, 1]. Its linear layers are
            spectrally normalised here.
        generator: noise, outputs -> a network [B, noise] to [B, outputs], of the parts
            as standardised: mean 0 and deviation 1 over all numbers of a part.
        noise: numbers that the generator starts from.
        batch: rows of each kind a step, 2 or more.
        rate: Adam's learning rate.
        folder: where a checkpoint goes; None keeps none.

    Raises:
        BadRequest: rows do not match or are not finite, fewer than two pairs, a batch
            that cannot be shuffled, or networks that do not fit.
        Diverged: a loss or a weight is not finite.
    """
    for name, value, least in (
        ("steps", steps, 1),
        ("batch", batch, 2),
        ("noise", noise, 1),
    ):
        fine = isinstance(value, int) and value >= least
        need(fine, f"{name} is {value}: give a whole number of {least} or more.")
    need(0 < rate < 1, f"rate is {rate}: give a number between 0 and 1.")
    scales, pools, counts = _data(pairs_1, pairs_2, only_1, only_2)
    widths = pools[0].rows.shape[1], pools[1].rows.shape[1]

    def build(inputs: int, n: int) -> nn.Module:
        return together([discriminator(inputs) for _ in range(n)])

    with seeded(seed):
        made = Apart([generator(noise, sum(widths))])
        game = Game(made, FACTOR, build, 1, widths)
    _fits(game, noise, widths)
    draws, sizes = torch.Generator().manual_seed(seed), {"noise": noise, "batch": batch}
    loop = game_loop(game, pools, draws, rate=rate, steps=steps, **sizes)
    history = fit(loop, steps, folder=folder, name="factorised gan")
    told = "{} pairs, {} first and {} second parts".format(*counts)
    return Trained(game, scales, noise, history, f"{steps} steps on {told}.")


def together(networks: Sequence[nn.Module]) -> nn.Module:
    """Networks as one, spectrally normalised: stacked where all are plain.

    Plain is a Sequential of Linear and LeakyReLU(0.01) in turn; others run one by one.
    """
    if all(_plain(net) for net in networks):
        return Stacked.of(networks, LEAK, spectral=True)  # type: ignore[arg-type]
    for net in networks:
        for layer in net.modules():
            if isinstance(layer, (nn.Linear, nn.Conv1d, nn.Conv2d)):
                nn.utils.parametrizations.spectral_norm(layer)
    return Apart(networks)


def _plain(net: nn.Module) -> bool:
    """Whether linear layers with biases and leaky ReLU take turns."""
    if not isinstance(net, nn.Sequential):
        return False
    layers = list(net)
    linear = all(type(m) is nn.Linear and m.bias is not None for m in layers[::2])
    bent = all(
        type(m) is nn.LeakyReLU and m.negative_slope == LEAK for m in layers[1::2]
    )
    return linear and bent and len(layers) % 2 == 1


def _fits(game: Game, noise: int, widths: tuple[int, int]) -> None:
    """Refuse networks whose outputs have other shapes than the game needs."""
    try:
        with torch.no_grad():
            made = game.generator(torch.zeros(1, 2, noise))
            need(made.shape == (1, 2, sum(widths)), "")
            game.stacks.eval()
            for (inputs, group), stack in zip(
                game.groups.items(), game.stacks, strict=True
            ):
                said = stack(torch.zeros(len(group), 2, inputs))
                need(said.shape == (len(group), 2, 1), "")
    except (BadRequest, RuntimeError, TypeError, IndexError, ValueError):
        raise BadRequest(
            f"the networks do not fit: a generator takes [B, {noise}] to "
            f"[B, {sum(widths)}], a discriminator [B, inputs] to [B, 1]."
        ) from None
    game.train()
