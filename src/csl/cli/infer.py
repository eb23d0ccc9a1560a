"""The flags of infer.py."""

import argparse

from csl.cli import flags, parsing
from csl.inference.options import InferenceOptions

DESCRIPTION = "Name what is in photos: an image, a folder, a list, or a whole validation set."
EPILOG = """without flags the last run of train.py names some of its own validation images.
every flag may be written with - or _.
examples:
  python infer.py --pic_path photo.jpg
  python infer.py --all_val_inference
  python infer.py --dataset_type OpenImages --model_path weights.pth --pic_path photos/ --input_size 224"""


def parser() -> argparse.ArgumentParser:
    """The parser of infer.py; its names are fields of `InferenceOptions`."""
    p, group = flags.parser_of(InferenceOptions, DESCRIPTION, EPILOG)
    g = group("images")
    g.add(
        "--pic_path",
        metavar="PATH",
        help="an image, a folder, or a list file (.txt): a path per line, from it or from here",
    )
    g.add("--all_val_inference", action="store_true", help="every image of the validation split")
    g.add("--data", metavar="DIR", help="annotations for --all_val_inference (the run's own; else ./data)")
    g.shared("images", "reviews", "follow_links")
    g = group("network")
    g.shared("model_path", "weights_key", "model_name", "num_classes")
    g.add("--input_size", "--image_size", dest="image_size", type=parsing.size, metavar="PX",
          help="side, or HEIGHTxWIDTH (the run's; else 224)")  # fmt: skip
    g.shared("background")
    g = group("names")
    g.add("--dataset_type", metavar="NAME", help="OpenImages turns MIDs into names; MS-COCO, flixstock")
    g.add("--class_description_path", metavar="FILE", help="names of MIDs (./data/oidv6-class-descriptions.csv)")
    g.add(
        "--th",
        type=float,
        metavar="T",
        help="lowest score of a class that is named (the file's; else 0.97 for OpenImages, 0.7)",
    )
    g.add("--top_k", type=int, metavar="K", help="highest number of classes named per image")
    g = group("results and machine")
    g.add("--path_dest", metavar="DIR", help="results go to DIR/results (the run's folder; else ./outputs)")
    g.add("--output", metavar="FILE", help="the table, .csv or .parquet (predictions.csv among the results)")
    g.add(
        "--heatmap", action="store_true", help="draw where in the first photos each class was seen, into heatmaps.png"
    )
    g.shared(*flags.MACHINE)
    return p


def main(given: dict) -> None:
    """Name what is in the images that the flags say."""
    from csl.inference.infer import infer

    infer(InferenceOptions(**given))
