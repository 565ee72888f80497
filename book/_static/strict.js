// The site's policy lets no script write a style attribute or a style element, and MathJax
// and the figures do. The same text is welcome through the style sheets' own interface.
(() => {
  const { setAttribute } = Element.prototype;
  Element.prototype.setAttribute = function (name, value) {
    if (name === "style" && this.style) this.style.cssText = value;
    else setAttribute.call(this, name, value);
  };

  const { head } = document;
  head.appendChild = (node) => {
    if (node.nodeName !== "STYLE") return Node.prototype.appendChild.call(head, node);
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(node.textContent);
    document.adoptedStyleSheets.push(sheet);
    // MathJax appends a sheet again and again until it has a parent.
    return document.createDocumentFragment().appendChild(node);
  };
})();
