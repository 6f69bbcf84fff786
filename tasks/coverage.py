"""Task that runs at a client: how far its own patches lie from the final bank."""

from __future__ import annotations

from data_contracts.manifests import BankManifest, Manifest
from data_contracts.settings import Place
from pipeline_lib import bank_coverage
from pipeline_lib.configuration import hardware
from tasks.stage import open_store, stage


@stage("measure-bank-coverage", run_name="coverage-{client_id}")
def measure_bank_coverage(
    patch_features: Manifest, banks: list[BankManifest], client_id: str, place: Place
) -> Manifest:
    """Quantiles of the distances by category; which patch lies where stays with the client."""
    store = open_store(place)
    found = bank_coverage.client_coverage(
        store.read_table(patch_features),
        store,
        {bank.bank: store.read_arrays(bank)["features"] for bank in banks},
        device=hardware.pick_device(place.device),
    )
    return store.write_json("bank_coverage", {name: values.model_dump(mode="json") for name, values in found.items()})
