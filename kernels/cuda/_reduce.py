"""Reductions that the threads of a block, or of a warp, do together."""

from numba import cuda

from ._device import SIMULATOR, WARP, cooperative, device


@cooperative
def block_sum(value, shared):
    """The sum of all threads' values, for every thread; blockDim.x is a power of two.

    shared has room for one number a thread. In each round the lower half adds what the upper half
    holds: neighbouring threads read neighbouring numbers, in different memory banks.
    """
    t = cuda.threadIdx.x
    shared[t] = value
    cuda.syncthreads()
    half = cuda.blockDim.x // 2
    while half > 0:
        if t < half:
            shared[t] += shared[t + half]
        cuda.syncthreads()
        half //= 2
    total = shared[0]
    cuda.syncthreads()  # all have read it: shared may be used again
    return total


@cooperative
def block_max(value, shared):
    """The largest of all threads' values, for every thread; otherwise as block_sum."""
    t = cuda.threadIdx.x
    shared[t] = value
    cuda.syncthreads()
    half = cuda.blockDim.x // 2
    while half > 0:
        if t < half:
            shared[t] = max(shared[t], shared[t + half])
        cuda.syncthreads()
        half //= 2
    largest = shared[0]
    cuda.syncthreads()
    return largest


ALL = 0xFFFFFFFF  # every thread of the warp takes part

if SIMULATOR:  # it has no warps, so a stretch of shared memory stands in for the shuffle

    @cooperative
    def warp_sum(value, shared):
        """The sum of the values of a warp's threads, for every one of them; the whole block must call."""
        t = cuda.threadIdx.x
        shared[t] = value
        cuda.syncthreads()
        first = t - t % WARP
        total = shared[first]
        for k in range(1, WARP):
            total += shared[first + k]
        cuda.syncthreads()
        return total

    @cooperative
    def warp_max(value, shared):
        t = cuda.threadIdx.x
        shared[t] = value
        cuda.syncthreads()
        first = t - t % WARP
        largest = shared[first]
        for k in range(1, WARP):
            largest = max(largest, shared[first + k])
        cuda.syncthreads()
        return largest

else:

    @device
    def warp_sum(value, shared):
        """The sum of the values of a warp's threads, for every one of them.

        Each round swaps values with the thread 16, 8, 4, 2, 1 places away, from register to register: no
        shared memory, no barrier.
        """
        value += cuda.shfl_xor_sync(ALL, value, 16)
        value += cuda.shfl_xor_sync(ALL, value, 8)
        value += cuda.shfl_xor_sync(ALL, value, 4)
        value += cuda.shfl_xor_sync(ALL, value, 2)
        return value + cuda.shfl_xor_sync(ALL, value, 1)

    @device
    def warp_max(value, shared):
        """The largest of the values of a warp's threads; otherwise as warp_sum."""
        value = max(value, cuda.shfl_xor_sync(ALL, value, 16))
        value = max(value, cuda.shfl_xor_sync(ALL, value, 8))
        value = max(value, cuda.shfl_xor_sync(ALL, value, 4))
        value = max(value, cuda.shfl_xor_sync(ALL, value, 2))
        return max(value, cuda.shfl_xor_sync(ALL, value, 1))
