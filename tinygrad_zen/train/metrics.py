"""Metrics that stream over an epoch: exact for all samples, whatever the batches are.

A metric gathers counts or sums in `update` and divides once, in `result`. The mean over batches,
which it is often taken for, is wrong for uneven batches, and for F1 or AUC even for even ones.

    metric = Accuracy()
    for x, y in batches:
        metric.update(net(x), y)
    print(metric.result())

Predictions may be, with the target in brackets:
    (N, C) or (N, C, ...), scores of C > 1 classes   [labels (N) or (N, ...), or one-hot in their shape]
    (N,) or (N, 1), scores of the positive class     [labels 0 and 1, (N,) or (N, 1)]
    integers, classes that were chosen already       [labels of the same shape]
"""

import numpy as np


class Metric:
    """What every metric is: `reset()`, `update(prediction, target)`, `result()`, and a name."""

    name = "metric"

    def reset(self):
        """Forget all samples."""
        raise NotImplementedError(f"{type(self).__name__}.reset")

    def update(self, prediction, target):
        """Take in a batch: arrays or Tensors, in the shapes that the module's docstring lists."""
        raise NotImplementedError(f"{type(self).__name__}.update")

    def result(self):
        """The metric over all samples since `reset()`. Raises ValueError if there were none."""
        raise NotImplementedError(f"{type(self).__name__}.result")

    def state_dict(self):
        """What a checkpoint in the middle of an epoch holds: all attributes."""
        return dict(vars(self))

    def load_state_dict(self, state):
        """Go on counting where a state_dict() was taken."""
        vars(self).update(state)

    def _mean(self, total, count):
        if not count:
            raise ValueError(f"{self.name}: no samples were given")
        return float(total) / float(count)


class Accuracy(Metric):
    """The share of samples whose class is predicted right.

    The class is the one with the largest score; of a single score, whether it is above the threshold.
    That is 0.5 for probabilities and 0 for logits. from_logits says which they are; None leaves it to
    the loss that a Model is compiled with, and means probabilities otherwise.
    """

    name = "accuracy"

    def __init__(self, from_logits=None):
        self.from_logits = from_logits
        self.reset()

    def reset(self):
        self.right = self.count = 0

    def update(self, prediction, target):
        predicted, true = as_classes(self.name, prediction, target, self.from_logits)
        self.right += int((predicted == true).sum())
        self.count += true.size

    def result(self):
        return self._mean(self.right, self.count)


class BinaryAccuracy(Accuracy):
    """The share of yes/no answers that are right, element by element: (N,), (N, 1) or (N, labels).

    The target holds 0 and 1 (or -1 and 1) in the shape of the scores, or (N,) for (N, 1). Threshold as
    in Accuracy.
    """

    name = "binary_accuracy"

    def update(self, prediction, target):
        prediction, target = as_values(self.name, prediction, target)
        predicted = prediction > (0 if self.from_logits else 0.5)
        self.right += int((predicted == (as_labels(self.name, target) > 0)).sum())
        self.count += target.size


class TopK(Metric):
    """The share of samples whose true class is among the k with the largest scores, C > 1 classes.

    Among equal scores the lower class goes first.
    """

    def __init__(self, k=5):
        if k < 1:
            raise ValueError(f"top_k: k must be at least 1; got {k}")
        self.k = k
        self.name = f"top_{k}"
        self.reset()

    def reset(self):
        self.right = self.count = 0

    def update(self, prediction, target):
        scores, target = as_array(prediction), as_array(target)
        if scores.dtype.kind != "f" or scores.ndim < 2 or scores.shape[1] < 2:
            raise ValueError(
                f"{self.name}: scores (N, C) of C > 1 classes are needed; got {scores.shape}"
            )
        true = as_classes(self.name, scores, target)[1]
        rows = np.moveaxis(scores, 1, -1).reshape(-1, scores.shape[1])
        own = np.take_along_axis(rows, true[:, None], axis=1)
        before = np.arange(rows.shape[1]) < true[:, None]
        rank = ((rows > own) | ((rows == own) & before)).sum(axis=1)
        self.right += int((rank < self.k).sum())
        self.count += true.size

    def result(self):
        return self._mean(self.right, self.count)


