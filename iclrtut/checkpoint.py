"""The state of a training, kept in memory and in a file that is always whole."""

import hashlib
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from iclrtut import fingerprint
from iclrtut.errors import BadRequest, RunFailed
from iclrtut.files import write_atomic


class Checkpoint:
    """The state of a training: the last good one, and the file that holds it.

    The file is the SHA-256 of the rest, then what `torch.save` writes. It fits a
    training of the same code, steps and version whose state is the one that the file's
    training began from, or the very one in the file.
    """

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
        self.steps, self.name, self.warned = steps, name, False
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
        _loaded(self.good)

    def states(self) -> dict[str, Any]:
        """The state of every part, and of torch's global generators."""
        found: dict[str, Any] = {}
        for key, part in self.parts.items():
            if isinstance(part, torch.Generator):
                found[key] = part.get_state()
            elif hasattr(part, "state_dict"):
                found[key] = part.state_dict()
            else:
                raise BadRequest(
                    f"{key} is a {type(part).__name__}, which has no state_dict: give "
                    "a module, an object with state_dict and load_state_dict, or a "
                    "torch generator."
                )
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
            found = None if data is None else self.fitting(data)
            if data and found:
                self.good, self.good_step = data[32:], found["step"]
                self.origin = found["origin"]
                self.restore()
                done = f"{found['step']} of {self.steps} steps are done"
                print(f"{self.name}: {done}, from {self.file}.")
                return found["step"], found["seconds"], found["curves"]
        except Exception as error:
            self.good, self.good_step = before, 0
            self.restore()
            self.set_aside(error)
        return 0, 0.0, {}

    def read(self) -> bytes | None:
        """The file's bytes, where there is a file."""
        try:
            return self.file.read_bytes() if self.file else None
        except FileNotFoundError:
            return None
        except OSError as error:
            print(
                f"{self.name}: {self.file} cannot be read ({error.strerror}), so "
                "training starts over."
            )
            return None

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


def _loaded(data: bytes) -> dict[str, Any]:
    try:
        found: dict[str, Any] = torch.load(
            io.BytesIO(data), map_location="cpu", weights_only=True
        )
    except pickle.UnpicklingError as error:
        raise BadRequest(
            "a checkpoint holds more than tensors, numbers, texts, lists and dicts: "
            "leave anything else out of state_dict."
        ) from error
    return found
