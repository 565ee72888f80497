"""A whole from scattered parts: what the chapter declares."""

from typing import NamedTuple

from iclrtut.claims import OURS, Chapter, Claim, above, below

PAIRED = "PairedMNIST, authors' result files, lambda 0.9"


class Settings(NamedTuple):
    """Sizes of one profile; the defaults are `quick`."""

    data: str = "digits"
    test: int = 500  # images kept for judging
    few: int = 50  # pairs; the other setting has one for every training image
    same: float = 0.9  # lambda: how often the lower digit copies the upper's class
    width: int = 64  # of hidden layers
    wide: int = 150  # of the larger GAN's discriminator
    noise: int = 50  # numbers that the generator starts from
    batch: int = 32
    steps: int = 4000
    long_steps: int = 10_000  # of the GAN that trains for as long as FactorGAN
    factor_rate: float = 1e-3  # Adam's, of FactorGAN with and without d_P
    gan_rate: float = 1e-3  # of the GAN at equal steps
    long_rate: float = 1e-3
    wide_rate: float = 1e-3
    plain_rate: float = 1e-3  # of the plain sum
    average: float = 0.995  # of the generator's weights
    judge_steps: int = 400  # of the classifier that reads classes
    samples: int = 3000  # that a generator is judged by
    problems: int = 20  # pairs of Gaussians
    unpaired: int = 5000  # samples of each Gaussian's parts
    checkpoint_every: int = 500  # steps


COUNTS = (20, 100, 500)  # pairs of Gaussians
RATES = (5e-4, 1e-3, 2e-3)  # that every arm is tried with


CHAPTER = Chapter(
    slug="factorised_gan",
    title="A whole from scattered parts",
    paper="Training generative adversarial networks from incomplete observations "
    "using factorised discriminators",
    authors="Stoller, Ewert, Dixon",
    url="https://arxiv.org/abs/1905.12660",
    idea="One discriminator becomes four; only one of them needs pairs, the others "
    "learn from parts that nobody put together.",
    difficulty="middling",
    prerequisites="conditional probability, softmax and cross-entropy, the normal "
    "distribution, a first network in PyTorch",
    settings={
        "smoke": Settings(
            width=8,
            wide=12,
            noise=4,
            batch=8,
            steps=12,
            long_steps=12,
            judge_steps=30,
            samples=300,
            problems=3,
            unpaired=500,
            checkpoint_every=100,
        ),
        "quick": Settings(),
        "full": Settings(
            data="mnist",
            test=10_000,
            width=128,
            wide=256,
            batch=25,
            steps=100_000,
            long_steps=250_000,
            factor_rate=1e-4,
            gan_rate=1e-4,
            long_rate=1e-4,
            wide_rate=1e-4,
            plain_rate=1e-4,
            judge_steps=2000,
            samples=10_000,
            checkpoint_every=2000,
        ),
    },
    claims=(
        *(
            Claim(
                f"logit_sum_{count}",
                f"Four logits come nearer the joint log-ratio than one, {count} pairs",
                "the factorisation",
                "log of the RMSE of four summed logits over that of one, mean of all "
                "problems",
                below(0),
                OURS,
            )
            for count in COUNTS
        ),
        Claim(
            "marginals_few",
            "Better parts from few pairs",
            "experiments, PairedMNIST",
            "Frechet distance of the halves, best GAN minus FactorGAN, few pairs",
            above(0),
            f"34.3 and 4.06, 50 pairs ({PAIRED})",
        ),
        Claim(
            "dependency_few",
            "Better dependency from few pairs",
            "experiments, PairedMNIST",
            "d_dep, best GAN minus FactorGAN, few pairs",
            above(0),
            f"0.454 and 1.224, 50 pairs ({PAIRED}); there the GAN is better",
        ),
        Claim(
            "dependency_all",
            "Better dependency with all pairs",
            "experiments, PairedMNIST",
            "d_dep, best GAN minus FactorGAN, all pairs",
            above(0),
            f"0.707 and 0.327, all pairs ({PAIRED})",
        ),
        Claim(
            "excess_all",
            "More of the halves' agreement with all pairs",
            "beside the paper",
            "distance of the excess from the truth, best GAN minus FactorGAN, all "
            "pairs",
            above(0),
            OURS,
        ),
        Claim(
            "needs_pairs_few",
            "d_P learns the dependency, few pairs",
            "experiments, FactorGAN-no-cp",
            "d_dep, without d_P minus with it, few pairs",
            above(0),
            f"1.488 and 1.224, 50 pairs ({PAIRED})",
        ),
        Claim(
            "needs_pairs_all",
            "d_P learns the dependency, all pairs",
            "experiments, FactorGAN-no-cp",
            "d_dep, without d_P minus with it, all pairs",
            above(0),
            f"1.488 and 0.327 ({PAIRED})",
        ),
        Claim(
            "beats_plain_sum_parts",
            "Factorising beats adding marginals: parts from few pairs",
            "beside the paper",
            "Frechet distance of the halves, plain sum minus FactorGAN, few pairs",
            above(0),
            OURS,
        ),
        Claim(
            "beats_plain_sum_dependency",
            "Factorising beats adding marginals: dependency with all pairs",
            "beside the paper",
            "d_dep, plain sum minus FactorGAN, all pairs",
            above(0),
            OURS,
        ),
    ),
    overlap={"quick": 500 / 1297},
)
