"""DynamicsDisplay: shares from a history, a callback or its table."""

import numpy as np
import pytest

from sklearn_acs import Dynamics, DynamicsDisplay


def test_areas_lie_on_each_other_up_to_all_samples():
    display = DynamicsDisplay(outlier=[5, 1], boundary=[3, 2], robust=[2, 7]).plot()
    tops = {group: area.get_data().values for group, area in display.areas_.items()}
    np.testing.assert_allclose(tops["robust"], [0.2, 0.7])
    np.testing.assert_allclose(tops["boundary"], [0.5, 0.9])
    np.testing.assert_allclose(tops["outlier"], [1, 1])
    np.testing.assert_allclose(display.areas_["boundary"].get_data().baseline, tops["robust"])
    assert display.ax_.get_xlim() == (0.5, 2.5)
    assert [text.get_text() for text in display.legend_.get_texts()] == ["robust", "boundary", "outlier"]


def test_history_callback_and_table_tell_the_same(clf):
    dynamics = clf.callbacks[0]
    displays = [
        DynamicsDisplay.from_estimator(clf),
        DynamicsDisplay.from_dynamics(dynamics),
        DynamicsDisplay.from_dynamics(dynamics.table_),
    ]
    for group in ("outlier", "boundary", "robust"):
        assert len({tuple(getattr(display, group).tolist()) for display in displays}) == 1
        assert getattr(displays[0], group).tolist() == dynamics.table_[group]
    assert (displays[0].outlier + displays[0].boundary + displays[0].robust == 100).all()


def test_one_epoch_is_enough():
    assert DynamicsDisplay(outlier=[1], boundary=[1], robust=[2]).plot().ax_.get_xlim() == (0.5, 1.5)


def test_bad_input_is_refused(plain_clf):
    with pytest.raises(ValueError, match=r"fit it with callbacks=\[Dynamics\(\)\]"):
        DynamicsDisplay.from_estimator(plain_clf)
    with pytest.raises(ValueError, match="dynamics must be a Dynamics that has followed a fit"):
        DynamicsDisplay.from_dynamics(Dynamics())
    with pytest.raises(ValueError, match=r"of one length, 1 or more; got shapes \[\(1,\), \(2,\)\]"):
        DynamicsDisplay(outlier=[1], boundary=[1, 2], robust=[1])
    with pytest.raises(ValueError, match="of one length, 1 or more"):
        DynamicsDisplay(outlier=[], boundary=[], robust=[])
