// Two planes, weights W and a warp's coordinates P: descents roll in both.
// {mode: "first" | "full", starts: {landscape: [low, high]}, warps: {landscape:
//  {"10" | "11": [{w, b, W, B, c} of x, the same of y]}}, seed?}; "first" has no warps.
// Numbers in brackets are the chapter's equations.

// ---- Landscapes: losses and gradients at a point of W ----

const whole = (rng, low, high) => low + Math.floor((high - low + 1) * rng.uniform());

const valley = {
  title: "valley", start: [-2.2, 1.2], steps: 30, rate: 0.02, rates: [0.005, 0.2, 0.005],
  levels: (_, high) => Array.from({ length: 9 }, (_, k) => high * 0.45 ** (k + 1)),
  sample: (rng) => [4 * rng.uniform() - 2, 0.3 * rng.normal()],
  lowest: ([at, e]) => [at, 0.8 * Math.sin(1.5 * at) + e],
  loss: ([x, y], [at, e]) =>
    (x - at) ** 2 / 2 + 5 * (y - 0.8 * Math.sin(1.5 * x) - e) ** 2,
  slope([x, y], [at, e]) {
    const up = 10 * (y - 0.8 * Math.sin(1.5 * x) - e);
    return [x - at - 1.2 * Math.cos(1.5 * x) * up, up];
  },
};

// The paper's appendix D. `parts` are three terms without their signs.
const parts = ([x, y], [a1, a2, a3, b1, b2, b3, s]) => {
  const near = Math.exp(-x * x - y * y);
  return [b1 * (a1 - x) ** 2 * Math.exp(-x * x - (y + a2) ** 2),
    b2 * near * (x / s - x ** 3 - y ** 5), b3 * Math.exp(-((x + a3) ** 2) - y * y), near];
};

const mountains = {
  title: "mountains", start: [-1, 1], steps: 100, rate: 0.1, rates: [0.02, 0.5, 0.02],
  levels: (low, high) => Array.from({ length: 11 }, (_, k) =>
    low + ((k + 0.5) / 11) * (high - low)),
  sample: (rng) => [...[1, 2, 3].map(() => whole(rng, -1, 1)),
    ...[1, 2, 3].map(() => whole(rng, -5, 5)), whole(rng, 1, 10)],
  lowest: (task) => lowest(mountains, task),
  loss(point, task) {
    const [first, second, third] = parts(point, task);
    return first - second - third;
  },
  slope([x, y], task) {
    const [a1, a2, a3, b1, b2, , s] = task;
    const [first, second, third, near] = parts([x, y], task);
    const bump = b1 * Math.exp(-x * x - (y + a2) ** 2);
    return [-2 * bump * (a1 - x) - 2 * x * first
      - b2 * near * (1 / s - 3 * x * x) + 2 * x * second + 2 * (x + a3) * third,
    -2 * (y + a2) * first + 5 * b2 * near * y ** 4 + 2 * y * second + 2 * y * third];
  },
};

// The lowest point of a picture: the best of a grid, then steps that shrink.
function lowest({ loss }, task) {
  const half = 3.6;
  let best = [0, 0];
  const better = (point) => {
    const holds = Math.abs(point[0]) <= half && Math.abs(point[1]) <= half
      && loss(point, task) < loss(best, task);
    if (holds) best = point;
    return holds;
  };
  for (let i = 0; i <= 60; i++) for (let j = 0; j <= 60; j++)
    better([half * (i / 30 - 1), half * (j / 30 - 1)]);
  for (let step = half / 30; step > 1e-7;) {
    const [x, y] = best;
    if (![[step, 0], [-step, 0], [0, step], [0, -step]]
      .some(([u, v]) => better([x + u, y + v]))) step /= 2;
  }
  return best;
}

// ---- The warp gamma = Omega(theta): x by y, then y by x, and J' g ----

// Log-scale and shift, then their derivatives, of the coordinate that is given.
const learned = ({ w, b, W: [scale, shift], B, c }) => (given) => {
  const out = [B[0], B[1], 0, 0];
  w.forEach((weight, i) => {
    const h = Math.tanh(weight * given + b[i]), dh = weight * (1 - h * h);
    out[0] += scale[i] * h;
    out[1] += shift[i] * h;
    out[2] += scale[i] * dh;
    out[3] += shift[i] * dh;
  });
  const s = Math.tanh(out[0] / 2);
  return [2 * s + c, out[1], (1 - s * s) * out[2], out[3]];
};

