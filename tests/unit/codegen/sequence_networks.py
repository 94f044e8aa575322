"""Networks on signals, sequences, tokens and vectors."""

from __future__ import annotations

from typing import Any

from network_registry import classify, conv, image, keras, layers, network, ops

# One dimension


@network
def convolution_1d() -> Any:
    i = keras.Input((32, 3))
    x = layers.MaxPooling1D()(layers.Conv1D(8, 5, activation="relu")(i))
    x = layers.BatchNormalization()(layers.Conv1D(12, 3, padding="same", activation="relu")(x))
    return keras.Model(i, layers.Dense(6, activation="softmax")(layers.GlobalMaxPooling1D()(x)))


@network
def temporal_convolutions() -> Any:
    """TCN: causal, dilated, residual."""
    i = keras.Input((24, 4))
    x = layers.Conv1D(8, 1)(i)
    for dilation in (1, 2, 4):
        y = layers.Conv1D(8, 3, padding="causal", dilation_rate=dilation, activation="relu")(x)
        x = layers.Add()([x, layers.Conv1D(8, 1)(y)])
    return keras.Model(i, layers.Dense(3)(x[:, -1, :]))


@network
def wavenet() -> Any:
    """Gated activations."""
    i = keras.Input((20, 4))
    x, skips = layers.Conv1D(6, 1)(i), []
    for dilation in (1, 2):
        gate = layers.Conv1D(6, 2, padding="causal", dilation_rate=dilation, activation="sigmoid")(x)
        y = layers.Multiply()(
            [layers.Conv1D(6, 2, padding="causal", dilation_rate=dilation, activation="tanh")(x), gate]
        )
        skips.append(layers.Conv1D(6, 1)(y))
        x = layers.Add()([x, skips[-1]])
    return keras.Model(i, layers.Conv1D(4, 1, activation="softmax")(layers.ReLU()(layers.Add()(skips))))


@network
def separable_1d() -> Any:
    i = keras.Input((30, 4))
    x = layers.SeparableConv1D(8, 5, padding="same", activation="relu")(i)
    x = layers.AveragePooling1D(3, 2)(layers.DepthwiseConv1D(3, padding="same")(x))
    return keras.Model(i, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


@network
def transposed_1d() -> Any:
    i = keras.Input((8, 4))
    x = layers.Conv1DTranspose(6, 4, 2, padding="same", activation="relu")(i)
    return keras.Model(i, layers.Conv1D(1, 3, padding="same")(layers.ZeroPadding1D(1)(x)))


@network
def electrocardiogram() -> Any:
    i = keras.Input((64, 1))
    x = layers.Conv1D(8, 7, 2, padding="same", activation="relu")(i)
    y = layers.Conv1D(8, 3, padding="same")(layers.ReLU()(layers.BatchNormalization()(x)))
    x = layers.MaxPooling1D(2)(layers.Add()([x, y]))
    return keras.Model(i, layers.Dense(4, activation="softmax")(layers.Flatten()(x)))


@network
def temporal_unet() -> Any:
    i = keras.Input((16, 2))
    a = layers.Conv1D(6, 3, padding="same", activation="relu")(i)
    b = layers.Conv1D(8, 3, padding="same", activation="relu")(layers.MaxPooling1D()(a))
    x = layers.Concatenate()([a, layers.Conv1DTranspose(6, 2, 2)(b)])
    return keras.Model(i, layers.Conv1D(1, 1, activation="sigmoid")(x))


# Recurrent


@network
def lstm() -> Any:
    i = keras.Input((5, 4))
    return keras.Model(i, layers.Dense(3, activation="softmax")(layers.LSTM(6)(i)))


@network
def lstm_stacked() -> Any:
    i = keras.Input((4, 4))
    return keras.Model(i, layers.Dense(2)(layers.LSTM(5)(layers.LSTM(6, return_sequences=True)(i))))


@network
def gru() -> Any:
    i = keras.Input((5, 4))
    return keras.Model(i, layers.Dense(3)(layers.GRU(6)(i)))


@network
def gru_sequences() -> Any:
    """One prediction a step; the variant whose reset gate comes first."""
    i = keras.Input((4, 4))
    x = layers.GRU(5, return_sequences=True, reset_after=False)(i)
    return keras.Model(i, layers.TimeDistributed(layers.Dense(2))(x))


@network
def simple_recurrent() -> Any:
    i = keras.Input((6, 3))
    return keras.Model(i, layers.Dense(2)(layers.SimpleRNN(8)(i)))


@network
def bidirectional_lstm() -> Any:
    i = keras.Input((4, 3))
    return keras.Model(i, layers.Dense(2)(layers.Bidirectional(layers.LSTM(4))(i)))


@network
def bidirectional_gru() -> Any:
    i = keras.Input((4, 3))
    x = layers.Bidirectional(layers.GRU(4, return_sequences=True), merge_mode="sum")(i)
    return keras.Model(i, layers.Dense(2)(layers.Flatten()(x)))


@network
def convolution_then_lstm() -> Any:
    i = keras.Input((16, 3))
    x = layers.MaxPooling1D(4)(layers.Conv1D(6, 3, padding="same", activation="relu")(i))
    return keras.Model(i, layers.Dense(4, activation="softmax")(layers.LSTM(6)(x)))


@network
def convolutional_lstm() -> Any:
    i = keras.Input((3, 6, 6, 1))
    return keras.Model(i, layers.Dense(2)(layers.Flatten()(layers.ConvLSTM2D(3, 3, padding="same")(i))))


@network
def gru_cell_step() -> Any:
    """A step with explicit state: two inputs, two outputs."""
    i, state = keras.Input((4,), name="x"), keras.Input((6,), name="state")
    y, after = layers.GRUCell(6)(i, [state])
    return keras.Model([i, state], [layers.Dense(2, name="y")(y), after[0]])


@network
def lstm_cell_step() -> Any:
    i, h, c = keras.Input((4,), name="x"), keras.Input((5,), name="h"), keras.Input((5,), name="c")
    y, (h_after, c_after) = layers.LSTMCell(5)(i, [h, c])
    return keras.Model([i, h, c], [layers.Dense(2, name="y")(y), h_after, c_after])


# Attention


@network
def attention() -> Any:
    i = keras.Input((6, 8))
    x = layers.MultiHeadAttention(2, 4)(i, i)
    return keras.Model(i, layers.Dense(3)(layers.GlobalAveragePooling1D()(layers.Add()([i, x]))))


@network
def transformer_block() -> Any:
    i = keras.Input((6, 8))
    x = layers.LayerNormalization()(layers.Add()([i, layers.MultiHeadAttention(2, 4)(i, i)]))
    y = layers.Dense(8)(layers.Dense(16, activation="relu")(x))
    x = layers.LayerNormalization()(layers.Add()([x, y]))
    return keras.Model(i, layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling1D()(x)))


