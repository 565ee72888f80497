"""Warps that are known in closed form: a regression, a valley and mountains.

Numbers in brackets are equations of the chapter. Sizes come from the settings of the
run, which `iclrtut.start` returns.
"""

from collections.abc import Callable, Mapping
from math import log
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn

from iclrtut.chapters.warped_gradients import MOST, Settings, landscapes
from iclrtut.chapters.warped_gradients.learners import descend
from iclrtut.chapters.warped_gradients.method import best_preconditioner
from iclrtut.claims import Measurements
from iclrtut.run import Run
from iclrtut.train import Loop, cosine, fit

# The regression of (14): inputs N(0, A), predictions theta' S x


class Regression(nn.Module):
    """A covariance A of inputs, its root, and a linear warp S, at first I."""

    def __init__(self, dimensions: int, condition: float, draws: Generator) -> None:
        super().__init__()
        square = torch.randn(dimensions, dimensions, generator=draws)
        Q: Tensor = torch.linalg.qr(square).Q
        values = torch.logspace(-log(condition, 10), 0, dimensions)
        self.A, self.root = Q @ values.diag() @ Q.T, Q @ values.sqrt().diag() @ Q.T
        self.inverse_root = Q @ values.rsqrt().diag() @ Q.T
        self.S = nn.Parameter(torch.eye(dimensions))

    def tasks(self, n: int, draws: Generator) -> Tensor:
        """True weights whose whitened errors from 0 have covariance I, [n, d]."""
        return torch.randn(n, len(self.A), generator=draws) @ self.inverse_root

    def inputs(self, n: int, examples: int, draws: Generator) -> Tensor:
        """Fresh inputs, [n, examples, d]."""
        return torch.randn(n, examples, len(self.A), generator=draws) @ self.root


def residual(gamma: Tensor, truth: Tensor, x: Tensor) -> Tensor:
    """Errors of predictions gamma' x, [n, examples]."""
    return torch.einsum("nd,nmd->nm", gamma - truth, x)


def pushed(gamma: Tensor, truth: Tensor, x: Tensor) -> Tensor:
    """The gradient of half the mean squared error with respect to gamma, [n, d]."""
    return torch.einsum("nm,nmd->nd", residual(gamma, truth, x), x) / x.shape[1]


RATE = 0.5  # alpha of the regression


def regression_loop(run: Run, made: Regression, stop: bool = False) -> Loop:
    """(11), or (12), over all iterates of plain descent in theta, gamma = S' theta."""
    s, draws = run.settings, run.generator("regressions", "cpu")
    adam = torch.optim.Adam([made.S], lr=0.1)

    def step(t: int) -> dict[str, Tensor]:
        n, S = s.regressions, made.S.detach()
        truth = made.tasks(n, draws)
        theta, path = torch.zeros_like(truth), []
        for _ in range(s.regression_inner):
            path.append(theta)
            x = made.inputs(n, s.examples, draws)
            theta = theta - RATE * pushed(theta @ S, truth, x) @ S.T
        theta, truth = torch.cat(path), truth.repeat(len(path), 1)
        near, far = (made.inputs(len(theta), s.examples, draws) for _ in range(2))
        inside = S if stop else made.S
        gradient = pushed(theta @ inside, truth, near) @ inside.T
        ahead = (theta - RATE * gradient) @ made.S
        return descend(adam, residual(ahead, truth, far).square().mean() / 2)

    schedule = cosine(s.regression_steps)
    return Loop(step, adam, {"model": made, "draws": draws}, schedule)


def train_regression(run: Run, stop: bool = False) -> Regression:
    """A trained warp of the regression, the same task whether by (11) or by (12)."""
    s: Settings = run.settings
    made = Regression(s.dimensions, s.condition, run.generator("covariance", "cpu"))
    loop, name = regression_loop(run, made, stop), f"regression, stop {stop}"
    fit(loop, s.regression_steps, folder=run.folder, name=name, every=200)
    return made


def remaining(run: Run, made: Regression, P: Tensor) -> float:
    """The loss left after all steps with one preconditioner, on fresh tasks, (5)."""
    s, draws = run.settings, run.generator("regression test", "cpu")
    truth = made.tasks(s.judged, draws)
    gamma = torch.zeros_like(truth)
    for _ in range(s.regression_inner):
        x = made.inputs(s.judged, s.examples, draws)
        gamma = gamma - pushed(gamma, truth, x) @ P
    return float(((gamma - truth) @ made.root).square().sum(1).mean() / 2)


