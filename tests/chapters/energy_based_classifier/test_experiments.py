"""The experiments of the chapter on JEM, against independent routes."""

import io
import math
from types import SimpleNamespace

import numpy as np
import pytest
import started
import torch
from drawn import rng
from PIL import Image
from scipy import integrate
from torch import nn
from torch.nn import functional as F

from iclrtut.chapters.energy_based_classifier import CHAPTER, FOREIGN, Settings
from iclrtut.chapters.energy_based_classifier import experiments as lab
from iclrtut.chapters.energy_based_classifier import method as jem

SLUG = "energy_based_classifier"
folder, start = started.folder, started.of(SLUG)


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
    return lab.Data(x, y, x, y, x, y, x, y)


# Data


def test_digits_are_split_without_overlap_and_anew_by_seed():
    splits = [lab.digits(start("quick", seed)) for seed in (0, 0, 1)]
    first, same, other = splits
    sizes = [len(part) for part in first]
    assert sizes == [500, 500, 400, 400, 200, 200, 697, 697]
    pictures = torch.cat([first.x, first.x_judge, first.x_validation, first.x_test])
    assert len(pictures.flatten(1).unique(dim=0)) >= 1796  # of 1797, all of them differ
    assert torch.equal(first.x, same.x)
    assert not torch.equal(first.x, other.x)
    assert pictures.min() == -1
    assert pictures.max() == 1
    assert pictures.shape[1:] == (1, 8, 8)
    assert pictures.dtype == torch.float32
    assert first.y.dtype == torch.int64


def test_digits_keep_their_labels():
    from sklearn.datasets import load_digits

    found, known = lab.digits(start()), load_digits()
    table = {row.tobytes(): y for row, y in zip(known.data, known.target, strict=True)}
    for x, y in ((found.x, found.y), (found.x_test, found.y_test)):
        rows = ((x.flatten(1) + 1) * 8).double().numpy()
        assert [table[row.tobytes()] for row in rows] == y.tolist()


