"""The experiments of the chapter on DDSP: sounds, decoders, measurements.

Sound is float32 [n, N] at `fs` samples a second. Controls are [n, T] or [n, T, C] at
`rate` frames a second, with N = T * hop. Numbers in brackets are equations of the
chapter. `run` is what `iclrtut.start` returns; sizes come from its settings.
"""

import base64
import io
import math
import wave
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from iclrtut import data as sets
from iclrtut import play
from iclrtut.chapters.differentiable_dsp.method import (
    Controls,
    a_weighting,
    distribution,
    filter_noise,
    interpolate,
    loudness,
    mono,
    phase,
    positive,
    reverb,
    spectral_loss,
    synthesise,
    white,
)
from iclrtut.errors import BadRequest
from iclrtut.train import History, fit, linear, seeded

KINDS = {"ddsp": "DDSP", "plain": "waveform", "filter": "source-filter"}
LOWEST = 57.0  # MIDI note; training melodies lie in the octave above, 220 to 440 Hz
OCTAVE = 12.0  # semitones
QUIET = -30.0  # dB of an instrument at level 0, against level 1
SYNTH = {
    "mode": "synth",
    "fs": 16_000,
    "hop": 160,
    "harmonics": 60,
    "bands": 33,
    "seconds": 2,
}


