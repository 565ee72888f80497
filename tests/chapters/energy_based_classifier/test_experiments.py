"""The experiments of the chapter on JEM, against independent routes."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import runs
import torch
from rng import rng
from scipy import integrate
from torch import nn
from torch.nn import functional as F

import iclrtut.data
from iclrtut.chapters.energy_based_classifier import (
    CHAPTER,
    FOREIGN,
    Settings,
    Split,
    experiments,
    method,
)

SLUG = "energy_based_classifier"
folder, start = runs.folder, runs.of(SLUG)


class Fixed(nn.Module):
    """A classifier that knows the label of each input by its first pixel."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, x):
        at = x.flatten(1)[:, 0, None]
        return -self.scale * (at - torch.arange(10) / 10).square() * 1000


def labelled(n=40):
    """Data whose first pixel is its label."""
    y = torch.arange(n) % 10
    x = 0.01 * torch.randn(n, 1, 8, 8, generator=rng())
    x[:, 0, 0, 0] = y / 10
    return experiments.Data(*[experiments.Labelled(x, y)] * 4)


# Data


def test_digits_are_split_without_overlap_and_anew_by_seed():
    first, same, other = (
        experiments.load_data(start("quick", seed)) for seed in (0, 0, 1)
    )
    assert [len(part.x) for part in first] == [500, 400, 200, 697]
    x = torch.cat([part.x for part in first])
    assert len(x.flatten(1).unique(dim=0)) >= 1796  # of 1797, all of them differ
    assert torch.equal(first.train.x, same.train.x)
    assert not torch.equal(first.train.x, other.train.x)
    assert x.min() == -1 and x.max() == 1
    assert x.shape[1:] == (1, 8, 8) and x.dtype == torch.float32


def test_digits_keep_their_labels():
    from sklearn.datasets import load_digits

    data, known = experiments.load_data(start()), load_digits()
    table = {row.tobytes(): y for row, y in zip(known.data, known.target, strict=True)}
    for part in data:
        rows = ((part.x.flatten(1) + 1) * 8).double().numpy()
        assert part.y.dtype == torch.int64
        assert [table[row.tobytes()] for row in rows] == part.y.tolist()


