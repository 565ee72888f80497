"""JEM in the plane, where its density can be drawn: eight Gaussians on a circle.

Points are [n, 2], classes int64 [n]; numbers in brackets are equations of the chapter.
"""

import math

import torch
from torch import Tensor, nn

from iclrtut.chapters.energy_based_classifier import Settings
from iclrtut.chapters.energy_based_classifier.method import (
    ReplayBuffer,
    jem_loss,
    langevin,
    log_density,
    plane_net,
)
from iclrtut.evaluation import predict
from iclrtut.run import Run
from iclrtut.train import Loop, warmup_cosine

# In the square [-HALF, HALF]^2
CENTRES = torch.tensor(
    [[math.cos(k * math.pi / 4), math.sin(k * math.pi / 4)] for k in range(8)]
)
SPREAD, HALF = 0.15, 2.0


def eight_gaussians(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """n points [n, 2] of eight Gaussians on the unit circle, classes alternating."""
    which = torch.randint(8, (n,), generator=generator)
    noise = torch.randn(n, 2, generator=generator)
    return CENTRES[which] + SPREAD * noise, which % 2


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


def loop(run: Run) -> Loop:
    """JEM on the eight Gaussians, on the CPU, chains held in the square.

    Its sampler has T = 1 in (9b), so that the density of the model can be looked at.
    """
    s: Settings = run.settings
    draws = run.generator("plane", "cpu")
    model = plane_net(draws.initial_seed())
    buffer = ReplayBuffer(s.buffer, (2,), s.restart, draws)
    adam = torch.optim.Adam(model.parameters(), lr=s.learning_rate, fused=True)
    box = (-HALF, HALF)

    def step(t: int) -> dict[str, Tensor | float]:
        x, y = eight_gaussians(s.batch, draws)
        start, slots = buffer.draw(s.batch)
        samples = langevin(
            model, start, s.plane_sampler_steps, 0.005, 0.1, draws, clamp=box
        )
        buffer.put(slots, samples)
        loss, watched = jem_loss(model, x, y, samples)
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        return {"loss": loss, **watched}

    state = {"model": model, "buffer": buffer, "draws": draws}
    return Loop(step, adam, state, warmup_cosine(s.warmup, s.plane_steps))
