"""JSON that is a table: a list of records, Label Studio's tasks, or the labels of each image by its name.

https://labelstud.io/guide/export (JSON, JSON-MIN), https://docs.voxel51.com (FiftyOne's image classification)
"""

import json
import re
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from csl.errors import InputError
from csl.labels.matching import few
from csl.labels.paths import split_name
from csl.labels.photos import clean_name
from csl.machine.files import parse_json
from csl.machine.image_formats import is_image_name

SUFFIX = ".json"

_HEAD = 1 << 20  # bytes that the first record is looked for in
_NAMES, _LABELS = "image", "labels"
_FIRST_KEY = re.compile(r'\s*\{\s*"((?:[^"\\]|\\.)*)"\s*:')
_FIRST_CELLS = re.compile(r'"([^"]*)"\s*:\s*\{\s*"0"\s*:\s*"?([^",}]*)')  # of each column, as pandas writes them
_FIRST_LIST = re.compile(r'\s*\{(?:\s*"\w+"\s*:\s*(?:"[^"]*"|[\w.+-]+)\s*,)*\s*"(\w+)"\s*:\s*\[\s*(?=\{)')
_WRAPPERS = ("data", "records", "rows")
_OF_LABELS = re.compile(r"choices|taxonomy|[a-z]*labels")  # keys of Label Studio's values
_ANSWERS = {"yes", "no", "true", "false", "y", "n"}  # of which the question is the class


class Records(NamedTuple):
    """Rows {column: text, list or anything of JSON}, notes, and {column: names of its classes} where the file says them."""

    rows: list[dict[str, Any]]
    notes: list[str]
    classes: dict[str, list[str]]


def first_record(path: Path) -> dict[str, Any]:
    """The first row of such a file, in part; empty where it is another. Only its beginning is read."""
    with open(path, "rb") as stream:
        text = stream.read(_HEAD).decode("utf-8-sig", "replace")
    if '"imageId"' in text and '"labelId"' in text and text.lstrip()[:1] == "{":
        return {_NAMES: "", _LABELS: ""}
    if named := _FIRST_LIST.match(text):
        holds = named[1].lower() in _WRAPPERS or split_name(named[1])
        return json.JSONDecoder().raw_decode(text, named.end())[0] if holds else {}
    if re.match(r'\s*\{\s*"[^"]*"\s*:\s*\{\s*"0"\s*:', text):
        return dict(_FIRST_CELLS.findall(text))
    if key := _FIRST_KEY.match(text):
        named = is_image_name(key[1]) or (key[1] in ("classes", "labels") and re.search(r'"labels"\s*:\s*\{', text))
        return {_NAMES: key[1], _LABELS: ""} if named else {}
    start = re.match(r"\s*\[\s*(?=\{)", text)
    first = json.JSONDecoder().raw_decode(text, start.end())[0] if start else {}
    return _image_of(first["data"]) if _is_task(first) else first


def read_records(path: Path, text: str) -> Records:
    """The rows of a file.

    Raises:
        InputError: it is no JSON, or none of these forms.
    """
    content = _records_in(parse_json(text.encode(), path))
    if isinstance(content, dict):
        return _by_name(path, content)
    if not _are_objects(content):
        raise InputError(f"{path}: found a JSON {type(content).__name__}, expected a list of objects, one an image")
    if any(map(_is_task, content)):
        return _of_tasks(path, content)
    return Records(_min(content) if any("annotation_id" in one for one in content) else content, [], {})


def _records_in(content):
    """The records of `{"data": [{...}]}` and of `{"train": [{...}], "val": [{...}]}`, and those of pandas' columns,
    `{"image": {"0": "1.jpg"}, "cat": {"0": 1}}`; other content as it is."""
    if not isinstance(content, dict) or not content:
        return content
    lists = {key: one for key, one in content.items() if _are_objects(one)}
    if len(lists) == len(content) and all(map(split_name, lists)):
        return [{"split": key} | row for key, rows in lists.items() for row in rows]
    if len(held := [key for key in lists if key.lower() in _WRAPPERS and lists[key]]) == 1:
        return lists[held[0]]
    columns = list(content.values())
    alike = all(isinstance(one, dict) and one.keys() == columns[0].keys() for one in columns)
    if alike and next(iter(columns[0]), "") == "0":
        return [{name: column[k] for name, column in content.items()} for k in columns[0]]
    return content


def _are_objects(value):
    return isinstance(value, list) and all(isinstance(one, dict) for one in value)


def _listed(value):
    return value if isinstance(value, list) else [value]


def _by_name(path, content):
    """Of `{"a.jpg": ["cat"]}`, or of FiftyOne's `{"classes": ["cat"], "labels": {"a": 0}}`."""
    if isinstance(content.get("images"), list) and isinstance(content.get("annotations"), list):
        return _of_challenge(path, content)
    classes = content.get("classes")
    labels = content["labels"] if isinstance(content.get("labels"), dict) else content
    rows = []
    for name, found in labels.items():
        found = found.get("label") if isinstance(found, dict) and "label" in found else found
        if isinstance(found, dict):  # {"cat": 1, "dog": 0}
            rows.append({_NAMES: name} | found)
            continue
        words = None if found is None else [_named(one, classes) for one in _listed(found)]
        if words is not None and None in words:
            raise InputError(
                f"{path}: {name!r} has the label {found!r}, expected a number below {len(classes)} or a name"
            )
        rows.append({_NAMES: name, _LABELS: words})
    return Records(rows, [], {_LABELS: list(map(str, classes))} if isinstance(classes, list) else {})


