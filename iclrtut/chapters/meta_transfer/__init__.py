"""The gamma that finds the cause, and when it does not: what the chapter declares."""

from collections.abc import Iterator
from typing import NamedTuple

from iclrtut.claims import OURS, UNCHECKED, Chapter, Claim, above, below


class Settings(NamedTuple):
    """Sizes of one profile; the defaults are `quick`."""

    runs: int = 256
    N: int = 10
    steps: int = 2  # of an episode
    batch: int = 10  # examples a step
    rate: float = 0.1
    gamma_rate: float = 1e-2  # of RMSprop
    plain_rate: float = 0.1  # of plain steps, ten times as large
    episodes: int = 1000
    large: int = 100  # categories
    large_runs: int = 64
    head_at: tuple[int, ...] = (1, 2, 5, 10, 20)  # examples
    head_rates: tuple[float, float, float] = (0.1, 0.3, 1.0)
    sizes: tuple[int, ...] = (5, 10, 20, 40)  # categories
    size_runs: int = 64
    site_runs: int = 128
    predictor_runs: int = 200  # for each site and law of the rows
    predictor_rate: float = 0.1
    predictor_at: int = 100  # examples
    worlds: int = 24
    train: int = 400
    transfer: int = 200
    encoder_steps: int = 5
    encoder_rate: float = 0.1
    encoder_episodes: int = 300
    theta_rate: float = 0.03  # of Adam, as the next
    encoder_gamma_rate: float = 0.05
    starts: int = 4
    every: int = 100  # episodes between checkpoints
    angles: int = 60  # of a grid of R
    evaluations: int = 5  # episodes that starts, and the grid, are compared on
    pairs: int = 99  # real ones, at most
    marginals: int = 100  # put on either column of a real pair
    blocks: int = 5
    pair_steps: int = 20
    resamples: int = 2000
    rows: int = 250  # of a real pair, for the additive-noise model
    mixture: bool = False  # also mixture density networks, all that follows
    mixture_worlds: int = 12
    mixture_components: int = 10
    mixture_hidden: int = 32
    mixture_fit: int = 3000  # steps of Adam before the episodes
    mixture_batch: int = 1000
    mixture_episodes: int = 500
    mixture_steps: int = 20  # of adaptation
    rotor_episodes: int = 1000  # of the encoder
    rotor_refit: int = 20  # steps of Adam before each of them
    rotor_steps: int = 5
    em_steps: int = 50


def _head_start_claims() -> Iterator[Claim]:
    for name, rate in {"slow": 0.1, "medium": 0.3, "fast": 1}.items():
        yield Claim(
            f"head_start_{name}",
            "The causal learner adapts faster when the cause changed",
            "the transfer experiment",
            "smallest mean gap in KL (B -> A minus A -> B, nats) after 1, 2, 5, 10 and "
            f"20 examples, rate {rate}",
            above(0),
            UNCHECKED,
        )


def _gamma_claims() -> Iterator[Claim]:
    for id, sentence, source, setting, paper in (
        ("gamma", "Gamma finds A -> B", "section 3.3", "N = 10", UNCHECKED),
        (
            "gamma_plain",
            "Gamma finds A -> B by plain gradient steps as well",
            "beside the paper",
            "N = 10, plain steps of rate 0.1",
            OURS,
        ),
        (
            "gamma_large",
            "Gamma finds A -> B among many categories",
            "section 3.3",
            "N = 100",
            UNCHECKED,
        ),
        (
            "both_ways",
            "Gamma finds B -> A where B is the cause",
            "beside the paper",
            "N = 10, belief in B -> A",
            OURS,
        ),
    ):
        yield Claim(
            id,
            sentence,
            source,
            f"share of runs that end above 0.95 on the right side, {setting}",
            above(0.95),
            paper,
            kind="share",
        )


def _whatever_claims() -> Iterator[Claim]:
    for law, concentration in {"": "1", "_sparse": "1/N"}.items():
        for site in ("effect", "mechanism"):
            yield Claim(
                f"whatever_{site}{law}",
                f"Finds the cause when the {site} changes",
                "beside the paper",
                "share of runs that end above 0.95 on the right side, N = 10, rows "
                f"from Dirichlet({concentration})",
                above(0.95),
                OURS,
                kind="share",
            )


def _leader_claims() -> Iterator[Claim]:
    for name, what, source, paper in (
        (
            "distance",
            "The distance of the parameters, (8),",
            "Le Priol et al. (2021), abstract",
            "no number, since it is the proxy that Le Priol et al. (2021) propose",
        ),
        ("step", "The first population step, (5),", "beside the paper", OURS),
        ("parts", "The marginal's part of the KL, (6),", "beside the paper", OURS),
    ):
        yield Claim(
            f"leader_{name}",
            f"{what} says which learner leads",
            source,
            "share of runs in which it has the sign of the online gap at 100 examples, "
            "over five changes and two kinds of rows",
            above(0.9),
            paper,
            kind="share",
        )


