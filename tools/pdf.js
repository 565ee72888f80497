// Takes one typeset page of the site apart for the handout; tools/pdf.py runs it there.
// It gives back the article's HTML, the solutions, the headings and the styles.
async ({ page, pages, site }) => {
  await document.fonts.ready;
  document.querySelectorAll("details").forEach((fold) => { fold.open = true; });
  // On paper an equation is fitted anew.
  document.querySelectorAll("div.math").forEach((formula) => {
    formula.classList.remove("narrow");
    formula.removeAttribute("style");
  });
  document.querySelectorAll("[data-more]").forEach((box) => {
    for (const name of ["tabindex", "data-more"]) box.removeAttribute(name);
  });
  const article = document.querySelector("article.bd-article");
  const all = (selector) => [...article.querySelectorAll(selector)];
  const label = (name, anchor) => name.replaceAll("/", "-") + (anchor && `--${anchor}`);

  // What only moves or only sounds has no place on paper.
  for (const audio of all("audio")) {
    const note = document.createElement("p");
    note.className = "sound";
    audio.replaceWith(note);
  }
  all("a.headerlink, script, noscript, button, .toctree-wrapper, .panels[hidden]")
    .forEach((node) => node.remove());
  all("[role=heading]").forEach((node) => node.removeAttribute("role"));

  // Drawings keep their own ids: they are used nowhere else.
  all("[id]").filter((node) => !node.closest("svg"))
    .forEach((node) => { node.id = label(page, node.id); });
  const pageNumber = (to, kind) => {
    const number = document.createElement("span");
    number.className = `page ${kind}`;
    number.dataset.to = to;
    return number;
  };
  for (const link of all("a[href]")) {
    const said = link.textContent.trim().replace(/^(arXiv|doi):/, "");
    // In a drawing, `href` is an object.
    const { href } = new URL(link.getAttribute("href"), document.baseURI);
    if (said && href.endsWith(said)) link.classList.add("said");
    if (!href.startsWith(site)) continue;
    const [path, anchor] = href.slice(site.length).split("#");
    const name = path.replace(/\.html$/, "");
    if (!pages.includes(name)) {
      link.replaceWith(...link.childNodes);
      continue;
    }
    const to = label(name, anchor ? decodeURIComponent(anchor) : "");
    link.setAttribute("href", `#${to}`);
    link.removeAttribute("title");
    if (name !== page && !link.closest("svg, table, h1, h2, h3, .actions, .check")) {
      link.after(pageNumber(to, "aside"));
    }
  }
  // Only a drawing's own name gets into the PDF.
  for (const panels of all(".panels[role=img]")) {
    const drawing = panels.querySelector("svg");
    drawing.removeAttribute("aria-hidden");
    drawing.setAttribute("role", "img");
    drawing.setAttribute("aria-label", panels.getAttribute("aria-label"));
    panels.removeAttribute("role");
  }
  for (const picture of all("img[src]")) picture.src = picture.src;

  // A browser breaks the line between a formula and the comma behind it.
  for (const formula of all("span.math")) {
    const [mark] = formula.nextSibling?.data?.match(/^[.,;:!?)\]’”-]+/) ?? [""];
    const [open] = formula.previousSibling?.data?.match(/[([‘“]+$/) ?? [""];
    if (!mark && !open) continue;
    const whole = document.createElement("span");
    whole.className = "unbroken";
    formula.before(whole);
    whole.append(open, formula, mark);
    if (open) whole.previousSibling.data = whole.previousSibling.data.slice(0, -open.length);
    if (mark) whole.nextSibling.data = whole.nextSibling.data.slice(mark.length);
  }

  // Solutions leave the exercises: what stays is the way to them.
  const solutions = all("details[id*='--solution-']").map((fold) => {
    const name = fold.querySelector("summary").textContent.trim();
    fold.querySelector("summary").remove();
    const way = document.createElement("p");
    way.className = "way";
    way.innerHTML = `<a href="#${fold.id}">${name}</a>, page `;
    way.append(pageNumber(fold.id, ""));
    fold.replaceWith(way);
    return { id: fold.id, name, html: fold.innerHTML };
  });

  const inline = [...document.styleSheets].filter((sheet) => sheet.ownerNode?.tagName === "STYLE");
  const styles = [...inline, ...document.adoptedStyleSheets]
    .map((sheet) => [...sheet.cssRules].map((rule) => rule.cssText).join("\n"));
  all("style").forEach((node) => node.remove());
  const sections = all("h2").map((heading, i) => {
    heading.id ||= label(page, `section-${i}`);
    return { id: heading.id, title: heading.innerHTML.replace(/<\/?a\b[^>]*>/g, "") };
  });
  return {
    id: label(page, ""),
    title: article.querySelector("h1").textContent.trim(),
    html: article.innerHTML,
    sections,
    solutions,
    styles,
    sheets: [...document.querySelectorAll("link[rel=stylesheet]")].map((link) => link.href),
  };
}
