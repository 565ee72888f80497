"""Warped gradient descent: what the chapter declares."""

from typing import NamedTuple

from iclrtut.claims import OURS, Chapter, Claim, above, below

SECOND_HAND = "from reading notes and two reproductions, not checked in the paper"


class Arm(NamedTuple):
    """One way to meta-learn on sinusoids.

    Attributes:
        name: in tables and figures.
        rule: "none", "maml", "first_order", "meta_sgd", "reptile", "leap", "warp" (11)
            or "stop" (12).
        warp: "none", "linear" or "tanh".
        all_layers: whether a task adapts the warp layers, too.
        inner: steps of a task in training; 0 trains all tasks together.
        steps: meta-steps of `quick`, about as many seconds for every arm.
        rates: the outer rate that was chosen, then those that lost; of Adam, of
            Reptile's step or of Leap's.
    """

    name: str
    rule: str
    warp: str
    all_layers: bool
    inner: int
    steps: int
    rates: tuple[float, ...]


# Rates of Adam, of Reptile and of Leap; seed 0 chose the first of each row.
TENTH, THIRD = (1e-2, 1e-3, 3e-3, 3e-2), (3e-2, 1e-3, 3e-3, 1e-2, 1e-1)
PULL = (1.5, 0.1, 0.3, 1.0, 2.0)
ARMS = {
    "scratch": Arm("no training", "none", "none", False, 0, 0, ()),
    "multi": Arm("all tasks together", "maml", "none", False, 0, 2500, THIRD),
    "maml": Arm("MAML", "maml", "none", False, 5, 360, TENTH),
    "first": Arm("first-order MAML", "first_order", "none", False, 5, 700, TENTH),
    "meta_sgd": Arm(
        "Meta-SGD", "meta_sgd", "none", False, 5, 360, (3e-3, 3e-4, 1e-3, 1e-2)
    ),
    "reptile": Arm("Reptile", "reptile", "none", False, 50, 90, PULL),
    "leap": Arm("Leap", "leap", "none", False, 50, 60, THIRD),
    "all": Arm("all layers adapted", "reptile", "tanh", True, 50, 28, PULL),
    "joint": Arm(
        "joint, then frozen", "maml", "tanh", False, 0, 1200, (3e-3, 1e-3, 1e-2, 3e-2)
    ),
    "linear": Arm("linear warp", "warp", "linear", False, 50, 30, THIRD),
    "warp": Arm("WarpGrad", "warp", "tanh", False, 50, 18, TENTH),
    "stop": Arm("WarpGrad, (12)", "stop", "tanh", False, 50, 24, THIRD),
    "warp_maml": Arm("Warp-MAML", "maml", "tanh", False, 5, 160, TENTH),
}
RIVALS = tuple(ARMS)[:9]  # without a meta-learned warp


# claim -> the arms whose losses it compares, by ln(first / second)
PAIRS = {
    "nonlinear": ("linear", "warp"),
    "objective": ("warp_maml", "warp"),
    "geometry_sinusoids": ("folded", "linear"),
    "approx": ("stop", "warp"),
}
MOST = 100.0  # loss: what diverged counts as this


class Settings(NamedTuple):
    """Sizes of one profile; the defaults are `quick`."""

    # Regression
    dimensions: int = 8
    condition: float = 30.0
    examples: int = 32  # a gradient
    regressions: int = 16  # tasks of a meta-step
    regression_inner: int = 20
    regression_steps: int = 250
    # Landscapes
    landscapes: int = 16  # tasks of a meta-step
    starts: int = 4  # a task
    kept: int = 10  # iterates of each start, drawn
    valley_inner: int = 30
    valley_steps: int = 120
    mountain_inner: int = 100
    mountain_steps: int = 25
    judged: int = 600  # tasks
    # Sinusoids
    width: int = 40
    tasks: int = 20  # of a meta-step
    points: int = 20  # of a task, for each of its two batches
    rate: float = 0.02  # alpha
    clip: float = 10.0  # of a task's gradient
    phi_steps: int = 10  # a meta-step
    iterates: int = 2  # a step of phi, for each task
    pull: float = 0.3  # of Reptile, where warps are learned
    budget: float = 1.0  # of the arms' meta-steps
    validation: int = 15  # tasks that choose the test rate
    test: int = 80  # tasks
    test_steps: int = 100
    memory: tuple[int, ...] = (1, 5, 20, 50, 100)  # K
    # Characters, `full` alone
    characters: int = 0  # meta-steps
    ways: int = 20
    filters: int = 64
    lengths: tuple[int, ...] = (5, 25, 100)  # K
    checkpoint_every: int = 50  # meta-steps


