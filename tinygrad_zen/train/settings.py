"""What a model was compiled with, as JSON can hold it, and back."""

import inspect

from .metrics import METRICS, Metric
from .penalties import L1, L2

PENALTIES = {"L1": L1, "L2": L2}


def optimizers():
    """The optimizers of the library by their names in lower case."""
    from .. import optim

    return {
        name.lower(): value
        for name, value in vars(optim).items()
        if inspect.isclass(value)
        and issubclass(value, optim.Optimizer)
        and value is not optim.Optimizer
    }


UPDATE = ("accumulate", "clip_norm", "clip_value")


def tell(model):
    """What a model was compiled with, in dicts, strings and numbers.

    Raises TypeError for what is the user's own: a function, a class, several parameter groups.
    """
    return {
        "optimizer": _tell_optimizer(model.optimizer),
        "loss": _tell_loss(model.loss.given),
        "metrics": [_tell_metric(metric) for metric in model.given_metrics],
        "penalties": [_tell_penalty(penalty) for penalty in model.penalties],
        "update": {name: getattr(model.update, name) for name in UPDATE},
    }


def restore(model, settings):
    """Compile a model as `tell` says; the optimizer starts afresh."""
    from ..io import build

    optimizer, loss = settings["optimizer"], settings["loss"]
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in optimizer["options"].items()}
    kinds = {kind.__name__: kind for kind in METRICS.values()}
    model.compile(
        optimizers()[optimizer["name"]](model.net.parameters(), **options),
        loss if isinstance(loss, str) else build(loss, ()),
        [
            m if isinstance(m, str) else kinds[m["metric"]](**m["options"])
            for m in settings["metrics"]
        ],
        penalties=[
            PENALTIES[p["penalty"]](p["strength"], p["names"])
            for p in settings.get("penalties", ())  # files of version 0.1.0 have none
        ],
        **settings.get("update", {}),
    )


def _tell_optimizer(optimizer):
    name = type(optimizer).__name__
    if optimizers().get(name.lower()) is not type(optimizer) or len(optimizer.param_groups) > 1:
        raise TypeError(
            f"{name} is not an optimizer of tinygrad_zen.optim with one group of parameters"
        )
    options = {key: value for key, value in optimizer.param_groups[0].items() if key != "params"}
    # a schedule may have brought the rate to 0 by now; what it started from is kept
    options["lr"] = options.pop("initial_lr", options["lr"])
    return {"name": name.lower(), "options": options}


def _tell_loss(loss):
    from ..io import describe

    return loss if isinstance(loss, str) else describe(loss)


def _tell_penalty(penalty):
    name = type(penalty).__name__
    if PENALTIES.get(name) is not type(penalty) or not isinstance(penalty.names, str):
        raise TypeError(f"{name} is not a penalty of tinygrad_zen.train with a pattern of names")
    return {"penalty": name, "strength": penalty.strength, "names": penalty.names}


def _tell_metric(metric):
    if isinstance(metric, Metric) and type(metric) in METRICS.values():
        options = {
            name: getattr(metric, name) for name in inspect.signature(type(metric)).parameters
        }
        return {"metric": type(metric).__name__, "options": options}
    if isinstance(metric, str):
        return metric
    raise TypeError(f"{type(metric).__name__} is not a metric of tinygrad_zen.train")
