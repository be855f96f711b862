"""Streams, optimiser and schedule: what every bit of a result hangs on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from ti_pipeline import params
from ti_pipeline.inversion.adamw import adamw
from ti_pipeline.inversion.schedule import rate_at
from ti_pipeline.inversion.setups.setup import Step
from ti_pipeline.inversion.streams import Streams

Settings = Callable[..., params.Params]


def test_streams_differ_in_seed_concept_purpose_and_counter() -> None:
    draws = {
        Streams(seed, concept).normal(purpose, counter, (3,)).numpy().tobytes()
        for seed in (0, 1)
        for concept in ("mug", "cup")
        for purpose in ("noise", "latent")
        for counter in (0, 1)
    }
    assert len(draws) == 16
    assert torch.equal(Streams(0, "mug").normal("noise", 5, (3,)), Streams(0, "mug").normal("noise", 5, (3,)))


def test_streams_are_the_same_on_every_machine() -> None:
    assert Streams(0, "mug").uniform("timestep", 0, 1000, 4).tolist() == [957, 395, 996, 457]


def test_rounds_show_every_picture_equally_often_wherever_they_are_cut() -> None:
    streams = Streams(0, "mug")
    whole = streams.rounds("picture", 0, 15, 5)
    assert all(sorted(whole[i : i + 5]) == [0, 1, 2, 3, 4] for i in (0, 5, 10))
    assert [p for start in range(0, 15, 3) for p in streams.rounds("picture", start, 3, 5)] == whole
    assert whole[:5] != whole[5:10] or whole[:5] != whole[10:]


def test_adamw_is_pytorchs_for_each_concept_with_its_own_step_and_rate() -> None:
    torch.manual_seed(0)
    rows = torch.randn(2, 3, 8)
    rates, decays = (0.005, 0.02), (0.01, 0.3)
    plain = [rows[i].clone().requires_grad_() for i in range(2)]
    optimizers = [torch.optim.AdamW([p], lr=rate, weight_decay=decay) for p, rate, decay in zip(plain, rates, decays, strict=True)]
    first, second = torch.zeros_like(rows), torch.zeros_like(rows)
    for step in range(1, 21):
        gradient = torch.randn_like(rows)
        adamw(rows, gradient, first, second, Step(*(torch.tensor(each).double() for each in ([step, step], rates, decays))))
        for parameter, optimizer, own in zip(plain, optimizers, gradient, strict=True):
            parameter.grad = own.clone()
            optimizer.step()
    torch.testing.assert_close(rows, torch.stack([p.detach() for p in plain]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("constant", [0.5, 1, 1, 1, 1, 1]), ("linear", [0.5, 1, 1, 0.75, 0.5, 0.25]), ("cosine", [0.5, 1, 1, 0.85355, 0.5, 0.14645])],
)
def test_schedules(settings: Settings, schedule: str, expected: list[float]) -> None:
    train = settings("train.learning_rate=1", "train.warmup_steps=2", f"train.schedule={schedule}").train
    assert [rate_at(train, step) for step in range(6)] == pytest.approx(expected, abs=1e-4)


def test_rate_grows_with_the_samples_of_a_step_when_it_is_to(settings: Settings) -> None:
    train = settings(
        "train.learning_rate=0.005", "train.batch_size=4", "train.gradient_accumulation=2", "train.scale_learning_rate=true"
    ).train
    assert rate_at(train, 0) == pytest.approx(0.04)  # the paper: 0.005 on 2 devices at batch 4
