"""The TFLite schema as tables: operators, their options, enumerations (schema version 3, as of LiteRT 2.3).

Reader and writer share these tables, so what one reads the other writes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgeq.graph.ir import TensorType

ENUMS: dict[str, tuple[str, ...]] = {
    "padding": ("SAME", "VALID"),
    "activation": ("NONE", "RELU", "RELU_N1_TO_1", "RELU6", "TANH", "SIGN_BIT"),
    "weights_format": ("DEFAULT", "SHUFFLED4x16INT8"),
    "mirror_pad_mode": ("REFLECT", "SYMMETRIC"),
    "lstm_kernel": ("FULL", "BASIC"),
    "type": tuple(sorted((t.name for t in TensorType), key=lambda name: TensorType[name].code)),
}

# Options table: name (without "Options"), its number in the BuiltinOptions union, then the fields in slot order as
# field:kind[=default]; "_" is a deprecated slot; "[i32]" is a vector.
_OPTIONS = """
Conv2D 1 padding:padding stride_w:i32 stride_h:i32 fused_activation_function:activation dilation_w_factor:i32=1 \
    dilation_h_factor:i32=1 quantized_bias_type:type
DepthwiseConv2D 2 padding:padding stride_w:i32 stride_h:i32 depth_multiplier:i32 \
    fused_activation_function:activation dilation_w_factor:i32=1 dilation_h_factor:i32=1
ConcatEmbeddings 3 num_channels:i32 num_columns_per_channel:[i32] embedding_dim_per_channel:[i32]
LSHProjection 4 type:i8
Pool2D 5 padding:padding stride_w:i32 stride_h:i32 filter_width:i32 filter_height:i32 \
    fused_activation_function:activation
SVDF 6 rank:i32 fused_activation_function:activation asymmetric_quantize_inputs:bool
RNN 7 fused_activation_function:activation asymmetric_quantize_inputs:bool
FullyConnected 8 fused_activation_function:activation weights_format:weights_format keep_num_dims:bool \
    asymmetric_quantize_inputs:bool quantized_bias_type:type quant_spec:[u8]
Softmax 9 beta:f32
Concatenation 10 axis:i32 fused_activation_function:activation
Add 11 fused_activation_function:activation pot_scale_int16:bool=1
L2Norm 12 fused_activation_function:activation
LocalResponseNormalization 13 radius:i32 bias:f32 alpha:f32 beta:f32
LSTM 14 fused_activation_function:activation cell_clip:f32 proj_clip:f32 kernel_type:lstm_kernel \
    asymmetric_quantize_inputs:bool
ResizeBilinear 15 _ _ align_corners:bool half_pixel_centers:bool
Call 16 subgraph:u32
Reshape 17 new_shape:[i32]
SkipGram 18 ngram_size:i32 max_skip_size:i32 include_all_ngrams:bool
SpaceToDepth 19 block_size:i32
EmbeddingLookupSparse 20 combiner:i8
Mul 21 fused_activation_function:activation
Pad 22
Gather 23 axis:i32 batch_dims:i32
BatchToSpaceND 24
SpaceToBatchND 25
Transpose 26
Reducer 27 keep_dims:bool
Sub 28 fused_activation_function:activation pot_scale_int16:bool=1
Div 29 fused_activation_function:activation
Squeeze 30 squeeze_dims:[i32]
SequenceRNN 31 time_major:bool fused_activation_function:activation asymmetric_quantize_inputs:bool
StridedSlice 32 begin_mask:i32 end_mask:i32 ellipsis_mask:i32 new_axis_mask:i32 shrink_axis_mask:i32 offset:bool
Exp 33
TopKV2 34
Split 35 num_splits:i32
LogSoftmax 36
Cast 37 in_data_type:type out_data_type:type
Dequantize 38
MaximumMinimum 39
ArgMax 40 output_type:type
Less 41
Neg 42
PadV2 43
Greater 44
GreaterEqual 45
LessEqual 46
Select 47
Slice 48
TransposeConv 49 padding:padding stride_w:i32 stride_h:i32 fused_activation_function:activation \
    quantized_bias_type:type
SparseToDense 50 validate_indices:bool
Tile 51
ExpandDims 52
Equal 53
NotEqual 54
Shape 55 out_type:type
Pow 56
ArgMin 57 output_type:type
FakeQuant 58 min:f32 max:f32 num_bits:i32 narrow_range:bool
Pack 59 values_count:i32 axis:i32
LogicalOr 60
OneHot 61 axis:i32
LogicalAnd 62
LogicalNot 63
Unpack 64 num:i32 axis:i32
FloorDiv 65
Square 66
ZerosLike 67
Fill 68
BidirectionalSequenceLSTM 69 fused_activation_function:activation cell_clip:f32 proj_clip:f32 merge_outputs:bool \
    time_major:bool=1 asymmetric_quantize_inputs:bool
