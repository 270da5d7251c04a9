"""tinygrad_zen.view: figures without pyplot, their content and their errors."""

import builtins
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("matplotlib")

import tinygrad_zen as tz
from tinygrad_zen import nn, view
from tinygrad_zen.train.history import History
from tinygrad_zen.view import figure as figures


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


def test_feature_maps():
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 2)
    )
    image = np.random.default_rng(0).random((1, 6, 6)).astype(np.float32)
    for layer in (net[1], "1"):
        figure = view.feature_maps(net, image, layer)
        shown = [ax.images[0].get_array() for ax in figure.axes if ax.images]
        expected = net[:2](tz.tensor(image[None])).numpy()[0]
        np.testing.assert_allclose(shown, expected, rtol=1e-5)
    assert is_png(figure._repr_png_()) and not net[1]._forward_hooks
    assert sum(bool(ax.images) for ax in view.feature_maps(net, image, "0", limit=2).axes) == 2
    with raises(r"feature_maps: an image \(C, H, W\) is needed; got \(6, 6\)"):
        view.feature_maps(net, image[0], "0")
    with raises("feature_maps: no layer 'conv': choose from 0, 1, 2, 3, 4"):
        view.feature_maps(net, image, "conv")
    with raises("feature_maps: the net did not use this ReLU"):
        view.feature_maps(net, image, nn.ReLU())
    with raises(r"feature_maps: the layer's output must be \(1, K, H, W\); got \(1, 2\)"):
        view.feature_maps(net, image, "4")


def test_saliency_is_the_gradient_of_the_score(backend):
    """Of a linear net it is the weight itself; and dropout is off meanwhile."""
    net = nn.Sequential(nn.Dropout(0.9), nn.Flatten(), nn.Linear(3 * 2 * 2, 4))
    weight = net[2].weight.numpy().reshape(4, 3, 2, 2)
    x = np.random.default_rng(0).random((3, 3, 2, 2)).astype(np.float32)
    figure = view.saliency(net, x, [1, 3, 0], classes=["a", "b", "c", "d"])
    tops, bottoms = figure.axes[:3], figure.axes[3:]
    assert [ax.get_title() for ax in tops] == ["b", "d", "a"] and net.training
    for ax, label in zip(bottoms, (1, 3, 0), strict=True):
        np.testing.assert_allclose(ax.images[0].get_array(), abs(weight[label]).max(0), rtol=1e-5)
    best = net.eval()(tz.tensor(x)).numpy().argmax(1)
    titles = [ax.get_title() for ax in view.saliency(net, x, limit=2).axes[:2]]
    assert titles == [str(label) for label in best[:2]]
    assert is_png(figure._repr_png_())
    with raises(r"saliency: images \(N, 1, H, W\) or \(N, 3, H, W\) are needed; got \(3, 2, 2\)"):
        view.saliency(net, x[0])
    with raises(r"saliency: labels must hold 3 labels; got \(1,\)"):
        view.saliency(net, x, [1])
    with raises(r"saliency: the net must give scores \(N, K\); got \(3, 3, 2, 2\)"):
        view.saliency(nn.Sequential(nn.Conv2d(3, 3, 1)), x)


def test_tiles():
    x = np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1).repeat(2, 2).repeat(2, 3)
    ax = view.tiles(x, columns=2).axes[0]
    sheet = [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 0, 0], [2, 2, 0, 0]]
    np.testing.assert_array_equal(ax.images[0].get_array(), sheet)
    colour = view.tiles(np.random.default_rng(0).random((5, 3, 4, 4)))
    assert colour.axes[0].images[0].get_array().shape == (8, 12, 3) and is_png(colour._repr_png_())
    with raises(r"tiles: images \(N, 1, H, W\) or \(N, 3, H, W\) are needed; got \(3, 2, 2\)"):
        view.tiles(x[:, 0])
    with raises("tiles: columns must be at least 1; got 0"):
        view.tiles(x, columns=0)


def test_attention():
    x = tz.tensor(np.random.default_rng(0).normal(size=(1, 3, 4)), dtype="float32")
    _, weights = nn.MultiheadAttention(4, 2, batch_first=True)(x, x, x, average_attn_weights=False)
    figure = view.attention(weights[0], ["a", "bad", "film"])
    panels = [ax for ax in figure.axes if ax.images]
    for ax, expected in zip(panels, weights.numpy()[0], strict=True):
        np.testing.assert_array_equal(ax.images[0].get_array(), expected)
        assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "bad", "film"]
    assert [label.get_text() for label in panels[0].get_yticklabels()] == ["a", "bad", "film"]
    assert is_png(figure._repr_png_()) and is_png(view.attention(np.eye(2, 3))._repr_png_())
    with raises(r"attention: weights \(L, S\) or \(heads, L, S\) are needed; got \(4,\)"):
        view.attention(np.ones(4))
    with raises("attention: 3 keys need 3 words; got 2"):
        view.attention(np.ones((2, 3)), ["a", "b"], ["c", "d"])


def test_without_matplotlib(monkeypatch):
    real = builtins.__import__

    def no_matplotlib(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    figures.figure_class.cache_clear()
    monkeypatch.setattr(builtins, "__import__", no_matplotlib)
    with pytest.raises(
        ImportError, match=r"matplotlib is not installed; `pip install \"tinygrad-zen\[plots\]\"`"
    ):
        view.confusion_matrix([[1]])
    figures.figure_class.cache_clear()


def test_pyplot_is_never_imported():
    code = (
        "import sys, tinygrad_zen.view as v; assert 'matplotlib' not in sys.modules;"
        "v.confusion_matrix([[1]])._repr_png_(); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
