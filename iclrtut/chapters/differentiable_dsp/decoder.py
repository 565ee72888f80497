"""The network that plays the synthesiser, (12) of the chapter `differentiable_dsp`.

The solo model of the authors' code (solo_instrument.gin) has

    sizes = {"hidden": 512, "width": 512, "layers": 3, "harmonics": 60, "bands": 65}
    model = Decoder(**sizes, hop=64, room=48_000)
"""

import torch
from torch import Tensor, nn

from iclrtut.chapters.differentiable_dsp import method
from iclrtut.chapters.differentiable_dsp.method import Controls, positive


def _stack(inputs: int, width: int, layers: int) -> nn.Sequential:
    """Linear layers, each with a layer norm and a ReLU."""
    modules: list[nn.Module] = []
    for i in range(layers):
        modules += [nn.Linear(width if i else inputs, width), nn.LayerNorm(width)]
        modules += [nn.ReLU()]
    return nn.Sequential(*modules)


class Trunk(nn.Module):
    """Pitch and loudness, each through a stack; a GRU; a stack over all three, (12).

    Args:
        hidden: units of the GRU.
        width: units of each layer of the stacks.
        layers: of each stack.

    Attributes:
        mean, spread: of the loudness of the training set, dB.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, *, hidden: int, width: int, layers: int):
        super().__init__()
        self.pitch, self.loud = (_stack(1, width, layers) for _ in range(2))
        self.gru = nn.GRU(2 * width, hidden, batch_first=True)
        self.out = _stack(hidden + 2 * width, width, layers)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("spread", torch.ones(()))

    def forward(self, f0: Tensor, loud: Tensor) -> Tensor:
        """f0 in Hz and loudness in dB, both [n, T], to [n, T, width]."""
        pitch = self.pitch(torch.log2(f0 / 261.63)[..., None])
        loud = self.loud(((loud - self.mean) / self.spread)[..., None])
        both = torch.cat([pitch, loud], -1)
        output: Tensor = self.out(torch.cat([self.gru(both)[0], both], -1))
        return output


class Decoder(nn.Module):
    """A synthesiser's controls from pitch and loudness, (12), and its sound.

    With u = hidden, v = width, L = layers, K = harmonics, B = bands it has 2 S(1) +
    3u (2v + u + 2) + S(u + 2v) + (v + 1) (1 + K + B) + room parameters, where S(i) =
    v (i + 3) + (L - 1) v (v + 3).

    Args:
        hidden, width, layers: as of `Trunk`.
        harmonics: of the synthesiser.
        bands: of its noise filter.
        hop: samples by frame.
        fs: samples a second.
        room: samples of a learned reverb; 0 for none.
    """

    def __init__(
        self,
        *,
        hidden: int,
        width: int,
        layers: int,
        harmonics: int,
        bands: int,
        hop: int,
        fs: int = 16_000,
        room: int = 0,
    ):
        super().__init__()
        self.fs, self.hop, self.harmonics = fs, hop, harmonics
        self.trunk = Trunk(hidden=hidden, width=width, layers=layers)
        self.head = nn.Linear(width, 1 + harmonics + bands)
        self.room = nn.Parameter(torch.zeros(room)) if room else None

    def controls(self, f0: Tensor, loud: Tensor) -> Controls[Tensor]:
        """f0 in Hz and loudness in dB, both [n, T], to the controls of T frames."""
        output = self.head(self.trunk(f0, loud))
        last = 1 + self.harmonics
        d = method.distribution(positive(output[..., 1:last]), f0, self.fs)
        noise = positive(output[..., last:] - 5)  # begins at 2e-5: quiet
        return Controls(f0, positive(output[..., 0]), d, noise)

    def forward(
        self, f0: Tensor, loud: Tensor, noise: Tensor, wet: bool = True
    ) -> Tensor:
        """The sound of the controls, (1) to (8).

        Args:
            f0: Hz, [n, T].
            loud: loudness in dB, [n, T].
            noise: from `white`, [n, T * hop].
            wet: whether the room is heard, where there is one.

        Returns:
            [n, T * hop].
        """
        dry = method.synthesise(self.controls(f0, loud), noise, self.hop, self.fs)
        if self.room is None or not wet:
            return dry
        direct = torch.ones_like(self.room[:1])  # the sound itself always arrives
        return method.reverb(dry, torch.cat([direct, self.room[1:]]))
