// The plane of two moons, with a ball to drag and a switch of models.
// {mode: "moons", points: [[x, y, class]], half, centre: [2], whiten: [[2], [2]],
//  models: [{id, name, net: play.export(net),
//            inside?, outside?: {log_weights: [K], means: [[2]] in z, sigma: [K]},
//            log_q?, order?: [s, th]}]}
// z = whiten (x - centre). Numbers in brackets are the chapter's equations.

// ---- The models: logits, Bayes' rule with two mixtures, certificates, an attack ----

const softplus = (v) => Math.max(v, 0) + Math.log1p(Math.exp(-Math.abs(v)));
const logInside = (logB) => -softplus(-logB); // log p(i|x)

function metric({ centre: [c1, c2], whiten: [[a, b], [c, d]] }) {
  const det = a * d - b * c;
  return {
    whiten: ([x, y]) => [a * (x - c1) + b * (y - c2), c * (x - c1) + d * (y - c2)],
    unwhiten: ([u, v]) => [c1 + (d * u - b * v) / det, c2 + (a * v - c * u) / det],
  };
}

// Spherical components in the whitened plane, heights without (2 pi)^{D/2}.
function mixture({ log_weights: logWeights, means, sigma }) {
  const precision = sigma.map((s) => 1 / (s * s));
  const height = logWeights.map((w, k) => w - 2 * Math.log(sigma[k]));
  const distance = (z, k) => Math.hypot(z[0] - means[k][0], z[1] - means[k][1]);
  // By component, at every distance moved by `shift` but never below 0.
  const logs = (z, shift = 0) => height.map((h, k) =>
    h - (precision[k] * Math.max(distance(z, k) + shift, 0) ** 2) / 2);
  return { means, precision, logs, logDensity: (z, shift) => logsumexp(logs(z, shift)) };
}

function bayes({ inside, outside, log_q: logQ }) {
  const [ins, outs] = [mixture(inside), mixture(outside)];
  const logRatio = (z) => logQ + ins.logDensity(z) - outs.logDensity(z);
  // (10): every in-mean comes nearer by R, every out-mean goes away by R.
  const logBound = (z, R) => logQ + ins.logDensity(z, -R) - outs.logDensity(z, R);
  // (12): the ball's exact maximum for each pair, then q sum_k 1 / sum_l exp(-G_kl).
  const logTight = (z, R) => {
    const [f, g] = [ins.logs(z), outs.logs(z)];
    const pull = ({ means, precision }, k) =>
      means[k].map((m, i) => (m - z[i]) * precision[k]);
    const away = g.map((_, l) => pull(outs, l));
    return logQ + logsumexp(f.map((fk, k) => {
      const [u1, u2] = pull(ins, k);
      return -logsumexp(g.map((gl, l) => {
        const c = ins.precision[k] - outs.precision[l];
        const v = Math.hypot(u1 - away[l][0], u2 - away[l][1]);
        const rise = c > 0 && v < c * R ? (v * v) / (2 * c) : R * v - (c * R * R) / 2;
        return gl - fk - rise;
      }));
    }));
  };
  return { means: inside.means, logRatio, logBound, logTight };
}

function classifierOf(exported, { whiten, unwhiten }, points) {
  const net = network(exported.net, [2]);
  const mixed = exported.inside && bayes(exported);
  const classes = net.logits([0, 0]).length;
  const ceiling = (logB) => 1 / classes + (1 - 1 / classes) * Math.exp(logInside(logB));
  // log of (confidence - 1/M), by (6): no confidence is too near 1/M to be climbed.
  const height = (x, z = whiten(x)) => {
    const f = net.logits(x);
    const top = Math.max(...f);
    let sum = 0, lost = 0;
    for (const v of f) { sum += Math.exp(v - top); lost -= Math.expm1(v - top); }
    return Math.log(lost / (classes * sum)) + (mixed ? logInside(mixed.logRatio(z)) : 0);
  };
  const confidence = (x) => 1 / classes + Math.exp(height(x));
  const seeds = [...points.map(whiten), ...(mixed ? mixed.means : [])];
  const attack = (x, R) => {
    const z = strongest((at) => height(unwhiten(at), at), whiten(x), R, seeds);
    const point = unwhiten(z);
    return { point, confidence: confidence(point) };
  };
  return {
    ...exported, classes, height, confidence, attack,
    logits: (x) => Array.from(net.logits(x)),
    logRatio: (x) => (mixed ? mixed.logRatio(whiten(x)) : null),
    bound: (x, R) => (mixed ? ceiling(mixed.logBound(whiten(x), R)) : null),
    tight: (x, R) => (mixed ? ceiling(mixed.logTight(whiten(x), R)) : null),
  };
}

