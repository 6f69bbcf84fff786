"""The test: anomaly maps and metrics of every category that has test images and a bank."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import get_run_logger

from data_contracts.manifests import (
    GLOBAL_BANK,
    BankManifest,
    IndexedDataset,
    MeasuredBanks,
)
from data_contracts.settings import BackboneSettings, EvaluationSettings, ScoringSettings
from flows.steps.run import Run
from flows.steps.running import submit
from tasks.evaluation import extract_test_features, measure_category, score_category
from tasks.stage import on_store


def measure_banks(
    run: Run,
    indexed: IndexedDataset,
    banks: Sequence[BankManifest],
    backbone: BackboneSettings,
    *,
    settings: EvaluationSettings | None = None,
) -> MeasuredBanks:
    """Anomaly maps and metrics of every category that has test images and a bank; `settings` are the run's own."""
    config, place = run.config, run.place
    by_name = {bank.bank: bank for bank in banks}
    bank_of = {c: by_name.get(GLOBAL_BANK) or by_name.get(c) for c in indexed.test_images}
    categories = [category for category, bank in bank_of.items() if bank is not None]
    for category in sorted(set(indexed.categories) - set(categories)):
        get_run_logger().warning("category %s has no test images or no memory bank and is not measured", category)
    with run.clock.stage("test features"):
        features = {
            category: submit(
                run.runner,
                on_store(extract_test_features, place),
                test_images=indexed.test_images[category],
                category=category,
                settings=backbone,
                size=config.preprocessing.size(category),
                reading=indexed.reading.only([category]),
                place=place,
            )
            for category in categories
        }
        tables = [future.result() for future in features.values()]
    own = settings is None and config.federated.mode != "local_only"  # not what is measured beside the run's figures
    if own:
        run.done(f"test features: {len(categories)} categories")
    with run.clock.stage("score"):
        scored = {
            category: submit(
                run.runner,
                on_store(score_category, place),
                test_images=indexed.test_images[category],
                patch_features=features[category],
                bank=bank_of[category],
                category=category,
                settings=ScoringSettings.of(config),
                place=place,
            )
            for category in categories
        }
        maps = [future.result() for future in scored.values()]
    if own:
        run.done(f"scores: {len(categories)} categories")
    with run.clock.stage("measure"):
        measured = [
            submit(
                run.runner,
                on_store(measure_category, place),
                test_images=indexed.test_images[category],
                truth_sha256=indexed.truth_sha256[category],
                scored=scored[category],
                category=category,
                settings=settings or EvaluationSettings.of(config),
                on_bad_image=config.dataset.on_bad_image,
                groups=indexed.groups,
                place=place,
            )
            for category in categories
        ]
        found = MeasuredBanks(scored=maps, measured=[future.result() for future in measured], features=tables)
    if own:
        run.done(f"metrics: {len(categories)} categories")
    return found
