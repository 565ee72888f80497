"""Deliberate faults: a text of the module, what replaces it, what that breaks.

At least twenty, the likeliest mistakes of someone who writes the method anew.
"""

FAULTS = [
    (
        "(x.shape[-1] - 2) / square",
        "(x.shape[-1] - 1) / square",
        "one dimension too few is taken off",
    ),
    (
        "square: Tensor = x.square().sum(-1, keepdim=True)",
        "square: Tensor = x.square().sum(0, keepdim=True)",
        "squares are summed over the draws",
    ),
]
