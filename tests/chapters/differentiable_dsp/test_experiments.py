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
from iclrtut.chapters.differentiable_dsp import experiments, method
from iclrtut.chapters.differentiable_dsp.decoder import Decoder, Trunk
from iclrtut.chapters.differentiable_dsp.experiments import Clip
from iclrtut.chapters.differentiable_dsp.method import Controls
from iclrtut.train import History

SLUG = "differentiable_dsp"
folder, start = runs.folder, runs.of(SLUG)


def reed(run, n, name="train"):
    return experiments.clips(run, "reed", n, name)


# Sounds


@pytest.mark.parametrize("name", experiments.INSTRUMENTS)
def test_the_sound_of_an_instrument_depends_on_pitch_and_level(name):
    run = start("quick")
    f0, level = torch.tensor([[220.0, 220, 440]]), torch.tensor([[0.4, 1.0, 1.0]])
    sound = experiments.perform(run, name, f0, level)
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


def test_instruments_differ_and_unknown_ones_are_refused():
    run = start()
    f0, level = torch.full((1, 4), 300.0), torch.full((1, 4), 0.8)
    one, two = (experiments.perform(run, name, f0, level) for name in ("reed", "glass"))
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
    mean, spread = experiments._statistics(loud)
    assert mean == -15 and spread == pytest.approx(50**0.5, rel=1e-5)
    mean, spread = experiments._statistics(torch.full((1, 5), -80.0))
    assert mean == -80 and 0 < spread < 0.01


def test_all_are_trained_by_name_and_small_ones_are_smaller():
    run = start(steps=1, examples=(1, 2))
    clip = reed(run, 2)
    models = experiments.train_all(run, clip)
    names = ["ddsp_1", "plain_1", "filter_1", "ddsp_2", "plain_2", "filter_2"]
    assert list(models) == names
    for name, each in models.items():
        if name.startswith("ddsp"):
            assert type(each.model) is Decoder
        else:
            assert each.model.source is name.startswith("filter")
    for hidden, units in ((3, (3, 3)), (20, (20, 8))):
        small = experiments.train(run, clip, "ddsp", 2, hidden=hidden)
        trunk = small.model.trunk
        assert (trunk.gru.hidden_size, trunk.out[0].out_features) == units


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
    note, noise = experiments.fit_note(run), experiments.fit_note(run, False)
    measured = experiments.measure_recovers(note, noise)
    assert measured["recovers_amplitudes"]["value"] < 0.05
    assert measured["recovers_noise_alone"]["value"] < 1
    assert measured["recovers_noise_beside"]["signed"] < 0  # (11): too soft
    losses = note.history.curves["loss"]
    assert losses[-1] < 0.6 * losses[0]
    assert note.sound.shape == note.target.shape == (1, 8000)
    assert (noise.fitted.amplitude == 0).all()
    known = method.spectral_loss(note.sound, note.target)
    assert float(known) == pytest.approx(losses[-1], rel=0.3)


def test_errors_of_a_note_are_relative_and_in_decibels():
    ones = torch.ones(1, 4)
    d = torch.tensor([0.5, 0.3, 0.2, 0.0]).expand(1, 4, 4)
    truth = Controls(300 * ones, 0.5 * ones, d, torch.full((1, 4, 5), 0.01))
    off = torch.tensor([0.55, 0.3, 0.1, 0.05]).expand(1, 4, 4)
    louder = Controls(300 * ones, 0.5 * ones, off, 10 ** (3 / 20) * truth.noise)
    softer = truth._replace(noise=truth.noise * 10 ** (-2 / 20))

    def fit(fitted):
        return experiments.NoteFit(truth, fitted, ones, ones, History({}, 0.0, 0))

    measured = experiments.measure_recovers(fit(louder), fit(softer))
    # errors 0.1, 0 and 0.5; what is above Nyquist has none
    assert measured["recovers_amplitudes"] == pytest.approx(
        {"value": 0.1, "high": 0.5}, rel=1e-4
    )
    alone = {"value": 2, "signed": -2, "high": 2}
    assert measured["recovers_noise_alone"] == pytest.approx(alone, rel=1e-4)
    beside = {"value": 3, "signed": 3, "high": 3}
    assert measured["recovers_noise_beside"] == pytest.approx(beside, rel=1e-4)


# Measurements


