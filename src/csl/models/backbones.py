"""Any image model of timm as a multi-label network or feature extractor that takes pixels in [0, 1]."""

import sys
import warnings
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call

from csl.errors import InputError, in_words
from csl.machine.image_size import height_width
from csl.models.heads import create_head, in_float32, with_hidden_layer
from csl.models.recurrent import without_steps

Size = int | tuple[int, int]
"""A side, or (height, width), in pixels."""


def create_timm(
    name: str,
    num_classes: int,
    dropout: float = 0.0,
    head: str = "linear",
    num_groups: int | None = None,
    image_size: Size | None = None,
) -> nn.Module:
    """A timm model whose forward takes RGB in [0, 1] and applies the mean and std it was made for.

    The statistics are buffers outside the state dict. With the linear head, which is timm's own, and with a hidden layer in
    its place, its keys are timm's; with another they are timm's under `body.` beside those of the head. A network whose layers
    depend on the size of the images (`own_size`) is made for `image_size`, or for its own.

    Raises:
        InputError: a name that timm does not know, a size that the network cannot be made for, or dropout before a head that
            has its own or none.
    """
    if head in ("linear", "hidden"):
        made = _with_classifier(_create(name, image_size, num_classes=num_classes, drop_rate=dropout))
        return _normalised(with_hidden_layer(made, name) if head == "hidden" else made, name)
    if dropout:
        raise InputError(f"--dropout {dropout}: expected 0 with --head {head}")
    made = _with_statistics(_create(name, image_size, num_classes=0), name)
    return TimmWithHead(made, num_classes, head, num_groups, image_size)


def own_size(name: str) -> tuple[int, int] | None:
    """(H, W) of the images that a timm network was made for, where its layers depend on that; None for any other network."""
    import timm

    config = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    return tuple(config.input_size[1:]) if config is not None and config.fixed_input_size else None


def check_timm_size(name: str, image_size: Size) -> None:
    """Raise InputError where timm's network of that name cannot take images of that size: tried without any values."""
    height, width = height_width(image_size)
    with torch.device("meta"), _taking(name, image_size), without_steps(_create(name, image_size).eval()) as model:
        model(torch.empty(1, 3, height, width))


def resampled(model: nn.Module, state: dict[str, Tensor], made_for: Size | None = None) -> dict[str, Tensor]:
    """The state dict with all that depends on the image size resampled to that of a timm model, as timm does it.

    Position embeddings and the like change their shape with the size. Without another shape, or a way of timm's for that
    network, the state is returned as it is; so is one that was `made_for` images that are no squares, which timm takes all
    for.
    """
    if made_for is not None and len(set(height_width(made_for))) > 1:
        return state
    body, prefix = (model.body, "body.") if isinstance(model, TimmWithHead) else (model, "")
    fit = getattr(sys.modules[type(body).__module__], "checkpoint_filter_fn", None)
    inner = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    expected = body.state_dict()
    if fit is None or all(expected[key].shape == inner[key].shape for key in expected.keys() & inner.keys()):
        return state
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's, of how timm indexes
            fitted = fit(dict(inner), body)
    except (LookupError, AttributeError, TypeError, ValueError, RuntimeError, AssertionError):
        return state  # of another network: loading it names what does not fit
    return {key: value for key, value in state.items() if not key.startswith(prefix)} | {
        f"{prefix}{key}": value for key, value in fitted.items()
    }


def create_timm_features(
    name: str, out_indices: tuple[int, ...] | None = None, image_size: Size | None = None
) -> nn.Module:
    """timm's `features_only` model of that name: RGB in [0, 1] to a list of feature maps.

    Raises:
        InputError: a name that timm does not know, or a network or maps that it has no features of.
    """
    options = {} if out_indices is None else {"out_indices": tuple(out_indices)}
    try:
        return _normalised(_create(name, image_size, features_only=True, **options), name)
    except (RuntimeError, AssertionError, IndexError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name}: timm has no such features of it ({' '.join(str(error).split())})") from error


