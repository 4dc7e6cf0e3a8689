"""Writes prompt.safetensors: prompt embeddings of diffusers' pipelines with clip_skip and with second prompts, over the
models e2e/golden/sd15-ancestral and e2e/golden/sdxl-euler-cfg. Made with torch 2.13.0, diffusers 0.40.0.dev0, transformers
5.18.0: python make_prompt_golden.py

Of each case: the embeddings of the prompt, and for SDXL the pooled ones, first and (`negative.`) of the negative prompt.
"""

from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import save_file

HERE = Path(__file__).parent
GOLDEN = HERE / "../../../e2e/golden"
PROMPT, SECOND, NEGATIVE, SECOND_NEGATIVE = "a small red house by the sea", "two green trees", "snow", "blurry boats"


def main():
    tensors = {}
    sd = StableDiffusionPipeline.from_pretrained(GOLDEN / "sd15-ancestral", torch_dtype=torch.float32)
    for skip in (None, 1, 2):
        positive, negative = sd.encode_prompt(PROMPT, "cpu", 1, True, NEGATIVE, clip_skip=skip)
        tensors |= {f"sd15-ancestral.{skip or 0}": positive, f"sd15-ancestral.{skip or 0}.negative": negative}
    xl = StableDiffusionXLPipeline.from_pretrained(GOLDEN / "sdxl-euler-cfg", torch_dtype=torch.float32)
    for name, second, second_negative, skip in [
        ("0", None, None, None),
        ("1", None, None, 1),
        ("second", SECOND, SECOND_NEGATIVE, None),
    ]:
        embeddings = xl.encode_prompt(
            PROMPT,
            prompt_2=second,
            device="cpu",
            negative_prompt=NEGATIVE,
            negative_prompt_2=second_negative,
            do_classifier_free_guidance=True,
            clip_skip=skip,
        )
        for kind, tensor in zip(("", ".negative", ".pooled", ".negative.pooled"), embeddings):
            tensors[f"sdxl-euler-cfg.{name}{kind}"] = tensor
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, HERE / "prompt.safetensors")
    print({key: tuple(tensor.shape) for key, tensor in tensors.items()})


if __name__ == "__main__":
    with torch.no_grad():
        main()
