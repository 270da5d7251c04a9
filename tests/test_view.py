"""tinygrad_zen.view: figures without pyplot, their content and their errors."""

import builtins
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from tinygrad_zen import view
from tinygrad_zen.train.history import History
from tinygrad_zen.view import plots


def raises(message):
    return pytest.raises(ValueError, match=rf"\A{message}\Z")


@pytest.fixture
def history():
    history = History()
    for epoch in range(3):
        values = {"loss": 1 / (epoch + 1), "accuracy": epoch / 3, "val_loss": 1 / (epoch + 2)}
        history.append(epoch, values | {"matrix": np.eye(2), "time": 0.1})
    return history


def is_png(content):
    return content.startswith(b"\x89PNG\r\n")


def test_curves(history, tmp_path):
    figure = view.curves(history)
    assert [ax.get_title() for ax in figure.axes] == ["loss", "accuracy"]
    training, validation = figure.axes[0].lines
    assert training.get_label() == "training" and validation.get_label() == "validation"
    np.testing.assert_array_equal(training.get_xdata(), [1, 2, 3])
    np.testing.assert_allclose(validation.get_ydata(), [1 / 2, 1 / 3, 1 / 4])
    figure.savefig(tmp_path / "curves.png")
    assert is_png((tmp_path / "curves.png").read_bytes())
    assert len(view.curves(history.history).axes) == len(history.plot().axes) == 2
    with raises("curves: the history is empty; train for an epoch first"):
        view.curves(History())


def test_a_figure_shows_itself_in_a_notebook(history):
    assert is_png(view.curves(history)._repr_png_())


def test_confusion_matrix():
    figure = view.confusion_matrix([[5, 1], [0, 3]], classes=["cat", "dog"])
    ax = figure.axes[0]
    assert sorted(text.get_text() for text in ax.texts) == ["1", "3", "5"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["cat", "dog"]
    np.testing.assert_allclose(ax.images[0].get_array(), [[5 / 6, 1 / 6], [0, 1]])
    from_labels = view.confusion_matrix([0] * 6 + [1] * 3, [0] * 5 + [1] * 4)
    np.testing.assert_allclose(from_labels.axes[0].images[0].get_array(), [[5 / 6, 1 / 6], [0, 1]])
    assert is_png(view.confusion_matrix(np.eye(40, dtype=int))._repr_png_())
    assert is_png(
        view.confusion_matrix(np.zeros((2, 2), int), classes=["long name", "b"])._repr_png_()
    )
    with raises(
        r"confusion_matrix: a matrix \(C, C\), or true and predicted labels \(N,\), are needed; got "
        r"shape \(2, 3\)"
    ):
        view.confusion_matrix(np.zeros((2, 3)))
    with raises(r"confusion_matrix: 2 classes need 2 names; got 3"):
        view.confusion_matrix(np.eye(2), classes="abc")


def test_images():
    rng = np.random.default_rng(0)
    x = rng.random((5, 1, 4, 4))
    figure = view.images(x, [0, 1, 2, 0, 1], [0, 1, 1, 0, 1], classes=["cat", "dog", "owl"])
    titles = [(ax.get_title(), ax.title.get_color()) for ax in figure.axes if ax.images]
    assert titles[0] == ("cat", "black") and titles[2] == ("owl, not dog", "red")
    assert is_png(figure._repr_png_())
    plain = view.images((rng.random((3, 3, 4, 4)) * 255).astype(np.uint8))
    assert sum(bool(ax.images) for ax in plain.axes) == 3 and is_png(plain._repr_png_())
    assert view.images(x, true=[0] * 5).axes[0].get_title() == "0"
    assert sum(bool(ax.images) for ax in view.images(x, limit=2).axes) == 2
    assert is_png(view.images(x * 6 - 3)._repr_png_())  # beyond 0..1: stretched
    with raises(r"images: images \(N, 1, H, W\) or \(N, 3, H, W\) are needed; got \(5, 4, 4\)"):
        view.images(x[:, 0])
    with raises(r"images: images \(N, 1, H, W\) or \(N, 3, H, W\) are needed; got \(0, 1, 4, 4\)"):
        view.images(x[:0])
    with raises(r"images: predicted must hold 5 labels; got \(2,\)"):
        view.images(x, [0, 1])


def test_filters():
    weight = np.random.default_rng(0).normal(size=(6, 1, 3, 3)).astype(np.float32)
    weight[0] = 1  # constant: no range to stretch
    figure = view.filters(weight)
    shown = [ax.images[0].get_array() for ax in figure.axes if ax.images]
    assert len(shown) == 6 and shown[1].min() == 0 and shown[1].max() == 1
    colour = np.random.default_rng(0).normal(size=(2, 3, 3, 3))
    assert view.filters(colour).axes[0].images[0].get_array().shape == (3, 3, 3)
    with raises(r"filters: a weight \(K, C, H, W\) is needed; got \(3, 4\)"):
        view.filters(np.zeros((3, 4)))


def test_without_matplotlib(monkeypatch):
    real = builtins.__import__

    def no_matplotlib(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    plots._figure_class.cache_clear()
    monkeypatch.setattr(builtins, "__import__", no_matplotlib)
    with pytest.raises(
        ImportError, match=r"matplotlib is not installed; `pip install \"tinygrad-zen\[plots\]\"`"
    ):
        view.confusion_matrix([[1]])
    plots._figure_class.cache_clear()


def test_pyplot_is_never_imported():
    code = (
        "import sys, tinygrad_zen.view as v; assert 'matplotlib' not in sys.modules;"
        "v.confusion_matrix([[1]])._repr_png_(); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
