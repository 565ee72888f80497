"""Pixel ranges, splits and foreign inputs."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from iclrtut import data, images
from iclrtut.errors import BadRequest

RANGES = [(-1.0, 1.0), (0.0, 1.0)]


def rng():
    return np.random.default_rng(0)


@pytest.fixture
def x():
    return torch.tensor(rng().uniform(-1, 1, (6, 1, 8, 8)), dtype=torch.float32)


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_the_darkest_and_the_lightest_pixel_become_the_ends_of_the_range(low, high):
    grey = np.array([[[0, 255], [51, 102]]], dtype=np.uint8)
    made = images.from_pixels(grey, low=low, high=high)
    want = low + (high - low) * torch.tensor([[[[0, 1], [0.2, 0.4]]]])
    assert torch.allclose(made, want, atol=1e-6)
    sixteenths = np.full((1, 2, 2), 16.0)
    assert (images.from_pixels(sixteenths, low=low, high=high, white=16) == high).all()


def test_colours_come_first():
    pixels = rng().integers(256, size=(2, 4, 5, 3)).astype(np.uint8)
    made = images.from_pixels(pixels, low=0, high=255)
    assert torch.equal(made, torch.tensor(pixels).permute(0, 3, 1, 2).float())


def test_pixels_of_no_image_and_an_empty_range_are_refused():
    with pytest.raises(BadRequest, match=r"shape \[4, 4\]"):
        images.from_pixels(np.zeros((4, 4)), low=0, high=1)
    with pytest.raises(BadRequest, match="no range"):
        images.from_pixels(np.zeros((1, 4, 4)), low=1, high=1)


def test_parts_are_disjoint_random_and_of_the_sizes_asked_for():
    parts = images.split(100, [60, 30], rng())
    assert [len(part) for part in parts] == [60, 30]
    assert len(set(torch.cat(parts).tolist())) == 90
    assert parts[0].tolist() != sorted(parts[0].tolist())
    again = images.split(100, [60, 30], np.random.default_rng(1))
    assert not torch.equal(parts[0], again[0])


@pytest.mark.parametrize("sizes", [[60, 41], [0, 10], [-1]])
def test_parts_that_do_not_fit_are_refused(sizes):
    with pytest.raises(BadRequest, match="cannot be split"):
        images.split(100, sizes, rng())


def test_shuffling_keeps_the_pixels_of_each_image(x):
    for shuffle in (images.shuffled, images.shuffled_alike):
        made = shuffle(x, rng())
        assert torch.equal(made.flatten(1).sort(1)[0], x.flatten(1).sort(1)[0])
        assert not torch.equal(made, x)
    ramp = torch.arange(64.0).view(1, 1, 8, 8).expand(2, -1, -1, -1)
    assert torch.equal(*images.shuffled_alike(ramp, rng()))
    assert not torch.equal(*images.shuffled(ramp, rng()))


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_foreign_inputs_fill_the_range(low, high):
    like = torch.zeros(2000, 1, 8, 8)
    for make in (images.noise, images.grey):
        made = make(like, rng(), low=low, high=high)
        assert made.shape == like.shape
        assert low <= made.min() < low + 0.01 and high - 0.01 < made.max() <= high
    assert (made == made[:, :, :1, :1]).all()  # the last is grey
    patches = images.photographs(like[:5], rng(), low=low, high=high)
    pixels = data.pictures(1, 8, 5, rng())
    assert torch.allclose(patches, low + (high - low) * torch.tensor(pixels) / 255)


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_letters_are_cut_averaged_and_as_bright_as_the_range_allows(low, high):
    stored = data.load("omniglot_small")
    assert len(stored["images_packed"]) == 242 * 20
    made = images.letters(torch.zeros(40, 1, 8, 8), rng(), low=low, high=high)
    assert made.shape == (40, 1, 8, 8) and len(made.unique(dim=0)) > 30
    assert torch.allclose(made.amax((1, 2, 3)), torch.tensor(high))
    assert made.amin() == low
    ink = made > low  # along the longer side it reaches from end to end
    across = ink.any(2)[:, 0, [0, -1]].all(1)
    down = ink.any(3)[:, 0, [0, -1]].all(1)
    assert (across | down).all()
    three = images.letters(torch.zeros(4, 3, 32, 32), rng(), low=low, high=high)
    assert (three == three[:, :1]).all()


def test_ink_is_centred_and_keeps_its_shape():
    ink = torch.zeros(105, 105, dtype=torch.uint8)
    ink[10:90, 50:70] = 1  # four times as high as wide
    square = images._square(ink, 8)
    want = torch.zeros(8, 8)
    want[:, 3:5] = 1
    assert torch.equal(square, want)


def test_whole_letters_are_the_same_letters_in_their_frames():
    like = torch.zeros(30, 1, 15, 15)
    made = images.letters(like, rng(), low=-1, high=1, whole=True)
    stored = data.load("omniglot_small")["images_packed"]
    rows = rng().integers(len(stored), size=30)
    frames = np.unpackbits(stored[rows], axis=-1, count=105)
    means = frames.reshape(30, 15, 7, 15, 7).mean((2, 4))
    wanted = 2 * means / means.max((1, 2), keepdims=True) - 1
    assert np.allclose(made[:, 0], wanted, atol=1e-6)
    cut = images.letters(like, rng(), low=-1, high=1)
    assert (made > -1).sum() < 0.8 * (cut > -1).sum()  # frames have margins


def test_moving_pixels(x):
    assert torch.equal(
        images.inverted(images.inverted(x, low=-1, high=1), low=-1, high=1), x
    )
    assert torch.allclose(images.inverted(x, low=0, high=1), 1 - x)
    assert torch.equal(
        images.turned(x)[0, 0], torch.tensor(np.rot90(x[0, 0].numpy()).copy())
    )
    assert torch.equal(images.rolled(x)[:, :, :4], x[:, :, 4:])


def test_interpolated_images_lie_between_two_classes():
    y = torch.arange(6) % 2
    x = y[:, None, None, None].float().expand(6, 1, 2, 2)
    assert (images.interpolated(x, y, 40, rng()) == 0.5).all()
    with pytest.raises(BadRequest, match="only 0 of 3 pairs"):
        images.interpolated(x, torch.zeros(6), 3, rng())


def test_patches_are_averaged_squares(monkeypatch):
    pixels = np.arange(40 * 50).reshape(40, 50).astype(np.float32) % 256
    monkeypatch.setattr(data, "load", lambda name: {"only": pixels})
    like = torch.zeros(1, 1, 8, 8)
    patch = images.photographs(like, np.random.default_rng(1), low=0, high=1)
    blocks = [
        pixels[i : i + 32, j : j + 32].reshape(8, 4, 8, 4).mean((1, 3)) / 255
        for i in range(9)
        for j in range(19)
    ]
    assert min(np.abs(block - patch[0, 0].numpy()).max() for block in blocks) < 1e-6


@pytest.mark.parametrize("lossy", [True, False])
def test_clothes_are_as_lossy_as_cifar_is(monkeypatch, lossy):
    known = rng().integers(256, size=(6, 32, 32, 3)).astype(np.uint8)
    monkeypatch.setattr(data, "load", lambda name: {"images": known})
    file = SimpleNamespace(is_file=lambda: lossy)
    monkeypatch.setattr(data, "fetch", lambda name: file)
    made = images.photographs(torch.zeros(5, 3, 32, 32), rng(), low=0, high=1)
    if lossy:
        files = [io.BytesIO() for _ in known]
        for image, file in zip(known, files, strict=True):
            Image.fromarray(image).save(file, "JPEG", quality=75)
        known = np.stack([np.asarray(Image.open(file)) for file in files])
    pixels = (made * 255).round().byte().permute(0, 2, 3, 1).numpy()
    assert all((picture == known).all((1, 2, 3)).any() for picture in pixels)
