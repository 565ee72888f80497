// The reader's comforts: copy, save, keys, the place where one stopped, words explained.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  function el(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else node.setAttribute(name, value);
    }
    node.append(...children);
    return node;
  }

  const button = (text, click, attributes = {}) =>
    el("button", { type: "button", onclick: click, ...attributes }, text);

  // What happened is told to a screen reader.
  const status = el("p", { class: "unseen", role: "status" });
  document.body.append(status);
  const say = (text) => {
    status.textContent = "";
    setTimeout(() => (status.textContent = text), 50);
  };

  // A browser may refuse to keep anything; then nothing is kept.
  const kept = (work) => {
    try {
      return work(localStorage);
    } catch {
      return null;
    }
  };

  // ---- Copy ----

  // The clipboard's interface needs https and leave; an old command needs neither.
  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      const back = document.activeElement;
      const box = el("textarea", { class: "unseen", readonly: "" });
      box.value = text;
      document.body.append(box);
      box.select();
      const done = document.execCommand("copy");
      box.remove();
      back?.focus({ preventScroll: true });
      return done;
    }
  }

  // Each formula keeps the LaTeX that it was made from.
  const latex = (formula) => formula.querySelector("annotation").textContent;

  // A formula inside what is copied is copied as LaTeX, once.
  document.addEventListener("copy", (event) => {
    const picked = getSelection();
    if (picked.isCollapsed) return;
    const part = picked.getRangeAt(0).cloneContents();
    const formulas = all(".katex", part).filter((one) => one.querySelector("annotation"));
    if (!formulas.length) return;
    for (const one of formulas) {
      const sign = one.parentElement?.matches(".katex-display") ? "$$" : "$";
      one.replaceWith(sign + latex(one) + sign);
    }
    const page = el("div", { class: "unseen" });
    page.append(part);
    document.body.append(page);
    event.clipboardData.setData("text/plain", page.innerText);
    page.remove();
    event.preventDefault();
  });

  function copyEquations() {
    for (const box of all(".bd-article div.math")) {
      const number = box.id.match(/^eq-(\w+)$/)?.[1];
      const name = `Copy equation ${number ? `(${number}) ` : ""}as LaTeX`;
      const mark = button("", async () => {
        const done = await copy(latex(box));
        mark.dataset.said = done ? "Copied" : "Not copied";
        say(done ? "LaTeX copied" : "The browser refused to copy");
        setTimeout(() => delete mark.dataset.said, 2000);
      }, { class: "copy-tex", "aria-label": name, title: name });
      let host = box.parentElement;
      if (!host.matches(".equation")) {
        host = el("div", { class: "equation" });
        box.replaceWith(host);
        host.append(box);
      }
      host.append(mark);
    }
  }

  // The copy buttons of code say on the button alone what they did.
  document.addEventListener("click", (event) => {
    const mark = event.target.closest?.(".copybtn");
    if (mark) say(mark.dataset.tooltip);
  });

  // ---- Save a figure ----

  // What decides how an element looks. Heights may grow: the picture has other fonts.
  const TEXT = `display visibility opacity color font-family font-size font-weight font-style
    transform`.split(/\s+/);
  const LOOK = [...TEXT, ...`position top right bottom left width box-sizing margin padding
    border-width border-style border-color border-radius overflow background-color
    background-image accent-color line-height letter-spacing text-align white-space
    font-variant-numeric list-style-type flex align-items align-self justify-content gap
    grid-template-columns grid-row grid-column`.split(/\s+/)];
  const INK = [...TEXT, ...`text-anchor dominant-baseline fill fill-opacity fill-rule stroke
    stroke-width stroke-opacity stroke-dasharray stroke-linecap stroke-linejoin
    paint-order`.split(/\s+/)];

  // A copy of what is seen, with its look written on it and canvases as pictures.
  function still(node) {
    if (node.nodeType === Node.TEXT_NODE) return node.cloneNode();
    if (node.nodeType !== Node.ELEMENT_NODE || node.matches("audio, noscript, script, style")) {
      return "";
    }
    const look = getComputedStyle(node);
    const inside = node.ownerSVGElement;
    if (!inside && look.display === "none") return "";
    const made = node.matches("canvas")
      ? el("img", { src: node.toDataURL() })
      : node.cloneNode(false);
    wear(made, look, inside ? INK : [...LOOK, ...INK]);
    if (!inside) made.style[node.matches("svg, canvas, input") ? "height" : "minHeight"] = look.height;
    if (node.matches("input")) {
      made.setAttribute("value", node.value);
      made.toggleAttribute("checked", node.checked);
    }
    const drawn = getComputedStyle(node, "::after");
    made.append(...[...node.childNodes].map(still));
    if (!inside && drawn.content.startsWith('"')) {
      made.append(wear(el("span", {}, drawn.content.slice(1, -1)), drawn, [...LOOK, "height"]));
    }
    return made;
  }

  function wear(node, look, names) {
    for (const name of names) node.style.setProperty(name, look.getPropertyValue(name));
    return node;
  }

  // The faces that a text names, inside the picture. A folder lets no script read a font:
  // there the system's own serve.
  async function faces(text) {
    if (location.protocol === "file:") return "";
    const sheet = [...document.styleSheets].find((one) => one.href?.includes("/book.css"));
    const rules = [...sheet.cssRules].filter((rule) =>
      rule instanceof CSSFontFaceRule && text.includes(rule.style.fontFamily.slice(1, -1)));
    const embedded = rules.map(async (rule) => {
      const file = await fetch(new URL(rule.style.src.match(/url\("(.*?)"\)/)[1], sheet.href));
      const reader = new FileReader();
      reader.readAsDataURL(await file.blob());
      await new Promise((done) => (reader.onload = done));
      return rule.cssText.replace(/url\(".*?"\)/, `url("${reader.result}")`);
    });
    return `<style>${(await Promise.all(embedded)).join("")}</style>`;
  }

  const ROOM = 12; // pixels around a picture
  const load = (name, address) => el("a", { download: name, href: address }).click();

  async function save(box, name) {
    if (box.matches("img")) return load(`${name}.png`, box.currentSrc);
    const seen = box.getBoundingClientRect();
    const width = seen.width + 2 * ROOM, height = seen.height + 2 * ROOM;
    const copied = still(box);
    copied.style.margin = `${ROOM}px`;
    copied.setAttribute("xmlns", copied.namespaceURI);
    const size = `width="${width}" height="${height}"`;
    const paper = getComputedStyle(document.body).backgroundColor;
    const body = new XMLSerializer().serializeToString(copied);
    const text = `<svg xmlns="http://www.w3.org/2000/svg" ${size}>${await faces(body).catch(() => "")}`
      + `<rect width="100%" height="100%" fill="${paper}"/>`
      + `<foreignObject ${size}>${body}</foreignObject></svg>`;
    const drawing = `data:image/svg+xml,${encodeURIComponent(text)}`;
    const image = new Image();
    image.src = drawing;
    await image.decode();
    const canvas = el("canvas");
    const scale = Math.max(2, 1200 / width);
    [canvas.width, canvas.height] = [scale * width, scale * height].map(Math.round);
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    try {
      load(`${name}.png`, canvas.toDataURL());
    } catch { // Safari reads no canvas with such a drawing on it
      load(`${name}.svg`, drawing);
    }
  }

  function saveFigures() {
    const slug = page.split("/").at(-1);
    const figures = all(".bd-article :is(figure.iclrtut, .drawing, .cell_output img)")
      .filter((node) => !node.parentElement.closest("figure"));
    figures.forEach((figure, i) => {
      const seen = () =>
        figure.querySelector(":scope > :is(.play, .panels, svg)") ?? figure;
      const mark = button("Save", async () => {
        await save(seen(), `${slug}-${i + 1}`);
        say("Saved");
      }, { class: "save", "aria-label": `Save figure ${i + 1} as a picture` });
      const caption = figure.querySelector(":scope > figcaption");
      if (caption) caption.append(" ", mark);
      else figure.after(mark);
    });
  }

  // ---- Keys ----

  const OWN = ["ArrowLeft", "ArrowRight", "/", "?"];
  const BUSY = "input, textarea, select, [contenteditable], audio, video, dialog, figure, [tabindex]";
  const KEYS = [
    ["Ctrl K", "search the book (⌘ K on a Mac)"],
    ["/", "search the book"],
    ["→", "next page"],
    ["←", "previous page"],
    ["?", "this list"],
    ["Esc", "close the search, this list, or a card"],
  ];
  const single = () => kept((store) => store.getItem("single-keys")) !== "off";

  function help() {
    const choice = el("input", { type: "checkbox" });
    choice.checked = single();
    choice.addEventListener("change", () =>
      kept((store) => store.setItem("single-keys", choice.checked ? "on" : "off")));
    const dialog = el("dialog", { class: "keys", "aria-labelledby": "keys-title" },
      el("h2", { id: "keys-title" }, "Keyboard shortcuts"),
      el("dl", {}, ...KEYS.flatMap(([key, does]) => [
        el("dt", {}, ...key.split(" ").map((one) => el("kbd", {}, one))),
        el("dd", {}, does)])),
      el("p", {}, "Keys without Ctrl rest while you type, or move a slider."),
      el("label", {}, choice, " Use keys without Ctrl"),
      button("Close", () => dialog.close()));
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    document.body.append(dialog);
    return dialog;
  }

  function listen() {
    const dialog = help();
    const open = () => dialog.open || dialog.showModal();
    for (const node of all(".keys-open")) {
      node.hidden = false;
      node.addEventListener("click", open);
    }
    // Before the theme hears a key: is it meant for the page?
    document.documentElement.addEventListener("keydown", (event) => {
      const meant = single() && !event.target.closest?.(BUSY);
      if (OWN.includes(event.key) && !meant) event.stopPropagation();
    });
    document.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "?") open();
      if (event.key !== "/") return;
      event.preventDefault(); // or the field that opens gets the stroke
      document.querySelector(".search-button__button").click();
    });
  }

  // ---- The place where one stopped ----

  const named = (address) => address.pathname.split("/").slice(-2).join("/").replace(/\.html$/, "");
  const page = named(location);

  function keepPlace() {
    const article = document.querySelector(".bd-article");
    if (!article) return;
    const sections = all("section section[id]", article);
    const long = () => article.offsetHeight > 3 * innerHeight;
    const place = kept((store) => store.getItem(`place:${page}`));
    const stopped = sections.indexOf(document.getElementById(place));
    if (stopped > 0 && !location.hash && scrollY < innerHeight / 2) offer(sections[stopped]);
    let timer = 0;
    const note = () => {
      if (!long()) return;
      const at = sections.filter((node) => node.getBoundingClientRect().top < innerHeight / 3);
      if (article.getBoundingClientRect().bottom < innerHeight + 100) {
        kept((store) => {
          store.setItem(`read:${page}`, "yes");
          store.removeItem(`place:${page}`);
        });
      } else if (at.length > 1) {
        kept((store) => store.setItem(`place:${page}`, at.at(-1).id));
      }
    };
    document.addEventListener("scroll", () => {
      clearTimeout(timer);
      timer = setTimeout(note, 200);
    });
    addEventListener("pagehide", note);
  }

  function offer(section) {
    const title = [...section.querySelector("h1, h2, h3, h4").childNodes]
      .filter((node) => !node.matches?.(".headerlink"))
      .map((node) => node.cloneNode(true));
    const line = el("p", { class: "go-on" },
      el("a", { href: `#${section.id}`, onclick: () => line.remove() },
        "Go on at ", el("em", {}, ...title)),
      button("×", () => {
        kept((store) => store.removeItem(`place:${page}`));
        line.remove();
      }, { "aria-label": "Forget the place" }));
    document.querySelector(".bd-article h1").after(line);
  }

  // Chapters that were read to the end have a tick in the contents.
  function tickContents() {
    for (const link of all("nav.bd-links a")) {
      if (kept((store) => store.getItem(`read:${named(link)}`)) !== "yes") continue;
      link.classList.add("read");
      link.append(el("span", { class: "unseen" }, " (read)"));
    }
  }

  // ---- Words ----

  // A finger cannot point: its first tap shows the meaning, its second follows the link.
  function explainWords() {
    let touch = false;
    let tapped = null;
    all("a.word").forEach((link) =>
      link.setAttribute("aria-describedby", `meaning-${link.hash.slice(1)}`));
    document.addEventListener("pointerdown", (event) => (touch = event.pointerType === "touch"));
    document.addEventListener("click", (event) => {
      const link = event.target.closest?.("a.word") ?? null;
      if (touch && link && link !== tapped) event.preventDefault();
      tapped = link;
    });
  }

  explainWords();
  saveFigures();
  listen();
  keepPlace();
  tickContents();
  copyEquations();
})();
