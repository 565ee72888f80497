"""Towards neural networks that provably know when they don't know (CCU), at speed.

Meinke, Hein, ICLR 2020. Numbers in brackets are equations of the chapter
`provable_uncertainty`. Inputs are float tensors x [n, ...]; z [n, D] is the whitened
input, float64; d(x, x') = |z - z'|; logits are [n, M], in nats. On a classifier of
your own, images [n, ...] in and logits out:

    ccu = CCU.fit(images, foreign_images)       # metric and two mixtures
    log_p = ccu(logits, x)                      # log p(y|x), [n, M]
    ceiling = ccu.bound(x, R=2.0, classes=10)   # no input within 2.0 is surer
    R = ccu.radius(x, tau=0.2, classes=10)      # how far confidence stays below 0.2
"""

import math
import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from iclrtut.errors import BadRequest
from iclrtut.inputs import count, labels, need, whole
from iclrtut.train import seeded

# Distances


def _checked(x: Tensor, what: str = "inputs") -> Tensor:
    """x as it is, once it is finite and float32 or float64."""
    kind = getattr(x, "dtype", type(x).__name__)
    need(
        isinstance(x, Tensor) and kind in (torch.float32, torch.float64),
        f"{what} are {kind}: a certificate needs tensors of float32 or float64.",
    )
    finite = bool(torch.isfinite(x).all())
    need(finite, f"{what} hold NaN or infinity: look where they come from.")
    return x


class Metric(NamedTuple):
    """The Mahalanobis metric of (7), by the axes of a floored covariance, float64.

    Attributes:
        centre: the mean, [D].
        axes: eigenvectors of the covariance in columns, [D, D].
        scales: square roots of its floored eigenvalues, ascending, [D].
    """

    centre: Tensor
    axes: Tensor
    scales: Tensor

    def whiten(self, x: Tensor) -> Tensor:
        """z = T (x - centre). Shape [n, ...] to [n, D].

        Raises:
            BadRequest: inputs of another size than the metric's.
        """
        if x.dim() < 2 or x.shape[1:].numel() != len(self.centre):
            raise BadRequest(
                f"inputs have the shape {list(x.shape)}: the metric takes a batch of "
                f"{len(self.centre)} numbers each."
            )
        return (x.flatten(1).double() - self.centre) @ self.axes / self.scales

    def unwhiten(self, z: Tensor, like: Tensor) -> Tensor:
        """The inputs of whitened z [n, D], in the shape and dtype of `like`."""
        x = (z * self.scales) @ self.axes.T + self.centre
        return x.view(-1, *like.shape[1:]).to(like.dtype)

    @property
    def covariance(self) -> Tensor:
        """C, floored, [D, D]."""
        return (self.axes * self.scales**2) @ self.axes.T

    @property
    def log_det(self) -> Tensor:
        """log |det T|, which turns a density of z into one of x."""
        return -self.scales.log().sum()

    def reach(self) -> Tensor:
        """The most that each pixel moves in a ball of radius 1, (13), [D]."""
        return self.covariance.diagonal().sqrt()


def fit_metric(x: Tensor, floor: float = 1e-2) -> Metric:
    """The metric of inputs [n, ...].

    Args:
        x: training inputs.
        floor: eigenvalues below this share of the largest are raised to it.

    Raises:
        BadRequest: fewer than two inputs, a covariance that stays singular, or a
            floor that is no share.
    """
    need(0 <= floor <= 1, f"floor is {floor}: give a share between 0 and 1.")
    few = _checked(x).dim() < 2 or len(x) < 2
    need(not few, f"shape {list(x.shape)} has no covariance: give two inputs or more.")
    flat = x.flatten(1).double()
    values, axes = torch.linalg.eigh(torch.cov(flat.T).view(flat.shape[1], -1))
    lowest = max(floor, len(values) * torch.finfo(torch.float64).eps) * values[-1]
    if values[-1] <= 0 or (floor == 0 and values[0] < lowest):
        raise BadRequest(
            f"the covariance is singular (eigenvalues from {values[0]:.1e} to "
            f"{values[-1]:.1e}): give inputs that vary, and a floor such as 1e-2."
        )
    return Metric(flat.mean(0), axes, values.clamp_min(lowest).sqrt())


