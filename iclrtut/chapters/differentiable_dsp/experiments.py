"""The experiments of the chapter on DDSP: sounds, decoders, measurements.

Sound is float32 [n, N] at `fs` samples a second. Controls are [n, T] or [n, T, C] at
`rate` frames a second, with N = T * hop. Numbers in brackets are equations of the
chapter. `run` is what `iclrtut.start` returns; sizes come from its settings. Whatever
is named in a call draws its random numbers by that name and the seed of the run.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from iclrtut import data
from iclrtut.audio import Source, load_recording, pitch
from iclrtut.chapters.differentiable_dsp import Settings, method
from iclrtut.chapters.differentiable_dsp.decoder import Decoder, Trunk
from iclrtut.chapters.differentiable_dsp.method import Controls, spectral_loss
from iclrtut.claims import Measurements
from iclrtut.errors import BadRequest
from iclrtut.evaluation import in_batches
from iclrtut.metrics import share
from iclrtut.run import Run
from iclrtut.train import History, Loop, fit, linear, seeded

KINDS = {"ddsp": "DDSP", "plain": "waveform", "filter": "source-filter"}
LOWEST = 57.0  # MIDI note; training melodies lie in the octave above, 220 to 440 Hz
OCTAVE = 12.0  # semitones
QUIET = -30.0  # dB of an instrument at level 0, against level 1
CHUNK = 8  # sounds rendered at once
TONE = 0.25  # seconds of a tone whose pitch descends
SYNTH = {"fs": 16_000, "hop": 160, "harmonics": 60, "bands": 33, "seconds": 2}


# Sounds with known controls


class Instrument(NamedTuple):
    """A generated instrument: how its spectrum depends on pitch and level.

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


def perform(run: Run, instrument: str, f0: Tensor, level: Tensor) -> Controls[Tensor]:
    """The controls of an instrument that plays these pitches at these levels.

    Args:
        run: the run.
        instrument: its name in `INSTRUMENTS`.
        f0: Hz, [n, T].
        level: from 0, quiet and dull, to 1, [n, T].

    Raises:
        BadRequest: there is no such instrument.
    """
    if instrument not in INSTRUMENTS:
        raise BadRequest(
            f"there is no instrument {instrument!r}: use {', '.join(INSTRUMENTS)}."
        )
    s: Settings = run.settings
    spec = INSTRUMENTS[instrument]
    k = torch.arange(1.0, s.harmonics + 1, device=f0.device)
    octave, f = torch.log2(f0 / 220)[..., None], f0[..., None] * k
    r = spec.rolloff + spec.dull * (1 - level)[..., None] + spec.steep * octave
    body = torch.ones_like(f)
    for centre, width, gain in spec.formants:
        body = body + gain * torch.exp(-(((f - centre) / width) ** 2) / 2)
    even = spec.even + (1 - spec.even) * (octave / 2).clamp(0, 1)
    weights = k**-r * body * torch.where(k % 2 == 0, even, 1.0)
    amplitude = 0.5 * 10 ** (QUIET * (1 - level) / 20)
    along = torch.linspace(0, 1, s.bands, device=f0.device)
    colour = spec.colour * along + 3 * octave * (2 * along - 1)
    breath = spec.breath * (2 * amplitude).sqrt()[..., None]
    noise = breath * 10 ** (colour / 20)
    return Controls(f0, amplitude, method.distribution(weights, f0, s.fs), noise)


class Clip(NamedTuple):
    """Sounds, what a decoder reads of them, and the controls that made them.

    Attributes:
        audio: [n, N].
        f0: Hz, [n, T].
        loudness: dB, measured by (10), [n, T].
        truth: the controls, where they are known.
    """

    audio: Tensor
    f0: Tensor
    loudness: Tensor
    truth: Controls[Tensor] | None = None

    def windows(self, n: int, frames: int, generator: torch.Generator) -> "Clip":
        """n random windows of so many frames."""
        count, T = self.f0.shape
        hop, device = self.audio.shape[1] // T, self.audio.device
        row = torch.randint(count, (n, 1), generator=generator, device=device)
        last = T - frames + 1
        start = torch.randint(last, (n, 1), generator=generator, device=device)
        frame = start + torch.arange(frames, device=device)
        sample = start * hop + torch.arange(frames * hop, device=device)
        return Clip(
            self.audio[row, sample], self.f0[row, frame], self.loudness[row, frame]
        )


