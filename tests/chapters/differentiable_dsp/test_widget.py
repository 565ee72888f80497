"""Players and synthesiser in a browser: what sounds and shows is what was computed."""

import base64
import io
import json
import wave
from typing import Any

import numpy as np
import playing
import pytest
import torch
from playing import HOOK, PICTURE, TEXTS, document, move

from iclrtut import play
from iclrtut.chapters.differentiable_dsp import method

SLUG = "differentiable_dsp"
page, made = playing.page, playing.made
FS, HOP, HARMONICS, BANDS, SECONDS = 16_000, 160, 60, 33, 2
SYNTH = {
    "mode": "synth",
    "fs": FS,
    "hop": HOP,
    "harmonics": HARMONICS,
    "bands": BANDS,
    "seconds": SECONDS,
}
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data:; media-src data:"
)
# Counts what could sound, and listens to what goes to the loudspeakers.
LISTEN = """
window.heard = {contexts: 0, starts: [], ramps: [], stops: [], ahead: []};
const Plain = window.AudioContext;
window.AudioContext = class extends Plain {
    constructor(...options) {
        super(...options);
        heard.contexts++;
        heard.context = this;
    }
};
const connect = AudioNode.prototype.connect;
AudioNode.prototype.connect = function (to, ...rest) {
    if (to instanceof AudioDestinationNode && !(this.context instanceof
        OfflineAudioContext)) {
        heard.ear = new AnalyserNode(this.context, {fftSize: 8192});
        connect.call(this, heard.ear);
    }
    return connect.call(this, to, ...rest);
};
const spy = (kind, name, list) => {
    const plain = kind.prototype[name];
    kind.prototype[name] = function (...all) {
        list.push(all);
        heard.last = this;
        if (list === heard.starts) heard.ahead.push(all[0] - this.context.currentTime);
        return plain.apply(this, all);
    };
};
spy(AudioScheduledSourceNode, 'stop', heard.stops);
spy(AudioParam, 'linearRampToValueAtTime', heard.ramps);
spy(AudioBufferSourceNode, 'start', heard.starts);
"""
LEVEL = """() => {
    const all = new Float32Array(8192);
    heard.ear.getFloatTimeDomainData(all);
    return all.reduce((top, v) => Math.max(top, Math.abs(v)), 0);
}"""
PARAMS = {"f0": 220, "rolloff": 1, "level": 1, "noise": 0.04, "tilt": -24, "wet": 0.15}
SETS = [
    PARAMS,
    PARAMS | {"noise": 0, "wet": 0},
    PARAMS | {"f0": 55, "rolloff": 0, "noise": 0},
    PARAMS | {"f0": 2000, "rolloff": 0.5},  # three harmonics are left
    PARAMS | {"f0": 439.37, "rolloff": 3, "level": 0.3, "tilt": 60, "wet": 1},
    PARAMS | {"f0": 9000, "wet": 0},  # none is left: the noise alone
    PARAMS | {"level": 0, "noise": 0.25, "tilt": 0, "wet": 0.5},
    PARAMS | {"f0": 133.3, "rolloff": 1.7, "noise": 0.25, "tilt": -60, "wet": 0},
]


def shown(made: list[str], payload: dict[str, Any]) -> str:
    play.widget(SLUG, payload, **TEXTS)
    return made[-1]


def synth(page: Any, made: list[str]) -> None:
    page.add_init_script(LISTEN)
    page.goto("about:blank")
    page.set_content(document(shown(made, SYNTH)))


def wav(x: np.ndarray) -> str:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, FS, 0, "NONE", ""))
        writer.writeframes(np.round(32767 * x).astype("<i2").tobytes())
    return base64.b64encode(file.getvalue()).decode()


def sine(f: float, amplitude: float, seconds: float = 1.0) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * f * np.arange(int(seconds * FS)) / FS)


