"""Which artifacts a value refers to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from data_contracts.manifests import Manifest


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
