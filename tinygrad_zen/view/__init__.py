"""Pictures: of training (curves, confusion matrices, images, filters), and of a graph, walked through."""

from .plots import confusion_matrix, curves, filters, images
from .viewer import backprop

__all__ = ["backprop", "confusion_matrix", "curves", "filters", "images"]
