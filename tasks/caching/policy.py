"""How a stage decides that it need not run: content hashes in, content hashes out.

The key of a task run is its stage, the version of the code behind it, and the canonical JSON of its inputs, where a
manifest counts only by its content hash; where a network computes on a GPU, also how. A record counts only while the
artifacts that it names are intact: the key is computed anew for every run, and a record whose artifact is missing or
damaged is dropped on that occasion.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import Task
from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext
from prefect.transactions import IsolationLevel
from pydantic import BaseModel

from data_contracts.config import FederatedConfig, canonical_hash
from data_contracts.manifests import Manifest
from data_contracts.settings import AggregationSettings, BackboneSettings, Place
from pipeline_lib.configuration.hardware import is_cpu, kernels_key, pick_device
from pipeline_lib.extensions import extension_digest, is_extension
from pipeline_lib.features.recipes import can_be_had
from pipeline_lib.storage.artifact_store import ArtifactStore
from pipeline_lib.storage.references import image_manifests, manifests_in
from tasks.caching.code_version import task_version
from tasks.caching.locking import FlockLockManager

logger = logging.getLogger(__name__)

RECORDS_DIRECTORY = "records"
LOCKS_DIRECTORY = "locks"


@dataclass
class StagePolicy(CachePolicy):
    """Cache policy of one stage on one artifact store."""

    stage: str = ""
    version: str = ""
    store_root: str = ""
    keep_features: bool = True
    ignored: tuple[str, ...] = ("place",)

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **kwargs: Any
    ) -> str:
        """Key of this call; drops the key's record first when it is no longer good."""
        values = {name: canonical_value(value) for name, value in inputs.items() if name not in self.ignored}
        if kernels := _network_kernels(inputs):
            values["kernels"] = kernels
        key = f"{self.stage}-{canonical_hash([self.stage, self.version, values])}"
        self.drop_broken_record(key)
        return key

    def drop_broken_record(self, key: str) -> None:
        """Remove the record of `key` when it cannot be read or names an artifact that is not intact.

        A record whose key is locked is being computed right now and is left alone.
        """
        record = Path(self.store_root) / RECORDS_DIRECTORY / key
        if not record.exists():
            return
        locks = FlockLockManager(Path(self.store_root) / LOCKS_DIRECTORY)
        holder = f"check-{id(self)}"
        if not locks.acquire_lock(key, holder, acquire_timeout=0):
            return
        try:
            problem = record_problem(record, ArtifactStore(self.store_root), keep_features=self.keep_features)
            if problem:
                logger.warning("stage %s runs again: %s", self.stage, problem)
                record.unlink(missing_ok=True)
        finally:
            locks.release_lock(key, holder)


def stage_policy(task: Task[..., Any], place: Place) -> StagePolicy:
    """The policy of a stage on the place's store."""
    policy = StagePolicy(
        stage=task.name,
        version=task_version(task),
        store_root=str(place.store),
        keep_features=place.keep_features,
    )
    policy.lock_manager = FlockLockManager(place.store / LOCKS_DIRECTORY)
    policy.isolation_level = IsolationLevel.SERIALIZABLE
    return policy


def _network_kernels(inputs: Mapping[str, Any]) -> dict[str, bool | int | str] | None:
    """`hardware.kernels_key` of a call that is given a backbone; None for others, and on the CPU."""
    place = inputs.get("place")
    if not isinstance(place, Place) or not any(isinstance(value, BackboneSettings) for value in inputs.values()):
        return None
    if is_cpu(place.device):
        return None
    return kernels_key(
        pick_device(place.device),
        batch_size=place.batch_size,
        deterministic=place.deterministic,
        tf32=not place.deterministic,
    )


def canonical_value(value: Any) -> Any:
    """A value as JSON for a cache key: manifests by content hash, settings by their values; anything else is refused.

    Raises TypeError for types that have no canonical form; nothing is pickled.
    """
    match value:
        case Manifest():
            return {"kind": value.kind, "sha256": value.sha256, **_upload_identity(value)}
        case BackboneSettings():
            return value.identity()
        case Place():
            raise TypeError("a Place is not part of a cache key")
        case AggregationSettings():
            return _fields(value) | _extension_code(value.strategy)
        case FederatedConfig():
            return _fields(value) | _extension_code(value.partitioning)
        case BaseModel():
            return _fields(value)
        case dict():
            return {str(key): canonical_value(item) for key, item in value.items()}
        case list() | tuple():
            return [canonical_value(item) for item in value]
        case Path():
            return value.as_posix()
        case None | bool() | int() | float() | str():
            return value
    raise TypeError(f"a {type(value).__name__} cannot be part of a cache key")


def _fields(value: BaseModel) -> dict[str, Any]:
    return {name: canonical_value(getattr(value, name)) for name in type(value).model_fields}


def _extension_code(name: str) -> dict[str, str]:
    return {"extension_sha256": extension_digest(name)} if is_extension(name) else {}


def _upload_identity(manifest: Manifest) -> dict[str, Any]:
    extra = set(type(manifest).model_fields) - set(Manifest.model_fields)
    return {name: canonical_value(getattr(manifest, name)) for name in sorted(extra)}


def record_problem(record: Path, store: ArtifactStore, *, keep_features: bool = True) -> str | None:
    """Why a result record does not count, or None when it does."""
    try:
        manifests = list(manifests_in(json.loads(record.read_text(encoding="utf-8"))))
    except (OSError, ValueError):
        return f"its record {record.name} cannot be read"
    for manifest in manifests:
        if not store.is_intact(manifest):
            return f"artifact {manifest.path} is missing or damaged"
        if manifest.kind == "patch_features":
            for image in image_manifests(store.read_table(manifest)):
                if not can_be_had(store, image, kept=keep_features):
                    return f"artifact {image.path} is missing or damaged"
    return None
