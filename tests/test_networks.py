"""Small networks and linear probes."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import nn

from iclrtut.errors import BadRequest
from iclrtut.networks import convnet, mlp
from iclrtut.probes import fit_probe


def test_weights_come_from_the_seed_alone():
    before = torch.get_rng_state()
    one, same, other = mlp((2, 5, 3), 1), mlp((2, 5, 3), 1), mlp((2, 5, 3), 2)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one[0].weight, same[0].weight)
    assert not torch.equal(one[0].weight, other[0].weight)


def test_layers_are_those_that_were_asked_for():
    kinds = [type(layer) for layer in mlp((2, 5, 5, 3), 0, nn.SiLU)]
    assert kinds == [nn.Linear, nn.SiLU, nn.Linear, nn.SiLU, nn.Linear]
    net = convnet((3, 4, 6, 8), 0, nn.SiLU, side=7, classes=5)
    assert net(torch.zeros(2, 3, 7, 7)).shape == (2, 5)
    assert [layer.stride[0] for layer in net if isinstance(layer, nn.Conv2d)] == [
        1,
        2,
        2,
    ]


def blobs(n, seed):
    """Three classes in the first two of five features, of unlike scales."""
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=n)
    x = rng.normal(size=(n, 5)) * [1, 1, 100, 0.01, 1]
    x[:, 0] += 4 * (y == 1)
    x[:, 1] += 4 * (y == 2)
    return x, y


def test_a_probe_finds_what_is_linear():
    probe = fit_probe(*blobs(300, 0))
    assert probe.accuracy(*blobs(1000, 1)) > 0.9
    x, y = blobs(1000, 1)
    assert probe.accuracy(x, np.random.default_rng(2).permutation(y)) < 0.5


def test_the_penalty_is_the_best_with_each_input_left_out():
    x, y = blobs(40, 3)
    penalties = (0.1, 10.0, 1000.0)
    probe = fit_probe(x, y, penalties)
    z, targets = (x - x.mean(0)) / x.std(0), np.eye(3)[y]
    errors = []
    for penalty in penalties:
        error = 0.0
        for i in range(len(x)):
            rest = np.arange(len(x)) != i
            model = Ridge(penalty).fit(z[rest], targets[rest])
            error += ((model.predict(z[i : i + 1]) - targets[i]) ** 2).sum()
        errors.append(error)
    assert probe.penalty == penalties[int(np.argmin(errors))]
    whole = Ridge(probe.penalty).fit(z, targets)
    assert np.allclose(probe.scores(x), whole.predict(z))


@pytest.mark.parametrize(
    ("y", "penalties"), [([0, 0, 0], (1.0,)), ([0, 1, 1], ()), ([0, 1, 1], (0.0,))]
)
def test_what_makes_no_probe_is_refused(y, penalties):
    with pytest.raises(BadRequest, match="no probe"):
        fit_probe(np.eye(3), y, penalties)


def test_a_constant_feature_does_no_harm():
    x, y = blobs(60, 4)
    x[:, 4] = 3.0
    assert np.isfinite(fit_probe(torch.tensor(x), torch.tensor(y)).scores(x)).all()
