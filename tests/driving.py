"""A reader's hand on an interactive figure: by mouse, by keyboard or by touch.

A control is driven as that reader would, at its place on a phone's screen; what counts
is whether the figure then shows something else.
"""

from collections.abc import Callable
from typing import Any

PHONE = {
    "viewport": {"width": 390, "height": 844},
    "has_touch": True,
    "is_mobile": True,
}
# Every control of every figure gets a number; what is chosen already is driven last,
# since choosing it again changes nothing.
FIND = """() => {
  const drawn = (node) =>
    /crosshair|pointer|grab|move/.test(getComputedStyle(node).cursor);
  const found = [...document.querySelectorAll(".iclrtut")].flatMap((figure) =>
    [...figure.querySelectorAll("input, button, select, textarea, audio, svg, canvas")]
      .filter((node) => !node.closest("figcaption"))
      .filter((node) => !/^(svg|canvas)$/.test(node.localName)
        || (drawn(node) && !node.closest("label, button"))));
  found.forEach((node, i) => { node.dataset.driven = i; });
  const chosen = (node) => node.checked || node.getAttribute("aria-pressed") === "true";
  return found.map((node) => ({
    number: Number(node.dataset.driven),
    kind: node.localName === "input" ? node.type : node.localName,
    keys: node.tabIndex >= 0,
    drags: node.getAttribute("role") === "application",
    chosen: Boolean(chosen(node)),
    name: (node.closest(".iclrtut").dataset.play ?? "") + " " + (node.ariaLabel
      ?? node.closest("label, button, .control")?.textContent ?? node.localName),
  })).sort((a, b) => a.chosen - b.chosen);
}"""
# What a figure shows and says, its own delayed words to screen readers aside.
SHOWN = """(node) => {
  const figure = node.closest(".iclrtut"), copy = figure.cloneNode(true);
  copy.querySelectorAll("[role=status]").forEach((each) => each.remove());
  const values = [...figure.querySelectorAll("input, select, audio")]
    .map((each) => [each.value, each.checked, each.paused, each.currentTime]);
  return copy.innerHTML + JSON.stringify(values);
}"""
# The picture alone, without the sliders and their values.
PICTURE = """(node) => {
  const copy = node.closest(".iclrtut").cloneNode(true);
  const aside = copy.querySelectorAll("input, output, [role=status]");
  aside.forEach((each) => each.remove());
  return copy.innerHTML;
}"""
REMEMBER = f"""(node) => {{
  node.scrollIntoView({{block: "center", behavior: "instant"}});
  window.shown = {SHOWN};
  window.picture = {PICTURE};
  window.before = {{shown: shown(node), picture: picture(node)}};
}}"""
# Whether something else shows than before, within five seconds.
CHANGED = """async (node, what) => {
  for (let tries = 0; tries < 250; tries++) {
    if (window[what](node) !== before[what]) return true;
    await new Promise((done) => setTimeout(done, 20));
  }
  return false;
}"""
# Whether the figure comes to rest within 0.4 s; one that runs on does not.
RESTS = f"""async (node) => {{
  const shown = {SHOWN};
  for (let tries = 0, seen = ""; tries < 10; tries++) {{
    const now = shown(node);
    if (now === seen) return true;
    seen = now;
    await new Promise((done) => setTimeout(done, 40));
  }}
  return false;
}}"""
PUT_BACK = """() => {
  for (const range of document.querySelectorAll(".iclrtut [type=range]")) {
    range.value = range.defaultValue;
    range.dispatchEvent(new Event("input"));
  }
}"""
# Where to take hold of a control and where to move it to, in the window.
PLACES = """(node) => {
  const label = node.closest("label") ?? node;
  const hidden = node.type === "radio" || node.type === "checkbox";
  const box = (hidden ? label : node).getBoundingClientRect();
  const at = (u, v) => [box.left + u * box.width, box.top + v * box.height];
  if (node.type === "range") {
    const share = (node.value - node.min) / (node.max - node.min);
    const thumb = 24 / box.width;
    const place = (s) => at(thumb / 2 + s * (1 - thumb), 0.5);
    return [place(share), place(share < 0.5 ? 0.9 : 0.1)];
  }
  if (node.localName === "audio") return [[box.left + 28, box.top + box.height / 2]];
  if (node.localName !== "svg") return [at(0.5, 0.5)];
  const hold = (node.querySelector(".hold") ?? node).getBoundingClientRect();
  const within = (v, low, size) => Math.min(Math.max(v, low + 6), low + size - 6);
  return [[within(hold.left + hold.width / 2, box.left, box.width),
    within(hold.top + hold.height / 2, box.top, box.height)], at(0.7, 0.35)];
}"""
HIT = """(node, [x, y]) => {
  const there = document.elementFromPoint(x, y), label = node.closest("label");
  return Boolean(there && (node.contains(there) || label?.contains(there)));
}"""


