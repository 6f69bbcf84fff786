"""A federation's rounds in the run directory: the state of each by manifests, its banks, and what they score.

rounds/round_001.json holds what was accepted, failed and refused with the manifests of uploads, provenance and banks;
rounds/round_001/<bank>.npz the banks after the round. Written for several rounds alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from data_contracts.federation import FederationRound
from data_contracts.manifests import MeasuredCategory
from data_contracts.results import MetricsDocument
from pipeline_lib.metrics.category import mean_metrics
from pipeline_lib.results.documents import read_categories
from pipeline_lib.storage.artifact_store import ArtifactStore
from pipeline_lib.storage.files import copy_artifact, safe_name, write_json_file

ROUNDS_DIRECTORY = "rounds"


def write_rounds(out: Path, store: ArtifactStore, rounds: Sequence[FederationRound]) -> None:
    """Write the state and the banks of each round; what a run with more rounds left there before is removed."""
    directory = out / ROUNDS_DIRECTORY
    for old in [*directory.glob("round_*.json"), *directory.glob("round_*/*.npz")]:
        old.unlink()
    for one in rounds if len(rounds) > 1 else ():
        name = f"round_{one.round:03d}"
        write_json_file(directory / f"{name}.json", one.model_dump(mode="json"))
        for bank in one.banks:
            copy_artifact(store, bank, directory / name / f"{safe_name(bank.bank)}.npz")


def fill_round_means(
    documents: Mapping[str, MetricsDocument], measured: Sequence[Sequence[MeasuredCategory]], store: ArtifactStore
) -> None:
    """Set the mean of each round's metrics in the documents, on the document's own subset of the test images.

    `measured`: the categories as measured after each round but the last, whose mean is the document's own.
    """
    by_round = [read_categories(categories, store)[0] for categories in measured]
    for subset, document in documents.items():
        federation = document.federation
        if not federation.rounds:
            continue
        means = [mean_metrics(categories[subset].values()) for categories in by_round] + [document.mean]
        rounds = [one.model_copy(update={"mean": mean}) for one, mean in zip(federation.rounds, means, strict=True)]
        document.federation = federation.model_copy(update={"rounds": rounds})
