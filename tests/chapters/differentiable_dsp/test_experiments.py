"""The experiments of the chapter on DDSP, against independent routes."""

import math

import numpy as np
import pytest
import runs
import torch
from assertions import refused
from conftest import NIGHTLY
from rng import rng
from torch import nn

from iclrtut import data
from iclrtut.audio import a_weighting
from iclrtut.chapters.differentiable_dsp import experiments, instruments, method
from iclrtut.chapters.differentiable_dsp.decoder import Decoder, Trunk
from iclrtut.chapters.differentiable_dsp.experiments import Clip
from iclrtut.chapters.differentiable_dsp.method import Controls
from iclrtut.errors import BadRequest
from iclrtut.train import History

SLUG = "differentiable_dsp"
folder, start = runs.folder, runs.of(SLUG)


def reed(run, n, name="train"):
    return experiments.clips(run, "reed", n, name)


# Sounds


@pytest.mark.parametrize("name", instruments.INSTRUMENTS)
def test_the_sound_of_an_instrument_depends_on_pitch_and_level(name):
    run = start("quick")
    f0, level = torch.tensor([[220.0, 220, 440]]), torch.tensor([[0.4, 1.0, 1.0]])
    sound = instruments.perform(run, name, f0, level)
    assert sound.amplitude.shape == (1, 3)
    assert sound.distribution.shape == (1, 3, 40)
    assert sound.noise.shape == (1, 3, 33)
    assert torch.allclose(sound.distribution.sum(-1), torch.ones(1, 3))
    assert (sound.distribution[0, 2, 18:] == 0).all()  # 19 * 440 is above 8,000
    assert (sound.noise > 0).all()
    k = torch.arange(1.0, 41)
    soft, loud, high = (sound.distribution[0] * k).sum(-1)
    assert soft < loud  # louder is brighter
    assert abs(high - loud) > 0.05
    assert sound.amplitude[0, 1] / sound.amplitude[0, 0] == pytest.approx(10**0.9)
    assert (sound.noise[0, 1] > sound.noise[0, 0]).all()
    assert not torch.allclose(sound.noise[0, 1], sound.noise[0, 2])


def test_each_seed_builds_its_own_instrument():
    one, other = (
        [instruments.built(start(seed=seed), name) for name in ("reed", "glass")]
        for seed in (0, 1)
    )
    assert one == [
        instruments.built(start("quick"), name) for name in ("reed", "glass")
    ]
    for mine, theirs in zip(one, other, strict=True):
        assert not set(mine._replace(formants=0)) & set(theirs._replace(formants=1))
        assert mine.formants != theirs.formants
    known = instruments.INSTRUMENTS["reed"]
    for seed in range(20):
        made = instruments.built(start(seed=seed), "reed")
        for name, most in (("rolloff", 0.2), ("dull", 0.2), ("steep", 0.1)):
            assert abs(getattr(made, name) - getattr(known, name)) <= most
        assert 0.7 <= made.even / known.even <= 1
        assert abs(math.log2(made.breath / known.breath)) <= 0.5
        ratios = np.array(made.formants) / np.array(known.formants)
        assert np.abs(np.log2(ratios)).max() <= 0.3 and len(np.unique(ratios)) > 3


def test_instruments_differ_and_unknown_ones_are_refused():
    run = start()
    f0, level = torch.full((1, 4), 300.0), torch.full((1, 4), 0.8)
    one, two = (instruments.perform(run, name, f0, level) for name in ("reed", "glass"))
    assert (one.distribution - two.distribution).abs().max() > 0.05
    refused(
        r"no instrument 'drum': use reed, glass\.",
        lambda: experiments.clips(run, "drum", 1, "train"),
    )


