"""Pictures: of training, of labels, of predictions. matplotlib is imported when one is made."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from csl.data.images import load_rgb
from csl.labels import Annotations, LabelMatrix
from csl.predict import Prediction
from csl.run import RunFolder
from csl.trainer import read_log


def plot_training(run: RunFolder, train: Annotations, full_labels: LabelMatrix | None = None) -> list[Path]:
    """Loss and mAP over the epochs, and the labels of each class, into the run's `plots/`; returns the files."""
    run.plots.mkdir(parents=True, exist_ok=True)
    made = [_plot_curves(read_log(run.log), run.plots / "training.png")]
    made.append(plot_labels(train, run.plots / "labels.png", full_labels))
    return made


def plot_labels(annotations: Annotations, path: Path, full_labels: LabelMatrix | None = None) -> Path:
    """Positives, negatives and unknowns of each class as stacked bars, the most frequent first.

    Args:
        annotations: whose labels are counted.
        path: PNG to write.
        full_labels: where the truth is known, its positives are marked.
    """
    plt = _pyplot()
    counts = annotations.labels.counts()
    order = np.argsort(-counts.positives, kind="stable")
    few = len(order) <= 60
    figure, axes = plt.subplots(figsize=(max(6, min(14, 0.28 * len(order) + 2)), 4.2), layout="constrained")
    x, bottom = np.arange(len(order)), np.zeros(len(order))
    labels = {"positives": "positive", "negatives": "negative", "unannotated": "unknown"}
    shades = (("positives", "#1b7f5c"), ("negatives", "#c9d6df"), ("unannotated", "#f0e3c4"))
    for name, colour in shades:
        values = getattr(counts, name)[order]
        axes.bar(x, values, bottom=bottom, width=0.85 if few else 1.0, color=colour, label=labels[name])
        bottom += values
    if full_labels is not None:
        true = full_labels.counts().positives[order]
        axes.plot(x, true, "k_" if few else "k-", lw=0.8, ms=8, label="true positives before simulation")
    axes.set(
        ylabel="images",
        title=f"Labels of {len(annotations):,} images, {len(order):,} classes",
        xlim=(-0.7, len(order) - 0.3),
    )
    if few:
        axes.set_xticks(x, [annotations.classes[c] for c in order], rotation=90, fontsize=8)
    else:
        axes.set_xlabel("class, by known positives")
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return _save(plt, figure, path)


def plot_predictions(images: Sequence[str], predictions: Sequence[Sequence[Prediction]], path: Path) -> Path:
    """Images titled with what was predicted, in a sheet.

    Args:
        images: paths, N.
        predictions: of each image.
        path: PNG to write.
    """
    plt = _pyplot()
    columns = min(4, len(images))
    rows = -(-len(images) // columns)
    lines = max(min(len(p), 6) for p in predictions) if predictions else 1
    side = 3.0 if len(images) > 1 else 5.0
    figure, axes = plt.subplots(
        rows, columns, figsize=(columns * side, rows * (side + 0.18 * lines)), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.axis("off")
    for axis, path_, found in zip(axes.flat, images, predictions, strict=False):
        axis.imshow(_thumbnail(path_))
        axis.set_title(title_of(found), fontsize=9, loc="left")
    return _save(plt, figure, path)


def title_of(predictions: Sequence[Prediction], most: int = 6) -> str:
    """Lines "name score" of an image's predictions, or "no predictions"."""
    lines = [f"{p.name}  {p.score:.2f}" for p in predictions[:most]]
    if len(predictions) > most:
        lines.append(f"and {len(predictions) - most} more")
    # A dollar sign would start a formula.
    return "\n".join(lines).replace("$", r"\$") or "no predictions"


def _plot_curves(log, path):
    plt = _pyplot()
    epochs = [entry["epoch"] for entry in log]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    left.plot(epochs, [entry["loss"] for entry in log], color="#355c7d", marker=".")
    left.set(xlabel="epoch", ylabel="loss per image", title="Training loss")
    for key, label, style in (
        ("mAP_model", "annotated, regular", "-"),
        ("mAP_ema", "annotated, EMA", "--"),
        ("mAP_negative_ema", "un-annotated as negative, EMA", ":"),
    ):
        values = [np.nan if entry[key] is None else entry[key] for entry in log]
        right.plot(
            epochs, values, style, label=label, color="#1b7f5c" if "negative" not in key else "#888888", marker="."
        )
    right.set(xlabel="epoch", ylabel="mAP, %", title="Validation mAP")
    right.legend(frameon=False, fontsize=8)
    for axis in (left, right):
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.spines[["top", "right"]].set_visible(False)
    return _save(plt, figure, path)


def _thumbnail(path, side=512):
    image = load_rgb(path)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return image


def _pyplot():
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def _save(plt, figure, path):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
