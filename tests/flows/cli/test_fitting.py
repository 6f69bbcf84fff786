"""Tables that fit 80 columns, with long names, many clients and many categories."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.cli.fitting import fit, shortened
from flows.cli.printing import print_table

INTERVAL = "94.1 [83.3, 100.0]"
LONG = [f"inspection_station_of_hall_{number}_left" for number in range(10)]
CATEGORIES = ["engine_wiring", "pipe_clip", "pipe_staple", "tank_screw", "underbody_pipes", "underbody_screw"]
TABLES: dict[str, list[dict[str, Any]]] = {
    "metrics": [
        {"category": c, "image AUROC": INTERVAL, "image AP": "92.7", "AUC-sPRO@0.05": INTERVAL, "pixel AUROC": "99.0",
         "good": 24, "defective": "12 (few)"} for c in CATEGORIES
    ],
    "clients": [
        {"client": name, "state": "delivered", "images": 144, "patches": 96768, "rows sent": 1935, "upload MB": 1.18,
         "share of image bytes": "4 %", "covering radius": 27.51} for name in LONG
    ] + [{"client": "c", "state": "failed: DatasetError: cannot list /data/station/part/train: Permission denied"}],
    "partition": [{"client": name, "images": 100} | dict.fromkeys(CATEGORIES, 7) for name in LONG],
    "comparison": [
        {"experiment": f"dirichlet_0.1_over_{number}_clients", "state": "completed",
         "image AUROC": "95.8 (+1.2* [-0.5, +2.8])", "AUC-sPRO@0.05": "95.8 (-11.2* [-10.5, -12.8])",
         "against": "centralized",
         "upload share": "12 %", "of pixels": "1.2 %", "back MB": 12.1, "bank rows": 12345} for number in (3, 5, 10)
    ],
    "halves": [
        {"category": "underbody_screw", "experiment": name, "subset": "development half", "image AUROC": INTERVAL,
         "AUC-sPRO@0.05": INTERVAL, "good": "120", "defective": "120"} for name in LONG
    ],
    "decisions": [
        {"decision": "defective", "score": "12.34", "threshold": "11.12", "category": "underbody_screw",
         "image": f"/data/line/camera_{number}/2024-11-29/underbody_screw_000017.png", "note": "foreign to the model"}
        for number in range(3)
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_every_line_fits_80_columns_and_no_name_is_lost(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    print_table(TABLES[name], name)
    shown = capsys.readouterr().out.splitlines()
    assert max(map(len, shown)) <= 80
    text = "\n".join(shown)
    for row in TABLES[name]:
        for value in row.values():
            assert all(word in text for word in str(value).split() if len(word) <= 12)


def test_a_table_that_fits_has_its_borders_and_whole_cells() -> None:
    (block,) = fit(["category", "image AUROC"], [["pipe_clip", INTERVAL]], 80)
    assert block.bordered
    assert block.drawn()[3] == f"│ pipe_clip │ {INTERVAL} │"


def test_intervals_go_below_their_value_before_names_are_cut() -> None:
    (block,) = fit(["category", "image AUROC"], [["underbody_screw", INTERVAL]], 32)
    assert block.drawn() == [
        "category           image AUROC",
        "──────────────────────────────",
        "underbody_screw           94.1",
        "                 [83.3, 100.0]",
    ]


def test_names_that_are_shorter_than_their_header_are_left_and_the_rest_is_continued() -> None:
    columns = ["experiment", *(f"metric{number}" for number in range(9))]
    blocks = fit(columns, [["iid_3", *["12.345"] * 9]], 40)
    assert len(blocks) > 1
    assert all(block.cells["experiment"] == [["iid_3"]] for block in blocks)


def test_what_is_still_too_wide_is_continued_with_the_names_again() -> None:
    blocks = fit(["client", *CATEGORIES], [["client_0", *"123456"]], 50)
    assert [list(block.header) for block in blocks] == [["client", *CATEGORIES[:3]], ["client", *CATEGORIES[3:5]],
                                                        ["client", *CATEGORIES[5:]]]  # fmt: skip
    assert all(block.cells["client"] == [["client_0"]] for block in blocks)


@given(st.lists(st.text(string.ascii_lowercase + "_", min_size=1, max_size=30), max_size=8), st.integers(3, 20))
def test_shortened_names_are_told_apart_as_the_whole_ones_are(names: list[str], width: int) -> None:
    short = shortened(names, width)
    assert len({*short}) == len({*names})
    for name, found in zip(names, short, strict=True):
        head, cut, tail = found.partition("…")
        assert found == name or (cut and name.startswith(head) and name.endswith(tail))
        assert len(found) <= len(name)
