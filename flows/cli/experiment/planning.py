"""Commands before a run: plan, and the check that a run fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_contracts.benchmark import BenchmarkConfig
from data_contracts.config import ExperimentConfig
from data_contracts.errors import WeightsError
from data_contracts.federation import without_images
from data_contracts.settings import place_of
from flows.cli.dataset.layouts import chosen_layout
from flows.cli.next_steps import say_next
from flows.cli.printing import print_json, print_table
from pipeline_lib.features.backbone import find_weights, padding_notes
from pipeline_lib.planning.experiment import ExperimentPlan, plan_experiment
from pipeline_lib.planning.resources import available_memory_bytes, disk_bytes, free_disk_bytes, memory_bytes, shortages
from pipeline_lib.upload.volume import more_than_images


def print_plan(config: ExperimentConfig, *, words: list[str], as_json: bool) -> None:
    """Print what a run will make and need; `words` name the configuration on the command line."""
    from pipeline_lib.planning.stage_times import stage_seconds

    root = place_of(config).data_root
    plan = plan_experiment(config.with_layout(chosen_layout(config.dataset.layout, root)), root)
    value = describe(plan) | {"seconds": {name: round(s, 1) for name, s in stage_seconds(plan).items()}}
    if as_json:
        print_json(value)
        return
    print_table(
        [{"category": c, **counts} for c, counts in value["categories"].items()], f"{config.name}: images and patches"
    )
    print_table([{"client": c, **counts} for c, counts in value["clients"].items()], "clients")
    if plan.skipped_clients:
        print(without_images(plan.skipped_clients))
    sizes = {"disk": value["disk_bytes"], "memory, peak of the stage": value["memory_bytes"]}
    for title, parts in sizes.items():
        print_table([{"part": name, "MB at most": round(n / 1e6, 1)} for name, n in parts.items()], title)
    print_table(
        [{"stage": name, "seconds": s} for name, s in value["seconds"].items()],
        "rough time on an idle machine, nothing cached",
    )
    print(f"time:   about {sum(value['seconds'].values()) / 60:.1f} min on an idle machine")
    free = free_disk_bytes(_places(config)[0])
    print(f"disk:   at most {sum(value['disk_bytes'].values()) / 1e9:.2f} GB, {free / 1e9:.1f} GB are free")
    needed = max(value["memory_bytes"].values())
    print(f"memory: at most {needed / 1e9:.2f} GB, {available_memory_bytes() / 1e9:.1f} GB are available")
    for note in value["notes"]:
        print(f"note:   {note}")
    for problem in value["does_not_fit"]:
        print(f"does not fit: {problem}")
    _say_weights([config])
    say_next("plan, too large" if value["does_not_fit"] else "plan", config=words)


def print_benchmark_plan(config: BenchmarkConfig, *, words: list[str], as_json: bool) -> None:
    """Print what all runs of a benchmark together will make and need; `words` as in `print_plan`."""
    from pipeline_lib.planning.benchmark import ASSUMED, plan_benchmark

    runs = [(cell, plan_experiment(cell.config, place_of(cell.config).data_root)) for cell in config.cells()]
    plan = plan_benchmark(runs)
    places = list(dict.fromkeys(path for cell, _ in runs for path in _places(cell.config)))
    problems = [f"{cell.name}: {text}" for cell, own in runs for text in shortages(own, _places(cell.config))]
    needed = sum(plan.disk_bytes.values())
    problems += [
        f"all runs together may write {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free in {path}"
        for path in places
        if needed > (free := free_disk_bytes(path))
    ]
    value = {
        "benchmark": config.name,
        "experiments": len(config.configs()),
        "runs": len(runs),
        "seconds": {stage: round(s, 1) for stage, s in plan.seconds.items()},
        "seconds_without_sharing": {stage: round(s, 1) for stage, s in plan.seconds_alone.items()},
        "runs_computing": plan.computing,
        "disk_bytes": plan.disk_bytes,
        "memory_bytes": plan.memory_bytes,
        "does_not_fit": problems,
        "assumed": list(ASSUMED),
    }
    if as_json:
        print_json(value)
        return
    table = [
        {"stage": stage, "runs computing": plan.computing[stage], "seconds": round(s, 1),
         "each by itself": round(plan.seconds_alone[stage], 1)}
        for stage, s in plan.seconds.items()
    ]  # fmt: skip
    print_table(
        table, f"{config.name}: {len(runs)} runs of {value['experiments']} experiments, rough time on an idle machine"
    )
    sizes = {"disk": plan.disk_bytes, "memory, peak of the stage in the largest run": plan.memory_bytes}
    for title, parts in sizes.items():
        print_table([{"part": name, "MB at most": round(n / 1e6, 1)} for name, n in parts.items()], title)
    total, alone = sum(plan.seconds.values()), sum(plan.seconds_alone.values())
    print(f"time:   about {total / 60:.0f} min on an idle machine; {alone / 60:.0f} min if nothing were shared")
    print(f"disk:   at most {needed / 1e9:.2f} GB, {free_disk_bytes(places[0]) / 1e9:.1f} GB are free")
    peak = max(plan.memory_bytes.values())
    print(f"memory: at most {peak / 1e9:.2f} GB, {available_memory_bytes() / 1e9:.1f} GB are available")
    for text in ASSUMED:
        print(f"assumed: {text}")
    for problem in problems:
        print(f"does not fit: {problem}")
    _say_weights([cell.config for cell, _ in runs])
    say_next("plan, too large" if problems else "plan, benchmark", config=words)


def _say_weights(configs: list[ExperimentConfig]) -> None:
    """A line for each backbone: its weights, or that they are not on disk."""
    for model in {config.model.backbone: config.model for config in configs}.values():
        try:
            print(f"weights: {find_weights(model, fetch=False)[1]}")
        except WeightsError as error:
            print(f"weights: {error}")


def describe(plan: ExperimentPlan) -> dict[str, Any]:
    """The plan as one JSON value; times are left out."""
    volumes = {client.client_id: (client.upload_bytes, client.image_bytes) for client in plan.clients}
    is_sent = plan.config.federated.mode == "federated"
    return {
        "experiment": plan.config.name,
        "config_hash": plan.config.config_hash(),
        "dim": plan.dim,
        "patches": plan.patches,
        "categories": {
            category: {
                "train images": part.images,
                "train patches": part.patches,
                "test images": plan.test[category].images if category in plan.test else 0,
                "test patches": plan.test[category].patches if category in plan.test else 0,
            }
            for category, part in plan.train.items()
        },
        "clients": {
            client.client_id: {
                "images": client.images,
                "patches": client.patches,
                "coreset rows": sum(client.coreset_rows.values()),
                "upload bytes at most": client.upload_bytes,
                "bytes of its images": client.image_bytes,
            }
            for client in plan.clients
        },
        "skipped_clients": list(plan.skipped_clients),
        "bank_rows": plan.bank_rows,
        "disk_bytes": disk_bytes(plan),
        "memory_bytes": memory_bytes(plan),
        "notes": [
            *padding_notes(plan.backbone, {c: part.resized_px for c, part in (plan.train | plan.test).items()}),
            *filter(None, [more_than_images(volumes) if is_sent else ""]),
        ],
        "does_not_fit": shortages(plan, _places(plan.config)),
    }


def _places(config: ExperimentConfig) -> list[Path]:
    return [place_of(config).store]
