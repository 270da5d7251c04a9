"""Schedules of the learning rate. Call `schedule.step()` after the optimizer's, once an epoch or batch.

Each learning rate is a formula of the epoch and of the rate that the group started with. So a
schedule has no history but its epoch, and a resumed one goes on exactly.
"""

import math
from bisect import bisect_right
from numbers import Integral


class LRScheduler:
    """The base of the schedules that follow a formula: a schedule defines `lr_at`.

    The rate that a group started with is kept in it as "initial_lr", and saved with the optimizer.
    last_epoch: how many steps were taken; the constructor sets the rates of epoch 0.
    """

    def __init__(self, optimizer):
        self.optimizer = optimizer
        self.set_epoch(0)

    def lr_at(self, epoch, base, group):
        """The learning rate of an epoch, for group number `group`, which started with the rate base."""
        raise NotImplementedError

    def set_epoch(self, epoch):
        """Go to an epoch and set the rates that belong to it."""
        self.last_epoch = epoch
        for i, group in enumerate(self.optimizer.param_groups):
            group["lr"] = self.lr_at(epoch, group.setdefault("initial_lr", group["lr"]), i)

    def step(self):
        """Go on by one epoch."""
        self.set_epoch(self.last_epoch + 1)

    def get_last_lr(self):
        """The rates in force, one a group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self):
        return {"last_epoch": self.last_epoch}

    def load_state_dict(self, state_dict):
        """Go to the epoch of a state_dict() and set its rates."""
        _check_keys(self, state_dict)
        self.set_epoch(state_dict["last_epoch"])


class LambdaLR(LRScheduler):
    """base * lr_lambda(epoch); lr_lambda is a function, or a list with one for each group.

    schedule = optim.LambdaLR(opt, lambda epoch: 0.95**epoch)
    """

    def __init__(self, optimizer, lr_lambda):
        groups = len(optimizer.param_groups)
        self.lambdas = [lr_lambda] * groups if callable(lr_lambda) else list(lr_lambda)
        if len(self.lambdas) != groups:
            raise ValueError(
                f"LambdaLR: {groups} groups need a function each; got {len(self.lambdas)}"
            )
        super().__init__(optimizer)

    def lr_at(self, epoch, base, group):
        return base * self.lambdas[group](epoch)


class StepLR(LRScheduler):
    """base * gamma^(epoch // step_size): a step down every step_size epochs."""

    def __init__(self, optimizer, step_size, gamma=0.1):
        _check_count("StepLR", "step_size", step_size)
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer)

    def lr_at(self, epoch, base, group):
        return base * self.gamma ** (epoch // self.step_size)


class ExponentialLR(LRScheduler):
    """base * gamma^epoch."""

    def __init__(self, optimizer, gamma):
        self.gamma = gamma
        super().__init__(optimizer)

    def lr_at(self, epoch, base, group):
        return base * self.gamma**epoch


class CosineAnnealingLR(LRScheduler):
    """Half a cosine from base at epoch 0 to eta_min at T_max, and back up beyond.

    eta_min + (base - eta_min) (1 + cos(pi epoch / T_max)) / 2. Loshchilov & Hutter 2017.
    """

    def __init__(self, optimizer, T_max, eta_min=0.0):
        _check_count("CosineAnnealingLR", "T_max", T_max)
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer)

    def lr_at(self, epoch, base, group):
        share = (1 + math.cos(math.pi * epoch / self.T_max)) / 2
        return self.eta_min + (base - self.eta_min) * share


class LinearLR(LRScheduler):
    """Warm-up: base times a factor that goes in a line from start_factor to end_factor in total_iters.

    schedule = optim.LinearLR(opt, start_factor=0.01, total_iters=500)
    """

    def __init__(self, optimizer, start_factor=1 / 3, end_factor=1.0, total_iters=5):
        if not 0 < start_factor <= 1:
            raise ValueError(f"LinearLR: start_factor must lie in (0, 1]; got {start_factor}")
        if not 0 <= end_factor <= 1:
            raise ValueError(f"LinearLR: end_factor must lie in [0, 1]; got {end_factor}")
        _check_count("LinearLR", "total_iters", total_iters)
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer)

    def lr_at(self, epoch, base, group):
        way = min(epoch, self.total_iters) / self.total_iters
        return base * (self.start_factor + (self.end_factor - self.start_factor) * way)


