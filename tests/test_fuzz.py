"""Every reader on mutated files: whatever a file holds, it is read, or refused by an InputError of one printable line
or three.

CSL_FUZZ=N tries N inputs for each reader, at random instead of always the same few; `benchmarks/fuzz_readers.py` does so and
keeps count.
"""

import argparse
import copy
import io
import json
import os
import tarfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from killing import without_pictures
from PIL import Image
from safetensors.torch import save_file

from csl import InputError, checkpoint
from csl.data.images import check_image, load_pixels, load_rgb
from csl.data.photo_cache import PhotoCache
from csl.engines.onnx_network import OnnxNetwork
from csl.garments import make_garments
from csl.labels import LabelMatrix, read_annotations, read_class_descriptions
from csl.labels.class_set import ClassSet
from csl.labels.openimages import reader as openimages
from csl.labels.openimages.classes import read_class_list, read_mid_to_classes
from csl.labels.shard_index import META, meta_json, sample_json
from csl.models.description import Architecture, Description
from csl.predict import find_images
from csl.prior import read_prior
from csl.runs.config import TrainConfig
from csl.runs.folder import RunFolder, read_log
from csl.training import experiment

INPUTS = int(os.environ.get("CSL_FUZZ", 0))
TRIED: dict[str, int] = {}
FEW = 20  # inputs for each reader in an ordinary run

JUNK = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, -1.5, 1e308, float("inf"), float("nan"), "", "0", " ", "\0", "\n",
    "a\nb", "\x1b[31m", "../../x", "/etc/passwd", "=cmd|' /C calc'!A0", "\ud800", "é" * 300, "x" * 70_000, [], [[]], {},
    {"id": 1}, [0], ["a"], [None],
]  # fmt: skip
BYTES = [
    b"\0",
    b"\xff",
    b"\n",
    b"\r",
    b'"',
    b",",
    b"[",
    b"]",
    b"{",
    b"}",
    b"\xef\xbb\xbf",
    b"\xc3",
    b"9" * 5000,
    b"[" * 3000,
]


# ----------------------------------------------------------------------------------------------------------- mutations


def mutate_bytes(data, content: bytes) -> bytes:
    """A few bytes flipped, put in, left out, doubled, or the end cut off."""
    content = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        kind = data.draw(st.sampled_from(["flip", "cut", "insert", "remove", "double"]))
        place = data.draw(st.integers(0, max(len(content) - 1, 0)))
        length = data.draw(st.integers(1, 64))
        if kind == "flip" and content:
            content[place] ^= data.draw(st.integers(1, 255))
        elif kind == "cut":
            del content[place:]
        elif kind == "insert":
            content[place:place] = data.draw(st.sampled_from(BYTES))
        elif kind == "remove":
            del content[place : place + length]
        elif kind == "double":
            content[place:place] = content[place : place + length]
    return bytes(content)


def nodes_of(tree, path=()):
    """The places in a tree of dicts and lists."""
    yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield from nodes_of(value, (*path, key))


def mutate_tree(data, tree, junk=JUNK):
    """One to three values replaced by junk or by another value of the tree, or left out."""
    tree = copy.deepcopy(tree)
    for _ in range(data.draw(st.integers(1, 3))):
        places = list(nodes_of(tree))
        place = data.draw(st.sampled_from(places))
        if not place:
            if data.draw(st.integers(0, 20)) == 0:
                return data.draw(st.sampled_from(junk))
            continue
        *above, key = place
        parent = tree
        for step in above:
            parent = parent[step]
        kind = data.draw(st.sampled_from(["junk", "other", "remove", "nest"]))
        if kind == "junk":
            parent[key] = copy.deepcopy(data.draw(st.sampled_from(junk)))
        elif kind == "other":
            other = tree
            for step in data.draw(st.sampled_from(places)):
                other = other[step]
            parent[key] = copy.deepcopy(other)
        elif kind == "nest":
            parent[key] = [parent[key]]
        else:
            del parent[key]
    return tree


