"""Which annotations are read, and how: the settings under "data" of every script."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(kw_only=True)
class DataOptions:
    """Which annotations to read, and how. None, False and empty mean "decided from the data".

    Attributes:
        data: folder or file of annotations, or a pattern of tar shards.
        images: the folder of the image files, or several, where it is not beside the annotations.
        metadata: the folder of train.json and val.json, where they are not in `data`.
        debug_mode: the COCO layout, "on_farm" or "hyperml", instead of detecting it.
        attributes, roles: of the columns of a table, as flags write them: "neck:7,sleeve_length:4", "Age=ignored".
        ignore_columns, columns, filename_column, minus_one, unlisted, no_label, vote_threshold: of a table, as
            `csl.labels.table_options.TableOptions` takes them.
        keep_unlabelled_images: COCO, Datumaro, LVIS, NUS-WIDE: keep images without any annotation.
        classes_file: OpenImages: a list of MIDs, instead of the trainable classes.
        strict_labels: OpenImages: stop at the first malformed row.
        reviews: a file of answers (`csl.labels.reviews`), "none" for none; None for reviews.csv beside the data.
        follow_links: images may be named, and links may lead, outside of the data folder.
    """

    data: str | None = None
    images: str | list[str] | None = None
    metadata: str | None = None
    debug_mode: str | None = None
    attributes: str | None = None
    ignore_columns: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    filename_column: str | None = None
    roles: str | None = None
    minus_one: str | None = None
    unlisted: str | None = None
    no_label: list[str] = field(default_factory=list)
    vote_threshold: float | None = None
    keep_unlabelled_images: bool = False
    classes_file: str | None = None
    strict_labels: bool = False
    reviews: str | None = None
    follow_links: bool = False

    @classmethod
    def of(cls, settings: "Mapping[str, Any] | DataOptions") -> Self:
        """The data settings among others: those of a run's `config.json`, or the fields of a larger options class."""
        plain = settings if isinstance(settings, Mapping) else vars(settings)
        return cls(**{f.name: plain[f.name] for f in dataclasses.fields(DataOptions) if f.name in plain})

    def over(self, settings: Mapping[str, Any]) -> "DataOptions":
        """These options; each that is at its default takes the value that `settings` holds of it, if any."""
        rest, mine = DataOptions.of(settings), DataOptions.of(self)
        default = DataOptions()
        given = {name: value for name, value in vars(mine).items() if value != getattr(default, name)}
        return dataclasses.replace(rest, **given)
