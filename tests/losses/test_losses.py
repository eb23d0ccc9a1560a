"""csl.losses and csl.ops.selective: recorded numbers, float64 loops, finite differences, and each other."""

import math
from dataclasses import fields

import numpy as np
import pytest
import torch
from conftest import golden
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_problems import ALL_MODES, problem, value_and_gradient

from csl import InputError
from csl.losses import ASLSingleLabel, AsymmetricLoss, AsymmetricLossOptimized, PartialSelectiveLoss, create_loss
from csl.losses.options import LossOptions
from csl.ops import selective_loss, selective_loss_ref
from csl.training.recipes import RECIPES

CSL_CASES, CSL = golden("partial_selective_loss")
ASL_CASES, ASL = golden("asymmetric_loss")
SETTINGS = ("clip", "gamma_pos", "gamma_neg", "gamma_unann", "alpha_pos", "alpha_neg", "alpha_unann")


def assert_golden(arrays, name, loss, grad):
    np.testing.assert_allclose(loss, arrays[f"{name}_loss"], rtol=1e-4)
    expected = arrays[f"{name}_grad"]
    assert np.abs(grad.numpy() - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("case", CSL_CASES, ids=lambda c: c["case"])
@pytest.mark.parametrize("function", [selective_loss, selective_loss_ref])
def test_selective_loss_equals_recorded(case, function):
    options = {k: case[k] for k in (*SETTINGS, "likelihood_topk", "prior_threshold")}
    options["mode"] = case["partial_loss_mode"]
    if case["use_prior"]:
        options["prior"] = torch.from_numpy(CSL[f"{case['case']}_prior"])
    logits, targets = (torch.from_numpy(CSL[f"{case['case']}_{k}"]) for k in ("logits", "targets"))
    assert_golden(CSL, case["case"], *value_and_gradient(PartialSelectiveLoss(**options), logits, targets))
    assert_golden(CSL, case["case"], *value_and_gradient(lambda x, y: function(x, y, **options), logits, targets))


@pytest.mark.parametrize("case", ASL_CASES, ids=lambda c: f"{c['case']}-{c['loss']}")
def test_asl_equals_recorded(case):
    options = {k: v for k, v in case.items() if k not in ("case", "loss")}
    losses = {c.__name__: c for c in (AsymmetricLoss, AsymmetricLossOptimized, ASLSingleLabel)}
    loss = losses[case["loss"]](**options)
    logits, targets = (torch.from_numpy(ASL[f"{case['case']}_{k}"]) for k in ("logits", "targets"))
    assert_golden(ASL, case["case"], *value_and_gradient(loss, logits, targets))


def loop(logits, targets, mode, clip, gammas, alphas, topk, prior, threshold, scope):
    """The formula of ops/selective_formula.py, entry by entry in Python floats."""
    batch, classes = logits.shape
    terms, order = {}, []
    for b in range(batch):
        for c in range(classes):
            x, y = logits[b, c].item(), int(targets[b, c])
            p = 1 / (1 + math.exp(-x))
            q = min(1, 1 - p + clip)
            kind = {1: 0, 0: 1, -1: 2}[y]
            likelihood = p if y == 1 else q
            terms[b, c] = alphas[kind] * (1 - likelihood) ** gammas[kind] * math.log(max(likelihood, 1e-8))
            if y == -1:
                order.append((q, b, c))
    weight = dict.fromkeys(terms, 1.0)
    for b, c in terms:
        annotated = sum(int(t) != -1 for t in targets[b])
        if mode == "ignore":
            weight[b, c] = float(targets[b, c] != -1)
        elif mode == "ignore_normalize_classes":
            weight[b, c] = (1 / (1 + annotated) + 1) * float(targets[b, c] != -1)
    if mode == "selective":
        for _, b, c in order:
            if prior is not None and threshold and prior[c] > threshold:
                weight[b, c] = 0.0
        ranked = sorted(order)
        if scope == "batch":
            chosen = ranked[: topk * batch]
        else:
            chosen = [e for b in range(batch) for e in [r for r in ranked if r[1] == b][:topk]]
        for _, b, c in chosen:
            weight[b, c] = 0.0
    return -sum(weight[k] * terms[k] for k in terms)


@settings(deadline=None, max_examples=80)
@given(
    st.integers(1, 6), st.integers(1, 12), st.integers(0, 10**6), st.sampled_from([0.0, 0.3, 1.0]),
    st.sampled_from([None, "negative", "ignore", "ignore_normalize_classes", "selective"]),
    st.sampled_from([0.0, 0.05]), st.integers(0, 20), st.booleans(), st.sampled_from(["batch", "sample"]),
    st.tuples(*[st.sampled_from([0.0, 1.0, 2.0, 4.0, 1.5])] * 3), st.tuples(*[st.sampled_from([1.0, 0.5])] * 3),
)  # fmt: skip
def test_equals_loop_and_twin_in_float64(
    batch, classes, seed, known, mode, clip, topk, use_prior, scope, gammas, alphas
):
    logits, targets, prior = problem(batch, classes, seed, known)
    options = dict(zip(("gamma_pos", "gamma_neg", "gamma_unann"), gammas, strict=True))
    options |= dict(zip(("alpha_pos", "alpha_neg", "alpha_unann"), alphas, strict=True))
    options |= {"mode": mode, "clip": clip, "likelihood_topk": topk, "prior_threshold": 0.5, "topk_scope": scope}
    options["prior"] = prior if use_prior else None
    expected = loop(logits, targets, mode, clip, gammas, alphas, topk, options["prior"], 0.5, scope)
    loss, grad = value_and_gradient(lambda x, y: selective_loss(x, y, **options), logits, targets)
    ref_loss, ref_grad = value_and_gradient(lambda x, y: selective_loss_ref(x, y, **options), logits, targets)
    assert loss == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert ref_loss == pytest.approx(expected, rel=1e-9, abs=1e-9)
    torch.testing.assert_close(grad, ref_grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("focal_gradient", [False, True])
def test_infinite_logits_as_the_formula_says(focal_gradient):
    logits = torch.tensor([[torch.inf, -torch.inf, torch.inf, -torch.inf]])
    targets = torch.tensor([[1, 0, 0, 1]])
    loss, grad = value_and_gradient(lambda x, y: selective_loss(x, y, gamma_neg=0.0, gamma_unann=0.0), logits, targets)
    assert loss == pytest.approx(-2 * math.log(1e-8), rel=1e-5)
    assert torch.equal(grad, torch.zeros(1, 4))


@pytest.mark.parametrize("mode", ["negative", "ignore", "ignore_normalize_classes", "selective"])
def test_nan_logit_gives_nan_loss(mode):
    logits, targets, _ = problem(3, 4, 0, known=1.0)
    logits[1, 2] = torch.nan
    assert selective_loss(logits, targets, mode=mode).isnan()


def test_half_precision_logits_are_computed_in_float32():
    logits, targets, _ = problem(8, 30, 1)
    half = logits.to(torch.bfloat16)
    loss, grad = value_and_gradient(PartialSelectiveLoss("selective"), half, targets)
    exact, exact_grad = value_and_gradient(PartialSelectiveLoss("selective"), half.float(), targets)
    assert loss == exact
    assert grad.dtype == torch.bfloat16
    assert torch.equal(grad, exact_grad.to(torch.bfloat16))


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 5), st.integers(1, 40), st.integers(0, 10**6), st.sampled_from(ALL_MODES), st.sampled_from([0.0, 0.05]),
    st.sampled_from([0, 1, 7, 1000]), st.sampled_from(["batch", "sample"]), st.sampled_from(["all", "none", "some"]),
    st.sampled_from([(0.0, 1.0, 2.0), (1.0, 2.0, 7.0), (1.0, 4.0, 4.0), (0.0, 0.0, 0.0), (3.0, 1.5, 0.0)]), st.booleans(),
)  # fmt: skip
def test_float32_equals_the_plain_twin(batch, classes, seed, mode, clip, topk, scope, known, gammas, focal_gradient):
    share = {"all": 1.0, "none": 0.0, "some": 0.5}[known]
    logits, targets, prior = problem(batch, classes, seed, share)
    options = dict(zip(("gamma_pos", "gamma_neg", "gamma_unann"), gammas, strict=True))
    options |= {"mode": mode, "clip": clip, "likelihood_topk": topk, "topk_scope": scope}
    options |= {"prior": prior.float(), "prior_threshold": 0.5, "focal_gradient": focal_gradient}
    loss, grad = value_and_gradient(lambda x, y: selective_loss(x, y, **options), logits.float(), targets)
    expected, exact = value_and_gradient(lambda x, y: selective_loss_ref(x, y, **options), logits.float(), targets)
    assert loss == pytest.approx(expected, rel=2e-5, abs=1e-5)
    torch.testing.assert_close(grad, exact, rtol=1e-3, atol=2e-6)


