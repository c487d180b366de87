"""Classes that became another class with a setting: saved settings still call them by their old names."""

from __future__ import annotations

from typing import Any

RENAMED: dict[str, tuple[str, dict[str, Any]]] = {
    "metarun.algos.fomaml.FOMAML": ("metarun.algos.gradient.maml.MAML", {"first_order": True}),
    "metarun.data.cifar_fs.CifarFS": ("metarun.data.cifar100.CIFAR100Tasks", {"name": "cifar_fs"}),
    "metarun.data.fc100.FC100": ("metarun.data.cifar100.CIFAR100Tasks", {"name": "fc100"}),
    "metarun.data.mini_imagenet.MiniImageNet": ("metarun.data.imagenet.ImageNetTasks", {"name": "mini_imagenet"}),
    "metarun.data.tiered_imagenet.TieredImageNet": ("metarun.data.imagenet.ImageNetTasks", {"name": "tiered_imagenet"}),
}
"""The first name of a class, as in runs of November 2026: its name of today, and the settings that it gets."""
