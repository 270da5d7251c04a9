"""Batches of arrays, shuffled anew in each epoch and resumable in the middle of one."""

import numpy as np


class DataLoader:
    """Iterate over equally long arrays in batches: one iteration is one epoch.

        for x, y in DataLoader(x_train, y_train, batch_size=64, seed=0): ...

    arrays: one or more, (N, ...) each. A batch is a tuple with one NumPy array (batch_size, ...)
    for each of them, or just the array if one was given. The last batch of an epoch is smaller if N
    is not a multiple, or left out with drop_last. Without shuffling, batches are views.
    shuffle: a new order in each epoch (the default, unlike PyTorch's).
    transform: f(x, rng) -> x, applied to the batch of the first array; see `augment`.
    seed: an int; or a NumPy generator or None (the engine's generator, see `tz.seed`), from which
    one is drawn here, once.

    Order and augmentation of a batch depend on (seed, epoch, position) alone. So a `state_dict` is
    a few numbers, can be taken anywhere, and a loader that loads it goes on with the batch that was
    next. An iteration that was left early is not continued: the next one begins a new epoch.

    Raises ValueError for no arrays, unequal lengths, no samples, batch_size < 1, drop_last with
    fewer samples than one batch, or a negative seed; TypeError for a seed of another kind.
    """

    def __init__(
        self, *arrays, batch_size=32, shuffle=True, drop_last=False, transform=None, seed=None
    ):
        self.arrays = tuple(np.asarray(array) for array in arrays)
        shapes = [array.shape for array in self.arrays]
        if not shapes or () in shapes:
            raise ValueError(f"DataLoader: give one or more arrays (N, ...); got shapes {shapes}")
        if len({shape[0] for shape in shapes}) > 1:
            raise ValueError(f"DataLoader: arrays must be equally long; got shapes {shapes}")
        if shapes[0][0] == 0:
            raise ValueError(f"DataLoader: arrays must not be empty; got shapes {shapes}")
        if batch_size < 1:
            raise ValueError(f"DataLoader: batch_size must be at least 1; got {batch_size}")
        if drop_last and shapes[0][0] < batch_size:
            raise ValueError(
                f"DataLoader: drop_last leaves no batch: {shapes[0][0]} samples, "
                f"batch_size {batch_size}"
            )
        self.samples = shapes[0][0]
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.transform = transform
        self.seed = as_seed("DataLoader", seed)
        self.epoch = 0  # the epoch and the batch in it that come next
        self.position = 0
        self._resume = False

    def __len__(self):
        """Return the number of batches in an epoch."""
        if self.drop_last:
            return self.samples // self.batch_size
        return -(-self.samples // self.batch_size)

    def __iter__(self):
        if self.position and not self._resume:
            self.epoch, self.position = self.epoch + 1, 0
        self._resume = False
        return self._batches(self.epoch, self.position)

    def _batches(self, epoch, start):
        if self.shuffle:
            order = np.random.default_rng([self.seed, epoch]).permutation(self.samples)
        for position in range(start, len(self)):
            # Counted before the batch is handed out: a state saved in the loop's body, after the
            # step on this batch, must name the next one.
            done = position + 1 == len(self)
            self.epoch, self.position = (epoch + 1, 0) if done else (epoch, position + 1)
            part = slice(position * self.batch_size, (position + 1) * self.batch_size)
            if self.shuffle:
                part = order[part]
            batch = [array[part] for array in self.arrays]
            if self.transform is not None:
                # 1 + position, for a trailing 0 would give the generator of the order again.
                rng = np.random.default_rng([self.seed, epoch, 1 + position])
                batch[0] = self.transform(batch[0], rng)
            yield tuple(batch) if len(batch) > 1 else batch[0]

    def state_dict(self):
        """Return what resuming needs, as a dict of ints: seed, next batch, sizes."""
        names = ("seed", "epoch", "position", "samples", "batch_size")
        return {name: int(getattr(self, name)) for name in names}

    def load_state_dict(self, state):
        """Go on where the loader that gave this state stood; the next iteration finishes its epoch.

        Raises ValueError if the state is of a loader with other samples or another batch size.
        """
        for name in ("samples", "batch_size"):
            if state[name] != getattr(self, name):
                raise ValueError(
                    f"DataLoader: the state is of a loader with {name} {state[name]}; "
                    f"this one has {getattr(self, name)}"
                )
        self.seed, self.epoch, self.position = state["seed"], state["epoch"], state["position"]
        self._resume = True


def as_seed(caller, seed):
    """Return the int itself, or draw one from the given generator or, for None, the engine's."""
    if seed is None:
        from ..backend import default_generator

        seed = default_generator()
    if isinstance(seed, np.random.Generator):
        return int(seed.integers(2**63))
    if not isinstance(seed, int | np.integer):
        raise TypeError(
            f"{caller}: seed must be an int, a NumPy generator or None; got {type(seed).__name__}"
        )
    if seed < 0:
        raise ValueError(f"{caller}: seed must not be negative; got {seed}")
    return int(seed)
