"""Networks that people train with PyTorch, in plain PyTorch: their published architectures with random weights.

ResNet-50 (He et al. 2015, torchvision's v1.5 and its names), MobileNet v2 (Sandler et al. 2018), MobileNet v3 large
(Howard et al. 2019), a U-Net (Ronneberger et al. 2015), YOLOv5 6.0 (n, s) and YOLOv8 (n, s) with their heads decoded as
their own exports do.
"""

# mypy: allow-subclassing-any
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def seeded(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give a network weights of a trained one's size, batch norms' statistics too, and evaluation mode."""
    torch.manual_seed(seed)
    for part in network.modules():
        if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.6, 1.2)
            nn.init.uniform_(part.bias, -0.2, 0.2)
            nn.init.uniform_(part.running_mean, -0.3, 0.3)
            nn.init.uniform_(part.running_var, 0.7, 1.5)
    return network.eval()


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width * 4, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * 4)
        self.relu = nn.ReLU(inplace=True)
        wider = stride != 1 or inputs != width * 4
        self.downsample = (
            nn.Sequential(nn.Conv2d(inputs, width * 4, 1, stride, bias=False), nn.BatchNorm2d(width * 4))
            if wider
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        beside = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        out: Tensor = self.relu(self.bn3(self.conv3(x)) + beside)
        return out


class ResNet50(nn.Module):
    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = 64
        for stage, blocks in enumerate((3, 4, 6, 3), 1):
            width = 32 << stage
            parts = []
            for block in range(blocks):
                parts.append(Bottleneck(inputs, width, 2 if stage > 1 and block == 0 else 1))
                inputs = width * 4
            setattr(self, f"layer{stage}", nn.Sequential(*parts))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(2048, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in (1, 2, 3, 4):
            x = getattr(self, f"layer{stage}")(x)
        out: Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return out


def _cbr(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, act: type[nn.Module] | None = nn.ReLU6
) -> nn.Sequential:
    parts: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*parts, *([act()] if act else []))


class Inverted(nn.Module):
    """MobileNet's inverted residual, with v3's squeeze-and-excitation where it is wanted."""

    def __init__(
        self, inputs: int, hidden: int, outputs: int, kernel: int, stride: int, act: type[nn.Module], squeeze: bool
    ) -> None:
        super().__init__()
        self.residual = stride == 1 and inputs == outputs
        self.expand = _cbr(inputs, hidden, 1, act=act) if hidden != inputs else nn.Identity()
        self.depth = _cbr(hidden, hidden, kernel, stride, hidden, act)
        self.squeeze = Squeeze(hidden) if squeeze else nn.Identity()
        self.project = _cbr(hidden, outputs, 1, act=None)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.squeeze(self.depth(self.expand(x))))
        return x + y if self.residual else y


class Squeeze(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(8, (channels // 4 + 4) // 8 * 8)
        self.down, self.up = nn.Conv2d(channels, inner, 1), nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        scale = functional.adaptive_avg_pool2d(x, 1)
        return x * functional.hardsigmoid(self.up(functional.relu(self.down(scale))))


class MobileNetV2(nn.Module):
    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        parts: list[nn.Module] = [_cbr(3, 32, 3, 2)]
        inputs = 32
        for factor, outputs, count, stride in (
            (1, 16, 1, 1),
            (6, 24, 2, 2),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        ):
            for index in range(count):
                parts.append(
                    Inverted(inputs, inputs * factor, outputs, 3, stride if index == 0 else 1, nn.ReLU6, squeeze=False)
                )
                inputs = outputs
        self.features = nn.Sequential(*parts, _cbr(320, 1280, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return out


class MobileNetV3(nn.Module):
    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        hard = nn.Hardswish
        rows: list[tuple[int, int, int, bool, type[nn.Module], int]] = [
            (3, 16, 16, False, nn.ReLU, 1), (3, 64, 24, False, nn.ReLU, 2), (3, 72, 24, False, nn.ReLU, 1),
            (5, 72, 40, True, nn.ReLU, 2),
            (5, 120, 40, True, nn.ReLU, 1), (5, 120, 40, True, nn.ReLU, 1), (3, 240, 80, False, hard, 2),
            (3, 200, 80, False, hard, 1),
            (3, 184, 80, False, hard, 1), (3, 184, 80, False, hard, 1), (3, 480, 112, True, hard, 1),
            (3, 672, 112, True, hard, 1),
            (5, 672, 160, True, hard, 2), (5, 960, 160, True, hard, 1), (5, 960, 160, True, hard, 1),
        ]  # fmt: skip
        parts: list[nn.Module] = [_cbr(3, 16, 3, 2, act=hard)]
        inputs = 16
        for kernel, hidden, outputs, squeeze, act, stride in rows:
            parts.append(Inverted(inputs, hidden, outputs, kernel, stride, act, squeeze))
            inputs = outputs
        self.features = nn.Sequential(*parts, _cbr(160, 960, 1, act=hard))
        self.classifier = nn.Sequential(nn.Linear(960, 1280), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(1280, classes))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classifier(torch.flatten(functional.adaptive_avg_pool2d(self.features(x), 1), 1))
        return out


class UNet(nn.Module):
    """Four stages down by pooling, four up by transposed convolution, each joined to its counterpart."""

    def __init__(self, classes: int = 2, width: int = 32) -> None:
        super().__init__()
        sizes = [width << index for index in range(5)]
        self.down = nn.ModuleList(self._twice(before, after) for before, after in zip([3, *sizes], sizes, strict=False))
        self.up = nn.ModuleList(nn.ConvTranspose2d(size, size // 2, 2, 2) for size in reversed(sizes[1:]))
        self.join = nn.ModuleList(self._twice(size, size // 2) for size in reversed(sizes[1:]))
        self.last = nn.Conv2d(width, classes, 1)

    @staticmethod
    def _twice(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(_cbr(inputs, outputs, 3, act=nn.ReLU), _cbr(outputs, outputs, 3, act=nn.ReLU))

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for index, stage in enumerate(self.down):
            x = stage(functional.max_pool2d(x, 2) if index else x)
            skips.append(x)
        for up, join, beside in zip(self.up, self.join, reversed(skips[:-1]), strict=True):
            x = join(torch.cat([beside, up(x)], 1))
        out: Tensor = self.last(x)
        return out


class Conv(nn.Sequential):
    """YOLO's convolution: batch norm (epsilon 1e-3) and SiLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, pad: int | None = None) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2 if pad is None else pad, bias=False),
            nn.BatchNorm2d(outputs, eps=1e-3),
            nn.SiLU(),
        )


