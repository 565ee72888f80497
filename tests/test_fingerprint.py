"""The hash sees what changes a training, and nothing else."""

import functools
import os
import subprocess
import sys
import textwrap
import types
from typing import NamedTuple

import numpy as np
import pytest
import torch

from iclrtut import fingerprint


def of_source(source, call="loss_at"):
    """The hash of a function defined by a notebook cell."""
    scope = {"__name__": "__main__"}
    exec(textwrap.dedent(source), scope)
    return fingerprint.of_code(scope[call], scope.get("owned", ()))


BASE = """
import functools, torch, numpy as np, types
from dataclasses import dataclass
RATE = 0.5
images = torch.arange(6.0)
table = np.arange(3)
choices = {"a", "b", "c"}
settings = types.SimpleNamespace(alpha=1.0, beta=2.0)

@dataclass
class Plan:
    depth: int = 3

plan = Plan()

class Sampler:
    def __init__(self):
        self.alpha, self.started, self.samples = 0.1, 7, torch.zeros(3)
    def _grow(self, x):
        return x * self.alpha
    def walk(self, x):
        return self._grow(x)
    def report(self):
        return self.started

sampler = Sampler()
owned = [sampler]

def square(x):
    # a comment
    return x * x

def helper(x, power=2):
    return square(x) ** power + (1 if x in {"u", "v", "w"} else 0)

def outer(weight):
    def loss(t):
        parts = [helper(i) for i in images]
        value = weight * RATE * sum(parts) + settings.alpha + sampler.walk(t)
        return value, table, choices, plan
    return loss

loss_at = functools.partial(outer(3.0), 1)
"""

differ = {
    "global number": ("RATE = 0.5", "RATE = 0.6"),
    "tensor": ("arange(6.0)", "arange(7.0)"),
    "array": ("np.arange(3)", "np.arange(4)"),
    "set": ('"a", "b", "c"', '"a", "b", "d"'),
    "setting": ("alpha=1.0", "alpha=1.5"),
    "dataclass": ("depth: int = 3", "depth: int = 4"),
    "attribute of a sampler": ("self.samples = 0.1", "self.samples = 0.2"),
    "method behind a method": ("x * self.alpha", "x + self.alpha"),
    "helper of a helper": ("return x * x", "return x + x"),
    "default": ("power=2", "power=3"),
    "constant set": ('"u", "v", "w"', '"u", "v", "z"'),
    "closure": ("outer(3.0)", "outer(4.0)"),
    "bound argument": ("outer(3.0), 1)", "outer(3.0), 2)"),
    "list comprehension": ("[helper(i) for i", "[helper(i + 1) for i"),
}
same = {
    "comment": ("# a comment", "# another"),
    "line numbers": ("RATE = 0.5", "\n\nRATE = 0.5"),
    "unused method": ("return self.started", "return 8"),
    "unused attribute": ("0.1, 7,", "0.1, 8,"),
    "samples that training changes": ("torch.zeros(3)\n", "torch.ones(3)\n"),
    "unused global": ("choices =", "unused = 3\nchoices ="),
}


def replaced(old, new):
    assert BASE.count(old) == 1
    return BASE.replace(old, new)


@pytest.mark.parametrize(("old", "new"), differ.values(), ids=differ.keys())
def test_what_changes_the_training_changes_the_hash(old, new):
    assert of_source(BASE) != of_source(replaced(old, new))


@pytest.mark.parametrize(("old", "new"), same.values(), ids=same.keys())
def test_what_does_not_leaves_it(old, new):
    assert of_source(BASE) == of_source(replaced(old, new))


def test_it_is_the_same_in_another_process():
    script = f"import sys; sys.path.insert(0, {__file__.rsplit('/', 1)[0]!r})\n"
    script += "from test_fingerprint import *; print(of_source(BASE))"
    found = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == of_source(BASE)


MODEL = """
import torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale, self.layer = 2.0, torch.nn.Linear(2, 2)
    def forward(self, x):
        return self.scale * self.layer(x)
net = Net()
owned = [net, torch.optim.lr_scheduler.LambdaLR(
    torch.optim.SGD(net.parameters(), 0.1), lambda t: 0.5)]
def loss_at(t):
    return net(torch.ones(2)).sum(), {}
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("self.scale * self", "self.scale + self"),
        ("self.layer = 2.0", "self.layer = 3.0"),
        ("Linear(2, 2)", "Linear(2, 2, bias=False)"),
        ("lambda t: 0.5", "lambda t: 0.4"),
    ],
)
def test_a_models_code_counts_and_its_weights_do_not(old, new):
    assert of_source(MODEL) == of_source(MODEL)  # other weights each time
    assert MODEL.count(old) == 1
    assert of_source(MODEL) != of_source(MODEL.replace(old, new))


class Point(NamedTuple):
    x: float
    y: float


def test_functions_of_a_module_of_ours_are_followed_and_of_others_named(monkeypatch):
    ours = types.ModuleType("iclrtut.invented")
    exec("ALPHA = 1\ndef f(x): return ALPHA * x\ndef g(x): return x", vars(ours))

    def loss_at(t):
        return ours.f(t), np.mean(t)

    before = fingerprint.of_code(loss_at)
    ours.g = None
    assert fingerprint.of_code(loss_at) == before
    ours.ALPHA = 2
    assert fingerprint.of_code(loss_at) != before


def test_cycles_end():
    def even(n):
        return n == 0 or odd(n - 1)

    def odd(n):
        return n > 0 and even(n - 1)

    knot = [1]
    knot.append(knot)
    assert fingerprint.of_code(functools.partial(even, knot))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([1, 2], [1, [2]]),
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, ["a", 1]),
        (1, 1.0),
        (1, True),
        ("1", 1),
        (torch.zeros(2), torch.zeros(2, dtype=torch.float64)),
        (torch.zeros(2, 3), torch.zeros(3, 2)),
        (torch.tensor(1.0), torch.tensor(1.0).nextafter(torch.tensor(2.0))),
        (np.zeros(2), np.ones(2)),
        (Point(1, 2), Point(1, 3)),
    ],
)
def test_values_that_differ_hash_apart(one, other):
    assert fingerprint.of_values(one) != fingerprint.of_values(other)
    assert fingerprint.of_values(one) == fingerprint.of_values(one)


def test_tensors_hash_by_value_whatever_their_memory():
    wide = torch.arange(6).view(2, 3)
    assert fingerprint.of_values(wide.t()) == fingerprint.of_values(wide.t().clone())
    assert fingerprint.of_values([wide, wide]) == fingerprint.of_values(
        [wide, wide.clone()]
    )
    half = torch.ones(3).bfloat16()
    assert fingerprint.of_values(half) != fingerprint.of_values(2 * half)