def sounds() -> dict[str, np.ndarray]:
    late = np.concatenate([np.zeros(FS // 2), sine(5000, 0.35)])
    noise = np.random.default_rng(0).uniform(-0.2, 0.2, FS)
    return {
        "Low <sine>": sine(1234.5, 0.62),
        "Late sine": late,
        "Noise": noise,
        "Nothing": np.zeros(FS // 2),
    }


def heard(sounds: dict[str, np.ndarray]) -> dict[str, Any]:
    listed = [{"label": label, "wav": wav(x)} for label, x in sounds.items()]
    return {"mode": "players", "fs": FS, "sounds": listed}


def players(page: Any, made: list[str], head: str = "", theme: str = "light") -> None:
    page.set_content(document(head + shown(made, heard(sounds())), theme))


# ---- The synthesiser computes what the package computes ----

RENDER = f"""async (params) => {{
    const context = new OfflineAudioContext(1, {SECONDS * FS}, {FS});
    const source = context.createBufferSource();
    source.buffer = {HOOK}.buffer(context, params);
    source.connect(context.destination);
    source.start();
    return Array.from((await context.startRendering()).getChannelData(0));
}}"""


def controls(params: dict[str, float]) -> method.Controls:
    """The note by the chapter's words: 2 s of frames, sounding for 1.2."""
    T = SECONDS * FS // HOP
    j = torch.arange(T, dtype=torch.float64)
    envelope = (j / 2).clamp(max=1) * torch.exp(-2.5 * j * HOP / FS) * (j < 120)
    f0 = torch.full((T,), float(params["f0"]), dtype=torch.float64)
    k = torch.arange(1, HARMONICS + 1, dtype=torch.float64)
    tilt = params["tilt"]
    colour = 10 ** ((tilt * torch.linspace(0, 1, BANDS) - max(tilt, 0)) / 20).double()
    return method.Controls(
        f0=f0,
        amplitude=params["level"] * envelope,
        distribution=method.distribution(
            (k ** -params["rolloff"]).expand(T, HARMONICS), f0, FS
        ),
        noise=params["noise"] * envelope[:, None] * colour,
    )


def asked(page: Any, name: str) -> torch.Tensor:
    return torch.tensor(page.evaluate(f"Array.from({HOOK}.{name})")).double()


@pytest.mark.parametrize("params", SETS)
def test_the_browser_renders_what_the_package_renders(params, page, made):
    synth(page, made)
    noise, response = asked(page, "noise"), asked(page, "response")
    room = params["wet"] * response
    room[0] += 1
    dry = method.synthesise(controls(params), noise, HOP, FS)
    expected = method.reverb(dry, room).numpy()
    got = np.array(page.evaluate(RENDER, params))
    assert got.shape == expected.shape and np.abs(expected).max() > 0.01
    assert np.abs(got - expected).max() < 1e-4
    assert np.abs(got - expected).max() < 1e-5 * np.abs(expected).max()


def test_controls_are_those_of_the_equations(page, made):
    synth(page, made)
    for params in SETS:
        got = page.evaluate(
            f"(p) => Object.fromEntries(Object.entries({HOOK}.controls(p))"
            ".map(([name, values]) => [name, Array.from(values)]))",
            params,
        )
        by_hand = controls(params)
        assert np.allclose(got["amplitude"], by_hand.amplitude, atol=1e-12)
        assert np.allclose(got["distribution"], by_hand.distribution[0], atol=1e-12)
        frames = np.outer(got["gain"], got["colour"])
        assert np.allclose(frames, by_hand.noise, atol=1e-7)
    assert sum(got["distribution"]) == pytest.approx(1)


def test_noise_and_response_are_what_they_should_be(page, made):
    synth(page, made)
    noise, response = asked(page, "noise").numpy(), asked(page, "response").numpy()
    assert len(noise) == SECONDS * FS and np.abs(noise).max() <= 1
    assert noise.var() == pytest.approx(1 / 3, rel=0.02)
    assert np.abs(np.correlate(noise[:-1], noise[1:]))[0] < 0.02 * noise @ noise
    assert response @ response == pytest.approx(1)
    half = len(response) // 2
    fall = 10 * np.log10((response[:half] ** 2).sum() / (response[half:] ** 2).sum())
    assert fall == pytest.approx(30, abs=1)


def test_nothing_that_the_sliders_reach_is_clipped(page, made):
    synth(page, made)
    top = page.evaluate(
        f"""() => {{
            let top = 0;
            const all = {{ noise: 10 ** (-12 / 20), level: 1, tilt: 0, wet: 1 }};
            for (let s = 0; s <= 63; s += 0.5)
                for (const rolloff of [0, 3]) {{
                    const f0 = Math.min(55 * 2 ** (s / 12), 2000);
                    for (const v of {HOOK}.render({{ ...all, f0, rolloff }}))
                        top = Math.max(top, Math.abs(v));
                }}
            return top * {HOOK}.loudest;
        }}"""
    )
    assert 0.5 < top < 1


def test_a_render_is_quick_enough_to_feel_live(page, made):
    synth(page, made)
    took = page.evaluate(
        f"""(params) => Array.from({{ length: 40 }}, (_, i) => {{
            const start = performance.now();
            {HOOK}.render({{ ...params, f0: 55 + i }});
            return performance.now() - start;
        }})""",
        PARAMS,
    )
    print(f"median {np.median(took):.1f} ms, longest {max(took):.1f} ms")
    assert np.median(took) < 60  # 12 ms on a free core


# ---- The synthesiser's picture ----


def curve(page: Any, name: str) -> np.ndarray:
    path = page.locator(f".{name}").get_attribute("d")
    return np.array([pair.split(",") for pair in path[1:].split("L")], dtype=float)


def test_the_spectrum_is_that_of_the_note_s_middle(page, made):
    synth(page, made)
    state = page.evaluate(f"{HOOK}.state()")
    x = page.evaluate(RENDER, {name: state[name] for name in PARAMS})
    middle = np.array(x[9600 - 1024 : 9600 + 1024])
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(2048) / 2048)
    level = 20 * np.log10(2 / window.sum() * np.abs(np.fft.rfft(window * middle)))
    got = 20 * np.log10(page.evaluate(f"Array.from({HOOK}.spectrum())"))
    assert np.abs(got - level).max() < 0.1
    drawn = curve(page, "curve")
    assert len(drawn) == 1025
    slope, offset = np.polyfit(level, drawn[:, 1], 1)
    assert slope < 0 and np.abs(slope * level + offset - drawn[:, 1]).max() < 1


def test_the_formulas_meet_the_spectrum(page, made):
    synth(page, made)
    move(page, "Reverb", 0)
    move(page, "Roll-off", 0.5)
    move(page, "Fundamental", 24)
    expected = page.evaluate(f"{HOOK}.expected()")
    level = 20 * np.log10(page.evaluate(f"Array.from({HOOK}.spectrum())"))
    assert len([v for v in expected["harmonics"] if v is not None]) == HARMONICS
    for k in range(1, 37):
        bin_ = 220 * k / FS * 2048
        near = level[int(bin_) : int(bin_) + 2].max()
        assert near == pytest.approx(expected["harmonics"][k - 1], abs=1.5)
    move(page, "Level A", -60)
    expected = page.evaluate(f"{HOOK}.expected()")["noise"]
    level = 20 * np.log10(page.evaluate(f"Array.from({HOOK}.spectrum())"))
    line = np.interp(np.arange(1025) / 32, np.arange(BANDS), expected)
    above = 10 ** ((level - line)[32:-32] / 10)
    assert 10 * np.log10(above.mean()) == pytest.approx(0, abs=0.7)


SLIDERS = {
    "Fundamental": 30,
    "Roll-off": 2,
    "Level A": -20,
    "Noise level": -14,
    "Colour": 40,
    "Reverb": 0.9,
}


@pytest.mark.parametrize("label", SLIDERS)
def test_each_slider_changes_the_spectrum(label, page, made):
    synth(page, made)
    before, drawn = page.evaluate(f"{HOOK}.spectrum()"), page.evaluate(PICTURE)
    slider = page.get_by_role("slider", name=label)
    said = slider.get_attribute("aria-valuetext")
    move(page, label, SLIDERS[label])
    assert page.evaluate(f"{HOOK}.spectrum()") != before
    assert page.evaluate(PICTURE) != drawn
    assert slider.get_attribute("aria-valuetext") != said


def test_sliders_say_what_they_set(page, made):
    synth(page, made)
    for label, value, text, name, param in (
        ("Fundamental", 0, "55 Hz", "f0", 55),
        ("Fundamental", 63, "2,000 Hz", "f0", 2000),
        ("Fundamental", 36, "440 Hz", "f0", 440),
        ("Level A", -60, "off", "level", 0),
        ("Level A", -20, "−20 dB", "level", 0.1),
        ("Noise level", -60, "off", "noise", 0),
        ("Noise level", -40, "−40 dB", "noise", 0.01),
        ("Colour", 12, "12 dB", "tilt", 12),
        ("Reverb", 0.5, "0.50", "wet", 0.5),
        ("Roll-off", 0, "0.00", "rolloff", 0),
        ("Volume", 0.35, "35 %", "volume", 0.35),
    ):
        move(page, label, value)
        slider = page.get_by_role("slider", name=label)
        assert slider.get_attribute("aria-valuetext") == text
        assert page.evaluate(f"{HOOK}.state()")[name] == pytest.approx(param)
    assert page.locator(".curve").get_attribute("d").count("NaN") == 0


@pytest.mark.parametrize(("value", "count"), [(0, 60), (24, 36), (63, 3)])
def test_a_sentence_counts_the_harmonics(value, count, page, made):
    synth(page, made)
    move(page, "Fundamental", value)
    sentence = page.locator(".note").inner_text()
    assert sentence.startswith(f"{count} of 60 harmonics lie below 8,000 Hz")
    assert (f"leaves out {60 - count}" in sentence) == (count < 60)
    diamonds = page.locator(".tops").get_attribute("d").count("M")
    assert diamonds == count
    page.wait_for_timeout(600)
    assert page.locator(".unseen").inner_text() == sentence


# ---- The synthesiser's sound ----


def test_nothing_sounds_before_a_press(page, made):
    synth(page, made)
    for label, value in SLIDERS.items():
        move(page, label, value)
    move(page, "Volume", 0.5)
    page.get_by_role("button", name="Mute").click()
    assert page.evaluate("heard.contexts") == 0
    assert page.evaluate("heard.starts.length") == 0
    assert page.evaluate(f"{HOOK}.state().playing") is False


def test_play_mute_and_stop(page, made):
    synth(page, made)

    def press(name):
        page.get_by_role("button", name=name).click()

    press("Play")
    assert page.evaluate("heard.contexts") == 1
    assert page.evaluate("heard.context.sampleRate") == FS
    page.wait_for_function(f"({LEVEL})() > 0.01")
    assert page.evaluate(f"{HOOK}.state().playing") is True
    assert page.get_by_role("button", name="Play").count() == 0
    press("Mute")
    mute = page.get_by_role("button", name="Mute")
    assert mute.get_attribute("aria-pressed") == "true"
    page.wait_for_function(f"({LEVEL})() < 1e-4", polling=50)
    page.wait_for_timeout(300)
    assert page.evaluate(LEVEL) < 1e-4
    press("Mute")
    assert mute.get_attribute("aria-pressed") == "false"
    page.wait_for_function(f"({LEVEL})() > 0.01")
    move(page, "Volume", 0)
    page.wait_for_timeout(800)
    assert page.evaluate(LEVEL) < 1e-4
    move(page, "Volume", 1)
    page.wait_for_function(f"({LEVEL})() > 0.01")
    press("Stop")
    assert page.evaluate(f"{HOOK}.state().playing") is False
    page.wait_for_function("heard.context.state === 'suspended'")
    press("Play")
    assert page.evaluate("heard.contexts") == 1
    page.wait_for_function(f"({LEVEL})() > 0.01")


def test_a_move_swaps_the_loop_at_the_same_place(page, made):
    synth(page, made)
    page.get_by_role("button", name="Play").click()
    page.wait_for_timeout(300)
    page.evaluate(
        """async () => {
            const range = document.querySelector('input');
            for (let value = 20; value < 45; value++) {
                range.value = value;
                range.dispatchEvent(new Event('input'));
                await new Promise((done) => setTimeout(done, 1));
            }
        }"""
    )
    page.wait_for_timeout(300)
    assert max(page.evaluate("heard.ahead")) < 0.045  # no queue: the latest waits
    starts = page.evaluate("heard.starts")
    (begun, first), *swaps = starts
    assert first == 0 and 2 <= len(swaps) <= 25
    for when, offset in swaps:
        assert offset == pytest.approx((when - begun) % SECONDS, abs=1e-6)
    assert np.diff([when for when, _ in swaps]).min() >= 0.03 - 1e-9
    # One fades out while the next fades in, over the same 30 ms.
    ramps = page.evaluate("heard.ramps")
    assert [to for to, _ in ramps] == [1, *([0, 1] * len(swaps))]
    out, into = ([end for _, end in ramps[i::2]] for i in (1, 2))
    ends = [when + 0.03 for when, _ in swaps]
    assert out == pytest.approx(ends) and into == pytest.approx(ends)
    stops = [when for (when,) in page.evaluate("heard.stops")]
    assert stops == pytest.approx(ends)
    same = page.evaluate(
        f"() => {HOOK}.render({HOOK}.state())"
        ".every((v, i) => v === heard.last.buffer.getChannelData(0)[i])"
    )
    assert same and page.evaluate("heard.last.loop")


def test_it_stops_when_it_leaves_or_is_hidden(page, made):
    synth(page, made)
    page.get_by_role("button", name="Play").click()
    page.evaluate(
        """() => {
            Object.defineProperty(document, 'hidden', {get: () => true});
            document.dispatchEvent(new Event('visibilitychange'));
        }"""
    )
    assert page.evaluate(f"{HOOK}.state().playing") is False
    page.get_by_role("button", name="Play").click()
    page.evaluate(
        "() => { window.gone = document.querySelector('.play'); gone.remove(); }"
    )
    page.wait_for_function("!gone.iclrtut.state().playing")
    page.wait_for_function("heard.context.state === 'suspended'")


@pytest.mark.parametrize(
    "broken",
    [
        "delete window.AudioContext",
        "window.AudioContext = class { constructor() { throw new Error('no'); } }",
        "AudioContext.prototype.resume = () => Promise.reject(new Error('no'))",
    ],
)
def test_a_browser_without_sound_is_told_in_a_sentence(broken, page, made):
    synth(page, made)
    page.evaluate(f"() => {{ {broken}; }}")
    assert page.locator(".warning").inner_text() == ""
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("document.querySelector('.warning').textContent")
    warning = page.get_by_role("alert").inner_text()
    assert "no sound" in warning and warning.count(".") == 1
    assert page.get_by_role("button", name="Play").count() == 1
    before = page.evaluate(PICTURE)
    move(page, "Reverb", 0.8)
    assert page.evaluate(PICTURE) != before


# ---- The players ----


def test_samples_are_those_of_the_files(page, made):
    players(page, made)
    got = page.evaluate(f"{HOOK}.samples.map((x) => Array.from(x))")
    for x, y in zip(got, sounds().values(), strict=True):
        assert np.abs(np.array(x) - y).max() < 1e-4


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
    page.set_content(document(shown(made, heard({"Odd": x}))))
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


def test_the_synthesiser_and_the_players_give_way_to_each_other(page, made):
    page.add_init_script(LISTEN)
    page.goto("about:blank")
    again = {**SYNTH, "again": True}
    figures = (heard({"A": sine(440, 0.1)}), SYNTH, again)
    page.set_content(document("".join(shown(made, payload) for payload in figures)))
    states = (
        "[...document.querySelectorAll('.play')].slice(1)"
        ".map((e) => e.iclrtut.state().playing)"
    )
    page.locator("audio").evaluate("e => e.play()")
    page.get_by_role("button", name="Play").first.click()
    page.wait_for_function("document.querySelector('audio').paused")
    assert page.evaluate(states) == [True, False]
    page.get_by_role("button", name="Play").click()
    assert page.evaluate(states) == [False, True]
    page.locator("audio").evaluate("e => e.play()")
    page.wait_for_function(f"({states}).every((one) => !one)")


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


# ---- On any page, for any reader ----


def both(made: list[str]) -> str:
    return shown(made, SYNTH) + shown(made, heard(sounds()))


@pytest.mark.parametrize("width", [340, 390, 1280])
def test_nothing_overflows_and_everything_can_be_touched(width, page, made):
    page.set_viewport_size({"width": width, "height": 800})
    page.set_content(document(both(made)))
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    sizes = page.locator("button, input[type=range], audio").evaluate_all(
        "all => all.map(e => [e.offsetWidth, e.offsetHeight])"
    )
    assert len(sizes) == 13 and min(map(min, sizes)) >= 40
    lefts = page.locator(".player").evaluate_all("all => all.map(e => e.offsetLeft)")
    assert len(set(lefts[:2])) == (2 if width == 1280 else 1)
    heights = page.locator("svg text").evaluate_all(
        "all => all.map(e => parseFloat(getComputedStyle(e).fontSize)"
        " * e.ownerSVGElement.clientWidth / e.ownerSVGElement.viewBox.baseVal.width)"
    )
    assert len(heights) > 20
    assert min(heights) >= 11 or width < 390


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing(theme, page, made):
    page.set_content(document(both(made), theme))
    assert playing.refused(page) == []


def test_it_works_under_a_strict_policy(page, made):
    page.add_init_script(LISTEN)
    page.goto("about:blank")
    meta = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    page.set_content(document(both(made)).replace("<title>", f"{meta}<title>"))
    page.get_by_role("button", name="Play").click()
    for _ in range(100):  # wait_for_function evaluates text, which the policy refuses
        if page.evaluate(f"({LEVEL})()") > 0.01:
            break
        page.wait_for_timeout(50)
    assert page.evaluate(f"({LEVEL})()") > 0.01
    audio = page.locator("audio").first
    audio.evaluate("e => e.play()")
    assert audio.evaluate("e => e.duration") == pytest.approx(1)
    assert ink(page, 0).max() > 0.97


def test_paper_keeps_the_pictures(page, made):
    page.set_content(document(both(made)))
    page.emulate_media(media="print")
    for hidden in ("audio", "input", ".buttons"):
        assert not page.locator(hidden).first.is_visible()
    assert page.get_by_text("220 Hz", exact=True).is_visible()
    assert page.locator(".player svg").first.is_visible()
    assert page.locator(".note").first.is_visible()


def test_all_is_reached_by_keys(page, made):
    synth(page, made)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate(f"{HOOK}.state().playing") is True
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert page.evaluate(f"{HOOK}.state().muted") is True
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    f0 = page.evaluate(f"{HOOK}.state().f0")
    assert f0 == pytest.approx(220 * 2 ** (0.25 / 12))


def test_the_figure_stays_light(made):
    assert len(shown(made, SYNTH).encode()) < 60_000
    assert len(json.dumps(SYNTH)) < 200
