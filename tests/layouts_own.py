"""Layouts of people's own images and of other projects' sets as data=folder: see layouts.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from layouts import BY_SPLIT, DRAWN, IMAGES, colour, layout, pixels, png, put
from layouts_known import put_archive, put_pickle
from PIL import Image

OWN = "folder"
NAMES = [f"c{c:02d}" for c in range(16)]
FILES = {f"c{c:02d}_{i}.png": png(c, i) for c in range(16) for i in range(IMAGES)}
"""Images that lie in one folder, by their names."""


def put_classes(folder: Path, form: str = "{label}/{i}.png", classes: Any = range(16)) -> None:
    for c in classes:
        for i in range(IMAGES):
            put(folder / form.format(label=NAMES[c], i=i), png(c, i))


def put_flat(folder: Path) -> None:
    for name, data in FILES.items():
        put(folder / name, data)


def put_table(path: Path, columns: str, files: list[str], rest: str = "") -> None:
    put(path, columns + "\n" + "".join(f"{file},{Path(file).name[:3]}{rest}\n" for file in files))


def names_in(part: str) -> list[str]:
    return [NAMES[c] for c in BY_SPLIT[part]]


# Folders


@layout(OWN, "plain: CLASS/")
def _(d: Path) -> None:
    put_classes(d)


@layout(OWN, "ImageFolder: train/CLASS, val/CLASS")
def _(d: Path) -> None:
    for part, i in (("train", 0), ("val", 1)):
        for c in range(16):
            put(d / part / NAMES[c] / f"{part}.png", png(c, i))


@layout(OWN, "links to files")
def _(d: Path) -> None:
    put_classes(d / ".real")
    for file in sorted((d / ".real").rglob("*.png")):
        target = d / file.relative_to(d / ".real")
        target.parent.mkdir(exist_ok=True)
        target.symlink_to(file)


@layout(OWN, "links to folders")
def _(d: Path) -> None:
    put_classes(d / ".real")
    for name in NAMES:
        (d / name).symlink_to(d / ".real" / name)


@layout(OWN, "DTD: images/CLASS, labels/train1.txt")
def _(d: Path) -> None:
    put_classes(d / "images", "{label}/{label}_{i}.png")
    for i, part in enumerate(("train1", "test1")):
        put(d / "labels" / f"{part}.txt", "".join(f"{name}/{name}_{i}.png\n" for name in NAMES))


@layout(OWN, "Finn: omniglot_resized")
def _(d: Path) -> None:
    put_classes(d / "omniglot_resized", "alphabet_{label}/{label}/{i}.png")


for folders in ("train val test", "base val novel", "meta-train meta-val meta-test", "Train Validation Test"):

    @layout(OWN, f"folders {folders}", right=BY_SPLIT)
    def _(d: Path, folders: str = folders) -> None:
        for part, folder in zip(("train", "val", "test"), folders.split(), strict=True):
            put_classes(d / folder, classes=BY_SPLIT[part])


@layout(OWN, "LibFewShot: images/CLASS, train.csv val.csv test.csv", right=BY_SPLIT)
def _(d: Path) -> None:
    put_classes(d / "images", "{label}/{label}_{i}.png")
    for part in BY_SPLIT:
        put_table(d / f"{part}.csv", "filename,label", [f"{n}_{i}.png" for n in names_in(part) for i in range(IMAGES)])


@layout(OWN, "FEAT, LibFewShot: images/*.png, split/train.csv ...", right=BY_SPLIT)
def _(d: Path) -> None:
    put_flat(d / "images")
    for part in BY_SPLIT:
        put_table(
            d / "split" / f"{part}.csv",
            "filename,label",
            [f"{n}_{i}.png" for n in names_in(part) for i in range(IMAGES)],
        )


@layout(OWN, "easyfsl: train.json with class_names, class_roots", right=BY_SPLIT)
def _(d: Path) -> None:
    put_classes(d / "images")
    for part in BY_SPLIT:
        content = {"class_names": names_in(part), "class_roots": [f"./data/X/images/{n}" for n in names_in(part)]}
        put(d / f"{part}.json", json.dumps(content))


@layout(OWN, "CloserLook: base.json with image_names, image_labels", right=BY_SPLIT)
def _(d: Path) -> None:
    put_classes(d / "images")
    for part, called in zip(BY_SPLIT, ("base", "val", "novel"), strict=True):
        names = [f"/home/me/x/images/{n}/{i}.png" for n in names_in(part) for i in range(IMAGES)]
        labels = [c for c in BY_SPLIT[part] for _ in range(IMAGES)]
        put(d / f"{called}.json", json.dumps({"label_names": NAMES, "image_names": names, "image_labels": labels}))


@layout(OWN, "lists of class names: train.txt val.txt test.txt", right=BY_SPLIT)
def _(d: Path) -> None:
    put_classes(d / "images")
    for part in BY_SPLIT:
        put(d / f"{part}.txt", "\n".join(names_in(part)))


@layout(OWN, "lists that do not split: train.csv, test.csv", refused=r"unclear.*test\.csv, train\.csv")
def _(d: Path) -> None:
    put_classes(d / "images", "{label}/{label}_{i}.png")
    for part in ("train", "test"):
        put_table(d / f"{part}.csv", "filename,label", [f"{n}_0.png" for n in names_in(part)])


# One folder and a table


@layout(OWN, "Kaggle: train/*.png, labels.csv", refused=r"data\.labels=.*labels\.csv with the columns id, breed")
def _(d: Path) -> None:
    put_kaggle(d)


@layout(OWN, "Kaggle, data.labels=labels.csv")
def _(d: Path) -> dict[str, str]:
    put_kaggle(d)
    return {"labels": str(d / "labels.csv")}


@layout(OWN, "Kaggle with lines of images that are not there", warned=r"3 of the 35 lines of .*name no image, or more")
def _(d: Path) -> dict[str, str]:
    put_kaggle(d)
    with (d / "labels.csv").open("a") as file:
        file.write("\ngone0,dog\ngone1,dog\ngone2,cat")
    return {"labels": str(d / "labels.csv")}


def put_kaggle(d: Path) -> None:
    put_flat(d / "train")
    put_table(d / "labels.csv", "id,breed", [name.removesuffix(".png") for name in FILES])


@layout(OWN, "a table with a split, data.labels=", right=BY_SPLIT)
def _(d: Path) -> dict[str, str]:
    put_flat(d / "images")
    rows = "".join(f"{p},images/{n}_{i}.png,{n}\n" for p in BY_SPLIT for n in names_in(p) for i in range(IMAGES))
    put(d / "all.csv", "split,path,species\n" + rows)
    return {"labels": str(d / "all.csv")}


@layout(OWN, "MedMNIST: PNG and csv without a head, data.labels=", right=DRAWN)
def _(d: Path) -> dict[str, str]:
    put_flat(d / "bloodmnist")
    rows = "".join(f"{('TRAIN', 'TEST')['_1' in name]},{name},{int(name[1:3])}\n" for name in FILES)
    put(d / "bloodmnist.csv", rows)
    return {"path": str(d / "bloodmnist"), "labels": str(d / "bloodmnist.csv")}


@layout(OWN, "COCO: train2017/*.png and json", refused=r"data\.labels=.*instances\.json")
def _(d: Path) -> None:
    put_flat(d / "train2017")
    put(d / "annotations/instances.json", json.dumps({"images": [], "annotations": [], "categories": []}))


@layout(OWN, "VGG Flowers: jpg/*.png and imagelabels.mat", refused=r"data\.labels=.*imagelabels\.mat")
def _(d: Path) -> None:
    put_flat(d / "jpg")
    put(d / "imagelabels.mat")


@layout(OWN, "Aircraft: images/*.png, images_variant_train.txt", refused=r"data\.labels=.*images_variant_\w+\.txt")
def _(d: Path) -> None:
    put_flat(d / "images")
    for part in ("train", "test"):
        put(d / f"images_variant_{part}.txt", "".join(f"{name[:-4]} kind {name[:3]}\n" for name in FILES))


@layout(OWN, "Aircraft, data.labels=images_variant_train.txt")
def _(d: Path) -> dict[str, str]:
    put_flat(d / "images")
    put(d / "images_variant_all.txt", "".join(f"{name[:-4]} kind {name[:3]}\n" for name in FILES))
    return {"labels": str(d / "images_variant_all.txt")}


@layout(OWN, "cat.0.png in one folder", refused="put the images of each class in a folder of its own")
def _(d: Path) -> None:
    for name, data in FILES.items():
        put(d / name.replace("_", "."), data)


# Packed


@layout(OWN, "zip of folders", right=DRAWN)
def _(d: Path) -> dict[str, str]:
    put_archive(d / "my.zip", {f"x/{name[:3]}/{name}": data for name, data in FILES.items()})
    return {"path": str(d / "my.zip")}


for ending in ("tar", "tar.gz", "tgz"):

    @layout(OWN, f"{ending} of folders", right=DRAWN)
    def _(d: Path, ending: str = ending) -> dict[str, str]:
        put_archive(d / f"my.{ending}", {f"x/{name[:3]}/{name}": data for name, data in FILES.items()})
        return {"path": str(d / f"my.{ending}")}


@layout(OWN, "WebDataset: tar shards of png + cls")
def _(d: Path) -> None:
    for shard in range(2):
        files = {}
        for k, (name, data) in enumerate(FILES.items()):
            if k % 2 == shard:
                files |= {f"{k:06d}.png": data, f"{k:06d}.cls": name[1:3].encode()}
        put_archive(d / f"{shard:05d}.tar", files)


@layout(OWN, "npz: images, labels")
def _(d: Path) -> dict[str, str]:
    np.savez(d / "data.npz", images=pixels(range(16)), labels=np.repeat(np.arange(16), IMAGES))
    return {"path": str(d / "data.npz")}


@layout(OWN, "npz: images, labels, in a folder")
def _(d: Path) -> None:
    np.savez(d / "data.npz", images=pixels(range(16)), labels=np.repeat(np.arange(16), IMAGES))


@layout(OWN, "MedMNIST: bloodmnist.npz")
def _(d: Path) -> dict[str, str]:
    arrays = {}
    for part, rows in (("train", slice(0, 32, 2)), ("val", slice(1, 16, 2)), ("test", slice(17, 32, 2))):
        labels = np.repeat(np.arange(16), IMAGES)[rows, None]
        arrays |= {f"{part}_images": pixels(range(16))[rows], f"{part}_labels": labels}
    np.savez_compressed(d / "bloodmnist.npz", **arrays)
    return {"path": str(d / "bloodmnist.npz")}


@layout(OWN, "pickles data + labels in a folder", right=BY_SPLIT)
def _(d: Path) -> None:
    for part, cs in BY_SPLIT.items():
        put_pickle(d / f"my_{part}.pickle", {"data": pixels(cs), "labels": [c for c in cs for _ in range(IMAGES)]})


@layout(OWN, "QuickDraw: npy", refused=r"2 \.npy.*nderstood")
def _(d: Path) -> None:
    for name in ("cat", "dog"):
        np.save(d / f"{name}.npy", np.zeros((4, 784), np.uint8))


@layout(OWN, "tfrecords", refused=r"1 \.tfrecords.*nderstood")
def _(d: Path) -> None:
    put(d / "train.tfrecords")


@layout(OWN, "Hub parquet: image, label")
def _(d: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    names = sorted(FILES, key=lambda name: name[4])  # the first images of all classes, and then the second
    images = [{"bytes": FILES[name], "path": name} for name in names]
    features = {"info": {"features": {"label": {"names": NAMES, "_type": "ClassLabel"}}}}
    table = pyarrow.table({"image": images, "label": [int(name[1:3]) for name in names]})
    table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    (d / "data").mkdir()
    for part, rows in (("train", (0, 16)), ("test", (16, 16))):
        parquet.write_table(table.slice(*rows), d / "data" / f"{part}-00000-of-00001.parquet", row_group_size=3)


@layout(OWN, "DICOM alone", refused=r"32 \.dcm.*export")
def _(d: Path) -> None:
    for name in FILES:
        put(d / name[:3] / name.replace("png", "dcm"))


@layout(OWN, "DICOM among PNG", warned=r"16 \.dcm")
def _(d: Path) -> None:
    put_classes(d)
    for name in NAMES:
        put(d / name / "1.dcm")


@layout(OWN, "TIFF of several pages", warned="16 .*pages")
def _(d: Path) -> None:
    put_classes(d, "{label}/{i}.png")
    for c, name in enumerate(NAMES):
        (d / name / "1.png").unlink()
        pages = [Image.new("RGB", (4, 4), colour(c, i)) for i in (1, 5, 6)]
        pages[0].save(d / name / "1.tif", save_all=True, append_images=pages[1:])


@layout(OWN, "a gz of one file", refused="gzip")
def _(d: Path) -> dict[str, str]:
    import gzip

    put(d / "my.gz", gzip.compress(b"x"))
    return {"path": str(d / "my.gz")}


for file in ("my.json", "my.csv"):

    @layout(OWN, f"data.path={file}", refused="neither a folder nor")
    def _(d: Path, file: str = file) -> dict[str, str]:
        put(d / file, "{}")
        return {"path": str(d / file)}
