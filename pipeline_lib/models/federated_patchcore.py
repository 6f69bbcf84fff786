"""A federation in one process: clients with their own images, a server that sees uploads alone, rounds in between.

This is the library form of what the flows do with a task for each client; it shares all that computes with them, and
one round gives the same banks. For notebooks, simulations and tests.

>>> import numpy as np
>>> from pipeline_lib.models.federated_patchcore import FederatedPatchCore
>>> class Bolts:  # an AutoVIDataset serves as it is
...     images = np.random.default_rng(0).integers(100, 140, (12, 64, 64, 3), dtype=np.uint8)
...     samples = [(f"{n}.png", 0, "bolt", "good") for n in range(12)]
...     def __len__(self): return 12
...     def __getitem__(self, n): return {"image": self.images[n], "category": "bolt"}
>>> federation = FederatedPatchCore({
...     "model": {"backbone": "efficientnet_lite0", "coreset_percentage": 0.1},
...     "preprocessing": {"small_size": [64, 64]},
...     "federated": {"num_clients": 3},
... })
>>> stats = federation.setup_clients(Bolts())
>>> first, second = federation.train(num_rounds=2)
>>> first.bank_rows, second.bank_rows, max(second.covering_radius.values()) < max(first.covering_radius.values())
({'bolt': 39}, {'bolt': 77}, True)
>>> anomaly_maps, scores = federation.predict(Bolts.images[:2], category="bolt")
>>> anomaly_maps.shape
(2, 64, 64)
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Literal, Protocol

from data_contracts.config import ExperimentConfig, canonical_hash
from data_contracts.errors import ConfigError, FedpatchError, QuorumError
from data_contracts.federation import ClosedRound, Refusal, close_round, covering_radii, quorum_out_of_reach
from data_contracts.manifests import GLOBAL_BANK, ClientUploads
from data_contracts.settings import AS_EARLIER, ScoringSettings, client_config_hashes
from pipeline_lib.configuration.files import parse_config
from pipeline_lib.configuration.hardware import pick_device
from pipeline_lib.configuration.seeding import stage_rng
from pipeline_lib.dataset.autovi_dataset import AutoVIDataset, AutoVISubset
from pipeline_lib.features.backbone import resolve_backbone
from pipeline_lib.features.extractor import FeatureExtractor
from pipeline_lib.features.image_batches import iter_images, iter_patches, reading_of
from pipeline_lib.models.checkpoints import RoundCheckpoint, RoundSummary, read_rounds, write_round
from pipeline_lib.models.client import PatchCoreClient
from pipeline_lib.models.patchcore import PatchCore, Prediction, ScoredImage, as_prediction
from pipeline_lib.models.saved_model import Inference, write_model
from pipeline_lib.models.server import FederatedServer
from pipeline_lib.partition.saved import saved_shards
from pipeline_lib.partition.shards import shard_positions
from pipeline_lib.partition.statistics import compute_partition_stats
from pipeline_lib.planning.extension_trial import try_extensions
from pipeline_lib.upload.package import ClientUpload

logger = logging.getLogger(__name__)


class Partitioner(Protocol):
    """Such as `IIDPartitioner`: client id -> positions in the data set."""

    def partition(self, dataset: Any, /) -> Mapping[str, Sequence[int]]: ...


class FederatedPatchCore:
    """Clients, server, rounds, and a model at the end.

    `config` is an ExperimentConfig or its values as a mapping; everything federated is set there (clients, strategy,
    bank_scope, oversample_factor, ratios by client, upload codec, rounds, quorum). One that is not federated is taken
    as federated. `extractor` is made from the configuration unless given. After `setup_clients`: `skipped_clients`,
    `partition_stats`; after `train`: `clients`, `server` with its banks, `history` with a summary a round.
    """

    def __init__(
        self, config: ExperimentConfig | Mapping[str, Any], *, extractor: FeatureExtractor | None = None
    ) -> None:
        resolved = config if isinstance(config, ExperimentConfig) else parse_config(config)
        if resolved.federated.mode != "federated":
            resolved = resolved.as_mode("federated")
        self.config = resolved
        try_extensions(resolved, keys=["aggregation.strategy"])
        if extractor is None:
            settings = resolve_backbone(resolved.model, resolved.preprocessing, seed=resolved.seed)
            extractor = FeatureExtractor(settings=settings, device=pick_device(resolved.runtime.device))
        self.extractor = extractor
        self.inference = Inference(
            ScoringSettings.of(resolved), resolved.preprocessing, resolved.inference.smoothing_sigma
        )
        self.server = FederatedServer(resolved, extractor.settings)
        self.clients: dict[str, PatchCoreClient] = {}
        self.skipped_clients: list[str] = []
        self.partition_stats: dict[str, Any] = {}
        self.reading = AS_EARLIER
        self.history: list[RoundSummary] = []
        self._images: dict[str, AutoVISubset] = {}
        self._partition: dict[str, list[str]] = {}
        self._categories: set[str] = set()
        self._models: dict[str, PatchCore] = {}

    def setup_clients(self, dataset: AutoVIDataset, partitioner: Partitioner | None = None) -> dict[str, Any]:
        """Share out the data set's images and make a client for each share; returns the partition's statistics.

        Without a partitioner the configuration's partition is made, the same one as in a run. Clients without images
        are skipped and listed. Raises FedpatchError when no client has an image, ConfigError as the partition does.
        """
        if partitioner is not None:
            shards: Mapping[str, Sequence[int]] = partitioner.partition(dataset)
        elif self.config.federated.partition_path is not None:
            shards = saved_shards(dataset.index["image_id"].tolist(), self.config.federated.partition_path)
        else:
            categories = [category for _, _, category, _ in dataset.samples]
            rng = stage_rng(self.config.seed, "partition")
            image_ids = dataset.index["image_id"].tolist() if hasattr(dataset, "index") else None
            shards = shard_positions(categories, self.config.federated, rng=rng, image_ids=image_ids)
        self.reading = reading_of(dataset)
        self._images = {client: AutoVISubset(dataset, shard) for client, shard in shards.items() if len(shard)}
        if not self._images:
            raise FedpatchError("no client has any image; look at the data set and the partition")
        self._categories = set().union(*(self._categories_of(client) for client in self._images))
        self._partition = {client: [dataset.samples[i][0] for i in shard] for client, shard in shards.items()}
        self.skipped_clients = sorted(set(shards) - set(self._images))
        for client in self.skipped_clients:
            logger.warning("client %s has no images and is skipped; min_clients: all does not count it", client)
        self.partition_stats = compute_partition_stats(dataset, shards, clients=shards)
        return self.partition_stats

    def train(self, num_rounds: int | None = None, checkpoint_dir: Path | str | None = None) -> list[RoundSummary]:
        """All rounds; returns a summary of each.

        In round 1 every client sends a coreset of its patches; in later rounds only what the server's bank does not
        cover, so that all rounds together send as many rows as one round would. With `checkpoint_dir` each round is
        written, and finished rounds found there are not done again. A client that fails or is refused is named in the
        summary and the others go on.
        Raises QuorumError when fewer than `federated.min_clients` have images or delivered; ConfigError for more than
        one round without k-center, or a checkpoint of another federation.
        """
        num_rounds = self.config.federated.num_rounds if num_rounds is None else num_rounds
        if num_rounds < 1:
            raise ConfigError(f"num_rounds is {num_rounds}; at least one round is needed")
        if not self._images:
            raise FedpatchError("there are no clients yet; call setup_clients with a data set")
        if problem := quorum_out_of_reach(
            min_clients=self.config.federated.min_clients,
            n_clients=len(self._images),
            empty_clients=self.skipped_clients,
        ):
            raise QuorumError(problem)
        if num_rounds > 1 and self.config.model.subsampling != "kcenter":
            raise ConfigError(
                f"federated.num_rounds is {num_rounds}, but model.subsampling {self.config.model.subsampling} cannot "
                "select what is not covered yet; set it to kcenter, or num_rounds to 1"
            )
        self.server = FederatedServer(self.config, self.extractor.settings)
        self.clients = {
            name: PatchCoreClient(name, self.extractor, self.config, num_rounds=num_rounds)
            for name in sorted(self._images)
        }
        self.history, self._models = [], {}
        directory = Path(checkpoint_dir) if checkpoint_dir is not None else None
        identities = self._identities(num_rounds)
        for checkpoint in read_rounds(directory, identities=identities, num_rounds=num_rounds) if directory else ():
            self._restore(checkpoint)
        for number in range(len(self.history) + 1, num_rounds + 1):
            uploads = self._train_single_round(number, num_rounds)
            if directory is not None:
                provenance = {name: client.provenance.get(number, {}) for name, client in self.clients.items()}
                checkpoint = RoundCheckpoint(self.history[-1], uploads, provenance)
                write_round(directory, checkpoint, identity=identities[0], write_server_model=self.save)
        return self.history

    def _identities(self, num_rounds: int) -> list[str]:
        """What a checkpoint has to be of, as this version writes it and as an earlier one did."""
        own = product(self.config.config_hashes(), client_config_hashes(self.config, self.extractor.settings))
        partition = dict(sorted(self._partition.items()))
        return [canonical_hash([*hashes, num_rounds, partition]) for hashes in own]

    def _train_single_round(self, number: int, num_rounds: int) -> list[ClientUpload]:
        """One round; returns what the clients sent."""
        started = time.monotonic()
        uploads, failed = self._local_client_processing(number)
        self.server.receive_client_coresets(uploads, round_number=number)
        closed = self._close_round(number, num_rounds, uploads, failed)
        if closed.problem:
            raise QuorumError(closed.problem)
        banks = self.server.aggregate()
        manifests = [upload.manifest for upload in uploads]
        summary = RoundSummary(
            round=number,
            delivered=[client.client_id for client in closed.delivered],
            failed=failed,
            refused=closed.refused,
            upload_rows=sum(manifest.rows for manifest in manifests),
            upload_bytes=sum(manifest.size_bytes for manifest in manifests),
            download_bytes=self._broadcast(),
            bank_rows={bank: len(merged.rows) for bank, merged in banks.items()},
            covering_radius=covering_radii(closed.sent),
            seconds=round(time.monotonic() - started, 3),
        )
        logger.info("round %d: %s delivered, bank rows %s", number, ", ".join(summary.delivered), summary.bank_rows)
        self.history.append(summary)
        self._models = {}
        return uploads

    def _local_client_processing(self, number: int) -> tuple[list[ClientUpload], dict[str, str]]:
        """What the clients send, and the cause of each that failed."""
        uploads: list[ClientUpload] = []
        failed: dict[str, str] = {}
        for name, client in self.clients.items():
            try:
                uploads += client.extract_and_build_coreset(self._images[name], round_number=number)
            except Exception as error:  # whatever stops one client must not stop the others; it is named and logged
                failed[name] = f"{type(error).__name__}: {error}"
                logger.warning("round %d: client %s failed (%s); going on with the others", number, name, failed[name])
        return uploads, failed

    def _close_round(
        self, number: int, num_rounds: int, uploads: Sequence[ClientUpload], failed: Mapping[str, str]
    ) -> ClosedRound:
        """The verdicts on what the server received; clients forget where refused rows came from."""
        refusals = [Refusal(c, bank, why) for (of, c, bank), why in self.server.refused.items() if of == number]
        for one in refusals:
            if one.bank is not None and one.client_id in self.clients:
                self.clients[one.client_id].withdraw(number, one.bank)
        sent = {name: ClientUploads(client_id=name, uploads=(), provenance=()) for name in self.clients}
        for manifest in (upload.manifest for upload in uploads):
            own = sent[manifest.client_id]
            sent[manifest.client_id] = own.model_copy(update={"uploads": (*own.uploads, manifest)})
        return close_round(
            number,
            [client for name, client in sent.items() if name not in failed],
            failed,
            refusals,
            min_clients=self.config.federated.min_clients,
            n_clients=len(self.clients),
            num_rounds=num_rounds,
        )

    def _broadcast(self) -> int:
        """Send every client the banks that it has a part in; returns the bytes of all of them."""
        sent = 0
        for name, client in self.clients.items():
            is_global = self.config.aggregation.bank_scope == "global"
            banks = self.server.broadcast([GLOBAL_BANK] if is_global else sorted(self._categories_of(name)))
            client.receive_global_banks(banks)
            sent += sum(rows.nbytes for rows in banks.values())
        return sent

    def _restore(self, checkpoint: RoundCheckpoint) -> None:
        """Bring server and clients to where they were after a finished round."""
        number = checkpoint.summary.round
        self.server.receive_client_coresets(checkpoint.uploads, round_number=number)
        self.server.aggregate()
        for name, provenance in checkpoint.provenance.items():
            self.clients[name].provenance[number] = dict(provenance)
        self._broadcast()
        self.history.append(checkpoint.summary)

    # --- the model -----------------------------------------------------------------------------------------------

    def model_of(self, category: str) -> PatchCore:
        """The model that scores a category: of its own bank, or of the global one.

        Raises FedpatchError before `train`, or when no client had images of the category.
        """
        bank = GLOBAL_BANK if self.config.aggregation.bank_scope == "global" else category
        if bank not in self.server.banks:
            known = ", ".join(self.server.banks) or "none yet; call train first"
            raise FedpatchError(f"there is no memory bank for {category!r}; banks: {known}")
        if category not in self._models:
            rows = self.server.banks[bank].rows
            self._models[category] = PatchCore.of_rows(rows, self.extractor, self.inference, category=category)
        return self._models[category]

    def predict(self, images: Any, category: str | None = None) -> Prediction:
        """Anomaly maps and scores of images (anything that `iter_images` takes), as PatchCore.predict gives them.

        `category` is that of images that come without one; it may be left out where all clients inspect the same.
        """
        return as_prediction(self.score(images, category), self.inference.smoothing_sigma)

    def score(
        self, images: Any, category: str | None = None, *, on_bad_image: Literal["skip", "fail"] = "fail"
    ) -> Iterator[ScoredImage]:
        """One scored image after the other, each by the bank of its category."""
        if category is None and len(self._categories) == 1:
            category = next(iter(self._categories))
        inputs = iter_images(images, image_size=self.config.preprocessing, category=category, on_bad_image=on_bad_image)
        for item in iter_patches(self.extractor, inputs, batch_size=self.config.training.batch_size):
            if item.info.category is None:
                raise FedpatchError(f"{item.info.image_id} comes without a category; name one in the call")
            yield self.model_of(item.info.category).score_extracted(item)

    def _categories_of(self, client_id: str) -> set[str]:
        return {category for _, _, category, _ in self._images[client_id].samples}

    def save(self, path: Path | str) -> None:
        """Write the banks as a model that PatchCore.load reads. Raises FedpatchError before `train`."""
        if not self.server.banks:
            raise FedpatchError("there is no memory bank yet; call train first")
        banks = {bank: merged.to_arrays() for bank, merged in self.server.banks.items()}
        write_model(path, self.extractor.settings, self.inference, banks, self.reading)
