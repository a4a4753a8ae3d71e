"""What the guide shows of time and cost: estimates, searches by halving, and pruning with a trial that stands in."""

import re
from pathlib import Path

import numpy as np
import pytest

from sklearn_acs import RobustClassifier

GUIDE = (Path(__file__).parent.parent / "docs/guide.md").read_text()


@pytest.fixture(scope="module")
def page():
    """What the section defines."""
    names: dict = {}
    section = re.search(r"## Time and cost\n(.*?)\n## ", GUIDE, flags=re.DOTALL).group(1)
    for block in re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL):
        exec(compile(block, "guide", "exec"), names)
    return names


class Trial:
    """Stands in for Optuna's, and is pruned from an epoch on."""

    def __init__(self, pruned_at):
        self.pruned_at, self.reported = pruned_at, {}

    def suggest_float(self, name, low, high, log):
        return 0.05

    def report(self, value, step):
        self.reported[step] = value

    def should_prune(self):
        return max(self.reported) >= self.pruned_at


def test_the_estimate_is_what_the_fit_then_takes(page):
    estimate, cost = page["estimate"], page["clf"].cost_
    for phase, spent in cost.items():  # a coreset of batches may be a little larger or smaller
        assert estimate[phase].forwards == pytest.approx(spent.forwards, rel=0.02)
        assert estimate[phase].backwards == pytest.approx(spent.backwards, rel=0.02)


def test_halving_gives_more_epochs_to_fewer(page):
    search = page["search"]
    assert (search.n_resources_, search.n_candidates_) == ([2, 6], [3, 1])
    assert search.best_estimator_.max_epochs == 6
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_a_trial_hears_of_every_epoch_and_returns_the_best_score(page):
    trial = Trial(pruned_at=100)
    assert page["objective"](trial) == max(trial.reported.values())
    assert list(trial.reported) == [1, 2, 3, 4, 5, 6]


def test_a_pruned_trial_ends_after_its_epoch_and_leaves_a_usable_classifier(page):
    trial = Trial(pruned_at=2)
    clf = RobustClassifier(early_stopping=True, max_epochs=6, callbacks=[page["Pruning"](trial)], random_state=0)
    clf.fit(page["X"], page["y"])
    assert clf.stop_reason_ == page["PRUNED"] and list(trial.reported) == [1, 2] and len(clf.history_) == 2
    assert len(clf.predict(page["X"][:3])) == 3


def test_what_a_callback_raises_comes_out_of_fit_and_leaves_a_usable_classifier(page):
    class TrialPruned(Exception):
        pass

    class Raising(page["Pruning"]):
        def on_epoch_end(self, net, **kwargs):
            super().on_epoch_end(net, **kwargs)
            if self.trial.should_prune():
                raise TrialPruned("at epoch 2")

    callbacks = [Raising(Trial(pruned_at=2), monitor="train_loss")]
    clf = RobustClassifier(max_epochs=6, callbacks=callbacks, random_state=0)
    with pytest.raises(TrialPruned, match="at epoch 2"):
        clf.fit(page["X"], page["y"])
    assert clf.history_[:, "epoch"] == [1, 2] and len(clf.predict(page["X"][:3])) == 3
