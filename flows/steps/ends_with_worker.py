"""A deployment's run ends when its worker does, however that ends, and says so: nobody else would.

The worker holds the other end of this process's standard input and writes nothing; the system closes it with the
worker, kill -9 included. Left alone, a run goes on to its next line of log, which nobody reads any more, and is Crashed
when all tasks that it began have ended: a Retry meanwhile meets a run that still computes.
"""

from __future__ import annotations

import os
import stat
import threading
from typing import Any
from uuid import UUID

import psutil
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Crashed

WORKER_ENDED = (
    "the worker of this run ended, and the run with it; where a worker runs again, Retry goes on from what is finished"
)
REPORT_SECONDS = 20.0  # where the server is gone, too, the automation finds the run silent


def end_with_worker(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Begin to watch, when the run begins. A run of the command line is its terminal's, not a worker's."""
    mode = os.fstat(0).st_mode
    if flow_run.deployment_id is not None and (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        threading.Thread(target=_watch, args=(flow_run.id,), daemon=True).start()


def _watch(flow_run_id: UUID) -> None:
    while os.read(0, 4096):
        pass
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # which the worker read: a line of log would end the run in Prefect's way, and words
        os.dup2(nowhere, stream)
    report = threading.Thread(target=_report, args=(flow_run_id,), daemon=True)
    report.start()
    report.join(REPORT_SECONDS)
    for child in psutil.Process().children(recursive=True):  # of a pool of processes
        child.kill()
    os._exit(1)  # what ends in order waits for the tasks that were begun


def _report(flow_run_id: UUID) -> None:
    with get_client(sync_client=True) as client:
        now = client.read_flow_run(flow_run_id).state
        if now is None or not now.is_final() or now.is_crashed():
            client.set_flow_run_state(flow_run_id, Crashed(message=WORKER_ENDED), force=True)
