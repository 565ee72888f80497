"""More than two variables: beliefs in the edges of a graph, equation (19).

A graph on d nodes is bool [..., d, d]; an edge [i, j] says that j is a parent of i. A
node's sets of possible parents are numbered as in `parent_sets`. Numbers in brackets
are equations of the chapter.
"""

import math
from functools import cache
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

# Graphs


def _choices(n: int) -> Tensor:
    """All ways to say no or yes n times, bool [2^n, n]."""
    return torch.tensor(list(product((False, True), repeat=n)))


def graphs(d: int) -> Tensor:
    """All directed graphs on d nodes without loops, bool [2^(d(d-1)), d, d]."""
    edges = _choices(d * (d - 1))
    every = torch.zeros(len(edges), d, d, dtype=torch.bool)
    every[:, ~torch.eye(d, dtype=torch.bool)] = edges
    return every


def acyclic(graph: Tensor) -> Tensor:
    """Whether graphs [..., d, d] have no directed cycle, [...]."""
    walks: Tensor = torch.linalg.matrix_power(graph.double(), graph.shape[-1])
    return walks.sum((-2, -1)) == 0


@cache
def parent_sets(d: int) -> Tensor:
    """The sets of possible parents of each node, bool [d, 2^(d-1), d]."""
    others = _choices(d - 1)
    none = torch.zeros(len(others), 1, dtype=torch.bool)
    sets = [torch.cat([others[:, :i], none, others[:, i:]], 1) for i in range(d)]
    return torch.stack(sets)


class Count(NamedTuple):
    """How much there is to learn and to choose from on d nodes."""

    nodes: int
    sets: int  # conditionals to learn, d 2^(d-1)
    graphs: int  # 2^(d(d-1))
    acyclic: int  # by Robinson's recursion


def how_many(most: int = 6) -> list[Count]:
    """Parent sets, graphs and acyclic graphs on 2 to `most` nodes."""
    dags = [1]
    for d in range(1, most + 1):
        terms = (
            (-1) ** (k + 1) * math.comb(d, k) * 2 ** (k * (d - k)) * dags[d - k]
            for k in range(1, d + 1)
        )
        dags.append(sum(terms))
    return [
        Count(d, d * 2 ** (d - 1), 2 ** (d * (d - 1)), dags[d])
        for d in range(2, most + 1)
    ]


# Beliefs


def edge_slope(gamma: Tensor, log_likelihoods: Tensor) -> Tensor:
    """dR/dgamma_ij = sigma(gamma_ij) - P(edge | data), node by node, (19).

    Args:
        gamma: logits of independent edges, [..., d, d]; the diagonal is not used.
        log_likelihoods: of the data, node by parent set, [..., d, 2^(d-1)], in nats.

    Returns:
        [..., d, d], zero on the diagonal.
    """
    d = gamma.shape[-1]
    sets, off = parent_sets(d).to(gamma), 1 - torch.eye(d).to(gamma)
    prior = torch.einsum("isj,...ij->...is", sets, logsigmoid(gamma))
    prior += torch.einsum("isj,...ij->...is", off[:, None] - sets, logsigmoid(-gamma))
    posterior = (prior + log_likelihoods).softmax(-1)
    return off * gamma.sigmoid() - torch.einsum("isj,...is->...ij", sets, posterior)


def conditionals(joint: Tensor) -> Tensor:
    """log P(x_i | its parents) of each node i and parent set, from a joint.

    Args:
        joint: log P(x_1, ..., x_d), [R, K, ..., K].

    Returns:
        [R, d, 2^(d-1), K^(d-1), K]: contexts are the values of all other nodes, in
        order, of which a set sees its own; the last axis is x_i.
    """
    R, K, d = len(joint), joint.shape[1], joint.ndim - 1
    tables = []
    for i, sets in enumerate(parent_sets(d)):
        for parents in sets:
            hidden = [j + 1 for j in range(d) if j != i and not parents[j]]
            visible = joint.logsumexp(hidden, keepdim=True) if hidden else joint
            log_p = visible.log_softmax(i + 1).expand_as(joint).movedim(i + 1, -1)
            tables.append(log_p.reshape(R, K ** (d - 1), K))
    return torch.stack(tables, 1).view(R, d, -1, K ** (d - 1), K)


def set_likelihoods(tables: Tensor, x: Tensor, rate: float) -> Tensor:
    """log P of each node's values before each SGD step, by parent set, summed.

    Args:
        tables: logits where the learners start, as from `conditionals`.
        x: int64 [..., R, T, M, d]: T batches of M examples.
        rate: of SGD on each node's mean negative log-likelihood of a batch.

    Returns:
        [..., R, d, 2^(d-1)], in nats.
    """
    (d, _, _, K), M = tables.shape[1:], x.shape[-2]
    place = _places(d, K).to(x.device)
    tables = tables.expand(*x.shape[:-4], *tables.shape)
    total = []
    for batch in x.unbind(-3):  # [..., R, M, d]
        row = (batch[..., None, None, :, :] * place[:, :, None]).sum(-1)
        cell = row * K + batch.mT[..., None, :]  # [..., R, d, sets, M]
        log_p = tables.log_softmax(-1)
        total.append(log_p.flatten(-2).gather(-1, cell).sum(-1))
        counts = torch.zeros_like(log_p).flatten(-2)
        counts.scatter_add_(-1, cell, torch.ones_like(cell).to(counts))
        counts = counts.view_as(log_p)
        slope = counts.sum(-1, keepdim=True) * log_p.exp() - counts
        tables = tables - rate / M * slope
    return torch.stack(total).sum(0)


def _places(d: int, K: int) -> Tensor:
    """What a value of node j adds to the number of a context, int64 [d, 2^(d-1), d].

    A node that a set does not see adds nothing: the table is the same there.
    """
    i, j = torch.arange(d)[:, None], torch.arange(d)
    after = d - 1 - j - (j < i).long()  # other nodes that come after j
    return parent_sets(d) * (K ** after.clamp_min(0))[:, None]


def mass(joint: Tensor, graph: Tensor) -> Tensor:
    """The sum over all values of prod_i P(x_i | parents), [R]; 1 if acyclic, (19a).

    Args:
        joint: log P(x_1, ..., x_d), [R, K, ..., K].
        graph: bool [R, d, d].
    """
    d, R = joint.ndim - 1, len(joint)
    values = torch.cartesian_prod(*[torch.arange(joint.shape[1])] * d).to(joint.device)
    x = values[:, None, None, None].expand(-1, R, 1, 1, d)
    log_p = set_likelihoods(conditionals(joint), x, rate=0.0)  # [K^d, R, d, sets]
    parents = (graph[:, :, None] == parent_sets(d).to(graph.device)).all(-1)
    return (log_p * parents).sum((-2, -1)).exp().sum(0)
