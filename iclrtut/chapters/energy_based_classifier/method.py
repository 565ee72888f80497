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
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from iclrtut.errors import BadRequest
from iclrtut.inputs import count, labels, need
from iclrtut.networks import convnet, mlp
from iclrtut.train import seeded

# Networks


class Net(nn.Sequential):
    """Layers in a row that know their input's shape, and end in a linear read-out.

    Args:
        layers: the layers.
        shape: of one input.
        bf16: compute in bfloat16 where PyTorch's autocast does; logits stay float32.

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


def digits_net(seed: int) -> Net:
    """Three convolutions for 8 x 8 digits in ten classes; smooth units, no norm."""
    return Net(*convnet((1, 16, 32, 64), seed, nn.SiLU), shape=(1, 8, 8))


def plane_net(seed: int) -> Net:
    """Two hidden layers for points of the plane in two classes; smooth units."""
    return Net(*mlp((2, 64, 64, 2), seed, nn.SiLU), shape=(2,))


def wide_resnet(depth: int, width: int, seed: int, bf16: bool = False) -> Net:
    """Wide ResNet (Zagoruyko and Komodakis, 2016) without norm.

    It takes images [n, 3, 32, 32] and gives logits of ten classes. The authors of JEM
    left out batch norm too (`norm=None` in their code).

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
        layers.append(nn.Linear(widths[-1], 10))
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
    """Compute no weight gradients inside; restore `requires_grad` at the end."""
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
    """Refuse inputs that are not finite or of another dtype than the weights.

    A gradient of one input alone is asked for, so batch norm has to stand still.
    """
    dtype = next((p.dtype for p in model.parameters()), x.dtype)
    mixed = any(isinstance(m, _BatchNorm) and m.training for m in model.modules())
    need(not mixed, "batch norm mixes the inputs while it trains: call model.eval().")
    if x.dtype != dtype:
        raise BadRequest(
            f"inputs are {x.dtype} and the network's weights {dtype}: convert the "
            f"inputs with x.to({dtype})."
        )
    finite = bool(torch.isfinite(x).all())
    need(finite, "an input holds NaN or infinity: look where it comes from.")


def _gradient(model: nn.Module, x: Tensor, target: Tensor | None) -> Tensor:
    """dLSE/dx, the class gradients weighted by p(y|x), (10a); or of `target`, (10b)."""
    logits = model(x)
    if target is None:
        weights = logits.detach().softmax(-1)
    else:
        labels(target, len(logits), logits.shape[-1])
        weights = F.one_hot(target.long(), logits.shape[-1]).to(logits.dtype)
    gradient: Tensor = torch.autograd.grad(logits, x, weights)[0]
    return gradient


def input_gradient(model: nn.Module, x: Tensor, target: Tensor | None = None) -> Tensor:
    """Gradient of the log-density in the input, (10a); the weights are left alone.

    Args:
        model: inputs [n, ...] to logits [n, classes].
        x: inputs [n, ...].
        target: classes [n]; when given, that of f(x)[target], (10b).

    Returns:
        Gradients, of the shape of x.

    Raises:
        BadRequest: x has another dtype than the weights or is not finite, target holds
            no class for each input, or batch norm is in training mode.
    """
    _check(model, x)
    with _frozen(model):
        return _gradient(model, x.detach().requires_grad_(), target)


def mass_score(model: nn.Module, x: Tensor) -> Tensor:
    """The approximate mass -||d log p(x)/dx||_2, (12). Shape [n, ...] to [n].

    Raises:
        BadRequest: x has another dtype than the weights, or is not finite.
    """
    return -_l2_norm(input_gradient(model, x))


