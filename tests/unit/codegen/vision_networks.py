"""Networks on images: classification, dense prediction."""

from __future__ import annotations

from typing import Any

from network_registry import classify, conv, depthwise, image, keras, layers, network, ops

# Vision


@network
def plain() -> Any:
    i = image()
    x = layers.MaxPooling2D()(conv(i, 8))
    x = layers.MaxPooling2D()(conv(x, 12))
    x = layers.Dense(20, activation="relu")(layers.Flatten()(x))
    return keras.Model(i, layers.Dense(5, activation="softmax")(x))


@network
def lenet() -> Any:
    i = image(16, 1)
    x = layers.AveragePooling2D(2)(layers.Conv2D(6, 5, activation="tanh", padding="same")(i))
    x = layers.AveragePooling2D(2)(layers.Conv2D(10, 5, activation="tanh")(x))
    x = layers.Dense(24, activation="tanh")(layers.Flatten()(x))
    return keras.Model(i, layers.Dense(10)(x))


@network
def multilayer_perceptron() -> Any:
    i = keras.Input((30,))
    x = layers.Dense(32, activation="relu")(i)
    x = layers.Dropout(0.5)(layers.Dense(17, activation="sigmoid", use_bias=False)(x))
    return keras.Model(i, layers.Dense(3, activation="softmax")(x))


@network
def deep_autoencoder() -> Any:
    i = keras.Input((40,))
    x = i
    for units in (32, 16, 4, 16, 32):
        x = layers.ReLU()(layers.BatchNormalization()(layers.Dense(units)(x)))
    return keras.Model(i, layers.Dense(40)(x))


@network
def residual() -> Any:
    i = image()
    x = conv(i, 8)
    for filters, stride in ((8, 1), (16, 2)):
        y = conv(conv(x, filters, stride=stride), filters, activation=None)
        short = x if stride == 1 else conv(x, filters, 1, stride, None)
        x = layers.ReLU()(layers.Add()([y, short]))
    return keras.Model(i, classify(x))


@network
def residual_preactivation() -> Any:
    i = image()
    x = layers.Conv2D(8, 3, padding="same")(i)
    for _ in range(2):
        y = layers.Conv2D(8, 3, padding="same")(layers.ReLU()(layers.BatchNormalization()(x)))
        x = layers.Add()([x, layers.Conv2D(8, 3, padding="same")(layers.ReLU()(layers.BatchNormalization()(y)))])
    return keras.Model(i, classify(layers.ReLU()(layers.BatchNormalization()(x))))


@network
def residual_bottleneck() -> Any:
    i = image()
    x = conv(i, 16)
    y = conv(conv(conv(x, 4, 1), 4), 16, 1, activation=None)
    return keras.Model(i, classify(layers.ReLU()(x + y)))


@network
def separable() -> Any:
    """MobileNet's first version, and Keras's own separable convolution."""
    i = image()
    x = conv(i, 8, stride=2, activation="relu6")
    x = conv(depthwise(x), 12, 1, activation="relu6")
    x = conv(depthwise(x, stride=2), 16, 1, activation="relu6")
    x = layers.SeparableConv2D(20, 3, padding="same", activation="relu")(x)
    return keras.Model(i, classify(x))


@network
def inverted_residual() -> Any:
    """MobileNet's second version."""
    i = image()
    x = conv(i, 8, stride=2, activation="relu6")
    for stride in (1, 2):
        y = depthwise(conv(x, 24, 1, activation="relu6"), stride=stride)
        y = conv(y, 8, 1, activation=None)
        x = layers.Add()([x, y]) if stride == 1 else y
    return keras.Model(i, classify(x))


@network
def mobilenet_padding() -> Any:
    """Zero padding before a valid convolution of stride two, as keras.applications writes it."""
    i = image(17)
    x = layers.ZeroPadding2D(((0, 1), (0, 1)))(i)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(layers.Conv2D(8, 3, 2, padding="valid", use_bias=False)(x)))
    x = layers.ZeroPadding2D(((0, 1), (0, 1)))(x)
    x = layers.ReLU(6.0)(layers.DepthwiseConv2D(3, 2, padding="valid")(x))
    return keras.Model(i, classify(layers.ZeroPadding2D(2)(x)))


@network
def hard_swish_and_squeeze() -> Any:
    """MobileNet's third version."""
    i = image()
    x = conv(i, 8, stride=2, activation="hard_swish")
    y = depthwise(conv(x, 16, 1, activation="hard_swish"), 5, activation="hard_swish")
    s = layers.GlobalAveragePooling2D(keepdims=True)(y)
    s = layers.Conv2D(16, 1, activation="hard_sigmoid")(layers.Conv2D(4, 1, activation="relu")(s))
    y = conv(layers.Multiply()([y, s]), 8, 1, activation=None)
    return keras.Model(i, classify(layers.Add()([x, y])))


