"""Attacks on a classifier that refines its inputs by sampler steps (section 5.4)."""

import torch
from torch import Tensor, nn

from iclrtut.chapters.energy_based_classifier.method import (
    Refinement,
    langevin,
    log_density,
    pgd,
    refine,
)


def unrolled(
    model: nn.Module, x: Tensor, how: Refinement, generator: torch.Generator
) -> Tensor:
    """One chain of `langevin` from x that gradients flow through, as x."""
    for _ in range(how.steps):
        lse = log_density(model(x)).sum()
        slope = torch.autograd.grad(lse, x, create_graph=True)[0]
        noise = torch.empty_like(x).normal_(generator=generator)
        x = x + how.alpha * slope + how.sigma * noise
    return x


def attack_refined(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    radius: float,
    steps: int,
    how: Refinement,
    generator: torch.Generator,
    norm: str = "linf",
) -> dict[str, Tensor]:
    """Attack a classifier that refines its inputs, in three ways.

    "replayed" attacks the classifier without refinement. The other two go on from
    there, with a fresh chain at every step: "straight" takes the gradient at the
    refined input (the official attack), "unrolled" differentiates through the sampler.

    Returns:
        Name to bool [n]: whether refinement still finds the class; and "worst", where
        all three must.
    """

    def straight(z: Tensor) -> Tensor:
        end = langevin(model, z, how.steps, how.alpha, how.sigma, generator)
        with torch.enable_grad():
            logits: Tensor = model(z + (end - z).detach())
        return logits

    def through(z: Tensor) -> Tensor:
        logits: Tensor = model(unrolled(model, z, how, generator))
        return logits

    attack = (radius, steps, norm, generator)
    replayed = pgd(model, x, y, *attack)
    found = {
        "replayed": replayed,
        "straight": pgd(model, x, y, *attack, straight, replayed),
        "unrolled": pgd(model, x, y, *attack, through, replayed),
    }
    logits = {name: refine(model, z, how, generator) for name, z in found.items()}
    right = {name: z.argmax(1) == y for name, z in logits.items()}
    return {**right, "worst": torch.stack(list(right.values())).all(0)}
