"""The options of a loss: by name, from its own arguments, as flags and as --loss_options."""

import pytest

from csl import InputError
from csl.losses import LOSSES, create_loss
from csl.losses.options import LossOptions, own_options, parse_options
from csl.runs.record import changed_settings


def test_options_have_the_type_of_their_defaults():
    text = "disable_torch_grad_focal_loss = FALSE, eps=1e-8"
    assert parse_options(text, "asl") == {"disable_torch_grad_focal_loss": False, "eps": 1e-8}
    assert parse_options(None, "asl") == {}
    assert LossOptions(loss="asl", loss_options=text, clip=0.1).create_loss().options.focal_gradient
    assert not LossOptions(loss="asl", clip=0.1).create_loss().options.focal_gradient


@pytest.mark.parametrize(
    ("loss", "text", "said"),
    [
        ("asl", "epps=1", "--loss_options epps: no option of --loss asl; did you mean eps? expected one of eps, disable_t"),
        ("asl", "", "--loss_options : no option of --loss asl; expected one of eps"),
        ("annotation", "tau=1", "--loss_options tau: no option of --loss annotation; expected one of none"),
        ("annotation", "prior=1", "--loss_options prior: no option of"),
        ("asl", "gamma_neg=1", "--loss_options gamma_neg: a setting with a flag of its own, expected --gamma_neg"),
        ("asl", "eps=small", "--loss_options eps: found 'small', expected a number"),
        ("asl", "eps", "--loss_options eps: found '', expected a number"),
        ("csl", "focal_gradient=2", "--loss_options focal_gradient: found '2', expected true or false"),
        ("hil", "lam=1", "--loss hil: unknown, expected one of "),
    ],
)  # fmt: skip
def test_a_wrong_option_is_one_line_that_says_what_there_is(loss, text, said):
    with pytest.raises(InputError) as refusal:
        LossOptions(loss=loss, loss_options=text).create_loss()
    assert str(refusal.value).startswith(said)
    assert "\n" not in str(refusal.value)


def test_an_option_that_the_loss_does_not_have_is_named_beside_those_that_it_has():
    with pytest.raises(
        InputError, match="gama_neg: no option of --loss annotation; did you mean gamma_neg. expected one"
    ):
        create_loss("annotation", gama_neg=1.0)
    with pytest.raises(InputError, match="^--gamma_unann: no option of --loss asl; did you mean gamma_neg"):
        LossOptions(loss="asl", gamma_unann=1.0).create_loss()


def test_every_option_without_a_flag_has_a_default_that_says_its_type():
    for loss in LOSSES:
        assert {type(default) for default in own_options(loss).values()} <= {bool, int, float}, loss


def test_a_resumed_run_may_spell_its_options_in_another_way():
    def config(options):
        return {"loss": "asl", "loss_options": options}

    assert not changed_settings(config("eps=1e-8"), config(None))
    changed = changed_settings(config("disable_torch_grad_focal_loss=false"), config("eps=0.00000001"))
    assert changed == ["--loss_options eps=0.00000001 (was disable_torch_grad_focal_loss=false)"]
