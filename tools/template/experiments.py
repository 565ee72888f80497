"""What judges the claims of the chapter `SLUG`: training and measurements."""

import torch
from iclrtut.chapters.SLUG.method import Shrink, shrunken
from torch import Tensor

from iclrtut.run import Run
from iclrtut.train import History, fit, linear


def train(run: Run, mu: Tensor) -> tuple[Shrink, History]:
    """Learn c of (2) from draws around mu [d]."""
    model, generator = Shrink(), run.generator("draws", "cpu")
    adam = torch.optim.Adam(model.parameters(), lr=0.05)

    def loss_at(t: int) -> tuple[Tensor, dict[str, float]]:
        x = mu + torch.randn(256, len(mu), generator=generator)
        return (model(x) - mu).square().sum(1).mean(), {"c": model.c.item()}

    history = fit(
        loss_at,
        adam,
        run.settings.steps,
        state={"model": model, "generator": generator},
        folder=run.folder,
        name="shrink",
        schedule=linear(run.settings.steps),
    )
    return model, history


def measure_error(run: Run, mu: Tensor) -> dict[str, float]:
    """Mean squared errors of the plain and the shrunken estimate of mu [d]."""
    generator = run.generator("error", "cpu")
    x = mu + torch.randn(run.settings.draws, len(mu), generator=generator)
    plain, shrunk = (
        float((guess - mu).square().sum(1).mean()) for guess in (x, shrunken(x))
    )
    return {"value": plain - shrunk, "plain": plain, "shrunken": shrunk}
