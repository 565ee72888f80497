"""Wrong answers that a reader may well give; each must be told "not yet"."""

_TURNS = """
def turns_of(f0, fs):
    turns = {turns}
    return turns % 1
"""
_FITTING = """
def fitting(w, f0, h, fs):
    k = torch.arange(1, w.shape[1] + 1)
    kept = {kept}
    d = {d}
    return method.upsample(d, h) * {again}
"""
_KEPT = "w * (k * f0[:, None] < fs / 2)"
_SHARES = "kept / kept.sum(1, keepdim=True)"
_SMOOTHED = """
def smoothed(H):
    wide = {wide}
    return {mean}
"""
_MIRROR = "torch.cat([H[1:2], H, H[-2:-1]])"
_MEAN = "(wide[:-2] + 2 * wide[1:-1] + wide[2:]) / 4"
_SCALE = """
def best_scale(X, Y):
    order = np.argsort(Y / X)
    weight = {weight}
    middle = weight[-1] / 2
    return (Y / X)[order][np.searchsorted(weight, middle)]
"""
_FOUND = """
def found(target, waves):
    x = torch.zeros(waves.shape[1], dtype=waves.dtype, requires_grad=True)
    adam = torch.optim.Adam([x], lr=0.05)
    for _ in range(200):
        loss = method.spectral_loss({made}, target)
        adam.zero_grad()
        {then}
    return {answer}
"""
_MADE, _STEP = "waves @ method.positive(x)", "loss.backward(); adam.step()"

WRONG = {
    1: [
        # Added up in float32.
        _TURNS.format(turns="np.cumsum(f0 / fs)"),
        # The present pitch, times all of the past.
        _TURNS.format(turns="f0.astype(float) * np.arange(1, len(f0) + 1) / fs"),
        # n in place of n + 1.
        _TURNS.format(turns="np.cumsum(f0.astype(float) / fs) - f0[0] / fs"),
        # Radians.
        _TURNS.format(turns="2 * np.pi * np.cumsum(f0.astype(float)) / fs"),
    ],
    2: [
        # Removed in the frames only.
        _FITTING.format(kept=_KEPT, d=_SHARES, again="1"),
        # Normalised before anything is removed.
        _FITTING.format(
            kept="w / w.sum(1, keepdim=True)",
            d="kept * (k * f0[:, None] < fs / 2)",
            again="(k * method.interpolate(f0, h)[:, None] < fs / 2)",
        ),
        # Not removed in the frames at all.
        _FITTING.format(
            kept="w",
            d=_SHARES,
            again="(k * method.interpolate(f0, h)[:, None] < fs / 2)",
        ),
    ],
    3: [
        # The ends are repeated, not mirrored.
        _SMOOTHED.format(wide="torch.cat([H[:1], H, H[-1:]])", mean=_MEAN),
        # Three equal weights.
        _SMOOTHED.format(wide=_MIRROR, mean="(wide[:-2] + wide[1:-1] + wide[2:]) / 3"),
        # The ends get zeros.
        _SMOOTHED.format(wide="torch.nn.functional.pad(H, (1, 1))", mean=_MEAN),
    ],
    4: [
        # The plain median of the ratios.
        _SCALE.format(weight="np.arange(1.0, len(X) + 1)"),
        # Weights that were not put in order.
        _SCALE.format(weight="np.cumsum(X)"),
        # The weights of least squares.
        _SCALE.format(weight="np.cumsum(X[order] ** 2)"),
    ],
    5: [
        # The gradient is there, and no step is taken.
        _FOUND.format(made=_MADE, then="loss.backward()", answer="method.positive(x)"),
        # What is returned was never made positive.
        _FOUND.format(made=_MADE, then=_STEP, answer="x"),
        # The sound is made of x itself, its amplitudes of something else.
        _FOUND.format(made="waves @ x", then=_STEP, answer="method.positive(x)"),
    ],
}
