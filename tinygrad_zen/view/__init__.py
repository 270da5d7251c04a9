"""Pictures: of training, of images and what a network sees in them, and of a graph, walked through."""

from .images import feature_maps, filters, images, saliency, tiles
from .plots import attention, confusion_matrix, curves
from .viewer import backprop

__all__ = [
    "attention",
    "backprop",
    "confusion_matrix",
    "curves",
    "feature_maps",
    "filters",
    "images",
    "saliency",
    "tiles",
]
