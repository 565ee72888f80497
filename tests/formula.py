"""Where the formula stands in a cell that checks it, and how it could be wrong.

A statement belongs to a formula when what it computes reaches exactly one of the two
sides that a check compares; what reaches both is an input, and a fault in an input is
none of the formula.
"""

import ast
import copy
import hashlib
from collections.abc import Callable, Iterator
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np
import torch
from form import CHECKS

# Calls whose arguments say how much is drawn, from where, or how fine a grid is.
DRAWS = {
    *("rand", "randn", "randint", "random", "rand_like", "randn_like", "multinomial"),
    *("normal", "uniform", "beta", "choice", "permutation", "randperm", "rayleigh"),
    *("manual_seed", "generator", "rng", "default_rng", "Generator"),
    *("linspace", "geomspace", "logspace", "isinstance"),
}
# Calls that take the shape of their arguments, and no value.
SIZES = {"zeros_like", "ones_like", "zeros", "ones", "empty", "len", "eye"}
SIZES |= {"rand_like", "randn_like", "symbols"}
SPAN = {"range", "arange"}
# Options that are no part of a formula.
OPTIONS = {"tol", "slack", "wrong", "generator", "dtype", "device", "keepdim", "strict"}
OPTIONS |= {"retain_graph", "create_graph", "positive", "real", "replacement"}
OPTIONS |= {"count", "tries", "draws", "buffers", "limit", "points"}
DROPPED = {"log", "exp", "sqrt", "mean", "sum", "abs", "square", "log1p", "expm1"}
DROPPED |= {"softmax", "log_softmax", "sigmoid", "sin", "cos", "clamp", "clamp_min"}
DROPPED |= {"cumsum", "flip", "transpose", "normalize"}
TURNED = {
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult},
    **{ast.Lt: ast.Gt, ast.Gt: ast.Lt, ast.LtE: ast.GtE, ast.GtE: ast.LtE},
    **{ast.Eq: ast.NotEq, ast.NotEq: ast.Eq},
}
TYPED = (ast.Constant, ast.UnaryOp, ast.BinOp, ast.operator, ast.unaryop)
NESTED = (ast.For, ast.While, ast.If, ast.With)


class Piece(NamedTuple):
    """One value of a block of statements, and the names that it ties together.

    `holder` and `key` say where its expression stands, `stmt` in which statement, and
    `top` in which statement of the block. `kills` says that it replaces what it writes.
    """

    holder: Any
    key: Any
    stmt: ast.stmt
    top: int
    writes: frozenset[str]
    reads: frozenset[str]
    kills: bool


class Check(NamedTuple):
    """A call of a check, and the statement of the block that it stands in."""

    call: ast.Call
    stmt: ast.stmt
    top: int

    @property
    def numbers(self) -> str:
        """The equations, as its first argument tells them."""
        first = self.call.args[0]
        return first.value if isinstance(first, ast.Constant) else "?"

    @property
    def sides(self) -> list[frozenset[str]]:
        """The names that the left side reads, and those that the right side does."""
        left, *right = self.call.args[2:4]
        if isinstance(left, ast.Starred):
            name = ast.unparse(left.value)
            return [frozenset({f"{name}*{side}"}) for side in (0, 1)]
        return [reads(left), reads(right[0])] if right else [reads(left), frozenset()]


class Fault(NamedTuple):
    """A statement of the block with one fault; the line it is in, and how that was."""

    top: int
    statement: ast.stmt
    text: str
    line: str


def called(node: ast.AST) -> str:
    """The last name of what a call calls; of anything else, nothing."""
    if not isinstance(node, ast.Call):
        return ""
    func = node.func
    return func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "")


def checks(statements: list[ast.stmt]) -> list[Check]:
    """Every call of a check in a block, in order."""
    return [
        Check(node.value, node, top)
        for top, statement in enumerate(statements)
        for node in ast.walk(statement)
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and called(node.value) in CHECKS
    ]


