"""Which TResNet and which head a state dict is of, from its tensors alone."""

from collections.abc import Mapping

from torch import Tensor

from csl.models.tresnet import CONFIGS


def recognise(state: Mapping[str, Tensor]) -> tuple[str | None, str, int | None, int | None]:
    """(model name, head, classes, ML-Decoder queries) of a TResNet state dict; name and classes None for another network.

    `tresnet_v2_l` has the tensors of `tresnet_l_v2`, which it is taken for.
    """
    stem = state.get("body.conv1.0.weight")
    name = None
    if stem is not None:
        bottlenecks_first = "body.layer1.0.conv3.0.weight" in state
        fits = (
            candidate
            for candidate, config in CONFIGS.items()
            if int(64 * config.width) == len(stem) and (config.basic_stages == 0) == bottlenecks_first
        )
        name = next(fits, None)
    if "head.decoder.duplicate_pooling_bias" in state:
        queries = state["head.decoder.query_embed.weight"]
        return name, "ml_decoder", len(state["head.decoder.duplicate_pooling_bias"]), len(queries)
    for key, head in (("head.fc.FC.bias", "bottleneck"), ("head.cam.bias", "boostlu"), ("head.fc.bias", "linear")):
        if key in state:
            return name, head, len(state[key]), None
    last = next(
        (key for key in state if key.endswith("last_layer.bias")), None
    )  # under the name of the layer it replaces
    return name, "linear" if last is None else "hidden", None if last is None else len(state[last]), None
