"""Images that become unreadable during training."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from csl.data.dataset import BadImage
from csl.errors import InputError
from csl.machine import distributed
from csl.training import report


@dataclass
class BadImages:
    """The images that became unreadable: with `stop` the first ends training, else each is named once and left out."""

    stop: bool
    say: Callable[[str], None]
    reasons: dict[str, None] = field(default_factory=dict)  # in order

    def note(self, bad: Sequence[BadImage], save: Callable[[], Any]) -> None:
        """Note the bad images of all processes on all of them.

        Raises:
            InputError: there is one, and it ends training, whose state is saved by `save`, which returns where.
        """
        for image in (image for part in distributed.gather_objects(list(bad)) for image in part):
            if image.reason in self.reasons:
                continue
            if self.stop:  # saved without the image: it stops a resumed run again
                raise InputError(
                    f"{image.reason} (became unreadable during training; state saved in {save()}; "
                    "--on_bad_image skip --resume goes on without it)"
                )
            self.reasons[image.reason] = None
            self.say(report.bad_image(len(self.reasons), image.reason))

    def state_dict(self) -> dict[str, list[str]]:
        """The reasons."""
        return {"bad_images": list(self.reasons)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict()`."""
        self.reasons = dict.fromkeys(state["bad_images"])
