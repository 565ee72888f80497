"""Your classifier is secretly an energy-based model (JEM), at working speed.

Grathwohl, Wang, Jacobsen, Duvenaud, Norouzi, Swersky, ICLR 2020. Numbers in brackets
are equations of the chapter `energy_based_classifier`. Images are float tensors
[n, channels, height, width] with pixels in [-1, 1]; labels are int64 [n]; logits are
[n, classes], in nats. A function that draws at random takes a generator on the
device of its inputs.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from iclrtut.errors import BadRequest
from iclrtut.train import seeded

# Networks


class Net(nn.Sequential):
    """Layers in a row that know their input's shape, and end in a linear read-out.

    Args:
        layers: the layers.
        shape: of one input.
        bf16: compute in bfloat16 where PyTorch holds it safe; logits stay float32.

    Raises (when called):
        BadRequest: the input has another shape.
    """

    def __init__(self, *layers: nn.Module, shape: tuple[int, ...], bf16: bool = False):
        super().__init__(*layers)
        self.shape, self.bf16 = shape, bf16

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1:] != self.shape:
            raise BadRequest(
                f"inputs have shape {list(x.shape)}, this network takes "
                f"[n, {', '.join(map(str, self.shape))}]: reshape them."
            )
        return self._through(x, len(self)).to(x.dtype)

    def features(self, x: Tensor) -> Tensor:
        """The last convolution's output averaged over the image, [n, channels]."""
        return self._through(x, len(self) - 2).to(x.dtype).mean((2, 3))

    def _through(self, x: Tensor, layers: int) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bf16):
            for layer in list(self)[:layers]:
                x = layer(x)
        return x


class _Block(nn.Module):
    """Pre-activation residual block that starts as the identity, so needs no norm."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1)
        nn.init.zeros_(self.second.weight)
        same = inputs == outputs and stride == 1
        self.skip = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.leaky_relu(self.first(F.leaky_relu(x, 0.2)), 0.2)
        skipped: Tensor = self.skip(x) + self.second(hidden)
        return skipped


def digits_net(seed: int, classes: int = 10) -> Net:
    """Three convolutions for 8 x 8 digits, smooth units, no norm."""
    with seeded(seed):
        return Net(
            nn.Conv2d(1, 16, 3, 1, 1),
            nn.SiLU(),
            nn.Conv2d(16, 32, 3, 2, 1),
            nn.SiLU(),
            nn.Conv2d(32, 64, 3, 2, 1),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(256, classes),
            shape=(1, 8, 8),
        )


def mlp(seed: int, classes: int = 2, hidden: int = 64) -> Net:
    """Two hidden layers for points of the plane, smooth units."""
    with seeded(seed):
        return Net(
            nn.Linear(2, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, classes),
            shape=(2,),
        )


def wide_resnet(
    depth: int, width: int, seed: int, classes: int = 10, bf16: bool = False
) -> Net:
    """Wide ResNet (Zagoruyko and Komodakis, 2016) for 32 x 32 colours, without norm.

    Raises:
        BadRequest: depth is not 6 k + 4 with k at least 1.
    """
    if depth < 10 or depth % 6 != 4:
        raise BadRequest(
            f"a wide ResNet of depth {depth} is not 6 k + 4: use 10 or 28."
        )
    widths = [16 * width * 2**stage for stage in range(3)]
    with seeded(seed):
        layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1)]
        for stage, (inputs, outputs) in enumerate(pairwise([16, *widths])):
            for k in range((depth - 4) // 6):
                stride = 2 if stage and not k else 1
                layers.append(_Block(outputs if k else inputs, outputs, stride))
        layers += [nn.LeakyReLU(0.2), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        layers.append(nn.Linear(widths[-1], classes))
        net = Net(*layers, shape=(3, 32, 32), bf16=bf16)
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


# Energy, scores, sampler


def log_density(logits: Tensor) -> Tensor:
    """log p(x) + log Z = LSE_y f(x)[y], (4). Shape [..., classes] to [...], nats."""
    return torch.logsumexp(logits, dim=-1)


def energy(logits: Tensor) -> Tensor:
    """E(x) = -LSE_y f(x)[y], (4). Shape [..., classes] to [...], nats."""
    return -log_density(logits)


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Compute no weight gradients inside; leave the weights' flags as they were."""
    weights = [p for p in model.parameters() if p.requires_grad]
    try:
        for p in weights:
            p.requires_grad_(False)
        with torch.enable_grad():
            yield
    finally:
        for p in weights:
            p.requires_grad_(True)


