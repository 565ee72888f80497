// Three figures of the chapter, picked by payload.mode.
// "idea":    {logits?: [3 numbers], labels?: [3 names]}
// "digits":  {model: play.export(net), shape: [channels, height, width], labels?,
//             examples: [{pixels: [in -1 to 1], label}],
//             reference: {lse: {digits: q, noise: q}, mass: {digits: q, noise: q}}}
//            where q are the quantiles at 5, 25, 50, 75 and 95 %.
// "sampler": {}

// ---- The network, read twice: its height by class and by input ----

function readings(exported, shape) {
  const { forward, backward, logits } = network(exported, shape);
  // LSE, and its gradient by (10a): softmax weights sent back to the pixels.
  const climb = (pixels) => {
    const xs = forward(pixels);
    const f = xs.at(-1);
    const gradient = backward(xs, softmax(f));
    const mass = -Math.hypot(...gradient);
    return { pixels: xs[0], logits: f, lse: logsumexp(f), gradient, mass };
  };
  // One step of (9) with alpha = a / 2: uphill in LSE, plus noise.
  const step = ({ pixels, gradient }, alpha, sigma, normal) =>
    climb(pixels.map((x, i) => x + alpha * gradient[i] + sigma * normal()));
  const langevin = ({ pixels, steps, alpha, sigma, seed = 0 }) => {
    const { normal } = random(seed);
    let at = climb(pixels);
    for (let k = 0; k < steps; k++) at = step(at, alpha, sigma, normal);
    return Array.from(at.pixels);
  };
  return { logits, climb, step, langevin };
}

// ---- The trained classifier ----

function pixelsOf(height, width) {
  const cells = Array.from({ length: height * width }, (_, i) => draw("rect", {
    x: i % width, y: Math.floor(i / width), width: 1.02, height: 1.02,
  }));
  const node = draw("svg", { viewBox: `0 0 ${width} ${height}`, class: "pixels" }, ...cells);
  const show = (pixels) => cells.forEach((cell, i) => {
    cell.setAttribute("fill-opacity", Math.min(Math.max((pixels[i] + 1) / 2, 0), 1).toFixed(3));
  });
  return { node, show };
}

// The picture a reader draws on: by mouse, pen and finger, or by arrow keys and space.
function canvas(height, width, change, say) {
  const { node, show } = pixelsOf(height, width);
  const grid = draw("path", {
    class: "grid",
    d: Array.from({ length: width + 1 }, (_, i) => `M${i},0V${height}`).join("")
      + Array.from({ length: height + 1 }, (_, i) => `M0,${i}H${width}`).join(""),
  });
  const cursor = draw("rect", { class: "cursor", width: 1, height: 1, "stroke-width": 0.15 });
  node.append(grid, cursor);
  node.classList.add("canvas");
  for (const [name, value] of Object.entries({
    tabindex: 0, role: "application", "aria-roledescription": "drawing grid",
    "aria-label": "The picture. Arrow keys move, space draws, delete erases.",
  })) node.setAttribute(name, value);

  const pen = { pixels: new Float64Array(height * width), erase: false };
  let row = Math.floor(height / 2), column = Math.floor(width / 2), last = null;
  const dab = (u, v, erase) => {
    pen.pixels = pen.pixels.map((value, i) => {
      const away = Math.hypot(u - (i % width) - 0.5, v - Math.floor(i / width) - 0.5);
      const ink = 2 * Math.min(Math.max(1.3 - away, 0), 1) - 1;
      return erase ? Math.min(value, -ink) : Math.max(value, ink);
    });
  };
  const stroke = (event) => {
    const box = node.getBoundingClientRect();
    const u = ((event.clientX - box.left) / box.width) * width;
    const v = ((event.clientY - box.top) / box.height) * height;
    const [u0, v0] = last ?? [u, v];
    for (let t = 1; t <= 8; t++)
      dab(u0 + ((u - u0) * t) / 8, v0 + ((v - v0) * t) / 8, pen.erase || event.buttons > 1);
    last = [u, v];
    change(pen.pixels);
  };
  node.addEventListener("pointerdown", (event) => {
    node.setPointerCapture(event.pointerId);
    last = null;
    stroke(event);
  });
  node.addEventListener("pointermove", (event) => { if (event.buttons) stroke(event); });
  node.addEventListener("contextmenu", (event) => event.preventDefault());
  const place = () => { cursor.setAttribute("x", column); cursor.setAttribute("y", row); };
  node.addEventListener("keydown", (event) => {
    const [down, right] = {
      ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1],
    }[event.key] ?? [0, 0];
    const paints = event.key === " " || event.key === "Enter";
    const erases = event.key === "Delete" || event.key === "Backspace";
    if (!(down || right || paints || erases)) return;
    event.preventDefault();
    event.stopPropagation();
    row = Math.min(Math.max(row + down, 0), height - 1);
    column = Math.min(Math.max(column + right, 0), width - 1);
    place();
    if (paints || erases) {
      pen.pixels = Float64Array.from(pen.pixels);
      pen.pixels[row * width + column] = erases || pen.erase ? -1 : 1;
      change(pen.pixels);
    }
    const ink = Math.round(50 * (pen.pixels[row * width + column] + 1));
    say(`row ${row + 1}, column ${column + 1}: ${ink} % ink`);
  });
  place();
  return { node, pen, show(pixels) { pen.pixels = pixels; show(pixels); } };
}

