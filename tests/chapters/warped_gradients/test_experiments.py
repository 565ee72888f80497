"""Arms, landscapes and measurements, against autograd and closed forms."""

import math

import numpy as np
import pytest
import torch

import iclrtut
from iclrtut.chapters.warped_gradients import (
    ARMS,
    CHAPTER,
    PAIRS,
    RIVALS,
    characters,
    experiments,
    grounds,
    learners,
    method,
)
from iclrtut.train import same_steps


@pytest.fixture
def run(tmp_path):
    made = iclrtut.start("warped_gradients", "smoke", 0)
    made.folder = None
    made.device = torch.device("cpu")
    return made


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


# What is declared


def test_arms_have_rates_and_the_rivals_learn_no_warp():
    for name, arm in ARMS.items():
        assert (arm.rule == "none") == (not arm.rates) == (arm.steps == 0), name
        assert len(set(arm.rates)) == len(arm.rates) in (0, 4, 5), name
    assert len(RIVALS) == 9 and not {"linear", "warp", "stop", "warp_maml"} & {*RIVALS}


def test_whoever_won_at_the_edge_got_one_more_try():
    for name, arm in ARMS.items():
        if arm.rates and arm.rates[0] == sorted(arm.rates)[3]:
            assert len(arm.rates) == 5, name
        elif arm.rates:
            assert len(arm.rates) == 4 and arm.rates[0] < max(arm.rates), name


# Arms


def test_arms_of_one_network_begin_alike(run):
    nets = {name: experiments.learner(run, name) for name in ARMS}
    assert torch.equal(nets["maml"].start, nets["reptile"].start)
    assert torch.equal(nets["warp"].start, nets["warp_maml"].start)
    assert (
        nets["all"].start.numel()
        == nets["warp"].start.numel() + nets["warp"].warp.numel()
    )
    rates = nets["meta_sgd"].rate
    assert torch.equal(rates, torch.full_like(nets["maml"].start, run.settings.rate))


def moved(loop, name="model"):
    """What one step changes in the weights of the loop's learner."""
    net = loop.state[name]
    before = {k: w.detach().clone() for k, w in net.named_parameters()}
    loop.step(0)
    return {k: not torch.equal(w, before[k]) for k, w in net.named_parameters()}


@pytest.mark.parametrize("name", [n for n, arm in ARMS.items() if arm.rule != "none"])
def test_an_arm_trains_what_it_should(run, name):
    changed = moved(experiments.loop(run, name))
    assert changed["start"]
    assert changed["warp"] == (ARMS[name].warp != "none" and name != "all")
    assert changed.get("rate", True)


def test_mamls_step_is_the_gradient_of_the_loss_after_the_steps(run):
    run.settings = run.settings._replace(clip=math.inf, tasks=1)
    loop = experiments.maml_loop(run, "maml")
    net, task_draws = (
        experiments.learner(run, "maml"),
        run.generator("maml tasks", "cpu"),
    )
    train, other = experiments.draw(run, net, task_draws, 1)

    def loss(task):
        return lambda w: net.losses(w[None], task)[0]

    start = net.start.detach()
    right = method.maml_gradient(loss(train), loss(other), start, run.settings.rate, 5)
    loop.step(0)
    assert torch.allclose(loop.state["model"].start.grad, right, atol=1e-4)
    first = method.maml_gradient(
        loss(train), loss(other), start, run.settings.rate, 5, first_order=True
    )
    arm = ARMS["maml"]._replace(rule="first_order")
    loop = experiments.maml_loop(run, "maml", arm)
    loop.step(0)
    assert torch.allclose(loop.state["model"].start.grad, first, atol=1e-4)
    assert not torch.allclose(first, right, atol=1e-4)


