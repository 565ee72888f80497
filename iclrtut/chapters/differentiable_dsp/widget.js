// A synthesiser to play; the payload is {fs, hop, harmonics, bands, seconds}.
// Numbers in brackets are the chapter's equations.
// uses audio.js

// ---- The synthesiser's samples, in float64 ----

// Linear convolution, padded: x and r are the two halves of one complex transform.
function convolve(x, r) {
  const n = 2 ** Math.ceil(Math.log2(x.length + r.length - 1));
  const re = new Float64Array(n), im = new Float64Array(n);
  re.set(x);
  im.set(r);
  fft(re, im);
  const across = new Float64Array(n), up = new Float64Array(n);
  for (let k = 0; k < n; k++) {
    const m = (n - k) % n, a = re[k], b = im[k], c = re[m], d = im[m];
    across[k] = (a * b + c * d) / (2 * n);
    up[k] = (a * a - b * b - c * c + d * d) / (4 * n); // conjugate: the way back
  }
  fft(across, up);
  return across;
}

const SOUNDING = 1.2, DECAY = 2.5, TAIL = 0.8; // s, 1/s, s

function instrument({ fs, hop, harmonics, bands, seconds }) {
  const N = seconds * fs, T = N / hop, taps = 2 * (bands - 1);
  const uniform = (length, seed) => {
    const rng = random(seed);
    return Float64Array.from({ length }, () => 2 * rng.uniform() - 1);
  };
  const noise = uniform(N, 1); // (7)
  // Uniform noise that falls by 60 dB, scaled to the energy of a unit impulse.
  const decaying = uniform(TAIL * fs, 2).map((v, i) => v * 10 ** ((-3 * i) / (TAIL * fs)));
  const energy = decaying.reduce((sum, v) => sum + v * v, 0);
  const response = decaying.map((v) => v / Math.sqrt(energy));
  const envelope = Float64Array.from({ length: T }, (_, j) => {
    const t = (j * hop) / fs;
    return t < SOUNDING ? Math.min(j / 2, 1) * Math.exp(-DECAY * t) : 0;
  });

  // What a decoder would say: amplitudes and gains by frame, two shapes that stay.
  const controls = ({ f0, rolloff, level, noise: loud, tilt }) => {
    const weights = Float64Array.from({ length: harmonics }, (_, i) => // (2)
      ((i + 1) * f0 < fs / 2 ? (i + 1) ** -rolloff : 0));
    const sum = weights.reduce((a, b) => a + b, 0);
    return {
      amplitude: envelope.map((v) => level * v),
      distribution: weights.map((v) => (sum > 0 ? v / sum : 0)),
      gain: envelope.map((v) => loud * v),
      colour: Float64Array.from({ length: bands }, (_, b) => // its loudest band is 1
        10 ** (((tilt * b) / (bands - 1) - Math.max(tilt, 0)) / 20)),
    };
  };

  const rise = hann(2 * hop).subarray(0, hop);
  const upsample = (frames) => { // (3)
    const samples = new Float64Array(N);
    for (let j = 0; j < T; j++) {
      const here = frames[j], next = frames[Math.min(j + 1, T - 1)];
      for (let i = 0; i < hop; i++)
        samples[j * hop + i] = (1 - rise[i]) * here + rise[i] * next;
    }
    return samples;
  };

  // Sum of d_k sin(k phi), by Clenshaw.
  const sines = (d, count, phi) => {
    const twice = 2 * Math.cos(phi);
    let b1 = 0, b2 = 0;
    for (let k = count - 1; k >= 0; k--) {
      const b0 = d[k] + twice * b1 - b2;
      b2 = b1;
      b1 = b0;
    }
    return b1 * Math.sin(phi);
  };

  const impulseResponse = (H) => hann(taps).map((w, i) => { // (5)
    let sum = H[0] + (i % 2 === 0 ? 1 : -1) * (-1) ** (taps / 2) * H[bands - 1];
    for (let b = 1; b < bands - 1; b++)
      sum += 2 * H[b] * Math.cos((2 * Math.PI * b * (i - taps / 2)) / taps);
    return (w * sum) / taps;
  });

  const render = (params) => {
    const { amplitude, distribution, gain, colour } = controls(params);
    const A = upsample(amplitude), dry = new Float64Array(N);
    const count = distribution.filter((d) => d > 0).length;
    for (let i = 0; i < N; i++) {
      const turns = (params.f0 * (i + 1)) / fs; // (1)
      if (A[i] > 0)
        dry[i] = A[i] * sines(distribution, count, 2 * Math.PI * (turns - Math.floor(turns)));
    }
    if (params.noise > 0) {
      // (6): each sample through the filter of its frame; filters differ by a gain only.
      const h = impulseResponse(colour), hiss = new Float64Array(N + taps);
      for (let i = 0; i < N; i++) {
        const v = gain[Math.floor(i / hop)] * noise[i];
        if (v !== 0) for (let l = 0; l < taps; l++) hiss[i + l] += v * h[l];
      }
      for (let i = 0; i < N; i++) dry[i] += hiss[i + taps / 2];
    }
    if (params.wet > 0) {
      const echo = convolve(dry, response); // (8)
      for (let i = 0; i < N; i++) dry[i] += params.wet * echo[i];
    }
    return new Float32Array(dry);
  };
  return { N, noise, response, controls, render };
}

