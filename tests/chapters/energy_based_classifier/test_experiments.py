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
    OWN,
    Split,
    experiments,
    generation,
    method,
    plane,
)
from iclrtut.train import fit

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


def trained_jem(run, data):
    """JEM as the page trains it: the model, its buffer and the curves."""
    made, s = experiments.loop(run, data), run.settings
    limits, every = experiments.LIMITS, s.checkpoint_every
    history = fit(
        made, s.steps, folder=run.folder, name="JEM", limits=limits, every=every
    )
    return SimpleNamespace(**made.state, history=history)


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
    assert set(foreign["binary"].unique().tolist()) == {-1, 1}
    assert foreign["letters"].flatten(1).amax(1).min() == 1
    # One shuffle for all inputs: each pixel is some pixel of the original.
    for pixel in foreign["permuted"].flatten(1).T[::10]:
        assert (pixel[:, None] == x.flatten(1)).all(0).any()


def test_eight_gaussians_have_their_density():
    def density(b, a):
        return float(plane.eight_log_density(torch.tensor([a, b]).double()).exp())

    whole, _ = integrate.dblquad(density, -2, 2, -2, 2, epsabs=1e-4)
    assert whole == pytest.approx(1, abs=1e-3)
    x, y = plane.eight_gaussians(100_000, rng())
    cells = plane.grid(201).double()
    p = plane.eight_log_density(cells).softmax(0)
    entropy = -(p * (p.log() - math.log((4 / 201) ** 2))).sum().item()
    heights = plane.eight_log_density(x.double())
    error = heights.std().item() / math.sqrt(len(x))
    assert -heights.mean().item() == pytest.approx(entropy, abs=5 * error)
    nearest = torch.cdist(x, plane.CENTRES).argmin(1)
    assert ((nearest % 2) == y).double().mean() > 0.98
    assert nearest.bincount().min() > 11_500


class Truth(nn.Module):
    """The eight Gaussians, or a flatter density, as two logits, lifted."""

    def __init__(self, temperature=1.0):
        super().__init__()
        self.temperature = temperature

    def forward(self, x):
        height = self.temperature * plane.eight_log_density(x)
        half = height - math.log(2)
        return torch.stack([half, half], 1) + 7


def test_the_divergence_of_the_truth_from_itself_is_nothing():
    assert abs(plane.kl_on_grid(Truth())) < 1e-5
    assert plane.kl_on_grid(Truth(0.3)) > 0.1


def test_the_divergence_from_uniform_is_known():
    uniform = nn.Sequential(nn.Linear(2, 2))
    nn.init.zeros_(uniform[0].weight)
    p = plane.eight_log_density(plane.grid().double()).softmax(0)
    exact = float((p * p.log()).sum()) + math.log(101**2)
    assert plane.kl_on_grid(uniform) == pytest.approx(exact, abs=1e-6)
    assert exact == pytest.approx(1.68, abs=0.01)
    cells = plane.grid(4)
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
    first = trained_jem(run, data)
    run.folder = run.folder / "elsewhere"
    again = trained_jem(run, data)
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
    x, y = experiments.draw_batch(data.train, 4000, 0.03, rng())
    assert (Fixed()(x).argmax(1) == y).double().mean() > 0.85
    distance = torch.cdist(x.flatten(1), data.train.x.flatten(1)).amin(1)
    noise = distance.square().mean() / 64
    assert noise.sqrt().item() == pytest.approx(0.03, rel=0.05)
    x, y = experiments.draw_batch(data.train, 4000, 0.0, rng())
    assert (Fixed()(x).argmax(1) == y).all()


def test_jem_and_its_rivals_learn_digits():
    run = start("quick", steps=80, warmup=20, batch=32, tuned_noise=0.1)
    data = experiments.load_data(run)
    rivals = {
        "plain": experiments.train_plain(run, data),
        "tuned": experiments.train_tuned(run, data),
    }
    joint = trained_jem(run, data).model
    measured = experiments.measure_accuracy(data, joint, rivals)
    for numbers in measured.values():
        assert min(numbers["rival"], numbers["jem"]) > 85
        assert numbers["value"] == pytest.approx(numbers["rival"] - numbers["jem"])
    noise = torch.rand(200, 1, 8, 8, generator=rng()) * 2 - 1
    test_scores, noise_scores = (
        experiments.scores(joint, x) for x in (data.test.x, noise)
    )
    assert test_scores["density"].mean() > noise_scores["density"].mean()


