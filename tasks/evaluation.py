"""Tasks on test images: features, anomaly maps and scores, metrics."""

from __future__ import annotations

import numpy as np
import pandas as pd

from data_contracts.manifests import BankManifest, Manifest, MeasuredCategory, ScoredCategory
from data_contracts.settings import BackboneSettings, EvaluationSettings, Place, Reading, ScoringSettings
from data_contracts.tables import CURVES, IMAGE_SCORES, METRICS_TABLE, PATCH_FEATURES
from pipeline_lib.bank import memory_bank, scoring
from pipeline_lib.configuration import hardware
from pipeline_lib.dataset.groups import assignment as group_assignment
from pipeline_lib.features import extraction
from pipeline_lib.metrics import evaluation
from tasks.caching.code_version import code_version
from tasks.progress import progress_log
from tasks.stage import open_store, stage


@stage("extract-test-features", run_name="extract-test-{category}")
def extract_test_features(
    test_images: Manifest,
    category: str,
    settings: BackboneSettings,
    size: tuple[int, int],
    reading: Reading,
    place: Place,
) -> Manifest:
    """Patch features of a category's test images (DESIGN artifact 3)."""
    store = open_store(place)
    rows = store.read_table(test_images)
    table = extraction.extract_features(
        extraction.image_rows(rows, place.data_root),
        store,
        extraction.shared_extractor(settings, hardware.pick_device(place.device)),
        {category: size},
        reading=reading,
        version=code_version("pipeline_lib.features.extraction"),
        batch_size=place.batch_size,
        num_workers=place.num_workers,
        remade_from=None if place.keep_features else place.data_root,
        progress=progress_log(f"{category}: test images extracted"),
    )
    return store.write_table("patch_features", table, PATCH_FEATURES)


@stage("score-category", run_name="score-{category}")
def score_category(
    test_images: Manifest,
    patch_features: Manifest,
    bank: BankManifest,
    category: str,
    settings: ScoringSettings,
    place: Place,
) -> ScoredCategory:
    """Anomaly maps and image scores of a category's test images (DESIGN artifact 6)."""
    store = open_store(place)
    rows = store.read_table(test_images)
    model = memory_bank.MemoryBank(
        store.read_arrays(bank)["features"],
        use_faiss=settings.use_faiss,
        search=settings.search,
        seed=settings.seed,
        device=hardware.pick_device(place.device),
    )
    table_of_features = store.read_table(patch_features)
    scored = scoring.score_images(
        table_of_features, store, model, settings, progress=progress_log(f"{category}: images scored")
    )
    maps = {"maps": scored.maps, "image_ids": np.array(scored.image_ids, dtype=np.str_)}
    table = pd.DataFrame({"image_id": scored.image_ids, "score": scored.scores}).merge(rows, on="image_id")
    return ScoredCategory(
        category=category,
        maps=store.write_arrays("anomaly_maps", maps, rows=len(scored.maps)),
        cells=scored.cells,
        scores=store.write_table("image_scores", table, IMAGE_SCORES),
        search_recall=scoring.search_recall(table_of_features, store, model),
    )


@stage("measure-category", run_name="measure-{category}")
def measure_category(
    test_images: Manifest,
    truth_sha256: str,
    scored: ScoredCategory,
    category: str,
    settings: EvaluationSettings,
    on_bad_image: str,
    groups: Manifest | None,
    place: Place,
) -> MeasuredCategory:
    """Metrics of one category on all of test and on its halves (DESIGN artifact 7)."""
    store = open_store(place)
    rows = store.read_table(test_images)
    group_of = group_assignment.stored_groups(store, groups)
    maps, scores_table = store.read_arrays(scored.maps)["maps"], store.read_table(scored.scores)
    loaders, scores = evaluation.stored_maps(rows, maps, scores_table, settings.smoothing_sigma, scored.cells)
    result = evaluation.evaluate_category(
        rows, place.data_root, loaders, scores, settings, on_bad_image=on_bad_image, group_of=group_of
    )
    document = {subset: metrics.model_dump(mode="json") for subset, metrics in result.metrics.items()}
    return MeasuredCategory(
        category=category,
        metrics=store.write_json("metrics_document", {"subsets": document, "warnings": result.warnings}),
        table=store.write_table("metrics_table", result.table, METRICS_TABLE),
        curves=store.write_table("curves", result.curves, CURVES),
        sample=store.write_arrays(
            "image_sample", result.sample.to_arrays(), rows=len(result.sample.image_ids), compressed=True
        ),
    )