def name_with_tag(name: str, path: str | Path | None) -> str:
    """`NAME.TAG` where weights of that timm network have the tag in their name, else `name`.

    The tag tells the pixel statistics: those of convnext_base.clip_laion2b_augreg_ft_in1k are not convnext_base's.

    Args:
        name: of the network, with or without a tag.
        path: `timm/NAME.TAG`, or a file NAME.TAG.safetensors of it; None without weights.
    """
    import timm

    network, tagged = name.partition(".")[0], Path(path or "").name.removesuffix(".safetensors")
    if not tagged.startswith(f"{network}.") or not timm.is_model(network):
        return name
    try:
        known = timm.get_pretrained_cfg(tagged) is not None
    except RuntimeError:  # another file, whose name has a dot
        known = False
    return tagged if known else name


class TimmWithHead(nn.Module):
    """A timm network's `forward_features`, the final norm that timm keeps with its classifier, and one of our heads.

    What of the body has no part in this (a classifier's own layers) is frozen: it gets no gradient, which
    DistributedDataParallel would wait for.

    Args:
        body: made with num_classes 0; its features are maps, channels first or last, or tokens. Tokens that stand for
            no place in the image (class, register) are left out.
        num_classes: C.
        head: "bottleneck", "ml_decoder" or "boostlu".
        num_groups: queries of the ML-Decoder head.
        image_size: that the body was made for, None for its own.

    Attributes:
        applies_norm: whether the final norm is applied. Networks of older versions were trained without it.
    """

    applies_norm = True

    def __init__(
        self,
        body: nn.Module,
        num_classes: int,
        head: str,
        num_groups: int | None = None,
        image_size: Size | None = None,
    ):
        super().__init__()
        self.body = body
        self.num_classes, self.num_features = num_classes, body.num_features
        self.head = create_head(head, body.num_features, num_classes, num_groups)
        _freeze_unused(body, height_width(image_size or body.pretrained_cfg["input_size"][1:]))

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [0, 1] to logits [B, C]."""
        return self.head(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [0, 1] to what the head takes: maps [B, F, h, w], or tokens as [B, F, N, 1]."""
        return self._as_map(_features(self.body, normalised(self.body, x), self.applies_norm))

    @property
    def has_norm(self) -> bool:
        """Whether the body has a final norm that `forward_features` leaves out."""
        return bool(_final_norms(self.body))

    def _as_map(self, features):
        """Features of any form to [B, F, H, W]; tokens [B, N, F] become [B, F, N, 1]."""
        if features.dim() == 3:
            return features[:, getattr(self.body, "num_prefix_tokens", 0) :].transpose(1, 2).unsqueeze(-1)
        if features.shape[1] != self.num_features and features.shape[-1] == self.num_features:
            return features.permute(0, 3, 1, 2)
        return features


def _features(body, x, normalised=True):
    """Features as timm's classifier sees them, unpooled: ConvNeXt and its kin normalise after `forward_features`."""
    features = body.forward_features(x)
    if not isinstance(features, Tensor):
        raise InputError(f"{body.pretrained_cfg['architecture']}: has several features, expected --head linear")
    for norm in _final_norms(body) if normalised else ():
        features = norm(features)
    return features


def _final_norms(body):
    """The layer norms of a network's very features that timm keeps with its classifier."""
    norms = (getattr(body, "fc_norm", None), getattr(getattr(body, "head", None), "norm", None))
    return [norm for norm in norms if getattr(norm, "normalized_shape", None) == (body.num_features,)]


