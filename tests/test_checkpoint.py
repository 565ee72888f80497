"""A checkpoint is used for the training that made it, and for no other."""

import functools
import linecache
import os
import shutil
import subprocess
import sys
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from tqdm import tqdm

from iclrtut import checkpoint
from iclrtut.checkpoint import fingerprint
from iclrtut.run import start
from iclrtut.train import Loop, constant, fit

NOTEBOOK = """
import functools, torch, numpy as np
from dataclasses import dataclass
from typing import NamedTuple

class Settings(NamedTuple):
    alpha: float
    shape: tuple

@dataclass
class Plan:
    depth: int = 3

class Sampler:
    power = 2
    def __init__(self):
        self.scale, self.drawn = 0.1, torch.zeros(3)
    def _grow(self, x):
        return x * self.scale ** self.power
    @property
    def start(self):
        return self._grow(torch.ones(3))
    def state_dict(self):
        return {"drawn": self.drawn}
    def load_state_dict(self, state):
        self.drawn = state["drawn"]

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.factor, self.layer = 2.0, torch.nn.Linear(3, 1)
        self.drop = torch.nn.Dropout(0.5)
    def forward(self, x):
        return self.factor * self.drop(self.layer(x))

RATE, SHIFT, unused = 0.5, 1, 1
settings = Settings(1.0, (2, 3))
images, table, names = torch.arange(6.0), np.arange(3), {"a", "b", "c"}
plan, sampler, model, other = Plan(), Sampler(), Net(), torch.nn.Linear(3, 3)

def square(x):
    # a comment
    return x * x

def helper(x, power=2, *, shift=SHIFT):
    return square(x) ** power + shift + (1 if "u" in {"u", "v"} else 0)

def make(weight):
    def loss_at(t):
        x = other(sampler.start + sampler.drawn)
        sampler.drawn = torch.rand(3)
        parts = [RATE * helper(i) for i in images]
        loss = model(x).sum() * weight * sum(parts) * settings.alpha * plan.depth
        return loss, {"size": float(table.sum() + len(names))}
    return loss_at

torch.manual_seed(0)
for p in model.parameters():
    torch.nn.init.normal_(p)
for p in other.parameters():
    torch.nn.init.ones_(p)
loss_at = functools.partial(make(3.0))
optimizer = torch.optim.SGD(model.parameters())

def step(t):
    loss, watched = loss_at(t)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return {"loss": loss, **watched}
"""

differ = {
    "order of the step": (
        "    optimizer.zero_grad()\n    loss.backward()\n",
        "    loss.backward()\n    optimizer.zero_grad()\n",
    ),
    "line of the loss": ("sampler.start + sampler", "sampler.start - sampler"),
    "constant in a nested function": ("[RATE * helper", "[2 * RATE * helper"),
    "global number": ("= 0.5, 1, 1", "= 0.6, 1, 1"),
    "setting": ("Settings(1.0, (2", "Settings(1.0, (9"),
    "field of a dataclass": ("depth: int = 3", "depth: int = 4"),
    "tensor": ("arange(6.0)", "arange(7.0)"),
    "array": ("np.arange(3)", "np.arange(4)"),
    "set": ('"b", "c"}', '"b", "d"}'),
    "closure": ("make(3.0)", "make(4.0)"),
    "helper of a helper": ("return x * x", "return x + x"),
    "default": ("power=2", "power=3"),
    "default that is computed": ("= 0.5, 1, 1", "= 0.5, 2, 1"),
    "constant set": ('{"u", "v"}', '{"u", "w"}'),
    "attribute of a network": ("self.layer = 2.0", "self.layer = 3.0"),
    "part of a network": ("Dropout(0.5)", "Dropout(0.4)"),
    "code of a network": ("self.factor * self", "self.factor + self"),
    "code of a sampler": ("x * self.scale", "x + self.scale"),
    "constant of a class": ("power = 2\n", "power = 3\n"),
    "weights that are not trained": ("init.ones_", "init.zeros_"),
}
same = {
    "line numbers": ("RATE, SHIFT", "\n\nRATE, SHIFT"),
    "what the loss does not name": ("= 0.5, 1, 1", "= 0.5, 1, 2"),
    "weights that are trained": ("init.normal_", "init.zeros_"),
}


def cells(old="", new=""):
    """The names that the notebook defines, a text in it replaced."""
    assert not old or NOTEBOOK.count(old) == 1
    names = {"__name__": "__main__"}
    text = NOTEBOOK.replace(old, new) if old else NOTEBOOK
    file = f"<cell {zlib.crc32(text.encode())}>"
    linecache.cache[file] = (len(text), None, text.splitlines(True), file)
    exec(compile(text, file, "exec"), names)
    return names


def code(old="", new=""):
    """The hash of the notebook's step."""
    names = cells(old, new)
    changing = [names[key] for key in ("model", "sampler", "optimizer")]
    return fingerprint(names["step"], changing)


@pytest.mark.parametrize(("old", "new"), differ.values(), ids=differ.keys())
def test_what_changes_the_training_changes_the_hash(old, new):
    assert code(old, new) != code()