// The highest place in the ball: a polar grid and the seeds, then steps that shrink.
const RINGS = 6, ANGLES = 24;
const DIRECTIONS = Array.from({ length: 8 }, (_, k) =>
  [Math.cos((k * Math.PI) / 4), Math.sin((k * Math.PI) / 4)]);

function strongest(height, [c1, c2], R, seeds) {
  const at = (u, v) => {
    const long = Math.hypot(u, v);
    const shrink = long > R ? R / long : 1;
    const z = [c1 + shrink * u, c2 + shrink * v];
    return { u: shrink * u, v: shrink * v, z, height: height(z) };
  };
  const found = [at(0, 0)];
  if (R === 0) return found[0].z;
  for (let ring = 1; ring <= RINGS; ring++)
    for (let k = 0; k < ANGLES; k++) {
      const angle = (2 * Math.PI * (k + (ring % 2) / 2)) / ANGLES;
      const r = (R * ring) / RINGS;
      found.push(at(r * Math.cos(angle), r * Math.sin(angle)));
    }
  for (const z of seeds) found.push(at(z[0] - c1, z[1] - c2));
  found.sort((p, q) => q.height - p.height);
  const starts = [];
  for (const p of found) {
    const near = (q) => Math.hypot(p.u - q.u, p.v - q.v) < R / RINGS;
    if (starts.length < 3 && !starts.some(near)) starts.push(p);
  }
  return starts.map((start) => {
    let best = start;
    for (let step = R / RINGS; step > 1e-4 * R; step *= 0.5)
      for (let tries = 0; tries < 4; tries++) {
        const before = best;
        for (const [du, dv] of DIRECTIONS) {
          const next = at(before.u + step * du, before.v + step * dv);
          if (next.height > best.height) best = next;
        }
        if (best === before) break;
      }
    return best;
  }).reduce((p, q) => (q.height > p.height ? q : p)).z;
}

// From 1/M to 1, as a share of that range.
const shareOf = (confidence, classes) =>
  Math.min(Math.max((confidence - 1 / classes) / (1 - 1 / classes), 0), 1);

// ---- The field of confidence: coarse at once, then fine, kept by model and zoom ----

const BANDS = 10, COARSE = 31, FINE = 181, PIXELS = 480, PATIENCE = 10;
// Opacity of a band over the page: its lightness moves evenly, on white and on black.
const opacity = (share) => Math.min(Math.floor(BANDS * share), BANDS - 1) / (BANDS - 1);

// A field holds log-odds, signed by class: between its places they are nearly straight,
// and the seam between the classes stays where it is.
function fieldOf(model, half, drawn) {
  const field = { values: null, size: 0 };
  const odds = (x) => {
    const f = model.logits(x), share = shareOf(model.confidence(x), model.classes);
    return (f[0] < Math.max(...f) ? -2 : 2) * Math.atanh(Math.min(share, 1 - 1e-15));
  };
  const compute = function* (size) {
    const values = new Float32Array(size * size);
    const place = (i) => half * ((2 * i) / (size - 1) - 1);
    for (let row = 0; row < size; row++) {
      for (let column = 0; column < size; column++)
        values[row * size + column] = odds([place(column), -place(row)]);
      yield;
    }
    Object.assign(field, { values, size });
  };
  for (const _ of compute(COARSE));
  const rows = compute(FINE);
  const more = () => {
    const end = performance.now() + PATIENCE;
    while (performance.now() < end) if (rows.next().done) return drawn(field);
    return setTimeout(more, PATIENCE);
  };
  setTimeout(more, 0);
  return field;
}

function paint(context, { values, size }, [red, green, blue]) {
  const image = context.createImageData(PIXELS, PIXELS);
  for (let y = 0, to = 0; y < PIXELS; y++) {
    const v = (y * (size - 1)) / (PIXELS - 1), row = Math.min(Math.floor(v), size - 2);
    for (let x = 0; x < PIXELS; x++, to += 4) {
      const u = (x * (size - 1)) / (PIXELS - 1), column = Math.min(Math.floor(u), size - 2);
      const i = row * size + column, s = u - column, t = v - row;
      const value = (1 - t) * ((1 - s) * values[i] + s * values[i + 1])
        + t * ((1 - s) * values[i + size] + s * values[i + size + 1]);
      image.data[to] = red;
      image.data[to + 1] = green;
      image.data[to + 2] = blue;
      image.data[to + 3] = 255 * opacity(Math.tanh(Math.abs(value) / 2));
    }
  }
  context.putImageData(image, 0, 0);
}

