"""Runs in the toolchain `tensorflow`: writes networks in every form that TensorFlow and Keras ever saved one in, with
their answers.

`write_tensorflow.py NETWORK FOLDER [ONNX]`: NETWORK is small, inception or open_nsfw (whose weights are in the ONNX
file).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import tensorflow as tf
import tf_keras
from onnx import numpy_helper
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

layers = keras.layers
v1 = tf.compat.v1


def small() -> Any:
    """A network of a few layers, with all that is folded: normalization, dropout, depthwise and dense layers."""
    picture = layers.Input((32, 32, 3), name="picture")
    x = layers.Conv2D(8, 3, padding="same", use_bias=False)(picture)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.BatchNormalization()(layers.DepthwiseConv2D(3, strides=2, padding="same")(x))
    x = layers.GlobalAveragePooling2D()(layers.Dropout(0.5)(x))
    return trained(keras.Model(picture, layers.Dense(5, activation="softmax", name="scores")(x)))


def inception() -> Any:
    """Inception v3 of Keras with random weights, and batch normalization set by pictures as training would, so that
    scores depend on the picture.

    Its shifts leave most of each ReLU open: ninety random layers that cut half of everything off are chaotic, and make
    a difference of 1e-4 of float32's rounding.
    """
    model = keras.applications.InceptionV3(weights=None)
    random = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.0
            layer.beta.assign(random.uniform(1.0, 1.6, layer.beta.shape))
    model(pictures(16, 299), training=True)
    last = model.get_layer("predictions")
    features = np.asarray(keras.Model(model.input, last.input)(pictures(8, 299)))
    kernel, _ = last.get_weights()
    kernel *= 1.5 / np.std((features - features.mean(0)) @ kernel)
    last.set_weights([kernel, -features.mean(0) @ kernel])
    return model


def pictures(count: int, side: int) -> Any:
    """Make pictures of large soft patches and noise, -1 … 1, all different."""
    random = np.random.default_rng(count)
    patches = tf.image.resize(random.uniform(-1, 1, (count, 5, 5, 3)), (side, side), "bicubic").numpy()
    return np.clip(patches + random.normal(0, 0.1, patches.shape), -1, 1).astype(np.float32)


def open_nsfw(file: str) -> Any:
    """open_nsfw, rebuilt layer by layer from its ONNX file."""
    graph = onnx.load(file).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    first = layers.Input((224, 224, 3), name="input")
    values: dict[str, Any] = {graph.input[0].name: first}
    builders: dict[str, Callable[..., Any]] = {
        "Conv": _convolution,
        "Relu": lambda x: layers.ReLU()(x),
        "Add": lambda x, y: (
            layers.Add()([x, y]) if not isinstance(y, np.ndarray) else layers.Rescaling(1.0, offset=y.tolist())(x)
        ),
        "AveragePool": lambda x, **_: layers.GlobalAveragePooling2D(keepdims=True)(x),
        "Reshape": lambda x, _: layers.Flatten()(x),
        "Transpose": lambda x, **_: x,
        "MatMul": _dense,
        "MaxPool": lambda x, **_: layers.MaxPooling2D(3, 2)(
            layers.ZeroPadding2D(((0, 1), (0, 1)))(x)
        ),  # after a ReLU zero is the least
        "Softmax": lambda x, **_: layers.Softmax(name="outputs")(x),
    }
    for node in graph.node:
        attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        given = [values[name] if name in values else stored[name] for name in node.input]
        values[node.output[0]] = builders[node.op_type](*given, **attributes)
    return keras.Model(first, values[graph.output[0].name])


def _convolution(
    x: Any, weights: Any, bias: Any = None, *, strides: list[int], pads: tuple[int, ...] = (0, 0, 0, 0), **_: Any
) -> Any:
    top, left, bottom, right = pads
    if any(pads):
        x = layers.ZeroPadding2D(((top, bottom), (left, right)))(x)
    built = layers.Conv2D(weights.shape[0], weights.shape[2:], strides=strides, use_bias=bias is not None)
    result = built(x)
    built.set_weights([weights.transpose(2, 3, 1, 0), *([] if bias is None else [bias])])
    return result


def _dense(x: Any, weights: Any) -> Any:
    built = layers.Dense(weights.shape[1], use_bias=False)
    result = built(x)
    built.set_weights([weights])
    return result


def trained(model: Any) -> Any:
    """Give batch normalization statistics as training leaves them: with what Keras starts with it would do nothing."""
    random = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            old = layer.get_weights()
            scale = [random.uniform(0.5, 1.5, old[0].shape)] if len(old) == 4 else []
            layer.set_weights(
                [
                    *scale,
                    *(random.normal(0, 0.1, weight.shape) for weight in old[-3:-1]),
                    random.uniform(0.5, 1.5, old[-1].shape),
                ]
            )
    return model


def save_all(model: Any, folder: Path) -> None:
    """Save a network in six forms, and what it answers."""
    model.save(folder / "network.keras")
    model.save(folder / "network.h5")
    model.export(str(folder / "savedmodel"), verbose=False)
    (folder / "network.tflite").write_bytes(
        tf.lite.TFLiteConverter.from_saved_model(str(folder / "savedmodel")).convert()
    )
    (name,) = (tensor.name for tensor in model.inputs)
    signature = [tf.TensorSpec((None, *model.inputs[0].shape[1:]), tf.float32, name=name)]
    function = tf.function(lambda x: model(x, training=False), input_signature=signature).get_concrete_function()
    frozen = convert_variables_to_constants_v2(function, lower_control_flow=False).graph.as_graph_def()
    (folder / "frozen.pb").write_bytes(frozen.SerializeToString())
    save_checkpoint(frozen, folder / "checkpoint" / "network.ckpt")
    feed = pictures(3, model.inputs[0].shape[1])
    np.savez(folder / "answers.npz", feed=feed, answer=np.asarray(model(feed, training=False)))


def save_checkpoint(frozen: Any, prefix: Path) -> None:
    """Save a frozen graph as TensorFlow 1 saved what it trained: every weight a variable, with the saver's own
    nodes."""
    with tf.Graph().as_default():
        weights = {}
        for node in frozen.node:
            if (
                node.op == "Const"
                and (value := tf.make_ndarray(node.attr["value"].tensor)).dtype == np.float32
                and value.ndim
            ):
                weights[f"{node.name}:0"] = v1.get_variable(
                    f"weights/{node.name.replace('/', '_')}", initializer=value, use_resource=False
                )
        read = {name: v1.identity(variable, name=f"read/{name[:-2]}") for name, variable in weights.items()}
        tf.import_graph_def(frozen, input_map=read, name="")
        _save(prefix)


def _save(prefix: Path) -> None:
    prefix.parent.mkdir(parents=True, exist_ok=True)
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(prefix))


def switches(folder: Path, training: bool) -> None:
    """Save a network of TensorFlow 1 with its switches of training: a truth value, and the share that dropout keeps."""
    v1.disable_control_flow_v2()
    with tf.Graph().as_default():
        picture = v1.placeholder(tf.float32, (None, 16, 16, 3), name="picture")
        phase, keep = v1.placeholder(tf.bool, (), name="is_training"), v1.placeholder(tf.float32, (), name="keep_prob")
        filters = v1.get_variable(
            "filters", (3, 3, 3, 4), initializer=v1.glorot_uniform_initializer(seed=1), use_resource=False
        )
        x = tf.nn.conv2d(picture, filters, 1, "SAME")
        if training:
            x, _, _ = v1.nn.fused_batch_norm(x, [1.0] * 4, [0.0] * 4, is_training=True)
        x = v1.cond(phase, lambda: x * 2, lambda: tf.nn.relu(x))
        x = v1.nn.dropout(x, keep_prob=keep)
        tf.nn.softmax(tf.reduce_mean(x, (1, 2)), name="scores")
        tf.argmax(tf.reduce_mean(x, (1, 2)), axis=1, name="chosen")
        _save(folder / ("training" if training else "switches"))


def hostile(folder: Path) -> None:
    """Save what runs code or touches files, and what lacks something."""
    picture = layers.Input((8, 8, 3), name="picture")
    evil = layers.Lambda(lambda x: x + 0 * len(__import__("os").listdir("/")))
    lambda_network = keras.Model(picture, evil(picture))
    lambda_network.save(folder / "lambda.keras")
    lambda_network.save(folder / "lambda.h5")
    small().save_weights(folder / "only.weights.h5")

    @keras.saving.register_keras_serializable(package="strangers")
    class Own(keras.layers.Layer):  # type: ignore[misc]  # Keras is not installed where this is checked
        def call(self, x: Any) -> Any:
            return x * 2

    keras.Model(picture, Own()(picture)).save(folder / "own.keras")

    class Reader(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec((), tf.string)])  # type: ignore[untyped-decorator]
        def read(self, name: Any) -> Any:
            return {"text": tf.io.read_file(name)}

    reader = Reader()
    tf.saved_model.save(reader, str(folder / "reader"), signatures={"serving_default": reader.read})


def old_keras(folder: Path) -> None:
    """Save a network as tf.keras 2 did, with an option that Keras 3 no longer knows."""
    old = tf_keras.layers
    picture = old.Input((16, 16, 3), name="picture")
    x = old.DepthwiseConv2D(3, groups=1, padding="same")(picture)
    model = tf_keras.Model(picture, old.Dense(3, activation="softmax", name="scores")(old.GlobalAveragePooling2D()(x)))
    model.save(folder / "old.h5")


def main() -> None:
    """Write what is asked for."""
    network, folder, *rest = sys.argv[1:]
    out = Path(folder)
    keras.utils.set_random_seed(3)
    if network == "odd":
        switches(out, training=False)
        switches(out, training=True)
        hostile(out)
        old_keras(out)
    else:
        save_all(
            open_nsfw(*rest) if network == "open_nsfw" else {"small": small, "inception": inception}[network](), out
        )


if __name__ == "__main__":
    main()
