"""A network that learns to find causes: what the chapter declares."""

from typing import NamedTuple

from iclrtut.claims import OURS, Chapter, Claim, above, below

ABSTRACT = "no number, only words in the abstract; its figures could not be read"


class Settings(NamedTuple):
    """Sizes of one profile; the defaults are `quick`."""

    nodes: int = 3
    steps: int = 20  # of an episode
    width: int = 64  # of the networks that read step by step
    rival_width: int = 96  # of the one that reads sums
    batch: int = 64  # episodes
    learning_rate: float = 1.2e-2
    warmup: int = 50
    clip: float = 1.0  # of the gradient's length
    belief_steps: int = 2000  # of training, softmax over graphs
    edge_steps: int = 2000  # edge-wise, twice
    outcome_steps: int = 2000
    probe_steps: int = 800  # of each probe
    sums_steps: int = 2000
    longer_steps: int = 150  # of training on, with episodes of another kind or not
    held_out: int = 5  # graphs
    components: int = 6  # of the mixture that predicts outcomes
    test: int = 2000  # episodes
    long: int = 80  # steps of the longer episodes
    long_test: int = 1000  # episodes
    shifted: int = 1000  # episodes of each shift
    chosen: int = 300  # episodes in which somebody chooses the target
    choices: int = 10  # steps of these
    draws: int = 48  # outcomes a node, for the gain
    checkpoint_every: int = 200  # steps


SHIFTS = {
    "laplace": ("Laplace noise", {"noise": "laplace"}),
    "uniform": ("uniform noise", {"noise": "uniform"}),
    "t3": ("noise of a t distribution with 3 degrees", {"noise": "t3"}),
    "tanh": ("effects that saturate, 2 tanh z", {"mechanism": "tanh"}),
    "abs": ("effects without sign, |z|", {"mechanism": "abs"}),
    "square": ("effects that curve, z²/3", {"mechanism": "square"}),
}
ARMS = {"random": "at random", "rotating": "in turn"}


CHAPTER = Chapter(
    slug="causal_induction",
    title="A network that learns to find causes",
    paper="Neural Causal Induction from Interventions",
    authors="Ke, Wang, Mitrovic, Szummer, Rezende",
    url="https://arxiv.org/abs/2008.09301",
    idea="A network reads interventions one by one and says which causes which; "
    "beside it stands Bayes' own answer.",
    difficulty="middling",
    prerequisites="conditional probability, Bayes' rule, the normal distribution, "
    "softmax and cross-entropy, a first network in PyTorch",
    settings={
        "smoke": Settings(
            steps=6,
            width=8,
            rival_width=8,
            batch=8,
            warmup=2,
            belief_steps=6,
            edge_steps=4,
            outcome_steps=4,
            probe_steps=4,
            sums_steps=4,
            longer_steps=4,
            test=120,
            long=12,
            long_test=60,
            shifted=60,
            chosen=20,
            choices=3,
            draws=8,
        ),
        "quick": Settings(),
        "full": Settings(
            nodes=4,
            width=256,
            rival_width=384,
            batch=256,
            learning_rate=2e-3,
            warmup=200,
            belief_steps=20_000,
            edge_steps=20_000,
            outcome_steps=20_000,
            probe_steps=5_000,
            sums_steps=20_000,
            longer_steps=1000,
            held_out=54,
            test=4000,
            chosen=500,
            checkpoint_every=1000,
        ),
    },
    claims=(
        Claim(
            "informed",
            "A network takes in what the data say about the graph",
            "abstract",
            "1 - KL(p, q) / (log of the number of graphs - H(p)) at the last step",
            above(0.75),
            ABSTRACT,
        ),
        Claim(
            "calibrated",
            "The probabilities of arrows mean what they say",
            "beside the paper",
            "expected calibration error of the probability of an arrow at the last "
            "step, the network's minus that of the exact posterior",
            below(0.02),
            OURS,
        ),
        Claim(
            "outcome_belief",
            "To predict outcomes is enough to know the graph",
            "abstract",
            "KL(p, q) of a probe on the frozen outcome predictor minus that of the "
            "network trained on graphs, nats",
            below(0.2),
            ABSTRACT,
        ),
        Claim(
            "outcome_learnt",
            "A probe reads the graph out of what was learnt, not out of any memory",
            "beside the paper",
            "KL(p, q) of the same probe on a GRU with random weights minus that on the "
            "outcome predictor, nats",
            above(1),
            OURS,
        ),
        Claim(
            "unseen_graphs",
            "Recognises graphs that training never showed",
            "abstract",
            "cross-entropy of all edges on held-out graphs, trained without them minus "
            "trained with them, nats",
            below(0.3),
            ABSTRACT,
        ),
        Claim(
            "longer",
            "Comes no further from exact in longer episodes than those of training",
            "beside the paper",
            "KL(p, q) after four times as many steps as in training minus KL(p, q) at "
            "the end of training's, nats",
            below(0.05),
            OURS,
        ),
        Claim(
            "longer_taught",
            "Long episodes in training bring it closer there than short ones",
            "beside the paper",
            "KL(p, q) after four times as many steps, trained on with short episodes "
            "minus trained on with long ones and as many answers, nats",
            above(0),
            OURS,
        ),
        *(
            Claim(
                f"shift_{name}",
                f"Beats a uniform guess under {what}",
                "beside the paper",
                "negative log-likelihood of the graph at the last step over that of a "
                "uniform guess",
                below(1),
                OURS,
            )
            for name, (what, _) in SHIFTS.items()
        ),
        Claim(
            "tanh_taught",
            "Training in worlds that saturate helps there",
            "beside the paper",
            "negative log-likelihood of the graph under 2 tanh z, trained on in linear "
            "worlds minus trained on in these, nats",
            above(0),
            OURS,
        ),
        *(
            Claim(
                f"active_{name}",
                f"Choosing the target by its expected gain beats targets {what}",
                "beside the paper",
                "entropy of the exact posterior after the last choice, with targets "
                f"{what} minus with chosen ones, nats",
                above(0),
                OURS,
            )
            for name, what in ARMS.items()
        ),
    ),
)