def hop(run: Any) -> int:
    """Samples between two control frames."""
    return int(run.settings.fs // run.settings.rate)


# Sounds with known controls


class Instrument(NamedTuple):
    """A generated instrument: what its spectrum owes to pitch and level.

    How far a decoder carries beyond the octave that it heard depends on these numbers.
    A first "reed", whose even harmonics, roll-off and narrow formants changed much more
    with the pitch, turned the comparison round: an octave above training the DDSP
    decoder was at 6.3 to 7.4, the source-filter one at 5.3 to 6.5 (seeds 0 and 1).

    Attributes:
        rolloff: r of k^-r at 220 Hz and level 1.
        dull: added to r at level 0.
        steep: added to r by octave above 220 Hz.
        even: gain of the even harmonics at 220 Hz; 1 from 880 Hz on.
        formants: centre and width in Hz, and gain.
        breath: magnitude of the noise at level 1 and 0 Hz.
        colour: dB by which the noise rises from 0 Hz to fs / 2.
    """

    rolloff: float
    dull: float
    steep: float
    even: float
    formants: tuple[tuple[float, float, float], ...]
    breath: float
    colour: float


INSTRUMENTS = {
    "reed": Instrument(
        1.2, 0.6, 0.25, 0.5, ((900, 400, 1.5), (2500, 800, 1.0)), 0.035, -12.0
    ),
    "glass": Instrument(
        2.0, 0.4, -0.2, 1.0, ((1800, 500, 1.5), (4200, 700, 4.0)), 0.015, 6.0
    ),
}


def instrument(run: Any, name: str) -> Callable[[Tensor, Tensor], Controls]:
    """What an instrument does: (f0 in Hz, level in [0, 1]), both [n, T], to controls.

    Raises:
        BadRequest: there is no such instrument.
    """
    if name not in INSTRUMENTS:
        raise BadRequest(
            f"there is no instrument {name!r}: use {', '.join(INSTRUMENTS)}."
        )
    s, made = run.settings, INSTRUMENTS[name]

    def sound(f0: Tensor, level: Tensor) -> Controls:
        k = torch.arange(1.0, s.harmonics + 1, device=f0.device)
        octave, f = torch.log2(f0 / 220)[..., None], f0[..., None] * k
        r = made.rolloff + made.dull * (1 - level)[..., None] + made.steep * octave
        body = torch.ones_like(f)
        for centre, width, gain in made.formants:
            body = body + gain * torch.exp(-(((f - centre) / width) ** 2) / 2)
        even = made.even + (1 - made.even) * (octave / 2).clamp(0, 1)
        weights = k**-r * body * torch.where(k % 2 == 0, even, 1.0)
        amplitude = 0.5 * 10 ** (QUIET * (1 - level) / 20)
        along = torch.linspace(0, 1, s.bands, device=f0.device)
        colour = made.colour * along + 3 * octave * (2 * along - 1)
        breath = made.breath * (2 * amplitude).sqrt()[..., None]
        noise = breath * 10 ** (colour / 20)
        return Controls(f0, amplitude, distribution(weights, f0, s.fs), noise)

    return sound


class Clip(NamedTuple):
    """Sounds, what a decoder reads of them, and what they were made from."""

    audio: Tensor  # [n, N]
    f0: Tensor  # [n, T], Hz
    loudness: Tensor  # [n, T], dB, measured by (10)
    truth: Controls


def melodies(run: Any, n: int, name: str, octave: float = 0) -> tuple[Tensor, Tensor]:
    """Melodies of random notes with vibrato and envelopes, on the run's device.

    Args:
        run: the run.
        n: how many.
        name: fresh ones for each name.
        octave: octaves above the training range, 220 to 440 Hz.

    Returns:
        f0 [n, T] in Hz, outside the range by a vibrato of 30 cents at most, and level
        [n, T] in [0, 1].
    """
    s, rng = run.settings, run.rng(name)
    t = np.arange(round(s.seconds * s.rate)) / s.rate
    semitones, level = np.empty((2, n, len(t)))
    for i in range(n):
        ends = np.cumsum(rng.uniform(0.15, 0.6, 1 + math.ceil(s.seconds / 0.15)))
        at = np.searchsorted(ends, t, "right")
        age, left = t - np.append(0.0, ends)[at], ends[at] - t
        note, peak, decay = rng.uniform(
            [[0.0], [0.4], [0.3]], [[OCTAVE], [1.0], [2.0]], (3, len(ends))
        )
        depth, speed, start = rng.uniform([0, 4, 0], [0.3, 7, 2 * np.pi])
        vibrato = depth * np.sin(2 * np.pi * speed * t + start)
        semitones[i] = note[at] + vibrato
        edges = np.clip(age / 0.04, 0, 1) * np.clip(left / 0.06, 0, 1)
        level[i] = peak[at] * np.exp(-decay[at] * age) * edges
    f0 = 440 * 2 ** ((LOWEST - 69 + semitones) / 12 + octave)
    made = torch.tensor(np.stack([f0, level]), dtype=torch.float32, device=run.device)
    return made[0], made[1]


def perform(run: Any, controls: Controls, name: str) -> Tensor:
    """The sound [n, N] of controls; its noise is drawn by name."""
    noise = _noise(run, controls.f0, run.generator(name))
    return synthesise(controls, noise, hop(run), run.settings.fs)


def _noise(run: Any, f0: Tensor, generator: torch.Generator) -> Tensor:
    """Fresh noise, a hop for each frame of f0 [n, T]."""
    return white((*f0.shape[:-1], f0.shape[-1] * hop(run)), generator)


def clips(
    run: Any,
    sound: Callable[[Tensor, Tensor], Controls],
    n: int,
    name: str,
    octave: float = 0,
) -> Clip:
    """n melodies of an instrument with their measured loudness; see `melodies`."""
    s, truth = run.settings, sound(*melodies(run, n, name, octave))
    audio = perform(run, truth, f"{name} noise")
    return Clip(audio, truth.f0, loudness(audio, s.fs, s.rate), truth)


def floor(run: Any, clip: Clip) -> float:
    """The spectral loss between a clip and another rendering of its own truth."""
    return float(spectral_loss(perform(run, clip.truth, "floor"), clip.audio))


# Decoders


def _stack(inputs: int, width: int, layers: int) -> nn.Sequential:
    made: list[nn.Module] = []
    for i in range(layers):
        made += [nn.Linear(width if i else inputs, width), nn.LayerNorm(width)]
        made += [nn.ReLU()]
    return nn.Sequential(*made)


class Trunk(nn.Module):
    """Pitch and loudness, each through a stack; a GRU; a stack over all three, (12).

    Attributes:
        mean, spread: of the loudness of the training set, dB.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, hidden: int, width: int, layers: int):
        super().__init__()
        self.pitch, self.loud = (_stack(1, width, layers) for _ in range(2))
        self.gru = nn.GRU(2 * width, hidden, batch_first=True)
        self.out = _stack(hidden + 2 * width, width, layers)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("spread", torch.ones(()))

    def forward(self, f0: Tensor, loud: Tensor) -> Tensor:
        """f0 in Hz and loudness in dB, both [n, T], to [n, T, width]."""
        pitch = self.pitch(torch.log2(f0 / 261.63)[..., None])
        loud = self.loud(((loud - self.mean) / self.spread)[..., None])
        both = torch.cat([pitch, loud], -1)
        told: Tensor = self.out(torch.cat([self.gru(both)[0], both], -1))
        return told


class Decoder(nn.Module):
    """A synthesiser's controls from pitch and loudness, (12), and its sound."""

    def __init__(self, s: Any, hidden: int, width: int, room: int = 0):
        super().__init__()
        self.fs, self.hop, self.harmonics = s.fs, s.fs // s.rate, s.harmonics
        self.trunk = Trunk(hidden, width, s.layers)
        self.head = nn.Linear(width, 1 + s.harmonics + s.bands)
        self.room = nn.Parameter(torch.zeros(room)) if room else None

    @staticmethod
    def count(
        hidden: int, width: int, layers: int, harmonics: int, bands: int, room: int = 0
    ) -> int:
        """How many parameters such a decoder has, by the formula of (12)."""

        def stack(inputs: int) -> int:
            return (inputs + 3 + (layers - 1) * (width + 3)) * width

        gru = 3 * hidden * (2 * width + hidden + 2)
        head = (width + 1) * (1 + harmonics + bands)
        return 2 * stack(1) + gru + stack(hidden + 2 * width) + head + room

    def controls(self, f0: Tensor, loud: Tensor) -> Controls:
        """f0 in Hz and loudness in dB, both [n, T], to the controls of T frames."""
        told = self.head(self.trunk(f0, loud))
        last = 1 + self.harmonics
        d = distribution(positive(told[..., 1:last]), f0, self.fs)
        noise = positive(told[..., last:] - 5)  # begins at 5e-5: quiet
        return Controls(f0, positive(told[..., 0]), d, noise)

    def forward(
        self, f0: Tensor, loud: Tensor, noise: Tensor, wet: bool = True
    ) -> Tensor:
        """Sound [n, N] from f0 and loudness [n, T] and noise [n, N].

        Args:
            wet: whether the room is heard, where there is one.
        """
        dry = synthesise(self.controls(f0, loud), noise, self.hop, self.fs)
        if self.room is None or not wet:
            return dry
        direct = torch.ones_like(self.room[:1])  # the sound itself always arrives
        return reverb(dry, torch.cat([direct, self.room[1:]]))


class Waveform(nn.Module):
    """Samples from pitch, loudness and noise: the same trunk, then convolutions.

    Two transposed convolutions go from frames to samples; there the noise joins in,
    and a sine of the pitch if `source`; three convolutions make the sound of them.
    """

    def __init__(self, s: Any, hidden: int, width: int, source: bool):
        super().__init__()
        self.fs, self.hop, self.source = s.fs, s.fs // s.rate, source
        self.trunk = Trunk(hidden, width, s.layers)
        root = math.isqrt(self.hop)
        first = next(a for a in range(root, 0, -1) if self.hop % a == 0)
        wide, narrow = min(3 * width // 2, 128), min(width // 2, 64)
        self.strides = (first, self.hop // first)
        channels = (width, wide, narrow - 1 - source)
        self.up = nn.ModuleList(
            nn.ConvTranspose1d(channels[i], channels[i + 1], 2 * a, a, a // 2)
            for i, a in enumerate(self.strides)
        )
        self.down = nn.Sequential(
            nn.Conv1d(narrow, narrow, 9, padding=4),
            nn.LeakyReLU(0.1),
            nn.Conv1d(narrow, narrow, 9, padding=4),
            nn.LeakyReLU(0.1),
            nn.Conv1d(narrow, 1, 9, padding=4),
        )

    def forward(self, f0: Tensor, loud: Tensor, noise: Tensor) -> Tensor:
        """Sound [n, N] from f0 and loudness [n, T] and noise [n, N]."""
        x = self.trunk(f0, loud).mT
        for up, a in zip(self.up, self.strides, strict=True):
            x = F.leaky_relu(up(x)[..., : x.shape[-1] * a], 0.1)
        heard = [x, noise[:, None]]
        if self.source:
            sine = torch.sin(phase(interpolate(f0, self.hop), self.fs))
            heard.append(sine[:, None])
        sound: Tensor = self.down(torch.cat(heard, 1))[:, 0]
        return sound


# Training


class Trained(NamedTuple):
    """A trained decoder, what was watched, and how many parameters it has."""

    model: Any
    history: History
    parameters: int


Models = dict[str, Trained]  # kind and number of examples, such as "ddsp_16"


def _statistics(loud: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the frames within 50 dB of the loudest."""
    sounding = loud[loud > loud.max() - 50]
    return sounding.mean(), sounding.std().clamp_min(1e-3)


class Recording(NamedTuple):
    """Sounds with what a decoder reads of them."""

    audio: Tensor  # [n, N]
    f0: Tensor  # [n, T], Hz
    loudness: Tensor  # [n, T], dB

    def draw(
        self, n: int, frames: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """n random windows of so many frames; audio, f0 and loudness."""
        count, T = self.f0.shape
        hop, device = self.audio.shape[1] // T, self.audio.device
        at = torch.randint(count, (n, 1), generator=generator, device=device)
        last = T - frames + 1
        start = torch.randint(last, (n, 1), generator=generator, device=device)
        frame = start + torch.arange(frames, device=device)
        sample = start * hop + torch.arange(frames * hop, device=device)
        return self.audio[at, sample], self.f0[at, frame], self.loudness[at, frame]


def train(
    run: Any,
    clip: Clip,
    kind: str,
    examples: int,
    hidden: int | None = None,
    name: str = "",
) -> Trained:
    """A decoder of an instrument, from the first clips of a set.

    All kinds share steps, batches and the first weights of their trunk, hear fresh
    noise at each step, and have rates that fall linearly to 0. The rates of `quick`
    were chosen for each kind by the mean loss on unseen melodies with 1 and 16
    examples, over seeds 0 to 3: 5.85, 5.78, 5.80, 5.82 and 5.82 of "plain" at 2, 4, 6,
    8 and 12e-3; 4.72, 4.79, 4.65 and 4.66 of "filter" at 4, 6, 8 and 12e-3;
    4.19, 4.18 and 4.20 of "ddsp" at 12, 16 and 24e-3.

    Args:
        run: the run.
        clip: what to train on.
        kind: "ddsp", "plain" (a waveform decoder) or "filter" (a source-filter one).
        examples: how many of the clips.
        hidden: units of a smaller decoder: of its GRU, and of its stacks at most.
        name: of its checkpoint; kind and number of examples unless given.

    Raises:
        BadRequest: there is no such kind, or there are fewer clips.
    """
    if kind not in KINDS:
        raise BadRequest(f"there is no decoder {kind!r}: use {', '.join(KINDS)}.")
    if not 1 <= examples <= len(clip.audio):
        raise BadRequest(
            f"{examples} examples were asked of {len(clip.audio)} clips: make more, or "
            "ask for fewer."
        )
    s = run.settings
    units = hidden or s.hidden, min(hidden or s.width, s.width)
    model: Decoder | Waveform
    with seeded(run.generator("net", "cpu").initial_seed()):
        if kind == "ddsp":
            model = Decoder(s, *units)
        else:
            model = Waveform(s, *units, kind == "filter")
    sounds = Recording(*(part[:examples] for part in clip[:3]))
    rate = {"ddsp": s.lr, "plain": s.wave_lr, "filter": s.filter_lr}[kind]
    return _fit(run, model, sounds, s.steps, rate, name or f"{kind}_{examples}")


def _fit(
    run: Any,
    model: Decoder | Waveform,
    sounds: Recording,
    steps: int,
    rate: float,
    name: str,
) -> Trained:
    """Train on random windows of `seconds`, or on all of shorter sounds."""
    s, trunk = run.settings, model.trunk
    trunk.mean, trunk.spread = _statistics(sounds.loudness)
    model.to(run.device)
    frames = min(round(s.seconds * s.rate), sounds.f0.shape[1])
    batches, noises = run.generator("batches"), run.generator("noise")

    def loss_at(t: int) -> tuple[Tensor, dict[str, float]]:
        audio, f0, loud = sounds.draw(s.batch, frames, batches)
        noise = white(audio.shape, noises)
        return spectral_loss(model(f0, loud, noise), audio), {}

    optimizer = torch.optim.Adam(model.parameters(), rate, fused=True)
    history = fit(
        loss_at,
        optimizer,
        steps,
        state={"model": model, "batches": batches, "noise": noises},
        folder=run.folder,
        name=name,
        schedule=linear(steps),
        every=s.every,
    )
    return Trained(model.eval(), history, sum(p.numel() for p in model.parameters()))


def train_all(run: Any, clip: Clip) -> Models:
    """Every kind of decoder on every number of examples; "ddsp_1" and so on."""
    return {
        f"{kind}_{n}": train(run, clip, kind, n)
        for n in run.settings.examples
        for kind in KINDS
    }


CHUNK = 8  # sounds rendered at once


@torch.no_grad()
def render(
    run: Any, trained: Trained, f0: Tensor, loud: Tensor, name: str, **how: bool
) -> Tensor:
    """The sound [n, N] of a decoder; its noise is drawn by name.

    Args:
        run, trained: the run, and what it trained.
        f0, loud: Hz and dB, both [n, T].
        name: of the noise.
        how: `wet`, of a decoder with a room.
    """
    noise = _noise(run, f0, run.generator(name))
    parts = [slice(at, at + CHUNK) for at in range(0, len(f0), CHUNK)]
    sounds = [trained.model(f0[at], loud[at], noise[at], **how) for at in parts]
    return torch.cat(sounds)


@torch.no_grad()
def controls(trained: Trained, f0: Tensor, loud: Tensor) -> Controls:
    """What a DDSP decoder tells its synthesiser, from f0 and loudness [n, T].

    Raises:
        BadRequest: the decoder makes samples, and has no controls.
    """
    if not isinstance(trained.model, Decoder):
        raise BadRequest("a waveform decoder has no controls: give one of kind 'ddsp'.")
    told: Controls = trained.model.controls(f0, loud)
    return told


def transfer(
    run: Any,
    trained: Trained,
    f0: Tensor,
    loud: Tensor,
    octave: float = 0,
    name: str = "transfer",
) -> Tensor:
    """Timbre transfer: the melody of one sound, played by the decoder of another.

    Args:
        run, trained: the run, and the decoder that plays.
        f0, loud: of the sound, Hz and dB, both [n, T]; loudness is shifted and
            stretched to the mean and spread of what the decoder was trained on.
        octave: octaves by which the pitch is moved.
        name: of the noise.

    Returns:
        Sound, [n, N].
    """
    mean, spread = _statistics(loud)
    trunk = trained.model.trunk
    moved = (loud - mean) / spread * trunk.spread + trunk.mean
    return render(run, trained, f0 * 2**octave, moved, name)


# One note, fitted by gradient descent

START = (-1.0, 0.0, -2.0, -3.0)  # level, decay, harmonics, noise: where (4) is log


class Fit(NamedTuple):
    """A note, what descent made of it, and what was watched."""

    truth: Controls  # [1, T, ...]
    fitted: Controls
    target: Tensor  # [1, N]
    sound: Tensor  # [1, N]
    history: History


def _decaying(
    run: Any, f0: Tensor, level: Tensor, decay: Tensor, weights: Tensor, noise: Tensor
) -> Controls:
    """A note that only dies away: A(t) = level exp(-decay t), t in seconds, [1, T]."""
    T, s = f0.shape[1], run.settings
    age = torch.arange(T, device=f0.device) / s.rate
    d = distribution(weights.expand(1, T, -1), f0, s.fs)
    amplitude = level * torch.exp(-decay * age)[None]
    return Controls(f0, amplitude, d, noise.expand(1, T, -1))


def note(run: Any, harmonics: bool = True) -> Controls:
    """The controls of a note of one clip's length, random by seed, [1, T, ...].

    Its noise is quiet, about -55 dB. With louder noise, which the loss silences (11),
    the harmonics fill in for it: at -40 dB their median error was 0.10, at -50 dB (and
    a faster decay, as there) 0.03 to 0.05, and here below 0.02 (seeds 0 to 2).

    Args:
        run: the run.
        harmonics: whether it has any; else the same note with amplitude 0.
    """
    s, rng = run.settings, run.rng("note")
    t = np.arange(round(s.seconds * s.rate))[None] / s.rate
    vibrato = 0.2 * np.sin(2 * np.pi * (5 * t + rng.uniform()))
    f0 = rng.uniform(180, 280) * 2 ** (vibrato / 12)
    weights = np.exp(0.5 * rng.standard_normal(s.harmonics))
    weights /= np.arange(1, s.harmonics + 1)
    waves, along = np.arange(1, 4)[:, None], np.linspace(0, np.pi, s.bands)
    bumps = (rng.uniform(-4, 4, (3, 1)) * np.cos(waves * along)).sum(0)
    noise = 10 ** (bumps / 20 - 2.75)
    parts = (f0, 0.4 * harmonics, rng.uniform(0.5, 1.5), weights, noise)
    kind = {"dtype": torch.float32, "device": run.device}
    return _decaying(run, *(torch.tensor(part, **kind) for part in parts))


def fit_note(run: Any, harmonics: bool = True) -> Fit:
    """Fit level, decay, harmonics and noise filter of a note to its sound.

    The pitch is given; noise is fresh at each step.

    Args:
        run: the run.
        harmonics: whether the note has any, or only its noise.
    """
    s, truth = run.settings, note(run, harmonics)
    target, noises = perform(run, truth, "target"), run.generator("fit")
    sizes = [1, 1, s.harmonics, s.bands]
    start = torch.cat(
        [torch.full((size,), raw) for size, raw in zip(sizes, START, strict=True)]
    )
    model = nn.ParameterDict({"raw": nn.Parameter(start.to(run.device))})

    def told() -> Controls:
        level, decay, weights, noise = torch.split(positive(model["raw"]), sizes)
        return _decaying(run, truth.f0, level * harmonics, 2 * decay, weights, noise)

    def sound() -> Tensor:
        noise, here = white(target.shape, noises), told()
        if not harmonics:
            return filter_noise(noise, here.noise)
        return synthesise(here, noise, hop(run), s.fs)

    optimizer = torch.optim.Adam(model.parameters(), s.note_lr, fused=True)
    history = fit(
        lambda t: (spectral_loss(sound(), target), {}),
        optimizer,
        s.note_steps,
        state={"model": model, "noise": noises},
        folder=run.folder,
        name="note" if harmonics else "noise",
        schedule=linear(s.note_steps),
        every=s.every,
    )
    with torch.no_grad():
        return Fit(truth, told(), target, sound(), history)


# Measurements. Each returns claim id -> numbers, ready for run.claim(id, **numbers).

Measured = dict[str, dict[str, float]]


def measure_recovers(beside: Fit, alone: Fit) -> Measured:
    """Errors of a fitted note, and of a fitted noise that has no note beside it.

    Returns:
        For amplitudes also the 90th percentile "high"; for noise also the median error
        "signed" and the 90th percentile "high" of its size, dB.
    """
    true, found = (
        each.amplitude[..., None] * each.distribution
        for each in (beside.truth, beside.fitted)
    )
    off = ((found - true).abs() / true)[true > 0]
    amplitudes = {"value": float(off.median()), "high": float(off.quantile(0.9))}
    told: Measured = {"recovers_amplitudes": amplitudes}
    for id, each in (("alone", alone), ("beside", beside)):
        dB = 20 * (each.fitted.noise / each.truth.noise).log10()
        signed = float(dB.median())
        high = float(dB.abs().flatten().quantile(0.9))
        numbers = {"value": abs(signed), "signed": signed, "high": high}
        told[f"recovers_noise_{id}"] = numbers
    return told


def loss_of(run: Any, trained: Trained, clip: Clip) -> float:
    """The spectral loss of a decoder on clips."""
    sound = render(run, trained, clip.f0, clip.loudness, "test")
    return float(spectral_loss(sound, clip.audio))


def _against(losses: Mapping[str, float], n: int, lowest: float) -> Measured:
    """The loss of DDSP minus that of each waveform decoder."""
    ddsp = losses[f"ddsp_{n}"]
    return {
        kind: {
            "value": ddsp - losses[f"{kind}_{n}"],
            "ddsp": ddsp,
            kind: losses[f"{kind}_{n}"],
            "floor": lowest,
        }
        for kind in ("plain", "filter")
    }


def measure_small_data(run: Any, models: Models, test: Clip) -> Measured:
    """Losses on unseen melodies by kind and number of examples, with their floor."""
    lowest = floor(run, test)
    losses = {name: loss_of(run, each, test) for name, each in models.items()}
    return {
        f"small_data_{kind}_{n}": numbers
        for n in run.settings.examples
        for kind, numbers in _against(losses, n, lowest).items()
    }


def measure_extrapolates(run: Any, models: Models, high: Clip) -> Measured:
    """Losses above the training range, of the decoders with most examples."""
    n = max(run.settings.examples)
    losses = {
        name: loss_of(run, each, high)
        for name, each in models.items()
        if name.endswith(f"_{n}")
    }
    found = _against(losses, n, floor(run, high))
    return {f"extrapolates_{kind}": numbers for kind, numbers in found.items()}


def measure_small_model(run: Any, clip: Clip, models: Models, test: Clip) -> Measured:
    """The smallest DDSP decoder that does as well as the best waveform decoder.

    All saw the most examples. Smaller ones are trained here.

    Returns:
        Also "parameters" and "loss" of that decoder (0 and the best loss if there is
        none, with value 0), "waveform_parameters", "waveform_loss" and "floor".
    """
    s, n = run.settings, max(run.settings.examples)
    bar, best = min(
        (loss_of(run, models[f"{kind}_{n}"], test), models[f"{kind}_{n}"].parameters)
        for kind in ("plain", "filter")
    )
    tried = [train(run, clip, "ddsp", n, h, f"ddsp_{n}_{h}") for h in s.tiny]
    tried.append(models[f"ddsp_{n}"])
    found = [(each.parameters, loss_of(run, each, test)) for each in tried]
    good = [each for each in found if each[1] <= bar]
    least = min(good) if good else (0, min(loss for _, loss in found))
    numbers = {
        "value": best / least[0] if good else 0.0,
        "parameters": float(least[0]),
        "loss": least[1],
        "waveform_parameters": float(best),
        "waveform_loss": bar,
        "floor": floor(run, test),
    }
    return {"small_model": numbers}


def pitch(x: Tensor, fs: int = 16_000, low: float = 70, high: float = 1000) -> Tensor:
    """Pitch by plain YIN (de Cheveigne and Kawahara, 2002), in double precision.

    Windows of 1,024 samples, a hop of 256; the first trough of the normalised
    difference below 0.1, or else the deepest; a parabola through the difference.

    Args:
        x: sound [..., N], of at least 1,024 + fs / low samples.
        fs: its samples a second.
        low, high: the range of pitches, Hz.

    Returns:
        Hz, [..., frames].

    Raises:
        BadRequest: the sound is too short.
    """
    window, most, least = 1024, math.ceil(fs / low) + 1, math.floor(fs / high)
    if x.shape[-1] < window + most:
        raise BadRequest(
            f"{x.shape[-1]} samples are too few to tell pitches from {low:g} Hz: give "
            f"{window + most} or more."
        )
    frames = x.double().unfold(-1, window + most, 256)  # [..., frames, samples]
    size = 2 * window + most
    spectrum = torch.fft.rfft(frames, size)
    first = torch.fft.rfft(frames[..., :window], size)
    product = torch.fft.irfft(spectrum * first.conj(), size)[..., : most + 1]
    power = F.pad(frames.square().cumsum(-1), (1, 0))
    energy = power[..., window:] - power[..., : most + 1]
    d = energy[..., :1] + energy - 2 * product  # [..., frames, lags]
    lag = torch.arange(most + 1, device=x.device)
    mean = (d.cumsum(-1) - d[..., :1]) / lag.clamp_min(1)
    ratio = d / mean.clamp_min(1e-30)
    inside = (lag >= least) & (lag < most)
    rising = F.pad(ratio[..., 1:] >= ratio[..., :-1], (0, 1))
    trough = inside & rising & (ratio < 0.1)
    deepest = ratio.where(inside, math.inf).argmin(-1)
    at = torch.where(trough.any(-1), trough.int().argmax(-1), deepest)[..., None]
    before, here, after = (d.gather(-1, at + i)[..., 0] for i in (-1, 0, 1))
    bend = (before - 2 * here + after).clamp_min(1e-30)
    shift = ((before - after) / (2 * bend)).clamp(-1, 1)
    found: Tensor = fs / (at[..., 0] + shift)
    return found


def measure_disentangled(run: Any, trained: Trained) -> Measured:
    """Steady tones at five pitches and loudness -1, 0, +1 deviations, noise and all.

    Returns:
        For pitch: the range over the loudnesses, cents, worst pitch; also the
        "middle" one. For loudness: the range over the pitches, dB, worst loudness;
        also the three, "low", "middle" and "high".
    """
    s, device, trunk = run.settings, run.device, trained.model.trunk
    semitones = torch.linspace(1, OCTAVE - 1, 5, device=device)
    f0 = 440 * 2 ** ((LOWEST - 69 + semitones) / 12)
    asked = trunk.mean + trunk.spread * torch.arange(-1.0, 2, device=device)
    T = round(s.seconds * s.rate)
    pairs = torch.cartesian_prod(f0, asked)[..., None].expand(-1, -1, T)
    sound = render(run, trained, pairs[:, 0], pairs[:, 1], "steady")
    heard = loudness(sound, s.fs, s.rate)[:, T // 4 : -(T // 4)].median(-1).values
    cents = 1200 * pitch(sound, s.fs).median(-1).values.log2()
    moved, kept = cents.view(5, 3), heard.view(5, 3)
    by_pitch = (moved.amax(1) - moved.amin(1)).sort().values.tolist()
    by_level = (kept.amax(0) - kept.amin(0)).tolist()
    return {
        "disentangled_pitch": {"value": by_pitch[-1], "middle": by_pitch[2]},
        "disentangled_loudness": {
            "value": max(by_level),
            **dict(zip(("low", "middle", "high"), by_level, strict=True)),
        },
    }


# The pitch, by gradient descent

TONE = 0.25  # seconds


def steady(f0: Tensor, amplitudes: Tensor, N: int, fs: int = 16_000) -> Tensor:
    """Tones of constant pitch, (1) and (2), quickly, with gradients for f0.

    Equal to `harmonic_bank` at constant f0. There phi(64 b + r) is 2 pi f0 / fs times
    64 b + (r + 1), and the addition theorem makes of it a product of matrices, with one
    sine for every b and every r.

    Args:
        f0: Hz, [S].
        amplitudes: A_k of all tones, [K].
        N: samples, a multiple of 64.

    Returns:
        Sound [S, N], float32.
    """
    k = torch.arange(1, len(amplitudes) + 1, device=f0.device)
    turn = (2 * math.pi / fs) * f0.double()[:, None, None] * k  # [S, 1, K]
    heard = amplitudes.double() * (f0[:, None, None] * k < fs / 2)
    block = torch.arange(0, N, 64, device=f0.device)[:, None] * turn  # [S, N / 64, K]
    within = torch.arange(1, 65, device=f0.device)[:, None] * turn  # [S, 64, K]
    one = (block.sin() * heard) @ within.cos().mT
    two = (block.cos() * heard) @ within.sin().mT
    return (one + two).flatten(1).float()


def _tones(run: Any, f0: Tensor, seconds: float) -> Tensor:
    """Tones [S, N] of harmonics 1 / k, which sum to one."""
    s = run.settings
    k = torch.arange(1.0, s.harmonics + 1, device=run.device)
    return steady(f0, 1 / k / (1 / k).sum(), int(seconds * s.fs) // 64 * 64, s.fs)


@torch.no_grad()
def landscape(
    run: Any, f0: float, semitones: Tensor, linear: float = 1.0, log: float = 1.0
) -> Tensor:
    """The loss (9) of a tone of harmonics 1 / k, against the same at another pitch.

    Args:
        run: the run.
        f0: of the target, Hz.
        semitones: how far off the other tones are, [S].
        linear, log: weights of the two terms.

    Returns:
        Losses, [S].
    """
    away = torch.cat([semitones.new_zeros(1), semitones]).double().to(run.device)
    target, *rest = _tones(run, f0 * 2 ** (away / 12), run.settings.seconds).unbind()
    return torch.stack(
        [spectral_loss(tone, target, linear=linear, log=log) for tone in rest]
    ).cpu()


class Descent(NamedTuple):
    """Pitches that descended, in semitones from the target."""

    f0: float  # of the target, Hz
    starts: Tensor  # [S]
    ends: Tensor  # [S]
    paths: Tensor  # [steps + 1, S]


def descend(run: Any) -> Descent:
    """Adam on log f0 from wrong pitches, 15 cents a step and ever less.

    The amplitudes are the true ones, and there is no noise. Starts lie 1 to 12
    semitones away, half of them above and half below, one in each of as many equal
    parts. The target lies between 156 and 311 Hz.
    """
    s, rng = run.settings, run.rng("pitch")
    f0 = 220 * 2 ** rng.uniform(-0.5, 0.5)
    half = s.starts // 2
    away = 1 + 11 * (np.arange(half) + rng.uniform(size=(2, half))) / half
    starts = torch.tensor(np.append(-away[0], away[1]), device=run.device)
    model = nn.ParameterDict({"semitones": nn.Parameter(starts.clone())})
    (target,) = _tones(run, torch.tensor([f0], device=run.device), TONE)

    def loss_at(t: int) -> tuple[Tensor, dict[str, float]]:
        here = model["semitones"]
        tones = _tones(run, f0 * 2 ** (here / 12), TONE)
        watched = {str(i): float(x) for i, x in enumerate(here.tolist())}
        return spectral_loss(tones, target), watched

    optimizer = torch.optim.Adam(model.parameters(), 0.15, fused=True)
    history = fit(
        loss_at,
        optimizer,
        s.pitch_steps,
        state={"model": model},
        folder=run.folder,
        name="pitch",
        schedule=linear(s.pitch_steps),
        every=s.every,
    )
    ends = model["semitones"].detach().cpu()
    paths = [history.curves[str(i)] for i in range(len(starts))]
    along = torch.tensor(paths, dtype=torch.float64).T
    return Descent(f0, starts.cpu(), ends, torch.cat([along, ends[None]]))


def measure_pitch(descent: Descent) -> Measured:
    """The share of starts that end within 20 cents of the target."""
    found = float((descent.ends.abs() < 0.2).sum())
    trials = float(len(descent.ends))
    numbers = {"value": found / trials, "successes": found, "trials": trials}
    return {"pitch_is_hard": numbers}


# Recordings


def record(run: Any, samples: Any, rate: int) -> Recording:
    """Pitch and loudness of a recording of one voice, by pYIN and (10).

    Where pYIN hears no pitch it is drawn on, in octaves, between its neighbours; the
    loudness tells silence.

    Args:
        run: the run; the length is cut to whole frames.
        samples, rate: as `mono` takes them.

    Raises:
        BadRequest: it is no recording, is shorter than a window of 2,048 samples, or
            has no pitch anywhere.
    """
    import librosa

    s, step = run.settings, hop(run)
    audio = mono(samples, rate, s.fs)
    T = len(audio) // step
    audio = audio[: T * step]
    if len(audio) < 2048:
        raise BadRequest(
            f"the recording has {len(audio)} samples at {s.fs} a second: give 2048 or "
            "more."
        )
    f0, *_ = librosa.pyin(
        audio.numpy(), fmin=65, fmax=1100, sr=s.fs, frame_length=2048, hop_length=step
    )
    known = np.flatnonzero(~np.isnan(f0[:T]))
    if not len(known):
        raise BadRequest(
            "the recording has no pitch anywhere: give one voice or one instrument, "
            "louder than what is around it."
        )
    octaves = np.interp(np.arange(T), known, np.log2(f0[known]))
    loud = loudness(audio, s.fs, s.rate)
    made = torch.tensor(2**octaves, dtype=torch.float32)
    return Recording(*(part[None].to(run.device) for part in (audio, made, loud)))


def real_clips(run: Any) -> dict[str, Recording]:
    """The recordings of one voice in the offline set, by name; the piano is left out.

    Raises:
        RunFailed: the set is not on this machine.
    """
    z = sets.load("audio_clips")
    offsets, rate = z["offsets"], int(z["sample_rate"])
    return {
        str(name): record(run, z["samples"][offsets[i] : offsets[i + 1]], rate)
        for i, name in enumerate(z["names"])
        if name != "piano"
    }


def own(run: Any, path_or_samples: Any, rate: int | None = None) -> Recording:
    """A recording of the reader's own: a file (WAV, FLAC, OGG, MP3), or samples.

    Raises:
        BadRequest: the file cannot be read, samples come without their rate, or as in
            `record`.
    """
    if isinstance(path_or_samples, str | Path):
        import soundfile  # type: ignore[import-untyped]

        try:
            samples, rate = soundfile.read(str(path_or_samples))
        except (OSError, soundfile.LibsndfileError) as error:
            raise BadRequest(
                f"{path_or_samples} cannot be read as sound ({error}): give a WAV, "
                "FLAC, OGG or MP3 file."
            ) from error
        return record(run, samples, rate)
    if rate is None:
        raise BadRequest("samples came without a rate: say how many make a second.")
    return record(run, path_or_samples, rate)


def train_real(run: Any, recording: Recording, name: str) -> Trained:
    """The solo autoencoder with a room, on one recording.

    Args:
        run: the run.
        recording: what to learn; statistics of its loudness are the decoder's.
        name: of the recording, and of the checkpoint.
    """
    s = run.settings
    with seeded(run.generator("net", "cpu").initial_seed()):
        model = Decoder(s, s.hidden, s.width, s.room)
    return _fit(run, model, recording, s.real_steps, s.lr, f"real_{name}")


def dereverberate(
    run: Any, trained: Trained, recording: Recording, name: str = "room"
) -> tuple[Tensor, Tensor]:
    """A recording as its decoder plays it, in its room and without: two sounds [1, N].

    Raises:
        BadRequest: the decoder has no room.
    """
    if not isinstance(trained.model, Decoder) or trained.model.room is None:
        raise BadRequest("this decoder has no room: give one from train_real.")
    _, f0, loud = recording
    wet, dry = (render(run, trained, f0, loud, name, wet=w) for w in (True, False))
    return wet, dry


# Listening


def wav(x: Tensor, fs: int = 16_000) -> bytes:
    """A sound in [-1, 1] as a WAV file: mono, 16 bits; what is louder is cut."""
    whole = (x.detach().cpu().flatten().double() * 32767).round().clamp(-32768, 32767)
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(fs)
        out.writeframes(whole.numpy().astype("<i2").tobytes())
    return file.getvalue()


def level(sounds: Mapping[str, Tensor], fs: int = 16_000) -> dict[str, Tensor]:
    """The same sounds at one A-weighted power, (10), the highest peak at 0.9."""
    scaled = {}
    for label, x in sounds.items():
        power = torch.fft.rfft(x.flatten().double()).abs().square() / x.numel() ** 2
        f = torch.linspace(0, fs / 2, len(power), dtype=torch.float64, device=x.device)
        total = (power * 10 ** (a_weighting(f) / 10)).sum()
        scaled[label] = x / total.sqrt().clamp_min(1e-9)
    peak = max(float(x.abs().max()) for x in scaled.values())
    return {label: (0.9 / (peak or 1) * x).float() for label, x in scaled.items()}


def listen(
    sounds: Mapping[str, Tensor],
    *,
    alt: str,
    caption: str,
    fs: int = 16_000,
    matched: bool = False,
) -> None:
    """Show players in the page; nothing sounds until it is asked to.

    Args:
        sounds: label -> [N] or [1, N]; one factor brings peaks beyond 1 down to it.
        alt, caption: what the players are for, and what to listen for.
        fs: samples a second.
        matched: bring all to the same A-weighted power first.
    """
    heard = level(sounds, fs) if matched else dict(sounds)
    peak = max([1.0, *(float(x.abs().max()) for x in heard.values())])
    told = [
        {"label": label, "wav": base64.b64encode(wav(x / peak, fs)).decode()}
        for label, x in heard.items()
    ]
    payload = {"mode": "players", "fs": fs, "sounds": told}
    play.widget("differentiable_dsp", payload, alt=alt, caption=caption)
