// A slider over frames drawn beforehand: shows one, hides the others, says its value.
const slider = root.querySelector("input");
const output = root.querySelector("output");
const frames = root.querySelectorAll(".panels");
slider.addEventListener("input", () => {
  frames.forEach((frame, i) => { frame.hidden = i !== Number(slider.value); });
  output.textContent = frames[slider.value].dataset.value;
  slider.setAttribute("aria-valuetext", output.textContent);
});
