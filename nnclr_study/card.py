"""The card of an exported encoder: what it is, what it was worth, and how it is loaded."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from nnclr_study.report.export import plain
from nnclr_study.report.wording import certainty, percent
from nnclr_study.study.config import TrialConfig
from nnclr_study.study.plan import Trial, condition_label
from nnclr_study.study.rows import EpochRow
from nnclr_study.study.spec import Study

_CIFAR = """(https://www.cs.toronto.edu/~kriz/cifar.html) (Krizhevsky 2009). Its page states
no licence and asks to be cited. Its images are from *80 Million Tiny Images*, collected on the
web, which its authors [withdrew in 2020](https://groups.csail.mit.edu/vision/TinyImages/)."""
TERMS = {
    "digits": """The 1,797 handwritten digits that scikit-learn ships, 8x8 pixels enlarged by
bicubic interpolation: the test part of *Optical Recognition of Handwritten Digits* (Alpaydin and
Kaynak 1998), [UCI](https://archive.ics.uci.edu/dataset/80), CC BY 4.0.""",
    "synthetic": "Waves that nnclr-study computes; nobody else has a right in them.",
    "stl10": """[STL-10](https://cs.stanford.edu/~acoates/stl10/) (Coates, Ng and Lee 2011). Its
page states no licence and asks to be cited. Its images come from ImageNet, which is for
non-commercial research and education ([terms](https://www.image-net.org/download.php)).""",
    "cifar10": f"[CIFAR-10]{_CIFAR}",
    "cifar100": f"[CIFAR-100]{_CIFAR}",
}
"""Where the images of each data set come from, and on which terms."""
RESNET_WIDTH = 64
"""Of torchvision's and timm's ResNets."""
SMALL_STEM = """
encoder.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)  # the stem of small images
encoder.maxpool = torch.nn.Identity()"""


class Facts(NamedTuple):
    """What a card tells."""

    study: Study
    trial: Trial
    row: EpochRow
    """The last one of the trial."""
    arm: dict[str, Any]
    """Its condition, as the report's analysis has it."""
    chosen: bool
    """By `export`, and not by whoever called it."""
    versions: dict[str, str]
    """Of the software that trained it."""
    small_stem: bool
    onnx: bool
    """Whether encoder.onnx is there."""


def card(facts: Facts) -> str:
    """Return the card as Markdown, headed as model hubs read it."""
    config = facts.trial.config
    sections = [
        ("", _head(facts)),
        ("What it is worth", _worth(facts)),
        ("Images go in like this", _images(config)),
        ("Load it", "\n\n".join(_loading(facts))),
        ("What it was trained on", _data(config)),
        ("Limits", _limits(config)),
    ]
    return (
        "\n\n".join(f"## {title}\n\n{text}" if title else text for title, text in sections) + "\n"
    )


def _head(facts: Facts) -> str:
    study, config = facts.study, facts.trial.config
    question = plain(study.question)
    software = plain(", ".join(f"{name} {version}" for name, version in facts.versions.items()))
    return f"""---
license: apache-2.0  # of the code; what the images' terms ask of the weights is said below
pipeline_tag: image-feature-extraction
tags:
- nnclr
- self-supervised-learning
- nnclr-study
---

# {config.encoder} of width {config.width}, pretrained by NNCLR on {config.dataset}

An encoder from one trial of the study `{study.name}`{f": *{question}*" if question else "."}

| | |
|---|---|
| condition | {condition_label(facts.trial.condition)} |
| seed | {config.seed} |
| trial | `{facts.trial.id}` |
| epochs | {facts.row.epoch} of {config.epochs} |
| features | {config.features} |
| trained with | {software} |

Every knob of the trial is in config.json. The method is [NNCLR](https://arxiv.org/abs/2104.14548)."""


def _worth(facts: Facts) -> str:
    row, arm = facts.row, facts.arm
    test = "-" if row.test_probe_top1 is None else percent(row.test_probe_top1)
    mean, test_mean = (arm[f"{split}_probe_top1"] for split in ("val", "test"))
    lines = [
        "A linear probe on the frozen features (logistic regression, fitted to convergence):",
        "",
        "| | val | test |",
        "|---|--:|--:|",
        f"| this trial (n = 1) | {percent(row.val_probe_top1)} | {test} |",
    ]
    if mean["n"]:
        shown = f"{percent(mean['mean'])} ({certainty(arm)})"
        on_test = f"{percent(test_mean['mean'])} ({certainty(arm, 'test_probe_top1')})"
        lines.append(f"| mean of its condition | {shown} | {on_test} |")
    lines += [
        "",
        "One trial's figure is one draw: another seed gives another. What the condition is worth "
        "is its mean, and that is the figure to quote. The probe's regularisation is chosen on "
        "val, which flatters val a little; test was read once.",
    ]
    if facts.study.search:
        lines.append(
            "The condition is one of those that a search tried; the best of many looks better "
            "than it is."
        )
    if facts.chosen:
        lines.append(
            "Of the condition with the highest mean val accuracy this is the finished trial with "
            "the lowest seed, and not the one that scored best: the best of several seeds is "
            "lucky, and its figure would promise too much."
        )
    if row.epoch < facts.trial.config.epochs:
        lines.append("The trial has not finished: its figures are those of an epoch on the way.")
    return "\n".join(lines)


def _images(config: TrialConfig) -> str:
    size = config.image_size
    return f"""RGB, float from 0 to 1, (B, 3, {size}, {size}), no mean subtracted, as
preprocessing.json says too. Of another size: the shorter side to {size} pixels by bicubic
interpolation, the middle cut out.

```python
import numpy
import torch
from PIL import Image, ImageOps

photo = Image.open("photo.jpg").convert("RGB")
photo = ImageOps.fit(photo, ({size}, {size}), Image.Resampling.BICUBIC)
images = torch.from_numpy(numpy.array(photo)).permute(2, 0, 1)[None].float() / 255
```"""


def _loading(facts: Facts) -> Iterator[str]:
    config = facts.trial.config
    yield """From the folder of this card, with nnclr-study:

```python
import nnclr_study

encoder = nnclr_study.load_encoder(".")
features = encoder(images)
```"""
    if config.encoder == "conv4":
        yield _conv4(config)
    elif config.encoder in ("resnet18", "resnet50"):
        yield from _resnet(config, facts.small_stem)
    else:
        yield (
            f"The encoder `{config.encoder}` comes from a plug-in, which must be installed to "
            "build it."
        )
    if facts.onnx:
        yield """With onnxruntime, in batches of any size:

```python
import onnxruntime

session = onnxruntime.InferenceSession("encoder.onnx", providers=["CPUExecutionProvider"])
(features,) = session.run(["features"], {"images": images.numpy()})
```"""


def _conv4(config: TrialConfig) -> str:
    width = config.width
    return f"""With torch alone:

```python
from collections import OrderedDict

from safetensors.torch import load_file
from torch import nn

state = load_file("encoder.safetensors")
layers = OrderedDict()
for index, channels in enumerate([3, {width}, {width}, {width}]):
    layers[f"conv{{index}}"] = nn.Conv2d(channels, {width}, kernel_size=3, stride=2)
    layers[f"relu{{index}}"] = nn.ReLU()
layers["flatten"] = nn.Flatten()
layers["dense"] = nn.Linear(state["dense.weight"].shape[1], {width})
layers["relu"] = nn.ReLU()
encoder = nn.Sequential(layers)
encoder.load_state_dict(state)
features = encoder.eval()(images)
```"""


def _resnet(config: TrialConfig, small_stem: bool) -> Iterator[str]:
    if config.width != RESNET_WIDTH:
        yield (
            f"Its first stage has {config.width} channels. torchvision's and timm's "
            f"{config.encoder} has {RESNET_WIDTH} and cannot hold these weights, though their "
            "names are the same."
        )
        return
    stem = SMALL_STEM if small_stem else ""
    caveat = (
        " It was trained on small images, with a 3x3 stem and no pooling after it: the two lines "
        "with `conv1` and `maxpool` make it so."
        if small_stem
        else ""
    )
    yield f"""With torchvision, whose names and shapes these are; only `fc` is missing.{caveat}

```python
import torch
import torchvision
from safetensors.torch import load_file

encoder = torchvision.models.{config.encoder}(){stem}
encoder.fc = torch.nn.Identity()
encoder.load_state_dict(load_file("encoder.safetensors"))
features = encoder.eval()(images)
```"""
    yield f"""With timm:

```python
import timm
import torch
from safetensors.torch import load_file

encoder = timm.create_model("{config.encoder}", num_classes=0){stem}
encoder.load_state_dict(load_file("encoder.safetensors"))
features = encoder.eval()(images)
```"""


def _data(config: TrialConfig) -> str:
    other = "A plug-in's data set: its terms are to be had where it comes from."
    if config.dataset.startswith("folder:"):
        other = "Images of your own: name their terms here before you pass this on."
    return f"`{config.dataset}`. {TERMS.get(config.dataset, other)}"


def _limits(config: TrialConfig) -> str:
    size = config.image_size
    return (
        f"- It has seen images of {config.dataset} at {size}x{size} pixels and nothing else. How "
        "it does on others is not known: probe it there first.\n"
        "- Its figures are of a linear probe with the labels of that data set, not of a finished "
        "classifier. It gives features and no classes.\n"
        "- It was trained to compare settings of a method, not to be a product. Nobody has looked "
        "for biases that it took from its images."
    )