def helpers(statements: list[ast.stmt], drawing: set[str]) -> set[str]:
    """The functions defined here that draw random numbers."""
    return {
        node.name
        for statement in statements
        for node in ast.walk(statement)
        if isinstance(node, ast.FunctionDef)
        and any(called(inner) in drawing - SPAN for inner in ast.walk(node))
    }


def reads(node: ast.AST) -> frozenset[str]:
    """The names whose values a piece of code reads; their shapes alone do not count."""
    if called(node) in SIZES:
        return frozenset()
    if isinstance(node, ast.Attribute) and node.attr == "shape":
        return frozenset()
    if isinstance(node, ast.Name):
        return frozenset({node.id} if isinstance(node.ctx, ast.Load) else ())
    found = frozenset().union(*map(reads, ast.iter_child_nodes(node)))
    if isinstance(node, ast.FunctionDef | ast.Lambda):
        stored = {n.id for n in ast.walk(node) if _is_stored(n)}
        return (
            found - stored - {a.arg for a in ast.walk(node) if isinstance(a, ast.arg)}
        )
    return found


def typed(node: ast.expr) -> bool:
    """Whether an expression is made of typed numbers alone."""
    return all(isinstance(n, TYPED) for n in ast.walk(node))


def _is_stored(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)


def stored(target: ast.AST) -> frozenset[str]:
    """The names that an assignment to this target changes."""
    return frozenset(
        n.id
        for n in ast.walk(target)
        if isinstance(n, ast.Name)
        and (isinstance(n.ctx, ast.Store) or not isinstance(target, ast.Name))
    )


def pieces(statements: list[ast.stmt]) -> list[Piece]:
    """The values that a block computes, in order."""
    return [
        piece
        for top, stmt in enumerate(statements)
        for piece in _pieces(stmt, top, kills=True)
    ]


def _pieces(stmt: ast.stmt, top: int, kills: bool) -> Iterator[Piece]:
    def piece(holder: Any, key: Any, writes: Any, anew: bool = kills) -> Piece:
        node = holder[key] if isinstance(holder, list) else getattr(holder, key)
        return Piece(
            holder, key, stmt, top, frozenset(writes), reads(node), kills and anew
        )

    if isinstance(stmt, NESTED):
        inside = {n.id for n in ast.walk(stmt) if _is_stored(n)}
        if isinstance(stmt, ast.For):
            yield piece(stmt, "iter", stored(stmt.target), False)
        elif isinstance(stmt, ast.If | ast.While):
            yield piece(stmt, "test", inside, False)
        for inner in (*stmt.body, *getattr(stmt, "orelse", [])):
            yield from _pieces(inner, top, kills=False)
    elif isinstance(stmt, ast.FunctionDef):
        whole = Piece([stmt], 0, stmt, top, frozenset({stmt.name}), reads(stmt), kills)
        yield whole
    elif isinstance(stmt, ast.AugAssign):
        yield piece([stmt], 0, stored(stmt.target), False)
    elif isinstance(stmt, ast.Assign):
        yield from _assigned(stmt, piece)
    elif isinstance(stmt, ast.Expr) and isinstance(stmt.value, ast.Call):
        owner = getattr(stmt.value.func, "value", None)
        if isinstance(owner, ast.Name):  # a list that grows, a tensor changed in place
            yield piece(stmt, "value", {owner.id}, False)