// By hand for the valley: five times as wide, and what all its members share undone.
const WRITTEN = [() => [Math.log(5), 0, 0, 0], (x) => [Math.log(5 / Math.sqrt(10)),
  0.8 * Math.sin(1.5 * x), 0, 1.2 * Math.cos(1.5 * x)]];

function warp([ofX, ofY], strength) {
  const scaled = (f) => (given) => f(given).map((v) => strength * v);
  const [first, second] = [scaled(ofX), scaled(ofY)];
  const forward = ([u, v]) => {
    const [s, t] = first(v), x = u * Math.exp(s) + t, [r, d] = second(x);
    return [x, v * Math.exp(r) + d];
  };
  const inverse = ([x, y]) => {
    const [r, d] = second(x), v = (y - d) * Math.exp(-r), [s, t] = first(v);
    return [(x - t) * Math.exp(-s), v];
  };
  const pull = ([u, v], [gx, gy]) => {
    const [s, t, ds, dt] = first(v), wide = Math.exp(s);
    const [r, , dr, dd] = second(u * wide + t), tall = Math.exp(r);
    const through = gx + gy * (v * tall * dr + dd);
    return [through * wide, gy * tall + through * (u * wide * ds + dt)];
  };
  return { forward, inverse, pull };
}

// ---- Descents ----

const MOST = 100, FAR = 1000, SOLVED = 1e-3;

// Points on the way; the list ends where descent diverges.
function descend(slope, start, rate, momentum = 0) {
  const path = [start];
  let speed = [0, 0];
  for (let k = 0; k < MOST; k++) {
    const at = path[k], g = slope(at);
    speed = speed.map((v, i) => momentum * v + g[i]);
    const next = at.map((v, i) => v - rate * speed[i]);
    if (!(Math.hypot(...next) < FAR)) break;
    path.push(next);
  }
  return path;
}

// A start in W is one place for all. In P it is numbers: the warp starts at Omega(theta),
// SGD and momentum at the same numbers, and a fourth run where the warp does.
function compute({ field, task, nets, space, point, rate, momentum, strength }) {
  const omega = warp(nets, strength), plain = (at) => field.slope(at, task);
  const pulled = (at) => omega.pull(at, plain(omega.forward(at)));
  const inside = space === "P", bottom = field.lowest(task), floor = field.loss(bottom, task);
  const run = (W, P = W.map(omega.inverse)) => {
    const losses = W.map((at) => Math.max(field.loss(at, task) - floor, 0));
    const solved = losses.findIndex((v) => v < SOLVED);
    return { W, P, losses, solved };
  };
  const theta = inside ? point : omega.inverse(point);
  const rolled = descend(pulled, theta, rate);
  const runs = {
    sgd: run(descend(plain, point, rate)),
    momentum: run(descend(plain, point, rate, momentum)),
    warped: run(rolled.map(omega.forward), rolled),
  };
  if (inside) runs.moved = run(descend(plain, omega.forward(theta), rate));
  return { omega, bottom, runs };
}

const LOOKS = {
  sgd: { name: "SGD", stroke: "var(--baseline)", "stroke-dasharray": "5 2",
    mark: "M0,-5L5,4H-5Z" },
  momentum: { name: "Momentum", stroke: "var(--baseline)", "stroke-dasharray": "1 2.5",
    mark: "M-4,-4H4V4H-4Z" },
  warped: { name: "Warped SGD", stroke: "var(--model)", "stroke-dasharray": "none",
    mark: "M0,-5.5A5.5,5.5,0,1,1,0,5.5A5.5,5.5,0,1,1,0,-5.5Z" },
  moved: { name: "SGD from Ω(θ)", stroke: "var(--baseline)", "stroke-dasharray": "8 2 2 2",
    mark: "M0,5L5,-4H-5Z" },
};
const line = (look) => ({ stroke: look.stroke, "stroke-width": 2.5, fill: "none",
  "stroke-dasharray": look["stroke-dasharray"], "vector-effect": "non-scaling-stroke" });

// ---- A pane: contours, the grid of W, paths; clicked, tapped or moved by keys ----

const SIDE = 200, CELLS = 56;

