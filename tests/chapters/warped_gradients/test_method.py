"""The method against independent routes: PyTorch's optimisers, autograd, formulas."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from iclrtut.chapters.warped_gradients import learners, method
from iclrtut.errors import BadRequest

MSE = nn.functional.mse_loss
OPTIMISERS = {
    "sgd": partial(torch.optim.SGD, lr=0.1),
    "momentum": partial(torch.optim.SGD, lr=0.1, momentum=0.8),
    "adam": partial(torch.optim.Adam, lr=0.1, betas=(0.8, 0.999)),
}
INNERS = {kind: method.Inner(0.1, kind, 0.8) for kind in OPTIMISERS}
by_kind = pytest.mark.parametrize("kind", OPTIMISERS)


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def network(seed=0):
    """A small network in float64 with two warps that bend."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Linear(2, 3), method.Tanh(3), nn.Tanh(), method.Warp(nn.Linear(3, 3)),
            nn.Linear(3, 1),
        ).double()  # fmt: skip
        for p in net.parameters():
            p.data += 0.3 * torch.randn_like(p)
    return net


def sample(generator, examples=8):
    x = torch.randn(examples, 2, generator=generator, dtype=torch.float64)
    w = torch.randn(2, 1, generator=generator, dtype=torch.float64)
    return x, x @ w


def batches(n, seed=0):
    pairs = [sample(draws(seed + i), 6) for i in range(n)]
    return method.Task(*map(torch.stack, zip(*pairs, strict=True)))


def row(batch, i):
    return type(batch)(*(part[i] for part in batch))


# Layers


def test_a_warp_is_the_identity_at_first_and_bends_later():
    warp, z = method.Tanh(4, seed=3), torch.randn(5, 4, generator=draws())
    assert torch.equal(warp(z), z)
    assert not torch.equal(warp.A, method.Tanh(4, seed=4).A)
    assert abs(method.Tanh(400).A.std().item() * 20 - 1) < 0.01
    warp.B.data += 1
    warp.T.data *= 2
    bent = 2 * z + (z @ warp.A).tanh().sum(1, keepdim=True)
    assert torch.allclose(warp(z), bent, atol=1e-6)


def test_split_names_what_adapts_and_what_is_shared():
    theta, phi = method.split(network())
    assert set(theta) == {"0.weight", "0.bias", "4.weight", "4.bias"}
    assert set(phi) == {"1.T", "1.A", "1.B", "3.0.weight", "3.0.bias"}


def test_a_frozen_weight_is_neither():
    net = network()
    net[0].bias.requires_grad_(False)
    theta, _ = method.split(net)
    assert set(theta) == {"0.weight", "4.weight", "4.bias"}


def test_a_whole_network_that_is_a_warp_inside_another():
    inside = nn.Sequential(nn.Linear(2, 2), method.Warp(nn.Linear(2, 2)))
    theta, phi = method.split(nn.Sequential(inside, nn.Linear(2, 1)))
    assert set(phi) == {"0.1.0.weight", "0.1.0.bias"} and "0.0.weight" in theta


def shared():
    layer = nn.Linear(2, 2)
    return nn.Sequential(layer, method.Warp(layer))


def tied():
    first, warp = nn.Linear(2, 2), nn.Linear(2, 2)
    first.weight = warp.weight
    return nn.Sequential(first, method.Warp(warp))


@pytest.mark.parametrize(
    ("net", "why"),
    [
        (nn.Linear(2, 1), "no warp layer"),
        (method.Warp(nn.Linear(2, 1)), "every layer is a warp"),
        (shared(), "give the warp its own"),
        (tied(), "give the warp its own"),
        (
            nn.Sequential(nn.BatchNorm1d(2), method.Warp(nn.Linear(2, 1))),
            "track_running_stats=False",
        ),
    ],
)
def test_networks_that_cannot_be_split_get_one_sentence(net, why):
    with pytest.raises(BadRequest, match=why) as told:
        method.split(net)
    assert str(told.value).count(". ") == 0


# The optimiser of a task


@by_kind
def test_steps_are_those_of_torch(kind):
    net, (x, y) = network(), sample(draws(1))
    theta, _ = method.split(net)
    ours = {k: w.detach().clone() for k, w in theta.items()}
    memory = method.fresh(ours)
    theirs = OPTIMISERS[kind](theta.values())
    for _ in range(6):
        theirs.zero_grad()
        MSE(net(x), y).backward()
        gradient = {k: w.grad.clone() for k, w in theta.items()}
        ours, memory = method.advance(ours, gradient, memory, INNERS[kind])
        theirs.step()
        for name, w in theta.items():
            assert torch.allclose(ours[name], w, atol=1e-12), name
    assert memory.t == 6


