"""JAX: jit(vmap(grad)), convolutions as products of patches: on a CPU far faster there than vmapped ones.

Explicit batch normalisation; the optimizer is Adam written out. JAX takes the threads that it likes.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from contestants.settings import OUTER_LR, Floats, Setting, episodes, weights


class Jax:
    """One setting of `maml`, `fomaml` or `anil` with given data.

    Raises: NotImplementedError for others.
    """

    def __init__(self, setting: Setting) -> None:
        if setting.algo not in ("maml", "fomaml") or setting.data != "given" or setting.downsample != "stride":
            raise NotImplementedError("not written for JAX")
        self.setting = setting
        self.theta = {name: jnp.asarray(value, jnp.float32) for name, value in weights(setting).items()}
        self.episodes = tuple(jnp.asarray(p if p.dtype == np.int64 else p.astype("f4")) for p in episodes(setting))
        self.moments = jax.tree.map(lambda p: (jnp.zeros_like(p), jnp.zeros_like(p)), self.theta)
        self.taken = 0

        def meta_loss(theta: Any, tasks: Any) -> Any:
            losses, accuracies = jax.vmap(lambda *task: self.task(theta, *task))(*tasks)
            return losses.mean(), accuracies.mean()

        def update(theta: Any, moments: Any, taken: Any, gradient: Any) -> Any:
            moved = {name: adam(theta[name], gradient[name], moments[name], taken) for name in theta}
            return tuple({name: values[i] for name, values in moved.items()} for i in (0, 1))

        self.test, self.update = jax.jit(meta_loss), jax.jit(update)
        self.gradient = jax.jit(jax.value_and_grad(meta_loss, has_aux=True))

    def task(self, theta: Any, support_x: Any, support_y: Any, query_x: Any, query_y: Any) -> Any:
        """Loss and accuracy of a task's queries, after adapting."""
        phi = theta
        for _ in range(self.setting.steps):
            gradient = jax.grad(lambda phi: cross_entropy(logits(phi, support_x), support_y))(phi)
            if self.setting.algo == "fomaml":
                gradient = jax.lax.stop_gradient(gradient)
            phi = {name: phi[name] - self.setting.inner_lr * gradient[name] for name in phi}
        found = logits(phi, query_x)
        return cross_entropy(found, query_y), (found.argmax(-1) == query_y).mean()

    def step(self) -> dict[str, float]:
        if self.setting.use == "test":
            loss, accuracy = self.test(self.theta, self.episodes)
        else:
            self.taken += 1
            (loss, accuracy), gradient = self.gradient(self.theta, self.episodes)
            self.theta, self.moments = self.update(self.theta, self.moments, self.taken, gradient)
        return {"loss": float(loss), "accuracy": float(accuracy)}

    def check(self) -> dict[str, Floats]:
        if self.setting.use == "test":
            loss, accuracy = self.test(self.theta, self.episodes)
            return {"loss": np.asarray(loss), "accuracy": np.asarray(accuracy)}
        (loss, accuracy), gradient = self.gradient(self.theta, self.episodes)
        scores = {"loss": np.asarray(loss), "accuracy": np.asarray(accuracy)}
        return scores | {name: np.asarray(value) for name, value in gradient.items()}


def logits(p: Any, x: Any) -> Any:
    """Of images [R, C, H, W], by the strided network."""
    x = x.transpose(0, 2, 3, 1)
    for layer in range(4):
        x = convolved(x, p[f"conv{layer}.weight"])
        mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
        x = (x - mean) / jnp.sqrt(var + 1e-5) * p[f"norm{layer}.weight"] + p[f"norm{layer}.bias"]
        x = jax.nn.relu(x)
    return x.mean((1, 2)) @ p["head.weight"].T + p["head.bias"]


def convolved(x: Any, w: Any) -> Any:
    """x [R, H, W, C] with 3x3 filters w [D, C, 3, 3], stride 2: every patch a row of a matrix."""
    rows, height, width, channels = x.shape
    high, wide = -(-height // 2), -(-width // 2)
    x = jnp.pad(x, ((0, 0), (1, 2), (1, 2), (0, 0)))
    places = [(i, j) for i in range(3) for j in range(3)]
    patches = jnp.concatenate([x[:, i : i + 2 * high : 2, j : j + 2 * wide : 2] for i, j in places], -1)
    filters = w.transpose(2, 3, 1, 0).reshape(9 * channels, -1)
    return (patches.reshape(-1, 9 * channels) @ filters).reshape(rows, high, wide, -1)


def cross_entropy(found: Any, y: Any) -> Any:
    return -jnp.take_along_axis(jax.nn.log_softmax(found), y[:, None], -1).mean()


def adam(value: Any, gradient: Any, moments: Any, taken: Any) -> Any:
    """The value and its moments after a step of Adam, number `taken` from 1."""
    first, second = 0.9 * moments[0] + 0.1 * gradient, 0.999 * moments[1] + 0.001 * gradient**2
    scaled = first / (1 - 0.9**taken) / (jnp.sqrt(second / (1 - 0.999**taken)) + 1e-8)
    return value - OUTER_LR * scaled, (first, second)
