"""The step `distill`: weights, biases and scales are trained together until INT8 gives what the float network gives."""

import hashlib
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from posequant.base.files import whole
from posequant.ncnn_format.model import Weights
from posequant.networks.ncnn_torch.network import TorchNetwork, unsupported
from posequant.quantize.ncnn2int8 import quantized
from posequant.recipe.draft import Draft, representable
from posequant.recipe.judge import Judge
from posequant.recipe.training import Training
from posequant.workflow.settings.recipe import DistillStep

# Multiply-accumulates of all crops of a training beyond which a processor leaves the network alone: 1,000 steps of 16
# crops of 8 G each.
MOST_WORK = 1000 * 16 * 8_000_000_000
# How many of them a thread gets through in a second, there and back, for the notice: measured on Hourglass52.
SPEED = 7e9
# Bytes that all tensors may take; a batch goes through in parts where it needs more, down to one crop.
MEMORY = 3_000_000_000
# Of each blob: float, its gradient, and whole numbers.
_OF_BLOBS = 3
# Of each weight: as it is trained, its gradient, the optimizer's two moments, the best, the float network's.
_OF_WEIGHTS = 6
# Steps between two looks at what the real INT8 network has become.
JUDGED = 100
# Seconds between two checkpoints.
SAVED = 60.0

# What a step of the optimizer moves at first, before the factor `rate`: of INT8 weights in INT8 units; of other weights
# as a share of their root mean square; of biases as a share of the layer's outputs; of scales as a share.
INT8_WEIGHTS, FLOAT_WEIGHTS, BIASES, GAINS, RANGES = 1e-2, 1e-4, 3e-4, 3e-4, 5e-4
# The share of the steps in which the rates rise, and what is left of them at the end.
WARM_UP, LEAST = 0.03, 0.01


def distill(draft: Draft, training: Training, threads: int, settings: DistillStep) -> Draft:
    """Train the INT8 network by the float network's outputs on unlabelled crops; return the best draft on the way.

    Forward it computes as ncnn does, backward straight through all rounding (see `networks.ncnn_torch`). Trained are
    the INT8 weights, and beside them a gain for each channel, by its weight scale, its bias, and the scale of each
    input (Esser and others: Learned Step Size Quantization, 2020). Minimised is the squared error of the outputs as a
    share of the float network's own squares, by Adam, with rates that fall as a cosine. The training starts at the
    draft, bit by bit. Every `JUDGED` steps the real INT8 network is measured, and the best draft is kept: the one that
    was given, where none is better.

    The same inputs give the same draft on a machine, with the same number of threads.

    Args:
        draft: the draft, with all scales.
        training: crops and judge.
        threads: of the processor; not used on a GPU.
        settings: how long, and with which rates.

    Returns:
        The best draft; the given one, and a notice, where the network is too large or has a layer that cannot be
        trained.
    """
    if reasons := _reasons_against(draft, training.judge, threads, settings):
        print(f"notice: distill leaves the network as it is: {'; '.join(reasons)}", file=sys.stderr)
        return draft
    with _as_it_was(), torch.random.fork_rng(devices=[]):
        torch.set_num_threads(threads)
        # On a GPU some operations have no such algorithm; there PyTorch says so.
        torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
        # Sums of whole numbers are exact only in full float32.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        return _Run(draft, training, settings).best()