class ConfusionMatrix(Metric):
    """How often each class (row) was taken for each (column): an int64 array (C, C).

    num_classes: C; if None, the matrix grows to the largest class seen. Thresholds as in Accuracy.
    Raises ValueError for labels that are negative or not below num_classes.
    """

    name = "confusion_matrix"

    def __init__(self, num_classes=None, from_logits=None):
        self.num_classes = num_classes
        self.from_logits = from_logits
        self.reset()

    def reset(self):
        self.counts = np.zeros((0, 0), np.int64)

    def update(self, prediction, target):
        predicted, true = as_classes(self.name, prediction, target, self.from_logits)
        if not true.size:
            return
        low, high = int(min(predicted.min(), true.min())), int(max(predicted.max(), true.max()))
        if low < 0 or (self.num_classes is not None and high >= self.num_classes):
            allowed = "0 or more" if self.num_classes is None else f"0..{self.num_classes - 1}"
            raise ValueError(
                f"{self.name}: classes must be {allowed}; got {low if low < 0 else high}"
            )
        prediction = as_array(prediction)
        columns = prediction.shape[1] if prediction.dtype.kind == "f" and prediction.ndim > 1 else 1
        size = max(len(self.counts), high + 1, columns if columns > 1 else 2)
        size = self.num_classes or size
        if size > len(self.counts):
            grown = np.zeros((size, size), np.int64)
            grown[: len(self.counts), : len(self.counts)] = self.counts
            self.counts = grown
        size = len(self.counts)
        self.counts += np.bincount(true * size + predicted, minlength=size * size).reshape(
            size, size
        )

    def result(self):
        self._mean(0, self.counts.sum())
        return self.counts.copy()


class _FromCounts(ConfusionMatrix):
    """Precision, recall and F1: ratios of counts of the confusion matrix.

    average: "binary" looks at class 1 of two; "macro" is the mean over the classes that were seen or
    predicted; "micro" counts all classes together. A ratio with nothing below the line is 0.
    """

    def __init__(self, average="binary", from_logits=None):
        if average not in ("binary", "macro", "micro"):
            raise ValueError(
                f"{self.name}: average must be 'binary', 'macro' or 'micro'; got {average!r}"
            )
        self.average = average
        super().__init__(from_logits=from_logits)

    def result(self):
        counts = super().result()
        if self.average == "binary" and len(counts) > 2:
            raise ValueError(
                f"{self.name}: average='binary' is for two classes; got {len(counts)}, use "
                f"{type(self).__name__}('macro') or ('micro')"
            )
        hits, predicted, true = counts.diagonal(), counts.sum(axis=0), counts.sum(axis=1)
        if self.average == "micro":
            return self._ratio(hits.sum(), predicted.sum(), true.sum())
        if self.average == "binary":
            return self._ratio(hits[1], predicted[1], true[1])
        seen = [self._ratio(*c) for c in zip(hits, predicted, true, strict=True) if c[1] or c[2]]
        return sum(seen) / len(seen)

    def _ratio(self, hits, predicted, true):
        raise NotImplementedError


class Precision(_FromCounts):
    """Of the samples predicted as a class, the share that is of it; average as `_FromCounts` says."""

    name = "precision"

    def _ratio(self, hits, predicted, true):
        return float(hits / predicted) if predicted else 0.0


class Recall(_FromCounts):
    """Of the samples of a class, the share that is predicted as it; average as `_FromCounts` says."""

    name = "recall"

    def _ratio(self, hits, predicted, true):
        return float(hits / true) if true else 0.0


class F1(_FromCounts):
    """The harmonic mean of precision and recall; average as `_FromCounts` says."""

    name = "f1"

    def _ratio(self, hits, predicted, true):
        return float(2 * hits / (predicted + true)) if predicted + true else 0.0


