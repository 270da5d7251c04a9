"""Datasets, batches, text, preparation and augmentation: NumPy arrays and texts in, NumPy arrays out."""

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
    sst2,
    tinyshakespeare,
)
from .loader import DataLoader
from .prepare import one_hot, split, standardize
from .text import Characters, Tokenizer, pad_sequences
from .wordpiece import WordPiece

__all__ = [
    "BREAST_CANCER_CLASSES",
    "BREAST_CANCER_FEATURES",
    "CIFAR10_CLASSES",
    "FASHION_MNIST_CLASSES",
    "Characters",
    "DataLoader",
    "Tokenizer",
    "WordPiece",
    "augment",
    "breast_cancer",
    "cifar10",
    "digits",
    "fashion_mnist",
    "mnist",
    "one_hot",
    "pad_sequences",
    "split",
    "sst2",
    "standardize",
    "tinyshakespeare",
]
