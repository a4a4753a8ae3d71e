"""What people really hand to scores, evaluations, displays and reports: one test for each report."""

import json
import pickle
import threading
import warnings
from itertools import chain

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from imblearn.over_sampling import RandomOverSampler
from imblearn.pipeline import make_pipeline as make_imblearn_pipeline
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from torch import nn

from sklearn_acs import (
    PGD,
    CoresetDisplay,
    CostDisplay,
    PerturbationDisplay,
    RobustClassifier,
    RobustnessCurveDisplay,
    TradeoffDisplay,
    evaluate,
    make_robustness_report,
    robust_accuracy,
    robust_scorer,
)
from sklearn_acs.evaluation.state import State
from sklearn_acs.saving import files

DIGITS = load_digits(n_class=3)
X, Y = (DIGITS.images / 16).astype(np.float32)[:90], DIGITS.target[:90]
TABLE = X.reshape(len(X), -1)
ATTACK = PGD(eps=0.1, steps=2)


def tiny(**params):
    return RobustClassifier(
        **{"module": "mlp", "attack": ATTACK, "max_epochs": 6, "batch_size": 16, "lr": 0.1, "random_state": 0, **params}
    )


@pytest.fixture(scope="module")
def clf():
    return tiny(coreset_frac=0.5).fit(X, Y)


@pytest.fixture(scope="module")
def table_clf():
    return tiny().fit(TABLE, Y)


@pytest.fixture(autouse=True)
def no_pictures_stay_open():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.fixture
def no_work(monkeypatch):
    """Make any attack fail, so that an error after work has begun is another error."""

    def attack(*args, **kwargs):
        raise AssertionError("work has begun")

    monkeypatch.setattr(PGD, "_attack", attack)


# Scores


@pytest.mark.parametrize("method", ["score", "robust_score", "perturb"])
def test_labels_left_out_beside_an_array_are_asked_for(clf, no_work, method):
    with pytest.raises(ValueError, match=r"requires y to be passed"):
        getattr(clf, method)(X)


BAD_WEIGHTS = {
    "nan": np.full(90, np.nan),
    "inf": np.full(90, np.inf),
    "negative": np.r_[-1, np.ones(89)],
    "zeros": np.zeros(90),
    "short": np.ones(89),
    "a matrix": np.ones((90, 2)),
    "words": ["heavy"] * 90,
    "masked": np.ma.masked_equal(np.r_[0, np.ones(89)], 0),
}


@pytest.mark.parametrize("weights", BAD_WEIGHTS)
@pytest.mark.parametrize("method", ["fit", "score", "robust_score", "scorer", "robust_accuracy"])
def test_weights_that_make_no_mean_are_refused_by_fit_and_by_scores(clf, no_work, method, weights):
    weight = BAD_WEIGHTS[weights]
    with pytest.raises(ValueError, match="sample_weight"):
        match method:
            case "scorer":
                robust_scorer()(clf, X, Y, sample_weight=weight)
            case "robust_accuracy":
                robust_accuracy(clf.net_.module_, X, Y, ATTACK, sample_weight=weight)
            case _:
                getattr(clone(clf) if method == "fit" else clf, method)(X, Y, sample_weight=weight)


@pytest.mark.parametrize("make", [np.asarray, list, torch.tensor, pd.Series])
def test_weights_of_every_kind_mean_the_same(clf, make):
    weight = (Y == 0) + 2.0 * (Y == 1)
    right = clf.predict(X) == Y
    assert clf.score(X, Y, make(weight)) == pytest.approx(np.average(right, weights=weight))
    assert clf.robust_score(X, Y, None, make(weight)) == clf.robust_score(X, Y, None, weight) <= clf.score(X, Y, weight)


def sizes_of_batches(monkeypatch, act):
    sizes, attack = [], PGD._attack
    monkeypatch.setattr(PGD, "_attack", lambda self, problem, start: (
        sizes.append(len(problem.x)), attack(self, problem, start))[1])  # fmt: skip
    act()
    return sizes


