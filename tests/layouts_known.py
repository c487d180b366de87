"""Layouts of mini- and tiered-ImageNet, CIFAR-FS, FC100, CUB, Omniglot and a set of torchvision's: see layouts.py."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from layouts import IMAGES, layout, numbered, parts_of, pixels, png, put

MINI, TIERED = "mini_imagenet", "tiered_imagenet"


def put_pickle(path: Path, content: Any) -> None:
    put(path, pickle.dumps(content, protocol=2))


def put_tree(folder: Path, name: str, form: str = "{part}/{label}/{label}{i:08d}.png") -> None:
    for part, label, c in numbered(name):
        for i in range(IMAGES):
            put(folder / form.format(part=part, label=label, i=i), png(c, i))


def put_archive(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    else:
        with tarfile.open(path, "w:gz" if path.suffix in (".gz", ".tgz") else "w") as tar:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def pack(folder: Path, path: Path) -> None:
    """Move what lies in a folder into an archive."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    put_archive(path, {str(p.relative_to(folder)): p.read_bytes() for p in files})
    for p in files:
        p.unlink()
    for p in sorted((p for p in folder.rglob("*")), reverse=True):
        p.rmdir()
    folder.rmdir()


def put_ravi(folder: Path, val: str = "val", **change: Any) -> None:
    for part, labels, cs in parts_of(MINI):
        rows = {label: list(range(IMAGES * c, IMAGES * c + IMAGES)) for c, label in enumerate(labels)}
        content = {"image_data": pixels(cs), "class_dict": rows} | change
        put_pickle(folder / f"mini-imagenet-cache-{val if part == 'val' else part}.pkl", content)


def put_labelled(folder: Path, name: str, form: str, catalogue: bool = False, side: int = 4) -> None:
    for part, labels, cs in parts_of(name):
        numbers = [c for c in range(len(cs)) for _ in range(IMAGES)]
        extra = {"catname2label": {label: c for c, label in enumerate(labels)}} if catalogue else {}
        put_pickle(folder / form.format(part), {"data": pixels(cs, side), "labels": numbers, **extra})


def put_parquet(folder: Path, name: str, columns: tuple[str, str], names: list[str] | None, labels: list[Any]) -> None:
    """Write shards train-..., validation-..., test-..., each with an image of each class at least, as the Hub does."""
    import pyarrow
    from pyarrow import parquet

    folder.mkdir(parents=True)
    for i, part in enumerate(("train", "validation")):
        images = [{"bytes": png(c, i), "path": None} for _, _, c in numbered(name)]
        table = pyarrow.table(dict(zip(columns, (images, labels), strict=True)))
        features = {"info": {"features": {columns[1]: {"names": names, "_type": "ClassLabel"}}}}
        kept = table.replace_schema_metadata({"huggingface": json.dumps(features)} if names else {})
        parquet.write_table(kept, folder / f"{part}-00000-of-00001.parquet", row_group_size=5)


# mini-ImageNet


@layout(MINI, "Ren: cache-{train,val,test}.pkl")
def _(d: Path) -> None:
    put_ravi(d / MINI)


@layout(MINI, "learn2learn: cache-validation.pkl")
def _(d: Path) -> None:
    put_ravi(d / MINI, "validation")


def put_bookkeeping(folder: Path) -> None:
    for part in ("train", "validation", "test"):
        put_pickle(folder / f"mini-imagenet-bookkeeping-{part}.pkl", {"labels_to_indices": defaultdict(list)})


@layout(MINI, "learn2learn: with bookkeeping")
def _(d: Path) -> None:
    put_ravi(d / MINI, "validation")
    put_bookkeeping(d / MINI)


@layout(MINI, "learn2learn: its flat root")
def _(d: Path) -> None:
    put_ravi(d, "validation")
    put_bookkeeping(d)
    put_labelled(d, "fc100", "FC100_{}.pickle")


@layout(MINI, "Gidaris: three pickles")
def _(d: Path) -> None:
    put_labelled(d / MINI, MINI, "miniImageNet_category_split_{}.pickle", catalogue=True)


@layout(MINI, "MetaOptNet: five pickles", warned="train_phase_")
def _(d: Path) -> None:
    put_labelled(d / MINI, MINI, "miniImageNet_category_split_{}.pickle", catalogue=True)
    (d / MINI / "miniImageNet_category_split_train.pickle").rename(
        d / MINI / "miniImageNet_category_split_train_phase_train.pickle"
    )
    _, labels, cs = next(parts_of(MINI))
    for more, part in enumerate(("val", "test"), 1):
        content = {"data": pixels(cs) + more, "labels": [c for c in range(len(cs)) for _ in range(IMAGES)]}
        content["catname2label"] = {label: c for c, label in enumerate(labels)}
        put_pickle(d / MINI / f"miniImageNet_category_split_train_phase_{part}.pickle", content)