def mutate_table(data, content: bytes, separator=b",") -> bytes:
    """A cell replaced by junk, or a line left out, doubled or swapped."""
    lines = content.split(b"\n")
    row = data.draw(st.integers(0, len(lines) - 1))
    kind = data.draw(st.sampled_from(["cell", "cell", "remove", "double", "swap"]))
    if kind == "cell":
        cells = lines[row].split(separator)
        junk = str(data.draw(st.sampled_from(JUNK)))
        cell = junk.encode(errors="surrogatepass")
        quoted = data.draw(st.booleans())
        cells[data.draw(st.integers(0, len(cells) - 1))] = b'"' + cell.replace(b'"', b'""') + b'"' if quoted else cell
        lines[row] = separator.join(cells)
    elif kind == "remove":
        del lines[row]
    elif kind == "double":
        lines.insert(row, lines[row])
    else:
        other = data.draw(st.integers(0, len(lines) - 1))
        lines[row], lines[other] = lines[other], lines[row]
    return b"\n".join(lines)


def mutate_file(data, path: Path) -> None:
    """Mutate a file in a way that suits what is in it."""
    content = path.read_bytes()
    how = data.draw(st.sampled_from(["bytes", "structure", "structure"]))
    if how == "structure" and path.suffix == ".json":
        tree = mutate_tree(data, json.loads(content))
        path.write_text(json.dumps(tree), encoding="utf-8", errors="surrogatepass")
    elif how == "structure" and path.suffix in (".csv", ".txt", ".jsonl", ".lst"):
        path.write_bytes(mutate_table(data, content, b" " if path.suffix == ".txt" else b","))
    else:
        path.write_bytes(mutate_bytes(data, content))


# ------------------------------------------------------------------------------------------------------- valid examples


def images_in(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), "red").save(folder / name)


def picture_files():
    pixels = np.random.default_rng(0).integers(0, 255, (24, 20, 3), np.uint8)
    picture = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds = {
        "jpg": (picture, {"exif": exif}), "progressive.jpg": (picture, {"progressive": True}),
        "cmyk.jpg": (picture.convert("CMYK"), {}), "png": (picture, {}),
        "palette.png": (picture.convert("P"), {"transparency": bytes(range(256))}),
        "16.png": (Image.fromarray(np.arange(480, dtype=np.uint16).reshape(24, 20) * 100), {}),
        "gif": (picture.convert("P"), {"save_all": True, "append_images": [picture.convert("P")]}),
        "webp": (picture, {}), "bmp": (picture, {}), "tif": (picture, {}), "lzw.tif": (picture, {"compression": "tiff_lzw"}),
        "ppm": (picture, {}), "jp2": (picture, {}), "ico": (picture, {}), "tga": (picture, {}),
    }  # fmt: skip
    for name, (image, options) in kinds.items():
        stream = io.BytesIO()
        extension = {"jpg": "JPEG", "tif": "TIFF", "jp2": "JPEG2000"}.get(name.split(".")[-1], name.split(".")[-1])
        image.save(stream, format=extension, **options)
        yield name, stream.getvalue()


PICTURES = dict(picture_files())


def coco(folder):
    names = ["a.jpg", "b.jpg", "c.jpg"]
    content = {
        "images": [{"id": i, "file_name": n, "height": 8, "width": 8} for i, n in enumerate(names)],
        "annotations": [
            {"id": 7, "image_id": 0, "category_id": 2, "segmentation": [[1, 2.5, 3, 4]]},
            {"id": 8, "image_id": 1, "category_id": 5, "iscrowd": 1},
            {"id": 9, "image_id": 2, "category_id": 5},
        ],
        "categories": [
            {"id": 2, "name": "cat", "supercategory": "pet"},
            {"id": 5, "name": "dog", "supercategory": "pet"},
        ],
    }
    (folder / "train.json").write_text(json.dumps(content))
    images_in(folder / "images", names)


