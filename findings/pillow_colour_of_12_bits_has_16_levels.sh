#!/usr/bin/env bash
# Pillow 13.0.0: a 16-bit colour TIFF of a 12-bit camera is read with 16 levels, a grey one with all.
#
# A camera of 12 bits writes 0 to 4095 into 16-bit TIFFs. One expects grey and colour to be read alike: as 16-bit
# values, or an error where there is no mode for them. Grey is (I;16, 4096 levels). Colour is opened as RGB with 8 bits,
# the high byte of each value, so that 16 levels are left and the brightest pixel of a well exposed picture is 15 of
# 255. tifffile 2026.3.3 reads all 4096 of both.
#
# Seen (the last lines of this script check it):
#   grey.tif I;16 4096 levels up to 4095 - tifffile 4096
#   colour.tif RGB 16 levels up to 15 - tifffile 4096
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

grey = np.arange(4096, dtype=np.uint16).reshape(64, 64)
tifffile.imwrite("grey.tif", grey, photometric="minisblack")
tifffile.imwrite("colour.tif", np.stack([grey] * 3, axis=2), photometric="rgb")
for name in ("grey.tif", "colour.tif"):
    image = Image.open(name)
    pixels, all_bits = np.asarray(image), tifffile.imread(name)
    levels = len(np.unique(pixels))
    print(name, image.mode, levels, "levels up to", pixels.max(), "- tifffile", len(np.unique(all_bits)))
PY
)

expected="grey.tif I;16 4096 levels up to 4095 - tifffile 4096
colour.tif RGB 16 levels up to 15 - tifffile 4096"
printf '%s\n' "$seen"
if [ "$seen" != "$expected" ]; then
    printf 'the behaviour has changed; it was\n%s\n' "$expected" >&2
    exit 1
fi
