"""«Title of the chapter», at working speed.

«Authors», ICLR 2020. Numbers in brackets are equations of the chapter `SLUG`.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from iclrtut.claims import Chapter, Claim, above
from iclrtut.train import History, fit


class Settings(NamedTuple):
    """Sizes of one profile; the defaults are `quick`."""

    draws: int = 20_000
    steps: int = 200


CHAPTER = Chapter(
    slug="SLUG",
    title="«Title of the chapter»",
    paper="«Title of the paper»",
    authors="«Authors»",
    url="https://arxiv.org/abs/«number»",
    idea="«One sentence for the cover.»",
    difficulty="gentle",
    prerequisites="«what to know before»",
    settings={
        "smoke": Settings(draws=2000, steps=5),
        "quick": Settings(),
        "full": Settings(draws=1_000_000, steps=1000),
    },
    claims=(
        Claim(
            "smaller_error",
            "«The claim in the paper's terms»",
            "«section 1»",
            "squared error of the plain estimate minus that of the shrunken one",
            above(0),
            paper="«the paper's own number (table 1)»",
        ),
    ),
)


def shrunken(x: Tensor) -> Tensor:
    """James and Stein's estimate of a mean from one draw, (3).

    Args:
        x: draws of N(mu, I), shape [..., d], d at least 3.

    Returns:
        Estimates of mu, of the shape of x.
    """
    square: Tensor = x.square().sum(-1, keepdim=True)
    return x - (x.shape[-1] - 2) / square * x


class Shrink(nn.Module):
    """One number that multiplies every input, (2)."""

    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """Inputs [n, d] to outputs [n, d]."""
        return self.c * x


def train(run: Any, mu: Tensor) -> tuple[Shrink, History]:
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
    )
    return model, history


def measure_error(run: Any, mu: Tensor) -> dict[str, float]:
    """Mean squared errors of the plain and the shrunken estimate of mu [d]."""
    generator = run.generator("error", "cpu")
    x = mu + torch.randn(run.settings.draws, len(mu), generator=generator)
    plain, shrunk = (
        float((guess - mu).square().sum(1).mean()) for guess in (x, shrunken(x))
    )
    return {"value": plain - shrunk, "plain": plain, "shrunken": shrunk}
