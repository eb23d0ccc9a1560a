"""The whole picture of one garment: background, wearer or hanger, the garment, extras, and the photograph."""

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageFilter

from csl.garments.canvas import Canvas, band, noise
from csl.garments.colors import INK, WHITE, WOODS, Colors, any_color, luminance, mix, rgb
from csl.garments.cut import Cut
from csl.garments.extras import draw_extras
from csl.garments.garment import draw_cloth, draw_neck
from csl.garments.outlines import bezier, ellipse, mirrored


def draw_garment(rng: Generator, neck: int, sleeve: int, pattern: int, size: int) -> Image.Image:
    """Draw one garment.

    Args:
        rng: a `numpy.random.Generator`; it decides everything but the three values.
        neck: index into `NECKS`.
        sleeve: index into `SLEEVES`.
        pattern: index into `PATTERNS`.
        size: side of the square picture in pixels, at least 32.

    Returns:
        An RGB `PIL.Image`.

    Raises:
        IndexError: one of the three values is too large.
    """
    canvas, cut, colors = Canvas(rng, size), Cut(rng, neck, sleeve), Colors.draw(rng)
    _draw_background(canvas, rng, colors)
    scene = rng.choice(["person", "mannequin", "hanger"], p=[0.5, 0.2, 0.3])
    if scene == "mannequin":
        light = luminance(colors.base) < 0.6
        colors.skin = mix(rgb(rng.choice(WOODS)), WHITE if light else INK, 0.75)
    if scene == "hanger":
        _draw_hanger(canvas, rng, cut)
    else:
        _draw_wearer(canvas, cut, colors.skin, arms=scene == "person")
    draw_cloth(canvas, rng, cut, pattern, colors)
    draw_neck(canvas, rng, cut, colors, worn=scene != "hanger")
    draw_extras(canvas, rng, cut, colors, pattern, scene == "person")
    return _finish(canvas, rng)


def _draw_background(canvas, rng, colors):
    """Fill the canvas with a studio, a gradient, planks, bricks, plaster or lights out of focus."""
    size, tone = canvas.size, colors.background
    kinds = ["studio", "gradient", "wood", "bricks", "plaster", "bokeh"]
    kind = rng.choice(kinds, p=[0.25, 0.2, 0.17, 0.1, 0.14, 0.14])
    shade = np.ones((size, size), np.float32)
    if kind == "wood":
        along, across = (canvas.y, canvas.x) if rng.random() < 0.5 else (canvas.x, canvas.y)
        planks = across * rng.uniform(4, 7) + rng.random()
        level = rng.normal(0, 0.06, 16)[np.floor(planks).astype(int)]
        grain = noise(rng, (60, 5), size) if along is canvas.y else noise(rng, (5, 60), size)
        tone = mix(rgb(rng.choice(WOODS)), tone, 0.45)
        shade = (1 + level + 0.035 * grain) * (1 - 0.4 * band(planks + 0.5, 0.05, 0.05))
    elif kind == "bricks":
        rows = canvas.y * rng.uniform(8, 11) + rng.random()
        columns = canvas.x * rng.uniform(3.5, 5) + 0.5 * (np.floor(rows) % 2) + rng.random()
        level = rng.normal(0, 0.06, (16, 16))[np.floor(rows).astype(int), np.floor(columns).astype(int)]
        mortar = np.maximum(band(rows + 0.5, 0.09, 0.08), band(columns + 0.5, 0.05, 0.05))
        shade = (1 + level + 0.02 * noise(rng, (50, 50), size)) * (1 - 0.16 * mortar)
    elif kind == "plaster":
        shade = 1 + 0.04 * noise(rng, (6, 6), size) + 0.03 * noise(rng, (30, 30), size)
    elif kind == "gradient":
        angle = rng.uniform(0, 2 * np.pi)
        t = (canvas.x - 0.5) * np.cos(angle) + (canvas.y - 0.5) * np.sin(angle)
        shade = 1 + 0.35 * t
    else:
        horizon = rng.uniform(0.75, 0.95)
        shade = 1 - 0.12 * np.clip((canvas.y - horizon) / 0.06, 0, 1)
    shade *= 1.06 - rng.uniform(0.2, 0.5) * ((canvas.x - 0.5) ** 2 + (canvas.y - 0.4) ** 2)
    canvas.rgb[:] = tone * shade[..., None]
    if kind == "bokeh":
        for _ in range(rng.integers(8, 16)):
            radius, x, y = rng.uniform(0.03, 0.09), *rng.random(2)
            distance = np.hypot(canvas.x - x, canvas.y - y)
            glow = np.clip((radius - distance) / 0.02, 0, 1) * (0.75 + 0.25 * np.clip(distance / radius, 0, 1))
            canvas.paint(glow * rng.uniform(0.15, 0.5), mix(any_color(rng), WHITE, 0.5))


def _draw_wearer(canvas, cut, skin, arms):
    """Shoulders, chest and, if it is not a mannequin, the arms and hands."""
    (x, y), armpit = cut.shoulder_point(cut.shoulder), cut.armpit - np.array([0.005, 0])
    shoulder = bezier(cut.shoulder_point(0.1), (x - 0.004, y - 0.008), (x, y + 0.05))
    outlines = [mirrored([(0, 0), *shoulder, armpit, (0.16, 0.5), (0, 0.5)])]
    if arms:
        for side in (-1, 1):
            outer, inner = cut.arm(side, 1.0, 0.72)
            outlines.append(np.concatenate([outer, inner[::-1]]))
            wrist, along = (outer[-1] + inner[-1]) / 2, (outer[-1] - outer[-2] + inner[-1] - inner[-2])
            along /= np.hypot(*along)
            angle = np.arctan2(along[1], along[0])
            outlines.append(ellipse(wrist + along * 0.045, (0.062, 0.03), angle))
            thumb = wrist + along * 0.035 - np.array([side * 0.026, 0])
            outlines.append(ellipse(thumb, (0.036, 0.012), angle + side * 0.35))
    alpha = canvas.fill(*outlines)
    canvas.shadow(alpha, 5, 0.35)
    canvas.paint(alpha, skin, canvas.volume(alpha, 4, 0.35))


def _draw_hanger(canvas, rng, cut):
    """A hanger of wood; it is drawn before the garment, which hides all but the hook."""
    wood = rgb(rng.choice(WOODS))
    hook = np.concatenate([[(0, 0.06), (0, -0.09)], ellipse((0.022, -0.115), (0.024, 0.026), np.pi * 0.75, 24)[:16]])
    canvas.paint(canvas.stroke(0.012, hook), np.float32([0.62, 0.63, 0.66]))
    bar = [cut.shoulder_point(0.24) * [-1, 1], (0, -0.02), cut.shoulder_point(0.24)]
    canvas.paint(canvas.stroke(0.03, bar), wood)


def _finish(canvas, rng):
    """White balance, exposure, a slight loss of sharpness and sensor noise; returns the PIL image."""
    picture = canvas.rgb * rng.normal(1, 0.025, 3).astype(np.float32) * rng.uniform(0.9, 1.08)
    pixels = (np.clip(picture, 0, 1) * 255).astype(np.uint8)
    image = Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.7)))
    grain = rng.standard_normal((*pixels.shape[:2], 1), dtype=np.float32) * rng.uniform(0.5, 4)
    return Image.fromarray(np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8))
