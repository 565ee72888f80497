// What the widgets of several chapters share: elements, controls, plots, randomness.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

const el = (tag, attributes = {}, ...children) =>
  fill(document.createElement(tag), attributes, children);

const draw = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);

const group = (title, ...children) => el("section", { class: "group", "aria-label": title },
  el("div", { class: "title", "aria-hidden": "true" }, title), ...children);

const button = (label, click, attributes = {}) =>
  el("button", { type: "button", onclick: click, ...attributes }, label);

// A labelled range; `input(value)` is called on each move; set(value) moves it silently.
function slider({ label, help = "", min, max, step, value, format = String, input }) {
  const output = el("output", { "aria-live": "off" }); // the range says its value itself
  const range = el("input", { type: "range", min, max, step, value });
  const node = el("div", { class: "control" },
    el("label", {}, el("span", {}, label), range), output,
    el("p", { class: "help" }, help));
  const say = () => {
    output.textContent = format(Number(range.value));
    range.setAttribute("aria-valuetext", output.textContent);
  };
  range.addEventListener("input", () => { say(); input(Number(range.value)); });
  say();
  return {
    node, range,
    get value() { return Number(range.value); },
    set(value) { range.value = value; say(); },
  };
}

// What changes is told to a screen reader once the reader's hand is still.
function announcer() {
  let timer = 0;
  const node = el("p", { class: "unseen", role: "status" });
  const say = (text) => {
    clearTimeout(timer);
    timer = setTimeout(() => { node.textContent = text; }, 500);
  };
  return { node, say };
}

// Horizontal bars of shares that add up to one.
function bars(labels, title) {
  const rows = labels.map((label) => ({
    name: el("span", {}, String(label)),
    bar: el("span", { class: "bar" }),
    number: el("span", { class: "number" }),
  }));
  const node = el("div", { class: "bars", role: "img" },
    ...rows.flatMap(({ name, bar, number }) => [
      name, el("span", { class: "track" }, bar), number]));
  const show = (shares) => {
    const best = shares.indexOf(Math.max(...shares));
    rows.forEach(({ name, bar, number }, i) => {
      bar.style.width = `${100 * shares[i]}%`;
      number.textContent = percent(shares[i]);
      name.className = number.className = i === best ? "best number" : "number";
    });
    node.setAttribute("aria-label", `${title}: ${labels[best]} ${percent(shares[best])}`);
  };
  return { node, show };
}

// Round values inside a range, about `count` of them.
function ticks([low, high], count = 4) {
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((m) => m * power >= raw);
  const first = Math.ceil(low / step), last = Math.floor(high / step);
  return Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step);
}

// An SVG with two axes; X and Y turn values into places, path draws a curve.
function plot({ x, y, xlabel, ylabel, xticks = [], width = 330, height = 210, right = 8 }) {
  const left = 34, bottom = 24, top = 26;
  const node = draw("svg", { viewBox: `0 0 ${width} ${height}`, class: "plot", role: "img",
    style: `max-width:${1.25 * width}px` });
  const axes = draw("g");
  const inside = draw("g");
  const ends = { right: width - right, bottom: height - bottom };
  let range = y;
  const X = (v) => left + ((v - x[0]) / (x[1] - x[0])) * (ends.right - left);
  const Y = (v) => ends.bottom - ((v - range[0]) / (range[1] - range[0])) * (ends.bottom - top);
  const text = (x, y, anchor, content) =>
    draw("text", { x, y, "text-anchor": anchor }, content);
  const scaleTo = (y) => {
    range = y;
    axes.replaceChildren(
      draw("path", { d: `M${left},${top}V${ends.bottom}H${ends.right}`, fill: "none",
        stroke: "currentColor" }),
      text(2, 14, "start", ylabel), text(ends.right, height - 6, "end", xlabel),
      ...ticks(range).map((v) => text(left - 5, Y(v) + 4, "end", number(v))),
      ...xticks.map((v) => text(X(v), height - 6, "middle", number(v))));
  };
  const path = (xs, ys) => {
    const tall = range[1] - range[0];
    const near = (v) => Math.min(Math.max(v, range[0] - tall), range[1] + tall);
    return "M" + xs.map((v, i) => `${X(v).toFixed(1)},${Y(near(ys[i])).toFixed(1)}`).join("L");
  };
  const across = (v) => `M${left},${Y(v)}H${ends.right}`;
  scaleTo(y);
  node.append(axes, inside);
  return { node, inside, X, Y, path, across, scaleTo, width, height, left, top, ...ends };
}

const minus = (text) => text.replace("-", "−");
const number = (v) => minus(String(Math.round(v * 1000) / 1000));
const fixed = (digits) => (v) => minus(v.toFixed(digits));
const percent = (share) => `${(100 * share).toFixed(share > 0.9995 || share < 0.0005 ? 0 : 1)} %`;