@network
def squeeze_excite() -> Any:
    """EfficientNet: swish, squeeze and excite by dense layers."""
    i = image()
    x = conv(i, 8, stride=2, activation="swish")
    s = layers.GlobalAveragePooling2D()(x)
    s = layers.Dense(8, activation="sigmoid")(layers.Dense(2, activation="swish")(s))
    x = layers.Multiply()([x, layers.Reshape((1, 1, 8))(s)])
    return keras.Model(i, classify(conv(x, 12, 1, activation="swish")))


@network
def channel_and_spatial_attention() -> Any:
    i = image()
    x = conv(i, 8, stride=2)
    first, second = layers.Dense(4, activation="relu"), layers.Dense(8)
    mean = second(first(layers.GlobalAveragePooling2D()(x)))
    most = second(first(layers.GlobalMaxPooling2D()(x)))
    x = layers.Multiply()([x, layers.Reshape((1, 1, 8))(ops.sigmoid(mean + most))])
    maps = layers.Concatenate()([ops.mean(x, axis=-1, keepdims=True), ops.max(x, axis=-1, keepdims=True)])
    x = layers.Multiply()([x, layers.Conv2D(1, 5, padding="same", activation="sigmoid")(maps)])
    return keras.Model(i, classify(x))


@network
def dense_blocks() -> Any:
    i = image()
    x = conv(i, 8)
    for _ in range(3):
        y = layers.Conv2D(4, 3, padding="same")(layers.ReLU()(layers.BatchNormalization()(x)))
        x = layers.Concatenate()([x, y])
    x = layers.AveragePooling2D(2)(conv(x, 8, 1))
    return keras.Model(i, classify(x))


@network
def inception() -> Any:
    i = image()
    x = conv(i, 8, stride=2)
    branches = [conv(x, 4, 1), conv(conv(x, 4, 1), 6), conv(conv(x, 4, 1), 6, 5)]
    branches.append(conv(layers.MaxPooling2D(3, 1, padding="same")(x), 4, 1))
    return keras.Model(i, classify(layers.Concatenate()(branches)))


@network
def fire_modules() -> Any:
    i = image()
    x = layers.MaxPooling2D(3, 2)(layers.Conv2D(8, 3, 2, activation="relu")(i))
    s = layers.Conv2D(4, 1, activation="relu")(x)
    one = layers.Conv2D(8, 1, activation="relu")(s)
    three = layers.Conv2D(8, 3, padding="same", activation="relu")(s)
    x = layers.Conv2D(5, 1, activation="relu")(layers.Concatenate()([one, three]))
    return keras.Model(i, layers.Softmax()(layers.GlobalAveragePooling2D()(x)))


@network
def grouped_convolution() -> Any:
    i = image(12)
    x = layers.Conv2D(16, 3, padding="same", groups=4, activation="relu")(conv(i, 8))
    return keras.Model(i, classify(layers.Conv2D(16, 3, 2, padding="same", groups=2)(x)))


@network
def channel_shuffle() -> Any:
    i = image(8)
    x = conv(i, 8)
    x = layers.Reshape((8, 8, 8))(layers.Permute((1, 2, 4, 3))(layers.Reshape((8, 8, 2, 4))(x)))
    return keras.Model(i, classify(depthwise(x)))


@network
def dilated() -> Any:
    i = image()
    x = conv(conv(i, 8, dilation_rate=2), 8, dilation_rate=4)
    x = depthwise(x, dilation_rate=(2, 2))
    return keras.Model(i, classify(x))


@network
def depth_multiplier() -> Any:
    i = image(12)
    x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=4, activation="relu")(i)
    x = layers.DepthwiseConv2D(3, 2, padding="valid", depth_multiplier=2)(x)
    return keras.Model(i, classify(x))


@network
def mixer() -> Any:
    """ConvMixer: patches, then depthwise and pointwise with a residual."""
    i = image()
    x = layers.Conv2D(12, 4, 4, activation="relu")(i)
    x = layers.Add()([x, layers.DepthwiseConv2D(3, padding="same", activation="relu")(x)])
    return keras.Model(i, classify(layers.Conv2D(12, 1, activation="relu")(x)))


@network
def perceptron_mixer() -> Any:
    """MLP-Mixer: dense layers over patches, then over channels."""
    i = image()
    x = layers.Reshape((16, 8))(layers.Conv2D(8, 4, 4)(i))
    y = layers.Dense(16)(layers.Dense(12, activation="relu")(layers.Permute((2, 1))(x)))
    x = layers.Add()([x, layers.Permute((2, 1))(y)])
    x = layers.Add()([x, layers.Dense(8)(layers.Dense(16, activation="relu")(x))])
    return keras.Model(i, layers.Dense(5, activation="softmax")(layers.GlobalAveragePooling1D()(x)))


@network
def vww_like() -> Any:
    i = image(24)
    x = conv(i, 8, stride=2)
    for filters, stride in ((16, 1), (16, 2), (24, 1)):
        x = conv(depthwise(x, stride=stride, activation="relu"), filters, 1)
    return keras.Model(i, layers.Dense(2)(layers.Flatten()(layers.AveragePooling2D(6)(x))))