@pytest.mark.parametrize("scope", ["batch", "sample"])
def test_loss_and_gradient_of_many_classes_equal_the_plain_twin(scope):
    torch.manual_seed(0)
    logits = (3 * torch.randn(16, 4000)).requires_grad_()
    targets = torch.randint(-1, 2, (16, 4000))
    results = []
    for function in (selective_loss, selective_loss_ref):
        loss = function(logits, targets, mode="selective", gamma_unann=4.0, topk_scope=scope)
        results.append((loss, *torch.autograd.grad(loss, logits)))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_logits_that_are_no_number_give_a_loss_that_is_none():
    logits, targets = torch.randn(16, 4000), torch.full((16, 4000), -1)
    logits[3, 5] = torch.nan
    assert selective_loss(logits, targets, mode="selective").isnan()


@pytest.mark.parametrize("scope", ["batch", "sample"])
def test_ties_share_the_places_that_are_left(scope):
    logits = torch.tensor([[2.0, 1.0, 1.0, 1.0, 0.0, 9.0]], dtype=torch.float64)
    targets = torch.tensor([[-1, -1, -1, -1, -1, 0]])
    options = {"mode": "selective", "topk_scope": scope}
    some, grad = value_and_gradient(lambda x, y: selective_loss(x, y, likelihood_topk=2, **options), logits, targets)
    every, every_grad = value_and_gradient(
        lambda x, y: selective_loss(x, y, likelihood_topk=0, **options), logits, targets
    )
    share = torch.tensor([[0, 2 / 3, 2 / 3, 2 / 3, 1, 1]], dtype=torch.float64)
    torch.testing.assert_close(grad, every_grad * share)
    assert some < every
    assert some == pytest.approx(selective_loss_ref(logits, targets, likelihood_topk=2, **options).item())


