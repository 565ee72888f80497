"""Deliberate faults in a chapter's module: how many do the tests catch?

Run as `make mutants`. Each fault is applied alone, to a copy of the package, and the
tests of the method run against that copy.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

TREE = Path(__file__).resolve().parents[1]
MODULE = Path("iclrtut") / "chapters" / "energy_based_classifier.py"
WANTED = 0.95
PATIENCE = 300  # seconds; a fault that hangs is caught


class Fault(NamedTuple):
    """An exact text of the module, what replaces it, and what that breaks."""

    old: str
    new: str
    what: str


FAULTS = [
    Fault(
        "return torch.logsumexp(logits, dim=-1)",
        "return torch.logsumexp(logits.log_softmax(-1), dim=-1)",
        "a log-softmax before the log-sum-exp",
    ),
    Fault(
        "return torch.logsumexp(logits, dim=-1)",
        "return torch.logsumexp(logits, dim=0)",
        "the log-sum-exp runs over the batch",
    ),
    Fault(
        "return torch.logsumexp(logits, dim=-1)",
        "return logits.exp().sum(-1).log()",
        "the log-sum-exp overflows",
    ),
    Fault("return -log_density(logits)", "return log_density(logits)", "energy's sign"),
    Fault(
        "return -_length(input_gradient(model, x))",
        "return _length(input_gradient(model, x))",
        "the mass score's sign",
    ),
    Fault(
        "weights = logits.detach().softmax(-1)",
        "weights = torch.ones_like(logits)",
        "the sampler weighs all classes alike",
    ),
    Fault(
        "weights = F.one_hot(target, logits.shape[-1]).to(logits.dtype)",
        "weights = logits.detach().softmax(-1)",
        "the wanted class is ignored",
    ),
    Fault(
        "add_(gradient, alpha=alpha)",
        "add_(gradient, alpha=-alpha)",
        "the sampler descends",
    ),
    Fault(
        "add_(gradient, alpha=alpha)",
        "add_(gradient, alpha=alpha / 2)",
        "the sampler takes half a step",
    ),
    Fault("noise.mul_(sigma)", "noise.mul_(0)", "no noise"),
    Fault("noise.mul_(sigma)", "noise.mul_(sigma**2)", "variance for deviation"),
    Fault(
        "noise = torch.empty_like(x).normal_(generator=generator)\n            x",
        "noise = torch.empty_like(x).normal_()\n            x",
        "the sampler's noise ignores its generator",
    ),
    Fault("x = x.clamp_(*clamp)", "pass", "the box does not hold the chains"),
    Fault(
        "p.requires_grad_(True)",
        "p.requires_grad_(False)",
        "the sampler leaves the weights frozen",
    ),
    Fault(
        "    x = x.detach().clone()\n    with _frozen",
        "    x = x.detach()\n    with _frozen",
        "the sampler touches its start",
    ),
    Fault(
        "if not torch.isfinite(x).all():", "if False:", "a NaN goes into the sampler"
    ),
    Fault("(chance < self.restart)", "(chance < 0)", "chains never restart"),
    Fault("(chance < self.restart)", "(chance > self.restart)", "chains restart"),
    Fault(
        "fresh = torch.empty_like(x).uniform_(-1, 1, generator=self.generator)",
        "fresh = torch.empty_like(x).uniform_(0, 1, generator=self.generator)",
        "chains restart bright",
    ),
    Fault(
        "last[:-1] = slots[:-1] != slots[1:]",
        "last[1:] = slots[1:] != slots[:-1]",
        "of a slot drawn twice, the earlier chain is kept",
    ),
    Fault(
        "x.detach()[order[last]]", "x.detach()[last]", "chains go back to wrong slots"
    ),
    Fault("loss = sampled - data +", "loss = data - sampled +", "the sign of the gap"),
    Fault(
        "torch.cat([x, samples.detach(), *second])",
        "torch.cat([x, samples, *second])",
        "gradients flow into the samples",
    ),
    Fault(
        "lse[len(x) + len(samples) :] if second else lse[: len(x)]",
        "lse[: len(x)]",
        "the second batch is ignored",
    ),
    Fault(
        "sampled = lse[len(x) : len(x) + len(samples)].mean()",
        "sampled = lse[len(x) :].mean()",
        "data count as samples",
    ),
    Fault(
        'seen["lse_data"] - seen["lse_samples"]',
        'seen["lse_samples"] - seen["lse_data"]',
        "the watched gap's sign",
    ),
    Fault(
        "times(v) + shift * v", "times(v)", "the strongest curvature, not the largest"
    ),
    Fault(
        "return delta.clamp(-radius, radius)",
        "return radius * delta.sign()",
        "the box is projected to its corners",
    ),
    Fault(
        "(radius / _length(delta).clamp_min(1e-12)).clamp_max(1)",
        "radius / _length(delta).clamp_min(1e-12)",
        "the ball is projected to its surface",
    ),
    Fault("return gradient.sign()", "return -gradient.sign()", "the attack descends"),
    Fault(
        "F.normalize(gradient.flatten(1), dim=1)",
        "F.normalize(gradient.flatten(1), dim=0)",
        "the attack is normalised over the batch",
    ),
    Fault(
        "at = (x + delta).clamp(-1, 1)", "at = (x + delta)", "attacks leave the pixels"
    ),
    Fault(
        "delta = project(moved, radius, norm)",
        "delta = moved",
        "attacks leave the ball",
    ),
    Fault(
        "delta = project(moved, radius, norm)",
        "delta = project(at.detach() - x, radius, norm) + moved + x - at.detach()",
        "the attack projects before it steps",
    ),
    Fault(
        "found[harder] = at.detach()[harder]",
        "found = at.detach()",
        "the attack keeps the last point, not the strongest",
    ),
    Fault(
        "harder = losses.detach() > worst",
        "harder = losses.detach() > -worst",
        "the attack forgets what it has found",
    ),
    Fault(
        "classify = refine or model", "classify = model", "refinement is not attacked"
    ),
    Fault(
        ".view(how.chains, len(x), -1).mean(0)",
        ".view(len(x), how.chains, -1).mean(1)",
        "refinement averages over other inputs",
    ),
    Fault(
        ".view(how.chains, len(x), -1).mean(0)",
        ".view(how.chains, len(x), -1)[0]",
        "refinement takes one chain",
    ),
    Fault(
        "slope = torch.autograd.grad(lse, x, create_graph=True)[0]",
        "slope = torch.autograd.grad(lse, x, create_graph=True)[0].detach()",
        "the unrolled attack sees no curvature",
    ),
    Fault("model(z + (end - z).detach())", "model(z)", "the straight attack is none"),
    Fault(
        "torch.stack(list(right.values())).all(0)",
        "torch.stack(list(right.values())).any(0)",
        "the weakest attack counts",
    ),
    Fault(
        "torch.default_generator.manual_seed(seed)", "pass", "weights without a seed"
    ),
    Fault("nn.init.zeros_(self.second.weight)", "pass", "blocks start at random"),
]


def source() -> str:
    """The module's text."""
    return (TREE / MODULE).read_text(encoding="utf-8")


