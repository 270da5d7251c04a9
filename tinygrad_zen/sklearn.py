"""Networks as scikit-learn's estimators: for its pipelines, cross-validation, grid and random search.

from sklearn.model_selection import GridSearchCV
search = GridSearchCV(tz.sklearn.Classifier(), {"hidden": [(16,), (64, 64)], "epochs": [20, 50]})
search.fit(x, y)
"""

import contextlib
import threading

import numpy as np

from . import nn
from .backend import default_backend, default_generator, using
from .train import Callback, EarlyStopping, Model

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        'tinygrad_zen.sklearn needs scikit-learn: pip install "tinygrad-zen[sklearn]"'
    ) from error

_ONE_FIT_AT_A_TIME = threading.Lock()  # they share the engine's random generator


class Estimator(BaseEstimator):
    """What Classifier and Regressor have in common: options, and the fit of a Model.

    network: None for a dense net with ReLU between layers of the widths `hidden`; or a function
    (shape of a sample, number of outputs) -> Module, for layers of your own. optimizer,
    learning_rate, batch_size, epochs, callbacks, verbose: as for Model.compile and Model.fit.
    validation_fraction: the share of samples, drawn at random, that is kept for validation; the
    loss over them, with patience=n, stops the training after n epochs without improvement and
    gives back the weights of the best one. random_state: an int makes every fit the same bits.
    backend: of the network; None for the default one. Samples are (N, features), or (N, ...) for a
    network of your own; it computes in their dtype, float32 or float64.

    Fitted: model_ (the Model), history_ (its History), n_iter_ (epochs done), n_features_in_.
    """

    def __init__(
        self,
        network=None,
        *,
        hidden=(64,),
        optimizer="adam",
        learning_rate=None,
        epochs=100,
        batch_size=32,
        validation_fraction=0.0,
        patience=None,
        callbacks=(),
        random_state=None,
        backend=None,
        verbose=0,
    ):
        self.network = network
        self.hidden = hidden
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.batch_size = batch_size
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.callbacks = callbacks
        self.random_state = random_state
        self.backend = backend
        self.verbose = verbose

    def _fit(self, x, y, outputs, loss):
        """Train a new network with that many outputs on samples and targets that were checked."""
        if self.patience is not None and not self.validation_fraction:
            raise ValueError(f"{type(self).__name__}: patience needs a validation_fraction above 0")
        given = self.callbacks
        callbacks = [given] if isinstance(given, Callback) else list(given)
        if self.patience is not None:
            callbacks.append(EarlyStopping(patience=self.patience, restore_best_weights=True))
        rng = check_random_state(self.random_state)
        if self.validation_fraction:  # fit takes the last ones
            order = rng.permutation(len(x))
            x, y = x[order], y[order]
        with (
            _ONE_FIT_AT_A_TIME,
            _seeded(rng.randint(2**31)),
            using(self.backend or default_backend()),
        ):
            make = self._dense if self.network is None else self.network
            self.model_ = Model(make(x.shape[1:], outputs).to(x.dtype.name))
            self.model_.compile(self.optimizer, loss, learning_rate=self.learning_rate)
            self.history_ = self.model_.fit(
                x,
                y,
                epochs=self.epochs,
                batch_size=self.batch_size,
                validation_split=self.validation_fraction,
                callbacks=callbacks,
                verbose=self.verbose,
            )
        self.n_iter_ = len(self.history_.epoch)
        return self

    def _outputs(self, x):
        """The network's outputs for samples, as they come from the user."""
        check_is_fitted(self)
        x = validate_data(self, x, reset=False, **_SAMPLES)
        return self.model_.predict(x, batch_size=max(256, self.batch_size))

    def _dense(self, shape, outputs):
        if len(shape) != 1:
            raise ValueError(
                f"{type(self).__name__}: the dense net takes samples (N, features); got (N, "
                f"{', '.join(map(str, shape))}), which need a network of your own"
            )
        widths = (*shape, *self.hidden, outputs)
        layers = [nn.Linear(a, b) for a, b in zip(widths, widths[1:], strict=False)]
        first = [layer for linear in layers[:-1] for layer in (linear, nn.ReLU())]
        return nn.Sequential(*first, layers[-1])


_SAMPLES = {"dtype": [np.float64, np.float32], "allow_nd": True}


class Classifier(ClassifierMixin, Estimator):
    """A network that tells classes apart, trained with cross-entropy; for its options see Estimator.

    Labels may be numbers or strings, (N,). The network gives scores (N, classes), whose softmax
    `predict_proba` returns. Fitted: classes_, the labels, sorted.
    """

    def fit(self, X, y):
        """Train on samples X (N, ...) and labels y (N,)."""
        X, y = validate_data(self, X, y, **_SAMPLES)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"Classifier: there must be two classes or more; got one class, {self.classes_[0]!r}"
            )
        return self._fit(X, labels.astype(np.int64), len(self.classes_), "cross_entropy")

    def predict_proba(self, X):
        """Probabilities of the classes: (N, classes), each row with sum 1."""
        scores = self._outputs(X)
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        return scores / scores.sum(axis=1, keepdims=True)

    def predict(self, X):
        """The most likely class of each sample: (N,) of the labels' kind."""
        best = self._outputs(X).argmax(axis=1)
        return self.classes_[best]


class Regressor(RegressorMixin, Estimator):
    """A network that predicts numbers, trained with the mean squared error; for options see Estimator.

    Targets are (N,) or (N, outputs), best scaled to about -1..1: put the estimator into
    scikit-learn's TransformedTargetRegressor for that.
    """

    def fit(self, X, y):
        """Train on samples X (N, ...) and numbers y, (N,) or (N, outputs)."""
        X, y = validate_data(self, X, y, multi_output=True, y_numeric=True, **_SAMPLES)
        self._shape = y.shape[1:]
        y = y.reshape(len(y), -1).astype(X.dtype)
        return self._fit(X, y, y.shape[1], "mse")

    def predict(self, X):
        """The predicted numbers: (N,) or (N, outputs), as the targets were."""
        outputs = self._outputs(X)
        return outputs.reshape(len(outputs), *self._shape)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


@contextlib.contextmanager
def _seeded(seed):
    """The engine's generator as after tz.seed(seed) inside the block, then as it was."""
    bits = default_generator().bit_generator
    before = bits.state
    bits.state = np.random.default_rng(seed).bit_generator.state
    try:
        yield
    finally:
        bits.state = before
