// Sets one formula with KaTeX. The build of the site runs it; no page does.

/**
 * The HTML of a formula, with MathML for screen readers.
 *
 * Lines of a display break before a relation, as in print. A stack of lines is set a
 * second time, line by line, for columns that are too narrow for the stack.
 */
function set(tex, displayMode, lines) {
  const options = { displayMode, strict: "error" };
  const tree = katex.__renderToDomTree(tex, options);
  if (displayMode) {
    const html = shown(tree);
    pieces(html);
    if (lines.length) {
      const Span = html.constructor;
      const rows = lines.map((line) => {
        const row = shown(katex.__renderToDomTree(line, options));
        pieces(row);
        return row;
      });
      html.classes.push("stack");
      shownParent(tree).children.push(new Span(["rows"], rows));
    }
  }
  return tree.toMarkup();
}

const shownParent = (tree) => tree.children[0];
const shown = (tree) => shownParent(tree).children[1];

/** Move each relation from the end of its base to the start of the next. */
function pieces(html) {
  const has = (node, name) => node?.classes?.includes(name);
  const Span = html.constructor;
  const tags = html.children.filter((node) => has(node, "katex-tag"));
  const bases = html.children.filter((node) => !tags.includes(node)).flatMap(parts);
  const rows = [];
  let moved = [];
  let open = 0; // brackets: what is inside breaks only where nothing else helps
  for (const base of bases) {
    if (!rows.length || moved.length || base.apart) rows.push([]);
    const [strut, ...rest] = base.children ?? [];
    if (has(base, "katex-base")) {
      const inner = [...moved, ...rest];
      const last = inner.findLastIndex((node) => !has(node, "mspace"));
      for (const node of rest) open += has(node, "mopen") - has(node, "mclose");
      const ends = last > 0 && open <= 0 && has(inner[last], "mrel");
      const first = ends && has(inner[last - 1], "mspace") ? last - 1 : last;
      moved = ends ? inner.splice(first) : [];
      base.children = [strut, ...inner];
    }
    rows.at(-1).push(base);
  }
  rows.at(-1)?.at(-1).children.push(...moved);
  const lines = new Span(["lines"], rows.map((row) => new Span(["piece"], row)));
  html.children = [lines, ...tags];
}

/** A base in parts: what a wide space sets apart may stand in a line of its own. */
function parts(base) {
  const [strut, ...inner] = base.children ?? [];
  const found = [[]];
  for (const node of inner) {
    found.at(-1).push(node);
    if (parseFloat(node.style?.marginRight) >= 1) found.push([]);
  }
  if (found.length === 1) return [base];
  return found.filter((part) => part.length).map((part, i) => {
    const made = new base.constructor(base.classes, [strut, ...part]);
    made.apart = i > 0;
    return made;
  });
}
