"""Synthesisers with gradients: what the chapter declares."""

from typing import NamedTuple

from iclrtut.claims import OURS, UNCHECKED, Chapter, Claim, above, below


class Settings(NamedTuple):
    """Sizes of one profile; the defaults are `quick`."""

    fs: int = 16_000  # samples a second
    rate: int = 100  # control frames a second
    seconds: float = 1.0  # of a training clip
    harmonics: int = 40
    bands: int = 33  # of the noise filter
    hidden: int = 48  # units of the GRU
    width: int = 32  # units of the stacks before and after it
    layers: int = 1  # of each stack
    tiny: tuple[int, ...] = (4, 12)  # units of smaller GRUs
    examples: tuple[int, ...] = (1, 4, 16)
    unseen: int = 8  # test melodies
    batch: int = 1
    steps: int = 100  # of training, all decoders alike
    lr: float = 16e-3  # of DDSP; all rates fall to 0 in a straight line
    wave_lr: float = 4e-3  # of the waveform decoder
    filter_lr: float = 8e-3  # of the source-filter decoder
    note_steps: int = 150
    note_lr: float = 0.1
    starts: int = 18  # wrong pitches to descend from
    pitch_steps: int = 200
    real: bool = False  # whether recordings are learned too
    real_steps: int = 1000
    room: int = 48_000  # samples of the learned reverb
    every: int = 50  # steps between checkpoints

    @property
    def hop(self) -> int:
        """Samples between two control frames."""
        return self.fs // self.rate


def _small_data_claims() -> tuple[Claim, ...]:
    names = {"plain": "a waveform decoder", "filter": "a source-filter decoder"}
    return tuple(
        Claim(
            f"small_data_{kind}_{n}",
            f"The prior pays with {n} example(s), against {about}",
            "introduction",
            f"spectral loss on unseen melodies, DDSP's minus that of {about}",
            below(0),
            UNCHECKED,
        )
        for n in (1, 4, 16)
        for kind, about in names.items()
    )


CHAPTER = Chapter(
    slug="differentiable_dsp",
    title="Synthesisers with gradients",
    paper="DDSP: differentiable digital signal processing",
    authors="Engel, Hantrakul, Gu, Roberts",
    url="https://arxiv.org/abs/2001.04643",
    idea="Let a network play a synthesiser instead of writing samples: oscillators, "
    "filters and reverb pass gradients, and few examples teach an instrument.",
    difficulty="middling",
    prerequisites="sine waves, the discrete Fourier transform, gradient descent",
    settings={
        "smoke": Settings(
            seconds=0.25,
            harmonics=12,
            bands=9,
            hidden=6,
            width=8,
            tiny=(3,),
            unseen=2,
            steps=2,
            note_steps=3,
            starts=4,
            pitch_steps=3,
        ),
        "quick": Settings(),
        "full": Settings(
            rate=250,
            seconds=4.0,
            harmonics=60,
            bands=65,
            hidden=512,
            width=512,
            layers=3,
            tiny=(16, 64),
            unseen=32,
            batch=16,
            steps=1500,
            lr=3e-4,
            wave_lr=3e-4,
            filter_lr=3e-4,
            note_steps=300,
            starts=90,
            real=True,
            every=500,
        ),
    },
    claims=(
        Claim(
            "recovers_amplitudes",
            "Gradient descent recovers harmonic amplitudes",
            "DDSP components",
            "median relative error of the amplitudes of a note with known truth",
            below(0.05),
            UNCHECKED,
            log=True,
        ),
        Claim(
            "recovers_noise_alone",
            "Gradient descent recovers a noise filter",
            "DDSP components",
            "size of the median error over bands of the noise filter, dB; no harmonics",
            below(1),
            UNCHECKED,
            log=True,
        ),
        Claim(
            "recovers_noise_beside",
            "It does so beside harmonics",
            "DDSP components",
            "size of the median error over bands of the noise filter, dB; in a note",
            below(1),
            UNCHECKED,
            log=True,
        ),
        *_small_data_claims(),
        Claim(
            "small_model",
            "Few parameters suffice",
            "results",
            "parameters of the best waveform decoder over those of the smallest DDSP "
            "decoder that does at least as well",
            above(10),
            UNCHECKED,
            kind="count",
        ),
        Claim(
            "disentangled_pitch",
            "Loudness moves without the pitch",
            "results",
            "range of the measured pitch over three loudnesses, worst of five, cents",
            below(5),
            UNCHECKED,
            log=True,
        ),
        Claim(
            "disentangled_loudness",
            "Pitch moves without the loudness",
            "results",
            "range of the loudness reached over five pitches, worst of three, dB",
            below(1),
            UNCHECKED,
            log=True,
        ),
        Claim(
            "extrapolates_plain",
            "It plays pitches it never saw, against a waveform decoder",
            "results",
            "spectral loss an octave above training, DDSP's minus the waveform "
            "decoder's",
            below(0),
            UNCHECKED,
        ),
        Claim(
            "extrapolates_filter",
            "It plays pitches it never saw, against a source-filter decoder",
            "results",
            "spectral loss an octave above training, DDSP's minus the source-filter "
            "decoder's",
            below(0),
            UNCHECKED,
        ),
        Claim(
            "pitch_is_hard",
            "The spectral loss does not find the pitch",
            "beside the paper, (9)",
            "share of starts 1 to 12 semitones away that end within 20 cents",
            below(0.2),
            OURS,
            kind="share",
        ),
    ),
)
