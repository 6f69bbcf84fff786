"""The one configuration of an experiment: a frozen pydantic model, validated from YAML and shown as a form in the UI.

Key names are the guide's where it has them. Unknown keys are refused.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from data_contracts.defects import AUTOVI_DEFECT_GROUPS, AUTOVI_LARGE_CATEGORIES
from data_contracts.earlier_versions import REMOVED_KEYS, hashed_values, with_version

Size = tuple[int, int]  # width, height in pixels
EXTENSION_PATTERN = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"
Extension = Annotated[str, Field(pattern=EXTENSION_PATTERN, description="module:function of your own")]
Layout = Literal["auto", "autovi", "mvtec", "mvtec_ad2", "visa", "folder"]
Orientation = Literal["applied", "stored"]
Alignment = Literal["centers", "corners_as_patchcore"]
Codec = Literal["float32", "float16", "pca_float16", "pq"]
GroupRule = Literal["found"] | Annotated[dict[Literal["pattern", "file"], str], Field(min_length=1, max_length=1)]
Promise = Literal["interpolated", "rate", "bound"]
ImageScore = Literal["max", "reweighted", "top_share"]
TOP_SHARE = 0.01
Clients = Annotated[tuple[str, ...], Field(min_length=1)]
DEFAULT_BACKBONE = "wide_resnet50_2"
HEADLINE_FPR_LIMIT = 0.05
FPR_LIMITS = (0.01, HEADLINE_FPR_LIMIT, 0.1, 0.3, 1.0)


def _client_name(key: Any) -> str:
    return f"client_{key}" if isinstance(key, int) or str(key).isdigit() else str(key)


def _numbers_as_text(values: Any) -> Any:
    is_list = isinstance(values, list | tuple)
    return [str(one) if type(one) is int else one for one in values] if is_list else values


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(names) if len(names) <= 6 else f"{', '.join(names[:3])}, ..., {names[-1]}"


class Section(BaseModel):
    """Base of all sections: frozen, unknown keys and numbers that are not finite refused, defaults validated too."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


class DatasetConfig(Section):
    """Which images."""

    root: Path | None = Field(None, description="directory that holds the categories")
    layout: Layout = Field(
        "auto",
        description="where masks lie and how they are named (docs/your_data.md); auto: as the files show",
    )
    categories: tuple[str, ...] | None = Field(None, description="all that are found, unless named")
    max_images: int | None = Field(
        None, ge=2, description="at most this many images of each category and folder, evenly spaced"
    )
    on_bad_image: Literal["skip", "fail"] = Field(
        "skip", description="an image that cannot be read is set aside and listed, or the run fails naming it"
    )
    group: GroupRule | None = Field(
        None,
        description="which images show one part, one place or one tile, of each category: pattern, a regular "
        "expression searched in an image's path below root (its first group in brackets, else the whole match); file, "
        "a CSV or JSON of image -> group; found, near copies (docs/your_data.md). Other images stand alone",
    )

    @field_validator("group")
    @classmethod
    def _pattern_compiles(cls, value: GroupRule | None) -> GroupRule | None:
        if isinstance(value, dict) and "pattern" in value:
            try:
                re.compile(value["pattern"])
            except re.error as error:
                raise ValueError(f"pattern {value['pattern']!r} is no regular expression: {error}") from None
        return value


