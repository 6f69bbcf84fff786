"""`fedpatch doctor --station NAME`: whether this machine can be that station, and what to do where it cannot."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path

import psutil
from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings

from data_contracts.errors import ConfigError, DatasetError
from flows.across_machines.places import station_name
from flows.connection import NO_ANSWER, asked_once, no_answer
from pipeline_lib.dataset.image_files import loose_images
from pipeline_lib.dataset.layout import detect_layout, find_images, select_categories
from pipeline_lib.planning.doctor import Check
from pipeline_lib.stations.exchange import Exchange

VARIABLES = ("FEDPATCH_STATION", "FEDPATCH_DATASET", "FEDPATCH_STORE", "FEDPATCH_EXCHANGE")
CLOCK_SECONDS = 30.0
"""A run says every 30 s that it lives, and is taken for dead after 90: a clock has to be nearer than that."""

OF_THE_WORKER = "export it where the worker is started, and start the worker again: one that runs does not see it"


def station_checks(station: str) -> Iterator[Check]:
    """The checks of a station's machine, in the order in which they are mended."""
    yield name_check(station)
    yield images_check()
    yield store_check()
    yield from exchange_checks(station)
    yield worker_check(station)
    yield from server_checks(station)


def name_check(station: str) -> Check:
    """Whether this shell is the station's."""
    advice = f"export FEDPATCH_STATION={station}; {OF_THE_WORKER}"
    if "FEDPATCH_STATION" not in os.environ:
        return Check("FEDPATCH_STATION", "problem", "not set in this shell", advice)
    try:
        name = station_name()
    except ConfigError:
        return Check(
            "FEDPATCH_STATION", "problem", f"{os.environ['FEDPATCH_STATION']!r} cannot be a name",
            "letters, digits, dots and hyphens, the same name as of its deployment and work queue",
        )  # fmt: skip
    return Check("FEDPATCH_STATION", *(("ok", name) if name == station else ("problem", f"it is {name}", advice)))


def images_check() -> Check:
    """Whether the station has good images to learn from, counted by category; whether each can be read is not tried."""
    root = os.environ.get("FEDPATCH_DATASET")
    if not root:
        return Check("FEDPATCH_DATASET", "problem", "not set in this shell", f"the station's images; {OF_THE_WORKER}")
    try:
        layout, shown = detect_layout(root)
        counts = {
            category: Counter(image.split for image in find_images(category, directory, layout))
            for category, directory in select_categories(root, layout=layout).items()
        }
    except DatasetError as error:
        return Check(
            "FEDPATCH_DATASET", "problem", str(error),
            "is the disk mounted, and may this user read it? fedpatch dataset validate DIR says more",
        )  # fmt: skip
    if not any(of["train"] for of in counts.values()):
        return Check(
            "FEDPATCH_DATASET", "problem", f"{root} has no good training image for layout {layout}, shown by {shown}",
            loose_images(Path(root)),
        )  # fmt: skip
    told = "; ".join(
        f"{category}: {of['train']} good training, {of['test']} test images" for category, of in counts.items()
    )
    return Check("FEDPATCH_DATASET", "ok", f"{root}, layout {layout}, shown by {shown}; {told}")


def store_check() -> Check:
    """Whether the station's own store was chosen; that it can be written is a check of every installation."""
    if store := os.environ.get("FEDPATCH_STORE"):
        return Check("FEDPATCH_STORE", "ok", store)
    return Check(
        "FEDPATCH_STORE", "note", "not set: the user's ~/.cache/fedpatch/store",
        "features take room: name a large disk of this station alone, not shared with another one",
    )  # fmt: skip


def exchange_checks(station: str) -> Iterator[Check]:
    """Whether the shared place can be used as a run does: folders made, a file written, renamed, read, removed."""
    url = os.environ.get("FEDPATCH_EXCHANGE")
    if not url:
        yield Check(
            "FEDPATCH_EXCHANGE", "problem", "not set in this shell",
            f"the shared place, a directory or s3://bucket/prefix; {OF_THE_WORKER}",
        )  # fmt: skip
        return
    try:
        exchange = Exchange(url)
    except ConfigError as error:
        yield Check("FEDPATCH_EXCHANGE", "problem", str(error), "correct it")
        return
    if exchange.is_directory and not Path(exchange.root).is_dir():
        advice = "mount it, or make it where all stations are on this machine, or correct it"
        yield Check("FEDPATCH_EXCHANGE", "problem", f"there is no directory {exchange.root}", advice)
        return
    try:
        left = exchange.try_out(station)
    except Exception as error:  # whatever a file system or an object store says: it is told here
        rights = (
            "this user needs to be in the group that owns it, and the group may write (docs/stations.md)"
            if exchange.is_directory
            else "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL and what this key may do"
        )
        yield Check("FEDPATCH_EXCHANGE", "problem", f"{url}: {type(error).__name__}, {error}", rights)
        return
    if left:
        advice = "it may stay: fedpatch exchange prune removes it with the old runs"
        yield Check("FEDPATCH_EXCHANGE", "note", f"written and read, but {left} could not be removed", advice)
    elif exchange.is_directory and _is_of_this_machine(Path(exchange.root)):
        yield Check(
            "FEDPATCH_EXCHANGE", "note", f"{url} can be used, and lies on this machine's own disk",
            "the others have to reach it: is a share to be mounted there?",
        )  # fmt: skip
    else:
        yield Check("FEDPATCH_EXCHANGE", "ok", f"{url}: written, read and removed")
    if exchange.is_directory and os.name == "posix":
        yield umask_check()


