"""What the report says in words: the headline, warnings, and what was run on what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from data_contracts.config import InferenceConfig, ModelConfig
from data_contracts.results import HEADLINES, Decision, MetricsDocument
from data_contracts.validation import ValidationReport
from pipeline_lib.report.record import RunRecord
from pipeline_lib.results.outside_masks import outside_mask_warnings
from pipeline_lib.results.tables import ALARMS, THIN_CLASS, false_alarms, per_cent
from pipeline_lib.upload.volume import more_than_images


def headline(documents: Mapping[str, MetricsDocument]) -> list[tuple[str, str, str]]:
    """(name, value in per cent on all of test, what the report half gives) of each figure that the run has.

    Without defective images the share of good ones that are called defective, with its counts.
    """
    if (alarms := _false_alarms(documents["all"])) is not None:
        return [alarms]
    half = documents.get("report")
    here = _headline_values(documents["all"])
    there = _headline_values(half) if half is not None else {}
    return [
        (name, per_cent(value), f"report half: {per_cent(there.get(name))}" if there else "")
        for name, value in here.items()
        if value is not None
    ]


def _headline_values(document: MetricsDocument) -> dict[str, float | None]:
    """Means over categories; with thresholds in use the share of all defective images that they find."""
    mean = document.mean
    values = {f"{metric.title}, mean": metric.of(mean) for metric in HEADLINES}
    if decided := _in_use(document):
        n_defective = sum(one.n_defective for one in decided)
        return values | {"defective found": sum(one.found for one in decided) / n_defective if n_defective else None}
    return values | {"TPR at TNR 95, mean": mean.tpr_at_tnr.get("0.95")}


def _false_alarms(document: MetricsDocument) -> tuple[str, str, str] | None:
    """The one figure of test images that are all good; None where there are others, none, or no threshold."""
    if (found := false_alarms([*document.categories.values()])) is None:
        return None
    count, n_good, interval = found
    ends = f" (95 % interval {100 * interval[0]:.1f} to {100 * interval[1]:.1f} %)" if interval else ""
    return ALARMS, per_cent(count / n_good), f"{count} of {n_good}{ends}"


def _in_use(document: MetricsDocument) -> list[Decision]:
    """Of each category that has a threshold."""
    of_each = document.categories.values()
    return [values.decision for values in of_each if values.decision is not None and values.threshold is not None]


def plain_sentence(document: MetricsDocument) -> str:
    """The result for someone who inspects parts."""
    mean, n = document.mean, len(document.categories)
    if (only_good := _false_alarms(document)) is not None:
        return (
            f"All {mean.n_good} test images are good; of these the threshold calls {only_good[2]} defective. How many "
            "defects it misses is not known, and no other figure is defined: put known defective images into the data "
            "set, a folder for each kind, and run again."
        )
    categories = f"{n} {'category' if n == 1 else 'categories'}"
    start = f"{mean.n_good} good and {mean.n_defective} defective test images of {categories}. "
    if decided := _in_use(document):
        found = _of([one.found for one in decided], [one.n_defective for one in decided], "defective")
        alarms = _of([one.false_alarms for one in decided], [one.n_good for one in decided], "good")
        those = "" if len(decided) == n else f", where there is one ({len(decided)} of {categories}),"
        return start + f"The decision in use{those} finds {found} and calls {alarms} defective by mistake."
    caught = mean.tpr_at_tnr.get("0.95")
    if caught is None:
        return start + "Good and defective images are not both there, so no rate of found defects is given."
    over = ", as a mean over the categories" if n > 1 else ""
    return start + (
        f"With a threshold that lets 95 % of the good test images pass, {100 * caught:.0f} % of the defective ones "
        f"are found{over}."
    )


def _of(counts: Sequence[int], totals: Sequence[int], what: str) -> str:
    """3 of 20 good images (15.0 %)."""
    count, total = sum(counts), sum(totals)
    return f"{count} of {total} {what} images" + (f" ({per_cent(count / total)} %)" if total else "")


def loud_warnings(record: RunRecord) -> list[str]:
    """What makes the figures mean something else than they seem to."""
    found = []
    if record.backbone.weights_source == "random":
        found.append(
            f"RANDOM WEIGHTS: {record.backbone.backbone} is untrained. "
            f"The figures say nothing about a trained backbone."
        )
    found += [f"{text}." for text in outside_mask_warnings(record.document)]
    federation = record.document.federation
    if failed := federation.failed_clients:
        n_clients = len(failed) + len(federation.clients)
        found.append(f"{len(failed)} of {n_clients} clients failed and are not in the banks: {', '.join(failed)}.")
    volumes = {name: (one.upload_bytes, one.raw_image_bytes) for name, one in federation.clients.items()}
    if record.config.federated.mode == "federated" and (text := more_than_images(volumes)):
        found.append(f"{text[0].upper()}{text[1:]}.")
    if record.validation and (errors := record.validation.count("error")):
        plural = "s" if errors > 1 else ""
        found.append(f"Validation of the data set found {errors} error{plural}: figures may be wrong or missing.")
    return found


def quiet_warnings(record: RunRecord) -> list[str]:
    """The run's own warnings, images set aside, and classes that are too thin to rely on."""
    loud = outside_mask_warnings(record.document)
    found = [text for text in record.document.warnings if text not in loud]
    found += [
        f"{finding.path or finding.category} was set aside: {finding.message}"
        for finding in (record.validation.findings if record.validation else ())
        if finding.code == "unreadable_image"
    ]
    for name, values in record.document.categories.items():
        thin = [defect for defect, split in values.by_defect.items() if 0 < split.n_defective < THIN_CLASS]
        if 0 < values.n_defective < THIN_CLASS:
            found.append(f"{name} has only {values.n_defective} defective test images: its figures are rough")
        elif thin:
            found.append(f"{name}: fewer than {THIN_CLASS} defective test images of {', '.join(thin)}")
    return list(dict.fromkeys(found))


