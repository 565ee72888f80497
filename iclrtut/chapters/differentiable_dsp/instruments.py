"""The made-up instruments of the chapter `differentiable_dsp`, whose truth is known.

Controls are [n, T] or [n, T, C] at `rate` frames a second.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from iclrtut.chapters.differentiable_dsp import Settings, method
from iclrtut.chapters.differentiable_dsp.method import Controls
from iclrtut.errors import BadRequest
from iclrtut.run import Run

QUIET = -30.0  # dB of an instrument at level 0, against level 1


class Instrument(NamedTuple):
    """A generated instrument: how its spectrum depends on pitch and level.

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


def built(run: Run, instrument: str) -> Instrument:
    """An instrument of this name and of this run's seed: no two runs play the same.

    Raises:
        BadRequest: there is no such instrument.
    """
    if instrument not in INSTRUMENTS:
        raise BadRequest(
            f"there is no instrument {instrument!r}: use {', '.join(INSTRUMENTS)}."
        )
    known, rng = INSTRUMENTS[instrument], run.rng(f"{instrument} body")
    octaves = rng.uniform(-0.3, 0.3, (len(known.formants), 3))
    formants = tuple(
        (centre * 2**a, width * 2**b, gain * 2**c)
        for (centre, width, gain), (a, b, c) in zip(
            known.formants, octaves.tolist(), strict=True
        )
    )
    return known._replace(
        rolloff=known.rolloff + rng.uniform(-0.2, 0.2),
        dull=known.dull + rng.uniform(-0.2, 0.2),
        steep=known.steep + rng.uniform(-0.1, 0.1),
        even=known.even * rng.uniform(0.7, 1.0),
        formants=formants,
        breath=known.breath * 2 ** rng.uniform(-0.5, 0.5),
        colour=known.colour + rng.uniform(-4, 4),
    )


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
    s: Settings = run.settings
    spec = built(run, instrument)
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
