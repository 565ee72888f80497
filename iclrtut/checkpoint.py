"""The state of a training, in memory and in a file, and which training a file fits."""

import enum
import functools
import hashlib
import io
import pickle
import sys
import types
import zipfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from iclrtut.errors import BadRequest, RunFailed
from iclrtut.files import write_atomic
from iclrtut.run import Run


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

PLAIN = (
    int, float, complex, str, bytes, type(None), enum.Enum, np.generic, torch.dtype,
    torch.device,
)  # fmt: skip
METHODS = (types.FunctionType, classmethod, staticmethod, property)
NETWORK = {"_parameters", "_buffers", "_modules"}  # what an nn.Module is made of


def _source() -> str:
    """SHA-256 of the text of all modules of this package."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


IMPORTED = _source()  # after a later edit, this text or the new one may be what runs


def fingerprint(thing: Any, state: Collection[Any] = ()) -> str:
    """SHA-256 of values, and of functions with the values that they name.

    Numbers, texts, tensors and arrays count to the last bit: in lists, dicts, settings
    and closures, and as attributes of networks and of objects of this package or the
    reader's own. Of the functions and classes that a reader wrote, in a notebook above
    all, the code counts too, with all that it leads to by name.

    Not seen: files that a function reads, attributes that begin with an underscore, and
    what belongs to other libraries.

    Args:
        thing: any nesting of these.
        state: what training changes. Parameters and buffers of networks among it do not
            count, nor do attributes of the rest.
    """
    networks = [part for part in state if isinstance(part, nn.Module)]
    tensors = [t for part in networks for t in (*part.parameters(), *part.buffers())]
    changing = {_address(tensor) for tensor in tensors}
    seen = {id(part): part for part in state if not isinstance(part, nn.Module)}
    digest = hashlib.sha256()

    def add(thing: Any) -> None:
        digest.update(f"{type(thing)} {getattr(thing, '__qualname__', '')} ".encode())
        if isinstance(thing, PLAIN):
            digest.update(repr(thing).encode())
        elif isinstance(thing, np.ndarray):
            digest.update(f"{thing.dtype} {thing.shape} ".encode() + thing.tobytes())
        elif isinstance(thing, Tensor):
            digest.update(f"{thing.dtype} {tuple(thing.shape)} ".encode())
            if _address(thing) not in changing:
                flat = thing.detach().to_dense().resolve_conj().resolve_neg().cpu()
                flat = flat.contiguous().reshape(-1).view(torch.uint8)
                digest.update(flat.numpy().data)
        elif isinstance(thing, tuple) or id(thing) not in seen:
            seen[id(thing)] = thing
            parts = _parts(thing)
            digest.update(f"{len(parts)} ".encode())
            for part in parts:
                add(part)

    add([thing, *map(type, state)])
    return digest.hexdigest()


def _address(tensor: Tensor) -> int:
    """Where a tensor's numbers stand in memory, the same for all views of them."""
    return tensor.to_dense().untyped_storage().data_ptr()


def _parts(thing: Any) -> Sequence[Any]:
    """What counts of a container, a function, a class or an object."""
    module = str(getattr(thing, "__module__", None))
    match thing:
        case Run():
            return [thing.settings]  # its timings are never the same
        case Mapping():
            return [*thing.items()]
        case list() | tuple():
            return thing
        case set() | frozenset():
            return sorted(thing, key=repr)
        case functools.partial():
            return [thing.func, thing.args, thing.keywords]
        case types.MethodType() | classmethod() | staticmethod():
            return [thing.__func__, getattr(thing, "__self__", None)]
        case property():
            return [thing.fget]
        case types.CodeType():
            return [thing.co_code, thing.co_names, *thing.co_consts]
        case types.FunctionType():
            full = [c for c in thing.__closure__ or () if c != types.CellType()]
            values = [thing.__defaults__, *(cell.cell_contents for cell in full)]
            code, known = thing.__code__, thing.__globals__
            named = [(n, known[n]) for n in sorted(_names(code)) if n in known]
            return [*values, code, *named] if _is_own(module) else values
        case type():
            items = vars(thing).items() if _is_own(module) else ()
            return [*thing.__bases__, *(item for item in items if _counts(*item))]
        case nn.Module() | types.SimpleNamespace():
            own = True
        case _:
            own = _is_own(module) or module.startswith("iclrtut")
    items = getattr(thing, "__dict__", {}).items() if own else ()
    return [type(thing), *(item for item in items if _counts(*item))]


def _is_own(module: str) -> bool:
    """Whether the reader wrote a module: the notebook, or a file of no library."""
    top, file = (
        module.partition(".")[0],
        getattr(sys.modules.get(module), "__file__", ""),
    )
    library = {"None", "iclrtut", *sys.stdlib_module_names}
    return module == "__main__" or not (top in library or "-packages" in str(file))


def _counts(name: str, member: Any) -> bool:
    """Whether an attribute is code or a setting."""
    public = not name.startswith("_") and name != "training"
    return public or name in NETWORK or isinstance(member, METHODS)


def _names(code: types.CodeType) -> set[str]:
    """Names that the code of a function, and of those inside it, uses."""
    inner = [_names(c) for c in code.co_consts if isinstance(c, types.CodeType)]
    return set(code.co_names).union(*inner)
