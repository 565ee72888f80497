"""The experiments of the chapter on factorised GANs, against independent routes."""

import math

import pytest
import runs
import torch
from rng import rng
from torch import nn

from iclrtut.chapters.factorised_gan import CHAPTER, experiments
from iclrtut.train import fit

SLUG = "factorised_gan"
folder, start = runs.folder, runs.of(SLUG)


# Data


def test_partners_copy_the_class_as_often_as_asked():
    labels = torch.arange(400) % 10
    for same in (0.0, 0.5, 1.0):
        mates = torch.stack(
            [experiments.partners(labels, same, rng(k)) for k in range(20)]
        )
        assert not (mates == torch.arange(400)).any()
        share = (labels[mates] == labels).double().mean().item()
        expected = same + (1 - same) * 39 / 399
        assert share == pytest.approx(expected, abs=0.02)


def test_an_image_alone_in_its_class_is_its_own_partner_when_copied():
    labels = torch.tensor([0, 1, 1, 1])
    mates = experiments.partners(labels, 1.0, rng())
    assert mates[0] == 0 and (mates[1:] != torch.arange(1, 4)).all()


def test_the_exact_table_is_that_of_the_recipe():
    labels = torch.tensor([0, 0, 0, 1])
    table = experiments.class_pairs(labels, 0.6)
    assert table.sum().item() == pytest.approx(1)
    assert table[0, 1].item() == pytest.approx(0.4 * 0.75 * 0.25)
    assert table[1, 1].item() == pytest.approx(0.6 * 0.25 + 0.4 * 0.25**2)
    wanted = 0.6 * (1 - 0.75**2 - 0.25**2)
    assert experiments.excess(table) == pytest.approx(wanted)


def test_splits_are_apart_and_development_takes_no_test_image():
    run = start()
    d, e = experiments.digits(run), experiments.digits(run, develop=True)
    assert len(d.test) == run.settings.test and len(d.images) == 1797 - len(d.test)
    assert len(e.test) == experiments.DEVELOPED
    assert len(e.images) == len(d.images) - experiments.DEVELOPED
    tests = {tuple(row) for row in d.test.int().tolist()}
    seen = {tuple(row) for row in torch.cat([e.test, e.images]).int().tolist()}
    assert len(tests & seen) < 5  # digits of few pixels may be twins
    assert d.images.min() == -1 and d.images.max() == 1
    pairs = d.pairs(3)
    assert torch.equal(pairs[:, :64], d.images[d.order[:3]])
    assert torch.equal(pairs[:, 64:], d.images[d.lower[d.order[:3]]])


# Scores


class Reads(nn.Module):
    """A judge's features: the first number of an image is its class."""

    def forward(self, x):
        return nn.functional.one_hot(x[:, 0].long(), 10).float() + 0.01 * x[:, 1:2]


def reader(exact):
    test = Reads()(images(torch.arange(100) % 10))
    return experiments.Judge(Reads(), nn.Identity(), test, exact, 1.0)


def images(labels, seed=0):
    noise = torch.randn(len(labels), 1, generator=rng(seed))
    return torch.cat([labels[:, None].float(), noise], 1)


def test_a_score_reads_classes_of_both_halves():
    exact = torch.eye(10).double() / 10
    upper = torch.arange(200) % 10
    same = torch.cat([images(upper), images(upper, 1)], 1)
    found = experiments.score(reader(exact), same)
    assert found.dependency == pytest.approx(0) and found.coverage == 10
    assert found.excess == pytest.approx(0.9)
    table = experiments.class_table(reader(exact), same)
    assert torch.equal(table, 20 * torch.eye(10).double())
    lone = torch.cat([images(0 * upper), images(upper)], 1)
    found = experiments.score(reader(exact), lone)
    assert found.coverage == 5.5 and found.excess == pytest.approx(0)
    assert found.fd > 0.4


def test_yardsticks_are_in_order():
    run = start(samples=2000, judge_steps=300)
    d = experiments.digits(run)
    rows = experiments.yardsticks(run, d, experiments.judge(run, d))
    assert rows["real pairs"].dependency < 0.3 < 1.2 < rows["independent"].dependency
    assert rows["real pairs"].excess == pytest.approx(d.excess, abs=0.05)
    assert abs(rows["independent"].excess) < 0.05
    assert rows["collapsed"].coverage == 1 and rows["collapsed"].dependency < 1
    assert rows["real pairs"].fd < rows["memorised"].fd < rows["collapsed"].fd
    assert rows["Gaussians"].excess == pytest.approx(d.excess, abs=0.08)


