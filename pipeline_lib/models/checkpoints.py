"""A federation's rounds on disk: training goes on after an interruption, and each round's model can be looked at.

Layout of a checkpoint directory::

    round_001/server/model.json, banks/      the model after the round (pipeline_lib.models.saved_model)
    round_001/uploads/0000.npz ...           what the clients sent in this round
    round_001/clients/0000.npz ...           where each client's rows came from; a real client keeps its own
    round_001/round.json                     written last: a round without it is not finished

A round counts only while every file of it is intact; it and the ones after it are done again otherwise.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_contracts.errors import ConfigError
from data_contracts.manifests import UploadManifest
from pipeline_lib.client.provenance import Provenance
from pipeline_lib.storage.artifact_store import write_file
from pipeline_lib.storage.files import write_json_file
from pipeline_lib.upload.package import ClientUpload

ROUND_FILE = "round.json"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RoundSummary:
    """What one round did."""

    round: int
    delivered: list[str]  # clients whose uploads were accepted, or who had nothing new to send
    failed: dict[str, str]  # client -> cause
    refused: dict[str, str]  # client -> reason
    upload_rows: int
    upload_bytes: int
    download_bytes: int  # banks sent back to the clients, float32
    bank_rows: dict[str, int]
    covering_radius: dict[str, float]  # client -> largest distance of an own patch to what is covered now
    seconds: float


@dataclass(frozen=True)
class RoundCheckpoint:
    """One finished round: its summary, what was sent, and each client's provenance by bank."""

    summary: RoundSummary
    uploads: list[ClientUpload]
    provenance: Mapping[str, Mapping[str, Provenance]]


def round_directory(directory: Path, round_number: int) -> Path:
    """Where one round lies."""
    return directory / f"round_{round_number:03d}"


def write_round(
    directory: Path, checkpoint: RoundCheckpoint, *, identity: str, write_server_model: Callable[[Path], None]
) -> None:
    """Write one round; each file whole or not at all, and round.json last."""
    place = round_directory(directory, checkpoint.summary.round)
    (place / ROUND_FILE).unlink(missing_ok=True)
    write_server_model(place / "server")
    uploads = []
    for number, upload in enumerate(checkpoint.uploads):
        write_file(place / "uploads" / f"{number:04d}.npz", upload.content)
        uploads.append(upload.manifest.model_dump(mode="json"))
    clients = {}
    for number, (client_id, banks) in enumerate(sorted(checkpoint.provenance.items())):
        content = _pack(banks)
        write_file(place / "clients" / f"{number:04d}.npz", content)
        clients[client_id] = {"sha256": hashlib.sha256(content).hexdigest(), "banks": sorted(banks)}
    write_json_file(
        place / ROUND_FILE,
        {
            "identity": identity,
            "summary": asdict(checkpoint.summary),
            "uploads": uploads,
            "clients": clients,
        },
    )


def read_rounds(directory: Path, *, identities: Sequence[str], num_rounds: int) -> list[RoundCheckpoint]:
    """The finished rounds of a federation, from the first on, up to the first that is missing or damaged.

    `identities`: as this version writes it and as earlier ones did. Raises ConfigError when the directory holds rounds
    of another federation (configuration, images or rounds).
    """
    rounds: list[RoundCheckpoint] = []
    while len(rounds) < num_rounds:
        place = round_directory(directory, len(rounds) + 1)
        if not (place / ROUND_FILE).is_file():
            break
        try:
            content = json.loads((place / ROUND_FILE).read_bytes())
            found = content["identity"]
            if found in identities:
                rounds.append(_read_round(place, content))
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("%s is damaged (%s); this round and later ones are done again", place, error)
            break
        if found not in identities:
            raise ConfigError(
                f"checkpoint_dir {directory} holds rounds of another federation (its configuration, images or number "
                "of rounds differ); choose another directory, or remove it"
            )
    return rounds


def _read_round(place: Path, content: Mapping[str, Any]) -> RoundCheckpoint:
    uploads = []
    for number, values in enumerate(content["uploads"]):
        manifest = UploadManifest.model_validate(values)
        uploads.append(ClientUpload(manifest, _intact(place / "uploads" / f"{number:04d}.npz", manifest.sha256)))
    provenance = {}
    for number, (client_id, entry) in enumerate(sorted(content["clients"].items())):
        provenance[client_id] = _unpack(
            _intact(place / "clients" / f"{number:04d}.npz", entry["sha256"]), entry["banks"]
        )
    return RoundCheckpoint(RoundSummary(**content["summary"]), uploads, provenance)


def _intact(path: Path, sha256: str) -> bytes:
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"the SHA-256 of {path.name} does not match")
    return content


def _pack(banks: Mapping[str, Provenance]) -> bytes:
    arrays: dict[str, np.ndarray] = {}
    for number, bank in enumerate(sorted(banks)):
        arrays |= {f"{number}_{name}": values for name, values in banks[bank].to_arrays().items()}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _unpack(content: bytes, banks: Sequence[str]) -> dict[str, Provenance]:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        by_bank: list[dict[str, np.ndarray]] = [{} for _ in banks]
        for file in arrays.files:
            number, name = file.split("_", 1)
            by_bank[int(number)][name] = arrays[file]
    return {bank: Provenance.from_arrays(own) for bank, own in zip(banks, by_bank, strict=True)}
