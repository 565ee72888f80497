// Three nodes: force one, watch a network and the exact posterior learn their graph.
// {layers?, graphs, seed?}: the network by `figure`, and all acyclic graphs, [i][j]: i -> j.
// Without a network the exact posterior stands alone.
// A step is {target (-1: none), x: three values}. Numbers in brackets are the chapter's.

const NAMES = ["A", "B", "C"], NODES = [0, 1, 2];
const PAIRS = NODES.flatMap((i) => NODES.filter((j) => j !== i).map((j) => [i, j]));
const OTHERS = NODES.map((i) => NODES.filter((j) => j !== i));
const ALPHA = 5, TAU = 2, SPREAD = 8, DRAWS = 100, MOST = 40, TRAINED = 20;

// ---- The exact side: twelve scores, (6) and (8) ----

const total = (values) => values.reduce((sum, v) => sum + v, 0);
const { graphs } = payload;
const parentsOf = (graph, i) => OTHERS[i].filter((j) => graph[j][i]);
const shape = (p) => (ALPHA - 3 + p + 1) / 2;

// log of the gamma function at half of a whole number.
const LOG_GAMMA = [NaN, Math.log(Math.PI) / 2, 0];
function logGamma(twice) {
  for (let k = LOG_GAMMA.length; k <= twice; k++)
    LOG_GAMMA.push(LOG_GAMMA[k - 2] + Math.log((k - 2) / 2));
  return LOG_GAMMA[twice];
}

// For each node: steps that left it free, and tau I + sum x x^T over them.
const nothing = () => NODES.map(() => ({ m: 0,
  R: NODES.map((j) => NODES.map((k) => (j === k ? TAU : 0))) }));
const add = (seen, { target, x }) => seen.map(({ m, R }, i) => (i === target ? { m, R } : {
  m: m + 1, R: R.map((row, j) => row.map((v, k) => v + x[j] * x[k])) }));

// R_PP = L L^T, the mean of the weights, and what is left of R_ii after regression on P.
function regression(R, P, i) {
  const L = P.map(() => []), z = [];
  P.forEach((j, a) => {
    for (let b = 0; b <= a; b++) {
      const rest = R[j][P[b]] - total(L[b].slice(0, b).map((v, c) => v * L[a][c]));
      L[a].push(a === b ? Math.sqrt(rest) : rest / L[b][b]);
    }
    z.push((R[j][i] - total(z.map((v, c) => v * L[a][c]))) / L[a][a]);
  });
  return { L, mean: backward(L, z), left: R[i][i] - total(z.map((v) => v * v)) };
}

// The w with L^T w = z.
function backward(L, z) {
  const w = z.slice();
  for (let a = z.length - 1; a >= 0; a--) {
    for (let b = a + 1; b < z.length; b++) w[a] -= L[b][a] * w[b];
    w[a] /= L[a][a];
  }
  return w;
}

function nodeScore({ m, R }, i, P) {
  const p = P.length, a = shape(p), { L, left } = regression(R, P, i);
  const small = 2 * total(L.map((row, k) => Math.log(row[k]))); // log |R_P|
  return -(m / 2) * Math.log(Math.PI) + logGamma(2 * a + m) - logGamma(2 * a)
    + (a + p / 2) * Math.log(TAU) - (a + m / 2) * (small + Math.log(left))
    + (a + m / 2 - 0.5) * small;
}

const logSoftmax = (values) => {
  const level = logsumexp(values);
  return values.map((v) => v - level);
};

// log p(graph | data), (9).
function posterior(seen) {
  const scores = NODES.map((i) => [[], [OTHERS[i][0]], [OTHERS[i][1]], OTHERS[i]]
    .map((P) => nodeScore(seen[i], i, P)));
  return logSoftmax(graphs.map((graph) => total(NODES.map((i) =>
    scores[i][OTHERS[i].reduce((set, j, bit) => set + (graph[j][i] << bit), 0)]))));
}

const entropy = (logP) => -total(logP.map((v) => (v > -700 ? Math.exp(v) * v : 0)));
const divergence = (logP, logQ) =>
  total(logP.map((v, g) => (v > -700 ? Math.exp(v) * (v - logQ[g]) : 0)));
const arrows = (logP) => PAIRS.map(([i, j]) =>
  total(logP.map((v, g) => graphs[g][i][j] * Math.exp(v))));

// ---- Worlds, (1) and (2), and the gain of forcing a node, (12) ----

// Marsaglia and Tsang, for shapes of 1 and more.
function gamma(a, { uniform, normal }) {
  const d = a - 1 / 3;
  for (;;) {
    const x = normal(), v = (1 + x / Math.sqrt(9 * d)) ** 3;
    if (v > 0 && Math.log(1 - uniform()) < (x * x) / 2 + d * (1 - v + Math.log(v))) return d * v;
  }
}

