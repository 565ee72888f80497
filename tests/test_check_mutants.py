"""Faults in check cells: what counts as the formula, and what a check lets through."""

import ast

import check_mutants
import form
import formula
import psutil
import pytest
from check_mutants import CHAPTERS, Result, judge, tried

SETUP = "import numpy as np\nfrom iclrtut.checks import at_most, close, monte_carlo\n"


def chapter(*cells, between="Text.\n\n"):
    """A document of code cells, the first of which imports what the others need."""
    code = [f"```{{code-cell}} ipython3\n{each}\n```\n\n" for each in (SETUP, *cells)]
    front = (
        "---\nkernelspec:\n  display_name: Python 3\n  name: python3\n---\n\n# Toy\n\n"
    )
    return form.read(front + between.join(code), "toy")


def survivors(*cells):
    return {each.fault for each in tried(chapter(*cells), {}).survivors}


def lines(cell):
    """The faulty lines that are made of a cell."""
    return {
        fault.text for fault in formula.faults(ast.parse(cell).body, {}, formula.DRAWS)
    }


SQUARE = """x = np.arange(1.0, 6)
left = (x + 1) ** 2
right = x**2 + 2 * x + 1
close("1", "a square", left, right, tol=1e-12)"""


def test_a_check_of_two_routes_lets_nothing_through():
    result = tried(chapter(SQUARE), {})
    assert result.cells == 1
    assert result.caught > 20
    assert result.survivors == []


def test_a_sum_divided_by_itself_is_seen_to_prove_nothing():
    cell = """x = np.arange(1.0, 6)
p = np.exp(x) / np.exp(x).sum()
close("1", "adds up to one", p.sum(), 1.0, tol=1e-12)"""
    assert "p = x / x.sum()" not in survivors(cell)  # each fault stands alone
    wrong = cell.replace("np.exp(x) / np.exp(x).sum()", "f(x) / f(x).sum()")
    faulty = "def f(x):\n    return 1 + x * x\n\n\n" + wrong
    assert "return 1 - x * x" in survivors(faulty)


def test_a_bound_that_is_far_too_high_passes_until_it_has_a_slack():
    cell = 'v = np.sin(np.arange(9.0))\nat_most("1", "a sine", v, {})'
    assert "at_most('1', 'a sine', v, 80.0)" in survivors(cell.format("40.0"))
    tight = survivors(cell.format("1.0, slack=0.02"))
    assert not any("at_most" in line for line in tight)


def test_a_check_that_nothing_fails_is_named():
    cell = 'x = np.arange(3.0)\nclose("1", "shares", (x / x.sum()).sum(), 1, tol=0)'
    assert any("add up to one" in fault for fault in survivors(cell))
    assert not any("add up to one" in fault for fault in survivors(SQUARE))


def test_what_both_sides_read_is_an_input():
    assert not {line for line in lines(SQUARE) if line.startswith("x =")}
    loop = """total = 0
scale = 3 * unit
for value in values:
    total += scale * value
close("2", "a sum", total, scale * values.sum(), tol=0)"""
    made = lines(loop)
    assert "total -= scale * value" in made
    assert "total += scale / value" in made
    assert not {line for line in made if line.startswith("scale =")}


def test_what_is_no_formula_is_left_alone():
    cell = """x = rng.normal(3, 4, 500)
grid = np.linspace(0, 1, 7)
print(f"{2 * x}", 3 * x)
unused = 5 * x
monte_carlo("4", "mean of 9", x - grid[1], 8 * exact, wrong=6 * exact)"""
    made = lines(cell)
    assert made
    for kept in ("rng.normal(3, 4, 500)", "linspace(0, 1, 7)", "mean of 9", "wrong"):
        assert all(kept in line for line in made if kept[:6] in line)
    assert not {line for line in made if line.startswith(("print", "unused"))}
    assert not {line for line in made if "wrong=7" in line or "wrong=12" in line}


def test_a_function_belongs_to_the_side_that_calls_it():
    cell = """def f(x, scale=2, count=100):
    y = scale * x
    return -y


close("1", "f", f(x), -2 * x, tol=0)"""
    made = lines(cell)
    assert {"y = scale / x", "return y", "def f(x, scale=3, count=100):"} <= made
    assert not {line for line in made if "count=101" in line}


