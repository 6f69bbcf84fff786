#!/usr/bin/env bash
# datumaro 1.13.12: a mask that is exported as polygons loses its holes, and a row and a column of pixels.
#
# A ring of 20 x 20 pixels with a hole of 10 x 10 (300 pixels), drawn as a mask in CVAT and exported to COCO with
# segmentation_mode="polygons". One expects a mask of about 300 pixels again. The polygon goes through the middles of
# the outer pixels (5 to 24 for 5 to 25) and has no hole: pycocotools makes 361 pixels of it. Without a hole a solid
# square of 20 x 20 goes the same way from 400 to 361. As run lengths (the mode that is guessed) it stays 300.
#
# Seen (the last lines of this script check it):
#   ring guess 300
#   ring polygons 361
#   square guess 400
#   square polygons 361
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet datumaro==1.13.12 numpy==2.4.6 pycocotools==2.0.10
cd "$work"

seen=$("$work/venv/bin/python" -W ignore - <<'PY'
import contextlib
import json
import logging
import os
from pathlib import Path
import numpy as np
from datumaro import Dataset
from PIL import Image
from pycocotools.coco import COCO

logging.disable(logging.CRITICAL)
ring = np.ones((20, 20), dtype=int)
ring[5:15, 5:15] = 0
ends = np.flatnonzero(np.diff(ring.ravel())) + 1
runs = ", ".join(map(str, [0, *np.diff([0, *ends, 400])]))
Path("task/images").mkdir(parents=True)
Image.new("RGB", (60, 40)).save("task/images/000.png")
for name, rle in (("ring", runs), ("square", "0, 400")):
    Path("task/annotations.xml").write_text(
        "<annotations><version>1.1</version><meta><task><labels><label><name>dent</name><attributes/></label></labels>"
        '</task></meta><image id="0" name="000.png" width="60" height="40"><mask label="dent" '
        f'rle="{rle}" left="5" top="10" width="20" height="20" z_order="0"/></image></annotations>'
    )
    for mode in ("guess", "polygons"):
        Dataset.import_from("task", "cvat").export(f"{name}-{mode}", "coco_instances", segmentation_mode=mode)
        (written,) = Path(f"{name}-{mode}/annotations").glob("*.json")
        with contextlib.redirect_stdout(open(os.devnull, "w")):
            coco = COCO(written)
        (entry,) = coco.anns.values()
        print(name, mode, coco.annToMask(entry).sum())
PY
)

expected="ring guess 300
ring polygons 361
square guess 400
square polygons 361"
printf '%s\n' "$seen"
if [ "$seen" != "$expected" ]; then
    printf 'the behaviour has changed; it was\n%s\n' "$expected" >&2
    exit 1
fi
