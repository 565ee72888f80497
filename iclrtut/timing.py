"""Times and operations of several functions that are compared on one machine."""

import time
from collections.abc import Callable, Mapping

import torch


def seconds(call: Callable[[], object]) -> float:
    """The time of one call, on a GPU until it is done."""
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def flops(call: Callable[[], object]) -> int:
    """The floating-point operations of one call, as PyTorch counts them."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


def alternate(
    arms: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 1
) -> dict[str, list[float]]:
    """Times of several calls in turn, so that a busy machine slows all alike.

    Args:
        arms: what is compared, by name.
        rounds: how many times are kept of each.
        warmup: rounds before them that are dropped.

    Returns:
        Name to seconds, one number a round.
    """
    times = [
        {name: seconds(call) for name, call in arms.items()}
        for _ in range(warmup + rounds)
    ]
    return {name: [each[name] for each in times[warmup:]] for name in arms}