def test_a_step_of_phi_is_the_methods(run):
    """One step of phi, one iterate: its gradient is that of `method.warp_gradient`."""
    run.settings = run.settings._replace(clip=math.inf, phi_steps=1, iterates=1)
    for name in ("warp", "stop"):
        arm = ARMS[name]._replace(inner=1)
        loop = experiments.warp_loop(run, name, arm)
        net = experiments.learner(run, name)
        tasks = run.generator(f"{name} tasks", "cpu")
        train, other = experiments.draw(run, net, tasks, run.settings.tasks)
        loop.step(0)
        found = learners.parts(loop.state["model"].warp.grad, net.shared)
        width = run.settings.width
        layers = [torch.nn.Linear(1, width), method.Tanh(width), torch.nn.ReLU()]
        layers += [torch.nn.Linear(width, width), method.Tanh(width), torch.nn.ReLU()]
        module = torch.nn.Sequential(*layers, torch.nn.Linear(width, 1))
        names = [f"{i}.{key}" for i in (1, 4) for key in "TAB"]
        for key, w in zip(names, learners.parts(net.warp, net.shared), strict=True):
            module.get_parameter(key).data = w.detach().clone()
        theta = net.begin(run.settings.tasks).detach()
        rows = {
            f"{3 * (i // 2)}.{'bias' if i % 2 else 'weight'}": w[:, 0]
            if i % 2
            else w.mT
            for i, w in enumerate(learners.parts(theta, net.own))
        }
        memory = torch.func.vmap(method.fresh)(rows)
        inner, mse = method.Inner(run.settings.rate), torch.nn.functional.mse_loss
        how = method.Setup(module, mse, inner, name == "stop")
        _, right = method.warp_gradient(how, rows, memory, train, other)
        for key, g in zip(names, found, strict=True):
            assert torch.allclose(g, right[key], atol=1e-4), (name, key)


def test_reptile_moves_the_start_towards_the_mean_of_the_ends(run):
    loop = experiments.path_loop(run, "reptile")
    net, tasks = (
        experiments.learner(run, "reptile"),
        run.generator("reptile tasks", "cpu"),
    )
    train, _ = experiments.draw(run, net, tasks, run.settings.tasks)
    theta = net.begin(run.settings.tasks)
    for _ in range(ARMS["reptile"].inner):
        theta = learners.loose(theta)
        theta = theta - run.settings.rate * learners.slope(net, theta, train, 10.0)
    start, pull = net.start.detach(), ARMS["reptile"].rates[0]
    loop.step(0)
    right = start + pull * (theta.mean(0) - start)
    assert torch.allclose(loop.state["model"].start, right, atol=1e-5)


def test_leap_is_the_gradient_of_a_length_in_its_first_ends():
    net, task = (
        learners.Learner(3, "none", False, draws()),
        learners.sinusoids(2, 5, draws())[0],
    )
    net = net.double()
    task = method.Task(*(part.double() for part in task))
    theta, path = learners.loose(net.begin(2)), []
    for _ in range(4):
        path.append((theta, learners.slope(net, theta, task, math.inf)))
        theta = learners.loose(theta - 0.05 * path[-1][1])
    found = experiments.leap(net, task, [*path, (theta, theta)])
    right = torch.zeros_like(found)
    ends = [w for w, _ in path[1:]] + [theta]
    for (here, _), there in zip(path, ends, strict=True):
        here, there = here.detach().requires_grad_(), there.detach()
        rise = net.losses(there, task) - net.losses(here, task)
        length = ((there - here).square().sum(1) + rise.square()).sqrt().sum()
        right += torch.autograd.grad(length, here)[0]
    assert torch.allclose(found, right, atol=1e-8)


def test_a_folded_warp_is_the_same_function_on_plain_ground(run):
    net = experiments.learner(run, "linear")
    net.warp.data += 0.2 * torch.randn(net.warp.shape, generator=draws(1))
    folded = experiments.fold(run, net)
    x = torch.randn(2, 9, 1, generator=draws(2))
    assert torch.allclose(folded(folded.begin(2), x), net(net.begin(2), x), atol=1e-4)
    assert folded.warp.numel() == 0


def test_training_is_in_two_halves_and_repeats(run):
    pairs = [experiments.train(run, "warp", times=40.0) for _ in range(2)]
    for a, b in zip(*pairs, strict=True):
        assert torch.equal(a.start, b.start) and torch.equal(a.warp, b.warp)
    assert not torch.equal(pairs[0][0].warp, pairs[0][1].warp)
    assert experiments.half(run, "warp") == 1
    half, whole = experiments.train(run, "scratch")
    assert half is whole
    same_steps(experiments.warp_loop(run, "warp"), experiments.warp_loop(run, "warp"))


# Judging


