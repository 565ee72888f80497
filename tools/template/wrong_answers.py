"""Wrong answers that a reader may well give; each must be told "not yet"."""

WRONG = {
    2: [
        # No shrinking at all.
        """
def best_factor(mu):
    return 1.0
""",
        # The noise is forgotten.
        """
def best_factor(mu):
    square = mu.square().sum()
    return square / len(mu)
""",
    ],
    3: [
        # The factor may be negative.
        """
def positive(x):
    factor = 1 - (x.shape[-1] - 2) / x.square().sum(-1, keepdim=True)
    return factor * x
""",
        # Coordinates are cut off, not the factor.
        """
def positive(x):
    return x.clamp(min=0)
""",
    ],
}
