"""Commands on models in use, the artifact store and the installation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from flows.cli.options import Json, Store, StoreToBe, app, exchange_app, model_app, store_app

Models = Annotated[
    Path | None, Parameter(name="--models", help="Directory of the models; $FEDPATCH_MODELS or ./models.")
]


@model_app.command(name="list")
def list_(*, models: Models = None, json_: Json = False) -> None:
    """Show the models, and which one is in use.

    Example: fedpatch model list
    """
    from flows.cli.upkeep import models as commands

    commands.show_models(commands.shelf_of(models), as_json=json_)


@model_app.command
def compare(first: Path, second: Path, /, *, models: Models = None, json_: Json = False) -> None:
    """Compare two models or runs: metrics, thresholds, and the settings in which they differ.

    Example: fedpatch model compare current runs/new
    """
    from flows.cli.upkeep import models as commands

    commands.compare_models(first, second, commands.shelf_of(models), as_json=json_)


@model_app.command
def promote(run_directory: Path, /, *, models: Models = None, json_: Json = False) -> None:
    """Copy a run to the models and put it in use: models/current then points to it.

    Example: fedpatch model promote runs/first; fedpatch score models/current new_images
    """
    from flows.cli.upkeep import models as commands

    commands.promote_run(run_directory, commands.shelf_of(models), as_json=json_)


@model_app.command
def rollback(*, models: Models = None, json_: Json = False) -> None:
    """Put the model in use that was before.

    Example: fedpatch model rollback
    """
    from flows.cli.upkeep import models as commands

    commands.roll_back(commands.shelf_of(models), as_json=json_)


@app.command
def doctor(
    *,
    store: StoreToBe = None,
    station: Annotated[
        str | None, Parameter(help="And with this machine as that station: variables, shared place, clock, work queue.")
    ] = None,
    json_: Json = False,
) -> None:
    """Tell what is wrong with this installation: versions, weights, GPU, disk, server. Exit status 1 for problems.

    Examples: fedpatch doctor --json; fedpatch doctor --station station-a
    """
    from flows.cli.upkeep.doctor import examine

    examine(store, station, as_json=json_)


@app.command
def config_reference() -> None:
    """Print the page of all settings: keys, what they accept, defaults, meaning. docs/configuration.md is this.

    Example: fedpatch config-reference
    """
    from pipeline_lib.configuration.reference import config_reference as page

    print(page(), end="")


@store_app.command
def status(*, store: Store = None, json_: Json = False) -> None:
    """Show sizes by kind of artifact, and what registered runs refer to.

    Example: fedpatch store status
    """
    from flows.cli.upkeep.store import show_status

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
    from flows.cli.upkeep import store as commands

    commands.prune(store, keep_days, unfinished_days, max_gb, dry_run=dry_run, as_json=json_)


SharedPlace = Annotated[str | None, Parameter(help="Directory or s3://bucket/prefix; $FEDPATCH_EXCHANGE.")]


@exchange_app.command(name="show")
def show_exchange(
    url: SharedPlace = None,
    /,
    *,
    station: Annotated[str | None, Parameter(help="Only what this one sent.")] = None,
    json_: Json = False,
) -> None:
    """Show what each station has put into the shared place: files, bytes, when.

    Example: fedpatch exchange show /mnt/fedpatch --station station-a
    """
    from flows.cli.upkeep import store as commands

    commands.show_shared(url, station, as_json=json_)


@exchange_app.command(name="prune")
def prune_exchange(
    url: SharedPlace = None,
    /,
    *,
    keep_days: Annotated[float, Parameter(help="Keep runs that someone wrote to in the last days.")] = 30,
    dry_run: Annotated[bool, Parameter(help="Only say what would go.", negative="")] = False,
    json_: Json = False,
) -> None:
    """Remove runs of stations that are over; what belongs to no run is named and stays.

    Example: fedpatch exchange prune /mnt/fedpatch --keep-days 30 --dry-run
    """
    from flows.cli.upkeep import store as commands

    commands.prune_shared(url, keep_days, dry_run=dry_run, as_json=json_)
