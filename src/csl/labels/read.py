"""Read annotations of any known format: the first that recognises the path reads it."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from csl.errors import InputError, NoSplit
from csl.labels import attributes, class_folders, coco, cvat, datumaro, lvis, nuswide, openimages, shards, voc, yolo
from csl.labels.annotations import Annotations
from csl.labels.attributes import parse_attributes, parse_roles
from csl.labels.layouts import COCO, DATUMARO, LVIS, VOC, Images
from csl.labels.matching import with_classes
from csl.labels.matrix import LabelMatrix
from csl.labels.openimages import files as openimages_files
from csl.labels.options import DataOptions
from csl.labels.paths import TEST_AS_VAL, existing, known_split
from csl.labels.resemblance import explain
from csl.labels.reviews import NONE, data_folder, find_reviews, with_reviews
from csl.labels.table_files import only_table
from csl.labels.trust import require_inside


class Format(NamedTuple):
    """One annotation format.

    Attributes:
        name: as in messages.
        recognise: Path -> bool, quick and without side effects.
        read: (path, images=..., split=..., **options) -> Annotations.
        looks_for: the files by which it is recognised, as in messages.
        signs: by which a path resembles it: patterns of paths below it, with `:WORD` files of that key or column.
    """

    name: str
    recognise: Callable[[Path], bool]
    read: Callable[..., Annotations]
    looks_for: str
    signs: Sequence[str] = ()

    @property
    def options(self) -> set[str]:
        """Names of the options that `read` takes beyond those of every reader."""
        return set(inspect.signature(self.read).parameters) - {"path", "images", "split", "cache"}


_SECTIONS = ("*.json:images", "*.json:annotations", "*.json:categories")

# In the order in which they are tried: a format that is a special case of another stands before it, and files of any name
# behind those that a format has a name for.
FORMATS = [
    Format(
        "OpenImages",
        openimages_files.recognise,
        openimages.read_openimages,
        "data.csv with filepath, label, label_neg and split_name, or "
        "[oidv6-]{train,validation,test}-annotations-{human-imagelabels,bbox}.csv, or "
        "{train,validation,test}/labels/classifications.csv",
        ("*annotations*.csv:LabelName", "*annotations*.csv:Confidence", "*class-descriptions*.csv"),
    ),
    Format(
        "LVIS",
        LVIS.recognises,
        lvis.read_lvis,
        "lvis_v1_{train,val}.json, also in annotations",
        ("*lvis*.json", *_SECTIONS, "*.json:neg_category_ids"),
    ),
    Format(
        "NUS-WIDE",
        nuswide.recognise,
        nuswide.read_nuswide,
        "Groundtruth/TrainTestLabels, or {small_,}{train,test}.json with samples and labels",
        ("Groundtruth/TrainTestLabels", "ImageList", "Concepts81.txt", "*.json:samples", "*.json:labels"),
    ),
    Format(
        "Pascal VOC",
        VOC.recognises,
        voc.read_voc,
        "ImageSets/Main/{train,val,test}.txt, also in VOC2007 or VOC2012",
        ("JPEGImages", "Annotations/*.xml", "ImageSets/Main/*.txt"),
    ),
    Format(
        "COCO",
        COCO.recognises,
        coco.read_coco,
        "annotations/instances_{train,val}{2014,2017}.json, {train,val}.json or JSON with images, annotations and "
        "categories",
        _SECTIONS,
    ),
    Format(
        "Datumaro",
        DATUMARO.recognises,
        datumaro.read_datumaro,
        "annotations/{train,val}.json with items and categories",
    ),
    Format(
        "CVAT",
        cvat.recognise,
        cvat.read_cvat,
        "annotations.xml of 'CVAT for images 1.1', also in {train,val}",
        ("annotations.xml",),
    ),
    Format(
        "YOLO",
        yolo.recognise,
        yolo.read_yolo,
        "data.yaml with names, classes.txt or obj.names, beside {train,valid}/labels/*.txt, labels/{train,val}/*.txt, "
        "labels/*.txt or obj_{train,valid}_data/*.txt",
        ("labels/*.txt", "data.yaml"),
    ),
    Format(
        "tar shards",
        shards.recognise,
        shards.read_shards,
        "shards-{000000..000127}.tar, a .tar or a folder with shards.json",
        ("*.tar", "shards.json"),
    ),
    Format(
        "a table",
        attributes.recognise,
        attributes.read_attributes,
        "attributes.csv, attributes_{train,val}.csv, {train,val}.csv, {train,valid}/_classes.csv, "
        "{train,validation}/metadata.{csv,jsonl,parquet}, [data/]{train,validation}-*.parquet or a table with a column of "
        "image names",
        ("*.csv:filename",),
    ),
    Format(
        "Pascal VOC without lists",
        voc.recognise_xml,
        voc.read_voc,
        "Annotations/*.xml, also in VOC2007 or VOC2012, *.xml or {train,valid}/*.xml beside the photos",
    ),
    Format("LVIS", LVIS.recognises_any_name, lvis.read_lvis, "a JSON file with neg_category_ids"),
    Format(
        "COCO",
        COCO.recognises_any_name,
        coco.read_coco,
        "{train,valid}/_annotations.coco.json, {train,validation}/labels.json, annotations/instances_{Train,default}.json or "
        "another such JSON file",
    ),
    Format(
        "Datumaro",
        DATUMARO.recognises_any_name,
        datumaro.read_datumaro,
        "annotations/{Train,default}.json with items and categories",
    ),
    Format(
        "a folder a class",
        class_folders.recognise,
        class_folders.read_class_folders,
        "{train,validation}/CLASS/*.jpg",
    ),
]

LAYOUTS = ("on_farm", "hyperml")


def recognised(path: str | Path) -> bool:
    """Whether `read_annotations` recognises the format of the annotations at `path`."""
    return (Path(path).exists() or shards.is_pattern(path)) and _form_of(Path(path)) is not None


def _form_of(path):
    return next((one for one in FORMATS if one.recognise(path)), None)


def read_annotations(
    path: str | Path,
    images: Images = None,
    split: str | None = None,
    layout: str | None = None,
    metadata: str | Path | None = None,
    follow_links: bool = False,
    reviews: str | Path | None = None,
    **options: Any,
) -> Annotations:
    """Read one split of annotations of whatever format is found at `path`.

    Args:
        path: a folder or an annotation file, as for the readers of the formats. A folder that holds several
            formats is read as the first of `FORMATS`; the path of the file itself reads another.
        images: the folder, or folders, that image names are relative to; None looks for it as the format's reader says.
        split: "train", "val" or "test". None is every row of a single CSV, and the training split where each split
            has its own file.
        layout: None detects it. "on_farm" is COCO 2014, `{path}/annotations/instances_{split}2014.json` with images
            in `{path}/{split}2014`; "hyperml" is `{metadata}/{split}.json` with images in `{path}`.
        metadata: the folder of the JSON files for "hyperml", which it implies; `path` by default.
        follow_links: whether images may be named, and links may lead, outside of the data folder and `images`.
        reviews: answers of people (`csl.labels.reviews`) that are laid over the labels: a file; "none" for none; None for
            `reviews.csv` in the data folder, if it is there.
        **options: those of the format's reader: keep_unlabelled_images; attributes, ignore_columns, classes,
            groups, columns, filename_column, roles, minus_one, unlisted, no_label, vote_threshold; classes_file,
            strict_labels. One that is None, False or empty counts as not given.

    Returns:
        Annotations.

    Raises:
        NoSplit: the annotations have no images of that split.
        InputError: no such path, or an unknown format (the message says what was looked for and what was
            found), an image is named outside of the data folder (`require_inside`), an option is given that the
            format does not take, the reader finds an error, or reviews are of other data.
        TypeError: an option that no format has.
    """
    options = _given(options)
    path = Path(path) if shards.is_pattern(path) else existing(path)
    if layout is not None or metadata is not None:
        found = _read_layout(path, images, known_split(split) or "train", layout or "hyperml", metadata, options)
    else:
        form = _form_of(path)
        if form is None and path.is_dir() and (column := options.get("filename_column")):
            path = only_table(path, column) or path
            form = _form_of(path)
        if form is None:
            raise InputError(*explain(path, FORMATS))
        _check_options(form, path, options)
        found = form.read(path, images=images, split=split, **options)
    file, notes = find_reviews(path, reviews)
    found = replace(found, notes=(*found.notes, *notes))
    if file is not None:
        found = with_reviews(found, file, data_folder(path))
    if follow_links:
        return found
    folders = (found.folder, *found.folders)
    return replace(found, roots=require_inside(found.images, folders, path, found.source))


def _given(options):
    """The options that are neither None nor False nor empty."""
    known = set().union(*(one.options for one in FORMATS))
    if strangers := options.keys() - known:
        raise TypeError(f"read_annotations() got unexpected options {sorted(strangers)}, expected {sorted(known)}")
    return {name: value for name, value in options.items() if (len(value) if hasattr(value, "__len__") else value)}


def _check_options(found, path, options):
    for name in options:
        if name not in found.options:
            takes_it = ", ".join(dict.fromkeys(one.name for one in FORMATS if name in one.options))
            raise InputError(
                f"{name}: {path} was read as {found.name}, which does not take it; expected {takes_it} "
                "(give the path of the file itself if the folder holds several formats)"
            )


def _read_layout(path, images, split, layout, metadata, options):
    if layout not in LAYOUTS:
        raise InputError(f"--debug_mode: found {layout!r}, expected one of {', '.join(LAYOUTS)}")
    if layout == "on_farm":
        if metadata is not None:
            raise InputError(f"--metadata: found {metadata}, expected none for the layout on_farm")
        file = path / "annotations" / f"instances_{split}2014.json"
        images = images if images is not None else path / f"{split}2014"
    else:
        file = Path(metadata if metadata is not None else path) / f"{split}.json"
        images = images if images is not None else path
    if not file.is_file():
        raise NoSplit(f"{file}: no such file, expected it for the layout {layout}")
    _check_options(next(one for one in FORMATS if one.name == "COCO"), path, options)
    return coco.read_coco(file, images=images, split=split, **options)


DEFAULT_METADATA = "./data/COCO_2014"
"""Where `train.json` and `val.json` are looked for if the data holds no annotations: the original's default."""


