"""What a recorded CUDA graph reads and writes, told by the driver: each of its nodes, each address.

A graph keeps addresses, not arrays. So before one is replayed, all addresses in it must be found to be
of memory that lasts as long as the graph, and no copy may come from the host: what lay there is gone.
"""

import bisect
import contextlib
import ctypes
import functools
from ctypes import POINTER, Structure, byref, c_int, c_size_t, c_uint, c_void_p

# of CUgraphNodeType, the rest wait for something outside, or do something there
KINDS = {0: "kernel", 1: "copy", 2: "fill", 3: "call of the host", 4: "graph", 5: "empty",
         10: "allocation", 11: "release"}  # fmt: skip
LOWEST = 2**20  # no memory on a card lies below
WORD = 8  # bytes of an address; the driver aligns those in a kernel's parameters to as many
HOST = 1  # CU_MEMORYTYPE_HOST
RELAXED = 2  # CU_STREAM_CAPTURE_MODE_RELAXED


class Kernel(Structure):
    """CUDA_KERNEL_NODE_PARAMS, version 2."""

    _fields_ = [
        ("function", c_void_p),
        ("grid", c_uint * 3),
        ("block", c_uint * 3),
        ("shared", c_uint),
        ("parameters", POINTER(c_void_p)),
        ("extra", POINTER(c_void_p)),
        ("kernel", c_void_p),
        ("context", c_void_p),
    ]


class _Place(Structure):
    """One half of CUDA_MEMCPY3D."""

    _fields_ = [
        ("x", c_size_t),
        ("y", c_size_t),
        ("z", c_size_t),
        ("level", c_size_t),
        ("kind", c_int),
        ("host", c_size_t),
        ("device", c_size_t),
        ("array", c_size_t),
        ("reserved", c_size_t),
        ("pitch", c_size_t),
        ("height", c_size_t),
    ]


class Copy(Structure):
    """CUDA_MEMCPY3D."""

    _fields_ = [
        ("source", _Place),
        ("target", _Place),
        ("width", c_size_t),
        ("height", c_size_t),
        ("depth", c_size_t),
    ]


class Fill(Structure):
    """CUDA_MEMSET_NODE_PARAMS."""

    _fields_ = [
        ("target", c_size_t),
        ("pitch", c_size_t),
        ("value", c_uint),
        ("element", c_uint),
        ("width", c_size_t),
        ("height", c_size_t),
    ]


class Allocation(Structure):
    """CUDA_MEM_ALLOC_NODE_PARAMS, version 1."""

    _fields_ = [
        ("pool", ctypes.c_char * 88),
        ("access", c_void_p),
        ("accesses", c_size_t),
        ("size", c_size_t),
        ("address", c_size_t),
    ]


class Contents:
    """What a graph does. count: its nodes; host: in words, what of it needs the host.

    addresses: {address: what uses it} of all memory on the card that it names.
    """

    def __init__(self, graph, driver=None):
        self._driver = driver or library()
        self.count, self.host, self.addresses, self._own = 0, [], {}, []
        nodes = [(node, self._kind(node)) for node in self._nodes(graph)]
        read = {"kernel": self._kernel, "copy": self._copy, "fill": self._fill}
        for node, kind in nodes:
            self.count += 1
            if kind in read:
                read[kind](node)
            elif kind == "allocation":
                self._own.append(self._allocation(node))
            elif kind not in ("empty", "release"):
                self.host.append(f"a node of kind {kind}")

    def strangers(self, known):
        """{address: what uses it} of memory that is neither of `known`, [(start, end)], nor the graph's."""
        pieces = []
        for start, end in sorted([*known, *self._own]):
            if pieces and start <= pieces[-1][1]:
                pieces[-1][1] = max(end, pieces[-1][1])
            else:
                pieces.append([start, end])
        starts = [start for start, _ in pieces]

        def stands(address):
            place = bisect.bisect_right(starts, address) - 1
            return place >= 0 and address <= pieces[place][1]  # one past the end is a usual one too

        return {a: user for a, user in self.addresses.items() if not stands(a)}

    def _call(self, name, *args):
        status = getattr(self._driver, name)(*args)
        if status:
            raise RuntimeError(f"{name}: the CUDA driver reports error {status}")

    def _nodes(self, graph):
        count = c_size_t()
        self._call("cuGraphGetNodes", c_void_p(graph), None, byref(count))
        nodes = (c_void_p * count.value)()
        if count.value:
            self._call("cuGraphGetNodes", c_void_p(graph), nodes, byref(count))
        return [c_void_p(node) for node in nodes]

    def _kind(self, node):
        kind = c_int()
        self._call("cuGraphNodeGetType", node, byref(kind))
        return KINDS.get(kind.value, str(kind.value))

    def _kernel(self, node):
        kernel = Kernel()
        self._call("cuGraphKernelNodeGetParams_v2", node, byref(kernel))
        whole = "Func" if kernel.function else "Kernel"
        handle = c_void_p(kernel.function or kernel.kernel)
        name = ctypes.c_char_p()
        self._call(f"cu{whole}GetName", byref(name), handle)
        offset, size = c_size_t(), c_size_t()
        parameter = getattr(self._driver, f"cu{whole}GetParamInfo")
        i = 0
        while not parameter(handle, c_size_t(i), byref(offset), byref(size)):
            content = ctypes.string_at(kernel.parameters[i], size.value)
            for at in range(0, size.value - WORD + 1, WORD):
                self._note(int.from_bytes(content[at : at + WORD], "little"), name.value.decode())
            i += 1

    def _copy(self, node):
        copy = Copy()
        self._call("cuGraphMemcpyNodeGetParams", node, byref(copy))
        for place, word in (copy.source, "from"), (copy.target, "to"):
            address = place.host if place.kind == HOST else place.device
            if place.kind == HOST or not self._note(address, "a copy"):
                self.host.append(
                    f"a copy of {copy.width * copy.height * copy.depth} bytes {word} the host"
                )

    def _fill(self, node):
        fill = Fill()
        self._call("cuGraphMemsetNodeGetParams", node, byref(fill))
        self._note(fill.target, "a fill")

    def _allocation(self, node):
        """(start, end) of memory that the graph takes by itself."""
        found = Allocation()
        self._call("cuGraphMemAllocNodeGetParams", node, byref(found))
        return found.address, found.address + found.size

    def _note(self, word, user):
        """Whether a word is an address of memory on the card; then it is noted."""
        if word in self.addresses:
            return True
        found = word >= LOWEST and allocation(word, self._driver) is not None
        if found:
            self.addresses[word] = user
        return found


@functools.cache
def library():
    """The CUDA driver, as a library that ctypes calls."""
    driver = ctypes.CDLL("libcuda.so.1")
    if not hasattr(driver, "cuFuncGetParamInfo"):
        raise RuntimeError("capture: on a card it needs a driver of CUDA 12.4 or later")
    return driver


@contextlib.contextmanager
def unsafe_calls():
    """Inside, in this thread, calls are allowed that no graph records, though one is being recorded."""
    mode = c_int(RELAXED)
    exchange = library().cuThreadExchangeStreamCaptureMode
    exchange(byref(mode))
    try:
        yield
    finally:
        exchange(byref(mode))


def allocation(address, driver=None):
    """(start, end) of the piece of memory on the card that an address lies in, or None."""
    start, size = c_size_t(), c_size_t()
    driver = driver or library()
    if driver.cuMemGetAddressRange_v2(byref(start), byref(size), c_size_t(address)):
        return None
    return start.value, start.value + size.value