@layout(MINI, "SIB: folders train_train, train_val, ...", warned="train_val")
def _(d: Path) -> None:
    put_tree(d / MINI, MINI)
    (d / MINI / "train").rename(d / MINI / "train_train")
    for part, label, c in numbered(MINI):
        if part == "train":
            put(d / MINI / "train_val" / label / "0.png", png(c, 3))
            put(d / MINI / "train_test" / label / "0.png", png(c, 4))


@layout(MINI, "Gidaris: without catname2label")
def _(d: Path) -> None:
    put_labelled(d / MINI, MINI, "miniImageNet_category_split_{}.pickle")


@layout(MINI, "DeepAI: zip of pickles")
def _(d: Path) -> None:
    put_ravi(d / "x")
    pack(d / "x", d / f"{MINI}.zip")


@layout(MINI, "DeepAI: zip of pickles, in the folder")
def _(d: Path) -> None:
    put_ravi(d / "x")
    pack(d / "x", d / MINI / "miniimagenet.zip")


@layout(MINI, "tar.gz of folders in the folder")
def _(d: Path) -> None:
    put_tree(d / "x", MINI)
    pack(d / "x", d / MINI / "mini-imagenet.tar.gz")


@layout(MINI, "tar.gz of folders in the root")
def _(d: Path) -> None:
    put_tree(d / "x", MINI)
    pack(d / "x", d / "mini-imagenet.tar.gz")


@layout(MINI, "tar of pickles")
def _(d: Path) -> None:
    put_labelled(d / "x", MINI, "miniImageNet_category_split_{}.pickle", catalogue=True)
    pack(d / "x", d / MINI / "mini.tar")


@layout(MINI, "torchmeta: hdf5", refused=r"3 \.hdf5, 3 \.json.*nderstood")
def _(d: Path) -> None:
    for part in ("train", "val", "test"):
        put(d / MINI / f"{part}_data.hdf5", b"\x89HDF\r\n")
        put(d / MINI / f"{part}_labels.json", "[]")


@layout(MINI, "LibFewShot, FEAT: flat images and csv")
def _(d: Path) -> None:
    put_tree(d / MINI, MINI, "images/{label}{i:08d}.png")
    for part, labels, _ in parts_of(MINI):
        put(
            d / MINI / f"{part}.csv", "filename,label\n" + "".join(f"{label}00000000.png,{label}\n" for label in labels)
        )


@layout(MINI, "mmfewshot: images/CLASS")
def _(d: Path) -> None:
    put_tree(d / MINI, MINI, "images/{label}/{i}.png")


for spelled in ("mini-imagenet", "miniImageNet--ravi", "miniimagenet", "MiniImagenet"):

    @layout(MINI, f"the folder is called {spelled}")
    def _(d: Path, spelled: str = spelled) -> None:
        put_tree(d / spelled, MINI)


@layout(MINI, "Hub parquet: timm's names")
def _(d: Path) -> None:
    labels = [label for _, label, _ in numbered(MINI)]
    put_parquet(d / MINI, MINI, ("image", "label"), labels, list(range(16)))


@layout(MINI, "Hub parquet: ids as strings")
def _(d: Path) -> None:
    put_parquet(d / MINI, MINI, ("image", "label"), None, [label for _, label, _ in numbered(MINI)])


@layout(MINI, "Hub parquet: numbers, no names", refused="names its classes 0")
def _(d: Path) -> None:
    put_parquet(d / MINI, MINI, ("image", "label"), None, list(range(16)))


@layout(MINI, "Hub parquet: words", refused="names its classes house finch")
def _(d: Path) -> None:
    put_parquet(d / MINI, MINI, ("image", "label"), None, ["house finch", *(f"w{c}" for c in range(15))])


@layout(MINI, "pickles of floats in 0..1", refused=r"float32.*from 0\.5 to 0\.5: they are to be uint8")
def _(d: Path) -> None:
    put_ravi(d / MINI, image_data=np.full((12, 4, 4, 3), 0.5, np.float32))