class Findings(NamedTuple):
    """What the validation found of one kind in one category, with one advice."""

    severity: str
    category: str
    kind: str
    advice: str
    lines: list[tuple[str, str]]  # path, message


def findings(report: ValidationReport) -> list[Findings]:
    """The findings of a data set's validation, those of a kind and an advice together, in their order."""
    found: dict[tuple[str, str, str, str], list[tuple[str, str]]] = {}
    for one in report.findings:
        key = (one.severity, one.category, one.code.replace("_", " "), one.advice)
        found.setdefault(key, []).append((one.path, one.message))
    return [Findings(*key, lines) for key, lines in found.items()]


def run_facts(record: RunRecord) -> list[tuple[str, str]]:
    """(name, value) of what was run and on what."""
    config, backbone, environment = record.config, record.backbone, record.environment
    federated, document = config.federated, record.document
    uploads = federated.mode != "centralized"
    division = federated.partitioning if record.validation else "each with images of its own"
    clients = f", {len(document.federation.clients)} clients delivered, {division}" if uploads else ""
    encoding = f"{config.upload.codec}, noise {config.upload.noise_sigma:g}"
    window = f"{backbone.neighborhood_size}x{backbone.neighborhood_size}"
    peak = document.peak_rss_mb
    facts = {
        "configuration": document.config_hash,
        "mode": federated.mode + clients,
        "seed": str(config.seed),
        "backbone": f"{backbone.backbone}, layers {', '.join(backbone.layers)}, mean over {window} neighbours",
        "weights": backbone.weights_source
        + (f", licence {backbone.weights_license}" if backbone.weights_license else ""),
        "weights SHA-256": backbone.weights_sha256,
        "normalization": f"mean {_numbers(backbone.mean)}, standard deviation {_numbers(backbone.std)}",
        "coreset": f"{config.model.subsampling}{_shards(config.model)}, "
        f"{100 * config.model.coreset_percentage:g} % of the patches{_means(config.model)}",
        "upload": encoding if federated.mode == "federated" else "nothing is uploaded",
        "aggregation": f"{config.aggregation.strategy}, bank {config.aggregation.bank_scope}"
        f"{_kept(record)}{_in_regions(record)}",
        "search": f"{config.inference.search}, image score {_image_score(config.inference)}",
        "Python": str(environment.get("python") or "unknown"),
        "system": str(environment.get("system") or "unknown"),
        "processor": _processor(environment),
        "GPU": str(environment.get("gpu") or "none"),
        "peak memory": "not measured" if peak is None else f"{peak:.0f} MB, of the process that ended the run",
    }
    if document.federation.pooling_error is not None:
        facts["pooled"] = f"pixel AUROC and AUC-sPRO to {document.federation.pooling_error:.1g}"
    if record.finished:
        facts["finished"] = record.finished
    return list(facts.items())


def _image_score(inference: InferenceConfig) -> str:
    if inference.image_score != "top_share":
        return inference.image_score
    return f"the mean of the highest {100 * inference.top_share:g} % of the patches"


def _shards(model: ModelConfig) -> str:
    return "" if model.shard_patches is None else f" in shards of about {model.shard_patches:,} patches"


def _means(model: ModelConfig) -> str:
    if model.rows == "picks":
        return ""
    return ", each the mean of its cell" + (f" after {model.lloyd_steps} Lloyd steps" if model.lloyd_steps > 1 else "")


def _kept(record: RunRecord) -> str:
    """Where the strategy made no difference."""
    federation = record.document.federation
    if not (banks := federation.banks_without_choice):
        return ""
    of_banks = "" if len(banks) == len(federation.bank_rows_by_category) else f" for {', '.join(banks)}"
    return f", nothing to decide{of_banks}: every uploaded row is kept"


def _in_regions(record: RunRecord) -> str:
    """How far a client's patch may lie from the bank, where it was merged in two levels; the loosest bank's."""
    regional = record.document.federation.regional
    if not regional:
        return ""
    bank, loosest = max(regional.items(), key=lambda item: item[1].radius_bound)
    of_bank = f" ({bank})" if len(regional) > 1 else ""
    return (
        f", merged in {loosest.regions} regions: no patch of any client lies further than {loosest.radius_bound:.3g} "
        f"from the bank{of_bank}: {loosest.client_radius:.3g} client + {loosest.region_radius:.3g} region + "
        f"{loosest.server_radius:.3g} server"
    )


def _processor(environment: Mapping[str, object]) -> str:
    name, cores, memory = (environment.get(key) or "unknown" for key in ("processor", "cores", "memory_gb"))
    return f"{name}, {cores} cores, {memory} GB of memory"


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values)
