"""More than two variables, against sums over all graphs, cells and plain tables."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from rng import rng
from scipy.special import log_softmax, softmax

from iclrtut.chapters.meta_transfer import graphs, method


def close(result, expected, tolerance=1e-12):
    assert np.abs(np.asarray(result) - np.asarray(expected)).max() <= tolerance


def has_cycle(graph):
    """Depth first, from each node."""
    d = len(graph)

    def reaches(i, goal, visited):
        for j in range(d):
            if graph[i][j] and j == goal:
                return True
            if graph[i][j] and j not in visited and reaches(j, goal, {*visited, j}):
                return True
        return False

    return any(reaches(i, i, set()) for i in range(d))


@pytest.mark.parametrize("d", [2, 3, 4])
def test_graphs_are_all_there_cycles_are_seen_and_counts_need_no_list(d):
    every, counts = graphs.graphs(d), graphs.how_many(6)
    assert len(every.flatten(1).unique(dim=0)) == len(every)
    assert not every.diagonal(dim1=1, dim2=2).any()
    free = graphs.acyclic(every)
    assert free.tolist() == [not has_cycle(graph) for graph in every.tolist()]
    count = counts[d - 2]
    assert (count.nodes, count.graphs, count.acyclic) == (d, len(every), free.sum())
    # Labelled acyclic digraphs, sequence A003024 of the OEIS.
    assert [c.acyclic for c in counts] == [3, 25, 543, 29281, 3781503]
    sets = graphs.parent_sets(d)
    assert sets.shape == (d, 2 ** (d - 1), d)
    assert sets.shape[:2].numel() == count.sets
    for i, others in enumerate(sets):
        assert not others[:, i].any()
        assert len(others.unique(dim=0)) == len(others)


def where(sets, parents):
    """The number of a parent set."""
    return sets.tolist().index([j in parents for j in range(len(sets[0]))])


@pytest.mark.parametrize("d", [2, 3])
def test_the_slope_of_edges_is_that_of_the_regret_over_all_graphs(d):
    g = rng()
    gamma = torch.randn(5, d, d, generator=g, dtype=torch.float64, requires_grad=True)
    log_l = torch.randn(5, d, 2 ** (d - 1), generator=g, dtype=torch.float64) - 5000
    sets, terms = graphs.parent_sets(d), []
    for graph in graphs.graphs(d).tolist():
        term = torch.zeros(5, dtype=torch.float64)
        for i, j in product(range(d), range(d)):
            if i != j:
                side = gamma[:, i, j] if graph[i][j] else -gamma[:, i, j]
                term = term + torch.nn.functional.logsigmoid(side)
        for i in range(d):
            parents = [j for j in range(d) if graph[i][j]]
            term = term + log_l[:, i, where(sets[i], parents)]
        terms.append(term)
    regret = -torch.stack(terms).logsumexp(0)
    (expected,) = torch.autograd.grad(regret.sum(), gamma)
    result = graphs.edge_slope(gamma.detach(), log_l)
    close(result, expected, 1e-11)
    assert (result.diagonal(dim1=1, dim2=2) == 0).all()


def joint_of_three(runs=3, K=3):
    return method.log_dirichlet((runs, K**3), 1.0, rng()).view(runs, K, K, K)


def slow_conditional(p, i, parents, values):
    """P(x_i | the values of its parents), by summing the cells that agree."""
    given = [(j, values[j]) for j in parents]
    above = below = 0.0
    for cell in product(*map(range, p.shape)):
        if all(cell[j] == v for j, v in given):
            below += p[cell]
            above += p[cell] if cell[i] == values[i] else 0.0
    return above / below


def subsets(i, d=3):
    others = [j for j in range(d) if j != i]
    picks = product((False, True), repeat=d - 1)
    return [[j for j, take in zip(others, pick, strict=True) if take] for pick in picks]


def slow_set_likelihood(p, i, parents, batches, rate):
    """One node, one parent set: a table by context, one SGD step a batch."""
    table, total = {}, 0.0
    for context in product(range(3), repeat=len(parents)):
        values = [0, 0, 0]
        for j, v in zip(parents, context, strict=True):
            values[j] = v
        law = []
        for k in range(3):
            values[i] = k
            law.append(math.log(slow_conditional(p, i, parents, values)))
        table[context] = np.array(law)
    for batch in batches:
        slopes = {context: np.zeros(3) for context in table}
        for x in batch:
            context = tuple(x[j] for j in parents)
            total += log_softmax(table[context])[x[i]]
            slopes[context] += softmax(table[context]) - np.eye(3)[x[i]]
        for context, slope in slopes.items():
            table[context] = table[context] - rate * slope / len(batch)
    return total


def test_likelihoods_by_parent_set_are_those_of_plain_tables():
    joint, T, M = joint_of_three(2), 3, 4
    x = torch.randint(3, (2, 2, T, M, 3), generator=rng())  # [E, R, T, M, 3]
    result = graphs.set_likelihoods(graphs.conditionals(joint), x, 0.7)
    assert result.shape == (2, 2, 3, 4)
    sets = graphs.parent_sets(3)
    for e, r in product(range(2), range(2)):
        p, batches = joint[r].exp().numpy(), x[e, r].tolist()
        for i in range(3):
            for parents in subsets(i):
                expected = slow_set_likelihood(p, i, parents, batches, 0.7)
                one = result[e, r, i, where(sets[i], parents)].item()
                assert one == pytest.approx(expected, abs=1e-10)


def test_a_product_around_a_cycle_need_not_sum_to_one():
    joint, every = joint_of_three(1), graphs.graphs(3)
    result = graphs.mass(joint.expand(64, 3, 3, 3), every)
    p = joint[0].exp().numpy()
    for graph, one in zip(every.tolist(), result.tolist(), strict=True):
        expected = 0.0
        for values in product(range(3), repeat=3):
            factors = [
                slow_conditional(p, i, [j for j in range(3) if graph[i][j]], values)
                for i in range(3)
            ]
            expected += math.prod(factors)
        assert one == pytest.approx(expected, abs=1e-12)
    free = graphs.acyclic(every)
    close(result[free], 1)
    assert (result[~free] - 1).abs().min() > 1e-3


def test_a_pair_believed_both_ways_sums_to_one_plus_chi_square():
    joint = method.log_dirichlet((6, 16), 1.0, rng()).view(6, 4, 4)
    both_ways = (~torch.eye(2, dtype=torch.bool)).expand(6, 2, 2)
    p = joint.exp()
    apart = p.sum(2, keepdim=True) * p.sum(1, keepdim=True)
    close(graphs.mass(joint, both_ways), 1 + ((p - apart) ** 2 / apart).sum((1, 2)))
