"""Deliberate faults: a text of the module, what replaces it, what that breaks."""

FAULTS = [
    (
        "return torch.logsumexp(logits, dim=-1)",
        "return torch.logsumexp(logits.log_softmax(-1), dim=-1)",
        "a log-softmax before the log-sum-exp",
    ),
    (
        "return torch.logsumexp(logits, dim=-1)",
        "return torch.logsumexp(logits, dim=0)",
        "the log-sum-exp runs over the batch",
    ),
    (
        "return torch.logsumexp(logits, dim=-1)",
        "return logits.exp().sum(-1).log()",
        "the log-sum-exp overflows",
    ),
    ("return -log_density(logits)", "return log_density(logits)", "energy's sign"),
    (
        "return -_l2_norm(input_gradient(model, x))",
        "return _l2_norm(input_gradient(model, x))",
        "the mass score's sign",
    ),
    (
        "weights = logits.detach().softmax(-1)",
        "weights = torch.ones_like(logits)",
        "the sampler weighs all classes alike",
    ),
    (
        "weights = F.one_hot(target, logits.shape[-1]).to(logits.dtype)",
        "weights = logits.detach().softmax(-1)",
        "the wanted class is ignored",
    ),
    (
        "add_(gradient, alpha=alpha)",
        "add_(gradient, alpha=-alpha)",
        "the sampler descends",
    ),
    (
        "add_(gradient, alpha=alpha)",
        "add_(gradient, alpha=alpha / 2)",
        "the sampler takes half a step",
    ),
    ("noise.mul_(sigma)", "noise.mul_(0)", "no noise"),
    ("noise.mul_(sigma)", "noise.mul_(sigma**2)", "variance for deviation"),
    (
        "noise = torch.empty_like(x).normal_(generator=generator)\n            x",
        "noise = torch.empty_like(x).normal_()\n            x",
        "the sampler's noise ignores its generator",
    ),
    ("x = x.clamp_(*clamp)", "pass", "the box does not hold the chains"),
    (
        "p.requires_grad_(True)",
        "p.requires_grad_(False)",
        "the sampler leaves the weights frozen",
    ),
    (
        "    x = x.detach().clone()\n    with _frozen",
        "    x = x.detach()\n    with _frozen",
        "the sampler touches its start",
    ),
    ("if not torch.isfinite(x).all():", "if False:", "a NaN goes into the sampler"),
    (
        "slots % (len(self.slots) // 10) * 10 + y",
        "slots",
        "chains come from the slots of any class",
    ),
    ("(uniform < self.restart)", "(uniform < 0)", "chains never restart"),
    ("(uniform < self.restart)", "(uniform > self.restart)", "chains restart"),
    (
        "fresh = torch.empty_like(x).uniform_(-1, 1, generator=self.generator)",
        "fresh = torch.empty_like(x).uniform_(0, 1, generator=self.generator)",
        "chains restart bright",
    ),
    (
        "last[:-1] = slots[:-1] != slots[1:]",
        "last[1:] = slots[1:] != slots[:-1]",
        "of a slot drawn twice, the earlier chain is kept",
    ),
    ("x.detach()[order[last]]", "x.detach()[last]", "chains go back to wrong slots"),
    ("loss = sampled - data +", "loss = data - sampled +", "the sign of the gap"),
    (
        "torch.cat([x, samples.detach(), *second])",
        "torch.cat([x, samples, *second])",
        "gradients flow into the samples",
    ),
    (
        "lse[len(x) + len(samples) :] if second else lse[: len(x)]",
        "lse[: len(x)]",
        "the second batch is ignored",
    ),
    (
        "sampled = lse[len(x) : len(x) + len(samples)].mean()",
        "sampled = lse[len(x) :].mean()",
        "data count as samples",
    ),
    (
        'watched["lse_data"] - watched["lse_samples"]',
        'watched["lse_samples"] - watched["lse_data"]',
        "the watched gap's sign",
    ),
    (
        "hessian_times(v) + shift * v",
        "hessian_times(v)",
        "the strongest curvature, not the largest",
    ),
    (
        "return delta.clamp(-radius, radius)",
        "return radius * delta.sign()",
        "the box is projected to its corners",
    ),
    (
        "(radius / _l2_norm(delta).clamp_min(1e-12)).clamp_max(1)",
        "radius / _l2_norm(delta).clamp_min(1e-12)",
        "the ball is projected to its surface",
    ),
    ("return gradient.sign()", "return -gradient.sign()", "the attack descends"),
    (
        "F.normalize(gradient.flatten(1), dim=1)",
        "F.normalize(gradient.flatten(1), dim=0)",
        "the attack is normalised over the batch",
    ),
    (
        "point = (x + delta).clamp(-1, 1)",
        "point = (x + delta)",
        "attacks leave the pixels",
    ),
    (
        "delta = project(moved, radius, norm)",
        "delta = moved",
        "attacks leave the ball",
    ),
    (
        "delta = project(moved, radius, norm)",
        "delta = project(point.detach() - x, radius, norm)"
        " + moved + x - point.detach()",
        "the attack projects before it steps",
    ),
    (
        "adversarial[larger] = point.detach()[larger]",
        "adversarial = point.detach()",
        "the attack keeps the last point, not the strongest",
    ),
    (
        "larger = losses.detach() > largest",
        "larger = losses.detach() > -largest",
        "the attack forgets the largest loss",
    ),
    ("classify = classify or model", "classify = model", "refinement is not attacked"),
    (
        ".view(chains, len(x), -1).mean(0)",
        ".view(len(x), chains, -1).mean(1)",
        "refinement averages over other inputs",
    ),
    (
        ".view(chains, len(x), -1).mean(0)",
        ".view(chains, len(x), -1)[0]",
        "refinement takes one chain",
    ),
    (
        "gradient = torch.autograd.grad(lse, x, create_graph=True)[0]",
        "gradient = torch.autograd.grad(lse, x, create_graph=True)[0].detach()",
        "the unrolled attack sees no curvature",
    ),
    ("model(z + (end - z).detach())", "model(z)", "the straight attack is none"),
    (
        "torch.stack(list(correct.values())).all(0)",
        "torch.stack(list(correct.values())).any(0)",
        "the weakest attack counts",
    ),
    (
        "widths = [16 * width * 2**stage for stage in range(3)]",
        "widths = [16 * width for stage in range(3)]",
        "the stages of the wide network stay narrow",
    ),
    ("nn.init.zeros_(self.second.weight)", "pass", "blocks start at random"),
]
