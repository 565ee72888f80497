"""The method of the chapter on DDSP, each function against an independent route.

The routes: SciPy, direct sums in float64, and for phases sums of whole numbers, which
are exact. `exact_turns` and the functions called `direct_` are those routes.
"""

import inspect
import itertools
import math
import tracemalloc

import librosa
import numpy as np
import pytest
import torch
from assertions import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from rng import normal, rng, uniform
from scipy import optimize, signal, stats

from iclrtut.chapters.differentiable_dsp import method

FS = 16_000
GRID = 2**20  # f0 in multiples of 1/GRID Hz: its sums are exact
quickly = settings(max_examples=25, derandomize=True)
seeds = st.integers(0, 2**20)


def on_grid(f0):
    return np.rint(np.asarray(f0, np.float64) * GRID) / GRID


def exact_turns(f0, fs=FS):
    """Wrapped phase in turns by sums of whole numbers; f0 [N] lies on the grid."""
    whole = np.asarray(f0, np.float64) * GRID
    assert (whole == np.rint(whole)).all()
    return np.cumsum(whole.astype(np.int64)) % (fs * GRID) / (fs * GRID)


def apart(phi, turns):
    """The largest distance on the circle, radians."""
    around = np.asarray(phi, np.float64) / (2 * np.pi) - turns
    return 2 * np.pi * np.abs(around - np.rint(around)).max()


def hann(n):
    return signal.get_window("hann", n)  # periodic


def direct_upsample(frames, hop):
    """One window a frame and one more of the last, each laid down where it belongs."""
    T, C = frames.shape
    out = np.zeros(((T + 2) * hop, C))
    for j, row in enumerate([*frames, frames[-1]]):
        out[j * hop : (j + 2) * hop] += hann(2 * hop)[:, None] * row
    return out[hop : (T + 1) * hop]


def direct_interpolate(f0, hop):
    return np.interp(np.arange(len(f0) * hop) / hop, np.arange(len(f0)), f0)


def direct_bank(f0, amplitudes, hop, fs=FS):
    """(1) to (3) in float64, harmonic by harmonic."""
    f = direct_interpolate(f0, hop)
    turns = np.cumsum(f / fs)
    A, out = direct_upsample(amplitudes, hop), np.zeros(len(f))
    for k in range(1, A.shape[1] + 1):
        out += (k * f < fs / 2) * A[:, k - 1] * np.sin(2 * np.pi * k * turns)
    return out