def test_the_tuned_rival_has_noise_weight_decay_and_steps_of_its_own(monkeypatch):
    run = start()
    data = experiments.load_data(run)
    made = experiments.classifier_loop(run, data.train, steps=9, noise=0.5, l2=0.1)
    assert made.optimizer.param_groups[0]["weight_decay"] == 0.1
    assert made.schedule(9) == pytest.approx(0)
    noises = []
    monkeypatch.setattr(
        experiments,
        "draw_batch",
        lambda part, n, noise, draws: noises.append(noise) or part,
    )
    experiments.train_plain(run, data)
    experiments.train_tuned(run, data, 4)
    s = run.settings
    assert noises == [s.data_noise] * s.steps + [s.tuned_noise] * 4


@pytest.mark.parametrize("loss", experiments.LOSSES)
def test_labelled_chains_climb_the_labels_and_each_loss_is_taken(monkeypatch, loss):
    run = start(batch=32)
    data = experiments.load_data(run)
    made = experiments.labelled_loop(run, data, loss)
    model, buffer, draws = made.state.values()
    again = torch.Generator().set_state(draws.get_state())
    seen = []

    def langevin(model, x, steps, alpha, sigma, generator, wanted):
        seen.extend([x, wanted])
        return x

    monkeypatch.setattr(experiments, "langevin", langevin)
    put = []
    monkeypatch.setattr(buffer, "put", lambda slots, x: put.append(slots))
    bias = model[-1].bias
    with torch.no_grad():
        bias += torch.arange(10) / 10
    before = [p.detach().clone() for p in model.parameters()]
    made.step(0)
    slope = bias.grad.clone()
    with torch.no_grad():
        for p, old in zip(model.parameters(), before, strict=True):
            p.copy_(old)
        drawn = model(seen[0]).softmax(1)
    y = experiments.draw_batch(data.train, 32, run.settings.data_noise, again).y
    assert torch.equal(seen[1], y) and torch.equal(put[0] % 10, y)
    buffer.generator = again
    assert torch.equal(buffer.draw(32, y)[1], put[0])
    # By the last bias: what the samples push up, minus the labels of the data.
    right = F.one_hot(y, 10).float().mean(0)
    if loss == "relabelled":
        label = drawn.multinomial(1, generator=again)[:, 0]
        up = F.one_hot(label, 10).float().mean(0)
        assert not torch.equal(label, y)
    else:
        up = drawn.mean(0) if loss == "split" else right
    assert torch.allclose(slope, up - right, atol=1e-5)


def test_the_split_is_measured_over_the_same_steps(monkeypatch):
    run = start(labelled_steps=10)
    curves = {
        "joint": [9.0] * 4 + [3.0],
        "relabelled": [7.0] * 4 + [2.0] * 3,
        "split": [1.0] * 10,
    }
    history = {k: SimpleNamespace(curves={"loss": v}) for k, v in curves.items()}
    monkeypatch.setattr(experiments, "labelled_loop", lambda run, data, loss: None)
    monkeypatch.setattr(
        experiments, "until_broken", lambda run, name, made, steps: history[name]
    )
    measured, shown = experiments.measure_split(run, None)
    assert measured["split_labels"] == {
        "value": 3.0, "joint": 3.0, "relabelled": 2.0, "split": 1.0, "steps": 5
    }  # fmt: skip
    assert shown == curves


