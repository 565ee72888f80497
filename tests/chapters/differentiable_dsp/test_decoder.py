"""The decoder of the chapter on DDSP, against counts and the synthesiser by itself."""

import pytest
import torch
from rng import rng

from iclrtut.chapters.differentiable_dsp import method
from iclrtut.chapters.differentiable_dsp.decoder import Decoder, Trunk

SMALL = {"hidden": 6, "width": 8, "layers": 1, "harmonics": 12, "bands": 9, "hop": 160}


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def count(u, v, L, K, B):
    """(12)."""

    def stack(i):
        return i * v + 3 * v + (L - 1) * (v * v + 3 * v)

    gru = 3 * u * (2 * v + u + 2)
    return 2 * stack(1) + gru + stack(u + 2 * v) + (v + 1) * (1 + K + B)


def test_the_solo_model_has_the_number_of_parameters_of_12():
    sizes = {"hidden": 512, "width": 512, "layers": 3, "harmonics": 60, "bands": 65}
    solo = Decoder(**sizes, hop=64, room=48_000)
    assert parameters(solo) == 4_849_150 == count(512, 512, 3, 60, 65) + 48_000
    parts = {"pitch": 529_408, "loud": 529_408, "gru": 2_362_368, "out": 1_315_328}
    for name, known in parts.items():
        assert parameters(getattr(solo.trunk, name)) == known
    assert parameters(solo.head) == 64_638


@pytest.mark.parametrize("sizes", [(48, 32, 1), (4, 4, 1), (7, 5, 2), (3, 11, 4)])
def test_the_formula_counts_every_decoder(sizes):
    names = dict(zip(("hidden", "width", "layers"), sizes, strict=True))
    model = Decoder(**names, harmonics=40, bands=33, hop=160)
    assert parameters(model) == count(*sizes, 40, 33)


def inputs():
    """f0, loudness and noise of two quarters of a second."""
    f0 = torch.tensor([[900.0], [300.0]]).expand(2, 25)
    return f0, torch.linspace(-40, 10, 25).expand(2, 25), method.white((2, 4000), rng())


def test_a_decoder_gives_controls_that_sound():
    torch.manual_seed(0)
    model = Decoder(**SMALL)
    f0, loud, noise = inputs()
    output = model.controls(f0, loud)
    assert torch.equal(output.f0, f0)
    assert output.amplitude.shape == (2, 25)
    assert output.distribution.shape == (2, 25, 12)
    assert output.noise.shape == (2, 25, 9)
    assert (output.distribution[0, :, 8:] == 0).all()
    assert (output.distribution[1, :, 8:] > 0).all()
    assert output.noise.mean() < 1e-3  # quiet at first
    sound = model(f0, loud, noise)
    assert torch.equal(sound, method.synthesise(output, noise, 160))
    assert not torch.equal(sound, model(f0, loud, -noise))


def test_a_trunk_remembers_the_past_and_uses_its_statistics():
    torch.manual_seed(0)
    trunk = Trunk(hidden=6, width=8, layers=1)
    f0, loud = torch.full((1, 10), 300.0), torch.zeros(1, 10)
    later = loud.clone()
    later[0, 4] = -3
    change = (trunk(f0, later) - trunk(f0, loud)).abs().amax(-1)[0]
    assert (change[:4] == 0).all() and (change[4:] > 0).all()
    centred = trunk(f0, later)
    trunk.mean, trunk.spread = torch.tensor(5.0), torch.tensor(2.0)
    assert torch.allclose(trunk(f0, 5 + 2 * later), centred, atol=1e-6)
    for p in trunk.gru.parameters():
        torch.nn.init.zeros_(p)
    change = (trunk(f0, 5 + 2 * later) - trunk(f0, 5 + 2 * loud)).abs().amax(-1)[0]
    assert change.nonzero().flatten().tolist() == [4]  # what the GRU does not pass on


def test_a_room_is_heard_after_the_sound_itself():
    torch.manual_seed(0)
    model = Decoder(**SMALL, room=50)
    f0, loud, noise = inputs()
    dry = model(f0, loud, noise, wet=False)
    assert torch.allclose(model(f0, loud, noise), dry, atol=1e-6)
    with torch.no_grad():
        model.room[0] = 7.0  # never heard
        model.room[5] = 0.5
    late = torch.cat([torch.zeros(2, 5), dry[:, :-5]], 1)
    assert torch.allclose(model(f0, loud, noise), dry + late / 2, atol=1e-6)
    assert torch.equal(model(f0, loud, noise, wet=False), dry)
