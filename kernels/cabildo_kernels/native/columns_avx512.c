/* The column rules in AVX-512. */
#include "path_avx512.h"

#include <string.h>

#include "columns.h"

#if PATH_AVX512
#include "vector_avx512.h"

#include "columns_template.h"

const columns_path columns_avx512 = run_columns;
#else
const columns_path columns_avx512 = NULL;
#endif