// Parameters of a graph from the posterior; from the prior, where nothing was seen.
const parameters = (seen, graph, rng) => NODES.map((i) => {
  const P = parentsOf(graph, i), { m, R } = seen[i];
  const { L, mean, left } = regression(R, P, i);
  const scale = Math.sqrt(left / 2 / gamma(shape(P.length) + m / 2, rng));
  const bend = backward(L, P.map(() => rng.normal()));
  return { P, scale, weights: mean.map((w, k) => w + scale * bend[k]) };
});

function respond(nodes, target, value, noise) {
  const x = [0, 0, 0];
  NODES.forEach(() => nodes.forEach(({ P, scale, weights }, i) => {
    x[i] = i === target ? value
      : scale * noise[i] + total(P.map((j, k) => weights[k] * x[j]));
  }));
  return x;
}

function gains(seen, logP, rng, draws = DRAWS) {
  const sums = [0, 0, 0];
  for (let d = 0; d < draws; d++) {
    let u = rng.uniform();
    const at = logP.findIndex((v) => (u -= Math.exp(v)) < 0);
    const nodes = parameters(seen, graphs[at < 0 ? graphs.length - 1 : at], rng);
    const noise = NODES.map(() => rng.normal()), value = SPREAD * rng.normal();
    for (const target of NODES) {
      const x = respond(nodes, target, value, noise);
      sums[target] += divergence(posterior(add(seen, { target, x })), logP);
    }
  }
  return sums.map((v) => v / draws);
}

// ---- The network: linear, ReLU, a GRU cell, a read-out ----

const learned = Boolean(payload.layers);
const [inside, fromInput, fromState, hidden, outside] =
  (payload.layers ?? []).map((layer) => linear(layer));
const relu = (v) => Math.max(v, 0);

// The state after one more step, and what the network believes then.
function read(state, { target, x }) {
  const seen = [...x.map(Math.asinh), ...x.map((v) => v / 8),
    ...NODES.map((i) => Number(i === target))];
  const a = fromInput.forward(inside.forward(seen).map(relu)), b = fromState.forward(state);
  const n = state.length;
  const next = state.map((h, k) => {
    const keep = sigmoid(a[n + k] + b[n + k]);
    const fresh = Math.tanh(a[2 * n + k] + sigmoid(a[k] + b[k]) * b[2 * n + k]);
    return (1 - keep) * fresh + keep * h;
  });
  const logits = outside.forward(hidden.forward(next).map(relu));
  return { state: next, logQ: logSoftmax(Array.from(logits)) };
}

// Both beliefs after each step; before any, the prior.
function compute(steps) {
  const flat = logSoftmax(graphs.map(() => 0));
  let seen = nothing();
  let now = { state: new Float64Array(learned ? hidden.shape[0] : 0), logQ: flat };
  const path = [{ seen, logP: flat, logQ: flat }];
  for (const step of steps) {
    seen = add(seen, step);
    if (learned) now = read(now.state, step);
    path.push({ seen, logP: posterior(seen), logQ: now.logQ });
  }
  return path;
}

// ---- The pictures ----

const TONES = { network: "var(--model)", exact: "var(--exact)" };
const PLACES = [[100, 34], [34, 148], [166, 148]], RADIUS = 21;

// Three nodes and six arrows, as dark and as thick as they are believed.
function diagram(title, tone, click) {
  const lines = PAIRS.map(([i, j]) => {
    const [[x, y], [u, v]] = [PLACES[i], PLACES[j]];
    const long = Math.hypot(u - x, v - y), [c, s] = [(u - x) / long, (v - y) / long];
    const at = (along, aside) =>
      `${(x + along * c - aside * s).toFixed(1)},${(y + along * s + aside * c).toFixed(1)}`;
    const end = long - RADIUS - 3;
    const line = draw("path", { d: `M${at(RADIUS, 6)}L${at(end - 9, 6)}`, stroke: tone });
    const head = draw("path", { fill: tone,
      d: `M${at(end, 6)}L${at(end - 12, 0)}L${at(end - 12, 12)}Z` });
    const node = draw("g", { class: "arrow" }, line, head);
    const truth = draw("path", { class: "truth", d: `M${at(RADIUS, 6)}L${at(end, 6)}`,
      stroke: "currentColor", "stroke-width": 2, "stroke-dasharray": "2 4" });
    truth.style.display = "none";
    return { node, line, truth };
  });
  const circles = NODES.map((i) => draw("g", { class: "node", onclick: () => click(i),
    style: "cursor:pointer" },
  draw("circle", { cx: PLACES[i][0], cy: PLACES[i][1], r: RADIUS, fill: "transparent",
    stroke: "currentColor", "stroke-width": 2 }),
  draw("text", { x: PLACES[i][0], y: PLACES[i][1] + 5, "text-anchor": "middle",
    "font-weight": 700, style: "font-size:15px" }, NAMES[i])));
  const node = draw("svg", { viewBox: "0 0 200 182", class: "plot", role: "img",
    style: "max-width:250px" },
  ...lines.flatMap((one) => [one.node, one.truth]), ...circles);
  const show = (shares, graph) => {
    lines.forEach(({ node: arrow, line, truth }, e) => {
      arrow.setAttribute("opacity", (0.06 + 0.94 * shares[e]).toFixed(3));
      line.setAttribute("stroke-width", (1 + 5 * shares[e]).toFixed(2));
      truth.style.display = graph && graph[PAIRS[e][0]][PAIRS[e][1]] ? "" : "none";
    });
    node.setAttribute("aria-label", `${title}: ${PAIRS.map(([i, j], e) =>
      `${NAMES[i]} to ${NAMES[j]} ${percent(shares[e])}`).join(", ")}.`);
  };
  return { node, show };
}

