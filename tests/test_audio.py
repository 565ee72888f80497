"""Sounds: loading, loudness, pitch and files by other routes; players in a browser."""

import io
import math
import wave
from typing import Any

import librosa
import numpy as np
import pytest
import torch
import widgets
from assertions import refused
from scipy import signal
from widgets import HOOK, PICTURE, TEXTS, document

from iclrtut import audio

FS = 16_000
page, made = widgets.page, widgets.made


def sine(f: float, amplitude: float, seconds: float = 1.0, rate: int = FS) -> Any:
    return amplitude * np.sin(2 * np.pi * f * np.arange(int(seconds * rate)) / rate)


def a_curve(f: Any) -> Any:
    """IEC 61672 by the poles and zeros of the analogue filter, 0 dB at 1 kHz."""
    once, twice = (107.65265, 737.86223), (20.598997, 12194.217)
    poles = [-2 * np.pi * p for p in once + twice + twice]
    w = 2 * np.pi * np.array([1000.0, *f])
    with np.errstate(divide="ignore"):
        dB = 20 * np.log10(np.abs(signal.freqs_zpk([0] * 4, poles, 1, w)[1]))
    return dB[1:] - dB[0]


# Recordings


def test_a_sine_stays_a_sine_at_any_rate():
    t = np.arange(FS) / FS
    for rate in (8000, 11_025, 44_100, 48_000, 96_000):
        loaded = audio.load_recording(sine(440, 0.5, rate=rate), FS, rate)
        assert loaded.dtype == torch.float32 and loaded.shape == (FS,)
        off = loaded.numpy() - 0.5 * np.sin(2 * np.pi * 440 * t)
        assert np.abs(off[400:-400]).max() < 0.005  # no delay either
    assert audio.load_recording(sine(440, 1, rate=44_099), FS, 44_099).shape == (FS,)
    assert audio.load_recording([0.25], FS, 48_000).shape == (1,)


def test_what_lies_above_nyquist_does_not_come_back_as_an_alias():
    high = audio.load_recording(sine(11_000, 0.5, rate=44_100), FS, 44_100)
    assert high[400:-400].square().mean().sqrt() < 0.5 * 1e-2
    low = audio.load_recording(sine(6000, 0.5, rate=44_100), FS, 44_100)
    assert low.square().mean().sqrt() == pytest.approx(0.5 / 2**0.5, rel=0.03)


def test_channels_are_averaged_whichever_way_round():
    left, right = sine(300, 0.5), sine(700, 0.5)
    five = np.stack([left, left, right, 0 * left, 0 * left])
    mean = (2 * left + right) / 5
    for samples in (five, five.T):
        assert np.allclose(audio.load_recording(samples, FS, FS), mean, atol=1e-6)
    for samples in (left[None], left[:, None], left):
        assert np.allclose(audio.load_recording(samples, FS, FS), left, atol=1e-6)


def test_whole_numbers_are_scaled_by_their_range():
    for samples in (
        np.array([-(2**15), 0, 2**14], np.int16),
        np.array([0, 128, 192], np.uint8),
        np.array([-(2**31), 0, 2**30], np.int32),
        np.array([-1, 0, 0.5], np.float32),
    ):
        before = samples.copy()
        assert audio.load_recording(samples, FS, FS).tolist() == [-1, 0, 0.5]
        assert np.array_equal(samples, before)


def test_a_file_says_its_own_rate(tmp_path):
    x = torch.tensor(sine(440, 0.5, rate=8000), dtype=torch.float32)
    (tmp_path / "mine.wav").write_bytes(audio.wav(x, 8000))
    from_file = audio.load_recording(tmp_path / "mine.wav", FS)
    assert (from_file - audio.load_recording(x, FS, 8000)).abs().max() < 1e-4
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    for name in ("bad.wav", "none.wav"):
        refused(
            rf"{name} cannot be read as sound",
            lambda name=name: audio.load_recording(str(tmp_path / name)),
        )


def test_recordings_that_are_none_are_refused_in_one_sentence():
    x = sine(440, 0.5)
    gap = np.where(np.arange(FS) == 3, math.nan, x)
    infinite = np.stack([x, 0 * x + math.inf])
    bad = {
        r"\(0,\)": ([], FS),
        r"\(0, 2\)": (np.zeros((0, 2)), FS),
        r"\(\)": (0.5, FS),
        r"\(2, 2, 100\)": (np.zeros((2, 2, 100)), FS),
        r"\(9, 100\)": (np.zeros((9, 100)), FS),
        r"hold NaN": (gap, FS),
        r"hold NaN or inf": (infinite, FS),
        r"complex128": (x * 1j, FS),
        r"bool": (x > 0, FS),
        r"int64": ([0, 1000, -1000], FS),
        r"uint64": (np.zeros((2, 50), np.uint64), FS),
        r"came without a rate": (x, None),
        r"rate is 0:": (x, 0),
        r"rate is 0.5:": (x, 0.5),
        r"rate is nan:": (x, math.nan),
    }
    for words, (samples, rate) in bad.items():
        refused(
            words,
            lambda samples=samples, rate=rate: audio.load_recording(samples, FS, rate),
        )
    refused(r"fs is -1:", lambda: audio.load_recording(x, -1, FS))


