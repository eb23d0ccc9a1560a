"""Networks with the weights of a checkpoint: all of them, or the body and what of the head other classes have use for."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import nn

from csl.checkpoint.file import Checkpoint, counted, read, take_off
from csl.errors import InputError
from csl.labels.class_set import ClassSet
from csl.labels.matching import few, few_names, same_names
from csl.machine.image_size import height_width
from csl.models import (
    CONFIGS,
    TimmWithHead,
    TResNet,
    architecture,
    check_image_size,
    create_model,
    name_with_tag,
    own_size,
    resampled,
)
from csl.models.exclusive import make_exclusive
from csl.models.head_rows import kept_rows
from csl.models.state_dicts import fitting_prefix


def load_model(
    path: str | Path,
    model_name: str | None = None,
    num_classes: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    default_image_size: int | None = None,
    weights_key: str | None = None,
) -> tuple[nn.Module, Checkpoint]:
    """The network of a checkpoint with its weights, in eval mode on the CPU.

    Args:
        path: the file.
        model_name: required for a foreign file of a timm network; a TResNet is recognised by its tensors.
        num_classes: number of classes that the caller expects, None for any.
        image_size: side or (H, W) of the images to come, None for that of the training. The weights of a timm network that
            depend on it are resampled.
        default_image_size: if neither the caller nor the file nor the network has a size.
        weights_key: as in `read`.

    Raises:
        InputError: the file holds another network than `model_name`, another class count, or keys that do not fit; or the
            network does not take that size.
    """
    checkpoint = read(path, weights_key)
    name = checkpoint.model_name or (model_name and name_with_tag(architecture(model_name), path))
    if name is None:
        raise InputError(f"{path}: the tensors do not tell the network, give its --model_name")
    if model_name is not None and architecture(model_name).partition(".")[0] != name.partition(".")[0]:
        raise InputError(f"--model_name {model_name}: {path} holds {name}")
    found = checkpoint.num_classes or _output_width(checkpoint.state_dict)
    if num_classes is not None and found is not None and num_classes != found:
        raise InputError(f"--num_classes {num_classes}: {path} has {found} classes")
    if found is None and num_classes is None:
        raise InputError(f"{path}: has no classifier, give --num_classes or train from it")
    checkpoint.architecture = replace(checkpoint.architecture, name=name, num_classes=found or num_classes)
    size = image_size or checkpoint.made_for or own_size(name) or default_image_size
    if size is not None:
        check_image_size(name, size)
    checkpoint.image_size = size
    model = create_model(**vars(checkpoint.architecture), image_size=size)
    if isinstance(model, TimmWithHead):
        model.applies_norm = checkpoint.with_norm
    load_weights(model, checkpoint)
    make_exclusive(model, checkpoint.exclusive)
    return model.eval(), checkpoint


def load_weights(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Load every tensor.

    Raises:
        InputError: keys or shapes do not fit; names the missing, unexpected and misshapen ones.
    """
    expected = model.state_dict()
    found = resampled(model, _fit(checkpoint, expected), checkpoint.made_for)
    optional = {k for k in expected if k.endswith("num_batches_tracked")}
    missing = sorted(expected.keys() - found.keys() - optional)
    unexpected = sorted(found.keys() - expected.keys())
    shapes = sorted(k for k in expected.keys() & found.keys() if expected[k].shape != found[k].shape)
    if missing or unexpected or shapes:
        parts = ((missing, "missing"), (unexpected, "unexpected"), (shapes, "of another shape"))
        what = "; ".join(counted(k, what) for k, what in parts if k)
        if checkpoint.made_for not in (None, checkpoint.image_size):
            what += f"; trained with --image_size {'x'.join(map(str, height_width(checkpoint.made_for)))}"
        raise InputError(f"{checkpoint.path}: not this network: {what}")
    model.load_state_dict(found)


