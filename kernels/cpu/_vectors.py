"""Vector instructions for kernels, written by hand: what Numba's language cannot say.

Numba has no vector types. Usually LLVM finds the vector instructions in plain loops; where it does not,
an @intrinsic writes them: a function that is called while a kernel compiles, and appends instructions
to it. They are generic vector arithmetic, which LLVM translates for any processor; only the size of
the vectors is chosen here.
"""

import functools
import platform

from llvmlite import binding, ir
from numba import carray, njit, types
from numba.core import cgutils, config
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from ._compiled import INLINED


def _registers():
    """(bytes of a vector register, number of them) on the CPU that Numba compiles for."""
    features = config.CPU_FEATURES  # set by NUMBA_CPU_FEATURES, or by NUMBA_CPU_NAME=generic
    if features is None:
        features = binding.get_host_cpu_features().flatten()
    has = set(features.split(","))
    if "+avx512f" in has:
        return 64, 32
    if "+avx2" in has and "+fma" in has:
        return 32, 16
    return 16, 32 if platform.machine() in ("aarch64", "arm64") else 16


VECTOR_BYTES, REGISTERS = _registers()

# The bytes that a processor multiplies at once. Zen 4 has the registers of AVX-512 and computes on them
# in halves.
MULTIPLIED = min(VECTOR_BYTES, 32) if binding.get_host_cpu_name() == "znver4" else VECTOR_BYTES


def pointers(context, builder, signature, args):
    """The arguments, with each array replaced by the pointer to its first number."""
    return [
        context.make_array(kind)(context, builder, arg).data
        if isinstance(kind, types.Array)
        else arg
        for kind, arg in zip(signature.args, args, strict=True)
    ]


def repeat(builder, count, values, body, least=1):
    """Write a loop of count >= least rounds, `values = body(i, values)`; returns the last values.

    LLVM's variables never change. What a loop carries from round to round is a "phi": it has one
    value when the loop is entered from above, and another when it is entered from its own end. Where there
    may be no round (least is 0), so is what is left below.
    """
    above = builder.block
    top, below = (builder.append_basic_block(name) for name in ("round", "below"))
    zero = ir.Constant(count.type, 0)
    if least > 0:
        builder.branch(top)
    else:
        builder.cbranch(builder.icmp_signed(">", count, zero), top, below)
    builder.position_at_end(top)
    carried = [(builder.phi(value.type), value) for value in (zero, *values)]
    for phi, value in carried:
        phi.add_incoming(value, above)
    i, *current = (phi for phi, _ in carried)
    following = [builder.add(i, ir.Constant(i.type, 1)), *body(i, current)]
    end = builder.block
    for (phi, _), value in zip(carried, following, strict=True):
        phi.add_incoming(value, end)
    builder.cbranch(builder.icmp_signed("<", following[0], count), top, below)
    builder.position_at_end(below)
    if least > 0:
        return following[1:]
    left = [builder.phi(value.type) for value in values]
    for phi, value, last in zip(left, values, following[1:], strict=True):
        phi.add_incoming(value, above)
        phi.add_incoming(last, end)
    return left


