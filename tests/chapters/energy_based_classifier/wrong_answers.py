"""Wrong answers that a reader may well give; each must be told "not yet"."""

_STEP = """
def energy_step(model, buffer, optimizer, x, draws):
    start, slots = buffer.draw(len(x))
    samples = method.langevin(model, start, 20, 0.005, 0.1, draws)
    {put}
    loss = {loss}
    optimizer.zero_grad()
    {descend}
    optimizer.step()
"""
_LOSS = "model(samples).logsumexp(1).mean() - model(x).logsumexp(1).mean()"
_RIGHT = {
    "put": "buffer.put(slots, samples)",
    "loss": _LOSS,
    "descend": "loss.backward()",
}
_BREAK = """
def first_break(curves):
    rows = zip(curves["step"], curves["gap"], curves["largest"], strict=True)
    for step, gap, largest in rows:
        if {broken}:
            return {found}
    return None
"""


def _step(**wrong):
    """The energy step of exercise 2 with one line changed."""
    return _STEP.format(**(_RIGHT | wrong))


def _break(broken, found="step"):
    """The answer to exercise 5, with this condition."""
    return _BREAK.format(broken=broken, found=found)


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
        # A height that all inputs of a batch share, and another batch does not.
        """
def flatten(logits):
    return logits.log_softmax(-1) + logits.mean()
""",
    ],
    2: [
        # The sign: it climbs down.
        _step(loss="model(x).logsumexp(1).mean() - model(samples).logsumexp(1).mean()"),
        # No samples.
        _step(loss="-model(x).logsumexp(1).mean()"),
        # The chains are not put back.
        _step(put="pass"),
        # What is put back is where the chains began.
        _step(put="buffer.put(slots, start)"),
        # Chains go back to other slots.
        _step(put="buffer.put((slots + 1) % 1000, samples)"),
        # The slots move, but not to where the chains ended.
        _step(put="buffer.put(slots, start + 0.01)"),
        # Nothing flows back.
        _step(descend="pass"),
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
    return -(log_p - log_p.mean()).abs()
""",
        # The mean that this toy happens to have; an unknown constant moves it.
        """
def typicality(log_p, log_p_data):
    return -(log_p + 32).abs()
""",
    ],
    5: [
        # A comparison with NaN is false.
        _break("abs(gap) > 50 or abs(largest) > 20"),
        # No absolute value.
        _break("not (gap <= 50 and largest <= 20)"),
        # At the limit is not beyond it.
        _break("not (abs(gap) < 50 and abs(largest) < 20)"),
        # Gaps that are too large on one side only.
        _break("not (gap >= -50 and abs(largest) <= 20)"),
        # A limit that is rounded up.
        _break("not (abs(gap) < 51 and abs(largest) <= 20)"),
        # The same of the pixels.
        _break("not (abs(gap) <= 50 and abs(largest) < 21)"),
        # Pixels count only where they are no numbers.
        _break("not abs(gap) <= 50 or largest != largest"),
        # The gap alone.
        _break("not abs(gap) <= 50"),
        # The pixels alone.
        _break("not abs(largest) <= 20"),
        # The gap, not the step.
        _break("not (abs(gap) <= 50 and abs(largest) <= 20)", found="gap"),
    ],
}
