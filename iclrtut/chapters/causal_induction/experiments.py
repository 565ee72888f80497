"""The experiments of the chapter on causal induction: training and measurements.

Episodes are values [B, T, n] and targets [B, T] with one graph [B] each; beliefs are
log-probabilities of graphs [B, T, graphs]. Numbers in brackets are equations of the
chapter. Sizes come from the settings of the run, which `iclrtut.start` returns.
"""

from collections.abc import Mapping, Sequence
from copy import copy, deepcopy
from math import log
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_

from iclrtut.chapters.causal_induction import CHAPTER, SHIFTS, Settings
from iclrtut.chapters.causal_induction.method import (
    SPREAD,
    STANDARD,
    Belief,
    Episodes,
    Statistics,
    dags,
    draw,
    edge_logits,
    edge_marginals,
    entropy,
    features,
    figure,
    gains,
    graph_scores,
    interventions,
    kl,
    log_posterior,
    nothing,
    respond,
    sample,
    statistics,
    total_correlation,
)
from iclrtut.claims import Measurements
from iclrtut.networks import mlp
from iclrtut.run import Run
from iclrtut.train import Loop, fit, warmup_cosine

# Networks


def network(run: Run, name: str = "belief", outputs: int | None = None) -> Belief:
    """A GRU over episodes, its first weights drawn by seed and name.

    Args:
        run: gives the number of nodes and the width.
        name: of the first weights.
        outputs: width of the read-out; None for one logit a graph.
    """
    s: Settings = run.settings
    seed = run.generator(name, "cpu").initial_seed()
    width = len(dags(s.nodes)) if outputs is None else outputs
    return Belief(3 * s.nodes, width, seed, s.width).to(run.device)


class Outcomes(nn.Module):
    """A GRU that predicts the next outcome of an intervention, (16).

    Args:
        trunk: reads the episode; its read-out is not used.
        nodes, components: of the mixture of Student distributions.
        seed: of the head's first weights.
    """

    def __init__(self, trunk: Belief, nodes: int, components: int, seed: int) -> None:
        super().__init__()
        self.trunk, self.nodes, self.components = trunk, nodes, components
        width = trunk.memory.hidden_size
        sizes = [width + nodes + 2, width, components * (1 + 3 * nodes)]
        self.head = mlp(sizes, seed)

    def forward(self, values: Tensor, targets: Tensor) -> Tensor:
        """log q(x_t | x_1..t-1, do) of every step, [B, T], in nats.

        Args:
            values: [B, T, n], on the CPU.
            targets: int64 [B, T]; each step forces one node.
        """
        inside = self.trunk.inside.weight
        state = self.trunk.states(features(values, targets).to(inside))
        state = torch.cat([torch.zeros_like(state[:, :1]), state[:, :-1]], 1)
        x, held = values.to(state), F.one_hot(targets, self.nodes).to(state)
        c = (x * held).sum(-1, keepdim=True)
        out = self.head(torch.cat([state, held, c.asinh(), c / SPREAD], -1))
        weights, rest = out.split(
            [self.components, out.shape[-1] - self.components], -1
        )
        at, scale, degrees = rest.unflatten(-1, (3, self.components, -1)).unbind(-3)
        t = torch.distributions.StudentT(
            2 + F.softplus(degrees),
            at * (1 + c.abs())[..., None],
            F.softplus(scale) + 1e-3,
            validate_args=False,
        )
        each = t.log_prob(x[..., None, :])  # type: ignore[no-untyped-call]
        each = (each * (1 - held[..., None, :])).sum(-1)
        return torch.logsumexp(weights.log_softmax(-1) + each, -1)


class Probe(nn.Module):
    """A read-out of one hidden layer on the states of a frozen network."""

    def __init__(self, trunk: Belief, outputs: int, seed: int) -> None:
        super().__init__()
        width = trunk.memory.hidden_size
        self.trunk, self.read = trunk, mlp([width, width, outputs], seed)

    def forward(self, steps: Tensor) -> Tensor:
        """Logits [B, T, outputs] of features [B, T, inputs]."""
        with torch.no_grad():
            states = self.trunk.states(steps)
        logits: Tensor = self.read(states)
        return logits


