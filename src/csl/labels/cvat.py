"""CVAT's XML for images 1.1: what is drawn or tagged in an image is there, every other label is absent.

https://docs.cvat.ai/docs/manual/advanced/formats/format-cvat
"""

from pathlib import Path

from csl.errors import InputError, NoSplit
from csl.labels.annotations import Annotations
from csl.labels.coco import of_drawn
from csl.labels.layouts import CVAT, Images
from csl.labels.matching import few, few_names
from csl.labels.matrix import NEGATIVE, POSITIVE, LabelMatrix
from csl.labels.paths import existing, known_split, split_name, split_of
from csl.labels.voc import parse_xml


def read_cvat(
    path: str | Path, images: Images = None, split: str | None = "train", keep_unlabelled_images: bool = False
) -> Annotations:
    """Read one split of CVAT's XML.

    Args:
        path: `annotations.xml`, or a folder with it or with one in a folder a split.
        images: the folder, or folders, of the images; by default `images` and where all readers look (`Layout.photos`).
        split: "train", "val" or "test"; None is "train". An image is of the split that its `subset` says, else of that of its
            file's folder or name, else for training.
        keep_unlabelled_images: also keep images without any annotation; else they count in `skipped`.

    Returns:
        Annotations with fill 0, images in the order of the file, classes in that of its labels.

    Raises:
        NoSplit: no images of the split.
        InputError: no XML of this form, an image without a name, or a label that the file does not list.
    """
    path = existing(path)
    split = known_split(split) or "train"
    files = _files(path)
    folder = path if path.is_dir() else path.parent
    classes: dict[str, int] = {}
    names, rows, columns, splits, left_out = [], [], [], set(), set()
    for file in files:
        root = parse_xml(file)
        own = [one for one in root.iter("label") if one.find("name") is not None and not one.findtext("parent")]
        for one in own:
            classes.setdefault((one.findtext("name") or "").strip(), len(classes))
        if root.find("track") is not None:
            raise InputError(f"{file}: found tracks of a video, expected an export as 'CVAT for images 1.1'")
        for image in root.iter("image"):
            of = split_name(image.get("subset", "")) or split_of(file, folder) or "train"
            splits.add(of)
            if of != split:
                continue
            if not image.get("name"):
                raise InputError(f"{file}: image {image.get('id')!r} has no name, expected that of its file")
            for shape in image:
                if (column := classes.get(shape.get("label", ""))) is None:
                    raise InputError(
                        f"{file}: image {image.get('name')!r} has the label {shape.get('label')!r}, expected one of "
                        f"{few_names(list(classes)) or 'the list of labels'}"
                    )
                left_out |= {one.get("name", "") for one in shape.iter("attribute")}
                rows.append(len(names))
                columns.append(column)
            names.append(image.get("name"))
    if not names:
        raise NoSplit(f"{path}: no images of the {split} split, found {few(sorted(splits)) or 'no image'}")
    notes = [f"attributes of what is drawn are no labels: {few_names(sorted(left_out))}"] if left_out else []
    labels = LabelMatrix.from_entries(rows, columns, POSITIVE, (len(names), len(classes)), fill=NEGATIVE)
    photos = CVAT.photos(files[0], split, images, folder)
    return of_drawn(path, names, labels, list(classes), photos, keep_unlabelled_images, notes)


def recognise(path: Path) -> bool:
    """Whether the path is such a file, or a folder with one in it or in a folder of a split."""
    return bool(_files(path))


def _files(path):
    found = [path] if path.is_file() else [*sorted(path.glob("*.xml")), *sorted(path.glob("*/annotations.xml"))]
    return [file for file in found if file.suffix.lower() == ".xml" and _is_cvat(file)]


def _is_cvat(file):
    with open(file, "rb") as stream:
        return b"<annotations" in stream.read(1000)
