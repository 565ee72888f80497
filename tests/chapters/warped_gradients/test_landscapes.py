"""Landscapes by plain arithmetic, and a warp that is undone at every strength."""

import json
import math

import pytest
import torch
from assertions import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from rng import normal, rng, uniform

from iclrtut.chapters.warped_gradients.landscapes import (
    STARTS,
    Coupling,
    mountains,
    payload,
    sample_mountains,
    sample_valley,
    valley,
)

SAMPLERS = {"valley": sample_valley, "mountains": sample_mountains}
LOSSES = {"valley": valley, "mountains": mountains}
NAMES = list(LOSSES)
places = st.floats(-3, 3)


def some_warp(seed: int = 0, scale: float = 0.4) -> Coupling:
    warp, draws = Coupling(hidden=7, seed=seed).double(), rng(seed)
    with torch.no_grad():
        for p in warp.parameters():
            noise = torch.randn(p.shape, generator=draws, dtype=torch.float64)
            p.copy_(scale * noise)
    return warp


def valley_by_hand(x, y, at, e):
    return 0.5 * (x - at) ** 2 + 5 * (y - 0.8 * math.sin(1.5 * x) - e) ** 2


def mountains_by_hand(x, y, a1, a2, a3, b1, b2, b3, s):
    return (
        b1 * (a1 - x) ** 2 * math.exp(-(x**2) - (y + a2) ** 2)
        - b2 * (x / s - x**3 - y**5) * math.exp(-(x**2) - y**2)
        - b3 * math.exp(-((x + a3) ** 2) - y**2)
    )


BY_HAND = {"valley": valley_by_hand, "mountains": mountains_by_hand}


def tasks_of(name, n, seed=0):
    return SAMPLERS[name](n, rng(seed)).double()


@pytest.mark.parametrize("name", NAMES)
def test_losses_are_those_of_plain_arithmetic(name):
    tasks, points = tasks_of(name, 6), normal(6, 4, 3, 2, seed=1)
    losses = LOSSES[name](points, tasks)
    assert losses.shape == (6, 4, 3)
    for i in range(6):
        for j in range(4):
            for k in range(3):
                got = BY_HAND[name](*points[i, j, k].tolist(), *tasks[i].tolist())
                assert losses[i, j, k].item() == pytest.approx(got, abs=1e-12)
        one = LOSSES[name](points[i], tasks[i])
        assert torch.equal(one, losses[i])


