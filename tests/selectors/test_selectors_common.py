"""What every selector promises; a new selector is one more row in INSTANCES."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_acs.selectors import CRAIG, GradMatch, RandomSelector

INSTANCES = [
    GradMatch(),
    GradMatch(per_class=True),
    GradMatch(n_select=1.0, ridge=0.0, atoms_per_step=3),
    CRAIG(),
    CRAIG(metric="sqeuclidean", per_class=True),
    RandomSelector(),
    RandomSelector(random_state=0, per_class=True),
]


@parametrize_with_checks(INSTANCES)
def test_scikit_learn_checks(estimator, check):
    check(estimator)