class PreprocessingConfig(Section):
    """Image sizes and normalization."""

    small_size: Size = Field((400, 400), description="[width, height] in pixels that images are resized to")
    large_size: Size = Field((1000, 750), description="the same for AutoVI's large categories")
    size_by_category: dict[str, Size] = Field({}, description="category -> its own size")
    mean: tuple[float, float, float] | None = Field(None, description="the backbone's own values unless given")
    std: tuple[float, float, float] | None = Field(None, description="goes with mean; both or neither")
    value_range: Literal["auto", "container"] | Annotated[int, Field(ge=1, le=65535)] = Field(
        "auto",
        description="the value of 12- and 16-bit files that is white: of each category the smallest of 8, 10, 12, 14 "
        "and 16 bits that holds its training images; the number that is given; or container, 65535 whatever they hold, "
        "as in earlier versions",
    )
    orientation: Orientation = Field(
        "applied",
        description="images are turned as EXIF or TIFF says; stored, as in earlier versions: in TIFF files alone",
    )

    @field_validator("small_size", "large_size", "size_by_category")
    @classmethod
    def _sizes_in_range(cls, value: Any) -> Any:
        for size in value.values() if isinstance(value, dict) else [value]:
            if not all(32 <= side <= 8192 for side in size):
                raise ValueError("each side must be from 32 to 8192 pixels, as [width, height]")
        return value

    @field_validator("std")
    @classmethod
    def _std_positive(cls, value: tuple[float, float, float] | None) -> tuple[float, float, float] | None:
        if value is not None and not all(v > 0 for v in value):
            raise ValueError("must be above 0 in every channel")
        return value

    @model_validator(mode="after")
    def _both_or_none(self) -> PreprocessingConfig:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std go together: give both or neither")
        return self

    def size(self, category: str) -> tuple[int, int]:
        """(width, height) in pixels that images of this category are resized to."""
        if category in self.size_by_category:
            return self.size_by_category[category]
        return self.large_size if category in AUTOVI_LARGE_CATEGORIES else self.small_size


class ModelConfig(Section):
    """Backbone, patch features and coreset."""

    model_config = ConfigDict(protected_namespaces=())

    backbone: str = Field(
        DEFAULT_BACKBONE,
        min_length=1,
        description="efficientnet_lite0 (its weights are installed), a torchvision model (a ResNet's name means "
        "IMAGENET1K_V1, the paper's weights; wide_resnet50_2.v2 names V2), timm/<model>, or a function of your own, "
        "module:function (docs/extending.md)",
    )
    weights: Literal["pretrained", "random"] = Field(
        "pretrained", description="random is for tests: the maps mean nothing"
    )
    weights_path: Path | None = Field(
        None,
        description="a state dict on disk, instead of a download: PyTorch's or safetensors, with timm's names or those "
        "of the original repository",
    )
    layers: Annotated[tuple[str, ...], BeforeValidator(_numbers_as_text)] | None = Field(
        None,
        description="the backbone's usual ones unless given; names of modules, of a timm model also numbers: blocks or "
        "stages from 0, as timm counts them",
        min_length=1,
    )
    neighborhood_size: Literal[1, 3, 5, 7] = Field(
        3, description="a patch feature is the mean over so many positions a side; 1 for none"
    )
    alignment: Alignment = Field(
        "centers",
        description="deeper layers are brought to the finest grid, and maps to the image, by where each cell looks; "
        "corners_as_patchcore, as PatchCore, anomalib and earlier versions: as if each looked at the middle of its "
        "share of the image (docs/method.md)",
    )
    extraction: Literal["plain", "fused", "bfloat16"] = Field(
        "plain",
        description="how the backbone computes on the CPU: layer by layer; fused, faster and equal but for rounding; "
        "in bfloat16, faster still, features rounded; refused on processors without AVX-512",
    )
    coreset_percentage: float = Field(0.1, gt=0, le=1, description="share of the patches that is kept, 0.1 is 10 %")
    subsampling: Literal["kcenter", "random", "density"] = Field(
        "kcenter", description="exact greedy k-center; random and density are controls"
    )
    shard_patches: int | None = Field(
        None,
        ge=1,
        description="select in shards of whole images with about so many patches each, as that many clients would; for "
        "millions of patches, of which one selection takes days. One selection over all unless given",
    )
    rows: Literal["picks", "cell_means"] = Field(
        "cell_means",
        description="each selected patch replaced by the mean of the patches nearest to it; picks, as PatchCore and "
        "earlier versions: the selected patches themselves",
    )
    lloyd_steps: int = Field(1, ge=1, le=10, description="how often rows: cell_means assigns patches and takes means")
    use_faiss: bool = Field(
        True, description="needed by the approximate searches alone; exact search is fedpatch's own"
    )

    @model_validator(mode="before")
    @classmethod
    def _says_which_weights(cls, data: Any) -> Any:
        return with_version(data, "v1", default=DEFAULT_BACKBONE) if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _shards_of_kcenter(self) -> ModelConfig:
        if self.shard_patches is not None and self.subsampling != "kcenter":
            raise ValueError(
                f"shard_patches is {self.shard_patches}, but subsampling: {self.subsampling} takes no longer with more "
                "patches; leave shard_patches out"
            )
        return self

    @model_validator(mode="after")
    def _steps_of_means(self) -> ModelConfig:
        if self.rows == "picks" and self.lloyd_steps != 1:
            raise ValueError(
                f"lloyd_steps is {self.lloyd_steps}, but rows: picks takes no means; set rows to cell_means, or leave "
                "lloyd_steps out"
            )
        return self