// Where a number stands between real digits and noise.
function scale(title, help, { digits, noise }) {
  const all = [...digits, ...noise];
  const margin = 0.15 * (Math.max(...all) - Math.min(...all) || 1);
  const low = Math.min(...all) - margin, high = Math.max(...all) + margin;
  const place = (v) => 100 * Math.min(Math.max((v - low) / (high - low), 0.01), 0.99);
  const from = (kind, a, b) => el("i", { class: kind,
    style: `left:${place(a)}%;width:${place(b) - place(a)}%` });
  const row = (name, tone, i, [a, b, c, d, e]) => [
    el("span", { class: "name", style: `grid-row:${i}` }, name),
    el("div", { class: "lane", style: `--tone:${tone};grid-row:${i}` }, from("wide", a, e),
      from("half", b, d), el("i", { class: "middle", style: `left:${place(c)}%` }))];
  const value = el("span", { class: "number best" });
  const needle = el("i", { class: "needle" });
  const node = el("div", { class: "scale" }, el("span", {}, title), value,
    el("div", { class: "ruler", role: "img", "aria-label": "Middle of real digits "
      + `${fixed(1)(digits[2])}, of noise ${fixed(1)(noise[2])}.` },
    ...row("digits", "var(--data)", 1, digits), ...row("noise", "gray", 2, noise),
    el("div", { class: "lane all" }, needle)),
    el("p", { class: "help" }, help));
  const show = (v) => {
    value.textContent = fixed(2)(v);
    needle.style.left = `${place(v)}%`;
  };
  return { node, show };
}

function strip(title, name, examples, chosen, pick) {
  const [height, width] = payload.shape.slice(1);
  return el("fieldset", { class: "thumbs" }, el("legend", {}, title),
    ...examples.map(({ pixels, label }, i) => {
      const { node, show } = pixelsOf(height, width);
      show(pixels);
      node.setAttribute("aria-hidden", "true");
      return el("label", {}, el("input", {
        type: "radio", name, checked: i === chosen, onchange: () => pick(i),
        "aria-label": `digit ${label}, number ${i + 1}`,
      }), node);
    }));
}

