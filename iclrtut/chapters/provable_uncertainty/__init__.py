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
    steps: int = 1000  # of training, all methods and sets alike
    batch: int = 64  # in, and as many out
    rate: float = 1e-3
    mixture_rate: float = 1e-3
    components: tuple[int, int] = (25, 25)  # in, out
    floor: float = 1e-2  # of the metric's eigenvalues, of the largest
    lowest: float = -3.0  # log sigma
    q: float = 1.0  # p(i) / p(o)
    tau: float = 0.2  # the confidence that radii are certified for
    scored: int = 500  # inputs of each foreign set
    paper_factor: float = 1.1  # of 1/M: the confidence of the official code
    paper_floor: float = 1e-6
    attacked: int = 60  # inputs of a kind
    attack_steps: int = 60
    attack_restarts: int = 2
    rays: int = 200
    distances: int = 120  # on each ray
    eps: float = 1e-3  # distance of confidence from 1/M, far away
    moons_batch: int = 128
    moons_rate: float = 3e-3
    moons_mixture_rate: float = 1e-3
    moons_components: tuple[int, int] = (10, 25)
    moons_lowest: float = -4.0
    moons_box: float = 3.0  # half side of the square that out-points fill
    moons_balls: int = 1000
    every: int = 100  # steps between checkpoints


FOREIGN = {
    "noise": "uniform noise",
    "permuted": "test inputs, each with its own shuffle of the pixels",
    "photographs": "photographs (at 28 x 28 also letters and the other set)",
    "inverted": "test inputs with dark and light exchanged",
    "turned": "test inputs turned by 90 degrees",
    "rolled": "test inputs rolled by half their height",
    "letters": "handwritten letters of eight alphabets",
}
SEEN = ("noise", "permuted")  # of a kind that both were trained on, and tell apart


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
        "uniform_noise",
        "Is nearly uniform on noise",
        "experiments",
        "share of images of uniform noise on which CCU is at most 0.15 sure, of ten "
        "classes",
        above(0.95),
        UNCHECKED,
        kind="share",
    )
    for name, about in FOREIGN.items():
        if name in SEEN:
            continue
        yield Claim(
            f"auroc_{name}",
            f"Separates in from out as well as outlier exposure: {about}",
            "experiments",
            "AUROC of CCU's confidence minus that of outlier exposure's",
            above(-0.01),
            UNCHECKED,
        )


def _slack_claims() -> Iterator[Claim]:
    places = {"noise": "noise", "near": "the foreign images nearest to the data"}
    for equation in ("10", "12"):
        for id, place in places.items():
            yield Claim(
                f"slack_{equation}_{id}",
                f"The certificate ({equation}) is tight around {place}",
                f"beside the paper, ({equation})",
                f"median distance of the highest log b found from ({equation}), in "
                "nats",
                below(0.1),
                OURS,
                log=True,
            )


def _attack_claims() -> Iterator[Claim]:
    names = {"plain": "A plain network", "oe": "Outlier exposure"}
    for kind, name in names.items():
        for end, where in (("", "the ball"), ("_box", "the ball and the pixels' box")):
            yield Claim(
                f"sure_{kind}{end}",
                f"{name} can be made sure near most noise, within {where}",
                "experiments",
                "share of noise inputs at which a confidence above 0.9 is found",
                above(0.5),
                UNCHECKED,
                kind="share",
            )
    for kind, name in names.items():
        yield Claim(
            f"paper_{kind}",
            f"{name} can be made as sure near noise as of data, in balls of the "
            "paper's confidence and floor",
            "experiments, the rate of success",
            "share of noise inputs at which the attack ends above the median "
            "confidence of test inputs",
            above(0.5),
            UNCHECKED,
            kind="share",
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
            distances=20,
            moons_batch=32,
            moons_components=(3, 5),
            moons_balls=40,
        ),
        "quick": Settings(),
        "full": Settings(
            data=("mnist", "fashion_mnist", "cifar10"),
            test=10_000,
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
            "guarded",
            "Training (8) helps: letters are told apart better than by a plain network "
            "inside the mixtures that EM found",
            "beside the paper",
            "AUROC of CCU's confidence on letters minus that without training (8)",
            above(0),
            OURS,
        ),
        Claim(
            "certifiable",
            "Most letters have a ball with a certificate",
            "the theorem on balls, (10)",
            "share of letters with a radius for the confidence 0.2",
            above(0.5),
            UNCHECKED,
            kind="share",
        ),
        Claim(
            "certifiable_whole",
            "Most letters have a ball with a certificate, in the frames that they were "
            "written in",
            "the theorem on balls, (10)",
            "share of letters, averaged down with their whole frames, with a radius "
            "for the confidence 0.2",
            above(0.5),
            UNCHECKED,
            kind="share",
        ),
        Claim(
            "ball_10",
            "No input of a ball beats the certificate, whatever the network",
            "the theorem on balls, (10)",
            "largest excess of log b over (10), in nats, in all balls attacked",
            below(1e-6),
            THEOREM,
            kind="always",
        ),
        Claim(
            "ball_12",
            "No input of a ball beats the sharper certificate, whatever the network",
            "beside the paper, (12)",
            "largest excess of log b over (12), in nats, in all balls attacked",
            below(1e-6),
            OURS,
            kind="always",
        ),
        *_slack_claims(),
        *_attack_claims(),
        Claim(
            "far_root",
            "Confidence has gone to 1/M where (20) says, on every ray",
            "the theorem on rays, (9)",
            "largest distance at which some network may be surer than 1/M + 0.001, "
            "over the root of (20)",
            below(1),
            THEOREM,
            kind="always",
        ),
        Claim(
            "far_falls",
            "Confidence has gone to 1/M soon after the data end",
            "the theorem on rays, (9)",
            "largest distance at which CCU is surer than 1/M + 0.001, over that of the "
            "farthest training input",
            below(2),
            UNCHECKED,
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
