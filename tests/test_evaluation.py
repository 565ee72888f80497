"""Functions applied a few rows at a time, and times of arms in turn."""

import time

import pytest
import torch
from torch import nn

from iclrtut import timing
from iclrtut.errors import BadRequest
from iclrtut.evaluation import in_batches, predict


def test_batches_give_what_one_call_gives():
    x, y = torch.randn(7, 3), torch.randn(7, 2)
    sizes = []

    def function(a, b):
        sizes.append(len(a))
        return torch.cat([a, 2 * b], 1)

    assert torch.equal(in_batches(function, x, y, size=3), function(x, y))
    assert sizes == [3, 3, 1, 7]


def test_predictions_carry_no_gradient_and_batches_do():
    net, x = nn.Linear(3, 2), torch.randn(5, 3)
    assert in_batches(net, x, size=2).requires_grad
    assert not predict(net, x, size=2).requires_grad
    assert torch.allclose(predict(net, x, size=2), net(x))


@pytest.mark.parametrize(
    ("lengths", "size"), [((3, 4), 2), ((0,), 2), ((), 2), ((3,), 0)]
)
def test_what_makes_no_batches_is_refused(lengths, size):
    with pytest.raises(BadRequest, match="no batches"):
        in_batches(lambda *x: x[0], *(torch.zeros(n, 1) for n in lengths), size=size)


def test_arms_take_turns_and_the_warm_up_is_dropped():
    calls = []
    arms = {name: lambda name=name: calls.append(name) for name in "ab"}
    times = timing.alternate(arms, rounds=3, warmup=2)
    assert calls == ["a", "b"] * 5
    assert {name: len(each) for name, each in times.items()} == {"a": 3, "b": 3}


def test_a_time_is_at_least_what_the_call_takes():
    assert timing.seconds(lambda: time.sleep(0.02)) >= 0.02
