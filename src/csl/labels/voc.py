"""Pascal VOC 2007 and 2012: 20 classes, each present, absent or, where all its objects are difficult, un-annotated.

http://host.robots.ox.ac.uk/pascal/VOC
"""

import os
from collections.abc import Iterable
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np

from csl.errors import InputError
from csl.labels.annotations import Annotations
from csl.labels.layouts import VOC
from csl.labels.matrix import NEGATIVE, POSITIVE, UNANNOTATED, LabelMatrix
from csl.labels.paths import SPLITS, TEST_AS_VAL, existing, known_split, read_text
from csl.labels.trust import CONTROL

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse",
    "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

_LONGEST = 200  # bytes of a name, to which folder and suffix are added
_DEEPEST = 100  # levels of an XML; VOC has four

_VALUES = {"1": POSITIVE, "0": UNANNOTATED, "-1": NEGATIVE}


def read_voc(path: str | Path, images: str | Path | None = None, split: str | None = "train") -> Annotations:
    """Read one split of a VOC data set.

    Labels come from `ImageSets/Main/{class}_{split}.txt` where they are (1 positive, 0 difficult, -1 negative), else
    from `Annotations/*.xml`: a class with an object that is not `difficult` is positive, one with difficult objects
    only un-annotated, every other negative.

    Args:
        path: the folder that holds `ImageSets`, one that holds a single such folder (`VOCdevkit`), or the list
            `ImageSets/Main/{name}.txt` itself.
        images: the folder of the images; `JPEGImages` by default.
        split: "train", "val" or "test"; None is "train". Without `train.txt`, `trainval.txt` is for training;
            without `val.txt`, `test.txt` is for validation.

    Returns:
        Annotations with fill 0, images in the order of the list. The classes are those of the text files, sorted,
        else the 20 of VOC, or, where an XML names another, all that any XML names, sorted.

    Raises:
        InputError: no such list, a line or an XML that does not parse, an image without a line; the message names
            file and line.
    """
    split = known_split(split) or "train"
    list_file = _list_file(existing(path), split)
    identities = _identities(list_file)
    name = list_file.stem
    class_files = sorted(list_file.parent.glob(f"*_{name}.txt"))
    if class_files:
        classes = [file.stem.removesuffix(f"_{name}") for file in class_files]
        columns = [_labels_of_class(file, identities) for file in class_files]
        labels = LabelMatrix.from_dense(np.stack(columns, axis=1), NEGATIVE)
    else:
        classes, labels = _from_objects(list_file.parents[2] / "Annotations", list_file, identities)
    base = images if images is not None else VOC.image_folders(list_file, split)[0]
    return Annotations(
        images=[os.path.join(base, f"{identity}.jpg") for identity in identities],
        labels=labels,
        classes=classes,
        source=str(list_file),
        folder=os.fspath(base),
        notes=(TEST_AS_VAL,) if split == "val" and name == "test" and Path(path).is_dir() else (),
    )


def _list_file(path, split):
    """The list of a split's images: `path` itself, or the one in the VOC folder there."""
    if path.is_dir():
        lists = [file for other in SPLITS for name in VOC.names(other) for file in path.glob(name)]
        folders = sorted({file.parents[2].name for file in lists})
        if len(folders) > 1:
            raise InputError(f"{path}: found {', '.join(folders)}, expected the path of the one to read")
    return VOC.label_file(path, split)


def _identities(file):
    """Names of the images of a list, such as `000012`, as {name: row}."""
    rows = {}
    for number, cells in _lines(file):
        if len(cells) != 1:
            raise InputError(f"{file}, line {number}: found {' '.join(cells)!r}, expected the name of an image")
        if not _is_plain(cells[0]):
            raise InputError(f"{file}, line {number}: found {cells[0][:80]!r}, expected the plain name of an image")
        if cells[0] in rows:
            raise InputError(f"{file}, line {number}: found {cells[0]!r} for the second time, expected it once")
        rows[cells[0]] = len(rows)
    if not rows:
        raise InputError(f"{file}: found no image, expected one per line")
    return rows


