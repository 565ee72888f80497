"""Landscapes over the plane, and a warp of the plane whose inverse is closed.

A family has losses of points [n, m, 2] for n tasks, and a sampler of tasks [n, k].
"""

import torch
from torch import Generator, Tensor, nn

from iclrtut.train import seeded


def _columns(tasks: Tensor) -> list[Tensor]:
    """Each number of the tasks as [n, 1]."""
    return [column[:, None] for column in tasks.unbind(-1)]


def valley(points: Tensor, tasks: Tensor) -> Tensor:
    """(x - x*)^2 / 2 + 5 (y - 0.8 sin(1.5 x) - e)^2, a narrow, curved valley.

    Args:
        points: [n, m, 2].
        tasks: x* and e, [n, 2].

    Returns:
        Losses [n, m], whose minimum is 0.
    """
    x, y = points.unbind(-1)
    target, up = _columns(tasks)
    across = y - 0.8 * (1.5 * x).sin() - up
    return (x - target).square() / 2 + 5 * across.square()


def sample_valley(n: int, generator: Generator) -> Tensor:
    """n valleys: x* from -2 to 2, e from N(0, 0.3^2), [n, 2]."""
    target = 4 * torch.rand(n, generator=generator) - 2
    return torch.stack([target, 0.3 * torch.randn(n, generator=generator)], 1)


def mountains(points: Tensor, tasks: Tensor) -> Tensor:
    """Peaks and pits, as in appendix D of the paper.

    Args:
        points: [n, m, 2].
        tasks: a1, a2, a3, b1, b2, b3 and s, [n, 7].

    Returns:
        Losses [n, m].
    """
    x, y = points.unbind(-1)
    a1, a2, a3, b1, b2, b3, s = _columns(tasks)
    first = b1 * (a1 - x).square() * (-(x**2) - (y + a2).square()).exp()
    second = b2 * (x / s - x**3 - y**5) * (-(x**2) - y**2).exp()
    return first - second - b3 * (-((x + a3).square()) - y**2).exp()


def sample_mountains(n: int, generator: Generator) -> Tensor:
    """n mountains: a in {-1, 0, 1}, b from -5 to 5, s from 1 to 10, whole, [n, 7]."""
    a = torch.randint(-1, 2, (n, 3), generator=generator)
    b = torch.randint(-5, 6, (n, 3), generator=generator)
    s = torch.randint(1, 11, (n, 1), generator=generator)
    return torch.cat([a, b, s], 1).float()


class Coupling(nn.Module):
    """Omega: y moves and stretches by what x says, then x by what y says.

    Log-scales are 2 tanh(s / 2) plus a free constant, with s and the shift from a
    network 1-width-2, so Omega is one-to-one whatever its weights. At first it is the
    identity.

    Args:
        width: of the two networks.
        seed: of their first weights.
    """

    def __init__(self, width: int = 30, seed: int = 0) -> None:
        super().__init__()
        with seeded(seed):
            self.nets = nn.ModuleList(
                nn.Sequential(nn.Linear(1, width), nn.Tanh(), nn.Linear(width, 2))
                for _ in range(2)
            )
        self.free = nn.Parameter(torch.zeros(2))
        for net in self.nets:
            nn.init.zeros_(net[2].weight)
            nn.init.zeros_(net[2].bias)

    def _says(self, i: int, given: Tensor, strength: float) -> tuple[Tensor, Tensor]:
        """Log-scale and shift of one coordinate, given the other."""
        s, shift = self.nets[i](given[..., None]).unbind(-1)
        scale = 2 * (s / 2).tanh() + self.free[i]
        return strength * scale, strength * shift

    def forward(self, points: Tensor, strength: float = 1.0) -> Tensor:
        """gamma of theta, [..., 2].

        Args:
            points: theta.
            strength: times log-scales and shifts; 0 is the identity.
        """
        x, y = points.unbind(-1)
        scale, shift = self._says(0, x, strength)
        y = y * scale.exp() + shift
        scale, shift = self._says(1, y, strength)
        return torch.stack([x * scale.exp() + shift, y], -1)

    def inverse(self, points: Tensor, strength: float = 1.0) -> Tensor:
        """theta of gamma, [..., 2]."""
        x, y = points.unbind(-1)
        scale, shift = self._says(1, y, strength)
        x = (x - shift) * (-scale).exp()
        scale, shift = self._says(0, x, strength)
        return torch.stack([x, (y - shift) * (-scale).exp()], -1)