// The values so far, a strip a node: dots, and squares where they were forced. A dashed
// line marks the value to force next.
function strips(steps, next) {
  const chart = draw("svg", { viewBox: "0 0 340 132", class: "plot", role: "img",
    style: "max-width:425px" });
  const X = (v) => 184 + 150 * Math.max(-1, Math.min(1, Math.asinh(v) / Math.asinh(100)));
  chart.append(draw("path", { d: `M${X(next)},6V112`, stroke: "currentColor",
    "stroke-dasharray": "3 4" }));
  NODES.forEach((i) => {
    const y = 20 + 38 * i;
    chart.append(draw("text", { x: 4, y: y + 5, "font-weight": 700 }, NAMES[i]),
      draw("path", { d: `M34,${y}H334`, stroke: "var(--line)" }),
      draw("path", { d: `M184,${y - 8}V${y + 8}`, stroke: "var(--line)" }));
    steps.forEach(({ target, x }, t) => {
      const last = t === steps.length - 1;
      const look = { fill: last ? "var(--failure)" : "var(--data)", opacity: last ? 1 : 0.55 };
      chart.append(target === i
        ? draw("rect", { x: X(x[i]) - 5, y: y - 5, width: 10, height: 10, ...look })
        : draw("circle", { cx: X(x[i]), cy: y, r: last ? 6 : 4, ...look }));
    });
  });
  [-50, -5, 0, 5, 50].forEach((v) => chart.append(
    draw("text", { x: X(v), y: 128, "text-anchor": "middle" }, number(v))));
  const last = steps.at(-1);
  chart.setAttribute("aria-label", last
    ? `The last of ${steps.length} samples: ${NODES.map((i) =>
      `${NAMES[i]} ${fixed(1)(last.x[i])}${i === last.target ? " (forced)" : ""}`).join(", ")}.`
    : "No sample yet.");
  return chart;
}

const LINES = {
  exact: { stroke: TONES.exact, "stroke-width": 2.5, "stroke-dasharray": "9 4" },
  ...learned && {
    network: { stroke: TONES.network, "stroke-width": 2.5 },
    gap: { stroke: "var(--failure)", "stroke-width": 2.5, "stroke-dasharray": "2 3" },
  },
};

function curves(path) {
  const steps = path.length - 1, end = Math.max(10, steps);
  const values = {
    exact: path.map(({ logP }) => entropy(logP)),
    network: path.map(({ logQ }) => entropy(logQ)),
    gap: path.map(({ logP, logQ }) => divergence(logP, logQ)),
  };
  const top = Math.max(3.4, ...learned ? values.gap : []);
  const chart = plot({ x: [0, end], y: [0, top], width: 340, height: 170,
    xlabel: "samples", ylabel: "nats", xticks: ticks([0, 0.7 * end]).filter(Number.isInteger) });
  for (const [name, look] of Object.entries(LINES))
    chart.inside.append(draw("path", { class: name, fill: "none", ...look,
      d: chart.path(values[name].map((_, t) => t), values[name]) }),
    draw("circle", { cx: chart.X(steps), cy: chart.Y(values[name].at(-1)), r: 3.5,
      fill: look.stroke }));
  chart.node.setAttribute("aria-label", `After ${steps} samples: ${Object.keys(LINES)
    .map((name) => `${KEYS[name]} ${fixed(2)(values[name].at(-1))}`).join(", ")} nats.`);
  return chart.node;
}

const KEYS = { exact: "exact entropy", network: "network's entropy", gap: "gap KL" };
const key = (name) => el("span", { class: "key" }, draw("svg", { viewBox: "0 0 30 8",
  class: "swatch", "aria-hidden": "true" }, draw("path", { d: "M0,4H30", ...LINES[name] })),
KEYS[name]);

