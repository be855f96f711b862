"""Folders in diffusers' layout as the single files that the models' authors and user interfaces publish: their names, one file."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.generators.tiny_stable_diffusion import _unet_name, _vae_name

Tensors = dict[str, torch.Tensor]
UNET, FIRST_STAGE, VAE = "model.diffusion_model.", "first_stage_model.", "vae."


def weights(folder: Path, part: str) -> Tensors:
    return load_file(next((folder / part).glob("*.safetensors")))


def under(start: str, tensors: Tensors) -> Tensors:
    return {f"{start}{name}": tensor.contiguous() for name, tensor in tensors.items()}


def vae(folder: Path, part: str = "vae") -> Tensors:
    """CompVis latent-diffusion's autoencoder, whose attention is of 1 × 1 convolutions; also Black Forest Labs' `ae.safetensors`."""
    made = {}
    for name, tensor in weights(folder, part).items():
        convolves = "attentions" in name and "group_norm" not in name and name.endswith("weight")
        made[_vae_name(name)] = tensor[:, :, None, None] if convolves else tensor
    return made


def unet(folder: Path) -> Tensors:
    tensors = weights(folder, "unet")
    attending = {name.split(".")[1] for name in tensors if name.startswith("up_blocks") and ".attentions." in name}
    return {_unet_name(name, attending): tensor for name, tensor in tensors.items()}


def stable_diffusion(folder: Path) -> Tensors:
    text = {name if name.startswith("text_model.") else f"text_model.{name}": t for name, t in weights(folder, "text_encoder").items()}
    return under(UNET, unet(folder)) | under(FIRST_STAGE, vae(folder)) | under("cond_stage_model.transformer.", text)


def stable_diffusion_2(folder: Path) -> Tensors:
    """The last layer of the text encoder, which the U-Net does not hear, is in the published files too."""
    text = open_clip(weights(folder, "text_encoder"))
    layers = 1 + max(int(name.split(".")[2]) for name in text if ".resblocks." in name)
    first = {name: tensor for name, tensor in text.items() if "resblocks.0." in name}
    unheard = {name.replace("resblocks.0.", f"resblocks.{layers}."): torch.zeros_like(tensor) for name, tensor in first.items()}
    return under(UNET, unet(folder)) | under(FIRST_STAGE, vae(folder)) | under("cond_stage_model.model.", text | unheard)


def stable_diffusion_xl(folder: Path) -> Tensors:
    small = weights(folder, "text_encoder")
    first = {name if name.startswith("text_model.") else f"text_model.{name}": tensor for name, tensor in small.items()}
    texts = under("conditioner.embedders.0.transformer.", first)
    texts |= under("conditioner.embedders.1.model.", open_clip(weights(folder, "text_encoder_2")))
    return under(UNET, unet(folder)) | under(FIRST_STAGE, vae(folder)) | texts


def latent_diffusion(folder: Path) -> Tensors:
    tensors = {name: tensor for name, tensor in weights(folder, "bert").items()}
    whole = under(UNET, unet(folder)) | under(FIRST_STAGE, vae(folder, "vqvae"))
    return whole | under("cond_stage_model.transformer.", {_bert_name(name): tensor for name, tensor in tensors.items()})


def stable_diffusion_3(folder: Path) -> Tensors:
    made = under(UNET, sd3_transformer(weights(folder, "transformer"))) | under(FIRST_STAGE, vae(folder))
    for part, name in (("text_encoder", "clip_l"), ("text_encoder_2", "clip_g"), ("text_encoder_3", "t5xxl")):
        if (folder / part).is_dir():
            made |= under(f"text_encoders.{name}.transformer.", weights(folder, part))
    return made


def flux(folder: Path) -> Tensors:
    """As user interfaces save all in one."""
    made = under(UNET, flux_transformer(weights(folder, "transformer"))) | under(VAE, vae(folder))
    clip = {name if name.startswith("text_model.") else f"text_model.{name}": t for name, t in weights(folder, "text_encoder").items()}
    made |= under("text_encoders.clip_l.transformer.", clip)
    return made | under("text_encoders.t5xxl.transformer.", weights(folder, "text_encoder_2"))


def sana(folder: Path) -> Tensors:
    return under(UNET, sana_transformer(weights(folder, "transformer")))


def z_image(folder: Path) -> Tensors:
    return under(UNET, z_image_transformer(weights(folder, "transformer")))


def qwen_image(folder: Path) -> Tensors:
    """Its authors have no other names than diffusers."""
    return under(UNET, weights(folder, "transformer"))


def deep_vae(folder: Path) -> Tensors:
    """MIT's deep compression autoencoder, whose attention is of 1 × 1 convolutions."""
    names = {
        "encoder.conv_in": "encoder.project_in.conv",
        "encoder.conv_out": "encoder.project_out.0.conv",
        "decoder.conv_in": "decoder.project_in.conv",
        "decoder.norm_out": "decoder.project_out.0",
        "decoder.conv_out": "decoder.project_out.2.conv",
        "attn.to_qkv_multiscale.0.proj_in": "context_module.main.aggreg.0.0",
        "attn.to_qkv_multiscale.0.proj_out": "context_module.main.aggreg.0.1",
        "attn.to_out": "context_module.main.proj.conv",
        "attn.norm_out": "context_module.main.proj.norm",
        "conv_out.conv_inverted": "local_module.main.inverted_conv.conv",
        "conv_out.conv_depth": "local_module.main.depth_conv.conv",
        "conv_out.conv_point": "local_module.main.point_conv.conv",
        "conv_out.norm": "local_module.main.point_conv.norm",
        ".conv1.": ".main.conv1.conv.",
        ".conv2.": ".main.conv2.conv.",
    }
    made = _renamed(_joined(weights(folder, "vae"), "attn.to_{}", "context_module.main.qkv.conv", "qkv"), names)
    found: Tensors = {}
    for name, tensor in made.items():
        name = re.sub(r"(encoder|decoder)\.(?:down|up)_blocks\.(\d+)\.(\d+)\.", r"\1.stages.\2.op_list.\3.", name)
        name = re.sub(r"(op_list\.\d+)\.norm\.", r"\1.main.conv2.norm.", name)
        convolves = ".qkv.conv." in name or ".proj.conv." in name
        found[re.sub(r"(op_list\.\d+)\.conv\.", r"\1.main.conv.conv.", name)] = tensor[:, :, None, None] if convolves else tensor
    return {name: tensor.contiguous() for name, tensor in found.items()}