# Loudness, pitch, files


def test_a_weighting_by_its_poles_and_by_its_numbers():
    f = torch.tensor([100.0, 1000.0, 10_000.0], dtype=torch.float64)
    assert audio.a_weighting(f).numpy() == pytest.approx([-19.14, 0.0, -2.49], abs=5e-3)
    f = torch.logspace(0, 5, 300, dtype=torch.float64)
    weights = audio.a_weighting(f).numpy()
    assert np.allclose(weights, librosa.A_weighting(f.numpy(), min_db=None), atol=1e-9)
    at_1k = audio.a_weighting(torch.tensor([1000.0]).double()).item()
    assert np.allclose(weights - at_1k, a_curve(f.numpy()), atol=1e-9)
    assert 0 < at_1k < 5e-4  # the standard's 2.00 dB is rounded
    assert audio.a_weighting(torch.zeros(1)).item() == -math.inf
    refused("int64", lambda: audio.a_weighting(torch.arange(3)))


def weighted_power(x: Any) -> float:
    """A-weighted power in dB."""
    weights = 10 ** (a_curve(np.fft.rfftfreq(len(x), 1 / FS)) / 10)
    power = np.abs(np.fft.rfft(x)) ** 2 * weights
    power[1:-1] *= 2
    return 10 * np.log10(power.sum() / len(x) ** 2)


def test_matched_sounds_are_equally_loud_and_none_is_cut():
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, FS)
    parts = {"low": sine(80, 0.9), "high": sine(2500, 0.01)[None], "noise": noise}
    sounds = {label: torch.tensor(x).float() for label, x in parts.items()}
    matched = audio.match_loudness(sounds | {"silence": torch.zeros(FS)})
    assert list(matched) == [*parts, "silence"]
    powers = [weighted_power(matched[label].double().numpy()) for label in parts]
    assert max(powers) - min(powers) < 0.1
    assert max(float(x.abs().max()) for x in matched.values()) == pytest.approx(0.9)
    assert (matched["silence"] == 0).all()
    for label, x in sounds.items():
        one, two = matched[label], x.flatten()
        assert torch.allclose(one * two.norm(), two * one.norm(), rtol=1e-4, atol=1e-6)
    silence = audio.match_loudness({"nothing": torch.zeros(100)})
    assert (silence["nothing"] == 0).all()


def harmonic(f0: float) -> torch.Tensor:
    return torch.tensor(sum(sine(k * f0, 1 / k) for k in range(1, 11)))


@pytest.mark.parametrize("f0", [82.4, 123.5, 220.0, 331.7, 440.0, 659.3])
def test_yin_finds_the_pitch_beside_noise(f0):
    generator = torch.Generator().manual_seed(0)
    noise = 0.02 * torch.randn(FS, generator=generator)
    for sound in (torch.tensor(sine(f0, 1)), harmonic(f0), harmonic(f0) + noise):
        cents = 1200 * torch.log2(audio.pitch(sound).median() / f0)
        assert abs(cents) < 4


def test_yin_is_librosas_and_wants_enough_samples():
    notes = torch.cat([harmonic(f0) for f0 in (90.0, 313.0, 701.0)])
    ours = audio.pitch(torch.stack([notes, -notes]))
    theirs = librosa.yin(
        notes.numpy(), fmin=70, fmax=1000, sr=FS, frame_length=2048,
        hop_length=256, center=False, trough_threshold=0.1,
    )  # fmt: skip
    n = min(ours.shape[1], len(theirs))
    cents = 1200 * torch.log2(ours[:, :n] / torch.tensor(theirs[:n]))
    assert cents.abs().median() < 3
    refused("1000 samples are too few", lambda: audio.pitch(torch.zeros(1000)))


def test_wav_files_are_read_by_the_standard_library():
    x = torch.linspace(-1.2, 1.2, 997)
    with wave.open(io.BytesIO(audio.wav(x, 8000))) as file:
        assert file.getparams()[:4] == (1, 2, 8000, 997)
        samples = np.frombuffer(file.readframes(997), "<i2")
    known = np.clip(np.round(x.double().numpy() * 32767), -32768, 32767)
    assert np.array_equal(samples, known)
    assert audio.wav(x[None].double().requires_grad_(), 8000) == audio.wav(x, 8000)


