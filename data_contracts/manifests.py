"""What tasks hand to one another: small frozen records that point at artifacts by content hash, never arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from data_contracts.settings import AS_EARLIER, Reading

CENTRALIZED_CLIENT = "centralized"

GLOBAL_BANK = "all"
"""The name of the one bank for all categories, `aggregation.bank_scope: global`."""

ArtifactKind = Literal[
    "dataset_index",
    "validation_report",
    "partition",
    "partition_stats",
    "client_images",
    "test_images",
    "thumbnails",
    "image_groups",
    "image_features",
    "patch_features",
    "client_selection",
    "client_upload",
    "client_provenance",
    "bank_coverage",
    "station_figures",
    "station_calibration",
    "memory_bank",
    "calibration_scores",
    "anomaly_maps",
    "image_scores",
    "metrics_table",
    "metrics_document",
    "curves",
    "image_sample",
    "gallery",
    "report",
]


class Manifest(BaseModel):
    """One artifact in the store.

    Two manifests with the same `sha256` stand for the same bytes; caching compares nothing else.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: ArtifactKind
    path: str = Field(description="path relative to the root of the artifact store, with forward slashes")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0)
    rows: int = Field(ge=0, description="table rows, patches or images, as the kind says")


class Cells(BaseModel):
    """Where the cells of a patch grid look at their image: cell i has its centre at (i + offset) / across of a side.

    Each is (y, x). Where a cell looks at the middle of its share of the image, the offset is 0.5 and `across` the grid.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    offset: tuple[float, float] = Field(description="from the image's edge to the first centre, in cells")
    across: tuple[float, float] = Field(description="cells that the image would hold, whole or not")

    @classmethod
    def even(cls, grid: tuple[int, int]) -> Cells:
        """Of a grid (height, width) that shares the image out evenly, as pixels do."""
        return cls(offset=(0.5, 0.5), across=(float(grid[0]), float(grid[1])))

    @classmethod
    def of_table(cls, values: Sequence[float]) -> Cells:
        """From the four values of a table's column `cells`."""
        offset_y, offset_x, across_y, across_x = map(float, values)
        return cls(offset=(offset_y, offset_x), across=(across_y, across_x))

    def for_table(self) -> list[float]:
        """The four values of a table's column `cells`."""
        return [*self.offset, *self.across]

    def center(self, y: int, x: int) -> tuple[float, float]:
        """(x, y) of a cell as shares of the image."""
        return (x + self.offset[1]) / self.across[1], (y + self.offset[0]) / self.across[0]

    @property
    def size(self) -> tuple[float, float]:
        """(width, height) of a cell as shares of the image."""
        return 1 / self.across[1], 1 / self.across[0]


class UploadManifest(Manifest):
    """A client's coreset of one category, as it leaves the station (DESIGN artifact 4)."""

    client_id: str
    category: str
    round: int = Field(ge=1)
    config_hash: str
    dim: int = Field(ge=1)
    n_images: int = Field(ge=0, description="training images that the coreset was selected from")
    n_patches: int = Field(ge=0, description="patches that the coreset was selected from")
    raw_image_bytes: int = Field(ge=0, description="size of the client's own image files of this category")
    covering_radius: float = Field(ge=0, description="largest distance of a local patch to the coreset")
    reconstruction_error: float = Field(
        0.0, ge=0, description="largest distance of a sent row to the row it stands for"
    )
    reading: Reading = Field(AS_EARLIER, description="of the images that the coreset was selected from")


class ClientImages(BaseModel):
    """The training images of one client, one table a client, so that a client's work depends on its own rows only."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    client_id: str
    images: Manifest
    categories: tuple[str, ...]


class Partition(BaseModel):
    """What `partition_dataset` returns (DESIGN artifact 2)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    table: Manifest
    stats: Manifest
    clients: tuple[ClientImages, ...]
    skipped_clients: tuple[str, ...] = ()


class IndexedDataset(BaseModel):
    """What `index_dataset` returns."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: Manifest
    categories: tuple[str, ...]
    truth_sha256: dict[str, str] = Field(description="category -> SHA-256 over its masks and defects_config.json")
    test_images: dict[str, Manifest] = Field(description="category -> its readable test images, where it has any")
    n_set_aside: int = Field(ge=0, description="images that cannot be read")
    reading: Reading = Field(AS_EARLIER, description="how their files become pixels")
    thumbnails: Manifest | None = Field(None, description="of all readable images, from which near copies are found")
    groups: Manifest | None = Field(None, description="IMAGE_GROUPS of all readable images, with dataset.group")


class PreparedDataset(BaseModel):
    """What the first steps of a run make of its data set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    indexed: IndexedDataset
    validation: Manifest
    partition: Partition


class ClientUploads(BaseModel):
    """What `select_client_coreset` returns: what leaves the station, and the provenance that stays."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    client_id: str
    uploads: tuple[UploadManifest, ...]
    provenance: tuple[Manifest, ...]
    manifest_bytes: int = Field(0, ge=0, description="of the file that a station published; 0: there is none")


class RegionalMerge(BaseModel):
    """How a bank was merged in two levels, and how far a client's patch may lie from it; distances, not squared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    regions: int = Field(ge=1)
    rows_sent: int = Field(ge=0)
    rows_of_regions: int = Field(ge=0, description="what was left of them for the server to merge")
    peak_rows: int = Field(ge=0, description="most rows held at a time")
    client_radius: float = Field(ge=0, description="largest of any client, over its own patches")
    region_radius: float = Field(ge=0, description="largest of any region, over the rows that its clients sent")
    server_radius: float = Field(ge=0, description="over the regions' rows")
    radius_bound: float = Field(ge=0, description="their sum: no patch of any client lies further from the bank")


class BankManifest(Manifest):
    """A memory bank of one category, or of all (`bank` is then GLOBAL_BANK)."""

    bank: str
    dim: int = Field(ge=1)
    regional: RegionalMerge | None = Field(None, description="with aggregation.regions")


class ScoredCategory(BaseModel):
    """What `score_category` returns: maps on the patch grid, and the images' scores."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    category: str
    maps: Manifest
    scores: Manifest
    cells: Cells | None = None  # where the maps' cells look; None, of earlier versions: in the middle of their shares
    search_recall: float | None = None  # share of the true nearest rows that an approximate search found; None: exact


class MeasuredCategory(BaseModel):
    """What `measure_category` returns: metrics by half of the test set, a table, curves, the images' counts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    category: str
    metrics: Manifest
    table: Manifest
    curves: Manifest
    sample: Manifest | None = Field(None, description="per-image counts, from which paired intervals are made")


class MeasuredBanks(BaseModel):
    """What banks score on the test images of their categories."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scored: tuple[ScoredCategory, ...] = ()
    measured: tuple[MeasuredCategory, ...] = ()
    features: tuple[Manifest, ...] = ()  # PATCH_FEATURES of the test images


class ExperimentResult(BaseModel):
    """What an experiment's flow ends with; everything else is found from here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    experiment: str
    run_directory: str
    metrics: Manifest
    banks: tuple[BankManifest, ...]
    failed_clients: dict[str, str] = {}
    scored: tuple[ScoredCategory, ...] = ()  # maps and scores of the test images; none where clients are alone


class LocalClient(MeasuredBanks):
    """One client's own banks, and what they score on the test images of its categories."""

    client_id: str
    banks: tuple[BankManifest, ...]
    calibration: tuple[Manifest, ...] = ()  # CALIBRATION_SCORES of its own normal images by its own banks
