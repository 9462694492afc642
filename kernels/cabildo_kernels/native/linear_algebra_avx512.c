/* Many small eigenvalue problems: the AVX512 path. */
#include "path_avx512.h"

#include "linear_algebra.h"

#if PATH_AVX512
#include "linear_algebra_template.h"

const eigen_path eigen_avx512 = run_eigen;
#else
const eigen_path eigen_avx512 = NULL;
#endif