class TrainingConfig(Section):
    """How images are read."""

    batch_size: int = Field(32, ge=1, le=1024, description="images at a time through the backbone")
    num_workers: int = Field(4, ge=0, le=64, description="image decoding threads")


class InferenceConfig(Section):
    """How test patches become scores."""

    num_neighbors: int = Field(
        1, ge=1, le=100, description="a patch's score is its mean distance to so many nearest rows of the bank"
    )
    image_score: ImageScore = Field(
        "max",
        description="the largest patch score; that times the weight of Roth et al. 2022, equation 7; or the mean of "
        "the largest, as many as top_share says",
    )
    top_share: float = Field(
        TOP_SHARE, gt=0, le=1, description="share of an image's patches, at least one, for image_score: top_share"
    )
    smoothing_sigma: float = Field(0.0, ge=0, le=64, description="Gaussian blur of the map, pixels of the image")
    search: Literal["exact", "ivf", "hnsw", "pq"] = Field(
        "exact", description="the others are approximate; their recall is in the run's warnings"
    )

    @model_validator(mode="after")
    def _neighbors_for_reweighting(self) -> InferenceConfig:
        if self.image_score == "reweighted" and self.num_neighbors < 2:
            raise ValueError("image_score: reweighted needs num_neighbors of at least 2")
        return self

    @model_validator(mode="after")
    def _share_of_top(self) -> InferenceConfig:
        if self.image_score != "top_share" and self.top_share != TOP_SHARE:
            raise ValueError(
                f"top_share is {self.top_share:g}, but image_score is {self.image_score}; set it to top_share, or "
                "leave top_share out"
            )
        return self


