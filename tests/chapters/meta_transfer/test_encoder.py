"""The regret of rotated variables, (13), each function by another route.

The routes: complex numbers, scikit-learn's ridge regression, autograd through plain
formulas, loops over one world at a time, finite differences and closed forms.
"""

import math

import numpy as np
import pytest
import torch
from assertions import refused
from rng import normal
from sklearn.linear_model import Ridge
from torch.autograd import grad

from iclrtut.chapters.meta_transfer import encoder, method

CENTRES = np.arange(-11.0, 12)


def points(W=3, n=60, m=40, seed=0):
    """Training and transfer points of W worlds, as `regret` takes them."""
    train = normal(W, n, 2, seed=seed, scale=2.0)
    train[..., 1] += train[..., 0].sin() * 3
    return train, normal(W, m, 2, seed=seed + 1, scale=2.0) + 1


def test_rotation_is_multiplication_by_a_unit_complex_number():
    x, theta = normal(3, 5, 2), normal(3, seed=1)
    result = encoder.rotate(x, theta)
    turned = (
        torch.view_as_complex(x) * torch.polar(torch.ones(3).double(), theta)[:, None]
    )
    assert torch.allclose(torch.view_as_complex(result), turned, rtol=0, atol=1e-14)
    quarter = encoder.rotate(torch.tensor([[[1.0, 0]]]), torch.tensor([math.pi / 2]))
    assert torch.allclose(quarter, torch.tensor([[[0.0, 1]]]), atol=1e-6)


def test_the_nearest_solution_is_the_nearest_of_all():
    theta, turn = normal(500, scale=5), normal(500, seed=1, scale=5)
    degrees, sign = encoder.nearest(theta, turn)
    k = np.arange(-40, 41)
    away = np.abs(np.degrees((theta + turn)[:, None].numpy() - k * np.pi / 2))
    assert np.allclose(degrees, away.min(1), rtol=0, atol=1e-10)
    assert np.array_equal(sign, np.where(k[away.argmin(1)] % 2 == 0, 1, -1))
    assert degrees.max() <= 45


def test_at_a_solution_of_either_sign_the_cause_is_where_gamma_says():
    seen = encoder.rotate(
        torch.tensor([[[3.0, 5.0]]]).double(), torch.tensor([0.4]).double()
    )
    for k, cause in enumerate((3.0, -5.0, -3.0, 5.0)):  # the first encoded variable
        theta = torch.tensor([k * math.pi / 2 - 0.4]).double()
        encoded = encoder.rotate(seen, theta)
        _, sign = encoder.nearest(theta, torch.tensor([0.4]).double())
        assert encoded[0, 0, 0] == pytest.approx(cause)
        assert (sign > 0) == (abs(cause) == 3)


def test_a_learner_is_ridge_regression_between_normal_laws():
    x, y = normal(2, 50, scale=3), normal(2, 50, seed=1, scale=2)
    result = encoder.learn(x, y)
    for i in range(2):
        features = np.exp(-((x[i].numpy()[:, None] - CENTRES) ** 2) / 2)
        ridge = Ridge(alpha=1.0, fit_intercept=False).fit(features, y[i].numpy())
        residual = y[i].numpy() - ridge.predict(features)
        assert np.allclose(result.weights[i], ridge.coef_, rtol=0, atol=1e-10)
        assert result.mean[i] == pytest.approx(float(x[i].mean()))
        assert result.log_sd[i].exp() == pytest.approx(x[i].numpy().std())
        noise = math.sqrt((residual**2).mean())
        assert result.log_noise[i].exp() == pytest.approx(noise)


def by_hand(x, y, u, v, rate):
    """log L of one learner, by torch's laws and autograd, one batch after the other."""
    learner = [part.detach().clone().requires_grad_() for part in encoder.learn(x, y)]
    total = 0.0
    for u_t, v_t in zip(u, v, strict=True):
        mean, log_sd, weights, log_noise = learner
        features = (-(u_t[:, None] - torch.tensor(CENTRES)).square() / 2).exp()
        of_x = torch.distributions.Normal(mean, log_sd.exp()).log_prob(u_t)
        given = torch.distributions.Normal(features @ weights, log_noise.exp())
        log_p = of_x + given.log_prob(v_t)
        total += float(log_p.sum().detach())
        steps = grad(log_p.mean(), learner)
        learner = [
            (part + rate * step).detach().requires_grad_()
            for part, step in zip(learner, steps, strict=True)
        ]
    return total


