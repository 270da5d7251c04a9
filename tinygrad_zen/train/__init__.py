"""Training: Model with compile and fit, callbacks, metrics, history."""

from .callbacks import Callback, Checkpoint, EarlyStopping, LearningRate, ModelCheckpoint
from .history import History
from .metrics import (
    AUC,
    F1,
    Accuracy,
    BinaryAccuracy,
    ConfusionMatrix,
    MeanAbsoluteError,
    MeanSquaredError,
    Metric,
    Precision,
    Recall,
    TopK,
)
from .model import Model, load

__all__ = [
    "AUC",
    "F1",
    "Accuracy",
    "BinaryAccuracy",
    "Callback",
    "Checkpoint",
    "ConfusionMatrix",
    "EarlyStopping",
    "History",
    "LearningRate",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "Metric",
    "Model",
    "ModelCheckpoint",
    "Precision",
    "Recall",
    "TopK",
    "load",
]