class FederatedConfig(Section):
    """Who the clients are and what they hold."""

    mode: Literal["centralized", "federated", "local_only"] = Field(
        "centralized", description="all images at one place; a bank merged from uploads; each client alone"
    )
    num_clients: int = Field(5, ge=1, le=10_000, description="where the partition does not name them")
    partitioning: Literal["iid", "category", "time", "dirichlet", "saved"] | Extension = Field(
        "iid",
        description="evenly at random; by category; contiguous in order of file names; label skew; from partition_path",
    )
    partition_path: Path | None = Field(
        None, description="what `fedpatch partition` wrote, for partitioning: saved; it says who the clients are"
    )
    partition_groups: bool = Field(
        False, description="the images of a group (dataset.group) go to one client; else each image goes by itself"
    )
    alpha: float = Field(0.5, gt=0, description="concentration of the Dirichlet partition")
    client_assignments: Annotated[
        dict[str, tuple[str, ...]],
        BeforeValidator(
            lambda value: (
                {_client_name(k): ((v,) if isinstance(v, str) else v) for k, v in value.items()}
                if isinstance(value, dict)
                else value
            )
        ),
    ] = Field({}, description="client id -> categories, or [all] for a quality-control client")
    qc_sample_ratio: float = Field(0.1, gt=0, lt=1, description="share of each category that a client with [all] gets")
    num_rounds: int = Field(
        1, ge=1, le=100, description="after the first, clients send only what the bank does not cover yet"
    )
    min_clients: Annotated[int, Field(ge=1)] | Literal["all"] = Field(
        "all", description="quorum: with fewer uploads a run fails; all: every client that has images"
    )
    coreset_percentage_by_client: Annotated[
        dict[str, Annotated[float, Field(gt=0, le=1)]],
        BeforeValidator(
            lambda value: {_client_name(k): v for k, v in value.items()} if isinstance(value, dict) else value
        ),
    ] = Field({}, description="client id -> its own coreset_percentage")

    @model_validator(mode="after")
    def _assignments_fit(self) -> FederatedConfig:
        if self.mode == "centralized":
            return self
        if self.partitioning == "category" and not self.client_assignments:
            raise ValueError("partitioning: category needs client_assignments (client id -> list of categories)")
        if (self.partitioning == "saved") != (self.partition_path is not None):
            raise ValueError("partitioning: saved and partition_path go together: give both or neither")
        if self.partitioning == "saved":
            return self
        clients = self.client_names()
        if self.min_clients != "all" and self.min_clients > len(clients):
            raise ValueError(f"min_clients is {self.min_clients}, but there are only {len(clients)} clients")
        if unknown := sorted(set(self.coreset_percentage_by_client) - set(clients)):
            raise ValueError(
                f"coreset_percentage_by_client names {', '.join(unknown)}, but the clients are {_few(clients)}"
            )
        return self

    def client_names(self) -> tuple[str, ...]:
        """Client ids: the keys of `client_assignments` in a partition by category, else client_0, client_1, ...

        A saved partition names its clients itself (`pipeline_lib.partition.assignment.client_ids`).
        """
        if self.partitioning == "category":
            return tuple(self.client_assignments)
        return tuple(f"client_{number}" for number in range(self.num_clients))

    @property
    def quorum(self) -> int | Literal["all"]:
        """Of the clients that have images, how many must deliver in every round."""
        return 1 if self.mode == "centralized" else self.min_clients

    @property
    def rounds(self) -> int:
        """How many there are in this mode."""
        return self.num_rounds if self.mode == "federated" else 1

    def as_mode(self, mode: Literal["centralized", "federated", "local_only"]) -> FederatedConfig:
        """The same section in another mode, validated."""
        return FederatedConfig.model_validate({**self.model_dump(), "mode": mode})


class UploadConfig(Section):
    """What happens to rows before they leave the station."""

    codec: Codec = Field("float32", description="how rows are encoded; the last three are smaller and lossy")
    clip_norm: float | None = Field(None, gt=0, description="rows longer than this are shortened to it")
    noise_sigma: float = Field(0.0, ge=0, description="standard deviation of Gaussian noise, in feature units")


class AggregationConfig(Section):
    """How the server merges uploads."""

    strategy: Literal["federated_coreset", "simple_concatenate", "diversity_preserving"] | Extension = Field(
        "federated_coreset",
        description="k-center over all uploads with a quota for each client; all rows; k-center without quotas",
    )
    bank_scope: Literal["per_category", "global"] = Field(
        "per_category", description="one bank a category, or one for all"
    )
    global_bank_size: Annotated[int, Field(ge=1)] | Literal["match_centralized"] = Field(
        "match_centralized", description="rows of each bank, or as many as the centralized baseline keeps"
    )
    weight_by_samples: bool = Field(True, description="clients' shares of the bank by their images; else equal shares")
    oversample_factor: float = Field(1.0, ge=1, le=100, description="each client sends this many times its quota")
    regions: Annotated[int, Field(ge=1)] | Annotated[dict[str, Clients], Field(min_length=1)] | None = Field(
        None,
        description="merge in two levels, a region's uploads at a time: clients a region, in order of their names, or "
        "region -> its clients; all at once unless given (docs/performance.md)",
    )

    @model_validator(mode="after")
    def _regions_can_be_reduced(self) -> AggregationConfig:
        if self.regions is None:
            return self
        if self.strategy not in ("federated_coreset", "diversity_preserving"):
            raise ValueError(
                f"regions are reduced by k-center, which strategy: {self.strategy} is not; set it to "
                "federated_coreset or diversity_preserving, or leave regions out"
            )
        if isinstance(self.regions, dict):
            counts = Counter(client for clients in self.regions.values() for client in clients)
            if twice := sorted(client for client, count in counts.items() if count > 1):
                raise ValueError(f"regions names {', '.join(twice)} more than once; a client is in one region")
        return self


