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
from drawn import normal, rng, uniform
from hypothesis import given, settings
from hypothesis import strategies as st
from refusing import refused
from scipy import optimize, signal, stats

from iclrtut.chapters.differentiable_dsp import CHAPTER, Settings
from iclrtut.chapters.differentiable_dsp import method as dd

FS = 16_000
GRID = 2**20  # f0 in multiples of 1/GRID Hz: its sums are exact
quickly = settings(deadline=None, max_examples=25, derandomize=True)
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


def direct_response(H, window=True):
    """(5) as a sum of cosines."""
    n = 2 * (len(H) - 1)
    m, j = np.arange(n) - n // 2, np.arange(len(H))
    twice = np.where((j == 0) | (j == n // 2), 1, 2)
    h = np.cos(2 * np.pi * np.outer(m, j) / n) @ (twice * H) / n
    return h * hann(n) if window else h


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


def a_curve(f):
    """IEC 61672 by its poles and zeros, 0 dB at 1 kHz."""
    once, twice = (107.65265, 737.86223), (20.598997, 12194.217)
    poles = [-2 * np.pi * p for p in once + twice + twice]
    w = 2 * np.pi * np.array([1000.0, *np.atleast_1d(f)])
    with np.errstate(divide="ignore"):
        dB = 20 * np.log10(np.abs(signal.freqs_zpk([0] * 4, poles, 1, w)[1]))
    return dB[1:] - dB[0]


def direct_loudness(x, fs=FS, rate=250):
    """(10), frame by frame."""
    weight = 10 ** (a_curve(np.arange(257) * fs / 512) / 10)
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
    made = f0, g.random(T), g.dirichlet(np.ones(K), T), g.random((T, B))
    return dd.Controls(*(v.astype(np.float32) for v in made))


def tensors(given, dtype=torch.float64):
    return dd.Controls(*(torch.from_numpy(np.array(v)).to(dtype) for v in given))


def cut(given, sizes):
    """Blocks of these sizes, over and over; the last is what is left."""
    ends = itertools.accumulate(itertools.cycle(sizes))
    inner = itertools.takewhile(lambda end: end < len(given.f0), ends)
    for low, high in itertools.pairwise([0, *inner, len(given.f0)]):
        yield dd.Controls(*(v[low:high] for v in given))


def draws(seed, count):
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
    found = dd.phase(torch.full((N,), f0, dtype=torch.float64))
    assert apart(found, turns) < 1e-11
    assert apart(found[:1], f0 / FS) < 1e-15


def test_a_linear_glide_is_the_integral_and_half_a_step_at_each_end():
    N, a, b = 8000, 110.0, 880.0
    t = np.arange(N) / FS
    slope = (b - a) / (N / FS)
    f0 = a + slope * t
    true = a * t + slope * t**2 / 2  # turns
    found = dd.phase(torch.from_numpy(f0))
    assert apart(found, true + (f0 + a) / (2 * FS)) < 1e-11
    assert apart(found, true) > 0.1


@quickly
@given(seeds, st.sampled_from([8000, 16_000, 44_100]))
def test_any_pitch_against_whole_numbers(seed, fs):
    f0 = on_grid(uniform(3000, seed=seed, low=1.0, high=fs / 2))
    found = dd.phase(torch.from_numpy(f0), fs)
    assert apart(found, exact_turns(f0, fs)) < 1e-9
    assert (found >= 0).all()
    assert (found < 2 * math.pi).all()


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
    found = dd.phase(torch.from_numpy(f0))
    assert apart(found, turns) < bound
    single = dd.phase(torch.from_numpy(f0).float())
    assert single.dtype == torch.float32
    ulp = 2.0**-21  # of a float32 in [4, 8)
    assert apart(single, turns) < bound + ulp
    assert (single >= 0).all()
    assert (single.numpy() <= np.float32(2 * np.pi)).all()
    naive = 2 * np.pi * np.cumsum(f0.astype(np.float32)) / np.float32(FS)
    assert abs(naive[-1] - 2 * np.pi * f0.sum() / FS) > 50  # what it guards against


def test_the_phase_has_the_slope_of_a_sum():
    f0 = uniform(50, low=100.0, high=900.0).requires_grad_()
    slope = torch.autograd.grad(dd.phase(f0).sum(), f0)[0]
    steps = 2 * math.pi / FS * torch.arange(50, 0, -1).double()
    assert torch.allclose(slope, steps, rtol=1e-13)


# Harmonics (2)


@quickly
@given(seeds, st.integers(1, 40), st.sampled_from([8000, 16_000]))
def test_shares_of_the_harmonics_below_nyquist(seed, K, fs):
    weights = uniform(12, K, seed=seed)
    f0 = uniform(12, seed=seed + 1, low=math.log(50), high=math.log(6000)).exp()
    found = dd.distribution(weights, f0, fs).numpy()
    for row, w, f in zip(found, weights.numpy(), f0.tolist(), strict=True):
        kept = np.array([w[k - 1] if k * f < fs / 2 else 0.0 for k in range(1, K + 1)])
        total = math.fsum(kept)
        assert np.allclose(row, kept / total if total else 0, rtol=1e-13, atol=0)
        assert row.sum() == pytest.approx(1 if total else 0, abs=1e-13)


def test_a_harmonic_at_nyquist_itself_is_removed():
    even = torch.ones(3, 4, dtype=torch.float64)
    found = dd.distribution(even, torch.tensor([2000.0, 4000.0, 8000.0]).double())
    third = 1 / 3
    expected = [[third, third, third, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert np.allclose(found, expected, atol=1e-15)
    nothing = dd.distribution(0 * even, torch.full((3,), 100.0).double())
    assert (nothing == 0).all()


def test_what_is_silent_has_a_finite_slope():
    weights = uniform(3, 4).requires_grad_()
    f0 = torch.tensor([100.0, 8000.0, 1e9], dtype=torch.float64)
    dd.distribution(weights, f0).square().sum().backward()
    assert torch.isfinite(weights.grad).all()
    zero = torch.zeros(2, 4, dtype=torch.float64, requires_grad=True)
    dd.distribution(zero, f0[:2]).square().sum().backward()
    assert torch.isfinite(zero.grad).all()


# Frames to samples (3)


@quickly
@given(seeds, st.integers(1, 7), st.integers(1, 30), st.integers(1, 3))
def test_windows_of_two_hops_and_straight_lines(seed, T, hop, C):
    frames = normal(T, C, seed=seed)
    found = dd.upsample(frames, hop)
    assert np.allclose(found, direct_upsample(frames.numpy(), hop), atol=1e-14)
    assert torch.allclose(found[::hop], frames, atol=1e-15, rtol=1e-15)
    assert torch.allclose(found[(T - 1) * hop :], frames[-1], atol=1e-15, rtol=1e-15)
    line = dd.interpolate(frames[:, 0], hop)
    assert np.allclose(line, direct_interpolate(frames[:, 0].numpy(), hop), atol=1e-14)
    assert torch.allclose(line[::hop], frames[:, 0], atol=1e-15, rtol=1e-15)
    flat = dd.upsample(torch.ones(T, C, dtype=torch.float64), hop)
    assert (flat - 1).abs().max() < 1e-15


def test_a_ramp_becomes_stairs():
    hop = 1000
    ramp = torch.arange(6, dtype=torch.float64)
    off = dd.upsample(ramp[:, None], hop)[:, 0] - dd.interpolate(ramp, hop)
    u = math.asin(2 / math.pi) / math.pi
    assert off[:-hop].min() == pytest.approx((1 - math.cos(math.pi * u)) / 2 - u, 1e-5)
    assert off.abs().max() == pytest.approx(0.105, abs=3e-4)
    assert int(off[:hop].argmin()) / hop == pytest.approx(u, abs=1e-3)
    assert u == pytest.approx(0.22, abs=1e-3)
    assert abs(signal.get_window("hann", 128, False)[:64].sum() / 32 - 1) > 1e-3


# Positive outputs (4)


def test_positive_by_numpy_and_its_numbers():
    x = torch.linspace(-30, 30, 601, dtype=torch.float64)
    p = math.log(10)
    formula = 2 * (1 / (1 + np.exp(-x.numpy()))) ** p + 1e-7
    assert np.allclose(dd.positive(x), formula, rtol=1e-13, atol=0)
    ends = dd.positive(torch.tensor([-1e5, 1e5], dtype=torch.float64))
    assert ends.tolist() == [1e-7, 2 + 1e-7]
    zero = torch.zeros((), dtype=torch.float64, requires_grad=True)
    at_zero = dd.positive(zero)
    assert at_zero.item() == pytest.approx(2 ** (1 - p) + 1e-7, rel=1e-13)
    assert at_zero.item() == pytest.approx(0.4054, abs=5e-5)
    slope = torch.autograd.grad(at_zero, zero)[0]
    assert slope == pytest.approx(p * 2**-p, rel=1e-12)
    assert slope == pytest.approx(0.4667, abs=5e-5)


def test_the_slope_of_log_positive_until_the_floor_takes_over():
    x = torch.linspace(-12, 6, 200, dtype=torch.float64, requires_grad=True)
    found = torch.autograd.grad(dd.positive(x).log().sum(), x)[0]
    p = math.log(10)
    formula = p * (1 - torch.sigmoid(x))
    assert torch.allclose(found[x > -1], formula[x > -1], rtol=1e-5)
    turn = torch.tensor(math.log(5e-8) / p, dtype=torch.float64, requires_grad=True)
    assert turn.item() == pytest.approx(-7.30, abs=0.005)
    half = torch.autograd.grad(dd.positive(turn).log(), turn)[0]
    assert half == pytest.approx(p / 2, rel=0.01)
    single = torch.tensor([-1e5, -50.0, 1e5], requires_grad=True)
    dd.positive(single).sum().backward()
    assert torch.isfinite(single.grad).all()


# Filters (5) and filtered noise (6), (7)


@quickly
@given(seeds, st.integers(2, 70))
def test_the_response_is_a_sum_of_cosines_exact_at_the_bins(seed, B):
    H = uniform(B, seed=seed)
    n, j = 2 * (B - 1), np.arange(B)
    for window in (False, True):
        h = dd.impulse_response(H, window).numpy()
        assert h.shape == (n,)
        assert np.allclose(h, direct_response(H.numpy(), window), atol=1e-14)
        _, at_bins = signal.freqz(h, worN=np.pi * j / (B - 1))
        centred = (at_bins * np.exp(1j * np.pi * j)).real
        left, right = H[np.abs(j - 1)], H[np.where(j == B - 1, B - 2, j + 1) % B]
        smooth = (left + 2 * H + right) / 4
        assert np.allclose(centred, smooth if window else H, atol=1e-13)
        assert np.abs((at_bins * np.exp(1j * np.pi * j)).imag).max() < 1e-13
    assert torch.equal(dd.impulse_response(H), dd.impulse_response(H, window=True))


def test_the_window_lowers_the_stopband_and_halves_a_lone_band():
    step = (torch.arange(65) < 32).double()
    lone = (torch.arange(65) == 20).double()
    w = np.linspace(0, np.pi, 4097)
    peaks = {}
    for window in (False, True):
        h = dd.impulse_response(step, window).numpy()
        dB = 20 * np.log10(np.abs(signal.freqz(h, worN=w)[1]) + 1e-12)
        peaks[window] = dB[w > np.pi * 34 / 64].max()
        top = np.abs(signal.freqz(dd.impulse_response(lone, window), worN=w)[1]).max()
        assert top == pytest.approx(0.5 if window else 1, abs=0.01)
    assert peaks[False] == pytest.approx(-25, abs=1)
    assert peaks[True] == pytest.approx(-50, abs=1)


@quickly
@given(seeds, st.integers(1, 6), st.integers(1, 40), st.sampled_from([2, 3, 9, 30]))
def test_each_frame_of_noise_by_direct_convolution(seed, T, hop, B):
    noise, H = normal(T * hop, seed=seed), uniform(T, B, seed=seed + 1)
    found = dd.filter_noise(noise, H).numpy()
    assert np.allclose(found, direct_noise(noise.numpy(), H.numpy()), atol=1e-13)


def test_a_sample_of_noise_is_heard_through_the_filter_of_its_own_frame():
    T, hop, B = 5, 6, 9
    n, N = 2 * (B - 1), T * hop
    x, H = normal(N).numpy(), uniform(T, B, seed=1).numpy()
    y = np.zeros(N)
    for m, i in itertools.product(range(N), range(N)):
        if 0 <= (lag := m - i + n // 2) < n:
            y[m] += direct_response(H[i // hop])[lag] * x[i]
    found = dd.filter_noise(torch.from_numpy(x), torch.from_numpy(H))
    assert np.allclose(found, y, atol=1e-14)


@pytest.mark.parametrize("hop, B", [(64, 65), (160, 33), (7, 65), (100, 2)])
def test_a_flat_filter_gives_the_noise_back_without_delay(hop, B):
    noise = normal(9 * hop)
    flat = dd.filter_noise(noise, torch.ones(9, B, dtype=torch.float64))
    assert torch.allclose(flat, noise, atol=1e-14)
    smooth = torch.linspace(1, 0, B, dtype=torch.float64).expand(9, B)
    if B > 2:
        passed = dd.filter_noise(noise, smooth).numpy()
        lags = np.correlate(passed, noise.numpy(), "full")
        assert lags.argmax() == len(noise) - 1
        sides = lags[lags.argmax() - 1], lags[lags.argmax() + 1]
        assert abs(sides[0] - sides[1]) < 0.05 * lags.max()  # no part of a sample


def test_the_noise_is_white_uniform_and_its_generator_s():
    drawn = dd.white((1000, 1000), rng(3))
    assert drawn.shape == (1000, 1000)
    assert drawn.dtype == torch.float32
    assert (drawn >= -1).all()
    assert (drawn < 1).all()
    x = drawn.double().flatten()
    assert x.mean().abs() < 5 * math.sqrt(1 / 3e6)
    assert x.square().mean() == pytest.approx(1 / 3, abs=5 * math.sqrt(4 / 45e6))
    assert (x[1:] * x[:-1]).mean().abs() < 5e-3 / 3
    spread = stats.kstest(x[:20_000].numpy(), stats.uniform(-1, 2).cdf)
    assert spread.pvalue > 1e-3
    assert torch.equal(drawn, dd.white((1000, 1000), rng(3)))
    g = rng(3)
    assert not torch.equal(*(dd.white((50,), g) for _ in range(2)))
    assert not torch.equal(drawn[0], dd.white((1000,), rng(4)))


def test_filtered_noise_has_a_third_of_the_filter_s_power():
    """The mean periodogram of 200 pieces against its exact expectation."""
    M, count, B = 512, 200, 65
    n = 2 * (B - 1)
    H = torch.linspace(0, 3, B, dtype=torch.float64).cos() + 1.2
    T = count * (M + n) // 64
    noise = dd.white((T * 64,), rng(0)).double()
    y = dd.filter_noise(noise, H.expand(T, B)).numpy()
    w, h = hann(M), direct_response(H.numpy())
    pieces = y.reshape(count, M + n)[:, :M] * w
    power = np.mean(np.abs(np.fft.rfft(pieces)) ** 2, 0)
    lags = np.arange(-n + 1, n)
    r = np.correlate(h, h, "full") * np.correlate(w, w, "full")[lags + M - 1]
    bins = np.arange(2, M // 2 - 1)
    expected = np.cos(2 * np.pi * np.outer(bins, lags) / M) @ r / 3
    ratio = power[bins] / expected
    assert ratio.mean() == pytest.approx(1, abs=0.02)
    assert np.std((ratio - 1) * math.sqrt(count)) == pytest.approx(1, abs=0.2)
    at_bins = np.abs(np.fft.rfft(h, M)) ** 2 / 3 * (w**2).sum()
    assert np.allclose(expected, at_bins[bins], rtol=0.02)


# Reverb (8)


@quickly
@given(seeds, st.integers(1, 300), st.integers(1, 300))
def test_reverb_is_convolution(seed, N, R):
    x, h = normal(N, seed=seed), normal(R, seed=seed + 1)
    found = dd.reverb(x, h).numpy()
    expected = np.convolve(x.numpy(), h.numpy())[:N]
    assert found.shape == (N,)
    assert np.allclose(found, expected, atol=1e-12)
    by_scipy = signal.fftconvolve(x.numpy(), h.numpy())[:N]
    assert np.allclose(found, by_scipy, atol=1e-12)


def test_reverb_of_a_batch_and_the_samples_that_padding_saves():
    x, h = normal(2, 3, 200), normal(3, 200, seed=1)
    for response in (h, h[1]):
        found = dd.reverb(x, response)
        assert found.shape == x.shape
        for i, j in itertools.product(range(2), range(3)):
            here = (response if response.dim() == 1 else response[j]).numpy()
            expected = signal.convolve(x[i, j].numpy(), here, method="direct")[:200]
            assert np.allclose(found[i, j], expected, atol=1e-12)
    around = np.fft.irfft(np.fft.rfft(x[0, 0]) * np.fft.rfft(h[1]))
    assert not np.allclose(dd.reverb(x, h[1])[0, 0, :199], around[:199])


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
    for sizes in (dd.SIZES, (128,)):
        found = dd.spectral_loss(x, y, sizes, *weights)
        expected = direct_loss(x.numpy(), y.numpy(), sizes, *weights)
        assert found.shape == ()
        assert found.item() == pytest.approx(expected, rel=1e-10)
    by_default = dd.spectral_loss(x, y)
    assert by_default == pytest.approx(dd.spectral_loss(x, y, dd.SIZES, 1, 1).item())
    assert dd.SIZES == (2048, 1024, 512, 256, 128, 64)


def test_the_loss_is_zero_for_a_turned_sign_alone():
    x = normal(3000)
    assert dd.spectral_loss(x, x) == 0
    assert dd.spectral_loss(x, -x) == 0
    assert dd.spectral_loss(x, x + 1e-6 * normal(3000, seed=1)) > 0
    others = 0.9 * x, x.flip(0), x.roll(1), normal(3000, seed=1)
    losses = [dd.spectral_loss(x, other).item() for other in others]
    assert min(losses) > 0.05
    back = [dd.spectral_loss(other, x).item() for other in others]
    assert losses == pytest.approx(back, rel=1e-12)


def test_the_loss_of_a_batch_is_the_mean():
    x, y = normal(2, 3, 1000), normal(2, 3, 1000, seed=1)
    each = [
        dd.spectral_loss(a, b)
        for a, b in zip(x.view(6, -1), y.view(6, -1), strict=True)
    ]
    assert dd.spectral_loss(x, y) == pytest.approx(float(sum(each)) / 6, rel=1e-12)
    to_one = [dd.spectral_loss(a, y[0, 0]) for a in x.view(6, -1)]
    expected = pytest.approx(float(sum(to_one)) / 6, rel=1e-12)
    assert dd.spectral_loss(x, y[0, 0]).item() == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_silence_has_a_finite_loss_and_slope(dtype):
    silence = torch.zeros(3000, dtype=dtype)
    noise = normal(3000).to(dtype)
    for x, y in ((silence, silence), (silence, noise), (noise, silence)):
        x = x.clone().requires_grad_()
        loss = dd.spectral_loss(x, y)
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(x.grad).all()


def test_short_windows_hear_phase():
    """Random phases, true amplitudes: the lower the pitch, the dearer."""
    t, costs = torch.arange(FS // 2, dtype=torch.float64) / FS, []
    for f0 in (110, 220, 440):
        k = torch.arange(1, 8000 // f0).double()
        turn = 2 * math.pi * uniform(2, len(k), 1, seed=f0)
        waves = (2 * math.pi * f0 * k[:, None] * t + turn).sin() / k[:, None]
        costs.append(dd.spectral_loss(*(waves.sum(1) * 0.3)).item())
    assert costs[0] > 1.3 * costs[1] > 1.3**2 * costs[2] > 0


def test_the_loss_points_home_for_amplitudes():
    T, K = 40, 30
    f0, k = torch.full((T,), 220.0).double(), torch.arange(1, K + 1)
    right = []
    for seed in range(8):
        true = uniform(K, seed=seed, low=0.2) / k
        off = uniform(K, seed=99 + seed, low=-math.log(4), high=math.log(4))
        off.requires_grad_()
        sound, aim = (
            dd.harmonic_bank(f0, A.expand(T, K), 160) for A in (true * off.exp(), true)
        )
        slope = torch.autograd.grad(dd.spectral_loss(sound, aim), off)[0]
        right.append((slope.sign() == off.sign()).double().mean().item())
    assert np.mean(right) > 0.98


def test_the_loss_prefers_less_noise_than_there_is():
    """(a) noise alone: the linear term wants 0.766 of it, the logarithms all of it."""
    x, y = (dd.white((80_000,), rng(seed)).double() for seed in (1, 2))
    for linear, log, best in ((1, 0, math.sqrt(2 ** (2 / 3) - 1)), (0, 1, 1.0)):
        found = optimize.minimize_scalar(
            lambda s, w=(linear, log): dd.spectral_loss(s * x, y, (512,), *w).item(),
            bounds=(0.5, 1.5),
            method="bounded",
            options={"xatol": 1e-3},
        )
        assert found.x == pytest.approx(best, abs=0.015)


def test_beside_sinusoids_the_loss_silences_the_noise():
    """(b) the loss grows as sqrt(1 + s^2) where a sinusoid stands in every bin."""
    t, k = torch.arange(40_000).double() / FS, torch.arange(1, 128)
    turn = 2 * math.pi * uniform(127, 1, seed=5)
    sines = (2 * math.pi * 62.5 * k[:, None] * t + turn).sin().sum(0)
    x, y = (1e-2 * dd.white((40_000,), rng(seed)).double() for seed in (1, 2))
    losses = [
        dd.spectral_loss(sines + s * x, sines + y, (512,), log=0).item()
        for s in (0, 0.5, 1)
    ]
    ratios = [loss / losses[0] for loss in losses]
    assert ratios == pytest.approx([1, math.sqrt(1.25), math.sqrt(2)], rel=0.03)


# Loudness (10)


def test_a_weighting_by_its_poles_and_by_its_numbers():
    f = torch.tensor([100.0, 1000.0, 10_000.0], dtype=torch.float64)
    assert dd.a_weighting(f).numpy() == pytest.approx([-19.14, 0.0, -2.49], abs=5e-3)
    f = torch.logspace(0, 5, 300, dtype=torch.float64)
    found = dd.a_weighting(f).numpy()
    assert np.allclose(found, librosa.A_weighting(f.numpy(), min_db=None), atol=1e-9)
    at_1k = dd.a_weighting(torch.tensor([1000.0]).double()).item()
    assert np.allclose(found - at_1k, a_curve(f.numpy()), atol=1e-9)
    assert 0 < at_1k < 5e-4  # the standard's 2.00 dB is rounded
    assert not dd.a_weighting(torch.zeros(1)).isnan().any()


@pytest.mark.parametrize(
    "fs, rate", [(16_000, 250), (16_000, 100), (16_000, 10), (44_100, 100)]
)
def test_loudness_frame_by_frame(fs, rate):
    x = normal(2, 3000, scale=0.3) * torch.linspace(0, 1, 3000).double() ** 2
    found = dd.loudness(x, fs, rate)
    assert found.shape == (2, 3000 * rate // fs)
    for row, samples in zip(found, x.numpy(), strict=True):
        assert np.allclose(row, direct_loudness(samples, fs, rate), atol=1e-3)
    silence = dd.loudness(torch.zeros(1000))
    assert silence.tolist() == [-80.0] * (1000 * 250 // FS)


def test_loudness_of_a_sine_of_noise_and_of_nothing():
    t = torch.arange(FS, dtype=torch.float64) / FS
    sine = dd.loudness((2 * math.pi * 1000 * t).sin())[5:-5]
    w = hann(512)
    expected = 10 * math.log10(512 * (w**2).sum() / 4 / 257)
    assert expected == pytest.approx(19.8, abs=0.05)
    assert (sine - expected).abs().max() < 0.05
    noise = dd.white((60 * FS,), rng(1)).double()
    power = 10 ** (a_curve(np.arange(257) * FS / 512) / 10)
    level = 10 * math.log10((w**2).sum() / 3 * power.mean())
    assert level == pytest.approx(18.2, abs=0.05)
    mean = 10 * (10 ** (dd.loudness(noise)[5:-5] / 10)).mean().log10()
    assert mean == pytest.approx(level, abs=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_loudness_has_a_finite_slope_at_silence(dtype):
    x = torch.zeros(2000, dtype=dtype, requires_grad=True)
    dd.loudness(x).sum().backward()
    assert torch.isfinite(x.grad).all()


# Synthesis


@quickly
@given(seeds, st.integers(1, 8), st.integers(1, 25), st.integers(1, 12))
def test_the_bank_is_a_sum_of_sines(seed, T, hop, K):
    c = controls(T, K, seed=seed)
    f0, A = (
        v.astype(np.float64) for v in (c.f0, c.amplitude[:, None] * c.distribution)
    )
    found = dd.harmonic_bank(torch.from_numpy(f0), torch.from_numpy(A), hop)
    assert found.shape == (T * hop,)
    assert np.allclose(found, direct_bank(f0, A, hop), atol=1e-10)


@pytest.mark.parametrize("kind", ["vibrato", "octaves", "constant"])
def test_no_sample_of_a_harmonic_lies_above_nyquist(kind):
    hop, K, T = 160, 60, 200
    j = np.arange(T)
    f0 = {
        "vibrato": 440 * 2 ** (np.sin(2 * np.pi * 5.5 * j / 100) / 24),
        "octaves": np.where(j // 10 % 2, 880.0, 440.0),
        "constant": np.full(T, 440.0),
    }[kind]
    d = dd.distribution(
        1 / torch.arange(1, K + 1).double().expand(T, K), torch.tensor(f0)
    )
    assert torch.allclose(d.sum(1), torch.ones(T).double(), atol=1e-14)
    f, A = direct_interpolate(f0, hop), direct_upsample(d.numpy(), hop)
    phi = 2 * np.pi * np.cumsum(f) / FS
    wrong = np.zeros((2, T * hop))  # below and above Nyquist
    for k in range(1, K + 1):
        above = k * f >= FS / 2
        part = A[:, k - 1] * np.sin(k * phi)
        wrong[0] += np.where(above, 0, part)
        wrong[1] += np.where(above, part, 0)
        if k % 4 and not (above.any() and part[above].any()):
            continue
        alone = torch.zeros(T, K, dtype=torch.float64)
        alone[:, k - 1] = d[:, k - 1]
        found = dd.harmonic_bank(torch.tensor(f0), alone, hop).numpy()
        assert (found[above] == 0).all()
        assert np.allclose(found[~above], part[~above], atol=1e-9)
    if kind == "constant":
        assert (wrong[1] == 0).all()
    else:  # what removing at the frames alone would leave
        dB = 20 * math.log10(rms(wrong[1]) / rms(wrong[0]))
        assert dB == pytest.approx({"vibrato": -46, "octaves": -35}[kind], abs=2)


def test_removal_before_the_shares_keeps_the_level():
    """Removed only at the samples, 60 harmonics 1/k at 1,010 Hz lose 5.1 dB."""
    k = torch.arange(1, 61).double()
    f0 = torch.full((100,), 1010.0, dtype=torch.float64)
    found = dd.harmonic_bank(f0, dd.distribution((1 / k).expand(100, 60), f0), 160)
    kept = (1 / k)[k * 1010 < 8000]
    assert rms(found) == pytest.approx(float((kept / kept.sum()).norm()) / 2**0.5, 1e-3)
    lost = 20 * math.log10(float(kept.sum() / (1 / k).sum()))
    assert lost == pytest.approx(-5.1, abs=0.05)


def test_a_pitch_above_nyquist_is_silence():
    f0 = torch.full((6,), 9000.0, dtype=torch.float64)
    assert (dd.harmonic_bank(f0, torch.ones(6, 3).double(), 10) == 0).all()
    c = controls(6, low=8000.0, high=20_000.0)._replace(noise=np.zeros((6, 9)))
    sound = dd.synthesise(tensors(c), torch.ones(60).double(), 10)
    assert (sound == 0).all()
    assert (
        np.concatenate(list(dd.stream(cut(c, [2]), np.random.default_rng(0)))) == 0
    ).all()


@quickly
@given(
    seeds, st.integers(1, 6), st.sampled_from([1, 10, 64]), st.sampled_from([2, 9, 65])
)
def test_synthesis_is_the_bank_and_the_noise(seed, T, hop, B):
    c, noise = controls(T, 5, B, seed=seed), normal(T * hop, seed=seed)
    found = dd.synthesise(tensors(c), noise, hop)
    assert np.allclose(found, direct_sound(c, noise.numpy(), hop), atol=1e-10)
    at_8k = dd.synthesise(tensors(c), noise, hop, 8000)
    assert np.allclose(at_8k, direct_sound(c, noise.numpy(), hop, 8000), atol=1e-10)


# Every differentiable function


PARTS = {  # function of tensors, their shapes
    "phase": (lambda f: dd.phase(1 + f / 4, 10), [(30,)]),
    "distribution": (
        lambda w, f: dd.distribution(w + 0.1, 100 + f, 1000),
        [(4, 6), (4,)],
    ),
    "upsample": (lambda x: dd.upsample(x, 6), [(4, 2)]),
    "interpolate": (lambda x: dd.interpolate(x + 1, 6), [(4,)]),
    "positive": (dd.positive, [(9,)]),
    "impulse_response": (dd.impulse_response, [(9,)]),
    "no window": (lambda H: dd.impulse_response(H, False), [(9,)]),
    "filter_noise": (dd.filter_noise, [(20,), (4, 5)]),
    "reverb": (dd.reverb, [(12,), (12,)]),
    "loudness": (lambda x: dd.loudness(x, 16_000, 250), [(700,)]),
    "harmonic_bank": (
        lambda f, A: dd.harmonic_bank(30 + f, A, 7, fs=1000),
        [(4,), (4, 3)],
    ),
    "synthesise": (
        lambda f, A, d, H, x: dd.synthesise(dd.Controls(30 + f, A, d, H), x, 5, 1000),
        [(4,), (4,), (4, 3), (4, 5), (20,)],
    ),
    "spectral_loss": (lambda x, y: dd.spectral_loss(x, y + 1, (16, 8)), [(40,), (40,)]),
}  # fmt: skip


def inputs(shapes, *lead):
    return [uniform(*lead, *shape, seed=i) for i, shape in enumerate(shapes)]


@pytest.mark.parametrize("name", PARTS)
def test_slopes_by_differences(name):
    call, shapes = PARTS[name]
    given = [x.requires_grad_() for x in inputs(shapes)]
    assert torch.autograd.gradcheck(call, given, fast_mode=name == "loudness")


@pytest.mark.parametrize("name", [name for name in PARTS if name != "spectral_loss"])
def test_a_batch_gives_what_its_members_give(name):
    call, shapes = PARTS[name]
    given = inputs(shapes, 2, 3)
    found = call(*given)
    for i, j in itertools.product(range(2), range(3)):
        alone = call(*(x[i, j] for x in given))
        assert found[i, j].shape == alone.shape
        assert torch.allclose(found[i, j], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", PARTS)
def test_dtypes_are_kept_and_inputs_left_alone(name):
    call, shapes = PARTS[name]
    given = inputs(shapes)
    before = [x.clone() for x in given]
    double, single = call(*given), call(*(x.float() for x in given))
    assert double.dtype == torch.float64
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), double, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True))


def test_a_pitch_of_another_dtype_than_the_amplitudes():
    f0, A = uniform(5, low=100.0, high=200.0), uniform(5, 3)
    double = dd.harmonic_bank(f0, A, 20)
    for found in (
        dd.harmonic_bank(f0.float(), A, 20),
        dd.harmonic_bank(f0, A.float(), 20),
    ):
        assert torch.allclose(found.double(), double, atol=1e-5)


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
    pieces = list(dd.stream(cut(c, sizes), np.random.default_rng(7), hop))
    assert all(p.dtype == np.float32 and p.ndim == 1 for p in pieces)
    sound = np.concatenate(pieces)
    assert sound.shape == (T * hop,)
    noise = draws(7, T * hop).astype(np.float64)
    expected = direct_sound(c, noise, hop)
    assert rms(sound - expected) < 1e-4 * rms(expected)
    assert np.abs(sound - expected).max() < 1e-3 * rms(expected)
    whole = dd.synthesise(tensors(c), torch.from_numpy(noise), hop).numpy()
    assert rms(sound - whole) < 1e-4 * rms(whole)


def test_the_stream_at_another_rate_and_its_defaults():
    c = controls(20, 5, 9, low=100.0, high=3000.0)
    sound = np.concatenate(
        list(dd.stream(cut(c, [4]), np.random.default_rng(0), 50, 8000))
    )
    expected = direct_sound(c, draws(0, 1000), 50, 8000)
    assert rms(sound - expected) < 1e-4 * rms(expected)
    named = inspect.signature(dd.stream).parameters
    assert (named["hop"].default, named["fs"].default) == (64, FS)


def test_a_streamed_minute_stays_in_phase():
    """The 30th harmonic errs by no more than is stated, wrapped after every block."""
    T, hop, K = 15_000, 64, 30
    f0 = np.rint(220 * 2 ** (np.sin(np.arange(T) / 7) / 24) * 1024) / 1024
    f = direct_interpolate(f0, hop)
    last = np.zeros((T, K))
    last[:, -1] = 1
    parts = f0, np.ones(T), last, np.zeros((T, 2))
    c = dd.Controls(*(v.astype(np.float32) for v in parts))
    g = np.random.default_rng(0)
    found = np.concatenate(list(dd.stream(cut(c, [64, 9]), g, hop)))
    wave = np.sin(2 * np.pi * K * exact_turns(f))
    turns = dd.BLOCK * hop * f.max() / FS
    bound = 2 * np.pi * K * len(f) * (2.5 + turns) * 2.0**-53
    assert bound < 1.3e-6
    assert np.abs(found - wave).max() < bound + 2.0**-24
    carried = dd._clenshaw(f0[:65], np.ones((65, 1)), 0.9, hop, FS)[1]
    assert carried == pytest.approx((0.9 + exact_turns(f)[64 * hop - 1]) % 1, abs=1e-12)


def test_the_stream_is_lazy_and_flat_in_memory():
    one = controls(64, 60, 65, low=200.0, high=300.0)
    endless = dd.stream(itertools.repeat(one), np.random.default_rng(0))
    heard = sum(len(piece) for piece in itertools.islice(endless, 3))
    assert heard > 0
    peaks = []
    for seconds in (60, 240):
        blocks = itertools.repeat(one, seconds * FS // (64 * 64))
        tracemalloc.start()
        heard = sum(len(p) for p in dd.stream(blocks, np.random.default_rng(0)))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert heard == seconds * FS // (64 * 64) * 64 * 64
    # One array kept of each of the 700 more blocks would be 20 MB.
    assert peaks[1] < peaks[0] + 2**20
    assert peaks[1] < 2**24


def test_two_streams_do_not_know_of_each_other():
    made = [controls(30, seed=s, low=100.0, high=500.0) for s in (1, 2)]
    alone = [
        np.concatenate(list(dd.stream(cut(c, [4]), np.random.default_rng(s))))
        for s, c in enumerate(made)
    ]
    before = [[v.copy() for v in c] for c in made]
    running = [
        dd.stream(cut(c, [4]), np.random.default_rng(s)) for s, c in enumerate(made)
    ]
    heard = list(itertools.zip_longest(*running))
    for s in range(2):
        together = np.concatenate([p[s] for p in heard if p[s] is not None])
        assert np.array_equal(together, alone[s])
    assert all(
        np.array_equal(a, b)
        for c, kept in zip(made, before, strict=True)
        for a, b in zip(c, kept, strict=True)
    )
    assert list(dd.stream([], np.random.default_rng(0))) == []


# A reader's own recording


def tone(rate, f=440.0, seconds=1.0, level=0.5):
    return level * np.sin(2 * np.pi * f * np.arange(int(rate * seconds)) / rate)


def heard(x, fs=FS):
    """Pitch and amplitude of a sine, by the peak of a long spectrum."""
    x = np.asarray(x, np.float64)[200:-200]
    w = signal.get_window("hann", len(x))
    spectrum = np.abs(np.fft.rfft(x * w, 2**19))
    return spectrum.argmax() * fs / 2**19, 2 * spectrum.max() / w.sum()


@pytest.mark.parametrize("rate", [8000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000])
def test_a_sine_stays_a_sine_at_any_rate(rate):
    found = dd.mono(tone(rate), rate)
    assert found.dtype == torch.float32
    assert found.shape == (FS,)
    pitch, level = heard(found)
    assert pitch == pytest.approx(440, abs=0.1)
    assert level == pytest.approx(0.5, rel=0.01)
    t = np.arange(FS) / FS
    off = found.numpy() - 0.5 * np.sin(2 * np.pi * 440 * t)
    assert np.abs(off[400:-400]).max() < 0.005  # no delay either


def test_what_lies_above_nyquist_does_not_come_back_as_an_alias():
    found = dd.mono(tone(44_100, 11_000.0), 44_100)
    assert rms(found[400:-400]) < 0.5 * 1e-2
    assert rms(dd.mono(tone(44_100, 6000.0), 44_100)) == pytest.approx(0.354, rel=0.03)
    other = dd.mono(tone(16_000), 16_000, 8000)
    assert heard(other, 8000)[0] == pytest.approx(440, abs=0.1)


def test_channels_are_averaged_whichever_way_round():
    left, right = tone(FS, 300.0), tone(FS, 700.0)
    expected = ((left + right) / 2).astype(np.float32)
    for both in (np.stack([left, right]), np.stack([left, right], 1)):
        assert np.allclose(dd.mono(both, FS), expected, atol=1e-6)
    five = np.stack([left, left, right, 0 * left, 0 * left])
    mean = (2 * left + right) / 5
    assert np.allclose(dd.mono(five.T, FS), mean, atol=1e-6)
    for one in (left[None], left[:, None], left):
        assert np.allclose(dd.mono(one, FS), left, atol=1e-6)


def test_whole_numbers_are_scaled_by_their_range():
    wave = tone(FS, level=0.7)
    kinds = {
        np.int16: (wave * 2**15, 2**-15),
        np.int32: (wave * 2**31, 2**-24),
        np.uint8: (wave * 2**7 + 2**7, 2**-7),
        np.float32: (wave, 1e-7),
        np.float64: (wave, 1e-7),
    }
    for dtype, (samples, step) in kinds.items():
        found = dd.mono(
            np.round(samples).astype(dtype) if step > 1e-7 else samples.astype(dtype),
            FS,
        )
        assert found.dtype == torch.float32
        assert np.abs(found.numpy() - wave).max() <= step + 1e-7
    both = np.stack([wave, wave], 1) * 2**15
    assert np.abs(dd.mono(both.astype(np.int16), FS).numpy() - wave).max() < 2**-14
    ends = dd.mono(np.array([-(2**15), 0, 2**14], np.int16), FS)
    assert ends.tolist() == [-1, 0, 0.5]
    ends = dd.mono(np.array([0, 128, 192], np.uint8), FS)
    assert ends.tolist() == [-1, 0, 0.5]
    ends = dd.mono(np.array([-(2**31), 0, 2**30], np.int32), FS)
    assert ends.tolist() == [-1, 0, 0.5]


def test_an_odd_rate_and_a_short_recording():
    assert dd.mono(tone(44_099), 44_099).shape == (FS,)
    assert dd.mono([0.25], 48_000).shape == (1,)
    assert dd.mono([0.25, 0.5], FS).tolist() == [0.25, 0.5]
    kept = tone(FS)
    before = kept.copy()
    dd.mono(kept, FS)
    assert np.array_equal(kept, before)


# Bad input


SINGERS = {  # what takes a pitch, as a function of f0 [6]
    "phase": lambda f: dd.phase(f),
    "distribution": lambda f: dd.distribution(torch.ones(6, 3).double(), f),
    "harmonic_bank": lambda f: dd.harmonic_bank(f, torch.ones(6, 3).double(), 10),
    "synthesise": lambda f: dd.synthesise(
        tensors(controls(6))._replace(f0=f), torch.ones(60).double(), 10
    ),
    "stream": lambda f: list(
        dd.stream([controls(6)._replace(f0=f.numpy())], np.random.default_rng(0))
    ),
}


@pytest.mark.parametrize("name", SINGERS)
@pytest.mark.parametrize("bad", [0.0, -0.0, -3.0, math.nan, math.inf, -math.inf])
def test_a_pitch_that_is_no_pitch_is_named_with_its_frame(name, bad):
    f0 = torch.full((6,), 100.0, dtype=torch.float64)
    f0[4] = bad
    refused(rf"f0 is {bad:g} Hz at frame 4:.*positive", lambda: SINGERS[name](f0))


def test_the_frame_of_a_batch_and_the_first_of_many():
    f0 = torch.full((2, 6), 100.0)
    f0[1, 3:] = -1.5
    refused(r"f0 is -1.5 Hz at frame 3:", lambda: dd.phase(f0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_pitch_above_nyquist_passes_no_nan_back(dtype):
    f0 = torch.full((4,), 9000.0, dtype=dtype)
    weights = torch.ones(4, 3, dtype=dtype, requires_grad=True)
    d = dd.distribution(weights, f0)
    assert (d == 0).all()
    (1000 * d).sum().backward()
    assert (weights.grad == 0).all()
    A = torch.ones(4, 3, dtype=dtype, requires_grad=True)
    dd.harmonic_bank(f0, A, 10).sum().backward()
    assert (A.grad == 0).all()


def test_numbers_that_are_not_float_are_named():
    f, H = torch.full((4,), 100.0), torch.ones(4, 5)
    for dtype in (torch.int64, torch.int16, torch.bool, torch.float16, torch.complex64):
        one, ones = torch.ones(4).to(dtype), torch.ones(4, 5).to(dtype)
        calls = (
            lambda one=one: dd.phase(one),
            lambda ones=ones: dd.distribution(ones, f),
            lambda one=one: dd.distribution(H, one),
            lambda ones=ones: dd.upsample(ones, 8),
            lambda one=one: dd.interpolate(one, 8),
            lambda ones=ones: dd.harmonic_bank(f, ones, 8),
            lambda ones=ones: dd.impulse_response(ones),
            lambda one=one: dd.filter_noise(one, H),
            lambda ones=ones: dd.filter_noise(f, ones),
            lambda one=one: dd.reverb(one, f),
            lambda one=one: dd.reverb(f, one),
            lambda one=one: dd.spectral_loss(one, one, (4,)),
            lambda one=one: dd.spectral_loss(f, one, (4,)),
            lambda one=one: dd.loudness(one.repeat(100)),
            lambda one=one: dd.a_weighting(one),
        )
        for call in calls:
            refused(str(dtype), call)


def test_samples_that_do_not_fit_are_told_in_one_sentence():
    x, H, f, nan = normal(100), uniform(7, 5), uniform(7, low=50.0), math.nan
    A, c = torch.ones(7, 3).double(), tensors(controls(7))
    bad = {
        r"100 samples .* 7 frames": lambda: dd.filter_noise(x, H),
        r"1 band": lambda: dd.filter_noise(x[:98], H[:, :1]),
        r"\[6\].*\[7, 3\]": lambda: dd.harmonic_bank(f[:6], A, 10),
        r"100 samples of noise for 70": lambda: dd.synthesise(c, x, 10),
        r"\[100\] and \[99\]": lambda: dd.spectral_loss(x, x[1:]),
        r"\[0\]": lambda: dd.spectral_loss(x[:0], x[:0]),
        r"^63 samples .* 64": lambda: dd.loudness(x[:63]),
        r"rate 300 .* 16000": lambda: dd.loudness(x, FS, 300),
        r"rate 0\b": lambda: dd.loudness(x, FS, 0),
        r"rate -250": lambda: dd.loudness(x, FS, -250),
        r"^samples hold NaN": lambda: dd.loudness(x * nan),
        r"^samples hold NaN or inf": lambda: dd.loudness(x * math.inf),
        r"pitches have the shape \[0\]": lambda: dd.phase(f[:0]),
        r"\[0, 3\]": lambda: dd.upsample(A[:0], 4),
        r"\[7\] and noise magnitudes \[14, 5\]": lambda: dd.synthesise(
            c._replace(noise=uniform(14, 5)), normal(70), 10
        ),
        r"\[6\] and weights \[7, 3\]": lambda: dd.distribution(A, f[:6]),
        r"\(64, 6\)": lambda: dd.spectral_loss(x, x, (64, 6)),
        r"\(2,\)": lambda: dd.spectral_loss(x, x, (2,)),
    }
    for words, call in bad.items():
        refused(words, call)
    assert dd.loudness(x[:64]).shape == (1,)
    assert dd.spectral_loss(x * nan, x).isnan()
    # One filter for all of the noise is one frame.
    assert torch.equal(dd.filter_noise(x, H[0]), dd.filter_noise(x, H[:1]))


def test_blocks_that_do_not_fit_are_told_in_one_sentence():
    c, g = controls(6), np.random.default_rng(0)
    bad = {
        r"\(5,\).*\(6, 9\)": [c._replace(f0=c.f0[:5])],
        r"\(6, 5\)": [c, c._replace(distribution=c.distribution[:, :5])],
        r"\(6, 8\)": [c, c._replace(noise=c.noise[:, :8])],
        r"\(6, 1\)": [c._replace(noise=c.noise[:, :1])],
        r"\(6, 0\)": [c._replace(distribution=c.distribution[:, :0])],
        r"\(0,\)": [dd.Controls(*(v[:0] for v in c))],
        r"\(\)": [dd.Controls(*(v[0] for v in c))],
        r"\(1, 6\)": [dd.Controls(*(v[None] for v in c))],
        r"f0 is -1 Hz at frame 2\b": [
            c,
            c._replace(f0=np.float32([9, 9, -1, 9, 9, 9])),
        ],
    }
    for words, blocks in bad.items():
        refused(words, lambda blocks=blocks: list(dd.stream(blocks, g)))


def test_recordings_that_are_none_are_told_in_one_sentence():
    x = tone(FS)
    gap = x.copy()
    gap[3] = math.nan
    bad = {
        r"\(0,\)": lambda: dd.mono([], FS),
        r"\(0, 2\)": lambda: dd.mono(np.zeros((0, 2)), FS),
        r"\(\)": lambda: dd.mono(0.5, FS),
        r"\(2, 2, 100\)": lambda: dd.mono(np.zeros((2, 2, 100)), FS),
        r"\(9, 100\)": lambda: dd.mono(np.zeros((9, 100)), FS),
        r"hold NaN": lambda: dd.mono(gap, FS),
        r"hold NaN or inf": lambda: dd.mono(np.stack([x, 0 * x + math.inf]), FS),
        r"complex128": lambda: dd.mono(x * 1j, FS),
        r"bool": lambda: dd.mono(x > 0, FS),
        r"int64": lambda: dd.mono([0, 1000, -1000], FS),
        r"uint64": lambda: dd.mono(np.zeros((2, 50), np.uint64), FS),
        r"rate is 0:": lambda: dd.mono(x, 0),
        r"rate is -8000:": lambda: dd.mono(x, -8000),
        r"rate is 0.5:": lambda: dd.mono(x, 0.5),
        r"rate is nan:": lambda: dd.mono(x, math.nan),
        r"rate is inf:": lambda: dd.mono(x, math.inf),
    }
    for words, call in bad.items():
        refused(words, call)


# The module as it presents itself


def test_the_lines_of_the_docstring_run():
    lines = [li.strip() for li in dd.__doc__.splitlines() if li.startswith("    ")]
    assert len(lines) == 5
    names = dict(vars(dd))
    exec("\n".join(lines), names)
    assert names["sound"].shape == (32_000,)
    assert heard(names["sound"])[0] % 220 == pytest.approx(0, abs=0.1)


def test_claims_and_settings_are_declared():
    chapter = CHAPTER
    rules = {
        "recovers_amplitudes": ("below", 0.05),
        "recovers_noise_alone": ("below", 1),
        "recovers_noise_beside": ("below", 1),
        "small_model": ("above", 10),
        "disentangled_pitch": ("below", 5),
        "disentangled_loudness": ("below", 1),
        "extrapolates_plain": ("below", 0),
        "extrapolates_filter": ("below", 0),
        "pitch_is_hard": ("below", 0.2),
    }
    names = itertools.product(("plain", "filter"), (1, 4, 16))
    rules |= {f"small_data_{kind}_{n}": ("below", 0) for kind, n in names}
    assert {c.id: (c.rule.side, c.rule.bound) for c in chapter.claims} == rules
    assert chapter.claim("pitch_is_hard").share
    assert set(chapter.settings) == {"smoke", "quick", "full"}
    quick, full = chapter.settings["quick"], chapter.settings["full"]
    assert quick == Settings()
    assert chapter.settings["smoke"].steps < quick.steps < full.steps
    assert (full.rate, full.harmonics, full.bands) == (250, 60, 65)
    assert all(s.fs % s.rate == 0 for s in chapter.settings.values())
