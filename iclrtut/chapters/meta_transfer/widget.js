// Two learners of one joint, A -> B and B -> A, adapt to a change; A causes B.
// {site?, N?, size?, rate?, examples?, sharpness?, seed?}: where the controls begin.
// Tables are log probabilities, [a][b]. Numbers in brackets are the chapter's equations.

const EPISODES = 200;
const A_B = "A→B", B_A = "B→A";

// ---- A world and its change, from a seed ----

const normalise = (logs) => {
  const level = logsumexp(logs);
  return logs.map((v) => v - level);
};

// Marsaglia and Tsang at a + 1, then log G(a) = log G(a + 1) + log U / a: no underflow.
function logGamma(a, { uniform, normal }) {
  const boost = Math.log(1 - uniform()) / a, d = a + 2 / 3;
  for (;;) {
    const x = normal(), v = (1 + x / Math.sqrt(9 * d)) ** 3;
    if (v > 0 && Math.log(1 - uniform()) < (x * x) / 2 + d * (1 - v + Math.log(v)))
      return Math.log(d * v) + boost;
  }
}

// Each component has its own stream, so that the draw moves smoothly with a slider.
const logDirichlet = (n, concentration, rng) => normalise(Array.from({ length: n }, () =>
  logGamma(concentration, random(2 ** 32 * rng.uniform()))));

function worldOf({ site, N, size, sharpness, seed }) {
  const rng = random(seed);
  const flat = () => logDirichlet(N, 1, rng);
  const rows = () => Array.from({ length: N }, () => logDirichlet(N, sharpness, rng));
  const [cause, otherCause, law] = [flat(), flat(), flat()];
  const [effect, otherEffect] = [rows(), rows()];
  const to = {
    cause: [otherCause, effect],
    effect: [cause, effect.map(() => law)], // B no longer listens to A
    mechanism: [cause, otherEffect],
  }[site];
  const move = (old, goal) => normalise(old.map((v, i) => v + size * (goal[i] - v)));
  const joint = (first, second) => second.map((row, a) => row.map((v) => first[a] + v));
  return {
    logP: joint(cause, effect),
    logStar: joint(move(cause, to[0]), effect.map((row, a) => move(row, to[1][a]))),
  };
}

// Episodes of examples; shorter ones are the beginnings of longer ones.
function sample(logJoint, examples, seed) {
  const { uniform } = random(seed);
  const ladders = learn(logJoint).logs.map((row) => {
    let sum = 0;
    return row.map((v) => (sum += Math.exp(v)));
  });
  const pick = (ladder, u) => ladder.findIndex((v) => u * ladder.at(-1) < v);
  const a = [], b = [];
  for (let e = 0; e < EPISODES; e++) {
    const own = random(2 ** 32 * uniform());
    a.push([]);
    b.push([]);
    for (let t = 0; t < examples; t++) {
      a[e].push(pick(ladders[0], own.uniform()));
      b[e].push(pick(ladders[a[e][t] + 1], own.uniform()));
    }
  }
  return { a, b };
}

// ---- Learners: N + 1 softmaxes, the marginal and then a row for each category ----

const total = (values) => values.reduce((sum, v) => sum + v, 0);
const average = (values) => total(values) / values.length;
const squares = (values) => values.reduce((sum, v) => sum + v * v, 0);
const transposed = (table) => table[0].map((_, j) => table.map((row) => row[j]));

// First index -> second: logs of each softmax, and what its KL weighs.
function learn(logJoint) {
  const marginal = logJoint.map(logsumexp);
  return {
    logs: [marginal, ...logJoint.map((row, i) => row.map((v) => v - marginal[i]))],
    mass: [1, ...marginal.map(Math.exp)],
  };
}

