"""Deliberate faults: a text of a module, what replaces it, what that breaks."""

FAULTS = [
    # Sines
    (
        'turns = torch.cumsum(_pitch(_real(f0, "pitches")).double() / fs, -1)',
        'turns = torch.cumsum(_pitch(_real(f0, "pitches")) / fs, -1)',
        "the phase is summed in the dtype of f0",
    ),
    (
        'turns = torch.cumsum(_pitch(_real(f0, "pitches")).double() / fs, -1)',
        'turns = torch.cumsum(_pitch(_real(f0, "pitches")).double() / fs, -1)'
        " - f0 / fs",
        "the phase begins at 0: n for n + 1",
    ),
    (
        "angle: Tensor = 2 * math.pi * (turns % 1)",
        "angle: Tensor = 2 * math.pi * turns",
        "the phase is not wrapped",
    ),
    (
        "angle: Tensor = 2 * math.pi * (turns % 1)",
        "angle: Tensor = 2 * math.pi * (turns % 1 - 0.5)",
        "the phase is wrapped to [-pi, pi), half a turn off",
    ),
    (
        "[..., None] * k < fs / 2\n    kept",
        "[..., None] * k < math.inf\n    kept",
        "harmonics are removed only at the samples",
    ),
    (
        "[..., None] * k < fs / 2\n    kept",
        "[..., None] * k <= fs / 2\n    kept",
        "a harmonic at Nyquist stays in the shares",
    ),
    (
        "[..., None] * k < fs / 2\n    kept",
        "[..., None] * k < fs\n    kept",
        "the sampling rate for Nyquist",
    ),
    (
        "return kept / (total + (total == 0))",
        "return kept / weights.sum(-1, keepdim=True)",
        "shares are taken before the removal",
    ),
    (
        "return kept / (total + (total == 0))",
        "return kept / total",
        "nothing left is NaN",
    ),
    (
        "return kept / (total + (total == 0))",
        "return kept / total.clamp_min(torch.finfo(kept.dtype).tiny)",
        "nothing left has a slope of NaN",
    ),
    (
        "return torch.cat([frames.narrow(dim, 1, last), frames.narrow(dim, last, 1)]",
        "return torch.cat([frames.narrow(dim, 1, last), "
        "0 * frames.narrow(dim, last, 1)]",
        "the last frame fades away",
    ),
    (
        "return torch.cat([frames.narrow(dim, 1, last), frames.narrow(dim, last, 1)]",
        "return torch.cat([frames.narrow(dim, 1, last), frames.narrow(dim, 0, 1)]",
        "after the last frame comes the first",
    ),
    (
        "torch.hann_window(2 * hop, dtype=like.dtype",
        "torch.hann_window(2 * hop, False, dtype=like.dtype",
        "the windows of the frames are symmetric",
    ),
    (
        "return (current * (1 - w) + following * w).flatten(-3, -2)",
        "return (current * w + following * (1 - w)).flatten(-3, -2)",
        "windows are turned round",
    ),
    (
        "return (f0[..., None] + (_next(f0, -1) - f0)[..., None] * w).flatten(-2)",
        "return (f0[..., None] + (_next(f0, -1) - f0)[..., None] * "
        "_rise(hop, f0)).flatten(-2)",
        "f0 by Hann windows",
    ),
    (
        'w = torch.arange(hop, dtype=_real(f0, "pitches")',
        'w = torch.arange(1, hop + 1, dtype=_real(f0, "pitches")',
        "f0 comes a sample early",
    ),
    (
        "powered: Tensor = torch.sigmoid(x) ** math.log(10)",
        "powered: Tensor = torch.sigmoid(x) ** math.log(9)",
        "another exponent than ln 10",
    ),
    (
        "powered: Tensor = torch.sigmoid(x) ** math.log(10)",
        "powered: Tensor = torch.sigmoid(x) ** 10",
        "10 for ln 10",
    ),
    ("return 2 * powered + 1e-7", "return 2 * powered", "positive may be zero"),
    ("return 2 * powered + 1e-7", "return powered + 1e-7", "positive ends at one"),
    (
        "waves = torch.sin(angle * k) * (pitch * k < fs / 2)",
        "waves = torch.sin(angle * k)",
        "harmonics are removed only in the frames",
    ),
    (
        "waves = torch.sin(angle * k) * (pitch * k < fs / 2)",
        "waves = torch.sin(angle * k) * (f0[..., None, None] * k < fs / 2)",
        "samples are removed by their frame's pitch",
    ),
    (
        "waves = torch.sin(angle * k) * (pitch * k < fs / 2)",
        "waves = torch.cos(angle * k) * (pitch * k < fs / 2)",
        "cosines",
    ),
    (
        "k = torch.arange(1, amplitudes.shape[-1] + 1, device=f0.device)",
        "k = torch.arange(0, amplitudes.shape[-1], device=f0.device)",
        "harmonics count from 0",
    ),
    (
        "within = torch.arange(1, 65, device=f0.device)",
        "within = torch.arange(64, device=f0.device)",
        "a steady tone begins at phase 0",
    ),
    (
        "audible = amplitudes.double() * (f0[:, None, None] * k < fs / 2)",
        "audible = amplitudes.double()",
        "a steady tone keeps what lies above Nyquist",
    ),
    (
        "pitch = interpolate(_pitch(f0), hop)",
        "pitch = _pitch(f0).repeat_interleave(hop, -1)",
        "the pitch moves in stairs",
    ),
    # Noise
    (
        "2 * torch.rand(*shape, generator=generator, device=generator.device) - 1",
        "torch.rand(*shape, generator=generator, device=generator.device) - 0.5",
        "the noise has a quarter of its power",
    ),
    (
        "2 * torch.rand(*shape, generator=generator, device=generator.device) - 1",
        "torch.randn(*shape, generator=generator, device=generator.device)",
        "the noise is normal",
    ),
    (
        "2 * torch.rand(*shape, generator=generator, device=generator.device) - 1",
        "2 * torch.rand(*shape) - 1",
        "the noise ignores its generator",
    ),
    (
        "return taps * torch.hann_window(n, dtype=H.dtype, device=H.device)",
        "return taps * torch.hann_window(n, False, dtype=H.dtype, device=H.device)",
        "the filter's window is symmetric",
    ),
    (
        "return taps * torch.hann_window(n, dtype=H.dtype, device=H.device)",
        "return taps",
        "no window",
    ),
    (
        "torch.fft.irfft(H, n).roll(n // 2, -1)",
        "torch.fft.irfft(H, n)",
        "the response is not centred",
    ),
    (
        "torch.fft.irfft(H, n).roll(n // 2, -1)",
        "torch.fft.irfft(H, n).roll(n // 2 - 1, -1)",
        "the response is a sample early",
    ),
    (
        "shifted = [F.pad(pieces[..., i, :], (0, 0, i, spans - 1 - i))",
        "shifted = [F.pad(pieces[..., i, :], (0, 0, spans - 1 - i, i))",
        "tails are laid down in the wrong order",
    ),
    (
        "shifted = [F.pad(pieces[..., i, :], (0, 0, i, spans - 1 - i))",
        "shifted = [F.pad(pieces[..., i, :], (0, 0, max(i - 1, 0), "
        "spans - 1 - max(i - 1, 0)))",
        "overlapping frames are added one hop early",
    ),
    (
        "whole = torch.stack(shifted).sum(0).flatten(-2)",
        "whole = torch.stack(shifted[:-1] or shifted).sum(0).flatten(-2)",
        "the last part of a tail is lost",
    ),
    (
        "return whole[..., n // 2 : n // 2 + noise.shape[-1]]",
        "return whole[..., n // 2 - 2 : n // 2 - 2 + noise.shape[-1]]",
        "the crop of the official code: two samples late",
    ),
    (
        "return whole[..., n // 2 : n // 2 + noise.shape[-1]]",
        "return whole[..., n // 2 - 1 : n // 2 - 1 + noise.shape[-1]]",
        "the crop is one sample off",
    ),
    (
        "return -(-(hop + n - 1) // hop)",
        "return (hop + n - 1) // hop",
        "the FFT of a frame is too short",
    ),
    (
        "size = fft.next_fast_len(N + _real(response",
        "size = fft.next_fast_len(_real(response",
        "the reverb is not padded for the sound",
    ),
    (
        'fft.next_fast_len(N + _real(response, "responses").shape[-1] - 1, True)',
        'max(N, _real(response, "responses").shape[-1])',
        "the reverb is not padded",
    ),
    ("return wet[..., :N]", "return wet[..., -N:]", "the reverb's end is kept"),
    # Both
    (
        "amplitudes = controls.amplitude[..., None] * controls.distribution",
        "amplitudes = controls.distribution",
        "the amplitude is ignored",
    ),
    (
        "return sines + filter_noise(noise, H)",
        "return sines + filter_noise(noise, H) / 2",
        "half the noise",
    ),
    # Stream
    (
        "f0 = np.append(f0[-1:], block.f0).astype(np.float64)",
        "f0 = np.append(block.f0[:1] if len(f0) else [], block.f0).astype(np.float64)",
        "the pitch of the last block's end is lost",
    ),
    (
        "amplitudes = np.concatenate([amplitudes[-1:].reshape(-1, a.shape[1]), a])",
        "amplitudes = np.concatenate([a[: min(len(amplitudes), 1)], a])",
        "the amplitudes of the last block's end are lost",
    ),
    (
        "sound, turns = _clenshaw(f0, amplitudes, turns, hop, fs)",
        "sound, turns = _clenshaw(f0, amplitudes, 0.0, hop, fs)",
        "the phase begins anew in each block",
    ),
    (
        "return sound, float(phase[-1] % 1 if spans else turns)",
        "return sound, float(phase[-1] if spans else turns)",
        "the stream's phase is never wrapped",
    ),
    (
        "return sound, float(phase[-1] % 1 if spans else turns)",
        "return sound, float(np.float32(phase[-1] % 1) if spans else turns)",
        "the stream's phase is kept in single precision",
    ),
    (
        "phase = turns + np.cumsum(pitch / fs)",
        "phase = turns + np.cumsum((pitch / fs).astype(np.float32))",
        "the stream adds turns in single precision",
    ),
    (
        "yield _clenshaw(f0[[-1, -1]], amplitudes[[-1, -1]], turns, hop, fs)[0]",
        "yield np.zeros(hop, np.float32)",
        "the stream's last frame is silent",
    ),
    (
        "yield _clenshaw(f0[[-1, -1]], amplitudes[[-1, -1]], turns, hop, fs)[0]",
        "yield _clenshaw(f0[[-1, -1]], amplitudes[[-1, -1]] * [[1], [0]], turns, hop, "
        "fs)[0]",
        "the stream's last frame fades away",
    ),
    (
        "if k * high >= fs / 2:\n            scratch *= k * pitch < fs / 2",
        "if False:\n            scratch *= k * pitch < fs / 2",
        "the stream removes no sample",
    ),
    (
        "if k * low >= fs / 2:\n            continue",
        "if k * high >= fs / 2:\n            continue",
        "the stream removes a harmonic from a whole block",
    ),
    (
        "before *= -1\n",
        "before *= 1\n",
        "the sign in Clenshaw's recurrence",
    ),
    (
        "twice, rise = 2 * np.cos(angle), np.sin(np.pi / 2 * along) ** 2",
        "twice, rise = 2 * np.cos(angle), along",
        "the stream's amplitudes move along straight lines",
    ),
    (
        "window = np.hanning(n + 1)[:-1].astype(np.float32)",
        "window = np.hanning(n).astype(np.float32)",
        "the stream's window is symmetric",
    ),
    (
        "noise = 2 * rng.random((len(H), hop), dtype=np.float32) - 1",
        "noise = 2 * np.random.default_rng(7).random((len(H), hop), np.float32) - 1",
        "the stream repeats its noise",
    ),
    (
        "whole[: len(tail)] = tail",
        "whole[: len(tail)] = 0",
        "the noise's tails are cut at blocks",
    ),
    (
        "crop = n // 2 if crop < 0 else crop",
        "crop = n // 2",
        "the stream crops in each block",
    ),
    (
        "crop = max(0, crop - len(ready))",
        "crop = 0",
        "the crop reaches over one block only",
    ),
    (
        "yield tail.ravel()[crop : n // 2]",
        "yield tail.ravel()[crop : n // 2 - 1]",
        "the stream ends a sample early",
    ),
    (
        "whole[i : i + len(H)] += pieces[:, i]",
        "whole[i : i + len(H)] = pieces[:, i]",
        "frames replace each other in the stream",
    ),
    (
        "sines, noise = sines[ready:], noise[ready:]",
        "sines, noise = sines[:0], noise[:0]",
        "what waits between blocks is lost",
    ),
    # Listening
    (
        "loss = loss + linear * (X - Y).abs().mean()",
        "loss = loss + linear * (X - Y).square().mean()",
        "squares in the loss",
    ),
    (
        "((X + 1e-5).log() - (Y + 1e-5).log())",
        "((X + 1e-7).log() - (Y + 1e-7).log())",
        "another floor under the logarithm",
    ),
    (
        "loss = loss + log * ((X",
        "loss = loss + linear * ((X",
        "one weight for both terms",
    ),
    (
        "    hop = size // 4\n",
        "    hop = size // 2\n",
        "hops of half a window",
    ),
    (
        "x = F.pad(x, (size // 2, size // 2))",
        "x = F.pad(x, (0, size))",
        "the loss's windows are not centred",
    ),
    (
        "window = torch.hann_window(size, dtype=x.dtype, device=x.device)",
        "window = torch.hann_window(size, False, dtype=x.dtype, device=x.device)",
        "the loss's window is symmetric",
    ),
    (
        "SIZES = (2048, 1024, 512, 256, 128, 64)",
        "SIZES = (2048, 1024, 512, 256, 128)",
        "the shortest window is missing",
    ),
    (
        "(s + 107.65265**2) * (s + 737.86223**2)",
        "(s + 107.65265**2) * (s + 773.86223**2)",
        "two digits of the A-weighting exchanged",
    ),
    (
        "20.598997**2) / (s + 12194.217**2)",
        "20.598997**2) / (s + 12194.0**2)",
        "a constant of the A-weighting cut short",
    ),
    ("R.log10() + 2.00", "R.log10()", "the A-weighting is not 0 at 1 kHz"),
    (
        "mean: Tensor = (power * 10 ** (a_weighting(f) / 10)).mean(-1)\n"
        "    return 10 * mean.clamp_min(10 ** (FLOOR / 10)).log10()",
        "dB = 10 * power.clamp_min(1e-12).log10() + a_weighting(f).clamp_min(-80)\n"
        "    return dB.mean(-1).clamp_min(FLOOR)",
        "decibels are averaged, not power",
    ),
    (
        "10 ** (a_weighting(f) / 10)",
        "10 ** (a_weighting(f) / 20)",
        "the A-weighting of amplitudes on powers",
    ),
    ("FLOOR = -80.0", "FLOOR = -100.0", "another floor of loudness"),
    (
        "10 * mean.clamp_min(10 ** (FLOOR / 10)).log10()",
        "10 * (mean + 1e-20).log10()",
        "loudness has no floor",
    ),
    (
        "power = torch.fft.rfft(frames * window).abs().square()",
        "power = torch.fft.rfft(frames).abs().square()",
        "loudness without a window",
    ),
    (
        "padded = F.pad(x, (WINDOW // 2, WINDOW // 2))",
        "padded = F.pad(x, (0, WINDOW))",
        "loudness is not centred",
    ),
    # Bad input
    (
        "good = (f0 > 0) & (f0 < math.inf)",
        "good = (f0 >= 0) & (f0 < math.inf)",
        "a pitch of zero is let through",
    ),
    (
        "good = (f0 > 0) & (f0 < math.inf)",
        "good = ~((f0 <= 0) | (f0 >= math.inf))",
        "a pitch of NaN is let through",
    ),
    (
        "at frame {at % f0.shape[-1]}",
        "at frame {at}",
        "the frame is counted through the batch",
    ),
    # iclrtut/audio.py
    (
        "samples = samples.mean(int(np.argmin(shape)))",
        "samples = samples.mean(-1)",
        "channels first are taken for samples",
    ),
    (
        "samples = samples.mean(int(np.argmin(shape)))",
        "samples = samples.sum(int(np.argmin(shape)))",
        "channels are added",
    ),
    (
        "half = 2.0 ** (8 * bytes - 1)",
        "half = 2.0**15",
        "all whole numbers are scaled as 16 bits",
    ),
    (
        'return (samples - half * (kind == "u")) / half',
        "return samples / half",
        "bytes without a sign keep their offset",
    ),
    (
        "signal.resample_poly(samples, fs // common, int(rate) // common)",
        "signal.resample_poly(samples, int(rate) // common, fs // common)",
        "the rates are exchanged",
    ),
    (
        "signal.resample_poly(samples, fs // common, int(rate) // common)",
        "samples[(np.arange(-(-len(samples) * fs // rate)) * rate) // fs]",
        "recordings are resampled without a filter",
    ),
    (
        "power = torch.fft.rfft(x).abs().square() / len(x) ** 2",
        "power = torch.fft.rfft(x).abs() / len(x)",
        "equal loudness of amplitudes, not of power",
    ),
    (
        "trough = inside & rising & (ratio < 0.1)",
        "trough = inside & rising & (ratio < 0)",
        "YIN takes the deepest trough, not the first",
    ),
    (
        "period: Tensor = at[..., 0] + shift",
        "period: Tensor = at[..., 0] - shift",
        "YIN's parabola is turned round",
    ),
    # decoder.py
    (
        "direct = torch.ones_like(self.room[:1])",
        "direct = self.room[:1]",
        "the room swallows the sound itself",
    ),
    (
        "noise = positive(output[..., last:] - 5)",
        "noise = positive(output[..., last:])",
        "the noise begins loud",
    ),
    (
        "output: Tensor = self.out(torch.cat([self.gru(both)[0], both], -1))",
        "output: Tensor = self.out(torch.cat([self.gru(both)[0], 0 * both], -1))",
        "the second stack does not see the inputs",
    ),
    (
        "loud = self.loud(((loud - self.mean) / self.spread)[..., None])",
        "loud = self.loud((loud - self.mean)[..., None])",
        "loudness is centred and not scaled",
    ),
]
