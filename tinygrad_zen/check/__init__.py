"""Proofs for ops: gradients against differences, backends against each other; and a detective."""

from . import domains
from .debug import debug
from .gradcheck import GradientError, gradcheck
from .lockstep import Lockstep, lockstep
from .parity import Difference, ParityError, parity
from .profile import Profile, profile
from .races import races
