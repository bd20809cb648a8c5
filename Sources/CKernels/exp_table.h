// The powers of two between 1 and 2 that the softmax exponential looks up.
#ifndef ANNULUS_EXP_TABLE_H
#define ANNULUS_EXP_TABLE_H

#include <stdint.h>

// The bits of 2^(j/32), less j·2^18: what the shifted low bits of n, added back, then complete.
static const uint32_t exp_table[32] __attribute__((aligned(64))) = {
  0x3f800000, 0x3f7ecd87, 0x3f7daac3, 0x3f7c980f, 0x3f7b95c2, 0x3f7aa43a, 0x3f79c3d3, 0x3f78f4f0,
  0x3f7837f0, 0x3f778d3a, 0x3f76f532, 0x3f767043, 0x3f75fed7, 0x3f75a15b, 0x3f75583f, 0x3f7523f6,
  0x3f7504f3, 0x3f74fbaf, 0x3f7508a4, 0x3f752c4d, 0x3f75672a, 0x3f75b9be, 0x3f76248c, 0x3f76a81e,
  0x3f7744fd, 0x3f77fbb8, 0x3f78ccdf, 0x3f79b907, 0x3f7ac0c7, 0x3f7be4ba, 0x3f7d257d, 0x3f7e83b3,
};

#endif