function classifier() {
  const { examples, reference } = payload;
  const [, height, width] = payload.shape;
  const net = readings(payload.model, payload.shape);
  const labels = payload.labels ?? Array.from(net.logits(examples[0].pixels), (_, y) => y);
  const name = `play${Math.random()}`;
  const { node: status, say } = announcer();
  const LAST = 300, FAR = 20;

  // The walk starts at walk[0] and stands at walk[k]; the same seed walks the same way.
  const chosen = [0, 1];
  let lift = 0, seed = 0, timer = 0, walk = [], normal = null, k = 0;

  const begin = (pixels) => {
    stop();
    walk = [net.climb(pixels)];
    rewind();
  };
  const rewind = () => {
    walk.length = 1;
    ({ normal } = random(seed));
    go(0);
  };
  const go = (target) => {
    while (walk.length <= target && !lost())
      walk.push(net.step(walk.at(-1), alpha.value, sigma.value, normal));
    k = Math.min(target, walk.length - 1);
    show();
  };
  const lost = () => !walk.at(-1).pixels.every((x) => Math.abs(x) < FAR);
  const stop = () => {
    clearInterval(timer);
    timer = 0;
    running.textContent = "Run";
  };
  const run = () => {
    if (timer) return stop();
    if (k >= LAST || lost()) go(0);
    running.textContent = "Stop";
    timer = setInterval(() => {
      go(k + 1);
      if (k >= LAST || lost() || !root.isConnected) stop();
    }, 30);
  };
  const mixed = () => examples[chosen[0]].pixels.map((a, i) =>
    a + mix.value * (examples[chosen[1]].pixels[i] - a));
  const noise = () => {
    const { uniform } = random(++seed);
    begin(Float64Array.from({ length: height * width }, () => 2 * uniform() - 1));
  };
  const choose = (which) => (i) => { chosen[which] = i; mix.set(which); begin(mixed()); };

  const mix = slider({ label: "Mix A with B", min: 0, max: 1, step: 0.01, value: 0,
    format: (t) => `${Math.round(100 * (1 - t))} % A, ${Math.round(100 * t)} % B`,
    help: "Half of each is no digit: watch the density fall while a class may stay sure.",
    input: () => begin(mixed()) });
  const picture = canvas(height, width, begin, say);
  const pens = ["Draw", "Erase"].map((label, i) => button(label, () => {
    picture.pen.erase = i === 1;
    pens.forEach((pen, j) => pen.setAttribute("aria-pressed", String(i === j)));
  }, { "aria-pressed": String(i === 0) }));
  const shares = bars(labels, "Most likely class");
  const density = scale("Height: LSE = −E, log-density up to a constant",
    "Thin: 90 % of them, thick: half, upright: this picture.", reference.lse);
  const mass = scale("Slope: mass score −‖∂LSE/∂x‖",
    "Near 0 the density is flat around the picture; real digits lie on such plateaus.",
    reference.mass);
  const lifting = slider({ label: "Lift the logits of this picture by c", min: -10, max: 10,
    step: 0.1, value: 0, format: fixed(1),
    help: "The differences stay, and so do the bars. The height moves by c.",
    input: (c) => { lift = c; show(); } });

  const steps = slider({ label: "Langevin steps", min: 0, max: LAST, step: 1, value: 0,
    help: "Each step moves every pixel uphill in LSE and adds noise.",
    input: (target) => { stop(); go(target); } });
  const again = () => { const target = k; stop(); rewind(); go(target); };
  const alpha = slider({ label: "Step α", min: 0, max: 8, step: 0.1, value: 1,
    format: fixed(1), help: "Too long a step jumps over the hill and leaves the pixel range.",
    input: again });
  const sigma = slider({ label: "Noise σ", min: 0, max: 0.5, step: 0.01, value: 0.01,
    format: fixed(2), help: "Matched noise is √(2α); the recipe takes far less: a cold walk.",
    input: again });
  const running = button("Run", run);
  const warning = el("p", { class: "warning", role: "status" });
  const ends = [...reference.lse.digits, ...reference.lse.noise];
  const chart = plot({ x: [0, LAST], y: [0, 1], xlabel: "step", ylabel: "LSE",
    xticks: [0, 100, 200], height: 190 });
  const band = draw("rect", { x: chart.left, fill: "var(--data)", "fill-opacity": 0.25,
    width: chart.right - chart.left });
  const note = draw("text", { x: chart.right, y: 14, "text-anchor": "end" },
    "band: 90 % of digits");
  const curve = draw("path", { fill: "none", stroke: "var(--model)", "stroke-width": 2.5 });
  const dot = draw("circle", { r: 5, fill: "var(--model)", stroke: "currentColor" });
  chart.inside.append(band, note, curve, dot);
  const film = Array.from({ length: 6 }, () =>
    ({ ...pixelsOf(height, width), step: el("figcaption") }));

  const showTrace = () => {
    const [low, , , , high] = reference.lse.digits;
    const trace = walk.slice(0, k + 1).map((at) => at.lse);
    const all = [...ends, ...trace.filter(Number.isFinite)];
    chart.scaleTo([Math.min(...all) - 1, Math.max(...all) + 1]);
    band.setAttribute("y", chart.Y(high));
    band.setAttribute("height", chart.Y(low) - chart.Y(high));
    curve.setAttribute("d", chart.path(trace.map((_, i) => i), trace));
    dot.setAttribute("cx", chart.X(k));
    dot.setAttribute("cy", chart.Y(all.at(-1)));
    chart.node.setAttribute("aria-label", `LSE from ${fixed(1)(trace[0])} at step 0 to `
      + `${fixed(1)(trace[k])} at step ${k}.`);
    film.forEach((shot, i) => {
      const at = Math.round((k * i) / (film.length - 1));
      shot.show(walk[at].pixels);
      shot.step.textContent = at;
    });
  };
  const show = () => {
    const at = walk[k];
    const p = softmax(at.logits);
    const best = p.indexOf(Math.max(...p));
    picture.show(at.pixels);
    shares.show(p);
    density.show(at.lse + lift);
    mass.show(at.mass);
    steps.set(k);
    showTrace();
    const far = Math.max(...at.pixels.map(Math.abs));
    warning.textContent = far < FAR ? "" : `Stopped at step ${k}: a pixel is at `
      + `${far.toFixed(0)}, and pictures live between −1 and 1. Take a smaller α.`;
    say(`Class ${labels[best]}, ${percent(p[best])}; LSE ${fixed(2)(at.lse + lift)}; `
      + `mass score ${fixed(2)(at.mass)}.`);
  };

  root.append(
    group("1. Choose, mix or draw",
      el("div", { class: "columns" },
        strip("Picture A", `${name}a`, examples, chosen[0], choose(0)),
        strip("Picture B", `${name}b`, examples, chosen[1], choose(1))),
      mix.node),
    group("2. Read its logits twice",
      el("div", { class: "reading" }, picture.node, shares.node),
      el("div", { class: "buttons" }, ...pens,
        button("Clear", () => begin(new Float64Array(height * width).fill(-1))),
        button("Noise", noise)),
      lifting.node,
      el("div", { class: "columns two" }, density.node, mass.node)),
    group("3. Walk uphill",
      el("div", { class: "columns two" },
        el("div", {}, steps.node,
          el("div", { class: "buttons" }, running,
            button("One step", () => { stop(); if (k < LAST) go(k + 1); }),
            button("From noise", noise)),
          warning),
        el("div", { class: "high" }, chart.node,
          el("div", { class: "film", "aria-hidden": "true" },
            ...film.map(({ node, step }) => el("figure", {}, node, step)))),
        el("div", {}, alpha.node, sigma.node))),
    status);
  root.iclrtut = {
    logits: (pixels) => Array.from(net.logits(pixels)),
    lse: (pixels) => net.climb(pixels).lse,
    mass: (pixels) => net.climb(pixels).mass,
    gradient: (pixels) => Array.from(net.climb(pixels).gradient),
    langevin: net.langevin,
    state: () => ({ pixels: Array.from(walk[k].pixels), step: k, lift }),
  };
  begin(mixed());
}

