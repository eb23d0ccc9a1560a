"""The garment itself: the cloth of body and sleeves, and the finish of its neckline."""

import numpy as np
from numpy.random import Generator

from csl.garments.canvas import Canvas, blur, noise
from csl.garments.colors import WHITE, Colors, mix
from csl.garments.cut import Cut
from csl.garments.fabric import weave
from csl.garments.outlines import bezier, ellipse, mirrored, rectangle


def draw_cloth(canvas: Canvas, rng: Generator, cut: Cut, pattern: int, colors: Colors) -> None:
    """Draw sleeves and body with pattern (index into `PATTERNS`), folds, shading, and perhaps cuffs and a waistband."""
    body = canvas.fill(cut.torso())
    sleeves = np.zeros_like(body)
    u, v = canvas.u.copy(), canvas.v.copy()
    edges = {side: cut.arm(side, cut.reach, cut.fit) for side in (-1, 1)} if cut.sleeve != "sleeveless" else {}
    if edges:
        root = np.array([[0.15, 0.2], [0.15, 0.1]])  # inside the body, so that no gap opens at the seam
        outlines = [[*(root * [side, 1]), *outer, *inner[::-1]] for side, (outer, inner) in edges.items()]
        sleeves = canvas.fill(*outlines) * (1 - body)
    for side in edges:
        angle = side * (cut.arms[(side + 1) // 2][0] + 0.15)
        along = canvas.u * np.sin(angle) + canvas.v * np.cos(angle)
        across = canvas.u * np.cos(angle) - canvas.v * np.sin(angle)
        here = (body < 0.5) & (canvas.u * side > 0)
        u[here], v[here] = across[here], along[here]
    alpha = np.maximum(body, sleeves)
    canvas.shadow(alpha, 6, 0.45)

    drape = noise(rng, (5, 5), canvas.size)
    ripple = np.sin(2 * np.pi * (canvas.u * rng.uniform(-6, 6) + canvas.v * rng.uniform(-2, 2) + drape * 0.7))
    folds = ripple * (0.4 + 0.6 * np.clip(canvas.v / 0.7, 0, 1)) * rng.uniform(0.02, 0.06) + 0.025 * drape
    cloth = weave(canvas, rng, pattern, colors, cut, u + drape * 0.006, v + drape * 0.006, sleeves)
    light = canvas.volume(body, 6, 0.28) * body
    if edges:
        light += canvas.volume(alpha, 3.5, 0.35) * (1 - body) * (1 - 0.45 * blur(body, 3))
    canvas.paint(alpha, cloth, light * (1 + folds))

    if edges and rng.random() < 0.7:
        canvas.paint(canvas.fill(*(_cuff(*edge) for edge in edges.values())) * (1 - body), colors.trim)
    if not cut.dress and rng.random() < 0.3:
        waistband = canvas.fill(rectangle(-0.6, cut.length - rng.uniform(0.035, 0.06), 0.6, 1.5)) * body
        ribs = 0.93 + 0.07 * np.sin(canvas.u * 300)
        canvas.paint(waistband * 0.9, colors.trim, light * ribs)


def _cuff(outer, inner):
    """The outline of the last 0.04 of a sleeve with these edges."""
    (a, b), (c, d) = outer[-1:-3:-1], inner[-1:-3:-1]
    back = 0.04 / max(np.hypot(*(a - b)), 1e-6)
    return np.array([a, c, c + (d - c) * back, a + (b - a) * back])


def draw_neck(canvas: Canvas, rng: Generator, cut: Cut, colors: Colors, worn: bool) -> None:
    """Draw the opening, with a neck in it if the garment is `worn` or else the label, and the neckline's finish."""
    corner = cut.shoulder_point(cut.opening)
    front = cut.neckline()
    back = bezier(corner, (0, corner[1] + 0.06), corner * [-1, 1], steps=10)
    opening = canvas.fill(np.concatenate([front, back]))
    if worn:
        side = bezier((0.098, -0.1), (0.105, corner[1] - 0.04), corner)
        alpha = np.maximum(opening, canvas.fill(mirrored([(0.1, -0.5), (0.098, -0.12), *side, (0, corner[1])])))
        under_chin = np.clip(1 - np.abs(canvas.v + 0.11) / 0.09, 0, 1) * 0.2
        canvas.paint(alpha, colors.skin, canvas.volume(alpha, 5, 0.3) * (1 - under_chin))
        bones = [bezier((x * 0.02, 0.07), (x * 0.06, 0.055), (x * 0.13, 0.045), steps=8) for x in (-1, 1)]
        canvas.darken(blur(canvas.stroke(0.012, *bones), 1) * opening, 0.25 if cut.depth > 0.15 else 0)
    else:
        canvas.paint(opening, colors.lining, 0.92 + 0.3 * np.clip(canvas.v, -0.1, 0.3))
        label = canvas.fill(rectangle(-0.03, corner[1] + 0.035, 0.03, corner[1] + 0.06))
        canvas.paint(label * opening * 0.9, np.float32([0.93, 0.92, 0.88]))
    canvas.darken(opening * blur(1 - opening, 2.5), 0.4)

    if cut.neck == "turtleneck":
        _draw_turtleneck(canvas, rng, cut, colors)
    elif cut.neck == "collar":
        _draw_collar(canvas, rng, cut, colors)
    else:
        trim = canvas.stroke(rng.uniform(0.036, 0.05), front)
        canvas.shadow(trim, 1.5, 0.35, 0.6)
        canvas.paint(trim, colors.trim)


def _draw_turtleneck(canvas, rng, cut, colors):
    """A ribbed tube around the neck, folded over near its top."""
    top = -rng.uniform(0.15, 0.18)
    corner = cut.shoulder_point(cut.opening)
    foot = [*corner], (corner[0] * 0.6, cut.depth + 0.015), (0, cut.depth + 0.015)
    half = [(0, top), *bezier((0.138, top - 0.012), (0.145, top * 0.5), corner), *bezier(*foot)]
    tube = canvas.fill(mirrored(half))
    cloth = mix(colors.base, colors.trim, rng.uniform(0.25, 0.7))
    ribs = 0.9 + 0.1 * np.sin(canvas.u * 2 * np.pi / 0.05)
    canvas.shadow(tube, 2.5, 0.45, 0.6)
    canvas.paint(tube, cloth, canvas.volume(tube, 4, 0.5) * ribs)
    fold = top * rng.uniform(0.35, 0.5)
    crease = bezier((-0.15, fold), (0, fold + 0.04), (0.15, fold))
    canvas.darken(blur(canvas.stroke(0.012, crease), 0.8) * tube, 0.4)
    rim = bezier((-0.138, top - 0.012), (0, top + 0.02), (0.138, top - 0.012))
    canvas.paint(canvas.stroke(0.012, rim), mix(cloth, WHITE, 0.25))


def _draw_collar(canvas, rng, cut, colors):
    """A shirt collar with two points, and the button placket beneath it."""
    x, y = cut.shoulder_point(cut.opening)
    end = cut.length + 0.03 if rng.random() < 0.6 else rng.uniform(0.3, 0.4)
    placket = canvas.fill(rectangle(-0.026, cut.depth - 0.01, 0.026, end))
    canvas.shadow(placket, 1.2, 0.25, 0.6)
    canvas.paint(placket * 0.9, mix(colors.base, colors.trim, 0.35))
    buttons = [ellipse((0, height), (0.01, 0.01)) for height in np.arange(cut.depth + 0.04, end - 0.02, 0.085)]
    canvas.paint(canvas.fill(*buttons), mix(colors.trim, WHITE, 0.5))
    point = rng.uniform(0.15, 0.2), cut.depth + rng.uniform(0.07, 0.12)
    half = np.array([(0, cut.depth), point, (x + 0.06, y + 0.005), (x - 0.005, y - 0.065), (x - 0.04, y - 0.035)])
    flaps = canvas.fill(half, half * [-1, 1])
    canvas.shadow(flaps, 2, 0.5, 0.7)
    canvas.paint(flaps, colors.trim, canvas.volume(flaps, 3, 0.35))
    canvas.darken(canvas.stroke(0.006, half[:3], half[:3] * [-1, 1]), 0.35)
