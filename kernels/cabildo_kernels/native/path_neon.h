/* Include first in a C file of the NEON path; the file's code then stands inside #if PATH_NEON. */
#if defined(__aarch64__) && defined(__ARM_NEON)
#define PATH_NEON 1
#include <arm_neon.h>
#endif
