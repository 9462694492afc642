/* Many small eigenvalue problems: the NEON path. */
#include "path_neon.h"

#include "linear_algebra.h"

#if PATH_NEON
#include "linear_algebra_template.h"

const eigen_path eigen_neon = run_eigen;
#else
const eigen_path eigen_neon = NULL;
#endif
