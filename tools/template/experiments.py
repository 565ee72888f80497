"""What judges the claims of the chapter `SLUG`: loop and measurements."""

import torch
from iclrtut.chapters.SLUG.method import Shrink, shrunken
from torch import Tensor

from iclrtut.run import Run
from iclrtut.train import Loop, linear


def loop(run: Run, mu: Tensor) -> Loop:
    """What learns c of (2) from draws around mu [d]: the loop of the page."""
    model, draws = Shrink(), run.generator("draws", "cpu")
    adam = torch.optim.Adam(model.parameters(), lr=0.05)

    def step(t: int) -> dict[str, Tensor]:
        x = mu + torch.randn(256, len(mu), generator=draws)
        loss = (model(x) - mu).square().sum(1).mean()
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        return {"loss": loss}

    schedule = linear(run.settings.steps)
    return Loop(step, adam, {"model": model, "draws": draws}, schedule)


def measure_error(run: Run, mu: Tensor) -> dict[str, float]:
    """Mean squared errors of the plain and the shrunken estimate of mu [d]."""
    generator = run.generator("error", "cpu")
    x = mu + torch.randn(run.settings.draws, len(mu), generator=generator)
    plain, shrunk = (
        float((guess - mu).square().sum(1).mean()) for guess in (x, shrunken(x))
    )
    return {"value": plain - shrunk, "plain": plain, "shrunken": shrunk}
