/* Template: one path's table. The includer sets the target, NAME(f), the name of the table, and
 * the tile of the prefill product (rows x lanes) that fits its registers.
 */
#include "lanes.h"
#include "softmax.h"

#include "softmax_sparse.inc.h"

#include "softmax_attention.inc.h"

static void NAME(exponentials)(const float *t, float *out, int64_t size) {
    for (int64_t i = 0; i < size; i += LANES) {
        int rest = size - i < LANES ? (int)(size - i) : LANES;
        lanes_store_part(out + i, rest, lanes_exp(lanes_load_part(t + i, rest, 0.0f)));
    }
}

const softmax_kernels TABLE = {
    NAME(sparse_softmax), NAME(moe_topk), NAME(decode), NAME(prefill), NAME(small_matmul),
    NAME(exponentials),
};
