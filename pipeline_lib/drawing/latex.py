"""Tables as LaTeX, to be pasted: a `table` of booktabs with its caption, every value escaped."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}",
}  # fmt: skip
_NUMBERS = re.compile(r"(?=.*\d)[-+\d.,*\[\] %]+")
"""A text of numbers alone: -0.8* [-2.5, +0.9]."""


def latex_table(rows: Sequence[Mapping[str, Any]], *, caption: str) -> str:
    """Rows of the same keys: text at the left, numbers at the right, `--` where there is nothing.

    A value that is a pair of texts has the second in a line below the first. Needs LaTeX's package booktabs. Empty for
    no rows.
    """
    if not rows:
        return ""
    columns = list(rows[0])
    numeric = [all(_is_numeric(text) for row in rows for text in _lines(row[column])) for column in columns]
    lines = [r"% \usepackage{booktabs}", r"\begin{table}", r"\centering", r"\small", rf"\caption{{{escape(caption)}}}"]
    lines += [rf"\begin{{tabular}}{{{''.join('r' if n else 'l' for n in numeric)}}}", r"\toprule"]
    lines += [" & ".join(escape(column) for column in columns) + r" \\", r"\midrule"]
    for row in rows:
        cells = [_lines(value) for value in row.values()]
        for number in range(max(map(len, cells))):
            lines.append(" & ".join(_cell(own[number]) if number < len(own) else "" for own in cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def escape(text: str) -> str:
    """Text with LaTeX's special characters made harmless."""
    return "".join(_SPECIAL.get(character, character) for character in text)


def _lines(value: Any) -> list[str]:
    if value is None:
        return ["-"]
    if isinstance(value, tuple):
        return [text for text in value if text]
    return [f"{value:.4g}" if isinstance(value, float) else str(value)]


def _is_numeric(text: str) -> bool:
    return text == "-" or _NUMBERS.fullmatch(text) is not None


def _cell(text: str) -> str:
    """With a minus where a hyphen stands for one, and a dash between the ends of a range."""
    if text == "-":
        return "--"
    if not _is_numeric(text):
        return escape(text)
    return re.sub(r"(?<![\d-])-(?=\d)", "$-$", re.sub(r"(?<=\d)-(?=\d)", "--", escape(text)))
