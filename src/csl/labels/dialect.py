"""The cells of a table as people have it: comma, semicolon, tab or blanks, in any usual encoding, with or without header."""

import codecs
import csv
import io
import json
import re
from collections import Counter
from collections.abc import Sequence
from itertools import chain, islice
from pathlib import Path

from csl.errors import InputError
from csl.labels import json_tables, parquet
from csl.labels.cells import FILENAME, SPLIT, Cells
from csl.labels.matching import few, few_names
from csl.labels.paths import SPLITS, split_name
from csl.labels.trust import unescape_cell
from csl.machine.image_formats import is_image_name

SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".manifest", json_tables.SUFFIX, parquet.SUFFIX)
"""Of the files that are read as a table."""

_SEPARATORS = ",;\t|"
_BYTE_ORDER = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16's mark, with which it begins
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_WORDS = {"\t": "tabs", ";": "semicolons", "|": "bars", " ": "blanks"}
_HALF = re.compile("[\ud800-\udfff]")  # of a surrogate, which JSON may escape
_OF_MANIFEST = ("class-map", "class-name")
_OF_BOXES = ("categories", "category", "labels", "label")
_HEAD = 1 << 16  # bytes that a header is looked for in
_ABOVE = 5  # lines of a title above the header, at most
_TITLE = " (what stands above a header is to be deleted, and a file without a header needs one)"
_NUMBER = re.compile(r"[+-]?[\d.,]*\d[\d.,]*")


def read_cells(path: Path) -> Cells:
    """The cells of a CSV, of a file separated by semicolons, tabs, bars or blanks, of JSON lines or of Parquet.

    Raises:
        InputError: the file cannot be read, is empty, is no text, has rows longer than its header, or was cut short.
    """
    if path.suffix == parquet.SUFFIX:
        return parquet.read_parts(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}), expected a table") from None
    text, notes = _decoded(content, path)
    if path.suffix.lower() in (".jsonl", ".manifest"):
        return _json_lines(path, text, notes)
    if path.suffix.lower() == json_tables.SUFFIX:
        found = json_tables.read_records(path, text)
        lines = list(range(1, len(found.rows) + 1))
        return _of_objects(path, found.rows, lines, [*notes, *found.notes])._replace(classes=found.classes)
    separator, start, above = _beginning(text, path.suffix.lower())
    if above:
        notes.append(f"{path.name}: above the header stands {few_names(above)}, which is left out")
    if separator != ",":
        notes.append(f"{path.name}: columns are separated by {_WORDS[separator]}")
    if separator == " ":
        return _by_blanks(path, text, notes)
    rows, lines = _parsed(path, text[start:], separator, 1 + text[:start].count("\n"))
    if names := _without_header(rows, path.name, notes):
        numbers = [cell for cell in rows[0] if _NUMBER.fullmatch(cell.strip()) and cell.strip(" +-") not in "01"]
        if len(numbers) > 3:
            found = f"no header, and numbers such as {few(numbers, 3)} in {len(numbers)} columns"
            raise InputError(f"{path}, line {lines[0]}: {found}; expected a first line with the names of the columns")
        rows, lines = [names, *rows], [lines[0], *lines]
    header = [cell.strip() for cell in rows[0]]
    if not header[0] and len(header) > 1 and is_index([row[0] for row in rows[1:]]):
        notes.append(f"{path.name}: the first column, without a name, counts the rows and is left out")
        rows = [row[1:] for row in rows]
        header = header[1:]
    header, rows = _with_regions(header, rows)
    named = [k for k, name in enumerate(header) if name or any(row[k].strip() for row in rows[1:])]
    header = [unescape_cell(header[k]) for k in named]
    for position, name in enumerate(header):
        if not name:
            raise InputError(f"{path}, line {lines[0]}: column {position + 1} has no name, expected one{_TITLE}")
        if name in header[:position]:
            raise InputError(f"{path}, line {lines[0]}: found two columns named {name!r}, expected one{_TITLE}")
    return Cells(header, [[row[k] for k in named] for row in rows[1:]], lines[1:], notes, separator=separator)


def header_of(path: Path) -> list[str]:
    """The names of a table's columns; empty where it cannot be read as one. Only its beginning is read."""
    return head_of(path)[0]


