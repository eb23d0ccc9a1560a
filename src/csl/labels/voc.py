"""Pascal VOC 2007 and 2012: 20 classes, each present, absent or, where all its objects are difficult, un-annotated.

http://host.robots.ox.ac.uk/pascal/VOC
"""

import os
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np

from csl.errors import InputError, NoSplit
from csl.labels.annotations import Annotations
from csl.labels.layouts import VOC, VOC_FOLDERS, Images
from csl.labels.matching import few_names
from csl.labels.matrix import NEGATIVE, POSITIVE, UNANNOTATED, LabelMatrix
from csl.labels.paths import SPLITS, TEST_AS_VAL, existing, known_split, read_text, split_name, split_of
from csl.labels.photos import Photos, clean_name, without_extension
from csl.labels.trust import CONTROL
from csl.machine.image_formats import is_image_name, is_of_system

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse",
    "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

_LONGEST = 200  # bytes of a name, to which folder and suffix are added
_DEEPEST = 100  # levels of an XML; VOC has four

_OFFICIAL = re.compile(r"(\d{4}_)?\d{6}")  # names of VOC 2007, and of later years

_VALUES = {"1": POSITIVE, "0": UNANNOTATED, "-1": NEGATIVE}
_DIFFICULT = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False, "": False}


def read_voc(path: str | Path, images: Images = None, split: str | None = "train") -> Annotations:
    """Read one split of a VOC data set.

    Labels come from `ImageSets/Main/{class}_{split}.txt` where they are (1 positive, 0 difficult, -1 negative), else
    from `Annotations/*.xml`: a class with an object that is not `difficult` is positive, one with difficult objects
    only un-annotated, every other negative.

    Args:
        path: the folder that holds `ImageSets` or `Annotations`, one that holds a single such folder (`VOCdevkit`), or the
            list `ImageSets/Main/{name}.txt` itself.
        images: the folder, or folders, of the images; by default `JPEGImages` and where all readers look
            (`Layout.photos`).
        split: "train", "val" or "test"; None is "train". Without `train.txt`, `trainval.txt` or `default.txt` is for
        training; without `val.txt`, `test.txt` is for validation. Without any list each is of the split of its
        folder, or all for training.

    Returns:
        Annotations with fill 0, images in the order of the list. The classes are those of the text files, sorted,
        else the 20 of VOC, or, where an XML names another or is not named as VOC's (000005, 2008_000002), all that any
        XML names, sorted.

    Raises:
        InputError: no such list, a line or an XML that does not parse, an image without a line; the message names
            file and line.
    """
    path = existing(path)
    split = known_split(split) or "train"
    source = _source(path, split)
    root = source.parents[2] if source.is_file() else source if source == path else source.parent
    photos = VOC.photos(source, split, images, root)
    names = _unlisted(source, split) if source.is_dir() else _listed(source)
    class_files = [] if source.is_dir() else sorted(source.parent.glob(f"[!.]*_{source.stem}.txt"))
    notes = []
    if class_files:
        classes = [file.stem.removesuffix(f"_{source.stem}") for file in class_files]
        columns = [_labels_of_class(file, {name: row for row, name in enumerate(names)}) for file in class_files]
        labels = LabelMatrix.from_dense(np.stack(columns, axis=1), NEGATIVE)
        files = [_file_name(line, None, photos) for line in names.values()]
    else:
        folder = source if source.is_dir() else next(iter(sorted(root.glob("[Aa]nnotations"))), root / "Annotations")
        classes, labels, described = _from_objects(folder, source, names)
        files = [_file_name(line, one.filename, photos) for line, one in zip(names.values(), described, strict=True)]
        if odd := [value for one in described for value in one.odd]:
            values = few_names(list(dict.fromkeys(odd)))
            notes.append(f"<difficult> is {values} in {len(odd):,} objects: these count as not difficult")
    if split == "val" and source.stem == "test" and path.is_dir():
        notes.append(TEST_AS_VAL)
    return Annotations(labels=labels, classes=classes, source=str(source), **photos.found(files, *notes))


def recognise_xml(path: Path) -> bool:
    """Whether the path is a folder with XML files where VOC has them. Nothing is parsed."""
    return path.is_dir() and bool(_xml_folders(path))


def _source(path, split):
    """The list of a split's images, `path` itself or in the VOC folder there; or the folder of XML files without any list."""
    if not path.is_dir():
        return path
    lists = [file for other in SPLITS for name in VOC.names(other) for file in path.glob(name)]
    folders = _xml_folders(path)
    roots = sorted({file.parents[2] for file in lists} or {one.parent for one in folders if one != path})
    if len(roots) > 1:
        raise InputError(
            f"{path}: found {', '.join(root.name for root in roots)}, expected the path of the one to read"
        )
    return VOC.label_file(path, split) if lists or not folders else sorted(folders)[0]


def _xml_folders(path):
    """The folders of a data folder that hold XML files; else itself, with XML beside the photos or in folders of splits."""
    names = ("[Aa]nnotations", "labels")  # the second is FiftyOne's
    folders = [folder for place in VOC_FOLDERS for name in names for folder in path.glob(f"{place}{name}")]
    folders = [folder for folder in folders if next(_xml_files(folder), None)]
    return folders or [path] * any(map(_is_voc, islice(_xml_files(path), 1)))


def _xml_files(folder) -> Iterator[Path]:
    """The XML files in a folder for them, or in another one and its folders of splits."""
    if folder.name.lower() in ("annotations", "labels"):
        inner = [folder]
    else:
        yield from filter(_is_xml, folder.glob("*"))
        inner = [one for one in folder.glob("*/") if split_name(one.name)]
    for one in inner:
        yield from filter(_is_xml, one.rglob("*"))