@by_kind
def test_an_adapted_network_is_as_if_torch_had_adapted_it(kind):
    net, twin, (x, y) = network(), network(), sample(draws(1))
    adapted = method.adapt(method.Setup(net, MSE, INNERS[kind]), x, y, steps=7)
    theirs = OPTIMISERS[kind](method.split(twin)[0].values())
    for _ in range(7):
        theirs.zero_grad()
        MSE(twin(x), y).backward()
        theirs.step()
    assert torch.allclose(adapted(x), twin(x), atol=1e-10)
    for p, q in zip(net.parameters(), network().parameters(), strict=True):
        assert torch.equal(p, q)
    for name, w in method.split(adapted)[1].items():
        assert torch.equal(w, method.split(net)[1][name])


# The objectives


def value(net, kind, theta, memory, train, other, stop=False):
    """(11) or (12) by plain autograd on a copy of the weights, without torch.func."""
    phi = {
        k: w.detach().clone().requires_grad_() for k, w in method.split(net)[1].items()
    }
    held = {k: w.detach() for k, w in phi.items()} if stop else phi
    start = {k: w.detach().requires_grad_() for k, w in theta.items()}

    def run(theta, phi, task):
        z = task.inputs @ theta["0.weight"].T + theta["0.bias"]
        z = z @ phi["1.T"] + (z @ phi["1.A"]).tanh() @ phi["1.B"]
        z = z.tanh() @ phi["3.0.weight"].T + phi["3.0.bias"]
        return (
            (z @ theta["4.weight"].T + theta["4.bias"] - task.targets).square().mean()
        )

    loss = run(start, held, train)
    g = torch.autograd.grad(loss, list(start.values()), create_graph=not stop)
    gradient = dict(zip(start, g, strict=True))
    moved = {}
    for k, w in start.items():
        if kind == "sgd":
            step = gradient[k]
        elif kind == "momentum":
            step = 0.8 * memory.m[k] + gradient[k]
        else:
            t = memory.t + 1
            m = (0.8 * memory.m[k] + 0.2 * gradient[k]) / (1 - 0.8**t)
            v = (0.999 * memory.v[k] + 0.001 * gradient[k] ** 2) / (1 - 0.999**t)
            step = m / (v.sqrt() + 1e-8)
        moved[k] = w.detach() - 0.1 * step
    meta = run(moved, phi, other)
    return meta.detach(), dict(
        zip(phi, torch.autograd.grad(meta, list(phi.values())), strict=True)
    )


def iterates(net, n, kind):
    """Different iterates and memories of n tasks."""
    theta, _ = method.split(net)
    g = draws(9)
    rows = {
        k: w.detach() + 0.2 * torch.randn(n, *w.shape, generator=g, dtype=w.dtype)
        for k, w in theta.items()
    }
    memory = torch.func.vmap(method.fresh)(rows)
    for _ in range(2):
        push = {k: torch.randn(w.shape, generator=g).double() for k, w in rows.items()}
        rows, memory = torch.func.vmap(
            lambda theta, push, memory: method.advance(
                theta, push, memory, INNERS[kind]
            )
        )(rows, push, memory)
    return rows, memory


@by_kind
@pytest.mark.parametrize("stop", [False, True])
def test_the_gradient_of_the_objective_is_the_loops(kind, stop):
    net, n = network(), 3
    rows, memory = iterates(net, n, kind)
    train, other = batches(n), batches(n, 50)
    how = method.Setup(net, MSE, INNERS[kind], stop)
    mean, found = method.warp_gradient(how, rows, memory, train, other)
    each = []
    for i in range(n):
        theta, m, v = (
            {k: w[i] for k, w in part.items()} for part in (rows, memory.m, memory.v)
        )
        own = theta, method.Memory(memory.t[i], m, v), row(train, i), row(other, i)
        each.append(value(net, kind, *own, stop))
    assert torch.allclose(mean, sum(v for v, _ in each) / n, atol=1e-10)
    for name, w in found.items():
        right = sum(g[name] for _, g in each) / n
        assert torch.allclose(w, right, atol=1e-9), name
    assert not mean.requires_grad


def test_stopping_changes_the_gradient_and_not_the_value():
    net = network()
    rows, memory = iterates(net, 2, "sgd")
    pair = batches(2), batches(2, 50)
    told = [
        method.warp_gradient(
            method.Setup(net, MSE, INNERS["sgd"], stop), rows, memory, *pair
        )
        for stop in (False, True)
    ]
    assert torch.equal(told[0][0], told[1][0])
    assert not torch.allclose(told[0][1]["1.A"], told[1][1]["1.A"])