class OneCycleLR(LRScheduler):
    """Up from max_lr / div_factor to max_lr, then down to 1 / final_div_factor of the start.

    The rise takes pct_start of total_steps (or of epochs * steps_per_epoch). anneal_strategy: "cos" or
    "linear". cycle_momentum: momentum, or Adam's first beta, goes the other way, from max_momentum to
    base_momentum and back. max_lr: a number, or one a group. Smith & Topin 2018.

        schedule = optim.OneCycleLR(opt, max_lr=0.01, epochs=10, steps_per_epoch=len(loader))
    """

    def __init__(
        self,
        optimizer,
        max_lr,
        total_steps=None,
        epochs=None,
        steps_per_epoch=None,
        pct_start=0.3,
        anneal_strategy="cos",
        cycle_momentum=True,
        base_momentum=0.85,
        max_momentum=0.95,
        div_factor=25.0,
        final_div_factor=1e4,
    ):
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ValueError(
                    "OneCycleLR: total_steps, or epochs and steps_per_epoch, must be given"
                )
            total_steps = epochs * steps_per_epoch
        _check_count("OneCycleLR", "total_steps", total_steps)
        if not 0 <= pct_start <= 1:
            raise ValueError(f"OneCycleLR: pct_start must lie in [0, 1]; got {pct_start}")
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(
                f"OneCycleLR: anneal_strategy must be 'cos' or 'linear'; got {anneal_strategy!r}"
            )
        groups = optimizer.param_groups
        self.max_lrs = list(max_lr) if isinstance(max_lr, list | tuple) else [max_lr] * len(groups)
        if len(self.max_lrs) != len(groups):
            raise ValueError(
                f"OneCycleLR: {len(groups)} groups need a max_lr each; got {len(self.max_lrs)}"
            )
        if cycle_momentum and not ("momentum" in groups[0] or "betas" in groups[0]):
            raise ValueError(
                f"OneCycleLR: {type(optimizer).__name__} has no momentum; pass cycle_momentum=False"
            )
        self.total_steps = total_steps
        self.peak = pct_start * total_steps - 1  # the epoch of the highest rate
        self.cosine = anneal_strategy == "cos"
        self.cycle_momentum = cycle_momentum
        self.base_momentum, self.max_momentum = base_momentum, max_momentum
        self.div_factor, self.final_div_factor = div_factor, final_div_factor
        super().__init__(optimizer)

    def set_epoch(self, epoch):
        if epoch > self.total_steps:
            raise ValueError(f"OneCycleLR: step {epoch} lies beyond total_steps {self.total_steps}")
        super().set_epoch(epoch)
        if not self.cycle_momentum:
            return
        momentum = self._along(epoch, self.max_momentum, self.base_momentum, self.max_momentum)
        for group in self.optimizer.param_groups:
            if "betas" in group:
                group["betas"] = (momentum, group["betas"][1])
            else:
                group["momentum"] = momentum

    def lr_at(self, epoch, base, group):
        top = self.max_lrs[group]
        start = top / self.div_factor
        return self._along(epoch, start, top, start / self.final_div_factor)

    def _along(self, epoch, start, top, end):
        """A value that goes from start to top at the peak and on to end at the last step."""
        if epoch <= self.peak:
            return self._between(start, top, epoch / self.peak if self.peak else 1.0)
        way = (epoch - self.peak) / (self.total_steps - 1 - self.peak)
        return self._between(top, end, min(way, 1.0))

    def _between(self, start, end, way):
        share = (1 - math.cos(math.pi * way)) / 2 if self.cosine else way
        return start + (end - start) * share


