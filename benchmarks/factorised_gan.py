"""How fast a step of FactorGAN is: stacked networks against one after the other.

A step trains four discriminators and a generator of two hidden layers of 64 on a batch
of 32 pairs of 8 x 8 pixels, in float32 and on one thread. The transcription is plain
PyTorch: `nn.Sequential`, its spectral normalisation, two optimisers. The package stacks
networks of one shape, and models: `Game.play`. Both end in the same weights after ten
steps on the same batches; that is held to 1e-5, in float64, because Adam divides tiny
gradients by their own size and so makes rounding of float32 visible.
Writes records/factorised_gan/bench-cpu.json.

    python benchmarks/factorised_gan.py
"""

import statistics
from collections.abc import Callable

import _benchmark
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from iclrtut.chapters.factorised_gan.method import (
    FACTOR,
    LEAK,
    Game,
    Real,
    small_discriminator,
    small_generator,
)
from iclrtut.chapters.factorised_gan.stacks import Stacked
from iclrtut.timing import alternate

BATCH, PIXELS, NOISE, STEPS, ROUNDS = 32, 64, 50, 10, 7
INPUTS = (PIXELS, PIXELS, 2 * PIXELS, 2 * PIXELS)


def shift(pairs: Tensor) -> Tensor:
    """The second halves move on by one row."""
    return torch.cat([pairs[:, :PIXELS], pairs[:, PIXELS:].roll(1, 0)], 1)


class Plain:
    """FactorGAN as one would write it: five networks and two optimisers."""

    def __init__(self, seed: int, dtype: torch.dtype) -> None:
        torch.manual_seed(seed)
        self.generator = small_generator(NOISE, 2 * PIXELS).to(dtype)
        self.nets = [small_discriminator(n).to(dtype) for n in INPUTS]
        for net in self.nets:
            for layer in net:
                if isinstance(layer, nn.Linear):
                    spectral_norm(layer)
        weights = [w for net in self.nets for w in net.parameters()]
        self.ours = torch.optim.Adam(weights, lr=1e-3, betas=(0.5, 0.999))
        self.theirs = torch.optim.Adam(
            self.generator.parameters(), lr=1e-3, betas=(0.5, 0.999)
        )

    def play(self, real: Real, z: Tensor) -> None:
        """One step of all players, on batches [B, n]."""
        fake = self.generator(z)
        held = fake.detach()
        sides = [
            (real.first, held[:, :PIXELS]),
            (real.second, held[:, PIXELS:]),
            (real.pairs, shift(real.pairs)),
            (held, shift(held)),
        ]
        self.ours.zero_grad()
        for net, (positive, negative) in zip(self.nets, sides, strict=True):
            logits = net(torch.cat([positive, negative]))
            loss = F.softplus(-logits[:BATCH]) + F.softplus(logits[BATCH:])
            loss.mean().backward()
        self.ours.step()
        for net in self.nets:
            net.requires_grad_(False).eval()
        total = self.nets[0](fake[:, :PIXELS]) + self.nets[1](fake[:, PIXELS:])
        total = total + self.nets[2](fake) - self.nets[3](fake)
        self.theirs.zero_grad()
        F.softplus(-total).mean().backward()
        self.theirs.step()
        for net in self.nets:
            net.requires_grad_(True).train()


def stacked(models: list[Plain]) -> tuple[Game, torch.optim.Optimizer]:
    """The same players in stacks, and their optimiser."""
    generator = Stacked.of([m.generator for m in models], 0.0, spectral=False)

    def build(inputs: int, copies: int) -> Stacked:
        at = [k for k, n in enumerate(INPUTS) if n == inputs]
        nets = [m.nets[k] for k in at for m in models]
        return Stacked.of(nets, LEAK, spectral=True)

    game = Game(generator, FACTOR, build, len(models), (PIXELS, PIXELS))
    weights = [*game.generator.parameters(), *game.stacks.parameters()]
    return game, torch.optim.Adam(weights, lr=1e-3, betas=(0.5, 0.999), fused=True)


def batch(models: int, seed: int, dtype: torch.dtype) -> tuple[Real, Tensor]:
    """Data and noise of one step, [models, B, n]."""
    draws = torch.Generator().manual_seed(seed)
    parts = [
        torch.rand(models, BATCH, n, generator=draws, dtype=dtype)
        for n in (PIXELS, PIXELS, 2 * PIXELS, NOISE)
    ]
    return Real(*parts[:3]), parts[3]


def agree(count: int) -> float:
    """The largest difference between two routes' weights after ten steps."""
    models = [Plain(seed, torch.float64) for seed in range(count)]
    game, adam = stacked(models)
    for t in range(STEPS):
        real, z = batch(count, t, torch.float64)
        game.play(adam, real, z)
        for k, model in enumerate(models):
            model.play(Real(*(part[k] for part in real)), z[k])
    worst = 0.0
    for k, model in enumerate(models):
        ours, last = game.generator.weight[2][k], model.generator[4].weight
        worst = max(worst, (ours - last).abs().max().item())
        raw = model.nets[3][0].parametrizations.weight.original
        theirs = game.stacks[1].weight[0][count + k]
        worst = max(worst, (theirs - raw).abs().max().item())
    assert worst <= 1e-5, f"the routes differ by {worst:.1e}"
    return worst


def timed(count: int) -> dict[str, float]:
    """Milliseconds a step of one model, by both routes, and their ratio."""
    models = [Plain(seed, torch.float32) for seed in range(count)]
    game, adam = stacked(models)
    real, z = batch(count, 0, torch.float32)

    def slow() -> None:
        for _ in range(STEPS):
            for k, model in enumerate(models):
                model.play(Real(*(part[k] for part in real)), z[k])

    def fast() -> None:
        for _ in range(STEPS):
            game.play(adam, real, z)

    calls: dict[str, Callable[[], object]] = {"slow": slow, "fast": fast}
    times = alternate(calls, ROUNDS)
    each = {
        name: 1000 * statistics.median(spent) / STEPS / count
        for name, spent in times.items()
    }
    ratio = statistics.median(
        a / b for a, b in zip(times["slow"], times["fast"], strict=True)
    )
    return {
        "transcription_ms": each["slow"],
        "stacked_ms": each["fast"],
        "stacked_is_faster": ratio,
    }


def main() -> None:
    """Measure, print the table, write the record."""
    torch.set_num_threads(1)
    worst = max(map(agree, (1, 3)))
    rows = {f"{count} models": timed(count) for count in (1, 2, 4, 8)}
    print(f"the routes agree to {worst:.1e}")
    _benchmark.record(
        "factorised_gan",
        "cpu",
        {"a step of one model": rows},
        batch=BATCH,
        width=64,
        dtype="float32",
        **{"largest difference": worst},
    )


if __name__ == "__main__":
    main()
