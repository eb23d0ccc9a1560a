"""Labels: readers of annotation files, `Annotations` and `LabelMatrix`, and schemes that drop labels on purpose."""

from csl.labels.annotations import Annotations
from csl.labels.attributes import parse_attributes, read_attributes
from csl.labels.coco import read_coco
from csl.labels.datumaro import read_datumaro
from csl.labels.lvis import read_lvis
from csl.labels.matrix import NEGATIVE, POSITIVE, UNANNOTATED, LabelMatrix
from csl.labels.nuswide import read_nuswide
from csl.labels.openimages import read_class_descriptions, read_openimages
from csl.labels.paths import ImagePaths
from csl.labels.read import read_annotations
from csl.labels.simulation import simulate
from csl.labels.voc import read_voc

__all__ = [
    "NEGATIVE",
    "POSITIVE",
    "UNANNOTATED",
    "Annotations",
    "ImagePaths",
    "LabelMatrix",
    "parse_attributes",
    "read_annotations",
    "read_attributes",
    "read_class_descriptions",
    "read_coco",
    "read_datumaro",
    "read_lvis",
    "read_nuswide",
    "read_openimages",
    "read_voc",
    "simulate",
]
