"""A plain training loop that survives a lost session and stops when it diverges."""

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm

from iclrtut.checkpoint import Checkpoint
from iclrtut.errors import BadRequest, RunFailed

Numbers = Mapping[str, float]
Schedule = Callable[[int], float]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw first weights by a seed, and leave torch's global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


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
    loss_at: Callable[[int], tuple[Tensor, Numbers]],
    optimizer: Optimizer,
    steps: int,
    *,
    state: Mapping[str, Any],
    folder: Path | str | None,
    name: str,
    schedule: Schedule | list[Schedule] | None = None,
    limits: Mapping[str, float] = {},
    every: int = 100,
) -> History:
    """Train for a number of steps; the same call after a kill goes on where it stood.

    On one device, in one version, it ends as a run that nobody disturbed, on the CPU to
    the last bit. A checkpoint of other code, data, settings or first weights is not
    used. Whatever stops the training, the objects are back in the last good state: one
    from which a step went well.

    Args:
        loss_at: step t -> (scalar loss, watched numbers: the same names each step). It
            draws from torch's global generators or from generators in `state` only.
        optimizer: holds the weights.
        steps: how many steps to train in all.
        state: all else that training changes, the model first: objects with
            `state_dict` and `load_state_dict`, or torch generators, by name.
        folder: where the checkpoint goes; None keeps none.
        name: names the checkpoint and the progress bar.
        schedule: step t -> what multiplies the learning rate (`linear`, `cosine`, ...);
            a list has one for each of the optimizer's parameter groups.
        limits: name -> the largest absolute value it may take ("loss" included).
        every: steps between checkpoints.

    Raises:
        Diverged: a number is not finite or beyond its limit.
        BadRequest: something asked for does not fit.
    """
    if steps < 1 or every < 1:
        raise BadRequest(f"steps={steps} and every={every} must both be 1 or more.")
    parts = {f"state/{key}": part for key, part in state.items()}
    parts["optimizer"] = optimizer
    checkpoint = Checkpoint(parts, folder, name, [loss_at, schedule, steps])
    first, seconds, curves = checkpoint.resume()
    if first == steps:
        return History(curves, seconds, first)
    scheduler = _scheduler(optimizer, schedule, first)
    began = time.perf_counter() - seconds
    bar = tqdm(range(first, steps), name, steps, initial=first, file=sys.stdout)
    try:
        for t in bar:
            if t % every == 0:
                draft = checkpoint.capture(t, time.perf_counter() - began, curves)
            loss, watched = loss_at(t)
            numbers = _numbers(loss, watched, limits)
            for key, value in numbers.items():
                curves.setdefault(key, []).append(value)
            if wrong := _beyond(numbers, limits):
                break
            if t % every == 0:
                checkpoint.keep(draft, t)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if scheduler:
                scheduler.step()
            bar.set_postfix(_shown(numbers, limits), refresh=False)
        else:
            t, wrong = steps, _not_finite(optimizer)
        history = History(curves, time.perf_counter() - began, first)
        if wrong:
            raise Diverged(
                f"{name}: at step {t} {wrong}; the state of step "
                f"{checkpoint.good_step} is back: lower the learning rate "
                f"({optimizer.param_groups[0]['lr']:.2g} there), or change what drives "
                "that number.",
                history,
                t,
            )
    except BaseException:
        checkpoint.restore()
        raise
    finally:
        bar.close()
    checkpoint.keep(checkpoint.capture(steps, history.seconds, curves), steps)
    return history


def _scheduler(
    optimizer: Optimizer, schedule: Schedule | list[Schedule] | None, step: int
) -> LambdaLR | None:
    if schedule is None:
        return None
    groups = len(optimizer.param_groups)
    if isinstance(schedule, list) and len(schedule) != groups:
        raise BadRequest(
            f"there are {len(schedule)} schedules for {groups} groups of parameters: "
            "give one for each, or a single one for all."
        )
    return LambdaLR(optimizer, schedule, step - 1)


def _shown(numbers: Numbers, limits: Numbers) -> dict[str, str]:
    """What the bar shows: the loss, and all that has a limit."""
    return {key: f"{numbers[key]:.3g}" for key in ("loss", *limits)}


def _numbers(loss: Tensor, watched: Numbers, limits: Numbers) -> dict[str, float]:
    if loss.numel() != 1:
        raise BadRequest(
            f"the loss has shape {tuple(loss.shape)}: return one number, such as its "
            "mean."
        )
    numbers = {"loss": loss.item(), **{k: float(v) for k, v in watched.items()}}
    unknown = sorted(set(limits) - set(numbers))
    if unknown:
        raise BadRequest(
            f"limits name {', '.join(unknown)}, which is not watched: use "
            f"{', '.join(numbers)}."
        )
    return numbers


def _beyond(numbers: Numbers, limits: Numbers) -> str:
    for key, value in numbers.items():
        if not math.isfinite(value):
            return f"{key} is {value}"
        if abs(value) > limits.get(key, math.inf):
            return f"{key} is {value:.4g}, beyond its limit of {limits[key]:g}"
    return ""


def _not_finite(optimizer: Optimizer) -> str:
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    return "" if all(p.isfinite().all() for p in weights) else "a weight is not finite"
