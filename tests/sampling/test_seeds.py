from __future__ import annotations

import torch

from ti_pipeline.sampling.seeds import candidate_seed, initial_noise


def test_seed_is_pinned_and_fits_designers_tools():
    assert candidate_seed(0, "cat-toy", "a photo of a {token}", 0) == 3514125302
    seeds = [candidate_seed(0, "cat-toy", "a photo of a {token}", index) for index in range(1000)]
    assert len(set(seeds)) == 1000
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_seed_depends_on_everything_that_names_the_candidate():
    one = candidate_seed(0, "cat-toy", "a photo of a {token}", 3)
    others = [
        candidate_seed(1, "cat-toy", "a photo of a {token}", 3),
        candidate_seed(0, "cat", "a photo of a {token}", 3),
        candidate_seed(0, "cat-toy", "a picture of a {token}", 3),
        candidate_seed(0, "cat-toy", "a photo of a {token}", 4),
    ]
    assert one not in others


def test_noise_of_a_seed_is_its_own_and_leaves_the_global_stream_alone():
    state = torch.get_rng_state()
    noise = initial_noise([5, 6, 5], (4, 8, 8))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(noise[0], noise[2]) and not torch.equal(noise[0], noise[1])
    assert torch.equal(noise[1], initial_noise([6], (4, 8, 8))[0])
    assert abs(initial_noise(list(range(64)), (4, 8, 8)).std().item() - 1) < 0.02


def test_a_tool_that_seeds_torch_on_the_cpu_has_the_same_noise():
    """A1111 with `RNG: CPU` for a picture, ComfyUI for a batch of one; it is what the recipes say."""
    torch.manual_seed(3514125302)
    assert torch.equal(torch.randn((4, 64, 48)), initial_noise([3514125302], (4, 64, 48))[0])
    generator = torch.manual_seed(7)
    assert torch.equal(torch.randn((1, 16, 8, 8), generator=generator, device="cpu"), initial_noise([7], (16, 8, 8)))
