/* What the machine itself can do: see measure_memory.c. */
#ifndef CABILDO_MEASURE_MEMORY_H
#define CABILDO_MEASURE_MEMORY_H

#include <stdint.h>

/* Read `size` bytes of each of `count` rows; the result keeps the compiler from leaving it out. */
uint64_t measure_read(const char *const *rows, int64_t count, int64_t size, int blocked,
                      int threads);
double measure_clock_hz(void);
double measure_fma_peak(void); /* floating-point operations a second, one thread; 0: unknown */

#endif
