"""An upload as one package of bytes: packed at the client, opened and checked at the server."""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass

import numpy as np

from data_contracts.errors import ArtifactError, UploadError
from data_contracts.manifests import UploadManifest


@dataclass(frozen=True)
class ClientUpload:
    """One coreset as it travels: the bytes of an npz, and the manifest with their SHA-256."""

    manifest: UploadManifest
    content: bytes


def open_upload(upload: ClientUpload) -> dict[str, np.ndarray]:
    """The arrays of an upload, after its size and SHA-256 were checked. Nothing in it is unpickled or decompressed.

    Raises UploadError, naming the client and the reason.
    """
    manifest = upload.manifest

    def refuse(reason: str) -> UploadError:
        return UploadError(f"upload of client {manifest.client_id} for {manifest.category} refused: {reason}")

    if hashlib.sha256(upload.content).hexdigest() != manifest.sha256:
        raise refuse(
            f"its SHA-256 does not match its manifest ({len(upload.content)} of {manifest.size_bytes} bytes came); "
            "send it again"
        )
    try:
        check_plain_npz(upload.content)
        with np.load(io.BytesIO(upload.content), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except ArtifactError as error:
        raise refuse(str(error)) from error
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise refuse(f"it cannot be read as npz ({error})") from error


def check_plain_npz(content: bytes) -> None:
    """Raise ArtifactError unless it is an npz without compression: what it takes in memory is then known."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
    except zipfile.BadZipFile as error:
        raise ArtifactError(f"it cannot be read as npz ({error})") from error
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ArtifactError("it is compressed, and what it unpacks to is not known; send plain npz")
