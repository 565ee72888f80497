"""The method against independent routes."""

import torch
from iclrtut.chapters.SLUG import method


def test_a_draw_is_shrunk_as_by_hand():
    x = torch.tensor([[3.0, 4.0, 0.0]])
    assert torch.allclose(method.shrunken(x), x * (1 - 1 / 25))


def test_draws_do_not_know_of_each_other():
    x = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    one = torch.cat([method.shrunken(row[None]) for row in x])
    assert torch.allclose(method.shrunken(x), one)
