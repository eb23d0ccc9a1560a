"""Tables in Parquet, as Hugging Face's `datasets` writes them: several parts, names of classes, photos inside.

Photos that a column holds (`{bytes, path}`) are written once into a folder beside each part, `{part}.{size}-{time of
change}.photos`, or into the user's cache folder where that is read-only; the table then names these files.
"""

import json
import os
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from csl.errors import InputError
from csl.labels.cache import fill_one, places
from csl.labels.cells import Cells
from csl.machine.image_formats import is_image_name

SUFFIX = ".parquet"

_PART = re.compile(r"(.+)-(\d+)-of-(\d+)(-[0-9a-f]+)?\.parquet")
_UNFIT = re.compile(r"[^A-Za-z0-9_-]+")
_ROWS = 64  # photos in memory at a time
_ENDING = "photos"  # of the folders of their files
_DIGITS = 8  # of the row's number, which the name of a photo's file begins with
_MAGIC = {b"\x89PNG": ".png", b"RIFF": ".webp", b"GIF8": ".gif", b"BM": ".bmp", b"II*\0": ".tif", b"MM\0*": ".tif"}


def stem_of(path: Path) -> str:
    """A file's name without its extension and without the number of its part: `train` of `train-00000-of-00003.parquet`."""
    match = _PART.fullmatch(path.name)
    return match[1] if match else path.stem


def parts_of(path: Path) -> list[Path]:
    """All parts of the table that a file is of, in order; the file alone where it is the whole.

    Raises:
        InputError: a part is missing, or there twice.
    """
    match = _PART.fullmatch(path.name)
    if path.suffix == SUFFIX and path.stem.isdigit():
        return sorted(file for file in path.parent.glob(f"*{SUFFIX}") if file.stem.isdigit())
    if not match:
        return [path]
    numbered = {}
    for file in sorted(path.parent.glob(f"*{SUFFIX}")):
        other = _PART.fullmatch(file.name)
        if other and (other[1], other[3]) == (match[1], match[3]) and numbered.setdefault(int(other[2]), file) != file:
            raise InputError(f"{file}: the same part as {numbered[int(other[2])].name}, expected each once")
    missing = [number for number in range(int(match[3])) if number not in numbered]
    if missing:
        raise InputError(f"{path}: part {missing[0]} of {int(match[3])} is not there, expected all parts")
    return [numbered[number] for number in range(int(match[3]))]


def names_in(path: Path) -> list[str]:
    """The names of the columns; empty where it cannot be read as Parquet."""
    try:
        return list(pq.read_schema(path).names)
    except (OSError, pa.ArrowException):
        return []


def read_parts(path: Path) -> Cells:
    """Read a table of one part or several: numbers of classes as their names, lists as JSON, "" for nothing.

    Raises:
        InputError: a part is missing, damaged or has other columns, or the photos can be written nowhere.
    """
    parts = parts_of(path)
    notes = [f"{path.name}: one of {len(parts)} parts, which are read together"] if len(parts) > 1 else []
    rows, written, schema, column = [], [], None, None
    for part in parts:
        try:
            with pq.ParquetFile(part) as file:
                first, schema = schema or file.schema_arrow, file.schema_arrow
                if schema.names != first.names:
                    raise InputError(
                        f"{part}: found the columns {schema.names}, expected {first.names} as in {parts[0]}"
                    )
                photos = [field.name for field in schema if _holds_photos(field.type)]
                column = "image" if "image" in photos else photos[0] if photos else None
                names = [field.name for field in schema if field.name not in photos and not _is_binary(field.type)]
                classes = _class_names(schema)
                cells = [_texts(file, name, classes.get(name)) for name in names]
                if column is not None:
                    names = [column, *names]
                    files, folder = _photo_files(file, part, column)
                    cells, written = [files, *cells], [*written, folder]
        except (OSError, pa.ArrowException) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{part}: cannot be read as Parquet ({reason}), expected a whole file") from None
        rows += map(list, zip(*cells, strict=True))
    if left_out := [name for name in schema.names if name not in names]:
        notes.append(f"{path.name}: column {', '.join(left_out)} holds bytes, and no labels")
    lines = list(range(1, len(rows) + 1))
    if not any(written):
        return Cells(names, rows, lines, notes, classes)
    if len(set(written)) > 1:
        raise InputError(
            f"{path}: the photos in it are in {' and '.join(map(str, set(written)))}, expected one folder for all"
        )
    notes.append(f"{path.name}: the photos in it are files in {written[0]}, written once")
    return Cells(names, rows, lines, notes, classes, (column, written[0]))


