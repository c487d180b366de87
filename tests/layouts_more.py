"""Layouts that are in nobody's list, and yet met: Kaggle's, tiny-ImageNet, the Hub, Keras, ISIC. See layouts.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from layouts import BY_SPLIT, IMAGES, layout, numbered, parts_of, pixels, png, put
from layouts_known import put_archive
from layouts_own import FILES, NAMES, OWN, put_classes, put_flat

UNASKED = {f"{i}.png": png(i, 7) for i in range(5)}
"""Images without a class, to be answered by those who compete."""


def put_files(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        put(folder / name, data)


# Folders


@layout(OWN, "Kaggle: train/CLASS, test/*.png, validation/*.png", warned="10 images of .* are left out")
def _(d: Path) -> None:
    put_classes(d / "train")
    put_files(d / "test", UNASKED)
    put_files(d / "validation", UNASKED)


@layout(OWN, "tiny-ImageNet: train/CLASS/images, val/images", warned="5 images of .* lie in val/images")
def _(d: Path) -> None:
    put_classes(d / "tiny-imagenet-200/train", "{label}/images/{i}.png")
    put_files(d / "tiny-imagenet-200/val/images", UNASKED)
    put(d / "tiny-imagenet-200/val/val_annotations.txt", "0.png\tc00\t0\t0\t9\t9\n")


@layout(OWN, "folders of the same name in two domains", warned="16 folders .* amazon/c00 and dslr/c00: each .* its own")
def _(d: Path) -> None:
    for c, name in enumerate(NAMES):
        for i in range(IMAGES):
            put(d / ("amazon", "dslr")[c // 8] / NAMES[c % 8] / f"{name}{i}.png", png(c, i))


@layout(OWN, "an image beside the folders of classes", refused="1 images of .* lie in no class's folder, logo.png")
def _(d: Path) -> None:
    put_classes(d)
    put(d / "logo.png", png(0, 5))


@layout(
    OWN, "HAM10000: two folders of images, and a table", refused=r"2 classes.*If a table.*data\.labels=FILE: m\.csv"
)
def _(d: Path) -> None:
    for k, (name, data) in enumerate(FILES.items()):
        put(d / f"part_{k % 2}" / name, data)
    put(d / "m.csv", "id,dx\n" + "".join(f"{name[:-4]},{name[:3]}\n" for name in FILES))


@layout(OWN, "a zip for each class, without folders")
def _(d: Path) -> None:
    for c in range(16):
        put_archive(d / f"class {chr(97 + c)}.zip", {f"{i}.png": png(c, i) for i in range(IMAGES)})


@layout(OWN, "train.zip, val.zip, test.zip of train/CLASS ...", right=BY_SPLIT)
def _(d: Path) -> None:
    for part, cs in BY_SPLIT.items():
        files = {f"{part}/{NAMES[c]}/{i}.png": png(c, i) for c in cs for i in range(IMAGES)}
        put_archive(d / f"{part}.zip", files)


# Tables


@layout(OWN, "a table whose first column numbers the lines, of images that are numbered")
def _(d: Path) -> dict[str, Any]:
    lines = ""
    for line in range(32):
        k = 7 * line % 32
        put(d / "img" / f"{k}.png", png(k // IMAGES, k % IMAGES))
        lines += f"{line},{k}.png,{NAMES[k // IMAGES]}\n"
    put(d / "t.csv", ",filename,label\n" + lines)
    return {"labels": str(d / "t.csv")}


for one in ("1", "1.0"):

    @layout(OWN, f"ISIC, Plant Pathology: a column of {one} and 0 for each class")
    def _(d: Path, one: str = one) -> dict[str, Any]:
        put_flat(d / "img")
        marks = {name: ",".join(one if name == other else one.replace("1", "0") for other in NAMES) for name in NAMES}
        lines = "".join(f"{name[:-4]},{marks[name[:3]]}\n" for name in FILES)
        put(d / "t.csv", f"image,{','.join(NAMES)}\n{lines}")
        return {"labels": str(d / "t.csv")}


@layout(OWN, "HAM10000, data.labels=", refused="lesion_id, image_id, dx, age.*call it label")
def _(d: Path) -> dict[str, Any]:
    put_flat(d / "img")
    lines = "".join(f"L{k // 3},{name[:-4]},{name[:3]},80\n" for k, name in enumerate(FILES))
    put(d / "t.csv", f"lesion_id,image_id,dx,age\n{lines}")
    return {"labels": str(d / "t.csv")}


@layout(OWN, "the Hub's imagefolder: metadata.jsonl")
def _(d: Path) -> dict[str, Any]:
    put_flat(d / "data")
    rows = [json.dumps({"file_name": name, "label": name[:3]}) for name in FILES]
    put(d / "data/metadata.jsonl", "\n".join(rows))
    return {"labels": str(d / "data/metadata.jsonl")}


@layout(OWN, "a spreadsheet", refused=r"t\.xlsx is no table of those that are read: save it as one of \.csv")
def _(d: Path) -> dict[str, Any]:
    put_flat(d / "img")
    put(d / "t.xlsx", b"PK\x03\x04")
    return {"labels": str(d / "t.xlsx")}


@layout(OWN, "easyfsl: images/*.png, train_images.csv with an index", right=BY_SPLIT)
def _(d: Path) -> None:
    put_flat(d / "images")
    for part, cs in BY_SPLIT.items():
        rows = [(NAMES[c], i) for c in cs for i in range(IMAGES)]
        lines = "".join(f"{k},{name},{name}_{i}.png\n" for k, (name, i) in enumerate(rows))
        put(d / f"{part}_images.csv", f",class_name,image_name\n{lines}")


for folder in ("cifar_fs", "CIFAR-FS"):

    @layout("cifar_fs", f"LibFewShot: {folder}/images/*.png and csv")
    def _(d: Path, folder: str = folder) -> None:
        for _part, label, c in numbered("cifar_fs"):
            for i in range(IMAGES):
                put(d / folder / "images" / f"{label}_s_{i:06d}.png", png(c, i))
        for part, labels, _cs in parts_of("cifar_fs"):
            lines = "".join(f"{label}_s_{i:06d}.png,{label}\n" for label in labels for i in range(IMAGES))
            put(d / folder / f"{part}.csv", f"filename,label\n{lines}")


@layout("cub", "LibFewShot: CUB_200_2011_FewShot/images/CLASS")
def _(d: Path) -> None:
    for _part, label, c in numbered("cub"):
        for i in range(IMAGES):
            put(d / "CUB_200_2011_FewShot/images" / label / f"{i}.png", png(c, i))


# Packed


@layout(OWN, "Keras: x_train, y_train, x_test, y_test")
def _(d: Path) -> dict[str, Any]:
    x, y = pixels(range(16)), np.repeat(np.arange(16), IMAGES)
    np.savez(d / "mnist.npz", x_train=x[::2], y_train=y[::2], x_test=x[1::2], y_test=y[1::2])
    return {"path": str(d / "mnist.npz")}


@layout(
    OWN, "ChestMNIST: several labels an image", refused=r"labels have the shape \[32, 14\]: one label of each image"
)
def _(d: Path) -> dict[str, Any]:
    np.savez(d / "c.npz", train_images=pixels(range(16)), train_labels=np.zeros((32, 14), np.uint8))
    return {"path": str(d / "c.npz")}


def put_hub(d: Path, part: str, images: list[bytes], column: str, labels: list[Any], named: bool = True) -> None:
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.table({"image": [{"bytes": one, "path": None} for one in images], column: labels})
    features = {"info": {"features": {column: {"names": NAMES, "_type": "ClassLabel"}}}}
    kept = table.replace_schema_metadata({"huggingface": json.dumps(features)} if named else {})
    (d / "data").mkdir(exist_ok=True)
    parquet.write_table(kept, d / "data" / f"{part}-00000-of-00001.parquet")


@layout(OWN, "Hub parquet: a test set without labels (-1, null)", warned="2 of the 2 images of .*test.* have no label")
def _(d: Path) -> None:
    put_hub(d, "train", [*FILES.values()], "label", [int(name[1:3]) for name in FILES])
    put_hub(d, "test", [png(9, 8), png(9, 9)], "label", [-1, None])


@layout(OWN, "Hub parquet: train alone, a column species of words")
def _(d: Path) -> None:
    put_hub(d, "train", [*FILES.values()], "species", [name[:3] for name in FILES], named=False)