// ---- The idea: three logits, read twice ----

function idea() {
  const labels = payload.labels ?? ["cat", "dog", "bird"];
  const start = payload.logits ?? [2, 0.5, -1];
  const { node: status, say } = announcer();
  let lift = 0;

  const controls = labels.map((label, i) => slider({ label: `Logit of ${label}`, min: -4,
    max: 4, step: 0.1, value: start[i], format: fixed(1), input: () => show() }));
  const lifting = slider({ label: "Lift all three together by c", min: -3, max: 3, step: 0.1,
    value: 0, format: fixed(1), input: (c) => { lift = c; show(); },
    help: "The class bars stand still. The height moves, and the density with it "
      + "(dashed: before)." });
  const logits = () => controls.map((control) => control.value + lift);

  const heights = plot({ x: [-0.6, 2.6], y: [-7, 9], xlabel: "", ylabel: "nats", width: 240 });
  const zero = draw("path", { stroke: "currentColor", "stroke-opacity": 0.4,
    d: heights.across(0) });
  const stick = (attributes) => labels.map((_, i) =>
    draw("rect", { x: heights.X(i) - 18, width: 36, ...attributes }));
  const ghosts = stick({ fill: "none", stroke: "currentColor", "stroke-opacity": 0.6,
    "stroke-dasharray": "4 3" });
  const sticks = stick({ fill: "var(--model)" });
  const names = labels.map((label, i) => draw("text", { x: heights.X(i), y: heights.height - 6,
    "text-anchor": "middle" }, label));
  const level = draw("path", { stroke: "var(--model)", "stroke-width": 3,
    "stroke-dasharray": "2 3" });
  const written = draw("text", { x: heights.right, "text-anchor": "end",
    "font-weight": "700" });
  heights.inside.append(...sticks, ...ghosts, ...names, zero, level, written);

  // Other inputs on a line: two hills of log-density, and a lift that reaches only here.
  const HERE = 0.3, xs = Array.from({ length: 161 }, (_, i) => i / 40 - 2);
  const near = (x) => Math.exp(-((x - HERE) ** 2) / 0.08);
  const others = (x) => 3 * Math.exp(-((x + 1) ** 2) / 0.18)
    + 2.4 * Math.exp(-((x - HERE) ** 2) / 0.3) - 1;
  const curveOf = (height) => {
    const logs = xs.map((x) => others(x) + (height - others(HERE)) * near(x));
    const level_ = logsumexp(logs) + Math.log(xs[1] - xs[0]);
    return logs.map((v) => Math.exp(v - level_));
  };
  const line = plot({ x: [-2, 2], y: [0, 3.2], xlabel: "inputs", ylabel: "density", width: 240 });
  const before = draw("path", { fill: "none", stroke: "currentColor",
    "stroke-opacity": 0.5, "stroke-dasharray": "5 3" });
  const now = draw("path", { fill: "none", stroke: "var(--model)", "stroke-width": 2.5 });
  const dot = draw("circle", { r: 7, fill: "var(--data)", stroke: "currentColor",
    "stroke-width": 1.5 });
  const mark = draw("text", { "text-anchor": "middle", y: line.height - 6,
    x: line.X(HERE) }, "this");
  line.inside.append(before, now, dot, mark);
  const shares = bars(labels, "Most likely class");
  shares.node.classList.add("tall");

  const show = () => {
    const f = logits(), height = logsumexp(f), p = softmax(f);
    for (const ghost of [before, ...ghosts])
      ghost.setAttribute("visibility", lift ? "visible" : "hidden");
    [[sticks, 0], [ghosts, lift]].forEach(([rects, off]) => rects.forEach((rect, i) => {
      rect.setAttribute("y", heights.Y(Math.max(f[i] - off, 0)));
      rect.setAttribute("height", Math.abs(heights.Y(f[i] - off) - heights.Y(0)));
    }));
    level.setAttribute("d", heights.across(height));
    written.setAttribute("y", heights.Y(height) - 6);
    written.textContent = `LSE ${fixed(2)(height)}`;
    shares.show(p);
    const density = curveOf(height);
    before.setAttribute("d", line.path(xs, curveOf(height - lift)));
    now.setAttribute("d", line.path(xs, density));
    const i = xs.findIndex((x) => x >= HERE - 1e-9);
    dot.setAttribute("cx", line.X(HERE));
    dot.setAttribute("cy", line.Y(Math.min(density[i], 3.2)));
    const best = p.indexOf(Math.max(...p));
    const [lse, here] = [height, density[i]].map(fixed(2));
    heights.node.setAttribute("aria-label",
      `Logits ${f.map(fixed(1)).join(", ")}; LSE ${lse}.`);
    line.node.setAttribute("aria-label", `Density at this input: ${here}.`);
    say(`${labels[best]} ${percent(p[best])}; LSE ${lse}; density ${here}.`);
  };

  root.append(
    el("div", { class: "columns" },
      group("Three logits of one input", heights.node),
      group("Read their differences: classes", shares.node),
      group("Read their height: density", line.node)),
    lifting.node,
    el("div", { class: "columns" }, ...controls.map((control) => control.node)),
    status);
  root.iclrtut = { logits, lse: () => logsumexp(logits()), shares: () => softmax(logits()) };
  show();
}

