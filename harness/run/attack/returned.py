"""What an attack hands back: images of the right kind, or a message that says what came."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from epsbench.attacks.base import Attack, State
from epsbench.attacks.norms import Norm

_ROUNDING = 1e-4  # relative, and absolute: other libraries project in other ways
_SLACK = 0.05  # of the pixel range: an attack that leaves the box a little is projected and not suspected


def checked_images(attack: Attack, images: Any, x: Tensor) -> Tensor:
    """The images as float32 (N, C, H, W). Raises `ValueError`, naming the attack, for anything that is none."""
    wanted = f"perturb must return a tensor of shape (N, C, H, W), here {tuple(x.shape)}, of pixels in [0, 1]"
    return _images(type(attack).__name__, images, x, wanted)


def checked_step(attack: Attack, returned: Any, x: Tensor, before: State | None = None) -> tuple[Tensor, State]:
    """The points, as ``x`` (N, C, H, W) in type and device, and the state of a start or a step.

    ``before`` is the state that a step was given. The new one must have the same names, shapes and types: rows of
    different steps lie side by side, and a name that a row does not have yet would not be handed on. Raises
    `ValueError`, naming the attack, for anything that is none.
    """
    name, n = type(attack).__name__, len(x)
    if not (isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[1], dict)):
        raise ValueError(f"attack {name} returned {_kind(returned)}; start and step must return (points, state)")
    points, state = returned
    points = _images(name, points, x, f"its next points must be a tensor of shape (N, C, H, W), here {tuple(x.shape)}")
    for key, value in state.items():
        if not isinstance(value, Tensor) or value.shape[:1] != (n,):
            kind = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else _kind(value)
            raise ValueError(
                f"attack {name} has {kind} as state {key!r}; it must be a tensor with {n} rows, one an image"
            )
    if before is not None:
        _require_alike(name, before, state)
    return points, {key: value.detach() if value.requires_grad else value for key, value in state.items()}


def _require_alike(name: str, before: State, after: State) -> None:
    for key in sorted(before.keys() | after.keys()):
        if key not in before:
            raise ValueError(
                f"attack {name} has state {key!r} after a step and not before the first one; give every row its value "
                "at the start, in state(x) or start(rows)"
            )
        if key not in after:
            raise ValueError(f"attack {name} leaves out state {key!r} after a step; return all of the state each time")
        old, new = before[key], after[key]
        if old.dtype != new.dtype or old.shape[1:] != new.shape[1:]:
            was, now = (f"(N, *{tuple(each.shape[1:])}) {each.dtype}" for each in (old, new))
            raise ValueError(
                f"attack {name} changes state {key!r} from {was} to {now}; keep its shape and type from the start on"
            )


def _kind(value: Any) -> str:
    if value is None:
        return "None"
    size = f" of {len(value)}" if isinstance(value, tuple | list) else ""
    name = type(value).__name__
    return f"a{'n' if name[0].lower() in 'aeio' else ''} {name}{size}"


def _images(name: str, images: Any, x: Tensor, wanted: str) -> Tensor:
    if not isinstance(images, Tensor):
        raise ValueError(f"attack {name} returned {_kind(images)}; {wanted}")
    if images.shape != x.shape:
        raise ValueError(f"attack {name} returned a tensor of shape {tuple(images.shape)}; {wanted}")
    if not images.is_floating_point():
        raise ValueError(f"attack {name} returned {images.dtype} images; {wanted}")
    if images.device != x.device:
        raise ValueError(f"attack {name} returned images on {images.device}, not on {x.device}; {wanted}")
    return images.detach().float() if images.requires_grad or images.dtype != torch.float32 else images


@dataclass
class Returned:
    """How many returned images were not where an adversarial image may be, before they were projected."""

    images: int = 0
    """Images that came back."""

    beyond_ball: int = 0
    """Of those: further from their original than ε."""

    no_pixels: int = 0
    """Of those: with values that no step of about ε makes of pixels in [0, 1], such as 255 or normalised values."""

    elsewhere: int = 0
    """Of the images that were looked at: those of which a changed copy within the ball was asked about."""

    unkeyed: int = 0
    """Of a user's own attack, with a loop or without: calls that drew from a global random generator."""

    def note(self, images: Tensor, x: Tensor, eps: Tensor, norm: Norm) -> None:
        """Count images (N, C, H, W) that an attack returned for ``x`` at ``eps`` (N, 1, 1, 1)."""
        radius = eps.flatten()
        flat = images.flatten(1)
        far = norm.size(images - x) > radius * (1 + _ROUNDING) + _ROUNDING
        slack = 2 * radius + _SLACK
        outside = (flat.amin(1) < -slack) | (flat.amax(1) > 1 + slack)
        counts = torch.stack([far.sum(), outside.sum()]).tolist()
        self.images += len(images)
        self.beyond_ball += counts[0]
        self.no_pixels += counts[1]

    def add(self, other: Returned) -> None:
        """Add the counts of another one to these."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))
