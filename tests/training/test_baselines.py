import numpy as np
from hypothesis import given, settings, strategies as st
from sklearn.linear_model import LogisticRegression as ScikitLogisticRegression

from melgenre.training.baselines import (
    LogisticRegression,
    NeuralNetwork,
    gradient_error,
    softmax,
)


@settings(max_examples=20)
@given(st.integers(0, 999), st.sampled_from([LogisticRegression, NeuralNetwork]))
def test_gradients_are_those_of_finite_differences(seed, model):
    rng = np.random.default_rng(seed)
    X, Y = rng.normal(size=(12, 5)), np.eye(3)[rng.integers(3, size=12)]
    options = {"n_hidden": 4} if model is NeuralNetwork else {}
    assert gradient_error(model(l2=0.01, seed=seed, **options), X, Y) < 1e-7


class Halved(NeuralNetwork):
    """A network with a mistake in one of its gradients."""

    def loss_and_gradients(self, parameters, X, Y):
        loss, gradients = super().loss_and_gradients(parameters, X, Y)
        return loss, {**gradients, "b1": gradients["b1"] / 2}


def test_a_wrong_gradient_is_found():
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(12, 5)), np.eye(3)[rng.integers(3, size=12)]
    assert gradient_error(Halved(4), X, Y) > 1e-3


@settings(max_examples=30)
@given(st.integers(0, 999), st.floats(-1e3, 1e3))
def test_softmax_gives_probabilities_that_do_not_depend_on_a_shift(seed, shift):
    logits = np.random.default_rng(seed).normal(0, 50, (7, 4))
    probabilities = softmax(logits)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    np.testing.assert_allclose(probabilities, softmax(logits + shift), atol=1e-9)


def three_clouds(seed=0):
    rng = np.random.default_rng(seed)
    y = np.resize(["blues", "jazz", "rock"], 300)
    centres = {"blues": (0, 0), "jazz": (3, 0), "rock": (0, 300)}
    X = np.array([centres[genre] for genre in y]) + rng.normal(size=(300, 2)) * [1, 100]
    return X, y


def test_logistic_regression_has_the_same_solution_as_scikit_learns():
    X, y = three_clouds()
    ours = LogisticRegression(l2=1e-3, n_iter=3000).fit(X, y)
    standardised = (X - X.mean(axis=0)) / X.std(axis=0)
    # scikit-learn sums the losses and halves the penalty.
    theirs = ScikitLogisticRegression(C=1 / (2 * 1e-3 * len(X)), tol=1e-8).fit(standardised, y)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(standardised), atol=1e-3)


def test_a_network_learns_classes_that_no_line_separates():
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (400, 2))
    y = np.where(X[:, 0] * X[:, 1] > 0, "same", "other")
    assert (LogisticRegression().fit(X, y).predict(X) == y).mean() < 0.7
    network = NeuralNetwork(16, l2=1e-5, n_iter=2000).fit(X, y)
    assert (network.predict(X) == y).mean() > 0.95
    assert network.losses_[-1] < network.losses_[0]


def test_the_same_seed_gives_the_same_network():
    X, y = three_clouds()
    one, two, other = (NeuralNetwork(8, n_iter=20, seed=seed).fit(X, y) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.predict_proba(X), two.predict_proba(X))
    assert not np.array_equal(one.predict_proba(X), other.predict_proba(X))


def test_the_validation_loss_is_recorded_and_changes_nothing():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 5)), np.repeat(["jazz", "pop", "rock"], 10)
    alone = NeuralNetwork(4, n_iter=20).fit(X, y)
    watched = NeuralNetwork(4, n_iter=20).fit(X, y, valid=(X[::3], y[::3]))
    assert alone.valid_losses_ == []
    np.testing.assert_array_equal(watched.losses_, alone.losses_)
    same = NeuralNetwork(4, n_iter=20).fit(X, y, valid=(X, y))
    np.testing.assert_allclose(same.valid_losses_, same.losses_)
