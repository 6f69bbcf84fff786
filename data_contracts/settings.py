"""What each stage depends on, and nothing else: a stage is recomputed when one of these values changes.

The flow derives them from the `ExperimentConfig`, so that a changed `coreset_percentage`
leaves the patch features alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from data_contracts.config import (
    TOP_SHARE,
    Alignment,
    Codec,
    ExperimentConfig,
    Extension,
    ImageScore,
    Layout,
    Orientation,
    PreprocessingConfig,
    canonical_hash,
)
from data_contracts.earlier_versions import ADDED_KEYS
from data_contracts.errors import ConfigError


class Settings(BaseModel):
    """Base: frozen, exact."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def default_store() -> Path:
    """`$FEDPATCH_STORE`, or `~/.cache/fedpatch/store`."""
    return Path(os.environ.get("FEDPATCH_STORE") or Path.home() / ".cache" / "fedpatch" / "store")


RUNS = Path("runs")
"""In the current directory: where runs go unless `runtime.out` says it."""


class Place(Settings):
    """Where and on what a task runs. Never part of a cache key."""

    store: Path
    data_root: Path
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 1
    deterministic: bool = True
    batch_size: int = 32
    num_workers: int = 4
    keep_features: bool = True


def place_of(config: ExperimentConfig) -> Place:
    """Where this run reads and writes: as configured, else `$FEDPATCH_DATASET` and `$FEDPATCH_STORE`.

    Raises ConfigError when nothing says where the data set lies.
    """
    root = config.dataset.root or os.environ.get("FEDPATCH_DATASET")
    if not root:
        raise ConfigError(
            "dataset.root: not given; say where the data set lies: --set dataset.root=/data/autovi, or by name "
            "config.dataset.root (full-benchmark: config.base.dataset.root); or start the command, or the worker, with "
            "FEDPATCH_DATASET=/data/autovi"
        )
    return Place(
        store=(config.runtime.store or default_store()).expanduser().absolute(),
        data_root=Path(root).expanduser().absolute(),
        device=config.runtime.device,
        threads=config.runtime.threads,
        deterministic=config.runtime.deterministic,
        batch_size=config.training.batch_size,
        num_workers=config.training.num_workers,
        keep_features=config.runtime.keep_features,
    )


class BackboneSettings(Settings):
    """Everything that patch features depend on, with the defaults of the backbone filled in."""

    backbone: str
    layers: tuple[str, ...]
    weights_source: str  # package | random | a name, for people
    weights_sha256: str  # of the weights file, of "random" and the seed, or of a user's code and the weights it made
    weights_license: str | None = None  # of published weights, where the library states it
    weights_path: Path | None  # where the weights lie on this machine
    seed: int  # of random weights
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    neighborhood_size: int
    extraction: Literal["plain", "fused", "bfloat16"] = "plain"
    alignment: Alignment = "corners_as_patchcore"  # what models that do not say it were made with

    def identity(self) -> dict[str, object]:
        """The values that decide a feature's bytes: not where the weights lie; the seed by `weights_sha256` alone."""
        values = self.model_dump(mode="json", exclude={"weights_path", "weights_source", "weights_license", "seed"})
        if self.extraction == "plain":
            del values["extraction"]  # models that were saved before there was a choice stay valid
        if self.alignment == "corners_as_patchcore":
            del values["alignment"]
        return values


class ImageReading(Settings):
    """How the image files of one category become pixels (pipeline_lib/dataset/images.py)."""

    orientation: Orientation = "applied"
    value_range: int | None = None  # the value that becomes 255; None: that of the file's type


class Reading(Settings):
    """How a model's image files become pixels; as it stands, as earlier versions read them."""

    orientation: Orientation = "stored"
    value_ranges: dict[str, int] = {}  # category -> the value that becomes 255; else that of the file's type

    def only(self, categories: Iterable[str]) -> Reading:
        """The rule without other categories."""
        wanted = set(categories)
        ranges = {category: value for category, value in self.value_ranges.items() if category in wanted}
        return Reading(orientation=self.orientation, value_ranges=ranges)

    def of(self, category: str | None) -> ImageReading:
        """The rule for one category."""
        value_range = None if category is None else self.value_ranges.get(category)
        return ImageReading(orientation=self.orientation, value_range=value_range)


BY_TYPE = ImageReading()
"""The orientation applied, and the range that of the file's type."""
AS_EARLIER = Reading()