class SequentialLR(LRScheduler):
    """One schedule after the other; each begins at its milestone, counting epochs from 0 there.

    warmup = optim.LinearLR(opt, 0.01, total_iters=5)
    schedule = optim.SequentialLR(opt, [warmup, optim.CosineAnnealingLR(opt, 45)], milestones=[5])
    """

    def __init__(self, optimizer, schedulers, milestones):
        self.schedulers, self.milestones = list(schedulers), list(milestones)
        if len(self.schedulers) != len(self.milestones) + 1:
            raise ValueError(
                f"SequentialLR: {len(self.schedulers)} schedulers need {len(self.schedulers) - 1} "
                f"milestones between them; got {len(self.milestones)}"
            )
        if self.milestones != sorted(set(self.milestones)):
            raise ValueError(f"SequentialLR: milestones must increase; got {self.milestones}")
        for i, scheduler in enumerate(self.schedulers):
            if not isinstance(scheduler, LRScheduler):
                raise TypeError(
                    f"SequentialLR: scheduler {i} must follow a formula of the epoch; "
                    f"got {type(scheduler).__name__}"
                )
            if scheduler.optimizer is not optimizer:
                raise ValueError(f"SequentialLR: scheduler {i} belongs to another optimizer")
        super().__init__(optimizer)

    def set_epoch(self, epoch):
        self.last_epoch = epoch
        i = bisect_right(self.milestones, epoch)
        self.schedulers[i].set_epoch(epoch - (self.milestones[i - 1] if i else 0))


class ReduceLROnPlateau:
    """Multiply the rate by factor when a measure has not improved for more than patience epochs.

    mode: "min" or "max", which way is better. An epoch improves if the measure beats the best by
    threshold: relatively ("rel") or absolutely ("abs"). After a cut, cooldown epochs do not count.
    min_lr: a number, or one a group; a cut of less than eps is not made.

        schedule = optim.ReduceLROnPlateau(opt, patience=3)
        schedule.step(validation_loss)
    """

    def __init__(
        self,
        optimizer,
        mode="min",
        factor=0.1,
        patience=10,
        threshold=1e-4,
        threshold_mode="rel",
        cooldown=0,
        min_lr=0.0,
        eps=1e-8,
    ):
        if mode not in ("min", "max"):
            raise ValueError(f"ReduceLROnPlateau: mode must be 'min' or 'max'; got {mode!r}")
        if threshold_mode not in ("rel", "abs"):
            raise ValueError(
                f"ReduceLROnPlateau: threshold_mode must be 'rel' or 'abs'; got {threshold_mode!r}"
            )
        if not factor < 1:
            raise ValueError(f"ReduceLROnPlateau: factor must be below 1; got {factor}")
        groups = len(optimizer.param_groups)
        self.min_lrs = list(min_lr) if isinstance(min_lr, list | tuple) else [min_lr] * groups
        if len(self.min_lrs) != groups:
            raise ValueError(
                f"ReduceLROnPlateau: {groups} groups need a min_lr each; got {len(self.min_lrs)}"
            )
        self.optimizer = optimizer
        self.mode, self.factor, self.patience = mode, factor, patience
        self.threshold, self.threshold_mode = threshold, threshold_mode
        self.cooldown, self.eps = cooldown, eps
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = self.cooldown_counter = self.last_epoch = 0

    def step(self, metrics):
        """Take the measure of an epoch (a number or a Tensor of one) and cut the rates if it is due."""
        value = float(metrics)
        self.last_epoch += 1
        if self._improves(value):
            self.best, self.num_bad_epochs = value, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            for group, least in zip(self.optimizer.param_groups, self.min_lrs, strict=True):
                lr = max(group["lr"] * self.factor, least)
                if group["lr"] - lr > self.eps:
                    group["lr"] = lr
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0

    def _improves(self, value):
        sign = 1 if self.mode == "max" else -1
        if self.threshold_mode == "rel":
            return sign * value > sign * self.best * (1 + sign * self.threshold)
        return sign * value > sign * self.best + self.threshold

    def get_last_lr(self):
        """The rates in force, one a group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self):
        return {
            "last_epoch": self.last_epoch,
            "best": self.best,
            "num_bad_epochs": self.num_bad_epochs,
            "cooldown_counter": self.cooldown_counter,
        }

    def load_state_dict(self, state_dict):
        """Go on where a state_dict() was taken; the rates are in the optimizer's own state."""
        _check_keys(self, state_dict)
        vars(self).update(state_dict)


def _check_count(name, what, value):
    if not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name}: {what} must be a whole number above 0; got {value!r}")


def _check_keys(schedule, state_dict):
    needed = sorted(schedule.state_dict())
    if sorted(state_dict) != needed:
        raise ValueError(
            f"{type(schedule).__name__}: the state must hold {', '.join(needed)}; "
            f"got {', '.join(sorted(state_dict))}"
        )