// ---- Its sound: a loop that is swapped while it plays ----

const FADE = 0.03, AHEAD = 0.01; // s

// Nothing is opened before the first start. `fill(context)` makes the buffer to play.
function loop({ fs, seconds, fillBuffer }) {
  let context = null, output = null, voice = null, gain = 0;
  let begun = 0, settled = 0, waiting = 0;

  const soon = () => Math.max(context.currentTime + AHEAD, settled);
  const enter = (when, from) => {
    const source = context.createBufferSource(), fader = context.createGain();
    source.buffer = fillBuffer(context);
    source.loop = true;
    source.connect(fader).connect(output);
    fader.gain.setValueAtTime(from, when);
    fader.gain.linearRampToValueAtTime(1, when + FADE);
    source.start(when, (when - begun) % seconds);
    voice = { source, fader };
  };
  const leave = (when) => {
    voice.fader.gain.setValueAtTime(1, when);
    voice.fader.gain.linearRampToValueAtTime(0, when + FADE);
    voice.source.stop(when + FADE);
    settled = when + FADE;
    voice = null;
  };
  const open = () => {
    context = new AudioContext({ sampleRate: fs });
    output = context.createGain();
    output.gain.value = gain;
    output.connect(context.destination);
  };

  const start = async () => {
    if (!context) open();
    begun = soon();
    enter(begun, 1); // the note itself begins in silence
    await context.resume();
  };
  const stop = () => {
    if (!voice) return;
    leave(soon());
    setTimeout(() => { if (!voice) context.suspend(); }, 1000 * (FADE + 10 * AHEAD));
  };
  // A drag asks more often than a crossfade takes: the latest buffer waits its turn.
  const swap = () => {
    if (!voice || waiting) return;
    waiting = setTimeout(() => {
      waiting = 0;
      if (!voice) return;
      const when = soon();
      leave(when);
      enter(when, 0);
    }, 1000 * Math.max(settled - context.currentTime, 0));
  };
  const setGain = (to) => {
    gain = to;
    if (context) output.gain.setTargetAtTime(to, context.currentTime, 0.005);
  };
  return { start, stop, swap, setGain, playing: () => voice !== null };
}

// ---- The synthesiser ----

const LOUDEST = 0.4; // the highest peak that the sliders can make stays below 1
const FLOOR = -60; // dB, where a level's slider says "off"
const ZOOM = hann(2048);

