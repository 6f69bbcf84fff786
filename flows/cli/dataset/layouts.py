"""Which layout a data set has, said in one line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import cast

from data_contracts.config import Layout
from pipeline_lib.dataset.layout import detect_layout


def chosen_layout(layout: str, root: Path) -> Layout:
    """`layout`; where it is auto the one that the data set has, which is said on stderr with what shows it."""
    if layout != "auto":
        return cast(Layout, layout)  # another one is refused by name
    found, shown_by = detect_layout(root)
    print(f"layout {found}, shown by {shown_by}; another: --layout, dataset.layout", file=sys.stderr)
    return found