@pytest.mark.parametrize("batch_size", [7, np.int64(7), 2**70])
def test_robust_score_and_perturb_attack_as_few_at_once_as_memory_has_room_for(clf, monkeypatch, batch_size):
    for act in (
        lambda: clf.robust_score(X, Y, batch_size=batch_size),
        lambda: clf.perturb(X, Y, batch_size=batch_size),
        lambda: robust_accuracy(clf, X, Y, ATTACK, batch_size=batch_size),
        lambda: evaluate(clf, X, Y, ATTACK, batch_size=batch_size),
    ):
        assert 0 < max(sizes_of_batches(monkeypatch, act)) <= batch_size


def test_the_score_by_default_is_that_of_one_batch(clf):
    assert clf.robust_score(X, Y) == clf.robust_score(X, Y, batch_size=512)


# Switches


@pytest.mark.parametrize(
    "wrong",
    [
        {"check_masking": "False"},
        {"worst_case_only": 1},
        {"batch_size": "8"},
        {"batch_size": True},
        {"batch_size": 2.5},
        {"random_state": None},
        {"random_state": -1},
        {"verbose": "no"},
        {"clip": "auto"},
        {"clip": (0, 1, 2)},
        {"clip": (1, 0)},
        {"clip": (0, np.nan)},
        {"attacks": None},
        {"attacks": [None]},
        {"attacks": 0.1},
        {"attacks": PGD},
        {"state_path": 3},
        {"state_path": b"state"},
    ],
    ids=str,
)
def test_switches_of_an_evaluation_are_checked(clf, no_work, tmp_path, wrong):
    (name,) = wrong
    given = {"attacks": ATTACK, **wrong}
    with pytest.raises((ValueError, TypeError), match=name):
        evaluate(clf.net_.module_, X, Y, **given)


@pytest.mark.parametrize("name", ["check_masking", "worst_case_only"])
@pytest.mark.parametrize("value", [True, np.True_, False, np.False_])
def test_bools_of_python_and_numpy_are_switches(clf, name, value):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = evaluate(clf, X[:10], Y[:10], ATTACK, **{name: value})
    assert (result.masking is not None, result.worst_case_only) == (
        bool(value) and name == "check_masking",
        bool(value) and name == "worst_case_only",
    )


@pytest.mark.parametrize(
    ("draw", "name"),
    [
        (lambda clf: PerturbationDisplay.from_estimator(clf, X, Y, n_images="5"), "n_images"),
        (lambda clf: PerturbationDisplay.from_estimator(clf, X, Y, n_images=True), "n_images"),
        (lambda clf: PerturbationDisplay.from_estimator(clf, X, Y, ax=3), "ax"),
        (lambda clf: RobustnessCurveDisplay.from_estimator(clf, X, Y, eps="wide"), "eps"),
        (lambda clf: RobustnessCurveDisplay.from_estimator(clf, X, Y, batch_size="8"), "batch_size"),
        (lambda clf: RobustnessCurveDisplay.from_estimators([clf], X, Y), "estimators"),
        (lambda clf: TradeoffDisplay.from_estimators([clf], X, Y, attack="pgd"), "estimators"),
        (lambda clf: TradeoffDisplay.from_predictions(["fast"], [0.1], ["a"]), "speedup"),
        (lambda clf: CoresetDisplay.from_estimator(clf, panels="times"), "panels"),
        (lambda clf: CostDisplay.from_estimator(clf, ax="here"), "ax"),
        (lambda clf: make_robustness_report(clf, X, Y, "report.html", title=3), "title"),
        (lambda clf: make_robustness_report(clf, X, Y, "report.html", y_train=Y[:3]), "y_train"),
    ],
)
def test_arguments_of_displays_and_reports_are_checked_by_name(clf, no_work, draw, name):
    with pytest.raises((ValueError, TypeError), match=rf"\b{name}\b"):
        draw(clf)


# The scorer


@pytest.fixture(scope="module")
def pipelines():
    """The same training in three kinds of pipelines: a scaler makes other units, and a sampler other rows."""
    steps = StandardScaler(), "passthrough"
    return {
        "scikit-learn's": make_pipeline(*steps, tiny(attack=None)).fit(TABLE, Y),
        "imbalanced-learn's": make_imblearn_pipeline(*steps, RandomOverSampler(random_state=0), tiny(attack=None)).fit(
            TABLE[10:], Y[10:]
        ),
        "one in another": make_pipeline(MinMaxScaler(), make_pipeline(*steps, tiny(attack=None))).fit(TABLE, Y),
        "a search at the end": make_pipeline(
            StandardScaler(), GridSearchCV(tiny(attack=None), {"max_epochs": [5]}, cv=2)
        ).fit(TABLE, Y),
        "a search": GridSearchCV(make_pipeline(*steps, tiny(attack=None)), {}, cv=2).fit(TABLE, Y),
    }


