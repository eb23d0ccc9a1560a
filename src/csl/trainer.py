"""The training loop."""

import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from csl import checkpoint
from csl.errors import InputError
from csl.labels import Annotations
from csl.metrics import mean_average_precision
from csl.optim import ModelEma, create_optimizer, create_schedule
from csl.prior import ClassPrior, write_prior
from csl.run import RunFolder
from csl.scoring import autocast_dtype, score, show_bar, to_input


class Interrupted(Exception):
    """Training stopped on a signal, after its state was saved."""

    def __init__(self, signal_number: int, saved: Path):
        super().__init__(f"stopped by {signal.Signals(signal_number).name}, state saved in {saved}")
        self.signal_number, self.saved = signal_number, saved


@dataclass
class TrainerOptions:
    """How to train. The flags of the same names explain each (`csl.cli.train`)."""

    epochs: int = 30
    stop_epoch: int | None = None
    max_steps: int | None = None
    lr: float = 2e-4
    weight_decay: float = 1e-4
    optimizer: str = "adam"
    ema_decay: float = 0.9997
    amp: str = "auto"
    on_bad_image: str = "stop"
    save_every: int | None = None
    print_freq: int = 64
    describe: dict = field(default_factory=dict)  # what every checkpoint of the run says of it


class Trainer:
    """Trains `model` on `train_loader`, evaluates it and its moving average on `val_loader` after every epoch.

    Args:
        model: images [B, 3, H, W] in [0, 1] to logits [B, C].
        criterion: (logits [B, C], targets [B, C] in {1, 0, -1}) to a scalar.
        train_loader: of `csl.data.loader.create_loader`, with training transform.
        val_loader: likewise, with the evaluation transform and every sample once.
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
        self.run, self.device, self.options, self.say = run, device, options, say

        self.last_epoch = min(options.stop_epoch or options.epochs, options.epochs)
        self.steps_per_epoch = train_loader.batch_sampler.num_batches
        self.amp_dtype = autocast_dtype(options.amp, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.amp_dtype == torch.float16)
        self.optimizer = create_optimizer(self.model, options.optimizer, options.lr, options.weight_decay)
        self.schedule = create_schedule(self.optimizer, options.lr, options.epochs * self.steps_per_epoch)
        self.ema = ModelEma(self.model, options.ema_decay)

        self.epoch = 0  # the one under way
        self.step = 0  # optimiser steps so far, over all epochs
        self.prior = ClassPrior(len(val.classes), device)
        self.loss_sum = torch.zeros((), device=device)
        self.loss_samples = 0
        self.best: dict = {}
        self.bad_images: dict[str, None] = {}
        self._unchecked = None
        self._signal = None
        self._tensorboard = None

    # ------------------------------------------------------------------------------------------------------ the loop

    def fit(self) -> dict:
        """Train to the last epoch (or step); returns the best epoch's results.

        Raises:
            Interrupted: on SIGINT or SIGTERM, once the step under way is done and its state saved.
            InputError: a non-finite loss, or an unreadable image under `on_bad_image` "stop".
        """
        with self._signals():
            while self.epoch < self.last_epoch and not self._enough():
                self._train_epoch()
                results = self._evaluate()
                self._finish_epoch(results)
        if self._tensorboard is not None:
            self._tensorboard.close()
        return self.best

    def _train_epoch(self):
        self.model.train()
        done = self.step - self.epoch * self.steps_per_epoch  # not 0 where an epoch is resumed in its middle
        self.train_loader.batch_sampler.set_epoch(self.epoch, done)
        started, samples = time.perf_counter(), 0
        bar = tqdm(
            total=self.steps_per_epoch, initial=done, desc=f"epoch {self.epoch + 1}", unit="step", leave=False,
            disable=not show_bar(),
        )  # fmt: skip
        for batch in self.train_loader:
            self._report_bad(batch.bad)
            if len(batch):
                self._train_step(batch)
            self.step += 1
            samples += len(batch)
            rate = samples / (time.perf_counter() - started)
            bar.update()
            bar.set_postfix_str(f"{rate:.1f} img/s")
            if not show_bar() and self.step % self.options.print_freq == 0:
                self._say_progress(rate)
            if self.options.save_every and self.step % self.options.save_every == 0:
                self.save()
            if self._signal is not None:
                bar.close()
                self.save()
                raise Interrupted(self._signal, self.run.last)
            if self._enough():
                break
        bar.close()
        self._check_finite(None)
        self.images_per_second = samples / (time.perf_counter() - started)

    def _train_step(self, batch):
        x = to_input(batch.images, self.device)  # [B, 3, H, W]
        targets = batch.targets.to(self.device, non_blocking=True)  # [B, C]
        with torch.autocast(self.device.type, self.amp_dtype or torch.bfloat16, enabled=self.amp_dtype is not None):
            logits = self.model(x)  # [B, C]
        loss = self.criterion(logits.float(), targets)
        self._check_finite((self.step + 1, loss.detach(), batch))

        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.get_scale() >= scale:  # else float16 overflowed and the optimizer did not step
            self.schedule.step()
        self.ema.update(self.model)

        self.prior.update(logits)
        self.loss_sum += loss.detach()
        self.loss_samples += len(batch)

    # ------------------------------------------------------------------------------------------- the end of an epoch

    def _evaluate(self) -> dict:
        scores = score([self.model, self.ema.module], self.val_loader, self.device, self.amp_dtype, "validation")
        self._report_bad(scores.bad)
        targets = self.val.labels[scores.indices]  # [N, C]
        results = {}
        for name, probabilities in zip(("model", "ema"), scores.probabilities, strict=True):
            results[name] = {
                "mAP": mean_average_precision(probabilities, targets),
                "mAP_negative": mean_average_precision(probabilities, targets, unannotated="negative"),
            }
        write_prior(self.run.val_prior, self.val.classes, torch.from_numpy(scores.probabilities[0].mean(0)))
        return results

    def _finish_epoch(self, results):
        prior = self.prior.value()
        write_prior(self.run.train_prior, self.val.classes, prior)
        better = max(results, key=lambda name: (_rank(results[name]["mAP"]), name == "ema"))
        mean_loss = (self.loss_sum / max(self.loss_samples, 1)).item()
        entry = {
            "epoch": self.epoch + 1,
            "step": self.step,
            "loss": mean_loss,
            "lr": self.optimizer.param_groups[0]["lr"],
            "images_per_second": round(self.images_per_second, 2),
            "bad_images": len(self.bad_images),
            **{f"{k}_{name}": v for name, values in results.items() for k, v in values.items()},
        }
        self.say(
            f"epoch {self.epoch + 1}/{self.last_epoch}: loss {mean_loss:.3f}, "
            f"mAP {results['model']['mAP']:.2f} (EMA {results['ema']['mAP']:.2f}), un-annotated as negative "
            f"{results['model']['mAP_negative']:.2f} (EMA {results['ema']['mAP_negative']:.2f}), "
            f"{self.images_per_second:.1f} img/s"
        )
        top = torch.topk(prior.nan_to_num(-1), min(10, len(prior))).indices.tolist()
        self.say("  highest prior: " + ", ".join(f"{self.val.classes[c]} {prior[c]:.2f}" for c in top))
        self._write_tensorboard(entry)

        complete = self.step >= (self.epoch + 1) * self.steps_per_epoch
        if not self.best or _rank(results[better]["mAP"]) > _rank(self.best["mAP"]):
            self.best = {"epoch": self.epoch + 1, "weights": better, **results[better]}
            weights = self.ema.module if better == "ema" else self.model
            checkpoint.write(self.run.best, {"model": _contiguous(weights), **self._description(), "best": self.best})
        self.run.append_log(entry)
        if complete:
            self.epoch += 1
            self.prior = ClassPrior(len(self.val.classes), self.device)
            self.loss_sum.zero_()
            self.loss_samples = 0
        self.save()

    # ----------------------------------------------------------------------------------------------- save and resume

    def save(self) -> None:
        """Write `last.ckpt`: all that a resumed run needs to go on as if it had not stopped."""
        cuda = torch.cuda.get_rng_state_all() if self.device.type == "cuda" else []
        checkpoint.write(
            self.run.last,
            {
                "model": _contiguous(self.model),
                "ema": {**self.ema.state_dict(), "state": _contiguous(self.ema.module)},
                "optimizer": self.optimizer.state_dict(),
                "scheduler": self.schedule.state_dict(),
                "scaler": self.scaler.state_dict(),
                "rng": {"torch": torch.get_rng_state(), "cuda": cuda},
                "epoch": self.epoch,
                "step": self.step,
                "prior_sum": self.prior.state_dict(),
                "loss_sum": self.loss_sum.item(),
                "loss_samples": self.loss_samples,
                "best": self.best,
                "best_weights": self.best.get("weights", "model"),
                "bad_images": list(self.bad_images),
                **self._description(),
            },
        )

    def resume(self) -> None:
        """Go on from `last.ckpt`.

        Raises:
            InputError: there is none, or it is of another network, data set or schedule.
        """
        state = checkpoint.read(self.run.last)
        extra = state.extra
        if "optimizer" not in extra:
            raise InputError(f"{self.run.last}: weights alone, expected the state of a run of train.py")
        if state.classes != list(self.val.classes):
            raise InputError(
                f"{self.run.last}: {len(state.classes or [])} other classes than the data has, cannot resume"
            )
        total = extra["scheduler"]["total_steps"]
        if total != self.schedule.total_steps:
            raise InputError(
                f"{self.run.last}: a schedule of {total} steps, this command has {self.schedule.total_steps}; resume "
                "with the data, --epochs and --batch_size it was started with"
            )
        self.model.load_state_dict(extra.get("model", state.state_dict))
        self.ema.load_state_dict(extra["ema"])
        self.optimizer.load_state_dict(extra["optimizer"])
        self.schedule.load_state_dict(extra["scheduler"])
        self.scaler.load_state_dict(extra["scaler"])
        torch.set_rng_state(extra["rng"]["torch"])
        if self.device.type == "cuda" and extra["rng"]["cuda"]:
            torch.cuda.set_rng_state_all(extra["rng"]["cuda"])
        self.epoch, self.step = extra["epoch"], extra["step"]
        self.prior.load_state_dict(extra["prior_sum"])
        self.loss_sum.fill_(extra["loss_sum"])
        self.loss_samples, self.best = extra["loss_samples"], extra["best"]
        self.bad_images = dict.fromkeys(extra["bad_images"])
        self.run.rewind_log(self.step)

    def _description(self):
        return {
            "num_classes": len(self.val.classes),
            "classes": list(self.val.classes),
            "idx_to_class": dict(enumerate(self.val.keys)),
            "groups": {k: [g.start, g.stop] for k, g in (self.val.groups or {}).items()} or None,
            **self.options.describe,
        }

    # ----------------------------------------------------------------------------------------------------- what else

    def _enough(self):
        return self.options.max_steps is not None and self.step >= self.options.max_steps

    def _check_finite(self, present):
        """Stop at a loss that is not a number. A GPU is asked about the step before, which it is done with."""
        due = present
        if self.device.type == "cuda":
            due, self._unchecked = self._unchecked, present
        if due is not None and not math.isfinite(due[1].item()):
            step, loss, batch = due
            names = [self.train_loader.dataset.annotations.images[i] for i in batch.indices.tolist()]
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            raise InputError(
                f"loss is {loss.item()} in epoch {self.epoch + 1} at step {step} (images {shown}): training "
                f"stopped, the last good state is {self.run.last}; a lower --lr or --amp off may help"
            )

    def _report_bad(self, bad):
        for image in bad:
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
        left = self.last_epoch * self.steps_per_epoch - self.step
        seconds = left * (self.train_loader.batch_sampler.batch_size) / max(rate, 1e-9)
        self.say(
            f"epoch {self.epoch + 1}, step {self.step - self.epoch * self.steps_per_epoch}/{self.steps_per_epoch}: "
            f"loss {(self.loss_sum / max(self.loss_samples, 1)).item():.3f}, {rate:.1f} img/s, "
            f"{time.strftime('%H:%M:%S', time.gmtime(seconds))} left"
        )

    def _write_tensorboard(self, entry):
        from torch.utils.tensorboard import SummaryWriter  # a second to import, and not needed by a test of two steps

        if self._tensorboard is None:
            self._tensorboard = SummaryWriter(str(self.run.tensorboard), purge_step=entry["epoch"])
        for name, value in entry.items():
            if isinstance(value, float) and math.isfinite(value):
                self._tensorboard.add_scalar(name, value, entry["epoch"])
        self._tensorboard.flush()

    @contextmanager
    def _signals(self):
        """Let the step under way finish on the first SIGINT or SIGTERM; a second one has its usual effect."""

        def note(number, frame):
            self._signal = number
            signal.signal(number, previous[number])
            if os.getpid() == owner:
                self.say(f"{signal.Signals(number).name}: finishing this step, then saving")

        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may set handlers; whoever trains in another stops it in a way of its own
            return
        owner = os.getpid()
        previous = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            for number in previous:
                signal.signal(number, note)
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def _contiguous(model):
    """The state dict in the usual memory format, so that a file does not depend on how the network was trained."""
    return {k: v.contiguous() for k, v in model.state_dict().items()}


def _rank(value):
    return -1.0 if math.isnan(value) else value


def read_log(path: str | Path) -> list[dict]:
    """The entries of a `log.jsonl`."""
    return [json.loads(line) for line in Path(path).read_text().splitlines()]