def fake_sets(monkeypatch, jpeg):
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (160, 32, 32, 3), dtype=np.uint8)
    images[100:, 0, 0] = 255  # marks the test part
    labels = np.arange(160, dtype=np.uint8) % 3
    arrays = {
        "cifar10": {
            "train_images": images[:100],
            "train_labels": labels[:100],
            "test_images": images[100:],
            "test_labels": labels[100:],
        },
        "clothing32": {"images": images[:30] // 2},
    }
    kind = SimpleNamespace(is_file=lambda: jpeg)
    monkeypatch.setattr(lab.sets, "load", arrays.__getitem__)
    monkeypatch.setattr(lab.sets, "fetch", lambda name: kind)
    return arrays


def test_cifar_keeps_its_test_part(monkeypatch):
    arrays = fake_sets(monkeypatch, True)
    run = start("full", split=(50, 20, 10, 40))
    data = lab.load_data(run)
    assert (data.x_test[:, :, 0, 0] == 1).all()
    for part in (data.x, data.x_judge, data.x_validation):
        assert not (part[:, :, 0, 0] == 1).all(1).any()
    assert [len(part) for part in data[::2]] == [50, 20, 10, 40]
    pixels = ((data.x_test + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    known = arrays["cifar10"]["test_images"]
    places = [int((known == z).all((1, 2, 3)).nonzero()[0][0]) for z in pixels]
    assert [(100 + i) % 3 for i in places] == data.y_test.tolist()
    assert len(set(places)) == 40
    assert data.x.min() >= -1


@pytest.mark.parametrize("jpeg", [True, False])
def test_clothes_are_as_lossy_as_cifar_is(monkeypatch, jpeg):
    arrays = fake_sets(monkeypatch, jpeg)
    found = lab._photographs(torch.Size((3, 32, 32)), 5, np.random.default_rng(0))
    pixels = ((found + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    known = arrays["clothing32"]["images"]
    if jpeg:
        lossy = []
        for image in known:
            file = io.BytesIO()
            Image.fromarray(image).save(file, "JPEG", quality=75)
            lossy.append(np.asarray(Image.open(file)))
        known = np.stack(lossy)
    assert all((picture == known).all((1, 2, 3)).any() for picture in pixels)


def test_foreign_sets_are_what_they_are_called():
    data = lab.digits(start("quick"))
    sets = lab.foreign_sets(data, np.random.default_rng(0), 300)
    x = data.x_test[:300]
    assert set(sets) == set(FOREIGN)
    for z in sets.values():
        assert z.shape == x.shape
        assert z.dtype == x.dtype
        assert z.min() >= -1
        assert z.max() <= 1
    assert torch.equal(sets["inverted"], -x)
    for i in (0, 7):
        turned = torch.tensor(np.rot90(x[i, 0].numpy()).copy())
        assert torch.equal(sets["turned"][i, 0], turned)
    spread = sets["grey"].flatten(1).std(1)
    assert spread.max() < 1e-6
    assert sets["grey"][:, 0, 0, 0].std() == pytest.approx(1 / math.sqrt(3), rel=0.1)
    assert sets["noise"].std() == pytest.approx(1 / math.sqrt(3), rel=0.02)
    assert torch.equal(sets["permuted"].flatten(1).sort(1)[0], x.flatten(1).sort(1)[0])
    order = [
        (sets["permuted"].flatten(1)[:, i, None] == x.flatten(1)).all(0).nonzero()
        for i in (10, 20, 30)
    ]
    assert all(len(found) for found in order)  # one shuffle for all inputs
    assert sets["photographs"].std(0).mean() > 0.1


def test_interpolated_inputs_mix_two_classes():
    data = labelled(60)
    mixed = lab.foreign_sets(data, np.random.default_rng(0), 60)["interpolated"]
    pairs = (data.x_test[:, None] + data.x_test[None]) / 2
    for z in mixed[:20]:
        at = (pairs == z).flatten(2).all(2).nonzero()
        assert len(at)
        assert (data.y_test[at[:, 0]] != data.y_test[at[:, 1]]).all()


def test_patches_are_averaged_squares(monkeypatch):
    picture = np.arange(40 * 50).reshape(40, 50).astype(np.float32) % 256
    monkeypatch.setattr(lab.sets, "load", lambda name: {"only": picture})
    (found,) = lab._photographs(torch.Size((1, 8, 8)), 1, np.random.default_rng(1))
    assert found.shape == (1, 8, 8)
    blocks = [
        picture[i : i + 32, j : j + 32].reshape(8, 4, 8, 4).mean((1, 3))
        for i in range(9)
        for j in range(19)
    ]
    wanted = ((found[0] + 1) * 127.5).numpy()
    assert min(np.abs(block - wanted).max() for block in blocks) < 1e-3


def test_eight_gaussians_have_their_density():
    def density(b, a):
        return float(lab.eight_log_density(torch.tensor([a, b]).double()).exp())

    whole, _ = integrate.dblquad(density, -2, 2, -2, 2, epsabs=1e-4)
    assert whole == pytest.approx(1, abs=1e-3)
    x, y = lab.eight_gaussians(100_000, rng())
    assert x.dtype == torch.float32
    cells = lab.grid(201).double()
    p = lab.eight_log_density(cells).softmax(0)
    entropy = -(p * (p.log() - math.log((4 / 201) ** 2))).sum().item()
    heights = lab.eight_log_density(x.double())
    error = heights.std().item() / math.sqrt(len(x))
    assert -heights.mean().item() == pytest.approx(entropy, abs=5 * error)
    nearest = torch.cdist(x, lab.CENTRES).argmin(1)
    assert ((nearest % 2) == y).double().mean() > 0.98
    assert nearest.bincount().min() > 11_500


class Truth(nn.Module):
    """The eight Gaussians as two logits, lifted, at a temperature."""

    def __init__(self, temperature=1.0):
        super().__init__()
        self.temperature = temperature

    def forward(self, x):
        height = self.temperature * lab.eight_log_density(x)
        half = height - math.log(2)
        return torch.stack([half, half], 1) + 7


def test_the_divergence_of_the_truth_from_itself_is_nothing():
    assert abs(lab.kl_on_grid(Truth())) < 1e-5
    assert abs(lab.kl_on_grid(Truth(0.3), temperature=0.3)) < 1e-4
    assert lab.kl_on_grid(Truth(0.3)) > 0.1


def test_the_divergence_from_uniform_is_known():
    uniform = nn.Sequential(nn.Linear(2, 2))
    nn.init.zeros_(uniform[0].weight)
    p = lab.eight_log_density(lab.grid().double()).softmax(0)
    exact = float((p * p.log()).sum()) + math.log(101**2)
    assert lab.kl_on_grid(uniform) == pytest.approx(exact, abs=1e-6)
    assert exact == pytest.approx(1.68, abs=0.01)
    cells = lab.grid(4, 2.0)
    assert cells[0].tolist() == [-1.5, -1.5]
    assert cells[1].tolist() == [-1.5, -0.5]
    assert cells[-1].tolist() == [1.5, 1.5]


# Training


def test_both_trainings_start_from_the_same_weights_and_repeat():
    run = start()
    assert torch.equal(lab.net(run)[0].weight, lab.net(run)[0].weight)
    assert not torch.equal(lab.net(run)[0].weight, lab.net(run, "judge")[0].weight)
    data = lab.digits(run)
    first = lab.train_jem(run, data)
    other = start()
    other.folder = run.folder / "elsewhere"
    again = lab.train_jem(other, data)
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
    x, y = lab._batch(s, data.x, data.y, rng())
    assert (Fixed()(x).argmax(1) == y).double().mean() > 0.85
    clean = torch.cdist(x.flatten(1), data.x.flatten(1)).amin(1).square().mean() / 64
    assert clean.sqrt().item() == pytest.approx(0.03, rel=0.05)
    x, y = lab._batch(s._replace(data_noise=0.0), data.x, data.y, rng())
    assert (Fixed()(x).argmax(1) == y).all()


def test_jem_learns_digits():
    run = start("quick", steps=80, warmup=20, batch=32)
    data = lab.digits(run)
    plain, joint = lab.train_softmax(run, data), lab.train_jem(run, data)
    assert plain.buffer is None
    found = lab.measure_accuracy(run, data, plain.model, joint.model)["accuracy"]
    assert found["softmax"] > 85
    assert found["jem"] > 85
    assert found["value"] == pytest.approx(found["softmax"] - found["jem"])
    scores = lab.ood_scores(plain.model, joint.model, data.x_test)
    noise = torch.rand(200, 1, 8, 8, generator=rng()) * 2 - 1
    assert (
        scores["density"].mean()
        > lab.ood_scores(plain.model, joint.model, noise)["density"].mean()
    )


def test_the_plane_is_learnt_a_little():
    run = start("quick", plane_steps=200, warmup=20, rate=1e-2)
    trained = lab.train_plane(run)
    assert lab.kl_on_grid(trained.model) < 1.2 < lab.kl_on_grid(jem.mlp(0))
    assert trained.buffer.slots.abs().max() <= 2


def test_divergence_says_what_left_its_limit():
    run = start("quick")
    data = lab.digits(run)
    seen = lab.divergence(run, data, 20, 2, 1e4, 0.01, every=4)
    assert seen["largest"][-1] > 20 or abs(seen["gap"][-1]) > 50
    assert len({len(column) for column in seen.values()}) == 1
    assert seen["step"][-1] < 20
    calm = lab.divergence(run, data, 9, 1, 1.0, 0.01, every=4)
    assert calm["step"] == [0, 4, 8]
    assert set(calm) == {
        "step", "gap", "lse_data", "lse_samples", "largest", "curvature",
    }  # fmt: skip
    assert not list(run.folder.glob("*divergence*"))


# Measurements


def test_chunks_change_nothing():
    model = jem.digits_net(0)
    x = torch.rand(600, 1, 8, 8, generator=rng())
    with torch.no_grad():
        assert torch.allclose(lab.logits_of(model, x), model(x), atol=1e-6)
    assert not lab.logits_of(model, x).requires_grad


def test_accuracy_calibration_and_likelihood_by_hand():
    run, data = start(), labelled()
    sure, unsure = Fixed(), Fixed(0.01)
    accuracy = lab.measure_accuracy(run, data, sure, unsure)["accuracy"]
    assert accuracy == {"value": 0.0, "softmax": 100.0, "jem": 100.0}
    numbers = lab.measure_calibration(run, data, sure, unsure)["calibrated"]
    p = unsure(data.x_test).detach().softmax(1).max(1).values
    assert numbers["jem_overconfidence"] == pytest.approx(float(p.mean()) - 1)
    assert numbers["jem"] == pytest.approx(1 - float(p.mean()), abs=1e-5)
    assert numbers["value"] == pytest.approx(numbers["softmax"] - numbers["jem"])
    found = lab.measure_nll(run, data, sure, unsure)
    raw = F.cross_entropy(unsure(data.x_test), data.y_test).item()
    assert found["nll_raw"]["jem"] == pytest.approx(raw, rel=1e-5)
    assert found["nll_raw"]["value"] < 0
    tempered = found["nll_tempered"]
    # The two differ by a temperature only.
    assert tempered["value"] == pytest.approx(0, abs=1e-3)
    assert tempered["jem"] < raw


def test_scores_are_those_of_12():
    plain, joint = jem.digits_net(0), jem.digits_net(1)
    x = torch.rand(5, 1, 8, 8, generator=rng())
    scores = lab.ood_scores(plain, joint, x)
    assert torch.allclose(scores["density"], joint(x).exp().sum(1).log(), atol=1e-5)
    assert torch.allclose(scores["softmax"], plain(x).softmax(1).amax(1), atol=1e-6)
    assert torch.allclose(scores["plain_lse"], plain(x).exp().sum(1).log(), atol=1e-5)
    assert torch.allclose(scores["mass"], jem.mass_score(joint, x))
    assert torch.allclose(scores["plain_mass"], jem.mass_score(plain, x))


def test_ood_compares_areas_set_by_set(monkeypatch):
    run, data = start(), labelled()
    levels = {"density": 0.9, "mass": 0.7, "softmax": 0.6, "plain_lse": 0.5}

    def scores(plain, joint, x):
        inside = x is data.x_test
        draw = rng(int(inside))
        values = {}
        for name in (*levels, "plain_mass"):
            u = torch.rand(4000, generator=draw)
            chance = levels.get(name, 0.2)
            values[name] = u if inside else (u < 1 - chance).float() * 2 - 0.5
        return values

    monkeypatch.setattr(lab, "ood_scores", scores)
    foreign = {"noise": data.x + 1, "grey": data.x + 2}
    found = lab.measure_ood(run, data, None, None, foreign)
    assert list(found) == [f"ood_{s}_{n}" for s in ("density", "mass") for n in foreign]
    for score in ("density", "mass"):
        numbers = found[f"ood_{score}_grey"]
        assert numbers["jem"] == pytest.approx(levels[score], abs=0.03)
        assert numbers["softmax"] == pytest.approx(0.6, abs=0.03)
        assert numbers["plain_lse"] == pytest.approx(0.5, abs=0.03)
        assert numbers["plain_mass"] == pytest.approx(0.2, abs=0.03)
        assert numbers["value"] == numbers["jem"] - numbers["softmax"]


def test_robustness_compares_where_softmax_is_broken():
    run, data = start(refined=8, attacked=8), labelled()
    joint = jem.digits_net(0)
    curves = {
        "softmax": {0.0: 0.1, 0.1: 0.5, 0.2: 0.15, 0.3: 0.0},
        "jem": {0.0: 0.9, 0.1: 0.8, 0.2: 0.6, 0.3: 0.4},
    }
    robust = lab.measure_robustness(run, data, joint, joint, curves)["robust"]
    assert robust == pytest.approx(
        {"value": 0.45, "radius": 0.2, "softmax": 0.15, "jem": 0.6}
    )
    curves["softmax"] = {0.0: 0.9, 0.1: 0.9, 0.4: 0.8}
    curves["jem"] = {0.0: 0.9, 0.1: 0.9, 0.4: 0.9}
    robust = lab.measure_robustness(run, data, joint, joint, curves)["robust"]
    assert robust["radius"] == 0.4


def test_attack_curves_fall_and_start_at_the_accuracy():
    run, data = start(attacked=40, attack_steps=5), labelled()
    curves = lab.attack_curves(run, data, Fixed(), Fixed(0.1))
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
    drawn = lab.class_gaussians(x, y, 20_000, np.random.default_rng(0)).flatten(1)
    second = drawn.mean(1) < 0
    assert second.double().mean() == pytest.approx(0.5, abs=0.04)
    clusters = drawn[drawn.sum(1) > 0]
    assert clusters.mean(0).numpy() == pytest.approx([3, 3, 3, 3], abs=0.15)
    covariance = np.cov(torch.where(second[:, None], -drawn, drawn).T.numpy())
    assert np.diag(covariance) == pytest.approx([1, 4, 1, 4], rel=0.15)


def test_generation_is_judged_by_distances_and_by_the_judge():
    run, data = start(conditional=20), lab.digits(start())
    judge = lab.train_judge(run, data)
    x = data.x_test
    drawn = {
        "test": x, "training": data.x[:100], "buffer": x + 0.01, "gaussian": x + 0.5,
        "chains": x + 0.25, "noise": torch.rand_like(x) * 2 - 1,
        "conditional": x[:20], "wanted": judge(x[:20]).argmax(1),
    }  # fmt: skip
    found = lab.measure_generation(run, data, judge, drawn)
    numbers = found["generates_buffer"]
    assert 0 < numbers["buffer"] < numbers["chains"] < numbers["gaussian"]
    assert numbers["nearest_buffer"] == pytest.approx(numbers["nearest_test"], rel=0.1)
    by_hand = np.linalg.norm(
        x.flatten(1).numpy()[:, None] - data.x.flatten(1).numpy()[None], axis=2
    )
    assert numbers["nearest_test"] == pytest.approx(by_hand.min(1).mean(), rel=1e-4)
    ratio = found["generates_noise"]
    assert ratio["value"] == pytest.approx(
        math.log(ratio["chains"] / ratio["gaussian"])
    )
    assert ratio["value"] < 0
    assert found["recognised"] == {"value": 1.0, "successes": 20.0, "trials": 20.0}


def test_samples_are_drawn_as_many_of_each():
    run = start()
    data = lab.digits(run)
    joint = lab.train_jem(run, data)
    drawn = lab.draw_samples(run, data, joint.model, joint.buffer)
    for name in ("test", "training", "buffer", "chains", "gaussian", "noise"):
        assert drawn[name].shape == (run.settings.drawn, 1, 8, 8)
        assert drawn[name].abs().max() <= 1
    assert drawn["conditional"].shape[0] == len(drawn["wanted"])
    assert drawn["wanted"].bincount(minlength=10).unique().tolist() == [2]
    slow = jem.langevin(joint.model, drawn["noise"], 3, 1.0, 0.0, run.generator("none"))
    assert (slow.clamp(-1, 1) - drawn["chains"]).abs().max() < 0.2


def test_overhead_is_a_ratio_of_seconds():
    run = start()
    found = lab.measure_overhead(run, lab.digits(run))["overhead"]
    assert found["value"] == pytest.approx(found["jem"] / found["softmax"])
    assert found["value"] > 1


def everything(run):
    """All that the notebook measures, in its order."""
    data = lab.load_data(run)
    plain, joint = lab.train_softmax(run, data), lab.train_jem(run, data)
    models = (plain.model, joint.model)
    judge = lab.train_judge(run, data)
    drawn = lab.draw_samples(run, data, joint.model, joint.buffer)
    foreign = lab.foreign_sets(data, run.rng("foreign"), run.settings.scored)
    lab.train_plane(run)
    lab.divergence(run, data, run.settings.watched, 1, 1.0, 0.01)
    return {
        **lab.measure_accuracy(run, data, *models),
        **lab.measure_generation(run, data, judge, drawn),
        **lab.measure_calibration(run, data, *models),
        **lab.measure_nll(run, data, *models),
        **lab.measure_ood(run, data, *models, foreign),
        **lab.measure_robustness(run, data, *models),
        **lab.measure_overhead(run, data),
    }


def declared_and_finite(run, found):
    for id, numbers in found.items():
        run.claim(id, **numbers)
    assert list(found) == [claim.id for claim in CHAPTER.claims]
    return found


def test_smoke_measures_every_claim_in_order_and_again_alike(tmp_path):
    runs = [start() for _ in range(2)]
    runs[1].folder = tmp_path / "other"
    first, again = (declared_and_finite(run, everything(run)) for run in runs)
    del first["overhead"], again["overhead"]
    assert first == again


def test_every_line_of_full_runs_with_its_sizes_cut_down(monkeypatch):
    real, fetch = lab.sets.load, lab.sets.fetch
    arrays = fake_sets(monkeypatch, True)
    monkeypatch.setattr(
        lab.sets, "load", lambda name: arrays[name] if name in arrays else real(name)
    )
    assert fetch is not lab.sets.fetch
    run = start(
        "full", split=(60, 20, 20, 40), depth=10, width=1, steps=2, judge_steps=2,
        batch=4, warmup=1, sampler_steps=2, buffer=8, scored=20, attacked=4,
        attack_steps=2, refined=2, refine_steps=2, chains=2, drawn=20, draw_steps=2,
        conditional=10, timed=1, plane_steps=2, plane_sampler_steps=2, watched=2,
    )  # fmt: skip
    assert run.settings.bf16
    assert CHAPTER.settings["full"].depth == 28
    declared_and_finite(run, everything(run))
