"""The schemes that leave out labels, against the original's draws."""

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from conftest import golden
from hypothesis import given
from hypothesis import strategies as st

from csl.errors import InputError
from csl.labels import NEGATIVE, POSITIVE, UNANNOTATED, LabelMatrix, simulate
from csl.labels.simulation import schemes

CASES, ARRAYS = golden("partial_simulation")
NAMES = {"fpc": ["fpc", "fix_per_class"], "rps": ["rps", "random_per_sample"]}


@pytest.fixture
def full():
    return np.random.default_rng(3).random((300, 12)) < np.linspace(0.01, 0.9, 12)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"])
@pytest.mark.parametrize("fill", [NEGATIVE, UNANNOTATED, POSITIVE])
def test_the_original_draw(case, fill):
    labels = LabelMatrix.from_dense(ARRAYS[f"{case['case']}_full"], fill)
    for name in NAMES[case["mode"]]:
        partial = simulate(labels, name, case["param"], np.random.RandomState(case["seed"]))
        assert partial.fill == UNANNOTATED
        np.testing.assert_array_equal(partial.to_dense(), ARRAYS[f"{case['case']}_partial"])


@pytest.mark.parametrize("case", [case for case in CASES if case["mode"] == "fpc"], ids=lambda case: case["case"])
def test_the_counts_of_the_original_with_a_generator(case):
    labels = LabelMatrix.from_dense(ARRAYS[f"{case['case']}_full"], NEGATIVE)
    counts = simulate(labels, "fpc", case["param"], np.random.default_rng(case["seed"])).counts()
    wanted = ARRAYS[f"{case['case']}_partial"]
    np.testing.assert_array_equal(counts.positives, (wanted == 1).sum(axis=0))
    np.testing.assert_array_equal(counts.negatives, (wanted == 0).sum(axis=0))


@given(
    arrays.arrays(np.int8, st.tuples(st.integers(0, 12), st.integers(1, 6)), elements=st.integers(-1, 1)),
    st.sampled_from([POSITIVE, NEGATIVE, UNANNOTATED]),
    st.sampled_from(sorted(schemes)),
    st.integers(0, 99),
)
def test_labels_are_only_ever_left_out(dense, fill, scheme, seed):
    param = 3 if schemes[scheme] is schemes["fpc"] else None
    partial = simulate(LabelMatrix.from_dense(dense, fill), scheme, param, np.random.default_rng(seed))
    left = partial.to_dense()
    assert partial.fill == UNANNOTATED
    assert left.shape == dense.shape
    np.testing.assert_array_equal(left[left != UNANNOTATED], dense[left != UNANNOTATED])
    again = simulate(LabelMatrix.from_dense(dense, UNANNOTATED), scheme, param, np.random.default_rng(seed))
    assert again == partial
    if scheme == "fpc":
        for value in (POSITIVE, NEGATIVE):
            wanted = np.minimum(3, (dense == value).sum(axis=0))
            np.testing.assert_array_equal((left == value).sum(axis=0), wanted)


def test_defaults(full):
    labels = LabelMatrix.from_dense(full, NEGATIVE)
    assert simulate(labels, "fpc") == labels  # fewer than 1,000 of each
    kept = (simulate(labels, "rps").to_dense() >= 0).mean()
    assert 0.45 < kept < 0.55
    assert simulate(labels, "rps") == simulate(labels, "rps")


def test_another_seed_is_another_mask(full):
    labels = LabelMatrix.from_dense(full, NEGATIVE)
    for scheme, param in (
        ("fpc", 2),
        ("rps", 0.5),
        ("uniform_known", 0.5),
        ("single_positive", None),
        ("drop_positives", None),
    ):
        draws = [simulate(labels, scheme, param, np.random.default_rng(seed)) for seed in (0, 1)]
        assert draws[0] != draws[1]


def test_rps_at_its_ends(full):
    labels = LabelMatrix.from_dense(full, NEGATIVE)
    assert simulate(labels, "rps", 0) == labels
    assert simulate(labels, "rps", 1).counts().unannotated.sum() == full.size


def test_blocks_continue_one_stream(full, monkeypatch):
    labels = LabelMatrix.from_dense(full, NEGATIVE)
    whole = simulate(labels, "rps", 0.3, np.random.RandomState(5))
    monkeypatch.setitem(schemes["rps"].__globals__, "_BLOCK", 7 * 12)
    assert simulate(labels, "rps", 0.3, np.random.RandomState(5)) == whole


def test_uniform_known_keeps_one_share_of_every_image(full):
    dense = full.astype(np.int8)
    dense[::2, :4] = UNANNOTATED  # 8 known instead of 12
    left = simulate(LabelMatrix.from_dense(dense), "uniform_known", 0.25).to_dense()
    np.testing.assert_array_equal((left >= 0).sum(axis=1), np.tile([2, 3], 150))


