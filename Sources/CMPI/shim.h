// Header-only shim over mpi.h for Swift. Handle macros become inline getters, and handles travel as
// plain integers or one-field structs, so that Swift sees the same types whether an implementation's
// handles are pointers (Open MPI) or integers (MPICH). Only MPI 3.1 is used. Each function that
// communicates makes exactly one call of the same name.
#pragma once
#include <mpi.h>
#include <stddef.h>
#include <stdint.h>

// A communicator's handle: a pointer or an int, either fits. It is a value, free to cross threads.
typedef struct { uintptr_t bits; } cmpi_communicator;
// A request's handle; an array of these is an array of MPI_Request.
typedef struct { MPI_Request handle; } cmpi_request;
typedef struct { MPI_Datatype handle; } cmpi_datatype;

static inline MPI_Comm cmpi_raw(cmpi_communicator c) { return (MPI_Comm)c.bits; }
static inline cmpi_communicator cmpi_wrap(MPI_Comm c) { cmpi_communicator w = {(uintptr_t)c}; return w; }

// Constants.
static inline cmpi_communicator cmpi_comm_world(void) { return cmpi_wrap(MPI_COMM_WORLD); }
static inline cmpi_communicator cmpi_comm_null(void) { return cmpi_wrap(MPI_COMM_NULL); }
static inline cmpi_datatype cmpi_byte(void) { cmpi_datatype d = {MPI_BYTE}; return d; }
static inline cmpi_datatype cmpi_int64(void) { cmpi_datatype d = {MPI_INT64_T}; return d; }
static inline cmpi_request cmpi_request_null(void) { cmpi_request r = {MPI_REQUEST_NULL}; return r; }
static inline int cmpi_request_is_null(cmpi_request r) { return r.handle == MPI_REQUEST_NULL; }
static inline int cmpi_any_source(void) { return MPI_ANY_SOURCE; }
static inline int cmpi_any_tag(void) { return MPI_ANY_TAG; }
static inline int cmpi_undefined(void) { return MPI_UNDEFINED; }
static inline int cmpi_success(void) { return MPI_SUCCESS; }
static inline int cmpi_thread_single(void) { return MPI_THREAD_SINGLE; }
static inline int cmpi_thread_funneled(void) { return MPI_THREAD_FUNNELED; }
static inline int cmpi_thread_serialized(void) { return MPI_THREAD_SERIALIZED; }
static inline int cmpi_thread_multiple(void) { return MPI_THREAD_MULTIPLE; }

// Error classes (MPI 3.1 §8.4); macros in some implementations, enumerators in others.
static inline int cmpi_err_buffer(void) { return MPI_ERR_BUFFER; }
static inline int cmpi_err_count(void) { return MPI_ERR_COUNT; }
static inline int cmpi_err_type(void) { return MPI_ERR_TYPE; }
static inline int cmpi_err_tag(void) { return MPI_ERR_TAG; }
static inline int cmpi_err_comm(void) { return MPI_ERR_COMM; }
static inline int cmpi_err_rank(void) { return MPI_ERR_RANK; }
static inline int cmpi_err_request(void) { return MPI_ERR_REQUEST; }
static inline int cmpi_err_truncate(void) { return MPI_ERR_TRUNCATE; }
static inline int cmpi_err_other(void) { return MPI_ERR_OTHER; }
static inline int cmpi_err_intern(void) { return MPI_ERR_INTERN; }
static inline int cmpi_err_in_status(void) { return MPI_ERR_IN_STATUS; }
static inline int cmpi_err_pending(void) { return MPI_ERR_PENDING; }
static inline int cmpi_err_no_mem(void) { return MPI_ERR_NO_MEM; }

// Errors.
static inline int cmpi_error_class(int code, int *error_class) { return MPI_Error_class(code, error_class); }
// Writes a terminated string of fewer than `capacity` bytes.
static inline int cmpi_error_string(int code, char *text, int capacity) {
  char whole[MPI_MAX_ERROR_STRING + 1];
  int length = 0;
  int status = MPI_Error_string(code, whole, &length);
  if (status != MPI_SUCCESS) length = 0;
  if (length > capacity - 1) length = capacity - 1;
  for (int i = 0; i < length; i++) text[i] = whole[i];
  text[length] = 0;
  return status;
}

// Environment.
static inline int cmpi_init_thread(int required, int *provided) {
  return MPI_Init_thread(NULL, NULL, required, provided);
}
static inline int cmpi_initialized(int *flag) { return MPI_Initialized(flag); }
static inline int cmpi_finalized(int *flag) { return MPI_Finalized(flag); }
static inline int cmpi_finalize(void) { return MPI_Finalize(); }
static inline int cmpi_abort(cmpi_communicator c, int status) { return MPI_Abort(cmpi_raw(c), status); }
static inline int cmpi_get_library_version(char *text, int capacity) {
  char whole[MPI_MAX_LIBRARY_VERSION_STRING + 1];
  int length = 0;
  int status = MPI_Get_library_version(whole, &length);
  if (status != MPI_SUCCESS) length = 0;
  if (length > capacity - 1) length = capacity - 1;
  for (int i = 0; i < length; i++) text[i] = whole[i];
  text[length] = 0;
  return status;
}
static inline int cmpi_get_version(int *version, int *subversion) { return MPI_Get_version(version, subversion); }