def test_a_pair_that_is_handed_over_has_two_sides():
    assert "both = (2 / x, x + x)" in lines(
        'both = 2 * x, x + x\nclose("1", "twice", *both, tol=0)'
    )


def test_names_of_the_same_kind_are_exchanged():
    known = {"a": ("float", "1"), "b": ("float", "2"), "c": ("int", "3")}
    block = ast.parse('y = a + c\nz = 2 * b\nclose("1", "", y, 3.0, tol=0)').body
    made = {fault.text for fault in formula.faults(block, known, set())}
    assert "y = b + c" in made
    assert "y = a + a" not in made


def test_the_blocks_are_left_as_they_were():
    block = ast.parse(SQUARE).body
    formula.faults(block, {}, set())
    assert ast.unparse(block) == ast.unparse(ast.parse(SQUARE).body)


def test_faults_leave_the_state_of_the_run_untouched():
    seen = {"log": []}
    cell = "log.append(1)\n" + SQUARE.replace("**2 +", "**2 + 0 * len(log) +")
    tried(chapter(cell, "after = len(log)"), seen)
    assert seen["log"] == [1]
    assert (seen["left"] == seen["right"]).all()
    assert "after" not in seen  # behind the last check nothing is run


def test_a_cell_that_leads_to_a_check_counts_and_one_above_a_heading_does_not():
    first = "def f(x):\n    return x * 2"
    second = 'close("1", "twice", f(3.0), 6.0, tol=0)'
    (block,) = check_mutants.blocks(chapter(first, second))
    assert any(isinstance(stmt, ast.FunctionDef) for stmt in block.statements)
    (block,) = check_mutants.blocks(chapter(first, second, between="## Heading\n\n"))
    assert "def f" in block.before


def test_exercises_are_left_out():
    document = chapter('close("1", "one", x, 1, tol=0)')
    cells = [
        c._replace(tags=("check-1",)) if "x, 1" in c.text else c for c in document.cells
    ]
    assert not list(check_mutants.blocks(document._replace(cells=tuple(cells))))


def test_a_fault_that_hangs_is_caught():
    endless = ast.parse("while True:\n    pass").body
    assert check_mutants._fork({}, [endless], 0.05) == [check_mutants.CAUGHT]


def test_what_fails_without_a_fault_is_told():
    with pytest.raises(SystemExit, match=r"the cell of \(1\) fails without a fault"):
        tried(chapter('close("1", "no", 1.0, 2.0 * 1, tol=0)'), {})


def test_the_list_must_name_each_survivor_and_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(check_mutants, "CHAPTERS", tmp_path)
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "survivors.toml").write_text(
        '[[no_fault]]\nequations = "1"\nreason = "even"\nfaults = ["a", "gone"]\n'
        '[[weak]]\nequations = "1"\nreason = "no slack"\nfaults = ["b"]\n'
    )
    found = [check_mutants.Survivor("1", fault, "true") for fault in "abc"]
    counts, complaints = judge("toy", Result(1, 7, 2, found))
    assert (counts["faults"], counts["caught"], counts["no_fault"]) == (9, 7, 1)
    assert counts["share"] == round(7 / 9, 3)
    assert [line.split()[:3] for line in complaints] == [
        ["SURVIVED", "(1)", "c"],
        ["GONE", "(1)", "gone:"],
    ]


@pytest.mark.parametrize(
    "slug", sorted(file.parent.name for file in CHAPTERS.glob("*/survivors.toml"))
)
def test_the_lists_give_a_reason_for_each_and_name_none_twice(slug):
    known = check_mutants.listed(slug)
    assert not set(known["no_fault"]) & set(known["weak"])
    for reasons in known.values():
        assert all(len(reason.split()) > 2 for reason in reasons.values())


def test_an_unknown_chapter_is_told():
    with pytest.raises(SystemExit, match="no chapter nowhere"):
        check_mutants.main(["nowhere"])


def test_no_child_is_left():
    before = psutil.Process().children()
    tried(chapter(SQUARE), {})
    assert set(psutil.Process().children()) <= set(before)
