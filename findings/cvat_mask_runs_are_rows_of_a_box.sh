#!/usr/bin/env bash
# cvat-sdk 2.80.0: CVAT's run lengths look like COCO's and are others: along rows, of a box that ends with its last
# pixel.
#
# cvat_sdk.masks.encode_mask gives a list of numbers that starts with the unmarked pixels, as COCO's counts do. One
# expects pycocotools to read them with the size of the box. CVAT counts along the rows of the box, COCO down the
# columns, and the last four numbers are the box, whose right and lower ends are the last pixels, not those after them.
# A shape of 3 + 1 pixels in two rows, read as COCO's counts, comes out as a square: with the same area, so that no
# check of sums finds it.
#
# Seen (the last lines of this script check it):
#   runs [0, 4, 2] box [2, 1, 4, 2]
#   drawn [[1, 1, 1], [1, 0, 0]]
#   read as COCO [[1, 1, 0], [1, 1, 0]]
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 pycocotools==2.0.10 cvat-sdk==2.80.0
cd "$work"

seen=$("$work/venv/bin/python" -W ignore - <<'PY'
import numpy as np
from cvat_sdk.masks import encode_mask
from pycocotools import mask

picture = np.zeros((6, 8), dtype=bool)
picture[1, 2:5] = True
picture[2, 2] = True
encoded = encode_mask(picture)
runs, (left, top, right, bottom) = encoded[:-4], encoded[-4:]
print("runs", runs, "box", [left, top, right, bottom])
size = [bottom - top + 1, right - left + 1]
read = mask.decode(mask.frPyObjects({"size": size, "counts": runs}, *size))
drawn = picture[top : bottom + 1, left : right + 1].astype(int)
print("drawn", drawn.tolist())
print("read as COCO", np.asarray(read).tolist())
PY
)

expected="runs [0, 4, 2] box [2, 1, 4, 2]
drawn [[1, 1, 1], [1, 0, 0]]
read as COCO [[1, 1, 0], [1, 1, 0]]"
printf '%s\n' "$seen"
if [ "$seen" != "$expected" ]; then
    printf 'the behaviour has changed; it was\n%s\n' "$expected" >&2
    exit 1
fi
