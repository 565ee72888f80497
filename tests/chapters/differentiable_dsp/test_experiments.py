"""The experiments of the chapter on DDSP, against independent routes."""

import base64
import io
import math
import wave

import numpy as np
import pytest
import started
import torch
from drawn import rng
from scipy import signal
from torch import nn

from iclrtut import data as sets
from iclrtut.chapters.differentiable_dsp import experiments as lab
from iclrtut.chapters.differentiable_dsp import method as chapter
from iclrtut.chapters.differentiable_dsp.method import Controls
from iclrtut.errors import BadRequest
from iclrtut.train import History

SLUG = "differentiable_dsp"
folder, start = started.folder, started.of(SLUG)


def reed(run, n, name="train", octave=0):
    return lab.clips(run, lab.instrument(run, "reed"), n, name, octave)


# Sounds


@pytest.mark.parametrize("name", lab.INSTRUMENTS)
def test_an_instrument_owes_its_sound_to_pitch_and_level(name):
    run = start("quick")
    sound = lab.instrument(run, name)
    f0 = torch.tensor([[220.0, 220, 440]])
    made = sound(f0, torch.tensor([[0.4, 1.0, 1.0]]))
    assert made.amplitude.shape == (1, 3)
    assert made.distribution.shape == (1, 3, 40)
    assert made.noise.shape == (1, 3, 33)
    assert torch.allclose(made.distribution.sum(-1), torch.ones(1, 3))
    assert (made.distribution[0, 2, 18:] == 0).all()  # 19 * 440 is above 8,000
    assert (made.noise > 0).all()
    k = torch.arange(1.0, 41)
    soft, loud, high = (made.distribution[0] * k).sum(-1)
    assert soft < loud  # louder is brighter
    assert abs(high - loud) > 0.05
    assert made.amplitude[0, 1] / made.amplitude[0, 0] == pytest.approx(10**0.9)
    assert (made.noise[0, 1] > made.noise[0, 0]).all()
    assert not torch.allclose(made.noise[0, 1], made.noise[0, 2])


def test_instruments_differ_and_unknown_ones_are_refused():
    run = start()
    f0, level = torch.full((1, 4), 300.0), torch.full((1, 4), 0.8)
    one, two = (lab.instrument(run, name)(f0, level) for name in ("reed", "glass"))
    assert (one.distribution - two.distribution).abs().max() > 0.05
    with pytest.raises(BadRequest, match=r"no instrument 'drum': use reed, glass\."):
        lab.instrument(run, "drum")


def test_melodies_stay_within_their_octave():
    run = start("quick")
    f0, level = lab.melodies(run, 40, "many")
    assert f0.shape == level.shape == (40, 100)
    assert f0.dtype == level.dtype == torch.float32
    cents = 1200 * torch.log2(f0.double() / 220)
    assert -30.1 < cents.min() < 100 and 1100 < cents.max() < 1230.1
    assert level.min() >= 0 and 0.9 < level.max() <= 1
    jumps = cents.diff(dim=1).abs() > 100
    assert 1 <= jumps.sum(1).double().mean() <= 6  # several notes a second
    within = cents.diff(dim=1).abs()[~jumps]
    assert within.max() > 5  # vibrato
    high, again = lab.melodies(run, 40, "many", octave=1)
    assert torch.allclose(high, 2 * f0)
    assert torch.equal(again, level)


def test_melodies_are_fresh_by_name_and_seed():
    run = start()
    first, same, named = (lab.melodies(run, 2, n)[0] for n in ("a", "a", "b"))
    other = lab.melodies(start(seed=1), 2, "a")[0]
    assert torch.equal(first, same)
    assert not torch.allclose(first, named)
    assert not torch.allclose(first, other)
    assert not torch.allclose(first[0], first[1])


def test_clips_are_what_their_truth_says():
    run = start()
    clip = reed(run, 3)
    s = run.settings
    noise = chapter.white((3, 4000), run.generator("train noise"))
    assert torch.equal(clip.audio, chapter.synthesise(clip.truth, noise, 160))
    assert torch.equal(clip.f0, clip.truth.f0)
    assert torch.equal(clip.loudness, chapter.loudness(clip.audio, s.fs, s.rate))
    assert clip.loudness.shape == clip.f0.shape == (3, 25)
    other = chapter.white((3, 4000), run.generator("floor"))
    again = chapter.synthesise(clip.truth, other, 160)
    known = float(chapter.spectral_loss(again, clip.audio))
    assert lab.floor(run, clip) == known > 0.5


# Decoders


def test_the_solo_recipe_has_the_number_of_parameters_of_12():
    full = start("full").settings
    solo = lab.Decoder(full, full.hidden, full.width, 48_000)
    sizes = (512, 512, 3, 60, 65)
    assert lab.Decoder.count(*sizes) == 4_801_150
    assert sum(p.numel() for p in solo.parameters()) == 4_849_150
    assert lab.Decoder.count(*sizes, 48_000) == 4_849_150
    parts = {
        "pitch": 529_408,
        "loud": 529_408,
        "gru": 2_362_368,
        "out": 1_315_328,
    }
    for name, known in parts.items():
        part = getattr(solo.trunk, name)
        assert sum(p.numel() for p in part.parameters()) == known
    assert sum(p.numel() for p in solo.head.parameters()) == 64_638


@pytest.mark.parametrize("sizes", [(48, 32, 1), (4, 4, 1), (7, 5, 2), (3, 11, 4)])
def test_the_formula_counts_every_decoder(sizes):
    hidden, width, layers = sizes
    s = start("quick", layers=layers).settings
    model = lab.Decoder(s, hidden, width)
    found = sum(p.numel() for p in model.parameters())
    assert found == lab.Decoder.count(hidden, width, layers, 40, 33)


