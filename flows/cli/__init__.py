"""The command line: `fedpatch --help`."""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Annotated, Any, NoReturn

from cyclopts import App, CycloptsError, Parameter

from data_contracts.errors import FedpatchError

os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
DEBUG_FLAG = "--debug"
if DEBUG_FLAG not in sys.argv:  # the error line sums up what Prefect would print with tracebacks; its UI has all of it
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")

app = App(
    name="fedpatch",
    help="Federated PatchCore for visual inspection: train and measure anomaly detection without pooling images.",
    help_format="plaintext",
)
dataset_app = App(name="dataset", help="Get, check, describe or make a data set.")
app.command(dataset_app)
model_app = App(name="model", help="Models in use: a directory and a pointer.")
app.command(model_app)
store_app = App(name="store", help="What the artifact store holds, and what may go.")
app.command(store_app)

app.register_install_completion_command(name="--install-completion", add_to_startup=False)

Set = Annotated[
    list[str] | None,
    Parameter(name="--set", help="Override a key of the configuration, such as --set dataset.root=/data", negative=""),
]
Out = Annotated[Path | None, Parameter(name="--out", help="Where the results go.")]
Json = Annotated[bool, Parameter(name="--json", help="Print the result as one JSON value.", negative="")]


@app.command
def run(
    config: Path,
    /,
    *,
    set_: Set = None,
    out: Out = None,
    json_: Json = False,
    force: Annotated[bool, Parameter(help="Also where memory or disk may be short.", negative="")] = False,
) -> None:
    """Run one experiment.

    Example: fedpatch run configs/real3_iid.yaml --set dataset.root=/data --out runs/first

    Parameters
    ----------
    config
        A YAML file such as configs/real3_iid.yaml.
    """
    from flows.cli.experiments import print_experiment, run_and_describe
    from pipeline_lib.config_files import load_config

    overrides = [*(set_ or []), *([f"runtime.out={json.dumps(str(out.absolute()))}"] if out else [])]
    settings = load_config(config, overrides)
    if not force:
        from flows.cli.planning import refuse_what_does_not_fit

        refuse_what_does_not_fit(settings)
    print_experiment(run_and_describe(settings, quiet=json_), as_json=json_)


@app.command
def plan(config: Path, /, *, set_: Set = None, json_: Json = False) -> None:
    """Say what an experiment will make and need, before anything runs: patches, rows, uploads, disk, memory, time.

    Example: fedpatch plan configs/autovi_iid.yaml --set dataset.root=/data
    """
    from flows.cli.planning import print_plan
    from pipeline_lib.config_files import load_config

    print_plan(load_config(config, set_ or []), as_json=json_)


@app.command
def demo(*, out: Out = None, json_: Json = False) -> None:
    """Make a small data set, run a centralized and a federated experiment on it, and print both results.

    Example: fedpatch demo --out demo
    """
    from flows.cli.experiments import run_demo

    run_demo((out or Path("demo")).absolute(), as_json=json_)


@app.command
def benchmark(config: Path, /, *, set_: Set = None, out: Out = None, json_: Json = False) -> None:
    """Run a matrix of experiments and compare them with the baseline. --set addresses the base experiment.

    Example: fedpatch benchmark configs/benchmark_quick.yaml --set dataset.root=/data
    """
    from flows.cli.experiments import run_benchmark

    run_benchmark(config, set_ or [], out, as_json=json_)


@app.command
def show(
    runs: list[Path],
    /,
    *,
    markdown: Annotated[bool, Parameter(help="Print a Markdown table.", negative="")] = False,
    json_: Json = False,
) -> None:
    """Show the results of finished runs side by side, on all of test and on its halves.

    Example: fedpatch show runs/baseline runs/first --markdown
    """
    from flows.cli.runs import show_runs

    show_runs(runs, markdown=markdown, as_json=json_)


@app.command
def evaluate(
    *,
    dataset_root: Annotated[Path, Parameter(help="The data set with its masks.")],
    maps: Annotated[Path, Parameter(help="<maps>/<category>/test/<folder>/<stem>.png, .tiff or .npy")],
    category: Annotated[list[str] | None, Parameter(help="Only these.", negative="")] = None,
    out: Annotated[Path, Parameter(name="--out", help="Where metrics.json goes.")],
    set_: Set = None,
    json_: Json = False,
) -> None:
    """Measure anyone's anomaly maps: AUC-sPRO, AUROC and AP by category, defect and folder.

    Example: fedpatch evaluate --dataset-root /data --maps my_maps --out measured
    """
    from flows.cli.map_evaluation import evaluate_maps

    evaluate_maps(dataset_root, maps, tuple(category) if category else None, out, set_ or [], as_json=json_)


