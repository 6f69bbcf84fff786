"""An upload against the images that it spares."""

from __future__ import annotations

from pipeline_lib.upload.volume import more_than_images, sent_text


def test_only_those_who_send_more_than_their_images_are_named_and_told_what_to_do() -> None:
    assert sent_text(11_000_000, 2_700_000) == "11 MB for 2.7 MB of images (4.1 times)"
    assert sent_text(500_000, 0) == "0.5 MB for 0 MB of images"
    assert more_than_images({"a": (100, 100), "b": (5, 0)}) == ""
    assert more_than_images({"a": (1_100_000, 1_000_000), "b": (1, 2), "c": (3_000_000, 1_000_000)}) == (
        "more is sent than the images themselves have: a 1.1 MB for 1 MB of images (1.1 times), "
        "c 3 MB for 1 MB of images (3 times); lower model.coreset_percentage, or set upload.codec"
    )