def test_known_values():
    task = torch.tensor([0.5, -0.1]).double()
    bottom = torch.tensor([0.5, 0.8 * math.sin(0.75) - 0.1]).double()
    assert valley(bottom, task).item() == pytest.approx(0, abs=1e-15)
    assert valley(bottom + torch.tensor([0.0, 2.0]), task).item() == pytest.approx(20)
    # At the origin with a = 0 only -b3 is left; far away nothing is.
    flat = torch.tensor([0, 0, 0, 2, 3, 4, 5]).double()
    assert mountains(torch.zeros(2).double(), flat).item() == -4
    assert abs(mountains(torch.full((2,), 9.0).double(), flat).item()) < 1e-30


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_differences(name):
    tasks = tasks_of(name, 5, seed=2)
    points = normal(5, 3, 2, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(LOSSES[name], (points, tasks.requires_grad_()))


def test_a_valley_falls_to_its_minimum_and_nowhere_else():
    tasks = tasks_of("valley", 20)
    x, e = tasks.unbind(-1)
    bottom = torch.stack([x, 0.8 * (1.5 * x).sin() + e], -1).requires_grad_()
    losses = valley(bottom, tasks)
    assert losses.abs().max() < 1e-15
    (slope,) = torch.autograd.grad(losses.sum(), bottom)
    assert slope.abs().max() < 1e-7
    away = valley(bottom.detach()[:, None] + normal(20, 50, 2), tasks)
    assert bool((away > 0).all())


def test_tasks_are_drawn_as_told():
    valleys, peaks = sample_valley(4000, rng(1)), sample_mountains(4000, rng(1))
    at, e = valleys.unbind(-1)
    assert -2 < at.min() < -1.99 and 1.99 < at.max() < 2
    assert abs(at.mean()) < 4.5 * (4 / 12**0.5) / 4000**0.5
    assert e.std() == pytest.approx(0.3, rel=0.05) and abs(e.mean()) < 0.022
    whole = [set(column.tolist()) for column in peaks.unbind(-1)]
    assert whole[:3] == [{-1, 0, 1}] * 3
    assert whole[3:6] == [set(range(-5, 6))] * 3
    assert whole[6] == set(range(1, 11))
    for column in peaks.unbind(-1):
        counts = column.unique(return_counts=True)[1] / 4000
        assert (counts - 1 / len(counts)).abs().max() < 0.035
    assert (peaks.T.corrcoef() - torch.eye(7)).abs().max() < 0.08
    for name, sample in SAMPLERS.items():
        assert torch.equal(sample(3, rng(7)), sample(3, rng(7))), name
        assert not torch.equal(sample(3, rng(7)), sample(3, rng(8))), name
        assert sample(3, rng(7)).dtype == torch.get_default_dtype()


# ---- The warp ----


def test_a_warp_begins_as_the_identity():
    points = normal(9, 4, 2, scale=3)
    for seed in range(3):
        warp = Coupling(seed=seed).double()
        assert torch.equal(warp(points), points)
        assert torch.equal(warp.inverse(points), points)
    assert sum(p.numel() for p in Coupling().parameters()) == 246
    first, same, other = (Coupling(seed=s).first.inside.weight for s in (0, 0, 1))
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert not torch.equal(first, Coupling().second.inside.weight)
    # Its gradient is not zero: it can leave the identity.
    warp = Coupling().double()
    warp(points).square().sum().backward()
    assert warp.first.outside.weight.grad.abs().max() > 1e-3
    assert warp.second.constant.grad.abs() > 1e-3


def test_draws_of_the_caller_are_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    Coupling(seed=9)
    sample_mountains(2, rng())
    assert torch.equal(torch.rand(4), expected)


@settings(max_examples=60)
@given(seed=st.integers(0, 50), strength=st.floats(-1.5, 1.5), x=places, y=places)
def test_it_is_undone_at_every_strength(seed, strength, x, y):
    warp, theta = some_warp(seed), torch.tensor([x, y]).double()
    gamma = warp(theta, strength)
    assert torch.allclose(warp.inverse(gamma, strength), theta, atol=1e-9)
    back = warp(warp.inverse(theta, strength), strength)
    assert torch.allclose(back, theta, atol=1e-9)


@settings(max_examples=30)
@given(seed=st.integers(0, 50), x=places, y=places)
def test_strength_zero_is_the_identity(seed, x, y):
    warp, theta = some_warp(seed, 3.0), torch.tensor([x, y]).double()
    assert torch.equal(warp(theta, 0.0), theta)
    assert torch.equal(warp.inverse(theta, 0), theta)


def by_hand(warp, u, v, strength):
    """x by y, then y by x, from the numbers that the page gets."""

    def says(net, given):
        h = [math.tanh(w * given + b) for w, b in zip(net["w"], net["b"], strict=True)]
        raw, shift = (
            bias + sum(a * b for a, b in zip(row, h, strict=True))
            for row, bias in zip(net["W"], net["B"], strict=True)
        )
        scale = 2 * math.tanh(raw / 2) + net["c"]
        return math.exp(strength * scale), strength * shift

    of_x, of_y = payload({"valley": {"10": warp}})["warps"]["valley"]["10"]
    stretch, shift = says(of_x, v)
    x = u * stretch + shift
    stretch, shift = says(of_y, x)
    return x, v * stretch + shift


def test_it_is_two_couplings_and_the_page_gets_their_numbers():
    warp, points = some_warp(4), normal(5, 2, seed=5)
    for strength in (1.0, 0.4, -1.0):
        gamma = warp(points, strength)
        for theta, got in zip(points.tolist(), gamma.tolist(), strict=True):
            assert got == pytest.approx(by_hand(warp, *theta, strength), abs=1e-12)


def test_its_area_grows_by_the_scales_and_never_folds():
    warp, points = some_warp(6), normal(40, 2, seed=6)
    at = points.clone().requires_grad_()
    rows = (torch.autograd.grad(warp(at)[:, i].sum(), at)[0] for i in range(2))
    J = torch.stack(list(rows), 1)
    x, y = points.unbind(-1)
    s, t = warp.first(y, 1.0)
    r, _ = warp.second(x * s.exp() + t, 1.0)
    assert torch.allclose(torch.linalg.det(J), (s + r).exp())
    # A log-scale is at most 2 beside its constant.
    with torch.no_grad():
        warp.first.outside.weight.mul_(1e3)
    s, _ = warp.first(uniform(99, low=-9, high=9), 1.0)
    assert (s - warp.first.constant).abs().max() <= 2


def test_a_warp_learns_and_stays_one_to_one():
    """It fits the shear that all valleys share."""
    warp, draws = Coupling(seed=1), rng(2)
    adam = torch.optim.Adam(warp.parameters(), lr=0.02)
    for _ in range(150):
        theta = 4 * torch.rand(128, 2, generator=draws) - 2
        shear = torch.stack([theta[:, 0], theta[:, 1] + theta[:, 0].sin()], 1)
        loss = (warp(theta) - shear).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert loss < 0.02
    assert torch.allclose(warp.inverse(warp(theta)), theta, atol=1e-4)


# ---- What the page gets ----


def test_the_payload_is_plain_and_complete():
    assert payload() == {"mode": "first", "starts": STARTS}
    warps = {"valley": {"10": Coupling(seed=1), "11": Coupling(seed=2)}}
    made = json.loads(json.dumps(payload(warps | {"mountains": {"11": Coupling()}})))
    assert made["mode"] == "full" and list(made["warps"]) == ["valley", "mountains"]
    assert list(made["warps"]["valley"]) == ["10", "11"]
    for nets in (*made["warps"]["valley"].values(), made["warps"]["mountains"]["11"]):
        assert [sorted(net) for net in nets] == [sorted("wbWBc")] * 2
        assert [len(net["w"]) for net in nets] == [30, 30]
    weight = torch.tensor(made["warps"]["valley"]["11"][1]["w"])
    assert torch.equal(weight, warps["valley"]["11"].second.inside.weight[:, 0])
    assert len(json.dumps(made)) < 60_000
    low, high = STARTS["valley"]
    assert low == (-2.5, -1.5) and high == (2.5, 1.5)


def broken() -> Coupling:
    warp = Coupling()
    with torch.no_grad():
        warp.second.constant.fill_(math.nan)
    return warp


points, tasks, peaks = torch.zeros(3, 4, 2), torch.zeros(3, 2), torch.ones(3, 7)


@pytest.mark.parametrize(
    ("words", "call"),
    [
        ("points have shape .3, 3.* must be 2", lambda: valley(peaks[:, :3], tasks)),
        ("tasks have shape .3, 7.* must be 2", lambda: valley(points, peaks)),
        ("tasks have shape .3, 2.* must be 7", lambda: mountains(points, tasks)),
        ("do not begin with the shape .3.", lambda: valley(points[:2], tasks)),
        ("do not begin with the shape", lambda: valley(points[0, 0], tasks)),
        ("points are list", lambda: valley([[0.0, 0.0]], tasks)),
        ("tasks are torch.int64", lambda: valley(points, tasks.long())),
        ("s is 0", lambda: mountains(points, 0 * peaks)),
        ("n is 0", lambda: sample_valley(0, rng())),
        ("n is True", lambda: sample_valley(True, rng())),
        ("n is 2.0", lambda: sample_mountains(2.0, rng())),
        ("torch.Generator, not int", lambda: sample_mountains(2, 0)),
        ("hidden is 0", lambda: Coupling(hidden=0)),
        ("strength is nan", lambda: Coupling()(points, math.nan)),
        ("strength is 'half'", lambda: Coupling().inverse(points, "half")),
        ("last size must be 2", lambda: Coupling()(peaks)),
        ("points are tuple", lambda: Coupling().inverse((0.0, 0.0))),
        ("no warps", lambda: payload({})),
        ("no 'hills'|landscape 'hills'", lambda: payload({"hills": {}})),
        ("no warp of the valley", lambda: payload({"valley": {}})),
        ("'12' is no warp", lambda: payload({"valley": {"12": Coupling()}})),
        ("'10' is no warp", lambda: payload({"valley": {"10": None}})),
        ("not finite", lambda: payload({"mountains": {"11": broken()}})),
    ],
)
def test_what_makes_no_sense_is_refused(words, call):
    refused(words, call)
