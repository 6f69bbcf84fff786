"""Files of annotations and the masks that labelme and pycocotools make of them: what fedpatch's are compared with.

Made once, in an environment of its own, by

    pip install labelme==6.3.1 pycocotools==2.0.10 datumaro==1.13.12 label-studio-converter==0.0.59 numpy==2.4.6 pillow==13.0.0
    python tests/drawn_masks/make.py

labelme.json, coco.json and voc.xml are written here; the others by the libraries that export CVAT's and Label Studio's
annotations. masks.json: file -> label -> run lengths along the rows, the first of them unmarked.
"""  # noqa: E501

from __future__ import annotations

import base64
import io
import json
import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from datumaro import Dataset
from label_studio_converter import Converter
from labelme.utils import shape_to_mask
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

HERE = Path(__file__).parent
WIDTH, HEIGHT = 48, 40
RNG = np.random.default_rng(0)
Masks = dict[str, list[int]]


def runs(mask: np.ndarray) -> list[int]:
    flat = np.concatenate([[False], mask.astype(bool).ravel(), [True]])
    ends = np.flatnonzero(np.diff(flat))
    return [int(count) for count in np.diff([0, *ends, mask.size])]


def write(name: str, content: Any) -> None:
    (HERE / name).write_text(json.dumps(content, indent=1) + "\n")


def some_polygons() -> list[list[list[float]]]:
    """Whole numbers, tenths, any numbers, halves with a point twice, and one that leaves the image."""
    found = []
    for digits, count, low, high in ((0, 3, 2, 36), (1, 5, 2, 36), (9, 7, 2, 36), (0, 4, -8, 52), (9, 12, 5, 30)):
        found.append([[round(float(v), digits) for v in point] for point in RNG.uniform(low, high, (count, 2))])
    half = [[10.5, 5.5], [10.5, 5.5], [30.5, 8.5], [24.5, 33.5], [12.0, 20.0]]
    return [*found, half, [[3.2, 3.2], [3.3, 30.0], [3.4, 3.2]]]


def labelme_masks() -> Masks:
    box, masks = [[10, 5], [19, 14]], {}
    turned = [[20.0, 4.0], [36.5, 13.5], [31.5, 22.2], [15.0, 12.7]]
    shapes: list[dict[str, Any]] = [{"shape_type": "polygon", "points": points} for points in some_polygons()]
    shapes += [
        {"shape_type": "rectangle", "points": box},
        {"shape_type": "rectangle", "points": [[30.7, 30.2], [12.4, 8.9]]},
        {"shape_type": "rectangle", "points": [[-5, 20], [6.5, 60]]},
        {"shape_type": "circle", "points": [[20, 20], [29, 20]]},
        {"shape_type": "circle", "points": [[40.3, 30.6], [35.1, 25.2]]},
        {"shape_type": "oriented_rectangle", "points": turned},
    ]
    for number, shape in enumerate(shapes):
        masks[f"{number:02d}"] = shape_to_mask((HEIGHT, WIDTH), shape["points"], shape["shape_type"])
    # as X-AnyLabeling writes them; labelme draws them under the name that it has for four corners
    for label, kind, points in (
        ("rotation", "rotation", turned),
        ("four corners", "rectangle", [[10, 5], [19, 5], [19, 14], [10, 14]]),
    ):
        shapes.append({"shape_type": kind, "points": points, "label": label})
        masks[label] = shape_to_mask((HEIGHT, WIDTH), points, "oriented_rectangle")
    crop = RNG.random((6, 9)) < 0.5
    buffer = io.BytesIO()
    Image.fromarray(crop.astype(np.uint8) * 255).save(buffer, "PNG")
    text = base64.b64encode(buffer.getvalue()).decode()
    shapes.append({"shape_type": "mask", "points": [[30, 2], [38, 7]], "label": "mask", "mask": text})
    masks["mask"] = np.zeros((HEIGHT, WIDTH), dtype=bool)
    masks["mask"][2 : 7 + 1, 30 : 38 + 1] = crop  # as labelme.utils.shapes_to_label
    parts = [[[2, 30], [8, 30], [8, 36]], [[40, 2], [46, 2], [46, 9]]]
    shapes += [{"shape_type": "polygon", "points": p, "label": "group", "group_id": 4} for p in parts]
    masks["group"] = np.logical_or(*(shape_to_mask((HEIGHT, WIDTH), p) for p in parts))
    for number, shape in enumerate(shapes):
        shape.setdefault("label", f"{number:02d}")
    head = {"version": "6.3.1", "imagePath": "labelme.png", "imageWidth": WIDTH, "imageHeight": HEIGHT}
    write("labelme.json", {**head, "shapes": shapes})
    return {label: runs(mask) for label, mask in masks.items()}