def mouse(page: Any, node: Any, control: dict[str, Any]) -> None:
    """Click, or press, move and let go."""
    first, *rest = node.evaluate(PLACES)
    page.mouse.move(*first)
    page.mouse.down()
    for place in rest:
        page.mouse.move(*place, steps=4)
    page.mouse.up()


def touch(page: Any, node: Any, control: dict[str, Any]) -> None:
    """Tap, or put a finger down, move it and lift it; a picture takes a tap first."""
    first, *rest = node.evaluate(PLACES)
    if control["kind"] in ("svg", "canvas") and not control["drags"]:
        return page.touchscreen.tap(*rest[-1])
    if not rest:
        return page.touchscreen.tap(*first)
    session = page.context.new_cdp_session(page)

    def send(kind: str, *points: list[float]) -> None:
        fingers = [{"x": x, "y": y} for x, y in points]
        session.send(
            "Input.dispatchTouchEvent",
            {"type": kind, "touchPoints": fingers},
        )

    send("touchStart", first)
    (x0, y0), (x1, y1) = first, rest[-1]
    for share in (0.3, 0.6, 1):
        send("touchMove", [x0 + share * (x1 - x0), y0 + share * (y1 - y0)])
    # A finger that rests before it lifts throws nothing; a page in flight takes no tap.
    page.wait_for_timeout(100)
    send("touchMove", [x1, y1])
    send("touchEnd")
    session.detach()
    return None


def keyboard(page: Any, node: Any, control: dict[str, Any]) -> None:
    """Focus the control and press the key that a reader would."""
    node.evaluate("(node) => node.focus({preventScroll: true})")
    if control["kind"] == "range":
        page.keyboard.press(
            "End" if node.evaluate("s => s.value !== s.max") else "Home"
        )
    elif control["drags"]:
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Space")
    elif control["kind"] == "select":
        page.keyboard.press("ArrowDown")
    else:
        page.keyboard.press("Enter" if control["kind"] == "button" else "Space")


MEANS: dict[str, Callable[[Any, Any, dict[str, Any]], None]] = {
    "mouse": mouse,
    "keyboard": keyboard,
    "touch": touch,
}


class Driver:
    """Drives the controls of many pages.

    Each control is driven by one means. The means take turns within a kind of control,
    so that every kind meets them all.
    """

    def __init__(self) -> None:
        self.met: dict[str, list[str]] = {}  # kind -> the means of its controls

    def drive(self, page: Any) -> dict[str, list[str]]:
        """Drive every control of a page's figures.

        Ranges come first and are put back then: a button may undo what they moved, and
        an extreme that one of them was left at may leave a button nothing to do.

        Returns:
            driven, the controls; still, those that changed nothing; covered, those that
            something else lies upon; pictureless and silent, the ranges that changed no
            picture, and those that a screen reader hears no new value of.
        """
        kinds = ("driven", "still", "covered", "pictureless", "silent")
        found: dict[str, list[str]] = {kind: [] for kind in kinds}
        controls = page.evaluate(FIND)
        for control in (each for each in controls if each["kind"] == "range"):
            self._use(page, control, found)
        page.evaluate(PUT_BACK)
        for control in (each for each in controls if each["kind"] != "range"):
            self._use(page, control, found)
        return found

    def _means(self, control: dict[str, Any]) -> str:
        """Whose turn it is."""
        met = self.met.setdefault(control["kind"], [])
        means = list(MEANS)[len(met) % len(MEANS)]
        if means == "keyboard" and not control["keys"]:
            means = "mouse"
        met.append(means)
        return means

    def _use(
        self, page: Any, control: dict[str, Any], found: dict[str, list[str]]
    ) -> None:
        """Drive one control and note what came of it; what runs on is stopped."""
        node = page.locator(f"[data-driven='{control['number']}']").element_handle()
        node.evaluate(RESTS)
        node.evaluate(REMEMBER)
        means = self._means(control)
        name = f"{control['kind']} {' '.join(control['name'].split())[:60]} by {means}"
        found["driven"].append(name)
        if means != "keyboard" and not node.evaluate(HIT, node.evaluate(PLACES)[0]):
            found["covered"].append(name)
            return
        said = node.get_attribute("aria-valuetext")
        MEANS[means](page, node, control)
        if not node.evaluate(CHANGED, "shown"):
            found["still"].append(name)
        elif control["kind"] == "range":
            if not node.evaluate(CHANGED, "picture"):
                found["pictureless"].append(name)
            if node.get_attribute("aria-valuetext") == said:
                found["silent"].append(name)
        if control["kind"] in ("audio", "button") and not node.evaluate(RESTS):
            MEANS[means](page, node, control)