def test_single_positive_and_positives_only(full):
    labels = LabelMatrix.from_dense(full, NEGATIVE)
    single = simulate(labels, "single_positive").to_dense()
    assert (single != NEGATIVE).all()
    np.testing.assert_array_equal((single == POSITIVE).sum(axis=1), full.any(axis=1))
    np.testing.assert_array_equal(simulate(labels, "positives_only").to_dense(), np.where(full, 1, -1))


def test_drop_positives_leaves_negatives_known(full):
    labels = LabelMatrix.from_dense(full, NEGATIVE)
    left = simulate(labels, "drop_positives", 0.3).to_dense()
    np.testing.assert_array_equal(left[~full], 0)
    assert set(np.unique(left[full])) == {UNANNOTATED, POSITIVE}
    assert 0.65 < (left[full] == POSITIVE).mean() < 0.75
    assert simulate(labels, "drop_positives", 0) == labels
    assert simulate(labels, "drop_positives", 1).counts().positives.sum() == 0


@pytest.mark.parametrize("scheme", sorted(schemes))
def test_the_work_follows_the_known_labels(scheme, monkeypatch):
    # 4 x 10^10 entries, 12 known ones: anything dense would not end
    rows = np.repeat([0, 2_000_000, 3_999_999], 4)
    values = np.tile([1, 1, 0, 0], 3)
    labels = LabelMatrix.from_entries(rows, np.tile(np.arange(4), 3), values, (4_000_000, 9_605))
    left = simulate(labels, scheme, 1 if scheme in ("fpc", "fix_per_class") else None)
    assert left.shape == labels.shape
    assert left.counts().positives.sum() <= 6
    monkeypatch.setitem(simulate.__globals__, "_BLOCK", 5)
    small = labels.select(np.arange(1_999_990, 2_000_010))
    assert simulate(small, scheme, 1 if scheme in ("fpc", "fix_per_class") else None).shape == (20, 9_605)


@given(
    arrays.arrays(np.int8, st.tuples(st.integers(0, 12), st.integers(1, 6)), elements=st.integers(-1, 1)),
    st.sampled_from([POSITIVE, NEGATIVE, UNANNOTATED]),
    st.sampled_from(sorted(schemes)),
)
def test_how_labels_are_stored_changes_nothing(dense, fill, scheme):
    param = 2 if schemes[scheme] is schemes["fpc"] else None
    block = simulate.__globals__["_BLOCK"]
    try:
        simulate.__globals__["_BLOCK"] = 7
        stored = simulate(LabelMatrix.from_dense(dense, fill), scheme, param)
    finally:
        simulate.__globals__["_BLOCK"] = block
    assert stored == simulate(LabelMatrix.from_dense(dense, UNANNOTATED), scheme, param)


@pytest.mark.parametrize(
    ("scheme", "param", "message"),
    [
        ("fcp", 1, "--simulate_partial_type: found 'fcp', expected one of fpc, fix_per_class, rps"),
        ("rps", 1.5, "--simulate_partial_param: found 1.5, .* from 0 to 1"),
        ("rps", -0.1, "--simulate_partial_param: found -0.1"),
        ("rps", float("nan"), "--simulate_partial_param: found nan"),
        ("rps", 1000, "--simulate_partial_param: found 1000"),
        ("fpc", 0, "--simulate_partial_param: found 0, expected a positive integer"),
        ("fpc", 0.5, "--simulate_partial_param: found 0.5, expected a positive integer"),
        ("fpc", float("inf"), "--simulate_partial_param: found inf"),
        ("fpc", "a", "--simulate_partial_param: found 'a'"),
        ("uniform_known", 2, "--simulate_partial_param: found 2"),
        ("positives_only", 0.5, "--simulate_partial_param: found 0.5, expected none"),
    ],
)
def test_params_that_a_scheme_does_not_take(scheme, param, message):
    with pytest.raises(InputError, match=message):
        simulate(LabelMatrix.from_dense(np.eye(2)), scheme, param)


def test_a_param_that_argparse_made_a_float(full):
    labels = LabelMatrix.from_dense(full, NEGATIVE)
    assert simulate(labels, "fpc", 5.0) == simulate(labels, "fpc", 5)


def test_real_labels_keep_their_share(real):
    from csl.labels import read_annotations

    labels = read_annotations(real("fashion80.zip")).labels
    full = labels.counts()
    partial = simulate(labels, "fpc", 1000, np.random.RandomState(0)).counts()
    np.testing.assert_array_equal(partial.positives, np.minimum(full.positives, 1000))
    np.testing.assert_array_equal(partial.negatives, np.minimum(full.negatives, 1000))