def test_a_decoder_gives_controls_that_sound():
    run = start()
    torch.manual_seed(0)
    model = lab.Decoder(run.settings, 6, 8)
    f0 = torch.full((2, 25), 900.0)
    f0[1] = 300
    loud = torch.linspace(-40, 10, 25).expand(2, -1)
    made = model.controls(f0, loud)
    assert torch.equal(made.f0, f0)
    assert made.amplitude.shape == (2, 25)
    assert made.distribution.shape == (2, 25, 12)
    assert made.noise.shape == (2, 25, 9)
    assert (made.distribution[0, :, 8:] == 0).all()
    assert (made.distribution[1, :, 8:] > 0).all()
    assert torch.allclose(made.distribution.sum(-1), torch.ones(2, 25))
    noise = chapter.white((2, 4000), rng())
    sound = model(f0, loud, noise)
    assert torch.equal(sound, chapter.synthesise(made, noise, 160))
    assert not torch.equal(sound, model(f0, loud, -noise))
    assert made.noise.mean() < 1e-3  # quiet at first


def test_a_decoder_hears_the_past_and_its_statistics():
    torch.manual_seed(0)
    trunk = lab.Trunk(6, 8, 1)
    f0, loud = torch.full((1, 10), 300.0), torch.zeros(1, 10)
    told = trunk(f0, loud)
    later = loud.clone()
    later[0, 4] = -3
    moved = (trunk(f0, later) - told).abs().amax(-1)[0]
    assert (moved[:4] == 0).all() and (moved[4:] > 0).all()
    centred = trunk(f0, later)
    trunk.mean, trunk.spread = torch.tensor(5.0), torch.tensor(2.0)
    assert torch.allclose(trunk(f0, 5 + 2 * later), centred, atol=1e-6)


@pytest.mark.parametrize("rate", [100, 250, 640, 3200])  # hops of 160, 64, 25, 5
@pytest.mark.parametrize("source", [False, True])
def test_waveforms_have_a_hop_for_each_frame(rate, source):
    s = start(rate=rate, width=16).settings
    model = lab.Waveform(s, 6, 16, source)
    hop = 16_000 // rate
    assert math.prod(model.strides) == hop
    sound = model(torch.full((2, 7), 300.0), torch.zeros(2, 7), torch.zeros(2, 7 * hop))
    assert sound.shape == (2, 7 * hop)


class Kept:
    """A hook that keeps what a module was given last."""

    def __call__(self, module, inputs):
        (self.seen,) = inputs


def test_only_the_source_filter_hears_a_sine_and_both_hear_noise():
    s = start().settings
    f0, loud = torch.full((1, 25), 300.0), torch.zeros(1, 25)
    noise = chapter.white((1, 4000), rng())
    for source in (False, True):
        torch.manual_seed(0)
        model = lab.Waveform(s, 6, 8, source)
        for layer in model.trunk.pitch:
            for p in layer.parameters():
                nn.init.zeros_(p)  # the trunk is deaf to pitch
        same = torch.equal(model(f0, loud, noise), model(1.5 * f0, loud, noise))
        assert same is not source
        assert not torch.equal(model(f0, loud, noise), model(f0, loud, -noise))
        if source:
            narrow = s.width // 2
            weight = model.down[0].weight.detach()
            nn.init.zeros_(model.down[0].weight[:, : narrow - 1])
            model.down[0].weight.data[:, narrow - 1] = weight[:, narrow - 1]
            kept = Kept()
            model.down.register_forward_pre_hook(kept)
            model(f0, loud, noise)
            sine = torch.sin(2 * torch.pi * 300 * torch.arange(1, 4001) / 16_000)
            assert torch.allclose(kept.seen[0, -1], sine, atol=1e-3)
            assert torch.equal(kept.seen[0, -2], noise[0])


def test_a_room_is_heard_after_the_sound_itself():
    run = start()
    torch.manual_seed(0)
    model = lab.Decoder(run.settings, 6, 8, 50)
    f0, loud = torch.full((1, 25), 300.0), torch.zeros(1, 25)
    noise = chapter.white((1, 4000), rng())
    dry = model(f0, loud, noise, wet=False)
    assert torch.allclose(model(f0, loud, noise), dry, atol=1e-6)
    with torch.no_grad():
        model.room[0] = 7.0  # never heard
        model.room[5] = 0.5
    late = torch.cat([torch.zeros(1, 5), dry[:, :-5]], 1)
    assert torch.allclose(model(f0, loud, noise), dry + late / 2, atol=1e-6)
    assert torch.equal(model(f0, loud, noise, wet=False), dry)


# Training


def weights(trained):
    return list(trained.model.state_dict().values())


def equal(one, two):
    return all(map(torch.equal, weights(one), weights(two)))


def test_training_refuses_what_does_not_fit():
    run = start()
    clip = reed(run, 2)
    with pytest.raises(
        BadRequest, match=r"no decoder 'wavenet': use ddsp, plain, filter\."
    ):
        lab.train(run, clip, "wavenet", 1)
    for n in (0, 3):
        with pytest.raises(BadRequest, match=f"{n} examples were asked of 2 clips"):
            lab.train(run, clip, "ddsp", n)


def watched(monkeypatch, run, clip, kind, examples):
    """Train, and return noises and batches of all steps, and what fit was given."""
    noises, batches, given = [], [], {}
    white, draw, fit = lab.white, lab.Recording.draw, lab.fit

    def seen_white(shape, g):
        noises.append(white(shape, g))
        return noises[-1]

    def seen_draw(self, n, frames, g):
        batches.append(draw(self, n, frames, g))
        return batches[-1]

    def seen_fit(loss_at, optimizer, steps, **how):
        given.update(how, rate=optimizer.param_groups[0]["lr"], steps=steps)
        history = fit(loss_at, optimizer, steps, **how)
        given["last"] = optimizer.param_groups[0]["lr"]
        return history

    with monkeypatch.context() as patch:
        patch.setattr(lab, "white", seen_white)
        patch.setattr(lab.Recording, "draw", seen_draw)
        patch.setattr(lab, "fit", seen_fit)
        trained = lab.train(run, clip, kind, examples)
    return trained, noises, batches, given


