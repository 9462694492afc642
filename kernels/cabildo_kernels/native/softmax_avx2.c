/* The softmax family for AVX2. Fused multiply-add is never used: multiply and add round twice. */
#include "path_avx2.h"
#if PATH_AVX2
#define LANES_AVX2
#define NAME(f) f##_avx2
#define TABLE softmax_avx2
#define TILE_ROWS 4
#define TILE_WIDTH 1
#include "softmax.inc.h"
#else
typedef int empty_translation_unit;
#endif
