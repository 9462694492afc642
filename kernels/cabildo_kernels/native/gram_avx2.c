/* The Gram matrix in AVX2 with FMA. */
#include "path_avx2.h"

#include "gram.h"

#if PATH_AVX2
#include "gram_vector_avx2.h"

#include "gram_template.h"

const gram_path gram_avx2 = run_gram;
#else
const gram_path gram_avx2 = NULL;
#endif