def test_a_weight_without_a_gradient_leaves_adams_derivative_finite():
    net = network()
    net[0].weight.data[0] = net[0].bias.data[0] = 0
    net[1].T.data[0] = net[1].A.data[0] = 0
    rows = {k: w.detach()[None] for k, w in method.split(net)[0].items()}
    memory = torch.func.vmap(method.fresh)(rows)
    how = method.Setup(net, MSE, INNERS["adam"])
    _, found = method.warp_gradient(how, rows, memory, batches(1), batches(1, 50))
    assert all(w.isfinite().all() for w in found.values())


# Learning


def test_learning_lowers_the_loss_after_adaptation():
    def after(how):
        tasks = [sample(draws(900 + i)) for i in range(20)]
        fits = [
            MSE(method.adapt(how, x[:4], y[:4], steps=3)(x[4:]), y[4:])
            for x, y in tasks
        ]
        return float(sum(fits).detach()) / len(fits)

    how = method.Setup(network(), MSE, method.Inner(0.05))
    before = after(how)
    history = method.learn(how, sample, steps=3, meta_steps=40, tasks=8, rate=1e-2)
    assert len(history) == 40 and after(how) < 0.7 * before


def test_learning_runs_repeat_and_heed_their_arguments():
    def learned(stop=False, **changed):
        net = network()
        sizes = {"steps": 3, "meta_steps": 2, "tasks": 3} | changed
        how = method.Setup(net, MSE, method.Inner(0.05), stop)
        method.learn(how, sample, **sizes)
        return torch.cat([p.detach().flatten() for p in net.parameters()])

    same = learned()
    assert torch.equal(same, learned())
    others = [{"seed": 1}, {"rate": 1e-3}, {"pull": 0.1}, {"stop": True}, {"tasks": 2}]
    for changed in others:
        assert not torch.equal(same, learned(**changed)), changed


def test_one_meta_step_is_reptile_and_adam():
    net, twin, inner = network(), network(), method.Inner(0.05)
    fixed = sample(draws(5))
    how, other = (method.Setup(each, MSE, inner) for each in (net, twin))
    sizes = {"steps": 1, "meta_steps": 1, "tasks": 2}
    method.learn(how, lambda _: fixed, pull=0.25, **sizes)
    x, y = fixed
    end = method.adapt(other, x[:4], y[:4], steps=1)
    theta, start = method.split(net)[0], method.split(twin)[0]
    for name, w in method.split(end)[0].items():
        right = start[name] + 0.25 * (w - start[name])
        assert torch.allclose(theta[name], right, atol=1e-10), name
    rows = {k: w.detach()[None] for k, w in start.items()}
    memory = torch.func.vmap(method.fresh)(rows)
    first, last = (
        method.Task(x[None, cut], y[None, cut]) for cut in (slice(0, 4), slice(4, None))
    )
    _, g = method.warp_gradient(other, rows, memory, first, last)
    phi, before = method.split(net)[1], method.split(twin)[1]
    for name, w in phi.items():
        change = w - before[name]
        large = g[name].abs() > 1e-6
        assert torch.allclose(change[large], -2e-3 * g[name][large].sign(), rtol=1e-2)


def test_at_most_ten_iterates_are_kept_and_they_differ(monkeypatch):
    seen = []
    real = method.warp_gradient

    def spy(how, thetas, *rest):
        seen.append(thetas["0.weight"].clone())
        return real(how, thetas, *rest)

    monkeypatch.setattr(method, "warp_gradient", spy)
    how = method.Setup(network(), MSE, method.Inner(0.05))
    method.learn(how, sample, steps=25, meta_steps=1, tasks=2)
    assert len(seen) == 10
    assert len({tuple(w.flatten().tolist()) for w in seen}) == 10


def test_dropout_in_a_task_is_allowed():
    net = nn.Sequential(
        nn.Linear(2, 4), nn.Dropout(0.5), method.Tanh(4), nn.Linear(4, 1)
    )
    net = net.double()
    how = method.Setup(net, MSE, method.Inner(0.01))
    history = method.learn(how, sample, steps=2, meta_steps=1, tasks=2)
    assert math.isfinite(history[0])


