"""Tables with quotation marks: read as the standard has it, and refused where a mark joins what stands apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metarun.data.files.descriptions import read_descriptions
from metarun.data.files.labelled_lines import read_lines
from metarun.data.files.rows import read_rows
from metarun.data.files.table import read_table
from metarun.data.points_file import read_points


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('a,"b, c"\r\n\r\nd,"he said ""no"""\r\n', [["a", "b, c"], [], ["d", 'he said "no"']]),
        ('a,b "c" d\n', [["a", 'b "c" d']]),
    ],
)
def test_cells_are_those_of_the_standard(text: str, rows: list[list[str]]) -> None:
    assert read_rows(text, ",", "t.csv") == rows


def test_a_long_cell_may_have_several_lines_where_that_is_allowed() -> None:
    text = 'a,b\nc,"d\ne"\nf,g\n'
    assert read_rows(text, ",", "t.csv", long=True)[1] == ["c", "d\ne"]
    with pytest.raises(ValueError, match=r"t.csv, line 2: a quotation mark begins a cell there that does not end"):
        read_rows(text, ",", "t.csv")


READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {  # with a mark that would take the next lines into its cell
    "texts": ('label\ttext\na\t"never closed\nb\tother\nc\tmore\n', read_lines),
    "texts, closed within": ('label\ttext\na\t"hello" world\nb\tother\n', read_lines),
    "descriptions": ('"a\t1\t2\nb\t3\t4\nc"\t5\t6\n', lambda path: read_descriptions(str(path))),
    "labels": ('one.png\t"a\ntwo.png\tb\nthree.png\tc"\n', lambda path: read_table(path.read_bytes(), str(path))),
}


@pytest.mark.parametrize("kind", READERS)
def test_a_stray_quotation_mark_loses_no_line_in_silence(tmp_path: Path, kind: str) -> None:
    text, read = READERS[kind]
    path = tmp_path / "t.tsv"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"line [12]: a quotation mark begins a cell there"):
        read(path)


def test_points_with_a_stray_quotation_mark_are_refused(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text('x,y\n"1,2\n3,4"\n5,6\n')
    with pytest.raises(ValueError, match="line 2: a quotation mark"):
        read_points(tmp_path / "p.csv", [2])
