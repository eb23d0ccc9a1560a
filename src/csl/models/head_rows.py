"""What of a trained head is of use to another set of classes: the rows of the classes that both have."""

from collections.abc import Iterable, Mapping

from torch import Tensor

from csl.models.recognition import recognise

_POOLING, _BIAS = "head.decoder.duplicate_pooling", "head.decoder.duplicate_pooling_bias"
_QUERIES = "head.decoder.query_embed.weight"


def kept_rows(
    new: Mapping[str, Tensor],
    old: Mapping[str, Tensor],
    keys: Iterable[str],
    same: Mapping[int, int],
    counts: tuple[int, int],
) -> tuple[dict[str, Tensor], set[int]]:
    """The tensors of a new head with the rows that a trained one has for the same classes; rows of other classes stay.

    In a linear or bottleneck head, or one with a hidden layer, a class has a row of the last layer, and what is before it is
    kept as it is. In ML-Decoder it has a column of a query, which it may share with other classes: it is kept, with the query,
    where the classes that are kept of a new query come from one query of the old head.

    Args:
        new: the state dict of the network, with the values that its head starts from.
        old: the trained state dict, by the same names.
        keys: of `new`, those of the head.
        same: class of the new head -> class of the old one.
        counts: classes of the new and of the old head.

    Returns:
        The tensors to load and the new classes whose rows are kept; nothing where the heads are of different kinds.
    """
    keys = [key for key in keys if key in old]
    if not same or recognise(new)[1] != recognise(old)[1]:
        return {}, set()
    if _POOLING in new:
        return _decoder_rows(new, old, keys, same)
    kept, has_rows = {}, False
    for key in keys:
        before, after = old[key], new[key].clone()
        shapes = before.shape[:1], after.shape[:1]
        if (
            not any(part in key for part in ("embedding_generator", "hidden_layer"))
            and shapes == ((counts[1],), (counts[0],))
            and before[0].shape == after[0].shape
        ):
            after[list(same)] = before[list(same.values())].to(after.dtype)
            kept[key], has_rows = after, True
        elif before.shape == after.shape:
            kept[key] = before
    return (kept, set(same)) if has_rows else ({}, set())


def _decoder_rows(new, old, keys, same):
    kept = {key: old[key] for key in keys if key not in (_POOLING, _BIAS, _QUERIES)}
    if any(old[key].shape != new[key].shape for key in kept) or not _whole(old, new):
        return {}, set()
    pooling, bias, queries = (new[key].clone() for key in (_POOLING, _BIAS, _QUERIES))  # [Q, E, P], [C], [Q, E]
    size, old_size = pooling.shape[2], old[_POOLING].shape[2]  # classes of a query
    taken = set()
    for query in range(len(queries)):
        ours = [c for c in range(query * size, (query + 1) * size) if c in same]
        theirs = {same[c] // old_size for c in ours}
        if len(theirs) == 1:
            (before,) = theirs
            queries[query] = old[_QUERIES][before]
            for c in ours:
                pooling[query, :, c % size] = old[_POOLING][before, :, same[c] % old_size]
                bias[c] = old[_BIAS][same[c]]
            taken.update(ours)
    return (kept | {_POOLING: pooling, _BIAS: bias, _QUERIES: queries}, taken) if taken else ({}, taken)


def _whole(old, new):
    """Whether the old head's pooling is there, and of the shape that its queries and classes and the new head ask for."""
    sizes, width = getattr(old.get(_POOLING), "shape", ()), new[_POOLING].shape[1]
    return (
        len(sizes) == 3 and old[_QUERIES].shape == (sizes[0], width) and sizes[1] == width
        and sizes[0] * sizes[2] >= len(old[_BIAS])
    )  # fmt: skip
