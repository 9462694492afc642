/* The softmax family for aarch64, where four-lane vectors are NEON. */
#include "path_neon.h"
#if PATH_NEON
#define NAME(f) f##_neon
#define TABLE softmax_neon
#define TILE_ROWS 6
#define TILE_WIDTH 1
#include "softmax.inc.h"
#else
typedef int empty_translation_unit;
#endif
