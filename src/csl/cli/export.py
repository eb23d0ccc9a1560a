"""The flags of `csl export`: a trained network for other programs."""

import argparse

from csl.cli import flags
from csl.export import ExportOptions, export

DESCRIPTION = "Write a network as ONNX, pt2 or safetensors, and prove that the file gives PyTorch's numbers."
EPILOG = """infer.py and validate.py run .onnx files as they are: --model_path best.onnx.
every flag may be written with - or _.
examples:
  python -m csl export
  python -m csl export --model_path outputs/best.ckpt --format onnx --sigmoid --out photos.onnx
  python -m csl export --int8 --calibrate photos/ --data photos"""


def parser() -> argparse.ArgumentParser:
    """The parser of the tool; its names are the fields of `ExportOptions`."""
    p, group = flags.parser_of(ExportOptions, DESCRIPTION, EPILOG)
    g = group("network")
    g.add("--model_path", metavar="FILE", help="checkpoint (best.ckpt of the last run)")
    g.shared("weights_key", "model_name", "num_classes", "image_size")
    g = group("file")
    g.add("--format", metavar="FORMAT", help="onnx, pt2 (torch.export) or safetensors (weights)")
    g.add("--out", metavar="FILE", help="the file to write (beside the checkpoint, by the format's ending)")
    g.add("--sigmoid", action="store_true", help="the file gives probabilities instead of logits")
    g.add("--check", metavar="PATH", help="photos to compare on (the run's validation images; else drawn ones)")
    g = group("int8")
    g.add("--int8", action="store_true", help="8-bit weights and activations, for CPUs; onnx only")
    g.add("--calibrate", metavar="PATH", help="folder of photos such as the network will see; no labels needed")
    g.add("--data", metavar="DIR", help="annotations for the mAP before and after (the run's own)")
    g.shared("images")
    g.add("--split", metavar="NAME", help="train, val or test of --data")
    g.shared("batch_size", "workers")
    return p


def main(given: dict) -> None:
    """Export as the flags say, and print what was compared."""
    export(ExportOptions(**given))
