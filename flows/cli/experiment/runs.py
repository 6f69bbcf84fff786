"""Command show: the results of finished runs side by side, on all of test and on its halves."""

from __future__ import annotations

from pathlib import Path

from data_contracts.errors import ArtifactError
from data_contracts.results import HALVES_EXPLAINED, METRICS_FILES, SUBSET_TITLES, SUBSETS, MetricsDocument
from flows.cli.next_steps import say_next
from flows.cli.printing import print_json, print_table
from pipeline_lib.configuration.files import read_yaml
from pipeline_lib.results.outside_masks import comparison_warnings
from pipeline_lib.results.tables import alarm_cells, headline_cells, markdown_table, measured

PAIR, COUNTS = "AUROC / AUC-sPRO@0.05", "good, defective"


def show_runs(directories: list[Path], *, markdown: bool, as_json: bool) -> None:
    """Image AUROC and AUC-sPRO@0.05 of each category and run, on all of test and on each half, with intervals."""
    if len(directories) == 1 and (directories[0] / "comparison.json").is_file():  # of a benchmark
        from flows.cli.experiment.comparing import print_comparison  # with torch

        print_comparison(directories[0].absolute().name, directories[0], as_json=as_json)
        return
    directories = [run for directory in directories for run in _of_seeds(directory)]
    runs = [read_halves(directory) for directory in directories]
    if as_json:
        print_json([{half: document.model_dump(mode="json") for half, document in run.items()} for run in runs])
        return
    names = _names(directories, runs)
    if markdown:
        rows = [
            _row(category, name, run)
            for category in _categories(runs)
            for name, run in zip(names, runs, strict=True)
            if category in run["all"].categories
        ]
        columns = [f"{title}: {of}" for title in SUBSET_TITLES.values() for of in (PAIR, COUNTS)]
        print(markdown_table(measured(rows, columns)))
    else:
        rows = [
            _half_row(category, name, run, half)
            for category in _categories(runs)
            for half in SUBSETS
            for name, run in zip(names, runs, strict=True)
            if half in run and category in run["all"].categories
        ]
        print_table(measured(rows), "per cent [95 % interval]")
        if any(len(run) > 1 for run in runs):
            print("\n".join(HALVES_EXPLAINED))
        for warning in comparison_warnings({name: [run["all"]] for name, run in zip(names, runs, strict=True)}):
            print(f"warning: {warning}")
        _say_next(directories)


def _names(directories: list[Path], runs: list[dict[str, MetricsDocument]]) -> list[str]:
    """The experiments, or where two have one name their directories; of evaluated maps always the directory."""
    experiments = [run["all"].experiment for run in runs]
    if len({*experiments}) < len(runs):
        return [str(directory) for directory in directories]
    return [
        name if _is_run(directory) else str(directory) for name, directory in zip(experiments, directories, strict=True)
    ]


def _is_run(directory: Path) -> bool:
    """A run, and no directory of `fedpatch evaluate`."""
    return (directory / "config.yaml").is_file()


def _of_seeds(directory: Path) -> list[Path]:
    """The runs of a benchmark's experiment, one a seed, where the directory is that of one; else itself."""
    found = [path.parent for path in directory.glob(f"seed_*/{METRICS_FILES['all']}")]
    if (directory / METRICS_FILES["all"]).exists() or not found:
        return [directory]
    return sorted(found, key=lambda path: (len(path.name), path.name))


def _say_next(directories: list[Path]) -> None:
    if not all(map(_is_run, directories)):
        return
    count = "" if len(directories) == 1 else ", several"
    dataset = read_yaml(directories[-1] / "config.yaml").get("dataset") or {}
    of_stations = dataset.get("root") is None  # no images for a benchmark
    say_next(f"show{count}{', stations' * of_stations}", run=directories[-1])


def read_halves(directory: Path) -> dict[str, MetricsDocument]:
    """The metrics on all of test and on those halves that the run measured: one of stations has none."""
    there = [half for half in SUBSET_TITLES if half == "all" or (directory / METRICS_FILES[half]).exists()]
    return {half: read_document(directory, half) for half in there}


def read_document(directory: Path, half: str) -> MetricsDocument:
    """The metrics of one half of a run. Raises ArtifactError when the directory is no run directory."""
    path = directory / METRICS_FILES[half]
    try:
        return MetricsDocument.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{directory} is not the directory of a finished run: cannot read {path.name}") from error


def _categories(runs: list[dict[str, MetricsDocument]]) -> list[str]:
    return list(dict.fromkeys(category for run in runs for category in run["all"].categories))


def _row(category: str, name: str, run: dict[str, MetricsDocument]) -> dict[str, str]:
    row = {"category": category, "experiment": name}
    for half, title in SUBSET_TITLES.items():
        if half not in run:
            row[f"{title}: {PAIR}"] = row[f"{title}: {COUNTS}"] = "-"
            continue
        values = run[half].categories[category]
        cells = headline_cells(values).values()
        row[f"{title}: {PAIR}"] = " / ".join(cells) if {*cells} != {"-"} else "-"
        row[f"{title}: {COUNTS}"] = f"{values.n_good}, {values.n_defective}"
    return row | alarm_cells([run["all"].categories[category]])


def _half_row(category: str, name: str, run: dict[str, MetricsDocument], half: str) -> dict[str, str]:
    """As `_row`, of one half: below each other they fit a terminal, and runs are beside each other."""
    values = run[half].categories[category]
    names = {"category": category, "experiment": name, "subset": SUBSET_TITLES[half]}
    return names | headline_cells(values) | alarm_cells([values]) | {COUNTS: f"{values.n_good}, {values.n_defective}"}
