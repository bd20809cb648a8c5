// The neighbour of some rows of scripts/peers/bench-kernels: reads memory from one end to the other, again and again, until its
// standard input ends, and says how fast that went.
//
//   neighbour BYTES
//
// prints the bytes it has read, the seconds that passed, and the seconds that its core gave it.
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

// The sum of everything, so that nothing of it may be left out.
static uint64_t sweep(const uint64_t *memory, size_t count) {
    uint64_t sums[8] = {0};
    for (size_t i = 0; i + 8 <= count; i += 8) {
        for (int j = 0; j < 8; j++) sums[j] += memory[i + j];
    }
    uint64_t sum = 0;
    for (int j = 0; j < 8; j++) sum += sums[j];
    return sum;
}

static double seconds(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

int main(int count, char **arguments) {
    size_t bytes = count == 2 ? strtoull(arguments[1], NULL, 10) : 0;
    uint64_t *memory = bytes < 64 ? NULL : malloc(bytes);
    if (memory == NULL) return 64;
    for (size_t i = 0; i < bytes / 8; i++) memory[i] = i;
    volatile uint64_t kept = 0;
    // Its other end goes with whoever started this, however that ends.
    struct pollfd input = {.fd = 0, .events = POLLIN};
    double start = seconds(CLOCK_MONOTONIC), given = seconds(CLOCK_PROCESS_CPUTIME_ID), read = 0;
    while (poll(&input, 1, 0) == 0) {
        kept += sweep(memory, bytes / 8);
        read += (double)bytes;
    }
    printf("%.0f %.6f %.6f\n", read, seconds(CLOCK_MONOTONIC) - start, seconds(CLOCK_PROCESS_CPUTIME_ID) - given);
    free(memory);
    return 0;
}