// Lines where a function has a level, square by square.
function contours(f, place, levels) {
  const values = Array.from({ length: CELLS + 1 }, (_, j) =>
    Array.from({ length: CELLS + 1 }, (_, i) => f(place(i / CELLS, j / CELLS))));
  const corners = [[0, 0], [1, 0], [1, 1], [0, 1]], to = SIDE / CELLS;
  const cut = (level, i, j) => corners.flatMap(([a, b], k) => {
    const [c, d] = corners[(k + 1) % 4];
    const [p, q] = [values[j + b][i + a] - level, values[j + d][i + c] - level];
    const t = p / (p - q);
    return p < 0 === q < 0 || !Number.isFinite(t) ? [] : [`${
      (to * (i + a + t * (c - a))).toFixed(1)},${(to * (j + b + t * (d - b))).toFixed(1)}`];
  });
  return levels.map((level) => {
    let d = "";
    for (let j = 0; j < CELLS; j++) for (let i = 0; i < CELLS; i++) {
      const ends = cut(level, i, j);
      for (let k = 0; k + 1 < ends.length; k += 2) d += `M${ends[k]}L${ends[k + 1]}`;
    }
    return d;
  });
}

function pane(name, click, aimed) {
  const ground = draw("g"), grid = draw("path", { fill: "none", stroke: "currentColor",
    opacity: 0.3, "vector-effect": "non-scaling-stroke", "stroke-dasharray": "1 3" });
  const axes = draw("g", { class: "axes" }), paths = draw("g");
  const cursor = draw("path", { d: "M-9,0H9M0,-9V9", stroke: "currentColor", fill: "none",
    "stroke-width": 1.5, visibility: "hidden" });
  const svg = draw("svg", { viewBox: `0 0 ${SIDE} ${SIDE}`, tabindex: 0,
    role: "application", "aria-roledescription": "plane to start from" },
  ground, grid, axes, paths, cursor);
  const title = el("div", { style: "white-space:nowrap" }, `${name}, weights`);
  const node = el("div", { style: "min-width:0" }, title,
    el("div", { class: "plane" }, svg));
  let middle = [0, 0], half = 1, at = [0, 0];
  const X = (x) => (SIDE / 2) * (1 + (x - middle[0]) / half);
  const Y = (y) => (SIDE / 2) * (1 - (y - middle[1]) / half);
  const place = (u, v) => [middle[0] + half * (2 * u - 1), middle[1] + half * (1 - 2 * v)];
  const near = (v) => Math.max(-9 * SIDE, Math.min(9 * SIDE, v)).toFixed(1);
  const spot = ([x, y]) => `${near(X(x))},${near(Y(y))}`;
  const text = (x, y, anchor, content) => draw("text", { x, y, "text-anchor": anchor,
    style: "font-size:calc(12px * var(--unit, 1));font-weight:400" }, content);

  // A place in the middle of the picture; the grid's lines are given in this plane.
  const frame = (window, f, levels, lines) => {
    [middle, half] = window;
    ground.replaceChildren(...contours(f, place, levels).map((d, k) => draw("path", { d,
      fill: "none", stroke: "currentColor", opacity: (0.7 - 0.045 * k).toFixed(3),
      "vector-effect": "non-scaling-stroke" })));
    grid.setAttribute("d", lines.map((points) => `M${points.map(spot).join("L")}`).join(""));
    const own = (i) => ticks([middle[i] - (i ? 0.75 : 0.85) * half, middle[i] + 0.85 * half]);
    axes.replaceChildren(
      draw("path", { "vector-effect": "non-scaling-stroke",
        d: own(0).map((v) => `M${near(X(v))},${SIDE}v-4`).join("")
          + own(1).map((v) => `M0,${near(Y(v))}h4`).join("") }),
      ...own(0).map((v) => text(X(v), SIDE - 7, "middle", short(v))),
      ...own(1).map((v) => text(7, Y(v) + 4, "start", short(v))));
  };
  const show = ({ start, bottom, runs, steps, label }) => {
    paths.replaceChildren(...Object.entries(runs).flatMap(([id, run]) => {
      const way = run[name].slice(0, steps + 1), look = LOOKS[id];
      return [draw("path", { ...line(look), class: id, d: `M${way.map(spot).join("L")}` }),
        draw("path", { d: way.map((p) => `M${spot(p)}h0`).join(""), stroke: look.stroke,
          "stroke-width": 5, "stroke-linecap": "round",
          "vector-effect": "non-scaling-stroke" }),
        draw("path", { d: look.mark, fill: look.stroke, stroke: "currentColor",
          transform: `translate(${spot(way.at(-1))})` })];
    }),
    draw("path", { d: "M0,-6L6,0L0,6L-6,0Z", fill: "none", stroke: "var(--exact)",
      "stroke-width": 2.5, class: "bottom", transform: `translate(${spot(bottom)})` }),
    draw("circle", { r: 5, fill: "none", stroke: "var(--data)", "stroke-width": 2.5,
      class: "start", transform: `translate(${spot(start)})` }));
    svg.setAttribute("aria-label", label);
  };

  new ResizeObserver(() => svg.style.setProperty("--unit",
    SIDE / Math.max(svg.clientWidth, 1))).observe(svg);
  svg.addEventListener("click", (event) => {
    const box = svg.getBoundingClientRect();
    click(place((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height));
  });
  const aim = (seen) => {
    cursor.setAttribute("visibility", seen ? "visible" : "hidden");
    cursor.setAttribute("transform", `translate(${spot(at)})`);
  };
  svg.addEventListener("focus", () => {
    if (!svg.matches(":focus-visible")) return;
    at = place(0.5, 0.5);
    aim(true);
  });
  svg.addEventListener("blur", () => aim(false));
  svg.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1],
      ArrowDown: [0, -1], Enter: [0, 0] };
    const move = moves[event.key];
    if (!move || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    const by = half / (event.shiftKey ? 100 : 15);
    at = at.map((v, i) => Math.max(middle[i] - half, Math.min(middle[i] + half,
      v + by * move[i])));
    aim(true);
    if (event.key === "Enter") click(at); else aimed(at);
  });
  return { node, frame, show, name: (words) => { title.textContent = words; } };
}