class EvaluationConfig(Section):
    """What is measured."""

    fpr_limits: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        FPR_LIMITS, description="false positive rates up to which sPRO curves are integrated; 0.05 always among them"
    )
    bootstrap: int = Field(1000, ge=0, le=100_000, description="resamples for the 95 % intervals; 0 for none")
    defect_groups: dict[str, str] = Field(
        AUTOVI_DEFECT_GROUPS, description="defect name or test folder -> group, such as structural or logical"
    )
    defect_weights: dict[str, Annotated[float, Field(ge=0)]] | str = Field(
        {}, description="weight of each defect's channels, or the key of defects_config.json that holds it"
    )

    coverage: bool = Field(
        False,
        description="also measure how far each client's own patches lie from the final bank; takes as long as scoring "
        "the training images",
    )
    save_maps: Literal["none", "png", "tiff", "npy"] = Field(
        "none", description="also write the anomaly maps as files, maps/ in the run directory; png has 16 bit"
    )

    @field_validator("fpr_limits")
    @classmethod
    def _headline_is_there(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(sorted({*value, HEADLINE_FPR_LIMIT}))


class DecisionConfig(Section):
    """From score to decision: the threshold comes from normal training images alone."""

    target_false_alarm_rate: float = Field(
        0.05, gt=0, lt=1, description="share of good images that may be called defective"
    )
    promise: Promise = Field(
        "interpolated",
        description="what target_false_alarm_rate is: the rate that is to be expected, the threshold lying between two "
        "scores; rate, its limit, the threshold being a score; bound, the rate's upper bound at 95 % confidence, which "
        "is refused where normal images (groups, where they have some) are too few",
    )
    blocks: int = Field(
        10,
        ge=0,
        le=1000,
        description="parts of each client's images, in time order and of whole groups, that are scored out of fold; "
        "0: none",
    )

    @field_validator("blocks")
    @classmethod
    def _more_than_one(cls, value: int) -> int:
        if value == 1:
            raise ValueError("1 block leaves nothing to score it with; give 2 or more, or 0 for no thresholds")
        return value


class RuntimeConfig(Section):
    """Where and how it runs; none of this changes a result, save `device` and `threads` in the last bits."""

    store: Path | None = Field(
        None, description="artifact store; $FEDPATCH_STORE or ~/.cache/fedpatch/store unless given"
    )
    out: Path | None = Field(None, description="run directory; runs/<name>-<timestamp> unless given")
    task_runner: Literal["threads", "processes", "dask"] = Field(
        "threads", description="what runs the tasks; dask needs fedpatch[dask]"
    )
    dask_address: str | None = Field(None, description="scheduler of an existing cluster, for task_runner: dask")
    workers: int | None = Field(None, ge=1, le=1024, description="tasks at a time; one a core unless given")
    threads: int = Field(1, ge=1, le=256, description="threads of torch, FAISS and OpenMP in each task")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: cuda where there is one")
    deterministic: bool = Field(
        True,
        description="on a GPU: the same float32 convolutions every time; false: the fastest, with TF32",
    )
    keep_features: bool = Field(
        True,
        description="keep all images' features in the store, patches x dimensions x 2 bytes; false, on the CPU alone: "
        "compute them again for the coresets, the thresholds and the scores",
    )


class ExperimentConfig(Section):
    """One experiment. `config_hash` covers everything that can change a result."""

    name: str = Field(
        "experiment", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$", description="for people and directories"
    )
    seed: int = Field(42, ge=0, lt=2**63, description="of everything random: partition, first picks, noise, bootstrap")
    dataset: DatasetConfig = DatasetConfig()
    preprocessing: PreprocessingConfig = PreprocessingConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    inference: InferenceConfig = InferenceConfig()
    federated: FederatedConfig = FederatedConfig()
    upload: UploadConfig = UploadConfig()
    aggregation: AggregationConfig = AggregationConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    decision: DecisionConfig = DecisionConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    @model_validator(mode="before")
    @classmethod
    def _a_federated_section_means_federated(cls, data: Any) -> Any:
        if isinstance(data, dict):  # null: a section that is folded in the UI's form
            data = {key: value for key, value in data.items() if value is not None}
        if isinstance(data, dict) and isinstance(section := data.get("federated"), dict) and "mode" not in section:
            return {**data, "federated": {**section, "mode": "federated"}}
        return data

    @model_validator(mode="before")
    @classmethod
    def _without_removed_keys(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        given = [place for place in REMOVED_KEYS if isinstance(one := data.get(place[0]), dict) and place[1] in one]
        for section, key in given:
            if (value := data[section][key]) != REMOVED_KEYS[section, key]:
                raise ValueError(
                    f"{section}.{key}: {value} is gone: it was measured and gave nothing (docs/federation.md); leave "
                    "the key out. What was run with it can still be shown, scored and compared"
                )
            data = {**data, section: {name: one for name, one in data[section].items() if name != key}}
        return data

    @model_validator(mode="after")
    def _groups_to_partition(self) -> ExperimentConfig:
        if self.federated.partition_groups and self.dataset.group is None:
            raise ValueError("federated.partition_groups needs dataset.group, which says what the groups are")
        return self

    def extensions(self) -> dict[str, str]:
        """Key -> `module:function`, of the keys that name a function of the user's."""
        named = {
            "model.backbone": self.model.backbone,
            "federated.partitioning": self.federated.partitioning,
            "aggregation.strategy": self.aggregation.strategy,
        }
        return {key: name for key, name in named.items() if re.fullmatch(EXTENSION_PATTERN, name)}

    def as_mode(self, mode: Literal["centralized", "federated", "local_only"]) -> ExperimentConfig:
        """The same with another `federated.mode`, validated."""
        return self.model_copy(update={"federated": self.federated.as_mode(mode)})

    def with_layout(self, layout: Layout) -> ExperimentConfig:
        """The same with another `dataset.layout`."""
        return self.model_copy(update={"dataset": self.dataset.model_copy(update={"layout": layout})})

    def config_hash(self) -> str:
        """First 16 hex digits of the SHA-256 over the canonical JSON, without what changes no other figure."""
        return self.config_hashes()[0]

    def config_hashes(self) -> tuple[str, ...]:
        """`config_hash`, and what an earlier version wrote for this configuration: a stored hash may be any of them."""
        return tuple(dict.fromkeys(self.hashes_by_version()))

    def hashes_by_version(self) -> tuple[str, ...]:
        """`config_hash`, and those of the versions before, the last first: as many of every configuration."""
        unimportant: Any = {"name": True, "runtime": True, "dataset": {"root"}, "evaluation": {"save_maps", "coverage"}}
        values = self.model_dump(mode="json", exclude=unimportant)
        return tuple(canonical_hash(one)[:16] for one in hashed_values(values))


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def canonical_hash(value: Any) -> str:
    """SHA-256 (hex) of `canonical_json(value)`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
