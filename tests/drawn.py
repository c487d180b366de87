"""What a picture is drawn of, as text: each figure's specification with its data, or each stroke of the pen."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import vl_convert
import yaml
from PIL import Image, ImageDraw

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
    "0000000a49444154789c63f80f0001010100b138f6140000000049454e44ae426082"
)
"""A picture of one white pixel."""


@contextmanager
def noted() -> Iterator[list[str]]:
    """Inside, note what is drawn in place of rendering figures; pens draw as ever."""
    found: list[str] = []

    def render(spec: Any, **_: Any) -> bytes:
        found.append(describe_figure(spec))
        return PNG

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vl_convert, "vegalite_to_png", render)
        for name in ("text", "rectangle", "circle"):
            patch.setattr(ImageDraw.ImageDraw, name, _noting(found, name, getattr(ImageDraw.ImageDraw, name)))
        paste, new = Image.Image.paste, Image.new

        def pasted(sheet: Image.Image, image: Any, at: Any = None, *rest: Any) -> None:
            if isinstance(image, Image.Image):
                found.append(f"paste {image.width}x{image.height} at {_round(at)}, {_describe_colours(image)}")
            paste(sheet, image, at, *rest)

        def made(mode: str, size: tuple[int, int], *rest: Any) -> Image.Image:
            if size[0] > 1:
                found.append(f"new {mode} {size[0]}x{size[1]} {rest}")
            return new(mode, size, *rest)

        patch.setattr(Image.Image, "paste", pasted)
        patch.setattr(Image, "new", made)
        yield found


def _noting(found: list[str], name: str, draw: Any) -> Any:
    def noting(pen: Any, *args: Any, **options: Any) -> Any:
        shown = {key: value for key, value in options.items() if key != "font" and not key.startswith("_")}
        font = f" size {options['font'].size}" if "font" in options else ""
        found.append(f"{name} {_round([*args, shown])}{font}")
        return draw(pen, *args, **options)

    return noting


def _describe_colours(image: Image.Image) -> str:
    """The mean colour of each quarter, from the left above."""
    pixels = np.asarray(image.convert("RGB"), np.float64)
    middle = pixels.shape[0] // 2, pixels.shape[1] // 2
    quarters = [half for rows in np.split(pixels, [middle[0]]) for half in np.split(rows, [middle[1]], 1)]
    return " ".join("/".join(f"{mean:.0f}" for mean in part.mean((0, 1))) for part in quarters)


def describe_figure(spec: Any) -> str:
    """A specification of Vega-Lite with its data; names that are counted or hashed are numbered as they come."""
    shown = {key: value for key, value in json.loads(json.dumps(spec)).items() if key not in ("config", "$schema")}
    datasets = shown.pop("datasets", {})
    text = yaml.safe_dump(_round(shown), default_flow_style=None, width=140)
    for number, (name, rows) in enumerate(sorted(datasets.items(), key=lambda pair: text.find(pair[0]))):
        text = text.replace(name, f"data {number}")
        text += "".join([f"data {number}:\n", *(f"  {json.dumps(_round(row))}\n" for row in rows)])
    numbers: dict[str, int] = defaultdict(int)
    for name in dict.fromkeys(re.findall(r"\b(?:param|view|picked|hovered|concat)_(?:[0-9a-f]{16}_)?\d+\b", text)):
        kind = name.partition("_")[0]
        text = re.sub(rf"\b{name}\b", f"{kind}-{numbers[kind]}", text)
        numbers[kind] += 1
    return text


def _round(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _round(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_round(one) for one in value]
    if isinstance(value, np.integer):
        return int(value)
    return float(f"{value:.5g}") if isinstance(value, float) else value
