// Header-only shim over OpenBLAS's CBLAS interface.
#pragma once
#include <cblas.h>
