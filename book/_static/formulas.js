// Formulas take the size of the letters around them, so these letters come first.
if (window.MathJax) {
  MathJax.startup = {
    async pageReady() {
      document.body.getBoundingClientRect(); // asks for the fonts that the page uses
      await document.fonts.ready;
      return MathJax.startup.defaultPageReady();
    },
  };
}
