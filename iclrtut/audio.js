// What widgets with sound share: Fourier, one sound at a time, players.
// `players()` shows the payload {fs, sounds: [{label, wav: base64 of a WAV file, 16 bits,
// mono}]}: for each sound its waveform, its spectrogram and the browser's own controls.

// ---- Fourier ----

const tables = new Map();

function table(n) {
  if (!tables.has(n))
    tables.set(n, [Math.cos, Math.sin].map((f) =>
      Float64Array.from({ length: n / 2 }, (_, k) => f((-2 * Math.PI * k) / n))));
  return tables.get(n);
}

// Radix 2, in place.
function fft(re, im) {
  const n = re.length, [cos, sin] = table(n);
  for (let i = 1, j = 0; i < n; i++) {
    let bit = n >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) {
      const a = re[i], b = im[i];
      re[i] = re[j]; re[j] = a;
      im[i] = im[j]; im[j] = b;
    }
  }
  for (let half = 1; half < n; half *= 2)
    for (let start = 0, step = n / (2 * half); start < n; start += 2 * half)
      for (let i = start, k = 0; i < start + half; i++, k += step) {
        const j = i + half, c = cos[k], s = sin[k];
        const a = c * re[j] - s * im[j], b = c * im[j] + s * re[j];
        re[j] = re[i] - a; im[j] = im[i] - b;
        re[i] += a; im[i] += b;
      }
}

const hann = (n) =>
  Float64Array.from({ length: n }, (_, i) => (1 - Math.cos((2 * Math.PI * i) / n)) / 2);

// Amplitudes at 0 .. fs/2 of a stretch around `middle`: a sine of amplitude a shows as a.
function spectrum(x, middle, window) {
  const n = window.length, first = Math.round(middle) - n / 2;
  const re = new Float64Array(n), im = new Float64Array(n);
  for (let i = Math.max(0, -first); i < n && first + i < x.length; i++)
    re[i] = (4 / n) * window[i] * x[first + i];
  fft(re, im);
  return re.subarray(0, n / 2 + 1).map((a, k) => Math.sqrt(a * a + im[k] * im[k]));
}

const decibels = (amplitude) => 20 * Math.log10(amplitude);

// ---- One sound at a time, on the whole page ----

// <audio> sends "play" by itself; whatever else sounds has to send it too.
function alone(node, pause) {
  const onPlay = ({ target }) => {
    if (!node.isConnected) document.removeEventListener("play", onPlay, true);
    else if (target !== node) pause();
  };
  document.addEventListener("play", onPlay, true);
}

// ---- Players: waveform, spectrogram, and the browser's own controls ----

const COLUMNS = 360, RANGE = 70, WINDOW = hann(512);

function decodeWav(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  let at = 12; // chunks follow "RIFF", a size and "WAVE"
  while (view.getUint32(at) !== 0x64617461) at += 8 + view.getUint32(at + 4, true);
  const x = new Float64Array(view.getUint32(at + 4, true) / 2);
  for (let i = 0; i < x.length; i++) x[i] = view.getInt16(at + 8 + 2 * i, true) / 32768;
  return x;
}

const largest = (values) => values.reduce((top, v) => Math.max(top, Math.abs(v)), 0);

function analyse(x) {
  const columns = Array.from({ length: COLUMNS }, (_, c) =>
    spectrum(x, ((c + 0.5) * x.length) / COLUMNS, WINDOW));
  const power = new Float64Array(columns[0].length);
  for (const column of columns) column.forEach((v, k) => { power[k] += v * v; });
  return { columns, power, peak: largest(x), top: Math.max(...columns.map(largest)) };
}

// In bins; a parabola through the logarithms finds the place between them.
function strongest(power) {
  const k = power.indexOf(Math.max(...power));
  if (k === 0 || k === power.length - 1) return k;
  const [a, b, c] = [k - 1, k, k + 1].map((i) => Math.log(power[i]));
  return k + (a - c) / (2 * (a - 2 * b + c));
}

// White by opacity: the mask through which the ink is seen.
function spectrogram({ columns }, top) {
  const height = columns[0].length;
  const sheet = el("canvas", { width: COLUMNS, height });
  const context = sheet.getContext("2d");
  const image = context.createImageData(COLUMNS, height);
  image.data.fill(255);
  columns.forEach((column, c) => column.forEach((amplitude, k) => {
    const share = 1 + decibels(amplitude / top) / RANGE;
    image.data[4 * ((height - 1 - k) * COLUMNS + c) + 3] = 255 * Math.max(share, 0) || 0;
  }));
  context.putImageData(image, 0, 0);
  return sheet.toDataURL();
}

