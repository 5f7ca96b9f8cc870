"""Shapes of hub models and figures of accelerators, for planning where neither hub nor accelerator is reachable.

Shapes are those of the models' config.json as published; fine-tuned and reinforced models have their base's. A test
holds them against transformers' own classes.
"""

from __future__ import annotations

import json
from dataclasses import astuple
from pathlib import Path

from opd_lib.forecast import shapes
from opd_lib.forecast.cost import Accelerator
from opd_lib.forecast.footprint import GIB
from opd_lib.forecast.shapes import Shape

R1_DISTILL_1_5B = Shape(  # Qwen2.5-Math-1.5B with a head of its own
    layers=28, hidden=1536, intermediate=8960, heads=12, kv_heads=2, head_dim=128,
    vocabulary=151_936, tied=False, qkv_bias=True, qk_norm=False,
)  # fmt: skip
R1_DISTILL_7B = Shape(  # Qwen2.5-Math-7B
    layers=28, hidden=3584, intermediate=18_944, heads=28, kv_heads=4, head_dim=128,
    vocabulary=152_064, tied=False, qkv_bias=True, qk_norm=False,
)  # fmt: skip
R1_DISTILL_14B = Shape(  # Qwen2.5-14B
    layers=48, hidden=5120, intermediate=13_824, heads=40, kv_heads=8, head_dim=128,
    vocabulary=152_064, tied=False, qkv_bias=True, qk_norm=False,
)  # fmt: skip
QWEN3_1_7B = Shape(
    layers=28, hidden=2048, intermediate=6144, heads=16, kv_heads=8, head_dim=128,
    vocabulary=151_936, tied=True, qkv_bias=False, qk_norm=True,
)  # fmt: skip
QWEN3_4B = Shape(
    layers=36, hidden=2560, intermediate=9728, heads=32, kv_heads=8, head_dim=128,
    vocabulary=151_936, tied=True, qkv_bias=False, qk_norm=True,
)  # fmt: skip

HUB = {
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": R1_DISTILL_1_5B,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": R1_DISTILL_7B,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B": R1_DISTILL_14B,
    "hbx/JustRL-DeepSeek-1.5B": R1_DISTILL_1_5B,  # from R1-Distill-1.5B
    "Skywork/Skywork-OR1-Math-7B": R1_DISTILL_7B,  # from R1-Distill-7B
    "Qwen/Qwen3-1.7B-Base": QWEN3_1_7B,
    "Qwen/Qwen3-1.7B": QWEN3_1_7B,
    "Qwen/Qwen3-4B-Base": QWEN3_4B,
    "Qwen/Qwen3-4B": QWEN3_4B,
    "lllyx/Qwen3-4B-Base-GRPO": QWEN3_4B,
    "lllyx/Qwen3-1.7B-SFT": QWEN3_1_7B,
    "Keven16/Qwen3-4B-Non-Thinking-RL-Math-Step500": QWEN3_4B,
}
"""hub name without revision → shape"""

A100 = Accelerator(name="A100-80GB", peak=312e12, bandwidth=2.039e12, memory=80.0 * GIB)
H100 = Accelerator(name="H100-80GB", peak=989e12, bandwidth=3.35e12, memory=80.0 * GIB)
H200 = Accelerator(name="H200", peak=989e12, bandwidth=4.8e12, memory=139.0 * GIB)
"""Source: the makers' data sheets, for the modules of a server board (SXM), dense bfloat16."""


def accelerator(device: str) -> Accelerator | None:
    """The figures of a device by the name its driver gives it; None if they are not known.

    Devices of similar names (PCIe boards, less memory, a slice of a device) have other figures.
    """
    return {"NVIDIA A100-SXM4-80GB": A100, "NVIDIA H100 80GB HBM3": H100, "NVIDIA H200": H200}.get(device)


def shape_in(config: Path) -> Shape:
    """The shape that a checkpoint's config.json states.

    Raises ValueError naming the file if it is no such config, lacks a size, or states one that no model has.
    """
    try:
        found = shapes.shape(json.loads(config.read_text(encoding="utf-8")))
    except KeyError as error:
        raise ValueError(f"{config}: no key {error}; it takes the config.json that save_pretrained writes") from error
    except (AttributeError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ValueError(f"{config}: {error}; it takes a config.json of Qwen2 or Qwen3 models") from error
    sizes = [size for size in astuple(found) if not isinstance(size, bool)]
    if min(sizes) < 1:
        raise ValueError(f"{config}: states a size of {min(sizes)}; it takes the config.json of a checkpoint")
    return found


def shape_of(name: str) -> Shape:
    """The shape of a hub model, `org/name` or `org/name@revision`. Raises ValueError listing those that are known."""
    plain = name.partition("@")[0]
    if plain not in HUB:
        raise ValueError(
            f"{name}: no shape known for planning; download it and name its folder, or use {', '.join(HUB)}"
        )
    return HUB[plain]
