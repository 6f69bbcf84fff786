#!/usr/bin/env bash
# label-studio-converter 0.0.59: the box of a rotated rectangle is right on square images alone.
#
# Label Studio holds a rectangle in percent of the image's sides and a rotation in degrees. A rectangle of 20 x 10
# pixels, rotated by 30 degrees: its bounding box has 22.3 x 18.7 pixels, wherever it lies. The COCO export rotates the
# percentages before they become pixels, as if the image were square: on one of 60 x 40 pixels the bbox is 24.8 x 15.3.
# On 40 x 40 it is right. The export has no polygon of it, and Pascal VOC gets the rectangle without its rotation.
#
# Seen (the last lines of this script check it):
#   40 x 40: bbox 22.3 x 18.7, outline []
#   60 x 40: bbox 24.8 x 15.3, outline []
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet label-studio-converter==0.0.59 pillow==13.0.0
cd "$work"

seen=$("$work/venv/bin/python" -W ignore - <<'PY'
import json
import logging
from pathlib import Path
from label_studio_converter import Converter
from PIL import Image

logging.disable(logging.CRITICAL)
VIEW = (
    '<View><Image name="image" value="$image"/>'
    '<RectangleLabels name="r" toName="image"><Label value="dent"/></RectangleLabels></View>'
)
for width, height in ((40, 40), (60, 40)):
    Path("upload/1").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height)).save("upload/1/000.png")
    value = {"x": 1000 / width, "y": 1000 / height, "width": 2000 / width, "height": 1000 / height, "rotation": 30}
    result = {
        "id": "a", "from_name": "r", "to_name": "image", "type": "rectanglelabels", "image_rotation": 0,
        "original_width": width, "original_height": height, "value": {**value, "rectanglelabels": ["dent"]},
    }
    task = {"id": 1, "data": {"image": "/data/upload/1/000.png"}, "annotations": [{"result": [result]}]}
    Path("tasks.json").write_text(json.dumps([task]))
    out = f"out-{width}"
    Converter(VIEW, ".", upload_dir="upload").convert_to_coco("tasks.json", out, is_dir=False)
    (entry,) = json.loads(Path(out, "result.json").read_text())["annotations"]
    print(f"{width} x {height}: bbox {entry['bbox'][2]:.1f} x {entry['bbox'][3]:.1f}, outline {entry['segmentation']}")
PY
)

expected="40 x 40: bbox 22.3 x 18.7, outline []
60 x 40: bbox 24.8 x 15.3, outline []"
printf '%s\n' "$seen"
if [ "$seen" != "$expected" ]; then
    printf 'the behaviour has changed; it was\n%s\n' "$expected" >&2
    exit 1
fi
