"""The pictures of a run's report, drawn once for the same maps, images, banks and code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from data_contracts.config import ExperimentConfig, canonical_hash
from data_contracts.errors import ArtifactError
from data_contracts.manifests import GLOBAL_BANK, BankManifest, IndexedDataset, Manifest, ScoredCategory
from data_contracts.settings import Place
from pipeline_lib.report.explainer import BankExplainer, bank_explainers
from pipeline_lib.report.gallery import CategoryGallery, category_gallery
from pipeline_lib.report.gallery_file import gallery_from_json, gallery_to_json, is_complete
from pipeline_lib.report.why import tile_budget
from pipeline_lib.storage.artifact_store import ArtifactStore
from tasks.caching.code_version import code_version
from tasks.caching.policy import canonical_value
from tasks.stage import open_store

SPACE = "galleries"


def draw_galleries(
    config: ExperimentConfig,
    indexed: IndexedDataset,
    scored: Sequence[ScoredCategory],
    banks: Sequence[BankManifest],
    features: Sequence[Manifest],
    provenance: Mapping[str, pd.DataFrame],
    store: ArtifactStore,
    place: Place,
    thresholds: Mapping[str, float | None],
) -> tuple[list[CategoryGallery], list[Manifest]]:
    """Each category's gallery, and what of them is in the store; one category's maps in memory at a time.

    thresholds: category -> the threshold of its decision, where there is one.
    A gallery is taken from the store where everything it shows is unchanged and its file is intact; one in which an
    image could not be read is not kept.
    """
    explainers: dict[str, BankExplainer] | None = None
    galleries, kept = [], []
    for category in scored:
        threshold = thresholds.get(category.category)
        key = _key(config, indexed, category, len(scored), banks, features, provenance, threshold)
        manifest = _stored(store, key)
        if manifest is None:
            if explainers is None:
                explainers = _explainers(open_store(place), indexed, banks, features, provenance, place)
            explainer = explainers.get(GLOBAL_BANK) or explainers.get(category.category)
            gallery = _draw(config, indexed, category, len(scored), explainer, store, place, threshold)
            n_explained = tile_budget(len(scored))[0] if explainer else 0
            has_provenance = category.category in provenance or GLOBAL_BANK in provenance
            if is_complete(gallery, n_explained=n_explained, has_provenance=has_provenance):
                manifest = store.write_bytes("gallery", gallery_to_json(gallery), suffix="json")
                store.remember(SPACE, key, manifest.model_dump(mode="json"))
        else:
            gallery = gallery_from_json(store.read_bytes(manifest))
        galleries.append(gallery)
        kept += [manifest] if manifest else []
    return galleries, kept


def _key(
    config: ExperimentConfig,
    indexed: IndexedDataset,
    category: ScoredCategory,
    n_categories: int,
    banks: Sequence[BankManifest],
    features: Sequence[Manifest],
    provenance: Mapping[str, pd.DataFrame],
    threshold: float | None,
) -> str:
    """Of all that the pictures depend on; the index holds the SHA-256 of every image."""
    shown = [indexed.index, indexed.truth_sha256.get(category.category), category, list(banks), list(features)]
    origins = {
        bank: int(pd.util.hash_pandas_object(rows, index=False).sum()) for bank, rows in sorted(provenance.items())
    }
    read_as = indexed.reading.model_dump()
    settings = [config.dataset.layout, config.inference.smoothing_sigma, n_categories, origins, read_as, threshold]
    code = code_version("pipeline_lib.report.gallery_file", "pipeline_lib.report.explainer")
    return canonical_hash([code, canonical_value(shown), settings])


def _stored(store: ArtifactStore, key: str) -> Manifest | None:
    """The gallery's manifest where there is one whose file is intact."""
    value = store.recall(SPACE, key)
    if value is None:
        return None
    try:
        manifest = Manifest.model_validate(value)
        store.verify(manifest)
    except (ArtifactError, ValueError):
        return None
    return manifest


def _explainers(
    store: ArtifactStore,
    indexed: IndexedDataset,
    banks: Sequence[BankManifest],
    features: Sequence[Manifest],
    provenance: Mapping[str, pd.DataFrame],
    place: Place,
) -> dict[str, BankExplainer]:
    tables = [store.read_table(manifest) for manifest in features]
    return bank_explainers(
        store,
        banks,
        pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({"image_id": []}),
        provenance=provenance,
        index=store.read_table(indexed.index),
        data_root=place.data_root,
    )


def _draw(
    config: ExperimentConfig,
    indexed: IndexedDataset,
    category: ScoredCategory,
    n_categories: int,
    explainer: BankExplainer | None,
    store: ArtifactStore,
    place: Place,
    threshold: float | None,
) -> CategoryGallery:
    return category_gallery(
        store.read_arrays(category.maps)["maps"],
        store.read_table(category.scores),
        place.data_root,
        layout=config.dataset.layout,
        reading=indexed.reading.of(category.category),
        sigma_px=config.inference.smoothing_sigma,
        n_categories=n_categories,
        explainer=explainer,
        cells=category.cells,
        threshold=threshold,
    )