def _check(model: nn.Module, x: Tensor) -> None:
    dtype = next((p.dtype for p in model.parameters()), x.dtype)
    if x.dtype != dtype:
        raise BadRequest(
            f"inputs are {x.dtype} and the network's weights {dtype}: convert the "
            f"inputs with x.to({dtype})."
        )
    if not torch.isfinite(x).all():
        raise BadRequest("an input holds NaN or infinity: look where it comes from.")


def _gradient(model: nn.Module, x: Tensor, target: Tensor | None) -> Tensor:
    """dLSE/dx by (10): the class gradients weighted by p(y|x); or those of `target`."""
    logits = model(x)
    if target is None:
        weights = logits.detach().softmax(-1)
    else:
        weights = F.one_hot(target, logits.shape[-1]).to(logits.dtype)
    gradient: Tensor = torch.autograd.grad(logits, x, weights)[0]
    return gradient


def input_gradient(model: nn.Module, x: Tensor, target: Tensor | None = None) -> Tensor:
    """Gradient of the log-density in the input, (10); the weights are left alone.

    Args:
        model: inputs [n, ...] to logits [n, classes].
        x: inputs [n, ...].
        target: classes [n]; when given, the gradient of f(x)[target] instead.

    Returns:
        Gradients, of the shape of x.

    Raises:
        BadRequest: x has another dtype than the weights, or is not finite.
    """
    _check(model, x)
    with _frozen(model):
        return _gradient(model, x.detach().requires_grad_(), target)


def mass_score(model: nn.Module, x: Tensor) -> Tensor:
    """-||d log p(x)/dx||_2 for each input, (12). Shape [n, ...] to [n]."""
    return -_length(input_gradient(model, x))