def nan_loss(prediction, targets):
    return (prediction - targets).square().mean() * torch.nan


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"inner": method.Inner(0.1, "rmsprop")}, "'rmsprop' is not sgd or"),
        ({"inner": method.Inner(0.0)}, "the rate is 0.0"),
        ({"inner": method.Inner(math.nan)}, "the rate is nan"),
        ({"inner": method.Inner(0.1, "momentum", 1.0)}, "beta is 1.0"),
        ({"steps": 0}, "0 steps adapt nothing"),
        ({"meta_steps": 0}, "1 meta-step and 1 task"),
        ({"tasks": 0}, "1 meta-step and 1 task"),
        ({"sample": partial(sample, examples=1)}, "one example"),
        ({"loss": nan_loss}, "a task's loss is nan at step 0"),
        ({"loss": lambda p, y: (p - y).square()}, "no single number"),
        ({"inner": method.Inner(1e5), "steps": 60}, "lower the rate"),
    ],
)
def test_what_cannot_be_learned_gets_one_sentence(changed, why):
    arguments = {
        "sample": sample, "loss": MSE, "inner": method.Inner(0.1), "steps": 2,
        "meta_steps": 1, "tasks": 2,
    } | changed  # fmt: skip
    task = arguments.pop("sample")
    setup = [arguments.pop(name) for name in ("loss", "inner")]
    with pytest.raises(BadRequest, match=why) as told:
        method.learn(method.Setup(network(), *setup), task, **arguments)
    assert "\n" not in str(told.value)


def test_tasks_of_different_sizes_get_one_sentence():
    sizes, how = iter([4, 6]), method.Setup(network(), MSE, method.Inner(0.1))
    with pytest.raises(BadRequest, match=r"\[4, 6\] examples"):
        method.learn(how, lambda g: sample(g, next(sizes)), steps=2, tasks=2)


def test_adapting_needs_no_second_batch():
    x, y = sample(draws(), 1)
    how = method.Setup(network(), MSE, method.Inner(0.01))
    assert method.adapt(how, x, y, steps=2)(x).shape == (1, 1)


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(["sgd", "momentum", "adam", "", "SGD", "lion"]),
    rate=st.floats(allow_nan=True, allow_infinity=True),
    beta=st.floats(-1, 2),
    steps=st.integers(-2, 3),
    examples=st.integers(1, 4),
)
def test_any_settings_learn_or_get_one_sentence(kind, rate, beta, steps, examples):
    net, inner = network(), method.Inner(rate, kind, beta)
    task = partial(sample, examples=examples)
    try:
        how = method.Setup(net, MSE, inner)
        history = method.learn(how, task, steps=steps, meta_steps=1, tasks=1)
    except BadRequest as told:
        assert str(told).strip() and "\n" not in str(told)
    else:
        assert len(history) == 1


# Equations that stand by themselves


def loss_of(seed):
    Q = torch.randn(5, 4, generator=draws(seed), dtype=torch.float64)
    return lambda theta: (Q @ theta).sin().sum() + (Q @ theta).pow(2).sum() / 4


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_the_gradient_of_maml(steps):
    loss, meta = loss_of(1), loss_of(2)
    start = torch.randn(4, generator=draws(3), dtype=torch.float64)
    theta = start.clone().requires_grad_()
    end = theta
    for _ in range(steps):
        (g,) = torch.autograd.grad(loss(end), end, create_graph=True)
        end = end - 0.05 * g
    (right,) = torch.autograd.grad(meta(end), theta)
    found = method.maml_gradient(loss, meta, start, 0.05, steps)
    assert torch.allclose(found, right, atol=1e-10)
    first = method.maml_gradient(loss, meta, start, 0.05, steps, first_order=True)
    assert torch.allclose(first, torch.func.grad(meta)(end.detach()), atol=1e-10)


def test_the_preconditioner_of_linear_warps():
    g = draws(1)
    T, S = (torch.randn(*size, generator=g).double() for size in ((3, 4), (2, 5)))
    G = torch.randn(3, 5, generator=g).double()
    moved = T @ (T.T @ G @ S.T) @ S
    P = method.linear_preconditioner(S, T)
    assert torch.allclose(P @ G.T.flatten(), moved.T.flatten(), atol=1e-10)


@pytest.mark.parametrize("examples", [1, 7])
def test_the_best_preconditioner_beats_its_neighbours(examples):
    g = draws(2)
    half = torch.randn(3, 3, generator=g).double()
    C = half @ half.T
    best = method.best_preconditioner(C, examples)
    w = torch.randn(20_000, 3, generator=g).double() @ half.T
    z = torch.randn(20_000, examples, 3, generator=g).double()
    noisy = torch.einsum("nmi,nmj,nj->ni", z, z, w) / examples

    def left(M):
        return (w - noisy @ M.T).square().sum(1).mean()

    # Least squares on the same draws is their own best.
    own = torch.linalg.lstsq(noisy, w).solution.T
    assert left(best) < 1.03 * left(own)
    assert left(0.7 * best) > left(best) < left(1.4 * best)
    with pytest.raises(BadRequest, match="0 examples"):
        method.best_preconditioner(C, 0)


