// What a build knows of itself.
#include "release.h"

#ifndef ANNULUS_COMMIT
#define ANNULUS_COMMIT ""
#endif

const char *annulus_build_commit(void) { return ANNULUS_COMMIT; }

#ifdef __clang__
#define ANNULUS_TEXT(x) #x
#define ANNULUS_NUMBER(x) ANNULUS_TEXT(x)
const char *annulus_build_compiler(void) {
    return "Clang " ANNULUS_NUMBER(__clang_major__) "." ANNULUS_NUMBER(__clang_minor__) "." ANNULUS_NUMBER(
        __clang_patchlevel__);
}
#else
const char *annulus_build_compiler(void) { return "C " __VERSION__; }
#endif
