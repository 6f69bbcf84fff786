#!/usr/bin/env bash
# labelme 6.3.1: of a 16-bit TIFF one annotates another picture than the file's, stretched by its own extremes.
#
# A camera's picture in 16 bits: background 1000, a stain of 1010. One expects the stain to look alike wherever it
# stands. LabelFile.load_image_file (what the window shows, and what imageData holds) stretches each file from its own
# smallest to its own largest value to 8 bits: the stain is white (255) in the first file. In the second, which differs
# in one hot pixel of 60000 alone, background and stain become 0 and 0: nothing is left to annotate. The values go
# through JPEG as well, so imageData is never the file's pixels.
#
# Seen (the last lines of this script check it):
#   as it is JPEG background 0 stain 255
#   with a hot pixel JPEG background 0 stain 0
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet labelme==6.3.1 numpy==2.4.6 pillow==13.0.0 tifffile==2026.3.3
cd "$work"

seen=$("$work/venv/bin/python" -W ignore - <<'PY'
import io
import numpy as np
import tifffile
from PIL import Image
from labelme._label_file import LabelFile

picture = np.full((32, 32), 1000, np.uint16)
picture[8:16, 8:16] = 1010
hot = picture.copy()
hot[31, 31] = 60000
for name, values in (("as it is", picture), ("with a hot pixel", hot)):
    tifffile.imwrite("picture.tif", values)
    shown = Image.open(io.BytesIO(LabelFile.load_image_file("picture.tif")))
    pixels = np.asarray(shown)
    print(name, shown.format, "background", pixels[4, 20], "stain", pixels[12, 12])
PY
)

expected="as it is JPEG background 0 stain 255
with a hot pixel JPEG background 0 stain 0"
printf '%s\n' "$seen"
if [ "$seen" != "$expected" ]; then
    printf 'the behaviour has changed; it was\n%s\n' "$expected" >&2
    exit 1
fi
