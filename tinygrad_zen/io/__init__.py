"""Files: state dicts, checkpoints and descriptions of networks, all in safetensors files."""

from .checkpoint import load_checkpoint, save_checkpoint
from .network import build, describe
from .states import check_writable, load_state, save_state, write_whole

__all__ = [
    "build",
    "check_writable",
    "describe",
    "load_checkpoint",
    "load_state",
    "save_checkpoint",
    "save_state",
    "write_whole",
]
