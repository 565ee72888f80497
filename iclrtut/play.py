"""Interactive figures that work on a page without a server, a network or a kernel.

`frames` is a slider over pictures drawn beforehand. `widget` runs a chapter's own
script in the page, on a payload that may hold a small network from `export`;
`run_script` runs any other.
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

from iclrtut import figures
from iclrtut.errors import BadRequest

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import nn

FRAME_BYTES = 50_000
_MEANINGS = ("DATA", "MODEL", "BASELINE", "EXACT", "FAILURE")
_COLOURS = ";".join(f"--{name.lower()}:{getattr(figures, name)}" for name in _MEANINGS)
_USES = re.compile(r"^// uses (\w+\.js)$", re.MULTILINE)
_NOSCRIPT = (
    "<noscript><p>This figure moves when scripts are switched on in the browser.</p>"
    "</noscript>"
)


def frames(
    draw: Callable[[float], "Figure | Sequence[Figure]"],
    values: Sequence[float],
    *,
    label: str,
    alt: str | Callable[[float], str],
    caption: str,
    format: str = "{:g}",
) -> None:
    """Display a slider over frames; the first is what shows on paper.

    Args:
        draw: makes the figure, or the list of figures, of a value.
        values: one a frame, in the order of the slider.
        label: what the slider changes, with its unit.
        alt: what the picture shows, for all frames or as a function of the value.
        caption: what to see when the slider moves.
        format: how a value is written.

    Raises:
        BadRequest: there are fewer than two values, alt, label or caption is empty,
            or a frame weighs more than 50 KB.
    """
    if len(values) < 2:
        raise BadRequest(f"frames got {len(values)} value(s): a slider needs two.")
    _require(label=label, caption=caption)
    shown = [format.format(value) for value in values]
    alts = [alt(value) if callable(alt) else alt for value in values]
    pictures = []
    for i, value in enumerate(values):
        attributes = f' data-value="{html.escape(shown[i])}"' + " hidden" * (i > 0)
        picture = figures.panels(draw(value), alts[i], 1000, attributes)
        if len(picture) > FRAME_BYTES:
            picture = figures.panels(draw(value), alts[i], 100, attributes)
        if len(picture) > FRAME_BYTES:
            raise BadRequest(
                f"The frame {label} = {shown[i]} weighs {len(picture):,} bytes, over "
                f"{FRAME_BYTES:,}: draw fewer points or a smaller figure."
            )
        pictures.append(picture)
    control = (
        f'<div class="control"><label><span>{html.escape(label)}</span>'
        f'<input type="range" min="0" max="{len(values) - 1}" step="1" value="0" '
        f'aria-valuetext="{html.escape(shown[0])}" autocomplete="off"></label>'
        f'<output aria-live="polite">{html.escape(shown[0])}</output></div>'
    )
    body = f'<div class="play frames">{"".join(pictures)}{control}</div>'
    _display(body, _read("frames.js"), alts[0], caption)


def widget(slug: str, payload: Mapping[str, Any], *, alt: str, caption: str) -> None:
    """Display a chapter's interactive figure: its script, run on the payload.

    Args:
        slug: the chapter; the script is `iclrtut/chapters/<slug>/widget.js`, written
            as for `run_script`.
        payload: JSON-able; `mode` picks a figure where a chapter has several.
        alt: what the figure shows and lets the reader do.
        caption: what to see in it.

    Raises:
        BadRequest: the chapter has no script, the payload is not JSON-able, or alt or
            caption is empty.
    """
    try:
        script = _read(f"chapters/{slug}/widget.js")
    except OSError as error:
        raise BadRequest(
            f"There is no iclrtut/chapters/{slug}/widget.js to run."
        ) from error
    run_script(script, payload, alt=alt, caption=caption)


def run_script(
    script: str, payload: Mapping[str, Any], *, alt: str, caption: str
) -> None:
    """Display a figure that a script fills in the page.

    The script finds the element to fill as `root`, the payload as `payload`, and the
    helpers of `iclrtut/play.js`. Its line `// uses audio.js` puts `iclrtut/audio.js`
    before it.

    Args:
        script: JavaScript.
        payload: JSON-able.
        alt: what the figure shows and lets the reader do.
        caption: what to see in it.

    Raises:
        BadRequest: the payload is not JSON-able, or alt or caption is empty.
    """
    _require(alt=alt, caption=caption)
    try:
        data = json.dumps(payload, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise BadRequest(f"The payload cannot be written as JSON: {error}.") from error
    data = data.replace("<", "\\u003c")
    shared = "\n".join(map(_read, ["play.js", *_USES.findall(script)]))
    body = f'<div class="play" role="group" aria-label="{html.escape(alt)}"></div>'
    _display(body, f"{shared}\nconst payload = {data};\n{script}", alt, caption)


def export(model: "nn.Module") -> dict[str, Any]:
    """A small network as a JSON-able dict that a widget runs in the page.

    Args:
        model: nn.Sequential of Conv2d, Linear, SiLU, ReLU, Flatten and
            AdaptiveAvgPool2d(1).

    Returns:
        {"layers": [{"type", and for conv and linear "shape", "weight", "bias"}]} with
        numbers as base64 of little-endian float32; a conv has "stride" and "padding".

    Raises:
        BadRequest: the model is no nn.Sequential, or has another layer or option.
    """
    from torch import nn

    if not isinstance(model, nn.Sequential):
        raise BadRequest(f"export takes nn.Sequential, not {type(model).__name__}.")
    return {"layers": [_layer(name, layer) for name, layer in model.named_children()]}


def _layer(name: str, layer: "nn.Module") -> dict[str, Any]:
    """One layer of `export`."""
    from torch import nn

    if isinstance(layer, nn.SiLU):
        return {"type": "silu"}
    if isinstance(layer, nn.ReLU):
        return {"type": "relu"}
    if isinstance(layer, nn.Flatten) and (layer.start_dim, layer.end_dim) == (1, -1):
        return {"type": "flatten"}
    if isinstance(layer, nn.AdaptiveAvgPool2d) and layer.output_size in (1, (1, 1)):
        return {"type": "mean"}
    if isinstance(layer, nn.Linear):
        return {"type": "linear", **_weights(layer)}
    if isinstance(layer, nn.Conv2d) and _plain(layer):
        sizes = {"stride": list(layer.stride), "padding": list(layer.padding)}
        return {"type": "conv", **sizes, **_weights(layer)}
    raise BadRequest(
        f"export knows no {layer} (layer {name}): use Conv2d without groups, "
        "undilated and padded with zeros, Linear, SiLU, ReLU, Flatten, "
        "AdaptiveAvgPool2d(1)."
    )


def _plain(layer: "nn.Conv2d") -> bool:
    return (
        (layer.groups, layer.dilation, layer.padding_mode) == (1, (1, 1), "zeros")
    ) and not isinstance(layer.padding, str)


def _weights(layer: "nn.Conv2d | nn.Linear") -> dict[str, Any]:
    weight = layer.weight.detach()
    bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach()
    coded = {
        name: base64.b64encode(tensor.float().cpu().numpy().astype("<f4").tobytes())
        for name, tensor in (("weight", weight), ("bias", bias))
    }
    return {"shape": list(weight.shape)} | {k: v.decode() for k, v in coded.items()}


def _require(**texts: str) -> None:
    for name, text in texts.items():
        if not text.strip():
            raise BadRequest(f"{name} is empty: write a sentence for it.")


def _read(name: str) -> str:
    return resources.files("iclrtut").joinpath(name).read_text("utf-8")


def _display(body: str, script: str, alt: str, caption: str) -> None:
    """Display a figure and run its script once, on its own element, wherever it is."""
    mark = "i" + hashlib.sha256((body + script).encode()).hexdigest()[:10]
    page = (
        f"{figures.css('figures.css')}{figures.css('play.css')}"
        f'<figure class="iclrtut" data-play="{mark}" style="{_COLOURS}" '
        f'data-lm-suppress-shortcuts="true">{body}{_NOSCRIPT}'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        "<script>(() => {\n"
        f"const selector = '[data-play={mark}]:not([data-ready])';\n"
        "const figure = document.querySelector(selector);\n"
        "if (!figure) return;\nfigure.dataset.ready = '';\n"
        f"const root = figure.querySelector('.play');\n{script}\n}})();</script>"
    )
    figures.display(page, alt)
