"""Reference tests: convolutions by a table of patches, and their derivatives, against torch's own in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from metarun.core import tuning
from metarun.ops import context, convolution, patches
from metarun.ops.convolution import Conv2d, Geometry, choose_way, convolve
from metarun.ops.functional import call

pytestmark = pytest.mark.usefixtures("doubles")

no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, no_gpu])]

CASES = {  # G groups, R rows, C channels, O filters, images and filters, strides and padding
    "one group": (1, 3, 2, 4, (5, 6), (3, 3), (1, 1), (1, 1)),
    "one channel": (3, 2, 1, 4, (6, 6), (3, 3), (2, 2), (1, 1)),
    "a last row and column under no filter": (2, 3, 2, 5, (8, 6), (3, 3), (2, 2), (0, 0)),
    "odd images": (2, 3, 4, 2, (7, 5), (3, 3), (2, 2), (1, 1)),
    "filters of one number": (3, 2, 4, 2, (5, 3), (1, 1), (2, 1), (0, 0)),
    "filters and padding that are not square": (2, 4, 3, 2, (6, 7), (3, 2), (1, 1), (1, 0)),
    "padding as wide as it can be turned": (2, 1, 2, 3, (4, 3), (3, 3), (1, 1), (2, 2)),
}


def made(name: str, device: str = "cpu") -> tuple[Tensor, Tensor, Geometry]:
    torch.manual_seed(0)
    groups, rows, channels, filters, image, side, stride, padding = CASES[name]
    x = torch.randn(rows, groups * channels, *image, device=device)
    return x, torch.randn(groups * filters, channels, *side, device=device), Geometry(stride, padding, groups)


def rows_second(x: Tensor) -> Tensor:
    """The same numbers, as the products leave them in memory."""
    return x.transpose(0, 1).contiguous().transpose(0, 1)


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("order", [torch.clone, rows_second, convolution.put_channels_last])
@pytest.mark.parametrize("name", CASES)
def test_each_operation_is_torchs(
    monkeypatch: pytest.MonkeyPatch, name: str, order: Callable[[Tensor], Tensor], device: str
) -> None:
    x, w, geometry = made(name, device)
    stride, padding, groups = geometry
    x = order(x)
    y = F.conv2d(x, w, None, stride, padding, 1, groups)
    gy = order(torch.randn_like(y))
    gx, gw, _ = torch.ops.aten.convolution_backward(
        gy, x, w, None, stride, padding, (1, 1), False, (0, 0), groups, (True, True, False)
    )
    close(patches.convolve(x, w, *geometry), y)
    close(patches.filter_gradient(gy, x, *geometry, w.shape), gw)
    close(patches.image_gradient(gy, w, *geometry, x.shape), gx)
    close(patches.folded_image_gradient(gy, w, *geometry, x.shape), gx)
    if max(stride) == 1:
        close(patches.turned_image_gradient(gy, w, padding, groups), gx)
    monkeypatch.setattr(patches, "LARGE_TABLE_NUMBERS", 0)  # so that the other way is taken where it may be
    close(patches.image_gradient(gy, w, *geometry, x.shape), gx)


def test_a_large_table_is_passed_over_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patches, "LARGE_TABLE_NUMBERS", 2 * 3 * 9 * 30)
    w, gy = torch.randn(4, 3, 3, 3), torch.randn(2, 4, 5, 6)
    assert "col2im" not in operations(lambda: patches.image_gradient(gy, w, (1, 1), (1, 1), 1, (2, 3, 5, 6)))
    for rows, filters in ((1, w), (2, torch.randn(7, 3, 3, 3))):  # a small table; one much larger for gy than for x
        gy = torch.randn(rows, len(filters), 5, 6)
        found = operations(lambda: patches.image_gradient(gy, filters, (1, 1), (1, 1), 1, (rows, 3, 5, 6)))  # noqa: B023
        assert "col2im" in found


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("at", [(0, 0), (0, None), (None, 0)])
@pytest.mark.parametrize("stride", [1, 2])
def test_second_derivatives_of_a_layer_under_vmap_are_those_of_torch_for_each_task(
    at: tuple[int | None, ...], stride: int, device: str
) -> None:
    torch.manual_seed(0)
    layer = Conv2d(2, 4, 3, stride=stride, padding=1).to(device)
    x, w = torch.randn(3, 2, 2, 7, 5, device=device), torch.randn(3, 4, 2, 3, 3, device=device)
    xs, ws = (each[0] if where is None else each for each, where in zip((x, w), at, strict=True))

    def bent(of: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        def steep(x: Tensor, w: Tensor) -> Tensor:
            return sum(grad.sin().sum() for grad in torch.func.grad(lambda *both: of(*both).sin().sum(), (0, 1))(x, w))

        return torch.func.grad(steep, (0, 1))

    with context.convolving("patches"):
        ours = bent(lambda x, w: call(layer, {"weight": w, "bias": layer.bias}, x))
        found = operations(lambda: torch.func.vmap(ours, at)(xs, ws))
        assert "bmm" in found
        assert not found & {"convolution", "convolution_backward"}
        together = torch.func.vmap(ours, at)(xs, ws)
    plain = bent(lambda x, w: F.conv2d(x, w, layer.bias, stride, 1))
    for task in range(3):
        alone = plain(x[0 if at[0] is None else task], w[0 if at[1] is None else task])
        for one, other in zip(together, alone, strict=True):
            close(one[task], other)


def test_a_recorded_convolution_by_patches_serves_other_numbers() -> None:
    x, w, geometry = made("odd images")
    with context.convolving("patches"):
        graph = make_fx(lambda x, w: convolve(x, w, geometry))(x, w)
    x, w = torch.randn_like(x), torch.randn_like(w)
    close(graph(x, w), F.conv2d(x, w, None, *geometry[:2], groups=geometry.groups))


def test_a_cpu_calls_torchs_convolutions_and_nothing_else() -> None:
    x, w, geometry = made("one channel")

    def squares(x: Tensor, w: Tensor) -> Tensor:
        return convolve(x, w, geometry).square().sum()

    found = operations(lambda: torch.func.grad(squares, (0, 1))(x, w))
    assert {"convolution", "convolution_backward"} <= found
    assert not found & {"im2col", "col2im", "unfold", "bmm"}
    assert torch.equal(convolve(x, w, geometry), F.conv2d(x, w, None, *geometry[:2], groups=geometry.groups))


class OnCuda:
    """What `choose_way` reads of a tensor on a GPU."""

    device = torch.device("cuda")
    itemsize = 4
    dtype = torch.float32


def on_cuda(operation: str, tasks: int, filters: int = 64, rows: int = 5, side: int = 14, channels: int = 64) -> str:
    images, weights = (rows, tasks * channels, side, side), (tasks * filters, channels, 3, 3)
    return choose_way(operation, OnCuda(), images, weights, Geometry((2, 2), (1, 1), tasks))  # type: ignore[arg-type]


def test_a_gpu_takes_patches_for_groups_of_many_filters_whose_table_is_not_too_large() -> None:
    tuning.set_precision("float32")
    assert on_cuda("gx", 32) == "patches"
    assert on_cuda("gx", 1) == "grouped"
    assert on_cuda("gx", 32, convolution.MIN_GROUP_FILTERS - 1) == "grouped"
    per_row = 4 * 32 * 64 * 9 * 49
    assert on_cuda("gx", 32, rows=convolution.MAX_TABLE_BYTES // per_row) == "patches"
    assert on_cuda("gx", 32, rows=convolution.MAX_TABLE_BYTES // per_row + 1) == "grouped"


@pytest.mark.parametrize(
    ("shape", "float32", "tf32"),  # as measured on an H100: y, gx and gw
    [
        ({"side": 28, "channels": 1}, "patches patches grouped", "patches grouped grouped"),
        ({"side": 14}, "patches patches patches", "grouped grouped grouped"),
        ({"side": 14, "rows": 80}, "grouped patches grouped", "grouped grouped grouped"),
        ({"side": 42, "channels": 32}, "patches patches patches", "grouped grouped grouped"),
    ],
)
def test_a_gpu_takes_the_way_that_was_faster(shape: dict[str, int], float32: str, tf32: str) -> None:
    for precision, expected in (("float32", float32), ("tf32", tf32)):
        tuning.set_precision(precision)
        assert [on_cuda(operation, 32, **shape) for operation in ("y", "gx", "gw")] == expected.split()
    tuning.set_precision("float32")


def operations(function: Callable[[], object]) -> set[str]:
    """Names of torch's operations that the function calls."""
    targets = [node.target for node in make_fx(function)().graph.nodes]
    return {target.overloadpacket.__name__ for target in targets if isinstance(target, torch._ops.OpOverload)}