def _encoder_claims() -> Iterator[Claim]:
    for name, sentence, statistic in (
        (
            "start",
            "The encoder finds the angle",
            "within 5 degrees of a solution, one start",
        ),
        (
            "four",
            "The best of four encoders finds the angle",
            "within 5 degrees of a solution, best of 4 starts",
        ),
        (
            "sign",
            "Gamma's sign fits the angle",
            "in which gamma has the sign of the nearest solution, best of 4 starts",
        ),
    ):
        yield Claim(
            f"encoder_{name}",
            sentence,
            "the encoder",
            f"share of worlds {statistic}",
            above(0.9),
            UNCHECKED,
            kind="share",
        )


def _pair_claims() -> Iterator[Claim]:
    over = "its interval over the 35 data sets that the pairs come from"
    for way, sentence in {
        "selection": "Beats a coin on real pairs, shifted by selection",
        "blocks": "Beats a coin on real pairs, shifted from block to block",
        "unsorted": "The same without the pairs that are sorted by a column",
        "shuffled": "Beats a coin on real pairs, blocks of shuffled rows",
    }.items():
        yield Claim(
            f"real_{way}",
            sentence,
            "beside the paper",
            f"weighted accuracy, {over}",
            above(0.5),
            OURS,
            same_inputs=True,
        )
    yield Claim(
        "real_drift",
        "Adaptation says more than which marginal drifted",
        "beside the paper",
        f"weighted accuracy from block to block minus that of marginal drift, {over}",
        above(0),
        OURS,
        same_inputs=True,
    )


CHAPTER = Chapter(
    slug="meta_transfer",
    title="The gamma that finds the cause, and when it does not",
    paper="A meta-transfer objective for learning to disentangle causal mechanisms",
    authors="Bengio, Deleu, Rahaman, Ke, Lachapelle, Bilaniuk, Goyal, Pal",
    url="https://arxiv.org/abs/1901.10912",
    idea="Change a cause and let two models of one joint adapt: the causal one gets "
    "ahead. Change the effect, and the other one does.",
    difficulty="middling",
    prerequisites="Bayes' rule, softmax and cross-entropy, stochastic gradient descent",
    settings={
        "smoke": Settings(
            runs=8,
            episodes=5,
            large=20,
            large_runs=2,
            head_at=(1, 2, 5),
            sizes=(5, 10),
            size_runs=4,
            site_runs=4,
            predictor_runs=4,
            predictor_at=10,
            worlds=3,
            train=60,
            transfer=40,
            encoder_episodes=6,
            angles=12,
            evaluations=2,
            pairs=12,
            marginals=5,
            pair_steps=5,
            resamples=100,
            rows=60,
            mixture=True,
            mixture_worlds=2,
            mixture_components=3,
            mixture_hidden=8,
            mixture_fit=20,
            mixture_batch=50,
            mixture_episodes=3,
            mixture_steps=3,
            rotor_episodes=3,
            rotor_refit=2,
            rotor_steps=2,
            em_steps=5,
        ),
        "quick": Settings(),
        "full": Settings(
            runs=1024,
            large_runs=256,
            sizes=(5, 10, 20, 50, 100),
            site_runs=1000,
            predictor_runs=1000,
            worlds=100,
            marginals=1000,
            resamples=10_000,
            mixture=True,
            mixture_worlds=50,
        ),
    },
    claims=(
        *_head_start_claims(),
        *_gamma_claims(),
        Claim(
            "symmetric",
            "No change, no signal",
            "beside the paper",
            "distance from 1/2 of the mean sigma(gamma) at the end, joint flat on all "
            "cells",
            below(0.02),
            OURS,
            log=True,
        ),
        Claim(
            "slope_one",
            "The advantage grows in proportion to the number of categories",
            "the argument on parameters",
            "distance from one of the slope, log against log N, of the steps to half "
            "the KL, B -> A over A -> B",
            below(0.1),
            "no number, since it argues by counting parameters",
            log=True,
        ),
        Claim(
            "row_weight",
            "Without the weight of a row the advantage hardly grows",
            "beside the paper",
            "the same slope, once each row counts as much as a marginal",
            below(0.5),
            OURS,
        ),
        *_whatever_claims(),
        *_leader_claims(),
        *_encoder_claims(),
        *_pair_claims(),
    ),
)
