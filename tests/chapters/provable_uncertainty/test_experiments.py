"""The experiments of the chapter on CCU, against independent routes."""

import base64
import json
from types import SimpleNamespace

import numpy as np
import pytest
import runs
import torch
from rng import rng
from scipy import stats
from scipy.special import logsumexp
from torch import nn
from torch.nn import functional as F

from iclrtut.chapters.provable_uncertainty import CHAPTER, FOREIGN, experiments
from iclrtut.chapters.provable_uncertainty import method as chapter
from iclrtut.errors import BadRequest, RunFailed
from iclrtut.train import History

SLUG = "provable_uncertainty"
folder, start = runs.folder, runs.of(SLUG)
METHODS = ("plain", "oe", "ccu")


def train(run, data, kind, name=""):
    return experiments.train(
        run, experiments.images_task(run, data), kind, name or kind
    )


def train_moons(run, x, y, kind, components=None, name=""):
    task = experiments.plane_task(run, x, y)
    if components:
        task = task._replace(components=components)
    return experiments.train(run, task, kind, name or f"moons-{kind}")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A run, digits, and the three methods trained for few steps."""
    run = start(steps=40, batch=32, components=(5, 5), test=200)
    run.folder = tmp_path_factory.mktemp("small")
    data = experiments.load_data(run)
    return (
        run,
        data,
        {method: train(run, data, method) for method in METHODS},
    )


@pytest.fixture(scope="module")
def plane(tmp_path_factory):
    """A run, two moons, and the four models of the page's figure."""
    run = start(steps=100)
    run.folder = tmp_path_factory.mktemp("plane")
    x, y = experiments.moons(run, 300)
    models = {m: train_moons(run, x, y, m) for m in METHODS}
    models["failing"] = train_moons(run, x, y, "ccu", (1, 40), "moons-failing")
    return run, x, y, models


# Data


def test_digits_are_split_without_overlap_and_anew_by_seed():
    first, same, other = (experiments.load_data(start("quick", k)) for k in (0, 0, 1))
    assert [len(part) for part in first[:4]] == [1297, 1297, 500, 500]
    pictures = torch.cat([first.x, first.x_test])
    assert len(pictures.flatten(1).unique(dim=0)) >= 1796  # of 1797, all of them differ
    assert torch.equal(first.x, same.x)
    assert torch.equal(first.x_test, same.x_test)
    assert not torch.equal(first.x_test, other.x_test)
    assert (pictures.min(), pictures.max()) == (0, 1)
    assert pictures.shape[1:] == (1, 8, 8)
    assert pictures.dtype == torch.float32
    assert first.y.dtype == torch.int64


def test_digits_keep_their_labels():
    from sklearn.datasets import load_digits

    results, known = experiments.load_data(start()), load_digits()
    table = {row.tobytes(): y for row, y in zip(known.data, known.target, strict=True)}
    for x, y in ((results.x, results.y), (results.x_test, results.y_test)):
        rows = (x.flatten(1) * 16).double().numpy()
        assert [table[row.tobytes()] for row in rows] == y.tolist()