def test_the_plane_is_learnt_a_little():
    run = start("quick", plane_steps=200, warmup=20, learning_rate=1e-2)
    made = plane.loop(run)
    fit(made, 200, folder=None, name="plane")
    assert (
        plane.kl_on_grid(made.state["model"])
        < 1.2
        < plane.kl_on_grid(method.plane_net(0))
    )
    assert made.state["buffer"].slots.abs().max() <= 2


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
    rivals = {"plain": sure, "tuned": unsure}
    accuracy = experiments.measure_accuracy(data, unsure, rivals)
    assert accuracy["accuracy"] == {"value": 0.0, "rival": 100.0, "jem": 100.0}
    assert list(accuracy) == ["accuracy", "accuracy_tuned"]
    calibration = experiments.measure_calibration(data, unsure, rivals)
    numbers = calibration["calibration_squared_plain"]
    p = unsure(data.test.x).detach().softmax(1).max(1).values
    assert numbers["jem_over"] == pytest.approx(float(p.mean()) - 1)
    assert numbers["jem_ece"] == pytest.approx(1 - float(p.mean()), abs=1e-5)
    h = 1 - p.double()  # every answer is right, all in two bins at most
    if numbers["jem_squared"] < 1e4 * float(h.max()) ** 2:
        bins = (p.double() * 15).ceil()
        squares = [h[bins == b] for b in bins.unique()]
        pairs = [(z.sum() ** 2 - (z**2).sum()) / (len(z) - 1) for z in squares]
        exact = 1e4 * float(sum(pairs)) / len(h)
        assert numbers["jem_squared"] == pytest.approx(exact, rel=1e-4)
    assert numbers["value"] == numbers["rival_squared"] - numbers["jem_squared"]
    assert calibration["calibration_squared_tuned"]["value"] == 0
    measured = experiments.measure_nll(data, unsure, rivals)
    raw = F.cross_entropy(unsure(data.test.x), data.test.y).item()
    assert measured["nll_raw"]["jem"] == pytest.approx(raw, rel=1e-5)
    assert measured["nll_raw"]["value"] < 0 == measured["nll_raw_tuned"]["value"]
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
    net = method.digits_net(0)
    x = torch.rand(5, 1, 8, 8, generator=rng())
    found = experiments.scores(net, x)
    assert torch.allclose(found["density"], net(x).exp().sum(1).log(), atol=1e-5)
    assert torch.allclose(found["confidence"], net(x).softmax(1).amax(1), atol=1e-6)
    assert torch.allclose(found["mass"], method.mass_score(net, x))


def test_areas_are_those_of_each_model_set_and_score(monkeypatch):
    """Scores are made up so that their AUROC is known."""
    data = labelled()
    known = {"density": 0.9, "confidence": 0.6, "mass": 0.7}

    def scores(model, x):
        inside = x is data.test.x
        values = {}
        for name, area in known.items():
            u = torch.rand(4000, generator=rng(int(inside)))
            values[name] = u if inside else (u < 1 - area * model).float() * 2 - 0.5
        return values

    monkeypatch.setattr(experiments, "scores", scores)
    names = ("letters", "grey", "interpolated")
    foreign = {name: data.test.x + k for k, name in enumerate(names, 1)}
    models = {"jem": 1.0, "tuned": 0.9, "plain": 0.5}
    areas = experiments.ood_areas(data, models, foreign)
    for name, factor in models.items():
        for score, area in known.items():
            found = areas[name]["grey"][score]
            assert found == pytest.approx(area * factor, abs=0.03)
    measured = experiments.measure_ood(areas)
    ids = [f"{score}_{name}" for score in known for name in foreign]
    ids = [id for id in ids if not id.startswith("mass")]
    ids += [f"mass_best_{name}" for name in foreign]
    assert list(measured) == [*ids, *OWN]
    for score in ("density", "confidence"):
        numbers = measured[f"{score}_grey"]
        assert numbers["value"] == numbers["jem"] - numbers["tuned"]
        assert numbers["plain"] == areas["plain"]["grey"][score]
    for id, other, kind in (
        ("mass_over_confidence", "confidence", "letters"),
        ("mass_over_log_p_letters", "density", "letters"),
        ("mass_over_log_p_interpolated", "density", "interpolated"),
    ):
        own = measured[id]
        assert own["value"] == own["mass"] - own[other]
        assert own["mass"] == areas["jem"][kind]["mass"]


@pytest.mark.parametrize(
    "theirs, best",
    [
        ({"density": 0.9, "confidence": 0.6, "mass": 0.7}, 0.9),
        ({"density": 0.5, "confidence": 0.6, "mass": 0.4}, 0.6),
        ({"density": 0.5, "confidence": 0.6, "mass": 0.1}, 0.9),
    ],
)
def test_the_mass_meets_the_best_score_of_the_rival_read_either_way(theirs, best):
    ours = {"density": 0.5, "confidence": 0.6, "mass": 0.8}
    kinds = ("letters", "interpolated")
    areas = {
        name: dict.fromkeys(kinds, each)
        for name, each in (("jem", ours), ("tuned", theirs), ("plain", theirs))
    }
    numbers = experiments.measure_ood(areas)["mass_best_letters"]
    assert numbers["value"] == pytest.approx(0.8 - best)
    assert (numbers["best"], numbers["tuned"]) == (best, theirs["mass"])