def melodies(run: Run, n: int, name: str, octave: float = 0) -> tuple[Tensor, Tensor]:
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
    s: Settings = run.settings
    rng = run.rng(name)
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
    both = torch.tensor(np.stack([f0, level]), dtype=torch.float32, device=run.device)
    return both[0], both[1]


def _noise(run: Run, f0: Tensor, name: str) -> Tensor:
    """Noise of this name, a hop for each frame of f0 [n, T]."""
    return method.white((len(f0), f0.shape[-1] * run.settings.hop), run.generator(name))


def sound_of(run: Run, controls: Controls[Tensor], name: str) -> Tensor:
    """The sound [n, N] of controls; its noise is drawn by name."""
    s: Settings = run.settings
    return method.synthesise(controls, _noise(run, controls.f0, name), s.hop, s.fs)


def clips(run: Run, instrument: str, n: int, name: str, octave: float = 0) -> Clip:
    """n melodies of an instrument with their measured loudness; see `melodies`."""
    s: Settings = run.settings
    truth = perform(run, instrument, *melodies(run, n, name, octave))
    audio = sound_of(run, truth, f"{name} noise")
    return Clip(audio, truth.f0, method.loudness(audio, s.fs, s.rate), truth)


def floor(run: Run, clip: Clip) -> float:
    """The spectral loss between a clip and another rendering of its own truth.

    Raises:
        BadRequest: the controls of the clip are not known.
    """
    if clip.truth is None:
        raise BadRequest("a recording has no known controls: give one from clips.")
    return float(spectral_loss(sound_of(run, clip.truth, "floor"), clip.audio))


# Rivals and training


