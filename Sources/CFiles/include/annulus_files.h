// Passes over the words of files, and room for files: what Swift's overlay of the C library lacks or is slow at.
#ifndef ANNULUS_FILES_H
#define ANNULUS_FILES_H

#include <stddef.h>
#include <stdint.h>

// The digest of some words of a sequence, and whether any of them, as a float, is infinite or no number.
typedef struct {
  uint64_t sum;
  int is_special;
} annulus_digest;

// The digest of `count` words of 32 bits that stand at `first`, first + 1, … of a sequence: that of a sequence is the sum of
// those of its parts, however it is cut. Word i has the factor key(i mod 1024) · multiplier(i div 1024), modulo 2^64.
annulus_digest annulus_digest_words(const void *words, size_t count, uint64_t first);

// Whether any of the values is infinite or no number.
int annulus_any_special(const float *values, size_t count);

// Makes sure of room for a file of `bytes`, without writing: reserves it where the file system can, else looks at what is free.
// Returns 0, or the error that a write would meet: ENOSPC, EDQUOT, EFBIG.
int annulus_reserve(int descriptor, int64_t bytes);

// The bytes that a file may take: what is free in its file system, or the limit of a file's size where that is less.
int64_t annulus_room(int descriptor);

#endif