def measure_preconditioner(run: Run, made: Regression) -> Measurements:
    """How round the ground is that the warp makes, and what is left on it."""
    s: Settings = run.settings
    P = RATE * made.S.detach().T @ made.S.detach()
    C = torch.eye(s.dimensions)
    plain = [remaining(run, made, c * RATE * C) for c in (0.5, 1.0, 2.0, 3.0)]
    best = best_preconditioner(C, s.examples)
    known = made.inverse_root @ best @ made.inverse_root
    condition = float(torch.linalg.cond(made.root @ P @ made.root))
    value = log(condition) / log(float(torch.linalg.cond(made.A)))
    numbers = {"value": value, "condition": condition, "plain": min(plain)}
    left = {"warp": remaining(run, made, P), "known": remaining(run, made, known)}
    return {"preconditioner": numbers | left}


# Landscapes: gamma = Omega(theta)


class Affine(nn.Module):
    """A linear warp of the plane, gamma = theta L, at first the identity."""

    def __init__(self) -> None:
        super().__init__()
        self.L = nn.Parameter(torch.eye(2))

    def forward(self, points: Tensor, strength: float = 1.0) -> Tensor:
        """gamma of theta."""
        return points @ self.L

    def inverse(self, points: Tensor, strength: float = 1.0) -> Tensor:
        """theta of gamma."""
        return points @ self.L.inverse()


class Ground(NamedTuple):
    """A family of landscapes, and how it is descended.

    Attributes:
        losses: of points and tasks.
        sample: n tasks by a generator.
        box: of the starts, two corners.
        rate, inner: alpha and K.
        steps: meta-steps.
    """

    losses: Callable[[Tensor, Any], Tensor]
    sample: Callable[[int, Generator], Any]
    box: tuple[tuple[float, float], tuple[float, float]]
    rate: float
    inner: int
    steps: int

    def starts(self, n: int, m: int, draws: Generator) -> Tensor:
        """Points of W, [n, m, 2]."""
        low, high = map(torch.tensor, self.box)
        return low + (high - low) * torch.rand(n, m, 2, generator=draws)


def ground(run: Run, name: str) -> Ground:
    """The valley or the mountains, at the run's sizes."""
    s: Settings = run.settings
    box, valley = landscapes.STARTS[name], (0.02, s.valley_inner, s.valley_steps)
    if name == "valley":
        return Ground(landscapes.valley, landscapes.sample_valley, box, *valley)
    sizes = 0.1, s.mountain_inner, s.mountain_steps
    return Ground(landscapes.mountains, landscapes.sample_mountains, box, *sizes)


def warped_slope(
    field: Ground, omega: Any, theta: Tensor, tasks: Any, graph: bool = False
) -> Tensor:
    """J' grad L, the gradient of the loss with respect to theta."""
    total = field.losses(omega(theta), tasks).sum()
    return torch.autograd.grad(total, theta, create_graph=graph)[0]


def ground_loop(run: Run, name: str, omega: Any, objective: str) -> Loop:
    """Steps of phi down (10), with gamma held, or (11), with theta held."""
    s, field = run.settings, ground(run, name)
    draws = run.generator(f"{name} tasks", "cpu")
    adam = torch.optim.Adam(omega.parameters(), lr=0.01)

    def step(t: int) -> dict[str, Tensor]:
        tasks = field.sample(s.landscapes, draws)
        gamma, path = field.starts(s.landscapes, s.starts, draws), []
        theta = omega.inverse(gamma).detach()
        for _ in range(field.inner):
            path.append(theta)
            push = warped_slope(field, omega, theta.requires_grad_(), tasks)
            theta = (theta - field.rate * push).detach()
        some = torch.randperm(len(path), generator=draws)[: s.kept].tolist()
        theta = torch.cat([path[k].detach() for k in some], 1).requires_grad_()
        if objective == "10":
            theta = omega.inverse(omega(theta).detach())
        gradient = warped_slope(field, omega, theta, tasks, graph=True)
        losses = field.losses(omega(theta - field.rate * gradient), tasks)
        return descend(adam, losses[losses.isfinite()].mean())

    return Loop(step, adam, {"model": omega, "draws": draws}, cosine(field.steps))


