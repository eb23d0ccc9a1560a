"""The lines that a run prints, from its first to its last."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from csl.labels import Annotations
from csl.machine.invocation import command, quoted
from csl.runs.config import TrainConfig
from csl.training.sizes import MULTIPLE

Results = Mapping[str, Mapping[str, float]]
"""{network: {metric: percent}}; the networks are "model" and, with a moving average, "ema"."""

_PRECISIONS = {None: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}


def network(name: str, num_classes: int, parameters: int, weights: str) -> str:
    """The network, its size, and where its starting weights are from."""
    return f"network: {name}, {num_classes} classes, {parameters / 1e6:.1f} M parameters{weights}"


def start(
    config: TrainConfig,
    device: torch.device,
    amp_dtype: torch.dtype | None,
    steps_per_epoch: int,
    global_batch: int,
    processes: int,
    workers: int,
    why: str | None,
) -> str:
    """Where and how training begins; `why` in this precision, where the program chose it."""
    batch = f"batch {global_batch}"
    if processes > 1 or config.grad_accum > 1:
        parts = f"{config.grad_accum} x {config.batch_size}" if config.grad_accum > 1 else f"{config.batch_size}"
        batch += f" ({processes} processes x {parts}; --lr {config.lr:g} as given)"
    precision = _PRECISIONS[amp_dtype]
    return (
        f"training on {device}, {precision}, {config.epochs} epochs of {steps_per_epoch} steps, {batch}, "
        f"image size {config.image_size}, {workers} workers, seed {config.seed}{f'; {precision}: {why}' if why else ''}"
    )


def step(epoch: int, step_of_epoch: int, steps_per_epoch: int, loss: float, rate: float, left: str) -> str:
    """How far training is within an epoch (from 1), at which rate in images per second, and the time left in words."""
    return f"epoch {epoch}, step {step_of_epoch}/{steps_per_epoch}: loss {loss:.3f}, {rate:.1f} img/s, {left}"


def left(seconds: float, is_bound: bool) -> str:
    """The time left; `is_bound` where the steps to come take longer than those it is reckoned by."""
    return f"{'at least ' if is_bound else ''}{tqdm.format_interval(seconds)} left"  # of any number of hours


def slow(left: str, height_width: tuple[int, int]) -> str:
    """What takes less time, for who trains a network on a processor and did not know how long that takes."""
    half = [max(side // 2 // MULTIPLE, 1) * MULTIPLE for side in height_width]
    size = "x".join(map(str, half if half[0] != half[1] else half[:1]))
    return (
        f"{left} on a processor: --image_size {size} takes about a quarter of the time, and "
        "--probe, which trains a head on the features of a pretrained network, minutes"
    )


def evaluation(step: int, loss: float, results: Results) -> str:
    """The results of an evaluation in the middle of an epoch."""
    return f"step {step}: loss {loss:.3f}, {_in_words(results)}"


def epoch(epoch: int, epochs: int, loss: float, results: Results, rate: float) -> str:
    """The results of an epoch (from 1)."""
    return f"epoch {epoch}/{epochs}: loss {loss:.3f}, {_in_words(results)}, {rate:.1f} img/s"


def estimated(results: Results, prior: str) -> str:
    """The estimated mAP of an evaluation, and what an error of the prior does to it."""
    of = results.get("ema", results["model"])
    average = f" (EMA {_number(of['mAP_estimated'])})" if "ema" in results else ""
    half, twice = (_number(of[f"mAP_estimated_{factor}_prior"]) for factor in ("half", "twice"))
    return (
        f"  estimated mAP, all labels known: {_number(results['model']['mAP_estimated'])}{average}; {half} with half the "
        f"prior, {twice} with twice; prior: {prior}"
    )


def highest_prior(classes: Sequence[str], prior: Tensor) -> str:
    """The ten classes with the highest prior [C]; NaN where nothing was estimated."""
    top = torch.topk(prior.nan_to_num(-1), min(10, len(prior))).indices.tolist()
    return "  highest prior: " + ", ".join(f"{classes[c]} {prior[c]:.2f}" for c in top)


def prior(values: Tensor, threshold: float, groups: Mapping[str, slice] | None = None) -> list[str]:
    """How many classes the class prior [C] leaves out of the un-annotated labels, with a warning where it selects none.

    Args:
        values: the prior.
        threshold: `prior_threshold`; 0 for none.
        groups: the classes of each attribute, whose priors add up to about 1 if every image has one value.
    """
    over, classes = int((values > threshold).sum()) if threshold else 0, len(values)
    low, high = values.min().item(), values.max().item()
    lines = [
        f"prior: {over:,} of {classes:,} classes over --prior_threshold {threshold:g}, whose un-annotated labels are ignored "
        f"(priors from {low:.3g} to {high:.3g})"
    ]
    if groups:
        few = list(groups.items())[:10]
        sums = ", ".join(f"{name} {values[classes].sum():.2f}" for name, classes in few)
        sums += f" and {len(groups) - len(few):,} more" if len(groups) > len(few) else ""
        lines.append(f"prior: sums over the values of each attribute, 1 if every image has one: {sums}")
    if over == classes and classes > 1:
        lines.append(
            f"warning: all of them, which is ignore mode: a --prior_threshold between {low:.3g} and {high:.3g} selects"
        )
    elif not over:
        lines.append(
            f"warning: none of them, so that the prior changes nothing: a --prior_threshold under {high:.3g} selects"
        )
    return lines


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
    latest: bool,
    estimate: Mapping[str, Any] | None = None,
) -> list[str]:
    """The last lines of a run: its best results, its files, and what to run next.

    Args:
        best: the results of the best epoch.
        val: the validation images.
        all_labels: mAP in percent with all labels known, None where they are not.
        seconds: that the run took.
        folder: of the run.
        plots: the pictures that were drawn.
        latest: whether the scripts take this run where none is named.
        estimate: of the mAP with all labels known, with its interval.
    """
    counts = val.labels.counts()
    defined = int(((counts.positives > 0) & (counts.negatives > 0)).sum())
    weights = "EMA weights" if best["weights"] == "ema" else "regular weights"
    lines = [
        "",
        f"mAP on annotated entries {_number(best['mAP'])} (epoch {best['epoch']}, {weights}; mean over {defined:,} of "
        f"{len(val.classes):,} classes on {len(val):,} images)",
        f"mAP with un-annotated as negative {_number(best['mAP_negative'])}",
    ]
    if "cross_entropy" in best:
        lines.append(f"cross-entropy on annotated entries {best['cross_entropy']:.4f}")
    if estimate is not None:
        low, high = (_number(estimate[f"mAP_estimated_{end}"]) for end in ("low", "high"))
        lines.append(
            f"estimated mAP, all labels known {_number(estimate['mAP_estimated'])} ({low} to {high} by 90 % of draws)"
        )
    if all_labels is not None:
        lines.append(f"mAP with all labels known {all_labels:.2f}")
    names = ", ".join(["best.ckpt", "log.jsonl", *(path.name for path in plots)])
    of_run = [] if latest else ["--model_path", Path(folder)]
    next_commands = [command(name, *of_run) for name in ("validate", "infer")]
    return [
        *lines,
        f"took {seconds:.0f} s; results in {folder}: {names}",
        "next: " + "    ".join([*next_commands, quoted("tensorboard", "--logdir", Path(folder))]),
    ]


def _in_words(results):
    def both(metric):
        average = f" (EMA {_number(results['ema'][metric])})" if "ema" in results else ""
        return f"{_number(results['model'][metric])}{average}"

    return f"mAP {both('mAP')}, un-annotated as negative {both('mAP_negative')}"


def _number(percent):
    return "undefined" if math.isnan(percent) else f"{percent:.2f}"
