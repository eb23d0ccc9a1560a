"""The training loop."""

import inspect
import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from tqdm import tqdm

from csl import checkpoint
from csl.data.batch_augment import augment_batch
from csl.data.dataset import Batch
from csl.data.prefetch import on_device
from csl.errors import InputError
from csl.labels import Annotations
from csl.machine import distributed
from csl.machine.faults import as_one_line
from csl.machine.signals import DeferredSignals, Interrupted
from csl.metrics import mean_average_precision
from csl.models import fuse
from csl.models.compiling import compile_network
from csl.predict.scoring import autocast_dtype, gather_scores, score, show_bar, to_input
from csl.prior import ClassPrior, write_prior
from csl.runs.folder import RunFolder
from csl.training.board import Board, scores_to_show
from csl.training.finite import FiniteWatch
from csl.training.optim import ModelEma, create_optimizer, create_schedule
from csl.training.state import contiguous_state, restore, state_of

QUIET_SECONDS = 30.0
"""Progress is said after that time at the latest, however far `print_freq` steps are."""


@dataclass
class TrainerOptions:
    """How to train. The flags of the same names explain each (`csl.cli.train`)."""

    epochs: int = 30
    stop_epoch: int | None = None
    max_steps: int | None = None
    lr: float = 2e-4
    weight_decay: float = 1e-4
    optimizer: str = "adam"
    schedule: str = "onecycle"
    ema_decay: float = 0.9997
    grad_accum: int = 1
    amp: str = "auto"
    compile: bool = False
    on_bad_image: str = "stop"
    skip_nonfinite: int = 0
    save_every: int | None = None
    eval_every: int | None = None
    print_freq: int = 64
    describe: dict = field(default_factory=dict)  # what every checkpoint of the run says of it


