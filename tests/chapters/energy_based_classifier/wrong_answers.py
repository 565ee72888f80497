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
def surrogate(lse_data, lse_samples):
    return lse_data.mean() - lse_samples.mean()
""",
        # No samples.
        """
def surrogate(lse_data, lse_samples):
    return -lse_data.mean()
""",
        # Sums, so that the number of draws decides.
        """
def surrogate(lse_data, lse_samples):
    return lse_samples.sum() - lse_data.sum()
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
        # The mean of what is scored.
        """
def typicality(log_p, log_p_data):
    return -(log_p - 0).abs()
""",
    ],
    5: [
        # A comparison with NaN is false.
        """
def first_crossing(values, limit):
    for index, value in enumerate(values):
        if abs(value) > limit:
            return index
    return None
""",
        # No absolute value.
        """
def first_crossing(values, limit):
    for index, value in enumerate(values):
        if not value <= limit:
            return index
    return None
""",
        # At the limit is not beyond it.
        """
def first_crossing(values, limit):
    for index, value in enumerate(values):
        if not abs(value) < limit:
            return index
    return None
""",
        # The value, not its index.
        """
def first_crossing(values, limit):
    for value in values:
        if not abs(value) <= limit:
            return value
    return None
""",
    ],
}
