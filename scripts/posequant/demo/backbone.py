"""A Hourglass small enough to be carried in a repository: mmpose's own, behind a narrower stem."""

from typing import Any

from mmcv.cnn import ConvModule
from mmpose.models.backbones.hourglass import HourglassNet
from mmpose.models.backbones.resnet import BasicBlock, ResLayer
from mmpose.registry import MODELS
from torch import nn


@MODELS.register_module()
class SlimHourglassNet(HourglassNet):  # type: ignore[misc]
    """mmpose's `HourglassNet` with a stem of chosen width.

    `HourglassNet` (mmpose/models/backbones/hourglass.py) fixes its stem at 128 -> 256 channels, which alone takes more
    than the 5 MB that a carried checkpoint may have. Everything behind the stem is inherited.

    Args:
        stem_channels: channels of the stem's first convolution, at half the input's resolution. Behind it, at a
            quarter of the resolution, come `stage_channels[0]` channels.
        options: arguments of `HourglassNet`; `stage_channels` is needed.
    """

    def __init__(self, stem_channels: int, **options: Any) -> None:
        """Build mmpose's backbone and replace its stem."""
        super().__init__(**options)
        norm_cfg = {"type": "BN", "requires_grad": True}
        width = options["stage_channels"][0]
        self.stem = nn.Sequential(
            ConvModule(3, stem_channels, 7, padding=3, stride=2, norm_cfg=norm_cfg),
            ResLayer(BasicBlock, 1, stem_channels, width, stride=2, norm_cfg=norm_cfg),
        )
