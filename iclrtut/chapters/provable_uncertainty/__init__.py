"""A classifier that provably knows when it does not know: what the chapter declares."""

from collections.abc import Iterator
from typing import NamedTuple

from iclrtut.claims import OURS, UNCHECKED, Chapter, Claim, above, below

THEOREM = "no number, since it is a theorem"
DIGITS = 1797  # images in the set that `quick` splits


class Settings(NamedTuple):
    """Sizes of one profile; the defaults are `quick`."""

    data: tuple[str, ...] = ("digits",)
    test: int = 500  # test inputs; the rest is trained on
    bf16: bool = False
    steps: int = 1000  # of training, all three methods alike
    batch: int = 64  # in, and as many out
    rate: float = 1e-3
    mixture_rate: float = 1e-3
    components: tuple[int, int] = (25, 25)  # in, out
    floor: float = 1e-2  # of the metric's eigenvalues, of the largest
    lowest: float = -3.0  # log sigma
    q: float = 1.0  # p(i) / p(o)
    tau: float = 0.2  # the confidence that radii are certified for
    scored: int = 500  # inputs of each foreign set
    attacked: int = 100  # noise inputs
    attack_steps: int = 100
    rays: int = 1000
    eps: float = 1e-3  # distance of confidence from 1/M, far away
    moons_steps: int = 1000
    moons_batch: int = 128
    moons_rate: float = 3e-3
    moons_mixture_rate: float = 1e-3
    moons_components: tuple[int, int] = (10, 25)
    moons_box: float = 3.0  # half side of the square that out-points fill
    moons_balls: int = 2000
    every: int = 100  # steps between checkpoints


FOREIGN = {
    "noise": "uniform noise",
    "permuted": "test inputs, each with its own shuffle of the pixels",
    "photographs": "photographs (at 28 x 28 also letters and the other set)",
    "inverted": "test inputs with dark and light exchanged",
    "turned": "test inputs turned by 90 degrees",
    "rolled": "test inputs rolled by half their height",
}


def _foreign_claims() -> Iterator[Claim]:
    for name, about in FOREIGN.items():
        yield Claim(
            f"mmc_{name}",
            f"Is less confident on foreign inputs: {about}",
            "experiments",
            "mean maximal confidence of CCU minus that of the plain network",
            below(0),
            UNCHECKED,
        )
    yield Claim(
        "mmc_level",
        "Is nearly uniform on noise",
        "experiments",
        "mean maximal confidence of CCU on uniform noise, ten classes",
        below(0.15),
        UNCHECKED,
    )
    for name, about in FOREIGN.items():
        yield Claim(
            f"auroc_{name}",
            f"Separates in from out as well as outlier exposure: {about}",
            "experiments",
            "AUROC of CCU's confidence minus that of outlier exposure's",
            above(-0.01),
            UNCHECKED,
        )


CHAPTER = Chapter(
    slug="provable_uncertainty",
    title="A classifier that provably knows when it does not know",
    paper="Towards neural networks that provably know when they don't know",
    authors="Meinke, Hein",
    url="https://arxiv.org/abs/1909.12180",
    idea="Put a classifier inside Bayes' rule with two Gaussian mixtures: far away it "
    "says one over the number of classes, and a ball carries a proven ceiling.",
    overlap={"quick": Settings().test / (DIGITS - Settings().test)},
    difficulty="middling",
    prerequisites="softmax and cross-entropy, Bayes' rule, the normal distribution, "
    "Gaussian mixtures",
    settings={
        "smoke": Settings(
            test=100,
            steps=6,
            batch=16,
            components=(3, 4),
            scored=50,
            attacked=6,
            attack_steps=4,
            rays=50,
            moons_steps=30,
            moons_batch=32,
            moons_components=(3, 5),
            moons_balls=40,
        ),
        "quick": Settings(),
        "full": Settings(
            data=("mnist", "fashion_mnist", "cifar10"),
            test=10_000,
            bf16=True,
            steps=8000,
            batch=128,
            mixture_rate=1e-4,
            components=(100, 100),
            scored=2000,
            attacked=200,
            attack_steps=200,
            every=1000,
        ),
    },
    claims=(
        Claim(
            "accuracy",
            "Loses no accuracy",
            "experiments",
            "test error of CCU minus test error of the plain network, percentage "
            "points",
            below(1),
            UNCHECKED,
        ),
        *_foreign_claims(),
        Claim(
            "certified",
            "No attack beats the certificate",
            "the theorem on balls, (10)",
            "largest excess, over attacked balls, of the confidence found over (10)",
            below(1e-6),
            THEOREM,
            kind="always",
        ),
        Claim(
            "certified_tight",
            "No attack beats the tighter certificate",
            "beside the paper, (12)",
            "largest excess, over attacked balls, of the confidence found over (12)",
            below(1e-6),
            OURS,
            kind="always",
        ),
        Claim(
            "adversarial_plain",
            "A plain network can be made sure near noise",
            "experiments",
            "median over noise inputs of the plain network's attacked confidence",
            above(0.9),
            UNCHECKED,
        ),
        Claim(
            "adversarial_ccu",
            "CCU cannot be made sure near noise",
            "experiments",
            "median over noise inputs of CCU's attacked confidence minus its bound",
            below(1e-6),
            THEOREM,
            kind="always",
        ),
        Claim(
            "far_away",
            "Confidence goes to 1/M along every ray",
            "the theorem on rays, (9)",
            "largest |confidence - 1/M| over random rays at the root of (9c)",
            below(1e-3),
            THEOREM,
            kind="always",
        ),
        Claim(
            "tight",
            "(12) certifies larger balls than (10)",
            "beside the paper, (12)",
            "median over noise inputs of the radius by (12) over the radius by (10)",
            above(1.2),
            OURS,
            log=True,
        ),
    ),
)