class Waveform(nn.Module):
    """Samples from pitch, loudness and noise: the decoder's trunk, then convolutions.

    Two transposed convolutions go from frames to samples; there the noise joins in,
    and a sine of the pitch if `source`; three convolutions make the sound of them.
    """

    def __init__(
        self, *, hidden: int, width: int, layers: int, hop: int, fs: int, source: bool
    ):
        super().__init__()
        self.fs, self.hop, self.source = fs, hop, source
        self.trunk = Trunk(hidden=hidden, width=width, layers=layers)
        first = max(a for a in range(1, math.isqrt(hop) + 1) if hop % a == 0)
        wide, narrow = min(3 * width // 2, 128), min(width // 2, 64)
        self.strides = (first, hop // first)
        channels = (width, wide, narrow - 1 - source)
        self.up = nn.ModuleList(
            nn.ConvTranspose1d(channels[i], channels[i + 1], 2 * a, a, a // 2)
            for i, a in enumerate(self.strides)
        )
        down: list[nn.Module] = []
        for outputs in (narrow, narrow, 1):
            down += [nn.Conv1d(narrow, outputs, 9, padding=4), nn.LeakyReLU(0.1)]
        self.down = nn.Sequential(*down[:-1])

    def forward(self, f0: Tensor, loud: Tensor, noise: Tensor) -> Tensor:
        """Sound [n, N] from f0 and loudness [n, T] and noise [n, N]."""
        x = self.trunk(f0, loud).mT
        for up, a in zip(self.up, self.strides, strict=True):
            x = F.leaky_relu(up(x)[..., : x.shape[-1] * a], 0.1)
        inputs = [x, noise[:, None]]
        if self.source:
            sine = torch.sin(method.phase(method.interpolate(f0, self.hop), self.fs))
            inputs.append(sine[:, None])
        sound: Tensor = self.down(torch.cat(inputs, 1))[:, 0]
        return sound


Model = Decoder | Waveform
LossAt = Callable[[int], tuple[Tensor, dict[str, float]]]
State = dict[str, Any]


class Trained(NamedTuple):
    """A trained decoder, its curves, and how many parameters it has."""

    model: Model
    history: History
    parameters: int


Models = dict[str, Trained]  # kind and number of examples, such as "ddsp_16"


def _network(run: Run, kind: str, hidden: int, width: int, room: int = 0) -> Model:
    """A fresh network; all kinds of one size begin with the same trunk."""
    s: Settings = run.settings
    trunk = {"hidden": hidden, "width": width, "layers": s.layers}
    with seeded(run.generator("net", "cpu").initial_seed()):
        if kind != "ddsp":
            return Waveform(**trunk, hop=s.hop, fs=s.fs, source=kind == "filter")
        synth = {"harmonics": s.harmonics, "bands": s.bands, "room": room}
        return Decoder(**trunk, **synth, hop=s.hop, fs=s.fs)


def train(
    run: Run, clip: Clip, kind: str, examples: int, hidden: int | None = None
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
    s: Settings = run.settings
    units = hidden or s.hidden
    model = _network(run, kind, units, min(hidden or s.width, s.width))
    few = Clip(clip.audio[:examples], clip.f0[:examples], clip.loudness[:examples])
    rate = {"ddsp": s.lr, "plain": s.wave_lr, "filter": s.filter_lr}[kind]
    name = f"{kind}_{examples}_{hidden}" if hidden else f"{kind}_{examples}"
    return _fit(run, model, few, steps=s.steps, rate=rate, name=name)


def _statistics(loud: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the frames within 50 dB of the loudest."""
    sounding = loud[loud > loud.max() - 50]
    return sounding.mean(), sounding.std().clamp_min(1e-3)


def _fit(
    run: Run, model: Model, sounds: Clip, *, steps: int, rate: float, name: str
) -> Trained:
    """Train on random windows of `seconds`, or on all of shorter sounds."""
    s: Settings = run.settings
    trunk = model.trunk
    trunk.mean, trunk.spread = _statistics(sounds.loudness)
    model.to(run.device)
    frames = min(round(s.seconds * s.rate), sounds.f0.shape[1])
    batches, noises = run.generator("batches"), run.generator("noise")

    def loss_at(t: int) -> tuple[Tensor, dict[str, float]]:
        target, f0, loud, _ = sounds.windows(s.batch, frames, batches)
        noise = method.white(target.shape, noises)
        return spectral_loss(model(f0, loud, noise), target), {}

    state = {"model": model, "batches": batches, "noise": noises}
    history = _descend(run, loss_at, state, steps=steps, rate=rate, name=name)
    return Trained(model.eval(), history, sum(p.numel() for p in model.parameters()))


def _descend(
    run: Run, loss_at: LossAt, state: State, *, steps: int, rate: float, name: str
) -> History:
    """Adam on state["model"], at a rate that falls linearly to 0."""
    optimizer = torch.optim.Adam(state["model"].parameters(), rate, fused=True)

    def step(t: int) -> dict[str, Tensor | float]:
        loss, watched = loss_at(t)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return {"loss": loss, **watched}

    loop, every = Loop(step, optimizer, state, linear(steps)), run.settings.every
    return fit(loop, steps, folder=run.folder, name=name, every=every)


def train_all(run: Run, clip: Clip) -> Models:
    """Every kind of decoder on every number of examples; "ddsp_1" and so on."""
    return {
        f"{kind}_{n}": train(run, clip, kind, n)
        for n in run.settings.examples
        for kind in KINDS
    }


@torch.no_grad()
def render(
    run: Run, model: Callable[..., Tensor], f0: Tensor, loud: Tensor, name: str
) -> Tensor:
    """The sound of a decoder, a few clips at a time, without gradients.

    Args:
        run: the run.
        model: (f0, loudness, noise) -> sound.
        f0: Hz, [n, T].
        loud: loudness in dB, [n, T].
        name: of the noise.

    Returns:
        Sound, [n, N].
    """
    return in_batches(model, f0, loud, _noise(run, f0, name), size=CHUNK)


def transfer(run: Run, model: Model, clip: Clip) -> Tensor:
    """Timbre transfer: the melody of one sound, played by the decoder of another.

    Its loudness is shifted and stretched to the mean and spread of what the decoder
    was trained on.

    Args:
        run: the run.
        model: the decoder that plays.
        clip: the sound.

    Returns:
        Sound, [n, N].
    """
    mean, spread = _statistics(clip.loudness)
    moved = (clip.loudness - mean) / spread * model.trunk.spread + model.trunk.mean
    return render(run, model, clip.f0, moved, "transfer")


# One note, fitted by gradient descent

START = (-1.0, 0.0, -2.0, -3.0)  # level, decay, harmonics, noise: where (4) is log


class NoteFit(NamedTuple):
    """A note, what descent made of it, and the curves.

    Attributes:
        truth, fitted: controls, [1, T, ...].
        target, sound: what they sound like, [1, N].
        history: of the descent.
    """

    truth: Controls[Tensor]
    fitted: Controls[Tensor]
    target: Tensor
    sound: Tensor
    history: History


def _decaying(
    run: Run, f0: Tensor, level: Tensor, decay: Tensor, weights: Tensor, noise: Tensor
) -> Controls[Tensor]:
    """A note that only dies away: A(t) = level exp(-decay t), t in seconds, [1, T]."""
    T = f0.shape[1]
    age = torch.arange(T, device=f0.device) / run.settings.rate
    d = method.distribution(weights.expand(1, T, -1), f0, run.settings.fs)
    amplitude = level * torch.exp(-decay * age)[None]
    return Controls(f0, amplitude, d, noise.expand(1, T, -1))


def note(run: Run, harmonics: bool = True) -> Controls[Tensor]:
    """The controls of a note of one clip's length, random by seed, [1, T, ...].

    Its noise is quiet, about -55 dB. With louder noise, which the loss silences (11),
    the harmonics fill in for it: at -40 dB their median error was 0.10, at -50 dB (and
    a faster decay, as there) 0.03 to 0.05, and here below 0.02 (seeds 0 to 2).

    Args:
        run: the run.
        harmonics: whether it has any; else the same note with amplitude 0.
    """
    s: Settings = run.settings
    rng = run.rng("note")
    t = np.arange(round(s.seconds * s.rate))[None] / s.rate
    vibrato = 0.2 * np.sin(2 * np.pi * (5 * t + rng.uniform()))
    f0 = rng.uniform(180, 280) * 2 ** (vibrato / 12)
    weights = np.exp(0.5 * rng.standard_normal(s.harmonics))
    weights /= np.arange(1, s.harmonics + 1)
    waves, along = np.arange(1, 4)[:, None], np.linspace(0, np.pi, s.bands)
    bumps = (rng.uniform(-4, 4, (3, 1)) * np.cos(waves * along)).sum(0)
    parts = {"f0": f0, "level": 0.4 * harmonics, "decay": rng.uniform(0.5, 1.5)}
    parts |= {"weights": weights, "noise": 10 ** (bumps / 20 - 2.75)}
    tensor = partial(torch.tensor, dtype=torch.float32, device=run.device)
    return _decaying(run, **{name: tensor(part) for name, part in parts.items()})


def fit_note(run: Run, harmonics: bool = True) -> NoteFit:
    """Fit level, decay, harmonics and noise filter of a note to its sound.

    The pitch is given; noise is fresh at each step.

    Args:
        run: the run.
        harmonics: whether the note has any, or only its noise.
    """
    s: Settings = run.settings
    truth = note(run, harmonics)
    target, noises = sound_of(run, truth, "target"), run.generator("fit")
    sizes = [1, 1, s.harmonics, s.bands]
    start = torch.tensor(START).repeat_interleave(torch.tensor(sizes))
    model = nn.ParameterDict({"raw": nn.Parameter(start.to(run.device))})

    def controls() -> Controls[Tensor]:
        level, decay, weights, noise = torch.split(method.positive(model["raw"]), sizes)
        parts = {"f0": truth.f0, "level": level * harmonics, "decay": 2 * decay}
        return _decaying(run, **parts, weights=weights, noise=noise)

    def sound() -> Tensor:
        noise, fitted = method.white(target.shape, noises), controls()
        if not harmonics:
            return method.filter_noise(noise, fitted.noise)
        return method.synthesise(fitted, noise, s.hop, s.fs)

    history = _descend(
        run,
        lambda t: (spectral_loss(sound(), target), {}),
        {"model": model, "noise": noises},
        steps=s.note_steps,
        rate=s.note_lr,
        name="note" if harmonics else "noise",
    )
    with torch.no_grad():
        return NoteFit(truth, controls(), target, sound(), history)


# Measurements, ready for run.claim_all


def measure_recovers(note: NoteFit, noise: NoteFit) -> Measurements:
    """Errors of a fitted note, and of a fitted noise without a note.

    Returns:
        For amplitudes also the 90th percentile "high"; for noise also the median error
        "signed" and the 90th percentile "high" of its size, dB.
    """
    true, fitted = (
        controls.amplitude[..., None] * controls.distribution
        for controls in (note.truth, note.fitted)
    )
    errors = ((fitted - true).abs() / true)[true > 0]
    amplitudes = {"value": errors.median(), "high": errors.quantile(0.9)}
    return {
        "recovers_amplitudes": {key: float(x) for key, x in amplitudes.items()},
        "recovers_noise_alone": _noise_errors(noise),
        "recovers_noise_beside": _noise_errors(note),
    }


def _noise_errors(result: NoteFit) -> dict[str, float]:
    dB = 20 * (result.fitted.noise / result.truth.noise).log10()
    signed, high = float(dB.median()), float(dB.abs().flatten().quantile(0.9))
    return {"value": abs(signed), "signed": signed, "high": high}


def loss_of(run: Run, trained: Trained, clip: Clip) -> float:
    """The spectral loss of a decoder on clips."""
    sound = render(run, trained.model, clip.f0, clip.loudness, "test")
    return float(spectral_loss(sound, clip.audio))


def _differences(
    losses: Mapping[str, float], n: int, lowest: float
) -> dict[str, dict[str, float]]:
    """The loss of DDSP minus that of each waveform decoder, by its kind."""
    ddsp, rivals = losses[f"ddsp_{n}"], ("plain", "filter")
    return {
        kind: {"value": ddsp - rival, "ddsp": ddsp, kind: rival, "floor": lowest}
        for kind, rival in ((kind, losses[f"{kind}_{n}"]) for kind in rivals)
    }


def measure_small_data(run: Run, models: Models, test: Clip) -> Measurements:
    """Losses on unseen melodies by kind and number of examples, with their floor."""
    lowest = floor(run, test)
    losses = {name: loss_of(run, each, test) for name, each in models.items()}
    return {
        f"small_data_{kind}_{n}": numbers
        for n in run.settings.examples
        for kind, numbers in _differences(losses, n, lowest).items()
    }


def measure_extrapolates(run: Run, models: Models, high: Clip) -> Measurements:
    """Losses above the training range, of the decoders with most examples."""
    n = max(run.settings.examples)
    losses = {
        f"{kind}_{n}": loss_of(run, models[f"{kind}_{n}"], high) for kind in KINDS
    }
    results = _differences(losses, n, floor(run, high))
    return {f"extrapolates_{kind}": numbers for kind, numbers in results.items()}


def measure_small_model(
    run: Run, clip: Clip, models: Models, test: Clip
) -> Measurements:
    """The smallest DDSP decoder that does as well as the best waveform decoder.

    All saw the most examples. Smaller ones are trained here.

    Returns:
        Also "parameters" and "loss" of that decoder (0 and the best loss if there is
        none, with value 0), "waveform_parameters", "waveform_loss" and "floor".
    """
    n = max(run.settings.examples)
    bar, best = min(
        (loss_of(run, models[f"{kind}_{n}"], test), models[f"{kind}_{n}"].parameters)
        for kind in ("plain", "filter")
    )
    ours = [train(run, clip, "ddsp", n, hidden) for hidden in run.settings.tiny]
    ours.append(models[f"ddsp_{n}"])
    results = [(each.parameters, loss_of(run, each, test)) for each in ours]
    good = [result for result in results if result[1] <= bar]
    parameters, loss = min(good) if good else (0, min(loss for _, loss in results))
    numbers = {
        "value": best / parameters if good else 0.0,
        "parameters": float(parameters),
        "loss": loss,
        "waveform_parameters": float(best),
        "waveform_loss": bar,
        "floor": floor(run, test),
    }
    return {"small_model": numbers}


def measure_disentangled(run: Run, model: Model) -> Measurements:
    """Steady tones at five pitches and loudness -1, 0, +1 deviations, noise and all.

    Returns:
        For pitch: the range over the loudnesses, cents, worst pitch; also the
        "middle" one. For loudness: the range over the pitches, dB, worst loudness;
        also the three, "low", "middle" and "high".
    """
    s: Settings = run.settings
    semitones = torch.linspace(1, OCTAVE - 1, 5, device=run.device)
    f0 = 440 * 2 ** ((LOWEST - 69 + semitones) / 12)
    deviations = torch.arange(-1.0, 2, device=run.device)
    loud = model.trunk.mean + model.trunk.spread * deviations
    T = round(s.seconds * s.rate)
    pairs = torch.cartesian_prod(f0, loud)[..., None].expand(-1, -1, T)
    sound = render(run, model, pairs[:, 0], pairs[:, 1], "steady")
    measured = (
        method.loudness(sound, s.fs, s.rate)[:, T // 4 : -(T // 4)].median(-1).values
    )
    cents = 1200 * pitch(sound, s.fs).median(-1).values.log2()
    pitches, levels = cents.view(5, 3), measured.view(5, 3)
    by_pitch = (pitches.amax(1) - pitches.amin(1)).sort().values.tolist()
    by_level = (levels.amax(0) - levels.amin(0)).tolist()
    ranges = dict(zip(("low", "middle", "high"), by_level, strict=True))
    return {
        "disentangled_pitch": {"value": by_pitch[-1], "middle": by_pitch[2]},
        "disentangled_loudness": {"value": max(by_level), **ranges},
    }


# The pitch, by gradient descent


def _tones(run: Run, f0: Tensor, seconds: float) -> Tensor:
    """Tones [S, N] of harmonics 1 / k, which sum to one."""
    s: Settings = run.settings
    k = torch.arange(1.0, s.harmonics + 1, device=run.device)
    N = int(seconds * s.fs) // 64 * 64
    return method.steady_tones(f0, 1 / k / (1 / k).sum(), N, s.fs)


@torch.no_grad()
def landscape(
    run: Run, f0: float, semitones: Tensor, linear: float = 1.0, log: float = 1.0
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
    """Pitches that descended, in semitones from the target.

    Attributes:
        f0: of the target, Hz.
        paths: from start to end, [steps + 1, S].
    """

    f0: float
    paths: Tensor


def descend(run: Run) -> Descent:
    """Adam on log f0 from wrong pitches, 15 cents a step and ever less.

    The amplitudes are the true ones, and there is no noise. Starts lie 1 to 12
    semitones away, half of them above and half below, one in each of as many equal
    parts. The target lies between 156 and 311 Hz.
    """
    s: Settings = run.settings
    rng = run.rng("pitch")
    f0 = 220 * 2 ** rng.uniform(-0.5, 0.5)
    half = s.starts // 2
    away = 1 + 11 * (np.arange(half) + rng.uniform(size=(2, half))) / half
    starts = torch.tensor(np.append(-away[0], away[1]), device=run.device)
    model = nn.ParameterDict({"semitones": nn.Parameter(starts.clone())})
    (target,) = _tones(run, torch.tensor([f0], device=run.device), TONE)

    def loss_at(t: int) -> tuple[Tensor, dict[str, float]]:
        semitones = model["semitones"]
        tones = _tones(run, f0 * 2 ** (semitones / 12), TONE)
        watched = {str(i): float(x) for i, x in enumerate(semitones.tolist())}
        return spectral_loss(tones, target), watched

    steps, state = s.pitch_steps, {"model": model}
    history = _descend(run, loss_at, state, steps=steps, rate=0.15, name="pitch")
    paths = [history.curves[str(i)] for i in range(len(starts))]
    along = torch.tensor(paths, dtype=torch.float64).T
    ends = model["semitones"].detach().cpu()
    return Descent(f0, torch.cat([along, ends[None]]))


def measure_pitch(descent: Descent) -> Measurements:
    """The share of starts that end within 20 cents of the target."""
    return {"pitch_is_hard": share(descent.paths[-1].abs() < 0.2)}


# Recordings


def annotate(run: Run, source: Source, rate: int | None = None) -> Clip:
    """Pitch and loudness of a recording of one voice, by pYIN and (10).

    Where pYIN hears no pitch it is continued, in octaves, between its neighbours; the
    loudness tells silence.

    Args:
        run: the run; the length is cut to whole frames.
        source, rate: a file or samples, as `load_recording` takes them.

    Raises:
        BadRequest: it is no recording, is shorter than a window of 2,048 samples, or
            has no pitch anywhere.
    """
    import librosa

    s: Settings = run.settings
    audio = load_recording(source, s.fs, rate)
    step = s.hop
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
    pitches = torch.tensor(2**octaves, dtype=torch.float32)
    loud = method.loudness(audio, s.fs, s.rate)
    audio, pitches, loud = (x[None].to(run.device) for x in (audio, pitches, loud))
    return Clip(audio, pitches, loud)


def recordings(run: Run) -> dict[str, Clip]:
    """The recordings of one voice in the offline set, by name; the piano is left out.

    Raises:
        RunFailed: the set is not on this machine.
    """
    z = data.load("audio_clips")
    offsets, rate = z["offsets"], int(z["sample_rate"])
    return {
        str(name): annotate(run, z["samples"][offsets[i] : offsets[i + 1]], rate)
        for i, name in enumerate(z["names"])
        if name != "piano"
    }


def train_real(run: Run, clip: Clip, name: str) -> Trained:
    """The solo autoencoder with a room, on one recording.

    Args:
        run: the run.
        clip: what to learn; statistics of its loudness are the decoder's.
        name: of the recording, and of the checkpoint.
    """
    s: Settings = run.settings
    model = _network(run, "ddsp", s.hidden, s.width, s.room)
    name = f"real_{name}"
    return _fit(run, model, clip, steps=s.real_steps, rate=s.lr, name=name)


def dereverberate(run: Run, model: Model, clip: Clip) -> tuple[Tensor, Tensor]:
    """A recording as its decoder plays it, in its room and without: two sounds [1, N].

    Raises:
        BadRequest: the decoder has no room.
    """
    if not isinstance(model, Decoder) or model.room is None:
        raise BadRequest("this decoder has no room: give one from train_real.")
    wet, dry = (
        render(run, partial(model, wet=wet), clip.f0, clip.loudness, "room")
        for wet in (True, False)
    )
    return wet, dry
