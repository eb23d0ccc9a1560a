"""The flags of infer.py."""

import argparse

from csl.cli import parsing

DESCRIPTION = "Name what is in photos: an image, a folder, a list, or a whole validation set."
EPILOG = """without flags the last run of train.py names some of its own validation images.
every flag may be written with - or _.
examples:
  python infer.py --pic_path photo.jpg
  python infer.py --all_val_inference
  python infer.py --dataset_type OpenImages --model_path weights.pth --pic_path photos/ --input_size 224"""


def parser() -> argparse.ArgumentParser:
    """The parser of infer.py."""
    p = parsing.create_parser(DESCRIPTION, EPILOG)
    g = p.add_argument_group("images")
    g.add_argument("--pic_path", metavar="PATH", help="an image, a folder, or a list file (.txt) with a path a line")
    g.add_argument("--all_val_inference", action="store_true", help="every image of the validation split")
    g.add_argument("--data", metavar="DIR", help="annotations for --all_val_inference (the run's own; else ./data)")
    g.add_argument("--images", metavar="DIR", help="folder of the image files, where it is not beside the annotations")
    g.add_argument("--follow_links", action="store_true", help="images may lie outside of the folder, links too")
    g = p.add_argument_group("network")
    g.add_argument("--model_path", metavar="FILE", help="checkpoint, .onnx or .pt2 (best.ckpt of the last run)")
    g.add_argument(
        "--model_name", metavar="NAME", help="needed for a foreign file of a timm network; told by the file otherwise"
    )
    g.add_argument("--num_classes", type=int, metavar="C", help="expected number of classes (taken from the file)")
    g.add_argument("--input_size", "--image_size", dest="image_size", type=parsing.size, metavar="PX",
                   help="side, or HEIGHTxWIDTH (the run's; else 224)")  # fmt: skip
    g = p.add_argument_group("names")
    g.add_argument("--dataset_type", metavar="NAME", help="OpenImages turns MIDs into names; MS-COCO, flixstock")
    g.add_argument(
        "--class_description_path", metavar="FILE", help="names of MIDs (./data/oidv6-class-descriptions.csv)"
    )
    g.add_argument(
        "--th", type=float, metavar="T", help="least score of a class that is named (0.97 for OpenImages, else 0.7)"
    )
    g.add_argument("--top_k", type=int, metavar="K", help="most classes named for an image (30)")
    g = p.add_argument_group("results and machine")
    g.add_argument("--path_dest", metavar="DIR", help="results go to DIR/results (the run's folder; else ./outputs)")
    g.add_argument("--output", metavar="FILE", help="the table, .csv or .parquet (predictions.csv among the results)")
    g.add_argument("-b", "--batch_size", type=int, metavar="B", help="images at a time (32)")
    g.add_argument(
        "-j", "--workers", type=int, metavar="N", help="processes that decode images (one a core, at most 8)"
    )
    g.add_argument("--cache", metavar="DIR", help="keep resized photos there for the next time")
    g.add_argument("--device", metavar="DEV", help="cuda, cuda:1, cpu (a GPU where there is one)")
    g.add_argument("--amp", choices=("auto", "bf16", "fp16", "off"), help="low precision; auto: on a GPU")
    g.add_argument(
        "--abn", metavar="NAME", help="keep InPlace-ABN as layers, run by auto, triton, torch or inplace-abn"
    )
    g.add_argument(
        "--compile", action="store_true", help="torch.compile of the network: minutes before the first image"
    )
    return p


def main(flags: dict) -> None:
    """Name what is in the images that the flags say."""
    from csl.inference.infer import InferenceOptions, infer

    infer(InferenceOptions(**flags))
