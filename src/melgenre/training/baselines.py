"""Logistic regression and a neural network, written out in NumPy: what the story began with.

Both are a function from descriptors to one probability a genre, a loss that says how wrong it is,
and the gradient of that loss, followed downhill. Nothing here knows that it is about music.
"""

import numpy as np


def softmax(scores):
    """Scores [shape=(n, k)] -> probabilities that sum to 1 in each row."""
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def _cross_entropy(scores, Y):
    """Mean of -log(probability of the true genre), without taking the log of a tiny number."""
    scores = scores - scores.max(axis=1, keepdims=True)
    return (np.log(np.exp(scores).sum(axis=1)) - (scores * Y).sum(axis=1)).mean()


class LogisticRegression:
    """One score for each genre, a weighted sum of the descriptors; softmax makes it a probability.

    With two genres this is the classical logistic regression: the difference of the two scores
    goes through a sigmoid.

    Parameters
    ----------
    l2 : float
        Weight of the squared weights in the loss: large weights must be worth it.
    learning_rate, momentum : float
        Of the gradient descent.
    steps : int
        Each takes all tracks at once.
    seed : int
        Of the first weights; logistic regression starts from zero and has no use for it.
    """

    def __init__(self, *, l2=1e-3, learning_rate=0.3, momentum=0.9, steps=500, seed=0):
        self.l2, self.learning_rate, self.momentum = l2, learning_rate, momentum
        self.steps, self.seed = steps, seed

    def init_parameters(self, n_descriptors, n_genres):
        """Where the descent begins.

        Returns
        -------
        dict of np.ndarray
        """
        return {"W": np.zeros((n_descriptors, n_genres)), "b": np.zeros(n_genres)}

    def loss_and_gradients(self, parameters, X, Y):
        """The loss, and how it changes with each parameter.

        Parameters
        ----------
        parameters : dict of np.ndarray
        X : np.ndarray [shape=(n, n_descriptors)]
        Y : np.ndarray [shape=(n, n_genres)]
            1 at the true genre, else 0.

        Returns
        -------
        loss : float
        gradients : dict of np.ndarray
            Of the shapes of `parameters`.
        """
        W, b = parameters["W"], parameters["b"]
        scores = X @ W + b
        loss = _cross_entropy(scores, Y) + self.l2 * (W**2).sum()
        error = (softmax(scores) - Y) / len(X)
        return loss, {"W": X.T @ error + 2 * self.l2 * W, "b": error.sum(axis=0)}

    def scores(self, parameters, X):
        """Scores before the softmax [shape=(n, n_genres)]."""
        return X @ parameters["W"] + parameters["b"]

    def fit(self, X, y):
        """Learn from descriptors [shape=(n, n_descriptors)] and genres [shape=(n,)]."""
        X, y = np.asarray(X, dtype=float), np.asarray(y)
        self.classes_ = np.unique(y)
        # Hertz and counts side by side: each descriptor is measured in its own spread.
        self.mean_, self.scale_ = X.mean(axis=0), X.std(axis=0) + 1e-9
        X, Y = (X - self.mean_) / self.scale_, (y[:, None] == self.classes_).astype(float)
        parameters = self.init_parameters(X.shape[1], len(self.classes_))
        speed = {name: np.zeros_like(value) for name, value in parameters.items()}
        self.losses_ = []
        for _ in range(self.steps):
            loss, gradients = self.loss_and_gradients(parameters, X, Y)
            self.losses_.append(loss)
            for name, gradient in gradients.items():
                speed[name] = self.momentum * speed[name] - self.learning_rate * gradient
                parameters[name] = parameters[name] + speed[name]
        self.parameters_ = parameters
        return self

    def predict_proba(self, X):
        """Probabilities [shape=(n, n_genres)], in the order of `classes_`."""
        X = (np.asarray(X, dtype=float) - self.mean_) / self.scale_
        return softmax(self.scores(self.parameters_, X))

    def predict(self, X):
        """The most probable genre of each row [shape=(n,)]."""
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


class NeuralNetwork(LogisticRegression):
    """A layer of units between descriptors and scores: each a weighted sum, bent by tanh.

    Parameters
    ----------
    hidden : int
        Number of units.
    **descent
        As for `LogisticRegression`.
    """

    def __init__(self, hidden=64, **descent):
        super().__init__(**{"learning_rate": 0.1, **descent})
        self.hidden = hidden

    def init_parameters(self, n_descriptors, n_genres):
        """Small random weights: units that began alike would stay alike."""
        rng = np.random.default_rng(self.seed)

        def draw(inputs, outputs):
            return rng.normal(0, 1 / np.sqrt(inputs), (inputs, outputs))

        return {
            "W1": draw(n_descriptors, self.hidden), "b1": np.zeros(self.hidden),
            "W2": draw(self.hidden, n_genres), "b2": np.zeros(n_genres),
        }  # fmt: skip

    def loss_and_gradients(self, parameters, X, Y):
        """As for `LogisticRegression`; the error goes back through both layers."""
        W1, b1, W2, b2 = (parameters[name] for name in ("W1", "b1", "W2", "b2"))
        units = np.tanh(X @ W1 + b1)
        scores = units @ W2 + b2
        penalty = self.l2 * ((W1**2).sum() + (W2**2).sum())
        error = (softmax(scores) - Y) / len(X)
        # What of the error each unit is to blame for; tanh's own slope is 1 - tanh^2.
        blame = (error @ W2.T) * (1 - units**2)
        gradients = {
            "W1": X.T @ blame + 2 * self.l2 * W1, "b1": blame.sum(axis=0),
            "W2": units.T @ error + 2 * self.l2 * W2, "b2": error.sum(axis=0),
        }  # fmt: skip
        return _cross_entropy(scores, Y) + penalty, gradients

    def scores(self, parameters, X):
        """Scores before the softmax [shape=(n, n_genres)]."""
        units = np.tanh(X @ parameters["W1"] + parameters["b1"])
        return units @ parameters["W2"] + parameters["b2"]
