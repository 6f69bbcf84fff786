"""What refers to what: the manifests that a table, a record or any JSON value names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import pandas as pd
from pydantic import ValidationError

from data_contracts.manifests import Manifest

RECIPE_SUFFIX: Final = ".recipe.json"  # after an artifact's path: how to make it again where it is not kept


def manifests_in(value: Any) -> Iterator[Manifest]:
    """All manifests anywhere in a JSON value (also in strings that hold JSON, as Prefect's records do)."""
    if isinstance(value, dict):
        if {"kind", "path", "sha256", "size_bytes", "rows"} <= set(value):
            try:
                yield Manifest.model_validate({name: value[name] for name in Manifest.model_fields})
            except ValidationError:
                pass
            else:
                return
        for item in value.values():
            yield from manifests_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from manifests_in(item)
    elif isinstance(value, str) and value[:1] in "{[":
        try:
            yield from manifests_in(json.loads(value))
        except ValueError:
            return


def image_manifests(table: pd.DataFrame) -> Iterator[Manifest]:
    """The manifests of the images' feature files that a PATCH_FEATURES table lists."""
    for row in table.to_dict("records"):
        yield Manifest(
            kind="image_features",
            path=row["path"],
            sha256=row["sha256"],
            size_bytes=row["size_bytes"],
            rows=row["grid_height"] * row["grid_width"],
        )
