"""The end of a run: `results.json`, the pictures, the page, and the last lines."""

from typing import Any

from torch import Tensor

from csl.decisions import decide, undecidable
from csl.labels import LabelMatrix
from csl.losses import options_of
from csl.machine import distributed
from csl.machine.files import write_json
from csl.metrics import mean_average_precision
from csl.plots.optional import tried
from csl.predict import Predictor
from csl.predict.kept_decisions import write_decisions
from csl.predict.scoring import Scores, gather_scores
from csl.runs.config import TrainConfig
from csl.runs.folder import RunFolder
from csl.training import report
from csl.training.data import Data, Say


def best_scores(config: TrainConfig, data: Data, run: RunFolder, kept: Scores | None) -> Scores | None:
    """The validation scores behind `best.ckpt` on rank 0, None on the others; all processes call this.

    Args:
        config, data, run: as `summarise`.
        kept: those of the trainer on rank 0. Only a resumed run, whose best came before, has none: it scores anew.
    """
    if distributed.broadcast_object(kept is not None):
        return kept
    predictor = Predictor.load(run.best, device=config.device, amp=config.amp, engine="torch")
    predictor.cache = config.cache
    val = data.val
    return gather_scores(
        predictor.score(val.images, config.batch_size, config.workers, "validation", shared=True, roots=val.roots)
    )


def summarise(
    config: TrainConfig,
    data: Data,
    full_labels: LabelMatrix,
    run: RunFolder,
    best: dict[str, Any],
    scores: Scores,
    seconds: float,
    say: Say,
    estimate: dict[str, Any] | None = None,
    prior: Tensor | None = None,
) -> None:
    """Write the thresholds, `results.json`, the plots and the page of a run, and say what its results are and what to run next.

    Args:
        config: of the run.
        data: of the run.
        full_labels: of the training images, before any were hidden.
        run: its folder.
        best: results of its best evaluation.
        scores: the validation scores behind `best`.
        seconds: that the run took.
        say: prints one line.
        estimate: of the mAP with all labels known, None where there is none.
        prior: [C] of the loss, None where it has none.
    """
    _decide(data, run, scores, prior, say)
    all_labels = None
    if data.truth is not None:
        all_labels = mean_average_precision(scores.probabilities[0], data.truth.select(scores.indices))
    results = {"best": best, "seconds": round(seconds, 1)}
    results |= {} if all_labels is None else {"mAP_all_labels": all_labels}
    results |= {} if estimate is None else {"estimate": estimate}
    write_json(run.path / "results.json", results)
    from csl.plots import plot_run_annotation, plot_training  # matplotlib is imported when a picture is wanted

    truth = full_labels if data.train_truth is None else data.train_truth
    full = full_labels if config.simulate_partial_type else None
    plots = plot_training(run, data.train, full, truth, data.val, scores, config.background)
    threshold = config.prior_threshold
    plots += plot_run_annotation(run, options_of("csl")["prior_threshold"] if threshold is None else threshold)
    plots += _page(config, data, run, scores)
    latest = run.set_latest()  # another run may have ended meanwhile
    for line in report.result(best, data.val, all_labels, seconds, run.path, plots, latest, estimate):
        say(line)


def _decide(data, run, scores, prior, say):
    """Calibrate the network on its validation scores, and keep the thresholds in `best.ckpt`."""
    labels = data.val.as_collected.select(scores.indices)
    if (why := undecidable(labels, prior)) is not None:
        say(f"thresholds: none of its own for a class ({why})")
        return
    decisions = decide(scores.probabilities[0], labels, data.val.groups, prior=prior)
    write_decisions(run.best, decisions)
    say(f"{decisions.line()}; in {run.best.name}, for infer.py")


def _page(config, data, run, scores):
    """[`report.html`], [] with a warning where it cannot be written."""
    from csl.report import write_report

    with tried(run.report):
        predictor = Predictor.load(run.best, device=config.device, amp=config.amp, engine="torch")
        scored = data.val.select(scores.indices)
        return [write_report(run, data.train, scored, scores.probabilities[0], predictor)]
    return []
