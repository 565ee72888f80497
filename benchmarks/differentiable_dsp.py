"""How fast the synthesiser is: the stream, its memory, and the other two routes.

60 harmonics and 65 noise bands, 250 control frames a second, 16 kHz, one thread.
Three routes make the same sound from the same controls and draw the same noise: the
stream of the chapter's module, `synthesise` in torch, and the equations as a careful
reader writes them, in float64 with one tensor of all sines [time, 60]. All are timed in
turn, so that a busy machine slows all alike. The pitch swings by 50 cents around
220 Hz, where the upper harmonics are silent, or around 65 Hz, where all 60 sound. The
stream takes its controls in blocks of 64 frames from a generator, and its pieces are
dropped, as a player drops them. Memory is how far the process grows, in a process of
its own, above the controls. Writes records/differentiable_dsp/bench-cpu.json.

    python benchmarks/differentiable_dsp.py
"""

import itertools
import math
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial

import _benchmark
import numpy as np
import torch
from torch import Tensor

from iclrtut.chapters.differentiable_dsp import method
from iclrtut.timing import alternate
from iclrtut.timing import seconds as seconds_of

Controls = method.Controls[method.Array]

FS, HOP, HARMONICS, BANDS, BLOCK, ROUNDS = 16_000, 64, 60, 65, 64, 5
RATE = FS // HOP
LENGTHS = (10, 60, 600)  # seconds
PITCHES = (220, 65)  # Hz


def vibrato(pitch: float, frames: int = 40 * BLOCK) -> Controls:
    """About ten seconds of controls, float32, that join their own beginning."""
    turns = np.arange(frames)[:, None] / frames
    k, band = np.arange(1, HARMONICS + 1), np.arange(BANDS) / BANDS
    f0 = pitch * 2 ** (np.sin(2 * np.pi * 56 * turns) / 24)
    weights = (k * f0 < FS / 2) / k ** (1.5 + 0.5 * np.sin(2 * np.pi * 3 * turns))
    hiss = 1e-2 * (1.1 + np.cos(2 * np.pi * (5 * turns + band)))
    level = 0.6 + 0.4 * np.cos(2 * np.pi * 9 * turns)
    parts = f0[:, 0], level[:, 0], weights / weights.sum(1, keepdims=True), hiss
    return method.Controls(*(part.astype(np.float32) for part in parts))


def blocks(loop: Controls, seconds: float, size: int = BLOCK) -> Iterator[Controls]:
    """The controls in blocks, over and over, until the time is up."""
    left = int(seconds * RATE)
    for at in itertools.cycle(range(0, len(loop.f0), size)):
        if left <= 0:
            return
        yield method.Controls(*(part[at : min(at + size, at + left)] for part in loop))
        left -= min(size, len(loop.f0) - at)


def whole(loop: Controls, seconds: float) -> Controls:
    """All the controls at once."""
    return method.Controls(
        *map(np.concatenate, zip(*blocks(loop, seconds), strict=True))
    )


def white(samples: int) -> Tensor:
    """The noise that the stream draws."""
    rng = np.random.default_rng(0)
    return torch.from_numpy(2 * rng.random(samples, dtype=np.float32) - 1)


def streamed(loop: Controls, seconds: float, size: int = BLOCK) -> int:
    """How many samples the stream makes; they are dropped."""
    sound = method.stream(
        blocks(loop, seconds, size), np.random.default_rng(0), HOP, FS
    )
    return sum(len(piece) for piece in sound)


def complete(loop: Controls, seconds: float) -> None:
    """The same, and not a sample missing."""
    assert streamed(loop, seconds) == seconds * FS


def differentiable(controls: Controls, backward: bool = False) -> Tensor:
    """`synthesise`, with what a gradient to all controls needs."""
    leaves = method.Controls(*(torch.from_numpy(v).requires_grad_() for v in controls))
    sound = method.synthesise(leaves, white(len(controls.f0) * HOP), HOP, FS)
    if backward:
        sound.square().mean().backward()
    return sound.detach()


