"""Small networks that several chapters train."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from iclrtut.train import seeded


def mlp(
    sizes: Sequence[int], seed: int, activation: type[nn.Module] = nn.ReLU
) -> nn.Sequential:
    """Linear layers with an activation between them, their weights drawn by a seed.

    Args:
        sizes: width of the input, of each hidden layer, and of the output.
        seed: of the first weights; torch's global generator is left as it was.
        activation: of the hidden layers.

    Returns:
        A network from [..., sizes[0]] to [..., sizes[-1]].
    """
    layers: list[nn.Module] = []
    with seeded(seed):
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1])


def convnet(
    channels: Sequence[int],
    seed: int,
    activation: type[nn.Module] = nn.ReLU,
    *,
    side: int = 8,
    classes: int = 10,
) -> nn.Sequential:
    """3 x 3 convolutions, the first of stride 1, the others of stride 2; a read-out.

    Args:
        channels: of the images, and of each convolution.
        seed: of the first weights; torch's global generator is left as it was.
        activation: after each convolution.
        side: height and width of the images.
        classes: how many logits.

    Returns:
        A network from images [n, channels[0], side, side] to logits [n, classes].
    """
    layers: list[nn.Module] = []
    with seeded(seed):
        for i, (inputs, outputs) in enumerate(pairwise(channels)):
            stride = 2 if i else 1
            layers += [nn.Conv2d(inputs, outputs, 3, stride, 1), activation()]
            side = (side - 1) // stride + 1
        layers += [nn.Flatten(), nn.Linear(channels[-1] * side**2, classes)]
    return nn.Sequential(*layers)
