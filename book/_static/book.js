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

  // What scrolls sideways can be reached by keyboard.
  const reach = () =>
    all(".bd-article :is(pre, div.math, .pst-scrollable-table-container)").forEach((box) => {
      if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0;
    });

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

  addEventListener("load", () => window.MathJax?.startup?.promise?.then(reach) ?? reach());
  addEventListener("resize", reach);
})();
