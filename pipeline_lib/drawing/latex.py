"""Tables as LaTeX: a `tabular` without packages, every value escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}",
}  # fmt: skip


def latex_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of the same keys as a `tabular`: text at the left, numbers at the right, `--` where there is nothing.

    Numbers with a fraction are given to four significant digits. Empty for no rows.
    """
    if not rows:
        return ""
    columns = list(rows[0])
    numeric = [all(isinstance(row[c], int | float) or row[c] is None for row in rows) for c in columns]
    lines = [rf"\begin{{tabular}}{{{''.join('r' if n else 'l' for n in numeric)}}}", r"\hline"]
    lines.append(" & ".join(escape(column) for column in columns) + r" \\ \hline")
    lines += [" & ".join(_cell(row[column]) for column in columns) + r" \\" for row in rows]
    return "\n".join([*lines, r"\hline", r"\end{tabular}", ""])


def escape(text: str) -> str:
    """Text with LaTeX's special characters made harmless."""
    return "".join(_SPECIAL.get(character, character) for character in text)


def _cell(value: Any) -> str:
    if value is None:
        return "--"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return escape("[" + ", ".join(f"{edge:.4g}" if isinstance(edge, float) else str(edge) for edge in value) + "]")
    return escape(str(value))
