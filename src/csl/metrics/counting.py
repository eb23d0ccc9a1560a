"""How many entries of a class score at least a threshold, for all its thresholds at once, without sorting the scores.

Float32 scores are told apart by their bits, as integers of the same order. A class's integers from its lowest threshold to
its highest score are cut into 2^16 buckets of equal width, and sorting the 16-bit numbers of the buckets is a radix
sort of two passes: it tells how many entries lie in higher buckets than a threshold does. The few entries in the
threshold's own bucket are picked out and sorted as they are. The counts are exact however the scores are spread; where most
of them crowd into a few buckets it takes as long as sorting.
"""

import numpy as np

_BUCKETS = 2**16
_LOWEST, _HIGHEST = np.iinfo(np.int32).min, np.iinfo(np.int32).max


def count_in_buckets(
    scores: np.ndarray, ignored: np.ndarray | None, thresholds: np.ndarray, firsts: np.ndarray
) -> np.ndarray:
    """Entries that are at least as high as each threshold: int64 [K].

    Args:
        scores: float32 [B, N] without NaN (where not ignored), overwritten.
        ignored: bool [B, N], entries that do not count, or None.
        thresholds: float32 [K], class after class, ascending in each; every one is the score of an entry that counts.
        firsts: where the thresholds of each class begin and those of the last one end: int [B + 1].
    """
    if len(thresholds) == 0:
        return np.zeros(0, np.int64)
    keys, wanted = _in_order(scores), _in_order(thresholds.copy())
    if ignored is not None:
        np.copyto(keys, _LOWEST, where=ignored)
    numbers = np.diff(firsts)
    some = np.flatnonzero(numbers)
    highest = keys.max(axis=1)
    lowest = highest.copy()
    lowest[some] = wanted[firsts[some]]
    shift, base = _buckets(lowest.astype(np.int64), highest.astype(np.int64))  # [B]

    of_class = np.repeat(np.arange(len(keys)), numbers)
    codes = ((wanted.view(np.uint32) - base.view(np.uint32)[of_class]) >> shift[of_class]).astype(np.uint16)  # [K]
    bucket_ends = base[of_class] + ((codes.astype(np.int64) + 1) << shift[of_class])
    bucket_ends = np.minimum(bucket_ends, _HIGHEST).astype(np.int32)

    counts = np.full(len(wanted), scores.shape[1])
    has_threshold = np.zeros(_BUCKETS, bool)
    work = np.empty(scores.shape[1], np.int32)
    distance = work.view(np.uint32)  # modulo 2^32, as a class may span more than an int32 holds
    for c in some:  # class by class, so that all that is done to its entries finds them in the cache
        part = slice(firsts[c], firsts[c + 1])
        np.maximum(keys[c], base[c], out=work)  # what is under all thresholds is in bucket 0
        distance -= base.view(np.uint32)[c]
        distance >>= shift[c]
        row = distance.astype(np.uint16)
        has_threshold[codes[part]] = True
        near = keys[c].compress(has_threshold.take(row))
        has_threshold[codes[part]] = False
        near.sort()
        row.sort(kind="stable")  # which is the radix sort
        in_bucket = near.searchsorted(bucket_ends[part]) - near.searchsorted(wanted[part])
        counts[part] += in_bucket - row.searchsorted(codes[part], side="right")
    return counts


def _in_order(scores):
    """The bits of float32 scores as int32 in the same order, in their place."""
    scores += 0.0  # -0 becomes 0
    keys = scores.view(np.int32)
    if keys.size and keys.min() < 0:
        keys ^= (keys >> 31) & _HIGHEST
    return keys


def _buckets(lowest, highest):
    """Width 2^shift of each class's buckets (uint32 [B]) and where bucket 0 begins (int32 [B]): the lowest is in bucket 1."""
    shift = np.zeros(len(lowest), np.int64)
    while (too_many := (highest - lowest) >> shift > _BUCKETS - 2).any():
        shift[too_many] += 1
    return shift.astype(np.uint32), (lowest - (1 << shift)).astype(np.int32)
