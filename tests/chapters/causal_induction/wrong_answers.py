"""Wrong answers that a reader may well give; each must be told "not yet"."""

_ALIKE = """
def alike(A, B, targets):
    both = torch.stack([A, B])
    said = {said}
    said += {more}
    return all(torch.equal(*part) for part in said)
"""
_CUTS = "[graphs.skeleton(graphs.cut(both, k)) for k in targets]"
_BOTH = "[graphs.skeleton(both), graphs.v_structures(both)]"
_CAUSE = """
def is_cause(values, targets, i, j):
    log_p = method.log_posterior(values, targets)
    path = {path}
    return {answer}
"""
_REACH = "method.reach(method.dags(3))[:, i, j]"
_SUM = "log_p[:, -1].exp() @ path.double()"
_PRICE = """
def price(p):
    p_e = method.edge_marginals(p.log())
    H = {edges}
    return {answer}
"""
_EDGES = "-(torch.xlogy(p_e, p_e) + torch.xlogy(1 - p_e, 1 - p_e)).sum((-1, -2))"
_GAIN = """
def gain(p, table):
    joint = p[:, None] * table
    outcome = {outcome}
    return {answer}
"""
_STEP = """
def train_step(net, adam, e):
    logits = net(method.features(e.values, e.targets))
    B, T, count = logits.shape
    loss = {loss}
    adam.zero_grad()
    {descend}
    adam.step()
"""
_LOSS = """torch.nn.functional.cross_entropy(
        logits.view(B * T, count), e.graph.repeat_interleave(T)
    )"""


def _step(loss=_LOSS, descend="loss.backward()"):
    """The training step of exercise 5 with one line changed."""
    return _STEP.format(loss=loss, descend=descend)


WRONG = {
    1: [
        # Markov equivalence: the targets are not used.
        _ALIKE.format(said=_BOTH, more="[]"),
        # Skeletons alone: a v-structure looks like a chain.
        _ALIKE.format(said="[graphs.skeleton(both)]", more=_CUTS),
        # The graphs themselves: nothing is ever alike.
        _ALIKE.format(said="[both]", more=_CUTS),
        # The arrows after the cut, with their directions.
        _ALIKE.format(said=_BOTH, more="[graphs.cut(both, k) for k in targets]"),
    ],
    2: [
        # Direct causes only.
        _CAUSE.format(path="method.dags(3)[:, i, j]", answer=_SUM),
        # The wrong way round.
        _CAUSE.format(path="method.reach(method.dags(3))[:, j, i]", answer=_SUM),
        # The answer of the likeliest graph.
        _CAUSE.format(path=_REACH, answer="path[log_p[:, -1].argmax(-1)].double()"),
        # After the first step.
        _CAUSE.format(path=_REACH, answer="log_p[:, 0].exp() @ path.double()"),
        # Logs in place of probabilities.
        _CAUSE.format(path=_REACH, answer="log_p[:, -1] @ path.double()"),
    ],
    3: [
        # The entropy of the arrows, and nothing off.
        _PRICE.format(edges=_EDGES, answer="H"),
        # The sign of the second entropy.
        _PRICE.format(edges=_EDGES, answer="H - torch.xlogy(p, p).sum(-1)"),
        # Half of each arrow's entropy.
        _PRICE.format(
            edges="-torch.xlogy(p_e, p_e).sum((-1, -2))",
            answer="H + torch.xlogy(p, p).sum(-1)",
        ),
        # Zero times the logarithm of zero is no number.
        _PRICE.format(edges=_EDGES, answer="H + (p * p.log()).sum(-1)"),
    ],
    4: [
        # The belief is not used: outcomes weighed evenly.
        _GAIN.format(
            outcome="table.mean(0)",
            answer="torch.xlogy(joint, table / outcome).sum()",
        ),
        # The entropy of the outcome: noise counts as knowledge.
        _GAIN.format(
            outcome="joint.sum(0)", answer="-torch.xlogy(outcome, outcome).sum()"
        ),
        # The sign.
        _GAIN.format(
            outcome="joint.sum(0)",
            answer="torch.xlogy(joint, outcome / table.clamp_min(1e-30)).sum()",
        ),
        # Summed over outcomes in place of graphs.
        _GAIN.format(
            outcome="joint.sum(1, keepdim=True)",
            answer="torch.xlogy(joint, table / outcome).sum()",
        ),
    ],
    5: [
        # The last answer only.
        _step("torch.nn.functional.cross_entropy(logits[:, -1], e.graph)"),
        # The sign: the truth is made unlikely.
        _step(f"-{_LOSS}"),
        # Graphs that belong to other episodes.
        _step(_LOSS.replace("repeat_interleave(T)", "repeat(T)")),
        # Nothing flows back.
        _step(descend="pass"),
        # Probabilities in place of logits.
        _step(_LOSS.replace("logits.view", "logits.softmax(-1).view")),
    ],
}
