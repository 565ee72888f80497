"""A plain training loop that survives a lost session and stops when it diverges."""

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm

from iclrtut.checkpoint import Checkpoint
from iclrtut.checks import CheckFailed, sign
from iclrtut.errors import BadRequest, RunFailed

Numbers = Mapping[str, float | Tensor]
Schedule = Callable[[int], float]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw first weights by a seed, and leave torch's global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def constant(t: int) -> float:
    """A learning rate that stays."""
    return 1.0


def linear(steps: int) -> Schedule:
    """A learning rate that falls linearly to 0 after this many steps."""
    return lambda t: 1 - t / steps


def cosine(steps: int) -> Schedule:
    """A learning rate that falls to 0 on half a cosine.

    Loshchilov and Hutter (2017), equation (5), without restarts.
    """
    return warmup_cosine(0, steps)


def warmup_cosine(warmup: int, steps: int) -> Schedule:
    """Linear warm-up over the first steps, then half a cosine down to 0."""

    def factor(t: int) -> float:
        if t < warmup:
            return (t + 1) / warmup
        return (1 + math.cos(math.pi * (t - warmup) / max(1, steps - warmup))) / 2

    return factor


class Loop(NamedTuple):
    """A training: what one step does, and all that it changes.

    Attributes:
        step: step t -> numbers by name, "loss" first, the same names each step. It
            draws, computes the loss and its gradient, and steps the optimizer. It draws
            from torch's global generators or from generators in `state` only.
        optimizer: holds the weights.
        state: all else that a step changes, the model first: objects with `state_dict`
            and `load_state_dict`, or torch generators, by name.
        schedule: step t -> what multiplies the learning rate (`linear`, `cosine`, ...);
            a list has one for each of the optimizer's parameter groups.
    """

    step: Callable[[int], Numbers]
    optimizer: Optimizer
    state: Mapping[str, Any]
    schedule: Schedule | list[Schedule] = constant

    def parts(self) -> dict[str, Any]:
        """What a checkpoint holds, by name."""
        parts = {f"state/{key}": part for key, part in self.state.items()}
        return parts | {"optimizer": self.optimizer}

    def weights(self) -> dict[str, Tensor]:
        """What the optimizer steps, in its order, by names like "model.0.bias".

        Raises:
            BadRequest: no module of the state has one, so no checkpoint would.
        """
        known = {
            id(p): f"{key}.{name}"
            for key, part in self.state.items()
            if isinstance(part, torch.nn.Module)
            for name, p in part.named_parameters()
        }
        weights = [p for group in self.optimizer.param_groups for p in group["params"]]
        if not {id(p) for p in weights} <= known.keys():
            raise BadRequest(
                "the optimizer steps weights that no module of the state has: add "
                'their module, such as {"model": model}.'
            )
        return {known[id(p)]: p for p in weights}

    def scheduler(self, step: int = 0) -> LambdaLR:
        """The schedule at work from a step on.

        Raises:
            BadRequest: there are not as many schedules as groups of parameters.
        """
        groups = len(self.optimizer.param_groups)
        if isinstance(self.schedule, list) and len(self.schedule) != groups:
            raise BadRequest(
                f"there are {len(self.schedule)} schedules for {groups} groups of "
                "parameters: give one for each, or a single one for all."
            )
        return LambdaLR(self.optimizer, self.schedule, step - 1)


class History(NamedTuple):
    """What a training left behind.

    Attributes:
        curves: "loss" and each watched quantity -> its value at every step.
        seconds: time spent training, before a resume too.
        resumed_at: the step at which this call went on; 0 when it began anew.
    """

    curves: dict[str, list[float]]
    seconds: float
    resumed_at: int


class Diverged(RunFailed):
    """A quantity left its limits; the last good state is back in the objects.

    Attributes:
        history: curves up to and with the step that diverged.
        step: the step that diverged.
    """

    def __init__(self, sentence: str, history: History, step: int):
        super().__init__(sentence)
        self.history, self.step = history, step


def fit(
    loop: Loop,
    steps: int,
    *,
    folder: Path | str | None,
    name: str,
    limits: Mapping[str, float] = {},
    every: int = 100,
) -> History:
    """Train for a number of steps; the same call after a kill goes on where it stood.

    On one device, in one version, it ends as a run that nobody disturbed, on the CPU to
    the last bit. A checkpoint of other code, data, settings or first weights is not
    used. Whatever stops the training, the objects are back in the last good state: one
    from which a step went well.

    Args:
        loop: what to do in each step.
        steps: how many steps to train in all.
        folder: where the checkpoint goes; None keeps none.
        name: names the checkpoint and the progress bar.
        limits: name -> the largest absolute value it may take ("loss" included).
        every: steps between checkpoints.

    Raises:
        Diverged: a number is not finite or beyond its limit.
        BadRequest: something asked for does not fit.
    """
    if steps < 1 or every < 1:
        raise BadRequest(f"steps={steps} and every={every} must both be 1 or more.")
    weights, code = loop.weights().values(), [loop.step, loop.schedule, steps]
    checkpoint = Checkpoint(loop.parts(), folder, name, code)
    first, seconds, curves = checkpoint.resume()
    if first == steps:
        return History(curves, seconds, first)
    scheduler = loop.scheduler(first)
    began = time.perf_counter() - seconds
    bar = tqdm(range(first, steps), name, steps, initial=first, file=sys.stdout)
    with checkpoint.restoring(), bar:
        for t in bar:
            if t % every == 0:
                draft = checkpoint.capture(t, time.perf_counter() - began, curves)
            numbers = _numbers(loop.step(t), limits)
            for key, value in numbers.items():
                curves.setdefault(key, []).append(value)
            if wrong := _beyond(numbers, limits):
                break
            if t % every == 0:
                checkpoint.keep(draft, t)
            scheduler.step()
            bar.set_postfix(_shown(numbers, limits), refresh=False)
        else:
            t, wrong = steps, _not_finite(weights)
        history = History(curves, time.perf_counter() - began, first)
        if wrong:
            raise _diverged(loop, checkpoint, history, t, wrong)
    checkpoint.keep(checkpoint.capture(steps, history.seconds, curves), steps)
    return history