// ---- The plane: field, points, ball, attack; dragged, tapped or moved by keys ----

const SIDE = 360;
// Ink with a light seam: it stands out on every colour, in light and in dark.
const seamed = (tag, attributes, kind = "") => draw("g", { class: `seamed ${kind}` },
  draw(tag, { ...attributes, class: "seam" }), draw(tag, { ...attributes, class: "ink" }));
const setAll = (node, attributes) => {
  for (const child of node.children) fill(child, attributes, []);
};

function planeOf({ points, near, unwhiten, pull, push, step }) {
  const sheet = el("canvas", { width: PIXELS, height: PIXELS, "aria-hidden": "true" });
  const marks = draw("g"), axes = draw("g", { class: "axes" });
  const ball = seamed("path", { fill: "none" }, "ball");
  const cross = seamed("path", { d: "M-6,-6L6,6M-6,6L6,-6" }, "attack");
  const centre = seamed("path", { d: "M-7,0H7M0,-7V7" }, "centre");
  const knob = draw("circle", { r: 6.5, class: "knob" });
  const rim = draw("path", { class: "grip rim" });
  const hold = draw("circle", { r: 16, class: "grip hold" });
  const handle = draw("circle", { r: 20, class: "grip rim" });
  const svg = draw("svg", { viewBox: `0 0 ${SIDE} ${SIDE}`, tabindex: 0, role: "application",
    "aria-roledescription": "plane with a ball",
    "aria-label": "Plane of the two moons. Arrow keys move the ball's centre, plus and "
      + "minus change its radius; with shift in small steps." },
  marks, axes, ball, cross, centre, knob, rim, handle, hold);
  let half = 1, middle = [0, 0];
  const X = (x) => (SIDE * (x + half)) / (2 * half), Y = (y) => X(-y);

  const zoom = (to) => {
    half = to;
    const size = 3.4 / Math.sqrt(half / near);
    marks.replaceChildren(...points.map(([x, y, label]) => draw("circle", {
      cx: X(x).toFixed(1), cy: Y(y).toFixed(1), r: size, class: `point class${label}` })));
    const values = ticks([-half, half], 6).filter((v) => Math.abs(v) < 0.8 * half);
    axes.replaceChildren(
      draw("path", { d: values.map((v) => `M${X(v)},${SIDE}v-6M0,${Y(v)}h6`).join("") }),
      ...values.map((v) => draw("text", { x: X(v), y: SIDE - 9, "text-anchor": "middle" },
        number(v))),
      ...values.map((v) => draw("text", { x: 9, y: Y(v) + 4 }, number(v))));
  };
  const place = (node, [x, y]) =>
    node.setAttribute("transform", `translate(${X(x).toFixed(2)},${Y(y).toFixed(2)})`);
  const show = ({ centre: at, z, R, found }) => {
    const edge = (angle) => unwhiten([z[0] + R * Math.cos(angle), z[1] + R * Math.sin(angle)]);
    const outline = Array.from({ length: 73 }, (_, k) => edge((2 * Math.PI * k) / 72));
    const d = "M" + outline.map(([x, y]) => `${X(x).toFixed(2)},${Y(y).toFixed(2)}`).join("L");
    setAll(ball, { d });
    rim.setAttribute("d", d);
    // The knob sits furthest from the middle, unless it would leave the picture.
    const away = ([x, y]) => Math.max(Math.abs(x), Math.abs(y));
    const inside = outline.filter((x) => away(x) < 0.96 * half);
    const last = inside.length ? inside : outline;
    const end = last.reduce((p, q) => (away(q) > away(p) === inside.length > 0 ? q : p));
    for (const node of [knob, handle]) place(node, end);
    middle = at;
    for (const node of [centre, hold]) place(node, at);
    place(cross, found);
  };

  const from = (event) => {
    const box = svg.getBoundingClientRect();
    return [half * ((2 * (event.clientX - box.left)) / box.width - 1),
      half * (1 - (2 * (event.clientY - box.top)) / box.height)];
  };
  let drag = null, pressed = false;
  const grasp = (event) => {
    if (event.target.classList.contains("rim")) return push;
    if (event.target !== hold) return event.pointerType === "mouse" ? pull : null;
    const [x, y] = from(event), [dx, dy] = [middle[0] - x, middle[1] - y];
    return ([x, y]) => pull([x + dx, y + dy]);
  };
  svg.addEventListener("pointerdown", (event) => {
    drag = grasp(event);
    pressed = drag !== null;
    if (!drag) return;
    svg.setPointerCapture(event.pointerId);
    drag(from(event));
  });
  svg.addEventListener("pointermove", (event) => { if (drag) drag(from(event)); });
  for (const end of ["pointerup", "pointercancel"])
    svg.addEventListener(end, () => { drag = null; });
  svg.addEventListener("touchstart", (event) => { if (drag) event.preventDefault(); },
    { passive: false });
  // A finger that starts on empty ground scrolls the page; its tap moves the centre.
  svg.addEventListener("click", (event) => {
    if (!pressed) pull(from(event));
  });
  svg.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [-1, 0, 0], ArrowRight: [1, 0, 0], ArrowUp: [0, 1, 0],
      ArrowDown: [0, -1, 0], "+": [0, 0, 1], "=": [0, 0, 1], "-": [0, 0, -1], _: [0, 0, -1] };
    const move = moves[event.key];
    if (!move || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    step(move, event.shiftKey);
  });
  const node = el("div", { class: "plane" }, sheet, svg);
  return { node, svg, context: sheet.getContext("2d"), zoom, show };
}

