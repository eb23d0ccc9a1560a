"""The lines that a run prints, from its first to its last."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from csl.labels import Annotations
from csl.runs.config import TrainConfig

Results = Mapping[str, Mapping[str, float]]
"""{network: {metric: percent}}; the networks are "model" and, with a moving average, "ema"."""

_PRECISIONS = {None: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}


def network(config: TrainConfig, num_classes: int, parameters: int, weights: str) -> str:
    """The network, its size, and where its starting weights are from."""
    return f"network: {config.model_name}, {num_classes} classes, {parameters / 1e6:.1f} M parameters{weights}"


def start(
    config: TrainConfig,
    device: torch.device,
    amp_dtype: torch.dtype | None,
    steps_per_epoch: int,
    global_batch: int,
    processes: int,
    workers: int,
) -> str:
    """Where and how training begins."""
    batch = f"batch {global_batch}"
    if processes > 1 or config.grad_accum > 1:
        parts = f"{config.grad_accum} x {config.batch_size}" if config.grad_accum > 1 else f"{config.batch_size}"
        batch += f" ({processes} processes x {parts}; --lr {config.lr:g} as given)"
    return (
        f"training on {device}, {_PRECISIONS[amp_dtype]}, {config.epochs} epochs of {steps_per_epoch} steps, {batch}, "
        f"image size {config.image_size}, {workers} workers, seed {config.seed}"
    )


def step(epoch: int, step_of_epoch: int, steps_per_epoch: int, loss: float, rate: float, images_left: int) -> str:
    """How far training is within an epoch (from 1), and the time left at this rate (images per second)."""
    left = time.strftime("%H:%M:%S", time.gmtime(images_left / max(rate, 1e-9)))
    return f"epoch {epoch}, step {step_of_epoch}/{steps_per_epoch}: loss {loss:.3f}, {rate:.1f} img/s, {left} left"


def evaluation(step: int, loss: float, results: Results) -> str:
    """The results of an evaluation in the middle of an epoch."""
    return f"step {step}: loss {loss:.3f}, {_in_words(results)}"


def epoch(epoch: int, epochs: int, loss: float, results: Results, rate: float) -> str:
    """The results of an epoch (from 1)."""
    return f"epoch {epoch}/{epochs}: loss {loss:.3f}, {_in_words(results)}, {rate:.1f} img/s"


def highest_prior(classes: Sequence[str], prior: Tensor) -> str:
    """The ten classes with the highest prior [C]; NaN where nothing was estimated."""
    top = torch.topk(prior.nan_to_num(-1), min(10, len(prior))).indices.tolist()
    return "  highest prior: " + ", ".join(f"{classes[c]} {prior[c]:.2f}" for c in top)


def bad_image(number: int, reason: str) -> str:
    """An image that became unreadable during training."""
    return f"bad image {number}, left out: {reason}"


def result(
    best: Mapping[str, Any],
    val: Annotations,
    all_labels: float | None,
    seconds: float,
    folder: Path,
    plots: Sequence[Path],
) -> list[str]:
    """The last lines of a run: its best results, its files, and what to run next.

    Args:
        best: the results of the best epoch.
        val: the validation images.
        all_labels: mAP in percent with all labels known, None where they are not.
        seconds: that the run took.
        folder: of the run.
        plots: the pictures that were drawn.
    """
    counts = val.labels.counts()
    defined = int(((counts.positives > 0) & (counts.negatives > 0)).sum())
    weights = "EMA weights" if best["weights"] == "ema" else "regular weights"
    lines = [
        "",
        f"mAP on annotated entries {best['mAP']:.2f} (epoch {best['epoch']}, {weights}; mean over {defined:,} of "
        f"{len(val.classes):,} classes on {len(val):,} images)",
        f"mAP with un-annotated as negative {best['mAP_negative']:.2f}",
    ]
    if all_labels is not None:
        lines.append(f"mAP with all labels known {all_labels:.2f}")
    names = ", ".join(path.name for path in plots)
    return [
        *lines,
        f"took {seconds:.0f} s; results in {folder}: best.ckpt, log.jsonl, {names}",
        f"next: python validate.py    python infer.py    tensorboard --logdir {folder}",
    ]


def _in_words(results):
    def both(metric):
        average = f" (EMA {results['ema'][metric]:.2f})" if "ema" in results else ""
        return f"{results['model'][metric]:.2f}{average}"

    return f"mAP {both('mAP')}, un-annotated as negative {both('mAP_negative')}"