// Communicators.
static inline int cmpi_comm_rank(cmpi_communicator c, int *rank) { return MPI_Comm_rank(cmpi_raw(c), rank); }
static inline int cmpi_comm_size(cmpi_communicator c, int *size) { return MPI_Comm_size(cmpi_raw(c), size); }
static inline int cmpi_comm_return_errors(cmpi_communicator c) {
  return MPI_Comm_set_errhandler(cmpi_raw(c), MPI_ERRORS_RETURN);
}
static inline int cmpi_comm_dup(cmpi_communicator c, cmpi_communicator *copy) {
  MPI_Comm made = MPI_COMM_NULL;
  int status = MPI_Comm_dup(cmpi_raw(c), &made);
  *copy = cmpi_wrap(made);
  return status;
}
static inline int cmpi_comm_split(cmpi_communicator c, int color, int key, cmpi_communicator *part) {
  MPI_Comm made = MPI_COMM_NULL;
  int status = MPI_Comm_split(cmpi_raw(c), color, key, &made);
  *part = cmpi_wrap(made);
  return status;
}
static inline int cmpi_comm_split_shared(cmpi_communicator c, int key, cmpi_communicator *part) {
  MPI_Comm made = MPI_COMM_NULL;
  int status = MPI_Comm_split_type(cmpi_raw(c), MPI_COMM_TYPE_SHARED, key, MPI_INFO_NULL, &made);
  *part = cmpi_wrap(made);
  return status;
}
static inline int cmpi_comm_free(cmpi_communicator *c) {
  MPI_Comm raw = cmpi_raw(*c);
  int status = MPI_Comm_free(&raw);
  *c = cmpi_wrap(raw);
  return status;
}

// Datatypes.
static inline int cmpi_type_create_hindexed(int count, const int *lengths, const MPI_Aint *addresses,
                                            cmpi_datatype *made) {
  return MPI_Type_create_hindexed(count, lengths, addresses, MPI_BYTE, &made->handle);
}
static inline int cmpi_type_commit(cmpi_datatype *type) { return MPI_Type_commit(&type->handle); }
static inline int cmpi_type_free(cmpi_datatype *type) { return MPI_Type_free(&type->handle); }
static inline int cmpi_get_address(const void *location, MPI_Aint *address) {
  return MPI_Get_address(location, address);
}
// The origin of absolute addresses, as a getter because MPI_BOTTOM is a cast macro.
static inline void *cmpi_bottom(void) { return (void *)MPI_BOTTOM; }

// Point to point.
static inline int cmpi_isend(const void *bytes, int count, cmpi_datatype type, int to, int tag,
                             cmpi_communicator c, cmpi_request *request) {
  return MPI_Isend(bytes, count, type.handle, to, tag, cmpi_raw(c), &request->handle);
}
static inline int cmpi_irecv(void *bytes, int count, cmpi_datatype type, int from, int tag,
                             cmpi_communicator c, cmpi_request *request) {
  return MPI_Irecv(bytes, count, type.handle, from, tag, cmpi_raw(c), &request->handle);
}
static inline int cmpi_testsome(int count, cmpi_request *requests, int *completed, int *indices,
                                MPI_Status *statuses) {
  return MPI_Testsome(count, (MPI_Request *)requests, completed, indices, statuses);
}
static inline int cmpi_test(cmpi_request *request, int *flag, MPI_Status *status) {
  return MPI_Test(&request->handle, flag, status);
}
static inline int cmpi_wait(cmpi_request *request, MPI_Status *status) {
  return MPI_Wait(&request->handle, status);
}
static inline int cmpi_cancel(cmpi_request *request) { return MPI_Cancel(&request->handle); }
static inline int cmpi_request_free(cmpi_request *request) { return MPI_Request_free(&request->handle); }
static inline int cmpi_iprobe(int from, int tag, cmpi_communicator c, int *flag, MPI_Status *status) {
  return MPI_Iprobe(from, tag, cmpi_raw(c), flag, status);
}
static inline int cmpi_get_count(const MPI_Status *status, int *bytes) {
  return MPI_Get_count(status, MPI_BYTE, bytes);
}

// Collectives.
static inline int cmpi_barrier(cmpi_communicator c) { return MPI_Barrier(cmpi_raw(c)); }
static inline int cmpi_bcast(void *bytes, int count, int root, cmpi_communicator c) {
  return MPI_Bcast(bytes, count, MPI_BYTE, root, cmpi_raw(c));
}
static inline int cmpi_allgather(const void *mine, int count, void *all, cmpi_communicator c) {
  return MPI_Allgather(mine, count, MPI_BYTE, all, count, MPI_BYTE, cmpi_raw(c));
}
static inline int cmpi_allgatherv(const void *mine, int count, void *all, const int *counts,
                                  const int *offsets, cmpi_communicator c) {
  return MPI_Allgatherv(mine, count, MPI_BYTE, all, counts, offsets, MPI_BYTE, cmpi_raw(c));
}
static inline int cmpi_gatherv(const void *mine, int count, void *all, const int *counts,
                               const int *offsets, int root, cmpi_communicator c) {
  return MPI_Gatherv(mine, count, MPI_BYTE, all, counts, offsets, MPI_BYTE, root, cmpi_raw(c));
}
