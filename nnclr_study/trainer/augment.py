"""Random views of a whole batch at once, on the device that holds the images.

A view is, in this order: crop and flip, brightness shift, colour jitter (brightness, contrast,
saturation, hue), greyscale, Gaussian blur, solarisation. From the jitter on, each is what
torchvision's function of that name computes; the order of the jitters, which SimCLR shuffles, is
fixed.
"""

from functools import partial
from typing import NamedTuple, Self

import torch
from torch import Tensor

from nnclr_study.study.config import TrialConfig


class Recipe(NamedTuple):
    """How an augmentation is drawn: the knobs of `TrialConfig` that have these names."""

    crop_min_area: float
    """Smallest crop as a share of the image; the largest is the whole image."""
    crop_max_aspect: float
    """Aspect ratio of a crop lies between 1 / crop_max_aspect and crop_max_aspect."""
    brightness_shift: float
    """Largest shift of all pixels, in shares of the value range."""
    flip_prob: float = 0.5
    jitter_prob: float = 0.8
    """Of all four jitters at once."""
    jitter_brightness: float = 0.0
    """Largest distance of the factor from 1; so for contrast and saturation."""
    jitter_contrast: float = 0.0
    jitter_saturation: float = 0.0
    jitter_hue: float = 0.0
    """Largest turn, in shares of the colour circle."""
    grey_prob: float = 0.0
    blur_prob: float = 0.0
    blur_min_sigma: float = 0.1
    """In pixels."""
    blur_max_sigma: float = 2.0
    solarise_prob: float = 0.0
    solarise_threshold: float = 0.5
    """In shares of the value range."""

    @classmethod
    def of(cls, config: TrialConfig) -> Self:
        """Return the contrastive recipe of a trial, its first view's."""
        return cls(*(getattr(config, part) for part in cls._fields))

    @classmethod
    def of_both_views(cls, config: TrialConfig) -> tuple[Self, Self]:
        """Return the contrastive recipes of a trial's first and second view."""
        first = cls.of(config)
        second = first._replace(
            blur_prob=config.view2_blur_prob, solarise_prob=config.view2_solarise_prob
        )
        return first, second


PROBE_RECIPE = Recipe(crop_min_area=0.5, crop_max_aspect=4 / 3, brightness_shift=0.2)
"""The weaker augmentation under which the online probe learns, as in the Keras example."""


class Draw(NamedTuple):
    """Parameters of one random view for each of B images, lengths in shares of the side.

    A part that is off in the recipe is None and costs nothing; an image that a part passes by
    has the value that leaves it as it is.
    """

    flip_B: Tensor
    top_B: Tensor
    left_B: Tensor
    height_B: Tensor
    width_B: Tensor
    shift_B: Tensor | None = None
    brightness_B: Tensor | None = None
    contrast_B: Tensor | None = None
    saturation_B: Tensor | None = None
    hue_B: Tensor | None = None
    grey_B: Tensor | None = None
    sigma_B: Tensor | None = None
    """Of the blur, in pixels; 0: none."""
    solarise_B: Tensor | None = None
    """Values from here on are inverted; infinity: none."""

    def rows(self, rows: slice) -> "Draw":
        """Return the parameters of some of the images."""
        return Draw._make(None if values is None else values[rows] for values in self)


