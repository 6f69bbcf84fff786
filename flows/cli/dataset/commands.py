"""Commands on data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from flows.cli.next_steps import with_overrides
from flows.cli.options import Json, Picture, Set, app, dataset_app, out_directory


@dataset_app.command
def acquire(
    *,
    category: Annotated[list[str] | None, Parameter(help="Only these.", negative="")] = None,
    out: Annotated[Path, out_directory("Where the data set goes.")],
    keep_archives: Annotated[bool, Parameter(help="Keep the zip files.", negative="")] = False,
    base_url: Annotated[str | None, Parameter(help="A mirror that has <category>.zip.")] = None,
    json_: Json = False,
) -> None:
    """Download AutoVI from Zenodo (4 GB, or some categories), check it and unpack it; goes on where it was interrupted.

    Example: fedpatch dataset acquire --category pipe_clip --category pipe_staple --out data/autovi
    """
    from flows.cli.dataset.datasets import acquire_dataset

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
    out: Annotated[Path, out_directory("The data set: the category goes below it.")],
    json_: Json = False,
) -> None:
    """Make a category in AutoVI's layout from folders of images and drawn annotations.

    Example: fedpatch dataset import --good ok --defective nok --annotations labelme --category bracket --out data
    """
    from flows.cli.dataset.datasets import import_images

    import_images(good, defective, annotations, category, out, as_json=json_)


@app.command
def init(root: Path, /, *, out: Annotated[Path, Parameter(help="The file.")] = Path("own.yaml")) -> None:
    """Write a configuration for a data set of your own: layout, categories and sizes as they are found.

    Example: fedpatch init /data/line1
    """
    from flows.cli.dataset.first_steps import write_first_configuration

    write_first_configuration(root, out)


@dataset_app.command
def validate(root: Path, /, *, set_: Set = None, layout: str = "auto", json_: Json = False) -> None:
    """Check a data set: unreadable images, masks that do not fit, duplicates, counts. Exit status 1 for errors.

    Examples: fedpatch dataset validate own.yaml; fedpatch dataset validate /data

    Parameters
    ----------
    root
        A configuration, whose data set, categories, sizes and groups are checked; or a data set's directory.
    """
    from flows.cli.dataset.datasets import validate_data
    from pipeline_lib.configuration.files import load_config, parse_config

    overrides = [*(set_ or []), *([] if layout == "auto" else [f"dataset.layout={layout}"])]
    is_config = root.is_file() or root.suffix in (".yaml", ".yml")
    settings = load_config(root, overrides) if is_config else parse_config({"dataset": {"root": str(root)}}, overrides)
    validate_data(settings, words=with_overrides(root, set_), is_config=is_config, as_json=json_)


@dataset_app.command
def stats(
    root: Path,
    /,
    *,
    layout: str = "auto",
    normalization: Annotated[
        bool, Parameter(help="Mean and std of each colour over the training images instead.", negative="")
    ] = False,
    json_: Json = False,
) -> None:
    """Count images by category, split and defect folder.

    Example: fedpatch dataset stats /data; fedpatch dataset stats /data --normalization
    """
    from flows.cli.dataset import datasets

    if normalization:
        datasets.normalization_statistics(root, layout, as_json=json_)
    else:
        datasets.dataset_stats(root, layout, as_json=json_)


@dataset_app.command
def preview(root: Path, /, *, out: Picture, layout: str = "auto") -> None:
    """Draw a data set in one picture: a good and a defective image of each category, masks outlined.

    Example: fedpatch dataset preview /data --out preview.jpg
    """
    from flows.cli.dataset.datasets import preview_dataset

    preview_dataset(root, layout, out)


@dataset_app.command
def synthesize(
    *,
    out: Annotated[Path, out_directory("Where the data set goes.")],
    scale: Annotated[float, Parameter(help="Of the native image sizes.")] = 1.0,
    seed: int = 0,
    images: Annotated[int | None, Parameter(help="Training images of each category.")] = None,
    category: Annotated[list[str] | None, Parameter(help="Only these.", negative="")] = None,
    json_: Json = False,
) -> None:
    """Make an AutoVI-like data set: six categories, structural and logical defects, masks.

    Example: fedpatch dataset synthesize --out made --scale 0.5 --images 24
    """
    from flows.cli.dataset.datasets import synthesize_root

    synthesize_root(out, scale, seed, images, category, as_json=json_)
