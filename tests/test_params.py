"""Parts by name or as objects, and parameters that reach into them."""

import re

import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import ParameterGrid

from sklearn_acs.attacks import ATTACKS, FGSM, PGD
from sklearn_acs.objectives import OBJECTIVES, TRADES
from sklearn_acs.params import RoutedParamsMixin, check_options, make_part

KNOWN = re.escape(repr(sorted(ATTACKS)))


class Host(RoutedParamsMixin, BaseEstimator):
    """The smallest estimator with routes."""

    _routes = ("attack", "objective", "optimizer")

    def __init__(self, attack=None, objective="trades", optimizer="sgd", lr=0.1, **options):
        self.attack = attack
        self.objective = objective
        self.optimizer = optimizer
        self.lr = lr
        self._set_options(options)

    def build(self):
        """What `fit` makes of the objective."""
        return make_part("objective", self.objective, OBJECTIVES, self._routed("objective"))


# make_part


@pytest.mark.parametrize("name", ATTACKS)
def test_name_means_what_the_table_makes_with_its_defaults(name):
    part = make_part("attack", name, ATTACKS)
    assert type(part) is type(ATTACKS[name]())
    assert part.get_params() == ATTACKS[name]().get_params()


def test_object_is_copied_and_not_changed():
    given = PGD(eps=0.5)
    made = make_part("attack", given, ATTACKS, {"steps": 3})
    assert made is not given
    assert (made.eps, made.steps, given.steps) == (0.5, 3, 10)


def test_options_are_set_on_a_part_made_from_a_name():
    assert make_part("attack", "fgsm", ATTACKS, {"random_start": True}).random_start is True


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=rf"attack='gdp' is not known; the known names are {KNOWN}"):
        make_part("attack", "gdp", ATTACKS)


@pytest.mark.parametrize("value", [3, None, PGD, lambda: None], ids=["number", "None", "class", "function"])
def test_what_is_no_part_is_refused_with_the_known_names(value):
    with pytest.raises(TypeError, match=rf"attack must be one of {KNOWN} or of type BaseEstimator; got"):
        make_part("attack", value, ATTACKS)


def test_unknown_option_is_refused_by_name():
    with pytest.raises(ValueError, match="PGD has no parameter 'attack__stepps'; did you mean 'attack__steps'"):
        make_part("attack", "pgd", ATTACKS, {"stepps": 3})


def test_bad_option_is_refused_when_the_part_is_made():
    with pytest.raises(ValueError, match="'steps' parameter of PGD"):
        make_part("attack", "pgd", ATTACKS, {"steps": 0})


def test_bad_object_is_refused_when_the_part_is_made():
    with pytest.raises(ValueError, match="'eps' parameter of FGSM"):
        make_part("attack", FGSM(eps=-1), ATTACKS)


def test_part_without_validation_is_made_too():
    class Plain(BaseEstimator):
        pass

    assert type(make_part("plain", Plain(), {})) is Plain


# Routed parameters


def test_parameters_of_a_named_part_are_listed():
    assert Host(objective__beta=1.0).get_params()["objective__beta"] == 1.0


def test_parameters_of_an_object_are_listed():
    params = Host(objective=TRADES(beta=2.0)).get_params()
    assert (params["objective__beta"], params["objective__divergence"]) == (2.0, "kl")


def test_parameters_of_a_named_part_are_set_and_applied_when_it_is_built():
    host = Host().set_params(objective__beta=1.0)
    assert host.objective == "trades"
    assert host.build().beta == 1.0


def test_parameters_of_an_object_are_set_on_it():
    host = Host(objective=TRADES()).set_params(objective__beta=1.0)
    assert host.objective.beta == 1.0
    assert host.build().beta == 1.0


def test_parameters_of_a_part_that_is_none_are_kept():
    assert Host().set_params(attack__eps=0.2)._routed("attack") == {"eps": 0.2}


def test_part_and_its_parameter_are_set_in_one_call():
    host = Host().set_params(objective__beta=1.0, objective=TRADES(beta=9.0))
    assert host.build().beta == 1.0


def test_newest_setting_wins_when_a_named_part_has_become_an_object():
    host = Host(objective="trades", objective__beta=6.0)
    host.set_params(objective=TRADES()).set_params(objective__beta=1.0)
    assert host.get_params()["objective__beta"] == 1.0
    assert host.build().beta == 1.0


