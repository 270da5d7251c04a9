"""Pictures of training: curves, confusion matrices, images, filters. Each function returns a Figure."""

from .plots import confusion_matrix, curves, filters, images

__all__ = ["confusion_matrix", "curves", "filters", "images"]
