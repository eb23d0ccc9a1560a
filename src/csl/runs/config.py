"""Every setting of a training run and its default."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from csl.labels.options import DataOptions
from csl.losses.options import LossOptions, settings_of


@dataclass(kw_only=True)
class TrainOptions:
    """How the training loop runs. The flags of the same names explain each setting (`csl.cli.train`).

    Epochs and learning rate that are None are chosen (`csl.training.auto`) before there is a loop.
    """

    epochs: int | None = 30
    stop_epoch: int | None = None
    max_steps: int | None = None
    progressive_size: int | tuple[int, int] | None = None
    frozen_epochs: int = 0
    shallow_epochs: int = 0
    grad_accum: int = 1
    lr: float | None = 2e-4
    schedule: str = "onecycle"
    weight_decay: float = 1e-4
    optimizer: str = "adam"
    ema_decay: float = 0.9997
    amp: str = "auto"
    compile: bool = False
    cuda_graph: bool = False
    on_bad_image: str = "stop"
    skip_nonfinite: int = 0
    save_every: int | None = None
    eval_every: int | None = None
    print_freq: int = 64
    select_by: str | None = None

    @property
    def selects_by(self) -> str:
        """What `csl.training.selection.choose` is asked for: "annotated", "estimated" or "auto"."""
        return self.select_by or "annotated"


@dataclass(kw_only=True)
class TrainConfig(TrainOptions, LossOptions, DataOptions):
    """The settings of one run of `train.py`. None means that the data, or the part with the default, decides."""

    num_classes: int | None = None
    val_split: float | None = None
    # simulated partial labels
    simulate_partial_type: str | None = None
    simulate_partial_param: float | None = None
    # network
    model_name: str = "tresnet_m"
    model_path: str | None = None
    weights_key: str | None = None
    head: str = "linear"
    dropout: float = 0.0
    image_size: int | tuple[int, int] = 448
    augment: str | None = "original"
    mix: str = "none"
    background: str = "none"
    probe: bool = False
    refit_head: bool = False
    # class prior
    prior_path: str | None = None
    prior_epochs: int | None = None
    prior_loss: str = "bce"
    prior_estimator: str | None = None
    labels_per_image: float | None = None
    # machine
    batch_size: int = 64
    abn: str = "auto"
    sync_abn: bool = False
    memory: str = "auto"
    workers: int | None = None
    cache: str | None = None
    device: str | None = None
    # run
    path_dest: str = "./outputs"
    resume: bool = False
    seed: int = 0
    deterministic: bool = False

    def prior_loss_settings(self, prior_loss: str | None = None) -> dict[str, Any]:
        """The fields of `LossOptions` for the run that estimates the class prior, from annotated labels alone.

        With `prior_loss` "bce" it is plain cross-entropy, whose minimum is the frequency itself. A focusing exponent, margin or
        weight, which "focal" keeps as the published code does, moves the minimum: with gamma_pos 0 the prediction p of a class
        of frequency f is where f / p = (1 - f) p ^ gamma_neg / (1 - p). None is that of this run.
        """
        of_unknown = ("gamma_unann", "alpha_unann", "likelihood_topk", "topk_scope", "prior_threshold")
        unused = dict.fromkeys(("loss_options", *of_unknown))
        unused |= {"prior_loss": TrainConfig.prior_loss, "prior_estimator": None, "select_by": None}
        plain = {"gamma_pos": 0.0, "gamma_neg": 0.0, "alpha_pos": 1.0, "alpha_neg": 1.0, "clip": 0.0}
        kept = {} if (prior_loss or self.prior_loss) == "focal" else plain
        return {**unused, "loss": "csl", "partial_loss_mode": "ignore", **kept}

    @property
    def selects_by(self) -> str:
        """As published, by annotated entries, but for the annotation model, for which they may be no fair sample."""
        return self.select_by or ("auto" if self.loss == "annotation" else "annotated")

    @property
    def prior_by_em(self) -> bool:
        """Whether `prior_path` "auto" estimates the prior on held-out images (`csl.prior.estimate_prior`).

        Else it is the mean prediction, as published, which CSL's thresholds are made for. The annotation model needs the
        frequency itself. A probe makes both, and has the mean for CSL's selection alone.
        """
        if self.prior_estimator == "probe":
            return self.partial_loss_mode != "selective"
        return (self.prior_estimator or ("em" if self.loss == "annotation" else "mean")) == "em"

    @property
    def changes_prior_loss(self) -> bool:
        """Whether the loss has an exponent, a weight or a margin for annotated labels, which `prior_loss` keeps or not."""
        takes, plain = settings_of(self.loss), self.prior_loss_settings("bce")
        own = {
            name: takes[name] if getattr(self, name) is None else getattr(self, name) for name in plain if name in takes
        }
        return any(
            own[name] != plain[name]
            for name in ("gamma_pos", "gamma_neg", "alpha_pos", "alpha_neg", "clip")
            if name in own
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `config.json` and checkpoints hold them."""
        return dataclasses.asdict(self)