def load_backbone(model: nn.Module, checkpoint: Checkpoint, class_set: ClassSet | None = None) -> str:
    """Load everything except the head, for fine-tuning on other classes; returns a line that counts the tensors.

    Args:
        model: the network to start.
        checkpoint: the weights.
        class_set: the classes of `model`. What the file's head has for classes of the same names is kept; None to keep
            nothing of it, as of a file without names.

    Raises:
        InputError: more than half of the body's tensors are missing or have another shape.
    """
    expected = model.state_dict()
    wrapped = isinstance(model, TimmWithHead)
    found = _fit(checkpoint, {*expected, *(k.removeprefix("body.") for k in expected if wrapped)})
    if wrapped:
        found = {k if k in expected else f"body.{k}": v for k, v in found.items()}
    found = resampled(model, found, checkpoint.made_for)
    is_head = head_filter(model)
    head, kept = _kept_head(expected, checkpoint, found, is_head, class_set)
    fits = {k: v for k, v in found.items() if not is_head(k) and k in expected and v.shape == expected[k].shape}
    skipped = len(found) - len(fits) - len(head)
    body = [k for k in expected if not is_head(k) and not k.endswith("num_batches_tracked")]
    missing = sorted(k for k in body if k not in fits)
    if len(missing) > len(body) // 2:
        name = checkpoint.model_name or "another network"
        raise InputError(
            f"{checkpoint.path}: holds {name}, not this one: {counted(missing, 'missing or of another shape')}"
        )
    model.load_state_dict(fits | head, strict=False)
    return (
        f"{checkpoint.origin or checkpoint.path}: {len(fits) + len(head)} tensors loaded, {skipped} skipped"
        f"{'' if head else ' (the head among them)'}, "
        f"{len(missing)} missing{f': {few(missing, 4)}' if missing else ''}{_other_slopes(model, checkpoint)}{kept}"
    )


def _kept_head(expected, checkpoint, found, is_head, class_set):
    """The tensors of the head for the classes that the file has, too, and a note on them."""
    if class_set is None or checkpoint.class_set is None:
        return {}, ""
    now, then = class_set, checkpoint.class_set
    same = same_names(now.keys, then.keys) or same_names(now.classes, then.classes)
    if not same:
        return {}, "; head: starts anew, none of its classes is called as one of the file"
    counts = len(now.classes), len(then.classes)
    head, kept = kept_rows(expected, found, filter(is_head, expected), same, counts)
    lost = [now.classes[c] for c in same if c not in kept]
    if not kept:
        return {}, f"; head: starts anew, {len(lost)} of its classes are in the file, whose head is of another form"
    new = [name for c, name in enumerate(now.classes) if c not in same]
    parts = [f"{len(kept)} of {len(now.classes)} classes kept by name"]
    parts += [f"new: {few_names(new)}"] * bool(new)
    parts += [f"anew, as they share what they have with others: {few_names(lost)}"] * bool(lost)
    return head, f"; head: {'; '.join(parts)}"


def _other_slopes(model, checkpoint):
    """A note if the weights fit but the leaky slopes differ, as between the two origins of TResNet-L v2."""
    config = CONFIGS.get(checkpoint.model_name)
    if not isinstance(model, TResNet) or config is None or config.slope == model.config.slope:
        return ""
    return f"; made with leaky slope {config.slope:g}, here {model.config.slope:g}: {checkpoint.model_name} keeps it"


def head_filter(model: nn.Module) -> Callable[[str], bool]:
    """A function that tells whether a key of the model's state dict belongs to its classifier."""
    if hasattr(model, "get_classifier"):  # timm
        classifier = model.get_classifier()  # of a network with two heads, both
        parts = classifier if isinstance(classifier, tuple | list) else (classifier,)
        names = {n for n, m in model.named_modules() if any(m is part for part in parts)}
        return lambda key: any(key.startswith(f"{n}.") for n in names)
    return lambda key: key.startswith("head.")


def _output_width(state):
    """Rows of the last matrix: the class count of a foreign network with a linear head."""
    matrices = [v for k, v in state.items() if v.dim() == 2 and k.endswith("weight")]
    return len(matrices[-1]) if matrices else None


def _fit(checkpoint, expected):
    """The tensors of a checkpoint by the names that a network expects, which may stand behind a prefix there."""
    state = checkpoint.state_dict
    checkpoint.state_dict = take_off(state, fitting_prefix(state, expected), expected, checkpoint.notes)
    return checkpoint.state_dict