def transcription(controls: Controls) -> Tensor:
    """The equations in their order, float64."""
    f0, level, d, H = (torch.from_numpy(v).double() for v in controls)
    T, n = len(f0), 2 * (H.shape[1] - 1)

    def following(frames: Tensor) -> Tensor:
        return torch.cat([frames[1:], frames[-1:]])

    along = torch.arange(HOP, dtype=torch.float64) / HOP
    pitch = (f0[:, None] + (following(f0) - f0)[:, None] * along).flatten()
    phi = 2 * math.pi / FS * torch.cumsum(pitch, 0)
    hann = torch.hann_window(2 * HOP, dtype=torch.float64)[:, None]
    A = level[:, None] * d
    A = A[:, None] * hann[HOP:] + following(A)[:, None] * hann[:HOP]
    k = torch.arange(1, HARMONICS + 1)
    A = A.flatten(0, 1) * (pitch[:, None] * k < FS / 2)
    sines = (A * torch.sin(phi[:, None] * k)).sum(1)

    taps = torch.fft.irfft(H, n).roll(n // 2, 1)
    taps = taps * torch.hann_window(n, dtype=torch.float64)
    noise, size = white(T * HOP).double().view(T, HOP), HOP + n
    pieces = torch.fft.rfft(noise, size) * torch.fft.rfft(taps, size)
    pieces = torch.fft.irfft(pieces, size)
    hiss = torch.zeros(T * HOP + n, dtype=torch.float64)
    for j in range(T):
        hiss[j * HOP : j * HOP + size] += pieces[j]
    return sines + hiss[n // 2 : n // 2 + T * HOP]


def routes(loop: Controls, seconds: float) -> dict[str, Callable[[], object]]:
    """What is compared, by name."""
    controls = whole(loop, seconds)
    return {
        "stream": lambda: streamed(loop, seconds),
        "synthesise": lambda: differentiable(controls),
        "synthesise, forth and back": lambda: differentiable(controls, True),
        "transcription, float64": lambda: transcription(controls),
    }


def memory(name: str, seconds: float, pitch: float) -> float:
    """MiB that a route takes at its peak, in a fresh process."""
    words = [sys.executable, __file__, "--memory", name, str(seconds), str(pitch)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return float(done.stdout)


def grown(name: str, seconds: float, pitch: float) -> float:
    """MiB by which a route raises this process's memory, sampled all the while."""
    torch.set_num_threads(1)
    return _benchmark.grown(routes(vibrato(pitch), seconds)[name])


def agree(loop: Controls, seconds: float) -> float:
    """The largest rms between two routes over the rms of the sound; at most 1e-4."""
    controls = whole(loop, seconds)
    truth = transcription(controls).numpy()
    pieces = list(
        method.stream(blocks(loop, seconds), np.random.default_rng(0), HOP, FS)
    )
    sounds = np.concatenate(pieces), differentiable(controls).numpy()
    scale = np.sqrt(np.mean(truth**2))
    worst = max(float(np.sqrt(np.mean((x - truth) ** 2)) / scale) for x in sounds)
    assert worst <= 1e-4, f"the routes differ by {worst:.1e} of the rms"
    return worst


def by_length() -> dict[str, dict[str, float]]:
    """The stream over ever longer sounds."""
    rows = {}
    for pitch in PITCHES:
        loop = vibrato(pitch)
        for seconds in LENGTHS:
            rounds = 1 if seconds > 60 else ROUNDS
            streamed(loop, 5)
            call = partial(complete, loop, seconds)
            times = [seconds_of(call) for _ in range(rounds)]
            rows[f"{seconds} s around {pitch} Hz"] = {
                "times_real_time": seconds / statistics.median(times),
                "peak_MiB": memory("stream", seconds, pitch),
            }
    return rows


def by_route() -> dict[str, dict[str, float]]:
    """All routes over ten seconds."""
    rows = {}
    for pitch in PITCHES:
        loop, seconds = vibrato(pitch), LENGTHS[0]
        worst = agree(loop, seconds)
        times = alternate(routes(loop, seconds), ROUNDS)
        for name, spent in times.items():
            pairs = zip(times["transcription, float64"], spent, strict=True)
            rows[f"{name}, {pitch} Hz"] = {
                "times_real_time": seconds / statistics.median(spent),
                "over_transcription": statistics.median(a / b for a, b in pairs),
                "peak_MiB": memory(name, seconds, pitch),
            }
        print(f"{pitch} Hz: the routes agree to {worst:.1e} of the rms")
    return rows


def by_block() -> dict[str, dict[str, float]]:
    """The stream with its controls in blocks of other sizes."""
    loop, sizes = vibrato(PITCHES[0]), (1, 4, 16, 64, 256)
    calls = {f"{n} frames": lambda n=n: streamed(loop, 10, n) for n in sizes}
    times = alternate(calls, ROUNDS)
    return {
        name: {
            "times_real_time": 10 / statistics.median(spent),
            "ms_of_sound": 1000 * int(name.split()[0]) / RATE,
        }
        for name, spent in times.items()
    }


def main() -> None:
    """Measure, print the tables, write the record."""
    torch.set_num_threads(1)
    tables = {"stream": by_length(), "route, 10 s": by_route(), "block": by_block()}
    _benchmark.record(
        "differentiable_dsp",
        "cpu",
        tables,
        numpy=np.__version__,
        harmonics=HARMONICS,
        bands=BANDS,
        **{"frames a second": RATE, "samples a second": FS},
    )


if __name__ == "__main__":
    if "--memory" in sys.argv:
        name, *sizes = sys.argv[2:]
        print(grown(name, *map(float, sizes)))
    else:
        main()