@pytest.mark.parametrize(("old", "new"), same.values(), ids=same.keys())
def test_what_does_not_leaves_it(old, new):
    assert code(old, new) == code()


def test_what_training_changes_leaves_it():
    names = cells()
    state = [names[key] for key in ("model", "sampler", "optimizer")]
    before = fingerprint(names["step"], state)
    names["step"](0)
    assert fingerprint(names["step"], state) == before


def test_the_hash_is_the_same_in_another_process():
    script = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    done = subprocess.run(
        [sys.executable, "-c", script + "import test_checkpoint as t; print(t.code())"],
        env=os.environ | {"PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == code()


def train(folder, old="", new="", **changes):
    """Train the notebook's model; the step at which it went on."""
    names = cells(old, new)
    names["optimizer"].param_groups[0]["lr"] = changes.pop("rate", 1e-9)
    state = {key: names[key] for key in ("model", "sampler")}
    steps, schedule = changes.pop("steps", 3), changes.pop("schedule", constant)
    loop = Loop(names["step"], names["optimizer"], state, schedule)
    return fit(loop, steps, folder=folder, name="page").resumed_at


def test_a_reader_who_changes_the_loop_on_the_page_trains_anew(tmp_path, capsys):
    assert train(tmp_path) == 0
    assert train(tmp_path) == 3
    assert train(tmp_path, *differ["line of the loss"]) == 0
    said = "is of other code, data, settings or weights, so training starts over"
    assert capsys.readouterr().out.count(said) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"rate": 1e-8},
        {"steps": 4},
        {"schedule": lambda t: 0.5},
        {"old": "init.normal_", "new": "init.zeros_"},
    ],
    ids=["learning rate", "steps", "schedule", "first weights"],
)
def test_other_arguments_and_first_weights_train_anew(tmp_path, changes):
    train(tmp_path)
    assert train(tmp_path, **changes) == 0


def test_a_change_in_any_module_of_the_package_trains_anew(tmp_path, monkeypatch):
    package = Path(checkpoint.__file__).parent
    copy = shutil.copytree(package, tmp_path / "iclrtut")
    monkeypatch.setattr(checkpoint, "__file__", str(copy / "checkpoint.py"))
    train(tmp_path)
    assert train(tmp_path) == 3
    deepest = max(copy.rglob("method.py"))
    deepest.write_text(deepest.read_text() + "\n# A line more.\n")
    assert train(tmp_path) == 0


def test_a_loss_without_a_text_counts_by_its_compiled_code():
    def code_of(text):
        names = {"__name__": "__main__"}
        exec(f"def loss_at(t): return {text}", names)
        return fingerprint(names["loss_at"])

    assert code_of("t + 1") == code_of("t + 1")
    assert len({code_of(text) for text in ("t + 1", "t + 2", "t - 1", "t.real")}) == 4


def test_a_progress_bar_that_the_loss_moves_does_not_count():
    bar = tqdm(range(3), disable=True)
    before = fingerprint(lambda t: bar.update())
    bar.n, bar.start_t = 2, 3.0
    assert fingerprint(lambda t: bar.update()) == before


def test_of_a_run_the_settings_count_and_its_times_do_not(monkeypatch):
    monkeypatch.delenv("ICLRTUT_PROFILE", raising=False)
    run = start("meta_transfer", "smoke")
    before = fingerprint(functools.partial(print, run))
    with run.timer("training"):
        pass
    assert fingerprint(functools.partial(print, run)) == before
    run.settings = run.settings._replace(every=7)
    assert fingerprint(functools.partial(print, run)) != before


def test_recursion_ends():
    def even(n):
        return n == 0 or odd(n - 1)

    def odd(n):
        return n > 0 and even(n - 1)

    knot = [1]
    knot.append(knot)
    assert fingerprint([even, knot])


class Point(NamedTuple):
    x: float
    y: float


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([1, 2], [1, [2]]),
        ([[1], 2], [[1, 2]]),
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, ["a", 1]),
        (1, 1.0),
        (1, True),
        ("1", 1),
        (torch.zeros(2), torch.zeros(2, dtype=torch.float64)),
        (torch.zeros(2, 3), torch.zeros(3, 2)),
        (torch.tensor(1.0), torch.tensor(1.0).nextafter(torch.tensor(2.0))),
        (torch.ones(3).bfloat16(), 2 * torch.ones(3).bfloat16()),
        (torch.float32, torch.float64),
        (torch.tensor([1j]).conj(), torch.tensor([2j]).conj()),
        (torch.eye(3).to_sparse(), 2 * torch.eye(3).to_sparse()),
        (np.zeros(2), np.ones(2)),
        (Point(1, 2), Point(1, 3)),
    ],
)
def test_values_that_differ_hash_apart(one, other):
    assert fingerprint(one) != fingerprint(other)
    assert fingerprint(one) == fingerprint(one)


def test_tensors_hash_by_value_whatever_their_memory():
    wide = torch.arange(6).view(2, 3)
    assert fingerprint(wide.t()) == fingerprint(wide.t().clone())
    assert fingerprint([wide, wide]) == fingerprint([wide, wide.clone()])