@pytest.mark.parametrize(
    "kind", ["scikit-learn's", "imbalanced-learn's", "one in another", "a search at the end", "a search"]
)
def test_a_pipeline_is_attacked_in_what_its_last_step_gets(pipelines, kind):
    pipeline, attack = pipelines[kind], PGD(eps=0.2, steps=3)
    last, inputs = pipeline, TABLE
    while not isinstance(last, RobustClassifier):
        if isinstance(last, GridSearchCV):
            last = last.best_estimator_
        else:
            for _, step in last.steps[:-1]:
                inputs = step.transform(inputs) if hasattr(step, "transform") else inputs
            last = last.steps[-1][1]
    expected = last.robust_score(inputs, Y, attack=attack)
    assert robust_scorer(attack)(pipeline, TABLE, Y) == expected
    assert robust_accuracy(pipeline, TABLE, Y, attack) == expected
    assert evaluate(pipeline, TABLE, Y, attack)["accuracy"][:2] == [pipeline.score(TABLE, Y), expected]
    curve = RobustnessCurveDisplay.from_estimator(pipeline, TABLE, Y, attack=attack, eps=[0, 0.2])
    assert curve.accuracy.tolist() == [[pipeline.score(TABLE, Y), expected]]
    assert TradeoffDisplay.from_estimators({"a": pipeline}, TABLE, Y, attack=attack).robust_error == [1 - expected]
    assert CostDisplay.from_estimator(pipeline).cost == CostDisplay.from_estimator(last).cost


def test_models_that_give_no_gradients_are_refused_in_a_sentence():
    forest = RandomForestClassifier(2).fit(TABLE, Y)
    for judge in (evaluate, robust_accuracy):
        with pytest.raises(TypeError, match=r"model must be a fitted RobustClassifier.* nn\.Module.*RandomForest"):
            judge(forest, TABLE, Y, ATTACK)
    with pytest.raises(TypeError, match=r"robust_scorer needs .* got RandomForestClassifier"):
        robust_scorer()(make_pipeline(MinMaxScaler(), forest).fit(TABLE, Y), TABLE, Y)


class Weighed(RobustClassifier):
    """Notes the weights that its robust score gets."""

    seen: list = []

    def robust_score(self, X, y=None, attack=None, sample_weight=None, *, batch_size=512):
        self.seen.append(None if sample_weight is None else np.asarray(sample_weight).tolist())
        return super().robust_score(X, y, attack, sample_weight, batch_size=batch_size)


@pytest.mark.parametrize("scoring", ["one", "several"])
def test_weights_are_routed_to_the_scorer_that_asks_for_them(scoring):
    weight = np.arange(1.0, 91.0)
    with sklearn.config_context(enable_metadata_routing=True):
        scorer = robust_scorer(ATTACK).set_score_request(sample_weight=True)
        plain = make_scorer(accuracy_score).set_score_request(sample_weight=False)
        model = Weighed(module="mlp", max_epochs=1, attack=ATTACK, selector=None).set_fit_request(sample_weight=True)
        given = scorer if scoring == "one" else {"robust": scorer, "clean": plain}
        Weighed.seen.clear()
        cross_validate(model, X, Y, scoring=given, cv=3, params={"sample_weight": weight})
        assert sorted(chain(*Weighed.seen)) == weight.tolist()
        search = GridSearchCV(model, {"max_epochs": [1]}, scoring=given, refit=False, cv=3)
        Weighed.seen.clear()
        search.fit(X, Y, sample_weight=weight)
        assert sorted(chain(*Weighed.seen)) == weight.tolist()


def test_a_scorer_that_does_not_ask_gets_no_weights():
    with sklearn.config_context(enable_metadata_routing=True):
        scorer = robust_scorer(ATTACK).set_score_request(sample_weight=False)
        model = Weighed(module="mlp", max_epochs=1, attack=ATTACK, selector=None).set_fit_request(sample_weight=True)
        Weighed.seen.clear()
        cross_validate(model, X, Y, scoring=scorer, cv=2, params={"sample_weight": np.ones(90)})
        assert Weighed.seen == [None, None]


