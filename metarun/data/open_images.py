from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from metarun.data.images import ImageTasks
from metarun.data.union import check_members, open_member

Members = Mapping[str, Mapping[str, Any]]
"""Settings of a source that are to be other than its own, by its name."""


def open_images(
    open_source: Callable[..., Any], images: str, members: Members, example: str, **plan: Any
) -> ImageTasks:
    """Open the source of images that `data.images` names.

    Args:
        members: its settings are among them, if it has some.
        example: one that there is, for messages.
        plan: another EpisodePlan than the run's, as `plan`.
    Raises: ValueError if it has no images, or there are settings for another source.
    """
    check_members(members, [images], "data.images")
    source = open_member(open_source, images, members, **plan)
    if not isinstance(source, ImageTasks):
        raise ValueError(f"data.images={images} is not a source of images; data.images={example} is one")
    return source