def _of_challenge(path, content):
    """Of iMaterialist's `{"images": [{"imageId": "1", "url": ...}], "annotations": [{"imageId": "1", "labelId": ["95"]}]}`."""
    labels: dict[str, list[str]] = {}
    for one in content["annotations"]:
        if not isinstance(one, dict) or not {"imageId", "labelId"} <= one.keys():
            raise InputError(
                f"{path}: found the annotation {str(one)[:60]}, expected an object with imageId and labelId"
            )
        labels.setdefault(str(one["imageId"]), []).extend(map(str, _listed(one["labelId"])))
    return Records([{_NAMES: name, _LABELS: words} for name, words in labels.items()], [], {})


def _named(one, classes):
    if type(one) is int and isinstance(classes, list):
        return str(classes[one]) if 0 <= one < len(classes) else None
    return str(one.get("label") if isinstance(one, dict) else one)


def _is_task(one):
    return isinstance(one, dict) and isinstance(one.get("data"), dict) and not one.keys().isdisjoint(_OF_TASK)


_OF_TASK = ("annotations", "completions", "predictions")


def _image_of(data):
    """What a task says of its image: its name, and its split."""
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    named = {key: value for key, value in texts.items() if is_image_name(clean_name(value)) or key.lower() == "split"}
    return named or dict(list(texts.items())[:1])


def _of_tasks(path, tasks):
    """A row an annotation. What is drawn in an image is one list, what was chosen another for each question."""
    rows: list[dict[str, Any]] = []
    drawn: dict[str, bool] = {}  # {question: whether it is drawn and not chosen}
    without, cancelled, judged, left_out = 0, 0, 0, {}
    for task in tasks:
        if not _is_task(task):
            raise InputError(
                f"{path}: found {str(task)[:60]} among tasks of Label Studio, expected data and annotations"
            )
        given = [one for one in task.get("annotations") or task.get("completions") or [] if isinstance(one, dict)]
        given, all_given = [one for one in given if not one.get("was_cancelled")], given
        cancelled += len(all_given) - len(given)
        truth = [one for one in given if one.get("ground_truth")]
        judged += len(given) > len(truth) > 0
        without += not given
        for number, annotation in enumerate(truth or given):
            row = _image_of(task["data"]) | {"annotator": f"annotator {annotation.get('completed_by', number)}"}
            for entry in annotation.get("result") or []:
                value = entry.get("value") if isinstance(entry, dict) else None
                keys = [key for key in value if _OF_LABELS.fullmatch(key)] if isinstance(value, dict) else []
                if not keys:
                    kind = entry.get("type") if isinstance(entry, dict) else type(entry).__name__
                    left_out[str(kind)] = left_out.get(str(kind), 0) + (kind != "relation")
                for key in keys:
                    is_drawn = key not in ("choices", "taxonomy")
                    question = _LABELS if is_drawn else str(entry.get("from_name"))
                    drawn[question] = is_drawn
                    row.setdefault(question, []).extend(map(_path, value[key] if isinstance(value[key], list) else []))
            rows.append(row)
    if not rows:
        raise InputError(
            f"{path}: none of its {len(tasks):,} tasks has an annotation that counts; expected some of Label Studio"
        )
    notes = [
        f"{path.name}: {count:,} {what}"
        for count, what in (
            (without, "tasks have no annotation that counts, and are left out"),
            (cancelled, "annotations were cancelled (skipped), and do not count"),
            (judged, "tasks have an annotation that is the ground truth, which counts alone"),
            (sum(left_out.values()), f"results are no labels ({few(list(left_out))}), and are left out"),
        )
        if count
    ]
    return Records(_with_questions(rows, drawn), notes, {})


def _with_questions(rows, drawn):
    """The rows with an answer to each question: an empty list where none was chosen or drawn, but unknown where one choice is
    always made; names that several questions share begin with the question's."""
    words = {question: set(chain.from_iterable(row.get(question, ()) for row in rows)) for question in drawn}
    for question, own in words.items():
        single = not drawn[question] and all(len(row.get(question, ())) < 2 for row in rows)
        shared = any(own & other for name, other in words.items() if name != question)
        for row in rows:
            found = list(dict.fromkeys(row.get(question, ())))
            if single and (shared or {word.lower() for word in own} <= _ANSWERS):
                row[question] = found[0] if found else None
            elif single and not found:
                row[question] = None
            else:
                row[question] = [f"{question}:{word}" for word in found] if shared else found
    return rows


def _path(label):
    """A label; of a taxonomy the way to it."""
    return "/".join(map(str, label)) if isinstance(label, list) else str(label)


def _min(records):
    """The rows of Label Studio's JSON-MIN: what stands between `id` and `annotator` was chosen or drawn."""
    rows, drawn = [], {}
    for record in records:
        keys = list(record)
        answers = keys[keys.index("id") + 1 : keys.index("annotator")] if {"id", "annotator"} <= record.keys() else []
        row = {key: value for key, value in record.items() if key not in answers}
        for key in answers:
            found = words(record[key])
            is_drawn = found is not record[key] and not isinstance(record[key], dict)
            if is_drawn or isinstance(found, str) or isinstance(record[key], dict):
                question = _LABELS if is_drawn else key
                drawn[question] = is_drawn
                row.setdefault(question, []).extend([found] if isinstance(found, str) else found)
        rows.append(row)
    return _with_questions(rows, drawn)


def words(value: Any) -> Any:
    """The labels in a value as Label Studio writes it, `{"choices": [...]}` or regions; any other value as it is."""
    if isinstance(value, dict) and isinstance(value.get("choices"), list):
        return value["choices"]
    if value and _are_objects(value):
        found = [one[key] for one in value for key in one if _OF_LABELS.fullmatch(key) and isinstance(one[key], list)]
        return list(dict.fromkeys(map(_path, chain.from_iterable(found)))) if found else value
    return value