// ---- Words and numbers ----

const short = (v) => minus(String(Number(v.toPrecision(2))));
const pair = (point) => `(${point.map((v) => short(v)).join(", ")})`;
const lossAt = ({ losses }, n) => losses[n] ?? Infinity;
const told = (v) => (v === Infinity ? "diverged" : v < SOLVED ? "< 0.001"
  : v > 999 ? "> 999" : Number(v.toPrecision(3)) + "");
const solvedIn = ({ solved }) => (solved < 0 ? "never"
  : `${solved} step${solved === 1 ? "" : "s"}`);
const join = (names) => (names.length < 2 ? names.join("")
  : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`);

// Those whose loss is the lowest, or as good as that.
function best(runs, n) {
  const least = Math.min(...Object.values(runs).map((run) => lossAt(run, n)));
  return least === Infinity ? []
    : Object.keys(runs).filter((id) => lossAt(runs[id], n) <= least + SOLVED);
}

function table(head, rows) {
  const cell = (tag, content, i, scope = false) => el(tag, { scope,
    class: i ? "number" : false,
    style: `padding:0.15rem 0 0.15rem 0.5rem;text-align:${i ? "right" : "left"}` }, content);
  return el("table", { style: "width:100%;margin:0;font-size:0.9em;line-height:1.3" },
    el("thead", {}, el("tr", {}, ...head.map((one, i) => cell("th", one, i, "col")))),
    el("tbody", {}, ...rows.map(([first, ...rest]) => el("tr", {},
      cell("th", first, 0, "row"), ...rest.map((one) => cell("td", one, 1))))));
}

const key = (id) => el("span", { class: "key", style: "font-weight:400" },
  draw("svg", { viewBox: "0 0 34 14", style: "width:34px;height:14px", "aria-hidden": "true" },
    draw("path", { ...line(LOOKS[id]), d: "M0,7H34" }),
    draw("path", { d: LOOKS[id].mark, fill: LOOKS[id].stroke, stroke: "currentColor",
      transform: "translate(17,7)" })), LOOKS[id].name);

// ---- The playground ----

const FIELDS = { valley, mountains };
const GRID = 9; // starts along a side, where a case is looked for

function playground() {
  const full = payload.mode === "full", { warps = { valley: { hand: null } } } = payload;
  const names = Object.keys(warps), still = matchMedia("(prefers-reduced-motion: reduce)");
  const state = { name: names[0], seed: payload.seed ?? 1, objective: "", space: "W",
    point: [0, 0], rate: 0, momentum: 0.9, strength: 1, steps: 30, shown: 30,
    revealed: false, guess: null, search: "" };
  const { node: status, say } = announcer();
  const numbers = el("div"), data = el("div", { style: "overflow-x:auto", tabindex: 0,
    role: "region", "aria-label": "Data of these paths" });
  const verdict = el("p", { style: "font-weight:700" }), note = el("p", { class: "help" });
  let task = null, made = null, levels = null, timer = 0;

  const field = () => FIELDS[state.name];
  const nets = () => (full ? warps[state.name][state.objective].map(learned) : WRITTEN);
  const asked = () => ({ ...state, field: field(), task, nets: nets() });
  const half = () => 1.2 * payload.starts[state.name][1][0];

  // The box of starts as lines, straight where a start is given and bent by the warp.
  const lines = (map) => {
    const [[x0, y0], [x1, y1]] = payload.starts[state.name], all = [];
    const along = (low, high) => Array.from({ length: 33 }, (_, i) =>
      low + (i / 32) * (high - low));
    for (const x of along(x0, x1).filter((_, i) => i % 4 === 0))
      all.push(along(y0, y1).map((y) => map([x, y])));
    for (const y of along(y0, y1).filter((_, i) => i % 8 === 0))
      all.push(along(x0, x1).map((x) => map([x, y])));
    return all;
  };
  const windowOf = (points) => {
    const ends = [0, 1].map((i) => [Math.min, Math.max].map((f) =>
      f(...points.map((p) => p[i]))));
    return [ends.map(([a, b]) => (a + b) / 2),
      1.2 * Math.max(...ends.map(([a, b]) => (b - a) / 2))];
  };

  // ---- What is shown ----

  const panes = {
    W: pane("W", (gamma) => begin(state.space === "W" ? gamma : made.omega.inverse(gamma)),
      (at) => say(`W ${pair(at)}. Enter starts here.`)),
    P: pane("P", (theta) => begin(state.space === "P" ? theta : made.omega.forward(theta)),
      (at) => say(`P ${pair(at)}. Enter starts here.`)),
  };

  const frame = () => {
    made = compute(asked());
    const { omega } = made, { loss } = field(), given = lines((at) => at);
    const bent = lines(omega.inverse), inP = state.space === "P";
    const inside = windowOf([...bent.flat(), ...(inP ? given.flat() : [])]);
    const times = half() / inside[1];
    panes.W.frame([[0, 0], half()], (at) => loss(at, task), levels,
      inP ? lines(omega.forward) : given);
    panes.P.frame(inside, (at) => loss(omega.forward(at), task), levels, inP ? given : bent);
    panes.P.name(`P${full ? `, warp (${state.objective})` : ""}`
      + (Math.abs(times - 1) < 0.05 ? "" : `, ${short(times)}×`));
    show();
  };
  const labelOf = (name) => {
    const { runs, bottom, omega } = made, n = state.shown;
    const inP = (at) => (name === "W" ? at : omega.inverse(at));
    const ends = state.revealed ? Object.entries(runs).map(([id, run]) =>
      `${LOOKS[id].name} ends at ${pair(run[name][Math.min(n, run[name].length - 1)])}`)
      : ["paths are hidden until you predict"];
    return `${name}, ${field().title}: lowest at ${pair(inP(bottom))}. From `
      + `${pair(runs.warped[name][0])}, ${n} steps: ${ends.join("; ")}. Arrow keys move a `
      + "cross, Enter starts there.";
  };
  const words = () => Object.entries(made.runs).map(([id, run]) =>
    `${LOOKS[id].name} ${told(lossAt(run, state.steps))}, `
    + `${run.solved < 0 ? "never at" : `${run.solved} steps to`} 0.001`).join("; ");
  const show = () => {
    const { runs, bottom, omega } = made, n = state.shown, open = state.revealed;
    for (const name of ["W", "P"]) panes[name].show({ start: runs.warped[name][0],
      bottom: name === "W" ? bottom : omega.inverse(bottom), runs: open ? runs : {},
      steps: n, label: labelOf(name) });
    const hidden = (text) => (open ? text : "?");
    numbers.replaceChildren(table(["Above lowest", "start", `step ${n}`, "to 0.001"],
      Object.entries(runs).map(([id, run]) => [key(id), told(run.losses[0]),
        hidden(told(lossAt(run, n))), hidden(solvedIn(run))])));
    const at = [0, 1, 2, 5, 10, 20, 30, 50, MOST];
    data.replaceChildren(table(["Step", ...Object.keys(runs).map((id) => LOOKS[id].name)],
      at.map((k) => [String(k), ...Object.values(runs).map((run) =>
        (k && !open ? "?" : told(lossAt(run, k))))])));
    const won = best(runs, state.steps), lead = join(won.map((id) => LOOKS[id].name));
    const right = state.guess ? `${won.includes(state.guess) ? "Right" : "Not so"}. ` : "";
    const rolling = open && n < state.steps;
    verdict.textContent = !open ? `Which is lowest at step ${state.steps}?`
      : rolling ? `Step ${n} of ${state.steps} …`
        : won.length ? `${right}Lowest at step ${state.steps}: ${lead}.`
          : `${right}All have diverged.`;
    choices.style.display = open ? "none" : "";
    note.textContent = remark();
    if (rolling) return;
    if (open) say(`${verdict.textContent} Above the lowest loss: ${words()}. ${remark()}`);
    else say(`Start ${pair(state.point)}. ${verdict.textContent}`);
  };
  const remark = () => state.search || (state.space === "P"
    ? `θ = ${pair(state.point)}: the warp starts at Ω(θ), SGD and momentum at the same `
      + "numbers, one more SGD at Ω(θ)."
    : state.objective === "11" ? "(11) also pays for dragging points, by (13)."
      : state.strength === 0 ? "Strength 0: Ω is the identity, and warped SGD is SGD."
        : full ? "Click a start in either plane."
          : "This warp is written by hand: it undoes the bend that all valleys share.");

  // ---- What the reader does ----

  const roll = () => {
    clearTimeout(timer);
    state.shown = still.matches || !state.revealed ? state.steps : 0;
    const on = () => {
      show();
      if (state.shown < state.steps) timer = setTimeout(next, 1200 / state.steps);
    };
    const next = () => {
      state.shown += 1;
      on();
    };
    on();
  };
  const begin = (point) => {
    Object.assign(state, { point, guess: null, search: "" });
    made = compute(asked());
    roll();
  };
  const reveal = (guess) => {
    Object.assign(state, { revealed: true, guess });
    roll();
  };
  // A slider shows what it does at once, predicted or not.
  const set = (name, framed) => (value) => {
    clearTimeout(timer);
    Object.assign(state, { [name]: value, revealed: true, guess: null, search: "" });
    state.shown = state.steps;
    if (framed) return frame();
    made = compute(asked());
    show();
  };
  const choices = el("div", { class: "buttons", role: "group", style: "margin:0",
    "aria-label": "Your prediction" },
  ...["sgd", "momentum", "warped"].map((id) => button(LOOKS[id].name, () => reveal(id))));

  const stage = (name, seed) => {
    const { loss, sample, start } = FIELDS[name], rng = random(1009 * seed);
    const changed = name !== state.name || !state.rate;
    Object.assign(state, { name, seed, point: start, space: "W", revealed: false,
      guess: null, search: "", objective: Object.keys(warps[name])[0], strength: 1 });
    const reach = half(), side = Array.from({ length: 25 }, (_, i) => reach * (i / 12 - 1));
    let low, high;
    do { // flat ones have nothing to descend
      task = sample(rng);
      const values = side.flatMap((x) => side.map((y) => loss([x, y], task)));
      [low, high] = [Math.min(...values), Math.max(...values)];
    } while (high - low < 2);
    levels = FIELDS[name].levels(low, high);
    if (changed) {
      const { rate, steps, rates: [min, max, step] } = FIELDS[name];
      fill(controls.rate.range, { min, max, step }, []);
      Object.assign(state, { rate, steps });
    }
    redo();
  };
  const redo = () => {
    controls.rate.set(state.rate);
    controls.strength.set(state.strength);
    controls.steps.set(state.steps);
    mark();
    frame();
    roll();
  };

  // The start of a grid from which one run is furthest behind the other.
  const search = (behind, ahead) => {
    const [[x0, y0], [x1, y1]] = payload.starts[state.name], { rate } = field();
    Object.assign(state, { space: "W", objective: Object.keys(warps[state.name])[0],
      strength: 1, rate, revealed: false, guess: null });
    const short = (run) => Math.log(Math.max(Math.min(lossAt(run, state.steps), 1e3), 1e-4));
    let count = 0, most = -Infinity;
    for (let i = 0; i < GRID; i++) for (let j = 0; j < GRID; j++) {
      const point = [x0 + (i / (GRID - 1)) * (x1 - x0), y0 + (j / (GRID - 1)) * (y1 - y0)];
      const { runs } = compute({ ...asked(), point });
      count += lossAt(runs[behind], state.steps) > lossAt(runs[ahead], state.steps) + SOLVED;
      const gap = short(runs[behind]) - short(runs[ahead]);
      if (gap > most) { most = gap; state.point = point; }
    }
    state.search = `${LOOKS[behind].name} is behind ${LOOKS[ahead].name} after ${state.steps} `
      + `steps from ${count} of ${GRID * GRID} starts; `
      + `${count ? "this is the worst" : "this one is nearest to it"}.`;
    redo();
  };
  const off = () => {
    Object.assign(state, { strength: 0, point: field().start, revealed: false, guess: null,
      search: "" });
    redo();
  };
  const other = button("Trained by (11)", () => {
    const trained = Object.keys(warps[state.name]);
    const next = trained[(trained.indexOf(state.objective) + 1) % trained.length];
    Object.assign(state, { objective: next, strength: 1, point: field().start,
      revealed: false, guess: null, search: "" });
    redo();
  });
  const spaces = ["W", "P"].map((space) => button(space, () => {
    if (state.space === space) return;
    Object.assign(state, { space, search: "", guess: null });
    redo();
  }));
  const fresh = button("New task", () => stage(state.name, state.seed + 1));
  const places = names.map((name) => button(name[0].toUpperCase() + name.slice(1),
    () => stage(name, 1)));
  const mark = () => {
    const press = (one, on) => one.setAttribute("aria-pressed", String(on));
    spaces.forEach((one, i) => press(one, state.space === "WP"[i]));
    places.forEach((one, i) => press(one, state.name === names[i]));
    press(other, state.objective === "11");
    other.disabled = full && Object.keys(warps[state.name]).length < 2;
  };

  const place = { min: 0, max: 1, step: 0.1, value: 1 };
  const controls = {
    rate: slider({ ...place, label: "Rate", format: number, input: set("rate") }),
    momentum: slider({ ...place, label: "Momentum", max: 0.95, step: 0.05, value: 0.9,
      format: fixed(2), input: set("momentum") }),
    strength: slider({ ...place, label: "Warp strength", format: fixed(1),
      input: set("strength", true) }),
    steps: slider({ ...place, label: "Steps", min: 1, max: MOST, step: 1,
      value: state.steps, format: String, input: set("steps") }),
  };
  const shownControls = Object.entries(controls).filter(([name]) => full || name !== "momentum");
  const row = (label, ...buttons) => el("div", { class: "buttons", role: "group",
    "aria-label": label, style: "align-items:center;margin:0.25rem 0" }, ...buttons);
  root.append(
    el("div", { class: "pair", style: "column-gap:0.6rem;max-width:42rem" },
      panes.W.node, panes.P.node),
    el("div", { style: "display:flex;flex-wrap:wrap;align-items:center;gap:0.3rem 0.75rem;"
      + "min-height:40px;margin:0.3rem 0" }, verdict, choices), note,
    numbers,
    el("div", { style: "display:grid;gap:0 1rem;grid-template-columns:"
      + "repeat(auto-fit,minmax(8.5rem,1fr))" }, ...shownControls.map(([, { node }]) => {
      node.style.margin = 0;
      return node;
    })),
    full ? row("Landscape", ...(names.length > 1 ? places : []), fresh,
      el("span", {}, "Start in"), ...spaces,
      ...(Object.values(warps).some((one) => "11" in one) ? [other] : []))
      : row("Landscape", fresh),
    ...(full ? [row("Cases", button("SGD fails", () => search("sgd", "warped")),
      button("Warp fails", () => search("warped", "sgd")), button("Warp off", off))] : []),
    el("details", {}, el("summary", {}, "Data of these paths"), data),
    status);
  root.iclrtut = {
    loss: (name, point, task) => FIELDS[name].loss(point, task),
    slope: (name, point, task) => FIELDS[name].slope(point, task),
    lowest: (name, task) => FIELDS[name].lowest(task),
    forward: (point, strength) => warp(nets(), strength).forward(point),
    inverse: (point, strength) => warp(nets(), strength).inverse(point),
    pull: (point, g, strength) => warp(nets(), strength).pull(point, g),
    runs: () => made.runs, state: () => structuredClone({ ...state, task }),
    aim: (given) => { task = given; frame(); },
  };
  stage(state.name, state.seed);
}

playground();