// One softmax of logits z: its shares p, its level, its part of KL(P* || P).
function softmaxed(z, goal) {
  const n = z.length, p = new Array(n);
  let top = -Infinity, sum = 0, kl = 0;
  for (let j = 0; j < n; j++) if (z[j] > top) top = z[j];
  for (let j = 0; j < n; j++) sum += p[j] = Math.exp(z[j] - top);
  const level = top + Math.log(sum);
  for (let j = 0; j < n; j++) {
    p[j] /= sum;
    kl += goal.weights[j] * (goal.logs[j] - z[j] + level);
  }
  return { z, p, level, kl };
}

// One step of SGD, towards an example's one-hot vector or the weights of the goal.
function stepped({ z, p }, goal, rate, wanted, mass) {
  const next = new Array(z.length);
  for (let j = 0; j < z.length; j++) next[j] = z[j] + rate * (wanted[j] - mass * p[j]);
  return softmaxed(next, goal);
}

function learner(logP, logStar) {
  const before = learn(logP), after = learn(logStar);
  const goals = after.logs.map((logs, k) => ({
    logs, mass: after.mass[k], weights: logs.map((v) => after.mass[k] * Math.exp(v)),
  }));
  const start = before.logs.map((z, k) => softmaxed(z, goals[k]));
  const klOf = (all) => total(all.map(({ kl }) => kl));
  const one = logP.map((_, i) => logP.map((_, j) => Number(i === j)));

  // KL before and after each example, and log-likelihoods before each step, (4).
  const adapt = (xs, ys, rate) => {
    const at = start.slice(), logs = [];
    const log = (k, i) => at[k].z[i] - at[k].level;
    let kl = klOf(start);
    const kls = [kl];
    const step = (k, i) => {
      const next = stepped(at[k], goals[k], rate, one[i], 1);
      kl += next.kl - at[k].kl;
      at[k] = next;
    };
    xs.forEach((x, t) => {
      logs.push(log(0, x) + log(x + 1, ys[t]));
      step(0, x);
      step(x + 1, ys[t]);
      kls.push(kl);
    });
    return { kls, logs };
  };
  const population = (steps, rate) => {
    let at = start;
    return [klOf(at), ...Array.from({ length: steps }, () => {
      at = at.map((now, k) => stepped(now, goals[k], rate, goals[k].weights, goals[k].mass));
      return klOf(at);
    })];
  };
  const centred = (logs) => logs.map((v) => v - average(logs));
  const apart = (z, logs) => centred(z.map((v, j) => v - logs[j]));
  return {
    adapt, population,
    G: total(start.map(({ p }, k) => // (5)
      squares(p.map((v, j) => goals[k].mass * v - goals[k].weights[j])))),
    parts: [start[0].kl, klOf(start.slice(1))], // (6)
    D: total(start.map(({ z }, k) => squares(apart(z, goals[k].logs)))), // (8)
  };
}

// Forward is A -> B, everywhere first; a, b are [episodes][examples].
function compute({ logP, logStar, a, b, rate }) {
  const both = [learner(logP, logStar), learner(transposed(logP), transposed(logStar))];
  const runs = [a, b].map((xs, side) => xs.map((x, e) =>
    both[side].adapt(x, [b, a][side][e], rate)));
  const [forward, backward] = runs;
  const pairs = forward.map((run, e) => [run, backward[e]]);
  return {
    kl: runs.map((all) => all[0].kls.map((_, t) => average(all.map(({ kls }) => kls[t])))),
    population: both.map(({ population }) => population(a[0].length, rate)),
    gaps: pairs.map(([f, g]) => g.kls.at(-1) - f.kls.at(-1)),
    // The first example says nothing: both learners start at the same joint, (4).
    deltas: pairs.map(([f, g]) => total(f.logs.map((v, t) => (t ? v - g.logs[t] : 0)))),
    D: both.map(({ D }) => D),
    parts: both.map(({ parts }) => parts),
    G: both.map(({ G }) => G),
  };
}

// ---- Gamma ----

