"""Suggestions as files: a table, or what the importer of another program takes."""

import os
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd

from csl.labels import Annotations
from csl.labels.class_set import several_values
from csl.labels.trust import escape_table
from csl.machine.files import replacing, write_json

MODEL = "csl suggest"
"""Whose predictions they are, in Label Studio."""


def named(table: pd.DataFrame, annotations: Annotations) -> pd.DataFrame:
    """The table with names of images, relative to their folder, and of classes for their numbers; and with a column that
    names the attribute whose value a class is, where there are attributes."""
    table = table.assign(
        image=annotations.select(table["image"].to_numpy()).names,
        **{"class": [annotations.classes[c] for c in table["class"]]},
        attribute=[attribute_of(c, annotations.groups) or "" for c in table["class"]],
    )
    return table if annotations.groups else table.drop(columns="attribute")


def attribute_of(number: int, groups: Mapping[str, slice] | None) -> str | None:
    """The attribute of several values whose value the class of that number is; None of a class of its own."""
    return next((name for name, g in several_values(groups).items() if g.start <= number < g.stop), None)


def write_csv(file: Path, table: pd.DataFrame, annotations: Annotations) -> None:
    """A row for each suggestion, the first to be asked first."""
    with replacing(file) as temporary:
        escape_table(named(table, annotations)).to_csv(temporary, index=False, float_format="%.6g")


def write_parquet(file: Path, table: pd.DataFrame, annotations: Annotations) -> None:
    """The same, with texts as they are."""
    with replacing(file) as temporary:
        named(table, annotations).to_parquet(temporary, index=False)


def write_label_studio(file: Path, table: pd.DataFrame, annotations: Annotations) -> None:
    """Tasks with pre-annotations (https://labelstud.io/guide/predictions), and beside them, NAME.xml, the labelling interface.

    A question is a control of its own: an attribute with its values, or a class with yes and no, so that what is not answered
    stays unknown. An image is a task, whose place is that of its first suggestion.
    """
    questions: dict[str, list[str]] = {}
    tasks: dict[int, dict] = {}
    for one in table.itertuples(index=False):
        number = int(one[1])
        attribute = attribute_of(number, annotations.groups)
        values = ["yes", "no"] if attribute is None else list(annotations.classes[annotations.groups[attribute]])
        name = annotations.classes[number]
        answer = name if attribute is not None else "yes" if _there(one) else "no"
        questions.setdefault(attribute or name, values)
        task = tasks.setdefault(int(one.image), {"result": [], "score": float(one.score)})
        task["result"].append(
            {
                "from_name": attribute or name, "to_name": "image", "type": "choices",
                "value": {"choices": [answer]}, "score": float(one.score),
            }
        )  # fmt: skip
    names = annotations.select(list(tasks)).names
    content = [
        {"data": {"image": image}, "predictions": [{"model_version": MODEL, **task}]}
        for image, task in zip(names, tasks.values(), strict=True)
    ]
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name="image", value="$image")
    for question, values in questions.items():
        ElementTree.SubElement(view, "Header", value=question)
        choices = ElementTree.SubElement(view, "Choices", name=question, toName="image", choice="single")
        for value in values:
            ElementTree.SubElement(choices, "Choice", value=value)
    ElementTree.indent(view)
    with replacing(file.with_suffix(".xml")) as temporary:
        ElementTree.ElementTree(view).write(temporary, encoding="utf-8")
    write_json(file, content)


def write_fiftyone(file: Path, table: pd.DataFrame, annotations: Annotations) -> None:
    """Labels of FiftyOne's image classification, of each image by its path the suggested classes: with the confidence that
    they are there, and what is known of them (https://docs.voxel51.com, FiftyOneImageClassificationDataset)."""
    labels: dict[str, list[dict]] = {}
    for place, one in enumerate(table.itertuples(index=False)):
        path = os.path.abspath(annotations.images[int(one.image)])
        attributes = {"place": place, "known": _known(one)}
        labels.setdefault(path, []).append(
            {"label": annotations.classes[int(one[1])], "confidence": _probability(one), "attributes": attributes}
        )
    write_json(file, {"classes": None, "labels": labels})


def _probability(one):
    """That the class is there; the score of a known label is that of a mistake."""
    return float(1 - one.score if _known(one) == 1 else one.score)


def _known(one):
    """The known label, -1 where the table of the purpose holds unknown ones alone."""
    return int(getattr(one, "known", -1))


def _there(one):
    return _probability(one) >= 0.5


WRITERS = {
    "csv": write_csv,
    "parquet": write_parquet,
    "label_studio": write_label_studio,
    "fiftyone": write_fiftyone,
}
"""Of `csl.suggest.options.FORMATS`: (file, table of a purpose, annotations)."""
