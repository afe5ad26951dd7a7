"""Networks and weights from other sources: timm, torchvision, a local file, a user's own module."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from epsbench.models.base import DataShape
from epsbench.models.layers import CopiesInput, Normalise, rounded
from epsbench.models.outputs import remedy
from epsbench.models.preprocessing import Preprocessing

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# What networks raise for an input of a shape that they cannot process.
_REFUSALS = (RuntimeError, ValueError, AssertionError, IndexError, TypeError, AttributeError)
# torchvision's two networks with auxiliary heads. Without these heads they return logits and not a tuple.
_AUXILIARY: dict[str, dict[str, bool]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}


class HubNetwork(nn.Module):
    """Another library's network and what its input needs: grey to colour, resizing, normalisation."""

    def __init__(
        self,
        network: nn.Module,
        normalise: Normalise,
        size: tuple[int, int] | None = None,
        preprocessing: Preprocessing | None = None,
        replaced: int = 0,
    ) -> None:
        """``size`` is the only (height, width) that the network takes; None: it takes the data's images as they are.

        ``preprocessing`` is what the network's library says of its images. ``replaced`` is the number of classes of a
        trained last layer that an untrained one for the data's classes took the place of; 0: none did.
        """
        super().__init__()
        self.replaced = replaced
        self.preprocessing = replace(preprocessing, scaled_to=size or ()) if preprocessing else None
        self.normalise = normalise
        self.network = network
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Pixels (N, C, H, W) in [0, 1] to logits (N, classes)."""
        if self.size is not None:
            x = F.interpolate(x, self.size, mode="bilinear", align_corners=False)
        return self.network(self.normalise(x))


def timm_classifier(name: str, data: DataShape, pretrained: bool) -> nn.Module:
    """A timm classifier for the data's channels and classes, which normalises with timm's statistics.

    Raises `ValueError` for an unknown name, for weights that cannot be loaded, and when the data's images do not fit.
    """
    import timm

    if not timm.is_model(name):
        raise ValueError(f"timm has no model {name!r}{_near(name, timm.list_models())}")
    channels, height, width = data.shape

    def create(**extra: Any) -> nn.Module:
        with _weights_of("timm", name):
            return timm.create_model(name, pretrained=pretrained, num_classes=data.classes, in_chans=channels, **extra)

    def prepared(network: nn.Module, size: tuple[int, int] | None = None) -> nn.Module:
        known = _of_timm(network.pretrained_cfg, channels)  # type: ignore[arg-type]
        of_weights = int(network.pretrained_cfg["num_classes"]) if pretrained else 0  # type: ignore[index]
        replaced = of_weights if of_weights != data.classes else 0
        whole = HubNetwork(network, Normalise(known.mean, known.std), size, known, replaced)
        return verified(whole, data, f"timm:{name}")

    try:
        network = create(img_size=(height, width))
    except TypeError:  # a convolutional network, which takes any size
        network = create()
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", (1, 1))
    if height % patch[0] == 0 and width % patch[1] == 0:  # otherwise it would silently ignore the last pixels
        try:
            return prepared(network)
        except ValueError:  # images too small for its pooling, or no multiple of its windows
            pass
    network = create()
    return prepared(network, tuple(network.pretrained_cfg["input_size"][1:]))  # type: ignore[index]


def torchvision_classifier(name: str, data: DataShape, pretrained: bool) -> nn.Module:
    """A torchvision classifier for the data's classes. Grey images are repeated to three channels.

    Raises `ValueError` for an unknown name, for weights that cannot be loaded, and when the data's images do not fit.
    """
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise ValueError(f"torchvision has no classifier {name!r}{_near(name, known)}")
    weights = models.get_model_weights(name).DEFAULT
    preprocessing, replaced = _of_torchvision(weights), 0
    if pretrained:
        with _weights_of("torchvision", name):
            network = models.get_model(name, weights=weights)
        _without_auxiliary_heads(network)
        if data.classes != len(weights.meta["categories"]):
            replaced = len(weights.meta["categories"])
            _replace_head(network, replaced, data.classes)
    else:
        network = models.get_model(name, weights=None, num_classes=data.classes, **_AUXILIARY.get(name, {}))
    # The statistics have three channels: normalising by them broadcasts one grey channel to three.
    if not pretrained:
        preprocessing = replace(preprocessing, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    normalise = Normalise(preprocessing.mean, preprocessing.std)
    try:
        return verified(HubNetwork(network, normalise, None, preprocessing, replaced), data, f"torchvision:{name}")
    except ValueError:  # images too small for its pooling, or not the one size that it takes
        size = (preprocessing.crop, preprocessing.crop)
        return verified(HubNetwork(network, normalise, size, preprocessing, replaced), data, f"torchvision:{name}")


def require_trained_head(network: nn.Module, classes: int) -> None:
    """Raise `ValueError` where the last layer took the place of a trained one, and nothing will train it."""
    for module in network.modules():
        if isinstance(module, HubNetwork) and module.replaced:
            raise ValueError(
                f"its pretrained weights are for {module.replaced} classes and the data has {classes}, so its last "
                f"layer would be untrained; say which of the {module.replaced} classes the data has, as in data = "
                '{ name = "folder", path = "photos", classes = "imagenet" }, or train it: set epochs'
            )


def published(library: str, name: str) -> Preprocessing | None:
    """What ``timm`` or ``torchvision`` says of the images of a network, without building it; None: it knows none."""
    if library == "timm":
        import timm

        settings = timm.get_pretrained_cfg(name)
        return None if settings is None else _of_timm(settings.to_dict(), 3)
    from torchvision import models

    return _of_torchvision(models.get_model_weights(name).DEFAULT)


def preprocessing_of(network: nn.Module) -> Preprocessing | None:
    """What is known of a network's images: of the outermost part that says it; None where no part does."""
    parts = (getattr(module, "preprocessing", None) for module in network.modules())
    return next((part for part in parts if isinstance(part, Preprocessing)), None)


