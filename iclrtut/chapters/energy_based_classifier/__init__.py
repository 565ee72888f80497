"""Your classifier is secretly an energy-based model: what the chapter declares."""

from collections.abc import Iterator
from typing import NamedTuple

from iclrtut.claims import Chapter, Claim, above, below


class Settings(NamedTuple):
    """Sizes of one profile; the defaults are `quick`."""

    data: str = "digits"
    split: tuple[int, int, int, int] = (500, 400, 200, 697)  # train, judge, validate
    depth: int = 0  # of the wide ResNet; 0 stands for the digits net
    width: int = 0
    bf16: bool = False
    steps: int = 1000  # of training, JEM and softmax alike
    judge_steps: int = 500
    batch: int = 64
    rate: float = 3e-3
    warmup: int = 100
    data_noise: float = 0.03
    sampler_steps: int = 5
    alpha: float = 1.0
    sigma: float = 0.01
    buffer: int = 4000
    restart: float = 0.05
    scored: int = 697  # inputs of each foreign set
    radii: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4)  # L-infinity, pixels in [-1, 1]
    attacked: int = 300
    attack_steps: int = 20
    refined: int = 100  # inputs attacked through the refinement
    radius: float = 0.3
    refine_steps: int = 10
    chains: int = 5
    drawn: int = 400  # samples compared by Frechet distance
    draw_steps: int = 300
    conditional: int = 100
    timed: int = 10
    plane_steps: int = 1500
    plane_sampler_steps: int = 20
    watched: int = 120  # steps of a training that is meant to break
    every: int = 100  # steps between checkpoints


FOREIGN = {
    "noise": "uniform noise",
    "photographs": "photographs",
    "permuted": "the test inputs with one shuffle of the pixels",
    "inverted": "the test inputs with dark and light exchanged",
    "turned": "the test inputs turned by 90 degrees",
    "grey": "constant grey",
    "interpolated": "means of two test inputs of different classes",
}


def _foreign_claims() -> Iterator[Claim]:
    for score, words in {"density": "log p(x)", "mass": "approximate mass"}.items():
        for name, about in FOREIGN.items():
            yield Claim(
                f"ood_{score}_{name}",
                f"Detects foreign inputs by {words}: {about}",
                "section 5.3",
                f"AUROC of JEM's {words} minus AUROC of plain softmax's confidence",
                above(0),
            )


CHAPTER = Chapter(
    slug="energy_based_classifier",
    title="Your classifier is secretly an energy-based model",
    paper="Your Classifier is Secretly an Energy Based Model and You Should Treat it "
    "Like One",
    authors="Grathwohl, Wang, Jacobsen, Duvenaud, Norouzi, Swersky",
    url="https://arxiv.org/abs/1912.03263",
    idea="The same logits, read twice: their differences are the class probabilities, "
    "their height is the density of the input.",
    difficulty="middling",
    prerequisites="softmax and cross-entropy, gradients, the normal distribution, "
    "a first network in PyTorch",
    settings={
        "smoke": Settings(
            split=(200, 100, 50, 100),
            steps=6,
            judge_steps=6,
            batch=16,
            warmup=2,
            buffer=64,
            scored=50,
            radii=(0.1, 0.4),
            attacked=20,
            attack_steps=2,
            refined=4,
            refine_steps=2,
            chains=2,
            drawn=40,
            draw_steps=3,
            conditional=20,
            timed=1,
            plane_steps=6,
            plane_sampler_steps=2,
            watched=4,
        ),
        "quick": Settings(),
        "full": Settings(
            data="cifar10",
            split=(40_000, 8_000, 2_000, 10_000),
            depth=28,
            width=10,
            bf16=True,
            steps=4000,
            judge_steps=4000,
            rate=1e-4,
            warmup=1000,
            sampler_steps=20,
            buffer=10_000,
            scored=2000,
            radii=tuple(2 * pixels / 255 for pixels in (2, 4, 8, 16)),
            attacked=500,
            refined=200,
            radius=2 * 8 / 255,
            drawn=1000,
            conditional=500,
            every=1000,
        ),
    },
    claims=(
        Claim(
            "accuracy",
            "Classifies almost as well as a softmax classifier",
            "section 5.1",
            "accuracy of softmax minus accuracy of JEM, percentage points",
            below(3),
            paper="JEM 92.9 % on CIFAR-10 (table 1)",
        ),
        Claim(
            "generates_buffer",
            "Draws new inputs: the chains of the replay buffer",
            "section 5.1",
            "log of the Frechet distance, JEM's buffer over a Gaussian for each class",
            below(0),
            paper="FID 38.4, IS 8.76 on CIFAR-10 (table 1)",
        ),
        Claim(
            "generates_noise",
            "Draws new inputs: fresh chains from noise",
            "section 5.1",
            "log of the Frechet distance, chains from noise over a Gaussian for each "
            "class",
            below(0),
        ),
        Claim(
            "recognised",
            "Draws inputs of a wanted class",
            "section 5.1",
            "share of chains on f(x)[y] that an independent classifier takes for y",
            above(0.8),
            share=True,
        ),
        Claim(
            "calibrated",
            "Is better calibrated",
            "section 5.2",
            "expected calibration error (15 bins) of softmax minus that of JEM",
            above(0),
        ),
        Claim(
            "nll_raw",
            "Gives better probabilities",
            "beside the paper",
            "negative log-likelihood of softmax minus that of JEM, nats",
            above(0),
        ),
        Claim(
            "nll_tempered",
            "Gives better probabilities, after one temperature each",
            "beside the paper",
            "negative log-likelihood of softmax minus that of JEM, nats, each with the "
            "temperature fitted on validation inputs",
            above(0),
        ),
        *_foreign_claims(),
        Claim(
            "robust",
            "Survives an attack that breaks a softmax classifier",
            "section 5.4",
            "accuracy of JEM minus accuracy of softmax under L-infinity PGD, at the "
            "smallest radius that leaves softmax less than 20 %",
            above(0),
            paper="a figure, without a number",
        ),
        Claim(
            "robust_refined",
            "Survives better when sampler steps refine the input first",
            "section 5.4",
            "accuracy of refined JEM minus accuracy of JEM, one radius, each by the "
            "worst of three attacks an input",
            above(0),
        ),
        Claim(
            "overhead",
            "Adds little overhead to the training of a classifier",
            "abstract",
            "seconds of a training step, JEM over softmax",
            below(2),
        ),
    ),
)
