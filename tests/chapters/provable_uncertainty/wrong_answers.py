"""Wrong answers that a reader may well give; each must be told "not yet"."""

_POSTERIOR = """
def posterior(logits, log_b):
    log_w = {log_w}
    log_rest = {log_rest}
    uniform = log_rest - np.log(logits.shape[1])
    inside = logits.log_softmax(1) + log_w[:, None]
    return torch.logaddexp(inside, uniform[:, None])
"""
_CEILING = """
def ceiling_of_one(d_in, d_out, R, sigma, theta, D):
    near = {near}
    far = {far}
    fall = {fall}
    return D * np.log(theta / sigma) - fall
"""
_FALL = "near**2 / (2 * sigma**2) - far**2 / (2 * theta**2)"
_UNIFORM = """
def uniform_from(s, th, D, M, eps):
    fall = {fall}
    if {none}:
        return None
    rest = {rest}
    return np.sqrt(max(0.0, rest) / fall)
"""
_SLOPE = "1 / (2 * s**2) - 1 / (2 * th**2)"
_REST = "D * np.log(th / s) - np.log(eps / (1 - 1 / M - eps))"
_DENSITIES = """
def learn_densities(ccu, draw, steps):
    adam = torch.optim.Adam(ccu.parameters(), lr=0.01)
    for _ in range(steps):
        x, x_out = draw()
        loss = {loss}
        adam.zero_grad()
        loss.backward()
        adam.step()
    return ccu
"""

WRONG = {
    1: [
        # Logarithms of what has underflowed.
        _POSTERIOR.format(
            log_w="torch.sigmoid(log_b).log()",
            log_rest="(1 - torch.sigmoid(log_b)).log()",
        ),
        # The ratio taken for the weight.
        _POSTERIOR.format(log_w="log_b", log_rest="torch.zeros_like(log_b)"),
        # The two sources exchanged.
        _POSTERIOR.format(
            log_w="torch.nn.functional.logsigmoid(-log_b)",
            log_rest="torch.nn.functional.logsigmoid(log_b)",
        ),
    ],
    2: [
        # No clamp: a ball that swallows the mean gets a lower ceiling.
        _CEILING.format(near="d_in - R", far="d_out + R", fall=_FALL),
        # The sign of R.
        _CEILING.format(
            near="(d_in + R).clamp(min=0)", far="(d_out - R).clamp(min=0)", fall=_FALL
        ),
        # No doubling of the variance.
        _CEILING.format(
            near="(d_in - R).clamp(min=0)",
            far="d_out + R",
            fall="near**2 / sigma**2 - far**2 / theta**2",
        ),
        # The out-component stays where it is.
        _CEILING.format(near="(d_in - R).clamp(min=0)", far="d_out", fall=_FALL),
    ],
    3: [
        # Equal widths let through.
        _UNIFORM.format(fall=_SLOPE, none="fall < 0", rest=_REST),
        # No widths refused.
        _UNIFORM.format(fall=f"abs({_SLOPE})", none="fall == 0", rest=_REST),
        # Without the dimension.
        _UNIFORM.format(fall=_SLOPE, none="fall <= 0", rest=_REST.removeprefix("D * ")),
        # The odds of epsilon without the share of the classes.
        _UNIFORM.format(
            fall=_SLOPE,
            none="fall <= 0",
            rest="D * np.log(th / s) - np.log(eps / (1 - eps))",
        ),
        # The out-component's width taken for one, everywhere.
        _UNIFORM.format(
            fall="1 / (2 * s**2) - 1 / 2",
            none="s >= 1",
            rest=_REST.replace("th / s", "1 / s"),
        ),
        # The out-component's width taken for one, in the fall.
        _UNIFORM.format(fall="1 / (2 * s**2) - 1 / 2", none="s >= th", rest=_REST),
        # The out-component's width taken for one, in the rest.
        _UNIFORM.format(
            fall=_SLOPE, none="fall <= 0", rest=_REST.replace("th / s", "1 / s")
        ),
        # The in-component's width compared with one.
        _UNIFORM.format(fall=_SLOPE, none="s >= 1", rest=_REST),
    ],
    4: [
        # Straight up: the other pixels stay, which is dear.
        """
def push(C, j, R):
    delta = torch.zeros_like(C[j])
    delta[j] = R * C[j, j].sqrt()
    return delta
""",
        # The variance for the deviation.
        """
def push(C, j, R):
    return R * C[:, j]
""",
        # By the inverse.
        """
def push(C, j, R):
    inverse = torch.linalg.inv(C)
    return R * inverse[:, j] / inverse[j, j].sqrt()
""",
        # The right direction at half the length.
        """
def push(C, j, R):
    return R * C[:, j] / C[j, j].sqrt() / 2
""",
    ],
    6: [
        # The sign of a likelihood.
        _DENSITIES.format(
            loss="ccu.log_density(x).mean() + ccu.log_density(x_out).mean()"
        ),
        # Outliers forgotten.
        _DENSITIES.format(loss="-ccu.log_density(x).mean()"),
        # Outliers pushed away, as a classifier would.
        _DENSITIES.format(
            loss="ccu.log_density(x_out).mean() - ccu.log_density(x).mean()"
        ),
    ],
}