// ---- The sampler on a bowl: E(x) = x^2 / (2 s^2) ----

function sampler() {
  const CHAINS = 2000, STEPS = 60, SHOWN = 12;
  const { node: status, say } = announcer();
  const wide = { min: 0.5, max: 2, step: 0.05, format: fixed(2) };
  const s = slider({ label: "Width of the bowl s", value: 1, ...wide, input: () => show(),
    help: "The target is a normal law with standard deviation s." });
  const a = slider({ label: "Step a, in units of s²", min: 0.1, max: 4.4, step: 0.05, value: 1,
    format: fixed(2), input: () => show(),
    help: "From 2 on a step jumps past the middle; from 4 on the jumps no longer shrink." });
  const t = slider({ label: "Temperature T = b / a", min: 0.05, max: 2, step: 0.05, value: 1,
    format: fixed(2), input: () => show(),
    help: "T = 1 is Langevin's own noise; less of it samples a narrower law." });
  const stationary = (a, b, s) =>
    (a < 4 * s * s ? (b * s * s) / (a * (1 - a / (4 * s * s))) : Infinity);
  const simulate = (a, b, s) => {
    const { normal } = random(1);
    return Array.from({ length: CHAINS }, () => {
      const chain = [0];
      for (let k = 0; k < STEPS; k++)
        chain.push(chain[k] - (a / 2) * (chain[k] / (s * s)) + Math.sqrt(b) * normal());
      return chain;
    });
  };
  const chart = plot({ x: [0, STEPS], y: [-6, 6], xlabel: "step", ylabel: "x",
    xticks: [0, 20, 40], width: 360, height: 250, right: 100 });
  const lines = Array.from({ length: SHOWN }, () => draw("path", {
    fill: "none", "stroke-width": 1.2, "stroke-opacity": 0.75 }));
  const exactly = { fill: "none", stroke: "var(--exact)", "stroke-width": 2.5,
    "stroke-dasharray": "7 3 2 3" };
  const edges = draw("path", exactly), bell = draw("path", exactly);
  const tower = draw("path", { fill: "var(--model)" });
  const clip = `clip${Math.random()}`;
  chart.inside.append(
    draw("clipPath", { id: clip }, draw("rect", { x: chart.left, y: chart.top,
      width: chart.width - chart.left, height: chart.bottom - chart.top })),
    draw("text", { x: chart.width, y: 14, "text-anchor": "end" }, "last states"),
    draw("g", { "clip-path": `url(#${clip})` }, ...lines, edges, tower, bell));
  const BIN = 0.25, centres = Array.from({ length: 48 }, (_, i) => (i + 0.5) * BIN - 6);
  const along = (density) => chart.right + 8 + Math.min(110 * density, 90);
  const facts = [
    "Variance of the target, s²", "Of the chain: b s² / (a (1 − a / 4s²))",
    "Simulated, 2000 chains"].map((name) => ({
    name: el("span", {}, name), value: el("output") }));
  const warning = el("p", { class: "warning", role: "status" });

  const show = () => {
    const width = s.value, step = a.value * width * width, b = t.value * step;
    const chains = simulate(step, b, width);
    const final = chains.map((chain) => chain.at(-1));
    const centre = final.reduce((sum, v) => sum + v, 0) / CHAINS;
    const measured = final.reduce((sum, v) => sum + (v - centre) ** 2, 0) / (CHAINS - 1);
    const exact = stationary(step, b, width);
    const explodes = a.value >= 4;
    const xs = chains[0].map((_, k) => k);
    lines.forEach((line, i) => {
      line.setAttribute("d", chart.path(xs, chains[i]));
      line.setAttribute("stroke", explodes ? "var(--failure)" : "var(--model)");
    });
    edges.setAttribute("d", [-2 * width, 2 * width].map(chart.across).join(""));
    const zero = along(0);
    tower.setAttribute("fill", explodes ? "var(--failure)" : "var(--model)");
    tower.setAttribute("d", centres.map((c) => {
      const share = final.filter((v) => Math.abs(v - c) < BIN / 2).length / CHAINS;
      const [low, high] = [c - BIN / 2, c + BIN / 2].map(chart.Y);
      return `M${zero},${low}H${along(share / BIN)}V${high}H${zero}Z`;
    }).join(""));
    const inside = centres.filter((c) => Math.abs(c) < 3.5 * width);
    bell.setAttribute("d", "M" + inside.map((c) => `${along(Math.exp(-c * c / (2 * width * width))
      / (width * Math.sqrt(2 * Math.PI)))},${chart.Y(c)}`).join("L"));
    const large = (v) => (Number.isFinite(v) ? v.toExponential(1) : "none");
    const written = (v) => (v < 1e4 ? fixed(3)(v) : large(v));
    facts.forEach(({ value }, i) => {
      value.textContent = written([width * width, exact, measured][i]);
    });
    warning.textContent = explodes ? "a ≥ 4 s²: no stationary law. Each step multiplies x by "
      + `${fixed(2)(1 - a.value / 2)}, and the chains explode.` : "";
    const words = `Formula ${written(exact)}, simulated ${written(measured)}.`;
    chart.node.setAttribute("aria-label", `${SHOWN} chains over ${STEPS} steps. ${words}`);
    say(words);
  };

  root.append(
    el("div", { class: "columns two" },
      el("div", {}, chart.node,
        el("p", { class: "help" }, "Twelve chains, and where 2000 end. Dash-dotted: the target."),
        el("div", { class: "facts" }, ...facts.flatMap(({ name, value }) => [name, value])),
        warning),
      el("div", {}, a.node, s.node, t.node)),
    status);
  root.iclrtut = { stationary, simulate };
  show();
}

({ idea, sampler, digits: classifier })[payload.mode ?? "digits"]();
