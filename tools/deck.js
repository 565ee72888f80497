// Sets formulas, makes wide ones fit, turns sliders, and starts the deck.

const SMALLEST = 0.5;

/** Make a formula smaller until it and its slide fit; no smaller than text may be. */
function fit(formula) {
  const slide = formula.closest("section");
  const { minWidth } = getComputedStyle(formula.querySelector("mjx-container"));
  let zoom = Math.min(1, formula.clientWidth / parseFloat(minWidth));
  formula.style.zoom = zoom;
  while (slide.scrollHeight > slide.clientHeight && zoom > SMALLEST) {
    zoom -= 0.02;
    formula.style.zoom = zoom;
  }
}

/** A widget that is too large for a slide is played on the page. */
function place(widget) {
  const slide = widget.closest("section");
  if (slide.scrollHeight <= slide.clientHeight) return;
  widget.remove();
  slide.querySelector(".elsewhere").hidden = false;
}

/** Let a slider show one of its frames. */
function turn(figure) {
  const slider = figure.querySelector("input");
  const frames = figure.querySelectorAll(".frame");
  slider.addEventListener("input", () => {
    frames.forEach((frame, i) => { frame.hidden = i !== Number(slider.value); });
    const { value } = frames[slider.value].dataset;
    figure.querySelector("output").textContent = value;
    slider.setAttribute("aria-valuetext", value);
  });
}

function start() {
  document.querySelectorAll(".equation").forEach(fit);
  document.querySelectorAll(".widget > figure").forEach(place);
  document.querySelectorAll("figure:has(> figcaption input)").forEach(turn);
  document.body.classList.add("ready");
  return Reveal.initialize({
    width: 1280,
    height: 720,
    margin: 0,
    center: false,
    display: "flex",
    hash: true,
    slideNumber: "c/t",
    transition: "none",
    scrollActivationWidth: null, // a phone swipes, too
    plugins: [RevealNotes],
  });
}

window.MathJax = {
  options: { enableMenu: false },
  chtml: { mtextInheritFont: true, matchFontHeight: false },
  startup: {
    // Text in formulas is measured, so the fonts have to be there first.
    pageReady: () => Promise.all([...document.fonts].map((font) => font.load()))
      .then(() => MathJax.startup.defaultPageReady()).then(start),
  },
};
