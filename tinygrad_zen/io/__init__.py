"""Files: state dicts, checkpoints and descriptions of networks, all in safetensors files."""

from .checkpoint import load_checkpoint, read_checkpoint, save_checkpoint
from .files import FileError, check_writable, decode, parse_json, read_file, write_whole
from .network import build, describe
from .states import load_state, save_state

__all__ = [
    "FileError",
    "build",
    "check_writable",
    "decode",
    "describe",
    "load_checkpoint",
    "load_state",
    "parse_json",
    "read_checkpoint",
    "read_file",
    "save_checkpoint",
    "save_state",
    "write_whole",
]
