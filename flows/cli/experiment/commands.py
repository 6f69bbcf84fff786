"""Commands that run, measure and show experiments, and score new images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from flows.cli.next_steps import say_begins, with_overrides
from flows.cli.options import Force, Json, Out, Set, app, fail, out_directory


@app.command
def run(config: Path, /, *, set_: Set = None, out: Out = None, json_: Json = False, force: Force = False) -> None:
    """Run one experiment.

    Example: fedpatch run configs/real3_iid.yaml --set dataset.root=/data --out runs/first

    Parameters
    ----------
    config
        A YAML file such as configs/real3_iid.yaml.
    """
    from pipeline_lib.configuration.files import load_config
    from pipeline_lib.planning.first_checks import refuse_wrong_paths

    overrides = [*(set_ or []), *([f"runtime.out={json.dumps(str(out.absolute()))}"] if out else [])]
    settings = load_config(config, overrides)
    (place,) = refuse_wrong_paths([settings])
    say_begins(settings.name, quiet=json_)
    from flows.cli.temporary_server import temporary_server

    with temporary_server() as server:  # it starts while the rest is imported
        from flows.cli.dataset.layouts import chosen_layout
        from flows.cli.experiment.experiments import print_experiment, run_and_describe
        from tasks import resources

        resources.refuse_without_weights([settings])
        settings = settings.with_layout(chosen_layout(settings.dataset.layout, place.data_root))
        resources.refuse_backbones([(settings, place)])
        if not force:
            resources.refuse_what_does_not_fit({"": (settings, place)})
        server.wait()
        outcome = run_and_describe(settings, quiet=json_)
    print_experiment(outcome, as_json=json_)


@app.command
def plan(config: Path, /, *, set_: Set = None, json_: Json = False) -> None:
    """Say what an experiment will make and need, before anything runs: patches, rows, uploads, disk, memory, time.

    Of a benchmark's file: time, disk and memory of all its runs, what they share counted once.

    Examples: fedpatch plan configs/autovi_iid.yaml --set dataset.root=/data;
    fedpatch plan configs/benchmark_full.yaml --set dataset.root=/data
    """
    from pipeline_lib.configuration.files import is_benchmark, load_benchmark, load_config
    from pipeline_lib.planning.first_checks import refuse_wrong_paths

    if is_benchmark(config):
        matrix = load_benchmark(config, set_ or [])
        refuse_wrong_paths([cell.config for cell in matrix.cells()])
        from flows.cli.experiment.planning import print_benchmark_plan

        print_benchmark_plan(matrix, words=with_overrides(config, set_), as_json=json_)
    else:
        settings = load_config(config, set_ or [])
        refuse_wrong_paths([settings])
        from flows.cli.experiment.planning import print_plan

        print_plan(settings, words=with_overrides(config, set_), as_json=json_)


@app.command
def demo(*, out: Out = None, json_: Json = False) -> None:
    """Make a small data set, run a centralized and a federated experiment on it, and print both results.

    Example: fedpatch demo --out demo
    """
    say_begins("demo", quiet=json_)
    from flows.cli.temporary_server import temporary_server

    with temporary_server() as server:
        from flows.cli.experiment.experiments import run_demo

        server.wait()
        run_demo((out or Path("demo")).absolute(), as_json=json_)


@app.command
def benchmark(
    config: Path,
    /,
    *,
    set_: Set = None,
    seeds: Annotated[str | None, Parameter(help="Such as 42,43,44, instead of the file's.")] = None,
    out: Out = None,
    compare_only: Annotated[
        bool, Parameter(help="Run nothing: compare anew the runs that --out holds, and write its page.", negative="")
    ] = False,
    json_: Json = False,
    force: Force = False,
) -> None:
    """Run a matrix of experiments and compare them with the baseline. --set addresses the base experiment.

    An experiment's configuration is compared with all images at one place (centralized), with three seeds.

    Examples: fedpatch benchmark own.yaml --seeds 42,43,44,45,46 --out runs/compared;
    fedpatch benchmark configs/benchmark_quick.yaml --set dataset.root=/data
    """
    from pipeline_lib.configuration.files import load_benchmark
    from pipeline_lib.planning.first_checks import refuse_wrong_paths

    matrix = load_benchmark(config, set_ or [], out, seeds)
    if compare_only:
        if matrix.out is None:
            fail("--compare-only takes the runs of a benchmark: say with --out where they are")
        if not matrix.out.expanduser().is_dir():
            fail(f"no experiment of {config} is there: there is no directory {matrix.out}")
        from flows.cli.experiment.comparing import compare_finished

        compare_finished(matrix, as_json=json_)
        return
    refuse_wrong_paths([cell.config for cell in matrix.cells()], out=matrix.out)
    say_begins(f"{matrix.name}: {matrix.described()}", quiet=json_)
    from flows.cli.temporary_server import temporary_server

    with temporary_server() as server:
        from flows.cli.experiment.experiments import run_benchmark

        server.wait()
        run_benchmark(matrix, as_json=json_, force=force)


@app.command
def show(
    runs: list[Path],
    /,
    *,
    markdown: Annotated[bool, Parameter(help="Print a Markdown table.", negative="")] = False,
    json_: Json = False,
) -> None:
    """Show the results of finished runs side by side, on all of test and on its halves.

    The development half are the test images whose SHA-256 begins with an even hex digit, to choose settings on; the
    report half are the others, to report on.

    Example: fedpatch show runs/first runs/federated --markdown
    """
    from flows.cli.experiment.runs import show_runs

    show_runs(runs, markdown=markdown, as_json=json_)


@app.command
def evaluate(
    *,
    dataset_root: Annotated[Path, Parameter(help="The data set with its masks.")],
    maps: Annotated[Path, Parameter(help="<maps>/<category>/test/<folder>/<stem>.png, .tiff or .npy")],
    category: Annotated[list[str] | None, Parameter(help="Only these.", negative="")] = None,
    out: Annotated[Path, out_directory("Where metrics.json goes.")],
    stretch_maps: Annotated[
        bool, Parameter(help="Stretch maps whose proportions are not their image's.", negative="")
    ] = False,
    set_: Set = None,
    json_: Json = False,
) -> None:
    """Measure anyone's anomaly maps: AUC-sPRO, AUROC and AP by category, defect and folder.

    Example: fedpatch evaluate --dataset-root /data --maps my_maps --out measured
    """
    from flows.cli.experiment.map_evaluation import evaluate_maps

    chosen = tuple(category) if category else None
    evaluate_maps(dataset_root, maps, chosen, out, set_ or [], stretch_maps=stretch_maps, as_json=json_)


@app.command
def score(
    paths: list[Path],
    /,
    *,
    model: Annotated[Path | None, Parameter(help="The run directory, if it is not the first of the paths.")] = None,
    category: Annotated[str | None, Parameter(help="Of all the images; else a directory's name says it.")] = None,
    out: Annotated[Path | None, out_directory("Where page, tables and pictures go.")] = None,
    watch: Annotated[bool, Parameter(help="Keep scoring what appears in the directory.", negative="")] = False,
    explain: Annotated[
        bool,
        Parameter(help="Show the normal patches most like what is flagged, or close to it; needs --out.", negative=""),
    ] = False,
    false_alarm_rate: Annotated[float | None, Parameter(help="Instead of the rate of the run.")] = None,
    threshold: Annotated[float | None, Parameter(help="Instead of the threshold of the run.")] = None,
    json_: Json = False,
) -> None:
    """Score new images with a trained run: RUN_DIR, then images or directories.

    Good or defective, by a threshold from the run's normal training images. With --out: index.html, a page of what was
    decided with what to look at first, pictures, and tables (decisions.csv and others), which grow from call to call.
    Images that do not fit are refused, with the reason.

    Examples: fedpatch score runs/first new_images --out scored --explain;
    fedpatch score runs/first camera --category pipe_clip --watch --json
    """
    from flows.cli.experiment.scored_paths import model_and_images

    directory, images = model_and_images(model, paths, out=out, explain=explain, watch=watch)
    from flows.cli.experiment import scoring
    from pipeline_lib.inspection.run_model import open_run_model

    opened = open_run_model(directory, target_rate=false_alarm_rate, threshold=threshold)
    if watch:
        scoring.watch_folder(opened, images[0], category, out, explain=explain, as_json=json_)
    else:
        scoring.score_images(opened, images, category, out, explain=explain, as_json=json_)


@app.command
def partition(config: Path, /, *, out: Out, set_: Set = None, json_: Json = False) -> None:
    """Compute a partition of the training images over clients and save it: partition.parquet, partition_stats.json.

    Example: fedpatch partition configs/real3_iid.yaml --set dataset.root=/data --out parts
    """
    from flows.cli.dataset.datasets import write_partition
    from pipeline_lib.configuration.files import load_config

    words = with_overrides(config, set_)
    write_partition(load_config(config, set_ or []), out or Path("partition"), words=words, as_json=json_)
