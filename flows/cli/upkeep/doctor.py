"""Command doctor: what may be wrong with an installation."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from urllib.parse import urlsplit

import prefect
from prefect.settings import get_current_settings

from data_contracts.settings import default_store
from flows.cli.next_steps import say_next
from flows.cli.printing import print_json
from flows.connection import ADVICE, LOOPBACK, NO_ANSWER, leave_loopback_out_of_proxies, no_answer, proxy_of
from flows.connection import server_version as ask_version
from pipeline_lib.planning.doctor import Check, installation_checks
from pipeline_lib.storage.writable import write_problem

MARKS = {"ok": "ok     ", "note": "note   ", "problem": "PROBLEM"}


def examine(store: Path | None, station: str | None, *, as_json: bool) -> None:
    """Print all checks, with a station's name those of its machine too; exit status 1 when there is a problem."""
    checks = [*installation_checks((store or default_store()).expanduser()), home_check(), proxy_check()]
    leave_loopback_out_of_proxies()  # as every command does
    checks.append(server_check())
    if station is not None:
        from flows.cli.upkeep.station_doctor import station_checks

        checks += station_checks(station)
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        for check in checks:
            print(f"{MARKS[check.status]}  {check.name}: {check.found}")
            if check.advice:
                print(f"         -> {check.advice}")
    problems = any(check.status == "problem" for check in checks)
    if not as_json:
        at_work = any(check.name == "work queue" and check.status == "ok" for check in checks)
        state = ", problems" if problems else ", at work" if at_work else ""
        say_next(f"doctor{' of a station' * bool(station)}{state}", station=station or "")
    if problems:
        raise SystemExit(1)


def home_check() -> Check:
    """Whether Prefect's own directory can be written: results and the temporary server's database lie there."""
    home = get_current_settings().home
    if problem := write_problem(home):
        advice = "set PREFECT_HOME to a directory of yours"
        return Check("PREFECT_HOME", "problem", f"{home} cannot be written ({problem})", advice)
    return Check("PREFECT_HOME", "ok", str(home))


def proxy_check() -> Check:
    """Whether a proxy stands between this machine and the server, as the environment is."""
    url = get_current_settings().api.url or f"http://{LOOPBACK[0]}"
    host = urlsplit(url).hostname or ""
    proxy = proxy_of(url)
    if proxy is None:
        return Check("proxy", "ok", f"none on the way to {host}")
    if host in LOOPBACK:
        loopback = ",".join(LOOPBACK)
        advice = f"fedpatch's commands leave it out; for workers and prefect: export NO_PROXY={loopback}"
    else:
        advice = f"if the server is in your own network: export NO_PROXY={host}"
    return Check("proxy", "note", f"{host} would be asked through the proxy {proxy}", advice)


def server_check() -> Check:
    """Whether the configured Prefect server answers and has this version."""
    url = get_current_settings().api.url
    if not url:
        return Check(
            "Prefect server", "note", "none is set (PREFECT_API_URL): every run starts a temporary one",
            "make serve starts one, for schedules, deployments and retries from the UI",
        )  # fmt: skip
    try:
        version = ask_version()
    except NO_ANSWER as error:
        return Check("Prefect server", "problem", no_answer(error), ADVICE)
    if version and version != prefect.__version__:
        return Check(
            "Prefect server", "problem", f"{url} is {version}, here is {prefect.__version__}", "use the same version"
        )
    return Check("Prefect server", "ok", f"{url}, {version}")