def _diverged(
    loop: Loop, checkpoint: Checkpoint, history: History, step: int, wrong: str
) -> Diverged:
    rate = loop.optimizer.param_groups[0]["lr"]
    sentence = (
        f"{checkpoint.name}: at step {step} {wrong}; the state of step "
        f"{checkpoint.good_step} is back: lower the learning rate ({rate:.2g} there), "
        "or change what drives that number."
    )
    return Diverged(sentence, history, step)


def _shown(numbers: Mapping[str, float], limits: Mapping[str, float]) -> dict[str, str]:
    """What the bar shows: the loss, and all that has a limit."""
    return {key: f"{numbers[key]:.3g}" for key in ("loss", *limits)}


def _numbers(returned: Any, limits: Mapping[str, float]) -> dict[str, float]:
    """What a step returned, as numbers."""
    if not isinstance(returned, Mapping) or "loss" not in returned:
        raise BadRequest(
            f"the step returned {type(returned).__name__}: return its numbers by name, "
            'such as {"loss": loss}.'
        )
    numbers = {key: _number(key, value) for key, value in returned.items()}
    unknown = sorted(set(limits) - set(numbers))
    if unknown:
        raise BadRequest(
            f"limits name {', '.join(unknown)}, which is not watched: use "
            f"{', '.join(numbers)}."
        )
    return numbers


def _number(key: str, value: Any) -> float:
    if isinstance(value, Tensor):
        value = value.item() if value.numel() == 1 else None
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise BadRequest(
            f"the step returned a {key} that is no single number: return its mean, say."
        ) from error


def _beyond(numbers: Mapping[str, float], limits: Mapping[str, float]) -> str:
    for key, value in numbers.items():
        if not math.isfinite(value):
            return f"{key} is {value}"
        if abs(value) > limits.get(key, math.inf):
            return f"{key} is {value:.4g}, beyond its limit of {limits[key]:g}"
    return ""


def _not_finite(weights: Iterable[Tensor]) -> str:
    return "" if all(p.isfinite().all() for p in weights) else "a weight is not finite"


# Two loops that should be one


def same_steps(page: Loop, package: Loop, steps: int = 3) -> None:
    """Check that two loops take the same first steps, to the last bit of every weight.

    Weights are compared in the order of each optimizer, before the first step and after
    each. Afterwards both loops, and torch's global generators, are as they were.

    Args:
        page: the loop of the notebook, not yet trained.
        package: the same, of the package, with objects of its own.
        steps: how many.

    Raises:
        CheckFailed: a weight differs, and which, after which step; or none moves.
        BadRequest: a loop would be compared with itself, or nothing would.
    """
    if steps < 1:
        raise BadRequest(f"steps={steps} must be 1 or more.")
    names, others = page.weights(), package.weights()
    if {*map(id, names.values())} & {*map(id, others.values())}:
        raise BadRequest("both loops train the same weights: build each its own.")
    if len(names) != len(others):
        raise CheckFailed(
            f"✗ loop: {len(names)} tensors are trained on the page, {len(others)} in "
            "the package."
        )
    ours, theirs = _path(page, steps), _path(package, steps)
    for t, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        when = f"after step {t - 1}" if t else "before step 0: build both loops anew"
        for name, a, b in zip(names, one, other, strict=True):
            if differ := _difference(a, b):
                raise CheckFailed(f"✗ loop: {name} differs {when} ({differ}).")
    if all(map(torch.equal, ours[0], ours[-1])):
        raise CheckFailed(f"✗ loop: no weight moves in {steps} steps.")
    # How many weights there are depends on the profile; the line must not.
    same = f"page and package take the same {steps} steps, to the last bit"
    print(f"{sign('✓')} loop: {same}")


def _path(loop: Loop, steps: int) -> list[list[Tensor]]:
    """The weights before the first step and after each; then all is as it was."""
    before, weights = Checkpoint(loop.parts(), None, "loop", []), loop.weights()
    path = [[w.detach().cpu().clone() for w in weights.values()]]
    try:
        scheduler = loop.scheduler()
        for t in range(steps):
            loop.step(t)
            scheduler.step()
            path.append([w.detach().cpu().clone() for w in weights.values()])
    finally:
        before.restore()
    return path


def _difference(page: Tensor, package: Tensor) -> str:
    """What differs between two values of one weight; empty where nothing does."""
    kinds = [f"{w.dtype} {tuple(w.shape)}" for w in (page, package)]
    if kinds[0] != kinds[1]:
        return "{} on the page, {} in the package".format(*kinds)
    unequal = (page != package).flatten()
    if not unequal.any():
        return ""
    pair = [w.flatten()[unequal][0].item() for w in (page, package)]
    return "{:.9g} on the page, {:.9g} in the package".format(*pair)