def train_ground(run: Run, name: str, objective: str, omega: Any = None) -> Any:
    """A meta-learned warp of a landscape; None for two couplings."""
    seed = run.generator("coupling", "cpu").initial_seed()
    omega = omega or landscapes.Coupling(seed=seed)
    loop, steps = ground_loop(run, name, omega, objective), ground(run, name).steps
    title = f"{name} {type(omega).__name__} {objective}"
    fit(loop, steps, folder=run.folder, name=title, every=100)
    return omega


MOMENTUM = 0.9
RATES = (0.5, 1.0, 2.0, 5.0)  # times alpha, for plain descent and momentum


class Trial(NamedTuple):
    """Test tasks of a family and one start each, in W, [n, 1, 2]."""

    field: Ground
    tasks: Any
    gamma: Tensor


def trial(run: Run, name: str, use: str = "test") -> Trial:
    """Fresh tasks; `use` names the draws."""
    n, field = run.settings.judged, ground(run, name)
    draws = run.generator(f"{name} {use}", "cpu")
    return Trial(field, field.sample(n, draws), field.starts(n, 1, draws))


def roll(
    test: Trial, omega: Any, rate: float, steps: int, momentum: float = 0.0
) -> Tensor:
    """Losses on the way from the trial's points of W, [n, steps + 1]."""
    theta, speed, losses = omega.inverse(test.gamma), torch.zeros_like(test.gamma), []
    for _ in range(steps + 1):
        theta = theta.detach().requires_grad_()
        losses.append(test.field.losses(omega(theta), test.tasks).detach()[:, 0])
        push = warped_slope(test.field, omega, theta, test.tasks)
        speed = momentum * speed + push
        theta = theta - rate * speed
    return torch.stack(losses, 1).nan_to_num(MOST, MOST).clamp(max=MOST)


def plain(run: Run, name: str, steps: int, momentum: float = 0.0) -> Tensor:
    """Descent without a warp, at the rate that is best on validation tasks.

    Args:
        run, name: which landscape.
        steps: how many.
        momentum: 0 for none.
    """
    identity, rate = Affine(), ground(run, name).rate
    few = trial(run, name, "validation")

    def left(multiple: float) -> float:
        return float(roll(few, identity, multiple * rate, 10, momentum)[:, -1].mean())

    best = min(RATES, key=left) * rate
    return roll(trial(run, name), identity, best, steps, momentum)


def measure_valley(curves: Mapping[str, Tensor]) -> Measurements:
    """Losses after ten steps, and the share of starts below 0.001 after all."""
    at = {name: float(losses[:, 10].mean()) for name, losses in curves.items()}
    shares = {name: (losses[:, -1] < 1e-3).float() for name, losses in curves.items()}
    solved = {f"solved_{name}": float(each.mean()) for name, each in shares.items()}
    value = log(at["linear"] / at["warp"])
    return {"nonlinear_valley": {"value": value, **at, **solved}}


def score(test: Trial, losses: Tensor) -> Tensor:
    """(mean - end) / (mean - minimum) of each task, the two over its square, [n]."""
    line = torch.linspace(-3, 3, 61)
    grid = torch.cartesian_prod(line, line).expand(len(losses), -1, -1)
    over = test.field.losses(grid, test.tasks)
    mean, least = over.mean(1), over.min(1).values
    steep = mean - least > 1e-3  # else the task is flat, and no descent can score
    return ((mean - losses[:, -1]) / (mean - least))[steep]


def measure_mountains(run: Run, omegas: Mapping[str, Any]) -> Measurements:
    """Scores of warps trained by (10) and (11), and of plain descent, by start.

    Args:
        run: gives the sizes.
        omegas: "10" and "11".
    """
    test, steps = trial(run, "mountains"), run.settings.mountain_inner
    identity, rate = Affine(), test.field.rate
    inside = test._replace(gamma=omegas["11"](test.gamma).detach())

    def ends(where: Trial, omega: Any, momentum: float = 0.0) -> float:
        return float(score(where, roll(where, omega, rate, steps, momentum)).mean())

    at = {"plain": ends(test, identity), "momentum": ends(test, identity, MOMENTUM)}
    at |= {f"warp_{name}": ends(test, omega) for name, omega in omegas.items()}
    at |= {"warp_11_from_P": ends(inside, omegas["11"])}
    at |= {"plain_from_P": ends(inside, identity)}
    return {"geometry_mountains": {"value": at["warp_10"] - at["plain"], **at}}
