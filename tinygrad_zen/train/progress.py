"""Progress of a fit on the screen: a bar where there is a screen, plain lines where there is none."""

import shutil
import sys
import time

REDRAW = 0.1  # seconds between two looks at the metrics: computing them for each batch would cost


def progress(epochs, verbose):
    """What reports on a fit of that many epochs.

    verbose: 0 nothing; 1 a bar in a terminal or notebook, and one plain line an epoch elsewhere (log
    files, CI); 2 always lines.
    """
    if verbose not in (0, 1, 2):
        raise ValueError(f"fit: verbose must be 0, 1 or 2; got {verbose!r}")
    if not verbose:
        return Progress(epochs)
    if verbose == 1 and in_notebook():
        return NotebookBar(epochs)
    if verbose == 1 and sys.stderr.isatty() and sys.stdout.isatty():
        return TerminalBars(epochs)
    return Lines(epochs)


def in_notebook():
    """Whether this process is the kernel of a Jupyter notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return type(shell).__name__ == "ZMQInteractiveShell"


def as_text(logs):
    """The numbers of an epoch in one line: "loss 0.1234, accuracy 0.9876, 1.2 s"."""
    numbers = {name: v for name, v in logs.items() if isinstance(v, int | float)}
    seconds = numbers.pop("time", None)
    parts = [f"{name} {value:.4g}" for name, value in numbers.items()]
    return ", ".join(parts if seconds is None else [*parts, f"{seconds:.1f} s"])


class Progress:
    """Say nothing; and the calls that the others answer."""

    def __init__(self, epochs):
        self.epochs = epochs

    def start_epoch(self, epoch, batches, done=0):
        """An epoch (from 0) begins; batches: how many it has, or None where nobody knows.

        done: how many of them were done before the training was resumed.
        """

    def batch(self, logs):
        """A batch is done; logs: a function that gives the values so far."""

    def end_epoch(self, epoch, logs):
        """An epoch is done, with its final values."""

    def close(self):
        """Leave the screen tidy, after the last epoch or an interruption."""


class Lines(Progress):
    """One line an epoch, without control characters."""

    def end_epoch(self, epoch, logs):
        print(f"epoch {epoch + 1}/{self.epochs}: {as_text(logs)}", flush=True)


class TerminalBars(Lines):
    """A bar while an epoch runs, then its line."""

    bar = None
    looked = 0.0

    def start_epoch(self, epoch, batches, done=0):
        self.bar = self.new_bar(
            batches, initial=done, desc=f"epoch {epoch + 1}/{self.epochs}", leave=False
        )

    def new_bar(self, total, **options):
        """A tqdm bar as wide as the terminal, or 80 columns where that does not tell its size."""
        from tqdm import tqdm

        columns, rows = shutil.get_terminal_size()
        return tqdm(total=total, ncols=columns, nrows=rows, mininterval=REDRAW, **options)

    def batch(self, logs):
        now = time.monotonic()
        if now - self.looked > REDRAW:
            self.looked = now
            self.bar.set_postfix_str(as_text(logs()), refresh=False)
        self.bar.update()

    def end_epoch(self, epoch, logs):
        self.close()
        super().end_epoch(epoch, logs)

    def close(self):
        if self.bar is not None:
            self.bar.close()
            self.bar = None


class NotebookBar(TerminalBars):
    """One bar for all epochs, a widget if ipywidgets is installed: many bars would flood a notebook."""

    def start_epoch(self, epoch, batches, done=0):
        if self.bar is None:
            total = None if batches is None else batches * self.epochs
            self.bar = self.new_bar(total, initial=done + epoch * (batches or 0))
        self.bar.set_description(f"epoch {epoch + 1}/{self.epochs}", refresh=False)

    def new_bar(self, total, **options):
        try:
            import ipywidgets  # noqa: F401  (tqdm.auto warns where it is missing)
        except ImportError:
            return super().new_bar(total, file=sys.stdout, **options)
        from tqdm.auto import tqdm

        return tqdm(total=total, **options)

    def end_epoch(self, epoch, logs):
        self.bar.set_postfix_str(as_text(logs), refresh=True)
