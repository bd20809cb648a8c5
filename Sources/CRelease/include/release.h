// What a build knows of itself.
#ifndef ANNULUS_RELEASE_H
#define ANNULUS_RELEASE_H

// The commit that was built, as the environment of the build named it (ANNULUS_COMMIT); empty where it did not.
const char *annulus_build_commit(void);

// The C compiler, with its version.
const char *annulus_build_compiler(void);

#endif
