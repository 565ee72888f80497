"""Factorised discriminators, against enumeration, autograd and plain PyTorch."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rng import rng
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from iclrtut.chapters.factorised_gan import method
from iclrtut.errors import BadRequest

B, WIDTHS = 5, (3, 2)


def table(*shape, seed=0):
    x = torch.randn(*shape, generator=rng(seed), dtype=torch.float64)
    return x.flatten(-2).softmax(-1).view(shape)


def close(a, b, tol=1e-12):
    torch.testing.assert_close(
        torch.as_tensor(a, dtype=torch.float64).expand_as(torch.as_tensor(b)),
        torch.as_tensor(b, dtype=torch.float64),
        atol=tol,
        rtol=0,
    )


# Tables


def test_four_logits_are_log_ratios_of_sums_of_cells():
    p, q = table(2, 3), table(2, 3, seed=1)
    r = method.ratios(p, q)
    for i, j in itertools.product(range(2), range(3)):
        p1, p2 = sum(p[i]).item(), sum(p[:, j]).item()
        q1, q2 = sum(q[i]).item(), sum(q[:, j]).item()
        assert r.first[i, 0].item() == pytest.approx(math.log(p1 / q1))
        assert r.second[0, j].item() == pytest.approx(math.log(p2 / q2))
        assert r.c_p[i, j].item() == pytest.approx(math.log(p[i, j] / p1 / p2))
        assert r.c_q[i, j].item() == pytest.approx(math.log(q[i, j] / q1 / q2))
    close(r.total, (p / q).log())


def test_tables_go_in_batches():
    p, q = table(4, 2, 3), table(4, 2, 3, seed=1)
    many = method.ratios(p, q)
    for k in range(4):
        one = method.ratios(p[k], q[k])
        for a, b in zip(many, one, strict=True):
            close(a[k], b)


def test_loose_parts_may_come_from_another_table():
    p, q, r = (table(2, 3, seed=k) for k in range(3))
    found = method.ratios(p, q, r)
    close(found.first, (r.sum(1, keepdim=True) / q.sum(1, keepdim=True)).log())
    close(found.second, (r.sum(0, keepdim=True) / q.sum(0, keepdim=True)).log())
    close(found.c_p, method.ratios(p, q).c_p)


@pytest.mark.parametrize("name", ["first", "second", "c_p", "c_q", "joint"])
def test_a_switch_takes_out_its_own_logit(name):
    r = method.ratios(table(2, 3), table(2, 3, seed=1))
    every = method.Switches(joint=1.0)
    gone = method.summed(r, every) - method.summed(r, every._replace(**{name: 0.0}))
    sign = -1 if name == "c_q" else 1
    wanted = r.total if name == "joint" else getattr(r, name)
    close(sign * wanted.expand(2, 3), gone)


def test_a_step_of_the_flow_raises_what_is_above_the_mean():
    p, q = table(2, 3), table(2, 3, seed=1)
    S = method.summed(method.ratios(p, q))
    later = method.walk(p, q, 1e-6, 1)
    close((later / q).log() / 1e-6, S - (q * S).sum(), tol=1e-5)
    assert later.sum().item() == pytest.approx(1)
    twice = method.walk(p, method.walk(p, q, 0.2, 1), 0.2, 1)
    close(method.walk(p, q, 0.4, 2), twice)


def test_the_flow_settles_where_it_should():
    p, q, r = (table(3, 3, seed=k) for k in range(3))
    loose = p.sum(1, keepdim=True) * p.sum(0, keepdim=True)
    on = method.Switches
    close(method.settle(p, q), p, 1e-7)
    close(method.settle(p, q, on(c_p=0)), loose, 1e-7)
    close(method.settle(p, q, on(c_p=0, c_q=0, joint=1)), p, 1e-7)
    close(method.settle(p, q, batch=4), p, 1e-5)
    other = p / loose * r.sum(1, keepdim=True) * r.sum(0, keepdim=True)
    close(method.settle(p, q, parts=r), other / other.sum(), 1e-7)


def test_without_d_q_cells_die_and_stay_finite():
    end = method.settle(table(3, 4), table(3, 4, seed=1), method.Switches(c_q=0))
    assert end.isfinite().all() and (end > 0).all()
    assert int((end > 1e-3).sum()) <= 6


@pytest.mark.parametrize("batch", [1, 2, 3, 32])
def test_a_permutation_caps_the_logit(batch):
    c = torch.tensor([0.01, 0.5, 1.0, 2.0, 50.0]).double()
    wanted = [math.log(x / ((1 - 1 / batch) + x / batch)) for x in c.tolist()]
    close(method.permuted(c.log(), batch), torch.tensor(wanted, dtype=torch.float64))
    huge = method.permuted(torch.tensor([800.0]), batch)
    assert huge.item() == pytest.approx(math.log(batch))


def test_variances_are_those_of_the_delta_method():
    p = table(2, 3)

    def logs(t):
        t = t / t.sum()
        split = t / (t.sum(1, keepdim=True) * t.sum(0, keepdim=True))
        return torch.stack([t.log(), split.log()])

    slopes = torch.func.jacrev(logs)(p)
    mean = (slopes * p).sum((-1, -2))
    wanted = (slopes**2 * p).sum((-1, -2)) - mean**2
    for found, exact in zip(method.variances(p), wanted, strict=True):
        close(found, exact, 1e-10)


def test_dependency_is_the_mean_gap_between_ratios():
    counts, exact = np.array([[5, 1], [0, 2]]), np.array([[0.4, 0.1], [0.1, 0.4]])
    gap = 0.0
    for a, b in itertools.product(range(2), range(2)):
        q, p = counts / 8, exact
        mine = q[a, b] / (q[a].sum() * q[:, b].sum() + 0.001)
        data = p[a, b] / (p[a].sum() * p[:, b].sum() + 0.001)
        gap += abs(mine - data) / 4
    assert method.dependency(counts, exact) == pytest.approx(gap)
    assert method.dependency(10 * exact, exact) == 0


BAD_TABLES = [[1.0], [[0.5, 0.5], [0.5, 0.5]], [[1.0, 0.0]], [[math.nan, 1.0]], "no"]


@pytest.mark.parametrize("bad", BAD_TABLES)
def test_what_is_no_table_is_refused(bad):
    good = table(2, 2)
    for call in (
        lambda: method.ratios(bad, good),
        lambda: method.walk(good, bad, 1.0, 2),
        lambda: method.walk(good, good, 1.0, 2, parts=bad),
        lambda: method.variances(bad),
    ):
        with pytest.raises(BadRequest):
            call()


def test_other_nonsense_is_refused():
    good = table(2, 2)
    for call in (
        lambda: method.ratios(good, table(2, 3)),
        lambda: method.walk(good, good, 3.0, 2),
        lambda: method.walk(good, good, 1.0, 0),
        lambda: method.walk(good, good, -1.0, 2),
        lambda: method.permuted([0.0], 0),
        lambda: method.permuted([0.0], 2.5),
        lambda: method.dependency([[0, 0]], [[1, 1]]),
        lambda: method.dependency([[-1, 2]], [[1, 1]]),
        lambda: method.dependency([[1, 2]], [[1], [1]]),
        lambda: method.dependency([1, 2], [[1, 1]]),
    ):
        with pytest.raises(BadRequest):
            call()


ANY = st.one_of(
    st.none(),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.floats(), max_size=4),
    st.lists(st.lists(st.floats(), min_size=2, max_size=2), max_size=3),
)


@given(ANY, ANY)
def test_any_tables_give_numbers_or_one_sentence(p, q):
    for call in (method.ratios, method.dependency):
        try:
            found = call(p, q)
        except BadRequest as error:
            assert "\n" not in str(error)
        else:
            total = found.total if isinstance(found, method.Ratios) else found
            assert bool(torch.as_tensor(total).isfinite().all())


# Stacked networks against plain ones


def plain(inputs, seed):
    torch.manual_seed(seed)
    layers = [nn.Linear(inputs, 4), nn.LeakyReLU(0.01), nn.Linear(4, 1)]
    return nn.Sequential(*layers).double()


def normalised(inputs, seed):
    net = plain(inputs, seed)
    for layer in (net[0], net[2]):
        spectral_norm(layer)
    return net


def test_a_stack_says_what_its_networks_say():
    nets = [normalised(3, seed) for seed in range(3)]
    stack = method.Stacked.of(nets, 0.01, spectral=True)
    x = torch.randn(3, 6, 3, generator=rng(), dtype=torch.float64)
    for _ in range(3):
        said = torch.stack([net(part) for net, part in zip(nets, x, strict=True)])
        close(stack(x).detach(), said.detach(), 1e-12)
    for net in nets:
        net.eval()
    stack.eval()
    before = [u.clone() for u in (stack.u0, stack.v0)]
    said = torch.stack([net(part) for net, part in zip(nets, x, strict=True)])
    close(stack(x).detach(), said.detach(), 1e-12)
    assert all(map(torch.equal, before, (stack.u0, stack.v0)))


def test_a_stack_has_the_gradients_of_its_networks():
    net = normalised(3, 0)
    stack = method.Stacked.of([net], 0.01, spectral=True)
    x = torch.randn(1, 6, 3, generator=rng(), dtype=torch.float64)
    net(x[0]).square().sum().backward()
    stack(x).square().sum().backward()
    raw = net[0].parametrizations.weight.original.grad
    close(stack.weight[0].grad[0], raw, 1e-12)
    close(stack.bias[1].grad[0], net[2].bias.grad, 1e-12)


def test_a_new_stack_has_networks_of_their_own_near_norm_one():
    stack = method.Stacked([5, 7, 1], 3, 0, leak=0.01, spectral=True)
    for _ in range(50):
        stack(torch.zeros(3, 1, 5))
    norms = torch.linalg.matrix_norm(stack.divided(0).detach(), 2)
    assert norms.tolist() == pytest.approx([1] * 3, abs=1e-3)
    assert not torch.equal(stack.weight[0][0], stack.weight[0][1])


def shift(pairs):
    return torch.cat([pairs[:, : WIDTHS[0]], pairs[:, WIDTHS[0] :].roll(1, 0)], 1)


class Plain:
    """FactorGAN as one would write it: five networks and two optimisers."""

    def __init__(self, seed=0):
        inputs = (*WIDTHS, sum(WIDTHS), sum(WIDTHS))
        self.nets = [normalised(n, seed + k) for k, n in enumerate(inputs)]
        torch.manual_seed(seed + 9)
        self.generator = nn.Sequential(nn.Linear(4, sum(WIDTHS))).double()
        rule = {"lr": 1e-2, "betas": (0.5, 0.999)}
        weights = [w for net in self.nets for w in net.parameters()]
        self.ours = torch.optim.Adam(weights, **rule)
        self.theirs = torch.optim.Adam(self.generator.parameters(), **rule)

    def play(self, x1, x2, pairs, z):
        fake, n = self.generator(z), WIDTHS[0]
        held = fake.detach()
        sides = [(x1, held[:, :n]), (x2, held[:, n:])]
        sides += [(pairs, shift(pairs)), (held, shift(held))]
        self.ours.zero_grad()
        told = 0.0
        for net, (positive, negative) in zip(self.nets, sides, strict=True):
            logit = net(torch.cat([positive, negative]))
            loss = F.softplus(-logit[:B]) + F.softplus(logit[B:])
            told = told + loss.mean()
        told.backward()
        self.ours.step()
        for net in self.nets:
            net.eval()
        S = self.nets[0](fake[:, :n]) + self.nets[1](fake[:, n:])
        S = S + self.nets[2](fake) - self.nets[3](fake)
        self.theirs.zero_grad()
        fooled = F.softplus(-S).mean()
        fooled.backward()
        self.theirs.step()
        for net in self.nets:
            net.train()
        return told.item(), fooled.item()


def stacked(models):
    """The same players, in stacks."""
    made = [[m.generator for m in models], None]
    generator = method.Stacked.of(made[0], 0.0, spectral=False)

    def build(inputs, copies):
        nets = [
            m.nets[k]
            for k, n in enumerate((*WIDTHS, sum(WIDTHS), sum(WIDTHS)))
            if n == inputs
            for m in models
        ]
        assert len(nets) == copies
        return method.Stacked.of(nets, 0.01, spectral=True)

    return method.Game(generator, method.FACTOR, build, len(models), WIDTHS, 0.5)


@pytest.mark.parametrize("count", [1, 3])
def test_ten_steps_end_in_the_same_weights(count):
    models = [Plain(20 * k) for k in range(count)]
    game, draws = stacked(models), rng()
    weights = [*game.generator.parameters(), *game.stacks.parameters()]
    adam = torch.optim.Adam(weights, lr=1e-2, betas=(0.5, 0.999), fused=True)
    mean = game.mean.weight[0].clone()
    for _ in range(10):
        x1, x2, z = (
            torch.randn(count, B, n, generator=draws, dtype=torch.float64)
            for n in (*WIDTHS, 4)
        )
        pairs = torch.cat([x1.tanh(), x2 * x1[..., :2]], -1)
        losses = game.play(adam, method.Real(x1, x2, pairs), z)
        said = [m.play(x1[k], x2[k], pairs[k], z[k]) for k, m in enumerate(models)]
        close(losses, torch.tensor(said, dtype=torch.float64).sum(0), 1e-9)
        mean = (mean + game.generator.weight[0].detach()) / 2
    close(game.mean.weight[0], mean, 1e-12)
    for k, m in enumerate(models):
        close(
            game.generator.weight[0][k].detach(), m.generator[0].weight.detach(), 1e-9
        )
        raw = m.nets[3][0].parametrizations.weight.original.detach()
        close(game.stacks[-1].weight[0][count + k].detach(), raw, 1e-9)


def test_logits_come_in_the_order_of_the_critics():
    model = Plain()
    game = stacked([model]).eval()
    pairs = torch.randn(1, B, 5, generator=rng(), dtype=torch.float64)
    for net in model.nets:
        net.eval()
    seen = [pairs[0, :, :3], pairs[0, :, 3:], pairs[0], pairs[0]]
    said = [net(x)[:, 0] for net, x in zip(model.nets, seen, strict=True)]
    close(game.logits(pairs)[:, 0].detach(), torch.stack(said).detach(), 1e-12)
    total = said[0] + said[1] + said[2] - said[3]
    close(game.total(pairs)[0].detach(), total.detach(), 1e-12)


def test_a_weight_of_each_model_switches_a_critic_off():
    models = [Plain(), Plain(20)]
    game = stacked(models).eval()
    pairs = torch.randn(2, B, 5, generator=rng(), dtype=torch.float64)
    full, d_p = game.total(pairs), game.logits(pairs)[2]
    game.critics = [
        c._replace(weight=(1.0, 0.0)) if c.negative == "real shuffled" else c
        for c in game.critics
    ]
    close(game.total(pairs)[0].detach(), full[0].detach())
    close(game.total(pairs)[1].detach(), (full - d_p)[1].detach())


def test_a_cyclic_shift_leaves_no_pair_together():
    pairs = torch.arange(12.0).view(1, 4, 3)
    moved = method.shuffled(pairs, 1)
    assert torch.equal(moved[0, :, :1], pairs[0, :, :1])
    assert torch.equal(moved[0, 1:, 1:], pairs[0, :-1, 1:])
    assert torch.equal(moved[0, 0, 1:], pairs[0, -1, 1:])


def test_telling_apart_is_the_cross_entropy_of_both_sides():
    logits = torch.randn(2, 6, 1, generator=rng(), dtype=torch.float64)
    wanted = 0.0
    for net in logits[..., 0]:
        wanted += -net[:3].sigmoid().log().mean() - (1 - net[3:].sigmoid()).log().mean()
    close(method.tell_apart(logits), wanted, 1e-10)


def test_a_pool_draws_every_row_of_its_own_sets():
    pool = method.Pool([torch.arange(3.0)[:, None], 10 + torch.arange(2.0)[:, None]])
    drawn = pool.draw(400, rng())
    assert drawn.shape == (2, 400, 1)
    assert set(drawn[0].flatten().tolist()) == {0, 1, 2}
    assert set(drawn[1].flatten().tolist()) == {10, 11}


def test_the_rate_falls_over_the_second_half():
    rate = method.falling(100)
    assert [rate(t) for t in (0, 50, 75, 100)] == pytest.approx([1, 1, 0.5, 0])


# A reader's own data


def loose(n, *shape, seed=0):
    return torch.randn(n, *shape, generator=rng(seed))


def train(*data, **more):
    return method.train(*data, **{"steps": 3, "seed": 0, "batch": 4, "noise": 3} | more)


@pytest.mark.parametrize(
    ("one", "two"), [((2,), (2,)), ((2, 3), (1,)), ((1, 4, 4), (3, 2))]
)
def test_parts_of_any_shape_come_back_in_their_shape(one, two):
    model = train(loose(6, *one), loose(6, *two), loose(9, *one), None)
    first, second = model.sample(5)
    assert first.shape == (5, *one) and second.shape == (5, *two)
    said = model.logits(first, second)
    close(said.total, said.first + said.second + said.c_p - said.c_q, 1e-6)
    assert said.total.shape == (5,)
    assert "6 pairs, 15 first and 6 second parts" in model.summary
    assert len(model.history.curves["loss"]) == 3


def test_the_same_seed_gives_the_same_model():
    data = loose(6, 2), loose(6, 3, seed=1)
    one, two = (train(*data).sample(4)[0] for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, train(*data, seed=1).sample(4)[0])


def test_networks_of_any_kind_are_taken():
    class Odd(nn.Module):
        def __init__(self, inputs):
            super().__init__()
            self.line = nn.Linear(inputs, 1)

        def forward(self, x):
            return self.line(x.tanh())

    data = loose(6, 2), loose(6, 3, seed=1)
    model = train(*data, discriminator=Odd)
    assert isinstance(model.game.stacks[0], method.Apart)
    norms = [
        torch.linalg.matrix_norm(net.line.weight, 2).item()
        for net in model.game.stacks[2].networks
    ]
    assert norms == pytest.approx([1, 1], abs=1e-3)
    assert isinstance(train(*data).game.stacks[0], method.Stacked)


def test_a_constant_part_does_not_hurt():
    model = train(loose(6, 2), torch.ones(6, 3))
    assert all(part.isfinite().all() for part in model.sample(5))


def test_samples_have_the_level_and_scale_of_the_data():
    one, two = 100 + 5 * loose(300, 2), 0.01 * loose(300, 2, seed=1)
    first, second = train(one, two).sample(200)
    assert (first - 100).abs().mean() < 10 and second.abs().mean() < 0.1


def test_what_does_not_fit_is_refused():
    one, two = loose(6, 2), loose(6, 3)
    bad = [
        lambda: train(one[:0], two[:0]),
        lambda: train(one[:1], two[:1]),
        lambda: train(one, two[:5]),
        lambda: train(one, two, loose(4, 3)),
        lambda: train(one * math.nan, two),
        lambda: train(one, two, one * math.inf),
        lambda: train(one[:, 0], two),
        lambda: train("a", two),
        lambda: train(one, two, steps=0),
        lambda: train(one, two, batch=1),
        lambda: train(one, two, noise=0),
        lambda: train(one, two, rate=0.0),
        lambda: train(one, two, rate=math.nan),
        lambda: train(one, two, generator=lambda noise, n: nn.Linear(noise, n + 1)),
        lambda: train(one, two, discriminator=lambda n: nn.Linear(n, 2)),
        lambda: train(one, two).sample(0),
        lambda: train(one, two).logits(two, one),
        lambda: train(one, two).logits(one, two[:3]),
    ]
    for call in bad:
        with pytest.raises(BadRequest) as caught:
            call()
        assert str(caught.value).count(".") >= 1


@given(ANY, ANY)
def test_any_data_train_or_give_one_sentence(one, two):
    try:
        model = train(one, two, steps=1)
    except BadRequest as error:
        assert "\n" not in str(error)
    else:
        assert all(part.isfinite().all() for part in model.sample(2))
