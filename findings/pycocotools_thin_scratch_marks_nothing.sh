#!/usr/bin/env bash
# pycocotools 2.0.10: whether a thin scratch exists depends on where it lies between the pixels.
#
# A scratch of 20 pixels length as a polygon. One expects the mask to be about as large as the polygon's area, and the
# wider one to be the larger. frPyObjects marks a pixel where its middle is inside: a scratch 0.8 wide from x 10.6 to
# 11.4 has area 16 and marks nothing at all, one 0.2 wide from 10.4 to 10.6 has area 4 and marks 20 pixels. annToMask
# then gives an empty mask for an annotation whose area and bbox are fine.
#
# Seen (the last lines of this script check it):
#   from 10.6 to 11.4: area 16, pixels 0
#   from 10.4 to 10.6: area 4, pixels 20
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 pycocotools==2.0.10
cd "$work"

seen=$("$work/venv/bin/python" -W ignore - <<'PY'
from pycocotools import mask

for left, right in ((10.6, 11.4), (10.4, 10.6)):
    scratch = [left, 5.0, right, 5.0, right, 25.0, left, 25.0]
    marked = mask.decode(mask.frPyObjects([scratch], 40, 60)).sum()
    print(f"from {left} to {right}: area {(right - left) * 20:.0f}, pixels {marked}")
PY
)

expected="from 10.6 to 11.4: area 16, pixels 0
from 10.4 to 10.6: area 4, pixels 20"
printf '%s\n' "$seen"
if [ "$seen" != "$expected" ]; then
    printf 'the behaviour has changed; it was\n%s\n' "$expected" >&2
    exit 1
fi