@app.command
def score(
    paths: list[Path],
    /,
    *,
    model: Annotated[Path | None, Parameter(help="The run directory, if it is not the first of the paths.")] = None,
    category: Annotated[str | None, Parameter(help="Of all the images; else a directory's name says it.")] = None,
    out: Annotated[Path | None, Parameter(name="--out", help="Where table and pictures go.")] = None,
    watch: Annotated[bool, Parameter(help="Keep scoring what appears in the directory.", negative="")] = False,
    explain: Annotated[
        bool, Parameter(help="Show the normal patches most like what is flagged; needs --out.", negative="")
    ] = False,
    false_alarm_rate: Annotated[float | None, Parameter(help="Instead of the rate of the run.")] = None,
    threshold: Annotated[float | None, Parameter(help="Instead of the threshold of the run.")] = None,
    json_: Json = False,
) -> None:
    """Score new images with a trained run: RUN_DIR, then images or directories.

    Good or defective, by a threshold from the run's normal training images. With --out: decisions.csv,
    decisions.parquet and pictures. Images that do not fit are refused, with the reason.

    Examples: fedpatch score runs/first new_images --out scored;
    fedpatch score runs/first camera --category pipe_clip --watch --json
    """
    from flows.cli import scoring

    opened, images = scoring.open_model(model, paths, false_alarm_rate, threshold)
    if explain and out is None:
        fail("--explain draws pictures: say where they go with --out")
    if watch and len(images) != 1:
        fail("--watch takes one directory")
    if watch:
        scoring.watch_folder(opened, images[0], category, out, explain=explain, as_json=json_)
    else:
        scoring.score_images(opened, images, category, out, explain=explain, as_json=json_)


@app.command
def partition(config: Path, /, *, out: Out, set_: Set = None, json_: Json = False) -> None:
    """Compute a partition of the training images over clients and save it: partition.parquet, partition_stats.json.

    Example: fedpatch partition configs/real3_iid.yaml --set dataset.root=/data --out parts
    """
    from flows.cli.datasets import write_partition
    from pipeline_lib.config_files import load_config

    write_partition(load_config(config, set_ or []), out or Path("partition"), as_json=json_)


@dataset_app.command
def acquire(
    *,
    category: Annotated[list[str] | None, Parameter(help="Only these.", negative="")] = None,
    out: Annotated[Path, Parameter(name="--out", help="Where the data set goes.")],
    keep_archives: Annotated[bool, Parameter(help="Keep the zip files.", negative="")] = False,
    base_url: Annotated[str | None, Parameter(help="A mirror that has <category>.zip.")] = None,
    json_: Json = False,
) -> None:
    """Download AutoVI from Zenodo (4 GB, or some categories), check it and unpack it; goes on where it was interrupted.

    Example: fedpatch dataset acquire --category pipe_clip --category pipe_staple --out data/autovi
    """
    from flows.cli.datasets import acquire_dataset

    acquire_dataset(out, category, base_url, keep_archives=keep_archives, as_json=json_)


@dataset_app.command(name="import")
def import_(
    *,
    good: Annotated[Path, Parameter(help="A directory of images of good parts.")],
    defective: Annotated[Path | None, Parameter(help="A directory of images of defective parts.")] = None,
    annotations: Annotated[
        Path | None, Parameter(help="A COCO .json, or a directory of labelme .json or Pascal VOC .xml.")
    ] = None,
    category: Annotated[str, Parameter(help="Name of the part.")],
    out: Annotated[Path, Parameter(name="--out", help="The data set: the category goes below it.")],
    json_: Json = False,
) -> None:
    """Make a category in AutoVI's layout from folders of images and drawn annotations.

    Example: fedpatch dataset import --good ok --defective nok --annotations labelme --category bracket --out data
    """
    from flows.cli.datasets import import_images

    import_images(good, defective, annotations, category, out, as_json=json_)


@dataset_app.command
def validate(root: Path, /, *, layout: str = "autovi", json_: Json = False) -> None:
    """Check a data set: unreadable images, masks that do not fit, duplicates, counts. Exit status 1 for errors.

    Example: fedpatch dataset validate /data --layout mvtec
    """
    from flows.cli.datasets import validate_root

    validate_root(root, layout, as_json=json_)


@dataset_app.command
def stats(
    root: Path,
    /,
    *,
    layout: str = "autovi",
    normalization: Annotated[
        bool, Parameter(help="Mean and std of each colour over the training images instead.", negative="")
    ] = False,
    json_: Json = False,
) -> None:
    """Count images by category, split and defect folder.

    Example: fedpatch dataset stats /data; fedpatch dataset stats /data --normalization
    """
    from flows.cli import datasets

    if normalization:
        datasets.normalization_statistics(root, layout, as_json=json_)
    else:
        datasets.dataset_stats(root, layout, as_json=json_)


@dataset_app.command
def preview(
    root: Path, /, *, out: Annotated[Path, Parameter(name="--out", help="A .png or .jpg.")], layout: str = "autovi"
) -> None:
    """Draw a data set in one picture: a good and a defective image of each category, masks outlined.

    Example: fedpatch dataset preview /data --out preview.jpg
    """
    from flows.cli.datasets import preview_dataset

    preview_dataset(root, layout, out)


