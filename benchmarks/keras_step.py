"""The Keras example's train step on TensorFlow, in words of our own; step_vs_keras.py times it.

    keras_step.py check GOLDEN.npz             takes the recorded steps, prints the deviation
    keras_step.py time SIDE THREADS            prints the seconds of a step a line read

It keeps what the example does: two views of flip, crop and brightness; a loss of four blocks with
a look-up for each; a queue by concatenation; a probe on weakly augmented labelled images.
"""

import os
import sys
from time import perf_counter

os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}

import keras
import numpy as np
import tensorflow as tf

BATCH, LABELLED, WIDTH, QUEUE, TEMPERATURE = 500, 25, 128, 10_000, 0.1


class Step:
    """The example's model with its two optimisers."""

    def __init__(self, side: int, width: int, queue: np.ndarray) -> None:
        convolutions = [
            keras.layers.Conv2D(width, 3, strides=2, activation="relu") for _ in range(4)
        ]
        self.encoder = keras.Sequential(
            [
                keras.layers.Input((side, side, 3)),
                *convolutions,
                keras.layers.Flatten(),
                keras.layers.Dense(width, activation="relu"),
            ]
        )
        self.head = keras.Sequential(
            [
                keras.layers.Input((width,)),
                keras.layers.Dense(width, activation="relu"),
                keras.layers.Dense(width),
            ]
        )
        self.probe = keras.Sequential([keras.layers.Input((width,)), keras.layers.Dense(10)])
        self.queue = tf.Variable(queue)
        self.optimizer, self.probe_optimizer = keras.optimizers.Adam(), keras.optimizers.Adam()

    def nearest(self, rows: tf.Tensor) -> tf.Tensor:
        """Replace rows by their neighbours; the gradient passes straight through."""
        index = tf.argmax(tf.matmul(rows, self.queue, transpose_b=True), axis=1)
        return rows + tf.stop_gradient(tf.gather(self.queue, index) - rows)

    def take(
        self, view1: tf.Tensor, view2: tf.Tensor, labelled: tf.Tensor, labels: tf.Tensor
    ) -> list[tf.Tensor]:
        """Take one step; return its c_loss, c_acc, r_acc, p_loss and p_acc."""
        with tf.GradientTape() as tape:
            features = [self.encoder(view, training=True) for view in (view1, view2)]
            first, second = (tf.math.l2_normalize(self.head(f), axis=1) for f in features)
            target = tf.range(tf.shape(first)[0])
            blocks = [
                tf.matmul(self.nearest(first), second, transpose_b=True),
                tf.matmul(second, self.nearest(first), transpose_b=True),
                tf.matmul(self.nearest(second), first, transpose_b=True),
                tf.matmul(first, self.nearest(second), transpose_b=True),
            ]
            terms = tf.nn.sparse_softmax_cross_entropy_with_logits(
                tf.concat([target] * 4, 0), tf.concat(blocks, 0) / TEMPERATURE
            )
            c_loss = tf.reduce_mean(terms)
        weights = self.encoder.trainable_weights + self.head.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(c_loss, weights), weights, strict=True))
        normal = [tf.math.l2_normalize(f, axis=1) for f in features]
        c_acc = diagonal(tf.matmul(normal[0], normal[1], transpose_b=True))
        scaled = [(f - tf.reduce_mean(f, 0)) / tf.math.reduce_std(f, 0) for f in features]
        r_acc = diagonal(tf.matmul(scaled[0], scaled[1], transpose_a=True))
        count = self.queue.shape[0]
        self.queue.assign(tf.concat([first, self.queue[: count - tf.shape(first)[0]]], 0))
        with tf.GradientTape() as tape:
            logits = self.probe(self.encoder(labelled, training=False))
            p_loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        weights = self.probe.trainable_weights
        self.probe_optimizer.apply_gradients(
            zip(tape.gradient(p_loss, weights), weights, strict=True)
        )
        right = tf.argmax(logits, 1, output_type=labels.dtype) == labels
        return [c_loss, c_acc, r_acc, p_loss, tf.reduce_mean(tf.cast(right, tf.float32))]


def diagonal(scores: tf.Tensor) -> tf.Tensor:
    """Return how often the largest of a row, or of a column, stands on the diagonal."""
    target = tf.range(tf.shape(scores)[0], dtype=tf.int64)
    both = tf.concat([tf.argmax(scores, 1) == target, tf.argmax(scores, 0) == target], 0)
    return tf.reduce_mean(tf.cast(both, tf.float32))


