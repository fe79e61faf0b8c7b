"""Several seeds of one network as one batched computation (jax.vmap), beside one network after the other.

    python benchmarks/seeds.py [--networks 2 4 8] [--batch-sizes 1000 4096]

One core, the network of 3 x 100 tanh units, steps of plain gradient descent on the same batches. Prints the processor
time of a step for each network, as a ratio to that of a network alone.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
os.environ["NPROC"] = "1"

import jax
import jax.numpy as jnp

SHAPES = [(6, 100), (100, 100), (100, 100), (100, 1)]
STEPS = 100


def initial(key):
    keys = jax.random.split(key, len(SHAPES))
    return [
        (jax.random.normal(key, shape) * (2 / sum(shape)) ** 0.5, jnp.zeros(shape[1]))
        for key, shape in zip(keys, SHAPES, strict=True)
    ]


def loss(layers, x, y):
    for weight, bias in layers[:-1]:
        x = jnp.tanh(x @ weight + bias)
    weight, bias = layers[-1]
    return jnp.mean(((x @ weight + bias)[:, 0] - y) ** 2)


def step(layers, x, y):
    return jax.tree.map(lambda part, g: part - 1e-3 * g, layers, jax.grad(loss)(layers, x, y))


def milliseconds(steps, layers, x, y) -> float:
    """Processor time of a step: the fastest of three runs."""
    run = jax.jit(lambda layers, x, y: jax.lax.fori_loop(0, len(x), lambda i, p: steps(p, x[i], y[i]), layers))
    jax.block_until_ready(run(layers, x, y))
    times = []
    for _ in range(3):
        began = time.process_time()
        jax.block_until_ready(run(layers, x, y))
        times.append((time.process_time() - began) / len(x) * 1e3)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1000, 4096])
    arguments = parser.parse_args()
    key = jax.random.key(0)
    for batch_size in arguments.batch_sizes:
        x, y = jax.random.normal(key, (STEPS, batch_size, 6)), jax.random.normal(key, (STEPS, batch_size))
        alone = milliseconds(step, initial(key), x, y)
        print(f"batch {batch_size}: one network {alone:.2f} ms")
        for n in arguments.networks:
            many = jax.vmap(initial)(jax.random.split(key, n))
            each = milliseconds(jax.vmap(step, in_axes=(0, None, None)), many, x, y) / n
            print(f"  {n} networks at once: {each:.2f} ms each, {each / alone:.2f} times as much", flush=True)


if __name__ == "__main__":
    main()
