// Two tables, four pictures of log-ratios and their sum; the generator's table may follow it.
// {mode: "pictures" | "flow", p, q}: tables of three rows and columns, each of sum 1.
// Numbers in brackets are the chapter's equations.

const SIDE = [0, 1, 2], CELLS = SIDE.flatMap((i) => SIDE.map((j) => [i, j]));
const FLOOR = -200, LIMIT = 40, STEP = 0.1; // as in `walk`; when training ends; a step
const moving = payload.mode === "flow";

// ---- Tables: nine numbers, row by row ----

const total = (values) => values.reduce((sum, v) => sum + v, 0);
const exp = (values) => values.map(Math.exp), logs = (values) => values.map(Math.log);
const rows = (t) => SIDE.map((i) => t[3 * i] + t[3 * i + 1] + t[3 * i + 2]);
const columns = (t) => SIDE.map((j) => t[j] + t[3 + j] + t[6 + j]);
const spread = (r, c) => CELLS.map(([i, j]) => r[i] * c[j]);
const product = (t) => spread(rows(t), columns(t));
const minusEach = (a, b) => a.map((v, k) => v - b[k]);
const kl = (a, b) => total(a.map((v, k) => (v > 0 ? v * Math.log(v / b[k]) : 0)));

// log c becomes log [c / ((1 - 1/B) + c / B)], (6).
const permuted = (logC, B) => logC.map((v) =>
  v - logsumexp([Math.log1p(-1 / B), v - Math.log(B)]));

// The four logits of (5); `parts` is a table with the marginals of the loose parts, (11).
function ratios(p, q, parts = p) {
  const [r1, r2] = [rows(parts), columns(parts)], [q1, q2] = [rows(q), columns(q)];
  return {
    first: CELLS.map(([i]) => Math.log(r1[i] / q1[i])),
    second: CELLS.map(([, j]) => Math.log(r2[j] / q2[j])),
    cP: minusEach(logs(p), logs(product(p))),
    cQ: minusEach(logs(q), logs(product(q))),
  };
}

const NAMES = ["first", "second", "cP", "cQ"], SIGN = { first: 1, second: 1, cP: 1, cQ: -1 };
const capped = (r, batch) => (batch ? { ...r, cP: permuted(r.cP, batch),
  cQ: permuted(r.cQ, batch) } : r);
const summed = (r, on, batch) => {
  const logits = capped(r, batch);
  return CELLS.map((_, k) => total(NAMES.map((name) =>
    (on[name] ? SIGN[name] * logits[name][k] : 0))));
};

// A step of the flow on log q, (7).
function follow(p, logQ, h, on, { parts = p, batch = 0 } = {}) {
  const S = summed(ratios(p, exp(logQ), parts), on, batch);
  const raised = logQ.map((v, k) => v + h * S[k]), level = logsumexp(raised);
  return raised.map((v) => Math.max(v - level, FLOOR));
}

function walk(p, q, time, steps, on, more) {
  let logQ = logs(q);
  for (let t = 0; t < steps; t++) logQ = follow(p, logQ, time / steps, on, more);
  return exp(logQ);
}

// Both marginals of p, tilted towards the last row and column.
function tilted(p, tilt) {
  const lean = (v) => {
    const raised = v.map((share, k) => share * Math.exp(tilt * (k - 1)));
    return raised.map((share) => share / total(raised));
  };
  return spread(lean(rows(p)), lean(columns(p)));
}

// ---- The pictures ----

const TITLES = { first: "log p₁/q₁", second: "log p₂/q₂", cP: "log c_P", cQ: "log c_Q" };
const WHO = { first: "d₁", second: "d₂", cP: "d_P", cQ: "d_Q" };

function square(k, size) {
  const [i, j] = CELLS[k];
  const box = draw("rect", { x: size * j + 1, y: size * i + 1, width: size - 2,
    height: size - 2, stroke: "var(--line)", fill: "none" });
  const text = draw("text", { x: size * (j + 0.5), y: size * (i + 0.5) + 5,
    "text-anchor": "middle" });
  return { box, text };
}

const look = (size, label) => draw("svg", { viewBox: `0 0 ${3 * size} ${3 * size}`,
  width: 3 * size, height: 3 * size, ...label && { role: "img", "aria-label": label } });

// A picture of nine logits: the data's colour where it has more, the generator's elsewhere.
function picture(name) {
  const node = look(36, name), cells = CELLS.map((_, k) => square(k, 36));
  node.append(...cells.flatMap(({ box, text }) => [box, text]));
  const show = (values) => {
    cells.forEach(({ box, text }, k) => {
      const v = Math.max(-9.9, Math.min(9.9, values[k]));
      box.setAttribute("fill", v > 0 ? "var(--data)" : "var(--model)");
      box.setAttribute("fill-opacity", Math.min(0.5, Math.abs(v) / 4).toFixed(3));
      text.textContent = fixed(1)(Math.abs(v) < 0.05 ? 0 : v);
    });
    node.setAttribute("aria-label", `${name}, row by row: ${values.map(fixed(1)).join(", ")}.`);
  };
  return { node, show };
}

