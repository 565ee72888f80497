"""Wrong answers that a reader may well give; each must be told "not yet"."""

_EXPECTED = """
def expected_gradient(P, P_star):
    weight = {weight}
    now = {now}
    new = {new}
    return weight[:, None] * (now - new)
"""
_NOW, _NEW = "P / P.sum(1, keepdim=True)", "P_star / P_star.sum(1, keepdim=True)"
_GAMMA = """
def gamma_gradient(gamma, log_forward, log_backward):
    delta = {delta}
    posterior = {posterior}
    return torch.sigmoid(gamma) - posterior
"""
_DISTANCE = """
def distance(log_p, log_star):
    gap = log_star - log_p
    marginal = log_star.logsumexp(1) - log_p.logsumexp(1)
    rows = {rows}
    marginal = {marginal}
    return marginal.square().sum() + rows.square().sum()
"""
_CENTRED = "marginal - marginal.mean()"
_TRAINED = """
def trained(deltas, rate=0.1, steps=1000):
    draws = torch.Generator().manual_seed(0)
    gamma = torch.zeros(100, dtype=torch.float64, requires_grad=True)
    sgd = torch.optim.SGD([gamma], rate)
    for _ in range(steps):
        at = torch.randint(len(deltas), (100,), generator=draws)
        loss = {loss}
        sgd.zero_grad()
        loss.backward()
        {step}
    return {end}
"""
_REGRET = "method.regret(gamma, deltas[at], 0 * deltas[at]).sum()"
_END = "gamma.detach().sigmoid().mean()"
_READING = """
def reading(theta_E, theta_D):
    turns = {turns}
    off = {off}
    sign = {sign}
    return off, sign
"""
_OFF = "np.abs(theta_E + theta_D - 90 * turns)"
_SIGN = "np.where(turns % 2 == 0, 1, -1)"

WRONG = {
    1: [
        # The weights from before the change.
        _EXPECTED.format(weight="P.sum(1)", now=_NOW, new=_NEW),
        # The sign.
        _EXPECTED.format(weight="P_star.sum(1)", now=_NEW, new=_NOW),
        # Joints taken for conditionals.
        _EXPECTED.format(weight="torch.ones(len(P))", now="P", new="P_star"),
    ],
    2: [
        # The belief from before is forgotten.
        _GAMMA.format(
            delta="log_forward - log_backward", posterior="torch.sigmoid(delta)"
        ),
        # The sign of Delta.
        _GAMMA.format(
            delta="log_backward - log_forward",
            posterior="torch.sigmoid(gamma + delta)",
        ),
        # Likelihoods, which underflow.
        _GAMMA.format(
            delta="torch.sigmoid(gamma) * log_forward.exp()",
            posterior="delta / (delta + torch.sigmoid(-gamma) * log_backward.exp())",
        ),
    ],
    3: [
        # Nothing is centred.
        _DISTANCE.format(rows="gap - marginal[:, None]", marginal="marginal"),
        # The table is centred as one.
        _DISTANCE.format(rows="gap - gap.mean()", marginal=_CENTRED),
        # Columns are centred.
        _DISTANCE.format(rows="gap - gap.mean(0)", marginal=_CENTRED),
    ],
    4: [
        # The mean of Delta decides.
        _TRAINED.format(
            loss="-(gamma.sigmoid() * deltas[at]).sum()",
            step="sgd.step()",
            end=_END,
        ),
        # No step is taken.
        _TRAINED.format(loss=_REGRET, step="pass", end=_END),
        # The loss is a mean over the gammas.
        _TRAINED.format(
            loss=_REGRET.replace("sum", "mean"), step="sgd.step()", end=_END
        ),
        # The belief is in the other learner.
        _TRAINED.format(
            loss="method.regret(gamma, 0 * deltas[at], deltas[at]).sum()",
            step="sgd.step()",
            end=_END,
        ),
        # gamma itself for the belief.
        _TRAINED.format(loss=_REGRET, step="sgd.step()", end="gamma.detach().mean()"),
    ],
    5: [
        # The encoder turns the wrong way.
        _READING.format(
            turns="np.round((theta_E - theta_D) / 90)",
            off="np.abs(theta_E - theta_D - 90 * turns)",
            sign=_SIGN,
        ),
        # Half turns only.
        _READING.format(
            turns="np.round((theta_E + theta_D) / 180)",
            off="np.abs(theta_E + theta_D - 180 * turns)",
            sign="np.ones_like(turns)",
        ),
        # Gamma always points to A -> B.
        _READING.format(
            turns="np.round((theta_E + theta_D) / 90)",
            off=_OFF,
            sign="np.ones_like(turns)",
        ),
    ],
}
