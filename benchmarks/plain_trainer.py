"""A straightforward textual inversion trainer, the way that it is commonly written, to be compared with.

One concept a process; pictures are decoded and encoded anew at every step; AdamW on the whole vocabulary table, of which all
rows but one are put back after each step.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path

import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

TEMPLATES = ("a photo of a {}", "a rendering of a {}", "a cropped photo of the {}", "the photo of a {}", "a photo of a clean {}")


class Pictures(Dataset):
    def __init__(self, folder: Path, tokenizer, token: str, size: int):
        self.files = sorted(file for file in folder.iterdir() if file.suffix.lower() in (".png", ".jpg", ".jpeg"))
        self.tokenizer, self.token = tokenizer, token
        self.prepare = transforms.Compose([transforms.Resize((size, size)), transforms.ToTensor(), transforms.Normalize([0.5], [0.5])])

    def __len__(self) -> int:
        return 100 * len(self.files)

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        prompt = random.choice(TEMPLATES).format(self.token)
        ids = self.tokenizer(prompt, padding="max_length", truncation=True, return_tensors="pt").input_ids[0]
        return {"pixels": self.prepare(Image.open(self.files[i % len(self.files)]).convert("RGB")), "ids": ids}


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("model", "images", "token", "initializer", "output"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rate", type=float, default=0.005)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    pipe = StableDiffusionPipeline.from_pretrained(args.model, safety_checker=None, torch_dtype=torch.float32).to(device)
    noise_scheduler = DDPMScheduler.from_config(pipe.scheduler.config)
    tokenizer, text_encoder, vae, unet = pipe.tokenizer, pipe.text_encoder, pipe.vae, pipe.unet
    start = tokenizer(args.initializer, add_special_tokens=False).input_ids[0]
    tokenizer.add_tokens(args.token)
    text_encoder.resize_token_embeddings(len(tokenizer))
    new = tokenizer.convert_tokens_to_ids(args.token)
    table = text_encoder.get_input_embeddings().weight
    table.data[new] = table.data[start].clone()
    for network in (vae, unet, text_encoder):
        network.requires_grad_(False)
    dtype = getattr(torch, args.dtype)
    unet.to(dtype)
    vae.to(dtype)
    table.requires_grad_(True)
    optimizer = torch.optim.AdamW([table], lr=args.rate)
    size = unet.config.sample_size * 2 ** (len(vae.config.block_out_channels) - 1)
    data = DataLoader(Pictures(Path(args.images), tokenizer, args.token, size), batch_size=args.batch, shuffle=True)
    original = table.data.clone()
    others = torch.arange(len(tokenizer)) != new
    step, began, busy, timed = 0, 0.0, 0.0, 0
    while step < args.steps:
        for batch in data:
            if step == 2:
                began, busy, timed = time.perf_counter(), time.process_time(), args.steps - 2
            latents = vae.encode(batch["pixels"].to(device, dtype)).latent_dist.sample() * vae.config.scaling_factor
            noise = torch.randn_like(latents)
            t = torch.randint(0, noise_scheduler.config.num_train_timesteps, (len(latents),), device=device)
            noisy = noise_scheduler.add_noise(latents, noise, t)
            hidden = text_encoder(batch["ids"].to(device))[0].to(dtype)
            target = noise if noise_scheduler.config.prediction_type == "epsilon" else noise_scheduler.get_velocity(latents, noise, t)
            loss = F.mse_loss(unet(noisy, t, hidden).sample.float(), target.float())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            with torch.no_grad():
                table[others] = original[others]
            loss.item()
            step += 1
            if step == args.steps:
                break
    seconds, busy = time.perf_counter() - began, time.process_time() - busy
    Path(args.output).mkdir(parents=True, exist_ok=True)
    save_file({args.token: table.data[new][None].cpu().contiguous()}, Path(args.output) / "learned_embeds.safetensors")
    print(json.dumps({"samples_a_second": timed * args.batch / seconds, "samples_a_cpu_second": timed * args.batch / busy}))


if __name__ == "__main__":
    main()
