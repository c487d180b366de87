from __future__ import annotations

from PIL import ImageFont

from metarun.core.lettering import cut, wrap

FONT = ImageFont.load_default(13)


def test_text_is_cut_in_its_middle_to_the_width_there_is() -> None:
    text = "a very long name of a class"
    short = cut(text, 60, FONT)
    assert FONT.getlength(short) <= 60 < FONT.getlength(text)
    assert (short[0], short[-1], "…" in short) == ("a", "s", True)
    assert cut("owl", 60, FONT) == "owl"


def test_text_is_broken_after_spaces_and_slashes_and_its_last_line_is_cut() -> None:
    text = "Japanese_(hiragana)/character46 turned by 180"
    assert wrap(text, 140, FONT, 4) == ["Japanese_(hiragana)/", "character46 turned by", "180"]
    first, last = wrap(text, 140, FONT, 2)
    assert first == "Japanese_(hiragana)/"
    assert last.startswith("char")
    assert last.endswith("180")
    assert FONT.getlength(last) <= 140
    assert wrap("owl", 140, FONT, 3) == ["owl"]