def test_a_scorer_with_a_request_is_copied_and_pickled(clf):
    with sklearn.config_context(enable_metadata_routing=True):
        scorer = robust_scorer(ATTACK).set_score_request(sample_weight="weight")
        for again in (pickle.loads(pickle.dumps(scorer)), clone(scorer, safe=False)):
            assert repr(again) == repr(scorer) == "robust_scorer(PGD(eps=0.1, steps=2))"
            assert again.get_metadata_routing().score.requests == {"sample_weight": "weight"}
            assert again(clf, X, Y) == scorer(clf, X, Y) == clf.robust_score(X, Y, ATTACK)


def test_fits_are_weighted_in_a_search_without_routing():
    search = GridSearchCV(tiny(max_epochs=1), {}, scoring=robust_scorer(ATTACK), cv=2)
    search.fit(X, Y, sample_weight=np.ones(90))
    assert 0 <= search.best_score_ <= 1


# Files


@pytest.mark.parametrize("where", ["a folder", "in no folder", "under a file"])
def test_a_place_that_cannot_be_written_is_refused_before_the_work(clf, no_work, tmp_path, where):
    (tmp_path / "file").touch()
    place = {"a folder": tmp_path, "in no folder": tmp_path / "no" / "file", "under a file": tmp_path / "file" / "x"}[
        where
    ]
    with pytest.raises(OSError, match=r"path=.* cannot be written"):
        make_robustness_report(clf, X, Y, place, ATTACK)
    with pytest.raises(OSError, match=r"state_path=.* cannot be written"):
        evaluate(clf, X, Y, ATTACK, state_path=place)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_loses_no_result(clf):
    expected = evaluate(clf, X, Y, ATTACK)["accuracy"]
    with pytest.warns(UserWarning, match="path='/dev/full' could not be written, the result is returned: .*No space"):
        assert make_robustness_report(clf, X, Y, "/dev/full", ATTACK)["accuracy"] == expected
    with pytest.warns(UserWarning, match="state_path='/dev/full' could not be written, .* goes on: .*No space") as told:
        assert evaluate(clf, X, Y, ATTACK, batch_size=8, state_path="/dev/full")["accuracy"] == expected
    assert len(told) == 1


def test_a_disk_that_fills_leaves_the_state_before(clf, tmp_path, monkeypatch):
    path, replace, calls = tmp_path / "state", files.os.replace, []

    def fill(*places):
        calls.append(places)
        if len(calls) > 3:
            raise OSError(28, "No space left on device")
        replace(*places)

    monkeypatch.setattr(files.os, "replace", fill)
    with pytest.warns(UserWarning, match="state_path=.* could not be written"):
        first = evaluate(clf, X, Y, ATTACK, batch_size=8, state_path=path)
    assert [place.name for place in tmp_path.iterdir()] == ["state"]
    monkeypatch.undo()
    assert evaluate(clf, X, Y, ATTACK, batch_size=8, state_path=path)["accuracy"] == first["accuracy"]


def test_two_evaluations_on_one_file_do_not_kill_one_another(tmp_path):
    key, errors = {"model": "m"}, []

    def write(value):
        try:
            for _ in range(40):
                state = State(20, 500, tmp_path / "state", key)
                assert (state.outcomes == state.outcomes[0, 0]).all()  # never a mixture
                state.outcomes[:] = value
                state.save()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(value,)) for value in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"attacks": PGD(eps=0.2, steps=2)}, "attacks"),
        ({"batch_size": 8}, "batch_size"),
        ({"random_state": 1}, "random_state"),
        ({"worst_case_only": True}, "worst_case_only"),
        ({"X": X[:, ::-1].copy()}, "data"),
        ({"y": Y[::-1].copy()}, "data"),
    ],
)
def test_a_state_says_in_what_it_differs(clf, tmp_path, change, what):
    given = {"model": clf, "X": X, "y": Y, "attacks": ATTACK, "state_path": tmp_path / "state"}
    evaluate(**given)
    with pytest.raises(ValueError, match=rf"state of another evaluation: it differs in .*\b{what}\b"):
        evaluate(**{**given, **change})


def test_a_state_of_another_shape_under_the_same_name_is_refused(tmp_path):
    State(2, 3, tmp_path / "state", {"model": "m"})
    with pytest.raises(ValueError, match=r"outcomes is int8 of shape \(2, 3\), and must be int8 of shape \(2, 4\)"):
        State(2, 4, tmp_path / "state", {"model": "m"})


