"""gamma's training: the regret of an episode, its gradient, a step.

The learners start every episode anew, so all that is trained is gamma, and, where
variables are rotated, the encoder's angle. Numbers in brackets are equations of the
chapter.
"""

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from iclrtut.chapters.meta_transfer import method
from iclrtut.run import Run
from iclrtut.train import Loop, Schedule, constant, fit


class Beliefs(nn.Module):
    """gamma, one number for each of many runs, from zero; and what became of it.

    Args:
        like: a tensor of gamma's shape [...], type and device.
        episodes: E.

    Attributes:
        gamma: [...].
        gammas: gamma before each episode, [E, ...].
        deltas: Delta of each episode, [E, ...], in nats.
    """

    gammas: Tensor
    deltas: Tensor

    def __init__(self, like: Tensor, episodes: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros_like(like))
        for name in ("gammas", "deltas"):
            self.register_buffer(name, like.new_zeros(episodes, *like.shape))

    @torch.no_grad()
    def note(self, t: int, delta: Tensor) -> None:
        """Keep what episode t begins with, and its Delta."""
        self.gammas[t], self.deltas[t] = self.gamma, delta

    @property
    def path(self) -> Tensor:
        """gamma before the first episode and after each, [E + 1, ...]."""
        return torch.cat([self.gammas, self.gamma.detach()[None]])


def loop(
    model: Beliefs,
    log_likelihoods: Callable[[int], tuple[Tensor, Tensor] | Tensor],
    optimizer: Optimizer,
    data: Generator,
    schedule: Schedule | list[Schedule] = constant,
) -> Loop:
    """One step an episode on the regret (11), summed over runs.

    Args:
        model: what is trained.
        log_likelihoods: episode t -> log L of A -> B and of B -> A, each [...].
        optimizer: of the model's parameters, or of some.
        data: what the episodes are drawn from.
        schedule: of the learning rates.
    """

    def step(t: int) -> dict[str, Tensor]:
        forward, backward = log_likelihoods(t)
        loss = method.regret(model.gamma, forward, backward).sum()
        model.note(t, forward - backward)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return {"loss": loss / model.gamma.numel()}

    return Loop(step, optimizer, {"model": model, "data": data}, schedule)


def train(run: Run, loop: Loop, episodes: int, name: str) -> None:
    """Run a loop to its end; `name` is of the checkpoint and the progress bar."""
    fit(loop, episodes, folder=run.folder, name=name, every=run.settings.every)
