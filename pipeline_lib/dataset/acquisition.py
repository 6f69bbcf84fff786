"""Getting AutoVI from Zenodo: download with resume, SHA-256, safe unpacking.

AutoVI: Carvalho et al. 2024, Zenodo record 10459003, version 1.0.0, CC BY-NC-SA 4.0. Sizes and SHA-256 are those of the
data set's own croissant.json.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from data_contracts.errors import DatasetError
from pipeline_lib.dataset.unpacking import unpack_category
from pipeline_lib.storage.artifact_store import sha256_of_file, write_file

logger = logging.getLogger(__name__)
Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all)."""

BASE_URL = "https://zenodo.org/records/10459003/files"
LICENSE = (
    "AutoVI (Renault and UTC, https://zenodo.org/records/10459003) is under CC BY-NC-SA 4.0: name its authors, no "
    "commercial use, share what you make of it under the same licence."
)
SOURCE_NOTE = ".fedpatch_source.json"
STALL_SECONDS = 30.0
ATTEMPTS_WITHOUT_PROGRESS = 5
SPACE_FACTOR = 2.5  # the zip and what is in it


@dataclass(frozen=True)
class Archive:
    """One category's zip file."""

    category: str
    size_bytes: int
    sha256: str

    def url(self, base: str) -> str:
        """Where it lies."""
        return f"{base}/{self.category}.zip"


AUTOVI_ARCHIVES = tuple(
    Archive(*entry)
    for entry in (
        ("engine_wiring", 249059163, "252590d3249f7fbdf83a7e9b735ef0df175adc218460247e9a63bef1c03d420c"),
        ("pipe_clip", 144021409, "955bb17b3a471e23979f46f998a4723acd00cf3afc4d5edf0578dfb6ea80d6c3"),
        ("pipe_staple", 106153684, "fb9287f2cc86d660310e9886fdebbe2bd17269e853e29d06d708c6a996df1b18"),
        ("tank_screw", 1172738255, "48d7193164b36de03cc10c9f7b1b64ea98a0ce7aa57867c8f1d96341c497b4b0"),
        ("underbody_pipes", 950320460, "fc1e53336d46fb2317d71e95c011bac012b609f2898fdb02780c920c19a113c7"),
        ("underbody_screw", 1346723786, "3e9bf6a43033a22c7c9f927a43c392a3b037d22580a27a48d379d4504d9cc6cf"),
    )
)


def acquire_category(
    archive: Archive,
    out: Path,
    *,
    base_url: str = BASE_URL,
    keep_archive: bool = False,
    stall_seconds: float = STALL_SECONDS,
    pause_seconds: float = 2.0,
    progress: Progress | None = None,
) -> str:
    """Make sure that `<out>/<category>` holds the category; returns "present", or "acquired" where it was fetched.

    A directory that is there is never touched. Raises DatasetError when there is too little space, the server cannot be
    reached or sends something else, or the archive cannot be unpacked safely; a second call goes on where it ended.
    """
    target = out / archive.category
    if target.exists():
        return "present"
    out.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(out).free
    if free < SPACE_FACTOR * archive.size_bytes:
        raise DatasetError(
            f"{out} has {free / 1e9:.1f} GB free, {archive.category} needs about "
            f"{SPACE_FACTOR * archive.size_bytes / 1e9:.1f} GB while it is unpacked; make room, or give another --out"
        )
    path = out / f".{archive.category}.zip"
    if not (path.is_file() and sha256_of_file(path) == archive.sha256):
        part = path.with_suffix(".zip.part")
        download(
            archive.url(base_url), part, size_bytes=archive.size_bytes, stall_seconds=stall_seconds,
            pause_seconds=pause_seconds, progress=progress,
        )  # fmt: skip
        if (found := sha256_of_file(part)) != archive.sha256:
            part.unlink()
            raise DatasetError(
                f"{archive.url(base_url)} is not what was published: SHA-256 {found[:12]}..., expected "
                f"{archive.sha256[:12]}...; it was removed. Try again; if it stays so, the source has changed"
            )
        part.replace(path)
    unpack_category(path, target)
    note = {"url": archive.url(base_url), "sha256": archive.sha256, "license": "CC BY-NC-SA 4.0"}
    write_file(target / SOURCE_NOTE, (json.dumps(note, indent=1) + "\n").encode())
    if not keep_archive:
        path.unlink()
    return "acquired"


def select_archives(categories: Sequence[str] | None) -> list[Archive]:
    """The archives of these categories, all unless named. Raises DatasetError for a name that AutoVI does not have."""
    there = {archive.category: archive for archive in AUTOVI_ARCHIVES}
    if unknown := [name for name in categories or () if name not in there]:
        raise DatasetError(f"AutoVI has no category {', '.join(unknown)}; it has {', '.join(there)}")
    return [there[name] for name in dict.fromkeys(categories or there)]


def download(
    url: str,
    part: Path,
    *,
    size_bytes: int,
    stall_seconds: float = STALL_SECONDS,
    pause_seconds: float = 2.0,
    progress: Progress | None = None,
) -> None:
    """Fetch `url` into `part`, going on from what is there; a stalled or cut connection is taken up again.

    Raises DatasetError after five attempts in a row that brought nothing, at once for an answer such as 404, and for a
    file of another size.
    """
    failures = 0
    while (before := _size(part)) < size_bytes:
        try:
            _fetch(url, part, size_bytes, stall_seconds, progress)
            cause = "the connection was cut"
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            if status < 500 and status != 429:
                raise DatasetError(
                    f"{url} answers {status} {error.response.reason_phrase}; is the address right?"
                ) from error
            cause = f"it answers {status}"
        except httpx.HTTPError as error:
            cause = f"{type(error).__name__}: {error}".rstrip(": ")
        if _size(part) > before:
            failures = 0
            continue
        failures += 1
        if failures >= ATTEMPTS_WITHOUT_PROGRESS:
            raise DatasetError(
                f"cannot get {url}: {cause} ({failures} attempts); {_size(part)} of {size_bytes} bytes are there, "
                "run the same command again to go on"
            )
        logger.warning("%s: %s; trying again", url, cause)
        time.sleep(pause_seconds * failures)
    if _size(part) != size_bytes:
        found = _size(part)
        part.unlink()
        raise DatasetError(f"{url} has more than the {size_bytes} bytes that were published ({found}); it was removed")


def _fetch(url: str, part: Path, size_bytes: int, stall_seconds: float, progress: Progress | None) -> None:
    """One connection: append to what is there where the server can, else start anew."""
    start = _size(part)
    headers = {"Range": f"bytes={start}-"} if start else {}
    with httpx.stream("GET", url, headers=headers, timeout=stall_seconds, follow_redirects=True) as response:
        response.raise_for_status()
        goes_on = response.status_code == httpx.codes.PARTIAL_CONTENT and _starts_at(response, start)
        with part.open("ab" if goes_on else "wb") as file:
            for chunk in response.iter_raw():  # as it comes: what came before a cut is kept
                file.write(chunk)
                if progress:
                    progress(file.tell(), size_bytes)
                if file.tell() > size_bytes:
                    return


def _starts_at(response: httpx.Response, start: int) -> bool:
    return str(response.headers.get("Content-Range", "")).startswith(f"bytes {start}-")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