def _of_timm(settings: Mapping[str, Any], channels: int) -> Preprocessing:
    """timm scales the shorter side to the crop's side over ``crop_pct``."""
    mean, std = (tuple(_for_channels(settings[key], channels)) for key in ("mean", "std"))
    crop = int(settings["input_size"][-1])
    return Preprocessing("timm", mean, std, int(crop / settings["crop_pct"]), crop, settings["interpolation"])


def _of_torchvision(weights: Any) -> Preprocessing:
    settings = weights.transforms()
    return Preprocessing(
        "torchvision", tuple(settings.mean), tuple(settings.std), settings.resize_size[0], settings.crop_size[0],
        settings.interpolation.value,
    )  # fmt: skip


def normalised(
    network: nn.Module, mean: Sequence[float], std: Sequence[float], data: DataShape, source: str = "suite"
) -> nn.Module:
    """The network behind a normalisation; that of timm and torchvision, which is ours, is replaced.

    ``source`` is who gives the numbers, as in `Preprocessing`. Raises `ValueError` unless there is a mean for each
    channel, and where the network normalises its images itself: then they would be normalised twice.
    """
    if len(mean) != data.shape[0]:
        raise ValueError(f"mean has {len(mean)} numbers, and the images of {data.name} have {data.shape[0]} channels")
    # Of what its library says of a network's images, resize and crop still hold.
    known = preprocessing_of(network) or Preprocessing("", (), ())
    given = replace(known, source=source, mean=tuple(mean), std=tuple(std))
    if isinstance(network, HubNetwork):
        channels = network.normalise.mean.numel()
        ours = Normalise(_for_channels(mean, channels), _for_channels(std, channels))
        return HubNetwork(network.network, ours, network.size, given)
    layers = [module for module in network.modules() if isinstance(module, Normalise)]
    if layers:
        raise ValueError(
            f"images would be normalised twice: the architecture does it with mean {rounded(layers[0].mean)} and std "
            f"{rounded(layers[0].std)}; leave mean and std out, or give an architecture of your own that does not "
            "normalise"
        )
    return HubNetwork(network, Normalise(mean, std), None, given)


