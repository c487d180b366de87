"""Every layout in which people have their images is read right, or refused in words that name what lies there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import layouts_known  # noqa: F401
import layouts_own  # noqa: F401
import pytest
from layouts import LAYOUTS, Layout, short_lists, try_layout

PENDING = {
    "mini_imagenet-learn2learn: with bookkeeping",
    "mini_imagenet-learn2learn: its flat root",
    "mini_imagenet-MetaOptNet: five pickles",
    "mini_imagenet-SIB: folders train_train, train_val, ...",
    "mini_imagenet-Gidaris: without catname2label",
    "mini_imagenet-DeepAI: zip of pickles",
    "mini_imagenet-DeepAI: zip of pickles, in the folder",
    "mini_imagenet-tar.gz of folders in the folder",
    "mini_imagenet-tar.gz of folders in the root",
    "mini_imagenet-tar of pickles",
    "mini_imagenet-torchmeta: hdf5",
    "mini_imagenet-the folder is called mini-imagenet",
    "mini_imagenet-the folder is called miniImageNet--ravi",
    "mini_imagenet-the folder is called miniimagenet",
    "mini_imagenet-the folder is called MiniImagenet",
    "mini_imagenet-pickles of floats in 0..1",
    "mini_imagenet-pickles with keys in bytes",
    "mini_imagenet-a stray pickle beside images",
    "mini_imagenet-one pickle of three",
    "mini_imagenet-a pickle that calls",
    "tiered_imagenet-Ren: {train,val,test}_images_png.pkl",
    "tiered_imagenet-Ren, in learn2learn's tiered-imagenet/",
    "tiered_imagenet-MetaOptNet: npz, numbers begin anew per file",
    "tiered_imagenet-MetaOptNet: npz, numbers go on per file",
    "tiered_imagenet-torchmeta: hdf5",
    "cifar_fs-learn2learn: cifarfs",
    "cifar_fs-MetaOptNet: CIFAR_FS_{train,val,test}.pickle",
    "fc100-FC100_{train,val,test}.pickle in fc100",
    "fc100-learn2learn: FC100_*.pickle in the root",
    "cifar_fs-torchmeta: cifar100/data.hdf5",
    "cifar_fs-torchvision: cifar-100-python in the root",
    "cifar_fs-Hub parquet: img, fine_label",
    "cifar_fs-nothing",
    "cub-in CUB/",
    "cub-CUB_200_2011.tgz in the root",
    "omniglot-folders in omniglot-py",
    "omniglot-folders in omniglot_dataset",
    "omniglot-zips in omniglot-py",
    "omniglot-zips in omniglot/python",
    "omniglot-MAML-Pytorch: omniglot.npy",
    "omniglot-Finn: omniglot_resized/ALPHABET/CHARACTER",
    "fashion_mnist-torchvision: FashionMNIST/raw",
    "folder-DTD: images/CLASS, labels/train1.txt",
    "folder-LibFewShot: images/CLASS, train.csv val.csv test.csv",
    "folder-FEAT, LibFewShot: images/*.png, split/train.csv ...",
    "folder-easyfsl: train.json with class_names, class_roots",
    "folder-CloserLook: base.json with image_names, image_labels",
    "folder-lists of class names: train.txt val.txt test.txt",
    "folder-Kaggle: train/*.png, labels.csv",
    "folder-Kaggle, data.labels=labels.csv",
    "folder-a table with a split, data.labels=",
    "folder-MedMNIST: PNG and csv without a head, data.labels=",
    "folder-COCO: train2017/*.png and json",
    "folder-VGG Flowers: jpg/*.png and imagelabels.mat",
    "folder-Aircraft: images/*.png, images_variant_train.txt",
    "folder-Aircraft, data.labels=images_variant_train.txt",
    "folder-tar of folders",
    "folder-tar.gz of folders",
    "folder-tgz of folders",
    "folder-WebDataset: tar shards of png + cls",
    "folder-npz: images, labels",
    "folder-npz: images, labels, in a folder",
    "folder-MedMNIST: bloodmnist.npz",
    "folder-pickles data + labels in a folder",
    "folder-QuickDraw: npy",
    "folder-tfrecords",
    "folder-Hub parquet: image, label",
    "folder-DICOM alone",
    "folder-TIFF of several pages",
}
"""Layouts that are not yet as they should be."""


def name(one: Layout) -> str:
    return f"{one.source}-{one.name}"


@pytest.fixture(autouse=True, scope="module")
def short() -> Iterator[None]:
    with short_lists():
        yield


@pytest.mark.parametrize("one", LAYOUTS, ids=name)
def test_a_layout_is_read_right_or_refused_in_words_that_help(
    one: Layout, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outcome = try_layout(one, tmp_path, lambda: caplog.text)
    as_it_should_be = outcome.kind == ("right" if one.truth else "refused")
    assert as_it_should_be != (name(one) in PENDING), outcome.said or "it is no longer pending"
