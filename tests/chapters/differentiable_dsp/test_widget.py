"""The synthesiser in a browser: what sounds and shows is what was computed."""

from typing import Any

import numpy as np
import pytest
import torch
import widgets
from widgets import HOOK, PICTURE, TEXTS, document, move

from iclrtut import audio, play
from iclrtut.chapters.differentiable_dsp import method

SLUG = "differentiable_dsp"
page, made = widgets.page, widgets.made
FS, HOP, HARMONICS, BANDS, SECONDS = 16_000, 160, 60, 33, 2
SYNTH = {
    "fs": FS,
    "hop": HOP,
    "harmonics": HARMONICS,
    "bands": BANDS,
    "seconds": SECONDS,
}
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
# The highest level within so many seconds of the audio clock.
PEAK = f"""async (seconds) => {{
    const end = heard.context.currentTime + seconds;
    let top = 0;
    while (heard.context.currentTime < end) {{
        await new Promise((done) => setTimeout(done, 20));
        top = Math.max(top, ({LEVEL})());
    }}
    return top;
}}"""
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


def figure(made: list[str], payload: dict[str, Any] = SYNTH) -> str:
    play.widget(SLUG, payload, **TEXTS)
    return made[-1]


def players(made: list[str]) -> str:
    tone = 0.1 * torch.sin(2 * torch.pi * 440 / FS * torch.arange(FS))
    audio.players({"One": tone, "Two": tone / 2}, **TEXTS)
    return made[-1]


def synth(page: Any, made: list[str]) -> None:
    page.add_init_script(LISTEN)
    page.goto("about:blank")
    page.set_content(document(figure(made)))


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


def test_each_slider_changes_the_spectrum(page, made):
    synth(page, made)
    for label, value in SLIDERS.items():
        before = page.evaluate(f"{HOOK}.spectrum()")
        move(page, label, value)
        assert page.evaluate(f"{HOOK}.spectrum()") != before, label


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
    announced = "(text) => document.querySelector('.unseen').textContent === text"
    page.wait_for_function(announced, arg=sentence)


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
    page.evaluate(PEAK, 0.6)  # what the analyser still holds
    assert page.evaluate(PEAK, SECONDS) < 1e-4
    press("Mute")
    assert mute.get_attribute("aria-pressed") == "false"
    page.wait_for_function(f"({LEVEL})() > 0.01")
    move(page, "Volume", 0)
    page.evaluate(PEAK, 0.6)
    assert page.evaluate(PEAK, SECONDS) < 1e-4
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
    page.evaluate(PEAK, 0.3)
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
    page.evaluate(PEAK, 0.3)
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


def test_the_synthesiser_and_the_players_give_way_to_each_other(page, made):
    page.add_init_script(LISTEN)
    page.goto("about:blank")
    again = {**SYNTH, "again": True}
    figures = players(made) + figure(made) + figure(made, again)
    page.set_content(document(figures))
    states = (
        "[...document.querySelectorAll('.play')].slice(1)"
        ".map((e) => e.iclrtut.state().playing)"
    )
    page.locator("audio").first.evaluate("e => e.play()")
    page.get_by_role("button", name="Play").first.click()
    page.wait_for_function("document.querySelector('audio').paused")
    assert page.evaluate(states) == [True, False]
    page.get_by_role("button", name="Play").click()
    assert page.evaluate(states) == [False, True]
    page.locator("audio").first.evaluate("e => e.play()")
    page.wait_for_function(f"({states}).every((one) => !one)")
