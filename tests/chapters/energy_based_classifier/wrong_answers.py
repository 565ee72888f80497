"""Wrong answers that a reader may well give; each must be told "not yet"."""

WRONG = {
    1: [
        # The height of the largest class only.
        """
def flatten(logits):
    return logits - logits.max(dim=-1, keepdim=True).values
""",
        # Probabilities in place of their logarithms.
        """
def flatten(logits):
    return logits.softmax(dim=-1)
""",
        # Heights are equal, and so are the classes.
        """
def flatten(logits):
    return torch.zeros_like(logits)
""",
        # One height for the whole batch.
        """
def flatten(logits):
    return logits - torch.logsumexp(logits, dim=-1).mean()
""",
    ],
    2: [
        # The sign: it climbs down.
        """
def energy_step(model, buffer, optimizer, x, draws):
    start, slots = buffer.draw(len(x))
    samples = method.langevin(model, start, 20, 0.005, 0.1, draws)
    buffer.put(slots, samples)
    loss = model(x).logsumexp(1).mean() - model(samples).logsumexp(1).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
""",
        # No samples.
        """
def energy_step(model, buffer, optimizer, x, draws):
    start, slots = buffer.draw(len(x))
    samples = method.langevin(model, start, 20, 0.005, 0.1, draws)
    buffer.put(slots, samples)
    loss = -model(x).logsumexp(1).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
""",
        # The chains are not put back.
        """
def energy_step(model, buffer, optimizer, x, draws):
    start, slots = buffer.draw(len(x))
    samples = method.langevin(model, start, 20, 0.005, 0.1, draws)
    pass
    loss = model(samples).logsumexp(1).mean() - model(x).logsumexp(1).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
""",
        # What is put back is where the chains began.
        """
def energy_step(model, buffer, optimizer, x, draws):
    start, slots = buffer.draw(len(x))
    samples = method.langevin(model, start, 20, 0.005, 0.1, draws)
    buffer.put(slots, start)
    loss = model(samples).logsumexp(1).mean() - model(x).logsumexp(1).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
""",
        # Nothing flows back.
        """
def energy_step(model, buffer, optimizer, x, draws):
    start, slots = buffer.draw(len(x))
    samples = method.langevin(model, start, 20, 0.005, 0.1, draws)
    buffer.put(slots, samples)
    loss = model(samples).logsumexp(1).mean() - model(x).logsumexp(1).mean()
    optimizer.zero_grad()
    pass
    optimizer.step()
""",
    ],
    3: [
        # The limit itself, not half of it.
        """
def stable_sampler(curvature):
    alpha = 2 / curvature
    sigma = (2 * alpha) ** 0.5
    return alpha, sigma
""",
        # Noise as in the textbook's step a, without the factor of (9b).
        """
def stable_sampler(curvature):
    alpha = 1 / curvature
    sigma = alpha ** 0.5
    return alpha, sigma
""",
        # A variance in place of a standard deviation.
        """
def stable_sampler(curvature):
    alpha = 1 / curvature
    sigma = 2 * alpha
    return alpha, sigma
""",
        # The same for every curvature.
        """
def stable_sampler(curvature):
    return 1.0, 2.0 ** 0.5
""",
    ],
    4: [
        # The density itself, the score that fails.
        """
def typicality(log_p, log_p_data):
    return log_p - log_p_data.mean()
""",
        # The sign: the typical looks strange.
        """
def typicality(log_p, log_p_data):
    return (log_p - log_p_data.mean()).abs()
""",
        # The distance from the mode.
        """
def typicality(log_p, log_p_data):
    return -(log_p - log_p_data.max()).abs()
""",
        # Near the mode is strange: right for the narrow, wrong for the wide.
        """
def typicality(log_p, log_p_data):
    return -log_p
""",
        # The mean of what is scored.
        """
def typicality(log_p, log_p_data):
    return -(log_p - 0).abs()
""",
    ],
    5: [
        # A comparison with NaN is false.
        """
def first_break(curves):
    rows = zip(curves["step"], curves["gap"], curves["largest"], strict=True)
    for step, gap, largest in rows:
        if abs(gap) > 50 or abs(largest) > 20:
            return step
    return None
""",
        # No absolute value.
        """
def first_break(curves):
    rows = zip(curves["step"], curves["gap"], curves["largest"], strict=True)
    for step, gap, largest in rows:
        if not (gap <= 50 and largest <= 20):
            return step
    return None
""",
        # At the limit is not beyond it.
        """
def first_break(curves):
    rows = zip(curves["step"], curves["gap"], curves["largest"], strict=True)
    for step, gap, largest in rows:
        if not (abs(gap) < 50 and abs(largest) < 20):
            return step
    return None
""",
        # The gap alone.
        """
def first_break(curves):
    rows = zip(curves["step"], curves["gap"], curves["largest"], strict=True)
    for step, gap, largest in rows:
        if not abs(gap) <= 50:
            return step
    return None
""",
        # The pixels alone.
        """
def first_break(curves):
    rows = zip(curves["step"], curves["gap"], curves["largest"], strict=True)
    for step, gap, largest in rows:
        if not abs(largest) <= 20:
            return step
    return None
""",
        # The gap, not the step.
        """
def first_break(curves):
    rows = zip(curves["step"], curves["gap"], curves["largest"], strict=True)
    for step, gap, largest in rows:
        if not (abs(gap) <= 50 and abs(largest) <= 20):
            return gap
    return None
""",
    ],
}