@network
def dot_product_attention() -> Any:
    query, value = keras.Input((4, 8), name="query"), keras.Input((6, 8), name="value")
    x = layers.Attention()([layers.Dense(8)(query), layers.Dense(8)(value)])
    return keras.Model([query, value], layers.Dense(2)(layers.Flatten()(x)))


@network
def vision_transformer() -> Any:
    i = image(12)
    x = layers.Reshape((9, 8))(layers.Conv2D(8, 4, 4)(i))
    x = layers.Add()([x, layers.MultiHeadAttention(2, 4)(x, x)])
    x = layers.Add()([x, layers.Dense(8)(layers.Dense(12, activation="gelu")(x))])
    return keras.Model(i, layers.Dense(4)(layers.Flatten()(x)))


@network
def additive_pooling() -> Any:
    """Attention over time: scores, softmax, weighted sum."""
    i = keras.Input((8, 6))
    scores = layers.Dense(1)(layers.Dense(5, activation="tanh")(i))
    weights = layers.Softmax(axis=1)(scores)
    return keras.Model(i, layers.Dense(3)(ops.sum(weights * i, axis=1)))


# Normalisations


@network
def layer_normalization() -> Any:
    i = keras.Input((10,))
    return keras.Model(i, layers.Dense(3)(layers.LayerNormalization()(layers.Dense(12)(i))))


@network
def layer_normalization_written_out() -> Any:
    i = keras.Input((6, 10))
    d = i - ops.mean(i, axis=-1, keepdims=True)
    x = d * ops.rsqrt(ops.mean(d * d, axis=-1, keepdims=True) + 1e-3)
    return keras.Model(i, layers.Dense(3)(x))


@network
def group_normalization() -> Any:
    i = image(8)
    x = layers.GroupNormalization(2)(layers.Conv2D(8, 3, padding="same")(i))
    return keras.Model(i, classify(layers.ReLU()(x)))


@network
def rms_normalization() -> Any:
    i = keras.Input((10,))
    return keras.Model(i, layers.Dense(3)(layers.RMSNormalization()(layers.Dense(8)(i))))


@network
def unit_normalization() -> Any:
    """An embedding of unit length."""
    i = image(8)
    x = layers.Dense(6)(layers.GlobalAveragePooling2D()(conv(i, 8)))
    return keras.Model(i, layers.UnitNormalization()(x))


@network
def rescaled_image() -> Any:
    i = image(8)
    x = layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[0.5, 0.6, 0.7])(layers.Rescaling(0.5, 0.1)(i))
    return keras.Model(i, classify(conv(x, 6)))


# Inputs and outputs


@network
def two_inputs() -> Any:
    i, j = image(8), keras.Input((4,), name="more")
    x = layers.Concatenate()([layers.GlobalAveragePooling2D()(conv(i, 8)), layers.Dense(4, activation="relu")(j)])
    return keras.Model([i, j], layers.Dense(3)(x))


