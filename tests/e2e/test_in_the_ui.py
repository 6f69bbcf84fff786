"""What a person does and sees in the UI: start an experiment by the form, read its results."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline_lib.dataset.synthetic.dataset import synthesize_dataset
from tests.e2e.browser import field, give_optional_path, go_to, keep, open_page, open_section, submit
from tests.e2e.prefect_stack import Stack

pytestmark = pytest.mark.e2e


def test_an_experiment_is_started_by_the_form_and_its_results_are_there(stack: Stack, tmp_path: Path) -> None:
    root = synthesize_dataset(
        tmp_path / "data", categories=["pipe_clip"], images=12, scale=0.4, seed=int(time.time()) % 10_000
    )
    name = "federated-experiment/on-demand"
    deployment = stack.api(f"/deployments/name/{name}")
    with open_page(stack, f"deployments/deployment/{deployment['id']}") as page:
        page.get_by_role("button", name="Run").first.click()
        page.get_by_role("menuitem", name="Custom run").click()
        field(page, "Backbone").fill("efficientnet_lite0")
        field(page, "Num Clients").fill("3")
        give_optional_path(page, "Root", str(root))
        open_section(page, "Runtime")
        give_optional_path(page, "Out", str(tmp_path / "run"))
        field(page, "Backbone").scroll_into_view_if_needed()
        page.get_by_text("Root (Optional)", exact=True).first.scroll_into_view_if_needed()
        keep(page, "ui_form")
        flow_run = submit(page)
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
            go_to(page, stack, f"artifacts/artifact/{by_key[key]['id']}")
            page.get_by_text(re.compile(re.escape(key))).first.wait_for()
            if key.startswith("heat"):
                image = page.locator("img[src^='data:image']").first
                image.wait_for()
                assert image.evaluate("i => i.complete && i.naturalWidth") > 100
            else:
                page.get_by_text("client_0" if key == "clients" else category).first.wait_for()
            keep(page, picture)