def test_of_round_errors_the_best_is_a_shrunk_identity():
    best = method.best_preconditioner(torch.eye(4).double(), 6)
    assert torch.allclose(best, 6 / 11 * torch.eye(4).double(), atol=1e-12)


# The learners of the page


def module(net):
    """A learner's network for one task, as layers of PyTorch."""
    width = net.own[0][1]
    layers = [nn.Linear(1, width), method.Tanh(width), nn.ReLU()]
    layers += [
        nn.Linear(width, width),
        method.Tanh(width),
        nn.ReLU(),
        nn.Linear(width, 1),
    ]
    return nn.Sequential(*layers)


def test_a_learner_is_the_network_of_its_layers():
    net, n = learners.Learner(5, "tanh", False, draws(1)), 3
    theta = torch.randn(n, net.start.numel(), generator=draws(2))
    net.warp.data += 0.3 * torch.randn(net.warp.shape, generator=draws(3))
    x = torch.randn(n, 7, 1, generator=draws(4))
    weights, warps = (
        learners.parts(theta, net.own),
        learners.parts(net.warp, net.shared),
    )
    for i in range(n):
        plain = module(net)
        for j, layer in enumerate((0, 3, 6)):
            plain[layer].weight.data = weights[2 * j][i].T
            plain[layer].bias.data = weights[2 * j + 1][i, 0]
        for j, layer in enumerate((1, 4)):
            for k, name in enumerate("TAB"):
                getattr(plain[layer], name).data = warps[3 * j + k].detach()
        assert torch.allclose(net(theta, x)[i], plain(x[i]), atol=1e-5)


@pytest.mark.parametrize("warp", ["none", "linear", "tanh"])
def test_warps_begin_as_the_identity_and_may_be_adapted(warp):
    nets = [
        learners.Learner(6, kind, both, draws(1))
        for kind, both in (("none", False), (warp, False), (warp, True))
    ]
    x = torch.randn(2, 4, 1, generator=draws(2))
    told = [net(net.begin(2), x) for net in nets]
    assert torch.equal(told[0], told[1]) and torch.equal(told[0], told[2])
    more = {"none": 0, "linear": 2, "tanh": 6}[warp] * 36
    own = nets[0].start.numel()
    assert nets[1].warp.numel() == more and nets[1].start.numel() == own
    assert nets[2].warp.numel() == 0 and nets[2].start.numel() == own + more


def test_sines_are_what_they_say():
    first, second = learners.sinusoids(500, 30, draws(1))
    assert first.inputs.shape == first.targets.shape == (500, 30, 1)
    assert not torch.equal(first.inputs, second.inputs)
    x = torch.cat([first.inputs, second.inputs], 1)[..., 0]
    y = torch.cat([first.targets, second.targets], 1)[..., 0]
    assert -5 <= x.min() < -4.99 and 4.99 < x.max() <= 5
    basis = torch.stack([x.sin(), x.cos()], -1).double()
    fit = torch.linalg.lstsq(basis, y[..., None].double()).solution
    assert torch.allclose(basis @ fit, y[..., None].double(), atol=1e-4)
    amplitude = fit.norm(dim=1)[:, 0]
    assert 0.1 < amplitude.min() < 0.3 and 4.8 < amplitude.max() < 5
    phase = torch.atan2(-fit[:, 1, 0], fit[:, 0, 0])
    assert phase.min() > -1e-3 and phase.max() < math.pi + 1e-3
    assert abs(phase.mean() - math.pi / 2) < 0.2


def test_gradients_are_cut_per_task_and_pass_a_second_one():
    net = learners.Learner(5, "tanh", False, draws(1))
    task, _ = learners.sinusoids(4, 10, draws(2))
    theta = learners.loose(net.begin(4))
    whole = learners.slope(net, theta, task, torch.inf)
    for i in range(4):
        one = learners.loose(net.begin(1))
        alone = method.Task(*(part[i : i + 1] for part in task))
        (g,) = torch.autograd.grad(net.losses(one, alone).sum(), one)
        assert torch.allclose(whole[i], g[0], atol=1e-5)
    lengths = whole.norm(dim=1)
    clip = float(lengths.median())
    cut = learners.slope(net, theta, task, clip)
    assert torch.allclose(cut.norm(dim=1), lengths.clamp(max=clip), rtol=1e-5)
    assert not whole.requires_grad
    graph = learners.slope(net, theta, task, clip, graph=True)
    assert torch.autograd.grad(graph.sum(), net.warp)[0].abs().sum() > 0
