"""timm's networks, for any number of channels and classes."""

from __future__ import annotations

from typing import Any, cast

import timm
import torch
from huggingface_hub import constants, try_to_load_from_cache
from timm.data.config import resolve_data_config
from torch import nn

from dltrain.config import ConfigError, Diagnostic
from dltrain.data.pretrained import PretrainedInputs
from dltrain.data.types import ImageShape, Interpolation
from dltrain.models.impl.downloads import downloading, require_host
from dltrain.models.impl.fitting import fit
from dltrain.models.impl.library_options import Wishes


def build(name: str, shape: ImageShape, classes: int, wishes: Wishes) -> nn.Module:
    """The network `name` (with a tag, when pretrained): (B, C, H, W) -> (B, K).

    timm adapts pretrained weights itself: the first layer is summed for one channel, else repeated and
    scaled by 3 / C; position embeddings are resized; the last layer starts random unless the number of
    classes is that of the weights. Rates that the network has no place for are left out. Raises ConfigError
    when the network takes no such images, or a download fails.
    """
    label = wishes.label or f"timm/{name}"
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        message = f"timm {timm.__version__}, which is installed here, has no model `{architecture}`"
        raise ConfigError([Diagnostic(message, notes=("install a newer timm",))])
    config = _config(name)
    rates = {"drop_rate": wishes.dropout, "drop_path_rate": wishes.drop_path}
    rates = {option: rate for option, rate in rates.items() if rate is not None}

    def arguments(shape: ImageShape) -> dict[str, Any]:
        return {"num_classes": classes, **arguments_for(name, shape), **rates}

    def construct(shape: ImageShape) -> nn.Module:
        while True:
            try:
                network: nn.Module = timm.create_model(architecture, **arguments(shape))
                return wishes.stem(network)
            except TypeError as error:
                option = next((option for option in rates if option in str(error)), None)
                if option is None:
                    raise ValueError(str(error)) from error
                del rates[option]

    network = fit(label, shape, construct, config.fixed_input_size)
    if wishes.pretrained:
        with downloading(label, *_expected_file(config)):
            file = _cached_file(config)
            overlay = {"file": file} if file else None
            network = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **arguments(shape))
    return network


def arguments_for(name: str, shape: ImageShape) -> dict[str, Any]:
    """What timm must be told, beside the number of classes, for the network `name` of such images."""
    config = _config(name)
    other_size = config.fixed_input_size and (shape.height, shape.width) != tuple(config.input_size[1:])
    size = {"img_size": (shape.height, shape.width)} if other_size else {}
    return {"in_chans": shape.channels, **size}


def preprocessing(name: str) -> PretrainedInputs:
    """What the pretrained weights of `name` (with or without a tag) expect."""
    config = resolve_data_config(pretrained_cfg=_config(name).to_dict())
    height, width = config["input_size"][1:]
    interpolation = cast(Interpolation, config["interpolation"])
    return PretrainedInputs(
        tuple(config["mean"]), tuple(config["std"]), (height, width), config["crop_pct"], interpolation
    )


def _config(name: str) -> Any:
    """timm's record of the weights that `name` means: where they are, and what they expect."""
    return timm.get_pretrained_cfg(name)


def _expected_file(config: Any) -> tuple[str, str]:
    """The file of the weights, and the folder where it is looked for before a download."""
    if config.hf_hub_id:
        repository = "models--" + config.hf_hub_id.replace("/", "--")
        return (
            config.hf_hub_filename or "model.safetensors",
            f"{constants.HF_HUB_CACHE}/{repository}/snapshots/<commit>",
        )
    return config.url.rsplit("/", 1)[-1], f"{torch.hub.get_dir()}/checkpoints"


def _cached_file(config: Any) -> str | None:
    """The hub's cached file, if any: so that a second run asks no network. Raises OSError without one."""
    if not config.hf_hub_id:
        return None
    for file in [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]:
        if isinstance(found := try_to_load_from_cache(config.hf_hub_id, file), str):
            return found
    require_host(constants.ENDPOINT)
    return None