function picture(x, analysis, { fs, scale, top, label }) {
  const width = 340, height = 216, left = 40, right = 326;
  const wave = [6, 60], field = [70, 192], seconds = x.length / fs;
  const X = (t) => left + (t / seconds) * (right - left);
  const level = (v) => (wave[0] + wave[1]) / 2 - (v / scale) * ((wave[1] - wave[0]) / 2);
  const nyquist = fs / 2000; // kHz
  const pitch = (kHz) => field[1] - (kHz / nyquist) * (field[1] - field[0]);
  const text = (x, y, anchor, content) =>
    draw("text", { x, y, "text-anchor": anchor }, content);

  // By column the highest and the lowest sample: up one side and back the other.
  const ends = Array.from({ length: COLUMNS }, (_, c) => {
    const from = Math.floor((c * x.length) / COLUMNS);
    const part = x.subarray(from, Math.max(from + 1, ((c + 1) * x.length) / COLUMNS));
    return [Math.max(...part), Math.min(...part)];
  });
  const point = (v, c) => `${X(((c + 0.5) * seconds) / COLUMNS).toFixed(1)},${level(v).toFixed(2)}`;
  const outline = [...ends.map(([high], c) => point(high, c)),
    ...ends.map(([, low], c) => point(low, c)).reverse()];

  const id = `mask${Math.random()}`;
  const box = { x: left, y: field[0], width: right - left, height: field[1] - field[0] };
  const marks = ticks([0, seconds]), frequencies = [0, nyquist / 2, nyquist];
  const head = draw("g", { class: "head", visibility: "hidden" },
    draw("path", { d: `M0,${wave[0]}V${field[1]}` }),
    draw("path", { d: `M-5,${wave[0] - 6}h10l-5,7z` }));
  const node = draw("svg", { viewBox: `0 0 ${width} ${height}`, class: "plot", role: "img" },
    draw("mask", { id }, draw("image", { ...box, preserveAspectRatio: "none",
      href: spectrogram(analysis, top) })),
    draw("path", { class: "wave", d: `M${outline.join("L")}Z` }),
    draw("rect", { ...box, class: "field", mask: `url(#${id})` }),
    draw("path", { class: "axes", d: `M${left},${wave[0]}V${wave[1]}M${left},${level(0)}H${right}`
      + `M${left},${field[0]}V${field[1]}H${right}`
      + marks.map((t) => `M${X(t)},${field[1]}v5`).join("")
      + frequencies.map((kHz) => `M${left},${pitch(kHz)}h-5`).join("") }),
    ...[scale, -scale].map((v) => text(left - 7, level(v) + (v > 0 ? 10 : 0), "end", number(v))),
    text(left - 7, pitch(0.75 * nyquist) + 4, "end", "kHz"),
    ...frequencies.map((kHz) =>
      text(left - 7, pitch(kHz) + 4, "end", number(Math.round(10 * kHz) / 10))),
    ...marks.map((t, i) => text(X(t), height - 6, "middle",
      i === marks.length - 1 ? `${number(t)} s` : number(t))),
    head);
  const hertz = (strongest(analysis.power) * fs) / WINDOW.length;
  node.setAttribute("aria-label", `Waveform and spectrogram of ${label}: ${fixed(2)(seconds)} s, `
    + (analysis.peak === 0 ? "silence." : `peak ${fixed(2)(analysis.peak)}, strongest frequency near `
      + `${Number(hertz.toPrecision(3))} Hz.`));
  const move = (t) => fill(head, { visibility: t > 0 ? "visible" : "hidden",
    transform: `translate(${X(Math.min(t, seconds)).toFixed(2)},0)` }, []);
  const timeAt = (clientX) => {
    const { left: edge, width: wide } = node.getBoundingClientRect();
    const t = (((clientX - edge) * width) / wide - left) / (right - left);
    return seconds * Math.min(Math.max(t, 0), 1);
  };
  return { node, move, timeAt };
}

function player({ label, wav }, view, level) {
  const audio = el("audio", { controls: true, preload: "auto", "aria-label": label,
    src: `data:audio/wav;base64,${wav}` });
  let frame = 0;
  const follow = () => {
    cancelAnimationFrame(frame);
    view.move(audio.currentTime);
    if (!audio.paused) frame = requestAnimationFrame(follow);
  };
  for (const event of ["play", "pause", "seeking"]) audio.addEventListener(event, follow);
  view.node.addEventListener("click", (event) => {
    audio.currentTime = view.timeAt(event.clientX);
  });
  alone(audio, () => audio.pause());
  return el("div", { class: "player" },
    el("div", { class: "title", role: "heading", "aria-level": level }, label),
    view.node, audio);
}

// One below the heading that the figure stands under.
function headingLevel() {
  const before = [...document.querySelectorAll("h1, h2, h3, h4, h5")].filter((heading) =>
    heading.compareDocumentPosition(root) & Node.DOCUMENT_POSITION_FOLLOWING);
  return before.length ? Number(before.at(-1).tagName[1]) + 1 : 2;
}

// All pictures of a figure share their scales, so that they can be compared.
function players() {
  const { fs, sounds } = payload;
  const waves = sounds.map(({ wav }) => decodeWav(wav));
  const analysed = waves.map(analyse);
  const [peak, top] = ["peak", "top"].map((name) => Math.max(...analysed.map((one) => one[name])));
  const scale = Math.max(Math.ceil(10 * peak), 1) / 10;
  const level = headingLevel();
  root.append(el("div", { class: "columns two players" }, ...sounds.map((sound, i) =>
    player(sound, picture(waves[i], analysed[i], { fs, scale, top, label: sound.label }), level))));
  root.iclrtut = { samples: waves, analysed };
}
