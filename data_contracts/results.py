"""`metrics.json`: the document that a run and `fedpatch evaluate` write. An undefined metric is null.

`METRICS` are the figures by name; tables, comparisons and charts loop over them or over a part of them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from data_contracts.config import HEADLINE_FPR_LIMIT, Promise
from data_contracts.manifests import RegionalMerge

SUBSETS = ("all", "development", "report")
"""Of the test images: all of them, and the two halves."""
SUBSET_TITLES = {"development": "development half", "report": "report half", "all": "all of test"}
HALVES_EXPLAINED = (
    "development half: the SHA-256 of the image begins with an even hex digit",
    "report half:      the others; settings are chosen on the development half alone",
)
METRICS_FILES = {"all": "metrics.json", "development": "metrics_development.json", "report": "metrics_report.json"}
"""Of a run directory, by subset."""


class MetricValues(BaseModel):
    """The metrics of one set of test images; all in [0, 1]."""

    model_config = ConfigDict(extra="forbid")

    image_auroc: float | None = None
    image_ap: float | None = None
    pixel_auroc: float | None = None
    auc_spro: dict[str, float | None] = Field(default_factory=dict, description="FPR limit as text -> area / limit")
    auc_spro_chance: dict[str, float | None] = Field(
        default_factory=dict, description="the same of a map of noise, exactly, from areas of masks and saturation"
    )
    unmarked_image_auroc: float | None = Field(
        None,
        description="image AUROC with defective images scored by their highest score well away from every mask: what "
        "of it has nothing to do with defects; about 0.5 where nothing has",
    )
    tpr_at_tnr: dict[str, float | None] = Field(
        default_factory=dict, description="true negative rate as text (0.99, 0.95, 0.9) -> true positive rate"
    )
    n_good: int = 0
    n_defective: int = 0
    ci95: dict[str, tuple[float, float] | None] = Field(
        default_factory=dict,
        description="95 % intervals of image_auroc and auc_spro_0.05 over draws of test images, or of their groups; "
        "empty with evaluation.bootstrap: 0",
    )


class Metric(NamedTuple):
    """One figure of `MetricValues`, by the names that it has."""

    key: str  # in ci95, metrics.parquet and comparison.json
    title: str  # in tables for people
    field: str  # of MetricValues
    part: str = ""  # where the field holds several: which

    def of(self, values: MetricValues) -> float | None:
        """In [0, 1]; None where it is undefined."""
        found = getattr(values, self.field)
        value: float | None = found.get(self.part) if self.part else found
        return value

    def interval(self, values: MetricValues) -> tuple[float, float] | None:
        """Its 95 % interval, where the values have one."""
        return values.ci95.get(self.key)

    def chance(self, values: MetricValues) -> float | None:
        """What an AUC-sPRO of these images is for a map of noise; None for other figures and earlier runs."""
        return values.auc_spro_chance.get(self.part) if self.field == "auc_spro" else None


def auc_spro(limit: str) -> Metric:
    """AUC-sPRO up to a false positive rate, as text."""
    return Metric(f"auc_spro_{limit}", f"AUC-sPRO@{limit}", "auc_spro", limit)


HEADLINE_LIMIT = str(HEADLINE_FPR_LIMIT)
IMAGE_AUROC = Metric("image_auroc", "image AUROC", "image_auroc")
IMAGE_AP = Metric("image_ap", "image AP", "image_ap")
AUC_SPRO = auc_spro(HEADLINE_LIMIT)
AUC_SPRO_AS_PRO = auc_spro("0.3")  # the limit that AUPRO has
PIXEL_AUROC = Metric("pixel_auroc", "pixel AUROC", "pixel_auroc")
UNMARKED_AUROC = Metric("unmarked_image_auroc", "unmarked AUROC", "unmarked_image_auroc")
METRICS = (IMAGE_AUROC, UNMARKED_AUROC, IMAGE_AP, AUC_SPRO, PIXEL_AUROC)
COMPARED = (IMAGE_AUROC, IMAGE_AP, AUC_SPRO)
"""What experiments are compared by."""
TABLED = (IMAGE_AUROC, AUC_SPRO, AUC_SPRO_AS_PRO, PIXEL_AUROC)
"""What a table beside other methods has."""
HEADLINES = (IMAGE_AUROC, AUC_SPRO)
"""What every run has intervals of, and charts show."""


class ThresholdResult(BaseModel):
    """A threshold from normal training images, what it promises, and what came of it on test images.

    All rates in [0, 1]; an image is called defective when its score is above the threshold.
    """

    model_config = ConfigDict(extra="forbid")

    threshold: float | None = None
    target_rate: float | None = Field(None, description="false-alarm rate that was asked for")
    promise: Promise = Field("rate", description="which of the next two target_rate is a limit of")
    nominal_rate: float | None = Field(None, description="expected false-alarm rate if test is like training")
    upper_bound: float | None = Field(
        None,
        description="one-sided bound of the false-alarm rate of this threshold; null in earlier results: fewer normal "
        "images than a bound at target_rate needs",
    )
    confidence: float = 0.95
    n_calibration: int = 0
    n_groups: int | None = Field(
        None, description="with dataset.group: groups that the calibration scores are of, which rates and bound go by"
    )
    note: str = ""
    false_alarms: int = 0
    n_good: int = 0
    realised_rate: float | None = None
    realised_ci95: tuple[float, float] | None = Field(
        None, description="as this and found_ci95 would be for one image of each group"
    )
    excess_p_value: float | None = Field(
        None, description="chance of so many false alarms or more if test is like training; small: drift"
    )
    found: int = 0
    n_defective: int = 0
    found_rate: float | None = None
    found_ci95: tuple[float, float] | None = None

    @model_serializer(mode="wrap")
    def _as_earlier_without_groups(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without the keys that earlier results did not have, where they say what those meant."""
        earlier = {"promise": "rate", "n_groups": None}
        values: dict[str, Any] = handler(self)
        return {key: value for key, value in values.items() if key not in earlier or value != earlier[key]}