class Trainer:
    """Trains `model` on `train_loader`, evaluates it and its moving average on `val_loader` after every epoch or oftener.

    The processes of a job (`csl.machine.distributed`) train one model together: each has its part of every step's
    samples and of the validation images, all have the same weights and results, and rank 0 alone prints and writes. The
    loss is a sum over the samples of a step, wherever they are: no mean is taken, and the learning rate is used as given.

    Args:
        model: images [B, 3, H, W] in [0, 1] to logits [B, C].
        criterion: (logits [B, C], targets [B, C] in {1, 0, -1}) to a scalar.
        train_loader: of `csl.data.loader.create_loader`, with training transform; each step takes `grad_accum` batches.
        val_loader: likewise, with the evaluation transform and every sample once over all processes.
        val: the annotations behind `val_loader`.
        run: the folder that everything is written into.
        device: where to train.
        options: how.
        say: prints one line.
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
        options: TrainerOptions,
        say: Callable[[str], None] = tqdm.write,
    ):
        self.model = model.to(device, memory_format=torch.channels_last)
        self.criterion = criterion.to(device)
        self.train_loader, self.val_loader, self.val = train_loader, val_loader, val
        self.run, self.device, self.options, self.say = run, device, options, distributed.by_main(say)

        self.last_epoch = min(options.stop_epoch or options.epochs, options.epochs)
        self.steps_per_epoch = train_loader.batch_sampler.num_batches
        self.global_batch = train_loader.batch_sampler.global_batch  # samples of a step, over all processes
        self.amp_dtype = autocast_dtype(options.amp, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.amp_dtype == torch.float16)
        self.optimizer = create_optimizer(self.model, options.optimizer, options.lr, options.weight_decay)
        total_steps = options.epochs * self.steps_per_epoch
        self.schedule = create_schedule(self.optimizer, options.lr, total_steps, options.schedule)
        self.ema = ModelEma(self.model, options.ema_decay) if options.ema_decay else None
        if options.compile:
            for network in self._networks().values():
                compile_network(network, device)
        self.dtype = next(self.model.parameters()).dtype
        self.processes = distributed.world_size()
        self.network = _averaging_gradients(self.model, device) if self.processes > 1 else self.model

        self.epoch = 0  # the one under way
        self.step = 0  # optimiser steps so far, over all epochs
        self.prior = ClassPrior(len(val.classes), device)
        self.loss_sum = torch.zeros((), device=device)
        self.loss_samples = 0
        self.best: dict = {}
        self.bad_images: dict[str, None] = {}
        self.signals = DeferredSignals(self.say)
        self.finite = FiniteWatch(
            self.model,
            self.optimizer,
            self.scaler,
            options.skip_nonfinite,
            train_loader.dataset.annotations.images,
            run,
            self.say,
        )
        self.evaluated = -1  # the step of the last line in the log that ends an epoch, or training
        self._tensorboard = self._tensorboard_steps = None
        self._shown: tuple | None = None  # validation images for TensorBoard, with their scores

    # ------------------------------------------------------------------------------------------------------ the loop

    def fit(self) -> dict:
        """Train to the last epoch (or step); returns the best epoch's results.

        Raises:
            Interrupted: on SIGINT or SIGTERM, once the step under way is done and its state saved.
            InputError: a non-finite loss, or an unreadable image under `on_bad_image` "stop".
            MachineError: no memory, a dead loader worker, a full disk; the last checkpoint is whole.
            Stopped: another process of the job raised one of these.
        """
        with self.signals.noted(), self._in_one_line():
            while self.epoch < self.last_epoch and not (self._enough() and self.evaluated == self.step):
                self._train_epoch()
                complete = self.step % self.steps_per_epoch == 0
                if complete and self.processes > 1:
                    self.save()  # several cannot agree on it in the middle of an evaluation
                results = self._evaluate(may_leave=complete)
                self._finish_epoch(results)
        for writer in (self._tensorboard, self._tensorboard_steps):
            if writer is not None:
                writer.close()
        return self.best

    def _train_epoch(self):
        self.model.train()
        done = self.step - self.epoch * self.steps_per_epoch  # not 0 where an epoch is resumed in its middle
        self.train_loader.batch_sampler.set_epoch(self.epoch, done)
        started, samples = time.perf_counter(), 0
        said = started
        bar = tqdm(
            total=self.steps_per_epoch, initial=done, desc=f"epoch {self.epoch + 1}", unit="step", leave=False,
            disable=not show_bar(),
        )  # fmt: skip
        for batches in self._steps():
            self._report_bad([image for batch in batches for image in batch.bad])
            if self._all_have_images(batches):
                self._train_step(batches)
            self.step += 1
            samples += sum(map(len, batches)) * self.processes
            rate = samples / (time.perf_counter() - started)
            bar.update()
            bar.set_postfix_str(f"{rate:.1f} img/s")
            if not show_bar() and (
                self.step % self.options.print_freq == 0 or time.perf_counter() - said > QUIET_SECONDS
            ):
                self._say_progress(rate)
                said = time.perf_counter()
            if self.options.eval_every and self.step % self.options.eval_every == 0 and not self._at_end():
                paused = time.perf_counter()
                self._evaluate_between(rate)
                started += time.perf_counter() - paused
            if self.options.save_every and self.step % self.options.save_every == 0:
                self.save()
            (signal_number,) = distributed.highest(self.signals.number or 0)
            if signal_number:
                bar.close()
                self.save()
                raise Interrupted(signal_number, self.run.last)
        bar.close()
        self.finite.check_rest()
        self.images_per_second = samples / (time.perf_counter() - started)

    def _steps(self) -> Iterator[list[Batch]]:
        """The batches of this process for each step of the rest of the epoch: one, or `grad_accum` of them."""
        batches = on_device(self.train_loader, self.device)
        while not self._enough() and (step := list(islice(batches, self.options.grad_accum))):
            yield step

    def _train_step(self, batches: list[Batch]) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        before = self.finite.before_step()
        outputs, losses = [], []
        for batch in batches:
            x = to_input(batch.images, self.device, self.dtype)  # [B, 3, H, W]
            if batch.draws is not None:  # --augment fast
                x = augment_batch(x, batch.draws)
            targets = batch.targets.to(self.device, non_blocking=True)  # [B, C]
            last = batch is batches[-1]
            with self._gradients_kept_here() if not last else nullcontext():
                with torch.autocast(
                    self.device.type, self.amp_dtype or torch.bfloat16, enabled=self.amp_dtype is not None
                ):
                    logits = self.network(x)  # [B, C]
                loss = self.criterion(logits.float() if logits.dtype != torch.float64 else logits, targets)
                # The gradient is that of the sum over all processes, of which their reduction takes the mean.
                self.scaler.scale(loss * self.processes).backward()
            outputs.append(logits.detach())
            losses.append(loss.detach())
        if self.finite.leaves_out((self.epoch + 1, self.step + 1), losses, batches, before):
            return

        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.get_scale() >= scale:  # else float16 overflowed and the optimizer did not step
            self.schedule.step()
        if self.ema is not None:
            self.ema.update(self.model)

        for batch, logits, loss in zip(batches, outputs, losses, strict=True):
            self.prior.update(logits)
            self.loss_sum += loss
            self.loss_samples += len(batch)

    def _gradients_kept_here(self):
        """Gradients of a batch that is not the last of its step add up on this process before they are reduced."""
        return self.network.no_sync() if self.processes > 1 else nullcontext()

    def _all_have_images(self, batches):
        """Whether the step has an image in every batch of every process. Where it has not, all leave it out."""
        (without,) = distributed.highest(not all(map(len, batches)))
        return not without

    # ------------------------------------------------------------------------------------------- the end of an epoch

    def _evaluate(self, may_leave: bool = False) -> dict:
        """mAP of each network. With `may_leave` a signal does not wait for the end: a resumed run evaluates again."""
        networks = self._networks()
        for network in networks.values():
            # Running statistics are each process's own, unless synchronised; those of rank 0 are the model's.
            distributed.broadcast_from_main(network.buffers())
        after_batch = self._leave_on_signal if may_leave else None
        # In inference form, as `validate.py` has them; what is compiled is compiled as it is.
        forms = list(networks.values()) if self.options.compile else [fuse(network) for network in networks.values()]
        part = score(forms, self.val_loader, self.device, self.amp_dtype, "validation", after_batch)
        self._report_bad(part.bad)
        scores = gather_scores(part)
        return distributed.object_from_main(self._results(networks, scores) if scores is not None else None)

    def _results(self, networks, scores) -> dict:
        targets = self.val.labels[scores.indices]  # [N, C]
        results = {}
        for name, probabilities in zip(networks, scores.probabilities, strict=True):
            results[name] = {
                "mAP": mean_average_precision(probabilities, targets),
                "mAP_negative": mean_average_precision(probabilities, targets, unannotated="negative"),
            }
        write_prior(self.run.val_prior, self.val.classes, torch.from_numpy(scores.probabilities[0].mean(0)))
        self._shown = scores_to_show(scores.probabilities[-1], scores.indices)
        return results

    def _evaluate_between(self, rate):
        """Evaluate in the middle of an epoch; in the log that epoch is a fraction."""
        results = self._evaluate()
        self.model.train()
        self._keep_best(results)
        entry = self._entry(round(self.step / self.steps_per_epoch, 4), rate, results)
        self.say(f"step {self.step}: loss {entry['loss']:.3f}, {_in_words(results)}")
        if not distributed.is_main():
            return
        self.run.append_log(entry)
        if self._tensorboard_steps is None:
            from torch.utils.tensorboard import SummaryWriter

            self._tensorboard_steps = SummaryWriter(str(self.run.tensorboard / "steps"), purge_step=self.step)
        for name, value in entry.items():
            if isinstance(value, float) and math.isfinite(value):
                self._tensorboard_steps.add_scalar(name, value, self.step)
        self._tensorboard_steps.flush()

    def _entry(self, epoch, rate, results):
        """A line of the log. What there is no moving average of is None."""
        nothing = dict.fromkeys(results["model"])
        return {
            "epoch": epoch,
            "step": self.step,
            "loss": self._mean_loss(),
            "lr": self.optimizer.param_groups[0]["lr"],
            "images_per_second": round(rate, 2),
            "bad_images": len(self.bad_images),
            "skipped_steps": self.finite.skipped,
            **{f"{k}_{name}": v for name in ("model", "ema") for k, v in results.get(name, nothing).items()},
        }

    def _keep_best(self, results):
        """Write `best.ckpt` where one of the evaluated networks is better than all before."""
        better = max(results, key=lambda name: (_rank(results[name]["mAP"]), name == "ema"))
        if not self.best or _rank(results[better]["mAP"]) > _rank(self.best["mAP"]):
            self._check_weights()
            self.best = {"epoch": self.epoch + 1, "step": self.step, "weights": better, **results[better]}
            if distributed.is_main():
                weights = contiguous_state(self._networks()[better])
                checkpoint.write(self.run.best, {"model": weights, **self.description(), "best": self.best})

    def _finish_epoch(self, results):
        prior = self.prior.over_processes().value()
        entry = self._entry(self.epoch + 1, self.images_per_second, results)
        self.say(
            f"epoch {self.epoch + 1}/{self.last_epoch}: loss {entry['loss']:.3f}, {_in_words(results)}, "
            f"{self.images_per_second:.1f} img/s"
        )
        top = torch.topk(prior.nan_to_num(-1), min(10, len(prior))).indices.tolist()
        self.say("  highest prior: " + ", ".join(f"{self.val.classes[c]} {prior[c]:.2f}" for c in top))
        complete = self.step >= (self.epoch + 1) * self.steps_per_epoch
        self._keep_best(results)
        if distributed.is_main():
            write_prior(self.run.train_prior, self.val.classes, prior)
            self.run.append_log(entry)
            self._write_tensorboard(entry, prior)
        self.evaluated = self.step
        if complete:
            self.epoch += 1
            self.prior = ClassPrior(len(self.val.classes), self.device)
            self.loss_sum.zero_()
            self.loss_samples = 0
        self.save()

    def _mean_loss(self):
        """The loss per sample of the epoch so far, over all processes."""
        total = torch.tensor([self.loss_sum.item(), self.loss_samples], dtype=torch.float64)
        loss, samples = distributed.all_reduce_sum(total).tolist()
        return loss / max(samples, 1)

    # ----------------------------------------------------------------------------------------------- save and resume

    def save(self) -> None:
        """Write `last.ckpt`: all that a resumed run needs to go on as if it had not stopped. All processes call it."""
        self.finite.check_rest()  # first, as it names the images
        self._check_weights()
        state = state_of(self)
        if state is not None:
            checkpoint.write(self.run.last, state)

    def resume(self) -> None:
        """Go on from `last.ckpt`, with any number of processes that makes the same global batch.

        Raises:
            InputError: there is none, or it is of another network, data set, schedule or other settings.
        """
        restore(self, checkpoint.read(self.run.last))

    def description(self) -> dict:
        """What every checkpoint of the run says of it: classes, their keys and groups, network and settings."""
        return {
            "num_classes": len(self.val.classes),
            "classes": list(self.val.classes),
            "idx_to_class": dict(enumerate(self.val.keys)),
            "groups": {k: [g.start, g.stop] for k, g in (self.val.groups or {}).items()} or None,
            **self.options.describe,
        }

    # ----------------------------------------------------------------------------------------------------- what else

    def _networks(self):
        """What is evaluated, by name: the network and its moving average, where there is one."""
        return {"model": self.model} | ({"ema": self.ema.module} if self.ema is not None else {})

    def _enough(self):
        return self.options.max_steps is not None and self.step >= self.options.max_steps

    def _at_end(self):
        """Whether the epoch is over, or training is: its evaluation comes next."""
        return self.step % self.steps_per_epoch == 0 or self._enough()

    def _check_weights(self):
        self.finite.check_weights((self.epoch + 1, self.step))

    def _leave_on_signal(self):
        """Save and leave in the middle of an evaluation, which may take longer than a preempted machine has."""
        if self.signals.number is not None:
            if self.processes == 1:  # else `fit` has
                self.save()
            raise Interrupted(self.signals.number, self.run.last)

    @contextmanager
    def _in_one_line(self):
        """Errors of the machine as MachineError, with where training was and what goes on from there."""
        try:
            yield
        except InputError:
            raise
        except (RuntimeError, MemoryError, OSError) as error:
            line = as_one_line(error)
            if line is None:
                raise
            where = f"in epoch {self.epoch + 1} after step {self.step}: {self.run.last_state()}"
            raise type(line)(f"{line}; {where}") from error

    def _report_bad(self, bad):
        """Note the bad images of all processes, on all of them."""
        (somewhere,) = distributed.highest(len(bad))
        if not somewhere:
            return
        for image in (image for part in distributed.gather_objects(list(bad)) for image in part):
            if image.reason in self.bad_images:
                continue
            self.bad_images[image.reason] = None
            self.say(f"bad image {len(self.bad_images)}, left out: {image.reason}")
            if self.options.on_bad_image == "stop":
                self.save()
                raise InputError(
                    f"{image.reason} (became unreadable during training; state saved in {self.run.last}; "
                    "--on_bad_image skip --resume goes on without it)"
                )

    def _say_progress(self, rate):
        steps = self.last_epoch * self.steps_per_epoch
        left = (steps if self.options.max_steps is None else min(steps, self.options.max_steps)) - self.step
        seconds = left * self.global_batch / max(rate, 1e-9)
        self.say(
            f"epoch {self.epoch + 1}, step {self.step - self.epoch * self.steps_per_epoch}/{self.steps_per_epoch}: "
            f"loss {(self.loss_sum / max(self.loss_samples, 1)).item():.3f}, {rate:.1f} img/s, "
            f"{time.strftime('%H:%M:%S', time.gmtime(seconds))} left"
        )

    def _write_tensorboard(self, entry, prior):
        if self._tensorboard is None:
            train = self.train_loader.dataset.annotations
            self._tensorboard = Board(self.run.tensorboard, train, self.val, purge_step=entry["epoch"])
        self._tensorboard.write(entry["epoch"], entry, prior.numpy(), self._shown)


def _averaging_gradients(model, device):
    """The model for training: its gradients are averaged over the processes of the job while they are computed."""
    # Those of 1x1 filters have two names for the same order in memory.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    known = inspect.signature(DistributedDataParallel).parameters
    sync_buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # the old name
    return DistributedDataParallel(
        model,
        device_ids=[device] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        **{sync_buffers: False},  # before an evaluation is enough
    )


def _in_words(results):
    """mAP of each network, both ways."""

    def both(metric):
        average = f" (EMA {results['ema'][metric]:.2f})" if "ema" in results else ""
        return f"{results['model'][metric]:.2f}{average}"

    return f"mAP {both('mAP')}, un-annotated as negative {both('mAP_negative')}"


def _rank(value):
    return -1.0 if math.isnan(value) else value