def head_of(path: Path) -> tuple[list[str], list[str]]:
    """The names of a table's columns and the cells of its first row; empty where they cannot be read."""
    if path.suffix.lower() not in SUFFIXES:
        return [], []
    if path.suffix == parquet.SUFFIX:
        return parquet.names_in(path), []
    try:
        if path.suffix.lower() == json_tables.SUFFIX:
            first = json_tables.first_record(path)
            return list(first), list(map(_cell, first.values()))
        with open(path, "rb") as stream:
            head = stream.read(_HEAD)
        text, _ = _decoded(head[: len(head) // 4 * 4] if len(head) == _HEAD else head, path, "replace")
        text = "".join(text.splitlines(keepends=True)[: _ABOVE + 3])
        if path.suffix.lower() in (".jsonl", ".manifest"):
            first = json.loads(text.splitlines()[0])
            return list(first), list(map(_cell, first.values()))
        separator, start, _ = _beginning(text, path.suffix.lower())
        if separator == " ":
            cells = _by_blanks(path, text, [])
            return cells.header, cells.rows[0]
        rows = csv.reader(io.StringIO(text[start:], newline=""), delimiter=separator)
        first, second = ([cell.strip() for cell in next(rows, [])] for _ in range(2))
        names = _without_header([first, second or first], "", [])
        return (names, first) if names else (first, second)
    except (OSError, csv.Error, ValueError, IndexError, TypeError, AttributeError, InputError):
        return [], []


def _decoded(content, path, errors="strict"):
    """The text and notes. What is not UTF-8 and has no mark is taken for the encoding of Western Windows."""
    encoding = next((name for mark, name in _BYTE_ORDER.items() if content.startswith(mark)), None)
    try:
        if encoding is not None:
            note = [] if encoding == "utf-8-sig" else [f"{path.name}: encoded as {encoding.upper()}"]
            return content.decode(encoding, errors), note
        try:
            return content.decode("utf-8", errors), []
        except UnicodeDecodeError:
            return content.decode("cp1252"), [f"{path.name}: no UTF-8, read as Windows-1252 (cp1252)"]
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: no text at byte {error.start}, expected a table in UTF-8, UTF-16 or Windows-1252"
        ) from None


def _split(line, separator):
    return [cell.strip() for cell in next(csv.reader([line], delimiter=separator), [])]


def _beginning(text, suffix):
    """(separator, where the header starts, the lines above it). The separator is said by a first line `sep=;`, else the one
    that the header has most of. Lines of one cell are a title, if the next of several could be the names of columns."""
    lines = list(islice(io.StringIO(text, newline=""), _ABOVE + 2))
    said = re.fullmatch(r"\ufeff?sep=(.)\s*", lines[0]) if lines else None
    start = len(lines.pop(0)) if said else 0
    separators = [said[1] if said else _separator(lines[k:]) for k in range(len(lines))]
    cells = [_split(line, separator) for line, separator in zip(lines, separators, strict=True)]
    wide = next((k for k, row in enumerate(cells) if sum(map(bool, row)) > 1), 0)
    if wide and _could_be_names(cells[wide]):
        above = [lines[k].strip() for k in range(wide) if any(cells[k])]
        return separators[wide], start + sum(map(len, lines[:wide])), above
    if not said and suffix == ".txt" and cells and len(cells[0]) == 1:
        return " ", start, []
    return separators[0] if cells else ",", start, []


def _separator(lines):
    """The sign that splits some lines into as many cells each, or else the first of them into most."""

    def rate(sign):
        rows = [len(row) for row in csv.reader(lines, delimiter=sign) if row]
        return len(rows) > 1 and rows[0] > 1 and set(rows[:-1]) == {rows[0]}, len(_split(lines[0], sign))

    return max(_SEPARATORS, key=rate)


def _could_be_names(cells):
    named = cells[: 1 + max(k for k, cell in enumerate(cells) if cell)]
    distinct = all(named) and len(set(named)) == len(named)
    return distinct and not any(_NUMBER.fullmatch(cell) or is_image_name(cell) for cell in named)


def _without_header(rows, name, notes):
    """Names for the columns of a file whose first row is that of an image already; [] where it has a header."""
    first, second = ([cell.strip() for cell in row] for row in (rows[0], rows[min(1, len(rows) - 1)]))
    images = [k for k, pair in enumerate(zip(first, second, strict=False)) if all(map(is_image_name, pair))]
    numbers = all(_NUMBER.fullmatch(cell) and "." not in cell for cell in [*first, *second]) and not is_index(first)
    repeated = set(first[1:]) <= {"0", "1", "-1"} and len(set(first[1:])) < len(first[1:])
    if len(first) < 2 or not (images or numbers or repeated):
        return []
    names = [f"class {k}" for k in range(len(rows[0]) - 1)]
    notes.append(f"{name}: no header, so the classes are numbered: {' to '.join(dict.fromkeys([names[0], names[-1]]))}")
    names.insert(images[0] if images else 0, FILENAME)
    of_split = (k for k in range(len(names)) if {split_name("".join(row[k : k + 1])) for row in rows} <= {*SPLITS})
    return [SPLIT if k == split else name for split in [next(of_split, None)] for k, name in enumerate(names)]


def _parsed(path, text, separator, line):
    """The rows that are not blank, header first, and the line that each starts at."""
    blanks = f'{separator} "' in text  # before a quote, which would not be one
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator, skipinitialspace=blanks)
    rows, lines, first = [], [], line
    try:
        for row in reader:
            if not rows or any(map(str.strip, row)):
                rows.append(row)
                lines.append(line)
                if len(row) > len(rows[0]) and not any(map(is_image_name, rows[0])):  # it is a header
                    found = f"found {len(row)} cells, expected {len(rows[0])} as in line {first}"
                    raise InputError(f"{path}, line {line}: {found} (a list within a cell needs quotes around it)")
            line = first + reader.line_num
    except csv.Error as error:
        raise InputError(f"{path}, line {line}: not a CSV: {error}, expected quotes in pairs") from None
    if not rows:
        raise InputError(f"{path}: found an empty file, expected a header and rows")
    # A last line that has no end and lacks cells was cut short: these are not unknown labels. Elsewhere they are, as
    # spreadsheets leave out the separators of empty cells at the end of a row. Columns without a name may be left out.
    wanted = 1 + max((place for place, name in enumerate(rows[0]) if name.strip()), default=0)
    if not text.endswith(("\n", "\r")) and len(rows[-1]) < wanted:
        raise InputError(
            f"{path}, line {lines[-1]}: found {len(rows[-1])} cells and the end of the file, expected {wanted} as in line "
            f"{first}; it may have been cut short (a line break at its end says that it was not)"
        )
    width = max(map(len, rows))
    escaped = "'" in text
    rows = [[unescape_cell(cell) for cell in row] if escaped else row for row in rows]
    return [row + [""] * (width - len(row)) for row in rows], lines


