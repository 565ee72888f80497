"""Random tensors for the tests of the chapters."""

import torch


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, generator=rng(seed), dtype=torch.float64)


def uniform(*shape, seed=0, low=0.0, high=1.0):
    drawn = torch.rand(*shape, generator=rng(seed), dtype=torch.float64)
    return low + (high - low) * drawn
