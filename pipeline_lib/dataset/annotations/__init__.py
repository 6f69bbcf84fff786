"""Drawn annotations (labelme, COCO, Pascal VOC): the image that they belong to, and the masks that the tool would make.

In: files of annotations, images. Out: masks by name, for `importing`; what cannot be used is listed, never used in
part. Read `outlines` and `reading` first; `labelme`, `coco` and `voc` are the formats, `drawing` and `run_lengths`
their pixels; `matching` finds the image, `fitting` its size and turn.
"""
