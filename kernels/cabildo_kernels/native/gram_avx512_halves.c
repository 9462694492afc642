/* The Gram matrix in AVX-512 at 256 bits. */
#include "path_avx512.h"

#include "gram.h"

#if PATH_AVX512
#include "gram_vector_avx512_halves.h"

#include "gram_template.h"

const gram_path gram_avx512_halves = run_gram;
#else
const gram_path gram_avx512_halves = NULL;
#endif