BidirectionalSequenceRNN 70 time_major:bool fused_activation_function:activation merge_outputs:bool \
    asymmetric_quantize_inputs:bool
UnidirectionalSequenceLSTM 71 fused_activation_function:activation cell_clip:f32 proj_clip:f32 time_major:bool \
    asymmetric_quantize_inputs:bool diagonal_recurrent_tensors:bool
FloorMod 72
Range 73
ResizeNearestNeighbor 74 align_corners:bool half_pixel_centers:bool
LeakyRelu 75 alpha:f32
SquaredDifference 76
MirrorPad 77 mode:mirror_pad_mode
Abs 78
SplitV 79 num_splits:i32
Unique 80 idx_out_type:type=2
ReverseV2 81
AddN 82
GatherNd 83
Cos 84
Where 85
Rank 86
ReverseSequence 87 seq_dim:i32 batch_dim:i32
MatrixDiag 88
Quantize 89
MatrixSetDiag 90
HardSwish 91
If 92 then_subgraph_index:i32 else_subgraph_index:i32
While 93 cond_subgraph_index:i32 body_subgraph_index:i32
DepthToSpace 94 block_size:i32
NonMaxSuppressionV4 95
NonMaxSuppressionV5 96
ScatterNd 97
SelectV2 98
Densify 99
SegmentSum 100
BatchMatMul 101 adj_x:bool adj_y:bool asymmetric_quantize_inputs:bool
Cumsum 102 exclusive:bool reverse:bool
CallOnce 103 init_subgraph_index:i32
BroadcastTo 104
Rfft2d 105
Conv3D 106 padding:padding stride_d:i32 stride_w:i32 stride_h:i32 fused_activation_function:activation \
    dilation_d_factor:i32=1 dilation_w_factor:i32=1 dilation_h_factor:i32=1