// A table whose cells are dragged up and down, or worked by arrow keys.
function editable(name, tone, change) {
  const node = look(46), cells = CELLS.map((_, k) => square(k, 46));
  node.setAttribute("role", "group");
  node.setAttribute("aria-label", `Table ${name}`);
  node.style.touchAction = "none";
  const held = cells.map(({ box, text }, k) => {
    const [i, j] = CELLS[k];
    const cell = draw("g", { role: "slider", tabindex: 0, style: "cursor:ns-resize",
      "aria-label": `${name}, row ${i + 1}, column ${j + 1}`, "aria-valuemin": 0,
      "aria-valuemax": 1 }, box, text);
    const keys = { ArrowUp: 0.2, ArrowRight: 0.2, ArrowDown: -0.2, ArrowLeft: -0.2,
      PageUp: 1, PageDown: -1 };
    cell.addEventListener("keydown", (event) => {
      if (!(event.key in keys)) return;
      event.preventDefault();
      change(k, keys[event.key]);
    });
    let last = null;
    cell.addEventListener("pointerdown", (event) => {
      last = event.clientY;
      cell.setPointerCapture(event.pointerId);
      cell.focus();
    });
    cell.addEventListener("pointermove", (event) => {
      if (last === null) return;
      change(k, (last - event.clientY) / 40);
      last = event.clientY;
    });
    ["pointerup", "pointercancel"].forEach((kind) =>
      cell.addEventListener(kind, () => { last = null; }));
    return cell;
  });
  node.append(...held);
  const show = (t) => cells.forEach(({ box, text }, k) => {
    const share = t[k] < 0.0005 ? "0" : t[k].toFixed(2);
    box.setAttribute("fill", tone);
    box.setAttribute("fill-opacity", (0.06 + 0.6 * Math.min(1, 1.6 * t[k])).toFixed(3));
    text.textContent = share;
    held[k].setAttribute("aria-valuenow", t[k].toFixed(3));
    held[k].setAttribute("aria-valuetext", t[k].toFixed(3));
  });
  return { node, show };
}

// How far the generator is from the data and from independent parts, over time.
function distances(path) {
  const end = Math.max(5, path.length * STEP);
  const top = Math.max(0.5, ...path.flat());
  const chart = plot({ x: [0, end], y: [0, top], width: 340, height: 170,
    xlabel: "time", ylabel: "KL, nats" });
  const looks = [{ stroke: "var(--model)" }, { stroke: "var(--exact)",
    "stroke-dasharray": "9 4" }];
  looks.forEach((style, k) => chart.inside.append(draw("path", { fill: "none",
    "stroke-width": 2.5, ...style,
    d: chart.path(path.map((_, t) => t * STEP), path.map((each) => each[k])) }),
  draw("circle", { cx: chart.X((path.length - 1) * STEP), cy: chart.Y(path.at(-1)[k]), r: 4,
    fill: style.stroke })));
  chart.node.setAttribute("aria-label", `After ${fixed(1)((path.length - 1) * STEP)}: KL to `
    + `the data ${fixed(3)(path.at(-1)[0])}, to independent parts `
    + `${fixed(3)(path.at(-1)[1])} nats.`);
  return chart.node;
}

// ---- The playground ----