def test_judging_takes_the_rate_that_is_best_on_validation_tasks(run, monkeypatch):
    net = experiments.learner(run, "maml")
    tried = []
    real = experiments.descend

    def spy(run, net, pair, multiple):
        tried.append(multiple)
        return real(run, net, pair, multiple)

    monkeypatch.setattr(experiments, "descend", spy)
    score = experiments.judge(run, net)
    n, s = len(experiments.MULTIPLES), run.settings
    pair = experiments.draw(run, net, run.generator("validation", "cpu"), s.validation)
    each = [float(real(run, net, pair, m)[1].mean()) for m in experiments.MULTIPLES]
    assert experiments.MULTIPLES[int(np.argmin(each))] == tried[1]
    assert len(tried[0]) == n * s.validation and len(score) == s.test


def test_what_diverges_counts_as_the_most(run):
    net = experiments.learner(run, "maml")
    run.settings = run.settings._replace(clip=math.inf)
    pair = experiments.draw(run, net, draws(), 6)
    few, many = experiments.descend(run, net, pair, 1e6)
    assert (many == experiments.MOST).all() and (few == experiments.MOST).all()
    scores = {"maml": many, "warp": many / 2}
    assert experiments.lost(scores) == {"maml": 6}


def test_descent_at_five_steps_and_at_the_end(run):
    net = experiments.learner(run, "warp")
    train, other = experiments.draw(run, net, draws(), 3)
    few, many = experiments.descend(run, net, (train, other), 2.0)
    theta = net.begin(3)
    for k in range(run.settings.test_steps):
        if k == 5:
            assert torch.allclose(few, net.losses(theta, other), atol=1e-5)
        theta = learners.loose(theta)
        theta = theta - 2 * run.settings.rate * learners.slope(net, theta, train, 10.0)
    assert torch.allclose(many, net.losses(theta, other), atol=1e-5)


def scores(**losses):
    names = [*ARMS, "folded"]
    return {name: torch.full((4,), losses.get(name, 1.0)) for name in names}


def test_measurements_are_the_declared_ratios():
    given = scores(
        warp=0.5, linear=0.25, stop=0.75, warp_maml=2.0, reptile=0.9, folded=3.0
    )
    told = experiments.measure_rivals(given)
    for claim in PAIRS:
        told |= experiments.measure(given, claim)
    values = {name: numbers["value"] for name, numbers in told.items()}
    assert values == pytest.approx(
        {
            "nonlinear": math.log(0.25 / 0.5),
            "multi_shot": math.log(0.9 / 0.5),
            "objective": math.log(2.0 / 0.5),
            "geometry_sinusoids": math.log(3.0 / 0.25),
            "approx": math.log(0.75 / 0.5),
        }
    )


def test_all_claims_are_measured():
    given = scores()
    curves = {name: torch.ones(3, 60) for name in ("warp", "linear", "plain")}
    measured = {
        **experiments.measure_rivals(given),
        **grounds.measure_valley(curves),
    }
    elsewhere = {"memory_maml", "memory_warp", "preconditioner", "geometry_mountains"}
    assert {*measured, *PAIRS} | elsewhere == {claim.id for claim in CHAPTER.claims}


# Memory


def test_saved_bytes_are_those_alive_at_the_worst_moment():
    w = torch.ones(100, requires_grad=True)
    one = experiments.saved_bytes(lambda: w.square().sum())
    assert one == 400

    def in_turn():
        for _ in range(5):
            w.square().sum().backward()

    assert experiments.saved_bytes(in_turn) == 400

    def together():
        return sum(w.square().sum() for _ in range(5))

    assert experiments.saved_bytes(together) == 2000


def test_mamls_bytes_grow_by_the_same_for_each_step_and_warpgrads_do_not(run):
    maml, warp = (
        [experiments.measure_cost(run, name, K)[0] for K in (1, 2, 4)]
        for name in ("warp_maml", "warp")
    )
    assert maml[2] - maml[1] == 2 * (maml[1] - maml[0]) > 0
    assert warp[0] == warp[1] == warp[2]
    ks = run.settings.memory
    curves = {"maml": [1e6 * k for k in ks], "warp": [7.0] * len(ks)}
    told = experiments.measure_memory(run, curves)
    assert told["memory_maml"]["value"] == pytest.approx(1.0)
    assert told["memory_warp"]["value"] == 1.0


# Grounds