def sums(seen: Statistics) -> Tensor:
    """The statistics of (8) as a network reads them, float32 [..., n + n^3].

    Counts, log mean squares and, for each node's own steps, the correlations of all
    pairs of nodes, as they are and by the inverse hyperbolic tangent.
    """
    n = seen.free.shape[-1]
    squares = torch.diagonal(seen.scatter, dim1=-2, dim2=-1) + STANDARD.tau
    scale = squares[..., :, None] * squares[..., None, :]
    i, j = torch.triu_indices(n, n, 1)
    r = (seen.scatter / scale.sqrt())[..., i, j].flatten(-2)
    mean = (squares / (seen.free[..., None] + STANDARD.tau)).log().flatten(-2) / 2
    curved = r.clamp(-0.999, 0.999).atanh()
    return torch.cat([seen.free / 10, mean, r, curved], -1).float()


# Training


def descend(
    optimizer: torch.optim.Optimizer, loss: Tensor, clip: float
) -> dict[str, Tensor]:
    """One step down the gradient, its length clipped; the numbers of the step."""
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    clip_grad_norm_(optimizer.param_groups[0]["params"], clip)
    optimizer.step()
    return {"loss": loss}


def graph_loss(logits: Tensor, graph: Tensor) -> Tensor:
    """-log q(graph | steps so far), mean over steps and episodes, (10)."""
    wanted = graph.to(logits.device)[:, None].expand(logits.shape[:2])
    return F.cross_entropy(logits.flatten(0, 1), wanted.flatten())


def edge_loss(logits: Tensor, graph: Tensor, nodes: int) -> Tensor:
    """The sum of the entries' cross-entropies, mean over steps and episodes, (15)."""
    off = ~torch.eye(nodes, dtype=torch.bool)
    there = dags(nodes)[graph][:, off].to(logits)[:, None].expand_as(logits)
    each = F.binary_cross_entropy_with_logits(logits, there, reduction="none")
    return each.sum(-1).mean()


def _loop(
    run: Run, model: nn.Module, name: str, steps: int, loss: Any, **w: Any
) -> Loop:
    """A training on fresh episodes: `loss(episodes)` is what falls."""
    s: Settings = run.settings
    draws = run.generator(f"{name} episodes", "cpu")
    weights = [w for w in model.parameters() if w.requires_grad]
    adam = torch.optim.Adam(weights, lr=s.learning_rate)

    def step(t: int) -> dict[str, Tensor]:
        return descend(
            adam, loss(sample(s.batch, s.nodes, s.steps, draws, **w)), s.clip
        )

    state = {"model": model, "draws": draws}
    return Loop(step, adam, state, warmup_cosine(s.warmup, steps))


def _seen(run: Run, e: Episodes) -> Tensor:
    return features(e.values, e.targets).to(run.device)


def _summed(run: Run, e: Episodes) -> Tensor:
    return sums(statistics(e.values, e.targets)).to(run.device)


def _surprise(run: Run, model: nn.Module, read: Any = _seen) -> Any:
    """The loss (10) of a network over graphs, of what it reads of episodes."""
    return lambda e: graph_loss(model(read(run, e)), e.graph)


def belief_loop(run: Run) -> Loop:
    """The GRU with a softmax over graphs, as on the page, (10)."""
    model = network(run)
    steps = run.settings.belief_steps
    return _loop(run, model, "belief", steps, _surprise(run, model))


def _trained(run: Run, name: str, made: Loop, steps: int) -> Any:
    every = run.settings.checkpoint_every
    fit(made, steps, folder=run.folder, name=name, every=every)
    return made.state["model"].eval()


def train_edges(run: Run, allowed: Tensor | None = None) -> Belief:
    """A GRU with one logit for each entry of the matrix, (15).

    Args:
        run: gives the sizes.
        allowed: the graphs that training may draw; None for all.
    """
    s: Settings = run.settings
    model = network(run, "edges", s.nodes * (s.nodes - 1))

    def loss(e: Episodes) -> Tensor:
        return edge_loss(model(_seen(run, e)), e.graph, s.nodes)

    made = _loop(run, model, "edges", s.edge_steps, loss, allowed=allowed)
    name = "edges" if allowed is None else "edges without some"
    trained: Belief = _trained(run, name, made, s.edge_steps)
    return trained