def test_no_sound_is_refused_in_one_sentence():
    bad = {
        r"shape \[2, 3\]": torch.zeros(2, 3),
        r"int64": torch.zeros(3, dtype=torch.int64),
        r"shape \[\]": torch.tensor(0.5),
        r"is empty": torch.zeros(0),
        r"holds NaN": torch.tensor([0, math.nan]),
        r"or holds NaN": torch.tensor([0, math.inf]),
    }
    for words, sound in bad.items():
        refused(words, lambda sound=sound: audio.wav(sound))
        refused(words, lambda sound=sound: audio.match_loudness({"it": sound}))
        refused(words, lambda sound=sound: audio.players({"it": sound}, **TEXTS))
    for matched in (False, True):
        refused(
            "no sound",
            lambda matched=matched: audio.players({}, equal_loudness=matched, **TEXTS),
        )
    sounds = {"it": torch.ones(5)}
    refused("caption", lambda: audio.players(sounds, alt="It.", caption=""))


# Players


def sounds() -> dict[str, np.ndarray]:
    late = np.concatenate([np.zeros(FS // 2), sine(5000, 0.35)])
    noise = np.random.default_rng(0).uniform(-0.2, 0.2, FS)
    return {
        "Low <sine>": sine(1234.5, 0.62),
        "Late sine": late,
        "Noise": noise,
        "Nothing": np.zeros(FS // 2),
    }


def shown(made: list[str], sounds: dict[str, np.ndarray], **options: Any) -> str:
    tensors = {label: torch.tensor(x) for label, x in sounds.items()}
    audio.players(tensors, **TEXTS, **options)
    return made[-1]


def players(page: Any, made: list[str], head: str = "", theme: str = "light") -> None:
    page.set_content(document(head + shown(made, sounds()), theme))


def test_one_factor_brings_all_peaks_down_to_one(page, made):
    x = np.linspace(-0.5, 0.5, 400)
    for options, first, second in (
        ({}, x / 1.5, 2 * x),
        ({"equal_loudness": True}, 1.8 * x, 1.8 * x),
    ):
        page.set_content(document(shown(made, {"one": x, "two": 3 * x}, **options)))
        one, two = page.evaluate(f"{HOOK}.samples.map((x) => Array.from(x))")
        assert np.abs(one - first).max() < 1e-4 and np.abs(two - second).max() < 1e-4
    page.set_content(document(shown(made, {"quiet": x})))
    (quiet,) = page.evaluate(f"{HOOK}.samples.map((x) => Array.from(x))")
    assert np.abs(quiet - x).max() < 1e-4


def test_the_frequency_axis_ends_at_half_the_rate(page, made):
    for fs, marks in ((FS, ["0", "4", "8"]), (44_100, ["0", "11", "22.1"])):
        page.set_content(document(shown(made, {"sine": sine(440, 0.5)}, fs=fs)))
        texts = page.locator(".player svg text").all_text_contents()
        assert [t for t in marks if t in texts] == marks and "kHz" in texts


def test_a_player_has_a_heading_a_picture_and_the_browser_s_controls(page, made):
    players(page, made, "<h1>A chapter</h1><h2>Play</h2>")
    for i, name in enumerate(sounds()):
        player = page.locator(".player").nth(i)
        heading = player.get_by_role("heading", name=name, level=3)
        assert heading.inner_text() == name
        audio = player.locator("audio")
        assert audio.get_attribute("aria-label") == name
        assert audio.evaluate("e => e.controls && e.paused && !e.autoplay")
        assert audio.get_attribute("src").startswith("data:audio/wav;base64,")
    alts = [e.get_attribute("aria-label") for e in page.get_by_role("img").all()]
    assert "1.00 s, peak 0.62, strongest frequency near 1230 Hz" in alts[0]
    assert "1.50 s, peak 0.35, strongest frequency near 5000 Hz" in alts[1]
    assert alts[3].endswith("Nothing: 0.50 s, silence.")


OUTLINE = """() => [...document.querySelectorAll('.wave')].map(
    (e) => e.getAttribute('d').slice(1, -1).split('L')
        .map((point) => point.split(',').map(Number)))"""
INK = """async (i) => {
    const href = document.querySelectorAll('.player image')[i].getAttribute('href');
    const image = new Image();
    image.src = href;
    await image.decode();
    const sheet = document.createElement('canvas');
    [sheet.width, sheet.height] = [image.width, image.height];
    const context = sheet.getContext('2d');
    context.drawImage(image, 0, 0);
    const all = context.getImageData(0, 0, image.width, image.height).data;
    return [image.width, Array.from(all.filter((_, k) => k % 4 === 3))];
}"""


def ink(page: Any, i: int) -> np.ndarray:
    """Opacity in 0 to 1, [frequency upwards, time]."""
    width, values = page.evaluate(INK, i)
    return np.array(values).reshape(-1, width)[::-1] / 255


@pytest.mark.parametrize("x", [np.zeros(FS), np.full(100, 1.0), -np.ones(3)])
def test_silence_and_a_few_samples_are_drawn_too(x, page, made):
    page.set_content(document(shown(made, {"Odd": x})))
    assert "NaN" not in page.evaluate(PICTURE)
    peak = np.abs(np.array(page.evaluate(OUTLINE)[0])[:, 1] - 33).max()
    assert peak == pytest.approx(27 * np.abs(x).max(), abs=0.01)
    assert (ink(page, 0).max() > 0.97) == bool(x.any())


def test_the_waveform_is_where_the_sound_is(page, made):
    players(page, made)
    waves = [np.array(all) for all in page.evaluate(OUTLINE)]
    # 6 to 60 for +-0.7, the highest peak rounded up; 33 is silence.
    for outline, x in zip(waves, sounds().values(), strict=True):
        high = (33 - outline[:, 1].min()) / 27 * 0.7
        low = (33 - outline[:, 1].max()) / 27 * 0.7
        assert high == pytest.approx(x.max(), abs=0.002)
        assert low == pytest.approx(x.min(), abs=0.002)
    late = waves[1]
    loud = late[np.abs(late[:, 1] - 33) > 5, 0]
    assert loud.min() == pytest.approx(40 + 286 / 3, abs=2)


def test_the_spectrogram_is_dark_where_the_sine_is(page, made):
    players(page, made)
    low, late, noise, nothing = (ink(page, i) for i in range(4))
    rows, columns = low.shape
    assert low[:, 20:-20].argmax(0) == pytest.approx(1234.5 / 8000 * (rows - 1), abs=1)
    assert low[:, 20:-20].max() > 0.97 and low[100:, 20:-20].max() < 0.05
    assert late[:, columns // 2 :].argmax(0)[:-20] == pytest.approx(160, abs=1)
    assert late[:, : columns // 3 - 10].max() == 0
    expected = 1 + 20 * np.log10(0.35 / 0.62) / 70  # one scale for the figure
    assert late.max() == pytest.approx(expected, abs=0.02)
    assert 0.2 < noise.mean() < 0.8 and noise.std() < 0.15
    assert nothing.max() == 0


def pixels(page: Any, locator: Any) -> np.ndarray:
    Image = pytest.importorskip("PIL.Image")
    return np.array(Image.open(io.BytesIO(locator.screenshot())).convert("L")) / 255


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_ink_is_that_of_the_page(theme, page, made):
    players(page, made, theme=theme)
    seen = pixels(page, page.locator(".player svg").first)
    height, width = seen.shape
    sine_row = (192 - 122 * 1234.5 / 8000) / 216 * height
    column = seen[int(0.4 * height) : int(0.85 * height), width // 2]
    away = np.abs(column - column[0])
    found = away.argmax() + int(0.4 * height)
    assert found == pytest.approx(sine_row, abs=3)
    assert away.max() > 0.4


def playing_now(page: Any) -> list[bool]:
    return page.locator("audio").evaluate_all("all => all.map(e => !e.paused)")


def test_starting_one_pauses_the_other(page, made):
    players(page, made)
    assert playing_now(page) == [False] * 4
    first, second = page.locator("audio").nth(0), page.locator("audio").nth(1)
    first.focus()
    page.keyboard.press("Space")
    page.wait_for_function("document.querySelectorAll('audio')[0].currentTime > 0.1")
    second.evaluate("e => e.play()")
    page.wait_for_function("document.querySelectorAll('audio')[0].paused")
    assert playing_now(page) == [False, True, False, False]
    page.wait_for_function("document.querySelectorAll('audio')[1].currentTime > 0.2")
    heads = page.locator(".head").evaluate_all(
        "all => all.map(e => e.getAttribute('visibility'))"
    )
    assert heads == ["visible", "visible", "hidden", "hidden"]


def test_a_tap_on_the_picture_seeks(page, made):
    players(page, made)
    audio, svg = page.locator("audio").nth(1), page.locator(".player svg").nth(1)
    audio.evaluate("e => e.readyState || new Promise(r => e.onloadedmetadata = r)")
    box = svg.bounding_box()
    x = box["x"] + box["width"] * (40 + 286 * 0.6) / 340
    page.touchscreen.tap(x, box["y"] + box["height"] / 2)
    assert audio.evaluate("e => e.currentTime") == pytest.approx(0.9, abs=0.02)
    page.wait_for_function(
        "document.querySelectorAll('.head')[1].getAttribute('visibility') === 'visible'"
    )
    place = page.locator(".head").nth(1).get_attribute("transform")
    assert float(place[10:-3]) == pytest.approx(40 + 286 * 0.6, abs=4)
    assert playing_now(page) == [False] * 4