class Decision(ThresholdResult):
    """The threshold of a category, and those of each client's own normal images."""

    by_client: dict[str, ThresholdResult] = {}


class CategoryMetrics(MetricValues):
    """One category, also split by defect name, test folder and defect group."""

    by_defect: dict[str, MetricValues] = {}
    by_folder: dict[str, MetricValues] = {}
    by_group: dict[str, MetricValues] = {}
    auc_spro_weighted: dict[str, float | None] | None = Field(None, description="with evaluation.defect_weights")
    decision: Decision | None = Field(None, description="with calibration scores")
    bad_saturation_channels: int = Field(0, description="channels whose saturation area came out as 0 and counts as 1")

    @property
    def threshold(self) -> float | None:
        """Of the decision in use: that of all normal images together. None without one."""
        return None if self.decision is None else self.decision.threshold


class Coverage(BaseModel):
    """Distances of one client's training patches of a category to the nearest row of the final bank.

    In feature units, over all of its patches, its own rows in the bank included.
    """

    model_config = ConfigDict(extra="forbid")

    patches: int
    mean: float
    q50: float
    q90: float
    q95: float | None = Field(None, description="null in runs of earlier versions")
    q99: float
    covering_radius: float = Field(description="the largest")


class ClientSummary(BaseModel):
    """What one client had and sent."""

    model_config = ConfigDict(extra="forbid")

    train_images: int
    patches: int
    coreset_rows: int
    upload_bytes: int
    raw_image_bytes: int
    covering_radius: float | None = None
    raw_pixel_bytes: int = Field(0, description="of its own images, decoded: width x height x 3")
    coverage: dict[str, Coverage] = Field({}, description="by category, with evaluation.coverage")
    download_bytes: int = Field(0, description="the banks that came back, float32, over all rounds")


class RoundSummary(BaseModel):
    """What one of several rounds did, and how good the banks are after it (means over categories, all of test)."""

    model_config = ConfigDict(extra="forbid")

    round: int
    delivered: list[str] = Field([], description="clients with an accepted upload, or with nothing new to send")
    failed: dict[str, str] = {}
    refused: dict[str, str] = {}
    upload_rows: int
    upload_bytes: int
    download_bytes: int
    bank_rows: dict[str, int]
    covering_radius: dict[str, float] = Field(
        {}, description="client -> largest distance of an own patch to what it sent and what the banks covered before"
    )
    mean: MetricValues = MetricValues()


class FederationSummary(BaseModel):
    """The clients and the bank; for a centralized run the one client is `centralized`."""

    model_config = ConfigDict(extra="forbid")

    mode: str = "centralized"
    clients: dict[str, ClientSummary] = {}
    failed_clients: dict[str, str] = Field({}, description="client -> why nothing of it is in the banks")
    refused_uploads: dict[str, str] = Field({}, description="client -> why the server refused an upload of it")
    skipped_clients: list[str] = []
    bank_rows: int = Field(0, description="of all banks; local_only: of each category's bank, mean over clients")
    bank_rows_by_category: dict[str, int] = {}
    banks_without_choice: list[str] = Field(
        [], description="banks that hold every uploaded row: aggregation.strategy had nothing to decide"
    )
    regional: dict[str, RegionalMerge] = Field({}, description="bank -> its merge in two levels; aggregation.regions")
    bytes_left_by_kind: dict[str, dict[str, int]] = Field(
        {},
        description="of a federated run: client, also one that failed -> bytes that left it over all rounds: coresets, "
        "refused_coresets, manifests, calibration_scores, coverage; of stations also figures (scores and counts of "
        "test images). upload_bytes of a client are its coresets",
    )
    rounds: list[RoundSummary] = Field([], description="empty for one round")
    pooling_error: float | None = Field(
        None,
        description="of stations: pixel AUROC and AUC-sPRO are off by at most this from all test images at one place",
    )


class MetricsDocument(BaseModel):
    """The whole of `metrics.json`."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = 1
    experiment: str
    config_hash: str
    seed: int
    subset: str = Field("all", description="all | development | report (halves of the test set by sha256)")
    categories: dict[str, CategoryMetrics] = {}
    mean: MetricValues = MetricValues()
    federation: FederationSummary = FederationSummary()
    local_clients: dict[str, dict[str, CategoryMetrics]] = Field(
        {}, description="local_only: client -> category -> what it scores alone; `categories` are means over clients"
    )
    timings_s: dict[str, float] = {}
    peak_rss_mb: float | None = None
    warnings: list[str] = []
    regressions: list[str] = Field(
        [], description="of a watched benchmark: what is worse than in its last good run, see BenchmarkConfig.history"
    )