def survives(fault: Fault) -> bool:
    """Whether the tests pass in spite of the fault."""
    text = source()
    if text.count(fault.old) != 1:
        sys.exit(
            f"mutants: {fault.old!r} stands {text.count(fault.old)} times, not once."
        )
    with tempfile.TemporaryDirectory() as folder:
        hidden = shutil.ignore_patterns("__pycache__")
        shutil.copytree(TREE / "iclrtut", Path(folder) / "iclrtut", ignore=hidden)
        (Path(folder) / MODULE).write_text(text.replace(fault.old, fault.new), "utf-8")
        # From this folder, python finds the copy before the installed package.
        words = [sys.executable, "-m", "pytest", "-xq", "-p", "no:cacheprovider"]
        words += ["--tb=no", str(TREE / "tests" / "chapters")]
        words += ["-k", "not play and not experiments"]
        home = {"PYTHONPATH": folder, "OMP_NUM_THREADS": "1"}
        try:
            done = subprocess.run(
                words,
                cwd=folder,
                env=os.environ | home,
                capture_output=True,
                timeout=PATIENCE,
            )
        except subprocess.TimeoutExpired:
            return False
    return done.returncode == 0


def main() -> None:
    """Apply all faults, two at a time, and print the share that was caught."""
    if not survives(Fault("# Attacks\n", "# Attacks \n", "nothing")):
        sys.exit("mutants: the tests fail without any fault: mend that first.")
    if survives(Fault("# Attacks\n", "raise SystemError\n", "everything")):
        sys.exit("mutants: the tests do not read the copy: no share can be told.")
    left = []
    with ThreadPoolExecutor(2) as pool:
        for fault, survived in zip(FAULTS, pool.map(survives, FAULTS), strict=True):
            print("SURVIVED" if survived else "caught  ", fault.what, flush=True)
            left.append(survived)
    share = 1 - sum(left) / len(FAULTS)
    print(f"mutants: {len(FAULTS) - sum(left)} of {len(FAULTS)} caught ({share:.0%}).")
    if share < WANTED:
        sys.exit(f"mutants: fewer than {WANTED:.0%} were caught.")


if __name__ == "__main__":
    main()