def direct_response(H):
    """(5) as a sum of cosines."""
    n = 2 * (len(H) - 1)
    m, j = np.arange(n) - n // 2, np.arange(len(H))
    twice = np.where((j == 0) | (j == n // 2), 1, 2)
    return hann(n) * (np.cos(2 * np.pi * np.outer(m, j) / n) @ (twice * H)) / n


def direct_noise(noise, H):
    """(6): convolve each frame with its own response, lay all down, crop."""
    T, n = len(H), 2 * (H.shape[1] - 1)
    hop = len(noise) // T
    out = np.zeros(T * hop + n)
    for j, row in enumerate(H):
        part = np.convolve(noise[j * hop : (j + 1) * hop], direct_response(row))
        out[j * hop : j * hop + len(part)] += part
    return out[n // 2 : n // 2 + T * hop]


def direct_sound(controls, noise, hop, fs=FS):
    f0, A, d, H = (np.asarray(v, np.float64) for v in controls)
    return direct_bank(f0, A[:, None] * d, hop, fs) + direct_noise(noise, H)


def direct_loudness(x, fs=FS, rate=250):
    """(10), frame by frame."""
    weight = 10 ** (librosa.A_weighting(np.arange(257) * fs / 512, min_db=-200) / 10)
    padded, hop = np.pad(x, (256, 512)), fs // rate
    dB = []
    for j in range(len(x) * rate // fs):
        spectrum = np.fft.rfft(padded[j * hop : j * hop + 512] * hann(512))
        dB.append(10 * np.log10(max(np.mean(np.abs(spectrum) ** 2 * weight), 1e-8)))
    return np.array(dB)


def controls(T, K=6, B=9, seed=0, low=60.0, high=3000.0):
    """Random controls of NumPy, float32; glides over octaves, harmonics above fs/2."""
    g = np.random.default_rng(seed)
    f0 = np.exp(g.uniform(np.log(low), np.log(high), T))
    parts = f0, g.random(T), g.dirichlet(np.ones(K), T), g.random((T, B))
    return method.Controls(*(v.astype(np.float32) for v in parts))


def tensors(controls, dtype=torch.float64):
    return method.Controls(*(torch.from_numpy(np.array(v)).to(dtype) for v in controls))


def cut(controls, sizes):
    """Blocks of these sizes, over and over; the last is what is left."""
    ends = itertools.accumulate(itertools.cycle(sizes))
    inner = itertools.takewhile(lambda end: end < len(controls.f0), ends)
    for low, high in itertools.pairwise([0, *inner, len(controls.f0)]):
        yield method.Controls(*(v[low:high] for v in controls))


def stream_noise(seed, count):
    """The noise that `stream` draws, in one go."""
    g = np.random.default_rng(seed)
    return g.random(count, dtype=np.float32) * 2 - 1


def rms(x):
    return float(np.sqrt(np.mean(np.square(np.asarray(x, np.float64)))))


# Phase (1)


@quickly
@given(st.integers(1, 7999 * GRID), st.integers(1, 600))
def test_constant_pitch_is_a_straight_line_that_begins_with_one_step(whole, N):
    f0 = whole / GRID
    turns = np.array([whole * (n + 1) % (FS * GRID) for n in range(N)]) / (FS * GRID)
    result = method.phase(torch.full((N,), f0, dtype=torch.float64))
    assert apart(result, turns) < 1e-11
    assert apart(result[:1], f0 / FS) < 1e-15


@quickly
@given(seeds, st.sampled_from([8000, 16_000, 44_100]))
def test_any_pitch_against_whole_numbers(seed, fs):
    f0 = on_grid(uniform(3000, seed=seed, low=1.0, high=fs / 2))
    result = method.phase(torch.from_numpy(f0), fs)
    assert apart(result, exact_turns(f0, fs)) < 1e-9
    assert (result >= 0).all()
    assert (result < 2 * math.pi).all()


def minute(fs=FS):
    """A minute of 220 Hz with 50 cents of vibrato, float32, on the grid."""
    t = np.arange(60 * fs) / fs
    f0 = on_grid(220 * 2 ** (np.sin(2 * np.pi * 5.5 * t) / 24)).astype(np.float32)
    return on_grid(f0)


def drift(f0, fs=FS):
    """The bound on the error of a float64 sum of N numbers, radians.

    Whatever the order, N - 1 additions and N divisions by fs err by at most u each, of
    at most the sum of all: N u sum(f0) / fs turns, u = 2^-53.
    """
    return 2 * np.pi * len(f0) * 2.0**-53 * f0.sum() / fs


def test_a_minute_stays_in_phase():
    f0 = minute()
    turns, bound = exact_turns(f0), drift(f0)
    assert bound < 9e-6
    result = method.phase(torch.from_numpy(f0))
    assert apart(result, turns) < bound
    single = method.phase(torch.from_numpy(f0).float())
    assert single.dtype == torch.float32
    ulp = 2.0**-21  # of a float32 in [4, 8)
    assert apart(single, turns) < bound + ulp
    assert (single >= 0).all()
    assert (single.numpy() <= np.float32(2 * np.pi)).all()
    naive = 2 * np.pi * np.cumsum(f0.astype(np.float32)) / np.float32(FS)
    assert abs(naive[-1] - 2 * np.pi * f0.sum() / FS) > 50  # what it guards against


# Harmonics (2)


@quickly
@given(seeds, st.integers(1, 40), st.sampled_from([8000, 16_000]))
def test_shares_of_the_harmonics_below_nyquist(seed, K, fs):
    weights = uniform(12, K, seed=seed)
    f0 = uniform(12, seed=seed + 1, low=math.log(50), high=math.log(6000)).exp()
    result = method.distribution(weights, f0, fs).numpy()
    for row, w, f in zip(result, weights.numpy(), f0.tolist(), strict=True):
        kept = np.array([w[k - 1] if k * f < fs / 2 else 0.0 for k in range(1, K + 1)])
        total = math.fsum(kept)
        assert np.allclose(row, kept / total if total else 0, rtol=1e-13, atol=0)
        assert row.sum() == pytest.approx(1 if total else 0, abs=1e-13)


def test_a_harmonic_at_nyquist_itself_is_removed():
    even = torch.ones(3, 4, dtype=torch.float64)
    result = method.distribution(even, torch.tensor([2000.0, 4000.0, 8000.0]).double())
    third = 1 / 3
    expected = [[third, third, third, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert np.allclose(result, expected, atol=1e-15)
    nothing = method.distribution(0 * even, torch.full((3,), 100.0).double())
    assert (nothing == 0).all()


def test_what_is_silent_has_a_finite_slope():
    weights = uniform(3, 4).requires_grad_()
    f0 = torch.tensor([100.0, 8000.0, 1e9], dtype=torch.float64)
    method.distribution(weights, f0).square().sum().backward()
    assert torch.isfinite(weights.grad).all()
    zero = torch.zeros(2, 4, dtype=torch.float64, requires_grad=True)
    method.distribution(zero, f0[:2]).square().sum().backward()
    assert torch.isfinite(zero.grad).all()


# Frames to samples (3)


@quickly
@given(seeds, st.integers(1, 7), st.integers(1, 30), st.integers(1, 3))
def test_windows_of_two_hops_and_straight_lines(seed, T, hop, C):
    frames = normal(T, C, seed=seed)
    result = method.upsample(frames, hop)
    assert np.allclose(result, direct_upsample(frames.numpy(), hop), atol=1e-14)
    assert torch.allclose(result[::hop], frames, atol=1e-15, rtol=1e-15)
    assert torch.allclose(result[(T - 1) * hop :], frames[-1], atol=1e-15, rtol=1e-15)
    line = method.interpolate(frames[:, 0], hop)
    assert np.allclose(line, direct_interpolate(frames[:, 0].numpy(), hop), atol=1e-14)
    assert torch.allclose(line[::hop], frames[:, 0], atol=1e-15, rtol=1e-15)
    flat = method.upsample(torch.ones(T, C, dtype=torch.float64), hop)
    assert (flat - 1).abs().max() < 1e-15


# Positive outputs (4)


def test_positive_by_numpy_and_its_numbers():
    x = torch.linspace(-30, 30, 601, dtype=torch.float64)
    p = math.log(10)
    formula = 2 * (1 / (1 + np.exp(-x.numpy()))) ** p + 1e-7
    assert np.allclose(method.positive(x), formula, rtol=1e-13, atol=0)
    ends = method.positive(torch.tensor([-1e5, 1e5], dtype=torch.float64))
    assert ends.tolist() == [1e-7, 2 + 1e-7]
    zero = torch.zeros((), dtype=torch.float64, requires_grad=True)
    at_zero = method.positive(zero)
    assert at_zero.item() == pytest.approx(0.4054, abs=5e-5)
    slope = torch.autograd.grad(at_zero, zero)[0]
    assert slope == pytest.approx(p * 2**-p, rel=1e-12)
    single = torch.tensor([-1e5, -50.0, 1e5], requires_grad=True)
    method.positive(single).sum().backward()
    assert torch.isfinite(single.grad).all()


# Filters (5) and filtered noise (6), (7)


@quickly
@given(seeds, st.integers(2, 70))
def test_the_response_is_a_sum_of_cosines_smoothed_at_the_bins(seed, B):
    H = uniform(B, seed=seed)
    n, j = 2 * (B - 1), np.arange(B)
    h = method.impulse_response(H).numpy()
    assert h.shape == (n,)
    assert np.allclose(h, direct_response(H.numpy()), atol=1e-14)
    _, at_bins = signal.freqz(h, worN=np.pi * j / (B - 1))
    centred = at_bins * np.exp(1j * np.pi * j)
    left, right = H[np.abs(j - 1)], H[np.where(j == B - 1, B - 2, j + 1) % B]
    assert np.allclose(centred.real, (left + 2 * H + right) / 4, atol=1e-13)
    assert np.abs(centred.imag).max() < 1e-13


@quickly
@given(seeds, st.integers(1, 6), st.integers(1, 40), st.sampled_from([2, 3, 9, 30]))
def test_each_frame_of_noise_by_direct_convolution(seed, T, hop, B):
    noise, H = normal(T * hop, seed=seed), uniform(T, B, seed=seed + 1)
    result = method.filter_noise(noise, H).numpy()
    assert np.allclose(result, direct_noise(noise.numpy(), H.numpy()), atol=1e-13)


@pytest.mark.parametrize("hop, B", [(64, 65), (160, 33), (7, 65), (100, 2)])
def test_a_flat_filter_gives_the_noise_back_without_delay(hop, B):
    noise = normal(9 * hop)
    flat = method.filter_noise(noise, torch.ones(9, B, dtype=torch.float64))
    assert torch.allclose(flat, noise, atol=1e-14)


def test_the_noise_is_white_uniform_and_its_generator_s():
    noise = method.white((1000, 1000), rng(3))
    assert noise.shape == (1000, 1000)
    assert noise.dtype == torch.float32
    assert (noise >= -1).all()
    assert (noise < 1).all()
    x = noise.double().flatten()
    assert x.mean().abs() < 5 * math.sqrt(1 / 3e6)
    assert x.square().mean() == pytest.approx(1 / 3, abs=5 * math.sqrt(4 / 45e6))
    spread = stats.kstest(x[:20_000].numpy(), stats.uniform(-1, 2).cdf)
    assert spread.pvalue > 1e-3
    assert torch.equal(noise, method.white((1000, 1000), rng(3)))
    assert not torch.equal(noise[0], method.white((1000,), rng(4)))


# Reverb (8)


@quickly
@given(seeds, st.integers(1, 300), st.integers(1, 300))
def test_reverb_is_convolution(seed, N, R):
    x, h = normal(N, seed=seed), normal(R, seed=seed + 1)
    result = method.reverb(x, h).numpy()
    expected = np.convolve(x.numpy(), h.numpy())[:N]
    assert result.shape == (N,)
    assert np.allclose(result, expected, atol=1e-12)


def test_reverb_of_a_batch():
    x, h = normal(2, 3, 200), normal(3, 200, seed=1)
    for response in (h, h[1]):
        result = method.reverb(x, response)
        assert result.shape == x.shape
        for i, j in itertools.product(range(2), range(3)):
            here = (response if response.dim() == 1 else response[j]).numpy()
            expected = signal.convolve(x[i, j].numpy(), here, method="direct")[:200]
            assert np.allclose(result[i, j], expected, atol=1e-12)


# Spectral loss (9)


def magnitudes(x, size):
    """|STFT| by SciPy: hops of a quarter, zeros beyond the ends, windows not scaled."""
    padded = np.pad(x, size // 2)
    options = {"boundary": None, "padded": False, "noverlap": size * 3 // 4}
    return np.abs(signal.stft(padded, nperseg=size, **options)[2]) * size / 2


def direct_loss(x, y, sizes, linear=1.0, log=1.0):
    total = 0.0
    for size in sizes:
        X, Y = magnitudes(x, size), magnitudes(y, size)
        total += linear * np.mean(np.abs(X - Y))
        total += log * np.mean(np.abs(np.log(X + 1e-5) - np.log(Y + 1e-5)))
    return total


@pytest.mark.parametrize("N", [4000, 2048, 300, 64, 5, 1])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.3, 0.0), (0.0, 2.0)])
def test_the_loss_by_numpy(N, weights):
    x, y = normal(N, seed=N), normal(N, seed=N + 1, scale=0.3)
    for sizes in (method.SIZES, (128,)):
        result = method.spectral_loss(x, y, sizes, *weights)
        expected = direct_loss(x.numpy(), y.numpy(), sizes, *weights)
        assert result.shape == ()
        assert result.item() == pytest.approx(expected, rel=1e-10)
    by_default = method.spectral_loss(x, y)
    assert by_default == pytest.approx(
        method.spectral_loss(x, y, method.SIZES, 1, 1).item()
    )
    assert method.SIZES == (2048, 1024, 512, 256, 128, 64)


def test_the_loss_is_zero_for_a_turned_sign_alone():
    x = normal(3000)
    assert method.spectral_loss(x, x) == 0
    assert method.spectral_loss(x, -x) == 0
    assert method.spectral_loss(x, x + 1e-6 * normal(3000, seed=1)) > 0
    others = 0.9 * x, x.flip(0), x.roll(1), normal(3000, seed=1)
    losses = [method.spectral_loss(x, other).item() for other in others]
    assert min(losses) > 0.05
    back = [method.spectral_loss(other, x).item() for other in others]
    assert losses == pytest.approx(back, rel=1e-12)


def test_the_loss_of_a_batch_is_the_mean():
    x, y = normal(2, 3, 1000), normal(2, 3, 1000, seed=1)
    each = [
        method.spectral_loss(a, b)
        for a, b in zip(x.view(6, -1), y.view(6, -1), strict=True)
    ]
    assert method.spectral_loss(x, y) == pytest.approx(float(sum(each)) / 6, rel=1e-12)
    to_one = [method.spectral_loss(a, y[0, 0]) for a in x.view(6, -1)]
    expected = pytest.approx(float(sum(to_one)) / 6, rel=1e-12)
    assert method.spectral_loss(x, y[0, 0]).item() == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_silence_has_a_finite_loss_and_slope(dtype):
    silence = torch.zeros(3000, dtype=dtype)
    noise = normal(3000).to(dtype)
    for x, y in ((silence, silence), (silence, noise), (noise, silence)):
        x = x.clone().requires_grad_()
        loss = method.spectral_loss(x, y)
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(x.grad).all()


def test_the_loss_prefers_less_noise_than_there_is():
    """(a) noise alone: the linear term wants 0.766 of it, the logarithms all of it."""
    x, y = (method.white((80_000,), rng(seed)).double() for seed in (1, 2))
    for linear, log, best in ((1, 0, math.sqrt(2 ** (2 / 3) - 1)), (0, 1, 1.0)):
        result = optimize.minimize_scalar(
            lambda s, w=(linear, log): method.spectral_loss(
                s * x, y, (512,), *w
            ).item(),
            bounds=(0.5, 1.5),
            method="bounded",
            options={"xatol": 1e-3},
        )
        assert result.x == pytest.approx(best, abs=0.015)


# Loudness (10)


@pytest.mark.parametrize(
    "fs, rate", [(16_000, 250), (16_000, 100), (16_000, 10), (44_100, 100)]
)
def test_loudness_frame_by_frame(fs, rate):
    x = normal(2, 3000, scale=0.3) * torch.linspace(0, 1, 3000).double() ** 2
    result = method.loudness(x, fs, rate)
    assert result.shape == (2, 3000 * rate // fs)
    for row, samples in zip(result, x.numpy(), strict=True):
        assert np.allclose(row, direct_loudness(samples, fs, rate), atol=1e-3)
    silence = method.loudness(torch.zeros(1000))
    assert silence.tolist() == [-80.0] * (1000 * 250 // FS)


def test_loudness_of_a_sine_of_noise_and_of_nothing():
    t = torch.arange(FS, dtype=torch.float64) / FS
    sine = method.loudness((2 * math.pi * 1000 * t).sin())[5:-5]
    w = hann(512)
    expected = 10 * math.log10(512 * (w**2).sum() / 4 / 257)
    assert expected == pytest.approx(19.8, abs=0.05)
    assert (sine - expected).abs().max() < 0.05
    noise = method.white((60 * FS,), rng(1)).double()
    power = 10 ** (librosa.A_weighting(np.arange(257) * FS / 512, min_db=-200) / 10)
    level = 10 * math.log10((w**2).sum() / 3 * power.mean())
    assert level == pytest.approx(18.2, abs=0.05)
    mean = 10 * (10 ** (method.loudness(noise)[5:-5] / 10)).mean().log10()
    assert mean == pytest.approx(level, abs=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_loudness_has_a_finite_slope_at_silence(dtype):
    x = torch.zeros(2000, dtype=dtype, requires_grad=True)
    method.loudness(x).sum().backward()
    assert torch.isfinite(x.grad).all()


# Synthesis


@quickly
@given(seeds, st.integers(1, 8), st.integers(1, 25), st.integers(1, 12))
def test_the_bank_is_a_sum_of_sines(seed, T, hop, K):
    c = controls(T, K, seed=seed)
    f0, A = (
        v.astype(np.float64) for v in (c.f0, c.amplitude[:, None] * c.distribution)
    )
    result = method.harmonic_bank(torch.from_numpy(f0), torch.from_numpy(A), hop)
    assert result.shape == (T * hop,)
    assert np.allclose(result, direct_bank(f0, A, hop), atol=1e-10)


def test_steady_tones_are_those_of_the_bank():
    f0 = torch.tensor([150.0, 311.3, 900.0, 3000.0, 9000.0], dtype=torch.float64)
    A = uniform(20)
    tones = method.steady_tones(f0, A, 3200)
    assert tones.shape == (5, 3200) and tones.dtype == torch.float32
    bank = method.harmonic_bank(f0[:, None].expand(-1, 20), A.expand(5, 20, 20), 160)
    assert (tones - bank).abs().max() < 1e-5
    assert (tones[4] == 0).all()
    f0, weights = f0[1:2].requires_grad_(), normal(3200)

    def value(f):
        return (method.steady_tones(f, A, 3200).double() * weights).sum()

    (slope,) = torch.autograd.grad(value(f0), f0)
    step = (value(f0 + 1e-3) - value(f0 - 1e-3)).item() / 2e-3
    assert float(slope) == pytest.approx(step, rel=1e-2)


def test_a_pitch_above_nyquist_is_silence():
    f0 = torch.full((6,), 9000.0, dtype=torch.float64)
    assert (method.harmonic_bank(f0, torch.ones(6, 3).double(), 10) == 0).all()
    c = controls(6, low=8000.0, high=20_000.0)._replace(noise=np.zeros((6, 9)))
    sound = method.synthesise(tensors(c), torch.ones(60).double(), 10)
    assert (sound == 0).all()
    assert (
        np.concatenate(list(method.stream(cut(c, [2]), np.random.default_rng(0)))) == 0
    ).all()


@quickly
@given(
    seeds, st.integers(1, 6), st.sampled_from([1, 10, 64]), st.sampled_from([2, 9, 65])
)
def test_synthesis_is_the_bank_and_the_noise(seed, T, hop, B):
    c, noise = controls(T, 5, B, seed=seed), normal(T * hop, seed=seed)
    result = method.synthesise(tensors(c), noise, hop)
    assert np.allclose(result, direct_sound(c, noise.numpy(), hop), atol=1e-10)
    at_8k = method.synthesise(tensors(c), noise, hop, 8000)
    assert np.allclose(at_8k, direct_sound(c, noise.numpy(), hop, 8000), atol=1e-10)


# Every differentiable function


PARTS = {  # function of tensors, their shapes
    "phase": (lambda f: method.phase(1 + f / 4, 10), [(30,)]),
    "distribution": (
        lambda w, f: method.distribution(w + 0.1, 100 + f, 1000),
        [(4, 6), (4,)],
    ),
    "upsample": (lambda x: method.upsample(x, 6), [(4, 2)]),
    "interpolate": (lambda x: method.interpolate(x + 1, 6), [(4,)]),
    "positive": (method.positive, [(9,)]),
    "impulse_response": (method.impulse_response, [(9,)]),
    "filter_noise": (method.filter_noise, [(20,), (4, 5)]),
    "reverb": (method.reverb, [(12,), (12,)]),
    "loudness": (lambda x: method.loudness(x, 16_000, 250), [(700,)]),
    "harmonic_bank": (
        lambda f, A: method.harmonic_bank(30 + f, A, 7, fs=1000),
        [(4,), (4, 3)],
    ),
    "synthesise": (
        lambda f, A, d, H, x: method.synthesise(
            method.Controls(30 + f, A, d, H), x, 5, 1000
        ),
        [(4,), (4,), (4, 3), (4, 5), (20,)],
    ),
    "spectral_loss": (
        lambda x, y: method.spectral_loss(x, y + 1, (16, 8)),
        [(40,), (40,)],
    ),
}


def inputs(shapes, *lead):
    return [uniform(*lead, *shape, seed=i) for i, shape in enumerate(shapes)]


@pytest.mark.parametrize("name", PARTS)
def test_slopes_by_differences(name):
    call, shapes = PARTS[name]
    arguments = [x.requires_grad_() for x in inputs(shapes)]
    assert torch.autograd.gradcheck(call, arguments, fast_mode=name == "loudness")


@pytest.mark.parametrize("name", [name for name in PARTS if name != "spectral_loss"])
def test_a_batch_gives_what_its_members_give(name):
    call, shapes = PARTS[name]
    arguments = inputs(shapes, 2, 3)
    result = call(*arguments)
    for i, j in itertools.product(range(2), range(3)):
        alone = call(*(x[i, j] for x in arguments))
        assert result[i, j].shape == alone.shape
        assert torch.allclose(result[i, j], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", PARTS)
def test_dtypes_are_kept_and_inputs_left_alone(name):
    call, shapes = PARTS[name]
    arguments = inputs(shapes)
    before = [x.clone() for x in arguments]
    double, single = call(*arguments), call(*(x.float() for x in arguments))
    assert double.dtype == torch.float64
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), double, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(a, b) for a, b in zip(arguments, before, strict=True))


# Stream


SIZES = [[1], [3], [64], [5, 1, 17, 2]]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize(
    "T, K, B, hop, low",
    [(70, 60, 65, 64, 60.0), (70, 60, 65, 64, 600.0), (130, 1, 2, 100, 60.0),
     (67, 7, 33, 160, 200.0), (131, 100, 65, 10, 30.0), (1, 3, 9, 64, 100.0)],
)  # fmt: skip
def test_the_stream_is_the_whole_sound(T, K, B, hop, low, sizes):
    c = controls(T, K, B, seed=T, low=low, high=4 * low)
    pieces = list(method.stream(cut(c, sizes), np.random.default_rng(7), hop))
    assert all(p.dtype == np.float32 and p.ndim == 1 for p in pieces)
    sound = np.concatenate(pieces)
    assert sound.shape == (T * hop,)
    noise = stream_noise(7, T * hop).astype(np.float64)
    expected = direct_sound(c, noise, hop)
    assert rms(sound - expected) < 1e-4 * rms(expected)
    assert np.abs(sound - expected).max() < 1e-3 * rms(expected)
    whole = method.synthesise(tensors(c), torch.from_numpy(noise), hop).numpy()
    assert rms(sound - whole) < 1e-4 * rms(whole)


def test_the_stream_at_another_rate_and_its_defaults():
    c = controls(20, 5, 9, low=100.0, high=3000.0)
    sound = np.concatenate(
        list(method.stream(cut(c, [4]), np.random.default_rng(0), 50, 8000))
    )
    expected = direct_sound(c, stream_noise(0, 1000), 50, 8000)
    assert rms(sound - expected) < 1e-4 * rms(expected)
    named = inspect.signature(method.stream).parameters
    assert (named["hop"].default, named["fs"].default) == (64, FS)


def test_a_streamed_minute_stays_in_phase():
    """The 30th harmonic errs by no more than is stated, wrapped after every block."""
    T, hop, K = 15_000, 64, 30
    f0 = np.rint(220 * 2 ** (np.sin(np.arange(T) / 7) / 24) * 1024) / 1024
    f = direct_interpolate(f0, hop)
    last = np.zeros((T, K))
    last[:, -1] = 1
    parts = f0, np.ones(T), last, np.zeros((T, 2))
    c = method.Controls(*(v.astype(np.float32) for v in parts))
    g = np.random.default_rng(0)
    result = np.concatenate(list(method.stream(cut(c, [64, 9]), g, hop)))
    wave = np.sin(2 * np.pi * K * exact_turns(f))
    turns = method.BLOCK * hop * f.max() / FS
    bound = 2 * np.pi * K * len(f) * (2.5 + turns) * 2.0**-53
    assert bound < 1.3e-6
    assert np.abs(result - wave).max() < bound + 2.0**-24
    carried = method._clenshaw(f0[:65], np.ones((65, 1)), 0.9, hop, FS)[1]
    assert carried == pytest.approx((0.9 + exact_turns(f)[64 * hop - 1]) % 1, abs=1e-12)


def test_the_stream_is_lazy_and_flat_in_memory():
    one = controls(64, 60, 65, low=200.0, high=300.0)
    endless = method.stream(itertools.repeat(one), np.random.default_rng(0))
    total = sum(len(piece) for piece in itertools.islice(endless, 3))
    assert total > 0
    peaks = []
    for seconds in (60, 240):
        blocks = itertools.repeat(one, seconds * FS // (64 * 64))
        tracemalloc.start()
        total = sum(len(p) for p in method.stream(blocks, np.random.default_rng(0)))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert total == seconds * FS // (64 * 64) * 64 * 64
    # One array kept of each of the 700 more blocks would be 20 MB.
    assert peaks[1] < peaks[0] + 2**20
    assert peaks[1] < 2**24


# Bad input


PITCHED = {  # what takes a pitch, as a function of f0 [6]
    "phase": lambda f: method.phase(torch.stack([torch.full_like(f, 9.0), f])),
    "steady_tones": lambda f: method.steady_tones(f, torch.ones(3), 64),
    "distribution": lambda f: method.distribution(torch.ones(6, 3).double(), f),
    "harmonic_bank": lambda f: method.harmonic_bank(f, torch.ones(6, 3).double(), 10),
    "synthesise": lambda f: method.synthesise(
        tensors(controls(6))._replace(f0=f), torch.ones(60).double(), 10
    ),
    "stream": lambda f: list(
        method.stream([controls(6)._replace(f0=f.numpy())], np.random.default_rng(0))
    ),
}


@pytest.mark.parametrize("name", PITCHED)
@pytest.mark.parametrize("bad", [0.0, -0.0, -3.0, math.nan, math.inf, -math.inf])
def test_a_pitch_that_is_no_pitch_is_named_with_its_frame(name, bad):
    f0 = torch.full((6,), 100.0, dtype=torch.float64)
    f0[4] = bad
    refused(rf"f0 is {bad:g} Hz at frame 4:.*positive", lambda: PITCHED[name](f0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_pitch_above_nyquist_passes_no_nan_back(dtype):
    f0 = torch.full((4,), 9000.0, dtype=dtype)
    weights = torch.ones(4, 3, dtype=dtype, requires_grad=True)
    d = method.distribution(weights, f0)
    assert (d == 0).all()
    (1000 * d).sum().backward()
    assert (weights.grad == 0).all()
    A = torch.ones(4, 3, dtype=dtype, requires_grad=True)
    method.harmonic_bank(f0, A, 10).sum().backward()
    assert (A.grad == 0).all()


def test_numbers_that_are_not_float_are_named():
    f, H = torch.full((4,), 100.0), torch.ones(4, 5)
    for dtype in (torch.int64, torch.int16, torch.bool, torch.float16, torch.complex64):
        one, ones = torch.ones(4).to(dtype), torch.ones(4, 5).to(dtype)
        calls = (
            lambda one=one: method.phase(one),
            lambda ones=ones: method.distribution(ones, f),
            lambda one=one: method.distribution(H, one),
            lambda ones=ones: method.upsample(ones, 8),
            lambda one=one: method.interpolate(one, 8),
            lambda ones=ones: method.harmonic_bank(f, ones, 8),
            lambda ones=ones: method.impulse_response(ones),
            lambda one=one: method.filter_noise(one, H),
            lambda ones=ones: method.filter_noise(f, ones),
            lambda one=one: method.reverb(one, f),
            lambda one=one: method.reverb(f, one),
            lambda one=one: method.spectral_loss(one, one, (4,)),
            lambda one=one: method.spectral_loss(f, one, (4,)),
            lambda one=one: method.loudness(one.repeat(100)),
            lambda one=one: method.steady_tones(one, f, 64),
            lambda one=one: method.steady_tones(f, one, 64),
        )
        for call in calls:
            refused(str(dtype), call)


def test_samples_that_do_not_fit_are_refused_in_one_sentence():
    x, H, f, nan = normal(100), uniform(7, 5), uniform(7, low=50.0), math.nan
    A, c = torch.ones(7, 3).double(), tensors(controls(7))
    bad = {
        r"100 samples .* 7 frames": lambda: method.filter_noise(x, H),
        r"1 band": lambda: method.filter_noise(x[:98], H[:, :1]),
        r"\[6\].*\[7, 3\]": lambda: method.harmonic_bank(f[:6], A, 10),
        r"100 samples of noise for 70": lambda: method.synthesise(c, x, 10),
        r"\[100\] and \[99\]": lambda: method.spectral_loss(x, x[1:]),
        r"\[0\]": lambda: method.spectral_loss(x[:0], x[:0]),
        r"^63 samples .* 64": lambda: method.loudness(x[:63]),
        r"rate 300 .* 16000": lambda: method.loudness(x, FS, 300),
        r"rate 0\b": lambda: method.loudness(x, FS, 0),
        r"rate -250": lambda: method.loudness(x, FS, -250),
        r"^samples hold NaN": lambda: method.loudness(x * nan),
        r"^samples hold NaN or inf": lambda: method.loudness(x * math.inf),
        r"pitches have the shape \[0\]": lambda: method.phase(f[:0]),
        r"\[0, 3\]": lambda: method.upsample(A[:0], 4),
        r"\[7\] and noise magnitudes \[14, 5\]": lambda: method.synthesise(
            c._replace(noise=uniform(14, 5)), normal(70), 10
        ),
        r"\[6\] and weights \[7, 3\]": lambda: method.distribution(A, f[:6]),
        r"\(64, 6\)": lambda: method.spectral_loss(x, x, (64, 6)),
        r"\(2,\)": lambda: method.spectral_loss(x, x, (2,)),
        r"^100 samples .* multiple of 64": lambda: method.steady_tones(f, f, 100),
    }
    for words, call in bad.items():
        refused(words, call)
    assert method.loudness(x[:64]).shape == (1,)
    assert method.spectral_loss(x * nan, x).isnan()
    # One filter for all of the noise is one frame.
    assert torch.equal(method.filter_noise(x, H[0]), method.filter_noise(x, H[:1]))


def test_blocks_that_do_not_fit_are_refused_in_one_sentence():
    c, g = controls(6), np.random.default_rng(0)
    bad = {
        r"\(5,\).*\(6, 9\)": [c._replace(f0=c.f0[:5])],
        r"\(6, 5\)": [c, c._replace(distribution=c.distribution[:, :5])],
        r"\(6, 8\)": [c, c._replace(noise=c.noise[:, :8])],
        r"\(6, 1\)": [c._replace(noise=c.noise[:, :1])],
        r"\(6, 0\)": [c._replace(distribution=c.distribution[:, :0])],
        r"\(0,\)": [method.Controls(*(v[:0] for v in c))],
        r"\(\)": [method.Controls(*(v[0] for v in c))],
        r"\(1, 6\)": [method.Controls(*(v[None] for v in c))],
        r"f0 is -1 Hz at frame 2\b": [
            c,
            c._replace(f0=np.float32([9, 9, -1, 9, 9, 9])),
        ],
    }
    for words, blocks in bad.items():
        refused(words, lambda blocks=blocks: list(method.stream(blocks, g)))


# The module as it presents itself


def test_the_lines_of_the_docstring_run():
    lines = [li.strip() for li in method.__doc__.splitlines() if li.startswith("    ")]
    assert len(lines) == 5
    names = dict(vars(method))
    exec("\n".join(lines), names)
    assert names["sound"].shape == (32_000,)
    assert int(torch.fft.rfft(names["sound"]).abs().argmax()) / 2 == 220  # Hz
