"""Networks of one shape as one: batched products in place of a loop over networks.

Numbers in brackets are equations of the chapter `factorised_gan`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from iclrtut.networks import mlp

WARM = 15  # power iterations on the first weights


class Stacked(nn.Module):
    """S networks of linear layers at once, [S, B, inputs] to [S, B, outputs].

    Args:
        sizes: widths of the input, of each hidden layer, and of the output.
        copies: S.
        seed: of the first weights.
        leak: slope of the ReLU below 0.
        spectral: whether each weight is divided by its largest singular value, as one
            power iteration a forward pass in training estimates it, (8).
    """

    def __init__(
        self,
        sizes: Sequence[int],
        copies: int,
        seed: int,
        *,
        leak: float = 0.0,
        spectral: bool = False,
    ) -> None:
        super().__init__()
        self._build([mlp(sizes, seed + s) for s in range(copies)], leak, spectral)

    @classmethod
    def of(
        cls, networks: Sequence[nn.Sequential], leak: float, spectral: bool
    ) -> "Stacked":
        """Networks of one shape with their weights, and their power iterations."""
        new = cls.__new__(cls)
        nn.Module.__init__(new)
        new._build(networks, leak, spectral)
        return new

    def _build(
        self, networks: Sequence[nn.Sequential], leak: float, spectral: bool
    ) -> None:
        self.leak, self.spectral = leak, spectral
        layers = [[m for m in net if isinstance(m, nn.Linear)] for net in networks]
        self.weight, self.bias = nn.ParameterList(), nn.ParameterList()
        for i, same in enumerate(zip(*layers, strict=True)):
            W, u, v = (torch.stack(x) for x in zip(*map(_raw, same), strict=True))
            self.weight.append(W)
            self.bias.append(torch.stack([layer.bias.detach() for layer in same]))
            if spectral:
                self.register_buffer(f"u{i}", u[..., None])
                self.register_buffer(f"v{i}", v[..., None])

    def forward(self, x: Tensor) -> Tensor:
        """The outputs of all networks, each for its own inputs."""
        for i, bias in enumerate(self.bias):
            if i:
                x = F.leaky_relu(x, self.leak)
            W = self.divided(i) if self.spectral else self.weight[i]
            x = torch.baddbmm(bias[:, None], x, W.mT)
        return x

    def divided(self, i: int) -> Tensor:
        """The weight of layer i over its norm, [S, outputs, inputs], (8)."""
        W = self.weight[i]
        u, v = getattr(self, f"u{i}"), getattr(self, f"v{i}")
        with torch.no_grad():
            if self.training:
                torch.bmm(W, v, out=u).div_(_length(u))
                norm = _length(torch.bmm(W.mT, u, out=v))  # and this is u^T W v
                v.div_(norm)
            else:
                norm = torch.bmm(u.mT, torch.bmm(W, v))
        if W.requires_grad:
            divided: Tensor = _Divide.apply(W, u, v, norm)  # type: ignore[no-untyped-call]
        else:
            divided = W / norm
        return divided


def _length(x: Tensor) -> Tensor:
    """Of each column [S, n, 1], [S, 1, 1]."""
    length: Tensor = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return length


class _Divide(torch.autograd.Function):
    """W / (u^T W v) for [S, outputs, inputs], with u and v held fixed."""

    @staticmethod
    def forward(ctx: Any, W: Tensor, u: Tensor, v: Tensor, norm: Tensor) -> Tensor:
        """The quotient; the next pass overwrites u and v, so copies are kept."""
        unit = W / norm
        ctx.save_for_backward(unit, u.clone(), v.clone(), norm)
        return unit

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        """d (W / s) = dW / s - (W / s) (u^T dW v) / s."""
        unit, u, v, norm = ctx.saved_tensors
        along = (grad * unit).sum((1, 2), keepdim=True)
        return torch.baddbmm(grad, u * -along, v.mT) / norm, None, None, None


def _raw(layer: nn.Linear) -> tuple[Tensor, Tensor, Tensor]:
    """A layer's weight, and the vectors of its power iteration."""
    spectral = getattr(layer, "parametrizations", None)
    if spectral is not None:
        norm = spectral.weight[0]
        return spectral.weight.original.detach(), norm._u.clone(), norm._v.clone()
    W = layer.weight.detach()
    v = F.normalize(1 + torch.arange(W.shape[1]).to(W) % 2, dim=0)
    for _ in range(WARM):
        u = F.normalize(W @ v, dim=0)
        v = F.normalize(W.T @ u, dim=0)
    return W, u, v


class Apart(nn.Module):
    """S networks of any kind, one after the other, with the face of `Stacked`."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> Tensor:
        """The outputs of all networks, each for its own inputs."""
        return torch.stack([net(x[s]) for s, net in enumerate(self.networks)])