def view(images: tf.Tensor, brightness: float, least_area: float) -> tf.Tensor:
    """Return a random view of each image: scaled to 0..1, flipped, cropped, shifted."""
    count, side = tf.shape(images)[0], images.shape[1]
    images = tf.cast(images, tf.float32) / 255
    area = tf.random.uniform((count,), least_area, 1)
    aspect = tf.random.uniform((count,), 3 / 4, 4 / 3)
    height = tf.minimum(tf.sqrt(area / aspect), 1)
    width = tf.minimum(tf.sqrt(area * aspect), 1)
    top = tf.random.uniform((count,)) * (1 - height)
    left = tf.random.uniform((count,)) * (1 - width)
    flip = tf.random.uniform((count,)) < 0.5
    sides = left, left + width
    boxes = [
        top,
        tf.where(flip, sides[1], sides[0]),
        top + height,
        tf.where(flip, sides[0], sides[1]),
    ]
    images = tf.image.crop_and_resize(images, tf.stack(boxes, 1), tf.range(count), (side, side))
    shift = tf.random.uniform((count, 1, 1, 1), -brightness, brightness)
    return tf.clip_by_value(images + shift, 0, 1)


def load(step: Step, golden: np.lib.npyio.NpzFile, width: int) -> None:
    """Set the weights that a recording started from."""
    layers = [layer for layer in step.encoder.layers if layer.weights]
    names = [f"encoder.conv{index}" for index in range(4)] + ["encoder.dense"]
    layers += [layer for layer in step.head.layers if layer.weights]
    names += ["head.dense0", "head.dense1"]
    layers += [layer for layer in step.probe.layers if layer.weights]
    names += ["probe.dense"]
    for name, layer in zip(names, layers, strict=True):
        weight, bias = (golden[f"init/{name}.{kind}"] for kind in ("weight", "bias"))
        if weight.ndim == 4:
            weight = weight.transpose(2, 3, 1, 0)
        elif name == "encoder.dense":
            left = int((weight.shape[1] // width) ** 0.5)
            weight = weight.reshape(-1, width, left, left).transpose(2, 3, 1, 0)
            weight = weight.reshape(-1, weight.shape[-1])
        else:
            weight = weight.T
        layer.set_weights([weight, bias])


def check(path: str) -> None:
    """Take the steps of a recording; print the largest deviation of losses and queue."""
    golden = np.load(path)
    _, side, width, _, _, _, steps = golden["meta"].tolist()
    step, worst = Step(side, width, golden["init/queue"]), 0.0
    load(step, golden, width)
    for number in range(steps):
        images = [
            golden[f"step{number}/{name}_u8"].transpose(0, 2, 3, 1).astype(np.float32) / 255
            for name in ("view1", "view2", "labelled")
        ]
        labels = golden[f"step{number}/labels"].astype(np.int32)
        got = step.take(*(tf.constant(part) for part in images), tf.constant(labels))
        for name, value in zip(("c_loss", "c_acc", "_", "p_loss", "p_acc"), got, strict=True):
            if name != "_":
                worst = max(worst, abs(float(value) - float(golden[f"step{number}/{name}"])))
        queue = step.queue.numpy() - golden[f"step{number}/queue"]
        worst = max(worst, float(np.abs(queue).max()))
    print(worst, flush=True)


def time(side: int, threads: int) -> None:
    """Take a step for every line that comes in; print its seconds."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    random = np.random.default_rng(0)
    queue = random.standard_normal((QUEUE, WIDTH), dtype=np.float32)
    step = Step(side, WIDTH, queue / np.linalg.norm(queue, axis=1, keepdims=True))
    shape = BATCH + LABELLED, side, side, 3
    images = tf.constant(random.integers(0, 256, shape, dtype=np.uint8))
    labels = tf.constant(random.integers(0, 10, LABELLED, dtype=np.int32))
    step.optimizer.build(step.encoder.trainable_weights + step.head.trainable_weights)
    step.probe_optimizer.build(step.probe.trainable_weights)

    @tf.function
    def whole() -> list[tf.Tensor]:
        views = [view(images, 0.5, 0.2) for _ in range(2)]
        return step.take(*views, view(images[-LABELLED:], 0.2, 0.5), labels)

    print(f"tensorflow {tf.__version__}, keras {keras.__version__}", flush=True)
    for _ in sys.stdin:
        started = perf_counter()
        float(whole()[0])
        print(perf_counter() - started, flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["check", golden]:
            check(golden)
        case ["time", side, threads]:
            time(int(side), int(threads))
