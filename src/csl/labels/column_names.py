"""What the name of a column alone says: numbers that are no labels, identifiers, people, texts."""

import re
from collections.abc import Iterable, Sequence

_MEASURES = frozenset(
    {
        "age", "width", "height", "area", "lat", "latitude", "lon", "lng", "longitude", "x", "y", "xmin", "ymin", "xmax",
        "ymax", "timestamp", "time", "date", "pixel", "pixels", "price", "number", "n", "bytes",
        "cm", "mm", "km", "kg", "g", "eur", "usd", "diameter", "radius", "perimeter", "distance", "duration", "volume",
        "altitude", "elevation",
        "temperature", "alter", "breite", "höhe", "hoehe", "größe", "groesse", "gewicht", "anzahl", "preis",
        "box", "boxes", "bbox", "bboxes", "coordinates", "coords", "polygon", "polygons", "segmentation", "embedding",
        "keypoints", "landmarks", "rle",
    }
)  # fmt: skip
"""Words in the name of a column of numbers that is no label."""
_IDENTIFIERS = frozenset(
    {"id", "ids", "uid", "uuid", "guid", "index", "idx", "nr", "count", "counts", "num", "confidence", "score"}
)
"""Words in the name of a column that holds no label, of numbers or words, even where all of its few rows have a 1."""
CODES = re.compile(
    "(patient|participant|proband|case|fall|subject|study|series|session|sku|barcode|serial|zip|zipcode|plz|postcode|postalcode"
    "|postleitzahl|k?fold)s?"
)
_KEYS = re.compile(
    "(patient|participant|proband|person|case|fall|subject|study|series|animal|lesion|sample|exam|visit)s?(u?id|nr|no|num|code|key)"
)
"""Names, in letters alone, of columns that hold no label; those of `CODES` unless a cell is without a digit, or all are yes or
no."""
_PEOPLE = frozenset(
    {"annotator", "annotators", "rater", "labeler", "labeller", "reviewer", "worker", "user", "author", "photographer",
     "radiologist", "rad", "grader", "coder", "license", "licence", "copyright", "credit"}
)  # fmt: skip
TEXTS = frozenset({"caption", "captions", "description", "comment", "comments", "note", "notes", "remark", "remarks"})
LABELS = frozenset(
    {"label", "labels", "class", "classes", "category", "categories", "tag", "tags", "target", "targets"}
)


def plain_name(column: str) -> str:
    """The name in lower case, without blanks and signs: `Image_ID` and `image id` are one."""
    return re.sub(r"[^a-z0-9]", "", column.lower())


def letters(column: str) -> str:
    """The name in lower case, without blanks, digits and signs, in any alphabet."""
    return re.sub(r"[\W\d_]", "", column.lower())


def words_of(column: str) -> set[str]:
    """The words in the name: `imageId` and `image_id` have image and id."""
    return set(re.findall(r"[^\W\d_]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", column).lower()))


def first_called(columns: Sequence[str], wanted: Iterable[str]) -> str | None:
    """The first column whose plain name is one of these, the first of these first; None without one."""
    by_plain = {plain_name(column): column for column in reversed(columns)}
    return next((by_plain[name] for name in wanted if name in by_plain), None)


def names_people(column: str) -> bool:
    """Whether a column of that name says who looked at the photo, took it or owns it."""
    return bool(words_of(column) & _PEOPLE)


def is_measure(column: str) -> bool:
    """Whether a column of that name holds numbers that are no labels."""
    return bool(words_of(column) & _MEASURES)


def identifies(column: str) -> bool:
    """Whether a column of that name holds identifiers or counts."""
    return bool(words_of(column) & _IDENTIFIERS or _KEYS.fullmatch(letters(column)))
