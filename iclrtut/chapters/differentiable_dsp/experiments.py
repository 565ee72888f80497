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
from iclrtut.chapters.differentiable_dsp.instruments import perform
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
CHUNK = 8  # sounds rendered at once
TONE = 0.25  # seconds of a tone whose pitch descends
SYNTH = {"fs": 16_000, "hop": 160, "harmonics": 60, "bands": 33, "seconds": 2}


# Sounds with known controls


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

    def first(self, n: int) -> "Clip":
        """The first n of the sounds."""
        return Clip(self.audio[:n], self.f0[:n], self.loudness[:n])

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


def loop(
    run: Run,
    clip: Clip,
    kind: str,
    examples: int,
    *,
    hidden: int | None = None,
    steps: int | None = None,
) -> Loop:
    """The training of a decoder of an instrument, on the first clips of a set.

    All kinds share steps, batches and the first weights of their trunk, hear fresh
    noise at each step, and have rates that fall linearly to 0. The rates of `quick`
    were chosen for each kind by the mean loss on unseen melodies with 1 and 16
    examples, over seeds 0 to 3 and one instrument for all: 5.85, 5.78, 5.80, 5.82 and
    5.82 of "plain" at 2, 4, 6, 8 and 12e-3; 4.72, 4.79, 4.65 and 4.66 of "filter" at 4,
    6, 8 and 12e-3; 4.19, 4.18 and 4.20 of "ddsp" at 12, 16 and 24e-3.

    Args:
        run: the run.
        clip: what to train on.
        kind: "ddsp", "plain" (a waveform decoder) or "filter" (a source-filter one).
        examples: how many of the clips.
        hidden: units of a smaller decoder: of its GRU, and of its stacks at most.
        steps: other than those of the profile.

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
    model = _network(run, kind, hidden or s.hidden, min(hidden or s.width, s.width))
    rate = {"ddsp": s.lr, "plain": s.wave_lr, "filter": s.filter_lr}[kind]
    return _loop(run, model, clip.first(examples), steps or s.steps, rate)


def train(
    run: Run,
    clip: Clip,
    kind: str,
    examples: int,
    *,
    hidden: int | None = None,
    steps: int | None = None,
) -> Trained:
    """What comes of `loop`, with the same arguments."""
    made = loop(run, clip, kind, examples, hidden=hidden, steps=steps)
    name = "_".join(str(x) for x in (kind, examples, hidden, steps) if x)
    return _trained(run, made, steps or run.settings.steps, name)


def statistics(loud: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the frames within 50 dB of the loudest.

    Args:
        loud: loudness in dB, any shape.
    """
    sounding = loud[loud > loud.max() - 50]
    return sounding.mean(), sounding.std().clamp_min(1e-3)


def _loop(run: Run, model: Model, sounds: Clip, steps: int, rate: float) -> Loop:
    """Train on random windows of `seconds`, or on all of shorter sounds."""
    s: Settings = run.settings
    model.trunk.mean, model.trunk.spread = statistics(sounds.loudness)
    model.to(run.device)
    batches, noises = run.generator("batches"), run.generator("noise")

    def loss() -> Tensor:
        target, f0, loud, _ = sounds.windows(s.batch, _frames(run, sounds), batches)
        noise = method.white(target.shape, noises)
        return spectral_loss(model(f0, loud, noise), target)

    state = {"model": model, "batches": batches, "noise": noises}
    return descent(loss, state, steps, rate)


def _frames(run: Run, sounds: Clip) -> int:
    """The frames of a training window."""
    s: Settings = run.settings
    return min(round(s.seconds * s.rate), sounds.f0.shape[1])