def test_kinds_share_trunk_steps_and_batches_and_hear_fresh_noise(monkeypatch):
    run = start(
        steps=4, batch=3, lr=1e-2, wave_lr=2e-2, filter_lr=3e-2, examples=(1, 2)
    )
    clip = reed(run, 3)
    seen = []
    for kind, rate in (("ddsp", 1e-2), ("plain", 2e-2), ("filter", 3e-2)):
        trained, noises, batches, given = watched(monkeypatch, run, clip, kind, 2)
        assert given["steps"] == len(noises) == len(batches) == 4
        assert given["rate"] == rate and given["last"] == 0
        assert len(trained.history.curves["loss"]) == 4
        assert trained.parameters == sum(p.numel() for p in trained.model.parameters())
        assert not trained.model.training
        for i in range(4):
            for j in range(i):
                assert not torch.equal(noises[i], noises[j])
            assert noises[i].shape == (3, 4000)
        assert not torch.equal(noises[0][0], noises[0][1])
        seen.append((noises, batches))
    for noises, batches in seen[1:]:
        for one, two in zip(noises, seen[0][0], strict=True):
            assert torch.equal(one, two)
        for one, two in zip(batches, seen[0][1], strict=True):
            assert all(map(torch.equal, one, two))
    rows = torch.cat([batch[0] for batch in seen[0][1]])
    found = torch.cdist(rows, clip.audio).argmin(1)
    assert set(found.tolist()) == {0, 1}  # never the third


def test_kinds_begin_from_the_same_trunk(monkeypatch):
    run, firsts = start(), []
    clip, fit = reed(run, 1), lab._fit

    def seen(run, model, *rest):
        firsts.append({k: v.clone() for k, v in model.trunk.state_dict().items()})
        return fit(run, model, *rest)

    monkeypatch.setattr(lab, "_fit", seen)
    for kind in lab.KINDS:
        lab.train(run, clip, kind, 1)
    lab.train(start(seed=1), clip, "ddsp", 1)
    one, two, three, other = firsts
    for name, known in one.items():
        assert torch.equal(known, two[name]) and torch.equal(known, three[name])
    assert not torch.equal(one["gru.weight_hh_l0"], other["gru.weight_hh_l0"])


def test_a_batch_is_a_window_of_what_belongs_together():
    frame = torch.arange(200.0).view(2, 100)  # row 0: 0 to 99, row 1: 100 to 199
    sounds = lab.Recording(frame.repeat_interleave(5, 1), frame, -frame)
    audio, f0, loud = sounds.draw(64, 30, rng())
    assert audio.shape == (64, 150)
    assert torch.equal(audio, f0.repeat_interleave(5, 1))
    assert torch.equal(f0, -loud)
    assert (f0.diff(dim=1) == 1).all()
    starts = f0[:, 0]
    assert set((starts >= 100).tolist()) == {True, False}
    assert len(starts.unique()) > 20 and (starts % 100).max() <= 70
    whole = sounds.draw(5, 100, rng())[1]
    assert set(whole[:, 0].tolist()) == {0.0, 100.0}


def test_loudness_is_centred_by_the_training_set_only():
    run = start(steps=3)
    clip = reed(run, 3)
    louder = clip._replace(
        loudness=torch.cat([clip.loudness[:2], clip.loudness[2:] + 20]),
        audio=torch.cat([clip.audio[:2], 10 * clip.audio[2:]]),
    )
    run.folder = None
    for kind in lab.KINDS:
        one, two = (lab.train(run, each, kind, 2) for each in (clip, louder))
        assert equal(one, two)
        trunk, known = one.model.trunk, clip.loudness[:2].double()
        assert known.min() > known.max() - 50
        assert float(trunk.mean) == pytest.approx(float(known.mean()), rel=1e-5)
        assert float(trunk.spread) == pytest.approx(float(known.std()), rel=1e-5)
        three = lab.train(run, louder, kind, 3)
        assert three.model.trunk.mean > trunk.mean + 3


def test_silence_does_not_count_in_the_statistics():
    loud = torch.tensor([[-80.0, -10, -20, -80], [-80, -80, -80, -61]])
    mean, spread = lab._statistics(loud)
    assert mean == -15 and spread == pytest.approx(50**0.5, rel=1e-5)
    mean, spread = lab._statistics(torch.full((1, 5), -80.0))
    assert mean == -80 and 0 < spread < 0.01


