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
SCORES = {"density": "log p(x)", "confidence": "max p(y|x)"}
REPOSITORY = "a figure, {} in the authors' repository: {}"
# JEM's approximate mass against another score of its own, on a foreign set
OWN = {
    "mass_over_confidence": ("confidence", "letters"),
    "mass_over_log_p_letters": ("density", "letters"),
    "mass_over_log_p_interpolated": ("density", "interpolated"),
}


def _foreign_claims() -> Iterator[Claim]:
    for id, score in SCORES.items():
        for name, description in FOREIGN.items():
            yield Claim(
                f"{id}_{name}",
                f"Detects foreign inputs by {score}: {description}",
                "abstract",
                f"AUROC of JEM's {score} minus AUROC of the tuned classifier's",
                above(0),
                UNCHECKED,
            )
    for name, description in FOREIGN.items():
        yield Claim(
            f"mass_best_{name}",
            "Detects foreign inputs by its approximate mass better than a tuned "
            f"classifier by any score: {description}",
            "the authors' code",
            "AUROC of JEM's approximate mass minus the best AUROC of the tuned "
            "classifier's three scores, its mass read either way",
            above(0),
            UNCHECKED,
        )
    for id, (other, name) in OWN.items():
        yield Claim(
            id,
            f"Detects foreign inputs better by its approximate mass than by its own "
            f"{SCORES[other]}: {FOREIGN[name]}",
            "ood.png in the authors' repository",
            f"AUROC of JEM's approximate mass minus AUROC of JEM's {SCORES[other]}",
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
            "cifar10.png in the authors' repository",
            "accuracy of plain minus accuracy of JEM, percentage points",
            below(3),
            REPOSITORY.format("cifar10.png", "JEM 92.9 %, a Wide-Resnet 95.8 %"),
        ),
        Claim(
            "accuracy_tuned",
            "Classifies almost as well as a tuned classifier",
            "beside the paper",
            "accuracy of tuned minus accuracy of JEM, percentage points",
            below(3),
            OURS,
        ),
        Claim(
            "split_labels",
            "Needs the split: the joint's labelled chains harm its classifier",
            "cifar10.png in the authors' repository",
            "cross-entropy on training batches, joint loss over split loss, in the "
            "last fifth of the steps that both took",
            above(1),
            REPOSITORY.format(
                "cifar10.png", "accuracy 30.1 % with p(x|y) factored, 92.9 % without"
            ),
            log=True,
        ),
        Claim(
            "generates_buffer",
            "Draws new inputs: the chains of the replay buffer",
            "abstract",
            "log of the Frechet distance, JEM's buffer over a Gaussian for each class",
            below(0),
            REPOSITORY.format("cifar10.png", "FID 38.4, IS 8.76"),
        ),
        Claim(
            "generates_noise",
            "Draws new inputs: fresh chains from noise",
            "abstract",
            "log of the Frechet distance, chains from noise over a Gaussian for each "
            "class",
            below(0),
            OURS,
        ),
        Claim(
            "recognised",
            "Draws inputs of a wanted class",
            "the authors' code",
            "share of chains on f(x)[y] that an independent classifier takes for y",
            above(0.8),
            "no number, since it shows pictures by class",
            kind="share",
        ),
        Claim(
            "leans",
            "Its buffer leans towards the training inputs more than a Gaussian does",
            "beside the paper",
            "share of the buffer that lies nearer to a training input than to any of "
            "as many unseen ones, minus that share of the Gaussian's samples",
            above(0),
            OURS,
        ),
        *(
            Claim(
                f"calibration_squared_{id}",
                f"Is better calibrated than {name}",
                "abstract",
                "squared calibration error without its bias (14), squared percentage "
                f"points, {id} minus JEM",
                above(0),
                REPOSITORY.format(
                    "calib.png",
                    "ECE 22.32 % without and 4.87 % with JEM, on data it does not name",
                )
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
                "abstract",
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
            "the authors' code",
            "accuracy of refined JEM minus accuracy of JEM, one radius, each by the "
            "worst of three attacks an input",
            above(0),
            UNCHECKED,
        ),
        Claim(
            "overhead_counted",
            "Costs what counting its passes says",
            "abstract",
            "seconds of a training step, JEM over softmax, over the ratio of (18)",
            below(1.5),
            "no number, only the words little overhead",
            log=True,
        ),
    ),
)