def _l2_norm(v: Tensor) -> Tensor:
    """The length of each row: [n, ...] to [n]."""
    norm: Tensor = torch.linalg.vector_norm(v.flatten(1), dim=1)
    return norm


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
    """Langevin steps x + alpha dLSE/dx + sigma noise, (9) and (15).

    They aim at exp(LSE / T), T = sigma**2 / (2 alpha), up to the error of a finite
    step, (9a) and (9b).

    Args:
        model: inputs [n, ...] to logits [n, classes]. Its weights, their gradients
            and `requires_grad` are left as they were.
        x: where the chains start, [n, ...].
        steps: how many.
        alpha, sigma: size of the step and of the noise.
        generator: of the noise.
        target: classes [n]; when given, the chains climb f(x)[target], (10b).
        clamp: low and high end of the box the chains are held in, if any.

    Returns:
        Where the chains end, detached, of the shape of x.

    Raises:
        BadRequest: alpha is not above 0, sigma or steps are below 0, the box is empty,
            or the model, x or target do not fit, as in `input_gradient`.
    """
    need(
        0 < alpha < math.inf and 0 <= sigma < math.inf,
        f"the sampler got alpha {alpha} and sigma {sigma}: it needs sigma of at least "
        "0 and alpha above 0.",
    )
    count("steps", steps)
    low, high = clamp or (-1, 1)
    need(low < high, f"clamp is {clamp}: give the low end of the box, then the high.")
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
    """Chains kept between training steps; (19) is their mean age.

    Args:
        size: number of slots, each with one chain.
        shape: of one input.
        restart: probability that a drawn chain starts anew from uniform noise.
        generator: of the draws, on `device`.
        device: where the chains are stored.

    Raises:
        BadRequest: size is below 1 or restart no probability; `put` and
            `load_state_dict` refuse chains that are not finite or of another shape.
    """

    def __init__(
        self,
        size: int,
        shape: tuple[int, ...],
        restart: float,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
    ):
        count("size", size, 1)
        need(0 <= restart <= 1, f"restart is {restart}: give a probability.")
        self.restart, self.generator = restart, generator
        self.slots = torch.empty(size, *shape, device=device)
        self.slots.uniform_(-1, 1, generator=generator)

    def _random_slots(self, n: int) -> Tensor:
        size, device = len(self.slots), self.slots.device
        return torch.randint(size, (n,), generator=self.generator, device=device)

    def _fitting(self, x: Tensor, n: int) -> None:
        """Refuse what is not one finite chain for each of n slots."""
        shape, wanted = list(x.shape), [n, *self.slots.shape[1:]]
        need(shape == wanted, f"chains have shape {shape}: give {wanted}.")
        finite = bool(torch.isfinite(x).all())
        need(finite, "a chain holds NaN or infinity: give the sampler a smaller alpha.")

    def draw(self, n: int, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Starts of n chains [n, ...] and their slots [n], drawn with replacement.

        Args:
            n: how many.
            y: one of ten classes for each [n]; when given, chains come from the slots
                kept for it: slot k is kept for class k % 10.
        """
        count("n", n, 1)
        slots = self._random_slots(n)
        if y is not None:
            labels(y, n, 10)
            slots = slots % (len(self.slots) // 10) * 10 + y
        x = self.slots[slots]
        fresh = torch.empty_like(x).uniform_(-1, 1, generator=self.generator)
        uniform = torch.empty(n, device=x.device).uniform_(generator=self.generator)
        restarted = (uniform < self.restart).view(n, *[1] * (x.ndim - 1))
        return torch.where(restarted, fresh, x), slots

    def put(self, slots: Tensor, x: Tensor) -> None:
        """Store the ends x [n, ...] of chains in the slots [n] they came from.

        Of a slot that was drawn twice the later chain stays.
        """
        self._fitting(x, len(slots))
        slots, order = slots.sort(stable=True)
        last = torch.ones_like(slots, dtype=torch.bool)
        last[:-1] = slots[:-1] != slots[1:]
        self.slots[slots[last]] = x.detach()[order[last]]

    def sample(self, n: int) -> Tensor:
        """n stored chains, drawn with replacement, [n, ...]."""
        return self.slots[self._random_slots(n)]

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint stores. It stores the generator separately."""
        return {"slots": self.slots}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the chains of a checkpoint."""
        self._fitting(state["slots"], len(self.slots))
        self.slots.copy_(state["slots"])


def jem_loss(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    samples: Tensor,
    x_energy: Tensor | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """-log p(y|x) - T log p(x) up to a constant, (16).

    mean LSE(samples) - mean LSE(data) + cross-entropy, in one pass of the network. Its
    gradient follows from (7), T is that of (9c); the factorisation is (8a).

    Args:
        model: inputs [n, ...] to logits [n, classes]; no batch norm.
        x, y: labelled inputs [n, ...] and classes [n] for the cross-entropy.
        samples: the sampler's inputs [m, ...]; no gradient flows into them.
        x_energy: data [k, ...] for the density; x itself unless given (the authors'
            code draws a second batch).

    Returns:
        The loss, a scalar in nats, and numbers to watch while it trains: "lse_data" and
        "lse_samples" (mean LSE of data and of samples) and "gap" (their difference).

    Raises:
        BadRequest: a batch is empty, or y holds no class for each of x.
    """
    second = [] if x_energy is None else [x_energy]
    need(
        len(x) == len(y) and all(map(len, [x, samples, *second])),
        f"got {len(x)} inputs, {len(y)} labels and {len(samples)} samples: the loss "
        "needs as many labels as inputs, and no empty batch.",
    )
    logits = model(torch.cat([x, samples.detach(), *second]))
    labels(y, len(x), logits.shape[-1])
    lse = log_density(logits)
    sampled = lse[len(x) : len(x) + len(samples)].mean()
    data = (lse[len(x) + len(samples) :] if second else lse[: len(x)]).mean()
    loss = sampled - data + F.cross_entropy(logits[: len(x)], y.long())
    watched = {"lse_data": data.item(), "lse_samples": sampled.item()}
    return loss, {"gap": watched["lse_data"] - watched["lse_samples"], **watched}


def lambda_max(model: nn.Module, x: Tensor, steps: int = 20) -> Tensor:
    """Largest eigenvalue of the Hessian of E at each input, by power iteration.

    Langevin steps are locally stable while alpha times it stays below 2, (9a). A first
    iteration finds the largest magnitude; a second, shifted by it, the largest value
    even where a negative one is stronger.

    Args:
        model: inputs [n, ...] to logits [n, classes].
        x: inputs [n, ...].
        steps: of each of the two power iterations.

    Returns:
        Eigenvalues [n], approached from below.

    Raises:
        BadRequest: no step is left, or model or x do not fit, as in `input_gradient`.
    """
    count("steps", steps, 1)
    _check(model, x)
    with _frozen(model):
        x = x.detach().requires_grad_()
        gradient = torch.autograd.grad(energy(model(x)).sum(), x, create_graph=True)[0]

        def hessian_times(v: Tensor) -> Tensor:
            direction = v.view_as(x)
            (product,) = torch.autograd.grad(gradient, x, direction, retain_graph=True)
            return product.flatten(1)

        generator = torch.Generator(x.device).manual_seed(0)
        start = torch.empty_like(x).normal_(generator=generator).flatten(1)
        shift = torch.zeros_like(start[:, :1])
        for _ in range(2):
            v = F.normalize(start, dim=1)
            for _ in range(steps):
                v = F.normalize(hessian_times(v) + shift * v, dim=1)
            shift = hessian_times(v).norm(dim=1, keepdim=True)
        return (v * hessian_times(v)).sum(1)


# Attacks


def _check_norm(norm: str) -> None:
    need(norm in ("linf", "l2"), f"norm {norm!r} is unknown: use 'linf' or 'l2'.")


def project(delta: Tensor, radius: float, norm: str) -> Tensor:
    """Nearest point of the ball of a norm, (21b): [n, ...] to [n, ...].

    Raises:
        BadRequest: norm is neither "linf" nor "l2", or the radius is below 0 or not
            finite.
    """
    _check_norm(norm)
    good = 0 <= radius < math.inf
    need(good, f"radius {radius} is no size of a ball: use 0 or more.")
    if norm == "linf":
        return delta.clamp(-radius, radius)
    scale = (radius / _l2_norm(delta).clamp_min(1e-12)).clamp_max(1)
    return delta * scale.view(-1, *[1] * (delta.ndim - 1))


def steepest(gradient: Tensor, norm: str) -> Tensor:
    """Unit direction of steepest ascent, (21a): sign(g) or g / ||g||, [n, ...].

    Raises:
        BadRequest: norm is neither "linf" nor "l2".
    """
    _check_norm(norm)
    if norm == "linf":
        return gradient.sign()
    return F.normalize(gradient.flatten(1), dim=1).view_as(gradient)


def pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    radius: float,
    steps: int,
    norm: str,
    generator: torch.Generator,
    classify: Callable[[Tensor], Tensor] | None = None,
    start: Tensor | None = None,
) -> Tensor:
    """Projected gradient ascent on the cross-entropy, (21a) and (21b).

    Steps of 2.5 radius / steps along the steepest direction; projects on the ball, then
    clamps to [-1, 1].

    Args:
        model: inputs [n, ...] to logits [n, classes].
        x, y: inputs in [-1, 1] and their classes.
        radius: of the ball, in the units of the pixels.
        steps: how many.
        norm: "linf" or "l2".
        generator: of a random start.
        classify: inputs to logits, when something other than `model` is attacked.
        start: where the attack starts, of the shape of x; at random in the ball unless
            given.

    Returns:
        For each input the point of the largest loss on the way, of the shape of x.

    Raises:
        BadRequest: the norm is unknown, the radius below 0 or not finite, no step is
            left, x leaves [-1, 1], or model, x, y or start do not fit.
    """
    count("steps", steps, 1)
    _check(model, x)
    need(bool((x.abs() <= 1).all()), "inputs leave [-1, 1]: scale them, and radius.")
    classify = classify or model
    if start is None:
        start = x + radius * torch.empty_like(x).uniform_(-1, 1, generator=generator)
    _check(model, start)
    shapes = f"start and x have shapes {list(start.shape)} and {list(x.shape)}"
    need(start.shape == x.shape, f"{shapes}: give a start for each input.")
    delta = project(start - x, radius, norm)
    adversarial = x.detach().clone()
    largest = torch.full((len(x),), -math.inf, device=x.device)
    with _frozen(model):
        for step in range(steps + 1):
            point = (x + delta).clamp(-1, 1).detach().requires_grad_()
            logits = classify(point)
            labels(y, len(x), logits.shape[-1])
            losses = F.cross_entropy(logits, y.long(), reduction="none")
            larger = losses.detach() > largest
            largest = torch.where(larger, losses.detach(), largest)
            adversarial[larger] = point.detach()[larger]
            if step < steps:
                gradient = torch.autograd.grad(losses.sum(), point)[0]
                step_size = 2.5 * radius / steps
                moved = point.detach() + step_size * steepest(gradient, norm) - x
                delta = project(moved, radius, norm)
    return adversarial


# Refinement before classifying, and attacks on it (`attack_model.py` in their code)


class Refinement(NamedTuple):
    """Sampler steps before classifying.

    Attributes:
        steps, alpha, sigma: of the sampler, as in `langevin`.
        chains: how many start at each input; their logits are averaged.
    """

    steps: int
    alpha: float
    sigma: float
    chains: int


def refine(
    model: nn.Module, x: Tensor, refinement: Refinement, generator: torch.Generator
) -> Tensor:
    """Logits [n, classes] of inputs [n, ...] after sampler steps, mean over chains.

    Raises:
        BadRequest: as in `langevin`, or there is no chain.
    """
    steps, alpha, sigma, chains = refinement
    count("chains", chains, 1)
    starts = x.repeat(chains, *[1] * (x.ndim - 1))
    ends = langevin(model, starts, steps, alpha, sigma, generator)
    with torch.no_grad():
        mean: Tensor = model(ends).view(chains, len(x), -1).mean(0)
    return mean


def unrolled(
    model: nn.Module, x: Tensor, refinement: Refinement, generator: torch.Generator
) -> Tensor:
    """One chain of `langevin` from x that gradients flow through, [n, ...]."""
    for _ in range(refinement.steps):
        lse = log_density(model(x)).sum()
        gradient = torch.autograd.grad(lse, x, create_graph=True)[0]
        noise = torch.empty_like(x).normal_(generator=generator)
        x = x + refinement.alpha * gradient + refinement.sigma * noise
    return x


def attack_refined(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    refinement: Refinement,
    *,
    radius: float,
    steps: int,
    norm: str,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Attack a classifier that refines its inputs, in three ways.

    "replayed" attacks the classifier without refinement. The other two start from its
    result and draw a fresh chain at every step: "straight" takes the gradient at the
    refined input (as the authors' code does), "unrolled" differentiates through the
    sampler.

    Args:
        model: inputs [n, ...] to logits [n, classes].
        x, y: inputs in [-1, 1] and their classes.
        refinement: what is attacked.
        radius, steps, norm: of each attack, as in `pgd`.
        generator: of the starts and of the chains.

    Returns:
        Name to bool [n]: whether the refined classifier still answers y; and "worst":
        whether it does under all three.

    Raises:
        BadRequest: as in `pgd` and `langevin`.
    """

    def straight(z: Tensor) -> Tensor:
        end = langevin(model, z, *refinement[:3], generator)
        with torch.enable_grad():
            logits: Tensor = model(z + (end - z).detach())
        return logits

    def through(z: Tensor) -> Tensor:
        logits: Tensor = model(unrolled(model, z, refinement, generator))
        return logits

    attack = partial(
        pgd, model, x, y, radius=radius, steps=steps, norm=norm, generator=generator
    )
    replayed = attack()
    adversarial = {
        "replayed": replayed,
        "straight": attack(classify=straight, start=replayed),
        "unrolled": attack(classify=through, start=replayed),
    }
    correct = {
        name: refine(model, z, refinement, generator).argmax(1) == y
        for name, z in adversarial.items()
    }
    return {**correct, "worst": torch.stack(list(correct.values())).all(0)}
