"""The operators a graph may call: an exact string each, looked up in one table. Nothing else can be named.

Left out on purpose: what reads or writes files (from_file), memory that was never written (empty), storages and raw strides
(set_, resize_, as_strided), what has no shape until it runs (nonzero, unique, item), and every name outside aten.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch

from sparring.workers.pt2.integers import SIZES

_ELEMENTWISE = """
abs acos acosh asin asinh atan atanh ceil cos cosh deg2rad erf erfc erfinv exp exp2 expm1 floor frac isfinite isinf isnan lgamma
log log10 log1p log2 logical_not neg positive rad2deg reciprocal relu relu6 round rsqrt selu sgn sigmoid sign sin sinc sinh
special_erf special_expit sqrt square tan tanh trunc mish silu log_sigmoid hardsigmoid hardswish bitwise_not elu celu leaky_relu
gelu hardtanh softplus hardshrink softshrink threshold logit detach clone contiguous alias lift_fresh lift_fresh_copy zero
add.Tensor add.Scalar sub.Tensor sub.Scalar rsub.Tensor rsub.Scalar mul.Tensor mul.Scalar div.Tensor div.Scalar div.Tensor_mode
div.Scalar_mode true_divide.Tensor floor_divide floor_divide.Scalar remainder.Tensor remainder.Scalar fmod.Tensor fmod.Scalar
pow.Tensor_Scalar pow.Tensor_Tensor pow.Scalar atan2 hypot maximum minimum fmax fmin addcmul addcdiv lerp.Scalar lerp.Tensor prelu
eq.Tensor eq.Scalar ne.Tensor ne.Scalar lt.Tensor lt.Scalar le.Tensor le.Scalar gt.Tensor gt.Scalar ge.Tensor ge.Scalar
logical_and logical_or logical_xor bitwise_and.Tensor bitwise_and.Scalar bitwise_or.Tensor bitwise_or.Scalar bitwise_xor.Tensor
clamp clamp.Tensor clamp_min clamp_min.Tensor clamp_max clamp_max.Tensor clip nan_to_num where.self where.ScalarSelf
where.ScalarOther where.Scalar masked_fill.Scalar masked_fill.Tensor softmax.int log_softmax.int special_log_softmax glu to.dtype
to.dtype_layout to.device to.other type_as _to_copy xlogy.Tensor
"""
_SHAPES = """
view view.dtype reshape view_as reshape_as flatten.using_ints unflatten.int squeeze squeeze.dim squeeze.dims unsqueeze permute
transpose.int t movedim.int movedim.intlist swapaxes swapdims numpy_T mT expand expand_as broadcast_to repeat
repeat_interleave.self_int tile cat concat stack hstack vstack split.Tensor split.sizes split_with_sizes chunk
tensor_split.sections unbind.int select.int slice.Tensor narrow index.Tensor index_select gather take_along_dim roll flip fliplr
flipud rot90 tril triu diagonal diag_embed constant_pad_nd pad reflection_pad1d reflection_pad2d reflection_pad3d
replication_pad1d replication_pad2d replication_pad3d unfold im2col col2im pixel_shuffle pixel_unshuffle channel_shuffle
native_channel_shuffle select_scatter slice_scatter _unsafe_view ravel meshgrid meshgrid.indexing one_hot scatter.src
scatter.value scatter_add index_put index_add atleast_1d atleast_2d
"""
_REDUCTIONS = """
sum sum.dim_IntList mean mean.dim prod prod.dim_int var var.dim var.correction std std.dim std.correction var_mean.correction
std_mean.correction max max.dim min min.dim amax amin aminmax argmax argmin any any.dim all all.dim logsumexp norm.Scalar
norm.ScalarOpt_dim linalg_vector_norm cumsum cumprod topk sort argsort median median.dim count_nonzero count_nonzero.dim_IntList
cosine_similarity pairwise_distance dist cdist
"""
_LAYERS = """
linear matmul mm bmm mv dot addmm baddbmm addbmm addmv einsum bilinear outer conv1d conv2d conv3d conv1d.padding conv2d.padding
conv3d.padding convolution conv_transpose1d conv_transpose2d.input conv_transpose3d.input batch_norm instance_norm layer_norm
group_norm rms_norm max_pool1d max_pool2d max_pool3d max_pool1d_with_indices max_pool2d_with_indices avg_pool1d avg_pool2d
avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d
upsample_nearest1d.vec upsample_nearest2d.vec upsample_nearest3d.vec _upsample_nearest_exact2d.vec upsample_linear1d.vec
upsample_bilinear2d.vec upsample_bicubic2d.vec upsample_trilinear3d.vec grid_sampler affine_grid_generator embedding
scaled_dot_product_attention lstm.input gru.input rnn_tanh.input rnn_relu.input
"""
_NEW = """
zeros ones full arange arange.start arange.start_step linspace eye scalar_tensor zeros_like ones_like full_like new_zeros new_ones
new_full
"""
_RANDOM = """
dropout feature_dropout alpha_dropout feature_alpha_dropout rrelu bernoulli bernoulli.p rand randn rand_like randn_like randint
randint.low normal.Tensor_Tensor normal.Tensor_float normal.float_Tensor multinomial dropout_ feature_dropout_ alpha_dropout_
rrelu_ bernoulli_.float bernoulli_.Tensor
"""
_IN_PLACE = """
relu_ relu6_ sigmoid_ tanh_ silu_ mish_ elu_ celu_ selu_ leaky_relu_ hardtanh_ hardswish_ hardsigmoid_ add_.Tensor add_.Scalar
sub_.Tensor sub_.Scalar mul_.Tensor mul_.Scalar div_.Tensor div_.Scalar pow_.Scalar clamp_ clamp_min_ clamp_max_ exp_ sqrt_ abs_
neg_ fill_.Scalar fill_.Tensor zero_ masked_fill_.Scalar masked_fill_.Tensor copy_ detach_ squeeze_.dim unsqueeze_ transpose_
index_put_ addcmul_ addcdiv_ threshold_
"""
_MEASURES = "sym_size.int sym_numel sym_stride.int"


def _target(name: str) -> str:
    return f"torch.ops.aten.{name if '.' in name else name + '.default'}"


RANDOM = frozenset(map(_target, _RANDOM.split()))
"""Operators that draw random numbers (dropout and rrelu: in training mode)."""

ASSERTIONS = frozenset(
    {
        "torch.ops.aten._assert_async.msg",
        "torch.ops.aten._assert_scalar.default",
        "torch.ops.aten._assert_tensor_metadata.default",
        "torch.ops.aten.sym_constrain_range.default",
        "torch.ops.aten.sym_constrain_range_for_size.default",
    }
)
"""Nodes that compute nothing; they are left out of the graph."""


def _table() -> Mapping[str, Callable[..., Any]]:
    table: dict[str, Callable[..., Any]] = dict(SIZES)
    for group in (_ELEMENTWISE, _SHAPES, _REDUCTIONS, _LAYERS, _NEW, _RANDOM, _IN_PLACE, _MEASURES):
        for name in group.split():
            packet, _, overload = name.partition(".")
            table[_target(name)] = getattr(getattr(torch.ops.aten, packet), overload or "default")
    return MappingProxyType(table)


OPERATORS = _table()
"""Every target a graph may name, and what it calls."""