def descent(
    loss: Callable[[], Tensor],
    state: State,
    steps: int,
    rate: float,
    watch: Callable[[], dict[str, float]] = dict,
) -> Loop:
    """Adam on the weights of state["model"], at a rate that falls linearly to 0.

    Args:
        loss: draws, and computes what to descend.
        state: all that a step changes, see `Loop`.
        steps: in all.
        rate: of the first step.
        watch: further numbers of a step, from before it.
    """
    optimizer = torch.optim.Adam(state["model"].parameters(), rate, fused=True)

    def step(t: int) -> dict[str, Tensor | float]:
        value, watched = loss(), watch()
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return {"loss": value, **watched}

    return Loop(step, optimizer, state, linear(steps))


def _fit(run: Run, made: Loop, steps: int, name: str) -> History:
    return fit(made, steps, folder=run.folder, name=name, every=run.settings.every)


def _trained(run: Run, made: Loop, steps: int, name: str) -> Trained:
    history, model = _fit(run, made, steps, name), made.state["model"].eval()
    return Trained(model, history, sum(p.numel() for p in model.parameters()))


def train_rivals(run: Run, clip: Clip, ours: Trained) -> Models:
    """Every other decoder that the claims compare, beside ours of all examples.

    Returns:
        "ddsp_1", "plain_16" and so on, and "filter_long", a source-filter decoder of
        all examples with twice the steps.
    """
    most = max(run.settings.examples)
    models = {
        f"{kind}_{n}": train(run, clip, kind, n)
        for n in run.settings.examples
        for kind in KINDS
        if (kind, n) != ("ddsp", most)
    }
    twice = 2 * run.settings.steps
    long = train(run, clip, "filter", most, steps=twice)
    return {f"ddsp_{most}": ours, **models, "filter_long": long}


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
    mean, spread = statistics(clip.loudness)
    moved = (clip.loudness - mean) / spread * model.trunk.spread + model.trunk.mean
    return render(run, model, clip.f0, moved, "transfer")


# One note, fitted by gradient descent

NOISE = {"quiet": -55.0, "loud": -40.0}  # dB, of a note's noise
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


def note(
    run: Run, harmonics: bool = True, level: float = NOISE["quiet"]
) -> Controls[Tensor]:
    """The controls of a note of one clip's length, random by seed, [1, T, ...].

    Args:
        run: the run.
        harmonics: whether it has any; else the same note with amplitude 0.
        level: of its noise, dB, give or take its colour.
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
    parts |= {"weights": weights, "noise": 10 ** ((bumps + level) / 20)}
    tensor = partial(torch.tensor, dtype=torch.float32, device=run.device)
    return _decaying(run, **{name: tensor(part) for name, part in parts.items()})


def fit_note(
    run: Run, harmonics: bool = True, level: float = NOISE["quiet"]
) -> NoteFit:
    """Fit level, decay, harmonics and noise filter of a note to its sound.

    The pitch is given; noise is fresh at each step.

    Args:
        run: the run.
        harmonics: whether the note has any, or only its noise.
        level: of the noise, dB.
    """
    s: Settings = run.settings
    truth = note(run, harmonics, level)
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

    state = {"model": model, "noise": noises}
    made = descent(
        lambda: spectral_loss(sound(), target), state, s.note_steps, s.note_lr
    )
    name = f"{'note' if harmonics else 'noise'} at {level:g} dB"
    history = _fit(run, made, s.note_steps, name)
    with torch.no_grad():
        return NoteFit(truth, controls(), target, sound(), history)


# Measurements, ready for run.claim_all


def measure_recovers(
    notes: Mapping[str, NoteFit], noise: NoteFit
) -> dict[str, dict[str, float]]:
    """Errors of notes fitted beside "quiet" and "loud" noise, and of noise alone.

    Returns:
        For amplitudes also the 90th percentile "high" of the relative errors; of the
        quiet note and of noise alone the errors of the noise filter, dB: the size of
        their median, also "signed", and the median distance from it.
    """
    measured = {}
    for level, found in notes.items():
        true, fitted = (
            controls.amplitude[..., None] * controls.distribution
            for controls in (found.truth, found.fitted)
        )
        errors = ((fitted - true).abs() / true)[true > 0]
        numbers = {"value": errors.median(), "high": errors.quantile(0.9)}
        measured[f"amplitudes_{level}"] = {k: float(x) for k, x in numbers.items()}
    for where, found in (("alone", noise), ("beside", notes["quiet"])):
        dB = 20 * (found.fitted.noise / found.truth.noise).log10()
        bias = float(dB.median())
        measured[f"noise_bias_{where}"] = {"value": abs(bias), "signed": bias}
        scatter = float((dB - bias).abs().median())
        measured[f"noise_scatter_{where}"] = {"value": scatter}
    return measured


def loss_of(run: Run, trained: Trained, clip: Clip) -> float:
    """The spectral loss of a decoder on clips."""
    sound = render(run, trained.model, clip.f0, clip.loudness, "test")
    return float(spectral_loss(sound, clip.audio))


def _less(ours: float, rival: float, lowest: float) -> dict[str, float]:
    """The loss of DDSP minus a rival's, both, and the floor."""
    return {"value": ours - rival, "ddsp": ours, "rival": rival, "floor": lowest}


