"""tinygrad_zen.train.metrics against scikit-learn, in uneven batches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_zen as tz
from tinygrad_zen.train import metrics
from tinygrad_zen.train.metrics import METRICS

judge = pytest.importorskip("sklearn.metrics")


def raises(message):
    return pytest.raises(ValueError, match=rf"\A{message}\Z")


def streamed(metric, prediction, target, cuts=(1, 2, 40)):
    """The result of a metric that is given the samples in parts of uneven size."""
    for part in zip(np.split(prediction, cuts), np.split(target, cuts), strict=True):
        metric.update(*part)
    return metric.result()


def multi_class(seed, n=97, classes=4):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n, classes)).astype(np.float32)
    return scores, rng.integers(0, classes, n)


def two_class(seed, n=97):
    rng = np.random.default_rng(seed)
    # few distinct values: many ties
    return rng.integers(0, 11, n).astype(np.float32) / 10, rng.integers(0, 2, n)


@pytest.mark.parametrize("seed", range(5))
def test_multi_class(seed):
    scores, labels = multi_class(seed)
    chosen = scores.argmax(axis=1)
    assert streamed(metrics.Accuracy(), scores, labels) == judge.accuracy_score(labels, chosen)
    matrix = streamed(metrics.ConfusionMatrix(), scores, labels)
    np.testing.assert_array_equal(matrix, judge.confusion_matrix(labels, chosen))
    for k in (1, 2, 3):
        expected = judge.top_k_accuracy_score(labels, scores, k=k, labels=range(4))
        assert streamed(metrics.TopK(k), scores, labels) == pytest.approx(expected)
    for average in ("macro", "micro"):
        for metric, function in (
            (metrics.Precision, judge.precision_score),
            (metrics.Recall, judge.recall_score),
            (metrics.F1, judge.f1_score),
        ):
            expected = function(labels, chosen, average=average, zero_division=0)
            assert streamed(metric(average), scores, labels) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_two_classes(seed):
    probability, labels = two_class(seed)
    chosen = probability > 0.5
    for shape in ((-1,), (-1, 1)):  # outputs (N,) and (N, 1), labels (N,)
        p = probability.reshape(shape)
        assert streamed(metrics.Accuracy(), p, labels) == judge.accuracy_score(labels, chosen)
        assert streamed(metrics.BinaryAccuracy(), p, labels) == judge.accuracy_score(labels, chosen)
        assert streamed(metrics.Precision(), p, labels) == judge.precision_score(labels, chosen)
        assert streamed(metrics.Recall(), p, labels) == judge.recall_score(labels, chosen)
        assert streamed(metrics.F1(), p, labels) == pytest.approx(judge.f1_score(labels, chosen))
        auc = streamed(metrics.AUC(), p, labels)
        assert auc == pytest.approx(judge.roc_auc_score(labels, probability))
    both = np.stack([1 - probability, probability], axis=1)
    assert streamed(metrics.AUC(), both, labels) == pytest.approx(auc)
    assert streamed(metrics.AUC(), both, np.eye(2)[labels]) == pytest.approx(auc)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.booleans()), min_size=1))
def test_auc_is_the_share_of_ordered_pairs(samples):
    scores, labels = np.array([s for s, _ in samples]), np.array([y for _, y in samples])
    pairs = [(p > n) + (p == n) / 2 for p in scores[labels] for n in scores[~labels]]
    result = streamed(metrics.AUC(), scores, labels, cuts=(len(samples) // 2,))
    assert result == pytest.approx(np.mean(pairs)) if pairs else np.isnan(result)


def test_logits_have_their_threshold_at_0():
    logits, labels = np.array([[-1.0], [0.2], [0.7]]), np.array([0, 1, 1])
    for kind in (metrics.Accuracy, metrics.BinaryAccuracy):
        assert streamed(kind(from_logits=True), logits, labels, ()) == 1
        assert streamed(kind(), logits, labels, ()) == pytest.approx(2 / 3)
    assert streamed(metrics.Recall(from_logits=True), logits, labels, ()) == 1
    assert streamed(metrics.Recall(), logits, labels, ()) == 0.5


def test_targets_may_be_one_hot_columns_or_whole_floats():
    scores, labels = multi_class(0)
    expected = streamed(metrics.Accuracy(), scores, labels)
    for target in (np.eye(4)[labels], labels.reshape(-1, 1), labels.astype(float)):
        assert streamed(metrics.Accuracy(), scores, target) == expected
    assert streamed(metrics.Accuracy(), scores.argmax(axis=1), labels) == expected
    assert streamed(metrics.TopK(1), scores, np.eye(4)[labels]) == expected


def test_classes_lie_along_axis_1_of_higher_arrays():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(5, 3, 7)), rng.integers(0, 3, (5, 7))
    expected = (scores.argmax(axis=1) == labels).mean()
    assert streamed(metrics.Accuracy(), scores, labels, (2,)) == pytest.approx(expected)
    assert streamed(metrics.TopK(1), scores, labels, (2,)) == pytest.approx(expected)
    assert streamed(metrics.TopK(3), scores, labels, (2,)) == 1


def test_multi_label_answers_count_one_by_one():
    prediction, target = np.array([[0.9, 0.1], [0.8, 0.7]]), np.array([[1, 0], [0, 1]])
    assert streamed(metrics.BinaryAccuracy(), prediction, target, ()) == 0.75


def test_errors_of_numbers():
    rng = np.random.default_rng(0)
    prediction, target = rng.normal(size=(97, 1)), rng.normal(size=97)
    mse = streamed(metrics.MeanSquaredError(), prediction, target)
    assert mse == pytest.approx(judge.mean_squared_error(target, prediction[:, 0]))
    mae = streamed(metrics.MeanAbsoluteError(), prediction, target)
    assert mae == pytest.approx(judge.mean_absolute_error(target, prediction[:, 0]))


def test_tensors_and_lists_are_taken():
    metric = metrics.Accuracy()
    metric.update(tz.tensor([[0.1, 0.9], [0.8, 0.2]]), tz.tensor([1, 1]))
    metric.update([[0.1, 0.9]], [1])
    assert metric.result() == pytest.approx(2 / 3)


def test_ratios_with_nothing_below_the_line_are_0():
    for kind in (metrics.Precision, metrics.Recall, metrics.F1):
        assert streamed(kind(), np.array([0.1, 0.2]), np.array([0, 0]), ()) == 0
    scores = np.eye(4)[[0, 1, 1]]
    assert (
        streamed(metrics.F1("macro"), scores, np.array([0, 1, 1]), ()) == 1
    )  # classes 2, 3 unseen


def test_confusion_matrix_grows_or_has_its_size():
    metric = metrics.ConfusionMatrix()
    metric.update(np.array([0, 1]), np.array([0, 0]))
    np.testing.assert_array_equal(metric.result(), [[1, 1], [0, 0]])
    metric.update(np.array([2]), np.array([1]))
    np.testing.assert_array_equal(metric.result(), [[1, 1, 0], [0, 0, 1], [0, 0, 0]])
    metric = metrics.ConfusionMatrix(num_classes=3)
    metric.update(np.array([0]), np.array([0]))
    assert metric.result().shape == (3, 3)
    with raises(r"confusion_matrix: classes must be 0..2; got 3"):
        metric.update(np.array([3]), np.array([0]))
    with raises(r"confusion_matrix: classes must be 0 or more; got -1"):
        metrics.ConfusionMatrix().update(np.array([0]), np.array([-1]))


@pytest.mark.parametrize("name", METRICS)
def test_no_samples_are_an_error_and_reset_forgets(name):
    metric = METRICS[name]()
    with raises(rf"{name}: no samples were given"):
        metric.result()
    classes = 2 if name in ("top_5", "auc") else 1
    prediction = np.linspace(0, 1, 6 * classes).reshape(6, classes)
    target = np.array([0, 1, 0, 1, 1, 0])
    metric.update(prediction, target)
    before = metric.result()
    metric.update(prediction[:0], target[:0])  # an empty batch changes nothing
    np.testing.assert_array_equal(metric.result(), before)
    metric.reset()
    with raises(rf"{name}: no samples were given"):
        metric.result()
    metric.update(prediction, target)
    np.testing.assert_array_equal(metric.result(), before)


def test_messages():
    scores = np.zeros((3, 4))
    with raises(r"accuracy: the target must be labels \(3,\) or one-hot \(3, 4\); got \(2,\)"):
        metrics.Accuracy().update(scores, np.zeros(2, int))
    with raises(r"accuracy: prediction and target must have one shape; got \(3,\) and \(4,\)"):
        metrics.Accuracy().update(np.zeros(3), np.zeros(4))
    with raises(r"accuracy: labels must be whole numbers; got 0.5"):
        metrics.Accuracy().update(scores, np.array([0, 0.5, 1]))
    with raises(r"accuracy: labels must be whole numbers; got nan"):
        metrics.Accuracy().update(scores, np.array([0, np.nan, 1]))
    with raises(r"top_k: k must be at least 1; got 0"):
        metrics.TopK(0)
    with raises(r"top_5: scores \(N, C\) of C > 1 classes are needed; got \(3,\)"):
        metrics.TopK().update(np.zeros(3), np.zeros(3, int))
    with raises(r"f1: average must be 'binary', 'macro' or 'micro'; got 'weighted'"):
        metrics.F1("weighted")
    with raises(
        r"recall: average='binary' is for two classes; got 4, use Recall\('macro'\) or \('micro'\)"
    ):
        streamed(metrics.Recall(), scores, np.zeros(3, int))
    with raises(r"auc: scores of two classes are needed; got shape \(3, 4\)"):
        metrics.AUC().update(scores, scores)
    with raises(r"auc: labels must be 0 and 1; got 0..2"):
        metrics.AUC().update(np.zeros(3), np.array([0, 1, 2]))
    with raises(r"auc: the scores hold 1 NaN"):
        metrics.AUC().update(np.array([0, np.nan, 1]), np.array([0, 1, 1]))
    with raises(r"mae: prediction and target must have one shape; got \(3, 4\) and \(3,\)"):
        metrics.MeanAbsoluteError().update(scores, np.zeros(3))
    with pytest.raises(NotImplementedError):
        metrics.Metric().update([], [])