function logsumexp(values) {
  const top = Math.max(...values);
  return top + Math.log(values.reduce((sum, v) => sum + Math.exp(v - top), 0));
}

function softmax(values) {
  const level = logsumexp(values);
  return Array.from(values, (v) => Math.exp(v - level));
}

// mulberry32, and normal draws from it (Box and Muller): the same seed, the same walk.
function random(seed) {
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  const normal = () =>
    Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  return { uniform, normal };
}

// ---- The network: the layers of iclrtut.play.export, forward and back to the input ----

function decode(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float64Array.from({ length: bytes.length / 4 }, (_, i) => view.getFloat32(4 * i, true));
}

const sigmoid = (v) => 1 / (1 + Math.exp(-v));
const elementwise = (value, slope) => ({
  forward: (x) => x.map(value),
  backward: (x, dy) => dy.map((d, i) => d * slope(x[i])),
});

function conv({ shape, stride, padding, ...coded }, [, height, width]) {
  const [outs, ins, kh, kw] = shape;
  const weight = decode(coded.weight), bias = decode(coded.bias);
  const rows = Math.floor((height + 2 * padding[0] - kh) / stride[0]) + 1;
  const columns = Math.floor((width + 2 * padding[1] - kw) / stride[1]) + 1;
  // Every product of the convolution: y += weight * x, or backwards x += weight * y.
  const products = (x, y, back) => {
    for (let w = 0, o = 0; o < outs; o++) for (let i = 0; i < ins; i++)
      for (let u = 0; u < kh; u++) for (let v = 0; v < kw; v++, w++)
        for (let r = 0; r < rows; r++) {
          const row = r * stride[0] - padding[0] + u;
          if (row < 0 || row >= height) continue;
          const from = (i * height + row) * width - padding[1] + v, to = (o * rows + r) * columns;
          for (let c = 0; c < columns; c++) {
            const column = c * stride[1] - padding[1] + v;
            if (column < 0 || column >= width) continue;
            if (back) x[from + c * stride[1]] += weight[w] * y[to + c];
            else y[to + c] += weight[w] * x[from + c * stride[1]];
          }
        }
  };
  return {
    shape: [outs, rows, columns],
    forward(x) {
      const y = Float64Array.from({ length: outs * rows * columns },
        (_, k) => bias[Math.floor(k / (rows * columns))]);
      products(x, y, false);
      return y;
    },
    backward(x, dy) {
      const dx = new Float64Array(x.length);
      products(dx, dy, true);
      return dx;
    },
  };
}

function linear({ shape: [outs, ins], ...coded }) {
  const weight = decode(coded.weight), bias = decode(coded.bias);
  return {
    shape: [outs],
    forward: (x) => bias.map((b, o) => {
      for (let i = 0; i < ins; i++) b += weight[o * ins + i] * x[i];
      return b;
    }),
    backward(x, dy) {
      const dx = new Float64Array(ins);
      for (let o = 0; o < outs; o++)
        for (let i = 0; i < ins; i++) dx[i] += weight[o * ins + i] * dy[o];
      return dx;
    },
  };
}

function mean(_, [channels, height, width]) {
  const area = height * width;
  return {
    shape: [channels, 1, 1],
    forward: (x) => Float64Array.from({ length: channels }, (_, c) =>
      x.subarray(c * area, (c + 1) * area).reduce((sum, v) => sum + v, 0) / area),
    backward: (x, dy) => x.map((_, i) => dy[Math.floor(i / area)] / area),
  };
}

const LAYERS = {
  conv, linear, mean,
  silu: () => elementwise((v) => v * sigmoid(v),
    (v) => sigmoid(v) * (1 + v * (1 - sigmoid(v)))),
  relu: () => elementwise((v) => Math.max(v, 0), (v) => Number(v > 0)),
  flatten: (_, shape) => ({
    shape: [shape.reduce((a, b) => a * b)], forward: (x) => x, backward: (x, dy) => dy,
  }),
};

// From the input's shape; backward takes what forward made, and a slope by the logits.
function network(exported, shape) {
  const layers = exported.layers.map((layer) => {
    const made = LAYERS[layer.type](layer, shape);
    shape = made.shape ?? shape;
    return made;
  });
  // The input of every layer, and the logits last.
  const forward = (x) => layers.reduce((xs, layer) => {
    xs.push(layer.forward(xs.at(-1)));
    return xs;
  }, [Float64Array.from(x)]);
  const backward = (xs, slope) =>
    layers.reduceRight((d, layer, i) => layer.backward(xs[i], d), Float64Array.from(slope));
  return { forward, backward, logits: (x) => forward(x).at(-1) };
}
