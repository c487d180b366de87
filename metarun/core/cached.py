"""The names of files in the folder of decoded images, `paths.cache`."""

from __future__ import annotations

EMBEDDINGS = "features-"
"""With which the names of files of embeddings begin."""