def datumaro(folder):
    content = {
        "categories": {"label": {"labels": [{"name": "cat", "parent": "animal"}, {"name": "animal"}, {"name": "cat"}]}},
        "items": [
            {"id": "a", "annotations": [{"type": "bbox", "label_id": 0}], "image": {"path": "a.jpg", "size": [8, 8]}},
            {"id": "b", "annotations": [{"type": "label", "label_id": 2}, {"type": "caption"}], "media": {"path": ""}},
        ],
    }
    (folder / "annotations").mkdir()
    (folder / "annotations" / "train.json").write_text(json.dumps(content))
    images_in(folder / "images" / "train", ["a.jpg", "b.jpg"])


def lvis(folder):
    content = {
        "images": [
            {
                "id": 1,
                "coco_url": "http://x/train2017/1.jpg",
                "neg_category_ids": [2],
                "not_exhaustive_category_ids": [],
            },
            {"id": 2, "coco_url": "http://x/val2017/2.jpg", "neg_category_ids": [], "not_exhaustive_category_ids": [1]},
        ],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1}, {"id": 2, "image_id": 2, "category_id": 2}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    (folder / "lvis_v1_train.json").write_text(json.dumps(content))
    images_in(folder, ["train2017/1.jpg"])


def nuswide_tutorial(folder):
    content = {
        "samples": [{"image_name": "a.jpg", "image_labels": ["sky"]}, {"image_name": "b.jpg", "image_labels": []}],
        "labels": ["sky", "sea"],
    }
    (folder / "train.json").write_text(json.dumps(content))
    images_in(folder / "images", ["a.jpg"])


def nuswide_official(folder):
    labels = folder / "Groundtruth" / "TrainTestLabels"
    labels.mkdir(parents=True)
    (folder / "ImageList").mkdir()
    (folder / "Concepts81.txt").write_text("sky\nsea\n")
    (folder / "ImageList" / "TrainImagelist.txt").write_text("x\\1.jpg\ny\\2.jpg\nz\\3.jpg\n")
    (labels / "Labels_sky_Train.txt").write_text("1\n0\n1\n")
    (labels / "Labels_sea_Train.txt").write_text("0\n0\n1\n")


def openimages_official(folder):
    (folder / "oidv6-train-annotations-human-imagelabels.csv").write_text(
        "ImageID,Source,LabelName,Confidence\n0a,verification,/m/1,1\n0a,verification,/m/2,0\n0b,crowd,/m/2,1\n"
    )
    (folder / "oidv6-class-descriptions.csv").write_text('LabelName,DisplayName\n/m/1,Cat\n/m/2,"Dog, wild"\n')
    (folder / "oidv6-classes-trainable.txt").write_text("/m/2\n/m/1\n")
    images_in(folder / "train", ["0a.jpg"])


def openimages_csl(folder):
    (folder / "data.csv").write_text(
        "filepath,label,label_neg,split_name\n"
        "train/a.jpg,\"['/m/1', '/m/2']\",\"['/m/3']\",train\ntrain/b.jpg,['/m/2'],[],train\nval/c.jpg,[],['/m/1'],val\n"
    )


def openimages_cached(folder):
    openimages_official(folder)
    read_annotations(folder, split="train")
    assert list(folder.glob("*.cache"))


def attributes(folder):
    (folder / "attributes.csv").write_text(
        "filename,neck,sleeve_length,colour,has_hat,weight,split\n"
        'a.jpg,3,0,"Red. dark",1,1.5,train\nb.jpg,#N/A,2,Blue,0,1,train\nc.jpg,6,,Blue,-1,2,val\nd.jpg,1,1,Red,1,1,val\n'
    )
    images_in(folder / "images", ["a.jpg"])


def voc_lists(folder):
    main = folder / "ImageSets" / "Main"
    main.mkdir(parents=True)
    (main / "train.txt").write_text("000001\n000002\n")
    (main / "cat_train.txt").write_text("000001  1\n000002 -1\n")
    (main / "dog_train.txt").write_text("000001  0\n000002  1\n")


def voc_objects(folder):
    main = folder / "ImageSets" / "Main"
    main.mkdir(parents=True)
    (main / "train.txt").write_text("000001\n")
    (folder / "Annotations").mkdir()
    (folder / "Annotations" / "000001.xml").write_text(
        "<annotation><object><name>cat</name><difficult>0</difficult></object>"
        "<object><name>dog</name><difficult>1</difficult></object></annotation>"
    )