def test_melodies_stay_within_their_octave():
    run = start("quick")
    f0, level = experiments.melodies(run, 40, "many")
    assert f0.shape == level.shape == (40, 100)
    assert f0.dtype == level.dtype == torch.float32
    cents = 1200 * torch.log2(f0.double() / 220)
    assert -30.1 < cents.min() < 100 and 1100 < cents.max() < 1230.1
    assert level.min() >= 0 and 0.9 < level.max() <= 1
    jumps = cents.diff(dim=1).abs() > 100
    assert 1 <= jumps.sum(1).double().mean() <= 6  # several notes a second
    within = cents.diff(dim=1).abs()[~jumps]
    assert within.max() > 5  # vibrato
    high, again = experiments.melodies(run, 40, "many", octave=1)
    assert torch.allclose(high, 2 * f0)
    assert torch.equal(again, level)
    for one, name in ((run, "others"), (start("quick", 1), "many")):
        assert not torch.allclose(f0, experiments.melodies(one, 40, name)[0])


def test_clips_are_what_their_truth_says():
    run = start()
    clip = reed(run, 3)
    s = run.settings
    noise = method.white((3, 4000), run.generator("train noise"))
    assert torch.equal(clip.audio, method.synthesise(clip.truth, noise, 160))
    assert torch.equal(clip.f0, clip.truth.f0)
    assert torch.equal(clip.loudness, method.loudness(clip.audio, s.fs, s.rate))
    assert clip.loudness.shape == clip.f0.shape == (3, 25)
    other = method.white((3, 4000), run.generator("floor"))
    again = method.synthesise(clip.truth, other, 160)
    known = float(method.spectral_loss(again, clip.audio))
    assert experiments.floor(run, clip) == known > 0.5
    refused(
        "no known controls", lambda: experiments.floor(run, clip._replace(truth=None))
    )


# Rivals


@pytest.mark.parametrize("hop", [160, 64, 25, 5])
@pytest.mark.parametrize("source", [False, True])
def test_waveforms_have_a_hop_for_each_frame(hop, source):
    sizes = {"hidden": 6, "width": 16, "layers": 1, "hop": hop, "fs": 16_000}
    model = experiments.Waveform(**sizes, source=source)
    assert math.prod(model.strides) == hop
    sound = model(torch.full((2, 7), 300.0), torch.zeros(2, 7), torch.zeros(2, 7 * hop))
    assert sound.shape == (2, 7 * hop)


def test_only_the_source_filter_gets_a_sine_and_both_get_noise():
    sizes = {"hidden": 6, "width": 8, "layers": 1, "hop": 160, "fs": 16_000}
    f0, loud = torch.full((1, 25), 300.0), torch.zeros(1, 25)
    noise = method.white((1, 4000), rng())
    for source in (False, True):
        torch.manual_seed(0)
        model = experiments.Waveform(**sizes, source=source)
        for p in model.trunk.pitch.parameters():
            nn.init.zeros_(p)  # the trunk is deaf to pitch
        same = torch.equal(model(f0, loud, noise), model(1.5 * f0, loud, noise))
        assert same is not source
        inputs = []
        model.down.register_forward_pre_hook(lambda module, x, to=inputs: to.append(x))
        model(f0, loud, noise)
        (channels,) = inputs[0][0]
        assert torch.equal(channels[-1 - source], noise[0])
        sine = torch.sin(2 * torch.pi * 300 * torch.arange(1, 4001) / 16_000)
        assert torch.allclose(channels[-1], sine if source else noise[0], atol=1e-3)


# Training


def test_training_refuses_what_does_not_fit():
    run = start()
    clip = reed(run, 2)
    refused(
        r"no decoder 'wavenet': use ddsp, plain, filter\.",
        lambda: experiments.train(run, clip, "wavenet", 1),
    )
    for n in (0, 3):
        refused(
            f"{n} examples were asked of 2 clips",
            lambda n=n: experiments.train(run, clip, "ddsp", n),
        )


