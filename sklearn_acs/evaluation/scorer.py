"""`robust_scorer` makes accuracy under attack a scorer for scikit-learn's model selection."""

from typing import Any

from sklearn_acs._compat import BaseScorer
from sklearn_acs.attacks import ATTACKS, Attack
from sklearn_acs.evaluation.accuracy import robust_accuracy
from sklearn_acs.model import last_step
from sklearn_acs.params import make_part


class RobustScorer(BaseScorer):
    """Scores estimators by accuracy under attack, as ``(estimator, X, y) -> float``; made by `robust_scorer`.

    It is one of scikit-learn's scorers: with metadata routing enabled, searches and `cross_validate` hand it weights
    after ``set_score_request(sample_weight=True)``.
    """

    def __init__(self, attack: Attack | str | None) -> None:
        super().__init__(robust_accuracy, 1, {"attack": attack})
        self.attack = attack

    def __call__(self, estimator: Any, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Score a fitted estimator, a search's best one, or the last step of a pipeline."""
        return self._score(None, estimator, X, y, sample_weight)

    def _score(self, method_caller: Any, estimator: Any, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        estimator, X = last_step(estimator, X)
        if not hasattr(estimator, "robust_score"):
            raise TypeError(
                "robust_scorer needs an estimator with robust_score, as RobustClassifier has, perhaps at the end of a "
                f"Pipeline or a search; got {type(estimator).__name__}"
            )
        return estimator.robust_score(X, y, attack=self.attack, sample_weight=sample_weight)

    def __repr__(self) -> str:
        return f"robust_scorer({self.attack!r})"


def robust_scorer(attack: Attack | str | None = None) -> RobustScorer:
    """Make a scorer that measures accuracy under an attack, for GridSearchCV and cross_validate.

    Parameters
    ----------
    attack : Attack, str or None, default=None
        The attack; None is the one each candidate was trained against. Candidates that are trained against
        different attacks compare only under one and the same, so name it. At the end of a Pipeline, scikit-learn's or
        imbalanced-learn's, it moves what the last step gets, in those units.

    Returns
    -------
    RobustScorer
        ``scorer(estimator, X, y) -> float``, greater being better. With metadata routing enabled,
        ``set_score_request(sample_weight=True)`` has it weight the samples.

    See Also
    --------
    robust_accuracy : The same number for one model.

    Examples
    --------
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklearn_acs import PGD, RobustClassifier, robust_scorer
    >>> search = GridSearchCV(
    ...     RobustClassifier(objective="trades"),
    ...     {"objective__beta": [1, 6], "coreset_frac": [0.3, 0.5]},
    ...     scoring={"clean": "accuracy", "robust": robust_scorer(PGD(eps=0.1, steps=20))},
    ...     refit="robust",
    ... )
    """
    made = attack if attack is None else make_part("attack", attack, ATTACKS, base=Attack)
    return RobustScorer(attack if isinstance(attack, str) else made)
