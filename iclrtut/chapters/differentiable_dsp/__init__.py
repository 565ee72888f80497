"""Synthesisers with gradients: what the chapter declares."""

from collections.abc import Iterator
from typing import NamedTuple

from iclrtut.claims import NO_NUMBER, OURS, Chapter, Claim, below


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
    small: int = 12  # units of a small GRU and its stacks
    small_filter: int = 8  # the same, of a source-filter decoder of about its size
    examples: tuple[int, ...] = (1, 16)
    unseen: int = 8  # test melodies
    batch: int = 1
    steps: int = 100  # of training, all decoders alike
    lr: float = 16e-3  # of DDSP; all rates fall to 0 in a straight line
    wave_lr: float = 4e-3  # of the waveform decoder
    filter_lr: float = 8e-3  # of the source-filter decoder
    note_steps: int = 150
    note_lr: float = 0.1
    starts: int = 18  # wrong pitches to descend from, a target each
    pitch_steps: int = 200
    recordings: str = "audio_clips_small"  # the set of them
    real_steps: int = 100
    room: int = 48_000  # samples of the learned reverb, at most
    every: int = 50  # steps between checkpoints

    @property
    def hop(self) -> int:
        """Samples between two control frames."""
        return self.fs // self.rate


HIDDEN = f"{NO_NUMBER}, since we could not read the paper's tables"
RIVALS = {"plain": "a waveform decoder", "filter": "a source-filter decoder"}


def _recovery_claims() -> Iterator[Claim]:
    for level, dB in (("quiet", -55), ("loud", -40)):
        yield Claim(
            f"amplitudes_{level}",
            f"Gradient descent recovers harmonic amplitudes, beside {level} noise",
            "section 3",
            "median relative error of the amplitudes of a note with known truth and "
            f"noise at {dB} dB",
            below(0.05),
            OURS,
            log=True,
        )
    for where, about in (("alone", "without harmonics"), ("beside", "in a note")):
        yield Claim(
            f"noise_bias_{where}",
            f"It recovers the level of a noise filter, {about}",
            "section 3",
            f"size of the median signed error over bands and frames, dB; {about}",
            below(1),
            OURS,
            log=True,
        )
        yield Claim(
            f"noise_scatter_{where}",
            f"It recovers the shape of a noise filter, {about}",
            "section 3",
            f"median distance of the bands' errors from their own median, dB; {about}",
            below(1),
            OURS,
            log=True,
        )


def _few_steps_claims() -> Iterator[Claim]:
    for n in (1, 16):
        for kind, about in RIVALS.items():
            yield Claim(
                f"few_steps_{kind}_{n}",
                f"The prior pays after few steps on {n} clip(s), against {about}",
                "introduction",
                f"spectral loss on unseen melodies, DDSP's minus that of {about}",
                below(0),
                HIDDEN,
            )
    yield Claim(
        "twice_the_steps",
        "A source-filter decoder with twice the steps does not catch up",
        "introduction",
        "spectral loss on unseen melodies, DDSP's minus that of a source-filter "
        "decoder with twice the steps",
        below(0),
        HIDDEN,
    )


def _model_claims() -> Iterator[Claim]:
    for name, about in (
        ("large", "a source-filter decoder of over ten times the parameters"),
        ("equal", "a source-filter decoder of as many parameters"),
    ):
        yield Claim(
            f"small_model_{name}",
            f"Few parameters suffice, against {about}",
            "section 5",
            f"spectral loss on unseen melodies, a small DDSP decoder's minus that of "
            f"{about}",
            below(0),
            HIDDEN,
        )
    yield Claim(
        "disentangled_loudness",
        "Pitch moves without the loudness",
        "section 5",
        "range of the loudness reached over five pitches, worst of three, dB",
        below(1),
        "a figure, of which we could not read a number",
        log=True,
    )
    for kind, about in RIVALS.items():
        yield Claim(
            f"extrapolates_{kind}",
            f"It plays pitches it never saw, against {about}",
            "section 5",
            f"spectral loss an octave above training, DDSP's minus that of {about}",
            below(0),
            f"{NO_NUMBER}, since the paper lets it be heard",
        )
    yield Claim(
        "pitch_not_found",
        "The spectral loss does not find the pitch",
        "beside the paper, (9)",
        "share of starts 1 to 12 semitones from a target of their own that end within "
        "20 cents of it",
        below(0.2),
        OURS,
        kind="share",
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
            small=4,
            small_filter=6,
            unseen=2,
            real_steps=2,
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
            small=64,
            small_filter=40,
            unseen=32,
            batch=16,
            steps=1500,
            lr=3e-4,
            wave_lr=3e-4,
            filter_lr=3e-4,
            note_steps=300,
            starts=90,
            recordings="audio_clips",
            real_steps=1000,
            every=500,
        ),
    },
    claims=(*_recovery_claims(), *_few_steps_claims(), *_model_claims()),
)