class Short(nn.Module):
    """YOLO's bottleneck."""

    def __init__(self, channels: int, kernels: tuple[int, int], add: bool) -> None:
        super().__init__()
        self.one, self.two, self.add = Conv(channels, channels, kernels[0]), Conv(channels, channels, kernels[1]), add

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.two(self.one(x))
        return x + y if self.add else y


class C3(nn.Module):
    def __init__(self, inputs: int, outputs: int, count: int, add: bool = True) -> None:
        super().__init__()
        inner = outputs // 2
        self.one, self.two, self.three = Conv(inputs, inner), Conv(inputs, inner), Conv(2 * inner, outputs)
        self.chain = nn.Sequential(*(Short(inner, (1, 3), add) for _ in range(count)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.three(torch.cat([self.chain(self.one(x)), self.two(x)], 1))
        return out


class C2f(nn.Module):
    def __init__(self, inputs: int, outputs: int, count: int, add: bool = True) -> None:
        super().__init__()
        self.inner = outputs // 2
        self.one, self.two = Conv(inputs, outputs), Conv((2 + count) * self.inner, outputs)
        self.chain = nn.ModuleList(Short(self.inner, (3, 3), add) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.one(x).chunk(2, 1))
        for feature in self.chain:
            parts.append(feature(parts[-1]))
        out: Tensor = self.two(torch.cat(parts, 1))
        return out


class Sppf(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.one, self.two, self.pool = Conv(inputs, inputs // 2), Conv(inputs * 2, outputs), nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.one(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        out: Tensor = self.two(torch.cat(parts, 1))
        return out


ANCHORS = (((10, 13), (16, 30), (33, 23)), ((30, 61), (62, 45), (59, 119)), ((116, 90), (156, 198), (373, 326)))
STRIDES = (8, 16, 32)


class Detect5(nn.Module):
    """YOLOv5's head: [N, boxes, 5 + classes], x, y, w, h in pixels, as its ONNX export gives them."""

    def __init__(self, channels: list[int], classes: int) -> None:
        super().__init__()
        self.width = classes + 5
        self.heads = nn.ModuleList(nn.Conv2d(channel, 3 * self.width, 1) for channel in channels)
        self.register_buffer("anchors", torch.tensor(ANCHORS, dtype=torch.float32))

    def forward(self, maps: list[Tensor]) -> Tensor:
        out = []
        for index, (head, feature) in enumerate(zip(self.heads, maps, strict=True)):
            x = head(feature)
            count, _, height, width = x.shape
            x = x.view(count, 3, self.width, height, width).permute(0, 1, 3, 4, 2).sigmoid()
            rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
            grid = torch.stack([columns, rows], 2).float() - 0.5
            xy = (x[..., :2] * 2 + grid) * STRIDES[index]
            wh = (x[..., 2:4] * 2) ** 2 * self.anchors[index].view(1, 3, 1, 1, 2)
            out.append(torch.cat([xy, wh, x[..., 4:]], 4).reshape(count, -1, self.width))
        return torch.cat(out, 1)


class Detect8(nn.Module):
    """YOLOv8's head: [N, 4 + classes, boxes], boxes from a distribution over 16 distances a side."""

    def __init__(self, channels: list[int], classes: int) -> None:
        super().__init__()
        boxes, scores = max(16, channels[0] // 4, 64), max(channels[0], min(classes, 100))
        self.boxes = nn.ModuleList(
            nn.Sequential(Conv(channel, boxes, 3), Conv(boxes, boxes, 3), nn.Conv2d(boxes, 64, 1))
            for channel in channels
        )
        self.scores = nn.ModuleList(
            nn.Sequential(Conv(channel, scores, 3), Conv(scores, scores, 3), nn.Conv2d(scores, classes, 1))
            for channel in channels
        )
        self.register_buffer("steps", torch.arange(16, dtype=torch.float32).view(1, 16, 1, 1))

    def forward(self, maps: list[Tensor]) -> Tensor:
        boxes, scores, points, strides = [], [], [], []
        for index, feature in enumerate(maps):
            count, _, height, width = feature.shape
            boxes.append(self.boxes[index](feature).view(count, 64, -1))
            scores.append(self.scores[index](feature).view(count, -1, height * width))
            rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
            points.append(torch.stack([columns, rows]).view(2, -1))
            strides.append(torch.full((1, height * width), float(STRIDES[index])))
        box = torch.cat(boxes, 2)
        shares = box.view(box.shape[0], 4, 16, -1).transpose(1, 2).softmax(1)
        sides = (shares * self.steps).sum(1)
        point, stride = torch.cat(points, 1), torch.cat(strides, 1)
        first, last = point - sides[:, :2], point + sides[:, 2:]
        return torch.cat([torch.cat([(first + last) / 2, last - first], 1) * stride, torch.cat(scores, 2).sigmoid()], 1)


class Yolo(nn.Module):
    """The backbone and neck that YOLOv5 6.0 and YOLOv8 share, with their own blocks and heads."""

    def __init__(self, version: int, size: str, classes: int = 80) -> None:
        super().__init__()
        width = {"n": 0.25, "s": 0.5}[size]

        def channels(count: int) -> int:
            return int(count * width)

        def times(count: int) -> int:
            return max(1, round(count * 0.33))

        block: Any = C3 if version == 5 else C2f
        repeats = (3, 6, 9, 3) if version == 5 else (3, 6, 6, 3)
        sizes = [channels(count) for count in (64, 128, 256, 512, 1024)]
        parts: list[nn.Module] = [Conv(3, sizes[0], 6, 2, 2) if version == 5 else Conv(3, sizes[0], 3, 2)]
        for before, after, count in zip(sizes, sizes[1:], repeats, strict=False):
            parts.append(nn.Sequential(Conv(before, after, 3, 2), block(after, after, times(count))))
        parts[-1].append(Sppf(sizes[4], sizes[4]))
        self.backbone = nn.ModuleList(parts)
        self.narrow = version == 5
        p3, p4, p5 = sizes[2:]
        self.lateral5: nn.Module = Conv(p5, p4) if self.narrow else nn.Identity()
        self.lateral4: nn.Module = Conv(p4, p3) if self.narrow else nn.Identity()
        self.up4 = block((p4 if self.narrow else p5) + p4, p4, times(3), False)
        self.up3 = block((p3 if self.narrow else p4) + p3, p3, times(3), False)
        self.down3, self.down4 = Conv(p3, p3, 3, 2), Conv(p4, p4, 3, 2)
        self.out4 = block(p3 + (p3 if self.narrow else p4), p4, times(3), False)
        self.out5 = block(p4 + (p4 if self.narrow else p5), p5, times(3), False)
        self.head = Detect5([p3, p4, p5], classes) if version == 5 else Detect8([p3, p4, p5], classes)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for stage in self.backbone:
            x = stage(x)
            skips.append(x)
        p3, p4, p5 = skips[2:]
        five = self.lateral5(p5)
        four = self.lateral4(self.up4(torch.cat([functional.interpolate(five, scale_factor=2.0), p4], 1)))
        three = self.up3(torch.cat([functional.interpolate(four, scale_factor=2.0), p3], 1))
        fourth = self.out4(torch.cat([self.down3(three), four], 1))
        fifth = self.out5(torch.cat([self.down4(fourth), five], 1))
        out: Tensor = self.head([three, fourth, fifth])
        return out


NETWORKS: dict[str, tuple[Any, int]] = {
    "resnet50": (ResNet50, 224),
    "mobilenet_v2": (MobileNetV2, 224),
    "mobilenet_v3": (MobileNetV3, 224),
    "unet": (UNet, 128),
    "yolov5n": (lambda: Yolo(5, "n"), 320),
    "yolov5s": (lambda: Yolo(5, "s"), 320),
    "yolov8n": (lambda: Yolo(8, "n"), 320),
    "yolov8s": (lambda: Yolo(8, "s"), 320),
}
"""Each with the side of its pictures."""
