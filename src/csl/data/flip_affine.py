"""The NUS-WIDE tutorial's training augmentation on Pillow images: a mirror image, then a rotation, shift and scaling.

The ranges and torchvision's nearest-neighbour sampling are the tutorial's; the draws come from the caller's generator. (Its
`ColorJitter()`, without arguments, does nothing.)
"""

import numpy as np
from PIL import Image

FLIP_PROBABILITY = 0.5
DEGREES = 20
TRANSLATE = 0.2  # of the side, each way
SCALES = (0.5, 1.5)
FILL = (123, 116, 103)  # ImageNet's mean, 0.485, 0.456 and 0.406 of 255, cut to whole numbers as there


def flip_affine(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Mirror with probability 0.5; then rotate up to 20 degrees, shift up to 0.2 of each side, scale by 0.5 to 1.5.

    image: RGB. Returns a new image of the same size; what lies outside of the old one is filled with ImageNet's mean.
    """
    from torchvision.transforms.v2 import functional as F  # a second to import, and the other augmentations do without

    if rng.random() < FLIP_PROBABILITY:
        image = F.horizontal_flip(image)
    reach = [TRANSLATE * side for side in image.size]
    return F.affine(
        image,
        angle=rng.uniform(-DEGREES, DEGREES),
        translate=[round(rng.uniform(-most, most)) for most in reach],
        scale=rng.uniform(*SCALES),
        shear=[0.0, 0.0],
        fill=list(FILL),
    )
