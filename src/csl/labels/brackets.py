"""Lists of labels in brackets, as JSON, Python, NumPy and Label Studio write them."""

import ast
import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

_CHOICES = "choices"
_KEYS = ("label", "labels", "labelname", "class", "classname", "category", "categoryname", "name", "tag", _CHOICES,
         "displayname", "rectanglelabels", "polygonlabels", "brushlabels", "ellipselabels", "keypointlabels")  # fmt: skip
"""The keys of an object in a list that name its class, in lower case without signs, the clearest first."""
_QUOTED = re.compile(r"""'([^']*)'|"([^"]*)\"""")
_NUMBERS = re.compile(r"\[\s*[-+.\de]+(\s+[-+.\de]+)+\s*\]")


def is_bracketed(text: str) -> bool:
    """Whether a cell is a list in brackets; of JSON's objects only Label Studio's, `{"choices": [...]}`, is one."""
    if text == "set()" or (text[:1], text[-1:]) in (("[", "]"), ("(", ")")):
        return True
    return (text[:1], text[-1:]) == ("{", "}") and (":" not in text or f'"{_CHOICES}"' in text)


def is_choices(text: str) -> bool:
    """Whether a cell is a list of words as programs write it, beside which cells of a single word may stand."""
    items = _parsed(text) if text[:1] in ("[", "{") and is_bracketed(text) else None
    return bool(items) and all(isinstance(item, str) for item in items)


def items_of(text: str) -> list[Any]:
    """What a list in brackets holds; a cell without brackets is one item, as Label Studio writes a single choice."""
    if not is_bracketed(text):
        return [text]
    if text == "set()":
        return []
    if (items := _parsed(text)) is not None:
        return items
    return [part for piece in text.strip("[](){}").split(",") if (part := piece.strip().strip("'\""))]


@lru_cache(maxsize=1 << 18)
def _parsed(text):
    """The items of a list that a program wrote, or None. They are looked at several times, which parsing is too slow for."""
    if re.search(r"""['"]\s+['"]""", text):  # NumPy writes no commas
        return [single or double for single, double in _QUOTED.findall(text)]
    if _NUMBERS.fullmatch(text):
        return [number.rstrip(".") for number in text[1:-1].split()]
    for parse in (json.loads, ast.literal_eval):
        try:
            content = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
        if isinstance(content, dict):
            content = content.get(_CHOICES, [])
            content = [content] if isinstance(content, str) else content
        if isinstance(content, list | tuple | set):
            numbers = isinstance(content, set) and not any(isinstance(item, str) for item in content)
            return None if numbers else list(content)  # {1, 0, 0} may be a vector
    return None


def words_of(items: Sequence[Any], key: str = "") -> list[str]:
    """The labels that the items of a list are; of an object those under the key. What is no text is written as text."""
    words = []
    for item in items:
        value = item.get(key) if isinstance(item, dict) else item
        words += map(_text, value) if isinstance(item, dict) and isinstance(value, list) else [_text(value)]
    return words


def _text(value):
    return "" if value is None else str(value).strip()


def label_key(lists: Sequence[Sequence[Any]]) -> str | None:
    """The key that names the class in all objects in the lists: "" where there are none, None where no key plainly does."""
    items = [item for items in lists for item in items]
    objects = [item for item in items if isinstance(item, dict)]
    if any(isinstance(item, list | tuple) for item in items):
        return None
    if not objects:
        return ""
    common = [key for key in objects[0] if all(_names_a_class(item.get(key)) for item in objects)]
    plain = {re.sub("[^a-z]", "", str(key).lower()): key for key in reversed(common)}
    return next((plain[key] for key in _KEYS if key in plain), None)


def _names_a_class(value):
    if isinstance(value, list):
        return all(isinstance(word, str) for word in value)
    return value is None or isinstance(value, str | int)