def _reasons_against(draft: Draft, judge: Judge, threads: int, settings: DistillStep) -> list[str]:
    """Return in words why a network is left alone, nothing where it is not."""
    reasons = unsupported(draft.reference) or unsupported(draft.model)
    crop = sum(judge.macs(draft).values())
    work = crop * settings.batch * settings.steps
    if work > MOST_WORK and not torch.cuda.is_available():
        crops, hours = MOST_WORK // crop, work / SPEED / threads / 3600
        batch = max(1, crops // settings.steps)
        reasons.append(
            f"{settings.steps} steps of {settings.batch} crops of {crop / 1e9:.1f} G multiply-accumulates each would "
            f"take about {hours:.0f} hours (threads: {threads}); without a GPU it takes at most {crops} crops in all, "
            f"such as `steps: {min(settings.steps, crops // batch)}, batch: {batch}`"
        )
    return reasons


@contextmanager
def _as_it_was() -> Iterator[None]:
    """Put back at the end what is set for all of PyTorch."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    precise = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = precise


class _Run:
    """A training, from a draft to the best that was found."""

    def __init__(self, draft: Draft, training: Training, settings: DistillStep) -> None:
        self._device = device = "cuda" if torch.cuda.is_available() else "cpu"
        self._draft, self._training, self._settings = draft, training, settings
        self._float = TorchNetwork(draft.reference, device=device)
        self._int8 = TorchNetwork(draft.int8, draft.model, draft.weight_limits, device=device)
        blobs = sum(training.judge.network.blob_sizes().values())
        weights = sum(weight.numel() for weight in self._int8.weights.values())
        left = MEMORY // 4 - _OF_WEIGHTS * weights
        self._at_once = max(1, min(settings.batch, left // (_OF_BLOBS * blobs)))
        self._optimizer = self._prepare()
        self._rates = [group["lr"] for group in self._optimizer.param_groups]
        self._state = _State(step=0, decibels=training.judge.sqnr_db(draft))
        self._key = self._identity()

    def _batch(self, step: int) -> Tensor:
        generator = np.random.default_rng([self._settings.seed, step])
        return torch.from_numpy(self._training.crops.batch(generator, self._settings.batch))

    def _prepare(self) -> torch.optim.Adam:
        """Return the optimizer of everything that is trained, with the rate of each tensor at first."""
        network, rate = self._int8, self._settings.rate
        with torch.no_grad():
            sizes = network.magnitudes(self._batch(0)[: self._at_once])
        groups: list[dict[str, Any]] = []
        for name, weight in network.weights.items():
            of_float = FLOAT_WEIGHTS * float(weight.square().mean().sqrt())
            groups.append({"params": [weight], "lr": INT8_WEIGHTS if name in network.gains else of_float})
        groups += [{"params": [bias], "lr": BIASES * sizes[name]} for name, bias in network.biases.items()]
        groups.append({"params": list(network.gains.values()), "lr": GAINS})
        groups.append({"params": list(network.ranges.values()), "lr": RANGES})
        for group in groups:
            group["lr"] *= rate
            for tensor in group["params"]:
                tensor.requires_grad_()
        return torch.optim.Adam(groups, betas=(0.9, 0.99))

    def _numbers(self) -> list[Tensor]:
        """Return everything that is trained, as it stands: no copies."""
        return [tensor.detach() for group in self._optimizer.param_groups for tensor in group["params"]]

    def _identity(self) -> str:
        """Return a hash of all that the training follows from."""
        digest = hashlib.sha256()
        draft, device = self._draft, torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
        words = [repr(self._settings.filled()), torch.__version__, device, str(torch.get_num_threads())]
        # What the judge says of the draft stands for the judge.
        digest.update("\n".join([*words, repr(self._state.decibels)]).encode())
        for model in (draft.reference, draft.int8, draft.model):
            digest.update(repr(model.layers).encode())
            for weights in model.weights:
                for values in weights.values():
                    digest.update(np.ascontiguousarray(values).tobytes())
        digest.update(self._batch(0).numpy().tobytes())
        return digest.hexdigest()

    def best(self) -> Draft:
        """Train, and return the best draft."""
        settings, state = self._settings, self._resumed()
        start, saved = state.decibels, monotonic()
        with tqdm(total=settings.steps, initial=state.step, desc="distill", unit="step", mininterval=2) as progress:
            progress.set_postfix_str(f"{start:.2f} dB")
            while state.step < settings.steps:
                self._train(state.step)
                state.step += 1
                progress.update()
                if state.step % JUDGED == 0 or state.step == settings.steps:
                    found = self._training.judge.sqnr_db(self.exported())
                    if found > state.decibels:
                        state.decibels, state.best = found, [numbers.clone() for numbers in self._numbers()]
                    progress.set_postfix_str(f"{found:.2f} dB, best {state.decibels:.2f}")
                if monotonic() - saved > SAVED:
                    self._save(state)
                    saved = monotonic()
        if self._training.checkpoint:
            self._training.checkpoint.unlink(missing_ok=True)
        if not state.best:
            print("notice: distill found nothing better; the draft stays", file=sys.stderr)
            return self._draft
        self._take(state.best)
        return self.exported()

    def _train(self, step: int) -> None:
        """Do one step of the optimizer."""
        share = step / self._settings.steps
        cosine = LEAST + (1 - LEAST) * (1 + math.cos(math.pi * share)) / 2
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * cosine * min(1.0, (step + 1) / (WARM_UP * self._settings.steps + 1))
        parts = torch.split(self._batch(step), self._at_once)
        with torch.no_grad():
            wanted = [self._float(part) for part in parts]
        powers = [sum(float(output.square().sum()) for output in outputs) for outputs in zip(*wanted, strict=True)]
        self._optimizer.zero_grad()
        for part, targets in zip(parts, wanted, strict=True):
            found = self._int8(part)
            loss = torch.zeros((), device=found[0].device)
            for output, target, power in zip(found, targets, powers, strict=True):
                loss = loss + (output - target).square().sum() / max(power, 1e-30)
            loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()

    def exported(self) -> Draft:
        """Return the draft that the training has come to."""
        draft, network = self._draft, self._int8
        changed: dict[str, Weights] = {}
        weight_scales, activation_scales = dict(draft.weight_scales), dict(draft.activation_scales)
        for name in network.weights:
            changed[name] = {}
            if name in network.biases:
                changed[name]["bias"] = network.biases[name].detach().cpu().numpy()
            if name not in network.gains:
                changed[name]["weight"] = network.float_weights(name)
                continue
            weight_scales[name] = representable(network.weight_scales(name).detach().cpu().numpy())
            scale = network.scale(network.scale_key(name)).detach().cpu().numpy()
            activation_scales[name] = np.float32(representable(scale))
            integers = network.integers(name).cpu().numpy()
            steps = 1 / weight_scales[name].astype(np.float64)
            weights = integers.reshape(len(steps), -1) * steps[:, np.newaxis]
            changed[name]["weight"] = weights.astype(np.float32).ravel()
            if not np.array_equal(quantized(changed[name]["weight"], weight_scales[name]), integers.ravel()):
                raise AssertionError(f"layer {name}: ncnn2int8 would round its weights to other values")
        return replace(draft.with_weights(changed), weight_scales=weight_scales, activation_scales=activation_scales)

    def _take(self, numbers: list[Tensor]) -> None:
        """Put numbers in the place of everything that is trained."""
        for tensor, values in zip(self._numbers(), numbers, strict=True):
            tensor.copy_(values)

    def _save(self, state: "_State") -> None:
        if path := self._training.checkpoint:
            trained = {"optimizer": self._optimizer.state_dict(), "numbers": self._numbers()}
            content = {"key": self._key, **trained, **vars(state)}
            with whole(path) as draft:
                torch.save(content, draft)

    def _resumed(self) -> "_State":
        """Return where to begin: where a training of the same inputs was cut off, or at the start."""
        path = self._training.checkpoint
        if not path or not path.is_file():
            return self._state
        try:
            content = torch.load(path, map_location=self._device, weights_only=True)
        except Exception:
            return self._state
        if content.pop("key", None) != self._key:
            return self._state
        self._optimizer.load_state_dict(content.pop("optimizer"))
        self._take(content.pop("numbers"))
        state = _State(**content)
        print(f"notice: distill goes on from step {state.step}", file=sys.stderr)
        return state


@dataclass
class _State:
    """How far a training is.

    Attributes:
        step: how many steps are done.
        decibels: SQNR of the best draft so far.
        best: everything that is trained, as it was in the best draft; empty where that is the one at the start.
    """

    step: int
    decibels: float
    best: list[Tensor] = field(default_factory=list)
