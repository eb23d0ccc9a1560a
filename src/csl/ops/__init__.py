"""The fast parts, each beside its plain PyTorch twin (`NAME` and `NAME_ref`)."""

from csl.ops.abn_backend import BACKENDS as ABN_BACKENDS
from csl.ops.abn_backend import current_backend, get_abn_backend, resolve_backend, set_abn_backend
from csl.ops.blur import blur, blur_ref
from csl.ops.inplace_abn import inplace_abn, inplace_abn_ref
from csl.ops.pointwise_abn import pointwise_abn, pointwise_abn_ref
from csl.ops.selective_loss import selective_loss, selective_loss_ref
from csl.ops.space_to_depth import space_to_depth
from csl.ops.squeeze_excite import squeeze_excite, squeeze_excite_ref

__all__ = [
    "ABN_BACKENDS",
    "blur",
    "blur_ref",
    "current_backend",
    "get_abn_backend",
    "inplace_abn",
    "inplace_abn_ref",
    "pointwise_abn",
    "pointwise_abn_ref",
    "resolve_backend",
    "selective_loss",
    "selective_loss_ref",
    "set_abn_backend",
    "space_to_depth",
    "squeeze_excite",
    "squeeze_excite_ref",
]