def test_the_regressions_tasks_are_white_after_whitening():
    made = grounds.Regression(4, 20.0, draws(1))
    assert torch.linalg.cond(made.A).item() == pytest.approx(20, rel=1e-3)
    assert torch.allclose(made.root @ made.root, made.A, atol=1e-5)
    w = made.tasks(40_000, draws(2)) @ made.root
    assert torch.allclose(w.T.cov(), torch.eye(4), atol=0.05)
    x = made.inputs(2000, 20, draws(3)).flatten(0, 1)
    assert torch.allclose(x.T.cov(), made.A, atol=0.03)


def test_the_known_optimum_leaves_less_than_its_neighbours(run):
    run.settings = run.settings._replace(judged=2000, regression_inner=1)
    made = grounds.Regression(3, 10.0, draws(1))
    best = method.best_preconditioner(torch.eye(3), run.settings.examples)
    known = made.inverse_root @ best @ made.inverse_root
    left = [grounds.remaining(run, made, c * known) for c in (0.8, 1.0, 1.25)]
    assert left[1] < left[0] and left[1] < left[2]
    inverse = grounds.remaining(run, made, torch.linalg.inv(made.A))
    assert inverse > left[1]


@pytest.mark.parametrize("stop", [False, True])
def test_training_makes_the_regression_rounder(run, stop):
    run.settings = run.settings._replace(regression_steps=120, examples=64)
    run.settings = run.settings._replace(regression_inner=10, judged=200)
    made = grounds.train_regression(run, stop)
    told = grounds.measure_preconditioner(run, made)["preconditioner"]
    assert told["value"] < 0.6 and told["warp"] < told["plain"]


class Scaled(torch.nn.Module):
    """gamma = t theta, whose gradients are known."""

    def __init__(self):
        super().__init__()
        self.t = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, points, strength=1.0):
        return self.t * points

    def inverse(self, points, strength=1.0):
        return points / self.t


@pytest.mark.parametrize("objective", ["10", "11"])
def test_the_grounds_objectives_have_the_gradients_of_exercise_4(
    run, objective, monkeypatch
):
    """One iterate, a round bowl (x - c)^2 / 2: (10) shapes, (11) drags as well."""
    c = torch.tensor([2.0, -1.0])
    bowl = grounds.Ground(
        lambda points, tasks: (points - c).square().sum(-1) / 2,
        lambda n, generator: torch.zeros(n, 1),
        ((-2.0, -1.0), (1.0, 3.0)), 0.1, 1, 3,
    )  # fmt: skip
    monkeypatch.setattr(grounds, "ground", lambda run, name: bowl)
    omega = Scaled()
    loop = grounds.ground_loop(run, "bowl", omega, objective)
    s, t = run.settings, 0.5
    gamma = bowl.starts(s.landscapes, s.starts, run.generator("bowl tasks", "cpu"))
    theta, error = gamma / t, gamma - c
    shrink = 1 - 0.1 * t**2
    right = -2 * 0.1 * t * error.square() * shrink
    if objective == "11":
        right = right + error * shrink**2 * theta
    loop.step(0)
    assert omega.t.grad.item() == pytest.approx(right.sum(-1).mean().item(), rel=1e-4)


def test_rolls_begin_at_the_same_points_whatever_the_warp(run):
    test = grounds.trial(run, "valley")
    omega = grounds.Affine()
    omega.L.data = torch.tensor([[2.0, 0.3], [0.0, 0.5]])
    rolls = [grounds.roll(test, each, 0.01, 3) for each in (omega, grounds.Affine())]
    assert torch.allclose(rolls[0][:, 0], rolls[1][:, 0], atol=1e-4)
    assert rolls[0].shape == (run.settings.judged, 4)
    assert not torch.allclose(rolls[0][:, 3], rolls[1][:, 3])


def test_momentum_is_torchs(run):
    test = grounds.trial(run, "mountains")
    losses = grounds.roll(test, grounds.Affine(), 0.05, 4, momentum=0.9)
    gamma = test.gamma.clone().requires_grad_()
    sgd = torch.optim.SGD([gamma], lr=0.05, momentum=0.9)
    for _ in range(4):
        sgd.zero_grad()
        test.field.losses(gamma, test.tasks).sum().backward()
        sgd.step()
    right = test.field.losses(gamma, test.tasks)[:, 0].detach()
    assert torch.allclose(losses[:, -1], right, atol=1e-4)