def umask_check() -> Check:
    """Whether other users of the group may write into the folders that this one makes."""
    mask = os.umask(0)
    os.umask(mask)
    if mask & 0o020:
        return Check(
            "umask", "note", f"{mask:03o}: folders that are made here cannot be written by other stations' users",
            "umask 002 before the worker is started, unless all stations are one user",
        )  # fmt: skip
    return Check("umask", "ok", f"{mask:03o}")


def worker_check(station: str) -> Check:
    """Whether the station's worker on this machine has the variables of this shell; one of another server is not it."""
    server = get_current_settings().api.url
    for process in psutil.process_iter(["pid", "cmdline"]):
        words = process.info["cmdline"] or []
        if not {"worker", "start", station} <= set(words):
            continue
        try:
            own = process.environ()
        except psutil.Error:
            advice = "run this as the worker's user"
            return Check(
                "worker here", "note", f"process {process.pid}, whose variables this user may not read", advice
            )
        if server and own.get("PREFECT_API_URL", server) != server:
            continue
        other = [name for name in VARIABLES if own.get(name) != os.environ.get(name)]
        if not other:
            return Check("worker here", "ok", f"process {process.pid}, with the variables of this shell")
        differing = ", ".join(f"{name} {own.get(name) or 'not set'}" for name in other)
        return Check(
            "worker here", "problem", f"process {process.pid} was started with other variables: {differing}",
            "end it, and start it from a shell (or a unit) that has them",
        )  # fmt: skip
    return Check("worker here", "note", "none runs", _start(station, "stations"))


def server_checks(station: str) -> Iterator[Check]:
    """What the server says: its clock, this station's deployment, its work queue and who asks it."""
    if not get_current_settings().api.url:
        yield Check(
            "PREFECT_API_URL", "problem", "not set in this shell: a station is called through the server",
            f"export PREFECT_API_URL=http://server:4200/api; {OF_THE_WORKER}",
        )  # fmt: skip
        return
    try:
        with asked_once() as client:
            yield clock_check(client)
            yield from queue_checks(client, station)
    except NO_ANSWER as error:
        yield Check("station at the server", "problem", no_answer(error), "see Prefect server, above")


def clock_check(client: SyncPrefectClient) -> Check:
    """How far this machine's clock is from the server's."""
    before = time.time()
    stamp = client.hello().headers.get("date")
    now = (before + time.time()) / 2
    if stamp is None:
        return Check("clock", "note", "the server does not say its time", "hold both by NTP")
    ahead = now - parsedate_to_datetime(stamp).timestamp() - 0.5  # the header has whole seconds
    found = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the server's"
    if abs(ahead) > CLOCK_SECONDS:
        return Check("clock", "problem", found, "let both machines set their clocks by NTP (timedatectl set-ntp true)")
    return Check("clock", "ok", found)


def queue_checks(client: SyncPrefectClient, station: str) -> Iterator[Check]:
    """Whether a call reaches this station: deployment, work queue, worker."""
    name = f"station-client/{station}"
    try:
        deployment = client.read_deployment_by_name(name)
    except ObjectNotFound:
        yield Check(
            "deployment", "problem", f"there is no {name}",
            "at the server prefect deploy --all --no-prompt; a station that prefect.yaml lacks: first copy the "
            f"lines of station-b, with name and work_queue_name {station}",
        )  # fmt: skip
        return
    pool, queue_name = deployment.work_pool_name or "", deployment.work_queue_name or ""
    if queue_name != station:
        yield Check(
            "deployment", "problem", f"{name} calls the work queue {queue_name} of {pool}",
            f"set work_queue_name: {station} in its block of prefect.yaml, deploy again: a queue has one station",
        )  # fmt: skip
        return
    yield Check("deployment", "ok", f"{name}, work queue {queue_name} of {pool}")
    queue = client.read_work_queue_by_name(queue_name, work_pool_name=pool)
    if queue.is_paused:
        advice = f"prefect work-queue resume {queue_name} --pool {pool}"
        yield Check("work queue", "problem", f"{queue_name} is paused: its runs stay Late", advice)
    elif queue.status == "READY":
        yield Check("work queue", "ok", f"{queue_name}, asked for by a worker at {queue.last_polled:%H:%M:%S} UTC")
    else:
        asked = "never" if queue.last_polled is None else f"last at {queue.last_polled:%Y-%m-%d %H:%M:%S} UTC"
        yield Check("work queue", "note", f"no worker asks for {queue_name} ({asked})", _start(station, pool))


def _start(station: str, pool: str) -> str:
    return f"prefect worker start --pool {pool} --work-queue {station}"


def _is_of_this_machine(directory: Path) -> bool:
    return directory.stat().st_dev == Path(directory.absolute().anchor).stat().st_dev
