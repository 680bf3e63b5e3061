"""Baselines in NumPy: logistic regression and a neural network, for the 28 descriptors.

Both are a function from descriptors to one probability per genre, a loss, and the gradient of the
loss, which gradient descent with momentum follows.
"""

from __future__ import annotations

from typing import Self

import numpy as np

Parameters = dict[str, np.ndarray]
"""Weights and biases by name."""


def softmax(logits: np.ndarray) -> np.ndarray:
    """Logits [shape=(n, k)] -> probabilities that sum to 1 in each row.

    Examples
    --------
    >>> softmax(np.array([[0.0, 0.0]]))
    array([[0.5, 0.5]])
    """
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def _cross_entropy(logits, Y):
    """Mean of -log(probability of the true genre), without the logarithm of a tiny number."""
    logits = logits - logits.max(axis=1, keepdims=True)
    return (np.log(np.exp(logits).sum(axis=1)) - (logits * Y).sum(axis=1)).mean()


class LogisticRegression:
    """One logit per genre, a weighted sum of the descriptors; softmax makes it a probability.

    With two genres this is the classical logistic regression: the sigmoid of the difference of the
    two logits.

    Parameters
    ----------
    l2
        Factor of the L2 penalty: the sum of the squared weights is added to the loss.
    learning_rate, momentum
        Of the gradient descent.
    n_iter
        Number of steps; each uses all tracks.
    seed
        Of the initial weights. Logistic regression starts from zero and does not use it.

    Attributes
    ----------
    classes_ : np.ndarray [shape=(n_genres,)]
        The genres, sorted.
    mean_, scale_ : np.ndarray [shape=(n_descriptors,)]
        Mean and standard deviation of each descriptor.
    parameters_ : dict of np.ndarray
        After the training.
    losses_ : list of float
        The loss before each step.
    valid_losses_ : list of float
        The same on the validation tracks, if `fit` has some.

    Examples
    --------
    >>> X, y = [[1.0], [2.0], [8.0], [9.0]], ["jazz", "jazz", "pop", "pop"]
    >>> LogisticRegression().fit(X, y).predict([[0.0], [10.0]])
    array(['jazz', 'pop'], dtype='<U4')
    """

    def __init__(
        self,
        *,
        l2: float = 1e-3,
        learning_rate: float = 0.3,
        momentum: float = 0.9,
        n_iter: int = 500,
        seed: int = 0,
    ):
        self.l2, self.learning_rate, self.momentum = l2, learning_rate, momentum
        self.n_iter, self.seed = n_iter, seed

    def init_parameters(self, n_descriptors: int, n_genres: int) -> Parameters:
        """Initial parameters."""
        return {"W": np.zeros((n_descriptors, n_genres)), "b": np.zeros(n_genres)}

    def loss_and_gradients(
        self, parameters: Parameters, X: np.ndarray, Y: np.ndarray
    ) -> tuple[float, Parameters]:
        """The loss, and its derivative by each parameter.

        Parameters
        ----------
        X : np.ndarray [shape=(n, n_descriptors)]
        Y : np.ndarray [shape=(n, n_genres)]
            1 at the true genre, else 0.

        Returns
        -------
        loss
        gradients
            With the shapes of `parameters`.
        """
        logits = self.logits(parameters, X)
        loss = _cross_entropy(logits, Y) + self.l2 * (parameters["W"] ** 2).sum()
        delta = (softmax(logits) - Y) / len(X)
        return loss, {"W": X.T @ delta + 2 * self.l2 * parameters["W"], "b": delta.sum(axis=0)}

    def logits(self, parameters: Parameters, X: np.ndarray) -> np.ndarray:
        """Logits [shape=(n, n_genres)]: the scores before the softmax."""
        return X @ parameters["W"] + parameters["b"]

    def fit(
        self, X: np.ndarray, y: np.ndarray, valid: tuple[np.ndarray, np.ndarray] | None = None
    ) -> Self:
        """Train on descriptors and genres.

        Parameters
        ----------
        X : np.ndarray [shape=(n, n_descriptors)]
        y : np.ndarray [shape=(n,)]
        valid
            Descriptors and genres of validation tracks, whose loss is recorded.
        """
        X = np.asarray(X, dtype=float)
        self.classes_ = np.unique(y)
        # Standardise each descriptor: their units are Hertz, counts and others.
        self.mean_, self.scale_ = X.mean(axis=0), X.std(axis=0) + 1e-9
        X, Y = self._prepare(X, y)
        if valid is not None:
            valid = self._prepare(*valid)
        parameters = self.init_parameters(X.shape[1], len(self.classes_))
        velocity = {name: np.zeros_like(value) for name, value in parameters.items()}
        self.losses_, self.valid_losses_ = [], []
        for _ in range(self.n_iter):
            loss, gradients = self.loss_and_gradients(parameters, X, Y)
            self.losses_.append(loss)
            if valid is not None:
                self.valid_losses_.append(self.loss_and_gradients(parameters, *valid)[0])
            for name, gradient in gradients.items():
                velocity[name] = self.momentum * velocity[name] - self.learning_rate * gradient
                parameters[name] = parameters[name] + velocity[name]
        self.parameters_ = parameters
        return self

    def _prepare(self, X, y):
        """Standardised descriptors, and 1 at the genre of each track, else 0."""
        X, y = np.asarray(X, dtype=float), np.asarray(y)
        return (X - self.mean_) / self.scale_, (y[:, None] == self.classes_).astype(float)

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Probabilities [shape=(n, n_genres)], in the order of `classes_`."""
        X = (np.asarray(X, dtype=float) - self.mean_) / self.scale_
        return softmax(self.logits(self.parameters_, X))

    def predict(self, X: np.ndarray) -> np.ndarray:
        """The most probable genre of each row [shape=(n,)]."""
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


class NeuralNetwork(LogisticRegression):
    """A hidden layer between descriptors and logits: weighted sums, followed by tanh.

    Parameters
    ----------
    n_hidden
        Number of hidden units.
    **descent
        As for `LogisticRegression`.
    """

    def __init__(self, n_hidden: int = 64, **descent):
        super().__init__(**{"learning_rate": 0.1, **descent})
        self.n_hidden = n_hidden

    def init_parameters(self, n_descriptors: int, n_genres: int) -> Parameters:
        """Small random weights; they break the symmetry between hidden units."""
        rng = np.random.default_rng(self.seed)

        def draw(n_inputs, n_outputs):
            return rng.normal(0, 1 / np.sqrt(n_inputs), (n_inputs, n_outputs))

        return {
            "W1": draw(n_descriptors, self.n_hidden),
            "b1": np.zeros(self.n_hidden),
            "W2": draw(self.n_hidden, n_genres),
            "b2": np.zeros(n_genres),
        }

    def loss_and_gradients(
        self, parameters: Parameters, X: np.ndarray, Y: np.ndarray
    ) -> tuple[float, Parameters]:
        """As for `LogisticRegression`; backpropagation takes the error through both layers."""
        W1, W2 = parameters["W1"], parameters["W2"]
        hidden = self.hidden(parameters, X)
        logits = hidden @ W2 + parameters["b2"]
        loss = _cross_entropy(logits, Y) + self.l2 * ((W1**2).sum() + (W2**2).sum())
        delta2 = (softmax(logits) - Y) / len(X)  # derivative of the loss by the logits
        delta1 = (delta2 @ W2.T) * (1 - hidden**2)  # tanh' = 1 - tanh^2
        return loss, {
            "W1": X.T @ delta1 + 2 * self.l2 * W1,
            "b1": delta1.sum(axis=0),
            "W2": hidden.T @ delta2 + 2 * self.l2 * W2,
            "b2": delta2.sum(axis=0),
        }

    def hidden(self, parameters: Parameters, X: np.ndarray) -> np.ndarray:
        """Activations of the hidden units [shape=(n, n_hidden)]."""
        return np.tanh(X @ parameters["W1"] + parameters["b1"])

    def logits(self, parameters: Parameters, X: np.ndarray) -> np.ndarray:
        """Logits [shape=(n, n_genres)]: the scores before the softmax."""
        return self.hidden(parameters, X) @ parameters["W2"] + parameters["b2"]


def gradient_error(model: LogisticRegression, X: np.ndarray, Y: np.ndarray) -> float:
    """Largest difference between the gradients of a model and finite differences.

    A weight is moved by a small step up and down; the change of the loss divided by the distance
    approximates the derivative. This is done for every weight, at random parameters.

    Parameters
    ----------
    X, Y
        As for `LogisticRegression.loss_and_gradients`.

    Examples
    --------
    >>> X, Y = np.array([[1.0, -2.0], [0.5, 3.0]]), np.eye(2)
    >>> gradient_error(LogisticRegression(), X, Y) < 1e-8
    True
    """
    rng, step = np.random.default_rng(model.seed), 1e-5
    parameters = model.init_parameters(X.shape[1], Y.shape[1])
    parameters = {name: rng.normal(size=value.shape) for name, value in parameters.items()}
    _, gradients = model.loss_and_gradients(parameters, X, Y)
    largest = 0.0
    for name, value in parameters.items():
        for place in np.ndindex(value.shape):
            losses = []
            for sign in (1, -1):
                moved = value.copy()
                moved[place] += sign * step
                losses.append(model.loss_and_gradients({**parameters, name: moved}, X, Y)[0])
            difference = (losses[0] - losses[1]) / (2 * step) - gradients[name][place]
            largest = max(largest, abs(float(difference)))
    return largest
