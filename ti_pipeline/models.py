"""The models of a run, loaded when first asked for and once in a process."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ti_pipeline import __version__
from ti_pipeline.errors import ParamsError
from ti_pipeline.model_files import located
from ti_pipeline.params import Generator as GeneratorParams
from ti_pipeline.params import Judge as JudgeParams
from ti_pipeline.params import Params
from ti_pipeline.params import Ranker as RankerParams
from ti_pipeline.remembered import remember, remembered

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from ti_pipeline.generators.generator import Generator
    from ti_pipeline.generators.reader import Reader
    from ti_pipeline.generators.source import Source
    from ti_pipeline.inversion.initializer import WordChooser
    from ti_pipeline.sight.likeness import Sight
    from ti_pipeline.sight.picture_model import PictureModel
    from ti_pipeline.sight.ranker import Ranker


class Models:
    """Generator, ranker and judge of `params`, whose paths are relative to the workspace `root`.

    Two runs in one process share what their settings share.
    """

    def __init__(self, params: Params, root: Path):
        ranker, file = params.ranker, params.ranker.pretrained
        parts = {part: path and located(path, root) for part, path in params.generator.parts.items()}
        self._generator = params.generator.model_copy(update={"model": located(params.generator.model, root), "parts": parts})
        places = {"model": located(ranker.model, root), "pretrained": file and located(file, root)}
        self._ranker = ranker.model_copy(update=places | {"dino": ranker.dino and located(ranker.dino, root)})
        self._judge = params.judge.model_copy(update={"model": located(params.judge.model, root)})

    @cached_property
    def source(self) -> Source:
        """Where the generator lies and its digest; nothing is loaded for it. Raises ParamsError."""
        from ti_pipeline.generators.family import learning, other_density
        from ti_pipeline.generators.source import find_source

        source = find_source(self._generator)
        learning(source, self._generator.encoders)
        other_density(source, self._generator.density)
        return source

    @cached_property
    def source_here(self) -> Source:
        """As `source`, but nothing is downloaded for it. Raises ParamsError for a generator that is not on this machine."""
        from ti_pipeline.generators.source import find_source

        return find_source(self._generator, download=False)

    @cached_property
    def reader_if_there(self) -> Reader | None:
        """How the generator reads prompts, where it lies on this machine; nothing is downloaded or refused for it."""
        from ti_pipeline.generators.family import learning
        from ti_pipeline.generators.reader import TokenizersAlone
        from ti_pipeline.generators.source import find_source

        try:
            source = find_source(self._generator, download=False)
            return TokenizersAlone(source, learning(source, self._generator.encoders))
        except Exception:  # the stage that needs the generator says what is wrong with it
            return None

    @cached_property
    def reader(self) -> Reader:
        """How all text encoders of the generator read; no weight is loaded for it. Raises ParamsError, and what broken files raise."""
        from ti_pipeline.generators.reader import TokenizersAlone

        return TokenizersAlone(self.source, tuple(self.source.family.encoders(self.source)))

    @property
    def generator(self) -> Generator:
        _prepare()
        return _generator(self._generator, self.source.digest)

    @property
    def ranker(self) -> Ranker:
        _prepare()
        return _ranker(self._ranker, self._generator.device)

    @cached_property
    def ranker_digest(self) -> str:
        """That of `ranker`, which is not loaded for it while its files are as they were when it last was. Raises ParamsError."""
        from ti_pipeline.sight.ranker_digest import known_digest

        return known_digest(self._ranker) or self.ranker.digest

    @property
    def sight(self) -> Sight:
        """What orders candidates: the ranker, and a DINO where likeness is asked of one."""
        from ti_pipeline.sight.likeness import Sight

        return Sight(self.ranker, _dino(self._ranker, self._generator.device), self._ranker.likeness != "dino")

    @cached_property
    def sight_digest(self) -> str:
        """That of `sight`, in the same way. Raises ParamsError."""
        from ti_pipeline.sight.likeness import find_dino, sight_digest
        from ti_pipeline.sight.picture_files import picture_digest

        dino = find_dino(self._ranker)
        return sight_digest(self.ranker_digest, picture_digest(dino) if dino else None, self._ranker.likeness != "dino")

    @property
    def ranker_if_there(self) -> Ranker | None:
        """For those who can do without it."""
        try:
            return self.ranker
        except ParamsError:
            return None

    @property
    def judge(self) -> PictureModel:
        _prepare()
        return _judge(self._judge, self._generator.device)

    @cached_property
    def judge_digest(self) -> str:
        """That of `judge`, which is not loaded for it. Raises ParamsError."""
        from ti_pipeline.sight.judge import find_judge
        from ti_pipeline.sight.picture_files import picture_digest

        return picture_digest(find_judge(self._judge))

    def check_dino(self) -> None:
        """Raises ParamsError where there is none and likeness asks for one. Nothing is loaded."""
        from ti_pipeline.sight.likeness import find_dino

        find_dino(self._ranker)

    def check_judge(self) -> None:
        """Raises ParamsError where there is none. Nothing is loaded."""
        from ti_pipeline.sight.judge import find_judge

        find_judge(self._judge)

    @cached_property
    def judge_ranks(self) -> str | None:
        """What to say where the judge is a model that ranks too. They are loaded to know it, once on this machine."""
        depends = [__version__, self._judge.model, self.judge_digest, self.sight_digest]
        said = remembered("judge", depends)
        if not isinstance(said, str):
            from ti_pipeline.sight.likeness import not_another

            said = not_another(self.judge, self.sight) or ""
            remember("judge", depends, said)
        return said or None

    def embed(self, pictures: list[Image.Image]) -> np.ndarray:
        return self.ranker.images(pictures)

    def choose_initializer(self, pictures: Sequence[Image.Image]) -> str:
        return _chooser(self._ranker, self._generator, self.source.digest)(pictures)


@lru_cache(maxsize=1)
def _generator(settings: GeneratorParams, digest: str) -> Generator:
    from ti_pipeline.generators.load import load_generator

    return load_generator(settings)


@lru_cache(maxsize=1)
def _ranker(settings: RankerParams, device: str) -> Ranker:
    from ti_pipeline.generators.generator import choose_device
    from ti_pipeline.sight.ranker import load_ranker

    return load_ranker(settings, choose_device(device))


@lru_cache(maxsize=1)
def _dino(settings: RankerParams, device: str) -> PictureModel | None:
    from ti_pipeline.generators.generator import choose_device
    from ti_pipeline.sight.likeness import load_dino

    return load_dino(settings, choose_device(device))


@lru_cache(maxsize=1)
def _judge(settings: JudgeParams, device: str) -> PictureModel:
    from ti_pipeline.generators.generator import choose_device
    from ti_pipeline.sight.judge import load_judge

    return load_judge(settings, choose_device(device))


@lru_cache(maxsize=1)
def _chooser(ranker: RankerParams, generator: GeneratorParams, digest: str) -> WordChooser:
    from ti_pipeline.inversion.initializer import WordChooser

    model = _ranker(ranker, generator.device)
    return WordChooser(_generator(generator, digest), model.images, model.texts)


def _prepare() -> None:
    """What is set for a thread before it loads a model or works with one."""
    import torch

    # Before torch starts its threads, which inherit it: on a CPU gradients that fade out cost many times as much.
    torch.set_flush_denormal(True)
    # The libraries that are loaded next make half a million objects that never die; looking for dead ones among them after
    # every 700 is a tenth of the time that loading takes.
    gc.set_threshold(10_000, 10, 10)


def share_processor(processes: int) -> None:
    """Take this process's part of the threads that it would have alone."""
    import torch

    torch.set_num_threads(max(1, torch.get_num_threads() // processes))
