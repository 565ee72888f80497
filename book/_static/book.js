// What the theme leaves undone: names for its controls, and help that needs a script.
(() => {
  const all = (selector) => document.querySelectorAll(selector);

  // Over file:// a browser fetches no pages, so search shows titles without excerpts.
  if (location.protocol === "file:" && typeof DOCUMENTATION_OPTIONS === "object") {
    DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
  }

  // Controls without a name.
  for (const [selector, name] of [
    [".primary-toggle", "Contents of the book"],
    [".secondary-toggle", "On this page"],
    ["#pst-primary-sidebar-checkbox", "Contents of the book"],
    ["#pst-secondary-sidebar-checkbox", "On this page"],
    ["nav.bd-links summary", "Pages below this one"],
  ]) {
    all(selector).forEach((control) => control.setAttribute("aria-label", name));
  }

  // The button shows its own words; a label that differs hides them from voice control.
  all(".search-button-field").forEach((button) => button.removeAttribute("aria-label"));
  // Docutils gives references roles that ARIA no longer has.
  all(".citation-list, .citation").forEach((node) => node.removeAttribute("role"));

  // A displayed equation that is too wide is set line by line, then smaller.
  const SMALLEST = 0.7;
  const wide = (box) => box.scrollWidth > box.clientWidth + 1;
  const visible = (selector) =>
    [...all(selector)].filter((box) => box.getClientRects().length);

  function fit() {
    const boxes = visible("div.math");
    for (const box of boxes) {
      box.classList.remove("narrow");
      box.style.fontSize = "";
    }
    const much = (box) =>
      wide(box) && (innerWidth < 600 || box.clientWidth < 0.94 * box.scrollWidth);
    boxes.filter((box) => much(box) && box.querySelector(".rows"))
      .forEach((box) => box.classList.add("narrow"));
    // A smaller formula may break elsewhere: so once more.
    for (let again = 0; again < 3; again++) {
      boxes.filter(wide).map((box) => [box, box.clientWidth / box.scrollWidth])
        .forEach(([box, room]) => {
          const size = (parseFloat(box.style.fontSize) || 1) * room - 0.01;
          box.style.fontSize = `${Math.max(SMALLEST, size).toFixed(2)}em`;
        });
    }
  }

  // What still scrolls sideways has a name, can be reached by keyboard and fades at its ends.
  const SIDEWAYS = ".bd-article :is(pre, div.math, .scroll, .pst-scrollable-table-container)";

  function kindOf(box) {
    if (box.matches("pre")) return "Code";
    if (!box.matches("div.math")) {
      const caption = box.querySelector("caption, thead")?.textContent.trim().replace(/\s+/g, " ");
      return caption ? `Table: ${caption}` : "Table";
    }
    const number = box.id.match(/^eq-(\w+)$/)?.[1];
    return number ? `Equation (${number})` : "Equation";
  }

  function fade(box) {
    const end = box.scrollWidth - box.clientWidth;
    box.dataset.more = [box.scrollLeft > 2 && "left", box.scrollLeft < end - 2 && "right"]
      .filter(Boolean).join(" ");
  }

  function reach() {
    fit();
    const boxes = visible(SIDEWAYS).map((box) => [box, wide(box)]);
    for (const [box, scrolls] of boxes) {
      if (!scrolls) {
        for (const name of ["tabindex", "data-more"]) box.removeAttribute(name);
        if (box.dataset.named) for (const name of ["role", "aria-label", "data-named"]) box.removeAttribute(name);
        continue;
      }
      box.tabIndex = 0;
      if (!box.hasAttribute("aria-label")) {
        box.dataset.named = "";
        box.setAttribute("role", "group");
        box.setAttribute("aria-label", `${kindOf(box)}, scrolls sideways`);
      }
      fade(box);
      box.onscroll = () => fade(box);
    }
  }

  // A link to an equation, or a word of the notation page, shows it when pointed at.
  const card = document.createElement("div");
  card.className = "preview";
  card.setAttribute("aria-hidden", "true");
  card.hidden = true;
  document.body.append(card);
  const show = (event) => {
    const link = event.target.closest?.('.bd-article :is(a[href^="#eq-"], a.word)');
    const id = link?.hash.slice(1);
    const shown = link && document.getElementById(link.matches(".word") ? `meaning-${id}` : id);
    card.hidden = !shown;
    if (!shown) return;
    card.replaceChildren(...[...shown.childNodes].map((node) => node.cloneNode(true)));
    const at = link.getBoundingClientRect();
    card.style.left = `${Math.max(8, Math.min(at.left, innerWidth - card.offsetWidth - 8))}px`;
    const above = at.top - card.offsetHeight - 8;
    card.style.top = `${above > 56 ? above : at.bottom + 8}px`;
  };
  for (const kind of ["mouseover", "focusin"]) document.addEventListener(kind, show);
  // Focus by keyboard may scroll to the link first.
  document.addEventListener("scrollend", () => {
    if (document.activeElement.matches(":focus-visible")) show({ target: document.activeElement });
  });
  for (const kind of ["scroll", "keydown"]) document.addEventListener(kind, () => (card.hidden = true));

  // Widths are known when the fonts are there, and in a fold when it is open.
  addEventListener("load", () => document.fonts.ready.then(reach));
  addEventListener("resize", reach);
  document.addEventListener("toggle", reach, true);

  // Formulas have no place in the excerpts of a search.
  if (typeof Search === "object" && Search.htmlToText) {
    const { htmlToText } = Search;
    Search.htmlToText = (html, anchor) => {
      const page = new DOMParser().parseFromString(html, "text/html");
      page.querySelectorAll(".math").forEach((formula) => formula.replaceWith("…"));
      return htmlToText(page.documentElement.outerHTML, anchor);
    };
  }
})();
