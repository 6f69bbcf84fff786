"""Whether an upload is worth it: what is sent against the image files that stay."""

from __future__ import annotations

from collections.abc import Mapping

ADVICE = "lower model.coreset_percentage, or set upload.codec"


def sent_text(sent_bytes: int, image_bytes: int) -> str:
    """Such as "11 MB for 2.7 MB of images (4.1 times)"."""
    times = f" ({sent_bytes / image_bytes:.2g} times)" if image_bytes else ""
    return f"{sent_bytes / 1e6:.3g} MB for {image_bytes / 1e6:.3g} MB of images{times}"


def more_than_images(volumes: Mapping[str, tuple[int, int]]) -> str:
    """A sentence on the clients that send more bytes than their images have, and what to do; empty without any.

    volumes: client -> (bytes sent, bytes of its image files); 0 of the latter: not known.
    """
    beyond = [f"{name} {sent_text(sent, images)}" for name, (sent, images) in volumes.items() if sent > images > 0]
    return f"more is sent than the images themselves have: {', '.join(beyond)}; {ADVICE}" if beyond else ""