// ---- The reader's four numbers on one axis, from 1/M to 1 ----

function lanes(names, classes) {
  const rows = names.map(({ name, kind }) => ({
    name: el("span", { class: "what" }, name),
    number: el("span", { class: "number best" }),
    track: el("span", { class: `track ${kind}` }),
    bar: el("span", { class: "bar" }),
  }));
  const ends = [1 / classes, (1 + 1 / classes) / 2, 1];
  const node = el("div", { class: "lanes" },
    ...rows.map(({ name, number, track, bar }) => {
      track.append(bar);
      return el("div", { class: "lane" }, name, number, track);
    }),
    el("div", { class: "ends", "aria-hidden": "true" },
      ...ends.map((v) => el("span", {}, number(v)))));
  const show = (values) => rows.forEach(({ number, track, bar }, i) => {
    const value = values[i];
    number.textContent = value === null ? "none" : fixed(3)(value);
    track.classList.toggle("none", value === null);
    bar.style.width = `${100 * (value === null ? 0 : shareOf(value, classes))}%`;
  });
  return { node, show };
}

function legend(classes) {
  const bands = Array.from({ length: BANDS }, (_, i) =>
    el("i", { style: `opacity:${opacity((i + 0.5) / BANDS)}` }));
  return el("div", { class: "legend" },
    el("span", {}, "Confidence"),
    el("span", {}, number(1 / classes)),
    el("span", { class: "ramp", "aria-hidden": "true" }, ...bands),
    el("span", {}, "1"));
}

// ---- The playground ----