def _with_regions(header, rows):
    """The VGG Image Annotator writes what is said of a region, or else of its photo, as JSON: a column for each key."""
    for name in ("region_attributes", "file_attributes"):
        if name not in header or "region_shape_attributes" not in header:
            continue
        place = header.index(name)
        try:
            said = [json.loads(row[place] or "{}") for row in rows[1:]]
        except (ValueError, RecursionError):
            continue
        if keys := dict.fromkeys(key for one in said if isinstance(one, dict) for key in one):
            values = [[_cell(_chosen(one.get(key))) for key in keys] for one in said]
            names = [f"{name}.{key}" if key.strip() in header else key.strip() for key in keys]
            return [*header, *names], [rows[0], *([*row, *more] for row, more in zip(rows[1:], values, strict=True))]
    return header, rows


def _chosen(value):
    """Of boxes to tick, `{"cat": true}`, those that are ticked."""
    return [key for key, ticked in value.items() if ticked] if isinstance(value, dict) else value


def _by_blanks(path, text, notes):
    """`name 1 -1 ...` a line, as CelebA's: a count and a line of class names may come first, or there is no header."""
    numbered = [(line.split(), k) for k, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if numbered and len(numbered[0][0]) == 1 and numbered[0][0][0].isdigit():  # the number of images
        numbered = numbered[1:]
    if len(numbered) < 2:
        raise InputError(f"{path}: found {len(numbered)} lines, expected the name of an image and its labels in each")
    width = len(numbered[1][0])
    if len(numbered[0][0]) == width - 1:
        header, numbered = [FILENAME, *numbered[0][0]], numbered[1:]
    elif len(numbered[0][0]) == 2 < width and is_image_name(numbered[1][0][0]):
        # DeepFashion's header says no more than what follows.
        header, numbered = _without_header([words for words, _ in numbered[1:]], path.name, notes), numbered[1:]
    elif not (header := _without_header([words for words, _ in numbered], path.name, notes)):
        header, numbered = numbered[0][0], numbered[1:]
    for row, line in numbered:
        if len(row) != len(header):
            raise InputError(f"{path}, line {line}: found {len(row)} words, expected {len(header)}")
    return Cells(header, [row for row, _ in numbered], [line for _, line in numbered], notes)


def _json_lines(path, text, notes):
    """A JSON object a line; lists and objects stay JSON."""
    objects, lines = [], []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}, line {number}: not valid JSON: {error}") from None
        if not isinstance(content, dict):
            raise InputError(f"{path}, line {number}: holds a {type(content).__name__}, expected a JSON object")
        objects.append(_with_names(content))
        lines.append(number)
    return _of_objects(path, objects, lines, notes)