Hashtable 107 table_id:i32 key_dtype:type value_dtype:type
HashtableFind 108
HashtableImport 109
HashtableSize 110
VarHandle 111 container:str shared_name:str
ReadVariable 112
AssignVariable 113
Random 114 seed:i64 seed2:i64
Bucketize 115 boundaries:[f32]
Gelu 116 approximate:bool
DynamicUpdateSlice 117
UnsortedSegmentProd 118
UnsortedSegmentMax 119
UnsortedSegmentMin 120
UnsortedSegmentSum 121
ATan2 122
Sign 123
Bitcast 124
BitwiseXor 125
RightShift 126
"""

# Builtin operators: code, name, options table.
_OPERATORS = """
0 ADD Add; 1 AVERAGE_POOL_2D Pool2D; 2 CONCATENATION Concatenation; 3 CONV_2D Conv2D;
4 DEPTHWISE_CONV_2D DepthwiseConv2D; 5 DEPTH_TO_SPACE DepthToSpace; 6 DEQUANTIZE Dequantize; 7 EMBEDDING_LOOKUP;
8 FLOOR; 9 FULLY_CONNECTED FullyConnected; 10 HASHTABLE_LOOKUP; 11 L2_NORMALIZATION L2Norm; 12 L2_POOL_2D Pool2D;
13 LOCAL_RESPONSE_NORMALIZATION LocalResponseNormalization; 14 LOGISTIC; 15 LSH_PROJECTION LSHProjection;
16 LSTM LSTM; 17 MAX_POOL_2D Pool2D; 18 MUL Mul; 19 RELU; 20 RELU_N1_TO_1; 21 RELU6; 22 RESHAPE Reshape;
23 RESIZE_BILINEAR ResizeBilinear; 24 RNN RNN; 25 SOFTMAX Softmax; 26 SPACE_TO_DEPTH SpaceToDepth; 27 SVDF SVDF;
28 TANH; 29 CONCAT_EMBEDDINGS ConcatEmbeddings; 30 SKIP_GRAM SkipGram; 31 CALL Call; 32 CUSTOM;
33 EMBEDDING_LOOKUP_SPARSE EmbeddingLookupSparse; 34 PAD Pad; 35 UNIDIRECTIONAL_SEQUENCE_RNN SequenceRNN;
36 GATHER Gather; 37 BATCH_TO_SPACE_ND BatchToSpaceND; 38 SPACE_TO_BATCH_ND SpaceToBatchND; 39 TRANSPOSE Transpose;
40 MEAN Reducer; 41 SUB Sub; 42 DIV Div; 43 SQUEEZE Squeeze;
44 UNIDIRECTIONAL_SEQUENCE_LSTM UnidirectionalSequenceLSTM; 45 STRIDED_SLICE StridedSlice;
46 BIDIRECTIONAL_SEQUENCE_RNN BidirectionalSequenceRNN; 47 EXP Exp; 48 TOPK_V2 TopKV2; 49 SPLIT Split;
50 LOG_SOFTMAX LogSoftmax; 51 DELEGATE; 52 BIDIRECTIONAL_SEQUENCE_LSTM BidirectionalSequenceLSTM; 53 CAST Cast;
54 PRELU; 55 MAXIMUM MaximumMinimum; 56 ARG_MAX ArgMax; 57 MINIMUM MaximumMinimum; 58 LESS Less; 59 NEG Neg;
60 PADV2 PadV2; 61 GREATER Greater; 62 GREATER_EQUAL GreaterEqual; 63 LESS_EQUAL LessEqual; 64 SELECT Select;
65 SLICE Slice; 66 SIN; 67 TRANSPOSE_CONV TransposeConv; 68 SPARSE_TO_DENSE SparseToDense; 69 TILE Tile;
70 EXPAND_DIMS ExpandDims; 71 EQUAL Equal; 72 NOT_EQUAL NotEqual; 73 LOG; 74 SUM Reducer; 75 SQRT; 76 RSQRT;
77 SHAPE Shape; 78 POW Pow; 79 ARG_MIN ArgMin; 80 FAKE_QUANT FakeQuant; 81 REDUCE_PROD Reducer;
82 REDUCE_MAX Reducer; 83 PACK Pack; 84 LOGICAL_OR LogicalOr; 85 ONE_HOT OneHot; 86 LOGICAL_AND LogicalAnd;
87 LOGICAL_NOT LogicalNot; 88 UNPACK Unpack; 89 REDUCE_MIN Reducer; 90 FLOOR_DIV FloorDiv; 91 REDUCE_ANY Reducer;
92 SQUARE Square; 93 ZEROS_LIKE ZerosLike; 94 FILL Fill; 95 FLOOR_MOD FloorMod; 96 RANGE Range;
97 RESIZE_NEAREST_NEIGHBOR ResizeNearestNeighbor; 98 LEAKY_RELU LeakyRelu; 99 SQUARED_DIFFERENCE SquaredDifference;
100 MIRROR_PAD MirrorPad; 101 ABS Abs; 102 SPLIT_V SplitV; 103 UNIQUE Unique; 104 CEIL; 105 REVERSE_V2 ReverseV2;
106 ADD_N AddN; 107 GATHER_ND GatherNd; 108 COS Cos; 109 WHERE Where; 110 RANK Rank; 111 ELU;
112 REVERSE_SEQUENCE ReverseSequence; 113 MATRIX_DIAG MatrixDiag; 114 QUANTIZE Quantize;
115 MATRIX_SET_DIAG MatrixSetDiag; 116 ROUND; 117 HARD_SWISH HardSwish; 118 IF If; 119 WHILE While;
120 NON_MAX_SUPPRESSION_V4 NonMaxSuppressionV4; 121 NON_MAX_SUPPRESSION_V5 NonMaxSuppressionV5;
122 SCATTER_ND ScatterNd; 123 SELECT_V2 SelectV2; 124 DENSIFY Densify; 125 SEGMENT_SUM SegmentSum;
126 BATCH_MATMUL BatchMatMul; 128 CUMSUM Cumsum; 129 CALL_ONCE CallOnce; 130 BROADCAST_TO BroadcastTo;
131 RFFT2D Rfft2d; 132 CONV_3D Conv3D; 133 IMAG; 134 REAL; 135 COMPLEX_ABS; 136 HASHTABLE Hashtable;
137 HASHTABLE_FIND HashtableFind; 138 HASHTABLE_IMPORT HashtableImport; 139 HASHTABLE_SIZE HashtableSize;
140 REDUCE_ALL Reducer; 141 CONV_3D_TRANSPOSE Conv3D; 142 VAR_HANDLE VarHandle; 143 READ_VARIABLE ReadVariable;
144 ASSIGN_VARIABLE AssignVariable; 145 BROADCAST_ARGS; 146 RANDOM_STANDARD_NORMAL; 147 BUCKETIZE Bucketize;
148 RANDOM_UNIFORM; 149 MULTINOMIAL; 150 GELU Gelu; 151 DYNAMIC_UPDATE_SLICE DynamicUpdateSlice; 152 RELU_0_TO_1;
153 UNSORTED_SEGMENT_PROD UnsortedSegmentProd; 154 UNSORTED_SEGMENT_MAX UnsortedSegmentMax;
155 UNSORTED_SEGMENT_SUM UnsortedSegmentSum; 156 ATAN2 ATan2; 157 UNSORTED_SEGMENT_MIN UnsortedSegmentMin;
158 SIGN Sign; 159 BITCAST Bitcast; 160 BITWISE_XOR BitwiseXor; 161 RIGHT_SHIFT RightShift; 162 STABLEHLO_LOGISTIC;
163 STABLEHLO_ADD; 164 STABLEHLO_DIVIDE; 165 STABLEHLO_MULTIPLY; 166 STABLEHLO_MAXIMUM; 167 STABLEHLO_RESHAPE;
168 STABLEHLO_CLAMP; 169 STABLEHLO_CONCATENATE; 170 STABLEHLO_BROADCAST_IN_DIM; 171 STABLEHLO_CONVOLUTION;
172 STABLEHLO_SLICE; 173 STABLEHLO_CUSTOM_CALL; 174 STABLEHLO_REDUCE; 175 STABLEHLO_ABS; 176 STABLEHLO_AND;
177 STABLEHLO_COSINE; 178 STABLEHLO_EXPONENTIAL; 179 STABLEHLO_FLOOR; 180 STABLEHLO_LOG; 181 STABLEHLO_MINIMUM;
182 STABLEHLO_NEGATE; 183 STABLEHLO_OR; 184 STABLEHLO_POWER; 185 STABLEHLO_REMAINDER; 186 STABLEHLO_RSQRT;
187 STABLEHLO_SELECT; 188 STABLEHLO_SUBTRACT; 189 STABLEHLO_TANH; 190 STABLEHLO_SCATTER; 191 STABLEHLO_COMPARE;
192 STABLEHLO_CONVERT; 193 STABLEHLO_DYNAMIC_SLICE; 194 STABLEHLO_DYNAMIC_UPDATE_SLICE; 195 STABLEHLO_PAD;
196 STABLEHLO_IOTA; 197 STABLEHLO_DOT_GENERAL; 198 STABLEHLO_REDUCE_WINDOW; 199 STABLEHLO_SORT; 200 STABLEHLO_WHILE;
201 STABLEHLO_GATHER; 202 STABLEHLO_TRANSPOSE; 203 DILATE; 204 STABLEHLO_RNG_BIT_GENERATOR; 205 REDUCE_WINDOW;
206 STABLEHLO_COMPOSITE; 207 STABLEHLO_SHIFT_LEFT; 208 STABLEHLO_CBRT; 209 STABLEHLO_CASE;
"""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of an options table: `slot` counts from 0, `default` is what absence means (None: empty vector)."""

    slot: int
    name: str
    kind: str
    default: Any


