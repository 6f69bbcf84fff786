#!/usr/bin/env bash
# datumaro 1.13.12: rotated boxes and ellipses of CVAT's XML are gone from COCO and YOLO, without an error.
#
# Three defects annotated in CVAT ("CVAT for images 1.1"): a box, the same box turned by 30 degrees, an ellipse. One
# expects COCO to hold three annotations, the turned box as a polygon or at least as its bounding box. The export holds
# the upright box alone. The turned one is read (as rotated_bbox) and dropped by the exporter; the ellipse is not even
# read. The image stays in the list, so it counts as completely annotated.
#
# Seen (the last lines of this script check it):
#   read ['bbox', 'rotated_bbox']
#   COCO [[10.0, 10.0, 20.0, 10.0]]
#   YOLO lines 1
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet datumaro==1.13.12 numpy==2.4.6 pycocotools==2.0.10
cd "$work"

seen=$("$work/venv/bin/python" -W ignore - <<'PY'
import json
import logging
from pathlib import Path
from datumaro import Dataset
from PIL import Image

logging.disable(logging.CRITICAL)
shapes = (
    '<box label="dent" xtl="10" ytl="10" xbr="30" ybr="20" z_order="0"/>'
    '<box label="dent" xtl="10" ytl="10" xbr="30" ybr="20" rotation="30" z_order="0"/>'
    '<ellipse label="dent" cx="40" cy="20" rx="10" ry="5" z_order="0"/>'
)
Path("task/images").mkdir(parents=True)
Image.new("RGB", (60, 40)).save("task/images/000.png")
Path("task/annotations.xml").write_text(
    "<annotations><version>1.1</version><meta><task><labels><label><name>dent</name><attributes/></label></labels>"
    f'</task></meta><image id="0" name="000.png" width="60" height="40">{shapes}</image></annotations>'
)
data = Dataset.import_from("task", "cvat")
print("read", [annotation.type.name for item in data for annotation in item.annotations])
data.export("coco", "coco_instances")
data.export("yolo", "yolo")
(written,) = Path("coco/annotations").glob("*.json")
print("COCO", [entry["bbox"] for entry in json.loads(written.read_text())["annotations"]])
print("YOLO lines", sum(len(p.read_text().splitlines()) for p in Path("yolo").rglob("000.txt")))
PY
)

expected="read ['bbox', 'rotated_bbox']
COCO [[10.0, 10.0, 20.0, 10.0]]
YOLO lines 1"
printf '%s\n' "$seen"
if [ "$seen" != "$expected" ]; then
    printf 'the behaviour has changed; it was\n%s\n' "$expected" >&2
    exit 1
fi
