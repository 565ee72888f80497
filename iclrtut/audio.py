"""Sounds: recordings read at one rate, equal loudness, WAV files, players in a page.

A sound is a float tensor of one channel in [-1, 1], at `fs` samples a second.
"""

import base64
import io
import math
import wave
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from iclrtut import play
from iclrtut.errors import BadRequest

Array = Any
Source = str | Path | Array
CHANNELS = 8  # at most; a longer axis holds samples
PEAK = 0.9  # of the loudest among sounds of equal loudness


def load_recording(source: Source, fs: int = 16_000, rate: int | None = None) -> Tensor:
    """A recording as one channel, float32, at another rate.

    Args:
        source: a file (WAV, FLAC, OGG, MP3), or samples [N], with channels [N, C] or
            [C, N], C at most 8; floats are taken as they are, integers of at most 32
            bits are scaled to [-1, 1). Channels are averaged.
        fs: samples a second to return.
        rate: samples a second of an array; a file says its own.

    Returns:
        [N * fs / rate], rounded up.

    Raises:
        BadRequest: the file cannot be read, an array comes without its rate or is no
            sound, a sample is not finite, or a rate is no whole number above 0.
    """
    if isinstance(source, str | Path):
        source, rate = _read_file(source)
    if rate is None:
        raise BadRequest("samples came without a rate: say how many make a second.")
    for name, value in (("rate", rate), ("fs", fs)):
        if not (1 <= value < math.inf and value == int(value)):
            raise BadRequest(
                f"{name} is {value}: give a whole number of samples a second."
            )
    samples = _scaled(np.asarray(source))
    shape = samples.shape
    if samples.ndim == 2 and 0 < min(shape) <= CHANNELS:
        samples = samples.mean(int(np.argmin(shape)))
    if samples.ndim != 1 or not samples.size:
        raise BadRequest(f"samples have the shape {shape}: give [N] or [N, channels].")
    if not np.isfinite(samples).all():
        raise BadRequest("samples hold NaN or infinity: look where they come from.")
    common = math.gcd(int(rate), int(fs))
    if rate != fs:
        from scipy import signal

        samples = signal.resample_poly(samples, fs // common, int(rate) // common)
    return torch.tensor(samples, dtype=torch.float32)


def _read_file(path: str | Path) -> tuple[Array, int]:
    """Samples of a sound file, and how many make a second."""
    import soundfile  # type: ignore[import-untyped]

    try:
        samples, rate = soundfile.read(str(path))
    except (OSError, soundfile.LibsndfileError) as error:
        raise BadRequest(
            f"{path} cannot be read as sound ({error}): give a WAV, FLAC, OGG or MP3 "
            "file."
        ) from error
    return samples, int(rate)


def _scaled(samples: Array) -> Array:
    """Samples as float64, integers scaled to [-1, 1)."""
    kind, bytes = samples.dtype.kind, samples.dtype.itemsize
    if kind == "f":
        return samples.astype(np.float64)
    if kind not in "iu" or bytes > 4:
        raise BadRequest(
            f"samples are {samples.dtype}: give floats, or 8 to 32-bit integers."
        )
    half = 2.0 ** (8 * bytes - 1)
    return (samples - half * (kind == "u")) / half


def a_weighting(f: Tensor) -> Tensor:
    """How much quieter a pure tone sounds than it is, in dB: IEC 61672-1, annex E.

    Args:
        f: Hz, float, any shape; minus infinity at 0 Hz.

    Raises:
        BadRequest: the frequencies are neither float32 nor float64.
    """
    if f.dtype not in (torch.float32, torch.float64):
        raise BadRequest(f"frequencies are {f.dtype}: convert them with f.float().")
    s = f.square()
    R = 12194.217**2 * s.square() / (s + 20.598997**2) / (s + 12194.217**2)
    R = R / ((s + 107.65265**2) * (s + 737.86223**2)).sqrt()
    return 20 * R.log10() + 2.00


def match_loudness(sounds: Mapping[str, Tensor], fs: int = 16_000) -> dict[str, Tensor]:
    """The same sounds at one A-weighted power, the highest peak of all at 0.9.

    Args:
        sounds: label -> [N] or [1, N], of any lengths; silence stays silence.
        fs: samples a second.

    Returns:
        Label -> [N], float32.

    Raises:
        BadRequest: there is no sound, or one is as `wav` refuses it.
    """
    scaled = {}
    for label, x in _channels(sounds).items():
        power = torch.fft.rfft(x).abs().square() / len(x) ** 2
        f = torch.linspace(0, fs / 2, len(power), dtype=x.dtype, device=x.device)
        total = (power * 10 ** (a_weighting(f) / 10)).sum()
        scaled[label] = x / total.sqrt().clamp_min(1e-9)
    peak = max(float(x.abs().max()) for x in scaled.values()) or 1.0
    return {label: (PEAK / peak * x).float() for label, x in scaled.items()}


def _channels(sounds: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each sound as `_channel` gives it; there is at least one."""
    if not sounds:
        raise BadRequest("there is no sound: give label -> samples.")
    return {label: _channel(sound) for label, sound in sounds.items()}


def _channel(sound: Tensor) -> Tensor:
    """A sound [N] or [1, N] as [N], float64, without gradients."""
    if not sound.is_floating_point() or sound.numel() != max(sound.shape, default=0):
        raise BadRequest(
            f"a sound is {sound.dtype} of the shape {list(sound.shape)}: give floats "
            "[N] or [1, N]."
        )
    x = sound.detach().flatten().double()
    if not len(x) or not x.isfinite().all():
        raise BadRequest("a sound is empty or holds NaN: look where it comes from.")
    return x


def pitch(x: Tensor, fs: int = 16_000) -> Tensor:
    """Pitch by plain YIN (de Cheveigne and Kawahara, 2002), in double precision.

    Pitches from 70 to 1,000 Hz, windows of 1,024 samples, a hop of 256; the first
    trough of the normalised difference below 0.1, or else the deepest; a parabola
    through the difference itself, where librosa.yin lays one through the normalised.

    Args:
        x: sound [..., N], of at least 1,025 + fs / 70 samples.
        fs: its samples a second.

    Returns:
        Hz, [..., frames].

    Raises:
        BadRequest: the sound is too short.
    """
    window, most, least = 1024, math.ceil(fs / 70) + 1, math.floor(fs / 1000)
    if x.shape[-1] < window + most:
        raise BadRequest(
            f"{x.shape[-1]} samples are too few to tell pitches from 70 Hz: give "
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
    period: Tensor = at[..., 0] + shift
    return fs / period


def wav(sound: Tensor, fs: int = 16_000) -> bytes:
    """A sound as a WAV file: one channel, 16 bits; what lies beyond [-1, 1] is cut.

    Args:
        sound: [N] or [1, N].
        fs: samples a second.

    Raises:
        BadRequest: the sound is empty, not float, not finite, or of another shape.
    """
    scaled = (_channel(sound).cpu() * 32767).round().clamp(-32768, 32767)
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(fs)
        out.writeframes(scaled.numpy().astype("<i2").tobytes())
    return file.getvalue()


def players(
    sounds: Mapping[str, Tensor],
    *,
    alt: str,
    caption: str,
    fs: int = 16_000,
    equal_loudness: bool = False,
) -> None:
    """Show each sound with waveform, spectrogram and controls; none starts by itself.

    Args:
        sounds: label -> [N] or [1, N]; one factor brings peaks beyond 1 down to it.
        alt: what the players are for.
        caption: what to listen for.
        fs: samples a second.
        equal_loudness: bring all to the same A-weighted power first.

    Raises:
        BadRequest: there is no sound, one is as `wav` refuses it, or alt or caption
            is empty.
    """
    shown = _channels(match_loudness(sounds, fs) if equal_loudness else sounds)
    peak = max([1.0, *(float(x.abs().max()) for x in shown.values())])
    files = {label: wav(x / peak, fs) for label, x in shown.items()}
    listed = [
        {"label": label, "wav": base64.b64encode(file).decode()}
        for label, file in files.items()
    ]
    payload = {"fs": fs, "sounds": listed}
    script = "// uses audio.js\nplayers();"
    play.run_script(script, payload, alt=alt, caption=caption)