def test_ordinary_parameters_are_set_as_ever():
    host = Host().set_params(lr=0.5, optimizer__momentum=0.8)
    assert (host.lr, host._routed("optimizer")) == (0.5, {"momentum": 0.8})


def test_options_of_one_part_do_not_reach_another():
    host = Host(objective__beta=1.0, optimizer__momentum=0.8)
    assert host._routed("objective") == {"beta": 1.0}
    assert host._routed("attack") == {}


def test_clone_keeps_routed_parameters():
    host = Host(objective__beta=1.0, optimizer__momentum=0.8)
    assert clone(host).get_params() == host.get_params()


def test_clone_shares_no_part():
    host = Host(objective=TRADES(beta=2.0))
    copy = clone(host).set_params(objective__beta=5.0)
    assert (host.objective.beta, copy.objective.beta) == (2.0, 5.0)


@pytest.mark.parametrize("objective", ["trades", TRADES()], ids=["name", "object"])
def test_grid_reaches_every_candidate(objective):
    # As GridSearchCV does it: a clone for each candidate, then set_params.
    base = Host(objective=objective)
    grid = ParameterGrid({"objective__beta": [1, 6], "lr": [0.1, 0.2]})
    built = [clone(clone(base).set_params(**clone(params, safe=False))) for params in grid]
    assert [(host.build().beta, host.lr) for host in built] == [(p["objective__beta"], p["lr"]) for p in grid]
    assert base.build().beta == 6.0


def test_fitted_attributes_are_no_parameters():
    host = Host()
    host.net_, host._seed = 1, 2
    assert set(host.get_params()) == {"attack", "objective", "optimizer", "lr"}


LEADS_NOWHERE = pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("power", ""),
        ("learning_rate", "; did you mean 'lr'?"),
        ("objektive", "; did you mean 'objective'?"),
        ("epsilon", "; did you mean 'attack__eps'?"),
        ("attack_steps", "; did you mean 'attack__steps'?"),
        ("motor__power", ""),
        ("atack__eps", "; did you mean 'attack__eps'?"),
        ("attack__", "; did you mean 'attack'?"),
        ("lr__max", ""),
    ],
)


@pytest.mark.parametrize("kind", [TypeError, ValueError])
@LEADS_NOWHERE
def test_name_that_leads_nowhere_is_refused_when_made_and_when_set(key, meant, kind):
    match = f"Host has no parameter '{key}'{re.escape(meant)}.* attack, lr, objective, optimizer, and part__name"
    with pytest.raises(kind, match=match):
        Host(**{key: 3})
    with pytest.raises(kind, match=match):
        Host().set_params(**{key: 3})


def test_values_are_not_looked_at_when_made_or_set():
    assert Host(lr="fast", attack__eps="large").set_params(objective=3).lr == "fast"


def test_the_name_of_the_options_themselves_is_refused_in_fit():
    for host in (Host(options=3), Host().set_params(options=3)):
        with pytest.raises(TypeError, match="Host has no parameter 'options'"):
            host._validate_params()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("betta", "TRADES has no parameter 'objective__betta'; did you mean 'objective__beta'"),
        ("attack__epsilon", "PGD has no parameter 'objective__attack__epsilon'; did you mean 'objective__attack__eps'"),
    ],
)
def test_name_that_an_object_does_not_have_is_refused_with_its_whole_way(name, message):
    given = TRADES(attack=PGD())
    with pytest.raises(ValueError, match=message):
        Host(objective=given).set_params(**{f"objective__{name}": 1})
    with pytest.raises(TypeError, match=message):
        make_part("objective", given, OBJECTIVES, {name: 1})


def test_options_of_a_function_are_those_that_it_names():
    def build(shape, *, width=3, depth=2):
        return None

    check_options("module", build, ["width"], "shape")
    check_options("module", lambda shape, **options: None, ["anything"])
    with pytest.raises(TypeError, match="build has no parameter 'module__widht'; did you mean 'module__width'"):
        check_options("module", build, ["widht"], "shape")
    with pytest.raises(TypeError, match="parameters are module__depth, module__width"):
        check_options("module", build, ["shape"], "shape")
