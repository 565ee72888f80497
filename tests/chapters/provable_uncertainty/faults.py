"""Deliberate faults: a text of the module, what replaces it, what that breaks."""

FAULTS = [
    # Metric and distances
    ("self.axes / self.scales", "self.axes * self.scales", "the metric is inverted"),
    (
        "(z * self.scales) @ self.axes.T + self.centre",
        "(z * self.scales) @ self.axes + self.centre",
        "the axes are transposed on the way back",
    ),
    (
        "(self.axes * self.scales**2) @ self.axes.T",
        "(self.axes * self.scales) @ self.axes.T",
        "the covariance takes deviations for variances",
    ),
    (
        "return -self.scales.log().sum()",
        "return self.scales.log().sum()",
        "log det's sign",
    ),
    (
        "values.clamp_min(lowest).sqrt()",
        "values.clamp_min(1e-12).sqrt()",
        "the floor is ignored",
    ),
    (
        "values.clamp_min(lowest).sqrt()",
        "values.clamp_min(lowest) ** 0.25",
        "the metric of the official code: fourth roots",
    ),
    (
        "z, means = z - middle, means - middle",
        "z, means = z, means",
        "distances are not centred",
    ),
    ("alpha=-2)", "alpha=-1)", "the cross term counts once"),
    (
        "found.add_(error, alpha=outward)",
        "found",
        "distances are not rounded outwards",
    ),
    (
        "error, alpha=outward",
        "error, alpha=-outward",
        "distances are rounded inwards",
    ),
    (
        "alpha=outward).clamp_min(0)",
        "alpha=outward)",
        "squared distances may be negative",
    ),
    # Densities
    (
        "return self.log_weights - self.means.shape[1] * self.sigma.log()",
        "return self.log_weights - self.sigma.log()",
        "log sigma without the dimension",
    ),
    (
        "return self.log_weights - self.means.shape[1] * self.sigma.log()",
        "return -self.means.shape[1] * self.sigma.log()",
        "heights without weights",
    ),
    (
        "self.heights() - squares / (2 * self.sigma**2)",
        "self.heights() - squares / (2 * self.sigma)",
        "deviation for variance in a component",
    ),
    (
        "return self.log_sigma.clamp_min(self.lowest).exp()",
        "return self.log_sigma.exp()",
        "sigma has no lower limit",
    ),
    (
        "Mixture(m[0], m[1].sqrt(), m[2]",
        "Mixture(m[0], m[1], m[2]",
        "EM's variances are taken for deviations",
    ),
    ("random_state=seed)", "random_state=0)", "EM ignores its seed"),
    (
        "1 / classes + (1 - 1 / classes) * torch.sigmoid(log_b)",
        "1 / classes + torch.sigmoid(log_b)",
        "confidence without its 1 - 1/M",
    ),
    (
        "math.log((classes * tau - 1) / (classes * (1 - tau)))",
        "math.log((classes * tau - 1) / (1 - tau))",
        "log odds without M",
    ),
    (
        "    if tau <= 1 / classes:\n        return -math.inf\n",
        "    if tau <= 1 / classes:\n        tau = 1 / classes + 1e-12\n",
        "1/M is certified by rounding",
    ),
    # Certificates
    (
        "(near - R[:, None]).clamp_min(0).square()",
        "(near + R[:, None]).clamp_min(0).square()",
        "in-components move away",
    ),
    (
        "(far + R[:, None]).square()",
        "(far - R[:, None]).square()",
        "out-components move closer",
    ),
    (
        "(near - R[:, None]).clamp_min(0).square()",
        "(near - 0.999 * R[:, None]).clamp_min(0).square()",
        "the bound is a little too low: in",
    ),
    (
        "(far + R[:, None]).square()",
        "(far + 0.999 * R[:, None]).square()",
        "the bound is a little too low: out",
    ),
    (
        "(near - R[:, None]).clamp_min(0).square()",
        "(near - R[:, None]).square()",
        "past a mean the bound falls again",
    ),
    (
        "near = (found - error)[:, :kinds]",
        "near = (found + error)[:, :kinds]",
        "in-distances are rounded the wrong way",
    ),
    (
        "far = (found + error)[:, kinds:]",
        "far = found[:, kinds:]",
        "out-distances are not rounded",
    ),
    (
        "+ s * t * apart",
        "- s * t * apart",
        "the cosine rule's sign",
    ),
    ("- c * t * far", "+ c * t * far", "(12): the sign in v"),
    ("c * s * near", "2 * c * s * near", "(12): a distance twice"),
    ("    c = s - t\n", "    c = t - s\n", "(12): the sign of c"),
    (
        "torch.where(v < c * R, peak,",
        "torch.where(v > c * R, peak,",
        "(12): the peak where there is none",
    ),
    (
        "torch.where(v < c * R, peak, R * v - c * R.square() / 2)",
        "R * v - c * R.square() / 2",
        "(12): peaks inside the ball are missed",
    ),
    (
        "R * v - c * R.square() / 2)",
        "R * v - c * R.square())",
        "(12): the curvature counts twice",
    ),
    (
        "peak = square / (2 *",
        "peak = square / (4 *",
        "(12): half the peak",
    ),
    (
        "(t * far - s * near +",
        "(-t * far - s * near +",
        "(12): the out-component's sign at the centre",
    ),
    (
        "torch.logsumexp(-torch.logsumexp(-G, 2), 1)",
        "torch.logsumexp(-torch.logsumexp(-G, 1), 1)",
        "(12): sums over the wrong components",
    ),
    (
        "lambda R: torch.minimum(loose(R), pairs(R))",
        "lambda R: pairs(R)",
        "(12) may be above (10)",
    ),
    (
        "torch.where(possible, low, math.nan)",
        "torch.where(possible, high, math.nan)",
        "the radius is rounded up",
    ),
    (
        "torch.where(possible, low, math.nan)",
        "torch.where(possible, low, 0.0)",
        "no radius is told as 0",
    ),
    ("for _ in range(60):", "for _ in range(15):", "the bisection stops early"),
    (
        "while (grows := possible & (high < FAR) & (ceiling(high) <= limit)).any():",
        "while (grows := possible & (high < 0)).any():",
        "radii end at 1",
    ),
    (
        "    if not (given >= 0).all():\n",
        "    if (given < 0).any():\n",
        "a radius of NaN is let through",
    ),
    # CCU
    (
        "log_odds(tau, classes) - q",
        "log_odds(tau, classes)",
        "q is ignored by the radius",
    ),
    (
        "return self.log_q + log_bound(",
        "return log_bound(",
        "q is ignored by the bound",
    ),
    (
        "self.inside.log_density(z) + self.log_q,",
        "self.inside.log_density(z) - self.log_q,",
        "q upside down",
    ),
    (
        "return widest_in < widest_out",
        "return widest_in <= widest_out",
        "a tie is certified",
    ),
    (
        "(m.sigma.detach().max().item()",
        "(m.sigma.detach().mean().item()",
        "the mean sigma is compared",
    ),
    (
        "        if not self.certified:",
        "        if False:",
        "nothing is refused",
    ),
    (
        "wide = ccu.inside.means.shape[1] * math.log(",
        "wide = math.log(",
        "(9) without the dimension",
    ),
    (
        "th / float(ccu.inside.sigma.min())",
        "th / float(self.inside.sigma.max())",
        "(9) takes the widest in-component's height",
    ),
    (
        "half + math.sqrt(max(0.0, half**2 - rest))",
        "half - math.sqrt(max(0.0, half**2 - rest))",
        "(9)'s smaller root",
    ),
    (
        "C = max(0.0, float(ccu.log_q) + wide - beta - math.log(eps / room))",
        "C = max(0.0, float(ccu.log_q) + wide - beta)",
        "eps is ignored far away",
    ),
    (
        "C = max(0.0, float(ccu.log_q) + wide - beta",
        "C = max(0.0, float(ccu.log_q) + wide + beta",
        "(9): the sign of log beta",
    ),
    (
        "F.logsigmoid(-log_b)[:, None] - math.log(classes))",
        "F.logsigmoid(-log_b)[:, None])",
        "M is missing in Bayes' rule",
    ),
    (
        "logits.double().log_softmax(-1) + F.logsigmoid(log_b)",
        "logits.double().log_softmax(-1) + F.logsigmoid(-log_b)",
        "in and out are exchanged in Bayes' rule",
    ),
    (
        "inside = logits.double().log_softmax(-1) + F.logsigmoid(log_b)[:, None]",
        "inside = logits.double().log_softmax(-1) + torch.sigmoid(log_b)"
        ".log()[:, None]",
        "densities underflow in Bayes' rule",
    ),
    (
        "return torch.logaddexp(up, down) - math.log1p(math.exp(self.log_q))",
        "return torch.logaddexp(up, down)",
        "p(x) does not integrate to one",
    ),
    # Objectives
    (
        "outside * math.exp(-ccu.log_q)",
        "outside * math.exp(ccu.log_q)",
        "lambda upside down",
    ),
    (
        "joint = log_p + log_x[:, None]",
        "joint = log_p",
        "the objective leaves out p(x)",
    ),
    (
        "outside = -joint[len(x) :].mean()",
        "outside = joint[len(x) :].mean()",
        "the sign of the out-term",
    ),
    (
        "outside = -joint[len(x) :].mean()",
        "outside = -joint[len(x) :].amax(1).mean()",
        "out, only the surest class counts",
    ),
    (
        "- logits_out.log_softmax(1).mean()",
        "- logits_out.log_softmax(1).sum(1).mean()",
        "outlier exposure sums over classes",
    ),
    # Rays and attacks
    (
        "opened = (m > 0) | ((m == 0) & (a > 0))",
        "opened = m > 0",
        "level gates are shut",
    ),
    (
        "opened = (m > 0) | ((m == 0) & (a > 0))",
        "opened = m >= 0",
        "level gates are open",
    ),
    (
        "layer(m) - layer(torch.zeros_like(m))",
        "layer(m)",
        "a slope keeps the bias",
    ),
    (
        "steepest = m == m.max(1, keepdim=True).values",
        "steepest = F.one_hot(m.argmax(1), m.shape[1]) > 0",
        "ties of the steepest are overlooked",
    ),
    (
        "delta * (R / length).clamp_max(1)",
        "delta * (R / length).clamp_min(1)",
        "the attack leaves the ball",
    ),
    (
        "delta * (R / length).clamp_max(1)",
        "delta * (R / length)",
        "the attack stays on the boundary",
    ),
    (
        "z.detach() + step * slope",
        "z.detach() - step * slope",
        "the attack descends",
    ),
    (
        "better = value.detach() > best",
        "better = value.detach() > -math.inf",
        "the last point is kept, not the best",
    ),
    (
        "first = best.view(-1, n).argmax(0)",
        "first = best.view(-1, n).argmin(0)",
        "the worst start is kept",
    ),
    (
        "        directions.append(mean - z)",
        "        directions.append(z - mean)",
        "one start lies away from the mean",
    ),
    (
        "by_ratio = goal.ccu is not None and t < steps / 2",
        "by_ratio = False",
        "the attack never climbs log b",
    ),
    (
        "(1 - t / steps))[:, None]",
        "(1 - 0 * t))[:, None]",
        "the attack's steps do not shrink",
    ),
    (
        "torch.empty_like(z).normal_(generator=generator)",
        "torch.empty_like(z).normal_()",
        "the random search ignores its generator",
    ),
    (
        "torch.empty_like(z).normal_(generator=g)",
        "torch.empty_like(z).normal_()",
        "random starts ignore their generator",
    ),
    (
        "there = goal.project(z + length[:, None] * way)",
        "there = z + length[:, None] * way",
        "the random search leaves the ball",
    ),
    # What is saved, and where an attack may go
    (
        'self.register_buffer("log_q", ',
        'self.register_buffer("log_q", persistent=False, tensor=',
        "q is not saved",
    ),
    (
        "towards(goal.guide, goal.x, goal.R) if goal.guide else None",
        "towards(goal.guide, goal.x, goal.R) if goal.ccu else None",
        "only CCU is attacked towards an in-mean",
    ),
    (".clamp(0, 1))", ".clamp(0, 2))", "the box of the pixels is too large"),
]
