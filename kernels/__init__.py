"""Kernels: functions on arrays, one folder a style, the same names in each.

Installed as `tinygrad_zen.kernels`. A kernel takes arrays and numbers, returns arrays, knows nothing
of Tensors and never checks a user's input: the ops above do that, once for every backend.
"""

if __name__ == "kernels":
    raise ImportError(
        "kernels: import it as tinygrad_zen.kernels (the folder is part of the package tinygrad_zen; "
        "`pip install -e .` in the project's root maps it there)"
    )