def test_kinds_share_trunk_batches_and_noise_and_have_rates_that_fall(monkeypatch):
    rates = {"ddsp": 1e-2, "plain": 2e-2, "filter": 3e-2}
    run = start(steps=4, batch=3, lr=1e-2, wave_lr=2e-2, filter_lr=3e-2)
    clip, calls = reed(run, 3), []

    def fit(loop, steps, **options):
        model, (group,) = loop.state["model"], loop.optimizer.param_groups
        trunk = {k: v.clone() for k, v in model.trunk.state_dict().items()}
        inputs, rate = [], group["lr"]
        model.register_forward_pre_hook(lambda module, x: inputs.append(x))
        history = real(loop, steps, **options)
        used = [rate, group["lr"], steps, len(inputs)]
        calls.append((trunk, inputs, used))
        return history

    real = experiments.fit
    monkeypatch.setattr(experiments, "fit", fit)
    for kind, rate in rates.items():
        trained = experiments.train(run, clip, kind, 2)
        assert len(trained.history.curves["loss"]) == 4
        assert trained.parameters == sum(p.numel() for p in trained.model.parameters())
        assert not trained.model.training
        assert calls[-1][2] == [rate, 0, 4, 4]
    trunk, inputs, _ = calls[0]
    for other, others, _ in calls[1:]:
        assert all(torch.equal(trunk[name], other[name]) for name in trunk)
        for one, two in zip(inputs, others, strict=True):
            assert all(map(torch.equal, one, two))
    noises = torch.cat([noise for _, _, noise in inputs])
    assert torch.pdist(noises).min() > 1  # fresh at each step, for each sound
    first = torch.cdist(torch.cat([f0 for f0, _, _ in inputs]), clip.f0).argmin(1)
    assert set(first.tolist()) == {0, 1}  # never the third
    experiments.train(start(seed=1), clip, "ddsp", 1)
    assert not torch.equal(trunk["gru.weight_hh_l0"], calls[-1][0]["gru.weight_hh_l0"])


def test_a_batch_is_a_window_of_what_belongs_together():
    frame = torch.arange(200.0).view(2, 100)  # row 0: 0 to 99, row 1: 100 to 199
    sounds = Clip(frame.repeat_interleave(5, 1), frame, -frame)
    audio, f0, loud, _ = sounds.windows(64, 30, rng())
    assert audio.shape == (64, 150)
    assert torch.equal(audio, f0.repeat_interleave(5, 1))
    assert torch.equal(f0, -loud)
    assert (f0.diff(dim=1) == 1).all()
    starts = f0[:, 0]
    assert set((starts >= 100).tolist()) == {True, False}
    assert len(starts.unique()) > 20 and (starts % 100).max() <= 70
    whole = sounds.windows(5, 100, rng()).f0
    assert set(whole[:, 0].tolist()) == {0.0, 100.0}


def test_loudness_is_centred_by_the_training_set_only():
    run = start(steps=1)
    clip = reed(run, 3)
    for n in (2, 3):
        trunk = experiments.train(run, clip, "plain", n).model.trunk
        known = clip.loudness[:n].double()
        assert known.min() > known.max() - 50
        assert float(trunk.mean) == pytest.approx(float(known.mean()), rel=1e-5)
        assert float(trunk.spread) == pytest.approx(float(known.std()), rel=1e-5)


def test_silence_does_not_count_in_the_statistics():
    loud = torch.tensor([[-80.0, -10, -20, -80], [-80, -80, -80, -61]])
    mean, spread = experiments.statistics(loud)
    assert mean == -15 and spread == pytest.approx(50**0.5, rel=1e-5)
    mean, spread = experiments.statistics(torch.full((1, 5), -80.0))
    assert mean == -80 and 0 < spread < 0.01


def test_rivals_are_trained_by_name_and_small_ones_are_smaller():
    run = start(steps=2, examples=(1, 2))
    clip = reed(run, 2)
    ours = bare(Scaled(), 7)
    models = experiments.train_rivals(run, clip, ours)
    names = ["ddsp_2", "ddsp_1", "plain_1", "filter_1", "plain_2", "filter_2"]
    assert list(models) == [*names, "filter_long"]
    assert models.pop("ddsp_2") is ours
    for name, each in models.items():
        if name.startswith("ddsp"):
            assert type(each.model) is Decoder
        else:
            assert each.model.source is name.startswith("filter")
        steps = 4 if name == "filter_long" else 2
        assert len(each.history.curves["loss"]) == steps
    for hidden, units in ((3, (3, 3)), (20, (20, 8))):
        small = experiments.train(run, clip, "ddsp", 2, hidden=hidden)
        trunk = small.model.trunk
        assert (trunk.gru.hidden_size, trunk.out[0].out_features) == units


