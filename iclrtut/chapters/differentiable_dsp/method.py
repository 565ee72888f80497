"""DDSP: differentiable digital signal processing, at working speed.

Engel, Hantrakul, Gu, Roberts, ICLR 2020. Numbers in brackets are equations of the
chapter `differentiable_dsp`. Sound is a tensor [..., N], float32 or float64 (another
dtype, or nothing in it, is a BadRequest), at fs samples a second; controls change T
times in it, once every hop = N / T samples. A note of your own:

    T, k = 200, torch.arange(1.0, 41)                    # two seconds, 40 harmonics
    f0 = torch.full((T,), 220.0)                         # Hz
    d = distribution((1 / k).expand(T, -1), f0)          # (2)
    controls = Controls(f0, torch.ones(T), d, torch.full((T, 33), 1e-3))
    sound = synthesise(controls, white((T * 160,), torch.Generator()), hop=160)
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import tee
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from scipy import fft
from torch import Tensor
from torch.nn import functional as F

from iclrtut.audio import a_weighting
from iclrtut.errors import BadRequest

Array = np.ndarray[Any, Any]
Values = TypeVar("Values", Tensor, Array)

SIZES = (2048, 1024, 512, 256, 128, 64)
FLOOR = -80.0  # dB, of loudness
WINDOW = 512  # samples, of loudness
BLOCK = 64  # frames that `stream` works on at once


# Checks of arguments


def _real(x: Tensor, what: str) -> Tensor:
    """x as it is, once it is float32 or float64 and holds something."""
    if x.dtype not in (torch.float32, torch.float64):
        raise BadRequest(f"{what} are {x.dtype}: convert them with x.float().")
    if not x.numel():
        raise BadRequest(f"{what} have the shape {list(x.shape)}: there is nothing.")
    return x


def _pitch(f0: Values) -> Values:
    """f0 as it is, once every value is a positive number."""
    good = (f0 > 0) & (f0 < math.inf)
    if not good.all():
        flat = good.reshape(-1)
        at = int(flat.tolist().index(False))
        raise BadRequest(
            f"f0 is {float(f0.reshape(-1)[at]):g} Hz at frame {at % f0.shape[-1]}: "
            "give a positive pitch everywhere, and amplitude 0 where nothing sounds."
        )
    return f0


def _fitting(f0: Tensor, x: Tensor, what: str) -> None:
    """Refuse values that do not belong to the frames of f0."""
    if f0.shape != _real(x, what).shape[:-1]:
        raise BadRequest(
            f"f0 has the shape {list(f0.shape)} and {what} {list(x.shape)}: give both "
            "for the same frames."
        )


def _frames(samples: int, frames: int) -> int:
    """The hop: samples by frame."""
    if frames < 1 or samples % frames:
        raise BadRequest(
            f"{samples} samples do not divide into {frames} frames: give a whole "
            "number of samples for each frame."
        )
    return samples // frames


# Sines


def phase(f0: Tensor, fs: int = 16_000) -> Tensor:
    """phi(n) = (2 pi / fs) sum of f0(m) over m <= n, (1), wrapped to [0, 2 pi).

    Turns are added in double precision, whatever comes in.

    Args:
        f0: Hz by sample, [..., N].
        fs: samples a second.

    Returns:
        Radians [..., N], rounded to the dtype of f0.

    Raises:
        BadRequest: f0 is not float, or not positive somewhere.
    """
    turns = torch.cumsum(_pitch(_real(f0, "pitches")).double() / fs, -1)
    angle: Tensor = 2 * math.pi * (turns % 1)
    return angle.to(f0.dtype)


def distribution(weights: Tensor, f0: Tensor, fs: int = 16_000) -> Tensor:
    """d_k of (2): weights without what lies at Nyquist or above, adding up to one.

    Args:
        weights: of harmonics 1 to K, not negative, [..., T, K].
        f0: Hz by frame, [..., T].
        fs: samples a second.

    Returns:
        [..., T, K]; zeros in a frame whose fundamental itself lies too high.

    Raises:
        BadRequest: f0 is not positive somewhere, or the dtypes are not float.
    """
    _fitting(f0, weights, "weights")
    k = torch.arange(1, weights.shape[-1] + 1, device=weights.device)
    audible = _pitch(_real(f0, "pitches"))[..., None] * k < fs / 2
    kept: Tensor = weights * audible
    total: Tensor = kept.sum(-1, keepdim=True)
    return kept / (total + (total == 0))


def _next(frames: Tensor, dim: int) -> Tensor:
    """The frame after each; the last is held."""
    last = frames.shape[dim] - 1
    return torch.cat([frames.narrow(dim, 1, last), frames.narrow(dim, last, 1)], dim)


def _rise(hop: int, like: Tensor) -> Tensor:
    """The rising half of a periodic Hann window of two hops, [hop]."""
    return torch.hann_window(2 * hop, dtype=like.dtype, device=like.device)[:hop]


def _by_frame(x: Tensor, hop: int) -> Tensor:
    return x.reshape(*x.shape[:-1], -1, hop)


def upsample(frames: Tensor, hop: int) -> Tensor:
    """Overlapping Hann windows of two hops, (3): how amplitudes move between frames.

    Args:
        frames: [..., T, C].
        hop: samples by frame.

    Returns:
        [..., T * hop, C]: frame j at sample j * hop, the last one held.
    """
    w = _rise(hop, _real(frames, "frames"))[:, None]
    current, following = frames[..., None, :], _next(frames, -2)[..., None, :]
    return (current * (1 - w) + following * w).flatten(-3, -2)


def interpolate(f0: Tensor, hop: int) -> Tensor:
    """Straight lines between frames, the last one held: how the pitch moves; see (15).

    Args:
        f0: Hz by frame, [..., T].
        hop: samples by frame.

    Returns:
        Hz by sample, [..., T * hop].
    """
    w = torch.arange(hop, dtype=_real(f0, "pitches").dtype, device=f0.device) / hop
    return (f0[..., None] + (_next(f0, -1) - f0)[..., None] * w).flatten(-2)


def positive(x: Tensor) -> Tensor:
    """2 sigmoid(x)^(ln 10) + 1e-7, (4): an amplitude from a network's output.

    Args:
        x: any shape.

    Returns:
        Of the same shape, between 1e-7 and 2 + 1e-7.
    """
    powered: Tensor = torch.sigmoid(x) ** math.log(10)
    return 2 * powered + 1e-7


def harmonic_bank(f0: Tensor, amplitudes: Tensor, hop: int, fs: int = 16_000) -> Tensor:
    """sum_k A_k(n) sin(k phi(n)), (1) to (3), silent wherever k f0(n) >= fs / 2.

    Args:
        f0: Hz by frame, [..., T].
        amplitudes: A_k by frame, [..., T, K].
        hop: samples by frame.
        fs: samples a second.

    Returns:
        Sound, [..., T * hop].

    Raises:
        BadRequest: f0 is not positive somewhere, or frames do not fit.
    """
    _fitting(f0, amplitudes, "amplitudes")
    k = torch.arange(1, amplitudes.shape[-1] + 1, device=f0.device)
    pitch = interpolate(_pitch(f0), hop)
    angle = _by_frame(phase(pitch, fs), hop)[..., None]
    pitch = _by_frame(pitch, hop)[..., None]
    waves = torch.sin(angle * k) * (pitch * k < fs / 2)  # [..., T, hop, K]
    # (3) is linear: one product for each end of the span, then the windows.
    ends = torch.stack([amplitudes, _next(amplitudes, -2)], -1)  # [..., T, K, 2]
    current, following = (waves.to(ends.dtype) @ ends).unbind(-1)
    w = _rise(hop, amplitudes)
    return (current * (1 - w) + following * w).flatten(-2)


def steady_tones(f0: Tensor, amplitudes: Tensor, N: int, fs: int = 16_000) -> Tensor:
    """Tones of constant pitch, (1) and (1a), quickly, with gradients for f0.

    Equal to `harmonic_bank` at constant f0. There phi(64 b + r) is 2 pi f0 / fs times
    64 b + (r + 1), and the addition theorem makes of it a product of matrices, with one
    sine for every b and every r.

    Args:
        f0: Hz, [S].
        amplitudes: A_k of all tones, [K].
        N: samples, a multiple of 64.
        fs: samples a second.

    Returns:
        Sound [S, N], float32; a harmonic at fs / 2 or above is silent.

    Raises:
        BadRequest: f0 is not positive somewhere, the dtypes are not float, or N is no
            multiple of 64.
    """
    if N < 64 or N % 64:
        raise BadRequest(f"{N} samples were asked for: ask for a multiple of 64.")
    k = torch.arange(1, len(_real(amplitudes, "amplitudes")) + 1, device=f0.device)
    turn = (2 * math.pi / fs) * _pitch(_real(f0, "pitches")).double()[:, None, None] * k
    audible = amplitudes.double() * (f0[:, None, None] * k < fs / 2)
    block = torch.arange(0, N, 64, device=f0.device)[:, None] * turn  # [S, N / 64, K]
    within = torch.arange(1, 65, device=f0.device)[:, None] * turn  # [S, 64, K]
    one = (block.sin() * audible) @ within.cos().mT
    two = (block.cos() * audible) @ within.sin().mT
    return (one + two).flatten(1).float()


# Noise


def white(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Uniform noise in [-1, 1), float32, of variance 1/3, (7).

    Args:
        shape: of the noise; its last axis counts samples.
        generator: draws it, on its own device.
    """
    return 2 * torch.rand(*shape, generator=generator, device=generator.device) - 1


