/* The softmax family for the compiler's default target. */
#define NAME(f) f##_baseline
#define TABLE softmax_baseline
#define TILE_ROWS 2
#define TILE_WIDTH 1
#include "softmax.inc.h"
