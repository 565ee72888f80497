"""Wrong answers that a reader may well give; each must be told "not yet"."""

_OUTER = """
def outer(loss, meta_loss, theta, alpha, K):
    path = [theta]
    for _ in range(K):
        path.append(path[-1] - alpha * grad(loss)(path[-1]))
    g = {first}
    for point in {points}:
        g = {step}
    return g
"""
_FIRST = "grad(meta_loss)(path[-1])"
_STEP = "g - alpha * jvp(grad(loss), (point,), (g,))[1]"
_WHITE = """
def whitening(X):
    values, Q = torch.linalg.eigh(X @ X.T / X.shape[1])
    return {answer}
"""
_RATE = """
def one_step(a, e):
    return {answer}
"""
_REWARDS = """
def rewards(t, theta, a, c, alpha):
    error = t * theta - c
    shrink = 1 - alpha * t**2 * a
    shape = {shape}
    drag = {drag}
    return shape, shape + drag
"""
_SHAPE = "-2 * alpha * t * a**2 * error**2 * shrink"
_DRAG = "a * error * shrink**2 * theta"
_PHI = """
def phi_step(net, adam, theta, train, other, alpha):
    theta = theta.detach().requires_grad_()
    total = net.losses(theta, {batch}).sum()
    (g,) = torch.autograd.grad(total, theta{graph})
    loss = {loss}
    adam.zero_grad()
    loss.backward()
    adam.step()
    return loss.item()
"""
_GRAPH = ", create_graph=True"
_LOSS = "net.losses(theta - alpha * g, other).mean()"

WRONG = {
    1: [
        # First order: no product with a Hessian.
        _OUTER.format(first=_FIRST, points="path[-2::-1]", step="g"),
        # Forwards.
        _OUTER.format(first=_FIRST, points="path[:-1]", step=_STEP),
        # The last iterate, too.
        _OUTER.format(first=_FIRST, points="path[::-1]", step=_STEP),
        # The gradient of the task's own loss.
        _OUTER.format(first="grad(loss)(path[-1])", points="path[-2::-1]", step=_STEP),
    ],
    2: [
        # The inverse, without the root.
        _WHITE.format(answer="Q @ values.reciprocal().diag() @ Q.T"),
        # The root, and not its inverse.
        _WHITE.format(answer="Q @ values.sqrt().diag() @ Q.T"),
        # Not symmetric.
        _WHITE.format(answer="values.rsqrt().diag() @ Q.T"),
    ],
    3: [
        # The mean of Newton's rates.
        _RATE.format(answer="(1 / a).mean()"),
        # The largest curvature's.
        _RATE.format(answer="1 / a.max()"),
        # The loss is not weighted by the curvature.
        _RATE.format(answer="(a * e**2).sum() / (a**2 * e**2).sum()"),
        # Errors are not squared.
        _RATE.format(answer="(a**2 * e).sum() / (a**3 * e).sum()"),
    ],
    4: [
        # The drag before the step.
        _REWARDS.format(shape=_SHAPE, drag="a * error * theta"),
        # The drag in W.
        _REWARDS.format(shape=_SHAPE, drag="a * error * shrink**2 * t * theta"),
        # A factor of two.
        _REWARDS.format(shape="-alpha * t * a**2 * error**2 * shrink", drag=_DRAG),
        # No drag: both are (10).
        _REWARDS.format(shape=_SHAPE, drag="0"),
    ],
    5: [
        # (12): no graph.
        _PHI.format(batch="train", graph="", loss=_LOSS),
        # One batch for both.
        _PHI.format(batch="train", graph=_GRAPH, loss=_LOSS.replace("other", "train")),
        # The batches are swapped.
        _PHI.format(batch="other", graph=_GRAPH, loss=_LOSS.replace("other", "train")),
        # No step is taken.
        _PHI.format(
            batch="train", graph=_GRAPH, loss="net.losses(theta, other).mean()"
        ),
        # A sum over tasks.
        _PHI.format(
            batch="train", graph=_GRAPH, loss=_LOSS.replace(".mean()", ".sum()")
        ),
    ],
}