def test_a_score_is_one_at_the_bottom_and_zero_on_average(run):
    test = grounds.trial(run, "valley")
    line = torch.linspace(-3, 3, 61)
    grid = torch.cartesian_prod(line, line).expand(len(test.tasks), -1, -1)
    over = test.field.losses(grid, test.tasks)
    for end, wanted in ((over.min(1).values, 1.0), (over.mean(1), 0.0)):
        score = grounds.score(test, end[:, None])
        assert torch.allclose(score, torch.full_like(score, wanted), atol=1e-5)


def test_plain_descent_takes_its_best_rate(run):
    few = grounds.trial(run, "valley", "validation")
    rate = few.field.rate
    left = [
        float(grounds.roll(few, grounds.Affine(), m * rate, 10)[:, -1].mean())
        for m in grounds.RATES
    ]
    best = grounds.RATES[int(np.argmin(left))] * rate
    right = grounds.roll(grounds.trial(run, "valley"), grounds.Affine(), best, 12)
    assert torch.equal(grounds.plain(run, "valley", 12), right)


def test_mountains_are_measured_from_one_point_and_from_p(run):
    omegas = {
        name: grounds.train_ground(run, "mountains", name) for name in ("10", "11")
    }
    told = grounds.measure_mountains(run, omegas)["geometry_mountains"]
    assert told["value"] == pytest.approx(told["warp_10"] - told["plain"])
    same = grounds.measure_mountains(run, dict.fromkeys(omegas, grounds.Affine()))
    same = same["geometry_mountains"]
    assert same["value"] == 0 and same["plain_from_P"] == same["plain"]


# Characters, cut down


def small(ways, filters, warp, n=2):
    net = characters.Characters(ways, filters, warp, draws(2))
    net.images = [torch.rand(6, 8, 28, 28, generator=draws(1)) for _ in range(n)]
    return net


def test_tasks_in_groups_of_channels_are_as_each_alone():
    net, n = small(3, 4, True), 2
    net.warp.data += 0.1 * torch.randn(net.warp.shape, generator=draws(3))
    theta = net.begin(n) + 0.1 * torch.randn(n, net.start.numel(), generator=draws(4))
    train, _ = net.draw(n, 0, draws(5))
    both = net.losses(theta, train)
    for i in range(n):
        net.begin(1)
        alone = method.Task(*(part[i : i + 1] for part in train))
        assert torch.allclose(
            net.losses(theta[i : i + 1], alone)[0], both[i], atol=1e-4
        )


def test_a_warp_of_characters_is_the_identity_at_first():
    plain, warped = small(3, 4, False), small(3, 4, True)
    x = torch.rand(2, 5, 28, 28, generator=draws(3))
    told = [net(net.begin(2), x) for net in (plain, warped)]
    assert torch.allclose(*told, atol=1e-5)


def test_test_images_do_not_see_each_other():
    net = small(3, 4, True)
    theta, x = net.begin(1), torch.rand(1, 6, 28, 28, generator=draws(3))
    net(theta, x)
    together = net(theta, x, judged=True)
    alone = torch.cat([net(theta, x[:, [i]], judged=True) for i in range(6)], 1)
    assert torch.allclose(together, alone, atol=1e-5)
    assert not torch.allclose(together, net(theta, x))


def test_a_task_of_characters_holds_drawers_out():
    net = small(3, 4, False)
    train, other = net.draw(4, 0, draws(5))
    assert train.inputs.shape == (4, 3 * 3, 28, 28)
    assert other.inputs.shape == (4, 3 * 5, 28, 28)
    assert other.targets[0].tolist() == 5 * [0] + 5 * [1] + 5 * [2]


@pytest.mark.parametrize("name", ["scratch", "maml", "reptile", "warp"])
def test_full_runs_with_small_sizes(run, name, monkeypatch):
    cut = {"characters": 1, "ways": 3, "filters": 3, "phi_steps": 1}
    run.settings = run.settings._replace(**cut)
    monkeypatch.setattr(characters, "TESTS", 5)
    assert 0 <= characters.accuracy(run, name, 2) <= 1


def test_train_and_test_alphabets_differ(run):
    run.settings = run.settings._replace(ways=20)
    train, test = characters.split(run)
    assert len(train) == 5 and len(test) == 2
    assert all(
        len(each) >= 20 and each.shape[1:] == (20, 28, 28) for each in train + test
    )
    assert 0 < torch.cat(train).mean() < 0.5