def moving_vae(folder: Path) -> Tensors:
    """Wan's autoencoder for moving pictures, whose layers are numbered one after the other: three and a change of size for a block."""
    residual = {
        "norm1.": "residual.0.",
        "conv1.": "residual.2.",
        "norm2.": "residual.3.",
        "conv2.": "residual.6.",
        "conv_shortcut.": "shortcut.",
    }
    names = {"conv_in.": "conv1.", "norm_out.": "head.0.", "conv_out.": "head.2.", "mid_block.attentions.0.": "middle.1."}
    made = {}
    for name, tensor in weights(folder, "vae").items():
        name = re.sub(r"^(post_)?quant_conv\.", lambda found: "conv2." if found[1] else "conv1.", name)
        name = re.sub(r"mid_block\.resnets\.(\d)", lambda found: f"middle.{2 * int(found[1])}", name).replace(
            "down_blocks.", "downsamples."
        )
        name = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda found: f"upsamples.{4 * int(found[1]) + int(found[2])}", name)
        name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda found: f"upsamples.{4 * int(found[1]) + 3}", name)
        for ours, theirs in (residual if re.search(r"samples|middle", name) else names).items():
            name = name.replace(ours, theirs)
        made[name.replace("mid_block.attentions.0.", "middle.1.")] = tensor
    return made