def read_split(
    options: DataOptions,
    split: str | None,
    classes: Sequence[str] | None = None,
    groups: Mapping[str, range] | None = None,
) -> Annotations:
    """One split of the annotations at `options.data`; where there is no val, test in its place, with a note.

    Args:
        options: what to read, and how.
        split: "train", "val" or "test"; None as `read_annotations`.
        classes, groups: those of a training run: attributes are read against them, other classes are matched to them
            (`with_classes`).

    Raises:
        NoSplit: it has no such images.
        InputError: as `csl.labels.read_annotations`.
    """
    try:
        return _read_split(options, split, classes, groups)
    except NoSplit:
        if split != "val":
            raise
        with suppress(NoSplit):
            test = _read_split(options, "test", classes, groups)
            return replace(test, notes=(*test.notes, TEST_AS_VAL))
        raise


def _read_split(options, split, classes, groups):
    given = vars(DataOptions.of(options))
    data, layout, metadata = (given.pop(name) for name in ("data", "debug_mode", "metadata"))
    if metadata is None and Path(DEFAULT_METADATA, f"{split or 'train'}.json").is_file() and not recognised(data):
        metadata = DEFAULT_METADATA
    given["attributes"] = parse_attributes(options.attributes) if options.attributes else None
    given["roles"] = parse_roles(options.roles) if options.roles else None
    if groups:
        given |= {"classes": classes, "groups": groups}
    found = read_annotations(data, split=split, layout=layout, metadata=metadata, **given)
    return found if classes is None or groups else with_classes(found, classes)


def read_truth(options: DataOptions, split: str | None, annotations: Annotations) -> LabelMatrix | None:
    """All labels of `annotations`, if a `truth.csv` beside them is of the same images; else None."""
    file = Path(options.data) / "truth.csv"
    if not annotations.groups or not file.is_file():
        return None
    truth = read_split(replace(options, data=str(file), reviews=NONE), split, annotations.classes, annotations.groups)
    return truth.labels if truth.names == annotations.names else None
