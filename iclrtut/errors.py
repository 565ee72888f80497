"""The two ways in which a call ends badly, each told in one sentence."""


class BadRequest(ValueError):
    """What was asked for does not exist or does not fit; nothing was changed."""


class RunFailed(RuntimeError):
    """What was asked for was started and could not be finished."""
