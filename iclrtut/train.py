"""A plain training loop that survives a lost session and stops when it diverges."""

import hashlib
import io
import math
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm

from iclrtut import fingerprint
from iclrtut.errors import BadRequest, RunFailed
from iclrtut.files import write_atomic

Numbers = Mapping[str, float]


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
    scheduler: LRScheduler | None = None,
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
        scheduler: stepped after every step.
        limits: name -> the largest absolute value it may take ("loss" included).
        every: steps between checkpoints.

    Raises:
        Diverged: a number is not finite or beyond its limit.
        BadRequest: something asked for does not fit.
    """
    if steps < 1 or every < 1:
        raise BadRequest(f"steps={steps} and every={every} must both be 1 or more.")
    kept = _Checkpoint(loss_at, optimizer, steps, state, folder, name, scheduler)
    first, seconds, curves = kept.resume()
    began = time.perf_counter() - seconds
    try:
        bar = tqdm(range(first, steps), name, steps, initial=first, file=sys.stdout)
        for t in bar:
            if t % every == 0:
                draft = kept.capture(t, time.perf_counter() - began, curves)
            loss, watched = loss_at(t)
            numbers = _numbers(loss, watched, limits)
            for key, value in numbers.items():
                curves.setdefault(key, []).append(value)
            wrong = _beyond(numbers, limits)
            if wrong:
                raise kept.diverged(wrong, t, time.perf_counter() - began, curves)
            if t % every == 0:
                kept.keep(draft, t)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
            bar.set_postfix(loss=f"{numbers['loss']:.3g}", refresh=False)
        seconds = time.perf_counter() - began
        if not kept.weights_are_finite():
            raise kept.diverged("the weights are not finite", steps, seconds, curves)
    except BaseException:
        kept.restore()
        raise
    if first < steps:
        kept.keep(kept.capture(steps, seconds, curves), steps)
    return History(curves, seconds, first)


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


class _Checkpoint:
    """The state of a training: as bytes in memory, and the same bytes in a file."""

    def __init__(
        self,
        loss_at: Any,
        optimizer: Optimizer,
        steps: int,
        state: Mapping[str, Any],
        folder: Path | str | None,
        name: str,
        scheduler: LRScheduler | None,
    ):
        self.optimizer, self.steps, self.name = optimizer, steps, name
        self.parts = {f"state/{key}": part for key, part in state.items()}
        self.parts["optimizer"] = optimizer
        if scheduler is not None:
            self.parts["scheduler"] = scheduler
        self.file = Path(folder) / f"{name}.checkpoint" if folder else None
        self.code = self.origin = ""
        if self.file:
            code = fingerprint.of_code(loss_at, self.parts.values())
            self.code = f"{code} {steps} {torch.__version__}"
            self.origin = fingerprint.of_values(self.states())
        self.good, self.good_step = self.capture(0, 0.0, {}), 0
        self.warned = False

    def states(self) -> dict[str, Any]:
        """The state of every part, and of torch's global generators."""
        found: dict[str, Any] = {
            key: part.get_state()
            if isinstance(part, torch.Generator)
            else part.state_dict()
            for key, part in self.parts.items()
        }
        rng = [torch.get_rng_state()]
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            rng += torch.cuda.get_rng_state_all()
        return found | {"rng": rng}

    def capture(self, step: int, seconds: float, curves: Any) -> bytes:
        """Everything needed to go on at `step`."""
        told = {"code": self.code, "origin": self.origin, "states": self.states()}
        file = io.BytesIO()
        torch.save(told | {"step": step, "seconds": seconds, "curves": curves}, file)
        return file.getvalue()

    def keep(self, data: bytes, step: int) -> None:
        """Take a state as the last good one, and write it."""
        self.good, self.good_step = data, step
        try:
            if self.file:
                write_atomic(self.file, hashlib.sha256(data).digest() + data)
        except RunFailed as error:
            if not self.warned:
                print(f"{self.name}: training goes on without checkpoints, for {error}")
            self.warned = True

    def restore(self) -> dict[str, Any]:
        """Put the last good state back into the objects."""
        found = _loaded(self.good)
        for key, part in self.parts.items():
            if isinstance(part, torch.Generator):
                part.set_state(found["states"][key])
            else:
                part.load_state_dict(found["states"][key])
        cpu, *cuda = found["states"]["rng"]
        torch.set_rng_state(cpu)
        if cuda and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(cuda)
        return found

    def resume(self) -> tuple[int, float, dict[str, list[float]]]:
        """Go on from the file where it fits; the step, seconds and curves so far."""
        before = self.good
        data = self.read()
        try:
            found = self.fitting(data) if data else None
            if found:
                self.good, self.good_step = data[32:], found["step"]
                self.origin = found["origin"]
                self.restore()
                so_far = f"step {found['step']} of {self.steps}"
                print(f"{self.name}: goes on at {so_far}, from {self.file}.")
                return found["step"], found["seconds"], found["curves"]
        except Exception as error:
            self.good, self.good_step = before, 0
            self.restore()
            self.set_aside(error)
        return 0, 0.0, {}

    def read(self) -> bytes:
        """The file's bytes; none where there is no file."""
        try:
            return self.file.read_bytes() if self.file else b""
        except FileNotFoundError:
            return b""
        except OSError as error:
            print(
                f"{self.name}: {self.file} cannot be read ({error.strerror}), so "
                "training starts over."
            )
            return b""

    def fitting(self, data: bytes) -> dict[str, Any] | None:
        """What a file holds; None where it is of another training."""
        if hashlib.sha256(data[32:]).digest() != data[:32]:
            raise ValueError("it was cut short or changed")
        found = _loaded(data[32:])
        now = fingerprint.of_values(self.states())
        known = (found["origin"], fingerprint.of_values(found["states"]))
        if found["code"] == self.code and now in known:
            return found
        print(
            f"{self.name}: {self.file} is of other code, data, settings or weights, so "
            "training starts over."
        )
        return None

    def set_aside(self, error: Exception) -> None:
        """Keep a file that cannot be used under another name."""
        assert self.file
        bad = self.file.with_suffix(".bad")
        print(
            f"{self.name}: {self.file} is no whole checkpoint ({error}); it is now "
            f"{bad.name}, and training starts over."
        )
        try:
            self.file.replace(bad)
        except OSError:
            self.file.unlink(missing_ok=True)

    def diverged(self, wrong: str, step: int, seconds: float, curves: Any) -> Diverged:
        """The sentence about a number that left its limits."""
        rate = self.optimizer.param_groups[0]["lr"]
        sentence = (
            f"{self.name}: at step {step} {wrong}; the state of step {self.good_step} "
            f"is back: lower the learning rate ({float(rate):.2g} there), or change "
            "what drives that number."
        )
        return Diverged(sentence, History(curves, seconds, 0), step)

    def weights_are_finite(self) -> bool:
        """Whether every weight that the optimiser holds is a finite number."""
        groups = self.optimizer.param_groups
        return all(bool(p.isfinite().all()) for g in groups for p in g["params"])


def _loaded(data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(
        io.BytesIO(data), map_location="cpu", weights_only=True
    )
    return found