@pytest.mark.parametrize("mode", ALL_MODES)
@pytest.mark.parametrize("focal_gradient", [False, True])
def test_gradient_is_that_of_finite_differences(mode, focal_gradient):
    logits, targets, prior = problem(3, 5, 11)
    options = {"mode": mode, "prior": prior, "prior_threshold": 0.5, "likelihood_topk": 1, "clip": 0.05}
    options |= (
        {"gamma_pos": 2.0, "gamma_unann": 3.0} if focal_gradient else dict.fromkeys(("gamma_neg", "gamma_unann"), 0.0)
    )
    logits.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: selective_loss(x, targets, focal_gradient=focal_gradient, **options), logits
    )


def test_float16_gradient_is_rounded_after_the_loss_scale():
    logits = torch.full((1, 4), -12.0, dtype=torch.float16).requires_grad_()  # a gradient of 6e-6, squared
    (selective_loss(logits, torch.zeros(1, 4)) * 2.0**16).backward()
    assert torch.allclose(logits.grad.double(), torch.sigmoid(torch.tensor(-12.0).double()) ** 2 * 2**16, rtol=1e-2)


def test_empty_batch_and_no_gradient():
    assert selective_loss(torch.zeros(0, 5), torch.zeros(0, 5), mode="selective").item() == 0
    logits, targets, _ = problem(2, 5, 0)
    assert not selective_loss(logits, targets).requires_grad


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiles_into_one_graph(backend):
    from torch.utils.cpp_extension import check_compiler_ok_for_platform, get_cxx_compiler

    if backend == "inductor" and not check_compiler_ok_for_platform(get_cxx_compiler()):
        pytest.skip("inductor needs a C++ compiler")
    logits, targets, prior = problem(4, 9, 5)
    for loss in (PartialSelectiveLoss("selective", prior=prior), AsymmetricLossOptimized()):
        expected, exact = value_and_gradient(loss, logits.float(), targets)
        compiled = torch.compile(lambda x, y, loss=loss: loss(x * 2, y), fullgraph=True, backend=backend)
        found, grad = value_and_gradient(compiled, logits.float() / 2, targets)
        assert found == pytest.approx(expected, rel=1e-6)
        torch.testing.assert_close(grad, exact * 2)


def test_registry():
    assert isinstance(create_loss("csl", mode="selective"), PartialSelectiveLoss)
    assert isinstance(create_loss("asl", gamma_neg=2.0), AsymmetricLoss)
    with pytest.raises(InputError, match="expected one of annotation, asl, asl_optimized, crisp, csl"):
        create_loss("bce")


def test_bad_input_is_an_error_that_says_so():
    logits, targets, prior = problem(2, 5, 0)
    with pytest.raises(InputError, match="a target of 2"):
        PartialSelectiveLoss()(logits, torch.full((2, 5), 2))
    with pytest.raises(InputError, match=r"a target of 0\.5"):
        PartialSelectiveLoss()(logits, torch.full((2, 5), 0.5))
    with pytest.raises(InputError, match="same shape"):
        PartialSelectiveLoss()(logits, targets[:, :4])
    with pytest.raises(InputError, match="5 classes, expected 4"):
        PartialSelectiveLoss("selective", prior=prior)(logits[:, :4], targets[:, :4])
    with pytest.raises(InputError, match="partial_loss_mode ignored"):
        PartialSelectiveLoss("ignored")
    with pytest.raises(InputError, match="topk_scope"):
        PartialSelectiveLoss("selective", topk_scope="world")