# Claims


def scored(fd, dependency, excess=0.5):
    return experiments.Score(fd, dependency, excess, 10.0)


def both(few, every):
    return {"few": few, "all": every}


def test_the_gan_is_the_best_of_three_on_each_number():
    found = {
        "FactorGAN": both(scored(5, 1.0), scored(6, 0.4, 0.7)),
        "no d_P": both(scored(5, 1.4), scored(6, 1.5)),
        "GAN": both(scored(9, 0.6), scored(9, 0.8, 0.9)),
        "GAN, equal time": both(scored(7, 0.9), scored(9, 0.9, 0.1)),
        "GAN, equal size": both(scored(8, 0.8), scored(9, 0.7, 0.2)),
        "plain sum": both(scored(4, 0.9), scored(6, 0.6)),
    }
    measured = experiments.measure(found, truth=0.8)
    value = {name: each["value"] for name, each in measured.items()}
    assert value == pytest.approx(
        {
            "marginals_few": 2,
            "dependency_few": -0.4,
            "dependency_all": 0.3,
            "excess_all": 0.0,
            "needs_pairs_few": 0.4,
            "needs_pairs_all": 1.1,
            "beats_plain_sum_parts": -1,
            "beats_plain_sum_dependency": 0.2,
        }
    )
    assert measured["marginals_few"]["gan_equal_time"] == 7
    logits = {f"logit_sum_{n}" for n in (20, 100, 500)}
    assert set(measured) | logits == {claim.id for claim in CHAPTER.claims}


# Training


def test_an_arm_trains_two_models_of_its_size():
    run = start()
    d = experiments.digits(run)
    game = experiments.train_arm(run, d, "GAN, equal size")
    assert game.models == 2 and len(game.stacks) == 1
    assert game.stacks[0].weight[0].shape == (2, run.settings.wide, 128)
    pairs = experiments.generate(run, game.mean, 2)
    assert pairs.shape == (2, run.settings.samples, 128)
    assert pairs.abs().max() <= 1


def test_models_without_d_p_follow_the_other_logits():
    run = start()
    d = experiments.digits(run)
    loop = experiments.factor_loop(run, d)
    fit(loop, 2, folder=None, name="two steps")
    game = loop.state["game"].eval()
    pairs = d.pairs(8).expand(4, -1, -1)
    logits = game.logits(pairs)
    parts = logits[0] + logits[1] - logits[3]
    torch.testing.assert_close(game.total(pairs)[2:], parts[2:])
    torch.testing.assert_close(game.total(pairs)[:2], (parts + logits[2])[:2])


def test_tuning_tries_every_rate(monkeypatch):
    found = experiments.tune("GAN", [0], profile="smoke")
    assert tuple(found) == experiments.RATES
    for each in found.values():
        assert math.isfinite(each["loss"]) and each["few"].fd > 0


# Logits of Gaussians


def test_a_logit_finds_a_quadratic_log_ratio():
    case = experiments.problem(rng(3))
    p, q = case.draw("p", 40_000, rng(1)), case.draw("q", 40_000, rng(2))
    test = torch.cat([p[:500], q[:500]])
    off = experiments.logit(p, q)(test) - case.log_ratio(test)
    assert off.square().mean().sqrt() < 0.3
    fewer = experiments.logit(p[:4000], q)(test) - case.log_ratio(test)
    assert fewer.abs().mean() < 0.5  # uneven numbers are weighted alike


def test_problems_have_the_distribution_they_say():
    case = experiments.problem(rng(4))
    x = case.draw("q", 50_000, rng(5))
    torch.testing.assert_close(x.mean(0), case.mean_q, atol=0.05, rtol=0)
    torch.testing.assert_close(x.T.cov(), case.spread_q, atol=0.1, rtol=0)


def test_shifts_keep_no_pair():
    pairs = torch.arange(8.0).view(4, 2)
    moved = experiments.shifts(pairs)
    assert len(moved) == 12
    kept = {tuple(row) for row in pairs.tolist()}
    assert not kept & {tuple(row) for row in moved.tolist()}
    assert len({tuple(row) for row in moved.tolist()}) == 12


def test_more_pairs_make_both_logits_better():
    case, draws = experiments.problem(rng(6)), rng(7)
    few = experiments.logit_errors(case, 20, 3000, draws)
    many = experiments.logit_errors(case, 2000, 3000, draws)
    assert all(a > b for a, b in zip(few, many, strict=True))
