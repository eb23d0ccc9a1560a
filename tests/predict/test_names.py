"""name_scores against a plain loop."""

import time

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from csl.predict import name_scores

GROUPS = {"neck": slice(2, 5), "tie": slice(6, 7)}


def plain(p, classes, groups, threshold, top_k):
    chosen = [max(range(g.start, g.stop), key=lambda c: (p[c], -c)) for g in groups.values() if g.stop - g.start > 1]
    taken = {c for g in groups.values() if g.stop - g.start > 1 for c in range(g.start, g.stop)}
    rest = sorted((c for c in range(len(p)) if c not in taken and p[c] > threshold), key=lambda c: (-p[c], c))
    return [(classes[c], float(p[c])) for c in [*chosen, *rest[:top_k]]]


@given(
    arrays(np.float32, 9, elements=st.sampled_from(np.float32([0, 0.25, 0.5, 0.5000001, 0.75, 1]))),
    st.sampled_from([0.0, 0.25, 0.5, 0.99]),
    st.integers(1, 9),
)
def test_the_names_of_an_image(p, threshold, top_k):
    classes = [f"class {c}" for c in range(9)]
    found = name_scores(p, classes, GROUPS, threshold, top_k)
    assert [(one.name, one.score) for one in found] == plain(p, classes, GROUPS, threshold, top_k)
    assert [one.attribute for one in found] == ["neck"] + [None] * (len(found) - 1)


def test_nine_thousand_classes_take_no_time():
    rng = np.random.default_rng(0)
    p, classes = rng.random((200, 9605), np.float32) ** 40, [f"c{k}" for k in range(9605)]
    start = time.perf_counter()
    for row in p:
        name_scores(row, classes, None, 0.7, 30)
    assert (time.perf_counter() - start) / len(p) < 1e-3  # a loop over the classes takes 2 ms
