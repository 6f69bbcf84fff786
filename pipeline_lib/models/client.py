"""A station of the federation in library form: patches of its own images, a coreset of them, and what it sends.

The images and the patches never leave this object; an upload holds encoded rows and counts. Note that rows are still
derived from images: whoever has them can tell whether a picture was among the training images.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_contracts.config import ExperimentConfig
from data_contracts.errors import DatasetError
from data_contracts.manifests import GLOBAL_BANK, Manifest
from data_contracts.settings import AS_EARLIER, CoresetSettings, client_config_hash
from pipeline_lib.client.provenance import Provenance
from pipeline_lib.client.selection import ClientCoreset, coreset_of_patches, upload_manifest
from pipeline_lib.features.extractor import FeatureExtractor
from pipeline_lib.features.image_batches import iter_images, iter_patches, reading_of
from pipeline_lib.upload.package import ClientUpload

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _LocalPatches:
    """All patches of the client's images for one bank."""

    patches: np.ndarray  # float16 (patch, dim)
    image_ids: list[str]
    counts: np.ndarray  # (image,) patches of each
    raw_image_bytes: int

    def rows(self, provenance: Provenance) -> np.ndarray:
        """float32 (row, dim): the patches that were sent, as they are here."""
        return provenance.rows(self.patches, self.image_ids, self.counts)


class PatchCoreClient:
    """One client. All clients of a federation share the extractor and the configuration.

    `num_rounds` is that of the configuration unless given. With more than one round the client keeps its patches in
    memory (float16) from the first round on, since every round selects among them.
    """

    def __init__(
        self,
        client_id: str,
        extractor: FeatureExtractor,
        config: ExperimentConfig,
        *,
        num_rounds: int | None = None,
    ) -> None:
        self.client_id = client_id
        self.extractor = extractor
        self.config = config
        self.num_rounds = num_rounds or config.federated.num_rounds
        self.config_hash = client_config_hash(config, extractor.settings)
        self.global_banks: dict[str, np.ndarray] = {}
        self.provenance: dict[int, dict[str, Provenance]] = {}  # round -> bank -> where the sent rows came from
        self.reading = AS_EARLIER
        self._local: dict[str, _LocalPatches] = {}

    def extract_and_build_coreset(
        self, loader: Any, *, round_number: int = 1, progress: Progress | None = None
    ) -> list[ClientUpload]:
        """Features of all images of `loader` (anything that `iter_images` takes) and a coreset of them for each bank.

        From the second round on, only patches that neither the server's bank nor an own row of an earlier round
        covers are selected, farthest first; a bank that has nothing new gets no upload. Images that cannot be read are
        left out with a warning. Raises DatasetError when no image is left.
        """
        local = self._local or self._extract(loader)
        if self.num_rounds > 1:
            self._local = local
        settings = CoresetSettings.of(self.config, self.client_id, round_number)
        uploads = []
        self.provenance[round_number] = {}
        for bank in sorted(local):
            own = local[bank]
            coreset = coreset_of_patches(
                own.patches,
                own.image_ids,
                own.counts,
                settings,
                bank=bank,
                client_id=self.client_id,
                raw_image_bytes=own.raw_image_bytes,
                num_rounds=self.num_rounds,
                sent=self._sent(bank, own, round_number),
                covered=self.global_banks.get(bank) if round_number > 1 else None,
                progress=progress,
            )
            if coreset is not None:
                self.provenance[round_number][bank] = Provenance.of(coreset)
                uploads.append(self._pack(coreset, round_number))
        return uploads

    def withdraw(self, round_number: int, bank: str) -> None:
        """The server refused this upload: its rows do not count as sent."""
        self.provenance.get(round_number, {}).pop(bank, None)

    def receive_global_banks(self, banks: Mapping[str, np.ndarray]) -> None:
        """Take the server's banks, bank -> rows (row, dim); the next round selects what they do not cover."""
        self.global_banks = dict(banks)

    def _extract(self, loader: Any) -> dict[str, _LocalPatches]:
        patches: dict[str, list[np.ndarray]] = {}
        ids: dict[str, list[str]] = {}
        sizes: dict[str, int] = {}
        self.reading = reading_of(loader)
        images = iter_images(loader, image_size=self.config.preprocessing, on_bad_image="skip")
        for item in iter_patches(self.extractor, images, batch_size=self.config.training.batch_size):
            bank = GLOBAL_BANK
            if self.config.aggregation.bank_scope == "per_category":
                if item.info.category is None:
                    raise DatasetError(
                        f"{item.info.image_id} has no category, which aggregation.bank_scope: per_category needs; "
                        "give samples with their category, or set bank_scope to global"
                    )
                bank = item.info.category
            patches.setdefault(bank, []).append(item.patches)
            ids.setdefault(bank, []).append(item.info.image_id)
            sizes[bank] = sizes.get(bank, 0) + _file_size(item.info.path)
        if not patches:
            raise DatasetError(f"client {self.client_id} has no images that can be read")
        return {
            bank: _LocalPatches(np.concatenate(parts), ids[bank], np.array([len(part) for part in parts]), sizes[bank])
            for bank, parts in patches.items()
        }

    def _sent(self, bank: str, own: _LocalPatches, round_number: int) -> np.ndarray | None:
        """The own rows of earlier rounds; None where there are none.

        They count as they are here, not as clipping, noise or a codec left them: no row is sent twice.
        """
        earlier = [banks[bank] for number, banks in self.provenance.items() if number < round_number and bank in banks]
        return np.concatenate([own.rows(provenance) for provenance in earlier]) if earlier else None

    def _pack(self, coreset: ClientCoreset, round_number: int) -> ClientUpload:
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **coreset.arrays)
        content = buffer.getvalue()
        written = Manifest(
            kind="client_upload",
            path=f"{self.client_id}/{coreset.bank}/round_{round_number}.npz",
            sha256=hashlib.sha256(content).hexdigest(),
            size_bytes=len(content),
            rows=coreset.n_rows,
        )
        manifest = upload_manifest(
            written,
            coreset,
            client_id=self.client_id,
            round_number=round_number,
            config_hash=self.config_hash,
            reading=self.reading,
        )
        return ClientUpload(manifest, content)


def _file_size(path: str | None) -> int:
    return Path(path).stat().st_size if path is not None and Path(path).is_file() else 0