def test_adaptation_is_gradient_ascent_after_each_batch():
    x, y = normal(3, 50, scale=3), normal(3, 50, seed=1, scale=2)
    u, v = normal(3, 4, 7, seed=2, scale=3) + 1, normal(3, 4, 7, seed=3, scale=2)
    result = encoder.adapt(encoder.learn(x, y), u, v, 0.1)
    still = encoder.adapt(encoder.learn(x, y), u, v, 0.0)
    for i in range(3):
        assert result[i] == pytest.approx(
            by_hand(x[i], y[i], u[i], v[i], 0.1), abs=1e-9
        )
        assert still[i] == pytest.approx(by_hand(x[i], y[i], u[i], v[i], 0.0), abs=1e-9)
    one = encoder.adapt(encoder.learn(x, y), u[:, :1], v[:, :1], 0.1)
    same = encoder.adapt(encoder.learn(x, y), u[:, :1], v[:, :1], 99.0)
    assert torch.equal(one, same)  # nothing comes after the last step


def test_log_likelihoods_are_of_both_orders_of_the_encoded_points():
    train, transfer = points()
    theta = normal(3, seed=4)
    forward, backward = encoder.log_likelihoods(theta, train, transfer, 5, 0.1)
    for w in range(3):
        x, y = encoder.rotate(train, theta)[w].unbind(-1)
        u, v = encoder.rotate(transfer, theta)[w].view(5, 8, 2).unbind(-1)
        assert forward[w] == pytest.approx(by_hand(x, y, u, v, 0.1), rel=1e-12)
        assert backward[w] == pytest.approx(by_hand(y, x, v, u, 0.1), rel=1e-12)
    gamma = normal(3, seed=5)
    R = encoder.regret(theta, gamma, train, transfer, 5, 0.1)
    p = gamma.sigmoid()
    shift = forward.max()
    mixed = (p * (forward - shift).exp() + (1 - p) * (backward - shift).exp()).log()
    usable = (forward - shift > -600) & (backward - shift > -600)
    assert usable.any()
    assert torch.allclose(R[usable], -(mixed + shift)[usable], rtol=1e-13, atol=0)


def test_a_quarter_turn_exchanges_the_directions():
    train, transfer = points()
    theta, gamma = normal(4, 3, seed=4), normal(4, 3, seed=5)
    batches = train, transfer, 5, 0.1
    R = encoder.regret(theta, gamma, *batches)
    turned = encoder.regret(theta + math.pi / 2, -gamma, *batches)
    assert R.shape == (4, 3)
    assert ((turned - R).abs() / R.abs()).max() < 1e-12
    assert (encoder.regret(theta + math.pi / 2, gamma, *batches) - R).abs().max() > 0.1


def test_its_gradient_meets_differences_and_13():
    train, transfer = points()
    theta, gamma = (
        normal(3, seed=4).requires_grad_(),
        normal(3, seed=5).requires_grad_(),
    )
    batches = train, transfer, 5, 0.1
    ours = grad(encoder.regret(theta, gamma, *batches).sum(), [theta, gamma])
    h = 1e-5
    with torch.no_grad():
        ahead, behind = (encoder.regret(theta + d, gamma, *batches) for d in (h, -h))
    slope = (ahead - behind) / (2 * h)
    assert (ours[0] - slope).abs().max() < 1e-6 * slope.abs().max()
    forward, backward = encoder.log_likelihoods(theta, *batches)
    parts = [grad(x.sum(), theta, retain_graph=True)[0] for x in (forward, backward)]
    w = (gamma + forward - backward).sigmoid()
    mixed = -(w * parts[0] + (1 - w) * parts[1])
    assert torch.allclose(ours[0], mixed, rtol=1e-10, atol=0)
    wanted = method.slope(gamma, forward - backward)
    assert torch.allclose(ours[1], wanted, rtol=0, atol=1e-12)


def test_points_that_do_not_fit_are_refused():
    train, transfer = points()
    theta = torch.zeros(3).double()

    def bad(words, one=train, two=transfer, steps=5):
        refused(words, lambda: encoder.regret(theta, theta, one, two, steps, 0.1))

    bad(r"training points have shape \(3, 60, 3\): give", normal(3, 60, 3))
    bad(r"transfer points have shape \(40,\): give", two=normal(40))
    bad("at least 2", train[:, :1])
    for value in (math.nan, math.inf):
        broken = transfer.clone()
        broken[1, 2, 0] = value
        bad("transfer points are not all finite: remove NaN", two=broken)
    flat = train.clone()
    flat[2, :, 1] = 4.0
    bad("constant column: give two that vary", flat)
    bad("40 transfer points do not make 7 equal batches", steps=7)
