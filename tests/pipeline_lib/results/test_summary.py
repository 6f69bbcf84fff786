"""The page that a run shows first: result, clients, heat maps, report, in this order, below the UI's limit."""

from __future__ import annotations

from pathlib import Path

from data_contracts.results import CategoryMetrics, ClientSummary, FederationSummary, MetricsDocument
from pipeline_lib.results.summary import PICTURES_BYTES, run_summary


def test_everything_is_there_in_order_and_large_pictures_are_left_out(tmp_path: Path) -> None:
    client = ClientSummary(train_images=3, patches=9, coreset_rows=2, upload_bytes=10, raw_image_bytes=20)
    document = MetricsDocument(
        experiment="iid",
        config_hash="0",
        seed=1,
        categories={"bolt": CategoryMetrics(image_auroc=0.9, n_good=4, n_defective=30)},
        federation=FederationSummary(
            mode="federated", clients={"a": client}, failed_clients={"b": "disk | gone"}, skipped_clients=["c"]
        ),
        warnings=["first", "second"],
    )
    sheets = [tmp_path / "bolt.jpg", tmp_path / "nut.jpg"]
    sheets[0].write_bytes(b"x" * 99)
    sheets[1].write_bytes(b"x" * PICTURES_BYTES)
    text = run_summary(document, tmp_path, sheets)
    said = [
        "## Result", "| bolt | 90.0 |", "- first\n- second", "## Clients", "| a | delivered |",
        "| b | failed: disk \\| gone | - |", "| c | skipped: no images |", "## Heat maps", "### bolt",
        "data:image/jpeg;base64,eHh4", "## Report", f"`{tmp_path}/report.html`",
    ]  # fmt: skip
    places = [text.find(words) for words in said]
    assert -1 not in places, said[places.index(-1)]
    assert places == sorted(places)
    assert "### nut" not in text