class Vectors:
    """Writes instructions on vectors of one dtype, which fill a register each."""

    def __init__(self, builder, dtype):
        self.builder = builder
        self.lanes = 8 * VECTOR_BYTES // dtype.bitwidth
        self.bytes = dtype.bitwidth // 8
        number = ir.FloatType() if dtype.bitwidth == 32 else ir.DoubleType()
        self.type = ir.VectorType(number, self.lanes)
        # "fmuladd": one rounding where the CPU has such an instruction, else multiply, then add
        self._multiply_add = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(self.type, [self.type] * 3),
            f"llvm.fmuladd.v{self.lanes}f{dtype.bitwidth}",
        )

    def at(self, pointer, offset):
        """The pointer, offset elements further."""
        return self.builder.gep(pointer, [offset])

    def add(self, index, constant):
        return self.builder.add(index, ir.Constant(index.type, constant))

    def times(self, index, constant):
        return self.builder.mul(index, ir.Constant(index.type, constant))

    def divided(self, index, constant):
        return self.builder.sdiv(index, ir.Constant(index.type, constant))

    def place(self, row, i, column, j):
        """The offset of row i and column j, given how far rows and columns lie apart."""
        return self.builder.add(self.times(row, i), self.times(column, j))

    def load(self, pointer, i=0):
        """The i-th vector from a pointer to numbers, which may lie at any address."""
        value = self.builder.load(self._vector(pointer, i))
        value.align = self.bytes
        return value

    def load_bytes(self, pointer):
        """As many bytes from a pointer as a vector has lanes."""
        kind = ir.VectorType(ir.IntType(8), self.lanes)
        value = self.builder.load(self.builder.bitcast(pointer, kind.as_pointer()))
        value.align = 1
        return value

    def store(self, value, pointer, i=0):
        self.builder.store(value, self._vector(pointer, i)).align = self.bytes

    def fetch(self, pointer, i=0, write=False):
        """Ask for the i-th vector from a pointer, to write there soon (or to read, in the second cache)."""
        pointer = self.builder.bitcast(self._vector(pointer, i), ir.PointerType(ir.IntType(8)))
        flag = ir.IntType(32)
        prefetch = cgutils.get_or_insert_function(
            self.builder.module,
            ir.FunctionType(ir.VoidType(), [pointer.type, flag, flag, flag]),
            "llvm.prefetch.p0",
        )
        self.builder.call(prefetch, [pointer, flag(int(write)), flag(3 if write else 2), flag(1)])

    def spread(self, pointer):
        """A vector whose lanes all hold the number at a pointer."""
        lane = ir.IntType(32)
        undefined = ir.Constant(self.type, ir.Undefined)
        alone = self.builder.insert_element(undefined, self.builder.load(pointer), lane(0))
        everywhere = ir.Constant(ir.VectorType(lane, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(alone, undefined, everywhere)

    def multiply_add(self, x, y, total):
        return self.builder.call(self._multiply_add, [x, y, total])

    def constant(self, number):
        """A vector whose lanes all hold a number that is known now."""
        return ir.Constant(self.type, [float(number)] * self.lanes)

    def multiply(self, x, y):
        return self.builder.fmul(x, y)

    def plus(self, x, y):
        return self.builder.fadd(x, y)

    def minus(self, x, y):
        return self.builder.fsub(x, y)

    def larger(self, x, y):
        """The larger of each two numbers; of a NaN and a number y."""
        return self.builder.select(self.builder.fcmp_ordered(">", x, y), x, y)

    def select(self, numbers, number, x, y):
        """x in the lanes where bytes are a number that is known now, y in the others."""
        return self.builder.select(
            self.builder.icmp_unsigned("==", numbers, ir.Constant(numbers.type, [number] * self.lanes)),
            x, y,
        )  # fmt: skip

    def turned(self, rows):
        """The columns of as many vectors as a vector has lanes: a square of numbers, transposed.

        In rounds of blocks of 1, 2, 4, ... lanes: two rows exchange every other block.
        """
        rows, wide = list(rows), 1
        while wide < self.lanes:
            lanes = range(self.lanes)
            upper = [j if not j & wide else self.lanes + j - wide for j in lanes]
            lower = [j + wide if not j & wide else self.lanes + j for j in lanes]
            for i in (i for i in lanes if not i & wide):
                a, b = rows[i], rows[i + wide]
                rows[i], rows[i + wide] = self._mixed(a, b, upper), self._mixed(a, b, lower)
            wide *= 2
        return rows

    def _mixed(self, a, b, lanes):
        """The numbers at some lanes of two vectors, those of b counted on from those of a."""
        chosen = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), lanes)
        return self.builder.shuffle_vector(a, b, chosen)

    def _vector(self, pointer, i):
        pointer = self.at(pointer, ir.IntType(64)(i * self.lanes))
        return self.builder.bitcast(pointer, self.type.as_pointer())


@intrinsic
def part(typingctx, x, at, size):
    """`size` numbers of x from `at` on, counted as they lie in memory, as an array (size,).

    Nothing is checked, and nobody counts it as a use of x: a slice would, by instructions that wait for
    all that was written before, which in a loop over short rows takes a fifth of the time.
    """
    kind = types.Array(x.dtype, 1, "C")
    signature = kind(x, types.intp, types.intp)

    def write(context, builder, signature, args):
        pointer, at, size = pointers(context, builder, signature, args)
        itemsize = context.get_constant(types.intp, kind.dtype.bitwidth // 8)
        array = context.make_array(kind)(context, builder)
        populate_array(
            array, builder.gep(pointer, [at]), [size], [itemsize], itemsize, meminfo=None
        )
        return array._getvalue()

    return signature, write


@intrinsic
def fetch(typingctx, x, at):
    """Ask the memory for x[at], counted as the numbers lie there, so that it is near when it is read."""
    signature = types.void(x, types.intp)

    def write(context, builder, signature, args):
        x, at = pointers(context, builder, signature, args)
        v = Vectors(builder, signature.args[0].dtype)
        v.fetch(v.at(x, at))
        return context.get_dummy_value()

    return signature, write


@intrinsic
def largest_of_vectors(typingctx, x, count):
    """The largest number of the first `count` >= 1 whole vectors of x, dense; a NaN may be passed over.

    LLVM makes no vector instructions of a plain loop: what it may do with NaN stands against it.
    """
    signature = x.dtype(x, types.intp)

    def write(context, builder, signature, args):
        x, count = pointers(context, builder, signature, args)
        v = Vectors(builder, signature.args[0].dtype)

        def one(i, values):
            return [v.larger(v.load(v.at(x, v.times(i, v.lanes))), values[0])]

        (vector,) = repeat(builder, count, [v.load(x)], one)
        lanes = [builder.extract_element(vector, ir.IntType(32)(i)) for i in range(v.lanes)]
        return functools.reduce(v.larger, lanes)

    return signature, write


@intrinsic
def _pointer(typingctx, address, x):
    """An address as a pointer to numbers of the dtype of x."""
    signature = types.CPointer(x.dtype)(types.intp, x)

    def write(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return signature, write


@njit(**INLINED)
def array_at(address, x):
    """The dense array at an address that has the size and dtype of x."""
    return carray(_pointer(address, x), x.size)
