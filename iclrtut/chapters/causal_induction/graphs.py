"""All directed acyclic graphs on a few nodes, and what data can tell apart.

A graph on n nodes is bool [n, n]: A[i, j] says i -> j. `dags` numbers the acyclic
ones, and everything else counts on that order. Numbers in brackets are equations of
the chapter `causal_induction`.
"""

import math
from collections.abc import Sequence
from functools import cache
from itertools import permutations, product

import torch
from torch import Tensor

from iclrtut.errors import BadRequest

MOST = 5  # nodes: 29,281 graphs; six would have 3,781,503


def _check(n: int) -> None:
    if not 1 <= n <= MOST:
        raise BadRequest(f"n is {n}: the graphs are listed for 1 to {MOST} nodes.")


@cache
def robinson(n: int) -> int:
    """How many acyclic graphs n labelled nodes have, (3).

    Raises:
        BadRequest: a negative number of nodes.
    """
    if n < 0:
        raise BadRequest(f"n is {n}: give a number of nodes from 0 on.")
    if n == 0:
        return 1
    return sum(
        (-1) ** (k + 1) * math.comb(n, k) * 2 ** (k * (n - k)) * robinson(n - k)
        for k in range(1, n + 1)
    )


@cache
def parent_sets(n: int) -> Tensor:
    """The sets of possible parents of each node, bool [n, 2^(n-1), n].

    Bit j of a set's number says whether the j-th other node is in it.
    """
    _check(n)
    bits = (torch.arange(2 ** (n - 1))[:, None] >> torch.arange(n - 1)) % 2 == 1
    sets = torch.zeros(n, 2 ** (n - 1), n, dtype=torch.bool)
    for i in range(n):
        sets[i, :, others(n)[i]] = bits
    return sets


@cache
def others(n: int) -> Tensor:
    """The other nodes of each node, in order, int64 [n, n - 1]."""
    rows = [[j for j in range(n) if j != i] for i in range(n)]
    return torch.tensor(rows, dtype=torch.int64).view(n, n - 1)


@cache
def dags(n: int) -> Tensor:
    """All acyclic graphs on n nodes, bool [robinson(n), n, n]; number 0 is empty.

    Node n joins each graph on n - 1 nodes in all ways that close no cycle: no path
    leads from one of its children to one of its parents.

    Raises:
        BadRequest: no nodes, or more than five.
    """
    _check(n)
    if n == 1:
        return torch.zeros(1, 1, 1, dtype=torch.bool)
    old = dags(n - 1)
    ways = torch.tensor(list(product((False, True), repeat=2 * (n - 1))))
    parents, children = ways[:, : n - 1].double(), ways[:, n - 1 :].double()
    path = reach(old).double()
    allowed = torch.einsum("wc,gcp,wp->gw", children, path, parents) == 0
    at, way = allowed.nonzero(as_tuple=True)
    new = torch.zeros(len(at), n, n, dtype=torch.bool)
    new[:, :-1, :-1] = old[at]
    new[:, :-1, -1], new[:, -1, :-1] = parents[way] > 0, children[way] > 0
    return new


@cache
def families(n: int) -> Tensor:
    """The number of each node's set of parents in each graph, int64 [graphs, n]."""
    A, weight = dags(n), 2 ** torch.arange(n - 1)
    columns = [(A[:, o, i] * weight).sum(-1) for i, o in enumerate(others(n))]
    return torch.stack(columns, -1)


def number(A: Tensor) -> Tensor:
    """The numbers in `dags` of acyclic graphs [..., n, n], int64 [...].

    Raises:
        BadRequest: a graph with a cycle, or too many nodes.
    """
    n = A.shape[-1]
    weight = 2 ** torch.arange(n * n)
    codes, order = (dags(n).flatten(1) * weight).sum(-1).sort()
    code = (A.flatten(-2).bool() * weight).sum(-1)
    at = torch.searchsorted(codes, code).clamp_max(len(codes) - 1)
    if not bool((codes[at] == code).all()):
        raise BadRequest(f"a graph on {n} nodes has a cycle: give acyclic ones.")
    return order[at]


@cache
def relabelling(n: int) -> tuple[Tensor, Tensor]:
    """All n! orders of the nodes, and what each makes of each graph, (13).

    Returns:
        orders, int64 [n!, n]: new node a is old node orders[., a]; and int64
        [n!, graphs]: the new number of each graph.
    """
    orders = torch.tensor(list(permutations(range(n))))
    A = dags(n)
    return orders, torch.stack([number(A[:, o][:, :, o]) for o in orders])


# What data can tell apart


def reach(A: Tensor) -> Tensor:
    """Whether a path, of no step or more, leads from i to j; bool [..., n, n]."""
    n = A.shape[-1]
    step = A.double() + torch.eye(n, dtype=torch.float64)
    walks: Tensor = torch.linalg.matrix_power(step, n)
    return walks > 0


def separated(A: Tensor, i: int, j: int, given: Sequence[int]) -> Tensor:
    """Whether i and j are d-separated given a set of nodes, bool [...].

    In the moral graph of the ancestors of all named nodes, every path from i to j
    goes through the set; Lauritzen et al. (1990).

    Args:
        A: acyclic graphs [..., n, n].
        i, j: two nodes.
        given: nodes other than i and j.
    """
    named = [i, j, *given]
    kept = reach(A)[..., named].any(-1)
    sub = (A & kept[..., None] & kept[..., None, :]).double()
    moral = sub + sub.mT + sub @ sub.mT > 0
    moral[..., list(given), :] = False
    moral[..., list(given)] = False
    return ~reach(moral)[..., i, j]


def separations(A: Tensor) -> Tensor:
    """All d-separations of graphs [..., n, n], bool [..., pairs x 2^(n-2)]."""
    n, columns = A.shape[-1], []
    for i in range(n):
        for j in range(i):
            rest = [k for k in range(n) if k not in (i, j)]
            for chosen in product((False, True), repeat=n - 2):
                given = [k for k, yes in zip(rest, chosen, strict=True) if yes]
                columns.append(separated(A, i, j, given))
    return torch.stack(columns, -1)


def skeleton(A: Tensor) -> Tensor:
    """Which nodes are adjacent, bool [..., n, n]."""
    return A | A.mT


def v_structures(A: Tensor) -> Tensor:
    """Where i -> k <- j and i, j are not adjacent, bool [..., n, n, n] at [i, j, k]."""
    meet = A[..., :, None, :] & A[..., None, :, :]
    apart = ~(skeleton(A) | torch.eye(A.shape[-1], dtype=torch.bool))
    return meet & apart[..., None]


def cut(A: Tensor, target: int) -> Tensor:
    """Graphs without the arrows into a node that an intervention forces."""
    result = A.clone()
    result[..., :, target] = False
    return result


def classes(A: Tensor, targets: Sequence[int] = ()) -> Tensor:
    """The number of each graph's class: no data tell its members apart, (4), (5).

    Equal skeletons and v-structures, and equal skeletons after cutting each target's
    parents; Hauser and Buehlmann (2012). Observations count as seen, too.

    Args:
        A: acyclic graphs [G, n, n].
        targets: nodes that were forced, each on its own.

    Returns:
        int64 [G], from 0.
    """
    parts = [skeleton(A), v_structures(A), *(skeleton(cut(A, k)) for k in targets)]
    keys = torch.cat([part.flatten(1) for part in parts], 1)
    labels: Tensor = torch.unique(keys.byte(), dim=0, return_inverse=True)[1]
    return labels