def coco_file(name: str, annotations: list[dict[str, Any]]) -> None:
    image = {"id": 1, "file_name": f"{Path(name).stem}.png", "width": WIDTH, "height": HEIGHT}
    content = [
        {"id": number, "image_id": 1, "category_id": number, "iscrowd": 0, **annotation}
        for number, annotation in enumerate(annotations, start=1)
    ]
    names = [{"id": entry["id"], "name": f"{entry['id']:02d}"} for entry in content]
    write(name, {"images": [image], "annotations": content, "categories": names})


def turned_box(x: float, y: float, width: float, height: float, degrees: float) -> list[float]:
    """The corners that CVAT makes of a box with rotation (RotatedBoxesToPolygons)."""
    angle, cx, cy = math.radians(degrees), x + width / 2, y + height / 2
    corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
    return [
        value
        for px, py in corners
        for value in (
            cx + math.cos(angle) * (px - cx) - math.sin(angle) * (py - cy),
            cy + math.sin(angle) * (px - cx) + math.cos(angle) * (py - cy),
        )
    ]


def coco_masks(name: str) -> Masks:
    """annToMask of each annotation of a file; of a box alone, pycocotools' mask of the box."""
    coco = COCO(HERE / name)
    masks = {}
    for entry in coco.anns.values():
        label = coco.cats[entry["category_id"]]["name"]
        if entry["segmentation"]:
            mask = coco.annToMask(entry)
        elif rotation := entry.get("attributes", {}).get("rotation"):
            corners = turned_box(*entry["bbox"], rotation)
            mask = coco_mask.decode(coco_mask.frPyObjects([corners], HEIGHT, WIDTH))[:, :, 0]
        else:
            mask = coco_mask.decode(coco_mask.frPyObjects(np.array([entry["bbox"]], dtype=float), HEIGHT, WIDTH))[
                :, :, 0
            ]
        masks[label] = runs(mask)
    return masks


def box_mask(left: float, top: float, right: float, bottom: float) -> list[int]:
    box = np.array([[left, top, right - left, bottom - top]], dtype=float)
    return runs(coco_mask.decode(coco_mask.frPyObjects(box, HEIGHT, WIDTH))[:, :, 0])


def make_coco() -> Masks:
    flat = [[value for point in polygon for value in point] for polygon in some_polygons()[:-1]]
    noise = np.asfortranarray(RNG.random((HEIGHT, WIDTH)) < 0.3).astype(np.uint8)
    full = np.asfortranarray(np.ones((HEIGHT, WIDTH), dtype=np.uint8))
    compressed = [{"size": r["size"], "counts": r["counts"].decode()} for r in map(coco_mask.encode, (noise, full))]
    counts = np.diff([0, *(np.flatnonzero(np.diff(noise.ravel("F"), prepend=0))), noise.size]).tolist()
    coco_file(
        "coco.json",
        [
            *({"segmentation": [polygon]} for polygon in flat),
            {"segmentation": flat[:2]},
            *({"segmentation": rle} for rle in compressed),
            {"segmentation": {"size": [HEIGHT, WIDTH], "counts": counts}, "iscrowd": 1},
            *(
                {"segmentation": [], "bbox": box}
                for box in ([10, 10, 5, 5], [0.4, 0.6, 7.7, 3.2], [40.5, 30.5, 20, 20], [7.25, 9.75, 11.5, 1.5])
            ),
            {"segmentation": [], "bbox": [10.0, 10.0, 20.0, 10.0], "attributes": {"occluded": False, "rotation": 30.0}},
            {"segmentation": [], "bbox": [5.5, 3.0, 30.0, 6.5], "attributes": {"rotation": 341.5}},
        ],
    )
    return coco_masks("coco.json")


