"""Datasets, batches, preparation and augmentation: NumPy arrays in, NumPy arrays out."""

from . import augment
from .datasets import (
    BREAST_CANCER_CLASSES,
    BREAST_CANCER_FEATURES,
    CIFAR10_CLASSES,
    FASHION_MNIST_CLASSES,
    breast_cancer,
    cifar10,
    digits,
    fashion_mnist,
    mnist,
)
from .loader import DataLoader
from .prepare import one_hot, split, standardize

__all__ = [
    "BREAST_CANCER_CLASSES",
    "BREAST_CANCER_FEATURES",
    "CIFAR10_CLASSES",
    "FASHION_MNIST_CLASSES",
    "DataLoader",
    "augment",
    "breast_cancer",
    "cifar10",
    "digits",
    "fashion_mnist",
    "mnist",
    "one_hot",
    "split",
    "standardize",
]
