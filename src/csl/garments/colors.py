"""Colours, float32 RGB in [0, 1]: the palettes, how two are mixed, and those of one picture."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

# Five colours that go together, each row from dark to light.
_PALETTES = [
    "264653 2a9d8f e76f51 f4a261 e9c46a",
    "1d3557 e63946 457b9d a8dadc f1faee",
    "03071e 9d0208 dc2f02 f48c06 ffba08",
    "22223b 4a4e69 9a8c98 c9ada7 f2e9e4",
    "283618 606c38 bc6c25 dda15e fefae0",
    "2b2d42 d90429 ef233c 8d99ae edf2f4",
    "3d405b e07a5f 81b29a f2cc8f f4f1de",
    "0d3b66 ee964b f95738 f4d35e faf0ca",
    "5f0f40 9a031e fb8b24 0f8b8d ece4c7",
    "033f63 28666e 7c9885 b5b682 fedc97",
    "370617 6a4c93 1982c4 8ac926 ffca3a",
    "355070 6d597a b56576 e56b6f eaac8b",
    "231942 5e548e 9f86c0 be95c4 e0b1cb",
    "132a13 31572c 4f772d 90a955 ecf39e",
    "3c1518 69140e a44200 d58936 f2f3ae",
    "4b3f72 417b5a d0ceba e9d2f4 f7f4ea",
    "102542 f87060 8fb8de cdd7d6 ffffff",
    "171717 444444 8b8b8b da0037 ededed",
]
_SKINS = ["4a2c20", "6b4130", "8d5a3c", "b07a55", "c99673", "e0b08d", "efc7a8", "f5d7c0"]
WOODS = ["6b4a2f", "8a6240", "a67c52", "c49a6c", "d8c3a5", "b8afa4"]
WHITE = np.float32([1, 1, 1])
INK = np.float32([0.05, 0.05, 0.08])


def rgb(code: str) -> np.ndarray:
    """'rrggbb', hexadecimal -> float32 [3] in [0, 1]; a ValueError if it is not hexadecimal."""
    return np.frombuffer(bytes.fromhex(code), np.uint8).astype(np.float32) / 255


def any_color(rng: Generator) -> np.ndarray:
    """A random colour of any palette, float32 [3]."""
    return rgb(rng.choice(_PALETTES[rng.integers(len(_PALETTES))].split()))


def pixel(color: np.ndarray, *alpha: int) -> tuple[int, ...]:
    """RGB in [0, 1] (and an alpha from 0 to 255) -> the tuple of bytes that Pillow takes."""
    return (*(np.asarray(color) * 255).astype(int).tolist(), *alpha)


def luminance(color: np.ndarray) -> float:
    """Perceived lightness of an RGB colour [3], 0 to 1."""
    return float(color @ np.float32([0.3, 0.59, 0.11]))


def mix(a: np.ndarray, b: np.ndarray, weight: float | np.ndarray) -> np.ndarray:
    """From colour `a` (weight 0) to colour `b` (weight 1); a weight per pixel [H, W] gives [H, W, 3]."""
    weight = np.asarray(weight, np.float32)
    return a + (b - a) * (weight[..., None] if weight.ndim == 2 else weight)


@dataclass
class Colors:
    """The colours of one picture, RGB in [0, 1]: cloth, two more on it, trim, lining, the wearer and the background."""

    base: np.ndarray
    accent: np.ndarray
    third: np.ndarray
    trim: np.ndarray
    lining: np.ndarray
    skin: np.ndarray
    background: np.ndarray

    @classmethod
    def draw(cls, rng: Generator) -> "Colors":
        """A palette, shuffled so that cloth, accent and background differ in lightness."""
        swatches = [rgb(code) for code in _PALETTES[rng.integers(len(_PALETTES))].split()]
        swatches = [np.clip(color + rng.normal(0, 0.025, 3), 0.03, 0.97).astype(np.float32) for color in swatches]
        base = swatches.pop(rng.integers(4))
        swatches.sort(key=lambda color: abs(luminance(color) - luminance(base)) + rng.uniform(0, 0.15))
        third, accent = swatches[-2], swatches[-1]
        dark = luminance(base) < 0.6
        far = WHITE if dark else INK
        strength = rng.uniform(0.6, 0.9) if dark else rng.uniform(0.3, 0.8)
        trim = mix(accent if rng.random() < 0.5 else base, far, strength)
        lining = mix(base, far, 0.55)
        skins = sorted(map(rgb, _SKINS), key=lambda skin: -abs(luminance(skin) - luminance(base)))
        skin = skins[rng.integers(len(skins) // 2)]  # of the half that stands out best from the cloth
        level = rng.uniform(0.72, 0.95) if dark else rng.uniform(0.3, 0.5)
        tint = swatches[rng.integers(4)]
        background = mix(tint, WHITE * luminance(tint), 0.55)
        background = np.clip(background + level - luminance(background), 0.05, 0.97)
        return cls(base, accent, third, trim, lining, skin, background)
