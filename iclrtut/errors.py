"""Exceptions of the package; each message is one sentence with the remedy."""


class BadRequest(ValueError):
    """An argument is unknown or does not fit; nothing was changed."""


class RunFailed(RuntimeError):
    """Work that was begun could not be finished."""