function playground() {
  const on = { first: true, second: true, cP: true, cQ: true };
  const state = { p: payload.p.flat(), logQ: logs(payload.q.flat()), on, batch: 0, tilt: 0 };
  const { node: status, say } = announcer();
  const note = el("p", { class: "note" }), curve = el("div");
  let path = [], timer = 0;

  const parts = () => tilted(state.p, state.tilt);
  const more = () => ({ parts: parts(), batch: state.batch });
  const far = () => [kl(exp(state.logQ), state.p), kl(exp(state.logQ), product(state.p))];
  const reweigh = (logT, k, by) => {
    const moved = logT.map((v, m) => Math.max(v + (m === k ? by : 0), -8));
    return minusEach(moved, moved.map(() => logsumexp(moved)));
  };
  const stop = () => { clearTimeout(timer); timer = 0; };
  const begin = () => { stop(); path = [far()]; show(); };
  const tables = {
    p: editable("p", "var(--data)", (k, by) => {
      state.p = exp(reweigh(logs(state.p), k, by));
      begin();
    }),
    q: editable("q", "var(--model)", (k, by) => {
      state.logQ = reweigh(state.logQ, k, by);
      begin();
    }),
  };
  const pictures = Object.fromEntries(NAMES.map((name) => [name, picture(TITLES[name])]));
  const sum = picture("the sum S");
  const switches = Object.fromEntries(NAMES.map((name) => [name, button(WHO[name], () => {
    on[name] = !on[name];
    begin();
  })]));
  const train = button("Train", () => (timer ? (stop(), show()) : run()));
  const run = () => {
    const before = state.logQ;
    state.logQ = follow(state.p, before, STEP, on, more());
    path.push(far());
    const still = Math.max(...minusEach(exp(state.logQ), exp(before)).map(Math.abs)) < 1e-5;
    if (still || path.length * STEP > LIMIT) stop();
    else timer = setTimeout(run, 30);
    show();
  };
  const starts = { "New start": () => {
    const rng = random(path.length + Math.round(1e6 * state.p[0] + 1e5 * state.logQ[0]) ** 2);
    const drawn = CELLS.map(() => rng.normal());
    state.logQ = minusEach(drawn, drawn.map(() => logsumexp(drawn)));
    begin();
  }, "Parts alike": () => {
    state.logQ = logs(product(state.p));
    begin();
  }, "All on": () => {
    NAMES.forEach((name) => { on[name] = true; });
    begin();
  } };

  const words = () => {
    const [data, loose] = far(), q = exp(state.logQ);
    const alive = q.filter((v) => v > 1e-3).length;
    const Z = total(spread(rows(parts()), columns(parts())).map((v, k) =>
      (v * state.p[k]) / product(state.p)[k]));
    return `KL from the generator to the data ${fixed(3)(data)}, to independent parts `
      + `${fixed(3)(loose)} nats; ${alive} of 9 cells alive.`
      + (state.tilt ? ` Loose parts from another world: Z = ${fixed(3)(Z)}.` : "");
  };
  const show = () => {
    const q = exp(state.logQ), r = ratios(state.p, q, parts());
    tables.p.show(state.p);
    tables.q.show(q);
    const logits = capped(r, state.batch);
    NAMES.forEach((name) => {
      pictures[name].show(logits[name]);
      pictures[name].node.style.opacity = on[name] ? 1 : 0.25;
      switches[name].setAttribute("aria-pressed", String(on[name]));
    });
    sum.show(summed(r, on, state.batch));
    train.textContent = timer ? "Stop" : "Train";
    if (moving) curve.replaceChildren(distances(path));
    note.textContent = words();
    say(note.textContent);
  };

  const flex = "display:flex;flex-wrap:wrap;gap:0.4rem 0.6rem;align-items:center";
  const boxed = (title, node) => el("div", {}, el("div", { class: "title" }, title), node);
  const four = NAMES.flatMap((name, k) => [
    ...k ? [el("span", { "aria-hidden": "true" }, name === "cQ" ? "−" : "+")] : [],
    el("div", { style: "display:grid;gap:0.2rem" },
      moving ? switches[name] : el("div", {}, TITLES[name]), pictures[name].node)]);
  const sliders = moving ? [
    slider({ label: "Batch of a permutation", min: 1, max: 32, step: 1, value: 1,
      format: (B) => (B === 1 ? "shift" : `${B} pairs`), input: (B) => {
        state.batch = B === 1 ? 0 : B;
        begin();
      }, help: "A permutation keeps one pair in B together; a shift none." }).node,
    slider({ label: "Loose parts", min: -1.5, max: 1.5, step: 0.1, value: 0, format: number,
      input: (tilt) => { state.tilt = tilt; begin(); },
      help: "At 0 they come from the pairs' world." }).node] : [];
  root.append(
    el("div", { style: flex },
      boxed("data p", tables.p.node), boxed("generator q", tables.q.node),
      el("div", { style: "flex:1;min-width:12rem" },
        el("p", { class: "help" }, "Drag a cell up or down, or use the arrow keys."), note,
        el("div", { class: "buttons" }, ...moving ? [train] : [],
          ...Object.entries(starts).filter(([name]) => moving || name !== "All on")
            .map(([name, act]) => button(name, act))))),
    el("div", { style: flex }, ...four, el("span", { "aria-hidden": "true" }, "="),
      el("div", {}, el("div", {}, "sum S"), sum.node)),
    ...moving ? [el("div", { class: "columns two" }, el("div", {}, ...sliders),
      el("div", {}, curve, el("p", { class: "help" },
        "Solid: KL to the data. Dashed: to independent parts.")))] : [],
    status);
  root.iclrtut = { ratios, permuted, summed, walk, tilted, kl, state: () => structuredClone(
    { ...state, q: exp(state.logQ), path, running: timer !== 0 }) };
  begin();
}

playground();
