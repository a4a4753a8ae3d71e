"""Labels, logits and gradients read off cross-entropy's gradients equal autograd's."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from sklearn_acs.gradients import LastLayerGradients
from sklearn_acs.selectors._cross_entropy import CrossEntropy, FixedGradient, undo_cross_entropy

M, C, D = 15, 3, 4
generator = torch.Generator().manual_seed(0)
W = torch.randn(C, D + 1, generator=generator, dtype=torch.float64)
H1 = torch.randn(M, D + 1, generator=generator, dtype=torch.float64)
LABELS = torch.randint(C, (M,), generator=generator)
V = LastLayerGradients([((H1 @ W.T).softmax(1) - torch.eye(C)[LABELS], H1)])


def validation_gradient(layer):
    """Differentiate the mean loss by the weights of the layer, flat."""
    layer = layer.clone().requires_grad_()
    return torch.autograd.grad(cross_entropy(H1 @ layer.T, LABELS), layer)[0].flatten()


def test_labels_and_probabilities_follow_from_the_gradients():
    labels, probabilities = undo_cross_entropy(V.to(torch.float32), torch.float64)
    torch.testing.assert_close(labels, LABELS)
    torch.testing.assert_close(probabilities, (H1 @ W.T).softmax(1), atol=1e-6, rtol=0)


def test_the_gradient_is_that_of_the_loss_wherever_the_layer_moves():
    loss, step = CrossEntropy.of(V), torch.randn(C, D + 1, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(loss.labels.argmax(0), LABELS)
    torch.testing.assert_close(loss.logits.log_softmax(0), (W @ H1.T).log_softmax(0))
    torch.testing.assert_close(loss.gradient(), validation_gradient(W))
    torch.testing.assert_close(loss.after(step.flatten()).gradient(), validation_gradient(W - step))


def test_several_layers_move_side_by_side():
    steps = torch.randn(2, 4, C, D + 1, generator=generator, dtype=torch.float64)
    gradients = CrossEntropy.of(V).after(steps[0].flatten(1)).after(steps[1].flatten(1)).gradient()
    for gradient, step in zip(gradients, steps.sum(0), strict=True):
        torch.testing.assert_close(gradient, validation_gradient(W - step))


def test_a_fixed_gradient_moves_nowhere():
    loss = FixedGradient(torch.ones(3)).to(torch.device("cpu"), torch.float64)
    torch.testing.assert_close(loss.after(torch.ones(3)).gradient(), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-6), (torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_gradients_in_lower_precision_are_taken_for_what_they_are(dtype, tolerance):
    low = CrossEntropy.of(V.to(dtype))
    np.testing.assert_allclose(low.gradient(), CrossEntropy.of(V).gradient(), atol=tolerance)
    np.testing.assert_array_equal(low.labels, CrossEntropy.of(V).labels)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [30.0, 1e4])
def test_probabilities_that_round_to_zero_and_one_stay_finite(scale, dtype):
    h1 = H1.to(dtype)
    g = (scale * h1 @ W.T.to(dtype)).softmax(1) - torch.eye(C)[LABELS]
    loss = CrossEntropy.of(LastLayerGradients([(g, h1)]))
    assert loss.logits.isfinite().all()
    torch.testing.assert_close(loss.gradient(), (g.T @ h1).flatten() / M)


@pytest.mark.parametrize("spoil", [lambda g: g[:, :1] * 0, lambda g: -g, lambda g: 1.5 * g, lambda g: g + 0.1])
def test_other_gradients_are_refused(spoil):
    with pytest.raises(ValueError, match=r"softmax - onehot of two classes or more.*row \d+ is \["):
        undo_cross_entropy(LastLayerGradients([(spoil(V.branches[0][0]), H1)]), torch.float64)
