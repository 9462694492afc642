/* Lanes, conversions and tiles of the Gram matrix in AVX2 with FMA.
 *
 * Tiles: a strip of 4 rows with itself (10 pairs), and 2 rows of a strip with the 4 of another
 * (8 pairs): 8 accumulators keep both FMA units busy over a latency of 4 and leave registers for
 * the conversion that runs beside.
 */
#include "gram_quad_avx.h"

#include "gram_tiles_quad.h"
