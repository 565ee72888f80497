"""Images as tensors: pixel ranges, random splits, and inputs of no class.

Images are [n, channels, height, width], float32, with pixels from `low` to `high`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from iclrtut import data
from iclrtut.errors import BadRequest

Rng = np.random.Generator


def from_pixels(pixels: Any, *, low: float, high: float, white: float = 255) -> Tensor:
    """Pixels as they are stored, as images of the range that a network takes.

    Args:
        pixels: [n, height, width] in grey or [n, height, width, 3] in colour.
        low, high: what 0 and `white` become.
        white: the largest stored value.

    Raises:
        BadRequest: pixels of another shape, or an empty range.
    """
    x = torch.as_tensor(np.asarray(pixels)).float()
    if x.ndim not in (3, 4) or (x.ndim == 4 and x.shape[-1] != 3):
        raise BadRequest(
            f"pixels have the shape {list(x.shape)}: give [n, height, width] or "
            "[n, height, width, 3]."
        )
    x = x[:, None] if x.ndim == 3 else x.permute(0, 3, 1, 2).contiguous()
    return _scaled(x, low, high, white)


def _scaled(x: Tensor, low: float, high: float, white: float = 255) -> Tensor:
    if not low < high:
        raise BadRequest(f"pixels from {low} to {high} are no range: give low < high.")
    return x / (white / (high - low)) + low


def split(n: int, sizes: Sequence[int], rng: Rng) -> list[Tensor]:
    """Disjoint random parts of n rows.

    Args:
        n: how many rows there are.
        sizes: of the parts; rows beyond their sum are left out.
        rng: which rows go where.

    Returns:
        Row numbers, int64, one tensor a part.

    Raises:
        BadRequest: a part is empty, or the parts need more rows than there are.
    """
    if min(sizes) < 1 or sum(sizes) > n:
        raise BadRequest(
            f"{n} rows cannot be split into parts of {list(sizes)}: give sizes of 1 or "
            "more that add up to no more."
        )
    order = torch.tensor(rng.permutation(n))
    return list(torch.split(order[: sum(sizes)], list(sizes)))


# Foreign inputs: of no class that a classifier of x was trained on


def noise(x: Tensor, rng: Rng, *, low: float, high: float) -> Tensor:
    """Uniform noise of the shape of x."""
    values = rng.uniform(low, high, tuple(x.shape))
    return torch.tensor(values, dtype=x.dtype, device=x.device)


def grey(x: Tensor, rng: Rng, *, low: float, high: float) -> Tensor:
    """One uniform grey value an image, of the shape of x."""
    level = noise(x[:, :1, :1, :1], rng, low=low, high=high)
    return level.expand(x.shape).clone()


def photographs(x: Tensor, rng: Rng, *, low: float, high: float) -> Tensor:
    """Patches of photographs, or clothes where x is in colour, of the shape of x."""
    pixels = data.pictures(x.shape[1], x.shape[2], len(x), rng)
    return _scaled(torch.tensor(pixels), low, high).to(x)


def letters(
    x: Tensor, rng: Rng, *, low: float, high: float, whole: bool = False
) -> Tensor:
    """Handwritten characters of eight alphabets (Omniglot), of the shape of x.

    Each is cut to the square around its ink, or with `whole` keeps the frame that it
    was written in, and is averaged down; its brightest pixel becomes `high`, since thin
    strokes would be faint beside those of digits.
    """
    stored = data.load("omniglot_small")["images_packed"]
    chosen = stored[rng.integers(len(stored), size=len(x))]
    ink = np.unpackbits(chosen, axis=-1, count=105)
    shrunk = _shrunk if whole else _square
    drawn = torch.stack([shrunk(torch.tensor(each), x.shape[-1]) for each in ink])
    drawn = drawn / drawn.amax((1, 2), keepdim=True)
    return _scaled(drawn[:, None].expand(x.shape), low, high, 1).to(x)


def _shrunk(ink: Tensor, width: int) -> Tensor:
    """All of a square frame, averaged down to `width`."""
    return functional.adaptive_avg_pool2d(ink.float()[None], width)[0]


def _square(ink: Tensor, width: int) -> Tensor:
    """The square around the ink of [height, width], averaged down to `width`."""
    rows, columns = (ink.any(axis).nonzero() for axis in (1, 0))
    cut = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    short = max(cut.shape) - np.array(cut.shape[::-1])  # at the sides, above and below
    margins = [end for gap in short for end in (gap // 2, gap - gap // 2)]
    return _shrunk(functional.pad(cut, [int(margin) for margin in margins]), width)


def shuffled(x: Tensor, rng: Rng) -> Tensor:
    """Images x, the pixels of each in an order of its own."""
    order = torch.tensor(rng.random((len(x), x[0].numel())).argsort(1))
    return x.flatten(1).gather(1, order.to(x.device)).view_as(x)


def shuffled_alike(x: Tensor, rng: Rng) -> Tensor:
    """Images x, the pixels of all in one other order."""
    order = torch.tensor(rng.permutation(x[0].numel()), device=x.device)
    return x.flatten(1)[:, order].view_as(x)


def inverted(x: Tensor, *, low: float, high: float) -> Tensor:
    """Images x with dark and light exchanged."""
    return (low + high) - x


def turned(x: Tensor) -> Tensor:
    """Images x, turned by 90 degrees."""
    return x.rot90(1, (2, 3))


def rolled(x: Tensor) -> Tensor:
    """Images x, rolled by half their height."""
    return x.roll(x.shape[2] // 2, 2)


def interpolated(x: Tensor, y: Tensor, n: int, rng: Rng) -> Tensor:
    """n means of two images whose classes y differ, [n, ...].

    Raises:
        BadRequest: too few pairs of different classes were met.
    """
    labels = y.cpu().numpy()
    left, right = rng.integers(len(labels), size=(2, 20 * n))
    pairs = np.flatnonzero(labels[left] != labels[right])[:n]
    if len(pairs) < n:
        raise BadRequest(
            f"only {len(pairs)} of {n} pairs of different classes were met: give "
            "images of more classes."
        )
    return (x[left[pairs]] + x[right[pairs]]) / 2