def disturbed(monkeypatch, call, at):
    """Call once with a kill at that step of the optimiser, then again."""
    real, left = torch.optim.Adam.step, iter(range(at - 1))

    def step(self, *args):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return real(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", step)
        with pytest.raises(KeyboardInterrupt):
            call()
    return call()


@pytest.mark.parametrize("kind", lab.KINDS)
def test_a_killed_training_ends_with_the_same_bits(monkeypatch, kind):
    run = start(steps=7, every=2, batch=2)
    clip = reed(run, 2)
    known = lab.train(start(steps=7, every=2, batch=2), clip, kind, 2, name="known")
    found = disturbed(monkeypatch, lambda: lab.train(run, clip, kind, 2), 6)
    assert found.history.resumed_at == 4
    assert found.history.curves == known.history.curves
    assert equal(found, known)
    once = lab.train(run, clip, kind, 2)  # done already
    assert once.history.resumed_at == 7 and equal(once, known)
    changed = lab.train(run, clip._replace(audio=0.9 * clip.audio), kind, 2)
    assert changed.history.resumed_at == 0  # other data, so anew


def test_a_killed_fit_and_a_killed_descent_end_with_the_same_bits(
    monkeypatch, tmp_path
):
    run = start(note_steps=7, pitch_steps=7, every=2)
    results = []
    for folder, kill in (("one", False), ("two", True)):
        run.folder = tmp_path / folder
        for call in (
            lambda: lab.fit_note(run),
            lambda: lab.fit_note(run, False),
            lambda: lab.descend(run),
        ):
            results.append(disturbed(monkeypatch, call, 6) if kill else call())
    note, noise, descent, note_2, noise_2, descent_2 = results
    for one, two in ((note, note_2), (noise, noise_2)):
        assert two.history.resumed_at == 4 and one.history.resumed_at == 0
        assert one.history.curves == two.history.curves
        assert all(map(torch.equal, one.fitted, two.fitted))
        assert torch.equal(one.sound, two.sound)
    assert all(map(torch.equal, descent[1:], descent_2[1:]))


def test_all_are_trained_by_name_and_small_ones_are_smaller():
    run = start(steps=1, examples=(1, 2))
    clip = reed(run, 2)
    models = lab.train_all(run, clip)
    names = ["ddsp_1", "plain_1", "filter_1", "ddsp_2", "plain_2", "filter_2"]
    assert list(models) == names
    s = run.settings
    for name, each in models.items():
        kind = lab.Decoder if name.startswith("ddsp") else lab.Waveform
        assert type(each.model) is kind
        if kind is lab.Waveform:
            assert each.model.source is name.startswith("filter")
        else:
            known = lab.Decoder.count(6, 8, 1, s.harmonics, s.bands)
            assert each.parameters == known
    small = lab.train(run, clip, "ddsp", 2, hidden=3, name="small")
    assert small.parameters == lab.Decoder.count(3, 3, 1, s.harmonics, s.bands)
    large = lab.train(run, clip, "ddsp", 2, hidden=20, name="large")
    assert large.parameters == lab.Decoder.count(20, 8, 1, s.harmonics, s.bands)


def test_a_decoder_learns_what_it_is_shown():
    run = start(seconds=0.5, hidden=16, width=16, steps=60, lr=2e-2, batch=1)
    clip = reed(run, 2)
    trained = lab.train(run, clip, "ddsp", 2)
    losses = trained.history.curves["loss"]
    assert losses[-1] < 0.5 * losses[0]
    assert lab.loss_of(run, trained, clip) < lab.floor(run, clip) + 2.5


# What a decoder says


class Told(nn.Module):
    """A decoder that keeps what it was asked, and plays the noise, scaled."""

    def __init__(self, gain=1.0):
        super().__init__()
        self.asked, self.gain = [], gain
        self.trunk = lab.Trunk(2, 2, 1)

    def forward(self, f0, loud, noise):
        self.asked.append((f0, loud, noise))
        return self.gain * noise


def bare(model, parameters=1):
    return lab.Trained(model, History({}, 0.0, 0), parameters)


def test_rendering_in_parts_is_rendering_the_whole(monkeypatch):
    run = start(steps=1)
    clip = reed(run, 5)
    for kind in lab.KINDS:
        trained = lab.train(run, clip, kind, 2)
        whole = lab.render(run, trained, clip.f0, clip.loudness, "a")
        monkeypatch.setattr(lab, "CHUNK", 2)
        parts = lab.render(run, trained, clip.f0, clip.loudness, "a")
        monkeypatch.undo()
        assert whole.shape == clip.audio.shape and not whole.requires_grad
        assert torch.allclose(whole, parts, atol=1e-5)
        other = lab.render(run, trained, clip.f0, clip.loudness, "b")
        assert not torch.allclose(whole, other)
    model = Told()
    noise = chapter.white((5, 4000), run.generator("a"))
    sound = lab.render(run, bare(model), clip.f0, clip.loudness, "a")
    assert torch.equal(sound, noise)


def test_transfer_brings_loudness_to_the_mean_and_spread_of_training():
    run = start()
    model = Told()
    model.trunk.mean, model.trunk.spread = torch.tensor(-9.0), torch.tensor(4.0)
    clip = reed(run, 1)
    sound = lab.transfer(run, bare(model), clip.f0, clip.loudness, octave=-1)
    ((f0, loud, _),) = model.asked
    assert sound.shape == (1, 4000)
    assert torch.equal(f0, clip.f0 / 2)
    assert float(loud.mean()) == pytest.approx(-9, abs=1e-3)
    assert float(loud.std()) == pytest.approx(4, rel=1e-4)
    assert torch.equal(loud.argsort(), clip.loudness.argsort())
    lab.transfer(run, bare(model), clip.f0, clip.loudness)
    assert torch.equal(model.asked[1][0], clip.f0)


def test_controls_are_the_decoders_and_samples_have_none():
    run = start(steps=1)
    clip = reed(run, 1)
    trained = lab.train(run, clip, "ddsp", 1)
    told = lab.controls(trained, clip.f0, clip.loudness)
    noise = chapter.white((1, 4000), run.generator("a"))
    sound = chapter.synthesise(told, noise, 160)
    assert not sound.requires_grad
    rendered = lab.render(run, trained, clip.f0, clip.loudness, "a")
    assert torch.equal(sound, rendered)
    with pytest.raises(BadRequest, match="waveform decoder has no controls"):
        lab.controls(lab.train(run, clip, "plain", 1), clip.f0, clip.loudness)


# One note


def test_a_note_is_random_by_seed_and_may_be_noise_alone():
    run = start("quick")
    note, again, other = lab.note(run), lab.note(run), lab.note(start("quick", 1))
    alone = lab.note(run, False)
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
    beside, alone = lab.fit_note(run), lab.fit_note(run, False)
    found = lab.measure_recovers(beside, alone)
    assert found["recovers_amplitudes"]["value"] < 0.05
    assert found["recovers_noise_alone"]["value"] < 1
    assert found["recovers_noise_beside"]["signed"] < 0  # (11): too soft
    losses = beside.history.curves["loss"]
    assert losses[-1] < 0.6 * losses[0]
    assert beside.sound.shape == beside.target.shape == (1, 8000)
    assert (alone.fitted.amplitude == 0).all()
    known = chapter.spectral_loss(beside.sound, beside.target)
    assert float(known) == pytest.approx(losses[-1], rel=0.3)


def test_errors_of_a_note_are_relative_and_in_decibels():
    ones = torch.ones(1, 4)
    d = torch.tensor([0.5, 0.3, 0.2, 0.0]).expand(1, 4, 4)
    truth = Controls(300 * ones, 0.5 * ones, d, torch.full((1, 4, 5), 0.01))
    off = torch.tensor([0.55, 0.3, 0.1, 0.05]).expand(1, 4, 4)
    louder = Controls(300 * ones, 0.5 * ones, off, 10 ** (3 / 20) * truth.noise)
    softer = truth._replace(noise=truth.noise * 10 ** (-2 / 20))

    def fit(fitted):
        return lab.Fit(truth, fitted, ones, ones, History({}, 0.0, 0))

    found = lab.measure_recovers(fit(louder), fit(softer))
    assert list(found) == [
        "recovers_amplitudes",
        "recovers_noise_alone",
        "recovers_noise_beside",
    ]
    # errors 0.1, 0 and 0.5; what is above Nyquist has none
    assert found["recovers_amplitudes"]["value"] == pytest.approx(0.1, rel=1e-4)
    assert found["recovers_amplitudes"]["high"] == pytest.approx(0.5, rel=1e-4)
    alone, beside = found["recovers_noise_alone"], found["recovers_noise_beside"]
    assert (alone["signed"], alone["value"]) == pytest.approx((-2, 2), rel=1e-4)
    assert (beside["signed"], beside["value"]) == pytest.approx((3, 3), rel=1e-4)


# Measurements


def pretended(run, gains):
    """Decoders that play noise at these gains; the last fits best."""
    return {
        name: bare(Told(gain), parameters) for name, (gain, parameters) in gains.items()
    }


def test_small_data_compares_losses_at_every_size():
    run = start(examples=(1, 4))
    clip = reed(run, 3, "unseen")
    gains = {
        f"{kind}_{n}": (0.1 * i + 0.02 * n, 100)
        for i, kind in enumerate(lab.KINDS)
        for n in (1, 4)
    }
    models = pretended(run, gains)
    found = lab.measure_small_data(run, models, clip)
    noise = chapter.white((3, 4000), run.generator("test"))
    losses = {
        name: float(chapter.spectral_loss(gain * noise, clip.audio))
        for name, (gain, _) in gains.items()
    }
    assert list(found) == [
        f"small_data_{k}_{n}" for n in (1, 4) for k in list(lab.KINDS)[1:]
    ]
    for n in (1, 4):
        for kind in ("plain", "filter"):
            assert found[f"small_data_{kind}_{n}"] == {
                "value": pytest.approx(losses[f"ddsp_{n}"] - losses[f"{kind}_{n}"]),
                "ddsp": pytest.approx(losses[f"ddsp_{n}"]),
                kind: pytest.approx(losses[f"{kind}_{n}"]),
                "floor": lab.floor(run, clip),
            }
    far = lab.measure_extrapolates(run, models, clip)
    assert far == {
        f"extrapolates_{kind}": found[f"small_data_{kind}_4"]
        for kind in ("plain", "filter")
    }


@pytest.mark.parametrize("case", ["small", "large", "none"])
def test_the_smallest_that_is_good_enough_is_compared(monkeypatch, case):
    run = start(examples=(1, 2), tiny=(3, 5))
    clip = reed(run, 2)
    losses = {"plain": 5.0, "filter": 4.0, "small": 4.5, "large": 4.0, "ddsp": 3.0}
    losses |= {"small": {"small": 3.9}.get(case, 4.5)}
    losses |= {"none": {"large": 4.1, "ddsp": 4.2}}.get(case, {})
    counts = {"plain": 900, "filter": 800, "small": 20, "large": 50, "ddsp": 200}
    made = {name: bare(Told(), n) for name, n in counts.items()}
    models = {f"{kind}_{n}": made[kind] for kind in lab.KINDS for n in (1, 2)}
    names = {id(each.model): name for name, each in made.items()}
    asked = []

    def train(run, given, kind, n, hidden, name):
        asked.append((kind, n, hidden, name))
        return made["small" if hidden == 3 else "large"]

    monkeypatch.setattr(lab, "train", train)
    monkeypatch.setattr(
        lab, "loss_of", lambda run, each, test: losses[names[id(each.model)]]
    )
    (numbers,) = lab.measure_small_model(run, clip, models, clip).values()
    assert asked == [("ddsp", 2, 3, "ddsp_2_3"), ("ddsp", 2, 5, "ddsp_2_5")]
    value, parameters, loss = {
        "small": (40, 20, 3.9),
        "large": (16, 50, 4.0),
        "none": (0, 0, 4.1),
    }[case]
    assert numbers == {
        "value": value,
        "parameters": parameters,
        "loss": loss,
        "waveform_parameters": 800,
        "waveform_loss": 4.0,
        "floor": lab.floor(run, clip),
    }


@pytest.mark.parametrize("f0", [82.4, 123.5, 220.0, 331.7, 440.0, 659.3])
def test_yin_finds_the_pitch_beside_noise(f0):
    k = torch.arange(1.0, 11)
    tone = lab.steady(torch.tensor([f0]), 1 / k, 16_000)
    noise = 0.02 * chapter.white((1, 16_000), rng())
    for sound in (tone, tone + noise):
        found = lab.pitch(sound)
        assert found.shape[0] == 1
        cents = 1200 * torch.log2(found.median() / f0)
        assert abs(cents) < 4
    sine = torch.sin(2 * torch.pi * f0 * torch.arange(16_000) / 16_000)
    assert abs(1200 * torch.log2(lab.pitch(sine).median() / f0)) < 2


def test_yin_is_librosas_and_wants_enough_samples():
    librosa = pytest.importorskip("librosa")
    run = start("quick")
    clip = reed(run, 4)
    ours = lab.pitch(clip.audio)
    theirs = librosa.yin(
        clip.audio.numpy().astype(np.float64), fmin=70, fmax=1000, sr=16_000,
        frame_length=2048, hop_length=256, center=False, trough_threshold=0.1,
    )  # fmt: skip
    theirs = torch.tensor(theirs[:, : ours.shape[1]])
    cents = 1200 * torch.log2(ours[:, : theirs.shape[1]] / theirs)
    assert cents.abs().median() < 10
    with pytest.raises(BadRequest, match="1000 samples are too few"):
        lab.pitch(torch.zeros(1000))


class Instrumental(nn.Module):
    """Plays sines whose pitch and level depend on what is asked, in known ways."""

    def __init__(self, cents=0.0, dB=0.0):
        super().__init__()
        self.trunk = lab.Trunk(2, 2, 1)
        self.trunk.mean, self.trunk.spread = torch.tensor(-10.0), torch.tensor(5.0)
        self.cents, self.dB = cents, dB

    def forward(self, f0, loud, noise):
        z = (loud - self.trunk.mean) / self.trunk.spread
        octave = torch.log2(f0 / 220)
        f = f0 * 2 ** (self.cents * z / 1200)
        weighting = chapter.a_weighting(f0.double()).float()
        level = loud - 19.8 - weighting + self.dB * octave * (z > 0.5)
        a = 10 ** (level / 20)
        return chapter.harmonic_bank(f, a[..., None], 160)


@pytest.mark.parametrize(("cents", "dB"), [(0, 0), (4, 0), (0, 3), (10, 2)])
def test_disentangled_measures_what_a_decoder_mixes(cents, dB):
    run = start("quick")
    found = lab.measure_disentangled(run, bare(Instrumental(cents, dB)))
    pitch, loud = found["disentangled_pitch"], found["disentangled_loudness"]
    assert pitch["value"] == pytest.approx(2 * cents, abs=1)
    assert pitch["middle"] == pytest.approx(2 * cents, abs=1)
    assert loud["value"] == pytest.approx(dB * 10 / 12, abs=0.6)
    assert loud["value"] == max(loud["low"], loud["middle"], loud["high"])
    assert max(loud["low"], loud["middle"]) < 0.6


# The pitch


def test_steady_tones_are_those_of_the_bank():
    f0 = torch.tensor([150.0, 311.3, 900.0, 3000.0, 9000.0])
    amplitudes = torch.rand(20, generator=rng())
    found = lab.steady(f0, amplitudes, 3200)
    frames = f0.double()[:, None].expand(-1, 20)
    each = amplitudes.double().expand(5, 20, 20)
    known = chapter.harmonic_bank(frames, each, 160)
    assert found.shape == (5, 3200) and found.dtype == torch.float32
    assert (found - known).abs().max() < 1e-5
    assert (found[4] == 0).all()


def test_steady_tones_pass_gradients_to_the_pitch():
    f0 = torch.tensor([301.0], dtype=torch.float64, requires_grad=True)
    k = torch.arange(1.0, 6)
    seen = torch.randn(640, generator=rng())

    def value(f):
        return (lab.steady(f, 1 / k, 640).double() * seen).sum()

    (slope,) = torch.autograd.grad(value(f0), f0)
    step = (value(f0 + 0.05) - value(f0 - 0.05)).item() / 0.1
    assert float(slope) == pytest.approx(step, rel=1e-2)


def test_the_landscape_is_the_loss_of_two_tones():
    run = start("quick", seconds=0.5)
    semitones = torch.tensor([-12.0, -0.3, 0.0, 0.3, 7.0])
    both, linear, log = (
        lab.landscape(run, 220.0, semitones, *how) for how in ((), (1, 0), (0, 1))
    )
    assert both[2] < 1e-3
    assert torch.allclose(both, linear + log, rtol=1e-4)
    assert both.argmin() == 2 and linear.argmin() == 2 and log.argmin() == 2
    k = torch.arange(1.0, 41)
    A = (1 / k / (1 / k).sum()).expand(50, 40)
    tones = [
        chapter.harmonic_bank(torch.full((50,), 220 * 2 ** (z / 12)), A, 160)
        for z in (0, 7)
    ]
    known = float(chapter.spectral_loss(tones[1], tones[0]))
    assert float(both[4]) == pytest.approx(known, rel=1e-2)


def test_descents_start_on_both_sides_and_step_by_15_cents(tmp_path):
    for seed in (0, 1):
        run = start(seed=seed, starts=18, pitch_steps=6)
        found = lab.descend(run)
        down, up = -found.starts[:9], found.starts[9:]
        for away in (down, up):
            part = ((away - 1) / 11 * 9).floor()
            assert part.tolist() == list(range(9))
        assert 155 < found.f0 < 312
        assert found.paths.shape == (7, 18)
        assert torch.equal(found.paths[0], found.starts)
        assert torch.equal(found.paths[-1], found.ends)
        steps = found.paths.diff(dim=0).abs()
        assert steps[0].min() > 0.149 and steps.max() < 0.3
        assert steps[-1].max() < 0.06  # the rate falls to 0
    assert found.f0 != lab.descend(start(starts=18, pitch_steps=6)).f0


def test_the_first_step_goes_downhill():
    run = start(starts=6, pitch_steps=2, harmonics=20)
    found = lab.descend(run)
    A = 1 / torch.arange(1.0, 21, dtype=torch.float64)
    A = (A / A.sum()).expand(25, 20)

    def tone(semitones):
        f0 = torch.full((25,), found.f0 * 2 ** (semitones / 12), dtype=torch.float64)
        return chapter.harmonic_bank(f0, A, 160)[:3968]  # 0.25 s in blocks of 64

    def loss(semitones):
        return float(chapter.spectral_loss(tone(semitones), tone(0.0)))

    for at, step in zip(found.starts.tolist(), found.paths.diff(dim=0)[0], strict=True):
        slope = (loss(at + 1e-4) - loss(at - 1e-4)) / 2e-4
        assert slope * step < 0


def test_within_20_cents_counts_as_found():
    ends = torch.tensor([-0.19, 0.21, 0.1, 12.0, -12.0])
    found = lab.measure_pitch(lab.Descent(220.0, ends, ends, ends[None]))
    assert found["pitch_is_hard"] == {"value": 0.4, "successes": 2.0, "trials": 5.0}


# Recordings


def spoken(rate=16_000, f0=200.0):
    """Two tones with a second of silence between them, [2.5 s]."""
    t = np.arange(int(0.75 * rate)) / rate
    tones = [
        sum(np.sin(2 * np.pi * k * f * t) / k for k in range(1, 6)) / 4
        for f in (f0, 2 * f0)
    ]
    return np.concatenate([tones[0], np.zeros(rate), tones[1]])


def test_a_recording_has_a_pitch_everywhere_and_its_silence_is_loudness():
    pytest.importorskip("librosa")
    run = start()
    audio, f0, loud = lab.record(run, spoken(), 16_000)
    assert audio.shape == (1, 40_000) and f0.shape == loud.shape == (1, 250)
    assert audio.dtype == f0.dtype == loud.dtype == torch.float32
    assert f0.isfinite().all()
    cents = 1200 * torch.log2(f0[0] / 200)
    assert cents[10:65].abs().max() < 15 and (cents[185:240] - 1200).abs().max() < 15
    assert (cents.diff() > -20).all()  # drawn on in octaves, never back
    assert 300 < cents[125] < 900
    assert (loud[0, 80:170] == -80).all() and loud[0, 10:65].min() > 0
    stereo = np.stack([spoken(32_000)] * 2, 1)
    other = lab.record(run, (stereo * 32767).astype(np.int16), 32_000)
    assert other.audio.shape == (1, 40_000)
    assert (1200 * torch.log2(other.f0 / f0))[0, 10:65].abs().max() < 15


def test_recordings_without_pitch_or_length_are_refused():
    pytest.importorskip("librosa")
    run = start()
    with pytest.raises(BadRequest, match="has no pitch anywhere"):
        lab.record(run, np.zeros(8000), 16_000)
    with pytest.raises(BadRequest, match="has 1920 samples at 16000 a second"):
        lab.record(run, spoken()[:2000], 16_000)
    with pytest.raises(BadRequest, match="samples came without a rate"):
        lab.own(run, spoken())
    with pytest.raises(BadRequest, match=r"none\.wav cannot be read as sound"):
        lab.own(run, "none.wav")


def test_your_own_recording_may_be_a_file_or_samples(tmp_path):
    pytest.importorskip("librosa")
    run = start()
    samples = torch.tensor(spoken(), dtype=torch.float32)
    (tmp_path / "mine.wav").write_bytes(lab.wav(samples))
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    one, two = lab.own(run, tmp_path / "mine.wav"), lab.own(run, samples, 16_000)
    assert (one.audio - two.audio).abs().max() < 1e-4
    assert torch.allclose(one.f0, two.f0, rtol=1e-2)
    with pytest.raises(BadRequest, match=r"bad\.wav cannot be read as sound"):
        lab.own(run, str(tmp_path / "bad.wav"))


there = pytest.mark.skipif(
    not (sets.folder() / "audio_clips.npz").is_file(),
    reason="audio_clips.npz is not on this machine",
)


@there
def test_real_clips_are_learned_each_on_its_own(monkeypatch):
    pytest.importorskip("librosa")
    z = sets.load("audio_clips")
    assert len(z["names"]) == 10 and z["names"][-1] == "piano"
    kept = [0, 4, 9]  # flute, soprano, piano
    parts = [z["samples"][z["offsets"][i] : z["offsets"][i + 1]][:16_000] for i in kept]
    few = z | {
        "samples": np.concatenate(parts),
        "offsets": np.cumsum([0, *map(len, parts)]),
        "names": z["names"][kept],
    }
    monkeypatch.setattr(lab.sets, "load", {"audio_clips": few}.__getitem__)
    run = start(real_steps=2, batch=2, room=300, seconds=0.5)
    clips = lab.real_clips(run)
    assert list(clips) == ["flute_A4", "soprano_E4"]
    audio, f0, _ = clips["flute_A4"]
    assert np.array_equal((audio[0] * 32768).numpy(), parts[0])
    assert abs(1200 * math.log2(float(f0.median()) / 440)) < 40
    trained = {name: lab.train_real(run, clip, name) for name, clip in clips.items()}
    for name, each in trained.items():
        s = run.settings
        known = lab.Decoder.count(6, 8, 1, s.harmonics, s.bands, 300)
        assert each.parameters == known
        mean, _ = lab._statistics(clips[name].loudness)
        assert float(each.model.trunk.mean) == pytest.approx(float(mean))
        assert each.model.room[1:].abs().max() > 0  # it was trained
    wet, dry = lab.dereverberate(run, trained["flute_A4"], clips["flute_A4"])
    assert wet.shape == dry.shape == audio.shape
    assert not torch.equal(wet, dry)
    voice = clips["soprano_E4"]
    sound = lab.transfer(run, trained["flute_A4"], voice.f0, voice.loudness)
    assert sound.shape == voice.audio.shape and sound.isfinite().all()


def test_a_decoder_without_a_room_has_none_to_leave_out():
    run = start(steps=1)
    clip = reed(run, 1)
    trained = lab.train(run, clip, "ddsp", 1)
    with pytest.raises(BadRequest, match="no room: give one from train_real"):
        lab.dereverberate(run, trained, lab.Recording(*clip[:3]))


def test_a_short_recording_is_learned_whole():
    run = start(real_steps=2, batch=2, room=20, seconds=4.0)
    clip = lab.Recording(*reed(start(seconds=0.5), 1)[:3])
    wet, dry = lab.dereverberate(run, lab.train_real(run, clip, "short"), clip)
    assert wet.shape == dry.shape == (1, 8000)


# Listening


def test_wav_files_are_read_by_the_standard_library():
    x = torch.linspace(-1.2, 1.2, 997)
    with wave.open(io.BytesIO(lab.wav(x, 8000))) as file:
        assert file.getparams()[:4] == (1, 2, 8000, 997)
        found = np.frombuffer(file.readframes(997), "<i2")
    known = np.clip(np.round(x.double().numpy() * 32767), -32768, 32767)
    assert np.array_equal(found, known)
    assert lab.wav(x[None], 8000) == lab.wav(x, 8000)
    assert lab.wav(x.double().requires_grad_(), 8000) == lab.wav(x, 8000)


def weighted_power(x, fs=16_000):
    """A-weighted power in dB, from the poles and zeros of the analogue filter."""
    poles = 2 * np.pi * np.array([20.598997, 107.65265, 737.86223, 12194.217])
    p = -np.array([poles[0], poles[0], poles[1], poles[2], poles[3], poles[3]])
    f = np.fft.rfftfreq(len(x), 1 / fs)
    _, h = signal.freqs_zpk([0, 0, 0, 0], p, 1, 2 * np.pi * f)
    _, one = signal.freqs_zpk([0, 0, 0, 0], p, 1, [2 * np.pi * 1000])
    power = np.abs(np.fft.rfft(x)) ** 2 * np.abs(h / one) ** 2
    power[1:-1] *= 2
    return 10 * np.log10(power.sum() / len(x) ** 2)


def test_matched_sounds_are_equally_loud_and_none_is_cut():
    t = torch.arange(16_000) / 16_000
    sounds = {
        "low": 0.9 * torch.sin(2 * torch.pi * 80 * t),
        "high": 0.01 * torch.sin(2 * torch.pi * 2500 * t)[None],
        "noise": 0.1 * chapter.white((16_000,), rng()),
        "silence": torch.zeros(16_000),
    }
    found = lab.level(sounds)
    assert list(found) == list(sounds)
    powers = [
        weighted_power(found[k].flatten().double().numpy()) for k in list(sounds)[:3]
    ]
    assert max(powers) - min(powers) < 0.1
    assert max(float(x.abs().max()) for x in found.values()) == pytest.approx(0.9)
    assert (found["silence"] == 0).all()
    for label in ("low", "high", "noise"):
        one, two = found[label].flatten(), sounds[label].flatten()
        assert torch.allclose(one * two.norm(), two * one.norm(), rtol=1e-4, atol=1e-6)
    assert (lab.level({"nothing": torch.zeros(100)})["nothing"] == 0).all()


def test_players_get_their_sounds_and_nothing_starts_by_itself(monkeypatch):
    shown = []
    monkeypatch.setattr(
        lab.play,
        "widget",
        lambda slug, payload, **how: shown.append((slug, payload, how)),
    )
    x = torch.linspace(-0.5, 0.5, 400)
    how = {"alt": "two sounds", "caption": "hear them"}
    lab.listen({"one": x, "two": 3 * x[None]}, **how)
    lab.listen({"one": x, "two": 3 * x}, matched=True, fs=8000, **how)
    (slug, payload, told), (_, matched, _) = shown
    assert slug == SLUG and told == how
    assert payload["mode"] == "players" and payload["fs"] == 16_000
    assert [each["label"] for each in payload["sounds"]] == ["one", "two"]
    files = [base64.b64decode(each["wav"]) for each in payload["sounds"]]
    assert files == [lab.wav(x / 1.5), lab.wav(2 * x)]  # one factor for both
    assert matched["fs"] == 8000
    one, two = (
        np.frombuffer(base64.b64decode(each["wav"])[44:], "<i2").astype(int)
        for each in matched["sounds"]
    )
    assert abs(one - two).max() <= 1 and one.max() == pytest.approx(0.9 * 32767, abs=1)
    quiet = {"one": x}
    lab.listen(quiet, **how)
    assert shown[-1][1]["sounds"][0]["wav"] == base64.b64encode(lab.wav(x)).decode()


def test_the_synthesiser_of_the_page_is_told_its_sizes():
    assert lab.SYNTH == {
        "mode": "synth",
        "fs": 16_000,
        "hop": 160,
        "harmonics": 60,
        "bands": 33,
        "seconds": 2,
    }
