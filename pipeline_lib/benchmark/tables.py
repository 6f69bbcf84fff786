"""The rows of `comparison.json` as tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from data_contracts.results import COMPARED
from pipeline_lib.benchmark.comparison import against_baselines, named_pairs
from pipeline_lib.results.tables import per_cent, share_of_bytes, two_digits

METRIC_TITLES = {metric.key: metric.title for metric in COMPARED}


def comparison_table(rows: Sequence[Mapping[str, Any]], failed: Mapping[str, str]) -> list[dict[str, Any]]:
    """A row an experiment for people: means in per cent, points against its baseline [95 % interval], bytes, rows.

    rows: those of `comparison.json`; named pairs are left to `pair_table`. Seeds have a column where experiments have
    unequal numbers of them, or one.
    """
    table: dict[str, dict[str, Any]] = {}
    compared = against_baselines(rows)
    seeds = {row["seeds"] for row in compared}
    for row in compared:
        line = table.setdefault(row["experiment"], {"experiment": row["experiment"], "state": "completed"})
        line[METRIC_TITLES[row["metric"]]] = per_cent(row["value"]) + _delta(row)
    for row in compared:
        share, pixels = row["upload_share_of_image_bytes"], row["upload_share_of_pixel_bytes"]
        table[row["experiment"]] |= {
            "against": row["baseline"],
            "upload share": share_of_bytes(share),
            "upload, of pixels": share_of_bytes(pixels),
            "sent back, MB": "-" if share is None else f"{two_digits(row['download_bytes'] / 1e6):g}",
            "bank rows": row["bank_rows"],
        }
        if len(seeds) > 1 or 1 in seeds:
            table[row["experiment"]]["seeds"] = row["seeds"]
    lines = list(table.values())
    columns = [column for column in (lines[0] if lines else {}) if column not in ("experiment", "state")]
    lines += [{"experiment": n, "state": f"failed: {cause}", **dict.fromkeys(columns)} for n, cause in failed.items()]
    return lines


def pair_table(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row a named pair for people: experiment less reference in points [95 % interval]; empty for no pairs."""
    table: dict[tuple[str, str], dict[str, Any]] = {}
    for row in named_pairs(rows):
        pair = row["experiment"], row["baseline"]
        line = table.setdefault(pair, {"experiment": pair[0], "against": pair[1]})
        line[METRIC_TITLES[row["metric"]]] = None if row["delta_points"] is None else points_text(row)
    return list(table.values())


def _delta(row: Mapping[str, Any]) -> str:
    if row["delta_points"] is None or row["verdict"] == "baseline":
        return ""
    return f" ({points_text(row)})"


def points_text(row: Mapping[str, Any]) -> str:
    """Points of a row against its baseline, * where shown, [95 % interval]."""
    interval = f" [{row['ci95'][0]:+.1f}, {row['ci95'][1]:+.1f}]" if row["ci95"] else ""
    mark = "*" if row["verdict"] in ("better", "worse") else ""
    return f"{row['delta_points']:+.1f}{mark}{interval}"


def shared(values: Sequence[str]) -> str:
    """The one value that all have; empty where there are several."""
    found = set(values)
    return found.pop() if len(found) == 1 else ""
