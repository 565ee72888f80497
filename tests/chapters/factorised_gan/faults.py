"""Deliberate faults: a text of the module, what replaces it, what that breaks."""

FAULTS = [
    # Tables
    ("off < 1e-6", "off < 1e6", "a table of any sum passes"),
    ("bool((p > 0).all())", "bool((p >= 0).all())", "an empty cell passes"),
    (
        "return p.sum(-1, keepdim=True) * p.sum(-2, keepdim=True)",
        "return p.sum(-1, keepdim=True) * p.sum(-1, keepdim=True).mT",
        "the rows' marginal is taken twice",
    ),
    (
        "return self.first + self.second + self.c_p - self.c_q",
        "return self.first + self.second + self.c_p + self.c_q",
        "d_Q is added",
    ),
    (
        'r = p if parts is None else table(parts, "parts")',
        "r = p",
        "loose parts always come from the pairs' world",
    ),
    (
        "(p / product(p)).log(), (q / product(q)).log()",
        "(p / product(p)).log(), (q / product(p)).log()",
        "c_Q divides by the data's marginals",
    ),
    (
        "c_p, c_q = permuted(c_p, batch), permuted(c_q, batch)",
        "c_p, c_q = permuted(c_p, batch), c_q",
        "only d_P is capped",
    ),
    (
        "+ on.c_p * c_p - on.c_q * c_q",
        "+ on.c_q * c_p - on.c_p * c_q",
        "two switches are swapped",
    ),
    ("+ on.joint * r.total", "", "the joint logit is never on"),
    (
        "log_q + time / steps * S",
        "log_q + time * S",
        "a step of the flow is as long as the walk",
    ),
    (
        "log_q = log_q.clamp_min(-200.0)",
        "log_q = log_q.clamp_min(-2.0)",
        "no cell can die",
    ),
    (
        "torch.log1p(-kept).expand_as(c), c + kept.log()",
        "torch.log1p(kept).expand_as(c), c + kept.log()",
        "the mixture of a permutation has another share",
    ),
    (
        "1 / p - 1 / rows - 1 / columns + 2 * p / (rows * columns) - 1",
        "1 / p - 1 / rows - 1 / columns + p / (rows * columns) - 1",
        "the covariance of both marginals is counted once",
    ),
    ("alone = 1 / p - 1", "alone = 1 / p", "the variance of a count is Poisson's"),
    (
        "np.outer(joint.sum(1), joint.sum(0))",
        "np.outer(joint.sum(0), joint.sum(1))",
        "the marginals are transposed, as in the authors' code",
    ),
    ("FLOOR = 1e-3", "FLOOR = 1e-2", "another constant in d_dep"),
    # Stacks
    (
        "seed + s) for s in range(copies)",
        "seed) for s in range(copies)",
        "all copies begin with the same weights",
    ),
    (
        "            if self.training:\n                torch.bmm(W, v",
        "            if True:\n                torch.bmm(W, v",
        "power iterations go on in the generator's step",
    ),
    ("                v.div_(norm)\n", "", "v is not normalised"),
    ("out=u).div_(_length(u))", "out=u)", "u is not normalised"),
    (
        "torch.baddbmm(grad, u * -along, v.mT) / norm",
        "grad / norm",
        "the norm has no gradient",
    ),
    (
        "torch.baddbmm(grad, u * -along, v.mT) / norm",
        "torch.baddbmm(grad, u * along, v.mT) / norm",
        "the gradient of the norm has the other sign",
    ),
    ("            if i:\n", "            if i > 1:\n", "the first layer is linear"),
    # Games
    (
        'Critic("both", "fake", "fake shuffled", -1.0)',
        'Critic("both", "fake", "fake shuffled")',
        "d_Q is added in training",
    ),
    (
        'Critic("both", "real", "real shuffled")',
        'Critic("both", "real", "fake shuffled")',
        "d_P sees the generator",
    ),
    ("second.roll(1, -2)", "second.roll(1, -1)", "numbers move and not rows"),
    ("[self.order]", "", "logits come in the order of the stacks"),
    (
        "told = self.discriminator_loss(real, fake.detach())",
        "told = self.discriminator_loss(real, fake)",
        "the generator helps the discriminators",
    ),
    (
        "self.stacks.requires_grad_(False).eval()",
        "self.stacks.eval()",
        "the discriminators follow the generator's loss",
    ),
    (
        "F.softplus(-self.total(fake)).mean(1)",
        "F.softplus(self.total(fake)).mean(1)",
        "the generator avoids what looks real",
    ),
    (
        "F.softplus(-positive) + F.softplus(negative)",
        "F.softplus(positive) + F.softplus(-negative)",
        "both sides are swapped",
    ),
    ("slow.lerp_(fast, 1 - average)", "slow.lerp_(fast, average)", "weights forget"),
    (
        "+ self.starts\n        return self.rows",
        "\n        return self.rows",
        "all models draw from the first set",
    ),
    ("min(1.0, 2 * (1 - t / steps))", "1 - t / steps", "the rate falls at once"),
    # A reader's data
    (
        "rows = rows if given is None else torch.cat([rows, mine])",
        "rows = rows",
        "parts of the pairs are not used as loose parts",
    ),
    (
        "return (x * self.deviation + self.mean).view",
        "return (x * self.deviation).view",
        "samples lose their level",
    ),
    ("rows.std().item() or 1.0", "rows.std().item()", "a constant part divides by 0"),
    (
        "len(both[0]) > 1",
        "len(both[0]) > 0",
        "one pair is shuffled with itself",
    ),
]