def fake_sets(monkeypatch, jpeg=True, side=32):
    """Random pictures under the names of real data sets; the first pixel tells."""
    draw, arrays = np.random.default_rng(0), {}
    for name, shape in {
        "mnist": (28, 28),
        "fashion_mnist": (28, 28),
        "cifar10": (side, side, 3),
    }.items():
        images = draw.integers(0, 256, (100, *shape), dtype=np.uint8)
        labels = np.arange(100, dtype=np.uint8) % 10
        images.reshape(100, -1)[:, 0] = labels
        images.reshape(100, -1)[60:, 1] = 255  # marks the test part
        images.reshape(100, -1)[:60, 1] = 0
        arrays[name] = {
            "train_images": images[:60],
            "train_labels": labels[:60],
            "test_images": images[60:],
            "test_labels": labels[60:],
        }
    arrays["clothing32"] = {"images": arrays["cifar10"]["train_images"] // 2}
    arrays["notmnist"] = {"images": arrays["mnist"]["train_images"] // 3}
    for name in ("photographs", "omniglot_small"):
        arrays[name] = experiments.sets.load(name)
    monkeypatch.setattr(experiments.sets, "load", arrays.__getitem__)
    kind = SimpleNamespace(is_file=lambda: jpeg)
    monkeypatch.setattr(experiments.sets, "fetch", lambda name: kind)
    return arrays


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_an_official_test_part_stays_one(monkeypatch, name):
    arrays = fake_sets(monkeypatch)
    data = experiments.load_data(start("full", test=30), name)
    colour = name == "cifar10"
    size = (3, 32, 32) if colour else (1, 28, 28)
    assert data.x.shape == (60, *size)
    assert data.x_test.shape == (30, *size)
    for x, y, mark in ((data.x, data.y, 0), (data.x_test, data.y_test, 1)):
        rows = (x.permute(0, 2, 3, 1) if colour else x).flatten(1)
        assert (rows[:, 1] == mark).all()
        assert torch.equal((rows[:, 0] * 255).round().long(), y)
    pixels = (data.x_test * 255).round().byte().permute(0, 2, 3, 1).numpy()
    known = arrays[name]["test_images"].reshape(40, *pixels.shape[1:])
    assert all((known == z).all((1, 2, 3)).sum() == 1 for z in pixels)
    everything = experiments.load_data(start("full"), name)
    assert len(everything.x_test) == 40


def test_outliers_are_noise_and_shuffled_inputs_at_any_contrast():
    data = experiments.load_data(start())
    results = experiments.outliers(data.x, 401, rng())
    assert results.shape == (401, 1, 8, 8)
    assert results.dtype == data.x.dtype
    assert results.min() >= 0 and results.max() <= 1
    noise, shuffled = results[:200].flatten(1), results[200:].flatten(1)
    # Brought to full contrast, what is shuffled has the pixels of some input.
    known = data.x.flatten(1).sort(1)[0]
    known = known / known[:, -1:]

    def distance(rows):
        low, high = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
        return torch.cdist((rows - low).sort(1)[0] / (high - low), known).amin(1)

    assert distance(shuffled).median() < 1e-3 < 0.5 < distance(noise).min()
    for rows in (noise, shuffled):
        contrast = rows.amax(1) - rows.amin(1)
        assert stats.kstest(contrast.numpy(), "uniform").pvalue > 1e-4
        room = rows.amin(1) / (1 - contrast)
        assert 0.4 < room.mean() < 0.6
    again, other = (experiments.outliers(data.x, 401, rng(k)) for k in (0, 1))
    assert torch.equal(results, again)
    assert not torch.equal(results, other)


def test_each_outlier_has_its_own_shuffle():
    x = torch.arange(64.0).view(1, 1, 8, 8) / 63
    results = experiments.outliers(x, 20, rng())[10:].flatten(1).argsort(1)
    assert len(results.unique(dim=0)) == 10
    assert not (results == torch.arange(64)).all(1).any()


def test_foreign_sets_are_what_they_are_called():
    data = experiments.load_data(start("quick"))
    results = experiments.foreign_sets(data, np.random.default_rng(0), 300)
    x = data.x_test[:300]
    assert list(results) == list(FOREIGN)
    for z in results.values():
        assert z.shape == x.shape
        assert z.dtype == x.dtype
        assert z.min() >= 0 and z.max() <= 1
    assert torch.equal(results["inverted"], 1 - x)
    turned = np.rot90(x[7, 0].numpy())
    assert np.array_equal(results["turned"][7, 0], turned)
    assert torch.equal(results["rolled"][:, :, :4], x[:, :, 4:])
    assert torch.equal(results["rolled"][:, :, 4:], x[:, :, :4])
    assert stats.kstest(results["noise"].flatten().numpy(), "uniform").pvalue > 1e-4
    shuffled = results["permuted"].flatten(1)
    assert torch.equal(shuffled.sort(1)[0], x.flatten(1).sort(1)[0])
    middle = (shuffled[:, 10:50] == x.flatten(1)[:, 10:50]).all(1)
    assert middle.sum() == 0
    constant = x.flatten(1).std(0) == 0  # dead pixels: one shuffle would keep them dead
    assert constant.any() and (shuffled.std(0) > 0.1).all()
    assert results["photographs"].std(0).mean() > 0.1
    few = experiments.foreign_sets(data, np.random.default_rng(0), 10_000)
    assert {len(z) for z in few.values()} == {500}


def test_moons_lie_about_the_origin():
    from sklearn.datasets import make_moons

    run = start()
    x, y = experiments.moons(run, 4000)
    assert x.dtype == torch.float32 and y.dtype == torch.int64
    assert x.mean(0).abs().max() < 0.01
    clean, _ = make_moons(4000, noise=0)
    clean = torch.tensor(clean - [0.5, 0.25]).float()
    off = torch.cdist(x, clean).amin(1)
    assert off.square().mean().sqrt() == pytest.approx(0.1, rel=0.1)
    assert (x[y == 0, 1].mean() - x[y == 1, 1].mean()).item() > 0.5
    again, _ = experiments.moons(run, 4000)
    fresh, _ = experiments.moons(run, 4000, "test")
    assert torch.equal(x, again)
    assert not torch.equal(x, fresh)


def test_the_box_is_filled_evenly():
    like = torch.zeros(1, 2)
    results = experiments.box(3.0, like, 4000, rng())
    for column in results.T:
        even = stats.uniform(-3, 6)
        assert stats.kstest(column.numpy(), even.cdf).pvalue > 1e-4
    assert abs(np.corrcoef(results.T.numpy())[0, 1]) < 0.06


# Training


def weights(trained):
    parts = [trained.model, *([trained.ccu] if trained.ccu else [])]
    return [value for part in parts for value in part.state_dict().values()]


class Watched(nn.Module):
    """A network that keeps what it is shown, and its first weights."""

    def __init__(self, net):
        super().__init__()
        self.net, self.seen = net, []
        self.first = [w.detach().clone() for w in net.parameters()]

    def forward(self, x):
        self.seen.append(x.detach().clone())
        return self.net(x)


def test_methods_start_from_the_same_weights_and_see_the_same_batches():
    run, nets = start(batch=8), {}
    data = experiments.load_data(run)
    for kind in METHODS:
        task = experiments.images_task(run, data)
        made = experiments.loop(
            run,
            task._replace(net=lambda seed, task=task: Watched(task.net(seed))),
            kind,
        )
        for t in range(3):
            made.step(t)
        nets[kind] = made.state["model"]
    for kind in ("oe", "ccu"):
        assert all(map(torch.equal, nets["plain"].first, nets[kind].first))
        for x, both in zip(nets["plain"].seen, nets[kind].seen, strict=True):
            assert len(both) == 16 and torch.equal(x, both[:8])
    outside = [[both[8:] for both in nets[kind].seen] for kind in ("oe", "ccu")]
    assert all(map(torch.equal, *outside))
    assert not torch.equal(outside[0][0], outside[0][1])  # fresh at each step
    at = torch.cdist(nets["oe"].seen[0][:8].flatten(1), data.x.flatten(1)).amin(1)
    assert at.max() == 0


def first_loss(run, data, method):
    """The loss of the first step, from the formulas."""
    s = run.settings
    net = experiments.digits_net(experiments.seed_of(run, "net"))
    at = torch.randint(len(data.x), (s.batch,), generator=run.generator("batches"))
    x, y = data.x[at], data.y[at]
    p = net(x).double().softmax(1)
    if method == "plain":
        return -p.gather(1, y[:, None]).log().mean()
    x_out = experiments.outliers(data.x, s.batch, run.generator("outliers"))
    p_out = net(x_out).double().softmax(1)
    if method == "oe":
        return -p.gather(1, y[:, None]).log().mean() - p_out.log().mean()
    fresh = experiments.outliers(data.x, len(data.x), run.generator("mixtures"))
    seed = experiments.seed_of(run, "mixtures")
    ccu = chapter.CCU.fit(
        data.x, fresh, s.components, s.floor, s.q, seed, lowest=s.lowest
    )
    joint = []
    for rows, q in ((x, p), (x_out, p_out)):
        z = ccu.metric.whiten(rows)
        up, down = (m.log_density(z) for m in (ccu.inside, ccu.outside))
        # p(y, x) = p(y|x,i) p(x|i) p(i) + p(x|o) p(o) / M
        joint.append(
            torch.logaddexp(q.log() + up[:, None], down[:, None] - np.log(10))
            - np.log(2)
        )
    return -joint[0].gather(1, y[:, None]).mean() - joint[1].mean()


@pytest.mark.parametrize("method", METHODS)
def test_the_first_loss_is_the_formulas(method):
    run = start()
    data = experiments.load_data(run)
    trained = train(run, data, method)
    output = trained.history.curves["loss"][0]
    assert output == pytest.approx(first_loss(run, data, method).item(), rel=1e-5)
    assert len(trained.history.curves["loss"]) == run.settings.steps


def test_network_and_mixtures_have_their_own_rates():
    run = start(steps=1, rate=0.01, mixture_rate=1e-4)
    data = experiments.load_data(run)
    trained = train(run, data, "ccu")
    net = experiments.digits_net(experiments.seed_of(run, "net"))
    moved = (trained.model[-1].bias - net[-1].bias).abs()
    assert moved.max().item() == pytest.approx(0.01, rel=1e-3)
    fresh = experiments.outliers(data.x, len(data.x), run.generator("mixtures"))
    seed = experiments.seed_of(run, "mixtures")
    before = chapter.CCU.fit(data.x, fresh, run.settings.components, 1e-2, 1.0, seed)
    for name, value in trained.ccu.named_parameters():
        change = (value - before.get_parameter(name)).abs()
        assert change.max().item() == pytest.approx(1e-4, rel=1e-3), name


def test_settings_reach_the_mixtures(monkeypatch):
    run = start(
        steps=1, components=(2, 3), floor=0.1, q=2.0, lowest=-1.0, moons_lowest=-2.0,
        moons_components=(4, 5),
    )  # fmt: skip
    data = experiments.load_data(run)
    ccu = train(run, data, "ccu").ccu
    assert [len(ccu.inside.means), len(ccu.outside.means)] == [2, 3]
    assert ccu.log_q.item() == pytest.approx(np.log(2))
    scales = ccu.metric.scales
    assert (scales[0] / scales[-1]).item() == pytest.approx(0.1**0.5)
    assert ccu.inside.lowest == ccu.outside.lowest == -1
    monkeypatch.setattr(experiments, "FITTED", 50)
    fewer = train(run, data, "ccu", "fewer").ccu
    assert torch.allclose(
        fewer.metric.centre, data.x[:50].flatten(1).double().mean(0), atol=1e-12
    )
    monkeypatch.setattr(experiments, "FITTED", 200)
    x, y = experiments.moons(run, 200)
    x = x * torch.tensor([1.0, 0.01])
    plane = train_moons(run, x, y, "ccu").ccu
    assert [len(plane.inside.means), len(plane.outside.means)] == [4, 5]
    assert plane.inside.lowest == plane.outside.lowest == -2
    covariance = torch.tensor(np.cov(x.T.double().numpy()))
    assert torch.allclose(plane.metric.covariance, covariance)  # no floor
    other = train_moons(run, x, y, "ccu", (1, 7), "other").ccu
    assert [len(other.inside.means), len(other.outside.means)] == [1, 7]


def test_an_unknown_method_is_refused():
    run = start()
    x, y = experiments.moons(run, 50)
    with pytest.raises(BadRequest, match="plain, oe or ccu"):
        train(run, experiments.load_data(run), "acet")
    with pytest.raises(BadRequest, match="plain, oe or ccu"):
        train_moons(run, x, y, "CCU")


def test_what_the_methods_learn_differs_as_the_paper_says(plane):
    _, x, y, models = plane
    far = 30 * F.normalize(torch.randn(200, 2, generator=rng()), dim=1)
    for name in METHODS:
        right = models[name].model(x).argmax(1) == y
        assert right.double().mean() > 0.9
    assert models["plain"].ccu is None and models["oe"].ccu is None
    assert experiments.mean_confidence(models["plain"], far) > 0.9
    assert experiments.mean_confidence(models["ccu"], far) == pytest.approx(
        0.5, abs=1e-6
    )
    assert experiments.mean_confidence(models["ccu"], x) > 0.7
    box = experiments.box(3.0, x, 500, rng())
    assert experiments.mean_confidence(models["oe"], box) < experiments.mean_confidence(
        models["plain"], box
    )
    assert set(models["ccu"].history.curves) == {"loss", "s", "th"}
    assert models["ccu"].history.curves["s"][-1] == pytest.approx(
        models["ccu"].ccu.order()[0], rel=0.01
    )
    assert not models["failing"].ccu.certified


def test_a_trained_network_no_longer_trains(monkeypatch):
    def net(seed):
        return nn.Sequential(
            nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 10), nn.Dropout(0.5)
        )

    monkeypatch.setitem(experiments.NETS, (1, 8, 8), net)
    run = start()
    data = experiments.load_data(run)
    trained = train(run, data, "plain")
    assert trained.model[0].num_batches_tracked == run.settings.steps
    first, again = (experiments.confidences(trained, data.x_test) for _ in range(2))
    assert torch.equal(first, again)


# What a trained model says


def test_log_p_is_the_softmax_or_bayes_rule(small):
    _, data, models = small
    x = data.x_test[:20]
    for name, trained in models.items():
        results = experiments.log_p(trained)(x)
        assert results.shape == (20, 10)
        assert results.dtype == torch.float64
        assert torch.allclose(results.exp().sum(1), torch.ones(20).double())
        wanted = trained.model(x).double().softmax(1)
        if name == "ccu":
            w = torch.sigmoid(trained.ccu.log_ratio(x))[:, None]
            wanted = w * wanted + (1 - w) / 10
        assert torch.allclose(results.exp(), wanted, atol=1e-12)
        double = experiments.log_p(trained)(x.double())
        assert torch.equal(results, double)


def test_confidence_is_the_highest_probability_whatever_the_chunks(small, monkeypatch):
    _, data, models = small
    for trained in models.values():
        whole = experiments.log_p(trained)(data.x_test).exp().max(1).values
        monkeypatch.setattr(experiments, "BATCH", 77)
        results = experiments.confidences(trained, data.x_test)
        assert not results.requires_grad
        assert torch.allclose(results, whole, atol=1e-6)
        mean = experiments.mean_confidence(trained, data.x_test)
        assert mean == pytest.approx(whole.mean().item(), abs=1e-6)


# Measurements


class Fixed(nn.Module):
    """A classifier that is right at a share of inputs whose first pixel is y / 10."""

    def __init__(self, wrong=0, scale=1.0):
        super().__init__()
        self.wrong, self.scale = wrong, scale

    def forward(self, x):
        at = (x.flatten(1)[:, 0, None] * 10).round()
        at = torch.where(at < self.wrong, at + 1, at)
        return -self.scale * (at - torch.arange(10)).square()


def labelled(n=40):
    """Data whose first pixel tells its label."""
    y = torch.arange(n) % 10
    x = torch.rand(n, 1, 8, 8, generator=rng())
    x[:, 0, 0, 0] = y / 10
    return experiments.Data(x, y, x, y)


def bare(model, ccu=None):
    return experiments.Trained(model, ccu, History({}, 0.0, 0))


def fixed(**wrong):
    return {name: bare(Fixed(wrong.get(name, 0))) for name in METHODS}


def test_error_is_in_points():
    results = experiments.measure_accuracy(
        start(), labelled(), fixed(plain=1, oe=2, ccu=4)
    )
    assert results == {
        "accuracy": pytest.approx({"value": 30, "plain": 10, "oe": 20, "ccu": 40})
    }


def test_classes_come_from_the_logits_where_all_probabilities_are_equal(small):
    run, data, models = small
    ccu = models["ccu"].ccu
    far = data._replace(x_test=data.x_test + 1e4)
    same = bare(Fixed(), ccu)
    assert experiments.confidences(same, far.x_test).max() == pytest.approx(
        0.1, abs=1e-15
    )
    only = {"plain": models["plain"], "oe": models["oe"]}
    right = far._replace(y_test=models["plain"].model(far.x_test).argmax(1))
    results = experiments.measure_accuracy(
        run, right, {**only, "ccu": bare(models["plain"].model, ccu)}
    )
    assert results["accuracy"]["ccu"] == 0


def test_pictures_of_28_pixels_are_photographs_letters_and_each_other(monkeypatch):
    arrays = fake_sets(monkeypatch)
    for name, other in (("mnist", "fashion_mnist"), ("fashion_mnist", "mnist")):
        rng = np.random.default_rng(1)
        results = experiments._pictures(torch.zeros(32, 1, 28, 28), name, rng)
        assert (
            results.shape == (32, 1, 28, 28)
            and 0 <= results.min() <= results.max() <= 1
        )
        letters, images = results[12:22], results[22:]
        for part, source in (
            (letters, arrays["notmnist"]["images"]),
            (images, arrays[other]["test_images"]),
        ):
            known = {picture.tobytes() for picture in source}
            bytes_ = (255 * part[:, 0]).round().to(torch.uint8).numpy()
            assert all(picture.tobytes() in known for picture in bytes_)


def test_foreign_sets_are_compared_set_by_set(monkeypatch):
    data = labelled()
    foreign = {"noise": data.x + 1, "rolled": data.x + 2}
    level = {"plain": 0.9, "oe": 0.5, "ccu": 0.2}
    chance = {"plain": 0.6, "oe": 0.7, "ccu": 0.95}

    def confidences(name, x):
        if x is data.x_test:
            return torch.linspace(0, 1, 1000).double()
        # So many of the test inputs score higher.
        below = 1 - chance[name] if x is foreign["rolled"] else level[name]
        return torch.full((50,), below, dtype=torch.float64)

    monkeypatch.setattr(experiments, "confidences", confidences)
    models = {name: name for name in METHODS}
    results = experiments.measure_foreign(start(), data, models, foreign)
    assert list(results) == [
        "mmc_noise", "mmc_rolled", "uniform_noise", "auroc_rolled",
    ]  # fmt: skip
    seen = {"permuted": foreign["noise"], "noise": foreign["noise"]}
    assert not any(
        id.startswith("auroc")
        for id in experiments.measure_foreign(start(), data, models, seen)
    )
    assert results["mmc_noise"] == pytest.approx({"value": -0.7, **level})
    assert results["uniform_noise"] == {"value": 0, "successes": 0, "trials": 50}
    monkeypatch.setattr(experiments, "UNIFORM", 0.25)
    again = experiments.measure_foreign(start(), data, models, foreign)
    assert again["uniform_noise"]["value"] == 1
    assert results["auroc_rolled"] == pytest.approx({"value": 0.25, **chance}, abs=2e-3)
    assert results["mmc_rolled"]["ccu"] == pytest.approx(0.05)


def test_balls_are_certified_at_tau(small, monkeypatch):
    run, data, models = small
    x, ccu = experiments.noise_images(run, data), models["ccu"].ccu
    assert x.shape == (run.settings.attacked, 1, 8, 8)
    assert stats.kstest(x.flatten().numpy(), "uniform").pvalue > 1e-4
    balls = experiments.certified_balls(ccu, x, 0.2, 10)
    assert len(balls.x) + balls.without == len(x)
    for radius, tight in ((balls.radius, False), (balls.tight, True)):
        assert ccu.bound(balls.x, radius, 10, tight).max() <= 0.2 + 1e-12
        more = ccu.bound(balls.x, 1.01 * radius + 1e-3, 10, tight)
        assert more.min() > 0.2
    assert (balls.tight >= balls.radius).all()
    # What has no radius is left out and counted.
    both = torch.cat([x, data.x[:3]])
    assert experiments.certified_balls(ccu, both, 0.2, 10).without == balls.without + 3
    with pytest.raises(RunFailed, match="none of 3 inputs"):
        experiments.certified_balls(ccu, data.x[:3], 0.2, 10)


def test_the_nearest_foreign_images_are_just_below_the_limit(small):
    _, data, models = small
    foreign = experiments.foreign_sets(data, np.random.default_rng(0), 200)
    ccu, limit = models["ccu"].ccu, chapter.log_odds(0.2, 10)
    near = experiments.nearest(ccu, foreign, 7, limit)
    found = ccu.log_ratio(near).detach()
    every = ccu.log_ratio(torch.cat(list(foreign.values()))).detach()
    assert len(near) == 7 and found.max() < limit
    wanted = every[every < limit].sort()[0][-7:]
    # A batch of another size may sum in another order.
    torch.testing.assert_close(found.sort()[0], wanted, rtol=1e-10, atol=1e-10)


def watched_attacks(monkeypatch):
    """The score, centres, radii, mixtures climbed, box and guide of each attack."""
    calls, real = [], experiments.attack

    def attack(score, metric, x, R, steps, generator, ccu, **options):
        calls.append((score, x, R, ccu, options["pixels"], options["guide"]))
        assert torch.equal(metric.axes, options["guide"].metric.axes)
        return real(score, metric, x, R, steps, generator, ccu, **options)

    monkeypatch.setattr(experiments, "attack", attack)
    return calls


def test_every_model_is_attacked_in_the_same_balls(small, monkeypatch):
    run, data, models = small
    run.settings = run.settings._replace(attacked=5, tau=0.2)
    calls = watched_attacks(monkeypatch)
    results = experiments.measure_adversarial(run, data, models)
    ccu = models["ccu"].ccu
    x = experiments.noise_images(run, data)
    balls = experiments.certified_balls(ccu, x, 0.2, 10)
    radii = [balls.radius] * 3 + [balls.tight]
    for k, (_, centre, R, density, pixels, guide) in enumerate(calls):
        assert torch.equal(centre, balls.x) and torch.equal(R, radii[k % 4])
        assert pixels == (k >= 4) and guide is ccu
        assert (density is ccu) == (k % 4 > 1)
    assert len(calls) == 8
    assert list(results) == [
        "sure_plain", "sure_oe", "sure_plain_box", "sure_oe_box", "tight",
    ]  # fmt: skip
    for end in ("", "_box"):
        for kind in ("plain", "oe"):
            row = results[f"sure_{kind}{end}"]
            assert row["trials"] == len(balls.x) and row[kind] > row["ccu"]
            assert row["value"] == row["successes"] / row["trials"]
            assert (row["value"] >= 0.5) == (row[kind] > 0.9)
            assert row["ccu"] <= 0.2 + 1e-9 and row["ccu_tight"] <= 0.2 + 1e-9
            first = experiments.confidences(models[kind], balls.x) > 0.9
            assert row["before"] == pytest.approx(first.double().mean().item())
            assert row["before"] <= row["value"]
    assert results["tight"]["value"] == pytest.approx(
        (balls.tight / balls.radius).median().item()
    )


def test_the_papers_rate_counts_attacks_above_the_median(small, monkeypatch):
    run, data, models = small
    run.settings = run.settings._replace(attacked=8)
    foreign = experiments.foreign_sets(data, np.random.default_rng(0), 50)
    calls = watched_attacks(monkeypatch)
    sure = {"plain": 0.9, "oe": 0.5, "ccu": 0.09}
    middle = {id(each.model): sure[k] for k, each in models.items()}
    monkeypatch.setattr(
        experiments,
        "confidences",
        lambda each, x: torch.full((5,), middle[id(each.model)]).double(),
    )
    results = experiments.measure_paper(run, data, models, foreign)
    assert all(call[4] for call in calls) and len(calls) == 3
    scale = calls[2][3].metric.scales
    assert (scale[0] / scale[-1]).item() == pytest.approx(1e-3)  # floor 1e-6
    bound = calls[2][3].bound(calls[2][1], calls[2][2], 10)
    assert bound.max() == pytest.approx(0.11)
    assert all(call[5] is calls[2][3] for call in calls)
    assert calls[0][3] is None and calls[1][3] is None
    row = results["paper_oe"]
    assert row["value"] == row["oe"] == row["successes"] / row["trials"]
    assert row["trials"] == len(calls[0][1]) and row["ccu"] == 1  # 0.1 is above 0.09
    assert 0 < row["least_reach"] < row["most_reach"]
    assert results["paper_plain"]["value"] == row["plain"]


def test_letters_are_counted_and_training_is_compared(small):
    run, data, models = small
    foreign = experiments.foreign_sets(data, np.random.default_rng(0), 60)
    results = experiments.measure_letters(run, data, models, foreign)
    framed = experiments.images.letters(
        foreign["letters"], run.rng("whole"), low=0, high=1, whole=True
    )
    for id, x in (("", foreign["letters"]), ("_whole", framed)):
        R = models["ccu"].ccu.radius(x, run.settings.tau, 10)
        share = results[f"certifiable{id}"]
        assert share["successes"] == (~R.isnan()).sum() and share["trials"] == 60
        assert share["value"] == share["successes"] / 60
    row = results["guarded"]
    assert row["value"] == pytest.approx(row["ccu"] - row["em"])
    start_ = experiments.mixtures(run, experiments.images_task(run, data))
    alone = models["plain"]._replace(ccu=start_)
    wanted = experiments.metrics.auroc(
        experiments.confidences(alone, data.x_test),
        experiments.confidences(alone, foreign["letters"]),
    )
    assert row["em"] == pytest.approx(wanted)


def test_a_bound_that_is_too_low_is_found_out(small, plane, monkeypatch):
    run, data, models = small
    run.settings = run.settings._replace(attacked=5)
    foreign = experiments.foreign_sets(data, np.random.default_rng(0), 60)
    x, moons = plane[1], plane[3]["ccu"]
    plane[0].settings = plane[0].settings._replace(moons_balls=60)
    real = chapter.CCU.log_bound
    for lower, verdict in ((0.0, False), (200.0, True)):
        monkeypatch.setattr(
            chapter.CCU,
            "log_bound",
            lambda *args, lower=lower, **more: real(*args, **more) - lower,
        )
        found = experiments.measure_images(run, data, models, foreign)
        found |= {"plane": experiments.measure_plane(plane[0], moons, x)["ball_10"]}
        for id in ("ball_10", "ball_12", "plane"):
            assert (found[id]["value"] > 1e-6) == verdict, id
        if not verdict:
            assert found["ball_12"]["near"] < found["ball_10"]["near"]
            assert found["slack_10_noise"]["value"] > 1
            for id in ("10", "12"):
                for place in ("noise", "near"):
                    room = max(found[f"ball_{id}"][place], 1e-9)
                    assert found[f"slack_{id}_{place}"]["value"] == room
            assert 5 < found["ball_10"]["balls"] <= 10


def test_random_balls_fill_the_plane(plane, monkeypatch):
    run, x, _, models = plane
    run.settings = run.settings._replace(moons_balls=300, attack_steps=10)
    calls = watched_attacks(monkeypatch)
    results = experiments.measure_plane(run, models["ccu"], x)
    for _, centre, radius, density, pixels, guide in calls:
        assert density is None and guide is models["ccu"].ccu and not pixels
        for column in centre.T:
            assert stats.kstest(column.numpy(), stats.uniform(-4, 8).cdf).pvalue > 1e-4
        spread = stats.uniform(-2, 2.7)
        assert stats.kstest(radius.log10().numpy(), spread.cdf).pvalue > 1e-4
    assert len(calls) == 2 and set(results) == {"ball_10", "ball_12"}
    for numbers in results.values():
        assert numbers["value"] < 1e-6 and numbers["balls"] == 300
    assert 0 <= results["ball_12"]["plane"] < results["ball_10"]["plane"]
    some = calls[0][0](calls[0][1][:4])  # what is attacked is log b
    assert torch.equal(some[:, 0], models["ccu"].ccu.log_ratio(calls[0][1][:4]))


def test_confidence_is_gone_before_the_root(small, plane):
    for (run, *_), trained, x, classes in (
        (small, small[2]["ccu"], small[1].x, 10),
        (plane, plane[3]["ccu"], plane[1], 2),
    ):
        run.settings = run.settings._replace(distances=60)
        results = experiments.measure_far(run, trained, x)
        row = results["far_root"]
        assert row["root"] == chapter.far_radius(trained.ccu, run.settings.eps, classes)
        assert row["seen"] <= row["worst"] < row["root"]
        assert results["far_root"]["value"] == row["worst"] / row["root"] < 1
        assert results["far_falls"]["value"] == row["seen"] / row["data"]
        z = trained.ccu.metric.whiten(x)
        assert row["data"] == pytest.approx(z.norm(dim=1).max().item())
        # Something is left there, and nothing a step beyond.
        means = trained.ccu.inside.means.detach()
        drawn = torch.empty(run.settings.rays, means.shape[1], dtype=torch.float64)
        drawn.normal_(generator=run.generator("rays", "cpu"))
        rays = F.normalize(torch.cat([drawn, means]), dim=1)
        step = 1.2 * row["root"] / 59
        for r, left in ((row["worst"], True), (row["worst"] + step, False)):
            at = trained.ccu.metric.unwhiten(r * rays, x)
            w = torch.sigmoid(trained.ccu.log_ratio(at)).max().item()
            assert ((1 - 1 / classes) * w > run.settings.eps) == left


def test_a_root_that_is_too_small_is_found_out(plane, monkeypatch):
    run, x, _, models = plane
    run.settings = run.settings._replace(distances=60)
    monkeypatch.setattr(chapter, "far_radius", lambda ccu, eps, classes: 1.5)
    results = experiments.measure_far(run, models["ccu"], x)
    assert results["far_root"]["value"] > 1


def test_models_without_what_is_asked_are_refused(plane):
    run, x, _, models = plane
    with pytest.raises(BadRequest, match="no mixtures"):
        experiments.measure_far(run, models["plain"], x)
    with pytest.raises(BadRequest, match="no mixtures"):
        experiments.measure_plane(run, models["oe"], x)
    with pytest.raises(BadRequest, match="not certified"):
        experiments.measure_far(run, models["failing"], x)


def test_the_worst_is_picked_by_the_side_of_the_rule():
    claims = CHAPTER.claims
    first = {
        "auroc_letters": {"value": 0.1, "oe": 1.0},
        "accuracy": {"value": -2.0, "ccu": 3.0},
        "ball_10": {"value": -0.5, "balls": 10.0, "gap": 0.6, "plane": 1.0},
    }
    second = {
        "accuracy": {"value": 0.5, "ccu": 4.0},
        "auroc_letters": {"value": -0.3, "oe": 0.9},
        "ball_10": {"value": -0.7, "balls": 30.0, "gap": 0.8, "near": 2.0},
    }
    for order in ((first, second), (second, first)):
        assert experiments.worst(claims, *order, {"tight": {"value": 1.5}}) == {
            "accuracy": {"value": 0.5, "ccu": 4.0},
            "auroc_letters": {"value": -0.3, "oe": 0.9},
            "ball_10": {
                "value": -0.5,
                "balls": 40.0,
                "gap": 0.6,
                "plane": 1.0,
                "near": 2.0,
            },
            "tight": {"value": 1.5},
        }
    assert list(experiments.worst(claims, first)) == [
        "accuracy",
        "auroc_letters",
        "ball_10",
    ]
    assert first["ball_10"]["balls"] == 10


# The page's figure


def decoded(layer, name):
    shape = layer["shape"] if name == "weight" else [-1]
    return np.frombuffer(base64.b64decode(layer[name]), "<f4").reshape(shape)


def of_payload(payload, output, points):
    """log p(y|x) of one model of the payload, in NumPy, from its numbers alone."""
    hidden = points
    for layer in output["net"]["layers"]:
        if layer["type"] == "linear":
            hidden = hidden @ decoded(layer, "weight").T + decoded(layer, "bias")
        else:
            hidden = np.maximum(hidden, 0)
    logits = hidden - logsumexp(hidden, axis=1, keepdims=True)
    if "inside" not in output:
        return logits
    z = (points - payload["centre"]) @ np.array(payload["whiten"]).T
    heights = []
    for side in ("inside", "outside"):
        mixture = {key: np.array(value) for key, value in output[side].items()}
        square = ((z[:, None] - mixture["means"]) ** 2).sum(2)
        parts = mixture["log_weights"] - 2 * np.log(mixture["sigma"])
        parts = parts - square / (2 * mixture["sigma"] ** 2)
        heights.append(logsumexp(parts, axis=1))
    log_b = output["log_q"] + heights[0] - heights[1]
    w = 1 / (1 + np.exp(-log_b))[:, None]
    return np.log(w * np.exp(logits) + (1 - w) / 2)


def test_the_payload_says_what_the_models_say(plane):
    _, x, y, models = plane
    payload = experiments.playground(x, y, models)
    assert set(payload) == {"mode", "points", "half", "centre", "whiten", "models"}
    assert payload["mode"] == "moons"
    assert [output["id"] for output in payload["models"]] == [*METHODS, "failing"]
    assert len(payload["points"]) == 200
    shown = torch.tensor(payload["points"])
    assert torch.allclose(shown[:, :2], x[:200]) and torch.equal(shown[:, 2], y[:200])
    points = experiments.box(4.0, x, 300, rng())
    again = json.loads(json.dumps(payload, allow_nan=False))
    for output in again["models"]:
        trained = models[output["id"]]
        results = of_payload(again, output, points.double().numpy())
        wanted = experiments.log_p(trained)(points).detach().numpy()
        assert np.abs(results - wanted).max() < 1e-4
        assert output["name"]
        if trained.ccu:
            assert tuple(output["order"]) == trained.ccu.order()


# All together


def everything(run):
    """All that the notebook measures, in its order, claim by claim."""
    results = []
    for name in run.settings.data:
        data = experiments.load_data(run, name)
        models = {m: train(run, data, m, f"{name}-{m}") for m in METHODS}
        rng = run.rng(f"foreign {name}")
        foreign = experiments.foreign_sets(data, rng, run.settings.scored)
        results += [
            experiments.measure_accuracy(run, data, models),
            experiments.measure_foreign(run, data, models, foreign),
            experiments.measure_letters(run, data, models, foreign),
            experiments.measure_images(run, data, models, foreign),
            experiments.measure_adversarial(run, data, models),
            experiments.measure_paper(run, data, models, foreign),
            experiments.measure_far(run, models["ccu"], data.x),
        ]
    x, y = experiments.moons(run, 200)
    plane = train_moons(run, x, y, "ccu")
    results += [
        experiments.measure_plane(run, plane, x),
        experiments.measure_far(run, plane, x),
    ]
    return experiments.worst(CHAPTER.claims, *results)


def declared_and_finite(run, results):
    for id, numbers in results.items():
        run.claim(id, **numbers)
    assert list(results) == [claim.id for claim in CHAPTER.claims]
    return results


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_smoke_measures_every_claim_in_order_and_again_alike(tmp_path, seed):
    runs = [start(seed=seed) for _ in range(2 if seed == 0 else 1)]
    runs[-1].folder = tmp_path / "other"
    first, *again = (declared_and_finite(run, everything(run)) for run in runs)
    assert all(other == first for other in again)
    assert 40 < first["ball_10"]["balls"] <= 40 + 2 * 6
    for id, most in (("ball_10", 1e-6), ("ball_12", 1e-6), ("far_root", 1)):
        assert first[id]["value"] < most


def test_every_line_of_full_runs_with_its_sizes_cut_down(monkeypatch):
    fake_sets(monkeypatch, side=16)
    nets = experiments.NETS
    monkeypatch.setitem(nets, (3, 16, 16), nets[3, 32, 32])
    run = start(
        "full", test=12, steps=2, batch=4, components=(3, 4), scored=12, attacked=2,
        attack_steps=2, rays=5, distances=9, moons_components=(3, 5), moons_balls=4,
    )  # fmt: skip
    assert run.settings.data == ("mnist", "fashion_mnist", "cifar10")
    results = declared_and_finite(run, everything(run))
    assert results["ball_10"]["balls"] <= 4 + 3 * 4