def test_a_loop_is_the_training_that_was_not_yet_run():
    run = start(steps=3)
    clip = reed(run, 2)
    with pytest.raises(BadRequest, match="no decoder"):
        experiments.loop(run, clip, "drum", 1)
    made = experiments.loop(run, clip, "ddsp", 2)
    losses = [made.step(t)["loss"].item() for t in range(2)]
    curve = experiments.train(run, clip, "ddsp", 2).history.curves["loss"]
    assert losses[0] == curve[0] and len(curve) == 3


def test_a_decoder_learns_what_it_is_shown():
    run = start(seconds=0.5, hidden=16, width=16, steps=60, lr=2e-2, batch=1)
    clip = reed(run, 2)
    trained = experiments.train(run, clip, "ddsp", 2)
    losses = trained.history.curves["loss"]
    assert losses[-1] < 0.5 * losses[0]
    loss = experiments.loss_of(run, trained, clip)
    assert loss < experiments.floor(run, clip) + 2.5


# Rendering


class Scaled(nn.Module):
    """A decoder that keeps its inputs, and plays the noise, scaled."""

    def __init__(self, gain=1.0):
        super().__init__()
        self.inputs, self.gain = [], gain
        self.trunk = Trunk(hidden=2, width=2, layers=1)

    def forward(self, f0, loud, noise):
        self.inputs.append((f0, loud, noise))
        return self.gain * noise


def bare(model, parameters=1):
    return experiments.Trained(model, History({}, 0.0, 0), parameters)


def test_rendering_in_parts_is_rendering_the_whole(monkeypatch):
    run = start(steps=1)
    clip = reed(run, 5)
    monkeypatch.setattr(experiments, "CHUNK", 2)
    for kind in experiments.KINDS:
        model = experiments.train(run, clip, kind, 2).model
        parts = experiments.render(run, model, clip.f0, clip.loudness, "a")
        noise = method.white((5, 4000), run.generator("a"))
        with torch.no_grad():
            whole = model(clip.f0, clip.loudness, noise)
        assert parts.shape == clip.audio.shape and not parts.requires_grad
        assert torch.allclose(whole, parts, atol=1e-5)


def test_transfer_brings_loudness_to_the_mean_and_spread_of_training():
    run = start()
    model = Scaled()
    model.trunk.mean, model.trunk.spread = torch.tensor(-9.0), torch.tensor(4.0)
    clip = reed(run, 1)
    sound = experiments.transfer(run, model, clip)
    ((f0, loud, _),) = model.inputs
    assert sound.shape == (1, 4000)
    assert torch.equal(f0, clip.f0)
    assert float(loud.mean()) == pytest.approx(-9, abs=1e-3)
    assert float(loud.std()) == pytest.approx(4, rel=1e-4)
    assert torch.equal(loud.argsort(), clip.loudness.argsort())


# One note


def test_a_note_is_random_by_seed_and_may_be_noise_alone():
    run = start("quick")
    note, again = experiments.note(run), experiments.note(run)
    other, alone = experiments.note(start("quick", 1)), experiments.note(run, False)
    assert all(map(torch.equal, note, again))
    assert not torch.allclose(note.f0, other.f0)
    assert (alone.amplitude == 0).all()
    assert torch.equal(alone.noise, note.noise) and torch.equal(alone.f0, note.f0)
    assert note.distribution.shape == (1, 100, 40) and note.noise.shape == (1, 100, 33)
    assert torch.allclose(note.distribution.sum(-1), torch.ones(1, 100))
    log = note.amplitude[0].double().log()
    slope = 100 * (log[-1] - log[0]) / 99
    assert -1.5 <= slope <= -0.5
    even = log[0] + slope * torch.arange(100) / 100
    assert torch.allclose(log, even, atol=1e-5)  # an exponential decay
    assert note.amplitude[0, 0] == pytest.approx(0.4)


