"""A check that no formula could fail is seen; one that could is left alone."""

import ast

import pytest
from tautology import tautology


def told(cell):
    """Why the last check of a cell cannot fail."""
    statements = ast.parse(cell).body
    return tautology(statements, statements[-1].value)


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("close('1', 'a', 2 * x, 2 * x, tol=0)", "the same"),
        ("y = 2 * x\nclose('1', 'a', y, 2 * x, tol=0)", "the same"),
        ("close('1', 'a', 3, 3.0, tol=0)", "typed"),
        ("n = 3\nclose('1', 'a', n, 1 + 2, tol=0)", "typed"),
        ("close('1', 'a', (e / e.sum()).sum(), 1.0, tol=0)", "add up"),
        (
            "Z = f.exp().sum()\np = f.exp() / Z\nclose('1', 'a', p.sum(), 1, 0)",
            "add up",
        ),
        ("p = e / e.sum(1)[:, None]\nclose('1', 'a', p.sum(1), ones(3), 0)", "add up"),
        ("close('1', 'a', P.square().sum(), P.T.square().sum(), 0)", "transpose"),
        ("s = [z.norm() for z in (P, P.mT)]\nclose('1', 'a', *s, tol=0)", "transpose"),
        ("at_most('1', 'a', torch.minimum(b, c), b)", "never above"),
        ("t = min(b, c)\nat_most('1', 'a', t, c)", "never above"),
        ("at_most('1', 'a', b, torch.maximum(b, c))", "never above"),
    ],
)
def test_it_is_seen(cell, words):
    assert words in told(cell)


@pytest.mark.parametrize(
    "cell",
    [
        "close('1', 'a', x * x, x**2, tol=0)",
        "close('1', 'a', P, P.T, tol=0)",  # that a matrix is symmetric can fail
        "close('1', 'a', (e / g.sum()).sum(), 1.0, tol=0)",
        "close('1', 'a', (e / e.sum()).max(), 1.0, tol=0)",
        "close('1', 'a', e / e.sum(), e.log().softmax(0), tol=0)",
        "close('1', 'a', n, 3, tol=0)",
        "at_most('1', 'a', torch.minimum(b, c), d)",
        "at_most('1', 'a', b, torch.minimum(b, c))",
        "x = x + 1\nclose('1', 'a', x, y, tol=0)",
        "close('1', 'a', *sides, tol=0)",
        "monte_carlo('1', 'a', draws, exact)",
    ],
)
def test_it_is_left_alone(cell):
    assert told(cell) == ""
