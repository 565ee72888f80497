"""Your classifier is secretly an energy-based model: what the chapter declares."""

from collections.abc import Iterator
from typing import NamedTuple

from iclrtut.claims import OURS, UNCHECKED, Chapter, Claim, above, below


class Split(NamedTuple):
    """How many inputs each part of the data gets."""

    train: int
    evaluator: int
    validation: int
    test: int


DIGITS = 1797  # images in the set that `quick` splits
SPLIT = Split(train=500, evaluator=400, validation=200, test=697)


class Settings(NamedTuple):
    """Sizes of one profile; the defaults are `quick`."""

    data: str = "digits"
    split: Split = SPLIT
    depth: int = 0  # of the wide ResNet; 0 stands for the digits net
    width: int = 0
    bf16: bool = False
    steps: int = 1000  # of training, JEM and softmax alike
    evaluator_steps: int = 500
    batch: int = 64
    learning_rate: float = 3e-3
    warmup: int = 100
    data_noise: float = 0.03
    sampler_steps: int = 5
    alpha: float = 1.0
    sigma: float = 0.01
    buffer: int = 4000
    restart: float = 0.05
    foreign: int = 697  # inputs of each foreign set
    radii: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4)  # L-infinity, pixels in [-1, 1]
    attacked: int = 300  # inputs attacked at each radius
    attack_steps: int = 20
    refine_attacked: int = 100  # inputs attacked through the refinement
    refine_radius: float = 0.3
    refine_steps: int = 10
    refine_chains: int = 5
    samples: int = 400  # compared by Frechet distance
    sample_steps: int = 300
    conditional: int = 100  # samples of a wanted class
    timed_steps: int = 10
    plane_steps: int = 1500
    plane_sampler_steps: int = 20
    divergence_steps: int = 120  # of a training that is meant to break
    checkpoint_every: int = 100  # steps


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
    for id, score in {"density": "log p(x)", "mass": "approximate mass"}.items():
        for name, description in FOREIGN.items():
            yield Claim(
                f"ood_{id}_{name}",
                f"Detects foreign inputs by {score}: {description}",
                "section 5.3",
                f"AUROC of JEM's {score} minus AUROC of plain softmax's confidence",
                above(0),
                UNCHECKED,
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
    overlap={"quick": SPLIT.test / (DIGITS - SPLIT.test)},
    difficulty="middling",
    prerequisites="softmax and cross-entropy, gradients, the normal distribution, "
    "a first network in PyTorch",
    settings={
        "smoke": Settings(
            split=Split(train=200, evaluator=100, validation=50, test=100),
            steps=6,
            evaluator_steps=6,
            batch=16,
            warmup=2,
            buffer=64,
            foreign=50,
            radii=(0.1, 0.4),
            attacked=20,
            attack_steps=2,
            refine_attacked=4,
            refine_steps=2,
            refine_chains=2,
            samples=40,
            sample_steps=3,
            conditional=20,
            timed_steps=1,
            plane_steps=6,
            plane_sampler_steps=2,
            divergence_steps=4,
        ),
        "quick": Settings(),
        "full": Settings(
            data="cifar10",
            split=Split(train=40_000, evaluator=8_000, validation=2_000, test=10_000),
            depth=28,
            width=10,
            bf16=True,
            steps=4000,
            evaluator_steps=4000,
            learning_rate=1e-4,
            warmup=1000,
            sampler_steps=20,
            buffer=10_000,
            foreign=2000,
            radii=tuple(2 * pixels / 255 for pixels in (2, 4, 8, 16)),
            attacked=500,
            refine_attacked=200,
            refine_radius=2 * 8 / 255,
            samples=1000,
            conditional=500,
            checkpoint_every=1000,
        ),
    },
    claims=(
        Claim(
            "accuracy",
            "Classifies almost as well as a softmax classifier",
            "section 5.1",
            "accuracy of softmax minus accuracy of JEM, percentage points",
            below(3),
            "JEM 92.9 % on CIFAR-10 (table 1)",
        ),
        Claim(
            "generates_buffer",
            "Draws new inputs: the chains of the replay buffer",
            "section 5.1",
            "log of the Frechet distance, JEM's buffer over a Gaussian for each class",
            below(0),
            "FID 38.4, IS 8.76 on CIFAR-10 (table 1)",
        ),
        Claim(
            "generates_noise",
            "Draws new inputs: fresh chains from noise",
            "section 5.1",
            "log of the Frechet distance, chains from noise over a Gaussian for each "
            "class",
            below(0),
            OURS,
        ),
        Claim(
            "recognised",
            "Draws inputs of a wanted class",
            "section 5.1",
            "share of chains on f(x)[y] that an independent classifier takes for y",
            above(0.8),
            "no number, since it shows pictures by class",
            kind="share",
        ),
        Claim(
            "calibrated",
            "Is better calibrated",
            "section 5.2",
            "expected calibration error (15 bins) of softmax minus that of JEM",
            above(0),
            UNCHECKED,
        ),
        Claim(
            "nll_raw",
            "Gives better probabilities",
            "beside the paper",
            "negative log-likelihood of softmax minus that of JEM, nats",
            above(0),
            OURS,
        ),
        Claim(
            "nll_tempered",
            "Gives better probabilities, after one temperature each",
            "beside the paper",
            "negative log-likelihood of softmax minus that of JEM, nats, each with the "
            "temperature fitted on validation inputs",
            above(0),
            OURS,
        ),
        *_foreign_claims(),
        Claim(
            "robust",
            "Survives an attack that breaks a softmax classifier",
            "section 5.4",
            "accuracy of JEM minus accuracy of softmax under L-infinity PGD, at the "
            "smallest radius that leaves softmax less than 20 %",
            above(0),
            "a figure, without a number",
        ),
        Claim(
            "robust_refined",
            "Survives better when sampler steps refine the input first",
            "section 5.4",
            "accuracy of refined JEM minus accuracy of JEM, one radius, each by the "
            "worst of three attacks an input",
            above(0),
            UNCHECKED,
        ),
        Claim(
            "overhead",
            "Adds little overhead to the training of a classifier",
            "abstract",
            "seconds of a training step, JEM over softmax",
            below(2),
            "no number, only the words little overhead",
            log=True,
        ),
    ),
)
