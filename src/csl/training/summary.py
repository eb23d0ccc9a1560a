"""The end of a run: its results in `results.json`, its pictures, and what to run next."""

import json
from collections.abc import Callable

from csl.labels import LabelMatrix
from csl.machine.files import replacing
from csl.metrics import mean_average_precision
from csl.predict import Predictor
from csl.runs.config import TrainConfig
from csl.runs.folder import RunFolder
from csl.training.data import Data, training_truth


def summarise(
    config: TrainConfig,
    data: Data,
    full_labels: LabelMatrix,
    run: RunFolder,
    best: dict,
    seconds: float,
    say: Callable[[str], None],
) -> None:
    """Say where the results are, what they are, and what to run next; write `results.json` and the plots.

    Args:
        config: of the run.
        data: what it was trained and validated on.
        full_labels: of the training images, before any were hidden.
        run: its folder.
        best: results of its best epoch.
        seconds: that it took.
        say: prints one line.
    """
    results = {"best": best, "seconds": round(seconds, 1)}
    predictor = Predictor.load(run.best, device=config.device, amp=config.amp)
    scores = predictor.score(data.val.images, config.batch_size, config.workers, roots=data.val.roots)
    if data.truth is not None:
        results["mAP_all_labels"] = mean_average_precision(scores.probabilities[0], data.truth[scores.indices])
    with replacing(run.path / "results.json") as temporary:
        temporary.write_text(json.dumps(results, indent=2))
    from csl.plots import plot_training  # matplotlib is imported when a picture is wanted

    truth = training_truth(config, data.train, full_labels)
    full = full_labels if config.simulate_partial_type else None
    plots = plot_training(run, data.train, full, truth, data.val, scores)
    run.make_last()  # another may have ended meanwhile
    say("")
    weights = "EMA weights" if best["weights"] == "ema" else "regular weights"
    counts = data.val.labels.counts()
    defined = int(((counts.positives > 0) & (counts.negatives > 0)).sum())
    say(
        f"mAP on annotated entries {best['mAP']:.2f} (epoch {best['epoch']}, {weights}; mean over {defined:,} of "
        f"{len(data.val.classes):,} classes on {len(data.val):,} images)"
    )
    say(f"mAP with un-annotated as negative {best['mAP_negative']:.2f}")
    if "mAP_all_labels" in results:
        say(f"mAP with all labels known {results['mAP_all_labels']:.2f}")
    say(f"took {seconds:.0f} s; results in {run.path}: best.ckpt, log.jsonl, {', '.join(p.name for p in plots)}")
    say("next: python validate.py    python infer.py    tensorboard --logdir " + str(run.path))
