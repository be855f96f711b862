"""Bytes that a generator takes: its weights, and what passes through it make beside them, told without a single weight."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from transformers import PreTrainedModel

from ti_pipeline.generators.generator import Condition, Generator
from ti_pipeline.generators.latent_model import LatentModel
from ti_pipeline.generators.placeholder import prompt_length
from ti_pipeline.inversion.setups.setup import Group
from ti_pipeline.params import Train

_WORD = "<word>"
_PROMPT = f"a photo of a {_WORD}"


class Peak(TorchDispatchMode):
    """Counts the bytes of the tensors that are made while it is open: `most` is what was there at a time.

    What a kernel needs for itself is not seen. It makes no difference whether tensors have content.
    """

    def __init__(self, there: Iterable[torch.Tensor]):
        """`there` are tensors that do not count, such as weights."""
        super().__init__()
        self.now = self.most = 0
        self._seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet(tensor.untyped_storage() for tensor in there)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for each in tree_iter(made):
            if isinstance(each, torch.Tensor) and (storage := each.untyped_storage()) not in self._seen:
                self._seen.add(storage)
                self._change(storage.nbytes())
                weakref.finalize(storage, self._change, -storage.nbytes())
        return made

    def _change(self, size: int) -> None:
        self.now += size
        self.most = max(self.most, self.now)


class _Length(TorchFunctionMode):
    """What is told to a family that asks how many tokens its prompts have: ids without content do not say it."""

    def __init__(self, tokens: int):
        super().__init__()
        self.tokens = tokens

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        return self.tokens if func in (torch.Tensor.__int__, torch.Tensor.item) else func(*args, **(kwargs or {}))


@contextmanager
def hollow(outline: LatentModel, vectors: int) -> Iterator[LatentModel]:
    """A generator on the device `meta`, as one on a CPU whose tensors have no content; there attention is fused, as it is on a GPU.

    Its prompts have a word of `vectors` vectors. `outline` is used up.
    """
    tokens = max(prompt_length(encoder, _PROMPT, {_WORD: vectors}) for encoder in outline.encoders.values())
    with FakeTensorMode(allow_non_fake_inputs=True), _Length(tokens):
        for network in outline.networks.values():
            network.to_empty(device="cpu")
            if isinstance(network, PreTrainedModel):
                network.tie_weights()  # a T5 has its vocabulary under two names
        yield replace(outline, device=torch.device("cpu"))


def training_bytes(generator: Generator, samples: int, train: Train) -> int:
    """The most that a pass of `samples` samples takes on its way forward and back to the rows of a word. What a setup adds to the loss is
    not in it."""
    vectors, count, condition = train.longest, train.chosen.rows(generator, train), train.chosen.condition
    rows = {name: torch.zeros(1, count, each.table.shape[1], requires_grad=True) for name, each in generator.learning.items()}
    group = Group(rows, {}, vectors, condition)
    ids = generator.tokenise([_PROMPT] * samples, {_WORD: vectors})
    z0, noise = (torch.zeros(samples, *generator.latent_shape) for _ in range(2))
    t = torch.zeros(samples, dtype=torch.int64)

    def learn() -> None:
        losses = generator.losses(z0, noise, t, condition(generator, ids, group))
        torch.autograd.grad(losses.sum(), list(rows.values()), allow_unused=True)

    return _most(generator, learn)


@torch.no_grad()
def drawing_bytes(generator: Generator, shape: tuple[int, int, int], batch: int, decoded: int, guided: bool) -> int:
    """The most that a step of `batch` pictures takes, whose latents have this shape, while `decoded` others are decoded; `guided` by what
    is said without a prompt."""
    condition = generator.condition(generator.tokenise([_PROMPT.replace(_WORD, "cat")], {}), None)
    heard = Condition.cat([condition] * (2 * batch if guided else batch))
    x, latents = (torch.zeros(count, *shape) for count in (len(heard), decoded))
    step = _most(generator, lambda: generator.predict(x, torch.tensor(500), heard))
    return step + _most(generator, lambda: generator.decode(latents))


def _most(generator: Generator, work: Callable[[], object]) -> int:
    networks: Sequence[torch.nn.Module] = list(generator.networks.values())
    with Peak(tensor for network in networks for tensor in (*network.parameters(), *network.buffers())) as peak:
        work()
    return peak.most