def train_outcomes(run: Run) -> Outcomes:
    """The GRU that never hears of graphs: it predicts what comes next, (16)."""
    s: Settings = run.settings
    seed = run.generator("head", "cpu").initial_seed()
    trunk = network(run, "outcomes", 1)
    trunk.hidden.requires_grad_(False)
    trunk.outside.requires_grad_(False)
    model = Outcomes(trunk, s.nodes, s.components, seed).to(run.device)

    def loss(e: Episodes) -> Tensor:
        log_q: Tensor = model(e.values, e.targets)
        return -log_q.mean()

    made = _loop(run, model, "outcomes", s.outcome_steps, loss)
    trained: Outcomes = _trained(run, "outcomes", made, s.outcome_steps)
    return trained


def train_probe(run: Run, trunk: Belief, name: str) -> Probe:
    """A read-out of the graph on states that no longer change.

    Args:
        run: gives the sizes.
        trunk: whose states are read; its weights are frozen.
        name: of the training.
    """
    s: Settings = run.settings
    seed = run.generator(f"probe {name}", "cpu").initial_seed()
    trunk.requires_grad_(False)
    model = Probe(trunk, len(dags(s.nodes)), seed).to(run.device)
    made = _loop(run, model, "probe", s.probe_steps, _surprise(run, model))
    trained: Probe = _trained(run, f"probe {name}", made, s.probe_steps)
    return trained


def train_on(run: Run, model: Belief, steps: int, **world: str) -> Belief:
    """A copy of a trained network, trained on with episodes of another kind.

    A batch has as many steps in all, whatever their number in an episode.

    Args:
        run: gives the number of training steps, `longer_steps`.
        model: what is copied.
        steps: of the episodes.
        world: keywords of `draw`, such as mechanism="tanh".
    """
    s: Settings = run.settings
    more, twin = copy(run), deepcopy(model).train()
    batch, rate = s.batch * s.long // steps, s.learning_rate / 4
    more.settings = s._replace(steps=steps, batch=batch, learning_rate=rate)
    loss = _surprise(run, twin)
    made = _loop(more, twin, f"on {steps}", s.longer_steps, loss, **world)
    name = " ".join(["trained on", str(steps), *world.values()])
    trained: Belief = _trained(run, name, made, s.longer_steps)
    return trained


def train_sums(run: Run) -> nn.Module:
    """The rival that is handed the statistics of (8) in place of the episode."""
    s: Settings = run.settings
    seed = run.generator("sums", "cpu").initial_seed()
    sizes = [s.nodes + s.nodes**3, *[s.rival_width] * 3, len(dags(s.nodes))]
    model = mlp(sizes, seed).to(run.device)
    loss = _surprise(run, model, _summed)
    made = _loop(run, model, "sums", s.sums_steps, loss)
    trained: nn.Module = _trained(run, "sums", made, s.sums_steps)
    return trained


# Beliefs and what they are worth


class Trial(NamedTuple):
    """Test episodes with the exact log posterior after each step, [N, T, graphs]."""

    episodes: Episodes
    exact: Tensor


def trial(
    run: Run, name: str = "test", *, steps: int = 0, n: int = 0, **w: Any
) -> Trial:
    """Fresh episodes, judged by (9).

    Args:
        run: gives the sizes.
        name: of the draws.
        steps, n: length and number of episodes; 0 for those of the test.
        w: keywords of `draw`, such as noise="laplace".
    """
    s: Settings = run.settings
    draws = run.generator(name, "cpu")
    e = sample(n or s.test, s.nodes, steps or s.steps, draws, **w)
    return Trial(e, log_posterior(e.values, e.targets))


@torch.no_grad()
def believe(run: Run, model: nn.Module, e: Episodes) -> Tensor:
    """What a network with a softmax over graphs says after each step, float64."""
    logits: Tensor = model(_seen(run, e))
    return logits.cpu().double().log_softmax(-1)


@torch.no_grad()
def believe_sums(run: Run, model: nn.Module, e: Episodes) -> Tensor:
    """What the network that reads the statistics of (8) says after each step."""
    logits: Tensor = model(_summed(run, e))
    return logits.cpu().double().log_softmax(-1)


@torch.no_grad()
def edge_beliefs(run: Run, model: Belief, e: Episodes) -> Tensor:
    """Logits of the matrix's entries after each step, [B, T, n, n], float64."""
    n = run.settings.nodes
    out = model(_seen(run, e)).cpu().double()
    logits = torch.zeros(*out.shape[:2], n, n, dtype=torch.float64)
    logits[..., ~torch.eye(n, dtype=torch.bool)] = out
    return logits


