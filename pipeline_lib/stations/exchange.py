"""The place that stations and coordinator share: any fsspec path, a directory or an object store such as S3.

Layout below the root::

    <run_id>/round_001/<kind>/<sender>/<sha256>.npz     what is handed over, named by its content
    <run_id>/round_001/<kind>/<sender>/manifest.json    written last: without it nothing was published
    <run_id>/round_001/closed.json                      no further upload is taken, and why

Nobody is told apart here: who may write where is the business of the place's access rights.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
from pydantic import ValidationError

from data_contracts.errors import ArtifactError, ConfigError, UploadError
from data_contracts.exchange import Publication, Slot
from data_contracts.manifests import Manifest, UploadManifest
from pipeline_lib.storage.artifact_store import ArtifactStore, write_file
from pipeline_lib.upload.package import check_plain_npz

MAX_MANIFEST_BYTES = 1_000_000
MAX_ARTIFACT_BYTES = 4 * 2**30
ROUND_PREFIX = "round_"


def open_exchange() -> Exchange:
    """The shared place of this machine, `$FEDPATCH_EXCHANGE`; the mount points of machines may differ."""
    url = os.environ.get("FEDPATCH_EXCHANGE")
    if not url:
        station = os.environ.get("FEDPATCH_STATION")
        whose = f"of {station}" if station else "of no station (FEDPATCH_STATION), so the coordinator's"
        raise ConfigError(
            f"FEDPATCH_EXCHANGE is not set in this worker on {platform.node()}, {whose}; where the worker is started, "
            "export the shared place, a directory or s3://bucket/prefix, and start the worker again: one that runs "
            "does not see a later export"
        )
    return Exchange(url)


class Exchange:
    """The shared place at `url`, such as /mnt/shared/fedpatch or s3://bucket/fedpatch.

    Credentials and endpoints come from the environment, as the file system reads them (AWS_ACCESS_KEY_ID,
    AWS_ENDPOINT_URL). Raises ConfigError where the file system is not known or its package is not installed.
    """

    def __init__(self, url: str) -> None:
        try:
            # Objects are written by other machines: a listing that was cached would hide them.
            self.fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"the shared place {url}: {error}; for s3:// install 'fedpatch[s3]'") from error
        self.url, self.root = url, str(root).rstrip("/")
        self.is_directory = "file" in (self.fs.protocol if isinstance(self.fs.protocol, tuple) else [self.fs.protocol])

    # --- publications ------------------------------------------------------------------------------------------

    def publish(self, publication: Publication, store: ArtifactStore) -> int:
        """Copy the artifacts out of the sender's own store, then write the manifest; returns bytes sent.

        What is there already, with the right content, is not sent again, so that a publication that was cut off goes
        on where it stopped. Raises UploadError for uploads to a round that is closed.
        """
        slot = publication.slot
        if slot.kind == "uploads" and (reason := self.closed(slot.run_id, slot.round)):
            raise UploadError(
                f"upload of client {slot.sender} refused: round {slot.round} of {slot.run_id} is closed ({reason})"
            )
        sent = 0
        for manifest in publication.artifacts:
            path = self._artifact(slot, manifest)
            if not self._holds(path, manifest):
                content = store.read_bytes(manifest)
                self._write(path, content)
                sent += len(content)
        self._write(self._manifest(slot), publication.file_content())
        return sent

    def read(self, slot: Slot) -> Publication:
        """What was published, by its manifest: it must be of the schema and name exactly this slot.

        That is run, round, kind, sender and config hash. Raises UploadError that names the sender and the reason.
        """
        publication = self._read_manifest(slot)
        if problem := _slot_problem(publication, slot):
            raise _refusal(slot, problem)
        return publication

    def copy(self, slot: Slot, manifest: Manifest, store: ArtifactStore) -> None:
        """Verify one artifact of a publication and copy it into the reader's own store.

        It must have the size and SHA-256 that the manifest gives, and be npz without compression. Raises UploadError
        that names the sender and the reason.
        """
        bank = f" for {manifest.category}" if isinstance(manifest, UploadManifest) else ""
        try:
            content = self._read(self._artifact(slot, manifest), manifest)
            check_plain_npz(content)
        except ArtifactError as error:
            raise _refusal(slot, str(error), bank) from error
        written = store.write_bytes(manifest.kind, content, suffix="npz", rows=manifest.rows)
        if written.path != manifest.path:
            reason = f"its manifest gives the path {manifest.path!r}, which is not that of its content"
            raise _refusal(slot, reason, bank)

    def fetch(
        self, slot: Slot, store: ArtifactStore, *, wanted: Callable[[Manifest], bool] = lambda manifest: True
    ) -> Publication:
        """Read a publication and copy its `wanted` artifacts. Raises UploadError as `read` and `copy` do."""
        publication = self.read(slot)
        for manifest in filter(wanted, publication.artifacts):
            self.copy(slot, manifest, store)
        return publication

    # --- rounds ------------------------------------------------------------------------------------------------

    def close(self, run_id: str, round_number: int, reason: str) -> None:
        """From now on uploads to this round are refused, with this reason."""
        self._write(self._closed(run_id, round_number), json.dumps({"reason": reason}).encode())

    def reopen(self, run_id: str, round_number: int) -> None:
        """Take uploads again, as when the coordinator is retried."""
        path = self._closed(run_id, round_number)
        if self.fs.exists(path):
            self.fs.rm_file(path)

    def closed(self, run_id: str, round_number: int) -> str | None:
        """Why the round is closed, or None."""
        path = self._closed(run_id, round_number)
        return str(json.loads(self.fs.cat_file(path))["reason"]) if self.fs.exists(path) else None

    def try_out(self, sender: str) -> str:
        """Write, read back and remove a file where a run's upload of this station would lie, folders and all.

        Returns what could not be removed, empty where all was: it looks like a run, and goes with the old ones.
        Raises ArtifactError where it cannot be written or read.
        """
        run_id, content = f"trial-{uuid.uuid4().hex}", b"written to see whether a station can\n"
        path = f"{self._round(run_id, 1)}/uploads/{sender}/trial.txt"
        self._write(path, content)
        try:
            if self.fs.cat_file(path) != content:
                raise ArtifactError(f"{path} reads otherwise than it was written")
        except OSError as error:
            raise ArtifactError(f"{path} cannot be read ({error})") from error
        try:
            self.fs.rm(f"{self.root}/{run_id}", recursive=True)
        except OSError:
            return f"{self.root}/{run_id}"
        return ""

    # --- paths and bytes ---------------------------------------------------------------------------------------

    def _round(self, run_id: str, round_number: int) -> str:
        return f"{self.root}/{run_id}/{ROUND_PREFIX}{round_number:03d}"

    def _manifest(self, slot: Slot) -> str:
        return f"{self._round(slot.run_id, slot.round)}/{slot.kind}/{slot.sender}/manifest.json"

    def _artifact(self, slot: Slot, manifest: Manifest) -> str:
        return f"{self._round(slot.run_id, slot.round)}/{slot.kind}/{slot.sender}/{manifest.sha256}.npz"

    def _closed(self, run_id: str, round_number: int) -> str:
        return f"{self._round(run_id, round_number)}/closed.json"

    def _write(self, path: str, content: bytes) -> None:
        if self.is_directory:
            write_file(Path(path), content)
            return
        try:
            self.fs.pipe_file(path, content)  # an object store shows an object whole or not at all
        except OSError as error:
            raise ArtifactError(f"cannot write {path} ({len(content)} bytes): {error}") from error

    def _holds(self, path: str, manifest: Manifest) -> bool:
        try:
            self._read(path, manifest)
        except ArtifactError:
            return False
        return True

    def _read(self, path: str, manifest: Manifest) -> bytes:
        try:
            size = int(self.fs.size(path))
            if size != manifest.size_bytes or size > MAX_ARTIFACT_BYTES:
                raise ArtifactError(f"{path} has {size} bytes, its manifest says {manifest.size_bytes}")
            content: bytes = self.fs.cat_file(path)
        except OSError as error:
            raise ArtifactError(f"{path} cannot be read ({error})") from error
        if hashlib.sha256(content).hexdigest() != manifest.sha256:
            raise ArtifactError(f"the SHA-256 of {path} does not match its manifest")
        return content

    def _read_manifest(self, slot: Slot) -> Publication:
        path = self._manifest(slot)
        try:
            size = int(self.fs.size(path))
            if size > MAX_MANIFEST_BYTES:
                raise _refusal(slot, f"its manifest has {size} bytes, at most {MAX_MANIFEST_BYTES} are read")
            return Publication.model_validate_json(self.fs.cat_file(path))
        except FileNotFoundError as error:
            raise _refusal(slot, f"nothing was published at {path}") from error
        except OSError as error:
            raise _refusal(slot, f"{path} cannot be read ({error})") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise _refusal(slot, f"its manifest does not fit the schema ({where}: {first['msg']})") from error


def _refusal(slot: Slot, reason: str, bank: str = "") -> UploadError:
    return UploadError(f"{slot.kind} of {slot.sender}{bank} refused: {reason}")


def _slot_problem(publication: Publication, slot: Slot) -> str | None:
    """Why the publication does not belong where it lies, or None."""
    said: dict[str, Any] = publication.slot.model_dump()
    for key, expected in slot.model_dump().items():
        if said[key] != expected:
            replay = " (a replay of another run)" if key == "run_id" else ""
            return f"its manifest says {key} {said[key]!r}, expected {expected!r}{replay}"
    for upload in publication.uploads:  # its round and configuration are the server's to check, bank by bank
        if upload.client_id != slot.sender:
            return f"its upload for {upload.category} says sender {upload.client_id!r}, expected {slot.sender!r}"
    return None
