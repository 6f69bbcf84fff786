"""Command evaluate: measure anyone's anomaly maps."""

from __future__ import annotations

import re
from pathlib import Path

from data_contracts.results import SUBSETS
from data_contracts.settings import EvaluationSettings
from flows.cli.dataset.layouts import chosen_layout
from flows.cli.next_steps import say_next
from flows.cli.printing import print_json, print_metrics
from flows.cli.progress import show_progress
from pipeline_lib.configuration.files import parse_config
from pipeline_lib.metrics import evaluation
from pipeline_lib.results.outside_masks import outside_mask_warnings


def evaluate_maps(
    root: Path,
    maps: Path,
    categories: tuple[str, ...] | None,
    out: Path,
    overrides: list[str],
    *,
    stretch_maps: bool,
    as_json: bool,
) -> None:
    """Measure map files and write the metrics files."""
    config = parse_config({"name": safe_experiment_name(maps)}, overrides)
    config = config.with_layout(chosen_layout(config.dataset.layout, root))
    with show_progress("categories measured", quiet=as_json) as progress:
        results = evaluation.evaluate_map_files(
            root,
            maps,
            EvaluationSettings.of(config),
            categories=categories,
            stretch_maps=stretch_maps,
            preprocessing=config.preprocessing,
            group=config.dataset.group,
            progress=progress,
        )
    documents = {
        subset: evaluation.metrics_document(
            {result.category: result.metrics[subset] for result in results},
            experiment=config.name,
            config_hash=config.config_hash(),
            seed=config.seed,
            subset=subset,
        )
        for subset in SUBSETS
    }
    outside = outside_mask_warnings(documents["all"])
    for document in documents.values():
        document.warnings = outside + [warning for result in results for warning in result.warnings]
    from pipeline_lib.results import run_directory  # with torch, which what may be wrong above does without

    run_directory.write_metrics_files(
        out, documents, [result.table for result in results], [result.curves for result in results]
    )
    if as_json:
        print_json(documents["all"].model_dump(mode="json"))
    else:
        print_metrics(documents["all"])
        print(f"metrics: {out / 'metrics.json'}")
        say_next("evaluate", out=out)


def safe_experiment_name(maps: Path) -> str:
    """A name for metrics.json from the directory of the maps."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", maps.absolute().name).strip("._-")[:80] or "maps"