def squared_distances(z: Tensor, means: Tensor, outward: int = 0) -> Tensor:
    """|z - mu_k|^2 in one matrix product. Shapes [n, D] and [K, D] to [n, K].

    Args:
        z, means: float64.
        outward: 1 rounds up and -1 down, by the a priori error of the sums: what is
            returned is never below, or above, the true value.
    """
    found, error = _squares(z, means)
    return found.add_(error, alpha=outward).clamp_min(0)


def _squares(z: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
    """|z - mu_k|^2, and how far it may be off, (16), each [n, K]."""
    middle = means.mean(0)
    z, means = z - middle, means - middle
    squares = z.square().sum(1)[:, None] + means.square().sum(1)
    found = torch.addmm(squares, z, means.T, alpha=-2)
    return found, squares * (torch.finfo(z.dtype).eps * (z.shape[1] + 8))


# Densities


class Mixture(nn.Module):
    """A Gaussian mixture of spherical components in whitened space, float64, (7).

    Args:
        means: [K, D].
        sigma: standard deviations [K].
        weights: alpha_k [K], adding up to one; equal unless given.
        lowest: log sigma never falls below it, so that no component collapses.

    Raises:
        BadRequest: a number is not finite, a sigma or a weight is not positive, or
            there are not as many of them as means.
    """

    lowest: Tensor  # saved with the weights, as sigma hangs on it

    def __init__(
        self,
        means: Tensor,
        sigma: Tensor,
        weights: Tensor | None = None,
        lowest: float = -4.0,
    ):
        super().__init__()
        if weights is None:
            weights = torch.ones_like(_checked(sigma, "sigma"))
        given = {"means": means, "sigma": sigma, "weights": weights}
        for name, values in given.items():
            _checked(values, name)
            if name != "means" and not (values > 0).all():
                raise BadRequest(
                    f"{name} hold {values.min():.1e}: every component needs a "
                    "positive one, so leave out what has none."
                )
            if means.dim() != 2 or not 0 < len(means) == len(values):
                raise BadRequest(
                    f"means and {name} have the shapes {list(means.shape)} and "
                    f"{list(values.shape)}: give [K, D] means and K of the others."
                )
        total = weights.detach().double().sum()
        need(bool(total < math.inf), "weights add up to infinity: divide them.")
        self.means = nn.Parameter(means.detach().double().clone())
        self.register_buffer("lowest", self.means.new_tensor(lowest))
        self.log_sigma = nn.Parameter(sigma.detach().double().log())
        self.weight_logits = nn.Parameter(weights.detach().double().log())

    @property
    def sigma(self) -> Tensor:
        """Standard deviations, [K]."""
        return self.log_sigma.clamp_min(self.lowest).exp()

    @property
    def log_weights(self) -> Tensor:
        """log alpha_k, [K]."""
        return self.weight_logits.log_softmax(0)

    def heights(self) -> Tensor:
        """log alpha_k - D log sigma_k, the log density at a mean, [K]."""
        return self.log_weights - self.means.shape[1] * self.sigma.log()

    def log_components(self, z: Tensor) -> Tensor:
        """log alpha_k N(z; mu_k, sigma_k) without (2 pi)^(D/2). [n, D] to [n, K]."""
        squares = squared_distances(z, self.means)
        return self.heights() - squares / (2 * self.sigma**2)

    def log_density(self, z: Tensor) -> Tensor:
        """log of the mixture's density, (2 pi)^(D/2) dropped. [n, D] to [n]."""
        return torch.logsumexp(self.log_components(z), 1)


def fit_mixture(
    z: Tensor, components: int, seed: int = 0, lowest: float = -4.0
) -> Mixture:
    """A mixture by scikit-learn's EM, started by k-means.

    Args:
        z: whitened inputs [n, D].
        components: K.
        seed: of the k-means start.
        lowest: as for `Mixture`.

    Raises:
        BadRequest: there are fewer inputs than components.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    count("components", components, 1)
    whole([seed], 2**32 - 1, "seed")
    need(
        components <= len(z),
        f"{components} components cannot be fitted to {len(z)} input(s): give at least "
        "as many inputs as components.",
    )
    em = GaussianMixture(components, covariance_type="spherical", random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        em.fit(_checked(z).detach().cpu().double().numpy())
    m = [torch.from_numpy(v) for v in (em.means_, em.covariances_, em.weights_)]
    return Mixture(m[0], m[1].sqrt(), m[2].clamp_min(1e-12), lowest).to(z.device)


def confidence(log_b: Tensor, classes: int) -> Tensor:
    """(1 + M b) / (M (1 + b)): the most that (6) allows at density ratio b, [n].

    Raises:
        BadRequest: there are not two classes or more.
    """
    count("classes", classes, 2)
    return 1 / classes + (1 - 1 / classes) * torch.sigmoid(log_b)


def log_odds(tau: float, classes: int) -> float:
    """The log b at which `confidence` is tau, (11); -inf or inf where it never is.

    Raises:
        BadRequest: tau is no number, or there are not two classes or more.
    """
    count("classes", classes, 2)
    need(tau == tau, f"tau is {tau}: give a confidence.")
    if tau <= 1 / classes:
        return -math.inf
    if tau >= 1:
        return math.inf
    return math.log((classes * tau - 1) / (classes * (1 - tau)))


# Certificates

FAR = 1e99  # a ceiling that holds within this radius holds within all


def _triangle(
    found: Tensor, error: Tensor, inside: Mixture, outside: Mixture
) -> Callable[..., Tensor]:
    """(10) from `_squares` of all means: a function from R [n] to log b / q."""
    kinds = len(inside.means)
    near = (found - error)[:, :kinds].clamp_min(0).sqrt()
    far = (found + error)[:, kinds:].clamp_min(0).sqrt()

    def ceiling(R: Tensor) -> Tensor:
        up = (near - R[:, None]).clamp_min(0).square() / (2 * inside.sigma**2)
        down = (far + R[:, None]).square() / (2 * outside.sigma**2)
        top = torch.logsumexp(inside.heights() - up, 1)
        return top - torch.logsumexp(outside.heights() - down, 1)

    return ceiling


def _pairwise(
    found: Tensor, error: Tensor, inside: Mixture, outside: Mixture
) -> Callable[..., Tensor]:
    """(12) likewise: each pair of components has its exact maximum in the ball."""
    kinds = len(inside.means)
    s, t = 1 / inside.sigma[:, None] ** 2, 1 / outside.sigma**2
    near, far = found[:, :kinds, None], found[:, None, kinds:]
    apart, error_apart = _squares(inside.means, outside.means)
    error = error[:, :kinds, None] + error[:, None, kinds:] + error_apart
    c = s - t
    square = c * s * near - c * t * far + s * t * apart + (s + t) ** 2 * error
    v = square.clamp_min_(0).sqrt()
    centre = inside.heights()[:, None] - outside.heights()
    centre = centre + (t * far - s * near + (s + t) * error) / 2
    peak = square / (2 * torch.where(c > 0, c, 1))

    def ceiling(R: Tensor) -> Tensor:
        R = R[:, None, None]
        G = centre + torch.where(v < c * R, peak, R * v - c * R.square() / 2)
        return torch.logsumexp(-torch.logsumexp(-G, 2), 1)

    return ceiling


def _ceiling(
    z: Tensor, inside: Mixture, outside: Mixture, tight: bool
) -> Callable[..., Tensor]:
    squares = _squares(z, torch.cat([inside.means, outside.means]))
    loose = _triangle(*squares, inside, outside)
    if not tight:
        return loose
    pairs = _pairwise(*squares, inside, outside)
    return lambda R: torch.minimum(loose(R), pairs(R))


def _chunk(inside: Mixture, outside: Mixture, tight: bool) -> int:
    return 500_000 // (len(inside.means) * len(outside.means)) or 1 if tight else 250


def radii(R: float | Tensor, z: Tensor) -> Tensor:
    """A radius for each of the rows of z [n, D], float64 [n].

    Raises:
        BadRequest: a radius is negative or no number, or there are too few.
    """
    given = torch.as_tensor(R, dtype=torch.float64, device=z.device)
    fits = given.numel() == 1 or given.shape == (len(z),)
    need(fits, f"R has shape {list(given.shape)}: give one radius, or {len(z)}.")
    positive = bool((given >= 0).all())
    need(positive, f"R is {given.min():g}: a ball's radius is 0 or more.")
    return given.expand(len(z))


@torch.no_grad()
def log_bound(
    z: Tensor, R: float | Tensor, inside: Mixture, outside: Mixture, tight: bool = False
) -> Tensor:
    """The largest log of p(x|i) / p(x|o) that a ball allows, (10), or tighter by (12).

    Holds for any two mixtures. Needs no [n, K, D] tensor; a few centres at a time.

    Args:
        z: centres of the balls, whitened, [n, D], float64.
        R: radius, or radii [n].
        inside, outside: the mixtures.
        tight: use (12), which compares every pair of components.

    Returns:
        Upper bounds [n], rounded outwards.

    Raises:
        BadRequest: a radius is negative or no number.
    """
    size = _chunk(inside, outside, tight)
    parts = zip(torch.split(z, size), torch.split(radii(R, z), size), strict=True)
    return torch.cat([_ceiling(c, inside, outside, tight)(r) for c, r in parts])


@torch.no_grad()
def largest_radius(
    z: Tensor, limit: float, inside: Mixture, outside: Mixture, tight: bool = False
) -> Tensor:
    """The largest R at which `log_bound` is at most `limit`, by bisection, (11).

    Args:
        z, inside, outside, tight: as for `log_bound`.
        limit: on the log of the density ratio.

    Returns:
        Radii [n], rounded down; nan where R = 0 is too much, inf where no radius is:
        (12) may stay below the limit for ever, (10) never does.

    Raises:
        BadRequest: limit is no number.
    """
    need(limit == limit, f"limit is {limit}: give a log density ratio.")
    if limit == math.inf:
        return torch.full_like(z[:, 0], math.inf)
    found = []
    for part in torch.split(z, _chunk(inside, outside, tight)):
        ceiling = _ceiling(part, inside, outside, tight)
        low, high = torch.zeros_like(part[:, 0]), torch.ones_like(part[:, 0])
        possible = ceiling(low) <= limit
        while (grows := possible & (high < FAR) & (ceiling(high) <= limit)).any():
            high = torch.where(grows, 2 * high, high)
        endless = possible & (ceiling(high) <= limit)
        for _ in range(60):
            middle = (low + high) / 2
            fits = ceiling(middle) <= limit
            low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
        low = torch.where(endless, math.inf, low)
        found.append(torch.where(possible, low, math.nan))
    return torch.cat(found)


class CCU(nn.Module):
    """Bayes' rule around a classifier: certified certain uncertainty, (3) to (12).

    Args:
        metric: of the training inputs.
        inside, outside: densities p(x|i) and p(x|o) in whitened space.
        q: p(i) / p(o).

    Raises:
        BadRequest: q is not positive, or a mixture has another dimension.
    """

    log_q: Tensor  # saved with the weights

    def __init__(
        self, metric: Metric, inside: Mixture, outside: Mixture, q: float = 1.0
    ):
        super().__init__()
        sizes = [len(metric.centre), inside.means.shape[1], outside.means.shape[1]]
        same = len(set(sizes)) == 1
        need(same, f"metric and mixtures have dimensions {sizes}: use one.")
        need(0 < q < math.inf, f"q = p(i)/p(o) is {q}: give a positive number.")
        self.inside, self.outside = inside, outside
        self.register_buffer("log_q", metric.centre.new_tensor(math.log(q)))
        for name, values in metric._asdict().items():
            self.register_buffer(name, values)

    @classmethod
    def fit(
        cls, x_in: Tensor, x_out: Tensor, components: tuple[int, int] = (25, 25),
        floor: float = 1e-2, q: float = 1.0, seed: int = 0, lowest: float = -4.0,
    ) -> "CCU":  # fmt: skip
        """Metric and mixtures from inputs of both kinds, [n, ...].

        Raises:
            BadRequest: as `fit_metric` and `fit_mixture` do.
        """
        metric = fit_metric(x_in, floor)
        inside, outside = (
            fit_mixture(metric.whiten(_checked(x)), k, seed, lowest)
            for x, k in zip((x_in, x_out), components, strict=True)
        )
        return cls(metric, inside, outside, q)

    @property
    def metric(self) -> Metric:
        """The metric that mixtures, balls and certificates share."""
        return Metric(*(self.get_buffer(name) for name in Metric._fields))

    def _logs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.metric.whiten(_checked(x))
        return self.inside.log_density(z) + self.log_q, self.outside.log_density(z)

    def log_ratio(self, x: Tensor) -> Tensor:
        """log b = log q + log p(x|i) - log p(x|o). Shape [n, ...] to [n], nats."""
        up, down = self._logs(x)
        return up - down

    def log_density(self, x: Tensor) -> Tensor:
        """log p(x) by (2), less log |det T| - D/2 log 2 pi. Shape [n, ...] to [n]."""
        up, down = self._logs(x)
        return torch.logaddexp(up, down) - math.log1p(math.exp(self.log_q))

    def forward(self, logits: Tensor, x: Tensor) -> Tensor:
        """log p(y|x) by (5), in the form (6), which loses no digit. [n, M], float64.

        Raises:
            BadRequest: logits or inputs are too coarse or not finite, or not as many.
        """
        _paired(logits, x)
        return _bayes(_checked(logits, "logits"), self.log_ratio(x))

    def order(self) -> tuple[float, float]:
        """The widest sigma_k and the widest theta_l; (9) asks which is larger."""
        s, th = (m.sigma.detach().max().item() for m in (self.inside, self.outside))
        return s, th

    @property
    def certified(self) -> bool:
        """Whether confidence goes to 1/M on every ray by (9)."""
        widest_in, widest_out = self.order()
        return widest_in < widest_out

    def refuse_disorder(self) -> None:
        """Refuse to certify when (9) fails.

        Raises:
            BadRequest: a component of the data is not narrower than the widest out.
        """
        if not self.certified:
            s, th = self.order()
            raise BadRequest(
                f"not certified: the widest in-component (sigma {s:.3g}) is not "
                f"narrower than the widest out-component (theta {th:.3g}), so nothing "
                "holds far away: use more in-components or a wider out-distribution."
            )

    def log_bound(self, x: Tensor, R: float | Tensor, tight: bool = False) -> Tensor:
        """The largest log b in a ball, (10), or tighter by (12): see `log_bound`."""
        z = self.metric.whiten(_checked(x))
        return self.log_q + log_bound(z, R, self.inside, self.outside, tight)

    def bound(
        self, x: Tensor, R: float | Tensor, classes: int, tight: bool = False
    ) -> Tensor:
        """A ceiling on the confidence of all inputs within R, (10) or (12), [n].

        It holds whatever the classifier says, and for any two mixtures.

        Args:
            x: centres of the balls, [n, ...].
            R: radius in the metric d, or radii [n].
            classes: M.
            tight: use (12).
        """
        return confidence(self.log_bound(x, R, tight), classes)

    def radius(
        self, x: Tensor, tau: float, classes: int, tight: bool = False
    ) -> Tensor:
        """The largest R at which `bound` is at most tau, (11), [n], rounded down.

        Returns:
            Radii; nan where there is none (tau at most 1/M, or already the centre is
            too sure), inf where no radius is too large: for tau of 1 or more, and by
            (12) also where its bound stays below (11) for every R.

        Raises:
            BadRequest: the model is not certified.
        """
        self.refuse_disorder()
        z, q = self.metric.whiten(_checked(x)), float(self.log_q)
        limit = log_odds(tau, classes) - q
        return largest_radius(z, limit, self.inside, self.outside, tight)


def _paired(logits: Tensor, x: Tensor) -> None:
    sizes = f"logits have shape {list(logits.shape)} for {len(x)} inputs"
    fits = logits.dim() == 2 and len(logits) == len(x) > 0
    need(fits, f"{sizes}: give [n, classes] and [n, ...], n at least 1.")


def _bayes(logits: Tensor, log_b: Tensor) -> Tensor:
    """(6) in logs: softmax with weight b / (1 + b), uniform with the rest."""
    classes = logits.shape[-1]
    inside = logits.double().log_softmax(-1) + F.logsigmoid(log_b)[:, None]
    return torch.logaddexp(inside, F.logsigmoid(-log_b)[:, None] - math.log(classes))


# Objectives


def ccu_loss(
    ccu: CCU, logits: Tensor, x: Tensor, y: Tensor, logits_out: Tensor, x_out: Tensor
) -> Tensor:
    """(8): -log p(y, x) in, and out its mean over uniform y, times p(o) / p(i).

    Args:
        ccu: the densities, trained with the network.
        logits, x, y: of a batch of the data, [n, M], [n, ...], [n].
        logits_out, x_out: of a batch of the out-distribution.

    Returns:
        A scalar, nats; each log p(x) lacks log |det T| - D/2 log 2 pi, which moves no
        gradient.

    Raises:
        BadRequest: logits, inputs and classes of a batch are not as many, a batch is
            empty, or y holds no class.
    """
    _paired(logits, x)
    _paired(logits_out, x_out)
    labels(y, len(x), logits.shape[1])
    pair = logits.shape[1], logits_out.shape[1]
    need(pair[0] == pair[1], f"logits have {pair} classes: give as many out as in.")
    up, down = ccu._logs(torch.cat([x, x_out]))
    log_p = _bayes(torch.cat([logits, logits_out]), up - down)
    log_x = torch.logaddexp(up, down) - math.log1p(math.exp(ccu.log_q))
    joint = log_p + log_x[:, None]
    inside = -joint[: len(x)].gather(1, y.long()[:, None]).mean()
    outside = -joint[len(x) :].mean()
    return inside + outside * math.exp(-ccu.log_q)


def oe_loss(logits: Tensor, y: Tensor, logits_out: Tensor) -> Tensor:
    """Outlier exposure: cross-entropy in, and to the uniform distribution out.

    Raises:
        BadRequest: a batch is empty, or y holds no class for each of its logits.
    """
    _paired(logits, y)
    _paired(logits_out, logits_out)
    labels(y, len(logits), logits.shape[1])
    return F.cross_entropy(logits, y.long()) - logits_out.log_softmax(1).mean()


# Far from the data


def asymptote(
    net: nn.Sequential, v: Tensor, origin: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Slopes and intercepts of the logits far out along origin + t v, (1).

    Args:
        net: of Linear, Conv2d, Flatten and ReLU.
        v: directions [n, ...].
        origin: where the rays start, of the same shape; 0 unless given.

    Returns:
        m and a, each [n, M]: the logits are t m + a for all t beyond some t.

    Raises:
        BadRequest: a layer is of another kind.
    """
    m, a = v, torch.zeros_like(v) if origin is None else origin
    for layer in net:
        if isinstance(layer, nn.ReLU):
            opened = (m > 0) | ((m == 0) & (a > 0))
            m, a = m * opened, a * opened
        elif isinstance(layer, nn.Linear | nn.Conv2d | nn.Flatten):
            m, a = layer(m) - layer(torch.zeros_like(m)), layer(a)
        else:
            raise BadRequest(
                f"asymptote knows no {type(layer).__name__}: use Linear, Conv2d, "
                "Flatten and ReLU."
            )
    return m, a


def limit_confidence(m: Tensor, a: Tensor) -> Tensor:
    """The confidence in the limit of a ray, (1). Shapes [n, M] to [n].

    Raises:
        BadRequest: slopes and intercepts have other shapes.
    """
    _paired(m, a)
    steepest = m == m.max(1, keepdim=True).values
    return a.masked_fill(~steepest, -math.inf).softmax(1).max(1).values


@torch.no_grad()
def far_radius(ccu: CCU, eps: float, classes: int) -> float:
    """|z| beyond which confidence differs from 1/M by at most eps, (20).

    Raises:
        BadRequest: the model is not certified, or eps leaves nothing to show.
    """
    ccu.refuse_disorder()
    room = 1 - 1 / classes - eps
    fits = eps > 0 and room > 0
    need(fits, f"eps is {eps}: give one between 0 and {1 - 1 / classes}.")
    (s, th), k = ccu.order(), int(ccu.outside.sigma.argmax())
    rho_i = float(ccu.inside.means.norm(dim=1).max())
    rho_o = float(ccu.outside.means[k].norm())
    # the constant of (19): every in-component as high as the narrowest
    wide = ccu.inside.means.shape[1] * math.log(th / float(ccu.inside.sigma.min()))
    beta = float(ccu.outside.log_weights[k])
    C = max(0.0, float(ccu.log_q) + wide - beta - math.log(eps / room))
    A, B = 1 / (2 * s**2), 1 / (2 * th**2)
    half = (A * rho_i + B * rho_o) / (A - B)
    rest = (A * rho_i**2 - B * rho_o**2 - C) / (A - B)
    return max(rho_i, half + math.sqrt(max(0.0, half**2 - rest)))


# The paper's networks


def lenet(seed: int) -> nn.Sequential:
    """A LeNet for [n, 1, 28, 28], ten classes."""
    with seeded(seed):
        layers: list[nn.Module] = []
        for inputs, outputs in ((1, 32), (32, 64)):
            layers += [nn.Conv2d(inputs, outputs, 5, 1, 2), nn.ReLU(), nn.MaxPool2d(2)]
        layers += [nn.Flatten(), nn.Linear(64 * 49, 1024), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(1024, 10))


def _normalised(inputs: int, outputs: int, size: int, stride: int) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


class _Block(nn.Module):
    """A residual block of two normalised convolutions."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        first = _normalised(inputs, outputs, 3, stride)
        self.body = nn.Sequential(
            *first, nn.ReLU(), *_normalised(outputs, outputs, 3, 1)
        )
        short = _normalised(inputs, outputs, 1, stride) if stride > 1 else []
        self.skip = nn.Sequential(*short)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.skip(x))


def resnet18(seed: int) -> nn.Sequential:
    """ResNet-18 (He et al., 2016) for [n, 3, 32, 32], ten classes."""
    with seeded(seed):
        layers = [*_normalised(3, 64, 3, 1), nn.ReLU()]
        for inputs, outputs in ((64, 64), (64, 128), (128, 256), (256, 512)):
            layers += [_Block(inputs, outputs, outputs // inputs)]
            layers += [_Block(outputs, outputs, 1)]
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10)]
        return nn.Sequential(*layers)
