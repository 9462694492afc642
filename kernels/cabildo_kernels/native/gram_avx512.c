/* The Gram matrix in AVX-512. */
#include "path_avx512.h"

#include "gram.h"

#if PATH_AVX512
#include "gram_vector_avx512.h"

#include "gram_template.h"

const gram_path gram_avx512 = run_gram;
#else
const gram_path gram_avx512 = NULL;
#endif