// RMSprop down the slope (11), from 0.
function follow(deltas, rate = 0.01) {
  let gamma = 0, v = 0;
  return [0, ...deltas.map((delta) => {
    const slope = sigmoid(gamma) - sigmoid(gamma + delta);
    v = 0.99 * v + 0.01 * slope * slope;
    return (gamma -= (rate * slope) / (Math.sqrt(v) + 1e-8));
  })];
}

// (12), by bisection; null where no episode tells the learners apart.
function fixedPoint(deltas) {
  if (deltas.every((delta) => delta === 0)) return null;
  const inverse = deltas.map((delta) => 1 / Math.expm1(delta));
  let low = 0, high = 1;
  for (let k = 0; k < 60; k++) {
    const p = (low + high) / 2;
    if (total(inverse.map((v) => 1 / (p + v))) > 0) low = p;
    else high = p;
  }
  return (low + high) / 2;
}

// ---- The pictures ----

const LINES = [
  { stroke: "var(--model)", "stroke-width": 2.5 },
  { stroke: "var(--baseline)", "stroke-width": 2.5, "stroke-dasharray": "9 4" },
];
const THIN = ["7 3 2 3", "2 3"].map((dashes) => (
  { stroke: "var(--exact)", "stroke-width": 1.5, "stroke-dasharray": dashes }));
const rounded = (digits) => {
  const { format } = new Intl.NumberFormat("en", { maximumSignificantDigits: digits });
  return (v) => (Math.abs(v) < 1e-12 ? "0" : minus(format(v)));
};
const short = rounded(3), rough = rounded(1);

function curves({ kl, population }) {
  const steps = kl[0].length - 1;
  const top = Math.max(...kl.flat()); // population steps of a rate below 4 only descend
  const scale = top < 0.02 ? 1000 : 1;
  const chart = plot({ x: [0, steps], y: [0, scale * top * 1.02], width: 340, height: 200,
    xlabel: steps === 1 ? "example" : "examples",
    ylabel: scale === 1 ? "KL(P*‖P), nats" : "KL(P*‖P), nats / 1,000",
    xticks: ticks([0, 0.7 * steps]).filter(Number.isInteger) });
  const line = (values, look) => draw("path", { fill: "none", ...look,
    d: chart.path(values.map((_, t) => t), values.map((v) => scale * v)) });
  chart.inside.append(...population.map((values, i) => line(values, THIN[i])),
    ...kl.map((values, i) => line(values, LINES[i])));
  const [f, g] = kl.map((values) => short(values.at(-1)));
  chart.node.setAttribute("aria-label", `KL from the new joint, ${short(kl[0][0])} nats at `
    + `the start; after ${steps} ${f} for ${A_B} and ${g} for ${B_A}.`);
  return chart.node;
}

function pathOf(gammas, fixed_) {
  const chart = plot({ x: [0, EPISODES], y: [0, 1], width: 340, height: 200,
    xlabel: "episodes", ylabel: `σ(γ), belief in ${A_B}`, xticks: [0, 50, 100] });
  const shares = gammas.map(sigmoid), end = shares.at(-1);
  const X = chart.X(EPISODES), Y = chart.Y(end);
  const goal = fixed_ === null ? "p*: none" : `p* = ${fixed(3)(fixed_)}`;
  chart.inside.append(
    draw("path", { d: chart.across(0.5), stroke: "var(--line)" }),
    draw("text", { x: chart.right, y: 14, "text-anchor": "end" }, goal));
  if (fixed_ !== null) chart.inside.append(draw("path", { ...THIN[0], "stroke-width": 2.5,
    class: "fixed", d: chart.across(fixed_) }));
  const wrong = end < 0.495; // 0.49 and less
  chart.inside.append(
    draw("path", { class: "gamma", fill: "none", stroke: "currentColor", "stroke-width": 2.5,
      d: chart.path(shares.map((_, e) => e), shares) }),
    wrong
      ? draw("path", { d: `M${X - 6},${Y - 6}l12,12m0,-12l-12,12`, stroke: "var(--failure)",
        "stroke-width": 4 })
      : draw("circle", { cx: X, cy: Y, r: 6, fill: "currentColor" }),
    draw("text", { x: X - 4, y: Y + (wrong ? -14 : 24), "text-anchor": "end",
      "font-weight": 700 }, `${fixed(2)(end)}${wrong ? ", wrong" : ""}`));
  chart.node.setAttribute("aria-label", `σ(γ) from 0.50 to ${fixed(2)(end)} after `
    + `${EPISODES} episodes; fixed point ${goal}.`);
  return chart.node;
}

