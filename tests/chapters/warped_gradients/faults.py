"""Deliberate faults: a text of the module, what replaces it, what that breaks."""

FAULTS = [
    # Layers
    ("drawn / width**0.5", "drawn / width", "a warp's first weights are too small"),
    (
        "self.T = nn.Parameter(torch.eye(width))",
        "self.T = nn.Parameter(torch.zeros(width, width))",
        "a warp is no identity at first",
    ),
    (
        "return z @ self.T + (z @ self.A).tanh() @ self.B",
        "return z + (z @ self.A).tanh() @ self.B",
        "a warp's linear part is left out",
    ),
    (
        "(z @ self.A).tanh() @ self.B",
        "(z @ self.A) @ self.B",
        "a warp is linear",
    ),
    (
        "id(p) not in marked or name.startswith(inside)",
        "True",
        "a weight may be shared with a warp",
    ),
    (
        'getattr(m, "running_mean", None) is None',
        "True",
        "running statistics are mixed over tasks",
    ),
    (
        "if p.requires_grad}\n    theta",
        "}\n    theta",
        "frozen weights are adapted",
    ),
    (
        "for k, p in every.items() if id(p) not in marked}",
        "for k, p in every.items()}",
        "warps are adapted, too",
    ),
    # The optimiser of a task
    ("m = {k: beta * memory.m[k] + g for", "m = {k: g for", "momentum forgets"),
    (
        "m = {k: beta * memory.m[k] + (1 - beta) * g for",
        "m = {k: beta * memory.m[k] + g for",
        "Adam's mean is not a mean",
    ),
    (
        "0.999 * memory.v[k] + 0.001 * g * g",
        "0.99 * memory.v[k] + 0.01 * g * g",
        "Adam's other beta",
    ),
    ("w / (1 - 0.999**t)", "w", "squares are not corrected for the start"),
    ("w / (1 - beta**t) /", "w /", "means are not corrected for the start"),
    (".clamp_min(1e-30).sqrt()", ".sqrt()", "a root of zero has no slope"),
    ("(root[k] + 1e-8)", "root[k]", "a quotient of zeros"),
    ("w - inner.rate * direction[k]", "w + inner.rate * direction[k]", "uphill"),
    ("beta, t = inner.beta, memory.t + 1", "beta, t = inner.beta, memory.t", "step 0"),
    ("0 < inner.rate < 1e6", "inner.rate < 1e6", "a rate of zero is let in"),
    ("0 <= inner.beta < 1", "0 <= inner.beta <= 1", "a beta of one is let in"),
    ("need(steps >= 1,", "need(steps >= 0,", "no step is let in"),
    # The objectives
    (
        "{k: w.detach() for k, w in phi.items()} if how.stop else phi",
        "phi",
        "nothing is stopped",
    ),
    (
        "{k: w.detach() for k, w in phi.items()} if how.stop else phi",
        "{k: w.detach() for k, w in phi.items()}",
        "everything is stopped",
    ),
    (
        "gradient = grad(how.of(still, train))(theta)",
        "gradient = grad(how.of(still, other))(theta)",
        "the step has the batch that judges",
    ),
    (
        "return how.of(phi, other)(moved)",
        "return how.of(phi, train)(moved)",
        "the batch of the step judges",
    ),
    (
        "return how.of(phi, other)(moved)",
        "return how.of(phi, other)(theta)",
        "no step is taken, as in the authors' approx",
    ),
    (
        "return how.of(phi, other)(moved)",
        "return how.of(still, other)(moved)",
        "the direct term is stopped",
    ),
    (
        "moved, _ = advance(theta, gradient, memory, how.inner)",
        "moved, _ = advance(theta, gradient, fresh(theta), how.inner)",
        "an iterate's optimiser has no memory",
    ),
    (
        "torch.autograd.grad(each.mean(), list",
        "torch.autograd.grad(each.sum(), list",
        "a sum over iterates",
    ),
    # Learning and adapting
    (
        "randperm(steps, generator=draws)[:10]",
        "randperm(steps, generator=draws)[:1]",
        "one iterate",
    ),
    (
        "randperm(steps, generator=draws)[:10]",
        "randperm(steps, generator=draws)",
        "all iterates",
    ),
    (
        "w += pull * (end[name].mean(0) - w)",
        "w += pull * end[name].mean(0)",
        "Reptile's pull is no pull",
    ),
    (
        "w += pull * (end[name].mean(0) - w)",
        "w += pull * (end[name][0] - w)",
        "one task pulls for all",
    ),
    (
        "manual_seed(seed), torch.optim",
        "manual_seed(0), torch.optim",
        "the seed is ignored",
    ),
    ("phi.values(), lr=rate)", "phi.values(), lr=2e-3)", "the rate is ignored"),
    (
        "half = sizes.pop() // 2",
        "half = (sizes.pop() + 1) // 2",
        "one example is halved",
    ),
    (
        "slice(0, half), slice(half, None)",
        "slice(0, half), slice(0, half)",
        "both batches are one",
    ),
    (
        "adapted = deepcopy(how.net)",
        "adapted = how.net",
        "the network itself is adapted",
    ),
    ("w.copy_(end[name][0])", "w.copy_(w)", "nothing is adapted"),
    ("isfinite(whole)", "True", "a loss that is no number is adapted to"),
    ("found.shape == ()", "True", "a loss may have a shape"),
    # Equations
    ("path[-2::-1]", "path[::-1]", "the last iterate has a step, too"),
    ("path[-2::-1]", "path[:-1]", "the product runs forwards"),
    ("g = g - rate * jvp", "g = g + rate * jvp", "the sign of the Hessian"),
    ("for point in [] if first_order else", "for point in", "first order is in full"),
    (
        "torch.kron(before.T @ before, after @ after.T)",
        "torch.kron(after @ after.T, before.T @ before)",
        "factors are swapped",
    ),
    (
        "torch.kron(before.T @ before, after @ after.T)",
        "torch.kron(before @ before.T, after.T @ after)",
        "each factor is turned",
    ),
    ("(1 + 1 / examples) * C", "C", "the noise of the gradient is left out"),
    ("C.trace() / examples * eye", "C.trace() * eye", "the noise of one example"),
    (
        "torch.linalg.solve(noise, C, left=False)",
        "torch.linalg.solve(C, noise, left=False)",
        "the inverse",
    ),
    # The learners of the page
    ("for rows in (inputs, 1):", "for rows in (inputs, 2):", "biases have two rows"),
    (
        "first.append(drawn / inputs**0.5)",
        "first.append(drawn)",
        "first weights are too large",
    ),
    ("own = len(first) if all_layers else own", "own = own", "no arm adapts its warps"),
    (
        "first, second = warps[: self.layers], warps[self.layers :]",
        "second, first = warps[: self.layers], warps[self.layers :]",
        "warps are swapped",
    ),
    (
        "return z @ T + (z @ A).tanh() @ B",
        "return z @ T + (z @ A).tanh() @ A",
        "B is not used",
    ),
    ("amplitude = 0.1 + 4.9 *", "amplitude = 5 *", "amplitudes from zero"),
    ("phase = torch.pi *", "phase = 2 * torch.pi *", "phases of a whole turn"),
    ("generator=draws) - 5", "generator=draws)", "inputs are positive"),
    ("amplitude * (half - phase).sin()", "amplitude * half.sin()", "no phase"),
    ("norm(dim=1, keepdim=True)", "norm()", "all tasks are cut as one"),
    (
        ".clamp(max=1)\n    return cut",
        "\n    return cut",
        "short gradients are made long",
    ),
]
