"""Plain textual inversion of several held-out concepts in one batch, for measuring the miniature and nothing else.

Rows of AdamW do not see each other and every concept has its own draws, so each learns what it would learn alone.
"""

from __future__ import annotations

import torch
from diffusers import StableDiffusionPipeline
from torch.nn import functional as F

TEMPLATES = {
    "object": (
        "a photo of a {}",
        "a rendering of a {}",
        "a picture of a {}",
        "the photo of a {}",
        "a depiction of a {}",
        "a good photo of a {}",
    ),
    "style": (
        "a painting in the style of {}",
        "a rendering in the style of {}",
        "a picture in the style of {}",
        "a nice painting in the style of {}",
    ),
}


class LearntRows:
    """Tokens behind the end of the vocabulary whose rows are parameters; the table itself is never touched."""

    def __init__(self, pipe: StableDiffusionPipeline, rows: torch.Tensor):
        self.rows, self.size = rows, pipe.text_encoder.get_input_embeddings().num_embeddings
        self.embedding, self.context = pipe.text_encoder.get_input_embeddings(), pipe.tokenizer.model_max_length
        self.tokenizer, self.encoder = pipe.tokenizer, pipe.text_encoder

    def ids(self, prompt: str, row: int | None) -> torch.Tensor:
        """Token ids `[context]` of a prompt with one `{}`, which becomes token `size + row`, or of a plain prompt."""
        if row is None:
            body = self.tokenizer(prompt, add_special_tokens=False).input_ids
        else:
            before, after = (self.tokenizer(part, add_special_tokens=False).input_ids for part in prompt.split("{}"))
            body = [*before, self.size + row, *after]
        ids = [self.tokenizer.bos_token_id, *body[: self.context - 2]]
        return torch.tensor(ids + [self.tokenizer.eos_token_id] * (self.context - len(ids)))

    def encode(self, ids: torch.Tensor) -> torch.Tensor:
        """Hidden states `[batch, context, width]` of ids that may lie behind the vocabulary's end."""
        learnt = ids >= self.size

        def put(module, args, output):
            return torch.where(learnt[..., None], self.rows[(ids - self.size).clamp(min=0)], output)

        hook = self.embedding.register_forward_hook(put)
        try:
            return self.encoder(ids.masked_fill(learnt, 0)).last_hidden_state
        finally:
            hook.remove()


def invert(
    pipe: StableDiffusionPipeline,
    sets: list[torch.Tensor],
    initializers: list[str],
    kinds: list[str],
    steps: int,
    rate: float = 0.005,
    batch: int = 4,
    seed: int = 0,
) -> LearntRows:
    """Learn one vector for each picture set, float `[n, 3, 64, 64]` in [-1, 1]: rows `[concepts, width]`."""
    scale = pipe.vae.config.scaling_factor
    alphas = pipe.scheduler.alphas_cumprod
    table = pipe.text_encoder.get_input_embeddings().weight
    first = [table[pipe.tokenizer(word, add_special_tokens=False).input_ids].mean(0) for word in initializers]
    learnt = LearntRows(pipe, torch.stack(first).detach().clone().requires_grad_(True))
    with torch.no_grad():
        posteriors = [pipe.vae.encode(x).latent_dist for x in sets]
    prompts = [torch.stack([learnt.ids(t, row) for t in TEMPLATES[kind]]) for row, kind in enumerate(kinds)]
    streams = [torch.Generator().manual_seed(seed * 1000 + row) for row in range(len(sets))]
    optimizer = torch.optim.AdamW([learnt.rows], rate, weight_decay=0.01)
    for _ in range(steps):
        latents, noises, times, ids = [], [], [], []
        for posterior, texts, g in zip(posteriors, prompts, streams, strict=True):
            pick = torch.randint(len(posterior.mean), (batch,), generator=g)
            sampled = posterior.mean[pick] + posterior.std[pick] * torch.randn(posterior.mean[pick].shape, generator=g)
            latents.append(sampled * scale)
            noises.append(torch.randn(sampled.shape, generator=g))
            times.append(torch.randint(len(alphas), (batch,), generator=g))
            ids.append(texts[torch.randint(len(texts), (batch,), generator=g)])
        x0, noise, t = torch.cat(latents), torch.cat(noises), torch.cat(times)
        a, s = alphas[t].sqrt()[:, None, None, None], (1 - alphas[t]).sqrt()[:, None, None, None]
        predicted = pipe.unet(a * x0 + s * noise, t, learnt.encode(torch.cat(ids))).sample
        loss = F.mse_loss(predicted, a * noise - s * x0, reduction="none").mean((1, 2, 3))
        optimizer.zero_grad()
        (loss.sum() / batch).backward()  # the mean over each concept's own samples
        optimizer.step()
    learnt.rows.requires_grad_(False)
    return learnt