def measure_few_steps(run: Run, models: Models, test: Clip) -> Measurements:
    """Losses on unseen melodies after the same steps, by rival and examples.

    The last is against a source-filter decoder that had twice the steps.
    """
    lowest, most = floor(run, test), max(run.settings.examples)
    losses = {name: loss_of(run, each, test) for name, each in models.items()}
    measured = {
        f"few_steps_{kind}_{n}": _less(
            losses[f"ddsp_{n}"], losses[f"{kind}_{n}"], lowest
        )
        for n in run.settings.examples
        for kind in ("plain", "filter")
    }
    twice = _less(losses[f"ddsp_{most}"], losses["filter_long"], lowest)
    return measured | {"twice_the_steps": twice}


def measure_extrapolates(run: Run, models: Models, high: Clip) -> Measurements:
    """Losses above the training range, of the decoders with most examples."""
    n, lowest = max(run.settings.examples), floor(run, high)
    losses = {kind: loss_of(run, models[f"{kind}_{n}"], high) for kind in KINDS}
    return {
        f"extrapolates_{kind}": _less(losses["ddsp"], losses[kind], lowest)
        for kind in ("plain", "filter")
    }


def measure_small_model(
    run: Run, clip: Clip, models: Models, test: Clip
) -> Measurements:
    """A small DDSP decoder against the source-filter one, and against one as small.

    All saw the most examples; the small ones are trained here.

    Returns:
        Also "parameters" and "rival_parameters".
    """
    s, n, lowest = run.settings, max(run.settings.examples), floor(run, test)
    small = train(run, clip, "ddsp", n, hidden=s.small)
    rivals = {
        "large": models[f"filter_{n}"],
        "equal": train(run, clip, "filter", n, hidden=s.small_filter),
    }
    ours, measured = loss_of(run, small, test), {}
    for name, rival in rivals.items():
        counts = {"parameters": small.parameters, "rival_parameters": rival.parameters}
        numbers = _less(ours, loss_of(run, rival, test), lowest)
        measured[f"small_model_{name}"] = numbers | {
            key: float(x) for key, x in counts.items()
        }
    return measured


