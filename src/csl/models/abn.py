"""The InPlace-ABN layer: parameters and running statistics around `csl.ops.inplace_abn`."""

import torch
import torch.distributed as dist
from torch import Tensor, nn

from csl.ops import current_backend, inplace_abn, pointwise_abn


def abn_layers(model: nn.Module) -> "list[InPlaceABN]":
    """The InPlaceABN layers of a model, in its order."""
    return [module for module in model.modules() if isinstance(module, InPlaceABN)]


def synchronise_abn(model: nn.Module, synchronised: bool = True) -> nn.Module:
    """Have every InPlaceABN of a model take its batch statistics over all processes of the default group, or no more.

    In training alone, and only once `torch.distributed` is set up. Returns the same model.
    """
    for layer in abn_layers(model):
        layer.synchronised = synchronised
    return model


def keep_inputs(model: nn.Module, keep: bool = True) -> nn.Module:
    """Have every InPlaceABN of a model save what backward would make again, or no more: time for memory.

    By PyTorch's operators on a CPU, without synchronised statistics; elsewhere it changes nothing. Returns the same model.
    """
    for layer in abn_layers(model):
        layer.keep = keep
    return model


def describe_abn(model: nn.Module, device: torch.device | str) -> str | None:
    """One line that says what the InPlaceABN layers of a model run on and why, and what they keep if it is more than they must.

    None where it has none.

    Raises:
        InputError: a backend that was asked for and does not run on that device.
    """
    if not (layers := abn_layers(model)):
        return None
    kept = "; inputs are kept for backward (--memory save recovers them)" if any(layer.keep for layer in layers) else ""
    return "InPlace-ABN: {} ({})".format(*current_backend(device)) + kept


class InPlaceABN(nn.Module):
    """Batch normalisation and activation that keep only their output (arXiv 1712.02616).

    Its state has the names and shapes of `nn.BatchNorm2d`'s. Files written by old releases of the inplace-abn package
    lack `num_batches_tracked`, which nothing here depends on: it is then left at 0.

    Args:
        num_features: channels C of the input [B, C, H, W].
        activation: "leaky_relu" or "identity".
        slope: of the leaky ReLU.
        eps: added to the variance and to |weight|.
        momentum: weight of a batch's statistics in the running ones.
        overwrite: the output may take the memory of the input: for a convolution's output that nothing else reads.
    """

    def __init__(
        self,
        num_features: int,
        activation: str = "leaky_relu",
        slope: float = 0.01,
        eps: float = 1e-5,
        momentum: float = 0.1,
        overwrite: bool = False,
    ):
        super().__init__()
        self.num_features, self.activation, self.slope = num_features, activation, slope
        self.eps, self.momentum, self.overwrite = eps, momentum, overwrite
        self.synchronised = False  # see `synchronise_abn`
        self.keep = False  # see `keep_inputs`
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.tensor(0, dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same shape."""
        return inplace_abn(
            x,
            self.weight,
            self.bias,
            self.running_mean,
            self.running_var,
            self.training,
            self.momentum,
            self.eps,
            self.activation,
            self.slope,
            self._group(),
            self.overwrite,
            self.num_batches_tracked,
            self.keep,
        )

    def after_pointwise(
        self,
        x: Tensor,
        conv_weight: Tensor,
        shortcut: Tensor | None = None,
        factors: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """In training, what this layer of identity activation gives after a 1x1 convolution: see `csl.ops.pointwise_abn`.

        x [B, I, H, W], the convolution's weight [C, I, 1, 1], a shortcut [B, C, H, W] for addition and ReLU, and two factors
        of x, to [B, C, H, W].
        """
        return pointwise_abn(
            x,
            conv_weight,
            self.weight,
            self.bias,
            self.running_mean,
            self.running_var,
            self.momentum,
            self.eps,
            shortcut,
            self._group(),
            factors,
            self.num_batches_tracked,
            self.keep,
        )

    def _group(self):
        return dist.group.WORLD if self.synchronised and self.training and dist.is_initialized() else None

    def _load_from_state_dict(self, state_dict, prefix, metadata, strict, missing, unexpected, errors):
        state_dict.setdefault(prefix + "num_batches_tracked", torch.tensor(0, dtype=torch.long))
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, unexpected, errors)

    def extra_repr(self) -> str:
        """The layer's settings, for `print(model)`."""
        slope = f", slope={self.slope:g}" if self.activation == "leaky_relu" else ""
        return f"{self.num_features}, {self.activation}{slope}"
