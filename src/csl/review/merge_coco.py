"""Answers written into the text of a COCO file: objects that are denied are taken out, those that are confirmed are added."""

import json
from collections.abc import Sequence
from json.decoder import WHITESPACE
from pathlib import Path
from typing import Any

import numpy as np

from csl.labels import NEGATIVE, POSITIVE, Annotations, LabelMatrix
from csl.labels.coco import class_columns, read_sections, references

_DECODER = json.JSONDecoder()


def merged(file: Path, parts: Sequence[tuple[Annotations, LabelMatrix]]) -> tuple[bytes, list[str]]:
    """The bytes of a file with other labels, and lines about them.

    A class that is there now is an object around the whole image, of `"reviewed": true`: nobody has said where it is.

    Args:
        file: in COCO's format.
        parts: annotations that were read from it, and their labels now.
    """
    data = file.read_bytes()
    encoding = json.detect_encoding(data)
    text, content = data.decode(encoding), read_sections(file)
    rows = references(file, content, "image_id", "images")
    categories = references(file, content, "category_id", "categories")
    _, column_of, _ = class_columns(file, content, categories)
    columns = column_of[categories]
    removed: set[int] = set()
    new: list[dict[str, Any]] = []
    emptied = 0
    identity = 1 + max((one["id"] for one in content["annotations"] if isinstance(one.get("id"), int)), default=0)
    annotated = np.unique(rows)
    for part, labels in parts:
        places = annotated if len(part) == len(annotated) else np.arange(len(content["images"]))
        for row, place in enumerate(places):
            before, after = part.labels[row], labels[row]
            if (before == after).all():
                continue
            denied = np.flatnonzero((before == POSITIVE) & (after == NEGATIVE))
            removed |= set(np.flatnonzero((rows == place) & np.isin(columns, denied)).tolist())
            emptied += not (after == POSITIVE).any()
            for c in np.flatnonzero((before != POSITIVE) & (after == POSITIVE)):
                category = content["categories"][int(np.flatnonzero(column_of == c)[0])]["id"]
                new.append(_object(content["images"][place], category, identity + len(new)))
    lines = [f"{emptied:,} images have no object left: --keep_unlabelled_images reads them"] if emptied else []
    return _edited(text, removed, new).encode(encoding), lines


def _object(image, category, identity):
    width, height = (image.get(side) or 0 for side in ("width", "height"))
    return {
        "id": identity, "image_id": image["id"], "category_id": category, "iscrowd": 0, "segmentation": [],
        "area": width * height, "bbox": [0, 0, width, height], "reviewed": True,
    }  # fmt: skip


def _edited(text, removed, new):
    """The text with some elements of its list of annotations left out, and others behind the last."""
    first, spans = _annotations(text)
    kept = [k for k in range(len(spans)) if k not in removed]
    between = text[spans[0][1] : spans[1][0]] if len(spans) > 1 else ", "
    pieces = [text[slice(*spans[k])] for k in kept] + [json.dumps(one) for one in new]
    gaps = [text[spans[k][1] : spans[k + 1][0]] if k + 1 < len(spans) else between for k in kept] + [between] * len(new)
    body = (
        "".join(piece + gap for piece, gap in zip(pieces, [*gaps[: len(pieces) - 1], ""], strict=True))
        if pieces
        else ""
    )
    start, end = (spans[0][0], spans[-1][1]) if spans else (first, first)
    return text[:start] + body + text[end:]


def _annotations(text):
    """Where the list of annotations begins, and where each of its elements begins and ends."""

    def skip(place):
        return WHITESPACE.match(text, place).end()

    def value(place):
        return _DECODER.raw_decode(text, skip(place))[1]

    place = skip(0) + 1  # behind {
    while True:
        key, place = _DECODER.raw_decode(text, skip(place))
        place = skip(skip(place) + 1)  # behind the colon
        if key == "annotations":
            break
        place = skip(value(place)) + 1  # behind the comma
    first = place = place + 1  # behind [
    spans = []
    while text[place := skip(place)] != "]":
        end = value(place)
        spans.append((place, end))
        place = skip(end)
        place += text[place] == ","
    return first, spans
