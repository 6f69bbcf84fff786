"""The command line's groups of commands, and the options that several commands share."""

from __future__ import annotations

import math
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, NoReturn

from cyclopts import App, Parameter

from data_contracts.errors import PlaceError
from pipeline_lib.storage.writable import refuse_unwritable

PICTURES = (".png", ".jpg", ".jpeg")


def _finite(_: Any, value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("It accepts a finite number.")


app = App(
    name="fedpatch",
    help="Federated PatchCore for visual inspection: train and measure anomaly detection without pooling images.",
    help_format="plaintext",
    version=lambda: metadata.version("fedpatch"),
    default_parameter=Parameter(validator=_finite),  # of every option of every command
)
dataset_app = App(name="dataset", help="Get, check, describe or make a data set.")
app.command(dataset_app)
model_app = App(name="model", help="Models in use: a directory and a pointer.")
app.command(model_app)
store_app = App(name="store", help="What the artifact store holds, and what may go.")
app.command(store_app)
exchange_app = App(name="exchange", help="The place that stations share: what it holds, and what may go.")
app.command(exchange_app)

app.register_install_completion_command(name="--install-completion", add_to_startup=False)


def _tried(_type: Any, directory: Path | None) -> None:
    if directory is not None:
        refuse_unwritable({"--out": directory})


def out_directory(text: str) -> Parameter:
    """The option --out, a directory that is tried before anything else happens."""
    return Parameter(name="--out", help=text, validator=_tried)


def _drawable(_type: Any, file: Path) -> None:
    if file.suffix.lower() not in PICTURES:
        raise PlaceError(f"--out: {file} is no picture; its name ends with {' or '.join(PICTURES)}")
    refuse_unwritable({"--out": file.parent})


def _is_there(_type: Any, directory: Path | None) -> None:
    if directory is not None and not directory.expanduser().is_dir():
        raise PlaceError(f"there is no directory {directory}")


Picture = Annotated[Path, Parameter(name="--out", help="A .png or .jpg.", validator=_drawable)]
StoreToBe = Annotated[Path | None, Parameter(name="--store", help="$FEDPATCH_STORE or ~/.cache/fedpatch/store.")]
Store = Annotated[StoreToBe, Parameter(validator=_is_there)]
Set = Annotated[
    list[str] | None,
    Parameter(name="--set", help="Override a key of the configuration, such as --set dataset.root=/data", negative=""),
]
Out = Annotated[Path | None, out_directory("Where the results go.")]
Force = Annotated[bool, Parameter(help="Also where memory or disk may be short.", negative="")]
Json = Annotated[bool, Parameter(name="--json", help="Print the result as one JSON value.", negative="")]


def fail(message: str) -> NoReturn:
    """End with exit status 1 and one line on stderr."""
    print(f"fedpatch: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(1)