def draw(recipe: Recipe, count: int, generator: torch.Generator) -> Draw:
    """Draw the parameters of `count` views: area and aspect uniform, as keras_cv does.

    Every recipe takes 15 numbers an image from the generator, so that views stay the same in
    all parts but the one whose knob is turned.
    """
    uniform = torch.rand(15, count, generator=generator, device=generator.device)
    flip, area, aspect, top, left, shift, *others = uniform.unbind()
    jitter, brightness, contrast, saturation, hue, grey, blur, sigma, solarise = others
    area = recipe.crop_min_area + (1 - recipe.crop_min_area) * area
    narrowest = 1 / recipe.crop_max_aspect
    aspect = narrowest + (recipe.crop_max_aspect - narrowest) * aspect
    height = (area / aspect).sqrt().clamp(max=1)
    width = (area * aspect).sqrt().clamp(max=1)
    jittered = jitter < recipe.jitter_prob

    def around(neutral: float, reach: float, uniform_B: Tensor) -> Tensor | None:
        if not (recipe.jitter_prob and reach):
            return None
        return torch.where(jittered, neutral + reach * (2 * uniform_B - 1), neutral)

    sigma = recipe.blur_min_sigma + (recipe.blur_max_sigma - recipe.blur_min_sigma) * sigma
    return Draw(
        flip_B=flip < recipe.flip_prob,
        top_B=top * (1 - height),
        left_B=left * (1 - width),
        height_B=height,
        width_B=width,
        shift_B=recipe.brightness_shift * (2 * shift - 1) if recipe.brightness_shift else None,
        brightness_B=around(1, recipe.jitter_brightness, brightness),
        contrast_B=around(1, recipe.jitter_contrast, contrast),
        saturation_B=around(1, recipe.jitter_saturation, saturation),
        hue_B=around(0, recipe.jitter_hue, hue),
        grey_B=grey < recipe.grey_prob if recipe.grey_prob else None,
        sigma_B=torch.where(blur < recipe.blur_prob, sigma, 0) if recipe.blur_prob else None,
        solarise_B=(
            torch.where(solarise < recipe.solarise_prob, recipe.solarise_threshold, torch.inf)
            if recipe.solarise_prob
            else None
        ),
    )


def apply(images_BCHW: Tensor, view: Draw, precision: str = "float32") -> Tensor:
    """Return the views of square uint8 images (red, green, blue) as float32 in [0, 1].

    Crop, flip and bilinear resize are one linear map for the rows and one for the columns:
    two batched products, several times faster than sampling a grid. Agrees with torchvision's
    `resized_crop` (bilinear) where a crop lies on whole pixels.

    Args:
        images_BCHW: the images.
        view: its parameters.
        precision: of those products, and of the blur's, as the knob has it. In bf16 a pixel is off
            by a level or so of 256.
    """
    side = images_BCHW.shape[-1]
    rows_BHH = _resample(view.top_B, view.height_B, side)
    columns_BWW = _resample(view.left_B, view.width_B, side)
    columns_BWW = torch.where(view.flip_B[:, None, None], columns_BWW.flip(1), columns_BWW)
    # In this layout neither product needs a copy of its images, and a channel's rows stay whole.
    images_BHCW = images_BCHW.transpose(1, 2).contiguous()
    views = _map(images_BHCW, rows_BHH, columns_BWW, precision).div_(255)
    if view.shift_B is not None:
        views += view.shift_B[:, None, None, None]
    views.clamp_(0, 1)
    for part, values_B in (
        (_scale_brightness, view.brightness_B),
        (_scale_contrast, view.contrast_B),
        (_scale_saturation, view.saturation_B),
        (_turn_hue, view.hue_B),
        (_lose_colour, view.grey_B),
        (partial(_blur, precision=precision), view.sigma_B),
        (_solarise, view.solarise_B),
    ):
        if values_B is not None:
            views = part(views, values_B)
    return views.transpose(1, 2).contiguous(memory_format=torch.channels_last)


def _map(images_BHCW: Tensor, rows_BHH: Tensor, columns_BWW: Tensor, precision: str) -> Tensor:
    """Return each image with its columns, then its rows, replaced by weighted sums of them.

    Images may be whole numbers up to 255, of which bf16 loses none.
    """
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    images = images_BHCW.to(dtype).flatten(1, 2) @ columns_BWW.to(dtype).mT
    images = rows_BHH.to(dtype) @ images.view(images_BHCW.shape).flatten(2)
    return images.view(images_BHCW.shape).float()


def _resample(start_B: Tensor, length_B: Tensor, side: int) -> Tensor:
    """Return, an image, the (side, side) matrix that stretches [start, start + length) to all."""
    pixel = torch.arange(side, device=start_B.device, dtype=start_B.dtype)
    first, extent = start_B[:, None] * side, length_B[:, None] * side
    source = first + (pixel + 0.5) * extent / side - 0.5
    source = source.clamp(first, first + extent - 1)
    return (1 - (source[:, :, None] - pixel).abs()).clamp_(min=0)


