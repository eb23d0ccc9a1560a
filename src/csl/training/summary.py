"""The end of a run: `results.json`, the pictures, and the last lines."""

import json
from typing import Any

from csl.labels import LabelMatrix
from csl.machine.files import replacing
from csl.metrics import mean_average_precision
from csl.predict import Predictor
from csl.predict.scoring import Scores
from csl.runs.config import TrainConfig
from csl.runs.folder import RunFolder
from csl.training import report
from csl.training.data import Data, Say


def summarise(
    config: TrainConfig,
    data: Data,
    full_labels: LabelMatrix,
    run: RunFolder,
    best: dict[str, Any],
    scores: Scores | None,
    seconds: float,
    say: Say,
) -> None:
    """Write `results.json` and the plots of a run, and say what its results are and what to run next.

    Args:
        config: of the run.
        data: of the run.
        full_labels: of the training images, before any were hidden.
        run: its folder.
        best: results of its best evaluation.
        scores: the validation scores behind `best`; None scores `best.ckpt` anew, after a resume.
        seconds: that the run took.
        say: prints one line.
    """
    if scores is None:
        predictor = Predictor.load(run.best, device=config.device, amp=config.amp)
        scores = predictor.score(data.val.images, config.batch_size, config.workers, roots=data.val.roots)
    all_labels = None
    if data.truth is not None:
        all_labels = mean_average_precision(scores.probabilities[0], data.truth.select(scores.indices))
    results = {"best": best, "seconds": round(seconds, 1)}
    results |= {} if all_labels is None else {"mAP_all_labels": all_labels}
    with replacing(run.path / "results.json") as temporary:
        temporary.write_text(json.dumps(results, indent=2))
    from csl.plots import plot_training  # matplotlib is imported when a picture is wanted

    truth = full_labels if data.train_truth is None else data.train_truth
    full = full_labels if config.simulate_partial_type else None
    plots = plot_training(run, data.train, full, truth, data.val, scores)
    run.set_latest()  # another run may have ended meanwhile
    for line in report.result(best, data.val, all_labels, seconds, run.path, plots):
        say(line)