def test_robustness_is_judged_at_one_radius():
    run, data = start(refine_attacked=8, attack_radius=0.2), labelled()
    joint = method.digits_net(0)
    curves = {
        "plain": {0.0: 0.1, 0.1: 0.5, 0.2: 0.15, 0.3: 0.0},
        "tuned": {0.0: 0.9, 0.1: 0.8, 0.2: 0.7, 0.3: 0.6},
        "jem": {0.0: 0.9, 0.1: 0.8, 0.2: 0.6, 0.3: 0.4},
    }
    measured = experiments.measure_robustness(run, data, joint, curves)
    plain, tuned = measured["robust_plain"], measured["robust_tuned"]
    assert plain == pytest.approx({"value": 0.45, "rival": 0.15, "jem": 0.6})
    assert tuned == pytest.approx({"value": -0.1, "rival": 0.7, "jem": 0.6})
    refined = measured["robust_refined"]
    assert refined["value"] == refined["worst"] - refined["jem"]
    assert refined["radius"] == 0.2


def test_an_input_must_survive_every_start(monkeypatch):
    run, data = start(attack_starts=3), labelled()
    part = experiments.Labelled(data.test.x[:3], data.test.y[:3])
    calls = []

    def pgd(model, x, y, **rest):
        """Each call breaks one input more than the others."""
        assert rest["radius"] == 0.3 and rest["norm"] == "linf"
        calls.append(rest["generator"])
        moved = x.clone()
        if len(calls) < 3:
            moved[len(calls), 0, 0, 0] += 0.5
        return moved

    monkeypatch.setattr(experiments, "pgd", pgd)
    right = experiments._survivors(run, Fixed(), part, 0.3, rng())
    assert right.tolist() == [True, False, False] and len(calls) == 3


def test_attack_curves_fall_and_start_at_the_accuracy():
    run, data = start(attacked=40, attack_steps=5), labelled()
    models = {"plain": Fixed(), "jem": Fixed(0.1)}
    curves = experiments.attack_curves(run, data, models)
    assert list(curves) == list(models)
    assert list(curves["jem"]) == [0.0, *run.settings.radii]
    values = list(curves["plain"].values())
    assert values[0] == 1.0
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.2  # 0.05 in the first pixel moves the class


def test_gaussians_of_each_class_have_its_moments():
    n = 4000
    y = torch.arange(n) % 2
    x = torch.randn(n, 1, 2, 2, generator=rng()) * torch.tensor([1.0, 2.0]) + 3
    x[y == 1] *= -1
    samples = generation.class_gaussians(x, y, 20_000, np.random.default_rng(0))
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
        "chains": torch.where(x > 0.9, 2.0, x + 0.25),
        "gaussian": x + 0.5,
        "noise": torch.rand(x.shape, generator=rng()) * 2 - 1,
        "conditional": x[:20],
        "wanted": evaluator(x[:20]).argmax(1),
    }
    measured = generation.measure_generation(data, evaluator, samples)
    numbers = measured["generates_buffer"]
    assert 0 < numbers["buffer"] < numbers["chains"] < numbers["gaussian"]
    kept = measured["leans"]
    assert kept["value"] == kept["buffer"] - kept["gaussian"]
    assert kept["buffer"] == pytest.approx(kept["test"], abs=0.1)
    flat = x.flatten(1)[:, None] - training.flatten(1)
    assert kept["closest_test"] == pytest.approx(float(flat.norm(dim=2).min()), 1e-4)
    assert kept["beyond_buffer"] == kept["beyond_gaussian"] == 0
    inked = (x.flatten(1).amax(1) > 0.9).double().mean().item()
    assert kept["beyond_chains"] == pytest.approx(inked)
    ratio = measured["generates_noise"]
    assert ratio["value"] == pytest.approx(
        math.log(ratio["chains"] / ratio["gaussian"])
    )
    assert measured["recognised"] == {"value": 1, "successes": 20, "trials": 20}


def test_what_was_copied_lies_nearer_to_the_training_inputs():
    seen, other, new = torch.randn(3, 400, 1, 4, 4, generator=rng())
    near = generation.nearer_to_training
    assert near(seen + 0.01, seen, other) == 1
    assert near(other + 0.01, seen, other) == 0
    assert near(new, seen, other) == pytest.approx(0.5, abs=0.1)
    # As many of each are compared, so that the larger set has no advantage.
    assert near(new, seen[:100], other) == near(new, seen[:100], other[:100])


