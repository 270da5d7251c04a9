"""Instructions that Python has no words for, each written twice.

First in Python: it says what the instruction does, and is what the simulator runs. Then as LLVM code, which
is what Numba compiles into a kernel. Arrays are flat, and indices are never negative: a[i] in a kernel
compiles to six instructions around each load, since i might mean an index from the end.
"""

import numpy as np

from ._device import SIMULATOR, device, int32

if not SIMULATOR:
    from llvmlite import ir
    from numba.cuda import types
    from numba.cuda.extending import intrinsic


def in_python(python):
    """Decorator for the LLVM code of an instruction: under the same name its Python twin stays at hand,
    as py_func, and in the simulator takes its place."""

    def choose(llvm):
        if SIMULATOR:
            return python
        instruction = intrinsic(llvm)
        instruction.py_func = python
        return instruction

    return choose


def load(a, i):
    """a[i]."""
    return a[i]


def store(a, i, value):
    """a[i] = value."""
    a[i] = value


def copy4(to, i, a, j):
    """to[i : i + 4] = a[j : j + 4] in one piece: both addresses must be multiples of 4 numbers (16 bytes
    are enough for numbers of 8)."""
    to[i : i + 4] = a[j : j + 4]


def quotient(a, b):
    """a // b for a >= 0 and b > 0 in 32 bits: four times fewer instructions than Python's division."""
    return a // b


@in_python(load)
def load(typing, a, i):
    def generate(context, builder, signature, args):
        return builder.load(address(context, builder, signature, args, 0, 1))

    return a.dtype(a, i), generate


@in_python(store)
def store(typing, a, i, value):
    def generate(context, builder, signature, args):
        builder.store(args[2], address(context, builder, signature, args, 0, 1))
        return context.get_dummy_value()

    return types.none(a, i, a.dtype), generate


@in_python(copy4)
def copy4(typing, to, i, a, j):
    def generate(context, builder, signature, args):
        target = address(context, builder, signature, args, 0, 1)
        four = load4(context, builder, address(context, builder, signature, args, 2, 3))
        align = min(4 * context.get_abi_sizeof(target.type.pointee), 16)
        builder.store(four, builder.bitcast(target, four.type.as_pointer()), align=align)
        return context.get_dummy_value()

    return types.none(to, i, a, j), generate


@in_python(quotient)
def quotient(typing, a, b):
    def generate(context, builder, signature, args):
        return builder.udiv(*args)

    return types.int32(types.int32, types.int32), generate


@device
def split(i, n):
    """i // n and i % n: by which a flat index is taken apart, last axis first."""
    down = quotient(i, n)
    return down, int32(i - down * n)


def product_of_panels(depth, left_places, left_pitch, right_places, right_pitch):
    """The instruction multiply(acc, left, right, l, r): a patch of a matrix product, `depth` steps of it.

    Step k is the outer product of a short column of the left panel, at l + k * left_pitch and there at
    left_places, with a short row of the right one, likewise. Places are where pieces of 4 numbers begin.
    acc is the patch, row by row. As LLVM it is one long run of loads and multiply-adds, every number
    in a register: loops around so many instructions would not be unrolled, and only then can they be.
    """

    def indices(places, pitch):
        offsets = [place + e for place in places for e in range(4)]
        return np.arange(depth)[:, None] * pitch + np.array(offsets)

    columns, rows = indices(left_places, left_pitch), indices(right_places, right_pitch)

    def multiply(acc, left, right, l, r):
        acc.reshape(columns.shape[1], rows.shape[1])[...] += left[l + columns].T @ right[r + rows]

    @in_python(multiply)
    def multiply(typing, acc, left, right, l, r):
        def generate(context, builder, signature, args):
            def quads(panel, base, places, pitch, k):
                """Step k's numbers of a panel, read four at a time."""
                start = address(context, builder, signature, args, panel, base)
                numbers = []
                for place in places:
                    at = builder.gep(start, [ir.IntType(64)(k * pitch + place)], inbounds=True)
                    four = load4(context, builder, at)
                    numbers += [builder.extract_element(four, ir.IntType(32)(e)) for e in range(4)]
                return numbers

            def both(k):
                return quads(1, 3, left_places, left_pitch, k), quads(
                    2, 4, right_places, right_pitch, k
                )

            patch = address(context, builder, signature, args, 0)
            slots = [
                builder.gep(patch, [ir.IntType(64)(s)], inbounds=True)
                for s in range(columns.shape[1] * rows.shape[1])
            ]
            sums = [builder.load(slot) for slot in slots]
            column, row = both(0)
            for k in range(1, depth + 1):
                # ask for the next step's numbers before this step's are used
                following = both(k) if k < depth else None
                factors = [(a, b) for a in column for b in row]
                sums = [builder.fma(a, b, s) for (a, b), s in zip(factors, sums, strict=True)]
                if following:
                    column, row = following
            for slot, value in zip(slots, sums, strict=True):
                builder.store(value, slot)
            return context.get_dummy_value()

        return types.none(acc, left, right, l, r), generate

    return multiply


def address(context, builder, signature, args, array, index=None):
    """Where argument `array` begins in memory, or the element of it that argument `index` names."""
    start = context.make_array(signature.args[array])(context, builder, args[array]).data
    if index is None:
        return start
    at = args[index]
    if signature.args[index].bitwidth < 64:
        at = builder.sext(at, ir.IntType(64))
    return builder.gep(start, [at], inbounds=True)


def load4(context, builder, start):
    """Four numbers from an address on, as one vector."""
    number = start.type.pointee
    vector = ir.VectorType(number, 4).as_pointer()
    align = min(4 * context.get_abi_sizeof(number), 16)
    return builder.load(builder.bitcast(start, vector), align=align)
