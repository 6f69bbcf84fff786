"""What an experiment at one place comes to: its figures, and the files that need the images at hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa

from data_contracts.config import ExperimentConfig
from data_contracts.federation import Federation
from data_contracts.manifests import Manifest, MeasuredBanks, PreparedDataset
from data_contracts.settings import BackboneSettings
from data_contracts.tables import CALIBRATION_SCORES, CURVES, IMAGE_SCORES
from pipeline_lib.dataset.groups import assignment
from pipeline_lib.features.backbone import padding_notes
from pipeline_lib.maps import saved_maps
from pipeline_lib.metrics import decisions
from pipeline_lib.results import documents as results_documents
from pipeline_lib.results import image_samples, local, provenance, rounds, run_directory, tables
from pipeline_lib.results import warnings as results_warnings
from pipeline_lib.results.outside_masks import outside_mask_warnings
from pipeline_lib.storage.artifact_store import ArtifactStore

MAPS = "maps"


def experiment_figures(
    store: ArtifactStore,
    config: ExperimentConfig,
    backbone: BackboneSettings,
    dataset: PreparedDataset,
    federation: Federation,
    measured: Sequence[MeasuredBanks],
    timings_s: Mapping[str, float],
) -> run_directory.RunFigures:
    """Metrics of all of test and of its halves, decisions, and what a reader must know.

    measured: what the banks of each round score; of clients that train alone `federation.alone` has it.
    """
    last = measured[-1] if measured else MeasuredBanks()
    pixel_bytes = results_documents.pixel_bytes_by_client(dataset.partition, store)
    summary = results_documents.federation_summary(
        config.federated.mode, federation, dataset.partition, pixel_bytes=pixel_bytes
    )
    covered = {client: store.read_json(manifest) for client, manifest in federation.coverage.items()}
    summary = results_documents.with_coverage(summary, covered)
    summary = results_documents.with_bytes_left(summary, results_documents.scores_and_coverage_left(federation, store))
    warnings = results_warnings.run_warnings(
        dataset.indexed,
        backbone,
        federation.failed,
        dataset.partition.skipped_clients,
        federation.incidents,
        search_recall={category.category: category.search_recall for category in last.scored},
    )
    if (groups := dataset.indexed.groups) is not None:
        frames = [store.read_table(table) for table in (dataset.indexed.index, groups, dataset.partition.table)]
        warnings += results_warnings.group_warnings(*frames)
    sizes = {category: config.preprocessing.size(category) for category in dataset.indexed.categories}
    warnings += [*padding_notes(backbone, sizes), *tables.choice_warnings(config, summary)]
    documents = results_documents.build_documents(config, last.measured, store, summary, timings_s, warnings)
    rounds.fill_round_means(documents, [one.measured for one in measured[:-1]], store)
    scores = _joined(store, (category.scores for category in last.scored), IMAGE_SCORES)
    calibration = _joined(store, federation.calibration, CALIBRATION_SCORES)
    group_of = assignment.stored_groups(store, groups)
    decisions.add_decisions(documents, calibration, scores, config.decision, group_of=group_of)
    if federation.alone:
        local.fill_local_results(documents, federation.alone, store, config.decision, group_of=group_of)
    unknown_names = results_warnings.name_warnings(config, dataset.indexed.categories, documents["all"])
    outside_masks = outside_mask_warnings(documents["all"])
    for document in documents.values():
        document.warnings = [*outside_masks, *document.warnings, *unknown_names]
    return run_directory.RunFigures(
        documents=documents,
        tables=[store.read_table(category.table) for category in last.measured],
        curves=_joined(store, (category.curves for category in last.measured), CURVES),
        scores=scores,
        calibration=calibration,
    )


def write_experiment_files(
    out: Path,
    store: ArtifactStore,
    config: ExperimentConfig,
    dataset: PreparedDataset,
    federation: Federation,
    last: MeasuredBanks,
) -> dict[str, pd.DataFrame]:
    """Index, validation and partition, counts of each test image, maps where asked for, what clients have alone.

    Returns where the rows of each bank came from, which is written too: all clients of an experiment are here.
    """
    run_directory.write_dataset_files(out, store, dataset)
    local.write_local_files(out, store, federation.alone)
    image_samples.write_samples(out, store, last.measured, federation.alone)
    if config.evaluation.save_maps != "none":
        index = store.read_table(dataset.indexed.index)
        for category in last.scored:
            grid_maps = store.read_arrays(category.maps)["maps"]
            of_images = store.read_table(category.scores)
            maps = saved_maps.stored_image_maps(grid_maps, of_images, index, category.cells)
            saved_maps.write_category_maps(
                out / MAPS,
                category.category,
                maps,
                map_format=config.evaluation.save_maps,
                sigma_px=config.inference.smoothing_sigma,
            )
    if config.federated.mode == "local_only":
        return {}
    return provenance.write_bank_provenance(out, store, federation.uploads, federation.banks)


def _joined(store: ArtifactStore, manifests: Iterable[Manifest], schema: pa.Schema) -> pd.DataFrame:
    frames = [store.read_table(manifest) for manifest in manifests]
    frames = [frame for frame in frames if len(frame)] or frames[:1]  # an empty one may lack the column group
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=schema.names)
