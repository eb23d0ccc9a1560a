"""Losses, gradients and weights that are no numbers: found in time, named, and never saved over good ones."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from csl.errors import InputError, Stopped
from csl.machine import distributed
from csl.runs.folder import RunFolder


class FiniteWatch:
    """Looks at what training makes, and stops it where that is not finite; all processes of a job call it together.

    Args:
        model, optimizer, scaler: of the training that is watched.
        skip: steps that may be left out before training stops; 0 for none, and no waiting for the GPU.
        images: paths of the training images, which batches have indices of.
        run: the folder that the last good state is in.
        say: prints one line.

    Attributes:
        skipped: steps left out because their loss or gradients were not finite.
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
        self._unchecked = None

    def before_step(self) -> list[Tensor]:
        """What `leaves_out` puts back: copies of the model's buffers, none where no step may be left out."""
        return [buffer.clone() for buffer in self.model.buffers()] if self.skip else []

    def leaves_out(
        self, place: tuple[int, int], losses: Sequence[Tensor], batches: Sequence, before: list[Tensor]
    ) -> bool:
        """Whether a step is not to be taken, once its gradients are there.

        Without `skip` the loss alone is looked at, on a GPU that of the step before, which it is done with.

        Args:
            place: epoch and step, both from 1.
            losses: of the step's batches.
            batches: the step's batches.
            before: what `before_step` gave.

        Raises:
            InputError: the loss is not finite, or with `skip` it is the loss or gradients of one step too many.
            Stopped: another process has such a loss, and names its images.
        """
        if self.skip:
            return self._skips(place, losses, batches, before)
        self._check((place, losses, batches))
        return False

    def check_rest(self) -> None:
        """Look at the loss of the last step, which a GPU was still busy with. Raises as `leaves_out`."""
        self._check(None)

    def check_weights(self, place: tuple[int, int]) -> None:
        """Nothing is saved that training has already ruined: the last good checkpoint stays.

        Args:
            place: epoch from 1, and the steps done.

        Raises:
            InputError: the weights, or what the optimizer remembers, are not finite.
        """
        state = [t for s in self.optimizer.state.values() for t in s.values() if isinstance(t, Tensor)]
        tensors = [t for t in [*self.model.state_dict().values(), *state] if t.is_floating_point()]
        finite = torch.stack([t.isfinite().all().to(tensors[0].device) for t in tensors]).all()
        if not finite:
            raise InputError(
                f"the weights are no longer finite in epoch {place[0]} after step {place[1]}: training stopped without "
                f"saving them, {self.run.last_state()}; a lower --lr or --amp off may help"
            )

    def _check(self, present):
        due = present
        if next(self.model.parameters()).is_cuda:
            due, self._unchecked = self._unchecked, present
        (epoch, step), losses, batches = due or ((0, 0), [], [])
        wrong = [(loss, batch) for loss, batch in zip(losses, batches, strict=True) if not math.isfinite(loss.item())]
        (any_wrong,) = distributed.highest(bool(wrong))
        if wrong:
            loss, batch = wrong[0]
            raise InputError(
                f"loss is {loss.item()} in epoch {epoch} at step {step} (images {self._named([batch])}): training "
                f"stopped, {self.run.last_state()}; a lower --lr or --amp off may help, and --skip_nonfinite N leaves out "
                "N steps"
            )
        if any_wrong:
            raise Stopped  # by the process that has the images, which it names

    def _skips(self, place, losses, batches, before):
        """Whether the step is left out as if its images were not there; counted on all processes."""
        own = finite = all(math.isfinite(loss.item()) for loss in losses)
        if finite and not self.scaler.is_enabled():  # it looks at the gradients itself
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            finite = bool(torch.stack([g.isfinite().all() for g in gradients]).all())
        (wrong,) = distributed.highest(not finite)
        if not wrong:
            return False
        self.skipped += 1
        # Gradients are everyone's, a loss is one process's.
        named = distributed.gather_objects((own, self._named(batches)))
        images = next((names for fine, names in named if not fine), named[0][1])
        what = f"loss or gradients are not finite in epoch {place[0]} at step {place[1]} (images {images})"
        if self.skipped > self.skip:
            raise InputError(
                f"{what}: {self.skipped - 1} steps were left out before (--skip_nonfinite {self.skip}); "
                f"training stopped, {self.run.last_state()}"
            )
        self.say(f"{what}: step left out, {self.skipped} of --skip_nonfinite {self.skip}")
        self.optimizer.zero_grad(set_to_none=True)
        for buffer, value in zip(self.model.buffers(), before, strict=True):
            buffer.copy_(value)  # running statistics have seen what made the loss so
        return True

    def _named(self, batches):
        """The first images of a step, in words."""
        names = [self.images[i] for batch in batches for i in batch.indices.tolist()]
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
