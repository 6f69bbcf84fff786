"""The head of a benchmark's page: what is shown and what is not, in a sentence and a few figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline_lib.benchmark.comparison import against_baselines, named_pairs
from pipeline_lib.benchmark.differences import ONE_SEED
from pipeline_lib.benchmark.record import HEADLINE, Rows, of
from pipeline_lib.benchmark.report.chosen import TITLES

METRIC = TITLES[HEADLINE]


def headline_sentence(rows: Rows) -> str:
    """How many experiments are shown to differ from their baseline, and how many of the named pairs.

    rows: those of `comparison.json`, on all of test.
    """
    verdicts = _tested(against_baselines(rows))
    if not verdicts:
        return " ".join([_one_seed(rows) or "No experiment was tested against a baseline.", *_pairs(rows)])
    says = f"{_experiments(verdicts)} (drawn images and seeds, Holm-corrected).{_also(rows)}"
    caution = ["Not shown does not mean equal: the intervals say how large a difference may be."]
    return " ".join([says, *_pairs(rows), *(caution if "no difference shown" in verdicts else [])])


def _also(rows: Rows) -> str:
    """The same of the other headline metrics, in short."""
    found = []
    for metric, title in TITLES.items():
        tested = _tested(against_baselines(rows), metric) if metric != HEADLINE else []
        shown = [f"{tested.count(word)} {word}" for word in ("worse", "better") if word in tested]
        if tested:
            found.append(f" In {title} {' and '.join(shown) + ' shown' if shown else 'no difference is shown'}.")
    return "".join(found)


def _one_seed(rows: Rows) -> str:
    if not any(row["not_tested"] == ONE_SEED for row in rows):
        return ""
    return (
        "The figures of one seed, and their differences, without a verdict or a ranking: by how much another seed "
        "differs, three or more (seeds) would tell."
    )


def _experiments(verdicts: list[str]) -> str:
    n = len(verdicts)
    worse, better = verdicts.count("worse"), verdicts.count("better")
    who, is_, whose = ("The one experiment tested", "is", "its") if n == 1 else (_all(n), "are", "their")
    if worse == n or better == n:
        return f"{who} {is_} shown to be {verdicts[0]} than {whose} baseline in {METRIC}"
    if not worse and not better:
        nobody = "The one experiment tested is not" if n == 1 else f"{_none(n)} experiments is"
        return f"{nobody} shown to differ from its baseline in {METRIC}"
    found = [
        f"{count} {_is(count)} shown to be {word}" for count, word in ((worse, "worse"), (better, "better")) if count
    ]
    rest = n - worse - better
    if rest:
        found.append(f"{rest} {_is(rest)} not shown to differ")
    return f"Of {n} experiments, compared with their baseline in {METRIC}, {_listed(found)}"


def _pairs(rows: Rows) -> list[str]:
    verdicts = _tested(named_pairs(rows))
    if not verdicts:
        return []
    shown = sum(verdict in ("worse", "better") for verdict in verdicts)
    if len(verdicts) == 1:
        return [f"The named pair is {'' if shown else 'not '}shown to differ."]
    those = f"{shown} of the {len(verdicts)}" if shown else _none(len(verdicts))
    return [f"{those} named pairs {_is(shown or 1)} shown to differ."]


def _tested(rows: Rows, metric: str = HEADLINE) -> list[str]:
    return [row["verdict"] for row in of(rows, metric) if row["verdict"] not in ("baseline", "not tested")]


def _all(n: int) -> str:
    return "Both experiments" if n == 2 else f"All {n} experiments"


def _none(n: int) -> str:
    return "Neither of the 2" if n == 2 else f"None of the {n}"


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


def _listed(parts: list[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]])


def headline_figures(rows: Rows) -> list[tuple[str, str, str]]:
    """(what, value, of which experiment): the baseline's own values, and the ends of what was compared with one.

    Where one experiment was compared, its values and their differences.
    """
    found = []
    first = next((row["baseline"] for row in rows), "")
    for metric, title in TITLES.items():
        own = [row for row in of(rows, metric) if row["experiment"] == first and row["value"] is not None]
        found += [(f"{title}, baseline", _per_cent(row), row["experiment"]) for row in own]
    compared = [r for r in of(rows, HEADLINE) if r["delta_points"] is not None and r["verdict"] != "baseline"]
    if len(compared) == 1:
        name = compared[0]["experiment"]
        values = [(title, row) for key, title in TITLES.items() for row in of(rows, key) if row["experiment"] == name]
        return found + [(f"{title}, {name}", _per_cent(row), _against(row)) for title, row in values]
    ends = {}
    if compared:
        ends["highest against its baseline"] = max(compared, key=lambda row: row["delta_points"])
        ends["lowest against its baseline"] = min(compared, key=lambda row: row["delta_points"])
    for what, row in ends.items():
        whose = f"{row['experiment']}, {_per_cent(row)}, {_verdict(row)}"
        found.append((f"{METRIC}, {what}", f"{row['delta_points']:+.1f} points", whose))
    return found


def _per_cent(row: Mapping[str, Any]) -> str:
    return "-" if row["value"] is None else f"{100 * row['value']:.1f} %"


def _against(row: Mapping[str, Any]) -> str:
    difference = "" if row["delta_points"] is None else f"{row['delta_points']:+.1f} points, "
    return f"{difference}{_verdict(row)}"


def _verdict(row: Mapping[str, Any]) -> str:
    shown = f"shown to be {row['verdict']}" if row["verdict"] in ("worse", "better") else row["verdict"]
    return str(row["not_tested"] or shown)