function synth() {
  const { fs, harmonics, bands, seconds } = payload;
  const { N, noise, response, controls, render } = instrument(payload);
  const { node: status, say } = announcer();
  const params = { f0: 220, rolloff: 1, level: 1, noise: 10 ** -1.4, tilt: -24, wet: 0.15 };
  const middle = (SOUNDING * fs) / 2;
  let samples = null, volume = 0.8, muted = false;

  const grouped = (v) => String(v).replace(/\B(?=(\d{3})+$)/g, ",");
  const hertz = (f) => `${grouped(Math.round(f))} Hz`;
  const dB = (v) => `${fixed(0)(v)} dB`;
  const orOff = (v) => (v <= FLOOR ? "off" : dB(v));
  const amplitude = (v) => (v <= FLOOR ? 0 : 10 ** (v / 20));
  const semitones = (v) => Math.min(55 * 2 ** (v / 12), 2000);
  const dial = (name, options, value = (v) => v) => slider({ ...options,
    input: (v) => { params[name] = value(v); show(); } }).node;

  const fillBuffer = (context, rendered = samples) => {
    const buffer = context.createBuffer(1, N, fs);
    buffer.copyToChannel(rendered, 0);
    return buffer;
  };
  const sound = loop({ fs, seconds, fillBuffer });
  const warning = el("p", { class: "warning", role: "alert" });
  const mark = () => {
    toggle.textContent = sound.playing() ? "■ Stop" : "▶ Play";
    mute.setAttribute("aria-pressed", String(muted));
    sound.setGain(muted ? 0 : LOUDEST * volume ** 2);
  };
  const stop = () => { sound.stop(); mark(); };
  const watch = () => {
    if (!root.isConnected) stop();
    else if (sound.playing()) requestAnimationFrame(watch);
  };
  const play = async () => {
    warning.textContent = "";
    root.dispatchEvent(new Event("play"));
    const started = sound.start();
    mark();
    watch();
    try {
      await started;
    } catch {
      stop();
      warning.textContent = "This browser opens no sound output for the page: the picture "
        + "still follows the sliders.";
    }
  };
  const toggle = button("", () => (sound.playing() ? stop() : play()));
  const mute = button("Mute", () => { muted = !muted; mark(); });
  alone(root, stop);
  document.addEventListener("visibilitychange", () => { if (document.hidden) stop(); });
  window.addEventListener("pagehide", stop);

  const chart = plot({ x: [0, fs / 2000], y: [-100, 0], xlabel: "kHz", ylabel: "dB",
    xticks: [0, 2, 4, 6], width: 360, height: 230 });
  const exact = { fill: "none", stroke: "var(--exact)", "stroke-width": 3 };
  const curve = draw("path", { class: "curve", fill: "none", stroke: "var(--model)" });
  const hiss = draw("path", { ...exact, class: "hiss", "stroke-dasharray": "7 3 2 3" });
  const tops = draw("path", { ...exact, class: "tops", fill: "var(--exact)", "stroke-width": 1 });
  const id = `clip${Math.random()}`;
  chart.inside.append(
    draw("clipPath", { id }, draw("rect", { x: chart.left, y: chart.top,
      width: chart.right - chart.left, height: chart.bottom - chart.top })),
    draw("g", { "clip-path": `url(#${id})` }, curve, hiss, tops));
  const sentence = el("p", { class: "note" });

  // What the formulas say of the middle, before the reverb: the tops of the harmonics by
  // (2), and by (5) and (7) the noise under the window that looks at it.
  const expected = () => {
    const { amplitude: A, distribution, gain, colour } = controls(params);
    const frame = Math.round((middle * A.length) / N);
    const power = ZOOM.reduce((sum, w) => sum + w * w, 0);
    const grain = (4 / ZOOM.length) * Math.sqrt(power / 3);
    const H = (b) => colour[b < 0 ? -b : b < bands ? b : 2 * (bands - 1) - b];
    return {
      harmonics: Array.from(distribution, (d) => decibels(A[frame] * d)),
      noise: Array.from(colour, (_, b) =>
        decibels((grain * gain[frame] * (H(b - 1) + 2 * H(b) + H(b + 1))) / 4)),
    };
  };
  const show = () => {
    samples = render(params);
    sound.swap();
    const seen = spectrum(samples, middle, ZOOM).map((v) => Math.max(decibels(v), -200));
    const wanted = expected();
    const kHz = fs / 2000;
    curve.setAttribute("d", chart.path(Array.from(seen, (_, k) => (kHz * k) / (seen.length - 1)),
      Array.from(seen)));
    hiss.setAttribute("d", params.noise === 0 ? ""
      : chart.path(wanted.noise.map((_, b) => (kHz * b) / (bands - 1)), wanted.noise));
    const left = wanted.harmonics.filter(Number.isFinite);
    tops.setAttribute("d", left.map((v, i) =>
      `M${chart.X(((i + 1) * params.f0) / 1000).toFixed(1)},${(chart.Y(v) - 3.5).toFixed(1)}`
      + "l3.5,3.5 -3.5,3.5 -3.5,-3.5z").join(""));
    const count = controls(params).distribution.filter((d) => d > 0).length;
    sentence.textContent = `${count} of ${harmonics} harmonics lie below ${hertz(fs / 2)}, the `
      + `Nyquist frequency${count < harmonics ? `; (2) leaves out ${harmonics - count}.` : "."}`;
    const loudest = (strongest(seen.map((v) => 10 ** (v / 10))) * fs) / ZOOM.length;
    chart.node.setAttribute("aria-label", `Spectrum of the note's middle, 0 to ${number(kHz)} kHz. `
      + `Strongest near ${hertz(loudest)}, at ${dB(Math.max(...seen))}.`);
    say(sentence.textContent);
  };

  root.append(
    el("div", { class: "columns two synth" },
      el("div", {}, chart.node,
        el("div", { class: "buttons" }, toggle, mute), warning, sentence,
        el("p", { class: "help" }, "Diamonds: harmonics by (2). Dash-dotted: noise by (5) and "
          + "(7). Both before the reverb.")),
      el("div", {},
        group("Harmonics",
          dial("f0", { label: "Fundamental f₀", min: 0, max: 63, step: 0.25, value: 24,
            format: (v) => hertz(semitones(v)) }, semitones),
          el("div", { class: "pair" },
            dial("rolloff", { label: "Roll-off 1/kʳ", min: 0, max: 3, step: 0.05,
              value: params.rolloff, format: fixed(2) }),
            dial("level", { label: "Level A", min: FLOOR, max: 0, step: 1, value: 0,
              format: orOff }, amplitude))),
        group("Noise",
          el("div", { class: "pair" },
            dial("noise", { label: "Noise level", min: FLOOR, max: -12, step: 1, value: -28,
              format: orOff }, amplitude),
            dial("tilt", { label: "Colour", help: "From 0 to 8 kHz", min: -60, max: 60, step: 2,
              value: params.tilt, format: dB }))),
        group("Room and loudspeaker",
          el("div", { class: "pair" },
            dial("wet", { label: "Reverb", min: 0, max: 1, step: 0.01, value: params.wet,
              format: fixed(2) }),
            slider({ label: "Volume", min: 0, max: 1, step: 0.01, value: volume,
              format: (v) => `${Math.round(100 * v)} %`,
              input: (v) => { volume = v; mark(); } }).node)))),
    status);
  root.iclrtut = {
    noise, response, controls, render, expected, loudest: LOUDEST,
    buffer: (context, asked) => fillBuffer(context, render(asked)),
    spectrum: () => spectrum(samples, middle, ZOOM),
    state: () => ({ ...params, volume, muted, playing: sound.playing() }),
  };
  mark();
  show();
}

synth();