@network
def three_outputs() -> Any:
    i = image(8)
    x = layers.Flatten()(conv(i, 4))
    heads = [layers.Dense(n, activation=a, name=f"out_{n}")(x) for n, a in ((3, "softmax"), (1, "sigmoid"), (4, None))]
    return keras.Model(i, [*heads[::-1]])


@network
def siamese() -> Any:
    left, right = keras.Input((8, 8, 1), name="left"), keras.Input((8, 8, 1), name="right")
    tower = keras.Sequential([layers.Conv2D(6, 3, activation="relu"), layers.Flatten(), layers.Dense(8)], name="tower")
    distance = ops.sum(ops.square(tower(left) - tower(right)), axis=-1, keepdims=True)
    return keras.Model([left, right], distance)


@network
def wide_and_deep() -> Any:
    wide, deep = keras.Input((6,), name="wide"), keras.Input((12,), name="deep")
    x = layers.Dense(8, activation="relu")(layers.Dense(10, activation="relu")(deep))
    return keras.Model([wide, deep], layers.Dense(1, activation="sigmoid")(layers.Concatenate()([wide, x])))


@network
def variational_encoder() -> Any:
    i, noise = keras.Input((20,), name="x"), keras.Input((3,), name="noise")
    x = layers.Dense(12, activation="relu")(i)
    mean, deviation = layers.Dense(3)(x), layers.Dense(3, activation="sigmoid")(x)
    return keras.Model([i, noise], [layers.Dense(20)(mean + deviation * noise), mean])


# Token ids


@network
def embedded_tokens() -> Any:
    i = keras.Input((8,), dtype="int32", name="tokens")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(20, 6)(i))
    return keras.Model(i, layers.Dense(2)(layers.Dense(8, activation="relu")(x)))


@network
def text_convolution() -> Any:
    i = keras.Input((10,), dtype="int32", name="tokens")
    x = layers.Conv1D(8, 3, activation="relu")(layers.Embedding(16, 6)(i))
    return keras.Model(i, layers.Dense(2)(layers.GlobalMaxPooling1D()(x)))


@network
def small_language_model() -> Any:
    i = keras.Input((6,), dtype="int32", name="tokens")
    x = layers.Embedding(12, 8)(i)
    x = layers.Add()([x, layers.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True)])
    return keras.Model(i, layers.Dense(12)(x))


# Activations and arithmetic


@network
def saturating_activations() -> Any:
    i = image(8)
    x = i
    for name in ("tanh", "sigmoid", "softsign", "hard_sigmoid", "hard_tanh"):
        x = layers.Conv2D(6, 3, padding="same", activation=name)(x)
    return keras.Model(i, classify(x))


@network
def rectifying_activations() -> Any:
    i = image(8)
    x = layers.LeakyReLU(0.2)(layers.Conv2D(6, 3, padding="same")(i))
    x = layers.PReLU(shared_axes=[1, 2])(layers.Conv2D(6, 3, padding="same")(x))
    x = layers.ReLU(6.0, negative_slope=0.1)(layers.Conv2D(6, 3, padding="same")(x))
    x = layers.ReLU(threshold=0.1)(layers.Conv2D(6, 3, padding="same")(x))
    return keras.Model(i, classify(layers.Activation("relu6")(layers.MaxPooling2D()(x))))


@network
def exponential_activations() -> Any:
    i = image(8)
    x = i
    for name in ("elu", "selu", "softplus", "gelu", "mish", "swish"):
        x = layers.Conv2D(6, 3, padding="same", activation=name)(x)
    return keras.Model(i, classify(x))


@network
def arithmetic() -> Any:
    i, j = keras.Input((4, 6), name="a"), keras.Input((4, 6), name="b")
    x = layers.Maximum()([i, j]) + layers.Minimum()([i, j * 0.5])
    x = layers.Subtract()([x, layers.Average()([i, j])])
    return keras.Model([i, j], [ops.abs(x), layers.Dot(axes=1)([i, j])])


@network
def reductions() -> Any:
    i = image(6)
    x = conv(i, 4)
    parts = [f(x, axis=(1, 2)) for f in (ops.mean, ops.max, ops.min, ops.sum)]
    return keras.Model(i, layers.Dense(3)(layers.Concatenate()([layers.Flatten()(p) for p in parts])))


@network
def slices_and_stacks() -> Any:
    i = keras.Input((8, 6))
    first, second = ops.split(i, 2, axis=1)
    x = ops.stack([first * 0.5, second[:, ::-1, :]], axis=2)
    x = layers.Reshape((4, 12))(x)
    return keras.Model(i, layers.Dense(3)(layers.Flatten()(ops.transpose(x[:, 1:4, 2:10], (0, 2, 1)))))


@network
def padded_and_repeated() -> Any:
    i = keras.Input((6,))
    x = layers.RepeatVector(4)(layers.Dense(5, activation="relu")(i))
    return keras.Model(i, layers.Conv1D(3, 2)(layers.ZeroPadding1D((1, 2))(x)))