class CoresetSettings(Settings):
    """How a client selects its rows and what leaves the station."""

    seed: int
    subsampling: Literal["kcenter", "random", "density"]
    ratio: float  # share of the client's patches that is sent: quota x oversample_factor
    round_up: bool = False  # in a federation, so that quotas add up to the baseline's rows
    bank_scope: Literal["per_category", "global"]
    codec: Codec
    clip_norm: float | None
    noise_sigma: float
    round: int = 1
    rows: Literal["picks", "cell_means"] = "picks"
    lloyd_steps: int = 1
    shard_patches: int | None = None

    @classmethod
    def of(cls, config: ExperimentConfig, client_id: str, round_number: int = 1) -> CoresetSettings:
        """For one client; a centralized run neither oversamples nor encodes."""
        ratio = config.federated.coreset_percentage_by_client.get(client_id, config.model.coreset_percentage)
        federated = config.federated.mode == "federated"
        uploads = config.federated.mode != "centralized"
        return cls(
            seed=config.seed,
            subsampling=config.model.subsampling,
            ratio=min(1.0, ratio * (config.aggregation.oversample_factor if federated else 1.0)),
            round_up=federated,
            bank_scope=config.aggregation.bank_scope,
            codec=config.upload.codec if uploads else "float32",
            clip_norm=config.upload.clip_norm if uploads else None,
            noise_sigma=config.upload.noise_sigma if uploads else 0.0,
            round=round_number,
            rows=config.model.rows,
            lloyd_steps=config.model.lloyd_steps,
            shard_patches=config.model.shard_patches,
        )

    def hashed(self) -> dict[str, object]:
        """What of it the hash of an upload's configuration covers: not the round; keys as `ADDED_KEYS` says."""
        added = {key: unchanged for (section, key), unchanged in ADDED_KEYS.items() if section == "model"}
        values = self.model_dump(mode="json", exclude={"round"})
        return {key: value for key, value in values.items() if key not in added or value != added[key]}


class AggregationSettings(Settings):
    """How the server merges uploads into one bank."""

    seed: int
    strategy: Literal["federated_coreset", "simple_concatenate", "diversity_preserving"] | Extension
    target_rows: int | None  # None: as many as the centralized baseline keeps
    coreset_percentage: float
    weight_by_samples: bool
    regions: int | dict[str, tuple[str, ...]] | None = None  # clients a region, or region -> its clients

    @classmethod
    def of(cls, config: ExperimentConfig) -> AggregationSettings:
        """A centralized run keeps its one coreset as it is."""
        size = config.aggregation.global_bank_size
        is_merged = config.federated.mode == "federated"
        return cls(
            seed=config.seed,
            strategy=config.aggregation.strategy if is_merged else "simple_concatenate",
            target_rows=None if size == "match_centralized" or not is_merged else size,
            regions=config.aggregation.regions if is_merged else None,
            coreset_percentage=config.model.coreset_percentage,
            weight_by_samples=config.aggregation.weight_by_samples,
        )


class ScoringSettings(Settings):
    """How test patches become maps and scores."""

    seed: int
    num_neighbors: int
    image_score: ImageScore
    top_share: float = TOP_SHARE  # models of earlier versions do not say it
    search: Literal["exact", "ivf", "hnsw", "pq"]
    use_faiss: bool

    @classmethod
    def of(cls, config: ExperimentConfig) -> ScoringSettings:
        return cls(
            seed=config.seed,
            num_neighbors=config.inference.num_neighbors,
            image_score=config.inference.image_score,
            top_share=config.inference.top_share,
            search=config.inference.search,
            use_faiss=config.model.use_faiss,
        )


class CalibrationSettings(Settings):
    """How a client scores its own normal images out of fold."""

    blocks: int
    scoring: ScoringSettings

    @classmethod
    def of(cls, config: ExperimentConfig) -> CalibrationSettings:
        return cls(blocks=config.decision.blocks, scoring=ScoringSettings.of(config))


class EvaluationSettings(Settings):
    """What is measured."""

    seed: int
    layout: Layout
    smoothing_sigma: float
    fpr_limits: tuple[float, ...]
    bootstrap: int
    defect_groups: dict[str, str]
    defect_weights: dict[str, float] | str

    @classmethod
    def of(cls, config: ExperimentConfig) -> EvaluationSettings:
        return cls(
            seed=config.seed,
            layout=config.dataset.layout,
            smoothing_sigma=config.inference.smoothing_sigma,
            fpr_limits=config.evaluation.fpr_limits,
            bootstrap=config.evaluation.bootstrap,
            defect_groups=config.evaluation.defect_groups,
            defect_weights=config.evaluation.defect_weights,
        )


def client_config_hash(config: ExperimentConfig, backbone: BackboneSettings) -> str:
    """First 16 hex digits of the hash over all that a client's upload depends on, the same for every client.

    The server refuses uploads that were made with another one. A client's own coreset ratio is not part of it.
    """
    return client_config_hashes(config, backbone)[0]


def client_config_hashes(config: ExperimentConfig, backbone: BackboneSettings) -> tuple[str, ...]:
    """`client_config_hash`, and what an earlier version wrote: a stored hash may be any of them.

    The seed is in it twice, as it was when a backbone's identity held its seed: that of the configuration, which is
    also the backbone's in every run. In library form an extractor of another seed made the backbone another one.
    """
    read_as = {"value_range", "orientation"}  # which an upload's manifest says
    sizes = config.preprocessing.model_dump(mode="json", exclude={"mean", "std", *read_as})
    coreset = CoresetSettings.of(config, client_id="").hashed()
    identity = backbone.identity()
    seeds = (config.seed, backbone.seed)
    return tuple(dict.fromkeys(canonical_hash([identity | {"seed": s}, sizes, coreset])[:16] for s in seeds))


def sizes_of(preprocessing: PreprocessingConfig, categories: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    """category -> (width, height) in pixels."""
    return {category: preprocessing.size(category) for category in categories}