def _flat(objects):
    """The objects, with `{"cat": true, "dog": false}` under a key as columns, whose names are the keys in it."""
    values: dict[str, list] = {}
    for one in objects:
        for key, value in one.items():
            if value is not None:
                values.setdefault(key, []).append(value)
    flat = {key: some for key, some in values.items() if all(map(_is_flat, some))}
    of_key = {key: list(dict.fromkeys(chain.from_iterable(some))) for key, some in flat.items()}
    counts = Counter([*values, *chain.from_iterable(of_key.values())])
    rows = []
    for one in objects:
        row = {key: value for key, value in one.items() if key not in of_key}
        for key, names in of_key.items():
            found = one.get(key) or {}
            row |= {name if counts[name] == 1 else f"{key}.{name}": found.get(name) for name in names}
        rows.append(row)
    return rows


def _is_flat(value):
    is_dict = isinstance(value, dict) and value and value.keys().isdisjoint({"choices", "bbox", "bytes", "path", "src"})
    return bool(is_dict) and all(one is None or isinstance(one, bool | int | float | str) for one in value.values())


def _of_objects(path, objects, lines, notes):
    objects = _flat(objects)
    header = list(dict.fromkeys(chain.from_iterable(objects)))
    if not header:
        raise InputError(f"{path}: found an empty file, expected a JSON object an image")
    rows = [[_cell(content.get(name)) for name in header] for content in objects]
    if odd := next((text for text in chain(header, chain.from_iterable(rows)) if _HALF.search(text)), None):
        raise InputError(f"{path}: found {odd[:80]!r}, which is no text in Unicode; expected plain words")
    return Cells([str(name).strip() for name in header], rows, lines, notes)


def _with_names(content):
    """SageMaker's manifests number the classes of a list or of boxes, and name them in a map beside it, or the only one."""
    about = [key for key, one in content.items() if isinstance(one, dict) and not one.keys().isdisjoint(_OF_MANIFEST)]
    for key in about:
        said, labels = content.pop(key), key.removesuffix("-metadata")
        found, names = content.get(labels), said.get("class-map")
        if isinstance(found, dict) and isinstance(found.get("annotations"), list):
            found = [box.get("class_id") for box in found["annotations"] if isinstance(box, dict)]
        if isinstance(found, list) and isinstance(names, dict):
            content[labels] = [names.get(str(number), number) for number in found]
        elif isinstance(said.get("class-name"), str):
            content[labels] = said["class-name"]
    return content


def _cell(value):
    if isinstance(value, dict) and "bbox" in value:  # Hugging Face's objects: {"bbox": [[...]], "categories": ["cat"]}
        named = [value[key] for key in _OF_BOXES if isinstance(value.get(key), list)]
        value = next((one for one in named if all(isinstance(word, str) for word in one)), value)
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def is_index(cells: Sequence[str]) -> bool:
    """Whether the cells are 0, 1, 2, ... or 1, 2, 3, ..., which counts the rows."""
    first = cells[0].strip() if len(cells) else ""
    return first in ("0", "1") and all(cell.strip() == str(k) for k, cell in enumerate(cells, start=int(first)))