def fake_cifar(monkeypatch):
    """160 pictures of three classes; white corners mark the test part."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (160, 32, 32, 3), dtype=np.uint8)
    images[100:, 0, 0] = 255
    labels = np.arange(160, dtype=np.uint8) % 3
    arrays = {
        "train_images": images[:100],
        "train_labels": labels[:100],
        "test_images": images[100:],
        "test_labels": labels[100:],
    }
    monkeypatch.setattr(experiments, "load", lambda name: arrays)
    return arrays


def test_cifar_keeps_its_test_part(monkeypatch):
    arrays = fake_cifar(monkeypatch)
    data = experiments.load_data(start("full", split=Split(50, 20, 10, 40)))
    assert [len(part.x) for part in data] == [50, 20, 10, 40]
    known = np.concatenate([arrays["train_images"], arrays["test_images"]])
    rows = []
    for part in data:
        pixels = ((part.x + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
        places = [int((known == z).all((1, 2, 3)).nonzero()[0][0]) for z in pixels]
        assert [i % 3 for i in places] == part.y.tolist()
        assert all((i >= 100) == (part is data.test) for i in places)
        rows += places
    assert len(set(rows)) == 120


def test_foreign_sets_have_the_names_and_the_form_of_the_claims():
    test = experiments.load_data(start("quick")).test
    foreign = experiments.foreign_sets(test, np.random.default_rng(0), 300)
    assert set(foreign) == set(FOREIGN)
    x = test.x[:300]
    for z in foreign.values():
        assert z.shape == x.shape and z.dtype == x.dtype
        assert z.min() >= -1 and z.max() <= 1 and not torch.equal(z, x)
    assert torch.equal(foreign["inverted"], -x)
    assert foreign["grey"].flatten(1).std(1).max() < 1e-6
    # One shuffle for all inputs: each pixel is some pixel of the original.
    for pixel in foreign["permuted"].flatten(1).T[::10]:
        assert (pixel[:, None] == x.flatten(1)).all(0).any()


def test_eight_gaussians_have_their_density():
    def density(b, a):
        return float(experiments.eight_log_density(torch.tensor([a, b]).double()).exp())

    whole, _ = integrate.dblquad(density, -2, 2, -2, 2, epsabs=1e-4)
    assert whole == pytest.approx(1, abs=1e-3)
    x, y = experiments.eight_gaussians(100_000, rng())
    cells = experiments.grid(201).double()
    p = experiments.eight_log_density(cells).softmax(0)
    entropy = -(p * (p.log() - math.log((4 / 201) ** 2))).sum().item()
    heights = experiments.eight_log_density(x.double())
    error = heights.std().item() / math.sqrt(len(x))
    assert -heights.mean().item() == pytest.approx(entropy, abs=5 * error)
    nearest = torch.cdist(x, experiments.CENTRES).argmin(1)
    assert ((nearest % 2) == y).double().mean() > 0.98
    assert nearest.bincount().min() > 11_500


class Truth(nn.Module):
    """The eight Gaussians, or a flatter density, as two logits, lifted."""

    def __init__(self, temperature=1.0):
        super().__init__()
        self.temperature = temperature

    def forward(self, x):
        height = self.temperature * experiments.eight_log_density(x)
        half = height - math.log(2)
        return torch.stack([half, half], 1) + 7


def test_the_divergence_of_the_truth_from_itself_is_nothing():
    assert abs(experiments.kl_on_grid(Truth())) < 1e-5
    assert experiments.kl_on_grid(Truth(0.3)) > 0.1


def test_the_divergence_from_uniform_is_known():
    uniform = nn.Sequential(nn.Linear(2, 2))
    nn.init.zeros_(uniform[0].weight)
    p = experiments.eight_log_density(experiments.grid().double()).softmax(0)
    exact = float((p * p.log()).sum()) + math.log(101**2)
    assert experiments.kl_on_grid(uniform) == pytest.approx(exact, abs=1e-6)
    assert exact == pytest.approx(1.68, abs=0.01)
    cells = experiments.grid(4)
    assert cells[0].tolist() == [-1.5, -1.5]
    assert cells[1].tolist() == [-1.5, -0.5]
    assert cells[-1].tolist() == [1.5, 1.5]


# Training


def test_both_trainings_start_from_the_same_weights_and_repeat():
    run = start()
    assert torch.equal(experiments.net(run)[0].weight, experiments.net(run)[0].weight)
    evaluator = experiments.net(run, "judge")
    assert not torch.equal(experiments.net(run)[0].weight, evaluator[0].weight)
    data = experiments.load_data(run)
    first = experiments.train_jem(run, data)
    run.folder = run.folder / "elsewhere"
    again = experiments.train_jem(run, data)
    for left, right in zip(
        first.model.parameters(), again.model.parameters(), strict=True
    ):
        assert torch.equal(left, right)
    assert torch.equal(first.buffer.slots, again.buffer.slots)
    assert first.buffer.slots.shape == (64, 1, 8, 8)
    watched = {"loss", "gap", "lse_data", "lse_samples", "largest"}
    assert set(first.history.curves) == watched


def test_a_batch_is_data_with_the_noise_of_the_recipe():
    data = labelled()
    s = Settings(batch=4000, data_noise=0.03)
    x, y = experiments._batch(s, data.train, rng())
    assert (Fixed()(x).argmax(1) == y).double().mean() > 0.85
    distance = torch.cdist(x.flatten(1), data.train.x.flatten(1)).amin(1)
    noise = distance.square().mean() / 64
    assert noise.sqrt().item() == pytest.approx(0.03, rel=0.05)
    x, y = experiments._batch(s._replace(data_noise=0.0), data.train, rng())
    assert (Fixed()(x).argmax(1) == y).all()


def test_jem_learns_digits():
    run = start("quick", steps=80, warmup=20, batch=32)
    data = experiments.load_data(run)
    plain = experiments.train_softmax(run, data).model
    joint = experiments.train_jem(run, data).model
    measured = experiments.measure_accuracy(data, plain, joint)["accuracy"]
    assert min(measured["softmax"], measured["jem"]) > 85
    assert measured["value"] == pytest.approx(measured["softmax"] - measured["jem"])
    noise = torch.rand(200, 1, 8, 8, generator=rng()) * 2 - 1
    test_scores, noise_scores = (
        experiments.ood_scores(plain, joint, x) for x in (data.test.x, noise)
    )
    assert test_scores["density"].mean() > noise_scores["density"].mean()


def test_the_plane_is_learnt_a_little():
    run = start("quick", plane_steps=200, warmup=20, learning_rate=1e-2)
    trained = experiments.train_plane(run)
    assert (
        experiments.kl_on_grid(trained.model)
        < 1.2
        < experiments.kl_on_grid(method.plane_net(0))
    )
    assert trained.buffer.slots.abs().max() <= 2


def test_divergence_says_what_left_its_limit():
    run = start("quick", divergence_steps=11)
    data = experiments.load_data(run)
    wild, calm = (
        experiments.divergence(run, data, sampler_steps=2, alpha=alpha, sigma=0.01)
        for alpha in (1e4, 1.0)
    )
    assert wild["largest"][-1] > 20 or abs(wild["gap"][-1]) > 50
    assert wild["step"][-1] < 10
    assert len({len(column) for column in wild.values()}) == 1
    assert calm["step"] == [0, 10]
    assert not list(run.folder.glob("*divergence*"))


# Measurements


def test_accuracy_calibration_and_likelihood_by_hand():
    data, sure, unsure = labelled(), Fixed(), Fixed(0.01)
    accuracy = experiments.measure_accuracy(data, sure, unsure)["accuracy"]
    assert accuracy == {"value": 0.0, "softmax": 100.0, "jem": 100.0}
    numbers = experiments.measure_calibration(data, sure, unsure)["calibrated"]
    p = unsure(data.test.x).detach().softmax(1).max(1).values
    assert numbers["jem_overconfidence"] == pytest.approx(float(p.mean()) - 1)
    assert numbers["jem"] == pytest.approx(1 - float(p.mean()), abs=1e-5)
    assert numbers["value"] == pytest.approx(numbers["softmax"] - numbers["jem"])
    measured = experiments.measure_nll(data, sure, unsure)
    raw = F.cross_entropy(unsure(data.test.x), data.test.y).item()
    assert measured["nll_raw"]["jem"] == pytest.approx(raw, rel=1e-5)
    assert measured["nll_raw"]["value"] < 0
    tempered = measured["nll_tempered"]
    # The two differ by a temperature only.
    assert tempered["value"] == pytest.approx(0, abs=1e-3)
    assert tempered["jem"] < raw


def test_a_reliability_diagram_sorts_inputs_by_confidence():
    p = torch.tensor([[1 - k / 100, k / 100] for k in range(40)])
    y = (torch.arange(40) >= 20).long()  # the unsure half is wrong
    confidence, accuracy = experiments.reliability(p, y)
    assert confidence == pytest.approx([0.625 + 0.04 * k for k in range(10)])
    assert accuracy == [0] * 5 + [1] * 5


def test_scores_are_those_of_12():
    plain, joint = method.digits_net(0), method.digits_net(1)
    x = torch.rand(5, 1, 8, 8, generator=rng())
    scores = experiments.ood_scores(plain, joint, x)
    assert torch.allclose(scores["density"], joint(x).exp().sum(1).log(), atol=1e-5)
    assert torch.allclose(scores["softmax"], plain(x).softmax(1).amax(1), atol=1e-6)
    assert torch.allclose(scores["plain_lse"], plain(x).exp().sum(1).log(), atol=1e-5)
    assert torch.allclose(scores["mass"], method.mass_score(joint, x))
    assert torch.allclose(scores["plain_mass"], method.mass_score(plain, x))


def test_ood_compares_areas_set_by_set(monkeypatch):
    """Scores are made up so that their AUROC is known."""
    data = labelled()
    areas = {
        "density": 0.9,
        "mass": 0.7,
        "softmax": 0.6,
        "plain_lse": 0.5,
        "plain_mass": 0.2,
    }

    def scores(plain, joint, x):
        inside = x is data.test.x
        generator = rng(int(inside))
        values = {}
        for name, area in areas.items():
            u = torch.rand(4000, generator=generator)
            values[name] = u if inside else (u < 1 - area).float() * 2 - 0.5
        return values

    monkeypatch.setattr(experiments, "ood_scores", scores)
    foreign = {"noise": data.test.x + 1, "grey": data.test.x + 2}
    measured = experiments.measure_ood(data, None, None, foreign)
    ids = [f"ood_{score}_{name}" for score in ("density", "mass") for name in foreign]
    assert list(measured) == ids
    for score in ("density", "mass"):
        numbers = measured[f"ood_{score}_grey"]
        assert numbers["jem"] == pytest.approx(areas[score], abs=0.03)
        for name in ("softmax", "plain_lse", "plain_mass"):
            assert numbers[name] == pytest.approx(areas[name], abs=0.03)
        assert numbers["value"] == numbers["jem"] - numbers["softmax"]


def test_robustness_compares_where_softmax_is_broken():
    run, data = start(refine_attacked=8), labelled()
    joint = method.digits_net(0)
    curves = {
        "softmax": {0.0: 0.1, 0.1: 0.5, 0.2: 0.15, 0.3: 0.0},
        "jem": {0.0: 0.9, 0.1: 0.8, 0.2: 0.6, 0.3: 0.4},
    }
    robust = experiments.measure_robustness(run, data, joint, curves)["robust"]
    assert robust == pytest.approx(
        {"value": 0.45, "radius": 0.2, "softmax": 0.15, "jem": 0.6}
    )
    curves["softmax"] = {0.0: 0.9, 0.1: 0.9, 0.4: 0.8}
    curves["jem"] = {0.0: 0.9, 0.1: 0.9, 0.4: 0.9}
    robust = experiments.measure_robustness(run, data, joint, curves)["robust"]
    assert robust["radius"] == 0.4


def test_attack_curves_fall_and_start_at_the_accuracy():
    run, data = start(attacked=40, attack_steps=5), labelled()
    curves = experiments.attack_curves(run, data, Fixed(), Fixed(0.1))
    assert list(curves) == ["softmax", "jem"]
    assert list(curves["jem"]) == [0.0, *run.settings.radii]
    values = list(curves["softmax"].values())
    assert values[0] == 1.0
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.2  # 0.05 in the first pixel moves the class


def test_gaussians_of_each_class_have_its_moments():
    n = 4000
    y = torch.arange(n) % 2
    x = torch.randn(n, 1, 2, 2, generator=rng()) * torch.tensor([1.0, 2.0]) + 3
    x[y == 1] *= -1
    samples = experiments.class_gaussians(x, y, 20_000, np.random.default_rng(0))
    flat = samples.flatten(1)
    second = flat.mean(1) < 0
    assert second.double().mean() == pytest.approx(0.5, abs=0.04)
    upright = torch.where(second[:, None], -flat, flat).numpy()
    assert upright.mean(0) == pytest.approx([3, 3, 3, 3], abs=0.15)
    assert np.diag(np.cov(upright.T)) == pytest.approx([1, 4, 1, 4], rel=0.15)


def test_generation_is_measured_by_distances_and_by_the_evaluator():
    run = start()
    data = experiments.load_data(run)
    evaluator = experiments.train_evaluator(run, data)
    x, training = data.test.x, data.train.x
    samples = {
        "test": x,
        "training": training[:100],
        "buffer": x + 0.01,
        "chains": x + 0.25,
        "gaussian": x + 0.5,
        "noise": torch.rand(x.shape, generator=rng()) * 2 - 1,
        "conditional": x[:20],
        "wanted": evaluator(x[:20]).argmax(1),
    }
    measured = experiments.measure_generation(data, evaluator, samples)
    numbers = measured["generates_buffer"]
    assert 0 < numbers["buffer"] < numbers["chains"] < numbers["gaussian"]
    assert numbers["nearest_buffer"] == pytest.approx(numbers["nearest_test"], rel=0.1)
    by_hand = np.linalg.norm(
        x.flatten(1).numpy()[:, None] - training.flatten(1).numpy()[None], axis=2
    )
    assert numbers["nearest_test"] == pytest.approx(by_hand.min(1).mean(), rel=1e-4)
    ratio = measured["generates_noise"]
    assert ratio["value"] == pytest.approx(
        math.log(ratio["chains"] / ratio["gaussian"])
    )
    assert measured["recognised"] == {"value": 1, "successes": 20, "trials": 20}


def test_samples_are_drawn_as_many_of_each():
    run = start()
    data = experiments.load_data(run)
    joint = experiments.train_jem(run, data)
    samples = experiments.draw_samples(run, data, joint.model, joint.buffer)
    for name in ("test", "training", "buffer", "chains", "gaussian", "noise"):
        assert samples[name].shape == (run.settings.samples, 1, 8, 8)
        assert samples[name].abs().max() <= 1
    assert len(samples["conditional"]) == len(samples["wanted"])
    assert samples["wanted"].bincount(minlength=10).unique().tolist() == [2]
    noiseless = method.langevin(joint.model, samples["noise"], 3, 1.0, 0.0, rng())
    assert (noiseless.clamp(-1, 1) - samples["chains"]).abs().max() < 0.2


def test_overhead_is_a_ratio_of_seconds():
    run = start()
    data = experiments.load_data(run)
    measured = experiments.measure_overhead(run, data)["overhead"]
    assert measured["value"] == pytest.approx(measured["jem"] / measured["softmax"])
    assert measured["value"] > 1


def measure_all(run):
    """All that the notebook measures, in its order."""
    data = experiments.load_data(run)
    trained = experiments.train_jem(run, data)
    plain, joint = experiments.train_softmax(run, data).model, trained.model
    evaluator = experiments.train_evaluator(run, data)
    samples = experiments.draw_samples(run, data, joint, trained.buffer)
    rng, n = run.rng("foreign"), run.settings.foreign
    foreign = experiments.foreign_sets(data.test, rng, n)
    curves = experiments.attack_curves(run, data, plain, joint)
    experiments.train_plane(run)
    experiments.divergence(run, data, sampler_steps=1, alpha=1.0, sigma=0.01)
    measured = {
        **experiments.measure_accuracy(data, plain, joint),
        **experiments.measure_generation(data, evaluator, samples),
        **experiments.measure_calibration(data, plain, joint),
        **experiments.measure_nll(data, plain, joint),
        **experiments.measure_ood(data, plain, joint, foreign),
        **experiments.measure_robustness(run, data, joint, curves),
        **experiments.measure_overhead(run, data),
    }
    run.claim_all(measured)
    assert list(measured) == [claim.id for claim in CHAPTER.claims]
    return measured


def test_smoke_measures_every_claim_in_order_and_again_alike(tmp_path):
    runs = [start() for _ in range(2)]
    runs[1].folder = tmp_path / "other"
    first, again = (measure_all(run) for run in runs)
    del first["overhead"], again["overhead"]
    assert first == again


def test_every_line_of_full_runs_with_its_sizes_cut_down(monkeypatch):
    arrays = fake_cifar(monkeypatch)
    clothes = {"images": arrays["train_images"][:30] // 2}
    monkeypatch.setattr(iclrtut.data, "load", lambda name: clothes)
    kind = SimpleNamespace(is_file=lambda: True)  # of the pictures: JPEG or not
    monkeypatch.setattr(iclrtut.data, "fetch", lambda name: kind)
    run = start(
        "full", split=Split(60, 20, 20, 40), depth=10, width=1, steps=2,
        evaluator_steps=2, batch=4, warmup=1, sampler_steps=2, buffer=8, foreign=20,
        attacked=4, attack_steps=2, refine_attacked=2, refine_steps=2, refine_chains=2,
        samples=20, sample_steps=2, conditional=10, timed_steps=1, plane_steps=2,
        plane_sampler_steps=2, divergence_steps=2,
    )  # fmt: skip
    assert run.settings.bf16
    measure_all(run)
