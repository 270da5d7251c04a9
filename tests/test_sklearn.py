"""Networks as scikit-learn's estimators."""

import pickle
import re
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("sklearn")

from scipy.stats import loguniform
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_diabetes
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import tinygrad_zen as tz
from tinygrad_zen import data, nn
from tinygrad_zen.sklearn import Classifier, Regressor
from tinygrad_zen.train import Callback


@parametrize_with_checks(
    [Classifier(epochs=30, learning_rate=0.01), Regressor(epochs=30, learning_rate=0.01)]
)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def tumours():
    (x, y), test = data.breast_cancer()
    return (x, np.array(data.BREAST_CANCER_CLASSES)[y]), test


def test_cross_validation(tumours):
    """Five folds of a pipeline, with labels in words."""
    x, y = tumours[0]
    pipeline = make_pipeline(StandardScaler(), Classifier(epochs=10, random_state=0))
    scores = cross_val_score(pipeline, x, y, cv=5)
    assert len(scores) == 5 and scores.mean() > 0.9
    np.testing.assert_array_equal(scores, cross_val_score(pipeline, x, y, cv=5))


def test_grid_search(tumours):
    """A learning rate at which nothing is learned loses."""
    x, y = tumours[0]
    pipeline = make_pipeline(StandardScaler(), Classifier(epochs=5, random_state=0))
    grid = {"classifier__learning_rate": [1e-7, 1e-2], "classifier__hidden": [(8,), (16, 8)]}
    search = GridSearchCV(pipeline, grid, cv=3).fit(x, y)
    assert search.best_params_["classifier__learning_rate"] == 1e-2 and search.best_score_ > 0.9
    hidden = search.best_params_["classifier__hidden"]
    net = search.best_estimator_[-1].model_.net
    assert [p.shape[0] for name, p in net.named_parameters() if "bias" in name] == [*hidden, 2]


def test_random_search():
    x, y = load_diabetes(return_X_y=True)
    regressor = TransformedTargetRegressor(
        make_pipeline(StandardScaler(), Regressor(epochs=20, random_state=0)),
        transformer=StandardScaler(),
    )
    choices = {"regressor__regressor__learning_rate": loguniform(1e-3, 1e-2)}
    search = RandomizedSearchCV(regressor, choices, n_iter=3, cv=3, random_state=0).fit(x, y)
    assert search.best_score_ > 0.3  # of variance explained; a straight line reaches 0.48
    assert 1e-3 <= search.best_params_["regressor__regressor__learning_rate"] <= 1e-2


def two_moons(n=200):
    """Two classes that no line separates."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % 2
    angle = rng.uniform(0, np.pi, n)
    x = np.stack([np.cos(angle) * (1 - 2 * y) + y, np.sin(angle) * (1 - 2 * y) + y / 2], axis=1)
    return x + rng.normal(0, 0.05, x.shape), y


def test_the_generator_of_the_engine_is_left_alone():
    x, y = two_moons(64)
    before = tz.default_generator().bit_generator.state
    first = Classifier(epochs=2, random_state=3).fit(x, y)
    assert tz.default_generator().bit_generator.state == before
    tz.default_generator().random()
    second = clone(first).fit(x, y)
    np.testing.assert_array_equal(first.predict_proba(x), second.predict_proba(x))
    other = Classifier(epochs=2, random_state=4).fit(x, y)
    assert (first.predict_proba(x) != other.predict_proba(x)).any()


def test_early_stopping_gives_the_best_weights_back():
    x, y = two_moons()
    model = Classifier(
        epochs=200, learning_rate=0.05, validation_fraction=0.25, patience=3, random_state=0
    ).fit(x, y)
    losses = model.history_.history["val_loss"]
    assert model.n_iter_ == len(losses) < 200 and np.argmin(losses) == len(losses) - 4
    assert model.score(x, y) > 0.95


def convolutional(shape, outputs):
    channels, height, width = shape
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * (height - 2) * (width - 2), outputs),
    )


def test_a_network_of_ones_own_on_images():
    (x, y), (x_test, y_test) = data.digits()
    net = Classifier(convolutional, epochs=5, learning_rate=3e-3, random_state=0).fit(x, y)
    assert net.score(x_test, y_test) > 0.93
    assert net.model_.net[0].weight.dtype == np.float32  # as the images
    again = pickle.loads(pickle.dumps(net))
    np.testing.assert_array_equal(again.predict(x_test), net.predict(x_test))


def test_backend_and_callbacks():
    begun = []

    class Note(Callback):
        def on_train_begin(self):
            begun.append(self.model.net[0].weight.backend.name)

    x, y = two_moons(40)
    Classifier(epochs=1, backend="numpy", callbacks=Note()).fit(x, y)
    Classifier(epochs=1, backend="numpy", callbacks=[Note()]).fit(x, y)
    assert begun == ["numpy", "numpy"]


def test_targets_keep_their_shape():
    x = np.random.default_rng(0).normal(size=(50, 3))
    for y in (x[:, 0], x[:, :1], x[:, :2]):
        model = Regressor(epochs=40, learning_rate=0.02, random_state=0).fit(x, y)
        assert model.predict(x).shape == y.shape and model.score(x, y) > 0.9


def test_errors():
    x, y = two_moons(40)
    message = "Classifier: patience needs a validation_fraction above 0"
    with pytest.raises(ValueError, match=rf"\A{message}\Z"):
        Classifier(patience=3).fit(x, y)
    message = "Regressor: the dense net takes samples (N, features); got (N, 2, 1), which need a "
    with pytest.raises(ValueError, match=rf"\A{re.escape(message)}network of your own\Z"):
        Regressor().fit(x[:, :, None], y)
    with pytest.raises(ValueError, match="Classifier: there must be two classes or more; got one"):
        Classifier().fit(x, np.zeros(40, int))


def test_without_scikit_learn():
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "import tinygrad_zen as tz\n"
        "try: tz.sklearn\n"
        "except ImportError as e: print(e)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    expected = 'tinygrad_zen.sklearn needs scikit-learn: pip install "tinygrad-zen[sklearn]"\n'
    assert out.stdout == expected, out.stderr