const swatch = (look) => draw("svg", { viewBox: "0 0 30 8", class: "swatch",
  "aria-hidden": "true" }, draw("path", { d: "M0,4H30", ...look }));
const key = (text, ...looks) => el("span", { class: "key" }, ...looks.map(swatch), text);

// Signed bars: difference over sum of two numbers, to the right for A -> B.
function compass() {
  const lane = () => {
    const [name, says, why] = ["what", "number best", "help"].map((kind) =>
      el("span", { class: kind }));
    const bar = el("span", { class: "bar" });
    const node = el("div", { class: "lane" }, name, says,
      el("span", { class: "track" }, bar), why);
    const show = ({ title, verdict, numbers, share }) => {
      name.textContent = title;
      says.textContent = verdict;
      why.textContent = numbers;
      bar.className = share < 0 ? "bar back" : "bar";
      bar.style.left = `${50 + 50 * Math.min(share, 0)}%`;
      bar.style.width = `${50 * Math.abs(share)}%`;
    };
    return { node, show };
  };
  const lanes = Array.from({ length: 4 }, lane);
  const node = el("div", { class: "lanes compass" },
    el("div", { class: "ends", "aria-hidden": "true" },
      ...[`← ${B_A}`, "difference / sum", `${A_B} →`].map((text) => el("span", {}, text))),
    ...lanes.map((one) => one.node));
  return { node, show: (all) => lanes.forEach((one, i) => one.show(all[i])) };
}

// ---- The playground ----

const LOGARITHMIC = [0.01, 0.1, 1, 10].flatMap((power) =>
  [1, 1.5, 2, 3, 5, 7].map((m) => Number((m * power).toPrecision(2))));
const named = (sign) => (sign > 0 ? A_B : sign < 0 ? B_A : "neither");

