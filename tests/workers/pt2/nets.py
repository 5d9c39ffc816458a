"""Models of the usual kinds, small, and the ways to write, take apart and put together a .pt2."""

import json
import zipfile
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional


class Mlp(nn.Module):
    shape = (1, 8, 8)

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

    def forward(self, x):
        return self.net(x)


class Cnn(nn.Module):
    """Batch norm, dropout, and a view by the size of the batch."""

    shape = (1, 8, 8)

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.3)
        self.fc = nn.Linear(8 * 16, 10)

    def forward(self, x):
        x = functional.max_pool2d(torch.relu(self.bn(self.conv(x))), 2)
        return self.fc(self.drop(x.view(x.shape[0], -1)))


class LeNet(nn.Module):
    shape = (1, 28, 28)

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 16, 3, padding=1)
        self.linear1 = nn.Linear(16 * 49, 32)
        self.linear2 = nn.Linear(32, 10)

    def forward(self, x):
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        return self.linear2(functional.relu(self.linear1(x.flatten(1))))


class Vit(nn.Module):
    """Class token, positions, nn.MultiheadAttention, a TransformerEncoderLayer, a constant and a temporary buffer."""

    shape = (3, 16, 16)

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.position = nn.Parameter(torch.randn(1, 17, 16))
        self.norm = nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.encoder = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation="gelu")
        self.head = nn.Linear(16, 10)
        self.register_buffer("spread", torch.full((3, 1, 1), 0.5), persistent=False)

    def forward(self, x):
        x = (x - torch.tensor(0.5)) / self.spread
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return self.head(self.encoder(x)[:, 0])


class MobileConv(nn.Module):
    """Depthwise convolutions, layer norm on channels last, inverted bottleneck, squeeze and excitation, layer scale."""

    shape = (3, 16, 16)

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish())
        self.depthwise = nn.Conv2d(8, 8, 7, padding=3, groups=8)
        self.norm = nn.LayerNorm(8, eps=1e-6)
        self.wide = nn.Linear(8, 32)
        self.narrow = nn.Linear(32, 8)
        self.scale = nn.Parameter(torch.full((8,), 0.1))
        self.squeeze = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 4, 1), nn.ReLU(inplace=True), nn.Conv2d(4, 8, 1), nn.Hardsigmoid()
        )
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        x = self.stem(x)
        y = self.depthwise(x).permute(0, 2, 3, 1)
        y = self.narrow(functional.gelu(self.wide(self.norm(y)))) * self.scale
        x = x + y.permute(0, 3, 1, 2)
        return self.head((x * self.squeeze(x)).mean([2, 3]))


class Tied(nn.Module):
    """One weight under two names."""

    shape = (8,)

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 8)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


def write(model: nn.Module, path: Path, *, shape=None, rows: int = 2, dynamic: bool = True, training: bool = False) -> Path:
    """Export as users do."""
    model.train(training)
    x = torch.rand(rows, *(shape or model.shape))
    batches = ({0: torch.export.Dim("batch", min=1, max=4096)},) if dynamic else None
    torch.export.save(torch.export.export(model, (x,), dynamic_shapes=batches, strict=False), path)
    return path


def records(path: Path) -> dict[str, bytes]:
    """Records of an archive, by name without its root folder."""
    with zipfile.ZipFile(path) as archive:
        return {info.filename.partition("/")[2]: archive.read(info) for info in archive.infolist()}


def pack(path: Path, content: dict[str, bytes]) -> Path:
    """An archive of these records."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in content.items():
            archive.writestr(f"model/{name}", data)
    return path


def changed(path: Path, change, record: str = "models/model.json") -> Path:
    """The archive with one JSON record changed by `change(json)`; the original stays."""
    content = records(path)
    parsed = json.loads(content[record])
    change(parsed)
    content[record] = json.dumps(parsed).encode()
    return pack(path.with_name(f"changed-{path.name}"), content)
