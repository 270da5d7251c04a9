"""Steps that are recorded once and replayed without the engine."""

from .step import Captured, capture