def language_model(folder: Path) -> Tensors:
    """A language model as its authors publish it, with the head that says the next token."""
    tensors = weights(folder, "text_encoder")
    if "lm_head.weight" in tensors:
        return tensors
    return under("model.", tensors) | {"lm_head.weight": tensors["embed_tokens.weight"].clone()}


def open_clip(tensors: Tensors) -> Tensors:
    """A CLIP of transformers by open_clip's names."""
    made: Tensors = {}
    plain = {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
    fixed = {
        "embeddings.token_embedding.weight": "token_embedding.weight",
        "embeddings.position_embedding.weight": "positional_embedding",
        "final_layer_norm.weight": "ln_final.weight",
        "final_layer_norm.bias": "ln_final.bias",
    }
    swaps = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "fc1": "c_fc", "fc2": "c_proj", "self_attn.out_proj": "attn.out_proj"}
    for name, tensor in plain.items():
        if name in fixed:
            made[fixed[name]] = tensor
        elif name == "text_projection.weight":
            made["text_projection"] = tensor.T.contiguous()
        elif found := re.fullmatch(r"encoder\.layers\.(\d+)\.self_attn\.q_proj\.(weight|bias)", name):
            parts = [plain[name.replace("q_proj", f"{letter}_proj")] for letter in "qkv"]
            made[f"transformer.resblocks.{found[1]}.attn.in_proj_{found[2]}"] = torch.cat(parts)
        elif found := re.fullmatch(r"encoder\.layers\.(\d+)\.(.*)", name):
            rest = found[2]
            if re.match(r"self_attn\.[kv]_proj", rest):
                continue
            for ours, theirs in swaps.items():
                rest = rest.replace(ours, theirs)
            made[f"transformer.resblocks.{found[1]}.{rest}"] = tensor
    return made


def sd3_transformer(tensors: Tensors) -> Tensors:
    """Stability AI's names and joined projections of Stable Diffusion 3."""
    made: Tensors = {}
    count = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("transformer_blocks."))
    fixed = {
        "pos_embed.proj": "x_embedder.proj",
        "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
        "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
        "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
        "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
        "context_embedder": "context_embedder",
        "proj_out": "final_layer.linear",
    }
    block = {
        "attn.to_out.0": "x_block.attn.proj",
        "attn.to_add_out": "context_block.attn.proj",
        "attn2.to_out.0": "x_block.attn2.proj",
        "norm1.linear": "x_block.adaLN_modulation.1",
        "norm1_context.linear": "context_block.adaLN_modulation.1",
        "ff.net.0.proj": "x_block.mlp.fc1",
        "ff.net.2": "x_block.mlp.fc2",
        "ff_context.net.0.proj": "context_block.mlp.fc1",
        "ff_context.net.2": "context_block.mlp.fc2",
        "attn.norm_q": "x_block.attn.ln_q",
        "attn.norm_k": "x_block.attn.ln_k",
        "attn2.norm_q": "x_block.attn2.ln_q",
        "attn2.norm_k": "x_block.attn2.ln_k",
        "attn.norm_added_q": "context_block.attn.ln_q",
        "attn.norm_added_k": "context_block.attn.ln_k",
    }
    joined = {"attn.to_{}": "x_block.attn", "attn2.to_{}": "x_block.attn2", "attn.add_{}_proj": "context_block.attn"}
    made["pos_embed"] = tensors["pos_embed.pos_embed"]
    for name, tensor in tensors.items():
        for ours, theirs in fixed.items():
            if re.fullmatch(rf"{re.escape(ours)}\.(weight|bias)", name):
                made[name.replace(ours, theirs, 1)] = tensor
        if found := re.fullmatch(r"norm_out\.linear\.(weight|bias)", name):
            made[f"final_layer.adaLN_modulation.1.{found[1]}"] = swapped(tensor)
    for i in range(count):
        start = f"transformer_blocks.{i}."
        for end in ("weight", "bias"):
            for ours, theirs in block.items():
                if (tensor := tensors.get(f"{start}{ours}.{end}")) is not None:
                    last = ours == "norm1_context.linear" and i == count - 1
                    made[f"joint_blocks.{i}.{theirs}.{end}"] = swapped(tensor) if last else tensor
            for ours, theirs in joined.items():
                if f"{start}{ours.format('q')}.{end}" in tensors:
                    parts = [tensors[f"{start}{ours.format(letter)}.{end}"] for letter in "qkv"]
                    made[f"joint_blocks.{i}.{theirs}.qkv.{end}"] = torch.cat(parts)
    return made


