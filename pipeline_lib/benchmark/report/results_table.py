"""The tables that a paper takes: results of each experiment, by category, and what they cost, for page and LaTeX.

A cell is a text, or a pair of which the second stands below the first: a value, and its difference to the baseline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from data_contracts.results import IMAGE_AP, TABLED
from pipeline_lib.benchmark.categories import MEAN, METRICS
from pipeline_lib.benchmark.comparison import against_baselines
from pipeline_lib.benchmark.record import Rows, of
from pipeline_lib.benchmark.tables import points_text, shared
from pipeline_lib.results.tables import per_cent, share_of_bytes, two_digits

Line = dict[str, Any]
SHOWN = (*TABLED, IMAGE_AP)


def results_table(rows: Rows, tabled: Rows = ()) -> list[Line]:
    """A row an experiment: means over categories and seeds, differences below them.

    rows: those of `comparison.json`; tabled: those of `SHOWN` that are not compared there.
    """
    compared = [*against_baselines(rows), *against_baselines(tabled)]
    several = len({row["baseline"] for row in compared}) > 1
    table: dict[str, Line] = {}
    for row in compared:
        below = f"against {row['baseline']}" if several and row["experiment"] != row["baseline"] else ""
        line: Line = {"experiment": (row["experiment"], below) if below else row["experiment"], "seeds": row["seeds"]}
        table.setdefault(row["experiment"], line)
    for metric in SHOWN:
        for row in of(compared, metric.key):
            differs = row["delta_points"] is not None and row["verdict"] != "baseline"
            value = per_cent(row["value"])
            table[row["experiment"]][metric.title] = (value, points_text(row)) if differs else value
    return _whole(list(table.values()))


def cost_table(rows: Rows) -> list[Line]:
    """A row an experiment: what its clients send and get back, and how large its banks are."""
    found: dict[str, Line] = {}
    for row in against_baselines(rows):
        uploads = row["upload_share_of_image_bytes"] is not None
        found[row["experiment"]] = {
            "experiment": row["experiment"],
            "uploaded, of image files": share_of_bytes(row["upload_share_of_image_bytes"]),
            "uploaded, of decoded pixels": share_of_bytes(row["upload_share_of_pixel_bytes"]),
            "sent back to clients, MB": f"{two_digits(row['download_bytes'] / 1e6):g}" if uploads else "-",
            "rows of all banks": row["bank_rows"],
        }
    return list(found.values())


def category_tables(rows: Rows) -> dict[str, list[Line]]:
    """Category -> a row an experiment: means over seeds [lowest-highest], differences below them.

    rows: those of `categories.json`. The mean over categories is left to `results_table`.
    """
    found: dict[str, list[Line]] = {}
    for category in dict.fromkeys(row["category"] for row in rows if row["category"] != MEAN):
        own = [row for row in rows if row["category"] == category]
        lines: dict[str, Line] = {}
        for metric in METRICS:
            for row in of(own, metric.key):
                line = lines.setdefault(row["experiment"], {"experiment": row["experiment"]})
                line[metric.title] = _category_cell(row)
        found[category] = list(lines.values())
    return found


def category_table(rows: Rows) -> list[Line]:
    """The same as one table."""
    return [{"category": category} | line for category, lines in category_tables(rows).items() for line in lines]


def _category_cell(row: Mapping[str, Any]) -> str | tuple[str, str]:
    if row["value_per_cent"] is None:
        return "-"
    text = f"{row['value_per_cent']:.1f}"
    if row["seeds"] > 1:
        text += f" [{row['lowest_per_cent']:.1f}-{row['highest_per_cent']:.1f}]"
    if row["delta_points"] is None:
        return text
    interval = "" if row["ci95_low"] is None else f" [{row['ci95_low']:+.1f}, {row['ci95_high']:+.1f}]"
    return text, f"{row['delta_points']:+.1f}{interval}"


def _whole(lines: Sequence[Line]) -> list[Line]:
    """The lines with the columns that any of them has, "-" where one lacks it."""
    columns = list(dict.fromkeys(column for line in lines for column in line))
    return [{column: line.get(column, "-") for column in columns} for line in lines]


def captions(name: str, rows: Rows, seeds: Sequence[int]) -> tuple[str, str]:
    """(of `results_table`, of `category_table`) in LaTeX: what the figures are, seeds, brackets and *."""
    baseline = shared([row["baseline"] for row in against_baselines(rows)])
    below = f"Below: difference to {baseline or 'the baseline of the experiment'} in points"
    if len(seeds) == 1:
        one = f"seed {seeds[0]}, all test images, per cent. {below}; one seed is not tested."
        return f"{name}: means over categories, {one}", f"{name}: by category, {one}"
    of_seeds = f"{len(seeds)} seeds ({', '.join(map(str, seeds))}), all test images, per cent"
    below += " with the paired 95 % interval over test images and seeds in brackets"
    shown = "* where a difference is shown (Holm-corrected within a metric, level 0.05), pixel AUROC is not tested"
    alone = "each interval for itself, pixel and unmarked AUROC have none"
    return (
        f"{name}: means over categories and {of_seeds}. {below}; {shown}.",
        f"{name}: by category, means over {of_seeds}, in brackets lowest and highest seed. {below}; {alone}.",
    )
