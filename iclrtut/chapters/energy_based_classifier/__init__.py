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
    tuned_noise: float = 0.5  # of the tuned baseline, chosen on seeds 0 to 4
    tuned_l2: float = 1e-3
    labelled_steps: int = 150  # of each training with labelled chains
    sampler_steps: int = 5
    alpha: float = 1.0
    sigma: float = 0.01
    buffer: int = 4000
    restart: float = 0.05
    foreign: int = 697  # inputs of each foreign set
    radii: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4)  # L-infinity, pixels in [-1, 1]
    attack_radius: float = 0.3  # of the claims, one of radii
    attacked: int = 200  # inputs attacked at each radius
    attack_starts: int = 3
    attack_steps: int = 20
    refine_attacked: int = 100  # inputs attacked through the refinement
    refine_steps: int = 10
    refine_chains: int = 5
    samples: int = 400  # compared by Frechet distance
    sample_steps: int = 300
    conditional: int = 100  # samples of a wanted class
    timed_steps: int = 10
    plane_steps: int = 1200
    plane_sampler_steps: int = 20
    divergence_steps: int = 120  # of a training that is meant to break
    checkpoint_every: int = 100  # steps


FOREIGN = {
    "letters": "handwritten letters of eight alphabets",
    "binary": "pixels black or white by a coin",
    "photographs": "photographs",
    "permuted": "the test inputs with one shuffle of the pixels",
    "inverted": "the test inputs with dark and light exchanged",
    "turned": "the test inputs turned by 90 degrees",
    "grey": "constant grey",
    "interpolated": "means of two test inputs of different classes",
}
SCORES = {
    "density": "log p(x)",
    "confidence": "max p(y|x)",
    "mass": "approximate mass",
}


def _foreign_claims() -> Iterator[Claim]:
    for id, score in SCORES.items():
        for name, description in FOREIGN.items():
            yield Claim(
                f"{id}_{name}",
                f"Detects foreign inputs by {score}: {description}",
                "section 5.3",
                f"AUROC of JEM's {score} minus AUROC of the tuned classifier's",
                above(0),
                UNCHECKED,
            )
    yield Claim(
        "mass_over_confidence",
        "Detects letters better by its approximate mass than by its own confidence",
        "section 5.3",
        "AUROC of JEM's approximate mass minus AUROC of JEM's max p(y|x), letters",
        above(0),
        UNCHECKED,
    )


RIVALS = {"plain": "a plain classifier", "tuned": "a tuned classifier"}


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
            labelled_steps=4,
            batch=16,
            warmup=2,
            buffer=64,
            foreign=50,
            radii=(0.1, 0.4),
            attack_radius=0.4,
            attacked=20,
            attack_starts=2,
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
            attack_radius=2 * 8 / 255,
            samples=1000,
            conditional=500,
            checkpoint_every=1000,
        ),
    },
    claims=(
        Claim(
            "accuracy",
            "Classifies almost as well as a plain classifier",
            "section 5.1",
            "accuracy of plain minus accuracy of JEM, percentage points",
            below(3),
            "JEM 92.9 % on CIFAR-10 (table 1)",
        ),
        Claim(
            "accuracy_tuned",
            "Classifies almost as well as a tuned classifier",
            "section 5.1",
            "accuracy of tuned minus accuracy of JEM, percentage points",
            below(3),
            OURS,
        ),
        Claim(
            "split",
            "Needs the split: labelled chains harm the classifier of the joint",
            "section 4",
            "cross-entropy on training batches, joint loss over split loss",
            above(1),
            UNCHECKED,
            log=True,
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
            "remembers",
            "Keeps training inputs in its buffer",
            "beside the paper",
            "share of the buffer that lies nearer to a training input than to any of "
            "as many unseen ones, minus one half",
            above(0),
            OURS,
        ),
        *(
            Claim(
                f"calibration_{id}",
                f"Is better calibrated than {name}",
                "section 5.2",
                f"expected calibration error above its floor, {id} minus JEM",
                above(0),
                "a figure, in the authors' repository: ECE 22.32 % without and "
                "4.87 % with JEM"
                if id == "plain"
                else OURS,
            )
            for id, name in RIVALS.items()
        ),
        *(
            Claim(
                claim if id == "plain" else f"{claim}_{id}",
                f"Gives better probabilities than {name}{after}",
                "beside the paper",
                f"negative log-likelihood of {id} minus that of JEM, nats{how}",
                above(0),
                OURS,
            )
            for id, name in RIVALS.items()
            for claim, after, how in (
                ("nll_raw", "", ""),
                (
                    "nll_tempered",
                    ", after one temperature each",
                    ", each with the temperature fitted on validation inputs",
                ),
            )
        ),
        *_foreign_claims(),
        *(
            Claim(
                f"robust_{id}",
                f"Survives attacks better than {name}",
                "section 5.4",
                f"accuracy of JEM minus accuracy of {id} under L-infinity PGD of one "
                "radius, each by the worst of three starts an input",
                above(0),
                UNCHECKED,
            )
            for id, name in RIVALS.items()
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