def flux_transformer(tensors: Tensors) -> Tensors:
    """Black Forest Labs' names and joined projections of FLUX.1."""
    made: Tensors = {}
    fixed = {
        "time_text_embed.timestep_embedder.linear_1": "time_in.in_layer",
        "time_text_embed.timestep_embedder.linear_2": "time_in.out_layer",
        "time_text_embed.text_embedder.linear_1": "vector_in.in_layer",
        "time_text_embed.text_embedder.linear_2": "vector_in.out_layer",
        "time_text_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
        "time_text_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
        "context_embedder": "txt_in",
        "x_embedder": "img_in",
        "proj_out": "final_layer.linear",
    }
    double = {
        "norm1.linear": "img_mod.lin",
        "norm1_context.linear": "txt_mod.lin",
        "attn.to_out.0": "img_attn.proj",
        "attn.to_add_out": "txt_attn.proj",
        "ff.net.0.proj": "img_mlp.0",
        "ff.net.2": "img_mlp.2",
        "ff_context.net.0.proj": "txt_mlp.0",
        "ff_context.net.2": "txt_mlp.2",
        "attn.norm_q": "img_attn.norm.query_norm",
        "attn.norm_k": "img_attn.norm.key_norm",
        "attn.norm_added_q": "txt_attn.norm.query_norm",
        "attn.norm_added_k": "txt_attn.norm.key_norm",
    }
    single = {"norm.linear": "modulation.lin", "proj_out": "linear2", "attn.norm_q": "norm.query_norm", "attn.norm_k": "norm.key_norm"}
    for name, tensor in tensors.items():
        base, end = name.rsplit(".", 1)
        if base in fixed:
            made[f"{fixed[base]}.{end}"] = tensor
        elif base == "norm_out.linear":
            made[f"final_layer.adaLN_modulation.1.{end}"] = swapped(tensor)
        elif found := re.fullmatch(r"(single_)?transformer_blocks\.(\d+)\.(.*)", base):
            place, names = (f"single_blocks.{found[2]}.", single) if found[1] else (f"double_blocks.{found[2]}.", double)
            own = base.removesuffix(found[3])
            if found[3] in names:
                made[f"{place}{names[found[3]]}.{'scale' if 'norm_' in found[3] else end}"] = tensor
            elif found[3] == "attn.to_q" and found[1]:
                parts = [tensors[f"{own}{each}.{end}"] for each in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")]
                made[f"{place}linear1.{end}"] = torch.cat(parts)
            elif found[3] == "attn.to_q":
                made[f"{place}img_attn.qkv.{end}"] = torch.cat([tensors[f"{own}attn.to_{letter}.{end}"] for letter in "qkv"])
            elif found[3] == "attn.add_q_proj":
                made[f"{place}txt_attn.qkv.{end}"] = torch.cat([tensors[f"{own}attn.add_{letter}_proj.{end}"] for letter in "qkv"])
    return made


def sana_transformer(tensors: Tensors) -> Tensors:
    """NVIDIA's names and joined projections of SANA, with the places and the empty caption that nothing reads."""
    names = {
        "patch_embed.proj": "x_embedder.proj",
        "time_embed.emb.timestep_embedder.linear_1": "t_embedder.mlp.0",
        "time_embed.emb.timestep_embedder.linear_2": "t_embedder.mlp.2",
        "time_embed.linear": "t_block.1",
        "caption_projection.linear_1": "y_embedder.y_proj.fc1",
        "caption_projection.linear_2": "y_embedder.y_proj.fc2",
        "caption_norm": "attention_y_norm",
        "transformer_blocks": "blocks",
        "attn1.to_out.0": "attn.proj",
        "attn2.to_out.0": "cross_attn.proj",
        "attn2.to_q": "cross_attn.q_linear",
        "ff.conv_inverted": "mlp.inverted_conv.conv",
        "ff.conv_depth": "mlp.depth_conv.conv",
        "ff.conv_point": "mlp.point_conv.conv",
        "proj_out": "final_layer.linear",
    }
    made = _renamed(_joined(_joined(tensors, "attn1.to_{}", "attn.qkv", "qkv"), "attn2.to_{}", "cross_attn.kv_linear", "kv"), names)
    made["final_layer.scale_shift_table"] = made.pop("scale_shift_table")
    width, caption = made["x_embedder.proj.weight"].shape[0], made["y_embedder.y_proj.fc1.weight"].shape[1]
    return made | {"pos_embed": torch.zeros(1, 32**2, width), "y_embedder.y_embedding": torch.zeros(300, caption)}


def z_image_transformer(tensors: Tensors) -> Tensors:
    """The names of Z-Image in user interfaces, which have it among the relatives of Lumina."""
    names = {
        "all_final_layer.2-1.": "final_layer.",
        "all_x_embedder.2-1.": "x_embedder.",
        "attention.to_out.0": "attention.out",
        "attention.norm_": "attention.",
    }
    made = _renamed(_joined(tensors, "attention.to_{}", "attention.qkv", "qkv"), names)
    return {re.sub(r"attention\.([qk])\.", r"attention.\1_norm.", name): tensor for name, tensor in made.items()}


def _renamed(tensors: Tensors, names: dict[str, str]) -> Tensors:
    made: Tensors = {}
    for name, tensor in tensors.items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        made[name] = tensor
    return made


def _joined(tensors: Tensors, separate: str, together: str, letters: str) -> Tensors:
    """With several projections, by their letters, as one."""
    made: Tensors = {}
    for name, tensor in tensors.items():
        letter = next((letter for letter in letters if f".{separate.format(letter)}." in name), None)
        if letter is None:
            made[name] = tensor
        elif letter == letters[0]:
            each = [tensors[name.replace(separate.format(letter), separate.format(other))] for other in letters]
            made[name.replace(separate.format(letter), together)] = torch.cat(each)
    return made


def swapped(tensor: torch.Tensor) -> torch.Tensor:
    """Shift and scale in the order of the original code."""
    scale, shift = tensor.chunk(2)
    return torch.cat([shift, scale])


def _bert_name(name: str) -> str:
    fixed = {"model.embed_tokens.": "token_emb.", "model.embed_positions.": "pos_emb.emb.", "model.layer_norm.": "norm."}
    for ours, theirs in fixed.items():
        if name.startswith(ours):
            return name.replace(ours, theirs)
    found = re.fullmatch(r"model\.layers\.(\d+)\.(.*)\.(weight|bias)", name)
    if found is None:
        return name
    layer = 2 * int(found[1])
    inside = {
        "self_attn_layer_norm": f"{layer}.0",
        "self_attn.q_proj": f"{layer}.1.to_q",
        "self_attn.k_proj": f"{layer}.1.to_k",
        "self_attn.v_proj": f"{layer}.1.to_v",
        "self_attn.out_proj": f"{layer}.1.to_out",
        "final_layer_norm": f"{layer + 1}.0",
        "fc1": f"{layer + 1}.1.net.0.0",
        "fc2": f"{layer + 1}.1.net.2",
    }
    return f"attn_layers.layers.{inside[found[2]]}.{found[3]}"
