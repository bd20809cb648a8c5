// Header-only shim over mpi.h: Open MPI's handle macros become inline getters that Swift can import.
#pragma once
#include <mpi.h>
