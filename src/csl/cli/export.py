"""The flags of `python -m csl export`: a trained network for other programs."""

import argparse

from csl.cli import parsing

DESCRIPTION = "Write a network as ONNX, pt2 or safetensors, and prove that the file gives PyTorch's numbers."
EPILOG = """infer.py and validate.py run the .onnx and .pt2 files as they are: --model_path best.onnx.
every flag may be written with - or _.
examples:
  python -m csl export
  python -m csl export --model_path outputs/best.ckpt --format onnx --sigmoid --out photos.onnx
  python -m csl export --int8 --calibrate photos/ --data photos"""


def parser() -> argparse.ArgumentParser:
    """The parser of the tool."""
    p = parsing.create_parser(DESCRIPTION, EPILOG)
    g = p.add_argument_group("network")
    g.add_argument("--model_path", metavar="FILE", help="checkpoint (best.ckpt of the last run)")
    g.add_argument(
        "--model_name", metavar="NAME", help="needed for a foreign file of a timm network; told by the file otherwise"
    )
    g.add_argument("--num_classes", type=int, metavar="C", help="expected number of classes (taken from the file)")
    g.add_argument("--image_size", type=parsing.size, metavar="PX", help="side, or HEIGHTxWIDTH (the run's; else 448)")
    g = p.add_argument_group("file")
    g.add_argument("--format", metavar="FORMAT", help="onnx, pt2 (torch.export) or safetensors (weights) (onnx)")
    g.add_argument("--out", metavar="FILE", help="the file to write (beside the checkpoint, by the format's ending)")
    g.add_argument("--sigmoid", action="store_true", help="the file gives probabilities instead of logits")
    g.add_argument(
        "--check", metavar="PATH", help="photos the file is compared on (the run's validation images; else drawn ones)"
    )
    g = p.add_argument_group("int8")
    g.add_argument("--int8", action="store_true", help="8-bit weights and activations, for CPUs; onnx only")
    g.add_argument(
        "--calibrate", metavar="PATH", help="folder of photos such as the network will see; no labels needed"
    )
    g.add_argument("--data", metavar="DIR", help="annotations for the mAP before and after (the run's own)")
    g.add_argument("--images", metavar="DIR", help="folder of the image files, where it is not beside the annotations")
    g.add_argument("--split", metavar="NAME", help="train, val or test of --data (val)")
    g.add_argument("-b", "--batch_size", type=int, metavar="B", help="images at a time for the mAP (32)")
    g.add_argument(
        "-j", "--workers", type=int, metavar="N", help="processes that decode images (one a core, at most 8)"
    )
    return p


def main(flags: dict) -> None:
    """Export as the flags say, and print what was compared."""
    from csl.export import ExportOptions, export

    export(ExportOptions(**flags))
