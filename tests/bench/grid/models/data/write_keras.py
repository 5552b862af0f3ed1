"""Write the files of this folder: `python write_keras.py` in an environment that has the release of Keras to write as.

Keras 3.0.5 and 3.1.1 (on jax), and 2.13.1 and 2.15.0 (of tensorflow-cpu) wrote those that are here, in keras.zip. For
each layer, NAME.npz has what it was given and gave, batch first.
"""

import os

import numpy as np

os.environ.setdefault("KERAS_BACKEND", "jax")
import keras

T, I, H = 6, 3, 4
MAJOR, MINOR = keras.__version__.split(".")[:2]
NAME = f"keras-{MAJOR}.{MINOR}"


def model():
    """Return a model in which names alone would lead astray."""
    layers, whole = keras.layers, {"return_sequences": True}
    parts = {
        "first": layers.LSTM(H, **whole, name="first"),
        "both": layers.Bidirectional(layers.GRU(3, **whole), name="both"),
        "relu": layers.RNN(layers.LSTMCell(H, activation="relu"), **whole, name="relu"),
        "one/deep": layers.LSTM(H, **whole, name="deep"),
        "two/deep": layers.LSTM(H, activation="sigmoid", **whole, name="deep"),
        "shared": layers.LSTM(H, **whole, name="shared"),
        "last": layers.LSTM(H, use_bias=False, **whole, name="last"),
        "before": layers.GRU(H, reset_after=False, **whole, name="before"),
        "back": layers.SimpleRNN(H, activation="relu", go_backwards=True, **whole, name="back"),
        "stack": layers.RNN([layers.GRUCell(H), layers.GRUCell(H)], **whole, name="stack"),
        "each": layers.TimeDistributed(layers.SimpleRNN(3, activation="sigmoid", **whole), name="each"),
    }
    given = keras.Input((T, I))
    x = parts["relu"](parts["both"](parts["first"](given)))
    for name in ("one", "two"):
        x = keras.Sequential([keras.Input((T, H)), parts[f"{name}/deep"]], name=name)(x)
    x = keras.Sequential([keras.Input((T, H)), parts["shared"]], name="three")(x)
    x = parts["stack"](parts["back"](parts["before"](parts["last"](parts["shared"](x)))))
    return keras.Model(given, parts["each"](layers.Reshape((2, 3, H))(x))), parts


def numbers(file, parts, rng):
    """Write what the layers are given and give."""
    found = {}
    for name, layer in parts.items():
        inputs = I if name == "first" else 6 if name == "relu" else H
        shape = (2, 2, 3, inputs) if name == "each" else (2, T, inputs)
        given = rng.standard_normal(shape).astype(np.float32)
        found[f"{name}.x"], found[f"{name}.y"] = given, np.asarray(layer(given))
    np.savez_compressed(file, **found)


def write():
    rng = np.random.default_rng(0)
    whole, parts = model()
    whole.set_weights([rng.standard_normal(a.shape).astype(np.float32) / 2 for a in whole.get_weights()])
    whole.save(f"{NAME}.keras")
    if MAJOR == "2":
        whole.save(f"{NAME}.h5")
        whole.save_weights(f"{NAME}-weights.h5")
    else:
        whole.save_weights(f"{NAME}.weights.h5")
    numbers(f"{NAME}.npz", parts, rng)


def write_cudnn():
    """Write layers of cuDNN, and what Keras 2 computes with their weights once it has converted them."""
    import tensorflow as tf

    v1, v2 = tf.compat.v1.keras.layers, keras.layers
    rng = np.random.default_rng(1)

    def built(lstm, gru):
        layers = [
            keras.Input((T, I)),
            lstm(H, return_sequences=True, name="lstm"),
            gru(H, return_sequences=True, name="gru"),
            v2.Bidirectional(lstm(H, return_sequences=True), name="both"),
        ]
        return keras.Sequential(layers)

    source = built(v1.CuDNNLSTM, v1.CuDNNGRU)
    source.set_weights([rng.standard_normal(a.shape).astype(np.float32) / 2 for a in source.get_weights()])
    source.save(f"{NAME}-cudnn.h5")
    source.save_weights(f"{NAME}-cudnn-weights.h5")
    plain = built(v2.LSTM, v2.GRU)
    plain.load_weights(f"{NAME}-cudnn-weights.h5")
    found = {}
    for layer in plain.layers:
        given = rng.standard_normal((2, T, I if layer.name == "lstm" else H)).astype(np.float32)
        found[f"{layer.name}.x"], found[f"{layer.name}.y"] = given, np.asarray(layer(given))
    np.savez_compressed(f"{NAME}-cudnn.npz", **found)


if __name__ == "__main__":
    write()
    if MAJOR == "2":
        write_cudnn()
