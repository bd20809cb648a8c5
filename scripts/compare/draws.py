#!/usr/bin/env python3
"""The twin of Sources/Tiles/CountedDraws.swift: random bits by a counter of seed, step, site, layer, head, document, row and channel.

    scripts/compare/draws.py        prints the numbers that CountedDrawsTests expects

Imported by what compares training with other programs, where dropout has to drop the same. Needs numpy.
"""

import numpy as np

SITES = {
    "embeddings": 0, "attentionOutput": 1, "feedForwardOutput": 2, "attentionWeights": 3, "maskedTokens": 4, "shuffling": 5, "head": 6,
    "feedForwardInner": 7,
}
STEP = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1


def mixed(z):
    """SplitMix64's finaliser, of an integer."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def bits(site, channels, *, seed, step=0, layer=0, head=0, document=0, row=0):
    """The 32 bits of a row's first channels."""
    state = 0
    for number in (seed, step, SITES[site], layer, head, document, row):
        state = mixed(((state ^ number) + STEP) & MASK)
    with np.errstate(over="ignore"):
        z = np.uint64(state) + np.arange(1, (channels + 1) // 2 + 1, dtype=np.uint64) * np.uint64(STEP)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return np.stack([z & np.uint64(0xFFFFFFFF), z >> np.uint64(32)], axis=1).reshape(-1)[:channels].astype(np.uint32)


def kept(site, channels, probability, **counter):
    """What dropout multiplies a row's channels by: 0, or 1/(1 - probability) rounded to float32."""
    factor = np.float32(1 / (1 - probability))
    return np.where(bits(site, channels, **counter) < np.uint32(int(probability * 2.0**32)), np.float32(0), factor)


if __name__ == "__main__":
    found = bits("attentionWeights", 10, seed=7, step=3, layer=2, head=5, document=11, row=300)
    print([int(found[channel]) for channel in (0, 1, 2, 9)], int(bits("embeddings", 1, seed=MASK)[0]))