def _assigned(stmt: ast.Assign, piece: Callable[..., Piece]) -> Iterator[Piece]:
    """An assignment: one piece, or one for each value where it lists them."""
    target, value = stmt.targets[-1], stmt.value
    listed = value.elts if isinstance(value, ast.Tuple | ast.List) else []
    plain = isinstance(target, ast.Name)
    if isinstance(target, ast.Tuple) and len(target.elts) == len(listed):
        for number, name in enumerate(target.elts):
            yield piece(listed, number, stored(name), isinstance(name, ast.Name))
    elif plain and len(listed) == 2:  # a pair that `*pair` may hand to a check
        for side in (0, 1):
            yield piece(listed, side, {f"{target.id}*{side}", target.id}, False)
    elif plain and isinstance(value, ast.ListComp) and _pair(value):
        for side in (0, 1):
            yield piece(_pair(value), side, {f"{target.id}*{side}", target.id}, False)
        yield piece(value, "elt", _with_sides({target.id}))
    else:
        names = _with_sides(frozenset().union(*map(stored, stmt.targets)))
        yield piece(stmt, "value", names, isinstance(target, ast.Name | ast.Tuple))


def _with_sides(names: Any) -> frozenset[str]:
    """Names, and what they may hold for the left and the right side of a check."""
    return frozenset(names) | {f"{name}*{side}" for name in names for side in (0, 1)}


def _pair(value: ast.ListComp) -> list[ast.expr]:
    """The two values that a list is made from, where they are listed in it."""
    over = value.generators[0].iter
    listed = over.elts if isinstance(over, ast.Tuple | ast.List) else []
    return listed if len(listed) == 2 else []


def reach(known: list[Piece], check: Check, names: frozenset[str]) -> set[int]:
    """The pieces, by number, that reach these names at a check."""
    needed, found = set(names), set()
    for top in range(check.top, -1, -1):
        group = [i for i, piece in enumerate(known) if piece.top == top]
        here: set[int] = set()
        while fresh := [i for i in group if i not in here and known[i].writes & needed]:
            here |= set(fresh)
            needed |= {n for i in fresh if not known[i].kills for n in known[i].reads}
        needed -= {n for i in here if known[i].kills for n in known[i].writes}
        needed |= {n for i in here for n in known[i].reads}
        found |= here
    return found


def formulas(statements: list[ast.stmt], drawing: set[str]) -> list[Piece]:
    """The pieces that belong to the formula's side of a check; the sides themselves.

    A function is one of them when any check calls it on one side only. Another piece
    is none when a check reads it on both sides. What draws random numbers is an input,
    but for a Monte Carlo check, whose formula is how they are distributed.

    Args:
        statements: the block.
        drawing: names of calls that draw random numbers.
    """
    known, one, both = pieces(statements), set(), set()
    found = checks(statements)
    drawn = {
        number
        for number, piece in enumerate(known)
        if not isinstance(piece.stmt, ast.FunctionDef)
        and any(
            called(node) in drawing for node in ast.walk(_get(piece.holder, piece.key))
        )
    }
    for check in found:
        left, right = (reach(known, check, names) for names in check.sides)
        simulated = called(check.call) == "monte_carlo"
        one |= (left ^ right) - (set() if simulated else drawn)
        both |= left & right
    chosen = [
        piece
        for number, piece in enumerate(known)
        if number in one
        and (number not in both or isinstance(piece.stmt, ast.FunctionDef))
    ]
    for check in found:
        for key, side in enumerate(check.call.args[2:4], 2):
            if not isinstance(side, ast.Starred):
                none: frozenset[str] = frozenset()
                args = check.call.args
                chosen.append(Piece(args, key, check.stmt, check.top, none, none, True))
    return chosen


def faults(
    statements: list[ast.stmt], known: dict[str, Any], drawing: set[str]
) -> list[Fault]:
    """Each fault of a block's formulas, alone, and none twice.

    Args:
        statements: the block; it is left as it was.
        known: name -> what it holds after the block, see `kind`.
        drawing: names of calls, or of their arguments, that draw random numbers.
    """
    made = {}
    for piece in formulas(statements, drawing):
        for stmt, holder, key, node in _sites(piece.holder, piece.key, piece, drawing):
            line, ways = header(stmt), [*_wrong(node, known, stmt)]
            if node is _get(piece.holder, piece.key) or isinstance(holder, ast.Return):
                ways += _whole(node, piece)
            for wrong in ways:
                _set(holder, key, wrong)
                text = header(stmt)
                if text != line and not _same_sides(stmt):
                    changed = copy.deepcopy(statements[piece.top])
                    made.setdefault(
                        (piece.top, text), Fault(piece.top, changed, text, line)
                    )
                _set(holder, key, node)
    return list(made.values())