def distances(trial: Trial, beliefs: Mapping[str, Tensor]) -> dict[str, list[float]]:
    """Nats by name after each step: "exact" has H(p), the others KL(p || q)."""
    curves = {"exact": entropy(trial.exact)}
    curves |= {name: kl(trial.exact, q) for name, q in beliefs.items()}
    return {name: each.mean(0).tolist() for name, each in curves.items()}


def correlation(trial: Trial) -> list[float]:
    """TC(p) of the exact posterior after each step, mean over episodes, (11)."""
    curve: list[float] = total_correlation(trial.exact).mean(0).tolist()
    return curve


def measure_informed(
    trial: Trial, curves: Mapping[str, Sequence[float]]
) -> Measurements:
    """How much of what the data say the network at "belief" takes in, (10)."""
    told = log(trial.exact.shape[-1]) - curves["exact"][-1]
    numbers = {f"kl_{name}": curve[-1] for name, curve in curves.items()}
    return {"informed": {"value": 1 - curves["belief"][-1] / told, **numbers}}


def _edge_error(edges: Tensor, graph: Tensor) -> float:
    """Mean gap of P(i -> j), [N, n, n], and the share there, over 15 bins of P."""
    n = edges.shape[-1]
    off = ~torch.eye(n, dtype=torch.bool)
    p, there = edges[:, off].flatten(), dags(n)[graph][:, off].flatten().double()
    gaps = torch.bincount((15 * p).long().clamp(0, 14), there - p, minlength=15)
    return float(gaps.abs().sum() / len(p))


def measure_calibrated(trial: Trial, log_q: Tensor) -> Measurements:
    """ECE of edges at the last step above that of the exact posterior."""
    ours, exact = (edge_marginals(log_p[:, -1]) for log_p in (log_q, trial.exact))
    even = exact.mean(0).expand_as(exact)
    errors = [_edge_error(p, trial.episodes.graph) for p in (ours, exact, even)]
    off = ~torch.eye(ours.shape[-1], dtype=torch.bool)
    rms = float((ours - exact)[:, off].square().mean().sqrt())
    named = dict(zip(("ece", "exact", "ignorant"), errors, strict=True))
    return {"calibrated": {"value": errors[0] - errors[1], **named, "rms": rms}}


def measure_outcomes(curves: Mapping[str, Sequence[float]]) -> Measurements:
    """Nats at the last step of two probes and of the network trained on graphs."""
    at = {name: curves[name][-1] for name in ("belief", "probe", "random")}
    return {
        "outcome_belief": {"value": at["probe"] - at["belief"], **at},
        "outcome_learnt": {"value": at["random"] - at["probe"], **at},
    }


def outcome_nll(run: Run, model: Outcomes, trial: Trial) -> dict[str, float]:
    """Nats to predict the last outcome: the network, and exactly by (9)."""
    e = trial.episodes
    with torch.no_grad():
        ours = -float(model(e.values, e.targets)[:, -1].double().mean())
    seen = statistics(e.values, e.targets, [run.settings.steps - 1, run.settings.steps])
    before, after = graph_scores(seen).logsumexp(-1).mean(0).tolist()
    return {"network": ours, "exact": before - after}


def held_out(run: Run) -> Tensor:
    """The numbers of the graphs that one training never sees."""
    s: Settings = run.settings
    order = run.rng("held out").permutation(len(dags(s.nodes)))
    return torch.from_numpy(order[: s.held_out].copy())


def measure_unseen(
    run: Run, trial: Trial, models: Mapping[str, Belief]
) -> Measurements:
    """Cross-entropy of all entries at the last step, on held-out graphs.

    Args:
        run: gives the held-out graphs.
        trial: of graphs of all kinds; those that are not held out are dropped.
        models: "with" and "without" them in training.
    """
    unseen, n = held_out(run), run.settings.nodes
    rows = torch.isin(trial.episodes.graph, unseen)
    e = Episodes(*(part[rows] for part in trial.episodes))
    exact = trial.exact[rows, -1:]
    denied = exact.clone()
    denied[..., unseen] = -torch.inf
    logits = {name: edge_beliefs(run, model, e) for name, model in models.items()}
    off = ~torch.eye(n, dtype=torch.bool)
    logits |= {"exact": edge_logits(exact), "exact_without": edge_logits(denied)}
    most = log(1e9)  # sure is not surer than that
    nats = {
        name: float(edge_loss(z[:, -1:, off].clamp(-most, most), e.graph, n))
        for name, z in logits.items()
    }
    return {"unseen_graphs": {"value": nats["without"] - nats["with"], **nats}}


