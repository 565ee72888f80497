"""A hash of what a training is made of, so that no stale checkpoint is taken for it."""

import dataclasses
import enum
import functools
import hashlib
import types
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import torch

PLAIN = (
    int, float, complex, str, bytes, slice, range, type(None), type(...),
    np.generic, torch.device, torch.dtype, enum.Enum, PurePath,
)  # fmt: skip
NONE: frozenset[str] = frozenset()


def of_values(value: Any) -> str:
    """Hash of nested dicts, lists, numbers, texts and tensors, to the last bit."""
    return _Walk().hashed(value)


def of_code(function: Any, owned: Iterable[Any] = ()) -> str:
    """Hash of what a function does: its code and whatever that reaches by name.

    Followed are functions, classes, methods and the attributes they name, in
    `__main__`, in `iclrtut` and in the function's own package; arrays, tensors and
    settings count with their values, objects of other packages with their class. A
    comment changes nothing; a constant does.

    Args:
        function: the function.
        owned: objects that training changes; their code and settings count, their
            tensors do not.
    """
    return _Walk(function, owned).hashed([function, *owned])


class _Walk:
    """One walk over values and code, each piece added to a hash."""

    def __init__(self, function: Any = None, owned: Iterable[Any] = ()):
        module = getattr(function, "__module__", None) or "__main__"
        self.packages = {"__main__", "iclrtut", module.partition(".")[0]}
        self.changing = {id(t) for each in owned for t in _tensors(each)}
        self.seen: dict[tuple[int, frozenset[str]], Any] = {}
        self.hash = hashlib.sha256()

    def hashed(self, value: Any) -> str:
        self.tell(value)
        return self.hash.hexdigest()

    def say(self, *words: Any) -> None:
        self.hash.update(repr(words).encode())

    def ours(self, thing: Any) -> bool:
        module = str(getattr(thing, "__module__", None) or thing)
        return module.partition(".")[0] in self.packages

    def tell(self, thing: Any, names: frozenset[str] = NONE) -> None:
        """Add a thing; `names` are those that the code around it uses."""
        if isinstance(thing, PLAIN):
            self.say(type(thing).__name__, str(thing))
        elif isinstance(thing, torch.Tensor):
            self.say(str(thing.dtype), tuple(thing.shape))
            if id(thing) not in self.changing:
                flat = thing.detach().cpu().contiguous().reshape(-1)
                self.hash.update(flat.view(torch.uint8).numpy().data)
        elif isinstance(thing, np.ndarray):
            self.say(str(thing.dtype), thing.shape, thing.tobytes())
        elif isinstance(thing, (set, frozenset)):
            self.say(sorted(map(repr, thing)))
        elif (id(thing), names) in self.seen and not isinstance(thing, tuple):
            self.say("again")
        else:
            self.seen[id(thing), names] = thing
            self.tell_parts(thing, names)

    def tell_parts(self, thing: Any, names: frozenset[str]) -> None:
        """Add what a container, a function, a class or an object is made of."""
        parts: Any = []
        if isinstance(thing, Mapping):
            parts = [part for item in thing.items() for part in item]
        elif isinstance(thing, (list, tuple)):
            parts = thing
        elif isinstance(thing, types.CodeType):
            names = _names(thing)
            parts = [thing.co_code, thing.co_consts]
        elif isinstance(thing, functools.partial):
            parts = [thing.func, thing.args, thing.keywords]
        elif isinstance(thing, types.MethodType):
            names |= _names(getattr(thing.__func__, "__code__", None))
            parts = [thing.__func__, thing.__self__]
        elif isinstance(thing, types.FunctionType) and self.ours(thing):
            names = _names(thing.__code__)
            known = {n: thing.__globals__[n] for n in names & thing.__globals__.keys()}
            cells = [_content(cell) for cell in thing.__closure__ or ()]
            parts = [thing.__code__, thing.__defaults__, thing.__kwdefaults__, cells]
            parts += [part for name in sorted(known) for part in (name, known[name])]
        elif hasattr(thing, "__wrapped__"):
            parts = [thing.__wrapped__]
        elif isinstance(thing, types.ModuleType) and self.ours(thing.__name__):
            parts = [(n, getattr(thing, n)) for n in sorted(names) if hasattr(thing, n)]
        elif isinstance(thing, type) and self.ours(thing):
            parts = list(self.functions(thing).items())
        elif _is_settings(thing):
            parts = [type(thing).__qualname__, vars(thing)]
        elif isinstance(thing, torch.nn.Module):
            parts = [
                repr(thing),
                *(self.named(each, names) for each in thing.modules()),
            ]
        elif isinstance(thing, torch.optim.lr_scheduler.LRScheduler):
            inner = vars(thing)
            parts = [inner.get("lr_lambdas"), inner.get("_schedulers")]
        else:
            parts = self.named(thing, names)
        self.say(type(thing).__name__, getattr(thing, "__qualname__", ""), len(parts))
        for part in parts:
            self.tell(part, names)

    def functions(self, kind: type) -> dict[str, Any]:
        """Functions that a class and its bases of ours define, by name."""
        found = {}
        for base in reversed(kind.__mro__):
            for name, member in vars(base).items() if self.ours(base) else ():
                plain = getattr(member, "fget", getattr(member, "__func__", member))
                if isinstance(plain, types.FunctionType):
                    found[name] = plain
        return found

    def named(self, thing: Any, names: frozenset[str]) -> list[Any]:
        """Methods and attributes of an object that `names` lead to."""
        functions = self.functions(type(thing))
        implied = {n for n in functions if n.startswith("__") or n == "forward"}
        wanted = names | implied - {"__init__"}
        while True:
            called = [functions[n].__code__ for n in wanted & functions.keys()]
            if (more := wanted.union(*map(_names, called))) == wanted:
                break
            wanted = more
        values = getattr(thing, "__dict__", {}) if self.ours(type(thing)) else {}
        return [
            type(thing).__qualname__,
            *((name, functions[name]) for name in sorted(wanted & functions.keys())),
            *((name, values[name]) for name in sorted(wanted & values.keys())),
        ]


def _names(code: types.CodeType | None) -> frozenset[str]:
    """Names that a function's code and the functions inside it use."""
    if code is None:
        return NONE
    inner = [_names(c) for c in code.co_consts if isinstance(c, types.CodeType)]
    return frozenset(code.co_names).union(*inner)


def _is_settings(thing: Any) -> bool:
    known = dataclasses.is_dataclass(thing) or isinstance(thing, types.SimpleNamespace)
    return known and hasattr(thing, "__dict__") and not isinstance(thing, type)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _tensors(thing: Any) -> list[Any]:
    if isinstance(thing, torch.nn.Module):
        return [*thing.parameters(), *thing.buffers()]
    held = getattr(thing, "__dict__", {}).values()
    return [value for value in held if isinstance(value, torch.Tensor)]