def test_descent_finds_the_note():
    run = start("quick", harmonics=12, bands=9, seconds=0.5)
    notes = {
        name: experiments.fit_note(run, level=level)
        for name, level in experiments.NOISE.items()
    }
    noise = experiments.fit_note(run, False)
    measured = experiments.measure_recovers(notes, noise)
    assert measured["amplitudes_quiet"]["value"] < 0.05
    assert measured["amplitudes_quiet"]["value"] < measured["amplitudes_loud"]["value"]
    assert measured["noise_bias_alone"]["value"] < 1
    assert measured["noise_bias_beside"]["signed"] < 0  # (11a): too soft
    note = notes["quiet"]
    losses = note.history.curves["loss"]
    assert losses[-1] < 0.6 * losses[0]
    assert note.sound.shape == note.target.shape == (1, 8000)
    assert (noise.fitted.amplitude == 0).all()
    known = method.spectral_loss(note.sound, note.target)
    assert float(known) == pytest.approx(losses[-1], rel=0.3)


def test_loud_noise_is_fifteen_decibels_above_quiet_noise():
    quiet, loud = (experiments.note(start(), level=x) for x in (-55.0, -40.0))
    assert torch.allclose(loud.noise / quiet.noise, torch.tensor(10**0.75))
    assert torch.equal(quiet.distribution, loud.distribution)
    assert experiments.NOISE == {"quiet": -55, "loud": -40}
    assert -65 < 20 * float(quiet.noise.log10().mean()) < -45


def test_errors_of_a_note_are_relative_and_in_decibels():
    ones = torch.ones(1, 4)
    d = torch.tensor([0.5, 0.3, 0.2, 0.0]).expand(1, 4, 4)
    truth = Controls(300 * ones, 0.5 * ones, d, torch.full((1, 4, 5), 0.01))
    off = torch.tensor([0.55, 0.3, 0.1, 0.05]).expand(1, 4, 4)
    dB = torch.tensor([-1.0, 2.0, 3.0, 4.0, 9.0])
    louder = Controls(300 * ones, 0.5 * ones, off, 10 ** (dB / 20) * truth.noise)
    softer = truth._replace(noise=truth.noise * 10 ** (-2 / 20))

    def fit(fitted):
        return experiments.NoteFit(truth, fitted, ones, ones, History({}, 0.0, 0))

    notes = {"quiet": fit(louder), "loud": fit(softer)}
    measured = experiments.measure_recovers(notes, fit(softer))
    # errors 0.1, 0 and 0.5; what is above Nyquist has none
    off = {"value": 0.1, "high": 0.5}
    assert measured.pop("amplitudes_quiet") == pytest.approx(off, rel=1e-4)
    assert measured.pop("amplitudes_loud") == {"value": 0, "high": 0}
    known = {
        "noise_bias_alone": {"value": 2, "signed": -2},
        "noise_scatter_alone": {"value": 0},
        "noise_bias_beside": {"value": 3, "signed": 3},
        "noise_scatter_beside": {"value": 1},  # of 4, 1, 0, 1 and 6
    }
    assert measured.keys() == known.keys()
    for name, numbers in known.items():
        assert measured[name] == pytest.approx(numbers, abs=1e-4)


# Measurements


def test_losses_after_few_steps_are_compared_with_each_rival():
    run = start(examples=(1, 4))
    clip = reed(run, 3, "unseen")
    gains = {
        f"{kind}_{n}": 0.1 * i + 0.02 * n
        for i, kind in enumerate(experiments.KINDS)
        for n in (1, 4)
    } | {"filter_long": 0.5}
    models = {name: bare(Scaled(gain)) for name, gain in gains.items()}
    measured = experiments.measure_few_steps(run, models, clip)
    noise = method.white((3, 4000), run.generator("test"))
    losses = {
        name: float(method.spectral_loss(gain * noise, clip.audio))
        for name, gain in gains.items()
    }
    pairs = {
        f"few_steps_{kind}_{n}": (f"ddsp_{n}", f"{kind}_{n}")
        for n in (1, 4)
        for kind in ("plain", "filter")
    } | {"twice_the_steps": ("ddsp_4", "filter_long")}
    assert measured.keys() == pairs.keys()
    for name, (ours, rival) in pairs.items():
        assert measured[name] == {
            "value": pytest.approx(losses[ours] - losses[rival]),
            "ddsp": pytest.approx(losses[ours]),
            "rival": pytest.approx(losses[rival]),
            "floor": experiments.floor(run, clip),
        }
    far = experiments.measure_extrapolates(run, models, clip)
    assert far == {
        f"extrapolates_{kind}": measured[f"few_steps_{kind}_4"]
        for kind in ("plain", "filter")
    }