@torch.enable_grad()
def _freeze_unused(body, size):
    """Freeze the parameters that the features do not depend on, found by a gradient on the meta device."""
    if torch.is_inference_mode_enabled():  # in which nothing is made that could be trained
        return
    trained = {name: p for name, p in body.named_parameters() if p.requires_grad}
    tensors = {name: torch.empty_like(t, device="meta") for name, t in (*trained.items(), *body.named_buffers())}
    leaves = [tensors[name].requires_grad_() for name in trained]
    x = torch.empty(2, 3, *size, device="meta")
    with without_steps(body):
        features = functional_call(_Features(body), {f"body.{name}": t for name, t in tensors.items()}, (x,))
    if not isinstance(features, Tensor):
        raise InputError(f"{body.pretrained_cfg['architecture']}: has several features, expected --head linear")
    gradients = torch.autograd.grad(features.sum(), leaves, allow_unused=True)
    for parameter, gradient in zip(trained.values(), gradients, strict=True):
        parameter.requires_grad_(gradient is not None)


class _Features(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return _features(self.body, x)


def _create(name, image_size=None, **options):
    import timm  # takes seconds, and a TResNet does without

    if not timm.is_model(name):
        close = ", ".join(timm.list_models(f"*{name}*")[:5])
        raise InputError(
            f"--model_name {name}: unknown, expected a TResNet (tresnet_m, tresnet_l, tresnet_xl, tresnet_l_v2) "
            f"or a name that timm knows{f', such as {close}' if close else ''}"
        )
    try:
        own = own_size(name)
    except RuntimeError as error:  # a known network, an unknown tag
        raise InputError(f"--model_name {name}: unknown ({error})") from error
    if timm.get_pretrained_cfg(name) is None:
        raise InputError(f"--model_name {name}: an old name, expected what timm calls it now, {_name_of_today(name)}")
    if own is None or image_size is None:
        return timm.create_model(name, pretrained=False, **options)
    with _taking(name, image_size):
        return timm.create_model(name, pretrained=False, img_size=height_width(image_size), **options)


def _name_of_today(name):
    """What timm calls a network that it makes under an old name, too, with the tag of its weights."""
    import timm

    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm's, of the old name
        config = timm.create_model(name).pretrained_cfg
    return ".".join(filter(None, (config["architecture"], config.get("tag"))))


@contextmanager
def _taking(name, image_size):
    """Say what timm raises of a size: assertions, shapes that do not fit, kernels larger than a map."""
    try:
        yield
    except (AssertionError, RuntimeError, ValueError, TypeError, ZeroDivisionError) as error:
        if isinstance(error, InputError):
            raise
        import timm

        size = "x".join(map(str, height_width(image_size)))
        own = "x".join(map(str, timm.get_pretrained_cfg(name).input_size[1:]))
        raise InputError(
            f"--image_size {size}: {name} does not take it ({in_words(error)}), expected a size such as {own}"
        ) from error


def _with_classifier(model):
    """The model with its last layers in float32 where scores are compared; weights and their names stay."""
    for layer in _last_layers(model.get_classifier()):
        layer.__class__ = in_float32(type(layer))
    return model


def _last_layers(classifier):
    """The layers of which timm's classifier ends in one: it may be a layer, a module around one, or several of these."""
    if isinstance(classifier, tuple | list | nn.ModuleList):
        return [layer for one in classifier for layer in _last_layers(one)]
    layers = [one for one in classifier.modules() if isinstance(one, nn.Linear | nn.Conv2d)] if classifier else []
    return layers[-1:]


def _normalised(model, name):
    """The model with its pixel statistics, which its forward applies first."""
    model = _with_statistics(model, name)
    model.register_forward_pre_hook(_normalise)
    return model


def _with_statistics(model, name):
    import timm

    config = timm.get_pretrained_cfg(name)
    for statistic in ("mean", "std"):
        values = torch.tensor(getattr(config, statistic)).view(1, -1, 1, 1)
        model.register_buffer(f"pixel_{statistic}", values, persistent=False)
    return model


def normalised(model: nn.Module, x: Tensor) -> Tensor:
    """Images in [0, 1] less the mean of a timm network made here, over its standard deviation: what it does first itself."""
    return (x - model.pixel_mean) / model.pixel_std


def _normalise(model, inputs):
    return (normalised(model, *inputs),)
