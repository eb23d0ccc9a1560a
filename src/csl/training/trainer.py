"""The training loop: forward, loss, backward, step; evaluate, keep the best, save."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from csl import checkpoint
from csl.data.batch_augment import augment_batch
from csl.data.dataset import Batch
from csl.data.prefetch import on_device
from csl.errors import InputError
from csl.labels import Annotations
from csl.machine import distributed
from csl.machine.faults import in_one_line
from csl.machine.signals import DeferredSignals, Interrupted
from csl.models import fuse
from csl.models.compiling import compile_network
from csl.models.graphing import GraphedNetwork
from csl.predict.scoring import Scores, gather_scores, score, to_input
from csl.prior import write_prior
from csl.runs.config import TrainOptions
from csl.runs.folder import RunFolder
from csl.training import report
from csl.training.bad_images import BadImages
from csl.training.board import Board, scores_to_show
from csl.training.body import Body
from csl.training.finite import FiniteWatch
from csl.training.optim import ModelEma, create_optimizer, create_schedule
from csl.training.precision import training_precision
from csl.training.progress import EpochProgress
from csl.training.selection import Best
from csl.training.shallow import LaterBlocks
from csl.training.sizes import SizeOfStep
from csl.training.state import Counts, EpochSums, Generators, TrainingState, facts_of_classes

LONG = 2 * 3600
"""Seconds left of a run on a processor from which on it is told what takes less."""


class Trainer:
    """Trains `model` on `train_loader`; evaluates it and its moving average (EMA) on `val_loader` after every epoch.

    With several processes (`csl.machine.distributed`) each process has its part of every step's images and of the
    validation images. All have the same weights and results; rank 0 alone prints and writes. The loss is a sum over the
    images of a step, wherever they are: no mean is taken, and the learning rate is used as given.

    Args:
        model: images [B, 3, H, W] in [0, 1] to logits [B, C].
        criterion: (logits [B, C], targets [B, C] in {1, 0, -1}) to a scalar; with rows [B] if it says `by_image`.
        train_loader: of `csl.data.loader.create_loader`, with the training transform.
        val_loader: likewise, with the evaluation transform and every image once over all processes.
        val: the annotations behind `val_loader`.
        run: the folder that everything is written into.
        device: where to train.
        options: how to train.
        description: what every checkpoint says of the run beside its classes: model_name, head, config.
        fewest: images of a batch that the model can be trained on: steps with fewer, as others are bad, are left out.
        say: prints one line.
        prior_source: where the class prior of the criterion is from, in words.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: nn.Module,
        train_loader: DataLoader,
        val_loader: DataLoader,
        val: Annotations,
        run: RunFolder,
        device: torch.device,
        options: TrainOptions,
        say: Callable[[str], None] = tqdm.write,
        description: Mapping[str, Any] | None = None,
        fewest: int = 1,
        prior_source: str = "that of the loss",
    ):
        self.fewest = fewest
        self.model = model.to(device, memory_format=torch.channels_last)
        self.criterion = criterion.to(device)
        self.train_loader, self.val_loader, self.val = train_loader, val_loader, val
        self.run, self.device, self.options, self.say = run, device, options, distributed.on_rank0(say)
        self.processes = distributed.world_size()
        self.steps_per_epoch = train_loader.batch_sampler.num_batches
        self.global_batch = train_loader.batch_sampler.global_batch  # images of a step, over all processes
        self.last_epoch = min(options.stop_epoch or options.epochs, options.epochs)

        smallest = options.progressive_size or train_loader.dataset.transform.height_width
        self.amp_dtype, self.why_precision = training_precision(options.amp, device, model, smallest)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.amp_dtype == torch.float16)
        self.optimizer = create_optimizer(self.model, options.optimizer, options.lr, options.weight_decay)
        total_steps = options.epochs * self.steps_per_epoch
        self.schedule = create_schedule(self.optimizer, options.lr, total_steps, options.schedule)
        train = train_loader.dataset
        self.size = SizeOfStep(options.progressive_size, train.transform.height_width, total_steps, self.say)
        self.ema = ModelEma(self.model, options.ema_decay) if options.ema_decay else None
        self.networks = {"model": self.model} | ({"ema": self.ema.module} if self.ema is not None else {})
        if options.compile:
            for network in self.networks.values():
                compile_network(network, device)
        self.network = distributed.data_parallel(self.model, device)
        self.body, self.later_blocks = Body(self.model), LaterBlocks(self.networks.values())
        if options.cuda_graph:
            self.network = GraphedNetwork(self.model)

        self.told = False  # how long the run takes
        self.signals = DeferredSignals(self.say)
        self.finite = FiniteWatch(
            self.model, self.optimizer, self.scaler, options.skip_nonfinite, train.annotations.images, run, self.say
        )
        self.bad_images = BadImages(options.on_bad_image == "stop", self.say)
        self.description = {**facts_of_classes(val), **(description or {})}
        by = options.selects_by
        self.best = Best(run, self.say, val, by, self.prior(), prior_source, self.networks, self.description)
        background = val_loader.dataset.transform.background
        self.board = Board(run.tensorboard, train.annotations, val, background=background)

        self.counts = Counts()
        self.sums = EpochSums(len(val.classes), device)
        parts = {"optimizer": self.optimizer, "scheduler": self.schedule, "scaler": self.scaler}
        parts |= {"ema": self.ema} if self.ema is not None else {}
        parts |= {"criterion": criterion} if criterion.state_dict() else {}  # what a loss remembers
        plain = [self.counts, self.best, self.bad_images, self.finite]
        self.state = TrainingState(self.model, parts, plain, [self.sums, Generators(device)])

    # ------------------------------------------------------------------------------------------------------ the loop

    def fit(self) -> dict[str, Any]:
        """Train to the last epoch (or step); returns the results of the best evaluation.

        Raises:
            Interrupted: on SIGINT or SIGTERM, once the step under way is done and the state is saved.
            InputError: a non-finite loss, or an unreadable image under `on_bad_image` "stop".
            MachineError: no memory, a dead loader worker, a full disk; the last checkpoint is whole.
            Stopped: another process of the job raised one of these.
        """
        counts = self.counts
        with self.signals.deferred(), in_one_line(self._where):
            while counts.epoch < self.last_epoch and not (self.reached_max_steps() and counts.evaluated == counts.step):
                rate = self._train_epoch()
                if self._epoch_is_over() and self.processes > 1:
                    self.save()  # now: a rank cannot save alone when a signal stops the evaluation
                self._finish_epoch(*self._evaluate(may_leave=self._epoch_is_over()), rate)
        self.board.close()
        return self.best.results

    def _train_epoch(self) -> float:
        """Train to the end of the epoch under way, or to `max_steps`; returns the images per second."""
        options, counts = self.options, self.counts
        self._to_training()
        if hasattr(self.criterion, "begin_epoch"):  # what depends on the epoch, after a resumption as well
            self.criterion.begin_epoch(counts.epoch + 1)
        done = counts.step - counts.epoch * self.steps_per_epoch  # not 0 where training resumes within an epoch
        taken = done
        self.train_loader.batch_sampler.set_epoch(counts.epoch, done)
        with EpochProgress(f"epoch {counts.epoch + 1}", self.steps_per_epoch, done) as progress:
            for batches in self.steps():
                if self._agree_on(batches):
                    self.train_step(batches)
                    taken += 1
                counts.step += 1
                progress.update(sum(map(len, batches)) * self.processes)
                if not self.told and progress.is_steady():
                    self._say_if_long(progress.rate)
                if progress.line_is_due(counts.step, options.print_freq):
                    self._say_progress(progress.rate)
                if _every(options.eval_every, counts.step) and not (self._epoch_is_over() or self.reached_max_steps()):
                    with progress.paused():
                        self._evaluate_between(progress.rate)
                if _every(options.save_every, counts.step):
                    self.save()
        self._leave_on(*distributed.all_reduce_max(self.signals.number or 0))
        if not taken:  # by any process: they agree on each step
            raise InputError(f"no batch had {self.fewest} or more images that can be read {self._where()}")
        return progress.rate

    def steps(self) -> Iterator[list[Batch]]:
        """The batches of this process for each step that is left of the epoch: one, or `grad_accum` of them."""
        batches = on_device(self.train_loader, self.device)
        while not self.reached_max_steps() and (step := list(islice(batches, self.options.grad_accum))):
            yield step

    def train_step(self, batches: Sequence[Batch]) -> None:
        """Take one optimizer step on the summed gradients of the batches."""
        self.optimizer.zero_grad(set_to_none=True)
        before, outputs = self.finite.before_step(), []
        for batch in batches:
            x, targets = self._inputs(batch)  # [B, 3, H, W] in [0, 1], [B, C] in {1, 0, -1}
            with self._gradients_reduced(batch is batches[-1]):
                half, on = self.amp_dtype or torch.bfloat16, self.amp_dtype is not None
                with torch.autocast(self.device.type, half, on, cache_enabled=not self.options.cuda_graph):
                    logits = self.network(x)  # [B, C]
                loss = self._loss(logits, targets, batch)
                self.finite.note(self.counts.place(1), loss, batch)
                # The gradient is that of the sum over all processes, of which their reduction takes the mean.
                self.scaler.scale(loss * self.processes).backward()
            outputs.append((logits.detach(), loss.detach(), batch.alone))
        if self.finite.should_skip(self.counts.place(1), [loss for _, loss, _ in outputs], batches, before):
            return

        self.scaler.step(self.optimizer)  # where float16 overflowed, the fused optimizer leaves the step out by itself,
        self.scaler.update()  # which the host is not told: to ask would be to wait for the device
        self.schedule.step()
        if self.ema is not None:
            self.ema.update(self.model)
        for logits, loss, alone in outputs:
            self.sums.update(logits, loss, alone)

    def _to_training(self) -> None:
        """Set the network to training mode: all of it, or what `frozen_epochs` and `shallow_epochs` have at first."""
        self.model.train()
        parts = {
            "frozen_epochs": ("the head", self.body.freeze),
            "shallow_epochs": ("the first block of each stage", self.later_blocks.leave_out),
        }
        for flag, (part, leave_out_the_rest) in parts.items():
            epoch, epochs = self.counts.epoch, getattr(self.options, flag)
            if leave_out_the_rest(epoch < epochs):
                what = f"{part} alone is trained up to epoch {epochs}" if epoch < epochs else "all is trained"
                self.say(f"epoch {epoch + 1}: {what} (--{flag})")
                # DistributedDataParallel has noted the parameters that get gradients.
                self.network = distributed.data_parallel(self.model, self.device)

    def _agree_on(self, batches: Sequence[Batch]) -> bool:
        """Whether all processes take this step: the one message between them before it.

        A signal, a non-finite loss of the step before or (under `on_bad_image` "stop") a bad image on any process ends
        all. A step is left out if a batch of any process has too few images.
        """
        bad = [image for batch in batches for image in batch.bad]
        signal_number, some_bad, too_few, nonfinite = distributed.all_reduce_max(
            self.signals.number or 0, bool(bad), min(map(len, batches)) < self.fewest, self.finite.nonfinite()
        )
        if nonfinite:
            self.finite.stop()
        self._leave_on(signal_number)
        if some_bad:
            self.bad_images.note(bad, self.save)
        return not too_few

    # ---------------------------------------------------------------------------------------------------- evaluation

    def _evaluate(self, may_leave: bool = False) -> tuple[dict[str, Any], Scores | None]:
        """{network: {mAP, mAP_negative}} on all processes, and the scores on rank 0.

        If `may_leave`, a signal stops the evaluation at once.
        """
        self.finite.check_losses()
        self.finite.check_weights(self.counts.place())
        for network in self.networks.values():
            distributed.broadcast_tensors(network.buffers())  # running statistics: rank 0's are the model's
        # As validate.py runs them, fused; a compiled network runs as it is.
        forms = [network if self.options.compile else fuse(network) for network in self.networks.values()]
        after_batch = self._leave_evaluation if may_leave else None
        part = score(forms, self.val_loader, self.device, self.amp_dtype, "validation", after_batch)
        if any(distributed.all_reduce_max(len(part.bad))):
            self.bad_images.note(part.bad, self.save)
        if not any(distributed.all_reduce_max(len(part.indices))):
            raise InputError(f"none of the {len(self.val):,} validation images can be read {self._where()}")
        self.finite.check_scores(part, self.val.images, self.counts.place())
        results, scores = None, gather_scores(part)  # [networks, N, C]
        if scores is not None:
            write_prior(self.run.val_prior, self.val.classes, torch.from_numpy(scores.probabilities[0].mean(0)))
            results = self.best.measured(scores)
        return distributed.broadcast_object(results), scores

    def _evaluate_between(self, rate: float) -> None:
        """Evaluate within an epoch; the log has a fraction as its epoch then."""
        results, scores = self._evaluate()
        self._to_training()
        entry = self._log_entry(round(self.counts.step / self.steps_per_epoch, 4), results, rate)
        self.say(report.evaluation(self.counts.step, entry["loss"], results))
        self.best.keep(self.counts.epoch + 1, self.counts.step, results, scores)
        if distributed.is_main():
            self.run.append_log(entry)
            self.board.write_step(self.counts.step, entry)

    def _finish_epoch(self, results: dict[str, Any], scores: Scores | None, rate: float) -> None:
        """Log the epoch, keep the best weights, and save."""
        counts = self.counts
        prior = self.sums.prior.over_processes().value()  # [C]
        entry = self._log_entry(counts.epoch + 1, results, rate)
        self.say(report.epoch(counts.epoch + 1, self.last_epoch, entry["loss"], results, rate))
        self.best.keep(counts.epoch + 1, counts.step, results, scores)
        self.say(report.highest_prior(self.val.classes, prior))
        if scores is not None:
            write_prior(self.run.train_prior, self.val.classes, prior)
            self.run.append_log(entry)
            shown = scores_to_show(scores.probabilities[-1], scores.indices)
            self.board.write(entry["epoch"], entry, prior.numpy(), shown)
        counts.evaluated = counts.step
        if self._epoch_is_over():
            counts.epoch += 1
            self.sums.reset()
        self.save()

    def _log_entry(self, epoch: float, results: dict[str, Any], rate: float) -> dict[str, Any]:
        """A line of the log; the entries of the moving average are None where there is none."""
        of = {"ema": dict.fromkeys(results["model"])} | results
        return {
            "epoch": epoch,
            "step": self.counts.step,
            "loss": self.sums.mean_loss(),
            "lr": self.optimizer.param_groups[0]["lr"],
            "images_per_second": round(rate, 2),
            "bad_images": len(self.bad_images.reasons),
            "skipped_steps": self.finite.skipped,
            **{f"{metric}_{name}": value for name in ("model", "ema") for metric, value in of[name].items()},
        }

    # ----------------------------------------------------------------------------------------------- save and resume

    def save(self) -> Path:
        """Write `last.ckpt`, all that a resumed run needs to go on as if it had not stopped; all processes call it."""
        self.finite.check_losses()  # first, as it names the images
        self.finite.check_weights(self.counts.place())
        state = self.state.state_dict()
        if state is not None:
            checkpoint.write(self.run.last, {**state, "log_lines": self.run.log_lines(), **self._facts()})
        return self.run.last

    def resume(self) -> None:
        """Go on from `last.ckpt`, with any number of processes that makes the same global batch.

        Raises:
            InputError: there is none, or it is of another network, data set, schedule or other settings.
        """
        state = checkpoint.read(self.run.last)
        self.state.resume(state, self._facts(), self.steps_per_epoch)
        self.told = True
        if distributed.is_main():
            self.run.rewind_log(state.extra["log_lines"])

    def _facts(self) -> dict[str, Any]:
        """What `last.ckpt` says of the run, which has to be the same where it is resumed."""
        return {**self.description, "global_batch": self.global_batch, "prior": self.prior()}

    # ------------------------------------------------------------------------------------------------------- details

    def prior(self) -> Tensor | None:
        """[C] the class prior of the loss, if it has one."""
        prior = getattr(self.criterion, "prior", None)
        return None if prior is None else prior.cpu()

    def _inputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        images = self.size.resized(batch.images, self.counts.step)  # --progressive_size
        x = to_input(images, self.device, next(self.model.parameters()).dtype)
        x = x if batch.draws is None else augment_batch(x, batch.draws)  # --augment fast
        return x, batch.targets.to(self.device, non_blocking=True)

    def _loss(self, logits: Tensor, targets: Tensor, batch: Batch) -> Tensor:
        rows = (batch.indices.to(self.device, non_blocking=True),) if getattr(self.criterion, "by_image", False) else ()
        return self.criterion(logits.float() if logits.dtype != torch.float64 else logits, targets, *rows)

    def _gradients_reduced(self, last: bool) -> AbstractContextManager:
        """Gradients add up on each process over the batches of a step; only the last batch reduces them over all."""
        return nullcontext() if last or self.processes == 1 else self.network.no_sync()

    def reached_max_steps(self) -> bool:
        """Whether `max_steps` ends training here."""
        return self.options.max_steps is not None and self.counts.step >= self.options.max_steps

    def _epoch_is_over(self) -> bool:
        return self.counts.step >= (self.counts.epoch + 1) * self.steps_per_epoch

    def _say_progress(self, rate: float) -> None:
        step = self.counts.step - self.counts.epoch * self.steps_per_epoch
        loss = self.sums.own_mean_loss()
        left = self._left(self._seconds_left(rate))
        self.say(report.step(self.counts.epoch + 1, step, self.steps_per_epoch, loss, rate, left))

    def _say_if_long(self, rate: float) -> None:
        self.told, left = True, self._seconds_left(rate)
        if self.device.type == "cpu" and left > LONG:
            self.say(report.slow(self._left(left), self.val_loader.dataset.transform.height_width))

    def _left(self, seconds: float) -> str:
        is_part = self.body.is_frozen or self.later_blocks.are_out or self.size.now != self.size.full
        return report.left(seconds, is_bound=is_part)

    def _seconds_left(self, rate: float) -> float:
        """Of the steps that are left, at this rate in images per second."""
        steps = self.last_epoch * self.steps_per_epoch
        left = (steps if self.options.max_steps is None else min(steps, self.options.max_steps)) - self.counts.step
        return left * self.global_batch / max(rate, 1e-9)

    def _leave_on(self, signal_number: int, is_saved: bool = False) -> None:
        """Save and stop, if a process received a signal."""
        if signal_number:
            raise Interrupted(signal_number, self.run.last if is_saved else self.save())

    def _leave_evaluation(self) -> None:
        """Stop an evaluation on a signal: it may take longer than a preempted machine has, and a resumed run repeats it."""
        self._leave_on(self.signals.number or 0, is_saved=self.processes > 1)  # by `fit`

    def _where(self) -> str:
        return f"in {self.counts.place()}: {self.run.last_state()}"


def _every(period, step):
    return bool(period) and step % period == 0