def measure_longer(
    run: Run, curves: Mapping[str, Sequence[float]], name: str = "belief"
) -> Measurements:
    """Nats after a long episode against those after one as long as in training."""
    curve = curves[name]
    ends = {"kl_long": curve[-1], "kl_end": curve[run.settings.steps - 1]}
    return {"longer": {"value": ends["kl_long"] - ends["kl_end"], **ends}}


def measure_taught(what: str, without: float, taught: float) -> Measurements:
    """Nats that training where a network failed takes off."""
    ends = {"without": without, "taught": taught}
    return {f"{what}_taught": {"value": without - taught, **ends}}


def shift_curves(run: Run, model: Belief) -> dict[str, dict[str, list[float]]]:
    """NLL of the graph by step where noise or mechanism is not that of training.

    Returns:
        Shift -> "network", "exact" (both at most 10,000 nats) and "entropy" (of the
        exact posterior) -> mean after each step.
    """
    curves = {}
    for name, (_, changed) in SHIFTS.items():
        world: dict[str, Any] = dict(changed)
        t = trial(run, "shift", n=run.settings.shifted, **world)
        rows = t.episodes.graph[:, None, None].expand(-1, t.exact.shape[1], 1)
        log_q = believe(run, model, t.episodes)
        curves[name] = {
            arm: -log_p.gather(2, rows).clamp_min(-1e4).mean((0, 2))
            for arm, log_p in (("network", log_q), ("exact", t.exact))
        } | {"entropy": entropy(t.exact).mean(0)}
    return {
        name: {arm: curve.tolist() for arm, curve in arms.items()}
        for name, arms in curves.items()
    }


def measure_shift(
    run: Run, curves: Mapping[str, Mapping[str, Sequence[float]]]
) -> Measurements:
    """NLL at the last step over that of a uniform guess; Bayes' own beside it."""
    chance = log(len(dags(run.settings.nodes)))
    return {
        f"shift_{name}": {
            "value": arms["network"][-1] / chance,
            "chance": chance,
            **{arm: curve[-1] for arm, curve in arms.items()},
        }
        for name, arms in curves.items()
    }


def choose(run: Run) -> dict[str, list[float]]:
    """Entropy of the exact posterior while somebody chooses the targets, (12).

    Returns:
        "chosen" (by the largest gain), "random" and "rotating" -> mean entropy after
        each step. Graphs, noise and forced values are the same in all three.
    """
    s: Settings = run.settings
    draws = run.generator("choices", "cpu")
    world = draw(s.chosen, s.nodes, s.choices, draws)
    anywhere, forced = interventions(s.chosen, s.nodes, s.choices, draws)
    curves = {}
    for arm in ("chosen", "random", "rotating"):
        seen, curve = nothing(s.chosen, s.nodes), []
        for t in range(s.choices):
            targets = anywhere[:, t]
            if arm == "chosen":
                targets = gains(seen, draws, s.draws).entropy.argmax(1)
            elif arm == "rotating":
                targets = torch.full_like(targets, t % s.nodes)
            now = world._replace(noise=world.noise[:, t : t + 1])
            x = respond(now, targets[:, None], forced[:, t : t + 1])
            seen = seen.add(x[:, 0], targets)
            curve.append(float(entropy(graph_scores(seen).log_softmax(-1)).mean()))
        curves[arm] = curve
    return curves


def measure_active(curves: Mapping[str, Sequence[float]]) -> Measurements:
    """What the choice by (12) saves after the last step, in nats."""
    ends = {arm: curve[-1] for arm, curve in curves.items()}
    return {
        f"active_{arm}": {"value": ends[arm] - ends["chosen"], **ends}
        for arm in ("random", "rotating")
    }


def playground(run: Run, model: Belief) -> dict[str, Any]:
    """What the page needs to run the network by itself, as its script reads it.

    The page draws three nodes. Where the run has more, it gets a network of `quick`.
    """
    if run.settings.nodes == 3:
        return figure(model)
    small = copy(run)
    small.settings = CHAPTER.settings["quick"]
    made = belief_loop(small)
    return figure(_trained(small, "play", made, small.settings.belief_steps))