def test_samples_are_drawn_as_many_of_each():
    run = start()
    data = experiments.load_data(run)
    joint = trained_jem(run, data)
    samples = generation.draw_samples(run, data, joint.model, joint.buffer)
    for name in ("test", "training", "buffer", "chains", "gaussian", "noise"):
        assert samples[name].shape == (run.settings.samples, 1, 8, 8)
    assert len(samples["conditional"]) == len(samples["wanted"])
    assert samples["wanted"].bincount(minlength=10).unique().tolist() == [2]
    noiseless = method.langevin(joint.model, samples["noise"], 3, 1.0, 0.0, rng())
    assert (noiseless - samples["chains"]).abs().max() < 0.2
    assert samples["chains"].abs().max() > 1  # nothing holds them in the box


def test_overhead_is_a_ratio_of_seconds():
    run = start()
    data = experiments.load_data(run)
    measured = experiments.measure_overhead(run, data)["overhead_counted"]
    assert measured["ratio"] == pytest.approx(measured["jem"] / measured["softmax"])
    assert measured["ratio"] > 1
    # Multiplications of the 3 x 3 convolutions and the read-out, by hand.
    net, out, sizes = experiments.net(run), torch.zeros(1, 1, 8, 8), []
    for layer in net:
        out = layer(out)
        if hasattr(layer, "in_channels"):
            sizes.append(out.numel() * layer.in_channels * 9)
    share = sizes[0] / (sum(sizes) + net[-1].weight.numel())
    assert measured["share"] == pytest.approx(share)
    counted = 3 + 2 * run.settings.sampler_steps / (3 - share)
    assert measured["counted"] == pytest.approx(counted)
    assert measured["value"] == pytest.approx(measured["ratio"] / counted)


def measure_all(run):
    """All that the notebook measures, in its order."""
    data = experiments.load_data(run)
    trained = trained_jem(run, data)
    joint = trained.model
    rivals = {
        "plain": experiments.train_plain(run, data),
        "tuned": experiments.train_tuned(run, data),
    }
    models = {"jem": joint, **rivals}
    evaluator = experiments.train_evaluator(run, data)
    samples = generation.draw_samples(run, data, joint, trained.buffer)
    rng, n = run.rng("foreign"), run.settings.foreign
    foreign = experiments.foreign_sets(data.test, rng, n)
    curves = experiments.attack_curves(run, data, models)
    fit(plane.loop(run), run.settings.plane_steps, folder=None, name="plane")
    experiments.divergence(run, data, sampler_steps=1, alpha=1.0, sigma=0.01)
    measured = {
        **experiments.measure_accuracy(data, joint, rivals),
        **experiments.measure_split(run, data)[0],
        **generation.measure_generation(data, evaluator, samples),
        **experiments.measure_calibration(data, joint, rivals),
        **experiments.measure_nll(data, joint, rivals),
        **experiments.measure_ood(experiments.ood_areas(data, models, foreign)),
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
    del first["overhead_counted"], again["overhead_counted"]
    assert first == again


def test_every_line_of_full_runs_with_its_sizes_cut_down(monkeypatch):
    arrays = fake_cifar(monkeypatch)
    clothes = {"images": arrays["train_images"][:30] // 2}
    sets = {"omniglot_small": iclrtut.data.load("omniglot_small")}
    monkeypatch.setattr(iclrtut.data, "load", lambda name: sets.get(name, clothes))
    kind = SimpleNamespace(is_file=lambda: True)  # of the pictures: JPEG or not
    monkeypatch.setattr(iclrtut.data, "fetch", lambda name: kind)
    run = start(
        "full", split=Split(60, 20, 20, 40), depth=10, width=1, steps=2,
        evaluator_steps=2, labelled_steps=2, batch=4, warmup=1, sampler_steps=2,
        buffer=20, foreign=20,
        attacked=4, attack_steps=2, refine_attacked=2, refine_steps=2, refine_chains=2,
        samples=20, sample_steps=2, conditional=10, timed_steps=1, plane_steps=2,
        plane_sampler_steps=2, divergence_steps=2,
    )  # fmt: skip
    assert run.settings.bf16
    measure_all(run)
