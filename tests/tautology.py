"""Checks that no formula could fail, told by their form.

Names are replaced by what they were last assigned in the block, so that a share divided
by its own sum is seen where the sum has a name.
"""

import ast
import copy

from formula import called, is_module, typed

LEAST = {"minimum", "min", "amin"}
LARGEST = {"maximum", "max", "amax"}
REDUCED = {"sum", "norm", "mean", "max", "amax", "min", "amin", "std", "var"}
TURNED = {"T", "mT", "H", "mH", "transpose", "swapaxes", "t"}
DEPTH = 8  # of names in names


def tautology(statements: list[ast.stmt], call: ast.Call) -> str:
    """Why a check of this block cannot fail; empty if nothing is seen.

    Args:
        statements: those before the check, and it.
        call: of `close`, `monte_carlo`, `symbolic` or `at_most`.
    """
    assigned = _assigned(statements)
    sides = [_inlined(side, assigned, DEPTH) for side in call.args[2:4]]
    sides = [each for side in sides for each in _split(side)]
    if len(sides) != 2:
        return ""
    one, other = sides
    if _same(one, other):
        return "both sides read the same"
    if all(map(typed, sides)):
        return "both sides are typed"
    for side, rest in ((one, other), (other, one)):
        if _shares_added(side) and _is_one(rest):
            return "shares of a sum add up to one, whatever they are shares of"
    if all(called(side) in REDUCED for side in sides) and _same(*map(_straight, sides)):
        return "a norm is that of the transpose, whatever the matrix"
    if called(call) == "at_most":
        parts = [(one, other, LEAST), (other, one, LARGEST)]
        if any(called(a) in names and _among(b, a) for a, b, names in parts):
            return "a minimum is never above one of its parts"
    return ""


def _assigned(statements: list[ast.stmt]) -> dict[str, ast.expr]:
    """Name -> the expression that it was last assigned, of plain assignments."""
    found: dict[str, ast.expr] = {}
    for node in (n for s in statements for n in ast.walk(s)):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = node.value
    return found


def _inlined(node: ast.expr, known: dict[str, ast.expr], depth: int) -> ast.expr:
    class Inline(ast.NodeTransformer):
        def visit_Name(self, name: ast.Name) -> ast.expr:
            if name.id not in known or not depth:
                return name
            rest = {k: v for k, v in known.items() if k != name.id}
            return _inlined(known[name.id], rest, depth - 1)

    return Inline().visit(copy.deepcopy(node))


def _split(side: ast.expr) -> list[ast.expr]:
    """The two sides of `*[f(z) for z in (a, b)]` or of `*(a, b)`; else the side."""
    if not isinstance(side, ast.Starred):
        return [side]
    value = side.value
    if isinstance(value, ast.Tuple | ast.List):
        return list(value.elts)
    if not isinstance(value, ast.ListComp | ast.GeneratorExp):
        return [side]
    (each, *more), target = value.generators, value.generators[0].target
    if more or not isinstance(target, ast.Name) or not isinstance(each.iter, ast.Tuple):
        return [side]
    return [_inlined(value.elt, {target.id: it}, 1) for it in each.iter.elts]


def _same(one: ast.expr, other: ast.expr) -> bool:
    return ast.dump(one) == ast.dump(other)


def _is_one(node: ast.expr) -> bool:
    return called(node).startswith("ones") or getattr(node, "value", None) == 1


def _operand(node: ast.expr) -> ast.expr | None:
    """What a sum is of: x of `x.sum()`, `x.sum(1)` and `torch.sum(x)`."""
    if called(node) != "sum" or not isinstance(node, ast.Call):
        return None
    if isinstance(node.func, ast.Attribute) and not is_module(node.func):
        return node.func.value
    return node.args[0] if node.args else None


def _shares_added(node: ast.expr) -> bool:
    shares = _operand(node)
    if not isinstance(shares, ast.BinOp) or not isinstance(shares.op, ast.Div):
        return False
    total = shares.right
    while isinstance(total, ast.Subscript):
        total = total.value
    whole = _operand(total)
    return whole is not None and _same(whole, shares.left)


def _straight(node: ast.expr) -> ast.expr:
    """An expression without its transpositions."""

    class Straight(ast.NodeTransformer):
        def visit_Attribute(self, found: ast.Attribute) -> ast.expr:
            self.generic_visit(found)
            return found.value if found.attr in TURNED else found

        def visit_Call(self, found: ast.Call) -> ast.expr:
            turned = called(found) in TURNED
            self.generic_visit(found)
            return found.func if turned else found

    return Straight().visit(copy.deepcopy(node))


def _among(part: ast.expr, whole: ast.expr) -> bool:
    assert isinstance(whole, ast.Call)
    return any(_same(part, argument) for argument in whole.args)