def measure_disentangled(run: Run, model: Model) -> tuple[Measurements, float]:
    """Steady tones at five pitches and loudness -1, 0, +1 deviations, noise and all.

    Returns:
        The range of the loudness over the pitches, dB, worst loudness; also the three,
        "low", "middle" and "high". And the range of the pitch over the loudnesses,
        cents, worst pitch, which YIN alone would make.
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
    by_level = (levels.amax(0) - levels.amin(0)).tolist()
    ranges = dict(zip(("low", "middle", "high"), by_level, strict=True))
    measurements = {"disentangled_loudness": {"value": max(by_level), **ranges}}
    return measurements, float((pitches.amax(1) - pitches.amin(1)).max())


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


def descend(run: Run) -> Tensor:
    """Adam on log f0 from wrong pitches, 15 cents a step and ever less.

    Each start has a target of its own, between 156 and 311 Hz. The amplitudes are the
    true ones, and there is no noise. Starts lie 1 to 12 semitones away, half of them
    above and half below, one in each of as many equal parts.

    Returns:
        Semitones from the target, from start to end, [steps + 1, S].
    """
    s: Settings = run.settings
    rng, half = run.rng("pitch"), s.starts // 2
    home = torch.tensor(220 * 2 ** rng.uniform(-0.5, 0.5, 2 * half), device=run.device)
    away = 1 + 11 * (np.arange(half) + rng.uniform(size=(2, half))) / half
    starts = torch.tensor(np.append(-away[0], away[1]), device=run.device)
    model = nn.ParameterDict({"semitones": nn.Parameter(starts.clone())})
    targets = _tones(run, home, TONE)

    def loss() -> Tensor:
        tones = _tones(run, home * 2 ** (model["semitones"] / 12), TONE)
        return spectral_loss(tones, targets)

    def watch() -> dict[str, float]:
        return {str(i): x for i, x in enumerate(model["semitones"].tolist())}

    made = descent(loss, {"model": model}, s.pitch_steps, 0.15, watch)
    curves = _fit(run, made, s.pitch_steps, "pitch").curves
    paths = [curves[str(i)] for i in range(len(starts))]
    along = torch.tensor(paths, dtype=torch.float64).T
    return torch.cat([along, model["semitones"].detach().cpu()[None]])


def measure_pitch(paths: Tensor) -> Measurements:
    """The share of starts that end within 20 cents of their target."""
    return {"pitch_not_found": share(paths[-1].abs() < 0.2)}


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
    return _measured(run, audio, torch.tensor(2**octaves, dtype=torch.float32))


def recordings(run: Run) -> dict[str, Clip]:
    """The recordings of one voice in the profile's set, by name.

    The small set brings its pitch; that of the other is tracked, and its piano, which
    plays chords, is left out.

    Raises:
        RunFailed: the set is not on this machine.
    """
    z, s = data.load(run.settings.recordings), run.settings
    rate, clips = int(z["sample_rate"]), {}
    for name, a, b in zip(z["names"], z["offsets"], z["offsets"][1:], strict=False):
        samples = z["samples"][a:b]
        if "f0" in z:
            audio = load_recording(samples, s.fs, rate)
            f0 = torch.tensor(z["f0"][a // s.hop : b // s.hop])
            clips[str(name)] = _measured(run, audio, f0)
        elif name != "piano":
            clips[str(name)] = annotate(run, samples, rate)
    return clips


def _measured(run: Run, audio: Tensor, f0: Tensor) -> Clip:
    """A recording [N] and its pitch [T] with its loudness, (10), each [1, ...]."""
    loud = method.loudness(audio, run.settings.fs, run.settings.rate)
    audio, f0, loud = (x[None].to(run.device) for x in (audio, f0, loud))
    return Clip(audio, f0, loud)


def train_real(run: Run, clip: Clip, name: str) -> Trained:
    """The solo autoencoder with a room, on one recording.

    The room is cut to what a training window can hear. A tap that comes later gets
    no gradient but rounding, of which Adam makes full steps.

    Args:
        run: the run.
        clip: what to learn; statistics of its loudness are the decoder's.
        name: of the recording, and of the checkpoint.
    """
    s: Settings = run.settings
    room = min(s.room, _frames(run, clip) * s.hop)
    model = _network(run, "ddsp", s.hidden, s.width, room)
    made = _loop(run, model, clip, s.real_steps, s.lr)
    return _trained(run, made, s.real_steps, f"real_{name}")


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
