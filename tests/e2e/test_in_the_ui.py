"""What a person does and sees in the UI: start an experiment by the form, follow its clients, read its results."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline_lib.synthetic import synthesize_dataset
from tests.dataset_fixtures import write_tiny_autovi
from tests.e2e.browser import field, give_optional_path, keep, open_page
from tests.e2e.prefect_stack import Stack

pytestmark = pytest.mark.e2e


def test_an_experiment_is_started_by_the_form_and_its_results_are_there(stack: Stack, tmp_path: Path) -> None:
    root = synthesize_dataset(
        tmp_path / "data", categories=["pipe_clip"], images=12, scale=0.4, seed=int(time.time()) % 10_000
    )
    name = "federated-experiment/on-demand"
    deployment = stack.api(f"/deployments/name/{name}")
    before = {run["id"] for run in stack.api("/flow_runs/filter", {"limit": 200})}
    with open_page(stack, f"deployments/deployment/{deployment['id']}") as page:
        page.get_by_role("button", name="Run").first.click()
        page.get_by_role("menuitem", name="Custom run").click()
        field(page, "Backbone").fill("efficientnet_lite0")
        field(page, "Num Clients").fill("3")
        give_optional_path(page, "Root", str(root))
        give_optional_path(page, "Out", str(tmp_path / "run"))
        field(page, "Backbone").scroll_into_view_if_needed()
        page.get_by_text("Root (Optional)", exact=True).first.scroll_into_view_if_needed()
        keep(page, "ui_form")
        with page.expect_response(re.compile("create_flow_run")):  # a slow machine never sent it otherwise
            page.get_by_role("button", name="Submit").click()
        flow_run = stack.newest_run(of=name, besides=before)
    run = stack.wait_for(flow_run)
    assert run["state_type"] == "COMPLETED", run["state"]["message"]
    assert run["parameters"]["config"]["federated"]["num_clients"] == 3
    document = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert sorted(document["federation"]["clients"]) == ["client_0", "client_1", "client_2"]
    assert run["name"] == "experiment on data"
    check_artifacts(stack, flow_run, document)


def check_artifacts(stack: Stack, flow_run: str, document: dict[str, Any]) -> None:
    """The run's page shows results, clients, heat maps and a bar for each client, all at their end."""
    rows = stack.api("/artifacts/filter", {"flow_runs": {"id": {"any_": [flow_run]}}, "limit": 200})
    by_key = {row["key"]: row for row in rows}
    at_run = {key for key, row in by_key.items() if key and row["task_run_id"] is None}
    (category,) = document["categories"]
    assert at_run == {"summary", "results", "clients", f"heat-maps-{category.replace('_', '-')}"}
    bars = {key: row["data"] for key, row in by_key.items() if row["type"] == "progress"}
    assert bars == {f"{step}-client-{n}": 100.0 for step in ("extract", "coreset") for n in range(3)}
    shown = json.loads(by_key["clients"]["data"])
    assert [row["client"] for row in shown] == ["client_0", "client_1", "client_2"]
    with open_page(stack, f"runs/flow-run/{flow_run}") as page:
        page.get_by_role("tab", name="Artifacts").click()
        page.get_by_text("extract-client-0", exact=False).first.wait_for()
        keep(page, "ui_run_artifacts")
    for key, picture in (
        ("results", "ui_results"),
        ("clients", "ui_clients"),
        (f"heat-maps-{category.replace('_', '-')}", "ui_heat_maps"),
    ):
        with open_page(stack, f"artifacts/artifact/{by_key[key]['id']}") as page:
            page.get_by_text(re.compile(re.escape(key))).first.wait_for()
            if key.startswith("heat"):
                image = page.locator("img[src^='data:image']").first
                image.wait_for()
                assert image.evaluate("i => i.complete && i.naturalWidth") > 100
            else:
                page.get_by_text("client_0" if key == "clients" else category).first.wait_for()
            keep(page, picture)


def test_progress_of_the_clients_moves_while_they_work(stack: Stack, tmp_path: Path, config: dict[str, Any]) -> None:
    root = write_tiny_autovi(tmp_path / "more", train=120, good=2, defective=2, size=(640, 480), seed=11)
    values = {
        **config,
        "dataset": {"root": str(root)},
        "preprocessing": {"small_size": [320, 320]},
        "runtime": {**config["runtime"], "workers": 1},
    }
    flow_run = stack.run_by_name("federated-experiment/on-demand", values)
    seen: set[float] = set()
    query = {"flow_runs": {"id": {"any_": [flow_run]}}, "artifacts": {"type": {"any_": ["progress"]}}, "limit": 200}
    deadline = time.monotonic() + 150
    pictured = False
    while time.monotonic() < deadline:
        bars = {row["key"]: row["data"] for row in stack.api("/artifacts/filter", query)}
        seen.add(bars.get("extract-client-1", 0.0))
        if not pictured and 0 < bars.get("extract-client-1", 0.0) < 100:
            (bar,) = [row for row in stack.api("/artifacts/filter", query) if row["key"] == "extract-client-1"]
            with open_page(stack, f"artifacts/artifact/{bar['id']}") as page:
                page.get_by_text("client_1: images extracted").first.wait_for()
                keep(page, "ui_progress")
            pictured = True
        if stack.api(f"/flow_runs/{flow_run}")["state_type"] == "COMPLETED":
            break
        time.sleep(0.3)
    assert stack.wait_for(flow_run)["state_type"] == "COMPLETED"
    assert pictured
    assert len([value for value in seen if 0 < value < 100]) >= 1