def make_cvat(work: Path) -> dict[str, Masks]:
    """CVAT's own XML, exported by datumaro as CVAT exports it."""
    labels = "".join(f"<label><name>{n}</name><attributes/></label>" for n in ("box", "polygon", "mask"))
    (work / "images").mkdir()
    Image.new("RGB", (WIDTH, HEIGHT)).save(work / "images" / "cvat_coco.png")
    (work / "annotations.xml").write_text(
        f"<annotations><version>1.1</version><meta><task><labels>{labels}</labels></task></meta>"
        f'<image id="0" name="cvat_coco.png" width="{WIDTH}" height="{HEIGHT}">'
        '<box label="box" xtl="10.3" ytl="10.0" xbr="30.5" ybr="20.6" z_order="0"/>'
        '<polygon label="polygon" points="20.5,2.5;41.2,6.1;33.3,30.7" z_order="0"/>'
        '<mask label="mask" rle="1,2,1,4" left="5" top="30" width="4" height="2" z_order="0"/></image></annotations>'
    )
    data = Dataset.import_from(str(work), "cvat")
    data.export(str(work / "coco"), "coco_instances")
    (written,) = (work / "coco" / "annotations").glob("*.json")
    shutil.copyfile(written, HERE / "cvat_coco.json")
    only_box = data.filter("/item/annotation[type='bbox']", filter_annotations=True)
    only_box.export(str(work / "voc"), "voc")
    (written,) = (work / "voc" / "Annotations").glob("*.xml")
    text = written.read_text().replace("cvat_coco.png", "cvat_voc.png")
    (HERE / "cvat_voc.xml").write_text(text)
    return {"cvat_coco.json": coco_masks("cvat_coco.json"), "cvat_voc.xml": {"box": box_mask(10.3, 10.0, 30.5, 20.6)}}


def make_label_studio(work: Path) -> dict[str, Masks]:
    """Label Studio's tasks, exported by its converter; the name before the image's is the one of an upload."""
    upload = work / "upload" / "1"
    upload.mkdir(parents=True)
    Image.new("RGB", (WIDTH, HEIGHT)).save(upload / "a1b2c3d4-000.png")
    tags = "".join(
        f'<{kind} name="{kind}" toName="image"><Label value="{label}"/></{kind}>'
        for kind, label in (("RectangleLabels", "box"), ("PolygonLabels", "polygon"))
    )
    results = [
        {
            "id": kind, "from_name": kind, "to_name": "image", "type": kind.lower(),
            "original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0,
            "value": {**value, kind.lower(): [label]},
        }
        for kind, label, value in (
            ("RectangleLabels", "box", {"x": 100 / 6, "y": 25, "width": 40, "height": 31, "rotation": 0}),
            ("PolygonLabels", "polygon", {"points": [[50, 25], [75, 25], [71.3, 63.7]]}),
        )
    ]  # fmt: skip
    for file, kept in (("coco", results), ("voc", results[:1])):
        task = {"id": 1, "data": {"image": "/data/upload/1/a1b2c3d4-000.png"}, "annotations": [{"result": kept}]}
        (work / "tasks.json").write_text(json.dumps([task]))
        view = f'<View><Image name="image" value="$image"/>{tags}</View>'
        converter = Converter(view, str(work), upload_dir=str(work / "upload"))
        getattr(converter, f"convert_to_{file}")(str(work / "tasks.json"), str(work / file), is_dir=False)
    shutil.copyfile(work / "coco" / "result.json", HERE / "label_studio_coco.json")
    shutil.copyfile(work / "voc" / "Annotations" / "a1b2c3d4-000.xml", HERE / "a1b2c3d4-000.xml")
    left, top = int(WIDTH / 6), int(HEIGHT / 4)
    box = box_mask(left, top, left + int(0.4 * WIDTH), top + int(0.31 * HEIGHT))
    return {"label_studio_coco.json": coco_masks("label_studio_coco.json"), "a1b2c3d4-000.xml": {"box": box}}


def main() -> None:
    masks = {"labelme.json": labelme_masks(), "coco.json": make_coco()}
    for make in (make_cvat, make_label_studio):
        with tempfile.TemporaryDirectory() as work:
            masks |= make(Path(work))
    lines = [
        f' "{file}": {{\n' + ",\n".join(f'  "{k}": {v}' for k, v in of.items()) + "\n }" for file, of in masks.items()
    ]
    (HERE / "masks.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