def _length(v: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(v.flatten(1), dim=1)
    return length


def langevin(
    model: nn.Module,
    x: Tensor,
    steps: int,
    alpha: float,
    sigma: float,
    generator: torch.Generator,
    target: Tensor | None = None,
    clamp: tuple[float, float] | None = None,
) -> Tensor:
    """Langevin steps x + alpha dLSE/dx + sigma noise, (9).

    They sample exp(LSE / T), T = sigma**2 / (2 alpha), up to the error of the step.

    Args:
        model: inputs [n, ...] to logits [n, classes]. Its weights, their flags and
            their gradients are left as they were.
        x: where the chains start, [n, ...].
        steps: how many.
        alpha, sigma: size of the step and of the noise.
        generator: of the noise.
        target: classes [n]; when given, the chains climb f(x)[target].
        clamp: low and high end of the box the chains are held in, if any.

    Returns:
        Where the chains end, detached, of the shape of x.

    Raises:
        BadRequest: alpha is not above 0, sigma or steps are below 0, or x has another
            dtype than the weights or is not finite.
    """
    if not (0 < alpha < math.inf and 0 <= sigma < math.inf and steps >= 0):
        raise BadRequest(
            f"the sampler got steps {steps}, alpha {alpha}, sigma {sigma}: it needs "
            "steps and sigma of at least 0 and alpha above 0."
        )
    _check(model, x)
    x = x.detach().clone()
    with _frozen(model):
        for _ in range(steps):
            gradient = _gradient(model, x.requires_grad_(), target)
            noise = torch.empty_like(x).normal_(generator=generator)
            x = noise.mul_(sigma).add_(x.detach()).add_(gradient, alpha=alpha)
            if clamp:
                x = x.clamp_(*clamp)
    return x


class ReplayBuffer:
    """Chains kept between training steps, (11).

    Args:
        size: number of slots.
        shape: of one input.
        restart: probability that a drawn slot starts anew.
        generator: of the draws, on `device`.
        device: where the slots live.

    Raises:
        BadRequest: size is below 1 or restart no probability.
    """

    def __init__(
        self,
        size: int,
        shape: tuple[int, ...],
        restart: float,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
    ):
        if size < 1 or not 0 <= restart <= 1:
            raise BadRequest(
                f"a buffer of {size} slots with restart {restart} is none: it needs a "
                "slot and a probability."
            )
        self.restart, self.generator = restart, generator
        self.slots = torch.empty(size, *shape, device=device)
        self.slots.uniform_(-1, 1, generator=generator)

    def _some(self, n: int) -> Tensor:
        return torch.randint(
            len(self.slots),
            (n,),
            generator=self.generator,
            device=self.slots.device,
        )

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """Starts of n chains [n, ...] and their slots [n], drawn with replacement."""
        slots = self._some(n)
        x = self.slots[slots]
        fresh = torch.empty_like(x).uniform_(-1, 1, generator=self.generator)
        chance = torch.empty(n, device=x.device).uniform_(generator=self.generator)
        anew = (chance < self.restart).view(n, *[1] * (x.ndim - 1))
        return torch.where(anew, fresh, x), slots

    def put(self, slots: Tensor, x: Tensor) -> None:
        """Keep where chains ended; of a slot drawn twice, the later chain."""
        slots, order = slots.sort(stable=True)
        last = torch.ones_like(slots, dtype=torch.bool)
        last[:-1] = slots[:-1] != slots[1:]
        self.slots[slots[last]] = x.detach()[order[last]]

    def sample(self, n: int) -> Tensor:
        """n slots as they are, drawn with replacement, [n, ...]."""
        return self.slots[self._some(n)]

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps: the slots. The generator is kept by its owner."""
        return {"slots": self.slots}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take the slots of a checkpoint."""
        self.slots.copy_(state["slots"])


def jem_loss(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    samples: Tensor,
    x_energy: Tensor | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """-log p(y|x) - T log p(x) up to a constant, by (7) to (9).

    mean LSE(samples) - mean LSE(data) + cross-entropy, in one pass of the network.

    Args:
        model: inputs [n, ...] to logits [n, classes]; no batch norm.
        x, y: labelled inputs [n, ...] and classes [n] for the cross-entropy.
        samples: the sampler's inputs [m, ...]; no gradient flows into them.
        x_energy: data [k, ...] for the density; x itself unless given (the official
            recipe draws a second batch).

    Returns:
        The loss, and the numbers to watch: mean LSE of data and of samples, their gap.

    Raises:
        BadRequest: a batch is empty, or x and y differ in length.
    """
    second = [] if x_energy is None else [x_energy]
    if len(x) != len(y) or not all(map(len, [x, samples, *second])):
        raise BadRequest(
            f"got {len(x)} inputs, {len(y)} labels and {len(samples)} samples: the "
            "loss needs as many labels as inputs, and no empty batch."
        )
    logits = model(torch.cat([x, samples.detach(), *second]))
    lse = log_density(logits)
    sampled = lse[len(x) : len(x) + len(samples)].mean()
    data = (lse[len(x) + len(samples) :] if second else lse[: len(x)]).mean()
    loss = sampled - data + F.cross_entropy(logits[: len(x)], y)
    seen = {"lse_data": data.item(), "lse_samples": sampled.item()}
    return loss, {"gap": seen["lse_data"] - seen["lse_samples"], **seen}


def lambda_max(model: nn.Module, x: Tensor, steps: int = 20) -> Tensor:
    """Largest eigenvalue of the Hessian of E at each input, by power iteration.

    Langevin steps are locally stable while alpha times it stays below 2, (9a). The
    Hessian is shifted by its own norm, so the largest is found, not the most negative.

    Args:
        model: inputs [n, ...] to logits [n, classes].
        x: inputs [n, ...].
        steps: of each of the two power iterations.

    Returns:
        Eigenvalues [n], from below.
    """
    _check(model, x)
    with _frozen(model):
        x = x.detach().requires_grad_()
        slope = torch.autograd.grad(energy(model(x)).sum(), x, create_graph=True)[0]

        def times(v: Tensor) -> Tensor:
            along = v.view_as(x)
            return torch.autograd.grad(slope, x, along, retain_graph=True)[0].flatten(1)

        start = torch.Generator(x.device).manual_seed(0)
        first = torch.empty_like(x).normal_(generator=start).flatten(1)
        shift = torch.zeros_like(first[:, :1])
        for _ in range(2):
            v = F.normalize(first, dim=1)
            for _ in range(steps):
                v = F.normalize(times(v) + shift * v, dim=1)
            shift = times(v).norm(dim=1, keepdim=True)
        return (v * times(v)).sum(1)


# Attacks


def project(delta: Tensor, radius: float, norm: str) -> Tensor:
    """Nearest point of the ball, (14): [n, ...] to [n, ...].

    Raises:
        BadRequest: norm is neither "linf" nor "l2".
    """
    if norm == "linf":
        return delta.clamp(-radius, radius)
    if norm != "l2":
        raise BadRequest(f"norm {norm!r} is unknown: use 'linf' or 'l2'.")
    share = (radius / _length(delta).clamp_min(1e-12)).clamp_max(1)
    return delta * share.view(-1, *[1] * (delta.ndim - 1))


def steepest(gradient: Tensor, norm: str) -> Tensor:
    """Unit direction of steepest ascent, (14): sign(g) or g / ||g||, [n, ...]."""
    if norm == "linf":
        return gradient.sign()
    return F.normalize(gradient.flatten(1), dim=1).view_as(gradient)


def pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    radius: float,
    steps: int,
    norm: str,
    generator: torch.Generator,
    refine: Callable[[Tensor], Tensor] | None = None,
    start: Tensor | None = None,
) -> Tensor:
    """Projected gradient ascent on the cross-entropy, (14).

    Steps of 2.5 radius / steps along the steepest direction; projects on the ball, then
    clamps to [-1, 1].

    Args:
        model: inputs [n, ...] to logits [n, classes].
        x, y: inputs in [-1, 1] and their classes.
        radius: of the ball, in the units of the pixels.
        steps: how many.
        norm: "linf" or "l2".
        generator: of the start.
        refine: inputs to logits, when something other than `model` is attacked.
        start: where the attack starts, of the shape of x; at random in the ball unless
            given.

    Returns:
        For each input the strongest point met, of the shape of x.

    Raises:
        BadRequest: unknown norm, radius below 0, or x unfit for the weights.
    """
    _check(model, x)
    if not 0 <= radius < math.inf:
        raise BadRequest(f"radius {radius} is no size of a ball: use 0 or more.")
    classify = refine or model
    if start is None:
        start = x + radius * torch.empty_like(x).uniform_(-1, 1, generator=generator)
    delta = project(start - x, radius, norm)
    found, worst = x.detach().clone(), torch.full((len(x),), -math.inf, device=x.device)
    with _frozen(model):
        for step in range(steps + 1):
            at = (x + delta).clamp(-1, 1).detach().requires_grad_()
            losses = F.cross_entropy(classify(at), y, reduction="none")
            harder = losses.detach() > worst
            worst = torch.where(harder, losses.detach(), worst)
            found[harder] = at.detach()[harder]
            if step < steps:
                slope = torch.autograd.grad(losses.sum(), at)[0]
                step_size = 2.5 * radius / steps
                moved = at.detach() + step_size * steepest(slope, norm) - x
                delta = project(moved, radius, norm)
    return found


class Refinement(NamedTuple):
    """Sampler steps before classifying, logits averaged over chains (section 5.4)."""

    steps: int
    alpha: float
    sigma: float
    chains: int


def refine(
    model: nn.Module, x: Tensor, how: Refinement, generator: torch.Generator
) -> Tensor:
    """Logits [n, classes] of inputs [n, ...] after sampler steps, mean over chains."""
    starts = x.repeat(how.chains, *[1] * (x.ndim - 1))
    ends = langevin(model, starts, how.steps, how.alpha, how.sigma, generator)
    with torch.no_grad():
        mean: Tensor = model(ends).view(how.chains, len(x), -1).mean(0)
    return mean
