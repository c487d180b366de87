"""The cells of a table that people keep as .csv or .tsv."""

from __future__ import annotations

import csv
import io


def read_rows(text: str, delimiter: str, name: str, long: bool = False) -> list[list[str]]:
    """Read the cells of each line; of an empty line none.

    Args:
        name: of the file, for the message.
        long: whether a cell in quotation marks may have several lines.
    Raises: ValueError for a quotation mark that would join lines, or cells, that stand apart.
    """
    rows, lines = list[list[str]](), csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    try:
        for row in lines:
            if not long and lines.line_num > line:
                raise csv.Error("its cell goes on in the next line")
            rows.append(row)
            line = lines.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f"{name}, line {line}: a quotation mark begins a cell there that does not end with one ({error}); write it "
            'twice within quotation marks, as in "he said ""no"""'
        ) from error
    return rows