@dataset_app.command
def synthesize(
    *,
    out: Annotated[Path, Parameter(name="--out", help="Where the data set goes.")],
    scale: Annotated[float, Parameter(help="Of the native image sizes.")] = 1.0,
    seed: int = 0,
    images: Annotated[int | None, Parameter(help="Training images of each category.")] = None,
    category: Annotated[list[str] | None, Parameter(help="Only these.", negative="")] = None,
    json_: Json = False,
) -> None:
    """Make an AutoVI-like data set: six categories, structural and logical defects, masks.

    Example: fedpatch dataset synthesize --out made --scale 0.5 --images 24
    """
    from flows.cli.datasets import synthesize_root

    synthesize_root(out, scale, seed, images, category, as_json=json_)


Models = Annotated[
    Path | None, Parameter(name="--models", help="Directory of the models; $FEDPATCH_MODELS or ./models.")
]


@model_app.command(name="list")
def list_(*, models: Models = None, json_: Json = False) -> None:
    """Show the models, and which one is in use.

    Example: fedpatch model list
    """
    from flows.cli import models as commands

    commands.show_models(commands.shelf_of(models), as_json=json_)


@model_app.command
def compare(first: Path, second: Path, /, *, models: Models = None, json_: Json = False) -> None:
    """Compare two models or runs: metrics, thresholds, and the settings in which they differ.

    Example: fedpatch model compare current runs/new
    """
    from flows.cli import models as commands

    commands.compare_models(first, second, commands.shelf_of(models), as_json=json_)


@model_app.command
def promote(run_directory: Path, /, *, models: Models = None, json_: Json = False) -> None:
    """Copy a run to the models and put it in use: models/current then points to it.

    Example: fedpatch model promote runs/first; fedpatch score models/current new_images
    """
    from flows.cli import models as commands

    commands.promote_run(run_directory, commands.shelf_of(models), as_json=json_)


@model_app.command
def rollback(*, models: Models = None, json_: Json = False) -> None:
    """Put the model in use that was before.

    Example: fedpatch model rollback
    """
    from flows.cli import models as commands

    commands.roll_back(commands.shelf_of(models), as_json=json_)


Store = Annotated[Path | None, Parameter(name="--store", help="$FEDPATCH_STORE or ~/.cache/fedpatch/store.")]


@app.command
def doctor(*, store: Store = None, json_: Json = False) -> None:
    """Tell what is wrong with this installation: versions, weights, GPU, disk, server. Exit status 1 for problems.

    Example: fedpatch doctor --json
    """
    from flows.cli.doctor import examine

    examine(store, as_json=json_)


@store_app.command
def status(*, store: Store = None, json_: Json = False) -> None:
    """Show sizes by kind of artifact, and what registered runs refer to.

    Example: fedpatch store status
    """
    from flows.cli.store import show_status

    show_status(store, as_json=json_)


@store_app.command
def prune(
    *,
    store: Store = None,
    keep_days: Annotated[float, Parameter(help="Keep what runs of the last days refer to.")] = 30,
    unfinished_days: Annotated[
        float, Parameter(help="Keep what no finished run refers to for so long after its last use.")
    ] = 7,
    max_gb: Annotated[
        float | None, Parameter(help="And at most this much: what no run refers to goes first, then the oldest runs.")
    ] = None,
    dry_run: Annotated[bool, Parameter(help="Only say what would go.", negative="")] = False,
    json_: Json = False,
) -> None:
    """Remove artifacts that no recent run refers to; what was used in the last six hours stays.

    Example: fedpatch store prune --keep-days 30 --dry-run
    """
    from flows.cli import store as commands

    commands.prune(store, keep_days, unfinished_days, max_gb, dry_run=dry_run, as_json=json_)


def fail(message: str) -> NoReturn:
    """End with exit status 1 and one line on stderr."""
    print(f"fedpatch: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(1)


def main(arguments: Sequence[str] | None = None) -> Any:
    """Entry point. Exit status 0, 1 with one line on stderr, or 2 for wrong usage; `--debug` shows the traceback."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    debug = DEBUG_FLAG in tokens
    tokens = [token for token in tokens if token != DEBUG_FLAG]
    owns_process = arguments is None
    if owns_process:
        gc.set_threshold(100_000, 20, 20)  # the imports make a million objects that stay; no need to go through them
    try:
        app(tokens, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        print(f"fedpatch: {' '.join(str(error).split())} (see fedpatch --help)", file=sys.stderr)
        raise SystemExit(2) from None
    except FedpatchError as error:
        if debug:
            raise
        fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted; run the same command again to go on from what is finished")
    except BrokenExecutor:
        if debug:
            raise
        fail("a worker process was killed; run the same command again to go on from what is finished")
    except (OSError, MemoryError) as error:
        if debug:
            raise
        fail(f"{type(error).__name__}: {error}")
    finally:
        if owns_process:
            gc.freeze()  # nor at Python's end


if __name__ == "__main__":
    main()