// ---- The playground ----

function playground() {
  const state = { seed: payload.seed ?? 1, value: 8, steps: [], revealed: false };
  const { node: status, say } = announcer();
  const strip = el("div"), curve = el("div"), note = el("p", { class: "note" });
  let world = null, path = null, told = null;

  const begin = (seed) => {
    const rng = random(seed), graph = graphs[Math.floor(rng.uniform() * graphs.length)];
    world = { graph, nodes: parameters(nothing(), graph, rng) };
    Object.assign(state, { seed, steps: [], revealed: false });
    show();
  };
  const force = (target) => {
    if (state.steps.length >= MOST) return;
    const rng = random(state.seed * 1009 + state.steps.length + 2 ** 31);
    const noise = NODES.map(() => rng.normal());
    const x = respond(world.nodes, target, state.value, noise);
    state.steps = [...state.steps, { target, x }];
    show();
  };
  const diagrams = [diagram("The network", TONES.network, force),
    diagram("The exact posterior", TONES.exact, force)];
  const gainOf = NODES.map(() => el("span", { class: "number" }));
  const buttons = [...NODES.map((i) => button("", () => force(i))),
    button("Only watch", () => force(-1))];
  NODES.forEach((i) => buttons[i].append(`Force ${NAMES[i]} · +`, gainOf[i]));
  const reveal = button("Reveal the graph", () => {
    state.revealed = !state.revealed;
    show();
  }, { "aria-pressed": "false" });

  const words = () => {
    const { logP, logQ } = path.at(-1), t = state.steps.length;
    const best = Math.max(...logP), ties = logP.filter((v) => v > best - 1e-9).length;
    const truth = PAIRS.filter(([i, j]) => world.graph[i][j])
      .map(([i, j]) => `${NAMES[i]}→${NAMES[j]}`).join(", ") || "no arrow";
    const at = graphs.indexOf(world.graph);
    return `World ${state.seed}, ${t} sample${t === 1 ? "" : "s"}. Exact: `
      + `${fixed(2)(entropy(logP))} nats open`
      + (learned ? `; the network ${fixed(2)(entropy(logQ))}, and `
        + `${fixed(2)(divergence(logP, logQ))} nats away. ` : ". ")
      + (ties > 1 ? `${ties} graphs share the lead. ` : "")
      + (learned && t > TRAINED ? `The network was trained on ${TRAINED} samples. ` : "")
      + (state.revealed ? `The graph: ${truth}; exact gives it ${percent(Math.exp(logP[at]))}`
        + (learned ? `, the network ${percent(Math.exp(logQ[at]))}.` : ".") : "");
  };
  const show = () => {
    path = compute(state.steps);
    const { seen, logP, logQ } = path.at(-1);
    told = gains(seen, logP, random(state.seed + 77 * state.steps.length));
    const best = Math.max(...told);
    gainOf.forEach((node, i) => {
      node.textContent = fixed(2)(told[i]);
      node.classList.toggle("best", told[i] === best);
    });
    buttons.forEach((one) => { one.disabled = state.steps.length >= MOST; });
    [logQ, logP].forEach((log, k) =>
      diagrams[k].show(arrows(log), state.revealed ? world.graph : null));
    strip.replaceChildren(strips(state.steps, state.value));
    curve.replaceChildren(curves(path));
    reveal.setAttribute("aria-pressed", String(state.revealed));
    note.textContent = words();
    say(note.textContent);
  };

  const titled = ["The network", "Exact posterior"].map((title, k) =>
    el("div", {}, el("div", { class: "title" }, title), diagrams[k].node));
  root.append(
    learned ? el("div", { class: "pair" }, ...titled) : titled[1],
    el("div", { class: "columns two" },
      el("div", {},
        el("div", { class: "buttons" }, ...buttons),
        slider({ label: "Value to force", min: -16, max: 16, step: 1, value: state.value,
          format: number, input: (value) => {
            state.value = value;
            strip.replaceChildren(strips(state.steps, value));
          },
          help: "Or click a node. +: nats expected of forcing it to a random value." }).node),
      el("div", {}, note, el("div", { class: "buttons" }, reveal,
        button("New graph", () => begin(state.seed + 1))))),
    el("div", { class: "columns two" },
      el("div", {}, strip),
      el("div", {}, curve, el("div", { class: "legend keys" },
        ...Object.keys(LINES).map(key)))),
    status);
  root.iclrtut = {
    compute, gains, nodeScore, nothing, add, posterior, parameters, respond, random, arrows,
    entropy, divergence, graphs, state: () => structuredClone(state), world: () => world,
    path: () => path, told: () => told,
  };
  begin(state.seed);
}

playground();
