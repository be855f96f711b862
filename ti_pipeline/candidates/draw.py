"""Draws the missing candidates of many concepts, those of different concepts and briefs in the same batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from ti_pipeline.candidates.looks import Clip
from ti_pipeline.candidates.sheet import Planned, Sheet
from ti_pipeline.generators.generator import Condition, Generator
from ti_pipeline.sampling.sample import Settings, encode_negative, encode_texts, sample_conditions


def draw(
    generator: Generator, sheets: Sequence[Sheet], settings: Settings, clip: Clip | None, report: Callable[[int, int, str], None]
) -> Iterator[Sheet]:
    """Yields each sheet when its table is written, or as soon as it is `broken`; the others go on.

    Killed and started again, it keeps the pictures that are there; until a concept's new table is written, the old one and all
    its pictures stand. `clip` looks at the pictures while they are in memory, so that the stage `rank` need not open them.
    """
    todo = [(sheet, candidate) for sheet in sheets for candidate in sheet.missing]
    total = sum(len(sheet.plan) for sheet in sheets)
    done = total - len(todo)
    with ThreadPoolExecutor(max_workers=1) as writer:  # files are written, and finished concepts closed, while others are made
        closing = [(sheet, writer.submit(sheet.close, clip)) for sheet in sheets if not sheet.left]
        while todo:
            seeds = [candidate.recipe["seed"] for _, candidate in todo]
            for index, picture in sample_conditions(generator, partial(_heard, generator, todo), seeds, settings):
                sheet, candidate = todo[index]
                writer.submit(sheet.write, candidate, picture, keep=clip is not None)
                sheet.left -= 1
                if not sheet.left:
                    sheet.heard = None
                    closing.append((sheet, writer.submit(sheet.close, clip)))
                yield from _closed(closing)
                done += 1
                report(done, total, f"{sheet.concept}: {candidate.brief.prompt}")
                if sheet.broken and sheet.left:  # a full disk is heard of now, not after hours
                    break
            broken = {sheet: sheet.broken for sheet, _ in todo if sheet.broken and sheet.left}
            yield from broken
            todo = [(sheet, candidate) for sheet, candidate in todo[index + 1 :] if sheet not in broken]
        writer.shutdown()
        yield from _closed(closing)


def _closed(closing: list[tuple[Sheet, Future[None]]]) -> Iterator[Sheet]:
    """Take out of the list who is closed by now."""
    for sheet, future in [each for each in closing if each[1].done()]:
        closing.remove((sheet, future))
        future.result()
        yield sheet


def _heard(generator: Generator, todo: Sequence[tuple[Sheet, Planned]], index: int) -> tuple[Condition, Condition]:
    """What the denoiser hears of a candidate's prompt and negative prompt; a concept's are computed when its turn comes."""
    sheet, candidate = todo[index]
    if sheet.heard is None:
        prompts = [brief.prompt for brief in sheet.order.briefs]
        negative = encode_negative(generator, candidate.recipe["negative_prompt"], sheet.order.words)
        sheet.heard = encode_texts(generator, prompts, sheet.order.words), negative
    of_prompts, negative = sheet.heard
    return of_prompts[candidate.brief.prompt], negative