@dataclass(frozen=True, slots=True)
class OptionsTable:
    """One member of the BuiltinOptions union."""

    name: str
    code: int
    fields: tuple[Field, ...]


def _field(slot: int, text: str) -> Field:
    name, _, rest = text.partition(":")
    kind, _, default_text = rest.partition("=")
    number = int(default_text or 0)
    default: Any
    if kind.startswith("["):
        default = ()
    elif kind in ENUMS:
        default = ENUMS[kind][number]
    else:
        default = {"bool": bool(number), "f32": float(number), "str": ""}.get(kind, number)
    return Field(slot, name, kind, default)


def _parse_options() -> dict[str, OptionsTable]:
    tables = {}
    for line in _OPTIONS.replace("\\\n", " ").strip().splitlines():
        name, code, *fields = line.split()
        slots = tuple(_field(slot, text) for slot, text in enumerate(fields) if text != "_")
        tables[name] = OptionsTable(name, int(code), slots)
    return tables


def _parse_operators() -> dict[int, tuple[str, str | None]]:
    entries = (entry.split() for entry in _OPERATORS.replace("\n", " ").split(";") if entry.strip())
    return {int(code): (name, table[0] if table else None) for code, name, *table in entries}


OPTIONS: dict[str, OptionsTable] = _parse_options()
OPTIONS_BY_CODE: dict[int, OptionsTable] = {table.code: table for table in OPTIONS.values()}
OPERATORS: dict[int, tuple[str, str | None]] = _parse_operators()
OPERATOR_CODES: dict[str, int] = {name: code for code, (name, _) in OPERATORS.items()}
TENSOR_TYPES: dict[int, TensorType] = {t.code: t for t in TensorType}
