"""Deliberate faults: a text of the module, what replaces it, what that breaks."""

FAULTS = [
    # Graphs
    ("(-1) ** (k + 1) *", "(-1) ** k *", "Robinson's signs"),
    ("2 ** (k * (n - k))", "2 ** (n - k)", "Robinson counts one edge a node"),
    (
        '"wc,gcp,wp->gw", children, path, parents',
        '"wc,gpc,wp->gw", children, path, parents',
        "paths run from parents to children: cycles are let in",
    ),
    (
        "path = reach(old).double()",
        "path = old.double()",
        "only paths of one step close a cycle",
    ),
    (
        "(A[:, o, i] * weight)",
        "(A[:, i, o] * weight)",
        "children are taken for parents",
    ),
    (
        "A[:, o][:, :, o]",
        "A[:, o]",
        "relabelling moves rows and leaves columns",
    ),
    (
        "kept = reach(A)[..., named].any(-1)",
        "kept = torch.ones_like(A[..., 0])",
        "the moral graph of all nodes, not of the ancestors",
    ),
    (
        "sub + sub.mT + sub @ sub.mT > 0",
        "sub + sub.mT > 0",
        "parents of one child are not married",
    ),
    (
        "sub + sub.mT + sub @ sub.mT > 0",
        "sub + sub.mT + sub.mT @ sub > 0",
        "children of one parent are married",
    ),
    (
        "apart = ~(skeleton(A) |",
        "apart = ~(A |",
        "a v-structure may have adjacent parents",
    ),
    (
        "result[..., :, target] = False",
        "result[..., target, :] = False",
        "an intervention cuts the arrows out of its target",
    ),
    (
        "*(skeleton(cut(A, k)) for k in targets)",
        "*(cut(A, k) for k in targets)",
        "interventions tell all directions apart",
    ),
    (
        "return order[at]",
        "return at",
        "a graph's number is its rank by code",
    ),
    # Worlds
    (
        "(alpha - n + 1 + torch.arange(n, dtype=torch.float64)) / 2",
        "(alpha - n + 1 + torch.zeros(n, dtype=torch.float64)) / 2",
        "the shape of the variance forgets the parents",
    ),
    (
        "alpha = n + 2 if self.alpha is None",
        "alpha = n + 1 if self.alpha is None",
        "another standard prior",
    ),
    (
        "shape = prior.shapes(n)[A.sum(-2)]",
        "shape = prior.shapes(n)[A.sum(-1)]",
        "the draw counts children for parents",
    ),
    (
        "scale = (prior.tau / 2 / torch._standard_gamma(shape, generator)).sqrt()",
        "scale = (prior.tau / torch._standard_gamma(shape, generator)).sqrt()",
        "variances twice as large",
    ),
    (
        "(scale / prior.tau**0.5)[:, None]",
        "(scale / prior.tau**0.5)[..., None]",
        "weights are scaled by their parent's noise",
    ),
    (
        "(scale / prior.tau**0.5)[:, None]",
        "(scale / prior.tau)[:, None]",
        "tau for its root in the weights",
    ),
    (
        "(2 * torch._standard_gamma(half, generator)).sqrt()",
        "(2 * torch._standard_gamma(half, generator) / 3).sqrt()",
        "t noise of variance 3",
    ),
    ("return 12**0.5 * u", "return 3**0.5 * u", "uniform noise of variance 1/4"),
    (
        "torch.log1p(-2 * u.abs()) / 2**0.5",
        "torch.log1p(-2 * u.abs())",
        "Laplace noise of variance 2",
    ),
    (
        "x = torch.where(held, forced[..., None], x)",
        "x = x",
        "a forced node listens to its parents",
    ),
    (
        "for _ in range(n - 1):\n        x = _mechanism",
        "for _ in range(n - 2):\n        x = _mechanism",
        "the last descendant does not hear of a change",
    ),
    (
        "_mechanism(x, world.mechanism) @ world.weights",
        "_mechanism(x, world.mechanism) @ world.weights.mT",
        "effects drive causes",
    ),
    ("return 2 * z.tanh()", "return z.tanh()", "half of the saturating mechanism"),
    (
        "targets, spread * _normal((B, steps), generator)",
        "targets, SPREAD * _normal((B, steps), generator)",
        "the spread of forced values is ignored",
    ),
    # The exact posterior
    (
        "left = (targets[..., None] != torch.arange(n)).to(values)",
        "left = torch.ones_like(values)",
        "an added forced value is evidence for its node",
    ),
    (
        "free = (targets[..., None] != torch.arange(n)).to(x)",
        "free = torch.ones_like(x)",
        "a forced value is evidence for its node",
    ),
    (
        "free = (targets[..., None] != torch.arange(n)).to(x)",
        "free = ((targets[..., None] != torch.arange(n)) & (targets >= 0)[..., None])"
        ".to(x)",
        "steps without an intervention are dropped",
    ),
    (
        "(free[..., None, None] * outer).cumsum(1))",
        "(free[:, :, None, :, None] * outer).cumsum(1))",
        "the mask of a node drops rows, not steps",
    ),
    (
        "table += (a + p / 2) * math.log(prior.tau)",
        "table += a * math.log(prior.tau)",
        "tau's power without the weights",
    ),
    (
        "half * math.log(math.pi)",
        "half * math.log(2 * math.pi)",
        "the normal's 2 pi for the Student's pi",
    ),
    (
        "- torch.lgamma(a)\n",
        "\n",
        "the prior's normaliser is missing",
    ),
    (
        "(a + half) * torch.stack(left).log()",
        "(a + half - 0.5) * torch.stack(left).log()",
        "half a degree of freedom is lost",
    ),
    (
        "- torch.stack(logs) / 2",
        "+ torch.stack(logs) / 2",
        "the sign of log|R_P|",
    ),
    (
        "prior.tau) for i in range(n)), strict=True",
        "2.0) for i in range(n)), strict=True",
        "tau is 2 whatever was asked",
    ),
    (
        "M = torch.cat([rest, rest - less])",
        "M = torch.cat([rest - less, rest])",
        "sets with and without a node are exchanged",
    ),
    (
        "(column / pivot[:, None])[:, :, None] * column[:, None]",
        "column[:, :, None] * column[:, None]",
        "elimination without the pivot",
    ),
    (
        "rows = one_hot(families(n), sets)",
        "rows = one_hot(families(n).flip(1), sets)",
        "every node has the parents of another",
    ),
    (
        "return torch.diff(total, prepend=torch.zeros_like(total[:, :1]))",
        "return torch.diff(total, prepend=total[:, :1])",
        "the first outcome is free",
    ),
    (
        "total = log_likelihoods.logsumexp(-1) - math.log(log_likelihoods.shape[-1])",
        "total = log_likelihoods.logsumexp(-1)",
        "the prior's 1/G is forgotten",
    ),
    # Beliefs
    (
        "torch.where(p > 0, p * (log_p - log_q), 0.0)",
        "p * (log_p - log_q)",
        "graphs ruled out give NaN",
    ),
    (
        "log_p[..., has].logsumexp(-1) - log_p[..., ~has].logsumexp(-1)",
        "torch.logit(log_p[..., has].softmax(-1).sum(-1))",
        "logits of one",
    ),
    (
        "log_p[..., has].logsumexp(-1) - log_p[..., ~has].logsumexp(-1)",
        "torch.logit(log_p.softmax(-1)[..., has].sum(-1))",
        "logits from marginals, which saturate",
    ),
    (
        "free @ A.T - softplus(free).sum(-1, keepdim=True)",
        "free @ A.T",
        "absent edges cost nothing",
    ),
    (
        "(softplus(z) - z * z.sigmoid()).sum(-1) - entropy(log_p)",
        "(softplus(z) - z * z.sigmoid()).sum(-1)",
        "the entropies' sum for the total correlation",
    ),
    # Gains
    (
        "drop = entropy(before) - entropy(after).mean(1)",
        "drop = entropy(after).mean(1) - entropy(before)",
        "a gain's sign",
    ),
    (
        "kl(after, before[:, None]).clamp_min(0)",
        "kl(before[:, None], after).clamp_min(0)",
        "KL the wrong way round",
    ),
    (
        "forced = spread * _normal((B * draws, 1), generator)",
        "forced = SPREAD * _normal((B * draws, 1), generator)",
        "gains ignore what would be forced",
    ),
    (
        "graph = torch.multinomial(before.exp(), draws, True, generator=generator)",
        "graph = torch.randint(before.shape[1], (B, draws), generator=generator)",
        "outcomes come from the prior over graphs",
    ),
    (
        "+ seen.free / 2\n",
        "\n",
        "variances are drawn from the prior's shape",
    ),
    (
        "torch.linalg.solve_triangular(L.mT, z, upper=True)",
        "L @ z",
        "weights spread by the precision, not the covariance",
    ),
    (
        "- (right * mean).sum((-2, -1))",
        "",
        "variances forget what the parents explain",
    ),
    (
        "return World(graph, weights.mT, scale,",
        "return World(graph, weights, scale,",
        "weights are given back as [child, parent]",
    ),
    # Relabelling and the network
    (
        "place = torch.argsort(torch.as_tensor(order))",
        "place = torch.as_tensor(order)",
        "targets are renamed backwards",
    ),
    (
        "old = torch.stack([q[..., r] for",
        "old = torch.stack([q for",
        "beliefs are averaged in their new names",
    ),
    (
        "one_hot(targets + 1, n + 1)[..., 1:]",
        "one_hot(targets.clamp_min(0), n)",
        "no intervention looks like one on the first node",
    ),
    (
        "[values.asinh(), values / 8, which]",
        "[values, values / 8, which]",
        "large values are not compressed",
    ),
    (
        "zip(gates, weights[:2], weights[2:], strict=True)",
        "zip(gates, weights[1::-1], weights[:1:-1], strict=True)",
        "the gates of input and state are exchanged",
    ),
    # A reader's table
    (
        "free = (forced[:, None] != torch.arange(x.shape[1])).to(x)",
        "free = torch.ones_like(x)",
        "a table's forced value is evidence for its column",
    ),
    (
        "(x * own[:, None]).T @ x for own in free.T",
        "(x * own[:, None]).T @ x for own in free.T.flip(0)",
        "each column has the rows of another",
    ),
    (
        "if len(alone) < FEW or not _varies(alone):",
        "if False:",
        "a column is scaled by no row at all",
    ),
    (
        "alone = column[forced == -1]",
        "alone = column",
        "columns are scaled by forced rows",
    ),
    (
        "alone = column[forced != j]",
        "alone = column[forced == j]",
        "columns are scaled by the rows in which they were forced",
    ),
    (
        "(column - alone.mean()) / alone.std()",
        "column / alone.std()",
        "columns are not centred",
    ),
    (
        "return int(self.gains.argmax())",
        "return int(self.gains.argmin())",
        "the column that tells least comes next",
    ),
    (
        "2 * torch.hypot(self.errors, self.errors[self.next])",
        "2 * self.errors",
        "columns are told apart without the error of the best",
    ),
    (
        "least = n * (n + 1) // 2",
        "least = n",
        "fewer rows than parameters are let through",
    ),
    (
        "> 1e-9 * column.abs().max() + 1 / HUGE",
        ">= 0",
        "constant columns are let through",
    ),
    (
        "(np.abs(rows.astype(float)) < HUGE).all()",
        "not (np.abs(rows.astype(float)) >= HUGE).any()",
        "NaN is let through",
    ),
    (
        "return logs, M[:, 0, 0].clamp_min(tau)",
        "return logs, M[:, 0, 0]",
        "rounding takes what is left below what is added",
    ),
    (
        "far < FAR",
        "True",
        "values far away are let through",
    ),
    (
        "_between(0, spread, FAR)",
        "True",
        "a spread that is not positive is let through",
    ),
    (
        "isinstance(k, Integral) and 0 <= k <= most",
        "isinstance(k, Integral) and k <= most",
        "negative numbers of steps are let through",
    ),
    (
        "isinstance(k, Integral) and 0 <= k <= most",
        "0 <= k <= most",
        "a step and a half is let through",
    ),
    (
        "len({*named}) == len(named)",
        "True",
        "a node may be separated from another given itself",
    ),
    (
        "sorted(order) == [*range(values.shape[-1])]",
        "True",
        "an order may name a node twice",
    ),
    (
        "not np.ma.is_masked(made)",
        "True",
        "masked entries are taken for values",
    ),
    (
        "more = told.kl[0],",
        "more = told.entropy[0],",
        "advice by the form whose noise may be negative",
    ),
    (
        "gain < 0.005 or gain <= 2 * self.errors[self.next].item()",
        "gain < 0.005",
        "a gain that its error hides is advice",
    ),
    (
        "gain < 0.005 or gain <= 2 * self.errors[self.next].item()",
        "gain <= 2 * self.errors[self.next].item()",
        "a gain of 0.00 nats is advice",
    ),
]
