from __future__ import annotations

import torch
from torch.nn.utils import clip_grad_norm_

from ti_pipeline.inversion.leaves import Learning, Leaves, clipped, gradient_norms
from ti_pipeline.inversion.setups.setup import Combination, Learnable, Step

CPU = torch.device("cpu")
Shapes = dict[str, tuple[int, ...]]
EACH: tuple[Shapes, ...] = ({"rows": (2, 8)}, {"rows": (1, 8), "down": (4, 8), "gain": (3,)}, {"down": (2, 8), "kernel": (2, 3, 1, 1)})


def learnable(shapes: Shapes, seed: int) -> Learnable:
    draws = torch.Generator().manual_seed(seed)
    return Learnable({name: torch.randn(shape, generator=draws) for name, shape in shapes.items()}, {"<x>": 1})


def stacked() -> tuple[list[Learnable], Leaves]:
    ones = [learnable(shapes, seed) for seed, shapes in enumerate(EACH)]
    return ones, Leaves([Combination(())] * len(ones), [Learning.begun(one) for one in ones], CPU)


def test_each_concept_is_clipped_and_moved_as_pytorch_does_it_alone() -> None:
    ones, leaves = stacked()
    rates, decays, bounds, counts = (0.005, 0.02, 0.1), (0.01, 0.2, 0.0), (1.5, 0.5, None), torch.zeros(3).double()
    plain = [{name: leaf.clone().requires_grad_() for name, leaf in one.leaves.items()} for one in ones]
    each = zip(plain, rates, decays, strict=True)
    optimizers = [torch.optim.AdamW(own.values(), lr=rate, weight_decay=decay) for own, rate, decay in each]
    for step in range(10):
        gradient = {name: torch.zeros_like(leaf) for name, leaf in leaves.values.items()}
        for place, (own, optimizer) in enumerate(zip(plain, optimizers, strict=True)):
            for name, leaf in own.items():
                leaf.grad = torch.randn(leaf.shape, generator=torch.Generator().manual_seed(100 * step + 10 * place + leaf.ndim))
                gradient[name][place][tuple(map(slice, leaf.shape))] = leaf.grad
            clip_grad_norm_(own.values(), bounds[place] or float("inf"))
            optimizer.step()
        counts += 1
        step_of_each = Step(counts, torch.tensor(rates).double(), torch.tensor(decays).double())
        leaves.update(clipped(gradient, gradient_norms(gradient), bounds), step_of_each)
    for own, learning in zip(plain, leaves.apart(), strict=True):
        assert own.keys() == learning.one.leaves.keys() == learning.first.keys() == learning.second.keys()
        for name, leaf in own.items():
            torch.testing.assert_close(learning.one.leaves[name], leaf.detach(), rtol=1e-4, atol=1e-5)


def test_what_a_concept_lacks_is_zero_and_comes_back_as_it_went_in() -> None:
    ones, leaves = stacked()
    assert {name: tuple(leaf.shape) for name, leaf in leaves.values.items()} == {
        "rows": (3, 2, 8),
        "down": (3, 4, 8),
        "gain": (3, 3),
        "kernel": (3, 2, 3, 1, 1),
    }
    assert not leaves.values["rows"][1, 1:].any() and not leaves.values["rows"][2].any() and not leaves.values["gain"][0].any()
    for place, learning in enumerate(leaves.apart()):
        for found in (learning.one, leaves.one(place)):
            assert all(torch.equal(found.leaves[name], leaf) for name, leaf in ones[place].leaves.items())


def test_a_group_has_what_its_concepts_have_and_no_more() -> None:
    _, leaves = stacked()
    shapes = {name: tuple(leaf.shape) for name, leaf in leaves.group([0, 1], leaves.values).leaves.items()}
    assert shapes == {"rows": (2, 2, 8), "down": (2, 4, 8), "gain": (2, 3)}
    assert tuple(leaves.group([1], leaves.values).leaves["rows"].shape) == (1, 1, 8)
    assert torch.equal(leaves.group([2, 0], leaves.values).leaves["rows"][1], leaves.values["rows"][0])
    turned = leaves.group([2, 1, 0], leaves.values).leaves["rows"]
    assert torch.equal(turned, leaves.values["rows"].flip(0)) and not torch.equal(turned, leaves.values["rows"])


def test_moments_stay_with_their_numbers_when_leaves_change() -> None:
    of_all = [{name: value * torch.ones(2, 3) for name in ("kept", "gone", "less")} for value in (0, 1, 2)]
    before = Learning(Learnable(of_all[0], {}), *of_all[1:])
    after = before.going_on(Learnable({"kept": torch.zeros(4, 3), "new": torch.zeros(5), "less": torch.zeros(1, 3)}, {}))
    assert after.first.keys() == after.second.keys() == {"kept", "new", "less"}
    assert after.first["kept"].tolist() == [[1.0] * 3] * 2 + [[0.0] * 3] * 2
    assert after.second["kept"].tolist() == [[2.0] * 3] * 2 + [[0.0] * 3] * 2
    assert after.second["less"].tolist() == [[2.0] * 3] and after.first["new"].tolist() == [0.0] * 5
    assert before.first["kept"].shape == (2, 3)