def yolo(folder):
    (folder / "data.yaml").write_text("train: train/images\nnames:\n  0: cat\n  1: dog\n")
    (folder / "train" / "labels").mkdir(parents=True)
    (folder / "train" / "labels" / "a.txt").write_text("1 0.5 0.5 0.25 1e-1\n0 0.1 0.1 0.2 0.2 0.3 0.3\n")
    images_in(folder / "train" / "images", ["a.jpg"])


def cvat(folder):
    (folder / "annotations.xml").write_text(
        "<annotations><meta><task><labels><label><name>cat</name></label></labels></task></meta><image id='0' name='a.jpg' "
        "subset='Train'><box label='cat'><attribute name='x'>1</attribute></box><tag label='cat'/></image></annotations>"
    )
    images_in(folder / "images", ["a.jpg"])


def label_studio(folder):
    box = {"type": "rectanglelabels", "from_name": "box", "value": {"x": 1, "rectanglelabels": ["cat"]}}
    choice = {"type": "choices", "from_name": "q", "value": {"choices": ["dog", "owl"]}}
    kind = {"type": "taxonomy", "from_name": "t", "value": {"taxonomy": [["a", "b"]]}}
    annotation = {
        "completed_by": {"id": 1},
        "result": [box, choice, kind],
        "was_cancelled": False,
        "ground_truth": False,
    }
    tasks = [{"data": {"image": "/data/local-files/?d=a%20b/a.jpg"}, "annotations": [annotation, annotation]}]
    (folder / "export.json").write_text(json.dumps(tasks))
    images_in(folder, ["a.jpg"])


def label_studio_min(folder):
    record = {
        "image": "/data/upload/1/0a1b2c3d-a.jpg",
        "id": 1,
        "q": "dog",
        "box": [{"x": 1, "rectanglelabels": ["cat"]}],
    }
    (folder / "export.json").write_text(json.dumps([record | {"annotator": 1, "annotation_id": 2, "lead_time": 1.5}]))
    images_in(folder, ["a.jpg"])


def fiftyone(folder):
    labels = {"a": 0, "b": [0, {"label": "dog"}], "c": None, "d": {"label": "dog", "confidence": 0.5}}
    (folder / "labels.json").write_text(json.dumps({"classes": ["cat", "dog"], "labels": labels}))
    images_in(folder / "data", ["a.jpg"])


def celeba(folder):
    (folder / "list_attr_celeba.csv").write_text("image_id,Bald,Young\na.jpg,0,1\nb.jpg,1,0\n")
    (folder / "list_eval_partition.csv").write_text("image_id,partition\na.jpg,0\nb.jpg,1\n")
    (folder / "train.txt").write_text("a.jpg\n")
    images_in(folder / "img_align_celeba" / "img_align_celeba", ["a.jpg"])


def prepared_tables(folder):
    for split in ("train", "val"):
        (folder / f"attributes_{split}.csv").write_text("filename,Bald,Young\na.jpg,-1,1\nb.jpg,1,1\n")
    options = {
        "minus_one": "negative",
        "roles": {"Bald": "class", "Young": "class"},
        "attributes": {},
        "no_label": ["x"],
    }
    (folder / "preparation.json").write_text(json.dumps({"source": "x.csv", "photos": ["images"], "options": options}))
    images_in(folder / "images_split" / "train" / "images", ["a.jpg"])


def read_train(folder):
    annotations = read_annotations(folder, split="train")
    annotations.summary()
    for image in annotations.images:
        os.path.isfile(image)


