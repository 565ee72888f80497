"""What an attack is aimed at, and how several attacks are counted together."""

import torch

from iclrtut.chapters.energy_based_classifier import attacks
from iclrtut.chapters.energy_based_classifier import method as jem


def test_the_attack_is_aimed_at_what_classifies_and_not_at_the_network():
    """The network's loss grows upwards, that of what it is refined to, downwards."""
    model = torch.nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0], [1.0]]))
    x, y = torch.zeros(3, 1), torch.zeros(3, dtype=torch.long)

    def attacked(refine):
        noise = torch.Generator().manual_seed(0)
        return jem.pgd(model, x, y, 0.5, 5, "linf", noise, refine)

    assert torch.allclose(attacked(None), torch.full((3, 1), 0.5))
    assert torch.allclose(attacked(lambda z: -model(z)), torch.full((3, 1), -0.5))


def test_of_several_attacks_the_worst_counts_for_each_input(monkeypatch):
    """An input survives when it survives all three; here each attack breaks one."""
    right, wrong = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    broken = iter((0, 1, 2))

    def refine(model, x, how, generator):
        logits = right.repeat(4, 1)
        logits[next(broken)] = wrong
        return logits

    monkeypatch.setattr(attacks, "refine", refine)
    monkeypatch.setattr(attacks, "pgd", lambda model, x, *rest: x)
    how = jem.Refinement(1, 0.1, 0.0, 1)
    labels = torch.zeros(4, dtype=torch.long)
    found = attacks.attack_refined(
        torch.nn.Identity(), torch.zeros(4, 2), labels, 0.1, 1, how, torch.Generator()
    )
    assert list(found) == ["replayed", "straight", "unrolled", "worst"]
    assert found["replayed"].tolist() == [False, True, True, True]
    assert found["worst"].tolist() == [False, False, False, True]


def test_the_attack_keeps_the_strongest_point_it_met():
    """The loss peaks in the middle; its one step overshoots to the edge of the ball."""
    x, y = torch.zeros(50, 1), torch.zeros(50, dtype=torch.long)

    def peak(z):
        return torch.cat([torch.zeros_like(z), -10 * z.abs()], dim=1)

    model = torch.nn.Linear(1, 2)
    noise = torch.Generator().manual_seed(0)
    found = jem.pgd(model, x, y, 0.5, 1, "linf", noise, peak)
    assert (found.abs() < 0.5).all()
