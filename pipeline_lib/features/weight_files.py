"""Files of weights, in timm's names or those of the original repositories."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from data_contracts.errors import WeightsError
from pipeline_lib.when_needed import timm, torch


def read_state_dict(path: Path) -> Mapping[str, Any]:
    """Of safetensors or torch's with `weights_only`, as timm reads it."""
    state: Mapping[str, Any] = timm.models.load_state_dict(str(path), use_ema=False, weights_only=True)
    return state


def read_plain_state_dict(path: Path) -> Mapping[str, Any]:
    """Of torch's `weights_only` alone, nothing around the tensors; without timm."""
    state: Mapping[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def load_weights(
    network: torch.nn.Module,
    path: Path,
    timm_model: str | None,
    *,
    read: Callable[[Path], Mapping[str, Any]] = read_state_dict,
) -> None:
    """Load a state dict (safetensors, or torch's with `weights_only`; ViT's original .npz) into a network.

    By name, timm's or those of the original repository where timm converts them (its `checkpoint_filter_fn`); else in
    order where only the names differ. `timm_model` is the name that timm built the network by; nothing is asked of its
    classifier. Raises WeightsError naming what does not fit.
    """
    convert = _timm_conversion(timm_model) if timm_model else None
    try:
        if path.suffix == ".npz" and callable(load_original := getattr(network, "load_pretrained", None)):
            load_original(str(path))
            return
        state = read(path)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # what reads a damaged file may raise nearly anything
        raise WeightsError(
            f"{path} is not a state dict that torch.load(weights_only=True) or safetensors reads: {error}"
        ) from error
    if convert is not None:
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # timm prints what DINOv3's conversion leaves out
                state = convert(dict(state), network)
        except Exception as error:
            raise WeightsError(f"{path} cannot be converted to timm's {timm_model}: {error!r}") from error
    own = network.state_dict()
    aside = _classifiers(network) if timm_model else ()
    shapes = {name: tuple(getattr(value, "shape", ())) for name, value in state.items()}
    state = {n: v for n, v in state.items() if not n.startswith(aside) or (n in own and shapes[n] == own[n].shape)}
    weights = [name for name in own if not name.endswith("num_batches_tracked")]
    lacking = [name for name in weights if name not in state and not name.startswith(aside)]
    if not lacking:
        matched = {name: state[name] for name in own if name in state}
        if convert is not None and (more := [name for name in state if name not in own]):
            raise WeightsError(f"{path} holds {', '.join(more[:3])}, which {timm_model} has not")
    elif convert is not None:
        raise WeightsError(f"{path} lacks {len(lacking)} tensors of {timm_model}, such as {lacking[0]}")
    else:
        values = [value for name, value in state.items() if not name.endswith("num_batches_tracked")]
        if len(weights) != len(values):
            raise WeightsError(f"{path} has {len(values)} tensors, the network has {len(weights)}")
        matched = dict(zip(weights, values, strict=True))
    for name, value in matched.items():
        found = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        if found != tuple(own[name].shape):
            raise WeightsError(f"{path}: {name} has shape {found}, the network needs {tuple(own[name].shape)}")
    network.load_state_dict(matched, strict=False)


def _timm_conversion(model_name: str) -> Callable[[dict[str, Any], torch.nn.Module], dict[str, Any]] | None:
    """timm's own, of the module that the network is from: original names -> timm's."""
    module = sys.modules[timm.model_entrypoint(model_name).__module__]
    return getattr(module, "checkpoint_filter_fn", None)


def _classifiers(network: torch.nn.Module) -> tuple[str, ...]:
    """Prefixes of the names of a timm network's classifier."""
    named = getattr(network, "pretrained_cfg", {}).get("classifier") or ()
    return tuple(f"{name}." for name in ([named] if isinstance(named, str) else named))