@layout(MINI, "pickles with keys in bytes")
def _(d: Path) -> None:
    for part, labels, cs in parts_of(MINI):
        rows = {label.encode(): list(range(IMAGES * c, IMAGES * c + IMAGES)) for c, label in enumerate(labels)}
        content = {b"image_data": pixels(cs), b"class_dict": rows}
        put(d / MINI / f"mini-imagenet-cache-{part}.pkl", pickle.dumps(content))


@layout(MINI, "a stray pickle beside images", warned="cache.pkl")
def _(d: Path) -> None:
    put_tree(d / MINI, MINI)
    put_pickle(d / MINI / "cache.pkl", [1, 2, 3])


@layout(MINI, "images twice: images/ and processed/", warned="copies")
def _(d: Path) -> None:
    put_tree(d / MINI, MINI, "images/{label}{i:08d}.png")
    put_tree(d / MINI, MINI, "processed/{part}/{label}/{label}{i:08d}.png")


@layout(MINI, "one pickle of three", refused=r"mini-imagenet-cache-test\.pkl")
def _(d: Path) -> None:
    put_ravi(d / MINI)
    (d / MINI / "mini-imagenet-cache-train.pkl").unlink()
    (d / MINI / "mini-imagenet-cache-val.pkl").unlink()


class Evil:
    def __reduce__(self) -> Any:
        return print, ("harm",)


@layout(MINI, "a pickle that calls", refused=r"train.pkl is not used: it would call \w+.print")
def _(d: Path) -> None:
    put_pickle(d / MINI / "mini-imagenet-cache-train.pkl", Evil())


# tiered-ImageNet


def put_ren(folder: Path) -> None:
    for part, labels, cs in parts_of(TIERED):
        files = [np.frombuffer(png(c, i), np.uint8)[:, None] for c in cs for i in range(IMAGES)]
        put_pickle(folder / f"{part}_images_png.pkl", files)
        put_tiered_labels(folder, part, labels, 0)


def put_tiered_labels(folder: Path, part: str, labels: list[str], first: int) -> None:
    numbers = np.array([first + c for c in range(len(labels)) for _ in range(IMAGES)])
    content = {
        "label_specific": numbers,
        "label_general": numbers // 2,
        "label_specific_str": [f"bird of the kind {label}" for label in labels],
        "label_general_str": ["bird"],
    }
    put_pickle(folder / f"{part}_labels.pkl", content)


@layout(TIERED, "Ren: {train,val,test}_images_png.pkl")
def _(d: Path) -> None:
    put_ren(d / TIERED)


@layout(TIERED, "Ren, in learn2learn's tiered-imagenet/")
def _(d: Path) -> None:
    put_ren(d / "tiered-imagenet")


for goes_on in (False, True):

    @layout(TIERED, f"MetaOptNet: npz, numbers {'go on' if goes_on else 'begin anew'} per file")
    def _(d: Path, goes_on: bool = goes_on) -> None:
        folder, first = d / TIERED, 0
        for part, labels, cs in parts_of(TIERED):
            folder.mkdir(exist_ok=True)
            save = np.savez_compressed if part == "val" else np.savez
            save(folder / f"{part}_images.npz", images=pixels(cs)[..., ::-1])
            if goes_on:
                put_tiered_labels(folder, part, labels, first)
                first += len(labels)
            else:
                put_pickle(folder / f"{part}_labels.pkl", {"labels": [c for c in range(len(cs)) for _ in range(2)]})


@layout(TIERED, "torchmeta: hdf5", refused=r"3 \.hdf5, 3 \.json.*nderstood")
def _(d: Path) -> None:
    for part in ("train", "val", "test"):
        put(d / TIERED / f"{part}_data.hdf5", b"\x89HDF\r\n")
        put(d / TIERED / f"{part}_labels.json", "[]")


@layout(TIERED, "folders train/CLASS")
def _(d: Path) -> None:
    put_tree(d / TIERED, TIERED)


# CIFAR-FS and FC100

FS = "cifar_fs"


@layout(FS, "Bertinetto: cifar100/data in cifar_fs")
def _(d: Path) -> None:
    put_tree(d / FS / "cifar100/data", FS, "{label}/{i}.png")


@layout(FS, "Bertinetto: cifar100/data in the root")
def _(d: Path) -> None:
    put_tree(d / "cifar100/data", FS, "{label}/{i}.png")


def put_cifarfs(folder: Path) -> None:
    put_tree(folder / "cifar100/data", FS, "{label}/{i}.png")
    put_tree(folder / "processed", FS, "{part}/{label}/{i}.png")