READERS = {
    "COCO": (coco, read_train),
    "Datumaro": (datumaro, read_train),
    "LVIS": (lvis, read_train),
    "NUS-WIDE tutorial": (nuswide_tutorial, read_train),
    "NUS-WIDE": (nuswide_official, read_train),
    "OpenImages": (openimages_official, read_train),
    "OpenImages data.csv": (openimages_csl, read_train),
    "label cache": (openimages_cached, read_train),
    "attributes": (attributes, read_train),
    "VOC lists": (voc_lists, read_train),
    "VOC objects": (voc_objects, read_train),
    "YOLO": (yolo, read_train),
    "CVAT": (cvat, read_train),
    "Label Studio": (label_studio, read_train),
    "Label Studio, JSON-MIN": (label_studio_min, read_train),
    "FiftyOne": (fiftyone, read_train),
    "a split beside a table": (celeba, read_train),
    "prepared tables": (prepared_tables, read_train),
}


def shard(folder):
    samples = [("a", [0], [1], "train"), ("b", [1], [1], "train")]
    with tarfile.open(folder / "shards-000000.tar", "w") as tar:

        def add(name, content):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))

        add(META, meta_json(ClassSet(["cat", "dog"], ["cat", "dog"]), -1))
        for key, classes, values, split in samples:
            add(f"{key}.jpg", PICTURES["jpg"])
            add(f"{key}.json", sample_json(f"{key}.jpg", split, classes, values, None))


def read_shard(folder):
    annotations = read_annotations(folder / "shards-000000.tar", split="train")
    for image in annotations.images:
        check_image(image, annotations.roots)


def one_file(name, content, read):
    """A reader of one file."""

    def make(folder):
        target = folder / name
        content(target) if callable(content) else target.write_text(content)

    return make, lambda folder: read(folder / name)


READERS["tar shards"] = (shard, read_shard)
CLASSES = ["cat", "dog"]
NETWORK = {
    "body.conv1.0.weight": torch.zeros(64, 48, 3, 3),
    "head.fc.weight": torch.ones(2, 4),
    "head.fc.bias": torch.ones(2),
}


def labels_file(path):
    LabelMatrix.from_dense(np.array([[1, 0, -1], [0, 0, 1]])).save(path)


def legacy_checkpoint(path):
    torch.save({"state_dict": NETWORK}, path, _use_new_zipfile_serialization=False)


DESCRIPTION = Description(Architecture("test_resnet"), ClassSet(CLASSES, CLASSES), 8).to_metadata()