def test_a_small_decoder_meets_a_large_rival_and_one_of_its_size(monkeypatch):
    run = start(examples=(1, 2), small=3, small_filter=5)
    clip = reed(run, 2)
    losses = {"filter": 4.0, ("ddsp", 3): 3.5, ("filter", 5): 6.0}
    models = {"filter_2": bare("filter", 800)}

    def train(run, sounds, kind, n, hidden):
        assert n == 2 and sounds is clip
        return bare((kind, hidden), 20 if kind == "ddsp" else 25)

    monkeypatch.setattr(experiments, "train", train)
    monkeypatch.setattr(
        experiments, "loss_of", lambda run, trained, test: losses[trained.model]
    )
    measured = experiments.measure_small_model(run, clip, models, clip)
    shared = {"ddsp": 3.5, "parameters": 20, "floor": experiments.floor(run, clip)}
    large = {"value": -0.5, "rival": 4.0, "rival_parameters": 800}
    equal = {"value": -2.5, "rival": 6.0, "rival_parameters": 25}
    assert measured == {
        "small_model_large": large | shared,
        "small_model_equal": equal | shared,
    }


@pytest.mark.parametrize("profile", ["quick", "full"])
def test_the_small_sizes_are_what_the_claims_say(profile):
    """Over ten times smaller than the large rival; no larger than the equal one."""
    s = start(profile).settings
    synth = {"harmonics": s.harmonics, "bands": s.bands, "hop": s.hop}

    def parameters(model):
        return sum(p.numel() for p in model.parameters())

    def sizes(units):
        return {"hidden": units, "width": min(units, s.width), "layers": s.layers}

    def rival(**trunk):
        return parameters(
            experiments.Waveform(**trunk, hop=s.hop, fs=s.fs, source=True)
        )

    small = parameters(Decoder(**sizes(s.small), **synth))
    assert rival(hidden=s.hidden, width=s.width, layers=s.layers) > 10 * small
    assert small <= rival(**sizes(s.small_filter)) < 1.5 * small


class Mixing(nn.Module):
    """Plays sines whose pitch and level depend on the other control in known ways."""

    def __init__(self, cents, dB):
        super().__init__()
        self.trunk = Trunk(hidden=2, width=2, layers=1)
        self.trunk.mean, self.trunk.spread = torch.tensor(-10.0), torch.tensor(5.0)
        self.cents, self.dB = cents, dB

    def forward(self, f0, loud, noise):
        z = (loud - self.trunk.mean) / self.trunk.spread
        octave = torch.log2(f0 / 220)
        f = f0 * 2 ** (self.cents * z / 1200)
        weighting = a_weighting(f0.double()).float()
        level = loud - 19.8 - weighting + self.dB * octave * (z > 0.5)
        return method.harmonic_bank(f, 10 ** (level / 20)[..., None], 160)


@pytest.mark.parametrize(("cents", "dB"), [(0, 0), (4, 0), (0, 3), (10, 2)])
def test_disentangled_measures_what_a_decoder_mixes(cents, dB):
    run = start("quick")
    measured, moved = experiments.measure_disentangled(run, Mixing(cents, dB))
    loud = measured["disentangled_loudness"]
    assert measured.keys() == {"disentangled_loudness"}
    assert moved == pytest.approx(2 * cents, abs=1)
    assert loud["value"] == pytest.approx(dB * 10 / 12, abs=0.6)
    assert loud["value"] == max(loud["low"], loud["middle"], loud["high"])
    assert max(loud["low"], loud["middle"]) < 0.6


# The pitch


def tone(f0, frames, harmonics):
    """A steady tone of harmonics 1 / k, by the bank."""
    A = 1 / torch.arange(1.0, harmonics + 1, dtype=torch.float64)
    f0 = torch.full((frames,), f0, dtype=torch.float64)
    return method.harmonic_bank(f0, (A / A.sum()).expand(frames, harmonics), 160)


