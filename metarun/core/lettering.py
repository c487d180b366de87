"""Text in pictures that is cut or broken to the room there is."""

from __future__ import annotations

import re

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def cut(text: str, width: float, font: Font) -> str:
    """Return the text, with its middle left out where it is wider than `width` pixels."""
    short, kept = text, len(text)
    while kept > 1 and font.getlength(short) > width:
        kept -= 1
        short = f"{text[: kept // 2]}…{text[len(text) - (kept - kept // 2) :]}"
    return short


def wrap(text: str, width: float, font: Font, most: int) -> list[str]:
    """Return at most `most` lines, broken after a space or a slash; what does not fit is cut."""
    lines = [""]
    for word in re.findall(r"[^ /]*[ /]?", text):
        if lines[-1] and font.getlength((lines[-1] + word).rstrip()) > width and len(lines) < most:
            lines.append("")
        lines[-1] += word
    return [cut(line.rstrip(), width, font) for line in lines]