def _is_plain(name):
    """Whether a name can be part of a path: it stays in its folder and is not too long for a file name."""
    parts = name.split("/")
    short = max(len(part.encode()) for part in parts) <= _LONGEST
    return short and parts[0] != "" and ".." not in parts and not CONTROL.search(name)


def _labels_of_class(file, rows):
    """int8 [N] of a file `{class}_{split}.txt`."""
    labels = np.zeros(len(rows), np.int8)
    seen = np.zeros(len(rows), dtype=bool)
    for number, cells in _lines(file):
        if len(cells) != 2 or cells[1] not in _VALUES:
            raise InputError(f"{file}, line {number}: found {' '.join(cells)!r}, expected an image and 1, 0 or -1")
        row = rows.get(cells[0])
        if row is None or seen[row]:
            reason = "not in the list of images" if row is None else "for the second time"
            raise InputError(f"{file}, line {number}: found {cells[0]!r} {reason}, expected each of its images once")
        labels[row], seen[row] = _VALUES[cells[1]], True
    if not seen.all():
        missing = list(rows)[int(np.argmin(seen))]
        raise InputError(f"{file}: no line for {missing!r}, expected one per image of the list")
    return labels


def _from_objects(folder, list_file, rows):
    """Classes, and the LabelMatrix [N, C] of the objects in `Annotations/*.xml`."""
    missing = next((name for name in rows if not (folder / f"{name}.xml").is_file()), None)
    if missing is not None:
        raise InputError(f"{folder / missing}.xml: no such file, expected it for {missing!r} of {list_file}")
    objects = {file.stem: _objects(file) for file in sorted(folder.glob("*.xml"))}
    names = {name for found in objects.values() for name in found}
    classes = CLASSES if names <= set(CLASSES) else sorted(names)
    number = {name: column for column, name in enumerate(classes)}
    entries = [
        (row, number[name], value) for identity, row in rows.items() for name, value in objects[identity].items()
    ]
    row, column, value = np.array(entries, np.int64).reshape(-1, 3).T
    return list(classes), LabelMatrix.from_entries(row, column, value, (len(rows), len(classes)), fill=NEGATIVE)


def _objects(file):
    """{class: POSITIVE, or UNANNOTATED where all its objects are difficult} of one XML."""
    found = {}
    for position, part in enumerate(_parse(file).findall("object"), start=1):
        name = (part.findtext("name") or "").strip()
        difficult = (part.findtext("difficult") or "0").strip()
        if not name or difficult not in ("0", "1"):
            what = "difficult is neither 0 nor 1" if name else "it has no name"
            raise InputError(f"{file}: object {position}: {what}, expected a name and whether it is difficult")
        value = UNANNOTATED if difficult == "1" else POSITIVE
        found[name] = max(found.get(name, UNANNOTATED), value)
    return found


def _parse(file) -> Element:
    """The root of an XML without a document type, so that there are no entities to expand."""
    builder, parser = TreeBuilder(), expat.ParserCreate()
    depth = 0

    def start(tag, attributes):
        nonlocal depth
        depth += 1
        if depth > _DEEPEST:
            line = parser.CurrentLineNumber
            raise InputError(f"{file}, line {line}: found elements nested over {_DEEPEST} deep, expected a few levels")
        builder.start(tag, attributes)

    def end(tag):
        nonlocal depth
        depth -= 1
        builder.end(tag)

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data

    def refuse(*_):
        line = parser.CurrentLineNumber
        raise InputError(f"{file}, line {line}: found a document type (DOCTYPE), expected plain XML")

    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(file.read_bytes(), True)
    except expat.ExpatError as error:
        raise InputError(f"{file}, line {error.lineno}: not valid XML: {expat.ErrorString(error.code)}") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None
    return builder.close()


def _lines(file) -> Iterable[tuple[int, list[str]]]:
    """(line number, cells) of the lines of a text file that are not blank."""
    lines = enumerate(read_text(file, "a list of images").splitlines(), start=1)
    return [(number, cells) for number, line in lines if (cells := line.split())]