function moons() {
  const { points, half: near } = payload;
  const { whiten, unwhiten } = metric(payload);
  const models = payload.models.map((model) =>
    classifierOf(model, { whiten, unwhiten }, points));
  const byId = (id) => models.find((model) => model.id === id);
  const { node: status, say } = announcer();
  const colour = getComputedStyle(root).getPropertyValue("--model").trim();
  const ink = [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
  const zooms = [1, 3, 10].map((times) => times * near);
  const grid = near / 400;
  const snap = (v, low, high) =>
    Number((grid * Math.round(Math.min(Math.max(v, low), high) / grid)).toPrecision(12));
  const state = { model: byId("ccu") ?? models[0], half: near, centre: [0, 0], R: 0 };

  const set = ([x, y], R) => {
    const { half } = state;
    state.centre = [x, y].map((v) => snap(v, -half, half));
    state.R = snap(R, 0, 1.5 * half);
    show();
  };
  const plane = planeOf({
    points, near, unwhiten,
    pull: (x) => set(x, state.R),
    push: (x) => {
      const [u, v] = whiten(x), [u0, v0] = whiten(state.centre);
      set(state.centre, Math.hypot(u - u0, v - v0));
    },
    step: ([right, up, wider], small) => {
      const by = small ? grid : state.half / 40;
      set([state.centre[0] + by * right, state.centre[1] + by * up], state.R + by * wider);
    },
  });
  const place = { min: 0, max: 1, step: 1, value: 0, format: fixed(2) };
  const radius = slider({ ...place, label: "Radius R of the ball",
    help: "In the whitened plane, where the data have variance 1: there it is a circle.",
    input: (R) => set(state.centre, R) });
  const across = slider({ ...place, label: "Centre x₁",
    input: (x) => set([x, state.centre[1]], state.R) });
  const up = slider({ ...place, label: "Centre x₂",
    input: (y) => set([state.centre[0], y], state.R) });
  const values = lanes([
    { name: "At the centre", kind: "here" },
    { name: "Best attack in the ball ✕", kind: "found" },
    { name: "Ceiling of the ball, tighter (12)", kind: "tight" },
    { name: "Ceiling of the ball (10)", kind: "bound" },
  ], models[0].classes);
  const note = el("p", { class: "note" });

  const choice = (title, labels, pick) => {
    const all = labels.map((label, i) => button(label, () => pick(i)));
    const mark = (chosen) => all.forEach((one, i) =>
      one.setAttribute("aria-pressed", String(i === chosen)));
    return { node: el("div", { class: "buttons", role: "group", "aria-label": title }, ...all),
      mark };
  };
  const switching = choice("Model", models.map(({ name }) => name), (i) => {
    state.model = models[i];
    restage();
  });
  const zooming = choice("Zoom", zooms.map((half) => `±${half}`), (i) => {
    state.half = zooms[i];
    rescale();
  });

  const fields = new Map();
  const repaint = () => {
    const { model, half } = state, key = `${model.id} ${half}`;
    const now = () => state.model === model && state.half === half;
    if (!fields.has(key))
      fields.set(key, fieldOf(model, half, (field) => {
        if (now()) paint(plane.context, field, ink);
      }));
    paint(plane.context, fields.get(key), ink);
  };
  const told = ({ order, id, classes }) => {
    if (!order) return `${id === "oe" ? "Outlier exposure" : "A plain network"} has no `
      + "certificate: nothing bounds its confidence in a ball, or far away.";
    const [s, th] = order.map(fixed(2));
    return order[0] < order[1]
      ? `Widest in-component ${s} < widest out-component ${th}: by (9) confidence goes to `
        + `1/${classes} on every ray.`
      : `Widest in-component ${s} ≥ widest out-component ${th}: not certified far away. `
        + "The ceilings of a ball still hold.";
  };
  const measure = () => {
    const { model, centre, R } = state;
    const found = model.attack(centre, R);
    return { found, values: [model.confidence(centre), found.confidence,
      model.tight(centre, R), model.bound(centre, R)] };
  };
  const show = () => {
    const { model, centre, R } = state;
    const { found, values: four } = measure();
    plane.show({ centre, z: whiten(centre), R, found: found.point });
    values.show(four);
    radius.set(R);
    across.set(centre[0]);
    up.set(centre[1]);
    const [here, attacked, tight, bound] = four.map((v) => (v === null ? "none" : fixed(3)(v)));
    say(`${model.name}. Centre ${centre.map(fixed(2)).join(", ")}, radius ${fixed(2)(R)}: `
      + `confidence ${here}, found in the ball ${attacked}, ceiling ${bound}, `
      + `tighter ${tight}.`);
  };
  const restage = () => {
    switching.mark(models.indexOf(state.model));
    note.textContent = told(state.model);
    note.classList.toggle("warning", state.model.order?.[0] >= state.model.order?.[1]);
    repaint();
    show();
  };
  const rescale = () => {
    const { half, centre, R } = state;
    zooming.mark(zooms.indexOf(half));
    const ranges = [[radius, 0, 1.5 * half], [across, -half, half], [up, -half, half]];
    for (const [control, min, max] of ranges)
      fill(control.range, { min, max, step: grid }, []);
    plane.zoom(half);
    repaint();
    set(centre, R);
  };

  root.append(
    switching.node,
    el("div", { class: "columns two" },
      el("div", {}, plane.node, legend(models[0].classes),
        el("p", { class: "help key" }, "Moons: disc and ring. Drag the ball's centre "
          + "or its edge, or tap; ✕ is the surest place found in it."),
        el("div", { class: "far" }, el("span", { "aria-hidden": "true" }, "Zoom"),
          zooming.node)),
      el("div", {}, values.node, note, radius.node,
        el("div", { class: "pair" }, across.node, up.node))),
    status);
  const hook = (name) => (id, ...rest) => byId(id)[name](...rest);
  root.iclrtut = {
    logits: hook("logits"), logRatio: hook("logRatio"), height: hook("height"),
    confidence: hook("confidence"), bound: hook("bound"), tight: hook("tight"),
    attack: hook("attack"), whiten, unwhiten, set,
    state: () => ({ ...state, model: state.model.id }),
    values: () => measure().values,
    fine: () => fields.get(`${state.model.id} ${state.half}`).size === FINE,
    opacity,
  };
  // Begin where the ceilings part.
  state.centre = [0.1 * near, 0.55 * near];
  do state.R += 5 * grid;
  while (state.R < near && state.model.tight(state.centre, state.R) < 0.65);
  rescale();
  restage();
}

({ moons })[payload.mode]();
