"""Two speakers and their sum: the separation of the profile `full`.

Magnitudes are rows [n, bins x frames] as log(1 + |X|); a pair is both sources' rows,
the mixture is what the generator starts from. Numbers in brackets are equations of the
chapter.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, cast

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from iclrtut import data
from iclrtut.chapters.factorised_gan.method import (
    FACTOR,
    GAN,
    Critic,
    Game,
    Pool,
    Real,
    together,
)
from iclrtut.run import Run

SPEAKERS, LENGTH, FFT = ("jackson", "theo"), 4096, 256
BINS, FRAMES = 128, 32
KNOWN, UNKNOWN, TESTS, BATCH, RATE = 30, 300, 100, 16, 3e-4


class Sounds(NamedTuple):
    """Waveforms [n, samples] of equal power: of each speaker, and pairs of both."""

    loose: tuple[Tensor, Tensor]
    known: tuple[Tensor, Tensor]
    unknown: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def spectrum(x: Tensor) -> Tensor:
    """The short-time Fourier transform without its last bin, [n, bins, frames]."""
    window = torch.hann_window(FFT, device=x.device)
    whole = torch.stft(x, FFT, FFT // 2, window=window, return_complex=True)
    return whole[:, :BINS, :FRAMES]


def magnitude(x: Tensor) -> Tensor:
    """log(1 + |X|) of waveforms, [n, bins x frames]."""
    return torch.log1p(spectrum(x).abs()).flatten(1)


def waveform(X: Tensor) -> Tensor:
    """Back from a spectrum, [n, samples]."""
    window = torch.hann_window(FFT, device=X.device)
    padded = F.pad(X, (0, 1, 0, 1))
    return torch.istft(padded, FFT, FFT // 2, window=window, length=LENGTH)


def si_sdr(said: Tensor, truth: Tensor) -> Tensor:
    """The scale-invariant ratio of signal to distortion, decibels [n]."""
    along = (said * truth).sum(1, keepdim=True) / truth.square().sum(1, keepdim=True)
    signal, rest = along * truth, said - along * truth
    return 10 * torch.log10(signal.square().sum(1) / rest.square().sum(1))


def sounds(run: Run) -> Sounds:
    """Half a second of each utterance, split into training and test."""
    z = data.load("fsdd")
    draws = run.generator("speakers", "cpu")
    names, train, test = list(z["speaker_names"]), [], []
    for name in SPEAKERS:
        rows = []
        for k in (z["speaker"] == names.index(name)).nonzero()[0]:
            x = torch.from_numpy(z["samples"][z["offsets"][k] : z["offsets"][k + 1]])
            x = F.pad(x.float()[:LENGTH], (0, max(0, LENGTH - len(x))))
            rows.append(x / x.square().mean().sqrt().clamp_min(1e-9))
        each = torch.stack(rows)[torch.randperm(len(rows), generator=draws)]
        train.append(each[TESTS:].to(run.device))
        test.append(each[:TESTS].to(run.device))

    def some(n: int) -> tuple[Tensor, Tensor]:
        one, two = (
            rows[torch.randint(len(rows), (n,), generator=draws).to(rows.device)]
            for rows in train
        )
        return one, two

    loose, held = (train[0], train[1]), (test[0], test[1])
    return Sounds(loose, some(KNOWN), some(UNKNOWN), held)


class UNet(nn.Module):
    """A mask from the mixture's magnitudes; the sources are its share and the rest."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 16, 32, 64)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 4, 2, 1) for a, b in pairwise(widths))
        ups = ((64, 32), (64, 16), (32, 1))
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 4, 2, 1) for a, b in ups)

    def mask(self, mixture: Tensor) -> Tensor:
        """The first source's share, [n, bins x frames], of log magnitudes."""
        x, kept = mixture.view(-1, 1, BINS, FRAMES), []
        for layer in self.down:
            x = F.leaky_relu(layer(x), 0.2)
            kept.append(x)
        for k, layer in enumerate(self.up):
            x = layer(x if k == 0 else torch.cat([x.relu(), kept[-1 - k]], 1))
        return torch.sigmoid(x).flatten(1)

    def forward(self, mixture: Tensor) -> Tensor:
        """Both sources' log magnitudes, [1, n, 2 x bins x frames], of [1, n, ...]."""
        share, level = self.mask(mixture[0]), mixture[0].expm1()
        return torch.log1p(torch.cat([share * level, (1 - share) * level], 1))[None]