def test_the_landscape_is_the_loss_of_two_tones():
    run = start("quick", seconds=0.5)
    semitones = torch.tensor([-12.0, -0.3, 0.0, 0.3, 7.0])
    both, linear, log = (
        experiments.landscape(run, 220.0, semitones, **weights)
        for weights in ({}, {"log": 0}, {"linear": 0})
    )
    assert both[2] < 1e-3
    assert torch.allclose(both, linear + log, rtol=1e-4)
    assert both.argmin() == 2 and linear.argmin() == 2 and log.argmin() == 2
    tones = [tone(220 * 2 ** (z / 12), 50, 40) for z in (0, 7)]
    known = float(method.spectral_loss(tones[1], tones[0]))
    assert float(both[4]) == pytest.approx(known, rel=1e-2)


def test_descents_start_on_both_sides_go_downhill_and_slow_down(monkeypatch):
    run, calls = start(starts=18, pitch_steps=6, harmonics=20), []

    def tones(run, f0, seconds):
        calls.append(f0.detach().clone())
        return real(run, f0, seconds)

    real = experiments._tones
    monkeypatch.setattr(experiments, "_tones", tones)
    paths = experiments.descend(run)
    home, first = calls[:2]
    assert paths.shape == (7, 18) and home.shape == (18,)
    assert 155 < home.min() < home.max() < 312 and len(home.unique()) == 18
    assert torch.allclose(12 * torch.log2(first / home), paths[0])
    for away in (-paths[0, :9], paths[0, 9:]):
        part = ((away - 1) / 11 * 9).floor()
        assert part.tolist() == list(range(9))
    steps = paths.diff(dim=0)
    assert steps[0].abs().min() > 0.149 and steps.abs().max() < 0.3
    assert steps[-1].abs().max() < 0.06  # the rate falls to 0
    others = experiments.descend(start(seed=1, starts=18, pitch_steps=1))
    assert not torch.allclose(paths[0], others[0])

    def loss(f0, semitones):
        pair = (tone(f0 * 2 ** (z / 12), 25, 20)[:3968] for z in (semitones, 0))
        return float(method.spectral_loss(*pair))

    for i in range(0, 18, 4):
        at, f0 = float(paths[0, i]), float(home[i])
        slope = loss(f0, at + 1e-4) - loss(f0, at - 1e-4)
        assert slope * steps[0, i] < 0


def test_within_20_cents_counts_as_a_success():
    ends = torch.tensor([-0.19, 0.21, 0.1, 12.0, -12.0])
    share = {"value": 0.4, "successes": 2.0, "trials": 5.0}
    paths = torch.stack([0 * ends, ends])
    assert experiments.measure_pitch(paths) == {"pitch_not_found": share}


# Recordings


def two_notes(rate=16_000, f0=200.0):
    """Two tones an octave apart with a second of silence between them, [2.5 s]."""
    t = np.arange(int(0.75 * rate)) / rate
    tones = [
        sum(np.sin(2 * np.pi * k * f * t) / k for k in range(1, 6)) / 4
        for f in (f0, 2 * f0)
    ]
    return np.concatenate([tones[0], np.zeros(rate), tones[1]])


@NIGHTLY  # librosa compiles its pitch tracker first
def test_a_recording_has_a_pitch_everywhere_and_its_silence_is_loudness():
    audio, f0, loud, truth = experiments.annotate(start(), two_notes(), 16_000)
    assert audio.shape == (1, 40_000) and f0.shape == loud.shape == (1, 250)
    assert audio.dtype == f0.dtype == loud.dtype == torch.float32
    assert f0.isfinite().all() and truth is None
    cents = 1200 * torch.log2(f0[0] / 200)
    assert cents[10:65].abs().max() < 15 and (cents[185:240] - 1200).abs().max() < 15
    assert (cents.diff() > -20).all()  # continued in octaves, never back
    assert 300 < cents[125] < 900
    assert (loud[0, 80:170] == -80).all() and loud[0, 10:65].min() > 0


@NIGHTLY
def test_recordings_without_pitch_or_length_are_refused():
    run = start()
    refused(
        "has no pitch anywhere",
        lambda: experiments.annotate(run, np.zeros(8000), 16_000),
    )
    refused(
        "has 1920 samples at 16000 a second",
        lambda: experiments.annotate(run, two_notes()[:2000], 16_000),
    )


