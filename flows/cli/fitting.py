"""Tables that fit a width: what gives way first is what costs the reader least.

Headers break at their spaces, borders go, an interval goes below its value, names are shortened in the middle, and
what is then still too wide is continued in a table below, with the names again.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len

NAMES = ("category", "client", "experiment", "against", "model", "image", "run", "folder", "part", "stage", "defect")
LEFT = (*NAMES, "state", "decision", "note", "subset")
SHORTEST_NAME = 8
PROSE = 24  # characters that a cell of several words may keep in a line
CUT = "…"
_WHOLE = re.compile(r"\[[^\]]*\]\)?|\d %")  # an interval, a share


@dataclass(frozen=True)
class Block:
    """Columns of a table, as wide as they will be drawn: title -> lines of the header, lines of each cell."""

    header: dict[str, list[str]]
    cells: dict[str, list[list[str]]]
    bordered: bool

    def width_of(self, column: str) -> int:
        """Characters of a column's longest line."""
        lines = [*self.header[column], *(line for cell in self.cells[column] for line in cell)]
        return max(map(cell_len, lines), default=0)

    @property
    def width(self) -> int:
        """Characters of a line, with borders or the two spaces between columns."""
        n = len(self.header)
        return sum(map(self.width_of, self.header)) + (3 * n + 1 if self.bordered else 2 * (n - 1))

    def drawn(self) -> list[str]:
        """The lines: names, states and notes to the left, the rest to the right."""
        widths = {column: self.width_of(column) for column in self.header}

        def lines(cells: Mapping[str, list[str]], between: str, *, at_bottom: bool = False) -> list[str]:
            height = max(map(len, cells.values()), default=0)
            padded = {
                column: [*[""] * (height - len(own)), *own] if at_bottom else [*own, *[""] * (height - len(own))]
                for column, own in cells.items()
            }
            found = [
                between.join(_aligned(padded[column][number], column, widths[column]) for column in cells)
                for number in range(height)
            ]
            return [f"{between.strip()} {line} {between.strip()}" if self.bordered else line.rstrip() for line in found]

        rows = [dict(zip(self.cells, row, strict=True)) for row in zip(*self.cells.values(), strict=True)]
        body = [line for row in rows for line in lines(row, " │ " if self.bordered else "  ")]
        head = lines(self.header, " ┃ " if self.bordered else "  ", at_bottom=True)
        if not self.bordered:
            return [*head, "─" * self.width, *body]

        def rule(left: str, line: str, cross: str, right: str) -> str:
            return left + cross.join(line * (width + 2) for width in widths.values()) + right

        return [rule(*"┏━┳┓"), *head, rule(*"┡━╇┩"), *body, rule(*"└─┴┘")]


def _aligned(text: str, column: str, width: int) -> str:
    space = " " * (width - cell_len(text))
    return text + space if column in LEFT else space + text


def fit(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[Block]:
    """The table as blocks of at most `width` characters each; only words that are longer themselves are beyond it."""
    cells = {column: [[row[number]] for row in rows] for number, column in enumerate(columns)}
    block = Block({column: [column] for column in columns}, cells, bordered=True)
    for narrower in (_with_broken_headers, _without_borders, _with_broken_cells):
        if block.width <= width:
            return [block]
        block = narrower(block)
    block = _with_short_names(block, width)
    return [block] if block.width <= width else _continued(block, width)


def _with_broken_headers(block: Block) -> Block:
    header = {}
    for column, lines in block.header.items():
        in_cells = max((len(line) for cell in block.cells[column] for line in cell), default=0)
        header[column] = _wrapped(lines[0], in_cells)
    return replace(block, header=header)


def _without_borders(block: Block) -> Block:
    return replace(block, bordered=False)


def _with_broken_cells(block: Block) -> Block:
    cells = dict(block.cells)
    for column in {*cells} - {*NAMES}:
        in_header = max(map(len, block.header[column]))
        cells[column] = [_wrapped(cell[0], PROSE if _is_prose(cell[0]) else in_header) for cell in block.cells[column]]
    return replace(block, cells=cells)


def _is_prose(text: str) -> bool:
    return len(re.findall(r"[A-Za-z]{2,}", text)) > 2


def _wrapped(text: str, least: int) -> list[str]:
    """The text in lines of the longest word, or of `least` characters if that is more; intervals count as a word."""
    whole = _WHOLE.sub(lambda found: found[0].replace(" ", "\0"), text)
    longest = max(map(len, whole.split()), default=0)
    lines = textwrap.wrap(whole, max(longest, least, 1), break_long_words=False, break_on_hyphens=False)
    return [line.replace("\0", " ") for line in lines] or [""]


def _with_short_names(block: Block, width: int) -> Block:
    """The longest names a character shorter, and again until it fits, down to SHORTEST_NAME or their header."""
    least = {
        column: max(SHORTEST_NAME, *map(cell_len, lines)) for column, lines in block.header.items() if column in NAMES
    }
    while block.width > width:
        own = {column: max((cell_len(cell[0]) for cell in block.cells[column]), default=0) for column in least}
        own = {column: longest for column, longest in own.items() if longest > least[column]}
        column = max(own, key=lambda name: own[name], default="")
        if not column:
            break
        names = shortened([cell[0] for cell in block.cells[column]], own[column] - 1)
        if max(map(cell_len, names)) >= own[column]:
            break
        block = replace(block, cells=block.cells | {column: [[name] for name in names]})
    return block


def shortened(names: Sequence[str], width: int) -> list[str]:
    """Names of at most `width` characters, the middle left out; wider where two different ones would look the same."""
    for kept in range(width, max(map(len, names), default=0) + 1):
        short = [_cut(name, kept) for name in names]
        if len({*short}) == len({*names}):
            return short
    return list(names)


def _cut(name: str, width: int) -> str:
    if len(name) <= width:
        return name
    head, cut, tail = name.partition(CUT)  # where it was cut before
    end = (width - len(CUT)) // 2
    return (head if cut else name)[: width - len(CUT) - end] + CUT + _end(tail if cut else name, end)


def _end(text: str, length: int) -> str:
    return text[len(text) - length :]


def _continued(block: Block, width: int) -> list[Block]:
    """The other columns one after the other, the leading names before each part."""
    columns = list(block.header)
    keys = [column for column in columns[:2] if column in NAMES]
    parts: list[list[str]] = [[]]
    for column in columns[len(keys) :]:
        if parts[-1] and _part(block, [*keys, *parts[-1], column]).width > width:
            parts.append([])
        parts[-1].append(column)
    return [_part(block, [*keys, *part]) for part in parts]


def _part(block: Block, columns: Sequence[str]) -> Block:
    return replace(block, header={c: block.header[c] for c in columns}, cells={c: block.cells[c] for c in columns})
