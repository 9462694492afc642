/* Many small eigenvalue problems: the AVX2 path. */
#include "path_avx2.h"

#include "linear_algebra.h"

#if PATH_AVX2
#include "linear_algebra_template.h"

const eigen_path eigen_avx2 = run_eigen;
#else
const eigen_path eigen_avx2 = NULL;
#endif
