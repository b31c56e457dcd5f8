/* A stand-in for Google's libedgetpu.so.1: a TFLite delegate that claims compiled operators and computes a checksum.

   It has what `runtimes/engines/edgetpu.py` and the interpreter call: edgetpu_version, tflite_plugin_create_delegate
   and tflite_plugin_destroy_delegate. The structures are the beginnings of those in tensorflow/lite/core/c/common.h,
   whose layout has been the same from TFLite 2.5 to LiteRT 2.3.

   The environment variable EDGETPU_STICK=none plays a machine without a stick. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { ALLOW_DYNAMIC_TENSORS = 1 };

typedef struct { int size; int data[]; } IntArray;
typedef struct Context Context;
typedef struct Node Node;
typedef struct Delegate Delegate;

typedef struct {
  int type;
  uint8_t *data;
  IntArray *dims;
  struct { float scale; int32_t zero_point; } params;
  int allocation_type;
  size_t bytes;
  const void *allocation;
  const char *name;
  Delegate *delegate;
  int buffer_handle;
  uint8_t is_stale, is_variable;
  struct { int type; void *params; } quantization;
  void *sparsity;
  const IntArray *dims_signature;
} Tensor;

typedef struct {
  void *(*init)(Context *, const char *, size_t);
  void (*free)(Context *, void *);
  int (*prepare)(Context *, Node *);
  int (*invoke)(Context *, Node *);
  const char *(*profiling_string)(const Context *, const Node *);
  int32_t builtin_code;
  const char *custom_name;
  int version;
  void *registration_external;
  void *async_kernel;
  uint64_t inplace_operator;
} Registration;

struct Node { IntArray *inputs, *outputs; };

struct Context {
  size_t tensors_size;
  int (*get_execution_plan)(Context *, IntArray **);
  Tensor *tensors;
  void *impl;
  int (*resize_tensor)(Context *, Tensor *, IntArray *);
  void (*report_error)(Context *, const char *, ...);
  int (*add_tensors)(Context *, int, int *);
  int (*get_node_and_registration)(Context *, int, Node **, Registration **);
  int (*replace_nodes)(Context *, Registration, const IntArray *, Delegate *);
};

struct Delegate {
  void *data;
  int (*prepare)(Context *, Delegate *);
  void *copy_from, *copy_to, *free_handle;
  int64_t flags;
  void *opaque_builder;
};

static int prepare(Context *context, Node *node) { return 0; }

/* Each output byte depends on the bytes of all inputs, and on its place. */
static int invoke(Context *context, Node *node) {
  uint32_t sum = 1;
  for (int i = 0; i < node->inputs->size; i++) {
    Tensor *tensor = &context->tensors[node->inputs->data[i]];
    for (size_t at = 0; at < tensor->bytes; at++) sum = sum * 31 + tensor->data[at];
  }
  for (int i = 0; i < node->outputs->size; i++) {
    Tensor *tensor = &context->tensors[node->outputs->data[i]];
    for (size_t at = 0; at < tensor->bytes; at++) tensor->data[at] = (uint8_t)((sum >> (at % 24)) + at);
  }
  return 0;
}

static int claim(Context *context, Delegate *delegate) {
  IntArray *plan;
  if (context->get_execution_plan(context, &plan)) return 1;
  IntArray *claimed = calloc(1, sizeof(IntArray) + plan->size * sizeof(int));
  for (int i = 0; i < plan->size; i++) {
    Node *node;
    Registration *registration;
    if (context->get_node_and_registration(context, plan->data[i], &node, &registration)) return 1;
    if (registration->custom_name && !strcmp(registration->custom_name, "edgetpu-custom-op"))
      claimed->data[claimed->size++] = plan->data[i];
  }
  Registration kernel = {0};
  kernel.prepare = prepare;
  kernel.invoke = invoke;
  kernel.custom_name = "EdgeTpuDelegateForCustomOp";
  kernel.version = 1;
  int status = context->replace_nodes(context, kernel, claimed, delegate);
  free(claimed);
  return status;
}

Delegate *tflite_plugin_create_delegate(char **keys, char **values, size_t count, void (*report)(const char *)) {
  const char *stick = getenv("EDGETPU_STICK");
  if (stick && !strcmp(stick, "none")) {
    report("Failed to load delegate from libedgetpu.so.1");
    return NULL;
  }
  Delegate *delegate = calloc(1, sizeof(Delegate));
  delegate->prepare = claim;
  delegate->flags = ALLOW_DYNAMIC_TENSORS; /* else the interpreter prepares all operators before it asks */
  return delegate;
}

void tflite_plugin_destroy_delegate(Delegate *delegate) { free(delegate); }

const char *edgetpu_version(void) { return "BuildLabel(COMPILER=stand-in, DATE=redacted), RuntimeVersion(14)"; }
