"""TResNet weights in timm's form and back.

timm builds the same networks from BatchNorm and LeakyReLU; ours have InPlace-ABN, whose scale is |w| + eps:

    timm   body.layer1.0.conv1.conv.weight     body.layer1.0.conv1.bn.*     scale w, any sign
    ours   body.layer1.0.conv1.0.weight        body.layer1.0.conv1.1.*      scale |w| + 1e-5
    ours   body.layer2.0.conv1.0.0.weight      body.layer2.0.conv1.0.1.*    where blur pooling follows

timm's tresnet_v2_l has the leaky slopes of the other TResNets, 1e-2 and 1e-3, where the original's v2 has 1e-6: it is
`tresnet_v2_l` here too, beside the original's `tresnet_l_v2`.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from csl.errors import InputError

EPS = 1e-5
"""What InPlace-ABN adds to |w|."""

# A convolution with its normalisation in timm's keys: where it is, which of the two, what of it.
_TIMM_KEY = re.compile(
    r"(?P<layer>.+)\.(?P<part>conv|bn)\.(?P<name>weight|bias|running_mean|running_var|num_batches_tracked)"
)
# The same in ours. Only `conv1.0.0`, blurred down, has one more level.
_OUR_KEY = re.compile(
    r"(?P<layer>.+\.(?:conv\d|downsample\.\d))\.(?:0\.)?(?P<part>[01])\."
    r"(?P<name>weight|bias|running_mean|running_var|num_batches_tracked)"
)
_FIRST_BLOCK = re.compile(r"(?P<block>body\.layer[2-4]\.0)\.(?P<conv>conv\d)")


def is_timm(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict is a TResNet's by timm's names."""
    return "body.conv1.conv.weight" in state and "body.layer4.0.conv3.bn.weight" in state


def is_v2(state: Mapping[str, Tensor]) -> bool:
    """Whether a TResNet's state dict, by timm's names, is v2's: bottlenecks from the first stage on."""
    return "body.layer1.0.conv3.conv.weight" in state


def from_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """timm's TResNet state dict by our names, for the same function of the image.

    A BatchNorm scale w becomes |w| - 1e-5. Where w is negative, the convolution's filter and the running mean change
    sign, which turns xhat into -xhat; shift and activation stay. A scale nearer to 0 than 1e-5 becomes 1e-5, the least
    that an ABN has: the channel is off by at most 1e-5 xhat, and can still be trained.

    Args:
        state: keys as `timm.create_model("tresnet_m").state_dict()`; tensors are not changed.
    """
    state = dict(state)
    for key, scale in list(state.items()):
        if key.endswith(".bn.weight"):
            layer = key.removesuffix(".bn.weight")
            sign = (scale < 0).to(scale.dtype) * -2 + 1  # [C], 1 where the scale is 0
            filters = state[f"{layer}.conv.weight"]  # [C, in, k, k]
            state[f"{layer}.conv.weight"] = filters * sign.view(-1, 1, 1, 1).to(filters.dtype)
            state[f"{layer}.bn.running_mean"] = state[f"{layer}.bn.running_mean"] * sign
            state[key] = (scale.abs() - EPS).clamp(min=0)
    return {_our_key(key, state): value for key, value in state.items()}


def to_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our TResNet state dict by timm's names: `timm.create_model(...).load_state_dict(to_timm(state))`.

    An ABN scale becomes |w| + 1e-5. The two linear layers of a bottleneck head have nothing between them and become the
    one that is their product. `tresnet_l_v2` fits timm's tresnet_v2_l, whose leaky slopes are others.

    Raises:
        InputError: no TResNet, or an ML-Decoder head, which timm does not have.
    """
    if "body.conv1.0.weight" not in state:
        raise InputError("no TResNet: expected a state dict with body.conv1.0.weight")
    if any(key.startswith("head.decoder.") for key in state):
        raise InputError("an ML-Decoder head: timm's TResNet has none, expected a linear or bottleneck head")
    converted = {}
    for key, value in _with_linear_head(state).items():
        match = _OUR_KEY.fullmatch(key)
        if match is None:
            converted[key] = value
        elif match["part"] == "0":
            converted[f"{match['layer']}.conv.{match['name']}"] = value
        else:
            converted[f"{match['layer']}.bn.{match['name']}"] = (
                value.abs() + EPS if match["name"] == "weight" else value
            )
    return converted


def timm_name(model_name: str) -> str:
    """What timm calls the network of that name in `CONFIGS`."""
    return "tresnet_v2_l" if model_name == "tresnet_l_v2" else model_name


def _our_key(key, state):
    match = _TIMM_KEY.fullmatch(key)
    if match is None:
        return key
    layer = match["layer"]
    first = _FIRST_BLOCK.fullmatch(layer)
    if first is not None:
        # The convolution that is blurred down: the second of a bottleneck, the first of a basic block.
        blurred = "conv2" if f"{first['block']}.conv3.conv.weight" in state else "conv1"
        layer += ".0" if first["conv"] == blurred else ""
    return f"{layer}.{'0' if match['part'] == 'conv' else '1'}.{match['name']}"


def _with_linear_head(state):
    """The state with a bottleneck head multiplied out: W2 (W1 x + b1) + b2."""
    prefix = "head.fc.embedding_generator.0"
    if f"{prefix}.weight" not in state:
        return dict(state)
    first, second = state[f"{prefix}.weight"].double(), state["head.fc.FC.weight"].double()  # [512, F], [C, 512]
    bias = second @ state[f"{prefix}.bias"].double() + state["head.fc.FC.bias"].double()
    dtype = state["head.fc.FC.weight"].dtype
    body = {key: value for key, value in state.items() if not key.startswith("head.")}
    return body | {"head.fc.weight": (second @ first).to(dtype), "head.fc.bias": bias.to(dtype)}