# The parts below may overwrite the images they are given. Their height comes before their
# channels, as in `apply`.


def _scale_brightness(images_BHCW: Tensor, factor_B: Tensor) -> Tensor:
    return images_BHCW.mul_(factor_B[:, None, None, None]).clamp_(0, 1)


def _scale_contrast(images_BHCW: Tensor, factor_B: Tensor) -> Tensor:
    mean_B111 = _grey(images_BHCW.mean(dim=(1, 3), keepdim=True))
    return images_BHCW.lerp_(mean_B111, 1 - factor_B[:, None, None, None]).clamp_(0, 1)


def _scale_saturation(images_BHCW: Tensor, factor_B: Tensor) -> Tensor:
    grey_BH1W = _grey(images_BHCW)
    return images_BHCW.lerp_(grey_BH1W, 1 - factor_B[:, None, None, None]).clamp_(0, 1)


def _turn_hue(images_BHCW: Tensor, turn_B: Tensor) -> Tensor:
    """Turn the hue, keeping value and saturation of the HSV hexcone.

    Round the hue's hexagon what a channel lacks of the value is a clamped tent: no sector need
    be told from another on the way back.
    """
    red, green, blue = images_BHCW.unbind(2)
    value = images_BHCW.amax(2)
    chroma = value - images_BHCW.amin(2)
    at_green = (blue - red).add_(chroma, alpha=2)
    at_blue = (red - green).add_(chroma, alpha=4)
    hue = torch.where(value == green, at_green, at_blue)
    hue = torch.where(value == red, green - blue, hue)
    # Without chroma there is no hue: any number will do. One turn more keeps it positive.
    hue.div_((6 * chroma).clamp_(min=1e-12)).add_(1 + turn_B[:, None, None]).frac_()
    tents = (
        (hue - 1 / 2).abs_().mul_(-6).add_(2),
        (hue - 1 / 3).abs_().mul_(6).sub_(1),
        (hue - 2 / 3).abs_().mul_(6).sub_(1),
    )
    lack_BHCW = torch.stack(tents, dim=2).clamp_(0, 1)
    return torch.sub(value[:, :, None], lack_BHCW.mul_(chroma[:, :, None]), out=images_BHCW)


def _lose_colour(images_BHCW: Tensor, lost_B: Tensor) -> Tensor:
    return images_BHCW.lerp_(_grey(images_BHCW), lost_B[:, None, None, None].float())


def _blur(images_BHCW: Tensor, sigma_B: Tensor, precision: str) -> Tensor:
    """Blur, the border reflected, with SimCLR's kernel: a tenth of the side wide, made odd.

    A banded matrix for the rows and one for the columns, as the crop.
    """
    side = images_BHCW.shape[-1]
    radius = max(side // 20, 1)
    pixel = torch.arange(side, device=sigma_B.device)
    tap_T = torch.arange(-radius, radius + 1, device=sigma_B.device)
    source_TS = (tap_T[:, None] + pixel).abs()
    source_TS = side - 1 - (side - 1 - source_TS).abs()
    # 0 cannot be divided by; a thousandth puts all the weight on the middle just as well.
    weight_BT = torch.exp(-0.5 * (tap_T / sigma_B.clamp(min=1e-3)[:, None]).square())
    weight_BT = weight_BT / weight_BT.sum(1, keepdim=True)
    fold_TSS = (source_TS[:, :, None] == pixel).to(weight_BT.dtype)
    blur_BSS = (weight_BT @ fold_TSS.flatten(1)).view(-1, side, side)
    return _map(images_BHCW, blur_BSS, blur_BSS, precision).clamp_(max=1)


def _solarise(images_BHCW: Tensor, threshold_B: Tensor) -> Tensor:
    bright = images_BHCW >= threshold_B[:, None, None, None]
    return torch.where(bright, 1 - images_BHCW, images_BHCW)


def _grey(images_BHCW: Tensor) -> Tensor:
    """Return one channel with the weights of ITU-R BT.601, as torchvision rounds them."""
    red, green, blue = images_BHCW.unbind(2)
    grey = (0.2989 * red).add_(green, alpha=0.587).add_(blue, alpha=0.114)
    return grey.unsqueeze(2)