def test_the_small_recordings_bring_their_pitch():
    run = start(real_steps=2)
    clips = experiments.recordings(run)
    assert list(clips) == ["flute_A4", "cello_phrase"]
    z = data.load("audio_clips_small")
    for clip, (a, b) in zip(clips.values(), ((0, 120), (120, 360)), strict=True):
        assert np.array_equal(clip.f0[0], z["f0"][a:b])
        sound = z["samples"][160 * a : 160 * b] / 32768
        assert torch.equal(clip.audio[0], torch.tensor(sound).float())
        assert torch.equal(clip.loudness, method.loudness(clip.audio, 16_000, 100))


@NIGHTLY
@pytest.mark.skipif(
    not (data.folder() / "audio_clips.npz").is_file(),
    reason="audio_clips.npz is not on this machine",
)
def test_recordings_are_learned_each_on_its_own(monkeypatch):
    z = data.load("audio_clips")
    assert len(z["names"]) == 10 and z["names"][-1] == "piano"
    kept = [0, 4, 9]  # flute, soprano, piano
    parts = [z["samples"][z["offsets"][i] : z["offsets"][i + 1]][:16_000] for i in kept]
    few = z | {
        "samples": np.concatenate(parts),
        "offsets": np.cumsum([0, *map(len, parts)]),
        "names": z["names"][kept],
    }
    monkeypatch.setattr(data, "load", {"audio_clips": few}.__getitem__)
    run = start(real_steps=2, batch=2, room=300, seconds=0.5, recordings="audio_clips")
    clips = experiments.recordings(run)
    assert list(clips) == ["flute_A4", "soprano_E4"]
    audio, f0, _, _ = clips["flute_A4"]
    assert np.array_equal((audio[0] * 32768).numpy(), parts[0])
    assert abs(1200 * math.log2(float(f0.median()) / 440)) < 40
    models = {
        n: experiments.train_real(run, clip, n).model for n, clip in clips.items()
    }
    for name, model in models.items():
        mean, _ = experiments.statistics(clips[name].loudness)
        assert float(model.trunk.mean) == pytest.approx(float(mean))
        assert model.room[1:].abs().max() > 0  # it was trained
    wet, dry = experiments.dereverberate(run, models["flute_A4"], clips["flute_A4"])
    assert wet.shape == dry.shape == audio.shape
    assert not torch.equal(wet, dry)
    voice = clips["soprano_E4"]
    sound = experiments.transfer(run, models["flute_A4"], voice)
    assert sound.shape == voice.audio.shape and sound.isfinite().all()


def test_a_short_recording_is_learned_whole_and_without_a_room_there_is_none():
    run = start(real_steps=2, steps=1, batch=2, room=20, seconds=4.0)
    clip = reed(start(seconds=0.5), 1)
    model = experiments.train_real(run, clip, "short").model
    wet, dry = experiments.dereverberate(run, model, clip)
    assert wet.shape == dry.shape == (1, 8000)
    plain = experiments.train(run, clip, "ddsp", 1).model
    refused(
        "no room: give one from train_real",
        lambda: experiments.dereverberate(run, plain, clip),
    )


def test_a_room_is_no_longer_than_a_training_window_can_hear():
    """Taps beyond it get gradients of rounding, of which Adam makes full steps."""
    run = start(real_steps=4, batch=1, seconds=0.25)
    clip = reed(start(seconds=0.5), 1)
    room = experiments.train_real(run, clip, "cut").model.room
    assert room.shape == (4000,) and run.settings.room == 48_000
    model = experiments._network(run, "ddsp", 6, 8, room=8000)
    made = experiments._loop(run, model, clip, 4, 1e-2)
    for t in range(4):
        made.step(t)
    gradient, taps = model.room.grad, model.room.detach()
    assert gradient[4000:].abs().max() < 1e-4 * gradient[:4000].abs().max()
    rms = [x.square().mean().sqrt() for x in (taps[:4000], taps[4000:])]
    assert rms[1] > 0.5 * rms[0]  # as large as those that are heard
    short = experiments.train_real(start(real_steps=1, room=20), clip, "short").model
    assert short.room.shape == (20,)
