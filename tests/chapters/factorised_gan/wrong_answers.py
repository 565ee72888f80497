"""Wrong answers that a reader may well give; each must be told "not yet"."""

_BEST = """
def best(p, q, k):
    logit = {logit}
    pull = {pull}
    return logit, pull
"""
_LOOSE = """
def loose(p, q):
    p_1, p_2 = p.sum(1, keepdim=True), p.sum(0, keepdim=True)
    return {answer}
"""
_ALONE = """
def alone(p, q):
    for _ in range({times}):
        q = q * {rows}
        q = q * {columns}
    return q
"""
_ROWS = "(p.sum(1, keepdim=True) / q.sum(1, keepdim=True))"
_COLUMNS = "(p.sum(0, keepdim=True) / q.sum(0, keepdim=True))"
_SHUFFLE = """
def shuffle(second, draws):
    B = len(second)
    k = torch.randint({ends}, (1,), generator=draws).item()
    return second.roll(k, 0)
"""
_STEP = """
def train_step(nets, adam, x1, x2, pairs, fake):
    shift = torch.cat([pairs[:, :1], pairs[:, 1:].roll(1, 0)], 1)
    fake_shift = torch.cat([fake[:, :1], fake[:, 1:].roll(1, 0)], 1)
    sides = [
        (x1, fake[:, :1]),
        (x2, fake[:, 1:]),
        {third},
        {fourth},
    ]
    loss = 0.0
    for net, (real, other) in zip(nets, sides, strict=True):
        loss = loss + {loss}
    adam.zero_grad()
    loss.backward()
    adam.step()
"""
_LOSS = "F.softplus(-net(real)).mean() + F.softplus(net(other)).mean()"


def _step(third="(pairs, shift)", fourth="(fake, fake_shift)", loss=_LOSS):
    """The training step of exercise 5 with one line changed."""
    return _STEP.format(third=third, fourth=fourth, loss=loss)


WRONG = {
    1: [
        # The factor k is forgotten in the logit.
        _BEST.format(logit="(p / q).log()", pull="k * p * q / (k * p + q)"),
        # It is forgotten in the pull.
        _BEST.format(logit="(k * p / q).log()", pull="p * q / (p + q)"),
        # The fake samples are taken for the more frequent ones.
        _BEST.format(logit="(p / (k * q)).log()", pull="k * p * q / (p + k * q)"),
    ],
    2: [
        # d_Q is forgotten.
        _LOOSE.format(
            answer="(p_1 / q.sum(1, keepdim=True)).log()"
            " + (p_2 / q.sum(0, keepdim=True)).log()"
        ),
        # All four logits.
        _LOOSE.format(answer="(p / q).log()"),
        # The sign is turned.
        _LOOSE.format(answer="(q / (p_1 * p_2)).log()"),
    ],
    3: [
        # Independent parts: the odds ratios are lost.
        """
def alone(p, q):
    return p.sum(1, keepdim=True) * p.sum(0, keepdim=True)
""",
        # One round is not enough.
        _ALONE.format(times=1, rows=_ROWS, columns=_COLUMNS),
        # Rows alone.
        _ALONE.format(times=500, rows=_ROWS, columns="1.0"),
    ],
    4: [
        # A shift by 0 leaves all pairs together.
        _SHUFFLE.format(ends="0, B"),
        # The last shift never comes.
        _SHUFFLE.format(ends="1, B - 1"),
        # A permutation.
        """
def shuffle(second, draws):
    return second[torch.randperm(len(second), generator=draws)]
""",
    ],
    5: [
        # d_P is trained against the generator.
        _step(third="(pairs, fake)"),
        # d_Q's sides are swapped.
        _step(third="(shift, pairs)"),
        # Only the real side is learned.
        _step(loss="F.softplus(-net(real)).mean()"),
        # Both sides are taken for real.
        _step(loss="F.softplus(-net(real)).mean() + F.softplus(-net(other)).mean()"),
    ],
}
