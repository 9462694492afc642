/* The column rules in AVX2. */
#include "path_avx2.h"

#include <string.h>

#include "columns.h"

#if PATH_AVX2
#include "vector_avx2.h"

#include "columns_template.h"

const columns_path columns_avx2 = run_columns;
#else
const columns_path columns_avx2 = NULL;
#endif