function playground() {
  const state = { site: "cause", N: 10, size: 1, rate: 0.3, examples: 40, sharpness: 1,
    seed: 1, ...payload };
  const { node: status, say } = announcer();
  const seen = el("div"), path = el("div");
  const verdicts = compass();
  const note = el("p", { class: "note" });
  let result = null;

  const measure = () => {
    const world = worldOf(state);
    const episodes = sample(world.logStar, state.examples, state.seed + 2 ** 31);
    const found = compute({ ...world, ...episodes, rate: state.rate });
    const gap = average(found.gaps);
    const error = Math.sqrt(squares(found.gaps.map((v) => v - gap))) / EPISODES;
    return { ...found, gap, error, leads: Math.abs(gap) > 2 * error ? Math.sign(gap) : 0,
      gammas: follow(found.deltas), fixed: fixedPoint(found.deltas) };
  };
  const after = () => `${state.examples} example${state.examples === 1 ? "" : "s"}`;
  const predictor = (title, [plus, less], numbers) => {
    const sign = Math.sign(plus - less);
    const right = sign === result.leads ? "✓ right" : "✗ wrong";
    return { title, numbers, share: (plus - less) / (plus + less) || 0,
      verdict: `${named(sign)} ${result.leads ? right : "· undecided"}` };
  };
  const judged = () => {
    const { kl, gap, error, leads, D, parts: [[klA], [klB]], G } = result;
    const [f, g] = kl.map((values) => values.at(-1));
    const each = ([x, y], digits = 3) =>
      `${A_B} ${rounded(digits)(x)}, ${B_A} ${rounded(digits)(y)}`;
    return [
      { title: `Outcome after ${after()}`, share: (g - f) / (g + f) || 0,
        verdict: leads ? `${named(leads)} leads` : "too close to call",
        numbers: `KL: ${each([f, g])}; gap ${short(gap)} ± ${rough(error)}` },
      predictor("Distance D (8)", [D[1], D[0]], `${each(D, 4)}; smaller leads`),
      predictor("Shift in the marginal (6)", [klA, klB],
        `KL of P(A) ${short(klA)}, of P(B) ${short(klB)}; larger leads`),
      predictor("First step G (5)", G, `${each(G)}; larger leads`),
    ];
  };
  const told = () => {
    const { gap, error, leads, gammas, fixed: p } = result;
    const who = leads === 0 ? "Neither learner leads clearly"
      : `${named(leads)}, the ${leads > 0 ? "true" : "wrong"} direction, leads`;
    const by = leads === 0 ? `(gap ${short(gap)} ± ${rough(error)} nats)`
      : `by ${short(Math.abs(gap))} nats`;
    return `World ${state.seed}: the ${state.site} changes. ${who} ${by} after ${after()}. `
      + `σ(γ) stands at ${fixed(2)(sigmoid(gammas.at(-1)))} after ${EPISODES} episodes, `
      + `${p === null ? "for none moves it" : `which pull it to ${fixed(2)(p)}`}. `
      + `The truth is always ${A_B}.`;
  };
  const show = () => {
    result = measure();
    seen.replaceChildren(curves(result));
    path.replaceChildren(pathOf(result.gammas, result.fixed));
    verdicts.show(judged());
    note.textContent = told();
    note.classList.toggle("warning", result.leads < 0);
    say(note.textContent);
  };

  const set = (name) => (value) => { state[name] = value; show(); };
  const dial = (name, label, options) =>
    slider({ label, value: state[name], input: set(name), ...options }).node;
  const logDial = (name, label, values, help) =>
    dial(name, label, { min: 0, max: values.length - 1, step: 1, help,
      value: values.indexOf(state[name]), format: (i) => number(values[i]),
      input: (i) => set(name)(values[i]) });
  const group_ = `site${Math.random()}`;
  const sites = ["cause", "effect", "mechanism"].map((site) => el("label", {},
    el("input", { type: "radio", name: group_, value: site, checked: site === state.site,
      autocomplete: "off", onchange: () => set("site")(site) }), site));

  root.append(
    el("fieldset", { class: "switch" }, el("legend", {}, "What changes"), ...sites),
    el("div", { class: "columns two" },
      el("div", {}, seen, el("div", { class: "legend keys" }, key(A_B, LINES[0]),
        key(B_A, LINES[1]), key("population steps", ...THIN))),
      path),
    el("div", { class: "columns two" },
      el("div", { class: "pair settings" },
        dial("N", "Categories N", { min: 2, max: 20, step: 1 }),
        dial("size", "Size of change", { min: 0.05, max: 1, step: 0.05, format: fixed(2) }),
        logDial("rate", "Learning rate", LOGARITHMIC.filter((v) => v <= 3)),
        dial("examples", "Examples", { min: 1, max: 100, step: 1 }),
        logDial("sharpness", "Sharpness α",
          LOGARITHMIC.filter((v) => v <= 10).reverse(), "Rows of P(B|A): Dirichlet(α)"),
        el("div", { class: "buttons" },
          button("New world", () => set("seed")(state.seed + 1)))),
      el("div", {}, note, verdicts.node)),
    status);
  root.iclrtut = {
    compute, follow, fixedPoint, logDirichlet, random, sample, world: worldOf,
    state: () => ({ ...state }), result: () => result,
  };
  show();
}

playground();