@layout(FS, "learn2learn: cifarfs", warned="copies")
def _(d: Path) -> None:
    put_cifarfs(d / "cifarfs")


@layout(FS, "learn2learn's cifarfs, called cifar_fs", warned="copies")
def _(d: Path) -> None:
    put_cifarfs(d / FS)


@layout(FS, "MetaOptNet: CIFAR_FS_{train,val,test}.pickle")
def _(d: Path) -> None:
    put_labelled(d / FS, FS, "CIFAR_FS_{}.pickle")


@layout("fc100", "FC100_{train,val,test}.pickle in fc100")
def _(d: Path) -> None:
    put_labelled(d / "fc100", "fc100", "FC100_{}.pickle")


@layout("fc100", "learn2learn: FC100_*.pickle in the root")
def _(d: Path) -> None:
    put_labelled(d, "fc100", "FC100_{}.pickle")
    put_ravi(d)


@layout(FS, "torchmeta: cifar100/data.hdf5", refused=r"1 \.hdf5.*nderstood")
def _(d: Path) -> None:
    put(d / "cifar100/data.hdf5", b"\x89HDF\r\n")


@layout(FS, "torchvision: cifar-100-python in the root", refused="cifar-100-python is not what was published")
def _(d: Path) -> None:
    for name in ("train", "test", "meta"):
        put_pickle(d / "cifar-100-python" / name, {"fine_label_names": []})


@layout(FS, "Hub parquet: img, fine_label")
def _(d: Path) -> None:
    labels = [label for _, label, _ in numbered(FS)]
    put_parquet(d / "cifar100", FS, ("img", "fine_label"), labels, list(range(16)))


@layout(FS, "nothing", refused="downloading|no CIFAR-100 in")
def _(d: Path) -> None:
    pass


# CUB


def put_birds(folder: Path) -> None:
    put_tree(folder / "images", "cub", "{label}/{label}_{i}.png")
    for _, label, _ in numbered("cub"):
        put(folder / "segmentations" / label / "0.png", png(0, 5))
    put(folder / "attributes/attributes.txt")
    put(folder / "images.txt")


@layout("cub", "official: CUB_200_2011/images, segmentations")
def _(d: Path) -> None:
    put_birds(d / "CUB_200_2011")


@layout("cub", "in CUB/")
def _(d: Path) -> None:
    put_birds(d / "CUB/CUB_200_2011")


@layout("cub", "CUB_200_2011.tgz in the root")
def _(d: Path) -> None:
    put_birds(d / "x/CUB_200_2011")
    pack(d / "x", d / "CUB_200_2011.tgz")


# Omniglot

OMNI = "omniglot"


def put_drawings(folder: Path) -> None:
    """The short lists hold characters of background and of evaluation; which folder one lies in does not matter."""
    for number, (_, label, c) in enumerate(numbered("omniglot_vinyals")):
        for i in range(IMAGES):
            part = ("images_background", "images_evaluation")[number % 2]
            put(folder / part / label / f"{i}.png", png(c, i))


for place in (OMNI, ".", "omniglot-py", "omniglot_dataset"):

    @layout(OMNI, f"folders in {place}")
    def _(d: Path, place: str = place) -> None:
        put_drawings(d / place)


for place in (OMNI, ".", "omniglot-py", "omniglot/python"):

    @layout(OMNI, f"zips in {place}")
    def _(d: Path, place: str = place) -> None:
        put_drawings(d / "x")
        for part in ("images_background", "images_evaluation"):
            files = {str(p.relative_to(d / "x")): p.read_bytes() for p in (d / "x" / part).rglob("*.png")}
            put_archive(d / place / f"{part}.zip", files)
        pack(d / "x", d / "x.zip")
        (d / "x.zip").unlink()


@layout(OMNI, "MAML-Pytorch: omniglot.npy", refused=r"1 \.npy.*nderstood")
def _(d: Path) -> None:
    put(d / OMNI / "omniglot.npy")


@layout(OMNI, "Finn: omniglot_resized/ALPHABET/CHARACTER")
def _(d: Path) -> None:
    for _, label, c in numbered("omniglot_vinyals"):
        for i in range(IMAGES):
            put(d / "omniglot_resized" / label / f"{i}.png", png(c, i))


# A set of torchvision's


@layout("fashion_mnist", "torchvision: FashionMNIST/raw", refused=r"FashionMNIST.*nderstood", right={})
def _(d: Path) -> None:
    put(d / "FashionMNIST/raw/train-images-idx3-ubyte.gz")