def exported_onnx(path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, number = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Conv", ["images", "w"], ["c"]), helper.make_node("Flatten", ["c"], ["logits"])],
        "network",
        [helper.make_tensor_value_info("images", number, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", number, ["batch", 2])],
        [helper.make_tensor("w", number, [2, 3, 8, 8], np.ones(384, np.float32))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, DESCRIPTION)
    onnx.save(model, path)


def kept_photo(folder):
    images_in(folder, ["a.jpg"])
    cache = PhotoCache(folder, [str(folder / "a.jpg")], (8, 8), say=lambda _: None)
    kept = cache.find(0, str(folder / "a.jpg"))
    cache.keep(0, kept.fingerprint, np.ones((8, 8, 3), np.uint8))


def find_photo(folder):
    cache = PhotoCache(folder, [str(folder / "a.jpg")], (8, 8), say=lambda _: None)
    pixels = cache.find(0, str(folder / "a.jpg")).pixels
    assert pixels is None or (pixels == 1).all()


READERS |= {
    "classes file": one_file("classes.txt", "/m/2\n/m/1\n", read_class_list),
    "class descriptions": one_file(
        "names.csv", 'LabelName,DisplayName\n/m/1,Cat\n/m/2,"Dog, wild"\n', read_class_descriptions
    ),
    "prior": one_file("prior.csv", "Classes,avg_pred\ncat,0.25\ndog,1e-3\n", lambda path: read_prior(path, CLASSES)),
    "list of images": one_file("list.txt", "a.jpg\n# b\nsub/c.png\n", lambda path: find_images(path, lambda _: None)),
    "labels .npz": one_file("labels.npz", labels_file, LabelMatrix.load),
    "config.json": one_file(
        "config.json", '{"lr": 0.1, "a": [1, {}]}', lambda path: RunFolder(path.parent).read_config()
    ),
    "mid_to_classes.pth": one_file(
        "mid_to_classes.pth", lambda path: torch.save({"/m/1": "Cat", "/m/2": "Dog, wild"}, path), read_mid_to_classes
    ),
    "photo cache": (kept_photo, find_photo),
    "exported .onnx": one_file("network.onnx", exported_onnx, OnnxNetwork),
    "log.jsonl": one_file("log.jsonl", '{"epoch": 1, "step": 2}\n{"epoch": 2, "step": 4}\n', read_log),
    "checkpoint of old PyTorch": one_file("old.pth", legacy_checkpoint, checkpoint.read),
    "safetensors": one_file(
        "w.safetensors",
        lambda path: save_file(NETWORK, path, metadata={"classes": json.dumps(CLASSES)}),
        checkpoint.read,
    ),
}


# --------------------------------------------------------------------------------------------------------------- tests


def tries(name, share=1.0):
    """What is tried on a reader: always the same few inputs, or as many as CSL_FUZZ says (of a slow one a share), at random."""
    return settings(
        max_examples=max(1, int((INPUTS or FEW) * share)),
        derandomize=not INPUTS,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def only_input_errors(name, read):
    """`read()` returns, or raises an InputError of one printable line, or of three (`csl.labels.resemblance`)."""
    TRIED[name] = TRIED.get(name, 0) + 1
    refusal = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read()
    except InputError as error:
        refusal = str(error).split("\n")
    assert refusal is None or (len(refusal) in (1, 3) and all(line and line.isprintable() for line in refusal))


@pytest.fixture(autouse=True, scope="module")
def count():
    """With CSL_FUZZ_COUNTS=FILE the numbers of inputs tried are written there."""
    yield
    if "CSL_FUZZ_COUNTS" in os.environ:
        Path(os.environ["CSL_FUZZ_COUNTS"]).write_text(json.dumps(TRIED))


@pytest.mark.parametrize("name", READERS)
def test_readers(name, tmp_path, monkeypatch):
    monkeypatch.setattr(openimages, "_CACHED_FROM", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    make, read = READERS[name]
    folder = tmp_path / "set"
    folder.mkdir()
    make(folder)
    read(folder)  # what is mutated is valid
    whole = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".jpg"}
    targets = [path for path in whole if ".cache" in str(path)] or list(whole)

    @tries(name)
    @given(data=st.data())
    def run(data):
        for path in folder.rglob("*"):
            if path.is_file() and path.suffix != ".jpg" and path not in whole:
                path.unlink()
        for path, content in whole.items():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
            os.utime(path, ns=(10**18, 10**18))
        mutate_file(data, data.draw(st.sampled_from(targets)))
        only_input_errors(name, lambda: read(folder))

    if name == "label cache":  # its name holds the date of the CSV
        csv = folder / "oidv6-train-annotations-human-imagelabels.csv"
        os.utime(csv, ns=(10**18, 10**18))
        for cache in folder.glob("*.cache"):
            parts = cache.name.split(".")
            parts[-3] = f"{csv.stat().st_size}-{10**18}"
            cache.rename(cache.with_name(".".join(parts)))
        whole = {
            path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".jpg"
        }
        targets = [path for path in whole if ".cache" in str(path)]
    run()


@tries("images")
@given(data=st.data())
def test_images(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "image"
    content = PICTURES[data.draw(st.sampled_from(sorted(PICTURES)))]
    path.write_bytes(mutate_bytes(data, content))
    for read in (load_rgb, load_pixels, lambda path: load_pixels(path, at_least=(8, 8))):
        only_input_errors("images", lambda read=read: read(path))
    reason = check_image(path)
    assert reason is None or "\n" not in reason


OURS = {
    "format": "csl-1", "model": NETWORK, "ema": {"state": NETWORK, "updates": 3}, "best_weights": "ema", "num_classes": 2,
    "classes": CLASSES, "idx_to_class": {0: "cat", 1: "dog"}, "groups": {"animal": [0, 2]}, "model_name": "tresnet_m",
    "head": "linear", "config": {"image_size": [32, 48], "data": "x", "ignore_columns": ["a"]}, "epoch": 3,
}  # fmt: skip
ODD_TENSORS = [
    torch.zeros(()), torch.zeros(0), torch.zeros(2, dtype=torch.complex64), torch.zeros(2, dtype=torch.bool),
    torch.zeros(1).expand(10**9), torch.zeros(2, 2).to_sparse(), torch.zeros(3, dtype=torch.bfloat16),
    torch.full((2,), float("nan")), torch.zeros(1).expand(10**6, 10**6), torch.zeros(2, device="meta"),
]  # fmt: skip


@tries("checkpoint content")
@given(data=st.data())
def test_content_of_checkpoints(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "content.ckpt"
    torch.save(mutate_tree(data, OURS, [*JUNK, *ODD_TENSORS]), path)
    only_input_errors("checkpoint content", lambda: checkpoint.read(path))


@tries("checkpoint archive")
@given(data=st.data())
def test_archives_of_checkpoints(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "archive.ckpt"
    with_objects = data.draw(st.booleans())
    torch.save({**OURS, "args": argparse.Namespace(lr=1), "path": path} if with_objects else OURS, path)
    if data.draw(st.booleans()):  # bytes of the archive itself, else of what is packed in it
        path.write_bytes(mutate_bytes(data, path.read_bytes()))
    else:
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        name = data.draw(st.sampled_from([n for n in members if n.endswith((".pkl", "version", "byteorder"))]))
        members[name] = mutate_bytes(data, members[name])
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
    only_input_errors("checkpoint archive", lambda: checkpoint.read(path))


@tries("checkpoint network")
@given(data=st.data())
def test_networks_of_checkpoints(tmp_path_factory, data, test_resnet):
    path = tmp_path_factory.getbasetemp() / "network.ckpt"
    content = {
        "format": "csl-1",
        "model_name": "test_resnet",
        "num_classes": 2,
        "classes": CLASSES,
        "model": test_resnet,
    }
    junk = [*JUNK, *ODD_TENSORS, "resnet18", "tresnet_m", "hf-hub:timm/resnet18", "vgg[", "ml_decoder"]
    torch.save(mutate_tree(data, content, junk), path)
    only_input_errors("checkpoint network", lambda: checkpoint.load_model(path))


@pytest.fixture(scope="module")
def test_resnet():
    from csl.models import create_model

    return dict(create_model("test_resnet", num_classes=2).state_dict())


@tries("prior table")
@given(data=st.data())
def test_priors_of_any_table(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "prior.csv"
    cells = st.one_of(st.text(max_size=5), st.floats(), st.integers(), st.sampled_from(CLASSES))
    rows = data.draw(st.lists(st.tuples(cells, cells), max_size=4))
    pd.DataFrame(rows, columns=["Classes", "avg_pred"]).to_csv(path, index=False, errors="surrogatepass")
    only_input_errors("prior table", lambda: read_prior(path, CLASSES))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run stopped after its first step, its checkpoint, and a function that goes on from it."""
    folder = tmp_path_factory.mktemp("stopped")
    data = make_garments(folder / "set", num_train=12, num_val=4, size=32, progress=False)
    settings = {
        "model_name": "test_resnet",
        "image_size": 32,
        "batch_size": 2,
        "epochs": 2,
        "workers": 0,
        "device": "cpu",
    }
    config = TrainConfig(**settings, data=str(data), path_dest=str(folder / "run"), max_steps=1)
    with pytest.MonkeyPatch.context() as patch:
        for owner, name, nothing in without_pictures():
            patch.setattr(owner, name, nothing)
        experiment.train(config, lambda _: None)
        config.resume = True
        state = torch.load(folder / "run" / "last.ckpt", weights_only=True)
        yield folder / "run" / "last.ckpt", state, lambda: experiment.train(config, lambda _: None)


@tries("state of a resumed run", share=0.1)
@given(data=st.data())
def test_states_of_resumed_runs(stopped, data):
    path, state, resume = stopped
    torch.save(mutate_tree(data, state, [*JUNK, *ODD_TENSORS]), path)
    only_input_errors("state of a resumed run", resume)