def verified(network: Any, data: DataShape, name: str) -> nn.Module:
    """Return ``network`` after checking that it turns the data's images into logits (N, classes).

    A network that writes into the images is returned behind a copy of them.

    Raises `ValueError` when it is no module, does not take the images, or returns something else.
    """
    if not isinstance(network, nn.Module):
        raise ValueError(f"model {name} gave {type(network).__name__} where a torch.nn.Module is needed")
    if any(isinstance(module, torch.jit.ScriptModule) for module in network.modules()):
        raise ValueError(
            f"model {name} is a TorchScript module, which can neither be copied nor prepared for attack; "
            "give the Python module that it was made from"
        )
    was_training = network.training
    _set_mode(network, False)
    probe = torch.full((2, *data.shape), 0.5)
    try:
        with torch.no_grad():
            logits = network(probe)
    except _REFUSALS as error:
        shape = "×".join(map(str, data.shape))
        raise ValueError(f"model {name} does not take the {shape} images of {data.name}: {error}") from error
    finally:
        _set_mode(network, was_training)
    if not isinstance(logits, Tensor) or logits.shape != (2, data.classes):
        outputs = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"model {name} gives {outputs} for 2 images of {data.name}; logits of shape (2, {data.classes}) are needed"
            f"{remedy(logits, 2, data.classes) or _other_classes(logits, data)}"
        )
    writes = bool((probe != 0.5).any()) or getattr(probe, "_version", 0) > 0
    return CopiesInput(network) if writes else network


def _other_classes(logits: Any, data: DataShape) -> str:
    """What to do where a model has another number of classes than the data; empty where that is not the fault."""
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 2:
        return ""
    if logits.shape[1] < data.classes:
        return (
            f"; the data has {data.classes} classes, with labels from 0 to {data.classes - 1}: correct the labels, or "
            "take a model that knows all of these classes"
        )
    return (
        f"; the data has {data.classes} classes: where the model knows more, say so there, as in "
        f"test.npz:classes={logits.shape[1]}, or for a folder with a list of the model's classes, as in "
        "folder:path=photos,classes=names.txt (or classes=imagenet)"
    )


def _set_mode(network: nn.Module, training: bool) -> None:
    """The mode of every module, set without a method that a class may have redefined for something else."""
    for module in network.modules():
        module.training = training


@contextmanager
def _weights_of(library: str, name: str) -> Iterator[None]:
    """Raise one `ValueError` for all the ways in which a download fails."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        # timm raises a RuntimeError for a model without weights; any other RuntimeError is a fault and passes through.
        if isinstance(error, RuntimeError) and "pretrained" not in str(error).lower():
            raise
        raise ValueError(
            f"pretrained weights of {library}:{name} cannot be had ({' '.join(str(error).split())[:200]}); go online, "
            "set pretrained = false, or load a local file with file:PATH"
        ) from error


def _near(name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, n=3)
    return f"; did you mean {', '.join(map(repr, near))}?" if near else ""


def _for_channels(values: Sequence[float], channels: int) -> Sequence[float]:
    """Statistics for this number of channels: when it differs from theirs, their mean for each channel."""
    return values if len(values) == channels else [sum(values) / len(values)] * channels


def _without_auxiliary_heads(network: nn.Module) -> None:
    for name in ("AuxLogits", "aux1", "aux2"):
        if hasattr(network, name):
            setattr(network, name, None)
    if hasattr(network, "aux_logits"):
        network.aux_logits = False  # type: ignore[assignment]


def _replace_head(network: nn.Module, old: int, new: int) -> None:
    """Replace the last layer, which has ``old`` outputs, by an untrained one with ``new``."""
    makers: dict[type[nn.Module], Callable[[Any], nn.Module]] = {
        nn.Linear: lambda layer: nn.Linear(layer.in_features, new, layer.bias is not None),
        nn.Conv2d: lambda layer: nn.Conv2d(layer.in_channels, new, layer.kernel_size),
    }
    for path, layer in reversed(list(network.named_modules())):
        outputs = getattr(layer, "out_features", getattr(layer, "out_channels", None))
        if type(layer) in makers and outputs == old:
            parent, _, name = path.rpartition(".")
            setattr(network.get_submodule(parent), name, makers[type(layer)](layer))
            return
    raise ValueError(f"no last layer of {old} classes to replace; build it with pretrained = false")