@pytest.mark.parametrize("at", [0.1, 0.5, 0.9, 0.999])
def test_a_state_cut_short_or_spoilt_is_refused(tmp_path, at):
    path = tmp_path / "state"
    State(2, 30, path, {"model": "m"})
    content = path.read_bytes()
    path.write_bytes(content[: int(at * len(content))])
    with pytest.raises(ValueError, match=r"state_path=.* is not the state of an evaluation"):
        State(2, 30, path, {"model": "m"})


def test_a_link_to_a_report_stays_one_and_its_mode_is_that_of_new_files(table_clf, tmp_path):
    target, plain, link = tmp_path / "there.html", tmp_path / "plain", tmp_path / "link.html"
    plain.touch()
    link.symlink_to(target)
    make_robustness_report(table_clf, TABLE, Y, link, ATTACK, check_masking=False)
    assert link.is_symlink()
    assert target.read_text(encoding="utf-8").endswith("</html>\n")
    assert target.stat().st_mode == plain.stat().st_mode


def test_lone_surrogates_among_labels_are_written_as_python_shows_them(tmp_path):
    labels = np.array(["a", "b\ud800", "c"])[Y]
    clf = tiny(max_epochs=2).fit(X, labels)
    path = tmp_path / "report.html"
    make_robustness_report(
        clf, X, labels, path, {"x\ud800": ATTACK}, title="t\ud800", y_train=labels, check_masking=False
    )
    page = path.read_text(encoding="utf-8")
    assert "<h1>t\\ud800</h1>" in page
    assert "<td>x\\ud800</td>" in page
    result = evaluate(clf, X, labels, {"x\ud800": ATTACK}, state_path=tmp_path / "state")
    assert json.dumps(result.attacks_) == '["x\\ud800"]'


# Strange, and right

ODD_INDEX = np.arange(90)[::-1] / 2


def test_frames_lists_strings_and_half_precision_are_evaluated_alike(table_clf):
    frame = pd.DataFrame(TABLE, index=ODD_INDEX)
    named = tiny().fit(frame.rename(columns="f{}".format), np.array(["no", "one", "two"])[Y])
    strings = pd.Series(np.array(["no", "one", "two"])[Y], index=frame.index)
    expected = evaluate(table_clf, TABLE, Y, ATTACK)["accuracy"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert evaluate(named, frame.rename(columns="f{}".format), strings, ATTACK)["accuracy"] == expected
        assert evaluate(table_clf, TABLE.tolist(), Y.tolist(), ATTACK)["accuracy"] == expected
        assert evaluate(table_clf, torch.from_numpy(TABLE).bfloat16(), Y, ATTACK)["accuracy"] == expected


@pytest.mark.parametrize("kind", ["a frame", "lists", "bfloat16", "one sample", "one class"])
def test_a_report_takes_strange_inputs_that_are_right(clf, table_clf, tmp_path, kind):
    samples, labels, model = {
        "a frame": (
            pd.DataFrame(TABLE, index=np.arange(90)[::-1] / 2),
            pd.Series(Y, index=np.arange(90) / 2),
            table_clf,
        ),
        "lists": (X.tolist(), Y.tolist(), clf),
        "bfloat16": (torch.from_numpy(X).bfloat16(), torch.from_numpy(Y), clf),
        "one sample": (X[:1], Y[:1], clf),
        "one class": (X[Y == 0][:5], Y[Y == 0][:5], clf),
    }[kind]
    result = make_robustness_report(model, samples, labels, tmp_path / "report.html", ATTACK)
    n = len(labels)
    x = np.asarray(samples.float() if kind == "bfloat16" else samples, dtype=np.float32)
    assert result["accuracy"][0] == model.score(x, np.asarray(labels))
    assert result["attacked"][-1] == result["accuracy"][0] * n


@pytest.mark.filterwarnings("ignore:the gradient of the loss is NaN")
def test_nan_logits_are_wrong_answers_everywhere():
    class Nan(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :3] * torch.nan

    assert robust_accuracy(Nan(), X, Y, ATTACK) == 0
    assert evaluate(Nan(), X, Y, ATTACK, check_masking=True)["accuracy"] == [0, 0, 0]
