"""How many acyclic graphs there are, what data can tell apart, and new names.

A graph on n nodes is bool [n, n]: A[i, j] says i -> j. The numbers of acyclic ones are
those of `method.dags`. Numbers in brackets are equations of the chapter
`causal_induction`.
"""

import math
from collections.abc import Sequence
from functools import cache
from itertools import permutations, product

import torch
from torch import Tensor

from iclrtut.chapters.causal_induction.method import dags, nodes, reach
from iclrtut.inputs import need, whole


@cache
def robinson(n: int) -> int:
    """How many acyclic graphs n labelled nodes have, (3).

    Raises:
        BadRequest: a negative number of nodes.
    """
    need(n >= 0, f"n is {n}: give a number of nodes from 0 on.")
    terms = (
        (-1) ** (k + 1) * math.comb(n, k) * 2 ** (k * (n - k)) * robinson(n - k)
        for k in range(1, n + 1)
    )
    return sum(terms) if n else 1


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
    fit = bool((codes[at] == code).all())
    need(fit, f"a graph on {n} nodes has a cycle: give acyclic ones.")
    return order[at]


# What data can tell apart


def separated(A: Tensor, i: int, j: int, given: Sequence[int]) -> Tensor:
    """Whether i and j are d-separated given a set of nodes, bool [...].

    In the moral graph of the ancestors of all named nodes, every path from i to j
    goes through the set; Lauritzen et al. (1990).

    Args:
        A: acyclic graphs [..., n, n].
        i, j: two nodes.
        given: nodes other than i and j.

    Raises:
        BadRequest: a node that is not there, or is named twice.
    """
    named = whole([i, j, *given], A.shape[-1] - 1, "nodes")
    need(len({*named}) == len(named), f"nodes {named}: name each of them once.")
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

    Raises:
        BadRequest: a target that is no node.
    """
    targets = whole(targets, A.shape[-1] - 1, "targets")
    parts = [skeleton(A), v_structures(A), *(skeleton(cut(A, k)) for k in targets)]
    keys = torch.cat([part.flatten(1) for part in parts], 1)
    labels: Tensor = torch.unique(keys.byte(), dim=0, return_inverse=True)[1]
    return labels


# New names


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


def relabel(values: Tensor, targets: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    """The same data with nodes renamed: new node a is old node order[a], (13).

    Args:
        values: [B, T, n].
        targets: int64 [B, T].
        order: int64 [n], a row of `relabelling`.

    Raises:
        BadRequest: an order that does not name every node once.
    """
    fit = sorted(order) == [*range(values.shape[-1])]
    need(fit, f"order is {order}: name each of {values.shape[-1]} nodes once.")
    place = torch.argsort(torch.as_tensor(order))  # new name of each old node
    new = torch.where(targets < 0, targets, place[targets.clamp_min(0)])
    return values[..., order], new


def symmetrised(log_qs: Tensor) -> Tensor:
    """The mean over relabellings of beliefs, each read in the old names, (13).

    Args:
        log_qs: of the data in each order of `relabelling`, [n!, ..., graphs].

    Returns:
        log q of the graphs in their old names, [..., graphs].
    """
    new = relabelling(nodes(log_qs))[1]
    old = torch.stack([q[..., r] for q, r in zip(log_qs, new, strict=True)])
    return old.logsumexp(0) - math.log(len(old))
