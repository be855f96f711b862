"""The section `generator` of params."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ti_pipeline.section import Section


class Generator(Section):
    """The frozen text-to-image model that learns the words and draws the candidates."""

    model: str
    """`miniature` (embedded, for trying things out), a folder in diffusers' layout, a `.safetensors`, `.ckpt` or `.gguf` file, or a hub
    name such as `stable-diffusion-v1-5/stable-diffusion-v1-5`: Stable Diffusion 1.x and 2.x, SDXL, Stable Diffusion 3, 3.5, FLUX.1,
    SANA, Z-Image, Qwen-Image and the paper's latent diffusion. Another model means new words, candidates and all else."""
    parts: dict[str, str | None]
    """What a single file lacks, by diffusers' names for the parts of its model (`vae`, `text_encoder_2`, `tokenizer_2`, …): files with
    weights, or folders in diffusers' layout. `null` leaves out a part that the model can do without, as Stable Diffusion 3 its T5. Give a
    Z-Image's `scheduler` where it is not Turbo: a file does not tell."""
    revision: str | None
    """Branch, tag or commit of a hub name; `null` is its main branch. Set a commit to get the same weights on every machine."""
    device: str = Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", examples=["auto", "cpu", "mps", "cuda", "cuda:1"])
    """Where the models run. `auto` takes the first GPU, or else the CPU. Results stay up to date when it changes."""
    precision: Literal["auto", "float32", "bfloat16", "float16"]
    """Number format of the frozen weights; what is learnt is always float32. `auto` is bfloat16 on a GPU that multiplies in it, and on a
    CPU whatever measures fastest. `float32` is the safest and closest to other implementations; `float16` may overflow."""
    prediction: Literal["epsilon", "v_prediction", "sample"] | None
    """What a diffusion model was trained to say, where its files do not: single files of Stable Diffusion 2.x, and of models that were
    trained further for v. `null` takes what the files say, or the family's usual."""
    density: Literal["uniform", "logit-normal"] | None
    """How often a model of rectified flow learns from each noise level, before the shift: all alike, or those in the middle of the way more
    often. `null` is the family's own, that of diffusers' training script. Another means new words."""
    encoders: Annotated[tuple[str, ...], Field(min_length=1)] | None
    """Text encoders that learn words, such as `[clip_l, t5]`; `null` is the family's own choice: all, but no T5 beside CLIPs. The others
    read the initializer in a word's place. Another choice means new words."""
    compile: bool
    """Put the U-Net through `torch.compile`: faster after a minute or more of compiling for each shape of batch."""
    checkpointing: bool
    """Compute what the denoiser and the text encoders made on the way forward once more on the way back, instead of keeping it: a fraction
    of the memory, for about a third more time. Changes no word."""
    quantise: Literal["int8", "fp8", "nf4"] | None
    """Keep the frozen weights of the denoiser and of text encoders beyond a billion of them in so few bits: half the memory or a quarter,
    for words and pictures that differ a little. `int8` and `fp8` need torchao, `nf4` needs bitsandbytes and a GPU (`docs/memory.md`)."""
    vae_tile: Annotated[int, Field(ge=64, multiple_of=64)] | None
    """[pixels] Edge of the tiles that the VAE encodes and decodes larger pictures in, which overlap by a quarter; `null` takes them whole.
    Less memory for pictures that differ a little."""
    offload: bool
    """While pictures are drawn, keep the parts of the generator that are not at work in main memory, for GPUs that do not hold all of them.
    Changes no picture."""

    @model_validator(mode="after")
    def _can_be_moved(self) -> Generator:
        if self.offload and self.compile:
            raise ValueError("generator.offload moves the denoiser, and generator.compile does not let it. Set one of them to false")
        return self

    def decisive(self) -> dict[str, Any]:
        """What words and pictures depend on beside the model's files, as JSON values: not where and how they are made."""
        return {"precision": self.precision} | self.model_dump(mode="json", include={"quantise", "vae_tile"}, exclude_none=True)

    def __hash__(self) -> int:
        return hash(self.model_dump_json())  # models are kept by their settings, and a dict has no hash
