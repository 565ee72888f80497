"""The state of a training, in memory and in a file, and which training a file fits."""

import enum
import functools
import hashlib
import inspect
import io
import pickle
import sys
import types
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from iclrtut.errors import BadRequest, RunFailed
from iclrtut.files import write_atomic

PLAIN = (
    int, float, complex, str, bytes, type(None), enum.Enum, np.generic, torch.dtype,
    torch.device,
)  # fmt: skip
CODE = (types.FunctionType, property, staticmethod, classmethod)


class Checkpoint:
    """The last good state of a training, and the file that holds it.

    The file is what `torch.save` writes. It fits a training of the same code, settings,
    data and version of torch whose objects are in the state that the file's training
    began from, or in the very one of the file.

    Args:
        state: what training changes, by name.
        folder, name: where the file goes; without a folder there is none.
        code: what computes a step: the loss function, then what else decides.

    Raises:
        BadRequest: a part of the state cannot be saved.
    """

    def __init__(
        self,
        state: Mapping[str, Any],
        folder: Path | str | None,
        name: str,
        code: Iterable[Any],
    ):
        self.state, self.name, self.warned = state, name, False
        self.file = Path(folder) / f"{name}.checkpoint" if folder else None
        self.code = self.origin = ""
        if self.file:
            versions = [IMPORTED, _source(), torch.__version__]
            self.code = fingerprint([*versions, *code], state.values())
            self.origin = fingerprint(self.states())
        self.good, self.good_step = self.capture(0, 0.0, {}), 0
        _load(self.good)

    def states(self) -> dict[str, Any]:
        """The state of every part, and of torch's global generators."""
        states: dict[str, Any] = {}
        for key, part in self.state.items():
            if isinstance(part, torch.Generator):
                states[key] = part.get_state()
            elif hasattr(part, "state_dict"):
                states[key] = part.state_dict()
            else:
                raise BadRequest(
                    f"{key} is a {type(part).__name__}, which has no state_dict: give "
                    "a module, an object with state_dict and load_state_dict, or a "
                    "torch generator."
                )
        rng = [torch.get_rng_state()]
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            rng += torch.cuda.get_rng_state_all()
        return states | {"rng": rng}

    def capture(self, step: int, seconds: float, curves: Any) -> bytes:
        """Everything needed to go on at `step`."""
        file = io.BytesIO()
        fits = {"code": self.code, "origin": self.origin, "states": self.states()}
        torch.save(fits | {"step": step, "seconds": seconds, "curves": curves}, file)
        return file.getvalue()

    def keep(self, data: bytes, step: int) -> None:
        """Take a captured state as the last good one, and write it."""
        self.good, self.good_step = data, step
        try:
            if self.file:
                write_atomic(self.file, data)
        except RunFailed as error:
            if not self.warned:
                print(f"{self.name}: training goes on without checkpoints, for {error}")
            self.warned = True

    def restore(self) -> None:
        """Put the last good state back into the objects."""
        states = _load(self.good)["states"]
        for key, part in self.state.items():
            if isinstance(part, torch.Generator):
                part.set_state(states[key])
            else:
                part.load_state_dict(states[key])
        cpu, *cuda = states["rng"]
        torch.set_rng_state(cpu)
        if cuda and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(cuda)

    @contextmanager
    def restoring(self) -> Iterator[None]:
        """Put the last good state back when anything stops what is done here."""
        try:
            yield
        except BaseException:
            self.restore()
            raise

    def resume(self) -> tuple[int, float, dict[str, list[float]]]:
        """Go on from the file where it fits; the step, seconds and curves so far."""
        before = self.good
        try:
            data = self.file.read_bytes() if self.file else b""
            content = self.fitting(data) if self.file else None
            if content:
                self.good, self.good_step = data, content["step"]
                self.origin = content["origin"]
                self.restore()
                print(
                    f"{self.name}: {self.good_step} steps are done, from {self.file}."
                )
                return content["step"], content["seconds"], content["curves"]
        except FileNotFoundError:
            pass
        except OSError as error:
            print(
                f"{self.name}: {self.file} cannot be read ({error.strerror}), so "
                "training starts over."
            )
        except Exception as error:
            self.good, self.good_step = before, 0
            self.restore()
            self.set_aside(error)
        return 0, 0.0, {}

    def fitting(self, data: bytes) -> dict[str, Any] | None:
        """What a file holds; None where it is of another training."""
        # A full write is certain, a disk or a copy that alters bytes is not, and
        # torch.load skips the checksums that the file holds of its parts.
        if damaged := zipfile.ZipFile(io.BytesIO(data)).testzip():
            raise ValueError(f"its part {damaged} was changed")
        content = _load(data)
        known = (content["origin"], fingerprint(content["states"]))
        if content["code"] == self.code and fingerprint(self.states()) in known:
            return content
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


def _load(data: bytes) -> dict[str, Any]:
    try:
        content: dict[str, Any] = torch.load(
            io.BytesIO(data), map_location="cpu", weights_only=True
        )
    except pickle.UnpicklingError as error:
        raise BadRequest(
            "a checkpoint holds more than tensors, numbers, texts, lists and dicts: "
            "leave anything else out of state_dict."
        ) from error
    return content


