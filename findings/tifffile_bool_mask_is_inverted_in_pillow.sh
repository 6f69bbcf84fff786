#!/usr/bin/env bash
# tifffile 2026.3.3 and Pillow 13.0.0: a mask of True and False comes back inverted from the other library.
#
# A mask with one marked pixel of 64, an array of bool, written by tifffile.imwrite. One expects every reader to see one
# marked pixel; the same mask as 0 and 255 in 8 bits is. tifffile writes one bit a pixel and calls it min-is-white,
# without inverting the values, and ignores that when it reads them. Pillow follows it and reads 63 marked pixels: all
# but the defect. The other way round it is alike: a mask that Pillow wrote (min-is-black) is read by both.
#
# Seen (the last lines of this script check it):
#   bool.tif tifffile 1 Pillow 63
#   uint8.tif tifffile 1 Pillow 1
#   pillow.tif tifffile 1 Pillow 1
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet tifffile==2026.3.3 numpy==2.4.6 pillow==13.0.0
cd "$work"

seen=$("$work/venv/bin/python" -W ignore - <<'PY'
import numpy as np
import tifffile
from PIL import Image

mask = np.zeros((8, 8), dtype=bool)
mask[2, 2] = True
tifffile.imwrite("bool.tif", mask)
tifffile.imwrite("uint8.tif", mask.astype(np.uint8) * 255)
Image.fromarray(mask).save("pillow.tif")
for name in ("bool.tif", "uint8.tif", "pillow.tif"):
    counts = [int((np.asarray(array) > 0).sum()) for array in (tifffile.imread(name), Image.open(name))]
    print(name, "tifffile", counts[0], "Pillow", counts[1])
PY
)

expected="bool.tif tifffile 1 Pillow 63
uint8.tif tifffile 1 Pillow 1
pillow.tif tifffile 1 Pillow 1"
printf '%s\n' "$seen"
if [ "$seen" != "$expected" ]; then
    printf 'the behaviour has changed; it was\n%s\n' "$expected" >&2
    exit 1
fi