def test_small_data_compares_losses_at_every_size():
    run = start(examples=(1, 4))
    clip = reed(run, 3, "unseen")
    gains = {
        f"{kind}_{n}": 0.1 * i + 0.02 * n
        for i, kind in enumerate(experiments.KINDS)
        for n in (1, 4)
    }
    models = {name: bare(Scaled(gain)) for name, gain in gains.items()}
    measured = experiments.measure_small_data(run, models, clip)
    noise = method.white((3, 4000), run.generator("test"))
    losses = {
        name: float(method.spectral_loss(gain * noise, clip.audio))
        for name, gain in gains.items()
    }
    assert len(measured) == 4
    for n in (1, 4):
        for kind in ("plain", "filter"):
            assert measured[f"small_data_{kind}_{n}"] == {
                "value": pytest.approx(losses[f"ddsp_{n}"] - losses[f"{kind}_{n}"]),
                "ddsp": pytest.approx(losses[f"ddsp_{n}"]),
                kind: pytest.approx(losses[f"{kind}_{n}"]),
                "floor": experiments.floor(run, clip),
            }
    far = experiments.measure_extrapolates(run, models, clip)
    assert far == {
        f"extrapolates_{kind}": measured[f"small_data_{kind}_4"]
        for kind in ("plain", "filter")
    }


@pytest.mark.parametrize(
    ("small", "large", "ddsp", "best"),
    [
        (3.9, 4.5, 3.0, {"value": 40, "parameters": 20, "loss": 3.9}),
        (4.5, 4.0, 3.0, {"value": 16, "parameters": 50, "loss": 4.0}),
        (4.5, 4.1, 4.2, {"value": 0, "parameters": 0, "loss": 4.1}),
    ],
)
def test_the_smallest_that_is_good_enough_is_compared(
    monkeypatch, small, large, ddsp, best
):
    run = start(examples=(1, 2), tiny=(3, 5))
    clip = reed(run, 2)
    losses = {"plain": 5.0, "filter": 4.0, "ddsp": ddsp, 3: small, 5: large}
    counts = {"plain": 900, "filter": 800, "ddsp": 200, 3: 20, 5: 50}
    named = {name: bare(name, n) for name, n in counts.items()}
    models = {f"{kind}_{n}": named[kind] for kind in experiments.KINDS for n in (1, 2)}

    def train(run, sounds, kind, n, hidden):
        assert (kind, n) == ("ddsp", 2) and sounds is clip
        return named[hidden]

    monkeypatch.setattr(experiments, "train", train)
    monkeypatch.setattr(
        experiments, "loss_of", lambda run, trained, test: losses[trained.model]
    )
    measured = experiments.measure_small_model(run, clip, models, clip)
    rival = {"waveform_parameters": 800, "waveform_loss": 4.0}
    floor = experiments.floor(run, clip)
    assert measured == {"small_model": best | rival | {"floor": floor}}


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
    measured = experiments.measure_disentangled(run, Mixing(cents, dB))
    pitch, loud = measured["disentangled_pitch"], measured["disentangled_loudness"]
    assert pitch["value"] == pytest.approx(2 * cents, abs=1)
    assert pitch["middle"] == pytest.approx(2 * cents, abs=1)
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


def test_descents_start_on_both_sides_go_downhill_and_slow_down():
    run = start(starts=18, pitch_steps=6, harmonics=20)
    f0, paths = experiments.descend(run)
    assert paths.shape == (7, 18) and 155 < f0 < 312
    for away in (-paths[0, :9], paths[0, 9:]):
        part = ((away - 1) / 11 * 9).floor()
        assert part.tolist() == list(range(9))
    steps = paths.diff(dim=0)
    assert steps[0].abs().min() > 0.149 and steps.abs().max() < 0.3
    assert steps[-1].abs().max() < 0.06  # the rate falls to 0
    assert f0 != experiments.descend(start(seed=1, starts=18, pitch_steps=1)).f0

    def loss(semitones):
        one, two = (tone(f0 * 2 ** (z / 12), 25, 20)[:3968] for z in (semitones, 0))
        return float(method.spectral_loss(one, two))

    for at, step in zip(paths[0, ::4].tolist(), steps[0, ::4], strict=True):
        assert (loss(at + 1e-4) - loss(at - 1e-4)) * step < 0


def test_within_20_cents_counts_as_a_success():
    ends = torch.tensor([-0.19, 0.21, 0.1, 12.0, -12.0])
    descent = experiments.Descent(220.0, torch.stack([0 * ends, ends]))
    share = {"value": 0.4, "successes": 2.0, "trials": 5.0}
    assert experiments.measure_pitch(descent) == {"pitch_is_hard": share}


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
    run = start(real_steps=2, batch=2, room=300, seconds=0.5)
    clips = experiments.recordings(run)
    assert list(clips) == ["flute_A4", "soprano_E4"]
    audio, f0, _, _ = clips["flute_A4"]
    assert np.array_equal((audio[0] * 32768).numpy(), parts[0])
    assert abs(1200 * math.log2(float(f0.median()) / 440)) < 40
    models = {
        n: experiments.train_real(run, clip, n).model for n, clip in clips.items()
    }
    for name, model in models.items():
        mean, _ = experiments._statistics(clips[name].loudness)
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