@network
def keyword_spotting() -> Any:
    i = keras.Input((25, 10, 1))
    x = conv(i, 16, (10, 4), (2, 2))
    for _ in range(2):
        x = conv(depthwise(x, activation="relu"), 16, 1)
    return keras.Model(i, classify(layers.Dropout(0.2)(x), 12))


@network
def rectangular() -> Any:
    i = keras.Input((9, 21, 2))
    x = layers.Conv2D(6, (1, 7), (1, 2), padding="same", activation="relu")(i)
    x = layers.Conv2D(6, (5, 1), padding="valid", activation="relu")(x)
    x = layers.MaxPooling2D((2, 3), (1, 2))(x)
    return keras.Model(i, layers.Dense(4)(layers.Flatten()(x)))


# Dense prediction


@network
def unet() -> Any:
    i = image()
    a = conv(i, 8)
    b = conv(layers.MaxPooling2D()(a), 12)
    c = conv(layers.MaxPooling2D()(b), 16)
    x = layers.Conv2DTranspose(12, 2, 2, padding="same")(c)
    x = conv(layers.Concatenate()([x, b]), 12)
    x = layers.Conv2DTranspose(8, 3, 2, padding="same", activation="relu")(x)
    x = conv(layers.Concatenate()([x, a]), 8)
    return keras.Model(i, layers.Conv2D(3, 1, activation="softmax")(x))


@network
def unet_nearest() -> Any:
    i = image(8)
    a = conv(i, 8)
    x = layers.UpSampling2D(interpolation="nearest")(conv(layers.MaxPooling2D()(a), 8))
    return keras.Model(i, layers.Conv2D(1, 1, activation="sigmoid")(layers.Concatenate()([x, a])))


@network
def bilinear_upsampling() -> Any:
    i = image(8)
    x = layers.UpSampling2D(2, interpolation="bilinear")(conv(i, 6, stride=2))
    return keras.Model(i, layers.Conv2D(2, 1)(layers.Resizing(12, 12, interpolation="bilinear")(x)))


@network
def super_resolution() -> Any:
    """Sub-pixel convolution: channels to space, written with reshapes."""
    i = image(8, 1)
    x = layers.Conv2D(4, 3, padding="same")(conv(i, 8))
    x = layers.Permute((1, 3, 2))(layers.Reshape((8, 16, 2))(x))
    return keras.Model(i, layers.Reshape((16, 16, 1))(x))


@network
def convolutional_autoencoder() -> Any:
    i = image(16, 1)
    x = layers.Conv2D(8, 3, 2, padding="same", activation="relu")(i)
    x = layers.Dense(6, activation="relu")(layers.Flatten()(layers.Conv2D(4, 3, 2, padding="same")(x)))
    x = layers.Reshape((4, 4, 4))(layers.Dense(64, activation="relu")(x))
    x = layers.Conv2DTranspose(8, 3, 2, padding="same", activation="relu")(x)
    return keras.Model(i, layers.Conv2DTranspose(1, 3, 2, padding="same", activation="sigmoid")(x))


@network
def pyramid_pooling() -> Any:
    """DeepLab: parallel dilations and the pooled image."""
    i = image(12)
    x = conv(i, 8)
    pooled = layers.UpSampling2D(12, interpolation="bilinear")(
        conv(layers.GlobalAveragePooling2D(keepdims=True)(x), 4, 1)
    )
    parts = [conv(x, 4, 1), conv(x, 4, dilation_rate=2), conv(x, 4, dilation_rate=3), pooled]
    return keras.Model(i, layers.Conv2D(3, 1)(layers.Concatenate()(parts)))


@network
def feature_pyramid_detector() -> Any:
    """Two scales, boxes and scores for each: four outputs."""
    i = image()
    a = conv(i, 8, stride=2)
    b = conv(a, 8, stride=2)
    a = layers.Add()([a, layers.Resizing(8, 8, interpolation="nearest")(b)])
    boxes = [layers.Conv2D(8, 3, padding="same", name=f"boxes_{n}")(x) for n, x in enumerate((a, b))]
    scores = [layers.Conv2D(4, 1, activation="sigmoid", name=f"scores_{n}")(x) for n, x in enumerate((a, b))]
    return keras.Model(i, [*boxes, *scores])


@network
def anchor_head() -> Any:
    """SSD: all boxes in one tensor, softmax over classes."""
    i = image()
    a = conv(i, 8, stride=2)
    b = conv(a, 8, stride=2)
    parts = [layers.Reshape((-1, 4))(layers.Conv2D(8, 3, padding="same")(x)) for x in (a, b)]
    return keras.Model(i, layers.Softmax()(layers.Concatenate(axis=1)(parts)))


@network
def centroid_heatmap() -> Any:
    i = image(12)
    x = conv(conv(i, 8, stride=2), 8)
    return keras.Model(i, layers.Conv2D(3, 1)(layers.Cropping2D(1)(x)))
