"""The fast parts, each beside its plain PyTorch twin (`NAME` and `NAME_ref`)."""

from csl.ops.abn import inplace_abn, inplace_abn_ref
from csl.ops.abn_backend import BACKENDS as ABN_BACKENDS
from csl.ops.abn_backend import current_backend, get_abn_backend, resolve_backend, set_abn_backend
from csl.ops.blur_pool import blur, blur_ref
from csl.ops.depth import space_to_depth
from csl.ops.excitation import squeeze_excite, squeeze_excite_ref
from csl.ops.pointwise import pointwise_abn, pointwise_abn_ref
from csl.ops.selective import selective_loss
from csl.ops.selective_formula import SelectiveOptions, selective_loss_ref

__all__ = [
    "ABN_BACKENDS",
    "SelectiveOptions",
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