CHAPTER = Chapter(
    slug="warped_gradients",
    title="Learning how to descend",
    paper="Meta-Learning with Warped Gradient Descent",
    authors="Flennerhag, Rusu, Pascanu, Visin, Yin, Hadsell",
    url="https://arxiv.org/abs/1909.00025",
    idea="MAML learns where to start; a warp learns the ground that every task "
    "descends on.",
    difficulty="steep",
    prerequisites="gradients, Jacobians and Hessians, eigenvalues of a symmetric "
    "matrix, stochastic gradient descent, a first network in PyTorch",
    settings={
        "smoke": Settings(
            dimensions=3,
            examples=16,
            regressions=4,
            regression_inner=4,
            regression_steps=5,
            landscapes=4,
            starts=2,
            valley_inner=4,
            valley_steps=4,
            mountain_inner=8,
            mountain_steps=3,
            judged=40,
            width=8,
            tasks=4,
            phi_steps=2,
            budget=0.001,
            validation=4,
            test=10,
            test_steps=6,
            memory=(1, 5, 10),
        ),
        "quick": Settings(),
        "full": Settings(
            budget=4.0,
            test=1000,
            characters=250,
            checkpoint_every=25,
        ),
    },
    claims=(
        Claim(
            "memory_maml",
            "What MAML keeps for its gradient grows with the number of steps",
            "section 1",
            "log-log slope of the bytes that autograd saves for one meta-gradient "
            "against K, from K = 5 on",
            above(0.9),
            "said in words, without a number",
            kind="count",
        ),
        Claim(
            "memory_warp",
            "What WarpGrad keeps for its gradient does not",
            "section 1",
            "bytes that autograd saves for one step of phi at the largest K over those "
            "at K = 1",
            below(1.05),
            "said in words, without a number",
            kind="count",
        ),
        Claim(
            "preconditioner",
            "The meta-objective finds the preconditioner that is known to be best",
            "beside the paper",
            "log condition number of A^(1/2) P A^(1/2) over that of A",
            below(0.5),
            OURS,
        ),
        Claim(
            "nonlinear",
            "Non-linear warps beat linear ones",
            "section 4.1, on Omniglot",
            "ln of the loss with a linear warp over that with a non-linear one, "
            "sinusoids, 100 steps",
            above(0),
            "accuracy 88.0 % (two non-linear layers a block) and 84.4 % on Omniglot, "
            + SECOND_HAND,
        ),
        Claim(
            "nonlinear_valley",
            "They do so on the curved valley",
            "beside the paper",
            "ln of the mean loss with the best linear warp over that with a non-linear "
            "one, 10 steps",
            above(0),
            OURS,
        ),
        Claim(
            "multi_shot",
            "Best of all after a hundred steps",
            "section 4.1, figure 3",
            "ln of the lowest loss of all arms without a meta-learned warp over "
            "WarpGrad's, sinusoids, 100 steps",
            above(0),
            "accuracy on Omniglot 83.6 %; fine-tuning 76.4, Leap 75.5, Reptile 70.8, "
            "MAML 56.7, " + SECOND_HAND,
        ),
        Claim(
            "objective",
            "The objective (11) beats backpropagation through five steps",
            "section 4",
            "ln of the loss of Warp-MAML over WarpGrad's, same warp, sinusoids, 100 "
            "steps",
            above(0),
            "no number, since the paper has none for the same warp",
        ),
        Claim(
            "geometry_mountains",
            "The gain on mountains is the ground and not the start",
            "appendix D, figure 7",
            "score of warped descent minus that of plain descent from the same point "
            "of W",
            above(0),
            "curves only, from which no number was read",
        ),
        Claim(
            "geometry_sinusoids",
            "The gain of a linear warp is the ground and not the function",
            "section 3.3",
            "ln of the loss of the linear warp multiplied into the weights, at its own "
            "rate, over that of the linear warp as it is, 100 steps",
            above(0),
            "curves only, from which no number was read",
        ),
        Claim(
            "approx",
            "To stop the gradient through the step costs little",
            "equation 12 and appendix",
            "ln of the loss with (12) over that with (11), sinusoids, 100 steps",
            below(0.262),
            "accuracy on Omniglot 83.1 % with (12), 84.4 % with (11), " + SECOND_HAND,
        ),
    ),
)
