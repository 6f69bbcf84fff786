"""Command doctor: what may be wrong with an installation."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import httpx
import prefect
from prefect.settings import get_current_settings

from data_contracts.settings import default_store
from flows.cli.printing import print_json
from pipeline_lib.planning.doctor import Check, installation_checks

MARKS = {"ok": "ok     ", "note": "note   ", "problem": "PROBLEM"}


def examine(store: Path | None, *, as_json: bool) -> None:
    """Print all checks; exit status 1 when there is a problem."""
    checks = [*installation_checks((store or default_store()).expanduser()), server_check()]
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        for check in checks:
            print(f"{MARKS[check.status]}  {check.name}: {check.found}")
            if check.advice:
                print(f"         -> {check.advice}")
    if any(check.status == "problem" for check in checks):
        raise SystemExit(1)


def server_check() -> Check:
    """Whether the configured Prefect server answers and has this version."""
    url = get_current_settings().api.url
    if not url:
        return Check(
            "Prefect server", "note", "none is set (PREFECT_API_URL): every run starts a temporary one",
            "make serve starts one, for schedules, deployments and retries from the UI",
        )  # fmt: skip
    try:
        answer = httpx.get(f"{url.rstrip('/')}/admin/version", timeout=5)
        answer.raise_for_status()
        version = str(answer.json())
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        return Check(
            "Prefect server", "problem", f"{url} does not answer: {type(error).__name__}",
            "start it (make serve), correct PREFECT_API_URL, or unset it",
        )  # fmt: skip
    if version != prefect.__version__:
        return Check(
            "Prefect server", "problem", f"{url} is {version}, here is {prefect.__version__}", "use the same version"
        )
    return Check("Prefect server", "ok", f"{url}, {version}")