def _photo_files(file, part, column):
    """The names of the files of the photos in a column, which are written unless they are there, and the folder they are in;
    where it holds paths alone these, and None."""
    folders = places(part, _ENDING)
    if not any(folder.is_dir() for folder in folders):
        filled, reasons = fill_one(
            folders, part, _ENDING, lambda temporary, _: _write_photos(file, part, column, temporary)
        )
        if filled is None:
            raise InputError(
                f"{part}: the photos in it can be written nowhere ({'; '.join(reasons)}), expected room for them"
            )
    folder = next(folder for folder in folders if folder.is_dir())
    by_row = {int(name[:_DIGITS]): name for name in os.listdir(folder)}
    if not by_row:  # but paths
        return [one["path"] or "" for batch in _batches(file, column) for one in batch], None
    names = [by_row.get(row, f"{row:0{_DIGITS}}, which is empty") for row in range(file.metadata.num_rows)]
    return [f"{folder.name}/{name}" for name in names], folder.parent


def _holds_photos(kind):
    return pa.types.is_struct(kind) and {"bytes", "path"} <= {kind.field(k).name for k in range(kind.num_fields)}


def _is_binary(kind):
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)


def _class_names(schema):
    """{column: names of its classes by their number}, of which Hugging Face's metadata speak."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {column: names for column, feature in features.items() if (names := _names_of(feature))}
    except (ValueError, LookupError, TypeError, AttributeError):
        return {}


def _names_of(feature):
    feature = feature[0] if isinstance(feature, list) else feature  # as earlier versions wrote a sequence
    if feature.get("_type") == "ClassLabel" and isinstance(feature["names"], list):
        return [str(name) for name in feature["names"]]
    return _names_of(feature["feature"]) if "feature" in feature else None


def _texts(file, name, class_names):
    batches = file.iter_batches(columns=[name])
    return [_text(value, class_names) for batch in batches for value in batch.column(0).to_pylist()]


def _text(value, class_names):
    if isinstance(value, list) and class_names:
        value = [_named(one, class_names) for one in value if one is not None]
    elif class_names:
        value = _named(value, class_names)
    if value is None or value != value:  # not a number
        return ""
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return value if isinstance(value, str) else str(value)


def _named(number, class_names):
    if number is None or number == -1:  # which `datasets` writes where there is no label
        return None
    return class_names[number] if 0 <= number < len(class_names) else str(number)


def _batches(file, column):
    for batch in file.iter_batches(batch_size=_ROWS, columns=[column]):
        yield [one or {"bytes": None, "path": None} for one in batch.column(0).to_pylist()]


def _write_photos(file, part, column, folder):
    """Write each photo as a file `00000017_name.jpg`."""
    row = 0
    count, title = file.metadata.num_rows, f"photos of {part.name}"
    with tqdm(total=count, desc=title, unit="img", leave=False, disable=None) as bar:
        for batch in _batches(file, column):
            for one in batch:
                if one["bytes"]:
                    name = os.path.splitext(os.path.basename(one["path"] or ""))
                    known = next((end for magic, end in _MAGIC.items() if one["bytes"].startswith(magic)), ".jpg")
                    ending = name[1].lower() if is_image_name(name[0] + name[1]) else known
                    (folder / f"{row:0{_DIGITS}}_{_UNFIT.sub('_', name[0])[:60]}{ending}").write_bytes(one["bytes"])
                row += 1
            bar.update(len(batch))
