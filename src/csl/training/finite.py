"""Stop training when a loss, gradient or weight is not finite, before it is saved over good weights."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from csl.data.dataset import Batch
from csl.errors import InputError, Stopped
from csl.machine import distributed
from csl.machine.host_copy import HostCopy
from csl.predict.scoring import Scores
from csl.runs.folder import RunFolder


class FiniteWatch:
    """Checks the loss of every step, and the weights before they are saved.

    A loss is noted where it is computed. On a CPU it is checked before the optimizer steps; on a GPU when the next step
    begins, so that what is queued after the loss is not waited for. With `skip` every step is checked before, gradients too,
    which waits for a GPU.

    Args:
        model, optimizer, scaler: of the training that is watched.
        skip: the number of steps that may be skipped before training stops.
        images: paths of the training images, which the batches hold indices of.
        run: the folder with the last good state.
        say: prints one line.

    Attributes:
        skipped: steps skipped because their loss or gradients were not finite.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        skip: int,
        images: Sequence[str],
        run: RunFolder,
        say: Callable[[str], None],
    ):
        self.model, self.optimizer, self.scaler, self.skip = model, optimizer, scaler, skip
        self.images, self.run, self.say = images, run, say
        self.skipped = 0
        self._noted: list[tuple[str, HostCopy, Batch]] = []

    def state_dict(self) -> dict[str, int]:
        """The number of skipped steps."""
        return {"skipped": self.skipped}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict()`; older files do not hold it."""
        self.skipped = state.get("skipped", 0)

    # ------------------------------------------------------------------------------------------------ without `skip`

    def note(self, place: str, loss: Tensor, batch: Batch) -> None:
        """Note the loss of a batch for `nonfinite`.

        Args:
            place: "epoch 1 at step 2", as in messages.
            loss: a scalar on the device.
            batch: what it is the loss of.
        """
        if not self.skip:
            self._noted.append((place, HostCopy(loss), batch))

    def nonfinite(self) -> bool:
        """Whether a loss that this process noted is not finite. Waits for these losses, not for work queued after them."""
        self._noted = [one for one in self._noted if not math.isfinite(one[1].values().item())]
        return bool(self._noted)

    def stop(self) -> None:
        """Stop all processes, of which at least one has noted a loss that is not finite.

        Raises:
            InputError: this process has; the message names the images.
            Stopped: another process has.
        """
        if not self._noted:
            raise Stopped
        place, loss, batch = self._noted[0]
        raise InputError(
            f"loss is {loss.values().item()} in {place} (images {self._names([batch])}): training stopped, "
            f"{self.run.last_state()}; a lower --lr or --amp off may help, and --skip_nonfinite N leaves out N steps"
        )

    def check_losses(self) -> None:
        """Check the losses noted so far, before anything is evaluated or saved; all processes call it. Raises as `stop`."""
        if any(distributed.all_reduce_max(self.nonfinite())):
            self.stop()

    def check_weights(self, place: str) -> None:
        """Raise InputError if the weights or the optimizer's moments are not finite: the last good checkpoint stays."""
        state = [t for s in self.optimizer.state.values() for t in s.values() if isinstance(t, Tensor)]
        tensors = [t for t in [*self.model.state_dict().values(), *state] if t.is_floating_point()]
        if not torch.stack([t.isfinite().all().to(tensors[0].device) for t in tensors]).all():
            raise InputError(
                f"the weights are no longer finite in {place}: training stopped without saving them, "
                f"{self.run.last_state()}; a lower --lr or --amp off may help"
            )

    def check_scores(self, part: Scores, images: Sequence[str], place: str) -> None:
        """Check this process's scores of an evaluation: finite weights may give none. All processes call it.

        Args:
            part: the scores.
            images: paths of the validation images.
            place: the steps done, in words.

        Raises:
            InputError: a score is NaN; the message names the image.
            Stopped: a score of another process is.
        """
        sums = part.probabilities.sum((0, 2))  # [N]; a sum is NaN if a score is
        wrong = np.flatnonzero(np.isnan(sums))
        (some,) = distributed.all_reduce_max(len(wrong) > 0)
        if not some:
            return
        if not len(wrong):
            raise Stopped
        raise InputError(
            f"the scores of {len(wrong):,} validation images are no numbers in {place} (the first is "
            f"{images[part.indices[wrong[0]]]}): training stopped, {self.run.last_state()}; a lower --lr or --amp off may help"
        )

    # --------------------------------------------------------------------------------------------------- with `skip`

    def before_step(self) -> list[Tensor]:
        """Copies of the model's buffers, which `should_skip` restores; none without `skip`."""
        return [buffer.clone() for buffer in self.model.buffers()] if self.skip else []

    def should_skip(self, place: str, losses: Sequence[Tensor], batches: Sequence[Batch], before: list[Tensor]) -> bool:
        """Whether to skip a step whose gradients are computed; the model's buffers are restored then.

        Args:
            place: "epoch 1 at step 2", as in messages.
            losses: of the step's batches.
            batches: of the step.
            before: what `before_step` returned.

        Raises:
            InputError: more than `skip` steps had to be skipped, or without `skip` as `stop`.
            Stopped: as `stop`.
        """
        if not self.skip:
            if losses[0].device.type == "cpu":  # which need not be waited for: stop before the step
                self.check_losses()
            return False
        own = finite = all(math.isfinite(loss.item()) for loss in losses)
        if finite and not self.scaler.is_enabled():  # an enabled scaler checks the gradients itself
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            finite = bool(torch.stack([g.isfinite().all() for g in gradients]).all())
        (wrong,) = distributed.all_reduce_max(not finite)
        if not wrong:
            return False
        self.skipped += 1
        # All processes share the gradients, but one process alone may have the loss.
        named = distributed.gather_objects((own, self._names(batches)))
        images = next((names for fine, names in named if not fine), named[0][1])
        what = f"loss or gradients are not finite in {place} (images {images})"
        if self.skipped > self.skip:
            raise InputError(
                f"{what}: {self.skipped - 1} steps were left out before (--skip_nonfinite {self.skip}); "
                f"training stopped, {self.run.last_state()}"
            )
        self.say(f"{what}: step left out, {self.skipped} of --skip_nonfinite {self.skip}")
        self.optimizer.zero_grad(set_to_none=True)
        for buffer, value in zip(self.model.buffers(), before, strict=True):
            buffer.copy_(value)  # the running statistics have seen these images
        return True

    def _names(self, batches):
        """The first images of some batches, in words."""
        names = [self.images[i] for batch in batches for i in batch.indices.tolist()]
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