def _same_sides(stmt: ast.stmt) -> bool:
    """Whether a fault has made a check compare an expression with itself."""
    return any(
        len(set(map(ast.dump, c.call.args[2:4]))) == 1
        for c in checks([stmt])
        if len(c.call.args) > 3
    )


def header(stmt: ast.stmt) -> str:
    """A statement in one line, without its body."""
    if not hasattr(stmt, "body"):
        return ast.unparse(stmt)
    bare = copy.copy(stmt)
    bare.body = []  # type: ignore[attr-defined]
    return ast.unparse(bare).strip()


def _get(holder: Any, key: Any) -> Any:
    return holder[key] if isinstance(holder, list) else getattr(holder, key)


def _set(holder: Any, key: Any, node: ast.AST) -> None:
    if isinstance(holder, list):
        holder[key] = node
    else:
        setattr(holder, key, node)


def _sites(holder: Any, key: Any, piece: Piece, drawing: set[str]) -> Iterator[Any]:
    """(statement, holder, key, node) of each node that may be faulty."""

    def walk(stmt: ast.stmt, holder: Any, key: Any) -> Iterator[Any]:
        node = _get(holder, key)
        if isinstance(node, ast.stmt):
            stmt = node
        yield stmt, holder, key, node
        if isinstance(node, ast.AugAssign):
            yield stmt, node, "op", node.op
        for inner, place in _below(node, drawing):
            yield from walk(stmt, inner, place)

    return walk(piece.stmt, holder, key)


def _below(node: ast.AST, drawing: set[str]) -> Iterator[tuple[Any, Any]]:
    """Where the parts of a node stand that may be faulty themselves."""
    skipped = {"targets", "target", "ctx", "op", "ops", "annotation", "returns"}
    if isinstance(node, ast.JoinedStr | ast.Import | ast.ImportFrom):
        return
    if isinstance(node, ast.Call):
        names = {n.id for a in _arguments(node) for n in [a] if isinstance(n, ast.Name)}
        name = called(node)
        if name == "print" or name in SIZES:
            return
        skipped |= {"func"} if isinstance(node.func, ast.Name) else set()
        if name in drawing or names & drawing or _has_generator(node):
            skipped |= {"args", "keywords"}
        if name in SPAN:
            if len(node.args) > 1:
                yield node.args, 0
            return
    if isinstance(node, ast.keyword) and node.arg in OPTIONS:
        return
    if isinstance(node, ast.arguments):
        names = [argument.arg for argument in node.args][-len(node.defaults) or None :]
        yield from (
            (node.defaults, number)
            for number in range(len(node.defaults))
            if names[number] not in OPTIONS
        )
        return
    for field, value in ast.iter_fields(node):
        if field in skipped:
            continue
        if isinstance(value, list):
            for number, each in enumerate(value):
                if isinstance(each, ast.AST):
                    yield value, number
        elif isinstance(value, ast.AST):
            yield node, field


def _arguments(call: ast.Call) -> list[ast.expr]:
    return [*call.args, *(keyword.value for keyword in call.keywords)]


def _has_generator(call: ast.Call) -> bool:
    return any(keyword.arg == "generator" for keyword in call.keywords)