class AUC(Metric):
    """The area under the ROC curve: how likely a positive sample scores above a negative one.

    Exact, by ranks, with ties counted half; it keeps all scores. Scores (N,), (N, 1), or (N, 2) of
    two classes; logits and probabilities give the same. NaN as long as only one class was seen.
    """

    name = "auc"

    def __init__(self):
        self.reset()

    def reset(self):
        self.scores, self.labels = [], []

    def update(self, prediction, target):
        scores, target = as_array(prediction), as_array(target)
        if scores.ndim == 2 and scores.shape[1] == 2:
            if target.shape == scores.shape:
                target = target[:, 1]
            scores = scores[:, 1] - scores[:, 0]
        scores, target = as_values(self.name, scores, target)
        if scores.ndim > 1 and scores.shape[1] > 1:
            raise ValueError(
                f"{self.name}: scores of two classes are needed; got shape {scores.shape}"
            )
        labels = as_labels(self.name, target).reshape(-1)
        if ((labels < 0) | (labels > 1)).any():
            raise ValueError(
                f"{self.name}: labels must be 0 and 1; got {labels.min()}..{labels.max()}"
            )
        if np.isnan(scores).any():
            raise ValueError(f"{self.name}: the scores hold {int(np.isnan(scores).sum())} NaN")
        self.scores.append(scores.reshape(-1).copy())
        self.labels.append(labels)

    def result(self):
        self._mean(0, sum(map(len, self.labels)))
        scores, positive = np.concatenate(self.scores), np.concatenate(self.labels) == 1
        negatives = np.sort(scores[~positive])
        positives = scores[positive]
        if not len(negatives) or not len(positives):
            return float("nan")
        below = np.searchsorted(negatives, positives, "left")
        not_above = np.searchsorted(negatives, positives, "right")
        return float((below + not_above).mean() / 2 / len(negatives))


class MeanAbsoluteError(Metric):
    """The mean of |prediction - target| over all elements; equal shapes, or (N,) for (N, 1)."""

    name = "mae"

    def __init__(self):
        self.reset()

    def reset(self):
        self.total = self.count = 0

    def update(self, prediction, target):
        prediction, target = as_values(self.name, prediction, target)
        self.total += self._error(prediction.astype(np.float64) - target)
        self.count += target.size

    def _error(self, difference):
        return float(np.abs(difference).sum())

    def result(self):
        return self._mean(self.total, self.count)


class MeanSquaredError(MeanAbsoluteError):
    """The mean of (prediction - target)^2 over all elements; equal shapes, or (N,) for (N, 1)."""

    name = "mse"

    def _error(self, difference):
        return float(np.square(difference).sum())


METRICS = {
    "accuracy": Accuracy,
    "binary_accuracy": BinaryAccuracy,
    "top_5": TopK,
    "precision": Precision,
    "recall": Recall,
    "f1": F1,
    "auc": AUC,
    "confusion_matrix": ConfusionMatrix,
    "mae": MeanAbsoluteError,
    "mse": MeanSquaredError,
}


def as_array(x):
    """A NumPy array of anything array-like: a Tensor, an array of any backend, a list."""
    return x.numpy() if hasattr(x, "requires_grad") else np.asarray(x)


def as_values(name, prediction, target):
    """Both as arrays of one shape; (N,) and (N, 1) count as the same."""
    prediction, target = as_array(prediction), as_array(target)
    if prediction.shape == (*target.shape, 1) or target.shape == (*prediction.shape, 1):
        target = target.reshape(prediction.shape)
    if prediction.shape != target.shape:
        raise ValueError(
            f"{name}: prediction and target must have one shape; got {prediction.shape} and {target.shape}"
        )
    return prediction, target


def as_labels(name, target):
    """A target as integers. Raises ValueError for numbers that are not whole."""
    if target.dtype.kind == "f":
        whole = np.isfinite(target) & (target == np.floor(target))
        if not whole.all():
            raise ValueError(
                f"{name}: labels must be whole numbers; got {target[~whole].flat[0]:.4g}"
            )
    return target.astype(np.int64)


def as_classes(name, prediction, target, from_logits=None):
    """The predicted and the true classes, int64 (M,), of arrays as the module's docstring lists."""
    prediction, target = as_array(prediction), as_array(target)
    if prediction.dtype.kind != "f":
        prediction, target = as_values(name, prediction, target)
        predicted = prediction.astype(np.int64)
    elif prediction.ndim > 1 and prediction.shape[1] > 1:
        labels_shape = prediction.shape[:1] + prediction.shape[2:]
        if target.shape == prediction.shape:
            target = target.argmax(axis=1)
        elif target.shape == (*labels_shape, 1):
            target = target.reshape(labels_shape)
        if target.shape != labels_shape:
            raise ValueError(
                f"{name}: the target must be labels {labels_shape} or one-hot {prediction.shape}; got "
                f"{target.shape}"
            )
        predicted = prediction.argmax(axis=1)
    else:
        prediction, target = as_values(name, prediction, target)
        predicted = (prediction > (0 if from_logits else 0.5)).astype(np.int64)
    return predicted.reshape(-1), as_labels(name, target).reshape(-1)
