"""Training: Model with compile and fit, callbacks, metrics, history."""

from .callbacks import Callback, Checkpoint, EarlyStopping, LearningRate, ModelCheckpoint
from .history import History
from .loggers import CSVLogger, TensorBoard
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
from .penalties import L1, L2

__all__ = [
    "AUC",
    "F1",
    "L1",
    "L2",
    "Accuracy",
    "BinaryAccuracy",
    "CSVLogger",
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
    "TensorBoard",
    "TopK",
    "load",
]