def listener(inputs: int) -> nn.Module:
    """A convolutional discriminator of one source or of both."""
    channels = inputs // (BINS * FRAMES)
    layers: list[nn.Module] = [nn.Unflatten(1, (channels, BINS, FRAMES))]
    for a, b in ((channels, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(a, b, 4, 2, 1), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 16 * 4, 1))


def adversarial(run: Run, s: Sounds, critics: Sequence[Critic], steps: int) -> UNet:
    """A separator trained by discriminators that see sources only, (14)."""
    draws = run.generator("separation", "cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draws.initial_seed() % 2**31)
        game = Game(
            UNet(),
            critics,
            lambda inputs, n: together([listener(inputs) for _ in range(n)]),
            1,
            (BINS * FRAMES, BINS * FRAMES),
        ).to(run.device)
    loose = [Pool([magnitude(x)]) for x in s.loose]
    pairs = Pool([torch.cat([magnitude(x) for x in s.known], 1)])
    mixed = [magnitude(a + v) for a, v in (s.known, s.unknown)]
    mixtures = Pool([torch.cat(mixed)])
    weights = [*game.generator.parameters(), *game.stacks.parameters()]
    adam = torch.optim.Adam(weights, lr=RATE, betas=(0.5, 0.999))
    for _ in range(steps):
        real = Real(*(pool.draw(BATCH, draws) for pool in (*loose, pairs)))
        game.play(adam, real, mixtures.draw(BATCH, draws))
    return cast(UNet, game.mean)


def supervised(run: Run, s: Sounds, remix: bool, steps: int) -> UNet:
    """A separator trained on sources: the known pairs, or random sums of loose ones."""
    draws: Generator = run.generator("supervision", "cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draws.initial_seed() % 2**31)
        network = UNet().to(run.device)
    adam = torch.optim.Adam(network.parameters(), lr=RATE)
    for _ in range(steps):
        pools = s.loose if remix else s.known
        at = [torch.randint(len(x), (BATCH,), generator=draws) for x in pools]
        if not remix:
            at[1] = at[0]
        a, v = (x[k.to(x.device)] for x, k in zip(pools, at, strict=True))
        wanted = torch.cat([magnitude(a), magnitude(v)], 1)
        loss = F.l1_loss(network(magnitude(a + v)[None])[0], wanted)
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
    return network


@torch.no_grad()
def gains(share: Tensor, sources: tuple[Tensor, Tensor]) -> list[float]:
    """The mean gain in SI-SDR over the mixture of each source, decibels.

    Args:
        share: of the first source, [n, bins x frames] in [0, 1].
        sources: waveforms [n, samples].
    """
    mixture = sources[0] + sources[1]
    X, mask = spectrum(mixture), share.view(-1, BINS, FRAMES)
    found = []
    for truth, part in zip(sources, (mask, 1 - mask), strict=True):
        better = si_sdr(waveform(part * X), truth) - si_sdr(mixture, truth)
        found.append(better.mean().item())
    return found


def compare(run: Run, steps: int = 20_000) -> dict[str, list[float]]:
    """The gains of GAN, FactorGAN, FactorGAN without d_P and what they are held to.

    Args:
        run: gives the seed and the device.
        steps: of each training.
    """
    s = sounds(run)
    mute = [
        c._replace(weight=0.0) if c.negative == "real shuffled" else c for c in FACTOR
    ]
    networks = {
        "GAN": adversarial(run, s, GAN, steps),
        "FactorGAN": adversarial(run, s, FACTOR, steps),
        "no d_P": adversarial(run, s, mute, steps),
        "supervised": supervised(run, s, False, steps),
        "remixed": supervised(run, s, True, steps),
    }
    heard = magnitude(s.test[0] + s.test[1])
    found = {}
    for name, network in networks.items():
        with torch.no_grad():
            found[name] = gains(network.mask(heard), s.test)
    a, v = (spectrum(x).abs() for x in s.test)
    found["best mask"] = gains((a / (a + v + 1e-9)).flatten(1), s.test)
    return found
