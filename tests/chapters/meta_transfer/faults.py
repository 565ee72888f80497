"""Deliberate faults: a text of the module, what replaces it, what that breaks."""

FAULTS = [
    # Worlds
    (
        "(gammas.log() + torch.log1p(-u) / concentration).log_softmax(-1)",
        "(gammas.log() + torch.log1p(-u)).log_softmax(-1)",
        "log-gammas of another concentration",
    ),
    (
        "torch.full_like(u, concentration + 1)",
        "torch.full_like(u, concentration)",
        "the boost is used without the draw that it boosts",
    ),
    (
        "(gammas.log() + torch.log1p(-u) / concentration).log_softmax(-1)",
        "(gammas * (1 - u) ** (1 / concentration)).log().log_softmax(-1)",
        "sparse draws underflow before the logarithm",
    ),
    (
        "if not concentration > 0:",
        "if concentration < 0:",
        "no concentration, and NaN, are let through",
    ),
    (
        "return self.cause[..., None] + self.effect",
        "return self.cause[..., None, :] + self.effect",
        "P(a) is put on the columns of P(b|a)",
    ),
    (
        "log_dirichlet((runs, N, N), rows, generator)",
        "log_dirichlet((runs, N, N), 1.0, generator)",
        "worlds ignore the sharpness of their rows",
    ),
    (
        "cause = log_dirichlet((runs, N), 1.0, generator)",
        "cause = log_dirichlet((runs, N), rows, generator)",
        "the cause is as sharp as the rows",
    ),
    # Changes
    (
        "if not 0 < size <= 1:",
        "if not 0 <= size <= 1:",
        "a change of no size is let through",
    ),
    (
        "World((cause + size * (new - cause)).log_softmax(-1), effect)",
        "World((cause + size * (new - cause)), effect)",
        "a part of a new cause is not normalised",
    ),
    (
        "(cause + size * (new - cause))",
        "(new + size * (cause - new))",
        "a whole new cause is the old one",
    ),
    (
        "World(cause, (effect + size * (new - effect)).log_softmax(-1))",
        "World(cause, new)",
        "the size of a change of the effect is ignored",
    ),
    (
        "new = log_dirichlet(cause.shape, 1.0, generator)",
        "new = log_dirichlet(cause.shape, rows, generator)",
        "a new cause is as sharp as new rows",
    ),
    (
        "new = log_dirichlet(effect.shape, c, generator)",
        "new = log_dirichlet(effect.shape, 1.0, generator)",
        "new rows ignore their concentration",
    ),
    (
        'if site == "mechanism":\n            return new',
        'if site == "row":\n            return new',
        "a new row is all rows, a new mechanism one",
    ),
    (
        "log_dirichlet(effect[..., 0, :].shape, 1.0, generator)",
        "log_dirichlet(effect[..., 0, :].shape, c, generator)",
        "the law of a cut effect is not flat",
    ),
    (
        "law = effect.mean(-2).log_softmax(-1)",
        "law = effect.exp().mean(-2).log()",
        "the mean of the rows for the softmax of their mean logits",
    ),
    (
        "law = world.log_joint().logsumexp(-2)",
        "law = world.log_joint().logsumexp(-1)",
        "B gets the marginal of A",
    ),
    # Samples
    (
        "(logs.exp().cumsum(-1) <= u[..., None])",
        "(logs.exp().cumsum(-1) < u[..., None])",
        "what has no probability is drawn",
    ),
    (
        ".sum(-1).clamp_max(logs.shape[-1] - 1)",
        ".sum(-1)",
        "rounding draws an index past the end",
    ),
    (
        "b = _inverted(torch.take_along_dim(world.effect, a[..., None], -2), v)",
        "b = _inverted(torch.take_along_dim(world.effect.mT, a[..., None], -2), v)",
        "b comes from columns",
    ),
    (
        "torch.take_along_dim(world.effect, a[..., None], -2), v)",
        "torch.take_along_dim(world.effect, a[..., None], -2), u)",
        "a and b share their randomness",
    ),
    # Learners
    (
        "return self.marginal.log_softmax(-1)[..., None] + self.rows.log_softmax(-1)",
        "return self.marginal[..., None] + self.rows",
        "a learner's joint is not normalised",
    ),
    (
        "return Learner(marginal, log_joint - marginal[..., None])",
        "return Learner(marginal, log_joint - marginal[..., None, :])",
        "rows are divided by the wrong marginal",
    ),
    (
        "return Learner(marginal, log_joint - marginal[..., None])",
        "return Learner(0 * marginal, log_joint - marginal[..., None])",
        "a learner starts with a flat marginal",
    ),
    (
        "return learn(log_joint), learn(log_joint.mT)",
        "return learn(log_joint), learn(log_joint.flip(-1).mT)",
        "the learners start from different joints",
    ),
    (
        "return learn(log_joint), learn(log_joint.mT)",
        "return learn(log_joint), learn(log_joint)",
        "both learners go the same way",
    ),
    # Adaptation
    (
        "if not reach < 600:",
        "if not reach < 6000:",
        "exponentials may overflow",
    ),
    (
        "(s - s.amax(-1, keepdim=True) for s in learner)",
        "(s - s.mean(-1, keepdim=True) for s in learner)",
        "logits are shifted by their mean: sparse ones overflow",
    ),
    (
        "rows, place = _copied_rows(tables, at * N, x_k, N)",
        "rows, place = _copied_rows(tables, 0 * at, x_k, N)",
        "every run has the rows of the first",
    ),
    (
        "torch.where(same, number[:n], n).amin(-1)",
        "number[:n].expand(K, n)",
        "a row that comes again has not been moved",
    ),
    (
        "expand(shape[:-1]).flatten()",
        "repeat_interleave(shape[:-1].numel() // R)",
        "runs are taken for episodes",
    ),
    (
        "marginal = marginal - step.mul_(rate / M)",
        "marginal = marginal - step.mul_(rate)",
        "the marginal's rate is not divided by the batch",
    ),
    (
        "marginal = marginal - step.mul_(rate / M)",
        "marginal = marginal + step.mul_(rate / M)",
        "the marginal climbs",
    ),
    (
        "step_q.mul_(-rate / M), accumulate=True)",
        "step_q.mul_(-rate), accumulate=True)",
        "the rows' rate is not divided by the batch",
    ),
    (
        "step_q.mul_(-rate / M), accumulate=True)",
        "step_q.mul_(-rate / M) + rows[at])",
        "a row twice in a batch takes one step",
    ),
    (
        "log_p, minus = picked - total.log(), p",
        "log_p, minus = picked, p",
        "likelihoods are not normalised after a step",
    ),
    (
        "return log_p, p.mul_(at.shape[1] / total)",
        "return log_p, p.mul_(1 / total)",
        "the marginal's gradient counts one example",
    ),
    (
        ".scatter_add_(1, at, minus)",
        ".scatter_(1, at, minus)",
        "the gradient at a seen index forgets its probability",
    ),
    (
        "        if last or t + 1 < T:\n"
        "            marginal = marginal - step.mul_(rate / M)\n"
        "            rows.index_put_((at,), step_q.mul_(-rate / M), accumulate=True)\n",
        "        marginal = marginal - step.mul_(rate / M)\n"
        "        rows.index_put_((at,), step_q.mul_(-rate / M), accumulate=True)\n"
        "        log_p, _ = _log_p_and_slope(marginal.clone(), x[:, t])\n"
        "        log_q, _ = _log_p_and_slope(rows.index_select(0, at), y_t)\n"
        "        total[:, t] = log_p.sum(1) + log_q.view(K, M).sum(1)\n",
        "the likelihood is taken after the step",
    ),
    (
        "if last or t + 1 < T:",
        "if t + 1 < T:",
        "adapting leaves out the last step",
    ),
    (
        "log_p, step = _log_p_and_slope(marginal.clone(), x[:, t])",
        "log_p, step = _log_p_and_slope(marginal, x[:, t])",
        "the marginal's logits are overwritten",
    ),
    (
        "ahead = log_likelihoods(forward, a, b, rate) - log_likelihoods(backward,",
        "ahead = -log_likelihoods(forward, a, b, rate) + log_likelihoods(backward,",
        "the sign of Delta",
    ),
    (
        "- log_likelihoods(backward, b, a, rate)\n",
        "- log_likelihoods(backward, a, b, rate)\n",
        "B -> A adapts the rows of A -> B",
    ),
    (
        "- log_likelihoods(backward, b, a, rate)\n",
        "- log_likelihoods(backward, b, a, 0.5 * rate)\n",
        "B -> A has half the rate",
    ),
    (
        "return ahead.sum(-1)\n",
        "return ahead.mean(-1)\n",
        "Delta is a mean over steps",
    ),
    (
        "return ahead.sum(-1)\n",
        "return ahead[..., -1]\n",
        "Delta is the last step's",
    ),
    # Exact quantities
    (
        "(log_star.exp() * (log_star - log_p)).sum((-2, -1))",
        "(log_p.exp() * (log_p - log_star)).sum((-2, -1))",
        "the direction of KL",
    ),
    (
        "marginal = (new.exp() * (new - old)).sum(-1)",
        "marginal = (old.exp() * (old - new)).sum(-1)",
        "the direction of the marginal's KL",
    ),
    (
        "terms += [marginal, kl(after, before) - marginal]",
        "terms += [kl(after, before) - marginal, marginal]",
        "marginal and conditional parts exchanged",
    ),
    (
        "spread = marginal.var(-1, correction=0) * marginal.shape[-1]",
        "spread = marginal.square().sum(-1)",
        "D without centring the marginal's logits",
    ),
    (
        "(rows.var(-1, correction=0) * rows.shape[-1]).sum(-1)",
        "rows.square().sum((-2, -1))",
        "D without centring the rows",
    ),
    (
        "(rows.var(-1, correction=0) * rows.shape[-1]).sum(-1)",
        "(rows.var(-1) * rows.shape[-1]).sum(-1)",
        "D with N - 1 for N",
    ),
    (
        "return distance(a, a_star), distance(b, b_star)",
        "return distance(b, b_star), distance(a, a_star)",
        "the distances exchanged",
    ),
    (
        "p[..., None] if weighted else 1.0",
        "1.0",
        "the factor P*(a)^2 is missing",
    ),
    (
        "p[..., None] if weighted else 1.0",
        "p[..., None]",
        "rows keep their weight where it should go",
    ),
    (
        "p = star.marginal.exp()",
        "p = here.marginal.softmax(-1)",
        "rows are weighted by the old marginal, which has no gradient",
    ),
    (
        "rows = here.rows.softmax(-1) - star.rows.exp()",
        "rows = star.rows.exp() - here.rows.softmax(-1)",
        "population steps of the rows climb",
    ),
    (
        "gains.append(marginal.square().sum(-1) + rows.square().sum((-2, -1)))",
        "gains.append(marginal.square().sum(-1) + rows.square().sum((-2, -1)).sqrt())",
        "the rows' gradient is not squared",
    ),
    (
        "path = [kl(log_star, learner.log_joint())]",
        "path = [0 * kl(log_star, learner.log_joint())]",
        "the KL before the first step is lost",
    ),
    (
        "x, y = a[:, start:end, None], b[:, start:end, None]",
        "x, y = a[:, :end, None], b[:, :end, None]",
        "examples are seen again",
    ),
    (
        "x, y = a[:, start:end, None], b[:, start:end, None]",
        "x, y = a[:, None, start:end], b[:, None, start:end]",
        "single examples become one batch",
    ),
    (
        "paths[1].append(kl(log_star, backward.log_joint().mT))",
        "paths[1].append(kl(log_star, backward.log_joint()))",
        "the curve reads B -> A sideways",
    ),
    (
        "return self.backward - self.forward",
        "return self.forward - self.backward",
        "the sign of the gap",
    ),
    # Gamma
    (
        "-torch.logaddexp(logsigmoid(gamma) + forward, logsigmoid(-gamma) + backward)",
        "-torch.logaddexp(logsigmoid(-gamma) + forward, logsigmoid(gamma) + backward)",
        "gamma weights the other learner",
    ),
    (
        "-torch.logaddexp(logsigmoid(gamma) + forward, logsigmoid(-gamma) + backward)",
        "-torch.lerp(backward.exp(), forward.exp(), gamma.sigmoid()).log()",
        "the mixture is taken of likelihoods that underflow",
    ),
    (
        "return gamma.sigmoid() - (gamma + delta).sigmoid()",
        "return (gamma - delta).sigmoid() - gamma.sigmoid()",
        "the gradient of gamma weights the worse learner",
    ),
    (
        "return gamma.sigmoid() - (gamma + delta).sigmoid()",
        "return gamma.sigmoid() - delta.sigmoid()",
        "the posterior forgets the prior",
    ),
    (
        "return gamma.sigmoid() - (gamma + delta).sigmoid()",
        "return -gamma.sigmoid() * (-gamma).sigmoid() * delta",
        "Delta itself for the change of probability",
    ),
    (
        "mean_square = 0.99 * mean_square + 0.01 * step.square()",
        "mean_square = 0.9 * mean_square + 0.1 * step.square()",
        "RMSprop with another smoothing",
    ),
    (
        "step = step / (mean_square.sqrt() + 1e-8)",
        "step = step / (mean_square + 1e-8)",
        "RMSprop without its root",
    ),
    (
        "gamma = gamma - rate * step",
        "gamma = gamma + rate * step",
        "gamma climbs the regret",
    ),
    (
        "path, mean_square = [gamma], torch.zeros_like(gamma)",
        "path, mean_square = [], torch.zeros_like(gamma)",
        "the path lacks its start",
    ),
    (
        "inverse = 1 / torch.expm1(deltas)",
        "inverse = 1 / deltas",
        "the condition on E Delta, not on E e^Delta",
    ),
    (
        "rises = (1 / (p + inverse)).mean(0) > 0",
        "rises = (1 / (p + inverse)).mean(0) < 0",
        "bisection goes the wrong way",
    ),
    (
        "for _ in range(60):",
        "for _ in range(12):",
        "bisection stops early",
    ),
    # Discovery
    (
        "(joint.mT, b, a) if swapped else",
        "(joint, b, a) if swapped else",
        "swapped roles start at the joint unswapped",
    ),
    (
        "(joint.mT, b, a) if swapped else",
        "(joint.mT, a, b) if swapped else",
        "swapped roles see examples unswapped",
    ),
    (
        "changed = World(*(part.expand(episodes, *part.shape) for part in world))\n"
        "    if site:\n"
        "        changed = change(changed, site, generator, rows=rows)\n",
        "changed = change(world, site, generator, rows=rows) if site else world\n"
        "    changed = World(*(p.expand(episodes, *p.shape) for p in changed))\n",
        "episodes of a block share their change",
    ),
    (
        "min(size, episodes - start)",
        "BLOCK",
        "there are more episodes than asked for",
    ),
    (
        "return follow(torch.cat(results), gamma_rate)",
        "return follow(torch.cat(results), gamma_rate, rms=False)",
        "gamma follows plain SGD",
    ),
    (
        "changed = change(changed, site, generator, rows=rows)",
        "changed = change(changed, site, generator)",
        "the concentration of new rows is lost",
    ),
    # Two columns
    (
        "if p > 0.05:",
        "if p > 1.05:",
        "chance is taken for a shift",
    ),
    (
        "population(backward, log_star.mT, rate, steps)",
        "population(backward, log_star, rate, steps)",
        "B -> A adapts to the table sideways",
    ),
    (
        ".gap[1:].mean(0).numpy()",
        ".gap.mean(0).numpy()",
        "the start is taken for one of the 20 steps",
    ),
    (
        'direction = "first -> second" if lead[0] >= 0 else "second -> first"',
        'direction = "first -> second" if lead[0] < 0 else "second -> first"',
        "the answer is turned round",
    ),
    (
        'direction if low > 0 or high < 0 else "undecided"',
        "direction",
        "a direction is named whose interval contains zero",
    ),
    (
        'direction if low > 0 or high < 0 else "undecided"',
        'direction if low > 0 else "undecided"',
        "the second direction is never decided",
    ),
    (
        "np.quantile(lead[1:], (0.025, 0.975))",
        "np.quantile(lead[1:], (0.25, 0.75))",
        "half the resamples for 95 %",
    ),
    (
        "(np.sign(lead[1:]) == np.sign(lead[0])).mean()",
        "(np.sign(lead[:1]) == np.sign(lead[0])).mean()",
        "the share is that of the rows as they are",
    ),
    (
        "(np.sign(lead[1:]) == np.sign(lead[0])).mean()",
        "(lead[1:] > 0).mean()",
        "the share is always that of the first direction",
    ),
    (
        "min(MOST_BINS, int((len(before) / ROWS_A_CELL) ** 0.5))",
        "min(MOST_BINS, int((len(after) / ROWS_A_CELL) ** 0.5))",
        "bins are chosen by the rows after the change",
    ),
    (
        "min(MOST_BINS, int((len(before) / ROWS_A_CELL) ** 0.5))",
        "int((len(before) / ROWS_A_CELL) ** 0.5)",
        "many rows make more bins than ten",
    ),
    (
        "drift=(moved.cause.item(), moved.effect.item())",
        "drift=(moved.effect.item(), moved.cause.item())",
        "the drifts exchanged",
    ),
    (
        'more = "first" if self.drift[0] >= self.drift[1] else "second"',
        'more = "first" if self.drift[0] <= self.drift[1] else "second"',
        "the words name the column that drifted less",
    ),
    (
        "source, _, target = self.direction.split()",
        "target, _, source = self.direction.split()",
        "the words name the effect as the cause",
    ),
    (
        "bad = int((~np.isfinite(rows)).any(1).sum())",
        "bad = int(np.isnan(rows).any(1).sum())",
        "infinity is let through",
    ),
    (
        "if len(rows) < LEAST_ROWS:",
        "if len(rows) <= LEAST_ROWS:",
        "thirty rows are too few",
    ),
    (
        "if len(np.unique(code[:n])) < 2:",
        "if len(np.unique(code)) < 2:",
        "a column that varies after the change only is let through",
    ),
    (
        "if n < ROWS_A_CELL * high * wide:",
        "if n < high * wide:",
        "a row for each cell is enough",
    ),
    (
        "cells = np.split(codes[0] * wide + codes[1], [n])",
        "cells = np.split(codes[0] + high * codes[1], [n])",
        "the table is folded wrongly",
    ),
    (
        "edges = np.unique(np.quantile(column, np.arange(1, bins) / bins))",
        "edges = np.linspace(column.min(), column.max(), bins + 1)[1:-1]",
        "bins of equal width",
    ),
    (
        "edges = np.unique(column)[:-1]",
        "edges = np.unique(column)[1:-1]",
        "the two lowest categories are one",
    ),
    (
        "if len(edges) >= bins:",
        "if len(edges) >= bins - 1:",
        "as many categories as bins are cut at quantiles",
    ),
    (
        "return float((ratio >= ratio[0] - 1e-9).mean())",
        "return float((ratio <= ratio[0] + 1e-9).mean())",
        "the p-value's other side",
    ),
    (
        "(xlogy(shifted, shifted) + xlogy(pooled - shifted, pooled - shifted)).sum(1)",
        "xlogy(shifted, shifted).sum(1)",
        "the test sees one part",
    ),
    (
        "cells = counts + 0.5",
        "cells = counts + 1.0",
        "a whole row is added to each cell",
    ),
    (
        "rng.multinomial(counts.sum(), counts",
        "rng.multinomial(100 * counts.sum(), counts",
        "resamples are a hundred times too large",
    ),
]