def _is_voc(file):
    with open(file, "rb") as stream:
        return bool(re.search(rb"<annotation\b", stream.read(1000)))


def _is_xml(file):
    return file.suffix.lower() == ".xml" and not is_of_system(file.name)


def _listed(file):
    """Lines of a list, such as `000012`, `my photo` or `000012.jpg`, as {cleaned name without extension: line}."""
    names = {}
    for number, line in _lines(file):
        name = without_extension(clean_name(line))
        if not _is_plain(name):
            raise InputError(f"{file}, line {number}: found {line[:80]!r}, expected the plain name of an image")
        if name in names:
            raise InputError(f"{file}, line {number}: found {line!r} for the second time, expected it once")
        names[name] = line
    if not names:
        raise InputError(f"{file}: found no image, expected one per line")
    return names


def _unlisted(folder, split):
    """As `_listed`, of the XML files of a split by their folders; of all for training where no folder is called as one."""
    of_split: dict[str | None, list[str]] = {}
    for file in sorted(_xml_files(folder)):
        name = file.relative_to(folder).as_posix()[: -len(".xml")]
        of_split.setdefault(split_of(file.parent / "x", folder), []).append(name)
    if names := of_split.get(split, of_split.get(None) if split == "train" else None):
        return dict(zip(names, names, strict=True))
    raise NoSplit(
        f"{folder}: no images of the {split} split, as there are no lists (ImageSets/Main/{split}.txt) and no folder {split}: "
        f"found XML for {', '.join(sorted(filter(None, of_split))) or 'training alone'}"
    )


def _is_plain(name):
    """Whether a name can be part of a path: it stays in its folder and is not too long for a file name."""
    parts = name.split("/")
    short = max(len(part.encode()) for part in parts) <= _LONGEST
    return short and parts[0] != "" and ".." not in parts and not CONTROL.search(name)


def _labels_of_class(file, rows):
    """int8 [N] of a file `{class}_{split}.txt`."""
    labels = np.zeros(len(rows), np.int8)
    seen = np.zeros(len(rows), dtype=bool)
    for number, line in _lines(file):
        name, _, value = line.replace("\t", " ").rpartition(" ")
        if not name or value not in _VALUES:
            raise InputError(
                f"{file}, line {number}: found {' '.join(line.split())!r}, expected an image and 1, 0 or -1"
            )
        name = without_extension(clean_name(name.strip()))
        row = rows.get(name)
        if row is None or seen[row]:
            reason = "not in the list of images" if row is None else "for the second time"
            raise InputError(f"{file}, line {number}: found {name!r} {reason}, expected each of its images once")
        labels[row], seen[row] = _VALUES[value], True
    if not seen.all():
        missing = list(rows)[int(np.argmin(seen))]
        raise InputError(f"{file}: no line for {missing!r}, expected one per image of the list")
    return labels


class _Described(NamedTuple):
    """An XML: {class: POSITIVE, or UNANNOTATED where all its objects are difficult}, its photo's name, odd `difficult`s."""

    labels: dict[str, int]
    filename: str
    odd: list[str]


def _from_objects(folder, source, names):
    """Classes, the LabelMatrix [N, C] of the objects in XML files, and what these are [N]."""
    files = list(map(Path, Photos([folder]).paths([f"{name}.xml" for name in names])))
    for file, name in zip(files, names, strict=True):
        if not file.is_file():
            raise InputError(f"{file}: no such file, expected it for {name!r} of {source}")
    described = {file: _described(file) for file in sorted({*files, *_xml_files(folder)})}
    found = {name for one in described.values() for name in one.labels}
    official = found <= set(CLASSES) and all(_OFFICIAL.fullmatch(file.stem) for file in described if found)
    classes = CLASSES if official else sorted(found)
    number = {name: column for column, name in enumerate(classes)}
    rows = [described[file] for file in files]
    entries = [(row, number[name], value) for row, one in enumerate(rows) for name, value in one.labels.items()]
    row, column, value = np.array(entries, np.int64).reshape(-1, 3).T
    shape = (len(rows), len(classes))
    return list(classes), LabelMatrix.from_entries(row, column, value, shape, fill=NEGATIVE), rows


def _described(file):
    root = parse_xml(file)
    labels, odd = {}, []
    for position, part in enumerate(root.findall("object"), start=1):
        name = (part.findtext("name") or "").strip()
        if not name:
            raise InputError(f"{file}: object {position}: it has no name, expected a name and whether it is difficult")
        difficult = (part.findtext("difficult") or "0").strip()
        if difficult.lower() not in _DIFFICULT:
            odd.append(difficult)
        value = UNANNOTATED if _DIFFICULT.get(difficult.lower()) else POSITIVE
        labels[name] = max(labels.get(name, UNANNOTATED), value)
    return _Described(labels, (root.findtext("filename") or "").strip(), odd)


def _file_name(line, filename, photos):
    """The name of the photo of a line: with the extension that its XML says; the XML's name where only that is there."""
    if is_image_name(line):
        return line
    if is_image_name(filename or ""):
        stem, extension = os.path.splitext(clean_name(filename))
        if stem.rpartition("/")[2] == clean_name(line).rpartition("/")[2]:
            return line + extension
        if photos.has(filename) and not photos.has(f"{line}.jpg"):
            return filename
    return f"{line}.jpg"


def parse_xml(file: Path) -> Element:
    """The root of an XML without a document type, so that there are no entities to expand.

    Raises:
        InputError: it cannot be read, is no XML, has a document type or is nested too deep.
    """
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


def _lines(file) -> Iterable[tuple[int, str]]:
    """(line number, line) of the lines of a text file that are not blank."""
    lines = enumerate(read_text(file, "a list of images").splitlines(), start=1)
    return [(number, stripped) for number, line in lines if (stripped := line.strip())]
