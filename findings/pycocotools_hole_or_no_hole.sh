#!/usr/bin/env bash
# pycocotools 2.0.10: an inner ring is no hole, but the same ring within one polygon is.
#
# A ring of 20 x 20 with a hole of 10 x 10: 300 pixels. Written as two polygons of one annotation, outer and inner, in
# either direction of the inner one, one expects a hole, as SVG, GeoJSON and matplotlib draw it. The parts are united:
# 400 pixels. Written as one polygon that goes to the inner ring and back, the hole is there: 300. And a polygon that
# runs twice around its outline in one list marks nothing, since only the even-odd rule decides within it.
#
# Seen (the last lines of this script check it):
#   two polygons 400
#   two polygons, the inner one backwards 400
#   one polygon 300
#   one polygon, twice around 0
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 pycocotools==2.0.10
cd "$work"

seen=$("$work/venv/bin/python" -W ignore - <<'PY'
from pycocotools import mask

outer = [10.0, 10, 30, 10, 30, 30, 10, 30]
inner = [15.0, 15, 25, 15, 25, 25, 15, 25]
back = [15.0, 15, 15, 25, 25, 25, 25, 15]
for name, parts in (
    ("two polygons", [outer, inner]),
    ("two polygons, the inner one backwards", [outer, back]),
    ("one polygon", [[*outer, *outer[:2], *back, *back[:2]]]),
    ("one polygon, twice around", [[*outer, *outer]]),
):
    print(name, mask.decode(mask.merge(mask.frPyObjects(parts, 40, 60))).sum())
PY
)

expected="two polygons 400
two polygons, the inner one backwards 400
one polygon 300
one polygon, twice around 0"
printf '%s\n' "$seen"
if [ "$seen" != "$expected" ]; then
    printf 'the behaviour has changed; it was\n%s\n' "$expected" >&2
    exit 1
fi
