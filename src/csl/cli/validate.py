"""The flags of validate.py."""

import argparse
import json
from pathlib import Path

from csl.cli import parsing
from csl.errors import InputError

DESCRIPTION = "Measure a network on annotated images: mAP, precision, recall and F1, a table of all classes."
EPILOG = """without flags the last run of train.py is measured on its own validation split.
every flag may be written with - or _."""


def parser() -> argparse.ArgumentParser:
    """The parser of validate.py."""
    p = parsing.create_parser(DESCRIPTION, EPILOG)
    g = p.add_argument_group("data")
    g.add_argument(
        "data_dir", nargs="?", metavar="data", help="folder or file of annotations (the run's own; else ./data)"
    )
    g.add_argument("--data", metavar="DIR", help="the same")
    g.add_argument("--split", metavar="NAME", help="train, val or test (val)")
    g.add_argument("--images", metavar="DIR", help="folder of the image files, where it is not beside the annotations")
    g.add_argument("--metadata", metavar="DIR", help="folder of val.json, where it is not in --data")
    g.add_argument("--debug_mode", metavar="LAYOUT", help="COCO layout on_farm or hyperml, instead of finding out")
    g.add_argument("--dataset_type", metavar="NAME", help="accepted and not needed: the format is found out")
    g.add_argument(
        "--attributes", metavar="SPEC", help="sizes of attributes in a CSV: neck:7,sleeve_length:4,pattern:10"
    )
    g.add_argument(
        "--ignore_columns", metavar="A,B", type=parsing.names, help="columns of a CSV that are no attributes"
    )
    g.add_argument("--keep_unlabelled_images", action="store_true", help="COCO: keep images without any annotation")
    g.add_argument("--classes_file", metavar="FILE", help="OpenImages: list of MIDs, instead of the trainable classes")
    g.add_argument("--strict_labels", action="store_true", help="OpenImages: stop at the first malformed row")
    g.add_argument("--follow_links", action="store_true", help="images may lie outside of the data folder, links too")
    g = p.add_argument_group("network")
    g.add_argument("--model_path", metavar="FILE", help="checkpoint, .onnx or .pt2 (best.ckpt of the last run)")
    g.add_argument(
        "--model_name", metavar="NAME", help="needed for a foreign file of a timm network; told by the file otherwise"
    )
    g.add_argument("--num_classes", type=int, metavar="C", help="expected number of classes (taken from the file)")
    g.add_argument("--image_size", type=parsing.size, metavar="PX", help="side, or HEIGHTxWIDTH (the run's; else 448)")
    g = p.add_argument_group("measuring")
    g.add_argument("--thre", type=float, metavar="T", help="threshold of P_C ... F_O (0.8)")
    g.add_argument(
        "--path_dest",
        metavar="DIR",
        help="where validation.csv and validation.json go (the run's folder; else ./outputs)",
    )
    g.add_argument("--plots", action="store_true", help="pictures of labels, prior, predictions, PR curves in plots/")
    g.add_argument(
        "--plot_classes", metavar="A,B", type=parsing.names, help="classes of the PR curves; implies --plots"
    )
    g = p.add_argument_group("machine")
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
    g.add_argument(
        "-p",
        "--print_freq",
        "--printfreq",
        dest="print_freq",
        type=int,
        metavar="N",
        help="accepted: there is a progress bar",
    )
    return p


def main(flags: dict) -> None:
    """Measure as the flags say, print the numbers, write validation.csv and validation.json."""
    from csl.inference.evaluate import evaluate
    from csl.inference.sources import annotations_for, checkpoint_path, destination
    from csl.labels.options import DataOptions
    from csl.labels.trust import escape_table
    from csl.predict import Predictor

    path = checkpoint_path(flags.get("model_path"))
    names = ("model_name", "num_classes", "image_size", "device", "amp", "abn", "compile")
    predictor = Predictor.load(path, **{k: flags[k] for k in names if k in flags})
    predictor.cache = flags.get("cache")
    if predictor.abn:
        print(predictor.abn)
    if "data_dir" in flags and "data" in flags:
        raise InputError(f"--data {flags['data']}: given beside {flags['data_dir']}, expected one of them")
    data = DataOptions.of({**flags, "data": flags.get("data", flags.get("data_dir"))})
    annotations, truth = annotations_for(
        data, flags.get("split", "val"), predictor.config, predictor.classes, predictor.groups
    )
    options = {
        name: flags[flag]
        for flag, name in (("thre", "threshold"), ("batch_size", "batch_size"), ("workers", "workers"))
        if flag in flags
    }
    chosen = None
    if "plot_classes" in flags:
        from csl.plots import named_classes

        chosen = named_classes(flags["plot_classes"], annotations.classes, annotations.keys)
    result = evaluate(predictor, annotations, **options)
    if result is None:  # rank 0 has it
        return

    for reason in result.bad:
        print(f"bad image, left out: {reason}")
    numbers = result.numbers
    print(f"mAP on annotated entries          {numbers['mAP']:6.2f}")
    print(f"mAP with un-annotated as negative {numbers['mAP_negative']:6.2f}")
    if truth is not None:
        from csl.metrics import mean_average_precision

        numbers["mAP_all_labels"] = mean_average_precision(result.probabilities, truth[result.indices])
        print(f"mAP with all labels known         {numbers['mAP_all_labels']:6.2f}")
    thre = options.get("threshold", 0.8)
    print(f"at {thre:g}:  " + "  ".join(f"{k} {numbers[k]:.2f}" for k in ("P_C", "R_C", "F_C", "P_O", "R_O", "F_O")))
    for average in ("micro", "macro", "samples"):
        values = "  ".join(f"{k} {numbers[f'{average}_{k}']:6.2f}" for k in ("precision", "recall", "f1"))
        print(f"at 0.5, {average:8}{values}")
    if result.attributes is not None:
        print(result.attributes.round(1).to_string(index=False))
    folder = Path(destination(flags.get("path_dest"), path))
    folder.mkdir(parents=True, exist_ok=True)
    escape_table(result.classes).to_csv(folder / "validation.csv", index=False)
    (folder / "validation.json").write_text(
        json.dumps({"checkpoint": str(path), "data": annotations.source, **numbers}, indent=2)
    )
    print(f"{len(result.indices):,} images of {annotations.source}; every class in {folder / 'validation.csv'}")
    if flags.get("plots") or chosen:
        from csl.plots.validation import plot_validation  # matplotlib is imported when a picture is wanted

        made = plot_validation(
            folder / "plots", flags.get("split", "val"), annotations, result.indices, result.probabilities,
            result.targets, thre, truth, chosen,
        )  # fmt: skip
        print(f"pictures in {folder / 'plots'}: {', '.join(path.name for path in made)}")