RECIPE = {"gamma_neg": 4.0, "gamma_pos": 0.0, "clip": 0.05}  # of ASL's training on COCO


def slope_of_asl(logits, targets, gamma_neg, gamma_pos, clip, weight_is_held, step=1e-6):
    """The gradient [B, C] of ASL by central differences of its formula in Python floats.

    With `weight_is_held` the focusing weight is a number, that of the logits themselves, and does not move with them.
    """

    def likelihood(x, y):
        p = 1 / (1 + math.exp(-x))
        return p if y == 1 else min(1.0, 1 - p + clip)

    def entry(x, y, at):
        weight = (1 - likelihood(at if weight_is_held else x, y)) ** (gamma_pos if y == 1 else gamma_neg)
        return -weight * math.log(max(likelihood(x, y), 1e-8))

    rows = zip(logits.tolist(), targets.tolist(), strict=True)
    return torch.tensor(
        [
            [(entry(x + step, y, x) - entry(x - step, y, x)) / (2 * step) for x, y in zip(*row, strict=True)]
            for row in rows
        ],
        dtype=torch.float64,
    )


def test_asl_trains_with_the_gradient_of_the_published_training():
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(0, 1, (128, 80)))
    targets = torch.from_numpy((rng.random((128, 80)) < 0.036).astype(np.int8))
    published = slope_of_asl(logits, targets, **RECIPE, weight_is_held=True)
    other = slope_of_asl(logits, targets, **RECIPE, weight_is_held=False)
    recipe = {f.name: RECIPES["asl_coco"][f.name] for f in fields(LossOptions) if f.name in RECIPES["asl_coco"]}
    assert recipe == {"loss": "asl", **RECIPE}
    for options, expected in (
        (recipe, published),
        ({"loss": "asl", **RECIPE}, published),
        ({"loss": "asl_optimized", **RECIPE}, other),
    ):
        loss, grad = value_and_gradient(LossOptions(**options).create_loss(), logits, targets)
        torch.testing.assert_close(grad, expected, rtol=1e-6, atol=1e-8)
        assert loss == pytest.approx(value_and_gradient(AsymmetricLoss(**RECIPE), logits, targets)[0], rel=1e-12)
    # The two are far apart, and in the negatives alone: their slopes are what a gradient through the weight adds to.
    assert other.norm() / published.norm() > 1.8
    assert torch.nn.functional.cosine_similarity(other.flatten(), published.flatten(), dim=0) < 0.92
    assert (other[targets == 0].norm() / published[targets == 0].norm()).item() > 2.5
    torch.testing.assert_close(other[targets == 1], published[targets == 1], rtol=1e-6, atol=1e-8)


def test_the_published_classes_keep_their_names_and_defaults():
    for loss, through in (
        (AsymmetricLoss(), False),
        (AsymmetricLossOptimized(), True),
        (AsymmetricLoss(4, 1, 0.05, 1e-8, False), True),
    ):
        o = loss.options
        assert (o.gamma_neg, o.gamma_pos, o.clip, o.mode, o.focal_gradient) == (4.0, 1.0, 0.05, "negative", through)


@pytest.mark.parametrize("name", ["asl", "asl_optimized"])
@pytest.mark.parametrize("mode", [None, "negative", "ignore", "ignore_normalize_classes"])
def test_asl_counts_unknown_labels_as_its_mode_says(name, mode):
    logits, targets, _ = problem(5, 7, 3)
    found, grad = value_and_gradient(
        LossOptions(loss=name, partial_loss_mode=mode, **RECIPE).create_loss(), logits, targets
    )
    gammas, ones = (RECIPE["gamma_pos"], RECIPE["gamma_neg"], RECIPE["gamma_neg"]), (1, 1, 1)
    expected = loop(logits, targets, mode, RECIPE["clip"], gammas, ones, 0, None, 0, "batch")
    assert found == pytest.approx(expected, rel=1e-9)
    assert bool((grad[targets == -1] != 0).any()) == (mode in (None, "negative"))


def test_asl_has_no_selective_mode_and_no_prior():
    with pytest.raises(InputError, match="--partial_loss_mode selective: ASL has no such mode, expected --loss csl"):
        LossOptions(loss="asl", partial_loss_mode="selective").create_loss()
    with pytest.raises(
        InputError, match="--prior: no option of --loss asl; expected one of gamma_neg, gamma_pos, clip"
    ):
        LossOptions(loss="asl").create_loss(torch.ones(3))
