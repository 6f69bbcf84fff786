#!/usr/bin/env bash
# labelme 6.3.1: small shapes mark far more pixels than they measure, and than the same numbers in COCO.
#
# A rectangle from 100,100 to 105,105 measures 5 x 5. One expects 25 pixels, as pycocotools 2.0.10 has for the box [100,
# 100, 5, 5]. labelme.utils.shape_to_mask takes both corners for pixels that are marked: 6 x 6 = 36 pixels, 44 % more. A
# circle of radius 5 (area 78.5) marks 97, 24 % more. So small defects drawn in labelme and converted to COCO by their
# numbers do not keep their area.
#
# Seen (the last lines of this script check it):
#   labelme rectangle 36
#   pycocotools box 25
#   labelme circle of radius 5 97
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet labelme==6.3.1 numpy==2.4.6 pillow==13.0.0 pycocotools==2.0.10
cd "$work"

seen=$("$work/venv/bin/python" -W ignore - <<'PY'
import numpy as np
from labelme.utils import shape_to_mask
from pycocotools import mask

rectangle = shape_to_mask((200, 200), [[100, 100], [105, 105]], "rectangle")
box = mask.decode(mask.frPyObjects(np.array([[100.0, 100.0, 5.0, 5.0]]), 200, 200))
circle = shape_to_mask((200, 200), [[100, 100], [105, 100]], "circle")
print("labelme rectangle", rectangle.sum())
print("pycocotools box", box.sum())
print("labelme circle of radius 5", circle.sum())
PY
)

expected="labelme rectangle 36
pycocotools box 25
labelme circle of radius 5 97"
printf '%s\n' "$seen"
if [ "$seen" != "$expected" ]; then
    printf 'the behaviour has changed; it was\n%s\n' "$expected" >&2
    exit 1
fi