# Which training a file fits


def _source() -> str:
    """SHA-256 of the text of all modules of this package."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


IMPORTED = _source()  # after a later edit, this text or the new one may be what runs


def fingerprint(thing: Any, changing: Collection[Any] = ()) -> str:
    """SHA-256 of values, and of functions with the values that they name.

    Numbers, texts, tensors and arrays count to the last bit, in any nesting, in
    closures and in settings. Of functions and classes in a notebook the text counts
    too, with the values and functions that they name. The modules of this package
    count as a whole, by `IMPORTED`. Not seen: files, the text of other modules, and
    what objects of other libraries hold.

    Args:
        thing: any nesting of these.
        changing: objects that training changes. The text of their classes and the
            layers of networks count, their numbers do not.
    """
    nets = [part for part in changing if isinstance(part, nn.Module)]
    weights = {id(p) for net in nets for p in (*net.parameters(), *net.buffers())}
    # References, not only ids: Python gives the id of a lost object to the next one.
    seen: dict[int, Any] = {id(part): part for part in changing}
    seen |= {id(layer): layer for net in nets for layer in net.modules()}
    digest = hashlib.sha256()

    def add(thing: Any) -> None:
        digest.update(f"{type(thing).__qualname__} ".encode())
        if isinstance(thing, PLAIN):
            digest.update(repr(thing).encode())
        elif isinstance(thing, (Tensor, np.ndarray)) and id(thing) not in weights:
            digest.update(f"{thing.dtype} {tuple(thing.shape)} ".encode())
            digest.update(_bytes(thing))
        elif id(thing) not in seen:
            seen[id(thing)] = thing
            parts = _parts(thing)
            digest.update(f"{len(parts)} ".encode())
            for part in parts:
                add(part)

    add([thing, *map(_layers, nets), *dict.fromkeys(map(type, seen.values()))])
    return digest.hexdigest()


def _bytes(values: Any) -> bytes:
    if isinstance(values, Tensor):
        flat = values.detach().to_dense().resolve_conj().cpu().contiguous().view(-1)
        values = flat.view(torch.uint8).numpy()
    return bytes(values.tobytes())


def _layers(net: nn.Module) -> list[Any]:
    """What a network is, without its weights."""
    settings = [
        (name, value)
        for layer in net.modules()
        for name, value in vars(layer).items()
        if isinstance(value, PLAIN) and name != "training"
    ]
    return [repr(net), settings]


def _parts(thing: Any) -> Sequence[Any]:
    """What counts of a container, a function, a class or an object."""
    if isinstance(thing, Mapping):
        return [part for item in thing.items() for part in item]
    if isinstance(thing, (list, tuple)):
        return thing
    if isinstance(thing, (set, frozenset)):
        return sorted(thing, key=repr)
    if isinstance(thing, functools.partial):
        return [thing.func, thing.args, thing.keywords]
    if isinstance(thing, types.MethodType):
        return [thing.__func__, thing.__self__]
    if isinstance(thing, types.FunctionType):
        cells = [c for c in thing.__closure__ or () if c != types.CellType()]
        name = f"{thing.__module__}.{thing.__qualname__}"
        values = [name, thing.__defaults__, thing.__kwdefaults__]
        values += [cell.cell_contents for cell in cells]
        return [*values, *_page(thing)] if thing.__module__ == "__main__" else values
    if isinstance(thing, type) and thing.__module__ == "__main__":
        return [v for k, v in vars(thing).items() if isinstance(v, CODE) or k[0] != "_"]
    if isinstance(thing, (property, staticmethod, classmethod)):
        return [getattr(thing, "fget", None) or getattr(thing, "__func__", None)]
    if hasattr(thing, "settings"):  # a run
        return [thing.settings]
    if isinstance(thing, nn.Module):
        return [*_layers(thing), thing.state_dict(), type(thing)]
    if isinstance(thing, (type, types.ModuleType)) or _is_of_a_library(thing):
        return []
    return [type(thing), getattr(thing, "__dict__", {})]


def _is_of_a_library(thing: Any) -> bool:
    """Whether an object's class comes with an installed package other than this one.

    What such an object holds is not for a loss to know, and may differ each time: the
    clock of a progress bar, the parts of a figure.
    """
    top = type(thing).__module__.partition(".")[0]
    file = getattr(sys.modules.get(top), "__file__", None)
    return top not in ("__main__", "iclrtut") and "-packages" in str(file)


def _page(function: types.FunctionType) -> list[Any]:
    """The text of a function in a notebook, and what it names there."""
    code = function.__code__
    try:
        text = inspect.getsource(function)
    except OSError:  # made by a program, as the methods of a dataclass are
        text = repr((code.co_code, code.co_names, code.co_consts))
    known = function.__globals__
    return [text, *(known[n] for n in sorted(_names(code) & known.keys()))]


def _names(code: types.CodeType) -> set[str]:
    """Names that the code of a function, and of those inside it, uses."""
    inner = [_names(c) for c in code.co_consts if isinstance(c, types.CodeType)]
    return set(code.co_names).union(*inner)