def impulse_response(H: Tensor) -> Tensor:
    """A filter from the magnitudes of its response, by frequency sampling, (5).

    The periodic Hann window smooths the response over one band, (5a).

    Args:
        H: magnitudes at B even steps from 0 to fs / 2, [..., B], B at least 2.

    Returns:
        Taps [..., n], n = 2 (B - 1), symmetric about n / 2.

    Raises:
        BadRequest: the magnitudes are not float, or of one band.
    """
    if _real(H, "magnitudes").shape[-1] < 2:
        raise BadRequest(f"{H.shape[-1]} band makes no filter: give two or more.")
    n = 2 * (H.shape[-1] - 1)
    taps: Tensor = torch.fft.irfft(H, n).roll(n // 2, -1)
    return taps * torch.hann_window(n, dtype=H.dtype, device=H.device)


def filter_noise(noise: Tensor, H: Tensor) -> Tensor:
    """Each frame of noise through its own filter, overlapped and added, (6).

    Args:
        noise: [..., N].
        H: magnitudes by frame, [..., T, B]; N is a multiple of T.

    Returns:
        [..., N], not delayed: the filters' n / 2 samples are cropped.

    Raises:
        BadRequest: N is no multiple of T, or the magnitudes are of one band.
    """
    taps = impulse_response(H)
    hop = _frames(_real(noise, "noise").shape[-1], (1, *taps.shape)[-2])
    n = taps.shape[-1]
    spans = _spans(hop, n)
    spectrum = torch.fft.rfft(_by_frame(noise, hop), spans * hop)
    spectrum = spectrum * torch.fft.rfft(taps, spans * hop)
    pieces = _by_frame(torch.fft.irfft(spectrum, spans * hop), hop)
    shifted = [F.pad(pieces[..., i, :], (0, 0, i, spans - 1 - i)) for i in range(spans)]
    whole = torch.stack(shifted).sum(0).flatten(-2)
    return whole[..., n // 2 : n // 2 + noise.shape[-1]]


def _spans(hop: int, n: int) -> int:
    """How many hops the hop + n - 1 samples of a filtered frame reach over."""
    return -(-(hop + n - 1) // hop)


def reverb(x: Tensor, response: Tensor) -> Tensor:
    """x convolved with a room's response, (8).

    Args:
        x: [..., N].
        response: [R] or [..., R].

    Returns:
        [..., N]: what sounds after the end is left out.
    """
    N = _real(x, "samples").shape[-1]
    size = fft.next_fast_len(N + _real(response, "responses").shape[-1] - 1, True)
    spectrum = torch.fft.rfft(x, size) * torch.fft.rfft(response, size)
    wet: Tensor = torch.fft.irfft(spectrum, size)
    return wet[..., :N]


# The synthesiser


class Controls(NamedTuple, Generic[Values]):
    """The controls of a synthesiser, by frame; tensors, or arrays for `stream`.

    Attributes:
        f0: Hz, [..., T], positive.
        amplitude: A, [..., T].
        distribution: d_k, [..., T, K].
        noise: magnitudes of the noise filter, [..., T, B].
    """

    f0: Values
    amplitude: Values
    distribution: Values
    noise: Values


def synthesise(
    controls: Controls[Tensor], noise: Tensor, hop: int, fs: int = 16_000
) -> Tensor:
    """Harmonics and filtered noise, (1) to (7).

    Args:
        controls: T frames.
        noise: from `white`, [..., T * hop].
        hop: samples by frame.
        fs: samples a second.

    Returns:
        Sound, [..., T * hop].

    Raises:
        BadRequest: f0 is not positive somewhere, or shapes do not fit.
    """
    amplitudes = controls.amplitude[..., None] * controls.distribution
    sines, H = harmonic_bank(controls.f0, amplitudes, hop, fs), controls.noise
    if noise.shape[-1] != sines.shape[-1]:
        raise BadRequest(
            f"{noise.shape[-1]} samples of noise for {sines.shape[-1]} of sound: draw "
            "hop for each frame."
        )
    _fitting(controls.f0, H, "noise magnitudes")
    return sines + filter_noise(noise, H)


def stream(
    blocks: Iterable[Controls[Array]],
    rng: np.random.Generator,
    hop: int = 64,
    fs: int = 16_000,
) -> Iterator[Array]:
    """`synthesise` without gradients, piece by piece: any length in flat memory.

    The phase is kept in turns, in double precision, wrapped after every BLOCK frames:
    after N samples it is off by at most N (2.5 + turns in a block) 2^-53 turns, (14).

    Args:
        blocks: controls as arrays, any number of frames in each block.
        rng: draws the noise, uniform in [-1, 1).
        hop: samples by frame.
        fs: samples a second.

    Yields:
        float32 [any length]; all together hop for each frame.

    Raises:
        BadRequest: f0 is not positive somewhere, or the shapes of a block do not fit.
    """
    first, second = tee(_short_blocks(blocks))
    pairs = zip(
        _stream_sines(first, hop, fs), _stream_noise(second, hop, rng), strict=True
    )
    sines = noise = np.zeros(0, np.float32)
    for more_sines, more_noise in pairs:
        sines, noise = np.append(sines, more_sines), np.append(noise, more_noise)
        ready = min(len(sines), len(noise))
        yield sines[:ready] + noise[:ready]
        sines, noise = sines[ready:], noise[ready:]


def _short_blocks(blocks: Iterable[Controls[Array]]) -> Iterator[Controls[Array]]:
    """The same controls, checked, at most BLOCK frames at a time."""
    sizes: list[tuple[int, ...]] = []
    for block in blocks:
        block = Controls(*map(np.asarray, block))
        shapes = [part.shape for part in block]
        n, sizes = block.f0.size, sizes or [shape[1:] for shape in shapes]
        fits = n > 0 and shapes == [(n, *size) for size in sizes]
        fits = fits and [len(size) for size in sizes] == [0, 0, 1, 1]
        if not fits or sizes[2][0] < 1 or sizes[3][0] < 2:
            raise BadRequest(
                f"a block has the shapes {shapes}: give [F], [F], [F, K] and [F, B], "
                "the same K and the same B, at least 2, in all blocks."
            )
        _pitch(block.f0)
        for at in range(0, n, BLOCK):
            yield Controls(*(part[at : at + BLOCK] for part in block))


def _stream_sines(
    blocks: Iterable[Controls[Array]], hop: int, fs: int
) -> Iterator[Array]:
    """Harmonics up to the last frame of each block, and after all the held frame."""
    f0, amplitudes, turns = np.zeros(0), np.zeros((0, 0)), 0.0
    for block in blocks:
        a = block.amplitude[:, None] * block.distribution
        f0 = np.append(f0[-1:], block.f0).astype(np.float64)
        amplitudes = np.concatenate([amplitudes[-1:].reshape(-1, a.shape[1]), a])
        sound, turns = _clenshaw(f0, amplitudes, turns, hop, fs)
        yield sound
    if len(f0):
        yield _clenshaw(f0[[-1, -1]], amplitudes[[-1, -1]], turns, hop, fs)[0]


def _clenshaw(
    f0: Array, amplitudes: Array, turns: float, hop: int, fs: int
) -> tuple[Array, float]:
    """Harmonics between J + 1 frames, [J * hop], and the phase in turns at their end.

    sum_k A_k sin(k phi) = b_1 sin(phi), where b_k = A_k + 2 cos(phi) b_{k+1} - b_{k+2},
    (13): one sine and one cosine a sample, for any number of harmonics.
    """
    spans = len(f0) - 1
    along = np.arange(hop) / hop
    pitch = f0[:-1, None] + np.diff(f0)[:, None] * along
    phase = turns + np.cumsum(pitch / fs)
    angle = 2 * np.pi * phase.reshape(pitch.shape)
    twice, rise = 2 * np.cos(angle), np.sin(np.pi / 2 * along) ** 2
    windows = np.stack([1 - rise, rise])
    ends = np.stack([amplitudes[:-1].T, amplitudes[1:].T], 2).astype(np.float64)
    b, before, scratch = np.zeros((3, spans, hop))
    low, high = f0.min(), f0.max()
    for k in range(len(ends) if spans else 0, 0, -1):
        if k * low >= fs / 2:
            continue
        scratch = np.matmul(ends[k - 1], windows, out=scratch)
        if k * high >= fs / 2:
            scratch *= k * pitch < fs / 2
        before *= -1
        before += scratch
        np.multiply(twice, b, out=scratch)
        before += scratch
        b, before = before, b
    sound = (b * np.sin(angle)).ravel().astype(np.float32)
    return sound, float(phase[-1] % 1 if spans else turns)


def _stream_noise(
    blocks: Iterable[Controls[Array]], hop: int, rng: np.random.Generator
) -> Iterator[Array]:
    """Filtered noise as far as each block decides it, and after all the rest."""
    tail, crop, n = np.zeros((0, hop), np.float32), -1, 0
    for block in blocks:
        H = block.noise.astype(np.float32)
        if not n:
            n = 2 * (H.shape[1] - 1)
            window = np.hanning(n + 1)[:-1].astype(np.float32)
        spans = _spans(hop, n)
        taps = np.roll(fft.irfft(H, n), n // 2, 1) * window
        noise = 2 * rng.random((len(H), hop), dtype=np.float32) - 1
        size = spans * hop
        pieces = fft.irfft(fft.rfft(noise, size) * fft.rfft(taps, size), size)
        pieces = pieces.reshape(len(H), spans, hop)
        whole = np.zeros((len(H) + spans - 1, hop), np.float32)
        whole[: len(tail)] = tail
        for i in range(spans):
            whole[i : i + len(H)] += pieces[:, i]
        tail, ready = whole[len(H) :], whole[: len(H)].ravel()
        crop = n // 2 if crop < 0 else crop
        yield ready[crop:]
        crop = max(0, crop - len(ready))
    if n:
        yield tail.ravel()[crop : n // 2]


# What the loss and the ear hear


def spectral_loss(
    x: Tensor,
    y: Tensor,
    sizes: Sequence[int] = SIZES,
    linear: float = 1.0,
    log: float = 1.0,
) -> Tensor:
    """Multi-scale spectral loss, (9): magnitudes and their logarithms, by size.

    Args:
        x: sounds [..., N]; zeros are added where a window reaches over an end.
        y: sounds of the same shape, or one [N] that each x is compared with.
        sizes: of the Hann windows, multiples of 4: a quarter of each is the hop.
        linear, log: weights of the two terms.

    Returns:
        A number. NaN when a sample is.

    Raises:
        BadRequest: shapes do not fit, samples are not float, or there are none.
    """
    if y.shape not in (x.shape, x.shape[-1:]):
        raise BadRequest(
            f"sounds of the shapes {list(x.shape)} and {list(y.shape)} do not compare: "
            "cut them to the same length."
        )
    if any(size < 4 or size % 4 for size in sizes):
        raise BadRequest(f"sizes are {tuple(sizes)}: give multiples of 4.")
    loss = x.new_zeros(())
    for size in sizes:
        X, Y = (_magnitudes(_real(z, "samples"), size) for z in (x, y))
        loss = loss + linear * (X - Y).abs().mean()
        loss = loss + log * ((X + 1e-5).log() - (Y + 1e-5).log()).abs().mean()
    return loss


def _magnitudes(x: Tensor, size: int) -> Tensor:
    """|STFT| of [..., N], [..., frames, size / 2 + 1]; a frame is four hops."""
    hop = size // 4
    x = F.pad(x, (size // 2, size // 2))
    n = (x.shape[-1] - size) // hop + 1
    hops = _by_frame(x[..., : (n + 3) * hop], hop)
    frames = torch.cat([hops[..., i : i + n, :] for i in range(4)], -1)
    window = torch.hann_window(size, dtype=x.dtype, device=x.device)
    magnitudes: Tensor = torch.fft.rfft(frames * window).abs()
    return magnitudes


def loudness(x: Tensor, fs: int = 16_000, rate: int = 250) -> Tensor:
    """A-weighted power by frame, in dB, never below -80, (10).

    Args:
        x: sound [..., N].
        fs: samples a second.
        rate: frames a second; a divisor of fs.

    Returns:
        [..., T], T = N * rate // fs; frame j is centred at sample j * fs / rate.

    Raises:
        BadRequest: the clip is shorter than a frame, a sample is not finite, or the
            rate does not divide fs.
    """
    if rate < 1 or fs % rate:
        raise BadRequest(f"rate {rate} does not divide fs {fs}: give a divisor of it.")
    hop, N = fs // rate, _real(x, "samples").shape[-1]
    if hop > N:
        raise BadRequest(f"{N} samples are shorter than a frame of {hop}: give more.")
    if not torch.isfinite(x).all():
        raise BadRequest("samples hold NaN or infinity: look where they come from.")
    padded = F.pad(x, (WINDOW // 2, WINDOW // 2))
    frames = padded.unfold(-1, WINDOW, hop)[..., : N // hop, :]
    window = torch.hann_window(WINDOW, dtype=x.dtype, device=x.device)
    power = torch.fft.rfft(frames * window).abs().square()
    f = torch.linspace(0, fs / 2, WINDOW // 2 + 1, dtype=x.dtype, device=x.device)
    mean: Tensor = (power * 10 ** (a_weighting(f) / 10)).mean(-1)
    return 10 * mean.clamp_min(10 ** (FLOOR / 10)).log10()
