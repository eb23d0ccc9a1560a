"""Every setting of a training run and its default."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from csl.labels.options import DataOptions


@dataclass(kw_only=True)
class TrainConfig(DataOptions):
    """The settings of one run; `None` means "decided from the data or by the part that owns the default".

    The flags of `train.py` carry the same names and explain each (`csl.cli.train`).
    """

    # data, beside DataOptions
    num_classes: int | None = None
    on_bad_image: str = "stop"
    # simulated partial labels
    simulate_partial_type: str | None = None
    simulate_partial_param: float | None = None
    # network
    model_name: str = "tresnet_m"
    model_path: str | None = None
    head: str = "linear"
    dropout: float = 0.0
    image_size: int | tuple[int, int] = 448
    augment: str = "original"
    # loss
    loss: str = "csl"
    partial_loss_mode: str | None = None
    clip: float | None = None
    gamma_pos: float | None = None
    gamma_neg: float | None = None
    gamma_unann: float | None = None
    alpha_pos: float | None = None
    alpha_neg: float | None = None
    alpha_unann: float | None = None
    likelihood_topk: int | None = None
    topk_scope: str | None = None
    prior_path: str | None = None
    prior_threshold: float | None = None
    prior_epochs: int | None = None
    # optimisation
    epochs: int = 30
    stop_epoch: int | None = None
    max_steps: int | None = None
    skip_nonfinite: int = 0
    save_every: int | None = None
    eval_every: int | None = None
    batch_size: int = 64
    grad_accum: int = 1
    lr: float = 2e-4
    weight_decay: float = 1e-4
    optimizer: str = "adam"
    schedule: str = "onecycle"
    ema_decay: float = 0.9997
    amp: str = "auto"
    abn: str = "auto"
    sync_abn: bool = False
    compile: bool = False
    # run
    path_dest: str = "./outputs"
    resume: bool = False
    seed: int = 0
    deterministic: bool = False
    workers: int | None = None
    cache: str | None = None
    device: str | None = None
    print_freq: int = 64

    LOSS_SETTINGS = (
        "clip", "gamma_pos", "gamma_neg", "gamma_unann", "alpha_pos", "alpha_neg", "alpha_unann",
        "likelihood_topk", "topk_scope", "prior_threshold",
    )  # fmt: skip

    def loss_options(self) -> dict[str, Any]:
        """The loss's settings that were given: what is not given stays the loss's own default."""
        return {k: getattr(self, k) for k in self.LOSS_SETTINGS if getattr(self, k) is not None}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `config.json` and checkpoints hold them."""
        return dataclasses.asdict(self)
