/* The softmax family for AVX-512. Fused multiply-add is never used: multiply and add round twice. */
#include "path_avx512.h"
#if PATH_AVX512
#define LANES_AVX512
#define NAME(f) f##_avx512
#define TABLE softmax_avx512
#define TILE_ROWS 6
#define TILE_WIDTH 2
#include "softmax.inc.h"
#else
typedef int empty_translation_unit;
#endif