def _wrong(node: Any, known: dict[str, Any], stmt: ast.stmt) -> Iterator[ast.AST]:
    """The ways in which one node could be wrong."""
    if isinstance(node, ast.BinOp):
        yield from _operation(node)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield node.operand
    elif isinstance(node, ast.operator) and type(node) in TURNED:
        yield TURNED[type(node)]()
    elif isinstance(node, ast.Compare):
        turned = TURNED.get(type(node.ops[0]))
        if turned:
            yield _with(node, ops=[turned(), *node.ops[1:]])
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        number = node.value
        values = {number + 1, 2 * number} if number else {1}
        yield from (ast.Constant(value) for value in sorted(values))
    elif isinstance(node, ast.Attribute) and node.attr in ("T", "mT"):
        yield node.value
    elif called(node) in DROPPED:
        method = isinstance(node.func, ast.Attribute) and not is_module(node.func)
        within = node.func.value if method else (node.args or [None])[0]
        if within is not None:
            yield within
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        yield from (
            ast.Name(name, ast.Load()) for name in _others(node.id, known, stmt)
        )


def _operation(node: ast.BinOp) -> Iterator[ast.AST]:
    """The other operator, each operand left out, operands exchanged."""
    left, op, right = node.left, node.op, node.right
    if type(op) in TURNED:
        yield _with(node, op=TURNED[type(op)]())
        yield left
        if isinstance(op, ast.Sub):
            yield ast.UnaryOp(ast.USub(), right)
        elif isinstance(op, ast.Div):
            yield ast.BinOp(ast.Constant(1), op, right)
        else:
            yield right
    elif isinstance(op, ast.MatMult):
        yield _with(node, left=right, right=left)
    elif isinstance(op, ast.Pow):
        yield left
        if not isinstance(right, ast.Constant):
            yield _with(node, right=ast.BinOp(right, ast.Add(), ast.Constant(1)))


def _with(node: Any, **changes: Any) -> Any:
    """A copy of a node with other parts."""
    return type(node)(**(dict(ast.iter_fields(node)) | changes))


def _whole(node: ast.AST, piece: Piece) -> list[ast.AST]:
    """A value with the other sign; a bound twice and half as high."""
    ways: list[ast.AST] = []
    signed = isinstance(node, ast.BinOp) and not isinstance(node.op, ast.Add | ast.Sub)
    if signed or (
        isinstance(node, ast.Call) and called(node) not in CHECKS | DRAWS | SIZES
    ):
        ways.append(ast.UnaryOp(ast.USub(), node))
    check = getattr(piece.stmt, "value", None)
    bound = called(check) == "at_most" and node is check.args[3]
    if bound and not typed(node):
        twice = ast.BinOp(ast.Constant(2), ast.Mult(), node)
        ways += [twice, ast.BinOp(node, ast.Div(), ast.Constant(2))]
    return ways


def is_module(function: ast.Attribute) -> bool:
    """Whether a function is one of a module's, such as np.log."""
    root: Any = function.value
    while isinstance(root, ast.Attribute):
        root = root.value
    return getattr(root, "id", "") in {"np", "torch", "sympy", "math", "F", "nn"}


def _others(name: str, known: dict[str, Any], stmt: ast.stmt) -> list[str]:
    """One name of the block for something of the same kind, if there is one."""
    if name not in known:
        return []
    kind, content = known[name]
    alike = sorted(n for n, (k, c) in known.items() if k == kind and c != content)
    taken = {n.id for n in ast.walk(stmt) if _is_stored(n)}
    alike = [n for n in alike if n not in taken]
    later = [*takewhile(lambda n: n > name, reversed(alike))]
    return later[-1:] or alike[:1]


def kind(value: Any) -> tuple[str, str] | None:
    """What sort of data a value is, and a digest of it; nothing for what is no data."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return type(value).__name__, repr(value)
    array = value.detach().numpy() if isinstance(value, torch.Tensor) else value
    if isinstance(array, np.ndarray | np.generic):
        digest = hashlib.sha256(array.tobytes()).hexdigest()
        return f"{array.dtype} {array.shape}", digest
    if type(value).__module__.startswith("sympy"):
        return "sympy", str(value)
    return None
