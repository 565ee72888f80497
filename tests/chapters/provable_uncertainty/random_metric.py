"""A random Mahalanobis metric."""

from rng import normal

from iclrtut.chapters.provable_uncertainty.method import fit_metric


def metric(D, seed=0):
    return fit_metric(normal(4 * D + 8, D, seed=seed) @ normal(D, D, seed=seed + 1))
